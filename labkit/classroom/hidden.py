"""The hidden tests of an exercise as one function that stands alone.

    def tests_5_1():
        import torch                      # the imports of the setup
        ...
        def check_confusion(confusion): ...
        return check_confusion            # or, for a prediction, `allowed, provable`

No name from outside reaches it, so it can stand below whatever a student has written.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from labkit.classroom.cells import Exercise, Sheet, last_call, parse, read_sheet
from labkit.classroom.student import indented

__all__ = ["carried_tests", "tests_function"]


def tests_function(notebook: NotebookNode, sheet: Sheet, exercise: Exercise) -> str:
    """The source of the function ``tests_5_1`` of an exercise with tests.

    Raises:
        ValueError: the cells cannot stand in a function, such as a setup with `from x import *`.
    """
    tag = f"tests-{exercise.name}"
    assert exercise.tests is not None
    tree = parse(notebook, exercise.tests, tag)
    call = last_call(tree)
    assert call is not None
    lines = notebook.cells[exercise.tests].source.split("\n")
    body = "\n".join(lines[: call.lineno - 1]).rstrip()
    setup = parse(notebook, sheet.setup, "exercises-setup")
    parts = [_used(setup, notebook.cells[exercise.tests].source)]
    if exercise.kind == "prediction":  # The items as they were asked for, whatever became of the dict.
        stub = parse(notebook, exercise.cell, f"exercise-{exercise.name}")
        parts.append(f"prediction = dict.fromkeys({_items(stub, exercise.name)!r})")
        returned = ", ".join(ast.unparse(node) for node in call.args[2:])
    else:
        returned = ast.unparse(call.args[1])
    parts += [body, f"return {returned}"]
    text = "\n\n".join(indented_part(part) for part in parts if part)
    source = f"def {function_name(exercise)}():\n{text}"
    try:
        compile(source, tag, "exec")
    except SyntaxError as error:
        raise ValueError(
            f"{tag} cannot stand in a function: {error.msg}: {error.text or ''}".rstrip(": ")
        ) from None
    return source


def function_name(exercise: Exercise) -> str:
    """What the tests of an exercise are called: tests_5_2a."""
    return f"tests_{exercise.name.replace('.', '_')}"


def carried_tests(name: str) -> Callable[[], Any]:
    """The function of the tests of an exercise, from the notebooks that come with labkit.

    Args:
        name: "5.1"; the number before the dot is the notebook's.

    Raises:
        ValueError: there is no such notebook, or no such exercise with tests in it.
    """
    from labkit.notebooks import find_folder, notebook_paths

    number = name.partition(".")[0]
    paths = [path for path in notebook_paths(find_folder()) if path.stem.split("_")[0] == number.zfill(2)]
    if not paths:
        raise ValueError(f"no notebook {number} comes with labkit")
    sources = _sources(paths[0])
    if name not in sources:
        raise ValueError(f"{name} is no exercise with tests; there is {', '.join(sources)}")
    function, source = sources[name]
    namespace: dict[str, Any] = {}
    exec(compile(source, f"<tests of {name}>", "exec", dont_inherit=True), namespace)
    return namespace[function]


@lru_cache(maxsize=2)
def _sources(path: Path) -> dict[str, tuple[str, str]]:
    """Exercise -> name and source of the function of its tests."""
    notebook = nbformat.read(path, as_version=4)
    sheet = read_sheet(notebook)
    return {
        exercise.name: (function_name(exercise), tests_function(notebook, sheet, exercise))
        for exercise in sheet.exercises
        if exercise.tests is not None
    }


def indented_part(source: str) -> str:
    """A part of the body: its `return` is none of Python's at the top level, so it is indented apart."""
    return "    " + source if source.startswith("return ") else indented(source)


def _used(setup: ast.Module, source: str) -> str:
    """The setup, without the imports that the tests have no use for."""
    kept: list[str] = []
    imports = (ast.Import, ast.ImportFrom)
    rest = "\n".join(ast.unparse(node) for node in setup.body if not isinstance(node, imports))
    for node in setup.body:
        if isinstance(node, imports):
            node.names = [alias for alias in node.names if _is_used(alias, source + rest)]
            if not node.names:
                continue
        kept.append(ast.unparse(node))
    return "\n".join(kept)


def _is_used(alias: ast.alias, source: str) -> bool:
    name = alias.asname or alias.name.partition(".")[0]
    return name == "*" or re.search(rf"\b{re.escape(name)}\b", source) is not None


def _items(tree: ast.Module, name: str) -> list[str]:
    for node in tree.body:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        if node.targets[0].id == "prediction" and isinstance(node.value, ast.Dict):
            keys = [key.value for key in node.value.keys if isinstance(key, ast.Constant)]
            if len(keys) == len(node.value.keys):
                return [str(key) for key in keys]
    raise ValueError(f"exercise-{name} must assign the dict `prediction`, with a key for each item")
