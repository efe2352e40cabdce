"""Every public measure on a device that is not the CPU: the numbers of the CPU, and no tensor left behind."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields, is_dataclass
from inspect import isfunction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from labkit import krylov, measure, models
from tests.device.pretended import NAME, UNAVAILABLE, pretended
from tests.measure.test_strangers import RIGHT, made, module, routed

pytestmark = [pytest.mark.apart, pytest.mark.slow, pytest.mark.skipif(bool(UNAVAILABLE), reason=UNAVAILABLE)]

SAMPLES, CLASSES = 6, 3
# Models of the table of problems that stay here, and why.
OF_THE_CPU = {
    "backward in numpy": "calls NumPy",
    "sparse embedding": "its gradient is sparse, which a pretended tensor cannot be",
    "gru": "one kernel of CUDA's, which the pretended device lacks",
    "time first, turned": "another one",
    "group norm": "torch 2.13 aborts the process on its rows, if pretended",
    "data parallel": "goes to the devices that torch knows when it is made",
}


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


# Name -> a classifier and its inputs: a plain one, and kinds on which measures went wrong.
CLASSIFIERS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "mlp": lambda: (models.mlp(5, 6, 2, CLASSES, bias=False, seed=0), images(5)),
    "tied": lambda: (tied(), images(5)),
    "routed": lambda: (two_experts(), images(5)),
    "convolutions": lambda: (convolutions(), images(1, 6, 6)),
}


def larger(net: nn.Module) -> dict[str, Tensor]:
    return {name: 1.5 * p.detach() for name, p in net.named_parameters()}


def three(net: nn.Module) -> tuple[nn.Module, ...]:
    """This one, and two with larger weights."""
    nets = (net, deepcopy(net), deepcopy(net))
    nets[1].load_state_dict(larger(net), strict=False)
    nets[2].load_state_dict(larger(nets[1]), strict=False)
    return nets


def moved(net: nn.Module) -> nn.Module:
    """The network there; weights that are one stay one, as they do between real devices."""
    with torch.no_grad():
        known = {p: nn.Parameter(p.to(NAME), p.requires_grad) for p in net.parameters()}
    for part in net.modules():
        for name, p in list(part.named_parameters(recurse=False)):
            setattr(part, name, known[p])
    return net.to(NAME)


Measured = Callable[[nn.Module, Tensor, Tensor], Any]
HALF: dict[str, Any] = {"loss": "half-mean"}
# Name, which begins with the function's -> what is measured of any model, with targets of its outputs' shape.
GENERAL: dict[str, Measured] = {
    "jacobian.gram": lambda net, x, y: measure.jacobian(net, x).gram(),
    "jacobian.matmat": lambda net, x, y: measure.jacobian(net, x).matmat(columns(net, x, 1)),
    "jacobian.rmatmat": lambda net, x, y: measure.jacobian(net, x).rmatmat(columns(net, x, 0)),
    "jacobian by products": lambda net, x, y: (
        (J := measure.jacobian(net, x, route="products")).matmat(columns(net, x, 1)),
        J.rmatmat(columns(net, x, 0)),
    ),
    "svd": lambda net, x, y: krylov.svd(measure.jacobian(net, x), 2).s,
    "svd by lanczos": lambda net, x, y: krylov.svd(measure.jacobian(net, x), 2, method="lanczos").s,
    "singular_values": lambda net, x, y: krylov.singular_values(measure.jacobian(net, x)),
    "spectral_density": lambda net, x, y: krylov.spectral_density(measure.jacobian(net, x), steps=4),
    "adjoint_gap": lambda net, x, y: krylov.adjoint_gap(measure.jacobian(net, x)) < 1e-4,
    "as_operator": lambda net, x, y: krylov.as_operator(measure.jacobian(net, x)).matmat(columns(net, x, 1)),
    "dense_jacobian": lambda net, x, y: measure.dense_jacobian(net, x),
    "dense_ntk": lambda net, x, y: measure.dense_ntk(net, x),
    "empirical_ntk": lambda net, x, y: measure.empirical_ntk(net, x),
    "empirical_ntk of two sets": lambda net, x, y: measure.empirical_ntk(net, x, x[:2]),
    "ntk_route": lambda net, x, y: ["dense", "taps", "generic"].index(measure.ntk_route(net, x)),
    "gradient_gram": lambda net, x, y: measure.gradient_gram(net, x, y, **HALF),
    "batch_gram": lambda net, x, y: measure.batch_gram(net, x, y, [[0, 1], [2, 3]], **HALF),
    "batch_gradients": lambda net, x, y: measure.batch_gradients(net, x, y, [[0, 1], [2, 3]], **HALF),
    "sample_gradients": lambda net, x, y: measure.sample_gradients(net, x, y, **HALF),
    "distances": lambda net, x, y: measure.distances(larger(net), net),
    "from_start": lambda net, x, y: measure.from_start(larger(net), net),
    "expected_sharpness": lambda net, x, y: measure.expected_sharpness(
        net, x, y, alphas=(0.1,), draws=5, **HALF
    ),
    "max_sharpness": lambda net, x, y: measure.max_sharpness(net, x, y, steps=5, **HALF),
    "flatness_radius": lambda net, x, y: measure.flatness_radius(net, x, y, directions=2, **HALF),
}
# Of class numbers.
OF_CLASSES: dict[str, Measured] = {
    "gradient_gram": lambda net, x, y: measure.gradient_gram(net, x, y),
    "sample_gradients": lambda net, x, y: measure.sample_gradients(net, x, y),
    "max_sharpness": lambda net, x, y: measure.max_sharpness(net, x, y, steps=5),
    "split": lambda net, x, y: (
        measure.split(
            krylov.svd(measure.jacobian(net, x), 4), torch.eye(CLASSES).to(x)[y], rank=CLASSES
        ).share_information
    ),
    "gradient_noise": lambda net, x, y: measure.gradient_noise(measure.sample_gradients(net, x, y), 2, 5),
    "confusion": lambda net, x, y: measure.confusion(measure.gradient_gram(net, x, y)),
    "margins": lambda net, x, y: measure.margins(net(x).detach(), y),
    "margin": lambda net, x, y: measure.margin(net(x).detach(), y),
    "local_lipschitz": lambda net, x, y: measure.local_lipschitz(net, x),
    "error_under_noise": lambda net, x, y: measure.error_under_noise(net, x, y, (0.1,), draws=2),
    "expected_sharpness at sizes that lie there": lambda net, x, y: measure.expected_sharpness(
        net, x, y, alphas=torch.tensor([0.1]).to(x.device), draws=2
    ),
    "error_under_noise at sizes that lie there": lambda net, x, y: measure.error_under_noise(
        net, x, y, torch.tensor([0.1]).to(x.device), draws=2
    ),
    "batch_gram of batches that lie there": lambda net, x, y: measure.batch_gram(
        net, x, y, torch.tensor([[0, 1], [2, 3]]).to(x.device)
    ),
    "three_point": lambda net, x, y: measure.three_point(three(net), x, y, resolution=2),
}
# Of networks that are a chain of layers.
OF_CHAINS: dict[str, Measured] = {
    "capacities": lambda net, x, y: measure.capacities(net, x, y),
    "layer_norms": lambda net, x, y: measure.layer_norms(net, x),
    "weight_layers": lambda net, x, y: [layer.weight for layer in measure.weight_layers(net, x)],
    "frobenius": lambda net, x, y: [measure.frobenius(layer) for layer in measure.weight_layers(net, x)],
    "spectral": lambda net, x, y: [measure.spectral(layer) for layer in measure.weight_layers(net, x)],
    "dense_layer": lambda net, x, y: [measure.dense_layer(layer) for layer in measure.weight_layers(net, x)],
    "path_norm": lambda net, x, y: measure.path_norm(net, x, 2.0),
    "path_norms": lambda net, x, y: measure.path_norms(net, x, 1.0),
    "conditions": lambda net, x, y: measure.conditions(net, x),
    "linear_perturbation": lambda net, x, y: measure.linear_perturbation(net, x, 0.1, draws=3),
    "rademacher_lower": lambda net, x, y: (
        measure.rademacher_lower([x[:4, :5], x[:1, :4]], x, 0.5, draws=2, steps=20).values
    ),
}
# Of numbers that lie there; y is not looked at.
OF_NUMBERS: dict[str, Measured] = {
    "group_norm": lambda net, x, y: measure.group_norm(x, 1, 2),
    "mean_inner": lambda net, x, y: measure.mean_inner(x),
    "gradient_diversity": lambda net, x, y: measure.gradient_diversity(x),
    "gradient_variance": lambda net, x, y: measure.gradient_variance(x),
    "inner_variance": lambda net, x, y: measure.inner_variance(x @ x.T),
    "participation_ratio": lambda net, x, y: measure.participation_ratio(x),
    "information_basis": lambda net, x, y: measure.information_basis(krylov.svd(x, 2), rank=1).abs(),
    "rows": lambda net, x, y: measure.rows(x),
    "unrows": lambda net, x, y: measure.unrows(x.reshape(-1), 6, 5),
    "to_class_major": lambda net, x, y: measure.to_class_major(x.reshape(-1), 6, 5),
    "from_class_major": lambda net, x, y: measure.from_class_major(x.reshape(-1), 6, 5),
    "lanczos": lambda net, x, y: krylov.lanczos(lambda v: x.T @ (x @ v), x[0], 3).matrix(),
    "operator_from": lambda net, x, y: krylov.svd(
        krylov.operator_from(lambda V: x @ V, lambda U: x.T @ U, (6, 5), device=x.device), 2
    ).s,
    "gaussian_density": lambda net, x, y: krylov.gaussian_density(x, None, x[0], 0.5),
    "gaussian_density of weights": lambda net, x, y: krylov.gaussian_density(x, x.abs(), x[0], 0.5),
    "spectral_density over a grid that lies there": lambda net, x, y: krylov.spectral_density(
        x, steps=3, grid=x[0].sort().values
    ).cdf(x[0]),
    "svd of a matrix of rank one": lambda net, x, y: krylov.svd(x[:, :1] * x[:1, :], 2),
    "svd_price": lambda net, x, y: krylov.svd_price(x, 2),
}  # fmt: skip
# These take arrays of the host, as runs keep them: series of chains, a curve and its KL.
OF_THE_HOST = {"effective_samples", "kl_at_sharpness", "split_r_hat", "start_difference"}


def columns(net: nn.Module, x: Tensor, side: int) -> Tensor:
    """Two vectors for J, or for its transpose."""
    size = measure.jacobian(net, x).shape[side]
    values = torch.randn(size, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return values.to(next(net.parameters()))


def test_no_public_measure_is_left_out() -> None:
    """A function that was added to `labkit.measure` or `labkit.krylov`, and to no table here."""
    public = {
        name
        for home in (measure, krylov)
        for name, value in vars(home).items()
        if not name.startswith("_") and isfunction(value)
    }
    tables = (*GENERAL, *OF_CLASSES, *OF_CHAINS, *OF_NUMBERS)
    assert public == {name.split(".")[0].split(" ")[0] for name in tables} | OF_THE_HOST


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


def same(measured: Measured, net: nn.Module, x: Tensor, y: Tensor) -> None:
    """Held against the CPU's numbers; with so many digits as the type has."""
    here = numbers(measured(net, x, y))
    with pretended() as log:
        there = numbers(measured(moved(net), x.to(NAME), y.to(NAME)))
    assert here and here.keys() == there.keys() and log.to_device.total()
    for place in here:
        np.testing.assert_allclose(there[place], here[place], rtol=1e-3, atol=1e-5, err_msg=place)


@pytest.mark.parametrize("network", CLASSIFIERS)
@pytest.mark.parametrize("name", OF_CLASSES)
def test_a_measure_of_a_classifier_gives_the_numbers_of_the_cpu(network: str, name: str) -> None:
    torch.manual_seed(0)
    net, x = CLASSIFIERS[network]()
    same(OF_CLASSES[name], net, x, torch.arange(SAMPLES) % CLASSES)


@pytest.mark.parametrize("name", OF_CHAINS | OF_NUMBERS)
def test_a_measure_of_a_chain_or_of_numbers_gives_those_of_the_cpu(name: str) -> None:
    torch.manual_seed(0)
    net, x = CLASSIFIERS["mlp"]()
    same((OF_CHAINS | OF_NUMBERS)[name], net, x, torch.arange(SAMPLES) % CLASSES)


@pytest.mark.parametrize("problem", [*CLASSIFIERS, *(name for name in RIGHT if name not in OF_THE_CPU)])
def test_measures_of_the_table_of_problems_give_the_numbers_of_the_cpu(problem: str) -> None:
    """Models of every kind of trouble: a tensor made on the CPU where only such a model goes."""
    for name, measured in GENERAL.items():
        torch.manual_seed(0)
        net, x = (
            CLASSIFIERS[problem]() if problem in CLASSIFIERS else (made(RIGHT[problem][0]), RIGHT[problem][1])
        )
        try:
            same(measured, net, x, torch.zeros_like(net(x.clone()).detach()))
        except Exception as error:
            error.add_note(f"while measuring {name}")
            raise
