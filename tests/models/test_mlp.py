"""Fully connected networks."""

from typing import Any

import pytest
import torch

from labkit.models import ACTIVATIONS, mlp
from labkit.training import Ensemble


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_the_output_is_the_composition_of_its_layers(activation: str, bias: bool) -> None:
    """An activation after the readout, a layer skipped, a scale applied twice."""
    model = mlp(5, 7, 2, 3, activation=activation, bias=bias, output_scale=0.3, dtype=torch.float64)
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    phi, h = ACTIVATIONS[activation].phi, x
    for i in range(3):
        h = h @ model.layers[i].weight.T
        if bias:
            h = h + model.layers[i].bias
        h = phi(h) if i < 2 else 0.3 * h
    assert torch.allclose(model(x), h, rtol=1e-13, atol=1e-13)


def test_depth_counts_hidden_layers() -> None:
    """Papers count differently; a network one layer too deep moves every depth claim."""
    assert [tuple(layer.weight.shape) for layer in mlp(5, 7, 3, 2).layers] == [(7, 5), (7, 7), (7, 7), (2, 7)]
    assert [tuple(layer.weight.shape) for layer in mlp(5, 7, 0, 2).layers] == [(2, 5)]


def test_parameter_names_are_stable() -> None:
    """Columns of a Jacobian that change places between versions."""
    names = [name for name, _ in mlp(5, 7, 1, 2).named_parameters()]
    assert names == ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]
    assert [name for name, _ in mlp(5, 7, 1, 2, bias=False).named_parameters()] == names[::2]


def test_a_frozen_readout_needs_no_gradient() -> None:
    """A readout that trains although it was told not to."""
    trained = [name for name, p in mlp(5, 7, 1, 2, train_readout=False).named_parameters() if p.requires_grad]
    assert trained == ["layers.0.weight", "layers.0.bias"]
    with pytest.raises(ValueError, match="train_readout: False with depth 0"):
        mlp(5, 7, 0, 2, train_readout=False)


def test_biases_start_at_zero_and_images_are_flattened() -> None:
    """Biases left as uninitialised memory."""
    model = mlp(16, 7, 2, 3)
    assert all(not layer.bias.any() for layer in model.layers)
    images = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model(images), model(images.reshape(2, 16)))


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("skip", [False, True])
def test_skips_and_batch_norm_stand_where_they_are_said_to(skip: bool, batch_norm: bool) -> None:
    """A skip around the first layer or the readout, batch norm after the activation, other weights."""
    shape: dict[str, Any] = {"activation": "tanh", "output_scale": 0.5, "seed": 3, "dtype": torch.float64}
    model = mlp(5, 7, 3, 2, skip=skip, batch_norm=batch_norm, **shape)
    plain = mlp(5, 7, 3, 2, **shape)
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(model.layers, plain.layers, strict=True))
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    h = x
    for i in range(3):
        z = h @ model.layers[i].weight.T
        if batch_norm:
            z = (z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt()
        h = h + torch.tanh(z) if skip and i else torch.tanh(z)
    assert torch.allclose(model(x), 0.5 * h @ model.layers[3].weight.T, rtol=1e-12, atol=1e-12)
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in plain.named_parameters()]


@pytest.mark.parametrize("skip", [False, True])
def test_copies_run_side_by_side_as_each_alone(skip: bool) -> None:
    """Batch norm over the copies, running statistics that stay behind or move in evaluation mode."""
    alone = [mlp(5, 7, 3, 2, skip=skip, batch_norm=True, seed=s, dtype=torch.float64) for s in range(3)]
    ensemble = Ensemble(alone)
    assert ensemble.route == "own"
    x = torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for training in (True, True, False):
        ensemble.train(training)
        expected = torch.stack([model.train(training)(x[s]) for s, model in enumerate(alone)])
        assert torch.allclose(ensemble(x), expected, rtol=1e-11, atol=1e-12)
        for s, model in enumerate(alone):
            moved, kept = dict(ensemble.member(s).named_buffers()), dict(model.named_buffers())
            running = [name for name in kept if "running" in name]
            assert len(running) == 6
            assert all(torch.allclose(moved[name], kept[name], rtol=1e-12) for name in running)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"width": -3}, "width: got -3; it takes a whole number of at least 1"),
        ({"depth": -1}, "depth: got -1; it takes a whole number of at least 0"),
        ({"inputs": "5"}, "inputs: got '5'"),
        ({"outputs": 0}, "outputs: got 0"),
        ({"output_scale": -1.0}, "output_scale: got -1.0"),
        ({"init": "xavier"}, "init: 'xavier' is not one of glorot, glorot-normal"),
        ({"dtype": torch.int32}, "dtype: got torch.int32"),
    ],
)
def test_bad_arguments_are_named(bad: dict, message: str) -> None:
    """An error from deep inside torch, which names no argument."""
    with pytest.raises(ValueError, match=message):
        mlp(**({"inputs": 5, "width": 7, "depth": 1, "outputs": 2} | bad))
