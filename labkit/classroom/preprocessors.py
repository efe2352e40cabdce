"""Steps of nbgrader's generate_assignment, zip_collect and autograde, for notebooks with a story.

nbgrader_config.py puts them among nbgrader's own.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from nbformat import NotebookNode
from nbgrader.coursedir import CourseDirectory
from nbgrader.plugins import FileNameCollectorPlugin
from nbgrader.preprocessors import ClearOutput, ClearSolutions, NbGraderPreprocessor

from labkit.classroom.grading.book import Book
from labkit.classroom.grading.cells import handed
from labkit.classroom.grading.match import STORY, match
from labkit.classroom.grading.people import clean_name, stated
from labkit.classroom.grading.restored import restored

__all__ = ["ClearExerciseOutput", "ClearMarkedSolutions", "PlatformCollector", "RestoreSubmission"]


class ClearExerciseOutput(ClearOutput):
    """Clears the outputs of the exercises and of what uses their solutions; the story keeps its figures."""

    def preprocess_cell(
        self, cell: NotebookNode, resources: Any, cell_index: int
    ) -> tuple[NotebookNode, Any]:
        """One cell; a cell of the story is tagged "story" and nothing else of ours."""
        tags = cell.metadata.get("tags", [])
        if "story" in tags and not any(tag.startswith("then-") for tag in tags):
            return cell, resources
        return super().preprocess_cell(cell, resources, cell_index)


class ClearMarkedSolutions(ClearSolutions):
    """Replaces marked solutions alone: the dict of a prediction has none, and is its own stub."""

    def preprocess_cell(
        self, cell: NotebookNode, resources: Any, cell_index: int
    ) -> tuple[NotebookNode, Any]:
        """One cell."""
        if self.begin_solution_delimeter not in cell.source:
            return cell, resources
        return super().preprocess_cell(cell, resources, cell_index)


class RestoreSubmission(NbGraderPreprocessor):
    """Lays a submission over its assignment as `labkit assignment grade` does, before nbgrader runs it.

    An import added to a locked cell is kept, an answer is found in a cell of the student's own, and what
    it uses of the story runs. So does each graded cell: nbgrader gives all points to tests that say nothing.
    """

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """One notebook."""
        book = Book(Path(CourseDirectory(config=self.config).root))
        matched = match(handed(nb), book.load(resources["nbgrader"]["assignment"]))
        made = restored(matched, {})
        needed = {place for task in matched.given.tasks for place in matched.program(task)}
        for place, cell in enumerate(made.cells):
            if cell.cell_type == "code":
                skipped = matched.cells[place].role == STORY and place not in needed
                tags = [tag for tag in cell.metadata.get("tags", []) if tag != STORY]
                cell.metadata["tags"] = [*tags, *[STORY] * skipped]
        return made, resources


class PlatformCollector(FileNameCollectorPlugin):
    """Whose file is whose for zip_collect, as `labkit assignment grade` has it, unless there is a pattern."""

    def collect(self, submitted_file: str) -> dict[str, str] | None:
        """Student and time of one file; a notebook without an owner stops the command, not to be skipped."""
        if self.named_regexp or Path(submitted_file).suffix not in self.valid_ext:
            return super().collect(submitted_file)
        app, name = self.parent, self.parent.coursedir.assignment_id
        parts = Path(submitted_file).relative_to(app._format_collect_path(app.extracted_directory)).parts
        # The folder that a zip has become is called like the file that it was.
        places = (PurePosixPath(*parts[:length]) for length in range(1, len(parts) + 1))
        owner = next(filter(None, (stated(place, [name]) for place in places)), None)
        if owner is None:
            return app.fail(f"nothing states whose it is: {PurePosixPath(*parts)}")
        found = {"student_id": clean_name(owner.student), "file_id": name}
        if isinstance(owner.order, str | datetime):
            found["timestamp"] = str(owner.order)
        return found
