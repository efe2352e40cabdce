"""What vouches for completeness: no singular value above the ones found, up to a stated probability.

With orthonormal X (n, l) and Y (N, l) such that A X = Y S, and the rest of both spaces,

    A = [ S  E ]        E = Yᵀ A (1 − X Xᵀ),    D = (1 − Y Yᵀ) A (1 − X Xᵀ).
        [ 0  D ]

If ‖D‖ <= d < τ, then by the inertia of τ² − A Aᵀ (a Schur complement) A has no more singular values above τ
than [S, √c E] has, c = τ² / (τ² − d²). E is known, from recorded products. D is not, and is seen from outside
alone: by Lanczos from a start that is uniform on the whole complement of X.

A start orthogonal to more than X would be no witness: a copy that was missed can lie mostly in what is taken
out, converged or not.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from labkit.krylov.small import values_only

SQUARED = 1e-140, 1e140  # what has a square in float64, and its rounding, too
MISS = 1e-3  # probability of a complete result that lacks a larger value, over all searches of one svd


def overlooked(diagonal: Tensor, ahead: Tensor, t: float, n: int, noise: float) -> float:
    """The probability that D has a singular value above t, and yet one Lanczos run from a random vector saw
    what it saw.

    The right singular vector of ‖D‖ holds the share c p_j(‖D‖²) of the j-th Lanczos vector, with p_j the
    Lanczos polynomials and c its share of the start. Shares are at most a unit vector's, so |c| <= (Σ_j
    p_j²)^(−1/2): above the largest Ritz value the polynomials grow so fast that c must be improbably small
    for a start uniform on the sphere, P(|c| < ε) <= 0.8 √n ε (Kuczyński & Woźniakowski 1992; van Dorsselaer,
    Hochstenbach & van der Vorst 2000).

    A direction of rounding only can hide what a start has of a vector, so no β of DᵀD, even one that came out
    as 0, counts for less than what rounding of its two products may make of it.

    Args:
        diagonal: (q,), of the bidiagonal matrix.
        ahead: (q,), its off-diagonal, with the norm of the next direction last.
        t: above the largest singular value of that matrix.
        n: dimension that the start was drawn from.
        noise: the rounding of one product.
    """
    alphas = (diagonal**2 + torch.cat([diagonal.new_zeros(1), ahead[:-1] ** 2])).tolist()
    least = noise * (diagonal + t)
    betas = torch.maximum(diagonal * ahead.abs(), least).tolist()
    before, now, total, beta_before = 0.0, 1.0, 1.0, 0.0
    for alpha, beta in zip(alphas, betas, strict=True):
        following = (t * t - alpha) * now - beta_before * before
        if beta == 0:  # all products are 0
            return 0.0
        if following <= 0:  # so much rounding may hide that t is no bound
            return 1.0
        if following >= 1e100 * beta:
            return 0.0
        before, now, beta_before = now, following / beta, beta
        total += now * now
    return min(1.0, 0.8 * math.sqrt(n / total))


def refuse_scale(largest: float) -> None:
    """Raises ValueError where float64 cannot hold the squares that a certificate compares."""
    low, high = SQUARED
    if largest and not low < largest < high:
        raise ValueError(
            f"A: its first singular value is about {largest:.0e}, needs one from {low:.0e} to {high:.0e}, as "
            "squares are compared. Multiply A by a constant."
        )


def bounded(values: Tensor, coupling: Tensor, k: int, slack: float, outside: float) -> bool:
    """Whether s_i(A) <= values_i + slack for all i <= k, given that ‖D‖ <= outside.

    Args:
        values: (l,), the diagonal of S, descending.
        coupling: (l, r), E times any r orthonormal columns that its rows lie in.
        k: how many of the values are asked about.
        slack: that they may fall short.
        outside: the bound on ‖D‖.
    """
    refuse_scale(float(values[0]))
    edge = float(values[k - 1]) + slack
    if outside >= edge:
        return False
    # c falls with τ, so the one of the smallest τ serves for all k.
    c = edge**2 / (edge**2 - outside**2)
    above = values_only(torch.cat([torch.diag(values), c**0.5 * coupling], dim=1))
    return bool((above[:k] <= values[:k] + slack).all())


def lock(
    values: Tensor, coupling: Tensor, k: int, slack: float, most: int, floor: float = 0.0
) -> tuple[int, float] | None:
    """How many leading triplets to take out before a search, and the bound on the rest that it has to show.

    More triplets leave less outside, so that the search is shorter; but the later ones have not converged and
    are coupled to what is outside. So: the most of them that still allow ‖D‖² nine tenths of the way from the
    square of the next Ritz value, past the last of the last, to that of the k-th with its slack.

    Args:
        values, coupling, k, slack: as in `bounded`. most: triplets at the most.
        floor: what is asked for at the least, in place of a smaller next value.

    Returns:
        (l, outside) with k <= l <= most; None if not even l = k serves, so that residuals must fall first.
    """
    edge = float(values[k - 1]) + slack

    def outside(count: int) -> float:
        # Past the last, as much as the last: a flat spectrum goes on.
        beyond = max(floor, float(values[min(count, len(values) - 1)]))
        return math.sqrt(0.1 * beyond**2 + 0.9 * edge**2)

    def serves(count: int) -> bool:
        return bounded(values[:count], coupling[:count], k, slack, outside(count))

    if not serves(k):
        return None
    low, high = k, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if serves(middle) else (low, middle - 1)
    return low, outside(low)
