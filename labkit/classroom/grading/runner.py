"""Runs one exercise at a time in processes with a limit on time and memory, and says how it ended."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from labkit.classroom.grading.limits import descendants

PATIENCE = 300.0  # seconds beyond all limits after which the watching process itself counts as lost


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
    """Holds processes that watch over exercises, see `watch`. Use it in a `with` statement, from any thread.

    Args:
        jobs: how many exercises to run at a time.

    Raises:
        ValueError: this system cannot fork.
    """

    def __init__(self, jobs: int = 1) -> None:
        if not hasattr(os, "fork"):
            raise ValueError("running answers needs Linux or macOS; on Windows use WSL or a container")
        self._scratch = tempfile.mkdtemp(prefix="labkit-grade-")
        self._free: queue.SimpleQueue[subprocess.Popen[str] | None] = queue.SimpleQueue()
        self._started: list[subprocess.Popen[str]] = []
        for _ in range(jobs):
            self._free.put(None)  # Started when it is first needed.

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the processes and all that descends from them."""
        while self._started:
            self._stop(self._started.pop())
        _remove(self._scratch)

    def run(
        self, setup: str, cells: Sequence[tuple[str, str]], tests: str, names: Sequence[str], *,
        seconds: float, total: float, memory: int,
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
        """
        scratch = tempfile.mkdtemp(dir=self._scratch)
        job = {"setup": setup, "cells": list(cells)}
        check = {"tests": tests, "names": list(names)}
        request = {
            "job": job, "check": check, "seconds": seconds, "total": total, "memory": memory,
            "scratch": scratch,
        }  # fmt: skip
        try:
            return self._asked(json.dumps(request), total)
        finally:
            _remove(scratch)

    def _asked(self, request: str, total: float) -> Ending:
        process = self._free.get() or self._start()
        assert process.stdin and process.stdout
        alarm = threading.Timer(total + PATIENCE, process.kill)
        alarm.start()
        try:
            process.stdin.write(request + "\n")
            process.stdin.flush()
            ending = Ending(**json.loads(process.stdout.readline()))
        except (OSError, ValueError):
            self._stop(process)
            self._free.put(None)
            return Ending("lost")
        finally:
            alarm.cancel()
        self._free.put(process)
        return ending

    def _start(self) -> subprocess.Popen[str]:
        # Nothing of the grader's environment, no device, one thread: torch then does the same everywhere.
        kept = "PATH HOME LANG LC_ALL PYTHONPATH LD_LIBRARY_PATH VIRTUAL_ENV SYSTEMROOT".split()  # noqa: SIM905
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        environment |= {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")}
        environment |= {"CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "Agg", "PYTHONDONTWRITEBYTECODE": "1"}
        environment |= {"OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES", "IPYTHONDIR": self._scratch}
        place = os.environ.get("MPLCONFIGDIR", self._scratch)
        environment |= {"MPLCONFIGDIR": place, "PYTHONHASHSEED": "0"}
        # By -c, so that no side imports it as its main module.
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from labkit.classroom.grading.watch import main; main()"],
            env=environment, cwd=self._scratch, start_new_session=True, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._started.append(process)
        return process

    @staticmethod
    def _stop(process: subprocess.Popen[str]) -> None:
        with suppress(OSError, ValueError, subprocess.TimeoutExpired):
            assert process.stdin
            process.stdin.close()
            process.wait(5)
        for child in [*descendants(process.pid), process.pid] if process.poll() is None else []:
            with suppress(OSError):
                os.kill(child, signal.SIGKILL)
        process.wait()
        assert process.stdout
        process.stdout.close()


def _remove(folder: str) -> None:
    """Removes what a submission has left, folders six thousand levels deep as well; never raises."""
    with suppress(OSError, RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    if os.path.exists(folder):
        with suppress(OSError, subprocess.SubprocessError):
            subprocess.run(["rm", "-rf", "--", folder], timeout=120, capture_output=True)
