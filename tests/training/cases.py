"""The networks and the data of the training tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from labkit.models import MLP, initialize, mlp, one_hidden, resnet20
from labkit.models.allconv import allconv


class Doubled(MLP):
    """A subclass with another forward pass, which inherits the stages of its parent."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Tied(nn.Module):
    """One matrix, used twice."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.first = _sequential(seed)[0]
        self.second = nn.utils.skip_init(nn.Linear, 5, 5, dtype=torch.float64)
        self.second.weight, self.second.bias = self.first.weight, self.first.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))[:, :3]


@dataclass(frozen=True)
class Case:
    """An architecture: seed -> module in float64, how an ensemble runs it, and the shape of one input."""

    build: Callable[[int], nn.Module]
    route: str
    shape: tuple[int, ...] = (5,)


def _sequential(seed: int, *, norm: bool = False) -> nn.Sequential:
    sizes = [(5, 5), (5, 3)]
    first, last = (nn.utils.skip_init(nn.Linear, a, b, dtype=torch.float64) for a, b in sizes)
    middle = nn.LayerNorm(5, dtype=torch.float64) if norm else nn.Softplus()
    model = nn.Sequential(first, middle, last)
    return initialize(model, "lecun", torch.Generator().manual_seed(seed))


def _doubled(seed: int) -> Doubled:
    model = Doubled([5, 6, 3], "tanh", dtype=torch.float64)
    return initialize(model, "lecun", torch.Generator().manual_seed(seed))


F64 = {"dtype": torch.float64}
CASES = {
    "relu": Case(lambda seed: mlp(5, 6, 2, 3, seed=seed, **F64), "chain"),
    "tanh, no bias, scaled": Case(
        lambda seed: mlp(5, 6, 2, 3, activation="tanh", bias=False, output_scale=0.3, seed=seed, **F64),
        "chain",
    ),
    "frozen readout": Case(lambda seed: mlp(5, 6, 1, 3, train_readout=False, seed=seed, **F64), "chain"),
    "one hidden": Case(lambda seed: one_hidden(5, 8, 3, seed=seed, **F64), "chain"),
    "both layers": Case(lambda seed: one_hidden(5, 8, 3, train_readout=True, seed=seed, **F64), "chain"),
    "images": Case(lambda seed: mlp(16, 6, 1, 3, seed=seed, **F64), "chain", (1, 4, 4)),
    "sequential": Case(_sequential, "chain"),
    "layer norm": Case(lambda seed: _sequential(seed, norm=True), "vmap"),
    "subclass": Case(_doubled, "vmap"),
    "tied": Case(Tied, "vmap"),
    "convolutions": Case(lambda seed: allconv(3, 1, size=4, width=2, seed=seed, **F64), "own", (1, 4, 4)),
    "resnet": Case(lambda seed: resnet20(3, 1, width=2, blocks=1, seed=seed, **F64), "vmap", (1, 4, 4)),
    "batch norm": Case(
        lambda seed: resnet20(3, 1, width=2, blocks=1, batch_norm=True, seed=seed, **F64), "vmap", (1, 4, 4)
    ),
}


def data(
    shape: tuple[int, ...] = (5,), n: int = 10, outputs: int = 3, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """x (n, *shape) and y (n, outputs), float64."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *shape, generator=generator, dtype=torch.float64)
    return x, torch.randn(n, outputs, generator=generator, dtype=torch.float64)


def linear(inputs: int = 5, outputs: int = 3, seed: int = 0) -> MLP:
    """f(x) = W x: gradient descent on it has a closed form."""
    return mlp(inputs, 1, 0, outputs, bias=False, seed=seed, dtype=torch.float64)
