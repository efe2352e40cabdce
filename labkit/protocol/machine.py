"""What this machine has."""

from __future__ import annotations

from pathlib import Path


def machine_bytes() -> tuple[int | None, int | None]:
    """Total and free bytes, within the limit of a container; None where nothing tells."""
    try:
        import psutil  # Comes with ipykernel.
    except ImportError:
        return None, None
    total, free = int(psutil.virtual_memory().total), int(psutil.virtual_memory().available)
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):  # No control group, or no limit in it ("max").
        return total, free
    return min(total, limit), min(free, max(limit - used, 0))
