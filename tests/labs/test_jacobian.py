"""Lab 4 as a whole: every claim is decided as expected at the quick preset, and every claim can fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from labkit.claims import Verdict, judge
from labkit.experiment import Experiment, Frame, Run, drain
from labkit.labs import load_lab

LAB = load_lab("jacobian")
CLAIMS = [(claim.id, experiment.name) for experiment in LAB.experiments for claim in experiment.claims]


@cache
def quick(name: str) -> Run:
    return drain(LAB.experiment(name))


def changed(run: Run, **values: Callable[[np.ndarray], np.ndarray]) -> Run:
    """The run with some of its frame values replaced; `prediction_x` replaces the prediction x."""
    prediction = {
        name: values.get(f"prediction_{name}", _same)(value) for name, value in run.prediction.items()
    }
    frames = tuple(
        replace(frame, values={name: values.get(name, _same)(value) for name, value in frame.values.items()})
        for frame in run.frames
    )
    return replace(run, prediction=prediction, frames=frames)


def _same(value: np.ndarray) -> np.ndarray:
    return value


def _constant(value: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda old: np.full_like(old, value, dtype=float)


def _swapped(run: Run, first: str, second: str) -> Run:
    """Two series exchanged, such as the parts on I and on N."""
    names = {first: second, second: first}
    frames = tuple(
        replace(frame, values={names.get(name, name): value for name, value in frame.values.items()})
        for frame in run.frames
    )
    return replace(run, frames=frames)


def _reversed_levels(run: Run, *names: str) -> Run:
    return changed(run, **{name: lambda v: v[:, ::-1] for name in names})


# What each claim must refuse: a run in which one thing is not as the paper says.
VIOLATED: dict[str, list[Callable[[Run], Run]]] = {
    "J1": [
        lambda run: changed(run, error_relu=_constant(0.1)),
        lambda run: changed(run, error_softplus=np.sqrt),
    ],
    "J2": [
        lambda run: changed(run, clean_rank=lambda v: v + 3),
        lambda run: changed(run, clean_share=lambda v: v - 1e-6),
        lambda run: changed(run, clean_least=lambda v: v / 10),
        lambda run: changed(run, clean_largest=lambda v: v * 10),
    ],
    "J3": [
        lambda run: changed(run, single=lambda v: np.delete(v, 0, axis=1)),
        lambda run: changed(run, double=lambda v: v * np.sqrt(2)),
    ],
    "J4": [
        lambda run: changed(run, linear_nuisance=lambda v: v * 0.9),
        lambda run: changed(run, prediction_information=np.sqrt),
        lambda run: _swapped(run, "information", "nuisance"),
    ],
    "J5": [
        lambda run: _swapped(run, "deviation_softplus", "deviation_relu"),
        lambda run: changed(run, deviation_relu=_constant(0.01)),
    ],
    "J6": [
        lambda run: changed(run, deviation=lambda v: v + 100),
        lambda run: changed(run, moved=lambda v: v * 100),
        lambda run: changed(run, final=lambda v: v * 100),
    ],
    "J8": [
        lambda run: changed(run, residual=lambda v: v * 10),
        lambda run: changed(run, prediction_total=lambda v: v / 1000),
    ],
    "J9": [lambda run: changed(run, later_bound=lambda v: 1 / v)],
    "J10": [
        lambda run: changed(run, risk=lambda v: v * 1.001),
        lambda run: changed(run, sampled=lambda v: v + 1),
        lambda run: changed(run, prediction_risk=lambda v: np.sort(v, axis=1)[:, ::-1], risk=_same),
        lambda run: changed(run, prediction_nuisance=lambda v: v[:, ::-1]),
    ],
    "J11": [
        lambda run: _swapped(run, "initial_centred", "final_centred"),
        lambda run: _reversed_levels(run, "final", "initial"),
        lambda run: _reversed_levels(run, "final_centred", "initial_centred"),
    ],
    "J12": [
        lambda run: changed(run, test_error=_constant(0.4)),
        lambda run: changed(run, test_nuisance=_constant(1.0)),
        lambda run: _swapped(run, "test_information", "test_nuisance"),
    ],
    "J13": [lambda run: _reversed_levels(run, "final"), lambda run: _reversed_levels(run, "test_error")],
    "J14": [
        lambda run: changed(run, initial_error=_constant(0.3), final_error=_constant(0.3)),
        lambda run: changed(run, initial_error_short=np.zeros_like, final_error_short=np.zeros_like),
    ],
    "J15": [
        lambda run: changed(run, after=lambda v: np.delete(v, 3, axis=1)),
        lambda run: changed(run, after=lambda v: v * 10),
    ],
    "J16": [
        lambda run: changed(run, block_error=lambda v: v + 1e-3),
        lambda run: changed(run, joint_norm=lambda v: v * 10),
    ],
}  # fmt: skip


def verdict(id: str, run: Run) -> Verdict:
    return judge(run.claim(id), run)


@pytest.mark.parametrize(("id", "name"), CLAIMS)
def test_every_claim_is_decided_as_expected(id: str, name: str) -> None:
    """A preset that drifts to the edge of a verdict, or a claim whose `expected` is a wish."""
    found = verdict(id, quick(name))
    assert found.word == quick(name).claim(id).expected, found.note


@pytest.mark.parametrize(("id", "name"), CLAIMS)
def test_every_verdict_stands_three_spreads_from_its_edge(id: str, name: str) -> None:
    """A verdict printed in a notebook that another machine's rounding could flip."""
    assert verdict(id, quick(name)).distance >= 3


@pytest.mark.parametrize(("id", "name"), [pair for pair in CLAIMS if pair[0] not in ("J7", "J17")])
def test_every_claim_can_fail(id: str, name: str) -> None:
    """A verdict that cannot fail."""
    for violate in VIOLATED[id]:
        assert verdict(id, violate(quick(name))).word == "fails"


def test_j7_fails_for_a_wrong_early_stopping_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """J7 compares formulas, so the formula is broken: B times ten, then B over ten."""
    from labkit.labs.jacobian import residuals

    right = residuals.theory.early_stopping_value
    for factor in (10, 1e-3):
        monkeypatch.setattr(residuals.theory, "early_stopping_value", lambda *cut, f=factor: f * right(*cut))
        assert verdict("J7", quick("residuals")).word == "fails"


def test_j17_only_reports() -> None:
    """A promise read into one run of the paper: Adam may come out either way."""
    run = quick("alignment")
    assert verdict("J17", changed(run, adam=lambda v: v * 0)).word == "reported"


def test_j6_is_out_of_regime_at_500_units() -> None:
    """A verdict on a theorem whose conditions are not met."""
    meta = LAB.experiment("meta-theorem")
    found = verdict("J6", drain(meta, meta.preset(width=500)))
    assert found.word == "out of regime"
    assert "δ" in found.note and ">" in found.note


def test_the_lab_covers_the_sheet() -> None:
    """A claim of the sheet that no experiment decides, or a core path that names none."""
    assert [claim.id for claim in LAB.claims] == [f"J{number}" for number in range(1, 18)]
    assert set(LAB.core) <= {claim.id for claim in LAB.claims}
    assert set(VIOLATED) | {"J7", "J17"} == {claim.id for claim in LAB.claims}


@pytest.mark.parametrize("experiment", LAB.experiments, ids=lambda e: e.name)
def test_an_experiment_keeps_the_protocol(experiment: Experiment) -> None:
    """Frames without a seed axis, tensors in frames,
    steps that go back, a run that ends without saying how.
    """
    run = quick(experiment.name)
    seeds = run.settings.seeds
    steps = [frame.step for frame in run.frames]
    assert steps == sorted(steps)
    assert run.frames[-1].status == "done"
    for frame in run.frames:
        for name, value in frame.values.items():
            assert type(value) is np.ndarray and value.shape[0] == seeds, (name, value)
    assert set(experiment.controls) <= set(experiment.settings.knobs())
    assert {"quick", "paper"} <= set(experiment.presets)


@pytest.mark.parametrize("experiment", LAB.experiments, ids=lambda e: e.name)
def test_a_figure_draws_before_during_and_after(experiment: Experiment) -> None:
    """A figure that needs the last frame, so that a panel has nothing to show."""
    run = quick(experiment.name)
    for frames in ((), run.frames[:1], run.frames):
        chart = experiment.figure(frames, run.prediction, (run,), run.settings)
        assert chart.png()[:4] == b"\x89PNG"
    assert str(run.settings.seeds - 1) in chart.caption


@pytest.mark.parametrize("name", ["residuals", "corruption", "linear"])
def test_a_seed_gives_bit_equal_frames(name: str) -> None:
    """Randomness from outside the seed."""
    settings = LAB.experiment(name).preset(steps=40)
    first, second = (drain(LAB.experiment(name), settings) for _ in range(2))
    for a, b in zip(first.frames, second.frames, strict=True):
        assert a.step == b.step
        for key in a.values:
            np.testing.assert_array_equal(a.values[key], b.values[key])


def test_the_panel_controls_are_alive() -> None:
    """A slider that does nothing:
    each control of each experiment, moved, must change the prediction or the frames.
    """
    for experiment in LAB.experiments:
        cheap = _cheap(experiment)
        base = _outcome(experiment, cheap)
        for name in experiment.controls:
            moved = cheap.replace(**{name: _moved(cheap, name)})
            assert not _equal(base, _outcome(experiment, moved)), f"{experiment.name}: {name} changes nothing"


def _cheap(experiment: Experiment):
    small = {
        "kernel": {"widest": 300, "n": 6},
        "mixture": {"clusters": 3, "per_cluster": 3, "width": 50},
        "residuals": {"n": 24, "width": 32, "steps": 30, "rank": 5},
        "linearization": {"widest": 210, "steps": 10, "repeats": 1, "n": 12},
        "meta-theorem": {"width": 200, "n": 12, "rank": 4},
        "corruption": {"n": 30, "width": 16, "steps": 30, "rank": 10, "classes": 3},
        "cutoff": {"n": 24, "width": 32, "steps": 60},
        "alignment": {"n": 30, "width": 16, "steps": 20, "rank": 10, "classes": 3},
        "linear": {"n": 20, "inputs": 40, "rank": 3, "steps": 20},
        "spectrum": {"n": 10, "width": 16, "steps": 10, "lanczos_steps": 8, "classes": 3},
        "one-step": {"n": 60, "width": 20, "inputs": 3},
    }
    return experiment.preset(seeds=1, **small[experiment.name])


def _moved(settings, name: str):
    knob, value = settings.knobs()[name], getattr(settings, name)
    low = knob.type(knob.slider[0])
    return low if low != value else value + knob.type(knob.step or 1)


def _outcome(experiment: Experiment, settings) -> list[dict[str, np.ndarray]]:
    run = drain(experiment, settings)
    return [dict(run.prediction), *(dict(frame.values) for frame in run.frames)]


def _equal(a, b) -> bool:
    return len(a) == len(b) and all(
        p.keys() == q.keys() and all(np.array_equal(p[key], q[key]) for key in p)
        for p, q in zip(a, b, strict=True)
    )


def test_a_learning_rate_past_the_edge_is_a_result() -> None:
    """A traceback, or silence, where a run diverges."""
    residuals = LAB.experiment("residuals")
    run = drain(residuals, residuals.preset(lr=5.0, steps=200))
    assert run.status == "diverged"
    assert "stable" in run.frames[-1].note
    assert verdict("J4", run).word != "holds"
    run.figure().png()


def test_predictions_are_made_before_training() -> None:
    """A prediction that looks at the run: it must be the same before and after."""
    for experiment in LAB.experiments:
        settings = _cheap(experiment)
        setup = experiment.prepare(settings)
        before = experiment.predict(setup)
        frames: list[Frame] = list(experiment.run(setup, before))
        after = experiment.predict(setup)
        assert frames and all(np.array_equal(before[key], after[key]) for key in before), experiment.name


def test_the_papers_network_runs_too(tmp_path: Path) -> None:
    """A `paper` preset that nobody could run: its path, on a handful of images and two steps."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8), np.arange(40) % 3
    np.savez(tmp_path / "tiny.npz", x_train=images, y_train=labels, x_test=images[:12], y_test=labels[:12])
    alignment = LAB.experiment("alignment")
    settings = alignment.preset(
        "paper",
        dataset=str(tmp_path / "tiny.npz"),
        n=12,
        n_test=12,
        classes=3,
        width=2,
        steps=10,
        rank=5,
        batch_size=5,
        seeds=2,
    )
    run = drain(alignment, settings)
    assert run.status == "done" and run.last("final").shape == (2, 5)


def test_a_diverged_ensemble_ends_the_alignment() -> None:
    """Shares of weights that are not numbers."""
    alignment = LAB.experiment("alignment")
    run = drain(alignment, _cheap(alignment).replace(lr=50.0, steps=60))
    assert run.status == "diverged" and "stable" in run.frames[-1].note
    assert "final" not in run.frames[-1].values
    run.figure().png()
