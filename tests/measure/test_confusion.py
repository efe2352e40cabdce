"""Confusion, cosines, diversity and variance: against double loops, enumeration and inequalities."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from labkit.measure.confusion import (
    confusion,
    density,
    gradient_diversity,
    gradient_variance,
    inner_variance,
    mean_inner,
)

from .conftest import assert_close, generator


def gradients(n: int = 9, p: int = 4, seed: int = 0, mean: float = 0.3) -> Tensor:
    return torch.randn(n, p, generator=generator(seed), dtype=torch.float64) + mean


def by_pairs(g: Tensor) -> tuple[list[float], list[float]]:
    """Inner products and cosines of the pairs i < j, one at a time."""
    inner, cosines = [], []
    for a, b in itertools.combinations(g.tolist(), 2):
        inner.append(math.fsum(x * y for x, y in zip(a, b, strict=True)))
        length = math.hypot(*a) * math.hypot(*b)
        cosines.append(inner[-1] / length if length else 0.0)
    return inner, cosines


SETS = {
    "random": gradients(),
    "all agree": gradients().abs(),
    "a zero among them": torch.cat([gradients(3), torch.zeros(2, 4, dtype=torch.float64)]),
    "two": gradients(2),
    # The worst inner product and the worst cosine belong to different pairs.
    "worst of both": torch.tensor([[10.0, 0.0], [-1.0, 1.0], [-0.01, 0.0]]).double(),
    "very short": 1e-120 * gradients(),
}


@pytest.mark.parametrize("name", SETS)
def test_it_equals_a_double_loop(name: str) -> None:
    """The diagonal in a mean; eta negative, or from cosines; a zero gradient giving nan."""
    g = SETS[name]
    inner, cosines = by_pairs(g)
    found = confusion(g @ g.T)
    assert found.pairs == len(cosines) == len(found.cosines)
    assert found.eta == pytest.approx(max(0.0, -min(inner)), rel=1e-10)
    assert found.minimum_inner == pytest.approx(min(inner), rel=1e-10)
    assert found.mean_inner == pytest.approx(np.mean(inner), rel=1e-10, abs=1e-12 * np.abs(inner).max())
    assert found.minimum_cosine == pytest.approx(min(cosines), abs=1e-12)
    assert found.mean_cosine == pytest.approx(np.mean(cosines), abs=1e-12)
    assert found.sd_cosine == pytest.approx(np.std(cosines), abs=1e-12)
    assert np.allclose(found.cosines, cosines, rtol=0, atol=1e-12)
    assert mean_inner(g) == pytest.approx(found.mean_inner, rel=1e-9, abs=1e-12 * np.abs(inner).max())


def test_the_numbers_of_one_small_set() -> None:
    """By hand: inner products -10, -.1, .01; cosines -1/sqrt 2, -1, 1/sqrt 2."""
    found = confusion(SETS["worst of both"] @ SETS["worst of both"].T)
    assert (found.eta, round(found.minimum_cosine, 12)) == (10.0, -1.0)
    assert found.mean_cosine == pytest.approx(-1 / 3)


def test_over_all_pairs_the_mean_could_never_be_negative() -> None:
    """The erratum: with the diagonal, opposed gradients have mean 0; without it, -1/3."""
    g = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert float((g @ g.T).mean()) == 0.0
    assert mean_inner(g) == pytest.approx(-1 / 3) == confusion(g @ g.T).mean_inner


def test_scale_moves_confusion_and_no_cosine() -> None:
    """Cosines that carry the gradients' length; eta that does not."""
    g = gradients()
    one, ten = confusion(g @ g.T), confusion(100 * g @ g.T)
    assert ten.eta == pytest.approx(100 * one.eta)
    assert ten.minimum_cosine == pytest.approx(one.minimum_cosine)


def test_arrays_and_single_precision_are_taken() -> None:
    """A NumPy matrix refused, sums in single precision."""
    G = gradients() @ gradients().T
    assert confusion(G.numpy()).minimum_inner == confusion(G).minimum_inner
    assert confusion(G.float()).cosines.dtype == torch.float64


# Numbers of pairs.


def test_draws_of_pairs_are_nested_and_without_replacement() -> None:
    """A minimum that rises with more pairs; a pair drawn twice; the global generator used."""
    G = gradients(12) @ gradients(12).T
    state = torch.random.get_rng_state()
    draws = [confusion(G, pairs, generator(5)) for pairs in (5, 20, 66)]
    assert torch.equal(state, torch.random.get_rng_state())
    assert [one.pairs for one in draws] == [5, 20, 66]
    for few, many in itertools.pairwise(draws):
        assert torch.equal(many.cosines[: few.pairs], few.cosines)
        assert many.minimum_cosine <= few.minimum_cosine and many.eta >= few.eta
    whole = confusion(G)
    assert torch.equal(draws[-1].cosines.sort().values, whole.cosines.sort().values)
    assert not torch.equal(confusion(G, 5, generator(6)).cosines, draws[0].cosines)


def test_more_samples_cannot_raise_the_minimum() -> None:
    """Nested samples: all pairs of the first 5 are among those of the first 9."""
    G = gradients() @ gradients().T
    minima = [confusion(G[:n, :n]).minimum_cosine for n in range(2, 10)]
    assert minima == sorted(minima, reverse=True)


# Inequalities.


sets = st.builds(
    lambda n, p, seed, mean: gradients(n, p, seed, mean),
    st.integers(2, 7), st.integers(1, 5), st.integers(0, 10**6), st.floats(-2, 2),
)  # fmt: skip


@given(sets)
def test_variance_bounds_confusion(g: Tensor) -> None:
    """eta <= N variance / 2; and the paper's step for two: |<g1, g2>| <= variance + |mean|^2."""
    eta, variance = confusion(g @ g.T).eta, gradient_variance(g)
    assert eta <= len(g) * variance / 2 * (1 + 1e-12)
    two = g[:2]
    mean = float(two.mean(0).square().sum())
    assert abs(float(two[0] @ two[1])) <= (gradient_variance(two) + mean) * (1 + 1e-12)
    # For two gradients it is an equality, and sharper.
    assert float(two[0] @ two[1]) == pytest.approx(mean - gradient_variance(two), abs=1e-9)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_the_variance_bound_is_reached(n: int) -> None:
    """A bound with room to spare: one opposed pair, all others zero."""
    g = torch.zeros(n, 3, dtype=torch.float64)
    g[0, 0], g[1, 0] = 2.0, -2.0
    assert confusion(g @ g.T).eta == pytest.approx(n * gradient_variance(g) / 2)


@given(sets)
def test_many_gradients_cannot_oppose_each_other_on_average(g: Tensor) -> None:
    """mean_inner >= -mean |g|^2 / (N - 1), and it equals the double loop."""
    assert mean_inner(g) >= -float(g.square().sum()) / len(g) / (len(g) - 1) - 1e-12
    assert mean_inner(g) == pytest.approx(np.mean(by_pairs(g)[0]), abs=1e-10)


def test_means_need_no_pairs() -> None:
    """A list of 5e9 pairs, or their Gram matrix of 80 GB."""
    g = gradients(100_000, 5)
    expected = float((g.sum(0).square().sum() - g.square().sum()) / (100_000 * 99_999))
    assert mean_inner(g) == pytest.approx(expected)
    assert gradient_diversity(g) == pytest.approx(float(g.square().sum() / g.sum(0).square().sum()))


def test_diversity_and_variance_of_known_sets() -> None:
    """Orthogonal: 1; equal: 1/N; cancelling: infinite. The variance of 1, 2, 3 is 2/3."""
    eye = torch.eye(5)
    assert gradient_diversity(eye) == pytest.approx(1.0)
    assert gradient_diversity(torch.ones(5, 2)) == pytest.approx(0.2)
    assert gradient_diversity(torch.tensor([[1.0], [-1.0]])) == math.inf
    assert gradient_diversity(torch.ones(1, 3)) == 1.0
    assert gradient_variance(torch.tensor([[1.0], [2.0], [3.0]])) == pytest.approx(2 / 3)
    assert gradient_variance(np.ones((1, 3))) == 0.0
    g = gradients()
    assert gradient_variance(g) == pytest.approx(float(np.cov(g.T.numpy(), bias=True).trace()))


# Minibatches.


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_variance_over_disjoint_minibatches_is_exact(size: int) -> None:
    """Against all pairs of disjoint minibatches of seven samples."""
    G = gradients(7, 3, mean=0.7) @ gradients(7, 3, mean=0.7).T
    found = []
    for A in itertools.combinations(range(7), size):
        rest = [i for i in range(7) if i not in A]
        found += [float(G[list(A)][:, list(B)].mean()) for B in itertools.combinations(rest, size)]
    v0, v1, v2 = inner_variance(G, disjoint=True)
    assert v0 + v1 / size + v2 / size**2 == pytest.approx(np.var(found), rel=1e-10)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_variance_over_independent_minibatches_is_exact(size: int) -> None:
    """Against all pairs of minibatches drawn with replacement."""
    G = gradients(4, 3, mean=0.7) @ gradients(4, 3, mean=0.7).T
    draws = [list(A) for A in itertools.product(range(4), repeat=size)]
    W = torch.zeros(len(draws), 4, dtype=torch.float64)
    for row, draw in zip(W, draws, strict=True):
        row.index_add_(0, torch.tensor(draw), torch.full((size,), 1 / size, dtype=torch.float64))
    v0, v1, v2 = inner_variance(G)
    assert v0 == 0.0
    assert v1 / size + v2 / size**2 == pytest.approx(float((W @ G @ W.T).var(correction=0)), rel=1e-10)


def test_the_law_is_the_square_where_the_mean_gradient_vanishes() -> None:
    """A 1/B term left where there is no mean; both ways of drawing differ by a share of order 1/N."""
    g = gradients(400, 3)
    g = g - g.mean(0)
    _, v1, v2 = inner_variance(g @ g.T)
    S = g.T @ g / len(g)
    assert v1 <= 1e-25 * v2 and v2 == pytest.approx(float((S @ S).trace()))
    disjoint = inner_variance(g @ g.T, disjoint=True)
    assert disjoint[2] == pytest.approx(v2, rel=0.02) and abs(disjoint[0]) < 0.01 * v2


# Densities.


def test_a_density_has_mass_one_between_its_ends() -> None:
    """Mass lost beyond -1 and 1; cosines all alike, for which no bandwidth can be estimated."""
    grid = np.linspace(-1, 1, 4001)
    drawn = torch.tanh(torch.randn(500, generator=generator(1)))
    for cosines in (drawn, [1.0, 1.0, 1.0], [0.3], 0.1 * drawn, [1.0, 1.0 - 1e-15], np.full(9, -1.0)):
        found = density(cosines, grid)
        assert np.trapezoid(found, grid) == pytest.approx(1.0, abs=1e-6)
        assert (found >= 0).all()
    assert (density(drawn, [-1.5, 1.01]) == 0).all()


def test_far_from_the_ends_it_is_scipys() -> None:
    """Another bandwidth than Scott's, or one asked for and not taken."""
    cosines = 0.1 * torch.randn(200, generator=generator(2), dtype=torch.float64)
    grid = np.linspace(-0.5, 0.5, 51)
    assert np.allclose(density(cosines, grid), stats.gaussian_kde(cosines.numpy())(grid), rtol=1e-12)
    bell = stats.norm(0, 0.07).pdf(grid[:, None] - cosines.numpy()).mean(1)
    assert np.allclose(density(cosines, grid, bandwidth=0.07), bell, rtol=1e-10)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "not square": (lambda: confusion(torch.ones(3, 4)), "gram: shape (3, 4); takes a square matrix"),
    "one gradient": (lambda: confusion(torch.ones(1, 1)), "at least 2 rows"),
    "not a matrix": (lambda: confusion(torch.ones(3)), "gram: shape (3,); takes a matrix"),
    "not finite": (lambda: confusion(torch.full((3, 3), math.nan)), "gram: holds values that are not finite"),
    "too many pairs": (
        lambda: confusion(torch.eye(4), 7, generator(0)), "pairs: got 7; 4 gradients have 1 to 6"
    ),
    "no pairs": (lambda: confusion(torch.eye(4), 0, generator(0)), "pairs: got 0"),
    "half a pair": (lambda: confusion(torch.eye(4), 1.5, generator(0)), "pairs: got 1.5"),  # type: ignore[arg-type]
    "no generator": (lambda: confusion(torch.eye(4), 3), "generator: got None"),
    "a mean of one": (lambda: mean_inner(torch.ones(1, 3)), "gradients: shape (1, 3)"),
    "diversity of none": (lambda: gradient_diversity(torch.ones(0, 3)), "gradients: shape (0, 3)"),
    "variance of a vector": (lambda: gradient_variance(torch.ones(3)), "gradients: shape (3,)"),
    "three disjoint": (lambda: inner_variance(torch.eye(3), disjoint=True), "at least 4 rows"),
    "no square": (lambda: inner_variance(torch.ones(3, 2)), "takes a square matrix"),
    "no cosines": (lambda: density([], [0.0]), "cosines: got shape (0,)"),
    "no cosine": (lambda: density([1.2], [0.0]), "at least one value in [-1, 1]"),
    "no width": (lambda: density([0.1], [0.0], 0.0), "bandwidth: got 0.0"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_in_words_that_help(what: str) -> None:
    """A wrong input that gives numbers."""
    call, message = REFUSED[what]
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_the_comparator_is_seen_to_refuse() -> None:
    """A comparison that would pass for a matrix without its bias term."""
    G = gradients() @ gradients().T
    with pytest.raises(AssertionError, match="ratio"):
        assert_close(G + 1e-6, G)
