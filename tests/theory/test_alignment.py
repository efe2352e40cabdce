"""Chance levels by sampling, and the first step of appendix D."""

from __future__ import annotations

import numpy as np
import pytest

from labkit.theory import jacobian as theory


def test_chance_share_is_the_rms_share_of_a_random_direction():
    """Catches r/m for its root. Monte Carlo within six standard errors."""
    rng = np.random.default_rng(0)
    v = rng.standard_normal((20_000, 60))
    energy = (v[:, :9] ** 2).sum(axis=1) / (v**2).sum(axis=1)
    assert abs(energy.mean() - theory.chance_share(9, 60) ** 2) <= 6 * energy.std() / np.sqrt(len(energy))


def test_one_hot_chance_share_counts_the_constant_part():
    """Catches the constant part forgotten: I holds it here, and the rest of I is random."""
    rng = np.random.default_rng(1)
    n, k, r = 30, 4, 13
    m = n * k
    shares = []
    for _ in range(400):
        y = np.eye(k)[rng.integers(0, k, n)].ravel()
        columns = np.column_stack([np.ones(m), rng.standard_normal((m, r - 1))])
        basis = np.linalg.qr(columns)[0]
        shares.append(np.sum((basis.T @ y) ** 2) / n)
    expected = theory.one_hot_chance_share(r, m, k) ** 2
    # I spends one of its r dimensions on the constant part: a difference of order 1/m in the energy.
    assert abs(np.mean(shares) - expected) <= 6 * np.std(shares) / np.sqrt(400) + 1 / m
    assert theory.one_hot_chance_share(r, m, k) > 1.5 * theory.chance_share(r, m)


def test_chance_levels_of_the_sheet():
    """The published .316 at full corruption and the sheet's .16 and .35."""
    assert theory.chance_share(50, 2000) == pytest.approx(0.16, abs=0.005)
    assert theory.one_hot_chance_share(50, 2000, 10) == pytest.approx(0.35, abs=0.005)
    assert theory.one_hot_chance_share(50, 500_000, 10) == pytest.approx(np.sqrt(0.1), abs=1e-3)
    with pytest.raises(ValueError, match="^rank"):
        theory.chance_share(5, 4)


def test_first_gradient_of_appendix_d_by_monte_carlo():
    """Catches the paper's sign and the factor 1/2; the deviation falls as sqrt(d/n)."""
    rng = np.random.default_rng(2)
    d, k, n = 4, 6, 200_000
    theta = rng.standard_normal(d)
    theta /= np.linalg.norm(theta)
    v = np.repeat([1.0, -1.0], k // 2)
    w, x = rng.standard_normal((k, d)), rng.standard_normal((n, d))
    gradient = v[:, None] * ((x @ w.T > 0) * -(x @ theta)[:, None]).T @ x / n
    expected = theory.adaptation_gradient(theta, v)
    deviation = np.linalg.norm(gradient - expected, 2)
    assert deviation <= 3 * theory.adaptation_gradient_deviation(d, n, float(np.linalg.norm(v)))
    assert deviation < 0.05 * np.linalg.norm(expected, 2)


def test_jacobian_after_an_infinite_step_has_rank_exactly_2d():
    """Catches d for 2d: two half-spaces of active samples, d dimensions each."""
    rng = np.random.default_rng(3)
    d, k, n = 5, 40, 200
    theta, v = rng.standard_normal(d), np.repeat([1.0, -1.0], k // 2)
    x = rng.standard_normal((n, d))
    w = -theory.adaptation_gradient(theta, v)
    j = theory.input_jacobian(x, (x @ w.T > 0).astype(float), v[None, :])
    assert np.linalg.matrix_rank(j) == theory.adaptation_rank(d)


def test_jacobian_after_a_large_finite_step_has_a_tail_of_order_root_d_over_n():
    """J15 in small: sigma_(2d+1) near sqrt(d/n), below half of sigma_2d."""
    rng = np.random.default_rng(4)
    d, k, n = 5, 200, 1000
    theta = rng.standard_normal(d)
    theta /= np.linalg.norm(theta)
    v, x = np.repeat([1.0, -1.0], k // 2), rng.standard_normal((n, d))
    w0 = rng.standard_normal((k, d))
    gradient = v[:, None] * ((x @ w0.T > 0) * -(x @ theta)[:, None]).T @ x / n
    w1 = w0 - 1e4 * gradient
    s = np.linalg.svd(theory.input_jacobian(x, (x @ w1.T > 0).astype(float), v[None, :]), compute_uv=False)
    assert s[2 * d] < 0.5 * s[2 * d - 1]
    assert 0.2 < s[2 * d] / s[0] / theory.adaptation_tail(d, n) < 5
