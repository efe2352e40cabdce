"""More weights than samples: less confusion and faster SGD? (C1; paper 5, Fig 1)

Least squares on Gaussian inputs, one sample a step, once with fewer dimensions than samples, so that the
labels are out of reach, and once with more. The learning rate is tuned for each.

The gradient of a sample is its residual times its input, so the cosine of two gradients is that of the two
inputs, up to sign, at every w: SGD can turn signs and nothing else. What d changes is the inputs (dashed).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from labkit import figures
from labkit.labs import common
from labkit.labs.confusion import shared
from labkit.labs.confusion.chains import Chains
from labkit.measure.confusion import confusion
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import EVERY, Between, Check, Condition, Equals, Evidence
from labkit.protocol.settings import Settings, knob, on_cpu
from labkit.training.search import LearningRateSearch

GRID, EXTEND = (0.1, 0.2, 0.4, 0.8), 4  # learning rates tried first, and how many more at most
LADDER = 0.1 * 2.0 ** np.arange(-EXTEND, len(GRID) + EXTEND)  # all that may be tried
LAST = 0.1  # share of a training over which its final loss is averaged
LOOKS = 60  # moments at which the tuned runs are measured
COLORS = (shared.DEPTH, shared.WIDTH)  # few dimensions, many
TICK = 500  # steps between moments at which a run can be stopped


@dataclass(frozen=True)
class Regression(Settings):
    over: int = knob(120, "the larger dimension d", slider=(100, 300), bounds=(2, 2000), step=20,
                     label="larger d")  # fmt: skip
    under: int = knob(80, "the smaller dimension d", slider=(20, 95), bounds=(2, 2000), step=5,
                      label="smaller d")  # fmt: skip
    noise: float = knob(1.0, "share of the labels' variance that is no linear function of the inputs",
                        slider=(0, 1), bounds=(0, 1), step=0.25, label="label noise")  # fmt: skip
    epochs: int = knob(200, "steps, in multiples of n", slider=(20, 400), bounds=(1, None), step=20)
    n: int = knob(100, "samples n", slider=(60, 200), bounds=(3, 1000), step=20)
    draws: int = knob(4, "data sets a seed, over which it averages", slider=(1, 10), bounds=(1, 100))
    seeds: int = knob(5, "independent repetitions", slider=(1, 10), bounds=(1, 1000))
    device: str = on_cpu()

    @property
    def dimensions(self) -> tuple[int, int]:
        return self.under, self.over

    @property
    def steps(self) -> int:
        return self.epochs * self.n


@dataclass(frozen=True)
class Setup:
    """For each of the two dimensions, xs: (S·draws, n, d) inputs; start: (S·draws, n) residuals at w = 0."""

    settings: Regression
    xs: tuple[np.ndarray, np.ndarray]
    start: tuple[np.ndarray, np.ndarray]

    def gram(self, which: int) -> np.ndarray:
        return self.xs[which] @ self.xs[which].swapaxes(-1, -2)

    def by_seed(self, values: Any) -> np.ndarray:
        """(S·draws, ...) -> (S, ...), the mean over each seed's data sets."""
        found = np.asarray(values, dtype=float)
        return found.reshape(self.settings.seeds, self.settings.draws, *found.shape[1:]).mean(axis=1)


def prepare(settings: Regression) -> Setup:
    xs: list[list[np.ndarray]] = [[], []]
    start: list[list[np.ndarray]] = [[], []]
    for which, d in enumerate(settings.dimensions):
        for seed in common.seeds(settings):
            for draw in range(settings.draws):
                rng = np.random.default_rng([seed, draw, which])
                x = rng.standard_normal((settings.n, d)) / np.sqrt(d)
                linear, other = x @ rng.standard_normal(d), rng.standard_normal(settings.n)
                xs[which].append(x)
                start[which].append(-np.sqrt(1 - settings.noise) * linear - np.sqrt(settings.noise) * other)
    return Setup(settings, (np.stack(xs[0]), np.stack(xs[1])), (np.stack(start[0]), np.stack(start[1])))


def predict(setup: Setup) -> Prediction:
    """Loss against rate and step without sampling, the least loss, and the cosines of the data alone."""
    settings = setup.settings
    at = np.array(common.measured_steps(settings.steps, LOOKS))
    times = np.append(at, np.linspace((1 - LAST) * settings.steps, settings.steps, 10).round())
    found = []
    for which in range(2):
        sets = zip(setup.gram(which), setup.start[which], strict=True)
        every, best = zip(*(mean_loss(*one, LADDER, times) for one in sets), strict=True)
        losses = setup.by_seed(every)
        ends = losses[..., len(at) :].mean(axis=-1)
        sizes = np.sort(np.abs(_data_cosines(setup.xs[which])), axis=-1)[:, ::-1]
        found.append({
            "final": ends, "loss": losses[:, int(ends.mean(axis=0).argmin()), : len(at)],
            "best": setup.by_seed(best), "extreme": setup.by_seed(-sizes[:, 0]),
            "typical": setup.by_seed(expected_minimum(sizes)),
        })  # fmt: skip
    axes = {"steps": at, "rates": LADDER, "dimensions": np.array(settings.dimensions)}
    return {**axes, **common.stacked(found, axis=1)}


def mean_loss(
    gram: np.ndarray, residuals: np.ndarray, rates: Sequence[float] | np.ndarray, times: np.ndarray
) -> tuple[np.ndarray, float]:
    """E F_t of SGD with batches of one, nearly: the modes of X X^T see each other through the loss alone.

    A step adds rate^2 r_k^2 G_k G_k^T to E r r^T, G = X X^T. Eigenvectors of Gaussian data are spread evenly
    over the samples k, which leaves mode i with lam_i^2 times the mean of r_k^2. So p_i = E (u_i.r)^2 follow

        p_i <- (1 - 2 rate lam_i/n) p_i + (rate lam_i/n)^2 (sum p + out of reach)

    as in Paquette et al. (2021); `theory.confusion_rates.exact_moments` does without "evenly", at n^3 a step.
    Divided by v_i = rate lam_i/n it is a symmetric matrix that acts on p/v, so any t costs the same.

    Returns:
        (rates, T), inf at a rate that is not stable; and the least loss of any w.
    """
    n, (lam, U) = len(gram), np.linalg.eigh(gram)
    squared, reached = (U.T @ residuals) ** 2, lam > 1e-9 * lam[-1]
    out_of_reach = float(squared[~reached].sum())
    losses = np.full((len(rates), len(times)), np.inf)
    for found, rate in zip(losses, rates, strict=True):
        v = rate * lam[reached] / n
        matrix = np.diag(1 - 2 * v) + np.outer(v, v)
        powers, Q = np.linalg.eigh(matrix)
        if powers[0] > -1 and powers[-1] < 1:
            rest = np.linalg.solve(np.eye(len(v)) - matrix, v * out_of_reach)
            weights = (v @ Q) * (Q.T @ (squared[reached] / v - rest))
            found[:] = (powers ** times[:, None] @ weights + v @ rest + out_of_reach) / (2 * n)
    return losses, out_of_reach / (2 * n)


def expected_minimum(sizes: np.ndarray) -> np.ndarray:
    """The mean of the least cosine if signs were coin tosses: -sum over k of sizes_k/2^k, sizes falling.

    The largest one comes out negative with chance 1/2, else the second, and so on: (..., P) -> (...).
    """
    first = sizes[..., :60]
    return -(first * 0.5 ** np.arange(1, first.shape[-1] + 1)).sum(axis=-1)


def _data_cosines(x: np.ndarray) -> np.ndarray:
    """Cosines of inputs over pairs i < j: (S, n, d) -> (S, P)."""
    unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return (unit @ unit.swapaxes(-1, -2))[:, *np.triu_indices(x.shape[1], 1)]


def run(setup: Setup, prediction: Prediction, *, measure: shared.Measure | None = None) -> Iterator[Frame]:
    """`measure` is `confusion` when left out."""
    settings = setup.settings
    final = np.full((settings.seeds, 2, len(LADDER)), np.nan)
    searches = [LearningRateSearch(GRID, extend=EXTEND) for _ in range(2)]
    for which, search in enumerate(searches):
        while (rate := search.next()) is not None:
            chains, found = _chains(setup, which, rate, order=1), []
            place = np.s_[:, which, np.argmin(np.abs(LADDER - rate))]
            tried = which + min(len(search.losses) / (len(GRID) + 2), 0.99)
            for chunk in _chunks(settings.steps):
                chains.advance(chunk)
                found.append(_losses(chains))
                yield Frame.tick(0, 0.35 * tried, partial(_with, final, place, setup.by_seed(found[-1])))
            ends = np.mean(found[-max(1, round(LAST * len(found))) :], axis=0)
            search.tell(rate, np.where(ends < (setup.start[which] ** 2).mean(axis=-1) / 2, ends, np.inf))
            with np.errstate(over="ignore"):
                final[place] = setup.by_seed(search.losses[rate])
            yield Frame(0, {"final": final.copy()}, 0.35 * tried)
        if not np.isfinite(min(search.means.values())):
            note = f"no rate from {min(search.losses):.3g} to {max(search.losses):.3g} was stable in d = "
            yield Frame(0, {}, 0.35 * (which + 1), "diverged", f"{note}{settings.dimensions[which]}")
            return
    yield from _tuned(setup, prediction, searches, measure or confusion)


def _with(final: np.ndarray, place: Any, losses: np.ndarray) -> dict[str, np.ndarray]:
    """The rates so far, and the losses of one that is tried."""
    seen = final.copy()
    seen[place] = losses
    return {"final": seen}


def _chains(setup: Setup, which: int, rate: float, order: int) -> Chains:
    """One run of SGD a data set; `order` keeps the search's order of samples from the tuned run's."""
    settings = setup.settings
    seeds = [[seed, draw, which, order] for seed in common.seeds(settings) for draw in range(settings.draws)]
    return Chains(setup.gram(which), setup.start[which][:, None], np.array([rate]), seeds)


def _losses(chains: Chains) -> np.ndarray:
    """F of each data set, (S·draws,); inf once it is beyond all bounds."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = (chains.r**2).mean(axis=(1, 2)) / 2
    return np.where(np.isfinite(found) & (found < 1e100), found, np.inf)


def _chunks(steps: int) -> list[int]:
    """Steps in at least ten parts, none longer than a tick."""
    edges = np.linspace(0, steps, max(10, -(-steps // TICK)) + 1).round().astype(int)
    return [int(chunk) for chunk in np.diff(edges) if chunk]


def _tuned(
    setup: Setup, prediction: Prediction, searches: Sequence[LearningRateSearch], measure: shared.Measure
) -> Iterator[Frame]:
    """Both runs at their best rates, with their gradients looked at: (S, 2) each."""
    settings = setup.settings
    chains = [_chains(setup, which, search.best, order=2) for which, search in enumerate(searches)]
    own = [_data_cosines(x) for x in setup.xs]
    fixed = {
        "rate": np.tile([search.best for search in searches], (settings.seeds, 1)),
        "at_end": np.tile([float(search.at_end) for search in searches], (settings.seeds, 1)),
    }
    done, steps = 0, prediction["steps"]
    for at in steps:
        for chunk in np.diff([*range(done, at, TICK), at]):
            for one in chains:
                one.advance(int(chunk))
            done += int(chunk)
            yield Frame.tick(done, 0.7 + 0.29 * done / settings.steps)
        looks = [_look(setup, *one, measure) for one in zip(setup.xs, chains, own, strict=True)]
        last = at == steps[-1]
        yield Frame(done, fixed | common.stacked(looks, axis=1),
                    1.0 if last else 0.7 + 0.29 * done / settings.steps,
                    "done" if last else "running")  # fmt: skip


def _look(
    setup: Setup, x: np.ndarray, chains: Chains, own: np.ndarray, measure: shared.Measure
) -> dict[str, np.ndarray]:
    """Loss; least cosine of the gradients r_i x_i; how far the sizes of all are from the data's: (S,)."""
    least, apart = [], []
    for inputs, residuals, cosines in zip(x, chains.r[:, 0], own, strict=True):
        gradients = residuals[:, None] * inputs
        found = measure(torch.from_numpy(gradients @ gradients.T))
        least.append(found.minimum_cosine)
        apart.append(np.abs(np.abs(found.cosines.numpy()) - np.abs(cosines)).max())
    every = {"loss": _losses(chains), "cosine": least, "mismatch": apart}
    return {name: setup.by_seed(values) for name, values in every.items()}


def figure(frames: Frames, prediction: Prediction, settings: Regression | None = None) -> figures.Chart:
    loss: list[figures.Mark] = []
    search: list[figures.Mark] = []
    cosine: list[figures.Mark] = []
    at, rates = prediction["steps"], prediction["rates"]
    steps, losses = common.curve(frames, "loss")
    _, cosines = common.curve(frames, "cosine")
    tried = common.seen(frames, "final", 2, len(rates))
    for which, color in enumerate(COLORS):
        name = f"d = {prediction['dimensions'][which]}"
        loss.append(figures.Predicted(1 + at, prediction["loss"][:, which], label="theory", color=color))
        search.append(figures.Predicted(rates, prediction["final"][:, which], label="theory", color=color))
        search.append(figures.Points(rates, tried[:, which], label=name, color=color, line=False))
        extreme, typical = (prediction[name][:, which] for name in ("extreme", "typical"))
        least, drawn = ("", "") if which else ("least possible", "random signs")
        ends = np.array([1, 1 + at[-1]]), np.repeat(typical[:, None], 2, axis=1)
        cosine.append(figures.Level(extreme.mean(), label=least, color=color))
        cosine.append(figures.Predicted(*ends, label=drawn, color=color))
        if len(steps):
            loss.append(figures.Measured(1 + steps, losses[which], label=name, color=color))
            cosine.append(figures.Measured(1 + steps, cosines[which], label=name, color=color))
    return figures.Chart.of(
        settings, "Linear regression with fewer and with more dimensions than samples.",
        figures.Panel("At the tuned learning rate", loss, xlabel="step + 1", ylabel="training loss",
                      xscale="log", yscale="log"),
        figures.Panel("The search for it", search, xlabel="learning rate", ylabel="final training loss",
                      xscale="log", yscale="log"),
        figures.Panel("Least cosine of two gradients", cosine, xlabel="step + 1", ylabel="minimum cosine",
                      xscale="log"),
    )  # fmt: skip


def _faster(run: Run) -> tuple[Evidence, Evidence, Evidence]:
    settings, best = run.settings, run.prediction["best"][:, 0].mean()
    start = float(run.prediction["loss"][:, 0, 0].mean())
    regime = (
        Condition("labels out of reach at the smaller d: a hundredth of the loss at w = 0 against the least "
                  "loss", start / 100, best),
        Condition("labels within reach at the larger d: samples against d", settings.n, settings.over),
    )  # fmt: skip
    tuned = Check("dimensions whose best rate lies at an end of those tried", run.last("at_end")[0].sum(), 0,
                  "take fewer epochs, or more")  # fmt: skip
    final, rate = run.last("loss"), run.last("rate")[0]
    cosines = run.series("cosine")[1].mean(axis=0)
    pairs = ", ".join(
        f"d = {d}: F {f:.2g} at rate {lr:g}, minimum cosine {c:.2f}"
        for d, f, lr, c in zip(
            settings.dimensions, final.mean(axis=0), rate, cosines.mean(axis=0), strict=True
        )
    )
    note = f"{pairs}; at d = {settings.under} no w has F below {best:.2g}"
    gap = np.log10(np.maximum(final - run.prediction["best"], 1e-300))
    return (
        Evidence(gap[:, 0] - gap[:, 1], None, regime, (tuned,), note=note),
        Evidence(cosines[:, 1] - cosines[:, 0], None, regime, (tuned,)),
        Evidence(run.series("mismatch")[1].max(axis=0), 0.0, regime),
    )


C1 = Claim(
    "C1", "finding",
    "Least squares with more dimensions than samples is solved faster by SGD, each at its own best learning "
    "rate, and with less confusion, than with so few that the labels are out of reach: F − F* ends at least "
    "twice as low, and the least cosine is at least .02 higher. The cosines are those of the data up to "
    "sign, whatever w.",
    "paper 5, Fig 1, §2",
    (
        Between("log₁₀ (F − F*) at the end, smaller d minus larger d", low=0.3, by=EVERY),
        Between("least cosine of two gradients, mean over the run, larger d minus smaller d", low=0.02),
        Equals("largest difference of |cosine| from that of the inputs", tolerance=1e-9, absolute=True),
    ),
    _faster, "holds",
    {"holds": "more dimensions: a smaller gap and less confusion, by inputs that are nearer to orthogonal",
     "fails": "the larger dimension is not faster or not less confused, or cosines are not the data's",
     "undecided": "the difference of the cosines is not told apart by these seeds, or a rate lies at an end",
     "out of regime": "labels must be in reach at the larger d and out of reach at the smaller: where both "
                      "reach them, less confusion need not be faster"},
    worlds=(
        World("labels that both dimensions reach", {"noise": 0.0}, word="out of regime"),
        World("every gradient replaced by their mean", faults={f"{__name__}:confusion": shared.all_alike}),
        World("the mean pair for the worst", faults={f"{__name__}:confusion": shared.mean_for_worst}),
    ),
)  # fmt: skip

REGRESSION = Experiment(
    "regression", "Do more weights than samples help SGD?", Regression,
    {"quick": Regression(), "paper": Regression(seeds=10, draws=10, epochs=400)},
    prepare, predict, run, figure, (C1,), controls=("over", "under", "noise", "epochs", "n", "draws"),
)  # fmt: skip
