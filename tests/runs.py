"""One run of an experiment serves all tests of a session, whichever process or notebook they are in."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from pathlib import Path
from typing import Any

from filelock import FileLock

from labkit.protocol import experiment as protocol
from labkit.protocol.experiment import Experiment, Run, drain


def shared_run(experiment: Experiment, settings: Any = None) -> Run:
    """The run of an experiment, at the quick preset when settings are left out; the first who asks makes it.

    The root conftest.py names a folder that lives as long as the session; without it, the run is made here.
    """
    settings = experiment.presets["quick"] if settings is None else settings
    folder = os.environ.get("LABKIT_TEST_RUNS")
    if folder is None:
        return drain(experiment, settings)
    key = hashlib.sha256(f"{experiment.home} {experiment.name} {settings!r}".encode()).hexdigest()[:16]
    path = Path(folder) / f"{experiment.name}-{key}"
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            run = drain(experiment, settings)
            path.write_bytes(pickle.dumps((dict(run.prediction), run.frames, run.seconds)))
        return Run(experiment, settings, *pickle.loads(path.read_bytes()))


def share_in_this_notebook() -> None:
    """Has a kernel take part, wherever a cell runs an experiment as it is, and not with steps of its own."""

    def shared_drain(experiment: Experiment, settings: Any = None, **more: Any) -> Run:
        lab = getattr(sys.modules.get(experiment.home), "LAB", None)
        as_it_is = lab is not None and any(experiment is one for one in lab.experiments) and not more
        return shared_run(experiment, settings) if as_it_is else drain(experiment, settings, **more)

    protocol.drain = shared_drain
