"""Why does test error dip? The linear model of §5.1 in closed form (Fig. 8).

X = X̄ + Z with X̄ of rank r, y = X̄w* + z. Gradient descent on ½‖Xw − y‖² first fits the column space of X̄ (the
information space) and then the noise; the population risk falls fast on one and rises slowly on the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from labkit import data, figures
from labkit.labs import common
from labkit.labs.jacobian import shared
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import EVERY, Between, Equals, Evidence
from labkit.protocol.settings import Settings, knob, on_cpu
from labkit.theory import linear_model

# What is followed: its words and its colour.
PARTS = {
    "risk": ("population risk", shared.TEST),
    "information": ("part on I", shared.INFORMATION),
    "nuisance": ("part on N", shared.NUISANCE),
}


@dataclass(frozen=True)
class LinearModel(Settings):
    n: int = knob(200, "samples", slider=(50, 400), bounds=(10, 5000), step=50)
    inputs: int = knob(500, "dimension d ≥ n", slider=(400, 1000), bounds=(10, 20_000), step=50)
    rank: int = knob(5, "rank r of the clean features", slider=(1, 20), bounds=(1, None), step=1)
    sigma_x: float = knob(0.2, "feature noise σ_x", slider=(0, 0.5), bounds=(0, 10), step=0.05)
    sigma_y: float = knob(2.0, "label noise σ_y", slider=(0, 4), bounds=(0, 100), step=0.25)
    lr: float = shared.learning_rate(0.5, "step size η (the paper gives none)", (0.05, 1.5), most=10)
    steps: int = knob(200, "steps τ", slider=(20, 1000), bounds=(2, None), scale="log")
    device: str = on_cpu()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank > min(self.n, self.inputs):
            raise ValueError(
                f"rank must be at most min(n, inputs) = {min(self.n, self.inputs)}; got {self.rank}"
            )


def prepare(settings: LinearModel) -> common.Setup:
    model = settings.n, settings.inputs, settings.rank, settings.sigma_x, settings.sigma_y
    draws = (data.low_rank_linear(*model, seed=s, dtype=torch.float64) for s in common.seeds(settings))
    return common.Setup(settings, tuple(draws))


def predict(setup: common.Setup) -> Prediction:
    """Risk and its two parts at every step, from one SVD of X."""
    settings, steps = setup.settings, np.arange(setup.settings.steps + 1)
    curves = []
    for draw in setup.sets:
        w = linear_model.gd_iterates(draw.X.numpy(), draw.y.numpy(), settings.lr, steps)
        model = draw.X_clean.numpy(), draw.y_clean.numpy(), settings.sigma_x, settings.sigma_y
        found = linear_model.population_risk(w, *model, rank=settings.rank)
        curves.append(np.stack([found.total, found.information, found.nuisance]))
    return {"steps": steps} | dict(zip(PARTS, np.stack(curves, axis=1), strict=True))


def run(setup: common.Setup, prediction: Prediction) -> Iterator[Frame]:
    """The loop (5.2), step by step, with the risk by Monte Carlo over fresh noise at a few steps."""
    settings = setup.settings
    X, y, U, clean, labels = common.together(setup.sets, "X", "y", "U", "X_clean", "y_clean")
    w = torch.zeros(len(X), settings.inputs, dtype=X.dtype)
    rng = np.random.default_rng(settings.seed)
    sampled = set(np.unique(np.geomspace(1, settings.steps, 6).round().astype(int)).tolist())
    for step in range(settings.steps + 1):
        # On I: the misfit of the clean data, seen through U, and r/n of the noise.
        # On N: the rest of the noise.
        misfit = (U.mT @ (clean @ w[..., None] - labels[..., None]))[..., 0]
        noise = 0.5 * (settings.sigma_x**2 * (w**2).sum(-1) + settings.sigma_y**2)
        share = settings.rank / settings.n
        inside, outside = 0.5 * (misfit**2).sum(-1) + share * noise, (1 - share) * noise
        values = dict(zip(PARTS, ((inside + outside).numpy(), inside.numpy(), outside.numpy()), strict=True))
        if step in sampled:
            each = zip(setup.sets, w.numpy(), strict=True)
            pairs = [_monte_carlo(draw, one, settings, rng) for draw, one in each]
            values["sampled"], values["sampled_error"] = np.array(pairs).T
        yield Frame(step, values, step / settings.steps, "done" if step == settings.steps else "running")
        gradient = (X.mT @ ((X @ w[..., None]) - y[..., None]))[..., 0]
        w = w - settings.lr * gradient


def _monte_carlo(
    draw: data.LowRankLinear, w: np.ndarray, settings: LinearModel, rng: np.random.Generator, draws: int = 400
) -> tuple[float, float]:
    """Mean and standard error of ½‖Xw − y‖² over fresh Z and z."""
    clean = draw.X_clean.numpy() @ w - draw.y_clean.numpy()
    # Z w has independent N(0, σ_x²‖w‖²/n) entries: only those are drawn.
    scale = np.sqrt((settings.sigma_x**2 * (w @ w) + settings.sigma_y**2) / settings.n)
    losses = 0.5 * ((clean + scale * rng.standard_normal((draws, settings.n))) ** 2).sum(axis=1)
    return float(losses.mean()), float(losses.std(ddof=1) / np.sqrt(draws))


def figure(frames: Frames, prediction: Prediction, settings: LinearModel | None = None) -> figures.Chart:
    marks: dict[str, list[figures.Mark]] = {}
    for name, (words, color) in PARTS.items():
        marks[name] = [
            figures.Predicted(prediction["steps"], prediction[name], f"{words}, closed form", color),
            figures.Measured(*common.curve(frames, name), f"{words}, descent", color),
        ]
    steps, sampled = common.curve(frames, "sampled")
    if len(steps):
        marks["risk"].append(
            figures.Points(steps, sampled, label="fresh noise drawn", color=shared.TRAIN, line=False)
        )
    ends = (0, int(prediction["steps"][-1]))
    across: dict[str, Any] = {"xlabel": "step τ", "ylabel": "E L(w_τ)", "xlim": ends, "ylim": (0, None)}
    return figures.Chart.of(
        settings,
        "Risk of a linear model that can be solved, along gradient descent, whole and in two parts.",
        figures.Panel("Population risk", marks["risk"], **across),
        figures.Panel("Its two parts", marks["information"] + marks["nuisance"], **across),
    )


def _dips(run: Run) -> tuple[Evidence, ...]:
    steps, measured = run.series("risk")
    sampled_at, sampled = run.series("sampled")
    risk, inside, outside = (run.prediction[name] for name in PARTS)
    dip = risk.argmin(axis=1)
    each = np.arange(len(dip))
    least = risk[each, dip]
    return (
        Evidence(measured.T, risk[:, steps]),
        Evidence(sampled.T, risk[:, sampled_at], note="400 draws of Z and z"),
        Evidence(
            np.stack([risk[:, 0] / least, risk[:, -1] / least], axis=1),
            note=f"dip at τ = {dip.min()}–{dip.max()}",
        ),
        Evidence(inside[each, dip] / inside[:, 0]),
        Evidence(outside[:, -1] / outside[:, 0]),
    )  # fmt: skip


J10 = Claim(
    "J10", "prediction",
    "In the linear model the population risk is known in closed form, and it dips: its part on I falls fast, "
    "its part on N rises.",
    "paper 4, §5.1 and Fig. 8",
    (
        Equals("population risk of the descent", tolerance=1e-10),
        Equals("risk over fresh noise", tolerance=0.05),
        Between("risk over its least", ("start", "end"), low=1.2, by=EVERY),
        Between("part on I, dip over start", high=0.2, by=EVERY),
        Between("part on N, end over start", low=1.2, by=EVERY),
    ),
    _dips,
    says={"holds": "closed form, descent and fresh noise agree; the risk falls on I, then rises on N",
          "fails": "closed form or dip is not as told"},
    worlds=(World("features without noise", {"sigma_x": 0.0}),),
)  # fmt: skip

LINEAR = Experiment(
    "linear", "Why does test error dip? A model that can be solved", LinearModel,
    {"quick": LinearModel(), "paper": LinearModel(seeds=10)},
    prepare, predict, run, figure, (J10,), controls=("sigma_x", "sigma_y", "lr", "rank", "steps"),
)  # fmt: skip
