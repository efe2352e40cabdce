"""A process that runs the two sides of an exercise, watches over them, and says how they ended.

It reads requests from stdin and writes replies to stdout, a line of JSON each. Both sides are forks of a
third process, multiprocessing's forkserver, which has torch loaded and which no request passes through: no
side finds a hidden test or another student's work in the memory that it inherits. What they say is read as
text, and never unpickled.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

from labkit.classroom.grading.limits import descendants, enclose, resident

LOOK = 0.02  # seconds between two looks at the memory
KEPT = 4000  # characters of what a submission prints; the rest is read and thrown away
LONGEST = 2**20  # bytes of what the tests say
DISK, EVERY = 2**29, 0.25  # bytes of files that a submission may leave; seconds between two looks at them
GRACE = 2.0  # seconds that the checker has to write its result once the student's side has ended


def main() -> None:
    """Serves requests until the other end hangs up."""
    requests, replies = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w", buffering=1)
    for standard in (0, 1):  # Of all that starts from here.
        os.dup2(os.open(os.devnull, os.O_RDWR), standard)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["labkit.classroom.grading._preloaded"])
    first = context.Process(target=os.getpid)  # Once it has ended, the forkserver has loaded everything.
    first.start()
    first.join()
    own = frozenset(descendants(os.getpid()))
    for line in requests:
        watch = _Watch(context, own, requests, **json.loads(line))
        replies.write(json.dumps(watch.run()) + "\n")


class _Watch:
    """One exercise under watch.

    Args:
        own: the processes that were here before.
        requests: is silent until the reply, or closed by whoever asked.
        job, check: see `sides`; all else as `Runner.run` has it.
    """

    def __init__(
        self, context: Any, own: frozenset[int], requests: Any, job: dict[str, Any], check: dict[str, Any],
        seconds: float, total: float, memory: int, scratch: str,
    ) -> None:  # fmt: skip
        self.own, self.requests = own, requests
        self.seconds, self.total, self.memory, self.scratch = seconds, total, memory, scratch
        self.last, self.cell, self.length, self.peak = len(job["cells"]) + 1, -1, 0, 0
        self.said = {"out": b"", "result": b""}
        near, far = context.Pipe()
        pipes = {name: context.Pipe(duplex=False) for name in ("out", "progress", "result")}
        self.ends: dict[Connection, str] = {pipe[0]: name for name, pipe in pipes.items()}
        out, progress, result = (pipe[1] for pipe in pipes.values())
        self.student = context.Process(
            target=_to_its_end, args=(_student, job, far, out, progress, scratch, memory)
        )
        self.checker = context.Process(target=_to_its_end, args=(_checker, check, near, result))
        self.theirs = (near, far, out, progress, result)

    def run(self) -> dict[str, Any]:
        """What `Ending` takes."""
        base, start = max(map(resident, self.own)), time.monotonic()
        try:
            for side in (self.student, self.checker):
                side.start()
            for end in self.theirs:
                end.close()
            kind, status = self._watch(start, base)
        finally:
            self._end()
        for end in self.ends:
            while wait([end], 0) and self._read(end):
                pass
            end.close()
        said = _object(self.said["result"])
        if kind == "done" and said.get("state") != "done":
            kind = "unreadable" if said.get("state") == "unreadable" else "died"
        return {
            "kind": kind, "status": status, "cell": self.cell, "said": said, "peak": self.peak,
            "printed": self.said["out"].decode(errors="replace"), "length": self.length,
            "seconds": round(time.monotonic() - start, 3),
        }  # fmt: skip

    def _watch(self, start: float, base: int) -> tuple[str, int]:
        """How it ended ("done", "time", "total", "memory", "disk", "died"), and the student's exit status."""
        self.began = self.looked = self.weighed = start
        left, still_open = float("inf"), set(self.ends)
        while True:
            ready = wait([*still_open, self.requests], LOOK)
            if self.requests in ready:
                raise SystemExit  # Whoever asked has gone.
            still_open -= {end for end in still_open & set(ready) if not self._read(end)}
            status = self.student.exitcode
            if self.checker.exitcode is not None:
                time.sleep(0.01 if status is None else 0)  # Whether the student's ended first shows now.
                return "done", self.student.exitcode or 0
            if status is not None:
                left = min(left, time.monotonic() + GRACE)
            if time.monotonic() > left:
                return "died", status or 0
            if exceeded := self._exceeded(start, base):
                return exceeded, 0

    def _read(self, end: Connection) -> bool:
        """Takes in what was said, or the number of the cell that has begun; false at the end."""
        data, name = os.read(end.fileno(), 2**16), self.ends[end]
        if name == "progress":  # Whatever else a submission writes there counts for nothing.
            found = [int(word) for word in data.split() if word.isdigit() and len(word) < 8]
            new = max((number for number in found if number <= self.last), default=self.cell)
            if new > self.cell:  # Upwards alone: nobody turns the clock back.
                self.cell, self.began = new, time.monotonic()
            return bool(data)
        room = {"out": KEPT, "result": LONGEST}[name] - len(self.said[name])
        self.said[name] += data[: max(0, room)]
        self.length += len(data) if name == "out" else 0
        return bool(data)

    def _exceeded(self, start: float, base: int) -> str:
        """Which limit is exceeded; empty for none."""
        now = time.monotonic()
        if now - self.looked < LOOK:
            return ""
        self.looked = now
        self.peak = max(self.peak, resident(self.student.pid) - base)
        if self.peak > self.memory or resident(self.checker.pid) - base > self.memory:
            return "memory"
        if now - self.weighed > EVERY:
            self.weighed = now
            if _size(self.scratch) > DISK:
                return "disk"
        if now - self.began > self.seconds:
            return "time"
        return "total" if now - start > self.total else ""

    def _end(self) -> None:
        """Kills the two sides and whatever descends from them, until nothing is left."""
        if self.student.pid:
            with contextlib.suppress(OSError):
                os.killpg(self.student.pid, signal.SIGKILL)
        for _ in range(200):
            rest = set(descendants(os.getpid())) - self.own
            for child in rest:
                with contextlib.suppress(OSError):
                    os.kill(child, signal.SIGKILL)
            if not rest:
                return
            time.sleep(0.01)


def _to_its_end(side: Callable[..., None], *args: Any) -> None:
    """Runs a side of an exercise, and ends its process without waiting for threads that it has left."""
    from labkit.classroom.grading.wire import Gone

    code = 70
    try:
        side(*args)
        code = 0
    except Gone:
        code = 0
    except BaseException as error:
        with contextlib.suppress(BaseException):
            os.write(2, f"{type(error).__name__}: {error}\n".encode()[:500])
    finally:
        os._exit(code)


def _student(
    job: dict[str, Any], wire: Connection, out: Connection, progress: Connection, scratch: str, memory: int,
) -> None:  # fmt: skip
    from labkit.classroom.grading import sides

    os.setsid()
    for standard in (1, 2):
        os.dup2(out.fileno(), standard)
    sys.stdin, sys.stdout = open(0), open(1, "w", buffering=1, errors="replace")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="replace")  # noqa: SIM115
    kept = {0, 1, 2, wire.fileno(), progress.fileno()}
    for handle in set(range(3, 256)) - kept:  # Whatever else was open where this process was forked.
        with contextlib.suppress(OSError):
            os.close(handle)
    os.chdir(scratch)
    sys.argv, sys.path = ["notebook"], [*sys.path, ""]
    enclose(scratch, memory)
    sides.student_side(job, wire, progress.fileno())


def _checker(check: dict[str, Any], wire: Connection, result: Connection) -> None:
    from labkit.classroom.grading import sides

    sides.checker_side(check, wire, result.fileno())


def _object(data: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(data)
        return found if isinstance(found, dict) else {}
    return {}


def _size(folder: str) -> int:
    """Bytes of the files in a folder, as far as a short look tells."""
    total, seen, folders = 0, 0, [folder]
    while folders and seen < 20_000 and total <= DISK:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                seen += 1
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    total += 512 * entry.stat(follow_symlinks=False).st_blocks
    return total
