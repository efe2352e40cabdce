"""Lab 0: one network, five lenses, and what its Jacobian at the start says of each of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.func import functional_call, jacrev

from labkit import data, models
from labkit.labs.start import LAB, LENSES
from labkit.labs.start.linear import linearize
from labkit.live import export
from labkit.measure import confusion
from tests.labs.checks import TrainingTests, changed, constant, quick_runs, swapped, verdict
from tests.runs import shared_run


class TestLenses(TrainingTests):
    lab = "start"
    experiments = (LENSES,)
    quick = staticmethod(quick_runs(experiments))
    violated = {
        "L1": [lambda run: changed(run, spectral=lambda old: 3 * old),
               lambda run: changed(run, ceiling=lambda old: 0.9 * old)],
        "L2": [lambda run: changed(run, floor=constant(100.0))],
        "L3": [lambda run: changed(run, radius=lambda old: 1.3 * old),
               lambda run: changed(run, prediction_radius=lambda old: 1.3 * old)],
        "L4": [lambda run: swapped(run, "information", "nuisance"),
               lambda run: changed(run, prediction_nuisance=lambda old: 0.9 * old)],
        "L5": [lambda run: changed(run, eta=constant(0.0)),
               lambda run: changed(run, smallest=constant(0.0))],
    }  # fmt: skip
    cheap = {"lenses": {"width": 16, "n": 60, "steps": 20}}
    too_fast = {"lenses": {"lr": 20.0}}

    def test_the_words_of_the_notebook_are_found_by_one_change_each(self) -> None:
        """A notebook that shows a word which another seed or another machine would not give."""
        lenses = LENSES.preset
        narrow = shared_run(LENSES, lenses(width=16))
        assert verdict("L5", narrow).word == "fails"
        assert verdict("L4", narrow).word == "out of regime"
        tiny = verdict("L1", shared_run(LENSES, lenses(width=4)))
        assert (tiny.word, tiny.vacuous) == ("holds", True)
        fast = verdict("L4", shared_run(LENSES, lenses(lr=1.5)))
        assert fast.word == "out of regime" and "learning rate" in fast.notes
        slow = verdict("L3", shared_run(LENSES, lenses(lr=0.05)))
        assert slow.word == "undecided" and "raise steps" in slow.notes
        diverged = verdict("L1", shared_run(LENSES, lenses(lr=8)))
        assert diverged.word == "undecided" and "seeds" not in diverged.notes

    def test_a_regime_is_read_from_the_run(self) -> None:
        """A condition that compares settings with themselves, and so is met always."""
        run = self.quick("lenses")
        assert verdict("L4", replace(run, settings=run.settings.replace(lr=1.01))).word == "out of regime"
        assert verdict("L4", changed(run, kernel=constant(0.51))).word == "out of regime"
        assert verdict("L3", changed(run, loss=constant(0.03))).word == "undecided"

    def test_bounds_that_say_nothing_are_vacuous(self) -> None:
        """A bound above what needs no theorem, or below zero, sold as knowledge."""
        run = self.quick("lenses")
        assert not any(verdict(id, run).vacuous for id in ("L1", "L2", "L5"))
        assert verdict("L1", changed(run, frobenius=constant(1.0))).vacuous
        assert verdict("L2", changed(run, floor=constant(0.0))).vacuous
        assert verdict("L5", changed(run, eta_least=constant(-1.0))).vacuous


@pytest.fixture(scope="module")
def case():
    """A network in float64, its data, and the linear model trained step by step: θ, outputs at each step."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x, x_test, directions = draw(7, 5), draw(4, 5), draw(5 * 6 + 6 * 6 + 6 * 3, 2)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 2])
    y = data.one_hot(labels, 3, dtype=torch.float64)
    net = models.mlp(5, 6, 2, 3, activation="tanh", bias=False, init="lecun", dtype=torch.float64)
    weights = {name: value.detach() for name, value in net.named_parameters()}

    def dense(inputs: torch.Tensor) -> torch.Tensor:
        found = jacrev(lambda own: functional_call(net, own, (inputs,)))(weights)
        return torch.cat([part.flatten(2) for part in found.values()], dim=2)  # (n, K, p)

    J, J_test = dense(x), dense(x_test)
    linear = linearize(net, x, y, x_test, directions)
    lr = 0.9 / float(linear.spectrum[0])
    theta, path = torch.zeros(J.shape[2], dtype=torch.float64), []
    with torch.no_grad():
        f0, f0_test = net(x), net(x_test)
    for _ in range(41):
        outputs, test = f0 + J @ theta, f0_test + J_test @ theta
        path.append((theta, outputs, test))
        theta = theta - lr * torch.einsum("ik,ikp->p", outputs - y, J)
    return linear, lr, labels, y, J, path, directions


def test_the_linear_model_is_the_one_that_gradient_descent_trains(case):
    """A closed form with a sign, a layout or a square root that gradient descent does not have."""
    linear, lr, labels, y, J, path, _ = case
    steps = np.array([0, 1, 5, 40])
    test_labels = np.array([0, 1, 2, 0])
    residuals = linear.residuals(lr, steps) @ linear.basis.T
    distance, cosines = linear.distance(lr, steps), linear.cosines(lr, steps)
    errors = linear.errors(lr, steps, labels.numpy(), test_labels)
    for place, step in enumerate(steps):
        theta, outputs, test = path[step]
        np.testing.assert_allclose(residuals[place], (outputs - y).ravel().numpy(), atol=1e-10)
        np.testing.assert_allclose(distance[place], float(theta.norm()), atol=1e-8)
        gradients = torch.einsum("ik,ikp->ip", outputs - y, J)
        pairs = confusion(gradients @ gradients.T)
        np.testing.assert_allclose(cosines[:, place], [pairs.minimum_cosine, pairs.mean_cosine], atol=1e-7)
        wrong = [
            (outputs.argmax(1) != labels).double().mean(),
            (test.argmax(1).numpy() != test_labels).mean(),
        ]
        np.testing.assert_allclose(errors[:, place], wrong)


def test_slopes_are_those_of_the_directions_given(case):
    """Directions in another order of parameters than the Jacobian's columns."""
    linear, _, _, _, J, _, directions = case
    expected = float((J.flatten(0, 1) @ directions).square().sum(0).mean())
    assert linear.slopes == pytest.approx(expected, rel=1e-9)


def test_past_the_edge_the_linear_model_overflows_in_silence(case):
    """A warning, or a traceback, while a slider is dragged past 2/λ₁²."""
    linear, lr, labels, *_ = case
    steps = np.array([0, 10, 20_000])
    fast = 5 * lr
    assert linear.distance(fast, steps)[1] > linear.distance(lr, steps)[1]
    assert not np.isfinite(linear.distance(fast, steps)[2])
    assert np.isfinite(linear.cosines(fast, steps)[:, 1]).all()
    assert np.isnan(linear.errors(fast, steps, labels.numpy(), np.zeros(4))[:, 2]).all()


def test_a_run_is_repeated_by_its_number_or_name():
    """Lines under "Repeat this run" that name a lab which the command line does not know."""
    settings = LENSES.preset(width=64)
    assert export.command_line(LENSES, settings) == "labkit run start --experiment lenses --set width=64"
    assert export.command_line(LENSES, settings, LAB) == "labkit run 0 --experiment lenses --set width=64"
    assert "load_lab('start').experiment('lenses')" in export.code_line(LENSES, settings)
