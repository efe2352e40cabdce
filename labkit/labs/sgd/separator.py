"""Which separator does logistic regression find, and how robust is it? (S12, S23; paper 3, §9.4.1)

On separable data the logistic loss has no minimum: w grows without end, and its direction tends to that of
the hard-margin support vector machine, with a fixed step no faster than 1/log t. How fast can be said
beforehand: t steps are a ridge of λ = 1/(ηt), as in the linear case (S3), and the separator of the ridge can
be solved for. Divided by the loss, the gradient keeps its size, and the direction comes in time. Eq. 41 and
the corrected (42) are looked at too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit import figures
from labkit.labs import common
from labkit.labs.sgd import shared
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import EVERY, INTERVAL, AtMost, Between, Check, Condition, Equals, Evidence
from labkit.protocol.settings import Settings, knob, on_cpu
from labkit.theory import robust
from labkit.training.dynamics import Gradient

CLOSE = 1e-3  # 1 − cosine to the support vector machine
MARGIN = 0.03  # relative
LIKE = 0.3  # relative: 1 − cosine of plain descent against that of the matched ridge
EARLY = 20  # steps from which on the two are compared
SEARCH = 40  # steps of the search for the worst perturbation
TICK = 200
Descent = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Separator(Settings):
    n: int = knob(60, "samples n", slider=(10, 200), bounds=(2, 2000), step=10)
    d: int = knob(20, "inputs d", slider=(2, 50), bounds=(2, 500), step=2)
    gap: float = knob(0.1, "how far samples stay from a random hyperplane, before |x| is made 1",
                      slider=(0, 0.5), bounds=(0, 10), step=0.05)  # fmt: skip
    bias: bool = knob(False, "one more input, equal to 1 for all samples, in place of an offset")
    unit: bool = knob(True, "inputs scaled to norm 1, as the paper takes them", label="unit norm")
    rho: float = knob(0.05, "size ρ of a perturbation, in ‖w‖", slider=(0.01, 0.5), bounds=(1e-6, 10),
                      scale="log", label="ρ")  # fmt: skip
    lr: float = shared.rate(1.0, "step size η", slider=(0.1, 4))
    steps: int = knob(20_000, "steps", slider=(500, 50_000), bounds=(1, None), scale="log")
    device: str = on_cpu()


@dataclass(frozen=True)
class Setup:
    """x (S, n, d), labels -1 and 1 (S, n), real-valued targets of (42) (S, n)."""

    settings: Separator
    x: np.ndarray
    y: np.ndarray
    targets: np.ndarray


def prepare(settings: Separator) -> Setup:
    parts = [_drawn(settings, np.random.default_rng(seed)) for seed in common.seeds(settings)]
    return Setup(settings, *(np.stack(part) for part in zip(*parts, strict=True)))


def _drawn(settings: Separator, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = rng.standard_normal((settings.n, settings.d))
    if settings.bias:
        x[:, -1] = 1.0
    teacher = rng.standard_normal(settings.d)
    teacher /= np.linalg.norm(teacher)
    y = np.where(x @ teacher > 0, 1.0, -1.0)
    free = teacher.copy()
    if settings.bias:
        free[-1] = 0.0  # the constant input is not moved
    x += settings.gap * y[:, None] * free / np.linalg.norm(free) ** 2
    if settings.unit:
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x, y, y + 0.3 * rng.standard_normal(settings.n)


def predict(setup: Setup) -> Prediction:
    """The direction, from a library's support vector machine, its margin, and the angle of ridges to it."""
    steps = common.measured_steps(setup.settings.steps, 80)
    found = [robust.support_vector_machine(x, y) for x, y in zip(setup.x, setup.y, strict=True)]
    pairs = list(zip(found, setup.x, setup.y, strict=True))
    ridges = np.zeros((len(pairs), len(steps) - 1))  # at step 0 there is no direction yet
    for s, (direction, x, y) in enumerate(pairs):
        w = np.zeros_like(direction)
        for place, step in enumerate(steps[1:]):
            w = robust.logistic_ridge(x, y, 1 / (setup.settings.lr * step), w)
            ridges[s, place] = _away(w, direction)
    return {
        "steps": np.array(steps),
        "ridge": ridges,
        "direction": np.stack(found),
        "margin": np.array([robust.margin(w, x, y) for w, x, y in pairs]),
        "radius": np.array([robust.robust_radius(w, x, y) for w, x, y in pairs]),
    }


def _away(w: np.ndarray, direction: np.ndarray) -> float:
    """1 − cosine = |u − v|²/2, which keeps its digits near 0."""
    return float(np.square(w / np.linalg.norm(w) - direction).sum() / 2)


def fixed(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of mean log(1 + exp(−y w·x)): w (S, d), x (S, n, d), y (S, n)."""
    m = y * (x @ w[..., None])[..., 0]
    return -((torch.sigmoid(-m) * y)[:, None] @ x)[:, 0] / x.shape[1]


def normalized(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The same, divided by mean σ(−y w·x), which late in training is the loss; as a softmax, which cannot
    underflow.
    """
    m = y * (x @ w[..., None])[..., 0]
    share = torch.softmax(torch.nn.functional.logsigmoid(-m), dim=1)
    return -((share * y)[:, None] @ x)[:, 0]


def run(setup: Setup, prediction: Prediction, *, gradient: Descent = normalized) -> Iterator[Frame]:
    settings, x, y = setup.settings, torch.from_numpy(setup.x), torch.from_numpy(setup.y)
    directions = torch.from_numpy(prediction["direction"])

    def of(one: Descent) -> Gradient:
        return lambda w, _: one(w, x, y)

    def look(states: Sequence[Tensor], step: int) -> dict[str, np.ndarray]:
        both, fast = torch.stack([*states], dim=1), states[1]
        unit = both / both.norm(dim=2, keepdim=True)
        ratios = y[:, :, None] * (x @ unit.mT)
        # 1 − cos = ‖u − v‖²/2 keeps its digits near 0.
        away = (unit - directions[:, None]).square().sum(2) / 2
        values = {"away": away.numpy(), "margin": ratios.amin(1).numpy()}
        for name in ("robust_hinge", "regularized_hinge"):  # both sides of (41)
            sides = zip(fast.numpy(), setup.x, setup.y, strict=True)
            values[name] = np.array([getattr(robust, name)(*one, settings.rho) for one in sides])
        if step == settings.steps:
            values |= _perturbed(setup, fast.numpy(), prediction)
            # w is ηt times a convex combination of the y_i x_i, and no such combination is shorter than the
            # largest margin: how far the margin may still be from it.
            bound = fast.norm(dim=1) / (settings.lr * step)
            values["gap"] = (1 - ratios.amin(1)[:, 1] / bound).numpy()
        return values

    yield from common.follow(
        [of(fixed), of(gradient)], torch.zeros_like(x[:, 0]), look, lr=settings.lr,
        steps=settings.steps, tick=TICK, shown=prediction["steps"][1:],  # at 0 there is no direction yet
    )  # fmt: skip


def _perturbed(setup: Setup, w: np.ndarray, prediction: Prediction) -> dict[str, np.ndarray]:
    """How much the separators endure, against other directions; and the worst case of the square loss."""
    found, rho = [], setup.settings.rho
    for seed, (x, y, targets) in enumerate(zip(setup.x, setup.y, setup.targets, strict=True)):
        rng = np.random.default_rng([setup.settings.seed, seed])
        # Directions near the best one and anywhere: none may endure more.
        spread = np.concatenate([np.geomspace(1e-3, 3, 200)] * 5)[:, None]
        aside = spread * rng.standard_normal((1000, x.shape[1])) / np.sqrt(x.shape[1])
        least = np.linalg.lstsq(x, targets, rcond=None)[0]
        found.append({
            "radius_end": robust.robust_radius(w[seed], x, y),
            "others_end": [robust.robust_radius(v, x, y) for v in prediction["direction"][seed] + aside],
            "worst_end": _search(least, x, targets, rho, rng),
            "corrected_end": robust.robust_square(least, x, targets, rho),
            "printed_end": robust.printed_square(least, x, targets, rho),
        })  # fmt: skip
    return common.stacked(found)


def _search(w: np.ndarray, x: np.ndarray, y: np.ndarray, rho: float, rng: np.random.Generator) -> np.ndarray:
    """The largest (y − (w + dw)·x)² on ‖dw‖ = ρ‖w‖, sample by sample, by ascent from two starts, (n,)."""
    radius, best = rho * np.linalg.norm(w), np.zeros(len(x))
    drawn = rng.standard_normal(x.shape)
    for start in (drawn, -drawn):
        dw = start
        for _ in range(SEARCH):
            dw = radius * dw / np.linalg.norm(dw, axis=1, keepdims=True)
            miss = y - ((w + dw) * x).sum(axis=1)
            best = np.maximum(best, miss**2)
            slope = -2 * miss[:, None] * x
            dw = dw + 3 * radius * slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-300)
    return best


def figure(frames: Frames, prediction: Prediction, settings: Separator | None = None) -> figures.Chart:
    colors, steps = (shared.SGD, shared.MINIMUM_NORM), prediction["steps"][1:]
    way: list[figures.Mark] = [
        figures.Level(CLOSE, label="close"),
        figures.Predicted(steps, prediction["ridge"].mean(axis=0), "ridge at λ = 1/(ηt)", colors[0]),
    ]
    level = np.full(len(steps), prediction["margin"].mean())
    top = max(abs(float(level[0])), 1e-3)
    share: list[figures.Mark] = [figures.Predicted(steps, level, "support vector machine", shared.RIDGE)]
    sides: list[figures.Mark] = []
    at, away = common.curve(frames, "away")
    if len(at):
        margin = np.maximum(common.curve(frames, "margin")[1], -1.0)
        for which, label in enumerate(("logistic, fixed step", "divided by the loss")):
            way.append(figures.Measured(at, away[which], label=label, color=colors[which]))
            share.append(figures.Measured(at, margin[which], label=label, color=colors[which]))
        high = common.curve(frames, "regularized_hinge")[1].mean(0)
        low = common.curve(frames, "robust_hinge")[1]
        sides.append(figures.Bound(at, high, label="hinge + penalty", color=shared.RIDGE))
        sides.append(figures.Measured(at, low, label="robust hinge", color=colors[1]))
    ends = (float(steps[0]), float(steps[-1]))
    wide: dict[str, Any] = {"xlabel": "step", "xscale": "log", "xlim": ends}
    return figures.Chart.of(
        settings, "Descent on separable data: its angle to the SVM, its margin, and both sides of eq. 41.",
        figures.Panel("Angle to the SVM", way, ylabel="1 − cosine", yscale="log", **wide),
        figures.Panel("Margin", share, ylabel="least y w·x / ‖w‖",
                      ylim=(-1.2 * top, 1.2 * top), **wide),
        figures.Panel("Both sides of eq. 41", sides, ylabel="loss", yscale="log", **wide),
    )  # fmt: skip


def _separable(run: Run) -> tuple[Condition]:
    least = float(run.prediction["margin"].min())
    return (Condition("not separable: minus the margin", -least, -1e-6),)


def _separates(run: Run) -> tuple[Evidence, ...]:
    away, margin = run.last("away"), run.last("margin")
    best = run.prediction["margin"]
    low, high = (common.history(run.frames, name) for name in ("robust_hinge", "regularized_hinge"))
    worst, corrected, printed = (run.last(f"{name}_end") for name in ("worst", "corrected", "printed"))
    separable = _separable(run)
    unit = (*separable, Condition("inputs are not of norm 1", 0.0 if run.settings.unit else 1.0, 0.0))
    left = Check(
        "gap between the margin and its upper bound ‖w‖/(ηt)", float(run.last("gap").max()), MARGIN,
        "raise steps or the learning rate",
    )  # fmt: skip
    return (
        Evidence(away[:, 1], None, separable, (left,)),
        Evidence(margin[:, 1], best, separable, (left,)),
        Evidence(run.last("others_end").max(axis=1), run.prediction["radius"], unit),
        Evidence(low, high),
        Evidence(worst, corrected,
                 note=f"(42) as printed misses {1 - (printed / worst).mean():.0%} of the worst case"),
    )  # fmt: skip


def _as_ridge(run: Run) -> Evidence:
    steps, away = run.series("away")
    late = steps >= EARLY
    separable = _separable(run)
    note = f"at the end {away[-1, :, 0].mean():.1e}"
    return Evidence(away[late, :, 0].T / run.prediction["ridge"][:, late], 1.0, separable, note=note)


def as_fast(plain: Descent) -> Descent:
    """A fault for a world: the gradient that is divided by the loss."""
    return normalized


S12 = Claim(
    "S12", "theorem",
    "On separable data GD on the logistic loss, with its gradient divided by the loss, tends in direction to "
    "the hard-margin SVM; for inputs of norm 1 the SVM endures the largest perturbation of w; the robust "
    "hinge is at most hinge plus penalty; the worst square is (|r| + ρ‖w‖‖x‖)².",
    "paper 3, §9.4.1, eqs 35–38, 40–42",
    (
        Between("1 − cosine to the SVM, gradient divided by the loss", high=CLOSE, by=EVERY),
        Equals("margin, gradient divided by the loss, against the SVM's", tolerance=MARGIN),
        AtMost("ρ that the best of 1000 other directions endures, under the SVM's"),
        AtMost("robust hinge, under hinge plus penalty"),
        Equals("worst square on ‖dw‖ = ρ‖w‖, by search", tolerance=1e-6),
    ),
    _separates, "holds",
    {"holds": "the direction is that of the SVM, and both inequalities stand",
     "fails": "the direction is another, something endures more, or a bound is broken",
     "undecided": "the run ended before the direction settled",
     "out of regime": "the data are not separable, or inputs not of norm 1: then another separator endures "
                      "most"},
)  # fmt: skip

S23 = Claim(
    "S23", "prediction",
    "Plain GD on the logistic loss is after t steps as far in direction from the hard-margin SVM as ridge "
    "logistic regression at λ = 1/(ηt) is: its own rate, a power of 1/log t.",
    "paper 3, §9.4.1 and §9.6; that the limit is so slow: Soudry et al. 2018",
    (Equals(f"1 − cosine to the SVM of plain GD over that of ridge, from step {EARLY} on", by=INTERVAL,
            tolerance=LIKE),),
    _as_ridge, "holds",
    {"holds": "at every step plain GD has the angle of the ridge that its time stands for",
     "fails": "plain GD comes nearer to the SVM, or less near, than its ridge",
     "out of regime": "the data are not separable: there is no such machine"},
    (World("gradients divided by the loss", {"steps": 2000}, {f"{__name__}:fixed": as_fast}),),
)  # fmt: skip

SEPARATOR = Experiment(
    "separator", "Which separator does logistic regression find?", Separator,
    {"quick": Separator(seeds=8), "paper": Separator(n=200, d=100, steps=100_000, seeds=10)},
    prepare, predict, run, figure, (S12, S23), controls=("n", "d", "gap", "bias", "unit", "rho", "lr"),
)  # fmt: skip
