"""How long trainings are that may end before their longest, for whoever prices a run by its beginning.

Such a training shows its progress by its loss, which tells a person more, but does not go with time. While
somebody counts, it shows the share of its longest; and what it took of that is noted when it has ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class Lengths:
    """Of all trainings that may end early and have ended.

    Attributes:
        taken: their steps.
        longest: the steps that they might have taken.
    """

    taken: int = 0
    longest: int = 0


_COUNTED: ContextVar[Lengths | None] = ContextVar("lengths", default=None)


@contextmanager
def counted() -> Iterator[Lengths]:
    """Counts the trainings that end meanwhile.

    Yields:
        Lengths, which grow.
    """
    found = Lengths()
    before = _COUNTED.set(found)
    try:
        yield found
    finally:
        _COUNTED.reset(before)


def ended(taken: int, longest: int) -> None:
    """Notes a training that might have taken `longest` steps.

    Args:
        taken: its steps.
        longest: of which there might have been so many.
    """
    found = _COUNTED.get()
    if found is not None:
        found.taken, found.longest = found.taken + taken, found.longest + longest


def shown(by_loss: float, by_steps: float) -> float:
    """The progress of a training that may end early.

    Args:
        by_loss: how far its loss has come, from 0 to 1.
        by_steps: the share of its longest.

    Returns:
        The larger one; the second while somebody counts.
    """
    return max(by_loss, by_steps) if _COUNTED.get() is None else by_steps
