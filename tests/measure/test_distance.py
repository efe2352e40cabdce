"""Distances from the start of training and from the origin."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from labkit.measure.distance import distances, from_start
from labkit.models import mlp, one_hidden, resnet20
from labkit.training import Ensemble
from tests.measure.conftest import Recurrent, drawn


def moved(build) -> tuple[nn.Module, nn.Module]:
    return drawn(build(), 1), drawn(build(), 2)


def stored(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_layers_biases_and_the_whole_are_their_formulas() -> None:
    """Biases left out of r; r as the sum of layer distances; one layer's bias beside another's weight."""
    model, start = moved(lambda: mlp(4, 5, 2, 3))
    found = distances(model, start)
    total = origin = 0.0
    assert found.names == ("layers.0.weight", "layers.1.weight", "layers.2.weight")
    for k, (now, then) in enumerate(zip(model.layers, start.layers, strict=True)):
        gap = (now.weight - then.weight).detach()
        shift = (now.bias - then.bias).detach()
        assert math.isclose(float(found.layers[k]), float(gap.norm()), rel_tol=1e-14)
        assert math.isclose(float(found.biases[k]), float(shift.norm()), rel_tol=1e-14)
        assert math.isclose(float(found.origin_layers[k]), float(now.weight.detach().norm()), rel_tol=1e-14)
        total += float((gap**2).sum() + (shift**2).sum())
        origin += float((now.weight.detach() ** 2).sum() + (now.bias.detach() ** 2).sum())
    assert math.isclose(float(found.from_start), math.sqrt(total), rel_tol=1e-14)
    assert math.isclose(float(found.from_origin), math.sqrt(origin), rel_tol=1e-14)
    assert float(from_start(model, start)) == float(found.from_start)


@pytest.mark.parametrize(
    ("build", "layers"),
    [
        (lambda: mlp(4, 5, 1, 3, bias=False), 2),
        (lambda: one_hidden(4, 5, 3, train_readout=True), 2),
        (lambda: resnet20(width=2, blocks=1, batch_norm=True), 15),
        (lambda: Recurrent(), 3),
        (lambda: nn.Conv2d(2, 3, 3), 1),
    ],
    ids=["no biases", "bare weights", "resnet", "recurrent", "one convolution"],
)
def test_any_module_has_distances_that_add_up(build, layers: int) -> None:
    """A weight or a bias that belongs to no layer."""
    model, start = moved(build)
    found = distances(model, start)
    assert found.layers.shape == found.biases.shape == found.origin_layers.shape == (layers,)
    parts = torch.cat([found.layers, found.biases])
    assert math.isclose(float(parts.norm()), float(found.from_start), rel_tol=1e-13)
    assert float(found.from_start) > 0


def test_a_network_at_its_start_has_distance_zero() -> None:
    model = drawn(mlp(4, 5, 1, 3))
    found = distances(model, stored(model))
    assert float(found.from_start) == 0.0 and not found.layers.any() and float(found.from_origin) > 0


def test_a_state_a_module_and_a_mapping_are_the_same_start() -> None:
    """Buffers of a state taken for weights."""
    model, start = moved(lambda: resnet20(width=2, blocks=1, batch_norm=True))
    expected = float(from_start(model, start))
    assert float(from_start(model, stored(start))) == expected
    assert float(from_start(dict(model.named_parameters()), stored(start))) == expected


def test_members_of_an_ensemble_are_measured_one_by_one() -> None:
    """All copies' weights in one norm."""
    nets = [drawn(mlp(4, 5, 1, 3), seed) for seed in range(3)]
    ensemble = Ensemble(nets)
    start = drawn(mlp(4, 5, 1, 3), 7)
    weights = ensemble.weights()
    for s, net in enumerate(nets):
        expected = float(from_start(net, start))
        assert float(from_start(ensemble.member(s), start)) == expected
        assert float(from_start({name: w[s] for name, w in weights.items()}, start)) == expected


def test_float32_weights_are_compared_in_float64() -> None:
    """A small distance between large weights, lost to cancellation in the sum."""
    model, start = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        start.weight.fill_(1.0)
        model.weight.copy_(start.weight + torch.tensor([[2.0**-20, 0.0]]))
    found = distances(model, start)
    assert found.from_start.dtype == torch.float64 and float(found.from_start) == 2.0**-20


@pytest.mark.parametrize(
    ("model", "start", "kind", "message"),
    [
        (mlp(4, 5, 1, 3), mlp(4, 6, 1, 3), ValueError, r"'layers.0.weight' has shape \(5, 4\) .* \(6, 4\)"),
        (mlp(4, 5, 2, 3), mlp(4, 5, 1, 3), ValueError, "start: 'layers.1.weight' has|start holds"),
        (mlp(4, 5, 1, 3), {}, ValueError, "start holds nothing"),
        (mlp(4, 5, 1, 3), None, TypeError, "start: got NoneType; it takes a module or a mapping"),
        (nn.ReLU(), nn.ReLU(), ValueError, "model: it has no weights"),
    ],
)
def test_what_does_not_fit_is_named(model, start, kind: type, message: str) -> None:
    """A broadcast of two shapes, or a key error."""
    with pytest.raises(kind, match=message):
        distances(model, start)
