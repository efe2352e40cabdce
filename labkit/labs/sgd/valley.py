"""Does noise choose a valley of minima over a single one? (S5; paper 3, Figs 8-10)

A flat disc of minima against a point of equal depth, under three kinds of noise: isotropic noise on gradient
descent, the same on SGD, and the noise of SGD alone. SGD's samples are U_i(w) = U(w) + e_i·w with Σ e_i = 0:
their mean is U, and minibatches of B of them have noise of covariance Cov(e)/B. Where the e_i spread alike in
all directions that is one more temperature, η σ²/(2B), by construction; a network's noise is another (S6).
Where they spread in one direction only SGD samples the one-dimensional e^(−U/T): it does not see the volume
along the others, and does not move along them: chains that began far out on the disc would stay there, so
they all begin within about half a width of the axis. Three quarters of them begin at the point, where no
prediction puts them. The barrier is .85 and the temperatures .9 to 2: what is judged is the law, not how long
an escape takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit import figures
from labkit.labs import common
from labkit.labs.sgd import chains
from labkit.labs.sgd.chains import slope
from labkit.labs.sgd.shared import LANGEVIN, SGD, SGDL
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import EVERY, Between, Equals, Evidence
from labkit.protocol.settings import Settings, knob, on_cpu
from labkit.theory.boltzmann import Valley as Potential
from labkit.theory.boltzmann import marginal, occupancy
from labkit.training.dynamics import descend

TOLERANCE = 0.1  # of the share at the point, relative
FEW = 0.08  # two standard errors of it, relative, above which chains are too few
RISE = 0.15  # of the share in the valley, from D = 1 to the largest
DIMENSIONS = tuple(f"D = {D}" for D in range(1, 4))
EDGES = np.linspace(-2.6, 2.6, 66)
KINDS = ("GD + noise", "SGD + noise", "SGD alone")
COLORS = (LANGEVIN, SGDL, SGD)
BLOCK = 16  # steps whose minibatches are drawn together


@dataclass(frozen=True)
class Valley(Settings):
    dimension: int = knob(3, "dimensions D: 1 to this", slider=(2, 6), bounds=(2, 20), step=1)
    temperature: float = knob(0.9, "T of the added noise", slider=(0.4, 2), bounds=(0.01, None), step=0.1)
    length: float = knob(1.25, "radius of the flat disc of minima", slider=(0.25, 2), bounds=(0.01, None),
                         step=0.25)  # fmt: skip
    spread: float = knob(29.0, "spread σ of the samples' slopes", slider=(15, 45), bounds=(0, None), step=1)
    batch_size: int = knob(2, "samples a step", slider=(1, 8), bounds=(1, None), step=1)
    directions: str = knob("one", "where SGD alone has noise", choices=("one", "all"))
    lr: float = knob(0.005, "step size", slider=(0.0005, 0.1), bounds=(0, None), scale="log")
    steps: int = knob(5000, "steps of each chain", slider=(500, 20_000), bounds=(20, None), step=500)
    chains: int = knob(800, "chains", slider=(100, 4000), bounds=(4, None), step=100)
    n: int = knob(64, "samples", slider=(16, 512), bounds=(8, None), scale="log2")
    width: float = knob(0.5, "width of both minima", slider=(0.3, 1), bounds=(0.01, None), step=0.05)
    place: float = knob(0.65, "the minima are at plus and minus this", slider=(0.5, 2), bounds=(0, None),
                        step=0.1)  # fmt: skip
    device: str = on_cpu()

    @property
    def potential(self) -> Potential:
        return Potential(self.width, self.length, self.place)

    @property
    def own(self) -> float:
        """The temperature that minibatches of these samples amount to: η σ²/(2B)."""
        return self.lr * self.spread**2 / (2 * self.batch_size)

    @property
    def temperatures(self) -> tuple[float, float, float]:
        """What each kind of dynamics should feel."""
        return self.temperature, self.temperature + self.own, self.own


def prepare(settings: Valley) -> chains.Setup:
    dimensions = range(1, settings.dimension + 1)
    given = settings.chains, settings.width / 2, 0.75
    starts = (chains.starts(settings, settings.place, D, *given) for D in dimensions)
    return chains.Setup(settings, tuple(starts), tuple(_slopes(settings, D) for D in dimensions))


def _slopes(settings: Valley, dimension: int) -> Tensor:
    """e (S, n, D): mean 0, covariance σ² I exactly, and in pairs ±e, so that no side is preferred."""
    found = []
    for generator in chains.generators(settings, f"slopes {dimension}"):
        half = torch.randn(
            max(settings.n // 2, dimension), dimension, generator=generator, dtype=torch.float64
        )
        root = torch.linalg.cholesky(half.T @ half / len(half))
        half = torch.linalg.solve_triangular(root, half.T, upper=False).T
        found.append(settings.spread * torch.cat([half, -half]))
    return torch.stack(found).float()


def predict(setup: chains.Setup) -> Prediction:
    """Shares of the valley, (3, D), and densities of w₁ for GD with noise, (D, B), by quadrature."""
    settings, U = setup.settings, setup.settings.potential
    dimensions = np.arange(1, settings.dimension + 1)
    felt = [
        [(_effective(settings, kind, int(D)), T) for D in dimensions]
        for kind, T in zip(KINDS, settings.temperatures, strict=True)
    ]
    return {
        "dimensions": dimensions,
        "share": np.array([[occupancy(U, *one) for one in row] for row in felt]),
        "density": np.array([[marginal(U, *one, EDGES) for one in row] for row in felt]),
    }


def _effective(settings: Valley, kind: str, dimension: int) -> int:
    """In how many dimensions there is noise."""
    return 1 if kind == "SGD alone" and settings.directions == "one" else dimension


def minibatch_gradient(
    potential: Potential, slopes: Tensor, batch_size: int, chains: int, generators: list[torch.Generator]
) -> Callable[[Tensor, int], Tensor]:
    """The mean gradient of `batch_size` samples U + e_i·w, drawn anew for each chain and step."""
    drawn: list[Tensor] = []

    def gradient(w: Tensor, step: int) -> Tensor:
        if step % BLOCK == 0:
            shape = BLOCK, chains, batch_size
            picks = [torch.randint(slopes.shape[1], shape, generator=one) for one in generators]
            # Sample by sample of the batch: several times as fast as the mean of own[pick].
            means = [
                sum(own.index_select(0, one.flatten()) for one in pick.unbind(2)).div_(batch_size)
                for own, pick in zip(slopes, picks, strict=True)
            ]
            drawn[:] = torch.stack(means).unflatten(1, shape[:2]).transpose(0, 1)
        result = slope(potential, w)
        result[..., : slopes.shape[2]] += drawn[step % BLOCK]
        return result

    return gradient


def run(setup: chains.Setup, prediction: Prediction) -> Iterator[Frame]:
    settings = setup.settings
    walks = [
        chains.Walk(
            (kind, place), {"job": np.array([kind, place + 1])}, _gradient(setup, kind, place), start,
            0.0 if name == "SGD alone" else settings.temperature, settings.temperatures[kind],
            _effective(settings, name, place + 1),
            chains.generators(settings, f"valley {name} {place + 1}"),
        )
        for place, start in enumerate(setup.starts)
        for kind, name in enumerate(KINDS)
    ]  # fmt: skip
    shape = len(KINDS), settings.dimension
    yield from chains.walked(settings, EDGES, walks, shape, descend, pictures=8)


def _gradient(setup: chains.Setup, kind: int, place: int) -> Callable[[Tensor, int], Tensor]:
    settings, U = setup.settings, setup.settings.potential
    if KINDS[kind] == "GD + noise":
        return lambda w, step: slope(U, w)
    slopes = setup.slopes[_effective(settings, KINDS[kind], place + 1) - 1]
    draws = chains.generators(settings, f"minibatches {KINDS[kind]} {place + 1}")
    return minibatch_gradient(U, slopes, settings.batch_size, settings.chains, draws)


def figure(frames: Frames, prediction: Prediction, settings: Valley | None = None) -> figures.Chart:
    dimensions = prediction["dimensions"]
    job = common.seen(frames, "job", 2)[0]
    kind, at = (0, len(dimensions) - 1) if np.isnan(job).any() else (int(job[0]), int(job[1]) - 1)
    share = common.seen(frames, "running", len(KINDS), len(dimensions))
    shares: list[figures.Mark] = []
    for place, name in enumerate(KINDS):
        shares += [
            figures.Predicted(dimensions, prediction["share"][place], color=COLORS[place]),
            figures.Points(dimensions, share[:, place], label=name, color=COLORS[place], line=False),
        ]
    titles = f"{KINDS[kind]}: first coordinate, D = {at + 1}", "Share of time in the valley"
    return figures.Chart.of(
        settings, "Where chains spend their time: at a point minimum or in a valley.",
        *chains.panels(
            frames, EDGES, (prediction["density"][kind, at], "quadrature"), COLORS[kind], titles, shares,
            dimensions, 0.3, "w₁ (point left, valley right)",
        ),
    )  # fmt: skip


def _prefers(run: Run) -> tuple[Evidence, ...]:
    found: dict[str, Any] = {name: run.last(name) for name in ("share", *chains.SOUND)}
    share, predicted = found["share"], run.prediction["share"]
    evidence = []
    for kind in range(len(KINDS)):
        own = {key: value[:, kind] for key, value in found.items()}
        checks = chains.checks(own, np.minimum(predicted[kind], 1 - predicted[kind]), FEW)
        # The point has the smaller share: relative to it an error counts most.
        evidence.append(Evidence(1 - own["share"], 1 - predicted[kind], checks=checks))
    return (*evidence, Evidence(share[:, :2, -1] - share[:, :2, 0], predicted[:2, -1] - predicted[:2, 0]))


S5 = Claim(
    "S5", "prediction",
    "Isotropic noise on GD or on SGD prefers a degenerate minimum to a point of equal depth, the more the "
    "higher the dimension, as the integral of e^(−U/T) says; minibatch noise in one direction does not.",
    "paper 3, §5.2 and Figs 8-10",
    (
        *(Equals(f"share of time at the point, {kind}", DIMENSIONS, tolerance=TOLERANCE) for kind in KINDS),
        Between("share in the valley, largest D minus D = 1", KINDS[:2], low=RISE, by=EVERY),
    ),
    _prefers, "holds",
    {"holds": "isotropic noise prefers the valley, more with each dimension; noise in one direction does not",
     "fails": "the valley is not preferred as quadrature says",
     "undecided": "these chains cannot tell: not mixed, too few, or steps too long"},
    (World("added noise in one direction alone", faults={f"{__name__}:descend": chains.along_one}),),
)  # fmt: skip

VALLEY = Experiment(
    "valley", "Does noise choose a valley over a point?", Valley,
    {"quick": Valley(), "paper": Valley(
        dimension=5, steps=20_000, chains=2000, seeds=5, lr=0.0025, spread=41.0)},
    prepare, predict, run, figure, (S5,),
    controls=("dimension", "temperature", "length", "spread", "batch_size", "directions", "lr"),
)  # fmt: skip
