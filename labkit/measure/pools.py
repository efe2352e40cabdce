"""Pooling as a step of a chain: the windows, how much they hold, and how paths pass through them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["POOLS", "Pool", "mean_pool"]


@dataclass(frozen=True, eq=False)
class Pool:
    """A pooling step.

    Attributes:
        kind: "max" or "average".
        average: (n, ...) -> (n, ...), each window's sum over `counts`; also of a max pool, for its windows.
        counts: what a window's sum is divided by; a number, or one for each place.
        in_shape: of one sample.
    """

    kind: str
    average: Callable[[Tensor], Tensor]
    counts: Tensor | float
    in_shape: tuple[int, ...]

    def paths(self, h: Tensor, p: float) -> Tensor:
        """Sum over each window of a^p h, with a = 1 for "max" (every path counts), 1/count for "average"."""
        counts = self.counts.to(h) if isinstance(self.counts, Tensor) else self.counts
        return self.average(h) * (counts if self.kind == "max" else counts ** (1.0 - p))

    @property
    def lipschitz(self) -> float:
        """A Lipschitz constant in l2: 1 for a max pool whose windows do not overlap, 1/k for k by k means."""
        with torch.enable_grad():
            ones = torch.ones(1, *self.in_shape, dtype=torch.float64, requires_grad=True)
            windows = self.paths(ones, 1.0)
            (reach,) = torch.autograd.grad(windows.sum(), ones)
        # A max moves by at most the largest change in its window; a mean is bounded by Schur's test.
        return math.sqrt(float(reach.max()) * (1.0 if self.kind == "max" else float(windows.detach().max())))


def mean_pool(before: tuple[int, ...], axes: list[int], keepdim: bool) -> Pool:
    """The mean over some axes (the sample axis is 0)."""
    counts = float(math.prod(before[axis - 1] for axis in axes))
    return Pool("average", lambda h: h.mean(axes, keepdim), counts, before)


def _max_pool(
    before: Any, after: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Pool:  # fmt: skip
    if ceil_mode or dilation not in (1, (1, 1), [1, 1]):
        raise ValueError("model: max pooling with ceil_mode or dilation is not known here")

    def average(h: Tensor) -> Tensor:
        return F.avg_pool2d(h, kernel_size, stride, padding)

    # Padding is counted, as zeros: so average times the window's size is the sum over what is there.
    return Pool("max", average, _size(kernel_size), before)


def _average_pool(
    before: Any, after: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Pool:  # fmt: skip
    if ceil_mode:
        raise ValueError("model: average pooling with ceil_mode is not known here")

    def average(h: Tensor) -> Tensor:
        return F.avg_pool2d(h, kernel_size, stride, padding, False, count_include_pad, divisor_override)

    size = float(divisor_override or _size(kernel_size))
    if count_include_pad or divisor_override:
        return Pool("average", average, size, before)
    there = F.avg_pool2d(torch.ones(1, *before, dtype=torch.float64), kernel_size, stride, padding)
    return Pool("average", average, (there * size).round(), before)


def _adaptive(kind: str) -> Callable[..., Pool]:
    def pool(before: Any, after: Any, output_size: Any, return_indices: bool = False) -> Pool:
        rows, columns = (_windows(a, b) for a, b in zip(before[1:], after[1:], strict=True))
        return Pool(
            kind, lambda h: F.adaptive_avg_pool2d(h, after[1:]), rows[:, None] * columns[None, :], before
        )

    return pool


def _size(kernel: Any) -> float:
    return float(kernel**2 if isinstance(kernel, int) else math.prod(kernel))


def _windows(size: int, out: int) -> Tensor:
    """How many of `size` places each of `out` adaptive windows covers."""
    return torch.tensor(
        [math.ceil((i + 1) * size / out) - i * size // out for i in range(out)], dtype=torch.float64
    )


POOLS: dict[str, Callable[..., Pool]] = {
    "max_pool2d": _max_pool,
    "avg_pool2d": _average_pool,
    "adaptive_avg_pool2d": _adaptive("average"),
    "adaptive_max_pool2d": _adaptive("max"),
}
