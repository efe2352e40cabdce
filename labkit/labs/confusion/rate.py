"""Does confusion set the pace of SGD? Thms 3.1 and 3.2 beside the run that they bound (C3, C4).

Least squares on unit vectors, so that L = mu = 1 are exact, with labels that no weights fit. SGD draws one
sample a step. What it does in expectation is known without any bound (dashed); the theorem is run along the
measured path, with the worst pair, the mean over pairs i != j that its proof needs, and no confusion at all.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from labkit import figures
from labkit.labs import common
from labkit.labs.confusion import shared
from labkit.labs.confusion.chains import Chains, mean_pair, worst_pair
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import EVERY, AtMost, Between, Check, Condition, Equals, Evidence
from labkit.protocol.settings import Settings, knob, on_cpu
from labkit.protocol.statistics import exponent
from labkit.theory import confusion_rates as theory

Recursion = Callable[[Any, Any, float, float, int, float], np.ndarray]

WATCHED = 8  # runs a seed whose pairs are looked at in every step
SIZES = np.array([1 / 8, 1 / 4, 1 / 2, 1.0])  # of 1/(n L): the steps at which SGD's own floor is measured
ORTHOGONAL = 3.0  # n^2 steps on orthogonal data
TIMES = 6  # moments at which they are compared
WORST, MEAN, NONE, EXACT = shared.ETA, shared.WIDTH, shared.DEPTH, shared.LOSS
TICK = 400  # steps between moments at which a run can be stopped


@dataclass(frozen=True)
class Rate(Settings):
    step: float = knob(
        1.0, "step size, as a multiple of 1/(nL)", slider=(0.25, 1.75), bounds=(0.01, None), step=0.25,
        label="step size × nL",
    )  # fmt: skip
    n: int = knob(40, "samples n", slider=(10, 60), bounds=(3, 400), step=5)
    d: int = knob(30, "dimension d; below n no w fits", slider=(5, 80), bounds=(2, None), step=5)
    runs: int = knob(100, "runs a seed, which estimate E F", slider=(20, 400), bounds=(8, None), scale="log2")
    duration: float = knob(10.0, "steps, in multiples of n²", slider=(1, 20), bounds=(0.1, 100), step=1)
    device: str = on_cpu()

    @property
    def alpha(self) -> float:
        return self.step / self.n  # L = 1

    @property
    def steps(self) -> int:
        return max(1, round(self.duration * self.n**2))


@dataclass(frozen=True)
class Setup:
    """gram: (S, n, n), X X^T. start: (S, n), residuals at w = 0. rest: (S, n), those at the best w."""

    settings: Rate
    gram: np.ndarray
    start: np.ndarray
    rest: np.ndarray


def prepare(settings: Rate) -> Setup:
    gram, start, rest = [], [], []
    for seed in common.seeds(settings):
        rng = np.random.default_rng([seed, 0])
        x = rng.standard_normal((settings.n, settings.d))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        y = rng.standard_normal(settings.n)
        gram.append(x @ x.T)
        start.append(-y)
        rest.append(x @ np.linalg.lstsq(x, y, rcond=None)[0] - y)
    return Setup(settings, np.stack(gram), np.stack(start), np.stack(rest))


def predict(setup: Setup) -> Prediction:
    """E F of SGD exactly, Thm 3.1 with the exact mean confusion and with none, floors over the step."""
    settings, n = setup.settings, setup.settings.n
    best = (setup.rest**2).mean(axis=-1) / 2
    moments = theory.exact_moments(setup.gram, setup.start, settings.alpha, settings.steps)
    gap = moments.loss - best[:, None]
    at = np.array(common.measured_steps(settings.steps))
    mean, none = (np.full((settings.seeds, len(at)), np.nan) for _ in range(2))
    if _in_range(settings):
        etas = theory.average_confusion(moments.mean_inner[:, :-1], n)
        both, start = np.stack([etas, 0 * etas]), np.stack([gap[:, 0]] * 2)
        mean, none = theory.sgd_bound(start, both, 1.0, 1.0, n, settings.alpha)[..., at]
    sizes = np.unique(np.concatenate([SIZES, np.geomspace(SIZES[0], 1.9, 12)]))
    eta, average = worst_pair(setup.rest, setup.gram), 2 * best / n
    times = np.unique(np.linspace(0, ORTHOGONAL * n**2, TIMES).round())
    return {
        "steps": at, "exact": gap[:, at], "gradient": moments.gradient[:, at], "mean": mean, "none": none,
        "best": best, "sizes": sizes, "SIZES": SIZES,
        "floor": np.array([[_own_floor(*one, size / n) for size in sizes]
                           for one in zip(setup.gram, setup.rest, strict=True)]),
        "floor_worst": _floors(eta, sizes, n), "floor_mean": _floors(average, sizes, n),
        "times": times,
        "orthogonal": theory.orthogonal_loss(1.0, n, settings.alpha, times),
    }  # fmt: skip


def _in_range(settings: Rate) -> bool:
    return settings.alpha < theory.largest_step(1.0, settings.n)


def _own_floor(gram: np.ndarray, rest: np.ndarray, alpha: float) -> float:
    return theory.exact_floor(gram, rest, alpha) if (rest**2).sum() > 1e-20 else 0.0


def _floors(etas: np.ndarray, sizes: np.ndarray, n: int) -> np.ndarray:
    """Thm 3.1's floor, (S, sizes)."""
    return np.array([[theory.sgd_floor(eta, 1.0, 1.0, n, size / n) for size in sizes] for eta in etas])


def run(setup: Setup, prediction: Prediction, *, recursion: Recursion = theory.sgd_bound) -> Iterator[Frame]:
    settings, n, S = setup.settings, setup.settings.n, setup.settings.seeds
    alpha, allowed = settings.alpha, _in_range(setup.settings)
    starts = np.repeat(setup.start[:, None], settings.runs, axis=1)
    chains = Chains(setup.gram, starts, np.array([alpha]), [[seed, 1] for seed in common.seeds(settings)])
    gap0 = (setup.start**2).mean(axis=-1) / 2 - prediction["best"]
    bounds = dict.fromkeys(("worst", "mean", "none"), gap0)
    largest, total, least, done = np.zeros(S), np.zeros(S), np.full(S, np.inf), 0
    for at in prediction["steps"]:
        path: dict[str, np.ndarray] = {}
        if at > done:
            path = yield from _advance(setup, chains, done, int(at), gap0)
            if not path:
                return
            done = int(at)
            for name, along in path.items():
                rest = recursion(bounds[name], along, 1.0, 1.0, n, alpha)[:, -1] if allowed else np.nan
                bounds[name] = np.asarray(rest) * np.ones(S)
            largest = np.maximum(largest, path["worst"].max(axis=1))
            total = total + path["mean"].sum(axis=1)
        gradient = ((chains.r @ setup.gram) * chains.r).sum(axis=-1).mean(axis=1) / n**2
        worst, mean = _pairs(chains.r, setup.gram)
        least, largest = np.minimum(least, gradient), np.maximum(largest, worst)
        gap = (chains.r**2).mean(axis=(1, 2)) / 2 - prediction["best"]
        values = {"gap": gap, "least": least, "largest": largest, **bounds}
        for name, pair in {"least_worst": largest, "least_mean": (total + mean) / (done + 1)}.items():
            values[name] = _stationary(gap0, pair, settings, done + 1)
        yield Frame(done, values, 0.7 * done / settings.steps)
    yield from _floor_of_sgd(setup, prediction, done)
    yield from _orthogonal(setup, prediction, done, recursion)


def _advance(
    setup: Setup, chains: Chains, done: int, at: int, gap0: np.ndarray
) -> Generator[Frame, None, dict[str, np.ndarray]]:
    """Takes the chains from one step to another.

    Returns:
        The confusion of the worst and of the mean pair on the way, and none, (S, steps) each; nothing where
        they diverge.
    """
    settings, seen = setup.settings, list[tuple[np.ndarray, np.ndarray]]()
    while done < at:
        chunk = min(TICK, at - done)
        chains.advance(chunk, lambda r: seen.append(_pairs(r, setup.gram)))
        done += chunk
        if not (np.isfinite(chains.r).all() and (chains.r**2).mean() < 1e8 * (1 + gap0.max())):
            note = f"diverged before step {done}: SGD is stable for α below 2, here {settings.alpha:.3g}"
            note += f". Take {1 / settings.alpha:.2g} × step"
            yield Frame(done, {}, 0.7 * done / settings.steps, "diverged", note)
            return {}
        yield Frame.tick(done, 0.7 * done / settings.steps)
    worst, mean = np.transpose(seen, (1, 2, 0))
    return {"worst": worst, "mean": mean, "none": np.zeros_like(worst)}


def _pairs(r: np.ndarray, gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The confusion of the worst and of the mean pair in the runs that are watched, (S,) each."""
    some = r[:, :WATCHED]
    average = theory.average_confusion(mean_pair(some, gram), gram.shape[-1])
    return worst_pair(some, gram).mean(axis=1), average.mean(axis=1)


def _stationary(gap0: np.ndarray, eta: np.ndarray, settings: Rate, count: int) -> np.ndarray:
    """Thm 3.2 with the iterates w_0 ... w_(count - 1), (S,)."""
    if not _in_range(settings):
        return np.full(len(gap0), np.nan)
    n, alpha, pairs = settings.n, settings.alpha, zip(gap0, eta, strict=True)
    return np.array([theory.stationary_bound(*pair, 1.0, n, alpha, [count])[0] for pair in pairs])


def _floor_of_sgd(setup: Setup, prediction: Prediction, first: int) -> Iterator[Frame]:
    """E F - F* of SGD from the best w on, over the second half of the time, for each of SIZES; (S, 4)."""
    settings = setup.settings
    runs = max(2, settings.runs // len(SIZES))
    starts = np.repeat(setup.rest[:, None], runs * len(SIZES), axis=1)
    alphas = np.repeat(SIZES / settings.n, runs)
    chains = Chains(setup.gram, starts, alphas, [[seed, 2] for seed in common.seeds(settings)])
    found, parts = np.zeros((settings.seeds, len(alphas))), max(4, settings.steps // TICK)
    edges = np.linspace(0, settings.steps, parts + 1).round().astype(int)
    for part in range(parts):
        chains.advance(int(edges[part + 1] - edges[part]))
        if 2 * part >= parts:
            found += ((chains.r**2).mean(axis=-1) / 2 - prediction["best"][:, None]) / (parts - parts // 2)
        yield Frame.tick(first, 0.7 + 0.25 * (part + 1) / parts)
    floors = found.reshape(settings.seeds, len(SIZES), runs).mean(axis=-1)
    yield Frame(first, {"floors": floors}, 0.95)


def _orthogonal(setup: Setup, prediction: Prediction, first: int, recursion: Recursion) -> Iterator[Frame]:
    """F_t/F_0 on orthonormal vectors, measured and bounded with eta = 0: (S, times) each."""
    settings, n = setup.settings, setup.settings.n
    gram = np.repeat(np.eye(n)[None], settings.seeds, axis=0)
    starts = np.repeat(setup.start[:, None], settings.runs, axis=1)
    alpha, times = settings.alpha, prediction["times"].astype(int)
    chains = Chains(gram, starts, np.array([alpha]), [[seed, 3] for seed in common.seeds(settings)])
    initial, shares = (starts**2).mean(axis=(1, 2)), []
    for done, at in zip((0, *times), times, strict=False):
        for chunk in range(done, at, TICK):
            chains.advance(min(TICK, at - chunk))
            yield Frame.tick(first, 0.95 + 0.05 * chunk / times[-1])
        shares.append((chains.r**2).mean(axis=(1, 2)) / initial)
    bound = np.full(len(times), np.nan)
    if _in_range(settings):
        ones = np.ones(settings.seeds)
        bound = recursion(ones, np.zeros((settings.seeds, times[-1])), 1.0, 1.0, n, alpha)[:, times]
    bound = bound * np.ones((settings.seeds, 1))
    yield Frame(first, {"orthogonal": np.stack(shares, axis=1), "orthogonal_bound": bound}, 1.0, "done")


def figure(frames: Frames, prediction: Prediction, settings: Rate | None = None) -> figures.Chart:
    at, sizes = prediction["steps"], prediction["sizes"]
    measured = ("worst", "gap", "least_worst", "least_mean", "least")
    found = {name: common.curve(frames, name) for name in measured}
    edges = {name: (steps, values.mean(axis=0)) for name, (steps, values) in found.items()}
    rate = (
        figures.Bound(*edges["worst"], label="worst pair", color=WORST),
        figures.Predicted(at, prediction["mean"], label="mean pair", color=MEAN),
        figures.Predicted(at, prediction["none"], label="η = 0", color=NONE),
        figures.Predicted(at, prediction["exact"], label="SGD exactly", color=EXACT),
        figures.Measured(*found["gap"], label="SGD", color=EXACT),
    )
    step, ends = np.array([(settings or Rate()).step]), common.seen(frames, "floors", len(SIZES))
    floors = (
        figures.Predicted(sizes, prediction["floor_worst"], label="worst pair", color=WORST),
        figures.Predicted(sizes, prediction["floor_mean"], label="mean pair", color=MEAN),
        figures.Predicted(sizes, prediction["floor"], label="SGD exactly", color=EXACT),
        figures.Points(SIZES, ends, label="SGD", color=EXACT, line=False),
        # Where the step of the slider stands, and where the two bounds end there; the run falls on.
        figures.Level(step[0], axis="x", label="this step", color="grey"),
        figures.Points(step, common.seen(frames, "worst")[:, None], color=WORST, line=False),
        figures.Points(step, common.seen(frames, "mean")[:, None], color=MEAN, line=False),
    )
    exact = np.minimum.accumulate(prediction["gradient"], axis=1)
    slopes = (
        figures.Bound(*edges["least_worst"], label="worst pair", color=WORST),
        figures.Bound(*edges["least_mean"], label="mean pair", color=MEAN),
        figures.Predicted(at, exact, label="SGD exactly", color=EXACT),
        figures.Measured(*found["least"], label="SGD", color=EXACT),
    )
    logs: dict[str, Any] = {"xscale": "log", "yscale": "log"}
    return figures.Chart.of(
        settings, "Loss and slope of SGD on least squares, beside the bounds of Thms 3.1 and 3.2.",
        figures.Panel("Thm 3.1 along the path", rate, xlabel="step", ylabel="E F − F*", ylim=(1e-4, None),
                      **logs),
        figures.Panel("Three floors, over the step", floors, xlabel="step size × nL",
                      ylabel="floor of E F − F*", **logs),
        figures.Panel("Thm 3.2: least slope so far", slopes, xlabel="step", ylabel="min E‖∇F‖²", **logs),
    )  # fmt: skip


def _range(run: Run) -> Condition:
    """Strictly below the edge, which a condition with ≤ can only say up to rounding."""
    edge = theory.largest_step(1.0, run.settings.n)
    return Condition("step size α below 2/(nL)", run.settings.alpha, edge * (1 - 1e-12))


def _rates(run: Run) -> tuple[Evidence, ...]:
    regime, n = (_range(run),), run.settings.n
    gap, bounds = run.series("gap")[1].T, {k: run.series(k)[1].T for k in ("worst", "mean", "none")}
    ends = {name: np.maximum(path[:, -1], 1e-300) for name, path in (("SGD", gap), *bounds.items())}
    # -log ρ^T: with fewer the bound without η has not fallen far enough to be seen to be false.
    folds = run.settings.duration * run.settings.step * (2 - run.settings.step)
    short = Check("-log ρ^T", 4.0, folds, "raise duration")
    reach = Check(
        "dimension below the samples", float(run.settings.d), n - 1.0,
        "lower d: labels within reach leave SGD no floor of its own",
    )  # fmt: skip
    floors, orthogonal = run.last("floors"), run.last("orthogonal")
    decay = orthogonal / run.prediction["orthogonal"]
    note = f"at the end {', '.join(f'{name} {end.mean():.2g}' for name, end in ends.items())}"
    there = run.prediction["floor"][:, np.isin(run.prediction["sizes"], SIZES)]
    slopes, own = (exponent(SIZES, np.maximum(values, 1e-300)) for values in (floors, there))
    vacuous = bool((ends["worst"] > gap[:, 0]).all())
    return (
        Evidence(_closest(gap / bounds["worst"]), 1.0, regime, vacuous=vacuous, note=note),
        Evidence(_closest(gap / bounds["mean"]), 1.0, regime),
        Evidence(np.log10(ends["worst"] / ends["mean"]), None, regime, (short,)),
        Evidence(np.log10(ends["SGD"] / ends["none"]), None, regime, (short,)),
        Evidence(slopes, own, regime, (reach, short), note=_floor_note(run)),
        Evidence(decay[:, 1:], 1.0, regime),
        Evidence(orthogonal[:, 1:], run.last("orthogonal_bound")[:, 1:], regime),
    )


def _closest(shares: np.ndarray) -> np.ndarray:
    """Of shares of a bound (S, T): the largest, and the last, (S, 2)."""
    return np.stack([shares.max(axis=1), shares[:, -1]], axis=1)


def _floor_note(run: Run) -> str:
    floors, sizes = run.prediction["floor_worst"].mean(axis=0), run.prediction["sizes"]
    half, one = (floors[int(np.argmin(np.abs(sizes - size)))] for size in (0.5, 1.0))
    own = run.last("floors").mean(axis=0)
    return (
        f"half the step of 1/(nL) leaves {half / max(one, 1e-300):.3f} of the theorem's floor {one:.3g}, "
        f"and {own[2] / own[3]:.2f} of SGD's {own[3]:.2g}"
    )


def _stationarity(run: Run) -> tuple[Evidence, Evidence]:
    regime = (_range(run),)
    worst = run.series("least_worst")[1]
    least = run.series("least")[1].T
    start = run.prediction["gradient"][:, 0]
    note = f"at the end {least[:, -1].mean():.2g}, mean pair {run.last('least_mean').mean():.2g}, worst pair "
    note += f"{worst[-1].mean():.2g}; already the start has {start.mean():.2g}"
    return (
        Evidence(_closest(least / worst.T), 1.0, regime, vacuous=bool((worst[-1] > start).all()), note=note),
        Evidence(_closest(least / run.series("least_mean")[1].T), 1.0, regime),
    )


def of_the_mean(pair: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """A fault for a world: every gradient replaced by the mean of all."""

    def faulty(residuals: np.ndarray, gram: np.ndarray) -> np.ndarray:
        n = gram.shape[-1]
        square = np.einsum("s...i,sij,s...j->s...", residuals, gram, residuals)
        length = np.sqrt(np.maximum(square, 0.0)) / n
        return pair(np.repeat(length[..., None], n, axis=-1), np.ones_like(gram))

    return faulty


def mean_for_worst(pair: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """A fault for a world: η of the mean pair in the place of the worst pair's."""

    def faulty(residuals: np.ndarray, gram: np.ndarray) -> np.ndarray:
        n = gram.shape[-1]
        pairs = mean_pair(residuals.reshape(len(gram), -1, n), gram)
        return theory.average_confusion(pairs, n).reshape(residuals.shape[:-1])

    return faulty


C3 = Claim(
    "C3", "theorem",
    "For α < 2/(NL), E F_T − F* stays below the recursion b ← ρb + αη_t along the path, with η of the worst "
    "pair or of the mean pair i ≠ j; the mean pair's bound ends at least ten times lower, and without η the "
    "run ends at least ten times above it. SGD's own floor falls with α as its exact law says, and on "
    "orthogonal data E F_t = F_0 (1 − (2α − α²)/N)^t, below the bound.",
    "paper 5, Thm 3.1, §2",
    (
        AtMost("E F − F* over the bound with the worst pair", ("at most, along the path", "at the end")),
        AtMost("E F − F* over the bound with the mean pair", ("at most, along the path", "at the end")),
        Between("log₁₀ of the worst pair's bound over the mean pair's, at the end", low=1.0, by=EVERY),
        Between("log₁₀ of E F − F* over the bound without η, at the end", low=1.0, by=EVERY),
        Equals("exponent of α in SGD's own floor", tolerance=0.25, absolute=True),
        Equals("F on orthogonal data over its exact law", tolerance=0.1),
        AtMost("F/F₀ on orthogonal data, over time"),
    ),
    _rates, "holds",
    {"holds": "valid with η and false without; its floor is not the floor of SGD",
     "fails": "a bound was exceeded, or one part of the picture is not as stated",
     "out of regime": "the theorem speaks of steps below 2/(NL) alone"},
    worlds=(
        World("every gradient replaced by their mean", faults={f"{__name__}:worst_pair": of_the_mean}),
        World("the mean pair for the worst", faults={f"{__name__}:worst_pair": mean_for_worst}),
    ),
)  # fmt: skip
C4 = Claim(
    "C4", "theorem",
    "min over k of E‖∇F(w_k)‖² is at most (ρ/α)(F(w_1) − F*)/T + ρη with ρ = 2N/(2 − NLα).",
    "paper 5, Thm 3.2",
    (
        AtMost("least E‖∇F‖² over the bound with the worst pair", ("at most, over T", "at the end")),
        AtMost("least E‖∇F‖² over the bound with the mean pair", ("at most, over T", "at the end")),
    ),
    _stationarity, "holds",
    {"holds": "the bound holds at every T, with the worst pair and with the mean pair",
     "fails": "the bound was exceeded",
     "out of regime": "the theorem speaks of steps below 2/(NL) alone"},
    worlds=(World("a step beyond the theorem's", {"step": 2.5, "duration": 1.0}, word="out of regime"),),
)  # fmt: skip

RATE = Experiment(
    "rate", "Does confusion set the pace of SGD?", Rate,
    {"quick": Rate(), "paper": Rate(n=100, d=80, runs=200, seeds=5)},
    prepare, predict, run, figure, (C3, C4), controls=("step", "n", "d", "duration"),
)  # fmt: skip
