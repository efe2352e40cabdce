"""Whose file is whose: the notebooks in a folder of submissions, however a learning platform lays them out.

    submitted/alice/05_x/05_x.ipynb       nbgrader's own layout
    alice.ipynb  alice/05_x.ipynb  alice_05_x.ipynb  Alice M_123_assignsubmission_file_/05_x.ipynb  alice.zip

Nothing is passed over silently: what is not taken is listed with the reason.
"""

from __future__ import annotations

import re
import unicodedata
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from labkit.assignments.grading.cells import Handed, read_handed

LARGEST_ZIP = 2**30  # bytes unpacked
_NOISE = {".DS_Store", "Thumbs.db", "desktop.ini", "timestamp.txt"}
_NOISY = {"__MACOSX", ".ipynb_checkpoints", "__pycache__", ".git"}
_MOODLE = re.compile(r"(.+?)_\d+_assignsubmission_\w+")


@dataclass(frozen=True)
class Submission:
    """One file, taken for one student's work on one assignment.

    Attributes:
        path: of the file; `shown` is its name as it was handed in, inside a zip perhaps.
        broken: why it cannot be read; empty where it can.
    """

    student: str
    assignment: str
    path: Path
    shown: str
    broken: str = ""


@dataclass(frozen=True)
class LeftOut:
    """A file that is not graded, and why."""

    shown: str
    why: str


def find_submissions(
    folder: Path, assignments: Mapping[str, Collection[str]], unpacked: Path
) -> tuple[list[Submission], list[LeftOut]]:
    """The submissions in a folder, a zip, or one notebook, by student and assignment.

    Args:
        assignments: name -> the grade ids of its cells.
        unpacked: an empty folder for the contents of zips.

    Raises:
        ValueError: there is no such folder or file.
    """
    if not folder.exists():
        raise ValueError(f"SUBMISSIONS: there is no {folder}")
    files: list[tuple[Path, PurePosixPath]] = []
    left: list[LeftOut] = []
    if folder.is_file():
        pairs: Iterator[tuple[Path, PurePosixPath]] = iter([(folder, PurePosixPath(folder.name))])
    else:
        names = sorted(path for path in folder.rglob("*") if path.is_file())
        pairs = ((path, PurePosixPath(path.relative_to(folder).as_posix())) for path in names)
    for path, shown in pairs:
        files.extend(
            _unzipped(path, shown, unpacked, left) if path.suffix.lower() == ".zip" else [(path, shown)]
        )
    taken: dict[tuple[str, str], Submission] = {}
    for path, shown in files:
        found = _recognize(path, shown, assignments)
        if isinstance(found, LeftOut):
            left.append(found)
            continue
        key = (found.student, found.assignment)
        other = taken.get(key)
        if other is not None and (bool(found.broken), -_age(found)) > (bool(other.broken), -_age(other)):
            found, other = other, found
        if other is not None:
            left.append(
                LeftOut(other.shown, f"{found.shown} is newer or readable, and was taken for {found.student}")
            )
        taken[key] = found
    return sorted(taken.values(), key=lambda one: (one.assignment, one.student)), left


def _age(one: Submission) -> float:
    return one.path.stat().st_mtime


def _unzipped(
    path: Path, shown: PurePosixPath, unpacked: Path, left: list[LeftOut]
) -> list[tuple[Path, PurePosixPath]]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if sum(entry.file_size for entry in entries) > LARGEST_ZIP:
                left.append(LeftOut(str(shown), f"unpacks to more than {LARGEST_ZIP >> 20} MB"))
                return []
            target = unpacked / str(len(list(unpacked.iterdir())))
            names = [PurePosixPath(entry.filename) for entry in entries if not _is_noise(entry.filename)]
            tops = {name.parts[0] for name in names}
            # One that holds a folder a student is the platform's; one with loose files, a student's own.
            own = len(tops) == 1 or any(len(name.parts) == 1 for name in names)
            found = []
            for entry in entries:
                out = Path(archive.extract(entry, target))  # It keeps names inside the folder.
                inner = PurePosixPath(entry.filename)
                found.append((out, shown.with_suffix("") / inner if own else shown.parent / inner))
            return found
    except (zipfile.BadZipFile, RuntimeError, OSError, NotImplementedError) as error:
        left.append(LeftOut(str(shown), f"is no zip that can be opened: {error}"))
        return []


def _is_noise(name: str) -> bool:
    path = PurePosixPath(name)
    return path.name in _NOISE or path.name.startswith("._") or bool(_NOISY & set(path.parts))


def _recognize(
    path: Path, shown: PurePosixPath, assignments: Mapping[str, Collection[str]]
) -> Submission | LeftOut:
    if _is_noise(str(shown)):
        return LeftOut(str(shown), "is no one's work")
    if path.suffix.lower() not in (".ipynb", ".json"):
        return LeftOut(str(shown), "is no notebook (.ipynb)")
    handed: Handed | None = None
    try:
        handed, broken = read_handed(path), ""
    except ValueError as error:
        broken = str(error)
    assignment = _assignment_of(handed, shown, assignments)
    if assignment is None:
        known = ", ".join(assignments)
        return LeftOut(str(shown), broken or f"belongs to no assignment of this course ({known})")
    student = _student_of(shown, assignment)
    if not student:
        return LeftOut(
            str(shown), "does not tell whose it is: put the student's name in front, or in a folder"
        )
    return Submission(student, assignment, path, str(shown), broken)


def _assignment_of(
    handed: Handed | None, shown: PurePosixPath, assignments: Mapping[str, Collection[str]]
) -> str | None:
    """By the mark in the notebook, then by the file's name, then by the grade ids of its cells."""
    if handed is not None and handed.assignment in assignments:
        return handed.assignment
    named = [name for name in assignments if any(_holds(part, name) for part in shown.parts)]
    if named:
        return max(named, key=len)
    if handed is not None:
        ids = {cell.grade_id for cell in handed.cells} - {""}
        shared = {name: len(ids & set(own)) for name, own in assignments.items()}
        best = max(shared, key=lambda name: shared[name], default=None)
        if best is not None and shared[best] and list(shared.values()).count(shared[best]) == 1:
            return best
    return next(iter(assignments)) if len(assignments) == 1 else None


def _holds(part: str, name: str) -> bool:
    return re.search(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", part) is not None


def _student_of(shown: PurePosixPath, assignment: str) -> str:
    """The first part of the path that says more than which assignment it is."""
    for part in [*shown.parts[:-1], shown.stem]:
        moodle = _MOODLE.fullmatch(part)
        name = moodle[1] if moodle else re.sub(rf"(?<![^\W_]){re.escape(assignment)}(?![^\W_])", "", part)
        name = re.sub(r"\s*\(\d+\)$", "", name)  # What a browser adds to a second download.
        name = clean_name(name.strip(" _-.,"))
        if name and name.lower() not in ("submitted", "submissions", "autograded"):
            return name
    return ""


def clean_name(name: str) -> str:
    """A student's name as gradebook and file system take it: umlauts and blanks stay, patterns go."""
    name = unicodedata.normalize("NFC", name)
    name = "".join("_" if char in '/\\:*?"<>|[]{}' or not char.isprintable() else char for char in name)
    return name.strip(" .")[:100]
