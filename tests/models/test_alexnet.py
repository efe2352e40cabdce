"""The small Alexnet of paper 3's Table 2."""

import pytest
import torch
from torch import nn

from labkit.models import mlp
from labkit.models.alexnet import alexnet


def images(n: int = 2, channels: int = 3, side: int = 28) -> torch.Tensor:
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(0))


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_the_networks_of_table_2_have_its_parameters_on_28_by_28() -> None:
    """Other channels, a dense layer too many, a pool that leaves another size; or 32 x 32 images."""
    assert count(alexnet()) == 1_387_786
    assert count(mlp(3 * 28 * 28, 512, 1, 10)) == 1_209_866
    assert count(alexnet(size=32)) != 1_387_786 and count(mlp(3 * 32 * 32, 512, 1, 10)) != 1_209_866


def test_the_chain_is_convolution_pool_and_norm_twice_then_dense() -> None:
    """Norm before the pool; a missing ReLU."""
    names = [type(part).__name__ for part in alexnet(width=2, dense=(3, 4)).layers]
    module = ["Conv2d", "ReLU", "MaxPool2d", "LocalResponseNorm"]
    assert names == 2 * module + ["Flatten", "Linear", "ReLU", "Linear", "ReLU", "Linear"]


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (1, 27), (3, 32)])
def test_other_sizes_fit(channels: int, side: int) -> None:
    """A dense layer that was counted for 28 x 28 alone, or wrong for odd sides."""
    before = torch.get_rng_state()
    out = alexnet(7, channels, size=side, width=2, dense=(3, 4))(images(2, channels, side))
    assert out.shape == (2, 7) and bool(out.isfinite().all())
    assert torch.equal(before, torch.get_rng_state())


def test_a_seed_gives_the_same_weights_in_every_dtype() -> None:
    """A draw in the dtype of the weights."""
    small = {"width": 2, "dense": (3, 4), "seed": 3}
    single, double = alexnet(**small), alexnet(**small, dtype=torch.float64)  # type: ignore[arg-type]
    assert all(
        torch.equal(a, b.float()) for a, b in zip(single.parameters(), double.parameters(), strict=True)
    )
    other = alexnet(**(small | {"seed": 4}))  # type: ignore[arg-type]
    assert not torch.equal(other.layers.conv1.weight, single.layers.conv1.weight)


def test_bad_arguments_are_named() -> None:
    """An error from deep inside torch, which names no argument."""
    for bad in ("classes", "channels", "size", "width"):
        with pytest.raises(ValueError, match=f"{bad}: got -3"):
            alexnet(**{bad: -3})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dense: got 384; it takes the units of two layers"):
        alexnet(dense=384)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dense: got 0"):
        alexnet(dense=(384, 0))
    with pytest.raises(ValueError, match=r"shape \(2, 3, 8, 8\); the network takes images \(n, 3, 28, 28\)"):
        alexnet(width=2)(images(side=8))
