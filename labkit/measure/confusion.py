"""Gradient confusion: how far a set of gradients pulls against itself (paper 5, definition 2.1).

A set g_1, ..., g_N has confusion eta >= 0 when <g_i, g_j> >= -eta for all pairs i != j. The smallest such eta
carries the gradients' scale; their cosines do not. All of it follows from the Gram matrix G = (<g_i, g_j>),
which `gradient_gram` and `batch_gram` give.

Erratum: the paper offers the average of <g_i, g_j> over *all* i, j as another definition. With the diagonal
it is |mean gradient|^2 >= 0, so every set would have eta = 0; here pairs are i != j throughout.

| function | what | cost |
| --- | --- | --- |
| confusion | eta, inner products and cosines over pairs | N^2, from G |
| mean_inner, gradient_diversity, gradient_variance | means and sums without pairs | N p, from the gradients |
| inner_variance | of inner products of minibatch gradients, by size B | N^2, from G |
| density | kernel density of cosines on [-1, 1] | pairs x points |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from labkit.measure.witness import numbers

__all__ = [
    "Confusion",
    "confusion",
    "density",
    "gradient_diversity",
    "gradient_variance",
    "inner_variance",
    "mean_inner",
]

# The narrowest bell of a density: cosines that are all alike still have a curve to draw.
_NARROWEST = 0.005


@dataclass(frozen=True)
class Confusion:
    """What the pairs of a set of gradients say.

    Attributes:
        eta: the smallest confusion bound, max(0, -minimum_inner); it has the unit of a squared gradient.
        minimum_inner, mean_inner: of <g_i, g_j> over the pairs.
        minimum_cosine, mean_cosine, sd_cosine: of their cosines. The minimum can only fall with more pairs,
            so it compares two networks at one number of pairs alone.
        cosines: (pairs,) float64; where a gradient is zero, 0.
        pairs: how many pairs there are in it.
    """

    eta: float
    minimum_inner: float
    mean_inner: float
    minimum_cosine: float
    mean_cosine: float
    sd_cosine: float
    cosines: Tensor = field(repr=False)
    pairs: int


def confusion(
    gram: Tensor | np.ndarray,
    pairs: int | None = None,
    generator: torch.Generator | None = None,
    *,
    sides: Tensor | None = None,
) -> Confusion:
    """Confusion and cosines of the gradients behind a Gram matrix, over pairs i < j.

    Args:
        gram: (N, N), N >= 2, inner products of gradients; only its upper half is read.
        pairs: how many pairs, drawn without replacement; None takes all N (N - 1) / 2.
        generator: for the draw, a CPU generator. Draws of equal seed are nested: the first 100 of 1000 pairs
            are those drawn when 100 are asked for.
        sides: (N,) numbers; only pairs of different ones count, such as of minibatches that share no sample.

    Returns:
        Confusion, of the pairs looked at.

    Raises:
        ValueError: `gram` is not such a matrix, `pairs` is out of its range, there is no generator, or all
            gradients are of one side.

    Cost: N^2 operations and about 4 N^2 float64 numbers, however few `pairs` are drawn.

    Reference: paper 5, Def. 2.1.
    """
    G = _square(gram, least=2)
    i, j = _pairs(G, pairs, generator, sides)
    inner = G[i, j]
    # Roots before the product: of squares of tiny gradients the product underflows.
    norms = G.diag().clamp_min(0).sqrt()
    scale = norms[i] * norms[j]
    cosines = torch.where(scale > 0, inner / scale, 0.0).clamp(-1, 1)
    lowest, mean, lowest_cosine, mean_cosine, sd_cosine = numbers(
        [inner.min(), inner.mean(), cosines.min(), cosines.mean(), cosines.std(correction=0)]
    )
    return Confusion(
        eta=max(0.0, -lowest),
        minimum_inner=lowest,
        mean_inner=mean,
        minimum_cosine=lowest_cosine,
        mean_cosine=mean_cosine,
        sd_cosine=sd_cosine,
        cosines=cosines,
        pairs=len(cosines),
    )


def _pairs(
    G: Tensor, pairs: int | None, generator: torch.Generator | None, sides: Tensor | None
) -> tuple[Tensor, Tensor]:
    """i and j of the pairs that count."""
    N = len(G)
    i, j = torch.triu_indices(N, N, 1, device=G.device)
    if sides is not None:
        apart = sides.to(G.device)[i] != sides.to(G.device)[j]
        i, j = i[apart], j[apart]
        if not len(i):
            raise ValueError(
                f"sides: got {sides.unique().tolist()} alone; takes two different numbers or more"
            )
    total = len(i)
    if pairs is not None:
        if isinstance(pairs, bool) or not isinstance(pairs, int) or not 1 <= pairs <= total:
            raise ValueError(f"pairs: got {pairs!r}; {N} gradients have 1 to {total} pairs")
        if generator is None:
            raise ValueError("generator: got None; a number of pairs is drawn, so pass a torch.Generator")
        drawn = torch.randperm(total, generator=generator)[:pairs].to(G.device)
        i, j = i[drawn], j[drawn]
    return i, j


def mean_inner(gradients: Tensor | np.ndarray) -> float:
    """The mean of <g_i, g_j> over i != j: (|sum g|^2 - sum |g|^2) / (N (N - 1)), in O(N p).

    At least -mean |g|^2 / (N - 1), since |sum g|^2 >= 0: on average, many gradients cannot oppose each other.

    Args:
        gradients: (N, p), N >= 2, one a row.

    Returns:
        The mean, a float in squared units of the gradient.

    Raises:
        ValueError: they have another shape, or are not finite.

    Cost: 3 N p flops; a float64 copy of the gradients, and their squares.

    Reference: paper 5, section 2, where the diagonal is counted (see the module's erratum).
    """
    g = _matrix("gradients", gradients, least=2)
    together, apart = g.sum(0).square().sum(), g.square().sum()
    return float((together - apart) / (len(g) * (len(g) - 1)))


def gradient_diversity(gradients: Tensor | np.ndarray) -> float:
    """sum |g_i|^2 / |sum g_i|^2 (Yin et al. 2018; paper 5, section 6), in O(N p); infinite if they cancel.

    1 where the inner products of pairs add up to zero: for orthogonal gradients, and for many others.

    Args:
        gradients: (N, p), N >= 1, one a row.

    Returns:
        The ratio, at least 1/N; 1 for one gradient, nan where all are zero.

    Raises:
        ValueError: they have another shape, or are not finite.

    Cost: 3 N p flops; a float64 copy of the gradients, and their squares.
    """
    g = _matrix("gradients", gradients, least=1)
    return float(g.square().sum() / g.sum(0).square().sum())


def gradient_variance(gradients: Tensor | np.ndarray) -> float:
    """mean |g_i - mean g|^2, in O(N p).

    It bounds confusion: eta <= N variance / 2, and for N = 2 eta = variance - |mean g|^2 where that is
    positive. Confusion does not bound it (paper 5, section 6).

    Args:
        gradients: (N, p), N >= 1, one a row.

    Returns:
        The variance, a float in squared units of the gradient.

    Raises:
        ValueError: they have another shape, or are not finite.

    Cost: 4 N p flops; a float64 copy of the gradients, and two arrays of its size.
    """
    g = _matrix("gradients", gradients, least=1)
    return float((g - g.mean(0)).square().sum() / len(g))


def inner_variance(gram: Tensor | np.ndarray, *, disjoint: bool = False) -> tuple[float, float, float]:
    """The variance of <g_A, g_B> over two random minibatches of size B, as (v0, v1, v2): v0 + v1/B + v2/B^2.

    g_A is the mean gradient of minibatch A. With m the mean of all N gradients and S their covariance, two
    minibatches drawn independently and with replacement have m + e and m + e', and

        Var <m + e, m + e'> = 2 m^T S m / B + tr S^2 / B^2,    v0 = 0.

    So the paper's B^-2 (section 2) is the law where the mean gradient is small, up to B = v2 / v1, and B^-1
    beyond.

    `disjoint`: the minibatches are drawn without replacement and have no sample in common, as in an epoch.
    With a, b, c, d the means of G_ij^2, G_ij G_il, G_ij G_kl and G_ij over distinct indices,

        Var = (a + 2 (B - 1) b + (B - 1)^2 c) / B^2 - d^2,    v0 = c - d^2 of order 1/N.

    Both are exact for every B (disjoint: up to N / 2) and agree as N grows.

    Args:
        gram: (N, N) inner products of the gradients of single samples; disjoint: N >= 4.

    Returns:
        (v0, v1, v2), floats; the variance at a size B is v0 + v1/B + v2/B^2.

    Raises:
        ValueError: `gram` is not such a matrix.

    Cost: at most 7 N^2 flops, and three matrices (N, N) in float64.
    """
    G = _square(gram, least=4 if disjoint else 1)
    N = len(G)
    if not disjoint:
        rows = G.mean(1, keepdim=True)
        centred = G - rows - rows.T + rows.mean()
        return 0.0, 2 * float(rows.var(correction=0)), float(centred.square().mean())
    # From the mean, so that c - d^2 does not cancel: d is then 0 and the other pairs' mean shifts nothing.
    d = float((G.sum() - G.trace()) / (N * (N - 1)))
    H = G - d
    H.fill_diagonal_(0)
    squares, by_row = float(H.square().sum()), float(H.sum(1).square().sum())
    # Ordered pairs of ordered pairs: 2 * squares have both indices in common, 4 (by_row - squares) one.
    a = squares / (N * (N - 1))
    b = (by_row - squares) / (N * (N - 1) * (N - 2))
    c = (2 * squares - 4 * by_row) / (N * (N - 1) * (N - 2) * (N - 3))
    return c, 2 * (b - c), a - 2 * b + c


def density(
    cosines: Tensor | np.ndarray | Sequence[float],
    grid: np.ndarray | Sequence[float],
    bandwidth: float | None = None,
) -> np.ndarray:
    """The kernel density of cosines at the points of `grid`, (T,); it integrates to 1 over [-1, 1].

    Gaussian bells; what they would put beyond -1 and 1 is reflected back.

    Args:
        cosines: (P,) in [-1, 1].
        grid: (T,) points; outside [-1, 1] the density is 0.
        bandwidth: the bells' standard deviation; None takes Scott's rule, and 0.005 at least.

    Raises:
        ValueError: there are no cosines or they leave [-1, 1]; or the bandwidth is not positive.

    Cost: 3 P T exponentials, and no array larger than P or T.
    """
    values = np.asarray(cosines.detach().cpu() if isinstance(cosines, Tensor) else cosines, dtype=float)
    points = np.asarray(grid, dtype=float)
    if values.ndim != 1 or not values.size or not (np.abs(values) <= 1 + 1e-9).all():
        raise ValueError(f"cosines: got shape {values.shape}; density takes at least one value in [-1, 1]")
    if bandwidth is not None and not bandwidth > 0:
        raise ValueError(f"bandwidth: got {bandwidth!r}; density takes a positive number, or None")
    sd = float(values.std(ddof=1)) if values.size > 1 else 0.0
    wide = bandwidth or max(_NARROWEST, sd * values.size**-0.2)
    from scipy import stats  # here, because it takes half as long to import as torch

    # Cosines that are alike up to rounding have no covariance to scale a bell by.
    alike = sd < 1e-6 * wide
    bells = stats.norm(values[0], wide).pdf if alike else stats.gaussian_kde(values, bw_method=wide / sd)
    folded = bells(points) + bells(2 - points) + bells(-2 - points)
    return np.where(np.abs(points) <= 1, folded, 0.0)


def _matrix(name: str, values: Tensor | np.ndarray, least: int) -> Tensor:
    found = torch.as_tensor(values).detach()
    if found.ndim != 2 or len(found) < least:
        raise ValueError(f"{name}: shape {tuple(found.shape)}; takes a matrix of at least {least} rows")
    found = found.double()
    if not bool(found.isfinite().all()):
        raise ValueError(f"{name}: holds values that are not finite; the training before may have diverged")
    return found


def _square(gram: Tensor | np.ndarray, least: int) -> Tensor:
    found = _matrix("gram", gram, least)
    if found.shape[0] != found.shape[1]:
        raise ValueError(f"gram: shape {tuple(found.shape)}; takes a square matrix (N, N)")
    return found
