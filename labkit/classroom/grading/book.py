"""nbgrader's side of grading: the assignments of a course, its gradebook, and the autograded notebooks."""

from __future__ import annotations

import copy
import io
import logging
import os
import re
import shutil
import sys
import tempfile
import threading
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat

from labkit.classroom.grading.cells import Given, GivenCell, Task, bare, read_handed
from labkit.classroom.grading.code import top_names
from labkit.classroom.grading.files import TIMESTAMP
from labkit.classroom.grading.match import Matched, match
from labkit.classroom.grading.restored import restored

CONFIG = "nbgrader_config.py"
OLD = "An earlier answer had "
_ALONE = threading.RLock()


@dataclass(frozen=True)
class Mark:
    """What the gradebook holds for one task.

    Attributes:
        score: None where there is none yet.
        open: whether a person is to mark it, for the first time or because the answer is another now.
        old: the mark and the comment that an earlier answer had, in a sentence; empty if there is none.
    """

    score: float | None
    by_hand: bool
    open: bool
    comment: str = ""
    old: str = ""


def find_course(submissions: Path, course: Path | None) -> Path:
    """The course's folder: the one named, or the nearest above the submissions that has nbgrader's settings.

    Raises:
        ValueError: there is none.
    """
    if not submissions.exists():
        raise ValueError(f"SUBMISSIONS: there is no {submissions}")
    if course is not None:
        if not (course / CONFIG).is_file():
            raise ValueError(
                f"--course: {course} has no {CONFIG}; `labkit assignment release` makes a course"
            )
        return course.resolve()
    for folder in submissions.resolve().parents:
        if (folder / CONFIG).is_file():
            return folder
    raise ValueError(f"no folder above {submissions} has a {CONFIG}; name the course with --course DIR")


class Book:
    """The gradebook of a course.

    Args:
        course: its folder, with the settings.
        database: the address of the gradebook; by default the one of the settings.

    Raises:
        ImportError: nbgrader is not installed.
    """

    def __init__(self, course: Path, database: str = "") -> None:
        if find_spec("nbgrader") is None:
            raise ImportError("grading needs nbgrader; install it with: pip install 'labkit[course]'")
        self.course = course
        with _quiet():
            from nbgrader.coursedir import CourseDirectory
            from traitlets.config.loader import PyFileConfigLoader

            self._config = PyFileConfigLoader(CONFIG, path=str(course)).load_config()
            self._config.CourseDirectory.root = str(course)
            if database:
                self._config.CourseDirectory.db_url = database
            self._directory = CourseDirectory(config=self._config)

    def _path(self, step: str, assignment: str, student: str = ".") -> Path:
        folder = getattr(self._directory, f"{step}_directory")
        return Path(self._directory.format_path(folder, student, assignment))

    @contextmanager
    def _open(self) -> Iterator[Any]:
        with _quiet():
            from nbgrader.api import Gradebook

            with Gradebook(self._directory.db_url, self._directory.course_id) as gradebook:
                yield gradebook

    def assignments(self) -> dict[str, list[str]]:
        """Name of each assignment with one notebook of that name -> the grade ids of its cells.

        Raises:
            ValueError: there are none.
        """
        found = {}
        database = self.course / "gradebook.db"
        if self._directory.db_url == f"sqlite:///{database}" and not database.is_file():
            raise ValueError(f"{self.course} has no gradebook.db; `labkit assignment release` makes it")
        with self._open() as gradebook:
            for assignment in gradebook.assignments:
                for notebook in assignment.notebooks:
                    if notebook.name == assignment.name:
                        found[assignment.name] = [cell.name for cell in notebook.source_cells]
        if not found:
            raise ValueError(f"{self.course} has no assignment yet; `labkit assignment release` makes one")
        return found

    def load(self, name: str) -> Given:
        """An assignment, from the gradebook and from the instructor's notebook.

        Raises:
            ValueError: the instructor's notebook is missing or has other cells than the gradebook.
        """
        path = self._path("source", name) / f"{name}.ipynb"
        if not path.is_file():
            raise ValueError(f"the instructor's notebook of {name} is missing: {path}")
        cells = nbformat.read(path, as_version=4).cells
        with self._open() as gradebook:
            stored = {cell.name: cell.source for cell in gradebook.find_notebook(name, name).source_cells}
        ours = [cell for cell in cells if _own(cell)]
        lacks = [_own(cell)["grade_id"] for cell in ours if _own(cell)["grade_id"] not in stored]
        if lacks:
            raise ValueError(f"{path} has a cell {lacks[0]} that the gradebook lacks; release {name} again")
        release = self._path("release", name) / f"{name}.ipynb"
        shown = nbformat.read(release, as_version=4).cells if release.is_file() else []
        released = {_own(cell)["grade_id"]: cell for cell in shown if _own(cell)}
        kinds = [
            (cell, _own(cell)) for cell in ours if cell.cell_type == "code" and not _own(cell).get("grade")
        ]
        return Given(
            name,
            "\n".join(stored[own["grade_id"]] for _, own in kinds if not own.get("solution")),
            tuple(_tasks(ours, stored)),
            tuple(_given(cell, stored, released) for cell in cells),
            tuple(cell.source for cell, own in kinds if own.get("solution")),
        )

    def record(
        self, student: str, given: Given, matched: Matched, outputs: Mapping[str, tuple[float, str]],
        time: str = "",
    ) -> None:  # fmt: skip
        """Writes the autograded notebook and the scores, as nbgrader does.

        A mark by hand belongs to the answer that it was given for: where that has changed, it is put aside.

        Args:
            outputs: grade id of tests -> points, and the line that they print.
            time: when it was handed in, where nbgrader's layout tells.
        """
        with tempfile.TemporaryDirectory(prefix="labkit-book-") as folder:
            place = Path(folder) / "submitted" / student / given.name
            place.mkdir(parents=True)
            nbformat.write(restored(matched, outputs), place / f"{given.name}.ipynb")
            if time:
                (place / TIMESTAMP).write_text(time, encoding="utf-8")
            before, changed = self.marks(student, given) or {}, self._changed(student, given, matched)
            self._autograde(Path(folder), student, given.name)
            self._ask_for_marks(student, given, matched)
            for task in given.tasks:
                if task.id in before:
                    self._carry(student, given, task, before[task.id], task.id in changed)
            made = Path(folder) / "autograded" / student / given.name
            target = self._path("autograded", given.name, student)
            target.mkdir(parents=True, exist_ok=True)
            for file in made.iterdir():
                part = target / f".{file.name}.{uuid.uuid4().hex[:8]}.part"
                shutil.copy(file, part)
                os.replace(part, target / file.name)

    def _ask_for_marks(self, student: str, given: Given, matched: Matched) -> None:
        """nbgrader looks at an answer's own cell alone, and at whether it is as it was given out."""
        with self._open() as gradebook:
            for task in (task for task in given.tasks if task.by_hand):
                asked = matched.is_written(task.id) or matched.in_doubt(task.id)
                grade = gradebook.find_grade(task.id, given.name, given.name, student)
                grade.auto_score, grade.needs_manual_grade = (None, True) if asked else (0.0, False)
                if asked:
                    gradebook.find_comment(task.id, given.name, given.name, student).auto_comment = None
            gradebook.db.commit()

    def _changed(self, student: str, given: Given, matched: Matched) -> set[str]:
        """The tasks of which the answer is another than in the notebook that was marked last."""
        marked = self._path("autograded", given.name, student) / f"{given.name}.ipynb"
        try:
            before = match(read_handed(marked), given)
        except ValueError:  # There is none, or it was changed by hand.
            return {task.id for task in given.tasks}
        return {
            task.id
            for task in given.tasks
            for answer in task.answers
            if _written(before, answer) != _written(matched, answer)
        }

    def _carry(self, student: str, given: Given, task: Task, before: Mark, changed: bool) -> None:
        """Puts a mark by hand aside where its answer has changed; else it counts as it did.

        Aside is the comment that nbgrader's machine makes: its formgrader shows it until a person writes one.
        """
        with self._open() as gradebook:
            grade, comments = _found(gradebook, student, given, task)
            aside = changed and (before.by_hand or bool(before.comment))
            if aside:
                grade.manual_score = grade.extra_credit = None
                for comment in comments:
                    comment.manual_comment = None
            old = before.old or (_in_words(before.score, task, before.comment) if aside else "")
            if old and comments:
                comments[-1].auto_comment = old
            if aside or old or before.by_hand:
                grade.needs_manual_grade = aside or before.open
            gradebook.db.commit()

    def generate(self, name: str) -> None:
        """Makes the students' version of an assignment, and writes its cells into the gradebook.

        Raises:
            ValueError: nbgrader refuses; the message has its last words.
        """
        with _quiet():
            from nbgrader.converters import GenerateAssignment

            if not shutil.which("alembic"):  # nbgrader runs it by its name: it is beside this Python.
                os.environ["PATH"] += os.pathsep + str(Path(sys.executable).parent)
            try:
                self._convert(GenerateAssignment, {"assignment_id": name})
            except ValueError as error:
                if "Cannot add or remove cells" in str(error):
                    raise ValueError(
                        f"{name} has submissions, and nbgrader cannot add or remove graded cells then; "
                        "release the notebook under another name, or into another course"
                    ) from None
                raise ValueError(f"nbgrader makes no release of {name}: {error}") from None

    def _autograde(self, folder: Path, student: str, name: str) -> None:
        with _quiet():
            from nbgrader import preprocessors as steps
            from nbgrader.converters import Autograde

            # The cells have run already, one exercise apart from the other.
            self._convert(
                Autograde,
                {
                    "root": str(folder), "student_id": student, "assignment_id": name, "notebook_id": "*",
                    "submitted_directory": "submitted", "autograded_directory": "autograded",
                    "directory_structure": os.path.join("{nbgrader_step}", "{student_id}", "{assignment_id}"),
                },
                sanitize_preprocessors=[steps.OverwriteCells, steps.CheckCellMetadata],
                autograde_preprocessors=[
                    steps.LimitOutput, steps.SaveAutoGrades, steps.AssignLatePenalties,
                    steps.CheckCellMetadata,
                ],
            )  # fmt: skip

    def _convert(self, kind: Any, place: Mapping[str, str], **options: Any) -> None:
        """Runs a step of nbgrader's, with the settings of this course.

        Raises:
            ValueError: its last words.
        """
        from nbgrader.converters.base import NbGraderException
        from nbgrader.coursedir import CourseDirectory

        config = copy.deepcopy(self._config)
        config.CourseDirectory.update({
            "db_url": self._directory.db_url, "course_id": self._directory.course_id, **place
        })  # fmt: skip
        converter = kind(coursedir=CourseDirectory(config=config), config=config)
        for name, value in {"force": True, **options}.items():
            setattr(converter, name, value)
        said = io.StringIO()
        converter.log = logging.Logger("nbgrader", logging.ERROR)
        converter.log.addHandler(logging.StreamHandler(said))
        try:
            converter.start()
        except NbGraderException as error:
            lines = [
                line for line in said.getvalue().splitlines() if re.match(r"\w*(Error|Exception): ", line)
            ]
            raise ValueError((lines or [str(error)])[-1]) from None

    def marks(self, student: str, given: Given) -> dict[str, Mark] | None:
        """Task -> what the gradebook holds for a student; None where nothing was handed in."""
        from nbgrader.api import MissingEntry

        with self._open() as gradebook:
            try:
                gradebook.find_submission(given.name, student)
            except MissingEntry:
                return None
            return {task.id: _mark(*_found(gradebook, student, given, task), task) for task in given.tasks}


def _written(matched: Matched, answer: str) -> tuple[str, list[Any]]:
    """A text with its pictures."""
    pieces = [cell.raw for cell in matched.cells if cell.answer == answer and cell.raw]
    return bare(matched.source(answer) or ""), [
        piece["attachments"] for piece in pieces if piece.get("attachments")
    ]


def _own(cell: Any) -> dict[str, Any]:
    return cell.metadata.get("nbgrader") or {}


def _given(cell: Any, stored: Mapping[str, str], released: Mapping[str, Any]) -> GivenCell:
    if not _own(cell):
        return GivenCell("", cell.cell_type, cell.source, cell.source, cell.get("id", ""), {})
    grade_id = _own(cell)["grade_id"]
    shown = released.get(grade_id, {})
    metadata = {key: value for key, value in _own(cell).items() if key != "checksum"}
    source = stored[grade_id]
    return GivenCell(
        grade_id, cell.cell_type, source, shown.get("source", source), shown.get("id", ""), metadata
    )


def _tasks(ours: list[Any], stored: Mapping[str, str]) -> Iterator[Task]:
    """Hidden tests with all answers since the last ones, and answers that a person marks."""
    answers: list[str] = []
    for cell in ours:
        own = _own(cell)
        grade_id = own["grade_id"]
        if own.get("grade") and not own.get("solution") and cell.cell_type == "code":
            names = dict.fromkeys(name for answer in answers for name in top_names(stored[answer]))
            yield Task(grade_id, own["points"], False, tuple(answers), tuple(names), stored[grade_id])
            answers = []
        elif own.get("grade") or own.get("task"):
            yield Task(grade_id, own["points"], True, (grade_id,))
        elif own.get("solution"):
            answers.append(grade_id)


def _found(gradebook: Any, student: str, given: Given, task: Task) -> tuple[Any, list[Any]]:
    """The grade of a task, and the comments on its answers: nbgrader has one for each cell to fill in."""
    from nbgrader.api import MissingEntry

    comments = []
    for answer in task.answers:
        with suppress(MissingEntry):
            comments.append(gradebook.find_comment(answer, given.name, given.name, student))
    return gradebook.find_grade(task.id, given.name, given.name, student), comments


def _mark(grade: Any, comments: list[Any], task: Task) -> Mark:
    by_hand = grade.manual_score is not None
    known = by_hand or grade.auto_score is not None
    comment = "\n".join(one.manual_comment for one in comments if one.manual_comment)
    if not grade.needs_manual_grade and known:
        return Mark(grade.score or 0.0, by_hand, False, comment)
    old = "".join(one.auto_comment for one in comments if (one.auto_comment or "").startswith(OLD))
    if by_hand:  # nbgrader has graded another file since, and asks for a person to look at the mark.
        return Mark(grade.auto_score, True, True, "", old or _in_words(grade.score, task, comment))
    return Mark(grade.auto_score, False, True, comment, old)


def _in_words(score: float | None, task: Task, comment: str) -> str:
    return f"{OLD}{score or 0:g} of {task.points:g} points{': ' * bool(comment)}{comment}"


@contextmanager
def _quiet() -> Iterator[None]:
    """nbgrader and its database warn of their own future; it is no news to an instructor.

    One thread at a time: what is filtered is the same for all.
    """
    with _ALONE, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
