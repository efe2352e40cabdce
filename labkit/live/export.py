"""Taking a run away: the figure, the frames, and the lines that repeat it."""

from __future__ import annotations

import csv
import io
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from labkit.protocol.experiment import Experiment, Lab, Run


def write_new(data: bytes, stem: str, ending: str, folder: Path | None = None) -> Path:
    """Writes ``data`` to the first free name of ``stem-01.ending``, ``stem-02.ending`` ... in ``folder``.

    All or nothing: the bytes go to a hidden file first, and no existing file is ever replaced.
    """
    folder = Path.cwd() if folder is None else folder
    stem = re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "labkit"
    handle, hidden = tempfile.mkstemp(prefix=f".{stem}-", suffix=".part", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(hidden, 0o644)
        for number in range(1, 10_000):
            target = folder / f"{stem}-{number:02d}.{ending}"
            try:
                _claim(hidden, target, data)
            except FileExistsError:
                continue
            return target
        raise FileExistsError(f"{folder} holds 9,999 files named {stem}; move some away.")
    finally:
        with suppress(FileNotFoundError):
            os.unlink(hidden)


def _claim(hidden: str, target: Path, data: bytes) -> None:
    """Gives the finished file its name, failing if the name is taken."""
    try:
        os.link(hidden, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        with open(target, "xb") as file:
            file.write(data)


def runs_csv(run: Run, previous: Sequence[Run] = ()) -> bytes:
    """All values of the runs that are drawn, one number a line: run, kind, step, name, seed, index, value.

    ``run`` is "now", or what sets an earlier run apart. A measured value has a step and a seed; its ``index``
    is empty for a number a seed, else the place in the array ("3", or "3;1" for a matrix). A predicted one
    has its whole place in ``index``.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["run", "kind", "step", "name", "seed", "index", "value"])
    named = [("now", run), *((old.settings.told_from(run.settings), old) for old in previous)]
    for told, one in named:
        for name, values in one.prediction.items():
            for place, value in np.ndenumerate(np.atleast_1d(values)):
                rows.writerow([told, "predicted", "", name, "", _index(place), repr(value.item())])
        for frame in one.frames:
            for name, values in frame.values.items():
                for place, value in np.ndenumerate(np.atleast_1d(values)):
                    number = repr(value.item())
                    rows.writerow([told, "measured", frame.step, name, place[0], _index(place[1:]), number])
    return text.getvalue().encode()


def _index(place: Sequence[int]) -> str:
    return ";".join(map(str, place))


def lab_name(experiment: Experiment, lab: Lab | str | int | None) -> str | None:
    """How the command line calls the lab of an experiment; None for one of the person's own."""
    if isinstance(lab, Lab):
        return str(lab.number)
    if lab is not None:
        return str(lab)
    found = re.match(r"labkit\.labs\.(\w+)", experiment.settings.__module__)
    return found.group(1) if found else None


def _base(experiment: Experiment, settings: Any) -> tuple[str, dict[str, Any]]:
    """The preset to start from and the changes to it: "quick", unless another one fits exactly."""
    for name, preset in experiment.presets.items():
        if settings == preset:
            return name, {}
    # What was typed is repeated even where it is the default: beside another data set that follows the data.
    return "quick", settings.changes_from(experiment.presets["quick"]) | dict(settings.typed)


def code_line(experiment: Experiment, settings: Any, lab: Lab | str | int | None = None) -> str:
    """One line of Python that repeats the run."""
    preset, changes = _base(experiment, settings)
    given = "".join(f", {name}={value!r}" for name, value in changes.items())
    where = lab_name(experiment, lab)
    if where is not None:
        found = f"load_lab({where!r}).experiment({experiment.name!r})"
        first = (
            f"from labkit.protocol.experiment import drain; from labkit.labs import load_lab; e = {found}; "
        )
    else:
        first = f"from labkit.protocol.experiment import drain; e = {_variable(experiment)}; "
    return f"{first}run = drain(e, e.preset({preset!r}{given}))"


def _variable(experiment: Experiment) -> str:
    """The name under which the person keeps an experiment of their own."""
    for module in ("__main__", experiment.settings.__module__):
        for name, value in list(
            vars(sys.modules.get(module, object())).items() if module in sys.modules else ()
        ):
            if value is experiment and not name.startswith("_"):
                return name
    return "experiment"


def command_line(experiment: Experiment, settings: Any, lab: Lab | str | int | None = None) -> str:
    """One command that repeats the run and judges its claims; empty for an experiment of no lab."""
    where = lab_name(experiment, lab)
    if where is None:
        return ""
    preset, changes = _base(experiment, settings)
    words = ["labkit", "run", where, "--experiment", experiment.name]
    if preset != "quick":
        words += ["--preset", preset]
    for name in ("seed", "device"):
        if name in changes:
            words += [f"--{name}", str(changes.pop(name))]
    if changes:
        words += ["--set", *(f"{name}={value}" for name, value in changes.items())]
    return shlex.join(words)
