"""The VGG of paper 2, appendix A: four stacks of two 3 x 3 convolutions, two dense layers.

The paper prints four 2 x 2 max pools and then a 4 x 4 average pool, which 32 x 32 images cannot have: the
average here is over what is left. Smaller images reach a side of 1 earlier, and are pooled no further.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from labkit.models._arguments import check_images, floating, stream, whole
from labkit.models.init import initialize


class VGG(nn.Module):
    """conv, norm, ReLU twice, max pool, dropout: four times; the mean over pixels, 8w units, a readout.

    Takes images (n, channels, size, size). Parameters are named `layers.conv1_1.weight`,
    `layers.norm1_1.weight`, ..., `layers.hidden.weight`, `layers.readout.weight`.

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
        batch_norm: bool = True,
        dropout: float = 0.5,
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
        for stack in range(1, 5):
            after = width * 2 ** (stack - 1)
            for number in (1, 2):
                place, bias = f"{stack}_{number}", not batch_norm
                layers[f"conv{place}"] = new(nn.Conv2d, before, after, 3, padding=1, bias=bias, **where)
                if batch_norm:
                    layers[f"norm{place}"] = nn.BatchNorm2d(after, **where)
                layers[f"relu{place}"] = nn.ReLU()
                before = after
            if side > 1:
                layers[f"pool{stack}"] = nn.MaxPool2d(2)
                side //= 2
            if dropout:
                layers[f"dropout{stack}"] = nn.Dropout(dropout)
        layers["average"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["hidden"] = new(nn.Linear, before, before, **where)
        layers["relu"] = nn.ReLU()
        layers["readout"] = new(nn.Linear, before, classes, **where)
        self.layers = nn.Sequential(layers)

    def forward(self, x: Tensor) -> Tensor:
        check_images(x, self.channels, self.size)
        return self.layers(x)


def vgg(
    classes: int = 10,
    channels: int = 3,
    *,
    size: int = 32,
    width: int = 64,
    batch_norm: bool = True,
    dropout: float = 0.5,
    init: str = "he",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> VGG:
    """Draws a VGG of eight convolutions and two dense layers.

    Args:
        classes: K, the outputs.
        channels: of the images; 3 for CIFAR, 1 for MNIST.
        size: the side of the images, in pixels.
        width: w, channels of the first stack; the others have 2w, 4w and 8w. The paper's is 64.
        batch_norm: before each ReLU of the convolutions, which then have no biases.
        dropout: probability after each stack, in [0, 1); 0 leaves the layers out, as `labkit.train` needs.
        init: see `labkit.models.init`.
        seed: the same seed gives the same weights in every dtype, with and without batch norm; other sizes
            give independent draws.
        dtype: of the weights, which are drawn in float64.
        device: where the weights are.

    Returns:
        VGG: a module from images (n, channels, size, size) to (n, K).

    Raises:
        ValueError: an argument is out of its range.
    """
    K, c, s, w = (
        whole("classes", classes),
        whole("channels", channels),
        whole("size", size),
        whole("width", width),
    )
    if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        raise ValueError(f"dropout: got {dropout!r}; it takes a probability in [0, 1)")
    model = VGG(K, c, s, w, bool(batch_norm), float(dropout), floating(dtype), device)
    return initialize(model, init, stream("vgg", seed, K, c, w))
