"""Checks on arguments: each returns the value in its plain form, or names the argument and what it takes."""

import math
import operator
from collections.abc import Sequence
from typing import Any

import torch


def whole_number(name: str, value: Any, low: int = 0) -> int:
    """`value` as an int, at least `low`; booleans and floats are refused."""
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name}={value!r}: takes a whole number of at least {low}.") from None
    if isinstance(value, bool) or number < low:
        raise ValueError(f"{name}={value!r}: takes a whole number of at least {low}.")
    return number


def number(name: str, value: Any, low: float = 0.0, high: float = math.inf) -> float:
    """`value` as a finite float between `low` and `high`, both included."""
    takes = f"a number from {low:g} to {high:g}" if math.isfinite(high) else f"a number of at least {low:g}"
    if isinstance(value, (str, bool)):
        raise ValueError(f"{name}={value!r}: takes {takes}.")
    try:
        result = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}={value!r}: takes {takes}.") from None
    if not (math.isfinite(result) and low <= result <= high):
        raise ValueError(f"{name}={value!r}: takes {takes}.")
    return result


def choice(name: str, value: Any, options: Sequence[str]) -> str:
    """`value` if it is one of `options`."""
    if value not in options:
        raise ValueError(f"{name}={value!r}: takes one of {', '.join(options)}.")
    return str(value)


def floating(name: str, value: Any) -> torch.dtype:
    """`value` if it is a real floating-point dtype."""
    if not (isinstance(value, torch.dtype) and value.is_floating_point):
        raise ValueError(
            f"{name}={value!r}: takes a floating-point dtype, such as torch.float32 or torch.float64."
        )
    return value


def extent(labels: torch.Tensor) -> tuple[int, int]:
    """The least and the largest label, asked of their device at once; (0, 0) where there are none."""
    if not labels.numel():
        return 0, 0
    first, last = torch.stack(torch.aminmax(labels)).tolist()
    return first, last
