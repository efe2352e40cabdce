"""Does the network travel further when it is wider, or when it has more to fit? (D11, D12, D14, D15, D16)

One network after the other is trained to the same loss: widths by octaves on n samples, then three sample
sizes at one width. Each is drawn as it trains over the grey curves of those before, and the two scaling plots
fill in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from labkit import data, figures, training
from labkit.labs import common
from labkit.labs.distance import shared
from labkit.measure.sharpness import expected_sharpness
from labkit.protocol import statistics
from labkit.protocol.claims import Claim
from labkit.protocol.experiment import Experiment, Frame, Prediction, Run
from labkit.protocol.rules import AtMost, Check, Evidence, Exponent
from labkit.protocol.settings import Settings, knob
from labkit.theory import distance as theory
from labkit.theory import pac_bayes

NARROWEST = 40  # widths go by octaves from about here, as in the paper, up to the largest
SIZES = (16, 4, 1)  # training sizes n/16, n/4, n
SIGMAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)  # of the PAC-Bayes noise; a union bound pays for the choice
DRAWS, POINTS = 20, 300  # noise draws, and the training points on which they are averaged
DELTA = 0.05
RISE = 0.05  # of the generalisation error, per octave of width, is what "does not rise" allows
PHASES = ("by_width", "by_size")


@dataclass(frozen=True)
class Scaling(Settings):
    width: int = knob(
        320, "largest width H; the others are its half, quarter, .. down to about 40", slider=(80, 1280),
        bounds=(16, None), scale="log2",
        label="largest width",
    )  # fmt: skip
    n: int = knob(512, "most training samples m", slider=(128, 2048), bounds=(64, None), scale="log2")
    label_noise: float = shared.label_noise()
    lr: float = shared.learning_rate(0.05)
    loss: str = knob("squared", "what is minimised", choices=("squared", "cross-entropy"))
    stop: float = shared.stop_at(0.002)
    margin: float = knob(10.0, "stop when 99 % of margins reach it (cross-entropy)", slider=(1, 10), step=1)
    base: int = knob(80, "width at which the sample size is varied", slider=(40, 320), bounds=(1, None))
    depth: int = knob(4, "hidden layers", slider=(2, 6), bounds=(1, None), step=1)
    init: str = knob("glorot", "initialisation", choices=("glorot", "inverse-sqrt-width", "lecun"))
    momentum: float = knob(0.9, "momentum of SGD", slider=(0, 0.95), bounds=(0, 0.999))
    batch_size: int = knob(64, "samples a step", slider=(16, 256), bounds=(1, None))
    epochs: int = knob(1000, "passes over the data, at most", slider=(100, 2000), bounds=(1, None))
    dataset: str = knob("mnist-5k", "images", choices=("mnist-5k", "digits", "mnist", "cifar10"))

    @property
    def widths(self) -> tuple[int, ...]:
        octaves = max(1, round(math.log2(self.width / NARROWEST)))
        return tuple(self.width >> octave for octave in reversed(range(octaves + 1)))

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(self.n // part for part in SIZES)


@dataclass(frozen=True)
class Setup:
    """What is trained, in order: every job is (phase, index, width, samples); and each job's data by samples,
    one set a seed.
    """

    settings: Scaling
    jobs: tuple[tuple[int, int, int, int], ...]
    sets: dict[int, tuple[data.Dataset, ...]]

    @property
    def inputs(self) -> int:
        return int(self.sets[self.settings.n][0].x_train.shape[1])

    @property
    def classes(self) -> int:
        return self.sets[self.settings.n][0].classes


def prepare(settings: Scaling) -> Setup:
    jobs = [(0, place, width, settings.n) for place, width in enumerate(settings.widths)]
    jobs += [(1, place, settings.base, size) for place, size in enumerate(settings.sizes)]
    sets = {
        size: tuple(
            common.classification(
                settings.dataset, n=size, classes=10, n_test=1000, label_noise=settings.label_noise,
                noise_kind="redraw", normalize="none", seed=seed, device=settings.device,
            )
            for seed in common.seeds(settings)
        )
        for size in settings.sizes
    }  # fmt: skip
    return Setup(settings, tuple(jobs), sets)


def predict(setup: Setup) -> Prediction:
    """Known before any training: how far from the origin each network starts, exactly in the mean."""
    settings = setup.settings
    start = []
    for width in settings.widths:
        dims = theory.layer_shapes(setup.inputs, width, settings.depth + 1, setup.classes)
        norms = theory.initial_norms(dims, theory.xavier_sds(settings.init, dims))
        start.append(norms.frobenius_squared.sum() ** 0.5)
    return {
        "widths": np.array(settings.widths),
        "sizes": np.array(settings.sizes),
        "origin": np.array(start),
    }


def run(
    setup: Setup, prediction: Prediction, *, distance: shared.Distance = shared.distance
) -> Iterator[Frame]:
    """Trains the networks one after the other, all seeds of one together.

    Args:
        distance: from (weights now, weights at the start) to (S,); the step that the notebook spells out.
    """
    settings, seeds = setup.settings, common.seeds(setup.settings)
    found = {
        f"{name}_{phase}": np.full((settings.seeds, count), np.nan)
        for phase, count in zip(PHASES, (len(settings.widths), len(settings.sizes)), strict=True)
        for name in ("r", "origin", "gap", "error", "reached")
    }
    step, work = 0, _work(setup)
    for job, (phase, place, width, size) in enumerate(setup.jobs):
        sets = setup.sets[size]
        nets = [shared.network(settings, setup.inputs, width, seed, setup.classes) for seed in seeds]
        ensemble = training.Ensemble(nets)
        start = {name: value.clone() for name, value in ensemble.weights().items()}

        def travelled(ensemble: training.Ensemble, start: shared.Weights = start) -> Tensor:
            return distance(ensemble.weights(), start)

        measure = {"r": travelled, "origin": lambda e: shared.from_origin(e.weights())}
        here = {"job": np.full(settings.seeds, job), "phase": np.full(settings.seeds, phase)}
        done_before, first = sum(work[:job]), step
        progress = done_before
        for frame in shared.fit(settings, ensemble, sets, measure=measure):
            step = first + frame.step
            # The loss of a batch may rise again; the bar does not go back.
            progress = max(progress, min(0.99, done_before + work[job] * _progress(frame, settings)))
            if frame.is_tick:
                yield Frame.tick(step, progress)
                continue
            values = {name: frame.values[name] for name in ("r", "origin", "loss")}
            values |= here | {"at": np.full(settings.seeds, frame.step)}
            if frame.status == "diverged":
                yield Frame(step, values, progress, "diverged", f"H = {width}: {frame.note}")
                return
            if frame.status == "done":
                found = {name: value.copy() for name, value in found.items()}
                suffix = PHASES[phase]
                for name in ("r", "origin"):
                    found[f"{name}_{suffix}"][:, place] = values[name]
                gap, error = _generalization(ensemble, sets, settings.loss)
                found[f"gap_{suffix}"][:, place], found[f"error_{suffix}"][:, place] = gap, error
                found[f"reached_{suffix}"][:, place] = shared.reached(frame, settings, size)
                values |= found
            yield Frame(step, values, progress)
        if (phase, place) == (0, len(settings.widths) // 2):
            yield Frame(step, here | _noise_rise(ensemble, sets, settings), done_before + work[job])
    yield Frame(step, {}, 1.0, "done")


def _work(setup: Setup) -> list[float]:
    """The share of the whole run that each job takes, roughly: what a step costs times their number."""
    cost = np.array(
        [(width**2 + 800 * width + 2e4) * size**0.5 / width**0.5 for _, _, width, size in setup.jobs]
    )
    return list(cost / cost.sum())


def _progress(frame: Frame, settings: Scaling) -> float:
    """Of one training: the loss falls about exponentially, so its logarithm tells how far it is."""
    if "loss" not in frame.values:
        return 0.0
    if settings.loss != "squared":
        return 0.5
    left = np.log(np.maximum(frame.values["loss"].max(), settings.stop) / settings.stop)
    return float(np.clip(1 - left / np.log(0.1 / min(settings.stop, 0.09)), 0, 1))


def _generalization(
    ensemble: training.Ensemble, sets: Sequence[data.Dataset], loss: str
) -> tuple[np.ndarray, np.ndarray]:
    """Test loss minus training loss, as the paper plots it, and the share of wrong test images: (S,) each."""
    rows = []
    for seed, one in enumerate(sets):
        model, losses = ensemble.member(seed), []
        with torch.no_grad():
            for x, y in ((one.x_train, one.y_train), (one.x_test, one.y_test)):
                f = model(x)
                if loss == "squared":
                    losses.append(float((f - data.one_hot(y, one.classes)).square().mean()))
                else:
                    losses.append(float(torch.nn.functional.cross_entropy(f, y)))
            wrong = float((f.argmax(1) != y).double().mean())
        rows.append((losses[1] - losses[0], wrong))
    gaps, errors = np.array(rows).T
    return gaps, errors


def _noise_rise(
    ensemble: training.Ensemble, sets: Sequence[data.Dataset], settings: Scaling
) -> dict[str, np.ndarray]:
    """Mean training error under weight noise of each σ, (S, len(SIGMAS)): the empirical side of PAC-Bayes."""
    rates = []
    for seed, one in enumerate(sets):
        part = one.subset(n_train=min(POINTS, one.n), seed=settings.seed + seed)
        rise = expected_sharpness(
            ensemble.member(seed), part.x_train, part.y_train, alphas=SIGMAS, draws=DRAWS, loss="error",
            relative=0.0, generator=settings.seed + seed,
        )  # fmt: skip
        rates.append(np.clip(rise.loss + rise.mean.numpy(), 0, 1))
    return {"noisy_error": np.array(rates)}


def _curves(frames: Sequence[Frame], name: str) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """(job, steps (T,), values (S, T)) of every training so far."""
    found: dict[int, list[Frame]] = {}
    for frame in frames:
        if name in frame.values:
            found.setdefault(int(frame.values["job"][0]), []).append(frame)
    return [
        (job, np.array([f.values["at"][0] for f in kept]), np.array([f.values[name] for f in kept]).T)
        for job, kept in found.items()
    ]


def figure(
    frames: Sequence[Frame],
    prediction: Prediction,
    previous: Sequence[Run] = (),
    settings: Scaling | None = None,
) -> figures.Chart:
    widths, sizes = prediction["widths"], prediction["sizes"]
    curves = _curves(frames, "r")
    paths: list[figures.Mark] = [
        figures.Earlier(at[1:], r[:, 1:], label="networks before") for _, at, r in curves[:-1] if len(at) > 1
    ]
    title = "Distance from the start"
    if curves:
        job, at, r = curves[-1]
        where = f"H = {widths[job]}" if job < len(widths) else f"m = {sizes[job - len(widths)]}"
        title = f"Distance, {where}"
        paths.append(figures.Measured(at[1:], r[:, 1:], label="‖W − Z‖, now", color=shared.START))
    by_width = _scaling("by_width", widths, frames, previous)
    by_width.append(figures.Predicted(widths, prediction["origin"], label="‖Z‖, exact", color=shared.ORIGIN))
    by_size = _scaling("by_size", sizes, frames, previous)
    newest = common.newest(frames, "r_by_size")
    if newest is not None and np.isfinite(newest[:, 0]).any():
        first = np.nanmean(newest[:, 0])
        for power in (0.25, 0.4):
            by_size.append(
                figures.Predicted(
                    sizes, first * (sizes / sizes[0]) ** power, label=f"m^{power:g}", color="ink"
                )
            )
    return figures.Chart(
        (
            figures.Panel(title, tuple(paths), xlabel="step", ylabel="distance", xscale="log"),
            figures.Panel(
                "Against the width", tuple(by_width), xlabel="hidden units H", ylabel="distance",
                xscale="log", yscale="log", xticks=tuple((float(w), str(w)) for w in widths),
            ),
            figures.Panel(
                "Against the training size", tuple(by_size), xlabel="samples m", ylabel="distance",
                xscale="log", yscale="log", xticks=tuple((float(m), str(m)) for m in sizes),
            ),
        ),
        caption=figures.caption(settings) if settings else "",
    )  # fmt: skip


def _scaling(
    suffix: str, x: np.ndarray, frames: Sequence[Frame], previous: Sequence[Run]
) -> list[figures.Mark]:
    """The end points of the trainings so far, over those of earlier runs."""
    marks: list[figures.Mark] = []
    axis = "widths" if suffix == "by_width" else "sizes"
    for old in previous:
        ends = common.newest(old.frames, f"r_{suffix}")
        if ends is not None:
            marks.append(figures.Earlier(old.prediction[axis], ends, label="earlier run"))
    shown = (("r", "‖W − Z‖", shared.START), ("origin", "‖W‖", shared.ORIGIN))
    for name, label, color in shown if suffix == "by_width" else shown[:1]:
        ends = common.newest(frames, f"{name}_{suffix}")
        values = np.full((1, len(x)), np.nan) if ends is None else ends
        marks.append(figures.Points(x, values, label=label, color=color))
    return marks


def _stopped(run: Run, suffix: str) -> Check:
    """Distances compare at equal loss only."""
    missed = run.last(f"reached_{suffix}").size - np.nansum(run.last(f"reached_{suffix}"))
    return Check("trainings that missed the stop rule", float(missed), 0.0, "raise epochs or the stop loss")


def _flat(run: Run) -> Evidence:
    r = run.last("r_by_width")
    ends = ", ".join(f"{value:.2f}" for value in r.mean(axis=0))
    return Evidence(
        statistics.exponent(run.prediction["widths"], r),
        checks=(_stopped(run, "by_width"),),
        note=f"r = {ends}",
    )


def _by_samples(run: Run) -> Evidence:
    r = run.last("r_by_size")
    ends = ", ".join(f"{value:.2f}" for value in r.mean(axis=0))
    return Evidence(
        statistics.exponent(run.prediction["sizes"], r),
        checks=(_stopped(run, "by_size"),),
        note=f"r = {ends}",
    )


def _origin(run: Run) -> tuple[Evidence, Evidence]:
    origin = run.last("origin_by_width")
    ends = ", ".join(f"{value:.1f}" for value in origin.mean(axis=0))
    slopes, checks = statistics.exponent(run.prediction["widths"], origin), (_stopped(run, "by_width"),)
    return Evidence(slopes, checks=checks, note=f"‖W‖ = {ends}"), _flat(run)


def _kl_terms(run: Run) -> tuple[Evidence, Evidence]:
    """At one σ the two KL terms are ‖W‖²/2σ² and r²/2σ²: their ratio does not depend on σ."""
    origin, r = run.last("origin_by_width") ** 2, run.last("r_by_width") ** 2
    middle, m = len(run.prediction["widths"]) // 2, run.settings.n
    sigma, rates = np.array(SIGMAS), run.last("noisy_error")
    bounds = [
        pac_bayes.pac_bayes_bound(rates, part[:, middle, None] / (2 * sigma**2), m, DELTA / len(SIGMAS))
        for part in (origin, r)
    ]
    least = [bound.min(axis=1).mean() for bound in bounds]
    note = (
        f"KL smaller by {(origin / r).mean(axis=0)[0]:.0f} to {(origin / r).mean(axis=0)[-1]:.0f} times; "
        f"the bound (best of {len(SIGMAS)} σ) is {least[0]:.2f} with the prior at 0 and {least[1]:.2f} with "
        "the prior at the start"
    )
    checks = (_stopped(run, "by_width"),)
    return (
        Evidence(r, origin, checks=checks, vacuous=bool(min(least) >= 1), note=note),
        Evidence(statistics.exponent(run.prediction["widths"], origin / r), checks=checks),
    )


def _gap(run: Run) -> Evidence:
    """The rise of the gap per octave of width, as a share of the gap, against what counts as a rise."""
    gap, octaves = run.last("gap_by_width"), np.log2(run.prediction["widths"])
    centred = octaves - octaves.mean()
    rise = gap @ centred / (centred @ centred) / gap.mean(axis=1)
    ends = ", ".join(f"{value:.4f}" for value in gap.mean(axis=0))
    wrong = ", ".join(f"{value:.3f}" for value in run.last("error_by_width").mean(axis=0))
    norm = 2 ** statistics.exponent(run.prediction["widths"], run.last("origin_by_width")).mean() - 1
    note = (
        f"test loss − training loss {ends}: {rise.mean():+.1%} an octave, where ‖W‖ has {norm:+.0%}; "
        f"test images wrong {wrong}"
    )
    return Evidence(rise, RISE, checks=(_stopped(run, "by_width"),), note=note)


CLAIMS = (
    Claim(
        "D11", "At equal loss the distance from the start stays flat or falls as the width grows.",
        "paper 1, §4, Figs 1-4 (c)", (Exponent(-1.0, 0.0),), _flat, "holds",
        {"holds": "the distance from the start falls with the width",
         "fails": "the distance from the start grows with the width"},
    ),
    Claim(
        "D12", "On true labels the distance from the start grows as m^(0.25 to 0.4).",
        "paper 1, §4, Figs 1-4 (d)", (Exponent(0.25, 0.4),), _by_samples, "holds",
        {"holds": "the exponent in m lies in the paper's interval",
         "fails": "the exponent in m lies outside the paper's interval",
         "undecided": "the exponent in m is at the interval's edge, or a training missed its stop"},
    ),
    Claim(
        "D14", "The distance from the origin grows as √H; the distance from the start does not.",
        "paper 1, §5 and §6", (Exponent(0.4, 0.6), Exponent(-1.0, 0.0)), _origin, "holds",
        {"holds": "the distance from the origin grows about as √H, that from the start does not grow",
         "fails": "the two distances do not part as √H"},
    ),
    Claim(
        "D15", "A KL term centred at the initialisation is smaller than one centred at the origin, by "
        "a factor of order H or more.", "paper 1, §5", (AtMost(), Exponent(0.8, 2.0)), _kl_terms, "holds",
        {"holds": "the KL term at the start is smaller, and the factor grows at least about as H",
         "fails": "centring at the start does not buy a factor of order H"},
    ),
    Claim(
        "D16", "The generalisation error (test loss minus training loss) does not rise with the width: "
        f"by less than {RISE:.0%} an octave.",
        "paper 1, Figs 2-4 (a, b)", (AtMost(exact=False),), _gap, "holds",
        {"holds": "the generalisation error does not rise with the width",
         "fails": "the generalisation error rises with the width"},
    ),
)  # fmt: skip

SCALING = Experiment(
    "scaling", "Does a wider network travel further?", Scaling,
    {
        "quick": Scaling(),
        "cross-entropy": Scaling(
            loss="cross-entropy", lr=0.03, margin=4.0, width=160, n=256, dataset="digits"
        ),
        "paper": Scaling(
            width=5120, n=16384, base=640, lr=0.01, stop=0.001, dataset="mnist", seeds=5, epochs=4000
        ),
    },
    prepare, predict, run, figure, CLAIMS, controls=("width", "n", "label_noise", "lr", "loss", "stop"),
)  # fmt: skip
