"""The VGG of paper 2."""

import inspect

import pytest
import torch
from torch import nn

from labkit.models import vgg


def images(n: int = 2, channels: int = 3, side: int = 32) -> torch.Tensor:
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(0))


def kinds(model: nn.Module) -> str:
    """The chain in letters: Convolution, batch Norm, Relu, Pool, Dropout, Average, Flatten, Linear."""
    letters = {
        nn.Conv2d: "C", nn.BatchNorm2d: "N", nn.ReLU: "R", nn.MaxPool2d: "P", nn.Dropout: "D",
        nn.AdaptiveAvgPool2d: "A", nn.Flatten: "F", nn.Linear: "L",
    }  # fmt: skip
    return "".join(letters[type(part)] for part in model.layers)


def test_the_chain_is_the_papers() -> None:
    """Batch norm after ReLU, dropout before the pool, a stack too few."""
    assert kinds(vgg(width=2)) == 4 * "CNRCNRPD" + "AFLRL"
    assert kinds(vgg(width=2, batch_norm=False, dropout=0.0)) == 4 * "CRCRP" + "AFLRL"


def test_widths_double_and_as_many_dense_units_follow() -> None:
    """Channels of another VGG, or 4096 dense units."""
    assert inspect.signature(vgg).parameters["width"].default == 64
    shapes = [tuple(p.shape) for p in vgg(width=2).parameters() if p.ndim > 1]
    channels = [3, 2, 2, 4, 4, 8, 8, 16, 16]
    convolutions = [(b, a, 3, 3) for a, b in zip(channels, channels[1:], strict=False)]
    assert shapes == [*convolutions, (16, 16), (10, 16)]


@pytest.mark.parametrize(("side", "pools"), [(32, 4), (28, 4), (8, 3), (1, 0)])
def test_a_side_of_one_is_pooled_no_further(side: int, pools: int) -> None:
    """A crash on 8 x 8 digits, which have a side of 1 after three pools."""
    model = vgg(10, 1, size=side, width=2)
    assert kinds(model).count("P") == pools
    out = model(images(2, 1, side))
    assert out.shape == (2, 10) and bool(out.isfinite().all())


def test_convolutions_have_biases_only_without_batch_norm() -> None:
    """A bias that the norm's mean takes away again."""
    for norm in (True, False):
        convs = [part for part in vgg(width=2, batch_norm=norm).layers if isinstance(part, nn.Conv2d)]
        assert all((conv.bias is None) is norm for conv in convs)


def test_a_seed_gives_the_same_weights_with_and_without_batch_norm() -> None:
    """A comparison of two networks with different draws."""
    normed, plain = vgg(width=2, seed=3), vgg(width=2, seed=3, batch_norm=False, dtype=torch.float64)
    state = plain.state_dict()
    for name, p in normed.named_parameters():
        if "norm" not in name:
            assert torch.equal(p, state[name].float())
    assert not torch.equal(vgg(width=2, seed=4).layers.hidden.weight, normed.layers.hidden.weight)


def test_the_global_generator_is_untouched() -> None:
    """Constructors of torch draw from it."""
    before = torch.get_rng_state()
    vgg(width=2)
    assert torch.equal(before, torch.get_rng_state())


def test_images_of_another_size_are_refused() -> None:
    """A pool of nothing, or a network that silently sees another picture than it was built for."""
    with pytest.raises(ValueError, match=r"shape \(2, 3, 8, 8\); the network takes images \(n, 3, 32, 32\)"):
        vgg(width=2)(images(side=8))


@pytest.mark.parametrize("bad", ["classes", "channels", "size", "width"])
def test_bad_arguments_are_named(bad: str) -> None:
    """An error from deep inside torch, which names no argument."""
    with pytest.raises(ValueError, match=f"{bad}: got -3"):
        vgg(**{bad: -3})


@pytest.mark.parametrize("bad", [1.0, -0.1, "half", True])
def test_a_dropout_that_is_no_probability_is_refused(bad: object) -> None:
    """Dropout of 1 gives nothing but zeros."""
    with pytest.raises(ValueError, match="dropout: got"):
        vgg(dropout=bad)
