"""The k largest singular triplets by Lanczos: converge, then look for what was missed.

One Krylov space never holds two copies of a repeated singular value, and its residuals do not say so. So when
all k have converged, the basis is cut down to the triplets that can be vouched for, and a chain from a random
vector orthogonal to those alone is run on what is left of the operator, until either a larger value turns up
(then all k are converged anew, from both), or it is improbable that there is one (:mod:`.certificate`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from labkit.krylov.basis import combine
from labkit.krylov.bidiagonal import Factorisation
from labkit.krylov.certificate import MISS, lock, overlooked
from labkit.krylov.operators import ShortSide
from labkit.krylov.small import values_only

ROOM = 20  # vectors beyond k that a restarted run needs at the least to make progress


@dataclass(frozen=True)
class Found:
    """X (n, k), s (k,), Y (N, k), residuals (k,), from the short side; complete if no larger is missing."""

    X: Tensor
    s: Tensor
    Y: Tensor
    residual: Tensor
    complete: bool


def top_k(
    view: ShortSide, k: int, tol: float, budget: int, capacity: int, generator: torch.Generator
) -> Found:
    """The k leading triplets of a view, within `budget` pairs of products and `capacity` basis vectors."""
    fact = Factorisation(view, capacity, generator)
    budget += view.pairs
    fact.inject()
    searches, need, before = 0, tol, -math.inf
    while _converge(fact, k, need, budget):
        if fact.exhausted:
            return _leading(fact, k, complete=True)
        left, values, _ = fact.ritz()
        most = fact.size if fact.capacity == view.short else min(fact.size, fact.capacity - ROOM)
        slack, last = tol * (float(values[0]) or 1.0), float(values[k - 1])
        # Where a search brought only more copies of the k-th value, the next asks for what is above it.
        floor = last if last <= before + slack else 0.0
        locked = lock(values, fact.coupling(left), k, slack, most, floor)
        if locked is None:
            need /= 2
            continue
        searches, before = searches + 1, last
        answer = _leading(fact, k, complete=False)
        # Σ_i MISS/(i (i + 1)) = MISS: the searches of one run share the probability.
        seen = _search(fact, *locked, MISS / (searches * (searches + 1)), budget)
        if seen != "more":
            return replace(answer, complete=seen == "nothing")
    return _leading(fact, k, complete=False)


def _leading(fact: Factorisation, k: int, complete: bool) -> Found:
    fact.pad(k)
    left, values, right = fact.ritz()
    left, right = left[:, :k], right[:, :k]
    X, Y = combine(fact.X[: fact.size], right).T, combine(fact.Y[: fact.size], left).T
    return Found(X, values[:k], Y, fact.residuals(left), complete)


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
        for _ in range(_stride(fact) if fact.size >= k else k - fact.size):
            if fact.full or fact.view.pairs >= budget:
                break
            target = len(fact.R) - 1 if chain is None else chain
            if target < 0 or not fact.advance(target):
                other = fact.neediest(torch.eye(fact.size, dtype=torch.float64))
                if other is None or not fact.advance(other):
                    fact.inject()


def _stride(fact: Factorisation) -> int:
    """Steps between tests: a test is a dense SVD of about 20 j³ flops, a step's orthogonality 8 j (n + N)."""
    j = fact.size
    steps = round(2.5 * j**2 / (fact.view.short + fact.view.long))
    return max(1, j // 50, min(steps, j // 10))


def _search(fact: Factorisation, kept: int, outside: float, miss: float, budget: int) -> str:
    """Whether there is "more" than `outside` beside the `kept` leading triplets, or "nothing", up to the
    probability `miss`; "unknown" if products or memory end before that is known.
    """
    fact.compress(kept)
    if fact.view.pairs >= budget:
        return "unknown"
    chain = fact.inject()
    while not fact.exhausted:
        diagonal, ahead = fact.tail(kept, chain)
        if float(values_only(torch.diag(diagonal) + torch.diag(ahead[:-1], 1))[0]) >= outside:
            return "more"
        if overlooked(diagonal, ahead, outside, fact.view.short - kept, fact.noise()) <= miss:
            return "nothing"
        if fact.full or fact.view.pairs >= budget:
            return "unknown"
        # Beside a flat spectrum a copy that was missed shows first in the digits of rounding.
        fact.advance(chain, through=True)
    return "more"  # the basis is the whole space now, and has the exact answer
