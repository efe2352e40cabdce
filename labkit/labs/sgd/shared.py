"""What the experiments of this lab share: the paper, colours that mean the same thing in every figure, and
how minima of natural and of random labels are made.

The networks are perceptrons with biases on standardised images, trained by SGD on minibatches of 64 with
momentum .9, all labels to one cross-entropy: a radius, a margin or a norm depends on where one stops, so
minima are compared at equal training loss only.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from labkit import data, models, training
from labkit.labs import common
from labkit.labs.common import fitted as fitted
from labkit.labs.common import snapshot as snapshot
from labkit.labs.common import worst
from labkit.protocol.experiment import Frame
from labkit.protocol.rules import Check
from labkit.protocol.settings import knob

PAPER = "Theory of Deep Learning III: Generalization Properties of SGD (2017)"
NATURAL, RANDOM, MINIMUM_NORM, SGD, LANGEVIN, RIDGE, SGDL = range(7)

KINDS = ("natural", "random")
WORDS = ("natural labels", "random labels")
COLORS = (NATURAL, RANDOM)
BATCH, MOMENTUM = 64, 0.9
# Random labels take about six times the steps of natural ones: shares of a training's progress.
PARTS = ((0.0, 0.15), (0.15, 1.0))


@dataclass(frozen=True)
class Minima(common.OnData):
    """What all experiments that compare minima of natural and random labels can be asked for."""

    n: int = knob(400, "training samples N", slider=(100, 1200), bounds=(20, None), step=100)
    width: int = knob(256, "hidden units", slider=(16, 512), bounds=(1, None), scale="log2")
    depth: int = knob(1, "hidden layers", slider=(1, 3), bounds=(1, None), step=1)
    stop: float = knob(
        1e-3, "cross-entropy at which training stops", slider=(1e-3, 0.1), bounds=(1e-6, 0.5), scale="log",
        label="stop at loss",
    )  # fmt: skip
    label_noise: float = knob(
        1.0, "share of the random network's labels that is redrawn over all classes", slider=(0.2, 1),
        bounds=(0, 1), step=0.1, label="noise (redraw)",
    )  # fmt: skip
    lr: float = knob(
        0.05, "learning rate of SGD with momentum .9 and batches of 64", slider=(0.005, 0.1),
        bounds=(1e-6, 100), scale="log", label="learning rate",
    )  # fmt: skip
    epochs: int = knob(
        3000, "longest training; a network that needs more is not compared", slider=(100, 5000),
        bounds=(1, None), scale="log",
    )  # fmt: skip
    dataset: str = knob("digits", "images", choices=("digits", "mnist-5k", "mnist", "cifar10"))


@dataclass(frozen=True)
class Labelled:
    """What `prepare` of these experiments makes: sets[natural or random][seed]."""

    settings: Any
    sets: tuple[tuple[data.Dataset, ...], ...]


def prepare(settings: Any) -> Labelled:
    """One set of images a seed, with its own labels and with random ones."""
    sets = tuple(
        tuple(
            common.classification(
                settings.dataset, n=settings.n, classes=10, n_test=1000, label_noise=noise,
                noise_kind="redraw", normalize="standardize", seed=seed, device=settings.device,
            )
            for seed in common.seeds(settings)
        )
        for noise in (0.0, settings.label_noise)
    )  # fmt: skip
    return Labelled(settings, sets)


@dataclass(frozen=True)
class Started(Labelled):
    """The same, with the networks before training: one a seed, whatever the labels."""

    starts: tuple[nn.Module, ...]


def prepare_starts(settings: Any) -> Started:
    """The sets, and one network a seed that is trained on each of them."""
    sets = prepare(settings).sets
    starts = tuple(network(settings, sets[0][0].dim, seed) for seed in common.seeds(settings))
    return Started(settings, sets, starts)


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


def ends(model: nn.Module, one: data.Dataset) -> dict[str, float]:
    """What every minimum is described by: training loss and error, and the error on clean test samples."""
    loss, wrong = fitted(model, one.x_train, one.y_train)
    return {"loss": loss, "train_error": wrong, "test_error": fitted(model, one.x_test, one.y_test)[1]}


def blank(seeds: int, **axes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Arrays (S, natural or random, ...) of nothing yet: those of `ends`, and the named ones."""
    shapes = {"loss": (), "train_error": (), "test_error": ()} | axes
    return {name: np.full((seeds, len(KINDS), *shape), np.nan) for name, shape in shapes.items()}


def converged(train_error: np.ndarray, loss: np.ndarray, stop: float) -> tuple[Check, ...]:
    """What makes minima comparable: all samples are fitted, to one loss."""
    # Some slack: the loop adds the loss up in float32.
    return (
        Check("training error is zero", worst(train_error), 0.0, "raise epochs or width, or lower the stop"),
        Check("training loss has reached the stop", worst(loss), 1.02 * stop, "raise epochs"),
    )
