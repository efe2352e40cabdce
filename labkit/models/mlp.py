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


class ResidualMLP(MLP):
    """An MLP with skip connections around its hidden layers, batch norm before its activations, or both.

    h_1 = phi(N(A_1 x)), then h_(l+1) = h_l + phi(N(A_(l+1) h_l)) with skips and phi(N(A_(l+1) h_l)) without,
    and A_L h at the end. N is batch norm with no scale and shift of its own, or nothing: all parameters are
    those of the `layers`, as in a plain network of the same size.

    Attributes:
        skip: whether there are skip connections.
        norms: the batch norms, one a hidden layer; empty without.
    """

    def __init__(
        self,
        sizes: list[int],
        activation: str = "relu",
        bias: bool = True,
        output_scale: float = 1.0,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        *,
        skip: bool = True,
        batch_norm: bool = False,
    ) -> None:
        super().__init__(sizes, activation, bias, output_scale, dtype, device)
        self.skip = skip
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(k, affine=False, dtype=dtype, device=device)
            for k in (sizes[1:-1] if batch_norm else [])
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for i, layer in enumerate(self.layers[:-1]):
            z = layer(x)
            h = self.phi(self.norms[i](z) if self.norms else z)
            x = x + h if self.skip and i else h
        x = self.layers[-1](x)
        return x if self.output_scale == 1.0 else self.output_scale * x

    def dense_chain(self) -> tuple[tuple, ...]:
        """No stages: it is no chain. It runs copies by itself."""
        return ()

    def forward_copies(self, tensors: dict[str, Tensor], x: Tensor) -> Tensor:
        """S copies at once: name -> (S, ...), x (S, B, ...) -> (S, B, K)."""
        x, last = x.flatten(2), len(self.layers) - 1
        for i in range(last + 1):
            weight, bias = tensors[f"layers.{i}.weight"], tensors.get(f"layers.{i}.bias")
            z = torch.bmm(x, weight.mT) if bias is None else torch.baddbmm(bias.unsqueeze(1), x, weight.mT)
            if i == last:
                return z if self.output_scale == 1.0 else self.output_scale * z
            h = self.phi(self._normalized(i, z, tensors))
            x = x + h if self.skip and i else h
        raise AssertionError("the readout ends the loop")

    def _normalized(self, i: int, z: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        """Batch norm i of each copy's own batch, as torch's; in training mode running statistics move on."""
        if not self.norms:
            return z
        norm = self.norms[i]
        assert isinstance(norm, nn.BatchNorm1d) and norm.momentum is not None
        mean, var = (tensors[f"norms.{i}.running_{name}"] for name in ("mean", "var"))
        if norm.training:
            B = z.shape[1]
            running = mean, var
            var, mean = torch.var_mean(z, 1, correction=0)
            with torch.no_grad():
                running[0].lerp_(mean, norm.momentum)
                running[1].lerp_(var * (B / max(B - 1, 1)), norm.momentum)
        return (z - mean.unsqueeze(1)) * (var.unsqueeze(1) + norm.eps).rsqrt()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, skip={self.skip}"


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
    skip: bool = False,
    batch_norm: bool = False,
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
        skip, batch_norm: either gives a `ResidualMLP`, with the weights that the plain network would have.
        seed: the same seed gives the same weights in every dtype; other sizes give independent draws.
        dtype: of the weights, which are drawn in float64.
        device: where the weights are.

    Returns:
        MLP, or a ResidualMLP: a module from (n, ...), d numbers a sample, to (n, K).

    Raises:
        ValueError: an argument is out of its range.
    """
    d, K, L = whole("inputs", inputs), whole("outputs", outputs), whole("depth", depth, least=0)
    k = whole("width", width)
    scale = positive("output_scale", output_scale)
    if not train_readout and L == 0:
        raise ValueError("train_readout: False with depth 0 leaves nothing to train; take depth >= 1")
    sizes = [d, *[k] * L, K]
    model = MLP(sizes, activation, bias, scale, floating(dtype), device)
    if skip or batch_norm:
        model = ResidualMLP(
            sizes, activation, bias, scale, dtype, device, skip=skip, batch_norm=batch_norm
        )  # fmt: skip
    initialize(model, init, stream("mlp", seed, d, k, L, K))
    model.layers[-1].requires_grad_(train_readout)
    return model
