"""Lab 3's potentials and its noisy network: each claim is decided as expected at quick, and each can fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from labkit.labs.sgd import chains, valley
from labkit.labs.sgd.langevin import LANGEVIN
from labkit.labs.sgd.valley import VALLEY, Valley
from labkit.labs.sgd.wells import WELLS, Wells
from labkit.protocol.experiment import Run, drain
from labkit.protocol.judging import judge
from labkit.theory.boltzmann import TwoWells
from labkit.training.dynamics import descend
from tests.labs.checks import TrainingTests, at_frame, changed, quick_runs, verdict

States = Iterator[tuple[int, Tensor]]
EXPERIMENTS = (WELLS, VALLEY, LANGEVIN)
quick = quick_runs(EXPERIMENTS)


def of_kind(kind: int, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """A change of the shares (S, kinds, D) of one kind of dynamics."""

    def change_one(share: np.ndarray) -> np.ndarray:
        share = share.copy()
        share[:, kind] = change(share[:, kind])
        return share

    return change_one


def with_noise(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """A change of a curve (S, 2) of SGD with noise."""

    def change_one(value: np.ndarray) -> np.ndarray:
        value = value.copy()
        value[:, 1] = change(value[:, 1])
        return value

    return change_one


class TestPotentials(TrainingTests):
    lab = "sgd"
    experiments = EXPERIMENTS
    quick = staticmethod(quick)
    violated: ClassVar[dict[str, list[Callable[[Run], Run]]]] = {
        "S4": [
            # The other well; one dimension for all; equal wells; all in the wide one.
            lambda run: changed(run, share=lambda v: 1 - v),
            lambda run: changed(run, share=lambda v: np.broadcast_to(v[:, :1], v.shape)),
            lambda run: changed(run, prediction_share=lambda v: np.full_like(v, 0.5)),
            lambda run: changed(run, share=np.ones_like),
            lambda run: at_frame(run, "share", lambda v: 0.96 * v),
            # A narrow well that is off by a quarter: 1 % of the wide one at D = 5.
            lambda run: at_frame(run, "share", lambda v: 1 - 1.25 * (1 - v)),
            # Densities of another dimension, or mirrored, under the right shares.
            lambda run: changed(run, histograms=lambda v: np.flip(v, axis=1)),
            lambda run: changed(run, histograms=lambda v: np.flip(v, axis=2)),
        ],
        "S5": [
            lambda run: changed(run, share=of_kind(0, lambda v: np.full_like(v, 0.5))),
            lambda run: changed(run, share=of_kind(1, lambda v: np.full_like(v, 0.5))),
            lambda run: changed(run, share=of_kind(0, lambda v: np.flip(v, axis=1))),
            lambda run: changed(run, share=of_kind(1, lambda v: np.flip(v, axis=1))),
            # No more in three dimensions than in two.
            lambda run: changed(run, share=lambda v: np.concatenate([v[..., 2:]] * 3, axis=2)),
            # SGD's own noise in one direction would see the volume of all of them.
            lambda run: changed(run, share=lambda v: v[:, [0, 1, 0]]),
            # A temperature that leaves out the minibatches' own.
            lambda run: changed(run, share=lambda v: v[:, [0, 0, 2]]),
        ],
        "S7": [
            lambda run: changed(run, error=with_noise(lambda v: v + 0.05)),
            lambda run: changed(run, error=with_noise(lambda v: np.maximum(v - 0.05, 0))),
            lambda run: changed(run, train_error=with_noise(lambda v: v + 0.03)),
        ],
    }
    cheap: ClassVar[dict[str, dict[str, Any]]] = {
        "wells": {"dimension": 2, "steps": 100, "chains": 20},
        "valley": {"dimension": 2, "steps": 60, "chains": 20},
        "langevin": {"n": 100, "steps": 40, "width": 24, "depth": 1},
    }
    too_fast: ClassVar[dict[str, dict[str, Any]]] = {
        "wells": {"lr": 1.0, "dimension": 2, "chains": 50, "steps": 500},
        "valley": {"lr": 1.0, "dimension": 2, "chains": 50, "steps": 500},
        "langevin": {"lr": 1000.0, "n": 200, "steps": 200},
    }


# Wells.


def some_wells(**changes: Any) -> Run:
    settings = {"dimension": 1, "steps": 3000, "chains": 500, "height": 0.4} | changes
    return drain(WELLS, WELLS.preset(**settings))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        # A horizon shorter than the time that a chain stays in a well.
        ({"steps": 200}, "raise steps, or the temperature"),
        # Chains that never cross: the share is that of the start, 1/2.
        ({"temperature": 0.2}, "the chains did not mix: raise steps, or the temperature"),
        # Crossing enough, but a step too short to do it in the steps given.
        ({"lr": 0.0002}, "raise steps, or the temperature"),
        # Steps so long that it is another temperature that they sample.
        ({"lr": 0.03}, "lower lr, and raise steps as much"),
        ({"chains": 40, "steps": 9000}, "raise chains or steps"),
    ],
)
def test_chains_that_cannot_tell_are_undecided(changes: dict[str, Any], reason: str) -> None:
    """A verdict on chains that did not mix, are too few, or follow another potential."""
    run = some_wells(**changes)
    found = verdict("S4", run)
    assert found.word == "undecided" and reason in found.reason, found.reason


def test_long_steps_miss_the_share() -> None:
    """What the check of the step's length is for: mixed chains, and a share that is wrong."""
    run = some_wells(lr=0.05)
    assert run.last("r_hat").max() < chains.R_HAT and run.last("apart").max() < chains.APART
    assert (np.abs(run.last("share") / run.prediction["share"] - 1) > 0.02).all()
    assert (run.last("heating") > chains.HEATING).all()


@pytest.mark.parametrize("potential", [TwoWells(offset=0.2), Valley().potential], ids=["wells", "valley"])
@pytest.mark.parametrize("scale", [1.0, 1e12], ids=["here", "run away"])
def test_the_chains_slope_is_that_of_torch_bit_for_bit_and_quiet_where_they_run_away(
    potential: Any, scale: float
) -> None:
    w = scale * torch.randn(4, 2, 50, generator=torch.Generator().manual_seed(0)).permute(1, 2, 0)
    torch.testing.assert_close(
        chains.slope(potential, w), potential.gradient(w), rtol=0, atol=0, equal_nan=True
    )


def test_heating_is_the_excess_of_the_virial() -> None:
    """⟨w·∇U⟩ = D T + (η/2)⟨|∇U|²⟩, exactly for this update; an excess of another size tells nothing."""
    U, T, lr, D = TwoWells(height=0.4), 2.0, 0.02, 2
    start = torch.zeros(1000, D, dtype=torch.float64)
    virial, slopes = [], []
    for step, w in descend(
        lambda w, step: U.gradient(w), start, lr=lr, steps=6000, temperature=T,
        generator=torch.Generator().manual_seed(0), record=20,
    ):  # fmt: skip
        if step > 1000:
            gradient = U.gradient(w)
            virial.append(float((w * gradient).sum(1).mean()))
            slopes.append(float((gradient**2).sum(1).mean()))
    excess = np.mean(virial) / (D * T) - 1
    heating = lr * np.mean(slopes) / (2 * D * T)
    assert heating > 0.03 and excess == pytest.approx(heating, abs=0.012)


def test_a_wrong_temperature_is_told_by_the_density() -> None:
    """Noise √(ηT): the shares of two wells of equal depth hardly change, the densities do."""

    def half(
        gradient: Any, start: Tensor, *, temperature: float, **rest: Any
    ) -> Iterator[tuple[int, Tensor]]:
        return descend(gradient, start, temperature=temperature / 2, **rest)

    settings = WELLS.preset(dimension=1, chains=1500, steps=5000, place=1.1)
    right, wrong = drain(WELLS, settings), drain(WELLS, settings, dynamics=half)
    assert judge(WELLS.claims[0], right).word == "holds"
    found = judge(WELLS.claims[0], wrong)
    assert found.parts[2].word in ("fails", "undecided") and "holds" not in found.word
    apart = [
        np.abs(run.last("histograms") - run.prediction["density"]).sum(2).mean() for run in (right, wrong)
    ]
    assert apart[1] > 3 * apart[0]


def test_depth_beats_volume_when_it_is_cold() -> None:
    """A depth offset that does nothing: e^(−δ/T) against k^D."""
    warm, cold = (
        WELLS.predict(WELLS.prepare(Wells(offset=2.0, temperature=T, chains=4)))["share"] for T in (2.0, 0.2)
    )
    assert (warm > 0.4).all() and (np.diff(warm) > 0).all() and (cold < 0.01).all()


def test_a_partial_run_of_wells_draws_and_is_not_judged() -> None:
    run = quick("wells")
    for cut in (3, len(run.frames) // 2, len(run.frames) - 1):
        chart = WELLS.figure(run.frames[:cut], run.prediction, run.settings)
        assert chart.png()[:4] == b"\x89PNG"
        with pytest.raises(KeyError):
            judge(WELLS.claims[0], Run(WELLS, run.settings, run.prediction, run.frames[:cut]))


# Valley.


def test_slopes_have_the_covariance_they_are_said_to_have() -> None:
    """A mean that is not 0 tilts the potential; a covariance that is not σ² I is another temperature."""
    settings = Valley(seeds=2, n=40)
    for slopes, D in zip(VALLEY.prepare(settings).slopes, range(1, settings.dimension + 1), strict=True):
        assert slopes.shape == (2, 40, D)
        own = slopes.double()
        torch.testing.assert_close(own.mean(1), torch.zeros(2, D).double(), rtol=0, atol=1e-4)
        torch.testing.assert_close(own[:, :20], -own[:, 20:])
        covariance = own.mT @ own / 40
        torch.testing.assert_close(
            covariance, settings.spread**2 * torch.eye(D).double().expand(2, D, D), rtol=1e-4, atol=1e-2
        )
        assert not torch.equal(slopes[0], slopes[1])


@pytest.mark.parametrize("batch_size", [1, 3])
def test_minibatches_are_unbiased_with_covariance_over_b(batch_size: int) -> None:
    """1/√B for 1/B, a batch shared by all chains, or noise that leans to one side."""
    settings = Valley(seeds=1, dimension=3)
    slopes = VALLEY.prepare(settings).slopes[2]
    U, start = settings.potential, torch.full((1, 5000, 3), 0.3)
    gradient = valley.minibatch_gradient(
        U, slopes, batch_size, 5000, chains.generators(settings, "minibatches")
    )
    noise = torch.cat([(gradient(start, step) - U.gradient(start))[0] for step in range(20)]).double()
    scale = settings.spread**2 / batch_size
    torch.testing.assert_close(torch.cov(noise.T) / scale, torch.eye(3).double(), rtol=0, atol=0.03)
    assert float(noise.mean(0).abs().max()) < 4 * np.sqrt(scale / len(noise))


@pytest.mark.slow
def test_noise_in_all_directions_sees_the_volume() -> None:
    """SGD alone that stays at one half whatever its noise: the contrast to noise in one direction."""
    settings = VALLEY.preset(dimension=2, directions="all", chains=300, steps=3000)
    run = drain(VALLEY, settings)
    alone = run.last("share")[:, 2]
    assert run.prediction["share"][2, 1] > 0.65
    np.testing.assert_allclose(alone.mean(axis=0), run.prediction["share"][2], atol=0.04)
    one = VALLEY.predict(VALLEY.prepare(settings.replace(directions="one")))["share"][2]
    np.testing.assert_allclose(one, 0.5)


# Langevin.


@pytest.mark.slow
def test_much_noise_is_not_alike() -> None:
    """A claim that holds at any temperature."""
    found = verdict("S7", drain(LANGEVIN, LANGEVIN.preset(temperature=0.02, steps=800, n=600)))
    # Not both parts in every case: the training errors' interval ends close to the edge.
    assert found.word == "fails" and "holds" not in [part.word for part in found.parts], found.notes


def test_networks_that_did_not_train_are_undecided() -> None:
    """Two curves that agree because nothing was learned."""
    found = verdict("S7", drain(LANGEVIN, LANGEVIN.preset(steps=20, n=200)))
    assert found.word == "undecided" and "not trained yet" in found.reason


def test_without_temperature_the_curves_are_one() -> None:
    """Another order of minibatches, or another start, for the networks with noise."""
    run = drain(LANGEVIN, LANGEVIN.preset(temperature=1e-30, steps=60, n=200, seeds=2))
    for name in ("loss", "error", "train_error"):
        values = run.series(name)[1]
        np.testing.assert_allclose(values[..., 0], values[..., 1], rtol=1e-5)
    assert run.series("error")[1][-1].max() < 0.6
