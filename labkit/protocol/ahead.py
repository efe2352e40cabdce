"""Results that a second core makes before they are asked for."""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from subprocess import PIPE, Popen
from typing import Any, Generic, TypeVar

from labkit.protocol.machine import machine_bytes

SWITCH = 1e-4  # seconds
ROOM = 2**30  # bytes that are free where a second process may begin: it takes 0.8 GiB
Result = TypeVar("Result")


class Elsewhere:
    """A process that calls what it is handed: threads of many small steps would share one interpreter."""

    def __init__(self) -> None:
        self._child: Popen[bytes] | None = None
        atexit.register(self.end)

    def result(self, work: Callable[[], Any]) -> Any | None:
        """What ``work()`` gives there; None where that cannot be: who calls it himself sees why."""
        import cloudpickle  # Functions that a notebook defines travel by value.

        try:
            packed = cloudpickle.dumps(partial(_placed, os.getcwd(), work))
            if self._child is None and (machine_bytes()[1] or ROOM) < ROOM:
                return None
            self._child = self._child or _started()
            assert self._child.stdin is not None and self._child.stdout is not None
            pickle.dump(packed, self._child.stdin)
            self._child.stdin.flush()
            return pickle.load(self._child.stdout)
        except Exception:
            self.end()
            return None

    def end(self) -> None:
        """Whatever it computes is lost."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            with suppress(OSError), child:  # closes the pipes, and waits
                pass


def _started() -> Popen[bytes]:
    # Not by multiprocessing, which would run the caller's script a second time.
    told = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return Popen(
        [sys.executable, "-c", f"from {__name__} import serve; serve()"], env=told, stdin=PIPE, stdout=PIPE
    )


def _placed(folder: str, work: Callable[[], Any]) -> Any:
    os.chdir(folder)  # where relative paths begin
    return work()


def serve() -> None:
    """Calls what comes in, one after the other, and gives back what came of it, while somebody asks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the cell that somebody interrupts
    answers, jobs = os.fdopen(os.dup(1), "wb"), SimpleQueue[bytes]()
    os.dup2(2, 1)  # what a run prints is no answer
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    while True:
        try:
            answer = pickle.dumps(pickle.loads(jobs.get())())
        except BaseException:
            answer = pickle.dumps(None)
        answers.write(answer)
        answers.flush()


def _listen(jobs: SimpleQueue[bytes]) -> None:
    try:
        while True:
            jobs.put(pickle.load(sys.stdin.buffer))
    finally:
        os._exit(0)  # nobody is left to ask


class Ahead(Generic[Result]):
    """One thread that makes what is begun, in that order, for whoever asks by the same key."""

    def __init__(self) -> None:
        self._coming: dict[Hashable, Future[Result]] = {}
        self._queue: SimpleQueue[tuple[Future[Result], Callable[[], Result]]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def begin(self, key: Hashable, make: Callable[[], Result]) -> None:
        """Has ``make()`` called, when all that was begun before is there; not where no thread may be had."""
        if self._thread is None:
            # A daemon: a program that ends does not wait for what nobody asked for.
            thread = threading.Thread(target=self._work, name="labkit-ahead", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # within limits, as when work is graded
                return
            self._thread = thread
        self._coming[key] = Future()
        self._queue.put((self._coming[key], make))

    def taken(self, key: Hashable) -> Result | None:
        """What was begun under a key, once it is there, and only once; None: the caller makes it himself.

        So it is where nothing was begun, and where it waits behind others: the caller is idle, and need not.
        """
        future = self._coming.pop(key, None)
        return None if future is None or future.cancel() else future.result()

    def _work(self) -> None:
        while True:
            future, make = self._queue.get()
            if not future.set_running_or_notify_cancel():
                continue
            # Each small operation of torch gives the interpreter away, and would wait 5 ms for its return.
            usual = sys.getswitchinterval()
            sys.setswitchinterval(SWITCH)
            try:
                future.set_result(make())
            except BaseException as problem:  # whoever asks is told
                future.set_exception(problem)
            finally:
                sys.setswitchinterval(usual)
            del future, make
