"""What `alignment` trains: networks on labels of five levels of corruption (paper 4, App. C.2 to C.4)."""

from __future__ import annotations

import copy
import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from torch import Tensor, nn

from labkit import data, models, training
from labkit.labs import common
from labkit.labs.jacobian import shared
from labkit.protocol.experiment import Frame
from labkit.protocol.settings import knob

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
RANKS = 200  # of the information space, looked at together where JJᵀ is formed
# For each level: the share of `steps` that a training takes, and where in it the rate falls to a tenth
# (App. C.2 to C.4: 400 or 800 epochs, /10 at 760; 100 or 400, at 60 or 360; 400 or 800, at 260 and 360, ...).
SCHEDULES = {
    "constant": 5 * ((1.0, ()),),
    "cifar10": ((0.5, ()), *4 * ((1.0, (0.95,)),)),
    "mnist": ((0.25, (0.6,)), *4 * ((1.0, (0.9,)),)),
    "three-classes": (
        (0.5, (0.65, 0.9)), (1.0, (0.625,)), (1.0, (0.875,)), (1.0, (0.875,)), (1.0, (0.625, 0.875)),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Alignment(common.OnData):
    width: int = knob(64, "hidden units a layer", slider=(16, 256), bounds=(1, None), scale="log2")
    depth: int = knob(2, "hidden layers", slider=(1, 4), bounds=(1, 50), step=1)
    lr: float = shared.learning_rate(0.1, "learning rate on (1/2n)‖f − y‖²", (0.01, 0.3), most=100)
    adam_lr: float = knob(
        0.003, "learning rate of Adam", slider=(0.0003, 0.03), bounds=(1e-7, 10), scale="log"
    )
    momentum: float = knob(0.9, "momentum of SGD", slider=(0, 0.95), bounds=(0, 0.999), step=0.05)
    steps: int = shared.steps(400, "training steps")
    batch_size: int = knob(
        0, "images a step; 0 takes all of them", slider=(0, 256), bounds=(0, None), step=32
    )
    schedule: str = knob(
        "constant", "lengths of the trainings, and where their rate falls: constant, or as the paper's",
        choices=tuple(SCHEDULES),
    )  # fmt: skip
    augment: bool = knob(False, "crops and mirrors the images of each step, for resnet20")
    network: str = knob(
        "mlp",
        "mlp, or the paper's resnet20 without batch norm, for which width is that of its first group",
        choices=("mlp", "resnet20"),
    )
    output_scale: float = knob(
        1.0, "factor on the outputs", slider=(0.01, 1), bounds=(1e-6, 1e3), scale="log"
    )
    rank: int = knob(
        50, "dimension r of the information space", slider=(5, RANKS), bounds=(1, None), step=5,
        remeasures=True,
    )  # fmt: skip
    n: int = knob(200, "training images", slider=(50, 400), bounds=(10, None), step=50)
    n_test: int = knob(300, "test images, at most", slider=(100, 1000), bounds=(10, None), step=100)
    classes: int = knob(10, "classes K", slider=(2, 10), bounds=(2, None), step=1)
    dataset: str = knob("digits", "name of a data set, or path to an .npz")

    @property
    def limits(self) -> Mapping[str, tuple[int, str]]:
        if self.network == "mlp":
            return {"rank": (self.n * self.classes, "n·K")}
        return {"rank": (min(self.n, self.n_test) * self.classes, "K times n or n_test,")}


class Setup(common.Setup):
    """Its sets are [level][seed]: a seed has the same images at every level."""

    def images(self, seed: int, part: str) -> Tensor:
        one = self.sets[0][seed]
        return one.x_train if part == "train" else one.x_test

    def targets(self, level: int, seed: int, part: str = "train") -> Tensor:
        one = self.sets[level][seed]
        return data.one_hot(one.y_train if part == "train" else one.y_test, self.settings.classes)

    def asked(self, level: int, seed: int, part: str) -> tuple[Tensor, Tensor]:
        """y and r₀ of one level and seed, (n, K)."""
        y = self.targets(level, seed, part)
        return y, common.outputs(self.models[seed], self.images(seed, part)).to(y.dtype) - y


def prepare(settings: Alignment) -> Setup:
    small, seeds = settings.network == "mlp", common.seeds(settings)
    clean = common.datasets(settings, n_test=settings.n_test, normalize="none", flatten=small)
    # Every level has the same images, and they are there once: labels alone are made anew.
    both = list(zip(clean, seeds, strict=True))
    sets = tuple(
        tuple(one.with_label_noise(level, "strict", seed) if level else one for one, seed in both)
        for level in LEVELS
    )
    if small:
        return Setup(settings, sets, shared.untrained(settings, clean, settings.output_scale).models)
    nets = (
        models.resnet20(
            settings.classes, clean[0].x_train.shape[1], width=settings.width, batch_norm=False,
            output_scale=settings.output_scale, seed=seed, device=settings.device,
        )
        for seed in seeds
    )  # fmt: skip
    return Setup(settings, sets, tuple(nets))


@dataclass(frozen=True)
class Trained:
    """A network at its end, and where its test error was least."""

    final: nn.Module
    dip: nn.Module
    dip_step: int


Key = tuple[str, int, int]  # optimizer, level, seed


def error_of(setup: Setup, model: nn.Module, seed: int) -> float:
    """The test error."""
    one = setup.sets[0][seed]
    return float((common.outputs(model, one.x_test).argmax(1) != one.y_test).double().mean())


def trained(setup: Setup, span: tuple[float, float]) -> Generator[Frame, None, dict[Key, Trained] | None]:
    """All networks, trained; None after a divergence, which is passed on.

    Small ones of one length are one ensemble; large ones, which no ensemble would make faster, come singly.
    """
    settings = setup.settings
    pairs = [("sgd", level, seed) for level in range(len(LEVELS)) for seed in range(len(setup.models))]
    pairs += [("adam", 0, seed) for seed in range(len(setup.models))]
    plan = SCHEDULES[settings.schedule]

    def together(key: Key) -> object:
        return key if settings.network == "resnet20" else (key[0], plan[key[1]])

    groups = [tuple(group) for _, group in groupby(pairs, together)]
    parts = common.spans((plan[group[0][1]][0] * len(group) for group in groups), *span)
    found: dict[Key, Trained] = {}
    shown = 0
    for group, part in zip(groups, parts, strict=True):
        one = yield from _train(setup, group, part, shown)
        if one is None:
            return None
        found |= one
        shown = max(shown, _length(settings, group))
    return found


def _length(settings: Alignment, group: Sequence[Key]) -> int:
    return max(1, round(SCHEDULES[settings.schedule][group[0][1]][0] * settings.steps))


def _train(
    setup: Setup, group: Sequence[Key], span: tuple[float, float], first: int
) -> Generator[Frame, None, dict[Key, Trained] | None]:
    """Trains and passes on bare ticks, and a divergence if there is one.

    Steps are shown from `first` on.
    """
    ensemble, optimizer = _copies(setup, group), group[0][0]
    dips: dict[Key, tuple[float, int, nn.Module | None]] = dict.fromkeys(group, (math.inf, 0, None))
    for frame in _frames(setup, ensemble, group):
        progress = span[0] + (span[1] - span[0]) * (frame.progress or 0.0)
        if frame.status == "diverged":
            note = frame.note if optimizer == "sgd" else frame.note.replace("× lr", "× adam_lr")
            yield Frame(max(first, frame.step), {}, progress, "diverged", note)
            return None
        for place, key in enumerate(group) if "error" in frame.values else ():
            if (error := float(frame.values["error"][place])) < dips[key][0]:
                dips[key] = error, frame.step, ensemble.member(place)
        yield Frame.tick(max(first, frame.step), progress)
    ended = {}
    for place, key in enumerate(group):
        final, (_, step, dip) = _plain(ensemble.member(place)), dips[key]
        ended[key] = Trained(final, final if dip is None else _plain(dip), step)
    return ended


def _copies(setup: Setup, group: Sequence[Key]) -> training.Ensemble:
    settings = setup.settings
    if settings.network == "mlp":
        return training.Ensemble([setup.models[seed] for _, _, seed in group])
    ((_, _, seed),) = group
    net = copy.deepcopy(setup.models[seed])
    if settings.augment:
        channels = setup.images(seed, "train").shape[1]
        net = models.augmented(net, channels, seed=settings.seed + seed)
    return training.Ensemble.sharing(net)


def _plain(model: nn.Module) -> nn.Module:
    return model.network if isinstance(model, models.Augmented) else model


def _frames(setup: Setup, ensemble: training.Ensemble, group: Sequence[Key]) -> Iterator[Frame]:
    settings, length = setup.settings, _length(setup.settings, group)
    optimizer, level, first = group[0]
    drops = SCHEDULES[settings.schedule][level][1]
    how: dict[str, Any] = {"optimizer": "adam", "lr": settings.adam_lr}
    if optimizer == "sgd":
        how = {"lr": settings.lr, "momentum": settings.momentum}
    if settings.network == "resnet20":

        def error(ensemble: training.Ensemble) -> np.ndarray:
            return np.array([error_of(setup, _plain(ensemble.member(0)), first)])

        how["measure"] = {"error": error}
    return training.train(
        ensemble,
        [setup.images(seed, "train") for _, _, seed in group],
        [setup.targets(level, seed) for _, level, seed in group],
        loss="half-mean",
        steps=length,
        batch_size=settings.batch_size or None,
        schedule={round(at * length): 0.1 ** (place + 1) for place, at in enumerate(drops)},
        measure_at=max(1, length // 50),
        seed=[settings.seed + seed for _, _, seed in group],
        **how,
    )
