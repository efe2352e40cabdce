"""The panels of one network, live: its course, the worst pair, classes, and the two traps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from labkit import figures
from labkit.labs import common
from labkit.labs.confusion import shared
from labkit.protocol.experiment import Frame, Prediction

GRID = np.linspace(-1.0, 1.0, 81)  # cosines at which a density is evaluated
NONE = np.zeros((1, 0))
EMPTY = np.full((1, len(GRID)), np.nan)


def found(frames: Sequence[Frame], name: str = "cosine") -> Mapping[str, np.ndarray] | None:
    """What the first of these frames says that carries this."""
    return next((frame.values for frame in frames if name in frame.values), None)


def course(frames: Sequence[Frame], prediction: Prediction, end: float) -> figures.Panel:
    """Loss and cosines along the training."""
    curves = {name: common.curve(frames, name) for name in ("loss", "mean", "cosine")}
    # A short dash at the start, where alone something is predicted.
    dash = np.array([0.0, 0.06 * end]), np.repeat(prediction["cosine"][:, None], 2, axis=1)
    marks: list[figures.Mark] = [figures.Predicted(*dash, label="smallest", color=shared.COSINE)]
    for (name, (steps, values)), color in zip(
        curves.items(), (shared.LOSS, shared.ETA, shared.COSINE), strict=True
    ):
        values = values / np.log(10) if name == "loss" and len(steps) else values
        label = {"loss": "loss / ln 10", "mean": "mean cosine", "cosine": "smallest"}[name]
        marks.append(figures.Measured(steps, values if len(steps) else NONE, label=label, color=color))
    marks.append(figures.Note(_says(found(frames[::-1])), 0.04, 0.98))
    return figures.Panel(
        "Loss and cosines", tuple(marks), xlabel="step", ylabel="", xlim=(0, end), ylim=(-1, 1.5)
    )


def _says(values: Mapping[str, np.ndarray] | None) -> str:
    if values is None:
        return "now: –"
    return f"now: smallest {_signed(values['cosine'].mean())}, η {values['eta'].mean():.3g}"


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def classes(frames: Sequence[Frame]) -> figures.Panel:
    """Pairs of one class and pairs of two, at the newest full look."""
    values = found(frames[::-1], "within_density")
    marks = [
        figures.Measured(
            GRID, EMPTY if values is None else values[f"{name}_density"], label=label, color=color
        )
        for name, label, color in (
            ("within", "one class", shared.SKIP),
            ("across", "two classes", shared.DEPTH),
        )
    ]
    return figures.Panel(
        "Pairs by class", tuple(marks), xlabel="cosine", ylabel="density", xlim=(-1, 1), ylim=(0, None)
    )


def worst(frames: Sequence[Frame], prediction: Prediction) -> figures.Panel:
    """The two images whose gradients oppose each other most, of the first seed."""
    values, says = found(frames[::-1], "images"), ""
    if values is not None:
        _, _, a, b = values["pair"][0].astype(int)
        says = f"classes {a} and {b}: cosine {_signed(float(values['worst'][0]))}"
    images = prediction["blank"] if values is None else values["images"][0]
    rows, columns = ([""] * count for count in images.shape)
    return figures.Panel("The worst pair", (figures.Raster(images, columns, rows),), xlabel=says)


def densities(frames: Sequence[Frame], prediction: Prediction) -> figures.Panel:
    marks: list[figures.Mark] = [
        figures.Predicted(GRID, prediction["density"], label="start", color=shared.WIDTH)
    ]
    for label, order, color in (("start", 1, shared.WIDTH), ("now", -1, shared.COSINE)):
        values = found(frames[::order])
        curve = EMPTY if values is None else values["density"]
        marks.append(figures.Measured(GRID, curve, label=label, color=color))
    return figures.Panel(
        "All that are compared", tuple(marks), xlabel="cosine", ylabel="density", xlim=(-1, 1), ylim=(0, None)
    )


def by_size(frames: Sequence[Frame], prediction: Prediction, settings: Any) -> figures.Panel:
    """Smallest and mean cosine, and η, of minibatches by their size; where the slider stands, a point."""

    def of(values: np.ndarray) -> np.ndarray:
        return values[:, 0]

    marks = _trap("by_size", "sizes", of, frames, prediction)
    for label, order, row, color in (
        ("η / mean |g|², start", 1, 2, shared.SKIP), ("mean, now", -1, 1, shared.ETA)
    ):  # fmt: skip
        values = found(frames[::order], "by_size")
        curve = (
            np.full((1, len(prediction["sizes"])), np.nan) if values is None else values["by_size"][:, row]
        )
        marks.append(figures.Measured(prediction["sizes"], curve, label=label, color=color))
    marks.append(_here(frames, None if settings is None else float(settings.group)))
    return _against("Trap 1: the minibatch", marks, "samples B in a gradient", "log2")


def by_pairs(frames: Sequence[Frame], prediction: Prediction, settings: Any) -> figures.Panel:
    """The smallest cosine of single samples, by the number of pairs; where the slider stands, a point."""
    marks = _trap("by_pairs", "pairs", np.asarray, frames, prediction)
    now = found(frames[::-1])
    place = None if now is None or settings is None or settings.group > 1 else float(now["compared"][0])
    return _against("Trap 2: how many pairs", [*marks, _here(frames, place)], "pairs of samples", "log")


def _trap(
    name: str, axis: str, part: Callable[[np.ndarray], np.ndarray], frames: Sequence[Frame],
    prediction: Prediction,
) -> list[figures.Mark]:  # fmt: skip
    expected = part(prediction[name])
    marks: list[figures.Mark] = [
        figures.Predicted(prediction[axis], expected, label="smallest, start", color=shared.WIDTH)
    ]
    for label, order, color in (("smallest, start", 1, shared.WIDTH), ("smallest, now", -1, shared.COSINE)):
        values = found(frames[::order], name)
        curve = np.full((1, len(prediction[axis])), np.nan) if values is None else part(values[name])
        marks.append(figures.Measured(prediction[axis], curve, label=label, color=color))
    return marks


def _here(frames: Sequence[Frame], place: float | None) -> figures.Mark:
    now = found(frames[::-1])
    here = np.full((1, 1), np.nan) if now is None or place is None else now["cosine"][:, None]
    return figures.Points(np.array([place or 1.0]), here, label="as set", color=shared.COSINE, line=False)


def _against(title: str, marks: Sequence[figures.Mark], xlabel: str, xscale: str) -> figures.Panel:
    return figures.Panel(title, tuple(marks), xlabel=xlabel, ylabel="cosine", xscale=xscale, ylim=(-1, 1))
