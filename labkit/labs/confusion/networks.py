"""One network under the hand: what trains, which pair is the worst, and two traps (C17, C18; paper 5, section
5).

A fully connected network without biases is trained by SGD on images on the sphere of radius √d. At each look
the gradients of the first `samples` of them are compared, all pairs: the samples of a smaller number are
among those of a larger one. With `group` above 1 it is the mean gradients of minibatches that are compared,
of two halves of the data in turn, and only pairs from different halves: no two share a sample. All of it
follows from the inner products of single samples' gradients, so that both sliders act on networks that stand.

The two traps by which two teams disagree over one network: the size of a minibatch, whose mean gradient
drowns what samples dispute, and the number of pairs, whose least can only fall. And the worst pair itself,
with all pairs apart by class.

Batch norm uses the statistics of each minibatch in training, and those of all samples, held fixed, where
gradients of samples are compared: with the former there is no gradient of one sample.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit import data, figures, training
from labkit.labs import common
from labkit.labs.confusion import network_panels, shared, wide
from labkit.measure.confusion import Confusion, confusion, density
from labkit.measure.gradients import gradient_gram
from labkit.models.mlp import ResidualMLP
from labkit.protocol.claims import Claim
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import EVERY, Between, Check, Equals, Evidence
from labkit.protocol.settings import knob

SIZES = 2 ** np.arange(8)  # of minibatches: 1 ... 128
MINIBATCHES = 100  # of each size
COUNTS = np.array([15, 25, 50, 100, 200, 400])  # samples, all pairs of which are looked at: 105 ... 79,800
WORST = 0.01  # share of all pairs that are called the most opposed
DRAWN = 2000  # cosines, at most, in a density
LOOKS, LOSSES = 10, 30  # how often gradients, and the loss, are looked at
MOMENTS = ("start", "end")


@dataclass(frozen=True)
class Networks(common.OnData):
    width: int = knob(100, "hidden units ℓ", slider=(10, 300), bounds=(1, 10_000), scale="log")
    depth: int = knob(30, "hidden layers β", slider=(1, 60), bounds=(1, 1000))
    samples: int = knob(100, "gradients compared, all pairs; few of them are among many", slider=(15, 400),
                        bounds=(2, 10_000), scale="log", remeasures=True)  # fmt: skip
    group: int = knob(1, "samples averaged in a gradient, B", slider=(1, 128), bounds=(1, 10_000),
                      scale="log2", label="samples a gradient", remeasures=True)  # fmt: skip
    activation: str = knob("tanh", "of the hidden layers", choices=shared.ACTIVATIONS)
    init: str = knob("glorot", "initialisation", choices=shared.INITS)
    skip: bool = knob(False, "skip connections", label="skip connections")
    batch_norm: bool = knob(False, "batch norm before each activation")
    lr: float = knob(0.03, "learning rate", slider=(1e-3, 1), bounds=(0, None), scale="log")
    steps: int = knob(150, "steps of SGD; 0 stays at the start", slider=(0, 400), bounds=(0, None), step=50)
    batch_size: int = knob(64, "samples a step", slider=(8, 400), bounds=(1, None))
    n: int = knob(400, "training samples N", slider=(100, 1000), bounds=(2, None), step=100)
    kappa: float = knob(4.0, "κ of Strategy 4.1", slider=(0.5, 8), bounds=(0.01, 100), label="κ")
    dataset: str = knob("digits", "images", choices=("digits", "mnist-5k", "mnist", "cifar10"))

    @property
    def limits(self) -> Mapping[str, tuple[int, str]]:
        return {"samples": (self.n, "n")} if self.group == 1 else {"group": (self.n // 2, "n/2")}

    @property
    def batch_sizes(self) -> np.ndarray:
        return SIZES[max(self.n, 2) >= 2 * SIZES]

    @property
    def counts(self) -> np.ndarray:
        """Of samples, all pairs of which are looked at."""
        return COUNTS[self.n >= COUNTS] if self.n >= COUNTS[0] else np.array([self.n])


@dataclass(frozen=True)
class Setup:
    """For each seed: pictures, (n, h, w), the images as they are; compared, the minibatches whose gradients
    are compared, (samples, group) sample numbers; minibatches, MINIBATCHES of each of the batch sizes."""

    settings: Networks
    sets: tuple[data.Dataset, ...]
    pictures: tuple[Tensor, ...]
    compared: tuple[Tensor, ...]
    minibatches: tuple[tuple[Tensor, ...], ...]

    @property
    def xs(self) -> list[Tensor]:
        return [one.x_train.shape[1] ** 0.5 * one.x_train for one in self.sets]

    @property
    def ys(self) -> list[Tensor]:
        return [one.y_train for one in self.sets]

    @property
    def sizes(self) -> list[int]:
        one = self.sets[0]
        return [one.dim, *[self.settings.width] * self.settings.depth, one.classes]


def prepare(settings: Networks) -> Setup:
    sets, here = shared.samples(settings, torch.float32), settings.replace(device="cpu")
    plain = common.datasets(here, classes=10, n_test=1, normalize="none", flatten=False)
    compared, minibatches = [], []
    for seed in common.seeds(settings):
        compared.append(
            torch.arange(settings.samples)[:, None] if settings.group == 1
            else _minibatches(settings.n, settings.samples, settings.group, seed)
        )  # fmt: skip
        minibatches.append(
            tuple(_minibatches(settings.n, MINIBATCHES, int(B), seed) for B in settings.batch_sizes)
        )
    pictures = tuple(one.x_train.mean(1) for one in plain)
    return Setup(settings, sets, pictures, tuple(compared), tuple(minibatches))


def _minibatches(n: int, count: int, size: int, seed: int) -> Tensor:
    """Sample numbers (count, size), of two halves of the data in turn; fewer are the beginning of more."""
    generator = torch.Generator().manual_seed(seed)
    halves = torch.randperm(n, generator=generator).tensor_split(2)
    half = [halves[k % 2] for k in range(count)]
    return torch.stack([one[torch.randperm(len(one), generator=generator)[:size]] for one in half])


def predict(setup: Setup) -> Prediction:
    """What gradients say at the start, were the layers wide; unknown with batch norm."""
    settings, seeds = setup.settings, common.seeds(setup.settings)
    law = wide.kernels(
        settings.activation, setup.sizes[0], settings.width, settings.depth,
        shared.variances(settings.init, setup.sizes, settings.kappa), settings.skip,
    )  # fmt: skip
    found = []
    for s, (seed, one) in enumerate(zip(seeds, setup.sets, strict=True)):
        x, labels = one.x_train.double().cpu(), np.eye(one.classes)[one.y_train.cpu()]
        cosines, rng = wide.Cosines((x @ x.T).numpy()), np.random.default_rng(seed)
        gram = torch.from_numpy(wide.gram(law, cosines, labels, rng))
        found.append({**_compared(gram, setup.compared[s], settings.group), **_traps(setup, s, gram)})
    known = common.stacked(found)
    if settings.batch_norm:
        known = {name: np.full_like(value, np.nan) for name, value in known.items()}
    counts, (height, width) = settings.counts, setup.pictures[0].shape[1:]
    known["blank"] = np.full((height, 2 * width + 1), np.nan)
    return {"grid": shared.GRID, "sizes": settings.batch_sizes, "pairs": counts * (counts - 1) // 2, **known}


def _compared(gram: Tensor, rows: Tensor, group: int) -> Mapping[str, float | np.ndarray]:
    """What the gradients say that are means over `rows` (m, B) of those behind `gram`."""
    found = _grouped(gram, rows) if group > 1 else confusion(gram[rows, rows.T])
    some = found.cosines[:: max(1, found.pairs // DRAWN)]
    return {
        "cosine": found.minimum_cosine, "mean": found.mean_cosine, "eta": found.eta,
        "compared": float(found.pairs), "density": density(some, shared.GRID),
    }  # fmt: skip


def _grouped(gram: Tensor, rows: Tensor) -> Confusion:
    """The confusion of minibatches, over pairs from different halves of the data."""
    mean = torch.zeros(len(rows), len(gram), dtype=torch.float64)
    mean.scatter_add_(1, rows, torch.full(rows.shape, 1 / rows.shape[1], dtype=torch.float64))
    return confusion(mean @ gram.double() @ mean.T, sides=torch.arange(len(rows)) % 2)


def _traps(setup: Setup, s: int, gram: Tensor) -> Mapping[str, np.ndarray]:
    """The same gradients, compared by minibatches of each size, (3, sizes), and over more and more pairs."""
    unit = max(float(gram.diagonal().mean()), shared.TINY)
    by_size = [_grouped(gram, rows) for rows in setup.minibatches[s]]
    values = [(one.minimum_cosine, one.mean_cosine, one.eta / unit) for one in by_size]
    return {
        "by_size": np.array(values).T,
        "by_pairs": np.array([confusion(gram[:m, :m]).minimum_cosine for m in setup.settings.counts]),
    }


def _by_class(setup: Setup, s: int, gram: Tensor) -> Mapping[str, Any]:
    """The pairs of a class and those of two classes apart, and the worst of all."""
    found, y = confusion(gram), setup.ys[s].cpu()
    i, j = torch.triu_indices(len(gram), len(gram), 1)
    same = y[i] == y[j]
    opposed = found.cosines.argsort()[: max(1, round(WORST * found.pairs))]
    a, b = int(i[opposed[0]]), int(j[opposed[0]])
    pictures = setup.pictures[s]
    gap = torch.full((pictures.shape[1], 1), torch.nan)
    parts = {"within": found.cosines[same], "across": found.cosines[~same]}
    return {
        "pair": np.array([a, b, int(y[a]), int(y[b])], float), "worst": found.minimum_cosine,
        "images": torch.cat([pictures[a], gap, pictures[b]], 1).double().numpy(),
        "same": np.array([float(same[opposed].double().mean()), float(same.double().mean())]),
        **{f"{name}_mean": float(part.mean()) if len(part) else np.nan for name, part in parts.items()},
        **{f"{name}_density": density(part[:: max(1, len(part) // DRAWN)], shared.GRID) if len(part)
           else np.full(len(shared.GRID), np.nan) for name, part in parts.items()},
    }  # fmt: skip


def run(setup: Setup, prediction: Prediction, *, gram: shared.Gram | None = None) -> Iterator[Frame]:
    """`gram` gives the inner products of all per-sample gradients of a network, samples and classes;
    `gradient_gram` when left out."""
    settings, gram = setup.settings, gram or gradient_gram
    nets = [_network(setup, seed) for seed in common.seeds(settings)[:1]]
    yield Frame.tick(0, 0.0, lambda: _before(setup, copy.deepcopy(nets[0]), gram))
    nets += [_network(setup, seed) for seed in common.seeds(settings)[1:]]
    ensemble = training.Ensemble(nets)
    losses, looks = ({round(settings.steps * i / many) for i in range(many + 1)} for many in (LOSSES, LOOKS))
    due, found = iter(sorted(losses | looks)), dict[int, Mapping[str, np.ndarray]]()

    def measured(now: training.Ensemble) -> np.ndarray:
        """The loss over all samples, (S,); what gradients say goes to `found`."""
        step, loss, rows = next(due), [], []
        for s in range(settings.seeds):
            x, y = setup.xs[s], setup.ys[s]
            net = _fixed(now.member(s), x)
            loss.append(F.cross_entropy(net(x), y).item())
            if step in looks:
                rows.append(_look(setup, net, s, gram, whole=step in (0, settings.steps)))
        if rows:
            found[step] = common.stacked(rows)
        return np.array(loss)

    for frame in training.train(
        ensemble, setup.xs, setup.ys, loss="cross-entropy", lr=settings.lr, batch_size=settings.batch_size,
        steps=settings.steps, measure={"over_all": measured}, measure_at=sorted(losses | looks),
        seed=list(common.seeds(settings)),
    ):  # fmt: skip
        values: Mapping[str, np.ndarray] = {}
        if "over_all" in frame.values:
            values = {"loss": frame.values["over_all"], **found.pop(frame.step, {})}
        yield replace(frame, values=values)


def _before(setup: Setup, net: nn.Module, gram: shared.Gram) -> Mapping[str, np.ndarray]:
    """What the gradients of the first seed's network say before any step."""
    return common.stacked([_look(setup, _fixed(net, setup.xs[0]), 0, gram, whole=False)])


def _network(setup: Setup, seed: int) -> nn.Module:
    settings, sizes = setup.settings, setup.sizes
    weights = shared.draws(sizes, seed, settings.init, settings.device, torch.float32)
    scales = [v**0.5 for v in shared.variances(settings.init, sizes, settings.kappa)]
    if settings.init == "orthogonal":
        scales = [1.0] * len(weights)
    return shared.network(
        weights, scales, settings.activation, skip=settings.skip, batch_norm=settings.batch_norm
    )


def _look(setup: Setup, net: nn.Module, s: int, gram: shared.Gram, whole: bool) -> Mapping[str, Any]:
    """What gradients say; of the `whole` data set, also the traps and the classes."""
    x, y, rows = setup.xs[s], setup.ys[s], setup.compared[s]
    used = torch.arange(len(x)) if whole else rows.unique()
    found = gram(net, x[used.to(x.device)], y[used.to(y.device)]).cpu()
    place = torch.zeros(len(x), dtype=torch.long)
    place[used] = torch.arange(len(used))
    more = {**_traps(setup, s, found), **_by_class(setup, s, found)} if whole else {}
    return {**_compared(found, place[rows], setup.settings.group), **more}


def _fixed(net: nn.Module, x: Tensor) -> nn.Module:
    """The network in evaluation mode; its batch norms, if any, hold the statistics of x from now on."""
    if isinstance(net, ResidualMLP) and len(net.norms):
        for norm in net.norms:
            assert isinstance(norm, nn.BatchNorm1d)
            norm.reset_running_stats()
            norm.momentum = 1.0
        with torch.no_grad():
            net.train()(x)
    return net.eval().requires_grad_()


def figure(frames: Frames, prediction: Prediction, settings: Networks | None = None) -> figures.Chart:
    end = float(max(settings.steps if settings else 1, 1))
    return figures.Chart.of(
        settings, "A network in training: its cosines, the worst pair, and two ways to count pairs.",
        network_panels.course(frames, prediction, end), network_panels.classes(frames),
        network_panels.worst(frames, prediction), network_panels.by_size(frames, prediction, settings),
        network_panels.by_pairs(frames, prediction, settings),
        network_panels.densities(frames, prediction),
    )  # fmt: skip


def _ends(run: Run, name: str) -> np.ndarray:
    """A quantity at the start and at the end, (S, 2, ...)."""
    found = run.series(name)[1]
    return np.stack([found[0], found[-1]], axis=1)


def _trapped(run: Run) -> tuple[Evidence, ...]:
    sizes, pairs = run.prediction["sizes"], run.prediction["pairs"]
    by_size, by_pairs = _ends(run, "by_size"), _ends(run, "by_pairs")
    enough = (
        Check("largest minibatch", 128.0, float(sizes[-1]), "raise n: no two minibatches share a sample"),
        Check("pairs", 79_800.0, float(pairs[-1]), "raise n"),
    )
    note = "; ".join(
        f"{when}: smallest cosine {by_size[:, k, 0, 0].mean():.2f} at B = 1 and "
        f"{by_size[:, k, 0, -1].mean():.2f} at {sizes[-1]}, η / mean |g|² {by_size[:, k, 2, 0].mean():.2g} "
        f"and {by_size[:, k, 2, -1].mean():.2g}; over {pairs[0]} pairs {by_pairs[:, k, 0].mean():.2f}, over "
        f"{pairs[-1]} {by_pairs[:, k, -1].mean():.2f}"
        for k, when in enumerate(MOMENTS)
    )
    return (
        Evidence(by_size[:, 0, 0, -1] - by_size[:, 0, 0, 0], checks=enough, note=note),
        Evidence(by_size[:, 1, 0, -1] - by_size[:, 1, 0, 0], checks=enough),
        Evidence(by_size[:, 0, 2, -1], 0.0, checks=enough),
        Evidence(by_pairs[:, :, 0] - by_pairs[:, :, -1], checks=enough),
    )


def _disputed(run: Run) -> tuple[Evidence, ...]:
    within, across, same = (_ends(run, name) for name in ("within_mean", "across_mean", "same"))
    note = "; ".join(
        f"{when}: mean cosine {within[:, k].mean():.2f} within classes and {across[:, k].mean():.2f} "
        f"across; of the most opposed hundredth {same[:, k, 0].mean():.0%} are of one class, of all pairs "
        f"{same[:, k, 1].mean():.0%}"
        for k, when in enumerate(MOMENTS)
    )
    excess = np.log2(np.maximum(same[..., 0], shared.TINY) / np.maximum(same[..., 1], shared.TINY))
    return Evidence(within - across, note=note), Evidence(excess[:, 0]), Evidence(excess[:, 0] - excess[:, 1])


C17 = Claim(
    "C17", "finding",
    "One network, two numbers. From minibatches of 1 to minibatches of 128 that share no sample the "
    "smallest cosine rises, by .5 or more at the start and by .1 or more at the end of training, and at the "
    "start η falls to 0; from 105 pairs of samples to 79,800 the smallest cosine falls by .05 or more, at "
    "both.",
    "paper 5, Def. 2.1 and its remarks, §5, §A.1, §A.2",
    (
        Between("smallest cosine, minibatches of 128 minus samples, start", low=0.5, by=EVERY),
        Between("smallest cosine, minibatches of 128 minus samples, end", low=0.1, by=EVERY),
        Equals("η / mean |g|² of minibatches of 128, at the start", tolerance=1e-3, absolute=True),
        Between("smallest cosine, 105 pairs minus 79,800", MOMENTS, low=0.05, by=EVERY),
    ),
    _trapped, "holds",
    {"holds": "η is not of the network alone: say the size of the minibatch, and how many pairs",
     "fails": "neither the size of the minibatch nor the number of pairs decides",
     "undecided": "it takes minibatches of 128, and 400 samples"},
    worlds=shared.worlds(__name__),
)  # fmt: skip
C18 = Claim(
    "C18", "finding",
    "Gradients of images of one class agree more, by .1 or more in the mean cosine, at the start and at the "
    "end of training; and yet, at the start, pairs of one class are at least twice as frequent among the "
    "most opposed hundredth of all pairs as among all, and √2 times as much so as at the end.",
    "paper 5, §7 (within a class and across classes)",
    (
        Between("mean cosine, within classes minus across", MOMENTS, low=0.1, by=EVERY),
        Between("log₂ of the share of one class among the most opposed pairs over that among all, start",
                low=1.0, by=EVERY),
        Between("the same, start minus end", low=0.5, by=EVERY),
    ),
    _disputed, "holds",
    {"holds": "a class agrees in the mean, and has its worst quarrels within while outputs say nothing yet",
     "fails": "pairs of one class do not agree more, or are not over-represented among the worst"},
    worlds=shared.worlds(__name__)[:1],
)  # fmt: skip

NETWORKS = Experiment(
    "networks", "One network, live: what is worst, and how to count", Networks,
    {
        "quick": Networks(),
        "start": Networks(steps=0),
        "paper": Networks(dataset="mnist", n=10_000, batch_size=128, steps=40_000, samples=50, group=128,
                          seeds=10),
    },
    prepare, predict, run, figure, (C17, C18),
    controls=(
        "width", "depth", "samples", "group", "activation", "init", "skip", "batch_norm", "lr", "steps", "n",
    ),
)  # fmt: skip
