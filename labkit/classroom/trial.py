"""Runs a release before anybody gets it: solutions get their points, the students' version runs through."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from labkit.classroom.cells import Sheet, tags
from labkit.classroom.instructor import STORY

__all__ = ["try_solutions", "try_students"]

TIMEOUT = 900  # seconds a cell
Told = Callable[[float], None]


def try_solutions(source: NotebookNode, sheet: Sheet, folder: Path, told: Told) -> None:
    """Runs the exercises of an instructor's notebook, without the story around them.

    Raises:
        ValueError: a solution fails its tests or the example that students see.
    """
    notebook = copy.deepcopy(source)
    notebook.cells = [cell for cell in notebook.cells if STORY not in tags(cell)]
    _run(notebook, folder, told)
    _refuse_errors(notebook, "the instructor's version")
    by_tag = {tag: cell for cell in notebook.cells for tag in tags(cell)}
    for exercise in sheet.exercises:
        if exercise.kind != "code":
            continue
        example, tests = by_tag[f"exercise-{exercise.name}"], by_tag[f"tests-{exercise.name}"]
        if "the example fails" in _printed(example):
            raise ValueError(f"the solution fails the example that students see: {_printed(example).strip()}")
        values = [o.data.get("text/plain") for o in tests.outputs if o.output_type == "execute_result"]
        if [float(value) for value in values] != [exercise.points]:
            raise ValueError(f"the solution does not get its points: {_printed(tests).strip()}")


def try_students(notebook: NotebookNode, sheet: Sheet, folder: Path, told: Told) -> None:
    """Runs a students' version from top to bottom, with all exercises open.

    Raises:
        ValueError: a cell ends in an error; an open exercise never does.
    """
    notebook = copy.deepcopy(notebook)
    _run(notebook, folder, told)
    _refuse_errors(notebook, "the students' version")


def _run(notebook: NotebookNode, folder: Path, told: Told) -> None:
    from nbclient import NotebookClient
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    from labkit.notebooks import this_environment

    def started(cell: NotebookNode, cell_index: int) -> None:
        told(cell_index / max(1, len(notebook.cells)))

    client = NotebookClient(
        notebook, timeout=TIMEOUT, kernel_name="python3", kernel_manager_class=this_environment(),
        store_widget_state=False, record_timing=False, allow_errors=True, on_cell_start=started,
        extra_arguments=["--IPKernelApp.log_level=40"],  # Not the kernel's own warnings, in between.
        resources={"metadata": {"path": str(folder)}},
    )  # fmt: skip
    try:
        client.execute()
    except CellTimeoutError:
        raise ValueError(f"a cell takes longer than {TIMEOUT} s") from None
    except DeadKernelError:
        raise ValueError("its kernel died; there may be too little memory") from None


def _refuse_errors(notebook: NotebookNode, what: str) -> None:
    for place, cell in enumerate(notebook.cells):
        if "raises-exception" in tags(cell) and not any(tag.startswith("then-") for tag in tags(cell)):
            continue
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                named = next((f" ({tag})" for tag in tags(cell) if "-" in tag), "")
                told = f"{output.ename}: {output.evalue}".splitlines()[0][:200]
                raise ValueError(f"cell {place}{named} of {what} ends in {told}")


def _printed(cell: NotebookNode) -> Any:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")
