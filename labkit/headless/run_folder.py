"""A run in a folder, which goes on where it was when its process ended, whatever ended it.

    run.json              what is run: lab, settings and versions; another run is refused
    log.txt               when which experiment began, went on and ended
    EXPERIMENT/           one an experiment
        trainings/        what each training has shown, and where it stands (`labkit.training.kept`)
        seconds           that it has taken before, rewritten while it runs
        page.html         the figure and verdicts so far, rewritten while it runs
        frames.npz        all frames, once it has ended; the trainings are gone then
    page.html, result.json    all experiments, once the command has ended, by its end or by Ctrl-C

What lies between trainings is computed again from the same weights, to the same bits on a CPU.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from labkit.headless.versions import versions
from labkit.protocol.experiment import Experiment, Frame, Prediction, Run, drain
from labkit.protocol.files import read_frames, write_frames, written
from labkit.protocol.memory import Memory, remembering

STAND, PAGE = 30.0, 60.0  # seconds between two moments from which a run can go on, and between two pages


@contextmanager
def opened(path: Path, facts: Mapping[str, Any]) -> Iterator[None]:
    """Holds a folder for one process and one run.

    Args:
        path: of the folder; made where it is not there.
        facts: name -> JSON value, all that decides what comes out; versions are added.

    Returns:
        A context manager, which holds the folder until its end.

    Raises:
        ValueError: another process is at work there, or it holds another run, or other files.
        OSError: it cannot be written.
    """
    path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"--folder: another process is at work in {path}; wait for it, or end it") from None
    try:
        _check(path, {**facts, **versions()})
        yield
    finally:
        lock.release()


def _check(path: Path, facts: Mapping[str, Any]) -> None:
    file = path / "run.json"
    if not file.exists():
        if strange := [one.name for one in path.iterdir() if one.name != ".lock"]:
            raise ValueError(f"--folder: {path} holds {strange[0]}, and no run; name a new or empty folder")
        with written(file) as out:
            out.write(json.dumps(facts, indent=2, ensure_ascii=False).encode())
        return
    before = json.loads(file.read_text(encoding="utf-8"))
    if other := sorted(name for name in {*before, *facts} if before.get(name) != facts.get(name)):
        told = "; ".join(f"{name} {before.get(name)} there, {facts.get(name)} here" for name in other[:3])
        raise ValueError(f"--folder: {path} holds another run: {told}. Name another folder")


def _seconds(folder: Path) -> float:
    """What this experiment took in processes that ended, but for the last moments of each."""
    file = folder / "seconds"
    return float(file.read_text()) if file.exists() else 0.0


@dataclass(frozen=True)
class Place:
    """Where one experiment of a run is kept.

    Attributes:
        root: the folder of the run.
        page: makes the page of a run so far from it and its figure, as HTML; None: no pages.
    """

    root: Path
    page: Callable[[Run, str], str] | None = None

    def drained(self, experiment: Experiment, settings: Any, progress: Callable[[Frame], None] | None) -> Run:
        """`drain`, from where it stood.

        Args:
            experiment, settings, progress: as `drain` takes them.

        Raises:
            OSError: the folder cannot be written. What is in it stays good.
        """
        folder = self.root / experiment.name
        kept = folder / "frames.npz"
        if kept.exists():
            frames, seconds = read_frames(kept)
            prediction = experiment.predict(experiment.prepare(settings))
            return Run(experiment, settings, prediction, frames, seconds)
        folder.mkdir(exist_ok=True)
        self._log(f"{experiment.name}: {'goes on' if (folder / 'trainings').exists() else 'begins'}")
        before = _seconds(folder)
        with remembering(Memory(0, folder / "trainings", STAND)):
            watch = self._watch(experiment, settings, folder, before, progress)
            run = drain(experiment, settings, progress=watch)
        run = replace(run, seconds=before + run.seconds)
        write_frames(kept, run.frames, run.seconds)
        self._write_page(folder, run)
        shutil.rmtree(folder / "trainings", ignore_errors=True)
        (folder / "seconds").unlink(missing_ok=True)
        self._log(f"{experiment.name}: {run.status} at step {run.frames[-1].step}, {run.seconds:.0f} s")
        return run

    def _watch(
        self, experiment: Experiment, settings: Any, folder: Path, before: float,
        progress: Callable[[Frame], None] | None,
    ) -> Callable[[Frame], None]:  # fmt: skip
        frames: list[Frame] = []
        told = shown = time.monotonic()
        begun = told - before
        prediction: Prediction | None = None

        def watch(frame: Frame) -> None:
            nonlocal told, shown, prediction
            if not frame.is_tick:
                frames.append(frame)
            if time.monotonic() - told >= STAND:
                told = time.monotonic()
                with written(folder / "seconds") as out:
                    out.write(str(told - begun).encode())
            if frames and time.monotonic() - shown >= PAGE:
                prediction = prediction or experiment.predict(experiment.prepare(settings))
                so_far = Run(experiment, settings, prediction, tuple(frames), time.monotonic() - begun)
                self._write_page(folder, so_far)
                shown = time.monotonic()
            if progress is not None:
                progress(frame)

        return watch

    def _write_page(self, folder: Path, run: Run) -> None:
        if self.page is not None:
            from labkit.headless.report.pictures import figure

            with written(folder / "page.html") as out:
                out.write(self.page(run, figure(run)).encode())

    def _log(self, line: str) -> None:
        with (self.root / "log.txt").open("a", encoding="utf-8") as log:
            log.write(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {os.getpid()} {line}\n")
