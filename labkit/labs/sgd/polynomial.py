"""The same puzzle in a network that is a polynomial (S14; paper 3, §9.10, Figs 21-24).

Every ReLU is replaced by its least-squares polynomial of degree 10 on [-a, a]. The twins have the same
weights at the start, the same images, labels and batches, and differ in the activation alone.

On the whole line, which is what the paper writes, such a network is a polynomial of degree 10⁴, and diverges
at once here. No setting that was tried (images of length 1 to 4, a from 1 to 10, rates from .01 to .1) trains
it from every start. With its input held to [-a, a] it trains like its twin; but then nearly every image has a
unit that is held, and what is trained is a *saturating* network and no polynomial.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from labkit import figures
from labkit.figures.palette import Color
from labkit.labs import common
from labkit.labs.sgd import puzzle, shared
from labkit.models.allconv import allconv
from labkit.models.polynomial import polynomial_relu
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Prediction, Run
from labkit.protocol.rules import EVERY, Between, Check, Equals, Evidence
from labkit.protocol.settings import knob

TWINS = ("ReLU", "saturating")
NAMES = ("train_n", "train_w", "test_n", "test_w")
MULTIPLES = (0.25, 1.0, 4.0)  # N of the first sweep, over that of the second
CLOSE = 0.1  # difference of mean test errors up to which twins count as alike
FITTED = 0.15  # training error of random labels up to which few of them count as fitted: 9 of 62
FALL = 0.05  # of the test error of natural labels, from the smallest N to the largest
FIT: Color = "#7A4A32"
SHOWN = (("test", 0), ("train", 1))  # natural test error, random training error


@dataclass(frozen=True)
class Polynomial(puzzle.Puzzle):
    n: int = knob(
        250, "samples N where channels are swept; the sweep over N goes from N/4 to 4N", slider=(100, 350),
        bounds=(8, None), step=50, label="samples",
    )  # fmt: skip
    widest: int = knob(
        8, "channels of the widest network; they double up to it, from those whose N is swept",
        slider=(8, 64), bounds=(2, None), scale="log2", label="most channels",
    )  # fmt: skip
    steps: int = knob(
        500, "steps of SGD, at most, for every N and W", slider=(500, 10_000), bounds=(1, None), scale="log"
    )
    degree: int = knob(10, "degree of the polynomial", slider=(2, 20), bounds=(2, 40), step=2)
    interval: float = knob(
        5.0, "a: the polynomial is fitted, and its input held, to [-a, a]", slider=(1, 10), bounds=(0.1, 100),
        step=1, label="interval a",
    )  # fmt: skip
    hold: bool = knob(False, "hold the input of the polynomial network as well: then it is none")

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(round(multiple * self.n) for multiple in MULTIPLES)

    @property
    def widths(self) -> tuple[int, ...]:
        found = [max(1, self.width // 4), self.width]
        while 2 * found[-1] <= self.widest:
            found.append(2 * found[-1])
        return tuple(sorted(set(found)))


def predict(setup: puzzle.Setup) -> Prediction:
    """Counting weights, as for the twin; and the two activations."""
    settings, one = setup.settings, setup.sets[0]
    z = torch.linspace(-0.4, 0.4, 121, dtype=torch.float64) * settings.interval
    fit = polynomial_relu(settings.degree, settings.interval)
    inside = torch.linspace(-1, 1, 2001, dtype=torch.float64) * settings.interval
    return {
        "sizes": np.array(settings.sizes),
        "widths": np.array(settings.widths),
        "weights": np.array([puzzle.count(one, width) for width in settings.widths]),
        "edge": np.array(puzzle.count(one, settings.width)),
        "middle": np.array(settings.n),
        "chance": np.array(1 - 1 / one.classes),
        "z": z.numpy(),
        "relu": z.relu().numpy(),
        "fit": fit(z).numpy(),
        "deviation": (fit(inside) - inside.relu()).abs().max().reshape(1).numpy(),
    }


def twin(settings: Polynomial, one: Any, width: int, seed: int, activation: str | nn.Module) -> nn.Module:
    """The network of a seed with one activation or the other; the weights are the same."""
    return allconv(
        one.classes, one.shape[0], size=one.shape[-1], width=width, activation=activation, seed=seed,
        device=settings.device,
    )  # fmt: skip


def run(setup: puzzle.Setup, prediction: Prediction) -> Iterator[Frame]:
    settings, seeds = setup.settings, len(setup.sets)
    clamped = polynomial_relu(settings.degree, settings.interval)
    kinds = len(shared.KINDS)
    values: dict[str, np.ndarray] = {
        name: np.full((seeds, len(TWINS), kinds, len(settings.sizes if name[-1] == "n" else settings.widths)),
                      np.nan)
        for name in NAMES
    }  # fmt: skip
    for name in ("free_steps", "free_diverged", "free_train"):
        values[name] = np.full(seeds, np.nan)
    plan = puzzle.cells(settings, setup.sets[0])
    total, done, step = len(TWINS) * len(plan) + seeds, 0, 0
    twins: tuple[str | nn.Module, ...] = ("relu", clamped)

    for width, sizes in plan:
        for which, activation in enumerate(twins):
            nets, sets = [], []
            for seed, pair in zip(
                common.seeds(settings), zip(setup.sets, setup.noisy, strict=True), strict=True
            ):
                nets += [twin(settings, one, width, seed, activation) for one in pair for _ in sizes]
                sets += [one for one in pair for _ in sizes]
            first, own = step, {name: values[name][:, which] for name in NAMES}
            for frame in puzzle.fit(settings, nets, sets, seeds * kinds * sizes):
                step, progress = first + frame.step, (done + (frame.progress or 0)) / total
                if frame.is_tick:
                    yield Frame.tick(step, progress)
                    continue
                puzzle.place(own, settings, width, sizes, frame)
                if frame.status == "diverged":
                    note = f"{TWINS[which]}, {width} channels: {frame.note}"
                    yield Frame(step, shared.snapshot(values), progress, "diverged", note)
                    return
                yield Frame(step, shared.snapshot(values), progress)
            done += 1

    free = polynomial_relu(settings.degree, settings.interval, clamp=settings.hold)
    # One seed at a time: a copy that diverges would end the others' training.
    for row, one in enumerate(setup.sets):
        alone = settings.replace(seed=settings.seed + row, seeds=1)
        first, net = step, twin(settings, one, settings.width, alone.seed, free)
        for frame in puzzle.fit(alone, [net], [one], (settings.n,)):
            step = first + frame.step
            yield Frame.tick(step, (done + (frame.progress or 0)) / total)
        went = frame.status == "diverged"
        values["free_diverged"][row], values["free_steps"][row] = went, frame.step
        # What diverged answers no better than a guess.
        values["free_train"][row] = prediction["chance"] if went else frame.values["train"][0]
        done += 1
    yield Frame(step, shared.snapshot(values), 1.0, "done")


def figure(
    frames: Sequence[Frame],
    prediction: Prediction,
    previous: Sequence[Run] = (),
    settings: Polynomial | None = None,
) -> figures.Chart:
    fit = figures.Panel(
        "The activation",
        (
            figures.Measured(prediction["z"], prediction["relu"], label=TWINS[0], color="ink"),
            figures.Predicted(prediction["z"], prediction["fit"], label="polynomial", color=FIT),
            *_free(frames),
        ),
        xlabel="z", ylabel="φ(z)", ylim=(None, 1.7 * float(prediction["z"][-1])),
    )  # fmt: skip
    return figures.Chart(
        (
            fit,
            _twins(frames, prediction, previous, "n", f"Over N, W = {int(prediction['edge']):,}"),
            _twins(frames, prediction, previous, "w", f"Over W, N = {int(prediction['middle'])}"),
        ),
        caption=figures.caption(
            "A network with polynomial activations beside its ReLU twin: activation and errors.", settings
        ),
    )


def _free(frames: Sequence[Frame]) -> list[figures.Mark]:
    """What became of the polynomial network."""
    steps, went = common.newest(frames, "free_steps"), common.newest(frames, "free_diverged")
    if steps is None or went is None or np.isnan(steps).any():
        return []
    at = f" by step {steps[went > 0].max():.0f}" if went.any() else ""
    return [figures.Note(f"input not held:\n{int(went.sum())} of {len(went)} diverge{at}", 0.04, 0.95)]


def _twins(
    frames: Sequence[Frame], prediction: Prediction, previous: Sequence[Run], sweep: str, title: str
) -> figures.Panel:
    """Test error of natural and training error of random labels, both twins."""
    places = prediction["sizes" if sweep == "n" else "weights"]
    edge = float(prediction["edge" if sweep == "n" else "middle"])
    reach = (float(places[0]) / 1.4, float(places[-1]) * 1.4)
    chance = float(prediction["chance"])
    marks: list[figures.Mark] = [
        figures.Earlier(run.prediction["sizes" if sweep == "n" else "weights"], old[:, 1, kind])
        for run in previous
        for part, kind in SHOWN
        if (old := common.newest(run.frames, f"{part}_{sweep}")) is not None
    ]
    marks += [
        figures.Level(edge, axis="x", label="N = W"),
        figures.Predicted(reach, [chance, chance], label="chance", color="ink"),
    ]
    for which, colors in enumerate((puzzle.PALE, shared.COLORS)):
        for part, kind in SHOWN:
            found = common.newest(frames, f"{part}_{sweep}")
            y = np.full((1, len(places)), np.nan) if found is None else found[:, which, kind]
            words = f"{shared.KINDS[kind]} {part}, {('ReLU', 'sat.')[which]}"
            marks.append(figures.Points(places, y, label=words, color=colors[kind]))
    return figures.Panel(
        title, tuple(marks), xlabel="training samples N" if sweep == "n" else "weights W",
        ylabel="share of wrong classes", xscale="log", xlim=reach, ylim=(-0.03, 1.0),
    )  # fmt: skip


def _like_relu(run: Run) -> tuple[Evidence, ...]:
    train_n, train_w, test_n, test_w, _ = puzzle.whole(run, *NAMES, "free_steps")
    many, few, wider = puzzle.regimes(run)
    sizes, counts, wide = run.prediction["sizes"], run.prediction["weights"], puzzle.past(run)
    # Up to the N of the second sweep, and for W >= 2 N; with more samples the steps do not suffice.
    enough = sizes <= run.settings.n
    left = max(float(train_n[:, :, 0, enough].max()), float(train_w[:, :, 0, wide].max(initial=0)))
    fitted = (Check("natural labels, training error", left, puzzle.LEAVES, "raise steps or width"),)
    both = np.concatenate([test_n[:, :, 0, enough], test_w[:, :, 0, wide]], axis=-1).mean(axis=-1)
    own = counts != run.prediction["edge"]
    noisy = np.concatenate([test_n[:, 1, 1], test_w[:, 1, 1, own]], axis=-1).mean(axis=-1)
    went, steps = run.last("free_diverged"), run.last("free_steps")
    at = f" by step {steps[went > 0].max():.0f}" if went.any() else ""
    return (
        Evidence(run.last("free_train"), note=f"{int(went.sum())} of {len(went)} diverge{at}"),
        Evidence(both[:, 1], both[:, 0], checks=fitted),
        Evidence(train_n[:, 1, 1, 0], None, many),
        Evidence(train_n[:, 1, 1, -1] - train_n[:, 1, 1, 0], None, few),
        Evidence(test_n[:, 1, 0, 0] - test_n[:, 1, 0, -1], note=puzzle.listed(test_n[:, 1, 0], sizes)),
        Evidence(
            puzzle.rise(test_w[:, 1, 0], wide),
            None,
            wider,
            fitted,
            note=puzzle.listed(test_w[:, 1, 0], counts),
        ),
        Evidence(noisy, float(run.prediction["chance"])),
    )


S14 = Claim(
    "S14", "finding",
    "With each ReLU replaced by its polynomial fit of degree 10 the network fits natural labels as its twin "
    "does; with the input held to the fit's interval, where it saturates, it has the test error of its twin "
    "and shows the same puzzles.",
    "paper 3, §9.10, Figs 21–24",
    (
        Between("training error, natural labels, polynomial network", high=puzzle.LEAVES, by=EVERY),
        Equals("test error, natural labels, saturating against ReLU", tolerance=CLOSE, absolute=True),
        Between("training error, random labels, saturating, smallest N", high=FITTED, by=EVERY),
        Between("training error, random labels, saturating, largest N minus smallest", low=puzzle.GAP,
                by=EVERY),
        Between("test error, natural labels, saturating, smallest N minus largest", low=FALL, by=EVERY),
        Between("test error, natural labels, saturating, widest minus narrowest with W ≥ 2 N",
                high=puzzle.FLAT, by=EVERY),
        Equals("test error, random labels, saturating", tolerance=puzzle.CHANCE, absolute=True),
    ),
    _like_relu, "fails",
    {"holds": "the network generalises like its twin, fits random labels and does not overfit",
     "fails": "a polynomial network does not train here; held to the interval it does, and is none",
     "undecided": "natural labels are not fitted: nothing can be said of their test error",
     "out of regime": "no N is far below W, or none above it"},
    (World("its input held to the interval, too: a saturating network", {"hold": True}, word="holds"),),
    "four layers of degree 10 are a polynomial of degree 10⁴, which leaves its interval at once",
)  # fmt: skip

POLYNOMIAL = Experiment(
    "polynomial", "Does a polynomial network show the same puzzles?", Polynomial,
    {
        "quick": Polynomial(),
        "paper": Polynomial(
            dataset="cifar10", width=16, widest=256, n=12_500, n_test=10_000, steps=200_000, batch_size=100,
        ),
    },
    puzzle.prepare, predict, run, figure, (S14,),
    controls=("degree", "interval", "hold", "width", "n", "widest", "steps", "lr"),
)  # fmt: skip
