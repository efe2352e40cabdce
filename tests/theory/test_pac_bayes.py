"""PAC-Bayes: divergences against torch, bounds against each other and against what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from torch.distributions import Independent, Normal, kl_divergence

from labkit.theory import pac_bayes as theory

SAMPLES = st.integers(2, 10**6)
DELTA = st.floats(1e-6, 0.9)
LOSS = st.floats(0, 1)
KL = st.floats(0, 1e7)


def _gaussian(mean: object, sd: object, p: int) -> Independent:
    centre, spread = (torch.tensor(np.broadcast_to(value, p).copy()) for value in (mean, sd))
    return Independent(Normal(centre, spread), 1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("form", ["vectors", "numbers", "equal"])
def test_kl_equals_torch(seed: int, form: str) -> None:
    """Catches a lost 1/2, swapped arguments, a variance for a standard deviation."""
    rng = np.random.default_rng(seed)
    p = int(rng.integers(1, 30))
    mean, centre = rng.standard_normal((2, p))
    s, t = np.exp(rng.standard_normal((2, p)))
    if form == "numbers":
        centre, s, t = float(centre[0]), float(s[0]), float(t[0])
    posterior, prior = _gaussian(mean, s, p), _gaussian(centre, s if form == "equal" else t, p)
    found = theory.gaussian_kl(mean, s, centre, None if form == "equal" else t)
    assert found == pytest.approx(float(kl_divergence(posterior, prior)), rel=1e-10)


def test_kl_of_the_paper_with_its_half() -> None:
    """App. A prints sum w^2/sigma^2: twice too much."""
    assert theory.gaussian_kl([3.0, 4.0], 2.0) == 25 / 8
    assert theory.gaussian_kl([3.0, 4.0], [1.0, 2.0]) == 4.5 + 2.0
    assert theory.gaussian_kl([3.0, 4.0], 1.0, [3.0, 3.0]) == 0.5
    assert theory.gaussian_kl(torch.tensor([3.0, 4.0]), 2.0) == 25 / 8


@given(loss=LOSS, kl=KL, m=SAMPLES, delta=DELTA)
def test_eq_6_follows_from_eq_5(loss: float, kl: float, m: int, delta: float) -> None:
    """While K <= 1, (6) >= (5); beyond, (6) >= 1. Catches m for m - 1 and a wrong constant."""
    five, six = theory.pac_bayes_bound(loss, kl, m, delta), theory.pac_bayes_sqrt(loss, kl, m, delta)
    if theory.complexity(kl, m, delta) <= 1:
        assert six >= five * (1 - 1e-12)
    else:
        assert six >= 1
    assert min(1, six) >= min(1, five) * (1 - 1e-12)
    assert five >= loss and six >= loss


def test_eq_6_can_be_below_eq_5_where_both_are_vacuous() -> None:
    """The docstring's limit: from K of about 8 the order turns."""
    m, delta = 1001, 0.05
    kl = 500 * 20 - math.log(2 * m / delta)
    assert theory.complexity(kl, m, delta) == pytest.approx(20)
    assert 1 < theory.pac_bayes_sqrt(0.0, kl, m, delta) < theory.pac_bayes_bound(0.0, kl, m, delta)


def test_values_by_hand() -> None:
    """KL = 0, m = 2, delta = 4/e: ln(2m/delta) = 1, so K = 2."""
    delta = 4 / math.e / 2
    assert theory.complexity(0.0, 2, delta) == pytest.approx(2 * (1 + math.log(2)))
    K = theory.complexity(10.0, 101, 0.05)
    assert pytest.approx((10 + math.log(202 / 0.05)) / 50) == K
    assert theory.pac_bayes_bound(0.25, 10.0, 101, 0.05) == pytest.approx(0.25 + 0.5 * math.sqrt(K) + K)
    assert theory.pac_bayes_sqrt(0.25, 10.0, 101, 0.05) == pytest.approx(0.25 + 4 * math.sqrt(50 * K / 101))


@given(loss=st.floats(0, 0.5), rise=st.floats(0, 0.5), w=st.floats(0, 100), s=st.floats(0.1, 10), m=SAMPLES)
def test_eqs_7_and_8_are_eq_6_written_out(loss: float, rise: float, w: float, s: float, m: int) -> None:
    """Catches a norm that is not squared, or sharpness counted twice."""
    six = theory.pac_bayes_sqrt(loss + rise, w * w / (2 * s * s), m)
    assert theory.sharpness_bound(loss, rise, w * w / (2 * s * s), m) == pytest.approx(six)
    assert theory.gaussian_bound(loss, rise, w * w, s, m) == pytest.approx(six)
    kl = theory.gaussian_kl([w, 0.0], s)
    assert theory.gaussian_bound(loss, rise, w * w, s, m) == pytest.approx(
        theory.sharpness_bound(loss, rise, kl, m)
    )


def test_the_bound_holds_for_a_gaussian_mean() -> None:
    """Coverage by simulation, with a posterior fitted to the data: it may fail in one of ten training sets.

    Heads or tails, predicted by the sign of a Gaussian around w; m coins of bias .7.
    """
    rng, m, delta = np.random.default_rng(0), 50, 0.1
    failures = 0
    for _ in range(400):
        right = (rng.random(m) < 0.7).mean()
        w, s = 3 * (2 * right - 1), 1.0
        up = norm.cdf(w / s)
        empirical = up * (1 - right) + (1 - up) * right
        true = up * 0.3 + (1 - up) * 0.7
        failures += true > theory.pac_bayes_bound(empirical, theory.gaussian_kl([w], s), m, delta)
    assert failures <= delta * 400


@given(kl=KL, m=SAMPLES, loss=LOSS)
def test_bounds_grow_with_kl_and_fall_with_m(kl: float, m: int, loss: float) -> None:
    """A sign lost somewhere."""
    for bound in (theory.pac_bayes_bound, theory.pac_bayes_sqrt):
        assert bound(loss, kl + 1, m) > bound(loss, kl, m) * (1 - 1e-15)
        assert bound(loss, kl + 10, 2 * m) < bound(loss, kl + 10, m)


def test_seeds_and_alphas_broadcast() -> None:
    """Three seeds of four alphas at once."""
    loss, kl = np.linspace(0, 1, 12).reshape(3, 4), np.geomspace(1, 1e5, 4)
    found = theory.pac_bayes_bound(loss, kl, 300)
    assert found.shape == (3, 4)
    assert found[1, 2] == pytest.approx(theory.pac_bayes_bound(loss[1, 2], kl[2], 300))
    assert theory.gaussian_bound(loss, 0.0, kl, 0.1, 300).shape == (3, 4)


def test_vacuous_from_one_on() -> None:
    """1 says nothing of an error rate."""
    assert theory.vacuous([0.99, 1.0, 1.48]).tolist() == [False, True, True]
    assert theory.vacuous(0.95, at=0.9) and not theory.vacuous(0.85, at=0.9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.gaussian_kl([[1.0]], 1.0), "mean: expected a 1-D array"),
        (lambda: theory.gaussian_kl([1.0, 2.0], 0.0), "sigma: expected standard deviations > 0, got 0"),
        (lambda: theory.gaussian_kl([1.0, 2.0], 1.0, 0.0, -1.0), "prior_sigma: expected standard"),
        (lambda: theory.gaussian_kl([1.0, 2.0], [1.0] * 3), r"sigma: expected a number or shape \(2,\)"),
        (lambda: theory.gaussian_kl([1.0, 2.0], 1.0, [0.0]), "prior_mean: expected a number or shape"),
        (lambda: theory.complexity(1.0, 1), "m: expected an integer >= 2, got 1"),
        (lambda: theory.complexity(-1.0, 10), "kl: expected values >= 0, got -1"),
        (lambda: theory.complexity(1.0, 10, 1.0), r"delta: expected a probability in \(0, 1\), got 1.0"),
        (lambda: theory.complexity(1.0, 10, 0.0), "delta: expected a finite number > 0"),
        (lambda: theory.pac_bayes_bound(2.3, 1.0, 10), r"empirical: expected losses in \[0, 1\], got 2.3"),
        (lambda: theory.sharpness_bound(-0.1, 0.2, 1.0, 10), r"loss: expected losses in \[0, 1\]"),
        (
            lambda: theory.sharpness_bound(0.9, 0.2, 1.0, 10),
            r"empirical: expected losses in \[0, 1\], got 1.1",
        ),
        (lambda: theory.gaussian_bound(0.1, 0.1, -1.0, 1.0, 10), "norm_squared: expected values >= 0"),
        (lambda: theory.gaussian_bound(0.1, 0.1, 1.0, 0.0, 10), "sigma: expected a finite number > 0"),
        (lambda: theory.vacuous(0.5, at=0.0), "at: expected a finite number > 0"),
    ],
)
def test_a_bad_argument_is_named(call, message: str) -> None:
    """A number out of range that runs on and becomes a bound."""
    with pytest.raises(ValueError, match=message):
        call()
