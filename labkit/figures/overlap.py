"""Curves that lie on each other: the lower shows through the upper, in stretches of its own colour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from .marks import Array

NEAR = 1.5  # logical pixels from curve to curve, half the width of a line
COLUMN, STRETCH = 2.0, 4  # logical pixels a column, and columns a stretch


def show_through(ax: Axes, curves: Sequence[tuple[Line2D, Line2D]]) -> None:
    """Gives each curve's second line the stretches in which a later curve hides the first.

    Args:
        ax: the axes, with their final limits.
        curves: (the line, what shows through), in the order in which they are drawn.
    """
    scale = 100 / ax.figure.dpi
    wide, high = ax.bbox.width * scale, ax.bbox.height * scale
    columns = np.arange(0.0, wide, COLUMN)
    rows = [_rows(ax, line, columns, scale) for line, _ in curves]
    under = [_hidden(row, rows[i + 1 :]) for i, row in enumerate(rows)]
    lower = [i for i, there in enumerate(under) if there.sum() > 2 * STRETCH]
    slots = np.arange(columns.size) // STRETCH % (len(lower) + 1)
    for i, (_, over) in enumerate(curves):
        shown = under[i] & (slots == lower.index(i)) if i in lower else np.zeros(columns.size, dtype=bool)
        over.set_data(columns / wide, np.where(shown, rows[i] / high, np.nan))


def _rows(ax: Axes, line: Line2D, columns: Array, scale: float) -> Array:
    """The height of a line above each column, NaN beside it, and for a path that turns back."""
    data = np.asarray(line.get_xydata(), dtype=float)
    place = (ax.transData.transform(data[np.isfinite(data).all(axis=1)]) - ax.bbox.p0) * scale
    place = place[np.isfinite(place).all(axis=1)]
    if len(place) < 2 or (np.diff(place[:, 0]) < 0).any():
        return np.full(columns.size, np.nan)
    rows = np.interp(columns, place[:, 0], place[:, 1], left=np.nan, right=np.nan)
    return np.where((rows < -NEAR) | (rows > ax.bbox.height * scale + NEAR), np.nan, rows)


def _hidden(row: Array, later: Sequence[Array]) -> np.ndarray:
    """In which columns a later curve is so near that it covers this one."""
    steep = np.sqrt(1 + np.gradient(row, COLUMN) ** 2)
    near = [np.abs(row - other) < NEAR * steep for other in later]
    return np.any(near, axis=0) if near else np.zeros(row.size, dtype=bool)
