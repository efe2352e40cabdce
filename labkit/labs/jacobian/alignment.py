"""Does the Jacobian learn?
Share of the labels on I, from the first to the last Jacobian, by corruption (J11, J13, J17).

Tables 1–18 and Figs. 7, 15, 27. Shares are ratios of norms, ‖Π_I y‖/‖y‖, and must be read against chance:
√(r/nK) for an arbitrary direction, √(1/K + (1 − 1/K)r/nK) for one-hot labels, whose constant part lies in I
anyway.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labkit import data, figures, krylov, models, training
from labkit.labs import common
from labkit.labs.jacobian import shared
from labkit.labs.jacobian.published import RANK, SETS, published
from labkit.measure import jacobian, rows
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run, Runs
from labkit.protocol.rules import EVERY, Between, Evidence
from labkit.protocol.settings import knob
from labkit.theory import jacobian as theory

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
NAMES = tuple(f"{level:.0%}" for level in LEVELS)


@dataclass(frozen=True)
class Alignment(common.OnData):
    width: int = knob(64, "hidden units a layer", slider=(16, 256), bounds=(1, None), scale="log2")
    depth: int = knob(2, "hidden layers", slider=(1, 4), bounds=(1, 50), step=1)
    lr: float = knob(
        0.1,
        "learning rate on (1/2n)‖f − y‖²",
        slider=(0.01, 0.3),
        bounds=(1e-6, 100),
        scale="log",
        label="learning rate",
    )
    adam_lr: float = knob(
        0.003, "learning rate of Adam", slider=(0.0003, 0.03), bounds=(1e-7, 10), scale="log"
    )
    momentum: float = knob(0.9, "momentum of SGD", slider=(0, 0.95), bounds=(0, 0.999), step=0.05)
    steps: int = knob(400, "training steps", slider=(200, 5000), bounds=(10, None), scale="log")
    batch_size: int = knob(
        0, "images a step; 0 takes all of them", slider=(0, 256), bounds=(0, None), step=32
    )
    decay_at: float = knob(
        1.0,
        "share of the steps after which the learning rate is a tenth",
        slider=(0.5, 1),
        bounds=(0, 1),
        step=0.05,
    )
    network: str = knob(
        "mlp",
        "mlp, or the paper's resnet20 without batch norm, for which width is that of its first group",
        choices=("mlp", "resnet20"),
    )
    output_scale: float = knob(
        1.0, "factor on the outputs", slider=(0.01, 1), bounds=(1e-6, 1e3), scale="log"
    )
    rank: int = knob(
        50, "dimension r of the information space", slider=(5, 200), bounds=(1, None), step=5, remeasures=True
    )
    n: int = knob(200, "training images", slider=(50, 400), bounds=(10, None), step=50)
    n_test: int = knob(300, "test images, at most", slider=(100, 1000), bounds=(10, None), step=100)
    classes: int = knob(10, "classes K", slider=(2, 10), bounds=(2, None), step=1)
    dataset: str = knob("digits", "name of a data set, or path to an .npz")


@dataclass(frozen=True)
class Setup:
    settings: Alignment
    sets: tuple[tuple[data.Dataset, ...], ...]  # [level][seed]; a seed has the same images at every level
    models: tuple[nn.Module, ...]  # one a seed

    def targets(self, level: int, seed: int) -> Tensor:
        return data.one_hot(self.sets[level][seed].y_train, self.settings.classes)

    def asked(self, level: int, seed: int) -> tuple[Tensor, Tensor]:
        """y and r₀ of one level and seed, (n, K)."""
        y = self.targets(level, seed)
        with torch.no_grad():
            outputs = [self.models[seed](part) for part in self.sets[level][seed].x_train.split(1000)]
        return y, torch.cat(outputs) - y


def prepare(settings: Alignment) -> Setup:
    sets = tuple(
        common.datasets(
            settings,
            n_test=settings.n_test,
            normalize="none",
            label_noise=level,
            flatten=settings.network == "mlp",
        )
        for level in LEVELS
    )
    inputs = sets[0][0].x_train.shape[1]  # numbers of a vector, channels of an image
    return Setup(settings, sets, tuple(_network(settings, inputs, seed) for seed in common.seeds(settings)))


def _network(settings: Alignment, inputs: int, seed: int) -> nn.Module:
    if settings.network == "resnet20":
        return models.resnet20(
            settings.classes, inputs, width=settings.width, batch_norm=False,
            output_scale=settings.output_scale, seed=seed, device=settings.device,
        )  # fmt: skip
    return models.mlp(
        inputs, settings.width, settings.depth, settings.classes, init="glorot",
        output_scale=settings.output_scale, seed=seed, device=settings.device,
    )  # fmt: skip


def predict(setup: Setup) -> Prediction:
    """The levels of chance."""
    settings = setup.settings
    size, classes = settings.n * settings.classes, settings.classes
    ranks = np.unique([0, *np.geomspace(1, size, 60).round().astype(int)])
    return {
        "levels": np.array(LEVELS), "size": np.asarray(size), "guess": np.asarray(1 - 1 / classes),
        "chance": np.asarray(theory.chance_share(settings.rank, size)),
        "energies": ranks / size,
        "chances": np.array([theory.chance_share(rank, size) for rank in ranks]),
        "one_hot_chances": np.array([theory.one_hot_chance_share(rank, size, classes) for rank in ranks]),
    }  # fmt: skip


def shares(model: nn.Module, x: Tensor, y: Tensor, r0: Tensor, rank: int) -> tuple[np.ndarray, float, float]:
    """‖Π_I y‖/‖y‖ for one-hot labels, on the first 1 to `rank` directions; at `rank` for centred labels and
    for the residual of the start (tables 1 to 18).
    """
    return _shares_on(krylov.svd(jacobian(model, x), rank), y, r0)


def _shares_on(found: krylov.SVD, y: Tensor, r0: Tensor) -> tuple[np.ndarray, float, float]:
    vectors = torch.stack([rows(v).double() for v in (y, y - 1 / y.shape[1], r0)], dim=1)
    energy = (found.U.double().T @ vectors).square().cumsum(0) / vectors.square().sum(0)
    curve = energy.sqrt().cpu().numpy()
    return curve[:, 0], float(curve[-1, 1]), float(curve[-1, 2])


def _named(when: str, found: list[Any], shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Frame values (S, L) from `shares` of each seed and level."""
    curves, centred, residual = (
        np.array(one).reshape(*shape, *np.shape(one[0])) for one in zip(*found, strict=True)
    )
    return {
        when: curves[..., -1],
        f"{when}_curve": curves,
        f"{when}_centred": centred,
        f"{when}_residual": residual,
    }


def run(setup: Setup, prediction: Prediction) -> Iterator[Frame]:
    settings, seeds = setup.settings, len(setup.models)
    shape, start = (seeds, len(LEVELS)), []
    for seed, model in enumerate(setup.models):
        svd = krylov.svd(jacobian(model, setup.sets[0][seed].x_train), settings.rank)
        start += [_shares_on(svd, *setup.asked(level, seed)) for level in range(len(LEVELS))]
        yield Frame.tick(0, 0.3 * (seed + 1) / seeds)
    yield Frame(0, _named("initial", start, shape), 0.3)

    # All levels and seeds are one ensemble: copy level·seeds + seed.
    pairs = [(level, seed) for level in range(len(LEVELS)) for seed in range(seeds)]
    ensemble = training.Ensemble([setup.models[seed] for _, seed in pairs])
    diverged = yield from _train(setup, ensemble, pairs, "sgd", settings.lr, settings.momentum, (0.3, 0.6), 0)
    adam = training.Ensemble(setup.models)
    diverged = diverged or (
        yield from _train(
            setup, adam, pairs[:seeds], "adam", settings.adam_lr, 0.0, (0.6, 0.7), settings.steps
        )
    )
    if diverged:
        return

    final: dict[tuple[int, int], Any] = {}
    errors = np.empty(shape)
    for index, (level, seed) in enumerate(pairs):
        one, model = setup.sets[level][seed], ensemble.member(index)
        final[seed, level] = shares(model, one.x_train, *setup.asked(level, seed), settings.rank)
        with torch.no_grad():
            guesses = torch.cat([model(part).argmax(1) for part in one.x_test.split(1000)])
        errors[seed, level] = float((guesses != one.y_test).double().mean())
        yield Frame.tick(settings.steps, 0.7 + 0.25 * index / len(pairs))
    adapted = np.empty(seeds)
    for seed in range(seeds):
        x = setup.sets[0][seed].x_train
        adapted[seed] = shares(adam.member(seed), x, *setup.asked(0, seed), settings.rank)[0][-1]
        yield Frame.tick(settings.steps, 0.95)
    ended = _named("final", [final[place] for place in np.ndindex(*shape)], shape)
    yield Frame(settings.steps, ended | {"test_error": errors, "adam": adapted}, 1.0, "done")


def _train(
    setup: Setup, ensemble: training.Ensemble, pairs: Sequence[tuple[int, int]], optimizer: str, lr: float,
    momentum: float, span: tuple[float, float], first: int,
) -> Generator[Frame, None, bool]:  # fmt: skip
    """Trains and passes on bare ticks, and a divergence if there is one; says whether there was.

    Steps are shown from `first` on, and not beyond the length of one training.
    """
    frames = training.train(
        ensemble,
        [setup.sets[level][seed].x_train for level, seed in pairs],
        [setup.targets(*pair) for pair in pairs],
        loss="half-mean",
        optimizer=optimizer,
        lr=lr,
        momentum=momentum,
        steps=setup.settings.steps,
        batch_size=setup.settings.batch_size or None,
        schedule={round(setup.settings.decay_at * setup.settings.steps): 0.1},
        measure_at=max(1, setup.settings.steps // 50),
        seed=[setup.settings.seed + seed for _, seed in pairs],
    )
    for frame in frames:
        progress = span[0] + (span[1] - span[0]) * (frame.progress or 0.0)
        if frame.status == "diverged":
            note = frame.note if optimizer == "sgd" else frame.note.replace("× lr", "× adam_lr")
            yield Frame(max(first, frame.step), {}, progress, "diverged", note)
            return True
        yield Frame.tick(max(first, frame.step), progress)
    return False


def figure(
    frames: Frames, prediction: Prediction, previous: Runs = (), settings: Alignment | None = None
) -> figures.Chart:
    corrupted = {"xlabel": "label corruption", "xlim": (-0.05, 1.05), "ylim": (0, 1.02)}
    return figures.Chart.of(
        settings,
        "How much of the labels lies in the information space, for clean and for wrong labels; single "
        "points are the paper's ResNet20.",
        figures.Panel(
            "‖Π_I y‖ / ‖y‖ for every r", tuple(_curves(frames, prediction, previous)), xlabel="r / nK",
            xscale="log", xlim=(5e-5, 1), ylim=(0, 1.02),
        ),
        figures.Panel(
            "The same for y − 1/K, at r", _centred(frames, prediction, previous),
            **corrupted,  # type: ignore[arg-type]
        ),
        figures.Panel(
            "Nuisance and test error", _errors(frames, prediction), **corrupted,  # type: ignore[arg-type]
        ),
    )  # fmt: skip


def _centred(frames: Frames, prediction: Prediction, previous: Runs) -> tuple[figures.Mark, ...]:
    levels = prediction["levels"]
    chance = np.full(len(levels), prediction["chance"])
    marks: list[figures.Mark] = [figures.Predicted(levels, chance, label="any direction", color="ink")]
    for old in previous:
        if (found := common.newest(old.frames, "final_centred")) is not None:
            marks.append(figures.Earlier(levels, found))
    for name, label, color in (
        ("initial", "first Jacobian", shared.TRAIN), ("final", "last Jacobian", shared.INFORMATION),
    ):  # fmt: skip
        if (found := common.newest(frames, f"{name}_centred")) is not None:
            marks.append(figures.Points(levels, found, label=label, color=color))
    return tuple(marks)


def _errors(frames: Frames, prediction: Prediction) -> tuple[figures.Mark, ...]:
    guess = figures.Level(float(prediction["guess"]), label="guessing, 1 − 1/K")
    final, error = common.newest(frames, "final"), common.newest(frames, "test_error")
    if final is None or error is None:
        return (guess,)
    levels, missing = prediction["levels"], np.sqrt(1 - final**2)
    return (
        guess,
        figures.Points(levels, missing, label="share of y on N, last Jacobian", color=shared.NUISANCE),
        figures.Points(levels, error, label="test error", color=shared.TEST),
    )


def _curves(frames: Sequence[Frame], prediction: Prediction, previous: Sequence[Run]) -> list[figures.Mark]:
    """The share on I against r, at both ends of corruption, beside chance and the paper's tables."""
    share = prediction["energies"]
    marks: list[figures.Mark] = [
        figures.Predicted(share[1:], prediction["one_hot_chances"][1:], label="one-hot", color="ink"),
        figures.Predicted(share[1:], prediction["chances"][1:], label="any direction", color="ink"),
    ]
    kinds = (
        ("initial", 0, "clean, first J", shared.TRAIN),
        ("final", 0, "clean, last J", shared.INFORMATION),
        ("initial", -1, "all wrong, first J", shared.TEST),
        ("final", -1, "all wrong, last J", shared.NUISANCE),
    )
    for when, level, label, color in kinds:
        for run in previous:
            found = common.newest(run.frames, f"{when}_curve")
            if found is not None:
                x = np.arange(1, found.shape[2] + 1) / int(run.prediction["size"])
                marks.append(
                    figures.Earlier(x, found[:, level], label="earlier run" if label == kinds[0][2] else "")
                )
        found = common.newest(frames, f"{when}_curve")
        if found is not None:
            x = np.arange(1, found.shape[2] + 1) / int(prediction["size"])
            marks.append(figures.Measured(x, found[:, level], label=label, color=color))
        noise = f"{float(prediction['levels'][level]):.2f}"
        paper = [row for row in published() if row["dataset"] != "cifar10-3class" and row["part"] == "train"
                 and (row["noise"], row["jacobian"]) == (noise, when)]  # fmt: skip
        marks += [
            figures.Points([RANK / SETS[row["dataset"]][1]], [[float(row["share"])]], color=color, line=False)
            for row in paper
        ]
    return marks


def _adapts(run: Run) -> tuple[Evidence, Evidence]:
    initial, final = run.last("initial_centred"), run.last("final_centred")
    gain = final - initial
    chance = f"chance {float(run.prediction['chance']):.2f}"
    return (
        Evidence(gain, note=f"share {_pairs(initial, final)} ({chance})"),
        Evidence(
            gain[:, 0] - gain[:, -1],
            note=f"one-hot labels {_pairs(run.last('initial'), run.last('final'))}",
        ),
    )  # fmt: skip


def _pairs(first: np.ndarray, second: np.ndarray) -> str:
    return ", ".join(
        f"{a:.2f} → {b:.2f}" for a, b in zip(first.mean(axis=0), second.mean(axis=0), strict=True)
    )


def _nuisance_and_error(run: Run) -> tuple[Evidence, Evidence]:
    nuisance, error = np.sqrt(1 - run.last("final") ** 2), run.last("test_error")
    half = LEVELS.index(0.5)
    return tuple(
        Evidence(
            np.stack([values[:, half], values[:, -1]], axis=1) - values[:, :1],
            note=f"at {', '.join(NAMES)}: {', '.join(f'{v:.2f}' for v in values.mean(axis=0))}",
        )
        for values in (nuisance, error)
    )  # type: ignore[return-value]


def _adam(run: Run) -> Evidence:
    adam, sgd = run.last("adam"), run.last("final")[:, 0]
    return Evidence(
        adam - sgd,
        note=f"share on I of the last Jacobian: Adam {adam.mean():.3f}, SGD {sgd.mean():.3f}; "
        "the paper .9969 and .98743",
    )


_SHUFFLED = World(
    "the rows of J in another order", faults={f"{__name__}:jacobian": shared.shuffled_rows}
)  # fmt: skip
J11 = Claim(
    "J11", "finding",
    "The share of the labels y − 1/K on I rises from the first to the last Jacobian at every level of "
    "corruption, and rises more for clean labels than for labels that are all corrupted.",
    "paper 4, Tables 1–18",
    (
        Between("gain of the share on I, by corruption", NAMES, low=0.02, by=EVERY),
        Between("gain of the share on I, 0 % minus 100 % corruption", low=0.05, by=EVERY),
    ),
    _adapts,
    says={"holds": "the labels move into the information space, clean ones further than corrupted ones",
          "fails": "the share does not rise at some level, or for clean labels no more than for corrupted"},
    worlds=(World("ten training steps", {"steps": 10}), _SHUFFLED),
)  # fmt: skip
J13 = Claim(
    "J13", "finding",
    "The nuisance share of the labels on the last Jacobian and the test error both rise with corruption.",
    "paper 4, Figs. 7, 15, 27",
    (
        Between("rise of ‖Π_N y‖/‖y‖ with corruption", ("0 to 50 %", "0 to 100 %"), low=0.2, by=EVERY),
        Between("rise of the test error with corruption", ("0 to 50 %", "0 to 100 %"), low=0.2, by=EVERY),
    ),
    _nuisance_and_error,
    says={"holds": "both rise with corruption", "fails": "one of the two does not rise with corruption"},
    worlds=(World("ten training steps", {"steps": 10}), _SHUFFLED),
)  # fmt: skip
J17 = Claim(
    "J17", "finding", "Adam adapts the Jacobian to the labels more than SGD does.",
    "paper 4, Tables 8 and 9",
    (Between("share of clean labels on I of the last Jacobian, Adam minus SGD", low=0.005, by=EVERY),),
    _adam,
    expected="fails",
    says={"holds": "Adam is ahead in every seed", "fails": "Adam is not ahead in every seed"},
    worlds=(World("a tenth of the learning rate of SGD", {"lr": 0.01}, word="holds"),),
    because="the paper has one run of each, on three classes of CIFAR-10; on digits SGD is ahead in most "
    "seeds, and the rates decide",
)  # fmt: skip

ALIGNMENT = Experiment(
    "alignment", "Does the Jacobian learn?", Alignment,
    {
        "quick": Alignment(),
        # App. C.2: CIFAR-10, 800 epochs of 391 steps, the rate divided by ten at 760. For a GPU.
        "paper": Alignment(
            dataset="cifar10", network="resnet20", width=16, output_scale=0.025, n=50_000, n_test=10_000,
            lr=0.1, momentum=0.0, batch_size=128, steps=800 * 391, decay_at=0.95,
        ),
    },
    prepare, predict, run, figure, (J11, J13, J17), controls=("width", "depth", "lr", "rank", "steps"),
)  # fmt: skip
