"""Is depth paid for once or again and again? (E14; paper 2, after Theorem 1)

With one γ for every layer, the sharpness of Theorem 1 grows exponentially with depth. With γ = σ/(C_δ d) it
has a limit, and the price moves into the divergence, whose root grows like d, times the root of the number of
parameters: if μ stays. Both are evaluated with the constants of networks at initialisation. Their μ falls
with depth, and the divergence has 1/μ⁴.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from labkit import figures, models
from labkit.labs import common
from labkit.measure.conditions import Conditions, conditions
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import EVERY, Between, Condition, Equals, Evidence
from labkit.protocol.settings import knob
from labkit.protocol.statistics import exponent
from labkit.theory import generalization as theory

LINEAR, FIXED, MEASURED, LIMIT = 0, 1, 2, 3
DELTA = 0.05
SLOW = 0.5  # the exponent in d up to which we say that the sharpness term hardly grows


@dataclass(frozen=True)
class Depth(common.OnData):
    sigma: float = knob(
        0.2, "σ: each layer's γ is σ/(C_δ d)", slider=(0.01, 1), bounds=(1e-6, 100), scale="log"
    )
    width: int = knob(64, "units of each hidden layer", slider=(16, 256), bounds=(1, None), scale="log2")
    deepest: int = knob(
        32, "layers d of the deepest network; powers of two from 2 on", slider=(8, 64), bounds=(4, 256),
        scale="log2", label="most layers",
    )  # fmt: skip
    n: int = knob(20, "samples", slider=(10, 100), bounds=(2, None), step=10, label="samples")
    classes: int = knob(10, "classes K", slider=(2, 10), bounds=(2, None), step=1)
    dataset: str = knob("digits", "name of a data set, or path to an .npz")

    @property
    def depths(self) -> np.ndarray:
        return 2 ** np.arange(1, int(np.log2(self.deepest)) + 1)


def prepare(settings: Depth) -> common.Setup:
    """The networks are models[depth][seed]."""
    sets = common.datasets(settings, n_test=1, normalize="standardize")
    nets = tuple(
        tuple(
            models.mlp(
                one.x_train.shape[1], settings.width, int(d) - 1, settings.classes, bias=False, init="he",
                seed=seed, device=settings.device,
            )
            for seed, one in zip(common.seeds(settings), sets, strict=True)
        )
        for d in settings.depths
    )  # fmt: skip
    return common.Setup(settings, sets, nets)


def predict(setup: common.Setup) -> Prediction:
    """Theorem 1 with constants that do not change with depth: μ = 1, C₂ = C₃ = 2, half the units active."""
    settings, rows = setup.settings, []
    for d in settings.depths.tolist():
        dims = [setup.sets[0].dim, *[settings.width] * (d - 1), settings.classes]
        halves = np.array([*[np.sqrt(2.0)] * (d - 1), 1.0])
        rows.append(terms(settings, dims, 2.0, 2.0, halves))
    return common.stacked(rows) | {"depths": settings.depths}


def terms(settings: Depth, dims: Sequence[int], c2: float, c3: float, shares: Any) -> dict[str, float]:
    """Both terms of Theorem 1, and the sharpness with the γ of two layers kept at every depth."""
    d = len(dims) - 1
    c = theory.activation_constant(d, max(dims), DELTA)
    gamma = theory.linear_gammas(settings.sigma, d, c)
    shallow = theory.activation_constant(2, max(dims), DELTA)
    fixed = np.full(d, theory.linear_gammas(settings.sigma, 2, shallow)[0])
    kl = theory.linear_kl(settings.sigma, dims, 1.0, c, shares)
    return {
        "linear": theory.theorem1_sharpness(gamma, c2, c3, c, 1.0, 1.0),
        "fixed": theory.theorem1_sharpness(fixed, c2, c3, c, 1.0, 1.0),
        "root": np.sqrt(kl / sum(a * b for a, b in itertools.pairwise(dims))),
    }


def run(setup: common.Setup, prediction: Prediction) -> Iterator[Frame]:
    settings, depths = setup.settings, prediction["depths"].tolist()

    def look(place: int, s: int) -> dict[str, float]:
        found = conditions(setup.models[place][s], setup.sets[s].x_train[: settings.n])
        c2, c3 = float(found.c2.max()), float(found.c3.max())
        # In root mean square over samples: the divergence is about squares.
        shares = (found.norms / found.masked_norms).square().mean(0).sqrt().numpy()
        mu = float(found.mu_input.clamp(max=1).median())
        one = terms(settings, found.dims, c2, c3, shares)
        c = theory.activation_constant(depths[place], max(found.dims), DELTA)
        limit = theory.linear_sharpness(settings.sigma, c2, c3, c)
        root = one["root"] / max(mu, 1e-12) ** 2
        return one | {"limit": limit, "root_mu": root, "mu": mu, "c2": c2, "c3": c3}

    yield from common.sweep(look, len(setup.sets), [float(d) ** 2 for d in depths])


def figure(frames: Frames, prediction: Prediction, settings: Depth | None = None) -> figures.Chart:
    depths = prediction["depths"]
    panels = []
    for title, ylabel, curves in (
        (
            "Sharpness in Theorem 1", "bound / (C_L |f(x)|)",
            (("linear", "γ = σ/(C_δ d)", LINEAR), ("fixed", "one γ for all depths", FIXED)),
        ),
        (
            "Divergence in Theorem 1", "√(KL / parameters)",
            (("root", "μ divided out", LINEAR), ("root_mu", "with μ of the network", MEASURED)),
        ),
    ):  # fmt: skip
        marks: list[figures.Mark] = []
        for name, words, color in curves:
            if name in prediction:
                marks.append(figures.Predicted(depths, prediction[name], label=words, color=color))
            found, limit = (common.seen(frames, one, len(depths)) for one in (name, "limit"))
            marks.append(figures.Points(depths, found, label=f"{words}, measured constants", color=color))
            if name == "linear":
                marks.append(figures.Bound(depths, limit, label="limit for d → ∞", color=LIMIT))
        panels.append(
            figures.Panel(title, marks, xlabel="layers d", ylabel=ylabel, xscale="log2", yscale="log")
        )
    return figures.Chart.of(settings, "The two terms of Theorem 1 as a network grows deeper.", *panels)


def _growth(run: Run) -> tuple[Evidence, Evidence]:
    depths = run.prediction["depths"].astype(float)
    small = (Condition("σ C₂: noise is small", run.settings.sigma * float(run.last("c2").max()), 1.0),)
    slopes = {name: exponent(depths, run.last(name)) for name in ("linear", "fixed", "root", "root_mu")}
    mu = run.last("mu").mean(axis=0)
    one = f"with one γ for all depths the exponent is {slopes['fixed'].mean():.2g}"
    own = (
        f"with μ divided out {slopes['root'].mean():.3g}; median μ falls from {mu[0]:.2g} at "
        f"d = {depths[0]:.0f} to {mu[-1]:.2g} at d = {depths[-1]:.0f}"
    )
    return (
        Evidence(slopes["linear"], conditions=small, note=one),
        Evidence(slopes["root_mu"], 1.0, small, note=own),
    )


def _working_together(measure: Callable[..., Conditions]) -> Callable[..., Conditions]:
    """(C1) with μ = 1 in every network."""

    def ideal(*args: Any, **kwargs: Any) -> Conditions:
        found = measure(*args, **kwargs)
        return replace(found, mu_all=torch.ones_like(found.mu_all))

    return ideal


E14 = Claim(
    "E14", "prediction",
    "For σ small and γ = σ/(C_δ d), Theorem 1 pays for depth linearly: with the constants of networks at "
    "their start the sharpness term hardly grows with d, and √(KL/number of parameters) grows like d.",
    "paper 2, after Theorem 1",
    (
        Between("exponent of the sharpness term in the depth d", high=SLOW, by=EVERY),
        Equals("exponent of √(KL/parameters) in the depth d, with the network's own μ", tolerance=0.2),
    ),
    _growth, "fails",
    {"holds": "the sharpness term hardly grows with depth and √KL does linearly, as μ stays",
     "fails": "the sharpness term hardly grows with depth, but √KL does faster than linearly, as μ falls",
     "out of regime": "σ is not small"},
    (World("μ = 1 in every network: layers that work together at any depth",
           faults={"labkit.labs.generalization.depth:conditions": _working_together}, word="holds"),),
    "μ falls with depth at a fixed width, and the divergence has 1/μ⁴",
)  # fmt: skip

DEPTH = Experiment(
    "depth", "Is depth paid for once or again and again?", Depth,
    {"quick": Depth(), "paper": Depth(dataset="mnist", width=1000, deepest=16, n=20)},
    prepare, predict, run, figure, (E14,), controls=("sigma", "width", "deepest"),
)  # fmt: skip
