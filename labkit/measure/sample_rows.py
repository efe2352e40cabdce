"""Rows of the Jacobian, sample by sample, written in place, proved or held to an ordinary backward pass.

Tapped layers write outer or patch products; everything else goes through `vmap(jacrev)`. What was found on a
few samples need not hold for others (a branch by data, an expert that they do not meet), and what cannot be
vectorised has no such way; so where a chunk's own graph does not prove its rows, these, contracted with
random numbers, must equal one ordinary backward pass over that chunk. Where they do not, they are made one at
a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from labkit.measure.functional import Network, gradients
from labkit.measure.guards import refuse_coupling
from labkit.measure.structure import Structure, Tapped
from labkit.measure.witness import disagreeing, random_like, without_torch_warnings

__all__ = ["chunk_size", "fill_rows"]


def chunk_size(network: Network, samples: int, per_sample: int, memory: int) -> int:
    """Samples at a time: about 10 on a CPU (caches), many on a GPU (launches), within a quarter of memory."""
    most = (10 if network.K > 1 else 64) if network.device.type == "cpu" else 512
    fits = memory // 4 // max(1, per_sample * network.dtype.itemsize)
    return int(max(1, min(most, fits, samples)))


def fill_rows(
    network: Network, found: Structure, x: Tensor, places: Mapping[str, Tensor], memory: int
) -> None:
    """Write the rows of `x`: places[name] (n, K, size of the parameter) takes the columns of `name`.

    Raises:
        ValueError: if samples of x turn out to look at each other, in outputs or in derivatives, or something
            is not finite.
    """
    # By taps one parameter's rows are in the making at a time, by vmap all; and what they are made of.
    sizes = {name: place.shape[2] for name, place in places.items()}
    largest = max(*sizes.values(), sum(size for name, size in sizes.items() if name not in found.covered))
    chunk = chunk_size(network, x.shape[0], 2 * network.K * largest, memory)
    for start in range(0, x.shape[0], chunk):
        part = x[start : start + chunk]
        here = {name: place[start : start + chunk] for name, place in places.items()}
        _fill_chunk(network, found, part, here)


def _fill_chunk(network: Network, found: Structure, x: Tensor, places: dict[str, Tensor]) -> None:
    left, expected = places, dict[str, Tensor]()
    w = random_like(x.new_empty(x.shape[0], network.K, dtype=network.dtype))
    for way, names in ((_tapped_rows, found.covered), (_vectorised_rows, frozenset(places))):
        mine = {name: place for name, place in left.items() if name in names}
        proved = _attempt(way, network, x, mine) if mine else None
        if proved is None:
            continue
        wrong = set[str]()
        if not proved:
            expected = expected or network.pull(x, w, places)
            wrong = disagreeing(_contracted(mine, w), expected)
        left = {name: place for name, place in left.items() if name not in mine or name in wrong}
        if not left:
            return
    _one_by_one(network, x, left)
    refuse_coupling(lambda part: network(network.params, part), x, network.caller, network.model)
    if disagreeing(_contracted(left, w), expected or network.pull(x, w, places)):
        network.refuse_coupled_slopes(x)


def _contracted(places: Mapping[str, Tensor], w: Tensor) -> dict[str, Tensor]:
    return {name: place.flatten(0, 1).mT @ w.flatten() for name, place in places.items()}


def _attempt(way: Callable[..., bool], network: Network, x: Tensor, places: dict[str, Tensor]) -> bool | None:
    """Whether the rows of a fast way are proved; None where it could not be gone at all."""
    try:
        with without_torch_warnings():
            return way(network, x, places)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # whatever the model or torch raises there, the slow way tells in plain autograd
        return None


def _tapped_rows(network: Network, x: Tensor, places: dict[str, Tensor]) -> bool:
    run = Tapped(network, x, frozenset(places))
    found, written = run.backpropagations(), set[str | None]()
    for tap, B in zip(run.taps, found, strict=True):
        if B is not None:
            tap.rows(B, places)
            written |= {tap.weight, tap.bias}
    for name in places.keys() - written:
        places[name].zero_()
    return run.proved(found)


def _vectorised_rows(network: Network, x: Tensor, places: dict[str, Tensor]) -> bool:
    fixed = {name: value for name, value in network.params.items() if name not in places}
    moving = {name: network.params[name] for name in places}

    def outputs(params: dict[str, Tensor], sample: Tensor) -> Tensor:
        return network({**fixed, **params}, sample[None])[0]

    def output(params: dict[str, Tensor], sample: Tensor) -> Tensor:
        return outputs(params, sample)[0]

    rows = torch.func.grad(output) if network.K == 1 else torch.func.jacrev(outputs)
    with torch.enable_grad():
        found = torch.func.vmap(rows, in_dims=(None, 0))(moving, x)
    for name, J in found.items():
        places[name].copy_(J.detach().reshape(places[name].shape))
    return False


def _one_by_one(network: Network, x: Tensor, places: dict[str, Tensor]) -> None:
    leaves = network.leaves()
    wanted = [leaves[name] for name in places]
    for i in range(x.shape[0]):
        with torch.enable_grad():
            y = network(leaves, x[i : i + 1])[0]
        for k, one in enumerate(torch.eye(network.K, dtype=y.dtype, device=y.device)):
            grads = gradients(y, wanted, one, network.caller, retain_graph=True)
            for name, g in zip(places, grads, strict=True):
                places[name][i, k] = g.reshape(-1)
