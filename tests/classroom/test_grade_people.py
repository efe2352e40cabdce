"""Whose file is whose: only what a source states; the rest is refused before anything is graded."""

from __future__ import annotations

import json
import unicodedata
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.classroom.grading.files import Found, find_submissions
from labkit.classroom.grading.people import Sources, clean_name, folded, read_roster

NAME, OTHER = "05_gradient_confusion", "04_low_rank_jacobian"
KNOWN: dict[str, list[str]] = {NAME: [], OTHER: []}
FILE = f"{NAME}/{NAME}.ipynb"


def notebook(text: str = "", assignment: str = NAME) -> str:
    cell = {"cell_type": "code", "source": text, "metadata": {}}
    return json.dumps({"cells": [cell], "metadata": {"labkit": {"assignment": assignment}}})


@pytest.fixture
def place() -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        yield Path(folder)


def handed_in(place: Path, files: Mapping[str, str], zipped: bool = False) -> Path:
    """Files of a class, each with its own content unless two are given the same."""
    if zipped:
        with zipfile.ZipFile(place / "hw6.zip", "w") as archive:
            for name, text in files.items():
                archive.writestr(name, notebook(text))
        return place / "hw6.zip"
    for name, text in files.items():
        path = place / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(notebook(text), encoding="utf-8")
    return place / "in"


def find(place: Path, files: Mapping[str, str] | list[str], zipped: bool = False, **stated: str) -> Found:
    texts = files if isinstance(files, Mapping) else {name: name for name in files}
    (place / "unpacked").mkdir()
    roster = place / "students.csv"
    if "roster" in stated:
        roster.write_text(stated["roster"], encoding="utf-8")
    sources = Sources(KNOWN, stated.get("pattern", ""), roster if "roster" in stated else None)
    return find_submissions([handed_in(place, texts, zipped)], KNOWN, place / "unpacked", sources)


def students(found: Found) -> dict[str, str]:
    return {one.student: one.shown for one in found.taken}


@pytest.mark.parametrize(
    ("path", "student"),
    [
        (f"alice/{FILE}", "alice"),
        (f"submitted/alice/{FILE}", "alice"),
        (f"hw6/Section 2/alice/{FILE}", "alice"),
        (f"{unicodedata.normalize('NFD', 'Jörg Ø')}/{FILE}", "Jörg Ø"),
        ("Ana María_12345_assignsubmission_file_/x.ipynb", "Ana María_12345"),
        ("Ana María_12345_assignsubmission_file_/deep/er/x.ipynb", "Ana María_12345"),
        ("Ana María_12345_assignsubmission_file_x.ipynb", "Ana María_12345"),
        ("hw6/Group 1-Ana María_12345_assignsubmission_file_/x.ipynb", "Group 1-Ana María_12345"),
        (f"doejane_LATE_12345_67890_{NAME}.ipynb", "doejane_12345"),
        (f"doejane_12345_67890_{NAME}-1.ipynb", "doejane_12345"),
        ("doejane_12345_67890_my_11_22222_x.ipynb", "doejane_12345"),
        ("hw 5_jdoe_attempt_2026-05-04-13-37-00_x.ipynb", "jdoe"),
        ("123-456 - Jane Doe - May 4, 2026 137 PM/x.ipynb", "Jane Doe_123"),
        ("123-456 - Jane Doe - 4 May, 2026 1337/x.ipynb", "Jane Doe_123"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("zipped", [False, True])
def test_layouts_of_nbgrader_and_of_platforms_are_known(
    place: Path, path: str, student: str, zipped: bool
) -> None:
    """A platform's download must not have to be renamed by hand."""
    found = find(place, [path], zipped)
    assert [one.student for one in found.taken] == [student] and not found.refused


@pytest.mark.parametrize(
    "path",
    [
        "alice.ipynb", "alice/x.ipynb", f"alice_{NAME}.ipynb", f"{NAME}/alice.ipynb", f"{NAME}.ipynb",
        f"submitted/{FILE}", "hw_5_2_final.ipynb", "homework_2026_05_x.ipynb", f"hw6/alice/{NAME}.ipynb",
        f"...../{FILE}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("zipped", [False, True])
def test_what_nobody_states_is_refused(place: Path, path: str, zipped: bool) -> None:
    """Each of these was a student once, the last perhaps called "week 3"."""
    found = find(place, [path], zipped)
    assert not found.taken and [one.shown for one in found.refused] == [path]


@pytest.mark.parametrize(
    ("paths", "why"),
    [
        ([f"a:b/{FILE}", f"a_b/{FILE}"], "two persons may be meant"),
        ([f"Ann/{FILE}", f"ann/{FILE}"], "two persons may be meant"),
        ([f"straße/{FILE}", f"STRASSE/{FILE}"], "two persons may be meant"),
        ([f"ann/{FILE}", f"ann /{FILE}"], "two persons may be meant"),
        ([f"one/ann/{FILE}", f"two/ann/{FILE}"], "two persons may be meant"),
        ([f"one/ann/{FILE}", f"two/ann/{OTHER}/{OTHER}.ipynb"], "two persons may be meant"),
        ([f"{form}/{FILE}" for form in ("Jo\u0308rg", "J\u00f6rg")], "two persons may be meant"),
        (["A_1_assignsubmission_file_/x.ipynb", "A_1_assignsubmission_file_/y.ipynb"], "nothing tells"),
        (["a_12_345_x.ipynb", "b_12_346_x.ipynb"], "several names"),
        (["a_12_345_x.ipynb", "sub/a_12_345_y.ipynb"], "nothing tells"),
    ],
)
def test_every_collision_is_refused_on_both_sides(place: Path, paths: list[str], why: str) -> None:
    """They overwrote each other, with exit code 0."""
    found = find(place, paths)
    assert not found.taken and {one.shown for one in found.refused} == {clean_path(p) for p in paths}
    assert all(why in one.why for one in found.refused)


def clean_path(path: str) -> str:
    return path  # Names are shown as they were handed in.


def test_two_students_of_one_name_are_two(place: Path) -> None:
    """The empty submission of one took the place of the other's."""
    found = find(place, [f"Student A_{n}_assignsubmission_file_/x.ipynb" for n in (1001, 1002)])
    assert list(students(found)) == ["Student A_1001", "Student A_1002"]


def test_the_latest_attempt_counts_and_the_table_tells_the_older(place: Path) -> None:
    """Also where the names sort, or the files were written, the other way round."""
    found = find(place, [
        "doe_12_900_z.ipynb", "doe_LATE_12_1000_a.ipynb",
        "hw_jd_attempt_2026-05-04-13-37-00_x.ipynb", "hw_jd_attempt_2026-05-04-09-37-00_x.ipynb",
        "1-2 - Jane Doe - May 4, 2026 937 AM/x.ipynb", "1-2 - Jane Doe - May 4, 2026 1237 AM/x.ipynb",
    ])  # fmt: skip
    assert students(found) == {
        "doe_12": "doe_LATE_12_1000_a.ipynb",
        "jd": "hw_jd_attempt_2026-05-04-13-37-00_x.ipynb",
        "Jane Doe_1": "1-2 - Jane Doe - May 4, 2026 937 AM/x.ipynb",
    }
    assert len(found.left_out) == 3
    assert all("earlier attempt" in left.why and left.student for left in found.left_out)


def test_the_same_file_twice_is_no_collision(place: Path) -> None:
    """Students upload a file again, with nothing changed."""
    folder = "A_1_assignsubmission_file_"
    found = find(place, {f"{folder}/x.ipynb": "same", f"{folder}/y.ipynb": "same"})
    assert list(students(found)) == ["A_1"] and "is the same as" in found.left_out[0].why


def test_nbgraders_layout_takes_the_notebook_of_the_assignments_name(place: Path) -> None:
    """nbgrader looks at no other."""
    found = find(place, [f"ann/{FILE}", f"ann/{NAME}/scratch.ipynb", f"ann/{NAME}/deep/{NAME}.ipynb"])
    assert students(found) == {"ann": f"ann/{FILE}"} and len(found.left_out) == 2


@pytest.mark.parametrize("zipped", [False, True])
def test_what_a_student_names_below_makes_nobody_of_him(place: Path, zipped: bool) -> None:
    """It would take the place of a classmate's work."""
    moodle = "Mallory_7_assignsubmission_file_"
    found = find(place, [f"{moodle}/bob/{FILE}", f"bob/{FILE}", f"eve/{NAME}/bob_12_345_x.ipynb"], zipped)
    assert students(found) == {
        "Mallory_7": f"{moodle}/bob/{FILE}", "bob": f"bob/{FILE}", "eve": f"eve/{NAME}/bob_12_345_x.ipynb",
    }  # fmt: skip


@pytest.mark.parametrize("outer", ["folder", "zip", "alone"])
def test_a_students_zip_is_that_students(place: Path, outer: str) -> None:
    """Names in it are the student's own; a zip in it is not unpacked."""
    inside = [f"bob/{FILE}", f"../bob/{FILE}", "/bob.ipynb", "C:\\bob.ipynb", ".", "", "x.txt", "more.zip"]
    (place / "in").mkdir()
    own = place / "in" / "mallory_12_345_hw.zip"
    with zipfile.ZipFile(own, "w") as archive:
        for name in inside:
            archive.writestr(zipfile.ZipInfo(name), notebook())
    if outer == "zip":
        with zipfile.ZipFile(place / "class.zip", "w") as archive:
            archive.write(own, f"hw6/{own.name}")
    (place / "unpacked").mkdir()
    folder = {"folder": place / "in", "zip": place / "class.zip", "alone": own}[outer]
    found = find_submissions([folder], KNOWN, place / "unpacked")
    assert [one.student for one in found.taken] == ["mallory_12"] and not found.refused
    why = [left.why for left in found.left_out]
    assert sum("leads out of the zip" in one for one in why) == 4
    assert sum("zip in a student's zip" in one for one in why) == 1
    assert all((place / "unpacked") in one.path.parents and one.path.is_file() for one in found.taken)


def test_a_pattern_of_the_lecturers_is_all_that_tells(place: Path) -> None:
    """With the groups of nbgrader's zip_collect; a platform's name says nothing then."""
    pattern = r".*ps1_(?P<student_id>\w+?)_attempt_(?P<timestamp>[0-9a-z\-]+)_(?P<file_id>\w+)"
    names = [f"x/ps1_ann_attempt_2016-01-30-{hour}-00-00_problem1.ipynb" for hour in ("09", "15")]
    found = find(place, [*names, f"bob/{FILE}", "ps1_cy_attempt_never_p.ipynb"], pattern=pattern)
    assert students(found) == {"ann": names[1]}
    assert {left.shown: left.why for left in found.refused} == {
        f"bob/{FILE}": "--pattern does not match it",
        "ps1_cy_attempt_never_p.ipynb": "the timestamp of --pattern is no time here: 'never'",
    }


ROSTER = "student,lms,name,mail\nann,1001,Student A,ann@x.edu\nbob,1002,Student A,bob@x.edu\ncy,77,Cy Ü,\n"


def test_a_roster_tells_who_a_platforms_id_is(place: Path) -> None:
    """Moodle draws other ids for each assignment, and two students share a name."""
    found = find(place, [
        "Student A_1001_assignsubmission_file_/x.ipynb", "cyü_77_345_x.ipynb", "bob@x.edu.ipynb",
        "Student A_9_assignsubmission_file_/x.ipynb", "dan.ipynb", f"dora/{FILE}", "ann/bob.ipynb",
    ], roster=ROSTER)  # fmt: skip
    assert list(students(found)) == ["ann", "bob", "cy"]
    assert {left.shown.split("/")[0]: left.why.partition(" under ")[0] for left in found.refused} == {
        "Student A_9_assignsubmission_file_": "the roster has several students (ann, bob)",
        "dan.ipynb": "the roster has nobody",
        "dora": "the roster has nobody",
        "ann": "the roster has several students (ann, bob)",
    }


def test_a_roster_makes_one_person_of_two_ids_in_two_assignments_only(place: Path) -> None:
    """Two of one name, one of whom the roster lacks, would count as two attempts of the other."""
    names = [f"Cy Ü_{n}_assignsubmission_file_/{NAME}.ipynb" for n in (5, 6)]
    assert len(find(place, names, roster=ROSTER).refused) == 2


@pytest.mark.parametrize("path", ["ann.ipynb", "ann/x.ipynb", f"ann_{NAME}.ipynb", f"{NAME}-ann.ipynb"])
def test_with_a_roster_a_whole_name_is_enough_and_a_part_is_not(place: Path, path: str) -> None:
    """A student called Max, and one who hands in max_pooling.ipynb."""
    found = find(place, [path, path.replace("ann", "anna"), path.replace("ann", "ann_2")], roster=ROSTER)
    assert students(found) == {"ann": path} and len(found.refused) == 2


@pytest.mark.parametrize(
    ("data", "names"),
    [
        ("id;name\n1;Jörg\n".encode("cp1252"), {"1", "jörg"}),
        ("id\tname\n1\tJörg\n".encode("utf-16"), {"1", "jörg"}),
        ("\ufeffid,name\r\n1,\"Ü, Jörg\"\r\n\r\n".encode(), {"1", "ü, jörg"}),
        (b"Identifier,Full name\nParticipant 7,A B\n", {"participant 7", "7", "a b"}),
    ],
)  # fmt: skip
def test_rosters_are_read_as_spreadsheets_save_them(place: Path, data: bytes, names: set[str]) -> None:
    """Excel in German writes semicolons and no UTF-8."""
    (place / "r.csv").write_bytes(data)
    assert set(read_roster(place / "r.csv")) == names


@pytest.mark.parametrize(
    ("text", "message"),
    [("id\nann\nAnn\n", "no name of its own"), ("id\n", "no student"), ("id,x\n,1\n", "no name of its own")],
)
def test_a_roster_that_tells_nothing_is_refused(place: Path, text: str, message: str) -> None:
    """It would tell a wrong thing."""
    (place / "r.csv").write_text(text)
    with pytest.raises(ValueError, match=f"--roster: .*{message}"):
        Sources(KNOWN, roster=place / "r.csv")


def test_bad_patterns_are_told_in_a_line() -> None:
    """And a missing roster."""
    for pattern, message in (("(", "no regular expression"), ("(?P<name>.*)", "needs a group")):
        with pytest.raises(ValueError, match=f"--pattern {message}|--pattern is {message}"):
            Sources(KNOWN, pattern)
    with pytest.raises(ValueError, match="--roster: .* cannot be read"):
        Sources(KNOWN, roster=Path("/no/such.csv"))


# --- many generated classes ---

_names = st.text("aA bBéÉßſs:_?\u0301.İi漢", min_size=1, max_size=6).filter(lambda n: n not in (".", ".."))


@settings(max_examples=150, deadline=None)
@given(st.lists(_names, min_size=1, max_size=6, unique=True), st.booleans(), st.sampled_from(["", "hw6/"]))
def test_no_two_folders_become_one_student(names: list[str], zipped: bool, top: str) -> None:
    """Whatever they are called, each is one student or refused."""
    with TemporaryDirectory() as folder:
        paths = {f"{top}{name}/{FILE}": name for name in names}
        found = find(Path(folder), paths, zipped)
        assert len(found.taken) + len(found.refused) == len(names)
        kept = [folded(one.student) for one in found.taken]
        assert len(set(kept)) == len(kept)
        for one in found.taken:
            name = one.shown.removeprefix(top).split("/")[0]
            assert one.student == clean_name(name)
            assert json.loads(one.path.read_text())["cells"][0]["source"] == name
            assert sum(folded(clean_name(other)) == folded(one.student) for other in names) == 1


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(10, 13), st.integers(100, 104)), max_size=8),
    st.booleans(),
)
def test_of_canvas_attempts_the_highest_number_counts(
    uploads: list[tuple[str, int, int]], late: bool
) -> None:
    """A model of what must come out: one name an id, and one latest number."""
    mark = "LATE_" * late
    with TemporaryDirectory() as folder:
        texts = {f"{n}_{mark}{i}_{a}_{place}.ipynb": str(place) for place, (n, i, a) in enumerate(uploads)}
        (Path(folder) / "in").mkdir()
        found = find(Path(folder), texts)
    by_id: dict[int, list[tuple[str, int, int]]] = {}
    for upload in uploads:
        by_id.setdefault(upload[1], []).append(upload)
    clear = {
        own[0][0] + f"_{i}": max(number for *_, number in own)
        for i, own in by_id.items()
        if len({n for n, *_ in own}) == 1
        and [number for *_, number in own].count(max(number for *_, number in own)) == 1
    }
    assert {one.student: int(one.shown.split("_")[-2]) for one in found.taken} == clear
    refused = sum(len(own) for i, own in by_id.items() if own[0][0] + f"_{i}" not in clear)
    assert len(found.refused) == refused
    assert len(found.taken) + len(found.left_out) + refused == len(uploads)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["A", "a", "B b"]), st.integers(1, 4)), unique=True, max_size=8))
def test_a_moodle_id_is_one_student_whatever_the_name(people: list[tuple[str, int]]) -> None:
    """Students of one name, and of names that differ in case alone."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "in").mkdir()
        found = find(Path(folder), [f"{n}_{i}_assignsubmission_file_/x.ipynb" for n, i in people])
    single = {f"{n}_{i}" for n, i in people if sum(i == j for _, j in people) == 1}
    assert set(students(found)) == single and len(found.refused) == len(people) - len(single)


def test_zips_of_two_platforms_are_one_class(place: Path) -> None:
    """A name in one may be a name in the other."""
    for name, paths in {
        "m.zip": ["A_1_assignsubmission_file_/x.ipynb"],
        "c.zip": ["A_1_345_x.ipynb"],
    }.items():
        with zipfile.ZipFile(place / name, "w") as archive:
            for path in (*paths, f"{name[0]}_77_678_x.ipynb"):
                archive.writestr(path, notebook(path))
    (place / "unpacked").mkdir()
    found = find_submissions([place / "m.zip", place / "c.zip"], KNOWN, place / "unpacked")
    assert {one.shown: one.why for one in found.refused} == {
        "m.zip/A_1_assignsubmission_file_/x.ipynb":
            "two persons may be meant by the name A_1: this one, and Canvas 1",
        "c.zip/A_1_345_x.ipynb": "two persons may be meant by the name A_1: this one, and Moodle 1",
        "m.zip/m_77_678_x.ipynb": "Canvas 77 has several names: c_77, m_77",
        "c.zip/c_77_678_x.ipynb": "Canvas 77 has several names: c_77, m_77",
    }  # fmt: skip
