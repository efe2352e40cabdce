"""Theorem 5.3 of paper 4: gradient descent on f tracks gradient descent on its linearisation.

Constants, measured or assumed on the ball of radius R (5.12) around theta_0:
    beta   |J(theta)| <= beta and |J| <= beta
    eps    |J(theta) - J(theta_0)| <= eps/2: eps is *twice* the largest change of the Jacobian
    eps0   the reference Jacobian J has |J(theta_0) - J| <= eps0 and
           |J(theta_0) J(theta_0)^T - J J^T| <= eps0^2
    alpha  spectrum cutoff
    Gamma  duration in units of 1/(lr alpha^2), at least 1
    delta  tolerance, above 0 and at most 1
    lr     step size, at most 1/beta^2
"""

from __future__ import annotations

import numpy as np

from labkit.theory._checks import nonnegative, positive


def distance_bound(
    pinv_norm: float, nuisance_norm: float, r0_norm: float, alpha: float, Gamma: float, delta: float
) -> float:
    """(5.15): |theta_tau - theta_0| <= R/2 for all tau <= T.

    Args:
        pinv_norm: |J_I^+ r_0|. nuisance_norm: |Pi_N r_0|. r0_norm: |r_0|. alpha: spectrum cutoff.
        Gamma: duration. delta: tolerance.

    Returns:
        R/2, in units of theta.
    """
    return float(pinv_norm + Gamma / alpha * nuisance_norm + delta * Gamma / alpha * r0_norm)


def smallest_delta(alpha: float, beta: float, eps: float, eps0: float, Gamma: float) -> float:
    """Least delta for which (5.13) holds; above 1 the theorem says nothing (out of regime).

    max(5 eps0/alpha, 25 eps0^2 Gamma beta/alpha^3, 5 Gamma beta^2 eps/alpha^3). ``eps`` belongs to the radius
    R(delta); measured along the path it is a lower estimate.

    Args:
        alpha: spectrum cutoff. beta: bound on |J|. eps: twice the largest change of J.
        eps0: error of the reference Jacobian. Gamma: duration.

    Returns:
        delta.

    Raises:
        ValueError: an argument is out of its range.
    """
    a, b, g = positive("alpha", alpha), positive("beta", beta), positive("Gamma", Gamma)
    e, e0 = nonnegative("eps", eps), nonnegative("eps0", eps0)
    return max(5.0 * e0 / a, 25.0 * e0**2 * g * b / a**3, 5.0 * g * b**2 * e / a**3)


def meta_theorem_bound(alpha: float, beta: float, delta: float, r0_norm: float) -> float:
    """(5.14), residuals: |r_tau - r~_tau| <= (3/5) (delta alpha/beta) |r_0| for all tau <= T.

    The proof bounds |Pi_I r_0| + Gamma |Pi_N r_0| by Gamma |r_0|; it is sqrt(1 + Gamma^2) |r_0|. The constant
    survives: with (5.13) the lemma before it holds with 1/(1 - 1/25) for its factor 2, and .24*sqrt(2)/.96 =
    .36 <= 3/5.

    Args:
        alpha: spectrum cutoff. beta: bound on |J|. delta: tolerance. r0_norm: |r_0|.

    Returns:
        In units of a residual.
    """
    return 0.6 * delta * alpha / beta * r0_norm


def final_residual_bound(
    information_norm: float,
    nuisance_norm: float,
    r0_norm: float,
    alpha: float,
    beta: float,
    Gamma: float,
    delta: float,
) -> float:
    """(5.16): |r_T| <= e^(-Gamma) |Pi_I r_0| + |Pi_N r_0| + (delta alpha/beta) |r_0| at the stopping time.

    After a whole number of steps use Gamma = steps lr alpha^2: rounding T down would break it.

    Args:
        information_norm: |Pi_I r_0|. nuisance_norm: |Pi_N r_0|. r0_norm: |r_0|. alpha: spectrum cutoff.
        beta: bound on |J|. Gamma: duration. delta: tolerance.

    Returns:
        In units of a residual.
    """
    return float(np.exp(-Gamma) * information_norm + nuisance_norm + delta * alpha / beta * r0_norm)
