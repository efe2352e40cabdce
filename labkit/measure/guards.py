"""What a model must promise before its Jacobian means anything, checked at the door.

The Jacobian is computed a few samples at a time, so the outputs of one sample may depend on nothing else: not
on its neighbours (batch statistics), not on chance (dropout). Each refusal names the layers, says what would
go wrong and gives the ways out as calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

__all__ = ["refuse_active_layers", "refuse_broken_promise", "untouched_rng"]


def refuse_active_layers(model: nn.Module, caller: str) -> None:
    """Refuse batch statistics and dropout that are switched on.

    Raises:
        ValueError: naming the layers, the consequence and the remedies.
    """
    training, stateless, dropout = [], [], []
    for name, layer in model.named_modules():
        if isinstance(layer, _BatchNorm) and layer.running_mean is None:
            stateless.append(name or "the model itself")
        elif (
            layer.training
            and isinstance(layer, _BatchNorm | _InstanceNorm)
            and layer.running_mean is not None
        ):
            training.append(name or "the model itself")
        elif layer.training and _drops(layer):
            dropout.append(name or "the model itself")
    if stateless:
        raise ValueError(
            f"{caller}: {_listed(stateless)} batch normalisation without running statistics "
            "(track_running_stats=False): one sample's outputs depend on its neighbours even after "
            "model.eval(), so the matrix would change with the chunk size. Build the layer with "
            "track_running_stats=True, train or calibrate it and call model.eval(); or use "
            "torch.nn.GroupNorm, which looks at one sample at a time"
        )
    if training:
        also = f"; {_listed(dropout)} active dropout" if dropout else ""
        raise ValueError(
            f"{caller}: {_listed(training)} BatchNorm (or running InstanceNorm) in training mode{also}. One "
            "sample's outputs then depend on its neighbours, so the matrix would change with the chunk "
            "size, and each pass would move the running statistics. Call model.eval(); or build the model "
            "without batch norm, for example labkit.resnet20(batch_norm=False)"
        )
    if dropout:
        raise ValueError(
            f"{caller}: {_listed(dropout)} active dropout. Each product would then belong to another random "
            "network, so the operator would not be a matrix. Call model.eval(); or set the layer's "
            "probability to 0, for example layer.p = 0.0"
        )


def _drops(layer: nn.Module) -> bool:
    if isinstance(layer, _DropoutNd):
        return layer.p > 0
    if isinstance(layer, nn.MultiheadAttention | nn.RNNBase):
        return layer.dropout > 0
    return False


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:6]) + (
        f" and {len(names) - 6} more" if len(names) > 6 else ""
    )
    return f"{shown} {'is' if len(names) == 1 else 'are'}"


def refuse_broken_promise(outputs: Callable[[Tensor], Tensor], x: Tensor, caller: str) -> None:
    """Refuse a model that is random, or whose samples look at each other, for reasons no layer's name tells.

    Costs three evaluations on at most two samples.

    Raises:
        ValueError: saying which promise is broken and how to mend it.
    """
    first, again, alone = outputs(x[:2]), outputs(x[:2]), outputs(x[:1])
    scale = float(first.abs().max())
    # 1e-3 stands far above what a reordered sum does to float32 (about 1e-6) and below any real dependence.
    if float((first - again).abs().max()) > 1e-3 * scale:
        raise ValueError(
            f"{caller}: the model is not deterministic: two evaluations of the same samples differ by "
            f"{float((first - again).abs().max()):.2g} (largest output {scale:.2g}), so it has no Jacobian. "
            "Look for functional dropout (F.dropout(h, training=self.training), then model.eval()) or noise "
            "drawn in forward"
        )
    if float((first[:1] - alone).abs().max()) > 1e-3 * scale:
        raise ValueError(
            f"{caller}: the outputs of sample 0 change by {float((first[:1] - alone).abs().max()):.2g} "
            f"(largest output {scale:.2g}) when it is evaluated without sample 1. The matrix would change "
            "with the chunk size. Look for statistics taken over the first axis; keep them fixed "
            "(model.eval()) or take them per sample"
        )


@contextmanager
def untouched_rng(device: torch.device) -> Iterator[None]:
    """Give the global generators back as they were, also after an exception."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield
