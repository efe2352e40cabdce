"""Theorem 5.3 on a map that is truly nearly linear, with all its constants known."""

from __future__ import annotations

import numpy as np
import pytest

from labkit.theory import jacobian as theory


class CurvedMap:
    """f(t) = A t + c B cos(t): Jacobian A - c B diag(sin t), Lipschitz with c |B|, at most |A| + c |B|."""

    def __init__(self, curvature, m=4, p=6, seed=0):
        rng = np.random.default_rng(seed)
        u, _ = np.linalg.qr(rng.standard_normal((m, m)))
        v, _ = np.linalg.qr(rng.standard_normal((p, m)))
        self.A = (u * np.array([1.0, 0.95, 0.9, 0.3])) @ v.T
        self.B = rng.standard_normal((m, p))
        self.B /= np.linalg.norm(self.B, 2)
        self.c, self.start = curvature, rng.standard_normal(p)
        # Labels chosen so that |r_0| = 1 with four fifths of its energy on the strong modes.
        r0 = u @ np.array([0.6, 0.5, np.sqrt(0.19), np.sqrt(0.2)])
        self.y = self.f(self.start) - r0

    def f(self, t):
        return self.A @ t + self.c * self.B @ np.cos(t)

    def jacobian(self, t):
        return self.A - self.c * self.B * np.sin(t)

    def descend(self, lr, steps):
        t, path = self.start.copy(), []
        for _ in range(steps + 1):
            r = self.f(t) - self.y
            path.append((r, t.copy()))
            t = t - lr * self.jacobian(t).T @ r
        return path


def measured(problem, gamma):
    """Constants of the theorem and both paths, with J(theta_0) as reference."""
    j = problem.jacobian(problem.start)
    beta = float(np.linalg.norm(problem.A, 2) + problem.c)
    lr, rank = 1.0 / beta**2, 3
    u, s, vt = np.linalg.svd(j, full_matrices=False)
    alpha = float(s[rank - 1])
    r0 = problem.f(problem.start) - problem.y
    coef = u.T @ r0
    norms = {
        "pinv_norm": float(np.linalg.norm(coef[:rank] / s[:rank])),
        "nuisance_norm": float(np.linalg.norm(coef[rank:])),
        "r0_norm": float(np.linalg.norm(r0)),
    }
    steps = int(gamma / (lr * alpha**2))
    path = problem.descend(lr, steps)
    eps = 2 * max(np.linalg.norm(problem.jacobian(t) - j, 2) for _, t in path)
    delta = theory.smallest_delta(alpha, beta, eps, 0.0, gamma)
    taus = np.arange(steps + 1)
    linear = theory.linearized_residual(j @ j.T, r0, lr, taus)
    information = float(np.linalg.norm(coef[:rank]))
    return locals()


CASES = [(1e-4, 1.0), (1e-4, 3.0), (5e-4, 1.0), (5e-4, 1.5)]


@pytest.mark.parametrize(("curvature", "gamma"), CASES)
def test_theorem_5_3_holds_wherever_its_conditions_do(curvature, gamma):
    """Catches a bound or condition of (5.13)-(5.16) that its own regime does not support."""
    problem = CurvedMap(curvature)
    m = measured(problem, gamma)
    assert 0 < m["delta"] <= 1
    a, b, d, norms = m["alpha"], m["beta"], m["delta"], m["norms"]
    r0 = norms["r0_norm"]
    for (r, t), linear in zip(m["path"], m["linear"], strict=True):
        assert np.linalg.norm(r - linear) <= theory.meta_theorem_bound(a, b, d, r0)
        distance = np.linalg.norm(t - problem.start)
        assert distance <= theory.distance_bound(**norms, alpha=a, Gamma=gamma, delta=d)
    duration = m["steps"] * m["lr"] * a**2
    assert duration <= gamma
    final = theory.final_residual_bound(m["information"], norms["nuisance_norm"], r0, a, b, duration, d)
    assert np.linalg.norm(m["path"][-1][0]) <= final


def test_residual_bound_of_5_14_is_within_a_factor_of_nine():
    """Tightness of (5.14): the same mode at Gamma = 1. Catches a bound loose by powers of a constant."""
    delta, lr = 0.1, 1e-3
    eps = delta / 5  # equality in (5.13) for alpha = beta = Gamma = 1
    taus = np.arange(1001)
    true = np.abs((1 - lr * (1 - eps / 2) ** 2) ** taus - (1 - lr) ** taus).max()
    bound = theory.meta_theorem_bound(1.0, 1.0, delta, 1.0)
    assert bound / 9 < true < bound


def test_final_bound_and_distance_bound_are_tight_on_a_linear_map():
    """Catches slack in (5.15), (5.16): with delta -> 0 and small steps both are equalities."""
    lam, lr, gamma = 1.0, 1e-5, 2.0
    steps = round(gamma / (lr * lam**2))
    final = abs(theory.linearized_residual([lam], [1.0], lr, steps)[0, 0])
    assert final == pytest.approx(theory.final_residual_bound(1.0, 0.0, 1.0, lam, lam, gamma, 0.0), rel=1e-4)
    late = theory.progress([lam], lr, 10**8)[0, 0]
    assert late == pytest.approx(theory.distance_bound(1.0, 0.0, 1.0, lam, gamma, 0.0), rel=1e-12)


def test_rounding_the_stopping_time_down_would_break_the_final_bound():
    """e^-Gamma belongs to T, not to the whole number of steps below it."""
    lr, gamma = 0.9, 1.5
    steps = int(gamma / lr)
    left = 1 - lr
    assert steps == 1 and left <= theory.final_residual_bound(1, 0, 1, 1, 1, lr, 0)
    slow = (1 - 0.3) ** int(1.0 / 0.3 / 1.2)
    assert slow > theory.final_residual_bound(1, 0, 1, 1, 1, 1.0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_smallest_delta_sits_on_the_edge_of_the_regime(seed):
    """Catches a condition forgotten, or solved for delta wrongly."""
    rng = np.random.default_rng(seed)
    alpha = rng.uniform(0.1, 1.0)
    beta, eps, eps0, gamma = alpha + rng.uniform(0, 1), *rng.uniform(1e-4, 1e-2, 2), rng.uniform(1, 5)
    delta = theory.smallest_delta(alpha, beta, eps, eps0, gamma)

    def inside(d):
        reference = min(d * alpha, np.sqrt(d * alpha**3 / (gamma * beta))) / 5
        return eps0 <= reference and eps <= d * alpha**3 / (5 * gamma * beta**2)

    assert inside(delta * (1 + 1e-9))
    assert not inside(delta * (1 - 1e-9))


def test_bounds_of_5_12_to_5_16_by_hand():
    """Catches a power of beta, which is near 1 wherever the theorem can be run."""
    assert theory.meta_theorem_bound(0.5, 2.0, 0.4, 3.0) == pytest.approx(0.18)
    assert theory.distance_bound(1.0, 2.0, 3.0, 0.5, 4.0, 0.1) == pytest.approx(1 + 16 + 2.4)
    assert theory.final_residual_bound(1.0, 2.0, 3.0, 0.5, 2.0, 0.0, 0.4) == pytest.approx(1 + 2 + 0.3)
