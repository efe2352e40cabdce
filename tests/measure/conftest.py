"""One table of problems for everything that is measured on a network, and the comparator that teaches.

All in float64. Two paths that sum the same numbers in another order differ by about sqrt(terms) * 2e-16
relative; the problems have at most 1e3 terms an entry and depth 4, so 1e-12 is generous and 1e-10 never
flips.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

RTOL = 1e-10


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in float64 with parameters and buffers drawn from a generator of our own."""
    model = model.double()
    source = generator(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=source, dtype=torch.float64) / 2)
        for b in model.buffers():
            if b.is_floating_point():
                b.copy_(torch.rand(b.shape, generator=source, dtype=torch.float64) + 0.5)
    return model


class OneHiddenLike(nn.Module):
    """f(x) = V phi(x W^T): weights used by hand, not through nn.Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.empty(7, 5))
        self.register_buffer("V", torch.empty(3, 7))

    def forward(self, x: Tensor) -> Tensor:
        return F.softplus(x @ self.W.T) @ self.V.T


class Residual(nn.Module):
    """Convolutions with a skip, a stride, in-place ReLU, output scale: a ResNet20 in small."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(2, 3, 3, padding=1)
        self.b = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.c = nn.Conv2d(3, 4, 2, stride=2, dilation=2)
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.a(x), inplace=True)
        h = F.relu(h + self.b(h), inplace=True)
        return 0.1 * self.out(self.c(h).tanh().mean((2, 3)))


class Tied(nn.Module):
    """An autoencoder whose decoder is the encoder's transpose."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.encode(x).tanh(), self.encode.weight.T)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.read = nn.LSTM(3, 4, batch_first=True)
        self.out = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.read(x)[0][:, -1])


@dataclass(frozen=True)
class Case:
    """A model, its inputs, and the structure that must be found in it."""

    name: str
    model: Callable[[], Any]
    shape: tuple[int, ...]
    structure: str
    params: Callable[[], Mapping[str, Tensor]] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def inputs(self, seed: int = 5) -> Tensor:
        return torch.randn(self.shape, generator=generator(seed), dtype=torch.float64)


def mlp(*widths: int, bias: bool = True, act: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(a, b, bias=bias), act()]
    return nn.Sequential(*layers[:-1])


def frozen() -> nn.Module:
    model = drawn(mlp(5, 6, 4, 3))
    model[0].requires_grad_(False)
    model[2].bias.requires_grad_(False)
    return model


def shared() -> nn.Module:
    layer = nn.Linear(5, 5)
    return drawn(nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), nn.Linear(5, 2)))


def functional(params: Mapping[str, Tensor], x: Tensor) -> Tensor:
    return torch.tanh(x @ params["first"].T + params["shift"]) @ params["second"]


def functional_params() -> dict[str, Tensor]:
    source = generator(3)
    shapes = {"first": (6, 5), "shift": (6,), "second": (6, 3)}
    return {n: torch.randn(s, generator=source, dtype=torch.float64) for n, s in shapes.items()}


CASES = [
    Case("dense", lambda: drawn(mlp(5, 8, 6, 3)), (13, 5), "dense"),
    Case("relu-in-place", lambda: drawn(mlp(5, 8, 6, 3, act=lambda: nn.ReLU(inplace=True))), (9, 5), "dense"),
    Case("no-bias", lambda: drawn(mlp(5, 8, 3, bias=False)), (7, 5), "dense"),
    Case("one-output", lambda: drawn(mlp(5, 8, 1)), (7, 5), "dense"),
    Case("one-sample", lambda: drawn(mlp(5, 8, 3)), (1, 5), "dense"),
    Case("one-hidden", lambda: drawn(OneHiddenLike()), (8, 5), "dense"),
    Case("frozen", frozen, (7, 5), "dense"),
    Case("conv", lambda: drawn(Residual()), (23, 2, 6, 6), "taps"),
    Case(
        "norm-in-eval",
        lambda: drawn(nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Softplus(), nn.Flatten(),
                                    nn.Linear(27, 4), nn.BatchNorm1d(4))).eval(),
        (11, 1, 5, 5),
        "taps",
    ),
    Case("tokens", lambda: drawn(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Flatten(), nn.Linear(20, 2))),
         (4, 5, 3), "taps"),
    Case("shared-layer", shared, (6, 5), "generic"),
    Case("tied-weight", lambda: drawn(Tied()), (6, 4), "generic"),
    Case("layer-norm", lambda: drawn(nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.Tanh(),
                                                   nn.Linear(6, 2))), (6, 5), "generic"),
    Case("grouped-conv", lambda: drawn(nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.Flatten(), nn.Tanh(),
                                                     nn.Linear(36, 2))), (5, 2, 5, 5), "taps"),
    Case("recurrent", lambda: drawn(Recurrent()), (4, 5, 3), "generic"),
    Case("functional", lambda: functional, (7, 5), "generic", functional_params),
]  # fmt: skip


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


def params_of(case: Case) -> dict[str, Any]:
    return {} if case.params is None else {"params": case.params()}


def assert_close(found: Tensor, expected: Tensor, rtol: float = RTOL) -> None:
    """Equal to rtol of the largest entry; a failure prints where, both values and their ratio."""
    assert found.shape == expected.shape, f"shape {tuple(found.shape)} instead of {tuple(expected.shape)}"
    gap = (found - expected).abs()
    scale = expected.abs().max()
    if bool((gap <= rtol * scale).all()):
        return
    worst = torch.unravel_index(gap.argmax(), gap.shape)
    at = tuple(int(i) for i in worst)
    ratio = float(found[worst] / expected[worst])
    raise AssertionError(
        f"{int((gap > rtol * scale).sum())} of {gap.numel()} entries differ; the worst, {at}: found "
        f"{float(found[worst]):.6g}, expected {float(expected[worst]):.6g}, ratio {ratio:.6g}"
    )
