"""`labkit assignment grade`: what students handed in, run exercise by exercise, with scores and feedback.

Each exercise runs by itself: the student's cells down to it, in a process with a limit on time and memory,
and the hidden tests in another, which calls the answer from afar. One that never ends, takes all memory or
kills Python costs its own points and nobody else's. What is finished is on disk at once; a second run takes
up where the first was interrupted.
"""

from __future__ import annotations

import math
import os
import queue
import re
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from labkit.classroom.grading.book import Book, Mark, find_course
from labkit.classroom.grading.feedback import FILES_NAME, write_files
from labkit.classroom.grading.files import Submission, find_submissions
from labkit.classroom.grading.limits import walls
from labkit.classroom.grading.match import Matched
from labkit.classroom.grading.one import Grader, Limits
from labkit.classroom.grading.results import Graded, Result
from labkit.classroom.grading.runner import Runner

__all__ = ["Graded", "Limits", "grade", "memory_size"]

DEFAULT = Limits()


def grade(
    submissions: Path,
    *,
    course: Path | None = None,
    out: Path | None = None,
    limits: Limits = DEFAULT,
    jobs: int = 1,
    again: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> Graded:
    """Grades a folder of submissions, writes scores and feedback, and enters all in nbgrader's gradebook.

    Args:
        submissions: the folder, a zip of it, or one notebook.
        course: the folder with nbgrader_config.py; by default the nearest above `submissions`.
        out: where scores and feedback go; by default the folder `grades` of the course.
        limits: for each submission.
        jobs: how many submissions to run at a time.
        again: whether to run those too that have not changed since they were last graded.
        tell: is given a line for each file that is taken and for each submission that is graded.

    Returns:
        Graded: a result a submission, and where the files are.

    Raises:
        ImportError: nbgrader is not installed.
        ValueError: no such folder, no course, no assignment, or the assignment's own solutions fail here.
        OSError: the results cannot be written.
    """
    if not hasattr(os, "fork"):
        raise ValueError("grading needs Linux or macOS; on Windows run it in WSL or in a container")
    if limits.seconds <= 0 or not math.isfinite(limits.seconds):
        raise ValueError(f"--seconds takes a number above 0, got {limits.seconds:g}")
    if jobs < 1:
        raise ValueError(f"--jobs takes a number from 1, got {jobs}")
    if not submissions.exists():
        raise ValueError(f"SUBMISSIONS: there is no {submissions}")
    submissions = submissions.resolve()
    book = Book(find_course(submissions, course))
    ids = book.assignments()
    target = (out or book.course / "grades").resolve()
    lacks = tuple(walls())
    for line in lacks:
        tell(line)
    with tempfile.TemporaryDirectory(prefix="labkit-unzipped-") as unpacked, _Runners(jobs) as runners:
        found, left_out = find_submissions(submissions, ids, Path(unpacked))
        for left in left_out:
            tell(f"left out: {left.shown}: {left.why}")
        if not found:
            raise ValueError(f"{submissions} holds no notebook of an assignment of {book.course}")
        graders = {}
        for name in dict.fromkeys(one.assignment for one in found):
            grader = graders[name] = Grader(book, book.load(name), target / name, limits, again)
            if any(grader.is_new(one) for one in found if one.assignment == name):
                with runners.one() as runner:
                    grader.try_solutions(runner, tell)
        rows = _run_all(found, graders, runners, tell)
    folders = tuple(grader.folder for grader in graders.values())
    write_files(target / FILES_NAME, found, left_out)
    return Graded(tuple(rows), tuple(left_out), folders, lacks)


def _run_all(
    found: Sequence[Submission], graders: dict[str, Grader], runners: _Runners, tell: Callable[[str], None]
) -> list[tuple[Result, dict[str, Mark] | None]]:
    stop = threading.Event()

    def work(one: Submission) -> tuple[Result, Matched | None, str]:
        with runners.one() as runner:
            return graders[one.assignment].run(one, runner, stop)

    done = 0
    with ThreadPoolExecutor(len(runners)) as pool:
        pending: dict[Future[Any], Submission] = {pool.submit(work, one): one for one in found}
        try:
            while pending:
                ready, _ = wait_for(pending, timeout=0.2, return_when="FIRST_COMPLETED")
                for future in ready:
                    one = pending.pop(future)
                    done += 1
                    tell(f"[{done}/{len(found)}] {_finish(graders[one.assignment], one, future)}")
        except BaseException:
            stop.set()
            for future in pending:
                future.cancel()
            runners.close()
            raise
    return [row for grader in graders.values() for row in grader.rows()]


def _finish(grader: Grader, one: Submission, future: Future[Any]) -> str:
    """Enters one result. Whatever is wrong with a submission is its own reason, and stops no other."""
    try:
        return grader.finish(one, *future.result())
    except Exception as error:
        why = f"{type(error).__name__}: {error}".encode(errors="replace").decode()[:200]
        return grader.finish(one, grader.not_graded(one, f"could not be graded: {why}"), None, "")


class _Runners:
    """As many runners as there are jobs, each started when it is first needed."""

    def __init__(self, count: int) -> None:
        self._all = [Runner() for _ in range(count)]
        self._free: queue.SimpleQueue[Runner] = queue.SimpleQueue()
        for runner in self._all:
            self._free.put(runner)

    def __len__(self) -> int:
        return len(self._all)

    def __enter__(self) -> _Runners:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for runner in self._all:
            with suppress(Exception):
                runner.close()

    @contextmanager
    def one(self) -> Iterator[Runner]:
        runner = self._free.get()
        try:
            yield runner
        finally:
            self._free.put(runner)


def memory_size(text: str) -> int:
    """Bytes of "2G", "1.5 GB", "500M", "800000000".

    Args:
        text: a number with or without a unit.

    Returns:
        Bytes.

    Raises:
        ValueError: it is none of these, or below 16 MB, with which no tensor can be made.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    if not found:
        raise ValueError(f"--memory takes a size such as 2G or 500M, got {text!r}")
    size = float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " ")
    if size < 2**24:
        raise ValueError(f"--memory takes at least 16M, got {text!r}")
    return int(size)
