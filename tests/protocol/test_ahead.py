"""Runs begun before they are asked for: the same numbers, once, and errors told to who asks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from labkit import ahead, drain
from labkit.protocol.ahead import Ahead
from labkit.protocol.experiment import Experiment, Frame
from tests.tinylab import DECAY


@pytest.fixture
def made() -> Iterator[tuple[Experiment, list[str]]]:
    """An experiment, and the threads in which its runs were made."""
    threads: list[str] = []

    def run(setup: Any, prediction: Any, *, see: Any = None) -> Iterator[Frame]:
        threads.append(threading.current_thread().name)
        yield from DECAY.run(setup, prediction)

    yield replace(DECAY, run=run), threads


def test_a_run_begun_ahead_is_the_run_that_is_asked_for_and_is_made_once(
    made: tuple[Experiment, list[str]],
) -> None:
    """Other numbers from another thread; or a training that is paid for twice."""
    experiment, threads = made
    ahead(experiment, settings=experiment.preset(seeds=4))
    while not threads:
        threading.Event().wait(0.001)
    early = drain(experiment, experiment.preset(seeds=4))
    assert threads == ["labkit-ahead"]
    late = drain(experiment, experiment.preset(seeds=4))
    assert threads[1:] == ["MainThread"], "a cell that is run again must train again"
    np.testing.assert_array_equal(early.series("loss")[1], late.series("loss")[1])
    assert early.settings == late.settings and early.experiment is experiment


def test_another_step_or_setting_is_another_run(made: tuple[Experiment, list[str]]) -> None:
    """A student who rewrites the step would be shown what the old one gave."""
    experiment, threads = made
    ahead(experiment, see=len)
    drain(experiment, see=max)
    drain(experiment, experiment.preset(seeds=2), see=len)
    assert threads.count("MainThread") == 2
    drain(experiment, see=len)


def test_what_waits_behind_another_is_made_by_who_asks() -> None:
    """A cell that waits for its turn while its core is idle."""
    coming, begun, gate = Ahead[str](), threading.Event(), threading.Event()

    def first() -> str:
        begun.set()
        return "first" if gate.wait(10) else "late"

    coming.begin(1, first)
    coming.begin(2, lambda: "second")
    assert begun.wait(10) and coming.taken(2) is None and coming.taken(3) is None
    gate.set()
    assert coming.taken(1) == "first" and coming.taken(1) is None


def test_an_error_is_told_to_who_asks_and_ends_nothing_else() -> None:
    """A broken step far below, told in the cell that began it or in none."""
    coming, begun = Ahead[str](), threading.Event()

    def broken() -> str:
        begun.set()
        raise ValueError("distance: a tensor")

    coming.begin(1, broken)
    assert begun.wait(10)
    with pytest.raises(ValueError, match="distance: a tensor"):
        coming.taken(1)
    begun.clear()
    coming.begin(2, broken)
    assert begun.wait(10)


def test_without_threads_whoever_asks_makes_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A submission that fails since the grader gives it one thread."""

    def refused(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    coming = Ahead[str]()
    with monkeypatch.context() as limits:
        limits.setattr(threading.Thread, "start", refused)
        coming.begin(1, lambda: "ahead")
    assert coming.taken(1) is None
