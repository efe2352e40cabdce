"""A small notebook with every kind of exercise, and a course released from it."""

from __future__ import annotations

import os
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_output

LESSON = '''# %% [markdown]
# # Means

# %%
story = sum(range(5)) / 5
print("the story", story)

# %% [markdown]
# ## Exercises
#
# 12 points. Four tasks.

# %% [markdown] tags=["exercises-note"]
# Each solution and its tests are folded in below its task.

# %% tags=["exercises-setup"]
import math

from labkit.classroom.exercises import attempt, check_prediction, grade, same, unchanged

# %% [markdown]
# ### 7.1 The mean (3 points)

# %% tags=["exercise-7.1"]
def mean(values):
    """The mean of a list."""
    raise NotImplementedError


with attempt("7.1"):
    assert mean([1, 3]) == 2

# %% jupyter={"source_hidden": true} tags=["solution-7.1"]
def solution_mean(values):
    # math.fsum loses nothing
    return math.fsum(values) / len(values)

# %% jupyter={"source_hidden": true} tags=["tests-7.1"]
def check_mean(mean):
    for numbers in ([5.0], [1.0, 2.0, 6.0], [1e16, 1.0, -1e16]):
        with unchanged(numbers=numbers):
            found = mean(numbers)
        same(f"the mean of {numbers}", found, math.fsum(numbers) / len(numbers))


grade("7.1", check_mean, solution=solution_mean, answer=mean)

# %% [markdown]
# **Then.** The mean of squares.

# %% tags=["then-7.1"]
squares = [solution_mean([i**2 for i in range(n)]) for n in (2, 4)]
squares

# %% [markdown]
# ### 7.2 Spread (4 points)

# %% tags=["exercise-7.2a"]
def variance(values):
    raise NotImplementedError


with attempt("7.2a"):
    assert variance([1, 3]) == 1

# %% tags=["solution-7.2a"]
def solution_variance(values):
    """The mean of the squared distances from the mean."""
    center = solution_mean(values)
    return solution_mean([(value - center) ** 2 for value in values])

# %% tags=["tests-7.2a", "points-1"]
def check_variance(variance):
    same("the variance of 1, 2, 6", variance([1.0, 2.0, 6.0]), 14 / 3)


grade("7.2a", check_variance, solution=solution_variance, answer=variance)

# %% tags=["exercise-7.2b"]
def deviation(values):
    """The root of the variance."""
    raise NotImplementedError


with attempt("7.2b"):
    assert deviation([1, 3]) == 1

# %% tags=["solution-7.2b"]
def solution_deviation(values):
    return math.sqrt(solution_variance(values))

# %% tags=["tests-7.2b", "points-3"]
text = """kept
as it is"""


def check_deviation(deviation):
    same(f"the deviation of 1, 2, 6 ({len(text)} letters)", deviation([1.0, 2.0, 6.0]), math.sqrt(14 / 3))


grade("7.2b", check_deviation, solution=solution_deviation, answer=deviation)

# %% tags=["then-7.2"]
print(f"largest square {max(squares):.2f}, deviation {solution_deviation(squares):.2f}")

# %% [markdown]
# ### 7.3 Predict (2 points)

# %% tags=["exercise-7.3"]
prediction = {
    "mean": None,  # provable: of 1, 2, 6
    "feels": None,  # open: "large" or "small"
}
observed = dict.fromkeys(prediction)

# %%
print("a panel")

# %% tags=["tests-7.3"]
allowed = {"mean": (0.0, 10.0), "feels": ("large", "small")}
provable = {item: 3.0 for item in prediction if item == "mean"}
check_prediction(prediction, observed, allowed, provable, name="7.3")

# %% [markdown]
# ### 7.4 Explain (open, 3 points)

# %% [markdown] tags=["exercise-7.4"]
# *Your answer.*

# %% [markdown] tags=["solution-7.4"]
# 1. Names the outlier as the reason.
# 2. Proposes the median instead of it.
'''


def read(text: str) -> NotebookNode:
    """A notebook from the text of its .py half, with the outputs that running the story leaves."""
    notebook = jupytext.reads(text, fmt="py:percent")
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for place, cell in enumerate(notebook.cells):
        cell["id"] = f"cell{place}"
        if cell.cell_type == "code":
            cell.outputs = [new_output("stream", name="stdout", text=f"output of {place}\n")]
            cell.execution_count = place
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"
    }  # fmt: skip
    nbformat.validate(notebook)
    return notebook


@pytest.fixture
def lesson() -> NotebookNode:
    """Exercises 7.1 to 7.4: code, code in two parts, a prediction, an open question; 12 points."""
    return read(LESSON)


@pytest.fixture
def lesson_path(tmp_path: Path, lesson: NotebookNode) -> Path:
    """The lesson as a file of an instructor's own."""
    path = tmp_path / "own" / "07_means.ipynb"
    path.parent.mkdir()
    nbformat.write(lesson, path)
    return path


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A course with the lesson released into it, not executed; do not write into it."""
    pytest.importorskip("nbgrader", reason="the extra `course` is not installed")
    from labkit.classroom.release import release

    folder = tmp_path_factory.mktemp("course")
    nbformat.write(read(LESSON), folder / "07_means.ipynb")
    release([os.fspath(folder / "07_means.ipynb")], folder / "course", execute=False)
    return folder / "course"
