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

from typing import Any

import numpy as np

from labkit.theory._checks import Array, array, nonnegative, positive


def stopping_time(Gamma: float, lr: float, alpha: float) -> float:
    """T = Gamma/(lr alpha^2), in steps; not a whole number in general.

    Args:
        Gamma: duration. lr: step size. alpha: spectrum cutoff.

    Returns:
        T, in steps.

    Raises:
        ValueError: an argument is out of its range.
    """
    return positive("Gamma", Gamma) / (positive("lr", lr) * positive("alpha", alpha) ** 2)


def learning_duration(steps: float, lr: float, alpha: float) -> float:
    """Gamma = lr alpha^2 steps, for a whole number of steps; conditions that hold for Gamma hold below it.

    Args:
        steps: a number of steps, >= 0. lr: step size. alpha: spectrum cutoff.

    Returns:
        Gamma.

    Raises:
        ValueError: an argument is out of its range.
    """
    return nonnegative("steps", steps) * positive("lr", lr) * positive("alpha", alpha) ** 2


def radius(
    pinv_norm: float, nuisance_norm: float, r0_norm: float, alpha: float, Gamma: float, delta: float
) -> float:
    """Radius R of (5.12), within which the assumptions must hold.

    R = 2 (|J_I^+ r_0| + (Gamma/alpha) |Pi_N r_0| + delta (Gamma/alpha) |r_0|).

    Args:
        pinv_norm: |J_I^+ r_0|. nuisance_norm: |Pi_N r_0|. r0_norm: |r_0|. alpha: spectrum cutoff.
        Gamma: duration. delta: tolerance.

    Returns:
        R, in units of theta.
    """
    return 2.0 * distance_bound(pinv_norm, nuisance_norm, r0_norm, alpha, Gamma, delta)


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


def meta_theorem_regime(
    alpha: float, beta: float, eps: float, eps0: float, Gamma: float, delta: float, *, lr: float | None = None
) -> dict[str, tuple[float, float]]:
    """Conditions of Thm 5.3 as pairs (left, right) with left <= right; deciding is the claim's business.

    (5.13) and the ranges of delta, Gamma, alpha and the step size. (5.13) reads eps0 <= min(delta alpha,
    sqrt(delta alpha^3/(Gamma beta)))/5 and eps <= delta alpha^3/(5 Gamma beta^2).

    Args:
        alpha: spectrum cutoff. beta: bound on |J|. eps: twice the largest change of J.
        eps0: error of the reference Jacobian. Gamma: duration. delta: tolerance. lr: step size.

    Returns:
        Name of a condition -> (left, right); nothing is raised where left > right.
    """
    pairs = {
        "reference Jacobian": (
            eps0,
            min(delta * alpha, float(np.sqrt(delta * alpha**3 / (Gamma * beta)))) / 5.0,
        ),
        "change of the Jacobian": (eps, delta * alpha**3 / (5.0 * Gamma * beta**2)),
        "tolerance": (delta, 1.0),
        "duration": (1.0, Gamma),
        "cutoff": (alpha, beta),
    }
    if lr is not None:
        pairs["step size"] = (lr, 1.0 / beta**2)
    return pairs


def smallest_delta(alpha: float, beta: float, eps: float, eps0: float, Gamma: float) -> float:
    """Least delta for which (5.13) holds; above 1 the theorem says nothing (out of regime).

    max(5 eps0/alpha, 25 eps0^2 Gamma beta/alpha^3, 5 Gamma beta^2 eps/alpha^3). ``eps`` belongs to the radius
    R(delta); measured along the path it is a lower estimate. For a Lipschitz Jacobian use
    ``smallest_delta_lipschitz``.

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


def smallest_delta_lipschitz(
    alpha: float,
    beta: float,
    lipschitz: float,
    eps0: float,
    Gamma: float,
    *,
    pinv_norm: float,
    nuisance_norm: float,
    r0_norm: float,
) -> float:
    """Least delta for which (5.13) holds when |J(a) - J(b)| <= L |a - b|; ``inf`` if there is none.

    Then eps = 2 L R(delta). R is linear in delta, R = 2 (q + delta q'), so the condition on eps reads delta
    (1 - c q') >= c q with c = 20 L Gamma beta^2/alpha^3. Self-consistent: nothing is left to be measured
    along the path.

    Args:
        alpha: spectrum cutoff. beta: bound on |J|. lipschitz: L, of the Jacobian.
        eps0: error of the reference Jacobian. Gamma: duration. pinv_norm: |J_I^+ r_0|.
        nuisance_norm: |Pi_N r_0|. r0_norm: |r_0|.

    Returns:
        delta, or inf.

    Raises:
        ValueError: an argument is out of its range.
    """
    base = smallest_delta(alpha, beta, 0.0, eps0, Gamma)
    c = 20.0 * nonnegative("lipschitz", lipschitz) * Gamma * beta**2 / alpha**3
    fixed, growing = pinv_norm + Gamma / alpha * nuisance_norm, Gamma / alpha * r0_norm
    room = 1.0 - c * growing
    return max(base, c * fixed / room) if room > 0 else float("inf")


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


def parameter_bound(alpha: float, Gamma: float, delta: float, r0_norm: float) -> float:
    """(5.14), parameters: |theta_tau - theta~_tau| <= delta (Gamma/alpha) |r_0| for all tau <= T.

    Args:
        alpha: spectrum cutoff. Gamma: duration. delta: tolerance. r0_norm: |r_0|.

    Returns:
        In units of theta.
    """
    return delta * Gamma / alpha * r0_norm


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

    After a whole number of steps use Gamma = ``learning_duration(steps, lr, alpha)``: rounding T down would
    break it.

    Args:
        information_norm: |Pi_I r_0|. nuisance_norm: |Pi_N r_0|. r0_norm: |r_0|. alpha: spectrum cutoff.
        beta: bound on |J|. Gamma: duration. delta: tolerance.

    Returns:
        In units of a residual.
    """
    return float(np.exp(-Gamma) * information_norm + nuisance_norm + delta * alpha / beta * r0_norm)


def reference_error(initial: Any, reference: Any) -> float:
    """Least eps0 of Def. 5.1: max(|J(theta_0) - J|, |J(theta_0) J(theta_0)^T - J J^T|^(1/2)).

    The paper prints eps0, not eps0^2, against the difference of the Gram matrices.

    Args:
        initial, reference: (m, p) and (m, p'); the narrower one is padded with zero columns.

    Returns:
        eps0, in units of J.

    Raises:
        ValueError: an array is not finite or of another shape.
    """
    first, second = array("initial", initial, 2), array("reference", reference, 2)
    if len(first) != len(second):
        raise ValueError(f"reference: expected {len(first)} rows to match initial, got {len(second)}.")
    width = max(first.shape[1], second.shape[1])
    first, second = (np.pad(j, ((0, 0), (0, width - j.shape[1]))) for j in (first, second))
    gram = np.linalg.norm(first @ first.T - second @ second.T, 2)
    return float(max(np.linalg.norm(first - second, 2), np.sqrt(gram)))


def tracking_bound(linear_norms: Any, lr: float, beta: float, eps: float, eps0: float) -> Array:
    """(6.11) iterated: e_(tau+1) <= lr (eps0^2 + eps beta) |r~_tau| + (1 + lr eps^2) e_tau, from e_0 = 0.

    Sharper than (5.14): it uses the linear curve itself and no constant but the measured ones.

    Args:
        linear_norms: |r~_tau| at tau = 0, 1, ..., T, (T+1,).
        lr: step size. beta: bound on |J|. eps: twice the largest change of J.
        eps0: error of the reference Jacobian.

    Returns:
        Bounds on |r_tau - r~_tau|, (T+1,).

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    norms = array("linear_norms", linear_norms, 1)
    drive = positive("lr", lr) * (
        nonnegative("eps0", eps0) ** 2 + nonnegative("eps", eps) * positive("beta", beta)
    )
    growth = 1.0 + lr * eps**2
    bound = np.zeros_like(norms)
    for tau in range(len(norms) - 1):
        bound[tau + 1] = growth * bound[tau] + drive * norms[tau]
    return bound
