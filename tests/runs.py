"""One run of an experiment serves all tests of a session, whichever process or notebook they are in."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from labkit.protocol import experiment as protocol
from labkit.protocol.experiment import Experiment, Run, drain


def shared_run(experiment: Experiment, settings: Any = None) -> Run:
    """The run of an experiment, at the quick preset when settings are left out; the first who asks makes it.

    The root conftest.py names a folder that lives as long as the session; without it, the run is made here.
    """
    return _made_once(experiment, settings, lambda asked: drain(experiment, asked))


def _made_once(experiment: Experiment, settings: Any, make: Callable[[Any], Run], anew: bool = False) -> Run:
    """`anew`: what others made is of no use to the caller; what he makes is to them."""
    settings = experiment.presets["quick"] if settings is None else settings
    folder = os.environ.get("LABKIT_TEST_RUNS")
    if folder is None:
        return make(settings)
    key = hashlib.sha256(f"{experiment.home} {experiment.name} {settings!r}".encode()).hexdigest()[:16]
    path = Path(folder) / f"{experiment.name}-{key}"
    with FileLock(path.with_suffix(".lock")):
        if anew or not path.exists():
            run = make(settings)
            path.write_bytes(pickle.dumps((dict(run.prediction), run.frames, run.seconds)))
        return Run(experiment, settings, *pickle.loads(path.read_bytes()))


def share_in_this_notebook() -> None:
    """Has a kernel take part, wherever a cell runs an experiment as it is.

    Where it hands in a step that the text spells out, the cell runs it itself: that step is what is to be
    seen. But it is the lab's own step, so the run serves the tests of the lab as well.
    """

    def shared_drain(experiment: Experiment, settings: Any = None, **more: Any) -> Run:
        lab = getattr(sys.modules.get(experiment.home), "LAB", None)
        if lab is None or not any(experiment is one for one in lab.experiments) or "progress" in more:
            return drain(experiment, settings, **more)
        return _made_once(
            experiment, settings, lambda asked: drain(experiment, asked, **more), anew=bool(more)
        )

    protocol.drain = shared_drain
    protocol.ahead = lambda *experiments, **more: None  # of what others made it would be the second run
