"""What was handed in, cell by cell, and which cell of the assignment each one is.

A submission may be anything. Nothing here trusts its metadata, runs it, or needs it to be valid.
"""

from __future__ import annotations

import ast
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
    """A cell as it was handed in; `id` and `grade_id` are empty where it has none."""

    kind: str
    source: str
    id: str = ""
    grade_id: str = ""
    story: bool = False


@dataclass(frozen=True)
class Handed:
    """A notebook as it was handed in."""

    cells: tuple[HandedCell, ...]
    assignment: str = ""


@dataclass(frozen=True)
class GivenCell:
    """A cell of the assignment: `source` as students got it, with the hidden tests where there are any.

    Attributes:
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
    cells: tuple[GivenCell, ...]
    solved: tuple[str, ...]
    story_ids: frozenset[str]
    story_sources: frozenset[str]

    @property
    def points(self) -> float:
        return sum(task.points for task in self.tasks)


@dataclass(frozen=True)
class Matched:
    """A submission against its assignment.

    Attributes:
        roles: for each cell handed in: a grade id, "own", "story", "text" or "copy" (of a cell of ours).
        notes: what was put right.
    """

    handed: Handed
    roles: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())

    def source(self, grade_id: str) -> str | None:
        """What the student wrote in a cell, or None where it is missing."""
        found = [
            cell.source for cell, role in zip(self.handed.cells, self.roles, strict=True) if role == grade_id
        ]
        return found[-1] if found else None


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
        top = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("the file is no notebook: its JSON is broken, perhaps cut off") from None
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
    return Handed(read, own if isinstance(own, str) else "")


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
    )


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def match(handed: Handed, given: Given) -> Matched:
    """Finds the cells of the assignment again: by grade id, then by cell id, then by what they hold."""
    known = {cell.id: cell for cell in given.cells}
    by_cell_id = {cell.cell_id: cell.id for cell in given.cells if cell.cell_id}
    by_source = {bare(cell.visible): cell.id for cell in given.cells}
    by_name = {name: answer for task in given.tasks for name in task.names for answer in task.answers[-1:]}
    roles, notes = [], []
    for cell in handed.cells:
        role = cell.grade_id if cell.grade_id in known else by_cell_id.get(cell.id, "")
        if not role and (
            cell.story or cell.id in given.story_ids or bare(cell.source) in given.story_sources
        ):
            role = "story"
        roles.append(role or ("own" if cell.kind == "code" else "text"))
    seen = set(roles)
    for index, cell in enumerate(handed.cells):  # Platforms strip metadata; what a cell holds tells, too.
        if roles[index] not in ("own", "text"):
            continue
        same = by_source.get(bare(cell.source), "")
        if same and same not in seen:
            roles[index] = same
            seen.add(same)
        elif cell.kind == "code":
            named = [by_name[name] for name in top_names(cell.source) if name in by_name]
            if named and named[0] not in seen:
                roles[index] = named[0]
    hand = [task.id for task in given.tasks if task.by_hand and task.id not in seen]
    notes += [f"{_label(one)}: the cell of the answer is missing" for one in hand]
    seen = set(roles)
    editable = {answer for task in given.tasks for answer in task.answers}
    below: set[str] = set()
    for index in reversed(range(len(roles))):  # Of copies the last counts, as it does for nbgrader.
        role = roles[index]
        if role not in known:
            continue
        cell, original = handed.cells[index], known[role]
        if role in below:
            roles[index] = "copy" if role not in editable else "own" if cell.kind == "code" else "text"
            notes.append(f"{_label(role)}: the cell stands there twice; the last one counts")
        elif original.metadata.get("locked") and bare(cell.source) != bare(original.visible):
            notes.append(f"{_label(role)}: the locked cell was edited, and put back")
        elif role in editable and original.kind == "code" and cell.kind != "code":
            notes.append(f"{_label(role)}: the cell's type was changed; it runs as a code cell only")
        below.add(role)
    notes += [
        f"{_label(c.id)}: the cell was deleted" for c in given.cells if c.id not in seen and c.id not in hand
    ]
    return Matched(handed, tuple(roles), tuple(dict.fromkeys(notes)))


def program(matched: Matched, given: Given, task: Task) -> list[int]:
    """The cells to run before the tests of a task: all of the student's down to where the tests stand."""
    roles = matched.roles
    answers = [index for index, role in enumerate(roles) if role in task.answers]
    end = len(roles)  # Without its cell, the answer may stand anywhere.
    if answers:
        tests = [index for index, role in enumerate(roles) if role == task.id]
        later = [
            i
            for i, role in enumerate(roles)
            if i > answers[-1] and role not in ("own", "text", "story", "copy")
        ]
        end = tests[0] if tests and tests[0] > answers[-1] else next(iter(later), end)
    editable = {answer for one in given.tasks for answer in one.answers} | {"own"}
    cells = matched.handed.cells
    return [i for i in range(end) if roles[i] in editable and cells[i].kind == "code"]


def top_names(source: str) -> list[str]:
    """The functions and variables that a cell defines at its top level."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        found = re.findall(r"^(?:def|class) +(\w+)|^(\w+) *=[^=]", source, re.MULTILINE)
        return [defined or assigned for defined, assigned in found]
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]
    return names


def bare(source: str) -> str:
    """Source without blanks at the ends of lines and of the whole: what an editor may change by itself."""
    return "\n".join(line.rstrip() for line in source.strip().splitlines())


def _label(grade_id: str) -> str:
    name = _exercise(grade_id)
    return f"tests of {name}" if grade_id.startswith("tests-") else name


def _exercise(grade_id: str) -> str:
    return re.sub(r"^(tests|exercise)-", "", grade_id).replace("-", ".")
