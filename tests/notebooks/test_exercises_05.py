"""The exercises of notebook 5: solutions pass, the wrong answers that students give do not, labkit agrees."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import labkit
from labkit import measure
from labkit.measure.gradients import gradient_gram as labkit_gram
from labkit.theory import confusion_rates as theory
from tests.notebooks.exercise_cells import ExerciseTests, exercises

# --- 5.1


def unit_rows(G: Tensor) -> Tensor:
    norms = G.norm(dim=1, keepdim=True)
    return G / norms.where(norms > 0, torch.ones_like(norms))


def off_diagonal(square: Tensor) -> Tensor:
    return square[~torch.eye(len(square), dtype=torch.bool)]


def right_numbers(G):
    inner, cosines = off_diagonal(G @ G.T), off_diagonal(unit_rows(G) @ unit_rows(G).T)
    return max(0.0, -float(inner.min())), float(cosines.min()), float(cosines.mean())


def diagonal_in_the_mean(G):
    eta, smallest, _ = right_numbers(G)
    unit = unit_rows(G)
    return eta, smallest, float((unit @ unit.T).mean())


def eta_negative(G):
    _, *cosines = right_numbers(G)
    return -float(off_diagonal(G @ G.T).min()), *cosines


def sign_of_eta_forgotten(G):
    _, *cosines = right_numbers(G)
    return min(0.0, float(off_diagonal(G @ G.T).min())), *cosines


def eta_from_cosines(G):
    _, smallest, mean = right_numbers(G)
    return max(0.0, -smallest), smallest, mean


def cosine_of_the_worst_inner_product(G):
    eta, _, mean = right_numbers(G)
    unit, inner = unit_rows(G), (G @ G.T).fill_diagonal_(math.inf)
    return eta, float((unit @ unit.T).flatten()[inner.argmin()]), mean


def zero_divided_by_zero(G):
    eta, *_ = right_numbers(G)
    unit = G / G.norm(dim=1, keepdim=True)
    cosines = off_diagonal(unit @ unit.T)
    return eta, float(cosines.min()), float(cosines.mean())


def short_gradients_lost(G):
    """The default of `normalize` takes a norm below 1e-12 for one of 1e-12."""
    eta, *_ = right_numbers(G)
    unit = torch.nn.functional.normalize(G)
    cosines = off_diagonal(unit @ unit.T)
    return eta, float(cosines.min()), float(cosines.mean())


def zeros_of_the_lower_half(G):
    eta, *_ = right_numbers(G)
    cosines = (unit_rows(G) @ unit_rows(G).T).triu(1)
    return eta, float(cosines.min()), float(cosines.sum() * 2 / (len(G) * (len(G) - 1)))


def absolute_cosines(G):
    eta, smallest, _ = right_numbers(G)
    return eta, smallest, float(off_diagonal(unit_rows(G) @ unit_rows(G).T).abs().mean())


def pairs_with_a_zero_left_out(G):
    eta, *_ = right_numbers(G)
    kept = G[G.norm(dim=1) > 0]
    return (eta, *right_numbers(kept)[1:]) if len(kept) > 1 else (eta, 0.0, 0.0)


def normalized_in_place(G):
    eta, *_ = right_numbers(G)
    norms = G.norm(dim=1, keepdim=True)
    G /= norms.where(norms > 0, torch.ones_like(norms))
    return eta, *right_numbers(G)[1:]


# --- 5.2


def columns(G: Tensor) -> float:
    """Column by column: (sum)^2 - sum of squares."""
    N = len(G)
    found = sum(float(g.sum() ** 2 - (g**2).sum()) for g in G.unbind(dim=1))
    return found / (N * (N - 1))


def mean_of_all_pairs(G):
    return float(G.mean(dim=0).square().sum())


def divided_by_n_squared(G):
    return float(G.sum(dim=0).square().sum() - G.square().sum()) / len(G) ** 2


def all_pairs_formed(G):
    return float(off_diagonal(G @ G.T).mean())


def pairs_row_by_row(G):
    N, total = len(G), 0.0
    for i in range(N):
        total += float((G @ G[i]).sum() - G[i] @ G[i])
    return total / (N * (N - 1))


def first_thousand_rows(G):
    return all_pairs_formed(G[:1000])


def half_of_the_pairs(G):
    return columns(G) / 2


def squared_diagonal_forgotten(G):
    """||g|| where ||g||^2 belongs."""
    N = len(G)
    return float(G.sum(dim=0).square().sum() - G.norm(dim=1).sum()) / (N * (N - 1))


def tensor_for_float(G):
    return torch.tensor(columns(G), dtype=torch.float64)


def right_sets(N):
    """B from two opposed vectors and an arc, its angle found by bisection."""
    A = torch.eye(N, dtype=torch.float64)
    low, high = 0.0, math.pi / 2
    for _ in range(200):
        angle = (low + high) / 2
        B = arc(N, angle)
        low, high = (angle, high) if float(B.sum(dim=0).square().sum()) > N else (low, angle)
    return A, arc(N, low)


def arc(N: int, angle: float) -> Tensor:
    """Two opposed vectors, and N - 2 at (cos, +-sin) of an angle, or along the first axis."""
    signs = [(-1.0) ** i for i in range(N - 2 - N % 2)] + [0.0] * (N % 2)
    rest = [[math.cos(angle * abs(sign)), math.sin(angle * sign)] for sign in signs]
    return torch.tensor([[1.0, 0.0], [-1.0, 0.0], *rest], dtype=torch.float64)


def one_set_twice(N):
    return torch.eye(N, dtype=torch.float64), torch.eye(N, dtype=torch.float64)


def confused_set_twice(N):
    _, B = right_sets(N)
    return B, B.clone()


def one_vector_reversed(N):
    A = torch.eye(N, dtype=torch.float64)
    A[1] = A[0]
    B = A.clone()
    B[1] = -B[0]
    return A, B


def sets_exchanged(N):
    return right_sets(N)[::-1]


def longer_vectors(N):
    """The diversity is made equal by the norms, which were to be 1."""
    A, B = torch.eye(N, dtype=torch.float64), torch.eye(N, dtype=torch.float64)
    B[1] = -2 * B[0]
    B[2:] *= math.sqrt((B.square().sum() - (B[0] + B[1]).square().sum() - (N - 2)) / (N - 2) + 1)
    return A, B


def for_four_alone(N):
    A, B = right_sets(4)
    return A, B


def hardly_confused(N):
    """A regular simplex of three vectors would do; -1/(N-1) does not, from N = 4 on."""
    B = torch.eye(N, dtype=torch.float64)
    B = B - 1 / N
    return torch.eye(N, dtype=torch.float64), B / B.norm(dim=1, keepdim=True)


def single_precision_sets(N):
    return tuple(part.float() for part in right_sets(N))


# --- 5.3


def recursion(gap0: float, etas: Tensor, rho: float, alpha: float) -> Tensor:
    found = [float(gap0)]
    for eta in etas.tolist():
        found.append(rho * found[-1] + alpha * eta)
    return torch.tensor(found, dtype=torch.float64)


def in_range(L, N, alpha):
    if alpha <= 0 or alpha * N * L >= 2:
        raise ValueError(f"alpha = {alpha}")


def factor(L, mu, N, alpha):
    return 1 - 2 * mu / N * (alpha - N * L * alpha**2 / 2)


def right_bound(gap0, etas, L, mu, N, alpha):
    in_range(L, N, alpha)
    return recursion(gap0, etas, factor(L, mu, N, alpha), alpha)


def worst_for_all_steps(gap0, etas, L, mu, N, alpha):
    worst = etas.max().expand(len(etas)) if len(etas) else etas
    return right_bound(gap0, worst, L, mu, N, alpha)


def no_range_check(gap0, etas, L, mu, N, alpha):
    return recursion(gap0, etas, factor(L, mu, N, alpha), alpha)


def half_forgotten(gap0, etas, L, mu, N, alpha):
    in_range(L, N, alpha)
    return recursion(gap0, etas, 1 - 2 * mu / N * (alpha - N * L * alpha**2), alpha)


def only_the_upper_end(gap0, etas, L, mu, N, alpha):
    in_range(L, N, abs(alpha) or 1e-9)
    return recursion(gap0, etas, factor(L, mu, N, alpha), alpha)


def ends_allowed(gap0, etas, L, mu, N, alpha):
    if not 0 <= alpha <= 2 / (N * L):
        raise ValueError(f"alpha = {alpha}")
    return recursion(gap0, etas, factor(L, mu, N, alpha), alpha)


def half_the_range(gap0, etas, L, mu, N, alpha):
    if not 0 < alpha <= 1 / (N * L):
        raise ValueError("alpha is above 1/(N L)")
    return recursion(gap0, etas, factor(L, mu, N, alpha), alpha)


def alpha_not_named(gap0, etas, L, mu, N, alpha):
    if not 0 < alpha < 2 / (N * L):
        raise ValueError("step out of range")
    return recursion(gap0, etas, factor(L, mu, N, alpha), alpha)


def assert_for_the_range(gap0, etas, L, mu, N, alpha):
    assert 0 < alpha < 2 / (N * L), "alpha"
    return recursion(gap0, etas, factor(L, mu, N, alpha), alpha)


def range_checked_in_the_loop(gap0, etas, L, mu, N, alpha):
    for _ in etas:
        in_range(L, N, alpha)
    return recursion(gap0, etas, factor(L, mu, N, alpha), alpha)


def alpha_forgotten(gap0, etas, L, mu, N, alpha):
    in_range(L, N, alpha)
    return recursion(gap0, etas / alpha, factor(L, mu, N, alpha), alpha)


def start_left_out(gap0, etas, L, mu, N, alpha):
    return right_bound(gap0, etas, L, mu, N, alpha)[1:]


def etas_in_reverse(gap0, etas, L, mu, N, alpha):
    return right_bound(gap0, etas.flip(0), L, mu, N, alpha)


def eta_shrunk_too(gap0, etas, L, mu, N, alpha):
    """b <- rho (b + alpha eta)."""
    return right_bound(gap0, etas * factor(L, mu, N, alpha), L, mu, N, alpha)


def negative_etas_cut(gap0, etas, L, mu, N, alpha):
    return right_bound(gap0, etas.clamp(min=0), L, mu, N, alpha)


def mu_of_the_mean(gap0, etas, L, mu, N, alpha):
    in_range(L, N, alpha)
    return recursion(gap0, etas, factor(L, N * mu, N, alpha), alpha)


def floor_that_vanishes(gap0, etas, L, mu, N, alpha):
    """One alpha too many: what one would like the floor to be."""
    in_range(L, N, alpha)
    return recursion(gap0, etas * alpha, factor(L, mu, N, alpha), alpha)


def single_precision_bound(gap0, etas, L, mu, N, alpha):
    return right_bound(gap0, etas, L, mu, N, alpha).float()


def etas_overwritten(gap0, etas, L, mu, N, alpha):
    found = right_bound(gap0, etas, L, mu, N, alpha)
    etas *= alpha
    return found


def triangle_of_powers(gap0, etas, L, mu, N, alpha):
    """All steps at once."""
    in_range(L, N, alpha)
    rho, t = 1 - 2 * mu * alpha / N + mu * L * alpha**2, torch.arange(len(etas) + 1)
    ages = t[:, None] - 1 - t[:-1]
    weights = torch.where(ages >= 0, rho ** ages.clamp(min=0).double(), 0.0)
    return gap0 * rho ** t.double() + alpha * weights @ etas


# --- 5.4


def gram(
    Ws, X, Y, layers=None, slope=lambda h: 1 - h**2, bias=0.0, residual=1.0, squash=False, product=torch.mul
):
    """Right with the defaults; each argument is one mistake."""
    h = [X]
    for W in Ws[:-1]:
        h.append(torch.tanh(h[-1] @ W.T))
    outputs = h[-1] @ Ws[-1].T
    delta = residual * ((outputs.tanh() if squash else outputs) - Y)
    found = torch.zeros(len(X), len(X), dtype=X.dtype)
    for k in reversed(range(len(Ws))):
        if layers is None or k in layers:
            found = found + product(delta @ delta.T, h[k] @ h[k].T + bias)
        if k:
            delta = (delta @ Ws[k]) * slope(h[k])
    return found


def last_layer_only(Ws, X, Y):
    return gram(Ws, X, Y, layers={len(Ws) - 1})


def first_layer_left_out(Ws, X, Y):
    return gram(Ws, X, Y, layers=set(range(1, len(Ws))) or None)


def slope_left_out(Ws, X, Y):
    return gram(Ws, X, Y, slope=torch.ones_like)


def slope_at_the_output(Ws, X, Y):
    """tanh' of h = tanh(z), where tanh' of z belongs."""
    return gram(Ws, X, Y, slope=lambda h: 1 - torch.tanh(h) ** 2)


def slope_not_squared(Ws, X, Y):
    return gram(Ws, X, Y, slope=lambda h: 1 - h)


def with_biases(Ws, X, Y):
    return gram(Ws, X, Y, bias=1.0)


def loss_without_half(Ws, X, Y):
    return gram(Ws, X, Y, residual=2.0)


def last_layer_squashed(Ws, X, Y):
    return gram(Ws, X, Y, squash=True)


def targets_forgotten(Ws, X, Y):
    return gram(Ws, X, 0 * Y)


def matrix_product(Ws, X, Y):
    return gram(Ws, X, Y, product=torch.matmul)


def kernel_of_the_outputs(Ws, X, Y):
    """The tangent kernel, summed over the outputs: as if every residual were 1 on each in turn."""
    outputs = X
    for W in Ws[:-1]:
        outputs = torch.tanh(outputs @ W.T)
    outputs = outputs @ Ws[-1].T
    return sum(gram(Ws, X, outputs - one) for one in torch.eye(len(Ws[-1]), dtype=X.dtype))


def cosines(Ws, X, Y):
    found = gram(Ws, X, Y)
    norms = found.diagonal().sqrt()
    return found / norms / norms[:, None]


def transposed_weight(Ws, X, Y):
    """Seen wherever a matrix is square; elsewhere the shapes give it away."""
    if any(len(set(W.shape)) > 1 for W in Ws):
        return gram(Ws, X, Y)
    h, found = [X], 0.0
    for W in Ws[:-1]:
        h.append(torch.tanh(h[-1] @ W.T))
    delta = h[-1] @ Ws[-1].T - Y
    for k in reversed(range(len(Ws))):
        found = found + (delta @ delta.T) * (h[k] @ h[k].T)
        delta = (delta @ Ws[k].T) * (1 - h[k] ** 2)
    return found


def single_precision_gram(Ws, X, Y):
    return gram(Ws, X, Y).float()


def residual_in_place(Ws, X, Y):
    found = gram(Ws, X, Y)
    Y -= 1
    return found


def with_the_gradients(Ws, X, Y):
    """Slow, and right."""
    rows = []
    for x, y in zip(X, Y, strict=True):
        weights = [W.clone().requires_grad_() for W in Ws]
        h = x
        for W in weights[:-1]:
            h = torch.tanh(W @ h)
        loss = (weights[-1] @ h - y).square().sum() / 2
        rows.append(torch.cat([part.flatten() for part in torch.autograd.grad(loss, weights)]))
    G = torch.stack(rows)
    return G @ G.T


class TestNotebook5(ExerciseTests):
    number = 5
    names = {
        "5.1": "confusion",
        "5.2a": "mean_inner",
        "5.2b": "two_sets",
        "5.3": "sgd_bound",
        "5.4": "gradient_gram",
    }
    wrong = {
        "5.1": {
            "diagonal in the mean": (
                diagonal_in_the_mean,
                "mean_cos, N = 2, a row of zeros: got 0.25, should be 0",
            ),
            "η negative": (eta_negative, "eta, N = 2: got -.*, should be 0"),
            "the sign of η": (sign_of_eta_forgotten, "eta, N = .*, ratio -1"),
            "η from cosines": (eta_from_cosines, "eta, N = .*: got .*, should be"),
            "cosine of the worst inner product": (cosine_of_the_worst_inner_product, "min_cos, N = "),
            "0/0": (zero_divided_by_zero, "min_cos, N = 2, a row of zeros: got nan, should be 0"),
            "short gradients lost": (short_gradients_lost, "min_cos, N = 2, G × 1e-20: got .*, should be"),
            "zeros below the diagonal": (zeros_of_the_lower_half, "min_cos, .*: got 0, should be"),
            "absolute cosines": (absolute_cosines, "mean_cos, N = .*: got .*, should be"),
            "zero gradients left out": (pairs_with_a_zero_left_out, "row of zeros: got .*, should be"),
            "normalized in place": (normalized_in_place, "input G is overwritten"),
        },
        "5.2a": {
            "‖Σg‖²/N²": (mean_of_all_pairs, "2 vectors: got .*, should be"),
            "division by N²": (divided_by_n_squared, "2 vectors: got .*, should be .*, ratio 0.5"),
            "all pairs formed": (all_pairs_formed, "N = 100,000: 10¹⁰ pairs are too many"),
            "pairs row by row": (pairs_row_by_row, "N = 100,000: 10¹⁰ pairs are too many"),
            "a sample of the pairs": (first_thousand_rows, "N = 100,000: got .*, should be"),
            "half of the pairs": (half_of_the_pairs, "2 vectors: got .*, should be .*, ratio 0.5"),
            "norms not squared": (squared_diagonal_forgotten, "2 vectors: got .*, should be"),
        },
        "5.2b": {
            "A = B": (one_set_twice, "N = 4: B has confusion 0, and should have 1/2 or more"),
            "A = B, both confused": (confused_set_twice, "N = 4: A has confusion 1, and should have none"),
            "one vector reversed": (one_vector_reversed, "‖Σb‖²/Σ‖b‖², against that of A: got .*, should be"),
            "exchanged": (sets_exchanged, "N = 4: A has confusion 1, and should have none"),
            "longer vectors": (longer_vectors, r"N = 4: norms in B: got .* at \(.*\), should be 1"),
            "four vectors for all N": (for_four_alone, "N = 5: rows of A: got 4, should be 5"),
            "hardly confused": (hardly_confused, "N = 4: B has confusion 0.3333, and should"),
            "single precision": (single_precision_sets, "norms in A: got torch.float32"),
        },
        "5.3": {
            "the worst η": (worst_for_all_steps, r"η_t that vary, N = 2, NLα = 1.0: got .* at \(.*\)"),
            "no range check": (no_range_check, r"alpha = 0.25, 2/\(NL\) = 0.25, T = 2: no ValueError"),
            "NLα² without ½": (half_forgotten, "η = 0, N = 2, .*: got .*, should be"),
            "upper end alone": (only_the_upper_end, "alpha = 0.0, .*, T = 2: no ValueError"),
            "ends allowed": (ends_allowed, r"alpha = 0.25, 2/\(NL\) = 0.25, T = 2: no ValueError"),
            "up to 1/(NL)": (
                half_the_range,
                r"N = 2, NLα = 1.9: a ValueError, though alpha is below 2/\(NL\)",
            ),
            "alpha not named": (alpha_not_named, "T = 2: the ValueError does not name alpha"),
            "an assert": (assert_for_the_range, "T = 2: raises AssertionError, should raise ValueError"),
            "no check at T = 0": (range_checked_in_the_loop, "T = 0: no ValueError"),
            "α forgotten": (alpha_forgotten, "one η for all steps, N = 2, .*: got .*, should be"),
            "b_0 left out": (start_left_out, r"T = 0, .*: got shape \(0,\), should be \(1,\)"),
            "η_t in reverse": (etas_in_reverse, "η_t that vary, N = 2, .*: got .*, should be"),
            "ρ(b + αη)": (eta_shrunk_too, "one η for all steps, N = 2, .*: got .*, should be"),
            "negative η cut": (negative_etas_cut, "negative η_t, N = 2, .*: got .*, should be"),
            "μ for μ/N": (mu_of_the_mean, "η = 0, N = 2, .*: got .*, should be"),
            "a floor that vanishes": (floor_that_vanishes, "one η for all steps, N = 2, .*: got .*, should"),
            "single precision": (single_precision_bound, "got torch.float32, should be torch.float64"),
            "etas overwritten": (etas_overwritten, "input etas is overwritten"),
        },
        "5.4": {
            "last layer only": (last_layer_only, r"layers \[4, 1, 1, 2\], N = 6: got .*, should be"),
            "first layer left out": (
                first_layer_left_out,
                r"layers \[4, 1, 1, 2\], N = 6: got .*, should be",
            ),
            "tanh' left out": (slope_left_out, r"layers \[4, 1, 1, 2\], N = 6: got .*, should be"),
            "tanh' of tanh": (slope_at_the_output, r"layers \[4, 1, 1, 2\], N = 6: got .*, should be"),
            "1 − h": (slope_not_squared, r"layers \[4, 1, 1, 2\], N = 6: got .*, should be"),
            "with biases": (with_biases, r"layers \[3, 2\], N = 5: got .*, should be"),
            "loss without ½": (loss_without_half, r"layers \[3, 2\], N = 5: got .*, should be .*, ratio 4"),
            "tanh on the outputs": (last_layer_squashed, r"layers \[3, 2\], N = 5: got .*, should be"),
            "targets forgotten": (targets_forgotten, r"layers \[3, 2\], N = 5: got .*, should be"),
            "∘ as a matrix product": (matrix_product, r"layers \[3, 2\], N = 5: got .*, should be"),
            "residuals forgotten": (kernel_of_the_outputs, r"layers \[3, 2\], N = 5: got .*, should be"),
            "cosines": (cosines, r"layers \[3, 2\], N = 5: got .*, should be"),
            "W for Wᵀ": (transposed_weight, r"layers \[6, 6, 6, 6, 6\], N = 6: got .*, should be"),
            "single precision": (single_precision_gram, "got torch.float32, should be torch.float64"),
            "Y moved in place": (residual_in_place, "input Y is overwritten"),
        },
    }
    right = {
        "5.1": {"masked twice": right_numbers},
        "5.2a": {"column by column": columns, "a tensor for a float": tensor_for_float},
        "5.2b": {"two opposed and an arc": right_sets},
        "5.3": {"a triangle of powers": triangle_of_powers},
        "5.4": {"with the gradients": with_the_gradients, "from 0": gram},
    }

    def test_labkit_agrees_with_the_solutions(self) -> None:
        """Lesson and exercises would teach two definitions of one measure."""
        generator = torch.Generator().manual_seed(0)
        G = torch.randn(12, 7, generator=generator, dtype=torch.float64)
        G[3] = 0
        ours = measure.confusion(G @ G.T)
        expected = (ours.eta, ours.minimum_cosine, ours.mean_cosine)
        assert self.solution("5.1")(G) == pytest.approx(expected, rel=1e-12)
        assert self.solution("5.2a")(G) == pytest.approx(measure.mean_inner(G), rel=1e-12)
        assert self.solution("5.2a")(G) == pytest.approx(ours.mean_inner, rel=1e-12)

        diversity = [measure.gradient_diversity(vectors) for vectors in self.solution("5.2b")(9)]
        assert diversity[0] == pytest.approx(diversity[1], rel=1e-12)

        etas, constants = torch.rand(20, generator=generator, dtype=torch.float64) - 0.3, (2.0, 0.7, 5, 0.15)
        bound = self.solution("5.3")(1.5, etas, *constants)
        assert bound.numpy() == pytest.approx(theory.sgd_bound(1.5, etas.numpy(), *constants), rel=1e-12)

        model = labkit.mlp(6, 7, 3, 2, activation="tanh", bias=False, seed=1, dtype=torch.float64)
        X, Y = (torch.randn(9, k, generator=generator, dtype=torch.float64) for k in (6, 2))
        Ws = [layer.weight.detach() for layer in model.layers]
        found = self.solution("5.4")(Ws, X, Y)
        torch.testing.assert_close(found, labkit_gram(model, X, Y, loss="half-sum"), rtol=1e-10, atol=1e-12)

    @pytest.mark.parametrize(("alpha", "end"), [(0.5, 0.5 / (1.5 * 20)), (0.2, 0.2 / (1.8 * 20))])
    def test_what_is_left_on_the_confused_set_is_the_formula_under_5_2(
        self, alpha: float, end: float
    ) -> None:
        """The dashed line would be a decoration."""
        _, G = self.solution("5.2b")(20)
        residuals = (G @ torch.linalg.pinv(G)).sum(dim=1) - 1
        left = theory.exact_floor((G @ G.T).numpy(), residuals.numpy(), alpha)
        assert left == pytest.approx(end, rel=1e-9)

    def test_provable_items_of_5_5_are_the_ones_on_the_sheet(self) -> None:
        """More pairs cannot have a larger minimum, and half the step has two thirds of the floor."""
        provable = solved_prediction()["provable"]
        assert provable == {"can rise": "no", "floor": pytest.approx(2 / 3)}
        floors = [theory.sgd_floor(0.3, 1.0, 0.4, 100, alpha) for alpha in (0.01, 0.005)]
        assert provable["floor"] == pytest.approx(floors[1] / floors[0], rel=1e-12)
        G = torch.randn(400, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        smallest = [self.solution("5.1")(G[:n])[1] for n in (25, 50, 100, 200, 400)]
        assert smallest == sorted(smallest, reverse=True)

    def test_open_items_of_5_5_are_never_marked(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Nobody knows them before the run; an opinion would reward guessing."""
        namespace = solved_prediction()
        filled = {"can rise": "no", "floor": 0.5, "cosine with width": "falls", "η with width": "falls"}
        for floor, mark in ((0.5, "not right"), (0.67, "right")):
            filled["floor"] = floor
            namespace["check_prediction"](
                filled, filled, namespace["allowed"], namespace["provable"], name="5.5"
            )
            assert capsys.readouterr().out.splitlines() == [
                "5.5: prediction: complete",
                "5.5: observed: complete",
                f"5.5: provable: can rise: right; floor: {mark}",
            ]

    def test_prediction_and_allowed_values_have_the_same_items(self) -> None:
        """An item without allowed values can never be filled."""
        namespace = solved_prediction()
        assert list(namespace["prediction"]) == list(namespace["allowed"]) == list(namespace["observed"])

    def test_open_question_has_its_rubric_folded_in(self) -> None:
        """One point a line, and out of sight until asked for."""
        source = exercises(5).source("solution-5.6")
        assert source.startswith("<details>") and source.rstrip().endswith("</details>")
        assert all(f"\n{line}. " in source for line in (1, 2, 3))

    def test_no_wrong_gram_matrix_is_right_by_accident(self) -> None:
        """A helper whose defaults are wrong would make every mistake above one too many."""
        generator = np.random.default_rng(0)
        Ws = [torch.tensor(generator.standard_normal(shape)) for shape in ((4, 3), (5, 4), (2, 5))]
        X, Y = (torch.tensor(generator.standard_normal((6, k))) for k in (3, 2))
        torch.testing.assert_close(gram(Ws, X, Y), with_the_gradients(Ws, X, Y), rtol=1e-10, atol=1e-12)


def solved_prediction() -> dict[str, Any]:
    cells, namespace = exercises(5), {}
    cells.run(namespace, "exercises-setup", "exercise-5.5", "tests-5.5")
    return namespace
