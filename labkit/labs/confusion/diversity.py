"""What else might measure confusion? Variance and diversity of gradients (C13, C15; paper 5, section 6).

Variance bounds confusion, and not the other way: gradients that all agree can have any variance. Diversity
does not tell orthogonal gradients from opposed ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit import figures
from labkit.labs import common
from labkit.labs.confusion import shared
from labkit.measure.confusion import confusion, gradient_diversity, gradient_variance
from labkit.protocol import statistics
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import EVERY, AtMost, Between, Equals, Evidence
from labkit.protocol.settings import Settings, knob, on_cpu

MEAN, VARIANCE, DIVERSE = shared.COSINE, shared.DEPTH, shared.WIDTH
OPPOSED = 11  # places between orthogonal and opposed
EXACT = 1e-9  # relative; rounding stays near 1e-14


@dataclass(frozen=True)
class Diversity(Settings):
    samples: int = knob(1024, "gradients N in a set; the rarest share is 1/N", slider=(64, 2048),
                        bounds=(8, 8192), scale="log2", label="samples N")  # fmt: skip
    dimension: int = knob(40, "dimension of a gradient", slider=(8, 200), bounds=(8, None), step=8)
    members: int = knob(8, "gradients in a set of equal diversity", slider=(4, 8), bounds=(4, 2000),
                        step=1)  # fmt: skip
    drawn: int = knob(40, "random sets on which variance must bound confusion", slider=(10, 200),
                      bounds=(1, None), step=10, label="random sets")  # fmt: skip
    device: str = on_cpu()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples & (self.samples - 1):
            raise ValueError(f"samples must be a power of 2, so that a share is a number; got {self.samples}")
        if self.members > self.dimension:
            raise ValueError(f"members must be at most dimension = {self.dimension}; got {self.members}")

    @property
    def shares(self) -> np.ndarray:
        """ε = 1/2, 1/4, ..., 1/N: the share of the long gradients."""
        return 0.5 ** np.arange(1, int(np.log2(self.samples)) + 1)


@dataclass(frozen=True)
class Setup:
    """frames: an orthogonal matrix a seed. sets: random sets of gradients a seed."""

    settings: Diversity
    frames: tuple[Tensor, ...]
    sets: tuple[tuple[Tensor, ...], ...]


def prepare(settings: Diversity) -> Setup:
    frames, sets = [], []
    for seed in common.seeds(settings):
        generator = torch.Generator().manual_seed(seed)
        square = torch.randn(settings.dimension, settings.dimension, generator=generator, dtype=torch.float64)
        frames.append(torch.linalg.qr(square).Q)
        sets.append(tuple(_random_set(settings.dimension, generator) for _ in range(settings.drawn)))
    return Setup(settings, tuple(frames), tuple(sets))


def _random_set(dimension: int, generator: torch.Generator) -> Tensor:
    """Two to nine gradients, in few or in many dimensions, around a mean that is small or large."""
    n = int(torch.randint(2, 10, (), generator=generator))
    d = 1 + int(dimension * torch.rand((), generator=generator) ** 3)
    size = 0.1 + torch.rand(2, generator=generator, dtype=torch.float64) ** 2
    around, mean = (torch.randn(k, d, generator=generator, dtype=torch.float64) for k in (n, 1))
    return 3 * size[0] * around + size[1] * mean


def predict(setup: Setup) -> Prediction:
    """All of it in closed form."""
    shares = setup.settings.shares
    mean = 1 + shares - shares**2
    return {
        "shares": shares,
        "mean": mean,
        "variance": 1 / shares + (1 - shares) * shares**2 - mean**2,
        "opposed": np.linspace(0, 1, OPPOSED),
        "diversity": np.ones(OPPOSED),
        "eta": np.linspace(0, 1, OPPOSED),
    }


def rare_and_long(share: float, samples: int, direction: Tensor) -> Tensor:
    """Gradients of one direction: a share ε of them 1/ε long, the others ε."""
    long = round(share * samples)
    lengths = torch.full((samples, 1), share, dtype=torch.float64)
    lengths[:long] = 1 / share
    return lengths * direction


def as_diverse(opposed: float, members: int, frame: Tensor) -> Tensor:
    """Unit gradients of diversity 1, whatever `opposed`: one pair at cosine -opposed, one at +opposed.

    The other pairs are orthogonal, so the inner products of pairs add up to 0: |sum g|² = sum |g|².
    """
    g = frame[:members].clone()
    away = (1 - opposed**2) ** 0.5
    g[1] = -opposed * g[0] + away * g[1]
    g[3] = opposed * g[2] + away * g[3]
    return g


def run(setup: Setup, prediction: Prediction, *, measure: shared.Measure | None = None) -> Iterator[Frame]:
    """`measure` is `confusion` when left out."""
    settings, measure = setup.settings, measure or confusion
    rare = len(prediction["shares"])
    total = rare + OPPOSED + 1
    for step, share in enumerate(prediction["shares"], start=1):
        sets = [rare_and_long(float(share), settings.samples, frame[0]) for frame in setup.frames]
        # Along the common direction, so that the sign of the mean shows.
        means = [float(g.mean(0) @ frame[0]) for g, frame in zip(sets, setup.frames, strict=True)]
        values = {
            "share": np.full(settings.seeds, share),
            "mean": np.array(means),
            "variance": np.array([gradient_variance(g) for g in sets]),
            "rare_eta": np.array([measure(g @ g.T).eta for g in sets]),
        }
        yield Frame(step, values, step / total)
    for step, opposed in enumerate(prediction["opposed"], start=rare + 1):
        sets = [as_diverse(float(opposed), settings.members, frame) for frame in setup.frames]
        values = {
            "at": np.full(settings.seeds, opposed),
            "diversity": np.array([gradient_diversity(g) for g in sets]),
            "eta": np.array([measure(g @ g.T).eta for g in sets]),
        }
        yield Frame(step, values, step / total)
    etas = [[measure(g @ g.T).eta for g in sets] for sets in setup.sets]
    bounds = [[len(g) * gradient_variance(g) / 2 for g in sets] for sets in setup.sets]
    yield Frame(total, {"random_eta": np.array(etas), "random_bound": np.array(bounds)}, 1.0, "done")


def figure(frames: Frames, prediction: Prediction, settings: Diversity | None = None) -> figures.Chart:
    shares, at, etas = (common.curve(frames, name)[1] for name in ("share", "at", "rare_eta"))
    rare: list[figures.Mark] = []
    opposed: list[figures.Mark] = []
    for marks, x, places, name, label, color in (
        (rare, 1 / prediction["shares"], 1 / shares[0], "variance", "variance", VARIANCE),
        (rare, 1 / prediction["shares"], 1 / shares[0], "mean", "mean", MEAN),
        (opposed, prediction["opposed"], at[0], "diversity", "diversity", DIVERSE),
        (opposed, prediction["opposed"], at[0], "eta", "η", shared.ETA),
    ):
        found = common.curve(frames, name)[1]
        marks.append(figures.Predicted(x, prediction[name], label=label, color=color))
        marks.append(figures.Points(places, found, label=label, color=color, line=False))
    if etas.size:
        rare.append(figures.Note("η > 0" if etas.any() else "η = 0 in every set"))
    bound, eta = (common.seen(frames, f"random_{name}", 1).ravel() for name in ("bound", "eta"))
    edge = np.array([bound.min() / 2, 2 * bound.max()]) if np.isfinite(bound).all() else np.array([1e-2, 1e3])
    bounded = (
        figures.Bound(edge, edge, label="η = Nσ²/2", color=VARIANCE),
        figures.Points(bound, eta, label="random set", color=shared.ETA, line=False),
    )
    logs: dict[str, Any] = {"xscale": "log", "yscale": "log"}
    return figures.Chart.of(
        settings, "Sets of gradients in which diversity, variance and confusion part ways.",
        figures.Panel("A share ε of long gradients", rare, xlabel="1/ε", ylabel="mean, variance", **logs),
        figures.Panel("Sets of equal diversity", opposed, xlabel="from orthogonal (0) to opposed (1)",
                      ylabel="diversity, η", ylim=(-0.1, 1.3)),
        figures.Panel("Variance bounds confusion", bounded, xlabel="N × variance / 2", ylabel="η",
                      xlim=(float(edge[0]), float(edge[1])), **logs),
    )  # fmt: skip


def _one_way(run: Run) -> tuple[Evidence, ...]:
    prediction = run.prediction
    mean, variance, eta = (common.curve(run.frames, name)[1] for name in ("mean", "variance", "rare_eta"))
    if mean.shape[1] < len(prediction["shares"]):
        raise ValueError("mean: the shares are not all measured yet")
    small = prediction["shares"] <= 1 / 16
    growth = statistics.exponent(1 / prediction["shares"][small], variance[:, small])
    etas, bounds = run.last("random_eta"), run.last("random_bound")
    note = (
        f"variance {variance[:, 0].mean():.2g} at ε = 1/2 and {variance[:, -1].mean():.4g} at "
        f"ε = 1/{1 / prediction['shares'][-1]:.0f}; on random sets η / (Nσ²/2) is at most "
        f"{(etas / np.maximum(bounds, 1e-300)).max():.3g}"
    )
    return (
        Evidence(mean, prediction["mean"], note=note),
        Evidence(variance, prediction["variance"]),
        Evidence(growth),
        Evidence(eta, 0.0),
        Evidence(etas / np.maximum(bounds, EXACT), 1.0),
    )


def _blind(run: Run) -> tuple[Evidence, ...]:
    diversity, eta = (common.curve(run.frames, name)[1] for name in ("diversity", "eta"))
    if eta.shape[1] < OPPOSED:
        raise ValueError("eta: the sets are not all measured yet")
    note = (
        f"diversity {diversity.min():.6g} to {diversity.max():.6g}, η from {eta[:, 0].max():.2g} to "
        f"{eta[:, -1].min():.3g}"
    )
    return (
        Evidence(diversity, run.prediction["diversity"], note=note),
        Evidence(eta, run.prediction["eta"]),
        Evidence(eta[:, -1] - eta[:, 0]),
    )


@shared.after
def one_direction(gradients: Tensor) -> Tensor:
    """A fault for a world: every gradient of a set replaced by their mean."""
    return gradients.mean(0, keepdim=True).expand_as(gradients)


C13 = Claim(
    "C13", "theorem",
    "The variance of the gradients bounds their confusion, η ≤ Nσ²/2, and confusion does not bound the "
    "variance: with a share ε of gradients 1/ε and the others ε, the mean tends to 1 and η = 0, while the "
    "variance grows as 1/ε.",
    "paper 5, §6 (interpolation and gradient variance)",
    (
        Equals("mean of the rare and long gradients", tolerance=EXACT),
        Equals("their variance", tolerance=EXACT),
        Between("exponent of 1/ε in their variance", low=0.95, high=1.1, by=EVERY),
        Equals("their confusion η", absolute=True),
        AtMost("η over Nσ²/2, random sets"),
    ),
    _one_way, "holds",
    {"holds": "no confusion at any variance, and never more confusion than the variance allows",
     "fails": "the construction has another mean, variance or confusion, or a set exceeds the bound"},
    worlds=(
        World("every gradient replaced by their mean", faults={f"{__name__}:rare_and_long": one_direction}),
    ),
)  # fmt: skip

C15 = Claim(
    "C15", "theorem",
    "Gradient diversity Σ|g|²/|Σg|² does not tell orthogonal gradients from opposed ones; confusion does.",
    "paper 5, §6 (gradient diversity)",
    (
        Equals("diversity of each set", tolerance=EXACT),
        Equals("η of each set", tolerance=EXACT, absolute=True),
        Between("η, opposed minus orthogonal", low=0.5, by=EVERY),
    ),
    _blind, "holds",
    {"holds": "diversity is 1 for orthogonal and for opposed gradients, confusion 0 and 1",
     "fails": "the sets differ in diversity, or not in confusion"},
    worlds=(
        World("every gradient replaced by their mean", faults={f"{__name__}:as_diverse": one_direction}),
        World("the mean pair for the worst", faults={f"{__name__}:confusion": shared.mean_for_worst}),
    ),
)  # fmt: skip

DIVERSITY = Experiment(
    "diversity", "Do variance and diversity measure confusion?", Diversity,
    {"quick": Diversity(), "paper": Diversity(samples=2048, dimension=200, drawn=200, seeds=5)},
    prepare, predict, run, figure, (C13, C15), controls=("samples", "dimension", "members", "drawn"),
)  # fmt: skip
