"""Where does learning go fast, and why is the truth learned first?
The residual on the information and the nuisance space (Def. 1.1, eq. 5.11, Lemma 6.2; J4, J7, J18, J19).

The theory is told before training: with J the Jacobian at the start, the residual of the linearised network
is r̃_τ = (I − ηJJᵀ)^τ r₀, so the part along a left singular vector u_s shrinks by 1 − ηλ_s² a step. What is
learned of wrong labels on the way is known, too, and so is the step after which more is lost than won.
Network: (1.1), gradient descent on ½‖f − y‖² (1.3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labkit import data, figures, training
from labkit.labs import common
from labkit.labs.jacobian import shared
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.memory import once
from labkit.protocol.rules import EVERY, AtMost, Between, Equals, Evidence
from labkit.protocol.settings import knob
from labkit.theory import jacobian as theory

FIRST = 5  # steps after which the network is compared with the formula
SPACES = ("on I", "on N")


@dataclass(frozen=True)
class Residuals(common.OnData):
    width: int = knob(512, "hidden units k", slider=(16, 4096), bounds=(1, None), scale="log2")
    depth: int = knob(1, "hidden layers; 1 is the network of (1.1)", slider=(1, 4), bounds=(1, 50), step=1)
    label_noise: float = shared.label_noise(0.5)
    lr: float = shared.learning_rate(
        0.9,
        "learning rate in units of 1/λ₁²; the theorem asks for at most 1, and 2 is the edge of stability",
        (0.05, 4),
        most=1e3,
    )
    rank: int = knob(
        25, "dimension r of the information space", slider=(1, 100), bounds=(1, None), step=1, remeasures=True
    )
    steps: int = knob(400, "steps of gradient descent", slider=(50, 2000), bounds=(1, None), scale="log")
    activation: str = knob("softplus", "activation φ", choices=("softplus", "relu", "tanh"))
    output_std: float = shared.output_std(most=2)
    n: int = knob(160, "training images", slider=(30, 400), bounds=(4, None), step=10)
    classes: int = knob(5, "classes K", slider=(2, 10), bounds=(2, None), step=1)
    dataset: str = knob("digits", "name of a data set, or path to an .npz")

    @property
    def limits(self) -> Mapping[str, tuple[int, str]]:
        return {"rank": (self.n * self.classes - 1, "n·K - 1, for a label space of n·K,")}


def prepare(settings: Residuals) -> shared.Labelled:
    return shared.small_outputs(settings, settings.depth, settings.activation)


def predict(setup: shared.Labelled) -> Prediction:
    """From the Jacobian at the start, alone: the curves of (5.11), how long the gradients of right and wrong
    labels are, and the step to stop at.
    """
    settings, steps = setup.settings, np.array(common.measured_steps(setup.settings.steps))
    each = zip(setup.models, setup.sets, setup.targets, strict=True)
    found = common.stacked([once(_at_the_start, *one) for one in each])
    start = np.linalg.norm(found["coefficients"], axis=1)
    # One learning rate for all seeds, from the steepest of them.
    lr = settings.lr / max(float(spectrum[0]) ** 2 for spectrum in found["spectrum"])
    both = list(zip(found["spectrum"], found["coefficients"], strict=True))
    parts = [theory.residual_parts(*one, settings.rank, lr, steps) for one in both]
    noise, path = _noise(settings.label_noise, settings.classes), np.arange(settings.steps + 1)
    return found | {
        "told": np.array([once(theory.fresh_loss, *one, noise, lr, path).argmin() for one in both]),
        "guess": np.asarray(1 - 1 / settings.classes),
        "steps": steps, "rank": np.asarray(settings.rank), "lr": np.asarray(lr), "start": start,
        "information": np.array([p.information for p in parts]) / start[:, None],
        "nuisance": np.array([p.nuisance for p in parts]) / start[:, None],
    }  # fmt: skip


def _noise(share: float, classes: int) -> float:
    """Variance of strict label noise in each direction of label space."""
    return (1 - (1 - share) ** 2 - share**2 / (classes - 1)) / classes


def _at_the_start(model: nn.Module, one: data.Dataset, y: Tensor) -> dict[str, Any]:
    """Spectrum and left singular vectors of J, the residual in these, and lengths of gradients."""
    values, basis = shared.gram_spectrum(model, one.x_train)
    residual = shared.residual(model, one.x_train, y)
    return {
        "spectrum": values.cpu().numpy(),
        "basis": np.ascontiguousarray(basis.cpu().numpy()),
        "coefficients": (basis.T @ residual).cpu().numpy(),
        "gradients": _gradients(values, basis, residual, y, one),
    }


def _gradients(
    values: Tensor, basis: Tensor, residual: Tensor, y: Tensor, one: data.Dataset
) -> list[list[float]]:
    """Of right and of wrong labels: mean ‖J_iᵀr_i‖ of an image, and ‖Σ_i J_iᵀ(y_i − 1/K)‖ by their number."""
    n, classes = y.shape
    images = values * (basis.unflatten(0, (n, classes)) * residual.view(n, classes, 1)).sum(1)
    labels = (y.double() - 1 / classes).flatten()
    found = []
    for chosen in (one.y_train == one.clean_train, one.y_train != one.clean_train):
        summed = values * (basis.T @ (labels * chosen.repeat_interleave(classes)))
        found.append([float(images[chosen].norm(dim=1).mean()), float(summed.norm() / chosen.sum())])
    return found


def run(
    setup: shared.Labelled,
    prediction: Prediction,
    *,
    project: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]] = shared.project,
) -> Iterator[Frame]:
    """Trains all seeds at once and projects their residuals;
    `project` is the step that the notebook spells out.
    """
    settings = setup.settings
    bases = torch.as_tensor(prediction["basis"]).to(settings.device)
    x, x_test, y_test = common.together(setup.sets, "x_train", "x_test", "y_test")
    y_train, clean = common.together(setup.sets, "y_train", "clean_train")
    y, right = torch.stack(setup.targets), y_train == clean

    def measure(ensemble: nn.Module) -> np.ndarray:
        with torch.no_grad():
            outputs, test = ensemble(x), ensemble(x_test)
        residuals = (outputs.double() - y.double()).flatten(1)
        parts = [project(basis, r, settings.rank) for basis, r in zip(bases, residuals, strict=True)]
        shares = common.stack([torch.stack(pair) for pair in parts]) / prediction["start"][:, None]
        each = (outputs - y).norm(dim=2)
        kinds = [(each * chosen).sum(1) / chosen.sum(1) for chosen in (right, ~right)]
        errors = common.error_rate(outputs, y_train), common.error_rate(test, y_test)
        return np.column_stack([shares, *(kind.cpu().numpy() for kind in kinds), *errors])

    names = ("information", "nuisance", "right", "wrong", "train_error", "test_error")
    how = {"loss": "half-sum", "lr": float(prediction["lr"]), "measure_at": prediction["steps"].tolist()}
    yield from shared.train(setup, training.Ensemble(setup.models), names, measure, **how)


def figure(frames: Frames, prediction: Prediction, settings: Residuals | None = None) -> figures.Chart:
    guess = figures.Level(float(prediction["guess"]), label="guessing, 1 − 1/K")
    stop = figures.Level(float(prediction["told"].mean()), axis="x", label="stop, told before")
    errors = shared.measured(
        frames, ("train_error", "training labels", shared.TRAIN), ("test_error", "test", shared.TEST)
    )
    kinds = shared.measured(
        frames, ("right", "right labels", shared.INFORMATION), ("wrong", "wrong labels", shared.NUISANCE)
    )
    end = int(prediction["steps"][-1])
    across: dict[str, Any] = {"xlabel": "step τ", "xscale": "symlog", "xlim": (0, end)}
    return figures.Chart.of(
        settings,
        "The residual on information and nuisance space while a network trains, its errors, and the "
        "residuals of right and of wrong labels.",
        figures.Panel(
            "Residual, by part of label space", _parts(frames, prediction), ylabel="‖Π r‖ / ‖r₀‖",
            yscale="log", ylim=(1e-3, 1.5), **across,
        ),
        figures.Panel(
            "Error rate", (guess, *errors, stop), ylabel="share of wrong classes", ylim=(0, 1), **across
        ),
        figures.Panel(
            "Training labels apart", kinds, ylabel="mean ‖f(x_i) − y_i‖", ylim=(0, None), **across
        ),
    )  # fmt: skip


def _parts(frames: Frames, prediction: Prediction) -> list[figures.Mark]:
    """The residual on I and on N, predicted and trained."""
    marks: list[figures.Mark] = []
    for name, label, color in (
        ("information", "on I (top r)", shared.INFORMATION),
        ("nuisance", "on N (the rest)", shared.NUISANCE),
    ):
        told = prediction["steps"], prediction[name]
        marks.append(figures.Predicted(*told, label=f"{label}, predicted", color=color))
        marks += shared.measured(frames, (name, f"{label}, trained", color))
    return marks


def _follows_the_formula(run: Run) -> tuple[Evidence, Evidence]:
    steps, inside = run.series("information")
    first = min(FIRST, run.settings.steps)
    if not len(steps) or steps[-1] < first:
        raise ValueError(f"the run has not come to step {first}")
    at = int(np.searchsorted(steps, first, side="right")) - 1
    parts = np.stack([inside, run.series("nuisance")[1]], axis=-1)  # (T, S, 2)
    predicted = np.stack([run.prediction[name][:, at] for name in ("information", "nuisance")], axis=-1)
    left = parts / parts[0]
    end = f"at step {steps[-1]} {left[-1, :, 0].mean():.2g} of the part on I is left, "
    return (
        Evidence(parts[at], predicted, note=f"{end}{left[-1, :, 1].mean():.2g} of the part on N"),
        Evidence(left[at, :, 1] - left[at, :, 0]),
    )


def _gradient_lengths(run: Run) -> tuple[Evidence, Evidence]:
    found = run.prediction["gradients"]  # (S, right or wrong, image or sum)
    if np.isnan(found).any():
        raise ValueError("there are no right or no wrong labels")
    ratio = found[:, 0] / found[:, 1]
    image, summed = (f"right {a:.2g}, wrong {b:.2g}" for a, b in found.mean(axis=0).T)
    return Evidence(ratio[:, 0], note=image), Evidence(ratio[:, 1], note=summed)


def _stopping(run: Run) -> tuple[Evidence, Evidence]:
    steps, error = run.series("test_error")
    if not len(steps) or steps[-1] < run.settings.steps:
        raise ValueError("the run has not come to its end")
    told, each = run.prediction["told"], np.arange(error.shape[1])
    there, least, end = (
        error[np.searchsorted(steps, told, side="right") - 1, each],
        error.min(axis=0),
        error[-1],
    )
    alpha = 1 / np.sqrt(np.maximum(told, 1) * run.prediction["lr"])
    rank = (run.prediction["spectrum"] >= alpha[:, None]).sum(axis=1)
    dips = steps[error.argmin(axis=0)]
    note = (
        f"told {told.min()} to {told.max()}, dip at {dips.min()} to {dips.max()}; told is Γ/(ηα²) for Γ = 1 "
        f"and α = λ_r, r = {rank.min()} to {rank.max()}"
    )
    means = [f"{values.mean():.2f}" for values in (least, there, end)]
    errors = f"errors {means[0]} at the dip, {means[1]} where told, {means[2]} at the end"
    rise = np.where(end > least, end - least, np.inf)
    return Evidence((end - there) / rise, note=note), Evidence(end - least, note=errors)


def _early_stopping_value(run: Run) -> tuple[Evidence, Evidence, Evidence]:
    """Lemma 6.2 at every cutoff α = λ_r and several Γ, from the measured spectrum and residual."""
    found = []
    for spectrum, coefficients in zip(
        run.prediction["spectrum"], run.prediction["coefficients"], strict=True
    ):
        bounds = []
        for gamma in (1.0, 2.0, 5.0, 20.0):
            for rank in range(1, min(len(spectrum), 200), 3):
                alpha = float(spectrum[rank - 1])
                if alpha <= 1e-8 * spectrum[0]:
                    break
                cut = (spectrum, coefficients, rank, alpha, gamma)
                bound = theory.early_stopping_bounds(*cut)
                bounds.append((bound.lower, theory.early_stopping_value(*cut), bound.upper, bound.crude))
        found.append(np.array(bounds))
    sizes = min(len(bounds) for bounds in found)
    below, b, above, crude = np.stack([bounds[:sizes] for bounds in found], axis=1).T
    note = f"over {sizes} pairs (α, Γ) a seed"
    return Evidence(below, b, note=note), Evidence(b, above), Evidence(above, crude)


def _blind(datasets: Callable[..., Any]) -> Callable[..., tuple[data.Dataset, ...]]:
    """A fault: images in another order than their labels, right and wrong."""

    def faulty(*args: Any, **kwargs: Any) -> tuple[data.Dataset, ...]:
        shuffled = []
        for one in datasets(*args, **kwargs):
            order = torch.randperm(one.n, generator=torch.Generator().manual_seed(0))
            shuffled.append(replace(one, x_train=one.x_train[order]))
        return tuple(shuffled)

    return faulty


J4 = Claim(
    "J4", "prediction",
    "In its first steps the residual of the network follows (I − ηJJᵀ)^τ r₀, told before training: it falls "
    "fast on I and slowly on N.",
    "paper 4, (5.11) and Lemma 6.5",
    (
        Equals(f"‖Π r‖/‖r₀‖ at step {FIRST}", SPACES, tolerance=0.05, absolute=True),
        Between(f"share left at step {FIRST}, on N minus on I", low=0.3, by=EVERY),
    ),
    _follows_the_formula,
    says={
        "holds": "the network follows the formula in its first steps and keeps more of N than of I",
        "fails": "the network does not follow the formula, or keeps no more of N than of I",
    },
    worlds=(
        World("16 hidden units", {"width": 16}),
        World("the rows of J in another order", faults={f"{__name__}:shared.jacobian": shared.shuffled_rows}),
    ),
)  # fmt: skip
J7 = Claim(
    "J7", "theorem",
    "‖Π_I r₀‖·α/λ₁ ≤ B_{α,Γ} ≤ (‖Π_I r₀‖² + Γ²‖Π_N r₀‖²)^½ ≤ Γ‖r₀‖ "
    "for every cutoff α and stopping time Γ ≥ 1.",
    "paper 4, Lemma 6.2",
    (
        AtMost("‖Π_I r₀‖·α/λ₁, below B"), AtMost("B, below (‖Π_I r₀‖² + Γ²‖Π_N r₀‖²)^½"),
        AtMost("(‖Π_I r₀‖² + Γ²‖Π_N r₀‖²)^½, below Γ‖r₀‖"),
    ),
    _early_stopping_value,
    says={"holds": "the early-stopping value lies between its bounds for every α and Γ tried",
          "fails": "a bound is violated"},
)  # fmt: skip

J18 = Claim(
    "J18", "finding",
    "At the start the gradients of right and of wrong labels are as long, image by image; summed over "
    "images, what right labels ask for is longer: they agree with each other, and wrong ones do not.",
    "paper 4, §1 and §4: why the truth is learned first",
    (
        Between("mean ‖J_iᵀr_i‖ of an image, right over wrong labels", low=0.8, high=1.25, by=EVERY),
        Between("‖Σ_i J_iᵀ(y_i − 1/K)‖ / n, right over wrong labels", low=1.25, by=EVERY),
    ),
    _gradient_lengths,
    says={"holds": "image by image nothing tells right labels from wrong ones; their sums do",
          "fails": "right labels have longer gradients image by image, or their sum is no longer"},
    worlds=(World("labels that say nothing of the images", faults={f"{__name__}:common.datasets": _blind}),),
)  # fmt: skip
J19 = Claim(
    "J19", "prediction",
    "The step at which spectrum and labels of the first Jacobian promise the least loss on fresh labels, "
    "told before training, is so near to the dip of the test error that stopping there avoids half or more "
    "of what it rises afterwards.",
    "paper 4, Thm 2.2 with (5.11); Figs. 6 and 12",
    (
        Between("share of the rise after the dip that stopping at the step told avoids", low=0.5, by=EVERY),
        Between("test error, end minus dip", low=0.05, by=EVERY),
    ),
    _stopping,
    says={"holds": "the dip is met: stopping at the step told avoids most of the rise after it",
          "fails": "the dip is missed: the step told is no good place to stop, or there is no dip"},
    worlds=(
        World("16 hidden units and outputs that are not small, ν = 2", {"output_std": 2.0, "width": 16}),
        World("no wrong labels", {"label_noise": 0.0}),
    ),
)  # fmt: skip

RESIDUALS = Experiment(
    "residuals", "Where does learning go fast, and where does label noise go?", Residuals,
    {
        "quick": Residuals(),
        "paper": Residuals(dataset="mnist", n=400, classes=10, width=4096, rank=50, steps=2000),
    },
    prepare, predict, run, figure, (J4, J7, J18, J19),
    controls=("width", "depth", "label_noise", "lr", "rank", "steps"),
)  # fmt: skip
