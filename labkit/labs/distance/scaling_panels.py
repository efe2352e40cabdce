"""The figures of `scaling`: distances and where they end; which number knows; what grows with the width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from labkit import figures
from labkit.labs import common
from labkit.labs.distance import shared
from labkit.protocol.experiment import Frame, Prediction, Run
from labkit.protocol.statistics import correlation, exponent, half_width

# phase -> its axis in the prediction, what varies, and its letter
SWEEPS = {
    "by_width": ("widths", "hidden units H", "H"),
    "by_size": ("sizes", "samples m", "m"),
    "by_noise": ("shares", "label noise", ""),
}
# What is read off the weights: value -> how it is written. The first is the paper's.
NUMBERS = {"r": "r", "origin": "‖W‖", "frobenius": "∏‖W‖_F²", "prefixed": "H^(d−1)∏‖W‖₂"}


def figure(frames: Sequence[Frame], prediction: Prediction, settings: Any = None) -> figures.Chart:
    ends = {phase: _ends(phase, frames, prediction) for phase in SWEEPS}
    widths, sizes = prediction["widths"], prediction["sizes"]
    ends["by_width"].append(
        figures.Predicted(widths, prediction["origin"], label="‖Z‖, exact", color=shared.ORIGIN)
    )
    newest = common.seen(frames, "r_by_size", len(sizes))
    if np.isfinite(newest[:, 0]).any():
        first = np.nanmean(newest[:, 0])
        for power in (0.25, 0.4):
            curve = first * (sizes / sizes[0]) ** power
            ends["by_size"].append(figures.Predicted(sizes, curve, label=f"m^{power:g}", color="ink"))
    panels = [_while_training(frames, prediction)]
    for (phase, (axis, label, letter)), name in zip(
        SWEEPS.items(), ("the width", "the training size", "the noise"), strict=True
    ):
        how: dict[str, Any] = {"xlim": (-0.05, 0.65)}
        if letter:
            ticks = tuple((float(place), str(place)) for place in prediction[axis])
            how = {"xscale": "log", "yscale": "log", "xticks": ticks}
        panels.append(
            figures.Panel(f"Against {name}", tuple(ends[phase]), xlabel=label, ylabel="distance", **how)
        )
    says = "Distance from the start along training, and its end by width, by sample size and by noise."
    return figures.Chart.of(settings, says, *panels)


def _while_training(frames: Sequence[Frame], prediction: Prediction) -> figures.Panel:
    found: dict[int, list[Frame]] = {}
    for frame in frames:
        if "r" in frame.values:
            found.setdefault(int(frame.values["job"][0]), []).append(frame)
    now, title, paths = max(found, default=0), "Distance from the start", list[figures.Mark]()
    for job, (_, *kept) in found.items():
        at = np.array([one.values["at"][0] for one in kept])
        r = np.array([one.values["r"] for one in kept]).T
        if kept and job == now:
            paths.append(figures.Measured(at, r, label="‖W − Z‖, now", color=shared.START))
        elif kept:
            paths.append(figures.Earlier(at, r, label="networks before"))
    if found:
        jobs = [(letter, place) for axis, _, letter in SWEEPS.values() for place in prediction[axis]]
        title = f"Distance, {jobs[now][0] or 'noise'} = {jobs[now][1]:g}"
    return figures.Panel(title, paths, xlabel="step", ylabel="distance", xscale="log")


def _ends(phase: str, frames: Sequence[Frame], prediction: Prediction) -> list[figures.Mark]:
    """The end points of the trainings so far; exponents with their intervals."""
    marks: list[figures.Mark] = []
    axis, _, letter = SWEEPS[phase]
    shown = (("r", "‖W − Z‖", shared.START), ("origin", "‖W‖", shared.ORIGIN))
    lines, places = [], prediction[axis]
    for name, label, color in shown if phase == "by_width" else shown[:1]:
        values = common.seen(frames, f"{name}_{phase}", len(places))
        marks.append(figures.Points(places, values, label=label, color=color))
        if letter and np.isfinite(values).all() and (values > 0).all():
            lines.append(f"{label} ∝ {letter}^{interval(exponent(places, values))}")
    return [*marks, figures.Note("\n".join(lines), 0.03, 0.6)] if lines else marks


def interval(values: np.ndarray) -> str:
    """Mean and 95 % interval over seeds of an exponent: "−0.20 ± 0.01"."""
    half = half_width(values)
    return f"{values.mean():.2f}".replace("-", "−") + (f" ± {half:.2f}" if np.isfinite(half) else "")


def agreement(run: Run, sweeps: Sequence[str] = tuple(SWEEPS)) -> dict[str, np.ndarray]:
    """How well a power of each number gives the gap: the correlation of their logarithms over the networks of
    some sweeps, (S,) each, the best first; 0 for a number that does not change.

    Raises:
        KeyError: not all networks have been trained.
    """

    def logs(name: str) -> np.ndarray:
        values = np.concatenate([run.last(f"{name}_{phase}") for phase in sweeps], axis=1)
        if np.isnan(values).any():
            raise KeyError(name)
        return np.log(np.maximum(values, 1e-300))

    found = {name: correlation(logs(name), logs("gap")) for name in NUMBERS}
    return dict(sorted(found.items(), key=lambda one: -one[1].mean()))


def which_number(run: Run) -> figures.Chart:
    """Which number knows? The generalisation error of every network against four numbers off its weights.

    Args:
        run: of SCALING, finished.

    Returns:
        A chart of four panels, the one that agrees best first.
    """
    panels = []
    for name, found in agreement(run).items():
        marks: list[figures.Mark] = [
            figures.Points(
                run.last(f"{name}_{phase}").mean(0), run.last(f"gap_{phase}"), f"{label} varied", color
            )
            for color, (phase, (_, label, _)) in enumerate(SWEEPS.items())
        ]
        title = f"{NUMBERS[name]}: correlation {interval(found)}"
        panels.append(figures.Panel(title, marks, NUMBERS[name], "test − training loss", "log", "log"))
    says = "The generalisation error of every network against four numbers that are read off its weights."
    return figures.Chart.of(run.settings, says, *panels)


def over_width(run: Run) -> figures.Chart:
    """What of a trained network is free of H: four products over the width, each over its value at the least.

    Args:
        run: of SCALING, finished.

    Returns:
        A chart of two panels: growth, and the size of each beside ∏‖W‖₂.
    """
    names = {"spectral": "∏‖W‖₂", "with_r": "∏(‖Z‖₂ + r), Prop. 6.2"} | {
        name: NUMBERS[name] for name in ("frobenius", "prefixed")
    }
    widths, growth, looser = run.prediction["widths"], [], []
    for color, (name, label) in enumerate(names.items()):
        values = run.last(f"{name}_by_width")
        slope = interval(exponent(widths, values))
        growth.append(figures.Points(widths, values / values[:, :1], f"{label} ∝ H^{slope}", color))
        looser.append(figures.Points(widths, values / run.last("spectral_by_width"), label, color))
    how: dict[str, Any] = {"xscale": "log", "yscale": "log", "xticks": [(float(H), str(H)) for H in widths]}
    return figures.Chart.of(
        run.settings, "What is free of the width in a trained network, and what is not.",
        figures.Panel("Growth with the width", growth, "hidden units H", "over its value at the narrowest",
                      **how),
        figures.Panel("How loose", looser, "hidden units H", "over ∏‖W‖₂", **how),
    )  # fmt: skip
