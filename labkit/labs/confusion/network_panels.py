"""The panels of the live experiment on networks: loss, cosines, their density, and a map over all runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from labkit import figures
from labkit.labs import common
from labkit.labs.confusion import shared
from labkit.protocol.experiment import Frame, Prediction, Run

MAP_DEPTHS, MAP_WIDTHS = (3, 10, 30, 60), (10, 30, 100, 300)
GRID = np.linspace(-1.0, 1.0, 81)  # cosines at which a density is evaluated
NONE = np.zeros((1, 0))


def found(frames: Sequence[Frame]) -> Mapping[str, np.ndarray] | None:
    """What the first of these frames says that carries cosines."""
    return next((frame.values for frame in frames if "cosine" in frame.values), None)


def loss(frames: Sequence[Frame], olds: Sequence[Run], end: float) -> figures.Panel:
    marks = _earlier(olds, "loss")
    steps, values = common.curve(frames, "loss")
    marks += [
        figures.Level(float(np.log(10)), label="guessing", color="grey"),
        figures.Measured(steps, values if len(steps) else NONE, label="loss", color=shared.LOSS),
    ]
    return figures.Panel(
        "Training loss", tuple(marks), xlabel="step", ylabel="loss", yscale="log", xlim=(0, end)
    )


def _earlier(olds: Sequence[Run], name: str) -> list[figures.Mark]:
    return [figures.Earlier(*common.curve(old.frames, name), label="earlier run") for old in olds]


def cosines(
    frames: Sequence[Frame], prediction: Prediction, olds: Sequence[Run], end: float
) -> figures.Panel:
    marks = _earlier(olds, "cosine")
    # A short dash at the start, where alone something is predicted.
    dash = np.array([0.0, 0.06 * end]), np.repeat(prediction["cosine"][:, None], 2, axis=1)
    marks.append(figures.Predicted(*dash, label="smallest", color=shared.COSINE))
    for name, label, color in (("cosine", "smallest", shared.COSINE), ("mean", "mean", shared.ETA)):
        steps, values = common.curve(frames, name)
        marks.append(figures.Measured(steps, values if len(steps) else NONE, label=label, color=color))
    marks += [
        figures.Note(_says("start", found(frames)), 0.04, 0.98),
        figures.Note(_says("now", found(frames[::-1])), 0.04, 0.88),
    ]
    return figures.Panel(
        "Cosines of gradients", tuple(marks), xlabel="step", ylabel="cosine", xlim=(0, end), ylim=(-1, 1)
    )


def _says(when: str, values: Mapping[str, np.ndarray] | None) -> str:
    if values is None:
        return f"{when}: –"
    return f"{when}: smallest {_signed(values['cosine'].mean())}, η {values['eta'].mean():.3g}"


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def densities(frames: Sequence[Frame], prediction: Prediction, olds: Sequence[Run]) -> figures.Panel:
    marks: list[figures.Mark] = [
        figures.Earlier(GRID, old.last("density"), label="earlier run") for old in olds
    ]
    marks.append(figures.Predicted(GRID, prediction["density"], label="start", color=shared.WIDTH))
    for label, order, color in (("start", 1, shared.WIDTH), ("now", -1, shared.COSINE)):
        values = found(frames[::order])
        curve = np.full((1, len(GRID)), np.nan) if values is None else values["density"]
        marks.append(figures.Measured(GRID, curve, label=label, color=color))
    return figures.Panel(
        "Density of cosines", tuple(marks), xlabel="cosine", ylabel="density", xlim=(-1, 1), ylim=(0, None)
    )


def sizes(
    frames: Sequence[Frame], prediction: Prediction, olds: Sequence[Run], settings: Any
) -> figures.Panel:
    """The newest smallest cosine of networks of all sizes, from the runs that can be compared."""
    runs = [
        (old.settings, old.prediction, old.frames)
        for old in olds
        if settings and _comparable(old.settings) == _comparable(settings)
    ]
    cells = _cells([*runs, *([(settings, prediction, frames)] if settings else [])])
    raster = figures.Raster(
        cells, [str(w) for w in MAP_WIDTHS], [str(d) for d in MAP_DEPTHS], diverging=True
    )  # fmt: skip
    return figures.Panel(
        "Smallest cosine by size", (raster, *_numbers(cells)), xlabel="hidden units", ylabel="hidden layers"
    )


def _comparable(settings: Any) -> Any:
    """What two runs must share to stand in one map: all but their size, and how they were trained."""
    return settings.replace(width=1, depth=1, column=False, lr=1.0)


def _cells(runs: Sequence[tuple[Any, Prediction, Sequence[Frame]]]) -> np.ndarray:
    """(depths, widths) of the map: each network in the cell that is nearest to its size."""
    cells = np.full((len(MAP_DEPTHS), len(MAP_WIDTHS)), np.nan)
    for settings, prediction, frames in runs:
        column = _near(MAP_WIDTHS, settings.width)
        final = common.newest(frames, "column_final")
        if final is not None:
            for depth, value in zip(prediction["depths"], final.mean(axis=0), strict=True):
                if np.isfinite(value):
                    cells[_near(MAP_DEPTHS, depth), column] = value
        now = found(frames[::-1])
        if now is not None:
            cells[_near(MAP_DEPTHS, settings.depth), column] = now["cosine"].mean()
    return cells


def _near(places: Sequence[int], value: float) -> int:
    return int(np.abs(np.log(np.array(places) / value)).argmin())


def _numbers(cells: np.ndarray) -> list[figures.Note]:
    """What stands in each cell; always as many, so that a live picture need not be laid out anew."""
    rows, columns = cells.shape
    return [
        figures.Note(
            _signed(value) if np.isfinite(value) else "",
            (column + 0.32) / columns, 1 - (row + 0.36) / rows,
        )
        for (row, column), value in np.ndenumerate(cells)
    ]  # fmt: skip
