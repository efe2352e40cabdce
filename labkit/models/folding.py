"""Batch norm with fixed statistics is an affine map, and so is the layer before it: one layer for two.

For z = W h + b the norm gives g (z - m) / sqrt(v + e) + c, channel by channel. With s = g / sqrt(v + e) that
is (s W) h + s (b - m) + c. Norms of weights mean nothing before this: the norm could undo any scale of W.
Where no layer stands before it (after a sum, a concatenation, an activation), or one whose output something
else reads, too, the norm is a layer by itself: a convolution of size 1 in which each channel keeps to itself,
or a diagonal matrix.
"""

from __future__ import annotations

import copy
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.dropout import _DropoutNd

from labkit.models._watch import Call, difference, evaluated, prove_equal, watch

Layer: TypeAlias = nn.Linear | _ConvNd
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def fold_batch_norm(model: nn.Module, x: Tensor | None = None) -> nn.Module:
    """A copy in evaluation mode, with every batch norm that it runs counted into a weight layer.

    A norm directly behind an `nn.Linear` or a convolution that nothing else reads is counted into that and
    becomes `nn.Identity`, as dropout does; names of weights stay. Any other becomes a layer of its own, in
    its own place. Norms that evaluation never runs, as of auxiliary heads, stay as they are. Outputs equal
    those of the model in evaluation mode to rounding (1e-12 in float64), which is proved on a sample before
    the copy is returned.

    Args:
        model: left as it was.
        x: (n, ...) example inputs; needed only where random ones in the shape that the first layer asks for
            do not fit.

    Returns:
        The copy, with the same inputs and outputs.

    Raises:
        TypeError: `model` is no module.
        ValueError: a batch norm is used twice or has no running statistics; the copy's outputs are others, as
            of a forward pass that looks at the weights; a parameter is not finite; or x does not fit.

    Example:
        >>> folded = fold_batch_norm(vgg(batch_norm=True))
    """
    folded = evaluated(model)
    if any(isinstance(part, _BatchNorm) for part in folded.modules()):
        original = evaluated(model)
        probe = _fold(folded, x, frozenset())
        if not difference(original, folded, probe).negligible:
            folded = evaluated(model)
            _fold(folded, x, _read_elsewhere(original, probe))
        prove_equal(original, folded, probe, "its batch norms cannot be folded")
    _exchange(folded, {part: nn.Identity() for part in folded.modules() if isinstance(part, _DropoutNd)})
    return folded


def _fold(model: nn.Module, x: Tensor | None, shared: frozenset[str]) -> Tensor:
    """Folds in place; those in `shared` become layers of their own. Returns what the model was run on."""
    calls, probe = watch(model, (nn.Linear, _ConvNd, _BatchNorm), x)
    places: dict[nn.Module, nn.Module] = {}
    for call in calls:
        if isinstance(call.part, _BatchNorm):
            before = None if call.name in shared else _layer_before(call, calls)
            places[call.part] = _folded(call, calls, before)
    _exchange(model, places)
    return probe


def _read_elsewhere(model: nn.Module, x: Tensor) -> frozenset[str]:
    """The batch norms before which stands a layer whose output something else reads as well.

    Seen by adding something to that output and taking it away again where the norm reads it.
    """
    calls, _ = watch(model, (nn.Linear, _ConvNd, _BatchNorm), x)
    found = set()
    for call in calls:
        before = _layer_before(call, calls) if isinstance(call.part, _BatchNorm) else None
        if before is None:
            continue
        other = copy.deepcopy(model)
        more = torch.linspace(1, 2, call.given.numel()).to(call.given).view_as(call.given)
        names = {part: name for name, part in model.named_modules()}
        other.get_submodule(names[before]).register_forward_hook(
            lambda part, given, out, more=more: out + more
        )
        other.get_submodule(call.name).register_forward_pre_hook(
            lambda part, given, more=more: given[0] - more
        )
        if not difference(model, other, x).negligible:
            found.add(call.name)
    return frozenset(found)


def _folded(call: Call, calls: list[Call], layer: Layer | None) -> nn.Module:
    """Counts a batch norm into `layer`, or makes it one; what shall stand in its place."""
    norm = call.part
    assert isinstance(norm, _BatchNorm)
    if sum(other.part is norm for other in calls) != 1:
        raise ValueError(f"model: the batch norm {call.name!r} is used twice; it folds where it is used once")
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError(
            f"model: the batch norm {call.name!r} has no running statistics; build it with "
            "track_running_stats=True and train or calibrate it"
        )
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -scale * norm.running_mean.double()
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    if layer is None:
        return _own_layer(scale.to(call.given), shift.to(call.given), call.given.ndim)
    _count_in(layer, scale, shift)
    return nn.Identity()


def _layer_before(call: Call, calls: list[Call]) -> Layer | None:
    """The layer whose output, untouched since, is what the batch norm is given."""
    for other in calls:
        part = other.part
        untouched = other.out is call.given and other.versions[1] == call.versions[0]
        # Of tokens, a dense layer's outputs are the last axis and the norm's channels the second.
        flat = not isinstance(part, nn.Linear) or other.out.ndim == 2
        if untouched and flat and isinstance(part, nn.Linear | _ConvNd):
            return part if sum(each.part is part for each in calls) == 1 else None
    return None


def _own_layer(scale: Tensor, shift: Tensor, axes: int) -> nn.Module:
    channels = len(scale)
    layer: nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
    if axes == 2:
        layer, weight = nn.Linear(channels, channels), scale.diag()
    else:
        layer = _CONVOLUTIONS[axes - 3](channels, channels, 1, groups=channels)
        weight = scale.view(layer.weight.shape)
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(shift)
    return layer.eval()


def _count_in(layer: Layer, scale: Tensor, shift: Tensor) -> None:
    with torch.no_grad():
        weight = layer.weight.double()
        if isinstance(layer, _ConvTransposeNd):  # (in, out / groups, ...): the group is in the first axis
            parted = weight.unflatten(0, (layer.groups, -1))
            across = scale.view(layer.groups, 1, -1, *(1,) * (weight.ndim - 2))
            layer.weight.copy_((parted * across).flatten(0, 1))
        else:
            layer.weight.copy_(weight * scale.view(-1, *(1,) * (weight.ndim - 1)))
        bias = shift if layer.bias is None else scale * layer.bias.double() + shift
        layer.bias = nn.Parameter(bias.to(layer.weight), layer.weight.requires_grad)


def _exchange(model: nn.Module, places: dict[nn.Module, nn.Module]) -> None:
    for part in list(model.modules()):
        for name, child in list(part._modules.items()):
            if child in places:
                setattr(part, name, places[child])
