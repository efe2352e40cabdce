"""Whose file is whose, in the layouts that nbgrader and learning platforms have."""

from __future__ import annotations

import json
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import pytest

from labkit.classroom.grading.cells import Given, GivenCell, Handed, HandedCell, Task, read_handed
from labkit.classroom.grading.files import clean_name, find_submissions, read_timestamp
from labkit.classroom.grading.match import match

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


def packed(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name, (2099, 1, 1, 0, 0, 0)), notebook())
    return path


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    (tmp_path / "unpacked").mkdir()
    return tmp_path / "unpacked"


@pytest.fixture
def handed_in(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def test_a_zip_of_the_class_holds_a_folder_a_student(tmp_path: Path, unpacked: Path) -> None:
    """Platforms hand out one zip."""
    names = [f"alice/{NAME}.ipynb", f"bob\\{NAME}.ipynb", f"{'é' * 200}/{NAME}.ipynb", "__MACOSX/._x"]
    found, left = find_submissions(packed(tmp_path / "class.zip", *names), KNOWN, unpacked)
    assert {one.student for one in found} == {"alice", "bob", clean_name("é" * 200)}
    assert [one.why for one in left] == ["is no one's work"]
    assert all(unpacked in one.path.resolve().parents and one.path.is_file() for one in found)


@pytest.mark.parametrize("name", ["mallory.zip", f"mallory_{NAME}.zip", f"{NAME}.zip"])
def test_a_students_zip_is_no_one_elses(handed_in: Path, unpacked: Path, name: str) -> None:
    """It would take the place of another student's work: what is unpacked is newer."""
    (handed_in / "bob.ipynb").write_text(notebook())
    inside = [f"bob/{NAME}.ipynb", f"../bob/{NAME}.ipynb", "/bob.ipynb", "C:\\bob.ipynb", ".", "", "x.txt"]
    packed(handed_in / name, *inside)
    found, left = find_submissions(handed_in, KNOWN, unpacked)
    assert {(one.student, one.shown) for one in found if one.student == "bob"} == {("bob", "bob.ipynb")}
    assert [one.student for one in found if one.student != "bob"] == ["mallory"] * name.startswith("m")
    assert sum("leads out of the zip" in one.why for one in left) == 3
    assert sum("has no name" in one.why for one in left) == 2


def test_a_damaged_zip_stops_nobody_else(handed_in: Path, unpacked: Path) -> None:
    """A broken upload is one student's, and the others are graded."""
    (handed_in / "bob.ipynb").write_text(notebook())
    with zipfile.ZipFile(handed_in / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{NAME}.ipynb", notebook() + " " * 5000)
    data = bytearray((handed_in / "a.zip").read_bytes())
    start = 30 + len(f"{NAME}.ipynb")
    data[start : start + 20] = b"\xff" * 20
    (handed_in / "a.zip").write_bytes(data)
    (one,), (left,) = find_submissions(handed_in, KNOWN, unpacked)
    assert one.student == "bob" and "cannot be unpacked" in left.why


def test_links_and_what_is_no_file_are_told_and_not_followed(handed_in: Path, unpacked: Path) -> None:
    """A link to a classmate's file would be graded as one's own."""
    import os

    (handed_in / "bob").mkdir()
    (handed_in / "bob" / f"{NAME}.ipynb").write_text(notebook())
    (handed_in / "mallory.ipynb").symlink_to(handed_in / "bob" / f"{NAME}.ipynb")
    (handed_in / "eve").symlink_to(handed_in / "bob")
    (handed_in / "dead.ipynb").symlink_to("/no/such/file")
    (handed_in / "endless.ipynb").symlink_to("/dev/zero")
    os.mkfifo(handed_in / "fifo.ipynb")
    (handed_in / "dir.ipynb").mkdir()
    (one,), left = find_submissions(handed_in, KNOWN, unpacked)
    assert one.student == "bob"
    assert {(one.shown, one.why.split(";")[0]) for one in left} == {
        ("mallory.ipynb", "is a link"), ("eve", "is a link"), ("dead.ipynb", "is a link"),
        ("endless.ipynb", "is a link"), ("fifo.ipynb", "is no file"),
        ("dir.ipynb", "is a folder under a file's name"),
    }  # fmt: skip


def test_names_of_any_bytes_are_told_in_a_line_of_utf8(handed_in: Path, unpacked: Path) -> None:
    """They are written in tables, and told on a console."""
    import os

    for name in (b"bj\xf6rn.ipynb", b"a\nb.ipynb"):
        try:
            with open(os.path.join(os.fsencode(handed_in), name), "w") as file:
                file.write(notebook())
        except OSError:
            pytest.skip("this file system has names in UTF-8 only")
    found, _ = find_submissions(handed_in, KNOWN, unpacked)
    assert {(one.student, one.shown) for one in found} == {("björn", "björn.ipynb"), ("a_b", "a_b.ipynb")}


@pytest.mark.parametrize(
    ("content", "time"),
    [
        (b"2026-05-04 13:37:00.123456 UTC\n", "2026-05-04 13:37:00.123456 UTC"),
        (b"2026-05-04T13:37:00+0200", "2026-05-04T13:37:00+0200"),
        (b"\xff\0", None), (b"never", None), (b"12", None), (b"2026-13-04 13:37:00", None), (b"", None),
        (b"2026-05-04 13:37:00 " + b"1" * 5000, None), (b"9999-12-31 23:59:59 UTC", None),
    ],
)  # fmt: skip
def test_a_time_that_nbgrader_cannot_read_is_left_out(
    handed_in: Path, unpacked: Path, content: bytes, time: str | None
) -> None:
    """nbgrader stops at it."""
    place = handed_in / "alice" / NAME
    place.mkdir(parents=True)
    (place / f"{NAME}.ipynb").write_text(notebook())
    (place / "timestamp.txt").write_bytes(content)
    (_one,), left = find_submissions(handed_in, KNOWN, unpacked)
    assert read_timestamp(place / "timestamp.txt") == time
    assert [one.why.split(",")[0] for one in left] == ([] if time else ["holds no date and time"])


def test_a_notebook_too_large_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would hold up the class."""
    path = tmp_path / "x.ipynb"
    path.write_text(json.dumps({"cells": [{}] * 5001}))
    with pytest.raises(ValueError, match="5,001 cells, more than the 5,000"):
        read_handed(path)
    monkeypatch.setattr("labkit.classroom.grading.cells.LARGEST_FILE", 2**10)
    with pytest.raises(ValueError, match="the file has 0.0 MB, more than"):
        read_handed(path)


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


def test_long_names_fit_a_file_system_and_stay_apart() -> None:
    """File systems take 255 bytes, and an emoji has four."""
    first, second = clean_name("🦊" * 63), clean_name("🦊" * 62 + "🐻")
    assert first != second and len(first.encode()) <= 150 and first.isprintable()
    assert clean_name("a" * 150) == "a" * 150


def test_copies_of_a_locked_cell_cost_no_time() -> None:
    """Five thousand of them took a minute."""
    locked = GivenCell("tests-1", "code", "x", "x", "", {"locked": True})
    answer = GivenCell("exercise-1", "code", "y", "y", "", {})
    given = Given("n", "", (Task("tests-1", 1, False, ("exercise-1",)),), (answer, locked), ())
    cells = (
        HandedCell("markdown", "y", grade_id="exercise-1", raw={"cell_type": "markdown"}),
        *(HandedCell("code", "x", grade_id="tests-1", raw={"cell_type": "code"}) for _ in range(5000)),
    )
    matched = match(Handed(cells), given)
    assert [cell.role for cell in matched.cells] == ["exercise-1", "tests-1"]
    assert any("the cell's type was changed" in note for note in matched.notes)
