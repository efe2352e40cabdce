"""One thread that always works on the newest request.

A request is a function; a newer one supersedes it. Nothing is interrupted from outside: a job asks its ticket
between frames whether it is still wanted, and closes its own generator (closing one that runs in another
thread raises ValueError). The thread ends by itself when there has been nothing to do for a while, so a
forgotten panel leaves none behind.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

LINGER = 1.0  # seconds an idle thread waits for more work


class Ticket:
    """A job's view of the worker: whether it is still wanted, and since when."""

    def __init__(self, worker: Worker, generation: int) -> None:
        self._worker, self._generation = worker, generation
        self.since = time.monotonic()

    @property
    def current(self) -> bool:
        """False once the job was cancelled or superseded, or the worker closed."""
        return self._worker._generation == self._generation

    def wait(self, seconds: float) -> bool:
        """Sleeps, at most until the job is no longer wanted; says whether it still is."""
        condition = self._worker._condition
        with condition:
            condition.wait_for(lambda: not self.current, timeout=max(seconds, 0.0))
        return self.current


Job = Callable[[Ticket], None]


class Worker:
    """Runs jobs one at a time in a daemon thread; of those that wait only the newest is kept.

    Args:
        name: the thread's name.
        failed: called, in the thread, with an exception that a job raised.
    """

    def __init__(self, name: str, failed: Callable[[BaseException], None]) -> None:
        self._name, self._failed = name, failed
        self._condition = threading.Condition(threading.RLock())
        self._generation = 0
        self._next: tuple[Job, Ticket] | None = None
        self._thread: threading.Thread | None = None
        self._busy = False
        self._closed = False

    def submit(self, job: Job) -> None:
        """Makes ``job`` the one that is wanted; whatever runs or waits is not any more."""
        with self._condition:
            if self._closed:
                return
            self._generation += 1
            self._next = (job, Ticket(self, self._generation))
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name=self._name, daemon=True)
                self._thread.start()
            self._condition.notify_all()

    def cancel(self) -> bool:
        """Nothing is wanted any more. Says whether a job runs; it ends between two frames."""
        with self._condition:
            self._generation += 1
            self._next = None
            self._condition.notify_all()
            return self._busy

    def close(self) -> None:
        """Cancels, and takes no more jobs."""
        with self._condition:
            self._closed = True
            self.cancel()

    @property
    def busy(self) -> bool:
        """Whether a job runs or waits."""
        with self._condition:
            return self._busy or self._next is not None

    def join(self, timeout: float | None = None) -> bool:
        """Waits until nothing runs or waits; says whether that came about in time."""
        with self._condition:
            return self._condition.wait_for(lambda: not self._busy and self._next is None, timeout)

    def _loop(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._next is not None or self._closed, LINGER)
                if self._next is None:
                    self._thread = None
                    return
                (job, ticket), self._next, self._busy = self._next, None, True
            try:
                job(ticket)
            except Exception as error:  # shown by the panel; the next request must still be served
                with suppress(Exception):
                    self._failed(error)
            finally:
                # Between jobs the thread keeps nothing alive: a panel nobody holds can go.
                del job, ticket
                with self._condition:
                    self._busy = False
                    self._condition.notify_all()
