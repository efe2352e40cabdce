"""The exercises of notebook 1: solutions pass, the wrong answers that students give do not, labkit agrees."""

from __future__ import annotations

import functools
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import labkit
from labkit.theory import distance as theory
from tests.notebooks.exercise_cells import ExerciseTests, exercises

# --- 1.1


def right_norms(dims, sds):
    sizes, sd = (torch.tensor(values, dtype=torch.float64) for values in (dims, sds))
    return sizes[1:] * sizes[:-1] * sd**2, sd * (sizes[1:].sqrt() + sizes[:-1].sqrt())


def norm_for_its_square(dims, sds):
    F2, spec = right_norms(dims, sds)
    return F2.sqrt(), spec


def sd_for_variance(dims, sds):
    F2, spec = right_norms(dims, sds)
    return F2 / torch.tensor(sds, dtype=torch.float64), spec


def frobenius_for_spectral(dims, sds):
    F2, _ = right_norms(dims, sds)
    return F2, F2.sqrt()


def sum_under_the_root(dims, sds):
    F2, _ = right_norms(dims, sds)
    return F2, torch.tensor([sd * math.sqrt(a + b) for sd, (a, b) in zip(sds, pairwise(dims), strict=True)])


def fan_in_forgotten(dims, sds):
    F2, spec = right_norms(dims, sds)
    return F2 / torch.tensor(dims[:-1]), spec


def layers_reversed(dims, sds):
    F2, spec = right_norms(dims[::-1], sds[::-1])
    return F2, spec


def one_random_draw(dims, sds):
    """A measurement, where an expectation is asked for."""
    generator, (_, spec) = torch.Generator().manual_seed(0), right_norms(dims, sds)
    layers = zip(sds, pairwise(dims), strict=True)
    draws = [sd * torch.randn(b, a, generator=generator, dtype=torch.float64) for sd, (a, b) in layers]
    return torch.stack([Z.square().sum() for Z in draws]), spec


def sizes_popped(dims, sds):
    found, _ = right_norms(dims, sds), dims.pop()
    return found


def single_precision_norms(dims, sds):
    return tuple(part.float() for part in right_norms(dims, sds))


# --- 1.2


def spectral(layers: list[Tensor]) -> list[float]:
    return [float(torch.linalg.matrix_norm(A, 2)) for A in layers]


def chain(w: list[float], z: list[float], moved: list[float], r: float) -> tuple[float, ...]:
    pairs = zip(z, moved, strict=True)
    return math.prod(w), math.prod(a + b for a, b in pairs), math.prod(a + r for a in z), r


def distances(W: list[Tensor], Z: list[Tensor]) -> list[float]:
    return [float((A - B).norm()) for A, B in zip(W, Z, strict=True)]


def right_chain(W, Z, b):
    moved = distances(W, Z)
    return chain(spectral(W), spectral(Z), moved, math.hypot(*moved, *(float(c.norm()) for c in b)))


def biases_left_out(W, Z, b):
    moved = distances(W, Z)
    return chain(spectral(W), spectral(Z), moved, math.hypot(*moved))


def frobenius_norms(W, Z, b):
    moved, (*_, r) = distances(W, Z), right_chain(W, Z, b)
    return chain([float(A.norm()) for A in W], [float(A.norm()) for A in Z], moved, r)


def sum_of_distances(W, Z, b):
    moved = distances(W, Z)
    return chain(spectral(W), spectral(Z), moved, sum(moved) + sum(float(c.norm()) for c in b))


def distance_squared(W, Z, b):
    *_, r = right_chain(W, Z, b)
    return chain(spectral(W), spectral(Z), distances(W, Z), r**2)


def biases_in_each_layer(W, Z, b):
    moved = [math.hypot(a, float(c.norm())) for a, c in zip(distances(W, Z), b, strict=True)]
    return chain(spectral(W), spectral(Z), moved, math.hypot(*moved))


def spectral_distances(W, Z, b):
    *_, r = right_chain(W, Z, b)
    return chain(spectral(W), spectral(Z), spectral([A - B for A, B in zip(W, Z, strict=True)]), r)


def trained_norms_in_the_bounds(W, Z, b):
    *_, r = right_chain(W, Z, b)
    return chain(spectral(W), spectral(W), distances(W, Z), r)


def moved_in_place(W, Z, b):
    found = right_chain(W, Z, b)
    for A, B in zip(W, Z, strict=True):
        A -= B
    return found


# --- 1.3


def recursion(z_spec: list[float], first: float, step: Any) -> Tensor:
    found = [first]
    for z in z_spec:
        found.append(step(z, found[-1]))
    return torch.tensor(found[1:], dtype=torch.float64)


def trailing_r_dropped(z_spec, r, x_norm):
    return recursion(z_spec, x_norm, lambda z, a: (z + r) * a)


def bias_scaled(z_spec, r, x_norm):
    return recursion(z_spec, x_norm, lambda z, a: (z + r) * (a + 1))


def weights_kept(z_spec, r, x_norm):
    return recursion(z_spec, x_norm, lambda z, a: z * a + r)


def start_included(z_spec, r, x_norm):
    found = recursion(z_spec, x_norm, lambda z, a: (z + r) * a + r)
    return torch.cat([torch.tensor([x_norm], dtype=torch.float64), found])


def last_layer_first(z_spec, r, x_norm):
    return recursion(z_spec[::-1], x_norm, lambda z, a: (z + r) * a + r)


def output_alone(z_spec, r, x_norm):
    return recursion(z_spec, x_norm, lambda z, a: (z + r) * a + r)[-1]


def norms_popped(z_spec, r, x_norm):
    copy, found = list(z_spec), []
    while z_spec:
        z_spec.pop()
    for z in copy:
        found.append((z + r) * (found[-1] if found else x_norm) + r)
    return torch.tensor(found, dtype=torch.float64)


# --- 1.4


def through(W: list[Tensor], v: Tensor) -> Tensor:
    return functools.reduce(lambda h, A: A @ h, W, v).squeeze()


def size(parts: Any) -> float:
    return math.sqrt(sum(float(part.square().sum()) for part in parts))


def ascent(Z: list[Tensor], v: Tensor, r: float, back: Any, steps: int = 300) -> tuple[float, list[Tensor]]:
    """Climbs from Z by tenths of r; `back` takes the moves of all layers and returns allowed ones."""
    W = [A.clone() for A in Z]
    for _ in range(steps):
        W = [A.requires_grad_() for A in W]
        gradients = torch.autograd.grad(through(W, v), W)
        length = size(gradients)
        W = [A.detach() + 0.1 * r * G / length for A, G in zip(W, gradients, strict=True)]
        moves = back([A - B for A, B in zip(W, Z, strict=True)])
        W = [B + move for B, move in zip(Z, moves, strict=True)]
    return float(through(W, v)), W


def one_ball(r: float) -> Any:
    return lambda moves: [move * min(1.0, r / max(size(moves), 1e-300)) for move in moves]


def right_climb(Z, v, r):
    return ascent(Z, v, r, one_ball(r))


def start_returned(Z, v, r):
    return float(through(Z, v)), Z


def a_ball_for_each_layer(Z, v, r):
    def back(moves):
        return [move * min(1.0, r / max(float(move.norm()), 1e-300)) for move in moves]

    return ascent(Z, v, r, back)


def never_back(Z, v, r):
    return ascent(Z, v, r, lambda moves: moves)


def few_steps(Z, v, r):
    return ascent(Z, v, r, one_ball(r), steps=3)


def equal_shares(Z, v, r):
    """A ball of its own again, but of a size that makes the whole feasible."""
    own = r / math.sqrt(len(Z))

    def back(moves):
        return [move * min(1.0, own / max(float(move.norm()), 1e-300)) for move in moves]

    return ascent(Z, v, r, back)


def bound_for_value(Z, v, r):
    _, W = right_climb(Z, v, r)
    return float(v.norm()) * math.prod(z + r for z in spectral(Z)), W


def last_layer_alone(Z, v, r):
    h = through(Z[:-1], v).reshape(-1)
    W = [*Z[:-1], Z[-1] + r * h / h.norm()]
    return float(through(W, v)), W


def downhill(Z, v, r):
    _, W = ascent([-Z[0], *Z[1:]], v, r, one_ball(r))
    W = [-W[0], *W[1:]]
    return float(through(W, v)), W


def climbed_in_place(Z, v, r):
    value, W = right_climb(Z, v, r)
    for A, B in zip(Z, W, strict=True):
        A.copy_(B)
    return value, W


# --- other ways that are right


def layer_after_layer(dims, sds):
    F2 = [rows * columns * sd**2 for columns, rows, sd in zip(dims, dims[1:], sds, strict=False)]
    spec = [sd * (rows**0.5 + columns**0.5) for columns, rows, sd in zip(dims, dims[1:], sds, strict=False)]
    return torch.tensor(F2, dtype=torch.float64), torch.tensor(spec, dtype=torch.float64)


def tensors_for_floats(W, Z, b):
    return tuple(torch.tensor(value, dtype=torch.float64) for value in right_chain(W, Z, b))


def recursion_solved(z_spec, r, x_norm):
    factors = np.array(z_spec) + r
    through = [[factors[j : k + 1].prod() for j in range(k + 2)] for k in range(len(factors))]
    return torch.tensor([row[0] * x_norm + r * sum(row[1:]) for row in through], dtype=torch.float64)


def always_on_the_sphere(Z, v, r):
    """A hundred steps of a power iteration, shifted so that it cannot jump to and fro."""
    moves = [torch.zeros_like(A) for A in Z]
    for _ in range(100):
        W = [(A + r * move).requires_grad_() for A, move in zip(Z, moves, strict=True)]
        gradients = torch.autograd.grad(through(W, v), W)
        moves = [move + G / size(gradients) for move, G in zip(moves, gradients, strict=True)]
        moves = [move / size(moves) for move in moves]
    W = [A + r * move for A, move in zip(Z, moves, strict=True)]
    return through(W, v), W


class TestNotebook1(ExerciseTests):
    number = 1
    names = {"1.1": "layer_norms", "1.2": "norm_chain", "1.3": "output_bound", "1.4": "ball_sup"}
    wrong = {
        "1.1": {
            "square root for F2": (norm_for_its_square, r"F2: 200 draws of .* have a mean of .*, and not"),
            "sd where sd² belongs": (sd_for_variance, r"F2: 200 draws of .* have a mean of .*, and not"),
            "√F2 for spec": (frobenius_for_spectral, "spec, dims = .* should be .*, ratio"),
            "√(rows + columns)": (sum_under_the_root, "spec, dims = .* got torch.float32"),
            "columns forgotten": (fan_in_forgotten, r"F2: 200 draws of .* have a mean of .*, and not"),
            "layers reversed": (layers_reversed, "spec, dims = .* should be"),
            "one random draw": (one_random_draw, r"F2: 200 draws of .* have a mean of .*, and not"),
            "sizes popped": (sizes_popped, "input dims is overwritten"),
            "single precision": (single_precision_norms, "got torch.float32, should be torch.float64"),
        },
        "1.2": {
            "biases left out": (biases_left_out, "r, dims = .* should be .*, ratio 0"),
            "Frobenius for spectral": (frobenius_norms, "prod, dims = .* should be .*, ratio"),
            "r as a sum of distances": (sum_of_distances, "r, dims = .* should be .*, ratio"),
            "r squared": (distance_squared, "r, dims = .* should be .*, ratio"),
            "biases in the layers' distances": (biases_in_each_layer, "layerwise, dims = .* should be"),
            "spectral distances": (spectral_distances, "layerwise, dims = .* should be .*, ratio 0"),
            "W where Z belongs": (trained_norms_in_the_bounds, "layerwise, dims = .* should be"),
            "W moved in place": (moved_in_place, "input W is overwritten"),
        },
        "1.3": {
            "trailing r dropped": (trailing_r_dropped, r"‖x‖ = .*, d = 1: .* should be .*, ratio 0"),
            "(z + r)(a + 1)": (bias_scaled, "r = 0, d = 1: .* should be"),
            "weights kept": (weights_kept, r"‖x‖ = .*, d = 1: .* should be"),
            "a_0 included": (start_included, r"r = 0, d = 1: got shape \(2,\), should be \(1,\)"),
            "last layer first": (last_layer_first, "r = 0, d = 2: .* should be"),
            "output alone": (output_alone, r"got shape \(\), should be \(1,\)"),
            "norms popped": (norms_popped, "input z_spec is overwritten"),
        },
        "1.4": {
            "Z returned": (start_returned, r"d = 1, r = 0.3: .*; moving a single layer reaches"),
            "a ball for each layer": (a_ball_for_each_layer, "all layers together, W is .* from Z; allowed"),
            "never back to the ball": (never_back, "all layers together, W is .* from Z; allowed"),
            "three steps": (few_steps, "moving a single layer reaches"),
            "r/√d for each layer": (equal_shares, "d = [23], r = .*; moving a single layer reaches"),
            "the bound as the value": (bound_for_value, "the value, against that of the W returned"),
            "last layer alone": (last_layer_alone, r"moving a single layer reaches|% of the supremum"),
            "downhill": (downhill, "less than at a smaller r"),
            "Z climbs along": (climbed_in_place, "input Z is overwritten"),
        },
    }
    right = {
        "1.1": {"layer after layer": layer_after_layer},
        "1.2": {"tensors for floats": tensors_for_floats},
        "1.3": {"the recursion solved": recursion_solved},
        "1.4": {"matrices one by one": right_climb, "always on the sphere": always_on_the_sphere},
    }

    def test_labkit_agrees_with_the_solutions(self) -> None:
        """Lesson and exercises would teach two definitions of one norm or bound."""
        dims, sds = [64, 40, 40, 10], [0.3, 0.2, 0.5]
        F2, spec = self.solution("1.1")(dims, sds)
        norms = theory.initial_norms(dims, sds)
        assert F2.numpy() == pytest.approx(norms.frobenius_squared, rel=1e-12)
        assert spec.numpy() == pytest.approx(norms.spectral, rel=1e-12)

        nets = [labkit.mlp(6, 7, 2, 3, seed=seed, dtype=torch.float64) for seed in (0, 1)]
        W, Z = ([layer.weight.detach() for layer in net.layers] for net in nets)
        b = [torch.full((len(A),), 0.1, dtype=torch.float64) for A in W]
        found = self.solution("1.2")(W, Z, b)
        products = theory.spectral_products(spectral(W), spectral(Z), distances(W, Z), found[3])
        assert found[:3] == pytest.approx((products.product, products.layerwise, products.with_r), rel=1e-12)

        bound = theory.output_bound(spectral(Z), 1.5, 2.0)
        assert self.solution("1.3")(spectral(Z), 1.5, 2.0).numpy() == pytest.approx(bound, rel=1e-12)

        v = torch.arange(1.0, 7.0, dtype=torch.float64)
        value, _ = self.solution("1.4")([*Z[:-1], Z[-1][:1]], v, 1.5)
        ceiling = theory.supremum_bound(spectral([*Z[:-1], Z[-1][:1]]), 1.5, float(v.norm()))
        assert 0.1 * ceiling < value < ceiling

    def test_climb_to_the_supremum_is_not_beaten_from_random_starts(self) -> None:
        """A solution that stops at a poor maximum would let answers pass that do the same."""
        generator = torch.Generator().manual_seed(0)
        Z = [
            torch.randn(b, a, generator=generator, dtype=torch.float64) / 2 for a, b in pairwise((5, 6, 4, 1))
        ]
        v = torch.randn(5, generator=generator, dtype=torch.float64)
        value, _ = self.solution("1.4")(Z, v, 1.5)
        for _ in range(10):
            start = [torch.randn(A.shape, generator=generator, dtype=torch.float64) for A in Z]
            start = [B + 1.5 * move / size(start) for B, move in zip(Z, start, strict=True)]

            def back(moves, start=start):  # measured from Z, though the climb starts elsewhere
                away = [B + move - A for A, B, move in zip(Z, start, moves, strict=True)]
                return [A - B + part for A, B, part in zip(Z, start, one_ball(1.5)(away), strict=True)]

            other, _ = ascent(start, v, 1.5, back)
            assert value >= other - 1e-6 * abs(other)

    def test_provable_item_of_1_5_is_the_one_on_the_sheet(self) -> None:
        """11,900 on 64 inputs under Glorot, and not 16³ = 4096."""
        provable = solved_prediction()["provable"]
        assert provable == {"factor": pytest.approx(131072 / 11)}
        dims = [[64, H, H, H, H, 10] for H in (40, 640)]
        products = [
            theory.initial_norms(sizes, theory.xavier_sds("glorot", sizes)).frobenius_squared.prod()
            for sizes in dims
        ]
        assert provable["factor"] == pytest.approx(products[1] / products[0], rel=1e-12)

    def test_open_items_of_1_5_are_never_marked(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Nobody knows them before the run; an opinion would reward guessing."""
        namespace = solved_prediction()
        filled = {
            "factor": 4096, "r with H": "grows", "r ratio": 0.5, "origin ratio": 3, "r with noise": "grows",
            "reacts more": "1000",
        }  # fmt: skip
        for factor, mark in ((4096, "not right"), (11_900, "right")):
            filled["factor"] = factor
            namespace["check_prediction"](
                filled, filled, namespace["allowed"], namespace["provable"], name="1.5"
            )
            assert capsys.readouterr().out.splitlines() == [
                "1.5: prediction: complete",
                "1.5: observed: complete",
                f"1.5: provable: factor: {mark}",
            ]

    def test_prediction_and_allowed_values_have_the_same_items(self) -> None:
        """An item without allowed values can never be filled."""
        namespace = solved_prediction()
        assert list(namespace["prediction"]) == list(namespace["allowed"]) == list(namespace["observed"])

    def test_open_question_has_its_rubric_folded_in(self) -> None:
        """One point a line, and out of sight until asked for."""
        source = exercises(1).source("solution-1.6")
        assert source.startswith("<details>") and source.rstrip().endswith("</details>")
        assert all(f"\n{line}. " in source for line in (1, 2, 3))


def solved_prediction() -> dict[str, Any]:
    cells, namespace = exercises(1), {}
    cells.run(namespace, "exercises-setup", "exercise-1.5", "tests-1.5")
    return namespace
