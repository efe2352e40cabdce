"""What notebook 1 says beside its figures: numbers in its prose, and what its moves promise."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from labkit.labs.distance import BOUNDS, SCALING
from labkit.labs.distance.scaling_panels import agreement
from labkit.notebooks import find_folder
from labkit.protocol.experiment import Run, drain
from labkit.protocol.statistics import exponent
from tests.runs import shared_run

SMALL: dict[str, Any] = {"seeds": 2, "n": 128, "width": 160, "base": 40}


def text() -> str:
    raw = (find_folder() / "01_distance_from_initialization.py").read_text(encoding="utf-8")
    return re.sub(r"\n# ", " ", raw)


def slope(run: Run, name: str, sweep: str = "width") -> float:
    x = run.prediction["widths" if sweep == "width" else "sizes"]
    return float(exponent(x, run.last(f"{name}_by_{sweep}")).mean())


def looseness(run: Run) -> np.ndarray:
    return (run.last("with_r_by_width") / run.last("spectral_by_width")).mean(axis=0)


def paid(run: Run) -> float:
    """The exponent in m of (r + 1)^5/√m."""
    sizes = run.prediction["sizes"]
    return float(exponent(sizes, (1 + run.last("r_by_size")) ** 5 / np.sqrt(sizes)).mean())


# What the text says, as a pattern with the number, and what a run says; and by how much they may differ.
NUMBERS: list[tuple[str, Callable[[Run], float], float]] = [
    (r"by about \$H\^\{(-[\d.]+)\}\$", lambda run: slope(run, "r"), 0.02),
    (r"by about \$m\^\{1/(\d)\}\$", lambda run: 1 / slope(run, "r", "size"), 0.3),
    (r"from (\d+) times the product to", lambda run: looseness(run)[0], 8),
    (r"times the product to (\d+) times", lambda run: looseness(run)[-1], 2),
    (r"grows as \$m\^\{([\d.]+)\}\$", paid, 0.03),
]


@pytest.mark.parametrize(("pattern", "found", "room"), NUMBERS, ids=[one[0] for one in NUMBERS])
def test_a_number_of_the_text_is_that_of_the_run(
    pattern: str, found: Callable[[Run], float], room: float
) -> None:
    """Prose of an earlier setting beside the figure of this one."""
    said = re.search(pattern, text())
    assert said is not None
    assert float(said[1]) == pytest.approx(found(shared_run(SCALING)), abs=room)


def test_what_the_text_says_of_the_four_numbers() -> None:
    """A ranking that another figure shows, a colour that does not do what is told of it."""
    run = shared_run(SCALING)
    assert max(agreement(run), key=lambda name: agreement(run)[name].mean()) == "r"
    for name in agreement(run):
        assert (agreement(run, ("by_noise",))[name] > 0.5).all()
        assert (agreement(run, ("by_size",))[name] < -0.5).all()
    for name in ("frobenius", "prefixed"):
        ends = run.last(f"{name}_by_width").mean(axis=0)
        assert ends[-1] / ends[0] > 1000 and slope(run, name) > 3
        assert (run.last(f"{name}_by_width") / run.last("spectral_by_width"))[:, -1].min() > 1e9


@pytest.mark.slow
def test_the_moves_of_section_4_do_what_they_say() -> None:
    """A slider that the text praises for an effect which nobody sees."""
    plain, another, wider, noisy, less, more = (
        drain(SCALING, SCALING.preset(**SMALL | move))
        for move in (
            {}, {"start": "another"}, {"width": 320}, {"label_noise": 0.5}, {"stop": 0.05}, {"stop": 0.001},
        )
    )  # fmt: skip
    r = plain.last("r_by_width").mean(axis=0)
    jumped = another.last("r_by_width").mean(axis=0)
    assert (jumped > another.last("origin_by_width").mean(axis=0)).all() and slope(another, "r") > 0.3
    assert np.diff(wider.last("r_by_width").mean(axis=0))[-1] < 0
    assert (noisy.last("r_by_width").mean(axis=0) > r).all()
    longer = (noisy.last("r_by_size") / plain.last("r_by_size")).mean(axis=0)
    assert (np.diff(longer) > 0).all() and longer[-1] > 1.2
    early, late = (run.last("r_by_width").mean(axis=0) for run in (less, more))
    assert (early < r).all() and (late > r).all() and late[-1] > 1.2 * early[0]


@pytest.mark.parametrize("preset", ["signs", "pair"])
def test_figs_5_and_6_are_of_networks_that_are_trained(preset: str) -> None:
    """A figure of a training that diverged."""
    run = shared_run(SCALING, SCALING.preset(preset, seeds=1))
    assert run.status == "done" and run.last("reached_by_size").all() and run.last("reached_by_noise").all()
    assert (run.last("r_by_width") < run.last("origin_by_width") / 2).all()


@pytest.mark.slow
def test_what_the_text_says_of_random_labels() -> None:
    """Section 6: exponents of another setting."""
    run = shared_run(SCALING, SCALING.preset(label_noise=1.0, n=256, width=160, seeds=2))
    said = re.search(
        r"by about \$H\^\{(-[\d.]+)\}\$; with the samples it grows by about \$m\^\{([\d.]+)\}\$", text()
    )
    assert said is not None
    assert slope(run, "r") == pytest.approx(float(said[1]), abs=0.05)
    assert slope(run, "r", "size") == pytest.approx(float(said[2]), abs=0.05)


def test_what_the_text_says_of_the_three_levels() -> None:
    """Factors that another network lost."""
    run = shared_run(BOUNDS)
    product, layerwise, with_r = (run.last(name).mean() for name in ("product", "layerwise", "with_r"))
    said = re.search(r"bound is (\d) times higher.*?another factor of (\d)", text())
    assert said is not None
    assert layerwise / product == pytest.approx(float(said[1]), abs=0.5)
    assert with_r / layerwise == pytest.approx(float(said[2]), abs=0.5)
