"""Is a network linear in its weights near a minimum? (S21; paper 3, §5.3, eqs 12-14, Lemma 1)

f(x; w₀ + Δw) ≈ f(x; w₀) + Φ Δw, and descent on the right side from Δw = 0 ends at EΦ†: the smallest change
that removes the errors E = y − f(w₀) (Φ here has a sample a row). A network is trained; from several points
of its way, ever nearer to the minimum, it goes on, beside its linearisation at that point, which is solved.
How far do they part, over how far there is to go?
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
from labkit.labs.sgd.span import LOST, UNITS
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import EVERY, Between, Check, Condition, Evidence
from labkit.protocol.settings import knob, on_cpu
from labkit.protocol.statistics import exponent
from labkit.theory.linear_model import gd_iterates, min_norm_limit
from labkit.training.dynamics import descend

LEVELS = (1.0, 0.3, 0.1, 0.03)  # of the error at the start: where the network is linearised
NEAR, FAR = 0.1, 0.15  # relative distance from EΦ†, at the last level at most, at the first at least
POWER = (0.7, 1.3)  # with which that distance falls
LEFT = 0.03  # of the error at a level: what may be left of it at the end
COLORS = (1, 2, 3, 0)


@dataclass(frozen=True)
class Bridge(common.OnData):
    n: int = knob(20, "samples n", slider=(5, 50), bounds=(2, 500), step=5)
    width: int = knob(32, "hidden units", slider=(8, 256), bounds=(1, 2000), scale="log2")
    unit: str = knob("tanh", "what a hidden unit computes", choices=tuple(UNITS)[::-1])
    init_scale: float = knob(1.0, "size of the first weights", slider=(0.2, 3), bounds=(0.01, 100), step=0.2,
                             label="initialization scale")  # fmt: skip
    lr: float = shared.rate(1.0, "learning rate of GD on the mean loss", slider=(0.1, 2))
    steps: int = knob(2000, "steps from each point", slider=(200, 5000), bounds=(10, None), scale="log")
    dataset: str = knob("digits", "images", choices=("digits", "mnist-5k"))
    device: str = on_cpu()


@dataclass(frozen=True)
class Setup:
    """x (S, n, d) with norms about 1, y (S, n) of ±1 (even, odd), x_test (S, m, d), and the way of GD.

    points (L, S, p): the weights where the error has fallen to each level for the first time.
    """

    settings: Bridge
    x: Tensor
    y: Tensor
    x_test: Tensor
    points: Tensor
    reached: np.ndarray  # (S, L)


def outputs(settings: Bridge, w: Tensor, x: Tensor) -> Tensor:
    """f = v·φ(Wx)/√H for weights (S, p): x (S, n, d) -> (S, n)."""
    cut = settings.width * x.shape[-1]
    hidden = UNITS[settings.unit](x @ w[..., :cut].unflatten(-1, (settings.width, x.shape[-1])).mT)
    return (hidden @ w[..., cut:, None])[..., 0] / settings.width**0.5


def gradient(settings: Bridge, w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Of Σ(f − y)²/2n."""
    w = w.detach().requires_grad_()
    loss = (outputs(settings, w, x) - y).square().sum() / (2 * x.shape[-2])
    return torch.autograd.grad(loss, w)[0]


def prepare(settings: Bridge) -> Setup:
    """The data, and the network's own way down."""
    draws = []
    sets = shared.images(settings, n_test=500, dtype=torch.float64)
    for one, seed in zip(sets, common.seeds(settings), strict=True):
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(settings.width * (one.dim + 1), generator=generator, dtype=torch.float64)
        scaled = [x / one.dim**0.5 for x in (one.x_train, one.x_test)]
        draws.append((*scaled, 2.0 * (one.y_train % 2).double() - 1, settings.init_scale * drawn))
    x, x_test, y, start = (torch.stack(part) for part in zip(*draws, strict=True))
    points = start.repeat(len(LEVELS), 1, 1)
    reached = np.zeros((len(start), len(LEVELS)))
    first = None
    for _, w in descend(
        lambda w, _: gradient(settings, w, x, y), start, lr=settings.lr, steps=settings.steps, record=5
    ):
        left = (outputs(settings, w, x) - y).norm(dim=1)
        first = left if first is None else first
        for place, level in enumerate(LEVELS):
            new = (left <= level * first).numpy() & (reached[:, place] == 0)
            points[place, torch.from_numpy(new)] = w[torch.from_numpy(new)]
            reached[new, place] = 1.0
        if reached.all() or not bool(left.isfinite().all()):
            break
    return Setup(settings, x, y, x_test, points, reached)


def predict(setup: Setup) -> Prediction:
    """EΦ† at every level, and the way of GD on the linearised network to it, in units of its length."""
    settings, steps = setup.settings, np.array(common.measured_steps(setup.settings.steps, 60))
    shape = len(setup.x), len(LEVELS)
    change = np.zeros((*shape, setup.points.shape[2]))
    path = np.zeros((*shape, len(steps)))
    distance = np.zeros(shape)
    for s, place in np.ndindex(shape):
        w, x = setup.points[place, s], setup.x[s]
        phi = torch.func.jacrev(lambda v, x=x: outputs(settings, v, x))(w).numpy()
        errors = (setup.y[s] - outputs(settings, w, x)).numpy()
        change[s, place] = min_norm_limit(phi, errors)
        length = max(float(np.linalg.norm(change[s, place])), 1e-300)
        with np.errstate(over="ignore", invalid="ignore"):  # a rate past the edge
            way = gd_iterates(phi, errors, settings.lr / settings.n, steps)
            apart = np.linalg.norm(way - change[s, place], axis=1) / length
        path[s, place] = np.where(apart < LOST, apart, np.inf)
        distance[s, place] = length / float(w.norm())
    return {"steps": steps, "change": change, "path": path, "distance": distance}


def run(setup: Setup, prediction: Prediction) -> Iterator[Frame]:
    """Goes on with the network itself from all points at once."""
    settings = setup.settings
    target = torch.from_numpy(prediction["change"]).transpose(0, 1)  # (L, S, p)
    length = target.norm(dim=2)
    errors = (outputs(settings, setup.points, setup.x) - setup.y).norm(dim=2)
    solved = outputs(settings, setup.points + target, setup.x_test)

    def look(states: Sequence[Tensor], step: int) -> dict[str, np.ndarray]:
        (now,) = states
        apart = (now - setup.points - target).norm(dim=2) / length
        left = (outputs(settings, now, setup.x) - setup.y).norm(dim=2) / errors
        found = {"apart": apart, "left": left}
        if step == settings.steps:
            found["test"] = (outputs(settings, now, setup.x_test) - solved).square().mean(2).sqrt()
        return {name: value.T.numpy() for name, value in found.items()}

    yield from common.follow(
        [lambda w, _: gradient(settings, w, setup.x, setup.y)], setup.points, look, lr=settings.lr,
        steps=settings.steps, shown=prediction["steps"], tick=50, lost=LOST,
        advice=f"lr={settings.lr:g} is too large for this network; a smaller one is stable. Take 0.1 × lr",
    )  # fmt: skip


def figure(frames: Frames, prediction: Prediction, settings: Bridge | None = None) -> figures.Chart:
    steps, distance = prediction["steps"], prediction["distance"].mean(axis=0)
    way: list[figures.Mark] = []
    ends: list[figures.Mark] = []
    at, apart = common.curve(frames, "apart")
    for place, (level, color) in enumerate(zip(LEVELS, COLORS, strict=True)):
        way.append(figures.Predicted(steps + 0.5, prediction["path"][:, place], color=color))
        if len(at):
            label = f"from {level:.0%} of the error"
            way.append(figures.Measured(at + 0.5, apart[place], label=label, color=color))
    if len(at):
        ends.append(figures.Points(distance, apart[..., -1].T, label="weights", color=shared.NATURAL))
        slope = apart[-1, :, -1].mean() * distance / distance[-1]
        ends.append(figures.Predicted(distance, slope, label="in proportion", color="ink"))
    if (test := common.newest(frames, "test")) is not None:
        ends.append(figures.Points(distance, test, label="outputs on test images", color=shared.RIDGE))
    return figures.Chart.of(
        settings, "A network from points of its way down, beside its linearisation there (dashed).",
        figures.Panel(
            "From w₀ towards w₀ + EΦ†", way, xlabel="step (+ ½)", ylabel="distance / ‖EΦ†‖",
            xscale="log", yscale="log", ylim=(0.01, 1.5),
        ),
        figures.Panel(
            "Where they end", ends, xlabel="way to go, ‖EΦ†‖/‖w₀‖", ylabel="their difference",
            xscale="log", yscale="log",
        ),
    )  # fmt: skip


def _linear(run: Run) -> tuple[Evidence, ...]:
    apart, left, distance = run.last("apart"), run.last("left"), run.prediction["distance"]
    found = bool((np.diff(distance, axis=1) < 0).all())
    checks = (
        Check("share of a point's error that is left at the end", float(left.max()), LEFT, "raise steps"),
        Check("points not on the way, each nearer than the last", float(not found), 0.0, "raise steps"),
    )
    many = (Condition("samples against weights", run.settings.n, run.prediction["change"].shape[2]),)
    power = np.array([exponent(d, a) for d, a in zip(distance[:, 1:], apart[:, 1:], strict=True)]).reshape(-1)
    return (
        Evidence(apart[:, -1], conditions=many, checks=checks, note=common.means(apart)),
        Evidence(power, conditions=many, checks=checks),
        Evidence(apart[:, 0], conditions=many, checks=checks),
    )


def pulled(gradient: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A fault for a world: every weight has a rate of its own."""

    return lambda settings, w, x, y: gradient(settings, w, x, y) * (0.5 + torch.arange(w.shape[-1]) % 2)


S21 = Claim(
    "S21", "prediction",
    "Near a minimum a network trained on goes to w₀ + EΦ†, the least change of its linearisation at w₀ that "
    "removes the errors: they part in proportion to the way that is left, and far from it, at the start, by "
    "15 % of that way and more.",
    "paper 3, eqs 12–14 and Lemma 1",
    (
        Between("distance from w₀ + EΦ† over ‖EΦ†‖, from 3 % of the error", high=NEAR, by=EVERY),
        Between("power of ‖EΦ†‖ in it, from 30 % to 3 % of the error", low=POWER[0], high=POWER[1], by=EVERY),
        Between("distance from w₀ + EΦ† over ‖EΦ†‖, from the start", low=FAR, by=EVERY),
    ),
    _linear, "holds",
    {"holds": "the last part of the way is that of a linear problem, and the whole of it is not",
     "fails": "the network does not go where its linearisation does, or does so from the start",
     "undecided": "the networks have not come near enough to a minimum to compare"},
    (World("a rate of its own for every weight", {}, {f"{__name__}:gradient": pulled}),),
)  # fmt: skip

BRIDGE = Experiment(
    "bridge", "Is a network linear in its weights near a minimum?", Bridge,
    {"quick": Bridge(), "paper": Bridge(n=100, width=200, steps=10_000, dataset="mnist-5k", seeds=5)},
    prepare, predict, run, figure, (S21,),
    controls=("unit", "init_scale", "width", "n", "lr", "steps"),
)  # fmt: skip
