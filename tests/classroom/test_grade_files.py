"""What was handed in: folders, zips, encodings, and what is no notebook."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.classroom.grading.cells import Given, GivenCell, Handed, HandedCell, Task, read_handed
from labkit.classroom.grading.files import find_submissions
from labkit.classroom.grading.match import match
from labkit.classroom.grading.people import Sources, clean_name

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
    sources = Sources(KNOWN, pattern="(?P<student_id>alice)")
    (one,) = find_submissions([folder], KNOWN, tmp_path, sources).taken
    assert one.assignment == assignment and bool(one.broken) == (content[:3] == "{ b")


def test_nothing_is_passed_over_silently(tmp_path: Path) -> None:
    """A file that nobody grades and nobody hears of is a student without marks."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name, content in {
        ".DS_Store": "", "essay.pdf": "", "bob.ipynb": notebook("elsewhere"), f"{NAME}.ipynb": notebook(),
        "rar.zip": "no zip", "data.json": "[1]",
    }.items():  # fmt: skip
        (folder / name).write_text(content)
    found = find_submissions([folder], KNOWN, tmp_path)
    assert not found.taken
    assert {one.shown: one.why.split(":")[0] for one in found.left_out} == {
        ".DS_Store": "is no one's work",
        "essay.pdf": "is no notebook (.ipynb)",
        "bob.ipynb": f"belongs to no assignment of this course ({NAME}, {OTHER})",
        "data.json": "the file is JSON, but no notebook",
    }
    assert [(one.shown, one.why.split(";")[0]) for one in found.refused] == [
        ("rar.zip", "nothing states whose it is"), (f"{NAME}.ipynb", "nothing states whose it is"),
    ]  # fmt: skip


def put(folder: Path, name: str, content: str = "") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content or notebook(), encoding="utf-8")
    return path


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


def test_a_damaged_zip_stops_nobody_else(handed_in: Path, unpacked: Path) -> None:
    """A broken upload is one student's, and the others are graded."""
    put(handed_in, f"bob/{NAME}/{NAME}.ipynb")
    damaged = handed_in / "ann_12_345_a.zip"
    with zipfile.ZipFile(damaged, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{NAME}.ipynb", notebook() + " " * 5000)
    data = bytearray(damaged.read_bytes())
    start = 30 + len(f"{NAME}.ipynb")
    data[start : start + 20] = b"\xff" * 20
    damaged.write_bytes(data)
    found = find_submissions([handed_in], KNOWN, unpacked)
    ((one,), (left,)) = (found.taken, found.left_out)
    assert one.student == "bob" and "cannot be unpacked" in left.why


def test_links_and_what_is_no_file_are_told_and_not_followed(handed_in: Path, unpacked: Path) -> None:
    """A link to a classmate's file would be graded as one's own."""
    import os

    bobs = put(handed_in, f"bob/{NAME}/{NAME}.ipynb")
    (handed_in / "mallory.ipynb").symlink_to(bobs)
    (handed_in / "eve").symlink_to(handed_in / "bob")
    (handed_in / "dead.ipynb").symlink_to("/no/such/file")
    (handed_in / "endless.ipynb").symlink_to("/dev/zero")
    os.mkfifo(handed_in / "fifo.ipynb")
    found = find_submissions([handed_in], KNOWN, unpacked)
    assert [one.student for one in found.taken] == ["bob"]
    assert {(one.shown, one.why.split(";")[0]) for one in found.left_out} == {
        ("mallory.ipynb", "is a link"), ("eve", "is a link"), ("dead.ipynb", "is a link"),
        ("endless.ipynb", "is a link"), ("fifo.ipynb", "is no file"),
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
    sources = Sources(KNOWN, pattern=r"(?P<student_id>.+)\.ipynb")
    found = find_submissions([handed_in], KNOWN, unpacked, sources).taken
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
    found = find_submissions([handed_in], KNOWN, unpacked)
    assert [one.time for one in found.taken] == [time or ""]
    assert [one.why.split(",")[0] for one in found.left_out] == ([] if time else ["holds no date and time"])


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


CODINGS = [
    "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "latin-1", "cp1252"
]  # fmt: skip


@pytest.mark.parametrize("coding", CODINGS)
@given(
    lines=st.lists(st.text("aé ß='#", max_size=5), min_size=1, max_size=3),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
@settings(max_examples=20, deadline=None)
def test_notebooks_are_read_as_editors_save_them(coding: str, lines: list[str], end: str) -> None:
    """Editors on Windows write UTF-16, Latin-1, marks and line ends of their own."""
    cell = {"cell_type": "code", "source": end.join(lines), "metadata": {}}
    text = json.dumps({"cells": [cell], "nbformat": 4}, ensure_ascii=False, indent=1)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.ipynb"
        path.write_bytes(text.replace("\n", "\r\n").encode(coding))
        assert read_handed(path).cells[0].source == "\n".join(lines)


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
