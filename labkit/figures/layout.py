"""Where everything in a chart stands, from measured text and never from the data.

All lengths are logical pixels (100 to the inch). Titles, legends and captions have rows of their own outside
the axes, so nothing can cover a curve, and the axes stay where they are from the first frame to the last.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

from matplotlib.cbook import is_math_text
from matplotlib.font_manager import FontProperties

from . import palette as p
from .letters import size_of
from .marks import Bound, Earlier, Histogram, Level, Measured, Points, Predicted, Raster, turn

PIXELS = 100  # logical pixels per inch
ROW = 340  # default height of one row of panels
HANDLE, GAP, BETWEEN = 22.0, 5.0, 15.0  # legend: length of a sample, space to its text, space to the next
LEGEND_ROW, CAPTION_ROW = 17.0, 13.0
LOWEST = 4 + CAPTION_ROW / 2  # middle of the lowest row of caption and key


@lru_cache(maxsize=4096)
def text_width(text: str, size: float, bold: bool = False) -> float:
    """Width of ``text`` in logical pixels at ``size`` points.

    The wider of what one and two dots a pixel give: small letters are set on whole dots, so a line that just
    fits at one resolution may not at the other.
    """
    if not text:
        return 0.0
    font = FontProperties(family=p.FONT, size=size, weight="bold" if bold else "normal")
    return float(max(size_of(dots * PIXELS, text, font, is_math_text(text))[0] / dots for dots in (1, 2)))


def fit(text: str, size: float, room: float, bold: bool = False) -> tuple[str, float]:
    """``text`` and a size at which it is at most ``room`` pixels wide: smaller first, then shortened."""
    wide = text_width(text, size, bold)
    if wide <= room or not text:
        return text, size
    smaller = max(0.8 * size, size * room / wide)
    if text_width(text, smaller, bold) <= room or "$" in text:
        return text, smaller
    return cut(text, smaller, room, bold), smaller


def spaced(places: Sequence[float], texts: Sequence[str], size: float) -> float:
    """The size, not below four fifths of ``size``, at which texts centred at these pixels keep apart."""
    share = 1.0
    for (here, one), (there, other) in pairwise(sorted(zip(places, texts, strict=True))):
        wide = [max(text_width(line, size) for line in text.split("\n")) for text in (one, other)]
        share = min(share, (there - here) / (sum(wide) / 2 + GAP))
    return max(0.8, share) * size


def cut(text: str, size: float, room: float, bold: bool = False) -> str:
    """``text`` shortened to at most ``room`` pixels, with "…" where something is left out."""
    if text_width(text, size, bold) <= room:
        return text
    while len(text) > 1 and text_width(text + "…", size, bold) > room:
        text = text[:-1].rstrip()
    return text + "…"


def wrap(text: str, size: float, room: float, rows: int) -> list[str]:
    """``text`` broken at " · " or spaces into at most ``rows`` lines; the rest becomes "…"."""
    joint = " · " if " · " in text else " "
    lines: list[str] = []
    pieces = text.split(joint) if text else []
    while pieces and len(lines) <= rows:
        held = _held(pieces, joint, size, room)
        lines.append(joint.join(pieces[:held]))
        pieces = pieces[held:]
    if len(lines) > rows:
        last = lines[rows - 1]
        while joint in last and text_width(f"{last} …", size) > room:
            last = last.rpartition(joint)[0]
        lines = [*lines[: rows - 1], f"{last} …"]
    return [fit(line, size, room)[0] for line in lines]


def _held(pieces: Sequence[str], joint: str, size: float, room: float) -> int:
    """How many pieces a line holds, at least one."""
    counts = range(1, len(pieces) + 1)
    return max(bisect(counts, room, key=lambda count: text_width(joint.join(pieces[:count]), size)), 1)


@dataclass(frozen=True)
class Entry:
    """One legend entry: what its sample shows, in which colour, and its text."""

    kinds: frozenset[str]
    color: p.Color
    text: str
    x: float = 0.0
    row: int = 0
    run: int = 0
    turn: int = 0


_KINDS = {
    Predicted: "dashed", Measured: "solid", Points: "points", Bound: "region", Earlier: "earlier",
    Level: "dotted", Histogram: "patch",
}  # fmt: skip


def entries(panel: Any) -> list[Entry]:
    """The legend of a panel: one entry a colour and label, whether predicted, measured or both."""
    found: dict[tuple[p.Color, str], set[str]] = {}
    for mark in panel.marks:
        if type(mark) in _KINDS and mark.label and not getattr(mark, "run", 0):  # the key explains grey
            found.setdefault((mark.color, mark.label), set()).add(_KINDS[type(mark)])
    ordered = sorted(found.items(), key=lambda item: item[1] == {"earlier"})
    return [Entry(frozenset(kinds), *which, turn=turn(panel.marks, *which)) for which, kinds in ordered]


def key(chart: Any) -> list[Entry]:
    """What the line styles mean: once a figure, beside the caption."""
    kinds = {type(mark) for panel in chart.panels for mark in panel.marks}
    seeds = any(
        mark.y.ndim == 2 and (len(mark.y) > 1 or not mark.y.size)  # no data yet: seeds are to come
        for panel in chart.panels
        for mark in panel.marks
        if isinstance(mark, (Measured, Points))
    )
    found = []
    if Predicted in kinds:
        found.append(Entry(frozenset({"dashed"}), p.MUTED, "predicted"))
    if kinds & {Measured, Points}:
        style = "solid" if Measured in kinds else "points"
        shape = "band" if Measured in kinds else "bar"
        found.append(Entry(frozenset({style}), p.MUTED, f"measured: mean, {shape} from lowest to highest seed"
                           if seeds else "measured"))  # fmt: skip
    if Bound in kinds:
        found.append(Entry(frozenset({"region"}), p.MUTED, "ruled out"))
    if Earlier in kinds:
        runs = {
            mark.run: mark.name for panel in chart.panels for mark in panel.marks if isinstance(mark, Earlier)
        }
        nameless = runs.pop(0, None) is not None and not runs
        found += [Entry(frozenset({"earlier"}), "grey", "earlier run")] if nameless else []
        found += [
            Entry(frozenset({"earlier"}), "grey", f"{n}: {name}", run=n) for n, name in sorted(runs.items())
        ]
    return found


def shortened(found: list[Entry], size: float, room: float) -> list[Entry]:
    """The entries of one row; where they are too wide for it, the names of runs give way."""

    def wide(entries: list[Entry]) -> float:
        return sum(HANDLE + GAP + text_width(entry.text, size) + BETWEEN for entry in entries) - BETWEEN

    names = [entry for entry in found if entry.run]
    if wide(found) <= room or not names:
        return found
    least = wide([replace(entry, text=f"{entry.run}: …") for entry in names])
    rest = [entry for entry in found if not entry.run]
    while rest and wide(rest) + BETWEEN + least > room:
        rest.pop()  # what a solid line means is told by the legends, too
    taken = wide(rest) + BETWEEN if rest else 0.0
    each = (room - taken + BETWEEN) / len(names) - HANDLE - GAP - BETWEEN - 1
    return [*rest, *(replace(entry, text=cut(entry.text, size, each)) for entry in names)]


def arrange(found: list[Entry], size: float, room: float, rows: int) -> list[Entry]:
    """Gives every entry its place, left to right and then down; beyond ``rows`` rows it is left out."""
    placed, x, row = [], 0.0, 0
    for entry in found:
        text, _ = fit(entry.text, size, max(room - HANDLE - GAP, 20.0))
        wide = HANDLE + GAP + text_width(text, size)
        if x and x + wide > room:
            x, row = 0.0, row + 1
        if row >= rows:
            break
        placed.append(replace(entry, text=text, x=x, row=row))
        x += wide + BETWEEN
    return placed


@dataclass(frozen=True)
class Cell:
    """One panel: its axes, in pixels from the lower left corner, and its legend."""

    left: float
    bottom: float
    width: float
    height: float
    legend: tuple[Entry, ...]
    title_y: float
    legend_y: float
    bar: bool = False


@dataclass(frozen=True)
class Layout:
    width: float
    height: float
    cells: tuple[Cell, ...]
    caption: tuple[tuple[str, bool, float], ...]  # each line, whether it is a sentence, height of its middle
    key: tuple[Entry, ...]
    key_x: float
    key_y: float
    # Left, bottom, right and top of each panel with its words.
    places: tuple[tuple[float, float, float, float], ...]
    legend_rows: tuple[int, ...]  # of each row of panels
    foot_rows: int  # of captions and key


def grid(count: int) -> tuple[int, int]:
    """Rows and columns for ``count`` panels: up to three side by side."""
    rows = -(-count // 3) if count else 1
    return rows, -(-count // rows) if count else 1


def layout(chart: Any, width: float, height: float | None, held: Layout | None = None) -> Layout:
    """Places the parts of ``chart`` on ``width`` by ``height`` logical pixels (340 a row when None).

    ``held``: of a chart before it with as many panels, whose room for legends and captions is kept, so that
    axes stand still when a name comes or goes.
    """
    rows, columns = grid(len(chart.panels))
    held = held if held and len(held.cells) == len(chart.panels) else None
    height = float(height if height is not None else ROW * rows)
    margin = 10.0
    room = width - 2 * margin
    styles = arrange(shortened(key(chart), p.CAPTION, room), p.CAPTION, room, 1)
    key_wide = max((e.x + HANDLE + GAP + text_width(e.text, p.CAPTION) for e in styles), default=0.0)
    written, foot_rows = _caption(chart.caption, room, room - key_wide - 20, bool(styles))
    foot_rows = max(foot_rows, held.foot_rows if held else 0)
    foot = foot_rows * CAPTION_ROW + (8 if foot_rows else 2)
    head = 28.0 if chart.title else 2.0
    cell_wide, cell_high = width / columns, (height - head - foot) / rows
    strips = []
    for panel in chart.panels:
        left, right = sides(panel)
        listed = entries(panel) if panel.legend else []
        strips.append((left, right, arrange(listed, p.LEGEND, cell_wide - left - right, len(listed))))
    legend_rows = _legend_rows(
        [strip for *_, strip in strips], columns, held.legend_rows if held else rows * (0,)
    )
    cells, places = [], []
    for i, (panel, (left, right, strip)) in enumerate(zip(chart.panels, strips, strict=True)):
        row, column = divmod(i, columns)
        beside_it = range(row * columns, min((row + 1) * columns, len(strips)))
        legend = legend_rows[row] * LEGEND_ROW
        title = 24.0 if any(chart.panels[j].title for j in beside_it) else 4.0
        below = 22.0 + (18.0 if any(chart.panels[j].xlabel for j in beside_it) else 2.0)
        top = height - head - row * cell_high - (8 if row else 0)  # a title keeps off the label above it
        bottom = height - head - (row + 1) * cell_high + below
        used = title + legend + (6 if legend else 2)
        bar = any(isinstance(mark, Raster) for mark in panel.marks)
        inner = max(cell_wide - left - right, 10.0), max(top - used - bottom, 10.0)
        heights = top - 14, top - title - 8
        places.append((column * cell_wide, bottom - below - 3, (column + 1) * cell_wide, top))
        cells.append(Cell(column * cell_wide + left, bottom, *inner, tuple(strip), *heights, bar))
    return Layout(
        width, height, tuple(cells), tuple(written), tuple(styles), width - margin - key_wide, LOWEST,
        tuple(places), legend_rows, foot_rows,
    )  # fmt: skip


def _legend_rows(strips: Sequence[Sequence[Entry]], columns: int, least: tuple[int, ...]) -> tuple[int, ...]:
    """Rows of legend above each row of panels: neighbours share them, so that their axes line up."""
    beside = [strips[start : start + columns] for start in range(0, len(strips), columns)]
    return tuple(
        max([few, *(strip[-1].row + 1 for strip in row if strip)])
        for few, row in zip(least, beside or [[]], strict=True)
    )


def _caption(text: str, room: float, beside: float, key: bool) -> tuple[list[tuple[str, bool, float]], int]:
    """The lines of a caption, as in `Layout`, and the rows that they and the key take.

    ``beside``: room beside the key, in which the last line ends; else the key has a row of its own.
    """
    says, *facts = (wrap(part, p.CAPTION, room, 2) for part in text.split("\n", 1))
    lines = [(line, True) for line in says] + [(line, False) for part in facts for line in part]
    own_row = key and (not lines or text_width(lines[-1][0], p.CAPTION) > beside)
    heights = (LOWEST + CAPTION_ROW * (i + own_row) for i in range(len(lines)))
    written = [(*line, height) for line, height in zip(reversed(lines), heights, strict=True)]
    return written, len(lines) + own_row


def sides(panel: Any) -> tuple[float, float]:
    """Room left and right of the axes of a panel."""
    left = 46.0 + (18.0 if panel.ylabel else 0.0)
    names = [text for mark in panel.marks if isinstance(mark, Raster) for text in mark.ylabels]
    names += [text for _, text in panel.yticks or ()]
    if names:
        left = 14.0 + max(text_width(text, p.TICK) for text in names) + (18.0 if panel.ylabel else 0.0)
    bar = any(isinstance(mark, Raster) for mark in panel.marks)
    return left, 60.0 if bar else 16.0
