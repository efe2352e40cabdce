"""Least squares as paper 3 uses it (§9.6, §9.10.6): which solution, and when to stop (claims S1, S2, S3).

    Lemmas 3, 4, Cor. 1   linear_model.min_norm_limit, linear_model.gd_iterates      S1
    Lemma 1               null_space_part, rms_distance                              S2
    §9.6, [25]            gd_filter, flow_filter, ridge_filter, matched_ridge        S3
                          filter_risk, risk_ratio_bound                              S3
    §9.10.6, last page    regularized_inverse, regularized_inverse_error             S3

The bound 1.69 on the risk of gradient flow against that of ridge is later work: A. Ali, J. Z. Kolter and
R. J. Tibshirani, A continuous-time view of early stopping for least squares (2019), Theorem 2.

Errata: alpha* = (X X^T)^-1 y, the inverse is missing in Cor. 1; the gradient of (49) carries 1/n once, where
the proof of Lemma 4 has it in front and in e; lambda = 1/(eta t) belongs to the loss 1/2 |Xw - y|^2, and to
(1/2n)|Xw - y|^2, which (49) minimises, lambda = n/(eta t).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from labkit.theory._checks import Array, array, integer, nonnegative, positive
from labkit.theory.residuals import progress


def null_space_part(x: Any, w: Any) -> Array:
    """P0 w, the part of w on which the data X say nothing: P0 = I - X^+ X.

    Gradients of any loss of Xw lie in the row space of X, so that no gradient descent, full or stochastic,
    moves this part (Lemma 1).

    Args:
        x: (n, d), of any rank. w: (d,) or (..., d).

    Returns:
        The shape of ``w``.

    Raises:
        ValueError: an array is not finite or of another shape.
    """
    _, vectors = _row_space(x)
    weights = array("w", w, (1, 2, 3, 4))
    if weights.shape[-1] != vectors.shape[1]:
        raise ValueError(f"w: expected {vectors.shape[1]} weights to match x, got {weights.shape[-1]}.")
    for _ in range(2):  # twice is enough: what the first projection left by rounding goes with the second
        weights = weights - (weights @ vectors.T) @ vectors
    return weights


def rms_distance(x: Any, scale: float) -> float:
    """sqrt(E |w_inf - X^+ y|^2) = scale * sqrt(d - rank X) for a start with entries of variance scale^2.

    Args:
        x: (n, d). scale: standard deviation of an entry of the start.

    Returns:
        A distance, in units of a weight.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    s, vectors = _row_space(x)
    return nonnegative("scale", scale) * math.sqrt(vectors.shape[1] - len(s))


def gd_filter(singular_values: Any, lr: float, steps: Any) -> Array:
    """1 - (1 - lr s^2)^t: the share of a direction that t steps on 1/2 |Xw - y|^2 from 0 have learned.

    Args:
        singular_values: s (m,), any order. lr: step size eta. steps: (T,) whole numbers, any order.

    Returns:
        (T, m).

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    return progress(_singular(singular_values) ** 2, lr, steps)


def flow_filter(singular_values: Any, times: Any) -> Array:
    """1 - exp(-s^2 t): the same for gradient flow, the limit of small steps with t = lr * steps; (T, m).

    Args:
        singular_values: s (m,), any order. times: t (T,), >= 0.

    Returns:
        (T, m), shares from 0 to 1.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    return -np.expm1(-np.outer(_nonnegative("times", times), _singular(singular_values) ** 2))


def ridge_filter(singular_values: Any, penalties: Any) -> Array:
    """s^2/(s^2 + lambda): the minimiser of 1/2 |Xw - y|^2 + (lambda/2)|w|^2; infinite lambda gives 0; (L, m).

    At lambda = 0 a direction with s = 0 counts as not learned, as in the pseudo-inverse.

    Args:
        singular_values: s (m,), any order. penalties: lambda (L,), >= 0.

    Returns:
        (L, m), shares from 0 to 1.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    lam = np.atleast_1d(np.asarray(penalties, dtype=np.float64))
    if lam.ndim != 1 or np.isnan(lam).any() or (lam < 0).any():
        raise ValueError(f"penalties: expected numbers >= 0, got {penalties!r}.")
    square = np.broadcast_to(_singular(singular_values) ** 2, (len(lam), np.size(singular_values)))
    with np.errstate(invalid="ignore", divide="ignore"):
        # 1/(1 + lambda/s^2) stays right at both ends, where s^2/(s^2 + lambda) would be 0/0 or inf/inf.
        return np.where(square > 0, 1.0 / (1.0 + lam[:, None] / square), 0.0)


def matched_ridge(lr: float, steps: Any, samples: int = 1) -> Array:
    """The ridge penalty lambda that goes with so many steps of gradient descent; infinite at step 0.

    lambda = samples/(lr t) in 1/2 |Xw - y|^2 + (lambda/2)|w|^2, for descent on (1/(2 samples))|Xw - y|^2:
    leave ``samples`` at 1 if the loss was not divided by n.

    Args:
        lr: step size eta. steps: (T,) numbers >= 0. samples: n if the loss was a mean.

    Returns:
        (T,).

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.

    Example:
        >>> matched_ridge(0.5, [4], samples=10).tolist()
        [5.0]
    """
    with np.errstate(divide="ignore"):
        return integer("samples", samples, 1) / (positive("lr", lr) * _nonnegative("steps", steps))


@dataclass(frozen=True)
class EstimationRisk:
    """Mean squared error of an estimate over the label noise, in its two parts; each (T,)."""

    bias: Array
    variance: Array

    @property
    def total(self) -> Array:
        """The risk: squared bias plus variance."""
        return self.bias + self.variance


def filter_risk(
    filters: Any, singular_values: Any, signal: Any, noise: float, *, of: str = "estimation"
) -> EstimationRisk:
    """Risk of the estimate sum_i f_i (u_i . y)/s_i v_i from y = X w* + z, z with entries of variance noise^2.

    Estimation, E|w - w*|^2: bias sum (1 - f)^2 a^2, variance noise^2 sum f^2/s^2, with a_i = v_i . w*.
    Prediction at the same inputs, E|X(w - w*)|^2: each term times s^2.

    Args:
        filters: f (T, m), as the filter functions return them. singular_values: s (m,).
        signal: a (m,). noise: the standard deviation of one label.
        of: "estimation" or "prediction".

    Returns:
        EstimationRisk, (T,) each.

    Raises:
        ValueError: shapes that do not match, or a direction with s = 0 that the filter uses.
    """
    s, f = _singular(singular_values), array("filters", filters, 2)
    a, sd = array("signal", signal, 1), nonnegative("noise", noise)
    if f.shape[1] != len(s):
        raise ValueError(f"filters: expected {len(s)} columns, one a singular value, got {f.shape[1]}.")
    if a.shape != s.shape:
        raise ValueError(f"signal: expected one coefficient per singular value {s.shape}, got {a.shape}.")
    if of not in ("estimation", "prediction"):
        raise ValueError(f"of: {of!r} is not one of estimation, prediction.")
    if (f[:, s == 0] != 0).any():
        raise ValueError("filters: a direction with singular value 0 must have filter 0.")
    weight = s**2 if of == "prediction" else np.ones_like(s)
    amplified = np.divide(f, s, out=np.zeros_like(f), where=s > 0)
    return EstimationRisk(((1 - f) ** 2) @ (weight * a**2), sd**2 * (amplified**2) @ weight)


def risk_ratio_bound(step: float = 0.0) -> float:
    """What the risk of gradient descent may be, at most, as a multiple of ridge's at lambda = 1/(eta t).

    Direction by direction, with x = eta t s^2: the bias of gradient flow, e^-x, is at most that of ridge,
    1/(1 + x); its standard deviation is ((1 - e^-x)(1 + x)/x) times that of ridge. The largest value of this
    factor, squared, is 1.68591 (at x = 1.793): it bounds the ratio of risks for every X, signal, noise and
    time, in estimation and in prediction (Ali, Kolter and Tibshirani 2019, Theorem 2, who state 1.6862).

    A finite step has (1 - v)^t >= e^(-c x) for v = eta s^2 <= ``step`` with c = -log(1 - step)/step, and so
    e^(-c x) in place of e^-x in the variance (ours; the bias only falls). At one step with v = 1 descent has
    4 times the variance of ridge: 1.69 belongs to small steps.

    Args:
        step: eta times the largest s^2, in [0, 1); 0 is gradient flow.

    Returns:
        The factor.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> round(risk_ratio_bound(), 4)
        1.6859
    """
    v = nonnegative("step", step)
    if v >= 1:
        raise ValueError(f"step: expected eta times the largest s^2 in [0, 1), got {step!r}.")
    c = -math.log1p(-v) / v if v > 0 else 1.0
    # c is its value at x = 0; the maximum lies at 1.8/c or so, below 10 for every c >= 1.
    found = minimize_scalar(lambda x: np.expm1(-c * x) * (1 + x) / x, bounds=(1e-9, 10.0), method="bounded",
                            options={"xatol": 1e-12})  # fmt: skip
    return max(float(found.fun) ** 2, c**2)


def regularized_inverse(a: Any, delta: float) -> Array:
    """A^T (A A^T + delta^2 I)^-1, which tends to A^+ as delta goes to 0, whatever the rank; (d, n).

    Args:
        a: (n, d). delta: > 0.

    Returns:
        (d, n).

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    matrix, shift = array("a", a, 2), positive("delta", delta) ** 2
    gram = matrix @ matrix.T + shift * np.eye(len(matrix))
    return np.asarray(np.linalg.solve(gram, matrix).T, dtype=np.float64)


def regularized_inverse_error(a: Any, delta: Any) -> Array:
    """|A^T (A A^T + delta^2 I)^-1 - A^+|_2 = delta^2/(s (s^2 + delta^2)), s the least singular value above 0.

    A direction s has 1/s - s/(s^2 + delta^2), largest where s is least: the error falls as delta^2/s^3.

    Args:
        a: (n, d), not all 0. delta: (T,) numbers >= 0.

    Returns:
        (T,).

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    s, _ = _row_space(a, "a")
    if not len(s):
        raise ValueError("a: all entries are 0; its pseudo-inverse is reached at every delta.")
    square = _nonnegative("delta", delta) ** 2
    least = float(s[-1])
    return square / (least * (least**2 + square))


def _row_space(x: Any, name: str = "x") -> tuple[Array, Array]:
    """Singular values above rounding (r,), descending, and an orthonormal basis of the row space (r, d)."""
    features = array(name, x, 2)
    _, s, vt = np.linalg.svd(features, full_matrices=False)
    kept = s > s.max(initial=0.0) * max(features.shape) * np.finfo(np.float64).eps
    return s[kept], vt[kept]


def _singular(values: Any) -> Array:
    s = array("singular_values", values, 1)
    if (s < 0).any():
        raise ValueError(f"singular_values: expected values >= 0, got {s.min():.3e}.")
    return s


def _nonnegative(name: str, values: Any) -> Array:
    result = np.atleast_1d(array(name, values, (0, 1)))
    if (result < 0).any():
        raise ValueError(f"{name}: expected numbers >= 0, got {values!r}.")
    return result
