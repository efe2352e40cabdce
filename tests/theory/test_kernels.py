"""Kernels against brute force: double integrals, Monte Carlo, and a recursion that shares no code."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from labkit.theory import kernels
from labkit.theory._mehler import SLOPES as POLES
from labkit.theory._mehler import sech2, sigmoid

STEP = np.heaviside
SLOPES = {"softplus": sigmoid, "tanh": sech2}


def points(n=6, d=4, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def double_integral(g, a, b, cosine):
    """E[g(u) g(v)] by adaptive quadrature in both variables: slow, obvious, and of another kind."""
    sine = np.sqrt(1.0 - cosine**2)

    def integrand(t, z):
        weight = np.exp(-0.5 * (z * z + t * t)) / (2.0 * np.pi)
        return weight * g(np.array(a * z)) * g(np.array(b * (cosine * z + sine * t)))

    return integrate.dblquad(integrand, -9, 9, -9, 9, epsabs=1e-10, epsrel=1e-10)[0]


@pytest.mark.parametrize("activation", ["softplus", "tanh"])
@pytest.mark.parametrize("case", [(1.0, 1.0, 0.3), (0.5, 2.0, -0.8)])
def test_smooth_expectations_equal_a_double_integral(activation, case):
    """Catches a wrong Hermite normalisation or a series cut too early."""
    a, b, cosine = case
    x = np.array([[a, 0.0], [b * cosine, b * np.sqrt(1 - cosine**2)]])
    got = kernels.derivative_expectation(x, activation)[0, 1]
    # dblquad was asked for 1e-10 and reports less; 1e-9 leaves room for the cut at 9 sigma (1e-18).
    assert got == pytest.approx(double_integral(SLOPES[activation], a, b, cosine), abs=1e-9)


def grid_sum(activation, a, b, theta):
    """The same by the trapezoid rule, whose error is exp(-60) times what the pole of order 4 adds, 1e-22."""
    slope, pole = POLES[activation]
    step = min(2 * np.pi * pole / max(a, b) / 60, 0.25)
    z = step * np.arange(-np.ceil(9 / step), np.ceil(9 / step) + 1)
    weight = step * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    first = slope(a * z) * weight
    rows = (first @ slope(b * (np.cos(theta) * z + np.sin(theta) * t)) for t in z)
    return sum(w * row for w, row in zip(weight, rows, strict=True))


HARD = [
    (1.0, 1.0, 1e-6),
    (3.0, 3.0, 0.0),
    (3.0, 3.0, 3.0),
    (5.0, 9.0, 0.5),
    (60.0, 60.0, 9e-8),
    (60.0, 60.0, 0.5),
]


@pytest.mark.parametrize("activation", ["softplus", "tanh"])
@pytest.mark.parametrize(("a", "b", "theta"), HARD)
def test_smooth_expectations_keep_their_tolerance_or_are_refused(activation, a, b, theta):
    """A step too wide for the pole of phi'^2; nearly parallel points of large norm taken for parallel."""
    x = np.array([[a, 0.0], [b * np.cos(theta), b * np.sin(theta)]])
    exact = grid_sum(activation, a, b, theta)
    kept = 0
    for tol in (1e-4, 1e-9, 1e-13, 1e-14):
        try:
            found = kernels.derivative_expectation(x, activation, tol=tol)[0, 1]
        except ValueError as error:
            assert "larger tol" in str(error)
            continue
        assert abs(found - exact) <= tol
        kept += 1
    assert kept > 0


@pytest.mark.parametrize("activation", ["relu", "softplus", "tanh", "identity"])
def test_expectations_agree_with_monte_carlo_within_six_standard_errors(activation):
    """Catches a factor 2 (kappa_0 for E) and an activation swapped for another."""
    rng = np.random.default_rng(1)
    x = points(4, 3)
    slope = {"relu": lambda z: (z > 0) * 1.0, "identity": np.ones_like, **SLOPES}[activation]
    values = slope(x @ rng.standard_normal((3, 200_000)))
    products = values[:, None] * values[None, :]
    error = products.std(axis=2) / np.sqrt(products.shape[2])
    difference = np.abs(products.mean(axis=2) - kernels.derivative_expectation(x, activation))
    assert (difference <= 6.0 * error + 1e-12).all()


def test_expectation_of_parallel_points_of_large_norm_equals_single_integral():
    """Catches a clone pair left with the truncated series, and a lost sign for antiparallel points."""
    x = np.array([[9.0, 0.0], [18.0, 0.0], [-9.0, 0.0], [3.0, 4.0]])
    got = kernels.derivative_expectation(x, "softplus")

    def line(z, b):
        return (
            sigmoid(np.array(9.0 * z)) * sigmoid(np.array(b * z)) * np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
        )

    for j, b in ((0, 9.0), (1, 18.0), (2, -9.0)):
        exact = integrate.quad(line, -10, 10, args=(b,), epsabs=1e-13, limit=400, points=[0.0])[0]
        assert got[0, j] == pytest.approx(exact, abs=1e-12)


def test_series_that_cannot_converge_is_refused_with_a_way_out():
    """Catches a silent wrong entry for near-duplicates of huge norm."""
    x = np.array([[100.0, 0.0], [100.0, 0.001]])
    with pytest.raises(ValueError, match=r"x: norms up to 100 .*unit length"):
        kernels.derivative_expectation(x, "tanh")
    with pytest.raises(ValueError, match=r"x: a norm of 1e\+04"):
        kernels.derivative_expectation(100 * x, "tanh")


def test_angle_of_close_points_is_accurate_where_arccos_is_not():
    """Catches arccos near the diagonal: it returns 0 or 2.1e-8 for an angle of 1e-9."""
    tiny = 1e-9
    x = np.array([[1.0, 0.0], [np.cos(tiny), np.sin(tiny)], [-np.cos(tiny), np.sin(tiny)], [7.0, 0.0]])
    theta = kernels.angles(x)
    assert theta[0, 1] == pytest.approx(tiny, rel=1e-12)
    assert np.pi - theta[0, 2] == pytest.approx(tiny, rel=1e-6)
    assert theta[0, 3] == 0.0
    assert abs(np.arccos(np.clip(x[0] @ x[1], -1, 1)) - tiny) > 1e-10


def test_zero_rows_give_zero_rows_and_no_nan():
    """Catches a division by the norm of a zero input."""
    x = np.vstack([points(3), np.zeros((2, 4))])
    for activation in kernels.ACTIVATIONS:
        theta = kernels.mntk(x, activation)
        assert np.isfinite(theta).all()
        assert (theta[3:] == 0).all()
    deep = kernels.analytic_ntk(x, hidden_layers=3)
    assert np.isfinite(deep).all()
    assert (deep[3:] == 0).all()
    assert np.isfinite(kernels.analytic_ntk(x, hidden_layers=3, bias_std=0.5)).all()


def decimal_atan(t):
    """Halved until the series is short."""
    doubled = 1
    while t > Decimal("0.05"):
        t, doubled = t / (1 + (1 + t * t).sqrt()), 2 * doubled
    return doubled * sum((-1) ** k * t ** (2 * k + 1) / (2 * k + 1) for k in range(20))


def decimal_kappas(cosine):
    pi = 4 * decimal_atan(Decimal(1))
    cosine = max(min(cosine, Decimal(1)), Decimal(-1))
    theta = pi if cosine == -1 else 2 * decimal_atan(((1 - cosine) / (1 + cosine)).sqrt())
    return (pi - theta) / pi, ((1 - cosine**2).sqrt() + (pi - theta) * cosine) / pi


def decimal_ntk(x, depth, s, b):
    """The recursion on covariances, as it is printed, in 50 digits."""
    x = [[Decimal(float(entry)) for entry in row] for row in x]
    s2, b2, pairs = Decimal(float(s)) ** 2, Decimal(float(b)) ** 2, range(len(x))
    cov = np.array([[s2 * sum(p * q for p, q in zip(u, v)) / len(u) + b2 for v in x] for u in x])  # noqa: B905
    theta = cov
    for layer in range(depth):
        gain, offset = (s2, b2) if layer < depth - 1 else (1, 0)
        scale = np.array([[(cov[i, i] * cov[j, j]).sqrt() for j in pairs] for i in pairs])
        kappa = np.array([[decimal_kappas(cov[i, j] / scale[i, j]) for j in pairs] for i in pairs])
        cov = gain * scale / 2 * kappa[..., 1] + offset
        theta = cov + gain * theta * kappa[..., 0] / 2
    return theta


@pytest.mark.parametrize(
    ("depth", "gap"), [(1, 1e-3), (3, 1e-8), (3, 0.3), (10, 1e-12), (10, 1e-4), (30, 1e-8)]
)
@pytest.mark.parametrize("stds", [(1.0, 0.0), (1.3, 0.4), (3.0, 1e-9)])
def test_analytic_ntk_keeps_its_accuracy_near_both_ends(depth, gap, stds):
    """An angle that loses half its digits near 0: multiples, near copies and near opposites, of all sizes."""
    u, v = points(2, 3)
    x = np.array([u, 10 * u, -3 * u, 1e6 * (u + gap * v), 1e-9 * (gap * v - u), v])
    found = kernels.analytic_ntk(x, hidden_layers=depth, weight_std=stds[0], bias_std=stds[1])
    with localcontext() as context:
        context.prec = 50
        exact = decimal_ntk(x, depth, *stds)
        size = np.array([value.sqrt() for value in np.diag(exact)])
        gaps = (exact - np.vectorize(Decimal)(found)) / np.outer(size, size)
    assert float(np.abs(gaps).max()) <= 1e-14


@settings(max_examples=40, deadline=None)
@given(
    st.floats(1e-280, 1e100), st.integers(1, 60), st.sampled_from([0.5, 1.0, 2**0.5, 3.0]), st.integers(0, 99)
)
def test_analytic_ntk_without_biases_has_degree_one(c, depth, s, seed):
    """Theta(x, c x) = c Theta(x, x), and of an opposite point what is left of it, the same for every c."""
    u = points(1, 5, seed)[0]
    near, far = (
        kernels.analytic_ntk([u, k * c * u, -k * c * u], hidden_layers=depth, weight_std=s) for k in (1, 7)
    )
    bound = 1e-14 * max(1.0, depth / 10)  # 1e-15 a layer beyond the first
    assert abs(near[0, 1] / (c * near[0, 0]) - 1) <= bound
    assert abs(far[0, 2] - 7 * near[0, 2]) <= 7 * bound * c * near[0, 0]
    if depth == 1:
        assert abs(near[0, 2]) <= 1e-15 * c * near[0, 0]


@pytest.mark.parametrize("columns", [2, 1000])
def test_angles_are_within_their_stated_error(columns):
    """Cosines near 1 and -1; sums over many columns; squares that vanish or overflow."""
    rng = np.random.default_rng(0)
    with localcontext() as context:
        context.prec = 50
        for gap in (1.0, 0.4, 0.1, 1e-4, 1e-9):
            for sign, size in ((1, 1.0), (-1, 1e-200), (1, 1e200)):
                u, v = rng.standard_normal((2, columns))
                v = size * (sign * u + gap * v)
                found = Decimal(kernels.angles([u, v])[0, 1])
                p, q = (np.vectorize(Decimal)(row) for row in (u, v))
                area = ((p @ p) * (q @ q) - (p @ q) ** 2).sqrt()
                near = 2 * decimal_atan(area / (((p @ p) * (q @ q)).sqrt() + abs(p @ q)))
                exact = near if p @ q > 0 else 4 * decimal_atan(Decimal(1)) - near
                assert abs(found - exact) < 2e-15


def test_a_kernel_beyond_float64_is_refused():
    """Infinite entries handed on as a kernel."""
    for call in (
        lambda: kernels.mntk([[1e200]]),
        lambda: kernels.analytic_ntk([[1e200, 0.0]]),
        lambda: kernels.analytic_ntk([[1.0]], weight_std=1e200, hidden_layers=2),
        lambda: kernels.analytic_ntk([[1.0]], weight_std=10.0, bias_std=1.0, hidden_layers=400),
    ):
        with pytest.raises(ValueError, match="x: the kernel leaves the range of float64"):
            call()


def noiseless_mixture(classes=3, clusters=10, each=3, dim=35, seed=0):
    centers = np.random.default_rng(seed).standard_normal((classes * clusters, dim))
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    return np.repeat(centers, each, axis=0)


@pytest.mark.parametrize("activation", ["relu", "softplus", "tanh"])
def test_rank_of_noiseless_mixture_is_exactly_k_squared_c(activation):
    """Catches angles of 1e-8 between duplicates, which made this rank 93 instead of 90."""
    x = noiseless_mixture()
    assert np.linalg.matrix_rank(kernels.mntk_full(x, 3, activation), hermitian=True) == 90


def test_rank_counter_catches_arccos():
    """The rank check must fail on the wrong formula, or it proves nothing."""
    x = noiseless_mixture()
    noise = np.triu(np.random.default_rng(0).integers(0, 2, (len(x), len(x))), 1) * 2.2e-16
    cosine = np.clip(np.round(x @ x.T, 14) - noise - noise.T, -1, 1)  # one ulp here and there
    wrong = (x @ x.T) * (np.pi - np.arccos(cosine)) / (2 * np.pi)
    assert np.linalg.matrix_rank(wrong, hermitian=True) > 30


@pytest.mark.parametrize("activation", ["relu", "softplus", "tanh", "identity"])
def test_mntk_is_symmetric_and_positive_semidefinite(activation):
    """Catches asymmetric pair loops and a truncation that loses positivity."""
    x = np.vstack([points(20, 6), points(5, 6)])
    theta = kernels.mntk(x, activation)
    assert (theta == theta.T).all()
    assert np.linalg.eigvalsh(theta)[0] >= -1e-13 * np.abs(theta).max()


def test_full_kernel_has_sample_major_layout():
    """Catches I_K (x) Theta where kron(Theta, I_K) is meant: same spectrum, wrong projections."""
    x, count = points(4), 3
    theta, full = kernels.mntk(x), kernels.mntk_full(x, count)
    assert full[1 * count + 2, 3 * count + 2] == theta[1, 3]
    assert full[1 * count + 2, 3 * count + 1] == 0.0
    order = np.arange(4 * count).reshape(4, count).T.ravel()
    np.testing.assert_array_equal(full[np.ix_(order, order)], kernels.mntk_full(x, count, class_major=True))
    assert not np.array_equal(full, kernels.mntk_full(x, count, class_major=True))


def orthant_recursion(x, depth, s, b):
    """The NTK from its definition, pair by pair, each expectation by adaptive quadrature in polar angle.

    In polar coordinates u ~ p cos(t), v ~ q cos(t - theta): E[relu relu] and E[1 1] are integrals over the
    arc on which both are positive; the radius integrates to a factor 1 (steps) or 2 (relu).
    """
    n, d = x.shape

    def layer(cov):
        value, slope = np.empty((n, n)), np.empty((n, n))
        for i in range(n):
            for j in range(n):
                p, q = np.sqrt(cov[i, i]), np.sqrt(cov[j, j])
                theta = np.arccos(np.clip(cov[i, j] / (p * q), -1, 1))
                low, high = theta - np.pi / 2, np.pi / 2
                arc = integrate.quad(lambda t, th=theta: np.cos(t) * np.cos(t - th), low, high, epsabs=1e-13)[
                    0
                ]
                value[i, j] = p * q * arc / np.pi
                slope[i, j] = (high - low) / (2 * np.pi)
        return value, slope

    cov = s**2 * x @ x.T / d + b**2
    theta = cov.copy()
    for _ in range(depth - 1):
        value, slope = layer(cov)
        cov = s**2 * value + b**2
        theta = cov + s**2 * theta * slope
    value, slope = layer(cov)
    return value + theta * slope


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("stds", [(1.0, 0.0), (np.sqrt(2.0), 0.0), (1.3, 0.4)])
def test_analytic_ntk_equals_independent_recursion(depth, stds):
    """Catches a layer too many, the bias counted twice, or the readout given weight_std."""
    x = points(5, 3)
    s, b = stds
    got = kernels.analytic_ntk(x, hidden_layers=depth, weight_std=s, bias_std=b)
    # The reference uses arccos: 1e-8 on the diagonal is its own error.
    off = ~np.eye(5, dtype=bool)
    expected = orthant_recursion(x, depth, s, b)
    np.testing.assert_allclose(got[off], expected[off], rtol=1e-11)
    np.testing.assert_allclose(np.diag(got), np.diag(expected), rtol=1e-7)


def test_analytic_ntk_of_one_hidden_layer_is_the_known_closed_form():
    """Catches the readout's own gradient left out, and 1/d misplaced."""
    x = points(6, 5)
    theta = kernels.angles(x)
    gram = x @ x.T / 5
    outer = np.sqrt(np.outer(np.diag(gram), np.diag(gram)))
    readout = outer * (np.sin(theta) + (np.pi - theta) * np.cos(theta)) / (2 * np.pi)
    expected = readout + gram * (np.pi - theta) / (2 * np.pi)
    np.testing.assert_allclose(kernels.analytic_ntk(x), expected, rtol=1e-13)
    np.testing.assert_allclose(np.diag(kernels.analytic_ntk(x)), np.diag(gram), rtol=1e-13)


def test_analytic_ntk_of_he_weights_has_diagonal_depth_plus_one_halves():
    """With s^2 = 2, b = 0 each layer adds |x|^2/d. Catches drift in depth."""
    x = points(4, 7)
    square = (x**2).sum(axis=1) / 7
    for depth in (1, 2, 5, 50):
        got = np.diag(kernels.analytic_ntk(x, hidden_layers=depth, weight_std=np.sqrt(2.0)))
        np.testing.assert_allclose(got, square * (depth + 1), rtol=1e-12)


def test_empirical_kernel_of_wide_network_approaches_analytic_ntk():
    """Catches a parameterisation other than the documented one; two hidden layers with biases, width 3000."""
    rng = np.random.default_rng(5)
    n, d, m, s, b = 3, 4, 3000, 1.2, 0.3
    x = points(n, d)
    estimates = []
    for _ in range(6):
        w1, w2, w3 = rng.standard_normal((m, d)), rng.standard_normal((m, m)), rng.standard_normal(m)
        z1 = s / np.sqrt(d) * x @ w1.T + b * rng.standard_normal(m)
        h1 = np.maximum(z1, 0)
        z2 = s / np.sqrt(m) * h1 @ w2.T + b * rng.standard_normal(m)
        h2 = np.maximum(z2, 0)
        d2 = w3 / np.sqrt(m) * (z2 > 0)
        d1 = s / np.sqrt(m) * d2 @ w2 * (z1 > 0)
        kernel = h2 @ h2.T / m + (d2 @ d2.T) * (s**2 / m * h1 @ h1.T + b**2)
        estimates.append(kernel + (d1 @ d1.T) * (s**2 / d * x @ x.T + b**2))
    mean, spread = np.mean(estimates, axis=0), np.std(estimates, axis=0, ddof=1) / np.sqrt(6)
    exact = kernels.analytic_ntk(x, hidden_layers=2, weight_std=s, bias_std=b)
    # Six standard errors, plus the O(1/m) bias of finite width.
    assert (np.abs(mean - exact) <= 6 * spread + 5 * np.abs(exact) / m).all()


def test_deep_kernel_of_duplicates_keeps_exact_rank():
    """Catches cosines carried from layer to layer: their rounding splits duplicates at depth."""
    x = np.repeat(points(5, 4), 3, axis=0)
    for bias in (0.0, 0.5):
        ntk = kernels.analytic_ntk(x, hidden_layers=4, bias_std=bias)
        assert np.linalg.matrix_rank(ntk, hermitian=True) == 5
        assert np.linalg.eigvalsh(ntk)[0] >= -1e-13 * ntk.max()


class FakeTensor:
    """What a torch tensor looks like to a module that must not import torch."""

    def __init__(self, value):
        self.value = value

    def detach(self):
        return self

    def cpu(self):
        return self

    def numpy(self):
        return self.value


def test_tensors_are_accepted_by_their_shape_of_interface():
    """Catches an import of torch, or a tensor on a device passed to numpy as it is."""
    x = points(3).astype(np.float32)
    np.testing.assert_array_equal(kernels.analytic_ntk(FakeTensor(x)), kernels.analytic_ntk(x))
    assert kernels.analytic_ntk(FakeTensor(x)).dtype == np.float64


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        ({"hidden_layers": 0}, "hidden_layers"),
        ({"hidden_layers": 1.5}, "hidden_layers"),
        ({"hidden_layers": True}, "hidden_layers"),
        ({"weight_std": 0.0}, "weight_std"),
        ({"weight_std": -1.0}, "weight_std"),
        ({"bias_std": -0.1}, "bias_std"),
        ({"bias_std": float("nan")}, "bias_std"),
    ],
)
def test_bad_settings_are_named(arguments, culprit):
    """Catches a bad setting that flows on into a plausible kernel."""
    with pytest.raises(ValueError, match=f"^{culprit}"):
        kernels.analytic_ntk(points(2), **arguments)


@pytest.mark.parametrize(
    "x", [np.zeros(3), np.zeros((2, 2, 2)), np.array([[np.nan, 1.0]]), [["a"]], np.zeros((2, 0))]
)
def test_bad_inputs_are_named(x):
    """Catches images passed without flattening, and NaN that would spread over the kernel."""
    with pytest.raises(ValueError, match="^x"):
        kernels.analytic_ntk(x)


def test_unknown_activation_is_named():
    """Catches a typo that falls through to another activation."""
    with pytest.raises(ValueError, match="activation: expected one of relu"):
        kernels.mntk(points(2), "sigmoid")
    with pytest.raises(ValueError, match="tol: expected at least 1e-14"):
        kernels.mntk(points(2), "tanh", tol=1e-16)
