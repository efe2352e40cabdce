"""How confused gradients can be: lemmas and theorems of paper 5 about data, depth and width.

    equation          function                                                   claim
    Lemma B.1         near_orthogonality_bound, near_orthogonality_level         C2
    (exact)           pair_tail, pair_level, some_pair_probability               C2, C5
    Lemma D.1         lemma_constants, zeta0                                     C6
    Thm 4.1           confusion_probability, confusion_level                     C5
    Cor. 4.1          ball_probability                                           C5
    Thm 4.2           random_weights_probability                                 C7, C11
    Strategy 4.1      strategy_norms, strategy_gradient_scale                    C11
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
    App. C      a is d x r. With |H_i| |H_j| as printed nothing falls with the rank; the step before it has
                |H_i H_j|, which does
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import betainc, betaincinv

from labkit.theory._checks import Array, array, integer, nonnegative, positive

__all__ = [
    "LemmaConstants",
    "ball_probability",
    "confusion_level",
    "confusion_probability",
    "hessian_bound",
    "lemma_constants",
    "near_orthogonality_bound",
    "near_orthogonality_level",
    "pair_level",
    "pair_tail",
    "random_weights_probability",
    "some_pair_probability",
    "strategy_gradient_scale",
    "strategy_norms",
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


def confusion_probability(eta: Any, n: int, d: int, depth: int, *, c: float = SPHERE_CONSTANT) -> Array:
    """Thm 4.1: P(confusion <= eta) >= 1 - n^2 exp(-c d eta^2/(16 zeta0^4 (depth + 2)^4)).

    Negative where it says nothing. For data uniform on the sphere, weights fixed under Assumption 1.

    Args:
        eta: confusion, any shape. n: samples. d: dimension of the vectors.
        depth: b, matrices after the first. c: the theorem's constant.

    Returns:
        A lower bound on the probability, in the shape of `eta`.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    return 1.0 - integer("n", n, 2) ** 2 * np.exp(-_exponent(eta, d, depth, 16.0, c))


def confusion_level(probability: Any, n: int, d: int, depth: int, *, c: float = SPHERE_CONSTANT) -> Array:
    """The eta that Thm 4.1 allows with this failure probability: as depth^3 and as 1/sqrt(d).

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


def ball_probability(
    eta: float, n: int, d: int, depth: int, radius: float, *, weights: int = 0, c: float = SPHERE_CONSTANT
) -> float:
    """Cor. 4.1: the same for all weights within `radius` at once; negative where it says nothing.

    n^2 exp(-c d eta^2/(64 zeta0^4 (depth + 2)^4) + 8 D zeta0^2 radius/eta), without the last term while
    radius <= eta/(4 zeta0^2).

    Args:
        weights: dimension D of the ball; 0 takes d, as printed (right for the linear model).
        eta: confusion. n: samples. depth: b, matrices after the first. radius: of the ball of weights.
        c: the theorem's constant.

    Returns:
        A lower bound on the probability.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    level, r, constant = positive("eta", eta), nonnegative("radius", radius), zeta0(depth)
    net = 0.0 if r <= level / (4 * constant**2) else 8.0 * constant**2 * r / level
    power = net * (integer("weights", weights, 0) or d) - _exponent(level, d, depth, 64.0, c)
    return float(1.0 - integer("n", n, 2) ** 2 * np.exp(min(float(power), 700.0)))


def random_weights_probability(
    eta: float, n: int, d: int, depth: int, width: int, kappa: float, *, sphere: bool,
    c1: float = 1.0, c2: float = 1.0, expectation: float | None = None,
) -> float:  # fmt: skip
    """Thm 4.2: 1 - depth exp(-c1 kappa^2 width^2) - n^2 exp(-c2 D (eta - e)^2/(64 zeta0^4 (depth + 2)^4)).

    The constants c1, c2 are not given in the paper; 64 is the square of the 8 that its proof adds up to. See
    the
    errata: the theorem is kept here to be compared with, not to be relied on.

    Args:
        eta: confusion. sphere: False for part 1 (any data with |x_i| <= 1, D = width^2 depth), True for part
            2 (data uniform on the sphere, D = width d + width^2 depth).
        expectation: e, what the expectation of an inner product may be below 0; by default the safe
            4 (depth + 1) in part 1 (the paper takes 4) and 0 in part 2. -inf is returned unless eta > e.
        n: samples. kappa: weights have variance 1/(kappa width). c1: a constant of the theorem.
        c2: the other.

    Returns:
        A lower bound on the probability, as far as the theorem holds.

    Raises:
        ValueError: an argument is out of its range.
    """
    level, dim, layers = positive("eta", eta), integer("d", d, 1), integer("depth", depth, 1)
    if expectation is None:
        expectation = 0.0 if sphere else 4.0 * (layers + 1)
    if level <= nonnegative("expectation", expectation):
        return -np.inf
    size = integer("width", width, 1) ** 2 * layers + (width * dim if sphere else 0)
    power = (
        positive("c2", c2) * size * (level - expectation) ** 2 / (64 * zeta0(layers) ** 4 * (layers + 2) ** 4)
    )
    norms = layers * np.exp(-positive("c1", c1) * positive("kappa", kappa) ** 2 * width**2)
    return float(1.0 - norms - integer("n", n, 2) ** 2 * np.exp(-power))


def strategy_norms(d: int, widths: Sequence[int], kappa: float) -> Array:
    """Operator norms under Strategy 4.1, near: 1 + sqrt(l_0/d), then (1 + sqrt(l_p/l_{p-1}))/sqrt(kappa).

    Args:
        d: inputs; entries of W_0 are N(0, 1/d). widths: rows of W_0 ... W_b; entries of W_p are
            N(0, 1/(kappa l_{p-1})). Gordon's bound on the expected norm, so an upper bound in the mean.

    Returns:
        (b + 1,). Assumption 1 asks for at most 1.

    Raises:
        ValueError: an argument is out of its range.
    """
    sizes = [integer("widths", width, 1) for width in widths]
    if not sizes:
        raise ValueError("widths: expected at least one, the rows of W_0.")
    ratios = np.array(sizes) / np.array([integer("d", d, 1), *sizes[:-1]])
    return (1.0 + np.sqrt(ratios)) / np.where(
        np.arange(len(sizes)) > 0, np.sqrt(positive("kappa", kappa)), 1.0
    )


def strategy_gradient_scale(depth: int, width: int, d: int, kappa: float) -> float:
    """E |grad_W g(x)|^2 under Strategy 4.1 for a linear network at |x| = 1, exact.

    kappa^-depth + depth (width/d) kappa^(1 - depth): at kappa = 4, as Assumption 1 needs, it vanishes with
    depth, and so does any eta, whatever the angles.

    Args:
        depth: b, matrices after the first. width: units of a hidden layer. d: inputs.
        kappa: weights have variance 1/(kappa width).

    Returns:
        A squared norm.

    Raises:
        ValueError: an argument is out of its range.
    """
    layers, ratio = integer("depth", depth, 0), integer("width", width, 1) / integer("d", d, 1)
    power = positive("kappa", kappa) ** -float(layers)
    return float(power * (1.0 + layers * ratio * kappa))


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


def _exponent(eta: Any, d: int, depth: int, factor: float, c: float) -> Array:
    """c d eta^2/(factor zeta0^4 (depth + 2)^4)."""
    level = array("eta", eta, (0, 1, 2))
    if (level < 0).any():
        raise ValueError(f"eta: expected values >= 0, got {level.min():g}.")
    scale = factor * zeta0(depth) ** 4 * (depth + 2) ** 4
    return positive("c", c) * integer("d", d, 1) * level**2 / scale


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
