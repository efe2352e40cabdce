"""Pooling as a step of a forward pass: the windows, how much they hold, and how paths pass through them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["POOLS", "Pool", "each_axis", "mean_pool"]

_CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)
_AVERAGES = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
_ADAPTIVE: tuple[Any, ...] = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)


@dataclass(frozen=True, eq=False)
class Pool:
    """A pooling step.

    Attributes:
        kind: "max" or "average".
        sums: (n, ...) -> (n, ...), the sum over what each window holds.
        counts: what an average divides a window's sum by; a number, or one for each place.
        in_shape: of one sample.
    """

    kind: str
    sums: Callable[[Tensor], Tensor]
    counts: Tensor | float
    in_shape: tuple[int, ...]

    def paths(self, h: Tensor, p: float) -> Tensor:
        """Sum over each window of a^p h, with a = 1 for "max" (every path counts), 1/count for "average"."""
        if self.kind == "max":
            return self.sums(h)
        counts = self.counts.to(h) if isinstance(self.counts, Tensor) else self.counts
        return self.sums(h) * counts**-p

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
    return Pool("average", lambda h: h.sum(axes, keepdim), counts, before)


def _windows(before: Any, after: Any, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Any:
    """Sums over windows that may hang over the edge: a convolution with ones, each channel by itself."""
    axes = len(before) - 1
    kernel, padding, dilation = (each_axis(value, axes) for value in (kernel, padding, dilation))
    stride = kernel if stride is None or stride == [] else each_axis(stride, axes)
    places = zip(before[1:], after[1:], kernel, stride, padding, dilation, strict=True)
    # Where the last window ends, beyond or before the image's own end.
    edges = [(p, (out - 1) * s + d * (k - 1) + 1 - size - p) for size, out, k, s, p, d in places]
    wide = [side for pair in reversed(edges) for side in pair]

    def sums(h: Tensor) -> Tensor:
        ones = h.new_ones(before[0], 1, *kernel)
        return _CONVOLUTIONS[axes - 1](F.pad(h, wide), ones, None, stride, 0, dilation, before[0])

    return sums


def _max_pool(
    before: Any, after: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Pool:  # fmt: skip
    return Pool("max", _windows(before, after, kernel_size, stride, padding, dilation), 1.0, before)


def _average_pool(before: Any, after: Any, kernel_size: Any, stride: Any = None, padding: Any = 0,
                  *how: Any, **more: Any) -> Pool:  # fmt: skip
    sums = _windows(before, after, kernel_size, stride, padding, 1)
    ones = torch.ones(1, *before, dtype=torch.float64)
    # What torch divides by depends on padding, ceil_mode and two more arguments: read off, not repeated.
    average = _AVERAGES[len(before) - 2](ones, kernel_size, stride, padding, *how, **more)
    return Pool("average", sums, (sums(ones) / average).round(), before)


def _adaptive(kind: str) -> Callable[..., Pool]:
    def pool(before: Any, after: Any, output_size: Any, return_indices: bool = False) -> Pool:
        counts = torch.ones((), dtype=torch.float64)
        for size, out in zip(before[1:], after[1:], strict=True):
            counts = counts[..., None] * _adaptive_windows(size, out)
        average = _ADAPTIVE[len(before) - 2]
        return Pool(kind, lambda h: average(h, tuple(after[1:])) * counts.to(h), counts, before)

    return pool


def _adaptive_windows(size: int, out: int) -> Tensor:
    """How many of `size` places each of `out` adaptive windows covers."""
    return torch.tensor(
        [math.ceil((i + 1) * size / out) - i * size // out for i in range(out)], dtype=torch.float64
    )


def each_axis(value: Any, axes: int) -> tuple[int, ...]:
    """A number, or one for each axis of space, as the latter."""
    values = (value,) if isinstance(value, int) else tuple(int(v) for v in value)
    return values * axes if len(values) == 1 else values


POOLS: dict[str, Callable[..., Pool]] = {
    f"{kind}_pool{axes}d": make
    for axes in (1, 2, 3)
    for kind, make in {
        "max": _max_pool,
        "avg": _average_pool,
        "adaptive_avg": _adaptive("average"),
        "adaptive_max": _adaptive("max"),
    }.items()
}
