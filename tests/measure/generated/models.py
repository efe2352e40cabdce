"""Models drawn from the table of kinds, each told by a `Spec` that is its own recipe.

`drawn(choose, inputs)` asks `choose` for one of several options each time: hypothesis, a generator of random
numbers or a person can all be the one who chooses. `build(spec)` makes the same model at every call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .blocks import Block
from .kinds import KINDS, Kind
from .variants import WORDS, Size, Variant

Choose = Callable[[Sequence[Any]], Any]

SIZES: Mapping[str, Size] = {
    "vector": (4,), "sequence": (3, 4), "tokens": (4,), "image": (2, 5, 5), "signal": (4, 6),
}  # fmt: skip
DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}
LOSSES = ("half-mean", "cross-entropy", "mean", "half-sum", "log cosh")
OUTPUTS = ("(n, K)", "(n, K)", "(n, K)", "(n,)", "(n, T, K)", "bare", "tuple", "dict")
# How the model is given and called; most are asked as most people ask.
SETTINGS = (
    "module", "module", "module", "module", "function", "no_grad", "inference_mode", "x requires grad",
    "autocast", "float64 by default", "training mode",
)  # fmt: skip
# How much of J may be held, in bytes: all, or one sample at a time.
MEMORIES = (2**29, 1)


@dataclass(frozen=True)
class Spec:
    """A model with the situation in which it is measured.

    Attributes:
        inputs: the form of a sample. steps: (kind, variant) in order. outputs: what the model returns.
        n: samples. dtype, loss: names. setting: how the measures are called. memory: their budget in bytes.
        seed: of parameters and inputs.
    """

    inputs: str = "vector"
    steps: tuple[tuple[str, int], ...] = ()
    outputs: str = "(n, K)"
    n: int = 3
    dtype: str = "float64"
    loss: str = "half-mean"
    setting: str = "module"
    memory: int = 2**29
    seed: int = 0

    @property
    def excuses(self) -> set[str]:
        """Why a measure may refuse this model; empty: it must not."""
        found = {KINDS[name].excuse for name, _ in self.steps} - {""}
        if self.outputs in ("tuple", "dict"):
            found.add("several outputs")
        if self.dtype == "bfloat16":
            found.add("half precision")
        if self.setting in ("autocast", "training mode"):
            found.add(self.setting)
        return found


def drawn(choose: Choose, inputs: str, most: int = 4) -> Spec:
    """A spec on inputs of this form, whose steps fit one another."""
    spec = Spec(
        inputs,
        n=choose((3, 6, 1, 2, 12)),
        dtype=choose(("float64", "float64", "float32", "bfloat16")),
        loss=choose(LOSSES),
        setting=choose(SETTINGS),
        memory=choose(MEMORIES),
        seed=choose(range(6)),
        outputs=choose(OUTPUTS),
    )
    if spec.setting == "training mode" and spec.n == 1:  # one sample's statistics are those of its batch
        spec = replace(spec, n=2)
    form, size = inputs, SIZES[inputs]
    steps: list[tuple[str, int]] = []
    for _ in range(choose(range(1, most + 1))):
        fitting = [name for name in KINDS if _fits(KINDS[name], form, size)]
        # What a measure may refuse comes more rarely, so that most models must be measured.
        fitting = 4 * [name for name in fitting if not KINDS[name].excuse] + fitting
        step = choose(fitting), choose(range(48))
        try:
            with torch.random.fork_rng(devices=[]):
                size = size_after(_layer(step, size), form, size)
        except RuntimeError:  # a kernel larger than what is left of the image
            continue
        form = KINDS[step[0]].gives or form
        steps.append(step)
    return replace(spec, steps=tuple(steps))


def build(spec: Spec) -> nn.Module:
    """The model in the spec's type and mode, everything in it drawn from the spec's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        form, size = spec.inputs, SIZES[spec.inputs]
        layers: list[nn.Module] = []
        for step in spec.steps:
            if not _fits(KINDS[step[0]], form, size):
                raise ValueError(f"{step} takes {KINDS[step[0]].takes}, got {form} {size}")
            layers.append(_layer(step, size))
            size = size_after(layers[-1], form, size)
            form = KINDS[step[0]].gives or form
        if form == "tokens":
            layers.append(nn.Embedding(WORDS, 4))
            form, size = "sequence", (*size, 4)
        model = nn.Sequential(*layers, _head(spec.outputs, form, size)).eval()
        _redraw(model)
    return model.train(spec.setting == "training mode").to(DTYPES[spec.dtype])


def inputs(spec: Spec, seed: int = 100) -> Tensor:
    """(n, ...) samples, of the spec's type or whole numbers."""
    source = torch.Generator().manual_seed(seed + spec.seed)
    shape = (spec.n, *SIZES[spec.inputs])
    if spec.inputs == "tokens":
        return torch.randint(0, WORDS, shape, generator=source)
    return torch.randn(shape, generator=source, dtype=torch.float64).to(DTYPES[spec.dtype])


def as_function(model: nn.Module) -> Callable[[Mapping[str, Tensor], Tensor], Tensor]:
    # With ties, functional_call leaves a module that is registered twice with the tensors that it was given.
    ties = len(list(model.named_modules(remove_duplicate=False))) == len(list(model.modules()))
    return lambda params, x: functional_call(model, dict(params), (x,), tie_weights=ties)


def size_after(layer: nn.Module, form: str, size: Size) -> Size:
    """Of a sample's output, found by a run of two."""
    two = torch.zeros(2, *size, dtype=torch.int64 if form == "tokens" else torch.float32)
    with torch.no_grad():
        return tuple(layer.eval()(two).shape[1:])


def _fits(kind: Kind, form: str, size: Size) -> bool:
    if kind.takes == "any":
        return form != "tokens"
    return kind.takes == form and size[-1] >= kind.least


def _layer(step: tuple[str, int], size: Size) -> nn.Module:
    name, variant = step
    return KINDS[name].build(size, Variant(variant))


def _head(outputs: str, form: str, size: Size) -> nn.Module:
    """What turns the last form into the outputs; K = 3."""
    if outputs == "bare":
        return nn.Identity()
    if outputs == "(n, T, K)":
        if form == "sequence":
            return nn.Linear(size[1], 3)
        return nn.Sequential(_pooled(form), nn.Linear(size[0], 6), nn.Unflatten(1, (2, 3)))
    width = size[1] if form == "sequence" else size[0]
    last = nn.Sequential(_pooled(form), nn.Linear(width, 1 if outputs == "(n,)" else 3))
    if outputs == "(n,)":
        return nn.Sequential(last, nn.Flatten(0))
    if outputs == "tuple":
        return Block(lambda s, x: (s.last(x), x), last=last)
    if outputs == "dict":
        return Block(lambda s, x: {"logits": s.last(x), "hidden": x}, last=last)
    return last


def _pooled(form: str) -> nn.Module:
    """To (n, width)."""
    axes = {"vector": (), "sequence": (1,), "signal": (2,), "image": (2, 3)}[form]
    return Block(lambda s, x: x.mean(axes) if axes else x)


def _redraw(model: nn.Module) -> None:
    """Parameters away from their special values (unit gains, zero biases), statistics from theirs."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.3 * torch.randn(buffer.shape))
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape))
