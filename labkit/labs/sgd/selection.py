"""What does the noise of SGD select? (S20; paper 3, its title, §5.2 and §6.1)

One start, one set of images, one learning rate and one training loss at the end; what differs is the batch,
from all samples, which is GD and has no noise, to a few. If noise selects the flat, simple and good minima,
small batches end in them and GD does not. Random labels stand beside it, by GD at a larger rate: so large is
an effect that can be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from labkit import data, figures
from labkit.labs import common
from labkit.labs.sgd import shared
from labkit.measure.flatness import flatness_radius
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import EVERY, Between, Check, Evidence
from labkit.protocol.settings import knob

CLEAR = 1.2  # times the radius, or the margin over norms, of GD; random labels have a half and a third
BETTER = 0.02  # of the test error
FASTER = 4.0  # times the rate, for random labels
# By how much the losses at the end may differ, relative: small batches pass the stop within an epoch. A
# radius goes as loss^(-.15) about, and this much is 3 % of it.
EQUAL = 0.25
R_MAX = 200.0
READ = ("radius", "normalized", "norm", "test_error")
TITLES = ("Flatness radius (16)", "Median margin over ∏‖W‖_F", "‖w‖", "Test error")


@dataclass(frozen=True)
class Selection(shared.Minima):
    n: int = knob(200, "training samples N", slider=(100, 1000), bounds=(20, None), step=100)
    smallest: int = knob(4, "samples of the smallest batch; batches grow fourfold from it, up to all samples",
                         slider=(2, 64), bounds=(1, None), scale="log2", label="smallest batch")  # fmt: skip
    lr: float = shared.rate(0.01, "learning rate, the same for every batch, with momentum .9",
                            slider=(0.005, 0.05))  # fmt: skip
    directions: int = knob(10, "random directions at each minimum", slider=(5, 50), bounds=(2, None), step=5,
                           remeasures=True)  # fmt: skip

    @property
    def batches(self) -> tuple[int, ...]:
        """GD first, the smallest last."""
        sizes, size = [self.n], self.smallest
        while size < self.n / 2:
            sizes.insert(1, size)
            size *= 4
        return tuple(sizes)


def predict(setup: common.Setup) -> Prediction:
    """If the noise selects nothing, every batch ends where GD does: no number is known beforehand."""
    return {"batches": np.array(setup.settings.batches)}


def labelled(setup: common.Setup, kind: int, batch: int) -> tuple[data.Dataset, ...]:
    """The sets of a training, one a seed."""
    return setup.sets[kind]


def run(setup: common.Setup, prediction: Prediction) -> Iterator[Frame]:
    settings, batches = setup.settings, setup.settings.batches
    kinds = [*((0, batch) for batch in batches), (1, batches[0])]  # the last: random labels
    trainings = [
        shared.Training(
            f"{shared.WORDS[kind]}, batch {batch}", labelled(setup, kind, batch),
            span, setup.models, {"batch": batch, "lr": settings.lr * (FASTER if kind else 1)},
        )
        for (kind, batch), span in zip(kinds, common.spans([1.0] * len(kinds)), strict=True)
    ]  # fmt: skip
    values = shared.blank(settings.seeds, len(kinds), **dict.fromkeys(READ, ()))

    def read(step: int, s: int, one: data.Dataset, model: nn.Module) -> Iterator[bool]:
        common.put(values, (s, step), _read(settings, model, one, settings.seed + s))
        yield False

    yield from shared.minima(settings, trainings, values, read, share=0.8)


def _read(settings: Selection, model: nn.Module, one: data.Dataset, seed: int) -> dict[str, float]:
    margins, norms = shared.margins_and_norms(model, one)
    radii = flatness_radius(
        model, one.x_train, one.y_train, epsilon=0.05, directions=settings.directions, r_max=R_MAX,
        generator=seed,
    ).radii  # fmt: skip
    return {
        **shared.ends(model, one), "radius": float(radii.mean()),
        "norm": float(norms.square().sum().sqrt()),
        "normalized": float(margins.median()) / float(norms.prod()),
    }  # fmt: skip


def figure(frames: Frames, prediction: Prediction, settings: Selection | None = None) -> figures.Chart:
    batches = prediction["batches"]
    ticks = [(float(size), "all" if size == batches[0] else str(size)) for size in batches]
    panels = []
    for name, title in zip(READ, TITLES, strict=True):
        now = common.seen(frames, name, len(batches) + 1)
        natural = figures.Points(batches, now[:, :-1], label="natural labels", color=shared.NATURAL)
        random = figures.Points(batches[:1], now[:, -1:], label="random labels", color=shared.RANDOM)
        panels.append(
            figures.Panel(title, [natural, random], xlabel="batch size", ylabel="at the minimum",
                          xscale="log2", xticks=ticks, ylim=(0, None))
        )  # fmt: skip
    says = "Minima of one training loss, found by GD and with ever smaller batches, and for random labels."
    return figures.Chart.of(settings, says, *panels)


def _selects(run: Run) -> tuple[Evidence, ...]:
    names = (*READ, "loss", "train_error")
    found = dict(zip(names, common.whole(run, *names), strict=True))
    loss = found["loss"]
    apart = float((loss.max(axis=1) / loss.min(axis=1)).max()) - 1
    checks = (
        *shared.converged(run),
        Check("difference of the losses at the end, relative", apart, EQUAL, "take a smaller learning rate"),
    )

    def told(name: str) -> str:
        gd, few, random = (found[name][:, place].mean() for place in (0, -2, -1))
        return f"GD {gd:.3g}, batch {run.settings.smallest} {few:.3g}, random labels {random:.3g}"

    ratio = {name: values[:, -2] / values[:, 0] for name, values in found.items() if name != "train_error"}
    error = found["test_error"]
    return (
        Evidence(ratio["radius"], checks=checks, note=told("radius")),
        Evidence(ratio["normalized"], checks=checks, note=told("normalized")),
        Evidence(1 / ratio["norm"], checks=checks, note=told("norm")),
        Evidence(error[:, 0] - error[:, -2], checks=checks, note=told("test_error")),
    )


def against_random(labelled: Callable[..., tuple[data.Dataset, ...]]) -> Callable[..., Any]:
    """A fault for a world: GD is trained on random labels, small batches on natural ones."""
    return lambda setup, kind, batch: labelled(setup, int(kind or batch == setup.settings.n), batch)


S20 = Claim(
    "S20", "finding",
    "At one start, rate and training loss, small batches end in flatter minima than GD, of a larger margin "
    "for their norms, a smaller norm and a smaller test error: the noise selects.",
    "paper 3, title, §5.2, §5.3 and §6.1",
    (
        Between("flatness radius, smallest batch over GD", low=CLEAR, by=EVERY),
        Between("median margin over ∏‖W‖_F, smallest batch over GD", low=CLEAR, by=EVERY),
        Between("‖w‖, GD over smallest batch", low=1.05, by=EVERY),
        Between("test error, GD minus smallest batch", low=BETTER, by=EVERY),
    ),
    _selects, "fails",
    {"holds": "the minima of small batches are flatter, simpler and better than those of GD",
     "fails": "GD, which has no noise, finds minima as good: what is selected, noise does not select",
     "undecided": "the networks are not fitted, or not to one loss"},
    (World("GD on random labels", {}, {f"{__name__}:labelled": against_random}, "holds"),),
    "the start, the loss and the labels decide; the noise of small batches moves a radius by a few per cent",
)  # fmt: skip

SELECTION = Experiment(
    "selection", "What does the noise of SGD select?", Selection,
    {"quick": Selection(), "paper": Selection(**shared.LARGE | {"smallest": 8, "lr": 0.005, "seeds": 5})},
    shared.prepare, predict, run, figure, (S20,),
    controls=("smallest", "lr", "stop", "n", "width", "directions"),
)  # fmt: skip
