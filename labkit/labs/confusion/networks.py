"""Slide width and depth, and watch loss and cosines move together (C9; paper 5, section 5, Figs 5, 6).

A fully connected network without biases is trained by SGD on images on the sphere of radius √d. At each look
the gradients of the first `samples` of them are compared, all pairs: the samples of a smaller number are
among those of a larger one. With `group` above 1 it is the mean gradients of minibatches that are compared.
The network that was chosen comes first; then others of the same width, which with all runs kept in grey fill
a map over depth and width.

Batch norm uses the statistics of each minibatch in training, and those of all samples, held fixed, where
gradients of samples are compared: with the former there is no gradient of one sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit import data, figures, training
from labkit.labs import common
from labkit.labs.confusion import network_panels, shared, wide
from labkit.labs.confusion.network_panels import GRID
from labkit.measure.confusion import confusion, density
from labkit.measure.gradients import gradient_gram
from labkit.models.mlp import ResidualMLP
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Prediction, Run
from labkit.protocol.rules import EVERY, Between, Check, Evidence
from labkit.protocol.settings import knob

COLUMN = (3, 10, 60)  # depths that are trained besides the chosen one
DRAWN = 2000  # cosines, at most, in a density
LOOKS, LOSSES = 10, 30  # how often gradients, and the loss, are looked at
STAGES = ("least depth to last but one", "last but one to greatest")
MINIBATCHES = 48  # at the end, of the size that training takes
Gram = Callable[[nn.Module, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Networks(common.OnData):
    width: int = knob(100, "hidden units ℓ", slider=(10, 300), bounds=(1, 10_000), scale="log")
    depth: int = knob(30, "hidden layers β", slider=(1, 60), bounds=(1, 1000))
    samples: int = knob(100, "gradients compared, all pairs; few of them are among many", slider=(25, 400),
                        bounds=(2, 10_000), scale="log2", remeasures=True)  # fmt: skip
    group: int = knob(1, "samples averaged in a gradient", slider=(1, 64), bounds=(1, 10_000), scale="log2",
                      label="samples a gradient", remeasures=True)  # fmt: skip
    activation: str = knob("tanh", "of the hidden layers", choices=shared.ACTIVATIONS)
    init: str = knob("glorot", "initialisation", choices=shared.INITS)
    skip: bool = knob(False, "skip connections", label="skip connections")
    batch_norm: bool = knob(False, "batch norm before each activation")
    lr: float = knob(0.03, "learning rate", slider=(1e-3, 1), bounds=(0, None), scale="log")
    steps: int = knob(150, "steps of SGD; 0 stays at the start", slider=(0, 400), bounds=(0, None), step=50)
    column: bool = knob(True, "train other depths as well", label="other depths")
    batch_size: int = knob(64, "samples a step", slider=(8, 400), bounds=(1, None))
    n: int = knob(400, "training samples N", slider=(100, 1000), bounds=(2, None), step=100)
    kappa: float = knob(4.0, "κ of Strategy 4.1", slider=(0.5, 8), bounds=(0.01, 100), label="κ")
    dataset: str = knob("digits", "images", choices=("digits", "mnist-5k", "mnist", "cifar10"))

    @property
    def limits(self) -> Mapping[str, tuple[int, str]]:
        return {"samples": (self.n, "n")} if self.group == 1 else {}

    @property
    def depths(self) -> tuple[int, ...]:
        """All depths that are trained."""
        return tuple(sorted({self.depth, *(COLUMN if self.column else ())}))


@dataclass(frozen=True)
class Setup:
    """compared: for each seed the minibatches whose gradients are compared, (samples, group) sample numbers;
    minibatches: those of the end, (MINIBATCHES, batch_size)."""

    settings: Networks
    sets: tuple[data.Dataset, ...]
    compared: tuple[Tensor, ...]
    minibatches: tuple[Tensor, ...]

    @property
    def xs(self) -> list[Tensor]:
        return [one.x_train.shape[1] ** 0.5 * one.x_train for one in self.sets]

    @property
    def ys(self) -> list[Tensor]:
        return [one.y_train for one in self.sets]

    def sizes(self, depth: int) -> list[int]:
        one = self.sets[0]
        return [int(one.x_train.shape[1]), *[self.settings.width] * depth, one.classes]


def prepare(settings: Networks) -> Setup:
    sets, compared, minibatches = [], [], []
    for seed in common.seeds(settings):
        sets.append(shared.samples(settings.dataset, settings.n, seed, settings.device, torch.float32))
        generator = torch.Generator().manual_seed(seed)
        shape = MINIBATCHES, min(settings.batch_size, settings.n)
        minibatches.append(torch.randint(settings.n, shape, generator=generator))
        # Row by row, so that a smaller number of minibatches is the beginning of a larger one.
        drawn = torch.randint(settings.n, (settings.samples, settings.group), generator=generator)
        compared.append(torch.arange(settings.samples)[:, None] if settings.group == 1 else drawn)
    return Setup(settings, tuple(sets), tuple(compared), tuple(minibatches))


def predict(setup: Setup) -> Prediction:
    """The smallest cosine, η and density at the start, were the layers wide; unknown with batch norm."""
    settings = setup.settings
    found = {"cosine": np.full(settings.seeds, np.nan), "eta": np.full(settings.seeds, np.nan)}
    found["density"] = np.full((settings.seeds, len(GRID)), np.nan)
    if not settings.batch_norm:
        for s, one in enumerate(setup.sets):
            sizes = setup.sizes(settings.depth)
            law = wide.kernels(
                settings.activation, sizes[0], settings.width, settings.depth,
                shared.variances(settings.init, sizes, settings.kappa), settings.skip,
            )  # fmt: skip
            used, places = setup.compared[s].unique(return_inverse=True)
            x = one.x_train[used.to(one.x_train.device)].double()
            labels = np.eye(one.classes)[one.y_train.cpu()[used]]
            rng = np.random.default_rng(common.seeds(settings)[s])
            gram = wide.gram(law, (x @ x.T).cpu().numpy(), labels, rng)
            for name, value in _compared(torch.from_numpy(gram), places).items():
                if name in found:
                    found[name][s] = value
    return {"grid": GRID, "depths": np.array(settings.depths), **found}


def _compared(gram: Tensor, rows: Tensor) -> Mapping[str, float | np.ndarray]:
    """What the gradients say that are means over `rows` (m, B) of those behind `gram`."""
    if rows.shape[1] > 1:
        mean = torch.zeros(len(rows), len(gram), dtype=torch.float64)
        mean.scatter_add_(1, rows, torch.full(rows.shape, 1 / rows.shape[1], dtype=torch.float64))
        gram = mean @ gram.double() @ mean.T
    found = confusion(gram)
    some = found.cosines[:: max(1, found.pairs // DRAWN)]
    return {
        "cosine": found.minimum_cosine, "mean": found.mean_cosine, "eta": found.eta,
        "density": density(some, GRID),
    }  # fmt: skip


def run(setup: Setup, prediction: Prediction, *, gram: Gram | None = None) -> Iterator[Frame]:
    """`gram` gives the inner products of all per-sample gradients of a network, samples and classes;
    `gradient_gram` when left out."""
    settings, gram = setup.settings, gram or gradient_gram
    order = (settings.depth, *(depth for depth in settings.depths if depth != settings.depth))
    shape = settings.seeds, len(settings.depths)
    column = {name: np.full(shape, np.nan) for name in ("first", "final", "loss_at", "batch", "aligned")}
    begun, step = 0.0, 0
    for depth in order:
        place, share = settings.depths.index(depth), depth / sum(order)
        ensemble = training.Ensemble([_network(setup, depth, seed) for seed in common.seeds(settings)])
        last: dict[str, np.ndarray] = {}
        for frame in _trained(setup, ensemble, depth == settings.depth, gram):
            progress = begun + 0.9 * share * (frame.progress or 0.0)
            if frame.status == "diverged":
                note = f"{depth} hidden layers: {frame.note}"
                yield Frame(step + frame.step, frame.values, progress, "diverged", note)
                return
            shown = frame.values if depth == settings.depth else {}
            yield Frame(step + frame.step, shown, progress)
            last = dict(frame.values) or last
            if "cosine" in last:
                column["first"][:, place] = np.where(frame.step, column["first"][:, place], last["cosine"])
                column["final"][:, place] = last["cosine"]
        step += settings.steps
        column["loss_at"][:, place] = last["loss"]
        for s in range(settings.seeds):
            at_the_end = _look(setup, ensemble.member(s), s, gram, setup.minibatches[s])
            column["batch"][s, place], column["aligned"][s, place] = at_the_end["cosine"], at_the_end["mean"]
            yield Frame.tick(step, begun + share * (0.9 + 0.1 * (s + 1) / settings.seeds))
        begun += share
        end = depth == order[-1]
        values = {f"column_{name}": value.copy() for name, value in column.items()}
        yield Frame(step, values, 1.0 if end else min(begun, 1.0), "done" if end else "running")


def _network(setup: Setup, depth: int, seed: int) -> nn.Module:
    settings, sizes = setup.settings, setup.sizes(depth)
    weights = shared.draws(sizes, seed, settings.init, settings.device, torch.float32)
    scales = [v**0.5 for v in shared.variances(settings.init, sizes, settings.kappa)]
    if settings.init == "orthogonal":
        scales = [1.0] * len(weights)
    return shared.network(
        weights, scales, settings.activation, skip=settings.skip, batch_norm=settings.batch_norm
    )


def _trained(setup: Setup, ensemble: training.Ensemble, often: bool, gram: Gram) -> Iterator[Frame]:
    """Trains an ensemble: frames with the loss over all samples, and at some with what the gradients say."""
    settings, xs, ys = setup.settings, setup.xs, setup.ys
    count = (LOSSES, LOOKS) if often else (1, 1)
    losses, looks = (
        {round(settings.steps * i / many) for i in range(many + 1)} for many in (count[0], count[1])
    )
    due = sorted(losses | looks)
    at = iter(due)

    def measured(now: training.Ensemble) -> np.ndarray:
        """(S, 1 + number of quantities): the loss, and where gradients are looked at the rest."""
        rows, look = [], next(at) in looks
        for s in range(settings.seeds):
            net = now.member(s)
            loss = F.cross_entropy(_fixed(net, xs[s])(xs[s]), ys[s]).item()
            found: dict[str, float | np.ndarray] = {"loss": loss}
            if look:
                found.update(_look(setup, net, s, gram, setup.compared[s]))
            rows.append(np.concatenate([np.atleast_1d(value) for value in found.values()]))
        return np.stack(rows)

    for frame in training.train(
        ensemble, xs, ys, loss="cross-entropy", lr=settings.lr, batch_size=settings.batch_size,
        steps=settings.steps, measure={"measured": measured}, measure_at=due,
        seed=list(common.seeds(settings)),
    ):  # fmt: skip
        values = {}
        if "measured" in frame.values:
            found = frame.values["measured"]
            values = {"loss": found[:, 0]}
            if found.shape[1] > 1:
                values |= {"cosine": found[:, 1], "mean": found[:, 2], "eta": found[:, 3]}
                values["density"] = found[:, 4:]
        yield Frame(frame.step, values, frame.progress, frame.status, frame.note)


def _look(setup: Setup, net: nn.Module, s: int, gram: Gram, rows: Tensor) -> Mapping[str, Any]:
    """What the mean gradients of the samples in each of `rows` (m, B) say."""
    x, y = setup.xs[s], setup.ys[s]
    used, places = rows.unique(return_inverse=True)
    net = _fixed(net, x)
    return _compared(gram(net, x[used.to(x.device)], y[used.to(y.device)]).cpu(), places)


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


def figure(
    frames: Sequence[Frame],
    prediction: Prediction,
    previous: Sequence[Run] = (),
    settings: Networks | None = None,
) -> figures.Chart:
    olds = tuple(run for run in previous if network_panels.found(run.frames) is not None)
    end = float(max(settings.steps if settings else 1, 1))
    return figures.Chart(
        (
            network_panels.loss(frames, olds, end), network_panels.cosines(frames, prediction, olds, end),
            network_panels.densities(frames, prediction, olds),
            network_panels.sizes(frames, prediction, olds, settings),
        ),
        caption=figures.caption(
            "Cosines of gradients while a network trains, and the smallest for each size tried.", settings
        ),
    )  # fmt: skip


def _at_the_end(run: Run) -> tuple[Evidence, Evidence]:
    depths = run.prediction["depths"]
    found = {name: run.last(f"column_{name}") for name in ("first", "final", "loss_at", "batch", "aligned")}
    words = "; ".join(
        f"{depth} layers: loss {found['loss_at'][:, g].mean():.2g}, smallest cosine of samples "
        f"{found['first'][:, g].mean():.2f} at the start and {found['final'][:, g].mean():.2f} at the end "
        f"(± {found['final'][:, g].std():.2f}), of minibatches {found['batch'][:, g].mean():.2f}, their mean "
        f"{found['aligned'][:, g].mean():.2f}"
        for g, depth in enumerate(depths)
    )
    several = Check("depths that were trained", 3.0, float(len(depths)), "train other depths, too")
    if not several.met:
        return (Evidence(checks=(several,)),) * 2
    batch, loss = (np.diff(found[name][:, [0, -2, -1]], axis=1) for name in ("batch", "loss_at"))
    return Evidence(-batch, note=words), Evidence(loss)


C9 = Claim(
    "C9", "finding",
    "At the end of training, at one learning rate for all depths, a deeper network is more confused and has "
    "a higher loss: from the least depth to the last but one and on to the greatest the smallest cosine of "
    "minibatch gradients falls, by .05 or more each time, and the loss does not fall.",
    "paper 5, §5, Figs 2, 3, 5, 6",
    (
        Between("fall of the smallest cosine of minibatch gradients at the end", STAGES, low=0.05, by=EVERY),
        Between("rise of the training loss at the end", STAGES, low=0.0, by=EVERY),
    ),
    _at_the_end, "fails",
    {"holds": "the deeper the network, the more confused it ends, and with the higher loss",
     "fails": "a network of moderate depth ends with the lower loss, and one that learned little may have "
              "minibatches that all agree: cosines at the end do not tell which network has learned",
     "undecided": "it takes three depths or more"},
    worlds=(World("a tenth of the learning rate: no depth learns much", {"lr": 0.003}, word="holds"),),
    because="at the one learning rate thirty layers learn faster than three, and the deepest network is "
            "stopped where its minibatch gradients agree or not as its start has it",
)  # fmt: skip

NETWORKS = Experiment(
    "networks", "Width, depth and confusion, live", Networks,
    {
        "quick": Networks(),
        "start": Networks(steps=0, column=False),
        "paper": Networks(dataset="mnist", n=10_000, batch_size=128, steps=40_000, samples=50, group=128,
                          seeds=10),
    },
    prepare, predict, run, figure, (C9,),
    controls=(
        "width", "depth", "samples", "group", "activation", "init", "skip", "batch_norm", "lr", "steps",
        "column",
    ),
)  # fmt: skip
