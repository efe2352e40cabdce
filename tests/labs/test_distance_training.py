"""Lab 1's experiments with training: each claim is decided as expected at quick, and each can fail."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.func import functional_call, jacrev

import labkit
from labkit import models
from labkit.figures import Bound, Measured, Points
from labkit.labs import load_lab
from labkit.labs.distance import bounds, noise, over_width, scaling, scaling_claims, shared, which_number
from labkit.labs.distance.bounds import BOUNDS
from labkit.labs.distance.noise import NOISE, Noise
from labkit.labs.distance.scaling import SCALING, Scaling
from labkit.protocol import statistics as stats
from labkit.protocol.experiment import Run, drain
from labkit.protocol.judging import judge
from labkit.training import Ensemble
from tests.labs.checks import (
    Change,
    TrainingTests,
    at_frame,
    changed,
    equal,
    quick_runs,
    replaced,
    swapped,
    values,
    verdict,
    word,
)  # fmt: skip

EXPERIMENTS = (SCALING, NOISE, BOUNDS)
QUICK_STOP = {"lr": 0.2, "epochs": 12, "batch_size": 16, "depth": 2}
CHEAP: dict[str, dict[str, Any]] = {
    "scaling": QUICK_STOP | {"width": 80, "n": 64, "base": 20, "dataset": "digits", "stop": 0.07},
    "noise": QUICK_STOP | {"width": 20, "n": 60, "stop": 0.06},
    "bounds": QUICK_STOP | {"width": 20, "n": 60, "stop": 0.05},
}
quick = quick_runs(EXPERIMENTS)


def small(name: str, **changes: Any) -> Any:
    return load_lab("distance").experiment(name).preset(**{"seeds": 1} | CHEAP[name] | changes)


# What each claim must refuse: a run in which one thing is not as the paper says.


def tilted(run: Run, name: str, power: float) -> Run:
    """The run in which a value of every width (or sample size) has an extra factor H^power (or m^power)."""
    x = run.prediction["sizes" if name.endswith("size") else "widths"]
    return changed(run, **{name: lambda v: v * (x / x[0]) ** power})


def to_exponent(run: Run, name: str, power: float) -> Run:
    """The run whose mean exponent is this one; the spread over seeds stays."""
    x = run.prediction["sizes" if name.endswith("size") else "widths"]
    return tilted(run, name, power - stats.exponent(x, run.last(name)).mean())


def everywhere(run: Run, target: str, source: str) -> Run:
    """One number of all networks put in the place of another."""
    for phase in scaling.PHASES:
        run = replaced(run, f"{target}_{phase}", f"{source}_{phase}")
    return run


def reversed_axis(axis: int) -> Change:
    return lambda v: np.flip(v, axis)


def of_sample(which: int, change: Change) -> Change:
    """A change of the five distances of the smaller (0) or the larger (1) sample."""

    def change_one(r: np.ndarray) -> np.ndarray:
        r = r.copy()
        r[:, which] = change(r[:, which])
        return r

    return change_one


def flatter(r: np.ndarray) -> np.ndarray:
    """A tenth of the rise."""
    return r[:, :1] + 0.1 * (r - r[:, :1])


def steeper(r: np.ndarray) -> np.ndarray:
    """A rise ten times as steep."""
    return r[:, :1] + 10 * (r - r[:, :1])


VIOLATED: dict[str, list[Callable[[Run], Run]]] = {
    "D11": [
        lambda run: to_exponent(run, "r_by_width", 0.0),
        lambda run: to_exponent(run, "r_by_width", 0.1),
        lambda run: to_exponent(run, "r_by_width", 0.5),
        # Not "falls" but vanishes: another law than the paper's.
        lambda run: to_exponent(run, "r_by_width", -1.2),
        lambda run: changed(run, r_by_width=reversed_axis(1)),
        lambda run: replaced(run, "r_by_width", "origin_by_width"),
        lambda run: changed(run, r_by_width=np.zeros_like),
    ],
    "D12": [
        lambda run: to_exponent(run, "r_by_size", 0.12),
        lambda run: to_exponent(run, "r_by_size", 0.55),
        lambda run: to_exponent(run, "r_by_size", 0.0),
        lambda run: changed(run, r_by_size=reversed_axis(1)),
        lambda run: replaced(run, "r_by_size", "origin_by_size"),
        lambda run: changed(run, r_by_size=np.zeros_like),
    ],
    "D14": [
        lambda run: changed(run, origin_by_width=np.ones_like),
        lambda run: to_exponent(run, "origin_by_width", 1.0),
        lambda run: to_exponent(run, "origin_by_width", 0.3),
        lambda run: at_frame(run, "origin_by_width", lambda v: np.where(v == v[0], 1.15 * v, v)),
        lambda run: tilted(run, "r_by_width", 0.3),
        lambda run: tilted(run, "r_by_width", -0.5),
        lambda run: swapped(run, "origin_by_width", "r_by_width"),
        lambda run: replaced(run, "r_by_width", "origin_by_width"),
        lambda run: changed(run, r_by_width=np.zeros_like),
    ],
    "D15": [
        lambda run: changed(run, noisy_test_error=lambda v: 1000 * v),
        lambda run: changed(run, r_by_width=np.zeros_like),
        lambda run: at_frame(run, "r_by_width", np.zeros_like),
    ],
    "D16": [
        lambda run: tilted(run, "gap_by_width", math.log2(1.1)),
        lambda run: tilted(run, "gap_by_width", 0.5),
        lambda run: replaced(run, "gap_by_width", "origin_by_width"),
        lambda run: changed(run, gap_by_width=lambda v: np.sort(v * [1, 1.2, 1.4, 1.6], axis=1)),
    ],
    "D18": [
        # Another number that agrees as well: r itself, or the gap, in the place of one of the three.
        lambda run: everywhere(run, "r", "origin"),
        lambda run: everywhere(run, "frobenius", "gap"),
        lambda run: everywhere(run, "prefixed", "r"),
        lambda run: changed(run, **{f"r_{phase}": np.ones_like for phase in scaling.PHASES}),
        lambda run: changed(run, **{f"r_{phase}": lambda v: 1 / v for phase in scaling.PHASES}),
    ],
    "D19": [
        lambda run: changed(run, error_by_width=reversed_axis(1)),
        lambda run: tilted(run, "error_by_width", 0.3),
        lambda run: changed(run, r_by_noise=reversed_axis(1)),
        lambda run: changed(run, gap_by_noise=np.ones_like),
        lambda run: changed(run, r_by_size=reversed_axis(1)),
        lambda run: at_frame(run, "gap_by_size", lambda v: v[::-1]),
    ],
    "D20": [
        lambda run: replaced(run, "other_by_width", "origin_by_width"),
        lambda run: replaced(run, "other_by_width", "r_by_width"),
        lambda run: changed(run, other_by_width=lambda v: 1.2 * v),
        lambda run: tilted(run, "r_by_width", 0.5),
        lambda run: at_frame(run, "other_by_width", lambda v: 0.8 * v),
    ],
    "D21": [
        lambda run: tilted(run, "spectral_by_width", 0.5),
        lambda run: tilted(run, "with_r_by_width", 1.0),
        lambda run: tilted(run, "frobenius_by_width", -1.5),
        lambda run: tilted(run, "prefixed_by_width", -1.5),
        lambda run: replaced(run, "with_r_by_width", "frobenius_by_width"),
        lambda run: replaced(run, "frobenius_by_width", "spectral_by_width"),
    ],
    "D13": [
        lambda run: changed(run, r_end=np.zeros_like),
        lambda run: changed(run, r_end=of_sample(0, reversed_axis(1))),
        lambda run: changed(run, r_end=of_sample(1, reversed_axis(1))),
        lambda run: changed(run, r_end=of_sample(0, np.ones_like)),
        lambda run: changed(run, r_end=of_sample(1, flatter)),
        lambda run: changed(run, r_end=of_sample(0, steeper)),
        lambda run: changed(run, r_end=reversed_axis(1)),
    ],
    "D6": [
        lambda run: swapped(run, "product", "layerwise"),
        lambda run: swapped(run, "layerwise", "with_r"),
        lambda run: at_frame(run, "product", lambda v: v * 50, seed=0),
        lambda run: at_frame(run, "product", lambda v: v * 1.001, frame=0),
        # The triangle inequality with r as it was at the start, at one frame of one seed.
        lambda run: at_frame(run, "with_r", lambda _: run.series("with_r")[1][0, 2], frame=12, seed=2),
        lambda run: at_frame(run, "layerwise", lambda v: v / 10, seed=2),
        lambda run: changed(run, product=lambda v: v**2),
        lambda run: at_frame(run, "with_r", lambda v: v / 100),
    ],
    "D7": [
        lambda run: at_frame(run, "output", lambda v: v * 1e5),
        lambda run: at_frame(run, "output", lambda v: v * 1e3, frame=0, seed=2),
        lambda run: at_frame(run, "output_bound", np.zeros_like, frame=5, seed=0),
        lambda run: swapped(run, "output", "output_bound"),
        lambda run: changed(run, output_bound=lambda v: v / 1e3),
        lambda run: replaced(run, "output_bound", "r", 0.01),
        lambda run: at_frame(run, "output_at_mean", lambda v: v * 1e5, frame=1),
        lambda run: at_frame(run, "output_bound_at_mean", np.zeros_like, frame=5, seed=0),
    ],
    "D9": [
        lambda run: at_frame(run, "gradient", lambda v: v * 1e4),
        lambda run: at_frame(run, "gradient", lambda v: v * 1e2, frame=0, seed=2),
        lambda run: at_frame(run, "gradient_bound", np.zeros_like, frame=5, seed=0),
        lambda run: swapped(run, "gradient", "gradient_bound"),
        lambda run: changed(run, gradient_bound=lambda v: v / 1e2),
        lambda run: replaced(run, "gradient_bound", "r"),
        lambda run: at_frame(run, "gradient_at_mean", lambda v: v * 1e5, frame=1),
        lambda run: at_frame(run, "gradient_bound_at_mean", np.zeros_like, frame=5, seed=0),
    ],
}  # fmt: skip


class TestTraining(TrainingTests):
    lab = "distance"
    experiments = EXPERIMENTS
    quick = staticmethod(quick)
    violated = VIOLATED
    cheap = CHEAP
    too_fast = {
        "scaling": CHEAP["scaling"] | {"lr": 5.0, "seeds": 2},
        "noise": CHEAP["noise"] | {"lr": 20.0, "seeds": 2},
        "bounds": CHEAP["bounds"] | {"lr": 20.0, "seeds": 2},
    }

    def test_a_copy_does_not_depend_on_those_beside_it(self, name: str) -> None:
        """A seed that is another network, other data or other batches when more seeds are run."""
        # Five steps, as rounding in a larger batched product is not the same.
        changes = {"epochs": 2, "stop": 1e-6}
        both = drain(self.experiment(name), self.small(name, seeds=2, **changes))
        alone = drain(self.experiment(name), self.small(name, seed=1, **changes))
        key = {"scaling": "r", "noise": "r", "bounds": "with_r"}[name]
        steps, found = alone.series(key)
        np.testing.assert_array_equal(both.series(key)[0], steps)
        np.testing.assert_allclose(both.series(key)[1][:, 1:], found, rtol=1e-4)

    def test_every_setting_is_checked_by_its_own_name(self, name: str) -> None:
        """An error about `value` in a thread, for a slider called stop."""
        wrong = {
            "width": 0, "n": 3, "lr": -1.0, "stop": 0.0, "loss": "hinge", "margin": 99.0, "depth": 0,
            "init": "zero", "momentum": 1.0, "batch_size": 0, "epochs": 0, "dataset": "letters", "seeds": 0,
        }  # fmt: skip
        for setting, value in wrong.items():
            with pytest.raises(ValueError, match=f"^{setting} must be "):
                self.experiment(name).preset(**{setting: value})


def test_the_lab_covers_the_sheet() -> None:
    """A claim of the sheet that no experiment decides, or a core path that names none."""
    lab = load_lab("distance")
    assert [claim.id for claim in lab.claims] == [f"D{number}" for number in range(1, 23)]
    assert set(lab.core) <= {claim.id for claim in lab.claims}
    without = {"initialization", "concentration", "complexity"}  # in test_distance_theory.py
    assert {one.name for one in lab.experiments} == set(CHEAP) | without


# The distances themselves.


def test_distances_are_norms_of_one_flat_vector() -> None:
    """Biases left out, layers averaged, copies mixed."""
    nets = [models.mlp(5, 7, 2, 3, seed=seed, dtype=torch.float64) for seed in range(3)]
    others = [models.mlp(5, 7, 2, 3, seed=9 + seed, dtype=torch.float64) for seed in range(3)]
    for model in others:
        for layer in model.layers:
            torch.nn.init.constant_(layer.bias, 0.3)
    flat = [np.concatenate([p.detach().numpy().ravel() for p in m.parameters()]) for m in (*nets, *others)]
    now, start = Ensemble(others).weights(), Ensemble(nets).weights()
    expected = [np.linalg.norm(flat[3 + s] - flat[s]) for s in range(3)]
    np.testing.assert_allclose(shared.distance(now, start).numpy(), expected, rtol=1e-12)
    origin = [np.linalg.norm(flat[3 + s]) for s in range(3)]
    np.testing.assert_allclose(shared.from_origin(now).numpy(), origin, rtol=1e-12)


class Counted:
    """A distance that counts its calls, keeps the last weights, and answers with another one if asked to."""

    def __init__(self, distance: shared.Distance = shared.distance) -> None:
        self.distance, self.calls = distance, 0
        self.starts: list[dict[str, Tensor]] = []
        self.ends: list[dict[str, Tensor]] = []

    def __call__(self, now: shared.Weights, start: shared.Weights) -> Tensor:
        self.calls += 1
        if not float(shared.distance(now, start).max()):
            self.starts.append({name: value.clone() for name, value in start.items()})
            self.ends.append({})
        self.ends[-1] = {name: value.clone() for name, value in now.items()}
        return self.distance(now, start)


@pytest.mark.parametrize("experiment", [SCALING, NOISE], ids=lambda e: e.name)
def test_a_notebooks_own_distance_is_what_is_measured(experiment: Any) -> None:
    """A visible step that is ignored, or used for some of the frames only."""
    counted = Counted(lambda now, start: 3 * shared.distance(now, start))
    settings = small(experiment.name, seeds=2)
    plain, tripled = drain(experiment, settings), drain(experiment, settings, distance=counted)
    names = ["r"] + (["r_by_width", "r_by_size"] if experiment is SCALING else ["r_end"])
    assert counted.calls == len(plain.series("r")[0]) > 20
    for name in names:
        np.testing.assert_allclose(tripled.last(name), 3 * plain.last(name), rtol=1e-6)
    np.testing.assert_array_equal(plain.series("loss")[1], tripled.series("loss")[1])


def test_a_distance_from_the_origin_changes_d11() -> None:
    """A verdict that does not depend on the one step that the lesson is about."""
    settings = small("scaling", seeds=3, width=160, n=128, epochs=100)
    right = drain(SCALING, settings)
    assert stats.exponent(right.prediction["widths"], right.last("r_by_width")).max() < 0.2
    wrong = drain(SCALING, settings, distance=lambda now, start: shared.from_origin(now))
    assert verdict("D11", wrong).word == verdict("D14", wrong).word == "fails"
    np.testing.assert_array_equal(wrong.last("r_by_width"), wrong.last("origin_by_width"))


# Scaling.


@pytest.mark.parametrize(
    ("width", "widths"),
    [
        (16, (8, 16)), (40, (20, 40)), (80, (40, 80)), (100, (50, 100)), (113, (56, 113)),
        (114, (28, 57, 114)), (320, (40, 80, 160, 320)), (640, (40, 80, 160, 320, 640)),
        (1000, (31, 62, 125, 250, 500, 1000)), (1280, (40, 80, 160, 320, 640, 1280)),
        (5120, (40, 80, 160, 320, 640, 1280, 2560, 5120)),
    ],
)  # fmt: skip
def test_widths_go_by_octaves_from_about_forty(width: int, widths: tuple[int, ...]) -> None:
    """A ladder that leaves out the width that was asked for, or starts far from the paper's."""
    assert Scaling(width=width).widths == widths


@given(st.integers(16, 100_000), st.integers(64, 100_000))
def test_ladders_of_odd_values(width: int, n: int) -> None:
    """One width only, a width of no units, the same size twice."""
    settings = Scaling(width=width, n=n)
    assert len(settings.widths) >= 2 and settings.widths[-1] == width
    assert all(low == high // 2 > 0 for low, high in zip(settings.widths, settings.widths[1:], strict=False))
    assert width < 57 or 28 <= settings.widths[0] <= 57
    assert settings.sizes == (n // 8, n // 4, n // 2, n) and settings.sizes[0] >= 8


def test_scaling_starts_where_it_was_predicted() -> None:
    """The curve of the distance from the origin: exact in the mean, and never far from it."""
    run = quick("scaling")
    for job, predicted in enumerate(run.prediction["origin"]):
        first = next(f for f in run.frames if "job" in f.values and f.values["job"][0] == job)
        assert first.values["r"].tolist() == [0] * run.settings.seeds
        np.testing.assert_allclose(first.values["origin"], predicted, rtol=0.01)


def test_scaling_says_how_the_norms_grow() -> None:
    """The sheet: slope of r −.21 to −.28 (here −.19 on other images), in m .24 to .27."""
    run = quick("scaling")
    assert -0.3 < stats.exponent(run.prediction["widths"], run.last("r_by_width")).mean() < -0.15
    assert 0.23 < stats.exponent(run.prediction["sizes"], run.last("r_by_size")).mean() < 0.3
    assert verdict("D15", run).vacuous


def test_noise_on_the_weights_raises_the_training_error() -> None:
    """Levels of σ in the wrong order, noise that is scaled with the weight, training images for test ones."""
    rates, test = (quick("scaling").last(name) for name in ("noisy_error", "noisy_test_error"))
    for found in (rates, test):
        assert found.shape == (quick("scaling").settings.seeds, len(scaling_claims.SIGMAS))
        assert (found[:, -1] > 0.7).all() and (found <= 1).all()
        assert (np.diff(found, axis=1) > -0.05).all()
    assert (rates[:, 0] < 0.02).all() and (test[:, 0] > 0.05).all()


def test_a_wider_network_is_trained_to_the_same_loss() -> None:
    """A stop rule on a batch, or on another loss than the one that is minimised."""
    settings, counted = small("scaling", seeds=2, epochs=200, stop=0.02), Counted()
    run = drain(SCALING, settings, distance=counted)
    setup = SCALING.prepare(settings)
    assert (run.last("reached_by_width") == 1).all() and (run.last("reached_by_size") == 1).all()
    trained = [setup.jobs[job] for job in setup.trained]
    assert len(counted.ends) == len(trained) == 8
    np.testing.assert_array_equal(run.last("r_by_noise")[:, 0], run.last("r_by_size")[:, 3])
    for (phase, place, width, size, share), end in zip(trained, counted.ends, strict=True):
        for seed, one in enumerate(setup.sets[size, share]):
            net = shared.network(settings, setup.one.dim, width, seed, setup.one.classes)
            weights = {name: value[seed] for name, value in end.items()}
            losses = []
            for x, y in ((one.x_train, one.y_train), (one.x_test, one.y_test)):
                outputs = functional_call(net, weights, (x,)).detach().numpy()
                target = np.eye(10)[y.numpy()]
                losses.append(((outputs - target) ** 2).sum(1).mean() / 10)
            wrong = (outputs.argmax(1) != target.argmax(1)).mean()
            assert 0.005 < losses[0] < settings.stop
            suffix = scaling.PHASES[phase]
            assert run.last(f"gap_{suffix}")[seed, place] == pytest.approx(losses[1] - losses[0], rel=1e-4)
            assert run.last(f"error_{suffix}")[seed, place] == pytest.approx(wrong)


@pytest.mark.slow
def test_with_cross_entropy_the_exponent_in_m_leaves_the_interval() -> None:
    """The sheet: .11 to .12 with cross-entropy, outside the paper's .25 to .4; r still falls with
    the width, and ‖W‖ leaves the curve of the start.
    """
    run = drain(SCALING, SCALING.preset("cross-entropy", dataset="digits"))
    found = verdict("D12", run)
    assert found.word == "fails" and found.distance >= 3
    assert found.parts[0].measured[0] == pytest.approx(0.11, abs=0.03)
    assert verdict("D14", run).word == "fails"
    assert stats.exponent(run.prediction["widths"], run.last("r_by_width")).mean() < 0
    assert (run.last("reached_by_size") == 1).all()


@pytest.mark.parametrize(
    ("id", "name", "reached"),
    [
        ("D11", "scaling", "reached_by_width"), ("D12", "scaling", "reached_by_size"),
        ("D14", "scaling", "reached_by_width"), ("D15", "scaling", "reached_by_width"),
        ("D16", "scaling", "reached_by_width"), ("D20", "scaling", "reached_by_width"),
        ("D18", "scaling", "reached_by_noise"), ("D19", "scaling", "reached_by_size"),
        ("D21", "scaling", "reached_by_width"), ("D13", "noise", "reached"),
    ],
)  # fmt: skip
def test_a_missed_stop_decides_nothing(id: str, name: str, reached: str) -> None:
    """Distances compared at different losses: neither a confirmation nor a refutation."""
    for run in (quick(name), *(violate(quick(name)) for violate in VIOLATED[id])):
        one_missed = at_frame(run, reached, lambda v: np.where(np.arange(v.size).reshape(v.shape), v, 0))
        found = verdict(id, one_missed)
        assert found.word == "undecided" and {part.word for part in found.parts} == {"undecided"}
        assert "missed the stop rule: 1 > 0; raise epochs" in found.reason
    others = [claim.id for claim in run.experiment.claims if claim.id in ("D11", "D12") and claim.id != id]
    for other in others if id in ("D11", "D12") else ():
        missed = at_frame(quick(name), reached, np.zeros_like)
        assert verdict(other, missed).word == "holds"


def test_too_few_epochs_are_a_missed_stop() -> None:
    """`reached` that is true whatever happens, or false for a network that arrived."""
    for name, keys in (("scaling", ("reached_by_width", "reached_by_size")), ("noise", ("reached",))):
        experiment = load_lab("distance").experiment(name)
        short = drain(experiment, small(name, epochs=1, stop=0.01))
        assert all((short.last(key) == 0).all() for key in keys)
        assert {judge(claim, short).word for claim in experiment.claims} == {"undecided"}
        easy = drain(experiment, small(name, epochs=50, stop=0.2))
        assert all((easy.last(key) == 1).all() for key in keys)


def test_a_later_network_may_diverge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a ladder judged, or a note that does not say which width it was."""
    right = shared.network

    def large_if_wide(settings: Any, inputs: int, width: int, *rest: int) -> models.MLP:
        model = right(settings, inputs, width, *rest)
        with torch.no_grad():
            for p in model.parameters():
                p *= 30 if width == 80 else 1
        return model

    monkeypatch.setattr(shared, "network", large_if_wide)
    run = drain(SCALING, small("scaling"))
    assert np.isfinite(run.last("r_by_width")).tolist() == [[True, False]]
    assert run.status == "diverged" and run.frames[-1].note.startswith("H = 80: diverged at step")
    assert "stable" in run.frames[-1].note
    assert {word(claim, run) for claim in SCALING.claims} == {"undecided"}
    assert run.figure((run,)).png()[:4] == b"\x89PNG"


def test_scaling_draws_every_phase() -> None:
    """A panel that waits for the last network."""
    run = quick("scaling")
    jobs = np.array([frame.values.get("job", [-1])[0] for frame in run.frames])
    titles, earlier = [], []
    setup = SCALING.prepare(run.settings)
    assert sorted({*range(11)} - {*setup.trained}) == [7, 8] and {*setup.trained} == {*jobs} - {-1}
    for job in setup.trained:
        first = int(np.flatnonzero(jobs == job)[0])
        for end in (first + 1, first + 10):
            chart = SCALING.figure(run.frames[:end], run.prediction, run.settings)
            assert chart.png()[:4] == b"\x89PNG"
        titles.append(chart.panels[0].title.removeprefix("Distance, "))
        earlier.append(sum(mark.label == "networks before" for mark in chart.panels[0].marks))
        now = [mark for mark in chart.panels[0].marks if isinstance(mark, Measured)]
        assert len(now) == 1 and np.asarray(now[0].y).shape == (run.settings.seeds, 9)
        points = [mark for panel in chart.panels[1:] for mark in panel.marks if isinstance(mark, Points)]
        known = [np.isfinite(mark.y).all(axis=0).sum() for mark in points]
        assert known == [min(job, 4), min(job, 4), min(max(0, job - 4), 4), max(0, job - 8)]
    assert titles[:4] == ["H = 40", "H = 80", "H = 160", "H = 320"]
    assert titles[4:] == ["m = 64", "m = 128", "m = 256", "noise = 0.3", "noise = 0.6"]
    assert earlier == list(range(9))


@pytest.mark.parametrize("name", ["scaling", "noise"])
def test_a_partial_run_is_not_judged(name: str) -> None:
    """A verdict on half of the widths, or on one of two samples."""
    run = quick(name)
    whole = {"scaling": 4, "noise": 2}[name]
    which = np.array([frame.values.get("job", frame.values.get("which", [-1]))[0] for frame in run.frames])
    for part in range(whole):
        cut = int(np.flatnonzero(which == part)[-1])
        partial = replace(run, frames=run.frames[:cut])
        assert {word(claim, partial) for claim in run.experiment.claims} == {""}
    if name == "scaling":  # All widths are there, not all sample sizes.
        partial = replace(run, frames=run.frames[: int(np.flatnonzero(which == 6)[-1])])
        found = {claim.id: word(claim, partial) for claim in SCALING.claims}
        waiting = {"D12", "D18", "D19"}
        assert found == {claim.id: "" if claim.id in waiting else "holds" for claim in SCALING.claims}


@pytest.mark.parametrize(("labels", "classes"), [("classes", 10), ("parity", 2), ("pair", 2)])
def test_labels_are_what_they_are_called(labels: str, classes: int) -> None:
    """Test labels that are noisy, ±1 that is not half of each, images of a third class in a pair."""
    setup = SCALING.prepare(small("scaling", labels=labels, label_noise=1.0))
    clean, noisy = setup.sets[64, 0.0][0], setup.sets[64, 1.0][0]
    whole = labkit.load("digits", n_train=64, flatten=True, classes=2 if labels == "pair" else 10)
    expected = whole.y_train % 2 if labels == "parity" else whole.y_train
    assert clean.classes == classes == setup.one.classes
    assert torch.equal(clean.y_train, expected) and torch.equal(noisy.clean_train, expected)
    assert torch.equal(clean.y_test, noisy.y_test) and torch.equal(clean.x_train, noisy.x_train)
    assert abs(float((noisy.y_train == expected).double().mean()) - 1 / classes) < 0.2
    assert shared.outputs(setup.settings, classes) == (1 if classes == 2 else 10)


def test_one_output_errs_where_its_sign_does() -> None:
    """±1 compared with a class number, or the noise of the weights in the wires behind them."""
    settings = small("scaling", labels="parity", seeds=2)
    setup = SCALING.prepare(settings)
    sets = setup.sets[64, 0.0]
    ensemble = Ensemble([shared.network(settings, 64, 20, seed, 2) for seed in range(2)])
    found = scaling._generalization(ensemble, sets, "squared")
    for seed, one in enumerate(sets):
        model = ensemble.member(seed)
        f, sign = model(one.x_test)[:, 0].detach(), 2.0 * one.y_test - 1
        assert found["error"][seed] == pytest.approx(float((f * sign <= 0).double().mean()))
        train = float((model(one.x_train)[:, 0].detach() - 2.0 * one.y_train + 1).square().mean())
        assert found["gap"][seed] == pytest.approx(float((f - sign).square().mean()) - train, rel=1e-4)
        two = scaling._one_a_class(model, 2)
        assert torch.equal(two(one.x_test).argmax(1), (f > 0).long())
        assert sum(p.numel() for p in two.parameters() if p.requires_grad) == sum(
            p.numel() for p in model.parameters()
        )


def test_products_are_those_of_the_weights() -> None:
    """A bias among the factors, a power of H too many, r of another copy."""
    nets, starts = ([models.mlp(5, 7, 2, 3, seed=s + more) for s in range(2)] for more in (0, 9))
    r = np.array([0.5, 2.0])
    found = scaling._products(Ensemble(nets), Ensemble(starts).weights(), r)
    for seed, (net, start) in enumerate(zip(nets, starts, strict=True)):
        spectral, other = (
            [np.linalg.svd(layer.weight.detach().double().numpy())[1][0] for layer in one.layers]
            for one in (net, start)
        )
        frobenius = math.prod(float((layer.weight.detach() ** 2).sum()) for layer in net.layers)
        assert found["spectral"][seed] == pytest.approx(math.prod(spectral), rel=1e-6)
        assert found["frobenius"][seed] == pytest.approx(frobenius, rel=1e-5)
        assert found["prefixed"][seed] == pytest.approx(49 * math.prod(spectral), rel=1e-6)
        assert found["with_r"][seed] == pytest.approx(math.prod(z + r[seed] for z in other), rel=1e-6)


def test_from_another_start_the_distance_grows_with_the_width() -> None:
    """One click: nothing is trained anew, r jumps to √2 ‖Z‖, and D11 turns."""
    settings = small("scaling", seeds=3)
    own, another = (drain(SCALING, settings.replace(start=start)) for start in ("own", "another"))
    np.testing.assert_array_equal(own.last("other_by_width"), another.last("r_by_width"))
    np.testing.assert_array_equal(own.last("gap_by_noise"), another.last("gap_by_noise"))
    assert (another.last("r_by_width") > 5 * own.last("r_by_width")).all()
    expected = math.sqrt(2) * own.prediction["origin"]
    np.testing.assert_allclose(another.last("r_by_width"), np.tile(expected, (3, 1)), rtol=0.1)
    assert verdict("D11", another).word == "fails" and verdict("D20", another).word == "fails"


def test_the_figures_of_a_finished_run_say_what_the_claims_measure() -> None:
    """A number under another's name, panels that are not in the order of the ranking."""
    run = quick("scaling")
    titles = [panel.title for panel in which_number(run).panels]
    assert titles[0].startswith("r: correlation 0.") and "± 0." in titles[0]
    assert len(titles) == 4 and all("−" in title for title in titles[1:])
    growth, looser = over_width(run).panels
    labels = [mark.label for mark in growth.marks]
    assert labels[1].startswith("∏(‖Z‖₂ + r), Prop. 6.2 ∝ H^−0.6") and labels[2].startswith("∏‖W‖_F² ∝ H^3.")
    assert all((np.asarray(mark.y) >= 1 - 1e-9).all() for mark in looser.marks)


# Noise.


def test_all_shares_start_from_the_same_weights() -> None:
    """Another draw of Z for another share of noise: the shares must differ in their labels alone."""
    counted = Counted()
    drain(NOISE, small("noise", seeds=2, epochs=1), distance=counted)
    assert len(counted.starts) == 2  # the two sample sizes
    for name in counted.starts[0]:
        smaller, larger = (start[name].unflatten(0, (2, 5)) for start in counted.starts)
        assert torch.equal(smaller, larger)
        assert torch.equal(smaller, smaller[:, :1].expand_as(smaller))
        assert name.endswith("bias") or not torch.equal(smaller[0, 0], smaller[1, 0])


def test_shares_differ_in_their_labels_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """An order of minibatches of its own for each share: with no noise at all, all five must be one."""
    monkeypatch.setattr(noise, "SHARES", (0.0,) * 5)
    r = drain(NOISE, small("noise", seeds=2, epochs=4)).last("r_end")
    np.testing.assert_allclose(r, np.broadcast_to(r[:, :, :1], r.shape), rtol=1e-4)
    assert r[0, 1, 0] != pytest.approx(r[1, 1, 0], rel=1e-3)


@pytest.mark.parametrize("kind", ["redraw", "strict"])
def test_noise_changes_as_many_labels_as_predicted(kind: str) -> None:
    """A redraw counted as if it never hit the old label."""
    setup = NOISE.prepare(Noise(noise_kind=kind, n=1400))
    predicted = NOISE.predict(setup)["changed"]
    for sets in setup.sets:
        labels = torch.stack([one.y_train for one in sets]).unflatten(0, (3, 5))
        inputs = torch.stack([one.x_train for one in sets]).unflatten(0, (3, 5))
        assert torch.equal(inputs, inputs[:, :1].expand_as(inputs))
        found = (labels != labels[:, :1]).double().mean((0, 2)).numpy()
        np.testing.assert_allclose(found, predicted, atol=3 * 0.5 / math.sqrt(3 * labels.shape[2]))


def test_the_two_samples() -> None:
    """Thirty per cent and the whole; never an empty one."""
    assert Noise().sizes == (300, 1000)
    assert Noise(n=40).sizes == (12, 40)
    assert all(0 < Noise(n=n).sizes[0] < n for n in range(40, 200))


def test_noise_draws_both_samples() -> None:
    """A figure that mixes the curves of the two samples, or shows points before they are there."""
    run = quick("noise")
    which = np.array([frame.values.get("which", [-1])[0] for frame in run.frames])
    for part, size in enumerate(("m = 300", "m = 1000")):
        first, end = np.flatnonzero(which == part)[[0, -1]]
        for cut in (first + 1, (first + end) // 2, end + 1):
            chart = NOISE.figure(run.frames[:cut], run.prediction, run.settings)
            assert chart.png()[:4] == b"\x89PNG"
            assert chart.panels[0].title.endswith(size)
            known = [np.isfinite(m.y).all() for m in chart.panels[1].marks if isinstance(m, Points)]
            assert known == [cut == end + 1 or part == 1, cut == end + 1 and part == 1]


# Bounds.


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_gradient_norms_are_those_of_automatic_differentiation(depth: int) -> None:
    """A layer left out, biases counted, the input of another layer, outputs added up."""
    model = models.mlp(6, 8, depth, 4, seed=depth, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in model.layers:
            layer.bias.copy_(0.2 * torch.randn(layer.bias.shape, generator=generator, dtype=torch.float64))
    x = torch.randn(9, 6, generator=generator, dtype=torch.float64)
    weights = {name: p.detach() for name, p in model.named_parameters() if name.endswith("weight")}
    biases = {name: p.detach() for name, p in model.named_parameters() if name.endswith("bias")}
    jacobian = jacrev(lambda own: functional_call(model, own | biases, (x,)))(weights)
    assert len(jacobian) == depth + 1
    expected = sum(part.flatten(2).square().sum(2) for part in jacobian.values()).sqrt()
    outputs, gradients = bounds.gradient_norms(model, x)
    assert gradients.shape == (9, 4)
    torch.testing.assert_close(gradients, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(outputs, model(x).detach().norm(dim=1), rtol=1e-12, atol=0)
    assert all(p.grad is None for p in model.parameters())


def test_spectral_norms_are_those_of_numpy() -> None:
    """Frobenius norms, or single precision."""
    model = models.mlp(12, 30, 2, 5, seed=3)
    expected = [np.linalg.svd(layer.weight.detach().numpy().astype(float))[1][0] for layer in model.layers]
    np.testing.assert_allclose(shared.spectral_norms(model.layers), expected, rtol=1e-12)


def test_the_frames_of_bounds_are_what_the_weights_say() -> None:
    """A level of another frame, r of one layer, a bound at another point than the output beside it."""
    settings = small("bounds", seeds=2)
    setup = BOUNDS.prepare(settings)
    run = drain(BOUNDS, settings)
    trained = {}

    def look(ensemble: Ensemble) -> np.ndarray:
        trained["weights"] = [ensemble.member(seed).double() for seed in range(2)]
        return np.zeros(2)

    for _ in shared.fit(settings, Ensemble(setup.models), setup.sets, measure={"look": look}, measured=12):
        pass
    for seed, (now, start) in enumerate(zip(trained["weights"], setup.models, strict=True)):
        moved = [(a.weight - b.weight).detach().norm() for a, b in zip(now.layers, start.layers, strict=True)]
        flat = [torch.cat([p.detach().double().flatten() for p in m.parameters()]) for m in (now, start)]
        r = float((flat[0] - flat[1]).norm())
        z = [float(torch.linalg.matrix_norm(layer.weight.detach().double(), 2)) for layer in start.layers]
        w = [float(torch.linalg.matrix_norm(layer.weight.detach(), 2)) for layer in now.layers]
        assert run.last("r")[seed] == pytest.approx(r, rel=1e-5)
        assert run.last("product")[seed] == pytest.approx(math.prod(w), rel=1e-9)
        layerwise = math.prod(a + float(b) for a, b in zip(z, moved, strict=True))
        assert run.last("layerwise")[seed] == pytest.approx(layerwise, rel=1e-9)
        assert run.last("with_r")[seed] == pytest.approx(math.prod(a + r for a in z), rel=1e-5)
        one = setup.sets[seed]
        points = torch.cat([one.x_train, one.x_test])
        assert torch.equal(points, setup.points[seed]) and len(one.x_test) == bounds.POINTS
        best = (-1.0, 0.0)
        for x in points.double():
            reached = float(x.norm())
            for norm in z:
                reached = (norm + r) * reached + r
            output = float(now(x[None]).detach().norm())
            best = max(best, (output / reached, output))
        assert run.last("output")[seed] == pytest.approx(best[1], rel=1e-6)
        assert run.last("output_bound")[seed] == pytest.approx(best[1] / best[0], rel=1e-4)


def test_the_product_starts_where_shapes_and_deviations_put_it() -> None:
    """The dotted line of the figure: an upper bound in the mean, near at this width."""
    run = quick("bounds")
    product = run.series("product")[1]
    share = product / run.prediction["product"]
    assert (share[0] > 0.8).all() and (share[0] < 1).all() and (share[-1] < 1.5).all()
    np.testing.assert_allclose(run.series("with_r")[1][0], product[0], rtol=1e-12)


def test_bounds_hold_for_all_networks_and_losses() -> None:
    """An inequality that holds at the quick preset only."""
    for changes in (
        {"depth": 1}, {"depth": 5, "init": "lecun"}, {"loss": "cross-entropy"}, {"label_noise": 1.0},
        {"init": "inverse-sqrt-width"}, {"n": 10}, {"width": 3},
    ):  # fmt: skip
        run = drain(BOUNDS, small("bounds", seeds=2, **changes))
        assert {judge(claim, run).word for claim in BOUNDS.claims} == {"holds"}, changes


def test_a_dead_network_is_within_its_bounds() -> None:
    """A division by the gradient of a network that has none, as after a step that kills all units."""
    run = at_frame(quick("bounds"), "gradient", np.zeros_like)
    found = verdict("D9", run)
    assert found.word == "holds" and "at the end inf times" in found.notes
    assert run.figure((run,)).png()[:4] == b"\x89PNG"


def test_bounds_draw_from_the_first_frame_on() -> None:
    """Step 0 lost on a logarithmic axis, a bound without its curve."""
    run = quick("bounds")
    for cut in (1, 2, len(run.frames) // 2):
        chart = BOUNDS.figure(run.frames[:cut], run.prediction, run.settings)
        assert chart.png()[:4] == b"\x89PNG"
        for panel in chart.panels[1:]:
            (bound,) = (mark for mark in panel.marks if isinstance(mark, Bound))
            assert len(bound.x) == cut and bound.x[0] == 0.5


def test_a_data_set_that_is_too_small_is_named() -> None:
    """More samples asked for than there are, found out in the middle of a run."""
    for experiment, n in ((SCALING, 2048), (NOISE, 5000), (BOUNDS, 2000)):
        with pytest.raises(ValueError, match=r"^n=\d+: there are only 1438"):
            experiment.prepare(experiment.preset(n=n, dataset="digits"))


def test_a_setup_can_be_run_twice() -> None:
    """A run that trains what `prepare` made."""
    for experiment in EXPERIMENTS:
        settings = small(experiment.name, epochs=2)
        setup = experiment.prepare(settings)
        prediction = experiment.predict(setup)
        frames = [tuple(experiment.run(setup, prediction)) for _ in range(2)]
        first, second = (
            Run(experiment, settings, prediction, tuple(frame for frame in these if not frame.is_tick))
            for these in frames
        )
        assert equal(values(first), values(second))
