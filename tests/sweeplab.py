"""An experiment of no work at all, which notes each of its runs; one point raises, one ends its process."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from labkit.protocol.experiment import Experiment, Frame, Run
from labkit.protocol.settings import Settings, knob
from tests.tinylab import DECAY

BAD, DEADLY = 77, 40


@dataclass(frozen=True)
class Points(Settings):
    point: int = knob(0, "which", bounds=(0, None))
    deadly: bool = knob(False, "whether one point ends its process, once")


def _run(settings: Points, prediction: Any) -> Iterator[Frame]:
    folder = Path(os.environ["LABKIT_TEST_NOTES"])
    with (folder / "runs.txt").open("a") as notes:
        notes.write(f"{settings.point} {os.getpid()}\n")
    if settings.point == BAD:
        raise RuntimeError(f"point {BAD}\nnever ends well")
    if settings.deadly and settings.point == DEADLY and not (folder / "killed").exists():
        (folder / "killed").write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
    # On a cluster a worker must be back, and a cancelled point be heard of, while few are done.
    time.sleep(0.05 if settings.deadly else 0.01)
    yield Frame(0, {"square": np.full(settings.seeds, float(settings.point**2))}, 1.0, "done")


def square(run: Run) -> dict[str, Any]:
    """What is kept of a run, NumPy's numbers included."""
    return {"square": run.last("square")[0], "none": float("nan")}


POINTS: Experiment = replace(
    DECAY, name="points", settings=Points, presets={"quick": Points()}, run=_run, claims=()
)


def notes(folder: Path) -> list[tuple[int, int]]:
    """(point, process) of every run that was begun."""
    lines = (folder / "runs.txt").read_text().splitlines()
    return [(int(point), int(process)) for point, process in map(str.split, lines)]
