"""Colours, markers and sizes of every labkit figure.

The curve colours are those of Okabe and Ito (2008), which stay apart under the common kinds of colour
blindness; yellow, unreadable on white, gives way to a violet. Markers differ as well, so that no meaning
hangs on colour alone.
"""

from __future__ import annotations

from matplotlib.colors import to_hex, to_rgb

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6A51A3")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK = "#1F2430"
GREY = "#9AA0A8"
MUTED = "#626A75"
GRID = "#E7E9EC"
SPINE = "#8A9099"

FONT = "DejaVu Sans"  # ships with matplotlib, so a figure looks the same on every machine
TITLE, SUBTITLE, LABEL, TICK, LEGEND, CAPTION = 11.5, 10.0, 9.0, 8.5, 8.5, 7.2

Color = int | str


def color(name: Color) -> str:
    """A palette index (modulo its length), "ink", "grey" or any matplotlib colour, as a colour."""
    if isinstance(name, int):
        return COLORS[name % len(COLORS)]
    return {"ink": INK, "grey": GREY}.get(name, name)


def deeper(name: Color) -> str:
    """A deeper shade of a colour: a prediction stays visible on top of a measurement that agrees with it."""
    red, green, blue = to_rgb(color(name))
    return to_hex((0.62 * red, 0.62 * green, 0.62 * blue))


def marker(name: Color) -> str:
    """The marker that goes with a palette colour."""
    return MARKERS[name % len(MARKERS)] if isinstance(name, int) else "o"
