"""Exercises inside a notebook: tried, graded and explained, without ever stopping a "Run All".

    with attempt("4.1"):                                    # the example that a student sees
        assert torch.equal(jacobian(W, V, X, dphi), expected)
    grade("4.1", check_jacobian, solution=solution_jacobian, answer=jacobian)
    check_prediction(prediction, observed, allowed, provable, name="4.5")

A check is a function of the answer that raises an AssertionError with one line of reason. `same`,
`unchanged` and `Frugal` help to write one. What an unsolved notebook prints is constant text.
"""

from __future__ import annotations

import copy
import math
import numbers
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

__all__ = ["Frugal", "attempt", "check_prediction", "grade", "same", "unchanged"]

LONGEST_REASON = 160  # characters


@contextmanager
def attempt(name: str) -> Iterator[None]:
    """Runs the example of an exercise and says how it went, in one line; never raises.

    A bare ``raise NotImplementedError`` is the stub's own and means *not solved yet*. One with a message
    comes from a library and is reported like any other exception.
    """
    try:
        yield
    except Exception as error:
        _say(f"{name}: {'not solved yet' if _is_stub(error) else f'the example fails: {_reason(error)}'}")
    else:
        _say(f"{name}: the example comes out right")


def grade(
    name: str,
    check: Callable[[Callable[..., Any]], object],
    *,
    solution: Callable[..., Any],
    answer: Callable[..., Any],
) -> None:
    """Puts the solution and the student's answer through the same hidden tests, and prints a line on each.

    Args:
        name: the exercise, "4.1".
        check: takes a function and raises an AssertionError that says what is wrong with it.
        solution: must pass.
        answer: what the student wrote; whatever it does, nothing is raised.

    Raises:
        AssertionError, or whatever else the solution raises: then the exercise is wrong, not the student.
    """
    check(solution)
    _say(f"{name}: the solution passes its tests")
    try:
        check(answer)
    except Exception as error:
        _say(f"{name}: your answer {'is not solved yet' if _is_stub(error) else f'fails: {_reason(error)}'}")
    else:
        _say(f"{name}: your answer passes its tests")


def check_prediction(
    prediction: Mapping[str, Any],
    observed: Mapping[str, Any],
    allowed: Mapping[str, Any],
    provable: Mapping[str, Any],
    *,
    name: str = "prediction",
) -> None:
    """Says which items of a prediction, and of what was then observed, are missing; marks the provable ones.

    Open items, those without an entry in `provable`, are never marked right or wrong.

    Args:
        prediction, observed: item -> what the student wrote; None or absent is not filled in yet.
        allowed: item -> what it takes: a ``range`` for whole numbers, a pair (low, high) for other numbers,
            or a sequence of words.
        provable: item -> the value that follows from a formula. An int or a word must be met exactly, a
            float to 2 % (two digits). It marks `prediction` alone.

    Raises:
        ValueError: `provable` names an item that `allowed` does not, or one whose value is not allowed.
    """
    for item, value in provable.items():
        if item not in allowed or not _fits(value, allowed[item]):
            raise ValueError(f"provable: {item!r} = {value!r} is not among the allowed values")
    for title, entries in (("prediction", prediction), ("observed", observed)):
        _say(f"{name}: {title}: {_filled(entries, allowed)}")
    filled = {item: value for item, value in provable.items() if prediction.get(item) is not None}
    marks = [f"{item}: {_mark(prediction[item], filled[item], allowed[item])}" for item in filled]
    if marks:
        _say(f"{name}: provable: {'; '.join(marks)}")


def same(what: str, got: Any, expected: Any, *, tol: float = 1e-9) -> None:
    """Asserts that a result is the expected tensor or number, to ``tol * (1 + |expected|)`` in every entry.

    Raises:
        AssertionError: one line with `what` and the first thing wrong: kind, shape, dtype, or the entry that
            is furthest off, with the ratio of the two values (2 is a factor forgotten, -1 a sign).
    """
    if isinstance(expected, torch.Tensor):
        _require(isinstance(got, torch.Tensor), f"{what}: got a {type(got).__name__}, should be a tensor")
        shapes = tuple(got.shape), tuple(expected.shape)
        _require(shapes[0] == shapes[1], f"{what}: got shape {shapes[0]}, should be {shapes[1]}")
        _require(got.dtype == expected.dtype, f"{what}: got {got.dtype}, should be {expected.dtype}")
    else:
        single = isinstance(got, numbers.Real) or (isinstance(got, torch.Tensor) and got.ndim == 0)
        _require(single, f"{what}: got a {type(got).__name__}, should be a number")
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
            _require(False, f"{what}: got {a:.6g}{at}, should be {b:.6g}{ratio}")


@contextmanager
def unchanged(**inputs: Any) -> Iterator[None]:
    """Asserts that the block leaves its inputs as they were: tensors, arrays, numbers, and lists of them.

    Raises:
        AssertionError: names the input that was overwritten.
    """
    before = {name: copy.deepcopy(value) for name, value in inputs.items()}
    yield
    for name, value in inputs.items():
        _require(_equal(value, before[name]), f"the input {name} is overwritten; work on a copy")


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
        _require(self.made <= self.calls, f"more than {self.calls:,} calls of torch: a formula needs no loop")
        side = _longest_side(getattr(func, "__name__", ""), args, kwargs)
        told = f"asks for {side:,} × {side:,} numbers; the Gram matrix on the other side is small"
        _require(side**2 <= self.entries, told)
        return func(*args, **kwargs)


def _longest_side(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Of the square matrix as large as what a product or a full singular value decomposition will return."""
    shapes = [value.shape for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
    if name == "linalg_svd" and (args[1] if len(args) > 1 else kwargs.get("full_matrices", True)):
        return int(max(shapes[0][-2:]))
    if name in ("matmul", "__matmul__", "mm") and [len(shape) for shape in shapes] == [2, 2]:
        return math.isqrt(shapes[0][0] * shapes[1][1])
    return 0


def _require(holds: bool, reason: str) -> None:
    """An assert that `python -O` leaves in place: without it every answer would pass."""
    if not holds:
        raise AssertionError(reason)


def _say(line: str) -> None:
    print(line)  # noqa: T201  # What a student reads below the cell.


def _is_stub(error: BaseException) -> bool:
    return isinstance(error, NotImplementedError) and not error.args


def _reason(error: BaseException) -> str:
    """One short line: what the check says, or the exception and the line of the notebook that raised it."""
    lines = str(error).strip().splitlines()
    said = lines[0] if lines else ""
    if not (isinstance(error, AssertionError) and said):
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_ours(frame)]
        where = f"at `{frames[-1].line}`" if frames else ""
        kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: {said}".rstrip(": ")
        said = ", ".join(part for part in (kind, where) if part) or "an assert does not hold"
    return said if len(said) <= LONGEST_REASON else said[: LONGEST_REASON - 1] + "…"


def _is_ours(frame: traceback.FrameSummary) -> bool:
    """A line that a person can look up: not of an installed package, and with its source at hand."""
    return bool(frame.line) and "site-packages" not in frame.filename and frame.filename != __file__


def _filled(entries: Mapping[str, Any], allowed: Mapping[str, Any]) -> str:
    missing = [item for item in allowed if entries.get(item) is None]
    wrong = [
        f"{item!r} is {entries[item]!r}, takes {_words(takes)}"
        for item, takes in allowed.items()
        if entries.get(item) is not None and not _fits(entries[item], takes)
    ]
    unknown = [f"there is no item {item!r}" for item in entries if item not in allowed]
    still = [f"{len(missing)} of {len(allowed)} still to fill: {', '.join(missing)}"] if missing else []
    return "; ".join(wrong + unknown + still) or "complete"


def _fits(value: Any, takes: Any) -> bool:
    if isinstance(takes, range):
        return _is_number(value) and value == int(value) and int(value) in takes
    if isinstance(takes[0], str):
        return isinstance(value, str) and value in takes
    return _is_number(value) and takes[0] <= value <= takes[1]


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _words(takes: Any) -> str:
    if isinstance(takes, range):
        return f"a whole number from {takes[0]} to {takes[-1]}"
    return " or ".join(map(repr, takes)) if isinstance(takes[0], str) else f"{takes[0]:g} to {takes[1]:g}"


def _mark(entry: Any, value: Any, takes: Any) -> str:
    if not _fits(entry, takes):
        return "not right"
    met = math.isclose(entry, value, rel_tol=0.02) if isinstance(value, float) else entry == value
    return "right" if met else "not right"


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, np.ndarray):
        return np.array_equal(left, right)
    if isinstance(left, Sequence) and not isinstance(left, str):
        return len(left) == len(right) and all(map(_equal, left, right))
    return bool(left == right)
