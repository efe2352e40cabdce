"""Where is the knee?
A mixture of K classes of C clusters gives a Jacobian of rank about K²C (Thm A.1, Fig. 3).

With σ = 0 there are KC different inputs and K outputs: rank K²C exactly, labels inside I. There the
memberships are drawn at random, as the definition does. With σ > 0 the knee stays and the top singular values
grow as √(n/KC): double n at fixed centres and clusters of equal size, and they grow by √2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from labkit import data, figures, krylov, models
from labkit.labs import common
from labkit.labs.jacobian import shared
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import AtMost, Condition, Equals, Evidence, Located
from labkit.protocol.settings import Settings, knob, on_cpu
from labkit.theory import jacobian as theory
from labkit.theory import kernels


@dataclass(frozen=True)
class MixtureSettings(Settings):
    classes: int = knob(3, "classes K", slider=(2, 5), bounds=(2, None), step=1)
    clusters: int = knob(10, "clusters a class C", slider=(2, 15), bounds=(1, None), step=1)
    sigma: float = knob(
        0.1,
        "σ: the norm of a sample's deviation from its centre",
        slider=(0, 0.6),
        bounds=(0, 10),
        step=0.05,
        label="cluster noise σ",
    )
    per_cluster: int = knob(
        10, "samples a cluster; a second run takes twice as many", slider=(2, 30), bounds=(1, None), step=1
    )
    drawn: int = knob(
        60, "mean samples a cluster at σ = 0, whose memberships are drawn at random", slider=(10, 100),
        bounds=(1, None), step=10, label="samples a cluster at σ = 0",
    )  # fmt: skip
    width: int = knob(1000, "hidden units k", slider=(16, 4096), bounds=(1, None), scale="log2")
    inputs: int = knob(20, "input dimension d", slider=(5, 60), bounds=(2, None), step=5)
    activation: str = knob("relu", "activation φ", choices=("relu", "softplus"))
    device: str = on_cpu()


def prepare(settings: MixtureSettings) -> common.Setup:
    """Mixtures of each seed: as set, with twice as many samples, and without noise."""

    def draw(per_cluster: int, sigma: float, balanced: bool = True) -> tuple[data.Mixture, ...]:
        n = settings.classes * settings.clusters * per_cluster
        return tuple(
            data.gaussian_mixture(
                settings.classes, settings.clusters, n, settings.inputs, sigma, n_test=0, balanced=balanced,
                seed=seed, dtype=torch.float64,
            )
            for seed in common.seeds(settings)
        )  # fmt: skip

    single, double = (draw(factor * settings.per_cluster, settings.sigma) for factor in (1, 2))
    return common.Setup(settings, (single, double, draw(settings.drawn, 0.0, balanced=False)))


def predict(setup: common.Setup) -> Prediction:
    """The place of the knee and the spectrum at σ = 0, from the kernel of the centres alone (Thm A.1)."""
    settings = setup.settings
    rank = theory.mixture_rank(settings.classes, settings.clusters)
    shown = min(3 * rank, settings.classes**2 * settings.clusters * settings.per_cluster)
    spectra = []
    for mixture in setup.sets[0]:
        centres = kernels.mntk(mixture.centers.numpy(), settings.activation)
        # Each centre is repeated per_cluster times and the block of every class is the same.
        eigenvalues = np.repeat(np.linalg.eigvalsh(centres)[::-1] * settings.per_cluster, settings.classes)
        spectra.append(np.sqrt(np.maximum(eigenvalues, 0)))
    return {"rank": np.asarray(rank), "shown": np.asarray(shown), "spectrum": np.array(spectra)}


def run(setup: common.Setup, prediction: Prediction) -> Iterator[Frame]:
    settings, (single, double, without) = setup.settings, setup.sets
    # What is drawn comes first; an eigendecomposition at twice the samples takes five times as long.
    spans, seeds = common.spans((1.0, 5.0, 3.0)), len(single)

    def top(name: str, mixtures: Sequence[data.Mixture]) -> Callable[[int], dict[str, Any]]:
        return lambda s: {name: _top(settings, mixtures[s], settings.seed + s)}

    yield from common.by_seed(top("single", single), seeds, 0, spans[0])
    yield from common.by_seed(top("double", double), seeds, 1, spans[1])
    yield from common.by_seed(lambda s: _without_noise(settings, without[s]), seeds, 2, spans[2], "done")


def _top(settings: MixtureSettings, mixture: data.Mixture, seed: int) -> np.ndarray:
    """The largest singular values of J at the start."""
    model = models.one_hidden(
        settings.inputs, settings.width, settings.classes, activation=settings.activation, seed=seed,
        dtype=torch.float64,
    )  # fmt: skip
    rank = theory.mixture_rank(settings.classes, settings.clusters)
    return shared.gram_values(model, mixture.x_train)[: max(3 * rank, rank + 1)].numpy()


def _without_noise(settings: MixtureSettings, mixture: data.Mixture) -> dict[str, float]:
    """Thm A.1 on the analytic kernel: rank, share of the labels in its range, least and largest non-zero
    eigenvalue, and the ends of their interval.
    """
    # Σ(X) = I_K ⊗ this, so it has each eigenvalue K times, and each output its own block of labels.
    kernel = torch.as_tensor(kernels.mntk(mixture.x_train.numpy(), settings.activation))
    found = krylov.svd(kernel, min(len(mixture.centers) + 1, mixture.n))
    rank = int((found.s > 1e-10 * found.s[0]).sum())
    labels = data.one_hot(mixture.y_train, settings.classes, torch.float64)
    share = (found.U[:, :rank].T @ labels).norm() / labels.norm()
    centres = kernels.mntk(mixture.centers.numpy(), settings.activation)
    low, high = theory.mixture_eigenvalue_interval(centres, mixture.n)
    return {
        "clean_rank": float(settings.classes * rank), "clean_share": float(share),
        "clean_least": float(found.s[rank - 1]), "clean_largest": float(found.s[0]),
        "interval_low": low, "interval_high": high,
    }  # fmt: skip


def figure(frames: Frames, prediction: Prediction, settings: MixtureSettings | None = None) -> figures.Chart:
    rank, shown = int(prediction["rank"]), int(prediction["shown"])
    index = np.arange(1, shown + 1)
    marks: list[figures.Mark] = [figures.Level(rank, label="K²C", axis="x")]
    gaps = marks.copy()
    for color, (name, label, scale) in enumerate((("single", "n", 1.0), ("double", "2n", np.sqrt(2)))):
        told = prediction["spectrum"] * scale
        marks.append(figures.Predicted(index[:rank], told, f"{label}, predicted for σ = 0", color))
        if (values := common.newest(frames, name)) is not None:
            marks.append(figures.Measured(index, values[:, :shown], f"{label}, measured", color))
    if (values := common.newest(frames, "single")) is not None:
        ratio = shared.neighbours(values)
        gaps.append(figures.Measured(np.arange(1, ratio.shape[1] + 1), ratio, label="λₛ / λₛ₊₁", color=0))
    return figures.Chart.of(
        settings, "Singular values of the Jacobian on a mixture of clusters, and where their gap lies.",
        figures.Panel(
            "Singular values of J at the start", marks, xlabel="index s", ylabel="λₛ", yscale="log",
            xlim=(0, shown),
        ),
        figures.Panel(
            "Where is the gap?", gaps, xlabel="index s", ylabel="ratio of neighbours", xlim=(0, shown),
            ylim=(0.9, None),
        ),
    )  # fmt: skip


def _exact_without_noise(run: Run) -> tuple[Evidence, Evidence, Evidence, Evidence]:
    settings, total = run.settings, run.settings.classes * run.settings.clusters
    sure = theory.mixture_interval_probability(settings.classes, settings.clusters, settings.drawn * total)
    likely = (Condition("probability that a cluster is not within a factor 2 of n/KC", 1 - sure, 0.05),)
    return (
        Evidence(run.last("clean_rank"), int(run.prediction["rank"]), likely),
        Evidence(run.last("clean_share"), 1.0, likely),
        Evidence(run.last("interval_low"), run.last("clean_least"), likely),
        Evidence(run.last("clean_largest"), run.last("interval_high"), likely),
    )


def _knee(run: Run) -> tuple[Evidence, Evidence]:
    rank = int(run.prediction["rank"])
    single, double = run.last("single"), run.last("double")
    ratios = [shared.neighbours(spectra) for spectra in (single, double)]
    gaps = np.stack([ratio[:, rank - 1] for ratio in ratios])
    return (
        Evidence(
            np.stack([ratio.argmax(axis=1) + 1 for ratio in ratios], axis=1), rank,
            note=f"ratio of neighbours there {gaps.min():.2g} to {gaps.max():.2g}",
        ),
        Evidence(double[:, :rank] / single[:, :rank], np.sqrt(2)),
    )  # fmt: skip


J2 = Claim(
    "J2", "theorem",
    "For the mixture with σ = 0 and memberships drawn at random, Σ(X) has rank K²C, the labels lie in its "
    "range, and its non-zero eigenvalues lie between (n/2KC)·s_min(Σ(M)) and (2n/KC)·‖Σ(M)‖.",
    "paper 4, Thm A.1",
    (
        Located("rank of Σ(X)"), Equals("share of the labels in its range", tolerance=1e-10),
        AtMost("(n/2KC)·s_min(Σ(M)), below the least non-zero eigenvalue"), AtMost("largest eigenvalue"),
    ),
    _exact_without_noise,
    says={"holds": "rank K²C, labels inside the information space, eigenvalues in the interval",
          "out of regime": "with so few samples a cluster the theorem promises too little",
          "fails": "rank, labels or interval are not as the theorem says"},
    worlds=(World("ten samples a cluster", {"drawn": 10}, word="out of regime"),),
)  # fmt: skip
J3 = Claim(
    "J3", "prediction",
    "For small σ > 0 the knee of the spectrum stays at K²C, and each of the K²C values above it grows as "
    "√(n/KC).",
    "paper 4, Fig. 3 and §2.3",
    (
        Located("index of the largest gap", ("n", "2n")),
        Equals("growth of the top K²C singular values when n doubles", tolerance=0.05),
    ),
    _knee,
    says={"holds": "the largest gap is at K²C in every run, and doubling n multiplies the values above by √2",
          "fails": "the largest gap is not at K²C in every run, or the growth is not √2"},
    worlds=(World("clusters that overlap, σ = 1", {"sigma": 1.0, "clusters": 5}),),
)  # fmt: skip

MIXTURE = Experiment(
    "mixture", "Where is the knee of the spectrum?", MixtureSettings,
    {"quick": MixtureSettings(), "paper": MixtureSettings(clusters=15, per_cluster=30, seeds=5)},
    prepare, predict, run, figure, (J2, J3),
    controls=("clusters", "sigma", "per_cluster", "width", "classes"),
)  # fmt: skip
