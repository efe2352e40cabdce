"""Half the labels are wrong: why is the truth learned first?
Test error dips, then the noise is learned (J12, Fig. 6).

The test residual is projected on the information space of the test Jacobian at the dip. What falls before
the dip is on I, r of the nK directions; what comes back after it is on N. Prediction before training: what a
network that knows nothing gets wrong, 1 − 1/K.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from labkit import data, figures, krylov, models, training
from labkit.labs import common
from labkit.labs.jacobian import shared
from labkit.measure import jacobian
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Prediction, Run
from labkit.protocol.rules import EVERY, Between, Evidence
from labkit.protocol.settings import knob

PROJECTED = 200  # test images whose residual is projected


@dataclass(frozen=True)
class Corruption(common.OnData):
    width: int = knob(64, "hidden units a layer", slider=(16, 256), bounds=(1, None), scale="log2")
    depth: int = knob(2, "hidden layers", slider=(1, 5), bounds=(1, 50), step=1)
    label_noise: float = knob(
        0.5,
        "share of training labels moved to a strictly different class",
        slider=(0, 1),
        step=0.05,
        label="label noise (strict)",
    )
    lr: float = knob(
        0.1,
        "learning rate, with momentum .9, on (1/2n)‖f − y‖²",
        slider=(0.01, 0.5),
        bounds=(1e-6, 100),
        scale="log",
        label="learning rate",
    )
    steps: int = knob(
        1000,
        "steps of full-batch gradient descent with momentum",
        slider=(200, 5000),
        bounds=(10, None),
        scale="log",
    )
    rank: int = knob(
        50, "dimension r of the information space", slider=(5, 200), bounds=(1, None), step=5, remeasures=True
    )
    n: int = knob(200, "training images", slider=(50, 800), bounds=(10, None), step=50)
    classes: int = knob(10, "classes K", slider=(2, 10), bounds=(2, None), step=1)
    dataset: str = knob("digits", "name of a data set, or path to an .npz")


@dataclass(frozen=True)
class Setup:
    settings: Corruption
    sets: tuple[data.Dataset, ...]
    models: tuple[nn.Module, ...]


def prepare(settings: Corruption) -> Setup:
    sets = common.datasets(settings, n_test=300, normalize="none", label_noise=settings.label_noise)
    nets = tuple(
        models.mlp(
            one.x_train.shape[1], settings.width, settings.depth, settings.classes, init="glorot", seed=seed,
            device=settings.device,
        )
        for one, seed in zip(sets, common.seeds(settings), strict=True)
    )  # fmt: skip
    return Setup(settings, sets, nets)


def predict(setup: Setup) -> Prediction:
    """Before training:
    guessing errs on 1 − 1/K of the test set, and a perfect fit on 0 of the training set.
    """
    return {"guess": np.asarray(1 - 1 / setup.settings.classes), "steps": np.asarray(setup.settings.steps)}


def run(setup: Setup, prediction: Prediction) -> Iterator[Frame]:
    settings = setup.settings
    x = torch.stack([one.x_train for one in setup.sets])
    y = torch.stack([data.one_hot(one.y_train, settings.classes) for one in setup.sets])
    labels = torch.stack([one.y_train for one in setup.sets])
    x_test = torch.stack([one.x_test for one in setup.sets])
    y_test = torch.stack([one.y_test for one in setup.sets])
    truth = data.one_hot(y_test.flatten(), settings.classes).unflatten(0, y_test.shape)
    best = [np.inf] * settings.seeds
    dips: list[nn.Module] = [setup.models[0]] * settings.seeds
    kept: list[Tensor] = []
    kept_steps: list[int] = []

    def measure(ensemble: training.Ensemble) -> np.ndarray:
        with torch.no_grad():
            train, test = ensemble(x), ensemble(x_test)
        errors = common.error_rate(test, y_test)
        kept.append((test - truth)[:, :PROJECTED].flatten(1))
        for seed, error in enumerate(errors):
            if error < best[seed]:
                best[seed], dips[seed] = float(error), ensemble.member(seed)
        return np.column_stack([common.error_rate(train, labels), errors])

    frames = training.train(
        training.Ensemble(setup.models),
        list(x),
        list(y),
        loss="half-mean",
        lr=settings.lr,
        momentum=0.9,
        steps=settings.steps,
        measure={"errors": measure},
        measure_at=common.measured_steps(settings.steps, 60),
        seed=settings.seed,
    )
    for frame in frames:
        values = dict(frame.values)
        errors = values.pop("errors", None)
        if errors is not None:
            kept_steps.append(frame.step)
            values |= {"train_error": errors[:, 0], "test_error": errors[:, 1]}
        ending = frame.status != "running"
        if ending:  # the last frame waits for the projections
            yield Frame(frame.step, values, 0.9)
            parts = []
            for seed, dip in enumerate(dips):
                parts.append(_projections(setup, seed, dip, kept[: len(kept_steps)]))
                yield Frame.tick(frame.step, 0.9 + 0.1 * (seed + 1) / len(dips))
            inside, outside = (np.array(part) for part in zip(*parts, strict=True))
            where = np.tile(np.array(kept_steps), (len(dips), 1))
            values |= {"test_information": inside, "test_nuisance": outside, "test_steps": where}
        progress = 1.0 if ending else 0.9 * (frame.progress or 0.0)
        yield Frame(frame.step, values, progress, frame.status, frame.note)


def _projections(
    setup: Setup, seed: int, dip: nn.Module, residuals: Sequence[Tensor]
) -> tuple[np.ndarray, np.ndarray]:
    """Test residuals of the whole run on I and on N of the test Jacobian at the dip, over √n: each (T,)."""
    x = setup.sets[seed].x_test[:PROJECTED]
    rank = min(setup.settings.rank, len(x) * setup.settings.classes - 1)
    top = krylov.svd(jacobian(dip, x), rank).U
    R = torch.stack([residual[seed] for residual in residuals])
    inside = (R @ top.to(R.dtype)).norm(dim=1)
    outside = (R.norm(dim=1) ** 2 - inside**2).clamp(min=0).sqrt()
    scale = np.sqrt(len(x))
    return inside.cpu().numpy() / scale, outside.cpu().numpy() / scale


def figure(
    frames: Sequence[Frame],
    prediction: Prediction,
    previous: Sequence[Run] = (),
    settings: Corruption | None = None,
) -> figures.Chart:
    errors: list[figures.Mark] = [
        figures.Earlier(*common.curve(old.frames, "test_error"), label="earlier run (test)")
        for old in previous
    ]
    errors.append(figures.Level(float(prediction["guess"]), label="guessing"))
    for name, label, color in (
        ("train_error", "training labels", shared.TRAIN),
        ("test_error", "test", shared.TEST),
    ):
        errors.append(figures.Measured(*common.curve(frames, name), label=label, color=color))
    parts: list[figures.Mark] = []
    found = next((frame.values for frame in reversed(frames) if "test_nuisance" in frame.values), None)
    if found is None:
        parts.append(figures.Note("drawn when training ends: it needs the Jacobian at the dip"))
    else:
        steps = found["test_steps"][0]
        parts.append(
            figures.Measured(steps, found["test_information"], label="on I", color=shared.INFORMATION)
        )
        parts.append(figures.Measured(steps, found["test_nuisance"], label="on N", color=shared.NUISANCE))
        dip = steps[common.curve(frames, "test_error")[1].mean(axis=0)[: len(steps)].argmin()]
        parts.append(figures.Level(float(dip), axis="x", label="dip"))
    end = int(prediction["steps"])
    return figures.Chart(
        (
            figures.Panel(
                "Error rate",
                tuple(errors),
                xlabel="step",
                ylabel="share of wrong classes",
                xscale="symlog",
                xlim=(0, end),
                ylim=(0, 1),
            ),
            figures.Panel(
                "Test residual on I and N of J at the dip",
                tuple(parts),
                xlabel="step",
                ylabel="‖Π r‖ / √n",
                xscale="symlog",
                xlim=(0, end),
                ylim=(0, None),
            ),
        ),
        caption=figures.caption(
            "Errors while a network learns partly wrong labels, and its test residual in two parts.", settings
        ),
    )


def _u_shape(run: Run) -> tuple[Evidence, Evidence, Evidence]:
    error = common.curve(run.frames, "test_error")[1]
    parts = np.stack([run.last("test_information"), run.last("test_nuisance")])  # (2, S, T)
    dip = error[:, : parts.shape[2]].argmin(axis=1)
    each = np.arange(len(dip))
    energy = parts**2
    start, least, end = energy[:, :, 0], energy[:, each, dip], energy[:, :, -1]
    steps = run.last("test_steps")[0][dip]
    norms = [f"{factor:.2f}" for factor in np.sqrt(end / least).mean(axis=1)]
    return (
        Evidence(error[:, -1] - error[each, dip], note=f"dip at step {steps.min()} to {steps.max()}"),
        Evidence(_share(start - least, 0)),
        Evidence(_share(end - least, 1), note=f"norms, end over dip: {norms[0]} on I, {norms[1]} on N"),
    )


def _share(change: np.ndarray, part: int) -> np.ndarray:
    """What one part of (I, N), (2, S), has of the change of both; 0 where nothing changes."""
    total = change.sum(axis=0)
    return np.divide(change[part], total, out=np.zeros_like(total), where=total != 0)


J12 = Claim(
    "J12", "finding",
    "With half the labels corrupted test error is U-shaped; more than half of the energy that the test "
    "residual loses before the dip was on I, and three quarters of what comes back after it are on N.",
    "paper 4, Figs. 5 and 6",
    (
        Between("test error, end minus dip", low=0.05, by=EVERY),
        Between("share of I in the fall of ‖r‖² before the dip", low=0.5, by=EVERY),
        Between("share of N in the rise of ‖r‖² after the dip", low=0.75, by=EVERY),
    ),
    _u_shape,
    says={"holds": "test error dips and rises again; the residual leaves I, and comes back on N",
          "fails": "there is no dip, or what falls is not on I, or what comes back is not on N"},
    worlds=(World("no wrong labels", {"label_noise": 0.0}),
            World("the rows of J in another order", faults={f"{__name__}:jacobian": shared.shuffled_rows})),
)  # fmt: skip

CORRUPTION = Experiment(
    "corruption", "Half the labels are wrong: why is the truth learned first?", Corruption,
    {"quick": Corruption(), "paper": Corruption(dataset="mnist", n=800, width=256, steps=5000, seeds=5)},
    prepare, predict, run, figure, (J12,), controls=("width", "depth", "label_noise", "lr", "steps"),
)  # fmt: skip
