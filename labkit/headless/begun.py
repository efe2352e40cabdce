"""What a preset costs, by its own beginning; by smaller runs where that says nothing.

The run is begun and watched: what it takes until its prediction stands, how soon its progress moves, the most
memory until then. Progress is not time, and a training may end by its loss: where the quick preset takes half
of what its own beginning lets one expect, so does this. It is begun again to count operations.

A run that shows no progress in a minute and a half, or does not fit into the memory that is free, is priced
by smaller ones (`labkit.headless.price`).
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from labkit.headless.memory import Watched, within_memory
from labkit.headless.price import LEAST_SECONDS, LOOK, Price, counter, price, tried
from labkit.protocol.experiment import Experiment, experiment_mode
from labkit.protocol.replication import seconds_of

LONGER = 5 * LOOK  # seconds of a run that moves
PATIENCE = 90  # until it has moved for so long


def price_of_beginning(experiment: Experiment, settings: Any, above: Sequence[str]) -> Price | None:
    """What a run takes, by its first seconds.

    Args:
        experiment: that would be run.
        settings: at which.
        above: the settings that are larger than the quick preset's.

    Returns:
        Price, or None where neither the run nor smaller ones can be begun.
    """
    try:
        return _by_beginning(experiment, settings)
    except Exception:  # too large, too slow, or broken: the run itself will say
        return price(experiment, settings, above, operations=True)


def _by_beginning(experiment: Experiment, settings: Any) -> Price:
    base, counted = Watched.now(settings.device), None
    quick = experiment.presets["quick"].replace(device=settings.device)
    with experiment_mode(), within_memory(settings.device):
        for _ in range(2):  # the first reads data, and much besides
            usual = tried(experiment, quick)
        expected = usual.before + usual.whole
        ends = (seconds_of(experiment) or expected) / expected
        with _at_most(PATIENCE, settings.device):
            run = tried(experiment, settings, look=LONGER)
        with suppress(Exception), _at_most(2 * PATIENCE, settings.device):
            counted = tried(experiment, settings, counter())
    seconds, operations = max(run.whole * ends, LEAST_SECONDS), None
    if counted:
        share = min(run.shares[-1], counted.shares[-1])
        operations = counted.before + seconds * counted.until(share) / run.until(share)
    return Price(run.before + seconds, max(run.peak - base, 0), operations)


@contextmanager
def _at_most(seconds: int, device: str) -> Iterator[None]:
    """Raises TimeoutError where it takes longer, on the CPU by its own processor time; not on Windows."""

    def late(*_: Any) -> None:
        raise TimeoutError

    if not hasattr(signal, "setitimer"):
        yield
        return
    clock, name = (
        (signal.ITIMER_PROF, signal.SIGPROF) if device == "cpu" else (signal.ITIMER_REAL, signal.SIGALRM)
    )
    before = signal.signal(name, late)
    signal.setitimer(clock, seconds)
    try:
        yield
    finally:
        signal.setitimer(clock, 0)
        signal.signal(name, before)
