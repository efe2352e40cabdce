"""What ticks have to show: seldom, and not for long, as Stop must be answered and the run go on."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from labkit.protocol.experiment import Frame
from labkit.protocol.memory import remembering

LONGEST = 0.5  # seconds of a look, but for what other packages do in it


class _Late(BaseException):
    """No Exception: measures fall back on slower ways after one."""


class Glimpses:
    """Of one run.

    Args:
        share: of the time that may go into them.

    Attributes:
        newest: what is to be drawn behind the frames so far: one frame, or none.
    """

    def __init__(self, share: float) -> None:
        self.newest: tuple[Frame, ...] = ()
        self._share, self._rested = share, 0.0

    def clear(self) -> None:
        """A frame has come that is kept."""
        self.newest = ()

    def look(self, tick: Frame) -> bool:
        """Looks at what a tick shows, if that is due; says whether there is something new."""
        begun = time.perf_counter()
        if tick.showing is None or begun < self._rested:
            return False
        found = glimpse(tick)
        self.newest = found or self.newest
        self._rested = begun + min(time.perf_counter() - begun, LONGEST) / self._share
        return bool(found)


def glimpse(tick: Frame) -> tuple[Frame, ...]:
    """What is to be drawn until the next frame.

    Args:
        tick: as a run yields it.

    Returns:
        A frame, or none: where a tick shows nothing, or nothing that can be measured yet and in time.
    """
    found = None
    if tick.showing is not None:
        with suppress(ValueError, ArithmeticError, RuntimeError, _Late), remembering(None), _at_most(LONGEST):
            found = tick.showing()
    return () if found is None else (Frame(tick.step, found),)


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Ends it where this thread calls a function of ours later than that.

    Not within other packages: an import that is broken off would leave them in pieces.
    """
    end, before = time.perf_counter() + seconds, sys.getprofile()

    def look(frame: FrameType, event: str, _: Any) -> None:
        name = str(frame.f_globals.get("__name__"))
        ours = event == "call" and name.startswith("labkit.") and name != __name__
        if ours and time.perf_counter() > end:
            raise _Late

    sys.setprofile(look)
    try:
        yield
    finally:
        sys.setprofile(before)
