"""Do random low-rank Hessians keep gradients apart? Appendix C and its bound (C14).

f_i(w) = (1/c²) Σ_k log cosh(c a_ik·w) has its minimum at 0, the Hessian H_i = a_i a_iᵀ there and a Lipschitz
constant of the Hessian in closed form; a_i is d x r with unit columns. c = 0 is the quadratic itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from labkit import figures
from labkit.labs import common
from labkit.labs.confusion import shared
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import AtMost, Between, Check, Evidence
from labkit.protocol.settings import Settings, knob, on_cpu
from labkit.protocol.statistics import exponent
from labkit.theory import confusion as theory

DIMENSIONS = np.array([64, 128, 256, 512, 1024])
THIRD = 4 / (3 * np.sqrt(3))  # the largest third derivative of log cosh
POINTS = 40  # random w in each dimension
WIDE = 32  # from this d/r on the exponent is taken: before, the cosines are near 1


@dataclass(frozen=True)
class Hessian(Settings):
    n: int = knob(20, "functions", slider=(3, 30), bounds=(2, 200))
    rank: int = knob(4, "rank r of each Hessian", slider=(1, 16), bounds=(1, 64), scale="log2")
    radius: float = knob(0.3, "distance |w| from the minimum", slider=(0.1, 2), bounds=(1e-6, None), step=0.1)
    curvature: float = knob(
        0.5, "c, which makes the Hessian change; 0 is quadratic", slider=(0, 2), bounds=(0, None), step=0.25,
        label="curvature c",
    )  # fmt: skip
    seeds: int = knob(8, "independent repetitions", slider=(1, 10), bounds=(1, 1000))
    device: str = on_cpu()


def predict(setup: common.Setup) -> Prediction:
    """The largest cosine that any w can bring about, nearly, and what ‖H_i‖‖H_j‖ does."""
    settings = setup.settings
    return {
        "ratio": DIMENSIONS / settings.rank,
        "cosine": theory.subspace_cosine(DIMENSIONS, settings.rank, settings.n),
        "printed": (1 + np.sqrt((settings.rank - 1) / DIMENSIONS)) ** 4,
    }


def run(setup: common.Setup, prediction: Prediction) -> Iterator[Frame]:
    settings = setup.settings

    def look(place: int, s: int) -> dict[str, float]:
        d = DIMENSIONS[place]
        rng = np.random.default_rng([settings.seed + s, d])
        a = rng.standard_normal((settings.n, d, settings.rank))
        return _measure(a / np.linalg.norm(a, axis=1, keepdims=True), settings, rng)

    return common.sweep(look, settings.seeds, [1.0] * len(DIMENSIONS))


def gradients(a: np.ndarray, w: np.ndarray, curvature: float) -> np.ndarray:
    """∇f_i(w): a (..., d, r), w (..., d) -> (..., d)."""
    inner = (a.swapaxes(-1, -2) @ w[..., None])[..., 0]
    slopes = np.tanh(curvature * inner) / curvature if curvature else inner
    return (a @ slopes[..., None])[..., 0]


def _measure(a: np.ndarray, settings: Hessian, rng: np.random.Generator) -> dict[str, float]:
    """Every pair at its own worst w and at random w, against the bound of Appendix C."""
    first, second = np.triu_indices(settings.n, 1)
    norms = np.linalg.norm(a, 2, axis=(1, 2))
    pair = (norms[first] ** 2, norms[second] ** 2)
    worst, product = worst_points(a[first], a[second])
    curvature = settings.curvature
    lipschitz = THIRD * curvature * norms.max() ** 3
    right, printed = (
        theory.hessian_bound(settings.radius, one, *pair, lipschitz) for one in (product, pair[0] * pair[1])
    )
    at = settings.radius * worst
    inner = (gradients(a[first], at, curvature) * gradients(a[second], at, curvature)).sum(-1)
    w = rng.standard_normal((POINTS, a.shape[1]))
    w *= settings.radius / np.linalg.norm(w, axis=1, keepdims=True)
    g = gradients(a[None], w[:, None], curvature)
    gram, lengths = g @ g.transpose(0, 2, 1), np.linalg.norm(g, axis=-1)
    found = gram[:, first, second]
    every = np.concatenate([np.abs(inner)[None], np.abs(found)])
    # ∇f_i lies in the range of a_i whatever w is, so no cosine is larger than the ranges' own.
    frames = np.linalg.qr(a)[0]
    cosines = np.linalg.norm(frames[first].transpose(0, 2, 1) @ frames[second], 2, axis=(1, 2))
    return {
        "product": float(product.max()), "printed": float((pair[0] * pair[1]).max()),
        "worst": max(float(-inner.min()), 0.0) / settings.radius**2,
        "share": float((every / right).max()), "share_printed": float((every / printed).max()),
        "cosine": float(cosines.max()),
        "random_cosine": float(-(found / (lengths[:, first] * lengths[:, second])).min()),
    }  # fmt: skip


def worst_points(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit w with the least wᵀ H_i H_j w for each pair, (P, d), and |H_i H_j|, (P,): a, b are (P, d, r).

    All happens in the span of a_i and a_j, so that the matrices are 2r x 2r.
    """
    if 2 * a.shape[-1] <= a.shape[-2]:
        basis = np.linalg.qr(np.concatenate([a, b], axis=-1))[0]
    else:
        basis = np.broadcast_to(np.eye(a.shape[-2]), (len(a), a.shape[-2], a.shape[-2]))
    small_a, small_b = (basis.transpose(0, 2, 1) @ one for one in (a, b))
    product = small_a @ (small_a.transpose(0, 2, 1) @ small_b) @ small_b.transpose(0, 2, 1)
    _, vectors = np.linalg.eigh((product + product.transpose(0, 2, 1)) / 2)
    return (basis @ vectors[..., :1])[..., 0], np.linalg.norm(product, 2, axis=(1, 2))


def figure(frames: Frames, prediction: Prediction, settings: Hessian | None = None) -> figures.Chart:
    ratio = prediction["ratio"]
    angles: list[figures.Mark] = [
        figures.Predicted(ratio, prediction["cosine"], label="at most about", color=shared.COSINE)
    ]
    sizes: list[figures.Mark] = [
        figures.Predicted(ratio, prediction["printed"], label="‖H_i‖‖H_j‖", color=shared.DEPTH)
    ]
    shares: list[figures.Mark] = [figures.Bound(ratio, np.ones(len(ratio)), color=shared.ETA)]
    for marks, name, label, color in (
        (angles, "cosine", "worst w", shared.COSINE), (angles, "random_cosine", "random w", shared.SKIP),
        (sizes, "printed", "‖H_i‖‖H_j‖", shared.DEPTH), (sizes, "product", "‖H_iH_j‖", shared.WIDTH),
        (sizes, "worst", "η/‖w‖², worst w", shared.ETA),
        (shares, "share", "with ‖H_iH_j‖", shared.WIDTH),
        (shares, "share_printed", "as printed", shared.DEPTH),
    ):  # fmt: skip
        found = common.seen(frames, name, len(ratio))
        marks.append(figures.Points(ratio, found, label=label, color=color))
    wide: dict[str, Any] = {"xlabel": "d / r", "xscale": "log2"}
    return figures.Chart.of(
        settings, "Confusion of gradients around a minimum, beside what their Hessians share.",
        figures.Panel("Largest −cosine of gradients", angles, ylabel="−cosine", yscale="log", **wide),
        figures.Panel("What two Hessians share", sizes, ylabel="size", yscale="log", **wide),
        figures.Panel("Worst |⟨∇f_i, ∇f_j⟩| / bound", shares, ylabel="share of the bound", ylim=(0, 1.1),
                      **wide),
    )  # fmt: skip


def _bounded(run: Run) -> tuple[Evidence, ...]:
    ratio, (share, cosine) = run.prediction["ratio"], common.whole(run, "share", "cosine")
    wide, random = ratio >= WIDE, run.last("random_cosine")
    room = Check("dimensions with d/r ≥ 32", 2.0, float(wide.sum()), "lower rank")
    opposed = Check("sets without a pair of opposed gradients", float((random <= 0).sum()), 0.0)
    slopes = [
        exponent(ratio[wide], np.maximum(one[:, wide], shared.TINY)) if wide.sum() > 1 else np.zeros(len(one))
        for one in (cosine, random)
    ]
    means, worst = random.mean(axis=0), run.last("worst").mean(axis=0)
    note = (
        f"−cosine at the worst w {cosine[:, 0].mean():.2f} → {cosine[:, -1].mean():.2f}, at random w "
        f"{means[0]:.2f} → {means[-1]:.2f}; η/‖w‖² {worst[0]:.2f} → {worst[-1]:.2f}"
    )
    return (
        Evidence(share, 1.0, note=note), Evidence(slopes[0], checks=(room,)),
        Evidence(slopes[1], checks=(room, opposed)),
        Evidence(share[:, -1] / run.last("share_printed")[:, -1]),
    )  # fmt: skip


@shared.after
def of_the_mean(found: np.ndarray) -> np.ndarray:
    """A fault for a world: at random points, the gradient of every function replaced by their mean."""
    return found if found.ndim < 3 else np.broadcast_to(found.mean(1, keepdims=True), found.shape)


def with_a_common_direction(measure: Callable[..., dict[str, float]]) -> Callable[..., dict[str, float]]:
    """A fault for a world: the first column of every a_i is the same."""

    def faulty(a: np.ndarray, *rest: Any) -> dict[str, float]:
        common_one = np.broadcast_to(a[:1, :, :1], (*a.shape[:2], 1))
        return measure(np.concatenate([common_one, a[..., 1:]], axis=-1), *rest)

    return faulty


C14 = Claim(
    "C14", "prediction",
    "|⟨∇f_i(w), ∇f_j(w)⟩| ≤ |w|²‖H_iH_j‖ + ½L_H|w|³(‖H_i‖ + ‖H_j‖) + ¼L_H²|w|⁴, and between random Hessians "
    "of rank r the worst cosine falls like (d/r)^(−½): within .1 in the exponent at the worst w, within .2 "
    "at random ones; with ‖H_i‖‖H_j‖, as printed, the bound is at least twice as loose at the largest d.",
    "paper 5, §2, App. C",
    (
        AtMost("|⟨∇f_i, ∇f_j⟩| over its bound, over d"),
        Between("exponent of d/r in the largest −cosine, worst w", low=-0.6, high=-0.4),
        Between("exponent of d/r in the largest −cosine, random w", low=-0.7, high=-0.3),
        Between("printed bound over the one with ‖H_iH_j‖, at the largest d", low=2.0),
    ),
    _bounded, "holds",
    {"holds": "the bound holds at every w, and the worst cosine falls as the root of r/d",
     "fails": "the bound was exceeded, or the worst cosine does not fall as the root of r/d",
     "undecided": "the exponents are not told by these dimensions, or no gradients are opposed"},
    worlds=(
        World("Hessians that share a direction", faults={f"{__name__}:_measure": with_a_common_direction}),
        World("every gradient replaced by their mean", faults={f"{__name__}:gradients": of_the_mean},
              word="undecided"),
    ),
)  # fmt: skip

HESSIAN = Experiment(
    "hessian", "Do low-rank Hessians keep gradients apart?", Hessian,
    {"quick": Hessian(), "paper": Hessian(n=40, rank=8, seeds=5)},
    common.Setup, predict, run, figure, (C14,), controls=("n", "rank", "radius", "curvature"),
)  # fmt: skip
