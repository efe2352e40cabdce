"""The trade-off of Theorem 2.2 and the bounds behind it: values by hand, limits, orderings."""

from __future__ import annotations

import numpy as np
import pytest

from labkit.theory import jacobian as theory


def test_tradeoff_terms_are_those_of_theorem_2_2_at_every_cutoff():
    """Catches the bias of one rank beside the variance of the next, and K lost from the cutoff."""
    lam, coef, n, outputs, gamma = np.array([3.0, 2.0, 2.0, 0.5, 0.0]), np.arange(1.0, 6.0), 20, 4, 1.5
    curves = theory.tradeoff(lam, coef, n, gamma, outputs=outputs)
    assert curves.cutoff.tolist() == [3.0, 2.0, 0.5]
    assert curves.rank.tolist() == [1, 3, 4]
    for index, (cutoff, rank) in enumerate(zip(curves.cutoff, curves.rank, strict=True)):
        alpha = cutoff / np.sqrt(n * outputs)
        assert curves.alpha[index] == pytest.approx(alpha)
        assert curves.bias[index] == pytest.approx(np.linalg.norm(coef[rank:]) / np.sqrt(n))
        assert curves.variance[index] == pytest.approx(gamma / (alpha * np.sqrt(n)))
    assert np.allclose(curves.total, curves.bias + np.exp(-gamma) + curves.variance)


def test_bias_falls_and_variance_rises_as_the_cutoff_falls():
    """Catches a reversed order of cutoffs: the picture would show the opposite of the theorem."""
    rng = np.random.default_rng(0)
    lam = np.sort(rng.uniform(0.1, 9, 30))[::-1]
    curves = theory.tradeoff(lam, rng.standard_normal(30), 30, 2.0, start="given", outside=0.5)
    assert (np.diff(curves.bias) <= 0).all() and (np.diff(curves.variance) > 0).all()
    assert curves.bias[-1] == pytest.approx(0.5 / np.sqrt(30))


def test_cutoffs_given_by_hand_are_sorted_and_checked():
    """Catches a zero cutoff, where the variance is infinite."""
    curves = theory.tradeoff([2.0, 1.0], [1.0, 1.0], 2, 1.0, cutoffs=[0.5, 1.5])
    assert curves.rank.tolist() == [1, 2]
    with pytest.raises(ValueError, match="cutoffs"):
        theory.tradeoff([2.0, 1.0], [1.0, 1.0], 2, 1.0, cutoffs=[0.0])
    with pytest.raises(ValueError, match="start: expected 'random'"):
        theory.tradeoff([2.0], [1.0], 2, 1.0, start="warm")


def test_relative_cutoff_of_the_full_theorem_reduces_to_the_simple_one():
    """At |X| = sqrt(n) both conventions agree; below it the full one gives a larger relative cutoff."""
    simple = theory.relative_cutoff(3.0, 50, 10)
    assert simple == pytest.approx(3.0 / np.sqrt(500))
    assert theory.relative_cutoff(3.0, 50, 10, x_norm=np.sqrt(50)) == pytest.approx(simple)
    assert theory.relative_cutoff(3.0, 50, 10, x_norm=2.0) > simple
    assert theory.relative_cutoff(3.0, 50, 10, start="given") == pytest.approx(3.0 / np.sqrt(50))


def test_width_conditions_scale_as_stated():
    """Catches a power: alpha^-8, Gamma^4, log n for the random start only, (Kn/lambda)^4 at full rank."""
    assert theory.width_condition(0.5, 100, 2.0) == pytest.approx(16 * 256 * np.log(100))
    assert theory.width_condition(0.5, 100, 2.0, start="given") == pytest.approx(16 * 256)
    assert theory.full_rank_width(30, 3, 0.2, 2.0) == pytest.approx(16 * (90 / 0.2) ** 4 * np.log(30))
