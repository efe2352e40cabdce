"""Theorems 3.1 and 3.2 of paper 5 beside what SGD on least squares does, exactly."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.theory import confusion_rates as rates


def problem(n, d, seed=0, unit=True):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    if unit:
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x, rng.standard_normal(n)


def enumerated(x, y, w, alpha, steps):
    """E F, E of the mean inner product over i != j, E |grad F|^2 before each step, over all n^t sequences."""
    n, points, found = len(x), [w], []
    for _ in range(steps + 1):
        sums = np.zeros(3)
        for point in points:
            g = (x @ point - y)[:, None] * x
            inner = [g[i] @ g[j] for i in range(n) for j in range(n) if i != j]
            sums += ((x @ point - y) ** 2).mean() / 2, np.mean(inner), (g.mean(0) ** 2).sum()
        found.append(sums / len(points))
        points = [p - alpha * (x[k] @ p - y[k]) * x[k] for p, k in product(points, range(n))]
    return np.transpose(found)


@pytest.mark.parametrize(("n", "d"), [(3, 2), (3, 5), (2, 2), (4, 1)])
@pytest.mark.parametrize("unit", [True, False])
def test_exact_moments_are_those_of_all_sequences(n, d, unit):
    """Catches a factor 1/n, the diagonal in the mean inner product, cross terms with what is out of reach."""
    x, y = problem(n, d, seed=n + d, unit=unit)
    w = np.linspace(-1, 1, d)
    found = rates.exact_moments(x @ x.T, x @ w - y, 0.3, 4)
    expected = enumerated(x, y, w, 0.3, 4)
    np.testing.assert_allclose(
        [found.loss, found.mean_inner, found.gradient], expected, rtol=1e-10, atol=1e-14
    )


def test_exact_moments_take_several_data_sets_at_once():
    """Catches a stack in which one data set's rank or start is used for all."""
    parts = [problem(5, d, seed=d) for d in (2, 4, 7)]
    grams, starts = np.stack([x @ x.T for x, _ in parts]), np.stack([-y for _, y in parts])
    together = rates.exact_moments(grams, starts, 0.2, 30)
    for place in range(3):
        alone = rates.exact_moments(grams[place], starts[place], 0.2, 30)
        for name in ("loss", "mean_inner", "gradient"):
            np.testing.assert_allclose(
                getattr(together, name)[place], getattr(alone, name), rtol=1e-8, atol=1e-12
            )


@pytest.mark.parametrize("alpha", [0.05, 0.3, 1.0])
def test_exact_floor_is_where_the_moments_end(alpha):
    """Catches a fixed point of another map, or the loss of the best fit counted."""
    x, y = problem(6, 2, seed=2, unit=False)
    x /= np.linalg.norm(x, axis=1).max()
    rest = x @ np.linalg.lstsq(x, y, rcond=None)[0] - y
    floor = rates.exact_floor(x @ x.T, -y, alpha)
    end = rates.exact_moments(x @ x.T, -y, alpha, int(1500 / alpha)).loss[-1] - (rest**2).mean() / 2
    assert floor == pytest.approx(end, rel=1e-6) and floor > 0


def test_past_the_edge_of_stability_moments_grow_without_a_warning():
    """Catches an edge of the floor that is not the edge of the moments, and an overflow that is reported."""
    x, y = problem(6, 3, seed=5)
    edge = next(a for a in np.arange(1.0, 6, 0.05) if not settles(x, y, a))
    growth = [rates.exact_moments(x @ x.T, -y, a, 4000).loss for a in (edge - 0.1, edge + 0.1)]
    assert growth[0][-1] < 1e3 * growth[0][0] and growth[1][-1] > 1e6 * growth[1][0]
    assert not np.isfinite(rates.exact_moments(x @ x.T, -y, 9.0, 4000).loss[-1])


def settles(x, y, alpha):
    try:
        return rates.exact_floor(x @ x.T, -y, alpha) > 0
    except ValueError:
        return False


def test_exact_floor_vanishes_with_the_step_and_where_labels_are_within_reach():
    """Catches a floor like the theorem's; and a step at which there is none."""
    x, y = problem(8, 4, seed=3)
    small = [rates.exact_floor(x @ x.T, -y, alpha) for alpha in (1e-4, 2e-4)]
    assert small[1] / small[0] == pytest.approx(2, rel=1e-3)
    x, y = problem(4, 8, seed=3)
    assert rates.exact_floor(x @ x.T, -y, 0.1) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match=r"^alpha: SGD does not settle with 3\.0"):
        rates.exact_floor(x @ x.T, -y, 3.0)


@given(
    st.integers(2, 9), st.integers(1, 9), st.floats(0.02, 1.98), st.booleans(), st.integers(0, 10_000)
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_theorem_3_1_holds_with_the_mean_pair(n, d, multiple, unit, seed):
    """Catches a rho or a mean confusion with which the exact expectation of SGD exceeds the bound."""
    x, y = problem(n, d, seed, unit)
    L, mu = ((x**2).sum(1).max(), (x**2).sum(1).min())
    alpha = multiple / (n * L)
    best = ((x @ np.linalg.lstsq(x, y, rcond=None)[0] - y) ** 2).mean() / 2
    moments = rates.exact_moments(x @ x.T, -y, alpha, 60)
    gap = moments.loss - best
    etas = rates.average_confusion(moments.mean_inner, n)
    bound = rates.sgd_bound(max(gap[0], 0.0), etas[:-1], L, mu, n, alpha)
    assert (gap <= bound + 1e-9 * (1 + abs(bound))).all()
    count = np.arange(1, 62)
    running = np.cumsum(etas) / count
    stationary = rates.stationary_bound(max(gap[0], 0.0), running, L, n, alpha, count)
    least = np.minimum.accumulate(moments.gradient)
    assert (least <= stationary + 1e-9 * (1 + abs(stationary))).all()


def test_theorem_3_1_is_false_without_confusion():
    """Catches a test above that no bound could fail."""
    x, y = problem(10, 5, 1)
    best = ((x @ np.linalg.lstsq(x, y, rcond=None)[0] - y) ** 2).mean() / 2
    gap = rates.exact_moments(x @ x.T, -y, 0.1, 1000).loss - best
    bound = rates.sgd_bound(gap[0], np.zeros(1000), 1.0, 1.0, 10, 0.1)
    assert gap[-1] > 10 * bound[-1]


def test_the_average_over_all_pairs_would_be_false():
    """The paper's remark below Def. 2.1: with i = j counted the mean is |grad F|^2, so eta is 0 always."""
    x, y = problem(7, 3, 4)
    g = (x @ np.ones(3) - y)[:, None] * x
    every = (g @ g.T).mean()
    assert every == pytest.approx((g.mean(0) ** 2).sum()) and every >= 0
    apart = ((g @ g.T).sum() - (g**2).sum()) / 42
    eta = rates.average_confusion(apart, 7)
    assert eta == pytest.approx((g**2).sum() / 49 - every)  # mean |g|^2 / n - |grad F|^2
    assert eta <= -((g @ g.T) + 1e9 * np.eye(7)).min()


@given(st.floats(0.01, 1.99), st.integers(1, 50), st.floats(0, 5), st.floats(0, 5))
def test_recursion_and_closed_form(multiple, n, gap0, eta):
    """Catches rho**t against rho*t, and a floor that is not the limit of the recursion."""
    L, mu = 2.0, 0.7
    alpha = multiple / (n * L)
    path = rates.sgd_bound(gap0, np.full(40, eta), L, mu, n, alpha)
    rho = 1 - 2 * mu / n * (alpha - n * L * alpha**2 / 2)
    t = np.arange(41)
    exact = rho**t * gap0 + alpha * eta * (1 - rho**t) / (1 - rho)
    np.testing.assert_allclose(path, exact, rtol=1e-9, atol=1e-12)


def test_recursion_cases_by_hand():
    """Catches the worst eta used for all steps, and an order of the path that is turned around."""
    found = rates.sgd_bound(1.0, [0.2, 0.0], 1.0, 1.0, 2, 0.5)
    np.testing.assert_allclose(found, [1, 0.85, 0.6375], rtol=1e-14)
    assert rates.sgd_bound(1.5, [], 1.0, 1.0, 2, 0.5).tolist() == [1.5]
    many = rates.sgd_bound(np.array([1.0, 2.0]), [[0.2, 0.0], [0.0, 0.2]], 1.0, 1.0, 2, 0.5)
    np.testing.assert_allclose(many, [[1, 0.85, 0.6375], [2, 1.5, 1.225]], rtol=1e-14)


def test_the_floor_does_not_vanish():
    """Catches a floor proportional to alpha: it tends to n eta/(2 mu); half of 1/(nL) leaves 2/3 of it."""
    assert rates.sgd_floor(0.3, 1.0, 0.5, 10, 0.0) == pytest.approx(3.0)
    assert rates.sgd_floor(0.3, 1.0, 0.5, 10, 1e-9) == pytest.approx(3.0)
    assert rates.sgd_floor(1, 1, 1, 100, 0.005) / rates.sgd_floor(1, 1, 1, 100, 0.01) == pytest.approx(2 / 3)
    long = rates.sgd_bound(5.0, np.full(20_000, 0.3), 1.0, 0.5, 10, 0.1)[-1]
    assert long == pytest.approx(rates.sgd_floor(0.3, 1.0, 0.5, 10, 0.1), rel=1e-9)


def test_orthogonal_data_decay_exactly():
    """Catches Thm 3.1's rate in place of the exact one."""
    y = np.array([1.0, -2, 0.5, 3])
    moments = rates.exact_moments(np.eye(4), -y, 0.2, 50)
    exact = rates.orthogonal_loss((y**2).mean() / 2, 4, 0.2, np.arange(51))
    np.testing.assert_allclose(moments.loss, exact, rtol=1e-11)
    np.testing.assert_allclose(moments.mean_inner, 0, atol=1e-14)
    bound = rates.sgd_bound(exact[0], np.zeros(50), 1.0, 1.0, 4, 0.2)
    assert (exact <= bound).all() and exact[-1] < 0.5 * bound[-1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: rates.sgd_bound(1, [0.1], 1, 1, 2, 1.0),
            r"^alpha: expected a step below 2/\(n L\) = 1, got 1.0",
        ),
        (lambda: rates.sgd_bound(1, [0.1], 1, 1, 2, 0.0), "^alpha: expected a finite number > 0"),
        (lambda: rates.sgd_bound(-1, [0.1], 1, 1, 2, 0.5), "^gap0: expected values >= 0"),
        (lambda: rates.sgd_bound(1, [[0.1]], 1, 1, 2, 0.5), "^gap0: expected"),
        (lambda: rates.sgd_bound(1, [np.nan], 1, 1, 2, 0.5), "^etas: contains NaN"),
        (lambda: rates.contraction(1, 2, 2, 0.5), "^mu: expected at most L = 1"),
        (lambda: rates.contraction(1, 1, 0, 0.5), "^n: expected an integer >= 1"),
        (lambda: rates.stationary_bound(1, 0.1, 1, 2, 1.5, [1]), "^alpha: expected a step below"),
        (lambda: rates.stationary_bound(1, 0.1, 1, 2, 0.5, [0]), "^steps: expected at least 1 iterate"),
        (lambda: rates.sgd_floor(-1, 1, 1, 2, 0.5), "^eta: expected a finite number >= 0"),
        (lambda: rates.exact_moments(np.eye(3), [1, 2], 0.1, 2), r"^residuals: expected shape \(3,\)"),
        (lambda: rates.exact_moments([[0, 1], [0, 0]], [1, 2], 0.1, 2), "^gram: expected a symmetric"),
        (lambda: rates.exact_moments(-np.eye(2), [1, 2], 0.1, 2), "^gram: has a negative eigenvalue"),
        (lambda: rates.average_confusion(0.1, 1), "^n: expected an integer >= 2"),
    ],
)
def test_rates_name_what_is_wrong(call, message):
    """Catches a step out of range that gives a number."""
    with pytest.raises(ValueError, match=message):
        call()
