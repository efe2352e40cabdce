"""The exercises of notebook 4: solutions pass, the wrong answers that students give do not, labkit agrees."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import labkit
from labkit.models import OneHidden
from labkit.theory import jacobian as theory
from tests.notebooks.exercise_cells import ExerciseTests, exercises

# --- 4.1


def blocks(W: Tensor, V: Tensor, X: Tensor, dphi: Any) -> Tensor:
    return torch.einsum("lj,ij,im->iljm", V, dphi(X @ W.T), X)


def right_jacobian(W: Tensor, V: Tensor, X: Tensor, dphi: Any) -> Tensor:
    return blocks(W, V, X, dphi).reshape(len(X) * len(V), -1)


def class_major_rows(W, V, X, dphi):
    return blocks(W, V, X, dphi).transpose(0, 1).reshape(len(X) * len(V), -1)


def columns_transposed(W, V, X, dphi):
    return blocks(W, V, X, dphi).transpose(2, 3).reshape(len(X) * len(V), -1)


def dphi_ignored(W, V, X, dphi):
    return right_jacobian(W, V, X, torch.ones_like)


def dphi_of_the_weights(W, V, X, dphi):
    return torch.einsum("lj,jm,im->iljm", V, dphi(W), X).reshape(len(X) * len(V), -1)


def summed_over_samples(W, V, X, dphi):
    return blocks(W, V, X, dphi).sum(0).reshape(len(V), -1)


def inputs_scaled_in_place(W, V, X, dphi):
    J = right_jacobian(W, V, X, dphi)
    X *= 2
    return J


def single_precision(W, V, X, dphi):
    return right_jacobian(W, V, X, dphi).float()


# --- 4.2


def left_vectors(J: Tensor) -> Tensor:
    return torch.linalg.eigh(J @ J.T)[1].flip(1)


def share_on(basis: Tensor, y: Tensor) -> float:
    return float((basis.T @ y).norm() / y.norm())


def squared(J, y, r):
    return share_on(left_vectors(J)[:, :r], y) ** 2


def smallest_eigenvectors(J, y, r):
    return share_on(torch.linalg.eigh(J @ J.T)[1][:, :r], y)


def nothing_for_everything(J, y, r):
    return share_on(left_vectors(J)[:, :r], y) if r < len(y) else 0.0


def everything_for_nothing(J, y, r):
    return share_on(torch.linalg.eigh(J @ J.T)[1][:, -r:], y)


def not_divided(J, y, r):
    return float((left_vectors(J)[:, :r].T @ y).norm())


def reduced_svd(J, y, r):
    return share_on(torch.linalg.svd(J, full_matrices=False)[0][:, :r], y)


def full_svd(J, y, r):
    return share_on(torch.linalg.svd(J)[0][:, :r], y)


def right_gram(J, y, r):
    """Correct, through the matrix on the large side: at 50,000 columns it would need 20 GB."""
    _, V = torch.linalg.eigh(J.T @ J)
    rank = min(r, *J.shape)
    basis = torch.linalg.qr(J @ V.flip(1)[:, :rank])[0]
    return 1.0 if r == len(y) else share_on(basis, y)


def labels_normalised_in_place(J, y, r):
    y /= y.norm()
    return share_on(left_vectors(J)[:, :r], y)


# --- 4.3


def modes_of(J: Tensor, r0: Tensor) -> tuple[Tensor, Tensor]:
    squares, U = torch.linalg.eigh(J @ J.T)
    return squares.flip(0).clamp(min=0), U.flip(1).T @ r0


def norms(modes: Tensor, r: int) -> tuple[Tensor, Tensor]:
    return modes[:, :r].norm(dim=1), modes[:, r:].norm(dim=1)


def unreachable_part_lost(J, r0, eta, taus, r):
    U, s, _ = torch.linalg.svd(J, full_matrices=False)
    return norms((1 - eta * s**2) ** taus[:, None] * (U.T @ r0), r)


def value_for_square(J, r0, eta, taus, r):
    squares, c = modes_of(J, r0)
    return norms((1 - eta * squares.sqrt()) ** taus[:, None] * c, r)


def exponential_for_power(J, r0, eta, taus, r):
    squares, c = modes_of(J, r0)
    return norms(torch.exp(-eta * squares * taus[:, None]) * c, r)


def never_below_zero(J, r0, eta, taus, r):
    squares, c = modes_of(J, r0)
    return norms((1 - eta * squares).clamp(min=0) ** taus[:, None] * c, r)


def logarithm_of_a_negative_factor(J, r0, eta, taus, r):
    squares, c = modes_of(J, r0)
    return norms(torch.exp(torch.log(1 - eta * squares) * taus[:, None]) * c, r)


def spaces_swapped(J, r0, eta, taus, r):
    squares, c = modes_of(J, r0)
    return norms((1 - eta * squares) ** taus[:, None] * c, r)[::-1]


def sorted_steps(J, r0, eta, taus, r):
    squares, c = modes_of(J, r0)
    return norms((1 - eta * squares) ** taus.sort().values[:, None] * c, r)


def step_by_step(J, r0, eta, taus, r):
    """Correct, and would take a quarter of an hour for 10^8 steps."""
    basis, residual, found = left_vectors(J), r0.clone(), {}
    for step in range(int(taus.max()) + 1):
        if step in taus.tolist():
            found[step] = basis.T @ residual
        residual = residual - eta * (J @ (J.T @ residual))
    return norms(torch.stack([found[step] for step in taus.tolist()]), r)


# --- 4.4


def curves(lam: Tensor, c: Tensor, n: int, Gamma: float) -> tuple[Tensor, Tensor]:
    tail = torch.stack([c[r:].norm() for r in range(1, len(c) + 1)])
    return tail / math.sqrt(n), Gamma / lam


def rank_off_by_one(lam, c, n, Gamma):
    bias, var = curves(lam, c, n, Gamma)
    return int((bias + var).argmin()), bias, var


def tail_from_one_before(lam, c, n, Gamma):
    bias = torch.stack([c[r:].norm() for r in range(len(c))]) / math.sqrt(n)
    var = Gamma / lam
    return int((bias + var).argmin()) + 1, bias, var


def divided_by_n(lam, c, n, Gamma):
    bias, var = curves(lam, c, n, Gamma)
    bias = bias / math.sqrt(n)
    return int((bias + var).argmin()) + 1, bias, var


def zeros_made_small(lam, c, n, Gamma):
    bias, _ = curves(lam, c, n, Gamma)
    var = Gamma / lam.clamp(min=1e-6)
    return int((bias + var).argmin()) + 1, bias, var


def bias_alone(lam, c, n, Gamma):
    bias, var = curves(lam, c, n, Gamma)
    return int(bias.argmin()) + 1, bias, var


def equal_weight_point(lam, c, n, Gamma):
    """Where the curves cross, instead of where their sum is least."""
    bias, var = curves(lam, c, n, Gamma)
    return int((bias - var).abs().argmin()) + 1, bias, var


def coefficients_squared_in_place(lam, c, n, Gamma):
    bias, var = curves(lam, c, n, Gamma)
    c.square_()
    return int((bias + var).argmin()) + 1, bias, var


# --- other ways that are right


def one_unit_at_a_time(W, V, X, dphi):
    slopes = dphi(X @ W.T)
    rows = [
        torch.cat([V[output, unit] * slopes[i, unit] * x for unit in range(len(W))])
        for i, x in enumerate(X)
        for output in range(len(V))
    ]
    return torch.stack(rows)


def padded_reduced_svd(J, y, r):
    return 1.0 if r == len(y) else reduced_svd(J, y, r)


def powers_of_a_matrix(J, r0, eta, taus, r):
    U, step = left_vectors(J), torch.eye(len(J), dtype=J.dtype) - eta * J @ J.T
    powers = [U.T @ torch.linalg.matrix_power(step, tau) @ r0 for tau in taus.tolist()]
    return norms(torch.stack(powers), r)


def remainder_added(J, r0, eta, taus, r):
    U, s, _ = torch.linalg.svd(J, full_matrices=False)
    on_I, on_N = unreachable_part_lost(J, r0, eta, taus, min(r, len(s)))
    beyond = (r0 - U @ (U.T @ r0)).norm()
    return (on_I, torch.hypot(on_N, beyond)) if r < len(r0) else (torch.hypot(on_I, beyond), on_N)


def one_rank_at_a_time(lam, c, n, Gamma):
    bias, var = curves(lam, c, n, Gamma)
    totals = [float(total) for total in bias + var]
    return 1 + totals.index(min(totals)), bias, var


class TestNotebook4(ExerciseTests):
    number = 4
    names = {"4.1": "jacobian", "4.2": "info_share", "4.3": "residual_curves", "4.4": "best_cutoff"}
    wrong = {
        "4.1": {
            "class-major rows": (class_major_rows, "tanh, n = .* should be"),
            "columns transposed": (columns_transposed, "tanh, n = .* should be"),
            "dphi ignored": (dphi_ignored, r"tanh, n = 1, K = 1, k = 1, d = 1: .* ratio"),
            "dphi of the weights": (dphi_of_the_weights, "tanh, n = .* should be"),
            "summed over samples": (summed_over_samples, "got shape"),
            "inputs scaled in place": (inputs_scaled_in_place, "input X is overwritten"),
            "single precision": (single_precision, "got torch.float32, should be torch.float64"),
        },
        "4.2": {
            "the square": (squared, "r = 1.* should be"),
            "smallest eigenvectors": (smallest_eigenvectors, "r = 1: .* should be"),
            "0 for r = nK": (nothing_for_everything, "got 0, should be 1"),
            "1 for r = 0": (everything_for_nothing, "r = 0: got 1, should be 0"),
            "not divided by the norm of y": (not_divided, "r = 1: .* ratio"),
            "reduced SVD": (reduced_svd, "J 9 × 4, r = 9: .* should be 1"),
            "full SVD": (full_svd, "asks for 50,000 × 50,000 numbers"),
            "the Gram matrix of the wrong side": (right_gram, "asks for 50,000 × 50,000 numbers"),
            "y normalised in place": (labels_normalised_in_place, "input y is overwritten"),
        },
        "4.3": {
            "unreachable part lost": (unreachable_part_lost, "J 9 × 4.* on N: .* should be"),
            "λ for λ²": (value_for_square, "J 5 × 9.* should be"),
            "exponential for the power": (exponential_for_power, "J 5 × 9.* should be"),
            "factors never below zero": (never_below_zero, "η = 1.95/λ₁².* should be"),
            "logarithm of a negative factor": (logarithm_of_a_negative_factor, "η = 1.95/λ₁².* got nan"),
            "I and N swapped": (spaces_swapped, "on I: .* should be 0"),
            "sorted steps": (sorted_steps, r"τ = \[40, 0, 7, 1, 7\]"),
            "step by step": (step_by_step, "more than 10,000 calls of torch"),
        },
        "4.4": {
            "r off by one": (rank_off_by_one, "r, m = 1, .*: got 0, should be 1"),
            "tail from r − 1": (tail_from_one_before, "bias, m = 1: .* should be 0"),
            "divided by n": (divided_by_n, "bias, .* ratio"),
            "zeros made small": (zeros_made_small, "var, .* should be inf"),
            "bias alone": (bias_alone, "r, m = .* should be"),
            "where the curves cross": (equal_weight_point, "r, m = .* should be"),
            "c squared in place": (coefficients_squared_in_place, "input c is overwritten"),
        },
    }

    right = {
        "4.1": {"one unit at a time": one_unit_at_a_time},
        "4.2": {"reduced SVD and everything at nK": padded_reduced_svd},
        "4.3": {"powers of a matrix": powers_of_a_matrix, "reduced SVD and a remainder": remainder_added},
        "4.4": {"one rank at a time": one_rank_at_a_time},
    }

    def test_labkit_agrees_with_the_solutions(self) -> None:
        """Lesson and exercises would teach two layouts, or two definitions of a share."""
        generator = torch.Generator().manual_seed(0)
        W, V, X, Y = (
            torch.randn(shape, generator=generator, dtype=torch.float64)
            for shape in ((7, 4), (3, 7), (5, 4), (5, 3))
        )
        model = OneHidden(W, V, "softplus")
        J, y = self.solution("4.1")(W, V, X, torch.sigmoid), labkit.rows(Y)
        torch.testing.assert_close(J, labkit.jacobian(model, X).dense(), rtol=1e-12, atol=1e-12)

        triplets = labkit.svd(J, k=15)
        share = float(labkit.split(triplets, y, rank=4).share_information)
        assert self.solution("4.2")(J, y, 4) == pytest.approx(share, rel=1e-9)

        eta, steps, c = 1 / float(triplets.s[0]) ** 2, torch.tensor([0, 3, 500]), triplets.U.T @ y
        parts = theory.residual_parts(triplets.s, c, 4, eta, steps.numpy())
        on_I, on_N = self.solution("4.3")(J, y, eta, steps, 4)
        assert on_I.numpy() == pytest.approx(parts.information, abs=1e-9)
        assert on_N.numpy() == pytest.approx(parts.nuisance, abs=1e-9)

        terms = theory.tradeoff(triplets.s, c, 5, 2.0, start="given")
        rank, bias, var = self.solution("4.4")(triplets.s, c, 5, 2.0)
        assert rank == terms.rank[terms.total.argmin()]
        assert bias.numpy() == pytest.approx(terms.bias, abs=1e-9)
        assert var.numpy() == pytest.approx(terms.variance, rel=1e-9)

    def test_provable_items_of_4_5_are_the_ones_on_the_sheet(self) -> None:
        """Knee at K²C = 90, factor √2, shares .158 and .35."""
        provable = solved_prediction()["provable"]
        assert provable["knee"] == 90 and isinstance(provable["knee"], int)
        assert provable["growth"] == pytest.approx(math.sqrt(2))
        assert provable["random share"] == pytest.approx(0.158, abs=5e-4)
        assert provable["one-hot share"] == pytest.approx(0.35, abs=5e-4)

    def test_open_items_of_4_5_are_never_marked(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Nobody knows them before the run; an opinion would reward guessing."""
        namespace = solved_prediction()
        filled = {
            "knee": 90, "growth": 1.41, "random share": 0.5, "one-hot share": 0.35, "gap": "shrinks",
            "I step": 20, "N lost": 0.1, "best step": 100,
        }  # fmt: skip
        namespace["check_prediction"](filled, filled, namespace["allowed"], namespace["provable"], name="4.5")
        assert capsys.readouterr().out.splitlines() == [
            "4.5: prediction: complete",
            "4.5: observed: complete",
            "4.5: provable: knee: right; growth: right; random share: not right; one-hot share: right",
        ]

    def test_prediction_and_allowed_values_have_the_same_items(self) -> None:
        """An item without allowed values can never be filled."""
        namespace = solved_prediction()
        assert list(namespace["prediction"]) == list(namespace["allowed"]) == list(namespace["observed"])

    def test_open_question_has_its_rubric_folded_in(self) -> None:
        """One point a line, and out of sight until asked for."""
        source = exercises(self.number).source("solution-4.6")
        assert source.startswith("<details>") and source.rstrip().endswith("</details>")
        assert all(f"\n{line}. " in source for line in (1, 2, 3))


def solved_prediction() -> dict[str, Any]:
    cells, namespace = exercises(4), {}
    cells.run(namespace, "exercises-setup", "exercise-4.5", "tests-4.5")
    return namespace
