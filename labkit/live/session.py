"""What a panel does, apart from how it looks: predict at once, train when asked, measure what is trained
again, keep earlier runs.

The session lives between two threads. The person's thread only says what is wanted (`want`, `stop`, `keep`,
`forget`); the worker's thread prepares, predicts, trains and tells the view. The view is held weakly, so that
a panel nobody holds can be collected while its last run is still going.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from typing import Any, Protocol

from labkit.figures import Chart
from labkit.protocol.experiment import Experiment, Frame, Prediction, Run, experiment_mode
from labkit.protocol.memory import Memory, remembering
from labkit.protocol.shortage import shortage

from . import words
from .glimpse import Glimpses
from .worker import Ticket, Worker

DEBOUNCE = 0.1  # seconds of quiet after which a moved slider counts as let go
FOLLOW = 0.1  # a prediction cheaper than this follows the slider
THROTTLE = 0.08  # seconds between two predictions of a drag, at least
FRAME = 0.2  # seconds between two pictures, at least
WHOLE = 0.03  # what is measured again in less than that is drawn once, whole
EMPTY = 0.1  # what has no value so long after the wish is drawn without; at once, if so it was last
REST = 1.0  # seconds after which a drag is taken to be over
SHARE = 0.03  # of the time may go into pictures; slower ones come less often
KEPT = 6  # earlier runs that can be kept; more cannot be told apart in grey


class View(Protocol):
    """What a session tells, from the worker's thread."""

    def picture(self, chart: Chart, *, rest: bool = False, refit: bool = False) -> None: ...
    def status(self, text: str, busy: bool) -> None: ...
    def progress(self, share: float | None, state: str) -> None: ...
    def verdicts(self, html: str) -> None: ...
    def grey(self, text: str) -> None: ...
    def follow(self, wanted: bool, trained: bool) -> None: ...
    def failed(self, problem: BaseException, doing: str) -> None: ...
    def clear_error(self) -> None: ...
    def outdated(self) -> None: ...
    def expect(self, chart: Chart) -> None: ...


class Session:
    """The present run of an experiment and its predecessors.

    Attributes:
        kept: runs that the person keeps in grey. ghost: the last run, in grey after the settings changed.
        ready: set as soon as the first prediction is there or has failed.
    """

    def __init__(self, experiment: Experiment, settings: Any, steps: Mapping[str, Any], view: View) -> None:
        self.experiment, self.steps = experiment, dict(steps)
        self.kept: tuple[Run, ...] = ()
        self.ghost: Run | None = None
        self.ready = threading.Event()
        self.started = 0  # runs begun so far
        self._view = weakref.ref(view)
        self._doing = "Preparing"
        self._stopping = self.ended = False
        self._predicted = self._follows = self._again = False
        self._slow = True  # to measure again, when that was done last
        self._memory = Memory()
        self._trained: Any = None  # settings of a run that ended, whose trainings are in the memory
        self._setup: Any = None  # prepared and not yet run: a run may change it
        self._now: tuple[Any, Prediction, list[Frame]] = (settings, {}, [])  # replaced as one
        self._seconds = 0.0
        self._worker = Worker(f"labkit-{experiment.name}", self._failed)

    # ---- the person's thread

    def want(self, settings: Any, train: bool, quiet: float = 0.0) -> None:
        """Predicts for ``settings`` and, after ``quiet`` seconds without another wish, trains.

        Settings that share the training of the last run that ended are measured at once, with or without
        ``train``; but those of that run itself, wished for by ``train`` without ``quiet``, are trained again.
        """
        self._stopping = False
        self._worker.submit(partial(self._alone, settings, train, quiet))

    def refuse(self, problem: ValueError) -> None:
        """What is wished for are no settings: whatever runs ends, and nothing of others stays drawn."""
        self._worker.submit(partial(self._refused, problem))

    def begin(self, run: Run) -> None:
        """Takes over a run that is made; whoever moves a setting then has it in grey behind the next."""
        self._now, self._seconds = (run.settings, run.prediction, list(run.frames)), run.seconds
        self._predicted = self.ended = True
        self.ready.set()
        self._tell("status", f"Made in {run.seconds:.1f} s. Move a setting, and the next run follows.", False)

    def stop(self) -> bool:
        """Ends the run between two frames; what was measured stays. Says whether something was under way."""
        self._stopping = True
        return self._worker.cancel()

    def keep(self) -> str:
        """Keeps the present run in grey; says why not, where it cannot, and nothing otherwise."""
        run = self.run
        if not run.frames:
            return "Nothing to keep yet: press Train first."
        others = tuple(old for old in self.kept if old.settings != run.settings)
        if len(others) == KEPT:
            return f"{KEPT} runs are kept, and more could not be told apart: Clear drops them."
        self.kept = (*others, run)
        self._tell("grey", self.grey_text())
        return ""

    def forget(self) -> None:
        """Drops all runs in grey."""
        self.kept, self.ghost = (), None
        if not self._worker.busy:
            self._worker.submit(self._redraw)

    def close(self) -> None:
        self._worker.close()

    @property
    def run(self) -> Run:
        """The present run as it stands: settings, prediction and the frames so far."""
        settings, prediction, frames = self._now
        return Run(self.experiment, settings, prediction, tuple(frames), self._seconds)

    @property
    def busy(self) -> bool:
        return self._worker.busy

    def join(self, timeout: float | None = None) -> bool:
        """Waits until nothing is going on; says whether that came about in time."""
        return self._worker.join(timeout)

    @property
    def previous(self) -> tuple[Run, ...]:
        """The runs drawn in grey."""
        ghost = self.ghost
        if ghost is None or any(run.settings == ghost.settings for run in self.kept):
            return tuple(run for run in self.kept if run.settings != self.run.settings)
        return tuple(run for run in (*self.kept, ghost) if run.settings != self.run.settings)

    def chart(self, *more: Frame) -> Chart:
        """The figure of the present run as it stands, or with more that is not kept."""
        run = self.run
        frames = (*run.frames, *more)
        return self.experiment.draw(frames, run.prediction, self.previous, run.settings)

    def grey_text(self) -> str:
        """Which runs are in grey, by what sets them apart."""
        found = [run.settings.told_from(self.run.settings) for run in self.previous]
        found = [f"{number}: {name}" for number, name in enumerate(found, start=1)]
        waiting = [run for run in self.kept if run.settings == self.run.settings]
        text = "In grey: " + "; ".join(found) if found else ""
        if waiting:
            text += ("  ·  " if text else "") + "this run is kept: it turns grey when a setting changes"
        return text

    # ---- the worker's thread

    def _tell(self, name: str, *args: Any, **more: Any) -> None:
        view = self._view()
        if view is not None:
            getattr(view, name)(*args, **more)

    def _failed(self, problem: BaseException) -> None:
        self.ready.set()
        self._tell("progress", None, "danger")
        self._tell("status", f"{self._doing} failed.", False)
        self._tell("failed", problem, f"{self._doing} failed")
        if self._doing in ("Preparing", "Measuring"):  # what stands there belongs to other settings
            self._tell("outdated")
            self._tell("verdicts", self._undecided())

    def _refused(self, problem: ValueError, ticket: Ticket) -> None:
        self._doing = "Preparing"
        raise problem

    def _undecided(self) -> str:
        return words.verdicts([(claim, None, "") for claim in self.experiment.claims], True)

    def _redraw(self, ticket: Ticket) -> None:
        self._doing = "Drawing"
        self._tell("grey", self.grey_text())
        self._tell("picture", self.chart(), rest=True)

    def _alone(self, settings: Any, train: bool, quiet: float, ticket: Ticket) -> None:
        try:
            with experiment_mode(), remembering(self._memory):
                if train and not quiet:
                    self._memory.clear()
                    self._trained = None
                if self._trained is not None and settings.shares_training_with(self._trained):
                    self._measure_again(settings, ticket)
                else:
                    self._work(settings, train, quiet, ticket)
        except Exception as problem:
            if told := shortage(problem, self.experiment, settings):
                raise ValueError(told) from None
            raise

    def _measure_again(self, settings: Any, ticket: Ticket) -> None:
        """On the networks that stand: nothing is waited for, and the picture stays until the next."""
        self._doing = "Measuring"
        self._tell("clear_error")
        setup = self.experiment.prepare(settings)
        self._turn(settings, self.experiment.predict(setup), again=True)
        self._train(setup, ticket)

    def _work(self, settings: Any, train: bool, quiet: float, ticket: Ticket) -> None:
        self._doing, begun = "Preparing", time.perf_counter()
        slow = not self._follows
        if slow and quiet and not ticket.wait(quiet):
            self._stopped_early()
            return  # a costly preparation begins only when the slider has come to rest
        self._tell("clear_error")
        if slow:
            self._tell("status", "Preparing and predicting …", True)
        setup = self._prepare(settings)
        if slow and not ticket.current:
            self._stopped_early()
            return
        self._tell("verdicts", self._undecided())
        self._tell("grey", self.grey_text())
        self._tell("picture", self.chart())
        self.ready.set()
        time.sleep(max(0.0, min(THROTTLE, quiet) - (time.perf_counter() - begun)))
        pause = quiet - (time.monotonic() - ticket.since) if train else 0.0
        if not ticket.wait(pause):
            self._stopped_early()
            return
        if train:
            self._train(setup, ticket)
        else:
            self._tell("progress", None, "")
            text = f"Dashed: the prediction. Press Train to measure. {settings.note}"
            self._tell("status", text.strip(), False)
            self._tell("picture", self.chart(), rest=True)

    def _prepare(self, settings: Any) -> Any:
        """Setup and prediction for ``settings``; what the last wish computed is not computed again."""
        same = self._predicted and settings == self._now[0]
        begun = time.perf_counter()
        setup = self._setup if same and self._setup is not None else self.experiment.prepare(settings)
        self._setup = setup
        prediction = self._now[1]
        if not same:
            prediction = self.experiment.predict(setup)
            # A little below the edge before it begins to follow again, so that it does not flicker.
            self._follows = time.perf_counter() - begun < (FOLLOW if self._follows else 0.8 * FOLLOW)
            self._tell("follow", self._follows, self._trained is not None)
        self._turn(settings, prediction)
        return setup

    def _turn(self, settings: Any, prediction: Prediction, again: bool = False) -> None:
        """Makes room for a run with these settings; the one before turns grey when it is worth it.

        While what is trained is measured again and again, it is the first of these runs that stays.
        """
        old = self.run
        worth = old.frames and old.settings != settings and (self.ended or self.ghost is None)
        if worth and not (again and self._again):
            self.ghost = old
        self._again = again
        self._now, self._seconds = (settings, prediction, []), 0.0
        self._predicted, self.ended = True, False

    def _stopped_early(self) -> None:
        if self._stopping:
            self._tell("progress", None, "")
            self._tell("status", "Stopped before the first step.", False)

    def _train(self, setup: Any, ticket: Ticket) -> None:
        self._setup = None
        if not self._again:
            self._doing = "Training"
            self._memory.begin()
        self.started += 1
        self._tell("progress", 0.0, "info")
        settings, prediction, _ = self._now
        with closing(self.experiment.frames(settings, setup, prediction, **self.steps)) as frames:
            last = self._watch(frames, ticket)
        if not ticket.current and not self._stopping:
            return  # superseded: the next job speaks now
        self._conclude(last, ticket)
        if ticket.current and self.ended and not self._again:
            # The next picture has this run in grey, in other places; who moves a setting sees it sooner.
            run = self.run
            if any(knob.remeasures for knob in run.settings.knobs().values()):  # and has it all in the memory
                self.experiment.predict(self.experiment.prepare(run.settings))
            earlier = (*(old for old in self.kept if old.settings != run.settings), run)
            chart = self.experiment.draw(run.frames, run.prediction, earlier, run.settings)
            self._tell("expect", chart)

    def _watch(self, frames: Any, ticket: Ticket) -> Frame:
        """Takes frames until the run ends or is not wanted any more; returns the last."""
        unseen, last, first_step = self._again and not self._slow, Frame(0), None
        empty = self._greyed(ticket) if self._again else 0.0
        begun = drawn = judged = time.perf_counter()
        interval, verdict_interval, shown = WHOLE if self._again else 0.0, 1.0, False
        glimpses = Glimpses(SHARE)
        for frame in frames:
            now = time.perf_counter()
            last = frame
            if not frame.is_tick:
                self._time_values(shown, empty)
                self._now[2].append(frame)
                self._seconds, unseen = now - begun, True
                glimpses.clear()
            if first_step is None:
                first_step, timed = frame.step, now
            # A drag asks for more before the first is drawn; something must be seen of it.
            if not ticket.current and (self._stopping or not self._again or shown):
                break
            due = now - drawn >= interval
            unseen = (due and glimpses.look(frame)) or unseen
            if due and (self._now[2] or glimpses.newest or time.monotonic() > empty):
                speed = (frame.step - first_step) / (now - timed) if now - timed > 0.3 else None
                line = words.progress_line(frame, str(self._now[0].device), speed, now - begun)
                self._tell("status", f"{line} · shown as it stands" if glimpses.newest else line, True)
                self._tell("progress", frame.progress, "info")
                if unseen:
                    self._time_values(shown, empty)
                    self._tell("picture", self.chart(*glimpses.newest))
                    unseen, shown = False, True
                    share = 1.0 if self._again else SHARE  # somebody holds the slider
                    interval = min(max(FRAME, (time.perf_counter() - now) / share), 1.0)
                drawn = time.perf_counter()
            if now - judged >= verdict_interval and self._now[2]:
                self._tell("verdicts", words.verdicts(words.decide(self.experiment, self.run), False))
                judged = time.perf_counter()
                verdict_interval = max(1.0, (judged - now) / SHARE)
        if unseen and self._again and not ticket.current:
            self._tell("picture", self.chart())
        return last

    def _time_values(self, shown: bool, empty: float) -> None:
        """The first values of a measure, of which nothing is shown yet, tell how the next is to begin."""
        self._slow = self._slow or (self._again and not shown and time.monotonic() > empty)

    def _greyed(self, ticket: Ticket) -> float:
        """Draws the run before in grey, where the next value takes a while; until when it may take."""
        begun = time.monotonic()
        if self._slow:
            self._tell("picture", self.chart())
            self._slow = False  # until its first values are late, too
        return ticket.since + EMPTY + time.monotonic() - begun

    def _conclude(self, last: Frame, ticket: Ticket) -> None:
        """The run is over: last picture, verdicts, and how it went."""
        if self._stopping and last.status == "running":
            self._now[2].append(Frame(last.step, {}, last.progress, "stopped"))
        run = self.run
        self.ended = bool(run.frames)
        says = {"done": "Done", "diverged": "Diverged", "stopped": "Stopped"}.get(run.status, "Done")
        text = f"{says} at step {last.step:,} after {run.seconds:.1f} s on {run.settings.device}."
        if self._again:
            text = f"Measured again in {run.seconds:.2f} s, without training."
        elif says != "Stopped":
            self._trained = run.settings if self._memory.whole else None
        self._tell("follow", self._follows, self._trained is not None)
        state = {"Done": "success", "Diverged": "danger", "Stopped": "warning"}[says]
        self._tell("progress", 1.0 if says == "Done" else last.progress, state)
        if self._again:
            self._tell("picture", self.chart())
        self._tell("verdicts", words.verdicts(words.decide(self.experiment, run), says != "Stopped"))
        self._tell("grey", self.grey_text())
        text = f"{text} {run.note}".strip()
        if self._again:  # sharp pictures take long, and the next move would wait for it
            self._tell("status", text, False)
            if not ticket.wait(REST) and not self._stopping:
                return
        self._tell("picture", self.chart(), rest=True, refit=not self._again)
        # Last: who presses Stop while the end is being drawn is answered by it.
        self._tell("status", text, False)
