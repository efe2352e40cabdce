"""What was handed in: the notebooks in a folder or a zip, each with its student and its assignment.

Nothing is passed over silently: what is not taken is listed with the reason, and where it is not stated whose
a file is, or which of two counts, it is refused.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import uuid
import zipfile
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path, PurePath, PurePosixPath

from labkit.classroom.grading.cells import Handed, read_handed
from labkit.classroom.grading.people import Owner, Sources, decoded, folded

LARGEST_ZIP = 2**30  # bytes unpacked
MOST_FILES = 20_000  # in a zip
TIMESTAMP = "timestamp.txt"
_WANTED = (".ipynb", ".json", ".zip", ".txt")  # of a zip
_NOISE = {".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX", ".ipynb_checkpoints", "__pycache__", ".git"}
_ZONE = r"[+-](0\d|1[0-4]):?[0-5]\d|[A-Za-z][A-Za-z_/]{0,40}"
_TIME = re.compile(rf"\d{{4}}-\d\d-\d\d[ T]\d\d:\d\d(:[0-5]\d(\.\d{{1,6}})?)?( ?({_ZONE}))?", re.ASCII)


@dataclass(frozen=True)
class Submission:
    """One file, taken for one student's work on one assignment.

    Attributes:
        path: of the file; `shown` is its name as it was handed in, inside a zip perhaps.
        broken: why it cannot be read; empty where it can.
        time: of nbgrader's timestamp.txt beside it; empty where there is none.
    """

    student: str
    assignment: str
    path: Path
    shown: str
    broken: str = ""
    time: str = ""


@dataclass(frozen=True)
class LeftOut:
    """A file that is not graded, and why; whose it is, where that is known.

    Attributes:
        refused: whether somebody has to tell more before anything is graded.
    """

    shown: str
    why: str
    student: str = ""
    refused: bool = False


@dataclass
class Found:
    """Who is who: what is to be graded, what is left out, and what is refused until somebody tells more."""

    taken: list[Submission] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    refused: list[LeftOut] = field(default_factory=list)


@dataclass(frozen=True)
class _File:
    """A file as it was handed in: `owner` is the path that tells whose it is."""

    path: Path
    shown: PurePosixPath
    owner: PurePosixPath


@dataclass(frozen=True)
class _Candidate:
    one: Submission
    owner: Owner

    @property
    def content(self) -> str:
        return hashlib.sha256(self.one.path.read_bytes()).hexdigest()


def find_submissions(
    handed_in: Sequence[Path],
    assignments: Mapping[str, Collection[str]],
    unpacked: Path,
    sources: Sources | None = None,
) -> Found:
    """The submissions in folders, zips and single notebooks, by student and assignment.

    Args:
        handed_in: what was handed in; of several, each file is shown with the name of where it was.
        assignments: name -> the grade ids of its cells.
        unpacked: an empty folder for the contents of zips.
        sources: what states whose a file is; by default nbgrader's layout and the platforms' names.

    Raises:
        ValueError: there is no such folder or file.
    """
    for place in handed_in:
        if not place.exists():
            raise ValueError(f"SUBMISSIONS: there is no {place}")
    sources = sources or Sources(assignments)
    found = Found()
    files = []
    for place in handed_in:
        top = PurePosixPath(place.name if len(handed_in) > 1 else "")
        files += [
            replace(file, shown=top / file.shown) for file in _gathered(place, unpacked, sources, found)
        ]
    times = {file.shown.parent: read_timestamp(file.path) for file in files if file.shown.name == TIMESTAMP}
    candidates = []
    for file in files:
        if file.shown.name != TIMESTAMP or not times[file.shown.parent]:
            taken = _recognize(file, assignments, sources, times.get(file.shown.parent) or "")
            if isinstance(taken, _Candidate):
                candidates.append(taken)
            else:
                (found.refused if taken.refused else found.left_out).append(taken)
    _choose(_without_strangers(candidates, found, sources.rostered), found)
    return found


def _recognize(
    file: _File, assignments: Mapping[str, Collection[str]], sources: Sources, time: str
) -> _Candidate | LeftOut:
    shown = str(file.shown)
    handed, broken, why = _read(file)
    if why:
        return LeftOut(shown, why)
    assignment = _assignment_of(handed, file.shown, assignments)
    if assignment is None:
        return LeftOut(shown, broken or f"belongs to no assignment of this course ({', '.join(assignments)})")
    try:
        owner = sources.owner(file.owner)
    except ValueError as error:
        return LeftOut(shown, str(error), refused=True)
    one = Submission(owner.student, assignment, file.path, shown, broken, time if owner.nbgrader else "")
    return _Candidate(one, owner)


def _without_strangers(candidates: list[_Candidate], found: Found, rostered: bool) -> list[_Candidate]:
    """Refuses names under which there may be two persons, and persons under two names."""
    people, names = defaultdict(set), defaultdict(set)
    for candidate in candidates:
        one, identity = candidate.one, candidate.owner.identity
        # A platform may know one person by another id in each assignment; a roster tells that it is one.
        people[folded(one.student), one.assignment if rostered else ""].add((identity, one.student))
        names[identity].add(one.student)
    clear = []
    for candidate in candidates:
        one, identity = candidate.one, candidate.owner.identity
        others = people[folded(one.student), one.assignment if rostered else ""] - {(identity, one.student)}
        if others:
            where = " and ".join(sorted(" ".join(who) for who, _ in others))
            why = f"two persons may be meant by the name {one.student}: this one, and {where}"
            found.refused.append(LeftOut(one.shown, why, one.student))
        elif len(names[identity]) > 1:
            why = f"{' '.join(identity)} has several names: {', '.join(sorted(names[identity]))}"
            found.refused.append(LeftOut(one.shown, why, one.student))
        else:
            clear.append(candidate)
    return clear


def _choose(candidates: list[_Candidate], found: Found) -> None:
    """Takes the latest attempt of each student; refuses where nothing tells which that is."""
    attempts = defaultdict(list)
    for candidate in candidates:
        attempts[candidate.one.assignment, candidate.one.student].append(candidate)
    for _, several in sorted(attempts.items()):
        by_content = {candidate.content: candidate for candidate in several} if len(several) > 1 else {}
        orders = [candidate.owner.order for candidate in by_content.values()]
        if len(orders) > 1 and (None in orders or orders.count(max(orders)) > 1):
            for candidate in several:
                others = ", ".join(c.one.shown for c in several if c is not candidate)
                why = f"nothing tells whether this or {others} counts"
                found.refused.append(LeftOut(candidate.one.shown, why, candidate.one.student))
            continue
        last = max(several, key=lambda c: c.owner.order) if len(by_content) > 1 else several[-1]
        found.taken.append(last.one)
        for candidate in several:
            if candidate is not last:
                same = candidate.content == last.content
                why = f"{'is the same as' if same else 'is an earlier attempt than'} {last.one.shown}"
                found.left_out.append(LeftOut(candidate.one.shown, why, candidate.one.student))


def _gathered(folder: Path, unpacked: Path, sources: Sources, found: Found) -> Iterator[_File]:
    """All files, those in zips as well.

    Whose a zip is its own path tells: students name what is in it. The class's zip, which tells nobody and is
    named by itself, is read like a folder.
    """
    left = found.left_out
    for path in [folder] if folder.is_file() else _walked(folder, left):
        shown = _printable(path.relative_to(folder) if path != folder else PurePosixPath(path.name))
        file = _File(path, shown, shown)
        if path.suffix.lower() != ".zip":
            yield file
            continue
        told = _tells(sources, shown)
        whole = path == folder and not told
        if not told and not whole:
            why = "nothing states whose it is; if it is the class's, name it by itself as SUBMISSIONS"
            found.refused.append(LeftOut(str(shown), why))
            continue
        for inner in _unzipped(file, unpacked, left, whole=whole):
            if whole and inner.path.suffix == ".zip":
                yield from _unzipped(inner, unpacked, left, whole=False)
            else:
                yield inner


def _tells(sources: Sources, shown: PurePosixPath) -> bool:
    try:
        return bool(sources.owner(shown))
    except ValueError:
        return False


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
    return sorted(found)


def _unzipped(file: _File, unpacked: Path, left: list[LeftOut], *, whole: bool) -> list[_File]:
    """The files of a zip, under names of ours: theirs may be long, lead out of it, or stand there twice."""
    found = []
    try:
        with zipfile.ZipFile(file.path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.filename.endswith(("/", "\\"))]
            if sum(entry.file_size for entry in entries) > LARGEST_ZIP or len(entries) > MOST_FILES:
                raise ValueError(f"more than {LARGEST_ZIP >> 20} MB or {MOST_FILES:,} files")
            for entry in entries:
                name = PurePosixPath(entry.filename.replace("\\", "/"))
                shown = _printable(name) if whole else file.shown / _printable(name)
                if not name.parts or name.is_absolute() or ".." in name.parts:
                    left.append(LeftOut(f"{file.shown}: {name}", "leads out of the zip, or has no name"))
                    continue
                out = unpacked / f"{uuid.uuid4().hex}{name.suffix.lower()[:8]}"
                try:
                    if name.suffix.lower() in _WANTED:
                        with archive.open(entry) as packed, out.open("wb") as target:
                            shutil.copyfileobj(packed, target)
                    found.append(_File(out, shown, shown if whole else file.owner))
                except Exception as error:  # A damaged zip raises what it likes, zlib.error for one.
                    left.append(LeftOut(str(shown), f"cannot be unpacked: {_line(error)}"))
    except Exception as error:
        left.append(LeftOut(str(file.shown), f"is no zip that can be opened: {_line(error)}"))
    return found


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _printable(path: PurePath) -> PurePosixPath:
    """A name that fits in a line and in UTF-8: names on disk may be of any bytes, Latin-1 for one."""
    parts = [decoded(part.encode("utf-8", "surrogateescape")) for part in path.parts]
    return PurePosixPath(*("".join(c if c.isprintable() else "_" for c in part) for part in parts))


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


def _read(file: _File) -> tuple[Handed | None, str, str]:
    """The notebook, or why it cannot be read, or why it is nobody's work."""
    name = file.shown.name
    if name == TIMESTAMP:
        return None, "", "holds no date and time, and is not taken into account"
    if name.startswith("._") or _NOISE & set(file.shown.parts):
        return None, "", "is no one's work"
    suffix = file.shown.suffix.lower()
    if suffix not in (".ipynb", ".json"):
        return None, "", "is no notebook (.ipynb)" + ", but a zip in a student's zip" * (suffix == ".zip")
    try:
        return read_handed(file.path), "", ""
    except ValueError as error:
        return None, str(error), "" if suffix == ".ipynb" else str(error)


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
