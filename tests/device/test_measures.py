"""Every public measure on a device that is not the CPU: the numbers of the CPU, and no tensor left behind."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from labkit import krylov, measure, models
from tests.device.pretended import NAME, UNAVAILABLE, pretended
from tests.measure.test_strangers import module, routed

pytestmark = [pytest.mark.apart, pytest.mark.slow, pytest.mark.skipif(bool(UNAVAILABLE), reason=UNAVAILABLE)]

SAMPLES, CLASSES = 6, 3


def images(*shape: int) -> Tensor:
    return torch.randn(SAMPLES, *shape, generator=torch.Generator().manual_seed(0))


def tied() -> nn.Module:
    first = nn.Linear(5, 5)
    second = nn.Linear(5, 5)
    second.weight = first.weight
    return nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), nn.Linear(5, CLASSES))


def two_experts() -> nn.Module:
    return module(routed, experts=nn.ModuleList(nn.Linear(5, CLASSES) for _ in range(2)))


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 16, CLASSES)
    ).eval()


# Name -> a model and its inputs: a plain one, and kinds on which measures went wrong.
NETWORKS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "mlp": lambda: (models.mlp(5, 6, 2, CLASSES, bias=False, seed=0), images(5)),
    "tied": lambda: (tied(), images(5)),
    "experts": lambda: (two_experts(), images(5)),
    "convolutions": lambda: (convolutions(), images(1, 6, 6)),
}


def half_moved(net: nn.Module) -> nn.Module:
    other = deepcopy(net)
    with torch.no_grad():
        for p in other.parameters():
            p *= 1.5
    return other


def moved(net: nn.Module) -> nn.Module:
    """The network there; weights that are one stay one, as they do between real devices."""
    with torch.no_grad():
        known = {p: nn.Parameter(p.to(NAME), p.requires_grad) for p in net.parameters()}
    for part in net.modules():
        for name, p in list(part.named_parameters(recurse=False)):
            setattr(part, name, known[p])
    return net.to(NAME)


Measured = Callable[[nn.Module, Tensor, Tensor], Any]
GENERAL: dict[str, Measured] = {
    "jacobian.gram": lambda net, x, y: measure.jacobian(net, x).gram(),
    "jacobian.rmatmat": lambda net, x, y: measure.jacobian(net, x).rmatmat(torch.ones(18, 2).to(x)),
    "svd": lambda net, x, y: krylov.svd(measure.jacobian(net, x), 3).s,
    "svd by lanczos": lambda net, x, y: krylov.svd(measure.jacobian(net, x), 3, method="lanczos").s,
    "singular_values": lambda net, x, y: krylov.singular_values(measure.jacobian(net, x)),
    "spectral_density": lambda net, x, y: krylov.spectral_density(measure.jacobian(net, x), steps=4),
    "split": lambda net, x, y: measure.split(
        krylov.svd(measure.jacobian(net, x), 4), torch.eye(CLASSES).to(x)[y], rank=CLASSES
    ).share_information,
    "dense_jacobian": lambda net, x, y: measure.dense_jacobian(net, x),
    "dense_ntk": lambda net, x, y: measure.dense_ntk(net, x),
    "empirical_ntk": lambda net, x, y: measure.empirical_ntk(net, x),
    "gradient_gram": lambda net, x, y: measure.gradient_gram(net, x, y),
    "batch_gram": lambda net, x, y: measure.batch_gram(net, x, y, [[0, 1], [2, 3]]),
    "batch_gradients": lambda net, x, y: measure.batch_gradients(net, x, y, [[0, 1], [2, 3]]),
    "sample_gradients": lambda net, x, y: measure.sample_gradients(net, x, y),
    "gradient_noise": lambda net, x, y: measure.gradient_noise(measure.sample_gradients(net, x, y), 2, 5),
    "confusion": lambda net, x, y: measure.confusion(measure.gradient_gram(net, x, y)),
    "distances": lambda net, x, y: measure.distances(half_moved(net), net),
    "from_start": lambda net, x, y: measure.from_start(half_moved(net), net),
    "margins": lambda net, x, y: measure.margins(net(x).detach(), y),
    "local_lipschitz": lambda net, x, y: measure.local_lipschitz(net, x),
    "expected_sharpness": lambda net, x, y: measure.expected_sharpness(net, x, y, alphas=(0.1,), draws=5),
    "max_sharpness": lambda net, x, y: measure.max_sharpness(net, x, y, steps=5),
    "flatness_radius": lambda net, x, y: measure.flatness_radius(net, x, y, directions=2),
    "error_under_noise": lambda net, x, y: measure.error_under_noise(net, x, y, (0.1,), draws=2),
}  # fmt: skip
# Of networks that are a chain of layers.
OF_CHAINS: dict[str, Measured] = {
    "capacities": lambda net, x, y: measure.capacities(net, x, y),
    "layer_norms": lambda net, x, y: measure.layer_norms(net, x),
    "path_norms": lambda net, x, y: measure.path_norms(net, x, 1.0),
    "conditions": lambda net, x, y: measure.conditions(net, x),
    "linear_perturbation": lambda net, x, y: measure.linear_perturbation(net, x, 0.1, draws=3),
}


def numbers(found: Any) -> dict[str, np.ndarray]:
    """All arrays of a result, by place."""
    if isinstance(found, Tensor):
        return {"": found.detach().cpu().double().numpy()}
    if isinstance(found, (int, float, np.ndarray)):
        return {"": np.asarray(found, dtype=float)}
    if is_dataclass(found) and not isinstance(found, type):
        parts: Any = {field.name: getattr(found, field.name) for field in fields(found)}
    elif isinstance(found, (tuple, list)):
        parts = dict(enumerate(found))
    else:
        return {}
    return {
        f"{name}.{inside}": value for name, part in parts.items() for inside, value in numbers(part).items()
    }


@pytest.mark.parametrize(
    ("network", "name"),
    [*((network, name) for network in NETWORKS for name in GENERAL), *(("mlp", name) for name in OF_CHAINS)],
)
def test_a_measure_gives_the_numbers_of_the_cpu(network: str, name: str) -> None:
    torch.manual_seed(0)
    net, x = NETWORKS[network]()
    y = torch.arange(SAMPLES) % CLASSES
    measured = (GENERAL | OF_CHAINS)[name]
    here = numbers(measured(net, x, y))
    with pretended() as log:
        there = numbers(measured(moved(net), x.to(NAME), y.to(NAME)))
    assert here and here.keys() == there.keys() and log.to_device.total()
    for place in here:
        np.testing.assert_allclose(there[place], here[place], rtol=1e-3, atol=1e-5, err_msg=place)
