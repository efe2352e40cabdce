"""What do minibatches do to the inner product of two gradients? (C12; paper 5, section 2)

Two independent minibatches have gradients m + e and m + e'. Of <m + e, m + e'> the part <e, e'> has a
variance of order 1/B², the part <m, e + e'> one of order 1/B: the paper's 1/B² is the law of small mean
gradients, which training brings about.

The squared loss is the default: the few samples that a network trained by cross-entropy still gets wrong have
gradients so much longer than all others that a hundred minibatches do not settle a variance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from labkit import data, figures, models, training
from labkit.labs import common
from labkit.labs.confusion import shared
from labkit.measure.confusion import inner_variance
from labkit.measure.gradients import batch_gram, gradient_gram
from labkit.protocol import statistics
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import EVERY, Between, Condition, Equals, Evidence
from labkit.protocol.settings import knob

PHASES = ("start", "middle", "end")
COLORS = (shared.WIDTH, shared.DEPTH, shared.COSINE)
ROUNDING = 1e-12  # of a variance, in units of (mean |g|²)²
MEASURED = 12  # steps at which the closed form is evaluated
# (Gram matrix of single samples) -> (v0, v1, v2): the variance is v0 + v1/B + v2/B².
Variance = Callable[[Tensor], tuple[float, float, float]]


@dataclass(frozen=True)
class BatchSizes(common.OnData):
    largest: int = knob(256, "the largest minibatch B", slider=(16, 512), bounds=(4, 4096), scale="log2",
                        label="largest B")  # fmt: skip
    minibatches: int = knob(128, "minibatches of each size; all their pairs count", slider=(32, 256),
                            bounds=(8, 2000), scale="log2", remeasures=True)  # fmt: skip
    steps: int = knob(400, "steps of SGD before the end is measured", slider=(100, 2000), bounds=(4, None),
                      step=100)  # fmt: skip
    label_noise: float = knob(0.5, "share of wrong labels", slider=(0, 1), bounds=(0, 1), step=0.1)
    width: int = knob(16, "hidden units", slider=(4, 128), bounds=(1, None), scale="log2")
    activation: str = knob("tanh", "of the hidden layer", choices=("tanh", "relu", "identity"))
    loss: str = knob("half-mean", "half the squared error, or cross-entropy",
                     choices=("half-mean", "cross-entropy"))  # fmt: skip
    lr: float = knob(0.02, "learning rate", slider=(0.01, 1), bounds=(0, None), scale="log")
    momentum: float = knob(0.9, "momentum of SGD", slider=(0, 0.95), bounds=(0, 0.999))
    batch_size: int = knob(100, "samples a training step", slider=(8, 500), bounds=(1, None))
    n: int = knob(500, "training samples N", slider=(100, 1000), bounds=(20, None), step=100)
    dataset: str = knob("digits", "images", choices=("digits", "mnist-5k", "mnist", "cifar10"))

    @property
    def sizes(self) -> np.ndarray:
        """B: five sizes from 1 to the largest, evenly on a logarithmic axis."""
        return np.unique(np.geomspace(1, self.largest, 5).round().astype(int))

    @property
    def phases(self) -> tuple[int, int, int]:
        """The steps at which minibatches are drawn."""
        return 0, max(1, round(self.steps**0.5)), self.steps


@dataclass(frozen=True)
class Setup:
    """draws: for each seed and phase, minibatches of each size, (minibatches, B) sample numbers."""

    settings: BatchSizes
    xs: tuple[Tensor, ...]
    ys: tuple[Tensor, ...]
    nets: tuple[nn.Module, ...]
    draws: tuple[tuple[tuple[Tensor, ...], ...], ...]


def prepare(settings: BatchSizes) -> Setup:
    sets = common.datasets(
        settings, classes=10, n_test=1, normalize="standardize", label_noise=settings.label_noise,
        dtype=torch.float64,
    )  # fmt: skip
    nets = tuple(
        models.mlp(
            sets[0].x_train.shape[1], settings.width, 1, sets[0].classes, activation=settings.activation,
            seed=seed, dtype=torch.float64, device=settings.device,
        )
        for seed in common.seeds(settings)
    )  # fmt: skip
    squared = settings.loss != "cross-entropy"
    ys = (data.one_hot(one.y_train, one.classes, torch.float64) if squared else one.y_train for one in sets)
    draws = tuple(_draws(settings, seed) for seed in common.seeds(settings))
    return Setup(settings, tuple(one.x_train for one in sets), tuple(ys), nets, draws)


def _draws(settings: BatchSizes, seed: int) -> tuple[tuple[Tensor, ...], ...]:
    """Independent minibatches, drawn with replacement: exactly what the closed form speaks of."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(settings.minibatches, int(B)) for B in settings.sizes]
    return tuple(
        tuple(torch.randint(settings.n, shape, generator=generator) for shape in shapes) for _ in PHASES
    )


def predict(setup: Setup) -> Prediction:
    """The closed form at initialisation; later phases have theirs when training gets there."""
    sizes = setup.settings.sizes
    start = _theory(setup, setup.nets, inner_variance)["theory"]
    return {
        "sizes": sizes,
        "phases": np.array(setup.settings.phases),
        "start": start,
        "exponent_start": _slope(sizes, start),
    }


def _slope(sizes: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """The exponent of B; gradients that are all alike have no variance, and no logarithm of it."""
    return statistics.exponent(sizes, np.maximum(variance, ROUNDING))


def _theory(setup: Setup, nets: Sequence[nn.Module], variance: Variance) -> dict[str, np.ndarray]:
    """The closed form from single samples, in units of (mean |g|²)²: the gradients' length does not enter."""
    sizes, found = setup.settings.sizes, []
    for net, x, y in zip(nets, setup.xs, setup.ys, strict=True):
        G = gradient_gram(net, x, y, loss=setup.settings.loss)
        unit = float(G.diag().mean())
        v0, v1, v2 = (value / unit**2 for value in variance(G))
        found.append({
            "theory": v0 + v1 / sizes + v2 / sizes**2.0,
            "crossover": v2 / max(v1, 1e-300),
            "mean_share": float(G.mean()) / unit,
            "unit": unit,
        })  # fmt: skip
    return common.stacked(found)


def run(setup: Setup, prediction: Prediction, *, variance: Variance | None = None) -> Iterator[Frame]:
    """`variance` is `inner_variance` when left out."""
    settings, sizes, variance = setup.settings, setup.settings.sizes, variance or inner_variance
    snapshots: dict[int, list[nn.Module]] = {}
    theory: dict[int, dict[str, np.ndarray]] = {}
    ensemble = training.Ensemble(setup.nets)

    def exponent(now: training.Ensemble) -> np.ndarray:
        at = measured[len(snapshots)]
        snapshots[at] = [now.member(s) for s in range(settings.seeds)]
        theory[at] = _theory(setup, snapshots[at], variance)
        return _slope(sizes, theory[at]["theory"])

    measured = sorted({*common.measured_steps(settings.steps, MEASURED), *settings.phases})
    for frame in training.train(
        ensemble, setup.xs, setup.ys, loss=settings.loss, lr=settings.lr, momentum=settings.momentum,
        batch_size=settings.batch_size, steps=settings.steps, measure={"exponent_theory": exponent},
        measure_at=measured, seed=list(common.seeds(settings)),
    ):  # fmt: skip
        progress = 0.3 * (frame.progress or 0.0)
        if frame.status == "diverged":
            yield Frame(frame.step, frame.values, progress, "diverged", frame.note)
            return
        yield Frame(frame.step, frame.values, progress)
    yield from _measure(setup, snapshots, theory)


def _measure(
    setup: Setup, snapshots: dict[int, list[nn.Module]], theory: dict[int, dict[str, np.ndarray]]
) -> Iterator[Frame]:
    """Gradients of real minibatches at each phase, and the variance of their inner products."""
    settings, sizes = setup.settings, setup.settings.sizes
    found = np.full((settings.seeds, len(PHASES), len(sizes)), np.nan)
    ends = common.stacked([theory[at] for at in settings.phases], axis=1)
    units = ends.pop("unit")
    for place, at in enumerate(settings.phases):
        for column in range(len(sizes)):
            done = (place * len(sizes) + column + 1) / (len(PHASES) * len(sizes))
            for s, net in enumerate(snapshots[at]):
                draws = setup.draws[s][place][column]
                G = batch_gram(net, setup.xs[s], setup.ys[s], draws, loss=settings.loss).cpu()
                inner = G[tuple(torch.triu_indices(len(G), len(G), 1))] / units[s, place]
                found[s, place, column] = float(inner.var())
                yield Frame.tick(settings.steps, 0.3 + 0.69 * done - 0.01)
            values = {**ends, "variance": found.copy()}
            yield Frame(settings.steps, values, 0.3 + 0.69 * done)
    yield Frame(settings.steps, {**ends, "variance": found.copy()}, 1.0, "done")


def figure(frames: Frames, prediction: Prediction, settings: BatchSizes | None = None) -> figures.Chart:
    sizes = prediction["sizes"]
    steps, exponents = common.curve(frames, "exponent_theory")
    if len(steps) < 2:
        # A short dash, since a point has no line.
        steps, exponents = np.array([0, 0.3]), np.repeat(prediction["exponent_start"][:, None], 2, axis=1)
    # Times B²: the paper's law is then flat, a 1/B term a rise. The slopes of these curves are beside them.
    curves: list[figures.Mark] = []
    slopes: list[figures.Mark] = [
        figures.Level(-2.0, label="1/B²", color="ink"),
        figures.Level(-1.0, label="1/B", color="grey"),
        figures.Predicted(steps + 1, exponents, label="closed form", color=shared.ETA),
    ]
    for place, (name, at, color) in enumerate(zip(PHASES, prediction["phases"], COLORS, strict=True)):
        variance = common.seen(frames, "variance", len(sizes), at=(place,))
        theory = common.seen(frames, "theory", len(sizes), at=(place,)) if place else prediction["start"]
        label = "" if place else "closed form"
        curves.append(figures.Predicted(sizes, sizes**2 * theory, label=label, color=color))
        curves.append(figures.Points(sizes, sizes**2 * variance, label=name, color=color, line=False))
        if np.isfinite(variance).all():
            slope = _slope(sizes, variance)[:, None]
            slopes.append(figures.Points(np.array([at + 1]), slope, label=name, color=color))
    return figures.Chart.of(
        settings, "How the variance of the product of two minibatch gradients falls with their size.",
        figures.Panel("B² times the variance of ⟨g_A, g_B⟩", curves, xlabel="samples B in a minibatch",
                      ylabel="B² variance / (mean |g|²)²", xscale="log", yscale="log"),
        # Step 0 stands at 1.
        figures.Panel("Exponent of B", slopes, xlabel="training step + 1", ylabel="exponent", xscale="log",
                      xlim=(0.8, 1.3 * float(prediction["phases"][-1])), ylim=(-2.2, -0.8)),
    )  # fmt: skip


def _law(run: Run) -> tuple[Evidence, ...]:
    sizes = run.prediction["sizes"]
    found, expected = (
        np.stack([_slope(sizes, run.last(name)[:, k]) for k in range(len(PHASES))], axis=1)
        for name in ("variance", "theory")
    )
    crossover, share = run.last("crossover"), run.last("mean_share")
    small = Condition(
        "the mean gradient is small: largest B against a third of tr S²/2mᵀSm",
        float(sizes[-1]),
        float(crossover[:, 2].min()) / 3,
    )
    note = "; ".join(
        f"{name}: exponent {found[:, k].mean():.2f} (closed form {expected[:, k].mean():.2f}), "
        f"|mean g|² / mean |g|² {share[:, k].mean():.1g}, the terms cross at B = {crossover[:, k].mean():.0f}"
        for k, name in enumerate(PHASES)
    )
    return (
        Evidence(found[:, 2], conditions=(small,), note=note),
        Evidence(found[:, 0] - found[:, 2]),
        Evidence(found, expected),
    )


@shared.after
def only_squares(variance: tuple[float, float, float]) -> tuple[float, float, float]:
    """A fault for a world: the closed form without its term in 1/B."""
    return 0.0, 0.0, variance[2]


C12 = Claim(
    "C12", "prediction",
    "The variance of the inner product of two minibatch gradients is 2mᵀSm/B + tr S²/B²: it falls as 1/B² "
    "where the mean gradient m is small, as at the end of training, and before training more slowly, by .2 "
    "or more in the exponent.",
    "paper 5, §2 (remarks on Definition 2.1)",
    (
        Between("exponent of B in the variance, end of training", low=-2.15, high=-1.85, by=EVERY),
        Between("exponent of B, start minus end", low=0.2, by=EVERY),
        Equals("exponent of B against the closed form's", PHASES, tolerance=0.3, absolute=True),
    ),
    _law, "holds",
    {"holds": "1/B² at the end of training, flatter at the start, and the closed form throughout",
     "fails": "the exponent is not −2 at the end, or not flatter at the start, or not the closed form's",
     "out of regime": "the mean gradient is not small at the end, so no 1/B² law is promised"},
    worlds=(
        World("hardly any training", {"steps": 4, "lr": 1e-4}),
        World("the closed form without its term in 1/B", faults={f"{__name__}:inner_variance": only_squares}),
        World("every gradient replaced by their mean",
              faults={f"{__name__}:gradient_gram": shared.same_gradient,
                      f"{__name__}:batch_gram": shared.same_gradient}),
    ),
)  # fmt: skip

BATCHES = Experiment(
    "batches", "What do minibatches do to confusion?", BatchSizes,
    {
        "quick": BatchSizes(),
        "paper": BatchSizes(
            dataset="cifar10", n=2000, width=100, largest=1024, steps=5000, minibatches=200, seeds=5
        ),
    },
    prepare, predict, run, figure, (C12,),
    controls=("largest", "steps", "label_noise", "width", "minibatches"),
)  # fmt: skip
