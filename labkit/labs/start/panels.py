"""Six panels: the error, and one a paper. Dashed where the Jacobian or the shapes at the start say it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from labkit import figures
from labkit.labs import common
from labkit.protocol.experiment import Frame, Prediction

TRAIN, TEST, START, ORIGIN, CEILING, FLOOR = 0, 1, 2, 3, 5, 4


def figure(frames: Sequence[Frame], prediction: Prediction, settings: Any = None) -> figures.Chart:
    end = float(prediction["steps"][-1])

    def panel(title: str, ylabel: str, *curves: tuple[str, str, int], **axes: Any) -> figures.Panel:
        """curves: name of the value, its label, its colour."""
        marks: list[figures.Mark] = []
        for name, label, color in curves:
            expected = prediction.get(name)
            if expected is not None:
                marks.append(figures.Predicted(*_line(prediction["steps"], expected), label, color))
            steps, values = common.curve(frames, name)
            marks.append(figures.Measured(steps, values if len(steps) else np.zeros((1, 0)), label, color))
        return figures.Panel(
            title, marks, xlabel="step", ylabel=ylabel, xscale="symlog", xlim=(0, end), **axes
        )

    return figures.Chart(
        (
            panel("Error rate", "share of wrong classes", ("train_error", "training", TRAIN),
                  ("test_error", "test", TEST), ylim=(0, 1)),
            panel("1 · Distance", "norm of all weights", ("distance", "from the start", START),
                  ("origin", "from the origin", ORIGIN), yscale="log", ylim=(0.1, 100)),
            panel("2 · Norms and margins", "Lipschitz constant", ("ceiling", "allowed by distance", CEILING),
                  ("spectral", "∏‖W‖₂", TRAIN), ("floor", "asked by margins", FLOOR),
                  yscale="log", ylim=(0.03, 300)),
            panel("3 · Flatness", "radius", ("radius", "loss + 0.05, random directions", START),
                  yscale="log", ylim=(0.3, 30)),
            panel("4 · Residual, by part", "‖Π r‖ / ‖r₀‖", ("information", "on I (top r)", TRAIN),
                  ("nuisance", "on N (the rest)", TEST), yscale="log", ylim=(1e-3, 1.5)),
            panel("5 · Cosines of gradients", "cosine", ("smallest", "smallest", CEILING),
                  ("mean", "mean", ORIGIN), ylim=(-1, 1)),
        ),
        caption=figures.caption(
            "Five lenses on one network while it trains, beside what its tangent predicts.", settings
        ),
    )  # fmt: skip


def _line(steps: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A curve, or a level over all steps."""
    if expected.shape[-1:] == steps.shape:
        return steps, expected
    return steps, np.broadcast_to(np.atleast_1d(expected)[:, None], (np.size(expected), len(steps)))
