"""Runs the students' version of a release before anybody gets it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

from nbformat import NotebookNode

from labkit.classroom.cells import tags

__all__ = ["try_students"]

TIMEOUT = 900  # seconds a cell


def try_students(notebook: NotebookNode, folder: Path, told: Callable[[float], None]) -> None:
    """Runs a students' version from top to bottom, with all exercises open.

    Raises:
        ValueError: a cell ends in an error; an open exercise never does.
    """
    notebook = copy.deepcopy(notebook)
    _run(notebook, folder, told)
    _refuse_errors(notebook)


def _run(notebook: NotebookNode, folder: Path, told: Callable[[float], None]) -> None:
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


def _refuse_errors(notebook: NotebookNode) -> None:
    for place, cell in enumerate(notebook.cells):
        if "raises-exception" in tags(cell) and not any(tag.startswith("then-") for tag in tags(cell)):
            continue
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                named = next((f" ({tag})" for tag in tags(cell) if "-" in tag), "")
                told = f"{output.ename}: {output.evalue}".splitlines()[0][:200]
                raise ValueError(f"cell {place}{named} of the students' version ends in {told}")
