"""The learning-rate search of paper 5: a log grid, the lowest final loss over seeds, never at an end.

    search = LearningRateSearch([0.01, 0.03, 0.1])
    while (lr := search.next()) is not None:
        search.tell(lr, final_losses(lr))       # one a seed
    search.best

Ask and tell, so that an experiment stays a generator: it trains in its own way and yields frames meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from labkit.training._arguments import whole, within


class LearningRateSearch:
    """Tries the rates of a grid, then goes on beyond an end for as long as the best rate lies there.

    Near the edge of stability some seeds train and others do not. A seed that diverged, or did not get below
    its first loss, is told as inf; a rate counts if at least the share `enough` of its seeds is finite (the
    paper asks for 4 of 5).

    Args:
        grid: rates to begin with, at least two, in any order; beyond an end the last ratio is repeated.
        extend: rates that may be added, at most, at both ends together.
        enough: share of seeds that must have trained, in (0, 1].

    Attributes:
        losses: rate -> final losses (S,), in the order of trying.

    Raises:
        ValueError: fewer than two rates, or one that is not positive and finite, or the same one twice; or
            `enough` is out of its range.
    """

    def __init__(self, grid: Sequence[float], extend: int = 4, enough: float = 0.8) -> None:
        rates = sorted(within("grid", rate, 0) for rate in grid)
        if len(rates) < 2 or rates[0] <= 0 or len(set(rates)) < len(rates):
            raise ValueError(f"grid: got {list(grid)!r}; it takes two or more different rates above 0")
        self._left = whole("extend", extend, 0)
        self._enough = within("enough", enough, 0, math.nextafter(1, 2))
        self._waiting = rates
        self._ratios = (rates[0] / rates[1], rates[-1] / rates[-2])
        self.losses: dict[float, np.ndarray] = {}

    def next(self) -> float | None:
        """The rate to try next, or None when the search is over."""
        if self._waiting:
            return self._waiting[0]
        if self._left and (end := self._end()) is not None:
            self._left -= 1
            tried = sorted(self.losses)
            self._waiting.append(tried[end] * self._ratios[end])
            return self._waiting[0]
        return None

    def tell(self, lr: float, losses: Any) -> None:
        """Says how the training at a rate ended.

        Args:
            lr: what `next` gave.
            losses: final losses (S,), one a seed; inf or NaN for a diverged one.

        Raises:
            ValueError: `lr` is not the rate that was asked for, or there are no losses.
        """
        found = np.atleast_1d(np.asarray(losses, dtype=float))
        if not self._waiting or lr != self._waiting[0]:
            asked = self._waiting[0] if self._waiting else None
            raise ValueError(f"lr: got {lr!r}; the search waits for {asked!r}")
        if not found.size:
            raise ValueError("losses: got none; it takes one final loss a seed")
        self.losses[self._waiting.pop(0)] = found

    @property
    def means(self) -> Mapping[float, float]:
        """Rate -> mean final loss over the seeds that trained, rates rising; inf where too few did."""
        return {rate: self._mean(self.losses[rate]) for rate in sorted(self.losses)}

    def _mean(self, losses: np.ndarray) -> float:
        trained = losses[np.isfinite(losses)]
        return float(trained.mean()) if trained.size >= self._enough * losses.size else math.inf

    @property
    def best(self) -> float:
        """The rate with the lowest mean final loss so far; of equals the smallest.

        Raises:
            ValueError: no rate has been tried, or none trained enough seeds.
        """
        means = self.means
        if not means or not math.isfinite(min(means.values())):
            raise ValueError("best: no rate of the search trained enough seeds; begin with smaller ones")
        return min(means, key=lambda rate: means[rate])

    @property
    def at_end(self) -> bool:
        """Whether the best rate lies at an end of all that was tried, so that a better one may lie beyond."""
        return self._end() is not None

    def _end(self) -> int | None:
        """0 or -1 if the best rate is the smallest or the largest; the smallest side if none trained."""
        rates, means = sorted(self.losses), self.means
        if not rates:
            return None
        if not math.isfinite(min(means.values())) or self.best == rates[0]:
            return 0
        return -1 if self.best == rates[-1] else None
