"""The learning-rate search: which rate it takes, where it looks on, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.training.search import LearningRateSearch


def searched(loss: Callable[[float], object], **arguments: object) -> LearningRateSearch:
    search = LearningRateSearch(**{"grid": [0.01, 0.03, 0.1], **arguments})  # type: ignore[arg-type]
    while (lr := search.next()) is not None:
        search.tell(lr, loss(lr))
    return search


def bowl(best: float) -> Callable[[float], list[float]]:
    return lambda lr: [abs(math.log(lr / best)), abs(math.log(lr / best)) + 0.1]


@given(st.floats(-6, 1), st.integers(0, 6))
def test_the_best_rate_is_inside_or_the_search_says_so(exponent: float, extend: int) -> None:
    """Catches: a best rate at an end of the grid that passes for a minimum."""
    search = searched(bowl(10.0**exponent), extend=extend)
    tried = sorted(search.losses)
    assert search.at_end == (search.best in (tried[0], tried[-1]))
    assert len(tried) <= 3 + extend
    assert not search.at_end or len(tried) == 3 + extend  # it stops early only when it has found it
    assert search.means[search.best] == min(search.means.values())


def test_it_goes_on_beyond_an_end_by_the_last_ratio() -> None:
    """Catches: rates added at the wrong end, or by the ratio of the other end."""
    assert sorted(searched(bowl(1.0)).losses) == pytest.approx([0.01, 0.03, 0.1, 1 / 3, 10 / 9, 100 / 27])
    assert sorted(searched(bowl(0.004)).losses) == pytest.approx([0.01 / 9, 0.01 / 3, 0.01, 0.03, 0.1])
    assert searched(bowl(0.03)).best == 0.03


def test_a_rate_at_which_seeds_diverge_does_not_count() -> None:
    """Catches: the edge of stability chosen because the one seed that survived is far down."""
    ends = {0.01: [2.0] * 5, 0.03: [1.0, 1.0, 1.0, 1.0, math.inf], 0.1: [0.1, 0.1, 0.1, math.inf, math.nan]}
    search = searched(ends.__getitem__, extend=0)
    assert search.best == 0.03 and search.means[0.1] == math.inf
    assert searched(ends.__getitem__, extend=0, enough=1.0).best == 0.01
    assert searched(ends.__getitem__, extend=0, enough=0.6).best == 0.1


def test_a_search_in_which_nothing_trains_looks_at_smaller_rates_and_says_so() -> None:
    """Catches: a search that ends with a rate of infinite loss."""
    search = searched(lambda lr: [math.inf], extend=2)
    assert min(search.losses) == pytest.approx(0.01 / 9)
    assert search.at_end
    with pytest.raises(ValueError, match="no rate of the search trained enough seeds"):
        _ = search.best


def test_bad_input_is_named() -> None:
    """Catches: a grid that cannot be searched, and losses told for another rate."""
    for grid in ([0.1], [0.1, 0.1], [0.1, -1.0], [0.1, math.inf]):
        with pytest.raises(ValueError, match="grid"):
            LearningRateSearch(grid)
    with pytest.raises(ValueError, match="extend"):
        LearningRateSearch([0.1, 1], extend=-1)
    with pytest.raises(ValueError, match="enough"):
        LearningRateSearch([0.1, 1], enough=1.2)
    search = LearningRateSearch([1.0, 0.1])
    assert search.next() == 0.1 and not search.at_end
    with pytest.raises(ValueError, match="the search waits for 0.1"):
        search.tell(1.0, [0.0])
    with pytest.raises(ValueError, match="losses"):
        search.tell(0.1, np.zeros(0))
