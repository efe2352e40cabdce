"""The figure of a run as pictures, a panel each: side by side on a desk, one below the other on a phone."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import replace
from html import escape
from typing import Any

import PIL.Image
from PIL.PngImagePlugin import PngInfo

from labkit.figures import Chart, Panel
from labkit.protocol.experiment import Run

# Logical pixels; drawn at twice as many. A phone shows a panel at 3/4 of its size, which is still legible.
_WIDE, _NARROW, _HEIGHT = 480, 400, 330


def figure(run: Run) -> str:
    """The figure element of a run: its panels as images with a text each, and the caption."""
    chart = run.figure()
    notes = {"Settings": run.settings.to_dict(), "Experiment": run.experiment.name}
    even = len(chart.panels) in (1, 2, 4)  # two beside each other; others three
    width = _WIDE if even else _NARROW
    images = "\n".join(_image(panel, chart, notes, width) for panel in chart.panels)
    caption = " · ".join(text for text in (chart.title, chart.caption) if text)
    below = f"\n<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure>\n<div class="panels{" even" if even else ""}">{images}</div>{below}\n</figure>'


def _image(panel: Panel, chart: Chart, notes: Mapping[str, Any], width: float) -> str:
    # Alone, it lists its curves itself; a label's row stays free, for ticks of two lines reach into it.
    alone = replace(panel, legend=True, xlabel=panel.xlabel or " ")
    single = Chart((alone,), caption=chart.caption)
    # The caption stands below the figure as text; in the picture it stays as metadata.
    drawn = PIL.Image.open(io.BytesIO(replace(single, caption="").png(width, _HEIGHT, dpi=200)))
    facts = PngInfo()
    for name, value in single.provenance(notes).items():
        facts.add_itxt(name, value)
    # 256 colours chosen for this picture: no visible difference, and a third of the size.
    few = drawn.convert("RGB").quantize(
        256, method=PIL.Image.Quantize.MAXCOVERAGE, dither=PIL.Image.Dither.NONE
    )
    buffer = io.BytesIO()
    few.save(buffer, "png", optimize=True, pnginfo=facts, dpi=(200, 200))
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return (
        f'<img alt="{escape(panel.words or "figure")}" width="{width}" height="{_HEIGHT}" '
        f'src="data:image/png;base64,{data}">'
    )
