"""The slow obvious twins: one backward pass an entry of f, one unit image a column. Every fast path is held
to these.

They share no code with the fast paths and hold whole matrices; use them on a few samples and small images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from labkit.measure.functional import Model
from labkit.measure.private import private_copy
from labkit.measure.steps import Layer

__all__ = ["dense_jacobian", "dense_layer", "dense_ntk"]


def dense_jacobian(model: Model, x: Tensor, *, params: Mapping[str, Tensor] | None = None) -> Tensor:
    """J (n*K, p), row i*K + k the gradient of output k of sample i, columns as `named_parameters()` that
    require grad. Model and x are left as they are.

    Args:
        model: a module, or a function `f(params, x) -> (n, K)`.
        x: (n, ...).
        params: of a function its dictionary of tensors; not read for a module.

    Returns:
        (n*K, p), in the type of the outputs.

    Raises:
        ValueError: if `model` is a function and `params` is missing.

    Cost: one forward and n*K backward passes over all of x; n*K*p numbers, three times while rows are joined.
    """
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []), torch.enable_grad():
        if isinstance(model, nn.Module):
            copied, _ = private_copy(model)
            leaves: list[Tensor] = [p for p in copied.parameters() if p.requires_grad]
            y = copied(x.clone())
        elif params is None:
            raise ValueError(
                "dense_jacobian: model is a function, so params must be its dictionary of tensors, got None"
            )
        else:
            at = {name: value.detach().clone().requires_grad_() for name, value in params.items()}
            leaves, y = list(at.values()), model(at, x.clone())
        outputs = y.reshape(-1).unbind()
    rows = [
        torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True, materialize_grads=True)
        for value in outputs
    ]
    return torch.stack([torch.cat([g.to_dense().reshape(-1) for g in row]) for row in rows])


def dense_ntk(model: Model, x: Tensor, *, params: Mapping[str, Tensor] | None = None) -> Tensor:
    """J J^T as (n, K, n, K), from `dense_jacobian`.

    Args:
        model, x, params: as `dense_jacobian` takes them.

    Returns:
        (n, K, n, K).

    Raises:
        ValueError: as `dense_jacobian`.

    Cost: `dense_jacobian`, and 2 (n K)^2 p flops.
    """
    J = dense_jacobian(model, x, params=params)
    K = J.shape[0] // x.shape[0]
    return (J @ J.T).reshape(x.shape[0], K, x.shape[0], K)


def dense_layer(layer: Layer) -> Tensor:
    """A weight layer as the matrix (outputs, inputs) of its linear map, float64, one unit input at a time.

    Of a dense layer over tokens, the matrix on one token. Norms of layers are held to it.

    Args:
        layer: one of `weight_layers`.

    Returns:
        (outputs, inputs) float64.

    Cost: of a convolution one pass over all unit images at once, inputs * (inputs + outputs) float64 numbers;
    of a dense layer a float64 copy.
    """
    if layer.kind in ("dense", "embedding"):
        return layer.weight.double()
    size = math.prod(layer.in_shape)
    units = torch.eye(size, dtype=torch.float64, device=layer.weight.device).reshape(size, *layer.in_shape)
    return layer(units, layer.weight.double()).reshape(size, -1).T
