"""Keeping the notebooks true: each is a pair of files that agree, executed since its code last changed.

    python -m labkit.notebooks check   [PATH ...]    says what is wrong; exit code 1 if anything is
    python -m labkit.notebooks sync    [PATH ...]    brings the older half of each pair up to the newer
    python -m labkit.notebooks execute [PATH ...]    syncs, then executes what is stale (all with --force)

A picture in an output cannot be compared with a new one, so staleness is told from the code: executing stores
a hash of the code cells in the notebook's metadata; a notebook whose cells hash to something else is stale.
Outputs hold no widget state: with it, GitHub and nbviewer show an error where the picture should be.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MAX_BYTES = 3 * 2**20
_FORMAT = "py:percent"
# Constant, so that executing with another Python or another kernel version changes no metadata.
_KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
_LANGUAGE = {
    "file_extension": ".py", "mimetype": "text/x-python", "name": "python", "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}  # fmt: skip


# Where an installed package carries the notebooks; see the table of the wheel in pyproject.toml.
CARRIED = Path(__file__).resolve().parent / "_notebooks"


def find_checkout(start: Path) -> Path | None:
    """The checkout of labkit that a path lies in, or None."""
    start = start.resolve()
    marks = ("jupytext.toml", "notebooks", "labkit/notebooks.py")
    found = (folder for folder in (start, *start.parents) if all((folder / mark).exists() for mark in marks))
    return next(found, None)


def find_folder() -> Path:
    """The folder of the full notebooks, those with the solutions.

    A checkout's: the one that this package runs from, or the one around the current folder. Else the copy
    that an installed package carries.

    Raises:
        ValueError: there is none.
    """
    beside = Path(__file__).resolve().parent.parent
    for start in (beside, Path.cwd()):
        checkout = find_checkout(start)
        if checkout is not None and (start != beside or checkout == beside):  # No checkout around a .venv.
            return checkout / "notebooks"
    if CARRIED.is_dir():
        return CARRIED
    raise ValueError(f"there are no notebooks in {beside} nor in {CARRIED}; reinstall labkit")


def notebook_paths(folder: Path | None = None) -> list[Path]:
    """The notebooks of a folder, in order."""
    return sorted((find_folder() if folder is None else folder).glob("*.ipynb"))


def find_notebook(wanted: str, folder: Path | None = None) -> Path:
    """A notebook by number ("4"), name ("jacobian", "04_jacobian") or path.

    Args:
        wanted: number, name or path.
        folder: where to look for numbers and names (default: `find_folder`).

    Raises:
        ValueError: none matches, or several do.
    """
    as_path = Path(wanted)
    if as_path.suffix == ".ipynb" and as_path.is_file():
        return as_path.resolve()
    folder = find_folder() if folder is None else folder
    paths = notebook_paths(folder)
    name = wanted.lower().removesuffix(".ipynb").removesuffix(".py")
    if name.isdigit():
        found = [path for path in paths if path.stem.split("_")[0] == f"{int(name):02d}"]
    else:
        exact = [path for path in paths if name in (path.stem.lower(), path.stem.lower().partition("_")[2])]
        found = exact or [path for path in paths if name in path.stem.lower()]
    if len(found) == 1:
        return found[0]
    known = ", ".join(path.stem for path in (found or paths)) or f"none in {folder}"
    raise ValueError(
        f"{'several notebooks match' if found else 'there is no notebook'} {wanted!r}; there is {known}"
    )


def code_hash(notebook: Any) -> str:
    """A hash of the code cells; text, outputs and trailing blanks do not count."""
    cells = [cell.source.rstrip() for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()[:16]


def problems(path: Path) -> list[str]:
    """What is wrong with a notebook, each with the command that mends it; empty if nothing is."""
    notebook = _read(path)
    command = f"python -m labkit.notebooks {{}} {path.name}"
    found = []
    size = path.stat().st_size / 2**20
    if path.stat().st_size > MAX_BYTES:
        found.append(f"larger than {MAX_BYTES / 2**20:.0f} MB ({size:.1f}); draw smaller figures")
    if "widgets" in notebook.metadata:
        found.append(f"stores widget state; {command.format('execute --force')}")
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        found.append(f"names no kernel python3; {command.format('execute --force')}")
    if not path.with_suffix(".py").exists():
        found.append(f"has no .py half; {command.format('sync')}")
    elif difference := _difference(notebook, _read(path.with_suffix(".py"))):
        found.append(f"its halves differ: {difference}; {command.format('sync')}")
    if notebook.metadata.get("labkit", {}).get("executed") != code_hash(notebook):
        found.append(f"stale: not executed since its code changed; {command.format('execute')}")
    for index, cell in enumerate(notebook.cells):
        if "raises-exception" in cell.metadata.get("tags", []):
            continue
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                found.append(f"cell {index} ends in {output.ename}; mend it and {command.format('execute')}")
            elif output.output_type == "stream" and output.name == "stderr":
                found.append(
                    f"cell {index} writes to stderr: {output.text.strip()[:80]!r}; silence its cause"
                )
    return found


def sync(path: Path, source: str = "newer") -> Path | None:
    """Brings the two halves of a notebook together.

    Args:
        path: the .ipynb.
        source: the half to trust: "ipynb", "py", or "newer" by modification time.

    Returns:
        the file that was written, or None if the halves agreed.
    """
    import jupytext

    text_path = path.with_suffix(".py")
    if source == "newer":
        newer_text = text_path.exists() and (
            not path.exists() or text_path.stat().st_mtime_ns > path.stat().st_mtime_ns
        )
        source = "py" if newer_text else "ipynb"
    if path.exists() and text_path.exists() and not _difference(_read(path), _read(text_path)):
        return None
    if source == "ipynb":
        text_path.write_text(jupytext.writes(_read(path), _FORMAT, config=_config(path)), encoding="utf-8")
        return text_path
    from jupytext.combine import combine_inputs_with_outputs

    notebook = _read(text_path)
    if path.exists():  # Keeps the outputs and the ids of the cells that did not change.
        notebook = combine_inputs_with_outputs(notebook, _read(path), fmt=_FORMAT)
    _write(notebook, path)
    return path


def execute(path: Path, *, force: bool = False, timeout: int = 900) -> bool:
    """Syncs a notebook and executes it if it is stale; says whether it did.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed; nothing is written then.
    """
    sync(path)
    notebook = _read(path)
    fresh = notebook.metadata.get("labkit", {}).get("executed") == code_hash(notebook)
    if fresh and "widgets" not in notebook.metadata and not force:
        return False

    from nbclient import NotebookClient

    client = NotebookClient(
        notebook, timeout=timeout, kernel_name="python3", kernel_manager_class=this_environment(),
        store_widget_state=False, record_timing=False,
        resources={"metadata": {"path": str(path.resolve().parent)}},
    )  # fmt: skip
    client.execute()
    notebook.metadata["labkit"] = {"executed": code_hash(notebook)}
    notebook.metadata.pop("widgets", None)
    _drop_views(notebook)
    _write(notebook, path)
    return True


def _drop_views(notebook: Any) -> None:
    """Leaves a widget's picture and takes away its view:
    without the model behind it, JupyterLab shows an error.
    """
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.get("data", True)]


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m labkit.notebooks", description="Keep the notebooks true."
    )
    parser.add_argument("action", choices=("check", "sync", "execute"))
    parser.add_argument(
        "paths", nargs="*", type=str, metavar="PATH", help="a number, name or file; default: all"
    )
    parser.add_argument("--force", action="store_true", help="execute: also what is not stale")
    parser.add_argument("--from", dest="source", choices=("newer", "ipynb", "py"), default="newer",
                        help="sync: the half to trust (default: the newer file)")  # fmt: skip
    args = parser.parse_intermixed_args(argv)
    try:
        paths = [_resolve(text) for text in args.paths] if args.paths else _all_pairs(find_folder())
        if any(path.parent == CARRIED for path in paths):  # They are part of the installation.
            raise ValueError("run this inside a checkout of labkit, or name a file")
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    wrong = 0
    for path in paths:
        if args.action == "check":
            found = problems(path)
            wrong += len(found)
            print("\n".join(f"{path.name}: {problem}" for problem in found) or f"{path.name}: ok")
        elif args.action == "sync":
            written = sync(path, args.source)
            print(f"{path.name}: " + (f"wrote {written.name}" if written else "in step"))
        else:
            wrong += not _execute_and_say(path, args.force)
    return 1 if wrong else 0


def this_environment() -> type:
    """A kernel manager for which "python3" can only be this interpreter: it looks nowhere for others."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    class ThisEnvironment(AsyncKernelManager):
        def __init__(self, **options: Any) -> None:
            super().__init__(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), **options)

    return ThisEnvironment


def _execute_and_say(path: Path, force: bool) -> bool:
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    try:
        print(f"{path.name}: " + ("executed" if execute(path, force=force) else "fresh"), flush=True)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        print(f"{path.name}: nothing written\n{error}", file=sys.stderr)
        return False
    return True


def _resolve(text: str) -> Path:
    """A pair by either half, also where the .ipynb does not exist yet."""
    path = Path(text)
    if path.suffix in (".py", ".ipynb") and path.is_file():
        return path.resolve().with_suffix(".ipynb")
    return find_notebook(text)


def _all_pairs(folder: Path) -> list[Path]:
    return sorted(
        {path.with_suffix(".ipynb") for ending in ("*.ipynb", "*.py") for path in folder.glob(ending)}
    )


def _config(path: Path) -> Any:
    from jupytext.config import load_jupytext_config

    return load_jupytext_config(str(path.resolve()))


def _read(path: Path) -> Any:
    import jupytext

    return jupytext.read(path, config=_config(path))


def _write(notebook: Any, path: Path) -> None:
    import nbformat

    notebook.metadata["kernelspec"] = dict(_KERNEL)
    notebook.metadata["language_info"] = dict(_LANGUAGE)
    notebook.metadata.pop("jupytext", None)  # The configuration beside the notebooks says all of it.
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        cell.setdefault("id", hashlib.sha256(cell.source.encode()).hexdigest()[:8])
    nbformat.validate(notebook)
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


def _difference(notebook: Any, text: Any) -> str:
    """The first cell in which two halves differ, or nothing."""
    ours, theirs = (_compared(half) for half in (notebook, text))
    for index, (left, right) in enumerate(zip(ours, theirs, strict=False)):
        if left != right:
            return f"cell {index} ({left[1].splitlines()[0][:40] if left[1] else 'empty'!r})"
    return "" if len(ours) == len(theirs) else f"{len(ours)} cells in the .ipynb, {len(theirs)} in the .py"


def _compared(notebook: Any) -> list[tuple[str, str, Any]]:
    return [
        (cell.cell_type, cell.source.strip(), {k: cell.metadata.get(k) for k in ("tags", "nbgrader")})
        for cell in notebook.cells
    ]


if __name__ == "__main__":
    sys.exit(main())
