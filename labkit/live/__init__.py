"""Live experiments in a notebook: `Panel` with sliders and a worker thread, `watch` in a blocking cell."""

from .canvas import Canvas
from .panel import Panel
from .watch import watch

__all__ = ["Canvas", "Panel", "watch"]
