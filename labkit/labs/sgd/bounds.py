"""What do the classical bounds say of a trained network? Paper 3, §8.1 to 8.4, 9.1, 9.8 (S17).

Even digits against odd ones, f = output 1 − output 0 of a network without biases: one output, y = ±1, inputs
in [0, 1]. Label noise is on the test samples as well: the bounds are about one distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit import data, figures, models, training
from labkit.labs import common
from labkit.labs.sgd import shared
from labkit.protocol.claims import Claim
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import AtMost, Equals, Evidence
from labkit.protocol.settings import knob
from labkit.theory import classical_bounds as theory
from labkit.theory import compositional
from labkit.theory import distance as perturbed
from labkit.theory.pac_bayes import vacuous

NAMES = ("(17)", "(19)", "(21)", "(22)", "(27)", "(60)", "(63)")
WORDS = ("bits", "cover", "grid", "grids", "1/γ²", "ℓ₁", "1/γ")
BOUNDED = dict.fromkeys(NAMES, "gap of the ramp loss") | {
    "(17)": "gap of the error", "(27)": "test error", "(63)": "test error",
}  # fmt: skip
DURING = (("(19)", 2), ("(60)", 4), ("(63)", 5))  # those drawn over the steps, with their colours
LEVELS = np.arange(21)  # grids of side 2^-level
PRIORS = 6 / (np.pi * (LEVELS + 1)) ** 2
DIMENSIONS = np.unique(np.geomspace(2, 1000, 40).round())


@dataclass(frozen=True)
class Bounds(common.OnData):
    n: int = knob(1000, "training samples", slider=(100, 1400), bounds=(10, None), step=100)
    width: int = knob(32, "hidden units", slider=(1, 256), bounds=(1, None), scale="log2")
    depth: int = knob(2, "hidden layers", slider=(0, 4), bounds=(0, None), step=1)
    label_noise: float = knob(0.0, "share of labels redrawn, of training and test samples", slider=(0, 1),
                              bounds=(0, 1), step=0.1, label="label noise (redraw)")  # fmt: skip
    margin: float = knob(1.0, "γ of the ramp loss, fixed before training", slider=(0.1, 10), scale="log",
                         remeasures=True)  # fmt: skip
    bits: float = knob(32.0, "bits k of a weight in (17); below 32 that is for weights rounded to so many",
                       slider=(1, 32), bounds=(1e-3, None), scale="log2", remeasures=True)  # fmt: skip
    level: int = knob(1, "grid of (21): cells of side 2^−level", slider=(0, 4), bounds=(0, 20), step=1,
                      remeasures=True)  # fmt: skip
    epsilon: float = knob(0.1, "error of approximation in (29)", slider=(0.01, 0.5), bounds=(1e-6, 0.99),
                          scale="log", remeasures=True)  # fmt: skip
    smoothness: float = knob(1.0, "derivatives m in (29)", slider=(1, 5), bounds=(0.1, None), remeasures=True)
    lr: float = shared.rate(0.03, "learning rate of SGD with momentum .9, batches of 64", slider=(0.01, 0.5),
                            bounds=(0, None))  # fmt: skip
    stop: float = shared.stop_at(0.01, "stop at this cross-entropy", slider=(0.001, 0.3), bounds=(1e-9, 10))
    epochs: int = knob(150, "passes over the data, at most", slider=(10, 1000), bounds=(1, None), scale="log")
    dataset: str = knob("digits", "images", choices=("digits", "mnist-5k", "mnist"))


def prepare(settings: Bounds) -> common.Setup:
    sets = []
    for one, seed in zip(shared.images(settings, normalize="none"), common.seeds(settings), strict=True):
        y, y_test = one.y_train % 2, one.y_test % 2
        odd = replace(one, y_train=y, clean_train=y, y_test=y_test, classes=2)
        # Not the seed of the training labels, whose noise these would repeat.
        noisy = data.corrupt(y_test, 2, settings.label_noise, "redraw", seed=seed + 10_000)
        sets.append(replace(odd.with_label_noise(settings.label_noise, "redraw", seed=seed), y_test=noisy))
    sizes = sets[0].dim, settings.width, settings.depth, 2
    nets = [models.mlp(*sizes, bias=False, seed=s, device=settings.device) for s in common.seeds(settings)]
    return common.Setup(settings, tuple(sets), tuple(nets))


def predict(setup: common.Setup) -> Prediction:
    """Known before training: (17), which counts weights, and how many samples shallow and deep nets need."""
    settings = setup.settings
    given = {"smoothness": settings.smoothness, "bits": settings.bits}
    weights = sum(weight.numel() for weight in one_output(setup.models[0]))
    return {
        "weights": np.array(weights), "dimensions": DIMENSIONS,
        "quantized": np.array(theory.quantized_gap(weights, settings.bits, settings.n)),
        "shallow": compositional.network_samples_log10("shallow", DIMENSIONS, settings.epsilon, **given),
        "deep": compositional.network_samples_log10("deep", DIMENSIONS, settings.epsilon, **given),
        "ratio": compositional.sample_ratio_log10(DIMENSIONS, settings.epsilon, settings.smoothness),
    }  # fmt: skip


def one_output(model: Any) -> list[Tensor]:
    """The weight matrices of f = output 1 − output 0, in float64: the last one is a row."""
    layers = [layer.weight.detach().double() for layer in model.layers]
    return [*layers[:-1], layers[-1][1:] - layers[-1][:1]]


def fan_in(layers: Sequence[Tensor]) -> list[float]:
    """B_i: the largest ℓ₁ norm of the weights into one unit of layer i (58, 59)."""
    return [float(weight.abs().sum(dim=1).max()) for weight in layers]


def run(
    setup: common.Setup, prediction: Prediction, *, norms: Callable[..., Sequence[float]] = fan_in
) -> Iterator[Frame]:
    """Trains, and evaluates every bound on the way, next to what it bounds."""
    settings, sets = setup.settings, setup.sets
    ensemble = training.Ensemble(setup.models)
    starts = [one_output(model) for model in setup.models]

    def measure(ensemble: training.Ensemble) -> np.ndarray:
        rows = []
        for seed, (one, start) in enumerate(zip(sets, starts, strict=True)):
            with torch.no_grad():
                rows.append(_evaluated(settings, one, start, one_output(ensemble.member(seed)), norms))
        return np.array(rows, dtype=float)

    longest = settings.epochs * -(-settings.n // min(64, settings.n))
    for frame in training.train(
        ensemble, [one.x_train for one in sets], [one.y_train for one in sets], loss="cross-entropy",
        lr=settings.lr, momentum=0.9, batch_size=64, epochs=settings.epochs,
        stop=training.LossBelow(settings.stop), measure={"all": measure},
        measure_at=common.measured_steps(longest, 30),
        seed=list(common.seeds(settings)),
    ):  # fmt: skip
        if frame.is_tick:
            yield frame
            continue
        found = frame.values["all"]
        values = {
            "loss": frame.values["loss"], "bounds": found[:, : len(NAMES)],
            "measured": found[:, len(NAMES) : 2 * len(NAMES)], "travel": found[:, -2], "norms": found[:, -1],
        }  # fmt: skip
        yield Frame(frame.step, values, frame.progress, frame.status, frame.note)


def _evaluated(
    settings: Bounds, one: data.Dataset, start: list[Tensor], now: list[Tensor], norms: Any
) -> np.ndarray:
    """The bounds in the order of NAMES, what each of them bounds, G_T and ∏ B_i."""
    parts = ((one.x_train, one.y_train), (one.x_test, one.y_test))
    train, test = (((2 * y - 1) * _output(now, x.double())).cpu().numpy() for x, y in parts)  # y f(x)
    ramp = [np.clip(1 - margins / settings.margin, 0, 1).mean() for margins in (train, test)]
    error = [(margins <= 0).mean() for margins in (train, test)]
    gap, ramp_gap = abs(error[1] - error[0]), abs(ramp[1] - ramp[0])

    weights = sum(weight.numel() for weight in now)
    travel = max(float(sum((a - b).square().sum() for a, b in zip(now, start, strict=True)) ** 0.5), 1e-12)
    sizes = np.array(norms(now))
    bits = theory.quantized_gap(weights, settings.bits, one.n)
    cover = _cover(start, weights, travel, one, settings.margin)
    grid, grids = _grids(now, one, settings)
    smooth, margin = _margins(train, sizes, one)
    l1 = theory.l1_gap(sizes, one.dim, one.n, lipschitz=1 / settings.margin)
    bounds = [bits, cover, grid, grids, smooth, l1, margin]
    return np.array([*bounds, gap, *[ramp_gap] * 3, error[1], ramp_gap, error[1], travel, sizes.prod()])


def _cover(start: list[Tensor], weights: int, travel: float, one: data.Dataset, gamma: float) -> float:
    """(19) with the slope of the ramp loss in the weights, as Thm C.2 of paper 1 bounds it within G_T."""
    spectral = [float(torch.linalg.matrix_norm(weight, 2)) for weight in start]
    steep = float(perturbed.gradient_bound(spectral, travel, one.dim**0.5).total) / gamma
    # Balls so small that moving to their centres costs 0.1.
    return float(theory.covering_gap(weights, travel, 0.05 / steep, one.n, lipschitz=steep))


def _grids(now: list[Tensor], one: data.Dataset, settings: Bounds) -> tuple[float, float]:
    """(21) for the grid chosen beforehand, and (22) for the best one."""
    # A cell of side s is s√d across. The loss cannot change by more than 1.
    slope = np.prod([float(torch.linalg.matrix_norm(weight, 2)) for weight in now]) / settings.margin
    variation = np.minimum(slope * one.dim**0.5 * 2.0**-LEVELS, 1.0)
    cells = theory.grid_log_cells(LEVELS, one.dim, classes=2)
    chosen = theory.robustness_bound(cells, variation, one.n)[settings.level]
    return float(chosen), theory.robustness_best(cells, variation, PRIORS, one.n)[0]


def _margins(margins: np.ndarray, sizes: np.ndarray, one: data.Dataset) -> tuple[float, float]:
    """(27) and (63), which hold at all margins at once, up to the largest |f| of the class: the least."""
    size, top = float(theory.l1_rademacher(sizes, one.dim, one.n)), max(float(sizes.prod()), 1e-12)
    gammas = np.geomspace(1e-3, 1, 60) * top
    shares = (margins[:, None] < gammas).mean(0)
    smooth = theory.smooth_margin_bound(shares, gammas, size, one.n, bound=top)
    return float(smooth.min()), float(theory.margin_bound(shares, gammas, size, one.n, bound=top).min())


def _output(layers: Sequence[Tensor], x: Tensor) -> Tensor:
    h = x
    for weight in layers[:-1]:
        h = (h @ weight.T).relu()
    return (h @ layers[-1].T)[:, 0]


def figure(frames: Frames, prediction: Prediction, settings: Bounds | None = None) -> figures.Chart:
    places, before = np.arange(len(NAMES)), float(prediction["quantized"])
    now: list[figures.Mark] = [
        figures.Level(1.0, label="says nothing"),
        figures.Predicted([-0.4, 0.4], [before, before], label="known before", color=shared.MINIMUM_NORM),
    ]
    during: list[figures.Mark] = [figures.Level(1.0)]
    (steps, bounds), (_, seen) = (common.curve(frames, name) for name in ("bounds", "measured"))
    if len(steps):
        now += [
            figures.Points(places, bounds[..., -1].T, "bound", shared.MINIMUM_NORM, line=False),
            figures.Points(places, seen[..., -1].T, "measured", shared.NATURAL, line=False),
        ]
        steps = np.maximum(steps, 0.5)  # step 0 has its place on a logarithmic axis
        for name, color in DURING:
            place = NAMES.index(name)
            during.append(figures.Measured(steps, bounds[place], f"{name} {WORDS[place]}", color))
        during.append(figures.Measured(steps, seen[-1], label="test error", color=shared.NATURAL))
    needed: list[figures.Mark] = [
        figures.Predicted(prediction["dimensions"], prediction[kind], label=kind, color=color)
        for kind, color in (("shallow", shared.RANDOM), ("deep", shared.NATURAL))
    ]
    if settings is not None:
        needed.append(figures.Level(float(np.log10(settings.n)), label="n here"))
    ticks = [(float(k), f"{NAMES[k]}\n{WORDS[k]}") for k in places]
    return figures.Chart.of(
        settings, "Bounds on the generalization gap beside what they bound, and the samples for (17).",
        figures.Panel("Bounds, and what they bound", now, xticks=ticks, yscale="log",
                      xlim=(-0.6, len(NAMES) - 0.4)),
        figures.Panel("While training", during, xlabel="step", xscale="log", yscale="log"),
        figures.Panel("Samples by (17)", needed, xlabel="dimension", ylabel="log₁₀ of samples",
                      xscale="log", yscale="log"),
    )  # fmt: skip


def _compared(run: Run) -> tuple[Evidence, ...]:
    bounds, measured = run.last("bounds"), run.last("measured")
    found = []
    for place in range(len(NAMES)):
        empty = bool(vacuous(bounds[:, place].mean()))
        note = "vacuous" if empty else "not vacuous"
        found.append(Evidence(measured[:, place], bounds[:, place], vacuous=empty, note=note))
    n = run.prediction["dimensions"]
    ratio = run.prediction["deep"] - run.prediction["shallow"]
    m, digits = run.settings.smoothness, -np.log10(run.settings.epsilon)
    right = -digits * (n - 2) / m + np.log10(4 * (n - 1) / (n + 2))
    off = np.abs(run.prediction["ratio"] - ratio)[n >= 10].min()
    tiled = np.tile(ratio, (run.settings.seeds, 1))
    note = f"(29) as printed, for ε^(n/m), is off by a factor of {10**off:.2g} or more from n = 10 on"
    return (*found, Evidence(tiled, right, note=note))


S17 = Claim(
    "S17", "theorem",
    "Every classical bound, (27) with its open constant at 1, lies above what it bounds; and by (17) "
    "M_deep/M_shallow is ε^((n−2)/m)·4(n−1)/(n+2).",
    "paper 3, eqs 17–22, 27, 29, 60, 63",
    (
        *(AtMost(f"{BOUNDED[name]}, under {name} {word}") for name, word in zip(NAMES, WORDS, strict=True)),
        Equals("log₁₀ of M_deep/M_shallow, at each dimension", tolerance=0.05, absolute=True),
    ),
    _compared, "holds",
    {"holds": "no bound is violated, and the ratio of the samples is as the weights say",
     "fails": "a bound is violated, or the ratio of the samples is another"},
)  # fmt: skip

BOUNDS = Experiment(
    "bounds", "What do the classical bounds say of a trained network?", Bounds,
    {"quick": Bounds(), "paper": Bounds(n=10_000, width=256, dataset="mnist", epochs=400, seeds=5)},
    prepare, predict, run, figure, (S17,), controls=("width", "n", "label_noise", "bits", "margin"),
)  # fmt: skip
