"""When to stop is how much to regularize (S3; paper 3, §9.6 and the last page).

t steps of descent from 0 learn a direction by 1 − (1 − ηs²)^t, ridge by s²/(s² + λ): at λ = 1/(ηt) the two
are close, and the risk of gradient flow is at most 1.69 times that of ridge. Descent here is on the mean loss
(49), so that its partner in ‖Xw − y‖² + λ‖w‖² is λ = n/(ηt).

What descent does to all labels at once is a matrix M_t, w_t = M_t y. It is iterated itself; then the risk
over the label noise, ‖M_t Xw* − w*‖² + σ²‖M_t‖_F², is measured without error and without the closed form.
What a signal has outside the span of the samples (n < d) neither of the two learns.
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
from labkit.protocol.rules import AtMost, Equals, Evidence
from labkit.protocol.settings import Settings, knob, on_cpu
from labkit.theory import least_squares as theory

# Name (noise only: all s equal), power of i with which s_i² falls (None: Gaussian features), signal.
PROBLEMS: tuple[tuple[str, float | None, str], ...] = (
    ("noise only", 0.0, "none"),
    ("all s", -1.5, "all"),
    ("large s", -1.5, "large"),
    ("small s", -1.5, "small"),
    ("Gaussian", None, "anywhere"),
)
SHOWN = 1  # the problem of the first two panels
DELTAS = np.geomspace(1.0, 0.01, 7)
TICK = 100  # steps between two looks at least
GRID = np.geomspace(2e-3, 1.0, 80)
Match = Callable[[float, Any, int], Any]


@dataclass(frozen=True)
class Filters(Settings):
    n: int = knob(30, "samples n", slider=(10, 100), bounds=(2, 1000), step=10)
    d: int = knob(40, "weights d", slider=(10, 100), bounds=(2, 500), step=10)
    step: float = knob(0.02, "step size η times the largest curvature s₁²/n", slider=(0.005, 0.9),
                       bounds=(1e-4, 0.99), scale="log", label="step")  # fmt: skip
    noise: float = knob(0.3, "label noise σ (the signal has ‖w*‖ = 1)", slider=(0.1, 4), bounds=(1e-3, 1e3),
                        step=0.1)  # fmt: skip
    risk: str = knob("estimation", "of the weights, or of the outputs", choices=("estimation", "prediction"))
    steps: int = knob(4000, "steps", slider=(200, 10_000), bounds=(2, None), scale="log")
    device: str = on_cpu()


@dataclass(frozen=True)
class Setup:
    """S seeds of P problems: x = U diag(s) Vᵀ (S, P, n, d), signals w* (S, P, d); matrices A (S, 12, 20)."""

    settings: Filters
    x: np.ndarray
    u: np.ndarray
    s: np.ndarray  # (S, P, r) with r = min(n, d), and s₁² = n
    v: np.ndarray
    signal: np.ndarray
    deficient: np.ndarray


def prepare(settings: Filters) -> Setup:
    parts = []
    for seed in common.seeds(settings):
        rng = np.random.default_rng(seed)
        problems = common.stacked([_problem(settings, power, where, rng) for _, power, where in PROBLEMS])
        # Rank 8 of 12: the limit needs no full rank.
        deficient = rng.standard_normal((12, 8)) @ rng.standard_normal((8, 20)) / 8
        parts.append(problems | {"deficient": deficient})
    return Setup(settings, **common.stacked(parts))


def _problem(
    settings: Filters, power: float | None, where: str, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    n, d = settings.n, settings.d
    u, s, vt = np.linalg.svd(rng.standard_normal((n, d)), full_matrices=False)
    if power is not None:
        s = np.arange(1, len(s) + 1) ** (power / 2)
    s = s * np.sqrt(n) / s[0]
    size = {"none": 0 * s, "all": 1 + 0 * s, "large": s, "small": 1 / s, "anywhere": np.ones(d)}[where]
    signal = size * rng.choice([-1.0, 1.0], len(size)) / max(float(np.linalg.norm(size)), 1e-300)
    return {
        "x": (u * s) @ vt, "u": u, "s": s, "v": vt.T,
        "signal": signal if where == "anywhere" else vt.T @ signal,
    }  # fmt: skip


def predict(setup: Setup) -> Prediction:
    """Risks and filters in closed form, and the bounds."""
    settings = setup.settings
    steps = np.array(common.measured_steps(settings.steps, 110)[1:])
    lr = settings.step / settings.n  # on the sum of squares
    lam = theory.matched_ridge(lr, steps)
    shape = (settings.seeds, len(PROBLEMS), len(steps))
    risks = {name: np.zeros(shape) for name in ("gd", "flow", "ridge")}
    for at in np.ndindex(shape[:2]):
        s, a = setup.s[at], setup.v[at].T @ setup.signal[at]
        # What no sample shows of the signal is lost in the weights, and does not matter to the outputs.
        hidden = np.sum(setup.signal[at] ** 2) - np.sum(a**2) if settings.risk == "estimation" else 0.0
        filters = {
            "gd": theory.gd_filter(s, lr, steps),
            "flow": theory.flow_filter(s, lr * steps),
            "ridge": theory.ridge_filter(s, lam),
        }
        for name, one in filters.items():
            risks[name][at] = hidden + theory.filter_risk(one, s, a, settings.noise, of=settings.risk).total
    grid = np.sqrt(GRID * settings.n)
    return {
        "steps": steps,
        "time": settings.step * steps,
        **{f"{name}_risk": value for name, value in risks.items()},
        "gd_filter": theory.gd_filter(grid, lr, steps),
        "ridge_filter": theory.ridge_filter(grid, lam),
        "flow_bound": np.array(theory.risk_ratio_bound()),
        "gd_bound": np.array(theory.risk_ratio_bound(settings.step)),
        # That bound is the square of the largest ratio of a filter of descent to ridge's, which is >= 1.
        "apart_bound": np.array(1 - theory.risk_ratio_bound(settings.step) ** -0.5),
        "inverse": np.stack([theory.regularized_inverse_error(a, DELTAS) for a in setup.deficient]),
    }


def run(setup: Setup, prediction: Prediction, *, match: Match | None = None) -> Iterator[Frame]:
    """Iterates M_t. `match` gives λ for (η, steps, n), with η the step on the mean loss."""
    settings, n, match = setup.settings, setup.settings.n, match or theory.matched_ridge
    x = torch.from_numpy(setup.x)
    gram, eye = x.mT @ x, torch.eye(settings.d, dtype=torch.float64)
    inverse = torch.linalg.pinv(gram, hermitian=True)
    look = _Look(setup, x)

    def gradient(maps: Tensor, step: int) -> Tensor:
        return (gram @ maps - x.mT) / n

    def measured(states: Sequence[Tensor], step: int) -> dict[str, np.ndarray]:
        (gd,), lam = states, float(np.asarray(match(settings.step, step, n)).item())
        ridge = torch.linalg.solve(gram + lam * eye, x.mT)
        decay = torch.linalg.matrix_exp(-gram * (settings.step * step / n))
        flow = inverse @ (eye - decay) @ x.mT
        values = {f"{name}_risk": look.risk(one) for name, one in
                  (("gd", gd), ("flow", flow), ("ridge", ridge))}  # fmt: skip
        last = {"inverse": _inverse(setup.deficient)} if step == settings.steps else {}
        return values | look.compare(gd, ridge, step) | last

    yield from common.follow(
        [gradient], torch.zeros_like(x.mT), measured, lr=settings.step, steps=settings.steps,
        shown=prediction["steps"], tick=TICK,
    )  # fmt: skip


class _Look:
    """What is measured of a map M (S, P, d, n)."""

    def __init__(self, setup: Setup, x: Tensor) -> None:
        self.setup, self.x = setup, x
        self.signal = torch.from_numpy(setup.signal)[..., None]
        self.u, self.v = torch.from_numpy(setup.u), torch.from_numpy(setup.v)

    def risk(self, maps: Tensor) -> np.ndarray:
        """(S, P), over the label noise."""
        miss = maps @ (self.x @ self.signal) - self.signal
        if self.setup.settings.risk == "prediction":
            miss, maps = self.x @ miss, self.x @ maps
        noise = self.setup.settings.noise**2 * maps.square().sum((2, 3))
        return (miss.square().sum((2, 3)) + noise).numpy()

    def compare(self, gd: Tensor, ridge: Tensor, step: int) -> dict[str, np.ndarray]:
        """Filters (S, P, r), the error of the closed form, the distance of the two estimates."""
        settings, s = self.setup.settings, self.setup.s
        inside = {"gd": self.v.mT @ gd @ self.u, "ridge": self.v.mT @ ridge @ self.u}  # diag(f/s)
        found = {f"{name}_filter": s * one.diagonal(dim1=2, dim2=3).numpy() for name, one in inside.items()}
        expected = np.stack(
            [[theory.gd_filter(one, settings.step / settings.n, [step])[0] for one in seed] for seed in s]
        )
        closed = (self.v * torch.from_numpy(expected / s)[..., None, :]) @ self.u.mT
        f, g = found["gd_filter"], found["ridge_filter"]
        # Mean squares over the noise: a direction holds (s²a² + σ²)/s² of ‖w‖².
        a = np.einsum("spij,spi->spj", self.setup.v, self.setup.signal)
        weight = a**2 + (settings.noise / s) ** 2
        length = (weight * f**2).sum(axis=2)
        return found | {
            "error": ((gd - closed).norm(dim=(2, 3)) / closed.norm(dim=(2, 3))).numpy(),
            "apart": np.sqrt((weight * (f - g) ** 2).sum(axis=2) / length),
        }


def _inverse(matrices: np.ndarray) -> np.ndarray:
    """‖Aᵀ(AAᵀ + δ²I)⁻¹ − A†‖₂ at each δ, (S, 7)."""
    return np.array(
        [[np.linalg.norm(theory.regularized_inverse(a, delta) - np.linalg.pinv(a), 2) for delta in DELTAS]
         for a in matrices]
    )  # fmt: skip


def figure(frames: Frames, prediction: Prediction, settings: Filters | None = None) -> figures.Chart:
    time, steps = prediction["time"], prediction["steps"]
    gd, ridge = shared.MINIMUM_NORM, shared.RIDGE
    shown = [frame for frame in frames if "gd_filter" in frame.values]
    now = int(np.searchsorted(steps, shown[-1].step)) if shown else len(steps) // 2
    now = min(now, int(np.searchsorted(time, 20.0)), len(steps) - 1)  # later all is learned
    learned: list[figures.Mark] = [
        figures.Predicted(GRID, prediction["gd_filter"][now], label="descent: 1 − (1 − ηs²/n)^t", color=gd),
        figures.Predicted(GRID, prediction["ridge_filter"][now], label="ridge: s²/(s² + λ)", color=ridge),
    ]
    risk: list[figures.Mark] = []
    for name, label, color in (("gd", "descent", gd), ("ridge", "ridge", ridge)):
        risk.append(figures.Predicted(time, prediction[f"{name}_risk"][:, SHOWN], label=label, color=color))
    at, _ = common.curve(frames, "gd_risk")
    if len(at):
        frame = shown[min(now, len(shown) - 1)]
        for name, color in (("gd", gd), ("ridge", ridge)):
            values = common.curve(frames, f"{name}_risk")[1][SHOWN]
            risk.append(figures.Measured(time[: len(at)], values, color=color))
            places = np.arange(1, frame.values["gd_filter"].shape[2] + 1) ** float(PROBLEMS[SHOWN][1] or 0)
            points = frame.values[f"{name}_filter"][:, SHOWN]
            learned.append(figures.Points(places, points, color=color, line=False))
    return figures.Chart.of(
        settings, "Early stopping beside ridge regression: what is learned, and at what risk.",
        figures.Panel(f"Learned at ηt = {time[now]:.2g}", learned, xlabel="s²/n", ylabel="share",
                      xscale="log", ylim=(-0.02, 1.05)),
        figures.Panel(f"Risk, signal on {PROBLEMS[SHOWN][0]}", risk, xlabel="time ηt", ylabel="risk",
                      xscale="log", yscale="log"),
        figures.Panel("Flow / ridge at λ = n/(ηt)", _ratio(frames, prediction), xlabel="time ηt",
                      ylabel="ratio of risks", xscale="log", ylim=(0, 2.0)),
    )  # fmt: skip


def _ratio(frames: Frames, prediction: Prediction) -> list[figures.Mark]:
    """Of the risk of the flow to that of ridge, and its bound."""
    time, bound = prediction["time"], float(prediction["flow_bound"])
    marks: list[figures.Mark] = [
        figures.Bound(time, np.full(len(time), bound), label=f"bound {bound:.2f}", color="ink")
    ]
    (at, flow), (_, ridge) = (common.curve(frames, f"{name}_risk") for name in ("flow", "ridge"))
    for which, (label, *_) in enumerate(PROBLEMS if len(at) else ()):
        values = flow[which] / ridge[which]
        marks.append(figures.Measured(time[: len(at)], values, label=label, color=(6, 2, 0, 1, 4)[which]))
    return marks


def _stops(run: Run) -> tuple[Evidence, ...]:
    gd, flow, ridge = (common.history(run.frames, f"{name}_risk") for name in ("gd", "flow", "ridge"))
    error, apart = (common.history(run.frames, name) for name in ("error", "apart"))
    return (
        Evidence(error.max(axis=(1, 2)), 0.0),
        Evidence(flow / ridge, run.prediction["flow_bound"]),
        Evidence(gd / ridge, run.prediction["gd_bound"]),
        Evidence(apart, run.prediction["apart_bound"]),
        Evidence(run.last("inverse"), run.prediction["inverse"]),
    )


def of_the_mean(matched: Callable[..., Any]) -> Callable[..., Any]:
    """A fault for a world: 1/(ηt) where the loss is a mean, and n/(ηt) its partner."""
    return lambda lr, steps, samples=1: matched(lr, steps)


S3 = Claim(
    "S3", "theorem",
    "Descent for a time ηt acts as ridge with λ = 1/(ηt), for any n and d: the risk of gradient flow is at "
    "most 1.69 times ridge's at this λ, that of descent little more, and their estimates are never further "
    "apart than a quarter of their length; and Aᵀ(AAᵀ + δ²I)⁻¹ tends to A† as δ²/s³.",
    "paper 3, §9.6 and §9.10.6; the constant: Ali, Kolter and Tibshirani 2019, Theorem 2",
    (
        Equals("distance of the iterated map from its closed form, relative", tolerance=1e-9, absolute=True),
        AtMost("risk of gradient flow over ridge's, at every time and problem"),
        AtMost("risk of descent over ridge's, at every time and problem"),
        AtMost("distance of the estimates of descent and ridge, over the length of the first"),
        Equals("‖Aᵀ(AAᵀ + δ²I)⁻¹ − A†‖ at each δ", tolerance=1e-6),
    ),
    _stops, "holds",
    {"holds": "descent stays within 1.69 of the matched ridge's risk, and near its estimate, at every time",
     "fails": "a filter is not as told, or the risk left the bound: is the pairing of λ and ηt right?"},
    (World("λ = 1/(ηt) on the mean loss", faults={f"{__name__}:theory.matched_ridge": of_the_mean}),),
)  # fmt: skip

FILTERS = Experiment(
    "early-stopping", "How is stopping early like a ridge?", Filters,
    {"quick": Filters(), "paper": Filters(n=200, d=100, step=0.01, steps=20_000, seeds=10)},
    prepare, predict, run, figure, (S3,), controls=("n", "d", "step", "noise", "risk"),
)  # fmt: skip
