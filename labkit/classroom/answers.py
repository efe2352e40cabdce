"""What a check of an answer is made of: values compared, inputs left alone, limits kept.

Each raises an AssertionError with one line of reason, which is what a student reads.
"""

from __future__ import annotations

import copy
import hashlib
import math
import numbers
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

__all__ = ["Frugal", "require", "same", "unchanged"]

LARGE = 2**20  # numbers of a tensor above which `unchanged` keeps no copy


def same(what: str, got: Any, expected: Any, *, tol: float = 1e-9) -> None:
    """Asserts that a result is the expected tensor or number, to ``tol * (1 + |expected|)`` in every entry.

    Args:
        what: the name of the result in the message.
        got: the student's.
        expected: ours.
        tol: of an entry, relative to 1 + its size.

    Raises:
        AssertionError: one line with `what` and the first thing wrong: kind, shape, dtype, or the entry that
            is furthest off, with the ratio of the two values (2 is a factor forgotten, -1 a sign).
    """
    if isinstance(expected, torch.Tensor):
        require(isinstance(got, torch.Tensor), f"{what}: got a {type(got).__name__}, should be a tensor")
        shapes = tuple(got.shape), tuple(expected.shape)
        require(shapes[0] == shapes[1], f"{what}: got shape {shapes[0]}, should be {shapes[1]}")
        require(got.dtype == expected.dtype, f"{what}: got {got.dtype}, should be {expected.dtype}")
    else:
        single = isinstance(got, numbers.Real) or (isinstance(got, torch.Tensor) and got.ndim == 0)
        require(single, f"{what}: got a {type(got).__name__}, should be a number")
    left = np.atleast_1d(np.asarray(got.detach() if isinstance(got, torch.Tensor) else got, dtype=float))
    right = np.atleast_1d(np.asarray(expected, dtype=float))
    with np.errstate(all="ignore"):
        excess = np.abs(left - right) / (1 + np.abs(right))
        # Equal infinities agree; NaN and an infinity on one side alone are as far off as can be.
        excess = np.where(left == right, 0.0, np.where(np.isfinite(excess), excess, np.inf))
        if excess.size and excess.max() > tol:
            place = np.unravel_index(int(excess.argmax()), excess.shape)
            a, b = float(left[place]), float(right[place])
            ratio = f", ratio {a / b:.3g}" if b and math.isfinite(a / b) else ""
            at = f" at {tuple(int(i) for i in place)}" if isinstance(expected, torch.Tensor) else ""
            require(False, f"{what}: got {a:.6g}{at}, should be {b:.6g}{ratio}")


@contextmanager
def unchanged(**inputs: Any) -> Iterator[None]:
    """Asserts that the block leaves its inputs as they were: tensors, arrays, numbers, and lists of them.

    Args:
        **inputs: name -> what the block may read and must not write.

    Returns:
        A context manager.

    Raises:
        AssertionError: names the input that was overwritten.
    """
    before = {name: _kept(value) for name, value in inputs.items()}
    yield
    for name, value in inputs.items():
        large = isinstance(before[name], bytes)
        same_as_before = _kept(value) == before[name] if large else _equal(value, before[name])
        require(same_as_before, f"the input {name} is overwritten; work on a copy")


def _kept(value: Any) -> Any:
    """A copy; of a large tensor a digest alone, because a second one may not fit."""
    if isinstance(value, torch.Tensor) and value.numel() > LARGE:
        return hashlib.blake2b(value.detach().cpu().contiguous().view(torch.uint8).numpy().data).digest()
    return copy.deepcopy(value)


class Frugal(TorchFunctionMode):
    """Stops an answer that would run for hours or fill the memory, before it does, on any system.

    Counts the calls of torch inside the block, and looks ahead at the size of a matrix product and of a full
    singular value decomposition. It cannot see loops in plain Python or NumPy.

    Args:
        calls: how many calls of torch are allowed.
        entries: how many numbers a result may hold; 2**27 are a gigabyte in float64.

    Raises:
        AssertionError: says which limit was met and what to do instead.
    """

    def __init__(self, calls: int = 10_000, entries: int = 2**27) -> None:
        super().__init__()
        self.calls, self.entries, self.made = calls, entries, 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self.made += 1
        require(self.made <= self.calls, f"more than {self.calls:,} calls of torch: a formula needs no loop")
        side = _longest_side(getattr(func, "__name__", ""), args, kwargs)
        told = f"asks for {side:,} × {side:,} numbers; the Gram matrix on the other side is small"
        require(side**2 <= self.entries, told)
        return func(*args, **kwargs)


def _longest_side(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Of the square matrix as large as what a product or a full singular value decomposition will return."""
    shapes = [value.shape for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
    if name == "linalg_svd" and (args[1] if len(args) > 1 else kwargs.get("full_matrices", True)):
        return int(max(shapes[0][-2:]))
    if name in ("matmul", "__matmul__", "mm") and [len(shape) for shape in shapes] == [2, 2]:
        return math.isqrt(shapes[0][0] * shapes[1][1])
    return 0


def require(holds: bool, reason: str) -> None:
    """An assert that `python -O` leaves in place: without it every answer would pass.

    Args:
        holds: the condition.
        reason: one line for the student.

    Raises:
        AssertionError: it does not hold.
    """
    if not holds:
        raise AssertionError(reason)


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, np.ndarray):
        return np.array_equal(left, right)
    if isinstance(left, Sequence) and not isinstance(left, str):
        return len(left) == len(right) and all(map(_equal, left, right))
    return bool(left == right)
