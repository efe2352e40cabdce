"""Targets for regression on labels: one-hot, plus and minus one, and one-hot less its mean."""

import torch
import torch.nn.functional as F

from labkit.data._checks import extent, floating, whole_number


def one_hot(y: torch.Tensor, classes: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """One-hot rows: 1 at the class, 0 elsewhere.

    Args:
        y: labels, (n,), of an integer dtype, in 0..classes-1.
        classes: K.
        dtype: of the result.

    Returns:
        (n, K), on the device of `y`.

    Raises:
        ValueError: labels that are not whole numbers, not one a sample, or not below `classes`.
    """
    classes = whole_number("classes", classes, low=1)
    dtype = floating("dtype", dtype)
    if not isinstance(y, torch.Tensor) or y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        got = y.dtype if isinstance(y, torch.Tensor) else type(y).__name__
        raise ValueError(f"y: takes a tensor of whole numbers (int64), got {got}.")
    if y.ndim != 1:
        raise ValueError(f"y: takes one label a sample, shape (n,), got shape {tuple(y.shape)}.")
    first, last = extent(y)
    if first < 0 or last >= classes:
        raise ValueError(f"y: labels run from {first} to {last}, classes={classes} takes 0..{classes - 1}.")
    return F.one_hot(y.long(), classes).to(dtype)


def signed(y: torch.Tensor, classes: int = 2, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Targets of plus and minus one.

    Two classes need one output: -1 for class 0 and +1 for class 1. More classes have one output each: +1 at
    the class, -1 elsewhere.

    Args:
        y: (n,) class numbers.
        classes: K, at least 2.
        dtype: of the targets.

    Returns:
        (n, 1) for two classes, (n, K) for more. Never (n,): subtracted from (n, 1) that would give (n, n).

    Raises:
        ValueError: as `one_hot`.
    """
    targets = 2 * one_hot(y, classes, dtype) - 1
    return targets[:, 1:] if classes == 2 else targets


def centred(y: torch.Tensor, classes: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """One-hot rows less 1/K, so that each row sums to zero and the constant part of the labels is gone.

    Args:
        y: (n,) class numbers.
        classes: K.
        dtype: of the targets.

    Returns:
        (n, K).

    Raises:
        ValueError: as `one_hot`.
    """
    return one_hot(y, classes, dtype) - 1.0 / classes
