"""Maps an experiment over a grid of settings, on any executor.

A process pool, Dask's `Client.get_executor()`, submitit and mpi4py.futures are all
`concurrent.futures.Executor`s; labkit has no scheduler of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from itertools import product
from typing import Any

from labkit.experiment import Experiment, Run, drain


def sweep(
    experiment: Experiment,
    grid: Mapping[str, Sequence[Any]],
    settings: Any = None,
    *,
    executor: Executor | None = None,
) -> list[Run]:
    """Runs an experiment at every point of a grid.

    Args:
        experiment: what to run.
        grid: setting -> its values; the last one moves fastest.
        settings: what the others are; the quick preset when left out.
        executor: where to run; this thread when left out. Settings are small and picklable, and so are runs.

    Returns:
        One run a grid point, in the order of `itertools.product`.

    Raises:
        ValueError: the grid is empty or names no setting, before anything runs.

    Example:
        >>> sweep(RESIDUALS, {"width": [64, 256, 1024]}, executor=ProcessPoolExecutor())  # doctest: +SKIP
    """
    if not grid or not all(len(values) for values in grid.values()):
        raise ValueError(f"grid must give at least one value a setting; got {dict(grid)!r}")
    settings = experiment.presets["quick"] if settings is None else settings
    points = [settings.replace(**dict(zip(grid, values, strict=True))) for values in product(*grid.values())]
    if executor is None:
        return [drain(experiment, point) for point in points]
    return list(executor.map(drain, [experiment] * len(points), points))
