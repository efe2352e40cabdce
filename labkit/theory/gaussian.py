"""Concentration of random matrices and random signs: appendix A of paper 1, with its constants.

    equation        function                                               claim
    Thm A.1         chi_square_tail, chi_square_exact                      D4
    Thm A.2         gaussian_spectral                                      D1, D3
    Cor. A.2.1      frobenius_squared; distance.initial_norms              D1
    Thm A.3         khintchine_constant                                    D5
    Cor. A.3.1      khintchine_bound                                       D5

What is proved of ||Z||_2 for independent entries of mean 0 and standard deviation sd:
    Gaussian      E ||Z||_2 <= sd (sqrt(rows) + sqrt(cols)) at every size (Gordon 1985)
    either        the ratio to sd (sqrt(rows) + sqrt(cols)) tends to 1 as both sides grow (Yin, Bai and
                  Krishnaiah 1988); for the uniform at a fixed size that constant is not proved

Errata:
    Thm A.2   needs rows >= cols as it stands, and its constants stay open inside O(.); the forms above hold
              for any shape
    Thm A.3   its left side is E |sum xi_i x_i|^p; the sum of |xi_i x_i|^p that is printed is not random
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import chdtr, chdtrc, gammaln

from labkit.theory._checks import Array, array, positive

__all__ = [
    "chi_square_exact",
    "chi_square_tail",
    "frobenius_squared",
    "gaussian_spectral",
    "khintchine_bound",
    "khintchine_constant",
]


def frobenius_squared(rows: Any, cols: Any, sd: Any = 1.0) -> Array:
    """E ||Z||_F^2 = rows cols sd^2, exact for any entries of mean 0 and standard deviation sd.

    Args:
        rows, cols: whole numbers >= 1. sd: > 0. All broadcast.

    Returns:
        The mean, in the shape that the arguments broadcast to.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    n, k, scale = _matrix(rows, cols, sd)
    return n * k * scale**2


def gaussian_spectral(rows: Any, cols: Any, sd: Any = 1.0) -> Array:
    """sd (sqrt(rows) + sqrt(cols)) >= E ||Z||_2 for independent N(0, sd^2) entries (Gordon 1985).

    Tight as both sides grow; for (40, 64) about 3 % above the mean.

    Args:
        rows, cols: whole numbers >= 1. sd: > 0. All broadcast.

    Returns:
        The bound, in the shape that the arguments broadcast to.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    n, k, scale = _matrix(rows, cols, sd)
    return scale * (np.sqrt(n) + np.sqrt(k))


def chi_square_tail(k: Any, t: Any) -> Array:
    """Thm A.1: 2 exp(-k t^2/8) >= P(|chi^2_k/k - 1| >= t) for 0 < t < 1. Above 1 it says nothing.

    Args:
        k: degrees of freedom, whole numbers >= 1. t: in (0, 1). They broadcast.

    Returns:
        The bound, in the shape that the arguments broadcast to.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    degrees, size = _deviation(k, t)
    return 2 * np.exp(-degrees * size**2 / 8)


def chi_square_exact(k: Any, t: Any) -> Array:
    """P(|chi^2_k/k - 1| >= t) itself, from SciPy's distribution; arguments as for `chi_square_tail`.

    Args:
        k: degrees of freedom. t: >= 0, any shape.

    Returns:
        The probability, in the shape that the arguments broadcast to.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    degrees, size = _deviation(k, t)
    return chdtr(degrees, degrees * np.maximum(1 - size, 0)) + chdtrc(degrees, degrees * (1 + size))


def khintchine_bound(x: Any) -> Array:
    """Cor. A.3.1: (sum_i ||x_i||^2)^(1/2) >= E ||sum_i xi_i x_i|| for independent signs xi_i.

    The right constant for p = 2 is 1: E ||sum_i xi_i x_i||^2 equals the sum of squares. The mean is at
    least 1/sqrt(2) of it (Latala and Oleszkiewicz 1994), so the bound is never loose by more.

    Args:
        x: (..., m, n), one vector a row.

    Returns:
        (...).

    Raises:
        ValueError: an array is not finite or of another shape.
    """
    vectors = np.asarray(array("x", x, (2, 3, 4)))
    return np.sqrt((vectors**2).sum(axis=(-2, -1)))


def khintchine_constant(p: float, side: str = "upper") -> float:
    """Best constants of Khintchine's inequality, A |a| <= (E|sum xi_i a_i|^p)^(1/p) <= B |a| (Haagerup 1981).

    "upper" gives B: 1 up to p = 2, then the p-th moment of a standard Gaussian, its limit for many equal a_i.
    "lower" gives A: below 2 the smaller of that moment and of two equal coefficients, 2^(1/2 - 1/p); 1 from 2
    on. They cross at p = 1.847.

    Args:
        p: the power, > 0. side: "upper" or "lower".

    Returns:
        The constant.

    Raises:
        ValueError: p <= 0, or another side.
    """
    power = positive("p", p)
    if side not in ("upper", "lower"):
        raise ValueError(f"side: expected 'upper' or 'lower', got {side!r}.")
    moment = float(np.sqrt(2) * np.exp((gammaln((power + 1) / 2) - gammaln(0.5)) / power))
    if side == "upper":
        return moment if power > 2 else 1.0
    return min(moment, float(2 ** (0.5 - 1 / power))) if power < 2 else 1.0


def _matrix(rows: Any, cols: Any, sd: Any) -> tuple[Array, Array, Array]:
    sides = []
    for name, value in (("rows", rows), ("cols", cols)):
        side = array(name, value, (0, 1, 2))
        if (side < 1).any() or (side != np.floor(side)).any():
            raise ValueError(f"{name}: expected whole numbers >= 1, got {value!r}.")
        sides.append(side)
    scale = array("sd", sd, (0, 1, 2))
    if (scale <= 0).any():
        raise ValueError(f"sd: expected standard deviations > 0, got {sd!r}.")
    return sides[0], sides[1], scale


def _deviation(k: Any, t: Any) -> tuple[Array, Array]:
    degrees, size = array("k", k, (0, 1, 2)), array("t", t, (0, 1, 2))
    if (degrees < 1).any() or (degrees != np.floor(degrees)).any():
        raise ValueError(f"k: expected whole numbers >= 1, got {k!r}.")
    if (size <= 0).any() or (size >= 1).any():
        raise ValueError(f"t: expected deviations between 0 and 1, both excluded (Thm A.1), got {t!r}.")
    return degrees, size
