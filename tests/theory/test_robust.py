"""Robust linear separation: closed forms against searches over the perturbations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.theory import robust


def problem(n=8, d=5, seed=0, unit=False):
    """A data set that w separates."""
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal((n, d)), rng.standard_normal(d)
    if unit:
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    return w, x, np.where(x @ w > 0, 1.0, -1.0), rng


def ball(rng, radius, shape):
    """Random perturbations on the sphere of this radius."""
    drawn = rng.standard_normal(shape)
    return radius * drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)


def test_the_robust_radius_is_where_a_decision_changes():
    """|x| left out."""
    w, x, y, rng = problem(d=3)
    rho = robust.robust_radius(w, x, y)
    assert rho > 0

    def wrong(radius):
        dw = ball(rng, radius * np.linalg.norm(w), (40_000, 3))
        return ((y * (x @ w))[:, None] + y[:, None] * (x @ dw.T) < 0).any()

    assert not wrong(rho * (1 - 1e-9)) and wrong(rho * 1.05)


def test_for_unit_inputs_the_radius_is_the_margin():
    """(37): the approximation |x| = 1 made where it is not true."""
    w, x, y, _ = problem(unit=True)
    assert robust.robust_radius(w, x, y) == pytest.approx(robust.margin(w, x, y), rel=1e-14)
    assert robust.margin(3 * w, x, y) == pytest.approx(robust.margin(w, x, y), rel=1e-14)
    w, x, y, _ = problem()
    assert robust.robust_radius(w, x, y) != pytest.approx(robust.margin(w, x, y), rel=1e-2)
    assert robust.margin(w, x, -y) < 0


def test_the_margin_is_the_distance_to_the_boundary():
    """The functional margin, not divided by |w|; the largest instead of the least."""
    w, x, y, _ = problem()
    nearest = [np.linalg.norm(one - (one - w * (one @ w) / (w @ w))) for one in x]
    assert abs(robust.margin(w, x, y)) == pytest.approx(min(nearest))


def test_the_robust_hinge_is_the_worst_hinge():
    """(40): the penalty outside, its sign, |x|."""
    w, x, y, rng = problem(d=3)
    rho = 0.4
    dw = ball(rng, rho * np.linalg.norm(w), (40_000, 3))
    worst = np.maximum(1 - y[:, None] * (x @ (w[:, None] + dw.T)), 0).max(axis=1).mean()
    found = robust.robust_hinge(w, x, y, rho)
    assert worst <= found * (1 + 1e-12) and worst > 0.99 * found
    assert robust.robust_hinge(w, x, y, 0.0) == pytest.approx(robust.regularized_hinge(w, x, y, 0.0))


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), rho=st.floats(0, 10), scale=st.floats(1e-3, 1e3))
def test_the_robust_hinge_is_at_most_the_regularized_one(seed, rho, scale):
    """(41), for separators right and wrong."""
    w, x, y, rng = problem(seed=seed)
    y = rng.choice([-1.0, 1.0], len(y))
    low = robust.robust_hinge(scale * w, x, y, rho)
    high = robust.regularized_hinge(scale * w, x, y, rho)
    assert low <= high * (1 + 1e-12)
    if (y * (scale * x @ w) <= 1).all():
        assert low == pytest.approx(high, rel=1e-12)


def test_both_sides_of_eq_41_differ_where_samples_lie_beyond_the_margin():
    """An inequality that is always an equality."""
    w, x, y, _ = problem()
    assert robust.robust_hinge(20 * w, x, y, 0.01) < 0.9 * robust.regularized_hinge(20 * w, x, y, 0.01)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), rho=st.floats(0, 3))
def test_no_perturbation_is_worse_than_the_corrected_eq_42(seed, rho):
    """The cross term lost, as printed; a worst case that is not reached."""
    w, x, _, rng = problem(seed=seed)
    y = rng.standard_normal(len(x))
    worst = robust.robust_square(w, x, y, rho)
    dw = ball(rng, rho * np.linalg.norm(w), (500, len(w)))
    assert ((y[:, None] - x @ (w + dw).T) ** 2 <= worst[:, None] * (1 + 1e-9) + 1e-12).all()
    # All of it along the sample, on the side of its residual.
    side = np.where(y - x @ w >= 0, -1.0, 1.0)[:, None]
    own = rho * np.linalg.norm(w) * side * x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(np.linalg.norm(own, axis=1), rho * np.linalg.norm(w), rtol=1e-12, atol=1e-200)
    np.testing.assert_allclose((y - ((w + own) * x).sum(axis=1)) ** 2, worst, rtol=1e-9)
    printed = robust.printed_square(w, x, y, rho)
    assert (printed <= worst * (1 + 1e-12)).all()
    if rho > 0.1:
        assert (printed < worst).any()


X, Y, W = np.eye(2), np.array([1.0, -1.0]), np.array([1.0, -1.0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: robust.margin(np.ones(3), X, Y), "^w: expected 2 weights"),
        (lambda: robust.margin(np.zeros(2), X, Y), "^w: is 0"),
        (lambda: robust.margin(W, X, np.array([0.0, 1.0])), "^y: expected labels -1 and 1"),
        (lambda: robust.margin(W, X, np.ones(3)), "^y: expected 2 labels"),
        (lambda: robust.robust_radius(W, np.array([[1.0, 0], [0, 0]]), Y), "^x: sample 1 is 0"),
        (lambda: robust.robust_hinge(W, X, Y, -0.1), "^rho"),
        (lambda: robust.regularized_hinge(W, X, Y, np.inf), "^rho"),
        (lambda: robust.robust_square(W, X, np.ones(3), 0.1), "^y"),
    ],
)
def test_bad_arguments_are_named(call, message):
    """A label 0, a separator 0: numbers that mean nothing."""
    with pytest.raises(ValueError, match=message):
        call()
