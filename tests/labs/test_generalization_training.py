"""Lab 2, the trained experiments: claims decided as expected, and able to fail; honest ends of every kind."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from labkit import models, training
from labkit.labs.generalization import shared
from labkit.labs.generalization.confusion import CONFUSION
from labkit.labs.generalization.images import IMAGES
from labkit.labs.generalization.images import MEASURES as ON_IMAGES
from labkit.labs.generalization.labels import LABELS
from labkit.labs.generalization.width import WIDTH
from labkit.protocol.experiment import Experiment, Run, drain
from labkit.protocol.judging import judge
from tests.labs.checks import TrainingTests, changed, constant, quick_runs, replaced, verdict

EXPERIMENTS = (LABELS, IMAGES, CONFUSION, WIDTH)
CHEAP: dict[str, dict[str, Any]] = {
    "labels": {"n": 90, "width": 32},
    "images": {"n": 60, "width": 2},
    "confusion": {"n": 20, "confusion": 16, "width": 32},
    "width": {"n": 30, "narrowest": 8, "width": 32},
}
SMALL = {"classes": 3, "stop": 0.03, "epochs": 400, "draws": 2, "ascent": 3, "seeds": 2, "n_test": 60}

# Where nothing depends on how far training gets.
TINY = {"stop": 0.3, "epochs": 100, "ascent": 1, "seeds": 1, "n_test": 30}


def cheap(experiment: Experiment, **changes: Any) -> Any:
    return experiment.preset(**(SMALL | CHEAP[experiment.name] | changes))


def swapped(values: np.ndarray) -> np.ndarray:
    """True and random labels exchanged."""
    return values[:, :, ::-1]


def by_size(values: np.ndarray) -> np.ndarray:
    """The order of sizes or widths reversed."""
    return values[:, ::-1]


def even_gap(values: np.ndarray) -> np.ndarray:
    """Random labels twice as high as true ones at every m: ordered, but without a widening gap."""
    return np.stack([values[:, :, 0], 2 * values[:, :, 0]], axis=2)


def below(factor: float) -> Any:
    """Random labels at a share of what true ones have, at every m."""
    return lambda values: np.stack([values[:, :, 0], factor * values[:, :, 0]], axis=2)


def falling(run: Run) -> Run:
    """A run of E10 and E16 in which every measure falls with each doubling of the width, as the paper has it
    up to 128 units.
    """
    halves = 0.5 ** np.arange(len(run.settings.widths))
    return changed(run, **dict.fromkeys((*shared.MEASURES, "divergence"), lambda v: v[:, :1] * halves))


def staying(run: Run) -> Run:
    """A run of E15 in which sharpness stays on the training samples, too."""
    return replaced(run, "sharpness_own", "sharpness")


class TestTrained(TrainingTests):
    lab = "generalization"
    experiments = EXPERIMENTS
    quick = staticmethod(quick_runs(EXPERIMENTS))
    # What each claim must refuse: a run in which one thing is not as it says.
    violated = {
        "E1": [
            *(lambda run, name=name: changed(run, **{name: swapped}) for name in shared.MEASURES),
            *(lambda run, name=name: changed(run, **{name: by_size}) for name in shared.MEASURES),
            *(lambda run, name=name: changed(run, **{name: even_gap}) for name in shared.MEASURES),
        ],
        "E6": [
            # Sharpness orders the labels in every seed and at every m, rightly or wrongly.
            lambda run: changed(run, sharpness=even_gap, rescaled=lambda v: 3 * even_gap(v)),
            lambda run: changed(run, sharpness=below(0.8), rescaled=lambda v: 3 * below(0.8)(v)),
            # Rescaling leaves it alone.
            lambda run: replaced(run, "rescaled", "sharpness"),
        ],
        "E7": [
            lambda run: changed(run, divergence=swapped),
            lambda run: changed(run, divergence=by_size),
            lambda run: changed(run, divergence=even_gap),
        ],
        "E8": [
            lambda run: changed(run, pac_bayes=lambda v: v / 10),
            lambda run: changed(run, gaussian=lambda v: v / 100),
            lambda run: changed(run, gaussian=lambda v: v / 10),
            lambda run: changed(run, test_noisy=lambda v: v + 2),
        ],
        "E9": [
            lambda run: changed(run, test_error=by_size),
            *(lambda run, name=name: changed(run, **{name: by_size}) for name in shared.MEASURES),
            *(lambda run, name=name: changed(run, **{name: np.ones_like}) for name in shared.MEASURES),
            lambda run: changed(run, divergence=by_size),
            lambda run: changed(run, divergence=np.ones_like),
        ],
        "E10": [
            lambda run: changed(run, test_error=by_size),
            lambda run: changed(run, test_error=constant(0.06)),
            lambda run: changed(run, l2_path=by_size),
            *(lambda run, name=name: changed(run, **{name: np.ones_like})
              for name in ("l2", "l1_path", "divergence", "l2_path_whole", "spectral_whole")),
        ],
        "E15": [
            lambda run: replaced(run, "sharpness", "sharpness_own"),
            lambda run: changed(staying(run), sharpness_own=lambda v: v * [1, 1, 1, 1, 4]),
            lambda run: changed(staying(run), sharpness=lambda v: v * [1, 1, 1, 1, 4]),
        ],
        "E16": [
            lambda run, name=name: changed(falling(run), **{name: np.ones_like})
            for name in (*shared.MEASURES, "divergence")
        ],
        "E22": [
            lambda run, name=name, worse=worse: changed(run, **{name: worse})
            for name in ON_IMAGES for worse in (swapped, below(1.0))
        ],
    }  # fmt: skip
    cheap = {name: SMALL | settings | TINY for name, settings in CHEAP.items()}
    elsewhere = {"images": {"epochs": 2}}  # batch norm over few values, in thirteen layers
    too_fast = {name: SMALL | settings | {"lr": 50.0} for name, settings in CHEAP.items()}

    def test_the_failing_claims_can_hold(self) -> None:
        """A claim that is said to fail whatever is measured."""
        assert verdict("E15", staying(self.quick("confusion"))).word == "holds"
        assert verdict("E16", falling(self.quick("width"))).word == "holds"

    def test_only_the_bounds_are_vacuous(self) -> None:
        """A bound above one sold as knowledge."""
        for experiment in EXPERIMENTS:
            for claim in experiment.claims:
                assert verdict(claim.id, self.quick(experiment.name)).vacuous == (claim.id == "E8")

    def test_a_network_that_is_not_fitted_is_not_compared(self) -> None:
        """Minima at different losses compared, where every measure depends on where one stops."""
        for run, id in [
            *((self.quick("labels"), id) for id in ("E1", "E6", "E7")),
            (self.quick("images"), "E22"),
        ]:
            found = verdict(id, changed(run, train_error=lambda v: v + 0.1))
            assert found.word == "undecided" and "raise epochs" in found.notes

    def test_the_norm_grows_in_training_while_over_the_margin_it_falls(self) -> None:
        """Beat 2 of the story: one of the two curves turned, or the margin left out of one."""
        run = self.quick("labels")
        values, late = run.frames[-1].values, run.prediction["levels"] <= 0.11
        assert (np.diff(values["norm"][..., late]) > 0).all()
        assert (np.diff(values["l2"][..., late]) < 0).all()
        scaled = (values["l2"] * values["margin"] ** 2)[..., late]
        np.testing.assert_allclose(scaled, values["norm"][..., late], rtol=1e-6)

    def test_networks_are_looked_at_just_below_each_loss(self) -> None:
        """Looks at unequal losses, which would compare nothing."""
        run = self.quick("labels")
        loss, levels = run.last("loss"), run.prediction["levels"]
        assert (loss <= 1.01 * levels).all() and (loss[..., 1:] > 0.5 * levels[1:]).all()

    def test_the_sixth_bound_is_the_eighth(self) -> None:
        """A claim that says of two formulas that they agree where they do not."""
        run = self.quick("labels")
        five, six, K = (run.last(name) for name in ("pac_bayes", "gaussian", "complexity"))
        noisy, m = run.last("train_noisy"), run.prediction["sizes"][:, None, None]
        np.testing.assert_allclose(six, noisy + 4 * np.sqrt(K * (m - 1) / (2 * m)), rtol=1e-9)
        np.testing.assert_allclose(five, noisy + np.sqrt(noisy * K) + K, rtol=1e-9)

    def test_factors_of_width_are_what_was_dropped(self) -> None:
        """Capacities with their factors that are those without, or with another factor."""
        run = self.quick("width")
        widths = np.array(run.settings.widths, dtype=float)
        for name in ("l2_path", "spectral"):
            ratio = run.last(f"{name}_whole") / (run.last(name) * widths)
            np.testing.assert_allclose(ratio, float(ratio[0, 0]), rtol=1e-6)
        for factors, name in ((False, "spectral"), (True, "spectral_whole")):
            prediction = dict(run.prediction) | {"factors": np.array(factors)}
            marks = WIDTH.figure(run.frames, prediction).panels[1].marks
            (drawn,) = (mark.y for mark in marks if mark.label.startswith("spectral"))
            np.testing.assert_array_equal(drawn, run.last(name) / run.last(name)[:, :1])

    def test_a_figure_keeps_its_legend(self, name: str) -> None:
        """A figure whose legends come and go, so that its axes jump; one that needs its settings."""
        run, experiment = self.quick(name), self.experiment(name)
        labels = []
        for frames in ((), run.frames[:1], run.frames[: len(run.frames) // 2], run.frames):
            chart = experiment.figure(frames, run.prediction, run.settings)
            labels.append([{getattr(mark, "label", "") for mark in panel.marks} for panel in chart.panels])
        assert all(found == labels[0] for found in labels)
        assert experiment.figure((), run.prediction).png()

    def test_a_training_that_is_cut_short_is_undecided(self, name: str) -> None:
        """A traceback, or a verdict, where networks have not been fitted."""
        experiment = self.experiment(name)
        run = drain(experiment, cheap(experiment, epochs=2))
        assert run.status == "done" and "not reached" in run.frames[-1].note
        for claim in experiment.claims:
            # The bounds hold wherever a network stands.
            assert judge(claim, run).word == ("holds" if claim.id == "E8" else "undecided")
        run.figure().png()

    def test_frames_are_copies(self, name: str) -> None:
        """Values of an early frame that a later measurement changes."""
        run = self.quick(name)
        first, last = (run.frames[k].values["divergence"][..., -1] for k in (0, -1))
        assert np.isnan(first).any() and np.isfinite(last).all()


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_the_papers_network_runs_too(experiment: Experiment, tmp_path: Path) -> None:
    """A `paper` preset that nobody could run: its path, on a handful of images and a few steps."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    images = rng.integers(0, 256, (120, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "tiny.npz", x_train=images, y_train=labels, x_test=images[:12], y_test=labels[:12])
    size = {"n": 30, "narrowest": 1} if experiment is WIDTH else CHEAP[experiment.name]
    settings = experiment.preset(
        "paper", **(size | {"dataset": str(tmp_path / "tiny.npz"), "network": "vgg", "width": 2}),
        classes=3, n_test=12, epochs=2, ascent=2, draws=2, probe=30, seeds=1,
    )  # fmt: skip
    run = drain(experiment, settings)
    assert run.status == "done"
    values = run.frames[-1].values
    first = (slice(None), 0, 0, 0) if experiment in (LABELS, IMAGES) else (slice(None), 0)
    assert np.isfinite(values["norm"][first]).all() and (values["norm"][first] > 0).all()
    assert np.isfinite(values["sharpness"]).all()


def test_the_ruler_agrees_with_plain_formulas() -> None:
    """A square, a margin, a class or an axis lost between the measures and the frames."""
    settings = cheap(LABELS, draws=50, epsilon=0.1)
    one = shared.classification(settings, 30, seed=0)
    ensemble = training.Ensemble([shared.network(settings, one.shape, seed=0)])
    for _ in shared.fit(
        settings, ensemble, shared.samples([one]), loss=0.03, epochs=500, seed=0, span=(0.0, 1.0), step=0
    ):
        pass
    model = ensemble.member(0)
    found = shared.measured(settings, model, one.x_train, one.y_train)
    found |= shared.perturbed(settings, model, one.x_train, one.y_train, seed=0)

    W, V = (p.detach().double().numpy() for p in model.parameters())
    x, y = one.x_train.double().numpy(), one.y_train.numpy()
    f = np.maximum(x @ W.T, 0) @ V.T
    others = np.where(np.eye(3, dtype=bool)[y], -np.inf, f)
    gamma = np.sort(f[np.arange(30), y] - others.max(1))[math.ceil(0.1 * 30) - 1]
    expected = {
        "margin": gamma, "loss": _entropy(f, y), "train_error": 0.0,
        "norm": (W**2).sum() * (V**2).sum(),
        "l2": (W**2).sum() * (V**2).sum() / gamma**2,
        "l1_path": (np.abs(V) @ np.abs(W)).sum() ** 2 / gamma**2,
        "l2_path": (V**2 @ W**2).sum() / gamma**2,
        "spectral": (np.linalg.norm(W, 2) * np.linalg.norm(V, 2) / gamma) ** 2,
    }  # fmt: skip
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-5, abs=1e-12), name

    # The divergence at .05, found the long way: the α at which the mean rise over other noise is .05.
    w = np.concatenate([W.ravel(), V.ravel()])
    alpha = math.sqrt((w**2 / (10 * np.abs(w) + 1) ** 2).sum() / (2 * found["divergence"]))
    rng = np.random.default_rng(1)

    def noisy() -> float:
        A, B = (M + alpha * (10 * np.abs(M) + 1) * rng.standard_normal(M.shape) for M in (W, V))
        return _entropy(np.maximum(x @ A.T, 0) @ B.T, y)

    rises = np.array([noisy() for _ in range(400)]) - _entropy(f, y)
    assert rises.mean() == pytest.approx(shared.TARGET, rel=0.35)

    # The corner of the box along the gradient is a point that the climb may not miss.
    parameters = list(model.parameters())
    loss = torch.nn.functional.cross_entropy(model(one.x_train), one.y_train)
    A, B = (
        (p + settings.alpha * (p.abs() + 1) * g.sign()).detach().double().numpy()
        for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True)
    )
    corner = _entropy(np.maximum(x @ A.T, 0) @ B.T, y) - _entropy(f, y)
    assert 0.9 * corner <= found["sharpness"] <= 3 * corner


def _entropy(f: np.ndarray, y: np.ndarray) -> float:
    top = f.max(1)
    return float((np.log(np.exp(f - top[:, None]).sum(1)) + top - f[np.arange(len(f)), y]).mean())


def test_labels_without_noise_give_two_equal_networks() -> None:
    """Networks of a seed that differ in more than their labels."""
    values = drain(LABELS, cheap(LABELS, label_noise=0.0)).frames[-1].values
    for name, value in values.items():
        np.testing.assert_array_equal(value[:, :, 0], value[:, :, 1], err_msg=name)


def test_the_confusion_set_alone_has_random_labels() -> None:
    """True labels lost in the training set, kept in the confusion set, or sets that are not nested."""
    setup = CONFUSION.prepare(CONFUSION.preset(n=80, confusion=160))
    for seed, one in enumerate(setup.sets):
        x, y = setup.samples(seed, 160)
        assert torch.equal(y[:80], one.clean_train[:80]) and len(x) == 240
        assert 0.8 < float((y[80:] != one.clean_train[80:]).double().mean()) < 1.0
        for size in setup.settings.sizes:
            assert torch.equal(setup.samples(seed, size)[1], y[: 80 + size])


def test_the_nearest_neighbour_is_found_as_another_library_finds_it() -> None:
    """Test and training samples exchanged in the prediction."""
    setup = CONFUSION.prepare(cheap(CONFUSION))
    predicted = CONFUSION.predict(setup)["nearest"]
    for g, size in enumerate(setup.settings.sizes):
        x, y = setup.samples(0, size)
        neighbour = KNeighborsClassifier(1).fit(x.numpy(), y.numpy())
        error = 1 - neighbour.score(setup.sets[0].x_test.numpy(), setup.sets[0].y_test.numpy())
        assert predicted[0, g] == pytest.approx(error)


def test_no_test_sample_is_fitted() -> None:
    """Samples of the training split that join the test samples although they are trained on."""
    one = shared.classification(WIDTH.preset(n=400, n_test=1400), 400, seed=1)
    assert one.n == 400 and one.n_test == 359 + 1438 - 400
    nearest = torch.cdist(one.x_test, one.x_train).min(1).values
    own = torch.cdist(one.x_train, one.x_train).fill_diagonal_(math.inf).min(1).values
    assert nearest.min() > 0.1 * own.median()
    exact = shared.classification(WIDTH.preset(n_test=300), 400, seed=1)
    assert exact.n_test == 300 and torch.equal(exact.x_train, one.x_train)


def test_widths_double() -> None:
    """A widest network below the narrowest."""
    assert WIDTH.preset(narrowest=8, width=100).widths == (8, 16, 32, 64)
    with pytest.raises(ValueError, match="at least twice the narrowest, 16"):
        WIDTH.preset(narrowest=8, width=12)


def test_the_perceptron_has_no_biases() -> None:
    """Weights that norms do not see."""
    net = shared.network(LABELS.preset(), (64,), seed=0)
    assert isinstance(net, models.MLP) and len(list(net.parameters())) == 2


def test_the_confusion_set_may_have_true_labels() -> None:
    """A world of E9 that changes nothing."""
    setup = CONFUSION.prepare(CONFUSION.preset(label_noise=0.0, seeds=1))
    assert torch.equal(setup.samples(0, 160)[1], setup.sets[0].clean_train)
