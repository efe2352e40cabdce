"""The two processes of one exercise: the student's runs the cells, the checker's runs the hidden tests.

The checker's never runs a line of the student's. It calls the answer from afar, on copies of the inputs, and
compares what comes back; so nothing that submitted code redefines, be it `print`, `torch.allclose` or the
builtins, reaches a comparison, and no hidden test or solution is in the memory of the student's process.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import io
import json
import linecache
import os
import pickle
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

import torch

from labkit.classroom.exercises import Frugal
from labkit.classroom.grading.shell import LONGEST_TEXT, described, restore, run_cells
from labkit.classroom.grading.wire import (
    Gone,
    Unreadable,
    assign,
    fingerprint,
    pack,
    pickled,
    receive,
    unpack,
)

# --- the student's side -------------------------------------------------------


def student_side(job: Mapping[str, Any], wire: Connection, progress: int) -> None:
    """Runs the setup and the cells, says where it is, and then answers the checker's calls until it ends.

    Args:
        job, progress: see `run_cells`.
        wire: to the checker's side.
    """
    namespace, errors, originals = run_cells(job, progress)
    names = [name for name in namespace if isinstance(name, str) and not name.startswith("_")]
    _serve(wire, namespace, {"names": names, "errors": errors}, originals)


def _serve(
    wire: Connection, namespace: dict[str, Any], greeting: dict[str, Any], originals: dict[str, Any]
) -> None:
    kept: list[Any] = []

    def keep(function: Any) -> int:
        kept.append(function)
        return len(kept) - 1

    wire.send_bytes(pack(greeting))
    while True:
        request = pickle.loads(receive(wire))
        if request[0] == "get":
            wire.send_bytes(pack({"value": namespace.get(request[1])}, keep))
            continue
        _, number, args, kwargs, limits = request
        before = fingerprint((args, kwargs))
        frugal = Frugal(*limits) if limits else None
        try:
            with frugal or contextlib.nullcontext():
                value = kept[number](*args, **kwargs)
            reply = {"value": value}
        except BaseException as error:
            restore(originals)
            reply = {"error": described(error)}
        restore(originals)
        if fingerprint((args, kwargs)) != before or any(
            isinstance(a, torch.Generator) for a in _flat(args, kwargs)
        ):
            reply["inputs"] = [args, kwargs]
            reply["generators"] = [
                a.get_state() for a in _flat(args, kwargs) if isinstance(a, torch.Generator)
            ]
        reply["made"] = frugal.made if frugal else 0
        try:
            frame = pack(reply, keep)
        except Exception as error:  # A tensor that cannot be read, a number beyond all bounds.
            frame = pack({"error": described(error)})
        wire.send_bytes(frame)


def _flat(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
    return [*args, *kwargs.values()]


# --- the checker's side -------------------------------------------------------


def checker_side(job: Mapping[str, Any], wire: Connection, result: int) -> None:
    """Runs the hidden tests against the answer at the other end of the wire, and writes what they say.

    Args:
        job: "tests" (source) and "names", those that the tests may take from the student.
        wire: to the student's side.
        result: file descriptor, for a JSON object: "state" is "done", "gone" (the student's
            side ended) or "unreadable"; "points" a number or None; "printed", "error", "errors", "missing".
    """
    said: dict[str, Any] = {"state": "gone", "points": None, "printed": "", "error": "", "missing": []}
    printed = _Short()
    try:
        greeting = unpack(receive(wire, 2**20))
        known, errors = set(greeting["names"]), greeting["errors"]
        said["errors"] = {str(number): str(text)[:LONGEST_TEXT] for number, text in errors.items()}
        said["missing"] = [name for name in job["names"] if name not in known]
        far = _Far(wire)
        namespace: dict[str, Any] = {"__name__": "__main__"}
        namespace |= {name: far.get(name) for name in job["names"] if name in known}
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
            said |= _run_tests(job["tests"], namespace)
    except Gone:
        said |= {"state": "gone", "points": None}
    except Unreadable as error:
        said |= {"state": "unreadable", "points": None, "error": str(error)[:LONGEST_TEXT]}
    said["printed"] = printed.getvalue()
    os.write(result, json.dumps(said).encode())


def _run_tests(source: str, namespace: dict[str, Any]) -> dict[str, Any]:
    tree = ast.parse(source)
    last = tree.body[-1] if tree.body else None
    last = last if isinstance(last, ast.Expr) else None
    tree.body = tree.body[:-1] if last else tree.body
    try:
        exec(compile(tree, "<tests>", "exec"), namespace)
        value = eval(compile(ast.Expression(last.value), "<tests>", "eval"), namespace) if last else None
    except (Gone, Unreadable):
        raise
    except BaseException as error:  # A failed test, in whatever way.
        lines = str(error).strip().splitlines()
        kind = "" if isinstance(error, AssertionError) and lines else type(error).__name__
        text = ": ".join(part for part in (kind, lines[0] if lines else "") if part)
        return {"state": "done", "points": 0.0, "error": text[:LONGEST_TEXT]}
    try:
        return {"state": "done", "points": None if value is None else float(value)}
    except (TypeError, ValueError):
        return {"state": "done", "points": None}


class _Far:
    """The student's side as the tests see it: values, and functions that are called there."""

    def __init__(self, wire: Connection) -> None:
        self._wire = wire

    def get(self, name: str) -> Any:
        return self._ask(("get", name))["value"]

    def _ask(self, request: Any) -> dict[str, Any]:
        try:
            self._wire.send_bytes(pickled(request))
            reply = unpack(receive(self._wire), self._function)
        except ConnectionError:
            raise Gone from None
        if not isinstance(reply, dict):
            raise Unreadable("no reply")
        return reply

    def _call(self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        modes = [m for m in torch.overrides._get_current_function_mode_stack() if isinstance(m, Frugal)]
        limits = (modes[-1].calls - modes[-1].made, modes[-1].entries) if modes else None
        with torch._C.DisableTorchFunction():
            reply = self._ask(("call", number, args, kwargs, limits))
            if "inputs" in reply:
                assign([list(args), kwargs], [list(reply["inputs"][0]), reply["inputs"][1]])
                generators = [a for a in _flat(args, kwargs) if isinstance(a, torch.Generator)]
                for generator, state in zip(generators, reply["generators"], strict=False):
                    generator.set_state(state)
        for mode in modes:
            mode.made += int(reply.get("made", 0))
        return (None, _revived(reply["error"])) if "error" in reply else (reply.get("value"), None)

    def _function(self, number: int) -> Callable[..., Any]:
        def call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
            return self._call(number, args, kwargs)

        return _MAKE["make"](call)


# Its lines belong to no file, so that a reason never quotes them as if they were the student's.
_MAKE: dict[str, Any] = {}
exec(
    compile(
        "def make(call):\n"
        "    def answer(*args, **kwargs):\n"
        "        value, error = call(args, kwargs)\n"
        "        if error is not None: raise error\n"
        "        return value\n"
        "    return answer\n",
        "<the answer>",
        "exec",
    ),
    _MAKE,
)


def _revived(told: Mapping[str, Any]) -> Exception:
    """An error like the one that the answer raised. Its line is what a reason then quotes."""
    line = str(told["line"])
    linecache.cache["<the answer>"] = (0, None, [line] * 10, "<the answer>")
    kinds = [str(kind)[:60] for kind in told["kinds"]]
    found = ((k, getattr(builtins, k, None)) for k in kinds)
    known = [(k, c) for k, c in found if isinstance(c, type) and issubclass(c, Exception)]
    base_name, base = known[0] if known else ("Exception", Exception)
    cls = base if kinds[0] == base_name else type(kinds[0], (base,), {})
    try:
        return cls(str(told["message"])) if told["args"] else cls()
    except TypeError:  # Such as UnicodeDecodeError, which takes five arguments.
        return type(kinds[0], (RuntimeError,), {})(str(told["message"]))


class _Short(io.StringIO):
    """Keeps the beginning of what is printed."""

    def write(self, text: str) -> int:
        if self.tell() < LONGEST_TEXT:
            super().write(text[: LONGEST_TEXT - self.tell()])
        return len(text)
