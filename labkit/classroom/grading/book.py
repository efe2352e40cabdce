"""nbgrader's side of grading: the assignments of a course, its gradebook, and the autograded notebooks."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat

from labkit.classroom.grading.cells import Given, GivenCell, Task
from labkit.classroom.grading.code import top_names
from labkit.classroom.grading.files import TIMESTAMP, read_timestamp
from labkit.classroom.grading.match import Matched
from labkit.classroom.grading.restored import restored

CONFIG = "nbgrader_config.py"
_ALONE = threading.RLock()


@dataclass(frozen=True)
class Mark:
    """What the gradebook holds for one task: `score` is None where a mark by hand is still missing."""

    score: float | None
    by_hand: bool
    open: bool
    comment: str = ""


def find_course(submissions: Path, course: Path | None) -> Path:
    """The course's folder: the one named, or the nearest above the submissions that has nbgrader's settings.

    Raises:
        ValueError: there is none.
    """
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

    Raises:
        ImportError: nbgrader is not installed.
    """

    def __init__(self, course: Path) -> None:
        if find_spec("nbgrader") is None:
            raise ImportError("grading needs nbgrader; install it with: pip install 'labkit[course]'")
        self.course = course
        with _quiet():
            from nbgrader.coursedir import CourseDirectory
            from traitlets.config.loader import PyFileConfigLoader

            self._config = PyFileConfigLoader(CONFIG, path=str(course)).load_config()
            self._config.CourseDirectory.root = str(course)
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
        source = nbformat.read(path, as_version=4)
        released = self._path("release", name) / f"{name}.ipynb"
        visible, cell_ids = {}, {}
        if released.is_file():
            for cell in nbformat.read(released, as_version=4).cells:
                grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
                if grade_id:
                    visible[grade_id], cell_ids[grade_id] = cell.source, cell.get("id", "")
        with self._open() as gradebook:
            stored = {cell.name: cell for cell in gradebook.find_notebook(name, name).source_cells}
            sources = {key: cell.source for key, cell in stored.items()}
        cells, tasks, setup = [], [], []
        answers: list[str] = []
        solved: list[str] = []
        for cell in source.cells:
            own = cell.metadata.get("nbgrader")
            if not own:
                cells.append(GivenCell("", cell.cell_type, cell.source, cell.source, cell.get("id", ""), {}))
                continue
            grade_id = own["grade_id"]
            if grade_id not in sources:
                raise ValueError(
                    f"{path} has a cell {grade_id} that the gradebook lacks; release {name} again"
                )
            text = sources[grade_id]
            shown = visible.get(grade_id, text)
            metadata = {key: value for key, value in own.items() if key != "checksum"}
            cells.append(
                GivenCell(grade_id, cell.cell_type, text, shown, cell_ids.get(grade_id, ""), metadata)
            )
            if own.get("grade") and not own.get("solution") and cell.cell_type == "code":
                names = [n for i in answers for n in top_names(sources[i])]
                tasks.append(
                    Task(grade_id, own["points"], False, tuple(answers), tuple(dict.fromkeys(names)), text)
                )
                answers = []
            elif own.get("grade") or own.get("task"):
                tasks.append(Task(grade_id, own["points"], True, (grade_id,)))
            elif own.get("solution"):
                answers.append(grade_id)
                solved += [cell.source] if cell.cell_type == "code" else []
            elif cell.cell_type == "code":
                setup.append(text)
        return Given(name, "\n".join(setup), tuple(tasks), tuple(cells), tuple(solved))

    def record(
        self, student: str, given: Given, matched: Matched, outputs: Mapping[str, tuple[float, str]],
        timestamp: Path | None = None,
    ) -> None:  # fmt: skip
        """Writes the autograded notebook and the scores, as nbgrader does. Marks by hand stay.

        Args:
            outputs: grade id of tests -> points, and the line that they print.
        """
        with tempfile.TemporaryDirectory(prefix="labkit-book-") as folder:
            place = Path(folder) / "submitted" / student / given.name
            place.mkdir(parents=True)
            nbformat.write(restored(matched, outputs), place / f"{given.name}.ipynb")
            # Only in nbgrader's layout is it the platform's; elsewhere a student may have put it there.
            if timestamp is not None and timestamp.parent.name == given.name:
                time = read_timestamp(timestamp)
                if time is not None:
                    (place / TIMESTAMP).write_text(time, encoding="utf-8")
            self._autograde(Path(folder), student, given.name)
            made = Path(folder) / "autograded" / student / given.name
            target = self._path("autograded", given.name, student)
            target.mkdir(parents=True, exist_ok=True)
            for file in made.iterdir():
                part = target / f".{file.name}.{uuid.uuid4().hex[:8]}.part"
                shutil.copy(file, part)
                os.replace(part, target / file.name)
        self._ask_for_marks(student, given, matched)

    def _ask_for_marks(self, student: str, given: Given, matched: Matched) -> None:
        """nbgrader looks at an answer's own cell alone, and would give 0 where it is as it was given out."""
        asked = [t for t in given.tasks if t.by_hand and (matched.is_written(t.id) or matched.in_doubt(t.id))]
        with self._open() as gradebook:
            for task in asked:
                grade = gradebook.find_grade(task.id, given.name, given.name, student)
                grade.auto_score, grade.needs_manual_grade = None, True
                gradebook.find_comment(task.id, given.name, given.name, student).auto_comment = None
            gradebook.db.commit()

    def _autograde(self, folder: Path, student: str, name: str) -> None:
        import copy

        with _quiet():
            from nbgrader.converters import Autograde
            from nbgrader.coursedir import CourseDirectory
            from nbgrader.preprocessors import (
                AssignLatePenalties,
                CheckCellMetadata,
                LimitOutput,
                OverwriteCells,
                SaveAutoGrades,
            )

            config = copy.deepcopy(self._config)
            config.CourseDirectory.update({
                "root": str(folder), "db_url": self._directory.db_url, "student_id": student,
                "assignment_id": name, "notebook_id": "*", "submitted_directory": "submitted",
                "autograded_directory": "autograded", "course_id": self._directory.course_id,
                "directory_structure": os.path.join("{nbgrader_step}", "{student_id}", "{assignment_id}"),
            })  # fmt: skip
            converter = Autograde(coursedir=CourseDirectory(config=config), config=config)
            converter.log.setLevel(logging.CRITICAL)
            # The cells have run already, one exercise apart from the other.
            converter.sanitize_preprocessors = [OverwriteCells, CheckCellMetadata]
            converter.autograde_preprocessors = [
                LimitOutput,
                SaveAutoGrades,
                AssignLatePenalties,
                CheckCellMetadata,
            ]
            converter.start()

    def marks(self, student: str, given: Given) -> dict[str, Mark] | None:
        """Task -> what the gradebook holds for a student; None where nothing was handed in."""
        from nbgrader.api import MissingEntry

        with self._open() as gradebook:
            try:
                gradebook.find_submission(given.name, student)
            except MissingEntry:
                return None
            found = {}
            for task in given.tasks:
                grade = gradebook.find_grade(task.id, given.name, given.name, student)
                given_by_hand = grade.manual_score is not None
                known = given_by_hand or grade.auto_score is not None
                score = (grade.score or 0.0) if known else None
                comment = ""
                if task.by_hand:
                    comment = (
                        gradebook.find_comment(task.id, given.name, given.name, student).manual_comment or ""
                    )
                found[task.id] = Mark(score, given_by_hand, not known, comment)
            return found


@contextmanager
def _quiet() -> Iterator[None]:
    """nbgrader and its database warn of their own future; it is no news to an instructor.

    One thread at a time: what is filtered is the same for all.
    """
    with _ALONE, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
