"""Gradient descent on a linearised model, mode by mode (paper 4, sections 5 and 6.1).

Throughout: J (m, p) with singular values lambda_1 >= ... >= lambda_m (zeros where p < m), left singular
vectors u_s, r_0 the initial residual f - y (m,), coef_s = <u_s, r_0>, step size lr on the loss 1/2 |f - y|^2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from labkit.theory._checks import Array, array, integer, nonnegative, positive, spectrum
from labkit.theory._checks import steps as whole_steps


def decay(eigenvalues: Any, lr: float, steps: Any) -> Array:
    """Factors (1 - lr*lambda^2)^tau, exact to rounding also after 10^8 steps.

    Args:
        eigenvalues: of J J^T, (m,) and >= 0 (rounding down to -1e-10 of the largest counts as 0).
        lr: step size. Above 2/max the factors grow without bound (``inf`` in the end), as gradient descent
        does.
        steps: (T,) whole numbers, in any order.

    Returns:
        (T, m).

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    return _factors(eigenvalues, lr, steps)[0]


def progress(eigenvalues: Any, lr: float, steps: Any) -> Array:
    """1 - (1 - lr*lambda^2)^tau (T, m), without cancellation for modes that have hardly moved.

    Args:
        eigenvalues: of J J^T, (m,). lr: step size. steps: (T,) whole numbers.

    Returns:
        (T, m).

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    return _factors(eigenvalues, lr, steps)[1]


def _factors(eigenvalues: Any, lr: float, steps: Any) -> tuple[Array, Array]:
    lam = array("eigenvalues", eigenvalues, 1)
    if (lam < -1e-10 * np.abs(lam).max(initial=0.0)).any():
        raise ValueError(
            f"eigenvalues: J J^T has none below 0, got {lam.min():.3e}; pass the Gram matrix, not J."
        )
    speed = positive("lr", lr) * np.maximum(lam, 0.0)
    tau = whole_steps(steps)[:, None]
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        # log1p keeps the rate of slow modes; tau = 0 must win over log 0 at lr*lambda^2 = 1.
        rate = np.where(speed < 1.0, np.log1p(-np.minimum(speed, 1.0)), np.log(np.abs(speed - 1.0)))
        exponent = np.where(tau == 0, 0.0, tau * rate)
        sign = np.where((speed > 1.0) & (tau % 2 == 1), -1.0, 1.0)
        kept = sign * np.exp(exponent)
        return kept, np.where(speed <= 1.0, -np.expm1(exponent), 1.0 - kept)


def linearized_residual(gram: Any, r0: Any, lr: float, steps: Any) -> Array:
    """Residual of the linearised model after each number of steps, (5.11) and (6.5).

    (I - lr J J^T)^tau r_0 = sum_s (1 - lr lambda_s^2)^tau coef_s u_s: fast on large modes, slow on small
    ones.

    Args:
        gram: J J^T (m, m); or its eigenvalues (m,), ``r0`` then being the coefficients in its eigenbasis.
        r0: (m,) or (m, b) for b residuals at once.
        lr: step size; the theory asks for lr <= 1/lambda_1^2.
        steps: (T,) whole numbers.

    Returns:
        (T, m) or (T, m, b). Cost: one ``eigh`` of an (m, m) matrix, nothing a step.

    Raises:
        ValueError: shapes that do not match, a Gram matrix that is not symmetric and positive semi-definite.

    Example:
        >>> linearized_residual([1.0, 0.0], [3.0, 4.0], 0.5, [0, 2]).tolist()
        [[3.0, 4.0], [0.75, 4.0]]
    """
    matrix = array("gram", gram, (1, 2))
    start = array("r0", r0, (1, 2))
    if matrix.ndim == 2 and (matrix.shape[0] != matrix.shape[1] or not _symmetric(matrix)):
        raise ValueError(
            f"gram: expected a symmetric matrix J @ J.T, got shape {matrix.shape}; pass J @ J.T, not J."
        )
    if len(start) != len(matrix):
        raise ValueError(f"r0: expected {len(matrix)} rows to match gram, got {len(start)}.")
    if matrix.ndim == 1:
        factors = decay(matrix, lr, steps)
        return factors * start if start.ndim == 1 else factors[:, :, None] * start
    eigenvalues, basis = np.linalg.eigh((matrix + matrix.T) / 2.0)
    coef = basis.T @ start
    factors = decay(eigenvalues, lr, steps)
    if start.ndim == 1:
        return (factors * coef) @ basis.T
    return np.einsum("ms,tsb->tmb", basis, factors[:, :, None] * coef)


@dataclass(frozen=True)
class ResidualParts:
    """Norms of the linearised residual at each step: on I, on N and in all, each (T,)."""

    information: Array
    nuisance: Array
    total: Array


def residual_parts(
    singular_values: Any, coefficients: Any, rank: int, lr: float, steps: Any, *, outside: float = 0.0
) -> ResidualParts:
    """|Pi_I r_tau| and |Pi_N r_tau| of the linearised model, from (6.5).

    Args:
        singular_values: (m,) descending. coefficients: <u_s, r_0> (m,). rank: dimension of I, 0..m.
        lr: step size. steps: (T,). outside: norm of r_0 outside the span of the u_s (truncated SVD); it does
        not move.

    Returns:
        ResidualParts, (T,) each.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    lam, coef, r = _split(singular_values, coefficients, rank)
    modes = decay(lam**2, lr, steps) * coef
    with np.errstate(over="ignore"):  # far past the edge of stability
        information = np.linalg.norm(modes[:, :r], axis=1)
        nuisance = np.hypot(np.linalg.norm(modes[:, r:], axis=1), outside)
    return ResidualParts(information, nuisance, np.hypot(information, nuisance))


def fresh_loss(singular_values: Any, coefficients: Any, noise: float, lr: float, steps: Any) -> Array:
    """|r~_tau|^2 + 2 noise sum_s (1 - (1 - lr lambda_s^2)^tau): loss on fresh labels, up to a constant.

    Mallows' C_p along gradient descent: what is left, and twice the noise that was fitted. Unbiased if
    the noise has the same variance in every direction. At tau the directions with lambda_s >= alpha,
    tau = Gamma/(lr alpha^2), are learned; it is least where one more holds more noise than label.

    Args:
        singular_values: (m,) descending. coefficients: <u_s, r_0> (m,).
        noise: variance of the labels in each direction, >= 0. lr: step size. steps: (T,) whole numbers.

    Returns:
        (T,).

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    lam, coef = spectrum(singular_values, coefficients)
    kept, learned = _factors(lam**2, lr, steps)
    with np.errstate(over="ignore"):
        left = ((kept * coef) ** 2).sum(axis=1)
    return left + 2.0 * nonnegative("noise", noise) * learned.sum(axis=1)


def early_stopping_value(
    singular_values: Any, coefficients: Any, rank: int, alpha: float, Gamma: float
) -> float:
    """Early stopping value B of (6.1).

    B^2 = sum_I (alpha/lambda_s)^2 coef_s^2 + Gamma^2 sum_N (lambda_s/alpha)^2 coef_s^2.
    B/alpha bounds how far the linear model is from its start after T = Gamma/(lr alpha^2) steps.

    Args:
        singular_values, coefficients: (m,). rank: r. alpha: cutoff with lambda_r >= alpha >= lambda_(r+1).
        Gamma: > 0.

    Returns:
        B, in units of a residual.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    lam, coef, r = _cut(singular_values, coefficients, rank, alpha)
    inner = alpha / lam[:r] * coef[:r]
    outer = positive("Gamma", Gamma) * lam[r:] / alpha * coef[r:]
    return float(np.hypot(np.linalg.norm(inner), np.linalg.norm(outer)))


@dataclass(frozen=True)
class EarlyStoppingBounds:
    """Lemma 6.2 in order: lower <= B <= upper <= crude."""

    lower: float
    upper: float
    crude: float


def early_stopping_bounds(
    singular_values: Any, coefficients: Any, rank: int, alpha: float, Gamma: float
) -> EarlyStoppingBounds:
    """Lemma 6.2, (6.2) and (6.3).

    |Pi_I r_0| alpha/lambda_1 <= B <= (|Pi_I r_0|^2 + Gamma^2 |Pi_N r_0|^2)^(1/2) <= Gamma |r_0|. The last
    step needs Gamma >= 1 (the lemma says Gamma > 0); ``crude`` is max(1, Gamma) |r_0|, right for both.

    Args:
        singular_values: (m,) descending. coefficients: (m,), coef_s. rank: r, the dimension of I.
        alpha: cutoff. Gamma: duration, > 0.

    Returns:
        EarlyStoppingBounds, in units of a residual.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    lam, coef, r = _cut(singular_values, coefficients, rank, alpha)
    inside, outside = float(np.linalg.norm(coef[:r])), float(np.linalg.norm(coef[r:]))
    gamma = positive("Gamma", Gamma)
    lower = inside * alpha / float(lam[0]) if r else 0.0
    return EarlyStoppingBounds(
        lower, float(np.hypot(inside, gamma * outside)), max(1.0, gamma) * float(np.linalg.norm(coef))
    )


def _split(singular_values: Any, coefficients: Any, rank: int) -> tuple[Array, Array, int]:
    lam, coef = spectrum(singular_values, coefficients)
    r = integer("rank", rank, 0)
    if r > len(lam):
        raise ValueError(f"rank: expected at most {len(lam)} (the number of singular values), got {r}.")
    return lam, coef, r


def _cut(singular_values: Any, coefficients: Any, rank: int, alpha: float) -> tuple[Array, Array, int]:
    lam, coef, r = _split(singular_values, coefficients, rank)
    positive("alpha", alpha)
    low = float(lam[r]) if r < len(lam) else 0.0
    high = float(lam[r - 1]) if r else np.inf
    if not low <= alpha <= high:
        raise ValueError(
            f"alpha: a cutoff of {alpha:.6g} does not separate rank {r}; it lies in [{low:.6g}, {high:.6g}]."
        )
    return lam, coef, r


def _symmetric(matrix: Array) -> bool:
    return bool(np.abs(matrix - matrix.T).max(initial=0.0) <= 1e-10 * np.abs(matrix).max(initial=0.0))
