"""Section 4 of paper 2: lemmas against simulation with explicit matrices, formulas against plain ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.theory import generalization as theory
from labkit.theory import pac_bayes


def network(seed: int, dims: tuple[int, ...]) -> tuple[list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal((b, a)) / math.sqrt(a) for a, b in zip(dims[:-1], dims[1:], strict=True)]
    x = rng.standard_normal(dims[0])
    return weights, x / np.linalg.norm(x)


def masked(weights: list[np.ndarray], x: np.ndarray) -> list[np.ndarray]:
    """D_i W_i, with D_d = I."""
    found = []
    for i, W in enumerate(weights):
        z = W @ x
        D = np.diag((z > 0).astype(float)) if i < len(weights) - 1 else np.eye(len(W))
        found.append(D @ W)
        x = D @ z
    return found


def mu_from_the_input(layers: list[np.ndarray], x: np.ndarray) -> float:
    """The least of (C1) over a = 0, product by product."""
    d, least = len(layers), math.inf
    for b in range(1, d + 1):
        for c in range(b):
            left, right = np.eye(len(x) if c == 0 else len(layers[c - 1])), x
            for i in range(c, b):
                left = layers[i] @ left
            for i in range(c):
                right = layers[i] @ right
            whole = np.linalg.norm(left @ right)
            below = np.linalg.norm(left) * np.linalg.norm(right)
            if below > 0:
                least = min(least, math.sqrt(len(right)) * whole / below)
    return least


@pytest.mark.parametrize("seed", range(4))
def test_lemma_3_from_both_sides(seed: int) -> None:
    """Mean within its bounds, mean square equal to it: 20,000 draws. Catches sigma^2 for sigma."""
    rng = np.random.default_rng(seed)
    n1, n2, n3, n4 = rng.integers(1, 6, 4)
    a, b, sigma = rng.standard_normal((n1, n2)), rng.standard_normal((n3, n4)), 0.3
    noise = rng.normal(0, sigma, (20_000, n2, n3))
    size = np.linalg.norm(a @ noise @ b, axis=(1, 2))
    bound = theory.lemma3(a, b, sigma)
    doubt = 5 * size.std() / math.sqrt(len(size))
    # A root mean square is at most √(π/2) times the mean, as all weight on one direction shows.
    assert math.sqrt(2 / math.pi) * bound - doubt <= size.mean() <= bound + doubt
    square = size**2
    assert abs(square.mean() - bound**2) <= 5 * square.std() / math.sqrt(len(size))


def test_lemma_3_is_tight_at_both_ends() -> None:
    """Rank one reaches the lower bound; many equal singular values reach the upper one."""
    rng = np.random.default_rng(0)
    u, v = rng.standard_normal((3, 1)) @ rng.standard_normal((1, 4)), rng.standard_normal((5, 1))
    size = np.linalg.norm(u @ rng.normal(0, 2, (40_000, 4, 5)) @ v, axis=(1, 2))
    assert size.mean() == pytest.approx(math.sqrt(2 / math.pi) * theory.lemma3(u, v, 2.0), rel=0.02)
    eye = np.eye(30)
    size = np.linalg.norm(rng.normal(0, 2, (200, 30, 30)), axis=(1, 2))
    assert 0.99 * theory.lemma3(eye, eye, 2.0) < size.mean() < 1.005 * theory.lemma3(eye, eye, 2.0)


@pytest.mark.parametrize("dims", [(4, 7, 3), (3, 6, 6, 2), (5, 8, 8, 8, 4)])
@pytest.mark.parametrize("sigma", [1e-3, 1e-2, 0.1, 0.5])
def test_lemma_1_bounds_the_simulated_change(dims: tuple[int, ...], sigma: float) -> None:
    """The whole chain from (C1) to the lemma, with mu measured on the same network over a = 0 alone."""
    weights, x = network(3, dims)
    layers = masked(weights, x)
    f = x
    for layer in layers:
        f = layer @ f
    gates = [np.any(layer != 0, axis=1).astype(float) for layer in layers[:-1]] + [np.ones(dims[-1])]
    mu = mu_from_the_input(layers, x)
    gamma = theory.gammas(sigma, dims, mu, [np.linalg.norm(layer) for layer in layers])
    rng, changes = np.random.default_rng(0), []
    for _ in range(400):
        h = x
        for W, gate in zip(weights, gates, strict=True):
            h = gate * ((W + rng.normal(0, sigma, W.shape)) @ h)
        changes.append(np.linalg.norm(h - f))
    bound = theory.lemma1(gamma, np.linalg.norm(f))
    assert np.mean(changes) - 5 * np.std(changes) / 20 <= bound
    if sigma == 1e-3:
        assert np.mean(changes) > bound / 200  # a bound that says something


def test_gammas_by_hand() -> None:
    """Catches h_i^2 for h_i h_(i-1), mu for mu^2, layers shifted by one."""
    gamma = theory.gammas([0.1, 0.2], [4, 9, 1], 0.5, [2.0, 3.0])
    np.testing.assert_allclose(gamma, [0.1 * 6 / (0.25 * 2), 0.2 * 3 / (0.25 * 3)])
    # mu above 1 counts as 1.
    np.testing.assert_allclose(theory.gammas(0.1, [4, 9], 3.0, [2.0]), [0.3])
    many = theory.gammas(0.1, [4, 9, 1], [0.5, 1.0, 0.0], np.tile([2.0, 3.0], (3, 1)))
    assert many.shape == (3, 2) and np.isinf(many[2]).all()
    np.testing.assert_allclose(many[0], theory.gammas(0.1, [4, 9, 1], 0.5, [2.0, 3.0]))
    assert (theory.gammas(0.0, [4, 9, 1], 0.0, [2.0, 3.0]) == 0).all()


@given(gamma=st.lists(st.floats(0, 3), min_size=1, max_size=6), c2=st.floats(0, 5), c3=st.floats(0, 3))
def test_lemmas_1_and_2_are_the_products_they_state(gamma: list[float], c2: float, c3: float) -> None:
    """Catches sums for products and a lost "- 1"; the plain product is exact to 1e-12 here."""
    c, norm, g = 7.0, 2.5, np.array(gamma)
    first = (np.prod(1 + g) - 1) * norm
    second = np.prod(1 + g * c2 * c3) * (np.prod(1 + g * c * c2) - 1) * norm
    assert theory.lemma1(g, norm) == pytest.approx(first, rel=1e-9, abs=1e-12)
    assert theory.lemma2(g, c2, c3, c, norm) == pytest.approx(second, rel=1e-9, abs=1e-12)
    total = theory.theorem1_sharpness(g, c2, c3, c, norm, lipschitz=1.5)
    assert total == pytest.approx(1.5 * (first + second), rel=1e-9, abs=1e-12)
    assert theory.theorem1_sharpness(g, c2, c3, c, norm) == pytest.approx(total * math.sqrt(2) / 1.5)


def test_small_gammas_keep_their_digits_and_large_ones_end_at_infinity() -> None:
    """1 + 1e-18 is 1; a product of 400 hundreds is not a number of float64."""
    assert theory.lemma1([1e-18, 2e-18], 1.0) == pytest.approx(3e-18)
    assert theory.lemma1(np.full(400, 100.0), 1.0) == math.inf
    assert theory.theorem1_sharpness(np.full(3, math.inf), 1.0, 1.0, 5.0, 1.0) == math.inf
    # A sample whose output is 0 has no mu, and no bound: not a bound of 0.
    assert theory.lemma1(np.full((2, 3), math.inf), [0.0, 1.0]).tolist() == [math.inf, math.inf]


def test_lemma_2s_order_of_flips() -> None:
    """The paper's own terms, C_2 C_delta sigma |f| sqrt(h)/|W f|, are at most the form with gamma."""
    weights, x = network(1, (6, 40, 3))
    layers = masked(weights, x)
    mu, sigma, c2, c = mu_from_the_input(layers, x), 0.01, 2.0, 6.0
    gamma = theory.gammas(sigma, (6, 40, 3), mu, [np.linalg.norm(layer) for layer in layers])
    rms = np.linalg.norm(weights[0] @ x) / math.sqrt(40)
    assert c2 * c * sigma * np.linalg.norm(x) / rms <= theory.lemma2_flips(gamma, c2, c, mu)[0]


def test_the_loss_is_lipschitz_as_stated() -> None:
    """|CE(f, y) - CE(g, y)| <= sqrt(2) |f - g|, nearly reached; 1 would be too small."""
    rng, most = np.random.default_rng(0), 0.0
    for _ in range(500):
        f = rng.standard_normal(2) * 10
        g = f + rng.standard_normal(2) * 0.01
        loss = [np.logaddexp(*v) - v[0] for v in (f, g)]
        most = max(most, abs(loss[0] - loss[1]) / np.linalg.norm(f - g))
    assert 1.3 < most <= theory.SQRT_2 * (1 + 1e-9)


def test_no_noise_exceeds_the_activation_constant() -> None:
    """C_delta sigma bounds d h Gaussians at once but with probability delta (here far less)."""
    c = theory.activation_constant(3, 50, 0.1)
    assert c == pytest.approx(2 * math.sqrt(math.log(3 * 50 / 0.1)))
    largest = np.abs(np.random.default_rng(0).standard_normal((1000, 150))).max(1)
    assert (largest > c).mean() <= 0.1


def test_theorem_1_is_the_sum_of_its_parts() -> None:
    """KL with its 1/2, and the constant 4 of (7)."""
    norms, sigmas = np.array([3.0, 2.0]), np.array([0.1, 0.2])
    kl = 9 / 0.02 + 4 / 0.08
    found = theory.theorem1(0.3, norms, sigmas, 1000, 0.05)
    assert found == pytest.approx(0.3 + 4 * math.sqrt((kl + math.log(2000 / 0.05)) / 1000))
    assert found == pytest.approx(pac_bayes.sharpness_bound(0.0, 0.3, kl, 1000))
    assert theory.theorem1([0.3, 0.4], norms, sigmas, 1000).shape == (2,)


@given(sigma=st.floats(1e-3, 2), depth=st.integers(1, 200), c2=st.floats(0.1, 5), c3=st.floats(0.1, 3))
def test_at_linear_gammas_sharpness_stays_below_its_limit(
    sigma: float, depth: int, c2: float, c3: float
) -> None:
    """E14: (1 + s/d)^d rises to e^s, whatever the depth."""
    c = theory.activation_constant(depth, 100)
    gamma = theory.linear_gammas(sigma, depth, c)
    assert gamma.shape == (depth,)
    found = theory.theorem1_sharpness(gamma, c2, c3, c, 1.0, lipschitz=1.0)
    limit = theory.linear_sharpness(sigma, c2, c3, c)
    assert found <= limit * (1 + 1e-9)
    if depth >= 100 and sigma * c2 < 0.1:
        assert found >= 0.9 * limit


def test_linear_kl_is_the_kl_of_the_noise_with_those_gammas() -> None:
    """Catches the C_delta^2 that the paper's simplified form drops."""
    dims, mu, norms, shares = [5, 20, 20, 3], 0.4, np.array([2.0, 3.0, 4.0]), np.array([1.3, 1.5, 1.0])
    c = theory.activation_constant(3, 20)
    sigmas = theory.linear_gammas(0.2, 3, c) * mu**2 * norms / shares / np.sqrt([5 * 20, 20 * 20, 20 * 3])
    expected = (norms**2 / (2 * sigmas**2)).sum()
    assert theory.linear_kl(0.2, dims, mu, c, shares) == pytest.approx(expected)


def test_linear_kl_grows_as_said() -> None:
    """Over the parameters, linear in depth; at a fixed width, as d^(3/2)."""
    depths = np.array([16, 32, 64, 128])
    roots = []
    for d in depths:
        dims = [100] * (d + 1)
        roots.append(math.sqrt(theory.linear_kl(0.1, dims, 0.5, 5.0)))
    np.testing.assert_allclose(np.diff(np.log(roots)) / math.log(2), 1.5)
    np.testing.assert_allclose(np.diff(np.log(roots / np.sqrt(depths * 1e4))) / math.log(2), 1.0)


def test_vc_order() -> None:
    assert theory.vc_order(3, 1000) == 3000.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.vc_order(0, 10), "depth: expected an integer >= 1"),
        (lambda: theory.lemma3([1.0], [[1.0]], 1.0), "a: expected a 2-D array"),
        (lambda: theory.lemma3([[1.0]], [[1.0]], -1.0), "sigma: expected a finite number >= 0"),
        (lambda: theory.gammas(0.1, [4], 0.5, [1.0]), "dims: expected h_0, ..., h_d of at least 1"),
        (lambda: theory.gammas(0.1, [4, 0], 0.5, [1.0]), "dims: expected h_0, ..., h_d of at least 1"),
        (lambda: theory.gammas(0.1, [4, 9], 0.5, [1.0, 2.0]), "masked_norms: expected 1 layers"),
        (lambda: theory.gammas([0.1, 0.2], [4, 9], 0.5, [1.0]), r"sigmas: expected a number or shape \(1,\)"),
        (lambda: theory.gammas(-0.1, [4, 9], 0.5, [1.0]), "sigmas, masked_norms: expected values >= 0"),
        (lambda: theory.gammas(0.1, [4, 9], -0.5, [1.0]), "mu: expected values >= 0, got -0.5"),
        (lambda: theory.activation_constant(2, 10, 1.0), r"delta: expected a probability in \(0, 1\)"),
        (lambda: theory.lemma1(0.1, 1.0), r"gamma: expected an array \(..., d\) of values >= 0"),
        (lambda: theory.lemma1([-0.1], 1.0), r"gamma: expected an array \(..., d\) of values >= 0"),
        (lambda: theory.lemma1([0.1], -1.0), "output_norm: expected values >= 0"),
        (lambda: theory.lemma2([0.1], -1.0, 1.0, 1.0, 1.0), "c2: expected a finite number >= 0"),
        (lambda: theory.theorem1_sharpness([0.1], 1.0, 1.0, 1.0, 1.0, 0.0), "lipschitz: expected a finite"),
        (lambda: theory.theorem1(0.1, [1.0], 0.0, 10), "sigmas: expected standard deviations > 0"),
        (lambda: theory.linear_gammas(0.1, 0, 1.0), "depth: expected an integer >= 1"),
    ],
)
def test_a_bad_argument_is_named(call, message: str) -> None:
    """A number out of range that runs on and becomes a bound."""
    with pytest.raises(ValueError, match=message):
        call()
