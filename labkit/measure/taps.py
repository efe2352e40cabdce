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
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import GradientEdge

__all__ = ["Conv", "Linear", "Scale", "Tap"]


@dataclass(frozen=True, eq=False)
class Tap:
    """One use of a weight and a bias (either may be None when it is not differentiated).

    `a` is what the weight multiplies, `edge` the place in the autograd graph where z is, `gives` its shape.
    """

    weight: str | None
    bias: str | None
    a: Tensor
    edge: GradientEdge
    gives: torch.Size

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
    """A two-dimensional convolution; `how`: stride, padding, dilation, groups."""

    kernel: torch.Size
    how: tuple[Any, ...]

    def tangent(self, v: Mapping[str, Tensor]) -> Tensor:
        bias = v[self.bias] if self.bias else None
        if self.weight:
            return F.conv2d(self.a, v[self.weight], bias, *self.how)
        assert bias is not None
        return bias.view(-1, 1, 1)

    def pullback(self, G: Tensor, g: Mapping[str, Tensor]) -> None:
        if self.weight:
            g[self.weight].add_(self._slope(self.a, G))
        if self.bias:
            g[self.bias].add_(G.sum((0, 2, 3)))

    def rows(self, B: Tensor, out: Mapping[str, Tensor]) -> None:
        n, K = B.shape[:2]
        if self.weight and K == 1:
            # Samples as groups of one convolution: twice as fast as patches, which pay for several outputs.
            a, G = (t.reshape(1, -1, *t.shape[-2:]) for t in (self.a, B))
            out[self.weight].copy_(self._slope(a, G, of=n).view(n, 1, -1))
        elif self.weight:
            self._rows_by_patches(B, out[self.weight])
        if self.bias:
            out[self.bias].copy_(B.sum((3, 4)))

    def _rows_by_patches(self, B: Tensor, place: Tensor) -> None:
        (n, K), (stride, padding, dilation, groups) = B.shape[:2], self.how
        patches = F.unfold(self.a, self.kernel[2:], dilation, padding, stride)
        # All K outputs of a sample share its patches: one (K m, L) x (L, C k k) product a group.
        left = B.unflatten(2, (groups, -1)).transpose(1, 2).reshape(n * groups, -1, patches.shape[2])
        right = patches.view(n * groups, -1, patches.shape[2]).mT
        if place.is_contiguous() and groups == 1:
            torch.bmm(left, right, out=place.view(n, left.shape[1], -1))
        else:
            found = torch.bmm(left, right).view(n, groups, K, -1)
            place.copy_(found.transpose(1, 2).reshape(n, K, -1))

    def _slope(self, a: Tensor, G: Tensor, of: int = 1) -> Tensor:
        """d <G, z> / d weight; of several convolutions side by side, where their channels are."""
        *how, groups = self.how
        weight = a.new_empty(1).expand(of * self.kernel[0], *self.kernel[1:])
        flipped = (False, (0, 0))  # no transposed convolution, which would take this padding of its output
        wanted = (False, True, False)
        return torch.ops.aten.convolution_backward(G, a, weight, None, *how, *flipped, of * groups, wanted)[1]


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
