"""Does the network travel further when it is wider, or when it has more to fit? (D11, D12, D14, D15, D16)

One network after the other is trained to the same loss: widths by octaves on n samples, then sample
sizes by octaves at one width. Each is drawn as it trains over the grey curves of those before, and the two
scaling plots fill in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit import data, figures, training
from labkit.labs import common
from labkit.labs.distance import shared
from labkit.measure.sharpness import expected_sharpness
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Prediction, Run
from labkit.protocol.rules import EVERY, AtMost, Between, Check, Equals, Evidence
from labkit.protocol.settings import knob
from labkit.protocol.statistics import exponent
from labkit.theory import distance as theory
from labkit.theory import pac_bayes

NARROWEST = 40  # widths go by octaves from about here, as in the paper, up to the largest
SIZES = (8, 4, 2, 1)  # training sizes n/8 to n
OCTAVES = ("narrowest", "× 2", "× 4", "× 8")
SIGMAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)  # of the PAC-Bayes noise; a union bound pays for the choice
DRAWS, POINTS = 10, 300  # noise draws, and the training and test images on which they are averaged
DELTA = 0.05
PHASES = ("by_width", "by_size")


@dataclass(frozen=True)
class Scaling(common.OnData):
    width: int = knob(
        320, "largest width H; the others are its half, quarter, .. down to about 40", slider=(80, 1280),
        bounds=(16, None), scale="log2",
        label="largest width",
    )  # fmt: skip
    n: int = knob(512, "most training samples m", slider=(128, 2048), bounds=(64, None), scale="log2")
    label_noise: float = shared.label_noise()
    lr: float = shared.learning_rate(0.1)
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


def run(setup: Setup, prediction: Prediction, *, distance: shared.Distance | None = None) -> Iterator[Frame]:
    """Trains the networks one after the other, all seeds of one together.

    Args:
        distance: from (weights now, weights at the start) to (S,); the step that the notebook spells out,
            `shared.distance` when left out.
    """
    settings, seeds = setup.settings, common.seeds(setup.settings)
    travel = distance or shared.distance
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
            return travel(ensemble.weights(), start)

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
    """Mean error under weight noise of each σ, (S, len(SIGMAS)), on training and on test images."""
    rates: dict[str, list[np.ndarray]] = {"noisy_error": [], "noisy_test_error": []}
    for seed, one in enumerate(sets):
        part = one.subset(
            n_train=min(POINTS, one.n), n_test=min(POINTS, one.n_test), seed=settings.seed + seed
        )
        for name, x, y in (
            ("noisy_error", part.x_train, part.y_train), ("noisy_test_error", part.x_test, part.y_test)
        ):  # fmt: skip
            rise = expected_sharpness(
                ensemble.member(seed), x, y, alphas=SIGMAS, draws=DRAWS, loss="error", relative=0.0,
                generator=settings.seed + seed,
            )  # fmt: skip
            rates[name].append(np.clip(rise.loss + rise.mean.numpy(), 0, 1))
    return {name: np.array(found) for name, found in rates.items()}


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
        caption=figures.caption(
            "Distance from the start along training, and its end by width and by sample size.", settings
        ),
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
    """Distances compare at equal loss only.

    Raises:
        KeyError: not all networks have been trained yet.
    """
    reached = run.last(f"reached_{suffix}")
    if np.isnan(reached).any():
        raise KeyError(suffix)
    missed = float((reached == 0).sum())
    return Check("trainings that missed the stop rule", missed, 0.0, "raise epochs or the stop loss")


def _flat(run: Run) -> Evidence:
    r = run.last("r_by_width")
    ends = ", ".join(f"{value:.2f}" for value in r.mean(axis=0))
    return Evidence(
        shared.growth(run.prediction["widths"], r), checks=(_stopped(run, "by_width"),), note=f"r = {ends}"
    )


def _by_samples(run: Run) -> Evidence:
    r = run.last("r_by_size")
    ends = ", ".join(f"{value:.2f}" for value in r.mean(axis=0))
    return Evidence(
        shared.growth(run.prediction["sizes"], r), checks=(_stopped(run, "by_size"),), note=f"r = {ends}"
    )


def _origin(run: Run) -> tuple[Evidence, Evidence]:
    widths, curve, checks = run.prediction["widths"], run.prediction["origin"], (_stopped(run, "by_width"),)
    origin, r = run.last("origin_by_width"), run.last("r_by_width")
    share = ", ".join(f"{value:.3f}" for value in (r / origin).mean(axis=0))
    found, exact = exponent(widths, origin).mean(), exponent(widths, curve)[0]
    slopes = f"exponent in H {found:.3f}, of the curve {exact:.3f}"
    return (
        Evidence(origin, curve, checks=checks, note=slopes),
        Evidence(shared.growth(widths, r / origin), checks=checks, note=f"r/‖W‖ = {share}"),
    )


def _pac_bayes(run: Run) -> Evidence:
    """Bound (5) at every σ, paid for by a union bound; with the prior at the start, the KL is r²/2σ²."""
    middle, m = len(run.prediction["widths"]) // 2, run.settings.n
    rates, test = run.last("noisy_error"), run.last("noisy_test_error")
    r, origin = (run.last(f"{name}_by_width")[:, middle, None] for name in ("r", "origin"))
    at_start, at_origin = (
        pac_bayes.pac_bayes_bound(rates, far**2 / (2 * np.array(SIGMAS) ** 2), m, DELTA / len(SIGMAS))
        for far in (r, origin)
    )
    least = [bound.min(axis=1).mean() for bound in (at_start, at_origin)]
    note = f"at the best of {len(SIGMAS)} σ the bound is {least[0]:.2f}, with the prior at 0 {least[1]:.2f}"
    checks = (_stopped(run, "by_width"),)
    return Evidence(test, at_start, checks=checks, vacuous=bool(at_start.min() >= 1), note=note)


def _gap(run: Run) -> Evidence:
    widths, gap = run.prediction["widths"], run.last("gap_by_width")
    ends = ", ".join(f"{value:.4f}" for value in gap.mean(axis=0))
    wrong = ", ".join(f"{value:.3f}" for value in run.last("error_by_width").mean(axis=0))
    norm = exponent(widths, run.last("origin_by_width")).mean()
    note = f"test loss − training loss {ends}; exponent of ‖W‖ {norm:.2f}; test images wrong {wrong}"
    return Evidence(shared.growth(widths, gap), checks=(_stopped(run, "by_width"),), note=note)


def _penalized(generalization: Callable[..., Any]) -> Callable[..., Any]:
    """A fault to plant: a weight penalty in the test loss that the training loss does not have."""

    def with_penalty(ensemble: training.Ensemble, *rest: Any) -> tuple[np.ndarray, np.ndarray]:
        gaps, errors = generalization(ensemble, *rest)
        return gaps + 1e-4 * shared.from_origin(ensemble.weights()).cpu().numpy() ** 2, errors

    return with_penalty


NOT_MOVED = World("the distance from the start replaced by zero", faults=shared.WITHOUT_DISTANCE)
RANDOM = World("random labels", {"label_noise": 1.0, "width": 80, "seeds": 10})
FORGOTTEN = World("the distance measured from the origin", faults=shared.FROM_ORIGIN)
CLAIMS = (
    Claim(
        "D11", "finding",
        "At equal loss the distance from the start falls as the width grows, more slowly than H^−½.",
        "paper 1, §4, Figs 1-4 (c)",
        (Between("exponent of r in H", low=-0.5, high=-0.05, by=EVERY),), _flat, "holds",
        {"holds": "the distance from the start falls with the width",
         "fails": "the distance from the start does not fall with the width, or vanishes",
         "undecided": "a training missed its stop"},
        (FORGOTTEN, NOT_MOVED),
    ),
    Claim(
        "D12", "finding",
        "On true labels the distance from the start grows with the sample size, by a power between m^0.2 and "
        "m^0.4: the paper's m^(0.25 to 0.4), with 0.05 less below for another data set and smaller m.",
        "paper 1, §4, Figs 1-4 (d)", (Between("exponent of r in m", low=0.2, high=0.4),),
        _by_samples, "holds",
        {"holds": "the exponent in m lies in the paper's interval, or 0.05 below it at most",
         "fails": "the exponent in m lies outside the paper's interval",
         "undecided": "the exponent in m is at the interval's edge, or a training missed its stop"},
        (RANDOM, NOT_MOVED),
    ),
    Claim(
        "D14", "prediction",
        "After training the distance from the origin is still on the curve of the start, "
        "(Σ n_k·n_(k−1)·σ_k²)^½, which tends to √H; measured in r it grows at least as √H.",
        "paper 1, §5 and §6",
        (Equals("‖(W, B)‖ against the exact curve of ‖Z‖", OCTAVES, tolerance=0.1),
         Between("exponent of r/‖(W, B)‖ in H", low=-1.0, high=-0.5, by=EVERY)), _origin, "holds",
        {"holds": "training hardly shows in the distance from the origin, and r is a falling share of it",
         "fails": "the distance from the origin leaves the curve of the start, or r keeps up with it",
         "undecided": "a training missed its stop"},
        (RANDOM, NOT_MOVED),
    ),
    Claim(
        "D15", "theorem",
        "With a Gaussian prior around the start, whose KL is r²/2σ², the test error under weight noise is "
        "below the PAC-Bayes bound at every σ.", "paper 1, §5",
        (AtMost("test error under weight noise"),), _pac_bayes, "holds",
        {"holds": "no test error exceeds the bound that the distance from the start gives",
         "fails": "a test error exceeds the bound",
         "undecided": "a training missed its stop"},
        (NOT_MOVED,),
    ),
    Claim(
        "D16", "finding",
        "The generalisation error (test loss minus training loss) rises with an exponent in H below 0.05: by "
        "less than an eighth over eight times the width.",
        "paper 1, Figs 2-4 (a, b)", (Between("exponent of the generalisation error in H", high=0.05),),
        _gap, "holds",
        {"holds": "the generalisation error does not rise with the width",
         "fails": "the generalisation error rises with the width",
         "undecided": "the seeds are too few to tell a rise from none, or a training missed its stop"},
        (World("a weight penalty counted in the test loss alone",
               faults={f"{__name__}:_generalization": _penalized}),),
    ),
)  # fmt: skip

SCALING = Experiment(
    "scaling", "Does a wider network travel further?", Scaling,
    {
        "quick": Scaling(seeds=6),
        "cross-entropy": Scaling(
            loss="cross-entropy", lr=0.03, margin=4.0, width=160, n=256, dataset="digits", seeds=5
        ),
        "paper": Scaling(
            width=5120, n=16384, base=640, lr=0.01, stop=0.001, dataset="mnist", seeds=5, epochs=4000
        ),
    },
    prepare, predict, run, figure, CLAIMS, controls=("width", "n", "label_noise", "lr", "loss", "stop"),
)  # fmt: skip
