"""The CIFAR residual networks (He et al. 2016, section 4.2), with batch norm and skips each on or off.

Paper 4 takes ResNet20 without batch norm and with a small output scale (.025 for CIFAR-10, .1 for MNIST).
Without batch norm the convolutions have biases. Shortcuts are the parameter-free option A: every second
pixel, new channels zero.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.models._arguments import check_images, floating, positive, stream, whole
from labkit.models.init import initialize


class Block(nn.Module):
    """relu(norm(conv(relu(norm(conv(x))))) + shortcut(x)), the shortcut left out when skip is off."""

    def __init__(self, before: int, after: int, stride: int, norm: bool, skip: bool, **where: Any) -> None:
        super().__init__()
        self.stride, self.skip = stride, skip
        self.conv1, self.norm1 = _convolution(before, after, stride, norm, **where)
        self.conv2, self.norm2 = _convolution(after, after, 1, norm, **where)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        if self.skip:
            y = y + self._shortcut(x, y.shape[1])
        return torch.relu(y)

    def _shortcut(self, x: Tensor, channels: int) -> Tensor:
        new = channels - x.shape[1]
        if self.stride == 1 and new == 0:
            return x
        return F.pad(x[..., :: self.stride, :: self.stride], (0, 0, 0, 0, new // 2, new - new // 2))

    def extra_repr(self) -> str:
        return f"skip={self.skip}"


class ResNet(nn.Module):
    """A convolution, three groups of blocks, the mean over pixels, a linear readout.

    The groups have w, 2w and 4w channels; the second and third halve the image.

    Parameters are named `conv.*`, `norm.*`, `groups.G.B.conv1.*`, ..., `readout.*`. Takes images (n,
    channels, height, width).
    """

    def __init__(
        self,
        classes: int,
        channels: int,
        width: int,
        blocks: int,
        batch_norm: bool = False,
        skip: bool = True,
        output_scale: float = 1.0,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__()
        where = {"dtype": dtype, "device": device}
        self.output_scale = output_scale
        self.conv, self.norm = _convolution(channels, width, 1, batch_norm, **where)
        groups, before = [], width
        for level in range(3):
            after = width * 2**level
            group = []
            for block in range(blocks):
                stride = 2 if level > 0 and block == 0 else 1
                group.append(Block(before, after, stride, batch_norm, skip, **where))
                before = after
            groups.append(nn.Sequential(*group))
        self.groups = nn.Sequential(*groups)
        self.readout = nn.utils.skip_init(nn.Linear, before, classes, **where)

    def forward(self, x: Tensor) -> Tensor:
        check_images(x, self.conv.in_channels)
        x = self.groups(torch.relu(self.norm(self.conv(x))))
        x = self.readout(x.mean((-2, -1)))
        return x if self.output_scale == 1.0 else self.output_scale * x

    def extra_repr(self) -> str:
        return f"output_scale={self.output_scale:g}"


def _convolution(
    before: int, after: int, stride: int, norm: bool, **where: Any
) -> tuple[nn.Conv2d, nn.Module]:
    # skip_init: the layer's own constructor would draw from torch's global generator.
    conv = nn.utils.skip_init(
        nn.Conv2d, before, after, kernel_size=3, stride=stride, padding=1, bias=not norm, **where
    )
    return conv, nn.BatchNorm2d(after, **where) if norm else nn.Identity()


def resnet20(
    classes: int = 10,
    channels: int = 3,
    *,
    width: int = 16,
    batch_norm: bool = False,
    skip: bool = True,
    output_scale: float = 1.0,
    init: str = "he",
    blocks: int = 3,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> ResNet:
    """Draws a ResNet of 6 * blocks + 2 layers: ResNet20 unless told otherwise.

    Args:
        classes: K, the outputs.
        channels: of the images; 3 for CIFAR, 1 for MNIST.
        width: channels of the first group.
        batch_norm: off as in paper 4; convolutions then have biases.
        skip: False gives the plain network of the same weights.
        output_scale: multiplies the output, as a constant.
        init: see `labkit.models.init`.
        blocks: in each of the three groups.
        seed: the same seed gives the same weights in every dtype, with and without skips and batch norm;
            other sizes give independent draws.
        dtype: of the weights, which are drawn in float64.
        device: where the weights are.

    Returns:
        ResNet: a module from images (n, channels, H, W) to (n, K).

    Raises:
        ValueError: an argument is out of its range.
    """
    K, c, w, b = (
        whole("classes", classes),
        whole("channels", channels),
        whole("width", width),
        whole("blocks", blocks),
    )
    scale = positive("output_scale", output_scale)
    model = ResNet(K, c, w, b, bool(batch_norm), bool(skip), scale, floating(dtype), device)
    return initialize(model, init, stream("resnet", seed, K, c, w, b))
