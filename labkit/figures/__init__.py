"""The drawing grammar: marks in panels in a chart, drawn the same in a notebook, live, and on paper.

A prediction is dashed, a second one of its colour with dots between; a measurement is solid in the same
colour with a band over its seeds, a bound the edge of a shaded region, an earlier run grey. Nothing here
touches pyplot, and a style or `matplotlibrc` of the person's changes no picture and is not changed.

    marks = [Predicted(t, theory, "loss"), Measured(t, losses, "loss")]
    panel = Panel("Residual", marks, xlabel="step", yscale="log")
    Chart([panel], caption=caption("The residual while it trains, and theory.", settings))
"""

from .chart import Chart, Panel, caption
from .drawing import DRAWING, Drawing, Layer
from .marks import (
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
)

__all__ = [
    "DRAWING",
    "Bound",
    "Chart",
    "Drawing",
    "Earlier",
    "Histogram",
    "Layer",
    "Level",
    "Mark",
    "Measured",
    "Note",
    "Panel",
    "Points",
    "Predicted",
    "Raster",
    "caption",
    "mean_and_range",
]
