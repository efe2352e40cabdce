"""The folder of a course: what is in it, what was changed by hand, and how new things get there.

A small hidden file keeps a hash of all that labkit wrote. Only what still has that hash may be replaced.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from labkit.classroom.course_texts import CONFIG, readme
from labkit.classroom.grading.book import Book

__all__ = ["changed", "check_folder", "generate", "move", "notebook_path", "stage"]

RECORD = ".labkit.json"
GRADEBOOK = "gradebook.db"


def notebook_path(folder: Path, part: str, name: str) -> Path:
    """The notebook of an assignment in `source` or `release`."""
    return folder / part / name / f"{name}.ipynb"


def check_folder(out: Path) -> dict[str, str]:
    """What labkit wrote into a course, path -> hash; empty for a new one.

    Raises:
        ValueError: it is a file, or a folder that holds something else.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out: {out} is a file; it takes a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / "nbgrader_config.py").is_file():
        raise ValueError(f"--out: {out} is not empty and no course: it has no nbgrader_config.py")
    try:
        written = dict(json.loads((out / RECORD).read_text(encoding="utf-8"))["written"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {str(path): str(mark) for path, mark in written.items()}


def changed(out: Path, name: str, record: Mapping[str, str]) -> list[Path]:
    """What was changed by hand in source and release of an assignment; running a notebook changes nothing."""
    paths = [notebook_path(out, "source", name), *_files(out / "release" / name)]
    return [path for path in paths if path.exists() and _hash(path) != record.get(_key(path, out))]


def stage(
    staging: Path, out: Path, sources: Mapping[str, NotebookNode], record: Mapping[str, str]
) -> list[str]:
    """Lays out the course as it will be, without what nbgrader makes; returns the files kept as they were."""
    staging.mkdir()
    there = {path.name for path in (out / "source").glob("*") if path.is_dir()}
    texts = {"nbgrader_config.py": CONFIG, "README.md": readme(sorted(there | set(sources)))}
    kept = []
    for file, text in texts.items():
        if (out / file).exists() and _hash(out / file) != record.get(file):
            shutil.copy2(out / file, staging / file)
            kept.append(file)
        else:
            (staging / file).write_text(text, encoding="utf-8")
    for name, notebook in sources.items():
        path = notebook_path(staging, "source", name)
        if (
            out / "source" / name
        ).is_dir():  # With the files that the instructor has put beside the notebook.
            shutil.copytree(out / "source" / name, path.parent)
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.validate(notebook)
        path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    return kept


def generate(staging: Path, out: Path, names: Sequence[str]) -> Book:
    """Has nbgrader make `release` and write the cells into a copy of the gradebook, and returns that.

    Raises:
        ValueError: nbgrader refuses; the message has its last words.
    """
    if (out / GRADEBOOK).exists():
        (staging / GRADEBOOK).unlink(missing_ok=True)
        with (
            closing(sqlite3.connect(out / GRADEBOOK)) as old,
            closing(sqlite3.connect(staging / GRADEBOOK)) as new,
        ):
            old.backup(new)
    book = Book(staging, f"sqlite:///{staging / GRADEBOOK}")
    for name in names:
        book.generate(name)
    return book


def move(staging: Path, out: Path, names: Sequence[str], aside: Sequence[str]) -> list[Path]:
    """Puts the staged course in place: all of it, or nothing.

    Args:
        staging: see `stage`.
        out: the course.
        names: the assignments that were staged.
        aside: those of which the old files are to be kept, in `replaced/`.

    Returns:
        where the old files are.
    """
    record = check_folder(out)
    made = [staging / "nbgrader_config.py", staging / "README.md"]
    for name in names:
        made += [notebook_path(staging, "source", name), *_files(staging / "release" / name)]
    for path in made:
        if (
            path.parent != staging
            or not (out / path.name).exists()
            or _hash(out / path.name) == record.get(path.name)
        ):
            record[_key(path, staging)] = _hash(path)
    (staging / RECORD).write_text(json.dumps({"written": record}, indent=1) + "\n", encoding="utf-8")
    saved = []
    for name in aside:
        number = next(n for n in range(1, 10_000) if not (out / "replaced" / f"{name}-{n}").exists())
        place = out / "replaced" / f"{name}-{number}"
        for part in ("source", "release"):
            if (out / part / name).is_dir():
                shutil.copytree(out / part / name, place / part)
        saved.append(place)
    files = ["nbgrader_config.py", "README.md", GRADEBOOK, RECORD]
    places = [*files, *(f"{part}/{name}" for name in names for part in ("source", "release"))]
    _exchange([(staging / place, out / place) for place in places], staging.parent / "old")
    return saved


def _exchange(pairs: Sequence[tuple[Path, Path]], old: Path) -> None:
    """Moves files and folders to their places; puts everything back if one of them fails."""
    old.mkdir()
    undo: list[tuple[Path, Path]] = []
    try:
        for number, (new, place) in enumerate(pairs):
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.exists():
                os.rename(place, old / str(number))
                undo.append((old / str(number), place))
            os.rename(new, place)
            undo.append((place, new))
    except BaseException:
        for where, back in undo[::-1]:
            os.rename(where, back)
        raise


def _files(folder: Path) -> Iterator[Path]:
    return (
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".ipynb_checkpoints" not in path.parts
    )


def _key(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _hash(path: Path) -> str:
    """Of a file; of a notebook, what its cells say. Empty where there is nothing."""
    if not path.exists():
        return ""
    content = path.read_bytes()
    if path.suffix == ".ipynb":
        try:
            cells = nbformat.reads(content.decode(), as_version=4).cells
        except Exception:  # Cut short, or no notebook: then its bytes are what it says.
            return hashlib.sha256(content).hexdigest()
        told = [[c.cell_type, c.source, [c.metadata.get(k) for k in ("tags", "nbgrader")]] for c in cells]
        content = json.dumps(told, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()
