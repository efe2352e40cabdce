"""Rows of the loss around a minimum, beside the loops that a person writes with the same passes."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from benchmarks.networks import forward_flops, perceptron
from benchmarks.turns import Case, Row
from labkit.measure import expected_sharpness, flatness_radius, max_sharpness, three_point
from labkit.measure.flatness import first_crossing
from labkit.measure.interpolation import simplex

SAMPLES, ALPHAS, DRAWS, STEPS, DIRECTIONS, RESOLUTION = 1000, (1e-3, 3e-3, 1e-2), 10, 50, 5, 12


class Plain:
    """A network and its data, the loss at any weights, and how often it was asked for."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor) -> None:
        self.model, self.x, self.y, self.asked = deepcopy(model), x, y, 0
        self.weights = parameters_to_vector(model.parameters()).detach()

    def at(self, weights: Tensor) -> Tensor:
        """The loss there, with its graph where gradients are on."""
        self.asked += 1
        vector_to_parameters(weights, self.model.parameters())
        return F.cross_entropy(self.model(self.x), self.y)

    @torch.no_grad()
    def loss(self, weights: Tensor) -> float:
        """The loss there."""
        return float(self.at(weights))


def ready() -> tuple[nn.Module, Tensor, Tensor]:
    """A small network fitted to random labels."""
    model, x, y = perceptron(64, 256, 256, 10), torch.randn(SAMPLES, 64), torch.arange(SAMPLES) % 10
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model, x, y


def expected() -> Case:
    model, x, y = ready()
    plain = Plain(model, x, y)

    def theirs() -> Tensor:
        generator, start = torch.Generator().manual_seed(0), plain.loss(plain.weights)
        scale, rises = 10 * plain.weights.abs() + 1, []
        for _ in range(DRAWS):
            noise = torch.randn(scale.shape, generator=generator) * scale
            rises.append([plain.loss(plain.weights + alpha * noise) - start for alpha in ALPHAS])
        return torch.tensor(rises, dtype=torch.float64).mean(0)

    ours = {"": lambda: expected_sharpness(model, x, y, alphas=ALPHAS, draws=DRAWS).mean}
    return Case(ours, {"a plain loop": theirs}, flops=len(ALPHAS) * DRAWS * forward_flops(model, x))


def worst() -> Case:
    model, x, y = ready()
    plain = Plain(model, x, y)

    def theirs() -> float:
        start, w = plain.loss(plain.weights), plain.weights
        box, nu, best = 5e-4 * (w.abs() + 1), torch.zeros_like(w), 0.0
        for reach in np.linspace(2, 0.01, STEPS):
            loss = plain.at(w + nu)
            best = max(best, float(loss) - start)
            slope = parameters_to_vector(torch.autograd.grad(loss, list(plain.model.parameters())))
            nu = (nu + float(reach) * box * slope.sign()).clamp(-box, box)
        return max(best, plain.loss(w + nu) - start)

    ours = {"": lambda: max_sharpness(model, x, y, steps=STEPS).value}
    # Ours climbs twice, and may find more; never much less.
    missing = lambda a, b: max(0.0, 1 - a / b)  # noqa: E731
    flops = 3 * STEPS * forward_flops(model, x)
    return Case(ours, {"a plain loop": theirs}, missing, tolerance=0.02, flops=flops)


def radius() -> Case:
    model, x, y = ready()
    plain = Plain(model, x, y)

    def theirs() -> Tensor:
        generator = torch.Generator().manual_seed(0)
        drawn = [torch.randn(len(plain.weights), generator=generator) for _ in range(DIRECTIONS)]
        return torch.tensor([first_crossing(plain.loss, plain.weights, u, 0.05, 100.0) for u in drawn])

    theirs()
    flops = plain.asked * forward_flops(model, x)
    ours = {"": lambda: flatness_radius(model, x, y, directions=DIRECTIONS).radii}
    return Case(ours, {"a plain loop": theirs}, flops=flops)


def triangle() -> Case:
    (model, x, y), models = ready(), []
    for seed in range(3):
        models.append(deepcopy(model))
        with torch.no_grad():
            for p in models[-1].parameters():
                p += 0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(seed))
    corners = [parameters_to_vector(one.parameters()).detach() for one in models]
    plain, points = Plain(model, x, y), simplex(RESOLUTION)[0]

    @torch.no_grad()
    def theirs() -> Tensor:
        found = []
        for at in points.tolist():
            mixed = sum(share * corner for share, corner in zip(at, corners, strict=True))
            vector_to_parameters(mixed, plain.model.parameters())
            outputs = plain.model(x)
            right = (outputs.argmax(1) == y).float().mean()
            found.append((float(F.cross_entropy(outputs, y)), float(right)))
        return torch.tensor(found)[:, 0]

    ours = {"": lambda: three_point(models, x, y, resolution=RESOLUTION).loss}
    return Case(ours, {"a plain loop": theirs}, flops=len(points) * forward_flops(model, x))


SIZES = f"64-256-256-10, n = {SAMPLES}"
WHY = (
    "the same passes on both sides; ours has one more, which looks whether samples meet, and ten over 1 to "
    "3, and gives each pass a copy of x, as forward may work in place"
)
CLIMB = (
    "the same passes on both sides; of ours 3 % looks whether the model keeps its promises, 10 % is the "
    "climb's own, whose best point and exact zeros are told apart on the device"
)
_made: tuple[tuple[str, str, Callable[[], Case], str], ...] = (
    ("expected", f"expected_sharpness, {len(ALPHAS)} sizes of {DRAWS} draws, {SIZES}", expected, WHY),
    ("max-sharpness", f"max_sharpness, {STEPS} steps, {SIZES}", worst, CLIMB),
    ("radius", f"flatness_radius, {DIRECTIONS} directions, {SIZES}", radius, WHY),
    ("three-point", f"three_point, {len(simplex(RESOLUTION)[0])} points, {SIZES}", triangle, WHY),
)
ROWS = tuple(Row(name, what, make, {"a plain loop": 1.0}, why=why) for name, what, make, why in _made)
