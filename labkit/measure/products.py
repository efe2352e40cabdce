"""Products with the Jacobian of one chunk of samples, never forming it.

Three ways, the same two methods; `products` takes the first that is right on this chunk. `TappedProducts`
runs on taps: J v is the response to the perturbation V a of each layer's output, so its cached graph holds no
weight gradient; measured on a ResNet20 it costs 70 % of a forward-mode product. `PlainProducts` is for every
other model: forward mode for J v, reverse mode for J^T u. Where these two are not one operator (an
embedding's padding, a backward pass that leaves torch), `RowProducts` takes J v from the rows of reverse
mode.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from labkit.measure.functional import Network, gradients
from labkit.measure.structure import Tapped
from labkit.measure.witness import adjoint, disagreeing, random_like, without_torch_warnings

__all__ = ["PlainProducts", "Products", "RowProducts", "TappedProducts", "products"]


class Products(Protocol):
    """Products with the rows of a chunk: v, g are (p,), u is (n, K)."""

    def __init__(self, network: Network, x: Tensor) -> None: ...

    def push(self, v: Tensor) -> Tensor:
        """J v, (n, K)."""

    def pull(self, u: Tensor, g: Tensor) -> None:
        """Add J^T u to g."""


def products(network: Network, x: Tensor, *, tapped: bool) -> Products:
    """Products with the rows of x, by the fastest way that passes two tests on them.

    J^T u, for a random u, is that of one ordinary backward pass; and <u, J v> = <J^T u, v> for a random v.
    Costs about three products.

    Raises:
        ValueError: if torch cannot differentiate the model, derivatives of samples look at each other, or
            something is not finite.
    """
    u = random_like(x.new_empty(x.shape[0], network.K, dtype=network.dtype))
    expected = network.pull(x, u)
    for way in (TappedProducts, PlainProducts) if tapped else (PlainProducts,):
        try:
            chunk: TappedProducts | PlainProducts = way(network, x)
            # The plain J^T u is that backward pass itself.
            right = isinstance(chunk, PlainProducts) or not disagreeing(chunk.pulled(u), expected)
            if right and _is_one_operator(network, chunk, u, expected):
                return chunk
        except torch.OutOfMemoryError:
            raise
        except Exception:  # an operation without this derivative; rows need the first alone
            continue
    network.refuse_coupled_slopes(x)
    return RowProducts(network, x)


def _is_one_operator(
    network: Network, chunk: TappedProducts | PlainProducts, u: Tensor, JTu: dict[str, Tensor]
) -> bool:
    v = {name: random_like(value, seed) for seed, (name, value) in enumerate(network.params.items(), 1)}
    return adjoint(u, chunk.pushed(v), v, JTu)


class TappedProducts:
    """Products through the taps of a chunk."""

    def __init__(self, network: Network, x: Tensor) -> None:
        self._network = network
        self._chunk = Tapped(network, x)
        self._u: Tensor | None = None
        self._linear: list[Tensor | None] = []

    def push(self, v: Tensor) -> Tensor:
        return self.pushed(self._network.split(v))

    def pushed(self, along: dict[str, Tensor]) -> Tensor:
        """J v for v by name."""
        if self._u is None:
            # d <u, y>/d z is linear in u, so its derivative by u maps a change of z to a change of y.
            self._u = torch.zeros_like(self._chunk.y, requires_grad=True)
            self._linear = self._chunk.backward(self._u, create_graph=True)
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
        self._add(u, self._network.split(g))

    def pulled(self, u: Tensor) -> dict[str, Tensor]:
        """J^T u by name."""
        found = {name: torch.zeros_like(value) for name, value in self._network.params.items()}
        self._add(u, found)
        return found

    def _add(self, u: Tensor, parts: dict[str, Tensor]) -> None:
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
        return self.pushed(self._network.split(v))

    def pushed(self, along: dict[str, Tensor]) -> Tensor:
        """J v for v by name."""
        with torch.enable_grad(), without_torch_warnings():
            try:
                at = (self._network.params,)
                jvp = torch.func.jvp(lambda p: self._network(p, self._x), at, (along,))[1]
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
        parts = self._network.split(g)
        y = self._outputs()
        grads = gradients(y, list(self._leaves.values()), u, self._network.caller, retain_graph=True)
        for name, grad in zip(self._leaves, grads, strict=True):
            parts[name].add_(grad)

    def _outputs(self) -> Tensor:
        if self._y is None:
            self._leaves = self._network.leaves()
            with torch.enable_grad():
                self._y = self._network(self._leaves, self._x)
        return self._y


class RowProducts(PlainProducts):
    """Both products by reverse mode, J v a row at a time: n K backward passes, and no second derivative."""

    def pushed(self, along: dict[str, Tensor]) -> Tensor:
        y, leaves = self._outputs(), list(self._leaves.values())
        one = torch.zeros_like(y).detach()
        out = torch.zeros_like(one)
        for place in range(y.numel()):
            one.view(-1)[place] = 1
            row = gradients(y, leaves, one, self._network.caller, retain_graph=True)
            one.zero_()
            out.view(-1)[place] = sum(
                (g * along[name]).sum() for name, g in zip(self._leaves, row, strict=True)
            )
        return out
