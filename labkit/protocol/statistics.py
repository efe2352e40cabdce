"""Small statistics that every lab needs: intervals over seeds, exponents, bands."""

from __future__ import annotations

import numpy as np
from scipy.special import stdtrit


def half_width(values: np.ndarray, confidence: float = 0.95) -> np.ndarray:
    """Half the width of Student's t interval of the mean over the first (seed) axis: (S, ...) -> (...).

    Args:
        values: of independent seeds, of a continuous quantity. With a single seed the interval is
            unbounded: one run has no spread.
        confidence: the probability that the interval covers the mean, for normal values.

    Returns:
        In units of the values; inf for a single seed.
    """
    values = np.asarray(values, dtype=float)
    seeds = len(values)
    if seeds < 2:
        return np.full(values.shape[1:], np.inf)
    t = stdtrit(seeds - 1, 0.5 + confidence / 2)
    return np.asarray(t * values.std(axis=0, ddof=1) / np.sqrt(seeds))


def spread(values: np.ndarray) -> float:
    """Standard deviation over the first (seed) axis, averaged over the others; 0 for one seed.

    Args:
        values: (S, ...), seeds first.

    Returns:
        In units of the values.
    """
    values = np.asarray(values, dtype=float)
    return float(values.std(axis=0, ddof=1).mean()) if values.ndim and len(values) > 1 else 0.0


def band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, lowest and highest over the first (seed) axis, for drawing: (S, T) -> three of (T,).

    Args:
        values: (S, T), seeds first.

    Returns:
        Mean, lowest and highest, (T,) each.
    """
    values = np.asarray(values, dtype=float)
    return values.mean(axis=0), values.min(axis=0), values.max(axis=0)


def exponent(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Slope of log y against log x, by least squares, for each seed.

    Args:
        x: (G,) positive, at least two different values.
        y: (S, ..., G) or (G,), positive.

    Returns:
        (S, ...) slopes; (1,) for one curve alone.

    Raises:
        ValueError: fewer than two points, or a value that has no logarithm.
    """
    x, y = np.asarray(x, dtype=float), np.atleast_2d(np.asarray(y, dtype=float))
    if x.size < 2 or np.ptp(x) == 0:
        raise ValueError(f"x must have two different values for a slope; got {x.tolist()}")
    if (x <= 0).any() or not (y > 0).all():
        raise ValueError("x and y must be positive for a slope of logarithms")
    centred = np.log(x) - np.log(x).mean()
    return np.log(y) @ centred / (centred @ centred)


def correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's correlation of two quantities over the places at which both were measured, for each seed.

    Args:
        x, y: (S, G).

    Returns:
        (S,), in [-1, 1]; 0 where one of the two does not change.
    """
    x, y = (one - one.mean(axis=1, keepdims=True) for one in (x, y))
    size = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return np.divide((x * y).sum(axis=1), size, out=np.zeros(len(x)), where=size > 0)


def crossing(x: np.ndarray, y: np.ndarray, level: float) -> np.ndarray:
    """Where a curve first reaches a level, between two places.

    Args:
        x: (G,), ascending.
        y: (..., G), curves over x.
        level: in units of y.

    Returns:
        (...), in units of x; NaN where a curve never reaches the level, or has from the start.
    """
    found = np.full(y.shape[:-1], np.nan)
    for place in np.ndindex(found.shape):
        over = np.flatnonzero(y[place] >= level)
        if len(over) and over[0]:
            ends = slice(over[0] - 1, over[0] + 1)
            found[place] = np.interp(level, y[place][ends], x[ends])
    return found
