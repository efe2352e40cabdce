"""Notebook 5: each move that its text proposes does what it promises, and its numbers are the run's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import labkit
from labkit import measure
from labkit.labs.confusion import INITIALIZATION, NETWORKS, RATE, REGRESSION
from labkit.labs.confusion.initialization import GLOROT, HALF, STRATEGY
from labkit.protocol.experiment import Run
from tests.runs import shared_run


def network(**changes: Any) -> Run:
    return shared_run(NETWORKS, NETWORKS.preset(seeds=1, **changes))


@pytest.mark.slow
def test_more_samples_slide_down_their_curve() -> None:
    few, many = network(), network(samples=400)
    assert (many.series("cosine")[1] <= few.series("cosine")[1] + 1e-6).all()
    assert many.last("cosine") < few.last("cosine") and np.array_equal(many.last("loss"), few.last("loss"))
    assert many.last("by_pairs")[:, -1] == many.last("cosine")


@pytest.mark.slow
def test_minibatches_of_128_are_not_confused() -> None:
    run, base = network(group=128), network()
    eta, before = run.series("eta")[1][:, 0], base.series("eta")[1][:, 0]
    assert eta[0] == 0 and eta[-1] < 0.01 * before[-1]
    first = base.series("by_size")[1][0, 0, 0]
    assert first[0] < -0.5 and first[-1] > 0.5


@pytest.mark.slow
def test_a_narrow_network_spreads_its_cosines() -> None:
    wide, narrow = network(), network(width=10)
    assert narrow.series("cosine")[1][0] < -0.85 < wide.series("cosine")[1][0]
    grid = wide.prediction["grid"]
    spread = [run.series("density")[1][0, 0] @ grid**2 for run in (wide, narrow)]
    assert spread[1] > 2 * spread[0]


@pytest.mark.slow
def test_sixty_layers_learn_with_skips() -> None:
    plain, skips = network(depth=60), network(depth=60, skip=True)
    assert skips.last("loss") < 0.5 < plain.last("loss")


@pytest.mark.slow
def test_the_worst_pair_is_often_of_one_class_before_training_and_not_after() -> None:
    same = shared_run(NETWORKS).series("same")[1]
    assert (same[0, :, 0] > 2 * same[0, :, 1]).all() and same[-1, :, 0].mean() < 2 * same[-1, :, 1].mean()


@pytest.mark.slow
def test_kappa_turns_the_way_of_scale_and_not_that_of_angle() -> None:
    """The two ends of the slider, and the decades that the text quotes."""
    run = shared_run(INITIALIZATION)
    ends = run.prediction["over_depth"][[0, -1]]
    decades = np.diff(np.log10(run.last("eta")[..., ends]))[..., 0].mean(axis=0)
    assert decades[STRATEGY] == pytest.approx(-56, abs=1.5) and decades[HALF] == pytest.approx(6, abs=1)
    falls = -np.diff(run.last("cosine")[..., ends])[..., 0].mean(axis=0)
    assert falls[STRATEGY] == pytest.approx(0.5, abs=0.1) and falls[HALF] < 0.25
    small = {"n": 50, "depth": 3, "width": 50, "deepest": 30, "widest": 100, "seeds": 1}
    slid = shared_run(INITIALIZATION, INITIALIZATION.preset(kappa=0.5, **small))
    ends = slid.prediction["over_depth"][[0, -1]]
    assert np.diff(np.log10(slid.last("eta")[0, STRATEGY, ends])) > 0.5
    law = run.prediction["cosine"][:, GLOROT, run.prediction["over_width"]].mean(axis=0)
    assert law[-1] < law[0]


@pytest.mark.slow
def test_half_the_step_lowers_three_floors() -> None:
    """The theorem's by a third, the mean pair's too, SGD's own by half; and the factors of section 4."""
    run = shared_run(RATE)
    sizes = run.prediction["sizes"]
    half, one = (int(np.argmin(np.abs(sizes - size))) for size in (0.5, 1.0))
    for name, share in (("floor_worst", 2 / 3), ("floor_mean", 2 / 3), ("floor", 0.5)):
        floors = run.prediction[name]
        assert (floors[:, half] / floors[:, one]).mean() == pytest.approx(share, abs=0.05)
    slid = shared_run(RATE, RATE.preset(step=0.5, duration=20.0, seeds=1))
    for name in ("worst", "mean"):
        assert slid.last(name)[0] / run.last(name)[0] == pytest.approx(2 / 3, abs=0.15)
    worst, mean, gap = (run.last(name).mean() for name in ("worst", "mean", "gap"))
    assert 1500 < worst / gap < 2000 and worst / mean == pytest.approx(80, abs=8)


@pytest.mark.slow
def test_where_both_dimensions_reach_their_labels_the_smaller_is_faster() -> None:
    run = shared_run(REGRESSION, REGRESSION.preset(noise=0.0, draws=2, seeds=3))
    assert (run.last("loss")[:, 0] < run.last("loss")[:, 1]).all()
    assert run.series("cosine")[1][..., 0].mean() < run.series("cosine")[1][..., 1].mean()


def test_the_shares_of_negative_cosines_are_those_quoted() -> None:
    images = labkit.load("digits", n_train=100, flatten=True, normalize="standardize+unit-length")
    for width, share in ((10, 0.48), (300, 0.44)):
        net = labkit.mlp(64, width, 30, 10, activation="tanh", init="glorot", bias=False, seed=0)
        G = measure.gradient_gram(net, 8 * images.x_train, images.y_train, loss="cross-entropy").numpy()
        assert (G[np.triu_indices(100, 1)] < 0).mean() == pytest.approx(share, abs=0.01)
