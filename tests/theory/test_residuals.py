"""The linearised model against explicit loops, and Lemmas 6.2, 6.5, Corollary 6.6 from both sides."""

from __future__ import annotations

from decimal import Decimal, getcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.theory import jacobian as theory

SHAPES = {"wide": (7, 12), "square": (6, 6), "tall": (9, 4)}


def problem(shape, seed=0):
    rng = np.random.default_rng(seed)
    m, p = shape
    return rng.standard_normal((m, p)), rng.standard_normal(m)


def loop(j, r0, lr, steps):
    """Gradient descent on 1/2 |r_0 + J t|^2, one step at a time."""
    theta, out = np.zeros(j.shape[1]), {}
    for tau in range(max(steps) + 1):
        residual = r0 + j @ theta
        out[tau] = residual
        theta = theta - lr * j.T @ residual
    return np.array([out[tau] for tau in steps])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("factor", [0.3, 1.0, 1.9])
def test_linearized_residual_equals_gradient_descent(shape, factor):
    """Catches a wrong sign for modes with 1 < lr lambda^2 < 2, p < nK, and steps returned in sorted order."""
    j, r0 = problem(shape)
    lr, steps = factor / np.linalg.norm(j, 2) ** 2, [40, 0, 3, 17, 3]
    expected = loop(j, r0, lr, steps)
    np.testing.assert_allclose(theory.linearized_residual(j @ j.T, r0, lr, steps), expected, atol=1e-12)
    u, s, _ = np.linalg.svd(j, full_matrices=False)


def test_a_step_size_of_exactly_one_over_lambda_squared_ends_a_mode_in_one_step():
    """Catches 0 * log 0 at step 0."""
    assert theory.linearized_residual([4.0], [3.0], 0.25, [0, 1, 2]).tolist() == [[3.0], [0.0], [0.0]]


def test_a_hundred_million_steps_equal_fifty_digit_arithmetic():
    """Catches (1 - lr lambda)^tau by a power of a rounded base: wrong by 1e-8 at 10^8 steps."""
    getcontext().prec = 50
    lam, steps = [1e-9, 3e-8, 1e-6, 1.9], 10**8
    exact = [float((1 - Decimal(x)) ** steps) for x in lam]
    np.testing.assert_allclose(theory.decay(lam, 1.0, steps)[0], exact, rtol=1e-14 * 100, atol=1e-300)
    np.testing.assert_allclose(theory.decay(lam, 1.0, steps)[0], exact, atol=1e-12)
    naive = (1.0 - np.array(lam)) ** steps
    assert np.abs(naive - exact).max() > 1e-10


def test_progress_keeps_its_digits_for_modes_that_hardly_move():
    """Catches 1 - decay, which has no digit left at lr lambda = 1e-18."""
    assert theory.progress([1e-18], 1.0, 3)[0, 0] == pytest.approx(3e-18, rel=1e-14)


def test_too_large_a_step_diverges_without_a_warning():
    """Catches an overflow warning, or NaN where gradient descent has infinity."""
    values = theory.linearized_residual([3.0, 1.0], [1.0, 1.0], 1.0, [0, 5, 10**6])
    assert values[1].tolist() == [pytest.approx(-32.0), 0.0]
    assert np.isinf(values[2, 0])


def test_several_residuals_at_once_equal_one_at_a_time():
    """Catches a transposed seed axis."""
    j, _ = problem((5, 8))
    r0 = np.random.default_rng(3).standard_normal((5, 3))
    together = theory.linearized_residual(j @ j.T, r0, 0.01, [0, 4])
    for b in range(3):
        np.testing.assert_allclose(
            together[:, :, b], theory.linearized_residual(j @ j.T, r0[:, b], 0.01, [0, 4]), atol=1e-14
        )
    assert theory.linearized_residual([1.0] * 5, r0, 0.1, [0, 4]).shape == (2, 5, 3)


def test_parts_are_the_projections_of_the_residual():
    """Catches I and N swapped, or a part outside a truncated SVD that is forgotten."""
    j, r0 = problem((6, 9))
    lr, steps, rank = 0.5 / np.linalg.norm(j, 2) ** 2, [0, 5, 50], 2
    u, s, _ = np.linalg.svd(j, full_matrices=False)
    residual = loop(j, r0, lr, steps)
    info = np.linalg.norm(residual @ u[:, :rank], axis=1)
    parts = theory.residual_parts(s, u.T @ r0, rank, lr, steps)
    np.testing.assert_allclose(parts.information, info, atol=1e-13)
    np.testing.assert_allclose(parts.total, np.linalg.norm(residual, axis=1), rtol=1e-12)
    np.testing.assert_allclose(parts.nuisance, np.sqrt(parts.total**2 - info**2), rtol=1e-10)
    cut = theory.residual_parts(s[:4], u[:, :4].T @ r0, rank, lr, [0], outside=np.linalg.norm(r0 @ u[:, 4:]))
    assert cut.total[0] == pytest.approx(np.linalg.norm(r0))


positive_floats = st.floats(1e-3, 1e3)


@settings(deadline=None, max_examples=150)
@given(
    lam=st.lists(positive_floats, min_size=1, max_size=8),
    coef=st.lists(st.floats(-1e3, 1e3), min_size=8, max_size=8),
    alpha=positive_floats,
    gamma=st.floats(1e-3, 1e3),
)
def test_early_stopping_value_obeys_lemma_6_2_for_any_cutoff_and_duration(lam, coef, alpha, gamma):
    """Catches alpha/lambda upside down, and the last inequality used below Gamma = 1."""
    lam = np.sort(lam)[::-1]
    coef = np.array(coef[: len(lam)])
    rank = int((lam >= alpha).sum())
    value = theory.early_stopping_value(lam, coef, rank, alpha, gamma)
    bounds = theory.early_stopping_bounds(lam, coef, rank, alpha, gamma)
    slack = 1 + 1e-12
    assert bounds.lower <= value * slack
    assert value <= bounds.upper * slack
    assert bounds.upper <= bounds.crude * slack


def test_lemma_6_2_is_tight_at_its_corners():
    """Catches a bound that is true because it is loose."""
    lam, alpha = [4.0, 1.0, 0.5], 1.0
    on_top = theory.early_stopping_bounds(lam, [3.0, 0, 0], 2, alpha, 2.0)
    assert theory.early_stopping_value(lam, [3.0, 0, 0], 2, alpha, 2.0) == pytest.approx(on_top.lower)
    at_cutoff = [0, 3.0, 0]
    assert theory.early_stopping_value(lam, at_cutoff, 2, alpha, 2.0) == pytest.approx(3.0)
    assert theory.early_stopping_bounds(lam, at_cutoff, 2, alpha, 2.0).upper == pytest.approx(3.0)
    just_below = theory.early_stopping_bounds([4.0, 0.999], [0, 3.0], 1, alpha, 2.0)
    assert theory.early_stopping_value([4.0, 0.999], [0, 3.0], 1, alpha, 2.0) > 0.99 * just_below.crude


def test_early_stopping_value_refuses_a_cutoff_that_does_not_separate_the_rank():
    """Catches a rank taken from another spectrum: (6.2) is then false."""
    with pytest.raises(ValueError, match="alpha: a cutoff of 3"):
        theory.early_stopping_value([4.0, 1.0], [1.0, 1.0], 2, 3.0, 1.0)


def test_fresh_loss_is_the_mean_loss_on_labels_drawn_anew():
    """Catches noise counted once for twice, and the constant that may be left out growing with the step."""
    rng, noise, m, draws = np.random.default_rng(5), 0.3, 40, 2000
    lam, signal, steps = np.linspace(2.0, 0.1, m), 3 * 0.8 ** np.arange(m), np.array([0, 1, 5, 30, 1000])
    kept = (1 - 0.2 * lam**2) ** steps[:, None]
    told, met = np.zeros(len(steps)), np.zeros(len(steps))
    for _ in range(draws):
        y, fresh = signal + np.sqrt(noise) * rng.standard_normal((2, m))
        told += theory.fresh_loss(lam, y, noise, 0.2, steps) / draws
        met += ((fresh - (1 - kept) * y) ** 2).sum(axis=1) / draws
    assert 0 < met.argmin() < 4
    # Some fifty labels of variance .3 and 2000 draws: a standard error of .1.
    np.testing.assert_allclose(told - told[0], met - met[0], atol=0.5)
    with pytest.raises(ValueError, match="^noise"):
        theory.fresh_loss(lam, signal, -1.0, 0.2, steps)


@pytest.mark.parametrize(
    ("call", "culprit"),
    [
        (lambda: theory.linearized_residual(np.ones((3, 2)), np.ones(3), 0.1, [1]), "gram"),
        (
            lambda: theory.linearized_residual(np.array([[0.0, 1.0], [0.0, 0.0]]), np.ones(2), 0.1, [1]),
            "gram",
        ),
        (lambda: theory.linearized_residual(-np.eye(2), np.ones(2), 0.1, [1]), "eigenvalues"),
        (lambda: theory.linearized_residual(np.eye(2), np.ones(3), 0.1, [1]), "r0"),
        (lambda: theory.linearized_residual(np.eye(2), np.ones(2), 0.0, [1]), "lr"),
        (lambda: theory.linearized_residual(np.eye(2), np.ones(2), 0.1, [-1]), "steps"),
        (lambda: theory.linearized_residual(np.eye(2), np.ones(2), 0.1, [1.5]), "steps"),
        (lambda: theory.residual_parts([1.0, 2.0], [1.0, 1.0], 1, 0.1, [1]), "singular_values"),
        (lambda: theory.residual_parts([2.0, 1.0], [1.0], 1, 0.1, [1]), "coefficients"),
        (lambda: theory.residual_parts([2.0, 1.0], [1.0, 1.0], 3, 0.1, [1]), "rank"),
    ],
)
def test_bad_arguments_are_named(call, culprit):
    """Catches J passed for J J^T, and an unsorted spectrum that would shuffle the information space."""
    with pytest.raises(ValueError, match=f"^{culprit}"):
        call()
