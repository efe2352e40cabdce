"""What the experiments of this lab share: the paper, colours that mean the same thing in every figure, and
how minima of natural and of random labels are made.

The networks are perceptrons with biases on standardised images, trained by SGD on minibatches of 64 with
momentum .9, all labels to one cross-entropy: a radius, a margin or a norm depends on where one stops, so
minima are compared at equal training loss only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labkit import data, figures, models, training
from labkit.figures.palette import Color
from labkit.labs import common
from labkit.measure.layers import weight_layers
from labkit.measure.margins import margins
from labkit.measure.norms import frobenius
from labkit.protocol.claims import World
from labkit.protocol.experiment import Frame, Frames, Run
from labkit.protocol.rules import Check
from labkit.protocol.settings import knob

PAPER = "Theory of Deep Learning III: Generalization Properties of SGD (2017)"
NATURAL, RANDOM, MINIMUM_NORM, SGD, LANGEVIN, RIDGE, SGDL = range(7)

KINDS = ("natural", "random")
WORDS = ("natural labels", "random labels")
COLORS = (NATURAL, RANDOM)
PALE: tuple[Color, Color] = ("#85BCDC", "#EDB38C")  # the same labels: another error, or another start
# Presets as large as the paper's: of a deep perceptron on CIFAR-10.
LARGE: dict[str, Any] = {
    "dataset": "cifar10", "n": 10_000, "width": 512, "depth": 2, "lr": 0.01, "seeds": 3, "epochs": 2000,
}  # fmt: skip
GIVEN = {"loss": "stop", "lr": "lr", "epochs": "epochs", "seed": "seed"}  # of a training, by the settings
# Random labels take about six times the steps of natural ones: shares of a training's progress.
PARTS = ((0.0, 0.15), (0.15, 1.0))


rate = partial(knob, bounds=(1e-6, 100), scale="log", label="learning rate")
stop_at = partial(knob, slider=(1e-3, 0.1), bounds=(1e-6, 0.5), scale="log", label="stop at loss")
# One set of images of ten classes a seed.
images = partial(common.datasets, classes=10, n_test=1000, normalize="standardize", noise_kind="redraw")


@dataclass(frozen=True)
class Minima(common.OnData):
    """What all experiments that compare minima of natural and random labels can be asked for."""

    n: int = knob(300, "training samples N", slider=(100, 1000), bounds=(20, None), step=100)
    width: int = knob(100, "hidden units", slider=(25, 400), bounds=(1, None), scale="log2")
    depth: int = knob(1, "hidden layers", slider=(1, 3), bounds=(1, None), step=1)
    stop: float = stop_at(0.01, "cross-entropy at which training stops")
    label_noise: float = knob(1.0, "share of the random network's labels that is redrawn over all classes",
                              slider=(0.2, 1), bounds=(0, 1), step=0.1, label="noise (redraw)")  # fmt: skip
    lr: float = rate(0.05, "learning rate of SGD with momentum .9 and batches of 64", slider=(0.005, 0.1))
    epochs: int = knob(3000, "longest training; a network that needs more is not compared",
                       slider=(100, 5000), bounds=(1, None), scale="log")  # fmt: skip
    dataset: str = knob("digits", "images", choices=("digits", "mnist-5k", "mnist", "cifar10"))


def prepare(settings: Any) -> common.Setup:
    """One set of images a seed, sets[natural or random][seed], and a network a seed that begins on both."""
    sets = tuple(images(settings, label_noise=noise) for noise in (0.0, settings.label_noise))
    return common.Setup(settings, sets, networks(settings, sets[0][0].dim))


def networks(settings: Any, inputs: int, scale: float = 1.0) -> tuple[nn.Module, ...]:
    """One a seed."""
    return tuple(network(settings, inputs, seed, scale) for seed in common.seeds(settings))


def network(settings: Any, inputs: int, seed: int, scale: float = 1.0) -> nn.Module:
    """A perceptron of the settings' width and depth, its first weights multiplied by `scale`."""
    model = models.mlp(inputs, settings.width, settings.depth, 10, seed=seed, device=settings.device)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


@dataclass(frozen=True)
class Training:
    """One training of a run: networks side by side, those of a set in a row.

    Attributes:
        who: what a note calls it.
        span: its share of the run's progress, with what is read off its networks.
        nets: None: those that the training before it found.
        how: passed on to `common.fit`, in place of the settings' own.
    """

    who: str
    sets: Sequence[data.Dataset]
    span: tuple[float, float]
    nets: Sequence[nn.Module] | None = None
    how: Mapping[str, Any] = field(default_factory=dict)


def of_both_kinds(setup: common.Setup) -> tuple[Training, ...]:
    """Natural labels, then random ones, from the same starts."""
    return tuple(Training(*one, setup.models) for one in zip(WORDS, setup.sets, PARTS, strict=True))


def minima(
    settings: Any, trainings: Sequence[Training], values: Mapping[str, np.ndarray],
    read: Callable[..., Iterator[bool]], share: float = 0.9,
) -> Iterator[Frame]:  # fmt: skip
    """Trains one after the other, with a frame after each network is read that carries a copy of `values`.

    Args:
        read: (place of the training, place of the set, the set, its networks as they were found) -> after
            each measurement, whether a frame is to carry what it put into `values`.
        share: of a training's span, before anything is read.
    """
    notes, nets = [], trainings[0].nets
    for step, one in enumerate(trainings):
        (begin, end), nets = one.span, one.nets or nets
        trained = begin + share * (end - begin)
        assert nets is not None
        copies, ensemble = len(nets) // len(one.sets), training.Ensemble(nets)
        samples = [(each.x_train, each.y_train) for each in one.sets for _ in range(copies)]
        own = {name: getattr(settings, knob) for name, knob in GIVEN.items() if name not in one.how}
        outcome = yield from common.fit(
            ensemble, samples, span=(begin, trained), step=step,
            showing=partial(_read_early, read, step, one.sets, values), **own, **one.how,
        )  # fmt: skip
        notes += outcome.told(one.who)
        if outcome.word == "diverged":
            yield Frame(step, common.snapshot(values), trained, "diverged", notes[-1])
            return
        nets = [ensemble.member(k) for k in range(ensemble.size)]
        for s, each in enumerate(one.sets):
            for new in read(step, s, each, *nets[copies * s : copies * (s + 1)]):
                yield Frame(step, common.snapshot(values) if new else {}, trained)
            done = s + 1 == len(one.sets)
            yield Frame(step + done, common.snapshot(values), min(end, 0.99) if done else trained)
    yield Frame(len(trainings), {}, 1.0, "done", "; ".join(notes))


def _read_early(
    read: Callable[..., Iterator[bool]], step: int, sets: Sequence[data.Dataset],
    values: Mapping[str, np.ndarray], ensemble: training.Ensemble,
) -> dict[str, np.ndarray]:  # fmt: skip
    """A copy of `values` with what is read first off the networks of the first set, as they are."""
    before, copies = common.snapshot(values), ensemble.size // len(sets)
    try:
        any(read(step, 0, sets[0], *(ensemble.member(k) for k in range(copies))))
        return common.snapshot(values)
    finally:
        # By no function of ours: a panel may break off at the call of one.
        for name, old in before.items():
            values[name][...] = old


def ends(model: nn.Module, one: data.Dataset) -> dict[str, float]:
    """What every minimum is described by: training loss and error, and the error on clean test samples."""
    loss, wrong = common.fitted(model, one.x_train, one.y_train)
    return {"loss": loss, "train_error": wrong, "test_error": common.fitted(model, one.x_test, one.y_test)[1]}


def blank(*places: int, **axes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Arrays (*places, ...) of nothing yet: those of `ends`, and the named ones."""
    return common.blank(*places, **{"loss": (), "train_error": (), "test_error": ()} | axes)


def margins_and_norms(model: nn.Module, one: data.Dataset) -> tuple[Tensor, Tensor]:
    """The margins of the training samples, (n,), and ‖W‖_F of the layers."""
    with torch.no_grad():
        found = margins(model(one.x_train), one.y_train).double()
    return found, torch.stack([frobenius(layer) for layer in weight_layers(model, one.x_train)])


def converged(run: Run) -> tuple[Check, ...]:
    """Whether all networks are fitted, to one loss."""
    error, loss = run.last("train_error"), run.last("loss")
    return common.converged(error, loss, run.settings.stop, "raise epochs or width, or lower the stop")


def told(values: np.ndarray, form: str = ".2f") -> str:
    """The means over seeds of (S, natural or random)."""
    return ", ".join(f"{word} {v:{form}}" for word, v in zip(KINDS, values.mean(axis=0), strict=True))


BOTH_NATURAL = World("both networks with natural labels", {"label_noise": 0.0})


def of_kinds(
    frames: Frames, prediction: Mapping[str, np.ndarray], x: str, name: str, mark: Any
) -> list[figures.Mark]:
    """Both kinds of labels over an x of the prediction: (S, kinds, X)."""
    return [
        mark(prediction[x], common.seen(frames, name, len(prediction[x]), at=(k,)), label=words, color=color)
        for k, (words, color) in enumerate(zip(WORDS, COLORS, strict=True))
    ]
