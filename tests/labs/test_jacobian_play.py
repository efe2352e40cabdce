"""Notebook 4: what its Play moves promise happens, and its numbers are those of the runs it shows."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from labkit.labs import jacobian as lab
from labkit.protocol.experiment import Run
from tests.runs import shared_run

ROOT = Path(__file__).parents[2]
PROSE = " ".join((ROOT / "notebooks" / "04_low_rank_jacobian.py").read_text().replace("\n# ", " ").split())


def residuals(**changes: object) -> Run:
    return shared_run(lab.RESIDUALS, lab.RESIDUALS.preset(**changes))


def gap(run: Run) -> int:
    """The first step at which the solid curve on I is off the dashed one by a hundredth of ‖r₀‖."""
    steps, solid = run.series("information")
    off = np.abs(solid.T - run.prediction["information"][:, : len(steps)]).mean(axis=0) > 0.01
    return int(steps[off.argmax()]) if off.any() else int(steps[-1]) + 1


def test_with_noise_blue_starts_lower_orange_higher_and_the_test_error_turns_up() -> None:
    """Play (1) of section 4."""
    noisy, clean = residuals(), residuals(label_noise=0.0)
    assert (
        "with noise the blue curve starts lower, the orange one higher, and the test error turns up" in PROSE
    )
    for name, sign in (("information", -1), ("nuisance", 1)):
        assert sign * (noisy.series(name)[1][0] - clean.series(name)[1][0]).mean() > 0.01
    rise = [run.series("test_error")[1].mean(axis=1) for run in (noisy, clean)]
    assert rise[0][-1] - rise[0].min() > 0.1 > rise[1][-1] - rise[1].min()


def test_a_narrow_network_leaves_the_dashed_curves_earlier() -> None:
    """Play (2) of section 4."""
    assert "*Width* 512 → 16: solid leaves dashed earlier" in PROSE
    assert gap(residuals(width=16)) < gap(residuals())


@pytest.mark.parametrize(("lr", "status"), [(2.3, "done"), (4.0, "diverged")])
def test_past_two_the_dashed_curves_explode_and_at_four_the_network_does(lr: float, status: str) -> None:
    """Play (3) of section 4."""
    assert (
        "just past 2: the dashed curves explode, and the network trains all the same; at 4 it does explode"
        in PROSE
    )
    run = residuals(lr=lr)
    assert run.prediction["information"][:, -1].min() > 10
    assert run.status == status
    if status == "done":
        assert run.last("train_error").max() < 0.1
    else:
        assert "stable" in run.frames[-1].note


def test_the_numbers_of_section_4() -> None:
    """A tenth of I at step 6 with four fifths of N left; a dip a little before the dotted line."""
    run = residuals()
    steps, inside = run.series("information")
    outside = run.series("nuisance")[1]
    left = (inside / inside[0]).mean(axis=1)
    assert "At step 6 a tenth of the part" in PROSE and "more than four fifths" in PROSE
    assert abs(int(steps[(left <= 0.1).argmax()]) - 6) <= 1
    assert (outside / outside[0]).mean(axis=1)[steps == 6].item() > 0.8
    dip = steps[run.series("test_error")[1].mean(axis=1).argmin()]
    assert 0.2 * run.prediction["told"].mean() < dip < run.prediction["told"].mean()
    found = run.prediction["gradients"]
    ratio = (found[:, 0] / found[:, 1]).mean(axis=0)
    assert "agree to a few per cent" in PROSE and abs(ratio[0] - 1) < 0.05
    assert "more than twice as long" in PROSE and ratio[1] > 2


@pytest.mark.slow
def test_left_singular_vectors_turn_towards_the_classes_and_training_gains_on_n() -> None:
    """Play of section 5: J taken at the start and at the end; images of training."""
    start, end = (shared_run(lab.CORRUPTION, lab.CORRUPTION.preset(moment=at, seeds=1)) for at in (-1.0, 1.0))
    first, last = (run.last("class_share")[0] for run in (start, end))
    assert "from a hundredth to a sixth" in PROSE
    assert first[:10].mean() < 0.02 and first[10:12].mean() > 0.3
    assert 0.1 < last[:10].mean() < 0.25
    train = shared_run(lab.CORRUPTION, lab.CORRUPTION.preset(images="train", seeds=1))
    assert train.last("nuisance")[0, -1] < 0.5 * train.last("nuisance")[0, 0]
    assert end.last("nuisance")[0, -1] > end.last("nuisance")[0].min() * 1.1


@pytest.mark.slow
def test_the_comparison_is_the_one_that_the_docs_print() -> None:
    """Published and own shares that drift apart from the code that compares them."""
    runs = [shared_run(one, one.preset()) for one in (lab.ALIGNMENT, lab.CORRUPTION)]
    found = lab.comparison(*runs)
    written = (ROOT / "docs" / "reproduction.md").read_text()
    printed = written.split("<!-- comparison:begin -->\n")[1].split("\n<!-- comparison:end -->")[0]
    number = re.compile(r"\d*\.\d\d\b")
    assert number.sub("#", printed) == number.sub("#", found)
    pairs = zip(number.findall(printed), number.findall(found), strict=True)
    assert max(abs(float(a) - float(b)) for a, b in pairs) <= 0.02


def test_the_comparison_has_each_published_row_once_and_both_chances() -> None:
    """A row that is lost, or a share without the level that it must be read against."""
    table = lab.comparison().splitlines()
    assert len(lab.published()) == 2 * sum(line.count("(") for line in table[2:-4])
    assert table[-4].split(" | ")[1:3] == ["0.32", "0.32"] and "0.58" in table[-4]
    assert table[-3].split(" | ")[1] == "0.01"
