"""Node-wise rescaling."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from labkit.models import fold_batch_norm, mlp, one_hidden, rescale_nodes, resnet20, vgg


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(model: nn.Module) -> nn.Module:
    """The model in float64, its weights and biases from a generator of our own."""
    source = generator(5)
    with torch.no_grad():
        for p in model.double().parameters():
            p.copy_(torch.randn(p.shape, generator=source, dtype=torch.float64))
    return model


CASES = {
    "mlp": (lambda: mlp(5, 9, 3, 4, output_scale=0.3), (6, 5)),
    "no biases": (lambda: mlp(5, 9, 2, 4, bias=False), (6, 5)),
    "sequential": (lambda: nn.Sequential(nn.Linear(5, 7), nn.ReLU(inplace=True), nn.Linear(7, 2)), (6, 5)),
    "convolutions": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AvgPool2d(1),
            nn.Flatten(), nn.Linear(4 * 7 * 7, 5), nn.ReLU(), nn.Linear(5, 2),
        ),
        (3, 2, 32, 32),
    ),
    "vgg": (lambda: fold_batch_norm(vgg(10, 1, size=8, width=2)), (4, 1, 8, 8)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=10)
def test_the_function_stays(name: str, seed: int) -> None:
    """A bias forgotten, a channel's factor at the wrong places of the flattened image."""
    build, shape = CASES[name]
    model = drawn(build())
    x = torch.randn(shape, generator=generator(seed), dtype=torch.float64)
    same = rescale_nodes(model, generator=generator(seed), low=1e-3, high=1e3)
    with torch.no_grad():
        before, after = model.eval()(x), same.eval()(x)
    assert float((before - after).abs().max()) <= 1e-10 * float(before.abs().max())
    ratio = next(iter(same.parameters())).detach() / next(iter(model.parameters())).detach()
    assert float(ratio.log().abs().max()) > 1


def test_the_weights_are_the_formula() -> None:
    """Rows divided, columns multiplied: also the same function, and the wrong gauge."""
    model = drawn(mlp(3, 2, 1, 2))
    same = rescale_nodes(model, {0: torch.tensor([2.0, 1.0])})
    first, second = model.layers
    assert torch.equal(same.layers[0].weight, first.weight * torch.tensor([[2.0], [1.0]]))
    assert torch.equal(same.layers[0].bias, first.bias * torch.tensor([2.0, 1.0]))
    assert torch.equal(same.layers[1].weight, second.weight / torch.tensor([[2.0, 1.0]]))
    assert torch.equal(same.layers[1].bias, second.bias)


def test_layers_not_named_stay() -> None:
    """A hidden layer counted from 1, or the readout rescaled."""
    model = mlp(3, 4, 2, 2, dtype=torch.float64)
    same = rescale_nodes(model, {1: torch.full((4,), 3.0)})
    assert torch.equal(same.layers[0].weight, model.layers[0].weight)
    assert torch.allclose(same.layers[1].weight, 3 * model.layers[1].weight)


def test_drawn_factors_fill_their_range() -> None:
    """Uniform factors instead of log-uniform ones, or a range that is ignored."""
    model = mlp(3, 4000, 1, 2, bias=False, dtype=torch.float64)
    same = rescale_nodes(model, generator=generator(), low=1e-2, high=1e2)
    factors = (same.layers[0].weight / model.layers[0].weight)[:, 0].detach().log10()
    assert -2 <= float(factors.min()) < -1.99 and 1.99 < float(factors.max()) <= 2
    # Standard error of the mean of a uniform on [-2, 2] over 4000: 4 / sqrt(12 * 4000) = .018.
    assert abs(float(factors.mean())) < 6 * 0.018


def test_the_model_is_left_alone_and_the_mode_is_kept() -> None:
    """A rescaling in place, done again with every frame."""
    model = mlp(3, 4, 1, 2).train()
    before, rng = model.layers[0].weight.detach().clone(), torch.get_rng_state()
    same = rescale_nodes(model, generator=generator())
    assert torch.equal(model.layers[0].weight, before) and model.training and same.training
    assert torch.equal(rng, torch.get_rng_state())
    assert not rescale_nodes(model.eval(), generator=generator()).training


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (mlp(3, 4, 1, 2, activation="tanh"), "activation 'tanh'; node-wise rescaling takes a chain"),
        (nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), "'1' is Tanh; node-wise"),
        (
            nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)),
            "fold it first: fold_",
        ),
        (resnet20(width=2, blocks=1), "its outputs would change by"),
        (nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1, groups=2), nn.Flatten()), "with 2 groups"),
        (one_hidden(3, 4, 2, activation="relu"), "it has no nn.Linear or nn.Conv2d"),
    ],
    ids=["activation", "module", "norm", "skips", "groups", "bare weights"],
)
def test_what_is_no_relu_chain_is_refused(model: nn.Module, message: str) -> None:
    """Another function handed on as the same."""
    with pytest.raises(ValueError, match=message):
        rescale_nodes(model, generator=generator())


def test_a_layer_used_twice_is_refused() -> None:
    """Its weights rescaled twice."""
    layer = nn.Linear(3, 3)
    with pytest.raises(ValueError, match="a layer is used twice"):
        rescale_nodes(nn.Sequential(layer, nn.ReLU(), layer), generator=generator())


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({}, "scales, generator: give one of the two"),
        ({"scales": {}, "generator": generator()}, "scales, generator: give one of the two"),
        ({"scales": {1: torch.ones(4)}}, "hidden layer 1; the model has 1, numbered from 0"),
        ({"scales": {0: torch.ones(3)}}, r"of hidden layer 0, shape \(3,\); it takes 4 positive numbers"),
        ({"scales": {0: torch.tensor([1.0, 2.0, 0.0, 1.0])}}, "it takes 4 positive numbers"),
        ({"generator": generator(), "low": 2.0, "high": 1.0}, "low, high: got 2.0, 1.0"),
    ],
)
def test_bad_arguments_are_named(how: dict, message: str) -> None:
    """A division by zero in the weights."""
    with pytest.raises(ValueError, match=message):
        rescale_nodes(mlp(3, 4, 1, 2), **how)
