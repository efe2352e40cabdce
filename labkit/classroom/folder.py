"""The folder a person works in: `labkit get` fills it, `labkit lab` opens it.

A small hidden file in it keeps a mark of every notebook as `get` wrote it, made of its cells and outputs.
Only a notebook that still has that mark may be replaced: one that was edited, or merely run, is the person's.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.notebooks import find_checkout, find_folder, find_notebook, notebook_paths

NAME = "labkit-notebooks"
RECORD = ".labkit-notebooks.json"
START = "00_start_here"


@dataclass(frozen=True)
class Copied:
    """What `get` did, in names of notebooks.

    Attributes:
        folder: where to.
        written: new, or newer than what `get` had written there before.
        same: there already, exactly so.
        kept: there already and different: a person's work, or something else of that name.
    """

    folder: Path
    written: tuple[str, ...]
    same: tuple[str, ...]
    kept: tuple[str, ...]


def get(folder: Path, *, only: str | None = None, solutions: bool = False) -> Copied:
    """Copies the notebooks into a folder, as students get them, and leaves a person's work as it is.

    Args:
        folder: where to; made where it is missing.
        only: a notebook's number or name; all of them when left out.
        solutions: the full notebooks, with the solutions and the tests of all exercises.

    Returns:
        Copied: what was written, and what was left as it is.

    Raises:
        ValueError: there is no such notebook; or the folder is a file, lies inside a checkout, or cannot be
            written. Nothing is written then.
    """
    folder = folder.expanduser().resolve()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; name a folder")
    checkout = find_checkout(folder)
    if checkout is not None:
        raise ValueError(
            f"{folder} lies inside the checkout {checkout}, which has the notebooks: `labkit lab` opens them "
            "there; or name a folder outside"
        )
    paths = notebook_paths() if only is None else [find_notebook(only.removesuffix(".ipynb"))]
    contents = {path.name: _content(path, solutions) for path in paths}
    before = _record(folder)
    written, same, kept = [], [], []
    for name, content in contents.items():
        there = _mark_of(folder / name)
        if there == _mark(content):
            same.append(name)
        elif there is None or there == before.get(name):
            written.append(name)
        else:
            kept.append(name)
    record = before | {name: _mark(contents[name]) for name in (*written, *same)}
    files = {name: contents[name] for name in written}
    files[RECORD] = (json.dumps({"notebooks": record}, indent=1) + "\n").encode()
    try:
        if written or record != before:
            _write_together(folder, files)
    except OSError as error:
        raise ValueError(f"{folder} cannot be written: {error.strerror or error}") from error
    return Copied(folder, tuple(written), tuple(same), tuple(kept))


def find_copies(start: Path) -> Path | None:
    """The folder filled by `get` that a path lies in, or the one that lies in it; None if there is none.

    Args:
        start: a path in the folder, above it, or the folder.

    Returns:
        The folder, or None.

    Raises:
        ValueError: several lie in it.
    """
    for folder in (start, *start.parents, start / NAME):
        if (folder / RECORD).is_file():
            return folder
    below = sorted(record.parent for record in start.glob(f"*/{RECORD}"))
    if len(below) > 1:
        names = ", ".join(folder.name for folder in below)
        raise ValueError(f"there are notebooks in {names}; go into one of these folders, or name it")
    return below[0] if below else None


def place_to_open(wanted: str | None, start: Path) -> tuple[Path, Path | None, Copied | None]:
    """What `labkit lab` opens.

    Args:
        wanted: a notebook's number, name or path, or a folder; None for the first notebook.
        start: the current folder.

    Returns:
        the folder, the notebook in it (None where there is no `00_start_here`), and what had to be copied.

    Raises:
        ValueError: there is no such notebook, or no single folder to look in; nothing is copied then.
    """
    if wanted is not None and Path(wanted).is_dir():
        folder = Path(wanted).resolve()
        return folder, _first(folder), None
    if wanted is not None and wanted.endswith(".ipynb") and Path(wanted).is_file():
        return Path(wanted).resolve().parent, Path(wanted).resolve(), None
    start = start.resolve()
    checkout = find_checkout(start)
    place = find_copies(start) if checkout is None else checkout / "notebooks"
    full = find_folder()
    if place is None and find_checkout(full) == full.parent:  # Installed from a checkout that lies elsewhere.
        place = full
    if place is not None:
        return place, _first(place) if wanted is None else find_notebook(wanted, place), None
    found = None if wanted is None else find_notebook(wanted, full)
    copied = get(start / NAME)
    return copied.folder, _first(copied.folder) if found is None else copied.folder / found.name, copied


def _first(folder: Path) -> Path | None:
    path = folder / f"{START}.ipynb"
    return path if path.is_file() else None


def _content(path: Path, solutions: bool) -> bytes:
    if solutions:
        return path.read_bytes()
    import nbformat

    from labkit.classroom.cells import tags
    from labkit.classroom.student import student_version

    notebook = nbformat.read(path, as_version=4)
    if not any("exercises-setup" in tags(cell) for cell in notebook.cells):  # Such as 00_start_here.
        return path.read_bytes()
    return (nbformat.writes(student_version(notebook, checks=True)) + "\n").encode()


def _mark(content: bytes) -> str:
    """A hash of cells and outputs; to open a notebook in JupyterLab changes its layout and metadata alone."""
    wanted = ("cell_type", "source", "outputs", "attachments")
    with suppress(ValueError, KeyError, TypeError, AttributeError):  # Else each byte of it counts.
        told = [[_joined(cell.get(key)) for key in wanted] for cell in json.loads(content)["cells"]]
        content = json.dumps(told, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()


def _joined(value: Any) -> Any:
    """JSON of a notebook, with texts in one piece, however they were cut into lines."""
    if isinstance(value, dict):
        return {key: _joined(entry) for key, entry in value.items()}
    if isinstance(value, list):
        texts = all(isinstance(entry, str) for entry in value)
        return "".join(value) if value and texts else [_joined(entry) for entry in value]
    return value


def _mark_of(path: Path) -> str | None:
    """The mark of a file; None where there is nothing, and "" for a folder or a link."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        return ""
    return _mark(path.read_bytes()) if path.exists() else None


def _record(folder: Path) -> dict[str, str]:
    """Name -> mark as `get` last wrote it; empty where nothing can be read, so that everything is kept."""
    try:
        notebooks = dict(json.loads((folder / RECORD).read_text(encoding="utf-8"))["notebooks"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {str(name): mark for name, mark in notebooks.items() if isinstance(mark, str)}


def _write_together(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes all files beside their places first, so that a full disk or an interruption leaves none."""
    new = not folder.exists()
    if new:
        folder.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex[:8]
    staging = folder.with_name(f".{folder.name}.{mark}.part") if new else folder / f".{mark}.part"
    try:
        staging.mkdir()
        for name, content in files.items():
            (staging / name).write_bytes(content)
        if new:
            os.rename(staging, folder)
        else:
            for name in files:
                os.replace(staging / name, folder / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
