"""Section 5.1 of paper 4 in closed form: gradient descent on a noisy low-rank linear model (claim J10).

X = X_clean + Z with X_clean (n, d) of rank r, y = X_clean w* + z; entries of Z and z have variances
sigma_x^2/n and sigma_y^2/n. The loss is 1/2 |Xw - y|^2; the risk is that of fresh noise at the same clean
rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from labkit.theory._checks import Array, array, nonnegative
from labkit.theory.residuals import progress


def gd_iterates(x: Any, y: Any, lr: float, steps: Any, w0: Any = None) -> Array:
    """Iterates of w <- w - lr X^T (Xw - y), (5.2), without iterating.

    w_tau = w_0 + V diag((1 - (1 - lr s^2)^tau)/s) U^T (y - X w_0) with X = U diag(s) V^T; directions with s =
    0 stay.

    Args:
        x: (n, d). y: (n,). lr: step size. steps: (T,) whole numbers, any order. w0: (d,), zeros if None.

    Returns:
        (T, d).

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.

    Example:
        >>> gd_iterates([[1.0]], [1.0], 0.5, [0, 1, 2]).ravel().tolist()
        [0.0, 0.5, 0.75]
    """
    features, labels = array("x", x, 2), array("y", y, 1)
    if len(labels) != len(features):
        raise ValueError(f"y: expected {len(features)} labels to match x, got {len(labels)}.")
    start = np.zeros(features.shape[1]) if w0 is None else array("w0", w0, 1)
    if len(start) != features.shape[1]:
        raise ValueError(f"w0: expected {features.shape[1]} weights to match x, got {len(start)}.")
    u, s, vt = np.linalg.svd(features, full_matrices=False)
    kept = s > s.max(initial=0.0) * max(features.shape) * np.finfo(np.float64).eps
    u, s, vt = u[:, kept], s[kept], vt[kept]
    coef = u.T @ (labels - features @ start)
    return start + (progress(s**2, lr, steps) * (coef / s)) @ vt


def min_norm_limit(x: Any, y: Any, w0: Any = None, p: Any = None) -> Array:
    """Where ``gd_iterates`` ends for 0 < lr < 2/|X|^2: X^+ y + (I - X^+ X) w_0, (d,).

    With the gradient multiplied by P = diag(p) it ends at w_0 + P X^T (X P X^T)^-1 (y - X w_0): least in
    |P^(-1/2) (w - w_0)| among the solutions.

    Args:
        x: (n, d). y: (n,). w0: (d,), zeros if None. p: (d,), positive; ones if None.

    Returns:
        (d,).

    Raises:
        ValueError: an array is not finite or of another shape, or an entry of p is not positive.
    """
    features, labels = array("x", x, 2), array("y", y, 1)
    start = np.zeros(features.shape[1]) if w0 is None else array("w0", w0, 1)
    scales = np.ones(features.shape[1]) if p is None else array("p", p, 1)
    if not (scales > 0).all():
        raise ValueError(f"p: got {p}; every entry must be positive.")
    root = np.sqrt(scales)
    return start + root * np.linalg.lstsq(features * root, labels - features @ start, rcond=None)[0]


@dataclass(frozen=True)
class Risk:
    """Population risk of each weight vector and its parts on I = range(X_clean) and N; each (T,)."""

    information: Array
    nuisance: Array

    @property
    def total(self) -> Array:
        """The population risk."""
        return self.information + self.nuisance


def population_risk(
    w: Any, x_clean: Any, y_clean: Any, sigma_x: float, sigma_y: float, *, rank: int | None = None
) -> Risk:
    """E 1/2 |(X_clean + Z')w - y_clean - z'|^2 over fresh noise, and its two parts.

    E L = 1/2 |X_clean w - y_clean|^2 + (sigma_x^2 |w|^2 + sigma_y^2)/2, as E|Z'w|^2 = n (sigma_x^2/n) |w|^2.
    The noise is isotropic in R^n, so I carries r/n of it and N the rest; the misfit lies on I wholly, y_clean
    being X_clean w*.

    Args:
        w: (d,) or (T, d). x_clean: (n, d). y_clean: (n,), in the range of x_clean. sigma_x, sigma_y: as in
        the model.
        rank: r; the numerical rank of ``x_clean`` if None.

    Returns:
        Risk, (T,) each; T = 1 for one w.

    Raises:
        ValueError: y_clean is not in the range of x_clean, so that the split would be wrong.
    """
    features, labels = array("x_clean", x_clean, 2), array("y_clean", y_clean, 1)
    weights = np.atleast_2d(array("w", w, (1, 2)))
    u, s, _ = np.linalg.svd(features, full_matrices=False)
    numerical = int((s > s.max(initial=0.0) * max(features.shape) * np.finfo(np.float64).eps).sum())
    r = numerical if rank is None else rank
    stray = float(np.linalg.norm(labels - u[:, :r] @ (u[:, :r].T @ labels)))
    if stray > 1e-8 * max(float(np.linalg.norm(labels)), 1e-300):
        raise ValueError(
            f"y_clean: {stray:.2e} of it lies outside the range of x_clean; pass the labels before noise."
        )
    fit = 0.5 * ((weights @ features.T - labels) ** 2).sum(axis=1)
    noise = 0.5 * (
        nonnegative("sigma_x", sigma_x) ** 2 * (weights**2).sum(axis=1) + nonnegative("sigma_y", sigma_y) ** 2
    )
    share = r / len(features)
    return Risk(fit + share * noise, (1.0 - share) * noise)
