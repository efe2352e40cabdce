"""Crop and flip: each image a window of itself, drawn from the seed and the count of batches alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit import models
from labkit.training import train


def shown(x: Tensor, seed: int = 0, batches: int = 1) -> Tensor:
    """What the network sees at the last of some batches."""
    net = models.augmented(_Seen(), x.shape[1], seed=seed).train()
    for _ in range(batches):
        net(x)
    return net.network.x


class _Seen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.x = x
        return x.flatten(1)[:, :2] * self.weight


def ways(image: Tensor) -> dict[tuple[int, int, bool], Tensor]:
    """The 162 ways in which one image can be shown."""
    padded, (h, w) = F.pad(image, (4, 4, 4, 4)), image.shape[1:]
    cut = {(i, j): padded[:, i : i + h, j : j + w] for i in range(9) for j in range(9)}
    return {(i, j, m): c.flip(2) if m else c for (i, j), c in cut.items() for m in (False, True)}


def test_each_image_is_shown_in_one_of_162_ways_and_all_come_up_alike() -> None:
    """Rows and columns exchanged, channels torn apart, one shift for all, a corner that never is."""
    image = torch.randn(3, 5, 7)
    seen = shown(image.expand(16_200, 3, 5, 7))
    counts = [int((seen == one).all((1, 2, 3)).sum()) for one in ways(image).values()]
    assert sum(counts) == 16_200 and min(counts) > 50 and max(counts) < 150


def test_the_seed_and_the_count_decide() -> None:
    """The same windows in every epoch, or other ones when a run goes on."""
    x = torch.randn(64, 1, 8, 8)
    assert torch.equal(shown(x, 3, 2), shown(x, 3, 2))
    assert not torch.equal(shown(x, 3, 2), shown(x, 3, 1)) and not torch.equal(shown(x, 3), shown(x, 4))


def test_nothing_is_moved_where_nobody_trains_and_the_count_is_part_of_the_state() -> None:
    """A test error on shifted images; a training that goes on with the windows of its start."""
    net = models.augmented(models.resnet20(2, 1, width=2), 1, seed=1)
    x, y = torch.randn(6, 1, 8, 8), torch.zeros(6, 2)
    assert torch.equal(net.eval()(x), net.network(x)) and int(net.count) == 0
    list(train(net.train(), x, y, lr=0.01, steps=5))
    assert int(net.state_dict()["count"]) == 5


@pytest.mark.parametrize("given", [{"channels": 0}, {"channels": 1, "seed": -1}])
def test_what_it_does_not_take_is_named(given: dict[str, int]) -> None:
    """A message that does not name its argument."""
    channels = given.pop("channels")
    with pytest.raises(ValueError, match="seed" if given else "channels"):
        models.augmented(models.resnet20(2, 1, width=2), channels, **given)
