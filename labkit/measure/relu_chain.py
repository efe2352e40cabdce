"""Dense ReLU networks without biases, as their weight matrices: what section 4 of paper 2 speaks of."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["chain_inputs", "chain_weights", "forward"]


def forward(
    weights: list[Tensor], x: Tensor, masks: list[Tensor] | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """Pre-activations (n, h_i) and activation masks of each layer, ones for the last; or with given masks."""
    before, used, h = [], [], x
    for i, W in enumerate(weights):
        z = h @ W.T
        if masks is not None:
            mask = masks[i]
        else:
            mask = (z > 0).to(z.dtype) if i < len(weights) - 1 else torch.ones_like(z)
        before.append(z)
        used.append(mask)
        h = z * mask
    return before, used


def chain_inputs(model: nn.Module, x: Tensor, caller: str) -> Tensor:
    """The samples as (n, h_0)."""
    width = chain_weights(model, caller)[0].shape[1]
    if not isinstance(x, Tensor) or x.ndim < 2 or x.shape[0] == 0 or x[0].numel() != width:
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"{caller}: x is {got}, needs samples (n, {width}), or what flattens to it")
    return x.flatten(1)


def chain_weights(model: nn.Module, caller: str) -> list[Tensor]:
    """The weight matrices of a bias-free dense ReLU chain, the output's scale in the last.

    Raises:
        ValueError: naming the first thing that does not fit.
    """
    parts = _parts(model, caller)
    scale = float(getattr(model, "output_scale", 1.0))
    dense = [part for part in parts if isinstance(part, nn.Linear)]
    if not dense or not isinstance(parts[-1], nn.Linear):
        raise ValueError(f"{caller}: the model must end in an nn.Linear without an activation after it")
    if not isinstance(parts[0], nn.Linear):
        raise ValueError(f"{caller}: the model must begin with an nn.Linear; got {parts[0]}")
    for layer in dense:
        if layer.bias is not None:
            raise ValueError(
                f"{caller}: a layer of the model has biases; section 4 of the paper is for networks without: "
                "labkit.models.mlp(..., bias=False)"
            )
    for first, second in zip(parts[:-1], parts[1:], strict=True):
        if isinstance(first, nn.Linear) == isinstance(second, nn.Linear):
            raise ValueError(f"{caller}: dense layers and ReLU must alternate; got {first} before {second}")
    weights = [layer.weight.detach() for layer in dense]
    weights[-1] = weights[-1] if scale == 1.0 else scale * weights[-1]
    return weights


def _parts(model: nn.Module, caller: str) -> list[nn.Module]:
    activation = getattr(model, "activation", None)
    if isinstance(getattr(model, "layers", None), nn.ModuleList) and isinstance(activation, str):
        if activation != "relu":
            raise ValueError(f"{caller}: the activation is {activation!r}; the conditions are for 'relu'")
        parts: list[nn.Module] = []
        for layer in model.layers:  # type: ignore[union-attr]
            parts += [layer, nn.ReLU()]
        return parts[:-1]
    if type(model) is not nn.Sequential:
        raise ValueError(
            f"{caller}: model is a {type(model).__name__}; it takes labkit.models.mlp(..., bias=False) or an "
            "nn.Sequential of nn.Linear(bias=False) and nn.ReLU"
        )
    parts = [part for place, part in enumerate(model) if not (place == 0 and isinstance(part, nn.Flatten))]
    strange = [str(part) for part in parts if not isinstance(part, nn.Linear | nn.ReLU)]
    if strange or not parts:
        raise ValueError(
            f"{caller}: the model holds {strange[0] if strange else 'no layers'}; it takes "
            "nn.Linear(bias=False) and nn.ReLU"
        )
    return parts
