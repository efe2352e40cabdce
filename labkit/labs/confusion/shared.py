"""What the experiments of this lab share: the paper, colours that mean one thing, data and fully connected
networks of every initialisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labkit import data
from labkit.labs import common
from labkit.measure.confusion import Confusion
from labkit.models.mlp import MLP, ResidualMLP, mlp
from labkit.protocol.claims import World

PAPER = (
    "The Effect of Neural Net Architecture on Gradient Confusion & Training Performance "
    "(ICLR 2020 submission)"
)
COSINE, ETA, LOSS, WIDTH, DEPTH, SKIP = range(6)
STRATEGY = 6

TINY = 1e-300  # for what is 0 where a logarithm is taken: networks may have no negative product at all
GRID = np.linspace(-1, 1, 81)  # cosines at which their density is drawn
# (Gram matrix of gradients) -> their confusion; (network, samples, classes) -> samples' Gram matrix.
Measure = Callable[[Tensor], Confusion]
Gram = Callable[[nn.Module, Tensor, Tensor], Tensor]

ACTIVATIONS = ("tanh", "identity", "relu")
INITS = ("glorot", "lecun", "he", "strategy", "orthogonal")


def samples(settings: Any, dtype: torch.dtype = torch.float64) -> tuple[data.Dataset, ...]:
    """For each seed n samples as vectors on the sphere of radius 1, centred and scaled by feature before."""
    return common.datasets(settings, classes=10, n_test=1, normalize="standardize+unit-length", dtype=dtype)


def variances(init: str, sizes: Sequence[int], kappa: float = 1.0) -> tuple[float, ...]:
    """The variance of one weight of each layer; `sizes` as (inputs, hidden units ..., outputs).

    Strategy 4.1 is LeCun's initialisation with all layers but the first divided by √κ: κ = 1 is LeCun's and
    κ = 1/2 He's. Orthogonal matrices have LeCun's variance where a layer has no more rows than columns.
    """
    pairs = list(zip(sizes[:-1], sizes[1:], strict=True))
    if init == "glorot":
        return tuple(2 / (a + b) for a, b in pairs)
    if init == "orthogonal":
        return tuple(1 / max(a, b) for a, b in pairs)
    scale = {"lecun": 1.0, "he": 2.0, "strategy": 1 / kappa}[init]
    return tuple((1.0 if init == "strategy" and p == 0 else scale) / a for p, (a, _) in enumerate(pairs))


def draws(sizes: Sequence[int], seed: int, init: str = "", device: str = "cpu",
          dtype: torch.dtype = torch.float64) -> list[Tensor]:  # fmt: skip
    """Weights of variance 1, or orthogonal ones of this initialisation, for each layer."""
    name = "orthogonal" if init == "orthogonal" else "standard"
    d, *hidden, K = sizes
    net = mlp(d, hidden[0], len(hidden), K, bias=False, init=name, seed=seed, dtype=dtype, device=device)
    return [layer.get_parameter("weight").detach() for layer in net.layers]


def network(
    weights: Sequence[Tensor], scales: Sequence[float], activation: str, *, skip: bool = False,
    batch_norm: bool = False,
) -> MLP:  # fmt: skip
    """A network without biases whose layer p has the weights `scales[p] * weights[p]`.

    Networks of several initialisations made from one draw differ in nothing but scale.
    """
    sizes = [weights[0].shape[1], *(weight.shape[0] for weight in weights)]
    dtype, device = weights[0].dtype, weights[0].device
    more: dict[str, Any] = {"skip": skip, "batch_norm": batch_norm} if skip or batch_norm else {}
    net = (ResidualMLP if more else MLP)(sizes, activation, False, 1.0, dtype, device, **more)
    with torch.no_grad():
        for layer, weight, scale in zip(net.layers, weights, scales, strict=True):
            layer.get_parameter("weight").copy_(scale * weight)
    return net


# Faults that worlds plant in the measuring code.


def after(change: Callable[[Any], Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The fault that changes what a function gives; it is pickled under the name of the change."""

    @wraps(change)
    def fault(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **more: change(function(*args, **more))

    return fault


@after
def same_gradient(gram: Tensor) -> Tensor:
    """Every gradient replaced by the mean of all, where a function gives their inner products."""
    return torch.full_like(gram, float(gram.mean()))


def all_alike(confusion: Callable[..., Confusion]) -> Callable[..., Confusion]:
    """The same, where a function takes the inner products."""
    alike = same_gradient(torch.as_tensor)
    return lambda gram, **more: confusion(alike(gram), **more)


@after
def mean_for_worst(found: Confusion) -> Confusion:
    """The mean pair in the place of the worst."""
    return replace(found, eta=max(0.0, -found.mean_inner), minimum_cosine=found.mean_cosine)


def worlds(module: str) -> tuple[World, World]:
    """Both faults in a module, for claims on the gradients of single samples and on their worst pair."""
    return (
        World("every gradient replaced by their mean", faults={f"{module}:gradient_gram": same_gradient}),
        World("the mean pair for the worst", faults={f"{module}:confusion": mean_for_worst}),
    )
