"""Where is the knee?
A mixture of K classes of C clusters gives a Jacobian of rank about K²C (Thm A.1, Fig. 3).

With σ = 0 there are KC different inputs and K outputs: rank K²C exactly, labels inside I. With σ > 0 the knee
stays and the top singular values grow as √(n/KC): double n at fixed centres and they grow by √2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from labkit import data, figures, models
from labkit.labs import common
from labkit.labs.jacobian import shared
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Prediction, Run
from labkit.protocol.rules import AtMost, Equals, Evidence, Located
from labkit.protocol.settings import Settings, knob
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
    width: int = knob(1000, "hidden units k", slider=(16, 4096), bounds=(1, None), scale="log2")
    inputs: int = knob(20, "input dimension d", slider=(5, 60), bounds=(2, None), step=5)
    activation: str = knob("relu", "activation φ", choices=("relu", "softplus"))


@dataclass(frozen=True)
class Setup:
    settings: MixtureSettings
    single: tuple[data.Mixture, ...]
    double: tuple[data.Mixture, ...]
    clean: tuple[data.Mixture, ...]


def prepare(settings: MixtureSettings) -> Setup:
    def draw(per_cluster: int, sigma: float, seed: int) -> data.Mixture:
        n = settings.classes * settings.clusters * per_cluster
        return data.gaussian_mixture(
            settings.classes,
            settings.clusters,
            n,
            settings.inputs,
            sigma,
            min_distance=0.5,
            n_test=0,
            seed=seed,
            dtype=torch.float64,
        )

    seeds = common.seeds(settings)
    return Setup(
        settings,
        tuple(draw(settings.per_cluster, settings.sigma, seed) for seed in seeds),
        tuple(draw(2 * settings.per_cluster, settings.sigma, seed) for seed in seeds),
        tuple(draw(settings.per_cluster, 0.0, seed) for seed in seeds),
    )


def predict(setup: Setup) -> Prediction:
    """The place of the knee and the spectrum at σ = 0, from the kernel of the centres alone (Thm A.1)."""
    settings = setup.settings
    rank = theory.mixture_rank(settings.classes, settings.clusters)
    shown = min(3 * rank, settings.classes**2 * settings.clusters * settings.per_cluster)
    spectra = []
    for mixture in setup.single:
        centres = kernels.mntk(mixture.centers.numpy(), settings.activation)
        # Each centre is repeated per_cluster times and the block of every class is the same.
        eigenvalues = np.repeat(np.linalg.eigvalsh(centres)[::-1] * settings.per_cluster, settings.classes)
        spectra.append(np.sqrt(np.maximum(eigenvalues, 0)))
    return {"rank": np.asarray(rank), "shown": np.asarray(shown), "spectrum": np.array(spectra)}


def run(setup: Setup, prediction: Prediction) -> Iterator[Frame]:
    settings = setup.settings
    rank = int(theory.mixture_rank(settings.classes, settings.clusters))
    yield Frame(0, _without_noise(setup), 0.2)
    for step, mixtures in ((1, setup.single), (2, setup.double)):
        spectra = []
        for seed, mixture in enumerate(mixtures):
            model = models.one_hidden(
                settings.inputs, settings.width, settings.classes, activation=settings.activation,
                seed=settings.seed + seed, dtype=torch.float64,
            )  # fmt: skip
            values = shared.gram_values(model, mixture.x_train)
            spectra.append(values[: max(3 * rank, rank + 1)].numpy())
            yield Frame.tick(step, 0.2 + 0.4 * (step - 1 + (seed + 1) / len(mixtures)))
        name = "single" if step == 1 else "double"
        yield Frame(step, {name: np.array(spectra)}, 0.2 + 0.4 * step, "running" if step == 1 else "done")


def _without_noise(setup: Setup) -> dict[str, np.ndarray]:
    """Thm A.1 on the analytic kernel:
    rank, share of the labels in its range, least and largest non-zero eigenvalue.
    """
    settings, found = setup.settings, []
    for mixture in setup.clean:
        kernel = kernels.mntk_full(mixture.x_train.numpy(), settings.classes, settings.activation)
        eigenvalues, vectors = np.linalg.eigh(kernel)
        inside = eigenvalues > 1e-10 * eigenvalues[-1]
        labels = data.one_hot(mixture.y_train, settings.classes, torch.float64).numpy().reshape(-1)
        share = np.linalg.norm(vectors[:, inside].T @ labels) / np.linalg.norm(labels)
        low, high = theory.mixture_eigenvalue_interval(
            kernels.mntk(mixture.centers.numpy(), settings.activation), mixture.n
        )
        found.append((inside.sum(), share, eigenvalues[inside][0], eigenvalues[-1], low, high))
    names = ("clean_rank", "clean_share", "clean_least", "clean_largest", "interval_low", "interval_high")
    return {
        name: np.array(column, dtype=float)
        for name, column in zip(names, zip(*found, strict=True), strict=True)
    }


def figure(
    frames: Sequence[Frame],
    prediction: Prediction,
    previous: Sequence[Run] = (),
    settings: MixtureSettings | None = None,
) -> figures.Chart:
    rank, shown = int(prediction["rank"]), int(prediction["shown"])
    found = {name: common.newest(frames, name) for name in ("single", "double")}
    index = np.arange(1, shown + 1)
    spectrum = [
        figures.Earlier(*_shown(old.last("single"), shown), label="earlier run")
        for old in previous
        if common.newest(old.frames, "single") is not None
    ]
    marks: list[figures.Mark] = [*spectrum, figures.Level(rank, label="K²C", axis="x")]
    for color, (name, scale) in enumerate((("single", 1.0), ("double", np.sqrt(2)))):
        label = "n" if name == "single" else "2n"
        marks.append(
            figures.Predicted(
                index[:rank],
                prediction["spectrum"] * scale,
                label=f"{label}, predicted for σ = 0",
                color=color,
            )
        )
        values = found[name]
        if values is not None:
            marks.append(figures.Measured(*_shown(values, shown), label=f"{label}, measured", color=color))
    gaps: list[figures.Mark] = [figures.Level(rank, label="K²C", axis="x")]
    if found["single"] is not None:
        ratio = found["single"][:, :-1] / np.maximum(found["single"][:, 1:], 1e-300)
        gaps.append(figures.Measured(np.arange(1, ratio.shape[1] + 1), ratio, label="λₛ / λₛ₊₁", color=0))
    return figures.Chart(
        (
            figures.Panel(
                "Singular values of J at the start",
                tuple(marks),
                xlabel="index s",
                ylabel="λₛ",
                yscale="log",
                xlim=(0, shown),
            ),
            figures.Panel(
                "Where is the gap?",
                tuple(gaps),
                xlabel="index s",
                ylabel="ratio of neighbours",
                xlim=(0, shown),
                ylim=(0.9, None),
            ),
        ),
        caption=figures.caption(
            "Singular values of the Jacobian on a mixture of clusters, and where their gap lies.", settings
        ),
    )


def _shown(spectra: np.ndarray, shown: int) -> tuple[np.ndarray, np.ndarray]:
    kept = spectra[:, :shown]
    return np.arange(1, kept.shape[1] + 1), kept


def _exact_without_noise(run: Run) -> tuple[Evidence, Evidence, Evidence, Evidence]:
    return (
        Evidence(run.last("clean_rank"), int(run.prediction["rank"])),
        Evidence(run.last("clean_share"), 1.0),
        Evidence(run.last("interval_low"), run.last("clean_least")),
        Evidence(run.last("clean_largest"), run.last("interval_high")),
    )


def _knee(run: Run) -> tuple[Evidence, Evidence]:
    rank = int(run.prediction["rank"])
    single, double = run.last("single"), run.last("double")
    ratios = [spectra[:, :-1] / np.maximum(spectra[:, 1:], 1e-300) for spectra in (single, double)]
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
    "For the balanced mixture with σ = 0, Σ(X) has rank K²C, the labels lie in its range, "
    "and its non-zero eigenvalues lie between (n/2KC)·s_min(Σ(M)) and (2n/KC)·‖Σ(M)‖.",
    "paper 4, Thm A.1",
    (
        Located("rank of Σ(X)"), Equals("share of the labels in its range", tolerance=1e-10),
        AtMost("(n/2KC)·s_min(Σ(M)), below the least non-zero eigenvalue"), AtMost("largest eigenvalue"),
    ),
    _exact_without_noise,
    says={"holds": "rank K²C, labels inside the information space, eigenvalues in the interval",
          "fails": "rank, labels or interval are not as the theorem says"},
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
