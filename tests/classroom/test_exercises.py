"""Exercises in a notebook: what a student reads, and that no answer stops or hangs a Run All."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from labkit.classroom.exercises import Frugal, attempt, check_prediction, grade, same, unchanged


def double(x):
    return 2 * x


def check_double(answer):
    with unchanged(x=torch.ones(2)):
        same("twice one", answer(1.0), 2.0)


def unsolved(x):
    raise NotImplementedError


def library_gap(x):
    raise NotImplementedError("svd is not implemented for Half")


def broken(x):
    return [1, 2][int(x) + 5]


def silent(x):
    # What a bare assert raises; pytest would rewrite the assert.
    raise AssertionError


def printed(capsys, answer, solution=double):
    grade("1.1", check_double, solution=solution, answer=answer)
    return capsys.readouterr().out.splitlines()[1]


# --- grade


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (double, "1.1: your answer passes its tests"),
        (unsolved, "1.1: your answer is not solved yet"),
        (lambda x: 3 * x, "1.1: your answer fails: twice one: got 3, should be 2, ratio 1.5"),
        (
            broken,
            "1.1: your answer fails: IndexError: list index out of range, at `return [1, 2][int(x) + 5]`",
        ),
        (silent, "1.1: your answer fails: at `raise AssertionError`"),
        (
            library_gap,
            "1.1: your answer fails: NotImplementedError: svd is not implemented for Half, "
            'at `raise NotImplementedError("svd is not implemented for Half")`',
        ),
        (lambda x: None, "1.1: your answer fails: twice one: got a NoneType, should be a number"),
    ],
    ids=["right", "stub", "wrong", "exception", "bare assert", "library", "nothing returned"],
)
def test_grade_says_one_line_about_an_answer_and_never_raises(capsys, answer, line):
    """An exception in one exercise stops Run All before the next."""
    assert printed(capsys, answer) == line


def test_grade_raises_when_the_solution_is_wrong():
    """A broken exercise would look like a student's mistake, and no test would see it."""
    with pytest.raises(AssertionError, match="got 3, should be 2"):
        grade("1.1", check_double, solution=lambda x: 3 * x, answer=double)
    with pytest.raises(NotImplementedError):
        grade("1.1", check_double, solution=unsolved, answer=double)


def test_grade_lets_an_interrupt_through():
    """Stop in JupyterLab must stop the cell."""

    def interrupted(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grade("1.1", check_double, solution=double, answer=interrupted)


def test_a_long_reason_is_cut_to_one_short_line(capsys):
    """A message of torch can run over a screen."""

    def talkative(x):
        raise ValueError("first line " + 300 * "x" + "\nsecond line")

    line = printed(capsys, talkative)
    assert line.startswith("1.1: your answer fails: ValueError: first line xx") and line.endswith("…")
    assert len(line) < 200


# --- attempt


def test_attempt_tells_unsolved_right_and_wrong_apart(capsys):
    """The only feedback before the hidden tests."""
    with attempt("1.1"):
        unsolved(1)
    with attempt("1.1"):
        assert double(1) == 2
    with attempt("1.1"):
        raise AssertionError
    with attempt("1.1"):
        raise AssertionError("doubling is not tripling")
    assert capsys.readouterr().out.splitlines() == [
        "1.1: not solved yet",
        "1.1: the example comes out right",
        "1.1: the example fails: at `raise AssertionError`",
        "1.1: the example fails: doubling is not tripling",
    ]


# --- check_prediction

ALLOWED = {"rank": range(1, 100), "factor": (0.1, 10.0), "error": ("rises", "falls")}
PROVABLE = {"rank": 90, "factor": math.sqrt(2)}
EMPTY = dict.fromkeys(ALLOWED)


def test_an_empty_prediction_is_told_what_to_fill(capsys):
    """It is what the stored notebook shows."""
    check_prediction(EMPTY, {}, ALLOWED, PROVABLE, name="1.5")
    assert capsys.readouterr().out.splitlines() == [
        "1.5: prediction: 3 of 3 still to fill: rank, factor, error",
        "1.5: observed: 3 of 3 still to fill: rank, factor, error",
    ]


@pytest.mark.parametrize(
    ("entry", "marks"),
    [
        ({"rank": 90, "factor": 1.41}, "rank: right; factor: right"),
        ({"rank": 90.0, "factor": np.float64(1.4142)}, "rank: right; factor: right"),
        ({"rank": 89, "factor": 1.3}, "rank: not right; factor: not right"),
        ({"factor": 2}, "factor: not right"),
        ({"rank": "90"}, "rank: not right"),
    ],
)
def test_provable_items_are_marked_one_by_one(capsys, entry, marks):
    """A whole number must be met exactly: 89 is within 2 % of 90."""
    check_prediction(EMPTY | entry, EMPTY, ALLOWED, PROVABLE)
    assert capsys.readouterr().out.splitlines()[-1] == f"prediction: provable: {marks}"


@pytest.mark.parametrize("error", ["rises", "falls"])
def test_open_items_are_never_marked(capsys, error):
    """Nobody can know them before the run."""
    check_prediction(EMPTY | {"error": error}, EMPTY, ALLOWED, PROVABLE)
    assert "right" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"rank": 12.5}, "'rank' is 12.5, takes a whole number from 1 to 99"),
        ({"rank": True}, "'rank' is True, takes a whole number from 1 to 99"),
        ({"factor": 20}, "'factor' is 20, takes 0.1 to 10"),
        ({"factor": math.nan}, "'factor' is nan, takes 0.1 to 10"),
        ({"error": "stays"}, "'error' is 'stays', takes 'rises' or 'falls'"),
        ({"err": "rises"}, "there is no item 'err'"),
    ],
)
def test_an_entry_that_is_not_allowed_is_named_with_what_it_takes(capsys, entry, complaint):
    """A misspelt key would look like an empty item."""
    check_prediction(EMPTY | entry, EMPTY, ALLOWED, PROVABLE)
    assert complaint in capsys.readouterr().out.splitlines()[0]


@pytest.mark.parametrize("provable", [{"speed": 1}, {"rank": 200}, {"error": "stays"}])
def test_a_provable_value_that_nobody_can_enter_is_an_error(provable):
    """No student could get the point."""
    with pytest.raises(ValueError, match="provable"):
        check_prediction(EMPTY, EMPTY, ALLOWED, provable)


# --- same


ROW = torch.tensor([1.0, 2.0, math.inf], dtype=torch.float64)


@pytest.mark.parametrize(
    ("got", "reason"),
    [
        ([1.0, 2.0, math.inf], "got a list, should be a tensor"),
        (ROW[:2], r"got shape \(2,\), should be \(3,\)"),
        (ROW.float(), "got torch.float32, should be torch.float64"),
        (ROW * torch.tensor([1, -1, 1]), r"got -2 at \(1,\), should be 2, ratio -1"),
        (ROW * torch.tensor([math.nan, 1, 1]), r"got nan at \(0,\), should be 1"),
        (ROW.clamp(max=1e300), r"got 1e\+300 at \(2,\), should be inf"),
        (ROW + torch.tensor([3e-9, 0, 0]), r"got 1 at \(0,\)"),
    ],
)
def test_same_names_the_first_thing_wrong(got, reason):
    """A comparison that broadcasts, or takes NaN or float32 for equal, passes wrong answers."""
    with pytest.raises(AssertionError, match=f"^row: {reason}"):
        same("row", got, ROW)


@pytest.mark.parametrize("got", [2, 2.0, np.float64(2), torch.tensor(2.0), 2 + 1e-10])
def test_same_takes_any_kind_of_number(got):
    """A 0-dimensional tensor is a number to a student."""
    same("two", got, 2.0)


def test_same_takes_equal_infinities_gradients_and_empty_tensors():
    """inf - inf is NaN; an answer made of parameters cannot be turned into an array."""
    same("row", ROW.clone().requires_grad_(), ROW)
    same("none", ROW[:0], ROW[:0])


# --- unchanged, Frugal


@pytest.mark.parametrize(
    "value",
    [torch.ones(2), np.ones(2), [torch.ones(2), torch.ones(3)], torch.ones(2**10, 2**10 + 1)],
    ids=["tensor", "array", "list", "large tensor"],
)
def test_unchanged_names_the_input_that_was_overwritten(value):
    """An answer that overwrites its inputs spoils the cells after it."""
    with unchanged(value=value, other=1):
        pass
    with pytest.raises(AssertionError, match="input value is overwritten"), unchanged(value=value):
        first = value[0]
        first *= 2
        value[0] = first


def test_frugal_stops_a_loop_and_a_large_matrix_before_they_hurt():
    """A hundred million steps or 20 GB would end the kernel, not the exercise."""
    wide = torch.ones(2, 50_000, dtype=torch.float64)
    with Frugal(calls=100):
        assert (wide @ wide.T).shape == (2, 2)
        assert torch.linalg.svd(wide, full_matrices=False)[0].shape == (2, 2)
        assert torch.linalg.svd(torch.eye(3))[0].shape == (3, 3)
    with pytest.raises(AssertionError, match="more than 100 calls"), Frugal(calls=100):
        for _ in range(10**8):
            wide.sum()
    for large in (
        lambda: wide.T @ wide,
        lambda: torch.mm(wide.T, wide),
        lambda: torch.matmul(wide.T, wide),
        lambda: torch.linalg.svd(wide),
        lambda: torch.linalg.svd(A=wide, full_matrices=True),
    ):
        with pytest.raises(AssertionError, match="asks for 50,000 × 50,000 numbers"), Frugal():
            large()
