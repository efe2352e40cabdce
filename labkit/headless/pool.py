"""Processes that share the work of a command."""

from __future__ import annotations

import atexit
import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager

from labkit.headless.memory import limit_memory


@contextmanager
def processes(jobs: int, device: str = "cpu") -> Iterator[Executor | None]:
    """A pool of processes of one thread each, which end with this one; None for a single job.

    Args:
        jobs: how many processes.
        device: where they keep their tensors.

    Yields:
        An executor, or None: the caller then works in its own thread.

    Raises:
        ValueError: jobs is not positive.
    """
    if jobs < 1:
        raise ValueError(f"--jobs must be at least 1; got {jobs}")
    if jobs == 1:
        yield None
        return
    others = set(multiprocessing.active_children())
    # A forked torch may wait for threads that were not copied.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_ready, initargs=(device,)) as executor:
        try:
            for _ in range(jobs):  # which begins the processes: they load while the caller does
                executor.submit(int)
            yield executor
        except BaseException:
            _end(set(multiprocessing.active_children()) - others)
            raise


def _ready(device: str) -> None:
    """In each process: no more memory than there is, Ctrl-C is the parent's business, and what every
    experiment takes is imported; experiments themselves see to one thread (`experiment_mode`).
    """
    limit_memory(device)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    atexit.register(_leave)
    for name in ("labkit.labs.common", "labkit.figures"):
        importlib.import_module(name)


def _leave() -> None:
    """Taking a large process apart takes a second, and is waited for."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _end(children: Iterable[multiprocessing.process.BaseProcess]) -> None:
    """Waiting for work whose outcome nobody takes would cost minutes."""
    for child in children:
        child.terminate()
