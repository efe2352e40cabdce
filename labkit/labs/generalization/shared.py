"""What the trained experiments of this lab share: colours, networks, training to a matched loss, one ruler.

The perceptron has no biases, as the paper's formulas have none: every norm, path and perturbation then covers
all that the network is. (A VGG gets biases when its batch norm is folded into the convolutions; norms leave
them out, noise does not.)

Training is SGD on minibatches of 64 with momentum .9, as in App. A, up to a matched cross-entropy. At `quick`
the learning rate is .04 on standardised inputs and the loss 10⁻³, in place of .01 and 10⁻⁴: about a tenth of
the steps. (At .05 random labels on 450 digits diverge with some seeds.) Comparisons are made at equal loss
only, because every measure here depends on where one stops.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from labkit import data, models, training
from labkit.figures.palette import Color
from labkit.labs import common
from labkit.measure.capacity import capacities
from labkit.measure.layers import weight_layers
from labkit.measure.margins import margin
from labkit.measure.norms import frobenius
from labkit.measure.sharpness import expected_sharpness, kl_at_sharpness, max_sharpness, parameter_vector
from labkit.models.folding import fold_batch_norm
from labkit.protocol.experiment import Frame, Run
from labkit.protocol.memory import once
from labkit.protocol.rules import Check
from labkit.protocol.settings import knob
from labkit.theory.pac_bayes import gaussian_kl

PAPER = "Exploring Generalization in Deep Learning (2017)"
# Colours mean the same thing in every figure of the lab.
TRUE, RANDOM = 0, 1
L2, L1_PATH, L2_PATH, SPECTRAL, DIVERGENCE = 2, 3, 4, 5, 6
SHARPNESS, SHARPNESS_OWN, TEST = "#7A4A32", "#C9A58F", "ink"

# measure -> (words, colour); each over the squared margin, without factors of depth and width (Fig. 1).
MEASURES: Mapping[str, tuple[str, Color]] = {
    "l2": ("ℓ₂", L2),
    "l1_path": ("ℓ₁-path", L1_PATH),
    "l2_path": ("ℓ₂-path", L2_PATH),
    "spectral": ("spectral", SPECTRAL),
}
NAMES = {name: words for name, (words, _) in MEASURES.items()}

KINDS = ("true", "random")
WORDS = ("true labels", "random labels")
COLORS = (TRUE, RANDOM)

TARGET = 0.05  # the expected sharpness at which divergences are compared (Fig. 2)
PLANE = np.geomspace(1e-3, 1.0, 13)  # sharpnesses at which the curve of the plane is read off
# Sizes of the noise. A VGG has a hundred times the weights of the perceptron and bears less.
ALPHAS = {"mlp": np.geomspace(3e-3, 0.15, 9), "vgg": np.geomspace(2e-5, 0.1, 14)}


# The paper's training, of all experiments with one hidden layer or a VGG.
PAPERS: dict[str, Any] = {"lr": 0.01, "stop": 1e-4, "epochs": 1000, "ascent": 2000, "draws": 1000}
CIFAR: dict[str, Any] = PAPERS | {"dataset": "cifar10", "width": 64, "n_test": 10_000}


# Settings that several experiments have.
def stop_at() -> float:
    return knob(
        1e-3, "cross-entropy at which training stops", slider=(1e-4, 0.1), bounds=(1e-6, 0.5), scale="log",
        label="stop at loss",
    )  # fmt: skip


def learning_rate(default: float) -> float:
    return knob(
        default, "learning rate of SGD with momentum .9 and batches of 64", slider=(0.005, 0.1),
        bounds=(1e-6, 100), scale="log", label="learning rate",
    )  # fmt: skip


def label_noise(whose: str, least: float) -> float:
    return knob(
        1.0, f"share of {whose} labels that is redrawn over all classes", slider=(least, 1), bounds=(0, 1),
        step=0.1, label="noise (redraw)",
    )  # fmt: skip


def n_test(default: int, least: int = 100) -> int:
    return knob(default, "test samples, at most", slider=(least, default), bounds=(10, None), step=100)


@dataclass(frozen=True)
class Trained(common.OnData):
    """What all trained experiments of this lab can be asked for."""

    width: int = knob(
        256, "hidden units of the perceptron; channels of the first stack of a VGG", slider=(16, 1024),
        bounds=(1, None), scale="log2",
    )  # fmt: skip
    stop: float = stop_at()
    lr: float = learning_rate(0.04)
    epochs: int = knob(
        3000, "longest training; a network that needs more is not compared", slider=(100, 5000),
        bounds=(1, None), scale="log",
    )  # fmt: skip
    epsilon: float = knob(
        0.05, "share ε of the samples that may lie below the margin; 0 is the hard margin", slider=(0, 0.2),
        bounds=(0, 1), step=0.01, label="percentile ε", remeasures=True,
    )  # fmt: skip
    alpha: float = knob(
        5e-4, "size α of the box of max sharpness, (4)", slider=(1e-4, 1e-2), bounds=(1e-8, 1), scale="log",
        label="perturbation α", remeasures=True,
    )  # fmt: skip
    ascent: int = knob(
        40, "gradients of the climb to max sharpness", slider=(10, 200), bounds=(1, None), step=10,
        remeasures=True,
    )  # fmt: skip
    draws: int = knob(
        10, "perturbations that expected sharpness averages over", slider=(5, 100), bounds=(2, None),
        step=5, remeasures=True,
    )  # fmt: skip
    probe: int = knob(
        1000, "samples that sharpness is averaged over, at most", slider=(100, 2000), bounds=(10, None),
        step=100, remeasures=True,
    )  # fmt: skip
    network: str = knob(
        "mlp", "mlp, or the paper's vgg with batch norm and without dropout", choices=("mlp", "vgg")
    )
    classes: int = knob(10, "classes K", slider=(2, 10), bounds=(2, None), step=1)
    dataset: str = knob("digits", "name of a data set, or path to an .npz")


def network(settings: Any, shape: Sequence[int], seed: int, width: int | None = None) -> nn.Module:
    """The two-layer perceptron, or the VGG, for samples of a shape (d,) or (C, side, side)."""
    width = settings.width if width is None else width
    if settings.network == "vgg":
        return models.vgg(
            settings.classes, shape[0], size=shape[-1], width=width, dropout=0.0, seed=seed,
            device=settings.device,
        )  # fmt: skip
    return models.mlp(
        math.prod(shape), width, 1, settings.classes, bias=False, seed=seed, device=settings.device
    )


def networks(settings: Any, shape: Sequence[int], width: int | None = None) -> tuple[nn.Module, ...]:
    """One a seed."""
    return tuple(network(settings, shape, seed, width) for seed in common.seeds(settings))


def fit(
    settings: Any, ensemble: training.Ensemble, samples: Sequence[tuple[Tensor, Tensor]], **how: Any
) -> Generator[Frame, None, common.Outcome]:
    """`common.fit` to the settings' own loss, rate and length, where nothing else is said."""
    own = {"loss": settings.stop, "lr": settings.lr, "epochs": settings.epochs, "seed": settings.seed}
    return common.fit(ensemble, samples, **own | how)


def samples(sets: Sequence[data.Dataset]) -> list[tuple[Tensor, Tensor]]:
    """What the networks of all seeds are fitted to."""
    return [(one.x_train, one.y_train) for one in sets]


class Job(NamedTuple):
    """One network of a family, of every seed."""

    words: str  # what tells it from the others
    models: Sequence[nn.Module]
    samples: Sequence[tuple[Tensor, Tensor]]  # that a seed's network is fitted to
    cost: float  # beside that of the others


def family(
    settings: Any, jobs: Sequence[Job], sets: Sequence[data.Dataset],
    more: Callable[[int, nn.Module], Mapping[str, float]],
) -> Iterator[Frame]:  # fmt: skip
    """Fits one network after the other to one loss, and measures each; values are (S, networks).

    Args:
        sets: of each seed, for the test error.
        more: (seed, network) -> what is measured beyond `measured` and `perturbed`.
    """
    shape, notes, spans = (len(sets), len(jobs)), list[str](), common.spans(job.cost for job in jobs)
    values = grid(*shape)

    def read(s: int, g: int, values: dict[str, np.ndarray], ensemble: training.Ensemble) -> Mapping[str, Any]:
        model, (x, y) = folded(ensemble.member(s)), jobs[g].samples[s]
        found = measured(settings, model, x, y) | perturbed(settings, model, x, y, seed=s)
        found["test_error"] = test_error(model, sets[s].x_test, sets[s].y_test)
        common.gather(values, shape, (s, g), {**found, **more(s, model)})
        return values

    for g, (job, (begin, end)) in enumerate(zip(jobs, spans, strict=True)):
        fitted_at = 0.1 * begin + 0.9 * end
        ensemble = training.Ensemble(job.models)
        outcome = yield from fit(
            settings, ensemble, job.samples, span=(begin, fitted_at), step=g,
            showing=partial(read, 0, g, common.snapshot(values)),
        )  # fmt: skip
        notes += outcome.told(job.words)
        if outcome.word == "diverged":
            yield Frame(g, common.snapshot(values), begin, "diverged", notes[-1])
            return
        for s in range(len(sets)):
            yield Frame(g, common.snapshot(read(s, g, values, ensemble)), fitted_at)
        last = g == len(jobs) - 1
        yield Frame(
            g, common.snapshot(values), end, "done" if last else "running", "; ".join(notes) if last else ""
        )


def measured(settings: Any, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """What is read off one network on the samples it was fitted to, without moving its weights.

    Returns:
        loss, train_error; margin; norm (∏‖W_i‖_F², no margin) and the four of `MEASURES`.
    """
    model = folded(model)
    gamma = margin(common.outputs(model, x), y, settings.epsilon)
    found = once(capacities, model, x, y, gamma=1.0)
    scale = 1 / gamma**2 if gamma > 0 else math.nan
    norm = math.prod(float(frobenius(layer)) ** 2 for layer in weight_layers(model, x))
    loss, wrong = common.fitted(model, x, y)
    capacity = {name: scale * getattr(found, name) for name in MEASURES}
    return {"loss": loss, "train_error": wrong, "margin": gamma, "norm": norm} | capacity


def perturbed(settings: Any, model: nn.Module, x: Tensor, y: Tensor, *, seed: int) -> dict[str, Any]:
    """`noisy`, and sharpness, (4)."""
    model = folded(model)
    return {**noisy(settings, model, x, y, seed), "sharpness": steepest(settings, model, x, y)}


def noisy(settings: Any, model: nn.Module, x: Tensor, y: Tensor, seed: int) -> dict[str, Any]:
    """What noise in the weights does to the loss on the samples that a network was fitted to.

    Args:
        model: folded.

    Returns:
        divergence, the KL at an expected sharpness of .05; plane, the KL at each of `PLANE`.
    """
    near = probed(settings, len(x))
    at, *plane = divergences(
        model, x[near], y[near], ALPHAS[settings.network], settings.draws, seed, (TARGET, *PLANE)
    )
    return {"divergence": at, "plane": plane}


def divergences(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    alphas: np.ndarray,
    draws: int,
    seed: int,
    targets: Sequence[float],
) -> list[float]:
    """KL of noise of sd α(10|w| + 1) around the weights, at each expected sharpness (Fig. 2)."""
    weights = parameter_vector(model).double().cpu().numpy()
    found = [gaussian_kl(weights, alpha * (10 * np.abs(weights) + 1)) for alpha in alphas]
    curve = once(expected_sharpness, model, x, y, alphas=alphas.tolist(), draws=draws, generator=seed)
    return [kl_at_sharpness(alphas, curve.mean, found, float(target)) for target in targets]


def steepest(settings: Any, model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Max sharpness, (4), over at most `probe` of the samples."""
    near = probed(settings, len(x))
    return once(max_sharpness, model, x[near], y[near], alpha=settings.alpha, steps=settings.ascent).value


def folded(model: nn.Module) -> nn.Module:
    """Batch norm counted into the weights; a perceptron as it is."""
    return fold_batch_norm(model) if isinstance(model, models.VGG) else model


def probed(settings: Any, n: int) -> Tensor:
    """Samples spread evenly over a set, at most `probe`."""
    return torch.linspace(0, n - 1, min(n, settings.probe)).round().long()


def test_error(model: nn.Module, x: Tensor, y: Tensor) -> float:
    return common.fitted(folded(model).eval(), x, y)[1]


def converged(run: Run, at: Any = ...) -> tuple[Check, ...]:
    """Whether all networks (of a place of the run's arrays) are fitted, to one loss."""
    error, loss = run.last("train_error")[at], run.last("loss")[at]
    return common.converged(error, loss, run.settings.stop, "raise epochs or width")


def trained(run: Run, at: Any = ...) -> tuple[Check, ...]:
    """Whether the loss of all networks (of a place of the run's array) has come to the stop."""
    loss = float(run.last("loss")[at].max())
    return (Check("training loss", loss, 1.02 * run.settings.stop, "raise epochs"),)


def grid(seeds: int, *axes: int) -> dict[str, np.ndarray]:
    """An array (S, *axes) of nothing yet for every number of `measured`, and for the test error."""
    names = ("loss", "train_error", "test_error", "margin", "norm", *MEASURES, "divergence", "sharpness")
    return common.blank(seeds, *axes, **dict.fromkeys(names, ()), plane=PLANE.shape)


def classification(settings: Any, n: int, seed: int, noise: float = 0.0) -> data.Dataset:
    """n standardised training samples of a seed, a share of their labels redrawn over all classes.

    A test split that is smaller than `n_test` is filled up: the error on 359 digits is too coarse to tell
    widths apart.
    """
    how = {"classes": settings.classes, "flatten": settings.network == "mlp", "device": settings.device}
    return once(_classification, settings.dataset, n, settings.n_test, seed, noise, how)


def _classification(
    dataset: str, n: int, n_test: int, seed: int, noise: float, how: dict[str, Any]
) -> data.Dataset:
    chosen = common.classification(
        dataset, n=n, n_test=n_test, label_noise=0.0, normalize="none", seed=seed, **how
    )
    if chosen.n_test < n_test:
        chosen = common.with_spare(common.load(dataset, seed=seed, **how), n, n_test, seed)
    chosen = chosen.standardized()
    return chosen.with_label_noise(noise, "redraw", seed=seed) if noise else chosen
