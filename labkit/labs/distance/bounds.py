"""What does a small distance buy? Prop. 6.2, Thm C.1 and Thm C.2 at every frame of a training (D6, D7, D9).

The theorems' constants are replaced by what they stand for: the measured ‖Z_k‖₂ and r. At the images the
bounds have much room, and would have it without r; at the mean image, x = 0, all that they allow is due to r.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit import figures, training
from labkit.labs import common
from labkit.labs.distance import shared
from labkit.measure.distance import distances
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import AtMost, Evidence
from labkit.protocol.settings import knob
from labkit.theory import distance as theory

POINTS = 100  # training points, and as many test points, at which outputs and gradients are compared
LEVELS = ("product", "layerwise", "with_r")
LABELS = (
    ("product", "∏‖W‖₂", shared.PRODUCT), ("layerwise", "∏(‖Z‖₂ + layer’s r)", shared.ORIGIN),
    ("with_r", "∏(‖Z‖₂ + r)", shared.START),
)  # fmt: skip
SIZES = ("output", "output_bound", "gradient", "gradient_bound")


@dataclass(frozen=True)
class Bounds(shared.Trained):
    width: int = knob(160, "hidden units H", slider=(40, 640), bounds=(1, None), scale="log2")
    n: int = knob(300, "training samples m", slider=(100, 1400), bounds=(10, None), step=100)
    label_noise: float = shared.label_noise()
    lr: float = shared.learning_rate(0.1)
    stop: float = shared.stop_at(0.002)


@dataclass(frozen=True)
class Setup(common.Setup):
    points: tuple[Tensor, ...] = ()  # of a seed, at which outputs and gradients are compared


def prepare(settings: Bounds) -> Setup:
    sets = common.datasets(
        settings, classes=10, n_test=POINTS, normalize="standardize", label_noise=settings.label_noise,
        noise_kind="redraw",
    )  # fmt: skip
    points = tuple(torch.cat([one.x_train[:POINTS], one.x_test]) for one in sets)
    return Setup(settings, sets, shared.networks(settings, sets[0], settings.width), points)


def predict(setup: Setup) -> Prediction:
    """Before training r = 0: all three levels are ∏‖Z_k‖₂, which shapes and deviations alone predict."""
    settings, one = setup.settings, setup.sets[0]
    dims = theory.layer_shapes(one.dim, settings.width, settings.depth + 1, one.classes)
    expected = shared.norms_of_start(settings, dims).spectral
    return {
        "z_spec": np.array([shared.spectral_norms(model.layers) for model in setup.models]),
        "product": np.asarray(expected.prod()),
        "x_norm": np.array([points.norm(dim=1).cpu().numpy() for points in setup.points], dtype=float),
    }


def gradient_norms(model: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """‖f(x)‖ (n,), and ‖∂f_j/∂W‖_F over all weight matrices, (n, K), for every output j.

    ∂f_j/∂W_k is δ_k h_(k−1)ᵀ, so its norm is ‖δ_k‖‖h_(k−1)‖: one backward pass an output, no gradient stored.
    """
    h, inputs, before = x.detach(), [], []
    for place, layer in enumerate(model.layers):
        inputs.append(h.detach().square().sum(1))
        u = layer(h if place == 0 else model.phi(h))
        before.append(u)
        h = u
    # The input of layer k is φ of the pre-activation before it.
    inputs[1:] = [model.phi(u.detach()).square().sum(1) for u in before[:-1]]
    columns = []
    for j in range(h.shape[1]):
        deltas = torch.autograd.grad(h[:, j].sum(), before, retain_graph=True)
        parts = [delta.square().sum(1) * size for delta, size in zip(deltas, inputs, strict=True)]
        columns.append(torch.stack(parts).sum(0))
    return h.detach().norm(dim=1), torch.stack(columns, dim=1).sqrt()


def run(setup: Setup, prediction: Prediction) -> Iterator[Frame]:
    settings = setup.settings
    ensemble = training.Ensemble(setup.models)
    # clone(): of weights in float64, double() is no copy.
    start = {name: value.double().clone() for name, value in ensemble.weights().items()}

    def measure(ensemble: training.Ensemble) -> np.ndarray:
        """(S, names): r, the three levels, then sizes and bounds at the images and at the mean image."""
        now = {name: value.double() for name, value in ensemble.weights().items()}
        r = shared.distance(now, start).cpu().numpy()
        rows = []
        for seed, points in enumerate(setup.points):
            model: Any = ensemble.member(seed).double()
            z, whole = prediction["z_spec"][seed], float(r[seed])
            begun = {name: value[seed] for name, value in start.items()}
            moved = distances(model, begun).layers.cpu().numpy()
            levels = theory.spectral_products(shared.spectral_norms(model.layers), z, moved, whole)
            near = closest(model, points.double(), z, whole, prediction["x_norm"][seed])
            mean = closest(model, torch.zeros_like(points[:1]).double(), z, whole, np.zeros(1))
            rows.append([whole, levels.product, levels.layerwise, levels.with_r, *near, *mean])
        return np.array(rows, dtype=float)

    names = ("r", *LEVELS, *SIZES, *(f"{name}_at_mean" for name in SIZES))
    for frame in shared.fit(settings, ensemble, setup.sets, measure={"all": measure}, measured=12):
        if frame.is_tick:
            yield Frame.tick(frame.step, frame.progress)
            continue
        values = {"loss": frame.values["loss"]}
        values |= {name: frame.values["all"][:, place] for place, name in enumerate(names)}
        yield Frame(frame.step, values, frame.progress, frame.status, frame.note)


def closest(model: Any, x: Tensor, z: np.ndarray, r: float, x_norm: np.ndarray) -> tuple[float, ...]:
    """SIZES: the output and its bound at the input where they are closest, and the same of the gradient."""
    outputs, gradients = gradient_norms(model, x)
    found: list[float] = []
    for size, bound in (
        (outputs, theory.output_bound(z, r, x_norm)[..., -1]),
        (gradients.amax(1), theory.gradient_bound(z, r, x_norm).total),
    ):
        measured = size.cpu().numpy()
        share = np.divide(measured, bound, out=np.where(measured > 0, np.inf, 0.0), where=bound > 0)
        at = share.argmax()
        found += [float(measured[at]), float(bound[at])]
    return tuple(found)


def figure(frames: Frames, prediction: Prediction, settings: Bounds | None = None) -> figures.Chart:
    def curve(name: str) -> tuple[np.ndarray, np.ndarray]:
        steps, values = common.curve(frames, name)
        return np.maximum(steps, 0.5), values  # step 0 has its place on a logarithmic axis

    across: dict[str, Any] = {"xlabel": "step", "xscale": "log", "yscale": "log"}
    levels: list[figures.Mark] = [
        *(figures.Measured(*curve(name), label=label, color=color) for name, label, color in LABELS),
        figures.Level(float(prediction["product"]), label="∏‖Z‖₂ predicted", color=shared.PRODUCT),
    ]
    panels = [figures.Panel("Prop. 6.2: three levels", levels, **across)]
    for name, title, ylabel in (
        ("output", "Thm C.1: the output", "‖f(x)‖"),
        ("gradient", "Thm C.2: the gradient", "‖∂f/∂W‖"),
    ):
        marks: list[figures.Mark] = [
            figures.Bound(*curve(f"{name}_bound"), label="the bound", color="ink"),
            figures.Measured(*curve(name), label="where it is closest", color=shared.TEST),
        ]
        panels.append(figures.Panel(title, marks, ylabel=ylabel, **across))
    says = "Products of norms while a network trains, and its output and gradient below their bounds."
    return figures.Chart.of(settings, says, *panels)


def _levels(run: Run) -> tuple[Evidence, Evidence]:
    product, layerwise, with_r = (common.history(run.frames, name) for name in LEVELS)
    ends = (product[:, -1].mean(), layerwise[:, -1].mean(), with_r[:, -1].mean())
    note = "at the end {:.3g} ≤ {:.3g} ≤ {:.3g}".format(*ends)
    return Evidence(product, layerwise, note=note), Evidence(layerwise, with_r)


def _inside(run: Run, name: str) -> tuple[Evidence, Evidence]:
    """At the images, and at the mean image once training has begun: before, both sides are 0 there."""
    steps, measured, bound = run.series(name)[0], *_pair(run, name)
    # A network whose units have all died has no gradient at all.
    looseness = np.divide(bound, measured, out=np.full_like(bound, np.inf), where=measured > 0)
    step = steps[looseness.mean(axis=0).argmin()]
    note = f"the bound is {looseness.min():.3g} times larger where it is closest, at step {step}; "
    at_mean, bound_at_mean = _pair(run, f"{name}_at_mean")
    return (
        Evidence(measured, bound, note=note + f"at the end {looseness[:, -1].mean():.3g} times"),
        Evidence(at_mean[:, 1:], bound_at_mean[:, 1:]),
    )


def _pair(run: Run, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(S, T) each: a size and its bound."""
    size, at, where = name.partition("_")
    return common.history(run.frames, name), common.history(run.frames, f"{size}_bound{at}{where}")


NOT_MOVED = World("the distance from the start replaced by zero", faults=shared.WITHOUT_DISTANCE)
CLAIMS = (
    Claim(
        "D6", "theorem", "∏‖W_k‖₂ ≤ ∏(‖Z_k‖₂ + ‖W_k − Z_k‖_F) ≤ ∏(‖Z_k‖₂ + r), at every step.",
        "paper 1, Prop. 6.2",
        (AtMost("∏‖W_k‖₂ under the layerwise bound"), AtMost("the layerwise bound under the one with r")),
        _levels, "holds",
        {"holds": "the three levels are in order at every frame",
         "fails": "the levels cross"},
        (NOT_MOVED,),
    ),
    Claim(
        "D7", "theorem",
        "The output is below the recursion a_k = (‖Z_k‖₂ + r)a_(k−1) + r from a_0 = ‖x‖, at every step: on "
        "training and test images, and at the mean image, where r alone bounds it.",
        "paper 1, Thm C.1",
        (AtMost("‖f(x)‖ at the image where the bound is closest"), AtMost("‖f(0)‖ at the mean image")),
        common.Given(_inside, "output"), "holds",
        {"holds": "no output exceeds its bound at any frame",
         "fails": "an output exceeds its bound"},
        (NOT_MOVED,),
    ),
    Claim(
        "D9", "theorem",
        "The gradient of every output by the weights is below its recursion at every step: on training and "
        "test images, and at the mean image, where r alone bounds it.",
        "paper 1, Thm C.2",
        (AtMost("‖∂f/∂W‖ at the image where the bound is closest"), AtMost("‖∂f/∂W‖ at the mean image")),
        common.Given(_inside, "gradient"), "holds",
        {"holds": "no gradient exceeds its bound at any frame",
         "fails": "a gradient exceeds its bound"},
        (NOT_MOVED,),
    ),
)  # fmt: skip

BOUNDS = Experiment(
    "bounds", "What does a small distance buy?", Bounds,
    {"quick": Bounds(), "paper": Bounds(width=1280, n=4096, dataset="mnist", lr=0.01, stop=0.001, seeds=5)},
    prepare, predict, run, figure, CLAIMS, controls=("width", "depth", "n", "label_noise", "stop"),
)  # fmt: skip
