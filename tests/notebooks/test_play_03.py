"""What notebook 3 tells a reader to do, done: each move has the effect that the text promises."""

from __future__ import annotations

import re

import numpy as np
import pytest

from labkit.labs.sgd import LAB, puzzle
from labkit.notebooks import find_folder
from labkit.protocol.experiment import Experiment, Run, drain
from labkit.protocol.judging import judge
from tests.runs import shared_run


def experiment(name: str) -> Experiment:
    return next(one for one in LAB.experiments if one.name == name)


def moved(name: str, **changes: object) -> Run:
    return shared_run(experiment(name), experiment(name).preset(**changes))


def words(run: Run) -> dict[str, str]:
    return {claim.id: judge(claim, run).word for claim in run.experiment.claims}


def text() -> str:
    """The prose, in one line."""
    folder = find_folder()
    source = (folder / "03_sgd_and_flat_minima.py").read_text(encoding="utf-8")
    return re.sub(r"\s*\n# ?", " ", source)


def test_section_1_more_images_narrow_the_gap_and_more_weights_do_not_widen_it() -> None:
    run = moved("puzzle")
    past = run.prediction["weights"] >= run.prediction["edge"]
    few, many = run.last("gap").mean(axis=0)[:, past]
    assert "more images narrow the gap, more weights do not widen it" in text()
    assert (many < few / 2).all()
    assert np.diff(few).max() < 0.02 and np.diff(many).max() < 0.02


def test_section_2_more_weights_are_farther_and_smaller_batches_end_there_too() -> None:
    ends = {d: moved("minimum-norm", d=d).prediction["rms"].mean() for d in (200, 400)}
    assert ends[200] == pytest.approx(0.1 * 150**0.5) and ends[400] == pytest.approx(0.1 * 350**0.5)
    assert set(words(moved("minimum-norm", batch_size=5)).values()) == {"holds"}
    ended = drain(experiment("minimum-norm"), experiment("minimum-norm").preset(batch_size=1, seeds=1))
    assert ended.status == "diverged" and "SGD" in ended.note
    assert "At 1 the rate of this panel is too large for SGD" in text()


def test_section_3_a_unit_with_kinks_is_farther_from_its_linearisation() -> None:
    smooth, kinked = (moved("bridge", **changes).last("apart") for changes in ({}, {"unit": "ReLU"}))
    assert "a third of the way apart" in text() and 0.25 < smooth[:, 0].mean() < 0.45
    assert (kinked[:, 2] > 0.15).all() and (smooth[:, 2] < 0.15).all()


def test_section_5_depth_wins_in_few_dimensions_and_long_steps_are_refused() -> None:
    wells = experiment("wells")
    shares = wells.predict(wells.prepare(wells.preset(temperature=0.5, offset=1.0)))["share"]
    assert (shares[:2] < 0.5).all() and (shares[2:] > 0.5).all()
    long = drain(wells, wells.preset(dimension=1, lr=0.03, steps=1500, chains=400, seeds=1))
    assert judge(wells.claims[0], long).word == "undecided"
    assert any("lower lr" in part.reason for part in judge(wells.claims[0], long).parts)


def test_section_5_below_the_barrier_few_chains_cross_and_the_verdict_refuses() -> None:
    run = moved("wells", dimension=2, temperature=1.2)
    assert (np.abs(run.last("share") - run.prediction["share"]) < 0.04).all()
    assert "few of them cross" in text() and words(run)["S4"] == "undecided"
    assert any("did not mix" in part.reason for part in judge(experiment("wells").claims[0], run).parts)


@pytest.mark.slow
def test_section_5_below_the_barrier_more_steps_decide() -> None:
    assert "20,000" in text()
    assert words(moved("wells", dimension=2, temperature=1.2, steps=20_000))["S4"] == "holds"


@pytest.mark.slow
def test_further_claims_sgd_below_the_barrier_remembers_where_it_began() -> None:
    run = moved("valley", spread=15.0, dimension=2)
    assert "the temperature 0.28" in text() and run.settings.own == pytest.approx(0.28, abs=0.005)
    alone = run.last("share")[:, 2]
    assert (alone < run.prediction["share"][2]).all() and (alone > 0.25).all()
    parts = judge(experiment("valley").claims[0], run).parts
    assert [part.word for part in parts[:3]] == ["holds", "holds", "undecided"]


def test_section_7_quotes_the_radii_of_the_run() -> None:
    run = moved("flatness")
    rescaled, random = run.last("rescaled")[:, 0].mean(), run.last("radii")[:, 1, 0].mean()
    told = re.search(
        r"\*sharper\* \(about ([\d.]+)\) than that of random labels as found \(about ([\d.]+)\)", text()
    )
    assert told is not None
    np.testing.assert_allclose([float(value) for value in told.groups()], [rescaled, random], atol=0.06)


def test_section_8_quotes_the_effects_of_the_run_and_larger_rates_are_refused() -> None:
    run = moved("selection")
    change = {
        name: (run.last(name)[:, -2] / run.last(name)[:, 0]).mean()
        for name in ("radius", "normalized", "norm")
    }
    kinds = {name: (run.last(name)[:, 0] / run.last(name)[:, -1]).mean() for name in ("radius", "normalized")}
    assert "larger by about a twentieth, the margin by a fiftieth" in text()
    assert 1.03 < change["radius"] < 1.07 and 1.01 < change["normalized"] < 1.03
    assert change["norm"] == pytest.approx(1, abs=0.01)
    assert "a factor of 1.6 and of 3" in text()
    assert kinds["radius"] == pytest.approx(1.6, abs=0.1) and kinds["normalized"] == pytest.approx(3, abs=0.3)
    assert words(moved("selection", lr=0.05, smallest=16, n=100, stop=0.02))["S20"] == "undecided"


@pytest.mark.slow
def test_section_9_more_steps_fit_more_random_labels() -> None:
    few, many = (moved("puzzle", steps=steps, widest=4, seeds=1) for steps in (1200, 5000))
    left = [puzzle.leaves_zero(run.prediction["sizes"], run.last("train_n")[:, 1])[0] for run in (few, many)]
    assert left[1] > 1.1 * left[0]


def test_section_9_with_twice_the_channels_no_n_reaches_w() -> None:
    wide = experiment("puzzle")
    prediction = wide.predict(wide.prepare(wide.preset(width=8, seeds=1)))
    assert prediction["edge"] > prediction["sizes"][-1]
