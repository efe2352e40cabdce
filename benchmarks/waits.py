"""What a person waits for: the import, a first picture, each experiment's first frame, notebooks, a report.

All but the experiments' frames are told by a clock on the wall, and take every core that the machine has.
"""

from __future__ import annotations

import cProfile
import pstats
import re
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil  # which ipykernel brings

from benchmarks.turns import Call, Case, Row
from labkit.labs import LABS, load_lab
from labkit.live import Canvas
from labkit.live.glimpse import glimpse
from labkit.protocol.experiment import Experiment, Prediction, experiment_mode

ROOT = Path(__file__).resolve().parents[1]
SOON = 0.3  # seconds to an experiment's first frame
PANEL = "import labkit; from labkit.labs import sgd; labkit.Panel(sgd.MINIMUM_NORM, train=False).wait()"


def outside(*command: str) -> Call:
    """A call of another process of this interpreter."""

    def call() -> None:
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True)

    return call


def starting() -> Case:
    """A new process, until a panel has its first picture."""
    ours = {
        "import": outside("-c", PANEL.partition("labkit.Panel")[0]),
        "first picture": outside("-c", PANEL),
    }
    return Case(ours, floor=("importing torch", outside("-c", "import torch")), wall=True, rounds=3)


def predicted(experiment: Experiment, canvas: Canvas) -> tuple[Any, Prediction]:
    """From settings to the picture of the prediction."""
    settings = experiment.presets["quick"]
    setup = experiment.prepare(settings)
    prediction = experiment.predict(setup)
    canvas.frame(experiment.draw((), prediction, (), settings))
    return setup, prediction


def first_frame(experiment: Experiment, canvas: Canvas, setup: Any, prediction: Prediction) -> None:
    """From there to the picture of the first frame with values."""
    settings = experiment.presets["quick"]
    frames = experiment.frames(settings, setup, prediction)
    first = next(found for frame in frames if (found := glimpse(frame) if frame.is_tick else (frame,)))
    canvas.frame(experiment.draw(first, prediction, (), settings))
    frames.close()


def late(call: Callable[..., Any], ready: Callable[[], tuple[Any, ...]]) -> tuple[float, str]:
    """Processor time of a call, the second time; where it is late, what of it is arithmetic."""
    taken = 0.0
    for _ in range(2):
        given = ready()
        begun = time.process_time()
        call(*given)
        taken = time.process_time() - begun
    if taken <= SOON:
        return taken, ""
    profile, given = cProfile.Profile(time.process_time), ready()
    profile.runcall(call, *given)
    return taken, f"{arithmetic(pstats.Stats(profile)):.0%} of it within torch, NumPy and SciPy"


def arithmetic(stats: pstats.Stats) -> float:
    """The share of a profile in the functions of torch, NumPy and SciPy, which no other Python would save.

    A little too small: the profiler slows our own functions more.
    """
    own = {name: taken for name, (_, _, taken, *_) in stats.stats.items()}  # type: ignore[attr-defined]
    theirs = [
        taken for (path, _, name), taken in own.items()
        if re.search(r"\b(torch|numpy|scipy)\b", name if path == "~" else path)
    ]  # fmt: skip
    return sum(theirs) / sum(own.values())


def to_prediction(experiment: Experiment) -> tuple[float, str]:
    """What a moved slider waits for."""
    canvas = Canvas()
    return late(predicted, lambda: (experiment, canvas))


def to_first_frame(experiment: Experiment) -> tuple[float, str]:
    """What who presses Train waits for."""
    canvas = Canvas()
    return late(first_frame, lambda: (experiment, canvas, *predicted(experiment, canvas)))


def each_experiment(wait: Callable[[Experiment], tuple[float, str]]) -> Callable[[], Case]:
    """A case of a wait in all experiments of all labs, which names those that take longer than `SOON`."""

    def ours() -> dict[str, float | tuple[float, str]]:
        every = [(lab.name, one) for lab in map(load_lab, LABS) for one in lab.experiments]
        with experiment_mode():
            found = {f"{lab} {one.name}": wait(one) for lab, one in every}
        named = {name: (round(took, 2), why) for name, (took, why) in found.items() if took > SOON}
        return {"experiments": len(found), "later": len(named)} | named

    return lambda: Case({"": ours}, counts=lambda found: found, rounds=0)


def notebooks(cores: int = 0) -> Case:
    """Each notebook, run whole, by so many cores; 0: by all."""
    paths = sorted((ROOT / "notebooks").glob("0*.ipynb"))

    def ours() -> dict[str, tuple[float, str]]:
        if not cores:
            return {path.name[:2]: _whole(path, psutil.cpu_count() or 1) for path in paths}
        may = psutil.Process().cpu_affinity()  # on Linux and Windows
        psutil.Process().cpu_affinity(may[:cores])
        try:
            return {path.name[:2]: _whole(path, cores) for path in paths}
        finally:
            psutil.Process().cpu_affinity(may)

    return Case({"": ours}, counts=lambda found: found, wall=True, rounds=0)


def _whole(path: Path, cores: int) -> tuple[float, str]:
    """Seconds of a notebook on the wall; and how long cores were at work, which they can but share.

    The machine's own count: that of a kernel's helper is lost with it. Other programs are in it, too.
    """
    before = psutil.cpu_times()
    begun = time.perf_counter()
    with TemporaryDirectory() as folder:
        outside("-m", "nbconvert", "--to", "notebook", "--execute", "--output-dir", folder, str(path))()
    taken, after = time.perf_counter() - begun, psutil.cpu_times()
    busy = sum(getattr(after, kind) - getattr(before, kind) for kind in ("user", "system"))
    shared = f": {busy / cores:.0f} s if {cores} cores share all of it" if cores > 1 else ""
    return taken, f"{busy:.0f} s of processor time{shared}"


def report() -> Case:
    """Lab 4's report, by as many processes."""
    folder = TemporaryDirectory()

    def jobs(number: int) -> Callable[[], TemporaryDirectory[str]]:
        out = str(Path(folder.name) / f"{number}.html")
        call = outside("-m", "labkit", "report", "4", "--jobs", str(number), "--html", out)
        return lambda: call() or folder

    return Case({"--jobs 2": jobs(2)}, {"--jobs 1": jobs(1)}, gap=lambda *_: 0.0, wall=True, rounds=0)


ROWS = (
    Row("start", "a new process → labkit and a lab imported, → a panel's first picture", starting),
    Row("predictions", f"settings → each experiment's prediction: how many take {SOON:g} s, and how long",
        each_experiment(to_prediction), {"later": 0},
        why="eigendecompositions of Jacobians, and exact expectations: two small products for each of 16,000 "
        "steps, alone two fifths of the time"),
    Row("first-frames", f"Train → each experiment's first frame: how many take {SOON:g} s, and how long",
        each_experiment(to_first_frame), {"later": 0},
        why="an eigendecomposition of 2,000 rows; the others take hardly longer"),
    Row("notebooks", "seconds of each notebook, run whole by nbconvert", notebooks,
        {f"{number:02d}": 60.0 for number in LABS},
        why="of the rest, imports, exercises and the kernel's end are work of one core alone, 10 to 20 s"),
    Row("notebooks-one", "the same, on one core", partial(notebooks, 1),
        {f"{number:02d}": 75.0 for number in LABS}),
    Row("report", "lab 4's report by two processes", report, {"--jobs 2: --jobs 1": 1 / 0.6},
        why="two cores that are both at work are slower here than one alone"),
)  # fmt: skip
