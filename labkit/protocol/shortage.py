"""Want of memory: how torch and NumPy tell it, and how a person is told of the settings that asked for it."""

from __future__ import annotations

import re

from labkit.protocol.experiment import Experiment
from labkit.protocol.settings import Settings

# By their texts, because torch raises a bare RuntimeError on a CPU and NumPy a ValueError above 2⁶³ bytes.
_TEXTS = (
    "DefaultCPUAllocator", "bad_alloc", "out of memory", "size calculation overflowed", "array is too big",
    "Overflow when unpacking", "int too large to convert", "index-sized integer", "Maximum allowed dimension",
)  # fmt: skip


def shortage(problem: BaseException, experiment: Experiment, settings: Settings) -> str:
    """One line for an allocation that failed.

    Args:
        problem: what was raised.
        experiment: that raised it.
        settings: at which.

    Returns:
        "out of memory, for an array of 373 GiB, at width=100000 (slider 16 to 4096)"; "" for another error.
    """
    text = str(problem)
    if not isinstance(problem, MemoryError) and not any(known in text for known in _TEXTS):
        return ""
    asked = re.search(r"allocate ([\d.]+) (bytes|[KMGTPE]iB)", text)
    size = f", for an array of {_size(*asked.groups())}" if asked else ""
    blamed = settings.beyond_sliders() or settings.changes_from(experiment.presets["quick"])
    return f"out of memory{size}" + (f", at {settings.with_sliders(blamed)}" if blamed else "")


def _size(number: str, unit: str) -> str:
    return in_bytes(float(number)) if unit == "bytes" else f"{number} {unit}"


def in_bytes(number: float) -> str:
    """Bytes as they are read.

    Args:
        number: of bytes.

    Returns:
        "3.1 GiB".
    """
    for unit in ("MiB", "GiB", "TiB"):
        number /= 1024 if unit != "MiB" else 2**20
        if number < 1000:
            break
    return f"{number:.2g} {unit}" if number < 100 else f"{number:.0f} {unit}"
