"""The small Alexnet of paper 3's Table 2, which takes it from Zhang et al. (2017).

Two modules of a 5 x 5 convolution, a 3 x 3 max pool of stride 2 and local response normalisation, then dense
layers of 384, 192 and the classes. With 64 channels and 28 x 28 colour images (CIFAR-10 cut to its middle)
it has the 1,387,786 parameters of the table; on 28 x 28 the table's MLP 1 x 512 has its 1,209,866 as well, so
that is the size that the table means, though CIFAR-10 has 32 x 32.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from labkit.models._arguments import check_images, floating, stream, whole
from labkit.models.init import initialize


class AlexNet(nn.Module):
    """conv, ReLU, pool, norm twice; dense, ReLU twice; readout.

    Takes images (n, channels, size, size). Parameters are named `layers.conv1.weight`, ...,
    `layers.dense1.weight`, ..., `layers.readout.bias`.

    Attributes:
        layers: the chain, an `nn.Sequential`.
        channels, size: of the images.
    """

    def __init__(
        self,
        classes: int,
        channels: int,
        size: int,
        width: int,
        dense: tuple[int, int],
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__()
        self.channels, self.size = channels, size
        # skip_init: a layer's own constructor would draw from torch's global generator.
        where: dict[str, Any] = {"dtype": dtype, "device": device}
        new = nn.utils.skip_init
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        before, side = channels, size
        for number in (1, 2):
            layers[f"conv{number}"] = new(nn.Conv2d, before, width, 5, padding=2, **where)
            layers[f"relu{number}"] = nn.ReLU()
            layers[f"pool{number}"] = nn.MaxPool2d(3, stride=2, padding=1)
            # The constants of the original: 4 neighbours on either side, alpha 1e-3 a channel.
            layers[f"norm{number}"] = nn.LocalResponseNorm(9, alpha=9e-3, beta=0.75, k=1.0)
            before, side = width, -(-side // 2)
        layers["flatten"] = nn.Flatten()
        before *= side * side
        for number, units in enumerate(dense, start=1):
            layers[f"dense{number}"] = new(nn.Linear, before, units, **where)
            layers[f"relu{number + 2}"] = nn.ReLU()
            before = units
        layers["readout"] = new(nn.Linear, before, classes, **where)
        self.layers = nn.Sequential(layers)

    def forward(self, x: Tensor) -> Tensor:
        check_images(x, self.channels, self.size)
        return self.layers(x)


def alexnet(
    classes: int = 10,
    channels: int = 3,
    *,
    size: int = 28,
    width: int = 64,
    dense: tuple[int, int] = (384, 192),
    init: str = "he",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> AlexNet:
    """Draws a small Alexnet: that of Table 2 unless told otherwise.

    Args:
        classes: K, the outputs.
        channels: of the images; 3 for CIFAR, 1 for MNIST.
        size: the side of the images, in pixels; 28 in Table 2.
        width: channels of both convolutions.
        dense: units of the two dense layers.
        init: see `labkit.models.init`.
        seed: the same seed gives the same weights in every dtype; other sizes give independent draws.
        dtype: of the weights, which are drawn in float64.
        device: where the weights are.

    Returns:
        AlexNet: a module from images (n, channels, size, size) to (n, K).

    Raises:
        ValueError: an argument is out of its range.
    """
    K, c, s, w = (
        whole("classes", classes),
        whole("channels", channels),
        whole("size", size),
        whole("width", width),
    )
    if not isinstance(dense, (tuple, list)) or len(dense) != 2:
        raise ValueError(f"dense: got {dense!r}; it takes the units of two layers, such as (384, 192)")
    first, second = (whole("dense", units) for units in dense)
    model = AlexNet(K, c, s, w, (first, second), floating(dtype), device)
    return initialize(model, init, stream("alexnet", seed, K, c, s, w, first, second))
