"""How wide is wide enough for the linearised picture?
Deviation of trained and linearised residuals (J5, Thm 5.3).

The width is swept for a smooth activation and for ReLU, and the slope of the deviation read off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch

from labkit import figures
from labkit.labs import common
from labkit.labs.jacobian import shared
from labkit.labs.jacobian.shallow import descend, kernel, network, norm
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import INTERVAL, Between, Equals, Evidence
from labkit.protocol.settings import knob
from labkit.protocol.statistics import exponent

ACTIVATIONS = ("softplus", "relu")


@dataclass(frozen=True)
class Linearization(common.OnData):
    widest: int = knob(1600, "largest width k", slider=(400, 12_800), bounds=(200, None), scale="log2")
    repeats: int = knob(4, "networks averaged in each seed", slider=(1, 8), bounds=(1, None), step=1)
    steps: int = knob(60, "steps of gradient descent", slider=(20, 300), bounds=(1, None), scale="log")
    lr: float = shared.learning_rate(0.9, "learning rate in units of 1/λ₁²", (0.05, 1.9), most=1e3)
    label_noise: float = shared.label_noise(0.0)
    n: int = knob(40, "training images", slider=(10, 100), bounds=(4, None), step=10)
    classes: int = knob(3, "classes K", slider=(2, 10), bounds=(2, None), step=1)
    dataset: str = knob("digits", "name of a data set, or path to an .npz")


def prepare(settings: Linearization) -> common.Setup:
    sets = common.datasets(
        settings, n_test=30, normalize="none", label_noise=settings.label_noise, dtype=torch.float64
    )
    return common.Setup(settings, sets)


def predict(setup: common.Setup) -> Prediction:
    """The exponents: −1 for a smooth activation, −½ for ReLU, whose mask flips for about √k units."""
    widths = np.unique(np.geomspace(100, setup.settings.widest, 5).round().astype(int))
    return {"widths": widths, "softplus": np.array(-1.0), "relu": np.array(-0.5)}


def run(setup: common.Setup, prediction: Prediction) -> Iterator[Frame]:
    settings, widths = setup.settings, prediction["widths"].tolist()
    for index, width in enumerate(widths):
        worst = common.blank(settings.seeds, **dict.fromkeys(ACTIVATIONS, (settings.repeats,)))

        def means(worst: Mapping[str, np.ndarray] = worst) -> dict[str, np.ndarray]:
            return {f"deviation_{name}": found.mean(axis=1) for name, found in worst.items()}

        for name, place in product(ACTIVATIONS, np.ndindex(settings.seeds, settings.repeats)):
            worst[name][place] = _deviation(setup, width, name, *place)
            yield Frame.tick(width, index / len(widths), means)
        done = index + 1 == len(widths)
        yield Frame(width, means(), (index + 1) / len(widths), "done" if done else "running")


def _deviation(setup: common.Setup, width: int, activation: str, seed: int, repeat: int) -> float:
    """max over steps of ‖r_τ − r̃_τ‖/‖r₀‖."""
    model, x, y = network(setup, width, activation, seed, repeat)
    gram = kernel(model, x)
    lr = setup.settings.lr / norm(gram) ** 2
    linear = shared.residual(model, x, y)
    start, worst = linear.norm(), torch.zeros_like(linear[0])
    for _ in range(setup.settings.steps + 1):
        true = descend(model, x, y, lr).flatten()
        worst = torch.fmax(worst, (true - linear).norm())
        linear = linear - lr * (gram @ linear)
    return float(worst / start)


def figure(frames: Frames, prediction: Prediction, settings: Linearization | None = None) -> figures.Chart:
    widths = prediction["widths"]
    words = {"softplus": "−1", "relu": "−½"}
    told = {name: (slope, (widths / widths[0]) ** float(prediction[name])) for name, slope in words.items()}
    return figures.Chart.of(
        settings, "The largest gap between training and its linearisation, as the network grows wider.",
        figures.Panel(
            "How far does training leave the linearised path?",
            shared.slopes(frames, widths, "deviation", told), ylabel="max ‖r − r̃‖ / ‖r₀‖",
            **shared.width_axis(widths),
        ),
    )  # fmt: skip


def _exponents(run: Run) -> tuple[Evidence, Evidence]:
    slopes, notes = {}, []
    for name in ACTIVATIONS:
        widths, worst = run.series(f"deviation_{name}")
        slopes[name] = exponent(widths, worst.T)
        notes.append(f"at k = {widths[0]} and {widths[-1]}: {worst[0].mean():.2g}, {worst[-1].mean():.2g}")
    relu = f"{notes[1]}; exponent {slopes['relu'].mean():.2f}"
    return (
        Evidence(slopes["softplus"], run.prediction["softplus"], note=notes[0]),
        Evidence(slopes["relu"] - slopes["softplus"], note=relu),
    )


J5 = Claim(
    "J5", "prediction",
    "The deviation of the trained from the linearised residual falls with the width as 1/k for a smooth "
    "activation, and more slowly for ReLU.",
    "paper 4, Thm 5.3",
    (
        Equals("exponent in k of max ‖r − r̃‖/‖r₀‖, softplus", tolerance=0.25, absolute=True, by=INTERVAL),
        Between("exponent of ReLU minus that of softplus", low=0.15),
    ),
    _exponents,
    says={"holds": "the deviation falls as 1/k for softplus, and more slowly for ReLU",
          "fails": "the deviation does not fall as 1/k for softplus, or for ReLU as fast"},
    worlds=(
        World("steps past the edge of stability", {"lr": 2.5}),
        World("the rows of J in another order", faults={f"{__name__}:kernel": shared.shuffled_gram}),
    ),
)  # fmt: skip
LINEARIZATION = Experiment(
    "linearization", "How wide is wide enough for the linearised picture?", Linearization,
    {"quick": Linearization(seeds=8), "paper": Linearization(widest=12_800, steps=100, seeds=8)},
    prepare, predict, run, figure, (J5,), controls=("widest", "label_noise", "lr", "steps"),
)  # fmt: skip
