"""Does the network travel further when it is wider, or when it has more to fit? And which number knows it?

One network after the other is trained to the same loss: widths by octaves on n samples, then at one width
sample sizes by octaves and shares of noisy labels. At the end of each stand its generalisation error and what
is read off its weights (`scaling_claims`, `scaling_panels`). Figs 1 to 6 are settings of this experiment.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from labkit import data, measure, training
from labkit.labs import common
from labkit.labs.distance import shared
from labkit.labs.distance.scaling_claims import CLAIMS, SIGMAS
from labkit.labs.distance.scaling_panels import figure
from labkit.measure.sharpness import expected_sharpness
from labkit.protocol import lengths
from labkit.protocol.experiment import Experiment, Frame, Prediction
from labkit.protocol.settings import knob
from labkit.theory import distance as theory

NARROWEST = 40  # widths go by octaves from about here, as in the paper, up to the largest
SIZES = (8, 4, 2, 1)  # training sizes n/8 to n
SHARES = (0.0, 0.3, 0.6)  # of labels that are noisy
DRAWS, POINTS = 10, 300  # draws of weight noise, and the images of either set on which they are averaged
PHASES = ("by_width", "by_size", "by_noise")
MOMENTS = 6  # looks at a training, about: a panel keeps the weights of each
ANOTHER = 10_000  # added to a seed: the start of a network that was never trained


@dataclass(frozen=True)
class Scaling(shared.Trained):
    width: int = knob(
        320, "largest width H; the others are its half, quarter, .. down to about 40", slider=(80, 1280),
        bounds=(16, None), scale="log2",
        label="largest width",
    )  # fmt: skip
    n: int = knob(512, "most training samples m", slider=(128, 2048), bounds=(64, None), scale="log2")
    label_noise: float = shared.label_noise()
    lr: float = shared.learning_rate(0.1)
    stop: float = shared.stop_at(0.002)
    base: int = knob(80, "width at which samples and noise are varied", slider=(40, 320), bounds=(1, None))
    labels: str = knob(
        "classes", "what is told apart: all classes; odd ones from even, or the first two, as ±1 (Figs 5, 6)",
        choices=("classes", "parity", "pair"),
    )  # fmt: skip
    start: str = knob(
        "own", "where r is measured from: the network’s own start, or another draw of it",
        choices=("own", "another"), label="distance from", remeasures=True,
    )  # fmt: skip
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
    """What is trained, in order: every job is (phase, index, width, samples, noise); and the data of each by
    samples and noise, one set a seed.
    """

    settings: Scaling
    jobs: tuple[tuple[int, int, int, int, float], ...]
    sets: dict[tuple[int, float], tuple[data.Dataset, ...]]

    @property
    def trained(self) -> tuple[int, ...]:
        """The jobs whose networks no job before them has: two sweeps may share some."""
        every = [job[2:] for job in self.jobs]
        return tuple(i for i, what in enumerate(every) if every.index(what) == i)

    @property
    def one(self) -> data.Dataset:
        """A set, for what they have in common."""
        return next(iter(self.sets.values()))[0]


def prepare(settings: Scaling) -> Setup:
    noise, base = settings.label_noise, settings.base
    jobs = [(0, place, width, settings.n, noise) for place, width in enumerate(settings.widths)]
    jobs += [(1, place, base, size, noise) for place, size in enumerate(settings.sizes)]
    jobs += [(2, place, base, settings.n, share) for place, share in enumerate(SHARES)]
    wanted = dict.fromkeys(job[3:] for job in jobs)
    sets = {
        (size, share): tuple(_labelled(settings, size, share, seed) for seed in common.seeds(settings))
        for size, share in wanted
    }
    return Setup(settings, tuple(jobs), sets)


def _labelled(settings: Scaling, size: int, share: float, seed: int) -> data.Dataset:
    """One seed's images with the labels that are asked for."""
    pair, noisy = settings.labels == "pair", settings.labels != "parity"
    one = common.classification(
        settings.dataset, n=size, classes=2 if pair else 10, n_test=1000, label_noise=noisy * share,
        noise_kind="redraw", normalize="none", seed=seed, device=settings.device,
    )  # fmt: skip
    if noisy:
        return one
    odd = {name: getattr(one, name) % 2 for name in ("y_train", "y_test", "clean_train")}
    return replace(one, classes=2, **odd).with_label_noise(share, "redraw", seed=seed)


def predict(setup: Setup) -> Prediction:
    """Known before any training: how far from the origin each network starts, exactly in the mean."""
    settings, start = setup.settings, []
    outputs = shared.outputs(settings, setup.one.classes)
    for width in settings.widths:
        dims = theory.layer_shapes(setup.one.dim, width, settings.depth + 1, outputs)
        start.append(shared.norms_of_start(settings, dims).frobenius_squared.sum() ** 0.5)
    return {
        "widths": np.array(settings.widths),
        "sizes": np.array(settings.sizes),
        "shares": np.array(SHARES),
        "origin": np.array(start),
    }


def run(setup: Setup, prediction: Prediction, *, distance: shared.Distance | None = None) -> Iterator[Frame]:
    """Trains the networks one after the other, all seeds of one together.

    Args:
        distance: from (weights now, weights at the start) to (S,); the step that the notebook spells out,
            `shared.distance` when left out.
    """
    settings, step, spans = setup.settings, 0, _spans(setup)
    found: dict[str, np.ndarray] = {}
    known: dict[tuple[float, ...], dict[str, np.ndarray]] = {}
    for job, ((phase, place, *what), span) in enumerate(zip(setup.jobs, spans, strict=True)):
        if job in setup.trained:
            ended = yield from _train(setup, job, distance or shared.distance, step, span)
            if ended is None:
                return
            ensemble, step, known[tuple(what)] = ended
        blank = np.full((settings.seeds, (len(settings.widths), len(SIZES), len(SHARES))[phase]), np.nan)
        for name, value in known[tuple(what)].items():
            found.setdefault(f"{name}_{PHASES[phase]}", blank.copy())[:, place] = value
        rise = {}
        if (phase, place) == (0, len(settings.widths) // 2):
            rise = _noise_rise(ensemble, setup.sets[setup.jobs[job][3:]], settings)
        yield Frame(step, common.snapshot(found) | rise, span[1])
    yield Frame(step, {}, 1.0, "done")


def _train(
    setup: Setup, job: int, distance: shared.Distance, first: int, span: tuple[float, float]
) -> Generator[Frame, None, tuple[training.Ensemble, int, dict[str, np.ndarray]] | None]:
    """The networks of one job, the last step, and what is read off them; None if they diverge."""
    settings, (phase, _, width, size, share) = setup.settings, setup.jobs[job]
    sets = setup.sets[size, share]
    ensemble, others = (
        training.Ensemble(shared.networks(settings, sets[0], width, apart)) for apart in (0, ANOTHER)
    )
    another = others.weights()
    start = shared.copied(ensemble.weights()) if settings.start == "own" else another
    looks = {"r": shared.measuring(distance, start), "origin": lambda e: shared.from_origin(e.weights())}
    here = {"job": np.full(settings.seeds, job), "phase": np.full(settings.seeds, phase)}
    step, progress = first, span[0]
    for frame in shared.fit(settings, ensemble, sets, measure=looks, measured=MOMENTS):
        step = first + frame.step
        # The loss of a batch may rise again; the bar does not go back.
        progress = max(progress, min(0.99, span[0] + (span[1] - span[0]) * _progress(frame, settings)))
        if frame.is_tick:
            yield Frame.tick(step, progress)
            continue
        values = {name: frame.values[name] for name in ("r", "origin", "loss")}
        values |= here | {"at": np.full(settings.seeds, frame.step)}
        if frame.status == "diverged":
            yield Frame(step, values, progress, "diverged", f"H = {width}: {frame.note}")
            return None
        if frame.status == "done":
            reached = shared.reached(frame, settings, size)
            ends = {"r": values["r"], "origin": values["origin"], "reached": reached}
            ends["other"] = shared.distance(ensemble.weights(), another).cpu().numpy()
            ends |= _generalization(ensemble, sets, settings.loss) | _products(ensemble, start, values["r"])
        yield Frame(step, values, progress)
    return ensemble, step, ends


def _spans(setup: Setup) -> list[tuple[float, float]]:
    """The part of the run's progress that each job takes, roughly: what a step costs times their number."""
    _, _, width, size, share = np.array(setup.jobs).T
    cost = (width**2 + 800 * width + 2e4) * size**0.5 / width**0.5 * (1 + 3 * share)
    cost *= [job in setup.trained for job in range(len(setup.jobs))]
    return common.spans(cost)


def _progress(frame: Frame, settings: Scaling) -> float:
    """Of one training: the loss falls about exponentially, so its logarithm tells how far it is."""
    longest = frame.progress or 0.0
    if "loss" not in frame.values:
        return lengths.shown(0.0, longest)
    if settings.loss != "squared":
        return lengths.shown(0.5, longest)
    left = np.log(np.maximum(frame.values["loss"].max(), settings.stop) / settings.stop)
    by_loss = float(np.clip(1 - left / np.log(0.1 / min(settings.stop, 0.09)), 0, 1))
    return lengths.shown(by_loss, longest)


def _generalization(
    ensemble: training.Ensemble, sets: Sequence[data.Dataset], loss: str
) -> dict[str, np.ndarray]:
    """Test loss minus training loss, as the paper plots it, and the share of wrong test images: (S,) each."""
    rows = []
    for seed, one in enumerate(sets):
        model, losses = ensemble.member(seed), []
        with torch.no_grad():
            for x, y in ((one.x_train, one.y_train), (one.x_test, one.y_test)):
                f, wanted = model(x), shared.targets(loss, y, one.classes)
                squared = loss == "squared"
                losses.append(
                    (f - wanted).square().mean() if squared else nn.functional.cross_entropy(f, wanted)
                )
            guess = f.argmax(1) if f.shape[1] > 1 else (f[:, 0] > 0).long()
        rows.append((float(losses[1] - losses[0]), float((guess != y).double().mean())))
    return dict(zip(("gap", "error"), np.array(rows).T, strict=True))


def _products(ensemble: training.Ensemble, start: shared.Weights, r: np.ndarray) -> dict[str, np.ndarray]:
    """∏‖W‖₂, ∏‖W‖_F², H^(d−1)∏‖W‖₂ and the last bound of Prop. 6.2, of every copy: (S,) each."""
    rows = []
    for seed in range(ensemble.size):
        model: Any = ensemble.member(seed)
        layers = list(model.layers)
        weights = [one.weight.detach().double() for one in layers]
        z = [float(measure.spectral(start[f"layers.{k}.weight"][seed])) for k in range(len(layers))]
        spectral = shared.spectral_norms(layers).prod()
        rows.append((
            spectral, math.prod(float(weight.square().sum()) for weight in weights),
            math.prod(len(weight) for weight in weights[:-1]) * spectral,
            math.prod(norm + float(r[seed]) for norm in z),
        ))  # fmt: skip
    return dict(zip(("spectral", "frobenius", "prefixed", "with_r"), np.array(rows).T, strict=True))


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
                _one_a_class(ensemble.member(seed), one.classes), x, y, alphas=SIGMAS, draws=DRAWS,
                loss="error", relative=0.0, generator=settings.seed + seed,
            )  # fmt: skip
            rates[name].append(np.clip(rise.loss + rise.mean.numpy(), 0, 1))
    return {name: np.array(found) for name, found in rates.items()}


def _one_a_class(model: nn.Module, classes: int) -> nn.Module:
    """A network of one output f as one of two, −f and f, in which nothing else can be moved."""
    if classes > 2:
        return model
    sides = nn.Linear(1, 2, bias=False).requires_grad_(False)
    sides.weight.copy_(torch.tensor([[-1.0], [1.0]]))
    return nn.Sequential(model, sides.to(next(model.parameters()).device))


SCALING = Experiment(
    "scaling", "Does a wider network travel further?", Scaling,
    {
        "quick": Scaling(seeds=6),
        "cross-entropy": Scaling(loss="cross-entropy", lr=0.03, margin=4.0, width=160, n=256, seeds=5),
        # At the rate of the others networks of ±1 diverge, or nearly so.
        "signs": Scaling(labels="parity", label_noise=1.0, lr=0.02, stop=0.1, width=160, n=256),
        "pair": Scaling(labels="pair", lr=0.02, stop=0.1, width=160, n=256),
        "paper": Scaling(
            width=5120, n=16384, base=640, lr=0.01, stop=0.001, dataset="mnist", seeds=5, epochs=4000
        ),
        "afternoon": Scaling(width=640, n=2048, base=160, lr=0.05, stop=0.002, dataset="mnist", seeds=5),
    },
    prepare, predict, run, figure, CLAIMS,
    controls=("width", "n", "label_noise", "lr", "loss", "stop", "start"),
)  # fmt: skip
