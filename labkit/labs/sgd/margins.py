"""Who has the larger margin for its norms? (S11, S19; paper 3, Figs. 16 and 17)

Natural and random labels, from starts of the usual size and from larger ones, all to one training loss. A
loss fixes the functional margins nearly by itself (cross-entropy 10⁻² is a margin near 6.8 where all wrong
outputs are equal), so they say little, and do not go as the paper says; what tells the four networks apart is
the size of the weights that make them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labkit import data, figures
from labkit.figures.palette import Color
from labkit.labs import common
from labkit.labs.sgd import shared
from labkit.measure.layers import weight_layers
from labkit.measure.margins import margins
from labkit.measure.norms import frobenius
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Prediction, Run
from labkit.protocol.rules import EVERY, Between, Evidence
from labkit.protocol.settings import knob

QUANTILES = np.linspace(0.0, 1.0, 41)
LARGER, SMALLER = 1.5, 1.2  # ratios of normalised margins, and of fan-in norms, at least
CLEAR = 1.05  # ratio of what differs at all
STARTS = ("usual start", "larger start")


@dataclass(frozen=True)
class Margins(shared.Minima):
    n: int = knob(300, "training samples N", slider=(100, 1000), bounds=(20, None), step=100)
    width: int = knob(100, "hidden units", slider=(25, 400), bounds=(1, None), scale="log2")
    stop: float = knob(
        0.01, "cross-entropy at which training stops", slider=(1e-3, 0.1), bounds=(1e-6, 0.5), scale="log",
        label="stop at loss",
    )  # fmt: skip
    init_scale: float = knob(
        3.0, "factor on all first weights of the larger start; the learning rate is divided by it",
        slider=(1.5, 5), bounds=(1, 100), step=0.5, label="larger start",
    )  # fmt: skip

    @property
    def scales(self) -> tuple[float, float]:
        return 1.0, self.init_scale


@dataclass(frozen=True)
class Setup:
    """sets[natural or random][seed]; starts[usual or larger][seed]."""

    settings: Margins
    sets: tuple[tuple[data.Dataset, ...], ...]
    starts: tuple[tuple[nn.Module, ...], ...]


def prepare(settings: Margins) -> Setup:
    sets = shared.prepare(settings).sets
    starts = tuple(
        tuple(shared.network(settings, sets[0][0].dim, seed, scale) for seed in common.seeds(settings))
        for scale in settings.scales
    )
    return Setup(settings, sets, starts)


def predict(setup: Setup) -> Prediction:
    """The margin that the loss alone asks for, and the norms at the starts.

    One sample with loss l and all wrong outputs equal has the margin log((K - 1) / (e^l - 1)); a set with
    mean loss l has samples on both sides of it.
    """
    settings = setup.settings
    x = setup.sets[0][0].x_train
    start = [[_fan_in(model, x) for model in nets] for nets in setup.starts]
    return {
        "quantiles": QUANTILES, "scales": np.array(settings.scales),
        "margin": np.array(np.log((10 - 1) / np.expm1(settings.stop))),
        "start": np.array(start).transpose(1, 0, 2),
    }  # fmt: skip


def run(setup: Setup, prediction: Prediction) -> Iterator[Frame]:
    settings, layers, starts = setup.settings, setup.settings.depth + 1, len(setup.starts)
    shapes = {
        "loss": (), "train_error": (), "test_error": (), "margin": (), "normalized": (),
        "fan_in": (layers,), "quantiles": (len(QUANTILES),),
    }  # fmt: skip
    values = {
        name: np.full((settings.seeds, len(shared.KINDS), starts, *shape), np.nan)
        for name, shape in shapes.items()
    }
    notes, step = [], 0
    for k, (begin, end) in enumerate(shared.PARTS):
        for c, (scale, nets) in enumerate(zip(settings.scales, setup.starts, strict=True)):
            span = (begin + (end - begin) * c / starts, begin + (end - begin) * (c + 0.95) / starts)
            found = yield from shared.fit(
                settings, nets, setup.sets[k], span=span, step=step, lr=settings.lr / scale
            )
            who = f"{shared.WORDS[k]}, start × {scale:g}"
            if found.word == "diverged":
                yield Frame(step, shared.snapshot(values), span[1], "diverged", f"{who}: {found.note}")
                return
            notes += [f"{who}: {found.note}"] if found.word == "missed" else []
            for s, (model, one) in enumerate(zip(found.models, setup.sets[k], strict=True)):
                for name, value in _read(model, one).items():
                    values[name][s, k, c] = value
            step += 1
            yield Frame(step, shared.snapshot(values), min(span[1], 0.99))
    yield Frame(step, {}, 1.0, "done", "; ".join(notes))


def _read(model: nn.Module, one: data.Dataset) -> dict[str, float | np.ndarray]:
    x = one.x_train
    with torch.no_grad():
        found = margins(model(x), one.y_train).double()
    norm = float(torch.stack([frobenius(layer) for layer in weight_layers(model, x)]).prod())
    return {
        **shared.ends(model, one), "margin": float(found.median()),
        "normalized": float(found.median()) / norm, "fan_in": _fan_in(model, x),
        "quantiles": found.quantile(torch.from_numpy(QUANTILES).to(found)).cpu().numpy(),
    }  # fmt: skip


def _fan_in(model: nn.Module, x: Tensor) -> np.ndarray:
    """The l1 norm of a unit's incoming weights, averaged over the units of each layer (Fig. 16)."""
    with torch.no_grad():
        return np.array(
            [
                float(layer.weight.detach().double().flatten(1).abs().sum(1).mean())
                for layer in weight_layers(model, x)
            ]
        )


PALE = ("#85BCDC", "#EDB38C")  # from larger starts


def figure(
    frames: Sequence[Frame],
    prediction: Prediction,
    previous: Sequence[Run] = (),
    settings: Margins | None = None,
) -> figures.Chart:
    scales = prediction["scales"]
    layers = prediction["start"].shape[-1]
    places = np.arange(float(layers))
    curves: list[figures.Mark] = [
        figures.Level(float(prediction["margin"]), axis="x", label="set by the loss")
    ]
    norms: list[figures.Mark] = []
    for k, (kind, color) in enumerate(zip(shared.KINDS, shared.COLORS, strict=True)):
        shades: tuple[Color, Color] = (color, PALE[k])
        for c, (shade, word) in enumerate(zip(shades, (kind, f"{kind}, × {scales[1]:g}"), strict=True)):
            at = _at(frames, "quantiles", k, c, len(QUANTILES))
            # The mean over seeds of each quantile: a share on the y axis, a margin on the x axis.
            curves.append(figures.Measured(at.mean(axis=0), QUANTILES, label=word, color=shade))
            size = _at(frames, "fan_in", k, c, layers)
            norms.append(figures.Points(places, size, label=word, color=shade, line=False))
    for c, word in enumerate(("at the start", f"at the start × {scales[1]:g}")):
        norms.append(
            figures.Predicted(places, prediction["start"][:, c], label=word, color=("ink", "grey")[c])
        )
    ratios: list[figures.Mark] = []
    for old in previous:
        before = common.newest(old.frames, "normalized")
        if before is not None:
            ratios += [figures.Earlier(old.prediction["scales"], before[:, k]) for k in range(2)]
    now = common.newest(frames, "normalized")
    for k, (words, color) in enumerate(zip(shared.WORDS, shared.COLORS, strict=True)):
        seen = np.full((1, 2), np.nan) if now is None else now[:, k]
        ratios.append(figures.Points(scales, seen, label=words, color=color))
    return figures.Chart(
        (
            figures.Panel(
                "Margins of the samples", tuple(curves), xlabel="margin", ylabel="share of samples below",
                xscale="log", xlim=(1, None), ylim=(0, 1),
            ),
            figures.Panel(
                "Fan-in ℓ₁ norms", tuple(norms), ylabel="mean over units", yscale="log",
                xticks=[(float(i), f"layer {i + 1}") for i in range(layers)], xlim=(-0.5, layers - 0.5),
            ),
            figures.Panel(
                "Median margin over ∏‖W‖_F", tuple(ratios), xlabel="factor on the first weights",
                ylabel="normalised margin", yscale="log",
                xticks=[(float(scale), f"× {scale:g}") for scale in scales],
                xlim=(0.8, 1.1 * float(scales[1])),
            ),
        ),
        caption=figures.caption(
            "Margins and norms of fitted networks, from an ordinary start and from a larger one.", settings
        ),
    )  # fmt: skip


def _at(frames: Sequence[Frame], name: str, k: int, c: int, length: int) -> np.ndarray:
    values = common.newest(frames, name)
    return np.full((1, length), np.nan) if values is None else values[:, k, c]


def _all(run: Run, name: str) -> np.ndarray:
    found = run.last(name)
    if not np.isfinite(found).all():
        raise ValueError(f"{name}: not all four kinds of networks have been trained yet")
    return found


def _norms(run: Run) -> tuple[Evidence, ...]:
    ratio, fan_in = _all(run, "normalized"), _all(run, "fan_in")
    checks = shared.converged(run.last("train_error"), run.last("loss"), run.settings.stop)
    means, large = ratio.mean(axis=0), (fan_in[:, 1, 1] / fan_in[:, 0, 1]).mean(axis=0)
    return (
        Evidence(ratio[:, 0] / ratio[:, 1], checks=checks,
                 note=f"natural {means[0, 0]:.3g}, random {means[1, 0]:.3g}"),
        Evidence(ratio[..., 0] / ratio[..., 1], checks=checks),
        Evidence(fan_in[:, 1, 0] / fan_in[:, 0, 0], checks=checks,
                 note=f"from the larger start {', '.join(f'{v:.2f}' for v in large)}"),
        Evidence(fan_in[:, :, 1] / fan_in[:, :, 0], checks=checks),
    )  # fmt: skip


def _functional(run: Run) -> tuple[Evidence, Evidence]:
    margin = _all(run, "margin")
    checks = shared.converged(run.last("train_error"), run.last("loss"), run.settings.stop)
    return (
        Evidence(margin[:, 0] / margin[:, 1], checks=checks),
        Evidence(margin[..., 0] / margin[..., 1], checks=checks),
    )


def over_norms(read: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """A fault for a world: the margin over the layers' norms in the place of the functional one."""

    def faulty(model: nn.Module, one: data.Dataset) -> dict[str, Any]:
        found = read(model, one)
        return found | {"margin": found["normalized"]}

    return faulty


S11 = Claim(
    "S11", "finding",
    "At one training loss the margin over the layers' norms is larger for natural than for random labels, "
    "and smaller from a larger start; fan-in ℓ₁ norms from the usual start are smaller for natural labels, "
    "and from a larger start all are larger.",
    "paper 3, Figs 16 and 17",
    (
        Between("median margin over ∏‖W‖_F, natural over random labels", STARTS, low=LARGER, by=EVERY),
        Between("median margin over ∏‖W‖_F, usual start over larger", shared.KINDS, low=LARGER, by=EVERY),
        Between("fan-in ℓ₁ norm by layer, usual start, random over natural labels", low=SMALLER, by=EVERY),
        Between("fan-in ℓ₁ norm by labels and layer, larger start over usual", low=CLEAR, by=EVERY),
    ),
    _norms, "holds",
    {"holds": "natural labels have the larger margin for their norms, the usual start a larger one than the "
              "larger start",
     "fails": "some margin over norms, or some fan-in norm, is not as told"},
    (World("both networks with natural labels", {"label_noise": 0.0}),),
)  # fmt: skip
S19 = Claim(
    "S19", "finding",
    "At one training loss the functional margin is larger for natural than for random labels, and smaller "
    "from a larger start.",
    "paper 3, Fig. 17",
    (
        Between("median functional margin, natural over random labels", STARTS, low=CLEAR, by=EVERY),
        Between("median functional margin, usual start over larger", shared.KINDS, low=CLEAR, by=EVERY),
    ),
    _functional, "fails",
    {"holds": "functional margins are larger for natural labels, and smaller from a larger start",
     "fails": "a larger start does not give a smaller functional margin"},
    (World("the margin over the norms in its place", {}, {f"{__name__}:_read": over_norms}, "holds"),),
    "the loss at which training stops nearly fixes the functional margin; where the paper stops is not said",
)  # fmt: skip

MARGINS = Experiment(
    "margins", "Who has the larger margin for its norms?", Margins,
    {
        "quick": Margins(),
        "paper": Margins(
            dataset="cifar10", n=10_000, width=512, depth=2, init_scale=10.0, lr=0.01, seeds=3, epochs=2000
        ),
    },
    prepare, predict, run, figure, (S11, S19),
    controls=("init_scale", "n", "width", "label_noise", "stop", "lr"),
)  # fmt: skip
