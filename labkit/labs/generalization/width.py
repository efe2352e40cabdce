"""Wider and wider: which measure falls with the test error? (E10; paper 2, Fig. 4)

Perceptrons of doubling width are trained to one loss on the same true labels. Prediction before training: the
number of parameters times layers, the order of the VC dimension (1), says the more the worse.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from labkit import data, figures, training
from labkit.labs import common
from labkit.labs.generalization import panels, shared
from labkit.measure.layers import weight_layers
from labkit.protocol.claims import Claim
from labkit.protocol.experiment import Experiment, Frame, Prediction, Run
from labkit.protocol.rules import AtMost, Evidence, Monotone, Reported
from labkit.protocol.settings import knob

STAYS = 0.03  # how far above its least the test error of the widest network may lie and still count as low


@dataclass(frozen=True)
class Width(shared.Trained):
    narrowest: int = knob(8, "units of the narrowest network", slider=(4, 64), bounds=(1, None), scale="log2")
    width: int = knob(
        512, "units of the widest network; widths double up to it", slider=(64, 2048), bounds=(2, None),
        scale="log2", label="widest",
    )  # fmt: skip
    n: int = knob(400, "training samples", slider=(100, 1400), bounds=(20, None), step=100)
    n_test: int = knob(1400, "test samples, at most", slider=(200, 1400), bounds=(10, None), step=100)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width < 2 * self.narrowest:
            raise ValueError(
                f"width must be at least twice the narrowest, {2 * self.narrowest}; got {self.width}"
            )

    @property
    def widths(self) -> tuple[int, ...]:
        found = [self.narrowest]
        while 2 * found[-1] <= self.width:
            found.append(2 * found[-1])
        return tuple(found)


@dataclass(frozen=True)
class Setup:
    settings: Width
    sets: tuple[data.Dataset, ...]
    models: tuple[tuple[nn.Module, ...], ...]  # [width][seed]


def prepare(settings: Width) -> Setup:
    sets = tuple(shared.classification(settings, settings.n, seed) for seed in common.seeds(settings))
    nets = tuple(
        tuple(shared.network(settings, sets[0].shape, seed, width) for seed in common.seeds(settings))
        for width in settings.widths
    )
    return Setup(settings, sets, nets)


def predict(setup: Setup) -> Prediction:
    """Layers times parameters of every width, (1) without logarithms, over that of the narrowest."""
    x = setup.sets[0].x_train
    order = []
    for model, *_ in setup.models:
        net = shared.folded(model)
        order.append(len(weight_layers(net, x)) * sum(p.numel() for p in net.parameters()))
    return {"widths": np.array(setup.settings.widths), "vc_order": np.array(order) / order[0]}


def run(setup: Setup, prediction: Prediction) -> Iterator[Frame]:
    settings, seeds, widths = setup.settings, len(setup.sets), setup.settings.widths
    values = shared.grid(seeds, len(widths))
    xs, ys = [one.x_train for one in setup.sets], [one.y_train for one in setup.sets]
    # A step costs about as much as 128 units and its width together.
    costs = np.cumsum([0.0, *(128.0 + width for width in widths)])
    ends, notes = costs / costs[-1], []
    for g, width in enumerate(widths):
        ensemble = training.Ensemble(setup.models[g])
        outcome = yield from shared.fit(
            settings, ensemble, xs, ys, loss=settings.stop, epochs=settings.epochs, seed=settings.seed,
            span=(float(ends[g]), float(0.2 * ends[g] + 0.8 * ends[g + 1])), step=g,
        )  # fmt: skip
        if outcome.word == "diverged":
            note = f"{width} units: {outcome.note}"
            yield Frame(g, shared.snapshot(values), float(ends[g]), "diverged", note)
            return
        if outcome.word == "missed":
            notes.append(f"{width} units: {outcome.note}")
        for s, one in enumerate(setup.sets):
            model = shared.folded(ensemble.member(s))
            found = shared.measured(settings, model, one.x_train, one.y_train, seed=s, sharpness=True)
            found["test_error"] = shared.test_error(model, one.x_test, one.y_test)
            for name, value in found.items():
                values[name][s, g] = value
            yield Frame.tick(g, float(0.1 * ends[g] + 0.9 * ends[g + 1]))
        last = g == len(widths) - 1
        yield Frame(
            g, shared.snapshot(values), float(ends[g + 1]), "done" if last else "running",
            "; ".join(notes) if last else "",
        )  # fmt: skip


def figure(
    frames: Sequence[Frame],
    prediction: Prediction,
    previous: Sequence[Run] = (),
    settings: Width | None = None,
) -> figures.Chart:
    widths = prediction["widths"]
    reach = (float(widths[0]) / 1.3, float(widths[-1]) * 1.3)
    error, rises, curves = panels.family(
        frames, previous, widths, "widths", settings.seeds if settings else 2
    )
    rises.insert(0, figures.Predicted(widths, prediction["vc_order"], label="VC (1)", color="ink"))
    return figures.Chart(
        (
            figures.Panel(
                "Error rate", tuple(error), xlabel="hidden units", ylabel="wrong classes, %",
                xscale="log2", xlim=reach, ylim=(-0.5, None),
            ),
            figures.Panel(
                "Measures, over their first", tuple(rises), xlabel="hidden units", ylabel="factor",
                xscale="log2", yscale="log", xlim=reach,
            ),
            panels.plane(curves, "Sharpness and KL, by width"),
        ),
        caption=figures.caption(settings) if settings else "",
    )  # fmt: skip


def _with_width(run: Run) -> tuple[Evidence, ...]:
    checks = shared.converged(run.last("train_error"), run.last("loss"), run.settings.stop)
    widths, error = np.array(run.settings.widths), run.last("test_error")
    rising = np.stack([run.last(name) for name in ("l2", "l1_path")], axis=1)
    names = {name: words for name, (words, _) in shared.MEASURES.items()}
    names |= {"divergence": "KL", "sharpness": "max sharpness"}
    tested = error.mean(axis=0)
    best = tested.argmin()
    turns = {words: widths[run.last(name).mean(axis=0).argmin()] for name, words in names.items()}
    places = ", ".join(f"{words} {width}" for words, width in turns.items())
    return (
        Evidence(
            error[:, -1], error[:, 0], checks=checks,
            note=f"test error {tested[0]:.3f} at {widths[0]} units, least {tested[best]:.3f} at "
            f"{widths[best]}, {tested[-1]:.3f} at {widths[-1]}",
        ),
        Evidence(error[:, -1], error[:, best] + STAYS, checks=checks),
        Evidence(rising[..., :-1].min(axis=-1) / rising[..., -1], 1.0, checks=checks),
        Evidence(run.last("l2_path"), checks=checks),
        Evidence(
            np.tile([float(width) for width in turns.values()], (len(error), 1)), checks=checks,
            note=f"least at: {places} (paper: about 128)",
        ),
    )  # fmt: skip


E10 = Claim(
    "E10",
    "Test error falls with width and stays low, ℓ₂ and ℓ₁-path over margin end above their least value and "
    "ℓ₂-path falls throughout: past their turn the first two explain nothing. Where each turns is reported.",
    "paper 2, Fig. 4",
    (AtMost(exact=False), AtMost(exact=False), AtMost(exact=False), Monotone(direction=-1), Reported()),
    _with_width, "holds",
    {"holds": "wider networks generalise no worse, while ℓ₂ and ℓ₁-path rise: they do not explain it",
     "fails": "test error rises with width, or a measure moves otherwise"},
)  # fmt: skip

WIDTH = Experiment(
    "width", "Wider and wider: which measure falls with the test error?", Width,
    {
        "quick": Width(),
        "paper": Width(
            dataset="mnist", width=2048, n=60_000, n_test=10_000, lr=0.01, stop=1e-4,
            epochs=1000, ascent=2000, draws=1000,
        ),
    },
    prepare, predict, run, figure, (E10,), controls=("width", "narrowest", "n", "lr", "stop", "alpha"),
)  # fmt: skip
