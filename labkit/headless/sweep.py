"""Maps an experiment over a grid of settings, on any executor; results are on disk as they come.

A process pool, Dask's `Client.get_executor()` and mpi4py's are `concurrent.futures.Executor`s, and submitit's
has the same `submit`; labkit has no scheduler of its own. docs/clusters.md has a recipe for each.
"""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.headless.audit import plain
from labkit.protocol.experiment import Experiment, Run, drain

if TYPE_CHECKING:
    from labkit.headless.table import Table

ATTEMPTS = 2  # of a point that raises: what failed by chance, such as a full memory, gets a second one
LINE = 500  # characters of what was raised
POLL = 0.02  # seconds between two looks at what has ended


@dataclass(frozen=True)
class Failed:
    """What stands in the place of a point that raised at every attempt.

    Attributes:
        settings: of the point.
        message: what was raised last, in one line.
        attempts: how often it was tried.
    """

    settings: Any
    message: str
    attempts: int


def sweep(
    experiment: Experiment,
    grid: Mapping[str, Sequence[Any]],
    settings: Any = None,
    *,
    executor: Executor | None = None,
    keep: Callable[[Run], Any] | None = None,
    each: Callable[[Any, Any], None] | None = None,
    table: Path | None = None,
    retry: bool = False,
) -> list[Any]:
    """Runs an experiment at every point of a grid. A point that raises is tried once more, and told.

    Each run takes one thread. With a table the same call goes on where it stood, whatever ended it; a point
    that was running then is computed again, and no other.

    Args:
        experiment: what to run.
        grid: setting -> its values; the last one moves fastest.
        settings: what the others are; the quick preset when left out.
        executor: where to run; this thread when left out. Settings are small and picklable, and so are runs.
        keep: what to keep of a run, computed where it was made, such as its verdicts; all of it when left
            out. It must be picklable where the executor is another process.
        each: told the settings and what was kept (or `Failed`) as soon as a point is done, in the order of
            completion; not of points that the table has.
        table: an SQLite file (`labkit.headless.table`) of what was kept, which must be plain JSON values.
        retry: tries points anew that the table has as failed.

    Returns:
        What was kept of each grid point, or `Failed`, in the order of `itertools.product`.

    Raises:
        ValueError: the grid is empty or names no setting, before anything runs; or the table is another
            sweep's, in another process's hands, or asked for without `keep`.
        BrokenExecutor: the pool has lost a process, and takes no more work. What is done is in the table.

    Example:
        >>> sweep(RESIDUALS, {"width": [64, 256, 1024]}, executor=ProcessPoolExecutor())  # doctest: +SKIP
    """
    if not grid or not all(len(values) for values in grid.values()):
        raise ValueError(f"grid must give at least one value a setting; got {dict(grid)!r}")
    if table is not None and keep is None:
        raise ValueError("table: name what to keep of a run, too (keep=...): a whole run is not put in a row")
    settings = experiment.presets["quick"] if settings is None else settings
    values = [dict(zip(grid, one, strict=True)) for one in product(*grid.values())]
    points = [settings.replace(**one) for one in values]
    if table is None:
        opening: Any = nullcontext()
    else:
        from labkit.headless.table import opened

        fixed = {name: value for name, value in settings.to_dict().items() if name not in grid}
        facts = {"experiment": experiment.name, "settings": plain(fixed), "grid": sorted(grid),
                 "kept": getattr(keep, "__qualname__", repr(keep))}  # fmt: skip
        opening = opened(table, facts)
    with opening as rows:
        work = _Work(experiment, points, [json.dumps(plain(one)) for one in values], keep, each, rows, retry)
        work.carry_out(executor)
    return work.found


class _Work:
    """The points of a sweep: what is found, and how often each was tried."""

    def __init__(
        self,
        experiment: Experiment,
        points: Sequence[Any],
        names: Sequence[str],
        keep: Callable[[Run], Any] | None,
        each: Callable[[Any, Any], None] | None,
        rows: Table | None,
        retry: bool,
    ) -> None:
        self.experiment, self.points, self.names = experiment, points, names
        self.keep, self.each, self.rows = keep, each, rows
        self.found: list[Any] = [None] * len(points)
        self.attempts: Counter[int] = Counter()
        there = {} if rows is None else rows.rows()
        self.todo: deque[int] = deque()
        for place, name in enumerate(names):
            kept, error, attempts = there.get(name, (None, "", 0))
            if not attempts or (error and retry):
                self.todo.append(place)
            else:
                self.found[place] = Failed(points[place], error, attempts) if error else kept

    def carry_out(self, executor: Executor | None) -> None:
        """Here one point is begun when another has ended; elsewhere whoever is free takes the next."""
        waiting: dict[Any, int] = {}
        room = 1 if executor is None else len(self.todo)
        submit = _here if executor is None else executor.submit
        try:
            while self.todo or waiting:
                while self.todo and len(waiting) < room:
                    place = self.todo.popleft()
                    self.attempts[place] += 1
                    waiting[submit(_point, self.experiment, self.points[place], self.keep)] = place
                for future in _ended(waiting):
                    self._take(future, waiting.pop(future))
        finally:  # After an error or Ctrl-C what is done counts, and nothing that has not begun is begun.
            left = [(future, place) for future, place in waiting.items() if not future.cancel()]
            for future, place in left:
                if future.done() and future.exception() is None:
                    self._note(place, *future.result())

    def _take(self, future: Any, place: int) -> None:
        try:
            kept, seconds = future.result()
        except BrokenExecutor:
            raise
        except Exception as problem:
            if self.attempts[place] < ATTEMPTS:
                self.todo.append(place)
                return
            message = " ".join(f"{type(problem).__name__}: {problem}".removesuffix(": ").split())
            message = message if len(message) <= LINE else f"…{message[-LINE:]}"  # what was raised comes last
            kept, seconds = Failed(self.points[place], message, self.attempts[place]), 0.0
        self._note(place, kept, seconds)
        if self.each is not None:
            self.each(self.points[place], self.found[place])

    def _note(self, place: int, kept: Any, seconds: float) -> None:
        if self.rows is not None:
            name, attempts = self.names[place], self.attempts[place]
            if isinstance(kept, Failed):
                self.rows.add(name, None, kept.message, attempts, seconds)
            else:
                kept = json.loads(json.dumps(plain(kept)))  # as another process will read it
                self.rows.add(name, kept, "", attempts, seconds)
        self.found[place] = kept


def _ended(waiting: Mapping[Any, int]) -> Iterator[Any]:
    """Those that have ended, of one or more, by asking: submitit's jobs tell nobody by themselves."""
    while not (found := [future for future in waiting if future.done()]):
        time.sleep(POLL)
    yield from found


def _here(function: Callable[..., Any], *args: Any) -> Future[Any]:
    done: Future[Any] = Future()
    try:
        done.set_result(function(*args))
    except Exception as problem:
        done.set_exception(problem)
    return done


def _point(experiment: Experiment, settings: Any, keep: Callable[[Run], Any] | None) -> tuple[Any, float]:
    run = drain(experiment, settings)
    return run if keep is None else keep(run), run.seconds
