"""How far the weights are from where training began (paper 1), layer by layer and in all.

Works for any module. A *layer* is one parameter that is not a bias, in the order of `named_parameters`, with
the bias of the same module beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

__all__ = ["Distances", "distances", "from_start"]

Weights: TypeAlias = nn.Module | Mapping[str, Tensor]


@dataclass(frozen=True)
class Distances:
    """Distances of d layers and of the whole, float64.

    Attributes:
        names: (d,) the parameters' names.
        layers: (d,) ||W_k - Z_k||_F.
        biases: (d,) ||b_k - b_k(0)||; 0 where a layer has none.
        origin_layers: (d,) ||W_k||_F.
        from_start: r, over weights and biases together.
        from_origin: the norm of all weights and biases.
    """

    names: tuple[str, ...]
    layers: Tensor
    biases: Tensor
    origin_layers: Tensor
    from_start: Tensor
    from_origin: Tensor


def distances(model: Weights, start: Weights) -> Distances:
    """The distances of a network from its start, and from the origin.

    Args:
        model: a module, such as a member of an ensemble, or its parameters by name.
        start: the same network at the start, or a copy of its parameters or of its state by name (buffers are
            ignored). Copy the tensors: a state dict holds views that training moves.

    Returns:
        Distances, float64.

    Raises:
        TypeError: one of the two is neither a module nor a mapping.
        ValueError: `start` lacks a parameter, or has it in another shape.

    Cost: 5 p flops, and both networks once more in float64, 16 p bytes.

    Reference: paper 1, section 2, where the biases start at 0 (any start here).
    """
    now, then = _paired(model, start)
    names = [name for name in now if not _is_bias(name)]
    moved = {name: (now[name] - then[name]).norm() for name in now}
    total = torch.stack(list(moved.values())).norm()
    origin = {name: tensor.norm() for name, tensor in now.items()}
    return Distances(
        tuple(names),
        torch.stack([moved[name] for name in names]),
        torch.stack([_bias_of(name, names, moved) for name in names]),
        torch.stack([origin[name] for name in names]),
        total,
        torch.stack(list(origin.values())).norm(),
    )


def from_start(model: Weights, start: Weights) -> Tensor:
    """r = the Euclidean distance of all weights and biases from the start; 0-d float64, errors as
    `distances`.

    Args:
        model, start: as `distances` takes them.

    Returns:
        r, 0-d float64, in units of a weight.

    Raises:
        TypeError, ValueError: as `distances`.

    Cost: 3 p flops, and both networks once more in float64, 16 p bytes.

    Reference: paper 1, section 2.
    """
    now, then = _paired(model, start)
    return torch.stack([(now[name] - then[name]).norm() for name in now]).norm()


def _paired(model: Weights, start: Weights) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    now, then = _tensors("model", model), _tensors("start", start)
    for name, tensor in now.items():
        if name not in then or then[name].shape != tensor.shape:
            found = tuple(then[name].shape) if name in then else "nothing"
            raise ValueError(
                f"start: {name!r} has shape {tuple(tensor.shape)} in the model, and start holds {found}"
            )
    if not any(not _is_bias(name) for name in now):
        raise ValueError("model: it has no weights to measure a distance of")
    return (
        {name: tensor.detach().double() for name, tensor in now.items()},
        {name: then[name].detach().double() for name in now},
    )


def _tensors(argument: str, weights: Weights) -> dict[str, Tensor]:
    if isinstance(weights, nn.Module):
        return dict(weights.named_parameters())
    if isinstance(weights, Mapping):
        return dict(weights)
    raise TypeError(
        f"{argument}: got {type(weights).__name__}; it takes a module or a mapping of names to tensors"
    )


def _is_bias(name: str) -> bool:
    return name.rpartition(".")[2].startswith("bias")


def _bias_of(name: str, names: list[str], moved: Mapping[str, Tensor]) -> Tensor:
    """The bias beside a weight; where a module has several weights, each bias goes to the one it is named
    after, or to the first."""
    owner, _, own = name.rpartition(".")
    twin = own.replace("weight", "bias", 1) if own.startswith("weight") else "bias"
    siblings = [other for other in names if other.rpartition(".")[0] == owner]
    key = f"{owner}.{twin}" if owner else twin
    if twin == "bias" and siblings[0] != name:
        return moved[name].new_zeros(())
    return moved.get(key, moved[name].new_zeros(()))
