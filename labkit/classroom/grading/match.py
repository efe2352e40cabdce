"""A submission laid over its assignment: whose cell each one is, and which of them an exercise needs.

The notebook stays the student's, in its order. Cells of the assignment are told by grade id, by cell id, or
by what they hold; all others are the student's own, and belong to the answer beside which they stand: a cell
split in two, or an answer written below its cell, is found. A locked cell is put back; what
was written into it becomes a cell of the student's own.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from labkit.classroom.grading.cells import Given, GivenCell, Handed, HandedCell, Task, bare, label
from labkit.classroom.grading.code import ANY, defined, is_prose, top_names, used

OWN, STORY = "own", "story"


@dataclass(frozen=True)
class Placed:
    """A cell in the notebook that is graded.

    Attributes:
        role: its grade id, "story", or "own".
        answer: grade id of the answer that it is, or is a part of; empty for none.
        place: of the cell in the assignment's order; None for the student's own.
        raw: the cell as it was handed in; empty for one that was put back.
    """

    role: str
    kind: str
    source: str
    answer: str = ""
    place: int | None = None
    raw: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_text(self) -> bool:
        return bool(self.source.strip()) and (self.kind != "code" or is_prose(self.source))


@dataclass(frozen=True)
class Matched:
    """A submission against its assignment, with every cell of the assignment in it.

    Attributes:
        cells: in the order of the notebook.
        notes: what was put right.
        metadata: the notebook's own.
    """

    cells: tuple[Placed, ...]
    given: Given
    notes: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def source(self, answer: str) -> str | None:
        """What the student wrote as an answer, all pieces of it, or None where there is nothing."""
        found = [cell.source for cell in self.cells if cell.answer == answer and cell.raw]
        if self.in_doubt(answer):
            found += [cell.source for cell in self._strays()]
        return "\n\n".join(text for text in found if text.strip()) if found else None

    def is_written(self, answer: str) -> bool:
        """Whether somebody has written something where the answer stands."""
        visible = {cell.id: bare(cell.visible) for cell in self.given.cells}
        pieces = [cell for cell in self.cells if cell.answer == answer and cell.raw]
        return any(
            cell.raw.get("attachments") or cell.source.strip() and cell.role == OWN
            or bare(cell.source) not in ("", visible[answer]) for cell in pieces
        )  # fmt: skip

    def in_doubt(self, answer: str) -> bool:
        """Whether a text elsewhere may be the answer to an open question whose own place is untouched."""
        hand = {task.id for task in self.given.tasks if task.by_hand}
        return answer in hand and not self.is_written(answer) and any(self._strays())

    def _strays(self) -> Iterator[Placed]:
        """The student's texts that stand beside no open question."""
        hand = {task.id for task in self.given.tasks if task.by_hand}
        return (cell for cell in self.cells if cell.role == OWN and cell.is_text and cell.answer not in hand)

    def program(self, task: Task) -> list[int]:
        """The cells to run before the tests of a task.

        They are all of the student's down to where the tests stand, and those of the story which define a
        name that the answer uses.
        """
        end = next((i for i, cell in enumerate(self.cells) if cell.role == task.id), len(self.cells))
        editable = {answer for one in self.given.tasks for answer in one.answers} | {OWN}
        code = [i for i in range(end) if self.cells[i].kind == "code"]
        own = [i for i in code if self.cells[i].role in editable and not self.cells[i].is_text]
        known = set(dir(builtins)) | defined(self.given.setup)
        story = [i for i in code if self.cells[i].role == STORY]
        wanted: set[str] = set()
        new = {n for i in own if self.cells[i].answer in task.answers for n in used(self.cells[i].source)}
        taken: set[int] = set()
        while new := new - wanted - known:
            wanted |= new
            found = {i for i in own if defined(self.cells[i].source) & new}
            mine = {name for i in found for name in defined(self.cells[i].source)}
            rest = new - mine
            found |= {i for i in story if defined(self.cells[i].source) & rest}
            if rest - {name for i in found for name in defined(self.cells[i].source)}:
                found |= {i for i in story if ANY in defined(self.cells[i].source)}
            taken |= found
            new = {name for i in found for name in used(self.cells[i].source)}
        return sorted({*own, *taken})

    def elsewhere(self, name: str, ran: Sequence[int]) -> str:
        """Where a name is defined that the cells which ran do not define; empty where nowhere is."""
        for index, cell in enumerate(self.cells):
            if index not in ran and cell.kind == "code" and name in defined(cell.source):
                return f"the cell that defines `{name}` stands below the tests"
            if cell.raw and cell.kind != "code" and name in top_names(cell.source):
                return f"what defines `{name}` stands in a text cell, which does not run"
        return ""

    def again(self, names: Sequence[str], ran: Sequence[int]) -> str:
        """Where the student sets one of these names once more, which did not run; empty where nowhere."""
        for index, cell in enumerate(self.cells):
            if cell.role != OWN or index in ran:
                continue
            found = top_names(cell.source)
            for name in (name for name in names if name in found):
                if cell.kind == "code":
                    return f"another cell that sets `{name}` stands below the tests"
                if f"def {name}" in cell.source:
                    return f"another cell that defines `{name}` is a text cell, which does not run"
        return ""


def match(handed: Handed, given: Given) -> Matched:
    """Lays a submission over its assignment."""
    placed = _without_spares([_placed(cell, given) for cell in handed.cells], given)
    placed = _by_name(placed, given)
    placed = _claimed(placed, given)
    notes = list(_notes(placed, given))
    return Matched(tuple(_completed(placed, given)), given, tuple(dict.fromkeys(notes)), handed.metadata)


def _placed(cell: HandedCell, given: Given) -> Placed:
    place = _place(cell, given)
    made = Placed(OWN, cell.kind, cell.source, raw=cell.raw)
    if place is None:
        return replace(made, role=STORY) if cell.story and cell.kind == "code" else made
    ours = given.layout[place]
    edited = bare(cell.source) not in (bare(ours.visible), bare(ours.source))
    if not ours.id:  # Who writes into the question's own text may have written the answer there.
        return replace(made, role=OWN if edited and cell.kind != "code" else STORY, place=place)
    if ours.metadata.get("locked"):
        return replace(made, role=OWN if edited else ours.id, place=place)
    return replace(made, role=ours.id, answer=ours.id, place=place, kind=ours.kind)


def _place(cell: HandedCell, given: Given) -> int | None:
    """Platforms strip metadata; what a cell holds tells, too."""
    for place, ours in enumerate(given.layout):
        if (ours.id and ours.id == cell.grade_id) or (ours.cell_id and ours.cell_id == cell.id):
            return place
    text = bare(cell.source)
    return next((p for p, ours in enumerate(given.layout) if text and text == bare(ours.visible)), None)


def _without_spares(cells: list[Placed], given: Given) -> list[Placed]:
    """A copy of an answer's own cell, left as it was given out below the written one, is no answer."""
    visible = {ours.id: bare(ours.visible) for ours in given.cells}
    written, result = set(), []
    for cell in cells:
        untouched = bare(cell.source) == visible.get(cell.role)
        spare = untouched and cell.role in written
        result.append(replace(cell, role=STORY, answer="") if spare else cell)
        written |= set() if untouched else {cell.role}
    return result


def _by_name(cells: list[Placed], given: Given) -> list[Placed]:
    """Answers told by the names that they define, where their own cell is gone or as it was given out."""
    visible = {ours.id: (place, bare(ours.visible)) for place, ours in enumerate(given.layout) if ours.id}
    for task in given.tasks:
        answers = [a for a in task.answers if not task.by_hand]
        if not answers or any(
            c.role == a and bare(c.source) != visible[a][1] for c in cells for a in answers
        ):
            continue
        for index, cell in enumerate(cells):
            if cell.role == OWN and cell.kind == "code" and set(top_names(cell.source)) & set(task.names):
                place = visible[answers[-1]][0]
                cells[index] = replace(cell, role=answers[-1], answer=answers[-1], place=place)
    return cells


def _claimed(cells: list[Placed], given: Given) -> list[Placed]:
    """Gives each of the student's own cells to the answer between whose neighbours it stands."""
    answers = {p: c.id for p, c in enumerate(given.layout) if c.id and not c.metadata.get("locked")}
    result = []
    for index, cell in enumerate(cells):
        if cell.role == OWN:
            before = (c.place for c in reversed(cells[:index]) if c.place is not None and c.role != OWN)
            after = (c.place for c in cells[index + 1 :] if c.place is not None and c.role != OWN)
            near = range(next(before, 0), next(after, len(given.layout)) + 1)
            cell = replace(cell, answer=next((answers[p] for p in near if p in answers), ""))
        result.append(cell)
    return result


def _completed(cells: Sequence[Placed], given: Given) -> list[Placed]:
    """Puts each locked cell back, once, tests below what they test; and what is marked by hand."""
    result = list(cells)
    for place, ours in enumerate(given.layout):
        task = next((task for task in given.tasks if task.id == ours.id), None)
        if not ours.metadata.get("locked") and not (task and task.by_hand):
            continue
        there = [i for i, cell in enumerate(result) if cell.place == place]
        if not ours.metadata.get("locked") and any(result[i].role == ours.id for i in there):
            continue
        pieces = [i for i, cell in enumerate(result) if task and cell.answer in task.answers]
        if task:  # Behind the last piece, and where the student has it, if that is further down.
            at = max([*(i + 1 for i in pieces), *there[-1:]], default=len(result))
        else:
            at = min(there, default=0)
        kept = _put_back(ours, place)
        rest = [(i, cell) for i, cell in enumerate(result) if i not in there or cell.role == OWN]
        result = [c for i, c in rest if i < at] + [kept] + [c for i, c in rest if i >= at]
    return result


def _put_back(ours: GivenCell, place: int) -> Placed:
    answer = "" if ours.metadata.get("locked") else ours.id
    return Placed(ours.id, ours.kind, ours.source, answer, place)


def _notes(cells: Sequence[Placed], given: Given) -> Iterator[str]:
    answers = {answer for task in given.tasks for answer in task.answers}
    for place, ours in enumerate(given.layout):
        if not ours.id:
            continue
        there = [cell for cell in cells if cell.place == place]
        name = label(ours.id)
        pieces = [cell for cell in cells if cell.answer == ours.id]
        if ours.id in answers and not there and not pieces:
            yield f"{name}: the cell of the answer is missing"
        elif ours.id not in answers and not there:
            yield f"{name}: the cell was missing, and put back"
        elif any(cell.role == OWN for cell in there):
            yield f"{name}: the locked cell was edited, and put back; what it held stands beside it"
        elif len(pieces) > 1:
            yield f"{name}: the answer stands in several cells; all of them count, in their order"
        elif any(cell.raw.get("cell_type", ours.kind) != ours.kind for cell in there):
            yield f"{name}: the cell's type was changed, and put back"
