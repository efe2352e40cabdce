"""Section 6.2 and appendix B: each inequality true on random networks and reached somewhere."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from labkit.theory import jacobian as theory
from labkit.theory import kernels

N, D, WIDTH, OUTPUTS = 6, 5, 8, 3
ACTIVATIONS = {
    "softplus": (lambda z: np.logaddexp(0, z), expit),
    "tanh": (np.tanh, lambda z: 1 / np.cosh(z) ** 2),
    "identity": (lambda z: z, np.ones_like),
}


def network(seed, activation="softplus"):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((N, D))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    w, v = rng.standard_normal((WIDTH, D)), rng.standard_normal((OUTPUTS, WIDTH))
    phi, dphi = ACTIVATIONS[activation]
    return x, w, v, phi(x @ w.T), dphi(x @ w.T)


def spectral(matrix):
    return float(np.linalg.norm(matrix, 2))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_jacobian_formulas_equal_finite_differences_in_labkit_layout(activation):
    """Catches class-major rows, columns of W transposed, and V's block in the wrong order."""
    x, w, v, features, slopes = network(0, activation)
    phi = ACTIVATIONS[activation][0]

    def f(flat):
        weights, readout = flat[: w.size].reshape(w.shape), flat[w.size :].reshape(v.shape)
        return (phi(x @ weights.T) @ readout.T).ravel()

    start, step = np.concatenate([w.ravel(), v.ravel()]), 1e-6
    numeric = np.array([f(start + step * e) - f(start - step * e) for e in np.eye(start.size)]).T / (2 * step)
    # Central differences: O(step^2) = 1e-12 truncation, 1e-16/step = 1e-10 rounding.
    np.testing.assert_allclose(theory.joint_jacobian(x, features, slopes, v), numeric, atol=2e-9)
    assert theory.input_jacobian(x, slopes, v).shape == (N * OUTPUTS, WIDTH * D)
    assert theory.output_jacobian(features, OUTPUTS).shape == (N * OUTPUTS, OUTPUTS * WIDTH)


def test_joint_gram_is_the_sum_of_the_two_blocks():
    """J16's block identity. Catches a block counted twice or left out."""
    x, _, v, features, slopes = network(1)
    joint = theory.joint_jacobian(x, features, slopes, v)
    first, second = theory.input_jacobian(x, slopes, v), theory.output_jacobian(features, OUTPUTS)
    np.testing.assert_allclose(joint @ joint.T, first @ first.T + second @ second.T, atol=1e-12)
    np.testing.assert_allclose(second @ second.T, np.kron(features @ features.T, np.eye(OUTPUTS)), atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_spectral_row_and_entry_bounds_hold(seed, activation):
    """Catches a bound without its sqrt(K), sqrt(k) or |phi(0)|."""
    x, w, v, features, slopes = network(seed, activation)
    x_norm, v_max = spectral(x), np.abs(v).max()
    phi0 = float(ACTIVATIONS[activation][0](np.array(0.0)))
    j = theory.input_jacobian(x, slopes, v)
    assert spectral(j) <= theory.jacobian_norm_bound(1.0, OUTPUTS, WIDTH, v_max, x_norm)
    joint = theory.joint_jacobian(x, features, slopes, v)
    w_norm = np.linalg.norm(w)
    assert spectral(joint) <= theory.joint_jacobian_bound(
        1.0, OUTPUTS, WIDTH, v_max, w_norm, x_norm, phi0=phi0, n=N
    )
    u = np.random.default_rng(seed + 50).standard_normal(N * OUTPUTS)
    u /= np.linalg.norm(u)
    rows = np.linalg.norm((j.T @ u).reshape(WIDTH, D), axis=1)
    assert rows.max() <= theory.jacobian_row_bound(1.0, OUTPUTS, v_max, x_norm)
    entries = np.abs(theory.output_jacobian(features, OUTPUTS).T @ u)
    row_max = np.linalg.norm(w, axis=1).max()
    assert entries.max() <= theory.joint_entry_bound(1.0, row_max, x_norm, phi0=phi0, n=N)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("activation", ["softplus", "tanh"])
def test_lipschitz_bounds_hold(seed, activation):
    """Catches sqrt(Kk) for sqrt(K), or the output block left out of Thm B.1."""
    x, w, v, features, slopes = network(seed, activation)
    rng = np.random.default_rng(seed + 9)
    phi, dphi = ACTIVATIONS[activation]
    x_norm, v_max = spectral(x), np.abs(v).max()
    for size in (1e-3, 1.0):
        w2, v2 = w + size * rng.standard_normal(w.shape), v + size * rng.standard_normal(v.shape)
        moved = np.linalg.norm(w2 - w)
        change = spectral(theory.input_jacobian(x, slopes, v) - theory.input_jacobian(x, dphi(x @ w2.T), v))
        assert change <= theory.jacobian_lipschitz(1.0, OUTPUTS, v_max, x_norm) * moved
        joint = theory.joint_jacobian(x, features, slopes, v)
        other = theory.joint_jacobian(x, phi(x @ w2.T), dphi(x @ w2.T), v2)
        dv = np.abs(v2 - v).max()
        assert spectral(joint - other) <= theory.joint_jacobian_lipschitz(
            1.0, OUTPUTS, WIDTH, v_max, x_norm, dv_max=dv, dw_frobenius=moved
        )


def test_spectral_and_row_bounds_are_reached_by_identity_and_equal_readout():
    """Tightness of (6.31), (6.32) for every K and k."""
    x = network(2)[0]
    v, x_norm = np.full((OUTPUTS, WIDTH), 0.7), spectral(x)
    j = theory.input_jacobian(x, np.ones((N, WIDTH)), v)
    assert spectral(j) == pytest.approx(theory.jacobian_norm_bound(1.0, OUTPUTS, WIDTH, 0.7, x_norm))
    top = np.linalg.svd(j)[0][:, 0]
    rows = np.linalg.norm((j.T @ top).reshape(WIDTH, D), axis=1)
    assert rows.max() == pytest.approx(theory.jacobian_row_bound(1.0, OUTPUTS, 0.7, x_norm))


def test_lipschitz_bound_is_reached_by_a_quadratic_unit():
    """Tightness of Lemma 6.10: phi' (z) = z, one point, a move along it."""
    x, v = np.array([[0.6, 0.8]]), np.full((OUTPUTS, 1), -0.4)
    move = 0.25 * x
    change = theory.input_jacobian(x, x @ move.T, v)  # J(W + move) - J(W) for linear slopes
    bound = theory.jacobian_lipschitz(1.0, OUTPUTS, 0.4, 1.0) * np.linalg.norm(move)
    assert spectral(change) == pytest.approx(bound)


def test_joint_lipschitz_bound_is_reached_by_each_of_its_terms():
    """Tightness of Thm B.1: W moved under V = 0 changes one block, V moved the other."""
    x, ones = network(2)[0], np.ones((N, WIDTH))
    top, x_norm = np.linalg.svd(x)[2][0], spectral(x)
    move = np.outer(np.ones(WIDTH), top)
    change = theory.joint_jacobian(x, x @ move.T, 0 * ones, np.zeros((OUTPUTS, WIDTH)))
    size = float(np.linalg.norm(move))
    bound = theory.joint_jacobian_lipschitz(1.0, OUTPUTS, WIDTH, 0.0, x_norm, dv_max=0.0, dw_frobenius=size)
    assert spectral(change) == pytest.approx(bound)
    change = theory.joint_jacobian(x, 0 * ones, ones, np.full((OUTPUTS, WIDTH), 0.3))
    bound = theory.joint_jacobian_lipschitz(1.0, OUTPUTS, WIDTH, 9.0, x_norm, dv_max=0.3, dw_frobenius=0.0)
    assert spectral(change) == pytest.approx(bound)


def test_joint_bound_without_phi0_is_false_for_softplus():
    """The erratum of Thm B.1: at W = 0, V = 0 the printed bound is 0 and the Jacobian is not."""
    x = network(3)[0]
    features, slopes = np.full((N, WIDTH), np.log(2)), np.full((N, WIDTH), 0.5)
    joint = theory.joint_jacobian(x, features, slopes, np.zeros((OUTPUTS, WIDTH)))
    printed = theory.joint_jacobian_bound(1.0, OUTPUTS, WIDTH, 0.0, 0.0, spectral(x))
    right = theory.joint_jacobian_bound(1.0, OUTPUTS, WIDTH, 0.0, 0.0, spectral(x), phi0=np.log(2), n=N)
    assert printed == 0.0
    assert spectral(joint) == pytest.approx(right)
    with pytest.raises(ValueError, match="^n: with phi0"):
        theory.joint_jacobian_bound(1.0, 1, 1, 1.0, 1.0, 1.0, phi0=0.7)


def test_expected_gram_is_nu_squared_sigma_with_variance_over_width():
    """Def. 2.1 with its erratum, nu^2/k for nu^2/K, within six standard errors; Lemma 6.13 at every draw."""
    rng = np.random.default_rng(7)
    x, nu, width, draws = network(4)[0], 1.5, 50, 400
    exact = nu**2 * kernels.mntk_full(x, OUTPUTS, "softplus")
    grams = []
    for _ in range(draws):
        w = rng.standard_normal((width, D))
        v = nu / np.sqrt(width) * rng.choice([-1.0, 1.0], size=(OUTPUTS, width))
        j = theory.input_jacobian(x, expit(x @ w.T), v)
        grams.append(j @ j.T)
    error = np.std(grams, axis=0) / np.sqrt(draws)
    assert (np.abs(np.mean(grams, axis=0) - exact) <= 6 * error + 1e-12).all()
    bound = theory.kernel_deviation_bound(N, OUTPUTS, width, spectral(x), nu=nu)
    assert max(spectral(g - exact) for g in grams) <= bound


def test_kernel_width_inverts_the_deviation_bound():
    """Catches delta for delta^2; the 900 of the derivation is rounded up to 1000."""
    width = theory.kernel_width(100, 3, 2.0, 0.5)
    deviation = theory.kernel_deviation_bound(100, 3, round(width), 2.0)
    assert deviation == pytest.approx(0.5 * np.sqrt(0.9), rel=1e-3)


def test_output_scale_keeps_the_initial_output_under_zeta_of_the_labels():
    """Lemma 6.14. Catches the scale of V: nu/sqrt(kK) a coordinate."""
    rng = np.random.default_rng(8)
    zeta, width = 0.4, 200
    nu = theory.output_scale(zeta, OUTPUTS)
    x = network(5)[0]
    for _ in range(20):
        v = nu / np.sqrt(width * OUTPUTS) * rng.choice([-1.0, 1.0], size=(OUTPUTS, width))
        out = np.logaddexp(0, x @ rng.standard_normal((width, D)).T) @ v.T
        assert np.linalg.norm(out) <= zeta * np.sqrt(N)
