"""A process with torch loaded that forks the two sides of an exercise and watches over them.

Run as ``python -P -m labkit.classroom.grading.server FD``, where FD is one end of a socket pair. A request
is a JSON object with the limits, and four file descriptors: the student's job, the checker's job, the
checker's result, each an unlinked file. They pass through unread, so that no fork finds a hidden test or
another student's work in the memory it inherits. The reply says how it ended; the result is in the file.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from labkit.classroom.grading import sides
from labkit.classroom.grading.limits import adopt_orphans, descendants, enclose, resident, walls
from labkit.classroom.grading.wire import Gone

LOOK = 0.02  # seconds between two looks at the memory
KEPT = 4000  # characters of what a submission prints; the rest is read and thrown away
DISK, EVERY = 2**29, 0.25  # bytes of files that a submission may leave; seconds between two looks at them
GRACE = 2.0  # seconds that the checker has to write its result once the student's side has ended


def main() -> None:
    """Serves requests until the other end hangs up."""
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to deal with; it then hangs up.
    adopt_orphans()
    _load()
    control.sendall(b"ready\n")
    while True:
        data, handles, _, _ = socket.recv_fds(control, 2**16, 4)
        if not data:
            return
        reply = _Watch(json.loads(data), handles, control).run()
        control.sendall(json.dumps(reply).encode() + b"\n")


def _load() -> None:
    """What most exercises import, once. Nothing is computed: a fork inherits no threads."""
    import matplotlib.figure  # noqa: F401
    import psutil  # noqa: F401
    import torch

    import labkit.classroom.exercises
    import labkit.figures  # noqa: F401
    from labkit.classroom.grading.shell import Shell

    torch.set_num_threads(1)
    Shell.instance()
    walls()  # Finds the packages and libraries that a fork encloses itself with.


class _Watch:
    """One exercise under watch."""

    def __init__(self, request: dict[str, Any], handles: list[int], control: socket.socket) -> None:
        self.seconds, self.total = float(request["seconds"]), float(request["total"])
        self.memory, self.scratch = int(request["memory"]), Path(request["scratch"])
        self.together, self.last = bool(request["together"]), int(request["cells"])
        self.handles, self.control = handles, control
        self.cell, self.printed, self.length, self.peak = -1, b"", 0, 0

    def run(self) -> dict[str, Any]:
        job, tests, result = self.handles
        near, far = socket.socketpair()
        out_read, out_write = os.pipe()
        self.out, self.progress = out_read, -1
        self.progress, progress_write = os.pipe()
        base = resident(os.getpid())
        start = time.monotonic()

        def student() -> None:
            for handle in (tests, out_read, self.progress, near.fileno(), self.control.fileno()):
                os.close(handle)
            if not self.together:
                os.close(result)
            _student(job, far, out_write, progress_write, self, result)

        def checker() -> None:
            for handle in (job, out_read, out_write, self.progress, progress_write, far.fileno()):
                os.close(handle)
            self.control.close()
            sides.checker_side(sides.read_job(tests), near, result)

        pids = [_fork(student)] + ([] if self.together else [_fork(checker)])
        self.student, self.checker = pids[0], (pids[1] if len(pids) > 1 else 0)
        for handle in (job, tests, result, out_write, progress_write):
            os.close(handle)
        near.close()
        far.close()
        try:
            ended, status = self._watch(start, base)
        finally:
            _end(pids)
            for handle in (out_read, self.progress):
                os.close(handle)
        return {
            "ended": ended, "status": status, "cell": self.cell, "peak": self.peak, "length": self.length,
            "seconds": round(time.monotonic() - start, 3), "printed": self.printed.decode(errors="replace"),
        }  # fmt: skip

    def _watch(self, start: float, base: int) -> tuple[str, int]:
        """How it ended ("done", "time", "total", "memory", "disk", "died"), and the student's exit status."""
        self.began = self.looked = self.weighed = start
        left, status = float("inf"), _ended(self.student)
        open_ends = {self.out, self.progress}
        while True:
            ready, _, _ = select.select([*open_ends, self.control.fileno()], [], [], LOOK)
            if self.control.fileno() in ready and not self.control.recv(1, socket.MSG_PEEK):
                _end([self.student, self.checker])
                os._exit(0)  # Whoever asked has gone.
            open_ends -= {handle for handle in open_ends & set(ready) if not self._read(handle)}
            if self.checker and _ended(self.checker) is not None:
                time.sleep(0.01 if status is None else 0)  # Whether the student's ended first shows now.
                return "done", status or _ended(self.student) or 0
            if status is None and (status := _ended(self.student)) is not None:
                if self.together:
                    return ("done" if status == 0 else "died"), status
                left = time.monotonic() + GRACE
            if time.monotonic() > left:
                return "died", status or 0
            if exceeded := self._exceeded(start, base):
                return exceeded, 0

    def _read(self, handle: int) -> bool:
        """Takes in what was printed, or the number of the cell that has begun; false at the end."""
        data = os.read(handle, 2**16)
        if handle == self.out:
            self.length += len(data)
            self.printed += data[: max(0, KEPT - len(self.printed))]
        else:  # Whatever else a submission writes there counts for nothing.
            found = [int(word) for word in data.split() if word.isdigit() and len(word) < 8]
            new = max((number for number in found if number <= self.last), default=self.cell)
            if new > self.cell:  # Upwards alone: nobody turns the clock back.
                self.cell, self.began = new, time.monotonic()
        return bool(data)

    def _exceeded(self, start: float, base: int) -> str:
        """Which limit is exceeded; empty for none."""
        now = time.monotonic()
        if now - self.looked < LOOK:
            return ""
        self.looked = now
        self.peak = max(self.peak, resident(self.student) - base)
        if self.peak > self.memory or (self.checker and resident(self.checker) - base > self.memory):
            return "memory"
        if now - self.weighed > EVERY:
            self.weighed = now
            if _size(self.scratch) > DISK:
                return "disk"
        if now - self.began > self.seconds:
            return "time"
        return "total" if now - start > self.total else ""


def _student(job: int, wire: socket.socket, out: int, progress: int, watch: _Watch, result: int) -> None:
    os.setsid()
    quiet = os.open(os.devnull, os.O_RDONLY)
    os.dup2(quiet, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.stdin, sys.stdout = open(0), open(1, "w", buffering=1, errors="replace")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="replace")  # noqa: SIM115
    work = sides.read_job(job)
    kept = {0, 1, 2, wire.fileno(), progress, *([result] if watch.together else [])}
    for handle in set(range(3, 256)) - kept:  # Whatever else was open where this process was forked.
        with contextlib.suppress(OSError):
            os.close(handle)
    os.chdir(watch.scratch)
    sys.argv, sys.path = ["notebook"], [*sys.path, ""]
    enclose(watch.scratch, watch.memory)
    if watch.together:
        sides.together({**work, "progress": progress}, result)
    else:
        sides.student_side(work, wire, progress)


def _fork(work: Any) -> int:
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        work()
        code = 0
    except Gone:
        code = 0
    except BaseException as error:
        with contextlib.suppress(BaseException):
            os.write(2, f"{type(error).__name__}: {error}\n".encode()[:500])
    finally:
        os._exit(code)


def _size(folder: Path) -> int:
    """Bytes of the files in a folder, as far as a short look tells."""
    total, seen, folders = 0, 0, [str(folder)]
    while folders and seen < 20_000 and total <= DISK:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                seen += 1
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    total += 512 * entry.stat(follow_symlinks=False).st_blocks
    return total


def _ended(child: int) -> int | None:
    """The exit status of a child, negative for a signal, or None while it runs."""
    try:
        found, status = os.waitpid(child, os.WNOHANG)
    except ChildProcessError:
        return 0
    return os.waitstatus_to_exitcode(status) if found else None


def _end(children: list[int]) -> None:
    """Kills the two sides and whatever descends from them, until nothing is left."""
    for child in filter(None, children):
        for kill in (os.kill, os.killpg):
            with contextlib.suppress(OSError):
                kill(child, signal.SIGKILL)
    for _ in range(200):
        rest = descendants(os.getpid())
        if not rest:
            return
        for child in rest:
            with contextlib.suppress(OSError):
                os.kill(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)


if __name__ == "__main__":
    main()
