"""Initialisations by name, in the meaning of the paper that uses them.

| name | one weight (fan-in a, fan-out b) | used by |
| --- | --- | --- |
| glorot | uniform on +-sqrt(6 / (a + b)), variance 2 / (a + b) | paper 1, "Xavier" |
| glorot-normal | N(0, 2 / (a + b)) | paper 5, appendix A.1 |
| lecun | N(0, 1 / a) | paper 5, appendix A.1 |
| he | N(0, 2 / a) | paper 5, "MSRA"; paper 4's ResNet20 |
| orthogonal | rows or columns orthonormal, gain 1 | paper 5, as a control of gradient scale |
| inverse-sqrt-width | N(0, 1 / H), H the hidden width, in every layer | paper 1 |
| standard | N(0, 1) | papers 4 and 2: the input layer of (1.1), and random networks |

Here N(mean, variance) takes a *variance*. Paper 1 writes "N(0, 1/sqrt(H))" and means the standard
deviation. Biases start at zero; norm layers start as the identity.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn

from labkit.models._arguments import one_of, whole

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm)

Module = TypeVar("Module", bound=nn.Module)
Draw = Callable[[tuple[int, ...], int, int, torch.Generator], Tensor]


def _normal(variance: Callable[[int, int], float]) -> Draw:
    def draw(shape: tuple[int, ...], fan_in: int, fan_out: int, generator: torch.Generator) -> Tensor:
        sd = math.sqrt(variance(fan_in, fan_out))
        return sd * torch.randn(shape, generator=generator, dtype=torch.float64)

    return draw


def _glorot(shape: tuple[int, ...], fan_in: int, fan_out: int, generator: torch.Generator) -> Tensor:
    edge = math.sqrt(6.0 / (fan_in + fan_out))
    return edge * (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1)


def _orthogonal(shape: tuple[int, ...], fan_in: int, fan_out: int, generator: torch.Generator) -> Tensor:
    tall = torch.randn(max(shape[0], fan_in), min(shape[0], fan_in), generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(tall)
    # Signs from R's diagonal, without which the draw is not uniform over orthogonal matrices.
    q = q * torch.where(r.diagonal() < 0, -1.0, 1.0)
    return (q if shape[0] >= fan_in else q.mT).reshape(shape)


_DRAWS: dict[str, Draw] = {
    "glorot": _glorot,
    "glorot-normal": _normal(lambda fan_in, fan_out: 2.0 / (fan_in + fan_out)),
    "lecun": _normal(lambda fan_in, fan_out: 1.0 / fan_in),
    "he": _normal(lambda fan_in, fan_out: 2.0 / fan_in),
    "orthogonal": _orthogonal,
    "standard": _normal(lambda fan_in, fan_out: 1.0),
}
INITS = (*_DRAWS, "inverse-sqrt-width")
"""The names that `initialize` and the constructors take as `init`."""


def initialize(module: Module, init: str, generator: torch.Generator) -> Module:
    """Draws all linear and convolutional weights of a module anew, in place.

    Numbers are drawn on the CPU in float64 and then cast, so that a seed gives the same network in float32,
    in float64 and on a GPU.

    Args:
        module: any module whose parameters sit in linear, convolutional or norm layers.
        init: a name of the table above.
        generator: a CPU generator; it moves on by as many numbers as there are weights.

    Returns:
        The module itself.

    Raises:
        ValueError: the name is unknown; the module has parameters of another kind, or no weights at all; or
            "inverse-sqrt-width" is asked of layers that do not share one hidden width.
    """
    one_of("init", init, INITS)
    layers = _owners(module)
    draw = _inverse_sqrt_width(layers) if init == "inverse-sqrt-width" else _DRAWS[init]
    with torch.no_grad():
        for layer in layers:
            weight, bias = layer.get_parameter("weight"), layer._parameters["bias"]
            if isinstance(layer, NORMS):
                weight.fill_(1)
            else:
                shape = tuple(weight.shape)
                field = math.prod(shape[2:])
                weight.copy_(draw(shape, math.prod(shape[1:]), shape[0] * field, generator))
            if bias is not None:
                bias.zero_()
    return module


def _owners(module: nn.Module) -> list[nn.Module]:
    """The submodules that own parameters, in their order; refuses those that have no rule here."""
    owners = [
        (name, part)
        for name, part in module.named_modules()
        if next(part.parameters(recurse=False), None) is not None
    ]
    strange = [
        f"{name or 'the module'} ({type(part).__name__})"
        for name, part in owners
        if not isinstance(part, (nn.Linear, *CONVOLUTIONS, *NORMS))
    ]
    if strange or not any(isinstance(part, (nn.Linear, *CONVOLUTIONS)) for _, part in owners):
        found = ", ".join(strange) or "no weights"
        raise ValueError(
            f"module: holds {found}; initialize knows linear, convolutional and norm layers only"
        )
    return [part for _, part in owners]


def _inverse_sqrt_width(layers: list[nn.Module]) -> Draw:
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    widths = {layer.out_features for layer in linear[:-1]}
    chained = len(linear) == len(layers) and all(a.out_features == b.in_features for a, b in pairwise(linear))
    if not chained or len(widths) != 1:
        raise ValueError(
            f"init: 'inverse-sqrt-width' is for fully connected networks of one hidden width; this module "
            f"has hidden widths {sorted(widths) or 'none'}; take 'lecun', which scales each layer "
            "by its own fan-in"
        )
    width = whole("width", widths.pop())
    return _normal(lambda fan_in, fan_out: 1.0 / width)
