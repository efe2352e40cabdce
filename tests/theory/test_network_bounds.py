"""Appendix B: the bound on the joint Jacobian, true on random networks and reached where its erratum lies."""

from __future__ import annotations

import numpy as np
import pytest

from labkit.theory import jacobian as theory

N, D, WIDTH, OUTPUTS = 6, 5, 8, 3


def joint_norm(x, w, v):
    """|J(V, W)| of the softplus network, from JJ^T, a sum over both layers."""
    features, slopes = np.logaddexp(0, x @ w.T), 1 / (1 + np.exp(-x @ w.T))
    outer = np.kron(features @ features.T, np.eye(OUTPUTS))
    back = (slopes[:, None, :] * v).reshape(N * OUTPUTS, WIDTH)
    inner = (back @ back.T) * np.kron(x @ x.T, np.ones((OUTPUTS, OUTPUTS)))
    return float(np.sqrt(np.linalg.norm(inner + outer, 2)))


def bound(x, w, v, **phi0):
    return theory.joint_jacobian_bound(
        1.0, OUTPUTS, WIDTH, np.abs(v).max(), np.linalg.norm(w), np.linalg.norm(x, 2), **phi0
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_bound_of_theorem_b1_holds(seed):
    """Catches a norm for another, and a missing root of K k."""
    rng = np.random.default_rng(seed)
    x, w, v = (rng.standard_normal(shape) for shape in ((N, D), (WIDTH, D), (OUTPUTS, WIDTH)))
    assert (
        0.05 * bound(x, w, v, phi0=np.log(2), n=N) < joint_norm(x, w, v) < bound(x, w, v, phi0=np.log(2), n=N)
    )


def test_without_phi0_it_is_false_for_softplus():
    """The erratum: at W = 0, V = 0 the printed bound is 0 and the Jacobian is not."""
    x, w, v = np.eye(N, D), np.zeros((WIDTH, D)), np.zeros((OUTPUTS, WIDTH))
    assert bound(x, w, v) == 0.0
    assert joint_norm(x, w, v) == pytest.approx(bound(x, w, v, phi0=np.log(2), n=N))
    with pytest.raises(ValueError, match="^n: with phi0"):
        theory.joint_jacobian_bound(1.0, 1, 1, 1.0, 1.0, 1.0, phi0=0.7)
