"""The live picture without threads: the cell trains, and one output is brought up to date in place.

For Colab, which does not show what a thread sends, and for scripts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from labkit.protocol.experiment import Experiment, Frame, Run, experiment_mode

from .canvas import Canvas
from .glimpse import Glimpses
from .session import FRAME, SHARE


class _Output:
    """One place in a notebook's output; nothing at all outside IPython."""

    def __init__(self) -> None:
        try:
            from IPython import get_ipython
            from IPython.display import display
        except ImportError:
            self._display: Any = None
        else:
            self._display = display if get_ipython() is not None else None
        self._handle: Any = None

    def show(self, png: bytes) -> None:
        if self._display is None:
            return
        bundle = {"image/png": png, "text/plain": "<Chart>"}
        if self._handle is None:
            self._handle = self._display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


def watch(
    experiment: Experiment,
    settings: Any = None,
    *,
    previous: Sequence[Run] = (),
    width: int = 900,
    height: int | None = None,
    every: float = FRAME,
    **steps: Any,
) -> Run:
    """Runs an experiment to its end while its figure is drawn; interrupting keeps what was measured.

    Args:
        experiment: what to run.
        settings: its settings; the quick preset when left out.
        previous: earlier runs to draw in grey.
        width, height: size of the figure in pixels.
        every: seconds between two pictures, at least.
        **steps: functions passed on to the experiment's ``run``.

    Returns:
        Run: the frames that came, the prediction and the settings.
    """
    settings = experiment.presets["quick"] if settings is None else settings
    canvas, output = Canvas(width, height), _Output()
    begun = time.perf_counter()
    kept: list[Frame] = []
    with experiment_mode():
        setup = experiment.prepare(settings)
        prediction = experiment.predict(setup)

    def show(*more: Frame) -> None:
        output.show(canvas.frame(experiment.draw((*kept, *more), prediction, previous, settings)))

    show()
    drawn, step, glimpses = time.perf_counter(), 0, Glimpses(SHARE)
    frames = experiment.frames(settings, setup, prediction, **steps)
    try:
        with experiment_mode():
            for frame in frames:
                step = frame.step
                if not frame.is_tick:
                    kept.append(frame)
                    glimpses.clear()
                if time.perf_counter() - drawn >= every:
                    glimpses.look(frame)
                    show(*glimpses.newest)
                    drawn = time.perf_counter()
    except KeyboardInterrupt:
        kept.append(Frame(step, status="stopped"))
    finally:
        frames.close()
    show()
    return Run(experiment, settings, prediction, tuple(kept), time.perf_counter() - begun)
