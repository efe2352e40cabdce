"""The residual networks."""

import pytest
import torch
from torch import nn

from labkit.models import resnet20


def images(n: int = 2, channels: int = 3, side: int = 8) -> torch.Tensor:
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(0))


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_resnet20_with_batch_norm_has_the_published_quarter_million_parameters() -> None:
    """A block too many, a shortcut with weights, a bias beside a norm. He et al. print .27 M."""
    assert count(resnet20(batch_norm=True)) == 269_722


def test_without_batch_norm_convolutions_have_biases() -> None:
    """A network without norm and without biases, less expressive than the paper's."""
    plain = resnet20(width=2, blocks=1)
    convs = [part for part in plain.modules() if isinstance(part, nn.Conv2d)]
    assert len(convs) == 7 and all(conv.bias is not None for conv in convs)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in plain.modules())
    normed = resnet20(width=2, blocks=1, batch_norm=True)
    assert all(part.bias is None for part in normed.modules() if isinstance(part, nn.Conv2d))


def test_blocks_set_the_depth() -> None:
    """ResNet20 that has 3 blocks in all instead of 3 in each group."""
    for blocks in (1, 3):
        layers = [
            part
            for part in resnet20(width=2, blocks=blocks).modules()
            if isinstance(part, nn.Conv2d | nn.Linear)
        ]
        assert len(layers) == 6 * blocks + 2


def test_groups_double_the_channels_and_halve_the_image() -> None:
    """A stride at the wrong block."""
    model, shapes = resnet20(width=2, blocks=2), []
    for group in model.groups:
        group.register_forward_hook(lambda part, given, out: shapes.append(tuple(out.shape[1:])))
    model(images(side=16))
    assert shapes == [(2, 16, 16), (4, 8, 8), (8, 4, 4)]


def test_a_skip_adds_every_second_pixel_with_new_channels_zero() -> None:
    """Option A with the channels in the wrong place, or a mean over pixels instead of every second."""
    block = resnet20(width=2, blocks=1).groups[1][0]
    with torch.no_grad():
        for p in block.parameters():
            p.zero_()
    x = images(channels=2).relu()
    out = block(x)
    assert torch.equal(out[:, 1:3], x[:, :, ::2, ::2])
    assert not out[:, 0].any() and not out[:, 3].any()


def test_skips_off_give_another_function_of_the_same_weights() -> None:
    """A dead switch; or a comparison of two networks with different draws."""
    on, off = resnet20(width=4, blocks=1), resnet20(width=4, blocks=1, skip=False)
    assert all(torch.equal(a, b) for a, b in zip(on.parameters(), off.parameters(), strict=True))
    assert not torch.allclose(on(images()), off(images()))


def test_the_output_scale_multiplies_the_output() -> None:
    """A scale on the weights, which would change the Jacobian twice."""
    full, small = resnet20(width=4, blocks=1), resnet20(width=4, blocks=1, output_scale=0.025)
    assert torch.allclose(small(images()), 0.025 * full(images()), rtol=1e-6)


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (1, 28), (3, 32)])
def test_digits_mnist_and_cifar_sizes_fit(channels: int, side: int) -> None:
    """A readout tied to 32 x 32 images."""
    out = resnet20(10, channels, width=2, blocks=1)(images(2, channels, side))
    assert out.shape == (2, 10) and bool(out.isfinite().all())


def test_flat_inputs_are_refused_with_the_shape_they_need() -> None:
    """torch's own error, which speaks of a weight of size [16, 3, 3, 3]."""
    with pytest.raises(ValueError, match=r"x: shape \(2, 192\); the network takes images \(n, 3, height"):
        resnet20(width=2, blocks=1)(images().flatten(1))


@pytest.mark.parametrize("bad", ["classes", "channels", "width", "blocks", "output_scale"])
def test_bad_arguments_are_named(bad: str) -> None:
    """An error from deep inside torch, which names no argument."""
    with pytest.raises(ValueError, match=f"{bad}: got -3"):
        resnet20(**{bad: -3})
