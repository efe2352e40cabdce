"""The one-hidden-layer network of paper 4, equation (1.1): f(x) = V phi(W x).

W (k, d) has N(0, 1) entries and is trained; V (K, k) has mean zero and variance nu^2 / k and stays as drawn.
With that scale the expected Gram matrix of the Jacobian is nu^2 times the multiclass kernel of Definition
2.1, at every width. (The paper prints nu^2 / K there; k is meant.)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from labkit.models._arguments import floating, one_of, positive, stream, whole
from labkit.models.activations import activation_named

READOUTS = ("rademacher", "gaussian", "half")
"""How `one_hidden` may draw its fixed output layer."""


class OneHidden(nn.Module):
    """f(x) = V phi(W x), for inputs (n, d) or images that flatten to d numbers.

    Attributes:
        W: (k, d) parameter.
        V: (K, k) buffer, or a parameter when the readout is trained too (appendix B).
        activation: its name; `phi` and `dphi` are the function and its derivative.
    """

    W: nn.Parameter
    V: Tensor

    def __init__(
        self, W: Tensor, V: Tensor, activation: str = "softplus", train_readout: bool = False
    ) -> None:
        super().__init__()
        if W.ndim != 2 or V.ndim != 2 or V.shape[1] != W.shape[0]:
            raise ValueError(f"W, V: shapes {tuple(W.shape)}, {tuple(V.shape)}; they take (k, d) and (K, k)")
        self.activation = activation
        self.phi, self.dphi, _ = activation_named(activation)
        self.W = nn.Parameter(W)
        if train_readout:
            self.V = nn.Parameter(V)
        else:
            self.register_buffer("V", V)

    def forward(self, x: Tensor) -> Tensor:
        return self.phi(x.flatten(1) @ self.W.mT) @ self.V.mT

    def dense_chain(self) -> tuple[tuple, ...]:
        """The network as stages (weight name, bias name or None, activation or None), for batched
        products."""
        return ("W", None, self.phi), ("V", None, None)

    def extra_repr(self) -> str:
        (k, d), outputs = self.W.shape, self.V.shape[0]
        return f"inputs={d}, width={k}, outputs={outputs}, activation={self.activation!r}"


def one_hidden(
    inputs: int,
    width: int,
    outputs: int,
    *,
    activation: str = "softplus",
    output_std: float = 1.0,
    readout: str = "rademacher",
    train_readout: bool = False,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> OneHidden:
    """Draws a network (1.1).

    Args:
        inputs: d, the numbers in one input.
        width: k, the hidden units.
        outputs: K.
        activation: "softplus", "relu", "tanh" or "identity".
        output_std: nu; entries of V have variance nu^2 / k.
        readout: how V is drawn: random signs "rademacher"; normal "gaussian"; or "half", in which each row
            has as many +nu/sqrt(k) as -nu/sqrt(k), in random order (appendix D).
        train_readout: makes V a parameter.
        seed: the same seed gives the same W for every readout and dtype; other sizes give independent draws.
        dtype: of the weights, which are drawn in float64.
        device: where the weights are.

    Returns:
        OneHidden: a module from (n, ...), d numbers a sample, to (n, K).

    Raises:
        ValueError: an argument is out of its range, or the width is odd for "half".
    """
    k, d, rows = whole("width", width), whole("inputs", inputs), whole("outputs", outputs)
    nu = positive("output_std", output_std)
    floating(dtype)
    one_of("readout", readout, READOUTS)
    if readout == "half" and k % 2:
        raise ValueError(f"width: got {k}; readout='half' needs an even width, or take readout='rademacher'")
    W = torch.randn(k, d, generator=stream("one hidden W", seed, d, k), dtype=torch.float64)
    V = nu / math.sqrt(k) * _readout(readout, rows, k, stream("one hidden V", seed, rows, k))
    return OneHidden(W.to(device, dtype), V.to(device, dtype), activation, train_readout)


def _readout(kind: str, rows: int, k: int, generator: torch.Generator) -> Tensor:
    """(rows, k), mean 0 and variance 1, float64."""
    if kind == "gaussian":
        return torch.randn(rows, k, generator=generator, dtype=torch.float64)
    if kind == "rademacher":
        return 2.0 * torch.randint(2, (rows, k), generator=generator).double() - 1
    orders = torch.stack([torch.randperm(k, generator=generator) for _ in range(rows)])
    return torch.where(orders < k // 2, 1.0, -1.0).double()
