"""What several experiments of this lab share: colours, the model of (1.1), the split of label space.

And the fault that their worlds plant: the rows of J in another order than the labels, with which spectra stay
right and projections go wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labkit import data, krylov, models
from labkit.labs import common
from labkit.measure import jacobian, rows
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


def network(
    inputs: int, width: int, depth: int, outputs: int, *, activation: str, output_std: float, seed: int,
    dtype: torch.dtype = torch.float32, device: str = "cpu",
) -> nn.Module:  # fmt: skip
    """Depth 1: the network of (1.1), f(x) = V phi(W x) with V fixed.

    Deeper: an MLP without biases, all trained.
    """
    how: dict[str, Any] = {"activation": activation, "seed": seed, "dtype": dtype, "device": device}
    if depth == 1:
        return models.one_hidden(inputs, width, outputs, output_std=output_std, **how)
    return models.mlp(inputs, width, depth, outputs, bias=False, init="lecun", output_scale=output_std, **how)


def untrained(
    settings: Any, sets: Sequence[data.Dataset], dtype: torch.dtype = torch.float32
) -> tuple[nn.Module, ...]:
    """An MLP of the settings' width and depth for each data set, one a seed."""
    return tuple(
        models.mlp(
            one.x_train.shape[1], settings.width, settings.depth, settings.classes, init="glorot", seed=seed,
            dtype=dtype, device=settings.device,
        )
        for one, seed in zip(sets, common.seeds(settings), strict=True)
    )  # fmt: skip


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
