"""Lab 3, landscape and noise (S6, S9 to S11, S13, S16, S19, S20, S24): each is decided, and can fail."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from labkit import models
from labkit.labs import common
from labkit.labs.sgd import shared
from labkit.labs.sgd.flatness import FLATNESS, TABLE_1, balanced
from labkit.labs.sgd.interpolation import INTERPOLATION, both
from labkit.labs.sgd.margins import MARGINS
from labkit.labs.sgd.noise import KURTOSIS, NOISE, SKEW, isotropic
from labkit.labs.sgd.robustness import ROBUSTNESS
from labkit.labs.sgd.selection import SELECTION
from labkit.measure.flatness import first_crossing
from labkit.measure.gradient_noise import gradient_noise
from labkit.measure.interpolation import simplex
from labkit.protocol.experiment import Run, drain
from labkit.protocol.judging import judge
from labkit.protocol.statistics import crossing
from tests.labs.checks import (
    Change,
    TrainingTests,
    at_frame,
    changed,
    constant,
    quick_runs,
    same,
    verdict,
)

EXPERIMENTS = (NOISE, FLATNESS, INTERPOLATION, MARGINS, ROBUSTNESS, SELECTION)
TINY = {"n": 60, "width": 10, "stop": 0.05, "epochs": 200}
CHEAP: dict[str, dict[str, Any]] = {
    "noise": {"n": 128, "width": 8, "draws": 40, "batch_size": 16, "lr": 0.02, "epochs": 200},
    "flatness": TINY | {"directions": 2},
    "interpolation": TINY | {"resolution": 4},
    "margins": TINY,
    "robustness": TINY | {"draws": 2},
    "selection": TINY | {"directions": 2, "smallest": 16},
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


VIOLATED = {
    # Refuted as it stands; that each part can hold and fail by itself has a test of its own.
    "S6": [
        same,
        lambda run: changed(run, skew=constant(1), kurtosis=constant(3), participation=constant(10)),
    ],
    "S9": [
        lambda run: changed(run, radii=flipped(1)),
        lambda run: changed(run, radii=of_place(0, flipped(1))),
        lambda run: changed(run, radii=of_place(1, flipped(1))),
        # A measure that rescaling leaves alone.
        lambda run: changed(run, rescaled=lambda v: run.last("radii")[:, :, 0].mean(-1)),
    ],
    "S10": [
        lambda run: changed(run, area=flipped(1)),
        lambda run: changed(run, area=lambda v: 0.5 + 0.01 * v),
    ],
    "S11": [
        lambda run: changed(run, normalized=flipped(1)),
        lambda run: changed(run, normalized=flipped(2)),
        lambda run: changed(run, fan_in=flipped(1)),
        lambda run: changed(run, fan_in=flipped(2)),
    ],
    "S13": [lambda run: changed(run, error=flipped(1))],
    "S20": [same],
    "S24": [
        lambda run: changed(run, balanced=flipped(1)),
        # A balance that remembers what it was rescaled by.
        lambda run: changed(run, balanced=lambda v: v * np.array([1.0, 1.05])),
        lambda run: changed(run, rescaled=lambda v: 3 * v),
    ],
    "S16": [same, lambda run: changed(run, by_weights=lambda v: 0.8 * run.last("error"))],
    "S19": [same, lambda run: changed(run, margin=flipped(1))],
}


class TestLandscape(TrainingTests):
    lab = "sgd"
    experiments = EXPERIMENTS
    quick = staticmethod(quick)
    violated = VIOLATED
    # Where nothing depends on how far training gets.
    cheap = {name: settings | {"width": 6, "stop": 0.5} for name, settings in CHEAP.items()} | {
        "noise": CHEAP["noise"] | {"draws": 20, "epochs": 20}
    }
    too_fast = {name: settings | {"lr": 100.0, "seeds": 2} for name, settings in CHEAP.items()}

    def test_an_unreached_loss_leaves_the_claim_undecided(self, name: str) -> None:
        """Networks compared at different losses."""
        run = drain(self.experiment(name), self.small(name, seeds=2, epochs=1))
        for claim in self.experiment(name).claims:
            found = judge(claim, run)
            assert found.word == "undecided" and "epochs" in found.reason
        assert "not reached" in run.frames[-1].note

    def test_half_a_run_is_not_judged(self, name: str) -> None:
        """A verdict on natural labels alone, or on the early phase."""
        run = quick(name)
        half = Run(run.experiment, run.settings, run.prediction, run.frames[:1])
        for claim in self.experiment(name).claims:
            with pytest.raises(ValueError, match="yet"):
                judge(claim, half)


# S6: each part by itself.


@pytest.mark.slow
def test_langevin_noise_would_hold() -> None:
    """A verdict that no noise could pass, as estimates without a correction for few draws would give."""
    settings = NOISE.preset(n=600, width=6, draws=150, batch_size=16, epochs=3000)
    run = drain(NOISE, settings, noise=isotropic(gradient_noise))
    found = verdict("S6", run)
    assert [part.word for part in found.parts] == ["holds"] * 4, found.notes
    np.testing.assert_allclose(run.last("participation"), float(run.prediction["weights"]), rtol=0.1)
    assert run.last("skew").max() < SKEW / 2 and np.abs(run.last("kurtosis")).max() < KURTOSIS / 4


def test_more_weights_than_samples_cannot_be_filled() -> None:
    """Isotropy denied to a network whose samples could not show it."""
    run = quick("noise")
    found = verdict("S6", changed(run, prediction_weights=constant(run.settings.n)))
    assert found.parts[2].word == "out of regime"


@pytest.mark.parametrize(
    ("part", "good", "bad"),
    [
        (0, {"skew": constant(0.4)}, {"skew": constant(0.6)}),
        (1, {"kurtosis": constant(0.9)}, {"kurtosis": constant(1.1)}),
        (2, {"participation": lambda v: 0 * v + 0.6 * float(quick("noise").prediction["weights"])}, {}),
        (3, {}, {"scaled": lambda v: 1.3 * v}),
        (3, {}, {"scaled": lambda v: v * quick("noise").prediction["sizes"] ** 0.5}),
    ],
)
def test_each_part_of_s6_can_hold_and_fail(
    part: int, good: dict[str, Change], bad: dict[str, Change]
) -> None:
    """Parts that are tied together; 1/√B noise, or a covariance that the batch size leaves alone."""
    for word, changes in (("holds", good), ("fails", bad)):
        assert verdict("S6", changed(quick("noise"), **changes)).parts[part].word == word


def test_tails_grow_and_directions_go_as_training_goes_on() -> None:
    """A phase taken for another; the exact covariance at every batch size."""
    run = quick("noise")
    tails, filled = run.last("kurtosis").mean(axis=0), run.last("participation").mean(axis=0)
    assert tails[0] < tails[1] < tails[2] and filled[0] > filled[2]
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
    assert [part.word for part in found.parts] == ["fails", "fails"]


def test_without_noise_on_the_labels_nothing_differs() -> None:
    """Kinds that differ in more than their labels."""
    run = drain(FLATNESS, FLATNESS.preset(**CHEAP["flatness"] | FITTED, label_noise=0.0))
    np.testing.assert_array_equal(run.last("radii")[:, 0], run.last("radii")[:, 1])
    assert verdict("S9", run).parts[0].word == "fails"


def test_walks_that_never_end_are_no_measurement() -> None:
    run = changed(quick("flatness"), capped=constant(0.5))
    assert verdict("S9", run).word == "undecided"


def test_a_rescaling_that_changed_the_function_is_no_measurement() -> None:
    found = verdict("S9", at_frame(quick("flatness"), "same", constant(0.1)))
    assert found.word == "undecided" and "rescale less" in found.reason


# S24.


@pytest.mark.parametrize("depth", [1, 2])
def test_a_balanced_network_has_one_form_whatever_it_was_rescaled_by(depth: int) -> None:
    """A bias that is left out, or layers that unbalance each other; another function."""
    model = models.mlp(6, 5, depth, 3, seed=0)
    with torch.no_grad():
        for layer in model.layers:
            layer.bias.normal_(generator=torch.Generator().manual_seed(1))
    other = models.rescale_nodes(model, generator=torch.Generator().manual_seed(2))
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(3))
    one, two = balanced(model), balanced(other)
    torch.testing.assert_close(one(x), model(x), rtol=1e-4, atol=1e-5)
    for into, out, same_layer in zip(one.layers[:-1], one.layers[1:], two.layers[:-1], strict=True):
        norm = torch.cat([into.weight, into.bias[:, None]], dim=1).norm(dim=1)
        torch.testing.assert_close(norm, out.weight.norm(dim=0), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(into.weight, same_layer.weight, rtol=1e-3, atol=1e-4)


# S20.


def test_each_part_of_what_noise_selects_can_hold_and_fail() -> None:
    """A verdict whose word is the same whatever one of the four numbers is."""
    run = quick("selection")
    few = {"radius": 1.5, "normalized": 1.5, "norm": 0.9}
    chosen = changed(
        run,
        **{name: (lambda v, f=f: np.hstack([v[:, :1], f * v[:, :1].repeat(3, 1), v[:, 4:]]))
           for name, f in few.items()},
        test_error=lambda v: v - 0.03 * np.array([0, 1, 1, 1, 0]),
    )  # fmt: skip
    assert verdict("S20", chosen).word == "holds"
    for part, name in enumerate((*few, "test_error")):
        back = changed(chosen, **{name: lambda v: v[:, [0, 0, 0, 0, 4]]})
        assert [p.word for p in verdict("S20", back).parts].index("fails") == part
    apart = changed(run, loss=lambda v: v * np.array([1, 1, 1, 0.7, 1]))
    assert verdict("S20", apart).word == "undecided"


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


def test_functional_margins_do_not_tell_the_starts_apart_as_the_paper_has_it() -> None:
    """A claim that fails in the part that holds."""
    run = quick("margins")
    assert [part.word for part in verdict("S19", run).parts] == ["holds", "fails"]
    assert (run.last("margin")[:, 0, 1] > run.last("margin")[:, 0, 0]).all()
    assert float(run.prediction["margin"]) == pytest.approx(np.log(9 / (np.exp(0.01) - 1)))


def test_the_larger_start_is_larger_by_its_factor() -> None:
    start = quick("margins").prediction["start"]
    np.testing.assert_allclose(start[:, 1], 3 * start[:, 0], rtol=1e-6)


def test_random_labels_are_lost_much_sooner() -> None:
    """The paper: slightly. Here a third of the noise."""
    run = quick("robustness")
    at = crossing(run.prediction["gammas"], run.last("error"), 0.5)
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


def test_a_training_leaves_the_networks_it_was_given() -> None:
    """Random labels trained from the weights that natural labels left behind."""
    settings = FLATNESS.preset(**CHEAP["flatness"], seeds=2)
    setup = FLATNESS.prepare(settings)
    before = [p.clone() for net in setup.models for p in net.parameters()]
    found: list[nn.Module] = []

    def read(step: int, seed: int, one: Any, model: nn.Module) -> Iterator[bool]:
        found.append(model)
        yield False

    one = shared.Training("natural labels", setup.sets[0], (0.2, 0.4), setup.models)
    *frames, last = shared.minima(settings, [one], {}, read)
    assert len(found) == 2 and last.note == ""
    assert all(0.2 <= frame.progress <= 0.4 for frame in frames if frame.progress is not None)
    after = [p for net in setup.models for p in net.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    loss, _ = common.fitted(found[0], setup.sets[0][0].x_train, setup.sets[0][0].y_train)
    assert loss < 1.02 * settings.stop
