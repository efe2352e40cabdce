"""Does the Jacobian learn?
Share of the labels on I, from the first to the last Jacobian, by corruption (J11, J13, J17).

Tables 1–18 and Figs. 7, 15, 27. Shares are ratios of norms, ‖Π_I y‖/‖y‖, and must be read against chance:
√(r/nK) for an arbitrary direction, √(1/K + (1 − 1/K)r/nK) for one-hot labels, whose constant part lies in I
anyway.
"""

from __future__ import annotations

import csv
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import torch
from torch import Tensor, nn

from labkit import data, figures, krylov, models, training
from labkit.labs import common
from labkit.labs.jacobian import shared
from labkit.measure import jacobian, split
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Prediction, Run
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
    size = settings.n * settings.classes
    return {
        "levels": np.array(LEVELS),
        "chance": np.asarray(theory.chance_share(settings.rank, size)),
        "one_hot_chance": np.asarray(theory.one_hot_chance_share(settings.rank, size, settings.classes)),
    }


def shares(model: nn.Module, x: Tensor, y: Tensor, rank: int) -> tuple[float, float, float, krylov.SVD]:
    """‖Π_I y‖/‖y‖ for one-hot labels and for centred ones, and ‖J_I†y‖/‖y‖ (tables 3 to 18)."""
    found = krylov.svd(jacobian(model, x), rank)
    return *_shares_on(found, y, rank), found


def _shares_on(found: krylov.SVD, y: Tensor, rank: int) -> tuple[float, float, float]:
    one_hot = split(found, y, rank=rank)
    centred = split(found, y - 1 / y.shape[1], rank=rank)
    return (
        float(one_hot.share_information),
        float(centred.share_information),
        float(one_hot.pinv_norm / y.norm()),
    )


def run(setup: Setup, prediction: Prediction) -> Iterator[Frame]:
    settings, seeds = setup.settings, len(setup.models)
    start = []
    for seed, model in enumerate(setup.models):
        *_, found = shares(model, setup.sets[0][seed].x_train, setup.targets(0, seed), settings.rank)
        start.append(
            [_shares_on(found, setup.targets(level, seed), settings.rank) for level in range(len(LEVELS))]
        )
        yield Frame.tick(0, 0.3 * (seed + 1) / seeds)
    begun = np.array(start)
    yield Frame(
        0, {"initial": begun[..., 0], "initial_centred": begun[..., 1], "initial_pinv": begun[..., 2]}, 0.3
    )

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

    final, errors, adapted = [], [], []
    for index, (level, seed) in enumerate(pairs):
        one, model = setup.sets[level][seed], ensemble.member(index)
        final.append(shares(model, one.x_train, setup.targets(level, seed), settings.rank)[:3])
        with torch.no_grad():
            guesses = torch.cat([model(part).argmax(1) for part in one.x_test.split(1000)])
        errors.append(float((guesses != one.y_test).double().mean()))
        yield Frame.tick(settings.steps, 0.7 + 0.25 * index / len(pairs))
    for seed in range(seeds):
        model = adam.member(seed)
        adapted.append(shares(model, setup.sets[0][seed].x_train, setup.targets(0, seed), settings.rank)[:3])
        yield Frame.tick(settings.steps, 0.95)
    ended = np.array(final).reshape(len(LEVELS), seeds, 3).swapaxes(0, 1)
    yield Frame(
        settings.steps,
        {
            "final": ended[..., 0], "final_centred": ended[..., 1], "final_pinv": ended[..., 2],
            "test_error": np.array(errors).reshape(len(LEVELS), seeds).T, "adam": np.array(adapted)[:, 0],
        },
        1.0, "done",
    )  # fmt: skip


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
    frames: Sequence[Frame],
    prediction: Prediction,
    previous: Sequence[Run] = (),
    settings: Alignment | None = None,
) -> figures.Chart:
    levels = prediction["levels"]
    marks: dict[str, list[figures.Mark]] = {"one-hot": [], "centred": [], "error": []}
    marks["one-hot"].append(
        figures.Predicted(
            levels, np.full(len(levels), prediction["one_hot_chance"]), label="chance, one-hot", color="ink"
        )
    )
    marks["centred"].append(
        figures.Predicted(
            levels, np.full(len(levels), prediction["chance"]), label="chance, any direction", color="ink"
        )
    )
    for which, suffix in (("one-hot", ""), ("centred", "_centred")):
        for old in previous:
            marks[which].extend(
                figures.Earlier(levels, f.values[f"final{suffix}"])
                for f in old.frames
                if f"final{suffix}" in f.values
            )
        for name, label, color in (
            ("initial", "first Jacobian", shared.TRAIN),
            ("final", "last Jacobian", shared.INFORMATION),
        ):
            found = common.newest(frames, name + suffix)
            if found is not None:
                marks[which].append(figures.Points(levels, found, label=label, color=color))
    final, error = common.newest(frames, "final"), common.newest(frames, "test_error")
    if final is not None and error is not None:
        marks["error"].append(
            figures.Points(
                levels, np.sqrt(1 - final**2), label="share of y on N, last Jacobian", color=shared.NUISANCE
            )
        )
        marks["error"].append(figures.Points(levels, error, label="test error", color=shared.TEST))
    titles = (
        ("one-hot", "‖Π_I y‖ / ‖y‖"),
        ("centred", "the same for y − 1/K"),
        ("error", "Nuisance and test error"),
    )
    panels = tuple(
        figures.Panel(
            title, tuple(marks[which]), xlabel="label corruption", xlim=(-0.05, 1.05), ylim=(0, 1.02)
        )
        for which, title in titles
    )
    return figures.Chart(
        panels,
        caption=figures.caption(
            "How much of the labels lies in the information space, as more of them are wrong.", settings
        ),
    )


def published() -> list[dict[str, str]]:
    """The figures that paper 4 prints: dataset, part, noise, which, jacobian, share."""
    with files("labkit.labs.jacobian").joinpath("published.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


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
