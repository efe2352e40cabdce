"""Do the layers of a network work together? (E12, E17, E18; paper 2, section 4 and App. D, Figs. 5 to 8)

Three conditions make small sharpness provable: (C1) no product of successive layers is much smaller than its
factors allow, μ; (C2) few units stand close to zero, C₂; (C3) no unit's weights stand out, C₃. They are
measured on a network at its start, after learning true labels and after learning random ones.

The paper reads μ ≥ 1/4, C₂ ≤ 5, C₃ ≤ 3 off histograms of learned networks, so μ is judged here at the 10th
percentile over samples; the least stands beside it. (C2) as printed has a δ in absolute units at ‖x‖ = 1: its
C₂ grows when the weights of a layer shrink, and is far above 5 (E18). With δ as a share of the layer's root
mean square, a Gaussian layer has C₂ = .8. Of random labels the paper says nothing here; they are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labkit import figures, models, training
from labkit.labs import common
from labkit.labs.generalization import shared
from labkit.labs.generalization.shared import COLORS, KINDS, WORDS
from labkit.measure.conditions import Conditions, conditions
from labkit.measure.relu_chain import chain_inputs, chain_weights, forward
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.memory import once
from labkit.protocol.rules import EVERY, Between, Check, Evidence
from labkit.protocol.settings import knob

LEAST_MU, MOST_C2, MOST_C3 = 0.25, 5.0, 3.0  # what the paper's experiments suggest
TAIL = 0.1
ALIKE = 1.25  # up to this factor, up or down, we call two constants very similar
Setup = common.Setup
# The paper's network and training, of all experiments on a deep perceptron.
PAPER: dict[str, Any] = {
    "dataset": "mnist", "n": 60_000, "width": 1000, "hidden": 9, "lr": 0.01, "stop": 1e-4, "epochs": 500,
}  # fmt: skip
GRID = np.geomspace(0.1, 3.0, 60)


@dataclass(frozen=True)
class Deep(common.OnData):
    """A deep perceptron without biases, as section 4 has it."""

    width: int = knob(100, "units of each hidden layer", slider=(20, 400), bounds=(1, None), scale="log2")
    hidden: int = knob(4, "hidden layers", slider=(1, 9), bounds=(1, 100), step=1, label="hidden layers")
    n: int = knob(300, "training samples", slider=(100, 900), bounds=(10, None), step=100)
    samples: int = knob(
        100, "samples at which the conditions are looked at", slider=(20, 300), bounds=(2, None), step=20,
        remeasures=True,
    )  # fmt: skip
    stop: float = shared.stop_at()
    lr: float = shared.learning_rate(0.03)
    epochs: int = knob(2000, "longest training", slider=(100, 5000), bounds=(1, None), scale="log")
    classes: int = knob(10, "classes K", slider=(2, 10), bounds=(2, None), step=1)
    dataset: str = knob("digits", "name of a data set, or path to an .npz")


def prepare(settings: Deep) -> Setup:
    """The sets are sets[true, random][seed]."""
    sets = tuple(
        common.datasets(settings, n_test=1, normalize="standardize", label_noise=noise, noise_kind="redraw")
        for noise in (0.0, 1.0)
    )
    inputs = sets[0][0].x_train.shape[1]
    nets = tuple(
        models.mlp(
            inputs, settings.width, settings.hidden, settings.classes, bias=False, seed=seed,
            device=settings.device,
        )
        for seed in common.seeds(settings)
    )  # fmt: skip
    return Setup(settings, sets, nets)


def samples(setup: Setup, seed: int) -> Tensor:
    """The first samples of a training set: there the conditions are looked at."""
    return setup.sets[0][seed].x_train[: setup.settings.samples]


def looked_at(setup: Setup, model: nn.Module, seed: int) -> Conditions:
    return once(conditions, model, samples(setup, seed))


def sizes(model: nn.Module, x: Tensor) -> Tensor:
    """Root mean square of the pre-activations of every hidden layer at x/‖x‖: (n, d-1)."""
    unit = nn.functional.normalize(chain_inputs(model, x, "sizes"))
    before, _ = forward(chain_weights(model, "sizes"), unit)
    return torch.stack([z.double().square().mean(1).sqrt() for z in before[:-1]], dim=1).cpu()


def constants(setup: Setup, model: nn.Module, seed: int) -> dict[str, Any]:
    """μ of each sample, sorted; C₂ of each hidden layer and C₃ of each layer, the largest over samples.

    `printed` is C₂ with δ in absolute units, as the paper has it for ‖x‖ = 1.
    """
    found = looked_at(setup, model, seed)
    printed = found.c2 / sizes(model, samples(setup, seed))
    return {
        "mu": np.sort(found.mu.numpy()), "c2": found.c2.amax(0).numpy(), "c3": found.c3.amax(0).numpy(),
        "printed": printed.amax(0).numpy(),
    }  # fmt: skip


def predict(setup: Setup) -> Prediction:
    """The constants at initialisation: the paper finds that learning hardly changes them."""
    return common.stacked([constants(setup, model, s) for s, model in enumerate(setup.models)])


def learn(
    setup: Setup, kind: int, span: tuple[float, float], showing: common.Showing
) -> Generator[Frame, None, tuple[training.Ensemble, common.Outcome]]:
    """Networks of all seeds, trained on true (0) or random (1) labels; says so where they diverge."""
    ensemble, samples = training.Ensemble(setup.models), shared.samples(setup.sets[kind])
    how = {"span": span, "step": kind, "showing": showing}
    outcome = yield from shared.fit(setup.settings, ensemble, samples, **how)
    if outcome.word == "diverged":
        yield Frame(kind, {}, span[0], "diverged", outcome.told(WORDS[kind])[0])
    return ensemble, outcome


def run(setup: Setup, prediction: Prediction) -> Iterator[Frame]:
    seeds = len(setup.models)
    shapes = {name: start.shape[1:] for name, start in prediction.items()}
    values = common.blank(seeds, len(KINDS), loss=(), **shapes)
    notes = []

    def read(s: int, k: int, values: dict[str, np.ndarray], ensemble: training.Ensemble) -> Prediction:
        model, one = ensemble.member(s), setup.sets[k][s]
        loss = common.fitted(model, one.x_train, one.y_train)[0]
        common.put(values, (s, k), constants(setup, model, s) | {"loss": loss})
        return values

    for k, (begin, end) in enumerate(((0.0, 0.3), (0.3, 1.0))):
        seen = partial(read, 0, k, common.snapshot(values))
        ensemble, outcome = yield from learn(setup, k, (begin, end), seen)
        notes += outcome.told(WORDS[k])
        if outcome.word == "diverged":
            return
        for s in range(seeds):
            yield Frame(k, common.snapshot(read(s, k, values, ensemble)), end)
        last = k == len(KINDS) - 1
        yield Frame(k, common.snapshot(values), end, "done" if last else "running", "; ".join(notes))


def figure(frames: Frames, prediction: Prediction, settings: Deep | None = None) -> figures.Chart:
    panels = []
    for name, title, xlabel, ylabel, level in (
        ("mu", "(C1) Layers that work together", "μ", "share of samples below", LEAST_MU),
        ("c2", "(C2) Units close to zero", "hidden layer", "C₂, worst sample", MOST_C2),
        ("c3", "(C3) Weights that stand out", "layer", "C₃, worst sample", MOST_C3),
    ):
        known = common.newest(frames, name)
        marks: list[figures.Mark] = [
            figures.Predicted(*_drawn(name, prediction[name]), label="at the start", color="ink")
        ]
        if known is not None:
            marks += [
                figures.Measured(*_drawn(name, known[:, k]), label=WORDS[k], color=color)
                for k, color in enumerate(COLORS)
                if not np.isnan(known[:, k]).all()
            ]
        marks.append(figures.Level(level, label="the paper's", axis="x" if name == "mu" else "y"))
        shape = {"xscale": "log", "ylim": (0, 1)} if name == "mu" else {"ylim": (0, 1.2 * level)}
        panels.append(figures.Panel(title, marks, xlabel=xlabel, ylabel=ylabel, **shape))
    says = "The three conditions of Theorem 1, on networks that fit true and random labels."
    return figures.Chart.of(settings, says, *panels)


def _drawn(name: str, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """μ as a distribution over samples, the others by layer."""
    if name == "mu":
        return GRID, (values[..., None] < GRID).mean(axis=1)
    return np.arange(1, values.shape[1] + 1), values


def _low(mu: np.ndarray) -> np.ndarray:
    return np.quantile(mu, TAIL, axis=1)


def _before_after(run: Run) -> tuple[dict[str, np.ndarray], tuple[Check, ...]]:
    """Each constant at the start and learned from true labels, (S, 2): μ at its tail, the others at worst."""
    summary = {"mu": _low} | dict.fromkeys(("c2", "c3", "printed"), lambda values: values.max(axis=1))
    pairs = {
        name: np.stack([of(run.prediction[name]), of(run.last(name)[:, 0])], axis=1)
        for name, of in summary.items()
    }
    return pairs, shared.trained(run, (..., 0))


def _hold(run: Run) -> tuple[Evidence, Evidence, Evidence]:
    pairs, checks = _before_after(run)
    least = [float(mu.min()) for mu in (run.prediction["mu"], run.last("mu")[:, 0])]
    random = run.last("mu")[:, 1]
    note = (
        f"least μ over samples and seeds {least[0]:.2g} and {least[1]:.2g}; learned from random labels: 10th "
        f"percentile {_low(random).mean():.2g}, least {random.min():.2g}"
    )
    return (
        Evidence(pairs["mu"], checks=checks, note=note),
        Evidence(pairs["c2"], checks=checks),
        Evidence(pairs["c3"], checks=checks),
    )


def _stay(run: Run) -> Evidence:
    pairs, checks = _before_after(run)
    ratios = [pairs[name][:, 1] / pairs[name][:, 0] for name in ("mu", "c2", "c3")]
    return Evidence(np.stack(ratios, axis=1), checks=checks)


def _printed(run: Run) -> Evidence:
    pairs, checks = _before_after(run)
    return Evidence(pairs["printed"], checks=checks)


Measure = Callable[[Setup, nn.Module, int], dict[str, np.ndarray]]


def _start_again(measure: Measure) -> Measure:
    """Looks at the network at its start, whichever it is given."""
    return lambda setup, model, seed: measure(setup, setup.models[seed], seed)


def _own_scale(measure: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Pre-activations in units of their own root mean square."""
    return lambda model, x: torch.ones_like(measure(model, x))


_HERE = "labkit.labs.generalization.conditions"
_CHEAP = {"seeds": 1, "n": 100}
_WHEN = ("at the start", "learned")
_UNFINISHED = "a network has not been trained to its end"

E12 = Claim(
    "E12", "finding",
    "At the start and after learning true labels μ ≥ 1/4 (at 90 % of the samples), C₃ ≤ 3, and C₂ ≤ 5 for δ "
    "of a tenth to a half of the layer's root mean square.",
    "paper 2, section 4 and App. D",
    (
        Between("μ of (C1), 10th percentile over samples", _WHEN, low=LEAST_MU, by=EVERY),
        Between("C₂ of the worst layer and sample, δ relative", _WHEN, high=MOST_C2, by=EVERY),
        Between("C₃ of the worst layer and sample", _WHEN, high=MOST_C3, by=EVERY),
    ),
    _hold, "holds",
    {"holds": "the conditions hold with the paper's constants, before and after learning",
     "fails": "a condition does not hold with the paper's constants",
     "undecided": _UNFINISHED},
    (World("narrow and deep: sixteen units in each of seven layers, three classes",
           {"seeds": 1, "n": 60, "width": 16, "hidden": 7, "classes": 3, "lr": 0.05}),),
)  # fmt: skip
E17 = Claim(
    "E17", "finding",
    f"Learning leaves the constants of (C1) to (C3) as they were at the start, within a factor of {ALIKE}.",
    "paper 2, App. D",
    (
        Between("constant learned, over that at the start", ("μ", "C₂", "C₃"),
                low=1 / ALIKE, high=ALIKE, by=EVERY),
    ),
    _stay, "fails",
    {"holds": "the learned network is like its start in all three",
     "fails": "learning true labels makes layers work together: μ rises, and C₂ and C₃ hardly move",
     "undecided": _UNFINISHED},
    (World("the start looked at twice", _CHEAP, {f"{_HERE}:constants": _start_again}, "holds"),),
    "μ doubles here; the paper's ten layers of 1000 units on MNIST are out of reach at this size",
)  # fmt: skip
E18 = Claim(
    "E18", "finding",
    "(C2) as printed, δ in absolute units at ‖x‖ = 1, holds with C₂ ≤ 5 at the start and after learning.",
    "paper 2, section 4",
    (Between("C₂ of the worst layer and sample, δ absolute", _WHEN, high=MOST_C2, by=EVERY),),
    _printed, "fails",
    {"holds": "few units stand close to zero, in absolute units too",
     "fails": "in absolute units many units stand close to zero: at ‖x‖ = 1 all pre-activations are small",
     "undecided": _UNFINISHED},
    (World("δ in units of the layer's root mean square", _CHEAP, {f"{_HERE}:sizes": _own_scale}, "holds"),),
    "at ‖x‖ = 1 the pre-activations of h units are of size 1/√h, so that C₂ grows like √h",
)  # fmt: skip

CONDITIONS = Experiment(
    "conditions", "Do the layers of a network work together?", Deep,
    {
        "quick": Deep(),
        "paper": Deep(**PAPER, samples=50),
    },
    prepare, predict, run, figure, (E12, E17, E18), controls=("width", "hidden", "n", "stop"),
)  # fmt: skip
