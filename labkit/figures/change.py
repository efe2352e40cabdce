"""What differs between two charts: their structure, or only their numbers."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from .marks import Mark, Note, Raster

_NUMBERS = {"x", "y", "value", "edges", "counts", "values", "text"}
_FACTS = ("title", "xlabel", "ylabel", "xscale", "yscale", "xlim", "ylim", "legend", "xticks", "yticks")


def structure(panel: Any) -> tuple[Any, ...]:
    """Everything about a panel but its numbers; two panels with equal structure share their artists."""
    return (*(repr(getattr(panel, name)) for name in _FACTS), *(_kind(mark) for mark in panel.marks))


def _kind(mark: Mark) -> tuple[Any, ...]:
    facts = [
        repr(getattr(mark, item.name))
        for item in fields(mark)
        if item.name not in _NUMBERS or (isinstance(mark, Note) and item.name in ("x", "y"))
    ]
    if isinstance(mark, Raster):
        facts.append(repr(mark.values.shape))
    return (type(mark).__name__, *facts)


def same_numbers(a: Mark, b: Mark) -> bool:
    """Whether two marks of one structure also carry the same numbers."""
    if a is b:
        return True
    return all(
        np.array_equal(getattr(a, item.name), getattr(b, item.name), equal_nan=item.name != "text")
        for item in fields(a)
        if item.name in _NUMBERS
    )
