"""Path norms (paper 2, section 2.2): sums over all paths from an input to an output unit.

A path takes one weight from each layer. The sum over paths of prod abs(w)^p has prod h_i terms, and one
forward pass of ones through the network with abs(W)^p in the place of W computes it: each unit then holds the
sum over the paths that end in it.

Max pooling passes on one of its inputs, and every one of them is counted; average pooling has weights
1/count, raised to p like all others. Both p-norms to the power p are unchanged by node-wise rescaling.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from labkit.measure.layers import Activation, Layer, Reshape, Step, chain
from labkit.measure.pools import Pool

__all__ = ["path_norm", "path_norms"]


def path_norm(model: nn.Module, x: Tensor, p: float, *, biases: bool = False) -> Tensor:
    """Sum over all paths of prod abs(w)^p, without a root.

    Args:
        model: a chain of layers with ReLU between; see `weight_layers`.
        x: (n, ...) inputs; only the shape of one matters.
        p: 1 or 2, or another number of at least 1.
        biases: counts a bias as the weight from a unit that is always 1 and has no weights coming in.

    Returns:
        A 0-d float64 tensor.

    Raises:
        ValueError: p is below 1, an activation is not ReLU, or as `weight_layers`.
    """
    return path_norms(model, x, p, biases=biases).sum()


def path_norms(model: nn.Module, x: Tensor, p: float, *, biases: bool = False) -> Tensor:
    """The same for each output unit: the sum over the paths that end in it, (K,) float64.

    The largest of them for p = 1 is what prod ||W||_(1,inf) bounds; their sum may exceed that, up to K times.
    """
    return walk(chain(model, x), p, biases=biases)


def walk(
    steps: Sequence[Step], p: float, *, biases: bool = False, factors: Sequence[float] | None = None
) -> Tensor:
    """The pass of ones through a chain, with layer i's powers of weights times `factors[i]`; (K,)."""
    if not p >= 1:
        raise ValueError(f"p: got {p!r}; it takes 1, 2 or another number of at least 1")
    layers = [step for step in steps if isinstance(step, Layer)]
    left = iter([1.0] * len(layers) if factors is None else factors)
    first = next(step for step in steps if isinstance(step, (Layer, Pool)))
    h = torch.ones(1, *first.in_shape, dtype=torch.float64, device=layers[0].weight.device)
    for step in steps:
        if isinstance(step, Layer):
            c = next(left)
            bias = c * _power(step.bias, p) if biases and step.bias is not None else None
            h = step(h, c * _power(step.weight, p), bias)
        elif isinstance(step, Pool):
            h = step.paths(h, p)
        elif isinstance(step, Reshape):
            h = h.reshape(1, *step.shape)
        elif isinstance(step, Activation) and step.name != "relu":
            raise ValueError(f"model: paths pass through ReLU unchanged, not through {step.name}()")
    return h.flatten()


def _power(tensor: Tensor, p: float) -> Tensor:
    return tensor.double().abs() if p == 1 else tensor.double().abs().pow(p)
