"""Results that a second core makes before they are asked for."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Generic, TypeVar

SWITCH = 1e-4  # seconds
Result = TypeVar("Result")


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
