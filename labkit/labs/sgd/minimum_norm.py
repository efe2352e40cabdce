"""Which of all solutions does descent find? (S1, S2, S22; paper 3, §5.3 and §9.6)

More weights than samples: infinitely many w with Xw = y. Every gradient of a loss of Xw lies in the row space
of X, so that the part of w in the null space stays where it started, with the full gradient and with
minibatches. From 0 both end at the solution of least norm; from w₀ at w† + P₀w₀. This is a choice of plain
descent: with the gradient multiplied by a diagonal P it is another solution, PXᵀ(XPXᵀ)⁻¹y, and Adam, whose P
changes from step to step, finds a third.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit import figures
from labkit.labs import common
from labkit.labs.sgd import shared
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import EVERY, AtMost, Between, Check, Condition, Equals, Evidence
from labkit.protocol.settings import Settings, knob, on_cpu
from labkit.theory.least_squares import null_space_part, rms_distance
from labkit.theory.linear_model import gd_iterates, min_norm_limit

EXACT = 1e-10  # relative to |w†|; rounding stays below 1e-13
FITTED = 1e-11  # relative residual at which the end of a run stands for its limit
LOST = 1e8  # a weight of this size: the run has diverged
TICK = 200  # steps between two looks at least
METHODS, COLORS = ("GD", "SGD"), (shared.MINIMUM_NORM, shared.SGD)
FLOOR = 1e-17  # of what is drawn on a logarithmic axis
STARTS = ("from 0", "from w₀")
ELSEWHERE = 0.1  # relative distance of P's limit from w†, at least
Gradient = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class MinimumNorm(Settings):
    n: int = knob(50, "samples n", slider=(5, 250), bounds=(2, 2000), step=5)
    d: int = knob(200, "weights d", slider=(20, 400), bounds=(2, 5000), step=10)
    init_scale: float = knob(0.1, "standard deviation s of the entries of the start w₀", slider=(0, 2),
                             bounds=(0, 1e3), step=0.1, label="initialization scale")  # fmt: skip
    batch_size: int = knob(10, "samples a step of SGD, drawn with replacement", slider=(1, 50),
                           bounds=(1, None), step=1)  # fmt: skip
    lr: float = shared.rate(0.03, "step size η on the mean loss (49)", slider=(0.002, 0.2))
    steps: int = knob(2500, "steps", slider=(500, 10_000), bounds=(1, None), scale="log")
    optimizer: str = knob(
        "plain", "what GD and SGD make of a gradient: nothing, P times it, or Adam at a rate that falls",
        choices=("plain", "diagonal P", "Adam"),
    )  # fmt: skip
    anisotropy: float = knob(0.5,
                             "κ of P = diag(exp(κz)) with z ~ N(0, 1), such that GD is as stable as without",
                             slider=(0, 2), bounds=(0, 4), step=0.1, label="spread κ of P")  # fmt: skip
    temperature: float = knob(0.0, "isotropic noise added to every step: it does move the null space",
                              slider=(0, 0.01), bounds=(0, None), step=0.001)  # fmt: skip
    device: str = on_cpu()


@dataclass(frozen=True)
class Setup:
    """One problem a seed: x (S, n, d), y (S, n), starts (S, 2, d) at 0 and at w₀, batches (steps, S, B)."""

    settings: MinimumNorm
    x: Tensor
    y: Tensor
    starts: Tensor
    batches: Tensor
    null: Tensor  # (S, d, d), the projections P₀
    scales: Tensor  # (S, 1, d), the diagonals of P


def prepare(settings: MinimumNorm) -> Setup:
    parts = zip(*(_drawn(settings, seed) for seed in common.seeds(settings)), strict=True)
    x, y, starts, batches, scales = (torch.stack(part) for part in parts)
    null = torch.stack([torch.from_numpy(null_space_part(one.numpy(), np.eye(settings.d))) for one in x])
    return Setup(settings, x, y, starts, batches.transpose(0, 1), null, scales)


def _drawn(settings: MinimumNorm, seed: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    normal = partial(torch.randn, generator=generator, dtype=torch.float64)
    x, teacher, noise = (
        normal(settings.n, settings.d),
        normal(settings.d) / settings.d**0.5,
        normal(settings.n),
    )
    w0 = settings.init_scale * normal(settings.d)
    batches = torch.randint(settings.n, (settings.steps, settings.batch_size), generator=generator)
    p = torch.exp(settings.anisotropy * normal(settings.d))
    norms = [torch.linalg.matrix_norm(one, 2) for one in (x, x * p.sqrt())]
    start = torch.stack([torch.zeros_like(w0), w0])
    return x, x @ teacher + 0.5 * noise, start, batches, p[None] * (norms[0] / norms[1]) ** 2


def predict(setup: Setup) -> Prediction:
    """The limit from either start, with P too; the way of GD, and how far from w† a start at w₀ must end."""
    settings = setup.settings
    steps = np.array(common.measured_steps(settings.steps))
    parts = zip(*(part.numpy() for part in (setup.x, setup.y, setup.starts, setup.scales[:, 0])), strict=True)
    return {"steps": steps} | common.stacked([_foreseen(settings, steps, *one) for one in parts])


def _foreseen(
    settings: MinimumNorm, steps: np.ndarray, x: np.ndarray, y: np.ndarray, starts: np.ndarray, p: np.ndarray
) -> dict[str, Any]:
    """Of one seed."""
    limit = np.stack([min_norm_limit(x, y, start) for start in starts])
    own = np.stack([min_norm_limit(x, y, start, p) for start in starts])
    # The step is on the mean loss, that of the closed form on the sum.
    paths = (gd_iterates(x, y, settings.lr / settings.n, steps, start) for start in starts)
    with np.errstate(over="ignore", invalid="ignore"):  # a rate past the edge
        away = [np.linalg.norm(path - end, axis=1) for path, end in zip(paths, limit, strict=True)]
    dagger = np.linalg.norm(limit[0])
    return {
        "limit": limit, "weighted": own, "elsewhere": np.linalg.norm(own - limit, axis=1)[0] / dagger,
        "distance": np.where(np.array(away) < LOST, away, np.inf) / dagger, "dagger": dagger,
        "start": starts @ limit[0] / max(dagger, 1e-300), "rms": rms_distance(x, settings.init_scale),
    }  # fmt: skip


def mean_gradient(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Xᵀ(Xw − y)/n of every state: w (S, C, d), x (S, n, d), y (S, n)."""
    residual = w @ x.mT - y[:, None]
    return residual @ x / x.shape[1]


class _Adam:
    """The step of Adam for one path, at its usual constants, times 1 − t/T: what it would not settle by."""

    def __init__(self, steps: int) -> None:
        self.steps, self.mean, self.square = steps, torch.zeros(()), torch.zeros(())

    def __call__(self, g: Tensor, step: int) -> Tensor:
        self.mean, self.square = 0.9 * self.mean + 0.1 * g, 0.999 * self.square + 0.001 * g**2
        mean, square = self.mean / (1 - 0.9 ** (step + 1)), self.square / (1 - 0.999 ** (step + 1))
        return mean / (square.sqrt() + 1e-8) * (1 - step / self.steps)


def _step(setup: Setup, optimizer: str) -> Callable[[Tensor, int], Tensor]:
    """What is made of a gradient (S, C, d)."""
    if optimizer == "Adam":
        return _Adam(setup.settings.steps)
    return lambda g, step: setup.scales * g if optimizer == "diagonal P" else g


def run(setup: Setup, prediction: Prediction, *, gradient: Gradient = mean_gradient) -> Iterator[Frame]:
    settings, x, y = setup.settings, setup.x, setup.y
    seeds = torch.arange(len(x))[:, None]

    def full(optimizer: str) -> Callable[[Tensor, int], Tensor]:
        moved = _step(setup, optimizer)
        return lambda w, step: moved(gradient(w, x, y), step)

    of_batch = _step(setup, settings.optimizer)

    def minibatch(w: Tensor, step: int) -> Tensor:
        rows = setup.batches[step]
        return of_batch(gradient(w, x[seeds, rows], y[seeds, rows]), step)

    yield from common.follow(
        [full(settings.optimizer), minibatch, full("diagonal P")], setup.starts, _Look(setup, prediction),
        lr=settings.lr, steps=settings.steps, shown=prediction["steps"], tick=TICK, lost=LOST,
        advice=_advice(setup), temperature=settings.temperature,
        noises=[
            [torch.Generator().manual_seed(2 * seed + which) for seed in common.seeds(settings)]
            for which in (0, 1, 0)
        ],
    )  # fmt: skip


class _Look:
    """What is recorded of states w (S, GD or SGD or GD with P, start, d), in units of |w†|."""

    def __init__(self, setup: Setup, prediction: Prediction) -> None:
        self.setup, self.scale = setup, torch.from_numpy(prediction["dagger"])[:, None, None]
        self.limit = torch.from_numpy(prediction["limit"])
        own = torch.from_numpy(prediction["weighted"])
        self.ends = torch.stack([self.limit, self.limit, own], dim=1)
        null = (setup.null @ setup.starts[:, 1:].mT)[..., 0]
        # At w₀ = 0 there is no such direction, and any will do.
        chosen = torch.where(null.norm(dim=1, keepdim=True) > 0, null, setup.null[:, 0])
        axes = torch.stack([self.limit[:, 0], chosen], dim=1)
        lengths = axes.norm(dim=2, keepdim=True)
        self.axes = axes / torch.where(lengths > 0, lengths, 1.0)

    def __call__(self, states: Sequence[Tensor], step: int) -> dict[str, np.ndarray]:
        setup, w = self.setup, torch.stack([*states], dim=1)
        residual = w @ setup.x[:, None].mT - setup.y[:, None, None]
        moved = (w - setup.starts[:, None])[:, :2] @ setup.null[:, None]
        found = {
            "distance": (w - self.ends).norm(dim=3) / self.scale,
            "aside": (w[:, 2, 0] - self.limit[:, 0]).norm(dim=1) / self.scale[:, 0, 0],
            # What rounding moves grows with the weights themselves.
            "null_change": moved.norm(dim=3) / torch.maximum(w[:, :2].norm(dim=3), self.scale),
            "residual": residual.norm(dim=3) / setup.y.norm(dim=1)[:, None, None],
            "norm": w.norm(dim=3),
            "slice": w @ self.axes[:, None].mT,
        }
        return {name: value.numpy() for name, value in found.items()}


def _advice(setup: Setup) -> str:
    """The largest stable rates: exact for GD; for SGD one that suffices in mean square, of the worst seed."""
    settings, n = setup.settings, setup.settings.n
    curvature = float(torch.linalg.matrix_norm(setup.x, 2).max()) ** 2 / n
    rows = float((setup.x**2).sum(2).max())
    batch = rows / settings.batch_size + (1 - 1 / settings.batch_size) * curvature
    return (
        f"lr={settings.lr:g} is too large; GD is stable below {2 / curvature:.2g}, "
        f"SGD with this batch size below {2 / batch:.2g} for certain. Take {2 / batch / settings.lr:.2g} × lr"
    )


def figure(frames: Frames, prediction: Prediction, settings: MinimumNorm | None = None) -> figures.Chart:
    height = float(np.linalg.norm(np.diff(prediction["limit"][0], axis=0)))
    # A start may lie on either side of both.
    begins = [0.0, float(prediction["dagger"][0]), float(prediction["start"][0, 1])]
    reach = (min(begins) - 0.1 * begins[1], max(begins) + 0.3 * begins[1])
    return figures.Chart.of(
        settings, "The paths of GD and SGD to zero loss, and how they close in on the predicted limit.",
        figures.Panel("Two paths from 0, two from w₀", _plane(frames, prediction, height),
                      xlabel="w along w†", ylabel="w along P₀w₀", xlim=reach,
                      ylim=(-0.15 * height, 1.2 * height) if height > 1e-9 else None),
        figures.Panel("From w₀ to the predicted limit", _way(frames, prediction),
                      xlabel="step (+ ½)", ylabel="relative to ‖w†‖", xscale="log", yscale="log",
                      ylim=(FLOOR, None)),
    )  # fmt: skip


def _plane(frames: Frames, prediction: Prediction, height: float) -> list[figures.Mark]:
    dagger = prediction["dagger"][0]
    marks: list[figures.Mark] = [figures.Level(dagger, label="zero loss", axis="x")]
    for level in (0.0, height):
        label = "predicted: sideways, to w† + P₀w₀" if level else ""
        start = float(prediction["start"][0, int(level > 0)])
        marks.append(figures.Predicted([start, dagger], [level, level], label=label, color=COLORS[0]))
    path = common.curve(frames, "slice")[1]
    for start in (0, 1) if len(path) > 1 else ():
        # GD as a few markers on the line that SGD draws: the two lie on each other.
        (u, v), (gd_u, gd_v) = path[:, start, 1, 0], path[:, start, 0, 0, ::8]
        names = ("SGD", "GD (every eighth frame)") if start else ("", "")
        marks.append(figures.Measured(u, v, label=names[0], color=COLORS[1]))
        marks.append(figures.Points(gd_u, gd_v, label=names[1], color=COLORS[0], line=False))
    return marks


def _way(frames: Frames, prediction: Prediction) -> list[figures.Mark]:
    marks: list[figures.Mark] = []
    aside = np.full(len(prediction["steps"]), prediction["elsewhere"].mean())
    for values, label, color in (
        (prediction["distance"][:, 1], "GD, closed form", COLORS[0]),
        (aside, "P's limit, away from w†", shared.RIDGE),
    ):
        shown = np.maximum(values, FLOOR)
        marks.append(figures.Predicted(prediction["steps"] + 0.5, shown, label=label, color=color))
    at, distance = common.curve(frames, "distance")
    if len(at):
        change = common.curve(frames, "null_change")[1].max(axis=(0, 1))
        for values, label, color in (
            (distance[1, 1], "SGD", COLORS[1]),
            (distance[1, 0], "GD", COLORS[0]),
            (common.curve(frames, "aside")[1], "P, from 0: away from w†", shared.RIDGE),
            (change, "change of the null-space part", shared.LANGEVIN),
        ):
            marks.append(figures.Measured(at + 0.5, np.maximum(values, FLOOR), label=label, color=color))
    return marks


def _conditions(run: Run) -> tuple[Condition, ...]:
    return (
        Condition("samples n at most weights d", run.settings.n, run.settings.d),
        Condition("temperature of added noise", run.settings.temperature, 0.0),
    )


def _fitted(run: Run, start: int) -> Check:
    left, away = (run.last(name)[:, :2, start] for name in ("residual", "distance"))
    # A solution within rounding; or at least so near to one that its distance from w† is no matter of steps.
    enough = max(FITTED, float((1e-3 * away).min()) if run.settings.optimizer != "plain" else 0.0)
    return Check("residual ‖Xw − y‖/‖y‖ at the end", float(left.max()), enough,
                 "raise steps or the learning rate")  # fmt: skip


def _from_zero(run: Run) -> tuple[Evidence, Evidence]:
    distance, norm = run.last("distance")[:, :2, 0], run.last("norm")[:, :2]
    conditions, checks = _conditions(run), (_fitted(run, 0),)
    return (
        Evidence(distance, 0.0, conditions, checks),
        Evidence(norm[:, :, 0], norm[:, :, 1], conditions, (*checks, _fitted(run, 1))),
    )


def _from_anywhere(run: Run) -> tuple[Evidence, Evidence]:
    distance, change = run.last("distance")[:, :2, 1], common.history(run.frames, "null_change")
    limit = run.prediction["limit"]
    far = np.sqrt(((limit[:, 1] - limit[:, 0]) ** 2).sum(axis=1).mean())
    note = f"w† is {far:.3g} away, s√(d − n) = {run.prediction['rms'].mean():.3g}"
    return (Evidence(distance, 0.0, _conditions(run), (_fitted(run, 1),), note=note), Evidence(change, 0.0))


def _with_p(run: Run) -> tuple[Evidence, Evidence]:
    left = float(run.last("residual")[:, 2].max())
    checks = (Check("residual ‖Xw − y‖/‖y‖ at the end", left, FITTED, "raise steps, or lower κ"),)
    conditions = _conditions(run)
    return (
        Evidence(run.last("distance")[:, 2], 0.0, conditions, checks),
        Evidence(run.last("aside"), None, conditions, checks),
    )


NOISY = {"temperature": 0.001, "steps": 500}
UNSETTLED = {
    "undecided": "the run ended before it reached a solution",
    "out of regime": "there is one solution at most when n > d, and none is reached under added noise",
}
S1 = Claim(
    "S1", "theorem",
    "From 0, GD and SGD on ‖Xw − y‖²/2n with n ≤ d converge to the solution of least norm, "
    "w† = Xᵀ(XXᵀ)⁻¹y.",
    "paper 3, Lemmas 3 and 4, Theorem 4, Corollary 1",
    (
        Equals("distance from w† at the end, from 0", METHODS, "‖w†‖", tolerance=EXACT, absolute=True),
        AtMost("‖w‖ at the end from 0, under that from w₀", METHODS),
    ),
    _from_zero, "holds",
    {"holds": "GD and SGD from 0 both end at the minimum-norm solution",
     "fails": "descent from 0 ended at another solution",
     **UNSETTLED},
    (World("isotropic noise added to every step", NOISY, word="out of regime"),
     World("gradients times a diagonal P", {"optimizer": "diagonal P"}),
     World("Adam", {"optimizer": "Adam"})),
)  # fmt: skip
S2 = Claim(
    "S2", "theorem",
    "From w₀, GD and SGD converge to w† + P₀w₀: the part of w in the null space of X never moves.",
    "paper 3, Lemma 1",
    (
        Equals("distance from w† + P₀w₀ at the end", METHODS, "‖w†‖", tolerance=EXACT, absolute=True),
        Equals("change of the null-space part, at every frame", tolerance=EXACT, absolute=True),
    ),
    _from_anywhere, "holds",
    {"holds": "both end at w† + P₀w₀, with the null-space part frozen at every frame",
     "fails": "the null-space part moved, or the limit is another",
     **UNSETTLED},
    (World("isotropic noise added to every step", NOISY),),
)  # fmt: skip
S22 = Claim(
    "S22", "theorem",
    "With its gradient multiplied by a diagonal P, GD converges from w₀ to w₀ + PXᵀ(XPXᵀ)⁻¹(y − Xw₀): not to "
    "the solution of least norm, but to that of least ‖P^(−½)(w − w₀)‖.",
    "after paper 3, §9.6: its proof with P in it",
    (
        Equals("distance from P's limit at the end", STARTS, "‖w†‖", tolerance=EXACT, absolute=True),
        Between("distance from w† at the end, from 0", unit="‖w†‖", low=ELSEWHERE, by=EVERY),
    ),
    _with_p, "holds",
    {"holds": "the limit is the one that P chooses, and another than w†",
     "fails": "GD with P ended elsewhere, or at w† after all",
     **UNSETTLED},
    (World("P is the identity", {"anisotropy": 0.0}),),
)  # fmt: skip

MINIMUM_NORM = Experiment(
    "minimum-norm", "Which of all solutions does descent find?", MinimumNorm,
    {"quick": MinimumNorm(), "paper": MinimumNorm(
        n=200, d=1000, batch_size=1, lr=0.0009, steps=80_000, seeds=5)},
    prepare, predict, run, figure, (S1, S2, S22),
    controls=("optimizer", "anisotropy", "n", "d", "init_scale", "batch_size", "lr", "temperature"),
)  # fmt: skip
