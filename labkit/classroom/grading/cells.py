"""What was handed in, cell by cell, and which cell of the assignment each one is.

A submission may be anything. Nothing here trusts its metadata, runs it, or needs it to be valid.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.classroom.grading.people import decoded

LARGEST_FILE = 50 * 2**20  # bytes
MOST_CELLS = 5_000
LONGEST_CELL = 10**6  # characters


@dataclass(frozen=True)
class HandedCell:
    """A cell as it was handed in; `id` and `grade_id` are empty where it has none. `raw` is all of it."""

    kind: str
    source: str
    id: str = ""
    grade_id: str = ""
    story: bool = False
    raw: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Handed:
    """A notebook as it was handed in."""

    cells: tuple[HandedCell, ...]
    assignment: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GivenCell:
    """A cell of the assignment: `source` as students got it, with the hidden tests where there are any.

    Attributes:
        id: the grade id; empty for a cell of the story.
        visible: the source in the students' version.
        metadata: nbgrader's.
    """

    id: str
    kind: str
    source: str
    visible: str
    cell_id: str
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Task:
    """What gives points: hidden tests with the answers that they test, or an answer marked by hand."""

    id: str
    points: float
    by_hand: bool
    answers: tuple[str, ...]
    names: tuple[str, ...] = ()
    tests: str = ""

    @property
    def label(self) -> str:
        """tests-5-2a -> 5.2a"""
        return _exercise(self.id)


@dataclass(frozen=True)
class Given:
    """An assignment as it was released."""

    name: str
    setup: str
    tasks: tuple[Task, ...]
    layout: tuple[GivenCell, ...]
    solved: tuple[str, ...]

    @property
    def cells(self) -> tuple[GivenCell, ...]:
        """Those of the exercises, without the story."""
        return tuple(cell for cell in self.layout if cell.id)

    @property
    def points(self) -> float:
        return sum(task.points for task in self.tasks)


def read_handed(path: Path) -> Handed:
    """Reads a notebook of any version that somebody handed in.

    Raises:
        ValueError: one line that says what the file is instead.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise ValueError(
                f"the file has {size / 2**20:.1f} MB, more than the {LARGEST_FILE >> 20} MB that are read; "
                "large outputs can be cleared"
            )
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"the file cannot be read: {error.strerror}") from None
    if not data.strip():
        raise ValueError("the file is empty")
    text = decoded(data)
    if text.lstrip()[:1] == "<":
        raise ValueError(
            "the file is a web page (HTML), not the notebook; it can be downloaded again as .ipynb"
        )
    if data[:4] in (b"PK\x03\x04", b"%PDF"):
        raise ValueError(f"the file is a {'zip' if data[:2] == b'PK' else 'PDF'} under a notebook's name")
    try:
        return handed(json.loads(text))
    except (json.JSONDecodeError, RecursionError):
        raise ValueError("the file is no notebook: its JSON is broken, perhaps cut off") from None


def handed(top: Any) -> Handed:
    """A notebook of any version, from its JSON.

    Raises:
        ValueError: it has no cells, or too many.
    """
    cells = top.get("cells") if isinstance(top, dict) else None
    if not isinstance(cells, list) and isinstance(top, dict) and isinstance(top.get("worksheets"), list):
        sheets = [sheet.get("cells") for sheet in top["worksheets"] if isinstance(sheet, dict)]
        cells = [cell for sheet in sheets if isinstance(sheet, list) for cell in sheet]  # nbformat 2 and 3
    if not isinstance(cells, list):
        raise ValueError("the file is JSON, but no notebook: it has no cells")
    if len(cells) > MOST_CELLS:
        raise ValueError(f"the notebook has {len(cells):,} cells, more than the {MOST_CELLS:,} that are read")
    own = _dict(_dict(top.get("metadata")).get("labkit")).get("assignment")
    read = tuple(_cell(cell) for cell in cells if isinstance(cell, dict))
    return Handed(read, own if isinstance(own, str) else "", _dict(top.get("metadata")))


def _cell(cell: Mapping[str, Any]) -> HandedCell:
    source = cell.get("source", cell.get("input", ""))
    if isinstance(source, list):
        source = "".join(part for part in source if isinstance(part, str))
    if not isinstance(source, str) or len(source) > LONGEST_CELL:
        source = f"# This cell was left out: it has more than {LONGEST_CELL:,} characters, or no text."
    source = source.encode("utf-8", "replace").decode()  # Half of a surrogate pair cannot be written again.
    source = source.replace("\r\n", "\n").replace("\r", "\n")
    metadata = _dict(cell.get("metadata"))
    grade_id = _dict(metadata.get("nbgrader")).get("grade_id")
    tags = metadata.get("tags")
    return HandedCell(
        kind="code" if cell.get("cell_type") == "code" else "markdown",
        source=source,
        id=next((i for i in (cell.get("id"), metadata.get("id")) if isinstance(i, str)), ""),
        grade_id=grade_id if isinstance(grade_id, str) else "",
        story=isinstance(tags, list) and "story" in tags,
        raw=cell,
    )


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def bare(source: str) -> str:
    """Source without blanks at the ends of lines and of the whole: what an editor may change by itself."""
    return "\n".join(line.rstrip() for line in source.strip().splitlines())


def label(grade_id: str) -> str:
    """The name of a grade for a person: tests-5-2a -> tests of 5.2a."""
    name = _exercise(grade_id)
    return f"tests of {name}" if grade_id.startswith("tests-") else name


def _exercise(grade_id: str) -> str:
    return re.sub(r"^(tests|exercise)-", "", grade_id).replace("-", ".")
