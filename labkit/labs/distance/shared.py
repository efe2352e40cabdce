"""What several experiments of this lab share: colours, the network, training to a matched stop, distances."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit import data, measure, models, training
from labkit.labs import common
from labkit.protocol.experiment import Frame
from labkit.protocol.rules import Check
from labkit.protocol.settings import knob
from labkit.protocol.statistics import exponent
from labkit.theory import distance as theory
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


def copied(weights: Weights) -> Weights:
    """The weights as they are, whatever becomes of the networks."""
    return {name: value.clone() for name, value in weights.items()}


def measuring(distance: Distance, start: Weights) -> Callable[[training.Ensemble], Tensor]:
    """What tells how far an ensemble is from a start."""
    return lambda ensemble: distance(ensemble.weights(), start)


def not_moved(distance: Distance) -> Distance:
    """A fault to plant: the distance, replaced by zero."""
    return lambda now, start: torch.zeros_like(distance(now, start))


def measured_from_origin(distance: Distance) -> Distance:
    """A fault to plant: the start forgotten."""
    return lambda now, start: from_origin(now)


# Worlds for the claims that rest on r; the distance from the origin stays what it is.
WITHOUT_DISTANCE = {f"{__name__}:distance": not_moved}
FROM_ORIGIN = {f"{__name__}:distance": measured_from_origin}


def growth(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The exponent of y in x, a seed at a time: (G,), (S, G) -> (S,).

    What is the same everywhere, zero included, does not grow: 0.
    """
    still = np.ptp(y, axis=1) == 0
    return np.where(still, 0.0, exponent(x, np.where(still[:, None], 1.0, y)))


def missed(reached: np.ndarray) -> Check:
    """Distances compare at equal loss only."""
    count = float((reached == 0).sum())
    return Check("trainings that missed the stop rule", count, 0.0, "raise epochs or the stop loss")


def outputs(settings: Any, classes: int) -> int:
    """One a class; a single one for two classes under the squared loss, whose labels are then ±1 (Fig. 5)."""
    return 1 if classes == 2 and settings.loss == "squared" else classes


def targets(loss: str, y: Tensor, classes: int) -> Tensor:
    """What the outputs are compared with: class numbers, one-hot rows, or ±1 for two classes."""
    if loss != "squared":
        return y
    return 2.0 * y[:, None] - 1 if classes == 2 else data.one_hot(y, classes)


def network(settings: Any, inputs: int, width: int, seed: int, classes: int = 10) -> models.MLP:
    """Hidden layers of one width, ReLU, biases 0 at the start, Glorot or sd 1/√H (§2, App. D)."""
    return models.mlp(
        inputs, width, settings.depth, outputs(settings, classes), init=settings.init, seed=seed,
        device=settings.device,
    )  # fmt: skip


def networks(settings: Any, one: data.Dataset, width: int, apart: int = 0) -> tuple[models.MLP, ...]:
    """Those of all seeds, for such data; `apart` is added to the seeds."""
    return tuple(
        network(settings, one.dim, width, seed + apart, one.classes) for seed in common.seeds(settings)
    )


def norms_of_start(settings: Any, dims: Sequence[int]) -> theory.InitialNorms:
    """Both norms of every layer before training, in the mean over starts."""
    return theory.initial_norms(dims, theory.xavier_sds(settings.init, dims))


def spectral_norms(layers: Iterable[Any]) -> np.ndarray:
    """‖W_k‖₂ of every layer, (d,), exact in float64."""
    return np.array([float(measure.spectral(one.weight)) for one in layers])


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


@dataclass(frozen=True)
class Trained(common.OnData):
    """What every experiment that trains can be asked for (App. D)."""

    loss: str = knob("squared", "what is minimised", choices=("squared", "cross-entropy"))
    margin: float = knob(10.0, "stop when 99 % of margins reach it (cross-entropy)", slider=(1, 10), step=1)
    depth: int = knob(4, "hidden layers", slider=(1, 6), bounds=(1, None), step=1)
    init: str = knob("glorot", "initialisation", choices=("glorot", "inverse-sqrt-width", "lecun"))
    momentum: float = knob(0.9, "momentum of SGD", slider=(0, 0.95), bounds=(0, 0.999))
    batch_size: int = knob(64, "samples a step", slider=(16, 256), bounds=(1, None))
    epochs: int = knob(1000, "passes over the data, at most", slider=(100, 2000), bounds=(1, None))
    dataset: str = knob("digits", "images", choices=("digits", "mnist-5k", "mnist", "cifar10"))


def stop_rule(settings: Any) -> StopRule:
    """A loss value, or 99 % of the points with a margin of at least 10 (Fig. 1)."""
    return LossBelow(settings.stop) if settings.loss == "squared" else MarginAtLeast(settings.margin, 0.99)


def fit(
    settings: Any, ensemble: training.Ensemble, sets: Sequence[data.Dataset], *,
    measure: Mapping[str, Callable[[training.Ensemble], Any]], measured: int = 40,
) -> Iterator[Frame]:  # fmt: skip
    """Trains each copy on its own data until it meets the stop rule: SGD, batch 64 (App. D).

    The copies are one a seed, or several of each seed in a row. The squared loss is (1/K)Σ(f − y)² against
    one-hot labels (or ±1), averaged over samples.
    """
    squared = settings.loss == "squared"
    wanted_outputs = [targets(settings.loss, one.y_train, one.classes) for one in sets]
    longest = longest_training(settings, sets[0].n)
    # A copy's batches follow from its seed alone, whatever else is trained beside it.
    copies = ensemble.size // settings.seeds
    orders = [seed for seed in common.seeds(settings) for _ in range(copies)]
    # The length of a run is not known beforehand, so the moments of measuring grow with the step.
    wanted = np.unique(np.geomspace(1, longest, 4 * measured).round().astype(int))
    return training.train(
        ensemble, [one.x_train for one in sets], wanted_outputs,
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
