"""Lab 2, rescaling (E2 to E5, E19, E20): each claim decided as expected at `quick`, and each can fail."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from labkit import models
from labkit.labs.generalization import rescaling
from labkit.labs.generalization.rescaling import (
    RESCALING,
    distances,
    least_product,
    one_pass,
    sum_over_paths,
)  # fmt: skip
from labkit.protocol.experiment import Run, drain
from labkit.protocol.memory import Memory, remembering
from tests.labs.checks import TrainingTests, changed, quick_runs, verdict

SMALL = {"seeds": 1, "n": 30, "width": 6, "units": 2, "steps": 10, "ascent": 4, "classes": 3}


@cache
def whole_layer() -> Run:
    return drain(RESCALING, RESCALING.preset(kind="whole layer"))


@cache
def small(**settings: object) -> Run:
    return drain(RESCALING, RESCALING.preset(**SMALL | settings))


class TestRescaling(TrainingTests):
    lab = "generalization"
    experiments = (RESCALING,)
    quick = staticmethod(quick_runs(experiments))
    violated = {
        "E2": [
            lambda run: changed(run, output=lambda v: v + 1e-8),
            lambda run: changed(run, units_output=lambda v: v + 1e-8),
            lambda run: changed(run, path_one=lambda v: v * (1 + 1e-8)),
            lambda run: changed(run, path_two=lambda v: v * (1 + 1e-8)),
            lambda run: changed(run, layer_path_two=lambda v: v * 2),
            lambda run: changed(run, layer_frobenius=lambda v: v * (1 + 1e-8)),
            lambda run: changed(run, layer_spectral=lambda v: v * (1 + 1e-8)),
            lambda run: changed(run, units_frobenius=np.ones_like),
            lambda run: changed(run, units_spectral=np.ones_like),
            lambda run: changed(run, units_sharpness=np.ones_like),
            lambda run: changed(run, layer_sharpness=np.ones_like),
        ],
        "E3": [
            lambda run: changed(run, library=lambda v: v * (1 + 1e-8)),
            lambda run: changed(run, one_pass=np.sqrt),
            lambda run: changed(run, brute_force=lambda v: v[:, ::-1]),
        ],
        "E4": [
            lambda run: changed(run, group_norms=lambda v: v / 1e6),
            lambda run: changed(run, local_lipschitz=lambda v: v * 1e6),
            lambda run: changed(
                run, paths_of_one_output=lambda v: v * run.last("paths_of_all_outputs") * 2
            ),
        ],
        "E5": [lambda run: changed(run, fold=lambda v: v + 1e-8)],
        "E19": [
            lambda run: changed(run, units_divergence=np.ones_like),
            lambda run: changed(run, layer_divergence=np.ones_like),
        ],
        "E20": [
            lambda run: changed(run, apart=lambda v: v / 100),
            lambda run: changed(run, local_lipschitz=lambda v: v / 1000),
            lambda run: changed(run, spectral_product=lambda v: v / 1000),
        ],
    }  # fmt: skip
    cheap = {"rescaling": SMALL}
    too_fast = {"rescaling": SMALL | {"lr": 100.0, "steps": 40, "depth": 3}}

    @pytest.mark.parametrize("claim", ["E2", "E3", "E4", "E5"])
    def test_the_claims_hold_for_a_whole_layer_too(self, claim: str) -> None:
        """A claim that holds for one kind of rescaling only."""
        assert verdict(claim, whole_layer()).word == "holds"

    def test_one_factor_for_a_whole_layer_moves_the_sharpness_alone(self) -> None:
        """The kind of rescaling that changes nothing in the frames."""
        run = whole_layer()
        for name in ("frobenius", "spectral", "path_one", "path_two"):
            np.testing.assert_allclose(run.series(name)[1], 1.0, rtol=1e-10)
        assert (run.last("sharpness") > 2).all()
        assert (self.quick("rescaling").last("frobenius") > 100).all()

    def test_the_paths_of_all_outputs_may_exceed_the_product_of_group_norms(self) -> None:
        """Why E4 speaks of one output: trained networks break the other form."""
        assert (self.quick("rescaling").last("paths_of_all_outputs") > 1).all()


def test_rescaling_moves_no_floor_and_passes_none() -> None:
    """A floor that is a number like any other, or one above what it bounds."""
    for run in (small(), small(kind="whole layer", steps=60)):
        for name, above in (("product_floor", "frobenius"), ("sharpness_floor", "sharpness")):
            floor = run.series(name)[1]
            np.testing.assert_allclose(floor, float(floor.mean()), rtol=1e-5)
            assert (run.series(above)[1] >= 0.999 * floor).all()


def test_the_least_product_of_two_layers_is_the_square_of_a_sum() -> None:
    """(Σ s t)², by hand; dead units count for nothing."""
    net = models.mlp(3, 4, 1, 2, bias=False, seed=0, dtype=torch.float64)
    first, second = (p.detach() for p in net.parameters())
    first[1] = 0
    expected = float((first.norm(dim=1) * second.norm(dim=0)).sum() ** 2)
    # A dead unit's outputs stay in the second norm.
    second[:, 1] = 0
    assert least_product(net) == pytest.approx(expected)


def test_another_largest_factor_measures_only_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dragging the factor: the curve measured from its beginning again."""
    calls, climb = [], rescaling.max_sharpness

    def counted(*args: Any, **more: Any) -> Any:
        calls.append(1)
        return climb(*args, **more)

    monkeypatch.setattr(rescaling, "max_sharpness", counted)
    with remembering(Memory()):
        drain(RESCALING, RESCALING.preset(**SMALL))
        first = len(calls)
        drain(RESCALING, RESCALING.preset(**SMALL, decades=1.4))
    # 1.4 decades for the other kind; 9 factors and the start, and the other kind at two.
    assert (first, len(calls) - first) == (12, 1)


def test_each_sample_is_as_far_as_its_nearest_other() -> None:
    """A distance to itself, which would be 0."""
    x = torch.tensor([[0.0, 0], [3, 4], [3, 5]]).double()
    assert distances(x).tolist() == [5, 1, 1]


def test_a_wrong_pass_of_ones_fails_e3() -> None:
    """The visible step ignored: signs kept, and a root taken."""
    signed = lambda W, p: float(torch.linalg.multi_dot([*reversed(W)]).sum())  # noqa: E731
    rooted = lambda W, p: one_pass(W, p) ** (1 / p)  # noqa: E731
    for wrong in (signed, rooted):
        run = drain(RESCALING, RESCALING.preset(**SMALL), one_pass=wrong)
        assert verdict("E3", run).word == "fails"


def test_both_sums_over_paths_are_right_by_hand() -> None:
    """Two ways that share one mistake: 6 and 14, counted by hand."""
    W = [torch.tensor([[1.0, -2.0], [0.0, 3.0]]).double(), torch.tensor([[1.0, 1.0]]).double()]
    assert [way(W, p) for way in (sum_over_paths, one_pass) for p in (1, 2)] == [6.0, 14.0, 6.0, 14.0]


def test_the_run_starts_from_a_trained_network() -> None:
    """Rescaling of random weights: the number of training steps must matter."""
    assert not np.allclose(small(steps=0).last("spectral_product"), small().last("spectral_product"))


def test_a_setup_can_be_run_twice() -> None:
    """A run that trains what `prepare` made."""
    setup = RESCALING.prepare(RESCALING.preset(**SMALL))
    prediction = RESCALING.predict(setup)
    first, second = (list(RESCALING.run(setup, prediction)) for _ in range(2))
    assert all(np.array_equal(first[-1].values[name], v) for name, v in second[-1].values.items())


def test_a_dead_network_is_out_of_regime() -> None:
    """A refuted claim where no unit is active: nothing depends on it."""
    found = verdict("E2", small(lr=100.0, steps=40))
    assert found.word == "out of regime" and "training error" in found.notes


def test_factors_near_one_are_out_of_regime() -> None:
    """A claim refuted by the left end of a slider, where the sharpness moves by less than a per cent."""
    found = verdict("E2", small(decades=0.1, steps=100))
    assert found.word == "out of regime" and "a factor that shows: 3.9 > 1.26" in found.notes


def test_more_units_than_the_layer_has_are_refused() -> None:
    """An index error in a thread."""
    with pytest.raises(ValueError, match="units must be at most width = 4; got 8"):
        RESCALING.preset(width=4, units=8)
