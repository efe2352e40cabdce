"""Path norms (paper 2, section 2.2): sums over all paths from an input to an output unit.

A path takes one weight from each layer that it meets. The sum over paths of prod abs(w)^p has very many
terms, and one forward pass of ones through the network with abs(W)^p in the place of W computes it: each unit
then holds the sum over the paths that end in it. That is so for every network of weight layers, pools, ReLU,
sums and concatenations (Gonon et al. 2024), with skips too, whose paths have fewer weights.

Max pooling passes on one of its inputs, and every one of them is counted; average pooling has weights
1/count, raised to p like all others, and so has any constant factor. Both p-norms to the power p are
unchanged by node-wise rescaling. All of it rests on f(a h) = a f(h) for a > 0: what is not so is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from labkit.measure.calls import follow
from labkit.measure.pools import Pool
from labkit.measure.steps import Layer, Other, Scale, Shift, Step

__all__ = ["path_norm", "path_norms"]


def path_norm(model: nn.Module, x: Tensor, p: float, *, biases: bool = False) -> Tensor:
    """Sum over all paths of prod abs(w)^p, without a root.

    Args:
        model: weight layers (see `weight_layers`) with ReLU, pools, sums of branches and concatenations
            between; batch norm folded.
        x: (n, ...) inputs; only the shape of one matters.
        p: 1 or 2, or another number of at least 1.
        biases: counts a bias as the weight from a unit that is always 1 and has no weights coming in.

    Returns:
        A 0-d float64 tensor.

    Raises:
        ValueError: p is below 1; a call is no such step, of which the function and the layer are named; or as
            `weight_layers`.

    Cost: one forward pass of one sample and one of ones in float64, whose activations are all held.

    Reference:
        Neyshabur et al. 2015; for networks with skips Gonon et al., A path-norm toolkit, ICLR 2024.
    """
    return path_norms(model, x, p, biases=biases).sum()


def path_norms(
    model: nn.Module, x: Tensor, p: float, *, biases: bool = False, factors: Sequence[float] | None = None
) -> Tensor:
    """The same for each output unit: the sum over the paths that end in it, (K,) float64.

    The largest of them for p = 1 is what prod ||W||_(1,inf) bounds in a chain; their sum may exceed that, up
    to K times.

    Args:
        model, x, p, biases: as `path_norm` takes them.
        factors: a number for each layer, in the order of use, by which its powers are multiplied.

    Returns:
        (K,) float64.

    Raises:
        TypeError, ValueError: as `path_norm`.

    Cost: as `path_norm`.

    Reference: as `path_norm`.
    """
    if not p >= 1:
        raise ValueError(f"p: got {p!r}; it takes 1, 2 or another number of at least 1")
    left = None if factors is None else iter(factors)

    def carry(step: Step, h: Tensor, where: str) -> Tensor:
        if isinstance(step, Other):
            raise ValueError(f"model: {step.weights or step.reason}{where}; so it has no path norm")
        if isinstance(step, Layer):
            if step.kind == "embedding":
                raise ValueError(
                    f"model: paths begin at numbers, not at tokens{where}; so it has no path norm"
                )
            c = 1.0 if left is None else next(left)
            bias = c * _power(step.bias, p) if biases and step.bias is not None else None
            return step(h, c * _power(step.weight, p), bias)
        if isinstance(step, Pool):
            return step.paths(h, p)
        if isinstance(step, Scale | Shift):
            by = _power(torch.as_tensor(step.by, dtype=torch.float64, device=h.device), p)
            return h * by if isinstance(step, Scale) else h + (by if biases else torch.zeros_like(by))
        return h

    _, _, found = follow(model, x, carry)
    if found is None:
        raise ValueError("model: its output was not followed from its input")
    return found.flatten()


def _power(tensor: Tensor, p: float) -> Tensor:
    return tensor.double().abs() if p == 1 else tensor.double().abs().pow(p)
