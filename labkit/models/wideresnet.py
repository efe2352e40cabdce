"""Wide residual networks (Zagoruyko and Komodakis 2016), with batch norm and skips each on or off.

WRN-d-k has depth d = 6n + 4: a convolution, three groups of n blocks with k, 2k and 4k times the base width,
a readout. A block normalises and activates *before* each of its two 3 x 3 convolutions. Where the channels or
the stride change, the shortcut is a 1 x 1 convolution of the activated input. Paper 3, Table 2, counts
8,949,210 parameters: that is WRN-40-4 with batch norm, for ten classes of colour images. Paper 5 writes
WRN-β-ℓ, β the depth and ℓ the width factor.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from labkit.models._arguments import check_images, floating, stream, whole
from labkit.models.init import initialize


class WideBlock(nn.Module):
    """conv(relu(norm(conv(relu(norm(x)))))) + shortcut, the shortcut left out when skip is off."""

    def __init__(self, before: int, after: int, stride: int, norm: bool, skip: bool, **where: Any) -> None:
        super().__init__()
        self.skip = skip
        self.norm1 = nn.BatchNorm2d(before, **where) if norm else nn.Identity()
        self.conv1 = _convolution(before, after, 3, stride, not norm, **where)
        self.norm2 = nn.BatchNorm2d(after, **where) if norm else nn.Identity()
        self.conv2 = _convolution(after, after, 3, 1, not norm, **where)

    def forward(self, x: Tensor, project: nn.Module | None = None) -> Tensor:
        active = torch.relu(self.norm1(x))
        y = self.conv2(torch.relu(self.norm2(self.conv1(active))))
        if not self.skip:
            return y
        return y + (x if project is None else project(active))

    def extra_repr(self) -> str:
        return f"skip={self.skip}"


class WideResNet(nn.Module):
    """A convolution, three groups of blocks, norm, ReLU, the mean over pixels, a linear readout.

    The second and third group halve the image. Parameters are named `conv.*`, `groups.G.B.conv1.*`, ...,
    `norm.*`, `readout.*`, `shortcuts.G.weight`. Takes images (n, channels, height, width).

    Attributes:
        shortcuts: group -> its 1 x 1 convolution, where its first block changes channels or size.
    """

    def __init__(
        self,
        classes: int,
        channels: int,
        base: int,
        width_factor: int,
        blocks: int,
        batch_norm: bool = True,
        skip: bool = True,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__()
        where: dict[str, Any] = {"dtype": dtype, "device": device}
        self.conv = _convolution(channels, base, 3, 1, not batch_norm, **where)
        groups, shortcuts, before = [], {}, base
        for level in range(3):
            after, stride = base * width_factor * 2**level, 1 if level == 0 else 2
            first = WideBlock(before, after, stride, batch_norm, skip, **where)
            rest = [WideBlock(after, after, 1, batch_norm, skip, **where) for _ in range(blocks - 1)]
            groups.append(nn.ModuleList([first, *rest]))
            if skip and (stride > 1 or before != after):
                shortcuts[str(level)] = _convolution(before, after, 1, stride, False, **where)
            before = after
        self.groups = nn.ModuleList(groups)
        self.norm = nn.BatchNorm2d(before, **where) if batch_norm else nn.Identity()
        self.readout = nn.utils.skip_init(nn.Linear, before, classes, **where)
        # Last, so that the other weights of a seed are the same with and without them.
        self.shortcuts = nn.ModuleDict(shortcuts)

    def forward(self, x: Tensor) -> Tensor:
        check_images(x, self.conv.in_channels)
        x, projects = self.conv(x), dict(self.shortcuts.items())
        for level, group in enumerate(self.groups):
            project = projects.get(str(level))
            for block in cast(nn.ModuleList, group):
                x, project = block(x, project), None
        return self.readout(torch.relu(self.norm(x)).mean((-2, -1)))


def _convolution(before: int, after: int, kernel: int, stride: int, bias: bool, **where: Any) -> nn.Conv2d:
    # skip_init: the layer's own constructor would draw from torch's global generator.
    return nn.utils.skip_init(
        nn.Conv2d, before, after, kernel_size=kernel, stride=stride, padding=kernel // 2, bias=bias, **where
    )


def wide_resnet(
    depth: int = 40,
    width_factor: int = 4,
    classes: int = 10,
    channels: int = 3,
    *,
    base: int = 16,
    batch_norm: bool = True,
    skip: bool = True,
    init: str = "he",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> WideResNet:
    """Draws a wide residual network: WRN-40-4, that of paper 3, unless told otherwise.

    Args:
        depth: 6n + 4 layers, n blocks in each of the three groups.
        width_factor: k (ℓ in paper 5); the groups have k, 2k and 4k times `base` channels.
        classes: K, the outputs.
        channels: of the images; 3 for CIFAR, 1 for MNIST.
        base: channels of the first convolution.
        batch_norm: without it the convolutions have biases.
        skip: False gives the plain network, which has no 1 x 1 convolutions.
        init: see `labkit.models.init`.
        seed: the same seed gives the same weights in every dtype, and the same 3 x 3 convolutions and readout
            with and without skips and batch norm; other sizes give independent draws.
        dtype: of the weights, which are drawn in float64.
        device: where the weights are.

    Returns:
        WideResNet: a module from images (n, channels, H, W) to (n, K).

    Raises:
        ValueError: an argument is out of its range, or the depth is not 6n + 4.
    """
    layers = whole("depth", depth)
    if layers < 10 or (layers - 4) % 6:
        raise ValueError(f"depth: got {depth}; it takes 6n + 4: 10, 16, 22, 28, 34, 40, ...")
    k, K, c, b = (
        whole("width_factor", width_factor),
        whole("classes", classes),
        whole("channels", channels),
        whole("base", base),
    )
    model = WideResNet(K, c, b, k, (layers - 4) // 6, bool(batch_norm), bool(skip), floating(dtype), device)
    return initialize(model, init, stream("wide-resnet", seed, layers, k, K, c, b))
