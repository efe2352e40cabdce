"""Who has the larger margin for its norms? (S11, S19; paper 3, Figs. 16 and 17)

Natural and random labels, from starts of the usual size and from larger ones, all to one training loss. A
loss fixes the functional margins nearly by itself (cross-entropy 10⁻² is a margin near 6.8 where all wrong
outputs are equal), so they say little, and do not go as the paper says; what tells the four networks apart is
the size of the weights that make them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import EVERY, Between, Evidence
from labkit.protocol.settings import knob

QUANTILES = np.linspace(0.0, 1.0, 41)
LARGER, SMALLER = 1.5, 1.2  # ratios of normalised margins, and of fan-in norms, at least
CLEAR = 1.05  # ratio of what differs at all
STARTS = ("usual start", "larger start")


@dataclass(frozen=True)
class Margins(shared.Minima):
    init_scale: float = knob(
        3.0, "factor on all first weights of the larger start; the learning rate is divided by it",
        slider=(1.5, 5), bounds=(1, 100), step=0.5, label="larger start",
    )  # fmt: skip

    @property
    def scales(self) -> tuple[float, float]:
        return 1.0, self.init_scale


def prepare(settings: Margins) -> common.Setup:
    sets = shared.prepare(settings).sets
    starts = tuple(shared.networks(settings, sets[0][0].dim, scale) for scale in settings.scales)
    return common.Setup(settings, sets, starts)


def predict(setup: common.Setup) -> Prediction:
    """The margin that the loss alone asks for, and the norms at the starts.

    One sample with loss l and all wrong outputs equal has the margin log((K - 1) / (e^l - 1)); a set with
    mean loss l has samples on both sides of it.
    """
    settings = setup.settings
    x = setup.sets[0][0].x_train
    start = [[_fan_in(model, x) for model in nets] for nets in setup.models]
    return {
        "quantiles": QUANTILES, "scales": np.array(settings.scales),
        "margin": np.array(np.log((10 - 1) / np.expm1(settings.stop))),
        "start": np.array(start).transpose(1, 0, 2),
    }  # fmt: skip


def run(setup: common.Setup, prediction: Prediction) -> Iterator[Frame]:
    settings, layers, starts = setup.settings, setup.settings.depth + 1, len(setup.models)
    values = shared.blank(
        settings.seeds, 2, starts, margin=(), normalized=(), fan_in=(layers,), quantiles=(len(QUANTILES),)
    )

    def read(step: int, s: int, one: data.Dataset, model: nn.Module) -> Iterator[bool]:
        common.put(values, (s, *divmod(step, starts)), _read(model, one))
        yield False

    trainings = [
        shared.Training(
            f"{shared.WORDS[k]}, start × {scale:g}", setup.sets[k], span, nets,
            {"lr": settings.lr / scale},
        )
        for k, part in enumerate(shared.PARTS)
        for scale, nets, span in zip(
            settings.scales, setup.models, common.spans([1.0] * starts, *part), strict=True
        )
    ]  # fmt: skip
    yield from shared.minima(settings, trainings, values, read, share=0.95)


def _read(model: nn.Module, one: data.Dataset) -> dict[str, float | np.ndarray]:
    found, norms = shared.margins_and_norms(model, one)
    return {
        **shared.ends(model, one), "margin": float(found.median()),
        "normalized": float(found.median()) / float(norms.prod()), "fan_in": _fan_in(model, one.x_train),
        "quantiles": found.quantile(torch.from_numpy(QUANTILES).to(found)).cpu().numpy(),
    }  # fmt: skip


def _fan_in(model: nn.Module, x: Tensor) -> np.ndarray:
    """The l1 norm of a unit's incoming weights, averaged over the units of each layer (Fig. 16)."""
    weights = [layer.weight.detach().double().flatten(1) for layer in weight_layers(model, x)]
    return np.array([float(weight.abs().sum(1).mean()) for weight in weights])


def figure(frames: Frames, prediction: Prediction, settings: Margins | None = None) -> figures.Chart:
    scales = prediction["scales"]
    layers = prediction["start"].shape[-1]
    places = np.arange(float(layers))
    curves: list[figures.Mark] = [
        figures.Level(float(prediction["margin"]), axis="x", label="set by the loss")
    ]
    norms: list[figures.Mark] = []
    for k, (kind, color) in enumerate(zip(shared.KINDS, shared.COLORS, strict=True)):
        shades: tuple[Color, Color] = (color, shared.PALE[k])
        for c, (shade, word) in enumerate(zip(shades, (kind, f"{kind}, × {scales[1]:g}"), strict=True)):
            at = common.seen(frames, "quantiles", len(QUANTILES), at=(k, c))
            # The mean over seeds of each quantile: a share on the y axis, a margin on the x axis.
            curves.append(figures.Measured(at.mean(axis=0), QUANTILES, label=word, color=shade))
            size = common.seen(frames, "fan_in", layers, at=(k, c))
            norms.append(figures.Points(places, size, label=word, color=shade, line=False))
    for c, word in enumerate(("at the start", f"at the start × {scales[1]:g}")):
        norms.append(
            figures.Predicted(places, prediction["start"][:, c], label=word, color=("ink", "grey")[c])
        )
    ratios = shared.of_kinds(frames, prediction, "scales", "normalized", figures.Points)
    return figures.Chart.of(
        settings, "Margins and norms of fitted networks, from an ordinary start and from a larger one.",
        figures.Panel(
            "Margins of the samples", curves, xlabel="margin", ylabel="share of samples below",
            xscale="log", xlim=(1, None), ylim=(0, 1),
        ),
        figures.Panel(
            "Fan-in ℓ₁ norms", norms, ylabel="mean over units", yscale="log",
            xticks=[(float(i), f"layer {i + 1}") for i in range(layers)], xlim=(-0.5, layers - 0.5),
        ),
        figures.Panel(
            "Median margin over ∏‖W‖_F", ratios, xlabel="factor on the first weights",
            ylabel="normalised margin", yscale="log",
            xticks=[(float(scale), f"× {scale:g}") for scale in scales],
            xlim=(0.8, 1.1 * float(scales[1])),
        ),
    )  # fmt: skip


def _norms(run: Run) -> tuple[Evidence, ...]:
    (ratio, fan_in), checks = common.whole(run, "normalized", "fan_in"), shared.converged(run)
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
    (margin,), checks = common.whole(run, "margin"), shared.converged(run)
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
    (shared.BOTH_NATURAL,),
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
    {"quick": Margins(), "paper": Margins(**shared.LARGE, init_scale=10.0)},
    prepare, predict, run, figure, (S11, S19),
    controls=("init_scale", "n", "width", "label_noise", "stop", "lr"),
)  # fmt: skip
