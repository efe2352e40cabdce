"""A lab that runs in milliseconds: every path of the command line, without any training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from labkit.figures import Chart, Measured, Panel, Predicted
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Lab, Run
from labkit.protocol.rules import AtMost, Evidence, Reported
from labkit.protocol.settings import Settings, knob


@dataclass(frozen=True)
class Decay(Settings):
    width: int = knob(8, "hidden units", slider=(1, 64), bounds=(1, None))
    noise: float = knob(0.0, "share of noisy labels", slider=(0.0, 1.0))


@dataclass(frozen=True)
class Extra(Settings):
    rank: int = knob(2, "rank", slider=(1, 8))
    fate: str = knob("done", "how it ends", choices=("done", "diverged", "interrupted"))


def decayed(step: int) -> float:
    """The measuring code, where a fault can be planted."""
    return 2.0**-step


def _prepare(settings: Any) -> Any:
    return settings


def _predict(setup: Any) -> dict[str, np.ndarray]:
    return {}


def _run(settings: Any, prediction: Any) -> Iterator[Frame]:
    for step in range(4):
        yield Frame(step, {"loss": np.full(settings.seeds, decayed(step))}, progress=step / 3)
    yield Frame(3, status="done", progress=1.0)


def _run_extra(settings: Any, prediction: Any) -> Iterator[Frame]:
    if settings.fate == "interrupted":
        raise KeyboardInterrupt
    if settings.fate == "diverged":
        yield Frame(0, status="diverged", note="learning rate 9 is too large; 0.5 would be stable")
        return
    yield Frame(1, {"value": np.array([np.nan] * settings.seeds)}, status="done")


def _figure(frames: Any, prediction: Any, settings: Any = None) -> Chart:
    steps = np.arange(4)
    values = [frame.values["loss"] for frame in frames if "loss" in frame.values]
    marks: list[Any] = [Predicted(steps, 2.0**-steps, label="theory")]
    if values:
        marks.append(Measured(np.arange(len(values)), np.stack(values, axis=1), label="measured"))
    return Chart((Panel("loss", tuple(marks)),), caption="a caption with <angles>")


def _half(run: Run) -> Evidence:
    return Evidence(measured=run.last("loss"), predicted=0.5)


def _negative(run: Run) -> Evidence:
    return Evidence(measured=run.last("loss"), predicted=-1.0)


def _value(run: Run) -> Evidence:
    return Evidence(measured=run.last("value"), note="not a number, on purpose")


def constant(original: Any) -> Any:
    """A fault: nothing decays."""
    return _one


def _one(step: int) -> float:
    return 1.0


DECAY = Experiment(
    name="decay", title="Does it decay?", settings=Decay,
    presets={"quick": Decay(), "paper": Decay(width=64)}, prepare=_prepare, predict=_predict,
    run=_run, figure=_figure,
    claims=(
        Claim("T1", "theorem", "the loss falls below one half", "a paper, (1)", (AtMost("last loss"),), _half,
              says={"holds": "it does", "fails": "it does not"},
              worlds=(World("nothing decays", faults={"tests.tinylab:decayed": constant}),)),
        Claim("T3", "prediction", "the loss is below -1", "a paper, (3)", (AtMost("last loss"),), _negative,
              "fails", {"fails": "a loss is never negative"}, because="a loss is never negative"),
    ),
)  # fmt: skip

EXTRA = Experiment(
    name="extra", title="What else?", settings=Extra,
    presets={"quick": Extra()}, prepare=_prepare, predict=_predict, run=_run_extra, figure=_figure,
    claims=(
        Claim("T2", "finding", "a value is reported", "a paper, (2)", (Reported("value"),), _value,
              "reported"),
    ),
)  # fmt: skip

LAB = Lab(7, "tiny", "A tiny lab", "Nobody, Nothing", (DECAY, EXTRA), core=("T1",), notebook="07_tiny")
