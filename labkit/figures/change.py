"""What differs between two charts: their axes, the kinds of their marks, or only numbers."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from .marks import Mark, Note, Raster

_NUMBERS = {"x", "y", "value", "edges", "counts", "values", "text"}
_ELSEWHERE = {"name"}  # of an earlier run: it stands in the legend
_FACTS = ("title", "xlabel", "ylabel", "xscale", "yscale", "xlim", "ylim", "legend", "xticks", "yticks")


def axes(panel: Any) -> tuple[Any, ...]:
    """What of a panel is drawn whatever its marks are, limits apart."""
    rasters = [kind(mark) for mark in panel.marks if isinstance(mark, Raster)]  # they set ticks and a scale
    return (*(repr(getattr(panel, name)) for name in _FACTS), *rasters)


def kind(mark: Mark) -> tuple[Any, ...]:
    """Everything about a mark but its numbers; two marks of equal kind can share their artists."""
    facts = [
        repr(getattr(mark, item.name))
        for item in fields(mark)
        if item.name not in _NUMBERS | _ELSEWHERE or (isinstance(mark, Note) and item.name in ("x", "y"))
    ]
    if isinstance(mark, Raster):
        facts.append(repr(mark.values.shape))
    return (type(mark).__name__, *facts)


def same_numbers(a: Mark, b: Mark) -> bool:
    """Whether two marks of one kind also carry the same numbers."""
    if a is b:
        return True
    return all(
        np.array_equal(getattr(a, item.name), getattr(b, item.name), equal_nan=item.name != "text")
        for item in fields(a)
        if item.name in _NUMBERS
    )
