"""Flatness radius: closed forms along a direction, by hand on networks, and what may not be touched."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from torch import Tensor, nn
from torch.nn import functional as F

from labkit import models
from labkit.measure.flatness import first_crossing, flatness_profile, flatness_radius, top_layer
from labkit.measure.sharpness import parameter_vector

EXACT = 2e-3  # the search halves to a part in a thousand


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem(bias: bool = True) -> tuple[nn.Module, Tensor, Tensor]:
    """A small classifier with labels of its own, so that its loss is low but not at a minimum."""
    model = models.mlp(5, 8, 1, 3, bias=bias, seed=3, dtype=torch.float64)
    x = drawn(30, 5, seed=1)
    return model, x, model(x).argmax(1)


# Along one direction.


def test_the_example_of_the_sheet() -> None:
    """A length that is not taken out: 0.2 in any direction."""
    for direction in (torch.ones(3), 7 * torch.eye(3)[1], torch.tensor([1.0, -2.0, 0.5])):
        found = first_crossing(lambda v: float(v @ v) / 2, torch.zeros(3), direction, 0.02, 10.0)
        assert found == pytest.approx(0.2, rel=EXACT)


@given(
    st.integers(1, 6),
    st.integers(0, 1000),
    st.floats(1e-3, 10.0),
    st.floats(1e-2, 100.0),
)
def test_quadratics_have_a_closed_form(p: int, seed: int, epsilon: float, length: float) -> None:
    """sqrt(2 eps / u^T A u), also where A has negative directions: a fall counts like a rise."""
    A, u = drawn(p, p, seed=seed), drawn(p, seed=seed + 1)
    A = (A + A.T) / 2
    curvature = abs(float(u @ A @ u)) / float(u @ u)
    expected = math.sqrt(2 * epsilon / curvature)
    found = first_crossing(lambda v: float(v @ A @ v) / 2, torch.zeros(p).double(), length * u, epsilon, 1e4)
    assert found == pytest.approx(min(expected, 1e4), rel=EXACT)


def test_a_radius_far_below_the_first_look_is_found() -> None:
    """A search that begins outside and answers with its first step."""
    found = first_crossing(lambda v: float(v @ v) / 2, torch.zeros(2), torch.ones(2), 5e-13, 1e3)
    assert found == pytest.approx(1e-6, rel=EXACT)


def test_the_first_wall_counts_and_not_the_last() -> None:
    """A second valley behind a wall: the supremum as printed in (16) would be 3."""

    def loss(v: Tensor) -> float:
        r = float(v.norm())
        return math.sin(math.pi * r) if r < 3 else 10 * (r - 3)

    found = first_crossing(loss, torch.zeros(2), torch.ones(2), 0.5, 10.0)
    assert found == pytest.approx(1 / 6, rel=EXACT)


def test_a_flat_direction_and_one_that_is_not_a_number() -> None:
    """An endless search; a network that overflows, counted as flat."""
    w, u = torch.zeros(2), torch.tensor([1.0, 0.0])
    assert first_crossing(lambda v: float(v[1]), w, u, 0.1, 7.0) == 7.0
    found = first_crossing(lambda v: math.nan if float(v[0]) > 2 else 0.0, w, u, 0.1, 100.0)
    assert found == pytest.approx(2.0, rel=EXACT)


def test_a_start_away_from_zero() -> None:
    """|L(w + r u)| > eps in place of the change."""
    found = first_crossing(lambda v: float(v.sum()), torch.full((4,), 3.0).double(), torch.ones(4), 0.5, 10.0)
    assert found == pytest.approx(0.25, rel=EXACT)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"direction": torch.zeros(2)}, r"direction has shape \(2,\) and length 0, needs"),
        ({"direction": torch.ones(3)}, r"direction has shape \(3,\).*the shape \(2,\) of w"),
        ({"epsilon": 0.0}, "epsilon is 0.0, needs a positive number"),
        ({"r_max": -1.0}, "r_max is -1.0, needs a positive number"),
        ({"r_max": math.inf}, "r_max is inf"),
    ],
)
def test_first_crossing_refuses(changes: dict[str, Any], message: str) -> None:
    """A division by zero, or an answer to another question."""
    given = {"w": torch.zeros(2), "direction": torch.ones(2), "epsilon": 0.1, "r_max": 1.0} | changes
    with pytest.raises(ValueError, match=f"^first_crossing: {message}"):
        first_crossing(lambda v: 0.0, **given)


# Of a network.


def reference(model: nn.Module, x: Tensor, y: Tensor, direction: Tensor, epsilon: float) -> float:
    """A dense scan of a copy, then Brent's method where it first leaves."""
    other = copy.deepcopy(model)
    w = parameter_vector(model)

    def loss(r: float) -> float:
        torch.nn.utils.vector_to_parameters(w + r * direction, other.parameters())
        with torch.no_grad():
            return float(F.cross_entropy(other(x), y))

    start = loss(0.0)
    grid = np.linspace(0, 30, 3001)
    over = [abs(loss(r) - start) > epsilon for r in grid]
    first = over.index(True)
    return brentq(lambda r: abs(loss(r) - start) - epsilon, grid[first - 1], grid[first])


@pytest.mark.parametrize("part", ["all", "top"])
def test_radii_of_a_network_against_a_scan(part: str) -> None:
    """A direction of another length, of other weights, or a loss over part of the samples."""
    model, x, y = problem()
    found = flatness_radius(model, x, y, directions=4, part=part, generator=5, epsilon=0.1)
    source = torch.Generator().manual_seed(5)
    p, moved = sum(v.numel() for v in model.parameters()), 3 * 8 + 3
    for radius in found.radii.tolist():
        count = p if part == "all" else moved
        direction = torch.zeros(p, dtype=torch.float64)
        direction[p - count :] = torch.randn(count, generator=source, dtype=torch.float64)
        expected = reference(model, x, y, direction / direction.norm(), 0.1)
        assert radius == pytest.approx(expected, rel=EXACT)
    assert found.mean == pytest.approx(float(found.radii.mean()))
    assert found.stderr == pytest.approx(float(found.radii.std()) / 2)
    assert found.loss == pytest.approx(F.cross_entropy(model(x), y).item(), rel=1e-12)
    assert found.capped == 0


def test_named_parts_and_what_the_top_layer_is() -> None:
    """The first layer in place of the last; a name that moves nothing."""
    model, x, y = problem()
    assert top_layer(model) == ("layers.1.weight", "layers.1.bias")
    assert top_layer(problem(bias=False)[0]) == ("layers.1.weight",)
    by_name = flatness_radius(model, x, y, part=("layers.1.weight", "layers.1.bias"), directions=3)
    assert by_name.radii.tolist() == flatness_radius(model, x, y, part="top", directions=3).radii.tolist()
    alone = flatness_radius(model, x, y, part="layers.0.bias", directions=3)
    assert alone.radii.tolist() != by_name.radii.tolist()
    with pytest.raises(ValueError, match=r"top_layer: the model has no weight layer"):
        top_layer(nn.ReLU())


def test_the_profile_walks_the_same_directions() -> None:
    """A curve that crosses epsilon elsewhere than the radius says."""
    model, x, y = problem()
    found = flatness_radius(model, x, y, directions=3, generator=2, epsilon=0.1)
    profile = flatness_profile(model, x, y, found.radii, directions=3, generator=2)
    assert profile.shape == (3, 3)
    np.testing.assert_allclose(profile.diagonal().numpy(), 0.1, rtol=0.02)
    assert flatness_profile(model, x, y, [0.0], directions=2).abs().max() == 0


def test_rescaled_units_have_the_same_function_and_another_radius() -> None:
    """The point of the whole measure: it belongs to the parameters."""
    model, x, y = problem()
    other = models.rescale_nodes(model, {0: torch.full((8,), 20.0)})
    torch.testing.assert_close(model(x), other(x))
    before, after = (flatness_radius(m, x, y, directions=5, generator=1) for m in (model, other))
    assert after.mean < before.mean / 2
    assert after.loss == pytest.approx(before.loss)


def test_a_seed_gives_the_same_directions_and_a_generator_moves_on() -> None:
    """Randomness from outside."""
    model, x, y = problem()
    a, b = (flatness_radius(model, x, y, directions=2, generator=7).radii.tolist() for _ in range(2))
    source = torch.Generator().manual_seed(7)
    c, d = (flatness_radius(model, x, y, directions=2, generator=source).radii.tolist() for _ in range(2))
    assert a == b == c != d
    chunked = flatness_radius(model, x, y, directions=2, generator=7, memory=1).radii.tolist()
    assert chunked == pytest.approx(a, rel=1e-6)


def test_a_search_of_ones_own_is_what_is_used() -> None:
    """A visible step that is ignored; it is given unit directions."""
    model, x, y = problem()
    lengths = []

    def mine(loss: Any, w: Tensor, direction: Tensor, epsilon: float, r_max: float) -> float:
        lengths.append(float(direction.norm()))
        assert (epsilon, r_max) == (0.3, 9.0)
        assert loss(w) == pytest.approx(F.cross_entropy(model(x), y).item())
        return float(len(lengths))

    found = flatness_radius(model, x, y, directions=3, epsilon=0.3, r_max=9.0, radius=mine)
    assert found.radii.tolist() == [1, 2, 3]
    np.testing.assert_allclose(lengths, 1.0)


def test_walks_that_never_leave_are_counted() -> None:
    """A mean of capped radii that looks like a measurement."""
    model, x, y = problem()
    found = flatness_radius(model, x, y, directions=3, r_max=1e-6)
    assert found.capped == 3 and found.mean == pytest.approx(1e-6)


def test_batch_norm_keeps_the_statistics_of_the_minimum() -> None:
    """Statistics moved by a measurement, or taken anew at each distance without a word."""
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).double()
    x, y = drawn(20, 5), torch.arange(20) % 3
    with pytest.raises(ValueError, match=r"flatness_radius: .*BatchNorm.*in training mode"):
        flatness_radius(model, x, y)
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rng = torch.get_rng_state()
    assert flatness_radius(model, x, y, directions=2).mean > 0
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not model.training and all(p.grad is None for p in model.parameters())
    assert torch.equal(rng, torch.get_rng_state())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epsilon": -0.1}, "epsilon is -0.1, needs a positive number"),
        ({"r_max": 0}, "r_max is 0, needs a positive number"),
        ({"directions": 1}, "directions is 1, needs a whole number of at least 2"),
        ({"directions": 2.5}, "directions is 2.5"),
        ({"part": "layers.9.weight"}, r"part names \['layers.9.weight'\]; it takes 'all', 'top', or names"),
        ({"part": ()}, r"part names \[\]"),
        ({"loss": "hinge"}, "loss 'hinge' is not one of"),
        ({"generator": -1}, "generator is -1"),
        ({"memory": 0}, "memory is 0"),
    ],
)
def test_flatness_radius_refuses(changes: dict[str, Any], message: str) -> None:
    """A traceback from deep inside."""
    model, x, y = problem()
    with pytest.raises(ValueError, match=f"^flatness_radius: {message}"):
        flatness_radius(model, x, y, **changes)


def test_flatness_profile_refuses() -> None:
    model, x, y = problem()
    with pytest.raises(ValueError, match=r"^flatness_profile: radii is \[-1.0\], needs numbers of at least"):
        flatness_profile(model, x, y, [-1.0])
    with pytest.raises(ValueError, match="^flatness_profile: directions is 0"):
        flatness_profile(model, x, y, [1.0], directions=0)
