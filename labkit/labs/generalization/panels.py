"""Figures that the trained experiments share: a family of networks, and the sharpness-KL plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from labkit import figures
from labkit.figures.palette import Color
from labkit.labs.generalization import shared
from labkit.protocol.experiment import Frame, Prediction

Curve = tuple[np.ndarray, str, Color]  # KL (S, T) at `shared.PLANE`, label, colour

DRAWN: Mapping[str, tuple[str, Color]] = {
    **shared.MEASURES, "divergence": ("KL", shared.DIVERGENCE), "sharpness": ("sharpness", shared.SHARPNESS),
}  # fmt: skip


def plane(curves: Sequence[Curve], title: str) -> figures.Panel:
    """The bi-criteria plot of Fig. 2: KL at each expected sharpness, lower is simpler."""
    marks: list[figures.Mark] = []
    for kl, label, color in curves:
        marks.append(figures.Measured(shared.PLANE, kl / 1000, label=label, color=color))
    marks.append(figures.Level(shared.TARGET, axis="x", label="compared here"))
    return figures.Panel(
        title, tuple(marks), xlabel="expected sharpness", ylabel="KL / 1000", xscale="log", yscale="log",
        xlim=(float(shared.PLANE[0]), float(shared.PLANE[-1])),
        xticks=[(1e-3, "10⁻³"), (1e-2, "10⁻²"), (0.1, "0.1"), (1.0, "1")],
    )  # fmt: skip


def family(
    frames: Sequence[Frame], prediction: Prediction, settings: Any, axis: str,
    drawn: Mapping[str, tuple[str, Color]], *, error: figures.Mark | None = None,
    rise: figures.Mark | None = None, across: Mapping[str, Any], ylim: tuple[float, float | None],
    by: str, says: str,
) -> figures.Chart:  # fmt: skip
    """Networks that differ in one number: error rates, measures over their first value, the plane.

    Marks stand there from the beginning, empty, so that the axes keep their places.

    Args:
        axis: the name in the prediction of what tells the networks apart; `by`, in a title.
        drawn: the measures, each with its words and colour.
        error, rise: what is predicted of either.
        across: of the axis of both; `ylim` is of the error alone.
        says: the caption.
    """
    x = prediction[axis]
    errors, rises = ([mark] if mark else [] for mark in (error, rise))
    size = (settings.seeds if settings else 2, len(x))
    now = dict.fromkeys(drawn, np.full(size, np.nan)) | shared.grid(*size)
    now |= next((frame.values for frame in reversed(frames) if "plane" in frame.values), {})
    errors.append(figures.Points(x, 100 * now["test_error"], label="test", color=shared.TEST))
    errors.append(figures.Points(x, 100 * now["train_error"], label="fitted samples", color=shared.TRUE))
    for name, (words, color) in drawn.items():
        rises.append(figures.Points(x, now[name] / now[name][:, :1], label=words, color=color))
    kls, colors = now["plane"].swapaxes(0, 1), _shades(len(x))
    curves = [(kl, f"{value:g}", color) for kl, value, color in zip(kls, x, colors, strict=True)]
    return figures.Chart.of(
        settings, says, figures.Panel("Error rate", errors, ylabel="wrong classes, %", ylim=ylim, **across),
        figures.Panel("Measures, over their first", rises, ylabel="factor", yscale="log", **across),
        plane(curves, f"Sharpness and KL, by {by}"),
    )  # fmt: skip


def _shades(count: int) -> list[str]:
    """Colours of an ordered family, from light to dark."""
    steps = np.linspace(0.0, 1.0, max(count, 2))[:count]
    light, dark = np.array([0.65, 0.78, 0.93]), np.array([0.16, 0.05, 0.33])
    return ["#" + "".join(f"{round(255 * c):02x}" for c in (1 - t) * light + t * dark) for t in steps]
