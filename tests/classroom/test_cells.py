"""Exercises are read out of the tags of a notebook, and what is malformed is named."""

from __future__ import annotations

import pytest
from nbformat import NotebookNode

from labkit.classroom.cells import read_sheet
from labkit.classroom.release import read_notebook
from labkit.notebooks import find_notebook
from tests.classroom.conftest import LESSON, read


def test_every_kind_of_exercise_is_read_with_its_points(lesson: NotebookNode) -> None:
    """Points lost between a heading, a part and the gradebook."""
    sheet = read_sheet(lesson)
    found = [
        (exercise.name, exercise.kind, exercise.points, exercise.function) for exercise in sheet.exercises
    ]
    assert found == [
        ("7.1", "code", 3, "mean"),
        ("7.2a", "code", 1, "variance"),
        ("7.2b", "code", 3, "deviation"),
        ("7.3", "prediction", 2, ""),
        ("7.4", "open", 3, ""),
    ]
    assert sheet.points == 12
    assert sorted(sheet.then.values()) == ["7.1", "7.2"]


@pytest.mark.parametrize("number", range(1, 6))
def test_the_five_notebooks_have_20_points(number: int) -> None:
    """An exercise without a tag, which no release would carry."""
    sheet = read_sheet(read_notebook(find_notebook(str(number))))
    assert sheet.points == 20
    kinds = [exercise.kind for exercise in sheet.exercises]
    assert kinds.count("prediction") == kinds.count("open") == 1 and kinds.count("code") >= 4


MALFORMED = {
    "no setup": ('tags=["exercises-setup"]', "", "no cell is tagged 'exercises-setup'"),
    "no solution": ('tags=["solution-7.1"]', "", "exercise 7.1: there is no cell tagged 'solution-7.1'"),
    "no tests": ('tags=["tests-7.1"]', "", "exercise 7.1: there is no cell tagged 'tests-7.1'"),
    "no rubric": ('tags=["solution-7.4"]', "", "exercise 7.4: an open question takes a 'solution-7.4'"),
    "no exercise": ('tags=["exercise-7.1"]', "", "tagged 'solution-7.1', and none tagged 'exercise-7.1'"),
    "two cells": ('tags=["solution-7.2b"]', 'tags=["solution-7.2a"]', "two cells are tagged .solution-7.2a"),
    "a tag mistyped": ('tags=["tests-7.1"]', 'tags=["tests-first"]', "tag 'tests-first' names no exercise"),
    "a part too much": ('"points-3"', '"points-4"', "7.2 says 4 points, and there is 1 \\+ 4"),
    "the sum": ("12 points", "20 points", "say 20 points, and add up to 12"),
    "no points": ("### 7.1 The mean (3 points)", "### 7.1 The mean", "7.1: no heading .* tells its points"),
    "another function": ("def solution_mean", "def the_mean", "must hold the function solution_mean"),
    "other arguments": ("def solution_mean(values)", "def solution_mean(x)", "take different arguments"),
    "no stub": ("of a list.\"\"\"\n    raise NotImplementedError", "\"\"\"", "no function that ends in"),
    "another name": ('grade("7.1"', 'grade("7.2"', "tests-7.1 grades '7.2'"),
    "nothing graded": ("\n\ngrade(\"7.1\"", "\n\nprint(\"7.1\"", "tests-7.1 must end in the call of grade"),
    "not Python": ("def check_mean(mean):", "def check_mean(mean)", "'tests-7.1' is not Python"),
    "no line to answer": ("# *Your answer.*", "# Your answer:", "an open question has one line"),
}  # fmt: skip


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_notebook_is_refused_by_name(what: str) -> None:
    """A release without the tests of an exercise, or with a traceback in the place of a reason."""
    old, new, reason = MALFORMED[what]
    assert old in LESSON
    with pytest.raises(ValueError, match=reason):
        read_sheet(read(LESSON.replace(old, new)))
