"""Bad minima on purpose: which measure notices? (E9; paper 2, Fig. 3)

A training set with true labels is fitted together with a confusion set: more images, with random labels.
Every such network is a global minimum of the loss on the training set, and the larger the confusion set the
worse it generalises. Prediction before training: the test error of the nearest neighbour among the same
samples, which remembers everything and learns nothing.

All measures are taken on the samples that were fitted, training and confusion set together, because their
loss is the one that is equal for all networks. On the training set alone, whose loss is not matched, max
sharpness climbs too; it is drawn beside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from labkit import data, figures, training
from labkit.labs import common
from labkit.labs.generalization import panels, shared
from labkit.protocol.claims import Claim
from labkit.protocol.experiment import Experiment, Frame, Prediction, Run
from labkit.protocol.rules import AtMost, Evidence, Monotone
from labkit.protocol.settings import knob
from labkit.protocol.statistics import rank_correlation

SHARES = (0.0, 0.125, 0.25, 0.5, 1.0)  # sizes of the confusion set, in units of the largest
STAYS = 1.5  # what we call no rise: less than this factor above the smallest size


@dataclass(frozen=True)
class Confusion(shared.Trained):
    lr: float = knob(
        0.05, "learning rate of SGD with momentum .9 and batches of 64", slider=(0.005, 0.1),
        bounds=(1e-6, 100), scale="log", label="learning rate",
    )  # fmt: skip
    n: int = knob(80, "training samples with true labels", slider=(50, 300), bounds=(20, None), step=10)
    confusion: int = knob(
        160, "largest confusion set: samples with random labels (redraw)", slider=(80, 800),
        bounds=(8, None), step=40, label="confusion set",
    )  # fmt: skip
    n_test: int = knob(1000, "test samples, at most", slider=(100, 1000), bounds=(10, None), step=100)

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(round(share * self.confusion) for share in SHARES)


@dataclass(frozen=True)
class Setup:
    settings: Confusion
    sets: tuple[data.Dataset, ...]  # one a seed: the training set first, then the confusion set, relabelled
    models: tuple[nn.Module, ...]

    def samples(self, seed: int, size: int) -> tuple[Tensor, Tensor]:
        """The training set of a seed and the first `size` samples of its confusion set."""
        one, count = self.sets[seed], self.settings.n + size
        y = torch.cat([one.clean_train[: self.settings.n], one.y_train[self.settings.n : count]])
        return one.x_train[:count], y


def prepare(settings: Confusion) -> Setup:
    total = settings.n + settings.confusion
    sets = tuple(shared.classification(settings, total, seed, 1.0) for seed in common.seeds(settings))
    nets = tuple(
        shared.network(settings, one.shape, seed)
        for one, seed in zip(sets, common.seeds(settings), strict=True)
    )
    return Setup(settings, sets, nets)


def predict(setup: Setup) -> Prediction:
    """Test error of the nearest neighbour among the samples that will be fitted: (S, sizes)."""
    nearest = np.array(
        [
            [_nearest(*setup.samples(seed, size), one.x_test, one.y_test) for size in setup.settings.sizes]
            for seed, one in enumerate(setup.sets)
        ]
    )
    return {"sizes": np.array(setup.settings.sizes), "nearest": nearest}


def _nearest(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor) -> float:
    found = [torch.cdist(part.flatten(1), x.flatten(1)).argmin(1) for part in x_test.split(500)]
    return float((y[torch.cat(found)] != y_test).double().mean())


def run(setup: Setup, prediction: Prediction) -> Iterator[Frame]:
    settings, seeds, sizes = setup.settings, len(setup.sets), setup.settings.sizes
    values = shared.grid(seeds, len(sizes)) | {"sharpness_own": np.full((seeds, len(sizes)), np.nan)}
    begun, notes, word = 0.0, [], "done"
    for g, size in enumerate(sizes):
        # Random labels take far longer than true ones.
        part = (settings.n / 4 + size) / sum(settings.n / 4 + other for other in sizes)
        samples = [setup.samples(seed, size) for seed in range(seeds)]
        ensemble = training.Ensemble(setup.models)
        outcome = yield from shared.fit(
            settings, ensemble, [x for x, _ in samples], [y for _, y in samples], loss=settings.stop,
            epochs=settings.epochs, seed=settings.seed, span=(begun, begun + 0.9 * part), step=g,
        )  # fmt: skip
        if outcome.word == "diverged":
            note = f"confusion set of {size}: {outcome.note}"
            yield Frame(g, shared.snapshot(values), begun, "diverged", note)
            return
        if outcome.word == "missed":
            notes.append(f"confusion set of {size}: {outcome.note}")
        for s, (x, y) in enumerate(samples):
            model, one = shared.folded(ensemble.member(s)), setup.sets[s]
            found = shared.measured(settings, model, x, y, seed=s, sharpness=True)
            found["test_error"] = shared.test_error(model, one.x_test, one.y_test)
            found["sharpness_own"] = shared.steepest(settings, model, x[: settings.n], y[: settings.n])
            for name, value in found.items():
                values[name][s, g] = value
            yield Frame.tick(g, begun + 0.9 * part)
        begun += part
        last = g == len(sizes) - 1
        yield Frame(
            g, shared.snapshot(values), 1.0 if last else begun, word if last else "running",
            "; ".join(notes) if last else "",
        )  # fmt: skip


def figure(
    frames: Sequence[Frame],
    prediction: Prediction,
    previous: Sequence[Run] = (),
    settings: Confusion | None = None,
) -> figures.Chart:
    sizes = prediction["sizes"]
    room = 0.04 * sizes[-1]
    reach = (-room, sizes[-1] + room)
    error, rises, curves = panels.family(
        frames, previous, sizes, "sizes", settings.seeds if settings else 2, own=True
    )
    remembered = 100 * prediction["nearest"]
    error.insert(0, figures.Predicted(sizes, remembered, label="nearest neighbour", color=shared.TEST))
    return figures.Chart(
        (
            figures.Panel(
                "Error rate", tuple(error), xlabel="confusion set", ylabel="wrong classes, %",
                xlim=reach, ylim=(-3, 100),
            ),
            figures.Panel(
                "Measures, over their first", tuple(rises), xlabel="confusion set", ylabel="factor",
                yscale="log", xlim=reach,
            ),
            panels.plane(curves, "Sharpness and KL, by set"),
        ),
        caption=figures.caption(settings) if settings else "",
    )  # fmt: skip


def _bad_minima(run: Run) -> tuple[Evidence, ...]:
    checks = shared.converged(run.last("train_error"), run.last("loss"), run.settings.stop)
    error, divergence, sharp = (run.last(name) for name in ("test_error", "divergence", "sharpness"))
    norms = np.stack([run.last(name) for name in shared.MEASURES], axis=1)  # (S, 4, G)
    # Of the four the one that follows the size worst, seed by seed.
    ranks = np.array([rank_correlation(np.arange(norms.shape[2]), rows) for rows in norms])
    worst = norms[np.arange(len(norms)), ranks.argmin(axis=1)]

    def growth(values: np.ndarray) -> str:
        return f"{(values[:, -1] / values[:, 0]).mean():.3g}"

    names = [word for word, _ in shared.MEASURES.values()]
    words = ", ".join(f"{word} {growth(norms[:, i])}" for i, word in enumerate(names))
    own, tested = run.last("sharpness_own"), error.mean(axis=0)
    return (
        Evidence(error, checks=checks, note=f"test error {tested[0]:.3f} → {tested[-1]:.3f}"),
        Evidence(worst, checks=checks, note=f"factors from the first size to the last: {words}"),
        Evidence(divergence, checks=checks, note=f"KL {growth(divergence)}"),
        Evidence(
            sharp[:, 1:].max(axis=1) / sharp[:, 0], STAYS, checks=checks,
            note=f"max sharpness {growth(sharp)}; on the training set alone {growth(own)}",
        ),
    )  # fmt: skip


E9 = Claim(
    "E9",
    "With a growing confusion set every minimum fits the training set and test error rises; norms over "
    "margin and the divergence at an expected sharpness of .05 rise with it; max sharpness does not.",
    "paper 2, Fig. 3", (Monotone(), Monotone(), Monotone(), AtMost(exact=False)), _bad_minima, "holds",
    {"holds": "test error, norms over margin and divergence climb with the set; sharpness does not",
     "fails": "a norm or the divergence does not follow the test error, or sharpness does"},
)  # fmt: skip

CONFUSION = Experiment(
    "confusion", "Bad minima on purpose: which measure notices?", Confusion,
    {
        "quick": Confusion(),
        "paper": Confusion(
            dataset="cifar10", network="vgg", width=64, n=10_000, confusion=16_000, n_test=10_000,
            lr=0.01, stop=1e-4, epochs=1000, ascent=2000, draws=1000,
        ),
    },
    prepare, predict, run, figure, (E9,), controls=("confusion", "n", "width", "lr", "stop", "alpha"),
)  # fmt: skip
