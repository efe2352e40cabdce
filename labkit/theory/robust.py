"""Robust separation and robust regression with linear functions (paper 3, §9.4.1; S12).

    (35)-(37)          robust_radius: the perturbation of the weights that a separator endures
    (38)               margin: what the hard-margin support vector machine makes as large as possible
    (40), (41)         robust_hinge <= regularized_hinge
    (42)               robust_square, against the printed_square
    section 9.6        logistic_ridge: where t steps of descent on the logistic loss are, at penalty 1/(eta t)

Everything holds for one sample at a time: each sample meets the perturbation that is worst for it, as in the
paper. One perturbation for all samples together can do no more harm than that.

Errata: (37) and (40) take |x_i| = 1; here the norms are kept, rho |w| |x_i|. (42) prints r^2 + rho^2 |w|^2
and loses the cross term: the worst case is (|r| + rho |w| |x|)^2.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from labkit.theory._checks import Array, array, nonnegative


def margin(w: Any, x: Any, y: Any) -> float:
    """min_i y_i w . x_i/|w|: the distance of the nearest sample from the boundary, below 0 if wrong.

    It is also the radius of the balls around the samples that are all classified as their centres.

    Args:
        w: (d,), not 0. x: (n, d). y: (n,) of -1 and 1.

    Returns:
        A distance, in units of x.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    weights, features, functional = _functional(w, x, y)
    return float(functional.min() / np.linalg.norm(weights))


def support_vector_machine(x: Any, y: Any) -> Array:
    """The hard-margin separator through the origin, by scikit-learn.

    Every sample comes with its mirror image (-x, -y): then the offset that SVC fits is 0.

    Args:
        x: (n, d), separable through the origin. y: (n,) of -1 and 1.

    Returns:
        (d,), of norm 1.
    """
    from sklearn.svm import SVC  # here, because with what it imports it takes half as long as torch

    both = np.concatenate([x, np.negative(x)]), np.concatenate([y, np.negative(y)])
    w = SVC(C=1e6, kernel="linear", tol=1e-8).fit(*both).coef_[0]
    return np.asarray(w / np.linalg.norm(w))


def logistic_ridge(x: Any, y: Any, penalty: float, start: Any, steps: int = 50) -> Array:
    """The minimum of mean log(1 + exp(-y w.x)) + penalty |w|^2/2, by Newton steps, halved where needed.

    Args:
        x: (n, d). y: (n,) of -1 and 1. penalty: above 0. start: (d,). steps: at most.

    Returns:
        (d,).
    """
    z, w = np.asarray(y)[:, None] * x, np.asarray(start)

    def loss(w: Array) -> float:
        return float(np.logaddexp(0, -z @ w).mean() + penalty * (w @ w) / 2)

    for _ in range(steps):
        share = 1 / (1 + np.exp(z @ w))
        slope = penalty * w - share @ z / len(z)
        curve = (z.T * (share * (1 - share))) @ z / len(z) + penalty * np.eye(len(w))
        move = np.linalg.solve(curve, slope)
        if slope @ move < 1e-20:
            break
        size = 1.0
        while loss(w - size * move) > loss(w) and size > 1e-6:
            size /= 2
        w = w - size * move
    return w


def robust_radius(w: Any, x: Any, y: Any) -> float:
    """The largest rho such that no dw with |dw| <= rho |w| changes a decision, (35)-(37).

    The worst dw lies along -y_i x_i: rho = min_i y_i w . x_i/(|w| |x_i|).
    For inputs of norm 1 it is the margin, and then the most robust separator is that of (38); for others it
    is the hard-margin separator of x_i/|x_i|, another one.

    Args:
        w: (d,), not 0. x: (n, d), no row 0. y: (n,) of -1 and 1.

    Returns:
        rho; below 0 if a sample is classified wrongly.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    weights, features, functional = _functional(w, x, y)
    sizes = np.linalg.norm(features, axis=1)
    if (sizes == 0).any():
        raise ValueError(f"x: sample {int(sizes.argmin())} is 0; no perturbation of w changes its decision.")
    return float((functional / sizes).min() / np.linalg.norm(weights))


def robust_hinge(w: Any, x: Any, y: Any, rho: float) -> float:
    """Mean worst hinge loss over |dw|_2 <= rho |w|, (40): mean of [1 - m_i + rho |w| |x_i|]_+.

    Args:
        w: (d,), not 0. x: (n, d). y: (n,) of -1 and 1.
        rho: size of the perturbation as a share of |w|, >= 0.

    Returns:
        The mean loss.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    loss, penalty = _hinge(w, x, y, rho)
    return float(np.maximum(loss + penalty, 0.0).mean())


def regularized_hinge(w: Any, x: Any, y: Any, rho: float) -> float:
    """Mean hinge loss plus penalty, the right side of (41): mean of [1 - m_i]_+ + rho |w| |x_i|.

    It bounds ``robust_hinge`` at every w, so that its minimum bounds the robust minimum; they are equal where
    no sample lies beyond the margin, m_i <= 1.

    Args:
        w: (d,), not 0. x: (n, d). y: (n,) of -1 and 1.
        rho: size of the perturbation as a share of |w|, >= 0.

    Returns:
        The mean loss.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    loss, penalty = _hinge(w, x, y, rho)
    return float((np.maximum(loss, 0.0) + penalty).mean())


def robust_square(w: Any, x: Any, y: Any, rho: float) -> Array:
    """max (y_i - (w + dw) . x_i)^2 over |dw|_2 <= rho |w|, sample by sample: (|r_i| + rho |w| |x_i|)^2, (n,).

    The paper prints ``printed_square``, without the cross term 2 rho |r_i| |w| |x_i| (42).

    Args:
        w: (d,), not 0. x: (n, d). y: (n,). rho: size of the perturbation as a share of |w|, >= 0.

    Returns:
        (n,).

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    residual, reach = _reach(w, x, y, rho)
    return (np.abs(residual) + reach) ** 2


def printed_square(w: Any, x: Any, y: Any, rho: float) -> Array:
    """r_i^2 + rho^2 |w|^2 as (42) prints it, with |x_i| = 1 put back; below the worst case, (n,).

    Args:
        w: (d,), not 0. x: (n, d). y: (n,). rho: size of the perturbation as a share of |w|, >= 0.

    Returns:
        (n,).

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    residual, reach = _reach(w, x, y, rho)
    return residual**2 + reach**2


def _functional(w: Any, x: Any, y: Any) -> tuple[Array, Array, Array]:
    """w (d,), x (n, d) and y_i w . x_i, (n,)."""
    weights, features, labels = _linear(w, x, y)
    if not np.isin(labels, (-1.0, 1.0)).all():
        raise ValueError("y: expected labels -1 and 1; map others to these.")
    if not weights.any():
        raise ValueError("w: is 0, which separates nothing.")
    return weights, features, labels * (features @ weights)


def _hinge(w: Any, x: Any, y: Any, rho: Any) -> tuple[Array, Array]:
    weights, features, functional = _functional(w, x, y)
    reach = nonnegative("rho", rho) * np.linalg.norm(weights) * np.linalg.norm(features, axis=1)
    return 1.0 - functional, reach


def _reach(w: Any, x: Any, y: Any, rho: Any) -> tuple[Array, Array]:
    """Residuals y - Xw, and how far a perturbation can move each output; both (n,)."""
    weights, features, labels = _linear(w, x, y)
    sizes = np.linalg.norm(features, axis=1)
    return labels - features @ weights, nonnegative("rho", rho) * np.linalg.norm(weights) * sizes


def _linear(w: Any, x: Any, y: Any) -> tuple[Array, Array, Array]:
    weights, features, labels = array("w", w, 1), array("x", x, 2), array("y", y, 1)
    if len(weights) != features.shape[1]:
        raise ValueError(f"w: expected {features.shape[1]} weights to match x, got {len(weights)}.")
    if len(labels) != len(features):
        raise ValueError(f"y: expected {len(features)} labels to match x, got {len(labels)}.")
    return weights, features, labels
