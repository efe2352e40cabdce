"""The figures of `skips` and `ending`: cosines and losses by shape, along a training, and over all pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from labkit import figures
from labkit.labs import common
from labkit.labs.confusion import shared
from labkit.protocol.experiment import Frame, Prediction

PLAIN, SKIP, NORM, BOTH = range(4)
KINDS = ("neither", "skips", "batch norm", "both")
LOSS, ACCURACY, LEAST, MEAN = range(4)  # what is followed along a training
STUCK = 0.99  # of the first loss: a run that ends above has not decreased it
COLORS = (shared.DEPTH, shared.SKIP, shared.ETA, shared.COSINE)


def stuck(frames: Sequence[Frame], settings: Any) -> str:
    """Names of the networks whose loss did not decrease, in any seed."""
    if not frames or "first" not in frames[-1].values:
        return ""
    loss, first = (frames[-1].values[name] for name in ("loss", "first"))
    named = [
        f"{KINDS[kind]} {depth}"
        for i, kind in enumerate(settings.kinds)
        for j, (depth, _) in enumerate(settings.shapes)
        if (loss[:, i, j] > STUCK * first[:, i, j]).any()
    ]
    return f"no decrease: {', '.join(named)}" if named else ""


def over_shapes(frames: Sequence[Frame], prediction: Prediction, settings: Any) -> list[figures.Panel]:
    """The smallest cosine before and after training, and the loss, over depth or over width."""
    x = prediction["widths" if settings.over_width else "depths"]
    room = (x[-1] - x[0]) / 8 or 1.0
    ends, panels = (x[0] - room, x[-1] + room), []
    for title, name, known, ylabel, ylim in (
        ("Before training", "start_minimum", "labels_minimum", "minimum cosine", (-1, 1)),
        ("After training", "end_minimum", "labels_minimum", "minimum cosine", (-1, 1)),
        ("Loss at the best rate", "loss", "labels_loss", "training loss", (0, None)),
    ):
        marks: list[figures.Mark] = []
        if PLAIN in settings.kinds:
            level = np.tile(prediction[known][:, None], (1, 2))
            marks.append(figures.Predicted(ends, level, label="labels alone", color=COLORS[PLAIN]))
        found = common.seen(frames, name, len(settings.kinds), len(x))
        for i, kind in enumerate(settings.kinds):
            marks.append(figures.Points(x, found[:, i], label=KINDS[kind], color=COLORS[kind]))
        if name == "loss":
            marks.append(figures.Note(stuck(frames, settings)))
        panels.append(figures.Panel(
            title, marks, xlabel="width factor ℓ" if settings.over_width else "depth β", ylabel=ylabel,
            xlim=ends, ylim=ylim, xticks=[(float(one), str(one)) for one in x],
        ))  # fmt: skip
    return panels


def _lines(settings: Any) -> list[tuple[int, int, str, int]]:
    """(kind, shape, name, colour) of curves: the kinds at the greatest depth, or the shapes of one kind."""
    if settings.families == "all":
        last = len(settings.shapes) - 1
        return [(i, last, KINDS[kind], COLORS[kind]) for i, kind in enumerate(settings.kinds)]
    names = [f"ℓ = {width}" if settings.over_width else f"β = {depth}" for depth, width in settings.shapes]
    return [(0, j, name, j) for j, name in enumerate(names)]


def curves(frames: Sequence[Frame], settings: Any) -> list[figures.Panel]:
    """Loss, test accuracy, smallest and mean cosine along the training."""
    at, panels = np.array([0, *settings.moments, settings.steps]), []
    path = common.seen(frames, "path", len(settings.kinds), len(settings.shapes), len(at), 4)
    where = f", β = {settings.shapes[-1][0]}" if settings.families == "all" else ""
    for which, title, ylim in (
        (LOSS, f"Loss{where}", (0, None)), (ACCURACY, "Test accuracy", (0, 1)),
        (LEAST, "Smallest cosine", (-1, 1)), (MEAN, "Mean cosine", (-1, 1)),
    ):  # fmt: skip
        marks = [
            figures.Measured(at, path[:, i, j, :, which], label=name, color=color)
            for i, j, name, color in _lines(settings)
        ]
        panels.append(figures.Panel(title, marks, xlabel="step", ylim=ylim))
    return panels


def densities(frames: Sequence[Frame], settings: Any) -> figures.Panel:
    shape = common.seen(frames, "density", len(settings.kinds), len(settings.shapes), len(shared.GRID))
    marks = [
        figures.Measured(shared.GRID, shape[:, i, j], label=name, color=color)
        for i, j, name, color in _lines(settings)
    ]
    return figures.Panel("All pairs after training", marks, xlabel="cosine", ylabel="density")
