"""Who a file belongs to: told by a source that states it, never by what a name looks like.

    nbgrader      STUDENT/ASSIGNMENT/ASSIGNMENT.ipynb, under any folders
    Moodle        Name_1001_assignsubmission_file_/... (Moodle draws another id for each assignment)
    Canvas        lastfirst_[LATE_]12345_67890_name.ipynb
    Blackboard    homework_login_attempt_2026-05-04-13-37-00_name.ipynb
    Brightspace   12345-67890 - First Last - May 4, 2026 137 PM/...
    a pattern     of the lecturer's, with named groups as nbgrader's zip_collect has it
    a roster      of which a line names one student, however the files call him or her

The outermost part of a path that tells counts: students name what is below.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

LONGEST_NAME = 150  # bytes; file systems take 255, with a suffix
_STEPS = {"source", "release", "submitted", "submissions", "autograded", "feedback", "downloaded"}
_DATES = ("%b %d, %Y %I%M %p", "%B %d, %Y %I%M %p", "%d %B %Y %I%M %p", "%d %B, %Y %H%M")
_FOLDERS = {
    "Moodle": re.compile(r"(?P<name>.+?)_(?P<id>\d+)_assignsubmission_[a-z]+_.*"),
    "Brightspace": re.compile(r"(?P<id>\d+)-\d+ ?- (?P<name>.+?) ?- "
                              r"(?P<date>[^-]*\d{4},? \d{3,4}( [AP]M)?)(| - .*)"),
}  # fmt: skip
_FILES = {
    "Canvas": re.compile(r"(?P<name>.+?)_(LATE_)?(?P<id>[1-9]\d*)_(?P<number>[1-9]\d{2,})_.+"),
    "Blackboard": re.compile(r".+_(?P<id>[^_]+)_attempt_(?P<time>\d{4}(-\d\d){5})(_.*|\.\w+)"),
}


@dataclass(frozen=True)
class Owner:
    """Whose a file is.

    Attributes:
        student: the name in the gradebook.
        identity: what one person alone has: the source with its id, or the place of the folder.
        words: what the roster may know this person by.
        order: tells later attempts of one person from earlier ones; None where the source does not.
        nbgrader: whether the file lies in nbgrader's layout.
    """

    student: str
    identity: tuple[str, ...]
    words: tuple[str, ...]
    order: Any = None
    nbgrader: bool = False


class Sources:
    """What states whose a file is, for one class.

    Args:
        assignments: the names of the course's assignments.
        pattern: a regular expression for the beginning of a file's path in the folder of submissions, with
            the group `student_id` and perhaps `timestamp`; then nothing else tells.
        roster: a CSV with a head line. The first column is the name in the gradebook; every other holds
            something else that files may call this person by, such as the platform's id or the e-mail.

    Raises:
        ValueError: the pattern or the roster cannot be used.
    """

    def __init__(self, assignments: Collection[str], pattern: str = "", roster: Path | None = None) -> None:
        self.assignments = assignments
        self.students = read_roster(roster) if roster else {}
        self.rostered = roster is not None
        try:
            self._pattern = re.compile(pattern) if pattern else None
        except re.error as error:
            raise ValueError(f"--pattern is no regular expression: {error}") from None
        if self._pattern and "student_id" not in self._pattern.groupindex:
            raise ValueError(f"--pattern needs a group (?P<student_id>...), got {pattern!r}")

    def owner(self, path: PurePosixPath) -> Owner:
        """Whose a file is, by its path.

        Raises:
            ValueError: nothing states it.
        """
        told = self._matched(path) if self._pattern else stated(path, self.assignments)
        if self.rostered:
            told = self._on_roster(path, told)
        if told is None:
            raise ValueError("nothing states whose it is")
        name = clean_name(told.student)
        if not name:
            raise ValueError(f"{told.student!r} is no name for a student")
        return replace(told, student=name)

    def _matched(self, path: PurePosixPath) -> Owner:
        found = self._pattern.match(str(path)) if self._pattern else None
        student = found["student_id"] if found else None
        if found is None or not student:
            raise ValueError("--pattern does not match it")
        from nbgrader.utils import parse_utc

        time = found.groupdict().get("timestamp")
        try:
            return Owner(student, ("--pattern", student), (student,), parse_utc(time))
        except (ValueError, OverflowError):
            raise ValueError(f"the timestamp of --pattern is no time here: {time!r}") from None

    def _on_roster(self, path: PurePosixPath, told: Owner | None) -> Owner:
        words = told.words if told else (*path.parts[:-1], path.stem, *_without(path.stem, self.assignments))
        known = [self.students[folded(word)] for word in words if folded(word) in self.students]
        agreed = set.intersection(*known) if known else set()
        if len(agreed) != 1:
            several = ", ".join(sorted(set().union(*known)))
            many = f"several students ({several})" if several else "nobody"
            raise ValueError(f"the roster has {many} under {' or '.join(map(repr, words))}")
        (student,) = agreed
        return replace(told, student=student) if told else Owner(student, ("roster", str(path.parent)), words)


def stated(path: PurePosixPath, assignments: Collection[str]) -> Owner | None:
    """Whose a file is by nbgrader's layout or a platform's names; None where neither tells."""
    parts = path.parts
    for place, part in enumerate(parts):
        last = place + 1 == len(parts)
        for platform, pattern in (_FOLDERS | _FILES if last else _FOLDERS).items():
            if found := pattern.fullmatch(part):
                return _on_platform(platform, found.groupdict())
        if place + 2 < len(parts) and parts[place + 1] in assignments and part.lower() not in _STEPS:
            own = parts[place + 2 :] == (f"{parts[place + 1]}.ipynb",)
            return Owner(part, ("nbgrader", *parts[: place + 1]), (part,), own, nbgrader=True)
    return None


def _on_platform(platform: str, found: dict[str, str]) -> Owner:
    words = (found["id"], *([found["name"]] if "name" in found else []))
    order: Any = found.get("time") or (int(found["number"]) if "number" in found else None)
    for form in _DATES if "date" in found else ():
        try:
            order = datetime.strptime(found["date"], form)
        except ValueError:
            continue
    return Owner("_".join(reversed(words)), (platform, found["id"]), words, order)


def _without(stem: str, assignments: Collection[str]) -> list[str]:
    """A file's name without the assignment's, before or behind it."""
    names = "|".join(map(re.escape, assignments))
    found = re.fullmatch(rf"(?:({names})[ _.-]+)?(?P<rest>.+?)(?:[ _.-]+({names}))?", stem)
    return [found["rest"]] if found else []


def read_roster(path: Path) -> dict[str, set[str]]:
    """Everything that names a student -> the students whom it names, of whom there should be one.

    Raises:
        ValueError: there is no such table, or two lines begin with the same name.
    """
    try:
        text = decoded(path.read_bytes())
    except OSError as error:
        raise ValueError(f"--roster: {path} cannot be read: {error.strerror}") from None
    head = text.partition("\n")[0]
    rows = list(csv.reader(text.splitlines(), delimiter=max(",;\t", key=head.count)))[1:]
    found: dict[str, set[str]] = {}
    seen: set[str] = set()
    for row in rows:
        cells = [cell.strip() for cell in row if cell.strip()]
        if not cells:
            continue
        if not row[0].strip() or folded(clean_name(cells[0])) in seen:
            raise ValueError(f"--roster: {path} has no name of its own in the line {', '.join(cells)!r}")
        seen.add(folded(clean_name(cells[0])))
        numbers = re.findall(r"^[^\d\s]+ (\d+)$", cells[0])  # Moodle's worksheet: "Participant 1001".
        for word in (*cells, *numbers):
            found.setdefault(folded(word), set()).add(cells[0])
    if not found:
        raise ValueError(
            f"--roster: {path} has no student; it takes a head line, and a line for each student"
        )
    return found


def decoded(data: bytes) -> str:
    """Text as people save it: UTF-8, UTF-16 and UTF-32 with or without a mark, else Windows' Latin-1."""
    try:
        return data.decode(json.detect_encoding(data))
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def folded(name: str) -> str:
    """The same for names that a file system or a reader takes for one."""
    return unicodedata.normalize("NFC", name).casefold().strip()


def clean_name(name: str) -> str:
    """A student's name as gradebook and file system take it: umlauts and blanks stay, patterns go."""
    name = unicodedata.normalize("NFC", name)
    name = "".join("_" if char in '/\\:*?"<>|[]{}' or not char.isprintable() else char for char in name)
    name = name.strip(" .")
    if len(name.encode()) <= LONGEST_NAME:
        return name
    mark = hashlib.sha256(name.encode()).hexdigest()[:8]  # Two long names must not become one.
    return f"{name.encode()[: LONGEST_NAME - 9].decode(errors='ignore')}_{mark}"
