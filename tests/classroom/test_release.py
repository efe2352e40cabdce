"""A release: a course for nbgrader in which students' files give nothing away, and nothing is lost."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import warnings
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupytext.cli import jupytext
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_output

pytest.importorskip("nbgrader", reason="the extra `course` is not installed")

from labkit import cli
from labkit.classroom import course
from labkit.classroom.cells import read_sheet, tags
from labkit.classroom.instructor import instructor_version
from labkit.classroom.leaks import find_leaks, secrets
from labkit.classroom.release import read_notebook, release
from labkit.classroom.student import student_version
from labkit.classroom.trial import try_students
from tests.classroom.conftest import LESSON, read
from tests.conftest import ROOT

NAME = "07_means"


def published(folder: Path, name: str = NAME) -> NotebookNode:
    return nbformat.read(folder / "release" / name / f"{name}.ipynb", as_version=4)


def write(notebook: NotebookNode, path: Path) -> str:
    path.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, path)
    return os.fspath(path)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def renewed(released: Path, tmp_path: Path) -> Path:
    """A copy of the released course, to write into."""
    return Path(shutil.copytree(released, tmp_path / "course"))


def test_the_course_holds_what_nbgrader_and_the_instructor_need(released: Path) -> None:
    """A layout that nbgrader does not find its files in."""
    assert sorted(contents(released)) == [
        ".labkit.json",
        "README.md",
        "gradebook.db",
        "nbgrader_config.py",
        f"release/{NAME}/{NAME}.ipynb",
        f"source/{NAME}/{NAME}.ipynb",
    ]
    assert sorted(path.name for path in released.parent.iterdir()) == [f"{NAME}.ipynb", "course"]
    from nbgrader.api import Gradebook

    with closing(Gradebook(f"sqlite:///{released / 'gradebook.db'}")) as gradebook:
        notebook = gradebook.find_notebook(NAME, NAME)
        points = {cell.name: cell.max_score for cell in notebook.grade_cells}
        hidden = {cell.name: cell.source for cell in notebook.source_cells}
    assert points == {"tests-7-1": 3, "tests-7-2a": 1, "tests-7-2b": 3, "tests-7-3": 2, "exercise-7-4": 3}
    assert "def check_mean(mean):" in hidden["tests-7-1"]  # from there deleted tests are restored


def test_students_get_the_stubs_and_the_story_and_nothing_else(released: Path, lesson: NotebookNode) -> None:
    """A stub that nbgrader has changed, or a story without its figures."""
    notebook = published(released)
    expected = student_version(lesson, checks=False)
    named = [cell for cell in notebook.cells if not any(tag.startswith("tests-") for tag in tags(cell))]
    assert [cell.source for cell in named] == [cell.source for cell in expected.cells]
    assert [cell.get("outputs") for cell in named] == [cell.get("outputs") for cell in expected.cells]
    assert "output of 1" in nbformat.writes(notebook)
    left = [cell.source for cell in notebook.cells if any(tag.startswith("tests-") for tag in tags(cell))]
    assert left[0] == "# The tests of 7.1 (3 points) run when your work is graded." and len(left) == 4
    assert notebook.metadata["labkit"] == {"assignment": NAME} and "jupytext" not in notebook.metadata


def test_nbgrader_makes_the_same_release_from_the_source(renewed: Path) -> None:
    """An instructor who changes the source and has nbgrader release it, with the solutions in it."""
    before = contents(renewed / "release")
    (renewed / "source" / NAME / f"{NAME}.py").write_text(LESSON, encoding="utf-8")  # the half of a pair
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]),
    }
    words = [sys.executable, "-m", "nbgrader", "generate_assignment", NAME, "--force"]
    subprocess.run(words, cwd=renewed, env=environment, check=True, capture_output=True)
    assert contents(renewed / "release") == before


def nbgrader(folder: Path, *words: str) -> None:
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])  # of `alembic`
    command = [sys.executable, "-m", "nbgrader", *words]
    subprocess.run(command, cwd=folder, env={**os.environ, "PATH": path}, check=True, capture_output=True)


ANSWERS = {
    "7.1": "math.fsum(values) / len(values)",
    "7.2a": "mean([value**2 for value in values]) - mean(values) ** 2",
    "7.2b": "math.sqrt(variance(values))",
}


ADDED = {  # student -> the tag of a cell, what is added to it, and how the answer to 7.1 uses it
    "imports": ("exercises-setup", "import numpy as np", "float(np.float64(math.fsum(values)))"),
    "helped": ("story", "import math as m\ndef add(values):\n    return m.fsum(values)", "add(values)"),
    "beside": ("exercises-setup", "", "math.fsum(values)"),
}


def handed_in(course: Path, student: str) -> NotebookNode:
    """The released notebook, with all answers right, or its tests tagged as story, or deleted.

    "imports" adds to the locked setup, "helped" to the story, and "beside" answers in a cell of its own.
    """
    notebook = published(course)
    for cell in list(notebook.cells):
        (name,) = [tag.partition("-")[2] for tag in tags(cell) if tag.startswith("exercise-")] or [""]
        if student in ("right", *ADDED):
            cell.source = cell.source.replace("raise NotImplementedError", f"return {ANSWERS.get(name)}")
            cell.source = cell.source.replace("None,", '3 if "mean" else 0,', 1).replace("None,", '"small",')
            cell.source = cell.source.replace("dict.fromkeys(prediction)", "prediction")
        elif any(tag.startswith("tests-") for tag in tags(cell)):
            if student == "tagged":
                cell.metadata["tags"] = [*tags(cell), "story"]
            else:
                notebook.cells.remove(cell)
    if student in ADDED:
        where, helper, call = ADDED[student]
        mean = next(cell for cell in notebook.cells if "exercise-7.1" in tags(cell))
        mean.source = mean.source.replace("math.fsum(values)", call)
        next(cell for cell in notebook.cells if where in tags(cell)).source += f"\n{helper}"
    if student == "beside":
        answer = new_code_cell(mean.source)
        mean.source = published(course).cells[notebook.cells.index(mean)].source
        notebook.cells.insert(notebook.cells.index(mean) + 1, answer)
    return notebook


@pytest.mark.slow
def test_nbgraders_own_way_gives_the_same_students_and_points(renewed: Path) -> None:
    """Points for nothing: nbgrader gives them all to tests that were skipped, or deleted."""
    from nbgrader.api import Gradebook

    from labkit.classroom.grading.grade import grade

    archive = renewed / "downloaded" / NAME / "archive"
    archive.mkdir(parents=True)
    names = {
        "right": "Student A_1001_assignsubmission_file_/x.ipynb",
        "tagged": "hw_jd_attempt_2026-05-04-13-37-00_x.ipynb",
        "deleted": "doe_LATE_12_345_x.ipynb",
        **{kind: f"{kind}_12{place}_345_x.ipynb" for place, kind in enumerate(ADDED)},
    }
    with zipfile.ZipFile(archive / "class.zip", "w") as zipped:
        for kind, name in names.items():
            zipped.writestr(f"hw6/{name}", nbformat.writes(handed_in(renewed, kind)))
        zipped.writestr(
            f"hw6/{names['tagged'].replace('-13-', '-09-')}", nbformat.writes(handed_in(renewed, "right"))
        )
    shutil.copytree(renewed, renewed.with_name("ours"))
    nbgrader(renewed, "zip_collect", NAME)
    nbgrader(renewed, "autograde", NAME, "--create")
    nbgrader(renewed, "generate_feedback", NAME)
    with closing(Gradebook(f"sqlite:///{renewed / 'gradebook.db'}")) as gradebook:
        scores = {one.student.id: one.score for one in gradebook.assignment_submissions(NAME)}
    same = dict.fromkeys(("Student A_1001", "imports_120", "helped_121", "beside_122"), 9)
    assert scores == {**same, "jd": 0, "doe_12": 0}
    assert {path.parts[-3] for path in renewed.glob(f"feedback/*/{NAME}/{NAME}.html")} == set(scores)

    ours = renewed.with_name("ours")
    graded = grade(ours / "downloaded" / NAME / "archive" / "class.zip", course=ours)
    points = {
        result.student: sum(mark.score or 0 for mark in (marks or {}).values())
        for result, marks in graded.rows
    }
    assert points == scores


@pytest.mark.slow
def test_nbgraders_collecting_skips_nobody_silently(renewed: Path) -> None:
    """It warns of a file without an owner, and goes on."""
    archive = renewed / "downloaded" / NAME / "archive"
    archive.mkdir(parents=True)
    nbformat.write(published(renewed), archive / "anna.ipynb")
    nbformat.write(published(renewed), archive / "doe_12_345_x.ipynb")
    with pytest.raises(subprocess.CalledProcessError) as error:
        nbgrader(renewed, "zip_collect", NAME)
    assert b"nothing states whose it is: anna.ipynb" in error.value.stderr
    assert not (renewed / "submitted").exists()


LEAKS: dict[str, Any] = {
    "a line of a solution in the story": lambda cells: cells[1].update(
        source=cells[1].source + "\n# return   math.fsum(values)/len(values)"
    ),
    "a line of a test in the text": lambda cells: cells[0].update(
        source=cells[0].source + "\n\nTry `for numbers in ([5.0], [1.0, 2.0, 6.0], [1e16, 1.0, -1e16]):`"
    ),
    "a rubric in another cell": lambda cells: cells[0].update(source="Names the outlier as the reason."),
    "a solution in a stub": lambda cells: cells[6].update(
        source=cells[6].source.replace(
            "    raise", "    if True:\n        return math.fsum(values) / len(values)\n    raise"
        )
    ),
    "a line that an output shows": lambda cells: cells[1].outputs.append(
        new_output("stream", name="stdout", text="     return math.sqrt(solution_variance(values))\n")
    ),
    "a line in an error's traceback": lambda cells: cells[1].outputs.append(
        new_output("error", ename="E", evalue="", traceback=["--> center = solution_mean(values)"])
    ),
    "a line in the metadata": lambda cells: cells[1].metadata.update(
        note='same("the variance of 1, 2, 6", variance([1.0, 2.0, 6.0]), 14 / 3)'
    ),
    "a mark of nbgrader's": lambda cells: cells[0].update(source="see BEGIN SOLUTION"),
}  # fmt: skip


@pytest.mark.parametrize("leak", LEAKS)
def test_a_release_that_gives_something_away_is_refused(
    leak: str, lesson: NotebookNode, tmp_path: Path
) -> None:
    """Solutions in the hands of the students; it cannot be taken back."""
    LEAKS[leak](lesson.cells)
    path = write(lesson, tmp_path / "own" / f"{NAME}.ipynb")
    with pytest.raises(ValueError, match=r"not released: in 07_means, .* shows "):
        release([path], tmp_path / "course", execute=False)
    assert [entry.name for entry in tmp_path.iterdir()] == ["own"]


@pytest.mark.slow
def test_a_file_beside_the_source_is_looked_through_as_well(renewed: Path, lesson_path: Path) -> None:
    """Data for the students, and the solutions by mistake."""
    (renewed / "source" / NAME / "data.csv").write_text("1,2,6\n", encoding="utf-8")
    release([os.fspath(lesson_path)], renewed, execute=False)
    assert (renewed / "release" / NAME / "data.csv").is_file()
    (renewed / "source" / NAME / "notes.txt").write_text(
        "return math.fsum(values) / len(values)", encoding="utf-8"
    )
    before = contents(renewed)
    with pytest.raises(ValueError, match="in 07_means/notes.txt, the text shows solution-7.1, line 3"):
        release([os.fspath(lesson_path)], renewed, execute=False)
    assert contents(renewed) == before


def test_lines_too_short_or_shared_by_tests_do_not_count(tmp_path: Path) -> None:
    """A refusal for `return values` or for an idiom that every test begins with."""
    idiom, text = "    generator = math.Generator().manual_seed(0)\n", LESSON
    for first in ("def check_mean(mean):\n", "def check_variance(variance):\n"):
        text = text.replace(first, first + idiom)
    text = text.replace("story = sum", "generator = math.Generator().manual_seed(0)\nstory = sum")
    notebook = read(text)
    known = secrets(notebook, read_sheet(notebook))
    assert find_leaks(student_version(notebook, checks=False), known) == []
    assert not any("manual_seed" in secret.text or "return values" in secret.text for secret in known)
    assert len([secret for secret in known if "return math.fsum" in secret.text]) == 1


def test_what_nbgrader_makes_is_looked_through_too(renewed: Path, lesson_path: Path) -> None:
    """Settings changed by hand, with which nbgrader leaves the hidden tests in."""
    config = renewed / "nbgrader_config.py"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("    steps.ClearHiddenTests,\n", ""), encoding="utf-8")
    before = contents(renewed)
    with pytest.raises(ValueError, match="cell 7 shows tests-7.1, line 1: def check_mean"):
        release([os.fspath(lesson_path)], renewed, execute=False)
    assert contents(renewed) == before


def submit(folder: Path) -> None:
    from nbgrader.api import Gradebook

    with closing(Gradebook(f"sqlite:///{folder / 'gradebook.db'}")) as gradebook, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nbgrader's use of SQLAlchemy
        gradebook.add_student("ada")
        gradebook.add_submission(NAME, "ada")
    path = folder / "submitted" / "ada" / NAME / f"{NAME}.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text("what ada wrote", encoding="utf-8")


def submissions(folder: Path) -> list[str]:
    from nbgrader.api import Gradebook

    with closing(Gradebook(f"sqlite:///{folder / 'gradebook.db'}")) as gradebook:
        return [submission.student.id for submission in gradebook.assignment_submissions(NAME)]


def test_a_second_release_keeps_gradebook_submissions_and_settings(renewed: Path, lesson_path: Path) -> None:
    """The scores of a term, gone with the second assignment."""
    submit(renewed)
    config = renewed / "nbgrader_config.py"
    config.write_text(config.read_text(encoding="utf-8") + "\nc.Execute.timeout = 7\n", encoding="utf-8")
    second = lesson_path.with_name("08_more.ipynb")
    mended = read(LESSON.replace("the mean of {numbers}", "the mean of the numbers {numbers}"))
    write(mended, lesson_path)
    shutil.copy(lesson_path, second)
    done = release([os.fspath(lesson_path), os.fspath(second)], renewed, execute=False)
    assert done.points == {NAME: 12, "08_more": 12} and done.kept == ("nbgrader_config.py",)
    assert submissions(renewed) == ["ada"]
    assert (renewed / "submitted/ada" / NAME / f"{NAME}.ipynb").read_text(
        encoding="utf-8"
    ) == "what ada wrote"
    assert config.read_text(encoding="utf-8").endswith("timeout = 7\n")
    assert "the numbers" in (renewed / "source" / NAME / f"{NAME}.ipynb").read_text(encoding="utf-8")
    readme = (renewed / "README.md").read_text(encoding="utf-8")
    assert f"`{NAME}`" in readme and "`08_more`" in readme
    assert published(renewed, "08_more").metadata["labkit"] == {"assignment": "08_more"}
    again = release([os.fspath(lesson_path)], renewed, execute=False)
    assert again.kept == ("nbgrader_config.py",)


def test_graded_cells_cannot_change_under_submissions(renewed: Path, lesson_path: Path) -> None:
    """Scores that belong to no cell any more."""
    submit(renewed)
    write(read(LESSON.replace("7.2b", "7.2c")), lesson_path)
    before = contents(renewed)
    with pytest.raises(ValueError, match="07_means has submissions, and nbgrader cannot add or remove"):
        release([os.fspath(lesson_path)], renewed, execute=False)
    assert contents(renewed) == before


def test_a_source_changed_by_hand_is_never_overwritten_unasked(renewed: Path, lesson_path: Path) -> None:
    """An evening's work on a variant of an exercise."""
    path = renewed / "source" / NAME / f"{NAME}.ipynb"
    source = nbformat.read(path, as_version=4)
    source.cells[1].outputs = []  # It was run; that is no change.
    nbformat.write(source, path)
    release([os.fspath(lesson_path)], renewed, execute=False)
    source.cells[0].source = "# Means, by hand"
    nbformat.write(source, path)
    before = contents(renewed)
    with pytest.raises(ValueError, match="07_means.ipynb was changed by hand since labkit wrote it; --force"):
        release([os.fspath(lesson_path)], renewed, execute=False)
    assert contents(renewed) == before
    done = release([os.fspath(lesson_path)], renewed, execute=False, force=True)
    (aside,) = done.saved
    kept = nbformat.read(aside / "source" / f"{NAME}.ipynb", as_version=4)
    assert kept.cells[0].source == "# Means, by hand"
    assert nbformat.read(path, as_version=4).cells[0].source == "# Means"


def test_a_failure_while_moving_leaves_the_course_as_it_was(
    renewed: Path, lesson_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new source beside an old release and an old gradebook."""
    before, real, count = contents(renewed), os.rename, [0]

    def failing(old: Any, new: Any) -> None:
        count[0] += 1
        if count[0] == 8:
            raise OSError("the disk is full")
        real(old, new)

    monkeypatch.setattr(course.os, "rename", failing)
    write(read(LESSON.replace("# # Means", "# # More means")), lesson_path)
    with pytest.raises(OSError, match="the disk is full"):
        release([os.fspath(lesson_path)], renewed, execute=False)
    assert count[0] > 8 and contents(renewed) == before


def test_grading_while_the_notebooks_run_is_not_lost(
    renewed: Path, lesson_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy of the gradebook that comes back minutes later, without what was graded in between."""
    from labkit.classroom import release as module

    monkeypatch.setattr(module, "_execute", lambda *arguments: submit(renewed))
    release([os.fspath(lesson_path)], renewed)
    assert submissions(renewed) == ["ada"]


def test_an_own_py_is_taken_like_its_ipynb(tmp_path: Path, lesson: NotebookNode) -> None:
    """A variant written from the template, which is a .py; ids drawn anew would change every release."""
    path = tmp_path / f"{NAME}.py"
    path.write_text(LESSON, encoding="utf-8")
    versions = [instructor_version(read_notebook(path), NAME) for _ in range(2)]
    assert nbformat.writes(versions[0]) == nbformat.writes(versions[1])
    own = student_version(read_notebook(path), checks=False)
    assert [c.source for c in own.cells] == [c.source for c in student_version(lesson, checks=False).cells]
    nbformat.write(lesson, path.with_suffix(".ipynb"))
    assert read_notebook(path).cells[1].outputs == lesson.cells[1].outputs


# --- executed -----------------------------------------------------------------


def test_a_release_runs_solutions_and_students_version_and_keeps_stored_outputs(
    tmp_path: Path, lesson_path: Path
) -> None:
    """Figures of the story replaced by those of this machine."""
    told: list[tuple[float, str]] = []
    release(
        [os.fspath(lesson_path)], tmp_path / "course", progress=lambda share, name: told.append((share, name))
    )
    assert [share for share, _ in told] == sorted(share for share, _ in told) and len(told) > 10
    assert list(dict(map(reversed, told))) == [f"solutions of {NAME}", f"all of {NAME} as students get it"]
    assert published(tmp_path / "course").cells[1].outputs[0].text == "output of 1\n"


FAULTS = {
    "the story fails": ("story = sum(range(5)) / 5", "story = 1 / 0", "cell 1 of the .* ends in ZeroDiv"),
    "an answer used": ('print("a panel")', "print(mean([1]))", "of the students' version ends in NotImpl"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_notebook_that_does_not_work_is_refused(fault: str, tmp_path: Path) -> None:
    """A class that finds out; a wrong solution has the next test."""
    old, new, reason = FAULTS[fault]
    notebook = read(LESSON.replace(old, new))
    with pytest.raises(ValueError, match=reason):
        try_students(student_version(notebook, checks=False), tmp_path, lambda share: None)


@pytest.mark.parametrize(
    "change, reason",
    [
        (
            ("(values) / len(values)\n\n#", "(values) / 2\n\n#"),
            "its own solution of 7.1 gets 0 of 3 .*: fails",
        ),
        (("assert mean([1, 3]) == 2", "assert mean([1, 3]) == 5"), ".* that students see: 7.1: the example"),
    ],
    ids=["a wrong solution", "a wrong example"],
)
def test_what_fails_when_run_is_not_released(change: tuple[str, str], reason: str, tmp_path: Path) -> None:
    """A check that warns, and releases."""
    path = write(read(LESSON.replace(*change)), tmp_path / "own" / f"{NAME}.ipynb")
    with pytest.raises(ValueError, match=f"not released: {NAME}: {reason}"):
        release([path], tmp_path / "course")
    assert [entry.name for entry in tmp_path.iterdir()] == ["own"]


@pytest.mark.slow
def test_the_template_is_an_assignment_that_works(tmp_path: Path) -> None:
    """A template that is refused as it stands, or whose tests let the mistake pass that the page shows."""
    notebook = read_notebook(ROOT / "docs" / "exercise-template.py")
    sheet = read_sheet(notebook)
    assert sheet.points == 8
    students = student_version(notebook, checks=False)
    assert find_leaks(students, secrets(notebook, sheet)) == []
    release([os.fspath(ROOT / "docs" / "exercise-template.py")], tmp_path / "course")


# --- the command --------------------------------------------------------------


def test_bad_input_is_one_line(
    tmp_path: Path, lesson_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A traceback, or files strewn over somebody's folder."""
    own, folder = os.fspath(lesson_path), tmp_path / "full"
    folder.mkdir()
    (folder / "thesis.tex").touch()
    shutil.copy(lesson_path, tmp_path / "my means.ipynb")
    write(read("# %%\n1\n"), tmp_path / "plain.ipynb")
    (tmp_path / "broken.ipynb").write_text("{", encoding="utf-8")
    cases = {
        ("9", "course"): "there is no notebook '9'",
        (own, own, "course"): "07_means is named twice",
        (own, "full"): "is not empty and no course",
        (own, "full/thesis.tex"): "is a file; it takes a folder",
        (os.fspath(tmp_path / "my means.ipynb"), "course"): "takes letters, digits, _ and - alone",
        (os.fspath(tmp_path / "plain.ipynb"), "course"): "plain.ipynb: no cell is tagged 'exercises-setup'",
        (os.fspath(tmp_path / "broken.ipynb"), "course"): "cannot be read as a notebook",
    }
    for (*notebooks, out), says in cases.items():
        words = ["assignment", "release", *notebooks, "--out", os.fspath(tmp_path / out), "--no-execute"]
        assert cli.main(words) == 2
        said = capsys.readouterr().err
        assert says in said and said.count("\n") == 1, said
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nbgrader" else found(name))
    assert cli.main(["assignment", "release", own, "--out", os.fspath(tmp_path / "course")]) == 2
    assert "pip install 'labkit[course]'" in capsys.readouterr().err
    assert not (tmp_path / "course").exists()


@pytest.mark.slow
def test_notebook_5_from_release_to_jupytext_in_a_students_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sync that brings the solutions back, as it does where a release is still paired."""
    assert (
        cli.main(["assignment", "release", "5", "--out", os.fspath(tmp_path / "course"), "--no-execute"]) == 0
    )
    said = capsys.readouterr().out
    name = "05_gradient_confusion"
    assert f"{name}: 20 points" in said and "README.md" in said
    desk = tmp_path / "desk"
    shutil.copytree(tmp_path / "course" / "release" / name, desk)
    monkeypatch.chdir(desk)
    for words in (["--to", "py:percent"], ["--sync"], ["--set-formats", "ipynb,py:percent"], ["--sync"]):
        assert jupytext([*words, f"{name}.ipynb"]) == 0
    files = contents(desk)
    assert sorted(files) == [f"{name}.ipynb", f"{name}.py"]
    for content in files.values():
        text = content.decode()
        assert "def confusion(G):" in text and "if solved(confusion):" in text
        for secret in ("solution_", "check_confusion", "norms.where", "Rubric", "every - G.square", "BEGIN"):
            assert secret not in text
    outputs = json.loads(files[f"{name}.ipynb"])
    assert sum(len(cell.get("outputs", [])) for cell in outputs["cells"]) > 20
