"""Grades the submissions of one assignment: runs each exercise by itself, and keeps what came of it."""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from labkit.classroom.grading.book import Book, Mark
from labkit.classroom.grading.cells import Given, Task, read_handed
from labkit.classroom.grading.code import defined
from labkit.classroom.grading.feedback import CSV_NAME, page, write_scores
from labkit.classroom.grading.files import Submission
from labkit.classroom.grading.match import Matched, match
from labkit.classroom.grading.results import Result, TaskResult
from labkit.classroom.grading.runner import Ending, Runner
from labkit.headless.files import write_atomically

VERSION = 4  # Of what is kept of a graded submission; another one is graded anew.
LOST = "could not be run: the process that watches over it was lost; grade again"
_NEXT = {"whole": "definitions", "definitions": "skip"}
_SIGNALS = {
    -11: "crashes Python (segmentation fault)",
    -6: "aborts Python",
    -9: "kills its own process",
}


@dataclass(frozen=True)
class Limits:
    """What a submission may take.

    Attributes:
        seconds: of wall clock for the whole submission; each exercise has an equal share.
        memory: bytes of resident memory, beyond what Python with torch takes.
    """

    seconds: float = 180.0
    memory: int = 2 * 2**30


class Grader:
    """Grades the submissions of one assignment, and keeps its folder of results."""

    def __init__(self, book: Book, given: Given, folder: Path, limits: Limits, again: bool) -> None:
        self.book, self.given, self.folder, self.limits, self.again = book, given, folder, limits, again
        self.code = [task for task in given.tasks if not task.by_hand]
        self.share = limits.seconds / (len(self.code) + 1)
        self._results: dict[str, tuple[Result, dict[str, Mark] | None]] = {}
        self._before: dict[str, tuple[Result, dict[str, Mark] | None]] = {}  # of earlier runs
        for part in ("feedback", "results"):
            (folder / part).mkdir(parents=True, exist_ok=True)

    def try_solutions(self, runner: Runner) -> None:
        """Puts the instructor's own solutions through the tests, so that no student is graded by broken ones.

        Raises:
            ValueError: a solution does not get its points on this machine.
        """
        cells = [(source, "whole") for source in self.given.solved]
        for task in self.code:
            if not self._has_solution(task):
                continue
            ending = self._once(runner, task, cells, self.limits.seconds)
            failed = (ending.said.get("errors") or {}).get("0")
            if failed:
                raise ValueError(f"its setup fails here: {failed}; was it released anew?")
            points, reason, _ = self._points(task, ending)
            if points < task.points:
                gets = f"gets {points:g} of {task.points:g} points here: {reason}"
                raise ValueError(f"its own solution of {task.label} {gets}")
            if f"{task.label}: the example fails" in ending.printed:
                raise ValueError(f"its own solution fails the example that students see: {ending.printed}")

    def _has_solution(self, task: Task) -> bool:
        """A prediction has none: what is right there is a matter of the tests alone."""
        given = {cell.id: cell.source for cell in self.given.cells}
        return any(given[answer] not in self.given.solved for answer in task.answers)

    def _once(self, runner: Runner, task: Task, cells: Sequence[tuple[str, str]], left: float) -> Ending:
        return runner.run(
            self.given.setup, cells, task.tests, task.names, seconds=self.share, total=left,
            memory=self.limits.memory,
        )  # fmt: skip

    def run(
        self, one: Submission, runner: Runner, stop: threading.Event
    ) -> tuple[Result, Matched | None, str]:
        """Runs one submission, unless it was graded before just as it is."""
        if stop.is_set():
            raise KeyboardInterrupt
        if one.broken:
            return self.not_graded(one, one.broken), None, ""
        key = self._key(one)
        kept = None if self.again else self._kept(one, key)
        if kept is not None:
            return kept, None, key
        start = time.monotonic()
        try:
            matched = match(read_handed(one.path), self.given)
        except ValueError as error:
            return self.not_graded(one, str(error)), None, key
        deadline = start + self.limits.seconds
        modes: dict[int, str] = {}
        stopped: dict[int, str] = {}
        tasks = {
            task.id: self._by_hand(task, matched)
            if task.by_hand
            else self._task(task, matched, runner, deadline, modes, stopped, stop)
            for task in self.given.tasks
        }
        notes = matched.notes + tuple(self._cell_note(matched, index, why) for index, why in stopped.items())
        answers = {answer: matched.source(answer) for task in self.given.tasks for answer in task.answers}
        seconds = round(time.monotonic() - start, 2)
        result = Result(one.student, one.assignment, one.shown, tasks, answers, notes, "", seconds)
        return result, matched, key

    @staticmethod
    def _by_hand(task: Task, matched: Matched) -> TaskResult:
        if matched.in_doubt(task.id):
            return TaskResult(
                None, "its own place is as it was given out; the answer may be the text elsewhere"
            )
        return TaskResult(None, "" if matched.is_written(task.id) else "not answered")

    def not_graded(self, one: Submission, why: str) -> Result:
        """The result of a submission that could not be graded; marks of an earlier one are left alone."""
        if self.book.marks(one.student, self.given) is not None:
            why += "; the gradebook keeps the marks of an earlier file"
        return Result(one.student, one.assignment, one.shown, broken=why)

    def _task(
        self, task: Task, matched: Matched, runner: Runner, deadline: float, modes: dict[int, str],
        stopped: dict[int, str], stop: threading.Event,
    ) -> TaskResult:  # fmt: skip
        indices = matched.program(task)
        lost = 0
        while True:
            if stop.is_set():
                raise KeyboardInterrupt
            left = deadline - time.monotonic()
            if left <= 0:
                return TaskResult(
                    0.0, f"not run: the submission has used up its {self.limits.seconds:g} s", "", True
                )
            cells = [(matched.cells[i].source, modes.get(i, "whole")) for i in indices]
            ending = self._once(runner, task, cells, left)
            if ending.kind == "lost" and not lost:  # Once more: the machine may have run out of memory.
                lost = 1
                continue
            limits = ("time", "memory", "disk", "died")
            in_cell = 1 <= ending.cell <= len(indices) and ending.kind in limits
            if not in_cell:
                break
            index = indices[ending.cell - 1]
            stopped.setdefault(index, self._why(ending))
            if modes.get(index) == "skip":
                break
            modes[index] = _NEXT[modes.get(index, "whole")]
        points, reason, limited = self._points(task, ending)
        if points < task.points and not limited:
            reason = self._explained(reason, task, matched, indices, ending, stopped)
        printed = ending.printed
        if ending.length > len(printed.encode()):
            printed = f"{printed[:1000]}\n… and {ending.length:,} bytes in all, which were not kept"
        return TaskResult(points, reason, printed, limited)

    def _points(self, task: Task, ending: Ending) -> tuple[float, str, bool]:
        """Points, the reason in one line, and whether a limit was met."""
        said = ending.said
        if ending.kind != "done":
            return 0.0, self._why(ending), ending.kind in ("time", "total", "memory", "disk")
        points = said.get("points")
        if missing := [name for name in said.get("missing", []) if isinstance(name, str)]:
            return 0.0, f"there is no `{missing[0]}`", False
        if not isinstance(points, int | float) or not math.isfinite(points):
            points = task.points if points is None and not said.get("error") else 0.0
        points = min(max(float(points), 0.0), task.points)
        lines = [line for line in str(said.get("printed", "")).strip().splitlines() if line]
        reason = str(said.get("error") or (lines[-1] if lines else ""))
        reason = re.sub(rf"^{re.escape(task.label)}: *", "", reason)
        reason = re.sub(r"^[\d.]+ of [\d.]+ points(: )?", "", reason)
        return points, reason if points < task.points else "", False

    @staticmethod
    def _explained(
        reason: str, task: Task, matched: Matched, ran: Sequence[int], ending: Ending, stopped: dict[int, str]
    ) -> str:
        """The reason, with what became of the cell that should define a name which is not there."""
        missing = re.match(r"there is no `(\w+)`$|.*NameError: name '(\w+)' is not defined", reason)
        if not missing:
            again = matched.again(task.names, ran)
            return f"{reason}; {again}" if again else reason
        if why := matched.elsewhere(missing[1] or missing[2], ran):
            return f"{reason}; {why}"
        if missing[2]:
            return reason
        errors = {int(n): str(t) for n, t in (ending.said.get("errors") or {}).items() if str(n).isdigit()}
        pieces = {n for n, index in enumerate(ran, 1) if matched.cells[index].answer in task.answers}
        if cut := [stopped[ran[n - 1]] for n in pieces if ran[n - 1] in stopped]:
            return f"{reason}; its cell {cut[0]}"
        told = [errors[n] for n in sorted(errors) if n in pieces] or [errors[n] for n in sorted(errors) if n]
        if told:
            return (
                f"{reason}; {'its cell' if pieces & errors.keys() else 'a cell above it'} ends in {told[-1]}"
            )
        sources = [matched.cells[ran[n - 1]].source.strip() for n in sorted(pieces)]
        if magic := [s.split()[0] for s in sources if s.startswith("%%") and missing[1] in defined(s)]:
            return f"{reason}; its cell begins with `{magic[-1]}`, which keeps no names"
        there = any(cell.raw and cell.answer in task.answers for cell in matched.cells)
        return f"{reason}; {'no cell defines it' if there else 'its cell is missing'}"

    def _why(self, ending: Ending) -> str:
        limits = self.limits
        reasons = {
            "time": f"runs longer than {self.share:.3g} s, the share of one exercise, and was stopped",
            "total": f"was stopped: the submission has used up its {limits.seconds:g} s",
            "memory": f"takes more than {limits.memory / 2**30:.3g} GB of memory, and was stopped",
            "disk": "writes more than 0.5 GB of files, and was stopped",
            "died": _SIGNALS.get(ending.status, f"ends Python (exit code {ending.status})"),
            "unreadable": "returns something that cannot be read",
            "lost": LOST,
        }
        return reasons[ending.kind]

    @staticmethod
    def _cell_note(matched: Matched, index: int, why: str) -> str:
        lines = [line for line in matched.cells[index].source.strip().splitlines() if line]
        first = lines[0][:60] if lines else ""
        return f"the cell `{first}` {why}; of it, only functions and imports count"

    def finish(self, one: Submission, result: Result, matched: Matched | None, key: str) -> str:
        """Enters a result in the gradebook, writes feedback and scores, and says it in a line."""
        again = ""
        if matched is not None:
            outputs = {}
            for task in self.code:
                done = result.tasks[task.id]
                points = done.points or 0.0
                why = f": {done.reason}" if done.reason else ""
                outputs[task.id] = points, f"{task.label}: {points:g} of {task.points:g} points{why}\n"
            self.book.record(one.student, self.given, matched, outputs, one.time)
            if any(task.reason == LOST for task in result.tasks.values()):
                key = ""  # To be run again next time.
        if matched is not None or result.broken:
            key = "" if result.broken else key
            write_atomically(self._keep_path(one), json.dumps({"key": key, **asdict(result)}, indent=1))
        else:
            again = " (unchanged since it was last graded)"
        marks = None if result.broken else self.book.marks(one.student, self.given)
        self._results[one.student] = (result, marks)
        write_atomically(self.folder / "feedback" / f"{one.student}.html", page(result, self.given, marks))
        write_scores(self.folder / CSV_NAME, self.given, self.rows())
        if result.broken or marks is None:
            return f"{one.student}: {one.shown}: not graded: {result.broken}"
        total = sum(mark.score or 0 for mark in marks.values())
        hand = [task.label for task in self.given.tasks if marks[task.id].open]
        open_part = f"; exercise {', '.join(hand)} to be marked by hand" if hand else ""
        told = f"{one.student}: {one.shown}: {total:g} of {self.given.points:g}{open_part}"
        return f"{told}, {result.seconds:.1f} s{again}"

    def rows(self) -> list[tuple[Result, dict[str, Mark] | None]]:
        """The results so far, with marks, by student: of this run, and of those that were graded before."""
        for path in (self.folder / "results").glob("*.json"):
            if path.stem not in self._results and path.stem not in self._before:
                kept = _read_result(path)
                if kept is not None:
                    self._before[path.stem] = (kept, self.book.marks(kept.student, self.given))
        rows = {**self._before, **self._results}
        return [rows[student] for student in sorted(rows)]

    def is_new(self, one: Submission) -> bool:
        """Whether a submission is to be run: it can be read, and has changed since it was last graded."""
        return not one.broken and (self.again or self._kept(one, self._key(one)) is None)

    def _keep_path(self, one: Submission) -> Path:
        return self.folder / "results" / f"{one.student}.json"

    def _key(self, one: Submission) -> str:
        """Changes with the file, the tests, the limits and labkit's way to grade."""
        mark = hashlib.sha256(one.path.read_bytes() if one.path.stat().st_size < 2**28 else b"")
        for task in self.given.tasks:
            mark.update(f"{task.id}{task.points}{task.tests}".encode())
        mark.update(f"{VERSION}{self.given.setup}{asdict(self.limits)}{sys.version_info[:2]}".encode())
        return mark.hexdigest()

    def _kept(self, one: Submission, key: str) -> Result | None:
        path = self._keep_path(one)
        try:
            if json.loads(path.read_text(encoding="utf-8")).get("key") != key:
                return None
        except (OSError, ValueError, AttributeError):
            return None
        kept = _read_result(path)
        if kept is None or kept.student != one.student or self.book.marks(one.student, self.given) is None:
            return None
        return kept


def _read_result(path: Path) -> Result | None:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        told.pop("key")
        tasks = {key: TaskResult(**value) for key, value in told.pop("tasks").items()}
        return Result(**{**told, "notes": tuple(told["notes"]), "tasks": tasks})
    except (OSError, ValueError, KeyError, TypeError):
        return None
