"""Whose file is whose: the notebooks in a folder of submissions, however a learning platform lays them out.

    submitted/alice/05_x/05_x.ipynb       nbgrader's own layout
    alice.ipynb  alice/05_x.ipynb  alice_05_x.ipynb  Alice M_123_assignsubmission_file_/05_x.ipynb  alice.zip

Nothing is passed over silently: what is not taken is listed with the reason.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import unicodedata
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePath, PurePosixPath

from labkit.classroom.grading.cells import Handed, read_handed

LARGEST_ZIP = 2**30  # bytes unpacked
MOST_FILES = 20_000  # in a zip
LONGEST_NAME = 150  # bytes; file systems take 255, with a suffix
TIMESTAMP = "timestamp.txt"
_NOTEBOOKS = (".ipynb", ".json")
_NOISE = {".DS_Store", "Thumbs.db", "desktop.ini", TIMESTAMP}
_NOISY = {"__MACOSX", ".ipynb_checkpoints", "__pycache__", ".git"}
_MOODLE = re.compile(r"(.+?)_\d+_assignsubmission_\w+")
_ZONE = r"[+-](0\d|1[0-4]):?[0-5]\d|[A-Za-z][A-Za-z_/]{0,40}"
_TIME = re.compile(rf"\d{{4}}-\d\d-\d\d[ T]\d\d:\d\d(:[0-5]\d(\.\d{{1,6}})?)?( ?({_ZONE}))?", re.ASCII)


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


@dataclass(frozen=True)
class _File:
    """A file as it was handed in: `owner` is the name that tells whose it is."""

    path: Path
    shown: PurePosixPath
    owner: PurePosixPath


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
    files: list[_File] = []
    left: list[LeftOut] = []
    names = [folder] if folder.is_file() else _walked(folder, left)
    for path in names:
        shown = _printable(path.relative_to(folder) if path != folder else PurePosixPath(path.name))
        if path.suffix.lower() == ".zip":
            files.extend(_unzipped(path, shown, unpacked, left, whole=path == folder))
        else:
            files.append(_File(path, shown, shown))
    taken: dict[tuple[str, str], Submission] = {}
    for file in files:
        found = _recognize(file, assignments)
        if found is None:
            continue
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


def _walked(folder: Path, left: list[LeftOut]) -> list[Path]:
    """All files in a folder. Links are not followed: one could lead to a classmate's file, or out of it."""
    found = []

    def leave(path: Path, why: str) -> None:
        left.append(LeftOut(str(_printable(path.relative_to(folder))), why))

    def unreadable(error: OSError) -> None:
        leave(Path(error.filename), f"cannot be read: {error.strerror}")

    for place, folders, names in os.walk(folder, onerror=unreadable):
        for path in (Path(place) / name for name in (*folders, *names)):
            try:
                mode = path.lstat().st_mode
            except OSError as error:
                unreadable(error)
                continue
            if stat.S_ISLNK(mode):
                leave(path, "is a link; links are not followed")
            elif stat.S_ISREG(mode):
                found.append(path)
            elif not stat.S_ISDIR(mode):
                leave(path, "is no file")
            elif path.suffix.lower() in (*_NOTEBOOKS, ".zip"):
                leave(path, "is a folder under a file's name; what it holds is read")
    return sorted(found)


def _unzipped(
    path: Path, shown: PurePosixPath, unpacked: Path, left: list[LeftOut], *, whole: bool
) -> list[_File]:
    """The files of a zip: of a student, or of the class where the zip is all that was handed in (`whole`).

    Whose it is only the zip's own name tells otherwise: students name what is in it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.filename.endswith(("/", "\\"))]
            if sum(entry.file_size for entry in entries) > LARGEST_ZIP:
                left.append(LeftOut(str(shown), f"unpacks to more than {LARGEST_ZIP >> 20} MB"))
                return []
            if len(entries) > MOST_FILES:
                left.append(LeftOut(str(shown), f"holds {len(entries):,} files, more than {MOST_FILES:,}"))
                return []
            names = [PurePosixPath(entry.filename.replace("\\", "/")) for entry in entries]
            own = not whole or _is_own([name for name in names if name.parts])
            target = unpacked / str(len(list(unpacked.iterdir())))
            found = []
            for number, (entry, name) in enumerate(zip(entries, names, strict=True)):
                inside = _printable(name)
                here = (shown.with_suffix("") if own else shown.parent) / inside
                if not name.parts or name.is_absolute() or ".." in name.parts or name.parts[0][1:2] == ":":
                    why = "leads out of the zip" if name.parts else "has no name"
                    left.append(LeftOut(f"{shown}: {inside}", f"an entry of the zip that {why}"))
                    continue
                # Kept apart by number: names in a zip may be long, odd, or stand there twice.
                parent = hashlib.sha256(str(name.parent).encode("utf-8", "replace")).hexdigest()[:16]
                out = target / parent / inside.parent.name[:60] / f"{number}{name.suffix.lower()[:8]}"
                if name.name == TIMESTAMP and not own:
                    out = out.with_name(TIMESTAMP)
                elif name.suffix.lower() not in _NOTEBOOKS or _is_noise(str(name)):
                    out = target / "left out"  # It is told, and need not be unpacked.
                    found.append(_File(out, here, here if whole else shown))
                    continue
                try:
                    out.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(entry) as packed, out.open("wb") as file:
                        shutil.copyfileobj(packed, file)
                    os.utime(out, (_date(entry, path),) * 2)
                except Exception as error:  # A damaged zip raises what it likes, zlib.error for one.
                    left.append(LeftOut(str(here), f"cannot be unpacked: {_line(error)}"))
                    continue
                found.append(_File(out, here, here if whole else shown))
            return found
    except Exception as error:
        left.append(LeftOut(str(shown), f"is no zip that can be opened: {_line(error)}"))
        return []


def _is_own(names: list[PurePosixPath]) -> bool:
    """One that holds a folder a student is the platform's; one with loose notebooks, a student's own."""
    names = [name for name in names if not _is_noise(str(name))]
    loose = any(len(name.parts) == 1 and name.suffix.lower() in _NOTEBOOKS for name in names)
    return loose or len({name.parts[0] for name in names}) == 1


def _date(entry: zipfile.ZipInfo, path: Path) -> float:
    try:
        return datetime(*entry.date_time).timestamp()
    except (ValueError, OverflowError, OSError):
        return path.stat().st_mtime


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _printable(path: PurePath) -> PurePosixPath:
    """A name that fits in a line and in UTF-8: names on disk may be of any bytes, Latin-1 for one."""
    parts = []
    for part in path.parts:
        if any("\ud800" <= char <= "\udfff" for char in part):
            data = part.encode("utf-8", "surrogateescape")
            try:
                part = data.decode()
            except UnicodeDecodeError:
                part = data.decode("latin-1")
        parts.append("".join(char if char.isprintable() else "_" for char in part))
    return PurePosixPath(*parts)


def read_timestamp(path: Path) -> str | None:
    """The time in nbgrader's timestamp.txt, beside the notebook, or None where it is none to rely on.

    nbgrader writes "2026-05-04 13:37:00.123456 UTC", and stops at anything that it cannot read.
    """
    if path.is_symlink() or not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            text = file.read(200).decode().strip()
        if _TIME.fullmatch(text) and 1970 <= datetime.fromisoformat(text[:16]).year < 2200:
            return text
    except (OSError, ValueError):
        pass
    return None


def _is_noise(name: str) -> bool:
    path = PurePosixPath(name)
    return path.name in _NOISE or path.name.startswith("._") or bool(_NOISY & set(path.parts))


def _recognize(file: _File, assignments: Mapping[str, Collection[str]]) -> Submission | LeftOut | None:
    path, shown = file.path, file.shown
    if shown.name == TIMESTAMP and len(shown.parts) > 2 and shown.parent.name in assignments:
        used = read_timestamp(path) is not None  # nbgrader's layout: STUDENT/ASSIGNMENT/timestamp.txt
        return None if used else LeftOut(str(shown), "holds no date and time, and is not taken into account")
    if _is_noise(str(shown)):
        return LeftOut(str(shown), "is no one's work")
    if shown.suffix.lower() not in _NOTEBOOKS:
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
    student = _student_of(file.owner, assignment)
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
    name = name.strip(" .")
    if len(name.encode()) <= LONGEST_NAME:
        return name
    mark = hashlib.sha256(name.encode()).hexdigest()[:8]  # Two long names must not become one.
    return f"{name.encode()[: LONGEST_NAME - 9].decode(errors='ignore')}_{mark}"
