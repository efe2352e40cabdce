"""Where to cut?
The three terms of Thm 2.2 against the cutoff (J8), and the bound from a later start, Thm 2.3 (J9).

A small cutoff α takes more of the labels into I and asks for more steps, T = Γ/(ηα²), and a longer way from
the start. Network: (1.1) with a small output layer, so that r₀ ≈ −y, gradient descent on ½‖f − y‖².
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labkit import figures, training
from labkit.labs import common
from labkit.labs.jacobian import shared
from labkit.measure import rows
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import EVERY, AtMost, Between, Evidence
from labkit.protocol.settings import knob
from labkit.theory import jacobian as theory
from labkit.theory import kernels

ITERATES = (0.0, 0.02, 0.1, 0.4, 1.0)  # of the run, at which J is taken again (Thm 2.3)


@dataclass(frozen=True)
class Cutoff(common.OnData):
    width: int = knob(1024, "hidden units k", slider=(64, 4096), bounds=(1, None), scale="log2")
    label_noise: float = shared.label_noise(0.25)
    duration: float = shared.duration(3.0, most=8)
    steps: int = shared.steps(1500, "longest training; cutoffs that ask for more are left out")
    lr: float = shared.learning_rate(
        0.9, "learning rate in units of 1/λ₁²; the theorem asks for at most 1", (0.1, 1.5), most=10
    )
    output_std: float = shared.output_std(most=1)
    n: int = knob(150, "training images", slider=(30, 300), bounds=(10, None), step=10)
    classes: int = knob(3, "classes K", slider=(2, 10), bounds=(2, None), step=1)
    dataset: str = knob("digits", "name of a data set, or path to an .npz")


def prepare(settings: Cutoff) -> shared.Labelled:
    return shared.small_outputs(settings)


def predict(setup: shared.Labelled) -> Prediction:
    """The three terms at the cutoffs λ_r of ν·Σ(X)^½, the analytic kernel; the step T at which each is read;
    and the order of the width that (2.2) asks for there, and (2.4) for all of label space.
    """
    settings, found = setup.settings, []
    n, gamma, outputs = settings.n, settings.duration, settings.classes
    both = zip(setup.models, setup.x, strict=True)
    beta = max(float(shared.gram_values(model, x)[0]) for model, x in both)
    lr = settings.lr / beta**2
    ranks = np.unique(np.geomspace(1, 0.9 * n * outputs, 40).round().astype(int))
    for x, y in zip(setup.x, setup.targets, strict=True):
        kernel = kernels.mntk_full(x.double().cpu().numpy(), outputs, "softplus")
        eigenvalues, vectors = np.linalg.eigh(kernel)
        spectrum = np.sqrt(np.maximum(eigenvalues[::-1], 0))
        labels = vectors[:, ::-1].T @ y.double().cpu().numpy().reshape(-1)
        terms = theory.tradeoff(spectrum, labels, n, gamma, outputs=outputs, cutoffs=spectrum[ranks - 1])
        found.append(
            {
                "bias": terms.bias,
                "variance": terms.variance,
                "total": terms.total,
                "cutoff": terms.cutoff,
                "step": np.ceil(gamma / (lr * (settings.output_std * terms.cutoff) ** 2)),
                "nuisance": terms.bias * np.sqrt(n),
                "width": [theory.width_condition(alpha, n, gamma) for alpha in terms.alpha],
                "full_rank": theory.full_rank_width(n, outputs, max(float(eigenvalues[0]), 1e-12), gamma),
            }
        )
    return common.stacked(found) | {"ranks": ranks, "lr": np.asarray(lr)}


def run(setup: shared.Labelled, prediction: Prediction) -> Iterator[Frame]:
    settings = setup.settings
    wanted = np.unique(prediction["step"][prediction["step"] <= settings.steps]).astype(int)
    iterates = [round(share * settings.steps) for share in ITERATES]
    x, x_test, y_test = common.together(setup.sets, "x_train", "x_test", "y_test")
    y = torch.stack(setup.targets)

    def measure(ensemble: training.Ensemble) -> np.ndarray:
        with torch.no_grad():
            residual, test = ensemble(x) - y, ensemble(x_test)
        norms = residual.flatten(1).norm(dim=1).cpu().numpy()
        return np.column_stack([norms, common.error_rate(test, y_test)])

    ensemble = training.Ensemble(setup.models)
    names, looks = ("residual", "test_error"), sorted({0, settings.steps, *wanted.tolist(), *iterates})
    how = {"loss": "half-sum", "lr": float(prediction["lr"]), "measure_at": looks}
    for frame in shared.train(setup, ensemble, names, measure, **how):
        if frame.values and frame.step in iterates and frame.status != "diverged":
            frame = replace(frame, values={**frame.values, "later_bound": _bounds(setup, ensemble)})
        yield frame


def _bounds(setup: shared.Labelled, ensemble: training.Ensemble) -> np.ndarray:
    """Thm 2.3's sum at the present weights, at its best cutoff, for each seed:
    from r_τ, and from y instead of it.
    """
    settings, found = setup.settings, []
    given = settings.n, settings.duration
    # The theorem's output layer has entries of at most ν/√(kK); ours has ν/√k.
    nu = settings.output_std * np.sqrt(settings.classes)
    for seed, (x, y) in enumerate(zip(setup.x, setup.targets, strict=True)):
        model = ensemble.member(seed)
        spectrum, basis = shared.gram_spectrum(model, x)
        scaled = (spectrum / nu).cpu().numpy()
        parts = [(basis.T @ v).cpu().numpy() for v in (shared.residual(model, x, y), rows(y.double()))]
        found.append([theory.tradeoff(scaled, v, *given, start="given").total.min() for v in parts])
    return np.array(found)


def figure(frames: Frames, prediction: Prediction, settings: Cutoff | None = None) -> figures.Chart:
    ranks, read = prediction["ranks"], _read(frames, prediction)
    how, full = settings or Cutoff(), float(prediction["full_rank"].mean())
    loss: list[figures.Mark] = []
    if read is not None:
        kept, residual, _ = read
        scale = prediction["nuisance"][0, 0] / prediction["bias"][0, 0]  # √n
        bound = (prediction["nuisance"] / scale + np.exp(-how.duration))[:, kept]
        loss = [
            figures.Bound(ranks[kept], bound, label="bound on the training loss", color=shared.TRAIN),
            figures.Points(ranks[kept], residual / scale, label="‖f − y‖/√n at step T", color=shared.TRAIN),
        ]
    return figures.Chart.of(
        settings,
        "The terms of the bound for each rank of the information space, what training gave, and the width "
        "that the theorem asks for.",
        figures.Panel(
            "Three terms against the cutoff", _terms(prediction, read), xlabel="rank r of I (smaller α →)",
            ylabel="share", xscale="log", yscale="log",
        ),
        figures.Panel(
            "Training loss at step T", loss, xlabel="rank r of I (smaller α →)", ylabel="‖f − y‖/√n",
            xscale="log", xlim=(1, float(ranks[-1])),
        ),
        figures.Panel(
            "Width against bias",
            (
                figures.Predicted(
                    np.exp(np.log(prediction["width"]).mean(axis=0)), prediction["bias"],
                    label="order of k in (2.2)", color=shared.NUISANCE,
                ),
                figures.Level(float(how.width), axis="x", label="ours"),
                figures.Level(full, axis="x", label="(2.4): N empty"),
            ),
            xlabel="width k", ylabel="‖Π_N y‖/√n", xscale="log",
            xlim=(10, 10 * full), ylim=(0, None),
        ),
    )  # fmt: skip


def _terms(
    prediction: Prediction, read: tuple[np.ndarray, np.ndarray, np.ndarray] | None
) -> list[figures.Mark]:
    """The three terms over the rank, and the test error that came of them."""
    ranks = prediction["ranks"]
    terms: list[figures.Mark] = [
        figures.Predicted(ranks, prediction["bias"], label="‖Π_N y‖/√n", color=shared.NUISANCE),
        figures.Predicted(ranks, prediction["variance"], label="Γ/(α√n)", color=shared.INFORMATION),
        figures.Predicted(ranks, prediction["total"], label="sum with e^(−Γ)", color=shared.TRAIN),
    ]
    if read is not None:
        kept, _, error = read
        terms.append(figures.Points(ranks[kept], error, label="test error at step T", color=shared.TEST))
    best = int(ranks[prediction["total"].mean(axis=0).argmin()])
    return [*terms, figures.Level(best, axis="x", label="least sum")]


def _read(
    frames: Sequence[Frame], prediction: Prediction
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Residual norm and test error of each seed at the step T of each cutoff that was reached:
    (kept, (S, G), (S, G)).
    """
    steps, residual = common.curve(frames, "residual")
    _, error = common.curve(frames, "test_error")
    if not len(steps):
        return None
    kept = np.flatnonzero((prediction["step"] <= steps[-1]).all(axis=0))
    if not len(kept):
        return None
    where = np.searchsorted(steps, prediction["step"][:, kept])
    seeds = np.arange(len(residual))[:, None]
    return kept, residual[seeds, where], error[seeds, where]


def _three_terms(run: Run) -> tuple[Evidence, Evidence]:
    read = _read(run.frames, run.prediction)
    if read is None:
        raise ValueError("no cutoff has been reached yet")
    kept, residual, error = read
    settings, total = run.settings, run.prediction["total"][:, kept]
    n, gamma = settings.n, settings.duration
    bound = run.prediction["nuisance"][:, kept] + np.exp(-gamma) * np.sqrt(n)
    mean = run.prediction["total"].mean(axis=0)
    best = mean.argmin()
    alpha = theory.relative_cutoff(float(run.prediction["cutoff"][:, best].mean()), n, settings.classes)
    width = theory.width_condition(alpha, n, gamma)
    return (
        Evidence(residual, bound, note=f"{len(kept)} cutoffs; (2.2) asks for a width of order {width:.0e}"),
        Evidence(
            error, total, vacuous=bool((mean >= 1 - 1 / settings.classes).all()),
            note=f"least sum {mean.min():.2g} at r = {run.prediction['ranks'][best]}, {mean[0]:.2g} at r = 1",
        ),
    )  # fmt: skip


def _later_starts(run: Run) -> tuple[Evidence, Evidence]:
    steps, bounds = run.series("later_bound")
    if len(steps) < len(ITERATES):
        raise ValueError("the run has not come to its last iterate")
    at = f"at τ = {', '.join(str(s) for s in steps)}: "
    return tuple(
        Evidence(1 - sums[-1] / sums[0], note=at + ", ".join(f"{b:.3g}" for b in sums.mean(axis=1)))
        for sums in np.moveaxis(bounds, 2, 0)  # of the residual, of the labels: (T, S)
    )  # type: ignore[return-value]


def _turned(gram_spectrum: Callable[..., Any]) -> Callable[..., tuple[Tensor, Tensor]]:
    """A fault: a Jacobian whose first direction is what the network says, reflected there with all others."""

    def faulty(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        spectrum, basis = gram_spectrum(model, x)
        with torch.no_grad():
            said = rows(model(x).double())
        normal = basis[:, 0] - said / said.norm()
        normal = normal / normal.norm()
        return spectrum, basis - 2 * torch.outer(normal, normal @ basis)

    return faulty


J8 = Claim(
    "J8", "prediction",
    "After T = Γ/(ηα²) steps ‖f − y‖ ≤ ‖Π_N y‖ + e^(−Γ)√n, and the error is at most "
    "‖Π_N y‖/√n + e^(−Γ) + Γ/(α√n): read with constants 1, at a width far below the theorem's.",
    "paper 4, Thm 2.2 (2.2), (2.3)",
    (AtMost("‖f − y‖ at step T, at every cutoff"), AtMost("test error at step T, at every cutoff")),
    _three_terms,
    says={"holds": "loss and test error stay below their sums at every cutoff",
          "fails": "a sum is exceeded at some cutoff"},
    worlds=(World("outputs at the start that are not small, ν = 1", {"output_std": 1.0}),),
)  # fmt: skip
J9 = Claim(
    "J9", "finding",
    "Taken at later iterates the sum of Thm 2.3 is smaller, and not only because less is left to learn: "
    "with the labels in place of the residual it falls, too, by a tenth.",
    "paper 4, Thm 2.3",
    (
        Between("fall of the sum, from first to last iterate", low=0.25, by=EVERY),
        Between("the same with y in place of r_τ, so that only J changes", low=0.1, by=EVERY),
    ),
    _later_starts,
    expected="fails",
    says={"holds": "the later Jacobian alone gives a smaller sum",
          "fails": "the sum falls because the residual is trained away; the later Jacobian alone gives "
                   "hardly a smaller one"},
    worlds=(
        World("a Jacobian that turns wholly to what the network has learned",
              faults={f"{__name__}:shared.gram_spectrum": _turned}, word="holds"),
    ),
    because="the least sum lies at the first few directions, where the price of distance decides and not "
    "how the labels align",
)  # fmt: skip

CUTOFF = Experiment(
    "cutoff", "Where to cut: which α promises the least error?", Cutoff,
    {"quick": Cutoff(), "paper": Cutoff(dataset="mnist", n=300, classes=10, width=8192, steps=20_000)},
    prepare, predict, run, figure, (J8, J9), controls=("width", "label_noise", "lr", "duration", "steps"),
)  # fmt: skip
