"""Dense layers by their factors: the Jacobian, its products and its Gram matrix without a single row of J.

For z = W a + b, row (i, k) of the weight's columns is B[i, k] a[i]^T. With the inputs a (n, d) and the
back-propagations B (n, K, m) at hand, J v, J^T u and J J^T are a few small matrix products, K times cheaper
than with J itself, and exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from labkit.measure.functional import Network
from labkit.measure.structure import Tapped
from labkit.measure.taps import Linear
from labkit.measure.witness import disagreeing, random_like

__all__ = ["Factors", "add_layers", "factors", "pull", "push"]

# Columns of a block of vectors that are carried together: reads B once for all of them.
_COLUMNS = 16
# Side of a tile of the kernel, in rows i*K + k: small enough that a tile stays in cache between layers.
_TILE = 400
# Samples from which a tile on the diagonal is worth cutting.
_CUT = 8


@dataclass(frozen=True, eq=False)
class Factors:
    """A dense layer: inputs a (n, d), back-propagations B (K, n, m); class first: a tile of B is a matrix."""

    weight: str | None
    bias: str | None
    a: Tensor
    B: Tensor


def factors(network: Network, x: Tensor, names: frozenset[str] | None = None) -> list[Factors] | None:
    """The factors of every tapped dense layer, one forward and one batched backward a chunk of samples.

    Where the graph does not prove a chunk's, it is held to an ordinary backward pass; None where these
    samples use the parameters in another way than those did on which the layers were found.
    """
    widest = 512 if network.device.type == "cpu" else 4096
    wanted = frozenset(network.params) if names is None else names
    found: list[list[Factors]] = []
    for start in range(0, x.shape[0], widest):
        layers = _of_chunk(network, x[start : start + widest], wanted)
        if layers is None or (found and len(layers) != len(found[0])):
            return None
        found.append(layers)
    if len(found) == 1:
        return found[0]
    return [
        Factors(
            layer[0].weight,
            layer[0].bias,
            torch.cat([part.a for part in layer]),
            torch.cat([part.B for part in layer], dim=1),
        )
        for layer in zip(*found, strict=True)
    ]


def _of_chunk(network: Network, x: Tensor, names: frozenset[str]) -> list[Factors] | None:
    try:
        run = Tapped(network, x, names)
        found = run.backpropagations()
        layers = [
            Factors(tap.weight, tap.bias, tap.a, B.transpose(0, 1).contiguous())
            for tap, B in zip(run.taps, found, strict=True)
            if isinstance(tap, Linear) and tap.a.ndim == 2 and B is not None
        ]
        proved = len(layers) == len(run.taps) and run.proved(found)
        return layers if proved or _confirmed(network, layers, x, names) else None
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # not of the shape of a dense layer
        return None


def _confirmed(network: Network, layers: Sequence[Factors], x: Tensor, names: frozenset[str]) -> bool:
    """Whether J^T w, by these factors, is that of one ordinary backward pass."""
    w = random_like(x.new_empty(len(x), network.K, dtype=network.dtype))
    expected = network.pull(x, w, names)
    used = [name for layer in layers for name in (layer.weight, layer.bias) if name]
    if len(used) > len(set(used)):  # sums would be right, squares would lack the cross terms
        return False
    found = {name: torch.zeros_like(g) for name, g in expected.items()}
    for layer in layers:
        G = torch.einsum("nk,knm->nm", w, layer.B)
        if layer.weight:
            found[layer.weight] += G.T @ layer.a
        if layer.bias:
            found[layer.bias] += G.sum(0)
    return not disagreeing(found, expected)


def push(layers: Sequence[Factors], network: Network, V: Tensor) -> Tensor:
    """J V, (p, b) -> (n*K, b)."""
    K, n = layers[0].B.shape[:2]
    out = V.new_zeros(n, K, V.shape[1])
    for start in range(0, V.shape[1], _COLUMNS):
        along = [network.split(v.contiguous()) for v in V[:, start : start + _COLUMNS].unbind(1)]
        for layer in layers:
            moved = V.new_zeros(n, layer.B.shape[2], len(along))
            for c, v in enumerate(along):
                if layer.weight:
                    moved[:, :, c] = layer.a @ v[layer.weight].T
                if layer.bias:
                    moved[:, :, c] += v[layer.bias]
            out[:, :, start : start + _COLUMNS] += torch.bmm(layer.B.transpose(0, 1), moved)
    return out.view(n * K, -1)


def pull(layers: Sequence[Factors], network: Network, U: Tensor) -> Tensor:
    """J^T U, (n*K, b) -> (p, b)."""
    K, n = layers[0].B.shape[:2]
    out = U.new_zeros(U.shape[1], network.p)
    places = [network.split(row) for row in out]
    for start in range(0, U.shape[1], _COLUMNS):
        block = U[:, start : start + _COLUMNS].reshape(n, K, -1)
        for layer in layers:
            G = torch.bmm(layer.B.permute(1, 2, 0), block)  # (n, m, columns)
            for c in range(G.shape[2]):
                if layer.weight:
                    torch.mm(G[:, :, c].T, layer.a, out=places[start + c][layer.weight])
                if layer.bias:
                    places[start + c][layer.bias].copy_(G[:, :, c].sum(0))
    return out.T.contiguous()


def add_layers(left: Sequence[Factors], right: Sequence[Factors], out: Tensor, *, symmetric: bool) -> None:
    """Add sum over layers of (a a^T + 1) o (B B^T) to out (n, K, n2, K); only tiles j >= i when symmetric."""
    n, K, n2, _ = out.shape
    side = max(1, _TILE // K)
    tile = torch.empty(K * side * K * side, dtype=out.dtype, device=out.device)
    total = torch.empty_like(tile)
    for i, ti, j, tj in _tiles(n, n2, side, symmetric):
        # Class-major inside a tile: the factor of the inputs then broadcasts along contiguous samples.
        product = tile[: K * ti * K * tj].view(K * ti, K * tj)
        so_far = total[: K * ti * K * tj].view(K, ti, K, tj)
        so_far.zero_()
        for f, g in zip(left, right, strict=True):
            torch.mm(
                f.B[:, i : i + ti].reshape(K * ti, -1),
                g.B[:, j : j + tj].reshape(K * tj, -1).T,
                out=product,
            )
            scale = f.a[i : i + ti] @ g.a[j : j + tj].T if f.weight else f.a.new_zeros(ti, tj)
            if f.bias:
                scale += 1
            so_far.addcmul_(product.view(K, ti, K, tj), scale[None, :, None, :])
        out[i : i + ti, :, j : j + tj].copy_(so_far.permute(1, 0, 3, 2))


def _tiles(n: int, n2: int, side: int, symmetric: bool) -> Iterator[tuple[int, int, int, int]]:
    """(i, its length, j, its length); where only j >= i counts, a tile on the diagonal is cut in four."""
    for i in range(0, n, side):
        for j in range(i if symmetric else 0, n2, side):
            ti, tj = min(side, n - i), min(side, n2 - j)
            if not symmetric or i != j or ti < _CUT:
                yield i, ti, j, tj
                continue
            half = ti // 2
            yield i, half, i, half
            yield i, half, i + half, ti - half
            yield i + half, ti - half, i + half, ti - half
