"""Carrying tasks out: in this thread, or on any `concurrent.futures` executor; each outcome as it comes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass

from labkit.headless.plan import Task
from labkit.protocol.experiment import Frame, Run, drain
from labkit.protocol.judging import judge
from labkit.protocol.shortage import shortage
from labkit.protocol.verdicts import Verdict

# Called with the share that is done, in [0, 1], and what is being run.
Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        run: None where it raised.
        verdicts: id -> verdict.
        seconds: of run, judging and drawing.
        picture: the figure as HTML, where it was asked for.
        message: what was raised, in one line.
    """

    run: Run | None
    verdicts: Mapping[str, Verdict]
    seconds: float = 0.0
    picture: str = ""
    message: str = ""


def carry_out(
    tasks: Sequence[Task],
    outcomes: dict[int, Outcome],
    *,
    keep_going: bool = False,
    draw: bool = False,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> None:
    """Runs the tasks and judges them.

    Args:
        tasks: what to run.
        outcomes: takes each task's outcome by its place, as soon as it is there: so they survive Ctrl-C.
        keep_going: a task that raises has that as its outcome, and the others still run. One that wants more
            memory than there is has it in any case.
        draw: make the figures, too.
        executor: where to run; this thread when left out.
        progress: told the share of the expected time, and the names of what runs.

    Raises:
        Exception: what a task raised, without `keep_going`.
    """
    if executor is None:
        _here(tasks, outcomes, keep_going, draw, progress)
    else:
        _there(tasks, outcomes, keep_going, draw, executor, progress)
    if progress is not None:
        progress(1.0, "done")


def _here(
    tasks: Sequence[Task],
    outcomes: dict[int, Outcome],
    keep_going: bool,
    draw: bool,
    progress: Progress | None,
) -> None:
    for place, task in enumerate(tasks):
        try:
            _prepare(task)
        except Exception as problem:
            _note(outcomes, place, task, problem, keep_going)
    todo = [place for place in range(len(tasks)) if place not in outcomes]
    total, before = sum(tasks[place].weight for place in todo), 0.0
    for place in todo:
        task = tasks[place]
        report = _reporter(progress, _name(tasks, task), before / total, task.weight / total)
        try:
            outcomes[place] = _one(task, draw, report)
        except Exception as problem:
            _note(outcomes, place, task, problem, keep_going)
        before += task.weight


def _there(
    tasks: Sequence[Task],
    outcomes: dict[int, Outcome],
    keep_going: bool,
    draw: bool,
    executor: Executor,
    progress: Progress | None,
) -> None:
    if not keep_going:  # where one that cannot begin stops no other, its own run will say so
        _checked(tasks, outcomes, executor)
    todo = [place for place in range(len(tasks)) if place not in outcomes]
    # The longest first: a long one that comes last would be waited for by itself.
    order = sorted(todo, key=lambda place: -tasks[place].weight)
    waiting = {executor.submit(_one, tasks[place], draw): place for place in order}
    begun: dict[Future[Outcome], float] = {}
    pending = set(waiting)
    try:
        while pending:
            done, pending = wait(pending, timeout=1.0, return_when=FIRST_COMPLETED)
            for future in done:
                try:
                    outcomes[waiting[future]] = future.result()
                except Exception as problem:
                    place = waiting[future]
                    _note(outcomes, place, tasks[place], problem, keep_going)
            if progress is not None:
                progress(*_state(tasks, waiting, pending, begun))
    finally:  # After an error or Ctrl-C what is done counts, and nothing that has not begun is begun.
        for future, place in waiting.items():
            if not future.cancel() and future.done() and future.exception() is None:
                outcomes[place] = future.result()


def _checked(tasks: Sequence[Task], outcomes: dict[int, Outcome], executor: Executor) -> None:
    """Tries whether all can begin, before any does."""
    checks = [executor.submit(_prepare, task) for task in tasks]
    try:
        for place, check in enumerate(checks):
            while wait([check], timeout=1.0).not_done:  # a wait without an end is deaf to Ctrl-C on Windows
                pass
            try:
                check.result()
            except Exception as problem:
                _note(outcomes, place, tasks[place], problem, False)
    finally:
        for check in checks:
            check.cancel()


def _state(
    tasks: Sequence[Task],
    waiting: Mapping[Future[Outcome], int],
    pending: set[Future[Outcome]],
    begun: dict[Future[Outcome], float],
) -> tuple[float, str]:
    """The share done, with what should be done of those that run, and the names of these."""
    now, done, running = time.monotonic(), 0.0, []
    for future, place in waiting.items():
        task = tasks[place]
        if future not in pending:
            done += task.weight
        elif future.running():  # an executor also says so of one or two that it is about to run
            elapsed = now - begun.setdefault(future, now)
            done += min(elapsed, 0.9 * task.weight)
            running.append(_name(tasks, task))
    total = sum(tasks[place].weight for place in waiting.values())
    return min(done / total, 0.99), " + ".join(running[:2]) or "waiting"


def _prepare(task: Task) -> None:
    """A data set that is not there is told now, and not after half of the runs."""
    task.experiment.prepare(task.settings)


def _one(task: Task, draw: bool, report: Callable[[Frame], None] | None = None) -> Outcome:
    start = time.perf_counter()
    drained = drain if task.place is None else task.place.drained
    run = drained(task.experiment, task.settings, progress=report)
    verdicts = {claim.id: judge(claim, run) for claim in task.claims}
    picture = ""
    if draw:
        from labkit.headless.report.pictures import figure

        picture = figure(run)
    return Outcome(run, verdicts, time.perf_counter() - start, picture)


def _note(outcomes: dict[int, Outcome], place: int, task: Task, problem: Exception, keep_going: bool) -> None:
    told = shortage(problem, task.experiment, task.settings)
    if not (keep_going or told):
        raise problem
    message = told or " ".join(f"{type(problem).__name__}: {problem}".removesuffix(": ").split())
    outcomes[place] = Outcome(None, {}, message=message)


def _name(tasks: Sequence[Task], task: Task) -> str:
    several = any(other.lab is not task.lab for other in tasks)
    return f"{task.lab.number} {task.experiment.name}" if several else task.experiment.name


def _reporter(
    progress: Progress | None, name: str, before: float, share: float
) -> Callable[[Frame], None] | None:
    if progress is None:
        return None
    progress(before, name)
    return lambda frame: progress(before + share * min(max(frame.progress or 0.0, 0.0), 1.0), name)
