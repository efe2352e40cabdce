"""What grading hands back: a page of feedback for each submission, and a table of scores for the course."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from labkit.classroom.grading.book import Mark
from labkit.classroom.grading.cells import Given
from labkit.classroom.grading.files import Found
from labkit.classroom.grading.results import Graded, Result
from labkit.headless.files import write_atomically

CSV_NAME = "scores.csv"
FILES_NAME = "files.csv"
_STARTERS = r"=+\-@＝＋－＠"  # of a formula; the full-width ones count in East Asian versions
LONGEST_CODE = 20_000  # characters of an answer on the page


def page(result: Result, given: Given, marks: Mapping[str, Mark] | None) -> str:
    """One submission as a page of its own: points, reasons and the student's own code, all of it escaped."""
    from jinja2 import Environment

    source = Path(__file__).with_name("feedback.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"points": "{:g}".format, "sentence": _sentence}
    return environment.from_string(source).render(
        result=result, given=given, marks=marks, longest=LONGEST_CODE,
        total=sum(mark.score or 0 for mark in (marks or {}).values()),
        still=[task for task in given.tasks if marks and marks[task.id].open],
    )  # fmt: skip


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "…", "`")) or not text else ".")


def summary(graded: Graded) -> str:
    """What was graded, in a few lines: how many, how long, and where the results are."""
    run = [result for result, marks in graded.rows if marks is not None]
    broken = [result for result, marks in graded.rows if marks is None]
    seconds = sorted(result.seconds for result in run)
    left, refused = len(graded.people.left_out), len(graded.people.refused)
    lines = [f"{len(run)} graded, {len(broken)} not graded, {left} files left out, {refused} refused"]
    if seconds:
        lines[0] += f"; {seconds[len(seconds) // 2]:.1f} s a submission (median), {seconds[-1]:.1f} s at most"
    lines += [f"scores: {folder / CSV_NAME}, feedback: {folder / 'feedback'}" for folder in graded.folders]
    return "\n".join(lines)


def write_scores(path: Path, given: Given, rows: Sequence[tuple[Result, Mapping[str, Mark] | None]]) -> None:
    """Writes the table of scores: a row a student, a column an exercise.

    The column `state` says "complete", "to mark" (marks by hand are missing, and `total` is without them)
    or "not graded"; `by_hand` names what still needs a mark.
    """
    head = ["student", "assignment", *(task.label for task in given.tasks), "total", "of", "state", "by_hand"]
    table: list[list[Any]] = [[*head, "reason", "seconds", "file"]]
    for result, marks in rows:
        if result.broken or marks is None:
            told = [*[""] * (len(given.tasks) + 1), _number(given.points), "not graded", "", result.broken]
        else:
            told = _scores(given, result, marks)
        table.append([result.student, given.name, *told, _number(result.seconds), result.shown])
    _write_table(path, table)


def _scores(given: Given, result: Result, marks: Mapping[str, Mark]) -> list[Any]:
    scores = [marks[task.id].score for task in given.tasks]
    still = [task.label for task in given.tasks if marks[task.id].open]
    told = [(task.label, result.tasks[task.id].reason) for task in given.tasks]
    told += [(task.label, marks[task.id].old) for task in given.tasks]
    reasons = "; ".join([*(f"{label}: {why}" for label, why in told if why), *result.notes])
    points = ["" if score is None else _number(score) for score in scores]
    total = _number(sum(score or 0 for score in scores))
    state = "to mark" if still else "complete"
    return [*points, total, _number(given.points), state, " ".join(still), reasons]


def who(found: Found) -> list[list[str]]:
    """Who is who: a line for each file with its student, its assignment, and what becomes of it."""
    rows = [[one.shown, one.student, one.assignment, "counts"] for one in found.taken]
    rows += [[left.shown, left.student, "", f"refused: {left.why}"] for left in found.refused]
    rows += [[left.shown, left.student, "", f"left out: {left.why}"] for left in found.left_out]
    return sorted(rows, key=lambda row: (row[1] == "", row[1], row[0]))


def write_files(path: Path, found: Found) -> None:
    """Writes who is who as a table."""
    _write_table(path, [["file", "student", "assignment", "what"], *who(found)])


def _write_table(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerows([_cell(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    write_atomically(path, out.getvalue())


def _cell(text: str) -> str:
    """Text that a spreadsheet shows, and does not run as a formula, also where it splits at semicolons."""
    text = " ".join(text.split())
    return re.sub(rf"(^|;[\s\"']*)(?=[{_STARTERS}])", r"\1'", text)


def _number(value: float) -> float:
    """As csv writes it unquoted: 3, not 3.0."""
    short = float(f"{value:g}")
    return int(short) if short.is_integer() else short
