"""Tapping the layers that are linear in their own parameters.

Where a layer computes z = W a + b once, everything about its columns of the Jacobian follows from two small
things: its input a and the back-propagation B[i, k] = d f_k(x_i) / d z. Row (i, k) is B[i, k] a[i]^T, so

* the NTK is (a a^T + 1) o (B B^T), without any row;
* a product J v is the network's response to the perturbation V a of z, without any weight gradient;
* rows themselves are one outer product (or, for a convolution, one matrix product) a sample.

`tape` finds such layers; `structure` tells which parameters they cover, and proves it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import GradientEdge
from torch.nn.grad import conv2d_weight

__all__ = ["Conv", "Linear", "Scale", "Tap"]


@dataclass(frozen=True, eq=False)
class Tap:
    """One use of a weight and a bias (either may be None when it is not differentiated).

    `a` is what the weight multiplies, `edge` the place in the autograd graph where z is.
    """

    weight: str | None
    bias: str | None
    a: Tensor
    edge: GradientEdge

    def tangent(self, v: Mapping[str, Tensor]) -> Tensor:
        """The change of z when the parameters move along `v`."""
        raise NotImplementedError

    def pullback(self, G: Tensor, g: Mapping[str, Tensor]) -> None:
        """Add the gradient of <G, z>, summed over samples, to the parameters' entries of `g`."""
        raise NotImplementedError

    def rows(self, B: Tensor, out: Mapping[str, Tensor]) -> None:
        """Write rows: B (n, K, *z) -> out[name] (n, K, size of the parameter)."""
        raise NotImplementedError


class Linear(Tap):
    """z = a W^T + b with a (n, d), or (n, ..., d) for tokens."""

    def tangent(self, v: Mapping[str, Tensor]) -> Tensor:
        bias = v[self.bias] if self.bias else None
        if self.weight:
            return F.linear(self.a, v[self.weight], bias)
        assert bias is not None
        return bias.expand(*self.a.shape[:-1], -1)

    def pullback(self, G: Tensor, g: Mapping[str, Tensor]) -> None:
        G = G.flatten(0, -2)
        if self.weight:
            g[self.weight].addmm_(G.T, self.a.flatten(0, -2))
        if self.bias:
            g[self.bias].add_(G.sum(0))

    def rows(self, B: Tensor, out: Mapping[str, Tensor]) -> None:
        n, K, m = B.shape[0], B.shape[1], B.shape[-1]
        if self.weight:
            place = out[self.weight].view(n, K, m, self.a.shape[-1])
            if self.a.ndim == 2:
                torch.mul(B[..., None], self.a[:, None, None, :], out=place)
            else:
                place.copy_(B.flatten(2, -2).mT @ self.a.flatten(1, -2)[:, None])
        if self.bias:
            out[self.bias].copy_(B.flatten(2, -2).sum(2) if B.ndim > 3 else B)


@dataclass(frozen=True, eq=False)
class Conv(Tap):
    """A two-dimensional convolution without groups: matrix products over unfolded patches."""

    kernel: torch.Size
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    def tangent(self, v: Mapping[str, Tensor]) -> Tensor:
        bias = v[self.bias] if self.bias else None
        if self.weight:
            return F.conv2d(self.a, v[self.weight], bias, self.stride, self.padding, self.dilation)
        assert bias is not None
        return bias.view(-1, 1, 1)

    def pullback(self, G: Tensor, g: Mapping[str, Tensor]) -> None:
        if self.weight:
            g[self.weight].add_(
                conv2d_weight(
                    self.a, self.kernel, G, stride=self.stride, padding=self.padding, dilation=self.dilation
                )
            )
        if self.bias:
            g[self.bias].add_(G.sum((0, 2, 3)))

    def rows(self, B: Tensor, out: Mapping[str, Tensor]) -> None:
        n, K, m = B.shape[:3]
        if self.weight:
            patches = F.unfold(self.a, self.kernel[2:], self.dilation, self.padding, self.stride)
            # All K outputs of a sample share its patches: one (K m, L) x (L, C k k) product a sample.
            left, place = B.reshape(n, K * m, -1), out[self.weight]
            if place.is_contiguous():
                torch.bmm(left, patches.mT, out=place.view(n, K * m, -1))
            else:
                place.copy_(torch.bmm(left, patches.mT).view(n, K, -1))
        if self.bias:
            out[self.bias].copy_(B.sum((3, 4)))


class Scale(Tap):
    """z = a * weight + b, channel by channel: batch norm with fixed statistics; a is the normalised input."""

    def tangent(self, v: Mapping[str, Tensor]) -> Tensor:
        across = (-1,) + (1,) * (self.a.ndim - 2)
        weight = v[self.weight].view(across) if self.weight else torch.zeros_like(self.a[:1])
        return self.a * weight + (v[self.bias].view(across) if self.bias else 0.0)

    def pullback(self, G: Tensor, g: Mapping[str, Tensor]) -> None:
        others = [axis for axis in range(G.ndim) if axis != 1]
        if self.weight:
            g[self.weight].add_((G * self.a).sum(others))
        if self.bias:
            g[self.bias].add_(G.sum(others))

    def rows(self, B: Tensor, out: Mapping[str, Tensor]) -> None:
        n, K, m = B.shape[:3]
        if self.weight:
            out[self.weight].copy_((B * self.a[:, None]).reshape(n, K, m, -1).sum(3))
        if self.bias:
            out[self.bias].copy_(B.reshape(n, K, m, -1).sum(3))
