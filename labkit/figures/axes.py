"""Limits and ticks: chosen from the numbers alone, so that a chart looks the same however it is drawn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.lines import Line2D
from matplotlib.markers import TICKDOWN, TICKLEFT
from matplotlib.ticker import (
    FixedFormatter,
    FixedLocator,
    Formatter,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    SymmetricalLogLocator,
)

from . import palette as p
from .marks import Array, Histogram, Points, Raster, curve_values

SCALES = ("linear", "log", "log2", "symlog")
DECADES = 16  # a log axis shows at most so many below its largest value: doubles carry no more
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Limits:
    """The range of one axis; ``threshold`` is where a symlog axis turns linear."""

    low: float
    high: float
    threshold: float = 1.0

    def covers(self, other: Limits) -> bool:
        """Whether ``other`` needs no wider axis than this."""
        slack = 1e-9 * abs(self.high - self.low)
        return self.low <= other.low + slack and self.high >= other.high - slack


def _finite(parts: Iterable[Any]) -> Array:
    arrays = [np.asarray(part, dtype=np.float64).ravel() for part in parts]
    values = np.concatenate(arrays) if arrays else np.zeros(0)
    # Beyond 1e300 the padding below would overflow; such a value has left every useful axis anyway.
    return values[np.isfinite(values) & (np.abs(values) < 1e300)]


def limits(panel: Any, axis: str) -> Limits:
    """The range in which every drawable value of a panel lies, with room around it.

    Args:
        panel: a ``figures.Panel``.
        axis: "x" or "y".
    """
    fixed = panel.xlim if axis == "x" else panel.ylim
    scale = panel.xscale if axis == "x" else panel.yscale
    raster = next((mark for mark in panel.marks if isinstance(mark, Raster)), None)
    if raster is not None:
        rows, columns = raster.values.shape
        return Limits(-0.5, columns - 0.5) if axis == "x" else Limits(rows - 0.5, -0.5)
    values = _finite(curve_values(mark)[axis == "y"] for mark in panel.marks)
    tight = axis == "x" and not any(isinstance(mark, Points) for mark in panel.marks)
    flush = axis == "y" and any(isinstance(mark, Histogram) for mark in panel.marks)
    if scale in ("log", "log2"):
        found = _log_limits(values, tight)
    else:
        found = _linear_limits(values, tight, flush or axis == "y")
        if scale == "symlog":
            found = _symlog_limits(values, found)
    if fixed is None:
        return found
    low, high = (None if end is None else float(end) for end in fixed)
    return Limits(found.low if low is None else low, found.high if high is None else high, found.threshold)


def _linear_limits(values: Array, tight: bool, from_zero: bool) -> Limits:
    if not values.size:
        return Limits(0.0, 1.0)
    low, high = float(values.min()), float(values.max())
    if low == high:
        room = 0.5 * abs(low) or 0.5
        return Limits(low - room, high + room)
    pad = 0.0 if tight else 0.06 * (high - low)
    floor = low - pad
    if from_zero and 0 <= low < 0.4 * high:
        floor = 0.0  # a share or a loss is read against zero when zero is near
    return Limits(floor, high + pad)


def _log_limits(values: Array, tight: bool) -> Limits:
    values = values[values > 0]
    if not values.size:
        return Limits(0.1, 10.0)
    top = np.log10(values.max())
    bottom = max(np.log10(values.min()), top - DECADES)
    if top - bottom < 1e-9:
        return Limits(10 ** (bottom - 0.5), 10 ** (top + 0.5))
    pad = 0.0 if tight else max(0.05 * (top - bottom), 0.03)
    return Limits(float(10 ** (bottom - pad)), float(10 ** (top + pad)))


def _symlog_limits(values: Array, linear: Limits) -> Limits:
    sizes = np.abs(values[values != 0])
    if not sizes.size:
        return linear
    smallest = max(float(sizes.min()), float(sizes.max()) * 1e-6)
    threshold = float(10 ** np.floor(np.log10(smallest)))
    low, high = float(values.min()), float(values.max())
    grow = 1.3  # room on a log axis is a factor
    return Limits(low * grow if low < 0 else 0.0, high * grow if high > 0 else 0.0, threshold)


def widen(held: Limits, needed: Limits, scale: str) -> Limits:
    """``held`` if it still covers ``needed``; else a range with room to grow, so that redraws stay rare."""
    if held.covers(needed) and _span(needed, scale) >= _span(held, scale) / 3:
        return held
    if _span(needed, scale) < _span(held, scale) / 3:
        return needed  # what was held belongs to another picture
    low, high = min(held.low, needed.low), max(held.high, needed.high)
    if scale in ("log", "log2") and low > 0:
        factor = (high / low) ** 0.2
        return Limits(low / factor if low < held.low else low, high * factor if high > held.high else high)
    room = 0.4 * (high - low)
    if low < held.low and not (low == 0 or (held.low == 0 and low > 0)):
        low -= room
    return Limits(low, high + room if high > held.high else high, min(held.threshold, needed.threshold))


def _span(reach: Limits, scale: str) -> float:
    if scale in ("log", "log2") and reach.low > 0:
        return float(np.log(reach.high / reach.low))
    return abs(reach.high - reach.low)


def power(value: float, digits: int = 0) -> str:
    """``value`` as 3×10⁻⁴, in plain text: no formula parser in the drawing loop."""
    exponent = int(np.floor(np.log10(abs(value)) + 1e-12))
    mantissa = f"{value / 10.0**exponent:.{digits}f}"
    ten = "10" + str(exponent).translate(_SUPERSCRIPT)
    return ten if mantissa == "1" else f"{mantissa}×{ten}".replace("-", "−")


class _Linear(Formatter):
    """Just enough digits to tell ticks apart; powers of ten only where plain numbers grow long."""

    def format_ticks(self, values: Any) -> list[str]:
        locs = np.asarray(values, dtype=float)
        if not locs.size:
            return []
        size = float(np.abs(locs).max())
        step = float(np.diff(np.unique(locs)).min()) if np.unique(locs).size > 1 else size or 1.0
        return [_number(float(x), size, step) for x in locs]

    def __call__(self, x: float, pos: int | None = None) -> str:
        return _number(x, abs(x), abs(x) or 1.0)


def _number(x: float, size: float, step: float) -> str:
    if size == 0 or abs(x) < 1e-9 * step:
        return "0"
    if 1e-3 <= size < 1e5:
        return f"{x:.{_decimals(step)}f}".replace("-", "−")
    return power(x, _decimals(step / 10.0 ** np.floor(np.log10(abs(x)) + 1e-12)))


def _decimals(step: float) -> int:
    return next((d for d in range(6) if abs(round(step * 10**d) / 10**d - step) < 1e-3 * step), 6)


def _log_text(low: float, high: float) -> Formatter:
    plain = low >= 1e-3 and high < 1e5

    def text(x: float, pos: int | None = None) -> str:
        return f"{x:.10g}" if plain else power(x)

    return FuncFormatter(text)


def _ticks(axis: Axis, scale: str, reach: Limits, room: float, spacing: float) -> list[Artist]:
    """Places ticks about ``spacing`` pixels apart on an axis ``room`` pixels long; gives the small ones."""
    count = max(2, int(room / spacing))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    low, high = sorted((reach.low, reach.high))
    if scale == "log2":
        axis.set_major_locator(LogLocator(base=2, numticks=count + 1))
        axis.set_major_formatter(FuncFormatter(lambda x, pos: f"{x:.10g}"))
    elif scale == "log":
        decades = np.log10(high / low)
        inside = np.floor(np.log10(high) + 1e-9) - np.ceil(np.log10(low) - 1e-9) + 1
        if decades < 0.7:
            axis.set_major_locator(MaxNLocator(min(count, 5)))
            axis.set_major_formatter(_Linear())
            return []
        subs = (1.0,) if inside >= 3 else (1.0, 2.0, 5.0) if count >= 5 * decades / 2 else (1.0, 3.0)
        axis.set_major_locator(LogLocator(subs=subs, numticks=count + 1))
        axis.set_major_formatter(_log_text(low, high))
        if 3 <= inside <= 8:
            return [_small_ticks(axis, low, high)]
    elif scale == "symlog":
        axis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=reach.threshold))
        locs = [t for t in axis.get_major_locator().tick_values(low, high) if low <= t <= high]
        axis.set_major_locator(FixedLocator(locs[:: max(1, -(-len(locs) // count))]))
        axis.set_major_formatter(FuncFormatter(lambda x, pos: _number(x, abs(x), abs(x) or 1.0)))
    else:
        axis.set_major_locator(MaxNLocator(count, steps=[1, 2, 2.5, 5, 10], min_n_ticks=2))
        axis.set_major_formatter(_Linear())
    return []


def _small_ticks(axis: Axis, low: float, high: float) -> Artist:
    """Ticks at 2, 3, ... 9 of each decade, as one line: an object each, they cost as much as all the rest."""
    places = np.asarray(LogLocator(subs=tuple(range(2, 10)), numticks=100).tick_values(low, high))
    places = places[(places >= low) & (places <= high)]
    ax, still = axis.axes, np.zeros(len(places))
    (x, y), marker, transform = (
        ((places, still), TICKDOWN, ax.get_xaxis_transform()) if axis is ax.xaxis
        else ((still, places), TICKLEFT, ax.get_yaxis_transform())
    )  # fmt: skip
    style: dict[str, Any] = {"linestyle": "None", "marker": marker, "markersize": 1.8, "markeredgewidth": 0.6}
    return ax.add_artist(Line2D(x, y, color=p.SPINE, transform=transform, clip_on=False, zorder=2.5, **style))


def prepare_axis(
    ax: Axes, name: str, scale: str, reach: Limits, room: float, ticks: Any = None
) -> list[Artist]:
    """Sets scale, limits and ticks of one axis of ``ax``; ``ticks`` may be a sequence of (place, text).

    Returns:
        What must go before the axis is prepared for other limits.
    """
    axis = ax.xaxis if name == "x" else ax.yaxis
    setter = ax.set_xscale if name == "x" else ax.set_yscale
    if scale == "log2":
        setter("log", base=2, nonpositive="mask")
    elif scale == "log":
        setter("log", nonpositive="mask")
    elif scale == "symlog":
        setter("symlog", linthresh=reach.threshold, linscale=0.5)
    (ax.set_xlim if name == "x" else ax.set_ylim)(reach.low, reach.high)
    if ticks:
        axis.set_major_locator(FixedLocator([place for place, _ in ticks]))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FixedFormatter([text for _, text in ticks]))
        return []
    return _ticks(axis, scale, reach, room, 50.0 if name == "x" else 36.0)
