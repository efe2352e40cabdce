"""Node-wise rescaling (paper 2, section 2.2): other weights, the same function.

ReLU is positively homogeneous: multiply what comes into a hidden unit by a > 0, its bias included, divide
what goes out by a, and nothing that can be seen from outside has changed. For a convolution a unit is a
channel, which pooling passes on.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from labkit.models._watch import Call, evaluated, prove_equal, watch

_BETWEEN = (
    nn.ReLU, nn.Flatten, nn.Dropout, nn.Dropout2d, nn.Identity, nn.MaxPool2d, nn.AvgPool2d,
    nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d,
)  # fmt: skip
_CHAIN = "node-wise rescaling takes a chain of nn.Linear or nn.Conv2d with ReLU between"


def rescale_nodes(
    model: nn.Module,
    scales: Mapping[int, Tensor] | None = None,
    *,
    generator: torch.Generator | None = None,
    low: float = 0.1,
    high: float = 10.0,
    x: Tensor | None = None,
) -> nn.Module:
    """A copy in which hidden units are rescaled and the function stays.

    Args:
        model: a chain of dense layers or convolutions with ReLU between, such as `mlp`, an `nn.Sequential`,
            or a VGG after `fold_batch_norm`; left as it was. The copy is in its mode.
        scales: hidden layer (0 is the first) -> one positive factor a unit, (units,), or a channel. Incoming
            weights and the bias are multiplied, outgoing weights divided. Layers not named stay.
        generator: draws factors for all units of all hidden layers instead, log-uniform on [low, high].
        low, high: the range of those, 0 < low <= high.
        x: (n, ...) example inputs; see `fold_batch_norm`.

    Returns:
        The copy, with the same inputs and outputs to rounding.

    Raises:
        TypeError: `model` is no module.
        ValueError: the model is not such a chain (another activation is named), a factor is not positive, a
            layer does not exist, or both or none of scales and generator are given.

    Example:
        >>> same = rescale_nodes(mlp(64, 100, 1, 10), {0: torch.full((100,), 10.0)})
    """
    if (scales is None) == (generator is None):
        raise ValueError("scales, generator: give one of the two")
    if not 0 < low <= high < math.inf:
        raise ValueError(f"low, high: got {low!r}, {high!r}; they take 0 < low <= high")
    scaled = evaluated(model)
    calls, probe = watch(scaled, (nn.Linear, nn.Conv2d), x)
    layers = _hidden_and_readout(scaled, calls)
    if generator is not None:
        scales = {k: _draw(_units(layer), generator, low, high) for k, layer in enumerate(layers[:-1])}
    assert scales is not None
    with torch.no_grad():
        for k, factors in scales.items():
            if isinstance(k, bool) or not isinstance(k, int) or not 0 <= k < len(layers) - 1:
                raise ValueError(
                    f"scales: hidden layer {k!r}; the model has {len(layers) - 1}, numbered from 0"
                )
            _rescale(k, layers[k], layers[k + 1], factors)
    prove_equal(evaluated(model), scaled, probe, _CHAIN)
    for part, original in zip(scaled.modules(), model.modules(), strict=True):
        part.training = original.training
    return scaled


def balanced(model: Any, sweeps: int = 20) -> Any:
    """The same function, and the norm of what goes into each hidden unit, bias too, that of what leaves.

    Args:
        model: an `mlp` with biases; left as it was.
        sweeps: over its layers, where it has several: to balance one unbalances its neighbours a little.
    """
    layers = range(len(model.layers) - 1)
    for k in [*layers] * (1 if len(layers) == 1 else sweeps):
        into, out = model.layers[k], model.layers[k + 1]
        norm = torch.cat([into.weight, into.bias[:, None]], dim=1).norm(dim=1)
        model = rescale_nodes(model, {k: (out.weight.norm(dim=0) / norm).sqrt().detach()})
    return model


def least_product(model: nn.Module, sweeps: int = 20) -> float:
    """The least product of squared Frobenius norms of all rescalings of a perceptron: that of its balanced
    form, biases left out.

    Args:
        model: its weights are its parameters of two axes, in order.
        sweeps: over its layers.
    """
    weights = [p.detach().clone() for p in model.parameters() if p.ndim == 2]
    for _ in range(sweeps):
        for first, second in itertools.pairwise(weights):
            into, out = first.norm(dim=1), second.norm(dim=0)
            scale = torch.where((into > 0) & (out > 0), (out / into).sqrt(), torch.ones_like(into))
            first *= scale[:, None]
            second /= scale
    return math.prod(float(W.square().sum()) for W in weights)


def _hidden_and_readout(model: nn.Module, calls: list[Call]) -> list[nn.Linear | nn.Conv2d]:
    """The layers in their order, if nothing else is in the model by name."""
    activation = getattr(model, "activation", "relu")
    if activation != "relu":
        raise ValueError(f"model: activation {activation!r}; {_CHAIN}")
    for name, part in model.named_modules():
        known = isinstance(part, (nn.Linear, nn.Conv2d, *_BETWEEN))
        owns = next(part.parameters(recurse=False), None) is not None
        if not known and (owns or next(part.children(), None) is None):
            fold = "; fold it first: fold_batch_norm(model)" if "BatchNorm" in type(part).__name__ else ""
            raise ValueError(f"model: {name!r} is {type(part).__name__}; {_CHAIN}{fold}")
    layers = [call.part for call in calls]
    if len(set(layers)) != len(layers):
        raise ValueError(f"model: a layer is used twice; {_CHAIN}")
    for layer in layers[1:]:
        if isinstance(layer, nn.Conv2d) and layer.groups != 1:
            raise ValueError(f"model: a convolution with {layer.groups} groups; {_CHAIN}, without groups")
    return layers  # type: ignore[return-value]


def _units(layer: nn.Linear | nn.Conv2d) -> int:
    return layer.weight.shape[0]


def _draw(units: int, generator: torch.Generator, low: float, high: float) -> Tensor:
    share = torch.rand(units, generator=generator, dtype=torch.float64)
    return torch.exp(math.log(low) + share * (math.log(high) - math.log(low)))


def _rescale(k: int, layer: nn.Module, following: nn.Module, factors: Tensor) -> None:
    assert isinstance(layer, (nn.Linear, nn.Conv2d)) and isinstance(following, (nn.Linear, nn.Conv2d))
    units = _units(layer)
    factors = torch.as_tensor(factors, dtype=torch.float64, device=layer.weight.device)
    if factors.shape != (units,) or not bool(((factors > 0) & factors.isfinite()).all()):
        raise ValueError(
            f"scales: of hidden layer {k}, shape {tuple(factors.shape)}; it takes {units} positive numbers"
        )
    places, left = divmod(following.weight.shape[1], units)
    if left:
        raise ValueError(f"model: {units} units feed {following.weight.shape[1]} inputs; {_CHAIN}")
    _multiply(layer.weight, factors)
    if layer.bias is not None:
        _multiply(layer.bias, factors)
    # A flattened channel feeds one input a position, all with the same factor.
    across = (1, -1) + (1,) * (following.weight.ndim - 2)
    outgoing = factors.repeat_interleave(places).view(across)
    following.weight.copy_(following.weight.double() / outgoing)


def _multiply(tensor: Tensor, factors: Tensor) -> None:
    tensor.copy_(tensor.double() * factors.view((-1,) + (1,) * (tensor.ndim - 1)))
