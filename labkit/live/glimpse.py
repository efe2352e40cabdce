"""What a tick has to show, looked at for half a second at most: Stop must be answered meanwhile."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from labkit.protocol.experiment import Frame
from labkit.protocol.memory import remembering

LONGEST = 0.5  # seconds


def glimpse(frame: Frame) -> tuple[Frame, ...]:
    """What is to be drawn until the next frame.

    Args:
        frame: as a run yields it.

    Returns:
        A frame, or none: where a tick shows nothing, or nothing that can be measured yet and in time.
    """
    found = None
    if frame.showing is not None:
        with (
            suppress(ValueError, ArithmeticError, RuntimeError, TimeoutError),
            remembering(None),
            _at_most(LONGEST),
        ):
            found = frame.showing()
    return () if found is None else (Frame(frame.step, found),)


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raises TimeoutError where this thread calls a function of ours later than that.

    Not within other packages: an import that is broken off would leave them in pieces.
    """
    end, before = time.perf_counter() + seconds, sys.getprofile()

    def look(frame: FrameType, event: str, _: Any) -> None:
        name = str(frame.f_globals.get("__name__"))
        ours = event == "call" and name.startswith("labkit.") and name != __name__
        if ours and time.perf_counter() > end:
            raise TimeoutError

    sys.setprofile(look)
    try:
        yield
    finally:
        sys.setprofile(before)
