"""Lab 2, section 4 of the paper (E11 to E14): decided as expected at the quick preset, and able to fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from labkit.labs.generalization.conditions import CONDITIONS
from labkit.labs.generalization.depth import DEPTH
from labkit.labs.generalization.lemma3 import LEMMA3
from labkit.labs.generalization.perturbation import PERTURBATION
from labkit.protocol.claims import Verdict, judge
from labkit.protocol.experiment import Experiment, Run, drain

EXPERIMENTS = {"E11": LEMMA3, "E12": CONDITIONS, "E13": PERTURBATION, "E14": DEPTH}
SMALL = {
    "E11": {"size": 6, "draws": 200},
    "E12": {"width": 20, "hidden": 2, "n": 60, "samples": 20, "classes": 3},
    "E13": {"width": 20, "hidden": 2, "n": 60, "samples": 20, "classes": 3, "draws": 3},
    "E14": {"width": 16, "deepest": 8, "n": 4},
}


@cache
def quick(id: str) -> Run:
    return drain(EXPERIMENTS[id])


def small(id: str, **settings: object) -> Run:
    return drain(EXPERIMENTS[id], EXPERIMENTS[id].preset(seeds=1, **SMALL[id] | settings))


def verdict(id: str, run: Run) -> Verdict:
    return judge(run.claim(id), run)


def changed(run: Run, **values: Callable[[np.ndarray], np.ndarray]) -> Run:
    """The run with some of its frame values replaced; `prediction_x` replaces the prediction x."""

    def new(name: str, value: np.ndarray) -> np.ndarray:
        return values.get(name, lambda v: v)(value)

    prediction = {name: new(f"prediction_{name}", value) for name, value in run.prediction.items()}
    frames = tuple(
        replace(frame, values={name: new(name, value) for name, value in frame.values.items()})
        for frame in run.frames
    )
    return replace(run, prediction=prediction, frames=frames)


# What each claim must refuse: a run in which one thing is not as the paper says.
VIOLATED: dict[str, list[Callable[[Run], Run]]] = {
    "E11": [
        lambda run: changed(run, mean=lambda v: v * 1.3),
        lambda run: changed(run, mean=lambda v: v * 0.9),
        lambda run: changed(run, rms=lambda v: v * 1.1),
        # A variance where a standard deviation belongs, with sigma = .1.
        lambda run: changed(run, rms=lambda v: v * 0.1),
    ],
    "E12": [
        lambda run: changed(run, mu=lambda v: v / 5),
        lambda run: changed(run, prediction_mu=lambda v: v / 5),
        lambda run: changed(run, c2=lambda v: v * 4),
        lambda run: changed(run, prediction_c3=lambda v: v * 2),
        lambda run: changed(run, c3=lambda v: v * 2),
    ],
    "E13": [
        lambda run: changed(run, share1=lambda v: v * 20),
        lambda run: changed(run, share2=lambda v: v * 1e7),
        lambda run: changed(run, share_flips=lambda v: v * 100),
        lambda run: changed(run, theorem1=lambda v: v * 1e-9),
    ],
    "E14": [
        lambda run: changed(run, linear=lambda v: v * 2),
        lambda run: changed(run, root=np.square),
        lambda run: changed(run, root=np.sqrt),
        lambda run: changed(run, fixed=lambda v: np.full_like(v, v[0, 0])),
    ],
}


@pytest.mark.parametrize("id", EXPERIMENTS)
def test_every_claim_is_decided_as_expected(id: str) -> None:
    """A preset that drifts to the edge of a verdict, or a claim whose `expected` is a wish."""
    found = verdict(id, quick(id))
    assert found.word == quick(id).claim(id).expected, found.note
    assert found.distance >= 3, found.note


@pytest.mark.parametrize("id", EXPERIMENTS)
def test_every_claim_can_fail(id: str) -> None:
    """A verdict that cannot fail."""
    for violate in VIOLATED[id]:
        assert verdict(id, violate(quick(id))).word == "fails"


def test_theorem_1_is_said_to_be_vacuous() -> None:
    """A bound of a thousand on an error rate, printed as a success."""
    found = verdict("E13", quick("E13"))
    assert found.vacuous and "vacuous from σ" in found.note and "all of Theorem 1" in found.note
    assert not verdict("E13", changed(quick("E13"), total=lambda v: v * 0 + 0.5)).vacuous


def test_lemma_1_is_of_the_order_of_what_it_bounds() -> None:
    """A bound that holds because it is never near."""
    run = quick("E13")
    ratio = run.last("lemma1")[:, :4] / run.last("change")[:, :4]
    assert ratio.min() > 1 and ratio.max() < 40
    # Noise acts in proportion while it is small.
    growth = np.diff(np.log(run.last("change")[:, :4])) / np.diff(np.log(run.prediction["sigmas"][:4]))
    np.testing.assert_allclose(growth, 1, atol=0.02)


def test_random_labels_are_reported_and_not_judged() -> None:
    """A promise that the paper has not made: random labels may leave the conditions."""
    worse = changed(quick("E12"), mu=lambda v: np.concatenate([v[:, :1], v[:, 1:] / 10], axis=1))
    found = verdict("E12", worse)
    assert found.word == "holds" and found.parts[-1] == "reported"
    assert f"{float(np.quantile(worse.last('mu')[:, 1], 0.05, axis=1).mean()):.2g}" in found.note


def test_learning_true_labels_raises_mu_and_random_labels_lower_it() -> None:
    """The finding that the notebook states."""
    run = quick("E12")
    start, (true, random) = run.prediction["mu"], (run.last("mu")[:, k] for k in (0, 1))
    low = [np.quantile(v, 0.05, axis=1) for v in (random, start, true)]
    assert (low[1] < low[2]).all() and (low[0] < low[2]).all()


def test_large_noise_is_outside_e14() -> None:
    """A theorem for small σ, judged at any."""
    found = verdict("E14", small("E14", sigma=2.0))
    assert found.word == "out of regime" and "σ C₂" in found.note


@pytest.mark.parametrize("id", ["E12", "E13"])
def test_a_network_that_is_not_trained_to_its_end_decides_nothing(id: str) -> None:
    """Conditions of a half-learned network taken for those of a learned one."""
    assert verdict(id, small(id, epochs=2)).word == "undecided"


@pytest.mark.parametrize("id", ["E12", "E13"])
def test_a_learning_rate_past_the_edge_is_a_result(id: str) -> None:
    """A traceback, or silence, where a run diverges."""
    run = small(id, lr=100.0)
    assert run.status == "diverged" and run.frames[-1].note
    run.figure().png()


@pytest.mark.parametrize("id", EXPERIMENTS)
def test_an_experiment_keeps_the_protocol(id: str) -> None:
    """Frames without a seed axis, tensors in frames, a prediction that looks at the run."""
    experiment, run = EXPERIMENTS[id], quick(id)
    steps = [frame.step for frame in run.frames]
    assert steps == sorted(steps) and len(steps) > 1 and run.frames[-1].status == "done"
    for frame in run.frames:
        for name, value in frame.values.items():
            assert type(value) is np.ndarray and value.shape[0] == run.settings.seeds, name
    assert set(experiment.controls) <= set(experiment.settings.knobs())
    assert {"quick", "paper"} <= set(experiment.presets)
    setup = experiment.prepare(experiment.preset(seeds=1, **SMALL[id]))
    before = experiment.predict(setup)
    list(experiment.run(setup, before))
    after = experiment.predict(setup)
    assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("id", EXPERIMENTS)
def test_a_seed_gives_bit_equal_frames(id: str) -> None:
    """Randomness from outside the seed."""
    first, second = small(id), small(id)
    for a, b in zip(first.frames, second.frames, strict=True):
        assert a.step == b.step
        for name in a.values:
            np.testing.assert_array_equal(a.values[name], b.values[name])


@pytest.mark.parametrize("id", EXPERIMENTS)
def test_the_panel_controls_are_alive(id: str) -> None:
    """A slider that does nothing."""
    experiment = EXPERIMENTS[id]
    base = small(id)
    for name in experiment.controls:
        knob = experiment.settings.knobs()[name]
        low, high = (knob.type(end) for end in knob.slider)
        other = low if getattr(base.settings, name) != low else knob.type(min(high, 2 * low))
        assert not _equal(base, small(id, **{name: other})), f"{name} changes nothing"


def _equal(a: Run, b: Run) -> bool:
    one, other = ([run.prediction, *(frame.values for frame in run.frames)] for run in (a, b))
    return len(one) == len(other) and all(
        p.keys() == q.keys() and all(np.array_equal(p[name], q[name]) for name in p)
        for p, q in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("id", EXPERIMENTS)
def test_a_figure_draws_before_during_and_after(id: str, artifacts: Path) -> None:
    """A figure that needs the last frame, so that a panel has nothing to show."""
    run, experiment = quick(id), EXPERIMENTS[id]
    for frames in ((), run.frames[:1], run.frames):
        chart = experiment.figure(frames, run.prediction, (run,), run.settings)
        assert chart.png()[:4] == b"\x89PNG"
    (artifacts / f"generalization-{experiment.name}.png").write_bytes(chart.png())
    assert str(run.settings.seeds - 1) in chart.caption


@pytest.mark.parametrize("id", ["E12", "E13"])
def test_the_papers_network_runs_too(id: str, tmp_path: Path) -> None:
    """A `paper` preset that nobody could run: its ten layers, on a handful of images and narrow."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (60, 8, 8), dtype=np.uint8), np.arange(60) % 3
    np.savez(tmp_path / "tiny.npz", x_train=images, y_train=labels, x_test=images[:12], y_test=labels[:12])
    experiment: Experiment = EXPERIMENTS[id]
    changes = {"dataset": str(tmp_path / "tiny.npz"), "n": 40, "width": 30, "classes": 3, "samples": 10}
    settings = experiment.preset("paper", **changes, seeds=1, stop=0.3, lr=0.05)
    run = drain(experiment, settings if id == "E12" else settings.replace(draws=3))
    assert run.status == "done"
    if id == "E12":
        assert run.last("c3").shape == (1, 2, 10) and run.last("c2").shape == (1, 2, 9)
