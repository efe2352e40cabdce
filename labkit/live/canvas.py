"""PNG frames of a chart, cheap enough to watch training with.

What lies below each `Layer` is kept as pixels: the axes with their titles; with legends; with bounds, levels
and earlier runs. A frame of training restores the last, draws the curves that moved and encodes; a run that
turns grey costs the layers from the legends on; a panel with other limits draws its axes again, one with
other words gets new ones, and only where panels stand elsewhere is everything made again.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import PIL.Image

from labkit.figures import DRAWING, Chart, Drawing, Layer


def encode(pixels: np.ndarray) -> bytes:
    """(rows, columns, 4) RGBA bytes -> PNG of the colours, without transparency.

    Written here because it takes half the time of an image library's writer, which tries filters on every
    row; flat pictures compress better without (49 against 60 kB).
    """
    rows, columns = pixels.shape[:2]
    lines = np.zeros((rows, 1 + 3 * columns), dtype=np.uint8)  # each line begins with its filter: none
    # Pillow drops the fourth channel in a third of the time that a strided copy takes.
    lines[:, 1:] = np.asarray(PIL.Image.fromarray(pixels).convert("RGB")).reshape(rows, -1)
    head = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)  # eight bits, three colours
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(lines.data, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


class Canvas:
    """Draws a sequence of charts as frames.

    Args:
        width, height: logical pixels; the height defaults to 340 a row of panels.
    """

    def __init__(self, width: int = 900, height: int | None = None) -> None:
        self.width, self.height = width, height
        self.redraws = 0
        self._drawing: Drawing | None = None
        self._below: dict[Layer, Any] = {}  # the pixels that a layer is drawn on

    def frame(self, chart: Chart) -> bytes:
        """The chart as PNG at one dot a logical pixel."""
        with DRAWING:
            drawing = self._drawing
            first = drawing.refresh(chart) if drawing else None
            if drawing is None or first is None:
                drawing, first = self._redraw(chart), Layer.LEGENDS
            self.redraws += first == Layer.AXES
            canvas = drawing.canvas
            canvas.restore_region(self._below[max(first, Layer.LEGENDS)])
            for layer in list(Layer)[first:]:
                if layer != Layer.AXES:
                    self._below[layer] = canvas.copy_from_bbox(drawing.figure.bbox)
                drawing.draw(layer)
            return encode(np.asarray(canvas.buffer_rgba()))

    def _redraw(self, chart: Chart) -> Drawing:
        drawing = Drawing(chart, self.width, self.height, held=self._held(chart), live=True)
        drawing.canvas.draw()
        self._below[Layer.LEGENDS] = drawing.canvas.copy_from_bbox(drawing.figure.bbox)
        self._drawing = drawing
        self.redraws += 1
        return drawing

    def sharp(self, chart: Chart, *, refit: bool = False) -> bytes:
        """The chart as PNG at two dots a logical pixel, for when it rests.

        Args:
            chart: what to draw.
            refit: take no more room than it needs, nor limits for curves that grow, which the next frame then
                keeps where they suffice; otherwise those of the last frame.
        """
        with DRAWING:
            held = None if refit else self._held(chart)
            drawing = Drawing(chart, self.width, self.height, dpi=200, held=held)
            if refit and self._drawing and _comparable(self._drawing.chart, chart):
                self._drawing.held = drawing.held
            drawing.canvas.draw()
            return encode(np.asarray(drawing.canvas.buffer_rgba()))

    def _held(self, chart: Chart) -> Any:
        """Room and limits that hold, where they mean something for this chart."""
        drawing = self._drawing
        return drawing.held if drawing and _comparable(drawing.chart, chart) else None


def _comparable(old: Chart, new: Chart) -> bool:
    """Whether limits found for one chart mean something for the other."""
    axes = [[(p.title, p.xscale, p.yscale, p.xlabel, p.ylabel) for p in chart.panels] for chart in (old, new)]
    return axes[0] == axes[1]
