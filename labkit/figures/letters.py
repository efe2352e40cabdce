"""Text as dots that are kept: a figure writes the same words again and again, and letters are dear.

matplotlib sets each letter by itself, 0.1 ms (3.11): all texts together were a third of a figure's time. Here
they stand on whole dots, as they did in older versions, so that a text has the same dots wherever it stands.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, radians
from typing import Any
from unicodedata import bidirectional

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


@lru_cache(maxsize=1024)
def _words(s: str, ismath: Any) -> tuple[str, ...]:
    """What of a text stands side by side, a space apart: all of it, where it is not written so."""
    if ismath or any(bidirectional(letter) in ("R", "AL") for letter in s):
        return (s,)
    return tuple(s.split(" "))


def size_of(dpi: float, s: str, prop: FontProperties, ismath: Any) -> tuple[float, float, float]:
    """Width, height and descent of a text in dots, from its words, most of which are known."""
    words = _words(s, ismath)
    sizes = [_size_of(dpi, word, prop, ismath) for word in words if word]
    if len(words) == 1 or not sizes:
        return _size_of(dpi, s, prop, ismath)
    below = max(descent for *_, descent in sizes)
    wide = sum(width for width, *_ in sizes) + (len(words) - 1) * _size_of(dpi, " ", prop, ismath)[0]
    return wide, max(height - descent for _, height, descent in sizes) + below, below


@lru_cache(maxsize=4096)
def _size_of(dpi: float, s: str, prop: FontProperties, ismath: Any) -> tuple[float, float, float]:
    return RendererAgg(1, 1, dpi).get_text_width_height_descent(s, prop, ismath)


@lru_cache(maxsize=1024)
def _ink(dpi: float, s: str, prop: FontProperties, angle: float, ismath: Any) -> tuple[np.ndarray, int, int]:
    """Ink of each dot of a text, (rows, columns) of bytes; and columns left of its place, rows below."""
    words = _words(s, ismath)
    if len(words) > 1 and s.strip(" ") and not angle:
        return _line(dpi, words, prop)
    wide, high, descent = size_of(dpi, s, prop, ismath)
    box = Bbox([(0, -descent), (wide, high - descent)]).rotated(radians(angle))
    left, right, above, below = (ceil(side) + EDGE for side in (-box.x0, box.x1, box.y1, -box.y0))
    sheet = RendererAgg(left + right, above + below, dpi)
    sheet.draw_text(sheet.new_gc(), left, above, s, prop, angle, ismath)
    return np.array(sheet.buffer_rgba())[..., 3], left, below


def _line(dpi: float, words: tuple[str, ...], prop: FontProperties) -> tuple[np.ndarray, int, int]:
    """The same, of a line put together from its words: of a caption one number changes."""
    space, at = _size_of(dpi, " ", prop, False)[0], 0.0
    parts: list[tuple[int, np.ndarray, int, int]] = []  # columns to the right, and as `_ink` gives it
    for word in words:
        if word:
            parts.append((round(at), *_ink(dpi, word, prop, 0.0, False)))
            at += _size_of(dpi, word, prop, False)[0]
        at += space
    left, below = max(aside for *_, aside, _ in parts), max(down for *_, down in parts)
    above = max(len(ink) - down for _, ink, _, down in parts)
    right = max(x - aside + ink.shape[1] for x, ink, aside, _ in parts)
    sheet = np.zeros((above + below, left + right), dtype=np.uint8)
    for x, ink, aside, down in parts:
        place = sheet[above + down - len(ink) : above + down, left + x - aside :][:, : ink.shape[1]]
        np.maximum(place, ink, out=place)
    return sheet, left, below
