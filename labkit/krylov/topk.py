"""The k largest singular triplets by Lanczos: converge, then look for what was missed.

One Krylov space never holds two copies of a repeated singular value, and its residuals do not say so. So when
all k have converged, a chain from a random vector orthogonal to everything found is run on what is left of
the operator, until either a value above the k-th turns up (then all k are converged anew, and the search
repeats), or it is improbable that there is one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from labkit.krylov.basis import combine
from labkit.krylov.bidiagonal import Factorisation
from labkit.krylov.operators import ShortSide
from labkit.krylov.small import small_svd

MISS = 1e-3  # probability with which the search may overlook a value above the k-th
ROOM = 20  # vectors beyond k that a restarted run needs at the least to make progress


@dataclass(frozen=True)
class Found:
    """X (n, k), s (k,), Y (N, k), residuals (k,), from the short side; nothing above `level` is missing."""

    X: Tensor
    s: Tensor
    Y: Tensor
    residual: Tensor
    level: float


def top_k(
    view: ShortSide, k: int, tol: float, budget: int, capacity: int, generator: torch.Generator
) -> Found:
    """The k leading triplets of a view, within `budget` pairs of products and `capacity` basis vectors."""
    fact = Factorisation(view, capacity, generator)
    spent = view.pairs
    budget += spent
    fact.inject()
    level = math.inf
    while _converge(fact, k, tol, budget):
        if fact.exhausted:
            level = 0.0
            break
        searched = _search(fact, k, tol, budget)
        if searched is not None:
            level = searched
            _converge(fact, k, tol, budget)  # the search may have mixed a further copy of the k-th value in
            break
    fact.pad(k)
    left, values, right = fact.ritz()
    left, right = left[:, :k], right[:, :k]
    X, Y = combine(fact.X[: fact.size], right).T, combine(fact.Y[: fact.size], left).T
    return Found(X, values[:k], Y, fact.residuals(left), level)


def _converge(fact: Factorisation, k: int, tol: float, budget: int) -> bool:
    """Grow until the k leading residuals are below tol · s₁; False if the budget runs out before."""
    while True:
        chain = None
        if fact.size >= k or fact.full:
            left, values, _ = fact.ritz()
            lead = left[:, :k]
            if fact.exhausted or float(fact.residuals(lead).max()) <= tol * float(values[0]):
                return True
            chain = fact.neediest(lead)
        if fact.view.pairs >= budget:
            return False
        if fact.full:
            fact.compress(k + (fact.capacity - k) // 3)
            chain = fact.neediest(fact.ritz()[0][:, :k])
        # Below k vectors, and for a few steps between tests, the newest chain is the one to follow.
        stride = max(1, fact.size // 50) if fact.size >= k else k - fact.size
        for _ in range(stride):
            if fact.full or fact.view.pairs >= budget:
                break
            target = len(fact.R) - 1 if chain is None else chain
            if target < 0 or not fact.advance(target):
                other = fact.neediest(torch.eye(fact.size, dtype=torch.float64))
                if other is None or not fact.advance(other):
                    fact.inject()


def _search(fact: Factorisation, k: int, tol: float, budget: int) -> float | None:
    """Look for a value above the k-th outside the basis.

    Returns:
        The level above which nothing was missed, up to probability MISS: at most s_k if the search could be
        finished. None if a larger value was found.
    """
    values = fact.ritz()[1]
    kth, edge = float(values[k - 1]), float(values[k - 1]) + tol * float(values[0])
    if fact.capacity - fact.size < ROOM and fact.capacity < fact.view.short:
        fact.compress(min(fact.size, k + (fact.capacity - k) // 3))
    begin, level = fact.size, math.inf
    if fact.view.pairs >= budget:
        return level
    chain = fact.inject()
    while True:
        if fact.exhausted:
            return None  # the basis is the whole space now: converge() has the exact answer
        diagonal, ahead = fact.tail(begin, chain)
        theta = float(small_svd(torch.diag(diagonal) + torch.diag(ahead[:-1], 1))[1][0])
        if theta > edge:
            return None
        level = upper_level(diagonal, ahead, theta, fact.view.short - begin)
        if level <= edge:
            return min(level, kth)
        if fact.full or fact.view.pairs >= budget or not fact.advance(chain):
            return level


def upper_level(diagonal: Tensor, ahead: Tensor, theta: float, n: int, miss: float = MISS) -> float:
    """Above this no singular value lies, up to probability `miss`, for all that one Lanczos run from a random
    vector saw.

    A singular vector to the value t holds the share c p_j(t²) of the j-th Lanczos vector, with p_j the
    Lanczos polynomials and c its share of the start. Shares are at most a unit vector's, so |c| <= (Σ_j
    p_j(t²)²)^(−1/2): above the largest Ritz value θ the polynomials grow so fast that c must be improbably
    small for a start uniform on the sphere, P(|c| < ε) <= 0.8 √n ε (van Dorsselaer, Hochstenbach & van der
    Vorst 2000).

    Args:
        diagonal: (q,), of the bidiagonal matrix.
        ahead: (q,), its off-diagonal, with the norm of the next direction last.
        theta: its largest singular value.
        n: dimension that the start was drawn from.
        miss: the probability.

    Returns:
        The level, at least theta; infinite while the run is too short to tell.
    """
    alphas = (diagonal**2 + torch.cat([diagonal.new_zeros(1), ahead[:-1] ** 2])).tolist()
    betas = (diagonal * ahead).tolist()

    def chance(t: float) -> float:
        before, now, total, beta_before = 0.0, 1.0, 1.0, 0.0
        for alpha, beta in zip(alphas, betas, strict=True):
            following = (t * t - alpha) * now - beta_before * before
            if abs(following) >= 1e100 * beta:
                return 0.0
            before, now, beta_before = now, following / beta, beta
            total += now * now
        return 0.8 * math.sqrt(n / total)

    low, high = theta, max(theta, float(diagonal.abs().max()), float(ahead.abs().max())) or 1.0
    for _ in range(20):
        if chance(high) <= miss:
            break
        high *= 2
    else:
        return math.inf
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if chance(middle) <= miss else (middle, high)
    return high
