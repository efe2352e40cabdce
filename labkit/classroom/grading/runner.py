"""Runs one exercise at a time in processes with a limit on time and memory, and says how it ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from labkit.classroom.grading.limits import descendants

PATIENCE = 60.0  # seconds beyond all limits after which the watching process itself counts as lost


@dataclass(frozen=True)
class Ending:
    """How an exercise ended.

    Attributes:
        kind: "done", "time" (its share), "total" (the submission's), "memory", "disk", "died",
            "unreadable", "lost".
        status: exit status of the student's process where it ended by itself, negative for a signal.
        cell: number of the cell that was running: 0 is the setup, one more than there are cells the tests.
        said: what the checker wrote: "points", "printed", "error", "errors" a cell, "missing" names.
        printed: the beginning of what the student's cells printed, and `length`, its size in bytes.
        peak: bytes of resident memory above what Python with torch holds.
    """

    kind: str
    status: int = 0
    cell: int = 0
    said: Mapping[str, Any] = field(default_factory=dict)
    printed: str = ""
    length: int = 0
    peak: int = 0
    seconds: float = 0.0


class Runner:
    """Holds a process with torch loaded, from which each exercise is forked. Use it in a `with` statement."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._scratch = tempfile.mkdtemp(prefix="labkit-grade-")

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process and all that descends from it."""
        self._stop()
        _remove(self._scratch)

    def run(
        self, setup: str, cells: Sequence[tuple[str, str]], tests: str, names: Sequence[str], *,
        seconds: float, total: float, memory: int, together: bool = False,
    ) -> Ending:  # fmt: skip
        """Runs a student's cells, and the tests of one exercise against what they define.

        Args:
            setup: source of the imports.
            cells: (source, "whole" | "definitions" | "skip") in order.
            tests: source that ends in the points.
            names: what the tests take from the student.
            seconds: that one cell, or the tests, may take.
            total: seconds for everything.
            memory: bytes of resident memory, beyond Python and torch themselves.
            together: tests and cells in one process.
        """
        scratch = tempfile.mkdtemp(dir=self._scratch)
        job: dict[str, Any] = {"setup": setup, "cells": list(cells)}
        check = {"tests": tests, "names": list(names)}
        request = {
            "seconds": seconds, "total": total, "memory": memory, "scratch": scratch,
            "together": together, "cells": len(cells) + 1,
        }  # fmt: skip
        try:
            return self._asked(request, {**job, **check} if together else job, {} if together else check)
        finally:
            _remove(scratch)

    def _asked(self, request: dict[str, Any], job: dict[str, Any], check: dict[str, Any]) -> Ending:
        control = self._start()
        files = [_unlinked(job), _unlinked(check), _unlinked(None)]
        try:
            control.settimeout(max(request["total"], 0) + PATIENCE)
            socket.send_fds(control, [json.dumps(request).encode()], files)
            reply = _line(control)
            said = _read(files[2])
        except (OSError, EOFError):
            self._stop()
            return Ending("lost")
        finally:
            for handle in files:
                os.close(handle)
        ended = reply.pop("ended")
        state = said.get("state")
        if ended == "done" and state != "done":
            ended = "unreadable" if state == "unreadable" else "died"
        return Ending(ended, said=said, **reply)

    def _start(self) -> socket.socket:
        if self._control is not None:
            return self._control
        near, far = socket.socketpair()
        # Nothing of the grader's environment, no device, one thread: torch then does the same everywhere.
        kept = "PATH HOME LANG LC_ALL PYTHONPATH LD_LIBRARY_PATH VIRTUAL_ENV SYSTEMROOT".split()  # noqa: SIM905
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        environment |= {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")}
        environment |= {"CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "Agg", "PYTHONDONTWRITEBYTECODE": "1"}
        environment |= {"OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES", "IPYTHONDIR": self._scratch}
        environment |= {
            "MPLCONFIGDIR": os.environ.get("MPLCONFIGDIR", self._scratch),
            "PYTHONHASHSEED": "0",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "labkit.classroom.grading.server", str(far.fileno())],
            pass_fds=[far.fileno()], env=environment, cwd=self._scratch, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        far.close()
        near.settimeout(300)
        if near.recv(16) != b"ready\n":
            raise OSError("the process that runs submissions did not start")
        self._control = near
        return near

    def _stop(self) -> None:
        process, self._process = self._process, None
        if self._control is not None:
            self._control.close()
            self._control = None
        if process is None:
            return
        for child in [*descendants(process.pid), process.pid]:
            with suppress(OSError):
                os.kill(child, signal.SIGKILL)
        process.wait()


def _remove(folder: str) -> None:
    """Removes what a submission has left, folders six thousand levels deep as well; never raises."""
    with suppress(OSError, RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    if os.path.exists(folder):
        with suppress(OSError, subprocess.SubprocessError):
            subprocess.run(["rm", "-rf", "--", folder], timeout=120, capture_output=True)


def _unlinked(content: Any) -> int:
    """A file without a name: only those who are given the descriptor can read what is in it."""
    handle, name = tempfile.mkstemp()
    os.unlink(name)
    if content is not None:
        data = json.dumps(content).encode()
        while data:
            data = data[os.write(handle, data) :]
    return handle


def _read(handle: int) -> dict[str, Any]:
    size = os.lseek(handle, 0, os.SEEK_END)
    os.lseek(handle, 0, os.SEEK_SET)
    try:
        found = json.loads(os.read(handle, min(size, 2**20)))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _line(control: socket.socket) -> dict[str, Any]:
    data = b""
    while not data.endswith(b"\n"):
        part = control.recv(2**16)
        if not part:
            raise EOFError
        data += part
    return json.loads(data)
