"""Concentration: constants against draws, SciPy's distribution and full enumeration of signs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from labkit.theory import gaussian as theory

SHAPES = [(1, 1), (1, 30), (30, 1), (10, 40), (40, 10), (25, 25)]


def uniform(rng, shape, sd):
    return rng.uniform(-np.sqrt(3) * sd, np.sqrt(3) * sd, shape)


def normal(rng, shape, sd):
    return sd * rng.standard_normal(shape)


@pytest.mark.parametrize("draw", [normal, uniform])
@pytest.mark.parametrize("shape", SHAPES)
def test_frobenius_squared_is_the_mean_over_draws(shape, draw):
    """Catches sd where sd squared belongs, and a square root that should not be there."""
    rng, sd = np.random.default_rng(0), 0.7
    found = np.array([(draw(rng, shape, sd) ** 2).sum() for _ in range(200)])
    stderr = found.std(ddof=1) / np.sqrt(len(found))
    assert abs(found.mean() - theory.frobenius_squared(*shape, sd)) < 6 * stderr


def spectral_draws(draw, shape, sd, count=200, seed=1):
    rng = np.random.default_rng(seed)
    return np.array([np.linalg.norm(draw(rng, shape, sd), 2) for _ in range(count)])


@pytest.mark.parametrize("shape", SHAPES)
def test_gaussian_spectral_is_above_the_mean_for_every_shape(shape):
    """Catches sqrt(max) alone, which the square shape exceeds, and a lost sd."""
    found = spectral_draws(normal, shape, 0.3)
    assert found.mean() - 6 * found.std() / np.sqrt(len(found)) < theory.gaussian_spectral(*shape, 0.3)


@pytest.mark.parametrize(("shape", "share"), [((25, 25), 0.90), ((100, 100), 0.96), ((200, 800), 0.97)])
def test_gaussian_spectral_is_tight_for_large_matrices(shape, share):
    """Catches a bound that is true because it is loose."""
    found = spectral_draws(normal, shape, 1.0, count=5)
    assert share * theory.gaussian_spectral(*shape) < found.mean() < theory.gaussian_spectral(*shape)


@given(k=st.integers(1, 5000), t=st.floats(1e-6, 1 - 1e-6))
def test_the_chi_square_bound_is_never_below_the_exact_probability(k, t):
    """Thm A.1. Catches k t^2/4, which is false (below), and one tail instead of two."""
    assert theory.chi_square_exact(k, t) <= theory.chi_square_tail(k, t) * (1 + 1e-12)


def test_a_stronger_chi_square_bound_would_be_false():
    """The bound is near the truth: with k t^2/4 in place of k t^2/8 it would fail."""
    assert theory.chi_square_exact(400, 0.9) > 2 * np.exp(-400 * 0.9**2 / 4)


def test_the_exact_chi_square_probability_is_that_of_draws():
    """Catches a swapped tail and a missing division by k."""
    rng = np.random.default_rng(3)
    for k, t in ((1, 0.5), (8, 0.3), (50, 0.2)):
        share = (abs((rng.standard_normal((20_000, k)) ** 2).mean(1) - 1) >= t).mean()
        exact = float(theory.chi_square_exact(k, t))
        assert abs(share - exact) < 6 * np.sqrt(exact * (1 - exact) / 20_000)


def enumerated_sums(x):
    """All 2^m sums of +-x_i, (2^m, n)."""
    return np.array(list(itertools.product((-1.0, 1.0), repeat=len(x)))) @ x


@given(x=arrays(float, st.tuples(st.integers(1, 7), st.integers(1, 4)), elements=st.floats(-10, 10)))
def test_khintchine_for_vectors_by_full_enumeration(x):
    """Cor. A.3.1, from both sides, and the identity behind it. Catches a mean of norms for a norm of sums."""
    norms, bound = np.linalg.norm(enumerated_sums(x), axis=1), theory.khintchine_bound(x)
    assert norms.mean() <= bound * (1 + 1e-12)
    assert norms.mean() >= bound / np.sqrt(2) * (1 - 1e-12)
    assert np.sqrt((norms**2).mean()) == pytest.approx(bound, rel=1e-9, abs=1e-12)


@given(
    a=arrays(float, st.integers(1, 8), elements=st.floats(0.01, 10)),
    p=st.floats(0.2, 6),
)
def test_haagerups_constants_hold_for_any_coefficients(a, p):
    """Catches the two sides swapped and the branch below 1.847 forgotten."""
    moment = (np.abs(enumerated_sums(a[:, None])[:, 0]) ** p).mean() ** (1 / p)
    size = np.linalg.norm(a)
    assert moment <= theory.khintchine_constant(p) * size * (1 + 1e-9)
    assert moment >= theory.khintchine_constant(p, "lower") * size * (1 - 1e-9)


def test_haagerups_constants_are_the_known_values_and_are_reached():
    """Catches a Gaussian moment with a wrong normalisation."""
    assert theory.khintchine_constant(2) == theory.khintchine_constant(1) == 1
    assert theory.khintchine_constant(4) == pytest.approx(3**0.25)
    assert theory.khintchine_constant(1, "lower") == pytest.approx(2**-0.5)
    assert theory.khintchine_constant(3, "lower") == 1
    crossing = 1.8474163
    assert theory.khintchine_constant(crossing, "lower") == pytest.approx(2 ** (0.5 - 1 / crossing), rel=1e-7)
    two_equal = (np.abs(enumerated_sums(np.ones((2, 1)))[:, 0]) ** 1.5).mean() ** (1 / 1.5) / np.sqrt(2)
    assert theory.khintchine_constant(1.5, "lower") == pytest.approx(two_equal)
    for p in (1.9, 4.0):  # many equal coefficients: sums of signs are binomial
        sums = 2.0 * np.arange(2001) - 2000
        moment = (stats.binom.pmf(np.arange(2001), 2000, 0.5) @ np.abs(sums) ** p) ** (1 / p)
        side = "upper" if p > 2 else "lower"
        assert theory.khintchine_constant(p, side) == pytest.approx(moment / np.sqrt(2000), rel=1e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.frobenius_squared(0, 3), "rows: expected whole numbers >= 1, got 0"),
        (lambda: theory.gaussian_spectral(3, 2.5), "cols: expected whole numbers >= 1, got 2.5"),
        (lambda: theory.gaussian_spectral(3, 2, 0.0), "sd: expected standard deviations > 0, got 0.0"),
        (lambda: theory.chi_square_tail(0, 0.5), "k: expected whole numbers >= 1, got 0"),
        (lambda: theory.chi_square_exact(3, 1.0), "t: expected deviations between 0 and 1"),
        (lambda: theory.khintchine_bound([1.0, 2.0]), "x: expected a 2-D or 3-D or 4-D array"),
        (lambda: theory.khintchine_constant(0), "p: expected a finite number > 0"),
        (lambda: theory.khintchine_constant(2, "left"), "side: expected 'upper' or 'lower', got 'left'"),
    ],
)
def test_errors_name_the_argument(call, message):
    """An error from inside NumPy, which names nothing of ours."""
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        call()
