"""What several experiments of this lab share: colours, the network, training to a matched stop, distances."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit import data, models, training
from labkit.labs import common
from labkit.protocol.experiment import Frame
from labkit.protocol.settings import knob
from labkit.protocol.statistics import exponent
from labkit.training.stopping import LossBelow, MarginAtLeast, StopRule

PAPER = "Generalization in Deep Networks: The Role of Distance from Initialization (2017)"
# Colours mean the same thing in every figure of the lab.
START, ORIGIN, PRODUCT, TEST = 0, 1, 2, 3

Weights = Mapping[str, Tensor]
Distance = Callable[[Weights, Weights], Tensor]


def distance(now: Weights, start: Weights) -> Tensor:
    """r = ‖(W, B) − (Z, C)‖_F of every copy, (S,): all weights and biases together (paper 1, §2).

    Args:
        now, start: parameters by name, each with a leading axis over copies.
    """
    return _size([now[name] - start[name] for name in now])


def from_origin(now: Weights) -> Tensor:
    """The distance from the origin of every copy, (S,)."""
    return _size(list(now.values()))


def _size(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack([(part**2).flatten(1).sum(1) for part in parts]).sum(0).sqrt()


def not_moved(distance: Distance) -> Distance:
    """A fault to plant: the distance, replaced by zero."""

    def zero(now: Weights, start: Weights) -> Tensor:
        return torch.zeros_like(distance(now, start))

    return zero


def measured_from_origin(distance: Distance) -> Distance:
    """A fault to plant: the start forgotten."""

    def from_zero(now: Weights, start: Weights) -> Tensor:
        return from_origin(now)

    return from_zero


# Worlds for the claims that rest on r; the distance from the origin stays what it is.
WITHOUT_DISTANCE = {f"{__name__}:distance": not_moved}
FROM_ORIGIN = {f"{__name__}:distance": measured_from_origin}


def growth(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The exponent of y in x, a seed at a time: (G,), (S, G) -> (S,).

    What is the same everywhere, zero included, does not grow: 0.
    """
    still = np.ptp(y, axis=1) == 0
    return np.where(still, 0.0, exponent(x, np.where(still[:, None], 1.0, y)))


def network(settings: Any, inputs: int, width: int, seed: int, outputs: int = 10) -> models.MLP:
    """Hidden layers of one width, ReLU, biases 0 at the start, Glorot or sd 1/√H (§2, App. D)."""
    return models.mlp(
        inputs, width, settings.depth, outputs, init=settings.init, seed=seed, device=settings.device
    )


# Settings that several experiments have; the slider's own default and range are each experiment's.
def label_noise() -> float:
    return knob(
        0.0, "share of labels drawn anew, uniform over all classes", slider=(0, 1), bounds=(0, 1), step=0.05,
        label="label noise (redraw)",
    )  # fmt: skip


def learning_rate(default: float) -> float:
    return knob(
        default, "learning rate of SGD", slider=(0.005, 0.5), bounds=(0, None), scale="log",
        label="learning rate",
    )  # fmt: skip


def stop_at(default: float, least: float = 5e-4) -> float:
    return knob(
        default, "stop when the squared loss is below", slider=(least, 0.05), bounds=(1e-9, 1), scale="log",
        label="stop at loss",
    )  # fmt: skip


def stop_rule(settings: Any) -> StopRule:
    """A loss value, or 99 % of the points with a margin of at least 10 (Fig. 1)."""
    return LossBelow(settings.stop) if settings.loss == "squared" else MarginAtLeast(settings.margin, 0.99)


def fit(
    settings: Any, ensemble: training.Ensemble, sets: Sequence[data.Dataset], *,
    measure: Mapping[str, Callable[[training.Ensemble], Any]], measured: int = 40,
) -> Iterator[Frame]:  # fmt: skip
    """Trains each copy on its own data until it meets the stop rule: SGD, batch 64 (App. D).

    The copies are one a seed, or several of each seed in a row. The squared loss is (1/K)Σ(f − y)² against
    one-hot labels, averaged over samples.
    """
    squared = settings.loss == "squared"
    targets = [data.one_hot(one.y_train, one.classes) if squared else one.y_train for one in sets]
    longest = longest_training(settings, sets[0].n)
    # A copy's batches follow from its seed alone, whatever else is trained beside it.
    copies = ensemble.size // settings.seeds
    orders = [seed for seed in common.seeds(settings) for _ in range(copies)]
    # The length of a run is not known beforehand, so the moments of measuring grow with the step.
    wanted = np.unique(np.geomspace(1, longest, 4 * measured).round().astype(int))
    return training.train(
        ensemble, [one.x_train for one in sets], targets,
        loss="mean" if squared else "cross-entropy", lr=settings.lr, momentum=settings.momentum,
        batch_size=settings.batch_size, epochs=settings.epochs, stop=stop_rule(settings), measure=measure,
        measure_at=wanted.tolist(), seed=orders,
    )  # fmt: skip


def reached(frame: Frame, settings: Any, n: int) -> np.ndarray:
    """Which copies met the stop rule before the last epoch, (S,) bool."""
    return frame.values["steps"] < longest_training(settings, n)


def longest_training(settings: Any, n: int) -> int:
    """The steps after which a training on n samples ends without its stop rule."""
    return settings.epochs * -(-n // min(settings.batch_size, n))
