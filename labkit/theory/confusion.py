"""How confused gradients can be: lemmas and theorems of paper 5 about data, depth and width.

    equation          function                                                   claim
    Lemma B.1         near_orthogonality_bound, near_orthogonality_level         C2
    (exact)           pair_tail, pair_level, some_pair_probability               C2, C5
    Lemma D.1         lemma_constants, zeta0                                     C6
    Thm 4.1           confusion_level                                            C5
    Cor. 4.1, Thm 4.2 none: emptier than Thm 4.1, or of constants left open      C7, C11, C19
    section 2, C      hessian_bound, subspace_cosine                             C14
    Thms 3.1, 3.2     in confusion_rates                                         C3, C4

Networks are g(x) = s(W_b s(... s(W_0 x))), (4): depth b counts the matrices after W_0, so there are b + 1.
Assumption 1: all |W_p| <= 1 (operator norm).

Errata:
    Lemma D.1   holds for each layer: |grad_{W_p} g| <= 1, so |grad_W g| <= sqrt(b + 1) for all together.
                zeta0 = 2 sqrt(b + 1), since there are b + 1 matrices (printed with b). It needs |s(z)| <=
                |z|, else hidden vectors may be longer than 1: not so for the sigmoid
    Thm 4.1     (P1), (P2) ask for values and slopes at most 1 in size; the proof uses |H_p| <= 1, hence
                |s(z)| <= |z|. For ReLU the inner product jumps as a unit switches, and the concentration
                step does not apply
    Thm 4.1     c is left open; from the logarithmic Sobolev inequality of the sphere c = 1/4 does for all d
                >= 2
    Cor. 4.1    the net is in the ball of *weights*: its exponent counts the weights, not d. The two coincide
                only for the linear model, for which the proof's Lipschitz constants are written
    Thm 4.2     "expectation >= -4" does not follow, as zeta depends on W; -4 (b + 1) is safe, by Lemma D.1.
                The vector of all weights has length near sqrt(width b/kappa), not 1, so its dimension alone
                does not give the rate of concentration
    Strat. 4.1  breaks Assumption 1: |W_0| is near 1 + sqrt(width/d), and the others need kappa >= 4
    Eq. (7)     the trace ends in H_{p-1}(x_i)^T for H_{p-1}(x_j)^T; and D's recurrence takes s' at H_p, which
                s has passed already
    App. C      a is d x r. With |H_i| |H_j| as printed nothing falls with the rank; the step before it has
                |H_i H_j|, which does
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import betainc, betaincinv

from labkit.theory._checks import Array, array, integer, positive

__all__ = [
    "LemmaConstants",
    "confusion_level",
    "hessian_bound",
    "lemma_constants",
    "near_orthogonality_bound",
    "near_orthogonality_level",
    "pair_level",
    "pair_tail",
    "some_pair_probability",
    "subspace_cosine",
    "zeta0",
]

SPHERE_CONSTANT = 0.25
"""c of Thm 4.1: P(h <= E h - t) <= exp(-(d - 1) t^2/(2 rho^2)) on spheres; (d - 1)/2 >= d/4 for d >= 2."""


def near_orthogonality_bound(nu: Any, n: int, d: int) -> Array:
    """Lemma B.1: P(some |<x_i, x_j>| >= nu) <= n^2 sqrt(pi/8) exp(-(d - 1) nu^2/2), also where above 1.

    Args:
        nu: in [0, 1], any shape. n: vectors, uniform on the unit sphere. d: its dimension + 1.

    Returns:
        The shape of `nu`.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    count, dim = integer("n", n, 2), integer("d", d, 1)
    return count**2 * np.sqrt(np.pi / 8) * np.exp(-(dim - 1) * _unit("nu", nu) ** 2 / 2)


def near_orthogonality_level(probability: Any, n: int, d: int) -> Array:
    """The nu at which Lemma B.1's bound is this probability; above 1 it says nothing at all (d >= 2).

    Args:
        probability: in (0, 1], any shape. n: vectors, at least 2. d: dimension + 1, at least 2.

    Returns:
        nu, in the shape of `probability`.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    share = _probability(probability)
    return np.sqrt(
        2 * np.log(integer("n", n, 2) ** 2 * np.sqrt(np.pi / 8) / share) / (integer("d", d, 2) - 1)
    )


def pair_tail(nu: Any, d: int) -> Array:
    """P(|<x, y>| >= nu) of two uniform unit vectors, exact: I_{1 - nu^2}((d - 1)/2, 1/2), d >= 2.

    Args:
        nu: in [0, 1], any shape. d: dimension of the vectors.

    Returns:
        A probability, in the shape of `nu`.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    return betainc((integer("d", d, 2) - 1) / 2, 0.5, 1.0 - _unit("nu", nu) ** 2)


def pair_level(probability: Any, d: int) -> Array:
    """The nu that |<x, y>| reaches with this probability: the inverse of `pair_tail`.

    Args:
        probability: in (0, 1], any shape. d: dimension of the vectors.

    Returns:
        nu, in the shape of `probability`.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    return np.sqrt(1.0 - betaincinv((integer("d", d, 2) - 1) / 2, 0.5, _probability(probability)))


def some_pair_probability(nu: Any, n: int, d: int) -> Array:
    """P(some |<x_i, x_j>| >= nu), as if the n (n - 1)/2 pairs were independent: 1 - (1 - p)^pairs.

    They are independent two by two, and for small p that is nearly all that counts; not a bound.

    Args:
        nu: in [0, 1], any shape. n: vectors, at least 2. d: dimension of the vectors.

    Returns:
        A probability, in the shape of `nu`.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    pairs = integer("n", n, 2) * (n - 1) / 2
    with np.errstate(divide="ignore"):
        return -np.expm1(pairs * np.log1p(-pair_tail(nu, d)))


def zeta0(depth: int) -> float:
    """2 sqrt(depth + 1), the constant of Lemma D.1; the paper prints 2 sqrt(depth).

    Args:
        depth: b, matrices after the first.

    Returns:
        zeta_0.

    Raises:
        ValueError: an argument is out of its range.
    """
    return 2.0 * float(np.sqrt(integer("depth", depth, 0) + 1))


@dataclass(frozen=True)
class LemmaConstants:
    """Lemma D.1: what its quantities never exceed under Assumption 1 and |s(z)| <= |z|, |s'| <= 1.

    Attributes:
        layer: |grad_{W_p} g|, each layer. weights: all layers together. zeta: |d f/d g|.
        zeta_x: |grad_x zeta|. zeta_w: |grad_W zeta|. The last two are the lemma's zeta0.
    """

    layer: float
    weights: float
    zeta: float
    zeta_x: float
    zeta_w: float


def lemma_constants(depth: int) -> LemmaConstants:
    """The constants of Lemma D.1 for the square and for the logistic loss.

    Args:
        depth: b, matrices after the first.

    Returns:
        LemmaConstants.

    Raises:
        ValueError: an argument is out of its range.
    """
    constant = zeta0(depth)
    return LemmaConstants(1.0, constant / 2, 2.0, constant, constant)


def confusion_level(probability: Any, n: int, d: int, depth: int, *, c: float = SPHERE_CONSTANT) -> Array:
    """The eta that Thm 4.1 allows with this failure probability: as depth^3 and as 1/sqrt(d).

    It says P(confusion <= eta) >= 1 - n^2 exp(-c d eta^2/(16 zeta0^4 (depth + 2)^4)), for data uniform on the
    sphere and weights fixed under Assumption 1.

    Args:
        probability: in (0, 1], any shape. n: samples. d: dimension of the vectors.
        depth: b, matrices after the first. c: the theorem's constant.

    Returns:
        eta, in the shape of `probability`.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    share = _probability(probability)
    room = np.log(integer("n", n, 2) ** 2 / share) / (positive("c", c) * integer("d", d, 1))
    return 4.0 * zeta0(depth) ** 2 * (depth + 2) ** 2 * np.sqrt(room)


def hessian_bound(w_norm: Any, product: Any, norm_i: Any, norm_j: Any, lipschitz: Any = 0.0) -> Array:
    """App. C: |<grad f_i(w), grad f_j(w)>| for functions with a common minimiser at 0.

    |w|^2 |H_i H_j| + (L_H/2) |w|^3 (|H_i| + |H_j|) + (L_H^2/4) |w|^4.

    Args:
        w_norm: |w|. product: |H_i H_j|; pass |H_i| |H_j| for the bound as printed. norm_i, norm_j: |H_i|,
        |H_j|.
        lipschitz: L_H, Lipschitz constant of the Hessians. All broadcast; all >= 0.

    Returns:
        The bound, in the shape that the arguments broadcast to.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    values = []
    for name, value in (
        ("w_norm", w_norm), ("product", product), ("norm_i", norm_i), ("norm_j", norm_j), ("lipschitz",
        lipschitz),
    ):  # fmt: skip
        values.append(array(name, value, (0, 1, 2, 3)))
        if (values[-1] < 0).any():
            raise ValueError(f"{name}: expected values >= 0, got {values[-1].min():g}.")
    w, both, first, second, smooth = values
    return w**2 * both + smooth / 2 * w**3 * (first + second) + smooth**2 / 4 * w**4


def subspace_cosine(d: Any, r: int, n: int) -> Array:
    """What the largest cosine between vectors of two out of n random r-dimensional subspaces hardly exceeds.

    2 sqrt(x (1 - x)) + sqrt(2 log(pairs)/d) with x = r/d: the edge of the principal cosines of one pair as r
    and d grow (Wachter 1980), and Gaussian concentration over pairs, which for small r gives up to half too
    much; for r = 1 the median of the largest |cosine|. Falls as 1/sqrt(d/r), at most 1.

    Args:
        d: dimensions, any shape, at least max(2, r). r: rank, >= 1. n: subspaces, >= 2.

    Returns:
        A cosine, in the shape of `d`.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    dims, rank = array("d", d, (0, 1)), integer("r", r, 1)
    if (dims < max(2, rank)).any() or (dims != np.floor(dims)).any():
        raise ValueError(f"d: expected whole numbers >= max(2, r) = {max(2, rank)}, got {d!r}.")
    pairs = integer("n", n, 2) * (n - 1) / 2
    if rank == 1:
        single = -np.expm1(np.log(0.5) / pairs)
        return np.vectorize(lambda one: float(pair_level(single, int(one))), otypes=[float])(dims)
    share = rank / dims
    edge = np.where(share < 0.5, 2 * np.sqrt(share * (1 - share)), 1.0)
    return np.minimum(edge + np.sqrt(2 * np.log(pairs) / dims), 1.0)


def _unit(name: str, value: Any) -> Array:
    """An array of numbers in [0, 1]."""
    result = array(name, value, (0, 1, 2))
    if (result < 0).any() or (result > 1).any():
        raise ValueError(f"{name}: expected values in [0, 1], got {value!r}.")
    return result


def _probability(value: Any) -> Array:
    """An array of numbers in (0, 1]."""
    result = array("probability", value, (0, 1, 2))
    if (result <= 0).any() or (result > 1).any():
        raise ValueError(f"probability: expected values in (0, 1], got {value!r}.")
    return result
