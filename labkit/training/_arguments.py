"""What training asks of its arguments."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from labkit.training.ensemble import Ensemble
from labkit.training.losses import check_targets


def whole(name: str, value: object, least: int = 1) -> int:
    """Returns `value` as an int, or raises a ValueError that names the argument."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{name}: got {value!r}; it takes a whole number of at least {least}")
    return int(value)


def within(name: str, value: object, low: float, high: float = math.inf, closed: bool = False) -> float:
    """Returns `value` as a float in (low, high), or [low, high) if closed; or raises a ValueError."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        number = float(value)
        if (low <= number if closed else low < number) and number < high:
            return number
    top = "" if high == math.inf else f" and below {high:g}"
    raise ValueError(
        f"{name}: got {value!r}; it takes a number {'at least' if closed else 'above'} {low:g}{top}"
    )


def tensors(name: str, data: Tensor | Sequence[Tensor], ensemble: Ensemble) -> list[Tensor]:
    """One tensor for all copies, or one a copy: on the ensemble's device and, if floating, in its dtype."""
    parts = [data] if isinstance(data, Tensor) else list(data)
    if not all(isinstance(part, Tensor) for part in parts):
        raise ValueError(f"{name}: got {type(parts[0]).__name__}; it takes a tensor, or one tensor a copy")
    if not isinstance(data, Tensor) and len(parts) != ensemble.size:
        raise ValueError(
            f"{name}: got {len(parts)} tensors for {ensemble.size} copies; it takes one, or one a copy"
        )
    if any(part.ndim == 0 or part.shape != parts[0].shape or len(part) == 0 for part in parts):
        shapes = ", ".join(str(tuple(part.shape)) for part in parts)
        raise ValueError(f"{name}: shapes {shapes}; it takes (n, ...) with n >= 1, the same for each copy")
    dtype = ensemble.dtype
    return [part.detach().to(ensemble.device, dtype if part.is_floating_point() else None) for part in parts]


def training_set(
    ensemble: Ensemble, x: Tensor | Sequence[Tensor], y: Tensor | Sequence[Tensor], loss: str
) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and targets that fit each other, the network and the loss."""
    xs, ys = tensors("x", x, ensemble), tensors("y", y, ensemble)
    if len(xs[0]) != len(ys[0]):
        raise ValueError(
            f"x, y: {len(xs[0])} inputs for {len(ys[0])} targets; they take as many of one as of the other"
        )
    first = xs[0][:1].expand(ensemble.size, *xs[0][:1].shape)
    try:
        with torch.no_grad(), evaluating(ensemble):
            outputs = ensemble(first)
    except (RuntimeError, IndexError) as error:
        raise ValueError(
            f"x: one input of shape {tuple(xs[0].shape[1:])} does not fit the network: {error}"
        ) from error
    if outputs.ndim != 3:
        raise ValueError(f"model: gives {tuple(outputs.shape[1:])} for one input; training takes (1, K)")
    return xs, [check_targets(loss, outputs.shape[2], part) for part in ys]


def refuse_dropout(ensemble: Ensemble) -> None:
    """Dropout draws from torch's global generator, so that one seed would not give one run."""
    names = [
        name.removeprefix("stack.")
        for name, part in ensemble.named_modules()
        if isinstance(part, _DropoutNd) and part.training and part.p > 0
    ]
    if names:
        raise ValueError(
            f"model: {', '.join(names)} is active dropout, which draws from torch's global generator: the "
            "same seed would not give the same run. Set p=0, or call eval() on these layers"
        )


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; each layer gets its own mode back."""
    changed = [part for part in module.modules() if part.training]
    for part in changed:
        part.training = False
    try:
        yield
    finally:
        for part in changed:
            part.training = True
