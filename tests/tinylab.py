"""A lab that runs in milliseconds: every path of the command line, without any training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from labkit.claims import Claim
from labkit.experiment import Experiment, Frame, Lab, Run
from labkit.figures import Chart, Measured, Panel, Predicted
from labkit.rules import AtMost, Evidence, Reported
from labkit.settings import Settings, knob


@dataclass(frozen=True)
class Decay(Settings):
    width: int = knob(8, "hidden units", slider=(1, 64), bounds=(1, None))
    noise: float = knob(0.0, "share of noisy labels", slider=(0.0, 1.0))


@dataclass(frozen=True)
class Extra(Settings):
    rank: int = knob(2, "rank", slider=(1, 8))
    fate: str = knob("done", "how it ends", choices=("done", "diverged", "interrupted"))


def _run(settings: Any, prediction: Any) -> Iterator[Frame]:
    for step in range(4):
        yield Frame(step, {"loss": np.full(settings.seeds, 2.0**-step)}, progress=step / 3)
    yield Frame(3, status="done", progress=1.0)


def _run_extra(settings: Any, prediction: Any) -> Iterator[Frame]:
    if settings.fate == "interrupted":
        raise KeyboardInterrupt
    if settings.fate == "diverged":
        yield Frame(0, status="diverged", note="learning rate 9 is too large; 0.5 would be stable")
        return
    yield Frame(1, {"value": np.array([np.nan] * settings.seeds)}, status="done")


def _figure(frames: Any, prediction: Any, previous: Any = (), settings: Any = None) -> Chart:
    steps = np.arange(4)
    values = [frame.values["loss"] for frame in frames if "loss" in frame.values]
    marks: list[Any] = [Predicted(steps, 2.0**-steps, label="theory")]
    if values:
        marks.append(Measured(np.arange(len(values)), np.stack(values, axis=1), label="measured"))
    return Chart((Panel("loss", tuple(marks)),), caption="a caption with <angles>")


def _loss(run: Run) -> Evidence:
    return Evidence(measured=run.last("loss"), predicted=0.5)


DECAY = Experiment(
    name="decay", title="Does it decay?", settings=Decay,
    presets={"quick": Decay(), "paper": Decay(width=64)}, prepare=lambda settings: settings,
    predict=lambda settings: {}, run=_run, figure=_figure,
    claims=(
        Claim("T1", "the loss falls below one half", "a paper, (1)", (AtMost(),), _loss, "holds",
              {"holds": "it does"}),
        Claim("T3", "the loss is below -1", "a paper, (3)", (AtMost(),),
              lambda run: replace(_loss(run), predicted=-1.0), "fails"),
    ),
)  # fmt: skip

EXTRA = Experiment(
    name="extra", title="What else?", settings=Extra,
    presets={"quick": Extra()}, prepare=lambda settings: settings,
    predict=lambda settings: {}, run=_run_extra, figure=_figure,
    claims=(
        Claim("T2", "a value is reported", "a paper, (2)", (Reported(),),
              lambda run: Evidence(measured=run.last("value"), predicted=np.inf), "reported"),
    ),
)  # fmt: skip

LAB = Lab(7, "tiny", "A tiny lab", "Nobody, Nothing", (DECAY, EXTRA), core=("T1",), notebook="07_tiny")
