"""What the experiments of this lab share: the paper, colours that mean the same thing in every figure, and
how minima of natural and of random labels are made.

The networks are perceptrons with biases on standardised images, trained by SGD on minibatches of 64 with
momentum .9, all labels to one cross-entropy: a radius, a margin or a norm depends on where one stops, so
minima are compared at equal training loss only.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labkit import data, figures, models, training
from labkit.figures.palette import Color
from labkit.labs import common
from labkit.labs.common import fitted as fitted
from labkit.labs.common import snapshot as snapshot
from labkit.labs.common import worst
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
BATCH, MOMENTUM = 64, 0.9
# Random labels take about six times the steps of natural ones: shares of a training's progress.
PARTS = ((0.0, 0.15), (0.15, 1.0))


rate = partial(knob, bounds=(1e-6, 100), scale="log", label="learning rate")
stop_at = partial(knob, slider=(1e-3, 0.1), bounds=(1e-6, 0.5), scale="log", label="stop at loss")


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


@dataclass(frozen=True)
class Labelled:
    """What `prepare` makes: sets[natural or random][seed], or [seed] with labels of one kind."""

    settings: Any
    sets: tuple[Any, ...]


def images(settings: Any, **how: Any) -> tuple[data.Dataset, ...]:
    """One set of images of ten classes a seed, drawn as `common.classification` is told."""
    given = {"n_test": 1000, "label_noise": 0.0, "normalize": "standardize", "device": settings.device} | how
    return tuple(
        common.classification(
            settings.dataset, n=settings.n, classes=10, noise_kind="redraw", seed=seed, **given
        )
        for seed in common.seeds(settings)
    )


def prepare(settings: Any) -> Labelled:
    """One set of images a seed, with its own labels and with random ones."""
    return Labelled(
        settings, tuple(images(settings, label_noise=noise) for noise in (0.0, settings.label_noise))
    )


@dataclass(frozen=True)
class Started(Labelled):
    """The same, with the networks before training: one a seed, where nothing else is said."""

    starts: tuple[Any, ...]


def prepare_starts(settings: Any) -> Started:
    """The sets, and one network a seed that is trained on each of them."""
    sets = prepare(settings).sets
    return Started(settings, sets, networks(settings, sets[0][0].dim))


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
class Found:
    """How a training ended: "done", "missed" (the loss was not reached in time) or "diverged"."""

    word: str
    note: str
    models: tuple[nn.Module, ...]


def fit(
    settings: Any, nets: Sequence[nn.Module], sets: Sequence[data.Dataset], *, span: tuple[float, float],
    step: int = 0, lr: float | None = None, stop: float | None = None, seed: int | None = None,
    batch: int = BATCH,
) -> Generator[Frame, None, Found]:  # fmt: skip
    """Trains copies of the networks side by side, each on its set, to the loss at which all stop.

    Args:
        nets: left as they are.
        sets: one a network.
        span: progress of the whole run at the start and at the end of this training.
        step: the step that its ticks carry.
        lr, stop: in place of the settings' own.
        seed: of the minibatches, the settings' own by default; copy s takes seed + s.
        batch: samples a step.
    """
    ensemble = training.Ensemble(nets)
    goal = settings.stop if stop is None else stop
    frames = training.train(
        ensemble, [one.x_train for one in sets], [one.y_train for one in sets], loss="cross-entropy",
        lr=settings.lr if lr is None else lr, momentum=MOMENTUM, batch_size=batch, epochs=settings.epochs,
        stop=training.LossBelow(goal), measure_at=10 * -(-sets[0].n // batch),
        seed=settings.seed if seed is None else seed, read_at_end=True,
    )  # fmt: skip
    ended = yield from common.to_loss(frames, goal, span, step)
    word = "diverged" if ended.status == "diverged" else "missed" if "not reached" in ended.note else "done"
    return Found(word, ended.note, tuple(ensemble.member(s) for s in range(ensemble.size)))


@dataclass(frozen=True)
class Training:
    """One training of a run: networks side by side, those of a set in a row.

    Attributes:
        who: what a note calls it.
        span: its share of the run's progress, with what is read off its networks.
        nets: None: those that the training before it found.
        how: passed on to `fit`.
    """

    who: str
    sets: Sequence[data.Dataset]
    span: tuple[float, float]
    nets: Sequence[nn.Module] | None = None
    how: Mapping[str, Any] = field(default_factory=dict)


def of_both_kinds(setup: Started) -> tuple[Training, ...]:
    """Natural labels, then random ones, from the same starts."""
    return tuple(Training(*one, setup.starts) for one in zip(WORDS, setup.sets, PARTS, strict=True))


def minima(
    settings: Any, trainings: Sequence[Training], values: Mapping[str, np.ndarray],
    read: Callable[..., Iterator[bool]], share: float = 0.9,
) -> Iterator[Frame]:  # fmt: skip
    """Trains one after the other, with a frame after each that carries a copy of `values`.

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
        copies = len(nets) // len(one.sets)
        sets = [each for each in one.sets for _ in range(copies)]
        found = yield from fit(settings, nets, sets, span=(begin, trained), step=step, **one.how)
        if found.word == "diverged":
            yield Frame(step, snapshot(values), trained, "diverged", f"{one.who}: {found.note}")
            return
        notes += [f"{one.who}: {found.note}"] if found.word == "missed" else []
        nets = found.models
        for s, each in enumerate(one.sets):
            for new in read(step, s, each, *nets[copies * s : copies * (s + 1)]):
                yield Frame(step, snapshot(values) if new else {}, trained)
        yield Frame(step + 1, snapshot(values), min(end, 0.99))
    yield Frame(len(trainings), {}, 1.0, "done", "; ".join(notes))


def ends(model: nn.Module, one: data.Dataset) -> dict[str, float]:
    """What every minimum is described by: training loss and error, and the error on clean test samples."""
    loss, wrong = fitted(model, one.x_train, one.y_train)
    return {"loss": loss, "train_error": wrong, "test_error": fitted(model, one.x_test, one.y_test)[1]}


def blank(*places: int, **axes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Arrays (*places, ...) of nothing yet: those of `ends`, and the named ones."""
    return common.blank(*places, **{"loss": (), "train_error": (), "test_error": ()} | axes)


def margins_and_norms(model: nn.Module, one: data.Dataset) -> tuple[Tensor, Tensor]:
    """The margins of the training samples, (n,), and ‖W‖_F of the layers."""
    with torch.no_grad():
        found = margins(model(one.x_train), one.y_train).double()
    return found, torch.stack([frobenius(layer) for layer in weight_layers(model, one.x_train)])


def converged(run: Run) -> tuple[Check, ...]:
    """What makes minima comparable: all samples are fitted, to one loss."""
    error, loss = worst(run.last("train_error")), worst(run.last("loss"))
    # Some slack: the loop adds the loss up in float32.
    return (
        Check("training error is zero", error, 0.0, "raise epochs or width, or lower the stop"),
        Check("training loss has reached the stop", loss, 1.02 * run.settings.stop, "raise epochs"),
    )


def reached(x: np.ndarray, y: np.ndarray, level: float) -> np.ndarray:
    """Where y (..., X) first reaches a level, between two x; NaN where it never does, or from the start."""
    found = np.full(y.shape[:-1], np.nan)
    for place in np.ndindex(found.shape):
        over = np.flatnonzero(y[place] >= level)
        if len(over) and over[0]:
            ends = slice(over[0] - 1, over[0] + 1)
            found[place] = np.interp(level, y[place][ends], x[ends])
    return found


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
