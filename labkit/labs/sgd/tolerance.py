"""Are small weight derivatives small input derivatives? (S16; paper 3, §5.4 and §9.6.1)

f = x Σ w₁w₂ with all weights 1 has weight derivatives of size |x| ≤ b and an input derivative d: flat in the
weights, steep in the input, by as large a factor as there are hidden units. And a share Δ on every weight of
L layers is a factor (1 + Δ)^L on the data, 2.14 for 10 % of 8 layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from labkit import figures
from labkit.labs import common
from labkit.labs.sgd import shared
from labkit.protocol.claims import Claim
from labkit.protocol.experiment import Experiment, Frame, Prediction, Run
from labkit.protocol.rules import AtMost, Equals, Evidence
from labkit.protocol.settings import Settings, knob
from labkit.theory.robust import data_tolerance

EXACT = 1e-10
INPUTS = 50  # values of x in [-b, b]
SIGNS = 200  # random choices of + and - for each weight
Share = Callable[[Tensor, float, Tensor], Tensor]


@dataclass(frozen=True)
class Tolerance(Settings):
    hidden: int = knob(256, "the largest number of hidden units d", slider=(4, 4096), bounds=(2, 1 << 16),
                       scale="log2")  # fmt: skip
    b: float = knob(0.1, "inputs lie in [-b, b]", slider=(0.01, 10), bounds=(1e-9, 1e9), scale="log")
    layers: int = knob(8, "layers L of the tree, with 2^L inputs", slider=(1, 12), bounds=(1, 16), step=1)
    share: float = knob(
        0.1, "share Δ by which every weight is changed", slider=(0, 0.5), bounds=(0, 0.99), step=0.05,
        label="Δ",
    )  # fmt: skip


@dataclass(frozen=True)
class Setup:
    """For each seed: inputs x of (§5.4), and a tree's positive weights by layer and its positive inputs."""

    settings: Tolerance
    x: tuple[Tensor, ...]
    trees: tuple[tuple[Tensor, ...], ...]  # layer k: (2^(L-k-1), 2), two weights a unit
    inputs: tuple[Tensor, ...]


def prepare(settings: Tolerance) -> Setup:
    x, trees, inputs = [], [], []
    for seed in common.seeds(settings):
        generator = torch.Generator().manual_seed(seed)
        points = settings.b * (2 * torch.rand(INPUTS, generator=generator, dtype=torch.float64) - 1)
        x.append(torch.cat([points, torch.tensor([settings.b], dtype=torch.float64)]))
        sizes = [2 ** (settings.layers - k - 1) for k in range(settings.layers)]
        trees.append(
            tuple(0.5 + torch.rand(size, 2, generator=generator, dtype=torch.float64) for size in sizes)
        )
        inputs.append(torch.rand(2**settings.layers, generator=generator, dtype=torch.float64))
    return Setup(settings, tuple(x), tuple(trees), tuple(inputs))


def predict(setup: Setup) -> Prediction:
    settings = setup.settings
    depths = np.arange(settings.layers + 1)
    units = np.unique([*2 ** np.arange(int(np.log2(settings.hidden)) + 1), settings.hidden])
    return {
        "units": units,
        "input_slope": units.astype(float),
        "weight_slope": np.full(len(units), settings.b),
        "depths": depths,
        "factor": np.array([data_tolerance(settings.share, depth) for depth in depths.tolist()]),
        "least": (1.0 - settings.share) ** depths,
    }


def product(weights: Tensor, x: Tensor) -> Tensor:
    """f(x) = x Σ_j w_1j w_2j, (n,): weights (2, d), x (n,)."""
    return x * (weights[0] * weights[1]).sum()


def tree(weights: Sequence[Tensor], x: Tensor) -> Tensor:
    """A binary tree of ReLU units: x (..., 2^L) -> (...)."""
    for layer in weights:
        x = torch.relu((layer * x.unflatten(-1, (-1, 2))).sum(-1))
    return x.squeeze(-1)


def scaled(weights: Tensor, share: float, signs: Tensor) -> Tensor:
    """Every weight changed by the share Δ, up or down."""
    return weights * (1 + share * signs)


def run(setup: Setup, prediction: Prediction, *, scaled: Share = scaled) -> Iterator[Frame]:
    settings = setup.settings
    units, depths = prediction["units"].tolist(), prediction["depths"].tolist()
    total = len(units) + len(depths)
    for step, d in enumerate(units):
        slopes = np.array([_slopes(d, x) for x in setup.x])
        values = {"weight_slope": slopes[:, 0], "input_slope": slopes[:, 1], "units": np.full(len(slopes), d)}
        yield Frame(step, values, (step + 1) / total)
    for depth in depths:
        step = len(units) + depth
        found = [
            _factors(weights, x, depth, settings.share, scaled, settings.seed + seed)
            for seed, (weights, x) in enumerate(zip(setup.trees, setup.inputs, strict=True))
        ]
        columns = np.array([part[:2] for part in found])
        values = {
            "factor": columns[:, 0],
            "data": columns[:, 1],
            "mixed": np.stack([part[2] for part in found]),
        }
        yield Frame(step, values, (step + 1) / total, "done" if depth == settings.layers else "running")


def _slopes(d: int, x: Tensor) -> tuple[float, float]:
    """Largest weight derivative over x, and the input derivative, by automatic differentiation."""
    weights = torch.ones(2, d, dtype=torch.float64, requires_grad=True)
    largest = 0.0
    for one in x[torch.argsort(x.abs())][-3:]:
        (by_weight,) = torch.autograd.grad(product(weights, one[None]).sum(), weights)
        largest = max(largest, float(by_weight.abs().max()))
    points = x.clone().requires_grad_()
    (by_input,) = torch.autograd.grad(product(weights, points).sum(), points)
    return largest, float(by_input.abs().mean())


def _factors(
    weights: Sequence[Tensor], x: Tensor, depth: int, share: float, scaled: Share, seed: int
) -> tuple[float, float, np.ndarray]:
    """The output over what it was: weights of `depth` layers up by Δ; data up by (1 + Δ)^depth; random signs.

    Only the path of one input is open, the others are 0: (53) speaks of one component.
    """
    generator = torch.Generator().manual_seed(seed)
    alone = torch.zeros_like(x)
    alone[int(x.argmax())] = x.max()
    before = tree(weights, alone)
    up = [scaled(w, share, torch.ones_like(w)) if k < depth else w for k, w in enumerate(weights)]
    signs = [2 * torch.randint(2, (SIGNS, *w.shape), generator=generator).to(w) - 1 for w in weights]
    both = zip(weights, signs, strict=True)
    moved = [scaled(w, share, s) if k < depth else w for k, (w, s) in enumerate(both)]
    mixed = (tree(moved, alone) / before).expand(SIGNS)
    data = tree(weights, data_tolerance(share, depth) * alone) / before
    return float(tree(up, alone) / before), float(data), mixed.numpy().copy()


def figure(
    frames: Sequence[Frame],
    prediction: Prediction,
    previous: Sequence[Run] = (),
    settings: Tolerance | None = None,
) -> figures.Chart:
    units, depths = prediction["units"], prediction["depths"]
    weight, inputs = shared.MINIMUM_NORM, shared.RANDOM
    slopes: list[figures.Mark] = []
    factors: list[figures.Mark] = []
    for old in previous:
        for name, marks, places in (("input_slope", slopes, "units"), ("factor", factors, "depths")):
            at, values = common.curve(old.frames, name)
            if len(at):
                marks.append(figures.Earlier(old.prediction[places][: len(at)], values, label="earlier run"))
    for name, label, color in (("input_slope", "∂f/∂x", inputs), ("weight_slope", "∂f/∂w", weight)):
        slopes.append(figures.Predicted(units, prediction[name], label=label, color=color))
        at, values = common.curve(frames, name)
        if len(at):
            slopes.append(figures.Points(units[: len(at)], values, color=color, line=False))
    factors.append(figures.Predicted(depths, prediction["factor"], label="(1 + Δ)^L", color=inputs))
    factors.append(figures.Predicted(depths, prediction["least"], label="(1 − Δ)^L", color=weight))
    at, values = common.curve(frames, "factor")
    if len(at):
        shown = depths[: len(at)]
        mixed = common.curve(frames, "mixed")[1].reshape(-1, len(at))
        factors.append(figures.Measured(shown, mixed, label="random signs", color=shared.RIDGE))
        factors.append(figures.Points(shown, values, label="all weights up", color=inputs, line=False))
    return figures.Chart(
        (
            figures.Panel("f = x Σ w₁w₂ at weights 1", tuple(slopes), xlabel="hidden units d",
                          ylabel="largest derivative", xscale="log2", yscale="log"),
            figures.Panel("One path of a tree of ReLU units", tuple(factors), xlabel="layers changed",
                          ylabel="output / before", ylim=(0, None)),
        ),
        caption=figures.caption(
            "How far an output moves with its weights: against width, and along one path of units.", settings
        ),
    )  # fmt: skip


def _compares(run: Run) -> tuple[Evidence, ...]:
    weight, inputs, factor, data = (
        run.series(name)[1].T for name in ("weight_slope", "input_slope", "factor", "data")
    )
    mixed = run.series("mixed")[1].swapaxes(0, 1)  # (S, depths, signs)
    high = run.prediction["factor"][None, :, None]
    return (
        Evidence(weight, run.prediction["weight_slope"]),
        Evidence(inputs, run.prediction["input_slope"]),
        Evidence(factor, run.prediction["factor"], note=f"at the last layer {factor[:, -1].mean():.4f}"),
        Evidence(data, factor),
        Evidence(mixed / high, 1.0,
                 note=f"output over before {mixed[:, -1].min():.2f}–{mixed[:, -1].max():.2f}"),
    )  # fmt: skip


S16 = Claim(
    "S16", "theorem",
    "f = x Σ w₁w₂ at weights 1 has weight derivatives of at most b and input derivative d; a share Δ on "
    "every weight of L layers is a factor (1 + Δ)^L on the data, 2.14 for Δ = 0.1 and L = 8.",
    "paper 3, §5.4, §9.6.1, eqs 53 and 54",
    (
        AtMost("largest ∂f/∂w, for |x| ≤ b"),
        Equals("∂f/∂x at weights 1, with d units", tolerance=EXACT),
        Equals("output over before, all weights of the layers up by Δ", tolerance=EXACT),
        Equals("output over before, data times (1 + Δ)^layers", tolerance=EXACT),
        AtMost("output with weights up or down at random, over (1 + Δ)^layers"),
    ),
    _compares, "holds",
    {"holds": "both equalities hold: flat in the weights is not flat in the input, by a factor d",
     "fails": "a derivative or a factor is not as told"},
)  # fmt: skip

TOLERANCE = Experiment(
    "tolerance", "Is flat in the weights flat in the input?", Tolerance,
    {"quick": Tolerance(), "paper": Tolerance(hidden=4096, layers=12, seeds=5)},
    prepare, predict, run, figure, (S16,), controls=("hidden", "b", "layers", "share"),
)  # fmt: skip
