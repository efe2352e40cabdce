"""Bad minima on purpose: which measure notices? (E9, E15; paper 2, Fig. 3)

A training set with true labels is fitted together with a confusion set: more images, with random labels.
Every such network is a global minimum of the loss on the training set, and the larger the confusion set the
worse it generalises. Prediction before training: the test error of the nearest neighbour among the same
samples, which remembers everything and learns nothing.

Norms over margin and KL are taken on the samples that were fitted, training and confusion set together, as
their loss is the one that is equal for all networks. Max sharpness is taken there, and on the training set
alone, for which all of them are global minima: the two say opposite things.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from labkit import figures
from labkit.labs import common
from labkit.labs.generalization import panels, shared
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import EVERY, Between, Evidence
from labkit.protocol.settings import knob

SHARES = (0.0, 0.125, 0.25, 0.5, 1.0)  # sizes of the confusion set, in units of the largest
RISES = 2.0  # what we call a rise, from no confusion set to the largest: by this factor; less is none
WORSE = 0.2  # and this much more test error we call a worse minimum


@dataclass(frozen=True)
class Confusion(shared.Trained):
    lr: float = shared.learning_rate(0.05)
    n: int = knob(80, "training samples with true labels", slider=(50, 300), bounds=(20, None), step=10)
    confusion: int = knob(
        160, "largest confusion set: samples with random labels (redraw)", slider=(80, 800),
        bounds=(8, None), step=40, label="confusion set",
    )  # fmt: skip
    label_noise: float = shared.label_noise("the confusion set's", 0)
    n_test: int = shared.n_test(1000)

    drawn: ClassVar[Mapping[str, int]] = {"n": 1, "confusion": 1}

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(round(share * self.confusion) for share in SHARES)


class Setup(common.Setup):
    """sets: the training set first, then the confusion set, relabelled."""

    def samples(self, seed: int, size: int) -> tuple[Tensor, Tensor]:
        """The training set of a seed and the first `size` samples of its confusion set."""
        one, count = self.sets[seed], self.settings.n + size
        y = torch.cat([one.clean_train[: self.settings.n], one.y_train[self.settings.n : count]])
        return one.x_train[:count], y


def prepare(settings: Confusion) -> Setup:
    total = settings.n + settings.confusion
    sets = tuple(
        shared.classification(settings, total, seed, settings.label_noise) for seed in common.seeds(settings)
    )
    return Setup(settings, sets, shared.networks(settings, sets[0].shape))


def predict(setup: Setup) -> Prediction:
    """Test error of the nearest neighbour among the samples that will be fitted: (S, sizes)."""
    sizes = setup.settings.sizes
    nearest = [
        [_nearest(*setup.samples(seed, size), one.x_test, one.y_test) for size in sizes]
        for seed, one in enumerate(setup.sets)
    ]
    return {"sizes": np.array(sizes), "nearest": np.array(nearest)}


def _nearest(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor) -> float:
    found = [torch.cdist(part.flatten(1), x.flatten(1)).argmin(1) for part in x_test.split(500)]
    return float((y[torch.cat(found)] != y_test).double().mean())


def run(setup: Setup, prediction: Prediction) -> Iterator[Frame]:
    settings, sizes, n = setup.settings, setup.settings.sizes, setup.settings.n
    samples = [[setup.samples(seed, size) for seed in range(len(setup.sets))] for size in sizes]
    # Random labels take far longer than true ones.
    jobs = [
        shared.Job(f"confusion set of {size}", setup.models, these, n / 4 + size)
        for size, these in zip(sizes, samples, strict=True)
    ]

    def own(s: int, model: nn.Module) -> dict[str, float]:
        x, y = samples[0][s]
        return {"sharpness_own": shared.steepest(settings, model, x, y)}

    yield from shared.family(settings, jobs, setup.sets, own)


def figure(frames: Frames, prediction: Prediction, settings: Confusion | None = None) -> figures.Chart:
    sizes = prediction["sizes"]
    reach, nearest = (-0.04 * sizes[-1], 1.04 * sizes[-1]), 100 * prediction["nearest"]
    return panels.family(
        frames, prediction, settings, "sizes",
        {**panels.DRAWN, "sharpness_own": ("on true labels", shared.SHARPNESS_OWN)},
        error=figures.Predicted(sizes, nearest, label="nearest neighbour", color=shared.TEST),
        across={"xlabel": "confusion set", "xlim": reach}, ylim=(-3, 100), by="set",
        says="Networks that fit the same images and more and more wrong labels, by every measure.",
    )  # fmt: skip


def _growth(run: Run, name: str) -> np.ndarray:
    """From no confusion set to the largest, (S,)."""
    values = run.last(name)
    return values[:, -1] / values[:, 0]


def _bad_minima(run: Run) -> tuple[Evidence, Evidence, Evidence]:
    checks = shared.converged(run)
    error = run.last("test_error")
    norms = np.stack([_growth(run, name) for name in shared.MEASURES], axis=1)
    note = f"from {error[:, 0].mean():.3f} to {error[:, -1].mean():.3f}"
    return (
        Evidence(error[:, -1] - error[:, 0], checks=checks, note=note),
        Evidence(norms, checks=checks),
        Evidence(_growth(run, "divergence"), checks=checks),
    )


def _sharp(run: Run) -> tuple[Evidence, Evidence]:
    checks = shared.converged(run)
    return (
        Evidence(_growth(run, "sharpness_own"), checks=checks),
        Evidence(_growth(run, "sharpness"), checks=checks),
    )


_TRUE = World("true labels in the confusion set, too", {"label_noise": 0.0, "seeds": 1})

E9 = Claim(
    "E9", "finding",
    "Of two global minima of one training loss, the one found with the largest confusion set generalises "
    "worse than the one found with none, and its norms over margin and its divergence at an expected "
    f"sharpness of .05 are larger, by a factor of {RISES:g} or more.",
    "paper 2, Fig. 3",
    (
        Between("test error with the largest confusion set, less that with none", low=WORSE, by=EVERY),
        Between("growth of the norm over margin", tuple(shared.NAMES.values()),
                low=RISES, by=EVERY),
        Between("growth of KL at an expected sharpness of .05", low=RISES, by=EVERY),
    ),
    _bad_minima, "holds",
    {"holds": "the worse minima have the larger norms over margin and the larger divergence",
     "fails": "the minima do not get worse, or a norm or the divergence does not notice"},
    (_TRUE,),
)  # fmt: skip
E15 = Claim(
    "E15", "finding",
    "Max sharpness does not tell these minima apart: from no confusion set to the largest it grows by less "
    f"than a factor of {RISES:g}, on the training samples as on all samples that were fitted.",
    "paper 2, Fig. 3",
    (
        Between("growth of max sharpness on the training samples", high=RISES, by=EVERY),
        Between("growth of max sharpness on all fitted samples", high=RISES, by=EVERY),
    ),
    _sharp, "fails",
    {"holds": "max sharpness stays, on either set of samples",
     "fails": "on the training samples max sharpness rises with the test error, and so does tell them apart"},
    (replace(_TRUE, word="holds"),),
    "on the training samples, for which all networks are global minima, sharpness rises with the error; on "
    "all fitted samples it does not",
)  # fmt: skip

CONFUSION = Experiment(
    "confusion", "Bad minima on purpose: which measure notices?", Confusion,
    {
        "quick": Confusion(),
        "paper": Confusion(**shared.CIFAR, network="vgg", n=10_000, confusion=16_000),
        "afternoon": Confusion(
            dataset="cifar10", network="vgg", width=8, n=100, confusion=200, n_test=500, lr=0.01, stop=1e-3,
            epochs=400, ascent=40, draws=10, seeds=1,
        ),
    },
    prepare, predict, run, figure, (E9, E15),
    controls=("confusion", "n", "width", "lr", "stop", "alpha", "label_noise"),
)  # fmt: skip
