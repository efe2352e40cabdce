"""Models that found a fault, each the smallest that has it: mended, and must not come back."""

from __future__ import annotations

from .models import Spec


def after_dense(kind: str, variant: int, n: int = 3, setting: str = "module") -> Spec:
    return Spec(steps=(("dense", 0), (kind, variant)), n=n, setting=setting)


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
    # Under no_grad the ascent's gradient was zero; under inference_mode there was none.
    Spec(steps=(("dense", 0),), setting="no_grad"),
    Spec(steps=(("dense", 0),), setting="inference_mode"),
    # RReLU draws nothing in evaluation mode; a parameter without entries.
    after_dense("activation", 9),
    after_dense("odd parameter", 4),
    # scale_grad_by_freq: a sample's gradient changes with the chunk, its outputs do not.
    Spec("tokens", (("odd embedding", 1),)),
    # Samples that couple from the fourth on.
    after_dense("coupled", 12, n=6),
    # torch's own warning about a reentrant checkpoint.
    after_dense("reentrant checkpoint", 0),
    # A forward that differentiates by its input.
    after_dense("context", 14),
    # Outputs (n,) and a loss of one's own: together they broadcast to (b, b).
    Spec(steps=(("dense", 0),), outputs="(n,)", loss="log cosh"),
)
