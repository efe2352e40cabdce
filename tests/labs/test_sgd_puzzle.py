"""Lab 3, the puzzle and its polynomial twin: decided as expected at quick, and able to fail."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from labkit.figures import Level, Points, Predicted
from labkit.labs.sgd import puzzle, shared
from labkit.labs.sgd.polynomial import POLYNOMIAL, Polynomial
from labkit.labs.sgd.puzzle import PUZZLE, Puzzle
from labkit.models.polynomial import polynomial_relu
from labkit.protocol.experiment import Run, drain
from labkit.training import Ensemble
from tests.labs.checks import (
    TrainingTests,
    at_frame,
    changed,
    constant,
    equal,
    quick_runs,
    same,
    values,
    verdict,
)

EXPERIMENTS = (PUZZLE, POLYNOMIAL)
SMALL = {"width": 2, "n": 16, "widest": 4, "steps": 12, "n_test": 40, "batch_size": 8, "lr": 0.02}
TINY = SMALL | {"width": 1, "n": 8, "widest": 2, "steps": 6, "n_test": 10}
NATURAL, RANDOM = 0, 1
POLY = 1


def natural(values: np.ndarray) -> np.ndarray:
    """Random labels as good as natural ones; the axis of kinds is the last but one."""
    return values[..., [NATURAL, NATURAL], :]


def reversed_sweep(values: np.ndarray) -> np.ndarray:
    return values[..., ::-1]


def memorised(values: np.ndarray) -> np.ndarray:
    """No training error for any labels at any N."""
    return 0 * values


def never_fitted(values: np.ndarray) -> np.ndarray:
    """Random labels at chance from the smallest N on."""
    values = values.copy()
    values[..., RANDOM, :] = 0.9
    return values


def worse_twin(values: np.ndarray) -> np.ndarray:
    """A saturating network with .2 more test error on natural labels everywhere."""
    values = values.copy()
    values[:, POLY, NATURAL] += 0.2
    return values


def overfitted(values: np.ndarray) -> np.ndarray:
    """The classical picture: the widest network is .2 worse than the next."""
    values = values.copy()
    values[..., NATURAL, -1] = values[..., NATURAL, -2] + 0.2
    return values


def better_than_chance(values: np.ndarray) -> np.ndarray:
    """Something learned from random labels."""
    values = values.copy()
    values[..., RANDOM, :] -= 0.2
    return values


class TestPuzzle(TrainingTests):
    lab = "sgd"
    experiments = EXPERIMENTS
    quick = staticmethod(quick_runs(EXPERIMENTS))
    violated = {
        "S8": [
            lambda run: changed(run, train_n=never_fitted),
            lambda run: changed(run, train_n=memorised),
            lambda run: changed(run, test_n=reversed_sweep),
            lambda run: changed(run, test_w=overfitted),
            lambda run: changed(run, test_n=better_than_chance, test_w=better_than_chance),
        ],
        # Both fail as they stand; that each part fails by its own violation has tests of its own.
        "S14": [same],
        "S18": [same, lambda run: changed(run, train_n=never_fitted)],
    }
    # A short interval, which a few steps leave: else to hold the input to it changes nothing.
    cheap = {"puzzle": TINY, "polynomial": TINY | {"interval": 1.0}}
    too_fast = {
        "puzzle": SMALL | {"seeds": 1, "lr": 500.0, "steps": 200},
        "polynomial": SMALL | {"seeds": 1, "lr": 500.0, "steps": 200},
    }


quick = TestPuzzle.quick


def small(experiment: Any, **changes: Any) -> Any:
    return experiment.preset(**(SMALL | {"seeds": 2} | changes))


# The data.


def test_smaller_samples_are_the_first_of_larger_ones_and_labels_stay() -> None:
    """Other images, or freshly drawn labels, at each N: two things would change at once."""
    for n in (40, 100):
        one = puzzle.images(Puzzle(n_test=600), n, seed=3)
        more = puzzle.images(Puzzle(n_test=600), 2 * n, seed=3)
        assert torch.equal(one.y_train, more.y_train[:n])
        a, b = puzzle.random_labels(one, 3), puzzle.random_labels(one, 3)
        assert torch.equal(a.y_train, b.y_train) and torch.equal(a.x_train, one.x_train)
        assert torch.equal(a.y_test, one.y_test)


def test_random_labels_are_independent_of_the_natural_ones() -> None:
    """A share of labels that is kept, as under strict noise none is."""
    one = puzzle.images(Puzzle(), 1200, seed=0)
    kept = (puzzle.random_labels(one, 0).y_train == one.y_train).double().mean()
    assert abs(float(kept) - 0.1) < 4 * math.sqrt(0.09 / 1200)


def test_test_images_are_not_trained_on() -> None:
    """Samples that fill up the test split, taken from those that are fitted."""
    whole = puzzle.images(Puzzle(n_test=600), 1200, seed=1)
    assert len(whole.x_test) == 359 + 1438 - 1200
    rows = {tuple(row.tolist()) for row in whole.x_train.flatten(1)}
    # Digits holds no two equal images.
    assert not rows & {tuple(row.tolist()) for row in whole.x_test.flatten(1)}
    few = puzzle.images(Puzzle(n_test=200), 1200, seed=1)
    assert len(few.x_test) == 200


def test_a_data_set_that_is_too_small_is_named() -> None:
    """More samples asked for than there are, found out in the middle of a run."""
    for experiment in EXPERIMENTS:
        with pytest.raises(ValueError, match="n: the largest sample has 1600, and digits 1438 .* to 359"):
            experiment.prepare(experiment.preset(n=400))


# The sweeps.


def test_every_size_and_width_is_trained_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shared network trained twice, or a sweep that lacks it; in pieces where memory is short."""
    one = puzzle.images(Puzzle(), 1200, seed=0)
    for memory in (puzzle.TOGETHER, 0):
        monkeypatch.setattr(puzzle, "TOGETHER", memory)
        for settings in (Puzzle(), Puzzle(width=3), Polynomial(), Polynomial(width=8, widest=8)):
            plan = [(width, n) for width, sizes in puzzle.cells(settings, one) for n in sizes]
            assert len(plan) == len(set(plan)) == len(settings.sizes) + len(settings.widths) - 1
            assert settings.n in settings.sizes and settings.width in settings.widths
            assert settings.widths == tuple(sorted(settings.widths))
    assert Puzzle().sizes == (75, 150, 300, 600, 1200)
    assert Puzzle().widths == (1, 2, 4, 8, 16, 32) and Polynomial().widths == (1, 4, 8)


def test_a_sample_that_is_repeated_counts_each_image_once() -> None:
    """Errors over a longer sample with some images twice; or labels of other images."""
    settings = small(PUZZLE, seeds=1, steps=1)
    one = puzzle.images(settings, 64, seed=0)
    nets = [puzzle.network(one, 2, s) for s in (0, 1, 2)]
    *_, last = puzzle.fit(settings.replace(lr=1e-6), nets, [one] * 3, (64, 24, 5))
    for s, n in enumerate((64, 24, 5)):
        error = (nets[s](one.x_train[:n]).argmax(1) != one.y_train[:n]).double().mean()
        assert last.values["train"][s] == pytest.approx(float(error))


def test_both_sweeps_meet_in_one_network() -> None:
    """A value in the wrong place of one of the two arrays."""
    for run in (quick("puzzle"), quick("polynomial")):
        settings = run.settings
        for part in ("train", "test"):
            by_n = run.last(f"{part}_n")[..., settings.sizes.index(settings.n)]
            by_w = run.last(f"{part}_w")[..., settings.widths.index(settings.width)]
            np.testing.assert_array_equal(by_n, by_w)


def test_the_gap_at_other_n_stands_where_it_was_measured() -> None:
    """A gap of random labels, of another N or W; a network with fewer weights that is trained for nothing."""
    run = quick("puzzle")
    settings, gap = run.settings, run.last("gap")
    shared_width = settings.widths.index(settings.width)
    by_n = (run.last("test_n") - run.last("train_n"))[:, NATURAL]
    np.testing.assert_array_equal(gap[:, :, shared_width], by_n[:, list(puzzle.OTHERS)])
    assert np.isfinite(gap[:, :, shared_width:]).all() and np.isnan(gap[:, :, :shared_width]).all()
    small_run = drain(PUZZLE, small(PUZZLE))
    setup = PUZZLE.prepare(small_run.settings)
    nets = [puzzle.network(one, 4, seed) for seed, one in enumerate(setup.sets[0])]
    *_, last = puzzle.fit(small_run.settings, nets, setup.sets[0], (4, 4))
    np.testing.assert_array_equal(small_run.last("gap")[:, 0, 2], last.values["test"] - last.values["train"])


def test_errors_are_those_of_the_trained_networks() -> None:
    """An error on a batch, on other copies' labels, or of another step."""
    settings = small(PUZZLE)
    setup = PUZZLE.prepare(settings)
    sets = [one for pair in zip(*setup.sets, strict=True) for one in pair]
    nets = [puzzle.network(one, 2, seed) for seed, one in zip((0, 0, 1, 1), sets, strict=True)]
    kept: list[Ensemble] = []
    original = puzzle.training.Ensemble
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(puzzle.training, "Ensemble", lambda nets: kept.append(original(nets)) or kept[-1])
        *_, last = puzzle.fit(settings, nets, sets, [16] * 4)
    assert kept[0].route == "own"
    for s, one in enumerate(sets):
        net = kept[0].member(s)
        with torch.no_grad():
            train = (net(one.x_train[:16]).argmax(1) != one.y_train[:16]).double().mean()
            test = (net(one.x_test).argmax(1) != one.y_test).double().mean()
        assert last.values["train"][s] == pytest.approx(float(train))
        assert last.values["test"][s] == pytest.approx(float(test))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(puzzle, "TOGETHER", 0)  # one N at a time, as above
        run = drain(PUZZLE, settings)
    place = settings.sizes.index(16)
    np.testing.assert_array_equal(run.last("train_n")[:, :, place].ravel(), last.values["train"])


def test_both_kinds_of_labels_start_from_one_network() -> None:
    """Twins, or kinds, with other weights: the draw would be compared, not the labels."""
    one = puzzle.images(Puzzle(), 16, seed=0)
    a, b = puzzle.network(one, 4, 1), puzzle.network(puzzle.random_labels(one, 0), 4, 1)
    c = puzzle.network(one, 4, 1, polynomial_relu(10, 5.0))
    for p, q, r in zip(a.parameters(), b.parameters(), c.parameters(), strict=True):
        assert torch.equal(p, q) and torch.equal(p, r)


def test_weights_of_the_prediction_are_those_of_the_networks() -> None:
    """N = W drawn at another W."""
    for experiment in EXPERIMENTS:
        setup = experiment.prepare(small(experiment))
        prediction = experiment.predict(setup)
        for width, count in zip(prediction["widths"], prediction["weights"], strict=True):
            network = puzzle.network(setup.sets[0][0], int(width), 0)
            assert count == sum(p.numel() for p in network.parameters())
        assert prediction["edge"] == prediction["weights"][list(prediction["widths"]).index(2)]


def test_another_network_can_be_passed_in() -> None:
    """A step that the notebook writes out and the run ignores."""
    settings = small(PUZZLE, seeds=1)
    asked = []

    def wider(one: Any, width: int, seed: int) -> torch.nn.Module:
        asked.append((width, seed))
        return puzzle.network(one, 3 * width, seed)

    run = drain(PUZZLE, settings, network=wider)
    assert set(asked) == {(1, 0), (2, 0), (4, 0)}
    assert not equal(values(run), values(drain(PUZZLE, settings)))


# What is read off.


def test_where_the_error_leaves_zero_is_read_between_two_sizes() -> None:
    """The first N above zero itself, or an interpolation that is linear in N."""
    sizes = np.array([100, 200, 400])
    train = np.array([[0.0, 0.0, 0.10], [0.0, 0.05, 0.2], [0.0, 0.0, 0.05], [0.3, 0.4, 0.5]])
    found = puzzle.leaves_zero(sizes, train)
    np.testing.assert_allclose(found, [200 * math.sqrt(2), 200, 400, 100])


def test_a_rise_is_from_the_first_network_with_as_many_weights_as_samples() -> None:
    """The networks with fewer weights than samples, which are worse anyway."""
    test = np.array([[0.3, 0.1, 0.12, 0.14], [0.4, 0.3, 0.2, 0.1]])
    np.testing.assert_allclose(puzzle.rise(test, np.array([False, True, True, True])), [0.04, -0.2])


def test_random_labels_leave_zero_before_as_many_samples_as_weights() -> None:
    """What our networks show in place of the paper's N = W: at .15 to .6 of it."""
    run = quick("puzzle")
    share = puzzle.leaves_zero(run.prediction["sizes"], run.last("train_n")[:, RANDOM])
    share = share / float(run.prediction["edge"])
    assert ((share > 0.15) & (share < 0.6)).all(), share
    assert verdict("S18", run).parts[0].measured[0] == pytest.approx(share.mean())


def test_a_network_with_as_many_weights_as_ever_is_out_of_regime() -> None:
    """A claim about N past W judged where no N is past W, or about W >> N where none is."""
    run = quick("puzzle")
    for edge in (100, 10_000):
        for id in ("S8", "S18"):
            found = verdict(id, changed(run, prediction_edge=lambda v, edge=edge: np.full_like(v, edge)))
            assert found.word == "out of regime", (id, edge)


def test_natural_labels_that_are_not_fitted_decide_nothing() -> None:
    """A test error of networks that were not trained to their end."""
    for name, id in (("puzzle", "S8"), ("polynomial", "S14")):
        run = quick(name)
        found = verdict(id, at_frame(run, "train_n", lambda v: v + 0.1))
        assert found.word in ("undecided", "fails") and "raise steps" in found.reason


def test_a_partial_run_is_not_judged_but_drawn() -> None:
    """A verdict over sizes that have not been trained yet."""
    for name, id in (("puzzle", "S8"), ("polynomial", "S14")):
        run = quick(name)
        part = Run(run.experiment, run.settings, run.prediction, run.frames[: len(run.frames) // 2])
        with pytest.raises(ValueError, match="trained and measured yet"):
            verdict(id, part)
        assert part.figure((run,)).png()[:4] == b"\x89PNG"


def test_the_figure_draws_the_prediction_before_any_training() -> None:
    """No N = W, no chance level until something is measured."""
    setup = PUZZLE.prepare(small(PUZZLE))
    chart = PUZZLE.figure((), PUZZLE.predict(setup), setup.settings)
    assert len(chart.panels) == 4
    for panel, edge in zip(chart.panels, (324, 16), strict=False):
        (level,) = (mark for mark in panel.marks if isinstance(mark, Level))
        assert level.value == edge
        assert {float(mark.y[0]) for mark in panel.marks if isinstance(mark, Predicted)} == {0.0, 0.9}
        assert all(np.isnan(mark.y).all() for mark in panel.marks if isinstance(mark, Points))


# The twin.


def test_without_the_clamp_standardised_images_diverge() -> None:
    """A clamp that is always on; a divergence that ends the run instead of being shown."""
    run = quick("polynomial")
    assert run.status == "done"
    assert run.last("free_diverged").all() and (run.last("free_steps") < 10).all()
    assert "3 of 3 diverge" in verdict("S14", run).notes


def trained(run: Run) -> Run:
    """The polynomial network trained as the paper has it."""
    return changed(run, free_train=constant(0.0))


@pytest.mark.parametrize(
    ("part", "violation"),
    [
        (0, same),
        (1, lambda run: changed(trained(run), test_n=worse_twin, test_w=worse_twin)),
        (2, lambda run: changed(trained(run), train_n=never_fitted)),
        (3, lambda run: changed(trained(run), train_n=memorised)),
        (4, lambda run: changed(trained(run), test_n=reversed_sweep)),
        (5, lambda run: changed(trained(run), test_w=overfitted)),
        (6, lambda run: changed(trained(run), test_n=better_than_chance, test_w=better_than_chance)),
    ],
)
def test_each_part_of_s14_can_fail(part: int, violation: Any) -> None:
    """A claim that fails anyway, and hides parts that cannot."""
    run = quick("polynomial")
    assert verdict("S14", trained(run)).word == "holds"
    assert verdict("S14", violation(run)).parts[part].word == "fails"


def test_random_labels_fitted_up_to_as_many_as_weights_would_hold() -> None:
    """A rule that no network could pass."""
    run = quick("puzzle")
    edge = run.prediction["edge"]
    late = changed(run, train_n=lambda v: np.where(run.prediction["sizes"] > edge, 0.5, 0.0) + 0 * v)
    assert verdict("S18", late).word == "holds"


def test_twins_differ_and_agree() -> None:
    """The same network run twice; a polynomial that trains to something else."""
    run = quick("polynomial")
    test = run.last("test_n")[:, :, NATURAL]
    assert not np.array_equal(test[:, 0], test[:, POLY])
    assert np.abs(test[:, 0] - test[:, POLY]).mean() < 0.1
    assert run.prediction["deviation"] == pytest.approx(0.139, abs=1e-3)


def test_colours_are_those_of_the_lab() -> None:
    """Natural labels in the colour of random ones."""
    for name, errors in (("puzzle", slice(2)), ("polynomial", slice(-2, None))):
        for panel in quick(name).figure().panels[errors]:
            colors = {mark.color for mark in panel.marks if isinstance(mark, Points)}
            assert {shared.NATURAL, shared.RANDOM, *shared.PALE} == colors
