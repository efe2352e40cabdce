"""The score card of the paper's demands, computed from the runs of the other experiments.

A measure should be lower for true than for random labels, fall with width as the test error does, be higher
at minima that generalise worse, and be about the function: stay where weights are rescaled and the function
is not. That it should also suffice in theory no run can decide.
"""

from __future__ import annotations

import numpy as np

from labkit import figures
from labkit.labs.generalization import confusion, labels, shared, width
from labkit.protocol.experiment import Run

DEMANDS = ("true < random", "falls with width", "tells bad minima", "stays")
MEASURES = shared.NAMES | {"divergence": "KL", "sharpness": "sharpness"}
# Where the rescaling run has a measure, and to which power it enters.
_MOVED = {
    "l2": ("frobenius", 1), "l1_path": ("path_one", 2), "l2_path": ("path_two", 1),
    "spectral": ("spectral", 2), "divergence": ("divergence", 1), "sharpness": ("sharpness", 1),
}  # fmt: skip
STAYS = 1e-6


def demands(*runs: Run, factors: bool = False, rescaled: bool = False) -> np.ndarray:
    """Which measure meets which demand, and by how much.

    Args:
        *runs: of LABELS, RESCALING, CONFUSION and WIDTH.
        factors: counts the widths h that belong to the capacities; elsewhere than in WIDTH they cancel.
        rescaled: compares after the units of the better network were rescaled as in RESCALING.

    Returns:
        (measures, demands): log2 of what the effect has over what is asked of it, in the worst seed; a
        demand is met where this is >= 0.
    """
    by_labels, by_rescaling, by_set, by_width = runs
    rows = []
    for name in MEASURES:
        ordered = by_labels.last(name) if name == "sharpness" else by_labels.last(name)[..., -1]
        wide = by_width.last(f"{name}_whole" if factors and name in width.WHOLE else name)
        # Of all samples that were fitted, these minima are global on the true ones alone.
        sets = by_set.last("sharpness_own" if name == "sharpness" else name)
        series, power = _MOVED[name]
        moved = power * np.abs(np.log2(by_rescaling.last(f"units_{series}"))).max()
        effects = np.log2([
            (ordered[..., 1] / ordered[..., 0]).min() / labels.ABOVE,
            (wide[:, 0] / wide[:, -1]).min() * width.FALLS,
            (sets[:, -1] / sets[:, 0]).min() / confusion.RISES,
        ])  # fmt: skip
        rows.append([*(effects - moved * rescaled), np.log2(1 + STAYS) - moved])
    return np.array(rows)


def score_card(*runs: Run, factors: bool = False, rescaled: bool = False) -> figures.Chart:
    """The card as a picture: what meets a demand in blue, what does not in red.

    Args:
        *runs, factors, rescaled: as `demands` takes them.

    Returns:
        A chart, with the effect over what is asked in each cell.
    """
    table = demands(*runs, factors=factors, rescaled=rescaled)
    shown = -np.clip(np.where(table >= 0, table + 0.5, table - 0.5), -2, 2)
    marks: list[figures.Mark] = [
        figures.Raster(shown, DEMANDS, tuple(MEASURES.values()), diverging=True, label="red: not met")
    ]
    for row, line in enumerate(table):
        for column, value in enumerate(line):
            text = f"{'yes' if value >= 0 else 'no'}, × {2**value:.2g}"
            marks.append(figures.Note(text, (column + 0.3) / len(DEMANDS), 1 - (row + 0.25) / len(table)))
    ticks = [f"factors h {'on' if factors else 'off'}", f"rescaling {'on' if rescaled else 'off'}"]
    return figures.Chart(
        (figures.Panel(" · ".join(ticks), tuple(marks)),),
        caption="Which measure meets which demand, in every seed of this notebook's runs.\n"
        f"×: effect over what is asked, {labels.ABOVE:g} · 1/{width.FALLS:g} · {confusion.RISES:g} · none",
    )
