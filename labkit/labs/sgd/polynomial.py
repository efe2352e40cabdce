"""The same puzzle in a network that is a polynomial (S14; paper 3, §9.10, Figs 21-24).

Every ReLU is replaced by its least-squares polynomial of degree 10 on [-a, a]. The twins have the same
weights at the start, the same images, labels and batches, and differ in the activation alone.

On the whole line, which is what the paper writes, such a network is a polynomial of degree 10⁴, and diverges
at once here. No setting that was tried (images of length 1 to 4, a from 1 to 10, rates from .01 to .1) trains
it from every start. With its input held to [-a, a] it trains like its twin; but then nearly every image has a
unit that is held, and what is trained is a *saturating* network and no polynomial.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from labkit import figures
from labkit.figures.palette import Color
from labkit.labs import common
from labkit.labs.sgd import puzzle, shared
from labkit.models.polynomial import polynomial_relu
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import EVERY, Between, Check, Equals, Evidence
from labkit.protocol.settings import knob

TWINS = ("ReLU", "saturating")
MULTIPLES = (0.25, 1.0, 4.0)  # N of the first sweep, over that of the second
CLOSE = 0.1  # difference of mean test errors up to which twins count as alike
FITTED = 0.15  # training error of random labels up to which few of them count as fitted: 9 of 62
FALL = 0.05  # of the test error of natural labels, from the smallest N to the largest
FIT: Color = "#7A4A32"


@dataclass(frozen=True)
class Polynomial(puzzle.Puzzle):
    n: int = knob(250, "samples N where channels are swept; the sweep over N goes from N/4 to 4N",
                  slider=(100, 350), bounds=(8, None), step=50, label="samples")  # fmt: skip
    widest: int = knob(8, "channels of the widest network; they double up to it, from those whose N is swept",
                       slider=(8, 64), bounds=(2, None), scale="log2", label="most channels")  # fmt: skip
    steps: int = knob(500, "steps of SGD, at most, for every N and W", slider=(500, 10_000), bounds=(1, None),
                      scale="log")  # fmt: skip
    degree: int = knob(10, "degree of the polynomial", slider=(2, 20), bounds=(2, 40), step=2)
    interval: float = knob(5.0, "a: the polynomial is fitted, and its input held, to [-a, a]", slider=(1, 10),
                           bounds=(0.1, 100), step=1, label="interval a")  # fmt: skip
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


def predict(setup: common.Setup) -> Prediction:
    """Counting weights, as for the twin; and the two activations."""
    settings = setup.settings
    z = torch.linspace(-0.4, 0.4, 121, dtype=torch.float64) * settings.interval
    fit = polynomial_relu(settings.degree, settings.interval)
    inside = torch.linspace(-1, 1, 2001, dtype=torch.float64) * settings.interval
    deviation = (fit(inside) - inside.relu()).abs().max().reshape(1)
    return {
        **puzzle.predict(setup), "z": z.numpy(), "relu": z.relu().numpy(), "fit": fit(z).numpy(),
        "deviation": deviation.numpy(),
    }  # fmt: skip


def run(setup: common.Setup, prediction: Prediction) -> Iterator[Frame]:
    settings, seeds = setup.settings, setup.settings.seeds
    values = puzzle.blank(settings, len(TWINS), len(shared.KINDS))
    values |= common.blank(seeds, free_steps=(), free_diverged=(), free_train=())
    plan = [(*cell, which) for cell in puzzle.cells(settings, setup.sets[0][0]) for which in (0, 1)]
    activations = ("relu", polynomial_relu(settings.degree, settings.interval))
    spans, step = common.spans([1.0] * (len(plan) + seeds)), 0
    for (width, sizes, which), span in zip(plan, spans[: len(plan)], strict=True):
        frame = yield from puzzle.trained(
            setup, width, sizes, network=partial(puzzle.network, activation=activations[which]),
            values=values, span=span, first=step,
            who=f"{TWINS[which]}, {width} channels", twin=(which,),
        )  # fmt: skip
        if frame.status == "diverged":
            return
        step += frame.step

    free = polynomial_relu(settings.degree, settings.interval, clamp=settings.hold)
    # One seed at a time: a copy that diverges would end the others' training.
    for row, (one, (begin, end)) in enumerate(zip(setup.sets[0], spans[len(plan) :], strict=True)):
        alone = settings.replace(seed=settings.seed + row, seeds=1)
        net = puzzle.network(one, settings.width, alone.seed, free)
        for frame in puzzle.fit(alone, [net], [one], (settings.n,)):
            yield Frame.tick(step + frame.step, begin + (end - begin) * (frame.progress or 0))
        step, went = step + frame.step, frame.status == "diverged"
        values["free_diverged"][row], values["free_steps"][row] = went, frame.step
        # What diverged answers no better than a guess.
        values["free_train"][row] = prediction["chance"] if went else frame.values["train"][0]
    yield Frame(step, common.snapshot(values), 1.0, "done")


def figure(frames: Frames, prediction: Prediction, settings: Polynomial | None = None) -> figures.Chart:
    curves = [
        (part, (which, kind), f"{shared.KINDS[kind]} {part}, {('ReLU', 'sat.')[which]}", colors[kind])
        for which, colors in enumerate((shared.PALE, shared.COLORS))
        for part, kind in (("test", 0), ("train", 1))
    ]
    twins = partial(puzzle.errors, frames, prediction, room=1.4, fitted=False)
    z = prediction["z"]
    activation = [
        figures.Measured(z, prediction["relu"], label=TWINS[0], color="ink"),
        figures.Predicted(z, prediction["fit"], label="polynomial", color=FIT),
        *_free(frames),
    ]
    return figures.Chart.of(
        settings, "A network with polynomial activations beside its ReLU twin: activation and errors.",
        figures.Panel("The activation", activation, "z", "φ(z)", ylim=(None, 1.7 * float(z[-1]))),
        twins("n", f"Over N, W = {int(prediction['edge']):,}", curves),
        twins("w", f"Over W, N = {int(prediction['sizes'][1])}", curves),
    )  # fmt: skip


def _free(frames: Frames) -> list[figures.Mark]:
    """What became of the polynomial network."""
    steps, went = (common.seen(frames, name) for name in ("free_steps", "free_diverged"))
    if np.isnan(steps).any():
        return []
    return [figures.Note(f"input not held:\n{_diverged(went, steps)}", 0.04, 0.95)]


def _diverged(went: np.ndarray, steps: np.ndarray) -> str:
    at = f" by step {steps[went > 0].max():.0f}" if went.any() else ""
    return f"{int(went.sum())} of {len(went)} diverge{at}"


def _like_relu(run: Run) -> tuple[Evidence, ...]:
    train_n, train_w, test_n, test_w, _ = common.whole(run, *puzzle.NAMES, "free_steps")
    many, few, wider = puzzle.regimes(run)
    sizes, counts, wide = run.prediction["sizes"], run.prediction["weights"], puzzle.past(run)
    # Up to the N of the second sweep, and for W >= 2 N; with more samples the steps do not suffice.
    enough = sizes <= run.settings.n
    left = max(float(train_n[:, :, 0, enough].max()), float(train_w[:, :, 0, wide].max(initial=0)))
    fitted = (Check("natural labels, training error", left, puzzle.LEAVES, "raise steps or width"),)
    both = np.concatenate([test_n[:, :, 0, enough], test_w[:, :, 0, wide]], axis=-1).mean(axis=-1)
    own = counts != run.prediction["edge"]
    noisy = np.concatenate([test_n[:, 1, 1], test_w[:, 1, 1, own]], axis=-1).mean(axis=-1)
    return (
        Evidence(run.last("free_train"), note=_diverged(run.last("free_diverged"), run.last("free_steps"))),
        Evidence(both[:, 1], both[:, 0], checks=fitted),
        Evidence(train_n[:, 1, 1, 0], None, many),
        Evidence(train_n[:, 1, 1, -1] - train_n[:, 1, 1, 0], None, few),
        Evidence(test_n[:, 1, 0, 0] - test_n[:, 1, 0, -1], note=puzzle.listed(test_n[:, 1, 0], sizes)),
        Evidence(puzzle.rise(test_w[:, 1, 0], wide), None, wider, fitted,
                 note=puzzle.listed(test_w[:, 1, 0], counts)),
        Evidence(noisy, float(run.prediction["chance"])),
    )  # fmt: skip


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
    {"quick": Polynomial(), "paper": Polynomial(**puzzle.PAPER)},
    puzzle.prepare, predict, run, figure, (S14,),
    controls=("degree", "interval", "hold", "width", "n", "widest", "steps", "lr"),
)  # fmt: skip
