"""Chance levels of alignment, and how one step aligns a Jacobian (paper 4, tables 1-18, appendix D)."""

from __future__ import annotations

import numpy as np

from labkit.theory._checks import integer


def chance_share(rank: int, m: int) -> float:
    """|Pi_I v|/|v| in root mean square for a direction drawn at random: sqrt(r/m), m = n K.

    Args:
        rank: r, the dimension of I, up to m. m: n K, the rows of the Jacobian.

    Returns:
        The share, from 0 to 1.

    Raises:
        ValueError: an argument is out of its range.
    """
    return float(np.sqrt(_rank(rank, m) / m))


def one_hot_chance_share(rank: int, m: int, outputs: int) -> float:
    """The same for one-hot labels whose constant part 1/K lies in I anyway: sqrt(1/K + (1 - 1/K) r/m).

    The constant part holds 1/K of the energy; the rest is taken as a random direction. For centred labels y -
    1/K use ``chance_share``.

    Args:
        rank: r, the dimension of I, up to m. m: n K, the rows of the Jacobian. outputs: K.

    Returns:
        The share, from 0 to 1.

    Raises:
        ValueError: an argument is out of its range.
    """
    share = 1.0 / integer("outputs", outputs, 1)
    return float(np.sqrt(share + (1.0 - share) * _rank(rank, m) / m))


def adaptation_rank(dim: int) -> int:
    """App. D: rank 2d of the ReLU Jacobian after one large step on linear-teacher data.

    All hidden weights then point along +-theta: two patterns of active samples, of rank d each.

    Args:
        dim: d, inputs.

    Returns:
        2 dim.

    Raises:
        ValueError: an argument is out of its range.
    """
    return 2 * integer("dim", dim, 1)


def adaptation_tail(dim: int, n: int) -> float:
    """(D.1): order of sigma_(2d+1)/|J|, sqrt(d/n). Asks for n/d of 100 or so to be told from sigma_2d.

    Args:
        dim: d, inputs. n: samples.

    Returns:
        A ratio of singular values; an order, without its constant.

    Raises:
        ValueError: an argument is out of its range.
    """
    return float(np.sqrt(integer("dim", dim, 1) / integer("n", n, 1)))


def _rank(rank: int, m: int) -> int:
    r = integer("rank", rank, 0)
    if r > integer("m", m, 1):
        raise ValueError(f"rank: expected at most m = {m}, got {r}.")
    return r
