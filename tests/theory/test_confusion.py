"""Paper 5's lemmas and theorems: each true where its conditions hold, and as tight as is said."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from labkit.theory import confusion as theory
from labkit.theory import confusion_rates as rates

# Directions: Lemma B.1.


@given(st.integers(2, 400), st.floats(0.001, 0.999))
def test_the_lemma_holds_for_one_pair(d, nu):
    """Catches a wrong exponent: one pair is below exp(-(d - 1) nu^2/2); the lemma has sqrt(pi/2) to spare."""
    pair = float(theory.pair_tail(nu, d))
    assert pair <= math.exp(-(d - 1) * nu**2 / 2) * (1 + 1e-9)
    assert pair <= 0.5 * theory.near_orthogonality_bound(nu, 2, d) * (1 + 1e-9)


@pytest.mark.parametrize("d", [2, 3, 7, 40])
def test_pair_tail_is_the_integral(d):
    """Catches wrong degrees of freedom: the density of <x, y> is (1 - t^2)^((d - 3)/2), up to a constant."""

    def mass(low):
        return integrate.quad(lambda angle: math.sin(angle) ** (d - 2), 0, math.acos(low))[0]

    for nu in (0.05, 0.4, 0.9):
        assert theory.pair_tail(nu, d) == pytest.approx(mass(nu) / mass(0.0), rel=1e-9)
        assert theory.pair_level(theory.pair_tail(nu, d), d) == pytest.approx(nu, rel=1e-8)


def test_some_pair_probability_is_what_sets_of_vectors_do():
    """Catches n^2 pairs for n (n - 1)/2; the bound must lie above, and its level must invert it."""
    n, d, draws = 12, 20, 4000
    x = np.random.default_rng(0).standard_normal((draws, n, d))
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    largest = np.abs(x @ x.transpose(0, 2, 1) - np.eye(n)).max((1, 2))
    for nu in (0.5, 0.6, 0.7):
        share, near = (largest >= nu).mean(), float(theory.some_pair_probability(nu, n, d))
        assert share == pytest.approx(near, abs=5 * math.sqrt(near * (1 - near) / draws) + 0.02 * near)
        assert share <= theory.near_orthogonality_bound(nu, n, d)
    for q in (1.0, 0.3, 1e-4):
        assert theory.near_orthogonality_bound(
            theory.near_orthogonality_level(q, n, 200), n, 200
        ) == pytest.approx(q)
    assert theory.some_pair_probability(0.0, n, d) == 1.0
    level = theory.near_orthogonality_level([0.5, 0.01], 100, 120)
    single = -np.expm1(np.log1p(-np.array([0.5, 0.01])) / 4950)
    np.testing.assert_allclose(level / theory.pair_level(single, 120), [1.17, 1.14], atol=0.006)


# Networks: Lemma D.1, Thm 4.1.


def test_theorem_4_1_and_its_level():
    """Catches (beta + 2)^2 for ^4, zeta0 without its square, a d that raises the level."""
    level = theory.confusion_level(0.1, 30, 100, 3)
    power = 0.25 * 100 * level**2 / (16 * (2 * math.sqrt(4)) ** 4 * 5**4)
    assert 900 * math.exp(-power) == pytest.approx(0.1)
    assert level / theory.confusion_level(0.1, 30, 400, 3) == pytest.approx(2)
    deep = theory.confusion_level(0.1, 30, 100, 200) / theory.confusion_level(0.1, 30, 100, 100)
    assert deep == pytest.approx(8, rel=0.03)
    assert theory.zeta0(0) == 2 and theory.lemma_constants(3).weights == 2


# Hessians: Appendix C.


@given(st.integers(0, 10_000), st.floats(0.05, 3), st.floats(0, 2))
@settings(max_examples=50, deadline=None)
def test_the_hessian_bound_holds_and_is_reached(seed, size, bend):
    """Catches a factor of the Lipschitz terms: f = w.Hw/2 + (L/6) sum w^3 has an L-Lipschitz Hessian."""
    rng = np.random.default_rng(seed)
    a, b = (m + m.T for m in rng.standard_normal((2, 4, 4)))
    w = rng.standard_normal(4)
    w *= size / np.linalg.norm(w)
    inner = (a @ w + bend / 2 * w**2) @ (b @ w + bend / 2 * w**2)
    norms = (np.linalg.norm(a @ b, 2), np.linalg.norm(a, 2), np.linalg.norm(b, 2))
    assert abs(inner) <= theory.hessian_bound(size, *norms, bend) * (1 + 1e-9)
    one = (np.eye(1) * 2 @ [size] + bend / 2 * size**2) ** 2
    assert one == pytest.approx(theory.hessian_bound(size, 4.0, 2.0, 2.0, bend), rel=1e-9)


@pytest.mark.parametrize(("d", "r"), [(200, 4), (400, 4), (300, 20), (50, 1), (400, 1)])
def test_subspace_cosine_is_near_what_random_subspaces_do(d, r):
    """Catches r/d for its root; for lines it is the median, else an upper end that is not far."""
    n, found = 8, []
    for seed in range(20):
        q = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, d, r)))[0]
        first, second = np.triu_indices(n, 1)
        found.append(np.linalg.norm(q[first].transpose(0, 2, 1) @ q[second], 2, axis=(1, 2)).max())
    near = float(theory.subspace_cosine(d, r, n))
    if r == 1:
        assert np.median(found) == pytest.approx(near, rel=0.1)
    else:
        assert np.max(found) < near < 1.6 * np.mean(found)
    assert theory.subspace_cosine(np.array([4, 4096]), 4, n)[0] == 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.near_orthogonality_bound(1.5, 3, 3), r"^nu: expected values in \[0, 1\]"),
        (lambda: theory.near_orthogonality_level(0.0, 3, 3), r"^probability: expected values in \(0, 1\]"),
        (lambda: theory.near_orthogonality_level(0.5, 3, 1), "^d: expected an integer >= 2"),
        (lambda: theory.pair_tail(0.5, 1), "^d: expected an integer >= 2"),
        (lambda: theory.some_pair_probability(0.5, 1, 3), "^n: expected an integer >= 2"),
        (lambda: theory.confusion_level(0.5, 3, 3, -1), "^depth: expected an integer >= 0"),
        (lambda: theory.hessian_bound(1.0, -1.0, 1.0, 1.0), "^product: expected values >= 0"),
        (lambda: theory.subspace_cosine(3, 4, 5), r"^d: expected whole numbers >= max\(2, r\) = 4"),
    ],
)
def test_confusion_names_what_is_wrong(call, message):
    """Catches arguments out of range that give a number."""
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("module", [theory, rates])
def test_the_table_names_functions_that_exist(module):
    """Catches a table that drifts from the code."""
    table = (module.__doc__ or "").split("Errata:")[0]
    named = {word.strip(",;:.") for word in table.split() if "_" in word}
    missing = {word for word in named if word.isidentifier() and not hasattr(module, word)}
    assert missing <= {"confusion_rates", "W_0", "F_t", "eta_t", "f_i", "f_k"}, missing
    assert set(module.__all__) - {"LemmaConstants", "Moments"} <= named | {"zeta0", "contraction"}
