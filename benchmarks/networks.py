"""The networks and data of the rows, and what a pass over them takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def perceptron(*widths: int) -> nn.Sequential:
    """Dense layers with ReLU between them."""
    layers: list[nn.Module] = []
    for before, after in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def plain_cnn() -> nn.Sequential:
    """Six convolutions that every library can take: no skips, no functional calls."""
    layers: list[nn.Module] = []
    for before, after, stride in (
        (3, 16, 1),
        (16, 16, 1),
        (16, 32, 2),
        (32, 32, 1),
        (32, 64, 2),
        (64, 64, 1),
    ):
        layers += [nn.Conv2d(before, after, 3, stride, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AvgPool2d(8), nn.Flatten(), nn.Linear(64, 10))


def images(n: int) -> Tensor:
    """Random ones, (n, 3, 32, 32)."""
    return torch.randn(n, 3, 32, 32)


def forward_flops(model: nn.Module, x: Tensor) -> float:
    """Of one pass over x, in matrix products and convolutions."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x[:1])
    return float(counter.get_total_flops()) * len(x)


def parameters(model: nn.Module) -> int:
    """How many."""
    return sum(p.numel() for p in model.parameters())


def dense_kernel_flops(n: int, K: int, widths: Sequence[int]) -> float:
    """Of (a aᵀ + 1) ∘ (B Bᵀ) over layers, upper half, after one pass forward and K back."""
    pairs = list(zip(widths, widths[1:], strict=False))
    products = n * K * (n * K + 1) * sum(m for _, m in pairs) + n * (n + 1) * sum(d for d, _ in pairs)
    # Nothing is carried back to the inputs, and the last layer begins with the identity.
    return products + 2 * n * (sum(d * m for d, m in pairs) + K * sum(d * m for d, m in pairs[1:]))
