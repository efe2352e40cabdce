"""IPython's own shell, as it runs the cells of a submission: magics, `await`, `display` and all.

It differs from a notebook's where nobody is there to see or to answer: errors are kept and not printed,
`input()` says why it ends, and a command or magic that fails here leaves a line and stops nothing.
"""

from __future__ import annotations

import ast
import builtins
import getpass
import linecache
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from IPython.core.inputtransformer2 import leading_empty_lines
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display
from IPython.utils.text import SList
from traitlets.config import Config

LONGEST_TEXT = 2000  # characters of a message or of what a test prints
_CELL = "<cell "  # What the names of the cells' code begin with.
_DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom


class Shell(InteractiveShell):
    """A shell without history, whose cells are named by their numbers."""

    def __init__(self, **options: Any) -> None:
        quiet = Config(HistoryManager={"enabled": False}, InteractiveShell={"colors": "nocolor"})
        super().__init__(config=quiet, **options)
        self.cell = 0
        self.seen: BaseException | None = None
        self.compiled: dict[str, str] = {}
        self.compile.get_code_name = self._name  # type: ignore[method-assign]
        self.displayhook.write_output_prompt = lambda: None  # type: ignore[method-assign]
        vars(builtins).update(display=display, input=_no_input)
        getpass.getpass = _no_input

    def _name(self, raw_code: str, transformed_code: str, number: int) -> str:
        """A name for what is compiled: a cell, or what `%%capture` runs of it, which has other lines."""
        name = f"{_CELL}{self.cell}.{len(self.compiled)}>"
        self.compiled[name] = raw_code
        return name

    def run(self, number: int, source: str, definitions: bool = False) -> BaseException | None:
        """Runs a cell, or its functions, classes and imports alone, and returns what it raised."""
        self.cell, self.seen, self.compiled = number, None, {}
        self.ast_transformers = [_DefinitionsAlone()] if definitions else []
        try:
            result = self.run_cell(source)
        finally:  # As it was written, not as magics were translated.
            for name, written in self.compiled.items():
                lines = leading_empty_lines(written.splitlines(keepends=True))
                linecache.cache[name] = (len(written), None, lines, name)
        return result.error_before_exec or result.error_in_exec or self.seen

    def showtraceback(self, *_: Any, **__: Any) -> None:
        """Keeps the error: a magic such as `%%time` swallows it."""
        self.seen = sys.exc_info()[1]

    showsyntaxerror = showindentationerror = showtraceback

    def enable_gui(self, gui: str | None = None) -> None:
        """There is no window to draw in; `%matplotlib inline` asks for none."""

    def ask_exit(self) -> None:
        """`exit()` ends a person's session; the cells below it still count."""

    def run_line_magic(self, magic_name: str, line: str, _stack_depth: int = 1) -> Any:
        """A magic that is not installed here, or fails, is told; the lines below it still count."""
        try:
            return super().run_line_magic(magic_name, line, _stack_depth=_stack_depth + 1)
        except Exception as error:
            sys.stderr.write(f"%{magic_name} {line}: {told(error)}\n")
            return None

    def system(self, cmd: str) -> None:
        """Runs a command of the system."""
        self._refused(self.system_raw, cmd)

    def getoutput(self, cmd: str, *args: Any, **options: Any) -> Any:
        """What a command of the system prints."""
        return self._refused(super().getoutput, cmd, *args, **options)

    def _refused(self, call: Callable[..., Any], cmd: str, *args: Any, **options: Any) -> Any:
        try:
            return call(cmd, *args, **options)
        except OSError as error:
            self.user_ns["_exit_code"] = 126
            sys.stderr.write(f"!{cmd}: {error.strerror}: no command runs while work is graded\n")
            return SList()


class _DefinitionsAlone(ast.NodeTransformer):
    def visit_Module(self, node: ast.Module) -> ast.Module:
        node.body = [part for part in node.body if isinstance(part, _DEFINITIONS)]
        return node


def _no_input(prompt: object = "", *_: Any, **__: Any) -> str:
    raise EOFError("nobody is there to answer while work is graded")


def run_cells(job: Mapping[str, Any], progress: int) -> tuple[dict[str, Any], dict[int, str], dict[str, Any]]:
    """Runs the setup and the cells of a submission.

    Args:
        job: "setup" (source) and "cells", a list of (source, "whole" | "definitions" | "skip").
        progress: file descriptor; gets a line with the number of each cell when it begins, and one more.

    Returns:
        The names that are then defined, what those cells that raised said, and Python's own functions.
    """
    shell = Shell.instance()
    errors: dict[int, str] = {}
    originals = dict(vars(builtins))
    for number, (source, how) in enumerate([(job["setup"], "whole"), *job["cells"]]):
        os.write(progress, b"%d\n" % number)
        if how == "skip":
            continue
        try:
            error = shell.run(number, source, how == "definitions")
        except BaseException as raised:  # Of the shell itself, once a cell has taken its tools away.
            restore(originals)
            error = raised if _line(raised) else None
        restore(originals)
        if error is not None:
            errors[number] = told(error)
    os.write(progress, b"%d\n" % (len(job["cells"]) + 1))
    return shell.user_ns, errors, originals


def restore(originals: dict[str, Any]) -> None:
    """Puts back Python's own functions; redefined ones would break the reply, and cost every exercise."""
    vars(builtins).update(originals)


def described(error: BaseException) -> dict[str, Any]:
    """What the checker needs to raise an error of the same kind, and the student's line that raised it."""
    single = error.args[0] if len(error.args) == 1 and isinstance(error.args[0], str) else str(error)
    kinds = [cls.__name__ for cls in type(error).__mro__]
    if isinstance(error, MemoryError) or "can't allocate memory" in single:
        kinds, single = ["MemoryError"], "it asks for more memory than is allowed"
    return {"kinds": kinds, "args": bool(single), "message": single[:LONGEST_TEXT], "line": _line(error)}


def told(error: BaseException) -> str:
    """An error in one line."""
    lines = str(error.msg if isinstance(error, SyntaxError) else error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(": ")
    line = _line(error)
    return (text + (f", at `{line}`" if line else ""))[:LONGEST_TEXT]


def _line(error: BaseException) -> str:
    """The line of the student's that raised it; empty where none did."""
    if isinstance(error, SyntaxError):
        return (error.text or "").strip()[:200]
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(_CELL)]
    line = linecache.getline(frames[-1].filename, frames[-1].lineno or 0).strip()[:200] if frames else ""
    return "" if line.startswith("%%") else line  # The cell's own lines are behind it.
