"""The Gaussian mixture: Theorem A.1 on exact kernels and by sampling."""

from __future__ import annotations

import numpy as np
import pytest

from labkit.theory import jacobian as theory
from labkit.theory import kernels

K, C, DIM = 3, 4, 15


def centers(seed=0):
    points = np.random.default_rng(seed).standard_normal((K * C, DIM))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


@pytest.mark.parametrize("activation", ["relu", "softplus"])
@pytest.mark.parametrize("seed", range(3))
def test_theorem_a1_rank_interval_and_labels(activation, seed):
    """Catches K C^2 for K^2 C, Sigma(X) for Sigma(M) in the interval, and a label layout that leaves I."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(6, 14, K * C)
    cluster = np.repeat(np.arange(K * C), sizes)
    m, n = centers(seed), int(sizes.sum())
    x, y = m[cluster], np.eye(K)[cluster // C]
    eigenvalues, basis = np.linalg.eigh(kernels.mntk_full(x, K, activation))
    rank = theory.mixture_rank(K, C)
    top, rest = eigenvalues[-rank:], eigenvalues[:-rank]
    assert np.abs(rest).max() < 1e-11 * eigenvalues[-1] < top[0]
    kernel = kernels.mntk(m, activation)
    low, high = theory.mixture_eigenvalue_interval(kernel, n)
    assert low <= top[0] and top[-1] <= high
    exact_low, exact_high = theory.mixture_eigenvalue_interval(kernel, n, sizes)
    assert low <= exact_low <= top[0] and top[-1] <= exact_high <= high
    outside = y.ravel() - basis[:, -rank:] @ (basis[:, -rank:].T @ y.ravel())
    assert np.linalg.norm(outside) < 1e-11 * np.sqrt(n)


def test_interval_with_equal_sizes_is_reached_at_both_ends():
    """Tightness: equal clusters make the spectrum n/KC times that of Sigma(M)."""
    kernel = kernels.mntk(centers(1))
    each = 7
    x = np.repeat(centers(1), each, axis=0)
    eigenvalues = np.linalg.eigvalsh(kernels.mntk(x))[-K * C :]
    low, high = theory.mixture_eigenvalue_interval(kernel, each * K * C, np.full(K * C, each))
    assert eigenvalues[0] == pytest.approx(low, rel=1e-9)
    assert eigenvalues[-1] == pytest.approx(high, rel=1e-9)
    with pytest.raises(ValueError, match="sizes"):
        theory.mixture_eigenvalue_interval(kernel, 84, [1.0])


@pytest.mark.parametrize("n", [100, 400, 1000])
def test_probability_of_balanced_clusters_is_a_lower_bound(n):
    """Catches a missing factor K C, and the forgotten upper tail."""
    rng = np.random.default_rng(n)
    sizes = rng.multinomial(n, np.full(K * C, 1 / (K * C)), size=20_000)
    mean = n / (K * C)
    share = np.mean((sizes.min(axis=1) >= mean / 2) & (sizes.max(axis=1) <= 2 * mean))
    bound = theory.mixture_interval_probability(K, C, n)
    assert share + 6 * 0.5 / np.sqrt(20_000) >= bound
    assert theory.mixture_interval_probability(K, C, 10_000) > 0.999
