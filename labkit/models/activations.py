"""The activations of the papers, each with its derivative and the constants that the theorems ask of it.

Theorem 2.2 and its relatives (paper 4) need abs(phi(0)), abs(phi') and abs(phi'') to stay under one
constant B. ReLU has a kink, so its B is infinite: the smooth theorems do not cover it, and their conditions
say so by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Elementwise = Callable[[Tensor], Tensor]


class Bounds(NamedTuple):
    """Suprema over the real line, as tight as they come.

    Attributes:
        value: abs(phi(0)).
        slope: sup abs(phi').
        curvature: sup abs(phi''), infinite where phi' jumps.
    """

    value: float
    slope: float
    curvature: float


class Activation(NamedTuple):
    """An elementwise function with its derivative; unpacks as `phi, dphi, bounds`."""

    phi: Elementwise
    dphi: Elementwise
    bounds: Bounds

    @property
    def B(self) -> float:
        """The constant B of paper 4: the largest of the three bounds."""
        return max(self.bounds)


def softplus(z: Tensor) -> Tensor:
    """log(1 + exp z), exact to rounding: torch's own default turns linear at 20, which is off by 2e-9 in
    float64."""
    return F.softplus(z, threshold=40.0)


def _step(z: Tensor) -> Tensor:
    # The derivative at the kink is taken as 0, as torch does.
    return (z > 0).to(z.dtype)


def _sech2(z: Tensor) -> Tensor:
    return 1 - torch.tanh(z).square()


def identity(z: Tensor) -> Tensor:
    """z itself: with it a deep network is a linear map."""
    return z


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(torch.relu, _step, Bounds(0.0, 1.0, math.inf)),
    "softplus": Activation(softplus, torch.sigmoid, Bounds(math.log(2.0), 1.0, 0.25)),
    # abs(tanh'') = 2 t (1 - t^2) is largest at t = 1/sqrt(3).
    "tanh": Activation(torch.tanh, _sech2, Bounds(0.0, 1.0, 4.0 / (3.0 * math.sqrt(3.0)))),
    "identity": Activation(identity, torch.ones_like, Bounds(0.0, 1.0, 0.0)),
}
"""Name -> function, derivative and bounds, for every model that takes an `activation`."""


def activation_named(name: str) -> Activation:
    """Looks an activation up.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation: {name!r} is not one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
