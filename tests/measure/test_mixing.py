"""Mixing of chains: against chains whose correlations are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.measure.mixing import effective_samples, split_r_hat, start_difference


def autoregressive(chains: int, samples: int, rho: float, seed: int = 0) -> np.ndarray:
    """Stationary chains x' = ρx + √(1 − ρ²)ξ: variance 1, autocorrelation ρ^t."""
    rng = np.random.default_rng(seed)
    x = np.empty((chains, samples))
    x[:, 0] = rng.standard_normal(chains)
    for t in range(1, samples):
        x[:, t] = rho * x[:, t - 1] + np.sqrt(1 - rho**2) * rng.standard_normal(chains)
    return x


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9, -0.4])
def test_effective_samples_of_autoregressive_chains(rho: float) -> None:
    """A factor 2 in the correlation time, or chains counted as one sample each."""
    x = autoregressive(100, 1200, rho)
    assert effective_samples(x) == pytest.approx(x.size * (1 - rho) / (1 + rho), rel=0.1)


def test_effective_samples_of_one_long_chain() -> None:
    assert effective_samples(autoregressive(1, 40_000, 0.8)) == pytest.approx(40_000 / 9, rel=0.15)


def test_effective_samples_of_chains_that_stay_apart() -> None:
    """White noise within each chain, and another mean in each: the number of chains, not of samples."""
    x = autoregressive(50, 300, 0.0) + 20 * np.random.default_rng(1).standard_normal((50, 1))
    assert 25 < effective_samples(x) < 100
    assert effective_samples(np.ones((3, 8))) == 24


def test_effective_samples_predict_the_error_of_the_mean() -> None:
    """What the number is for: var of the mean = 1 / ESS."""
    means, sizes = zip(
        *[(x.mean(), effective_samples(x)) for x in (autoregressive(8, 100, 0.7, s) for s in range(400))],
        strict=True,
    )
    assert np.var(means) * np.mean(sizes) == pytest.approx(1, rel=0.25)


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_r_hat_of_mixed_chains(rho: float) -> None:
    """Its expectation for correlated samples: √(1 + (variance of a half's mean) / (variance within))."""
    x = autoregressive(4000, 60, rho)
    n, lags = 30, np.arange(1, 30)
    mean_variance = (1 + 2 * ((1 - lags / n) * rho**lags).sum()) / n
    within = (1 - mean_variance) * n / (n - 1)
    expected = np.sqrt((n - 1) / n + mean_variance / within)
    assert split_r_hat(x) == pytest.approx(expected, rel=0.003)


def test_r_hat_finds_chains_apart_and_chains_that_drift() -> None:
    """Chains that agree with one another while each of them moves on."""
    x = autoregressive(20, 200, 0.0)
    assert split_r_hat(x) < 1.02
    apart = x + np.where(np.arange(20) < 10, 0.0, 3.0)[:, None]
    assert split_r_hat(apart) > 1.5
    drifting = x + np.linspace(-3, 3, 200)
    assert split_r_hat(drifting) > 1.3
    # Without the split these agree: one mean for all of them.
    assert np.ptp(drifting.mean(axis=1)) < 0.5


def test_r_hat_of_chains_that_do_not_move() -> None:
    assert split_r_hat(np.ones((3, 6))) == 1.0
    assert split_r_hat(np.array([[0.0] * 6, [1.0] * 6])) == np.inf


@given(st.floats(-1e3, 1e3), st.floats(0.1, 10), st.integers(5, 21))
def test_no_measure_depends_on_units(shift: float, scale: float, samples: int) -> None:
    x = autoregressive(6, samples, 0.5)
    assert split_r_hat(shift + scale * x) == pytest.approx(split_r_hat(x), rel=1e-6)
    assert effective_samples(shift + scale * x) == pytest.approx(effective_samples(x), rel=1e-6)


def test_start_difference_and_its_error() -> None:
    """A standard error that takes correlated samples for independent ones."""
    start = np.arange(400) < 100
    ratios = []
    for seed in range(200):
        found = start_difference(autoregressive(400, 20, 0.95, seed), start)
        ratios.append(found.value / found.stderr)
        assert found.in_stderr == abs(ratios[-1])
    # Standard normal: the deviation of 200 of them is 1 ± 0.05.
    assert np.std(ratios) == pytest.approx(1, abs=0.2) and abs(np.mean(ratios)) < 0.3
    moved = autoregressive(400, 20, 0.95) + np.where(start, 1.0, 0.0)[:, None]
    assert start_difference(moved, start).value == pytest.approx(1, abs=0.4)
    assert start_difference(moved, start).in_stderr > 5


def test_start_difference_without_spread() -> None:
    start = np.array([True, True, False, False])
    assert start_difference(np.ones((4, 3)), start).in_stderr == 0
    assert start_difference(np.where(start, 1.0, 0.0)[:, None], start).in_stderr == np.inf


def test_errors() -> None:
    x = np.zeros((4, 8))
    for function in (split_r_hat, effective_samples):
        with pytest.raises(ValueError, match=r"series: got shape \(8,\); it takes \(chains, samples\)"):
            function(x[0])
        with pytest.raises(ValueError, match="4 samples or more"):
            function(x[:, :3])
        with pytest.raises(ValueError, match="series: contains values that are not finite"):
            function(np.full((2, 8), np.nan))
    with pytest.raises(ValueError, match=r"started_in: got int64 of shape \(4,\); it takes one boolean a ch"):
        start_difference(x, np.arange(4))
    with pytest.raises(ValueError, match=r"started_in: got bool of shape \(3,\)"):
        start_difference(x, np.ones(3, dtype=bool))
    with pytest.raises(ValueError, match="started_in: 1 and 3 chains; a standard error takes two"):
        start_difference(x, np.arange(4) == 0)
