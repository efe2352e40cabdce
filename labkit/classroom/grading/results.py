"""What grading finds: the result of a task, of a submission, of the whole run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from labkit.classroom.grading.book import Mark
from labkit.classroom.grading.files import Found


@dataclass(frozen=True)
class TaskResult:
    """One task of one submission: points (None: to be marked by hand), the reason, what was printed."""

    points: float | None
    reason: str = ""
    printed: str = ""
    limited: bool = False


@dataclass(frozen=True)
class Result:
    """One graded submission.

    Attributes:
        tasks: task -> its result; empty where the file cannot be read.
        answers: grade id of an answer -> what the student wrote, None where it is missing.
        notes: what was put right in the notebook, and which cells were stopped.
    """

    student: str
    assignment: str
    shown: str
    tasks: dict[str, TaskResult] = field(default_factory=dict)
    answers: dict[str, str | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    broken: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Graded:
    """What `grade` did.

    Attributes:
        rows: each result with the marks that the gradebook holds for it.
        people: who is who, with the files that were not graded.
        folders: where scores and feedback of each assignment are.
        lacks: walls that this system does not have.
    """

    rows: tuple[tuple[Result, dict[str, Mark] | None], ...]
    people: Found
    folders: tuple[Path, ...]
    lacks: tuple[str, ...]
