"""What is known to be wrong, each with its smallest model; and what was, and must not come back."""

from __future__ import annotations

from dataclasses import dataclass

from .judge import Finding
from .models import Spec


@dataclass(frozen=True)
class Hole:
    """A fault that is not yet mended.

    Attributes:
        spec: the smallest model that has it. route, what, words: of the finding; words of its detail.
        kinds: the steps that have it; empty: any model may. setting: in which alone it shows; empty: in all.
        reason: what is wrong.
    """

    spec: Spec
    route: str
    what: str
    words: str
    reason: str
    kinds: tuple[str, ...] = ()
    setting: str = ""

    def covers(self, spec: Spec, found: Finding) -> bool:
        """Whether this finding is this hole's, on whichever route."""
        has_kind = not self.kinds or any(name in self.kinds for name, _ in spec.steps)
        in_setting = self.setting in ("", spec.setting)
        return has_kind and in_setting and found.what == self.what and self.words in found.detail


def after_dense(kind: str, variant: int, n: int = 3, setting: str = "module") -> Spec:
    return Spec(steps=(("dense", 0), (kind, variant)), n=n, setting=setting)


HOLES: dict[str, Hole] = {
    "rrelu": Hole(
        after_dense("activation", 9),
        "jacobian",
        "refused",
        "rrelu_with_noise",
        "nn.RReLU in evaluation mode draws no number, and is refused for chance",
        ("activation",),
    ),
    "empty parameter": Hole(
        after_dense("odd parameter", 4),
        "empirical_ntk",
        "unclear",
        "ZeroDivisionError",
        "a parameter without entries divides by its size",
        ("odd parameter",),
    ),
    "frequency": Hole(
        Spec("tokens", (("odd embedding", 1),)),
        "jacobian",
        "differs",
        "off by",
        "scale_grad_by_freq: a sample's gradient changes with the chunk, its outputs do not",
        ("odd embedding",),
    ),
    "late coupling": Hole(
        after_dense("coupled", 12, n=6),
        "max_sharpness",
        "accepted",
        "samples look at each other",
        "samples that couple from the fourth on are accepted by batch_gradients and the sharpness measures",
        ("coupled",),
    ),
    "checkpoint's warning": Hole(
        after_dense("reentrant checkpoint", 0),
        "jacobian",
        "warned",
        "None of the inputs have requires_grad=True",
        "torch's warning about a reentrant checkpoint reaches the caller",
        ("reentrant checkpoint",),
    ),
    "inference mode": Hole(
        Spec(steps=(("dense", 0),), setting="inference_mode"),
        "max_sharpness",
        "refused",
        "the outputs do not depend on any parameter",
        "under inference_mode the sharpness measures see no gradient, and blame the model",
        setting="inference_mode",
    ),
    "energy": Hole(
        after_dense("context", 14),
        "svd",
        "unclear",
        "_will_engine_execute_node",
        "a forward that differentiates by its input meets torch's own error in svd",
        ("context",),
    ),
    "one output, own loss": Hole(
        Spec(steps=(("dense", 0),), outputs="(n,)", loss="log cosh"),
        "gradient_gram",
        "refused",
        "may depend on nothing but its own outputs",
        "outputs (n,) reach the caller's loss as (b, 1) and broadcast with targets (b,)",
    ),
}

MENDED: tuple[Spec, ...] = (
    # torch's vmap(jacrev) of PReLU gives rows that are no sample's.
    after_dense("activation", 13),
    # A branch, a sorted batch, a loop that goes on while any sample is unsure.
    after_dense("branches", 0, n=6),
    after_dense("branches", 4, n=6),
    # Backwards without a graph, or that may not be differentiated.
    after_dense("custom", 1),
    after_dense("custom", 2),
    Spec("sequence", (("attention", 0),)),
    Spec("tokens", (("embedding", 1),)),
    Spec("tokens", (("bag", 0),)),
    Spec("image", (("in place", 0),)),
    after_dense("coupled", 1, n=6),
    # Under no_grad the ascent's gradient was zero.
    Spec(steps=(("dense", 0),), setting="no_grad"),
)
