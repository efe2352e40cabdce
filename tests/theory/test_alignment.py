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
