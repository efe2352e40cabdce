"""Learning-rate schedules: a factor on the base rate, by step."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping

Schedule = Callable[[int], float] | Mapping[int, float] | None
"""A function of the step, or {start: factor on the base rate}, or None for a constant rate."""


def factor_by_step(schedule: Schedule, steps_per_unit: int) -> Callable[[int], float] | None:
    """A schedule as a function of the step.

    Args:
        schedule: a function step -> factor; or {start: factor}, where each factor multiplies the *base* rate
            from its start on. {260: 0.1, 360: 0.01} divides by 10 twice.
        steps_per_unit: steps in one unit of `start` (an epoch, or 1 when training counts steps).

    Returns:
        step -> factor, or None for a constant rate.

    Raises:
        ValueError: a start is not a whole number >= 0, or a factor is negative or not finite.
    """
    if schedule is None:
        return None
    if callable(schedule):
        return schedule
    for start, factor in schedule.items():
        if not isinstance(start, int) or start < 0:
            raise ValueError(
                f"schedule: start {start!r}; it takes whole numbers of steps or epochs from 0 on"
            )
        if not 0 <= factor < math.inf:
            raise ValueError(
                f"schedule: factor {factor!r} at {start}; it takes factors on the base rate, such as 0.1"
            )
    starts = sorted(schedule)
    factors = [1.0, *(schedule[start] for start in starts)]
    return lambda step: factors[bisect.bisect_right(starts, step // steps_per_unit)]
