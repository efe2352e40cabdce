"""Can one step make the Jacobian low-rank? Linear-teacher data and a single large step (J15, App. D).

After it every hidden weight points along ±θ, so samples are active in two patterns only, of rank d each: rank
2d.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit import data, figures, models
from labkit.labs import common
from labkit.labs.jacobian import shared
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import EVERY, Between, Evidence, Located
from labkit.protocol.settings import Settings, knob, on_cpu
from labkit.theory import jacobian as theory

ORDER = 2.0  # "of order √(d/n)": within this factor, either way


@dataclass(frozen=True)
class OneStep(Settings):
    inputs: int = knob(5, "input dimension d", slider=(2, 12), bounds=(1, None), step=1)
    n: int = knob(500, "samples", slider=(50, 1000), bounds=(10, None), step=50)
    width: int = knob(400, "hidden units k", slider=(50, 1000), bounds=(2, None), step=50)
    step_size: float = knob(
        100.0,
        "how many times its start the step moves a weight",
        slider=(0.1, 1000),
        bounds=(0, 1e9),
        scale="log",
        label="step size",
    )
    device: str = on_cpu()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % 2:
            raise ValueError(f"width must be even: half of V is positive (App. D); got {self.width}")
        if 4 * self.inputs >= self.n:
            raise ValueError(f"n must be more than 4·inputs = {4 * self.inputs}; got {self.n}")


def prepare(settings: OneStep) -> common.Setup:
    seeds, exact = common.seeds(settings), torch.float64
    draws = tuple(data.linear_teacher(settings.n, settings.inputs, seed=seed, dtype=exact) for seed in seeds)
    how: dict[str, Any] = {"activation": "relu", "output_std": 1e-4, "readout": "half", "dtype": exact}
    nets = tuple(models.one_hidden(settings.inputs, settings.width, 1, seed=seed, **how) for seed in seeds)
    return common.Setup(settings, draws, nets)


def predict(setup: common.Setup) -> Prediction:
    """The rank 2d, the order √(d/n) of what is left, and the spectrum if W₁ pointed along ±θ exactly."""
    settings, ideal = setup.settings, []
    for (x, _, theta), model in zip(setup.sets, setup.models, strict=True):
        aligned = torch.sign(model.V).T * theta[None, :]
        ideal.append(_spectrum(x, aligned, model.V))
    return {
        "rank": np.asarray(theory.adaptation_rank(settings.inputs)),
        "order": np.asarray(theory.adaptation_tail(settings.inputs, settings.n)),
        "ideal": np.array(ideal),
    }


def _spectrum(x: Tensor, W: Tensor, V: Tensor) -> np.ndarray:
    """Singular values of J(W)/(‖v‖‖X‖), descending: rows are v_s·1[w_s·x_i > 0]·x_i."""
    active = (x @ W.T > 0).to(x.dtype) * V
    eigenvalues = torch.linalg.eigvalsh((active @ active.T) * (x @ x.T)).flip(0).clamp(min=0)
    return (eigenvalues.sqrt() / (V.norm() * torch.linalg.matrix_norm(x, 2))).numpy()


def run(setup: common.Setup, prediction: Prediction) -> Iterator[Frame]:
    settings = setup.settings
    before, after = [], []
    for (x, y, _), model in zip(setup.sets, setup.models, strict=True):
        before.append(_spectrum(x, model.W.detach(), model.V))
        loss = ((model(x)[:, 0] - y) ** 2).sum() / (2 * settings.n)
        (gradient,) = torch.autograd.grad(loss, [model.W])
        # The step that moves a typical row by `step_size` times its own length.
        size = settings.step_size * model.W.detach().norm() / gradient.norm()
        after.append(_spectrum(x, model.W.detach() - size * gradient, model.V))
        yield Frame.tick(0)
    yield Frame(0, {"before": np.array(before)}, 0.5)
    yield Frame(1, {"after": np.array(after)}, 1.0, "done")


def figure(frames: Frames, prediction: Prediction, settings: OneStep | None = None) -> figures.Chart:
    rank = int(prediction["rank"])
    index, ideal = np.arange(1, 4 * rank + 1), prediction["ideal"][:, :rank]
    marks: list[figures.Mark] = [
        figures.Predicted(index[:rank], ideal, label="weights along ±θ", color=shared.INFORMATION)
    ]
    for name, label, color in (
        ("before", "before the step", shared.TRAIN),
        ("after", "after one step", shared.INFORMATION),
    ):
        if (found := common.newest(frames, name)) is not None:
            marks.append(figures.Measured(index, found[:, : len(index)], label=label, color=color))
    order = figures.Level(float(prediction["order"]), label="√(d/n)")
    marks += [figures.Level(rank, axis="x", label="2d"), order]
    return figures.Chart.of(
        settings, "Singular values of the Jacobian before and after one step of gradient descent.",
        figures.Panel(
            "Singular values of J / (‖v‖‖X‖)", marks, xlabel="index s", ylabel="σₛ", yscale="log",
            xlim=(0, len(index)),
        ),
    )  # fmt: skip


def _rank_2d(run: Run) -> tuple[Evidence, Evidence, Evidence]:
    rank, order = int(run.prediction["rank"]), float(run.prediction["order"])
    after = run.last("after")
    ratio = shared.neighbours(after[:, : 2 * rank + 1])
    energy = (after[:, :rank] ** 2).sum(axis=1) / (after**2).sum(axis=1)
    # The first value stands apart too (the mean of the active samples): the knee is looked for after it.
    place = ratio[:, 1:].argmax(axis=1) + 2
    gap = ratio[:, rank - 1].mean()
    return (
        Evidence(place, rank, note=f"σ_2d/σ_(2d+1) = {gap:.2g}"),
        Evidence(after[:, rank] / order, note=f"√(d/n) = {order:.2g}"),
        Evidence(energy),
    )


J15 = Claim(
    "J15", "prediction",
    "After one large step on linear-teacher data the Jacobian has about rank 2d: "
    "the gap is there, σ_(2d+1) is of order √(d/n), and the top 2d values carry nearly all of the energy.",
    "paper 4, App. D (D.1)",
    (
        Located("index of the largest gap after the first value"),
        Between("σ_(2d+1) / √(d/n)", low=1 / ORDER, high=ORDER, by=EVERY),
        Between("share of the energy in the top 2d values", low=0.9, by=EVERY),
    ),
    _rank_2d,
    says={"holds": "the gap is at 2d and what is left is of order √(d/n)",
          "fails": "the gap is not at 2d, or what is left is not of order √(d/n)"},
    worlds=(World("a step of a tenth of the start", {"step_size": 0.1}),),
)  # fmt: skip

ONESTEP = Experiment(
    "one-step", "Can one step make the Jacobian low-rank?", OneStep,
    {"quick": OneStep(), "paper": OneStep(inputs=10, n=2000, width=1000, seeds=5)},
    prepare, predict, run, figure, (J15,), controls=("inputs", "n", "width", "step_size"),
)  # fmt: skip
