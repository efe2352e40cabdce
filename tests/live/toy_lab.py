"""A tiny experiment with a known answer: noisy exponential decay beside its formula.

Used by the panel's tests and, copied beside a notebook, by the browser tests. It sleeps instead of training,
so the tests know how long a run takes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from labkit.figures import Chart, Level, Measured, Panel, Predicted, caption
from labkit.protocol.claims import Claim
from labkit.protocol.experiment import Experiment, Frame, Run, series
from labkit.protocol.rules import Equals, Evidence
from labkit.protocol.settings import Settings, knob


@dataclass(frozen=True)
class Toy(Settings):
    rate: float = knob(1.0, "decay per unit of time", slider=(0.2, 3.0), bounds=(0.01, 100.0), step=0.1)
    width: int = knob(64, "hidden units", slider=(16, 1024), bounds=(1, None), scale="log2")
    noise: float = knob(0.05, "relative noise", slider=(0.0, 0.5), step=0.05, label="label noise")
    lr: float = knob(0.1, "learning rate", slider=(1e-3, 1.0), scale="log", label="learning rate")
    steps: int = knob(200, "frames of a run", slider=(10, 400), bounds=(1, None), step=10)
    pause: float = knob(0.005, "seconds a frame", slider=(0.0, 0.1), step=0.005)
    cost: float = knob(0.0, "seconds a prediction costs", slider=(0.0, 1.0), bounds=(0.0, None), step=0.05)
    kind: str = knob("smooth", "activation", choices=("smooth", "rough"))
    fault: str = knob(
        "none", "where it breaks", choices=("none", "prepare", "predict", "run", "figure", "claim")
    )


@dataclass
class Log:
    """What happened, for the tests: how many runs began and ended, and where."""

    runs: list[Any] = field(default_factory=list)
    open: int = 0
    most_open: int = 0
    closed_in: list[str] = field(default_factory=list)


LOG = Log()
TIME = np.linspace(0.0, 4.0, 81)


def _break(settings: Toy, where: str) -> None:
    if settings.fault == where:
        raise RuntimeError(f"broken on purpose in {where}")


def prepare(settings: Toy) -> Toy:
    _break(settings, "prepare")
    time.sleep(settings.cost)
    return settings


def predict(setup: Toy) -> dict[str, np.ndarray]:
    _break(setup, "predict")
    slow = np.full_like(TIME, 1.0) * np.exp(-0.1 * setup.rate * TIME)
    return {"time": TIME, "fast": np.exp(-setup.rate * TIME), "slow": slow}


def run(setup: Toy, prediction: Any, **steps: Any) -> Iterator[Frame]:
    import threading

    LOG.runs.append(setup)
    LOG.open += 1
    LOG.most_open = max(LOG.most_open, LOG.open)
    draw = np.random.default_rng(setup.seed)
    try:
        for step in range(setup.steps + 1):
            if setup.fault == "run" and step == 10:
                raise RuntimeError("broken on purpose in run")
            now = 4.0 * step / setup.steps
            wobble = 1 + setup.noise * draw.standard_normal((2, setup.seeds)) / np.sqrt(setup.width / 16)
            values = {
                "time": np.full(setup.seeds, now),
                "fast": np.exp(-setup.rate * now) * wobble[0],
                "slow": np.exp(-0.1 * setup.rate * now) * wobble[1],
            }
            done = step == setup.steps
            yield Frame(step, values, step / setup.steps, "done" if done else "running")
            if not done:
                yield Frame.tick(step, step / setup.steps)
                time.sleep(setup.pause)
    finally:
        LOG.open -= 1
        LOG.closed_in.append(threading.current_thread().name)


def _measured(frames: Sequence[Frame], name: str) -> tuple[np.ndarray, np.ndarray]:
    clock, values = series(frames, "time")[1], series(frames, name)[1]
    return (clock[:, 0], values.T) if len(values) else (np.zeros(0), np.zeros((0, 0)))


def figure(
    frames: Sequence[Frame],
    prediction: Mapping[str, np.ndarray],
    settings: Any = None,
) -> Chart:
    if settings is not None:
        _break(settings, "figure")
    panels = []
    for scale, title in (("log", "Residual energy"), ("linear", "The same, linear")):
        marks: list[Any] = []
        for color, name in enumerate(("fast", "slow")):
            label = {"fast": "information space", "slow": "nuisance space"}[name]
            if prediction:
                marks.append(Predicted(prediction["time"], prediction[name], label, color))
            marks.append(Measured(*_measured(frames, name), label, color))
        marks.append(Level(0.5, "half"))
        panels.append(Panel(title, marks, xlabel="time", ylabel="share of the labels", yscale=scale))
    return Chart(panels, caption=caption("How each part of the labels decays.", settings))


def _final(run: Run) -> Evidence:
    _break(run.settings, "claim")
    clock, values = run.series("fast")
    if len(clock) < 20:
        raise ValueError("too few frames")
    times = run.series("time")[1][:, 0]
    slopes = [np.polyfit(times[:20], np.log(np.abs(column[:20])), 1)[0] for column in values.T]
    return Evidence(measured=-np.array(slopes), predicted=run.settings.rate)


def _end(run: Run) -> Evidence:
    if run.status != "done":
        raise KeyError("the end")
    return Evidence(measured=run.last("slow"), predicted=float(run.prediction["slow"][-1]))


CLAIMS = (
    Claim(
        "T1", "prediction", "The fast part decays at the rate that theory gives.", "toy, eq. 1",
        (Equals("rate of decay", tolerance=0.5, absolute=True),), _final,
        says={"holds": "the fast part decays as predicted"},
    ),
    Claim(
        "T2", "theorem", "The slow part is where theory puts it at the end.", "toy, eq. 2",
        (Equals("slow part at the end", tolerance=0.5),), _end,
        says={"holds": "the slow part ends as predicted"},
    ),
)  # fmt: skip

TOY = Experiment(
    "toy", "How fast does each part of the labels decay?", Toy, {"quick": Toy(), "paper": Toy(steps=400)},
    prepare, predict, run, figure, CLAIMS, ("rate", "width", "noise", "lr"),
)  # fmt: skip
