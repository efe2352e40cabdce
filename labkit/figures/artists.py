"""From a mark to matplotlib artists, and from new numbers to the same artists.

Each drawer keeps its artists. ``update`` only sets data: that is what makes a live frame cheap.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Polygon, StepPatch
from matplotlib.patheffects import withStroke

from . import palette as p
from .marks import (
    Array,
    Bound,
    Earlier,
    Histogram,
    Level,
    Mark,
    Measured,
    Note,
    Points,
    Predicted,
    Raster,
    mean_and_range,
    turn,
)

# Of the predictions of one colour: the first, the second, ...
DASHES = ((0, (4.2, 2.4)), (0, (4.2, 1.5, 1, 1.5)), (0, (4.2, 1.5, 1, 1.5, 1, 1.5)))
DOTS = (0, (1, 1.8))


def masked(values: Array, scale: str) -> Array:
    """``values`` with everything an axis of this scale cannot show replaced by NaN."""
    bad = ~np.isfinite(values) | (np.abs(values) > 1e300)
    if scale in ("log", "log2"):
        bad |= values <= 0
    return np.where(bad, np.nan, values)


class Drawer:
    """Draws one mark on one axes."""

    line: Any = None
    through: Any = None  # what of the line shows through a later one

    def __init__(self, ax: Axes, panel: Any, mark: Mark) -> None:
        self.ax, self.panel, self.mark = ax, panel, mark
        self.artists: list[Artist] = []
        self.build(mark)
        self.update(mark)

    def build(self, mark: Any) -> None:
        """Creates the artists, empty."""

    def update(self, mark: Any) -> None:
        """Gives the artists the numbers of ``mark``."""

    def add(self, artist: Any) -> Any:
        self.artists.append(artist)
        return artist

    def x(self, mark: Any) -> Array:
        return masked(mark.x, self.panel.xscale)

    def y(self, values: Array) -> Array:
        return masked(values, self.panel.yscale)

    def polygon(self, patch: Polygon, x: Array, low: Array, high: Array) -> None:
        """Sets ``patch`` to the band between two curves, clipped to a log axis where one touches zero."""
        bottom = min(self.ax.get_ylim())
        if self.panel.yscale in ("log", "log2"):
            low = np.where(np.isfinite(high) & ~np.isfinite(low), bottom, low)
        kept = np.isfinite(x) & np.isfinite(low) & np.isfinite(high)
        x, low, high = x[kept], low[kept], high[kept]
        patch.set_visible(bool(x.size))
        if x.size:
            patch.set_xy(np.concatenate([np.c_[x, low], np.c_[x, high][::-1]]))


def _line(drawer: Drawer, **style: Any) -> Any:
    (line,) = drawer.ax.plot([], [], **{"solid_capstyle": "round", **style})
    return drawer.add(line)


def _band(drawer: Drawer, color: str, **style: Any) -> Polygon:
    patch = Polygon(np.zeros((1, 2)), closed=True, facecolor=color, edgecolor="none", linewidth=0, **style)
    return drawer.add(drawer.ax.add_patch(patch))


def _through(drawer: Drawer, color: str, width: float) -> Any:
    """A line for the stretches in which another curve hides this one (`overlap`)."""
    return _line(drawer, color=color, linewidth=width, zorder=4.3, transform=drawer.ax.transAxes,
                 solid_capstyle="butt")  # fmt: skip


class DashedLine(Drawer):
    def build(self, mark: Predicted) -> None:
        self.line = _line(self, color=p.deeper(mark.color), linewidth=1.6, zorder=4.5)

    def update(self, mark: Predicted) -> None:
        self.line.set_linestyle(dashes(turn(self.panel.marks, mark.color, mark.label)))
        self.line.set_data(self.x(mark), self.y(mark.summary[0]))


def dashes(turn: int) -> Any:
    """The stroke of a prediction, by its place among those of its colour."""
    return DASHES[turn % len(DASHES)]


def grey_dashes(run: int) -> Any:
    """The stroke of an earlier run: runs differ by it, too, where curves cross far from their numbers."""
    return ("-", (0, (6, 1.6)), (0, (2.6, 1.4)), (0, (6, 1.4, 1.2, 1.4)))[max(run - 1, 0) % 4]


class GreyLine(Drawer):
    def build(self, mark: Earlier) -> None:
        how: dict[str, Any] = {"linestyle": grey_dashes(mark.run), "linewidth": 1.4}
        if not mark.line:
            shape = p.MARKERS[max(mark.run - 1, 0) % len(p.MARKERS)]
            how = {"linestyle": "none", "marker": shape, "markersize": 5, "markerfacecolor": "none"}
        self.line = _line(self, color=p.GREY, alpha=0.75, zorder=2, **how)
        self.number = None
        if mark.run:
            style: dict[str, Any] = {"family": p.FONT, "fontsize": p.CAPTION, "color": p.MUTED, "zorder": 6}
            self.number = self.add(self.ax.text(0, 0, str(mark.run), ha="center", va="center", **style))
            # A rim, and no box: a curve beneath stays whole.
            self.number.set_path_effects([withStroke(linewidth=2.2, foreground="white")])

    def update(self, mark: Earlier) -> None:
        x, y = self.x(mark), self.y(mark.summary[0])
        self.line.set_data(x, y)
        if self.number is not None:
            there = np.flatnonzero(self._inside(x, self.ax.get_xlim()) & self._inside(y, self.ax.get_ylim()))
            self.number.set_visible(bool(there.size))
            if there.size:  # not all at the ends, where runs agree
                place = there[round((there.size - 1) * (0.93 - 0.14 * ((mark.run - 1) % 6)))]
                self.number.set_position((x[place], y[place]))

    @staticmethod
    def _inside(values: Array, ends: tuple[float, float]) -> Any:
        return np.isfinite(values) & (values >= min(ends)) & (values <= max(ends))


class BandedLine(Drawer):
    def build(self, mark: Measured) -> None:
        color = p.color(mark.color)
        self.band = _band(self, color, alpha=0.18, zorder=3.5)
        self.line = _line(self, color=color, linewidth=2.0, zorder=4)
        self.through = _through(self, color, 2.0)
        self.head = _line(self, color=color, linestyle="none", marker="o", markersize=4.2,
                          markeredgecolor="white", markeredgewidth=0.7, zorder=5, clip_on=False)  # fmt: skip

    def update(self, mark: Measured) -> None:
        x = self.x(mark)
        mean, low, high = (self.y(part) for part in mark.summary)
        self.line.set_data(x, mean)
        seen = np.flatnonzero(np.isfinite(x) & np.isfinite(mean))
        inside = [i for i in seen[-1:] if _inside(self.ax, x[i], mean[i])]
        self.head.set_data(x[inside], mean[inside])
        self.polygon(self.band, x, low, high)


def _inside(ax: Axes, x: float, y: float) -> bool:
    (left, right), (low, high) = sorted(ax.get_xlim()), sorted(ax.get_ylim())
    return bool(left <= x <= right and low <= y <= high)


class Markers(Drawer):
    def build(self, mark: Points) -> None:
        color = p.color(mark.color)
        self.bars = LineCollection([], colors=[color], linewidths=1.6, zorder=3.8)
        self.add(self.ax.add_collection(self.bars, autolim=False))
        self.line = _line(self, color=color, linewidth=1.4 if mark.line else 0, marker=p.marker(mark.color),
                          markersize=6, markeredgecolor="white", markeredgewidth=0.8, zorder=4)  # fmt: skip
        self.through = _through(self, color, 1.4) if mark.line else None

    def update(self, mark: Points) -> None:
        x = self.x(mark)
        mean, low, high = (self.y(part) for part in mark.summary)
        self.line.set_data(x, mean)
        bottom = min(self.ax.get_ylim())
        low = np.where(np.isfinite(high) & ~np.isfinite(low), bottom, low)
        kept = np.isfinite(x) & np.isfinite(low) & np.isfinite(high) & (high > low)
        self.bars.set_segments(list(np.stack([np.c_[x, low], np.c_[x, high]], axis=1)[kept]))


class ForbiddenRegion(Drawer):
    def build(self, mark: Bound) -> None:
        color = p.color(mark.color)
        self.band = _band(self, color, alpha=0.10, zorder=1)
        self.line = _line(self, color=color, linewidth=1.2, zorder=2.5)

    def update(self, mark: Bound) -> None:
        x, edge = self.x(mark), self.y(mark.summary[0])
        low, high = sorted(self.ax.get_ylim())
        far = np.full_like(edge, high if mark.side == "above" else low)
        kept = np.isfinite(edge)
        # An edge beyond the axes leaves nothing to shade.
        reach = np.clip(edge, low, high)
        self.line.set_data(x, edge)
        bottom, top = (reach, far) if mark.side == "above" else (far, reach)
        self.polygon(self.band, x[kept], bottom[kept], top[kept])


class ReferenceLine(Drawer):
    def build(self, mark: Level) -> None:
        style: dict[str, Any] = {"linewidth": 1.3, "linestyle": DOTS, "zorder": 2.8}
        place = self.ax.axhline if mark.axis == "y" else self.ax.axvline
        self.line = self.add(place(1.0, color=p.color(mark.color), **style))

    def update(self, mark: Level) -> None:
        scale = self.panel.yscale if mark.axis == "y" else self.panel.xscale
        value = float(masked(np.array(mark.value), scale))
        self.line.set_visible(bool(np.isfinite(value)))
        setter = self.line.set_ydata if mark.axis == "y" else self.line.set_xdata
        setter([value, value])


class Bars(Drawer):
    def build(self, mark: Histogram) -> None:
        color = p.color(mark.color)
        self.patch = StepPatch(np.zeros(1), np.arange(2.0), fill=True, facecolor=color, edgecolor=color,
                               alpha=0.45, linewidth=1.0, zorder=3)  # fmt: skip
        self.add(self.ax.add_patch(self.patch))

    def update(self, mark: Histogram) -> None:
        counts = mean_and_range(mark.counts)[0] if mark.counts.size else np.zeros(0)
        base = min(self.ax.get_ylim()) if self.panel.yscale in ("log", "log2") else 0.0
        self.patch.set_visible(counts.size > 0)
        if counts.size:
            heights = np.where(np.isfinite(counts) & (counts > base), counts, base)
            self.patch.set_data(heights, mark.edges, baseline=base)


class Image(Drawer):
    def build(self, mark: Raster) -> None:
        rows, columns = (max(n, 1) for n in mark.values.shape)
        self.image = self.ax.imshow(np.zeros((rows, columns)), cmap="RdBu_r" if mark.diverging else "cividis",
                                    aspect="auto", interpolation="nearest", zorder=1)  # fmt: skip
        self.add(self.image)
        self.ax.grid(False)
        for axis, names in ((self.ax.xaxis, mark.xlabels), (self.ax.yaxis, mark.ylabels)):
            if names:
                axis.set_ticks(np.arange(len(names)), list(names))
        self.image.set_clim(*_colors(mark))

    def fits(self, mark: Raster) -> bool:
        """Whether the scale of colours that stands beside the image shows another as well."""
        low, high = _colors(mark)
        drawn_low, drawn_high = self.image.get_clim()
        wide = drawn_high - drawn_low
        return bool(drawn_low <= low and high <= drawn_high and high - low > wide / 2)

    def update(self, mark: Raster) -> None:
        if mark.values.size:
            self.image.set_data(np.ma.masked_invalid(mark.values))


def _colors(mark: Raster) -> tuple[float, float]:
    """Colour range from the data: symmetric about zero when diverging."""
    seen = mark.values[np.isfinite(mark.values)]
    low, high = (float(seen.min()), float(seen.max())) if seen.size else (0.0, 1.0)
    if mark.diverging:
        high = max(abs(low), abs(high)) or 1.0
        return -high, high
    return low, high if high > low else low + 1.0


class Words(Drawer):
    def build(self, mark: Note) -> None:
        style: dict[str, Any] = {"fontsize": p.LEGEND, "family": p.FONT, "color": p.INK, "zorder": 6}
        text = self.ax.text(mark.x, mark.y, "", transform=self.ax.transAxes, va="top", ha="left", **style)
        self.text = self.add(text)
        self.text.set_bbox({"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5})

    def update(self, mark: Note) -> None:
        self.text.set_text(mark.text)


DRAWERS: dict[type, type[Drawer]] = {
    Predicted: DashedLine, Measured: BandedLine, Points: Markers, Bound: ForbiddenRegion,
    Level: ReferenceLine, Histogram: Bars, Raster: Image, Note: Words,
}  # fmt: skip


def drawer(ax: Axes, panel: Any, mark: Mark) -> Drawer:
    """The drawer of a mark; grey for an earlier run."""
    return DRAWERS.get(type(mark), GreyLine)(ax, panel, mark)
