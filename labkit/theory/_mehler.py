"""E[g(u) g(v)] for smooth g and correlated Gaussians u, v, for all pairs at once.

With h_k the orthonormal Hermite polynomials and c_k(a) = E[g(a z) h_k(z)], Mehler's formula gives
E[g(u) g(v)] = sum_k c_k(a) c_k(b) rho^k for standard deviations a, b and correlation rho. The coefficients
need one integral a norm, not one a pair; Parseval gives what is left after M terms, t_M(a) = E[g(a z)^2] -
sum_(k<=M) c_k(a)^2, so the error of a pair is at most |rho|^(M+1) sqrt(t_M(a) t_M(b)). Two-dimensional
Gauss-Hermite costs n^2 Q^2 and has no error of its own to report.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from labkit.theory._checks import Array

MAX_TERMS = 4096
MAX_NORM = 1000.0  # the quadrature needs about 50 nodes a unit of norm
_BLOCK = 2048  # nodes held at once
_REACH = 13.0  # exp(-13^2/4) is below 1e-18: the tail of the integrand beyond it
_CLONE = 1e-7  # largest angle at which a pair may count as parallel: cos differs from 1 by 5e-15 at most


def sigmoid(z: Array) -> Array:
    """Derivative of softplus, without overflow at either end."""
    small = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, small) / (1.0 + small)


def sech2(z: Array) -> Array:
    """Derivative of tanh, without overflow at either end."""
    small = np.exp(-2.0 * np.abs(z))
    return 4.0 * small / (1.0 + small) ** 2


# slope, and the height of its nearest pole above the real line: it sets the step of the trapezoid rule
SLOPES: dict[str, tuple[Callable[[Array], Array], float]] = {
    "softplus": (sigmoid, np.pi),
    "tanh": (sech2, np.pi / 2),
}


def expectation(norms: Array, theta: Array, activation: str, tol: float) -> Array:
    """E[g(u_i) g(u_j)] for all pairs: standard deviations ``norms`` (n,), angles ``theta`` (n, n)."""
    slope, pole = SLOPES[activation]
    distinct, where = np.unique(norms, return_inverse=True)
    largest = float(distinct.max(initial=0.0))
    if largest > MAX_NORM:
        raise ValueError(
            f"x: a norm of {largest:.3g} is above {MAX_NORM:.0f}; phi' is then a step in all but name. "
            "Scale the inputs to unit length, or take activation='relu' for softplus."
        )
    # At angle t the expectation is off by at most .3 t^2 a from that of parallel points.
    clone = np.minimum(theta, np.pi - theta) <= min(_CLONE, np.sqrt(tol / max(largest, 1.0)))
    rho = np.where(clone, np.sign(np.pi / 2 - theta), np.cos(theta))
    closest = float(np.abs(rho[~clone]).max(initial=0.0))
    total, power = np.zeros_like(rho), np.ones_like(rho)
    remainder, terms = np.inf, 64
    while True:
        coef, energy = _coefficients(distinct, slope, pole / max(largest, 1e-300), terms)
        left = np.maximum(energy[:, None] - np.cumsum(coef**2, axis=1), 0.0).max(axis=0, initial=0.0)
        error = left * closest ** np.arange(1, terms + 1)
        enough = np.nonzero(error <= 0.9 * tol)[0]  # the rest is for rounding
        if enough.size:
            break
        remainder, terms = float(error[-1]), terms * 2
        if terms > MAX_TERMS:
            raise ValueError(
                f"x: norms up to {largest:.3g} with cosines up to {closest:.6g} leave an error of "
                f"{remainder:.1e} after {MAX_TERMS} terms, above tol = {tol:.1e}. "
                "Scale the inputs to unit length, or pass a larger tol."
            )
    used = int(enough[0]) + 1
    for k in range(used):
        column = coef[where, k]
        total += column[:, None] * column[None, :] * power
        power *= rho
    _add_rest_of_clones(total, coef[:, :used], distinct, where, rho, clone, activation)
    return total


def _add_rest_of_clones(
    total: Array, coef: Array, distinct: Array, where: Any, rho: Array, clone: Any, activation: str
) -> None:
    """Parallel pairs see the slowest series: add its remainder, by quadrature along their common line."""
    slope, pole = SLOPES[activation]
    z, weight = _nodes(pole / max(float(distinct.max(initial=0.0)), 1e-300), 1)
    values = slope(distinct[:, None] * z)
    alternating = np.where(np.arange(coef.shape[1]) % 2 == 0, 1.0, -1.0)
    # The grid is symmetric, so g(-a z) is the reversed row.
    for sign, other, parity in ((1.0, values, abs(alternating)), (-1.0, values[:, ::-1], alternating)):
        here = clone & (rho == sign)
        if here.any():
            rest = (values * weight) @ other.T - (coef * parity) @ coef.T
            total[here] += rest[np.ix_(where, where)][here]


def _coefficients(
    scales: Array, slope: Callable[[Array], Array], strip: float, terms: int
) -> tuple[Array, Array]:
    """c_k(a) for k < terms and each scale a: (scales, terms), and the energies E[g(a z)^2] (scales,)."""
    z, weight = _nodes(strip, terms)
    coef, energy = np.zeros((scales.size, terms)), np.zeros(scales.size)
    for start in range(0, z.size, _BLOCK):
        here, root = z[start : start + _BLOCK], np.sqrt(weight[start : start + _BLOCK])
        functions = np.empty((terms, here.size))
        functions[0] = root  # h_k(z) sqrt(weight): the recurrence on these stays bounded
        for k in range(1, terms):
            previous = functions[k - 2] * np.sqrt((k - 1) / k) if k > 1 else 0.0
            functions[k] = here * functions[k - 1] / np.sqrt(k) - previous
        values = slope(scales[:, None] * here) * root
        coef += values @ functions.T
        energy += np.einsum("sz,sz->s", values, values)
    return coef, energy


def _nodes(strip: float, terms: int) -> tuple[Array, Array]:
    """Trapezoid nodes, which must resolve h_terms; a pole of order 4 costs (46^3/6) exp(-46) = 2e-16."""
    step = min(2.0 * np.pi * strip / 46.0, 2.0 * np.pi / (2.0 * np.sqrt(terms) + 20.0), 0.25)
    count = int(np.ceil(_REACH / step))
    z = step * np.arange(-count, count + 1)
    return z, step * np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
