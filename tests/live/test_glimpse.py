"""What a tick shows: looked at for a moment, in which nothing may be lost."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from labkit.live import glimpse as module
from labkit.live.glimpse import glimpse
from labkit.protocol.experiment import Frame
from labkit.protocol.memory import Memory, active, remembering
from labkit.protocol.statistics import exponent

X = np.array([1.0, 2.0, 4.0])


def test_what_takes_too_long_is_left() -> None:
    """Catches: Stop that waits for the measures of a large network; a profiler that is never put back."""
    calls = []

    def forever() -> Any:
        while True:
            with suppress(Exception):  # as a measure that has a slower way
                calls.append(exponent(X, X[None]))

    def profiler(*_: Any) -> None:
        pass

    sys.setprofile(profiler)
    try:
        assert glimpse(Frame.tick(3, 0.1, forever)) == () and len(calls) > 10
        assert sys.getprofile() is profiler
    finally:
        sys.setprofile(None)


def test_the_functions_of_others_are_not_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches: an import of SciPy that ends in its middle, and an error at the next one."""
    monkeypatch.setattr(module, "LONGEST", -1.0)
    assert glimpse(Frame.tick(3, 0.1, lambda: {"x": np.sort(X[::-1])}))[0].values["x"].tolist() == X.tolist()
    assert glimpse(Frame.tick(3, 0.1, lambda: {"x": exponent(X, X[None])})) == ()


@pytest.mark.parametrize("problem", [ValueError, ZeroDivisionError, np.linalg.LinAlgError])
def test_what_cannot_be_measured_yet_is_not_shown(problem: type[Exception]) -> None:
    """Catches: a run that fails because its first networks are too bad for a measure."""

    def refused() -> Any:
        raise problem

    assert glimpse(Frame.tick(3, 0.1, refused)) == ()
    assert glimpse(Frame.tick(3, 0.1)) == ()


def test_nothing_of_it_is_remembered() -> None:
    """Catches: measures of half-trained networks that take the room of those that a slider needs."""
    with remembering(Memory()):
        (shown,) = glimpse(Frame.tick(3, 0.1, lambda: {"none": np.array(active() is None)}))
        assert active() is not None
    assert shown.values["none"] and shown.step == 3 and shown.status == "running"
