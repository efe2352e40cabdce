"""Do the layers of a network work together? (E12; paper 2, section 4 and App. D, Figs. 5 to 8)

Three conditions make small sharpness provable: (C1) no product of successive layers is much smaller than its
factors allow, μ; (C2) few units stand close to zero, C₂; (C3) no unit's weights stand out, C₃. They are
measured on a network at its start, after learning true labels and after learning random ones.

The paper reads μ ≥ 1/4, C₂ ≤ 5, C₃ ≤ 3 off histograms of learned networks, so μ is judged here at the 5th
percentile over samples; the least is printed beside it. Random labels are reported: the paper has none here.
On 900 of them μ comes down to .28 and C₃ may pass 3.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from labkit import data, figures, models, training
from labkit.labs import common
from labkit.labs.generalization import shared
from labkit.measure.conditions import Conditions, conditions
from labkit.protocol.claims import Claim
from labkit.protocol.experiment import Experiment, Frame, Prediction, Run
from labkit.protocol.rules import AtMost, Check, Evidence, Reported
from labkit.protocol.settings import Settings, knob

LEAST_MU, MOST_C2, MOST_C3 = 0.25, 5.0, 3.0  # what the paper's experiments suggest
TAIL = 0.05
KINDS = ("true", "random")
WORDS = ("true labels", "random labels")
GRID = np.geomspace(0.1, 3.0, 60)


@dataclass(frozen=True)
class Deep(Settings):
    """A deep perceptron without biases, as section 4 has it."""

    width: int = knob(100, "units of each hidden layer", slider=(20, 400), bounds=(1, None), scale="log2")
    hidden: int = knob(4, "hidden layers", slider=(1, 9), bounds=(1, 100), step=1, label="hidden layers")
    n: int = knob(300, "training samples", slider=(100, 900), bounds=(10, None), step=100)
    samples: int = knob(
        100, "samples at which the conditions are looked at", slider=(20, 300), bounds=(2, None), step=20
    )
    stop: float = knob(
        1e-3, "cross-entropy at which training stops", slider=(1e-4, 0.1), bounds=(1e-6, 0.5), scale="log",
        label="stop at loss",
    )  # fmt: skip
    lr: float = knob(
        0.03, "learning rate of SGD with momentum .9 and batches of 64", slider=(0.005, 0.1),
        bounds=(1e-6, 100), scale="log", label="learning rate",
    )  # fmt: skip
    epochs: int = knob(2000, "longest training", slider=(100, 5000), bounds=(1, None), scale="log")
    classes: int = knob(10, "classes K", slider=(2, 10), bounds=(2, None), step=1)
    dataset: str = knob("digits", "name of a data set, or path to an .npz")


@dataclass(frozen=True)
class Setup:
    settings: Deep
    sets: tuple[tuple[data.Dataset, ...], ...]  # [true, random][seed]
    models: tuple[nn.Module, ...]


def prepare(settings: Deep) -> Setup:
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


def looked_at(setup: Setup, model: nn.Module, seed: int) -> Conditions:
    """The conditions of one network at the first samples of its training set."""
    return conditions(model, setup.sets[0][seed].x_train[: setup.settings.samples])


def constants(found: Conditions) -> dict[str, np.ndarray]:
    """μ of each sample, sorted; C₂ of each hidden layer and C₃ of each layer, the largest over samples."""
    return {
        "mu": np.sort(found.mu.numpy()), "c2": found.c2.amax(0).numpy(), "c3": found.c3.amax(0).numpy()
    }  # fmt: skip


def predict(setup: Setup) -> Prediction:
    """The constants at initialisation: the paper finds that learning hardly changes them."""
    found = [constants(looked_at(setup, model, s)) for s, model in enumerate(setup.models)]
    return {name: np.stack([one[name] for one in found]) for name in found[0]}


def learn(
    setup: Setup, kind: int, span: tuple[float, float]
) -> Generator[Frame, None, tuple[training.Ensemble, shared.Outcome]]:
    """Networks of all seeds, trained on true (0) or random (1) labels."""
    settings, sets = setup.settings, setup.sets[kind]
    ensemble = training.Ensemble(setup.models)
    outcome = yield from shared.fit(
        settings, ensemble, [one.x_train for one in sets], [one.y_train for one in sets], loss=settings.stop,
        epochs=settings.epochs, seed=settings.seed, span=span, step=kind,
    )  # fmt: skip
    return ensemble, outcome


def run(setup: Setup, prediction: Prediction) -> Iterator[Frame]:
    seeds = len(setup.models)
    values = {
        name: np.full((seeds, len(KINDS), *start.shape[1:]), np.nan) for name, start in prediction.items()
    }
    values["loss"] = np.full((seeds, len(KINDS)), np.nan)
    notes = []
    for k, (begin, end) in enumerate(((0.0, 0.3), (0.3, 1.0))):
        ensemble, outcome = yield from learn(setup, k, (begin, end))
        if outcome.word == "diverged":
            yield Frame(k, {}, begin, "diverged", f"{WORDS[k]}: {outcome.note}")
            return
        if outcome.word == "missed":
            notes.append(f"{WORDS[k]}: {outcome.note}")
        for s in range(seeds):
            model, one = ensemble.member(s), setup.sets[k][s]
            for name, value in constants(looked_at(setup, model, s)).items():
                values[name][s, k] = value
            values["loss"][s, k] = shared.fitted(model, one.x_train, one.y_train)[0]
            yield Frame.tick(k, end)
        last = k == len(KINDS) - 1
        yield Frame(k, shared.snapshot(values), end, "done" if last else "running", "; ".join(notes))


def figure(
    frames: Sequence[Frame],
    prediction: Prediction,
    previous: Sequence[Run] = (),
    settings: Deep | None = None,
) -> figures.Chart:
    panels = []
    for name, title, xlabel, ylabel, level in (
        ("mu", "(C1) Layers that work together", "μ", "share of samples below", LEAST_MU),
        ("c2", "(C2) Units close to zero", "hidden layer", "C₂, worst sample", MOST_C2),
        ("c3", "(C3) Weights that stand out", "layer", "C₃, worst sample", MOST_C3),
    ):
        known = common.newest(frames, name)
        marks: list[figures.Mark] = [
            figures.Earlier(*_drawn(name, old[:, k]), label="earlier run")
            for run in previous
            if (old := common.newest(run.frames, name)) is not None
            for k in range(len(KINDS))
        ]
        marks.append(figures.Predicted(*_drawn(name, prediction[name]), label="at the start", color="ink"))
        if known is not None:
            marks += [
                figures.Measured(*_drawn(name, known[:, k]), label=WORDS[k], color=color)
                for k, color in enumerate((shared.TRUE, shared.RANDOM))
                if not np.isnan(known[:, k]).all()
            ]
        marks.append(figures.Level(level, label="the paper's", axis="x" if name == "mu" else "y"))
        shape = {"xscale": "log", "ylim": (0, 1)} if name == "mu" else {"ylim": (0, 1.2 * level)}
        panels.append(figures.Panel(title, tuple(marks), xlabel=xlabel, ylabel=ylabel, **shape))
    return figures.Chart(tuple(panels), caption=figures.caption(settings) if settings else "")


def _drawn(name: str, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """μ as a distribution over samples, the others by layer."""
    if name == "mu":
        return GRID, (values[..., None] < GRID).mean(axis=1)
    return np.arange(1, values.shape[1] + 1), values


def _conditions(run: Run) -> tuple[Evidence, Evidence, Evidence, Evidence]:
    start, found = run.prediction, {name: run.last(name) for name in ("mu", "c2", "c3", "loss")}
    checks = (
        Check(
            "training loss of the learned network", float(np.max(found["loss"][:, 0])),
            1.02 * run.settings.stop, "raise epochs",
        ),
    )  # fmt: skip
    # (S, 2): at the start, and learned from true labels.
    low = np.stack([np.quantile(v, TAIL, axis=1) for v in (start["mu"], found["mu"][:, 0])], axis=1)
    least = [v.min(axis=1).mean() for v in (start["mu"], found["mu"][:, 0])]
    c2, c3 = (np.stack([start[n].max(axis=1), found[n][:, 0].max(axis=1)], axis=1) for n in ("c2", "c3"))
    random = {name: found[name][:, 1] for name in ("mu", "c2", "c3")}
    random_low = np.quantile(random["mu"], TAIL, axis=1)
    # A reciprocal, as μ falls towards its edge in proportion.
    return (
        Evidence(
            LEAST_MU / low, 1.0, checks=checks,
            note=f"5th percentile of μ: start {low[:, 0].mean():.2g}, learned {low[:, 1].mean():.2g}; "
            f"least {least[0]:.2g}, {least[1]:.2g}",
        ),
        Evidence(c2, MOST_C2, checks=checks, note=f"C₂ {c2[:, 0].max():.2g}, {c2[:, 1].max():.2g}"),
        Evidence(c3, MOST_C3, checks=checks, note=f"C₃ {c3[:, 0].max():.2g}, {c3[:, 1].max():.2g}"),
        Evidence(
            random_low, LEAST_MU,
            note=f"random labels: 5th percentile of μ {random_low.mean():.2g}, least "
            f"{random['mu'].min():.2g}, C₂ {random['c2'].max():.2g}, C₃ {random['c3'].max():.2g}",
        ),
    )  # fmt: skip


E12 = Claim(
    "E12",
    "At the start and after learning true labels, μ ≥ 1/4 (at 95 % of the samples), C₂ ≤ 5 and C₃ ≤ 3.",
    "paper 2, section 4 and App. D", (AtMost(), AtMost(), AtMost(), Reported()), _conditions, "holds",
    {"holds": "they hold with room, before and after learning; random labels stand closer to the edge",
     "fails": "a condition does not hold with the paper's constants",
     "undecided": "a network has not been trained to its end"},
)  # fmt: skip

CONDITIONS = Experiment(
    "conditions", "Do the layers of a network work together?", Deep,
    {
        "quick": Deep(),
        "paper": Deep(
            dataset="mnist", n=60_000, width=1000, hidden=9, lr=0.01, stop=1e-4, epochs=500, samples=50
        ),
    },
    prepare, predict, run, figure, (E12,), controls=("width", "hidden", "n", "stop"),
)  # fmt: skip
