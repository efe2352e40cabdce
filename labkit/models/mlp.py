"""Fully connected networks of any width and depth."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from labkit.models._arguments import floating, positive, stream, whole
from labkit.models.activations import activation_named
from labkit.models.init import initialize


class MLP(nn.Module):
    """x -> scale * (A_L phi(A_(L-1) ... phi(A_1 x))), with A_i an affine map (`layers[i - 1]`).

    Takes inputs (n, d), or images that flatten to d numbers. Parameters are named `layers.0.weight`,
    `layers.0.bias`, ...

    Attributes:
        layers: the `nn.Linear` maps, the readout last.
        activation: its name; `phi` and `dphi` are the function and its derivative.
        output_scale: multiplies the output.
    """

    def __init__(
        self,
        sizes: list[int],
        activation: str = "relu",
        bias: bool = True,
        output_scale: float = 1.0,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__()
        self.activation = activation
        self.phi, self.dphi, _ = activation_named(activation)
        self.output_scale = output_scale
        # skip_init: the layer's own constructor would draw from torch's global generator.
        self.layers = nn.ModuleList(
            nn.utils.skip_init(nn.Linear, a, b, bias=bias, dtype=dtype, device=device)
            for a, b in zip(sizes[:-1], sizes[1:], strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer in self.layers[:-1]:
            x = self.phi(layer(x))
        x = self.layers[-1](x)
        return x if self.output_scale == 1.0 else self.output_scale * x

    def dense_chain(self) -> tuple[tuple, ...]:
        """The network as stages (weight name, bias name or None, activation or None), for batched
        products."""
        last = len(self.layers) - 1
        return tuple(
            (
                f"layers.{i}.weight",
                None if layer.bias is None else f"layers.{i}.bias",
                None if i == last else self.phi,
            )
            for i, layer in enumerate(self.layers)
        )

    def extra_repr(self) -> str:
        return f"activation={self.activation!r}, output_scale={self.output_scale:g}"


def mlp(
    inputs: int,
    width: int,
    depth: int,
    outputs: int,
    *,
    activation: str = "relu",
    bias: bool = True,
    init: str = "glorot",
    output_scale: float = 1.0,
    train_readout: bool = True,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> MLP:
    """Draws a fully connected network.

    Args:
        inputs: d, the numbers in one input.
        width: units in each hidden layer.
        depth: hidden layers; 0 gives an affine model.
        outputs: K.
        activation: "relu", "softplus", "tanh" or "identity".
        bias: whether layers have biases; they start at 0.
        init: see `labkit.models.init`.
        output_scale: multiplies the output, as a constant.
        train_readout: False freezes the last layer (it then needs no gradient).
        seed: the same seed gives the same weights in every dtype; other sizes give independent draws.

    Raises:
        ValueError: an argument is out of its range.
    """
    d, K, L = whole("inputs", inputs), whole("outputs", outputs), whole("depth", depth, least=0)
    k = whole("width", width)
    scale = positive("output_scale", output_scale)
    if not train_readout and L == 0:
        raise ValueError("train_readout: False with depth 0 leaves nothing to train; take depth >= 1")
    model = MLP([d, *[k] * L, K], activation, bias, scale, floating(dtype), device)
    initialize(model, init, stream("mlp", seed, d, k, L, K))
    model.layers[-1].requires_grad_(train_readout)
    return model
