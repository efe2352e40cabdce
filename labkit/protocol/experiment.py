"""What an experiment is: five functions in the order in which the lesson is told.

    prepare(settings) -> setup          everything random is decided here
    predict(setup) -> prediction        the dashed curves, before any training
    run(setup, prediction, **steps)     the measurement, as frames, a little at a time
    figure(frames, prediction, settings) -> Chart
    claims                              what is decided from (settings, prediction, frames)

The same generator `run` is drained by a notebook cell, streamed by the live panel, mapped by a sweep and
stepped by a test. Frames and predictions hold NumPy arrays with a leading seed axis, never tensors: no graph
leaks, safe across threads, picklable.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit.protocol.ahead import Ahead, Elsewhere
from labkit.protocol.claims import Claim

if TYPE_CHECKING:
    from labkit.figures import Chart
    from labkit.protocol.settings import Settings

Prediction = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Frame:
    """One moment of a run.

    Attributes:
        step: the step (or sweep index) of this moment; never decreases within a run.
        values: name -> array of shape (seeds, ...), NumPy only; empty for a bare tick.
        progress: the share of the run that is done, in [0, 1], or None if unknown.
        status: "running", or how the run ended: "done", "diverged", "stopped".
        note: one sentence for the person, such as the learning rate that would have been stable.
        showing: of a tick: gives values as they would be now, to be drawn until the next frame and not kept;
            called, if at all, before the run goes on.
        again: of a training: done before and shown again; its networks are not those of this moment.
    """

    step: int
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    progress: float | None = None
    status: str = "running"
    note: str = ""
    showing: Callable[[], Mapping[str, np.ndarray]] | None = None
    again: bool = False

    @classmethod
    def tick(
        cls, step: int, progress: float | None = None,
        showing: Callable[[], Mapping[str, np.ndarray]] | None = None,
    ) -> Frame:  # fmt: skip
        """A frame with nothing to keep: it gives the caller a moment at which to look, or to stop."""
        return cls(step, progress=progress, showing=showing)

    @property
    def is_tick(self) -> bool:
        return not self.values and self.status == "running"


Frames = Sequence[Frame]
Runs = Sequence["Run"]


def series(frames: Sequence[Frame], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Collects one value over the frames that carry it.

    Args:
        frames: of a run.
        name: of a value.

    Returns:
        steps (T,) and values (T, seeds, ...); both are empty when no frame carries `name`.
    """
    kept = [frame for frame in frames if name in frame.values]
    if not kept:
        return np.zeros(0, dtype=int), np.zeros((0, 1))
    return np.array([frame.step for frame in kept]), np.stack([frame.values[name] for frame in kept])


def last(frames: Sequence[Frame], name: str) -> np.ndarray:
    """The newest value of `name`, of shape (seeds, ...).

    Args:
        frames: of a run.
        name: of a value.

    Returns:
        The value in the newest frame that carries it.

    Raises:
        KeyError: no frame carries it yet.
    """
    for frame in reversed(frames):
        if name in frame.values:
            return frame.values[name]
    raise KeyError(name)


@dataclass(frozen=True)
class Experiment:
    """The unit that notebooks, panels, sweeps and the command line share.

    Attributes:
        name: how a person calls it, unique in its lab.
        title: the question it answers.
        settings: the settings class; `presets` holds its instances, at least "quick".
        controls: the settings offered as sliders, in order.
        claims: what can be decided from one run of it.
    """

    name: str
    title: str
    settings: type[Settings]
    presets: Mapping[str, Any]
    prepare: Callable[[Any], Any]
    predict: Callable[[Any], Prediction]
    run: Callable[..., Iterator[Frame]]
    figure: Callable[..., Chart]
    claims: tuple[Claim, ...] = ()
    controls: tuple[str, ...] = ()

    @property
    def home(self) -> str:
        """The package of its lab, where its replication is kept; "" outside a package."""
        return self.settings.__module__.rpartition(".")[0]

    def preset(self, name: str = "quick", **changes: Any) -> Any:
        """The settings of a preset, with changes.

        Raises:
            ValueError: there is no such preset, or a change is not a setting or out of its range.
        """
        if name not in self.presets:
            raise ValueError(f"preset: {name!r} is not one of {', '.join(self.presets)} ({self.name})")
        return self.presets[name].replace(**changes)

    def frames(self, settings: Any, setup: Any, prediction: Prediction, **steps: Any) -> Generator[Frame]:
        """What `run` yields; the note of a run that diverged is in terms of its settings."""
        frames = self.run(setup, prediction, **steps)
        try:
            for frame in frames:
                told = settings.advised(frame.note) if frame.status == "diverged" else frame.note
                yield frame if told == frame.note else replace(frame, note=told)
        finally:
            close = getattr(frames, "close", None)
            if close is not None:
                close()  # in the thread that ran it, between two frames

    def draw(
        self, frames: Sequence[Frame], prediction: Prediction, previous: Sequence[Run], settings: Any
    ) -> Chart:
        """The figure, over what earlier runs measured, each with a number and the name of what sets it apart.

        Args:
            frames, prediction, settings: of the present run.
            previous: runs to draw in grey.

        Returns:
            Chart.
        """
        chart = self.figure(frames, prediction, settings=settings)
        earlier = [
            (
                old.settings.told_from(settings),
                self.figure(old.frames, old.prediction, settings=old.settings),
            )
            for old in previous
        ]
        return chart.over(earlier)


@dataclass(frozen=True)
class Run:
    """One experiment, carried out: everything that a claim or a figure may look at."""

    experiment: Experiment
    settings: Any
    prediction: Prediction
    frames: tuple[Frame, ...]
    seconds: float = 0.0

    @property
    def status(self) -> str:
        return self.frames[-1].status if self.frames else "stopped"

    @property
    def note(self) -> str:
        """What it left out of the data, and how it ended; "" where there is nothing to say."""
        return " ".join(filter(None, (self.settings.note, self.frames[-1].note if self.frames else "")))

    def series(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        return series(self.frames, name)

    def last(self, name: str) -> np.ndarray:
        return last(self.frames, name)

    def figure(self, previous: Sequence[Run] = ()) -> Chart:
        return self.experiment.draw(self.frames, self.prediction, previous, self.settings)

    def claim(self, id: str) -> Claim:
        for claim in self.experiment.claims:
            if claim.id == id:
                return claim
        known = ", ".join(claim.id for claim in self.experiment.claims)
        raise ValueError(f"id: {self.experiment.name!r} has no claim {id!r}; it decides {known}")


class _BlasThreads:
    """One thread for the BLAS of NumPy and SciPy, a matter of the process: the last one out gives back."""

    def __init__(self) -> None:
        self._lock, self._inside, self._limits = threading.Lock(), 0, ExitStack()

    def __enter__(self) -> None:
        from threadpoolctl import threadpool_limits

        with self._lock:
            if not self._inside:
                self._limits.enter_context(threadpool_limits(1, user_api="blas"))
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._limits.close()


_BLAS_THREADS = _BlasThreads()
_AHEAD, _ELSEWHERE = Ahead["Run"](), Elsewhere()


@contextmanager
def experiment_mode() -> Iterator[None]:
    """How torch computes while an experiment runs: on one thread, and in full float32 on a card (no TF32).

    The networks of the labs are small. On two quiet cores a second thread gained 0 to 20 % and lost a factor
    of two when waiting threads sleep; beside another busy program it made runs 3 to 13 times slower. A sum
    taken by two threads differs in its last digits, and one thread gives the same from any process.
    OMP_NUM_THREADS says otherwise.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    threads, cards = torch.get_num_threads(), (torch.backends.cuda.matmul, torch.backends.cudnn)
    allowed = [card.allow_tf32 for card in cards]
    alone = not os.environ.get("OMP_NUM_THREADS")
    if alone:
        torch.set_num_threads(1)
    for card in cards:
        card.allow_tf32 = False
    try:
        with _BLAS_THREADS if alone else nullcontext():
            yield
    finally:
        torch.set_num_threads(threads)
        for card, before in zip(cards, allowed, strict=True):
            card.allow_tf32 = before


def drain(
    experiment: Experiment,
    settings: Any = None,
    *,
    progress: Callable[[Frame], None] | None = None,
    **steps: Any,
) -> Run:
    """Runs an experiment to its end, in this thread; or gives the same run that is under way `ahead`.

    Args:
        experiment: what to run.
        settings: its settings; the quick preset when left out.
        progress: called with every frame, ticks included.
        **steps: functions passed on to `run`, such as the projection that a notebook spells out.

    Returns:
        Run: every frame, the prediction and the settings.
    """
    settings = experiment.presets["quick"] if settings is None else settings
    found = _AHEAD.taken(_asked(experiment, settings, steps)) if progress is None else None
    return found or Run(experiment, settings, *_drained(experiment, settings, progress, steps))


def ahead(*experiments: Experiment, settings: Any = None, **steps: Any) -> None:
    """Begins runs that `drain` will be asked for, on another core: while a cell computes or a person reads.

    They are made one after the other. Begin with what is needed last: whoever needs one that waits makes it.
    Where this process may use one core only, nothing is begun.

    Args:
        *experiments: what to run.
        settings: of each; its quick preset when left out.
        **steps: as `drain` will be given them; with another function it makes another run.
    """
    from joblib import cpu_count  # It knows the limits of a container. Late, as it takes a tenth of a second.

    if cpu_count() < 2:
        return
    for experiment in experiments:
        asked = experiment.presets["quick"] if settings is None else settings
        _AHEAD.begin(_asked(experiment, asked, steps), partial(_early, experiment, asked, steps))


def _early(experiment: Experiment, settings: Any, steps: Mapping[str, Any]) -> Run:
    made = partial(_drained, experiment, settings, None, steps)
    return Run(experiment, settings, *(_ELSEWHERE.result(made) or made()))


def _asked(experiment: Experiment, settings: Any, steps: Mapping[str, Any]) -> Hashable:
    return experiment.home, experiment.name, settings, frozenset(steps.items())


def _drained(
    experiment: Experiment, settings: Any, progress: Callable[[Frame], None] | None, steps: Mapping[str, Any]
) -> tuple[Prediction, tuple[Frame, ...], float]:
    """What a run consists of besides its experiment and settings."""
    start = time.perf_counter()
    frames = []
    with experiment_mode():
        setup = experiment.prepare(settings)
        prediction = experiment.predict(setup)
        for frame in experiment.frames(settings, setup, prediction, **steps):
            if not frame.is_tick:
                frames.append(frame)
            if progress is not None:
                progress(frame)
    del setup
    _give_back()
    return prediction, tuple(frames), time.perf_counter() - start


def _give_back() -> None:
    """What was freed, to the system: glibc keeps up to 200 MB of a run for the next, in each thread."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


@dataclass(frozen=True)
class Lab:
    """One paper: its experiments, and the claims that its notebook's story walks through.

    Attributes:
        core: the ids of the claims on the core path; all others are the audit.
        notebook: the file name of its notebook, without ending.
    """

    number: int
    name: str
    title: str
    paper: str
    experiments: tuple[Experiment, ...]
    core: tuple[str, ...]
    notebook: str

    @property
    def claims(self) -> tuple[Claim, ...]:
        """All claims, in the order of their numbers."""
        found = [claim for experiment in self.experiments for claim in experiment.claims]
        return tuple(sorted(found, key=lambda claim: (claim.id[0], int(claim.id[1:]))))

    def experiment(self, name: str) -> Experiment:
        for experiment in self.experiments:
            if experiment.name == name:
                return experiment
        known = ", ".join(experiment.name for experiment in self.experiments)
        raise ValueError(f"experiment: lab {self.name!r} has no {name!r}; it has {known}")


def resolve_device(name: str = "auto") -> str:
    """The device to run on: "auto" takes CUDA, then Apple's MPS, then the CPU.

    Args:
        name: "auto", "cpu", "cuda" or "mps".

    Returns:
        "cpu", "cuda" or "mps".

    Raises:
        ValueError: the device is unknown or not there.
    """
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if there[device])
    if name not in there:
        raise ValueError(f"device: {name!r} is not one of auto, {', '.join(there)}")
    if not there[name]:
        usable = ", ".join(device for device, usable in there.items() if usable)
        raise ValueError(f"device: torch finds no {name} here; usable: {usable}")
    return name
