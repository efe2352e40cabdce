"""Lab 2, rescaling (E2 to E5): each claim is decided as expected at the quick preset, and each can fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from labkit.labs.generalization.rescaling import RESCALING, one_pass, sum_over_paths
from labkit.protocol.claims import Verdict, judge
from labkit.protocol.experiment import Run, drain

IDS = ("E2", "E3", "E4", "E5")
SMALL = {"seeds": 1, "n": 30, "width": 6, "units": 2, "steps": 10, "ascent": 4, "classes": 3}


@cache
def quick(kind: str = "single units") -> Run:
    return drain(RESCALING, RESCALING.preset(kind=kind))


@cache
def small(**settings: object) -> Run:
    return drain(RESCALING, RESCALING.preset(**SMALL | settings))


def verdict(id: str, run: Run) -> Verdict:
    return judge(run.claim(id), run)


def changed(run: Run, **values: Callable[[np.ndarray], np.ndarray]) -> Run:
    """The run with some of its frame values replaced."""
    frames = tuple(
        replace(frame, values={name: values.get(name, lambda v: v)(v) for name, v in frame.values.items()})
        for frame in run.frames
    )
    return replace(run, frames=frames)


VIOLATED: dict[str, list[Callable[[Run], Run]]] = {
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
}  # fmt: skip


@pytest.mark.parametrize("id", IDS)
@pytest.mark.parametrize("kind", ["single units", "whole layer"])
def test_every_claim_is_decided_as_expected(id: str, kind: str) -> None:
    """A claim that holds for one kind of rescaling only, or a verdict near its edge."""
    found = verdict(id, quick(kind))
    assert found.word == quick().claim(id).expected == "holds", found.note
    assert found.distance >= 3


@pytest.mark.parametrize(("id", "case"), [(id, k) for id in IDS for k in range(len(VIOLATED[id]))])
def test_every_claim_can_fail(id: str, case: int) -> None:
    """A verdict that cannot fail."""
    assert verdict(id, VIOLATED[id][case](quick())).word == "fails"


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


def test_one_factor_for_a_whole_layer_moves_the_sharpness_alone() -> None:
    """The kind of rescaling that changes nothing in the frames."""
    run = quick("whole layer")
    for name in ("frobenius", "spectral", "path_one", "path_two"):
        np.testing.assert_allclose(run.series(name)[1], 1.0, rtol=1e-10)
    assert (run.last("sharpness") > 2).all()
    assert (quick().last("frobenius") > 100).all()


def test_the_paths_of_all_outputs_may_exceed_the_product_of_group_norms() -> None:
    """Why E4 speaks of one output: trained networks break the other form."""
    assert (quick().last("paths_of_all_outputs") > 1).all()


def test_frames_keep_the_protocol() -> None:
    """Frames without a seed axis, steps that go back, a run that ends without saying how."""
    run = quick()
    steps = [frame.step for frame in run.frames]
    assert steps == sorted(steps) and run.status == "done"
    for frame in run.frames:
        for name, value in frame.values.items():
            assert type(value) is np.ndarray and value.shape[0] == 3, name
    assert set(RESCALING.controls) <= set(run.settings.knobs())
    assert {"quick", "paper"} <= set(RESCALING.presets)


def test_the_run_starts_from_a_trained_network() -> None:
    """Rescaling of random weights: the number of training steps must matter."""
    assert not np.allclose(small(steps=0).last("spectral_product"), small().last("spectral_product"))


def test_a_figure_draws_before_during_and_after() -> None:
    """A figure that needs the last frame."""
    run = quick()
    for frames in ((), run.frames[:1], run.frames[:4], run.frames):
        chart = RESCALING.figure(frames, run.prediction, (run, small()), run.settings)
        assert chart.png()[:4] == b"\x89PNG"
    assert "rescale single units" in chart.caption


@pytest.mark.parametrize("name", RESCALING.controls)
def test_every_control_is_alive(name: str) -> None:
    """A slider that does nothing."""
    other = {"kind": "whole layer", "units": 1, "decades": 0.5, "width": 8, "depth": 1, "steps": 20}
    base, moved = small(), small(**{name: other[name]})
    names = ("frobenius", "sharpness", "spectral_product", "local_lipschitz")
    assert any(not np.array_equal(base.last(value), moved.last(value)) for value in names)


def test_a_seed_gives_bit_equal_frames() -> None:
    """Randomness from outside the seed."""
    first, second = (drain(RESCALING, RESCALING.preset(**SMALL)) for _ in range(2))
    for a, b in zip(first.frames, second.frames, strict=True):
        assert all(np.array_equal(a.values[key], b.values[key]) for key in a.values)


def test_a_setup_can_be_run_twice() -> None:
    """A run that trains what `prepare` made."""
    setup = RESCALING.prepare(RESCALING.preset(**SMALL))
    prediction = RESCALING.predict(setup)
    first, second = (list(RESCALING.run(setup, prediction)) for _ in range(2))
    assert all(np.array_equal(first[-1].values[name], v) for name, v in second[-1].values.items())


def test_divergence_is_a_result() -> None:
    """A traceback where training diverges."""
    run = small(lr=100.0, steps=40, depth=3)
    assert run.status == "diverged" and run.frames[-1].note
    run.figure().png()


def test_a_dead_network_is_out_of_regime() -> None:
    """A refuted claim where no unit is active: nothing depends on it."""
    found = verdict("E2", small(lr=100.0, steps=40))
    assert found.word == "out of regime" and "training error" in found.note


def test_factors_near_one_are_out_of_regime() -> None:
    """A claim refuted by the left end of a slider, where the sharpness moves by less than a per cent."""
    found = verdict("E2", small(decades=0.1, steps=100))
    assert found.word == "out of regime" and "a factor that shows: 3.9 > 1.26" in found.note


def test_more_units_than_the_layer_has_are_refused() -> None:
    """An index error in a thread."""
    with pytest.raises(ValueError, match="units must be at most width = 4; got 8"):
        RESCALING.preset(width=4, units=8)
