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


def test_best_cutoff_finds_the_planted_gap():
    """Catches argmax, or a minimiser off by one: all labels lie on three strong modes."""
    lam = np.concatenate([[50.0, 45.0, 40.0], np.full(20, 0.1)])
    coef = np.concatenate([[1.0, 1.0, 1.0], np.zeros(20)]) * 10
    curves = theory.tradeoff(lam, coef, 300, 1.0)
    assert theory.best_cutoff(curves) == 40.0


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
    assert theory.width_random(0.5, 100, 2.0, 0.1, 0.5) == pytest.approx(
        1.2e8 * theory.width_condition(0.5, 100, 2.0) / 0.05**4
    )
    assert theory.width_given(0.5, 2.0, 0.1, nu=0.5, c_r=2.0) == pytest.approx(25600 * 4 * 4096 / 0.05**2)


def test_generalization_bounds_have_the_parts_of_their_theorems():
    """Catches a constant of Thm 6.21 or 6.24 mistyped; each part by hand."""
    given = theory.generalization_bound_given(3.0, 2.0, 400, 0.5, 1.0, zeta=0.1, delta=0.05, nu=2.0, c_r=1.5)
    assert given.bias == pytest.approx(0.2)
    assert given.variance == pytest.approx(12 * 2 * (3 + 4) / 20)
    assert given.confidence == pytest.approx(5 * np.sqrt(np.log(40) / 400))
    assert given.unfinished == pytest.approx(3 * (np.exp(-1) + 0.1))
    assert given.total == pytest.approx(given.bias + given.variance + given.confidence + given.unfinished)
    random = theory.generalization_bound_random(3.0, 2.0, 400, 4, 0.5, 1.0, zeta=0.1, delta=0.05)
    assert random.variance == pytest.approx(12 * 2 * (3 + 4) / 20)
    # a (n |X|^2)^(1/4) = alpha_0/(B sqrt K) whatever |X|
    assert random.unfinished == pytest.approx(12 * (1 + 1.0 / (0.5 / 2)) * 0.1 + 2 * np.exp(-1))
    with pytest.raises(ValueError, match="delta"):
        theory.generalization_bound_given(1, 1, 10, 1, 1, zeta=0.1, delta=0.0)


def test_a_better_aligned_jacobian_gives_a_better_bound():
    """The lesson of J9. Catches bias and variance moving the wrong way with alignment."""

    def bound(share):
        n = 1000
        nuisance = np.sqrt(n * (1 - share**2))
        information = np.sqrt(n) * share / 20
        return theory.generalization_bound_given(
            information, nuisance, n, 15.0, 2.0, zeta=0.01, delta=0.1
        ).total

    assert bound(0.99) < bound(0.7) < bound(0.3)


def test_training_loss_bound_by_hand():
    """Catches e^Gamma, and sqrt(n) on the wrong term."""
    assert theory.training_loss_bound(2.0, 100, np.log(10.0)) == pytest.approx(3.0)
