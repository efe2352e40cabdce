"""The climb of Thm 5.1: against closed forms, a plain loop on dense matrices, and the theorem's bound."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.measure.rademacher import STEP, Supremum, ball_sup, rademacher_lower
from labkit.theory.distance import supremum_bound

F64 = torch.float64


def network(dims, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return [
        scale * math.sqrt(2 / (a + b)) * torch.randn(b, a, generator=generator, dtype=F64)
        for a, b in pairwise(dims)
    ]


def points(m, n, seed=1):
    return torch.randn(m, n, generator=torch.Generator().manual_seed(seed), dtype=F64)


def value(found: Supremum, v, s):
    """The objective at the network found, layer by layer."""
    h = v
    for w, b in zip(found.weights, found.biases, strict=True):
        h = w @ h + s * b
    return float(h)


def distance(found: Supremum, Z):
    moved = sum(float(((w - z) ** 2).sum()) for w, z in zip(found.weights, Z, strict=True))
    return math.sqrt(moved + sum(float((b**2).sum()) for b in found.biases))


def spectral(Z):
    return [float(torch.linalg.matrix_norm(z, 2)) for z in Z]


@pytest.mark.parametrize("s", [0.0, -3.0, 2.0])
def test_one_layer_has_a_closed_form(s):
    """v.z + r |(v, s)|. Catches biases outside the ball, and |v| + |s|."""
    Z, v, r = network((7, 1)), points(1, 7)[0], 1.7
    exact = float(Z[0][0] @ v) + r * math.sqrt(float(v @ v) + s**2)
    assert ball_sup(Z, v, r, s=s).value == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_a_start_near_zero_gives_the_closed_form_of_deep_linear_networks(depth):
    """|v| (r/sqrt(d))^d without biases. Catches a ball of radius r for each layer: r^d instead."""
    dims = (5, *[6] * (depth - 1), 1)
    Z, v, r = network(dims, scale=1e-4), points(1, 5)[0], 2.0
    exact = float(v.norm()) * (r / math.sqrt(depth)) ** depth
    assert ball_sup(Z, v, r).value == pytest.approx(exact, rel=1e-3)
    assert ball_sup(Z, v, r).value >= exact * (1 - 1e-3)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    hidden=st.lists(st.integers(1, 6), max_size=3),
    r=st.sampled_from([0.0, 1e-3, 0.5, 3.0, 50.0]),
    s=st.sampled_from([0.0, 1.0, -4.0]),
)
def test_the_network_found_is_feasible_and_attains_its_value(seed, hidden, r, s):
    """Catches a value that no network of the ball has, such as one kept from before a projection."""
    Z, v = network((4, *hidden, 1), seed), points(1, 4, seed)[0]
    found = ball_sup(Z, v, r, s=s, steps=80)
    assert distance(found, Z) <= r + 1e-9 * max(r, 1)
    assert value(found, v, s) == pytest.approx(found.value, rel=1e-9, abs=1e-9)
    assert found.value <= float(supremum_bound(spectral(Z), r, float(v.norm()), abs(s))) * (1 + 1e-9)
    assert s or all(float(b.abs().max()) == 0 for b in found.biases)


def test_without_a_ball_the_value_is_that_of_the_start():
    """r = 0. Catches a division by the radius."""
    Z, v = network((4, 5, 1)), points(1, 4)[0]
    assert ball_sup(Z, v, 0.0, s=2.0).value == pytest.approx(float(Z[1] @ Z[0] @ v), rel=1e-12)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), depth=st.integers(1, 4))
def test_a_larger_ball_gives_no_smaller_value(seed, depth):
    """Catches a climb that goes astray for some radii; up to the 1e-6 by which a climb may stop early."""
    Z, x = network((5, *[6] * (depth - 1), 1), seed), points(6, 5, seed)
    found = [
        rademacher_lower(Z, x, r, draws=3, restarts=3, steps=300).values for r in (0, 0.3, 0.6, 1.2, 2.4)
    ]
    for smaller, larger in pairwise(found):
        assert (smaller <= larger * (1 + 1e-6) + 1e-9).all()


def signs_of(x, draws, seed):
    generator = torch.Generator().manual_seed(seed)
    return 2.0 * torch.randint(2, (draws, len(x)), generator=generator).to(F64) - 1, generator


def plain_climbs(Z, x, r, *, draws, restarts, steps, seed):
    """The definition, one climb at a time, with dense displacements and no shortcut."""
    signs, generator = signs_of(x, draws, seed)
    P = draws * restarts
    lefts = [torch.randn(P, len(z), generator=generator, dtype=F64) / math.sqrt(len(z)) for z in Z]
    rights = [
        torch.randn(P, z.shape[1] + 1, generator=generator, dtype=F64) / math.sqrt(z.shape[1] + 1) for z in Z
    ]
    found = []
    for p in range(P):
        xi = signs[p // restarts]
        v, s = xi @ x, float(xi.sum())
        moves = [torch.outer(left[p], right[p]) for left, right in zip(lefts, rights, strict=True)]
        moves = [(move[:, :-1], move[:, -1]) for move in moves]
        size = math.sqrt(sum(float((w**2).sum() + (b**2).sum()) for w, b in moves))
        moves = [(r * w / size, r * b / size) for w, b in moves]
        best = -math.inf
        for step in range(steps + 1):
            h = [v]
            for z, (w, b) in zip(Z, moves, strict=True):
                h.append((z + w) @ h[-1] + s * b)
            best = max(best, float(h[-1]))
            if step == steps:
                break
            delta = [torch.ones(1, dtype=F64)]
            for z, (w, _) in list(zip(Z, moves, strict=True))[:0:-1]:
                delta.insert(0, (z + w).T @ delta[0])
            gradient = [(torch.outer(d, before), s * d) for d, before in zip(delta, h[:-1], strict=True)]
            size = math.sqrt(sum(float((w**2).sum() + (b**2).sum()) for w, b in gradient))
            moves = [
                (w + STEP * r * gw / size, b + STEP * r * gb / size)
                for (w, b), (gw, gb) in zip(moves, gradient, strict=True)
            ]
            size = math.sqrt(sum(float((w**2).sum() + (b**2).sum()) for w, b in moves))
            if size > r:
                moves = [(r * w / size, r * b / size) for w, b in moves]
        found.append(best / len(x))
    return torch.tensor(found, dtype=F64).view(draws, restarts)


@pytest.mark.parametrize(
    ("dims", "r"), [((4, 1), 1.0), ((4, 6, 1), 0.7), ((4, 6, 5, 1), 2.0), ((3, 2, 7, 4, 1), 9.0)]
)
@pytest.mark.parametrize("steps", [1, 5, 60])
def test_the_batched_climb_equals_a_plain_loop(dims, r, steps):
    """Catches a forgotten outer product, a wrapped-round memory, and climbs that see each other's signs."""
    Z, x = network(dims), points(7, dims[0])
    # 60 steps are more than the climb remembers; alignment may end it sooner, within 1e-10 of the value.
    found = rademacher_lower(Z, x, r, draws=3, restarts=2, steps=steps, seed=5)
    plain = plain_climbs(Z, x, r, draws=3, restarts=2, steps=steps, seed=5)
    torch.testing.assert_close(found.per_restart, plain, rtol=1e-8, atol=0)


def test_the_climb_is_the_gradients_direction():
    """The two factors of a gradient, against autograd: a step of length 5r from a known point."""
    Z, v, r, s = network((3, 4, 1)), points(1, 3)[0], 0.4, 2.0
    found = ball_sup(Z, v, r, s=s, steps=400)
    parts = [t.clone().requires_grad_() for t in (*found.weights, *found.biases)]
    h = v
    for w, b in zip(parts[:2], parts[2:], strict=True):
        h = w @ h + s * b
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(h, parts)])
    displacement = torch.cat(
        [*((w - z).flatten() for w, z in zip(found.weights, Z, strict=True)), *found.biases]
    )
    # At a maximum on the sphere the displacement points along the gradient.
    assert float(gradient @ displacement) == pytest.approx(float(gradient.norm()) * r, rel=1e-8)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    hidden=st.lists(st.integers(1, 8), max_size=3),
    m=st.integers(1, 9),
    r=st.sampled_from([0.0, 0.1, 1.0, 10.0]),
    biases=st.booleans(),
)
def test_no_draw_exceeds_the_theorem(seed, hidden, m, r, biases):
    """Thm 5.1, draw by draw: the estimate is below the recursion at its own |v| and |s|."""
    Z, x = network((4, *hidden, 1), seed), points(m, 4, seed)
    found = rademacher_lower(Z, x, r, draws=4, steps=60, biases=biases, seed=seed)
    signs, _ = signs_of(x, 4, seed)
    v, s = (signs @ x).norm(dim=1).numpy(), signs.sum(1).abs().numpy() if biases else np.zeros(4)
    bound = supremum_bound(np.broadcast_to(spectral(Z), (4, len(Z))), r, v, s) / m
    assert (found.values.numpy() <= bound * (1 + 1e-9) + 1e-12).all()


def test_the_estimate_is_the_sum_over_samples_of_a_linear_network():
    """The reduction to v and s: a network of the ball, evaluated sample by sample with its signs."""
    Z, x, r = network((4, 5, 1)), points(6, 4), 0.8
    signs, _ = signs_of(x, 1, 3)
    found = rademacher_lower(Z, x, r, draws=1, restarts=4, seed=3)
    best = ball_sup(Z, (signs @ x)[0], r, s=float(signs.sum()), restarts=4)
    total = 0.0
    for xi, point in zip(signs[0], x, strict=True):
        h = point
        for w, b in zip(best.weights, best.biases, strict=True):
            h = w @ h + b
        total += float(xi * h)
    assert found.mean == pytest.approx(total / 6, rel=1e-6)
    assert math.isnan(found.stderr)


def test_the_result_says_how_sure_it_is():
    """Catches a standard error over restarts, or one that lacks the square root of the draws."""
    found = rademacher_lower(network((4, 5, 1)), points(6, 4), 1.0, draws=16, restarts=3)
    assert found.values.shape == (16,) and found.per_restart.shape == (16, 3)
    torch.testing.assert_close(found.values, found.per_restart.amax(1))
    assert found.mean == pytest.approx(float(found.values.mean()))
    assert found.stderr == pytest.approx(float(np.std(found.values.numpy(), ddof=1)) / 4)
    assert 1 <= found.steps <= 200


def test_a_seed_fixes_the_signs_whatever_the_width():
    """Catches signs drawn after the starting points: widths would be compared on different draws."""
    x = points(6, 4)
    zero = [rademacher_lower(network((4, h, 1), scale=0.0), x, 1.0, seed=2, biases=False) for h in (3, 50)]
    torch.testing.assert_close(zero[0].values, zero[1].values, rtol=1e-6, atol=0)
    again = rademacher_lower(network((4, 3, 1), scale=0.0), x, 1.0, seed=2, biases=False)
    torch.testing.assert_close(zero[0].values, again.values, rtol=0, atol=0)
    other = rademacher_lower(network((4, 3, 1), scale=0.0), x, 1.0, seed=3, biases=False)
    assert not torch.equal(zero[0].values, other.values)


def test_samples_that_cancel_leave_nothing_to_climb():
    """v = 0 and s = 0 for one draw of signs. Catches 0/0."""
    x = torch.tensor([[1.0, 2.0], [1.0, 2.0]], dtype=F64)
    found = rademacher_lower(network((2, 3, 1)), x, 1.0, draws=8)
    assert found.values.isfinite().all() and float(found.values.min()) == 0.0


def test_arguments_and_random_state_are_left_alone():
    """Catches in-place work on the caller's weights, and the global generator moved on."""
    Z, x = [z.float().requires_grad_() for z in network((4, 5, 1))], points(6, 4)
    copies, state = [z.detach().clone() for z in Z], torch.random.get_rng_state()
    found = rademacher_lower(Z, x, 1.0)
    assert all(torch.equal(z.detach(), copy) for z, copy in zip(Z, copies, strict=True))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert found.values.dtype == F64 and not found.values.requires_grad


Z2, X2 = network((4, 5, 1)), points(6, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rademacher_lower([], X2, 1.0), "Z: expected a list of matrices"),
        (lambda: rademacher_lower([Z2[0][0]], X2, 1.0), "Z: expected a list of matrices"),
        (lambda: rademacher_lower(Z2[::-1], X2, 1.0), "Z: each matrix must take"),
        (lambda: rademacher_lower(Z2[:1], X2, 1.0), "Z: Thm 5.1 is about a single output, got 5"),
        (lambda: rademacher_lower(Z2, X2[:, :3], 1.0), r"x: expected a tensor of shape \(m, 4\).*\(6, 3\)"),
        (lambda: rademacher_lower(Z2, X2[:0], 1.0), "x: expected a tensor"),
        (lambda: ball_sup(Z2, X2, 1.0), r"v: expected a tensor of shape \(4,\)"),
        (lambda: rademacher_lower(Z2, X2, -1.0), "r: expected a finite radius >= 0, got -1.0"),
        (lambda: ball_sup(Z2, X2[0], math.inf), "r: expected a finite radius"),
        (lambda: ball_sup(Z2, X2[0], 1.0, s=math.nan), "s: expected a finite number, got nan"),
        (lambda: rademacher_lower(Z2, X2, 1.0, draws=0), "draws: expected a whole number >= 1, got 0"),
        (lambda: rademacher_lower(Z2, X2, 1.0, restarts=1.5), "restarts: expected a whole number"),
        (lambda: ball_sup(Z2, X2[0], 1.0, steps=True), "steps: expected a whole number"),
    ],
)  # fmt: skip
def test_errors_name_the_argument(call, message):
    """An error from inside torch, which names nothing of ours."""
    with pytest.raises(ValueError, match=message):
        call()
