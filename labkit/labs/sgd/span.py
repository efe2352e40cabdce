"""What never moves in a network: the first layer across the span of the data (S15; paper 3, eqs 69-71).

dW₁ = E′Xᵀ: a row of the gradient is a combination of the samples, whatever the units, the loss and the batch.
With n < d there are directions that they do not span, and along these W₁ stays as it was drawn. A bias is the
weight of one more input, equal to 1: then the samples (x, 1) span what moves. Weight decay moves it all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit import data, figures
from labkit.labs import common
from labkit.labs.sgd import shared
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import Check, Condition, Equals, Evidence
from labkit.protocol.settings import knob, on_cpu
from labkit.theory.least_squares import null_space_part

EXACT = 1e-10  # relative; rounding stays below 1e-13
MOVES = 1e-3  # what the part along the data moves at least, or nothing was trained
LOST = 1e6
TICK = 50  # steps between two looks at least
OUTPUTS = 10
Unit = Callable[[Tensor], Tensor]
UNITS: dict[str, Unit] = {
    "linear": lambda z: z,
    "polynomial": lambda z: z + 0.25 * z**2,
    "ReLU": torch.relu,
    "tanh": torch.tanh,
}


@dataclass(frozen=True)
class Span(common.OnData):
    n: int = knob(30, "samples n, fewer than the inputs d", slider=(5, 60), bounds=(2, 1000), step=5)
    width: int = knob(40, "hidden units", slider=(5, 200), bounds=(1, 5000), scale="log")
    bias: bool = knob(True, "a bias in both layers", label="biases")
    init_scale: float = knob(1.0, "size of the first layer's start", slider=(0.1, 2), bounds=(0.01, 100),
                             step=0.1, label="initialization scale")  # fmt: skip
    weight_decay: float = knob(0.0, "weight decay: it moves what the data leave alone", slider=(0, 0.1),
                               bounds=(0, 10), step=0.01)  # fmt: skip
    batch_size: int = knob(10, "samples a step, drawn with replacement", slider=(1, 30), bounds=(1, None),
                           step=1)  # fmt: skip
    lr: float = shared.rate(0.2, "learning rate", slider=(0.02, 1))
    steps: int = knob(600, "steps", slider=(100, 3000), bounds=(1, None), scale="log")
    dataset: str = knob("digits", "images", choices=("digits", "mnist-5k"))
    device: str = on_cpu()


@dataclass(frozen=True)
class Setup:
    """One set and one start a seed, the same for all units.

    x (S, n, d) has norms around 1, and a 1 appended if biases are on; `first` (S, H, d) and `second`
    (S, 10, H) carry their bias as the last column.
    """

    settings: Span
    x: Tensor
    y: Tensor
    first: Tensor
    second: Tensor
    batches: Tensor  # (steps, S, B)
    null: Tensor  # (S, d, d), the projections across the span


def prepare(settings: Span) -> Setup:
    sets, width, draws = shared.images(settings, n_test=1, dtype=torch.float64), settings.width, []
    for one, seed in zip(sets, common.seeds(settings), strict=True):
        generator = torch.Generator().manual_seed(seed)
        normal = partial(torch.randn, generator=generator, dtype=torch.float64)
        x = _with_one(one.x_train / one.dim**0.5, settings.bias)
        first, second = normal(width, x.shape[1]), normal(OUTPUTS, width + settings.bias)
        batches = torch.randint(settings.n, (settings.steps, settings.batch_size), generator=generator)
        y = data.centred(one.y_train, OUTPUTS, torch.float64)
        draws.append((x, y, settings.init_scale * first, second, batches))
    x, y, first, second, batches = (torch.stack(part) for part in zip(*draws, strict=True))
    null = torch.stack([torch.from_numpy(null_space_part(one.numpy(), np.eye(x.shape[2]))) for one in x])
    return Setup(settings, x, y, first, second, batches.transpose(0, 1), null)


def _with_one(x: Tensor, bias: bool) -> Tensor:
    return torch.cat([x, torch.ones_like(x[..., :1])], dim=-1) if bias else x


def predict(setup: Setup) -> Prediction:
    """Across the span the data do nothing: weight decay alone shrinks it, by 1 − ηδ a step."""
    settings = setup.settings
    steps = np.array(common.measured_steps(settings.steps, 80))
    with np.errstate(over="ignore"):
        moved = np.abs(1 - (1 - settings.lr * settings.weight_decay) ** steps)
    across = (setup.first @ setup.null).norm(dim=(1, 2)) / setup.first.norm(dim=(1, 2))
    spanned = np.linalg.matrix_rank(setup.x.numpy())
    return {
        "steps": steps, "moved": across.numpy()[:, None] * moved, "spanned": spanned,
        "inputs": np.array(setup.x.shape[2]),
    }  # fmt: skip


def gradient(first: Tensor, second: Tensor, x: Tensor, y: Tensor, unit: Unit, bias: bool) -> Sequence[Tensor]:
    """Of Σ|f(x) − y|²/2n, f = W₂ φ(W₁x)/√H, for every seed, by automatic differentiation: dW₁ and dW₂."""
    weights = first.detach().requires_grad_(), second.detach().requires_grad_()
    hidden = _with_one(unit(x @ weights[0].mT), bias) / first.shape[1] ** 0.5
    loss = (hidden @ weights[1].mT - y).square().sum() / (2 * x.shape[1])
    return torch.autograd.grad(loss, weights)


def run(setup: Setup, prediction: Prediction, *, gradient: Callable[..., Sequence[Tensor]] = gradient
        ) -> Iterator[Frame]:  # fmt: skip
    settings, seeds = setup.settings, torch.arange(setup.settings.seeds)[:, None]
    shapes = setup.first.shape, setup.second.shape

    def layers(w: Tensor) -> tuple[Tensor, Tensor]:
        cut = shapes[0][1] * shapes[0][2]
        return w[:, :cut].reshape(shapes[0]), w[:, cut:].reshape(shapes[1])

    def of_unit(unit: Unit) -> Callable[[Tensor, int], Tensor]:
        def of_batch(w: Tensor, step: int) -> Tensor:
            rows = setup.batches[step]
            found = gradient(*layers(w), setup.x[seeds, rows], setup.y[seeds, rows], unit, settings.bias)
            return torch.cat([one.flatten(1) for one in found], dim=1) + settings.weight_decay * w

        return of_batch

    def look(states: Sequence[Tensor], step: int) -> dict[str, np.ndarray]:
        return _parts(setup, torch.stack([layers(state)[0] for state in states], dim=1))

    yield from common.follow(
        [of_unit(unit) for unit in UNITS.values()],
        torch.cat([setup.first.flatten(1), setup.second.flatten(1)], dim=1), look,
        lr=settings.lr, steps=settings.steps, shown=prediction["steps"], tick=TICK, lost=LOST,
        advice=f"lr={settings.lr:g} is too large for a unit; a smaller one is stable. Take 0.1 × lr",
    )  # fmt: skip


def _parts(setup: Setup, first: Tensor) -> dict[str, np.ndarray]:
    """How far W₁ (S, units, H, d) moved across and along the span, relative to its start; each (S, units)."""
    start, null = setup.first[:, None], setup.null[:, None]
    moved = first - start
    size = torch.maximum(first.norm(dim=(2, 3)), start.norm(dim=(2, 3)))
    found = {"across": (moved @ null).norm(dim=(2, 3)), "along": (moved - moved @ null).norm(dim=(2, 3))}
    return {name: (value / size).numpy() for name, value in found.items()}


def figure(frames: Frames, prediction: Prediction, settings: Span | None = None) -> figures.Chart:
    floor, steps = 1e-18, prediction["steps"]
    moved = np.maximum(prediction["moved"], floor)
    marks: dict[str, list[figures.Mark]] = {"across": [
        figures.Level(EXACT, label="tolerance"),
        figures.Predicted(steps + 0.5, moved, label="weight decay alone", color="ink"),
    ], "along": []}  # fmt: skip
    for name in marks:
        at, values = common.curve(frames, name)
        for which, label in enumerate(UNITS if len(at) else ()):
            shown = np.maximum(values[which], floor)
            marks[name].append(figures.Measured(at + 0.5, shown, label=label, color=(0, 4, 2, 3)[which]))
    axes: dict[str, Any] = {
        "xlabel": "step (+ ½)", "ylabel": "change / ‖W₁‖", "xscale": "log", "yscale": "log",
        "xlim": (0.5, float(steps[-1]) + 0.5),
    }  # fmt: skip
    return figures.Chart.of(
        settings, "How far training moves the first layer across the span of the data, and along it.",
        figures.Panel("W₁ across the data's span", marks["across"], ylim=(floor, 2.0), **axes),
        figures.Panel("W₁ along it", marks["along"], ylim=(1e-4, 2.0), **axes),
    )  # fmt: skip


def _stays(run: Run) -> Evidence:
    across, along = common.history(run.frames, "across"), run.last("along")
    spanned, inputs = float(run.prediction["spanned"].max()), float(run.prediction["inputs"])
    return Evidence(
        across, 0.0,
        (Condition("dimensions spanned by the data", spanned, inputs - 1),),
        (Check("what must move (1 / change along the span)", 1 / max(float(along.min()), 1e-300), 1 / MOVES,
               "raise steps or the learning rate"),),
        note=f"along the span {common.means(along, '.2g')} "
             f"({', '.join(UNITS)}); {spanned:.0f} of {inputs:.0f} dimensions spanned",
    )  # fmt: skip


S15 = Claim(
    "S15", "theorem",
    "The part of W₁ orthogonal to the span of the data does not move, for linear, polynomial and other "
    "units; with biases, the span of the data with a 1 appended.",
    "paper 3, eqs 69–71",
    (Equals("change of W₁ across the span, at every frame", unit="‖W₁‖", tolerance=EXACT, absolute=True),),
    _stays, "holds",
    {"holds": "at every frame and for all four kinds of units the first layer stays across the span",
     "fails": "the first layer moved across the span of the data",
     "undecided": "the first layer hardly moved, or the run diverged",
     "out of regime": "the data span all inputs: nothing is left that could stay"},
    (World("weight decay", {"weight_decay": 0.02, "steps": 200}),),
)  # fmt: skip

SPAN = Experiment(
    "span", "What never moves in a network?", Span,
    {"quick": Span(), "paper": Span(n=300, width=128, steps=1000, dataset="mnist-5k", lr=0.5, seeds=3)},
    prepare, predict, run, figure, (S15,),
    controls=("n", "width", "bias", "init_scale", "weight_decay", "batch_size", "lr"),
)  # fmt: skip
