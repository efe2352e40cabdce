"""The panels of the experiment on true and random labels: what moves in training, and what is left by m."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from labkit import figures
from labkit.labs.generalization import panels, shared
from labkit.labs.generalization.shared import COLORS, WORDS
from labkit.protocol.experiment import Prediction, Run

PALE = ("#85BCDC", "#EDB38C")  # after a rescaling

# Arrays (seeds, sizes, true or random, losses, ...), NaN where nothing has been measured yet.
Values = Mapping[str, np.ndarray]


def _present(now: Values) -> int:
    """The size that is, or was last, in training."""
    return int(np.flatnonzero(np.isfinite(now["norm"]).any(axis=(0, 2, 3))).max(initial=0))


def _size(prediction: Prediction, g: int, x: float, y: float) -> figures.Note:
    # Not in the title: that would be another panel, and its axes would start afresh.
    return figures.Note(f"m = {prediction['sizes'][g]}", x, y)


def patience(now: Values, prediction: Prediction) -> figures.Panel:
    """Beat 2 of the story: the norm grows for as long as one trains; over the margin it falls."""
    levels, g = prediction["levels"], _present(now)
    marks: list[figures.Mark] = []
    for k, color in enumerate(COLORS):
        marks.append(figures.Measured(1 / levels, now["norm"][:, g, k] / 1000, label=WORDS[k], color=color))
        marks.append(figures.Points(1 / levels, now["l2"][:, g, k] / 1000, label=WORDS[k], color=color))
    decades = range(round(-np.log10(levels[-1])) + 1)
    return figures.Panel(
        "∏‖W‖², and over γ² (●)", (*marks, _size(prediction, g, 0.04, 0.12)),
        xlabel="training loss (time goes right)", ylabel="ℓ₂ / 1000", xscale="log", yscale="log",
        xlim=(0.8, 1.25 / float(levels[-1])),
        xticks=[(10.0**d, "1" if d == 0 else figures.axes.power(10.0**-d)) for d in decades],
    )  # fmt: skip


def ratios(now: Values, prediction: Prediction) -> figures.Panel:
    sizes = prediction["sizes"]
    marks: list[figures.Mark] = []
    for name, (words, color) in (*shared.MEASURES.items(), ("norm", ("∏‖W‖², no margin", "ink"))):
        marks.append(figures.Points(sizes, gap(now, name), label=words, color=color))
    marks.append(figures.Level(1.0))
    return _by_size("Over γ²: random / true labels", marks, prediction, "ratio")


def across_stops(run: Run, random: float = 0.1) -> figures.Panel:
    """Random labels stopped early against true labels at the end: with the margin, and without.

    Args:
        run: of the experiment on labels.
        random: the loss at which the network of random labels is looked at; the nearest that there is.

    Returns:
        A panel by the number of samples.
    """
    at = int(np.abs(np.log(run.prediction["levels"] / random)).argmin())
    marks: list[figures.Mark] = [figures.Level(1.0, "the same")]
    for name, words, color in (("l2", "over γ²", shared.L2), ("norm", "∏‖W‖², no margin", "ink")):
        value = run.last(name)
        ratio = value[:, :, 1, at] / value[:, :, 0, -1]
        marks.append(figures.Points(run.prediction["sizes"], ratio, label=words, color=color))
    title = f"Random at {run.prediction['levels'][at]:.1g} / true at {run.settings.stop:g}"
    return _by_size(title, marks, run.prediction, "ratio")


def gap(values: Values, name: str) -> np.ndarray:
    """Random over true labels at the newest loss that both have reached: (S, G)."""
    return _final(values[name][:, :, 1] / values[name][:, :, 0])


def _final(values: np.ndarray) -> np.ndarray:
    """The newest value along the axis of losses, the last: (..., L) -> (...)."""
    found = np.full(values.shape[:-1], np.nan)
    for level in range(values.shape[-1]):
        found = np.where(np.isfinite(values[..., level]), values[..., level], found)
    return found


def _by_size(title: str, marks: Sequence[figures.Mark], prediction: Prediction, ylabel: str) -> figures.Panel:
    sizes = prediction["sizes"]
    return figures.Panel(
        title, tuple(marks), xlabel="training samples m", ylabel=ylabel, xscale="log", yscale="log",
        xlim=(0.8 * sizes[0], 1.25 * sizes[-1]), xticks=[(float(m), str(m)) for m in sizes],
    )  # fmt: skip


def planes(now: Values, prediction: Prediction) -> figures.Panel:
    # At the end of a training alone, which is where they are compared: of the newest size that came to it.
    ended = _final(now["divergence"])
    g = int(np.flatnonzero(np.isfinite(ended).any(axis=(0, 2))).max(initial=0))
    curves = [(now["plane"][:, g, k, -1], WORDS[k], color) for k, color in enumerate(COLORS)]
    panel = panels.plane(curves, "Sharpness and KL")
    return replace(panel, marks=(*panel.marks, _size(prediction, g, 0.04, 0.12)))


def sharpness(now: Values, prediction: Prediction) -> figures.Panel:
    sizes, marks = prediction["sizes"], []
    for k, color in enumerate(COLORS):
        values = 1e4 * now["sharpness"][:, :, k]
        marks.append(figures.Points(sizes, values, label=WORDS[k], color=color))
    for k, pale in enumerate(PALE):
        values = 1e4 * now["rescaled"][:, :, k]
        marks.append(figures.Points(sizes, values, label=f"{WORDS[k]}, rescaled", color=pale, line=False))
    return _by_size("Max sharpness", marks, prediction, "rise of the loss / 10⁻⁴")


def divergences(now: Values, prediction: Prediction) -> figures.Panel:
    marks: list[figures.Mark] = []
    for k, color in enumerate(COLORS):
        values = _final(now["divergence"])[:, :, k] / 1000
        marks.append(figures.Points(prediction["sizes"], values, label=WORDS[k], color=color))
    return _by_size(f"KL at expected sharpness {shared.TARGET:g}", marks, prediction, "KL / 1000")


def bounds(now: Values, prediction: Prediction) -> figures.Panel:
    sigmas = prediction["sigmas"]
    done = np.flatnonzero(np.isfinite(now["pac_bayes"]).all(axis=(0, 2, 3)))
    g = int(done[-1]) if len(done) else 0
    marks: list[figures.Mark] = [
        figures.Predicted(sigmas, prediction["start"][:, g], label="K of (5) at the start", color="ink")
    ]
    for k, color in enumerate(COLORS):
        marks.append(figures.Bound(sigmas, now["pac_bayes"][:, g, k], label=WORDS[k], color=color))
        marks.append(figures.Measured(sigmas, now["test_noisy"][:, g, k], label=WORDS[k], color=color))
    marks.append(figures.Level(1.0, label="says nothing above"))
    return figures.Panel(
        "Test error and bound (5)", (*marks, _size(prediction, g, 0.7, 0.12)),
        xlabel="noise σ on every weight", ylabel="error rate", xscale="log", yscale="log", ylim=(0.05, 1e4),
    )  # fmt: skip


PANELS = (patience, ratios, planes, sharpness, divergences, bounds)
