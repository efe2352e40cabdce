"""Section 5.1: closed form against gradient descent, the risk against fresh samples."""

from __future__ import annotations

import numpy as np
import pytest

from labkit.theory import linear_model


def low_rank(n=40, d=70, r=3, sigma_x=0.2, sigma_y=2.0, seed=0):
    rng = np.random.default_rng(seed)
    u, v = (np.linalg.qr(rng.standard_normal((size, r)))[0] for size in (n, d))
    clean = u @ v.T
    w_star = v @ np.ones(r)
    x = clean + sigma_x / np.sqrt(n) * rng.standard_normal((n, d))
    y = clean @ w_star + sigma_y / np.sqrt(n) * rng.standard_normal(n)
    return x, y, clean, clean @ w_star, u


@pytest.mark.parametrize("shape", [(20, 35), (35, 20)], ids=["n<d", "n>d"])
def test_closed_form_equals_gradient_descent(shape):
    """Catches the null-space part of w_0 moved, and steps sorted."""
    rng = np.random.default_rng(1)
    x, y, w0 = rng.standard_normal(shape), rng.standard_normal(shape[0]), rng.standard_normal(shape[1])
    lr, steps = 0.7 / np.linalg.norm(x, 2) ** 2, [200, 0, 7]
    w, path = w0.copy(), {}
    for tau in range(201):
        path[tau] = w.copy()
        w = w - lr * x.T @ (x @ w - y)
    expected = np.array([path[tau] for tau in steps])
    np.testing.assert_allclose(linear_model.gd_iterates(x, y, lr, steps, w0), expected, atol=1e-12)


def test_closed_form_ends_at_the_minimum_norm_solution():
    """Catches small singular values that are divided by when they should be left alone."""
    x, y, *_ = low_rank(sigma_x=0.0)
    lr = 0.5 / np.linalg.norm(x, 2) ** 2
    limit = linear_model.min_norm_limit(x, y)
    np.testing.assert_allclose(linear_model.gd_iterates(x, y, lr, 10**8)[0], limit, atol=1e-10)
    w0 = np.random.default_rng(2).standard_normal(x.shape[1])
    np.testing.assert_allclose(
        linear_model.gd_iterates(x, y, lr, 10**8, w0)[0], linear_model.min_norm_limit(x, y, w0), atol=1e-10
    )


def test_with_a_diagonal_in_front_of_the_gradient_the_limit_is_that_of_another_length():
    """Catches P in place of its root, and a limit that forgets the start."""
    rng = np.random.default_rng(4)
    x, y, w0, p = (rng.standard_normal(shape) for shape in ((4, 9), 4, 9, 9))
    p = np.exp(p)
    found = linear_model.min_norm_limit(x, y, w0, p)
    expected = w0 + p * (x.T @ np.linalg.solve((x * p) @ x.T, y - x @ w0))
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    with pytest.raises(ValueError, match="positive"):
        linear_model.min_norm_limit(x, y, p=-p)


def test_population_risk_and_its_parts_agree_with_fresh_noise():
    """Catches sigma_x^2/n |w|^2 for sigma_x^2 |w|^2, and r/n on the wrong part. Six standard errors."""
    sigma_x, sigma_y, draws = 0.2, 2.0, 3000
    x, y, clean, y_clean, u = low_rank()
    n, d = x.shape
    rng = np.random.default_rng(3)
    w = linear_model.gd_iterates(x, y, 0.3, 6)[0]
    risk = linear_model.population_risk(w, clean, y_clean, sigma_x, sigma_y)
    samples = np.empty((draws, 3))
    for t in range(draws):
        fresh = clean + sigma_x / np.sqrt(n) * rng.standard_normal((n, d))
        misfit = fresh @ w - y_clean - sigma_y / np.sqrt(n) * rng.standard_normal(n)
        inside = 0.5 * np.sum((u.T @ misfit) ** 2)
        samples[t] = inside, 0.5 * misfit @ misfit - inside, 0.5 * misfit @ misfit
    error = samples.std(axis=0) / np.sqrt(draws)
    predicted = np.array([risk.information[0], risk.nuisance[0], risk.total[0]])
    assert (np.abs(samples.mean(axis=0) - predicted) <= 6 * error).all()


def test_risk_dips_as_in_figure_8():
    """The sheet's 4.5 -> 2.2 at step 5 or 6 -> 3.4; I falls fast, N rises throughout."""
    x, y, clean, y_clean, _ = low_rank(n=200, d=500, r=5, seed=4)
    steps = np.arange(0, 201)
    lr = 0.3
    risk = linear_model.population_risk(linear_model.gd_iterates(x, y, lr, steps), clean, y_clean, 0.2, 2.0)
    assert risk.total[0] == pytest.approx(4.5)
    best = int(np.argmin(risk.total))
    assert 0 < best < 20 and risk.total[best] < 2.6 and risk.total[-1] > risk.total[best] + 0.5
    assert (np.diff(risk.nuisance) > 0).all()
    assert risk.information[best] < 0.2 * risk.information[0]


def test_labels_with_noise_are_refused_as_clean_labels():
    """Catches noisy labels passed for clean ones: the split would be wrong, silently."""
    x, y, clean, _, _ = low_rank()
    with pytest.raises(ValueError, match="^y_clean"):
        linear_model.population_risk(np.zeros(x.shape[1]), clean, y, 0.2, 2.0)


@pytest.mark.parametrize(
    ("call", "culprit"),
    [
        (lambda: linear_model.gd_iterates(np.eye(2), np.ones(3), 0.1, 1), "y"),
        (lambda: linear_model.gd_iterates(np.eye(2), np.ones(2), 0.1, 1, np.ones(3)), "w0"),
        (lambda: linear_model.gd_iterates(np.eye(2), np.ones(2), -0.1, 1), "lr"),
        (lambda: linear_model.population_risk(np.ones(2), np.eye(2), np.ones(2), -1.0, 0.0), "sigma_x"),
    ],
)
def test_bad_arguments_are_named(call, culprit):
    """Catches shapes that broadcast into a plausible number."""
    with pytest.raises(ValueError, match=f"^{culprit}"):
        call()
