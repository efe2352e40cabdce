"""Three-point interpolation: corners, a linear model by hand, areas that can be counted, batch norm."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from labkit import models
from labkit.measure.interpolation import Interpolation, simplex, three_point


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def three(seed: int = 0) -> list[nn.Module]:
    return [models.mlp(5, 8, 1, 3, seed=seed + k, dtype=torch.float64) for k in range(3)]


def normed(seed: int) -> nn.Module:
    """A network with batch norm whose running statistics are those of its own activations."""
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).double()
    with torch.no_grad():
        for k, p in enumerate(model.parameters()):
            p.copy_(drawn(*p.shape, seed=100 * seed + k))
        model[1].running_mean.copy_(drawn(6, seed=seed))
        model[1].running_var.copy_(drawn(6, seed=seed).square() + 0.5)
    return model.eval()


X, Y = drawn(40, 5, seed=9), torch.arange(40) % 3


# The grid.


@given(st.integers(1, 25))
def test_the_grid_covers_the_simplex(resolution: int) -> None:
    """Points outside, a point twice, a corner missing, weights of another area."""
    points, weights = simplex(resolution)
    assert points.shape == ((resolution + 1) * (resolution + 2) // 2, 3)
    assert len({tuple(row) for row in points.tolist()}) == len(points)
    assert (points >= 0).all() and float(weights.sum()) == pytest.approx(1)
    torch.testing.assert_close(points.sum(1), torch.ones(len(points)).double())
    assert sum(row in points.tolist() for row in torch.eye(3).tolist()) == 3
    # An even grid has the mean of the triangle, and by its rule integrates linear functions exactly.
    torch.testing.assert_close(weights @ points, torch.full((3,), 1 / 3).double())


def test_the_weights_converge_to_areas() -> None:
    """Equal weights: too much for the edges. The share with lambda_1 >= 1/2 is a quarter."""
    shares = []
    for resolution in (20, 80):
        points, weights = simplex(resolution)
        # Half of what lies on the line itself.
        inside = weights[points[:, 0] > 0.5].sum() + weights[points[:, 0] == 0.5].sum() / 2
        shares.append(abs(float(inside) - 0.25))
    assert shares[1] < 1e-3 and shares[1] < shares[0]


# The landscape.


def test_corners_are_the_networks_themselves() -> None:
    """Weights in the order of another corner."""
    nets = three()
    found = three_point(nets, X, Y, resolution=4)
    for corner, model in enumerate(nets):
        at = int(found.points[:, corner].argmax())
        with torch.no_grad():
            outputs = model(X)
        assert float(found.loss[at]) == pytest.approx(float(F.cross_entropy(outputs, Y)))
        assert float(found.accuracy[at]) == pytest.approx(float((outputs.argmax(1) == Y).double().mean()))


def test_inside_every_weight_is_the_mean() -> None:
    """Outputs mixed in place of weights, biases left out, or chunks that change something."""
    nets = three()
    found = three_point(nets, X, Y, resolution=3, batch_size=7)
    for at, expected in zip(found.points, found.loss, strict=True):
        mixed = copy.deepcopy(nets[0])
        with torch.no_grad():
            for p, *own in zip(mixed.parameters(), *(net.parameters() for net in nets), strict=True):
                p.copy_(sum(float(share) * q for share, q in zip(at, own, strict=True)))
            assert float(expected) == pytest.approx(float(F.cross_entropy(mixed(X), Y)))


def test_a_linear_model_is_convex_in_its_weights() -> None:
    """Cross-entropy of an affine model lies below its chords, everywhere on the triangle."""
    nets = [models.mlp(5, 8, 0, 3, seed=k, dtype=torch.float64) for k in range(3)]
    found = three_point(nets, X, Y, resolution=6)
    corners = torch.stack([found.loss[found.points[:, k] == 1][0] for k in range(3)])
    assert (found.loss <= found.points @ corners + 1e-12).all()


def test_one_network_three_times_is_a_plateau() -> None:
    net = three()[0]
    found = three_point([net, net, net], X, Y, resolution=3)
    assert float(found.loss.max() - found.loss.min()) < 1e-12
    level = float(found.accuracy[0])
    assert found.area(level) == found.area(level, 1) == 1.0
    assert found.area(min(level + 1e-9, 1.0)) == 0.0


def test_areas_are_counted_by_hand() -> None:
    """Resolution 2: three corners of weight 1/12 and three middles of weight 1/4."""
    points, weights = simplex(2)
    accuracy = torch.where(points[:, 0] >= 0.5, 1.0, 0.2).double()
    found = Interpolation(points, weights, accuracy, accuracy)
    assert found.area(0.9) == pytest.approx(1 / 12 + 2 / 4)
    assert found.area(0.1) == pytest.approx(1.0)
    # The first third: its corner, and half of each of two middles. The second: half of one, of the same size.
    assert found.area(0.9, 0) == pytest.approx(1.0)
    assert found.area(0.9, 1) == pytest.approx((1 / 8) / (1 / 12 + 2 / 8))
    assert found.area(0.9, 1) == pytest.approx(found.area(0.9, 2))
    shares = [found.area(level) for level in np.linspace(0, 1, 11)]
    assert shares == sorted(shares, reverse=True)


def test_thirds_add_up_to_the_whole() -> None:
    """A border counted twice, or not at all."""
    for resolution in (3, 4, 7):
        points, weights = simplex(resolution)
        accuracy = torch.rand(len(points), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        found = Interpolation(points, weights, accuracy, accuracy)
        thirds = [found.area(0.5, corner) for corner in range(3)]
        assert np.mean(thirds) == pytest.approx(found.area(0.5))


# Batch norm.


def test_refitted_statistics_are_those_of_the_training_set() -> None:
    """Statistics of one corner, or of no network, inside the triangle: against torch in training mode."""
    nets = [normed(k) for k in range(3)]
    found = three_point(nets, X, Y, resolution=3)
    for at, expected in zip(found.points, found.loss, strict=True):
        mixed = copy.deepcopy(nets[0])
        with torch.no_grad():
            for p, *own in zip(mixed.parameters(), *(net.parameters() for net in nets), strict=True):
                p.copy_(sum(float(share) * q for share, q in zip(at, own, strict=True)))
            hidden = mixed[0](X)
            scaled = (hidden - hidden.mean(0)) / (hidden.var(0) + mixed[1].eps).sqrt()
            outputs = mixed[3](F.relu(scaled * mixed[1].weight + mixed[1].bias))
        assert float(expected) == pytest.approx(float(F.cross_entropy(outputs, Y)), rel=1e-9)


def test_averaged_statistics_leave_the_corners_exact_and_differ_inside() -> None:
    nets = [normed(k) for k in range(3)]
    refit, average = (three_point(nets, X, Y, resolution=3, batch_norm=way) for way in ("refit", "average"))
    for corner, model in enumerate(nets):
        at = int(average.points[:, corner].argmax())
        with torch.no_grad():
            assert float(average.loss[at]) == pytest.approx(float(F.cross_entropy(model(X), Y)))
    assert not torch.allclose(refit.loss, average.loss)
    same = [three_point(three(), X, Y, resolution=2, batch_norm=way).loss for way in ("refit", "average")]
    assert torch.equal(same[0], same[1])


def test_no_part_of_the_data_is_a_single_sample() -> None:
    """41 samples in batches of 40 would leave one without a variance."""
    nets, x = [normed(k) for k in range(3)], drawn(41, 5)
    found = three_point(nets, x, torch.arange(41) % 3, resolution=1, batch_size=40)
    assert bool(found.loss.isfinite().all())


def test_the_networks_and_the_global_generator_stay() -> None:
    nets = [normed(k) for k in range(3)]
    before = [{name: v.clone() for name, v in net.state_dict().items()} for net in nets]
    rng = torch.get_rng_state()
    three_point(nets, X, Y, resolution=2)
    for old, net in zip(before, nets, strict=True):
        assert all(torch.equal(old[name], value) for name, value in net.state_dict().items())
        assert not any(part.training for part in net.modules())
        assert net[1].momentum == 0.1
    assert torch.equal(rng, torch.get_rng_state())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": three()[:2]}, "three_point: models has 2 entries, needs three torch modules"),
        ({"models": [*three()[:2], models.mlp(5, 9, 1, 3, dtype=torch.float64)]},
         r"three_point: model 2 is not built like model 0 \('layers.0.bias' differs\)"),
        ({"batch_norm": "keep"}, "three_point: batch_norm is 'keep', needs 'refit' or 'average'"),
        ({"batch_size": 0}, "three_point: batch_size is 0"),
        ({"resolution": 0}, "resolution: got 0; it takes a whole number of at least 1"),
        ({"x": torch.zeros(3)}, r"three_point: x is \(3,\), needs a tensor"),
        ({"y": torch.zeros(40)}, r"three_point: y is \(40,\) of torch.float32, needs class numbers \(40,\)"),
        ({"models": [normed(0).train(), normed(1), normed(2)]}, "three_point: .*BatchNorm"),
    ],
)  # fmt: skip
def test_it_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        three_point(**{"models": three(), "x": X, "y": Y, "resolution": 2} | changes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((1.5,), "level is 1.5"), ((math.nan,), "level is nan"), ((0.5, 3), "corner is 3, needs 0, 1 or 2")],
)
def test_area_refuses(arguments: tuple[Any, ...], message: str) -> None:
    points, weights = simplex(1)
    with pytest.raises(ValueError, match=f"^area: {message}"):
        Interpolation(points, weights, weights, weights).area(*arguments)
