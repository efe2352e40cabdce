"""What several experiments of this lab share: colours, the model of (1.1), the split of label space."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from labkit import models
from labkit.measure import jacobian, rows

PAPER = "Generalization Guarantees for Neural Nets via Harnessing the Low-rankness of Jacobian (2020)"
# Colours mean the same thing in every figure of the lab.
INFORMATION, NUISANCE, TRAIN, TEST = 0, 1, 2, 3


def network(
    inputs: int, width: int, depth: int, outputs: int, *, activation: str, output_std: float, seed: int,
    dtype: torch.dtype = torch.float32, device: str = "cpu",
) -> nn.Module:  # fmt: skip
    """Depth 1: the network of (1.1), f(x) = V phi(W x) with V fixed.

    Deeper: an MLP without biases, all trained.
    """
    if depth == 1:
        return models.one_hidden(
            inputs,
            width,
            outputs,
            activation=activation,
            output_std=output_std,
            seed=seed,
            dtype=dtype,
            device=device,
        )
    return models.mlp(
        inputs,
        width,
        depth,
        outputs,
        activation=activation,
        bias=False,
        init="lecun",
        output_scale=output_std,
        seed=seed,
        dtype=dtype,
        device=device,
    )


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
