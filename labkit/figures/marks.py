"""Marks: what can stand in a panel, as frozen data.

A mark knows its numbers and its meaning (a prediction, a measurement, a bound), never how it is drawn.
``x`` is (T,); a measured ``y`` is (T,) or (S, T) with the seeds first. Zeros on a log axis, NaN and
infinities are allowed everywhere: what cannot be drawn is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .palette import Color

Array = NDArray[np.float64]


def mean_and_range(y: Array) -> tuple[Array, Array, Array]:
    """Mean, lowest and highest over the seeds: (S, T) or (T,) -> three arrays (T,).

    Values that are not finite are left out seed by seed; where no seed is left the result is NaN.

    Args:
        y: (S, T), seeds first, or (T,).

    Returns:
        Mean, lowest and highest, each (T,).
    """
    values = np.atleast_2d(y)
    finite = np.isfinite(values)
    count = finite.sum(axis=0)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.where(finite, values, 0.0).sum(axis=0) / np.maximum(count, 1)
    low = np.where(finite, values, np.inf).min(axis=0, initial=np.inf)
    high = np.where(finite, values, -np.inf).max(axis=0, initial=-np.inf)
    seen = count > 0
    return tuple(np.where(seen, part, np.nan) for part in (mean, low, high))  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class _Curve:
    """Points (x, y); y may carry a leading seed axis."""

    x: Any
    y: Any
    label: str = ""
    color: Color = 0

    def __post_init__(self) -> None:
        kind = type(self).__name__
        x = np.asarray(self.x, dtype=np.float64)
        y = np.asarray(self.y, dtype=np.float64)
        if x.ndim != 1:
            raise ValueError(f"{kind}: x must be one-dimensional, got shape {x.shape}.")
        if y.ndim not in (1, 2) or y.shape[-1] != x.size:
            hint = ""
            if y.ndim == 2 and y.shape[0] == x.size:
                hint = " Seeds come first here and last in what series() returns: pass y.T."
            raise ValueError(
                f"{kind}: y must have shape (T,) or (S, T) with T = {x.size} as in x, got {y.shape}.{hint}"
            )
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "y", y)

    @cached_property
    def summary(self) -> tuple[Array, Array, Array]:
        """Mean, lowest and highest over the seeds."""
        return mean_and_range(self.y)


class Predicted(_Curve):
    """What theory says: a dashed line. y is (T,) or (S, T), of which the mean is drawn."""


def turn(marks: Sequence[Any], color: Color, label: str) -> int:
    """The place of a prediction among those of its colour that have other names; 0 without a name."""
    names = dict.fromkeys(one.label for one in marks if isinstance(one, Predicted) and one.color == color)
    names.pop("", None)
    return list(names).index(label) if label in names else 0


class Measured(_Curve):
    """What training did: a solid line, the mean over seeds, in a band from the lowest seed to the highest."""


@dataclass(frozen=True, eq=False)
class Points(_Curve):
    """Measured at a few places: markers at the mean, bars from the lowest seed to the highest."""

    line: bool = True


@dataclass(frozen=True, eq=False)
class Bound(_Curve):
    """A bound: the edge of a shaded region that theory rules out, "above" or "below" the curve."""

    side: Literal["above", "below"] = "above"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.side not in ("above", "below"):
            raise ValueError(f"Bound: side must be 'above' or 'below', got {self.side!r}.")


@dataclass(frozen=True, eq=False)
class Earlier(_Curve):
    """A curve of an earlier run, or of an earlier network of this one, in grey.

    Attributes:
        run: the number of that run, drawn at the line; 0 for what belongs to the present run.
        name: what sets that run apart, for the key.
        line: whether its points are joined; where they are not, runs differ by their markers.
    """

    color: Color = "grey"
    run: int = 0
    name: str = ""
    line: bool = True


@dataclass(frozen=True, eq=False)
class Level:
    """A dotted reference line at one value of the y axis, or of the x axis."""

    value: float
    label: str = ""
    axis: Literal["x", "y"] = "y"
    color: Color = "ink"

    def __post_init__(self) -> None:
        if self.axis not in ("x", "y"):
            raise ValueError(f"Level: axis must be 'x' or 'y', got {self.axis!r}.")
        object.__setattr__(self, "value", float(self.value))


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts between edges: edges (B + 1,), counts (B,) or (S, B), of which the mean is drawn."""

    edges: Any
    counts: Any
    label: str = ""
    color: Color = 0

    def __post_init__(self) -> None:
        edges = np.asarray(self.edges, dtype=np.float64)
        counts = np.asarray(self.counts, dtype=np.float64)
        if edges.ndim != 1 or counts.ndim not in (1, 2) or counts.shape[-1] != max(edges.size - 1, 0):
            raise ValueError(
                f"Histogram: counts must have one entry fewer than edges; got {counts.shape}, {edges.shape}."
            )
        object.__setattr__(self, "edges", edges)
        object.__setattr__(self, "counts", counts)


@dataclass(frozen=True, eq=False)
class Raster:
    """A matrix as an image, row 0 at the top. ``diverging`` puts white at zero."""

    values: Any
    xlabels: Sequence[str] = ()
    ylabels: Sequence[str] = ()
    diverging: bool = False
    label: str = ""

    def __post_init__(self) -> None:
        values = np.asarray(self.values, dtype=np.float64)
        if values.ndim != 2:
            raise ValueError(f"Raster: values must be (rows, columns), got shape {values.shape}.")
        object.__setattr__(self, "values", values)


@dataclass(frozen=True, eq=False)
class Note:
    """A short text at (x, y) in axes coordinates; it hangs from its top left corner."""

    text: str
    x: float = 0.02
    y: float = 0.98


Mark = Predicted | Measured | Points | Bound | Earlier | Level | Histogram | Raster | Note
"""Any of the marks: what a panel is made of."""

DYNAMIC = (Predicted, Measured, Points, Histogram, Raster, Note)
"""Kinds that change from frame to frame, or as a slider moves, while the rest of a chart stays as it is."""


def is_empty(mark: Mark) -> bool:
    """Whether a curve has no number yet."""
    return isinstance(mark, _Curve) and not np.isfinite(mark.y).any()


def curve_values(mark: Any) -> tuple[ArrayLike, ArrayLike]:
    """All x and y values a mark occupies, for choosing the limits of the axes."""
    if isinstance(mark, (Measured, Points)):
        _, low, high = mark.summary
        return mark.x, np.concatenate([low, high])
    if isinstance(mark, _Curve):
        return mark.x, mark.summary[0]
    if isinstance(mark, Level):
        return ([mark.value], []) if mark.axis == "x" else ([], [mark.value])
    if isinstance(mark, Histogram):
        return mark.edges, np.concatenate([[0.0], mean_and_range(mark.counts)[0]])
    return [], []
