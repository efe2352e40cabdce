"""Batch norm with fixed statistics is an affine map, and so is the layer before it: one layer for two.

For z = W h + b the norm gives g (z - m) / sqrt(v + e) + c, channel by channel. With s = g / sqrt(v + e) that
is (s W) h + s (b - m) + c. Norms of weights mean nothing before this: the norm could undo any scale of W.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from labkit.models._watch import Call, evaluated, prove_equal, watch


def fold_batch_norm(model: nn.Module, x: Tensor | None = None) -> nn.Module:
    """A copy in evaluation mode, with every batch norm counted into the layer before it.

    Batch norms and dropout become `nn.Identity`; names of weights stay. Outputs equal those of the model in
    evaluation mode to rounding (1e-10 in float64), which is proved on a sample before the copy is returned.
    Works for any module whose batch norms each follow one `nn.Linear` or `nn.Conv2d`, with skips or without.

    Args:
        model: left as it was.
        x: (n, ...) example inputs; needed only where random ones in the shape that the first layer asks for
            do not fit.

    Raises:
        TypeError: `model` is no module.
        ValueError: a batch norm has no such layer directly before it, or no running statistics; or x does not
            fit.

    Example:
        >>> folded = fold_batch_norm(vgg(batch_norm=True))
    """
    folded = evaluated(model)
    if any(isinstance(part, _BatchNorm) for part in folded.modules()):
        calls, probe = watch(folded, (nn.Linear, nn.Conv2d, _BatchNorm), x)
        original = evaluated(model)
        for layer, norm in _pairs(folded, calls):
            _fold(layer, norm)
        _replace(folded, _BatchNorm)
        problem = (
            "the output of a layer before a batch norm is changed or used elsewhere; it cannot be folded"
        )
        prove_equal(original, folded, probe, problem)
    _replace(folded, _DropoutNd)
    return folded


def _pairs(model: nn.Module, calls: list[Call]) -> list[tuple[nn.Linear | nn.Conv2d, _BatchNorm]]:
    """Each batch norm with the layer whose output it is given."""
    made = {id(call.out): call for call in calls if not isinstance(call.part, _BatchNorm)}
    found = []
    for name, norm in model.named_modules():
        if not isinstance(norm, _BatchNorm):
            continue
        mine = [call for call in calls if call.part is norm]
        before = made.get(id(mine[0].given)) if len(mine) == 1 else None
        if before is None or sum(call.part is before.part for call in calls) != 1:
            reason = "is not used exactly once" if len(mine) != 1 else "has no such layer before it"
            raise ValueError(
                f"model: the batch norm {name!r} {reason}; it folds into an nn.Linear or nn.Conv2d that "
                "is used once, with nothing between the two"
            )
        if norm.running_mean is None:
            raise ValueError(
                f"model: the batch norm {name!r} has no running statistics; build it with "
                "track_running_stats=True and train or calibrate it"
            )
        assert isinstance(before.part, (nn.Linear, nn.Conv2d))
        found.append((before.part, norm))
    return found


def _fold(layer: nn.Linear | nn.Conv2d, norm: _BatchNorm) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    with torch.no_grad():
        mean, variance = norm.running_mean.double(), norm.running_var.double()
        scale = (variance + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight.double()
        bias = 0.0 if layer.bias is None else layer.bias.double()
        shift = scale * (bias - mean) + (0.0 if norm.bias is None else norm.bias.double())
        across = (-1,) + (1,) * (layer.weight.ndim - 1)
        layer.weight.copy_(layer.weight.double() * scale.view(across))
        layer.bias = nn.Parameter(shift.to(layer.weight), layer.weight.requires_grad)


def _replace(model: nn.Module, kind: type[nn.Module]) -> None:
    for part in list(model.modules()):
        for name, child in part.named_children():
            if isinstance(child, kind):
                setattr(part, name, nn.Identity())
