"""Which layer follows which, seen by running a model once; and the proof that a rewritten copy is the same.

Folding and rescaling change weights so that the function stays. Both look at one forward pass for the order
of the layers, and both compare outputs before they hand their copy on: what was not foreseen is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

SIZES = (32, 28, 8, 16, 64, 224)


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a submodule: its name, the very tensors that went in and came out, and how often each had
    been written to by then.
    """

    name: str
    part: nn.Module
    given: Tensor
    out: Tensor
    versions: tuple[int, int]


def evaluated(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: got {type(model).__name__}; it takes a torch.nn.Module")
    for name, value in model.named_parameters():
        wrong, size = int((~value.isfinite()).sum()), value.numel()
        if wrong:
            raise ValueError(
                f"model: {name!r} has {wrong} of {size} entries ({wrong / size:.2g}) that are NaN or "
                "infinite, so its outputs are no numbers (diverged training?)"
            )
    return copy.deepcopy(model).eval()


def watch(
    model: nn.Module, kinds: tuple[type[nn.Module], ...], x: Tensor | None
) -> tuple[list[Call], Tensor]:
    """The calls of submodules of some kinds, in order, and the input that was used.

    Without `x`, random samples in the shape that the first layer asks for are tried.

    Raises:
        ValueError: the model takes none of them, or not `x`.
    """
    calls: list[Call] = []

    def note(name: str) -> Callable[..., None]:
        return lambda part, given, out: calls.append(
            Call(name, part, given[0], out, (given[0]._version, out._version))
        )

    hooks = [
        part.register_forward_hook(note(name))
        for name, part in model.named_modules()
        if isinstance(part, kinds)
    ]
    problem: Exception | None = None
    try:
        for probe in _probes(model) if x is None else [_like(model, x)]:
            calls.clear()
            try:
                with torch.no_grad():
                    model(probe.clone())
                return list(calls), probe
            except (RuntimeError, ValueError) as error:
                problem = error
    finally:
        for hook in hooks:
            hook.remove()
    raise ValueError(
        f"x: {'no shape that was tried' if x is None else tuple(x.shape)} fits the model ({problem}); "
        "give an example input, x=..."
    )


class Difference(NamedTuple):
    """The largest difference of two models' outputs, the largest output, and whether the one is rounding."""

    gap: float
    size: float
    negligible: bool


def difference(model: nn.Module, changed: nn.Module, x: Tensor) -> Difference:
    with torch.no_grad():
        before, after = (_joined(part(x.clone())) for part in (model, changed))
    gap, size = float((before - after).abs().max()), float(before.abs().max())
    # Rounding stays far below the root of the unit; a layer in the wrong place is off by order one.
    return Difference(gap, size, gap <= 10 * torch.finfo(before.dtype).eps ** 0.5 * size)


def prove_equal(model: nn.Module, changed: nn.Module, x: Tensor, problem: str) -> None:
    """Refuses a copy whose outputs are not those of the model.

    Raises:
        ValueError: with `problem`, which says what the model must look like.
    """
    found = difference(model, changed, x)
    if not found.negligible:
        raise ValueError(
            f"model: its outputs would change by {found.gap:.2g} (largest {found.size:.2g}); {problem}"
        )


def _joined(outputs: Any) -> Tensor:
    """All the numbers that a model puts out."""
    if isinstance(outputs, Tensor):
        return outputs.flatten()
    parts = outputs.values() if isinstance(outputs, dict) else outputs
    return torch.cat([_joined(part) for part in parts if part is not None])


def _like(model: nn.Module, x: Tensor) -> Tensor:
    like = next(model.parameters())
    return x[:4].detach().to(like) if x.is_floating_point() else x[:4].detach().to(like.device)


def _probes(model: nn.Module) -> list[Tensor]:
    first = next((part for part in model.modules() if isinstance(part, (nn.Linear, nn.Conv2d))), None)
    if first is None:
        raise ValueError("model: it has no nn.Linear or nn.Conv2d")
    shapes: list[tuple[int, ...]]
    if isinstance(first, nn.Linear):
        shapes = [(4, first.in_features)]
    else:
        size = getattr(model, "size", None)
        sizes = (size,) if isinstance(size, int) else SIZES
        shapes = [(4, first.in_channels, side, side) for side in sizes]
    source = torch.Generator().manual_seed(0)
    return [_like(model, torch.randn(shape, generator=source, dtype=torch.float64)) for shape in shapes]
