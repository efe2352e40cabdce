"""The losses of single samples, and the targets that they take. The names are those of labkit.training.

| name | of one sample | over samples |
| --- | --- | --- |
| cross-entropy | -log softmax(f)[y], y a class number | mean |
| error | 1 where the largest output is not that of the class, else 0 | mean |
| half-sum, half-mean | 1/2 sum over outputs of (f - y)^2 | sum, mean |
| mean | mean over outputs of (f - y)^2 | mean |

Outputs are (n, K), or (n, T, ..., K) for sequences, with classes along the last axis: a sample's
cross-entropy and error are then means over its positions, and squared losses run over all of its outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from labkit.measure.guards import refuse_infinite_targets

__all__ = ["CLASSES", "LOSSES", "targets"]


def _cross_entropy(f: Tensor, y: Tensor) -> Tensor:
    if f.ndim == 2:
        return F.cross_entropy(f, y, reduction="none")
    return F.cross_entropy(f.movedim(-1, 1), y, reduction="none").flatten(1).mean(1)


def _error(f: Tensor, y: Tensor) -> Tensor:
    return (f.argmax(-1) != y).to(f.dtype).reshape(len(f), -1).mean(1)


def _half_sum(f: Tensor, y: Tensor) -> Tensor:
    return (f - y).square().flatten(1).sum(1) / 2


def _mean(f: Tensor, y: Tensor) -> Tensor:
    return (f - y).square().flatten(1).mean(1)


# name -> (loss of each sample (n,), mean over the samples or sum)
LOSSES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str]] = {
    "cross-entropy": (_cross_entropy, "mean"),
    "error": (_error, "mean"),
    "half-sum": (_half_sum, "sum"),
    "half-mean": (_half_sum, "mean"),
    "mean": (_mean, "mean"),
}
CLASSES = ("cross-entropy", "error")


def targets(loss: str, shape: tuple[int, ...], n: int, y: Tensor, dtype: torch.dtype, caller: str) -> Tensor:
    """The targets in the form that the loss takes.

    Args:
        shape: of the outputs of one sample, (K,) or (T, ..., K). n: samples. dtype: of the outputs.

    Raises:
        ValueError: they have another form.
    """
    if not isinstance(y, Tensor):
        raise ValueError(f"{caller}: y is a {type(y).__name__}, needs a tensor")
    refuse_infinite_targets(y, caller)
    K, got = shape[-1], f"{caller}: y is {tuple(y.shape)} of {y.dtype} for outputs {(n, *shape)}"
    if loss in CLASSES:
        wanted = (n, *shape[:-1])
        fits = not y.is_floating_point() and y.shape == wanted and K >= 2
        if not fits or not bool(((y >= 0) & (y < K)).all()):
            raise ValueError(
                f"{got}; {loss} takes class numbers from 0 to K - 1 = {K - 1}, {wanted} int64, and at "
                "least 2 outputs, the last axis"
            )
        return y.to(torch.int64)
    if y.ndim == 1 and shape == (1,):
        y = y[:, None]
    if not y.is_floating_point() or y.shape != (n, *shape):
        raise ValueError(f"{got}; {loss} takes floats {(n, *shape)}")
    return y.to(dtype)
