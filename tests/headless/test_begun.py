"""The price of a preset by its own beginning."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from labkit.headless import begun
from labkit.headless.price import LEAST_SECONDS, Price, Trial, tried
from labkit.protocol import lengths
from labkit.protocol.experiment import Frame
from tests.tinylab import DECAY

SMALLER = Price(7.0, 8.0, 9.0)  # by smaller runs
QUICK, PAPER = DECAY.presets["quick"], DECAY.presets["paper"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was run by smaller ones."""
    made: list[Any] = []
    monkeypatch.setattr(begun, "price", lambda *asked, **_: made.append(asked) or SMALLER)
    monkeypatch.setattr(begun.Watched, "now", staticmethod(lambda device: 100))
    return made


def test_the_rest_goes_on_as_it_moved_and_ends_as_the_quick_one(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at the whole training set before the first step, carried on: years for days."""

    def tried(experiment: Any, settings: Any, counter: Any = None, **_: Any) -> Trial:
        if settings == QUICK:  # expected 2 + 38 s, and takes 20
            return Trial(2.0, np.array([0.0, 9.5, 11.4, 18.0]), np.array([0.0, 0.25, 0.3, 1.0]), 150)
        if counter is not None:
            return Trial(50.0, np.array([0.0, 1e3, 3e3]), np.array([0.0, 0.001, 0.003]), 150)
        return Trial(3.0, np.array([0.0, 30.0, 34.0]), np.array([0.0, 0.001, 0.003]), 400)

    monkeypatch.setattr(begun, "tried", tried)
    found = begun.price_of_beginning(DECAY, PAPER, ("width",))
    assert found is not None and found.bytes == 300 and not asked
    assert found.seconds == pytest.approx(3 + (30 + 2000 * 0.999) / 2)
    assert found.flops == pytest.approx(50 + (found.seconds - 3) * 3e3 / 34)


@pytest.mark.parametrize("longest", [100, 400])
def test_trainings_end_after_the_share_of_their_longest_that_the_quick_ones_took(
    longest: int, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress by the logarithm of a loss, carried on: minutes for days."""

    def run(setup: Any, prediction: Any) -> Iterator[Frame]:
        ends = longest // 4 if setup == QUICK else longest
        for step in range(ends):
            sum(range(20_000))
            yield Frame.tick(step, lengths.shown((step / longest) ** 0.5, step / longest))
        lengths.ended(ends, longest)
        yield Frame(ends, {}, 1.0, "done")

    experiment = replace(DECAY, prepare=lambda settings: settings, predict=lambda setup: {}, run=run)
    monkeypatch.setattr(begun, "tried", lambda *asked, **how: seen.append(tried(*asked, **how)) or seen[-1])
    monkeypatch.setattr(begun, "LONGER", 0.0)
    seen: list[Trial] = []
    found = begun.price_of_beginning(experiment, PAPER, ())
    begun_run = seen[2]
    assert begun_run.shares[-1] < 1 and found is not None
    assert found.seconds == pytest.approx(begun_run.before + max(begun_run.whole / 4, LEAST_SECONDS))
    assert found.longest == pytest.approx(begun_run.before + begun_run.whole) and found.flops is None


def test_a_run_that_has_seen_trainings_end_is_not_told_so_twice(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first training had jumped to its end, and the rest was shortened as well: seconds for minutes."""

    def run(setup: Any, prediction: Any) -> Iterator[Frame]:
        for step in range(10 if setup == QUICK else 100_000):
            sum(range(10_000))
            lengths.ended(1, 10)
            yield Frame.tick(step, step / (10 if setup == QUICK else 100_000))

    experiment = replace(DECAY, prepare=lambda settings: settings, predict=lambda setup: {}, run=run)
    monkeypatch.setattr(begun, "tried", lambda *asked, **how: seen.append(tried(*asked, **how)) or seen[-1])
    monkeypatch.setattr(begun, "LONGER", 0.2)
    seen: list[Trial] = []
    found = begun.price_of_beginning(experiment, PAPER, ())
    assert found is not None and found.longest is None and not asked
    assert found.seconds == pytest.approx(seen[2].before + seen[2].whole)


def test_the_quick_preset_is_run_to_its_end(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of half a minute priced at two."""

    def run(setup: Any, prediction: Any) -> Iterator[Frame]:
        for step in range(100):
            sum(range(300_000 if step < 50 else 3000))
            yield Frame.tick(step, step / 100)
        yield Frame(100, {}, 1.0, "done")

    experiment = replace(DECAY, prepare=lambda settings: settings, predict=lambda setup: {}, run=run)
    monkeypatch.setattr(begun, "tried", lambda *asked, **how: seen.append(tried(*asked, **how)) or seen[-1])
    monkeypatch.setattr(begun, "LONGER", 0.0)
    seen: list[Trial] = []
    found = begun.price_of_beginning(experiment, QUICK, ())
    assert found is not None and not asked
    assert seen[1].shares[-1] == 1.0
    assert found.seconds == pytest.approx(seen[1].before + seen[1].seconds[-1])


def test_a_run_whose_progress_jumps_is_not_judged_by_a_stretch_without_a_jump() -> None:
    """Two hours for five minutes: after 2 % in a moment, what the next .05 % took."""
    jumps = Trial(0.0, np.array([0.0, 0.1, 2.6]), np.array([0.0, 0.02, 0.0205]), 0)
    assert jumps.whole == pytest.approx(2.6 / 0.0205)
    with pytest.raises(ValueError, match="no progress"):
        _ = Trial(0.0, np.array([0.0]), np.array([0.0]), 0).whole


@pytest.mark.parametrize("problem", [MemoryError(), RuntimeError("not at this width"), None])
def test_a_run_that_cannot_be_begun_is_priced_by_smaller_ones(
    problem: Exception | None, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No price for what needs one most; or half an hour without a word."""

    def run(setup: Any, prediction: Any) -> Iterator[Frame]:
        if setup == PAPER and problem:
            raise problem
        while setup == PAPER:
            sum(range(1000))
        yield Frame.tick(1, 1.0)

    monkeypatch.setattr(begun, "PATIENCE", 1)
    experiment = replace(DECAY, prepare=lambda settings: settings, predict=lambda setup: {}, run=run)
    found = begun.price_of_beginning(experiment, PAPER, ("width",))
    # What is too slow has shown its memory: 788 GiB for 14, by small runs.
    assert found == (SMALLER if problem else replace(SMALLER, bytes=0))
    assert [settings for _, settings, _ in asked] == [PAPER]


def test_what_cannot_be_counted_is_priced_without(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """An operation that torch has no formula for takes the time's price with it."""

    def tried(experiment: Any, settings: Any, counter: Any = None, **_: Any) -> Trial:
        if counter is not None:
            raise RuntimeError("no formula")
        return Trial(1.0, np.array([0.0, 19.0]), np.array([0.0, 1.0]), 150)

    monkeypatch.setattr(begun, "tried", tried)
    assert begun.price_of_beginning(DECAY, PAPER, ()) == Price(20.0, 50) and not asked
