"""The figure of `alignment`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from labkit import figures
from labkit.labs import common
from labkit.labs.jacobian import shared
from labkit.labs.jacobian.alignment_training import Alignment
from labkit.labs.jacobian.published import RANK, SETS, published
from labkit.protocol.experiment import Frame, Frames, Prediction


def figure(frames: Frames, prediction: Prediction, settings: Alignment | None = None) -> figures.Chart:
    over: dict[str, Any] = {"xlabel": "label corruption", "xlim": (-0.05, 1.05), "ylim": (0, 1.02)}
    return figures.Chart.of(
        settings,
        "How much of the labels lies in the information space, for clean and for wrong labels; single "
        "points are the paper's ResNet20.",
        figures.Panel(
            "‖Π_I y‖ / ‖y‖ for every r", _curves(frames, prediction), xlabel="r / nK", xscale="log",
            xlim=(5e-5, 1), ylim=(0, 1.02),
        ),
        figures.Panel("The same for y − 1/K, at r", _centred(frames, prediction), **over),
        figures.Panel("Nuisance and test error", _errors(frames, prediction), **over),
    )  # fmt: skip


def _centred(frames: Frames, prediction: Prediction) -> tuple[figures.Mark, ...]:
    levels = prediction["levels"]
    chance = np.full(len(levels), prediction["chance"])
    marks: list[figures.Mark] = [figures.Predicted(levels, chance, label="any direction", color="ink")]
    for name, label, color in (
        ("initial", "first Jacobian", shared.TRAIN), ("final", "last Jacobian", shared.INFORMATION),
    ):  # fmt: skip
        if (found := common.newest(frames, f"{name}_centred")) is not None:
            marks.append(figures.Points(levels, found, label=label, color=color))
    return tuple(marks)


def _errors(frames: Frames, prediction: Prediction) -> tuple[figures.Mark, ...]:
    guess = figures.Level(float(prediction["guess"]), label="guessing, 1 − 1/K")
    final, error = common.newest(frames, "final"), common.newest(frames, "test_error")
    if final is None or error is None:
        return (guess,)
    levels, missing = prediction["levels"], np.sqrt(1 - final**2)
    return (
        guess,
        figures.Points(levels, missing, label="share of y on N, last Jacobian", color=shared.NUISANCE),
        figures.Points(levels, error, label="test error", color=shared.TEST),
    )


def _curves(frames: Sequence[Frame], prediction: Prediction) -> list[figures.Mark]:
    """The share on I against r, at both ends of corruption, beside chance and the paper's tables."""
    share = prediction["energies"]
    marks: list[figures.Mark] = [
        figures.Predicted(share[1:], prediction["one_hot_chances"][1:], label="one-hot", color="ink"),
        figures.Predicted(share[1:], prediction["chances"][1:], label="any direction", color="ink"),
    ]
    kinds = (
        ("initial", 0, "clean, first J", shared.TRAIN),
        ("final", 0, "clean, last J", shared.INFORMATION),
        ("initial", -1, "all wrong, first J", shared.TEST),
        ("final", -1, "all wrong, last J", shared.NUISANCE),
    )
    for when, level, label, color in kinds:
        found = common.newest(frames, f"{when}_curve")
        if found is not None:
            x = np.arange(1, found.shape[2] + 1) / int(prediction["size"])
            marks.append(figures.Measured(x, found[:, level], label=label, color=color))
        case = f"train, {float(prediction['levels'][level]):.0%} wrong, {when}"
        marks += [
            figures.Points([RANK / SETS[row.preset][1]], [[row.value]], color=color, line=False)
            for row in published()
            if (row.case, row.quantity) == (case, "share of y") and row.preset != "three-classes"
        ]
    return marks
