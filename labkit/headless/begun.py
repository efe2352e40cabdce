"""What a preset costs, by its own beginning; by smaller runs where that says nothing.

The run is begun and watched: what it takes until its prediction stands, how soon its progress moves, the most
memory until then. Trainings that may end by their loss are taken to end after the same share of their longest
as those of the quick preset, which is run to its end; what it takes if none of them ends early is told, too.
Progress is not time: without such trainings, where the quick preset takes half of what its own beginning lets
one expect, so does this. The run is begun again to count operations.

A run that shows no progress in two minutes, or does not fit into the memory that is free, is priced
by smaller ones (`labkit.headless.price`).
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from labkit.headless.memory import Watched, within_memory
from labkit.headless.price import LEAST_SECONDS, LOOK, Price, Trial, counter, price, tried
from labkit.protocol import lengths
from labkit.protocol.experiment import Experiment, experiment_mode
from labkit.protocol.lengths import Lengths

LONGER = 30.0  # seconds of a run that moves
PATIENCE = 120  # until it has moved for so long


def price_of_beginning(experiment: Experiment, settings: Any, above: Sequence[str]) -> Price | None:
    """What a run takes, by its first seconds.

    Args:
        experiment: that would be run.
        settings: at which.
        above: the settings that are larger than the quick preset's.

    Returns:
        Price, or None where neither the run nor smaller ones can be begun.
    """
    base, late = Watched.now(settings.device), False
    with Watched(settings.device) as memory:
        try:
            return _by_beginning(experiment, settings)
        except Exception as problem:  # too large, too slow, or broken: the run itself will say
            late = isinstance(problem, TimeoutError)
    found = price(experiment, settings, above, operations=True)
    # What two minutes took is more than a guess, and small runs take other ways.
    return replace(found, bytes=memory.peak - base) if found and late else found


def _by_beginning(experiment: Experiment, settings: Any) -> Price:
    base, counted, device = Watched.now(settings.device), None, settings.device
    quick = experiment.presets["quick"].replace(device=device)
    with experiment_mode(), within_memory(device), lengths.counted() as trainings:
        tried(experiment, quick)  # which reads data, and much besides
        ends = 1.0 if settings == quick else _ends(tried(experiment, quick, look=math.inf), trainings)
        with _at_most(PATIENCE, device), lengths.counted() as own:
            run = tried(experiment, settings, look=math.inf if settings == quick else LONGER)
        with suppress(Exception), _at_most(2 * PATIENCE, device):
            counted = tried(experiment, settings, counter())
    # One that has seen trainings end knows by itself how early they do.
    seconds = max(run.whole * (1.0 if own.longest or run.shares[-1] == 1 else ends), LEAST_SECONDS)
    longest = run.before + run.whole if trainings.longest and not own.longest else None
    operations = None
    if counted and counted.before + counted.seconds[-1]:  # none where others work than torch, as NumPy
        share = min(run.shares[-1], counted.shares[-1])
        operations = counted.before + seconds * counted.until(share) / run.until(share)
    return Price(run.before + seconds, max(run.peak - base, 0), operations, longest)


def _ends(quick: Trial, trainings: Lengths) -> float:
    """The share of its longest after which a run ends, or of what its beginning lets one expect."""
    if trainings.longest:
        return trainings.taken / trainings.longest
    return float((quick.before + quick.seconds[-1]) / (quick.before + quick.looked(LOOK).whole))


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
