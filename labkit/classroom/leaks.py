"""Looks for solutions and hidden tests in what students would get.

A line gives something away when it stands in a solution, a rubric or a hidden test and has at least
`SHORTEST` characters besides blanks (`return gram` tells nobody anything). It is looked for with all blanks
taken out on both sides, and without what it begins with (a comment sign, the number of a list), so that
neither another indent nor a line broken elsewhere hides it. Two kinds of lines do not count: imports, and
lines that the tests of two exercises share, which are idioms such as
`generator = torch.Generator().manual_seed(0)`; a line of a solution always counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nbformat import NotebookNode

from labkit.classroom.cells import Sheet

__all__ = ["SHORTEST", "Secret", "find_leaks", "secrets"]

SHORTEST = 12
_MARKS = ("BEGIN SOLUTION", "END SOLUTION", "BEGIN HIDDEN TESTS", "END HIDDEN TESTS")


@dataclass(frozen=True)
class Secret:
    """A line that students must not get: the tag of its cell, its number there, and its text."""

    tag: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.tag}, line {self.line}: {self.text.strip()}"


def secrets(notebook: NotebookNode, sheet: Sheet) -> list[Secret]:
    """The lines of a notebook that give something away."""
    solutions = {f"solution-{exercise.name}": exercise.solution for exercise in sheet.exercises}
    solutions |= {f"solution (cell {place})": place for place in sheet.asides}
    tests = {f"tests-{exercise.name}": exercise.tests for exercise in sheet.exercises}
    found = [secret for tag, place in solutions.items() for secret in _lines(notebook, tag, place)]
    hidden = [secret for tag, place in tests.items() for secret in _lines(notebook, tag, place)]
    owners: dict[str, set[str]] = {}
    for secret in hidden:
        owners.setdefault(_core(secret.text), set()).add(secret.tag)
    return found + [secret for secret in hidden if len(owners[_core(secret.text)]) == 1]


def find_leaks(what: Any, known: list[Secret]) -> list[str]:
    """Where the lines stand in a notebook, or in any text.

    Args:
        what: a notebook, of which outputs and metadata are looked through as well, or a text.
        known: from `secrets`.

    Returns:
        a sentence for each, with the cell that shows it and the line that it shows.
    """
    cells = enumerate(what.cells) if isinstance(what, NotebookNode) else [(-1, what)]
    pieces = [(f"cell {place}" if place >= 0 else "the text", piece) for place, piece in cells]
    if isinstance(what, NotebookNode):
        pieces.append(("the metadata", what.metadata))
    found = []
    for where, piece in pieces:
        text = "\n".join(map(_bare, _texts(piece)))
        found += [f"{where} shows {secret}" for secret in known if _core(secret.text) in text]
        found += [f"{where} shows the mark {mark}" for mark in _MARKS if _bare(mark) in text]
    return found


def _lines(notebook: NotebookNode, tag: str, place: int | None) -> list[Secret]:
    if place is None:
        return []
    lines = enumerate(notebook.cells[place].source.split("\n"), 1)
    every = [Secret(tag, number, line) for number, line in lines if len(_core(line)) >= SHORTEST]
    if notebook.cells[place].cell_type != "code":
        return every
    every = [secret for secret in every if not re.match(r"\s*(import|from)\s", secret.text)]
    # As it reads once the function has lost the prefix, but for its signature, which the stub has too.
    calls = [secret for secret in every if re.search(r"(?<!def )solution_", secret.text)]
    return every + [Secret(tag, secret.line, secret.text.replace("solution_", "")) for secret in calls]


def _core(line: str) -> str:
    return _bare(re.sub(r"^\s*(\d+\.|[-*#>]+)\s", "", line))


def _bare(text: str) -> str:
    return re.sub(r"\s", "", text)


def _texts(value: Any) -> Iterator[str]:
    """All texts in a cell, whatever holds them; pictures hold none."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if not key.startswith("image/p") and not key.startswith("image/j"):
                yield from _texts(inner)
    elif isinstance(value, list | tuple):
        if all(isinstance(part, str) for part in value):  # The lines of a source or of an output.
            yield "".join(value)
        else:
            for inner in value:
                yield from _texts(inner)
