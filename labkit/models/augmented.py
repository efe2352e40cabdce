"""Crop and flip, drawn where the images are: the augmentation of CIFAR-10 (He et al. 2016, section 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.models._arguments import check_images, stream, whole

BORDER = 4  # pixels of zeros around an image, of which a window of its own size is cut


class Augmented(nn.Module):
    """A network that in training mode sees each image shifted, and every other one mirrored.

    Which way is drawn from the seed and the number of batches seen. That number is a buffer, so that a
    training which stops and goes on elsewhere draws on where it stood. Nothing is read back to the host.

    Parameters are named `network.*`. In evaluation mode it is the network.
    """

    count: Tensor

    def __init__(self, network: nn.Module, channels: int, seed: int) -> None:
        super().__init__()
        self.network, self.channels = network, channels
        self.start = int(torch.randint(2**31, (), generator=stream("crop and flip", seed)))
        where = next(network.parameters()).device
        self.register_buffer("count", torch.zeros((), dtype=torch.int64, device=where))

    def forward(self, x: Tensor) -> Tensor:
        check_images(x, self.channels)
        if not self.training:
            return self.network(x)
        draws = _drawn(self.count * 2**20 + self.start, len(x))
        self.count += 1
        return self.network(_cropped(x, draws))


def augmented(network: nn.Module, channels: int, *, seed: int = 0) -> Augmented:
    """A network that is trained on shifted and mirrored images.

    Args:
        network: takes images (n, channels, height, width); it is trained itself, no copy of it.
        channels: of the images.
        seed: decides shifts of up to 4 pixels a side, and which images are mirrored.

    Returns:
        Augmented: a module from images to what the network gives.

    Raises:
        ValueError: an argument is out of its range.
    """
    return Augmented(network, whole("channels", channels), whole("seed", seed, least=0))


def _drawn(start: Tensor, size: int) -> Tensor:
    """(size,) whole numbers below 2³², mixed from a counter (the finaliser of a 32-bit hash)."""
    x = (start + torch.arange(size, device=start.device)) & 0xFFFFFFFF
    for _ in range(2):
        x = ((x ^ (x >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    return x ^ (x >> 16)


def _cropped(x: Tensor, draws: Tensor) -> Tensor:
    size, channels, height, width = x.shape
    places = 2 * BORDER + 1
    rows = (draws % places)[:, None] + torch.arange(height, device=x.device)
    columns = torch.arange(width, device=x.device).expand(size, width)
    mirrored = ((draws // places**2) % 2).bool()[:, None]
    columns = torch.where(mirrored, columns.flip(1), columns) + (draws // places % places)[:, None]
    padded = F.pad(x, (BORDER, BORDER, BORDER, BORDER))
    image = torch.arange(size, device=x.device)[:, None, None, None]
    channel = torch.arange(channels, device=x.device)[None, :, None, None]
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
