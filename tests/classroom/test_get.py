"""`labkit get` copies the notebooks to work in, and never overwrites what a person did in them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_output

from labkit import cli, notebooks
from labkit.classroom.folder import RECORD, get
from tests.conftest import ROOT

START = """# %% [markdown]
# # Start here
"""
LESSON = """# %%
print("the story")

# %% [markdown]
# ### 4.1 Twice (3 points)

# %% tags=["exercises-setup"]
from labkit.classroom.exercises import attempt, grade, same

# %% tags=["exercise-4.1"]
def twice(x):
    \"\"\"Twice a number.\"\"\"
    raise NotImplementedError


with attempt("4.1"):
    assert twice(1) == 2

# %% tags=["solution-4.1"]
def solution_twice(x):
    return x + x


# %% tags=["tests-4.1"]
def check_twice(twice):
    same("twice(21)", twice(21), 42)


grade("4.1", check_twice, solution=solution_twice, answer=twice)
"""
NAMES = ["00_start_here.ipynb", "04_twice.ipynb"]


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Two small notebooks in the place of the real ones."""
    place = tmp_path / "source"
    place.mkdir()
    shutil.copy(ROOT / "jupytext.toml", place)
    for name, text in zip(NAMES, (START, LESSON), strict=True):
        (place / name).with_suffix(".py").write_text(text)
        notebooks.sync(place / name, "py")
    monkeypatch.setattr(notebooks, "find_folder", lambda: place)
    return place


@pytest.fixture
def copies(source, tmp_path):
    """A folder that `get` has just filled."""
    return get(tmp_path / "Übung zum 4. Blatt").folder


def edit(path, change):
    notebook = nbformat.read(path, as_version=4)
    change(notebook)
    nbformat.write(notebook, path)


def contents(place):
    return {path.name: path.read_bytes() for path in place.iterdir()}


def test_students_get_the_notebooks_without_solutions_and_nothing_else(copies):
    """A .py half or a jupytext.toml beside the notebook would bring the solutions back at the next sync."""
    assert sorted(contents(copies)) == [RECORD, *NAMES]
    text = (copies / "04_twice.ipynb").read_text(encoding="utf-8")
    assert "def twice" in text and "the story" in text
    assert "x + x" not in text and "solution_twice" not in text and "check_twice" not in text
    for name in NAMES:
        assert "jupytext" not in nbformat.read(copies / name, as_version=4).metadata


@pytest.mark.slow
def test_a_sync_by_jupytext_brings_no_solution_back(copies):
    """JupyterLab's jupytext, or a person's own, pairs notebooks by itself where something tells it to."""
    command = [sys.executable, "-m", "jupytext", "--sync", "04_twice.ipynb"]
    before = contents(copies)
    subprocess.run(command, cwd=copies, check=True, capture_output=True)
    assert contents(copies) == before
    subprocess.run([*command[:3], "--set-formats", "ipynb,py:percent", *command[3:]], cwd=copies, check=True,
                   capture_output=True)  # fmt: skip
    text = (copies / "04_twice.py").read_text(encoding="utf-8")
    assert "def twice" in text and "x + x" not in text and "check_twice" not in text


def test_solutions_gives_the_full_notebooks_as_they_are(source, tmp_path):
    """Half a solution, or one whose outputs went missing, is no solution."""
    copied = get(tmp_path / "full", solutions=True)
    assert list(copied.written) == NAMES
    assert all((copied.folder / name).read_bytes() == (source / name).read_bytes() for name in NAMES)


def test_getting_twice_changes_nothing(copies):
    """Cell ids drawn anew would make every notebook look edited."""
    before = contents(copies)
    again = get(copies)
    assert list(again.same) == NAMES and again.written == again.kept == ()
    assert contents(copies) == before


@pytest.mark.parametrize(
    "work",
    [
        lambda nb: nb.cells[0].update(source="# My notes"),
        lambda nb: nb.cells[1].update(outputs=[new_output("stream", name="stdout", text="mine\n")]),
    ],
    ids=["edited", "merely run"],
)
@pytest.mark.parametrize("solutions", [False, True])
def test_what_a_person_did_is_kept_and_named(copies, work, solutions):
    """An evening's answers gone after an update."""
    lesson = copies / "04_twice.ipynb"
    edit(lesson, work)
    mine = lesson.read_bytes()
    for _ in range(2):  # A copy that was kept once must not count as labkit's own from then on.
        copied = get(copies, solutions=solutions)
        assert copied.kept == ("04_twice.ipynb",) and lesson.read_bytes() == mine


def test_a_notebook_that_was_only_opened_is_still_replaced(copies, source):
    """JupyterLab marks it as changed at once, and saves it with metadata of its own after two minutes."""
    lesson = copies / "04_twice.ipynb"
    edit(lesson, lambda nb: nb.metadata.update(language_info={"name": "python", "version": "3.99"}))
    edit(lesson, lambda nb: nb.cells[0].metadata.update(trusted=True))
    opened = lesson.read_bytes()
    assert "04_twice.ipynb" in get(copies).same and lesson.read_bytes() == opened
    edit(source / "04_twice.ipynb", lambda nb: nb.cells[0].update(source="print('a new edition')"))
    assert get(copies).written == ("04_twice.ipynb",)


@pytest.mark.parametrize("damage", [b"", b"[]", b"{", b"\xff", b'{"cells": 3, "nbformat": 4}'])
def test_what_is_no_notebook_any_more_is_kept(copies, damage):
    """What is left of a person's work after a crash may still be mended."""
    (copies / "04_twice.ipynb").write_bytes(damage)
    assert get(copies).kept == ("04_twice.ipynb",)
    assert (copies / "04_twice.ipynb").read_bytes() == damage


def test_a_newer_lesson_replaces_an_untouched_one_alone(copies, source):
    """An update that kept everything would never reach the student."""
    edit(copies / "04_twice.ipynb", lambda nb: nb.cells[0].update(source="mine"))
    for name in NAMES:
        edit(source / name, lambda nb: nb.cells[0].update(source="print('a new edition')"))
    copied = get(copies)
    assert copied.written == ("00_start_here.ipynb",) and copied.kept == ("04_twice.ipynb",)
    assert "a new edition" in (copies / "00_start_here.ipynb").read_text()
    assert "mine" in (copies / "04_twice.ipynb").read_text()


def test_an_untouched_folder_turns_into_one_with_solutions_and_back(copies, source):
    """A lecturer who forgot the option would have to delete the folder by hand."""
    assert "04_twice.ipynb" in get(copies, solutions=True).written
    assert "x + x" in (copies / "04_twice.ipynb").read_text()
    assert "04_twice.ipynb" in get(copies).written
    assert "x + x" not in (copies / "04_twice.ipynb").read_text()


def test_a_deleted_notebook_comes_back(copies):
    """The record of what was written is no record of what is there."""
    before = contents(copies)
    (copies / "04_twice.ipynb").unlink()
    assert get(copies).written == ("04_twice.ipynb",) and contents(copies) == before


@pytest.mark.parametrize(
    "record", [None, "", "[]", '{"notebooks": 3}', '{"notebooks": {"04_twice.ipynb": 5}}']
)
def test_without_a_readable_record_everything_that_differs_is_kept(copies, source, record):
    """A folder copied without its hidden files may hold anybody's work."""
    if record is None:
        (copies / RECORD).unlink()
    else:
        (copies / RECORD).write_text(record)
    edit(source / "04_twice.ipynb", lambda nb: nb.cells[0].update(source="print('a new edition')"))
    copied = get(copies)
    assert copied.kept == ("04_twice.ipynb",) and copied.same == ("00_start_here.ipynb",)
    assert json.loads((copies / RECORD).read_text())["notebooks"].keys() == {"00_start_here.ipynb"}


def test_a_folder_or_a_link_of_that_name_is_kept(copies, tmp_path):
    """Replacing a link would cut the person's own file off; replacing a folder would lose what is in it."""
    first, second = (copies / name for name in NAMES)
    shutil.move(first, tmp_path / "elsewhere.ipynb")
    first.symlink_to(tmp_path / "elsewhere.ipynb")
    second.unlink()
    second.mkdir()
    assert list(get(copies, solutions=True).kept) == NAMES
    assert first.is_symlink() and second.is_dir()


def test_other_files_in_the_folder_are_left_alone(source, tmp_path):
    """`labkit get .` in a folder of one's own."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    get(tmp_path / "mine")
    assert sorted(contents(tmp_path / "mine")) == [RECORD, *NAMES, "thesis.txt"]
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "all of it"


@pytest.mark.parametrize("existing", [False, True])
def test_a_failed_write_leaves_nothing_behind(source, tmp_path, monkeypatch, existing):
    """Three of six notebooks look like all there are."""
    place = tmp_path / "new" / "place"
    if existing:
        place.mkdir(parents=True)
    real, written = Path.write_bytes, []

    def full_disk(path, content):
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(path)
        return real(path, content)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(ValueError, match="place cannot be written: No space left on device"):
        get(place)
    assert len(written) == 2
    assert [path for path in tmp_path.rglob("*") if path.is_file() and source not in path.parents] == []
    assert place.exists() == existing


def test_bad_places_are_refused_in_one_line(source, tmp_path, capsys):
    """A traceback, or notebooks in the middle of a checkout, where a sync would pair them."""
    (tmp_path / "file").write_text("")
    for place, message in (
        (tmp_path / "file", "is a file; name a folder"),
        (tmp_path / "file" / "below", "cannot be written: "),
        (ROOT / "docs", "lies inside the checkout"),
        (ROOT / "notebooks" / "new", "lies inside the checkout"),
    ):
        assert cli.main(["get", str(place)]) == cli.BAD_INPUT
        out, err = capsys.readouterr()
        assert out == "" and len(err.splitlines()) == 1 and message in err, err
    assert (tmp_path / "file").read_text() == "" and not (ROOT / "notebooks" / "new").exists()


def test_a_folder_without_permission_is_refused_in_one_line(source, tmp_path, monkeypatch, capsys):
    """The name of a temporary file in the message tells nobody what to do."""
    refuse = PermissionError(13, "Permission denied", str(tmp_path / ".a1b2.part"))
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: (_ for _ in ()).throw(refuse))
    assert cli.main(["get", str(tmp_path / "x")]) == cli.BAD_INPUT
    assert capsys.readouterr().err == f"labkit get: {tmp_path / 'x'} cannot be written: Permission denied\n"


def test_the_command_says_what_it_wrote_and_kept_and_what_comes_next(source, tmp_path, monkeypatch, capsys):
    """A kept file that nobody mentions looks like an update that did not work."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["get"]) == 0
    out = capsys.readouterr().out
    place = tmp_path / "labkit-notebooks"
    assert out.splitlines() == [
        *(f"wrote  {place / name}" for name in NAMES),
        "Next: labkit lab labkit-notebooks",
    ]
    edit(place / NAMES[1], lambda nb: nb.cells[0].update(source="mine"))
    monkeypatch.chdir(place)  # Where a person stands who has begun to work.
    assert cli.main(["get"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[:2] == [f"same   {place / NAMES[0]}", f"kept   {place / NAMES[1]}"]
    assert sorted(contents(place)) == [RECORD, *NAMES]


@pytest.mark.parametrize("word", ["4", "04", "twice", "04_twice", "04_twice.ipynb"])
def test_one_notebook_can_be_got_by_the_name_that_lab_and_run_know(
    source, tmp_path, monkeypatch, capsys, word
):
    """A folder of the name 4 with all notebooks in it."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["get", word]) == 0
    place = tmp_path / "labkit-notebooks"
    assert sorted(contents(place)) == [RECORD, NAMES[1]]
    assert capsys.readouterr().out.startswith(f"wrote  {place / NAMES[1]}\n")
    # All the others come beside it; and a folder of that name is meant as one.
    assert cli.main(["get"]) == 0 and sorted(contents(place)) == [RECORD, *NAMES]
    (tmp_path / word).mkdir()
    assert cli.main(["get", word]) == 0 and sorted(contents(tmp_path / word)) == [RECORD, *NAMES]
    assert cli.main(["get", word, "elsewhere"]) == 0 and len(contents(tmp_path / "elsewhere")) == 2


def test_a_notebook_that_is_not_there_is_refused(source, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for words in (["9"], ["nothing", "x"], ["4", "x", "y"]):
        assert cli.main(["get", *words]) == 2 and len(capsys.readouterr().err.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_a_blank_in_the_name_is_quoted_in_the_command_to_copy(source, tmp_path, monkeypatch, capsys):
    """Copied without quotes, it names two folders."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["get", "week 1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == 'Next: labkit lab "week 1"'
