"""The blocking form: the same run and the same picture, without a thread."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import numpy as np

from labkit.live import watch
from labkit.protocol.experiment import drain


def test_watching_gives_the_run_that_draining_gives(toy: Any) -> None:
    """Catches: a blocking form that drops frames when it draws."""
    settings = toy.TOY.preset("quick", steps=30, pause=0.0)
    before = {thread.name for thread in threading.enumerate()}
    seen = watch(toy.TOY, settings, every=0.01)
    assert np.array_equal(seen.series("fast")[1], drain(toy.TOY, settings).series("fast")[1])
    assert seen.status == "done" and {t.name for t in threading.enumerate()} <= before


def test_interrupting_keeps_what_was_measured(toy: Any) -> None:
    """Catches: the stop button of a notebook that throws the run away."""

    def run(setup: Any, prediction: Any) -> Any:
        for frame in toy.run(setup, prediction):
            if frame.step == 5:
                raise KeyboardInterrupt
            yield frame

    seen = watch(dataclasses.replace(toy.TOY, run=run), toy.TOY.preset("quick", pause=0.0))
    assert seen.status == "stopped" and len(seen.series("fast")[0]) == 5 and toy.LOG.open == 0
