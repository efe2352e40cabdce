"""Products with the Jacobian of one chunk of samples, never forming it.

Two ways, the same two methods. `TappedProducts` runs on taps: J v is the response to the perturbation V a of
each layer's output, so its cached graph holds no weight gradient; measured on a ResNet20 it costs 70 % of a
forward-mode product. `PlainProducts` is for every other model: forward mode for J v, reverse mode for J^T u.
"""

from __future__ import annotations

import warnings
from typing import Protocol

import torch
from torch import Tensor

from labkit.measure.functional import Network
from labkit.measure.structure import Tapped

__all__ = ["PlainProducts", "Products", "TappedProducts"]


class Products(Protocol):
    """Products with the rows of a chunk: v, g are (p,), u is (n, K)."""

    def push(self, v: Tensor) -> Tensor:
        """J v, (n, K)."""

    def pull(self, u: Tensor, g: Tensor) -> None:
        """Add J^T u to g."""


class TappedProducts:
    """Products through the taps of a chunk."""

    def __init__(self, network: Network, x: Tensor) -> None:
        self._network = network
        self._chunk = Tapped(network, x)
        self._u: Tensor | None = None
        self._linear: list[Tensor | None] = []

    def push(self, v: Tensor) -> Tensor:
        if self._u is None:
            # d <u, y>/d z is linear in u, so its derivative by u maps a change of z to a change of y.
            self._u = torch.zeros_like(self._chunk.y, requires_grad=True)
            self._linear = self._chunk.backward(self._u, create_graph=True)
        along = self._network.split(v)
        with torch.no_grad():
            moved = [
                (G, tap.tangent(along).expand_as(G))
                for tap, G in zip(self._chunk.taps, self._linear, strict=True)
                if G is not None and G.requires_grad
            ]
        if not moved:
            return torch.zeros_like(self._chunk.y)
        with torch.enable_grad():
            grads, tangents = zip(*moved, strict=True)
            (y,) = torch.autograd.grad(grads, self._u, tangents, retain_graph=True)
        return y.detach()

    def pull(self, u: Tensor, g: Tensor) -> None:
        parts = self._network.split(g)
        for tap, G in zip(self._chunk.taps, self._chunk.backward(u), strict=True):
            if G is not None:
                tap.pullback(G, parts)


class PlainProducts:
    """Products by forward and reverse mode, for any differentiable model."""

    def __init__(self, network: Network, x: Tensor) -> None:
        self._network = network
        self._x = x
        self._leaves: dict[str, Tensor] = {}
        self._y: Tensor | None = None

    def push(self, v: Tensor) -> Tensor:
        along = self._network.split(v)
        with torch.enable_grad(), warnings.catch_warnings():
            # torch announces the end of its own torch.jit.script when it first loads forward mode.
            warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=FutureWarning)
            try:
                jvp = torch.func.jvp(lambda p: self._network(p, self._x), (self._network.params,), (along,))[
                    1
                ]
            except torch.OutOfMemoryError:
                raise
            except (NotImplementedError, RuntimeError):  # an operation without forward mode
                return self._twice_backward(along)
        return jvp.detach()

    def _twice_backward(self, along: dict[str, Tensor]) -> Tensor:
        """J v for models with an operation that has no forward mode: differentiate J^T u by u."""
        y = self._outputs()
        u = torch.zeros_like(y, requires_grad=True)
        used = list(self._leaves)
        grads = torch.autograd.grad(
            y,
            [self._leaves[n] for n in used],
            u,
            create_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        pairs = [(g, along[n]) for n, g in zip(used, grads, strict=True) if g.requires_grad]
        if not pairs:
            return torch.zeros_like(y).detach()
        return torch.autograd.grad([g for g, _ in pairs], u, [t for _, t in pairs])[0].detach()

    def pull(self, u: Tensor, g: Tensor) -> None:
        y = self._outputs()
        if not y.requires_grad:
            return
        with torch.enable_grad():
            grads = torch.autograd.grad(
                y, list(self._leaves.values()), u, retain_graph=True, allow_unused=True
            )
        parts = self._network.split(g)
        for name, grad in zip(self._leaves, grads, strict=True):
            if grad is not None:
                parts[name].add_(grad)

    def _outputs(self) -> Tensor:
        if self._y is None:
            self._leaves = self._network.leaves()
            with torch.enable_grad():
                self._y = self._network(self._leaves, self._x)
        return self._y
