"""Fully connected networks."""

import pytest
import torch

from labkit.models import ACTIVATIONS, mlp


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
