"""Whose file is whose, in the layouts that nbgrader and learning platforms have."""

from __future__ import annotations

import json
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import pytest

from labkit.assignments.grading.cells import read_handed
from labkit.assignments.grading.files import clean_name, find_submissions

NAME, OTHER = "05_gradient_confusion", "04_low_rank_jacobian"
KNOWN = {NAME: ["setup", "exercise-5-1", "tests-5-1"], OTHER: ["setup", "exercise-4-1", "tests-4-1"]}


def notebook(assignment: str | None = NAME, grade_id: str = "") -> str:
    metadata: dict[str, Any] = {"labkit": {"assignment": assignment}} if assignment else {}
    cell = {
        "cell_type": "code",
        "source": "",
        "metadata": {"nbgrader": {"grade_id": grade_id}} if grade_id else {},
    }
    return json.dumps({"cells": [cell], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


@pytest.mark.parametrize(
    ("path", "student"),
    [
        (f"alice/{NAME}/{NAME}.ipynb", "alice"),
        ("alice.ipynb", "alice"),
        (f"alice/{NAME}.ipynb", "alice"),
        (f"alice_{NAME}.ipynb", "alice"),
        (f"{NAME}_alice.ipynb", "alice"),
        (f"{NAME} - Zoë Müller (1).ipynb", "Zoë Müller"),
        (f"{NAME}/Jörg Ø.ipynb", "Jörg Ø"),
        (f"Ana María_12345_assignsubmission_file_/{NAME}.ipynb", "Ana María"),
        (f"submitted/alice/{NAME}/{NAME}.ipynb", "alice"),
        (f"week 3/{NAME}.ipynb", "week 3"),
        (unicodedata.normalize("NFD", "Jörg.ipynb"), "Jörg"),
        ("a[b]*.ipynb", "a_b__"),
    ],
)
def test_the_student_is_told_by_folder_or_name(tmp_path: Path, path: str, student: str) -> None:
    """A platform's download must not have to be renamed by hand."""
    file = tmp_path / "in" / path
    file.parent.mkdir(parents=True)
    file.write_text(notebook())
    (one,), left = find_submissions(tmp_path / "in", KNOWN, tmp_path)
    assert (one.student, one.assignment, left) == (student, NAME, [])


@pytest.mark.parametrize(
    ("file", "content", "assignment"),
    [
        ("alice.ipynb", notebook(OTHER), OTHER),
        (f"alice_{NAME}.ipynb", notebook(OTHER), OTHER),
        (f"alice_{OTHER}.ipynb", notebook(None), OTHER),
        ("alice.ipynb", notebook(None, "exercise-4-1"), OTHER),
        (f"alice_{OTHER}.ipynb", "{ broken", OTHER),
    ],
)
def test_the_assignment_is_told_by_its_mark_its_name_or_its_cells(
    tmp_path: Path, file: str, content: str, assignment: str
) -> None:
    """Platforms rename files, and strip metadata."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / file).write_text(content)
    (one,), _ = find_submissions(folder, KNOWN, tmp_path)
    assert one.assignment == assignment and bool(one.broken) == (content[:3] == "{ b")


def test_nothing_is_passed_over_silently(tmp_path: Path) -> None:
    """A file that nobody grades and nobody hears of is a student without marks."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name, content in {
        ".DS_Store": "", "essay.pdf": "", "bob.ipynb": notebook("elsewhere"), f"{NAME}.ipynb": notebook(),
        "rar.zip": "no zip",
    }.items():  # fmt: skip
        (folder / name).write_text(content)
    found, left = find_submissions(folder, KNOWN, tmp_path)
    assert not found
    assert {one.shown: one.why.split(":")[0] for one in left} == {
        ".DS_Store": "is no one's work",
        "essay.pdf": "is no notebook (.ipynb)",
        "bob.ipynb": f"belongs to no assignment of this course ({NAME}, {OTHER})",
        f"{NAME}.ipynb": "does not tell whose it is",
        "rar.zip": "is no zip that can be opened",
    }


def test_of_two_files_of_one_student_the_readable_and_newer_is_taken(tmp_path: Path) -> None:
    """Both are told, whichever is taken."""
    import os

    folder = tmp_path / "in"
    (folder / "alice").mkdir(parents=True)
    for age, (name, content) in enumerate({"new": notebook(), "old": notebook(), "cut": "{"}.items()):
        path = folder / "alice" / f"{name} {NAME}.ipynb"
        path.write_text(content)
        os.utime(path, (1e9 - age, 1e9 - age) if name != "cut" else (2e9, 2e9))
    (one,), left = find_submissions(folder, KNOWN, tmp_path)
    assert one.shown.startswith("alice/new") and len(left) == 2


def test_zips_hold_a_students_files_or_the_whole_class(tmp_path: Path) -> None:
    """Platforms hand out one zip; students hand in others. Names that climb out of the folder stay inside."""
    folder, unpacked = tmp_path / "in", tmp_path / "unpacked"
    folder.mkdir()
    unpacked.mkdir()
    with zipfile.ZipFile(folder / "class.zip", "w") as archive:
        archive.writestr(f"alice/{NAME}.ipynb", notebook())
        archive.writestr(f"bob/{NAME}.ipynb", notebook())
        archive.writestr("__MACOSX/._x", "")
    with zipfile.ZipFile(folder / "carol.zip", "w") as archive:
        archive.writestr(f"../../{NAME}.ipynb", notebook())
    found, left = find_submissions(folder, KNOWN, unpacked)
    assert {one.student for one in found} == {"alice", "bob", "carol"}
    assert [one.why for one in left] == ["is no one's work"]
    assert all(unpacked in one.path.resolve().parents for one in found)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"), (b"  \n", "is empty"), (b"<!doctype html><html>", "web page"), (b"{", "broken"),
        (b"[" * 10**5, "broken"), (b"[]", "no cells"), (b'{"cells": 3}', "no cells"),
        (b"PK\x03\x04zip", "a zip"),
        (b"\xff\xfe\0", "broken"), (b"null", "no cells"),
    ],
)  # fmt: skip
def test_what_is_no_notebook_is_told_in_a_line(tmp_path: Path, content: bytes, reason: str) -> None:
    """An instructor must be able to answer the student who asks why."""
    path = tmp_path / "x.ipynb"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        read_handed(path)


def test_metadata_of_any_shape_is_read(tmp_path: Path) -> None:
    """Submissions are edited by hand, and by programs that know no nbgrader."""
    cells: list[Any] = [
        3, None, {}, {"cell_type": "code", "source": ["a", 1, "b"], "metadata": []},
        {"cell_type": "code", "source": {"x": 1}, "metadata": {"nbgrader": 3, "tags": {"story": 1}}},
        {"cell_type": "code", "source": "\ud800", "id": 7, "metadata": {"nbgrader": {"grade_id": ["x"]}}},
    ]  # fmt: skip
    path = tmp_path / "x.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {"labkit": []}}))
    assert [cell.grade_id for cell in read_handed(path).cells] == [""] * 4
    assert read_handed(path).cells[1].source == "ab"


def test_notebooks_of_older_versions_are_read(tmp_path: Path) -> None:
    """Some platforms still save version 3."""
    old = {"nbformat": 3, "worksheets": [{"cells": [{"cell_type": "code", "input": ["x = 1\n", "y"]}]}]}
    path = tmp_path / "x.ipynb"
    path.write_text(json.dumps(old))
    assert read_handed(path).cells[0].source == "x = 1\ny"


def test_names_keep_umlauts_and_lose_what_folders_and_patterns_cannot_have() -> None:
    """nbgrader looks folders up by patterns: a student called [x] would match another."""
    assert clean_name("Jörg/..\\Ø [x]*") == "Jörg_.._Ø _x__"
