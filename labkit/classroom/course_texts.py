"""What labkit writes into a course beside the notebooks: nbgrader's settings, and the next steps."""

from __future__ import annotations

__all__ = ["CONFIG", "readme"]

CONFIG = '''"""The course's settings for nbgrader. Change what you like: labkit keeps a changed file."""

from nbgrader import preprocessors as steps

from labkit.classroom import preprocessors as labkit

c = get_config()

# --- what students get ---
# Nothing but the notebook: a .py beside it, such as the half of a pair, would have the solutions.
c.CourseDirectory.ignore = [".ipynb_checkpoints", "*.pyc", "__pycache__", "feedback", "*.py"]
c.ClearSolutions.code_stub = {"python": "raise NotImplementedError"}
c.ClearSolutions.text_stub = "*Your answer.*"
c.GenerateAssignment.preprocessors = [
    steps.LockCells,
    labkit.ClearMarkedSolutions,
    labkit.ClearExerciseOutput,
    steps.CheckCellMetadata,
    steps.ComputeChecksums,
    steps.SaveCells,
    steps.ClearHiddenTests,
    steps.ComputeChecksums,
    steps.CheckCellMetadata,
]

# --- collecting ---
# `nbgrader zip_collect` knows whose file is whose by the platforms' names, unless you set a named_regexp.
c.ZipCollectApp.collector_plugin = labkit.PlatformCollector

# --- grading ---
# The figures of the story take minutes and are nobody's answer.
c.Execute.skip_cells_with_tag = "story"
c.Autograde.sanitize_preprocessors = [
    steps.ClearOutput,
    labkit.RestoreSubmission,
    steps.OverwriteKernelspec,
    steps.OverwriteCells,
    steps.CheckCellMetadata,
]
c.Execute.timeout = 120  # seconds a cell
c.Execute.iopub_timeout = 30
c.OverwriteCells.add_missing_cells = True  # tests that a student has deleted
c.LimitOutput.max_lines = 200
c.LimitOutput.max_traceback = 30
'''


def readme(names: list[str]) -> str:
    """What the instructor does next, as markdown."""
    listed = "\n".join(f"- `{name}`" for name in names)
    first = names[0]
    return f"""# Assignments

Made by `labkit assignment release`, laid out for nbgrader:

{listed}

| | |
|---|---|
| `release/NAME/NAME.ipynb` | for students: exercises open, no solution, no hidden test |
| `source/NAME/NAME.ipynb` | for you: solutions, hidden tests, rubrics of the open questions |
| `gradebook.db` | nbgrader's record of cells, points and scores |
| `nbgrader_config.py` | its settings |

`source/`, `gradebook.db` and this folder as a whole are not for students.

## Next

1. **Hand out** `release/{first}/{first}.ipynb`, by whatever way you hand out files. Students need labkit
   installed, and nothing else.
2. **Collect** what they hand in into `submitted/`, one notebook a student:
   `submitted/STUDENT/{first}/{first}.ipynb`, or as your learning platform lays it out;
   `labkit assignment grade submitted --dry-run` lists who is who.
3. **Grade:** `labkit assignment grade submitted` runs the tests with a limit on time and memory for each
   submission, and writes scores and feedback.
4. **Open questions** are graded by hand; rubric and an answer stand in the cell `exercise-...` of `source/`.
   `jupyter lab` started in this folder has nbgrader's *Formgrader* in its menu *Nbgrader*. Then run
   step 3 again: marks by hand stay, and appear in scores and feedback.

`nbgrader generate_assignment NAME --force` makes `release/NAME` anew from `source/NAME`, after you changed
something there; unlike `labkit assignment release`, it does not look for solutions that slipped through.
"""
