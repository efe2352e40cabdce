"""How fast SGD converges when gradients do not fight: section 3 of paper 5.

    equation        function                                               claim
    (A1), (A2)      largest_step                                           C3, C4
    Thm 3.1         contraction, sgd_bound, sgd_floor                      C3
    Thm 3.2         stationary_bound                                       C4
    Def. 2.1, mean  average_confusion                                      C3, C4
    section 2       orthogonal_loss                                        C3
    (ours)          exact_moments, exact_floor: E F of SGD on least        C3, C4
                    squares without a bound, what the bounds stand beside

Setting: F = (1/n) sum f_i, every f_i is L-smooth with |grad f_i|^2 >= 2 mu (f_i - min f_i); one f_k a step,
drawn uniformly, w <- w - alpha grad f_k. One step of the proof reads, for 0 < alpha < 2/(n L),

    E F_{t+1} - F* <= rho (E F_t - F*) + alpha eta_t,     rho = 1 - (2 mu/n)(alpha - n L alpha^2/2).

Errata:
    (A2)      the inequality meant is |grad f_i|^2/2 >= mu (f_i - f_i*): perhaps lost in our copy of the text
    Def. 2.1  a mean over *all* pairs is |grad F|^2 >= 0, so eta would be 0 always and Thm 3.1 false; the
              pairs i = j must stay out. What the proof uses is the mean over i != j times (n - 1)/n
    Thm 3.2   rho = 2n/(2 - n L alpha), the gap is F(w_1) - F*, and 1/alpha belongs to that term: likewise

Thm 3.1 holds for alpha < 2/(n L). Its floor alpha eta/(1 - rho) = n eta/(2 mu (1 - n L alpha/2)) tends to
n eta/(2 mu), not to 0, as alpha -> 0, as section 6 says, too; SGD's own floor does vanish (`exact_floor`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from labkit.theory._checks import Array, array, integer, nonnegative, positive
from labkit.theory._checks import steps as whole_steps

__all__ = [
    "Moments",
    "average_confusion",
    "contraction",
    "exact_floor",
    "exact_moments",
    "largest_step",
    "orthogonal_loss",
    "sgd_bound",
    "sgd_floor",
    "stationary_bound",
]

BLOCK = 1024  # steps whose sums are taken at once


def largest_step(L: float, n: int) -> float:
    """2/(n L): Thms 3.1 and 3.2 promise nothing for steps from there on.

    Args:
        L: of (A1). n: functions.

    Returns:
        A step size.

    Raises:
        ValueError: an argument is out of its range.
    """
    return 2.0 / (integer("n", n, 1) * positive("L", L))


def contraction(L: float, mu: float, n: int, alpha: float) -> float:
    """rho = 1 - (2 mu/n)(alpha - n L alpha^2/2) of Thm 3.1, in [0, 1).

    Args:
        L: of (A1). mu: of (A2), at most L. n: functions. alpha: step size, below 2/(n L).

    Returns:
        rho.

    Raises:
        ValueError: alpha is outside (0, 2/(n L)), or mu > L, which no function satisfies.
    """
    step = _step(L, n, alpha)
    if positive("mu", mu) > L * (1 + 1e-12):
        raise ValueError(f"mu: expected at most L = {L:g}, got {mu!r}.")
    return float(1.0 - 2.0 * mu / n * (step - n * L * step**2 / 2))


def sgd_bound(gap0: Any, etas: Any, L: float, mu: float, n: int, alpha: float) -> Array:
    """Thm 3.1 as a recursion along the path: b_0 = gap0, b_{t+1} = rho b_t + alpha eta_t.

    Args:
        gap0: E F(w_0) - F*, >= 0.
        etas: (T,), confusion at w_0 ... w_{T-1} in the mean over runs: of the worst pair, or
            `average_confusion`. (..., T) for several paths at once; gap0 is then (...).
        L, mu: of (A1) and (A2). n: functions. alpha: step size, below 2/(n L).

    Returns:
        (..., T + 1). A mean confusion may be negative (gradients that agree) and then lowers the bound.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.

    Example:
        >>> sgd_bound(1.0, [0.2, 0.0], L=1.0, mu=1.0, n=2, alpha=0.5).round(4).tolist()
        [1.0, 0.85, 0.6375]
    """
    rho = contraction(L, mu, n, alpha)
    path = array("etas", etas, (1, 2, 3))
    gap = array("gap0", gap0, path.ndim - 1)
    if gap.shape != path.shape[:-1] or (gap < 0).any():
        raise ValueError(f"gap0: expected values >= 0 of shape {path.shape[:-1]}, got {gap0!r}.")
    bound = np.empty((*path.shape[:-1], path.shape[-1] + 1))
    bound[..., 0] = gap
    for t in range(path.shape[-1]):
        bound[..., t + 1] = rho * bound[..., t] + alpha * path[..., t]
    return bound


def sgd_floor(eta: float, L: float, mu: float, n: int, alpha: float) -> float:
    """alpha eta/(1 - rho) = n eta/(2 mu (1 - n L alpha/2)); alpha = 0 gives its limit n eta/(2 mu).

    Args:
        eta: confusion, >= 0. L: of (A1). mu: of (A2), at most L. n: functions.
        alpha: step size, below 2/(n L).

    Returns:
        In units of F.

    Raises:
        ValueError: an argument is out of its range.
    """
    worst = nonnegative("eta", eta)
    size = _step(L, n, alpha) if nonnegative("alpha", alpha) else 0.0
    return n * worst / (2.0 * positive("mu", mu) * (1.0 - n * L * size / 2))


def stationary_bound(gap1: float, eta: Any, L: float, n: int, alpha: float, steps: Any) -> Array:
    """Thm 3.2: min over k <= T of E |grad F(w_k)|^2 <= rho (gap1/(alpha T) + eta), rho = 2n/(2 - n L alpha).

    Args:
        gap1: F(w_1) - F*, at the first iterate that counts. steps: (T,), how many iterates count, >= 1.
        eta: confusion, one number or (T,): the worst of the first T iterates, or its mean over them.
        L: of (A1). n: functions. alpha: step size, below 2/(n L).

    Returns:
        (T,).

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    step, t = _step(L, n, alpha), whole_steps(steps)
    if (t < 1).any():
        raise ValueError(f"steps: expected at least 1 iterate, got {steps!r}.")
    gap, worst = nonnegative("gap1", gap1), array("eta", eta, (0, 1))
    return 2.0 * n / (2.0 - n * L * step) * (gap / (step * t) + worst)


def average_confusion(mean_inner: Any, n: int) -> Array:
    """-(n - 1)/n times the mean of <g_i, g_j> over i != j: the eta that the proof of Thm 3.1 needs.

    It is |grad f|^2's mean over n less |grad F|^2, so it can be negative, and never exceeds the worst pair's.

    Args:
        mean_inner: mean of <g_i, g_j> over i != j, any shape. n: functions.

    Returns:
        The shape of `mean_inner`.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    count = integer("n", n, 2)
    return -(count - 1) / count * array("mean_inner", mean_inner, (0, 1, 2, 3))


def orthogonal_loss(loss0: float, n: int, alpha: float, steps: Any) -> Array:
    """E F_t = F_0 (1 - (2 alpha - alpha^2)/n)^t for least squares on orthonormal x_i: eta = 0, nothing lost.

    Residual i is multiplied by 1 - alpha whenever i is drawn, and by nothing else. Thm 3.1 says
    (1 - (2 alpha - n alpha^2)/n)^t here.

    Args:
        loss0: F_0, >= 0. n: functions. alpha: step size, below 2/(n L). steps: (T,) whole numbers.

    Returns:
        (T,), in units of F.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    count, step = integer("n", n, 1), positive("alpha", alpha)
    return nonnegative("loss0", loss0) * (1.0 - (2 * step - step**2) / count) ** whole_steps(steps)


@dataclass(frozen=True, eq=False)
class Moments:
    """Exact expectations of SGD on least squares before each step and after the last; (..., T + 1) each.

    Attributes:
        loss: E F(w_t).
        mean_inner: E of the mean of <grad f_i, grad f_j> over i != j.
        gradient: E |grad F(w_t)|^2.
    """

    loss: Array
    mean_inner: Array
    gradient: Array


def exact_moments(gram: Any, residuals: Any, alpha: float, steps: int) -> Moments:
    """What SGD with batches of one does to F = (1/2n) sum r_i^2 in expectation: no bound, no sampling.

    A step multiplies the residuals r = Xw - y by I - alpha G e_k e_k^T with G = X X^T. With G = U diag(lam)
    U^T, r = r_perp + U c and r_perp out of reach, m = E c and M = E c c^T follow

        m <- (I - alpha diag(lam)/n) m
        M <- M - (alpha/n)(diag(lam) M + M diag(lam)) + (alpha^2/n) diag(lam) U^T diag(E r^2) U diag(lam).

    Args:
        gram: (n, n), or (S, n, n) for several data sets. residuals: (n,) or (S, n), X w_0 - y.
        alpha: any step size; past the edge of stability the moments grow without bound. steps: >= 0.

    Returns:
        Moments, (..., steps + 1) each.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    many = array("gram", gram, (2, 3))
    lam, U, start = _modes(many, residuals)
    n, step = many.shape[-1], positive("alpha", alpha)
    c = np.einsum("...ij,...i->...j", U, start)
    perp = (start - np.einsum("...ij,...j->...i", U, c))[..., None, :]
    decay = (1.0 - step / n * lam)[..., None, :]
    T = integer("steps", steps, 0) + 1
    loss, diagonal, total = (np.empty((*many.shape[:-2], T)) for _ in range(3))
    follow = _covariance(lam, U, c, step)
    with np.errstate(over="ignore", invalid="ignore"):
        for first in range(0, T, BLOCK):
            at = slice(first, min(first + BLOCK, T))
            m = np.repeat(decay, at.stop - first, axis=-2)
            m[..., 0, :] = c
            np.cumprod(m, axis=-2, out=m)
            c = m[..., -1, :] * decay[..., 0, :]
            square = perp * (perp + 2 * m @ np.swapaxes(U, -1, -2))  # E r^2 but for the part of M
            spread = np.empty_like(m)
            for t in range(at.stop - first):
                spread[..., t, :] = follow(square[..., t, :])
            loss[..., at] = square.sum(axis=-1) / (2 * n)
            diagonal[..., at] = (square @ np.diagonal(many, axis1=-2, axis2=-1)[..., None])[..., 0]
            total[..., at] = (spread @ lam[..., None])[..., 0]
    with np.errstate(invalid="ignore"):
        mean_inner = (total - diagonal) / (n * max(n - 1, 1))
    return Moments(loss, mean_inner, total / n**2)


def _covariance(lam: Array, U: Array, c: Array, step: float) -> Callable[[Array], Array]:
    """A step of M in `exact_moments`: completes E r^2 (..., n) in place, and tells the diagonal before it."""
    n = U.shape[-2]
    M = c[..., :, None] * c[..., None, :]
    shrink = 1.0 - step / n * (lam[..., :, None] + lam[..., None, :])
    scaled = U * lam[..., None, :]
    push = step**2 / n * np.swapaxes(scaled, -1, -2)

    def follow(square: Array) -> Array:
        nonlocal M
        part = U @ M
        part *= U
        square += part.sum(axis=-1)
        before = np.diagonal(M, axis1=-2, axis2=-1)
        M = shrink * M
        M += push @ (square[..., None] * scaled)
        return before

    return follow


def exact_floor(gram: Any, residuals: Any, alpha: float) -> float:
    """E F - F* of SGD on least squares after infinitely many steps; proportional to alpha as alpha -> 0.

    The fixed point of `exact_moments`: p = E r^2 solves p = r_perp^2 + alpha K p with
    K_ij = sum_ab U_ia U_ja U_ib U_jb lam_a lam_b/(lam_a + lam_b), a linear system of n unknowns.

    Args:
        gram: (n, n). residuals: (n,), at any w; only the part out of reach counts.
        alpha: step size.

    Returns:
        In units of F.

    Raises:
        ValueError: alpha is so large that SGD diverges in mean square.
    """
    many = array("gram", gram, 2)
    lam, U, start = _modes(many, residuals)
    step = positive("alpha", alpha)
    perp = start - U @ (U.T @ start)
    weight = lam[:, None] * lam / (lam[:, None] + lam)
    pairs = np.einsum("ia,ja->ija", U, U).reshape(-1, len(lam))
    K = ((pairs @ weight) * pairs).sum(axis=1).reshape(many.shape)
    if step * np.abs(np.linalg.eigvals(K)).max(initial=0.0) >= 1.0:
        raise ValueError(f"alpha: SGD does not settle with {alpha!r}; expected a smaller step.")
    p = np.linalg.solve(np.eye(len(many)) - step * K, perp**2)
    return float((p - perp**2).sum() / (2 * len(many)))


def _step(L: float, n: int, alpha: float) -> float:
    """alpha, if Thms 3.1 and 3.2 speak of it."""
    edge, step = largest_step(L, n), positive("alpha", alpha)
    if step >= edge:
        raise ValueError(f"alpha: expected a step below 2/(n L) = {edge:g}, got {alpha!r}.")
    return step


def _modes(gram: Array, residuals: Any) -> tuple[Array, Array, Array]:
    """Eigenvalues of G that are not rounding, with their vectors, and the residuals, shapes checked."""
    start = array("residuals", residuals, gram.ndim - 1)
    if gram.shape[-1] != gram.shape[-2] or start.shape != gram.shape[:-1]:
        raise ValueError(
            f"residuals: expected shape {gram.shape[:-1]} from gram {gram.shape}, got {start.shape}."
        )
    if not np.allclose(gram, np.swapaxes(gram, -1, -2), rtol=1e-9, atol=1e-12 * np.abs(gram).max(initial=0)):
        raise ValueError("gram: expected a symmetric matrix X X^T.")
    lam, U = np.linalg.eigh(gram)
    small = 1e-10 * np.abs(lam).max(initial=0.0)
    if (lam < -small).any():
        raise ValueError("gram: has a negative eigenvalue, so it is no X X^T.")
    # The rank is the largest of the stack; modes of the others that are out of reach have lam = 0.
    rank = int((lam > small).sum(axis=-1).max(initial=0))
    kept = slice(lam.shape[-1] - rank, None)
    return np.where(lam > small, lam, 0.0)[..., kept], U[..., kept], start
