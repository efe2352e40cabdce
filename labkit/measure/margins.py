"""Margins (paper 2, equation 2): how far the right class is ahead, of a sample and of a training set."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["margin", "margins"]


def margins(outputs: Tensor, y: Tensor) -> Tensor:
    """f(x)[y] minus the largest other output, for each sample.

    Args:
        outputs: (n, K), K >= 2.
        y: (n,) class numbers, int64.

    Returns:
        (n,) in the type of `outputs`; negative where the sample is misclassified.

    Raises:
        ValueError: shapes, types or class numbers do not fit.

    Cost: two passes over the n K outputs, and a copy of them.

    Reference: paper 2, section 2.2, (2).
    """
    if outputs.ndim != 2 or outputs.shape[1] < 2 or not outputs.is_floating_point():
        raise ValueError(
            f"outputs: shape {tuple(outputs.shape)} of {outputs.dtype}; margins take (n, K) floats, K >= 2"
        )
    n, K = outputs.shape
    if y.shape != (n,) or y.is_floating_point() or y.dtype == torch.bool:
        raise ValueError(
            f"y: shape {tuple(y.shape)} of {y.dtype}; margins of {n} outputs take class numbers ({n},) int64"
        )
    if n and not bool(((y >= 0) & (y < K)).all()):
        raise ValueError(
            f"y: class numbers from {int(y.min())} to {int(y.max())} for {K} outputs; they start at 0"
        )
    right = outputs.gather(1, y[:, None].long())[:, 0]
    others = outputs.scatter(1, y[:, None].long(), -math.inf)
    return right - others.amax(1)


def margin(outputs: Tensor, y: Tensor, epsilon: float = 0.05) -> float:
    """The margin of a set: the k-th smallest, k = max(1, ceil(epsilon n)).

    A share epsilon of the samples may lie at it or below; epsilon = 0 is the hard margin, the smallest of
    all. (The paper calls this the epsilon percentile and takes 5 per cent.)

    Args:
        outputs, y: as `margins` takes them.
        epsilon: from 0 to 1.

    Returns:
        The margin, in units of the output; negative where that sample is misclassified.

    Raises:
        ValueError: epsilon is out of its range, there are no samples, or as `margins`.

    Cost: `margins`, and a selection among n numbers.

    Reference: paper 2, section 2.2.
    """
    if not 0 <= epsilon <= 1:
        raise ValueError(f"epsilon: got {epsilon!r}; it takes a share of the samples from 0 to 1")
    found = margins(outputs, y)
    n = len(found)
    if n == 0:
        raise ValueError("outputs: no samples; a margin takes at least one")
    # Rounded before the ceiling: .07 * 100 is 7.000000000000001 in floating point.
    k = min(n, max(1, math.ceil(round(epsilon * n, 9))))
    return float(found.kthvalue(k).values)
