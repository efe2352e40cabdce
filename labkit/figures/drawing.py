"""A chart on paper: the figure, and what in it can be brought up to date without drawing it again."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from enum import IntEnum
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from . import palette as p
from .artists import DOTS, Drawer, Image, dashes, drawer, grey_dashes
from .axes import Limits, limits, prepare_axis, widen
from .change import axes, kind, same_numbers
from .layout import (
    CAPTION_ROW,
    GAP,
    HANDLE,
    LEGEND_ROW,
    PIXELS,
    Cell,
    Entry,
    Layout,
    fit,
    layout,
    sides,
    spaced,
)
from .letters import Canvas
from .marks import DYNAMIC, Raster
from .overlap import show_through


class _Drawing:
    """A lock; while it is held, what the person's style or `matplotlibrc` changed is as matplotlib has it."""

    # Of the program, not of the picture; and to read the backend would choose one.
    KEPT = frozenset({"backend", "backend_fallback", "interactive"})

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._foreign: list[dict[Any, Any]] = []

    def __enter__(self) -> None:
        self._lock.acquire()
        now, plain = matplotlib.rcParams, matplotlib.rcParamsDefault
        foreign = {name: now[name] for name in plain if name not in self.KEPT and now[name] != plain[name]}
        self._foreign.append(foreign)
        now.update({name: plain[name] for name in foreign})

    def __exit__(self, *problem: object) -> None:
        matplotlib.rcParams.update(self._foreign.pop())
        self._lock.release()


DRAWING = _Drawing()
"""Held while anything is drawn: matplotlib's font and formula caches are not made for two threads."""

Held = tuple[Layout, list[tuple[Limits, Limits]]]
"""Of a chart before: where its parts stand, and the limits of its panels."""


def reach(panel: Any, held: tuple[Limits, Limits] | None = None) -> tuple[Limits, Limits]:
    """The limits (x, y) of a panel; those ``held`` from an earlier frame are kept while they suffice."""
    x, y = limits(panel, "x"), limits(panel, "y")
    if held is None or any(isinstance(mark, Raster) for mark in panel.marks):
        return x, y
    return widen(held[0], x, panel.xscale), widen(held[1], y, panel.yscale)


class Layer(IntEnum):
    """What is drawn over the figure's title, from what changes least to what moves with every frame."""

    AXES = 0  # those of panels that cannot keep theirs
    LEGENDS = 1
    STILL = 2
    MOVING = 3


class Drawing:
    """One chart drawn on one figure.

    Args:
        chart: what to draw.
        width, height: logical pixels; the height defaults to 340 a row of panels.
        dpi: dots per inch; 100 gives one dot a logical pixel.
        held: room and limits to keep where they suffice, so that axes stand still from frame to frame.
        live: leave marks, legends and caption to ``refresh`` and ``draw``, for blitting.
    """

    def __init__(self, chart: Any, width: float = 900, height: float | None = None, dpi: float = PIXELS, *,
                 held: Held | None = None, live: bool = False) -> None:  # fmt: skip
        self.chart, self.live = chart, live
        room, ends = held or (None, [])
        self.layout: Layout = layout(chart, width, height, room)
        self.reach = [reach(panel, ends[i] if ends else None) for i, panel in enumerate(chart.panels)]
        self.held: Held = (self.layout, self.reach)  # what the next refresh keeps
        size = (self.layout.width / PIXELS, self.layout.height / PIXELS)
        self.figure = Figure(figsize=size, dpi=dpi, facecolor="white")
        self.canvas = Canvas(self.figure)
        # Of each panel first the axes, then what belongs to them.
        self.axes: list[list[Artist]] = [[] for _ in chart.panels]
        self.drawers: list[list[Drawer]] = [[] for _ in chart.panels]
        self.small_ticks: list[list[Artist]] = [[] for _ in chart.panels]
        self.legends: list[Artist] = []
        self.captions: list[Artist] = []
        self.renewed: list[int] = []  # panels whose axes the last refresh replaced or gave other limits
        if chart.title:
            text, points = fit(chart.title, p.TITLE, self.layout.width - 20, bold=True)
            self._text(10, self.layout.height - 15, text, points, weight="bold")
        for i in range(len(chart.panels)):
            self._renew(i)
        self._legends()
        self._captions()

    def _renew(self, i: int) -> None:
        """Draws panel ``i`` on new axes."""
        panel, cell = self.chart.panels[i], self.layout.cells[i]
        _remove(self.axes[i][::-1])  # a scale of colours before what it belongs to
        self.drawers[i] = []
        before = set(self.figure.get_children())
        wide, high = self.layout.width, self.layout.height
        ax = self.figure.add_axes(
            (cell.left / wide, cell.bottom / high, cell.width / wide, cell.height / high), facecolor="white"
        )
        _plain(ax)
        self._set_limits(i, ax)
        self._words(panel, cell)
        self._marks(i, ax)
        if cell.bar:
            self._bar(cell, self.drawers[i])
        self.axes[i] = [ax, *self._added({ax, *before})]

    def _set_limits(self, i: int, ax: Axes) -> None:
        """Limits and ticks of panel ``i``."""
        panel, cell, (x, y) = self.chart.panels[i], self.layout.cells[i], self.reach[i]
        image = any(isinstance(mark, Raster) for mark in panel.marks)  # rows and columns count evenly
        scales = ("linear", "linear") if image else (panel.xscale, panel.yscale)
        self.small_ticks[i] = [
            *prepare_axis(ax, "x", scales[0], x, cell.width, panel.xticks),
            *prepare_axis(ax, "y", scales[1], y, cell.height, panel.yticks),
        ]
        if panel.xticks:
            places, texts = zip(*panel.xticks, strict=True)
            at = ax.transData.transform([(place, y.low) for place in places])[:, 0] * PIXELS / ax.figure.dpi
            size = spaced([float(place) for place in at], texts, p.TICK)
            ax.tick_params(axis="x", labelsize=size)

    def _stretch(self, i: int) -> None:
        """Gives panel ``i`` other limits; with its axes, ticks and artists kept that takes half the time."""
        ax: Any = self.axes[i][0]
        _remove(self.small_ticks[i])
        self._set_limits(i, ax)
        self._marks(i, ax, stretched=True)

    def _marks(self, i: int, ax: Any, stretched: bool = False) -> bool:
        """Brings the artists to the marks: one of the same kind is kept, others come and go.

        Args:
            stretched: whether the limits are others, which some marks follow.

        Returns:
            whether anything changed of what usually stands still.
        """
        panel, left, found, stirred = self.chart.panels[i], self.drawers[i], list[Drawer](), False
        for mark in panel.marks:
            wanted = kind(mark)
            old = next((one for one in left if kind(one.mark) == wanted), None)
            if old is None:
                found.append(self._drawn(ax, panel, mark, self.reach[i]))
                stirred = True
                continue
            left.remove(old)
            found.append(old)
            old.panel = panel
            if stretched or isinstance(mark, DYNAMIC) or not same_numbers(old.mark, mark):
                old.update(mark)
                stirred = stirred or not isinstance(mark, DYNAMIC)
            old.mark = mark
        _remove([artist for gone in left for artist in gone.artists])
        self.drawers[i] = found
        _uncover(found)
        return stirred or bool(left)

    def _drawn(self, ax: Any, panel: Any, mark: Any, ends: tuple[Limits, Limits]) -> Drawer:
        done = drawer(ax, panel, mark)
        ax.set_xlim(ends[0].low, ends[0].high)
        ax.set_ylim(ends[1].low, ends[1].high)
        for artist in done.artists:
            artist.set_animated(self.live)
        return done

    def _words(self, panel: Any, cell: Cell) -> None:
        if panel.xlabel:
            text, size = fit(panel.xlabel, p.LABEL, cell.width + 30)
            self._text(cell.left + cell.width / 2, cell.bottom - 34, text, size, ha="center", color=p.MUTED)
        if panel.ylabel:
            text, size = fit(panel.ylabel, p.LABEL, cell.height + 30)
            away = cell.left - sides(panel)[0] + 10
            style = {"ha": "center", "rotation": 90, "color": p.MUTED}
            self._text(away, cell.bottom + cell.height / 2, text, size, **style)

    def _bar(self, cell: Cell, drawers: list[Drawer]) -> None:
        """A narrow colour scale beside an image."""
        image = next(done.image for done in drawers if isinstance(done, Image))
        wide, high = self.layout.width, self.layout.height
        left = (cell.left + cell.width + 6) / wide
        ax = self.figure.add_axes((left, cell.bottom / high, 9 / wide, cell.height / high))
        self.figure.colorbar(image, cax=ax)
        ax.tick_params(labelsize=p.CAPTION, length=2, colors=p.MUTED, labelfontfamily=p.FONT)
        ax.yaxis.get_offset_text().set_fontsize(p.CAPTION)
        for spine in ax.spines.values():
            spine.set_visible(False)

    def _legends(self) -> None:
        """Titles, which may be longer than a panel, and legends; and the key to the line styles."""
        _remove(self.legends)
        plan, before = self.layout, set(self.figure.get_children())
        for panel, cell in zip(self.chart.panels, plan.cells, strict=True):
            title, size = fit(panel.title, p.SUBTITLE, cell.width + 40, bold=True)
            self._text(cell.left, cell.title_y, title, size, weight="bold")
            self._entries(cell.legend, cell.left, cell.legend_y, p.LEGEND, LEGEND_ROW)
        self._entries(plan.key, plan.key_x, plan.key_y, p.CAPTION, CAPTION_ROW)
        self.legends = self._animated(before)

    def _captions(self) -> None:
        _remove(self.captions)
        before = set(self.figure.get_children())
        for line, says, y in self.layout.caption:
            self._text(10, y, line, p.CAPTION, color=p.INK if says else p.MUTED)
        self.captions = self._animated(before)

    def _animated(self, before: set[Artist]) -> list[Artist]:
        found = self._added(before)
        for artist in found:
            artist.set_animated(self.live)
        return found

    def _added(self, before: set[Artist]) -> list[Artist]:
        """What the figure has beside what it had before, in order."""
        return [artist for artist in self.figure.get_children() if artist not in before]

    def _text(self, x: float, y: float, text: str, size: float, **style: Any) -> Text:
        style = {"ha": "left", "color": p.INK, **style}
        x, y = x / self.layout.width, y / self.layout.height
        common: dict[str, Any] = {"va": "center", "family": p.FONT, "rotation_mode": "anchor"}
        return self.figure.text(x, y, text, fontsize=size, **common, **style)

    def _entries(self, found: tuple[Entry, ...], x: float, y: float, size: float, row: float) -> None:
        for entry in found:
            at, level = x + entry.x, y - entry.row * row
            self._sample(entry, at, level)
            ink = p.INK if size > p.CAPTION else p.MUTED
            self._text(at + HANDLE + GAP, level, entry.text, size, color=ink)

    def _sample(self, entry: Entry, x: float, y: float) -> None:
        """The little drawing in front of a legend entry: solid when it is predicted and measured."""
        color, kinds = p.color(entry.color), entry.kinds
        if "region" in kinds or "patch" in kinds:
            self._box(x, y, color, edge="region" in kinds)
        if "earlier" in kinds:
            self._stroke(x, x + HANDLE, y, p.GREY, linewidth=1.6, linestyle=grey_dashes(entry.run))
        if "dotted" in kinds:
            self._stroke(x, x + HANDLE, y, color, linewidth=1.5, linestyle=DOTS)
        if kinds & {"solid", "points"}:
            self._stroke(x, x + HANDLE, y, color, linewidth=2.0)
        elif "dashed" in kinds:
            self._stroke(x, x + HANDLE, y, p.deeper(entry.color), linewidth=1.6,
                         linestyle=dashes(entry.turn))  # fmt: skip
        if "points" in kinds:
            mark = p.marker(entry.color)
            self._stroke(x + HANDLE / 2, x + HANDLE / 2, y, color, marker=mark, markersize=5)

    def _stroke(self, x: float, end: float, y: float, color: str, **style: Any) -> None:
        wide, high = self.layout.width, self.layout.height
        self.figure.add_artist(Line2D([x / wide, end / wide], [y / high] * 2, color=color, **style))

    def _box(self, x: float, y: float, color: str, edge: bool) -> None:
        wide, high = self.layout.width, self.layout.height
        style: dict[str, Any] = {"facecolor": color, "alpha": 0.14 if edge else 0.45, "edgecolor": "none"}
        box = Rectangle((x / wide, (y - 5) / high), HANDLE / wide, 10 / high, **style)
        self.figure.add_artist(box)
        if edge:
            self._stroke(x, x + HANDLE, y - 5, color, linewidth=1.2)

    def refresh(self, chart: Any) -> Layer | None:
        """Brings the artists to a chart with the same title, and its panels in the same places.

        Returns:
            the first layer that must be drawn again; None for another chart, of which nothing is taken over.
        """
        before, old, (room, held) = self.chart, self.layout, self.held
        plan = layout(chart, old.width, old.height, room)
        if chart.title != before.title or [*map(_place, plan.cells)] != [*map(_place, old.cells)]:
            return None
        self.chart, self.layout = chart, plan
        stirred, self.renewed = False, []
        for i, (panel, past) in enumerate(zip(chart.panels, before.panels, strict=True)):
            alike = axes(panel) == axes(past)
            ends = reach(panel, held[i] if alike else None)
            if alike and ends == self.reach[i] and self._fits(i, panel):
                stirred = self._marks(i, self.axes[i][0]) or stirred
            else:
                self.reach[i] = ends
                self._stretch(i) if alike and self._fits(i, panel) else self._renew(i)
                self.renewed.append(i)
        self.held = (plan, self.reach)
        if plan.caption != old.caption:
            self._captions()
            stirred = True
        legends = replace(plan, caption=old.caption) != old
        if legends or self.renewed:
            self._legends()
            return Layer.AXES if self.renewed else Layer.LEGENDS
        return Layer.STILL if stirred else Layer.MOVING

    def _fits(self, i: int, panel: Any) -> bool:
        images = [mark for mark in panel.marks if isinstance(mark, Raster)]
        drawn = [done for done in self.drawers[i] if isinstance(done, Image)]
        return all(done.fits(mark) for done, mark in zip(drawn, images, strict=True))

    def draw(self, layer: Layer) -> None:
        """Draws a layer over what is there."""
        artists: Sequence[Artist] = self.legends
        if layer == Layer.AXES:
            artists = [one for i in self.renewed for one in (self._blank(i), *self.axes[i])]
        elif layer != Layer.LEGENDS:
            moving = layer == Layer.MOVING
            artists = [
                artist
                for drawers in self.drawers
                for done in drawers
                if isinstance(done.mark, DYNAMIC) == moving
                for artist in done.artists
            ]
            artists = sorted(artists, key=lambda one: one.get_zorder())
        for artist in [*artists, *(self.captions if layer == Layer.STILL else ())]:
            self.figure.draw_artist(artist)

    def _blank(self, i: int) -> Artist:
        """White over the place of a panel, its words included."""
        left, bottom, right, top = self.layout.places[i]
        wide, high = self.layout.width, self.layout.height
        place = Rectangle((left / wide, bottom / high), (right - left) / wide, (top - bottom) / high)
        place.set(facecolor="white", edgecolor="none", transform=self.figure.transFigure, figure=self.figure)
        return place


def _place(cell: Cell) -> Cell:
    return replace(cell, legend=())


def _remove(artists: Sequence[Artist]) -> None:
    for artist in artists:
        artist.remove()


def _uncover(drawers: list[Drawer]) -> None:
    """Lets curves show through those that lie on them."""
    if curves := [(done.line, done.through) for done in drawers if done.through is not None]:
        show_through(drawers[0].ax, curves)


def _plain(ax: Axes) -> None:
    """No box, pale horizontal lines, small quiet ticks."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(p.SPINE)
        ax.spines[side].set_linewidth(0.8)
    ax.grid(True, axis="y", color=p.GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.margins(0)
    style: dict[str, Any] = {"colors": p.SPINE, "labelcolor": p.MUTED, "labelsize": p.TICK}
    ax.tick_params(length=3, width=0.8, labelfontfamily=p.FONT, **style)
