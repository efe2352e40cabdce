"""What grading hands back: a page of feedback for each submission, and a table of scores for the course."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from labkit.classroom.grading.book import Mark
from labkit.classroom.grading.cells import Given, Task
from labkit.classroom.grading.files import Found
from labkit.classroom.grading.results import Graded, Result
from labkit.headless.files import write_atomically

CSV_NAME = "scores.csv"
FILES_NAME = "files.csv"
_STARTERS = r"=+\-@＝＋－＠"  # of a formula; the full-width ones count in East Asian versions
LONGEST_CODE = 20_000  # characters of an answer on the page

# No script, nothing from elsewhere: a browser that reads this refuses both, whatever a student has written.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root {
  color-scheme: light dark;
  --line: #8886; --soft: #8881; --good: #1a7f37; --part: #9a6700; --none: #b42318;
}
@media (prefers-color-scheme: dark) { :root { --good: #4ac26b; --part: #d4a72c; --none: #ff8a80; } }
body {
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere;
  max-width: 48rem; margin: 0 auto; padding: 1rem;
}
h1 { font-size: 1.5rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.1rem; display: flex; gap: 1rem; justify-content: space-between; margin: 0; }
section { border: 1px solid var(--line); border-radius: .5rem; padding: .75rem 1rem; margin: 1rem 0; }
pre {
  background: var(--soft); border-radius: .4rem; padding: .6rem;
  overflow-x: auto; font-size: .85rem; margin: .5rem 0 0;
}
pre.text { white-space: pre-wrap; font-family: inherit; font-size: 1rem; }
p { margin: .4rem 0; } summary { cursor: pointer; margin-top: .5rem; }
.total { font-size: 1.25rem; font-weight: 600; } .quiet { opacity: .75; }
.full { color: var(--good); } .part { color: var(--part); } .zero { color: var(--none); }
@media print { section { break-inside: avoid; } details > * { display: block; } }
"""


def page(result: Result, given: Given, marks: Mapping[str, Mark] | None) -> str:
    """One submission as a page of its own: points, reasons and the student's own code, all of it escaped."""
    body = [
        f"<h1>{escape(given.name)}</h1>",
        f"<p class=quiet>{escape(result.student)} · {escape(result.shown)}</p>",
    ]
    if result.broken or marks is None:
        body.append(f"<p class=total>Not graded</p><p>{escape(_sentence(result.broken))}</p>")
        body.append("<p>Please hand in the notebook again.</p>")
    else:
        total = sum(mark.score or 0 for mark in marks.values())
        still = [task for task in given.tasks if marks[task.id].open]
        body.append(f"<p class=total>{total:g} of {given.points:g} points</p>")
        if still:
            names = ", ".join(task.label for task in still)
            rest = sum(task.points for task in still)
            body.append(f"<p>Still to be marked by hand: {escape(names)} ({rest:g} points).</p>")
        body += [_section(task, result, marks[task.id]) for task in given.tasks]
        if result.notes:
            items = "".join(f"<li>{escape(note)}</li>" for note in result.notes)
            body.append(f"<section><h2>About the notebook</h2><ul>{items}</ul></section>")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(given.name)}: {escape(result.student)}</title><style>{_STYLE}</style></head>\n"
        f"<body>\n{chr(10).join(body)}\n</body></html>\n"
    )


def _section(task: Task, result: Result, mark: Mark) -> str:
    done = result.tasks[task.id]
    if mark.open:
        state, points = "part", f"… of {task.points:g}"
    else:
        score = mark.score or 0.0
        state = "full" if score >= task.points else "part" if score > 0 else "zero"
        points = f"{score:g} of {task.points:g}"
    parts = [f"<h2><span>{escape(task.label)}</span><span class={state}>{points}</span></h2>"]
    if mark.open:
        parts.append("<p>Is marked by hand.</p>")
    elif mark.by_hand and not task.by_hand:
        parts.append("<p>Marked by hand.</p>")
    if mark.old:
        parts.append(f"<p class=quiet>{escape(mark.old)}</p>")
    if done.reason:
        parts.append(f"<p>{escape(_sentence(done.reason))}</p>")
    elif not task.by_hand and not mark.by_hand:
        parts.append("<p>Passes all tests.</p>")
    if mark.comment:
        parts.append(f"<p><b>Comment.</b> {escape(mark.comment)}</p>")
    for answer in task.answers:
        source = result.answers.get(answer)
        if source is None:
            parts.append("<p class=quiet>The cell of the answer is missing.</p>")
            continue
        short = source if len(source) <= LONGEST_CODE else source[:LONGEST_CODE] + "\n…"
        style = " class=text" if task.by_hand else ""
        parts.append(f"<pre{style}>{escape(short)}</pre>")
    if done.printed.strip():
        parts.append(
            f"<details><summary>What it printed</summary><pre>{escape(done.printed)}</pre></details>"
        )
    return f"<section>{''.join(parts)}</section>"


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
