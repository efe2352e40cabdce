"""Text as dots that are kept: a figure writes the same words again and again, and letters are dear.

matplotlib sets each letter by itself, 0.1 ms (3.11): all texts together were a third of a figure's time. Here
they stand on whole dots, as they did in older versions, so that a text has the same dots wherever it stands.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, radians
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.font_manager import FontProperties
from matplotlib.transforms import Bbox

EDGE = 3  # dots around a text, for letters that lean out of their box


class KeptLetters(RendererAgg):
    """Draws a text from the dots of the same text before, if there are any."""

    def draw_text(
        self, gc: Any, x: float, y: float, s: str, prop: FontProperties, angle: float,
        ismath: Any = False, mtext: Any = None,
    ) -> None:  # fmt: skip
        ink, left, below = _ink(self.dpi, s, prop, angle, ismath)
        self._renderer.draw_text_image(ink, round(x) - left, round(y) + below, 0, gc)

    def get_text_width_height_descent(self, s: str, prop: FontProperties, ismath: Any) -> Any:
        return size_of(self.dpi, s, prop, ismath)


class Canvas(FigureCanvasAgg):
    """What figures are drawn on."""

    _made: tuple[float, ...] = ()

    def get_renderer(self) -> RendererAgg:
        wanted = (*self.figure.bbox.size, self.figure.dpi)
        if self._made != wanted:
            self.renderer, self._made = KeptLetters(*wanted), wanted
        return self.renderer


@lru_cache(maxsize=4096)
def size_of(dpi: float, s: str, prop: FontProperties, ismath: Any) -> tuple[float, float, float]:
    """Width, height and descent of a text in dots."""
    return RendererAgg(1, 1, dpi).get_text_width_height_descent(s, prop, ismath)


@lru_cache(maxsize=1024)
def _ink(dpi: float, s: str, prop: FontProperties, angle: float, ismath: Any) -> tuple[np.ndarray, int, int]:
    """Ink of each dot of a text, (rows, columns) of bytes; and columns left of its place, rows below."""
    wide, high, descent = size_of(dpi, s, prop, ismath)
    box = Bbox([(0, -descent), (wide, high - descent)]).rotated(radians(angle))
    left, right, above, below = (ceil(side) + EDGE for side in (-box.x0, box.x1, box.y1, -box.y0))
    sheet = RendererAgg(left + right, above + below, dpi)
    sheet.draw_text(sheet.new_gc(), left, above, s, prop, angle, ismath)
    return np.array(sheet.buffer_rgba())[..., 3], left, below
