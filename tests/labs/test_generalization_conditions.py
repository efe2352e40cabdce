"""Lab 2, section 4 of the paper (E11 to E14, E17, E18, E21): decided as expected at the quick preset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from labkit.labs.generalization.conditions import CONDITIONS, sizes
from labkit.labs.generalization.depth import DEPTH
from labkit.labs.generalization.layers import LAYERS, turned
from labkit.labs.generalization.perturbation import PERTURBATION
from labkit.protocol.experiment import Experiment, Run, drain
from tests.labs.checks import TrainingTests, changed, constant, quick_runs, verdict

TINY = {"width": 20, "hidden": 2, "n": 60, "samples": 20, "classes": 3}


class TestSectionFour(TrainingTests):
    lab = "generalization"
    experiments = (LAYERS, CONDITIONS, PERTURBATION, DEPTH)
    quick = staticmethod(quick_runs(experiments))
    violated = {
        "E11": [
            lambda run: changed(run, mean=lambda v: v * 1.3),
            lambda run: changed(run, rms=lambda v: v * 1.1),
            # A variance where a standard deviation belongs, with sigma = .1.
            lambda run: changed(run, rms=lambda v: v * 0.1),
        ],
        "E12": [
            lambda run: changed(run, mu=lambda v: v / 5),
            lambda run: changed(run, prediction_mu=lambda v: v / 5),
            lambda run: changed(run, c2=lambda v: v * 4),
            lambda run: changed(run, prediction_c2=lambda v: v * 4),
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
            lambda run: changed(run, root_mu=lambda v: run.last("root"), linear=lambda v: run.last("fixed")),
            lambda run: changed(run, root_mu=lambda v: np.square(run.last("root"))),
            lambda run: changed(run, root_mu=lambda v: np.sqrt(run.last("root"))),
        ],
        "E21": [
            lambda run: changed(run, norms=lambda v: v * np.linspace(1, 1.1, v.shape[1])),
            lambda run: changed(run, error=lambda v: v + np.linspace(0, 0.1, v.shape[1])),
            lambda run: changed(run, rise=np.zeros_like),
            lambda run: changed(run, rise=lambda v: v[:, ::-1]),
        ],
        "E17": [
            lambda run: changed(start_again(run), mu=lambda v: v * 1.5),
            lambda run: changed(start_again(run), c2=lambda v: v / 1.5),
            lambda run: changed(start_again(run), c3=lambda v: v * 1.5),
        ],
        "E18": [
            lambda run: changed(run, printed=constant(1.0)),
            lambda run: changed(run, prediction_printed=constant(1.0), printed=constant(9.0)),
        ],
    }
    cheap = {
        "layers": TINY | {"draws": 3},
        "conditions": TINY,
        "perturbation": TINY | {"draws": 3},
        "depth": {"width": 16, "deepest": 8, "n": 4},
    }
    elsewhere = {"conditions": {"epochs": 10}}  # read off the least of many samples, eight layers deep
    too_fast = {
        "layers": TINY | {"lr": 100.0, "draws": 3},
        "conditions": TINY | {"lr": 100.0},
        "perturbation": TINY | {"lr": 100.0, "draws": 3},
    }

    def test_the_failing_claims_can_hold(self) -> None:
        """A claim that is said to fail whatever is measured."""
        ideal = changed(self.quick("depth"), root_mu=lambda v: self.quick("depth").last("root"))
        assert verdict("E14", ideal).word == "holds"
        run = self.quick("conditions")
        assert verdict("E17", start_again(run)).word == "holds"
        small = changed(run, printed=constant(1.0), prediction_printed=constant(1.0))
        assert verdict("E18", small).word == "holds"

    def test_a_turned_layer_keeps_norms_and_shrinks_the_outputs(self) -> None:
        """Networks of equal norms that are not, or another function than the same times cos θ."""
        setup = LAYERS.prepare(self.small("layers"))
        model, x = setup.models[0], setup.sets[0][0].x_train[:9]
        near, far = turned(model, x, 1.0), turned(model, x, 8.0)
        for first, second in zip(near.parameters(), far.parameters(), strict=True):
            assert float(second.detach().norm()) == pytest.approx(float(first.detach().norm()), rel=1e-5)
        np.testing.assert_allclose(near(x).detach(), model(x).detach(), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(8 * far(x).detach(), model(x).detach(), rtol=1e-4, atol=1e-5)

    def test_theorem_1_is_said_to_be_vacuous(self) -> None:
        """A bound of a thousand on an error rate, printed as a success."""
        found = verdict("E13", self.quick("perturbation"))
        assert found.vacuous and "vacuous from σ" in found.notes and "all of Theorem 1" in found.notes
        assert not verdict("E13", changed(self.quick("perturbation"), total=constant(0.5))).vacuous

    def test_lemma_1_is_of_the_order_of_what_it_bounds(self) -> None:
        """A bound that holds because it is never near."""
        run = self.quick("perturbation")
        ratio = run.last("lemma1")[:, :4] / run.last("change")[:, :4]
        assert ratio.min() > 1 and ratio.max() < 40
        # Noise acts in proportion while it is small.
        growth = np.diff(np.log(run.last("change")[:, :4])) / np.diff(np.log(run.prediction["sigmas"][:4]))
        np.testing.assert_allclose(growth, 1, atol=0.02)

    def test_random_labels_are_told_and_not_judged(self) -> None:
        """A promise that the paper has not made: random labels may leave the conditions."""
        run = self.quick("conditions")
        worse = changed(run, mu=lambda v: np.concatenate([v[:, :1], v[:, 1:] / 10], axis=1))
        found = verdict("E12", worse)
        assert found.word == "holds"
        assert f"{float(np.quantile(worse.last('mu')[:, 1], 0.1, axis=1).mean()):.2g}" in found.notes

    def test_learning_true_labels_raises_mu_above_random_ones(self) -> None:
        """The finding that the notebook states."""
        run = self.quick("conditions")
        start, (true, random) = run.prediction["mu"], (run.last("mu")[:, k] for k in (0, 1))
        low = [np.quantile(v, 0.1, axis=1) for v in (random, start, true)]
        assert (low[1] < low[2]).all() and (low[0] < low[2]).all()

    def test_pre_activations_are_measured_at_unit_inputs(self) -> None:
        """A size of pre-activations that grows with the input, or that of another layer."""
        setup = CONDITIONS.prepare(self.small("conditions"))
        model, x = setup.models[0], setup.sets[0][0].x_train[:5]
        W1, W2, _ = (p.detach().double().numpy() for p in model.parameters())
        unit = x.double().numpy() / np.linalg.norm(x.double().numpy(), axis=1, keepdims=True)
        first = unit @ W1.T
        layers = (first, np.maximum(first, 0) @ W2.T)
        expected = np.stack([np.sqrt((z**2).mean(axis=1)) for z in layers], axis=1)
        np.testing.assert_allclose(sizes(model, 7 * x).numpy(), expected, rtol=1e-5)

    def test_large_noise_is_outside_e14(self) -> None:
        """A theorem for small σ, judged at any."""
        found = verdict("E14", drain(DEPTH, self.small("depth", sigma=2.0)))
        assert found.word == "out of regime" and "σ C₂" in found.notes

    @pytest.mark.parametrize("experiment", [CONDITIONS, PERTURBATION], ids=lambda one: one.name)
    def test_a_network_that_is_not_trained_to_its_end_decides_nothing(self, experiment: Experiment) -> None:
        """Conditions of a half-learned network taken for those of a learned one."""
        run = drain(experiment, self.small(experiment.name, epochs=2))
        assert {verdict(claim.id, run).word for claim in experiment.claims} == {"undecided"}

    @pytest.mark.parametrize("experiment", [CONDITIONS, PERTURBATION], ids=lambda one: one.name)
    def test_the_papers_network_runs_too(self, experiment: Experiment, tmp_path: Path) -> None:
        """A `paper` preset that nobody could run: its ten layers, on a handful of images and narrow."""
        rng = np.random.default_rng(0)
        images, labels = rng.integers(0, 256, (60, 8, 8), dtype=np.uint8), np.arange(60) % 3
        parts = {"x_train": images, "y_train": labels, "x_test": images[:12], "y_test": labels[:12]}
        np.savez(tmp_path / "tiny.npz", **parts)
        changes = {"dataset": str(tmp_path / "tiny.npz"), "n": 40, "width": 30, "classes": 3, "samples": 10}
        settings = experiment.preset("paper", **changes, seeds=1, stop=0.3, lr=0.05)
        run = drain(experiment, settings if experiment is CONDITIONS else settings.replace(draws=3))
        assert run.status == "done"
        if experiment is CONDITIONS:
            assert run.last("c3").shape == (1, 2, 10) and run.last("c2").shape == (1, 2, 9)


def start_again(run: Run) -> Run:
    """The run in which learning left the network as it was."""
    names = ("mu", "c2", "c3", "printed")
    twice = {name: np.repeat(run.prediction[name][:, None], 2, axis=1) for name in names}
    return changed(run, **{name: lambda v, value=value: value for name, value in twice.items()})
