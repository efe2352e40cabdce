"""Who has the larger margin for its norms? (S11; paper 3, Figs. 16 and 17)

Natural and random labels, from starts of the usual size and from larger ones, all to one training loss. A
loss fixes the margins nearly by itself (cross-entropy 10⁻² is a margin near 6.8 where all wrong outputs are
equal), so the raw margin says little, and its small quantiles are even larger for random labels; what tells
the four networks apart is the size of the weights that make it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
from labkit.protocol.claims import Claim
from labkit.protocol.experiment import Experiment, Frame, Prediction, Run
from labkit.protocol.rules import Evidence, Ordered, Reported
from labkit.protocol.settings import knob

QUANTILES = np.linspace(0.0, 1.0, 41)


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
        "loss": (), "train_error": (), "test_error": (), "margin": (), "low": (), "normalized": (),
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
        **shared.ends(model, one), "margin": float(found.mean()), "low": float(found.quantile(0.05)),
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
            norms.append(
                figures.Points(places, _at(frames, "fan_in", k, c, layers), label="", color=shade, line=False)
            )
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
        caption=figures.caption(settings) if settings else "",
    )  # fmt: skip


def _at(frames: Sequence[Frame], name: str, k: int, c: int, length: int) -> np.ndarray:
    values = common.newest(frames, name)
    return np.full((1, length), np.nan) if values is None else values[:, k, c]


def _norms(run: Run) -> tuple[Evidence, ...]:
    ratio, fan_in = run.last("normalized"), run.last("fan_in")
    if not np.isfinite(ratio).all():
        raise ValueError("normalized: not all four kinds of networks have been trained yet")
    checks = shared.converged(run.last("train_error"), run.last("loss"), run.settings.stop)
    means = ratio.mean(axis=0)
    raw = "; ".join(
        f"{name}: natural {v[0, 0]:.1f}, random {v[1, 0]:.1f}, larger start {v[0, 1]:.1f}, {v[1, 1]:.1f}"
        for name, v in (
            ("mean raw margin", run.last("margin").mean(axis=0)),
            ("its 5 % quantile", run.last("low").mean(axis=0)),
        )
    )
    return (
        # Both starts: random labels, then natural ones. Groups of an ordering increase.
        Evidence(
            ratio.transpose(0, 2, 1)[..., ::-1], checks=checks,
            note=f"normalised margin: natural {means[0, 0]:.3g}, random {means[1, 0]:.3g}; larger start: "
            f"{means[0, 1]:.3g}, {means[1, 1]:.3g}",
        ),
        # Both kinds of labels: the larger start, then the usual one.
        Evidence(ratio[..., ::-1], checks=checks),
        # Every layer: natural labels, then random ones, from both starts; then the usual start, the larger.
        Evidence(
            np.log(fan_in).transpose(0, 2, 3, 1), checks=checks,
            note="fan-in ℓ₁ by layer: " + ", ".join(
                f"{word} {' and '.join(f'{v:.1f}' for v in fan_in.mean(axis=0)[k, 0])}"
                for k, word in enumerate(shared.KINDS)
            ),
        ),
        Evidence(np.log(fan_in).transpose(0, 1, 3, 2), checks=checks),
        Evidence(run.last("margin").reshape(len(ratio), -1), note=raw),
    )  # fmt: skip


S11 = Claim(
    "S11",
    "At one training loss, the margin over the layers' norms is larger, and the fan-in ℓ₁ norms are smaller, "
    "for natural than for random labels; a larger initialisation makes both worse.",
    "paper 3, Figs 16 and 17",
    (Ordered(), Ordered(), Ordered(), Ordered(), Reported()), _norms, "holds",
    {"holds": "margin over norms: natural above random labels, the usual start above the larger; raw margins "
              "do not tell, as the loss fixes them",
     "fails": "some margin over norms, or some fan-in norm, is ordered the other way"},
)  # fmt: skip

MARGINS = Experiment(
    "margins", "Who has the larger margin for its norms?", Margins,
    {
        "quick": Margins(),
        "paper": Margins(
            dataset="cifar10", n=10_000, width=512, depth=2, init_scale=10.0, lr=0.01, seeds=3, epochs=2000
        ),
    },
    prepare, predict, run, figure, (S11,),
    controls=("init_scale", "n", "width", "label_noise", "stop", "lr"),
)  # fmt: skip
