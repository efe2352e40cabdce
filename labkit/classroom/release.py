"""`labkit assignment release`: a course folder for nbgrader, checked before any of it is written.

Everything is made in a folder beside the course, looked through for solutions and hidden tests, executed,
and moved into place at the end. A second release into a course adds or renews its assignments; the
gradebook with all its scores stays, and so does every file that was changed by hand.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from labkit.classroom import course
from labkit.classroom.cells import Sheet, read_sheet
from labkit.classroom.grading.book import Book
from labkit.classroom.grading.one import Grader, Limits
from labkit.classroom.grading.runner import Runner
from labkit.classroom.instructor import instructor_version
from labkit.classroom.leaks import Secret, find_leaks, secrets
from labkit.classroom.student import student_version
from labkit.classroom.trial import try_students

__all__ = ["Released", "read_notebook", "release"]


@dataclass(frozen=True)
class Released:
    """What a release did.

    Attributes:
        folder: the course.
        points: name of each assignment -> its points.
        kept: files of the course that were changed by hand, and left alone.
        saved: where `force` has put what it replaced.
    """

    folder: Path
    points: Mapping[str, int]
    kept: tuple[str, ...]
    saved: tuple[Path, ...]


@dataclass(frozen=True)
class _Assignment:
    name: str
    notebook: NotebookNode
    sheet: Sheet
    source: NotebookNode
    secrets: list[Secret]


def release(
    notebooks: Sequence[str],
    out: Path,
    *,
    execute: bool = True,
    force: bool = False,
    progress: Callable[[float, str], None] = lambda share, name: None,
) -> Released:
    """Makes the students' version of notebooks, and the course around it.

    Args:
        notebooks: each a number, a name or a path of an .ipynb or .py with tagged cells.
        out: the folder of the course, new or made by an earlier release.
        execute: whether solutions and students' versions are run first, which takes as long as the notebooks.
        force: whether what was changed by hand in the course may be replaced; it is put aside, not lost.
        progress: called with the share done, 0 to 1, and what is being done.

    Returns:
        Released: what was written and what was put aside.

    Raises:
        ValueError: a notebook is malformed, a solution or test shows, the students' version ends in an error,
            a source was changed by hand, or nbgrader is missing or refuses. Nothing is written then.
    """
    if importlib.util.find_spec("nbgrader") is None:
        raise ValueError("a release needs nbgrader: `python -m pip install 'labkit[course]'` adds it")
    assignments = [_read(word) for word in notebooks]
    names = [assignment.name for assignment in assignments]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"NOTEBOOK: {twice.pop()} is named twice")
    out = out.expanduser().resolve()
    record = course.check_folder(out)
    changed = [path for name in names for path in course.changed(out, name, record)]
    if changed and not force:
        raise ValueError(
            f"{changed[0]} was changed by hand since labkit wrote it; --force replaces it and puts it aside, "
            "and nbgrader's own generate_assignment releases a source as it is"
        )
    for a in assignments:  # At once; what nbgrader makes of it is looked through as well.
        _refuse(find_leaks(student_version(a.notebook, checks=False), a.secrets), a.name)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        staging = Path(temporary) / out.name
        kept = course.stage(staging, out, {a.name: a.source for a in assignments}, record)
        book = course.generate(staging, out, names)
        for assignment in assignments:
            _look_through(staging / "release" / assignment.name, assignment)
        if execute:
            _execute(book, assignments, Path(temporary), progress)
            course.generate(staging, out, names)  # Somebody may have graded while the notebooks ran.
        saved = course.move(staging, out, names, aside=sorted({path.parent.name for path in changed}))
    points = {assignment.name: assignment.sheet.points for assignment in assignments}
    return Released(out, points, tuple(kept), tuple(saved))


def read_notebook(path: Path) -> NotebookNode:
    """A notebook from an .ipynb, or from a .py with the outputs of the .ipynb beside it.

    Args:
        path: of an .ipynb, or of a .py in py:percent form.

    Returns:
        The notebook, of nbformat 4.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        if path.suffix == ".ipynb":
            return nbformat.read(path, as_version=4)
        import jupytext
        from jupytext.combine import combine_inputs_with_outputs

        notebook = jupytext.read(path)
        beside = path.with_suffix(".ipynb")
        if beside.is_file():
            notebook = combine_inputs_with_outputs(
                notebook, nbformat.read(beside, as_version=4), fmt="py:percent"
            )
        else:
            for place, cell in enumerate(notebook.cells):  # jupytext draws them at random.
                cell["id"] = hashlib.sha256(f"{place} {cell.source}".encode()).hexdigest()[:8]
        notebook.nbformat, notebook.nbformat_minor = 4, 5
        return notebook
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"{path} cannot be read as a notebook: {error or type(error).__name__}") from None


def _read(word: str) -> _Assignment:
    from labkit.notebooks import find_notebook

    path = Path(word).expanduser()
    if path.suffix not in (".py", ".ipynb") or not path.is_file():
        path = find_notebook(word)
    name = path.stem
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ValueError(
            f"NOTEBOOK: {name!r} names an assignment, which takes letters, digits, _ and - alone"
        )
    notebook = read_notebook(path)
    try:
        sheet = read_sheet(notebook)
        return _Assignment(
            name, notebook, sheet, instructor_version(notebook, name), secrets(notebook, sheet)
        )
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None


def _look_through(folder: Path, assignment: _Assignment) -> None:
    """Refuses a release of which any file shows a solution or a hidden test, also as jupytext writes it."""
    known = assignment.secrets
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.suffix == ".ipynb":
            import jupytext

            notebook = nbformat.read(path, as_version=4)
            leaks = find_leaks(notebook, known) or find_leaks(jupytext.writes(notebook, "py:percent"), known)
            if "jupytext" in notebook.metadata:
                leaks.append("its metadata pair it with a .py, which may bring the solutions back")
        else:
            leaks = find_leaks(path.read_text(encoding="utf-8", errors="replace"), known)
        _refuse(leaks, str(path.relative_to(folder.parent)))


def _refuse(leaks: list[str], where: str) -> None:
    if leaks:
        more = f", and {len(leaks) - 1} more" if len(leaks) > 1 else ""
        raise ValueError(f"not released: in {where}, {leaks[0]}{more}")


def _execute(
    book: Book, assignments: Sequence[_Assignment], scratch: Path, progress: Callable[[float, str], None]
) -> None:
    """Refuses solutions that do not get their points, and students' versions that end in an error."""
    for number, name in enumerate(assignment.name for assignment in assignments):

        def told(share: float, number: int = number, name: str = name) -> None:
            progress((number + share) / len(assignments), f"all of {name} as students get it")

        progress(number / len(assignments), f"solutions of {name}")
        try:
            with Runner() as runner:
                Grader(book, book.load(name), scratch / "trial", Limits(), again=True).try_solutions(runner)
            path = course.notebook_path(book.course, "release", name)
            try_students(nbformat.read(path, as_version=4), scratch, told)
        except ValueError as error:
            raise ValueError(f"not released: {name}: {error}") from None
