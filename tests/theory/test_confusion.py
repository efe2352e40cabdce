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


# Networks: Lemma D.1, Thm 4.1, Cor. 4.1, Thm 4.2, Strategy 4.1.


def test_theorem_4_1_and_its_level():
    """Catches (beta + 2)^2 for ^4, zeta0 without its square, a d that raises the level."""
    zeta = 2 * math.sqrt(4)
    power = 0.25 * 100 * 50.0**2 / (16 * zeta**4 * 5**4)
    assert theory.confusion_probability(50.0, 30, 100, 3) == pytest.approx(1 - 900 * math.exp(-power))
    level = theory.confusion_level(0.1, 30, 100, 3)
    assert theory.confusion_probability(level, 30, 100, 3) == pytest.approx(0.9)
    assert level / theory.confusion_level(0.1, 30, 400, 3) == pytest.approx(2)
    deep = theory.confusion_level(0.1, 30, 100, 200) / theory.confusion_level(0.1, 30, 100, 100)
    assert deep == pytest.approx(8, rel=0.03)
    assert theory.zeta0(0) == 2 and theory.lemma_constants(3).weights == 2


def test_corollary_4_1_is_the_theorem_at_half_the_confusion_and_a_net():
    """Catches the net left out for a large ball, or counted for a small one, or one in d dimensions."""
    args = (900.0, 30, 200, 1)
    small = theory.ball_probability(*args, radius=28.0)
    assert small == pytest.approx(float(theory.confusion_probability(450.0, *args[1:])))
    larger = theory.ball_probability(*args, radius=29.0)
    assert larger < small
    many = theory.ball_probability(*args, radius=29.0, weights=5000)
    power = 0.25 * 200 * 900**2 / (64 * 64 * 81)
    assert larger == pytest.approx(1 - 900 * math.exp(8 * 200 * 8 * 29 / 900 - power))
    assert many < larger


def test_theorem_4_2_needs_more_than_the_expectation():
    """Catches the paper's 4 taken for safe at depth 3, and part 2 without the dimension of the data."""
    args = {"n": 10, "d": 20, "depth": 3, "width": 1000, "kappa": 4.0}
    assert theory.random_weights_probability(16.0, **args, sphere=False) == -math.inf
    safe = theory.random_weights_probability(20.0, **args, sphere=False)
    paper = theory.random_weights_probability(20.0, **args, sphere=False, expectation=4.0)
    power = 3e6 * 4.0**2 / (64 * 256 * 625)
    assert safe == pytest.approx(1 - 100 * math.exp(-power)) and paper > safe
    both = theory.random_weights_probability(4.0, **args, sphere=True)
    assert both == pytest.approx(1 - 100 * math.exp(-(3e6 + 2e4) * 16 / (64 * 256 * 625)))


def test_strategy_norms_are_those_of_drawn_matrices():
    """Catches the fan-out in the variance, and Assumption 1 taken for granted."""
    rng = np.random.default_rng(0)
    d, widths, kappa = 200, (160, 160, 40), 4.0
    found = theory.strategy_norms(d, widths, kappa)
    sizes = (d, *widths)
    for p, norm in enumerate(found):
        sd = 1 / math.sqrt(sizes[p] * (kappa if p else 1))
        drawn = np.linalg.norm(rng.standard_normal((sizes[p + 1], sizes[p])) * sd, 2)
        assert 0.9 * norm < drawn < 1.03 * norm
    assert found[0] == pytest.approx(1 + math.sqrt(0.8)) and found[1] == pytest.approx(1)


def test_strategy_gradient_scale_is_the_mean_of_networks():
    """Catches a layer too many in the product, or W_0's gradient scaled like the others'."""
    rng, (depth, width, d, kappa) = np.random.default_rng(1), (3, 6, 4, 1.5)
    x = np.zeros(d)
    x[0] = 1.0
    found = []
    for _ in range(20_000):
        first = rng.standard_normal((width, d)) / math.sqrt(d)
        rest = [rng.standard_normal((width if p < depth - 1 else 1, width)) / math.sqrt(kappa * width)
                for p in range(depth)]  # fmt: skip
        hs, W = [x], [first, *rest]
        for one in W:
            hs.append(one @ hs[-1])
        back, total = np.ones(1), 0.0
        for p in reversed(range(depth + 1)):
            total += (back**2).sum() * (hs[p] ** 2).sum()
            back = W[p].T @ back
        found.append(total)
    expected = theory.strategy_gradient_scale(depth, width, d, kappa)
    assert np.mean(found) == pytest.approx(expected, abs=5 * np.std(found) / math.sqrt(len(found)))
    assert theory.strategy_gradient_scale(30, 100, 100, 4.0) < 1e-15


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
        (lambda: theory.confusion_probability(-1.0, 3, 3, 3), "^eta: expected values >= 0"),
        (lambda: theory.confusion_level(0.5, 3, 3, -1), "^depth: expected an integer >= 0"),
        (lambda: theory.ball_probability(1.0, 3, 3, 3, -1.0), "^radius: expected a finite number >= 0"),
        (lambda: theory.strategy_norms(3, [], 4.0), "^widths: expected at least one"),
        (lambda: theory.strategy_norms(3, [3, 3], 0.0), "^kappa: expected a finite number > 0"),
        (lambda: theory.hessian_bound(1.0, -1.0, 1.0, 1.0), "^product: expected values >= 0"),
        (lambda: theory.subspace_cosine(3, 4, 5), r"^d: expected whole numbers >= max\(2, r\) = 4"),
        (
            lambda: theory.random_weights_probability(5, 3, 3, 3, 0, 1, sphere=True),
            "^width: expected an integer",
        ),
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
