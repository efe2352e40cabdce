"""Cutoff against bias, variance and width: Theorems 2.2 and 2.3 of paper 4.

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


def _start(start: str) -> str:
    if start not in STARTS:
        raise ValueError(f"start: expected 'random' (Thm 2.2) or 'given' (Thm 2.3), got {start!r}.")
    return start
