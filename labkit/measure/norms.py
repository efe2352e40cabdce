"""Norms of weight layers (paper 2, section 2.2): Frobenius, spectral and the group norms.

| measure | formula | of a convolution |
| --- | --- | --- |
| `frobenius` | root of the sum of squares | of the kernel, each shared weight once |
| `spectral` | largest singular value | of the linear map on images of that size |
| `group_norm` | l_q over units of the l_p norm of the incoming weights | a unit is a channel |

The spectral norm of the reshaped kernel is another number and is used nowhere. All are returned in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv1d_input, conv2d_input, conv3d_input

from labkit.krylov import LinearOperator, operator_from, svd
from labkit.measure.layers import Layer, weight_layers

__all__ = ["LayerNorms", "frobenius", "group_norm", "layer_norms", "spectral"]

_AHEAD = (F.conv1d, F.conv2d, F.conv3d)
_BACK = (conv1d_input, conv2d_input, conv3d_input)
# Up to here the Gram matrix of the short side takes no longer than Lanczos (measured, one core).
_GRAM = 1024


@dataclass(frozen=True)
class LayerNorms:
    """Norms of each of d layers, first to last, float64.

    Attributes:
        names: (d,) the layers' names.
        frobenius: (d,) ||W||_F.
        spectral: (d,) ||W||_2.
        one_inf: (d,) ||W||_(1,inf), the largest l1 norm of one unit's incoming weights.
        two_inf: (d,) ||W||_(2,inf), the same in l2.
    """

    names: tuple[str, ...]
    frobenius: Tensor
    spectral: Tensor
    one_inf: Tensor
    two_inf: Tensor


def layer_norms(model: nn.Module, x: Tensor, *, tol: float = 1e-10) -> LayerNorms:
    """The norms of every weight layer of a network.

    Args:
        model: any; see `weight_layers` for what a layer is, and for errors.
        x: (n, ...) inputs; the first tells the size of the images.
        tol: of the spectral norms, relative.

    Returns:
        LayerNorms, float64, one entry a layer.

    Raises:
        TypeError, ValueError: as `weight_layers`; ValueError as `spectral`.

    Cost: one forward pass of one sample, three passes over the weights, and `spectral` of each layer, which
    is the most of it.

    Reference: paper 2, section 2.2.
    """
    layers = weight_layers(model, x)

    def each(values: list[Tensor]) -> Tensor:
        return torch.stack(values)

    return LayerNorms(
        tuple(layer.name for layer in layers),
        each([frobenius(layer) for layer in layers]),
        each([spectral(layer, tol=tol) for layer in layers]),
        each([group_norm(layer.incoming, 1, math.inf) for layer in layers]),
        each([group_norm(layer.incoming, 2, math.inf) for layer in layers]),
    )


def frobenius(layer: Layer) -> Tensor:
    """||W||_F, a 0-d float64 tensor; of a convolution the norm of its kernel.

    Args:
        layer: see `weight_layers`.

    Returns:
        0-d float64.

    Cost: one pass over the weights, and a float64 copy of them.
    """
    return layer.weight.double().norm()


def group_norm(weight: Tensor, p: float, q: float) -> Tensor:
    """||W||_(p,q): the l_q norm over units of the l_p norm of each unit's incoming weights.

    Args:
        weight: (units, ...); what follows the first axis comes in.
        p, q: from 1 to math.inf. (2, 2) is the Frobenius norm.

    Returns:
        A 0-d float64 tensor.

    Raises:
        ValueError: the weight has fewer than two axes, or p or q is below 1.

    Cost: one pass over the weights, and a float64 copy of them.

    Reference: paper 2, section 2.2.
    """
    if weight.ndim < 2:
        raise ValueError(f"weight: shape {tuple(weight.shape)}; it takes (units, incoming, ...)")
    for name, value in (("p", p), ("q", q)):
        if not value >= 1:
            raise ValueError(f"{name}: got {value!r}; a norm takes a number from 1 to math.inf")
    incoming = torch.linalg.vector_norm(weight.detach().double().flatten(1), p, dim=1)
    return torch.linalg.vector_norm(incoming, q)


def spectral(layer: Layer | Tensor, *, tol: float = 1e-10) -> Tensor:
    """||W||_2, the largest singular value of the layer as a linear map; a 0-d float64 tensor.

    A dense weight with a short side goes through the Gram matrix of that side, everything else through
    `labkit.krylov.svd` with the layer's own products, by Lanczos unless it is small: for a convolution with
    its padding, stride, dilation and groups, on images of the size that the model gave it.

    Args:
        layer: see `weight_layers`; or the weight (out, in) of a dense layer.
        tol: the relative residual at which Lanczos stops; the value is at least as good, as a rule far
            better.

    Returns:
        0-d float64.

    Raises:
        ValueError: tol is not between 0 and 1; a weight has not two axes or is not finite; or Lanczos did not
            converge (a tolerance below 1e-14).

    Cost: of a dense layer with sides s <= l, s <= 1024: 2 s^2 l + 4/3 s^3 flops, and 2 s l + s^2 float64
    numbers. Else an `svd` with k = 1: of a convolution 100 to 200 products with one image as a rule, 2,000 at
    most, and bases of at most 420 vectors of each side or 512 MiB.

    Reference: Golub & Kahan 1965, by `labkit.krylov`.
    """
    if not 0 < tol < 1:
        raise ValueError(f"tol: got {tol!r}; it takes a number between 0 and 1")
    if isinstance(layer, Tensor):
        if layer.ndim != 2:
            raise ValueError(f"layer: shape {tuple(layer.shape)}; a weight is (out, in)")
        layer = Layer("weight", "dense", layer.detach(), None, layer.shape[1:], layer.shape[:1])
    weight = layer.weight.double()
    wrong = int((~weight.isfinite()).sum())
    if wrong:
        size = weight.numel()
        raise ValueError(f"layer: {layer.name!r} has {wrong} of {size} entries that are NaN or infinite")
    if not bool(weight.any()):
        return weight.new_zeros(())
    flat = layer.kind in ("dense", "embedding")
    if flat and min(weight.shape) <= _GRAM:
        # Scaled, so that squares neither overflow nor vanish.
        scale = weight.abs().max()
        short = (weight if weight.shape[0] <= weight.shape[1] else weight.mT) / scale
        return scale * torch.linalg.eigvalsh(short @ short.mT)[-1].sqrt()
    found = svd(weight if flat else _operator(layer, weight), 1, tol=tol, max_products=2000)
    if not bool(found.converged.all()):
        raise ValueError(
            f"spectral: {layer.name!r} did not converge to tol={tol:g} (residual "
            f"{float(found.residual.max()):.1e}); take a larger tol"
        )
    return found.s[0]


def _operator(layer: Layer, weight: Tensor) -> LinearOperator:
    """The convolution as an operator (outputs, inputs) on flattened images."""
    how, axes = (layer.stride, layer.padding, layer.dilation, layer.groups), weight.ndim - 3

    def ahead(V: Tensor) -> Tensor:
        return layer(V.T.reshape(-1, *layer.in_shape), weight).flatten(1).T

    def back(U: Tensor) -> Tensor:
        images = U.T.reshape(-1, *layer.out_shape)
        if layer.kind == "transposed":
            return _AHEAD[axes](images, weight, None, *how).flatten(1).T
        size = (len(images), *layer.in_shape)
        return _BACK[axes](size, weight, images, *how).flatten(1).T

    shape = (math.prod(layer.out_shape), math.prod(layer.in_shape))
    return operator_from(ahead, back, shape, dtype=torch.float64, device=weight.device)
