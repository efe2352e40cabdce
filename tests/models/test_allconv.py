"""The all-convolutional network of paper 3."""

import pytest
import torch
from torch import Tensor, nn

from labkit.models.allconv import AllConv, allconv, weights
from labkit.models.polynomial import polynomial_relu
from labkit.training import Ensemble

SIZES = [(1, 8), (1, 28), (3, 32)]


def images(n: int = 3, channels: int = 1, side: int = 8, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, channels, side, side, generator=generator, dtype=torch.float64)


def with_biases(model: AllConv, seed: int = 0) -> AllConv:
    """Biases start at 0, where one that is left out changes nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in model.layers:
            layer.bias.copy_(torch.randn(layer.bias.shape, generator=generator))
    return model


@pytest.mark.parametrize(("side", "expected"), [(8, [4, 2, 2, 2, 2]), (28, [14, 7, 4, 2, 2]),
                                                (32, [16, 8, 4, 2, 2]), (2, [2] * 5)])  # fmt: skip
def test_strides_halve_the_image_down_to_two_pixels(side: int, expected: list[int]) -> None:
    """A stride at the wrong layer, or an image of one pixel."""
    model, sides = allconv(size=side, width=2), []
    for layer in model.layers:
        layer.register_forward_hook(lambda part, given, out: sides.append(out.shape[-1]))
    assert model.double()(images(side=side)).shape == (3, 10)
    assert sides == expected
    assert not any(isinstance(part, nn.MaxPool2d | nn.AvgPool2d) for part in model.modules())


@pytest.mark.parametrize(("channels", "side"), SIZES)
def test_no_weight_sees_padding_alone(channels: int, side: int) -> None:
    """Weights that count towards W and can never change."""
    model = allconv(10, channels, size=side, width=3, activation="tanh", dtype=torch.float64)
    model(images(4, channels, side)).square().sum().backward()
    assert all(bool((p.grad != 0).all()) for p in model.parameters() if p.grad is not None)


def test_sixteen_channels_on_colour_images_are_the_papers_ten_thousand() -> None:
    """A network of another depth or kernel, with another W."""
    model = allconv(channels=3, size=32)
    assert len(model.layers) == 5 and model.layers[1].out_channels == 16
    assert sum(p.numel() for p in model.parameters()) == 8858 == weights(16, channels=3)


@pytest.mark.parametrize("layers", [2, 3, 5])
@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("width", [1, 4, 7])
def test_weights_are_counted_right(width: int, classes: int, layers: int) -> None:
    """A bias or a layer forgotten in the formula."""
    for channels in (1, 3):
        model = allconv(classes, channels, width=width, layers=layers)
        count = weights(width, classes=classes, channels=channels, layers=layers)
        assert count == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("channels", "side"), SIZES)
@pytest.mark.parametrize("width", [2, 5])
def test_copies_side_by_side_are_the_copies_one_by_one(channels: int, side: int, width: int) -> None:
    """Copies mixed up, a kernel turned over, a bias at the wrong channel, pixels in another order."""
    models = [
        with_biases(allconv(10, channels, size=side, width=width, seed=s, dtype=torch.float64), s)
        for s in range(3)
    ]
    together = Ensemble(models)
    assert together.route == "own"
    x = torch.stack([images(4, channels, side, seed=s) for s in range(3)])
    expected = torch.stack([model(own) for model, own in zip(models, x, strict=True)])
    torch.testing.assert_close(together(x), expected, rtol=1e-11, atol=1e-12)
    # Gradients too, of which each copy has its own.
    together(x).square().sum().backward()
    expected.square().sum().backward()
    for name, p in together.stack.named_parameters():
        own = torch.stack([model.get_parameter(name).grad for model in models])
        torch.testing.assert_close(p.grad, own, rtol=1e-10, atol=1e-11)


def test_a_subclass_with_another_forward_is_not_run_as_its_parent() -> None:
    """Copies of the parent's function, trained in silence."""

    class Doubled(AllConv):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    models = [Doubled(10, 1, 8, 2) for _ in range(2)]
    for model in models:
        model.load_state_dict(allconv(width=2).state_dict())
    together = Ensemble(models)
    assert together.route == "vmap"
    x = images().float()
    torch.testing.assert_close(together(torch.stack([x, x]))[1], 2 * allconv(width=2)(x))


def test_an_activation_moves_no_weight() -> None:
    """Twins with different draws; an activation that is not used."""
    relu, poly = allconv(width=3, seed=2), allconv(width=3, seed=2, activation=polynomial_relu())
    assert all(torch.equal(a, b) for a, b in zip(relu.parameters(), poly.parameters(), strict=True))
    x = images().float()
    assert not torch.allclose(relu(x), poly(x))
    by_hand = x
    for layer in poly.layers[:-1]:
        by_hand = polynomial_relu()(layer(by_hand))
    assert torch.equal(poly(x), poly.layers[-1](by_hand).mean((2, 3)))


def test_a_seed_gives_one_network_in_every_dtype() -> None:
    """A draw in the dtype of the weights; a draw from the global generator."""
    before = torch.get_rng_state()
    single, double = allconv(seed=5), allconv(seed=5, dtype=torch.float64)
    assert torch.equal(before, torch.get_rng_state())
    for a, b in zip(single.parameters(), double.parameters(), strict=True):
        assert torch.equal(a, b.float())
    assert not torch.equal(allconv(seed=6).layers[0].weight, single.layers[0].weight)


def test_bad_arguments_are_named() -> None:
    """An error from deep inside torch, which names no argument."""
    for bad in ("classes", "channels", "width", "size", "layers"):
        with pytest.raises(ValueError, match=f"{bad}: got -3"):
            allconv(**{bad: -3})  # type: ignore[arg-type]
    for bad in ("classes", "channels", "layers"):
        with pytest.raises(ValueError, match=f"{bad}: got 0"):
            weights(4, **{bad: 0})
    with pytest.raises(ValueError, match="size: got 1; it takes a whole number of at least 2"):
        allconv(size=1)
    with pytest.raises(ValueError, match="activation: 'sine' is not one of relu"):
        allconv(activation="sine")
    with pytest.raises(ValueError, match="activation: got 3; it takes a name or an elementwise module"):
        allconv(activation=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="activation: PReLU has tensors of its own"):
        allconv(activation=nn.PReLU())
    with pytest.raises(ValueError, match=r"shape \(3, 64\); the network takes images \(n, 1, 8, 8\)"):
        allconv()(images().flatten(1))
