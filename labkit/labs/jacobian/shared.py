"""What several experiments of this lab share: colours, the model of (1.1), the split of label space.

And the fault that their worlds plant: the rows of J in another order than the labels, with which spectra stay
right and projections go wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labkit import data, figures, krylov, models, training
from labkit.figures.palette import Color
from labkit.labs import common
from labkit.measure import jacobian, rows
from labkit.protocol.experiment import Frame, Frames
from labkit.protocol.settings import knob

PAPER = "Generalization Guarantees for Neural Nets via Harnessing the Low-rankness of Jacobian (2020)"
# Colours mean the same thing in every figure of the lab.
INFORMATION, NUISANCE, TRAIN, TEST = 0, 1, 2, 3


def label_noise(share: float) -> float:
    """The setting of wrong labels, as four experiments have it."""
    return knob(
        share, "share of training labels moved to a strictly different class", slider=(0, 1), step=0.05,
        label="label noise (strict)",
    )  # fmt: skip


def learning_rate(rate: float, says: str, slider: tuple[float, float], *, most: float) -> float:
    """The setting of the step size, on a logarithmic slider."""
    return knob(rate, says, slider=slider, bounds=(1e-6, most), scale="log", label="learning rate")


def steps(count: int, says: str) -> int:
    """The setting of the length of a training, on a logarithmic slider."""
    return knob(count, says, slider=(200, 5000), bounds=(10, None), scale="log")


def duration(gamma: float, most: float) -> float:
    """The setting of Γ, on a slider that ends at `most`."""
    says = "Γ: training lasts T = Γ/(ηα²) steps"
    return knob(gamma, says, slider=(1, most), bounds=(1, 100), step=0.5, label="stopping time Γ")


def output_std(most: float) -> float:
    """The setting of ν, on a slider that ends at `most`."""
    return knob(
        0.1, "ν: the output layer has variance ν²/k", slider=(0.01, most), bounds=(1e-6, 1e3), scale="log",
        label="output scale ν",
    )  # fmt: skip


class Labelled(common.Setup):
    """Networks that learn one-hot labels, one a seed."""

    @property
    def x(self) -> list[Tensor]:
        """Training inputs (n, d) of each seed."""
        return [one.x_train for one in self.sets]

    @property
    def targets(self) -> list[Tensor]:
        """Their one-hot labels (n, K)."""
        return [data.one_hot(one.y_train, self.settings.classes, one.x_train.dtype) for one in self.sets]


def small_outputs(settings: Any, depth: int = 1, activation: str = "softplus") -> Labelled:
    """Networks with a small output layer, so that r₀ ≈ −y, on inputs of unit length.

    Depth 1: the network of (1.1), f(x) = V phi(W x) with V fixed.
    Deeper: an MLP without biases, all trained.
    """
    sets = common.datasets(
        settings, n_test=300, normalize="standardize+unit-length", label_noise=settings.label_noise
    )
    nets: list[nn.Module] = []
    for one, seed in zip(sets, common.seeds(settings), strict=True):
        how: dict[str, Any] = {"activation": activation, "seed": seed, "device": settings.device}
        sizes, scale = (one.dim, settings.width), settings.output_std
        if depth == 1:
            nets.append(models.one_hidden(*sizes, settings.classes, output_std=scale, **how))
        else:
            how |= {"bias": False, "init": "lecun", "output_scale": scale}
            nets.append(models.mlp(*sizes, depth, settings.classes, **how))
    return Labelled(settings, sets, tuple(nets))


def untrained(settings: Any, sets: Sequence[data.Dataset], output_scale: float = 1.0) -> Labelled:
    """An MLP of the settings' width and depth for each data set, one a seed, in the type of its inputs."""
    nets = (
        models.mlp(
            one.dim, settings.width, settings.depth, settings.classes, init="glorot", seed=seed,
            output_scale=output_scale, dtype=one.x_train.dtype, device=settings.device,
        )
        for one, seed in zip(sets, common.seeds(settings), strict=True)
    )  # fmt: skip
    return Labelled(settings, tuple(sets), tuple(nets))


def residual(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """f(x) - y as one vector (n*K,), row i*K + k for output k of sample i; float64."""
    with torch.no_grad():
        return rows(model(x).double() - y.double())


def gram_spectrum(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values (nK,) descending and left singular vectors (nK, nK) of the Jacobian, through J Jᵀ."""
    gram = jacobian(model, x).gram()
    eigenvalues, vectors = torch.linalg.eigh(gram.double())
    return eigenvalues.flip(0).clamp(min=0).sqrt(), vectors.flip(1)


def gram_values(model: nn.Module, x: Tensor) -> Tensor:
    """The singular values alone, (nK,) descending: a third of the time."""
    return torch.linalg.eigvalsh(jacobian(model, x).gram().double()).flip(0).clamp(min=0).sqrt()


def project(basis: Tensor, vector: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Norms of the parts of a vector in label space on I (the first `rank` columns) and on N (the others)."""
    coefficients = basis.T @ vector
    return coefficients[:rank].norm(), coefficients[rank:].norm()


def train(
    setup: Labelled,
    ensemble: training.Ensemble,
    columns: Sequence[str],
    measure: Callable[[training.Ensemble], np.ndarray],
    **how: Any,
) -> Iterator[Frame]:
    """`training.train` of all seeds at once, with several values measured in one pass.

    Args:
        columns: their names in the frames; what no seed has is left out.
        measure: gives them side by side, (S, columns).
    """
    how |= {"steps": setup.settings.steps, "seed": setup.settings.seed, "measure": {"columns": measure}}
    for frame in training.train(ensemble, setup.x, setup.targets, **how):
        values = dict(frame.values)
        if "columns" in values:
            found = dict(zip(columns, values.pop("columns").T, strict=True))
            values |= {name: value for name, value in found.items() if not np.isnan(value).all()}
        yield replace(frame, values=values)


def measured(frames: Frames, *curves: tuple[str, str, Color]) -> list[figures.Mark]:
    """What a run measured, over its steps: the name of the value, its label, its colour."""
    return [figures.Measured(*common.curve(frames, name), label, color) for name, label, color in curves]


def width_axis(widths: np.ndarray) -> dict[str, Any]:
    """Both axes of a panel in which something is a power of the width."""
    ends = float(widths[0]) * 0.8, float(widths[-1]) * 1.25
    return {"xlabel": "width k", "xscale": "log", "yscale": "log", "xlim": ends}


def slopes(
    frames: Frames, widths: np.ndarray, what: str, told: Mapping[str, tuple[str, np.ndarray]]
) -> list[figures.Mark]:
    """What was measured for each activation against the width, along a line of the slope that theory tells.

    Args:
        what: begins the names of the values in the frames.
        told: activation -> its slope in words, and the line over its first value (W,).
    """
    marks: list[figures.Mark] = []
    for color, (name, (slope, line)) in enumerate(told.items()):
        x, y = common.curve(frames, f"{what}_{name}")
        if len(x):  # the theory fixes the slope, not the constant: the line starts at the first point
            marks.append(figures.Predicted(widths, y[:, 0].mean() * line, f"{name}: slope {slope}", color))
        marks.append(figures.Points(x, y, label=f"{name}, measured", color=color))
    return marks


def neighbours(spectra: np.ndarray) -> np.ndarray:
    """λ_s / λ_(s+1) of spectra (S, m), descending: (S, m − 1)."""
    return spectra[:, :-1] / np.maximum(spectra[:, 1:], 1e-300)


def shuffled_rows(jacobian: Callable[..., Any]) -> Callable[..., krylov.Operator]:
    """A fault: J as an operator, its rows permuted against the labels, the same way at every call."""

    def faulty(*args: Any, **kwargs: Any) -> krylov.Operator:
        J = jacobian(*args, **kwargs)
        order, back = _orders(J.shape[0])
        return krylov.operator_from(
            lambda V: J.matmat(V)[order], lambda U: J.rmatmat(U[back]), J.shape, dtype=J.dtype,
            device=J.device, gram=lambda: J.gram()[order][:, order],
        )  # fmt: skip

    return faulty


def shuffled_gram(gram: Callable[..., Any]) -> Callable[..., Any]:
    """The same fault in a function that gives JJᵀ or its mean, (nK, nK)."""

    def faulty(*args: Any, **kwargs: Any) -> Any:
        found = gram(*args, **kwargs)
        order, _ = _orders(len(found))
        return found[order][:, order]

    return faulty


def _orders(size: int) -> tuple[list[int], list[int]]:
    """A permutation, and the one that undoes it."""
    order = np.random.default_rng(0).permutation(size)
    return order.tolist(), order.argsort().tolist()
