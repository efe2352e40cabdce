"""What does noise between two matrices leave? (E11; paper 2, Lemma 3)

‖AνB‖_F has root mean square σ‖A‖_F‖B‖_F exactly. Its mean is below that, and at least √(2/π) of it: least
where A and B have rank one, nearly all of it where many directions take part. Every bound of section 4 is
built on this step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from labkit import figures
from labkit.labs import common
from labkit.protocol.claims import Claim
from labkit.protocol.experiment import Experiment, Frame, Prediction, Run
from labkit.protocol.rules import AtMost, Equals, Evidence
from labkit.protocol.settings import Settings, knob
from labkit.theory import generalization as theory

KINDS = ("equal", "unequal")
WORDS = ("equal singular values", "singular values 1, 1/2, 1/3, ...")
ERRORS = 5.0  # standard errors that a mean of draws may lie past its bound
CHUNK = 500


@dataclass(frozen=True)
class Lemma3(Settings):
    size: int = knob(24, "rows and columns of A, ν and B", slider=(4, 48), bounds=(2, 200), step=4)
    sigma: float = knob(
        0.1, "standard deviation σ of the noise", slider=(1e-3, 10), bounds=(1e-9, 1e9), scale="log"
    )
    draws: int = knob(
        4000, "draws of the noise", slider=(500, 10_000), bounds=(100, None), scale="log", label="draws"
    )

    @property
    def ranks(self) -> np.ndarray:
        """Powers of two up to the size, and the size."""
        return np.unique([*(2 ** np.arange(int(np.log2(self.size)) + 1)), self.size])


@dataclass(frozen=True)
class Setup:
    settings: Lemma3
    pairs: tuple[tuple[tuple[np.ndarray, np.ndarray], ...], ...]  # [seed][rank, kind]: A and B


def prepare(settings: Lemma3) -> Setup:
    pairs = []
    for seed in common.seeds(settings):
        rng = np.random.default_rng((seed, 0))
        pairs.append(
            tuple(
                (_matrix(rng, settings.size, rank, kind), _matrix(rng, settings.size, rank, kind))
                for rank in settings.ranks
                for kind in KINDS
            )
        )
    return Setup(settings, tuple(pairs))


def _matrix(rng: np.random.Generator, size: int, rank: int, kind: str) -> np.ndarray:
    """A matrix of a rank, with singular vectors at random."""
    left, right = (np.linalg.qr(rng.standard_normal((size, rank)))[0] for _ in range(2))
    values = np.ones(rank) if kind == "equal" else 1 / np.arange(1, rank + 1)
    return (left * values) @ right.T


def predict(setup: Setup) -> Prediction:
    """The mean over its bound: at rank r with equal singular values that of a χ of r² degrees, over r."""
    ranks = setup.settings.ranks
    k = ranks.astype(float) ** 2
    chi = np.sqrt(2 / k) * np.exp(gammaln((k + 1) / 2) - gammaln(k / 2))
    return {"ranks": ranks, "equal": chi, "least": np.asarray(np.sqrt(2 / np.pi))}


def run(setup: Setup, prediction: Prediction) -> Iterator[Frame]:
    settings = setup.settings
    ranks = settings.ranks
    shape = (len(setup.pairs), len(ranks), len(KINDS))
    values = {name: np.full(shape, np.nan) for name in ("mean", "stderr", "rms")}
    generators = [np.random.default_rng((seed, 1)) for seed in common.seeds(settings)]
    for r in range(len(ranks)):
        for s, rng in enumerate(generators):
            for k in range(len(KINDS)):
                a, b = setup.pairs[s][r * len(KINDS) + k]
                sizes = _sizes(a, b, settings, rng) / theory.lemma3(a, b, settings.sigma)
                values["mean"][s, r, k] = sizes.mean()
                values["stderr"][s, r, k] = sizes.std(ddof=1) / np.sqrt(len(sizes))
                values["rms"][s, r, k] = np.sqrt((sizes**2).mean())
            yield Frame.tick(r)
        done = r == len(ranks) - 1
        yield Frame(
            r, {name: value.copy() for name, value in values.items()}, (r + 1) / len(ranks),
            "done" if done else "running",
        )  # fmt: skip


def _sizes(a: np.ndarray, b: np.ndarray, settings: Lemma3, rng: np.random.Generator) -> np.ndarray:
    """‖AνB‖_F of every draw, (draws,)."""
    found = []
    for start in range(0, settings.draws, CHUNK):
        count = min(CHUNK, settings.draws - start)
        noise = settings.sigma * rng.standard_normal((count, settings.size, settings.size))
        found.append(np.linalg.norm(a @ noise @ b, axis=(1, 2)))
    return np.concatenate(found)


def figure(
    frames: Sequence[Frame],
    prediction: Prediction,
    previous: Sequence[Run] = (),
    settings: Lemma3 | None = None,
) -> figures.Chart:
    ranks, mean = prediction["ranks"], common.newest(frames, "mean")
    marks: list[figures.Mark] = [
        figures.Earlier(old.prediction["ranks"], before[..., 1], label="earlier run")
        for old in previous
        if (before := common.newest(old.frames, "mean")) is not None
    ]
    marks += [
        figures.Bound(ranks, np.ones(len(ranks)), label="Lemma 3", color=2),
        figures.Bound(ranks, np.full(len(ranks), prediction["least"]), label="√(2/π)", color=3, side="below"),
        figures.Predicted(ranks, prediction["equal"], label=WORDS[0], color=0),
    ]
    if mean is not None:
        marks += [
            figures.Points(ranks, mean[..., k], label=WORDS[k], color=k, line=k > 0)
            for k in range(len(KINDS))
        ]
    squares: list[figures.Mark] = [figures.Level(1.0, label="Lemma 3")]
    rms = common.newest(frames, "rms")
    if rms is not None:
        squares += [
            figures.Points(ranks, rms[..., k], label=WORDS[k], color=k, line=False) for k in range(len(KINDS))
        ]
    panels = tuple(
        figures.Panel(
            title, tuple(shown), xlabel="rank of A and of B", ylabel=ylabel, xscale="log2", ylim=ylim
        )
        for title, shown, ylabel, ylim in (
            ("The mean stays below", marks, "E‖AνB‖ / (σ‖A‖‖B‖)", (0.7, 1.1)),
            ("The mean square is exact", squares, "root mean square / (σ‖A‖‖B‖)", (0.9, 1.1)),
        )
    )
    return figures.Chart(
        panels,
        caption=figures.caption(
            "Mean and root mean square of a product with a Gaussian matrix, over what Lemma 3 says.", settings
        ),
    )


def _lemma(run: Run) -> tuple[Evidence, Evidence, Evidence]:
    mean, doubt = run.last("mean"), ERRORS * run.last("stderr")
    return (
        Evidence(
            mean - doubt, 1.0, note=f"the mean over its bound goes from {mean.min():.3f} to {mean.max():.3f}"
        ),
        Evidence(np.broadcast_to(run.prediction["least"], mean.shape), mean + doubt),
        Evidence(run.last("rms"), 1.0),
    )


E11 = Claim(
    "E11", "theorem",
    "For ν with independent N(0, σ²) entries, σ the standard deviation, E‖AνB‖_F is at most σ‖A‖_F‖B‖_F "
    "and at least √(2/π) of it; the root mean square is equal to it.",
    "paper 2, Lemma 3",
    (
        AtMost(f"mean of ‖AνB‖_F less {ERRORS:g} standard errors, over σ‖A‖_F‖B‖_F"),
        AtMost(f"√(2/π) against that mean plus {ERRORS:g} standard errors"),
        Equals("root mean square of ‖AνB‖_F, over σ‖A‖_F‖B‖_F", tolerance=0.06),
    ),
    _lemma, "holds",
    {"holds": "the mean lies between its bounds at every rank, and the root mean square is the bound itself",
     "fails": "a mean is outside its bounds, or the root mean square is not the bound"},
)  # fmt: skip

LEMMA3 = Experiment(
    "noise-between", "What does noise between two matrices leave?", Lemma3,
    {"quick": Lemma3(), "paper": Lemma3(size=128, draws=10_000, seeds=5)},
    prepare, predict, run, figure, (E11,), controls=("size", "draws"),
)  # fmt: skip
