"""J J^T, or J(x) J(x2)^T, as (n, K, n2, K), without holding J unless it fits.

Dense layers: (a a^T + 1) o (B B^T) summed over layers, tile by tile, (nK)^2 (sum of widths) flops instead of
(nK)^2 p; beside other layers only where that saves more than the forward pass that it takes. All other
layers: rows of a group of parameters that fits the budget, then one product of the group with itself. Both
compute the upper half only when x2 is x, and mirror it at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from labkit.measure.factors import Factors, add_layers, factors
from labkit.measure.functional import Network
from labkit.measure.sample_rows import fill_rows
from labkit.measure.structure import Structure

__all__ = ["add_products", "kernel", "mirror"]

# Parameters below this many numbers share one matrix: alone, their products would be bound by memory.
_SMALL = 1024
# Rows of a strip of a symmetric product: sixteen strips save 15/32 of it, none narrower than this.
_STRIP = 128


def kernel(
    network: Network,
    found: Structure,
    x: Tensor,
    x2: Tensor | None,
    memory: int,
    layers: list[Factors] | None = None,
) -> Tensor:
    """The empirical kernel (n, K, n2, K) by the fastest route that `found` allows.

    `layers`: the factors of x, where the caller holds them already.
    """
    n, n2 = x.shape[0], (x if x2 is None else x2).shape[0]
    out = torch.zeros(n, network.K, n2, network.K, dtype=network.dtype, device=network.device)
    names = list(network.params)
    with torch.no_grad():
        if _factors_pay(network, found, x):
            left = factors(network, x, found.dense) if layers is None else layers
            right = left if x2 is None or left is None else factors(network, x2, found.dense)
            if left is not None and right is not None:
                add_layers(left, right, out, symmetric=x2 is None)
                names = [name for name in names if name not in found.dense]
        if names:
            _add_rows(network, found, names, x, x2, out.view(n * network.K, -1), memory)
        if x2 is None:
            mirror(out.view(n * network.K, -1))
    return out


def _factors_pay(network: Network, found: Structure, x: Tensor) -> bool:
    """Whether a pass of its own for the dense layers takes less than their rows' part of the product."""
    if found.route == "dense":
        return True
    numbers = sum(network.params[name].numel() for name in found.dense)
    return bool(numbers) and x.shape[0] * network.K**2 * numbers > found.flops


def _add_rows(
    network: Network,
    found: Structure,
    names: list[str],
    x: Tensor,
    x2: Tensor | None,
    out: Tensor,
    memory: int,
) -> None:
    """Add the rows' part to out (n K, n2 K), a group of parameters at a time.

    Samples are cut into tiles only where the columns of a single parameter exceed the budget.
    """
    K, n = network.K, x.shape[0]
    other = x if x2 is None else x2
    for group in _groups(network, names, n + (0 if x2 is None else other.shape[0]), memory):
        per_sample = max(1, K * sum(network.params[n].numel() for n in group) * network.dtype.itemsize)
        # Two tiles are held at a time, unless one holds all of x.
        fits = memory // per_sample if x2 is None and memory >= per_sample * n else memory // (2 * per_sample)
        step = max(1, fits)
        for i in range(0, n, step):
            left = _blocks(network, found, group, x[i : i + step], memory)
            if x2 is None:
                add_products(left, left, out[i * K : (i + step) * K, i * K : (i + step) * K])
            for j in range(i + step if x2 is None else 0, other.shape[0], step):
                right = _blocks(network, found, group, other[j : j + step], memory)
                add_products(left, right, out[i * K : (i + step) * K, j * K : (j + step) * K])
                del right
            del left


def _groups(network: Network, names: list[str], samples: int, memory: int) -> Iterator[list[str]]:
    """Consecutive parameters whose columns fit the budget together; at least one at a time."""
    group: list[str] = []
    size = 0
    for name in names:
        more = network.params[name].numel() * network.K * samples * network.dtype.itemsize
        if group and size + more > memory:
            yield group
            group, size = [], 0
        group.append(name)
        size += more
    yield group


def _blocks(network: Network, found: Structure, group: list[str], x: Tensor, memory: int) -> list[Tensor]:
    """The rows of x as contiguous matrices (n K, columns): one a large parameter, one for all small ones.

    A matrix of its own takes a convolution's product in place, without a copy.
    """
    n, K = x.shape[0], network.K
    small = [name for name in group if network.params[name].numel() < _SMALL]
    blocks: list[Tensor] = []
    places: dict[str, Tensor] = {}
    for names in [[name] for name in group if name not in small] + ([small] if small else []):
        sizes = [network.params[name].numel() for name in names]
        block = torch.empty(n, K, sum(sizes), dtype=network.dtype, device=network.device)
        places.update(zip(names, torch.split(block, sizes, dim=2), strict=True))
        blocks.append(block.view(n * K, -1))
    fill_rows(network, found, x, places, memory)
    return blocks


def add_products(left: Sequence[Tensor], right: Sequence[Tensor], out: Tensor) -> None:
    """out += sum of L R^T; where left is right, only strips on and above the diagonal."""
    m = out.shape[0]
    symmetric = left is right
    strip = max(_STRIP, -(-m // 16)) if symmetric else m
    for L, R in zip(left, right, strict=True):
        for i in range(0, m, strip):
            j = i if symmetric else 0
            out[i : i + strip, j:].addmm_(L[i : i + strip], R[j:].T)


def mirror(square: Tensor) -> None:
    """Copy the part above the diagonal of a square matrix below it, in place."""
    side = 512
    for i in range(0, square.shape[0], side):
        block = square[i : i + side, i : i + side]
        block.copy_(block.triu() + block.triu(1).T)
        square[i + side :, i : i + side] = square[i : i + side, i + side :].T
