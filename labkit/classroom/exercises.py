"""Exercises inside a notebook: tried, graded and explained, without ever stopping a "Run All".

    with attempt("4.1"):                                    # the example that a student sees
        assert torch.equal(jacobian(W, V, X, dphi), expected)
    grade("4.1", check_jacobian, solution=solution_jacobian, answer=jacobian)
    check_prediction(prediction, observed, allowed, provable, name="4.5")

In a student's version solutions and tests are gone:

    check("4.1", jacobian)                                  # runs the tests that come with labkit
    if solved(jacobian):                                    # what the answer is good for; else one line
        display(labkit.split(labkit.svd(jacobian(W, V, X, dphi)), y))
    award("4.1", tests_4_1, "jacobian", points=4)           # in a graded cell; its value is the points

A check is a function of the answer that raises an AssertionError with one line of reason. `same`,
`unchanged` and `Frugal` help to write one. What an unsolved notebook prints is constant text.
"""

from __future__ import annotations

import builtins
import io
import math
import numbers
import sys
import traceback
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from labkit.classroom import answers as _answers
from labkit.classroom.answers import Frugal, same, unchanged

__all__ = [
    "Frugal", "attempt", "award", "check", "check_prediction", "grade", "same", "solved", "unchanged"
]  # fmt: skip

LONGEST_REASON = 160  # characters


@contextmanager
def attempt(name: str) -> Iterator[None]:
    """Runs the example of an exercise and says how it went, in one line; never raises.

    A bare ``raise NotImplementedError`` is the stub's own and means *not solved yet*. One with a message
    comes from a library and is reported like any other exception.

    Args:
        name: the exercise, "4.1".

    Returns:
        A context manager.
    """
    try:
        yield
    except Exception as error:
        _say(f"{name}: {'not solved yet' if _is_stub(error) else f'the example fails: {_reason(error)}'}")
    else:
        _say(f"{name}: the example comes out right")


def solved(*answers: Callable[..., Any]) -> bool:
    """Whether none of these functions is still the stub; if one is, says in one line that the cell waits.

    Args:
        *answers: the student's functions.

    Returns:
        True if all have been written.
    """
    waiting = [answer.__name__ for answer in answers if _is_open(answer)]
    if waiting:
        _say(f"this cell waits for your {' and '.join(waiting)}")
    return not waiting


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


def check(name: str, *answer: Any) -> None:
    """Runs the tests of an exercise that come with labkit, and prints what they say; never raises.

    Args:
        name: the exercise, "4.1".
        answer: the function that it asks for, or the two dicts `prediction` and `observed`.
    """
    from labkit.classroom.hidden import carried_tests

    try:
        tests = _apart(carried_tests(name))
    except (ValueError, OSError) as error:
        _say(f"{name}: no tests here: {error}")
        return
    if not callable(tests):
        allowed, provable = tests
        if len(answer) == 2 and all(isinstance(entries, Mapping) for entries in answer):
            check_prediction(*answer, allowed, provable, name=name)
        else:
            _say(f"{name}: give the two dicts, prediction and observed")
    elif reason := _what_is_wrong(tests, *answer):
        _say(f"{name}: your answer {reason}")
    else:
        _say(f"{name}: your answer passes its tests")


def award(name: str, tests: Callable[[], Any], *answers: str, points: float) -> float:
    """Grades what the cells above defined: says in one line what is wrong with it, and returns its points.

    What a student's code has done to names (`len = 3`, `import torch as same`) does not reach the tests, and
    what it prints does not reach the cell.

    Args:
        name: the exercise, "4.1".
        tests: brings all its imports, and returns a check or, for a prediction, the pair (allowed, provable).
            Its global names are not used.
        answers: the names of the function, or of the two dicts, where this is called.
        points: for all of it. Half of them are for a prediction and its observation filled in, half for the
            provable items.

    Returns:
        The points, from 0 to `points`.
    """
    given = sys._getframe(1).f_globals
    found = _apart(tests)
    missing = [answer for answer in answers if answer not in given]
    if missing:
        gained, reason = 0.0, f"there is no {missing[0]}"
    elif callable(found):
        wrong = _what_is_wrong(found, given[answers[0]])
        gained, reason = (0.0, wrong) if wrong else (float(points), "")
    else:
        allowed, provable = found
        gained, reason = _award_prediction(given[answers[0]], given[answers[1]], allowed, provable, points)
    _say(f"{name}: {gained:g} of {points:g} points{': ' * bool(reason)}{reason}")
    return gained


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
        name: of the exercise, for the message.

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


def _apart(tests: Callable[[], Any]) -> Any:
    """What a function returns when its globals are nobody's."""
    return types.FunctionType(tests.__code__, {"__builtins__": builtins, "__name__": "tests"})()


class _Nowhere(io.TextIOBase):
    """Takes what an answer prints, a hundred megabytes of it as well, and keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)


def _what_is_wrong(check: Callable[[Any], object], answer: Any) -> str:
    """What a check has against an answer, in a few words; nothing if it passes."""
    nowhere = _Nowhere()
    try:
        with redirect_stdout(nowhere), redirect_stderr(nowhere), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check(answer)
    except Exception as error:
        return "is not solved yet" if _is_stub(error) else f"fails: {_reason(error)}"
    except SystemExit:
        return "fails: it ends the program"
    return ""


def _award_prediction(
    prediction: Any, observed: Any, allowed: Mapping[str, Any], provable: Mapping[str, Any], points: float
) -> tuple[float, str]:
    if not (isinstance(prediction, Mapping) and isinstance(observed, Mapping)):
        return 0.0, "prediction and observed should be dicts"
    entries = {"prediction": prediction, "observed": observed}
    states = {title: _filled(values, allowed) for title, values in entries.items()}
    wrong = [f"{title}: {state}" for title, state in states.items() if state != "complete"]
    gained = 0.0 if wrong else points / 2
    missed = [
        item
        for item, value in provable.items()
        if _mark(prediction.get(item), value, allowed[item]) != "right"
    ]
    told = [item for item in missed if prediction.get(item) is not None]
    if told:
        wrong.append(f"not right: {', '.join(told)}")
    return gained + (0.0 if missed else points / 2), "; ".join(wrong)


def _say(line: str) -> None:
    print(line)  # noqa: T201  # What a student reads below the cell.


def _is_open(answer: Any) -> bool:
    """A function that does nothing but `raise NotImplementedError`: it uses no other name."""
    code = getattr(answer, "__code__", None)
    return isinstance(code, types.CodeType) and code.co_names == ("NotImplementedError",)


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
    return (
        bool(frame.line)
        and "site-packages" not in frame.filename
        and frame.filename not in (__file__, _answers.__file__)
    )


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
