"""The Gaussian mixture: Theorem A.1 on exact kernels and by sampling, Lemma A.2 on noisy data."""

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
    space = theory.cluster_basis(cluster)
    np.testing.assert_allclose(space.T @ space, np.eye(K * C), atol=1e-14)
    np.testing.assert_allclose(space @ (space.T @ y), y, atol=1e-13)


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


@pytest.mark.parametrize("sigma", [0.001, 0.01, 0.1])
def test_lemma_a2_bounds_the_change_of_kernel_and_subspace(sigma):
    """Catches sigma where sigma^2/d is meant; true for every noise level, and at 0 an equality."""
    rng = np.random.default_rng(3)
    clean = np.repeat(centers(2), 10, axis=0)
    n, x_norm = len(clean), np.linalg.norm(clean, 2)
    noisy = clean + sigma / np.sqrt(DIM) * rng.standard_normal(clean.shape)
    before, after = kernels.mntk(clean, "softplus"), kernels.mntk(noisy, "softplus")
    delta = theory.mixture_perturbation(sigma, n, DIM, x_norm)
    change = np.linalg.norm(after - before, 2)
    assert change <= delta
    assert theory.mixture_perturbation(0.0, n, DIM, x_norm) == 0.0
    values, first = np.linalg.eigh(before)
    second = np.linalg.eigh(after)[1]
    p, q = (v[:, -K * C :] @ v[:, -K * C :].T for v in (first, second))
    # Davis-Kahan holds with the true change too, where it says something.
    assert np.linalg.norm(p - q, 2) <= theory.mixture_subspace_bound(change, values[-K * C]) + 1e-12
    assert theory.mixture_subspace_bound(1.0, 0.5) == float("inf")


def test_scalings_of_theorem_2_5():
    """Catches a power of K, C, n or lambda; T and the cutoff must belong together."""
    cutoff = theory.mixture_cutoff(600, K, C, 0.2)
    assert cutoff**2 == pytest.approx(theory.mixture_eigenvalue_interval(0.2 * np.eye(K * C), 600)[0])
    steps = theory.mixture_steps(600, K, C, 0.2, 1.5, 0.01, 0.3)
    assert steps == pytest.approx(theory.stopping_time(1.5, 0.01, 0.3 * cutoff / np.sqrt(K)))
    relative = theory.relative_cutoff(cutoff, 600, K)
    assert theory.mixture_width(K, C, 0.2) == pytest.approx(relative**-8 / 16)
    assert theory.mixture_error_rate(600, K, C, 0.2, 1.5) == pytest.approx(
        1.5 / (relative * np.sqrt(600)) / np.sqrt(2)
    )
