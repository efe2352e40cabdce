"""More weights than examples: why is there no overfitting? (S8, S18; paper 3, Figs 1-4, 13-15)

An all-convolutional network is trained on natural and on random labels, once over N at a fixed number W of
weights, once over W at a fixed N. Nothing regularises: no weight decay, no augmentation, no dropout.

Both kinds of labels, all seeds and all N of one W are trained side by side, by SGD with momentum, up to a
small loss or to the last step. A network gets the same number of steps at every N and W, so where random
labels can no longer be fitted depends on that number too, and on the outputs: ten of them share W weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from labkit import data, figures, training
from labkit.figures.palette import Color
from labkit.labs import common
from labkit.labs.sgd import shared
from labkit.models.allconv import allconv, weights
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import EVERY, Between, Check, Condition, Equals, Evidence
from labkit.protocol.settings import knob
from labkit.protocol.statistics import crossing

MULTIPLES = (0.25, 0.5, 1.0, 2.0, 4.0)  # N of the first sweep, over that of the second
OTHERS = (0, -1)  # of these N, at which the gap between test and training error is drawn over W, too
NAMES = ("train_n", "train_w", "test_n", "test_w")
LOOKS = 10  # at the errors, in one training
CHUNK = 4096  # images at a time, over all copies
TOGETHER = 2**27  # numbers in the images of all N together, up to which these are trained side by side
LEAVES = 0.05  # a training error above it has left zero
FLAT = 0.05  # a rise of the test error up to it counts as none
# How far from chance the test error of random labels may lie. A smooth network answers a whole class of
# images alike, so one training is more like ten draws than like six hundred.
CHANCE = 0.1
GAP = 0.4  # by how much the training error of random labels rises at least, from W >> N to N > W
FALL = 0.1  # by how much the test error of natural labels falls at least, from the smallest N to the largest
HALF = 0.5  # how far from W the N may lie up to which random labels are fitted, relative

PAPER: dict[str, Any] = {
    "dataset": "cifar10", "width": 16, "widest": 256, "n": 12_500, "n_test": 10_000, "steps": 200_000,
    "batch_size": 100,
}  # fmt: skip
Network = Callable[[Any, int, int], nn.Module]


@dataclass(frozen=True)
class Puzzle(common.OnData):
    width: int = knob(4, "channels c of the network whose N is swept", slider=(2, 16), bounds=(1, None),
                      scale="log2", label="channels")  # fmt: skip
    n: int = knob(300, "samples N where channels are swept; the sweep over N goes from N/4 to 4N",
                  slider=(100, 350), bounds=(8, None), step=50, label="samples")  # fmt: skip
    widest: int = knob(32, "channels of the widest network; they double up to it", slider=(8, 64),
                       bounds=(2, None), scale="log2", label="most channels")  # fmt: skip
    steps: int = knob(1200, "steps of SGD, at most, for every N and W", slider=(500, 10_000),
                      bounds=(1, None), scale="log")  # fmt: skip
    lr: float = shared.rate(0.03, "learning rate of SGD with momentum .9; it falls along half a cosine",
                            slider=(0.005, 0.1), bounds=(1e-6, 1000))  # fmt: skip
    stop: float = shared.stop_at(0.01, "cross-entropy at which a network stops", bounds=(1e-6, 1))
    batch_size: int = knob(50, "samples a step", slider=(10, 200), bounds=(1, None), step=10)
    n_test: int = knob(600, "test samples, at most", slider=(200, 600), bounds=(10, None), step=100)
    dataset: str = knob("digits", "images: name of a data set, or path to an .npz")

    drawn: ClassVar[Mapping[str, int]] = {"n": int(MULTIPLES[-1])}

    @property
    def sizes(self) -> tuple[int, ...]:
        """N of the first sweep."""
        return tuple(round(multiple * self.n) for multiple in MULTIPLES)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the second sweep, that of the first among them."""
        doubled = {2**k for k in range(int(math.log2(self.widest)) + 1)}
        return tuple(sorted(doubled | {self.width}))


def images(settings: Any, n: int, seed: int) -> data.Dataset:
    """n training images of a seed, of which smaller samples are the first, and up to `n_test` others."""
    whole = common.load(settings.dataset, seed=seed, device=settings.device)
    if n > whole.n:
        raise ValueError(
            f"n: the largest sample has {n}, and {settings.dataset} {whole.n} training samples; "
            f"lower n to {int(whole.n / MULTIPLES[-1])}"
        )
    return common.with_spare(whole, n, settings.n_test, seed).standardized()


def random_labels(one: data.Dataset, seed: int) -> data.Dataset:
    """The same images, with labels drawn uniformly over all classes."""
    return one.with_label_noise(1.0, "redraw", seed=seed)


def prepare(settings: Puzzle) -> common.Setup:
    """sets[natural or random][seed], each with as many samples as the largest N."""
    sets = tuple(images(settings, settings.sizes[-1], seed) for seed in common.seeds(settings))
    noisy = tuple(random_labels(one, seed) for one, seed in zip(sets, common.seeds(settings), strict=True))
    return common.Setup(settings, (sets, noisy))


def predict(setup: common.Setup) -> Prediction:
    """Counting weights: random labels are fitted up to N = W, and their test error is at chance."""
    one, settings = setup.sets[0][0], setup.settings
    return {
        "sizes": np.array(settings.sizes),
        "widths": np.array(settings.widths),
        "weights": np.array([count(one, width) for width in settings.widths]),
        "edge": np.array(count(one, settings.width)),
        "chance": np.array(1 - 1 / one.classes),
    }


def count(one: data.Dataset, width: int) -> int:
    """W of a network for these images."""
    return weights(width, classes=one.classes, channels=one.shape[0])


def network(one: Any, width: int, seed: int, activation: str | nn.Module = "relu") -> nn.Module:
    """The network of a seed for these images: both kinds of labels start from the same."""
    return allconv(
        one.classes, one.shape[0], size=one.shape[-1], width=width, activation=activation, seed=seed,
        device=one.x_train.device,
    )  # fmt: skip


def fit(
    settings: Any, nets: Sequence[nn.Module], sets: Sequence[data.Dataset], sizes: Sequence[int]
) -> Generator[Frame, None, Any]:
    """Trains networks side by side; frames carry "train" and "test", the errors of each.

    Samples of several N are made equally long by repeating the smaller ones: loss, gradient and number of
    steps stay what they are.

    Args:
        nets: all of a seed in a row.
        sets: one a network.
        sizes: N of each network, the first samples of its set.
    """
    longest = max(sizes)
    rows = torch.arange(longest)
    x = torch.stack([one.x_train[rows % n] for one, n in zip(sets, sizes, strict=True)])
    y = torch.stack([one.y_train[rows % n] for one, n in zip(sets, sizes, strict=True)])
    once = (rows < torch.tensor(sizes)[:, None]).to(x)
    x_test, y_test = common.together(sets, "x_test", "y_test")
    # Copies of one seed differ in labels and N alone: their batches come in the same order.
    copies = len(sets) // settings.seeds
    orders = [seed for seed in common.seeds(settings) for _ in range(copies)]
    yield from training.train(
        training.Ensemble(nets), list(x), list(y), loss="cross-entropy", lr=settings.lr, momentum=0.9,
        batch_size=settings.batch_size, steps=settings.steps, stop=training.LossBelow(settings.stop),
        schedule=lambda step: (1 + math.cos(math.pi * step / settings.steps)) / 2,
        measure={
            "train": lambda net: wrong(net, x, y, once),
            "test": lambda net: wrong(net, x_test, y_test, torch.ones_like(y_test)),
        },
        measure_at=max(1, settings.steps // LOOKS), seed=orders,
    )  # fmt: skip


def wrong(ensemble: nn.Module, x: Tensor, y: Tensor, weight: Tensor) -> np.ndarray:
    """Share of wrong classes of each copy: x (S, n, ...), y (S, n), weight (S, n) -> (S,)."""
    with torch.no_grad():
        parts = [ensemble(part).argmax(-1) for part in x.split(max(1, CHUNK // len(x)), dim=1)]
    missed = (torch.cat(parts, dim=1) != y) * weight
    return (missed.double().sum(1) / weight.double().sum(1)).cpu().numpy()


def trained(
    setup: common.Setup, width: int, sizes: tuple[int, ...], *, network: Network,
    values: Mapping[str, np.ndarray], span: tuple[float, float], first: int, who: str,
    twin: tuple[int, ...] = (), natural: bool = False,
) -> Generator[Frame, None, Frame]:  # fmt: skip
    """Trains the networks of one W and several N, and puts their errors into `values`.

    Args:
        span: of the run's progress.
        first: the step of the run at the start.
        twin: where the errors stand in `values`, behind the seeds.
        natural: natural labels alone.

    Returns:
        The last frame of the training itself.
    """
    settings, frame = setup.settings, Frame.tick(0)
    kinds = setup.sets[:1] if natural else setup.sets
    nets, sets = [], []
    for seed, *pair in zip(common.seeds(settings), *kinds, strict=True):
        nets += [network(one, width, seed) for one in pair for _ in sizes]
        sets += [one for one in pair for _ in sizes]
    which: Any = (slice(None), *twin)
    own = {name: values[name][which] for name in (*NAMES, "gap") if name in values}
    for frame in fit(settings, nets, sets, settings.seeds * len(kinds) * sizes):
        step, progress = first + frame.step, span[0] + (span[1] - span[0]) * (frame.progress or 0)
        if frame.is_tick:
            yield Frame.tick(step, progress)
            continue
        place(own, settings, width, sizes, frame)
        broken = frame.status == "diverged"
        status, note = ("diverged", f"{who}: {frame.note}") if broken else ("running", "")
        yield Frame(step, common.snapshot(values), progress, status, note)
    return frame


def run(setup: common.Setup, prediction: Prediction, *, network: Network = network) -> Iterator[Frame]:
    settings = setup.settings
    values = blank(settings, len(shared.KINDS))
    values |= common.blank(settings.seeds, gap=(len(OTHERS), len(settings.widths)))
    plan = [(*cell, False) for cell in cells(settings, setup.sets[0][0])]
    # Past the W of the first sweep networks are soon fitted: there the gap is measured at other N, too.
    wider = [width for width in settings.widths if width > settings.width]
    plan += [(width, (settings.sizes[k],), True) for width in wider for k in OTHERS]
    # A step of few small networks costs little but its calls; wide networks stop early.
    spans, first = common.spans(1 + min(width, 16) / 4 + len(sizes) for width, sizes, _ in plan), 0
    for (width, sizes, natural), span in zip(plan, spans, strict=True):
        frame = yield from trained(
            setup, width, sizes, network=network, values=values, span=span, first=first,
            who=f"{width} channels, N = {', '.join(map(str, sizes))}", natural=natural,
        )  # fmt: skip
        if frame.status == "diverged":
            return
        first += frame.step
    yield Frame(first, {}, 1.0, "done")


def blank(settings: Any, *before: int) -> dict[str, np.ndarray]:
    """Nothing yet, of both sweeps: (S, *before, N or W)."""
    places = {"n": len(settings.sizes), "w": len(settings.widths)}
    return common.blank(settings.seeds, *before, **{name: (places[name[-1]],) for name in NAMES})


def cells(settings: Any, one: data.Dataset) -> list[tuple[int, tuple[int, ...]]]:
    """(channels, the N that are trained side by side); both sweeps share one (channels, N)."""
    numbers = settings.sizes[-1] * one.dim * settings.seeds * len(shared.KINDS) * len(settings.sizes)
    groups = [settings.sizes] if numbers <= TOGETHER else [(n,) for n in settings.sizes]
    by_n = [(settings.width, group) for group in groups]
    return by_n + [(width, (settings.n,)) for width in settings.widths if width != settings.width]


def place(
    values: Mapping[str, np.ndarray], settings: Any, width: int, sizes: tuple[int, ...], frame: Frame
) -> None:
    """Puts the errors of a training, copies as [seed][kind][N], into the arrays of sweeps and gap."""
    if "test" not in frame.values:
        return
    found = {part: frame.values[part].reshape(settings.seeds, -1, len(sizes)) for part in ("train", "test")}
    at = settings.widths.index(width)
    for k, n in enumerate(sizes):
        for part, error in found.items():
            if width == settings.width:
                values[f"{part}_n"][..., settings.sizes.index(n)] = error[..., k]
            if n == settings.n:
                values[f"{part}_w"][..., at] = error[..., k]
        for row, other in enumerate(OTHERS if "gap" in values else ()):
            if n == settings.sizes[other]:
                values["gap"][:, row, at] = found["test"][:, 0, k] - found["train"][:, 0, k]


def figure(frames: Frames, prediction: Prediction, settings: Puzzle | None = None) -> figures.Chart:
    n, edge = int(prediction["sizes"][len(MULTIPLES) // 2]), int(prediction["edge"])
    curves = [
        (part, (kind,), f"{name}, {part}", colors[kind])
        for part, colors in (("train", shared.PALE), ("test", shared.COLORS))
        for kind, name in enumerate(shared.KINDS)
    ]
    return figures.Chart.of(
        settings,
        "Training and test error, and their gap, around the point at which weights outnumber samples.",
        errors(frames, prediction, "n", f"Over N, W = {edge:,}", curves),
        errors(frames, prediction, "w", f"Over W, N = {n}", curves),
        gap(frames, prediction, "n"),
        gap(frames, prediction, "w"),
    )  # fmt: skip


def gap(frames: Frames, prediction: Prediction, sweep: str) -> figures.Panel:
    """Test minus training error (Figs 13 to 15), over W for natural labels at other N, too."""
    x, places = ("N", prediction["sizes"]) if sweep == "n" else ("W", prediction["weights"])
    shape, at = (len(shared.KINDS), len(places)), len(prediction["sizes"]) // 2
    test, train = (common.seen(frames, f"{part}_{sweep}", *shape) for part in ("test", "train"))
    curves = [*(test - train).swapaxes(0, 1)]
    names, colors = list(shared.WORDS), [*shared.COLORS, shared.PALE[0], "ink"]
    if sweep == "w":
        curves += [*common.seen(frames, "gap", len(OTHERS), len(places)).swapaxes(0, 1)]
        which = [*zip(shared.KINDS, (at, at), strict=True), *(("natural", k) for k in OTHERS)]
        names = [f"{kind}, N = {prediction['sizes'][k]:,}" for kind, k in which]
    marks = [figures.Points(places, *one) for one in zip(curves, names, colors, strict=False)]
    return figures.Panel(f"Test − training error over {x}", marks, xlabel=x, ylabel="difference",
                         xscale="log", ylim=(-0.03, 1.0))  # fmt: skip


def errors(
    frames: Frames, prediction: Prediction, sweep: str, title: str,
    curves: Sequence[tuple[str, tuple[int, ...], str, Color]], *, room: float = 1.25,
    fitted: bool = True,
) -> figures.Panel:  # fmt: skip
    """Errors over N or over W.

    Args:
        curves: training or test error, its place behind the seeds, label and colour.
        room: beside the first and the last place, as a factor.
        fitted: whether to draw where counting weights expects random labels to be fitted.
    """
    x, middle = "sizes" if sweep == "n" else "weights", prediction["sizes"][len(prediction["sizes"]) // 2]
    places, edge = prediction[x], float(prediction["edge"] if sweep == "n" else middle)
    reach, chance = (float(places[0]) / room, float(places[-1]) * room), float(prediction["chance"])
    marks: list[figures.Mark] = [figures.Level(edge, axis="x", label="N = W")]
    # Counting weights: zero as long as N <= W.
    free = [reach[0], min(edge, reach[1])] if sweep == "n" else [max(edge, reach[0]), reach[1]]
    if fitted:
        marks.append(figures.Predicted(free, [0, 0], label="random, fitted if N ≤ W", color=shared.RANDOM))
    marks.append(figures.Predicted(reach, [chance, chance], label="chance", color="ink"))
    for part, at, label, color in curves:
        y = common.seen(frames, f"{part}_{sweep}", len(places), at=at)
        marks.append(figures.Points(places, y, label=label, color=color))
    return figures.Panel(
        title, marks, xlabel="training samples N" if sweep == "n" else "weights W",
        ylabel="share of wrong classes", xscale="log", xlim=reach, ylim=(-0.03, 1.0),
    )  # fmt: skip


def leaves_zero(sizes: np.ndarray, train: np.ndarray) -> np.ndarray:
    """N at which each seed's training error passes `LEAVES`, between two N on a log scale: (S, G) -> (S,).

    The largest N where it never does, the smallest where it does so from the start.
    """
    found = np.exp(crossing(np.log(sizes), train, LEAVES))
    return np.where(train[:, 0] >= LEAVES, sizes[0], np.where(np.isnan(found), sizes[-1], found))


def past(run: Run) -> np.ndarray:
    """Which networks of the second sweep have W ≥ 2 N: near W = N natural labels are not fitted yet."""
    return np.asarray(run.prediction["weights"] >= 2 * run.settings.n)


def rise(test_w: np.ndarray, past: np.ndarray) -> np.ndarray:
    """Of the widest network's error above that of the narrowest with W ≥ 2 N: (S, W) -> (S,)."""
    return test_w[:, -1] - test_w[:, int(past.argmax())]


def regimes(run: Run) -> tuple[tuple[Condition, ...], tuple[Condition, ...], tuple[Condition, ...]]:
    """Some N far below W, some above it, and some networks with W ≥ 2 N to compare."""
    sizes, edge = run.prediction["sizes"].astype(float), float(run.prediction["edge"])
    return (
        (Condition("eight times the smallest N against W", 8 * sizes[0], edge),),
        (Condition("W against the largest N", edge, sizes[-1]),),
        (Condition("two networks with W ≥ 2 N", 2, float(past(run).sum())),),
    )


def listed(values: np.ndarray, places: np.ndarray) -> str:
    """Means over seeds, (S, G), with the N or W that they belong to."""
    return f"{common.means(values, '.2f')} at {', '.join(map(str, places))}"


def _no_overfitting(run: Run) -> tuple[Evidence, ...]:
    train_n, train_w, test_n, test_w = common.whole(run, *NAMES)
    many, few, wider = regimes(run)
    sizes, counts, wide = run.prediction["sizes"], run.prediction["weights"], past(run)
    left = max(float(train_n[:, 0].max()), float(train_w[:, 0, wide].max(initial=0)))
    fitted = (Check("natural labels, training error", left, LEAVES, "raise steps or width"),)
    noisy = np.concatenate([test_n[:, 1], test_w[:, 1, counts != run.prediction["edge"]]], axis=1)
    return (
        Evidence(train_n[:, 1, 0], None, many),
        Evidence(train_n[:, 1, -1] - train_n[:, 1, 0], None, few, note=listed(train_n[:, 1], sizes)),
        Evidence(test_n[:, 0, 0] - test_n[:, 0, -1], None, (), fitted, note=listed(test_n[:, 0], sizes)),
        Evidence(rise(test_w[:, 0], wide), None, wider, fitted, note=listed(test_w[:, 0], counts)),
        Evidence(noisy.mean(axis=1), float(run.prediction["chance"])),
    )


def _up_to_as_many(run: Run) -> Evidence:
    (train_n,) = common.whole(run, "train_n")
    many, few, _ = regimes(run)
    edge = float(run.prediction["edge"])
    return Evidence(leaves_zero(run.prediction["sizes"], train_n[:, 1]) / edge, 1.0, (*many, *few))


def as_natural(random_labels: Callable[..., data.Dataset]) -> Callable[..., data.Dataset]:
    """A fault for a world: labels that should be drawn anew stay as they are."""
    return lambda one, seed: one


S8 = Claim(
    "S8", "finding",
    "Within these steps natural labels have a test error that falls with N and, from W ≥ 2 N on, does not "
    "rise with W; random labels are fitted at W ≥ 8 N and no longer at N ≥ W, with a test error at chance.",
    "paper 3, Figs 1–4, 13–15",
    (
        Between("training error, random labels, smallest N", high=LEAVES, by=EVERY),
        Between("training error, random labels, largest N minus smallest", low=GAP, by=EVERY),
        Between("test error, natural labels, smallest N minus largest", low=FALL, by=EVERY),
        Between("test error, natural labels, widest minus narrowest with W ≥ 2 N", high=FLAT, by=EVERY),
        Equals("test error, random labels, mean over N and W", tolerance=CHANCE, absolute=True),
    ),
    _no_overfitting, "holds",
    {"holds": "W ≫ N fits anything, and the test error of natural labels does not rise with W",
     "fails": "random labels, or the test error, behave otherwise",
     "undecided": "natural labels are not fitted: nothing can be said of their test error",
     "out of regime": "no N is far below W, or none above it"},
    (World("60 steps: nothing is fitted", {"steps": 60}),),
)  # fmt: skip
S18 = Claim(
    "S18", "prediction",
    "Counting weights: random labels are fitted up to N = W.", "paper 3, §3, Figs 2 and 3",
    (Equals("N/W at which the training error of random labels leaves zero", tolerance=HALF),),
    _up_to_as_many, "fails",
    {"holds": "random labels are fitted up to about as many samples as weights",
     "fails": "random labels leave zero training error far from N = W",
     "out of regime": "no N is far below W, or none above it"},
    (World("natural labels in the place of random ones", {"widest": 4},
           {f"{__name__}:random_labels": as_natural}, "holds"),),
    "ten outputs share the weights, and the place moves with the number of steps",
)  # fmt: skip

PUZZLE = Experiment(
    "puzzle", "More weights than samples: why is there no overfitting?", Puzzle,
    {
        "quick": Puzzle(), "paper": Puzzle(**PAPER),
        "afternoon": Puzzle(dataset="cifar10", width=4, widest=8, n=300, n_test=500, steps=2000, seeds=1),
    },
    prepare, predict, run, figure, (S8, S18), controls=("width", "n", "widest", "steps", "lr"),
)  # fmt: skip
