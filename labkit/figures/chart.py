"""Panels and charts: what a figure says, apart from how it is drawn."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import PIL.Image
from matplotlib.figure import Figure
from PIL.PngImagePlugin import PngInfo

from .axes import SCALES
from .drawing import DRAWING, Drawing
from .layout import PIXELS
from .marks import Earlier, Mark, Measured, Points, is_empty

# What a mark says, for those who cannot see it.
_SAID = {
    "Predicted": "predicted", "Measured": "measured", "Points": "measured", "Bound": "ruled out",
    "Earlier": "earlier run",
}  # fmt: skip
Ends = tuple[float | None, float | None]
Ticks = Sequence[tuple[float, str]]


@dataclass(frozen=True, eq=False)
class Panel:
    """One pair of axes and the marks on it.

    Attributes:
        title: what the panel shows, in a few words.
        marks: what stands in it, later ones on top within their kind.
        xscale, yscale: "linear", "log", "log2" or "symlog".
        xlim, ylim: (low, high), either of them None for "from the data".
        legend: whether labels are listed above the axes.
        xticks, yticks: ticks as (place, text), for categories.
    """

    title: str
    marks: Sequence[Mark] = ()
    xlabel: str = ""
    ylabel: str = ""
    xscale: str = "linear"
    yscale: str = "linear"
    xlim: Ends | None = None
    ylim: Ends | None = None
    legend: bool = True
    xticks: Ticks | None = None
    yticks: Ticks | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "marks", tuple(self.marks))
        for name in ("xscale", "yscale"):
            if getattr(self, name) not in SCALES:
                raise ValueError(f"{name} must be one of {', '.join(SCALES)}; got {getattr(self, name)!r}")
        for name, scale in (("xlim", self.xscale), ("ylim", self.yscale)):
            ends = getattr(self, name)
            low = any(end is not None and end <= 0 for end in ends or ())
            if low and scale in ("log", "log2"):
                raise ValueError(f"{name} must be positive on a {scale} axis; got {ends!r}")

    def has_axes_of(self, other: Panel) -> bool:
        """Whether a place means the same in both: the axes have equal labels, and no tick has two names."""
        names = dict(other.xticks or ())
        return (self.xlabel, self.ylabel) == (other.xlabel, other.ylabel) and all(
            names.get(place, text) == text for place, text in self.xticks or ()
        )

    @property
    def words(self) -> str:
        """What the panel shows, for those who cannot see it: title, axes, and which curves there are."""
        shown: dict[str, list[str]] = {}
        for mark in self.marks:
            label = getattr(mark, "label", "")
            kind = _SAID.get(type(mark).__name__, "shown")
            if label and label not in shown.setdefault(kind, []):
                shown[kind].append(label)
        axes = f"{self.ylabel} against {self.xlabel}" if self.xlabel and self.ylabel else self.ylabel
        curves = [f"{kind}: {', '.join(labels)}" for kind, labels in shown.items() if labels]
        return ". ".join(part for part in (self.title, axes, *curves) if part)


@dataclass(frozen=True, eq=False)
class Chart:
    """Panels side by side (more than three in rows), with a title above and a caption below.

    The first line of the caption is a sentence on what is shown; settings follow on the next (`caption`).
    Shown in a notebook as a picture with constant text, so that stored outputs compare equal.
    """

    panels: Sequence[Panel]
    caption: str = ""
    title: str = ""

    def __post_init__(self) -> None:
        panels = (self.panels,) if isinstance(self.panels, Panel) else tuple(self.panels)
        object.__setattr__(self, "panels", panels)

    @classmethod
    def of(cls, settings: Any, says: str, *panels: Panel) -> Chart:
        """A chart with a caption: a sentence on what is shown, and the settings.

        Args:
            settings: a settings dataclass, or None.
            says: the sentence.
            *panels: from left to right.

        Returns:
            Chart.
        """
        return cls(panels, caption(says, settings))

    def render(self, width: float = 900, height: float | None = None, dpi: float = PIXELS) -> Figure:
        """Draws the chart.

        Args:
            width, height: logical pixels, 100 to the inch; the height defaults to 340 a row of panels.
            dpi: 100 gives one dot a logical pixel, 200 twice as many.
        """
        with DRAWING:
            return Drawing(self, width, height, dpi).figure

    def png(self, width: float = 900, height: float | None = None, dpi: float = PIXELS,
            metadata: Mapping[str, Any] | None = None) -> bytes:  # fmt: skip
        """The chart as PNG, with its provenance in the text chunks."""
        notes = PngInfo()
        for name, value in self.provenance(metadata).items():
            notes.add_itxt(name, value)
        buffer = io.BytesIO()
        with DRAWING:
            canvas = Drawing(self, width, height, dpi).canvas
            canvas.draw()
            picture = PIL.Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
        picture.save(buffer, "png", pnginfo=notes, dpi=(dpi, dpi))
        return buffer.getvalue()

    def svg(self, width: float = 900, height: float | None = None,
            metadata: Mapping[str, Any] | None = None) -> bytes:  # fmt: skip
        """The chart as SVG, with its provenance as Dublin Core; the same chart gives the same bytes."""
        facts = self.provenance(metadata)
        named = {"Title": facts.pop("Title", None), "Creator": facts.pop("Software"), "Date": None}
        named["Description"] = "; ".join(f"{name}: {value}" for name, value in facts.items())
        buffer = io.BytesIO()
        with DRAWING, matplotlib.rc_context({"svg.hashsalt": "labkit"}):
            self.render(width, height).savefig(buffer, format="svg", metadata=named)
        return buffer.getvalue()

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None,
             width: float = 900, height: float | None = None) -> Path:  # fmt: skip
        """Writes a .png (at twice the screen's resolution) or an .svg.

        Raises:
            ValueError: the path ends in neither.
        """
        target = Path(path)
        if target.suffix.lower() == ".png":
            data = self.png(width, height, 2 * PIXELS, metadata)
        elif target.suffix.lower() == ".svg":
            data = self.svg(width, height, metadata)
        else:
            raise ValueError(f"path must end in .png or .svg; got {str(path)!r}")
        target.write_bytes(data)
        return target

    def provenance(self, more: Mapping[str, Any] | None = None) -> dict[str, str]:
        """Where the picture comes from: title, caption with settings and seeds, versions, and ``more``."""
        titles = self.title or " · ".join(panel.title for panel in self.panels if panel.title)
        facts = {"Title": titles, "Description": self.caption, "Software": versions()}
        facts["Earlier runs"] = "; ".join(f"{number}: {name}" for number, name in self.runs.items())
        facts |= {str(name): str(value) for name, value in (more or {}).items()}
        return {name: value for name, value in facts.items() if value}

    def over(self, earlier: Sequence[tuple[str, Chart]]) -> Chart:
        """The chart over those of earlier runs, of which the measurements are drawn, in grey and numbered.

        Args:
            earlier: (what sets that run apart, its chart).

        Returns:
            The chart, with grey curves below its own.
        """
        panels = []
        for i, panel in enumerate(self.panels):
            marks = list(panel.marks)
            for run, (name, chart) in reversed([*enumerate(earlier, start=1)]):
                marks[:0] = _in_grey(_counterpart(self, i, chart), run, name)
            panels.append(replace(panel, marks=marks))
        return replace(self, panels=panels)

    def there(self) -> Chart:
        """The chart with the marks that hold numbers: no name in a legend of what is not measured yet."""
        return replace(self, panels=tuple(
            replace(panel, marks=tuple(mark for mark in panel.marks if not is_empty(mark)))
            for panel in self.panels
        ))  # fmt: skip

    def emptied(self, caption: str) -> Chart:
        """The axes and words without anything in them, and another caption."""
        bare = tuple(replace(panel, marks=()) for panel in self.panels)
        return replace(self, panels=bare, caption=caption)

    @property
    def runs(self) -> dict[int, str]:
        """The earlier runs that are drawn: number -> name."""
        found = [mark for panel in self.panels for mark in panel.marks if isinstance(mark, Earlier)]
        return dict(sorted({mark.run: mark.name for mark in found if mark.run}.items()))

    @property
    def words(self) -> str:
        """What the figure shows, as a sentence and panel by panel, for those who cannot see it."""
        says = self.caption.partition("\n")[0].removesuffix(".")
        parts = ("Figure", self.title, says, *(panel.words for panel in self.panels))
        return ". ".join(part for part in parts if part)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], ...]:
        """The picture, with its words as the alternative text of a notebook shown as a web page."""
        there = self.there()
        return {"image/png": there.png(), "text/plain": repr(self)}, {"image/png": {"alt": there.words}}

    def __repr__(self) -> str:
        return "<Chart>"


def _counterpart(here: Chart, i: int, there: Chart) -> Panel:
    """What another chart shows where this one shows panel ``i``; an empty panel where that is something else.

    Panels go by their titles; one that only its own chart has, such as a title with a number, by its place.
    """
    panel, titles = here.panels[i], [one.title for one in here.panels]
    place, every = there.panels[i : i + 1], there.panels
    found = [one for one in (*place, *every) if one.title == panel.title]
    found = found or [one for one in place if one.title not in titles]
    return found[0] if found and panel.has_axes_of(found[0]) else Panel("")


def _in_grey(panel: Panel, run: int, name: str) -> list[Mark]:
    """The measurements of a panel, as those of an earlier run."""
    return [
        Earlier(mark.x, mark.y, mark.label, run=run, name=name, line=getattr(mark, "line", True))
        for mark in panel.marks
        if isinstance(mark, (Measured, Points)) and not is_empty(mark)
    ]


def versions() -> str:
    """labkit and the libraries that made the numbers, with versions."""
    found = []
    for name in ("labkit", "torch", "numpy", "matplotlib"):
        version = getattr(sys.modules.get(name), "__version__", None)
        found.append(f"{name} {version}" if version else name if name == "labkit" else "")
    return ", ".join(part for part in found if part)


def caption(says: str, settings: Any = None, **extra: Any) -> str:
    """What is shown, and a line of provenance: every setting but the seeds, then ``extra``, then the seeds.

    Args:
        says: one sentence on what the figure shows.
        settings: a settings dataclass, or None.
        **extra: more facts to state, such as ``eta=0.1``.

    Returns:
        The sentence and, on a line of its own, the facts, separated by " · ".
    """
    facts = {}
    if settings is not None:
        facts = {item.name: getattr(settings, item.name) for item in fields(settings)}
    seed, seeds = facts.pop("seed", None), facts.pop("seeds", None)
    device = facts.pop("device", None)
    knobs = settings.knobs() if hasattr(settings, "knobs") else {}
    words = [_fact(getattr(knobs.get(name), "label", "") or name, value, getattr(knobs.get(name), "unit", ""))
             for name, value in (facts | extra).items() if value is not None]  # fmt: skip
    if device not in (None, "cpu"):
        words.append(str(device))
    if seeds is not None:
        first = seed or 0
        words.append(f"seeds {first}–{first + seeds - 1}" if seeds > 1 else f"seed {first}")
    elif seed is not None:
        words.append(f"seed {seed}")
    return "\n".join(filter(None, (says, " · ".join(words))))


def _fact(name: str, value: Any, unit: str = "") -> str:
    words = name.replace("_", " ")
    if isinstance(value, (bool, np.bool_)):
        return words if value else f"no {words}"
    text = f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)
    return f"{words} {text} {unit}".rstrip()
