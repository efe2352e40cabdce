"""Cutoff against bias, variance and width: Theorems 2.2, 2.3, 6.21 and 6.24 of paper 4.

Two cutoffs are in play. The *spectral* cutoff alpha_0 is compared with singular values. The *relative* cutoff
a of the theorems is alpha_0/sqrt(n K) for a random start (spectrum of Sigma(X)^(1/2)) and alpha_0/sqrt(n) for
a given start (spectrum of J(W_0)); the full theorems have (n |X|^2)^(1/4) for sqrt(n), which is no larger as
|X| <= sqrt(n).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from labkit.theory._checks import Array, array, integer, nonnegative, positive, spectrum

STARTS = ("random", "given")


def relative_cutoff(
    cutoff: float,
    n: int,
    outputs: int = 1,
    *,
    start: str = "random",
    x_norm: float | None = None,
    B: float = 1.0,
    nu: float = 1.0,
) -> float:
    """The a of the theorems from a spectral cutoff.

    random: cutoff/(B sqrt(K) (n |X|^2)^(1/4)) of Thm 6.24; given: cutoff/(nu B (n |X|^2)^(1/4)) of Thm 6.21.
    Without ``x_norm``, B and nu these are cutoff/sqrt(nK) (Thm 2.2) and cutoff/sqrt(n) (Thm 2.3).

    Args:
        cutoff: on the singular values of Sigma(X)^(1/2) (random) or J(W_0) (given). x_norm: spectral norm of
        X; sqrt(n) if None.
        outputs: K. start: "random" or "given". B: bound on |phi'|. nu: scale of V.

    Returns:
        a, without unit.

    Raises:
        ValueError: an argument is out of its range.
    """
    scale = (n * (n if x_norm is None else positive("x_norm", x_norm) ** 2)) ** 0.25
    factor = np.sqrt(integer("outputs", outputs, 1)) if _start(start) == "random" else nu
    return positive("cutoff", cutoff) / float(scale * factor * B)


@dataclass(frozen=True)
class Tradeoff:
    """The three terms of Thm 2.2 (or 2.3) for each candidate cutoff; arrays (C,), from large cutoff to small.

    ``total`` is their sum: the theorem's bound up to a constant, so only its shape and its minimiser mean
    something.
    """

    cutoff: Array  # on the singular values
    alpha: Array  # relative cutoff of the theorem
    rank: Array  # dimension of the information space
    bias: Array  # |Pi_N y| / sqrt(n)
    unfinished: Array  # e^-Gamma
    variance: Array  # Gamma / (alpha sqrt(n))
    total: Array


def tradeoff(
    singular_values: Any,
    coefficients: Any,
    n: int,
    Gamma: float,
    *,
    outputs: int = 1,
    start: str = "random",
    cutoffs: Any = None,
    outside: float = 0.0,
) -> Tradeoff:
    """Right side of Thm 2.2 against the cutoff: |Pi_N y|/sqrt(n) + e^-Gamma + Gamma/(alpha sqrt(n)).

    Args:
        singular_values: (m,) descending, of Sigma(X)^(1/2) (start="random") or of J(W_0) (start="given").
        coefficients: <u_s, y> (Thm 2.2) or <u_s, r_0> (Thm 2.3), (m,).
        n: samples. Gamma: duration >= 1. outputs: K (used for the random start only).
        cutoffs: (C,) positive; None takes every positive singular value, the only places where the bias
        changes.
        outside: norm of y outside the span of the u_s (truncated SVD); it is counted as nuisance.

    Returns:
        Tradeoff, (C,) each.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    lam, coef = spectrum(singular_values, coefficients)
    count, gamma = integer("n", n, 1), positive("Gamma", Gamma)
    cut = np.unique(lam[lam > 0])[::-1] if cutoffs is None else np.sort(array("cutoffs", cutoffs, 1))[::-1]
    if not cut.size or (cut <= 0).any():
        raise ValueError("cutoffs: expected at least one positive cutoff (is the whole spectrum 0?).")
    rank = (lam[None, :] >= cut[:, None]).sum(axis=1)
    tail = np.append(np.cumsum(coef[::-1] ** 2)[::-1], 0.0) + nonnegative("outside", outside) ** 2
    alpha = cut * relative_cutoff(1.0, count, outputs, start=start)
    bias = np.sqrt(tail[rank] / count)
    unfinished = np.full(cut.size, np.exp(-gamma))
    variance = gamma / (alpha * np.sqrt(count))
    return Tradeoff(cut, alpha, rank, bias, unfinished, variance, bias + unfinished + variance)


def best_cutoff(curves: Tradeoff) -> float:
    """Cutoff with the least ``total``; of equals the largest (smallest information space).

    Args:
        curves: of `tradeoff`.

    Returns:
        A spectral cutoff, one of those in `curves`.
    """
    return float(curves.cutoff[int(np.argmin(curves.total))])


def training_loss_bound(nuisance_norm: float, n: int, Gamma: float) -> float:
    """Thm 2.2: |f(W_T) - y| is of order |Pi_N y| + e^-Gamma sqrt(n); Thm 2.3 with r_0 for y.

    Args:
        nuisance_norm: |Pi_N y|. n: samples. Gamma: duration, >= 1.

    Returns:
        An order, without its constant, in units of a residual.
    """
    return float(nuisance_norm + np.exp(-Gamma) * np.sqrt(n))


def width_condition(alpha: float, n: int, Gamma: float, *, start: str = "random") -> float:
    """Order of the width asked for: Gamma^4 log(n)/a^8 (2.2), or Gamma^4/a^8 (Thm 2.3); constants dropped.

    Args:
        alpha: a, the relative cutoff. n: samples. Gamma: duration, >= 1. start: "random" or "given".

    Returns:
        An order, without its constant.

    Raises:
        ValueError: an argument is out of its range.
    """
    base = positive("Gamma", Gamma) ** 4 / positive("alpha", alpha) ** 8
    return float(base * np.log(n)) if _start(start) == "random" else float(base)


def width_random(alpha: float, n: int, Gamma: float, zeta: float, c: float = 1.0) -> float:
    """Width of (6.89), constants included: 1.2e8 Gamma^4 log(n)/(c^4 zeta^4 a^8), if |Pi_I y| >= c |y|.

    Args:
        alpha: a, the relative cutoff. n: samples. Gamma: duration, >= 1.
        zeta: size of the start, as in (6.67). c: of the premise.

    Returns:
        Hidden units.

    Raises:
        ValueError: an argument is out of its range.
    """
    return float(1.2e8 * Gamma**4 * np.log(n) / (positive("c", c) * positive("zeta", zeta)) ** 4 / alpha**8)


def width_given(
    alpha: float, Gamma: float, zeta: float, nu: float = 1.0, B: float = 1.0, c_r: float = 1.0
) -> float:
    """Width of (6.59), constants included: 25600 C_r^2 Gamma^4/(a^8 nu^2 B^2 zeta^2); |r_0| <= C_r sqrt n.

    Args:
        alpha: a, the relative cutoff. Gamma: duration, >= 1. zeta: size of the start, as in (6.67).
        nu: scale of V. B: bound on |phi'|. c_r: C_r of |r_0| <= C_r sqrt n.

    Returns:
        Hidden units.

    Raises:
        ValueError: an argument is out of its range.
    """
    return float(25600.0 * c_r**2 * Gamma**4 / (alpha**8 * (nu * B * positive("zeta", zeta)) ** 2))


def full_rank_width(n: int, outputs: int, lambda_min: float, Gamma: float = 1.0) -> float:
    """Order of the width for (2.4), K^4 n^4 log(n) Gamma^4/lambda_min^4.

    The cutoff is then the square root of the least eigenvalue of Sigma(X), and N is empty.

    Args:
        n: samples. outputs: K. lambda_min: the least eigenvalue of Sigma(X). Gamma: duration, >= 1.

    Returns:
        An order, without its constant.

    Raises:
        ValueError: an argument is out of its range.
    """
    return width_condition(relative_cutoff(float(np.sqrt(lambda_min)), n, outputs), n, Gamma)


@dataclass(frozen=True)
class GeneralizationBound:
    """A bound on the classification error, in the parts the paper names; above 1 it says nothing."""

    bias: float  # from the labels on N
    variance: float  # from the distance travelled
    confidence: float  # from the finite sample, at failure probability delta
    unfinished: float  # e^-Gamma and the precision zeta

    @property
    def total(self) -> float:
        """The bound."""
        return self.bias + self.variance + self.confidence + self.unfinished


def generalization_bound_given(
    pinv_norm: float,
    nuisance_norm: float,
    n: int,
    alpha: float,
    Gamma: float,
    *,
    zeta: float,
    delta: float,
    nu: float = 1.0,
    B: float = 1.0,
    c_r: float = 1.0,
) -> GeneralizationBound:
    """Thm 6.21: bound on the classification error from any start.

    2 |Pi_N r_0|/sqrt n + 12 nu B (|J_I^+ r_0| + (Gamma/alpha)|Pi_N r_0|)/sqrt n + 5 sqrt(log(2/delta)/n)
    + 2 C_r (e^-Gamma + zeta).

    Args:
        pinv_norm, nuisance_norm: of r_0, for J(W_0) cut at the *spectral* cutoff ``alpha``. zeta: <= 1/2.
        delta: failure probability. Assumes unit-length inputs, one-hot labels, |V|_inf <= nu/sqrt(kK), a
        width of ``width_given``.
        n: samples. Gamma: duration, >= 1. B: bound on |phi'|. c_r: C_r of |r_0| <= C_r sqrt n.

    Returns:
        GeneralizationBound: the terms above, of which `total` is the sum.

    Raises:
        ValueError: an argument is out of its range.
    """
    root = float(np.sqrt(n))
    return GeneralizationBound(
        bias=2.0 * nuisance_norm / root,
        variance=12.0 * nu * B * (pinv_norm + Gamma / alpha * nuisance_norm) / root,
        confidence=_confidence(n, delta),
        unfinished=2.0 * c_r * float(np.exp(-Gamma) + zeta),
    )


def generalization_bound_random(
    pinv_norm: float,
    nuisance_norm: float,
    n: int,
    outputs: int,
    alpha0: float,
    Gamma: float,
    *,
    zeta: float,
    delta: float,
    B: float = 1.0,
    x_norm: float | None = None,
) -> GeneralizationBound:
    """Thm 6.24: bound on the classification error from a random start.

    2 |Pi_N y|/sqrt n + 12 B sqrt(K/n) (|J_I^+ y| + (Gamma/alpha_0)|Pi_N y|) + 12 (1 + Gamma/(a
    (n|X|^2)^(1/4))) zeta + 5 sqrt(log(2/delta)/n) + 2 e^-Gamma.

    Thm 6.25 prints 10 for the 5; the lemma behind both, (6.43), gives 2 sqrt(5) < 5.

    Args:
        pinv_norm, nuisance_norm: of y, for Sigma(X)^(1/2) cut at the *spectral* cutoff ``alpha0``.
        x_norm: spectral norm of X; sqrt(n) if None. Assumes unit-length inputs, one-hot labels, a width of
        ``width_random``.
        outputs: K. Gamma: duration, >= 1. zeta: size of the start, as in (6.67).
        delta: failure probability. B: bound on |phi'|.

    Returns:
        GeneralizationBound: the terms above, of which `total` is the sum.

    Raises:
        ValueError: an argument is out of its range.
    """
    root = float(np.sqrt(n))
    relative = relative_cutoff(alpha0, n, outputs, x_norm=x_norm, B=B)
    scale = (n * (n if x_norm is None else x_norm**2)) ** 0.25
    return GeneralizationBound(
        bias=2.0 * nuisance_norm / root,
        variance=12.0 * B * float(np.sqrt(outputs)) * (pinv_norm + Gamma / alpha0 * nuisance_norm) / root,
        confidence=_confidence(n, delta),
        unfinished=12.0 * (1.0 + Gamma / (relative * scale)) * zeta + 2.0 * float(np.exp(-Gamma)),
    )


def _confidence(n: int, delta: float) -> float:
    if not 0.0 < delta < 1.0:
        raise ValueError(f"delta: a failure probability lies in (0, 1), got {delta!r}.")
    return 5.0 * float(np.sqrt(np.log(2.0 / delta) / n))


def _start(start: str) -> str:
    if start not in STARTS:
        raise ValueError(f"start: expected 'random' (Thm 2.2) or 'given' (Thm 2.3), got {start!r}.")
    return start
