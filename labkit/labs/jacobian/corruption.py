"""Half the labels are wrong: why is the truth learned first?
Test error dips, then the noise is learned (J12, Figs. 5, 6, 10–14, 16–26).

The test residual is projected on the information space of the test Jacobian at the dip. What falls before
the dip is on I, r of the nK directions; what comes back after it is on N. The training residual, and the
Jacobian of any other step, are a slider away: on the networks that stand. Prediction before training: what a
network that knows nothing gets wrong, 1 − 1/K.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
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
from labkit.protocol.rules import EVERY, Between, Evidence
from labkit.protocol.settings import knob

PROJECTED = 200  # test images whose residual is projected


@dataclass(frozen=True)
class Corruption(common.OnData):
    width: int = knob(64, "hidden units a layer", slider=(16, 256), bounds=(1, None), scale="log2")
    depth: int = knob(2, "hidden layers", slider=(1, 5), bounds=(1, 50), step=1)
    label_noise: float = shared.label_noise(0.5)
    lr: float = shared.learning_rate(
        0.1, "learning rate, with momentum .9, on (1/2n)‖f − y‖²", (0.01, 0.5), most=100
    )
    steps: int = shared.steps(1000, "steps of full-batch gradient descent with momentum")
    rank: int = knob(
        50, "dimension r of the information space", slider=(5, 200), bounds=(1, None), step=5, remeasures=True
    )
    moment: float = knob(
        0.0, "where J is taken: −1 at the start, 0 at the dip of the test error, 1 at the end",
        slider=(-1, 1), bounds=(-1, 1), step=0.1, label="J taken at", remeasures=True,
    )  # fmt: skip
    images: str = knob("test", "images of J and of the residual", choices=("test", "train"), remeasures=True)
    n: int = knob(200, "training images", slider=(50, 800), bounds=(10, None), step=50)
    classes: int = knob(10, "classes K", slider=(2, 10), bounds=(2, None), step=1)
    dataset: str = knob("digits", "name of a data set, or path to an .npz")


def prepare(settings: Corruption) -> shared.Labelled:
    sets = common.datasets(settings, n_test=300, normalize="none", label_noise=settings.label_noise)
    return shared.untrained(settings, sets)


def predict(setup: shared.Labelled) -> Prediction:
    """Before training:
    guessing errs on 1 − 1/K of the test set, and a perfect fit on 0 of the training set.
    """
    settings, one = setup.settings, setup.sets[0]
    shown = min(PROJECTED, len(one.x_test if settings.images == "test" else one.x_train))
    return {
        "guess": np.asarray(1 - 1 / settings.classes), "steps": np.asarray(settings.steps),
        "chance": np.asarray((settings.classes - 1) / shown),
    }  # fmt: skip


def run(setup: shared.Labelled, prediction: Prediction) -> Iterator[Frame]:
    settings = setup.settings
    x, labels, x_test, y_test = common.together(setup.sets, "x_train", "y_train", "x_test", "y_test")
    y = torch.stack(setup.targets)
    truth = data.one_hot(y_test.flatten(), settings.classes).unflatten(0, y_test.shape)
    seen: list[_Look] = []

    def measure(ensemble: training.Ensemble) -> np.ndarray:
        with torch.no_grad():
            train, test = ensemble(x), ensemble(x_test)
        shown = test - truth if settings.images == "test" else train - y
        networks = [ensemble.member(seed) for seed in range(settings.seeds)]
        errors = common.error_rate(test, y_test)
        seen.append(_Look(shown[:, :PROJECTED].flatten(1), errors, networks))
        return np.column_stack([common.error_rate(train, labels), errors])

    how = {"loss": "half-mean", "lr": settings.lr, "momentum": 0.9}
    how["measure_at"] = common.measured_steps(settings.steps, 60)
    steps: list[int] = []
    names, ensemble = ("train_error", "test_error"), training.Ensemble(setup.models)
    for frame in shared.train(setup, ensemble, names, measure, **how):
        if "test_error" in frame.values and frame.status != "diverged":  # which repeats the last of them
            steps.append(frame.step)
        if frame.status == "running":
            yield replace(frame, progress=0.9 * (frame.progress or 0.0))
        else:  # the last frame waits for the projections
            yield Frame(frame.step, frame.values, 0.9)
            found = yield from _at_the_end(setup, frame.step, steps, seen)
            yield replace(frame, values={**frame.values, **found}, progress=1.0)


def _at_the_end(
    setup: shared.Labelled, now: int, steps: Sequence[int], seen: Sequence[_Look]
) -> Generator[Frame, None, dict[str, np.ndarray]]:
    """The projections of all seeds, and the steps that they belong to."""
    found, seeds = [], setup.settings.seeds
    for seed in range(seeds):
        found.append(_projections(setup, seed, seen))
        yield Frame.tick(now, 0.9 + 0.1 * (seed + 1) / seeds)
    values = common.stacked(found)
    return values | {"steps": np.tile(steps, (seeds, 1)), "taken": np.array(steps)[values["taken"]]}


@dataclass(frozen=True)
class _Look:
    """What is kept of one measured step, over seeds."""

    residuals: Tensor
    errors: np.ndarray
    networks: list[nn.Module]


def _projections(setup: shared.Labelled, seed: int, seen: Sequence[_Look]) -> dict[str, Any]:
    """Residuals of the whole run on I and on N of one Jacobian, over √n (T,); and how much of each of its
    left singular vectors tells classes apart (r,): ‖means over a class, less those over all images‖².
    """
    settings, one = setup.settings, setup.sets[seed]
    dip = int(np.argmin([look.errors[seed] for look in seen]))
    ahead = len(seen) - 1 - dip if settings.moment > 0 else dip
    taken = dip + round(settings.moment * ahead)
    test = settings.images == "test"
    x = (one.x_test if test else one.x_train)[:PROJECTED]
    true = (one.y_test if test else one.clean_train)[:PROJECTED]
    rank = min(settings.rank, len(x) * settings.classes - 1)
    top = once(shared.gram_spectrum, seen[taken].networks[seed], x)[1][:, :rank]  # for every r at once
    R = torch.stack([look.residuals[seed] for look in seen])
    inside = (R @ top.to(R.dtype)).norm(dim=1)
    outside = (R.norm(dim=1) ** 2 - inside**2).clamp(min=0).sqrt()
    each = data.one_hot(true, settings.classes, top.dtype)
    each = each / each.sum(0).clamp(min=1).sqrt()
    apart = top.unflatten(0, (len(x), settings.classes))
    apart = apart - apart.mean(0)  # what is one number for all images tells no class
    within = torch.einsum("nc,nkr->ckr", each, apart)
    found = {
        name: part.cpu().numpy() / np.sqrt(len(x))
        for name, part in (("information", inside), ("nuisance", outside))
    }
    labels = data.one_hot(one.y_test if test else one.y_train, settings.classes)[: len(x)].flatten()
    for name, vector in (("share", labels), ("residual_share", R[0])):
        found[name] = ((vector.to(top.dtype) @ top).norm() / vector.norm()).cpu().numpy()
    return found | {"class_share": within.square().sum((0, 1)).cpu().numpy(), "taken": taken}


def figure(frames: Frames, prediction: Prediction, settings: Corruption | None = None) -> figures.Chart:
    guess = figures.Level(float(prediction["guess"]), label="guessing")
    errors = shared.measured(
        frames, ("train_error", "training labels", shared.TRAIN), ("test_error", "test", shared.TEST)
    )
    parts, vectors = _of_one_jacobian(frames, prediction)
    over: dict[str, Any] = {"xlabel": "step", "xscale": "symlog", "xlim": (0, int(prediction["steps"]))}
    return figures.Chart.of(
        settings,
        "Errors while a network learns partly wrong labels, its residual in two parts, and what the left "
        "singular vectors see.",
        figures.Panel("Error rate", (guess, *errors), ylabel="share of wrong classes", ylim=(0, 1), **over),
        figures.Panel("Residual on I and N of one J", parts, ylabel="‖Π r‖ / √n", ylim=(0, None), **over),
        figures.Panel(
            "Do the u_s see classes?", vectors, xlabel="index s", ylabel="share of ‖u_s‖² between classes",
            ylim=(0, 1.05),
        ),
    )  # fmt: skip


def _of_one_jacobian(frames: Frames, prediction: Prediction) -> tuple[list[figures.Mark], list[figures.Mark]]:
    """The residual on its I and N; its left singular vectors."""
    chance = figures.Level(float(prediction["chance"]), label="any direction")
    found = next((frame.values for frame in reversed(frames) if "nuisance" in frame.values), None)
    if found is None:
        return [figures.Note("drawn when training ends: it needs the Jacobian at the dip")], [chance]
    steps, share = found["steps"][0], found["class_share"]
    index = 1 + np.arange(share.shape[1])
    return [
        figures.Measured(steps, found["information"], label="on I", color=shared.INFORMATION),
        figures.Measured(steps, found["nuisance"], label="on N", color=shared.NUISANCE),
        figures.Level(float(found["taken"].mean()), axis="x", label="J taken here"),
    ], [figures.Points(index, share, label="measured", color=shared.INFORMATION, line=False), chance]


def _u_shape(run: Run) -> tuple[Evidence, Evidence, Evidence]:
    if run.settings.moment or run.settings.images != "test":
        raise ValueError("J12 takes the Jacobian on test images, at the dip")
    error = common.curve(run.frames, "test_error")[1]
    parts = np.stack([run.last("information"), run.last("nuisance")])  # (2, S, T)
    dip = error[:, : parts.shape[2]].argmin(axis=1)
    each = np.arange(len(dip))
    energy = parts**2
    start, least, end = energy[:, :, 0], energy[:, each, dip], energy[:, :, -1]
    steps = run.last("steps")[0][dip]
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
            World("the rows of J in another order",
                  faults={f"{__name__}:shared.jacobian": shared.shuffled_rows})),
)  # fmt: skip

# The paper's data, on a dense network: ResNet20's dip is among what `alignment` measures.
_DENSE = Corruption(n=800, width=256, steps=5000, seeds=5)
_MNIST = _DENSE.replace(dataset="mnist")
_CIFAR = _DENSE.replace(dataset="cifar10", lr=0.003)  # half of the largest stable rate
_AFTERNOON = {"n": 500, "width": 128, "steps": 2000, "seeds": 2}

CORRUPTION = Experiment(
    "corruption", "Half the labels are wrong: why is the truth learned first?", Corruption,
    {
        "quick": Corruption(),
        "paper": _CIFAR,
        "mnist": _MNIST,
        "three-classes": _CIFAR.replace(classes=3),
        "afternoon": _CIFAR.replace(**_AFTERNOON),
        "afternoon-mnist": _MNIST.replace(**_AFTERNOON),
    },
    prepare, predict, run, figure, (J12,),
    controls=("width", "depth", "label_noise", "lr", "steps", "moment", "images"),
)  # fmt: skip
