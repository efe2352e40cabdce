"""The all-convolutional network of paper 3 (Figs 1-4, 13-15, 22-24): five layers, strides, no pooling.

Every layer is a 3 x 3 convolution with biases, zero padding 1. The hidden layers have equally many channels
c, and stride 2 for as long as the image is wider than 2 pixels: 8 -> 4 -> 2 -> 2 -> 2 for digits,
32 -> 16 -> 8 -> 4 -> 2 for CIFAR-10. The last layer gives the classes, averaged over the pixels that are
left. An image never gets narrower than 2 pixels, because on a single one eight of nine weights would see
padding alone and not count. The paper prints "only W ~ 10000" for 16 channels on CIFAR-10; here it is 8,858.

S copies of a small network run fastest as matrix products: a convolution of 2 x 2 pixels is a dense layer
with shared weights, and little is wasted at 4 x 4. Six copies of c = 4 on 64 digits, forward and backward on
one core: .6 ms, against 1.4 ms for `vmap` of the same products, 3.0 ms for grouped convolutions (which is
what `vmap` of a convolution is) and 5.4 ms for one copy after another. Wide layers on larger images are
convolved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.models._arguments import check_images, floating, stream, whole
from labkit.models.activations import activation_named
from labkit.models.init import initialize

KERNEL, PADDING = 3, 1
NARROWEST = 2  # pixels: no stride makes an image narrower
# A layer is multiplied out where an image has at most so many pixels, or so many numbers in all.
PIXELS, NUMBERS = 16, 192


class AllConv(nn.Module):
    """conv, phi, ..., conv, phi, conv, the mean over pixels.

    Takes images (n, channels, size, size). Parameters are named `layers.0.weight`, `layers.0.bias`, ...

    Attributes:
        layers: the `nn.Conv2d`, the one that gives the classes last.
        phi: the activation between them.
        size: the side of the images, in pixels.
    """

    size: int

    def __init__(
        self,
        classes: int,
        channels: int,
        size: int,
        width: int,
        layers: int = 5,
        activation: str | nn.Module = "relu",
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__()
        self.size, self.activation = size, activation if isinstance(activation, str) else "given"
        self.phi: Callable[[Tensor], Tensor] = (
            activation_named(activation).phi if isinstance(activation, str) else activation
        )
        self._strides = _strides(size, layers)
        widths = [channels, *[width] * (layers - 1), classes]
        # skip_init: the layer's own constructor would draw from torch's global generator.
        self.layers = nn.ModuleList(
            nn.utils.skip_init(
                nn.Conv2d, a, b, kernel_size=KERNEL, stride=stride, padding=PADDING,
                dtype=dtype, device=device,
            )
            for (a, b), stride in zip(pairwise(widths), self._strides, strict=True)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        first = self.layers[0]
        assert isinstance(first, nn.Conv2d)
        check_images(x, first.in_channels, self.size)
        for layer in self.layers[:-1]:
            x = self.phi(layer(x))
        return self.layers[-1](x).mean((-2, -1))

    def forward_copies(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """`forward` for S copies at once, which `labkit.training.Ensemble` takes where it is offered.

        Args:
            tensors: parameter name -> (S, ...).
            x: (S, n, channels, size, size).

        Returns:
            (S, n, K).
        """
        copies, n = x.shape[:2]
        for i, stride in enumerate(self._strides):
            weight, bias = tensors[f"layers.{i}.weight"], tensors[f"layers.{i}.bias"]
            c, side = weight.shape[2], x.shape[-1]
            if side * side <= PIXELS or c * side * side <= NUMBERS:
                x = _multiplied(x, weight, bias, stride)
            else:
                # Copies side by side as groups of channels.
                wide = x.transpose(0, 1).reshape(n, copies * c, side, side)
                out = F.conv2d(wide, weight.flatten(0, 1), bias.flatten(), stride, PADDING, groups=copies)
                x = out.reshape(n, copies, -1, *out.shape[2:]).transpose(0, 1)
            if i < len(self.layers) - 1:
                x = self.phi(x)
        return x.mean((-2, -1))

    def extra_repr(self) -> str:
        return f"size={self.size}, activation={self.activation!r}"


def _multiplied(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """One convolution of S copies as a matrix product a copy: x (S, n, c, side, side)."""
    copies, n, c, side, _ = x.shape
    out, after = weight.shape[1], -(-side // stride)
    taps = _taps(side, stride, weight)
    full = (weight.flatten(3) @ taps).reshape(copies, out, c, after * after, side * side)
    full = full.permute(0, 2, 4, 1, 3).reshape(copies, c * side * side, out * after * after)
    shift = bias.unsqueeze(2).expand(-1, -1, after * after).reshape(copies, 1, -1)
    return torch.baddbmm(shift, x.reshape(copies, n, -1), full).reshape(copies, n, out, after, after)


_TAPS: dict[tuple[int, int, torch.dtype, torch.device], Tensor] = {}


def _taps(side: int, stride: int, like: Tensor) -> Tensor:
    """(9, after² · side²): which weight of the kernel joins which two pixels."""
    key = (side, stride, like.dtype, like.device)
    if key not in _TAPS:
        after = -(-side // stride)
        taps = torch.zeros(KERNEL, KERNEL, after, after, side, side)
        for dy in range(KERNEL):
            for dx in range(KERNEL):
                for row in range(after):
                    for column in range(after):
                        y, x = row * stride + dy - PADDING, column * stride + dx - PADDING
                        if 0 <= y < side and 0 <= x < side:
                            taps[dy, dx, row, column, y, x] = 1
        _TAPS[key] = taps.reshape(KERNEL * KERNEL, -1).to(like)
    return _TAPS[key]


def _strides(size: int, layers: int) -> tuple[int, ...]:
    """2 while the image is wider than `NARROWEST`; the last layer keeps it."""
    strides: list[int] = []
    for _ in range(layers - 1):
        strides.append(2 if size > NARROWEST else 1)
        size = -(-size // strides[-1])
    return (*strides, 1)


def allconv(
    classes: int = 10,
    channels: int = 1,
    *,
    size: int = 8,
    width: int = 16,
    layers: int = 5,
    activation: str | nn.Module = "relu",
    init: str = "he",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> AllConv:
    """Draws an all-convolutional network.

    Args:
        classes: K, the outputs.
        channels: of the images; 1 for digits and MNIST, 3 for CIFAR.
        size: the side of the images, in pixels.
        width: c, channels of each hidden layer.
        layers: convolutions, the last one included.
        activation: "relu", "softplus", "tanh" or "identity"; or an elementwise module without tensors of its
            own, such as `polynomial_relu()`.
        init: see `labkit.models.init`.
        seed: the same seed gives the same weights in every dtype and for every activation; other sizes give
            independent draws.
        dtype: of the weights, which are drawn in float64.
        device: where the weights are.

    Returns:
        AllConv: a module from images (n, channels, size, size) to (n, K).

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> model = allconv(width=4)
        >>> sum(p.numel() for p in model.parameters())
        854
    """
    K, c, s = whole("classes", classes), whole("channels", channels), whole("size", size, NARROWEST)
    w, depth = whole("width", width), whole("layers", layers, 2)
    if not isinstance(activation, (str, nn.Module)):
        raise ValueError(f"activation: got {activation!r}; it takes a name or an elementwise module")
    if isinstance(activation, nn.Module) and (*activation.parameters(), *activation.buffers()):
        # Copies are stacked, and its tensors would be stacked with them.
        raise ValueError(
            f"activation: {type(activation).__name__} has tensors of its own; take one that has none"
        )
    model = AllConv(K, c, s, w, depth, activation, floating(dtype), device)
    return initialize(model, init, stream("allconv", seed, K, c, s, w, depth))


def weights(width: int, *, classes: int = 10, channels: int = 1, layers: int = 5) -> int:
    """W, the weights and biases of a network with c channels a hidden layer.

    W = 9c(C + K) + c + K + (L - 2)(9c² + c) for C image channels, K classes and L layers, whatever the size
    of the images.

    Raises:
        ValueError: an argument is out of its range.
    """
    c, K, C = whole("width", width), whole("classes", classes), whole("channels", channels)
    hidden = whole("layers", layers, 2) - 2
    field = KERNEL * KERNEL
    return field * c * (C + K) + c + K + hidden * (field * c * c + c)
