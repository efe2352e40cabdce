"""Lab 5: minibatches, variance and diversity of gradients. Each claim is as expected, and can fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from labkit.labs.confusion.batches import BATCHES
from labkit.labs.confusion.diversity import DIVERSITY, as_diverse, rare_and_long
from labkit.measure.confusion import Confusion, confusion, inner_variance
from labkit.protocol import statistics as stats
from labkit.protocol.experiment import Run, drain
from tests.labs.checks import Change, TrainingTests, at_frame, changed, constant, quick_runs, swapped, verdict

EXPERIMENTS = (BATCHES, DIVERSITY)
CHEAP: dict[str, dict[str, Any]] = {
    "batches": {"n": 40, "steps": 6, "largest": 8, "minibatches": 8, "width": 5, "batch_size": 20},
    "diversity": {"samples": 128, "dimension": 16, "members": 6, "drawn": 5},
}
quick = quick_runs(EXPERIMENTS)


def steeper(phase: int, by: float) -> Change:
    """A factor B^by on the measured variance of one phase."""

    def change(variance: np.ndarray) -> np.ndarray:
        sizes = quick("batches").prediction["sizes"]
        variance = variance.copy()
        variance[:, phase] *= sizes**by
        return variance

    return change


def one_more(value: np.ndarray) -> np.ndarray:
    return value + 1


def with_diagonal(gram: Tensor) -> Confusion:
    """eta as the paper's average over all i, j would have it: never anything but 0."""
    return replace(confusion(gram), eta=max(0.0, -float(gram.mean())))


VIOLATED: dict[str, list[Callable[[Run], Run]]] = {
    "C12": [
        # No 1/B^2 at the end, or one at the start.
        lambda run: changed(run, variance=steeper(2, 0.5)),
        lambda run: changed(run, variance=steeper(2, -0.5)),
        lambda run: changed(run, variance=steeper(0, -0.6)),
        lambda run: changed(run, variance=steeper(0, 0.6)),
        # The exponents are right at both ends, but the closed form is not met on the way.
        lambda run: changed(run, variance=steeper(1, 0.4)),
        lambda run: changed(run, theory=lambda v: v[:, :, ::-1]),
    ],
    "C13": [
        lambda run: changed(run, mean=lambda v: 1.001 * v),
        lambda run: changed(run, variance=lambda v: 0.999 * v),
        # A variance that stays bounded, whatever the prediction says.
        lambda run: changed(run, variance=constant(1.0), prediction_variance=constant(1.0)),
        lambda run: at_frame(run, "rare_eta", one_more, frame=2),
        lambda run: at_frame(run, "random_eta", lambda v: 100 * v + 1),
        lambda run: swapped(run, "random_eta", "random_bound"),
    ],
    "C15": [
        lambda run: at_frame(run, "diversity", lambda v: 1.01 * v, frame=4),
        lambda run: at_frame(run, "eta", lambda v: v + 1e-6, frame=4),
        # Confusion that is as blind as diversity.
        lambda run: changed(run, eta=constant(0.0)),
        lambda run: changed(run, eta=constant(0.0), prediction_eta=constant(0.0)),
    ],
}


class TestGradients(TrainingTests):
    lab = "confusion"
    experiments = EXPERIMENTS
    quick = staticmethod(quick)
    violated = VIOLATED
    cheap = CHEAP
    too_fast = {"batches": {"lr": 1e4, "steps": 30, "n": 100, "largest": 8, "minibatches": 8}}


def test_the_end_of_training_is_out_of_regime_while_the_mean_gradient_is_large() -> None:
    """A 1/B² law promised where the mean gradient rules."""
    run = drain(BATCHES, BATCHES.preset(steps=4, minibatches=16, largest=64))
    found = verdict("C12", run)
    assert found.parts[0].word == "out of regime" and "mean gradient is small" in found.reason


def test_the_closed_form_is_the_readers() -> None:
    """A step that a notebook spells out and the experiment does not use."""
    settings = BATCHES.preset(**CHEAP["batches"] | {"seeds": 2})

    def only_squares(gram: Tensor) -> tuple[float, float, float]:
        return 0.0, 0.0, inner_variance(gram)[2]

    theirs, ours = drain(BATCHES, settings, variance=only_squares), drain(BATCHES, settings)
    slopes = stats.exponent(theirs.prediction["sizes"], theirs.last("theory")[:, 0])
    assert slopes == pytest.approx(-2.0)
    assert np.array_equal(theirs.last("variance"), ours.last("variance"))
    assert not np.allclose(theirs.last("theory"), ours.last("theory"))


def test_an_average_with_the_diagonal_sees_no_confusion() -> None:
    """The erratum of definition 2.1: C15 fails with it."""
    run = drain(DIVERSITY, DIVERSITY.preset(**CHEAP["diversity"]), measure=with_diagonal)
    assert verdict("C15", run).word == "fails"
    assert not run.last("random_eta").any()


@pytest.mark.parametrize("opposed", [0.0, 0.3, 1.0])
def test_sets_of_equal_diversity_are_what_they_are_said_to_be(opposed: float) -> None:
    """Vectors that are no unit vectors; a second opposed pair; a sum that is not sqrt N long."""
    frame = torch.linalg.qr(torch.randn(7, 7, generator=torch.Generator().manual_seed(0)).double()).Q
    G = as_diverse(opposed, 6, frame) @ as_diverse(opposed, 6, frame).T
    expected = torch.eye(6, dtype=torch.float64)
    expected[0, 1] = expected[1, 0] = -opposed
    expected[2, 3] = expected[3, 2] = opposed
    assert torch.allclose(G, expected, atol=1e-12)
    assert float(G.sum()) == pytest.approx(6.0)


def test_the_rare_gradients_are_as_rare_and_as_long_as_said() -> None:
    """A share of the short ones, or lengths exchanged."""
    g = rare_and_long(0.25, 16, torch.tensor([0.0, 1.0]).double())
    assert g[:, 1].tolist() == [4.0] * 4 + [0.25] * 12
    assert not g[:, 0].any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 100}, "samples must be a power of 2"),
        ({"members": 50}, "members must be at most dimension"),
    ],
)
def test_settings_that_fit_nothing_are_refused(changes: dict[str, int], message: str) -> None:
    """A share that is no whole number of samples; more orthogonal vectors than dimensions."""
    with pytest.raises(ValueError, match=message):
        DIVERSITY.preset(**changes)
