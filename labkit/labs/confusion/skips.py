"""The end of training, as the paper has it: depth by kind of network (C9, C10, C16, C21; Figs 2-15).

CNN-β-ℓ is a wide residual network of depth β and width factor ℓ without skips and batch norm. Skips and batch
norm are put back, each alone and both, and the smallest cosine over pairs of minibatch gradients is measured
at initialisation and after training, each network at its own best learning rate, with as many pairs at every
depth; no two minibatches share a sample while there are samples enough. Batch norm takes each minibatch's
statistics, as in a step of SGD. A run whose loss never decreased is told by name.

Convolutional networks learn little within a minute. The same four kinds of fully connected networks, with
tanh and Glorot's variances as in appendix A.1, do: they are an experiment of their own, with curves along
training.

What can be said beforehand: a network so deep that it gives all images the same outputs sees of a minibatch
its labels alone. Its gradients point as (mean output probabilities - class frequencies) do, and with
probabilities as in the whole training set their cosines follow from the minibatches' labels (dashed).

High is not good by itself: with skips alone outputs grow with depth, so that an untrained network errs in the
same way on all images, and all its gradients agree. So may those of a plain network that has learned little:
the loss stands beside every cosine.

The presets "cnn-depth", "cnn-width" (Figs 2, 3, 7-10), "wrn-depth" and "wrn-width" (Figs 11-14) are the
paper's other families, with cosines along the training.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit import data, figures, training
from labkit.labs import common
from labkit.labs.confusion import shared, tuning
from labkit.labs.confusion.skips_claims import C9, C10, C16, C21
from labkit.labs.confusion.skips_panels import (
    ACCURACY,
    BOTH,
    KINDS,
    LEAST,
    LOSS,
    MEAN,
    NORM,
    PLAIN,
    SKIP,
    curves,
    densities,
    over_shapes,
)
from labkit.measure.confusion import Confusion, confusion, density
from labkit.models.wideresnet import wide_resnet
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction
from labkit.protocol.settings import knob

DEPTHS = (
    "10, 22", "10, 16, 28", "10, 22, 34", "3, 8, 24", "3, 10, 30, 100", "10", "16", "22",
    "16, 22, 28, 34, 40", "16, 22, 28, 34, 40, 52, 76, 100",
)  # fmt: skip
WIDTHS = ("1", "2", "2, 3, 4, 5, 6")
RATIO = 10**0.5
AT_ONCE = 1024  # samples whose gradients are taken in one pass


@dataclass(frozen=True)
class Skips(common.OnData):
    connected: ClassVar[bool] = False

    depths: str = knob("10, 22", "depths β: 6n + 4 if convolutional, else hidden layers", choices=DEPTHS)
    widths: str = knob("1", "width factors ℓ; several with a single depth", choices=WIDTHS)
    families: str = knob("all", "networks: all four, or those with neither, or with skips alone",
                         choices=("all", "neither", "skips"))  # fmt: skip
    steps: int = knob(60, "steps of SGD", slider=(20, 200), bounds=(1, None), step=20)
    lr: float = knob(0.1, "the smallest learning rate of the search", slider=(0.003, 0.3), bounds=(0, None),
                     scale="log", label="smallest rate")  # fmt: skip
    rates: int = knob(2, "learning rates of the search, each √10 times the one before", slider=(2, 6),
                      bounds=(2, 40))  # fmt: skip
    extend: int = knob(0, "rates that may be added while the best one lies at an end", bounds=(0, 40))
    decay: bool = knob(False, "divides the rate by 10 after 40 % and 80 % of the steps")
    batch_size: int = knob(64, "samples in a minibatch, in training as in measuring", slider=(8, 128),
                           bounds=(2, None), scale="log2", label="minibatch")  # fmt: skip
    minibatches: int = knob(
        10, "minibatches whose pairs are measured", slider=(5, 20), bounds=(3, 200), remeasures=True
    )
    looks: int = knob(0, "measurements on the way, at the best rate", slider=(0, 8), bounds=(0, 1000))
    base: int = knob(4, "channels of the first convolution, groups have ℓ, 2ℓ and 4ℓ times as many; or 1/ℓ "
                     "of the units", slider=(2, 64), bounds=(1, None), scale="log2",
                     label="base width")  # fmt: skip
    n: int = knob(1000, "training samples", slider=(200, 1400), bounds=(10, None), step=200)
    dataset: str = knob("digits", "images: name of a data set, or path to an .npz")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.values(self.depths)) > 1 and self.over_width:
            raise ValueError(f"widths must be a single one beside several depths; got {self.widths!r}")

    @property
    def limits(self) -> Mapping[str, tuple[int, str]]:
        return {"batch_size": (self.n, "n")}

    def follow(self, typed: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        followed, note = super().follow(typed)
        now = self.to_dict() | dict(typed) | followed
        rest = now["n"] % now["batch_size"]
        told = f"{rest} of {now['n']} samples sit out each pass in minibatches of {now['batch_size']}."
        return followed, f"{note} {told}".strip() if rest and now["dataset"] != self.dataset else note

    @staticmethod
    def values(listed: str) -> tuple[int, ...]:
        return tuple(int(one) for one in listed.split(","))

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(depth, width factor) of the networks."""
        return tuple((d, w) for d in self.values(self.depths) for w in self.values(self.widths))

    @property
    def over_width(self) -> bool:
        return len(self.values(self.widths)) > 1

    @property
    def kinds(self) -> tuple[int, ...]:
        return {"all": (PLAIN, SKIP, NORM, BOTH), "neither": (PLAIN,), "skips": (SKIP,)}[self.families]

    @property
    def grid(self) -> tuple[float, ...]:
        return tuple(float(f"{self.lr * RATIO**k:.4g}") for k in range(self.rates))

    @property
    def moments(self) -> tuple[int, ...]:
        """Steps on the way at which cosines are measured."""
        inner = np.linspace(0, self.steps, self.looks + 2)[1:-1].round().astype(int)
        return tuple(sorted({int(step) for step in inner} - {0, self.steps}))


@dataclass(frozen=True)
class Ending(Skips):
    """The same of fully connected networks."""

    connected: ClassVar[bool] = True


@dataclass(frozen=True)
class Setup:
    """draws: (minibatches, B) sample numbers, one such a seed: those whose gradients are measured."""

    settings: Skips
    sets: tuple[data.Dataset, ...]
    draws: tuple[Tensor, ...]

    def network(self, kind: int, depth: int, width: int, seed: int) -> nn.Module:
        settings, one = self.settings, self.sets[0]
        skip, norm = kind in (SKIP, BOTH), kind in (NORM, BOTH)
        if settings.connected:
            sizes = [one.dim, *[settings.base * width] * depth, one.classes]
            scales = [v**0.5 for v in shared.variances("glorot", sizes)]
            weights = shared.draws(sizes, seed, device=settings.device, dtype=torch.float32)
            return shared.network(weights, scales, "tanh", skip=skip, batch_norm=norm)
        return wide_resnet(
            depth, width, one.classes, one.x_train.shape[1], base=settings.base, seed=seed,
            skip=skip, batch_norm=norm, device=settings.device,
        )  # fmt: skip


def prepare(settings: Skips) -> Setup:
    sets = common.datasets(settings, n_test=10_000, normalize="standardize", flatten=False)
    return Setup(settings, sets, tuple(_draws(settings, seed) for seed in common.seeds(settings)))


def _draws(settings: Skips, seed: int) -> Tensor:
    """Minibatches that share no sample; from one pass over the data to the next they do."""
    generator, (m, B) = torch.Generator().manual_seed(seed), (settings.minibatches, settings.batch_size)
    whole = settings.n // B
    passes = [
        torch.randperm(settings.n, generator=generator)[: whole * B].view(whole, B)
        for _ in range(-(-m // whole))
    ]
    return torch.cat(passes)[:m]


def predict(setup: Setup) -> Prediction:
    """The cosines of a network that sees labels alone, and the loss at which it stays."""
    labels = []
    for one, draws in zip(setup.sets, setup.draws, strict=True):
        onehot = F.one_hot(one.y_train.cpu(), one.classes).double()
        frequency = onehot.mean(0)
        gradients = frequency - onehot[draws].mean(1)
        found = confusion(gradients @ gradients.T)
        loss = float(-(frequency * frequency.clamp_min(shared.TINY).log()).sum())
        labels.append({"minimum": found.minimum_cosine, "sd": found.sd_cosine, "loss": loss})
    depths, widths = np.transpose(setup.settings.shapes)
    known = {f"labels_{name}": value for name, value in common.stacked(labels).items()}
    return {"depths": depths, "widths": widths, **known}


def run(setup: Setup, prediction: Prediction, *, measure: shared.Measure | None = None) -> Iterator[Frame]:
    """`measure` is `confusion` when left out."""
    settings, measure = setup.settings, measure or confusion
    values = _blank(settings)
    places = [(i, j) for j in range(len(settings.shapes)) for i in range(len(settings.kinds))]
    costs = [depth * width**2 for depth, width in (settings.shapes[j] for _, j in places)]
    # A step of one network costs about as much as a minibatch that is measured.
    begin = settings.minibatches / (settings.minibatches + settings.rates * settings.steps)
    drawn: list[list[nn.Module]] = []
    for number, ((i, j), span) in enumerate(zip(places, common.spans(costs, 0.0, begin), strict=True)):
        drawn.append([
            setup.network(settings.kinds[i], *settings.shapes[j], seed) for seed in common.seeds(settings)
        ])  # fmt: skip
        for s, net in enumerate(drawn[-1]):
            common.put(values, (s, i, j), _cosines("start", _look(setup, s, net, measure)))
            yield Frame.tick(number, span[0] + (span[1] - span[0]) * (s + 1) / settings.seeds)
        yield Frame(number + 1, common.snapshot(values), span[1])

    def look(s: int, net: nn.Module) -> tuple[float, float, float]:
        found = _look(setup, s, net, measure)
        return 1 - tuning.test_error(net, setup.sets[s]), found.minimum_cosine, found.mean_cosine

    for number, ((i, j), span) in enumerate(zip(places, common.spans(costs, begin, 0.99), strict=True)):
        step = len(places) + number
        best = yield from tuning.tuned(settings, setup.sets, drawn[number], look, step=step, span=span)
        if best is None:
            note = (
                f"{KINDS[settings.kinds[i]]}, depth {settings.shapes[j][0]}: no learning rate of the search "
                f"was stable; it began at {settings.lr:g}. Take 0.1 × lr"
            )
            yield Frame(step, common.snapshot(values), span[0], "diverged", note)
            return
        values["loss"][:, i, j], values["rate"][:, i, j] = best.loss, best.rate
        values["first"][:, i, j] = best.losses[:, 0]
        for s in range(settings.seeds):
            if np.isfinite(best.loss[s]):
                _note_end(setup, values, (s, i, j), drawn[number][s], best, measure)
            yield Frame.tick(step, span[1])
        last = number + 1 == len(places)
        yield Frame(
            step + 1, common.snapshot(values), 1.0 if last else span[1], "done" if last else "running"
        )  # fmt: skip


def _blank(settings: Skips) -> dict[str, np.ndarray]:
    """Nothing yet: (S, kinds, shapes, ...)."""
    names = [f"{when}_{name}" for when in ("start", "end") for name in ("minimum", "mean", "sd")]
    return common.blank(
        settings.seeds, len(settings.kinds), len(settings.shapes),
        **dict.fromkeys((*names, "loss", "first", "error", "rate"), ()),
        path=(2 + len(settings.moments), 4), density=shared.GRID.shape,
    )  # fmt: skip


def _note_end(
    setup: Setup, values: dict[str, np.ndarray], place: tuple[int, int, int], start: nn.Module,
    best: tuning.Trained, measure: shared.Measure,
) -> None:  # fmt: skip
    """What a trained network says, and how it came there."""
    s, one, net = place[0], setup.sets[place[0]], best.networks.member(best.places[place[0]])
    found = _look(setup, s, net, measure)
    seen = {"density": density(found.cosines, shared.GRID), "error": tuning.test_error(net, one)}
    common.put(values, place, _cosines("end", found) | seen)
    if setup.settings.moments:
        path, losses = values["path"][place], best.losses[s]
        # At the start, and the mean since the moment before.
        edges = itertools.pairwise((0, *setup.settings.moments, setup.settings.steps))
        path[:, LOSS] = [losses[0], *(losses[begin:end].mean() for begin, end in edges)]
        path[1:-1, ACCURACY:] = best.path[s]
        path[[0, -1], ACCURACY] = [1 - tuning.test_error(each, one) for each in (start, net)]
        for which, name in ((LEAST, "minimum"), (MEAN, "mean")):
            path[[0, -1], which] = [values[f"{when}_{name}"][place] for when in ("start", "end")]


def _look(setup: Setup, s: int, net: nn.Module, measure: shared.Measure) -> Confusion:
    """The confusion of the gradients of seed s's minibatches; it is zero for gradients that overflow."""
    one = setup.sets[s]
    return measure(gram(net, one.x_train, one.y_train, setup.draws[s]))


def gram(net: nn.Module, x: Tensor, y: Tensor, draws: Tensor) -> Tensor:
    """Inner products of minibatches' gradients, (m, B) -> (m, m): a copy of the network for each, at once."""
    rows = []
    for some in draws.split(max(1, AT_ONCE // draws.shape[1])):
        copies = training.Ensemble([net] * len(some))
        outputs, labels = copies(x[some]).flatten(0, 1), y[some].flatten()
        each = F.cross_entropy(outputs, labels, reduction="none").view(len(some), -1).mean(1)
        slopes = torch.autograd.grad(each.sum(), list(copies.parameters()))
        rows.append(torch.cat([slope.flatten(1) for slope in slopes], 1))
    gradients = torch.cat(rows).double().cpu()
    return gradients @ gradients.T


def _cosines(when: str, found: Confusion) -> dict[str, Any]:
    return {f"{when}_{name}": getattr(found, f"{name}_cosine") for name in ("minimum", "mean", "sd")}


def figure(frames: Frames, prediction: Prediction, settings: Skips | None = None) -> figures.Chart:
    settings = settings or Skips()
    panels = over_shapes(frames, prediction, settings)[bool(settings.moments) :]
    if settings.moments:
        panels += curves(frames, settings)
    if settings.families != "all":
        panels.append(densities(frames, settings))
    says = "Cosines and loss of networks with skip connections, batch norm, both or neither."
    return figures.Chart.of(settings, says, *panels)


_CIFAR = Skips(
    dataset="cifar10", n=40_000, batch_size=128, minibatches=15, base=16, widths="2", steps=62_400,
    decay=True, lr=3e-5, rates=12, extend=4, seeds=5, looks=199,
)  # fmt: skip

SKIPS = Experiment(
    "skips", "Do skips and batch norm keep confusion low in deep networks?", Skips,
    {
        "quick": Skips(),
        "paper": _CIFAR.replace(depths=DEPTHS[-1], looks=0),
        "cnn-depth": _CIFAR.replace(depths=DEPTHS[-2], families="neither"),
        "cnn-width": _CIFAR.replace(depths="16", widths=WIDTHS[-1], families="neither"),
        "wrn-depth": _CIFAR.replace(depths=DEPTHS[-1], families="skips"),
        "wrn-width": _CIFAR.replace(depths="16", widths=WIDTHS[-1], families="skips"),
    },
    prepare, predict, run, figure, (C10, C16),
    controls=("depths", "steps", "batch_size", "lr", "rates", "minibatches", "base"),
)  # fmt: skip

_CONNECTED = Ending(depths="3, 8, 24", base=32, steps=80, lr=0.01, rates=5, minibatches=15, looks=3)
ENDING = Experiment(
    "ending", "The end of training: what has been learned, beside every cosine", Ending,
    {
        "quick": _CONNECTED,
        "paper": _CONNECTED.replace(
            dataset="mnist", depths="3, 10, 30, 100", base=100, n=40_000, batch_size=128, steps=40_000,
            lr=1e-6, rates=13, seeds=10, looks=99,
        ),
        "afternoon": _CONNECTED.replace(
            dataset="mnist", base=100, n=2000, batch_size=128, steps=300, minibatches=10, seeds=2
        ),
    },
    prepare, predict, run, figure, (C9, C21),
    controls=("depths", "steps", "batch_size", "lr", "rates", "minibatches", "base"),
)  # fmt: skip
