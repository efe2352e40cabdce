"""Where does learning go fast?
The residual on the information and the nuisance space (Def. 1.1, eq. 5.11, Lemma 6.2).

The theory is told before training: with J the Jacobian at the start, the residual of the linearised network
is r̃_τ = (I − ηJJᵀ)^τ r₀, so the part along a left singular vector u_s shrinks by 1 − ηλ_s² a step. Network:
(1.1), gradient descent on ½‖f − y‖² (1.3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from labkit import data, figures, training
from labkit.labs import common
from labkit.labs.jacobian import shared
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Prediction, Run
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
    label_noise: float = knob(
        0.0, "share of training labels moved to a strictly different class", slider=(0, 1), step=0.05,
        label="label noise (strict)",
    )  # fmt: skip
    lr: float = knob(
        0.9,
        "learning rate in units of 1/λ₁²; the theorem asks for at most 1, and 2 is the edge of stability",
        slider=(0.05, 4),
        bounds=(1e-6, 1e3),
        scale="log",
        label="learning rate",
    )
    rank: int = knob(
        15, "dimension r of the information space", slider=(1, 100), bounds=(1, None), step=1, remeasures=True
    )
    steps: int = knob(400, "steps of gradient descent", slider=(50, 2000), bounds=(1, None), scale="log")
    activation: str = knob("softplus", "activation φ", choices=("softplus", "relu", "tanh"))
    output_std: float = knob(
        0.1, "ν: the output layer has variance ν²/k", slider=(0.01, 2), bounds=(1e-6, 1e3), scale="log",
        label="output scale ν",
    )  # fmt: skip
    n: int = knob(120, "training images", slider=(30, 400), bounds=(4, None), step=10)
    classes: int = knob(3, "classes K", slider=(2, 10), bounds=(2, None), step=1)
    dataset: str = knob("digits", "name of a data set, or path to an .npz")

    @property
    def limits(self) -> Mapping[str, tuple[int, str]]:
        return {"rank": (self.n * self.classes - 1, "n·K - 1, for a label space of n·K,")}


@dataclass(frozen=True)
class Setup:
    settings: Residuals
    sets: tuple[data.Dataset, ...]
    models: tuple[nn.Module, ...]
    targets: tuple[Tensor, ...]
    steps: tuple[int, ...]

    @property
    def x(self) -> tuple[Tensor, ...]:
        return tuple(one.x_train for one in self.sets)


def prepare(settings: Residuals) -> Setup:
    sets = common.datasets(
        settings, n_test=300, normalize="standardize+unit-length", label_noise=settings.label_noise
    )
    models = tuple(
        shared.network(
            one.x_train.shape[1],
            settings.width,
            settings.depth,
            settings.classes,
            activation=settings.activation,
            output_std=settings.output_std,
            seed=seed,
            device=settings.device,
        )
        for one, seed in zip(sets, common.seeds(settings), strict=True)
    )
    targets = tuple(data.one_hot(one.y_train, settings.classes) for one in sets)
    return Setup(settings, sets, models, targets, tuple(common.measured_steps(settings.steps)))


def predict(setup: Setup) -> Prediction:
    """The curves of (5.11) from the Jacobian at the start, alone."""
    rank, steps = setup.settings.rank, np.asarray(setup.steps)
    spectra, bases, coefficients = [], [], []
    for model, x, y in zip(setup.models, setup.x, setup.targets, strict=True):
        values, basis = once(shared.gram_spectrum, model, x)
        spectra.append(values.cpu().numpy())
        bases.append(basis.cpu().numpy())
        coefficients.append((basis.T @ shared.residual(model, x, y)).cpu().numpy())
    # One learning rate for all seeds, from the steepest of them.
    lr = setup.settings.lr / max(float(spectrum[0]) ** 2 for spectrum in spectra)
    start = np.linalg.norm(coefficients, axis=1)
    parts = [theory.residual_parts(s, c, rank, lr, steps) for s, c in zip(spectra, coefficients, strict=True)]
    return {
        "steps": steps, "rank": np.asarray(rank), "lr": np.asarray(lr), "start": start,
        "spectrum": np.array(spectra), "basis": np.array(bases), "coefficients": np.array(coefficients),
        "information": np.array([p.information for p in parts]) / start[:, None],
        "nuisance": np.array([p.nuisance for p in parts]) / start[:, None],
    }  # fmt: skip


def run(
    setup: Setup,
    prediction: Prediction,
    *,
    project: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]] = shared.project,
) -> Iterator[Frame]:
    """Trains all seeds at once and projects their residuals;
    `project` is the step that the notebook spells out.
    """
    settings = setup.settings
    bases = torch.as_tensor(prediction["basis"]).to(settings.device)
    x_test = torch.stack([one.x_test for one in setup.sets])
    y_test = torch.stack([one.y_test for one in setup.sets])
    y_train = torch.stack([one.y_train for one in setup.sets])
    x, y = torch.stack(setup.x), torch.stack(setup.targets)

    def measure(ensemble: nn.Module) -> np.ndarray:
        with torch.no_grad():
            outputs, test = ensemble(x), ensemble(x_test)
        residuals = (outputs.double() - y.double()).flatten(1)
        parts = [project(basis, r, settings.rank) for basis, r in zip(bases, residuals, strict=True)]
        shares = common.stack([torch.stack(pair) for pair in parts]) / prediction["start"][:, None]
        return np.column_stack([shares, common.error_rate(outputs, y_train), common.error_rate(test, y_test)])

    names = ("information", "nuisance", "train_error", "test_error")
    frames = training.train(
        training.Ensemble(setup.models), list(x), list(y), loss="half-sum", lr=float(prediction["lr"]),
        steps=settings.steps, measure={"parts": measure}, measure_at=setup.steps, seed=settings.seed,
    )  # fmt: skip
    for frame in frames:
        values = dict(frame.values)
        parts = values.pop("parts", None)
        if parts is not None:
            values |= {name: parts[:, column] for column, name in enumerate(names)}
        yield Frame(frame.step, values, frame.progress, frame.status, frame.note)


def figure(
    frames: Sequence[Frame],
    prediction: Prediction,
    previous: Sequence[Run] = (),
    settings: Residuals | None = None,
) -> figures.Chart:
    left: list[figures.Mark] = []
    right: list[figures.Mark] = []
    for old in previous:
        for name in ("information", "nuisance"):
            label = "earlier run" if name == "information" else ""
            left.append(figures.Earlier(*common.curve(old.frames, name), label=label))
        right.append(figures.Earlier(*common.curve(old.frames, "test_error"), label="earlier run (test)"))
    for name, label, color in (
        ("information", "on I (top r)", shared.INFORMATION),
        ("nuisance", "on N (the rest)", shared.NUISANCE),
    ):
        left.append(
            figures.Predicted(prediction["steps"], prediction[name], label=f"{label}, predicted", color=color)
        )
        steps, values = common.curve(frames, name)
        left.append(figures.Measured(steps, values, label=f"{label}, trained", color=color))
    for name, label, color in (
        ("train_error", "training", shared.TRAIN),
        ("test_error", "test", shared.TEST),
    ):
        steps, values = common.curve(frames, name)
        right.append(figures.Measured(steps, values, label=label, color=color))
    end = int(prediction["steps"][-1])
    return figures.Chart(
        (
            figures.Panel(
                "Residual, by part of label space", tuple(left), xlabel="step τ", ylabel="‖Π r‖ / ‖r₀‖",
                xscale="symlog", yscale="log", xlim=(0, end), ylim=(1e-3, 1.5),
            ),
            figures.Panel(
                "Error rate", tuple(right), xlabel="step τ", ylabel="share of wrong classes", xscale="symlog",
                xlim=(0, end), ylim=(0, 1),
            ),
        ),
        caption=figures.caption(
            "The residual on information and nuisance space while a network trains, and its errors.", settings
        ),
    )  # fmt: skip


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


def _early_stopping_value(run: Run) -> tuple[Evidence, Evidence, Evidence]:
    """Lemma 6.2 at every cutoff α = λ_r and several Γ, from the measured spectrum and residual."""
    stores: tuple[list[np.ndarray], ...] = ([], [], [], [])
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
        for store, column in zip(stores, np.array(bounds).T, strict=True):
            store.append(column)
    sizes = min(len(column) for column in stores[0])
    below, b, above, crude = (np.stack([column[:sizes] for column in store]) for store in stores)
    note = f"over {sizes} pairs (α, Γ) a seed"
    return Evidence(below, b, note=note), Evidence(b, above), Evidence(above, crude)


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

RESIDUALS = Experiment(
    "residuals", "Where does learning go fast, and where does label noise go?", Residuals,
    {
        "quick": Residuals(),
        "paper": Residuals(
            dataset="mnist", n=400, classes=10, width=4096, rank=50, steps=2000, label_noise=0.5
        ),
    },
    prepare, predict, run, figure, (J4, J7),
    controls=("width", "depth", "label_noise", "lr", "rank", "steps"),
)  # fmt: skip
