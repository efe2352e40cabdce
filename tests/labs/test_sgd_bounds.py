"""Lab 3's classical bounds: S17 is decided as expected at quick, and each of its parts can fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from labkit.labs.sgd import bounds
from labkit.labs.sgd.bounds import BOUNDS, NAMES, S17
from labkit.protocol.experiment import Run, drain
from labkit.protocol.judging import judge
from labkit.theory import classical_bounds as theory
from tests.labs.checks import TrainingTests, at_frame, changed, quick_runs

EXPERIMENTS = (BOUNDS,)
SMALL: dict[str, Any] = {"width": 4, "n": 60, "depth": 1, "epochs": 4}


def violated_bound(place: int) -> Any:
    """A run in which one bound is a thousandth of what it bounds, in one seed, at the end."""

    def violation(run: Run) -> Run:
        measured = run.last("measured")[1, place]

        def below(row: np.ndarray) -> np.ndarray:
            row = row.copy()
            row[place] = 1e-3 * min(measured, 1.0) * 0.9
            return row

        return at_frame(run, "bounds", below)

    return violation


def ratio_as_printed(run: Run) -> Run:
    """M_deep/M_shallow = ε^n, (29) taken to the letter."""
    return changed(run, prediction_deep=lambda old: run.prediction["shallow"] + run.prediction["ratio"])


class TestBounds(TrainingTests):
    lab = "sgd"
    experiments = EXPERIMENTS
    quick = staticmethod(quick_runs(EXPERIMENTS))
    violated = {"S17": [*(violated_bound(place) for place in range(len(NAMES))), ratio_as_printed]}
    cheap = {"bounds": SMALL}
    too_fast = {"bounds": SMALL | {"lr": 1e4, "depth": 3}}

    def test_every_part_is_refuted_by_its_own_violation(self) -> None:
        """Eight parts, of which one catches the violations of all."""
        for place, violation in enumerate(self.violated["S17"]):
            parts = judge(S17, violation(self.quick("bounds"))).parts
            assert [part.word == "fails" for part in parts] == [k == place for k in range(8)]

    def test_at_quick_every_bound_is_vacuous_and_says_so(self) -> None:
        """What the notebook's text says; a flag for all that hides one that is not."""
        found = judge(S17, self.quick("bounds"))
        assert found.vacuous
        assert [part.note for part in found.parts[:-1]] == ["vacuous"] * len(NAMES)
        assert (self.quick("bounds").last("bounds") > 1).all()

    def test_tightness_is_the_bound_over_what_it_bounds(self) -> None:
        """A ratio of logarithms, or an error of 0 taken for a small one."""
        run = self.quick("bounds")
        bounds, measured = run.last("bounds"), run.last("measured")
        for place, part in enumerate(judge(S17, run).parts[:-1]):
            over = bounds[:, place] / np.where(measured[:, place] > 0, measured[:, place], np.nan)
            assert part.tightness == pytest.approx(np.nanmin(over))
        found = judge(S17, changed(run, measured=np.zeros_like))
        assert found.word == "holds" and found.parts[0].tightness == np.inf

    def test_a_linear_model_of_one_bit_a_weight_has_a_bound_that_says_something(self) -> None:
        """A flag that is always up."""
        run = drain(BOUNDS, BOUNDS.preset(depth=0, bits=1.0, epochs=10))
        bits, cover, *others = judge(S17, run).parts[: len(NAMES)]
        assert bits.predicted[0] == pytest.approx(0.155, abs=5e-4)
        assert cover.predicted[0] == pytest.approx(0.65, abs=0.05)
        assert (bits.note, cover.note) == ("not vacuous",) * 2
        assert {part.note for part in others} == {"vacuous"}

    def test_bounds_hold_and_the_test_error_is_at_chance_with_all_labels_redrawn(self) -> None:
        """Clean test labels: then bounds would be asked about another distribution."""
        run = drain(BOUNDS, BOUNDS.preset(label_noise=1.0, epochs=40, n=400))
        assert judge(S17, run).word == "holds"
        assert run.last("measured")[:, NAMES.index("(63)")] == pytest.approx(0.5, abs=0.1)
        clean = bounds.prepare(BOUNDS.preset(n=400)).sets[0]
        noisy = bounds.prepare(BOUNDS.preset(n=400, label_noise=1.0)).sets[0]
        for part in ("y_train", "y_test"):
            share = (getattr(clean, part) != getattr(noisy, part)).double().mean()
            assert float(share) == pytest.approx(0.5, abs=0.1)


def trained() -> tuple[Any, Any, list[torch.Tensor], list[torch.Tensor]]:
    """Settings, data, and the weights of the network with one output, at the start and some way off."""
    settings = BOUNDS.preset(**SMALL | {"depth": 2, "width": 6, "seeds": 1, "margin": 0.5})
    setup = bounds.prepare(settings)
    start = bounds.one_output(setup.models[0])
    generator = torch.Generator().manual_seed(0)
    now = [w + 0.2 * torch.randn(w.shape, generator=generator, dtype=w.dtype) for w in start]
    return settings, setup.sets[0], start, now


def test_one_output_is_the_difference_of_the_networks_two() -> None:
    """The other sign, or a row forgotten: then margins and ℓ₁ norms are of another function."""
    setup = bounds.prepare(BOUNDS.preset(**SMALL | {"depth": 3}))
    x, model = setup.sets[0].x_train, setup.models[0]
    with torch.no_grad():
        outputs = model(x).double()
        found = bounds._output(bounds.one_output(model), x.double())
    assert found.numpy() == pytest.approx((outputs[:, 1] - outputs[:, 0]).numpy(), abs=1e-5)


def test_inputs_are_in_the_cube_of_lemma_5_and_labels_say_odd_or_even() -> None:
    """Standardised inputs, for which (60) and (63) promise nothing."""
    setup = bounds.prepare(BOUNDS.preset(n=500))
    one = setup.sets[0]
    assert float(one.x_train.min()) >= 0 and float(one.x_train.max()) <= 1
    assert one.classes == 2 and set(one.y_train.tolist()) == {0, 1}


def test_what_is_bounded_is_computed_from_margins() -> None:
    """A gap of the ramp loss where an error rate belongs."""
    settings, one, start, now = trained()
    row = bounds._evaluated(settings, one, start, now, bounds.fan_in)
    measured = row[len(NAMES) : 2 * len(NAMES)]
    ramps, errors = [], []
    for x, y in ((one.x_train, one.y_train), (one.x_test, one.y_test)):
        f = bounds._output(now, x.double())
        margins = torch.where(y == 1, f, -f)
        errors.append(float((margins <= 0).double().mean()))
        ramps.append(float((1 - margins / settings.margin).clamp(0, 1).mean()))
    gap, ramp_gap = abs(errors[1] - errors[0]), abs(ramps[1] - ramps[0])
    expected = [gap, ramp_gap, ramp_gap, ramp_gap, errors[1], ramp_gap, errors[1]]
    assert measured == pytest.approx(expected, abs=1e-12)


def test_bounds_of_norms_are_those_of_their_formulas() -> None:
    """The norms of another matrix, or columns for rows; the margin of the ramp forgotten."""
    settings, one, start, now = trained()
    row = dict(zip(NAMES, bounds._evaluated(settings, one, start, now, bounds.fan_in), strict=False))
    norms = [max(sum(abs(float(v)) for v in unit) for unit in weight) for weight in now]
    assert bounds.fan_in(now) == pytest.approx(norms)
    assert row["(60)"] == pytest.approx(theory.l1_gap(norms, 64, one.n) / settings.margin)
    assert row["(17)"] == theory.quantized_gap(64 * 6 + 36 + 6, settings.bits, one.n)

    def doubled(layers: Any) -> list[float]:
        return [2.0 * size for size in bounds.fan_in(layers)]

    other = bounds._evaluated(settings, one, start, now, doubled)
    assert other[NAMES.index("(60)")] == pytest.approx(8 * row["(60)"])
    finer = bounds._evaluated(settings.replace(level=2), one, start, now, bounds.fan_in)
    assert finer[NAMES.index("(21)")] > 1e9 * row["(21)"]


def test_bounds_of_grids_and_margins_are_the_least_of_theirs() -> None:
    """A cell that is s across, not s√d; a loss that changes by more than 1; a prior that is not paid for."""
    settings, one, start, now = trained()
    row = dict(zip(NAMES, bounds._evaluated(settings, one, start, now, bounds.fan_in), strict=False))
    slope = np.prod([np.linalg.svd(w.numpy())[1][0] for w in now]) / 0.5
    paid = []
    for level in range(10):  # beyond, the cells alone are too many
        variation = min(1.0, slope * 8 / 2**level)
        chance = 2 * np.log(20) + 2 * np.log(np.pi**2 * (level + 1) ** 2 / 6)
        paid.append(variation + np.sqrt((2 * 2 * 2.0 ** (64 * level) * np.log(2) + chance) / one.n))
    assert row["(22)"] == pytest.approx(min(paid))
    assert row["(21)"] == pytest.approx(paid[1], rel=1e-6)
    f = bounds._output(now, one.x_train.double())
    margins = torch.where(one.y_train == 1, f, -f).numpy()
    norms = bounds.fan_in(now)
    top, size = np.prod(norms), theory.l1_rademacher(norms, 64, one.n)
    for name, bound in (("(27)", theory.smooth_margin_bound), ("(63)", theory.margin_bound)):
        every = [
            bound((margins < gamma).mean(), gamma, size, one.n, bound=top)
            for gamma in top * np.geomspace(1e-3, 1, 400)
        ]
        assert min(every) <= row[name] * (1 + 1e-9) <= 1.2 * min(every)


def test_loss_is_nowhere_steeper_in_the_weights_than_the_cover_assumes() -> None:
    """A Lipschitz constant that is too small makes (19) false; random networks within G_T of the start."""
    settings, one, start, now = trained()
    x, generator = one.x_train.double(), torch.Generator().manual_seed(1)
    travel = float(sum((a - b).square().sum() for a, b in zip(now, start, strict=True)) ** 0.5)
    spectral = [float(torch.linalg.matrix_norm(weight, 2)) for weight in start]
    steep = float(bounds.perturbed.gradient_bound(spectral, travel, 8.0).total)
    weights = sum(w.numel() for w in start)
    assert bounds._cover(start, weights, travel, one, 0.5) == pytest.approx(
        0.1 + np.sqrt((weights * np.log(3 * travel * 2 * steep / 0.05) + np.log(40)) / (2 * one.n))
    )
    for _ in range(20):
        moves = [torch.randn(w.shape, generator=generator, dtype=w.dtype) for w in start]
        size = sum(float(move.square().sum()) for move in moves) ** 0.5
        here = [(w + travel * move / size).requires_grad_() for w, move in zip(start, moves, strict=True)]
        place = int(x.norm(dim=1).argmax())
        parts = torch.autograd.grad(bounds._output(here, x[place : place + 1]).sum(), here)
        assert sum(float(part.square().sum()) for part in parts) ** 0.5 <= steep


def test_cover_of_an_untrained_network_is_a_test_of_one_function() -> None:
    """A logarithm of 0 at the first frame."""
    run = TestBounds.quick("bounds")
    first = run.frames[0].values["bounds"][:, NAMES.index("(19)")]
    assert first == pytest.approx(0.1 + np.sqrt(np.log(40) / 2000))


def test_norms_step_is_used() -> None:
    """A step of the notebook that is passed in and ignored."""
    settings = BOUNDS.preset(**SMALL | {"seeds": 1})
    setup = bounds.prepare(settings)
    prediction = bounds.predict(setup)
    runs = [
        list(bounds.run(setup, prediction, norms=norms))[-1].values["norms"]
        for norms in (bounds.fan_in, lambda layers: [1.0 for _ in layers])
    ]
    assert runs[1] == pytest.approx(1.0)
    assert not np.allclose(runs[0], runs[1])
