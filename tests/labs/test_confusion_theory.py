"""Lab 5's experiments on the theory: each claim is decided as expected at quick, and each can fail."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as tries
from hypothesis import strategies as st

from labkit.figures import Bound, Points, Predicted
from labkit.labs.confusion import hessian, scale
from labkit.labs.confusion.chains import Chains, mean_pair, worst_pair
from labkit.labs.confusion.hessian import HESSIAN
from labkit.labs.confusion.rate import RATE, Rate
from labkit.labs.confusion.scale import SCALE
from labkit.labs.confusion.sphere import SPHERE, Sphere
from labkit.protocol.experiment import Run, drain
from labkit.protocol.judging import judge
from labkit.theory import confusion as theory
from labkit.theory import confusion_rates as rates
from tests.labs.checks import Change, TrainingTests, at_frame, changed, quick_runs, swapped, verdict, word

EXPERIMENTS = (SPHERE, RATE, SCALE, HESSIAN)
CHEAP: dict[str, dict[str, Any]] = {
    "sphere": {"n": 10, "d": 12, "draws": 100},
    "rate": {"n": 8, "d": 5, "runs": 10, "duration": 2.0},
    "scale": {"n": 10, "d": 17, "depth": 2, "nets": 1},
    "hessian": {"n": 3, "rank": 2},
}
quick = quick_runs(EXPERIMENTS)


def tilted(name: str, power: float, x: np.ndarray, first: int) -> Change:
    """An extra factor x^power for the values from place `first` on."""

    def tilt(values: np.ndarray) -> np.ndarray:
        values = values.copy()
        values[:, first : first + len(x)] *= (x / x[0]) ** power
        return values

    return tilt


# What each claim must refuse: a run in which one thing is not as it says.
LAYERS = scale.DEPTHS + 1.0
VIOLATED = {
    "C2": [
        lambda run: changed(run, share=lambda v: np.minimum(v * 30, 1)),
        lambda run: changed(run, share=lambda v: np.roll(v, 10, axis=1)),
        lambda run: changed(run, prediction_bound=lambda v: v**2 / 100**2),
        lambda run: at_frame(run, "share", lambda v: np.where(np.arange(99) == 60, 0.01, v)),
    ],
    "C3": [
        lambda run: at_frame(run, "gap", lambda v: v * 30, frame=60),
        lambda run: swapped(run, "mean", "none"),
        lambda run: changed(run, mean=lambda v: v / 2),
        lambda run: changed(run, worst=lambda v: v / 200),
        lambda run: changed(run, none=lambda v: v + 1),
        # A floor that stays as the theorem's does, and one that falls with the square of the step.
        lambda run: changed(run, floors=lambda v: np.ones_like(v) * v[:, -1:]),
        lambda run: changed(run, floors=lambda v: v**2),
        # Thm 3.1's rate for the exact one on orthogonal data, and a loss above the bound.
        lambda run: changed(run, orthogonal=lambda v: v**0.5),
        lambda run: changed(run, orthogonal_bound=lambda v: v**3),
        lambda run: changed(run, prediction_orthogonal=lambda v: v**1.1),
    ],
    "C4": [
        lambda run: changed(run, least=lambda v: v * 1e6),
        lambda run: changed(run, least_mean=lambda v: v / 1e5),
        lambda run: at_frame(run, "least_worst", lambda v: v / 1e8, frame=5),
        lambda run: swapped(run, "least", "least_worst"),
    ],
    "C5": [
        lambda run: changed(run, cosine=tilted("cosine", 0.3, scale.DIMENSIONS, 0)),
        lambda run: changed(run, cosine=tilted("cosine", -0.4, scale.DIMENSIONS, 0)),
        lambda run: changed(run, cosine=tilted("cosine", 0.3, LAYERS, 5)),
        lambda run: changed(run, cosine=tilted("cosine", -0.3, LAYERS, 5)),
        lambda run: changed(run, eta=tilted("eta", -0.7, LAYERS, 5)),
        lambda run: changed(run, eta=tilted("eta", 2.0, LAYERS, 5)),
        lambda run: changed(run, eta=lambda v: v * 1e6),
        lambda run: swapped(run, "cosine", "eta"),
    ],
    "C6": [
        lambda run: changed(run, shares=lambda v: v * 1.1),
        lambda run: at_frame(run, "shares", lambda v: np.where(np.arange(5) == 3, 1.01, v)),
    ],
    "C14": [
        lambda run: changed(run, share=lambda v: v * 5),
        lambda run: at_frame(run, "share", lambda v: np.where(np.arange(5) == 2, 1.01, v)),
        lambda run: changed(run, cosine=np.ones_like),
        lambda run: changed(run, cosine=lambda v: v**2),
        lambda run: changed(run, random_cosine=np.ones_like),
        lambda run: changed(run, random_cosine=lambda v: v**2),
        lambda run: swapped(run, "share", "share_printed"),
    ],
}  # fmt: skip


class TestTheory(TrainingTests):
    lab = "confusion"
    experiments = EXPERIMENTS
    quick = staticmethod(quick)
    violated = VIOLATED
    cheap = CHEAP
    too_fast = {"rate": {"n": 8, "d": 5, "runs": 10, "step": 20.0}}

    def test_a_figure_shows_the_theory_before_the_first_frame(self, name: str) -> None:
        """A panel without a prediction, or points that were not measured yet."""
        run = quick(name)
        chart = self.experiment(name).figure((), run.prediction, run.settings)
        marks = [mark for panel in chart.panels for mark in panel.marks]
        assert any(isinstance(mark, (Predicted, Bound)) for mark in marks)
        assert not any(np.isfinite(mark.y).any() for mark in marks if isinstance(mark, Points))

    def test_a_partial_run_is_not_judged(self, name: str) -> None:
        """A verdict on half of what is to be looked at."""
        run = quick(name)
        partial = replace(run, frames=run.frames[: len(run.frames) // 2])
        judged = {claim.id: word(claim, partial) for claim in run.experiment.claims}
        assert set(judged.values()) == {""} or judged == {"C3": "", "C4": "holds"}


# Sphere.


def test_the_measured_looseness_is_in_nu() -> None:
    """A factor of 1.2 claimed for probabilities: there the lemma is several times too high."""
    run = quick("sphere")
    ratio = (run.prediction["bound_level"] / run.last("level")).mean(axis=0)
    assert ratio.min() > 1.1 and ratio.max() < 1.26
    share, bound = run.last("share").mean(axis=0), run.prediction["bound"]
    seen = (share > 0.01) & (bound < 1)
    assert seen.sum() >= 3 and (bound[seen] > 4 * share[seen]).all()
    near = run.prediction["probability"]
    np.testing.assert_allclose(share, near, atol=0.03)


@pytest.mark.parametrize(("n", "d"), [(2, 2), (2, 400), (40, 2), (60, 20)])
def test_the_lemma_holds_for_other_sizes(n: int, d: int) -> None:
    """An inequality that holds at the quick preset only; and one that says nothing at all is vacuous."""
    found = verdict("C2", drain(SPHERE, Sphere(n=n, d=d, draws=500)))
    assert found.word == "holds"
    assert found.vacuous == bool((theory.near_orthogonality_bound(0.99, n, d) >= 1).all())


def test_one_event_far_out_is_no_violation() -> None:
    """A single pair of near neighbours where the bound is below one in the number of draws."""
    run = quick("sphere")
    once = at_frame(run, "share", lambda v: np.maximum(v, 1 / run.settings.draws * (np.arange(99) < 52)))
    assert verdict("C2", once).word == "holds"
    often = at_frame(run, "share", lambda v: np.maximum(v, 40 / run.settings.draws * (np.arange(99) < 52)))
    assert verdict("C2", often).word == "fails"


# Rate.


def test_chains_are_sgd_on_weights() -> None:
    """Residuals that move otherwise than those of weights; runs that share their draws."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 5, 3)), rng.standard_normal((2, 5))
    gram = x @ x.transpose(0, 2, 1)
    chains = Chains(gram, np.repeat(-y[:, None], 4, axis=1), np.array([0.1, 0.1, 0.2, 0.2]), [[0, 1], [1, 1]])
    chains.advance(30)
    picks = [np.random.default_rng(seed).integers(5, size=(30, 4)) for seed in ([0, 1], [1, 1])]
    for s in range(2):
        for run, alpha in enumerate((0.1, 0.1, 0.2, 0.2)):
            w = np.zeros(3)
            for k in picks[s][:, run]:
                w -= alpha * (x[s, k] @ w - y[s, k]) * x[s, k]
            np.testing.assert_allclose(chains.r[s, run], x[s] @ w - y[s], rtol=1e-9)
    assert len(np.unique(chains.r[:, :2, 0].round(12))) == 4


def test_pairs_are_those_of_a_double_loop() -> None:
    """The diagonal counted, a sign lost, pairs of another data set."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 4, 3))
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    gram, r = x @ x.transpose(0, 2, 1), rng.standard_normal((2, 3, 4))
    for s in range(2):
        for run in range(3):
            g = r[s, run][:, None] * x[s]
            inner = [g[i] @ g[j] for i in range(4) for j in range(4) if i != j]
            assert worst_pair(r, gram)[s, run] == pytest.approx(max(-min(inner), 0))
            assert mean_pair(r, gram)[s, run] == pytest.approx(np.mean(inner))
    assert worst_pair(np.ones((1, 2)), np.ones((1, 2, 2)))[0] == 0


def test_sgd_follows_its_exact_expectation() -> None:
    """Chains with another step or other data than the dashed curve."""
    run = drain(RATE, Rate(n=10, d=6, runs=400, seeds=2, duration=10))
    at, gap = run.series("gap")
    np.testing.assert_array_equal(at[: len(run.prediction["steps"])], run.prediction["steps"])
    np.testing.assert_allclose(gap.T, run.prediction["exact"], rtol=0.25)
    floors = run.last("floors")
    own = run.prediction["floor"][:, np.isin(run.prediction["sizes"], run.prediction["SIZES"])]
    np.testing.assert_allclose(floors, own, rtol=0.2)


def test_the_recursion_is_passed_in() -> None:
    """A recursion of the notebook that the experiment does not use."""
    settings = RATE.preset(**CHEAP["rate"], seeds=1)

    def forgets(gap0: Any, etas: Any, L: float, mu: float, n: int, alpha: float) -> np.ndarray:
        return rates.sgd_bound(gap0, 0 * np.asarray(etas), L, mu, n, alpha)

    own, other = drain(RATE, settings), drain(RATE, settings, recursion=forgets)
    np.testing.assert_allclose(other.last("worst"), own.last("none"), rtol=1e-12)
    assert own.last("worst") > 2 * own.last("none")
    # The chunks of the path make one path.
    called: list[np.ndarray] = []

    def listens(gap0: Any, etas: Any, L: float, mu: float, n: int, alpha: float) -> np.ndarray:
        called.append(np.asarray(etas))
        return rates.sgd_bound(gap0, etas, L, mu, n, alpha)

    drain(RATE, settings, recursion=listens)
    path = np.concatenate(
        called[0:-1:3], axis=1
    )  # worst, mean, none for each chunk; then the orthogonal data
    assert path.shape == (1, settings.steps)
    gap0 = own.series("gap")[1][0]
    whole = rates.sgd_bound(gap0, path, 1.0, 1.0, settings.n, settings.alpha)
    np.testing.assert_allclose(own.last("worst"), whole[:, -1], rtol=1e-9)


@pytest.mark.parametrize("step", [2.0, 2.5, 6.0])
def test_a_step_out_of_range_is_out_of_regime(step: float) -> None:
    """A bound drawn or a verdict given where the theorem says nothing: SGD itself is fine there."""
    run = drain(RATE, RATE.preset(**CHEAP["rate"] | {"step": step}))
    assert run.status == "done" and np.isnan(run.last("worst")).all()
    for claim in RATE.claims:
        found = judge(claim, run)
        assert found.word == "out of regime" and "step size α below 2/(nL)" in found.reason
    assert run.figure((run,)).png()[:4] == b"\x89PNG"
    inside = drain(RATE, RATE.preset(**CHEAP["rate"] | {"step": 1.99}))
    assert judge(RATE.claims[1], inside).word == "holds"


def test_labels_within_reach_leave_no_floor() -> None:
    """Logarithms of zero, or a verdict on a floor that is not there."""
    run = drain(RATE, RATE.preset(**CHEAP["rate"] | {"d": 12}))
    found = verdict("C3", run)
    words = [part.word for part in found.parts]
    assert words[:2] == ["holds", "holds"] and words[4] == "undecided"
    assert "dimension below the samples" in found.reason
    short = drain(RATE, RATE.preset(**CHEAP["rate"] | {"duration": 1.0}))
    assert "raise duration" in verdict("C3", short).reason


def test_the_bounds_are_valid_and_vacuous() -> None:
    """What the notebook says: the worst pair's floor is far above the start, the mean pair's is not."""
    run = quick("rate")
    assert verdict("C3", run).vacuous and verdict("C4", run).vacuous
    gap = run.series("gap")[1]
    assert (run.last("worst") > 10 * gap[0]).all() and (run.last("mean") < gap[0]).all()
    assert (run.last("none") < gap[-1] / 50).all()
    assert "half the step of 1/(nL) leaves 0.667" in verdict("C3", run).notes


# Scale.


@pytest.mark.parametrize("activation", ["identity", "tanh", "relu", "sigmoid"])
@pytest.mark.parametrize("loss", ["square", "logistic"])
def test_gradients_are_those_of_automatic_differentiation(activation: str, loss: str) -> None:
    """A layer left out, a slope of another layer, ζ of the other loss, C's own derivative forgotten."""
    rng, depth, d = np.random.default_rng(0), 3, 6
    weights = [rng.standard_normal((d, d)) / 2 for _ in range(depth)] + [rng.standard_normal((1, d))]
    x, u = rng.standard_normal((5, d)) / 3, rng.standard_normal(d) / 3
    found = scale.gradients(weights, x, activation)
    sigma = {"identity": lambda z: z, "tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid}[
        activation
    ]
    zeta, by_g, by_label = scale.slopes_of_loss(found.output, x @ u, loss)
    rows, zetas, by_x = [], [], []
    for one in x:
        W = [torch.tensor(w, requires_grad=True) for w in weights]
        point = torch.tensor(one, requires_grad=True)
        h = point
        for w in W:
            h = sigma(w @ h)
        g = h[0]
        label = point @ torch.tensor(u)
        slope = g - label if loss == "square" else -label * torch.sigmoid(-label * g)
        rows.append(
            torch.cat([grad.flatten() for grad in torch.autograd.grad(g, W, retain_graph=True)]).numpy()
        )
        by_x.append(torch.autograd.grad(slope, point, retain_graph=True)[0].numpy())
        zetas.append(float(slope.detach()))
        in_w = torch.autograd.grad(slope, W)
        own = by_g[len(rows) - 1] * rows[-1]
        np.testing.assert_allclose(
            torch.cat([grad.flatten() for grad in in_w]).numpy(), own, rtol=1e-9, atol=1e-12
        )
    matrix = np.stack(rows)
    np.testing.assert_allclose(found.gram(), matrix @ matrix.T, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(zeta, zetas, rtol=1e-9)
    np.testing.assert_allclose(
        by_g[:, None] * found.by_input + by_label[:, None] * u, by_x, rtol=1e-9, atol=1e-12
    )
    norms = np.stack(
        [np.linalg.norm(part, axis=1) for part in np.split(matrix, [36, 72, 108], axis=1)], axis=1
    )
    np.testing.assert_allclose(found.layer_norms(), norms, rtol=1e-9, atol=1e-12)


def test_depth_multiplies_the_identity_and_turns_nothing() -> None:
    """(β + 1)⟨x_i, x_j⟩ for orthogonal weights: the lesson of the experiment, exactly."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((7, 9))
    for depth in (0, 1, 5):
        q = np.linalg.qr(rng.standard_normal((depth, 9, 9)))[0] if depth else ()
        last = rng.standard_normal((1, 9))
        found = scale.gradients([*q, last / np.linalg.norm(last)], x, "identity")
        np.testing.assert_allclose(found.gram(), (depth + 1) * x @ x.T, rtol=1e-9)
    run = drain(SCALE, SCALE.preset(activation="identity", n=20, nets=3, seeds=2))
    np.testing.assert_allclose(
        run.last("eta")[:, 5:].mean(0) / run.last("eta")[:, 5].mean(), LAYERS / 2, rtol=0.6
    )
    assert verdict("C6", run).word == "holds"


@given(
    st.integers(0, 10_000), st.integers(0, 6), st.sampled_from(["identity", "tanh", "relu"]), st.booleans()
)
@tries(max_examples=40, deadline=None)
def test_lemma_d1_holds_for_all_small_weights(seed: int, depth: int, activation: str, logistic: bool) -> None:
    """A constant of the lemma that weights of norm 1 exceed."""
    rng = np.random.default_rng(seed)
    weights = [w / np.linalg.norm(w, 2) for w in rng.standard_normal((depth, 4, 4))]
    weights.append(rng.standard_normal((1, 4)))
    weights[-1] /= np.linalg.norm(weights[-1])
    x, u = rng.standard_normal((20, 4)), rng.standard_normal(4)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1)
    settings = SCALE.preset(activation=activation, loss="logistic" if logistic else "square")
    assert (scale._lemma(weights, x, u / np.linalg.norm(u), settings) <= 1 + 1e-12).all()


def test_what_breaks_lemma_d1() -> None:
    """The sigmoid, whose hidden vectors are longer than 1, and weights that are not small."""
    rng = np.random.default_rng(0)
    square = np.linalg.qr(rng.standard_normal((400, 400)))[0]
    settings = SCALE.preset(activation="sigmoid")
    shares = scale._lemma([square, np.tile([[0.05, -0.05]], 200)], np.eye(400)[:5], np.eye(400)[0], settings)
    assert shares[0] > 1 and math.isfinite(shares.max())
    for changes, named in (({"activation": "sigmoid"}, "|σ(z)/z|"), ({"norm": 1.2}, "Assumption 1")):
        run = drain(SCALE, SCALE.preset(**CHEAP["scale"], seeds=2, **changes))
        for claim in SCALE.claims:
            assert judge(claim, run).word == "out of regime" and named in judge(claim, run).reason
        assert run.figure((run,)).png()[:4] == b"\x89PNG"
    run = drain(SCALE, SCALE.preset(**CHEAP["scale"], seeds=2, norm=1.5))
    assert run.last("shares").max() > 1
    relu = drain(SCALE, SCALE.preset(**CHEAP["scale"], seeds=2, activation="relu"))
    assert verdict("C5", relu).word == "out of regime" and "jump of σ′" in verdict("C5", relu).reason
    assert verdict("C6", relu).word == "holds"


def test_confusion_of_a_network_is_that_of_a_double_loop() -> None:
    """η from cosines, the smallest cosine at the pair of the smallest product, a dead sample's 0/0."""
    x = np.array([[10.0, 0], [-1, 1], [-0.01, 0], [0, 0]])
    found = scale.Gradients(np.zeros(4), (np.ones((4, 1)),), (x,), x)
    worst, eta = scale._confusion(found, np.ones(4), "square")
    assert worst == pytest.approx(1) and eta == pytest.approx(10)


# Hessians.


def test_worst_points_are_the_worst() -> None:
    """A w at which another is worse, or a basis that is too small where 2r > d."""
    rng = np.random.default_rng(0)
    for d, r in ((6, 2), (5, 3)):
        a, b = rng.standard_normal((2, 4, d, r))
        worst, product = hessian.worst_points(a, b)
        H, K = (m @ m.transpose(0, 2, 1) for m in (a, b))
        np.testing.assert_allclose(product, np.linalg.norm(H @ K, 2, axis=(1, 2)), rtol=1e-9)
        np.testing.assert_allclose(np.linalg.norm(worst, axis=1), 1)
        least = np.einsum("pd,pde,pe->p", worst, H @ K, worst)
        np.testing.assert_allclose(least, np.linalg.eigvalsh(H @ K + K @ H)[:, 0] / 2, rtol=1e-8)
        np.testing.assert_allclose(
            (hessian.gradients(a, worst, 0) * hessian.gradients(b, worst, 0)).sum(-1), least
        )


def test_gradients_have_the_hessian_and_its_lipschitz_constant() -> None:
    """A curvature that changes the Hessian at 0, or a third derivative above the constant."""
    rng = np.random.default_rng(0)
    a, c = rng.standard_normal((5, 2)), 1.7
    jacobian = [(hessian.gradients(a, e, c) - hessian.gradients(a, -e, c)) / 2e-5 for e in 1e-5 * np.eye(5)]
    np.testing.assert_allclose(np.transpose(jacobian), a @ a.T, atol=1e-8)
    L = hessian.THIRD * c * np.linalg.norm(a, 2) ** 3
    for w in rng.standard_normal((200, 5)) * rng.uniform(0, 2, (200, 1)):
        error = hessian.gradients(a, w, c) - a @ a.T @ w
        assert np.linalg.norm(error) <= L / 2 * (w**2).sum()
    z = np.linspace(0, 2, 20_001)
    third = 2 * np.tanh(z) / np.cosh(z) ** 2
    assert third.max() == pytest.approx(hessian.THIRD, rel=1e-6)


@pytest.mark.parametrize("changes", [{"curvature": 0.0}, {"rank": 1}, {"radius": 2.0, "curvature": 2.0}])
def test_the_bound_of_appendix_c_holds_elsewhere(changes: dict[str, Any]) -> None:
    """An inequality that holds at the quick preset only; no gradients are more opposed than their ranges."""
    run = drain(HESSIAN, HESSIAN.preset(n=6, seeds=2, **changes))
    assert (run.last("share") <= 1).all() and verdict("C14", run).parts[0].word == "holds"
    assert (run.last("random_cosine") <= run.last("cosine") * (1 + 1e-9)).all()
    assert (run.last("share_printed") <= run.last("share")).all()


def test_a_rank_too_large_for_an_exponent_is_said() -> None:
    """A slope of fewer than two dimensions."""
    run: Run = drain(HESSIAN, HESSIAN.preset(n=3, rank=32, seeds=2))
    found = verdict("C14", run)
    assert found.word == "undecided" and "lower rank" in found.reason
