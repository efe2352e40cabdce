"""Lab 3, landscape and noise (S6, S9, S10, S11, S13): decided as expected at quick, and each can fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from labkit.labs.sgd import shared
from labkit.labs.sgd.flatness import FLATNESS, TABLE_1
from labkit.labs.sgd.interpolation import INTERPOLATION, both
from labkit.labs.sgd.margins import MARGINS
from labkit.labs.sgd.noise import LEVEL, NOISE
from labkit.labs.sgd.robustness import ROBUSTNESS, borne
from labkit.measure.flatness import first_crossing
from labkit.measure.gradient_noise import noise_factor, noise_variance
from labkit.measure.interpolation import simplex
from labkit.protocol.claims import judge
from labkit.protocol.experiment import Run, drain
from tests.labs.checks import (
    Change,
    TrainingTests,
    at_frame,
    changed,
    constant,
    quick_runs,
    verdict,
)

EXPERIMENTS = (NOISE, FLATNESS, INTERPOLATION, MARGINS, ROBUSTNESS)
TINY = {"n": 60, "width": 10, "stop": 0.05, "epochs": 200}
CHEAP: dict[str, dict[str, Any]] = {
    "noise": {"n": 128, "width": 8, "draws": 40, "batch_size": 16, "lr": 0.02, "epochs": 200},
    "flatness": TINY | {"directions": 2},
    "interpolation": TINY | {"resolution": 4},
    "margins": TINY,
    "robustness": TINY | {"draws": 2},
}
FITTED = {"width": 30, "stop": 0.005, "epochs": 2000}
quick = quick_runs(EXPERIMENTS)


def flipped(axis: int) -> Change:
    """Natural and random labels (axis 1), or the two starts (axis 2), taken for each other."""
    return lambda v: np.flip(v, axis)


def of_place(which: int, change: Change) -> Change:
    """A change of the radii of all weights (0) or of the top layer (1)."""

    def change_one(radii: np.ndarray) -> np.ndarray:
        radii = radii.copy()
        radii[:, :, which] = change(radii[:, :, which])
        return radii

    return change_one


def with_an_error(error: np.ndarray) -> np.ndarray:
    error = error.copy()
    error[1, 0, 0] = 0.01
    return error


VIOLATED = {
    # Refuted as it stands; that each part can hold and fail by itself has a test of its own.
    "S6": [lambda run: run, lambda run: changed(run, rejected=constant(0.5), participation=constant(10))],
    "S9": [
        lambda run: changed(run, radii=flipped(1)),
        lambda run: changed(run, radii=of_place(0, flipped(1))),
        lambda run: changed(run, radii=of_place(1, flipped(1))),
    ],
    "S10": [
        lambda run: changed(run, area=flipped(1)),
        lambda run: changed(run, near=flipped(1)),
        lambda run: changed(run, area=lambda v: 0.5 + 0.01 * v),
    ],
    "S11": [
        lambda run: changed(run, normalized=flipped(1)),
        lambda run: changed(run, normalized=flipped(2)),
        lambda run: changed(run, fan_in=flipped(1)),
        lambda run: changed(run, fan_in=flipped(2)),
    ],
    "S13": [
        lambda run: changed(run, error=flipped(1)),
        lambda run: changed(run, error=with_an_error),
    ],
}


class TestLandscape(TrainingTests):
    lab = "sgd"
    experiments = EXPERIMENTS
    quick = staticmethod(quick)
    violated = VIOLATED
    cheap = CHEAP
    too_fast = {name: settings | {"lr": 100.0, "seeds": 2} for name, settings in CHEAP.items()}

    def test_an_unreached_loss_leaves_the_claim_undecided(self, name: str) -> None:
        """Networks compared at different losses."""
        claim = self.experiment(name).claims[0]
        run = drain(self.experiment(name), self.small(name, seeds=2, epochs=1))
        found = judge(claim, run)
        assert found.word == "undecided" and "epochs" in found.note
        assert "not reached" in run.frames[-1].note

    def test_half_a_run_is_not_judged(self, name: str) -> None:
        """A verdict on natural labels alone, or on the early phase."""
        run, claim = quick(name), self.experiment(name).claims[0]
        half = Run(run.experiment, run.settings, run.prediction, run.frames[:1])
        with pytest.raises(ValueError, match="yet"):
            judge(claim, half)


# S6: each part by itself.


def isotropic(
    gradients: Tensor, batch_size: int, draws: int, *, replacement: bool, generator: torch.Generator
) -> Tensor:
    """What Langevin's equation takes: Gaussian, alike in every direction, of the right total variance."""
    p = gradients.shape[1]
    factor = noise_factor(len(gradients), batch_size, replacement=replacement)
    deviation = float(noise_variance(gradients).mean() * factor) ** 0.5
    return deviation * torch.randn(draws, p, generator=generator)


def test_langevin_noise_would_hold() -> None:
    """A verdict that no noise could pass, as estimates without a correction for few draws would give."""
    settings = NOISE.preset(n=200, width=20, draws=150, lr=0.02, batch_size=16)
    run = drain(NOISE, settings, noise=isotropic)
    found = verdict("S6", run)
    assert found.parts == ("holds", "holds", "holds"), found.note
    np.testing.assert_allclose(run.last("rejected"), LEVEL, atol=0.025)
    np.testing.assert_allclose(run.last("participation"), float(run.prediction["weights"]), rtol=0.1)


@pytest.mark.parametrize(
    ("part", "name", "change"),
    [
        (0, "rejected", constant(0.06)),
        (1, "participation", constant(9010)),
    ],
)
def test_a_part_of_s6_can_hold_alone(part: int, name: str, change: Change) -> None:
    """Parts that are tied together."""
    before, after = verdict("S6", quick("noise")), verdict("S6", changed(quick("noise"), **{name: change}))
    assert before.parts == ("fails", "fails", "holds")
    expected = ["fails", "fails", "holds"]
    expected[part] = "holds"
    assert list(after.parts) == expected


def test_another_power_of_b_fails_the_scaling() -> None:
    """1/sqrt(B) noise, or a covariance that the batch size leaves alone."""
    run = quick("noise")
    for power in (0.5, 1.0, -0.5):
        scale = run.prediction["sizes"] ** power
        tilted = changed(run, scaled=lambda v, scale=scale: v * scale)
        assert verdict("S6", tilted).parts[2] == "fails"


def test_noise_numbers_are_those_of_the_sheet() -> None:
    """More rejections and fewer directions as training goes on; the exact covariance at every batch size."""
    run = quick("noise")
    rejected, filled = run.last("rejected").mean(axis=0), run.last("participation").mean(axis=0)
    assert 0.2 < rejected[0] < rejected[1] < rejected[2] < 0.9
    assert 60 > filled[0] > filled[1] > filled[2] > 10
    np.testing.assert_allclose(run.last("scaled").mean(axis=(0, 1)), run.prediction["factor"], rtol=0.1)


def test_a_batch_of_more_than_half_the_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size must be at most n / 2 = 100; got 128"):
        NOISE.preset(n=200, batch_size=128)


# S9.


def test_radii_are_of_the_size_on_the_sheet() -> None:
    """Half of the natural radius for random labels (18.8 against 8.7 there), and another after rescaling."""
    run = quick("flatness")
    ratio = run.last("radii").mean(axis=-1)
    assert 1.7 < (ratio[:, 0, 0] / ratio[:, 1, 0]).mean() < 2.6
    assert 1.2 < (ratio[:, 0, 1] / ratio[:, 1, 1]).mean() < 2.2
    # The same functions: natural labels now look sharper than random ones did.
    assert (run.last("rescaled")[:, 0] < ratio[:, 1, 0]).all()
    assert (run.last("same") < 1e-4).all()
    np.testing.assert_allclose(run.prediction["table"][:, 0], [45.4 / 6.9, 15.0 / 3.0])
    assert TABLE_1.shape == (2, 2, 2)


def test_a_notebooks_own_radius_is_what_is_measured() -> None:
    """A visible step that is ignored."""
    settings = FLATNESS.preset(**CHEAP["flatness"], seeds=2)
    plain = drain(FLATNESS, settings)
    tripled = drain(FLATNESS, settings, radius=lambda *given: 3 * first_crossing(*given))
    for name in ("radii", "rescaled"):
        np.testing.assert_allclose(tripled.last(name), 3 * plain.last(name))
    np.testing.assert_array_equal(plain.last("profile"), tripled.last("profile"))


def test_a_radius_that_is_always_the_same_decides_nothing() -> None:
    """A claim that holds whatever the radii are."""
    settings = FLATNESS.preset(**CHEAP["flatness"] | FITTED, seeds=3)
    found = verdict("S9", drain(FLATNESS, settings, radius=lambda *given: 1.0))
    assert found.parts[:2] == ("undecided", "undecided") and "straddles" in found.note


def test_without_noise_on_the_labels_nothing_differs() -> None:
    """Kinds that differ in more than their labels."""
    run = drain(FLATNESS, FLATNESS.preset(**CHEAP["flatness"] | FITTED, label_noise=0.0))
    np.testing.assert_array_equal(run.last("radii")[:, 0], run.last("radii")[:, 1])
    found = verdict("S9", run)
    assert found.word == "undecided" and "straddles" in found.note


def test_walks_that_never_end_are_no_measurement() -> None:
    run = changed(quick("flatness"), capped=constant(0.5))
    assert verdict("S9", run).word == "undecided"


def test_a_rescaling_that_changed_the_function_is_no_measurement() -> None:
    found = verdict("S9", at_frame(quick("flatness"), "same", constant(0.1)))
    assert found.word == "undecided" and "rescale less" in found.note


# S10.


def test_minima_of_one_start_are_joined_for_both_kinds() -> None:
    """What the picture depends on: with one start the triangle of random labels is a plateau too."""
    settings = INTERPOLATION.preset(n=200, width=60, starts="one start", stop=0.01)
    run = drain(INTERPOLATION, settings)
    assert run.last("area").min() > 0.9
    assert verdict("S10", run).word == "fails"


def test_both_triangles_stand_in_one_picture() -> None:
    """A triangle over the other, or a minimum at the wrong corner."""
    points = simplex(3)[0].numpy()
    values = np.stack([10 + points @ [1, 2, 3], 20 + points @ [1, 2, 3]])
    grid = both(points, values)
    assert grid.shape == (5, 5) and np.isnan(grid.diagonal()).all()
    assert np.isfinite(grid).sum() == 20
    assert (grid[4, 0], grid[1, 0], grid[4, 3]) == (11, 12, 13)
    assert (grid[0, 4], grid[3, 4], grid[0, 1]) == (21, 22, 23)


# S11 and S13.


def test_raw_margins_are_fixed_by_the_loss() -> None:
    """What the claim does not say: small raw margins are larger for random labels, and for a larger start
    the mean raw margin of natural labels is larger too."""
    run = quick("margins")
    low, mean = run.last("low"), run.last("margin")
    assert (low[:, 0] < low[:, 1]).all() and (mean[:, 0, 1] > mean[:, 0, 0]).all()
    assert (mean[:, 0] > mean[:, 1]).all()
    assert float(run.prediction["margin"]) == pytest.approx(np.log(9 / (np.exp(0.01) - 1)))


def test_the_larger_start_is_larger_by_its_factor() -> None:
    start = quick("margins").prediction["start"]
    np.testing.assert_allclose(start[:, 1], 3 * start[:, 0], rtol=1e-6)


def test_the_noise_that_is_borne_is_read_off_between_points() -> None:
    gammas = np.array([0.0, 1.0, 2.0, 4.0])
    error = np.array([[0.0, 0.25, 0.75, 0.8], [0.0, 0.1, 0.2, 0.3], [0.0, 0.5, 0.2, 0.9]])
    np.testing.assert_allclose(borne(gammas, error), [1.5, np.nan, 1.0])


def test_random_labels_are_lost_much_sooner() -> None:
    """The paper: slightly. Here a third of the noise."""
    run = quick("robustness")
    at = borne(run.prediction["gammas"], run.last("error"))
    assert (at[:, 1] < at[:, 0] / 2).all()
    assert (np.diff(run.last("error"), axis=-1) > -0.02).all()


# Shared.


def test_all_kinds_of_labels_start_alike() -> None:
    """Natural and random labels on other images, or labels of another share."""
    setup = shared.prepare(FLATNESS.preset(**CHEAP["flatness"]))
    for natural, random in zip(*setup.sets, strict=True):
        assert torch.equal(natural.x_train, random.x_train) and torch.equal(natural.x_test, random.x_test)
        assert torch.equal(natural.y_train, natural.clean_train)
        assert 0.75 < float(random.noisy.double().mean()) <= 1.0


def test_fit_leaves_the_networks_it_was_given() -> None:
    """Random labels trained from the weights that natural labels left behind."""
    settings = FLATNESS.preset(**CHEAP["flatness"], seeds=2)
    setup = FLATNESS.prepare(settings)
    before = [p.clone() for net in setup.starts for p in net.parameters()]
    frames = shared.fit(settings, setup.starts, setup.sets[0], span=(0.2, 0.4))
    seen = []
    try:
        while True:
            seen.append(next(frames))
    except StopIteration as end:
        found = end.value
    assert found.word == "done" and len(found.models) == 2
    assert all(0.2 <= frame.progress <= 0.4 for frame in seen)
    after = [p for net in setup.starts for p in net.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    loss, _ = shared.fitted(found.models[0], setup.sets[0][0].x_train, setup.sets[0][0].y_train)
    assert loss < 1.02 * settings.stop
