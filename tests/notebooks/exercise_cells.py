"""The exercises of a notebook, read out of its .py half by the tags of their cells, and their tests.

For exercise 4.1 of notebook 4 the tags are `exercise-4.1` (stub and example), `solution-4.1` (a function
`solution_<name>`) and `tests-4.1` (a function `check_<name>` and the call of `grade`); `exercises-setup`
holds the imports. A test file for a notebook subclasses `ExerciseTests`. LABKIT_EXERCISES_04=FILE reads
notebook 4 from elsewhere, to try exercises before they are in the notebook.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import jupytext
import pytest
import torch

from tests.conftest import ROOT

LONGEST_CHECK = 20.0  # seconds of processor time, the limit of a grader; they take about 1


class Exercises:
    """The tagged cells of one notebook."""

    def __init__(self, path: Path) -> None:
        self.cells = jupytext.read(path, fmt="py:percent").cells

    def source(self, tag: str) -> str:
        """The one cell with this tag."""
        found = [cell.source for cell in self.cells if tag in cell.metadata.get("tags", [])]
        assert len(found) == 1, f"{len(found)} cells are tagged {tag!r}"
        return found[0]

    def run(self, namespace: dict[str, Any], *tags: str) -> str:
        """Executes cells in a namespace, and returns what they printed."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            for tag in tags:
                exec(compile(self.source(tag), f"<{tag}>", "exec"), namespace)
        return printed.getvalue()

    def solved(self, exercise: str) -> dict[str, Any]:
        """A namespace in which stub, solution and tests of an exercise are defined."""
        namespace: dict[str, Any] = {}
        tags = (f"{part}-{exercise}" for part in ("exercise", "solution", "tests"))
        self.run(namespace, "exercises-setup", *tags)
        return namespace


@cache
def find(number: int) -> Path | None:
    """The .py half of a notebook, or None while there is none."""
    named = os.environ.get(f"LABKIT_EXERCISES_{number:02d}")
    paths = [Path(named)] if named else sorted((ROOT / "notebooks").glob(f"{number:02d}_*.py"))
    return paths[0] if paths else None


@cache
def exercises(number: int) -> Exercises:
    """The exercises of a notebook; skips the test while there is no such notebook."""
    path = find(number)
    if path is None:
        pytest.skip(f"there is no notebook {number} in notebooks/ yet")
    return Exercises(path)


@cache
def solved(number: int, exercise: str) -> dict[str, Any]:
    return exercises(number).solved(exercise)


class ExerciseTests:
    """What holds for the code exercises of every notebook. A subclass fills in the tables.

    Attributes:
        number: of the notebook.
        names: exercise -> name of the function that it asks for.
        wrong: exercise -> {what is wrong: (function, pattern of the reason that a student reads)}.
        right: exercise -> {another way that is right too: function}.
    """

    number: ClassVar[int]
    names: ClassVar[dict[str, str]]
    wrong: ClassVar[dict[str, dict[str, tuple[Callable[..., Any], str]]]]
    right: ClassVar[dict[str, dict[str, Callable[..., Any]]]] = {}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "mistake" in metafunc.fixturenames:
            pairs = [(name, mistake) for name, table in self.wrong.items() for mistake in table]
            metafunc.parametrize(("exercise", "mistake"), pairs)
        elif "way" in metafunc.fixturenames:
            pairs = [(name, way) for name, table in self.right.items() for way in table]
            metafunc.parametrize(("exercise", "way"), pairs)
        elif "exercise" in metafunc.fixturenames:
            metafunc.parametrize("exercise", list(self.names))

    def check(self, exercise: str) -> Callable[[Callable[..., Any]], object]:
        return solved(self.number, exercise)[f"check_{self.names[exercise]}"]

    def solution(self, exercise: str) -> Callable[..., Any]:
        return solved(self.number, exercise)[f"solution_{self.names[exercise]}"]

    def test_an_unsolved_exercise_prints_the_same_three_lines_everywhere(self, exercise: str) -> None:
        """A number or a time in them would fail the comparison of stored outputs on another machine."""
        cells = exercises(self.number)
        tags = (f"{part}-{exercise}" for part in ("exercise", "solution", "tests"))
        assert cells.run({}, "exercises-setup", *tags).splitlines() == [
            f"{exercise}: not solved yet",
            f"{exercise}: the solution passes its tests",
            f"{exercise}: your answer is not solved yet",
        ]

    def test_the_solution_passes_the_example_that_students_see(self, exercise: str) -> None:
        """An example that is wrong itself sends every student looking for a mistake that is not there."""
        tree = ast.parse(exercises(self.number).source(f"exercise-{exercise}"))
        tree.body = [node for node in tree.body if not isinstance(node, ast.FunctionDef)]
        namespace = {**solved(self.number, exercise), self.names[exercise]: self.solution(exercise)}
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(tree, "<example>", "exec"), namespace)
        assert printed.getvalue() == f"{exercise}: the example comes out right\n"

    def test_hidden_tests_are_quick_and_leave_the_global_random_state_alone(self, exercise: str) -> None:
        """A class of 200 is graded on one core, and a test must not depend on the cells before it."""
        before, start = torch.random.get_rng_state(), time.process_time()
        self.check(exercise)(self.solution(exercise))
        assert time.process_time() - start < LONGEST_CHECK
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_a_wrong_answer_is_rejected_with_a_reason(self, exercise: str, mistake: str) -> None:
        """A test that lets it pass teaches the mistake; one that fails for another reason misleads."""
        answer, reason = self.wrong[exercise][mistake]
        with pytest.raises(AssertionError) as caught:
            self.check(exercise)(answer)
        assert re.search(reason, str(caught.value)), str(caught.value)

    def test_another_right_way_passes(self, exercise: str, way: str) -> None:
        """Tests written beside one solution may ask for its rounding errors."""
        self.check(exercise)(self.right[exercise][way])

    def test_the_solution_is_3_to_15_lines_without_labkit(self, exercise: str) -> None:
        """What the task promises."""
        source = exercises(self.number).source(f"solution-{exercise}")
        body = ast.parse(source).body[0]
        assert isinstance(body, ast.FunctionDef) and body.end_lineno is not None
        assert 3 <= body.end_lineno - body.lineno <= 15
        assert "labkit" not in source

    def test_no_cell_of_the_lesson_uses_an_answer(self) -> None:
        """An unsolved exercise would break the lesson below it."""
        found = []
        for cell in exercises(self.number).cells:
            tags = " ".join(cell.metadata.get("tags", []))
            if cell.cell_type != "code" or re.search(r"\b(exercise|solution|tests)-\d", tags):
                continue
            # Magics are no Python.
            lines = [line for line in cell.source.splitlines() if not line.startswith(("%", "!"))]
            names = {node.id for node in ast.walk(ast.parse("\n".join(lines))) if isinstance(node, ast.Name)}
            found += sorted(names & set(self.names.values()))
        assert found == []
