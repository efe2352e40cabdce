"""What lies between three minima? (S10; paper 3, section 6.1, eq. 15, Figs. 11 and 12)

Three networks are fitted to the same samples from starts of their own, with natural and with random labels.
On the triangle between their weights the training accuracy is measured: a wide plateau around the corners is
the paper's picture of flat minima, three narrow wells that of sharp ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import nn

from labkit import data, figures
from labkit.labs import common
from labkit.labs.sgd import shared
from labkit.measure.interpolation import simplex, three_point
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import EVERY, Between, Evidence
from labkit.protocol.settings import knob

CORNERS = 3
WIDER = 0.3  # of the triangle: by how much the flat region of natural labels is larger at least
LEVELS = np.linspace(0.1, 1.0, 37)  # accuracies at which areas are drawn


@dataclass(frozen=True)
class Triangle(shared.Minima):
    stop: float = shared.stop_at(0.003, "cross-entropy at which training stops")
    level: float = knob(0.95, "accuracy that counts as flat", slider=(0.5, 1), bounds=(0, 1), step=0.05,
                        label="flat above", remeasures=True)  # fmt: skip
    resolution: int = knob(12, "steps along an edge of the triangle", slider=(6, 30), bounds=(1, None),
                           step=2, remeasures=True)  # fmt: skip
    starts: str = knob("independent", "whether the three minima of a triangle start from one network",
                       choices=("independent", "one start"))  # fmt: skip


def prepare(settings: Triangle) -> common.Setup:
    sets = shared.prepare(settings).sets
    apart = 1000 if settings.starts == "independent" else 0
    starts = tuple(
        shared.network(settings, sets[0][0].dim, seed + apart * corner)
        for seed in common.seeds(settings)
        for corner in range(CORNERS)
    )
    return common.Setup(settings, sets, starts)


def predict(setup: common.Setup) -> Prediction:
    """The grid, the level, and the area that three wells of no width would have: their corners alone."""
    points, weights = simplex(setup.settings.resolution)
    return {
        "points": points.numpy(), "levels": LEVELS, "level": np.array(setup.settings.level),
        "corners": np.array(float(weights[(points == 1).any(1)].sum())),
    }  # fmt: skip


def run(setup: common.Setup, prediction: Prediction) -> Iterator[Frame]:
    settings, points = setup.settings, len(prediction["points"])
    values = shared.blank(settings.seeds, 2, accuracy=(points,), area=(), areas=(len(LEVELS),), middle=())
    values |= shared.blank(settings.seeds, 2, CORNERS)

    def read(k: int, s: int, one: data.Dataset, *corners: nn.Module) -> Iterator[bool]:
        for which, model in enumerate(corners):
            common.put(values, (s, k, which), shared.ends(model, one))
        seen = three_point(corners, one.x_train, one.y_train, resolution=settings.resolution)
        found = {
            "accuracy": seen.accuracy.numpy(), "area": seen.area(settings.level),
            "areas": [seen.area(float(at)) for at in LEVELS],
            "middle": float(seen.accuracy[((seen.points - 1 / 3) ** 2).sum(1).argmin()]),
        }  # fmt: skip
        common.put(values, (s, k), found)
        yield False

    yield from shared.minima(settings, shared.of_both_kinds(setup), values, read)


def figure(frames: Frames, prediction: Prediction, settings: Triangle | None = None) -> figures.Chart:
    levels, points = prediction["levels"], prediction["points"]
    landscape = both(points, common.seen(frames, "accuracy", 2, len(points))[0])
    curves = shared.of_kinds(frames, prediction, "levels", "areas", figures.Measured)
    corners = np.full(len(levels), float(prediction["corners"]))
    curves.append(figures.Predicted(levels, corners, label="corners alone", color="ink"))
    curves.append(figures.Level(float(prediction["level"]), axis="x", label="flat above"))
    notes = (figures.Note("natural labels", 0.02, 0.12), figures.Note("random labels", 0.72, 0.98))
    blanks = [""] * len(landscape)
    return figures.Chart.of(
        settings, "Training accuracy between three minima, and how much of the triangle stays accurate.",
        figures.Panel(
            "Training accuracy on two triangles", (figures.Raster(landscape, blanks, blanks), *notes),
            xlabel="a minimum at each corner; first seed",
        ),
        figures.Panel(
            "Share of the triangle", curves, xlabel="training accuracy at least",
            ylabel="share of the area", xlim=(0.1, 1.0), ylim=(0, 1.05),
        ),
    )  # fmt: skip


def both(points: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Two triangles (2, P) as one picture with one scale: natural labels bottom left, random top right."""
    R = round(1 / points[points > 0].min())
    grid = np.full((R + 2, R + 2), np.nan)
    _, up, right = np.round(points * R).astype(int).T
    grid[R + 1 - up, right] = values[0]
    grid[up, R + 1 - right] = values[1]
    return grid


def _wider(run: Run) -> Evidence:
    area, middle = common.whole(run, "area", "middle")
    half = middle.mean(axis=0)
    note = f"{shared.told(area)}; accuracy half-way between all three {half[0]:.2f} and {half[1]:.2f}"
    return Evidence(area[:, 0] - area[:, 1], checks=shared.converged(run), note=note)


S10 = Claim(
    "S10", "finding",
    "Between three minima, started independently, the region of high training accuracy is larger for natural "
    "than for random labels.",
    "paper 3, eq. 15, Figs. 11 and 12",
    (Between("share of the triangle that is flat, natural minus random labels", low=WIDER, by=EVERY),),
    _wider, "holds",
    {"holds": "natural labels: one plateau; random labels: three wells",
     "fails": "the flat region of natural labels is not the larger one"},
    (World("all three from one start", {"starts": "one start", "n": 200, "width": 60, "stop": 0.01}),),
)  # fmt: skip

INTERPOLATION = Experiment(
    "interpolation", "What lies between three minima?", Triangle,
    {"quick": Triangle(), "paper": Triangle(
        dataset="mnist", n=10_000, width=512, depth=2, resolution=30, lr=0.02, seeds=3, epochs=2000)},
    prepare, predict, run, figure, (S10,),
    controls=("starts", "level", "n", "width", "label_noise", "resolution"),
)  # fmt: skip
