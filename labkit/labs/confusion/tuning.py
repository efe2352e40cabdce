"""Networks trained side by side by plain SGD, each architecture at its own best learning rate."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit import data, training
from labkit.labs import common
from labkit.protocol.experiment import Frame
from labkit.protocol.memory import once_along
from labkit.training.search import LearningRateSearch

# (number of the seed, network) -> what is measured of it on the way.
Look = Callable[[int, nn.Module], Sequence[float]]
Span = tuple[float, float]  # of the run's progress, at the start and at the end of a part

GROUP = 15  # networks trained side by side: one a seed and learning rate
# Settings that decide what a search gives.
DECIDE = ("grid", "extend", "steps", "batch_size", "decay", "n", "seed", "seeds", "device")
DECAY = (0.4, 0.8)  # shares of the training after which the rate is divided by 10


@dataclass(frozen=True)
class Trained:
    """The networks of one architecture at one learning rate, one a seed.

    losses: (S, steps) of each minibatch. loss: (S,) over the last quarter of them, inf where it is not
    finite. path: for each seed and moment, what was looked at. places: where they stand among `networks`.
    """

    rate: float
    losses: np.ndarray
    loss: np.ndarray
    path: tuple[tuple[Sequence[float], ...], ...]
    networks: training.Ensemble
    places: tuple[int, ...]


def tuned(
    settings: Any, sets: Sequence[data.Dataset], nets: Sequence[nn.Module], look: Look, *,
    step: int, span: Span,
) -> Generator[Frame, None, Trained | None]:  # fmt: skip
    """Trains at each rate of the search, and returns what the best gave, or None if none is stable.

    Where there are moments to look at, the best is trained once more, looked at on the way; where there are
    none, a memory keeps what the search gave, and another measure of it asks for no training.

    Args:
        settings: grid, extend, steps, batch_size, decay, moments, n, seed, seeds, device.
        sets, nets: one a seed; the networks stay as they are.
        look: what is measured at `settings.moments`.
        step: of the ticks, one after each step of SGD.
        span: of the run's progress.
    """
    if not settings.moments:
        asked = [getattr(settings, name) for name in DECIDE], sets, nets
        return (yield from once_along(_searched, settings, sets, nets, step, span, asked=asked))
    search, again = common.spans([settings.rates, 1], *span)
    best = yield from _searched(settings, sets, nets, step, search)
    if best is not None:
        (best,) = yield from _side_by_side(settings, sets, nets, [best.rate], step, again, look)
    return best


def _searched(
    settings: Any, sets: Sequence[data.Dataset], nets: Sequence[nn.Module], step: int, span: Span
) -> Generator[Frame, None, Trained | None]:
    """What the best rate gave. Unlike the paper's, this search does not pass over networks that stay at their
    first loss, since some do so at every rate.
    """
    search = LearningRateSearch(settings.grid, settings.extend)
    ready: dict[float, Trained] = {}
    best: Trained | None = None
    parts = [*common.spans([1] * settings.rates, *span), *[(span[1], span[1])] * settings.extend]
    while (rate := search.next()) is not None:
        if rate not in ready:
            untried = [one for one in settings.grid if one not in search.losses and one != rate]
            group = [rate, *untried][: max(1, GROUP // settings.seeds)]
            begin = len(search.losses)
            part = parts[begin][0], parts[begin + len(group) - 1][1]
            for one in (yield from _side_by_side(settings, sets, nets, group, step, part)):
                ready[one.rate] = one
        found = ready.pop(rate)
        search.tell(rate, found.loss)
        if np.isfinite(search.means[rate]) and search.best == rate:
            best = found
    return best


def _minibatches(settings: Any, sets: Sequence[data.Dataset]) -> Iterator[tuple[Tensor, Tensor]]:
    """x and y of each step, (S, B, ...) and (S, B), in an order of its own for each epoch and seed."""
    # Apart from the generators of the minibatches that are measured.
    orders = [torch.Generator().manual_seed(seed + 1_000_000) for seed in common.seeds(settings)]
    size = settings.batch_size
    while True:
        epoch = [torch.randperm(settings.n, generator=order).to(settings.device) for order in orders]
        for begin in range(0, settings.n - size + 1, size):
            drawn = [(one, order[begin : begin + size]) for one, order in zip(sets, epoch, strict=True)]
            x, y = ([getattr(one, name)[rows] for one, rows in drawn] for name in ("x_train", "y_train"))
            yield torch.stack(x), torch.stack(y)


def _side_by_side(
    settings: Any, sets: Sequence[data.Dataset], nets: Sequence[nn.Module], rates: Sequence[float],
    step: int, span: Span, look: Look | None = None,
) -> Generator[Frame, None, list[Trained]]:  # fmt: skip
    """Trains one network a seed and rate, all at once; the rates of a seed see the same minibatches."""
    S, R = settings.seeds, len(rates)
    ensemble = training.Ensemble([net for net in nets for _ in rates])
    weights = list(ensemble.parameters())
    lr = torch.tensor(rates, dtype=ensemble.dtype, device=settings.device).repeat(S)
    seen = list[Tensor]()
    path: list[list[Sequence[float]]] = [[] for _ in range(S * R)]
    for now, (x, y) in zip(range(settings.steps), _minibatches(settings, sets), strict=False):
        tick = Frame.tick(step, span[0] + (span[1] - span[0]) * now / settings.steps)
        if look is not None and now in settings.moments:
            for place in range(S * R):
                path[place].append(look(place // R, ensemble.member(place)))
                yield tick
        outputs, labels = ensemble(x.repeat_interleave(R, 0)), y.repeat_interleave(R, 0)
        each = F.cross_entropy(outputs.flatten(0, 1), labels.flatten(), reduction="none")
        loss = each.view(S * R, -1).mean(1)
        seen.append(loss.detach())
        slopes = torch.autograd.grad(loss.sum(), weights)
        factor = 0.1 ** sum(settings.decay and now >= share * settings.steps for share in DECAY)
        with torch.no_grad():
            for weight, slope in zip(weights, slopes, strict=True):
                weight.sub_(factor * lr.view(-1, *[1] * (slope.ndim - 1)) * slope)
        yield tick
    losses = torch.stack(seen, 1).cpu().numpy().reshape(S, R, -1).astype(float)
    final = losses[:, :, -max(1, settings.steps // 4) :].mean(axis=-1)
    final = np.where(np.isfinite(final), final, np.inf)
    return [
        Trained(
            rate, losses[:, r], final[:, r], tuple(map(tuple, path[r::R])), ensemble,
            tuple(range(r, S * R, R)),
        )
        for r, rate in enumerate(rates)
    ]  # fmt: skip


def test_error(net: nn.Module, one: data.Dataset) -> float:
    """The share of test images that are misclassified; batch norm takes its running statistics."""
    _, error = common.fitted(net.eval(), one.x_test, one.y_test)
    net.train()
    return error
