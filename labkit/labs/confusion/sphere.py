"""Are random directions nearly orthogonal? Lemma B.1 at every ν (C2).

The lemma is a union bound over pairs times a bound for one pair. What one pair does is known exactly, and
pairs are nearly independent, so the probability itself can be drawn beside the bound.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import betaincinv

from labkit import figures
from labkit.labs import common
from labkit.labs.confusion import shared
from labkit.protocol.claims import Claim
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import AtMost, Evidence
from labkit.protocol.settings import Settings, knob, on_cpu
from labkit.theory import confusion as theory

LEVELS = np.arange(1, 100) / 100  # the ν at which the inequality is looked at
SHARES = np.array([0.9, 0.7, 0.5, 0.3, 0.1, 0.03, 0.01])  # probabilities at which both sides give a ν
ERROR = 1e-3  # probability that any of a seed's lower confidence limits is too high
FRAMES = 20
BLOCK = 2**21  # numbers drawn at once: 16 MB


@dataclass(frozen=True)
class Sphere(Settings):
    n: int = knob(100, "vectors N", slider=(2, 300), bounds=(2, 5000), scale="log")
    d: int = knob(120, "dimension d", slider=(2, 500), bounds=(2, None), scale="log")
    draws: int = knob(2000, "sets of N vectors", slider=(200, 10_000), bounds=(20, None), scale="log")
    device: str = on_cpu()


def predict(setup: common.Setup) -> Prediction:
    """The bound and (nearly) the probability at every ν, and the ν of either at every share of the draws."""
    n, d = setup.settings.n, setup.settings.d
    # 1 - (1 - p)^pairs = share, solved for p of one pair.
    single = -np.expm1(np.log1p(-SHARES) / (n * (n - 1) / 2))
    return {
        "levels": LEVELS, "shares": SHARES,
        "bound": theory.near_orthogonality_bound(LEVELS, n, d),
        "probability": theory.some_pair_probability(LEVELS, n, d),
        "bound_level": theory.near_orthogonality_level(SHARES, n, d),
        "level": theory.pair_level(single, d),
    }  # fmt: skip


def run(setup: common.Setup, prediction: Prediction) -> Iterator[Frame]:
    settings = setup.settings
    rngs = [np.random.default_rng(seed) for seed in common.seeds(settings)]
    found: list[list[float]] = [[] for _ in rngs]
    edges = np.unique(np.linspace(0, settings.draws, FRAMES + 1).round().astype(int))
    sets = max(1, BLOCK // (settings.n * max(settings.n, settings.d)))
    for first, end in zip(edges[:-1], edges[1:], strict=True):
        for rng, largest in zip(rngs, found, strict=True):
            for at in range(first, end, sets):
                largest += _largest(rng, min(sets, end - at), settings.n, settings.d).tolist()
                yield Frame.tick(int(end), first / settings.draws)
        largest_so_far = np.array(found)
        share = (largest_so_far[:, :, None] >= LEVELS).mean(axis=1)
        values = {
            "share": share, "level": np.quantile(largest_so_far, 1 - SHARES, axis=1).T,
            "draws": np.full(len(rngs), end),
        }  # fmt: skip
        yield Frame(int(end), values, end / settings.draws, "done" if end == settings.draws else "running")


def _largest(rng: np.random.Generator, sets: int, n: int, d: int) -> np.ndarray:
    """max over i != j of |<x_i, x_j>| in each of some sets of n uniform unit vectors, (sets,)."""
    x = rng.standard_normal((sets, n, d))
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    products = np.abs(x @ x.transpose(0, 2, 1))
    products[:, np.arange(n), np.arange(n)] = 0.0
    return products.max(axis=(1, 2))


def figure(frames: Frames, prediction: Prediction, settings: Sphere | None = None) -> figures.Chart:
    shares, levels, wide = prediction["shares"], prediction["levels"], prediction["bound_level"]
    share = common.seen(frames, "share", len(levels))
    level = common.seen(frames, "level", len(shares))
    alone: dict[str, Any] = {"label": "pairs as if independent", "color": shared.COSINE}
    chances = (
        figures.Bound(levels, np.minimum(prediction["bound"], 1.0), label="Lemma B.1", color=shared.ETA),
        figures.Predicted(levels, prediction["probability"], **alone),
        figures.Measured(levels, share, label="measured", color=shared.COSINE),
    )
    looseness = (
        figures.Level(1.0, label="no loss"),
        figures.Predicted(shares, wide / prediction["level"], **alone),
        figures.Points(shares, wide / level, label="measured", color=shared.COSINE, line=False),
    )
    return figures.Chart.of(
        settings, "The chance that two of n random directions come close, and how wide the lemma is.",
        figures.Panel("Some pair is closer than ν", chances, xlabel="ν", ylabel="probability", xlim=(0, 1),
                      ylim=(0, 1.05)),
        figures.Panel("How much too wide is the lemma?", looseness, xlabel="probability",
                      ylabel="ν of the lemma / true ν", xscale="log"),
    )  # fmt: skip


def _lemma(run: Run) -> Evidence:
    draws, share = int(run.last("draws")[0]), run.last("share")
    if draws < run.settings.draws:
        raise ValueError("draws: the run has not ended yet")
    counts = np.rint(share * draws)
    # A single event far out is no violation: what counts is the lower limit of the probability.
    lower = np.where(
        counts > 0, betaincinv(np.maximum(counts, 1), draws - counts + 1, ERROR / len(LEVELS)), 0.0
    )
    bound, levels = run.prediction["bound"], run.prediction["levels"]
    says = levels[bound < 1]
    ratio = run.prediction["bound_level"] / run.last("level")
    ratios = ratio.mean(axis=0)
    note = f"ν is {ratios.min():.3f} to {ratios.max():.3f} times too large at equal probability; "
    note += f"it says something from ν = {says[0]:.2f} on" if says.size else "it says nothing at any ν"
    return Evidence(lower, bound, vacuous=not says.size, note=note)


C2 = Claim(
    "C2", "theorem",
    "Among N uniform unit vectors in d dimensions some pair has |⟨x_i, x_j⟩| ≥ ν with probability at most "
    "N²√(π/8) exp(−(d − 1)ν²/2), at every ν.",
    "paper 5, Lemma B.1",
    (AtMost("lower limit of the probability that some pair is closer than ν, at each ν"),), _lemma, "holds",
    {"holds": "the bound holds at each of the 99 ν", "fails": "the bound was exceeded"},
)  # fmt: skip

SPHERE = Experiment(
    "sphere", "Are random directions nearly orthogonal?", Sphere,
    {"quick": Sphere(), "paper": Sphere(draws=20_000, seeds=5)},
    common.Setup, predict, run, figure, (C2,), controls=("n", "d", "draws"),
)  # fmt: skip
