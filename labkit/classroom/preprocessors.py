"""Steps of nbgrader's generate_assignment and autograde, for notebooks that tell a story around exercises.

nbgrader_config.py puts them among nbgrader's own.
"""

from __future__ import annotations

from typing import Any

from nbformat import NotebookNode
from nbgrader.preprocessors import ClearOutput, ClearSolutions, NbGraderPreprocessor

__all__ = ["ClearExerciseOutput", "ClearMarkedSolutions", "RunGradedCells"]


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


class RunGradedCells(NbGraderPreprocessor):
    """Has every cell of an exercise run: nbgrader gives all points to tests that say nothing."""

    def preprocess_cell(
        self, cell: NotebookNode, resources: Any, cell_index: int
    ) -> tuple[NotebookNode, Any]:
        """One cell; a student may have tagged it "story", which is skipped."""
        if "nbgrader" in cell.metadata and "tags" in cell.metadata:
            cell.metadata["tags"] = [tag for tag in cell.metadata["tags"] if tag != "story"]
        return cell, resources
