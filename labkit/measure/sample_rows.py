"""Rows of the Jacobian, sample by sample, written in place.

Tapped layers write outer or patch products; everything else goes through `vmap(jacrev)`, and what cannot be
vectorised (data-dependent control flow, some recurrent kernels) through one backward pass an output.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from labkit.measure.functional import Network
from labkit.measure.structure import Structure, Tapped

__all__ = ["chunk_size", "fill_rows"]


def chunk_size(network: Network, samples: int, per_sample: int, memory: int) -> int:
    """Samples at a time: about 10 on a CPU (caches), many on a GPU (launches), within a quarter of memory."""
    most = 10 if network.device.type == "cpu" else 512
    fits = memory // 4 // max(1, per_sample * network.dtype.itemsize)
    return int(max(1, min(most, fits, samples)))


def fill_rows(
    network: Network, found: Structure, x: Tensor, places: Mapping[str, Tensor], memory: int
) -> None:
    """Write the rows of `x`: places[name] (n, K, size of the parameter) takes the columns of `name`."""
    # One parameter's rows are in the making at a time, and the back-propagations beside them.
    largest = max(place.shape[2] for place in places.values())
    chunk = chunk_size(network, x.shape[0], 2 * network.K * largest, memory)
    for start in range(0, x.shape[0], chunk):
        part = x[start : start + chunk]
        here = {name: place[start : start + chunk] for name, place in places.items()}
        if tapped := {name: place for name, place in here.items() if name in found.covered}:
            _tapped_rows(network, part, tapped)
        if generic := {name: place for name, place in here.items() if name in found.generic}:
            _generic_rows(network, part, generic)


def _tapped_rows(network: Network, x: Tensor, places: dict[str, Tensor]) -> None:
    covered: set[str | None] = set()
    run = Tapped(network, x, frozenset(places))
    for tap, B in zip(run.taps, run.backpropagations(), strict=True):
        if B is not None:
            tap.rows(B, places)
            covered |= {tap.weight, tap.bias}
    for name in places.keys() - covered:
        places[name].zero_()


def _generic_rows(network: Network, x: Tensor, places: dict[str, Tensor]) -> None:
    fixed = {name: value for name, value in network.params.items() if name not in places}
    moving = {name: network.params[name] for name in places}

    def outputs(params: dict[str, Tensor], sample: Tensor) -> Tensor:
        return network({**fixed, **params}, sample[None])[0]

    with torch.enable_grad():
        try:
            found = torch.func.vmap(torch.func.jacrev(outputs), in_dims=(None, 0))(moving, x)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, NotImplementedError):
            return _one_by_one(network, x, places)
    for name, J in found.items():
        places[name].copy_(J.detach().flatten(2))
    return None


def _one_by_one(network: Network, x: Tensor, places: dict[str, Tensor]) -> None:
    leaves = network.leaves()
    for i in range(x.shape[0]):
        y = network(leaves, x[i : i + 1])[0]
        for k in range(network.K):
            grads = torch.autograd.grad(
                y[k],
                [leaves[n] for n in places],
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            for name, g in zip(places, grads, strict=True):
                places[name][i, k] = g.reshape(-1)
