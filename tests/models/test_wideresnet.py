"""The wide residual networks."""

import pytest
import torch
from torch import nn

from labkit.models.wideresnet import wide_resnet


def images(n: int = 2, channels: int = 3, side: int = 8) -> torch.Tensor:
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(0))


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def small(**changes: object) -> nn.Module:
    return wide_resnet(**({"depth": 10, "width_factor": 2, "base": 2} | changes))  # type: ignore[arg-type]


def test_the_network_of_table_2_has_its_parameters() -> None:
    """A shortcut without weights, a bias beside a norm, a norm too few: the paper counts 8,949,210."""
    assert count(wide_resnet()) == 8_949_210


def test_wrn_16_8_has_the_published_eleven_million() -> None:
    """A count that fits one network by accident. Zagoruyko and Komodakis print 11.0 M."""
    assert round(count(wide_resnet(16, 8)) / 1e6, 1) == 11.0


@pytest.mark.parametrize("depth", [10, 16])
def test_depth_counts_three_by_three_convolutions_and_the_readout(depth: int) -> None:
    """n blocks in all instead of n in each group."""
    convs = [p for p in small(depth=depth).modules() if isinstance(p, nn.Conv2d) and p.kernel_size == (3, 3)]
    # The count of the paper's name has the three 1 x 1 shortcuts in: 6n + 1 + 3, without the readout.
    assert len(convs) + 3 == depth


def test_groups_widen_by_the_factor_and_halve_the_image() -> None:
    """A factor on the first convolution, a stride at the wrong block."""
    model, shapes = small(depth=16, width_factor=3), []
    for group in model.groups:
        group[-1].register_forward_hook(lambda part, given, out: shapes.append(tuple(out.shape[1:])))
    assert model.conv.out_channels == 2
    model(images(side=16))
    assert shapes == [(6, 16, 16), (12, 8, 8), (24, 4, 4)]


def test_a_block_activates_before_it_convolves() -> None:
    """The order of the plain residual network: norm after the convolution."""
    block = small().groups[1][0].double().eval()
    x = images(channels=4).double()
    project = small().shortcuts["1"].double()
    a = torch.relu(block.norm1(x))
    expected = block.conv2(torch.relu(block.norm2(block.conv1(a)))) + project(a)
    torch.testing.assert_close(block(x, project), expected)
    inner = small(depth=16).groups[1][1].double().eval()
    wide = images(channels=8).double()
    with torch.no_grad():
        inner.conv2.weight.zero_()
    assert torch.equal(inner(wide), wide)


def test_a_shortcut_stands_where_shapes_change() -> None:
    """A 1 x 1 convolution where the input fits already, or none in a plain network's way."""
    assert set(small().shortcuts) == {"0", "1", "2"}
    assert set(small(width_factor=1).shortcuts) == {"1", "2"}
    assert not small(skip=False).shortcuts


def test_switches_change_the_function_and_no_weight() -> None:
    """A dead switch; or a comparison of networks with different draws."""
    full = dict(small(seed=4).named_parameters())
    for changes in ({"skip": False}, {"batch_norm": False}, {"skip": False, "batch_norm": False}):
        other = small(seed=4, **changes)
        for name, p in other.named_parameters():
            if "norm" not in name and "bias" not in name:
                assert torch.equal(p, full[name]), name
        assert not torch.allclose(other.eval()(images()), small(seed=4).eval()(images()))
    assert not torch.equal(small(seed=5).readout.weight, full["readout.weight"])


def test_without_batch_norm_convolutions_have_biases() -> None:
    """A network without norm and without biases."""
    for norm in (True, False):
        model = small(batch_norm=norm)
        assert any(isinstance(part, nn.BatchNorm2d) for part in model.modules()) is norm
        wide = [p for p in model.modules() if isinstance(p, nn.Conv2d) and p.kernel_size == (3, 3)]
        assert all((conv.bias is None) is norm for conv in wide)


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (1, 28), (3, 32)])
def test_digits_mnist_and_cifar_sizes_fit(channels: int, side: int) -> None:
    """A readout tied to 32 x 32 images; draws from the global generator."""
    before = torch.get_rng_state()
    out = small(classes=7, channels=channels)(images(2, channels, side))
    assert out.shape == (2, 7) and bool(out.isfinite().all())
    assert torch.equal(before, torch.get_rng_state())


def test_bad_arguments_are_named() -> None:
    """An error from deep inside torch, which names no argument."""
    for bad in ("depth", "width_factor", "classes", "channels", "base"):
        with pytest.raises(ValueError, match=f"{bad}: got -3"):
            small(**{bad: -3})
    for depth in (4, 11, 20):
        with pytest.raises(ValueError, match=f"depth: got {depth}; it takes 6n"):
            wide_resnet(depth)
    with pytest.raises(ValueError, match=r"x: shape \(2, 192\); the network takes images \(n, 3, height"):
        small()(images().flatten(1))
