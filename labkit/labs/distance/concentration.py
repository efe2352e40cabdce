"""How far do sums of squares and of signed vectors stray? Thm A.1 (D4) and Cor. A.3.1 (D5).

The two tools behind every "with high probability" of the paper: the first gives ‖Z‖_F, the second turns m
random signs into a factor √m.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv

from labkit import data, figures
from labkit.labs import common
from labkit.protocol.claims import Claim
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import AtMost, Equals, Evidence
from labkit.protocol.settings import Settings, knob, on_cpu
from labkit.theory import gaussian as theory

DEGREES = (1, 4, 16, 64, 256)
DEVIATIONS = np.arange(1, 10) / 10
SHOWN = 64
SAMPLES = (2, 4, 8, 12, 32, 128, 512)  # vectors in a sum; up to 12 all 2^m signs are enumerated
ENUMERATED = 12
GROUPS = 16  # sets of m vectors that are averaged, where there are as many
SOURCES = ("images", "Gaussian vectors")
ERROR = 1e-3  # probability that any of a seed's binomial bands misses


@dataclass(frozen=True)
class Concentration(Settings):
    draws: int = knob(
        20_000, "draws of χ²_k for each k", slider=(1000, 50_000), bounds=(100, None), scale="log"
    )
    signs: int = knob(
        2000, "draws of the signs where 2^m are too many", slider=(200, 10_000), bounds=(10, None),
        scale="log",
    )  # fmt: skip
    dataset: str = knob("digits", "name of a data set, or path to an .npz")
    device: str = on_cpu()


@dataclass(frozen=True)
class Setup:
    settings: Concentration
    vectors: tuple[tuple[np.ndarray, ...], ...]  # seed, source: (512 or as many as there are, n)


def prepare(settings: Concentration) -> Setup:
    vectors = []
    for seed in common.seeds(settings):
        most = min(max(SAMPLES), sum(data.class_counts(settings.dataset)))
        loaded = common.load(settings.dataset, n_train=most, flatten=True, seed=seed)
        images = loaded.x_train.double().numpy()
        rng = np.random.default_rng([seed, 0])
        vectors.append((rng.permutation(images), rng.standard_normal(images.shape)))
    return Setup(settings, tuple(vectors))


def predict(setup: Setup) -> Prediction:
    """Thm A.1's bound and the exact probability at every (k, t); the interval of Cor. A.3.1's ratio."""
    k, samples = np.array(DEGREES)[:, None], np.array(SAMPLES)
    return {
        "degrees": np.array(DEGREES), "deviations": DEVIATIONS,
        "samples": samples[samples <= len(setup.vectors[0][0])],
        "tail": theory.chi_square_tail(k, DEVIATIONS), "exact": theory.chi_square_exact(k, DEVIATIONS),
        "ratio": np.array([theory.khintchine_constant(1, "lower"), theory.khintchine_constant(2)]),
    }  # fmt: skip


def run(setup: Setup, prediction: Prediction) -> Iterator[Frame]:
    settings, counts = setup.settings, prediction["samples"]
    rngs = [np.random.default_rng([seed, 1]) for seed in common.seeds(settings)]
    parts = len(DEGREES) + len(counts)
    share = np.full((len(rngs), len(DEGREES), len(DEVIATIONS)), np.nan)
    for step, k in enumerate(DEGREES):
        for seed, rng in enumerate(rngs):
            missed = np.abs(_chi_square(rng, k, settings.draws) / k - 1)
            share[seed, step] = (missed[:, None] >= DEVIATIONS).mean(0)
            yield Frame.tick(step, step / parts)
        yield Frame(step, {"share": share.copy()}, (step + 1) / parts)
    names = ("ratio", "stderr", "rms")
    found = common.blank(len(rngs), len(SOURCES), len(counts), **dict.fromkeys(names, ()))
    for place, m in enumerate(counts):
        step = len(DEGREES) + place
        for seed, rng in enumerate(rngs):
            for source, vectors in enumerate(setup.vectors[seed]):
                groups = [vectors[at : at + m] for at in range(0, min(GROUPS * m, len(vectors)), m)]
                mean, stderr, rms = np.transpose([_khintchine(x, settings.signs, rng) for x in groups])
                worst = rms[np.abs(rms - 1).argmax()]
                summary = (mean.mean(), np.sqrt((stderr**2).sum()) / len(groups), worst)
                common.put(found, (seed, source, place), dict(zip(names, summary, strict=True)))
            yield Frame.tick(step, step / parts)
        if m < counts[-1]:
            yield Frame(step, common.snapshot(found), (step + 1) / parts)
    few = f"sums of up to {counts[-1]} vectors: the data set has fewer than {SAMPLES[-1]}"
    yield Frame(step, found, 1.0, "done", few if counts[-1] < SAMPLES[-1] else "")


def _chi_square(rng: np.random.Generator, k: int, draws: int) -> np.ndarray:
    """(draws,) sums of k squared standard normals, a block at a time."""
    rows = max(1, 2**20 // k)
    blocks = [(rng.standard_normal((min(rows, draws - at), k)) ** 2).sum(1) for at in range(0, draws, rows)]
    return np.concatenate(blocks)


def _khintchine(x: np.ndarray, draws: int, rng: np.random.Generator) -> tuple[float, float, float]:
    """E‖Σ ξᵢxᵢ‖ over (Σ‖xᵢ‖²)^½, its standard error (0 when enumerated), and (E‖·‖²)^½ over the same."""
    m = len(x)
    if m <= ENUMERATED:
        signs = 1.0 - 2.0 * ((np.arange(2**m)[:, None] >> np.arange(m)) & 1)
    else:
        signs = rng.choice([-1.0, 1.0], (draws, m))
    norms = np.linalg.norm(signs @ x, axis=1) / theory.khintchine_bound(x)
    stderr = 0.0 if m <= ENUMERATED else float(norms.std(ddof=1) / np.sqrt(draws))
    return float(norms.mean()), stderr, float(np.sqrt((norms**2).mean()))


def figure(frames: Frames, prediction: Prediction, settings: Concentration | None = None) -> figures.Chart:
    t, m = prediction["deviations"], prediction["samples"]
    share = common.seen(frames, "share", len(DEGREES), len(t))
    row, tail, exact = DEGREES.index(SHOWN), prediction["tail"], prediction["exact"]
    tails: list[figures.Mark] = [
        figures.Bound(t, tail[row], label="2exp(−kt²/8)", color=0),
        figures.Predicted(t, exact[row], label=f"k = {SHOWN}", color=0),
        figures.Points(t, share[:, row], label=f"k = {SHOWN}", color=0, line=False),
    ]
    shares: list[figures.Mark] = [figures.Bound(t, np.ones(len(t)), color=0)]
    for color, k in enumerate(DEGREES):
        shares += [
            figures.Predicted(t, exact[color] / tail[color], f"k = {k}", color),
            figures.Points(t, share[:, color] / tail[color], f"k = {k}", color, line=False),
        ]
    low, high = prediction["ratio"]
    ratios: list[figures.Mark] = [
        figures.Bound(m, np.full(len(m), high), label="Cor. A.3.1", color=0),
        figures.Bound(m, np.full(len(m), low), label="1/√2", color=1, side="below"),
    ]
    ratio = common.seen(frames, "ratio", len(SOURCES), len(m))
    ratios += [figures.Points(m, ratio[:, i], label=name, color=2 + i) for i, name in enumerate(SOURCES)]
    return figures.Chart.of(
        settings, "The lemmas of App. A: what was drawn, below its bounds.",
        figures.Panel(f"P(|χ²_k/k − 1| ≥ t), k = {SHOWN}", tails, xlabel="t", ylabel="probability",
                      yscale="log", ylim=(1e-5, 3)),
        figures.Panel("Share of the bound, every k", shares, xlabel="t", ylabel="probability / bound",
                      yscale="log", ylim=(1e-4, 3)),
        figures.Panel("E‖Σ ξᵢxᵢ‖ / (Σ‖xᵢ‖²)^½", ratios, xlabel="vectors m", ylabel="ratio",
                      xscale="log2", ylim=(0.6, 1.1)),
    )  # fmt: skip


def _tail(run: Run) -> tuple[Evidence, Evidence, Evidence]:
    (share,), draws = common.whole(run, "share"), run.settings.draws
    hits = np.round(share * draws)
    half = ERROR / share[0].size / 2
    # Clopper and Pearson's limits; at no hit or nothing but hits one side is closed.
    low = np.where(hits > 0, betaincinv(np.maximum(hits, 1), draws - hits + 1, half), 0.0)
    high = np.where(hits < draws, betaincinv(hits + 1, np.maximum(draws - hits, 1), 1 - half), 1.0)
    exact, tail = run.prediction["exact"], run.prediction["tail"]
    ratio = (tail / exact)[tail < 1]
    return (
        Evidence(low / tail, 1.0, note=f"a bound below 1 is {ratio.min():.0f} times the probability or more"),
        Evidence(low / exact, 1.0),
        Evidence(exact / high, 1.0),
    )


def _khintchine_ratio(run: Run) -> tuple[Evidence, Evidence, Evidence]:
    ratio, stderr = common.whole(run, "ratio", "stderr")
    room = 4 * stderr
    low, high = run.prediction["ratio"]
    enumerated = run.prediction["samples"] <= ENUMERATED
    images, gaussian = ratio.mean(axis=(0, 2))
    return (
        Evidence(ratio - room, high, note=f"images {images:.3f}, Gaussian vectors {gaussian:.3f}"),
        Evidence(run.last("rms")[..., enumerated], 1.0),
        Evidence(np.full_like(ratio, low), ratio + room),
    )


D4 = Claim(
    "D4", "theorem",
    "P(|χ²_k/k − 1| ≥ t) ≤ 2exp(−kt²/8) for t in (0, 1), and the exact probability lies in the binomial band "
    "of what was drawn.", "paper 1, Thm A.1",
    (AtMost("lower end of the band over 2exp(−kt²/8)"), AtMost("lower end of the band over the exact P"),
     AtMost("exact P over the upper end of the band")), _tail, "holds",
    {"holds": "no (k, t) is more frequent than the bound allows, and the exact probability is in every band",
     "fails": "a deviation is more frequent than the bound, or than its exact probability, allows"},
)  # fmt: skip
D5 = Claim(
    "D5", "theorem",
    "E‖Σ ξᵢxᵢ‖ ≤ (Σ‖xᵢ‖²)^½ for random signs ξ: the constant for p = 2 is 1, and it is loose by √2 at most.",
    "paper 1, Cor. A.3.1",
    (AtMost("E‖Σ ξᵢxᵢ‖ over (Σ‖xᵢ‖²)^½, less 4 standard errors"),
     Equals("(E‖Σ ξᵢxᵢ‖²)^½ over the same, all signs", tolerance=1e-10),
     AtMost("1/√2 under the ratio, plus 4 standard errors")), _khintchine_ratio, "holds",
    {"holds": "the mean is between 1/√2 and 1 times the root of the sum of squares, for images and Gaussians",
     "fails": "the mean leaves the interval from 1/√2 to 1, or the mean square is not the sum of squares"},
)  # fmt: skip

CONCENTRATION = Experiment(
    "concentration", "How far do sums of squares and of signed vectors stray?", Concentration,
    {"quick": Concentration(), "paper": Concentration(draws=200_000, signs=20_000, dataset="mnist", seeds=5)},
    prepare, predict, run, figure, (D4, D5), controls=("draws", "signs"),
)  # fmt: skip
