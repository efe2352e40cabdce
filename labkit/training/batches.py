"""What each copy sees at each step: the whole training set, or a minibatch in an order of its own."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Batches:
    """Training data of S copies, and the order in which each copy goes through it.

    Every epoch visits each sample once; its last batch may be smaller. The order of copy s comes from its own
    seed, so a copy sees the same batches in an ensemble as alone.

    Args:
        x, y: (n, ...) shared by all copies, or lists of S such tensors.
        size: S.
        batch_size: samples a step; None, or at least n: all of them.
        seeds: one a copy.
    """

    def __init__(
        self,
        x: Sequence[Tensor],
        y: Sequence[Tensor],
        size: int,
        batch_size: int | None,
        seeds: Sequence[int],
    ) -> None:
        self.x, self.y = _joined(x, size), _joined(y, size)
        self.n = self.x.shape[1]
        self.full = batch_size is None or batch_size >= self.n
        self.batch_size = self.n if self.full or batch_size is None else batch_size
        self.steps_per_epoch = -(-self.n // self.batch_size)
        self._shared = len(x) == 1, len(y) == 1
        self._copies = torch.arange(size, device=self.x.device).unsqueeze(1)
        self._generators = [_order(seed) for seed in seeds]
        self._epoch, self._orders = -1, torch.empty(0)

    def take(self, step: int, copies: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (S, B, ...) and y (S, B, ...) of a step, or of these copies; steps are asked for in order."""
        if self.full:
            return (self.x, self.y) if copies is None else (self.x[copies], self.y[copies])
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            orders = [torch.randperm(self.n, generator=generator) for generator in self._generators]
            self._epoch, self._orders = epoch, torch.stack(orders).to(self.x.device)
        rows = self._orders[:, place * self.batch_size : (place + 1) * self.batch_size]
        places = rows + self.n * self._copies
        if copies is not None:
            rows, places = rows[copies], places[copies]
        x = _gathered(self.x[0], rows) if self._shared[0] else _gathered(self.x.flatten(0, 1), places)
        y = _gathered(self.y[0], rows) if self._shared[1] else _gathered(self.y.flatten(0, 1), places)
        return x, y

    def checkpoint(self) -> dict[str, Any]:
        """Where the orders stand."""
        states = [generator.get_state() for generator in self._generators]
        return {"epoch": self._epoch, "orders": self._orders, "generators": states}

    def resume(self, saved: Mapping[str, Any]) -> None:
        """Puts the orders where they stood at a `checkpoint`."""
        self._epoch, self._orders = saved["epoch"], saved["orders"].to(self.x.device)
        for generator, state in zip(self._generators, saved["generators"], strict=True):
            generator.set_state(state.cpu())

    def chunks(self, rows: int, copies: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """The whole training set, or that of these copies, in its own order, in pieces."""
        for start in range(0, self.n, rows):
            x, y = self.x[:, start : start + rows], self.y[:, start : start + rows]
            yield (x, y) if copies is None else (x[copies], y[copies])


def _gathered(data: Tensor, places: Tensor) -> Tensor:
    # The fastest way to gather rows: one network alone should cost what a plain loop costs.
    return data.index_select(0, places.flatten()).unflatten(0, places.shape)


def _joined(parts: Sequence[Tensor], size: int) -> Tensor:
    # One shared tensor is expanded, not repeated.
    return parts[0].expand(size, *parts[0].shape) if len(parts) == 1 else torch.stack(list(parts))


def _order(seed: int) -> torch.Generator:
    # Mixed with its purpose: a network or a data set drawn from the same seed must not share these numbers.
    words = [seed, zlib.crc32(b"order of samples")]
    mixed = np.random.SeedSequence(words).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed) >> 1)
