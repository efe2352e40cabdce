"""What lies between three minima? (S10; paper 3, section 6.1, eq. 15, Figs. 11 and 12)

Three networks are fitted to the same samples from starts of their own, with natural and with random labels.
On the triangle between their weights the training accuracy is measured: a wide plateau around the corners is
the paper's picture of flat minima, three narrow wells that of sharp ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from labkit import data, figures
from labkit.labs import common
from labkit.labs.sgd import shared
from labkit.measure.interpolation import Interpolation, simplex, three_point
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Prediction, Run
from labkit.protocol.rules import EVERY, Between, Evidence
from labkit.protocol.settings import knob

CORNERS = 3
WIDER = 0.3  # of the triangle: by how much the flat region of natural labels is larger at least
LEVELS = np.linspace(0.1, 1.0, 37)  # accuracies at which areas are drawn


@dataclass(frozen=True)
class Triangle(shared.Minima):
    n: int = knob(300, "training samples N", slider=(100, 1000), bounds=(20, None), step=100)
    width: int = knob(100, "hidden units", slider=(25, 400), bounds=(1, None), scale="log2")
    stop: float = knob(
        0.003, "cross-entropy at which training stops", slider=(1e-3, 0.1), bounds=(1e-6, 0.5), scale="log",
        label="stop at loss",
    )  # fmt: skip
    level: float = knob(
        0.95,
        "accuracy that counts as flat",
        slider=(0.5, 1),
        bounds=(0, 1),
        step=0.05,
        label="flat above",
        remeasures=True,
    )
    resolution: int = knob(
        12, "steps along an edge of the triangle", slider=(6, 30), bounds=(1, None), step=2, remeasures=True
    )
    starts: str = knob(
        "independent", "whether the three minima of a triangle start from one network",
        choices=("independent", "one start"),
    )  # fmt: skip


@dataclass(frozen=True)
class Setup:
    """sets[natural or random][seed]; starts: three a seed, those of a seed together."""

    settings: Triangle
    sets: tuple[tuple[data.Dataset, ...], ...]
    starts: tuple[nn.Module, ...]


def prepare(settings: Triangle) -> Setup:
    sets = shared.prepare(settings).sets
    apart = 1000 if settings.starts == "independent" else 0
    starts = tuple(
        shared.network(settings, sets[0][0].dim, seed + apart * corner)
        for seed in common.seeds(settings)
        for corner in range(CORNERS)
    )
    return Setup(settings, sets, starts)


def predict(setup: Setup) -> Prediction:
    """The grid, the level, and the area that three wells of no width would have: their corners alone."""
    points, weights = simplex(setup.settings.resolution)
    return {
        "points": points.numpy(), "levels": LEVELS, "level": np.array(setup.settings.level),
        "corners": np.array(float(weights[(points == 1).any(1)].sum())),
    }  # fmt: skip


def run(setup: Setup, prediction: Prediction) -> Iterator[Frame]:
    settings, points = setup.settings, len(prediction["points"])
    values = shared.blank(settings.seeds, accuracy=(points,), area=(), areas=(len(LEVELS),), middle=())
    for name in ("loss", "train_error", "test_error"):
        values[name] = np.full((settings.seeds, len(shared.KINDS), CORNERS), np.nan)
    notes = []
    for k, (begin, end) in enumerate(shared.PARTS):
        trained = begin + 0.9 * (end - begin)
        sets = [one for one in setup.sets[k] for _ in range(CORNERS)]
        found = yield from shared.fit(settings, setup.starts, sets, span=(begin, trained), step=k)
        if found.word == "diverged":
            yield Frame(k, shared.snapshot(values), trained, "diverged", f"{shared.WORDS[k]}: {found.note}")
            return
        notes += [f"{shared.WORDS[k]}: {found.note}"] if found.word == "missed" else []
        for s, one in enumerate(setup.sets[k]):
            corners = found.models[CORNERS * s : CORNERS * (s + 1)]
            for which, model in enumerate(corners):
                for name, value in shared.ends(model, one).items():
                    values[name][s, k, which] = value
            seen = three_point(corners, one.x_train, one.y_train, resolution=settings.resolution)
            _read(seen, values, (s, k), settings.level)
            yield Frame.tick(k, trained)
        yield Frame(k + 1, shared.snapshot(values), end - 0.01)
    yield Frame(len(shared.KINDS), {}, 1.0, "done", "; ".join(notes))


def _read(seen: Interpolation, values: dict[str, np.ndarray], place: tuple[int, int], level: float) -> None:
    values["accuracy"][place] = seen.accuracy.numpy()
    values["area"][place] = seen.area(level)
    values["areas"][place] = [seen.area(float(at)) for at in LEVELS]
    centre = int(((seen.points - 1 / 3) ** 2).sum(1).argmin())
    values["middle"][place] = float(seen.accuracy[centre])


def figure(
    frames: Sequence[Frame],
    prediction: Prediction,
    previous: Sequence[Run] = (),
    settings: Triangle | None = None,
) -> figures.Chart:
    levels, points = prediction["levels"], prediction["points"]
    accuracy, areas = common.newest(frames, "accuracy"), common.newest(frames, "areas")
    landscape = both(points, np.full((2, len(points)), np.nan) if accuracy is None else accuracy[0])
    curves: list[figures.Mark] = []
    for k, (words, color) in enumerate(zip(shared.WORDS, shared.COLORS, strict=True)):
        for old in previous:
            before = common.newest(old.frames, "areas")
            if before is not None:
                curves.append(figures.Earlier(levels, before[:, k]))
        seen = np.full((1, len(levels)), np.nan) if areas is None else areas[:, k]
        curves.append(figures.Measured(levels, seen, label=words, color=color))
    corners = np.full(len(levels), float(prediction["corners"]))
    curves.append(figures.Predicted(levels, corners, label="corners alone", color="ink"))
    curves.append(figures.Level(float(prediction["level"]), axis="x", label="flat above"))
    notes = (figures.Note("natural labels", 0.02, 0.12), figures.Note("random labels", 0.72, 0.98))
    blanks = [""] * len(landscape)
    return figures.Chart(
        (
            figures.Panel(
                "Training accuracy on two triangles", (figures.Raster(landscape, blanks, blanks), *notes),
                xlabel="a minimum at each corner; first seed",
            ),
            figures.Panel(
                "Share of the triangle", tuple(curves), xlabel="training accuracy at least",
                ylabel="share of the area", xlim=(0.1, 1.0), ylim=(0, 1.05),
            ),
        ),
        caption=figures.caption(
            "Training accuracy between three minima, and how much of the triangle stays accurate.", settings
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
    area, middle = run.last("area"), run.last("middle").mean(axis=0)
    if not np.isfinite(area).all():
        raise ValueError("area: not both kinds of labels have been measured yet")
    checks = shared.converged(run.last("train_error"), run.last("loss"), run.settings.stop)
    shares = ", ".join(f"{word} {v:.2f}" for word, v in zip(shared.KINDS, area.mean(0), strict=True))
    note = f"{shares}; accuracy half-way between all three {middle[0]:.2f} and {middle[1]:.2f}"
    return Evidence(area[:, 0] - area[:, 1], checks=checks, note=note)


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
    {
        "quick": Triangle(),
        "paper": Triangle(
            dataset="mnist", n=10_000, width=512, depth=2, resolution=30, lr=0.02, seeds=3, epochs=2000
        ),
    },
    prepare, predict, run, figure, (S10,),
    controls=("starts", "level", "n", "width", "label_noise", "resolution"),
)  # fmt: skip
