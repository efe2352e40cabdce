"""The memory of this machine: how much there is, how much this process takes, and no more than there is."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labkit.protocol.machine import machine_bytes


def free_bytes(device: str) -> int | None:
    """Bytes that are free where a device keeps its tensors.

    Args:
        device: "cpu", "cuda" or "mps", which shares the memory of the CPU.

    Returns:
        Bytes, or None where nothing tells.
    """
    if device != "cuda":
        return machine_bytes()[1]
    import torch

    return int(torch.cuda.mem_get_info()[0])


class Watched:
    """The most bytes that a device's tensors, or this process, took inside a `with`."""

    INTERVAL = 0.005  # An array that is gone sooner is too small to matter.

    def __init__(self, device: str) -> None:
        self._cuda, self._end, self.peak = device == "cuda", threading.Event(), 0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @staticmethod
    def now(device: str) -> int:
        """The bytes taken at this moment; 0 where nothing tells."""
        if device == "cuda":
            import torch

            return int(torch.cuda.memory_allocated())
        try:
            import psutil
        except ImportError:
            return 0
        return int(psutil.Process().memory_info().rss)

    def _watch(self) -> None:
        while not self._end.wait(self.INTERVAL):
            self.peak = max(self.peak, self.now("cpu"))

    def __enter__(self) -> Watched:
        if self._cuda:
            import torch

            torch.cuda.reset_peak_memory_stats()
        else:
            self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._cuda:
            import torch

            self.peak = int(torch.cuda.max_memory_allocated())
            return
        self._end.set()
        self._thread.join()
        self.peak = max(self.peak, self.now("cpu"))


@contextmanager
def within_memory(device: str) -> Iterator[None]:
    """What `limit_memory` does, until the end of a `with`.

    Args:
        device: as there.

    Yields:
        Nothing.
    """
    before = limit_memory(device)
    try:
        yield
    finally:
        if before is not None:
            import resource

            resource.setrlimit(resource.RLIMIT_DATA, before)


def limit_memory(device: str) -> tuple[int, int] | None:
    """Has an allocation beyond what is free raise, where Linux would let it be and later end the process.

    Args:
        device: where tensors are kept; of others than "cpu" drivers map far more than they take, and nothing
            is done.

    Returns:
        The limits that held before, or None where nothing was done.
    """
    free, used = free_bytes("cpu"), _data_bytes()
    if device != "cpu" or free is None or used is None:
        return None
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    tighter = [limit for limit in (used + free, *before) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(tighter), before[1]))
    return before


def _data_bytes() -> int | None:
    """What Linux counts against RLIMIT_DATA; None elsewhere."""
    try:
        found = re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
