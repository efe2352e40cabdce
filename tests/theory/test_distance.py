"""Paper 1's bounds: exact constants, closed forms, and random networks that never exceed them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labkit.theory import distance as theory
from labkit.theory import gaussian

seeds = st.integers(0, 2**31)
hidden = st.lists(st.integers(1, 6), min_size=0, max_size=4)
radii = st.sampled_from([0.0, 1e-3, 0.3, 1.0, 4.0])


def spectral(matrix):
    return float(np.linalg.norm(matrix, 2))


def network(dims, r, rng, *, zero_start=False):
    """Start Z, and (W, B) at distance exactly r from (Z, 0), biases included."""
    start = [
        (0.0 if zero_start else rng.uniform(0.2, 2)) * rng.standard_normal((b, a)) for a, b in pairwise(dims)
    ]
    moves = [rng.standard_normal(z.shape) * rng.choice([0.01, 1.0]) for z in start]
    biases = [rng.standard_normal(len(z)) * rng.choice([0.0, 1.0]) for z in start]
    size = np.sqrt(sum((part**2).sum() for part in (*moves, *biases)))
    moves, biases = [r * move / size for move in moves], [r * b / size for b in biases]
    return start, [z + move for z, move in zip(start, moves, strict=True)], biases


def forward(weights, biases, x):
    """Pre-activations of every layer of a ReLU network."""
    found, h = [], x
    for w, b in zip(weights, biases, strict=True):
        found.append(w @ h + b)
        h = np.maximum(found[-1], 0)
    return found


@given(seed=seeds, sizes=hidden, r=radii, zero=st.booleans())
def test_output_bound_is_never_exceeded_on_the_sphere_of_radius_r(seed, sizes, r, zero):
    """Thm C.1. Catches the trailing + r dropped (zero start, x = 0: biases alone) and a wrong order."""
    rng = np.random.default_rng(seed)
    dims = (rng.integers(1, 6), *sizes, rng.integers(1, 4))
    start, weights, biases = network(dims, r, rng, zero_start=zero)
    x = rng.standard_normal(dims[0]) * rng.choice([0.0, 0.1, 3.0])
    bounds = theory.output_bound([spectral(z) for z in start], r, np.linalg.norm(x))
    found = [np.linalg.norm(h) for h in forward(weights, biases, x)]
    assert (np.array(found) <= bounds * (1 + 1e-12) + 1e-300).all()


def test_output_bound_is_reached():
    """Catches a bound that is true because it is loose: scalar layers, and all of r in one weight."""
    np.testing.assert_allclose(theory.output_bound([2, 2, 2], 0.5, 1), [3, 8, 20.5])
    np.testing.assert_allclose(theory.output_bound([3.0], 0.5, 2.0), 0.5 + 3.5 * 2.0)
    np.testing.assert_allclose(theory.output_bound([3.0, 4.0], 0.0, 2.0), [6.0, 24.0])
    np.testing.assert_allclose(theory.output_bound([0.0, 0.0], 0.5, 0.0), [0.5, 0.75])


@given(q=st.floats(0, 3), r=st.floats(0, 3), x=st.floats(0, 5), depth=st.integers(1, 6))
def test_equal_layers_have_a_closed_form(q, r, x, depth):
    """The geometric sum. Catches (q + r)(a + 1)."""
    factor = q + r
    closed = factor**depth * x + r * sum(factor**j for j in range(depth))
    assert theory.output_bound([q] * depth, r, x)[-1] == pytest.approx(closed, rel=1e-12)


def test_the_order_of_layers_matters_only_through_the_biases():
    """Catches a recursion run from the output to the input."""
    assert theory.output_bound([5.0, 1.0], 1.0, 0.0)[-1] == 1 * 2 + 1
    assert theory.output_bound([1.0, 5.0], 1.0, 0.0)[-1] == 1 * 6 + 1


def gradients(weights, biases, x, output):
    """Autograd: d f_output / d W_k and d b_k."""
    ws = [torch.tensor(w, requires_grad=True) for w in weights]
    bs = [torch.tensor(b, requires_grad=True) for b in biases]
    h = torch.tensor(x)
    for k, (w, b) in enumerate(zip(ws, bs, strict=True)):
        h = w @ (h.relu() if k else h) + b
    found = torch.autograd.grad(h[output], [*ws, *bs], materialize_grads=True)
    return [g.norm().item() for g in found[: len(ws)]], [g.norm().item() for g in found[len(ws) :]]


@given(seed=seeds, sizes=hidden, r=radii)
def test_gradient_bound_is_never_exceeded(seed, sizes, r):
    """Thm C.2 against autograd. Catches a product that starts one layer too early, or too late."""
    rng = np.random.default_rng(seed)
    dims = (rng.integers(1, 6), *sizes, rng.integers(1, 4))
    start, weights, biases = network(dims, r, rng)
    x = rng.standard_normal(dims[0])
    bound = theory.gradient_bound([spectral(z) for z in start], r, np.linalg.norm(x))
    by_weight, by_bias = gradients(weights, biases, x, int(rng.integers(dims[-1])))
    slack = 1 + 1e-12
    assert (np.array(by_weight) <= bound.weights * slack).all()
    assert (np.array(by_bias) <= bound.biases * slack).all()
    assert np.linalg.norm(by_weight) <= bound.total * slack


def test_gradient_bound_is_reached_by_scalar_layers():
    """Catches a loose bound: one unit a layer, positive weights, r = 0, where every inequality is equal."""
    z, x = [2.0, 3.0, 5.0], 7.0
    by_weight, by_bias = gradients([np.array([[v]]) for v in z], [np.zeros(1)] * 3, np.array([x]), 0)
    bound = theory.gradient_bound(z, 0.0, x)
    np.testing.assert_allclose(bound.weights, by_weight)
    np.testing.assert_allclose(bound.biases, by_bias)
    np.testing.assert_allclose(bound.total, np.linalg.norm(by_weight))


@given(seed=seeds, sizes=hidden, r=radii)
def test_the_three_levels_of_prop_6_2_are_ordered(seed, sizes, r):
    """Catches Frobenius for spectral norms, and r as anything less than all layers and biases together."""
    rng = np.random.default_rng(seed)
    dims = (3, *sizes, 2)
    start, weights, _ = network(dims, r, rng)
    moved = [np.linalg.norm(w - z) for w, z in zip(weights, start, strict=True)]
    levels = theory.spectral_products([spectral(w) for w in weights], [spectral(z) for z in start], moved, r)
    slack = 1 + 1e-12
    assert levels.product <= levels.layerwise * slack
    assert levels.layerwise <= levels.with_r * slack


def test_prop_6_2_is_equal_at_the_start_and_in_one_layer():
    """Catches any slack that should not be there."""
    levels = theory.spectral_products([3.0], [1.0], [2.0], 2.0)
    assert (levels.product, levels.layerwise, levels.with_r) == (3.0, 3.0, 3.0)
    levels = theory.spectral_products([3.0, 2.0], [3.0, 2.0], [0.0, 0.0], 0.0)
    assert (levels.product, levels.layerwise, levels.with_r) == (6.0, 6.0, 6.0)
    # A distance that is too small is not mended, and not refused: the order breaks.
    levels = theory.spectral_products([3.0], [1.0], [2.0], 0.0)
    assert (levels.product, levels.layerwise, levels.with_r) == (3.0, 3.0, 1.0)


def test_bounds_broadcast_over_seeds_and_frames():
    """Catches a bound that takes the last axis of r for layers."""
    rng = np.random.default_rng(0)
    z, r, x = rng.uniform(0, 2, (3, 1, 4)), rng.uniform(0, 2, (3, 5)), rng.uniform(0, 2, (3, 5))
    outputs, gradient = theory.output_bound(z, r, x), theory.gradient_bound(z, r, x)
    levels = theory.spectral_products(z, z, np.zeros((3, 1, 4)), r)
    assert outputs.shape == gradient.weights.shape == gradient.biases.shape == (3, 5, 4)
    assert gradient.total.shape == levels.with_r.shape == (3, 5)
    for i, j in np.ndindex(3, 5):
        np.testing.assert_allclose(outputs[i, j], theory.output_bound(z[i, 0], r[i, j], x[i, j]))
        single = theory.gradient_bound(z[i, 0], r[i, j], x[i, j])
        np.testing.assert_allclose(gradient.weights[i, j], single.weights)
        np.testing.assert_allclose(levels.with_r[i, j], (z[i, 0] + r[i, j]).prod())


@given(seed=seeds, sizes=hidden)
def test_the_initial_loss_is_below_its_bound(seed, sizes):
    """Cor. C.1.1 with K outputs. Catches the target left out, and a division by K forgotten on one side."""
    rng = np.random.default_rng(seed)
    outputs = int(rng.integers(1, 4))
    start, _, _ = network((3, *sizes, outputs), 0.0, rng)
    x, y = rng.standard_normal((6, 3)), np.eye(outputs)[rng.integers(outputs, size=6)]
    f = np.array([forward(start, [np.zeros(len(z)) for z in start], point)[-1] for point in x])
    loss = ((f - y) ** 2).mean()
    z, size = [spectral(w) for w in start], np.linalg.norm(x, axis=1).max()
    assert loss <= theory.initial_loss_bound(z, size, 1.0, outputs) * (1 + 1e-12)
    assert theory.initial_loss_bound([2.0], 3.0, 1.0, 2) == pytest.approx(49 / 2)


@pytest.mark.parametrize("init", ["glorot", "glorot-normal", "inverse-sqrt-width", "lecun", "he"])
def test_standard_deviations_are_those_of_the_models(init):
    """Catches a table that drifts from labkit.models.init: fan-in taken for fan-out, variance for sd."""
    from labkit.models import mlp

    dims = theory.layer_shapes(30, 200, 3, 20)
    assert dims == (30, 200, 200, 20)
    weights = [p.detach() for p in mlp(30, 200, 2, 20, init=init, bias=False, seed=1).parameters()]
    for sd, weight in zip(theory.xavier_sds(init, dims), weights, strict=True):
        # The relative error of a sample's sd is at most 1/sqrt(2 N) for these laws.
        assert weight.double().square().mean().sqrt() == pytest.approx(
            sd, rel=6 / np.sqrt(2 * weight.numel())
        )


def test_initial_norms_of_a_small_network():
    """The values of exercise 1.1. Catches the square root returned for F^2."""
    norms = theory.initial_norms([2, 3, 1], [1, 0.5])
    np.testing.assert_allclose(norms.frobenius_squared, [6, 0.75])
    np.testing.assert_allclose(norms.spectral, [np.sqrt(3) + np.sqrt(2), 0.5 * (1 + np.sqrt(3))])
    np.testing.assert_allclose(norms.spectral[0], gaussian.gaussian_spectral(3, 2))


@pytest.mark.parametrize("depth", [3, 4, 5, 6])
def test_the_product_grows_with_the_limit_d_minus_2(depth):
    """Prop. 6.1. Catches an exponent of d - 1 or d; under lecun it is d - 1, as D2 should notice."""
    widths = 2.0 ** np.arange(5, 25)

    def exponents(init, inputs=64):
        curve = []
        for width in widths:
            dims = theory.layer_shapes(inputs, int(width), depth, 10)
            curve.append(theory.initial_norms(dims, theory.xavier_sds(init, dims)).frobenius_squared.prod())
        return theory.local_exponent(widths, curve)

    assert exponents("inverse-sqrt-width") == pytest.approx([depth - 2] * (len(widths) - 1))
    assert exponents("glorot")[-1] == pytest.approx(depth - 2, abs=1e-3)
    assert exponents("glorot")[0] > depth - 2 + 0.5
    assert exponents("lecun")[-1] == pytest.approx(depth - 1, abs=1e-3)


def test_the_sheets_value_for_784_inputs():
    """D2's note: with 784 inputs and Glorot the slope for d = 5 is still 3.2 at H = 5120."""
    values = []
    for width in (2560, 5120):
        dims = theory.layer_shapes(784, width, 5, 10)
        values.append(theory.initial_norms(dims, theory.xavier_sds("glorot", dims)).frobenius_squared.prod())
    assert theory.local_exponent([2560, 5120], values)[0] == pytest.approx(3.18, abs=0.01)


def test_local_exponents_are_slopes_between_neighbours():
    """Catches natural logarithms on one side only."""
    np.testing.assert_allclose(theory.local_exponent([1, 2, 8], [[3, 12, 192], [1, 1, 4]]), [[2, 2], [0, 1]])


@given(seed=seeds, sizes=hidden, r=radii, biases=st.booleans())
def test_supremum_bound_is_above_every_point_of_the_ball(seed, sizes, r, biases):
    """Thm 5.1's deterministic step, on linear networks summed sample by sample. Catches biases not summed."""
    rng = np.random.default_rng(seed)
    dims = (3, *sizes, 1)
    start, weights, shifts = network(dims, r, rng)
    if not biases:
        shifts = [np.zeros_like(b) for b in shifts]
    x, signs = rng.standard_normal((5, 3)), rng.choice([-1.0, 1.0], 5)
    total = 0.0
    for xi, point in zip(signs, x, strict=True):
        h = point
        for w, b in zip(weights, shifts, strict=True):
            h = w @ h + b
        total += xi * h[0]
    v, s = np.linalg.norm(signs @ x), abs(signs.sum()) if biases else 0.0
    bound = theory.supremum_bound([spectral(z) for z in start], r, v, s)
    assert abs(total) <= bound * (1 + 1e-12) + 1e-12


def test_rademacher_bound_is_the_recursion_with_khintchines_means():
    """Catches a missing 1/m, max|x| for the root of the sum of squares, and sqrt(m) per layer forgotten."""
    z, r, norms = [2.0, 3.0], 0.5, np.array([1.0, 2.0, 2.0, 4.0])
    by_hand = ((3.5 * (2.5 * 5.0 + 0.5 * 2.0)) + 0.5 * 2.0) / 4
    assert theory.rademacher_bound(z, r, norms) == pytest.approx(by_hand)
    assert theory.rademacher_bound(z, r, norms, biases=False) == pytest.approx(3.5 * 2.5 * 5.0 / 4)
    per_seed = theory.rademacher_bound(np.array([[2.0, 3.0], [1.0, 1.0]]), np.array([0.5, 0.1]), norms)
    assert per_seed.shape == (2,) and per_seed[0] == pytest.approx(by_hand)
    # Four times the samples halve it.
    assert theory.rademacher_bound(z, r, np.tile(norms, 4)) == pytest.approx(by_hand / 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.layer_shapes(0, 5, 2), "inputs: expected an integer >= 1, got 0"),
        (lambda: theory.layer_shapes(3, 5, 0), "depth: expected an integer >= 1, got 0"),
        (lambda: theory.xavier_sds("orthogonal", (2, 3)), "init: expected one of glorot, .*'orthogonal'"),
        (lambda: theory.xavier_sds("inverse-sqrt-width", (2, 3, 4, 1)), "dims: .* one hidden width"),
        (lambda: theory.xavier_sds("glorot", (2,)), "dims: expected"),
        (lambda: theory.initial_norms((2, 3, 1), [1.0]), "sds: expected one a layer, 2 for dims"),
        (lambda: theory.initial_norms((2, 2.5), 1.0), "dims: expected"),
        (lambda: theory.initial_norms((2, 3), 0.0), "sd: expected standard deviations > 0"),
        (lambda: theory.local_exponent([1, 2], [1.0, 2.0, 3.0]), "y: expected shape"),
        (lambda: theory.local_exponent([1, 2], [1.0, 0.0]), "positive"),
        (lambda: theory.local_exponent([2, 2], [1.0, 1.0]), "neighbours in x different"),
        (lambda: theory.output_bound([1.0, -1.0], 1.0, 1.0), "z_spec: expected norms >= 0"),
        (lambda: theory.output_bound(1.0, 1.0, 1.0), "z_spec: expected a 1-D"),
        (lambda: theory.output_bound([], 1.0, 1.0), "z_spec: expected norms >= 0, at least one"),
        (lambda: theory.gradient_bound([1.0], -0.1, 1.0), "r: expected norms >= 0"),
        (lambda: theory.initial_loss_bound([1.0], 1.0, 1.0, 0), "outputs: expected an integer >= 1"),
        (lambda: theory.supremum_bound([1.0], 1.0, -1.0), "v_norm: expected norms >= 0"),
        (lambda: theory.rademacher_bound([1.0], 1.0, [[1.0]]), "x_norms: expected a 1-D array"),
        (lambda: theory.rademacher_bound([1.0], float("nan"), [1.0]), "r: contains NaN"),
    ],
)  # fmt: skip
def test_errors_name_the_argument(call, message):
    """An error from inside NumPy, which names nothing of ours."""
    with pytest.raises(ValueError, match=message):
        call()


def test_the_table_names_functions_that_exist():
    """Catches a table that drifts from the code."""
    for module in (theory, gaussian):
        table = (module.__doc__ or "").split("Names:")[0].split("What is proved")[0]
        for word in table.replace(",", " ").replace(";", " ").split():
            head, _, tail = word.partition(".")
            if head in ("gaussian", "distance") and tail:
                assert hasattr({"gaussian": gaussian, "distance": theory}[head], tail), word
            elif "_" in word and word.isidentifier():
                assert word in module.__all__, word
