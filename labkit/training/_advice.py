"""What to tell a person whose run diverged.

It ends in "Take 0.4 × lr", which `Settings.advised` puts into a value of the person's slider.
"""

from __future__ import annotations

import math
from collections.abc import Generator

import torch

from labkit.training._arguments import evaluating
from labkit.training.batches import Batches
from labkit.training.ensemble import Ensemble
from labkit.training.optimizers import Adam, Optimizer
from labkit.training.stability import curvature, rate

# A note needs two digits, and should come within a second or so.
TOLERANCE = 1e-3
PRODUCTS = 100
# Of the largest stable rate at the start: the curvature often grows, and batches differ.
CAREFUL = 0.5


def advice(
    ensemble: Ensemble, batches: Batches, loss: str, optimizer: Optimizer, rate_then: float
) -> Generator[None, None, str]:
    """Finds why a run diverged at the rate it had then, and pauses now and then.

    The ensemble holds the weights of the start.
    """
    for name, data in (("x", batches.x), ("y", batches.y)):
        if not bool(data.isfinite().all()):
            return f"{name} holds NaN or infinite numbers; remove or replace them"
    state = [*ensemble.stack.parameters(), *ensemble.stack.buffers()]
    if not all(bool(tensor.isfinite().all()) for tensor in state):
        return "the network started with NaN or infinite weights"
    lr = f"lr={rate_then:g}"
    if isinstance(optimizer, Adam):
        return f"{lr} is too large for Adam. Take 0.1 × lr"
    # Spread over the set, which may be sorted by class.
    rows = torch.arange(batches.batch_size) * batches.n // batches.batch_size
    with evaluating(ensemble):
        x, y = batches.x[:, rows], batches.y[:, rows]
        largest = yield from curvature(ensemble, x, y, loss, TOLERANCE, PRODUCTS)
    stable = float(rate(largest, optimizer.momentum).min())
    where = "at the start" if batches.full else "at the start, for one batch"
    if not math.isfinite(stable):
        return f"{lr} is too large, and the curvature {where} names no limit. Take 0.1 × lr"
    if stable <= rate_then:
        share = CAREFUL * stable / rate_then
        return (
            f"{lr} is too large; the largest stable learning rate {where} is about {stable:.2g}. "
            f"Take {share:.2g} × lr"
        )
    return (
        f"{lr} is below the largest stable learning rate {where} (about {stable:.2g}), but the curvature "
        "grew on the way. Take 0.25 × lr"
    )
