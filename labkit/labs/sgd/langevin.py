"""Does a network train alike with added noise? (S7; paper 3, eq. 5 and Fig. 6)

The same networks on the same minibatches, by SGD and by SGD with Gaussian noise √(2 η T) ξ on every weight.
How much noise a network bears can be said beforehand: near a quadratic minimum each of its p directions takes
up T/2 of loss. A long run ends at a loss of p T/2 if all directions have settled, and below if they have not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit import figures, training
from labkit.labs import common
from labkit.labs.sgd import shared
from labkit.labs.sgd.shared import SGD, SGDL
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import INTERVAL, Check, Equals, Evidence
from labkit.protocol.settings import knob

CLOSE = 0.02  # of error: two curves nearer than this are alike
MEASURES = {"loss": "whole", "train_error": "train_error", "error": "error"}


@dataclass(frozen=True)
class Langevin(common.OnData):
    temperature: float = knob(1e-5, "T of the noise added to SGD", slider=(1e-7, 1e-2), bounds=(0, None),
                              scale="log")  # fmt: skip
    lr: float = shared.rate(0.1, "learning rate", slider=(0.01, 0.5), bounds=(0, None))
    batch_size: int = knob(32, "samples a step", slider=(8, 256), bounds=(1, None), scale="log2")
    steps: int = knob(1500, "steps", slider=(200, 6000), bounds=(20, None), step=100)
    width: int = knob(64, "hidden units", slider=(16, 256), bounds=(1, None), scale="log2")
    n: int = knob(1000, "samples", slider=(200, 1400), bounds=(10, None), step=100)
    depth: int = knob(2, "hidden layers", slider=(1, 4), bounds=(1, None), step=1)
    momentum: float = knob(0.0, "momentum", slider=(0, 0.95), bounds=(0, 0.999))
    dataset: str = knob("digits", "images", choices=("digits", "mnist-5k", "mnist", "cifar10"))
    seeds: int = knob(5, "independent repetitions", slider=(1, 10), bounds=(1, 1000))


def prepare(settings: Langevin) -> common.Setup:
    sets = shared.images(settings, n_test=10_000)
    return common.Setup(settings, sets, shared.networks(settings, sets[0].dim))


def predict(setup: common.Setup) -> Prediction:
    """No difference between the curves; and p T/2, the loss at which noise alone would hold the network."""
    weights = sum(parameter.numel() for parameter in setup.models[0].parameters())
    floor = np.array([weights * setup.settings.temperature / 2])
    return {"steps": np.array([0, setup.settings.steps]), "difference": np.zeros(2), "floor": floor}


def run(setup: common.Setup, prediction: Prediction) -> Iterator[Frame]:
    settings = setup.settings
    runs = [_trained(setup, temperature) for temperature in (0.0, settings.temperature)]
    step, progress = 0, 0.0
    while True:
        pair: list[Frame] = []
        for one in runs:
            # Both take their minibatches in one order, and are measured at the same steps.
            while (frame := next(one)).is_tick:
                progress = max(progress, 0.99 * (frame.progress or 0.0))  # the other one may be ahead
                yield Frame.tick(step, progress)
            pair.append(frame)
        step = pair[0].step
        broken = next((frame for frame in pair if frame.status == "diverged"), None)
        if broken is not None:
            yield Frame(max(step, broken.step), {}, None, "diverged", broken.note)
            return
        values = {
            name: np.stack([frame.values[measured] for frame in pair], axis=1)
            for name, measured in MEASURES.items()
        }
        if pair[0].status == "done":
            yield Frame(step, values, 1.0, "done")
            return
        yield Frame(step, values, 0.99 * step / settings.steps)


def _trained(setup: common.Setup, temperature: float) -> Iterator[Frame]:
    """SGD with this temperature; frames carry what `MEASURES` names, on all samples, (S,) each."""
    settings, sets = setup.settings, setup.sets

    def over(part: str, read: Callable[[Tensor, Tensor], Any]) -> training.loop.Measure:
        x, y = common.together(sets, f"x_{part}", f"y_{part}")

        def measure(ensemble: training.Ensemble) -> np.ndarray:
            with torch.no_grad():
                return np.asarray(read(ensemble(x), y))

        return measure

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        return training.losses.LOSSES["cross-entropy"](outputs, y).cpu()

    return training.train(
        training.Ensemble(setup.models), [one.x_train for one in sets], [one.y_train for one in sets],
        loss="cross-entropy", lr=settings.lr, momentum=settings.momentum, temperature=temperature,
        batch_size=settings.batch_size, steps=settings.steps, seed=settings.seed,
        measure={
            "whole": over("train", loss), "train_error": over("train", common.error_rate),
            "error": over("test", common.error_rate),
        },
        measure_at=max(1, settings.steps // 50),
    )  # fmt: skip


def figure(frames: Frames, prediction: Prediction, settings: Langevin | None = None) -> figures.Chart:
    steps, panels = prediction["steps"], []
    axes: dict[str, Any] = {"xlabel": "step", "xlim": (0, float(steps[-1]))}
    floor = figures.Predicted(steps, np.full(2, prediction["floor"][0]), "p T/2, if settled", SGDL)
    for name, title, ylabel in (
        ("loss", "Training loss", "cross-entropy"), ("error", "Validation error", "share wrong"),
    ):  # fmt: skip
        marks: list[figures.Mark] = [floor] if name == "loss" else []
        at, values = common.curve(frames, name)
        for place, (label, color) in enumerate((("SGD", SGD), ("SGD + noise", SGDL)) if len(at) else ()):
            marks.append(figures.Measured(at, values[place], label=label, color=color))
        panels.append(figures.Panel(title, marks, ylabel=ylabel, yscale="log", **axes))
    marks = [
        figures.Level(CLOSE, label="alike within"), figures.Level(-CLOSE),
        figures.Predicted(steps, prediction["difference"], color=SGDL),
    ]  # fmt: skip
    if len(at):
        marks.append(figures.Measured(at, values[1] - values[0], label="with noise − without", color=SGDL))
    difference = figures.Panel(
        "Difference of errors", marks, ylabel="validation error", ylim=(-0.05, 0.05), **axes
    )
    return figures.Chart.of(
        settings, "SGD with and without added noise: loss, validation error, and their difference.",
        *panels, difference,
    )  # fmt: skip


def _late(run: Run, name: str) -> np.ndarray:
    """(S, 2): the mean of the second half of a curve, without and with noise."""
    steps, values = run.series(name)
    if run.frames[-1].status != "done":
        raise ValueError(f"{name}: the run has not ended")
    return values[steps >= steps[-1] / 2].mean(axis=0)


def _alike(run: Run) -> tuple[Evidence, ...]:
    error, fitted = _late(run, "error"), _late(run, "train_error")
    checks = (
        Check("training error of SGD", float(fitted[:, 0].max()), 0.05, "not trained yet: raise steps or lr"),
    )
    losses = run.last("loss").mean(axis=0)
    note = f"training loss {losses[0]:.2g} and {losses[1]:.2g}, p T/2 = {run.prediction['floor'][0]:.2g}"
    better = f"better with noise by {(error[:, 0] - error[:, 1]).mean():.4f} (the paper: slightly better)"
    return (
        Evidence(fitted[:, 1], fitted[:, 0], checks=checks, note=note),
        Evidence(error[:, 1], error[:, 0], checks=checks, note=better),
    )


S7 = Claim(
    "S7", "finding",
    "With a little Gaussian noise added to each step SGD trains and validates as it does without.",
    "paper 3, eq. 5 and Fig. 6",
    (
        Equals("training error with noise, against without", by=INTERVAL, tolerance=CLOSE, absolute=True),
        Equals("validation error with noise, against without", by=INTERVAL, tolerance=CLOSE, absolute=True),
    ),
    _alike, "holds",
    {"holds": "training and validation errors are those of SGD within two hundredths",
     "fails": "this much noise changes what SGD reaches",
     "undecided": "the networks are not trained yet, or the seeds do not agree"},
    (World("three hundred times the temperature", {"temperature": 3e-3, "steps": 800, "n": 600}),),
)  # fmt: skip

LANGEVIN = Experiment(
    "langevin", "Does SGD train alike with added noise?", Langevin,
    {"quick": Langevin(), "paper": Langevin(
        dataset="cifar10", n=50_000, width=512, depth=1, steps=40_000, lr=0.05, batch_size=100,
        temperature=1e-7, seeds=3)},
    prepare, predict, run, figure, (S7,),
    controls=("temperature", "lr", "batch_size", "steps", "width", "n"),
)  # fmt: skip
