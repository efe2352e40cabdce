"""How far do the lemmas stand above what noise does? (E13; paper 2, Lemmas 1 and 2, Theorem 1)

All weights of a learned network get noise of one standard deviation σ. With the activations kept, the output
changes by no more than Lemma 1 says; activations that flip add what Lemma 2 says; both together bound the
expected sharpness (Theorem 1). The constants μ, C₂, C₃ are measured on the same network. Lemma 1 is a
theorem; Lemma 2 and Theorem 1 are stated up to a constant, taken as 1 here, so for them "at most" is our
reading. As a guarantee Theorem 1 needs a loss in [0, 1], such as the cross-entropy cut off at 1, which has
the same Lipschitz constant; a prior N(0, σ²); and δ shared among the σ that are tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from labkit import figures, training
from labkit.labs import common
from labkit.labs.generalization import shared
from labkit.labs.generalization.conditions import PAPER, Deep, Setup, learn, looked_at, prepare
from labkit.measure.conditions import Conditions, linear_perturbation
from labkit.measure.sharpness import expected_sharpness
from labkit.protocol.claims import Claim
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import AtMost, Evidence
from labkit.protocol.settings import knob
from labkit.theory import generalization as theory

DECADES, EACH = 3, 2  # of σ, and places in each
ERRORS = 5.0  # standard errors that a mean of draws may lie past its bound
DELTA = 0.05
VAST = 1e30
BOUNDS = ("lemma1", "lemma2", "theorem1", "total")


@dataclass(frozen=True)
class Perturbation(Deep):
    sigma: float = knob(
        0.03, "largest standard deviation σ of the noise; three decades below it are looked at",
        slider=(1e-3, 0.3), bounds=(1e-6, 100), scale="log", label="largest σ", remeasures=True,
    )  # fmt: skip
    draws: int = knob(20, "draws of the noise", slider=(10, 100), bounds=(2, None), step=10, remeasures=True)

    @property
    def sigmas(self) -> np.ndarray:
        return np.geomspace(self.sigma / 10**DECADES, self.sigma, DECADES * EACH + 1)


def bounds(settings: Perturbation, found: Conditions, sigma: float) -> dict[str, np.ndarray]:
    """Lemma 1, Lemma 2 and Theorem 1's sharpness of each sample, (n,), and Theorem 1 as a whole.

    μ is that of the sample itself, over the products from the input on, which the lemmas use.
    """
    gamma = theory.gammas(sigma, found.dims, found.mu_input.numpy(), found.masked_norms.numpy())
    size = found.output_norm.numpy()
    c_delta = theory.activation_constant(len(found.dims) - 1, max(found.dims), DELTA)
    c2, c3 = float(found.c2.max()), float(found.c3.max())
    sharpness = theory.theorem1_sharpness(gamma, c2, c3, c_delta, size)
    delta = DELTA / len(settings.sigmas)
    total = theory.theorem1(_capped(sharpness.mean()), found.norms.numpy(), sigma, settings.n, delta)
    return {
        "gamma": gamma,
        "lemma1": theory.lemma1(gamma, size),
        "lemma2": theory.lemma2(gamma, c2, c3, c_delta, size),
        "flips": theory.lemma2_flips(gamma, c2, c_delta)[:, :-1],
        "theorem1": sharpness,
        "total": np.asarray(total),
    }


def _capped(value: float) -> float:
    """Bounds leave the range of float64 before the noise is large; one this size says nothing either."""
    return float(min(value, VAST))


def predict(setup: Setup) -> Prediction:
    """The bounds at initialisation, relative to the output, before any training."""
    settings = setup.settings
    rows = []
    for s, model in enumerate(setup.models):
        found = looked_at(setup, model, s)
        size = found.output_norm.numpy().mean()
        each = [bounds(settings, found, float(sigma)) for sigma in settings.sigmas]
        rows.append({name: [_capped(one[name].mean() / size) for one in each] for name in BOUNDS[:2]})
    return common.stacked(rows) | {"sigmas": settings.sigmas}


def run(setup: Setup, prediction: Prediction) -> Iterator[Frame]:
    sigmas, seeds = prediction["sigmas"], len(setup.models)

    def now(ensemble: training.Ensemble) -> dict[str, np.ndarray]:
        model, values = ensemble.member(0), dict[str, np.ndarray]()
        found = looked_at(setup, model, 0)
        for place in range(2):  # enough to be seen as a line
            at = _at(setup, model, found, 0, float(sigmas[place]))
            common.gather(values, (seeds, len(sigmas)), (0, place), at)
        return values

    ensemble, outcome = yield from learn(setup, 0, (0.0, 0.5), now)
    if outcome.word == "diverged":
        return
    models = [ensemble.member(s) for s in range(seeds)]
    known = []
    for s, model in enumerate(models):
        known.append(looked_at(setup, model, s))
        yield Frame.tick(0, 0.5)
    fitted_to = zip(models, shared.samples(setup.sets[0]), strict=True)
    loss = np.array([common.fitted(model, *samples)[0] for model, samples in fitted_to])

    def look(place: int, s: int) -> dict[str, float]:
        return _at(setup, models[s], known[s], s, float(sigmas[place]))

    for frame in common.sweep(look, seeds, [1.0] * len(sigmas), outcome.missed, 0.5):
        yield frame if frame.is_tick else replace(frame, values={**frame.values, "loss": loss})


def _at(setup: Setup, model: nn.Module, found: Conditions, seed: int, sigma: float) -> dict[str, float]:
    """What one σ does to one network, beside what the lemmas allow."""
    settings, one = setup.settings, setup.sets[0][seed]
    x, y = one.x_train[: settings.samples], one.y_train[: settings.samples]
    # The same noise at every σ, scaled: curves are smooth long before a value is exact.
    moved = linear_perturbation(model, x, sigma, draws=settings.draws, generator=seed)
    rise = expected_sharpness(
        model, x, y, alphas=[sigma], draws=settings.draws, relative=0.0, generator=seed
    )  # fmt: skip
    allowed, size = bounds(settings, found, sigma), found.output_norm.numpy()
    change, error = moved.frozen.numpy(), moved.error.numpy()
    # Worst over samples, and over layers for flips: an inequality must hold at each.
    shares = {
        "share1": ((change - ERRORS * moved.frozen_stderr.numpy()) / allowed["lemma1"]).max(),
        "share2": ((error - ERRORS * moved.error_stderr.numpy()) / allowed["lemma2"]).max(),
        "share_flips": (moved.flips.numpy().mean(0) / allowed["flips"].mean(0)).max(),
    }
    average = size.mean()
    return {
        "change": change.mean() / average, "error": error.mean() / average,
        "flips": float(moved.flips.mean()),
        "full": float(moved.full.mean()) / average, "flips_bound": _capped(allowed["flips"].mean()),
        "lemma1": _capped(allowed["lemma1"].mean() / average),
        "lemma2": _capped(allowed["lemma2"].mean() / average),
        "sharpness": float(rise.mean[0]), "stderr": float(rise.stderr[0]),
        "theorem1": _capped(allowed["theorem1"].mean()), "total": float(allowed["total"]), **shares,
    }  # fmt: skip


def figure(frames: Frames, prediction: Prediction, settings: Perturbation | None = None) -> figures.Chart:
    sigmas = prediction["sigmas"]
    panels = []
    for title, name, bound, words, ylabel in (
        ("Activations kept", "change", "lemma1", "Lemma 1", "change / |f(x)|"),
        ("What flips add", "error", "lemma2", "Lemma 2", "change / |f(x)|"),
        ("The loss", "sharpness", "theorem1", "Theorem 1", "expected sharpness"),
    ):
        allowed, found = (common.seen(frames, one, len(sigmas)) for one in (bound, name))
        trivial = 1.0 if name != "sharpness" else np.log(settings.classes if settings else 10)
        marks: list[figures.Mark] = [
            figures.Bound(sigmas, allowed, label=words, color=3),
            figures.Measured(sigmas, found, label="measured", color=shared.TRUE),
            figures.Level(trivial, label="says nothing above" if name != "sharpness" else "ln K"),
        ]
        if bound in prediction:
            marks[:0] = [figures.Predicted(sigmas, prediction[bound], f"{words}, at the start", 3)]
        panels.append(figures.Panel(title, marks, "σ", ylabel, xscale="log", yscale="log", ylim=(1e-6, 1e3)))
    says = "What noise on the weights changes, below what the lemmas and Theorem 1 allow."
    return figures.Chart.of(settings, says, *panels)


def _bounded(run: Run) -> tuple[Evidence, ...]:
    sigmas = run.prediction["sigmas"]
    checks, allowed = shared.trained(run), {name: run.last(name) for name in BOUNDS}
    sharp = (run.last("sharpness") - ERRORS * run.last("stderr")) / allowed["theorem1"]
    room = [
        allowed[bound] / np.maximum(np.abs(run.last(name)), 1 / VAST)
        for name, bound in (("change", "lemma1"), ("error", "lemma2"), ("sharpness", "theorem1"))
    ]
    nothing = (1.0, 1.0, float(np.log(run.settings.classes)))
    notes = [
        f"{words} over what is measured: {_least_most(ratio)}; {_from(sigmas, allowed[name], level)}"
        for words, ratio, name, level in zip(
            ("Lemma 1", "Lemma 2", "Theorem 1's sharpness"), room, BOUNDS, nothing, strict=False
        )
    ]
    least = allowed["total"].min()
    notes[2] += f"; all of Theorem 1 at least {least:.3g}"
    return (
        Evidence(run.last("share1"), 1.0, checks=checks, note=notes[0]),
        Evidence(run.last("share2"), 1.0, checks=checks, note=notes[1]),
        Evidence(run.last("share_flips"), 1.0, checks=checks),
        Evidence(sharp, 1.0, checks=checks, vacuous=bool(least >= 1.0), note=notes[2]),
    )


def _least_most(ratio: np.ndarray) -> str:
    mean = np.median(ratio, axis=0)
    return f"{mean.min():.2g} to {mean.max():.2g} times"


def _from(sigmas: np.ndarray, values: np.ndarray, level: float) -> str:
    """Where a bound starts to say nothing."""
    past = np.flatnonzero(np.median(values, axis=0) >= level)
    return f"vacuous from σ = {sigmas[past[0]]:.1g}" if len(past) else "nowhere vacuous"


E13 = Claim(
    "E13", "theorem",
    "With the constants of the network itself, Lemma 1 bounds the change of the output with activations "
    "kept, Lemma 2 (constant 1) what flips add and how many there are, Theorem 1 the expected sharpness.",
    "paper 2, Lemmas 1 and 2, Theorem 1",
    (
        AtMost("change of the output with activations kept, over Lemma 1"),
        AtMost("what flips add to it, over Lemma 2"),
        AtMost("share of units that flip, over Lemma 2's"),
        AtMost("expected sharpness, over that of Theorem 1"),
    ),
    _bounded, "holds",
    {"holds": "true at every σ; Lemma 1 is within a factor of ten or so, Lemma 2 is far off, "
     "and as a guarantee Theorem 1 is without content here",
     "fails": "a measured change exceeds its bound",
     "undecided": "the network has not been trained to its end"},
)  # fmt: skip

PERTURBATION = Experiment(
    "perturbation", "How far do the lemmas stand above what noise does?", Perturbation,
    {
        "quick": Perturbation(),
        "paper": Perturbation(**PAPER, samples=50, draws=1000),
    },
    prepare, predict, run, figure, (E13,), controls=("sigma", "width", "hidden", "n", "stop"),
)  # fmt: skip
