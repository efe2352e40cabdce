"""`labkit assignment grade`: what students handed in, run exercise by exercise, with scores and feedback.

Each exercise runs by itself: the student's cells down to it, in a process with a limit on time and memory,
and the hidden tests in another, which calls the answer from afar. One that never ends, takes all memory or
kills Python costs its own points and nobody else's. What is finished is on disk at once; a second run takes
up where the first was interrupted.
"""

from __future__ import annotations

import math
import re
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from pathlib import Path
from typing import Any

from labkit.classroom.grading.book import Book, Mark, find_course
from labkit.classroom.grading.feedback import FILES_NAME, write_files
from labkit.classroom.grading.files import Found, Submission, find_submissions
from labkit.classroom.grading.limits import walls
from labkit.classroom.grading.one import Grader, Limits
from labkit.classroom.grading.people import Sources
from labkit.classroom.grading.results import Graded, Result
from labkit.classroom.grading.runner import Runner

__all__ = ["Graded", "Limits", "grade", "identify", "memory_size"]

DEFAULT = Limits()


def grade(
    submissions: Path | Sequence[Path],
    *,
    course: Path | None = None,
    out: Path | None = None,
    limits: Limits = DEFAULT,
    jobs: int = 1,
    again: bool = False,
    roster: Path | None = None,
    pattern: str = "",
    skip_refused: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> Graded:
    """Grades a folder of submissions, writes scores and feedback, and enters all in nbgrader's gradebook.

    Args:
        submissions: folders, zips of them, or single notebooks.
        course: the folder with nbgrader_config.py; by default the nearest above the first of `submissions`.
        out: where scores and feedback go; by default the folder `grades` of the course.
        limits: for each submission.
        jobs: how many submissions to run at a time.
        again: whether to run those too that have not changed since they were last graded.
        roster, pattern: what states whose a file is, beside nbgrader's layout and the platforms' names; see
            `Sources`.
        skip_refused: whether to grade the others where it is not stated whose a file is, or which one counts.
        tell: is given a line for each file that is taken and for each submission that is graded.

    Returns:
        Graded: a result a submission, and where the files are.

    Raises:
        ImportError: nbgrader is not installed.
        ValueError: no such folder, no course, no assignment; it is not stated who somebody is; or the
            assignment's own solutions fail here. Nothing is graded then.
        OSError: the results cannot be written.
    """
    _check(limits, jobs)
    handed_in = [submissions] if isinstance(submissions, Path) else list(submissions)
    book = Book(find_course(handed_in[0], course))
    target = (out or book.course / "grades").resolve()
    lacks = tuple(walls())
    for line in lacks:
        tell(line)
    with tempfile.TemporaryDirectory(prefix="labkit-unzipped-") as unpacked, Runner(jobs) as runner:
        people = _identify(book, handed_in, Path(unpacked), roster, pattern)
        _tell_who(people, tell)
        if people.refused and not skip_refused:
            raise ValueError(_advice(len(people.refused)))
        if not people.taken:
            told = " ".join(map(str, handed_in))
            raise ValueError(f"{told} holds no notebook of an assignment of {book.course}")
        graders = {
            name: Grader(book, book.load(name), target / name, limits, again)
            for name in dict.fromkeys(one.assignment for one in people.taken)
        }
        rows = _run_all(people.taken, graders, runner, jobs, tell)
    folders = tuple(grader.folder for grader in graders.values())
    write_files(target / FILES_NAME, people)
    return Graded(tuple(rows), people, folders, lacks)


def _check(limits: Limits, jobs: int) -> None:
    if limits.seconds <= 0 or not math.isfinite(limits.seconds):
        raise ValueError(f"--seconds takes a number above 0, got {limits.seconds:g}")
    if jobs < 1:
        raise ValueError(f"--jobs takes a number from 1, got {jobs}")


def _tell_who(people: Found, tell: Callable[[str], None]) -> None:
    for left in people.left_out:
        tell(f"left out: {left.shown}: {left.why}")
    for left in people.refused:
        tell(f"refused: {left.shown}: {left.why}")


def identify(
    submissions: Sequence[Path], *, course: Path | None = None, roster: Path | None = None, pattern: str = ""
) -> Found:
    """Who is who in what was handed in, as `grade` would take it; nothing is graded or written.

    Args:
        submissions: files, folders and zips.
        course: the folder of the course; found beside the submissions when left out.
        roster: a table of students, by which files are told.
        pattern: a regular expression with the groups `student_id` and, perhaps, others of nbgrader's.

    Returns:
        The persons with their files, those that are older, and what is refused.

    Raises:
        ImportError, ValueError: as `grade` has them.
    """
    with tempfile.TemporaryDirectory(prefix="labkit-unzipped-") as unpacked:
        book = Book(find_course(submissions[0], course))
        return _identify(book, submissions, Path(unpacked), roster, pattern)


def _identify(
    book: Book, submissions: Sequence[Path], unpacked: Path, roster: Path | None, pattern: str
) -> Found:
    assignments = book.assignments()
    sources = Sources(assignments, pattern, roster)
    return find_submissions([path.resolve() for path in submissions], assignments, unpacked, sources)


def _advice(count: int) -> str:
    return (
        f"{count} file{'s are' * (count > 1) or ' is'} refused, nothing was graded. --roster CSV or "
        "--pattern REGEX states whose a file is; of two for one student the wrong one can be moved away; "
        "--dry-run lists who is who; --skip-refused grades the others"
    )


def _run_all(
    found: Sequence[Submission],
    graders: dict[str, Grader],
    runner: Runner,
    jobs: int,
    tell: Callable[[str], None],
) -> list[tuple[Result, dict[str, Mark] | None]]:
    for grader in graders.values():
        if any(grader.is_new(one) for one in found if one.assignment == grader.given.name):
            tell(f"{grader.given.name}: {grader.given.points:g} points; trying the solutions")
            try:
                grader.try_solutions(runner)
            except ValueError as error:
                raise ValueError(f"{grader.given.name}: {error}") from None
    stop = threading.Event()

    done = 0
    with ThreadPoolExecutor(jobs) as pool:
        pending: dict[Future[Any], Submission] = {
            pool.submit(graders[one.assignment].run, one, runner, stop): one for one in found
        }
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
            runner.close()
            raise
    return [row for grader in graders.values() for row in grader.rows()]


def _finish(grader: Grader, one: Submission, future: Future[Any]) -> str:
    """Enters one result. Whatever is wrong with a submission is its own reason, and stops no other."""
    try:
        return grader.finish(one, *future.result())
    except Exception as error:
        why = f"{type(error).__name__}: {error}".encode(errors="replace").decode()[:200]
        return grader.finish(one, grader.not_graded(one, f"could not be graded: {why}"), None, "")


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
