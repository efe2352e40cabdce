"""The panels of one network, live: its course, the worst pair, classes, and the two traps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from labkit import figures
from labkit.labs import common
from labkit.labs.confusion import shared
from labkit.protocol.experiment import Frame, Prediction


def course(frames: Sequence[Frame], prediction: Prediction, end: float) -> figures.Panel:
    """Loss and cosines along the training."""
    # A short dash at the start, where alone something is predicted.
    dash = np.array([0.0, 0.06 * end]), np.repeat(prediction["cosine"][:, None], 2, axis=1)
    marks: list[figures.Mark] = [figures.Predicted(*dash, label="smallest", color=shared.COSINE)]
    for name, unit, label, color in (
        ("loss", np.log(10), "loss / ln 10", shared.LOSS),
        ("mean", 1.0, "mean cosine", shared.ETA),
        ("cosine", 1.0, "smallest", shared.COSINE),
    ):
        steps, values = common.curve(frames, name)
        marks.append(figures.Measured(steps, values / unit, label=label, color=color))
    cosine, eta = (common.seen(frames, name).mean() for name in ("cosine", "eta"))
    says = "–" if np.isnan(cosine) else f"smallest {_signed(cosine)}, η {eta:.3g}"
    marks.append(figures.Note(f"now: {says}", 0.04, 0.98))
    return figures.Panel("Loss and cosines", marks, xlabel="step", ylabel="", xlim=(0, end), ylim=(-1, 1.5))


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def classes(frames: Sequence[Frame]) -> figures.Panel:
    """Pairs of one class and pairs of two, at the newest full look."""
    marks = [
        figures.Measured(shared.GRID, common.seen(frames, name, len(shared.GRID)), label=label, color=color)
        for name, label, color in (
            ("within_density", "one class", shared.SKIP),
            ("across_density", "two classes", shared.DEPTH),
        )
    ]
    return _density("Pairs by class", marks)


def worst(frames: Sequence[Frame], prediction: Prediction) -> figures.Panel:
    """The two images whose gradients oppose each other most, of the first seed."""
    (_, _, a, b), cosine = common.seen(frames, "pair", 4)[0], common.seen(frames, "worst")[0]
    says = "" if np.isnan(cosine) else f"classes {a:.0f} and {b:.0f}: cosine {_signed(cosine)}"
    found = common.newest(frames, "images")
    images = prediction["blank"] if found is None else found[0]
    rows, columns = ([""] * count for count in images.shape)
    return figures.Panel("The worst pair", (figures.Raster(images, columns, rows),), xlabel=says)


def densities(frames: Sequence[Frame], prediction: Prediction) -> figures.Panel:
    """All pairs that are compared, at the start and now."""
    marks = _start_and_now(frames, shared.GRID, prediction["density"], "density")
    return _density("All that are compared", marks)


def _density(title: str, marks: Sequence[figures.Mark]) -> figures.Panel:
    return figures.Panel(title, marks, xlabel="cosine", ylabel="density", xlim=(-1, 1), ylim=(0, None))


def by_size(frames: Sequence[Frame], prediction: Prediction, settings: Any) -> figures.Panel:
    """Smallest and mean cosine, and η, of minibatches by their size; where the slider stands, a point."""
    sizes, expected = prediction["sizes"], prediction["by_size"][:, 0]
    marks = _start_and_now(frames, sizes, expected, "by_size", 0, what="smallest, ")
    for label, order, row, color in (
        ("η / mean |g|², start", -1, 2, shared.SKIP), ("mean, now", 1, 1, shared.ETA)
    ):  # fmt: skip
        curve = common.seen(frames[::order], "by_size", len(sizes), at=(row,))
        marks.append(figures.Measured(sizes, curve, label=label, color=color))
    marks.append(_here(frames, None if settings is None else float(settings.group)))
    return _against("Trap 1: the minibatch", marks, "samples B in a gradient", "log2")


def by_pairs(frames: Sequence[Frame], prediction: Prediction, settings: Any) -> figures.Panel:
    """The smallest cosine of single samples, by the number of pairs; where the slider stands, a point."""
    marks = _start_and_now(frames, prediction["pairs"], prediction["by_pairs"], "by_pairs", what="smallest, ")
    now = common.newest(frames, "compared")
    place = None if now is None or settings is None or settings.group > 1 else float(now[0])
    return _against("Trap 2: how many pairs", [*marks, _here(frames, place)], "pairs of samples", "log")


def _start_and_now(
    frames: Sequence[Frame], x: np.ndarray, expected: np.ndarray, name: str, *at: int, what: str = ""
) -> list[figures.Mark]:
    """What was predicted of the start, what was found there, and what is found now."""
    marks: list[figures.Mark] = [figures.Predicted(x, expected, label=f"{what}start", color=shared.WIDTH)]
    # Backwards, the newest frame is the first.
    for when, order, color in (("start", -1, shared.WIDTH), ("now", 1, shared.COSINE)):
        curve = common.seen(frames[::order], name, len(x), at=at)
        marks.append(figures.Measured(x, curve, label=f"{what}{when}", color=color))
    return marks


def _here(frames: Sequence[Frame], place: float | None) -> figures.Mark:
    here = np.full((1, 1), np.nan) if place is None else common.seen(frames, "cosine")[:, None]
    return figures.Points(np.array([place or 1.0]), here, label="as set", color=shared.COSINE, line=False)


def _against(title: str, marks: Sequence[figures.Mark], xlabel: str, xscale: str) -> figures.Panel:
    return figures.Panel(title, marks, xlabel=xlabel, ylabel="cosine", xscale=xscale, ylim=(-1, 1))
