"""The exercises of notebook 3: solutions pass, the wrong answers that students give do not, labkit agrees."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from labkit.measure import flatness
from labkit.theory import boltzmann, linear_model
from tests.notebooks.exercise_cells import ExerciseTests, exercises

# --- 3.1


def right_limit(X, y, w0):
    pinv = torch.linalg.pinv(X)
    return pinv @ y + w0 - pinv @ (X @ w0)


def start_forgotten(X, y, w0):
    return torch.linalg.pinv(X) @ y


def start_added_whole(X, y, w0):
    return torch.linalg.pinv(X) @ y + w0


def gram_inverted(X, y, w0):
    return w0 + X.T @ torch.linalg.solve(X @ X.T, y - X @ w0)


def row_space_kept(X, y, w0):
    pinv = torch.linalg.pinv(X)
    return pinv @ y + pinv @ (X @ w0)


def small_ridge(X, y, w0):
    n = len(X)
    return w0 + X.T @ torch.linalg.solve(X @ X.T + 1e-4 * torch.eye(n, dtype=X.dtype), y - X @ w0)


def stopped_early(X, y, w0):
    lr, w = 1 / torch.linalg.matrix_norm(X, 2).square().clamp(min=1e-9), w0
    for _ in range(100):
        w = w - lr * X.T @ (X @ w - y)
    return w


def a_million_steps(X, y, w0):
    lr, w = 1 / torch.linalg.matrix_norm(X, 2).square().clamp(min=1e-9), w0
    for _ in range(1_000_000):
        w = w - lr * X.T @ (X @ w - y)
    return w


def corrected_in_place(X, y, w0):
    w0 += torch.linalg.pinv(X) @ (y - X @ w0)
    return w0.clone()


def by_numpy(X, y, w0):
    return right_limit(X, y, w0).numpy()


# --- 3.2


def filtered(X: Tensor, y: Tensor, ts: Any, covered: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The minimum-norm solution, of which `covered` (of s and of t) is reached along each direction."""
    U, s, Vt = torch.linalg.svd(X, full_matrices=False)
    seen = s > 1e-12 * s[0]
    U, s, Vt = U[:, seen], s[seen], Vt[seen]
    return (covered(s, torch.tensor(ts, dtype=X.dtype)[:, None]) * (y @ U) / s) @ Vt


def s_for_its_square(X, y, eta, ts):
    return filtered(X, y, ts, lambda s, t: 1 - (1 - eta * s) ** t)


def ridge_instead(X, y, eta, ts):
    return filtered(X, y, ts, lambda s, t: s**2 * eta * t / (s**2 * eta * t + 1))


def gradient_flow(X, y, eta, ts):
    return filtered(X, y, ts, lambda s, t: 1 - (-eta * t * s**2).exp())


def one_step_behind(X, y, eta, ts):
    return filtered(X, y, ts, lambda s, t: 1 - (1 - eta * s**2) ** (t - 1).clamp(min=0))


def what_is_left(X, y, eta, ts):
    return filtered(X, y, ts, lambda s, t: (1 - eta * s**2) ** t)


def mean_of_the_loss(X, y, eta, ts):
    return filtered(X, y, ts, lambda s, t: 1 - (1 - eta * s**2 / len(X)) ** t)


def zeros_divided(X, y, eta, ts):
    U, s, Vt = torch.linalg.svd(X, full_matrices=False)
    t = torch.tensor(ts, dtype=X.dtype)[:, None]
    return ((1 - (1 - eta * s**2) ** t) * (y @ U) / s) @ Vt


def times_sorted(X, y, eta, ts):
    return filtered(X, y, sorted(ts), lambda s, t: 1 - (1 - eta * s**2) ** t)


def every_step(X, y, eta, ts):
    path = [torch.zeros(X.shape[1], dtype=X.dtype)]
    for _ in range(max(ts)):
        path.append(path[-1] - eta * X.T @ (X @ path[-1] - y))
    return torch.stack([path[t] for t in ts])


def logarithm_of_the_share(X, y, eta, ts):
    return filtered(X, y, ts, lambda s, t: -torch.expm1(t * torch.log1p(-eta * s**2)))


# --- 3.3

CELLS = 4000


def integral(U: Any, R: float, D: float, T: float, shift: float = 0.0) -> Tensor:
    rho = R * (torch.arange(CELLS, dtype=torch.float64) + 0.5) / CELLS
    return (R / CELLS) * ((-(U(rho) - shift) / T).exp() * rho ** (D - 1)).sum()


def lowest(U: Any, R: float) -> float:
    return float(U(torch.linspace(0, R, CELLS, dtype=torch.float64)).min())


def share(a: Any, b: Any) -> float:
    return float(torch.as_tensor(b) / (torch.as_tensor(a) + torch.as_tensor(b)))


def shells_forgotten(U_a, U_b, R_a, R_b, D, T):
    low = min(lowest(U_a, R_a), lowest(U_b, R_b))
    return share(integral(U_a, R_a, 1, T, low), integral(U_b, R_b, 1, T, low))


def power_of_one_dimension(U_a, U_b, R_a, R_b, D, T):
    low = min(lowest(U_a, R_a), lowest(U_b, R_b))
    return share(integral(U_a, R_a, 1, T, low) ** D, integral(U_b, R_b, 1, T, low) ** D)


def not_shifted(U_a, U_b, R_a, R_b, D, T):
    return share(integral(U_a, R_a, D, T), integral(U_b, R_b, D, T))


def each_shifted_by_its_own(U_a, U_b, R_a, R_b, D, T):
    return share(
        integral(U_a, R_a, D, T, lowest(U_a, R_a)), integral(U_b, R_b, D, T, lowest(U_b, R_b))
    )  # fmt: skip


def power_of_the_dimension(U_a, U_b, R_a, R_b, D, T):
    low = min(lowest(U_a, R_a), lowest(U_b, R_b))
    return share(integral(U_a, R_a, D + 1, T, low), integral(U_b, R_b, D + 1, T, low))


def temperature_forgotten(U_a, U_b, R_a, R_b, D, T):
    low = min(lowest(U_a, R_a), lowest(U_b, R_b))
    return share(integral(U_a, R_a, D, 1.0, low), integral(U_b, R_b, D, 1.0, low))


def width_of_the_cells_forgotten(U_a, U_b, R_a, R_b, D, T):
    low = min(lowest(U_a, R_a), lowest(U_b, R_b))
    return share(integral(U_a, R_a, D, T, low) / R_a, integral(U_b, R_b, D, T, low) / R_b)


def other_well(U_a, U_b, R_a, R_b, D, T):
    low = min(lowest(U_a, R_a), lowest(U_b, R_b))
    return share(integral(U_b, R_b, D, T, low), integral(U_a, R_a, D, T, low))


def volumes_alone(U_a, U_b, R_a, R_b, D, T):
    return R_b**D / (R_a**D + R_b**D)


def shifted_quadrature(U_a, U_b, R_a, R_b, D, T):
    low = min(lowest(U_a, R_a), lowest(U_b, R_b))
    return share(integral(U_a, R_a, D, T, low), integral(U_b, R_b, D, T, low))


def quadrature_of_scipy(U_a, U_b, R_a, R_b, D, T):
    low = min(lowest(U_a, R_a), lowest(U_b, R_b))

    def z(U, R):
        def shell(rho):
            return math.exp(-(float(U(rho)) - low) / T) * rho ** (D - 1)

        return quad(shell, 0, R, limit=200)[0]

    return share(z(U_a, R_a), z(U_b, R_b))


# --- 3.4


def first_crossing(loss, w, u, eps, r_max, leaves=None, growth=1.1):
    """Growth and bisection; `leaves` (of the change of the loss) says when it has left."""
    leaves = leaves or (lambda change: abs(change) > eps)
    start = loss(w)
    low, high = 0.0, 1e-6 * r_max
    while not leaves(float(loss(w + high * u) - start)):
        if high == r_max:
            return r_max
        low, high = high, min(growth * high, r_max)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if leaves(float(loss(w + middle * u) - start)) else (middle, high)
    return high


def not_normalised(loss, w, direction, eps, r_max):
    return first_crossing(loss, w, direction, eps, r_max)


def rises_alone(loss, w, direction, eps, r_max):
    return first_crossing(
        loss, w, direction / direction.norm(), eps, r_max, lambda change: change > eps
    )  # fmt: skip


def relative_to_the_loss(loss, w, direction, eps, r_max):
    return first_crossing(loss, w, direction / direction.norm(), eps * float(loss(w)), r_max)


def from_the_far_end(loss, w, direction, eps, r_max):
    """The last crossing: down from r_max while the loss is outside."""
    u, start, r = direction / direction.norm(), loss(w), r_max
    while r > 1e-6 * r_max and abs(float(loss(w + r * u) - start)) > eps:
        r /= 1.001
    return r


def bisected_at_once(loss, w, direction, eps, r_max):
    u, start, low, high = direction / direction.norm(), loss(w), 0.0, r_max
    for _ in range(60):
        middle = (low + high) / 2
        outside = abs(float(loss(w + middle * u) - start)) > eps
        low, high = (low, middle) if outside else (middle, high)
    return high


def doubled(loss, w, direction, eps, r_max):
    """Steps that jump over a bump."""
    return first_crossing(loss, w, direction / direction.norm(), eps, r_max, growth=2.0)


def not_bisected(loss, w, direction, eps, r_max):
    u, start, r = direction / direction.norm(), loss(w), 1e-6 * r_max
    while r < r_max and abs(float(loss(w + r * u) - start)) <= eps:
        r *= 1.1
    return min(r, r_max)


def both_ways(loss, w, direction, eps, r_max):
    u = direction / direction.norm()
    return min(first_crossing(loss, w, sign * u, eps, r_max) for sign in (1, -1))


def infinite_if_never(loss, w, direction, eps, r_max):
    r = first_crossing(loss, w, direction / direction.norm(), eps, r_max)
    return math.inf if r == r_max else r


def walked_in_place(loss, w, direction, eps, r_max):
    r = first_crossing(loss, w, direction / direction.norm(), eps, r_max)
    w += r * direction / direction.norm()
    return r


def direction_overwritten(loss, w, direction, eps, r_max):
    direction /= direction.norm()
    return first_crossing(loss, w, direction, eps, r_max)


# --- other ways that are right


def least_squares_by_lapack(X, y, w0):
    return w0 + torch.linalg.lstsq(X, (y - X @ w0)[:, None], driver="gelsd").solution[:, 0]


def eigenvectors_of_the_gram(X, y, eta, ts):
    eigenvalues, Q = torch.linalg.eigh(X.T @ X)
    rows = []
    for t in ts:
        covered = 1 - (1 - eta * eigenvalues) ** t
        along = torch.where(eigenvalues.abs() > 1e-12, covered / eigenvalues, 0.0)
        rows.append(Q @ (along * (Q.T @ (X.T @ y))))
    return torch.stack(rows)


def power_of_a_matrix(X, y, eta, ts):
    step = torch.eye(X.shape[1], dtype=X.dtype) - eta * X.T @ X
    limit = torch.linalg.pinv(X) @ y
    return torch.stack([limit - torch.linalg.matrix_power(step, t) @ limit for t in ts])


def tensor_for_a_float(loss, w, direction, eps, r_max):
    r = first_crossing(loss, w, direction / direction.norm(), eps, r_max)
    return torch.tensor(r, dtype=torch.float64)


class TestNotebook3(ExerciseTests):
    number = 3
    names = {"3.1": "gd_limit", "3.2": "gd_path", "3.3": "well_share", "3.4": "flatness_radius"}
    wrong = {
        "3.1": {
            "X⁺y alone": (start_forgotten, r"n < d, .* w0 of size 1: got .* should be"),
            "X⁺y + w0": (start_added_whole, r"n < d, .* w0 of size 1: got .* should be"),
            "XXᵀ inverted": (gram_inverted, r"n > d, .*: (a singular matrix|got .* should be)"),
            "the wrong half of w0": (row_space_kept, r"n < d, .* w0 of size 1: got .* should be"),
            "a small ridge": (small_ridge, r"n < d, .*: got .* should be"),
            "a hundred steps": (stopped_early, r"X \(.*: got .* should be"),
            "a million steps": (a_million_steps, "calls of torch: a formula needs no loop"),
            "w0 overwritten": (corrected_in_place, "input w0 is overwritten"),
            "NumPy returned": (by_numpy, "got a ndarray, should be a tensor"),
        },
        "3.2": {
            "s for s²": (s_for_its_square, "n < d, .* against the loop: got .* should be"),
            "ridge at λ = 1/(ηt)": (ridge_instead, "n < d, .* against the loop: got .* should be"),
            "gradient flow": (gradient_flow, "n < d, .* against the loop: got .* should be"),
            "one step behind": (one_step_behind, "n < d, .* against the loop: got .* should be"),
            "what is left": (what_is_left, "n < d, .* against the loop: got .* should be"),
            "1/n in the step": (mean_of_the_loss, "n < d, .* against the loop: got .* should be"),
            "0/0": (zeros_divided, "(a column of zeros|X = 0), .*: got nan"),
            "times sorted": (times_sorted, "n < d, .* against the loop: got .* should be"),
            "step after step": (every_step, "calls of torch: a formula needs no loop"),
            "log of a negative number": (logarithm_of_the_share, r"n < d, eta = 1.9.*: got nan"),
        },
        "3.3": {
            "ρ^(D−1) forgotten": (shells_forgotten, "flat wells, .* D = 2: got .* should be"),
            "(1-D)^D": (power_of_one_dimension, "b higher by .* D = 2: got .* should be"),
            "no shift": (not_shifted, r"U = .* in both, T = 0.01, D = 1: got nan"),
            "two shifts": (each_shifted_by_its_own, "b higher by .* D = 1: got .* should be"),
            "ρ^D": (power_of_the_dimension, "flat wells, .* D = 1: got .* should be"),
            "no temperature": (temperature_forgotten, r"b higher by .*: got .* should be"),
            "dρ forgotten": (width_of_the_cells_forgotten, "flat wells, .* D = 1: got .* should be"),
            "the other well": (other_well, "flat wells, .* D = 1: got .* should be"),
            "volume alone": (volumes_alone, "b higher by .*: got .* should be"),
        },
        "3.4": {
            "not normalised": (not_normalised, r"a bowl, direction of length 0.01, .* ratio 100"),
            "the last crossing": (from_the_far_end, "a bowl|bump"),
            "rises alone": (rises_alone, "a loss that falls, .*: got .* should be"),
            "relative to the loss": (relative_to_the_loss, "a bowl, .*: got .* ratio 1.73"),
            "bisected at once": (bisected_at_once, "(falls, then rises|bump .*), d = .: got"),
            "doubled": (doubled, "a narrow bump around r = .*, d = 1: got"),
            "not bisected": (not_bisected, "a bowl, direction of length 1, .*: got .* should be"),
            "both ways": (both_ways, "a loss that falls, then rises, d = 1: got .* should be"),
            "∞ if never": (infinite_if_never, "a flat direction|r_max is nearer"),
            "w overwritten": (walked_in_place, "input w is overwritten"),
            "direction overwritten": (direction_overwritten, "input direction is overwritten"),
        },
    }
    right = {
        "3.1": {"two parts": right_limit, "LAPACK": least_squares_by_lapack},
        "3.2": {"eigh of XᵀX": eigenvectors_of_the_gram, "matrix power": power_of_a_matrix},
        "3.3": {"exponentials": shifted_quadrature, "scipy, point by point": quadrature_of_scipy},
        "3.4": {"a tensor": tensor_for_a_float},
    }

    def test_labkit_agrees_with_the_solutions(self) -> None:
        """Lesson and exercises would teach two limits, two paths, two shares or two radii."""
        generator = torch.Generator().manual_seed(0)
        X, y, w0 = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((5, 9), (5,), (9,)))
        limit = linear_model.min_norm_limit(X, y, w0)
        assert self.solution("3.1")(X, y, w0).numpy() == pytest.approx(limit, rel=1e-12)
        ts = [0, 3, 100]
        path = self.solution("3.2")(X, y, 0.02, ts).numpy()
        assert path == pytest.approx(linear_model.gd_iterates(X, y, 0.02, ts), rel=1e-10)

        well_share = self.solution("3.3")
        for D in (1, 4):
            found = well_share(torch.zeros_like, lambda r: 0.4 + 0 * r, 1.0, 2.0, D, 0.5)
            share = boltzmann.flat_share(2.0, D, offset=0.4, temperature=0.5)
            assert found == pytest.approx(share, abs=1e-6)
            found = well_share(lambda r: r**2 / 2, lambda r: 0.4 + 1.5 * r**2, 20.0, 20.0, D, 0.5)
            share = boltzmann.flat_share(3.0**-0.5, D, offset=0.4, temperature=0.5)
            assert found == pytest.approx(share, abs=1e-6)

        def bumps(v: Tensor) -> Tensor:
            return (v * (v - 2)).square().sum() - 0.3 * v.sum()

        for direction in (X[0], -X[1]):
            arguments = (bumps, w0, direction, 0.1, 30.0)
            # labkit's own stops at a part in a thousand.
            found = self.solution("3.4")(*arguments)
            assert found == pytest.approx(flatness.first_crossing(*arguments), rel=2e-3)

    def test_largest_ratio_of_the_filters_is_the_one_on_the_sheet(self) -> None:
        """1.298, and 1.686 squared: the text below 3.2 quotes them."""
        namespace: dict[str, Any] = {}
        cells = exercises(3)
        cells.run(namespace, "exercises-setup", "solution-3.2")
        assert cells.run(namespace, "then-3.2") == "the largest ratio is 1.298; squared, 1.686\n"
        x = np.linspace(1, 3, 20_001)
        ratio = (1 - np.exp(-x)) * (1 + x) / x
        assert ratio.max() == pytest.approx(1.2985, abs=1e-4)
        assert x[ratio.argmax()] == pytest.approx(1.8, abs=0.02)

    @pytest.mark.parametrize("D", (1, 2, 3, 5))
    def test_two_wells_tie_where_the_text_says(self, D: int) -> None:
        """The dotted lines below 3.3 are a formula, and the curves a quadrature."""
        T = 1 / (D * math.log(2))
        tie = self.solution("3.3")(lambda r: 2 * r**2 - 1, lambda r: r**2 / 2, 30.0, 30.0, D, T)
        assert tie == pytest.approx(0.5, abs=1e-6)

    def test_provable_items_of_3_5_are_those_on_the_sheet(self) -> None:
        """1.22 and 12.2, 2/3 and 32/33; the distance also as the mean over starts, and the share computed."""
        provable = solved_prediction()["provable"]
        assert provable["distance, s = .1"] == pytest.approx(1.22, abs=0.005)
        assert provable["distance, s = 1"] == pytest.approx(12.2, abs=0.05)
        generator = torch.Generator().manual_seed(0)
        X, y = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((50, 200), (50,)))
        starts = torch.randn(200, 200, generator=generator, dtype=torch.float64)
        squares = [
            float((self.solution("3.1")(X, y, w0) - torch.linalg.pinv(X) @ y).square().sum()) for w0 in starts
        ]
        # χ² with 150 degrees of freedom: the mean of 200 strays by √(2·150/200) = 1.2.
        assert np.mean(squares) == pytest.approx(provable["distance, s = 1"] ** 2, abs=6 * 1.2)
        for D in (1, 5):
            found = self.solution("3.3")(torch.zeros_like, torch.zeros_like, 1.0, 2.0, D, 1.0)
            assert found == pytest.approx(provable[f"share, D = {D}"], abs=1e-6)
        assert provable["share, D = 1"] == pytest.approx(2 / 3)
        assert provable["share, D = 5"] == pytest.approx(32 / 33)

    def test_open_items_of_3_5_are_never_marked(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Nobody knows them before the run; an opinion would reward guessing."""
        namespace = solved_prediction()
        filled: dict[str, Any] = {
            "distance, s = .1": 1.22, "distance, s = 1": 150, "share, D = 1": 0.5, "share, D = 5": 0.97,
            "test error": "rises", "N/W": 1,
        }  # fmt: skip
        namespace["check_prediction"](filled, filled, namespace["allowed"], namespace["provable"], name="3.5")
        assert capsys.readouterr().out.splitlines() == [
            "3.5: prediction: complete",
            "3.5: observed: complete",
            "3.5: provable: distance, s = .1: right; distance, s = 1: not right; share, D = 1: not right; "
            "share, D = 5: right",
        ]

    def test_prediction_and_allowed_values_have_the_same_items(self) -> None:
        """An item without allowed values can never be filled."""
        namespace = solved_prediction()
        assert list(namespace["prediction"]) == list(namespace["allowed"]) == list(namespace["observed"])

    def test_open_question_has_its_rubric_folded_in(self) -> None:
        """One point a line, and out of sight until asked for."""
        source = exercises(3).source("solution-3.6")
        assert source.startswith("<details>") and source.rstrip().endswith("</details>")
        assert all(f"\n{line}. " in source for line in (1, 2, 3))


def solved_prediction() -> dict[str, Any]:
    namespace: dict[str, Any] = {}
    exercises(3).run(namespace, "exercises-setup", "exercise-3.5", "tests-3.5")
    return namespace
