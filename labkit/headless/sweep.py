"""Maps an experiment over a grid of settings, on any executor.

A process pool, Dask's `Client.get_executor()`, submitit and mpi4py.futures are all
`concurrent.futures.Executor`s; labkit has no scheduler of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from itertools import product
from typing import Any

from labkit.protocol.experiment import Experiment, Run, drain


def sweep(
    experiment: Experiment,
    grid: Mapping[str, Sequence[Any]],
    settings: Any = None,
    *,
    executor: Executor | None = None,
    keep: Callable[[Run], Any] | None = None,
    each: Callable[[Any, Any], None] | None = None,
) -> list[Any]:
    """Runs an experiment at every point of a grid.

    Args:
        experiment: what to run.
        grid: setting -> its values; the last one moves fastest.
        settings: what the others are; the quick preset when left out.
        executor: where to run; this thread when left out. Settings are small and picklable, and so are runs.
        keep: what to keep of a run, computed where it was made, such as its verdicts; all of it when left
            out. It must be picklable where the executor is another process.
        each: told the settings and what was kept as soon as a point is done, in the order of completion.

    Returns:
        What was kept of each grid point, in the order of `itertools.product`.

    Raises:
        ValueError: the grid is empty or names no setting, before anything runs.

    Example:
        >>> sweep(RESIDUALS, {"width": [64, 256, 1024]}, executor=ProcessPoolExecutor())  # doctest: +SKIP
    """
    if not grid or not all(len(values) for values in grid.values()):
        raise ValueError(f"grid must give at least one value a setting; got {dict(grid)!r}")
    settings = experiment.presets["quick"] if settings is None else settings
    points = [settings.replace(**dict(zip(grid, values, strict=True))) for values in product(*grid.values())]
    found: list[Any] = [None] * len(points)

    def done(index: int, kept: Any) -> None:
        found[index] = kept
        if each is not None:
            each(points[index], kept)

    if executor is None:
        for index, point in enumerate(points):
            done(index, _point(experiment, point, keep))
        return found
    waiting = {executor.submit(_point, experiment, point, keep): i for i, point in enumerate(points)}
    try:
        for future in as_completed(waiting):
            done(waiting[future], future.result())
    finally:  # After an error or Ctrl-C nothing that has not begun is begun.
        for future in waiting:
            future.cancel()
    return found


def _point(experiment: Experiment, settings: Any, keep: Callable[[Run], Any] | None) -> Any:
    run = drain(experiment, settings)
    return run if keep is None else keep(run)
