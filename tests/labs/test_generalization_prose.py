"""Notebook 2 against the runs: what its text says of them, each Play move, and the score card."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from labkit.figures import Chart, caption
from labkit.labs import generalization as lab
from labkit.labs.generalization import shared
from labkit.labs.generalization.card import DEMANDS, MEASURES, demands
from labkit.labs.generalization.label_panels import across_stops
from labkit.protocol.experiment import Run
from labkit.protocol.statistics import exponent
from tests.labs.checks import quick_runs
from tests.runs import shared_run

EXPERIMENTS = (lab.LABELS, lab.RESCALING, lab.CONFUSION, lab.WIDTH, lab.CONDITIONS)
quick = quick_runs(EXPERIMENTS)


@cache
def played(**settings: float) -> Run:
    return shared_run(lab.LABELS, lab.LABELS.preset(**settings))


def ratio(run: Run, name: str, level: int = -1) -> np.ndarray:
    """Random over true labels at one loss, (S, m)."""
    return run.last(name)[:, :, 1, level] / run.last(name)[:, :, 0, level]


def place(loss: float) -> int:
    return int(np.abs(np.log(quick("labels").prediction["levels"] / loss)).argmin())


class TestBet:
    def test_the_margin_orders_across_stops_and_the_bare_norm_does_not(self) -> None:
        """Section 3: a bet that a norm without a margin would win, too."""
        run, early = quick("labels"), place(0.1)
        assert run.prediction["levels"][early] == pytest.approx(0.1)
        bare, over = (run.last(name)[:, :, 1, early] / run.last(name)[:, :, 0, -1] for name in ("norm", "l2"))
        assert (bare[:, 0] < 1).all() and (over > 1).all()
        panel = across_stops(run)
        np.testing.assert_allclose(panel.marks[1].y, over)
        np.testing.assert_allclose(panel.marks[2].y, bare)
        assert Chart(panel, caption("A sentence of some words.", run.settings)).png()

    def test_at_one_loss_the_bare_norm_orders_them_too(self) -> None:
        """The fifth line of the figure, and what it says."""
        assert (ratio(quick("labels"), "norm") > 1).all()
        titles = [mark.label for mark in lab.LABELS.figure((), quick("labels").prediction).panels[1].marks]
        assert sum("no margin" in title for title in titles) == 1

    def test_at_a_large_loss_the_margin_serves_nobody(self) -> None:
        """Section 3: at 0.3 ℓ₂ orders 300 samples the wrong way round, and at 1 there is no margin."""
        run = quick("labels")
        assert ratio(run, "l2", place(0.316))[:, 2].mean() < 1
        assert np.isnan(ratio(run, "l2", place(1.0))).any()

    def test_random_labels_cost_in_proportion_and_true_ones_less_than_the_root(self) -> None:
        """§2.2: almost linear in m."""
        run = quick("labels")
        true, random = (
            exponent(np.array(run.settings.sizes, float), run.last("l2")[:, :, k, -1]) for k in (0, 1)
        )
        assert (true < 0.5).all() and ((random > 0.9) & (random < 1.4)).all()


class TestPlay:
    def test_stopping_early_shrinks_the_ratios_where_samples_are_many(self) -> None:
        """Move 1. The losses of a longer training begin with those of a shorter one."""
        run = quick("labels")
        early, late = (ratio(run, "l2", at).mean(axis=0) for at in (place(0.1), -1))
        assert early[0] > late[0] and (early[1:] < late[1:]).all()

    @pytest.mark.slow
    def test_less_noise_brings_the_curves_together(self) -> None:
        """Move 2, noise 0.4: the largest ratio shrinks."""
        assert ratio(played(label_noise=0.4), "l2")[:, -1].mean() < ratio(quick("labels"), "l2")[:, -1].mean()

    @pytest.mark.slow
    def test_the_order_survives_the_hard_margin(self) -> None:
        """Move 3, ε to 0."""
        for name in shared.MEASURES:
            assert (ratio(played(epsilon=0.0), name).mean(axis=0) > 1).all()


class TestRescaled:
    def test_the_divergence_reaches_that_of_random_labels(self) -> None:
        """Section 6: KL that is a property of the function after all."""
        moved = quick("rescaling").last("layer_divergence")
        assert (moved > ratio(quick("labels"), "divergence").max()).all()

    def test_a_trained_network_is_nearly_balanced(self) -> None:
        """Section 4: "a trained network is nearly there"."""
        assert (quick("rescaling").series("product_floor")[1] > 0.9).all()


class TestCard:
    @staticmethod
    def met(**ticks: bool) -> dict[str, set[str]]:
        runs = [quick(name) for name in ("labels", "rescaling", "confusion", "width")]
        table = demands(*runs, **ticks) >= 0
        assert lab.score_card(*runs, **ticks).png()
        return {
            name: {DEMANDS[k] for k in np.flatnonzero(row)} for name, row in zip(MEASURES, table, strict=True)
        }

    def test_without_factors_one_measure_meets_all(self) -> None:
        """A card that is written, not computed, or a factor that is not dropped."""
        met = self.met()
        assert [name for name, row in met.items() if row == set(DEMANDS)] == ["l2_path"]
        assert "true < random" not in met["sharpness"] and "tells bad minima" in met["sharpness"]

    def test_with_factors_none_does(self) -> None:
        """Factors h that change nothing."""
        met = self.met(factors=True)
        assert not [name for name, row in met.items() if row == set(DEMANDS)]
        assert met["l2_path"] == set(DEMANDS) - {"falls with width"}

    def test_after_rescaling_the_path_norms_are_left(self) -> None:
        """A rescaling that no order feels."""
        met = self.met(rescaled=True)
        assert {name for name, row in met.items() if row} == {"l1_path", "l2_path"}
