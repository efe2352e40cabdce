"""Does the capacity near the start grow with width? Linear networks within r of it (Thm 5.1: D10, D17).

With linear units Σ ξᵢf(xᵢ) depends on the data only through v = Σ ξᵢxᵢ and s = Σ ξᵢ. The supremum over the
ball ‖(W, B) − (Z, 0)‖_F ≤ r is climbed to from below; the theorem's recursion, with the norms of the Z that
was drawn, stands above.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from labkit import figures, measure, models
from labkit.labs import common
from labkit.labs.distance import shared
from labkit.measure.rademacher import RademacherEstimate, rademacher_lower
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import EVERY, AtMost, Between, Check, Evidence
from labkit.protocol.settings import knob
from labkit.protocol.statistics import exponent
from labkit.theory import distance as theory

NARROWEST = 16  # then by octaves
SHALLOWEST = 3  # "more than one hidden layer": the paper's networks have depth above 2
FACTORS = np.array([0.25, 0.5, 1.0, 2.0, 4.0])  # of m, at the middle width
# Widths meet the same signs, sizes do not: there the draws decide how well an exponent is known.
MORE = 4
AGREE = 0.02  # of the value: how far two climbs of a draw may differ, on average


@dataclass(frozen=True)
class Complexity(common.OnData):
    r: float = knob(2.0, "distance r from the start", slider=(0.25, 8), bounds=(0, 1e6), scale="log2")
    matrices: int = knob(
        4, "weight matrices of the deepest network; depths d from 3 on are shown", slider=(3, 5),
        bounds=(3, 10), step=1, label="weight matrices d",
    )  # fmt: skip
    widest: int = knob(
        512, "largest width H, from 16 by octaves", slider=(64, 1024), bounds=(64, 16_384), scale="log2",
        label="largest width",
    )  # fmt: skip
    m: int = knob(
        200, "training images m; a second sweep takes m/4 to 4m", slider=(40, 300), bounds=(8, None), step=20
    )
    draws: int = knob(
        8, "draws of the signs ξ; four times as many in the sweep over m", slider=(4, 32), bounds=(2, None),
        step=4,
    )  # fmt: skip
    restarts: int = knob(2, "climbs a draw", slider=(1, 4), bounds=(1, None), step=1)
    steps: int = knob(40, "steps of a climb, at most", slider=(10, 200), bounds=(1, None), step=10)
    biases: bool = knob(True, "whether the ball is one in weights and biases, as in the paper")
    init: str = knob(
        "glorot-normal", "how Z is drawn", choices=("glorot-normal", "inverse-sqrt-width", "lecun", "glorot")
    )
    dataset: str = knob("digits", "name of a data set, or path to an .npz; images are scaled to length 1")

    drawn: ClassVar[Mapping[str, int]] = {"m": int(FACTORS[-1])}

    @property
    def widths(self) -> np.ndarray:
        return NARROWEST * 2 ** np.arange(int(np.log2(self.widest / NARROWEST)) + 1)


@dataclass(frozen=True)
class Setup:
    settings: Complexity
    x: tuple[Tensor, ...]  # one a seed, (4m, n), rows of length 1


def prepare(settings: Complexity) -> Setup:
    most, chosen = int(settings.m * FACTORS[-1]), []
    for seed in common.seeds(settings):
        loaded = common.load(
            settings.dataset, n_train=most, normalize="unit-length", flatten=True, seed=seed,
            dtype=torch.float64, device=settings.device,
        )  # fmt: skip
        order = torch.randperm(most, generator=torch.Generator().manual_seed(seed))
        chosen.append(loaded.x_train[order.to(settings.device)])
    return Setup(settings, tuple(chosen))


def predict(setup: Setup) -> Prediction:
    """Thm 5.1's bound on the supremum (without its 1/m), from shapes alone, with E‖Z_k‖₂ from Cor. A.2.1."""
    settings, inputs = setup.settings, setup.x[0].shape[1]
    widths, depths = settings.widths, np.arange(SHALLOWEST, settings.matrices + 1)
    sizes = (settings.m * FACTORS).astype(int)
    middle = int(widths[len(widths) // 2])

    def bound(width: int, depth: int, m: int) -> float:
        dims = theory.layer_shapes(inputs, width, depth)
        spectral = shared.norms_of_start(settings, dims).spectral
        return float(m * theory.rademacher_bound(spectral, settings.r, np.ones(m), biases=settings.biases))

    return {
        "widths": widths, "depths": depths, "sizes": sizes, "middle": np.asarray(middle),
        "bound": np.array([[bound(int(width), int(d), settings.m) for width in widths] for d in depths]),
        "bound_m": np.array([[bound(middle, int(d), int(m)) for m in sizes] for d in depths]),
    }  # fmt: skip


def run(
    setup: Setup, prediction: Prediction, *,
    climb: Callable[..., RademacherEstimate | Tensor] = rademacher_lower,
) -> Iterator[Frame]:  # fmt: skip
    """First over widths at m images, then over m at the middle width.

    `climb(Z, x, r, draws=, restarts=, steps=, biases=, seed=)` gives the values of (1/m) sup Σ ξᵢf(xᵢ), one a
    draw, as a tensor or in a RademacherEstimate.
    """
    settings, middle = setup.settings, int(prediction["middle"])
    places = [("", int(width), settings.m) for width in prediction["widths"]]
    places += [("_m", middle, int(m)) for m in prediction["sizes"]]
    # A climb costs about H² a layer; the sweep over m is one at the middle width.
    spans = common.spans(float(width) ** 2 + 64**2 for _, width, _ in places)
    for step, ((suffix, width, m), (begin, end)) in enumerate(zip(places, spans, strict=True)):
        found = np.full((settings.seeds, len(prediction["depths"]), 3), np.nan)
        seen = partial(_named, found, suffix)
        for (s, seed), (d, depth) in product(
            enumerate(common.seeds(settings)), enumerate(prediction["depths"])
        ):
            draws = settings.draws * (MORE if suffix else 1)
            found[s, d] = _climbed(settings, setup.x[s][:m], width, int(depth), seed, draws, climb)
            yield Frame.tick(step, begin, seen)
        done = step == len(places) - 1
        yield Frame(step, seen(), end, "done" if done else "running")


def _named(found: np.ndarray, suffix: str) -> dict[str, np.ndarray]:
    """(S, depths, 3) as a frame has it."""
    names = (f"{name}{suffix}" for name in ("sup", "sup_bound", "gap"))
    return dict(zip(names, np.moveaxis(found, -1, 0).copy(), strict=True))


def _climbed(
    settings: Complexity, x: Tensor, width: int, depth: int, seed: int, draws: int, climb: Callable[..., Any]
) -> tuple[float, float, float]:
    """The estimate of E sup Σ ξᵢf(xᵢ), its bound, and how far the climbs of a draw disagree on average."""
    net = models.mlp(
        x.shape[1], width, depth - 1, 1, bias=False, init=settings.init, seed=seed, dtype=x.dtype,
        device=x.device,
    )  # fmt: skip
    Z = [weight.detach() for weight in net.parameters()]
    found = climb(
        Z, x, settings.r, draws=draws, restarts=settings.restarts, steps=settings.steps,
        biases=settings.biases, seed=seed,
    )  # fmt: skip
    values, gap = found, 0.0
    if isinstance(found, RademacherEstimate):
        values, worst = found.values, found.per_restart.amin(1)
        gap = float(((values - worst) / values.abs().clamp(min=1e-300)).mean())
    spectral = [float(measure.spectral(z)) for z in Z]
    bound = theory.rademacher_bound(spectral, settings.r, x.norm(dim=1).cpu(), biases=settings.biases)
    return len(x) * float(torch.as_tensor(values).double().mean()), len(x) * float(bound), gap


def figure(frames: Frames, prediction: Prediction, settings: Complexity | None = None) -> figures.Chart:
    panels = []
    for title, suffix, places, label in (
        ("Capacity against width", "", prediction["widths"], "width H"),
        (f"Capacity against m, H = {int(prediction['middle'])}", "_m", prediction["sizes"], "images m"),
    ):
        marks: list[figures.Mark] = []
        _, found = common.curve(frames, f"sup{suffix}")  # (D, S, T)
        for i, depth in enumerate(prediction["depths"]):
            bound = prediction[f"bound{suffix}"][i]
            marks.append(figures.Bound(places, bound, label=f"Thm 5.1, d = {depth}", color=i))
            if found.size:
                seen = places[: found.shape[-1]]
                marks.append(figures.Points(seen, found[i], label=f"climbed to, d = {depth}", color=i))
        panels.append(
            figures.Panel(title, marks, xlabel=label, ylabel="E sup Σ ξᵢf(xᵢ)", xscale="log2", yscale="log")
        )
    says = "The capacity bound of Thm 5.1, and what ascent over the ball of networks reached."
    return figures.Chart.of(settings, says, *panels)


def _swept(run: Run, name: str) -> list[np.ndarray]:
    """A value over the widths and over the m, (S, D, T) each, once all have been reached."""
    places = {name: len(run.prediction["widths"]), f"{name}_m": len(run.prediction["sizes"])}
    return [common.history(run.frames, *one).swapaxes(1, 2) for one in places.items()]


def _capacity(run: Run) -> Evidence:
    sup, bound = (np.concatenate(_swept(run, name), axis=-1) for name in ("sup", "sup_bound"))
    looser = (bound / sup).mean(axis=(0, 2))
    depths = zip(run.prediction["depths"], looser, strict=True)
    note = ", ".join(f"d = {depth}: the bound is {ratio:.0f} times larger" for depth, ratio in depths)
    return Evidence(sup, bound, note=note)


def _climbs(run: Run) -> tuple[Evidence, Evidence]:
    prediction, gaps = run.prediction, _swept(run, "gap")
    places = prediction["widths"], prediction["sizes"]
    slopes = [exponent(x, sup) for x, sup in zip(places, _swept(run, "sup"), strict=True)]
    apart = float(np.concatenate(gaps, axis=-1).mean(axis=(1, 2)).max())
    agree = (Check("mean disagreement of two climbs", apart, AGREE, "raise steps or restarts"),)
    return Evidence(slopes[0], checks=agree), Evidence(slopes[1], checks=agree)


def _grown(climbed: Callable[..., Any]) -> Callable[..., Any]:
    """A fault to plant: a ball whose radius grows with the network."""

    def climbed_further(settings: Complexity, x: Tensor, width: int, *where: Any) -> Any:
        return climbed(settings.replace(r=settings.r * (width / NARROWEST) ** 0.5), x, width, *where)

    return climbed_further


def _without_r(bound: Callable[..., Any]) -> Callable[..., Any]:
    """A fault to plant: the bound of a ball of radius 0."""
    return lambda z_spec, r, x_norms, **how: bound(z_spec, 0.0, x_norms, **how)


D10 = Claim(
    "D10", "theorem",
    "Linear networks within distance r of their start have E sup Σ ξᵢf(xᵢ) below a recursion in ‖Z_k‖₂, r "
    "and (Σ‖xᵢ‖²)^½, at every H, m and depth.",
    "paper 1, Thm 5.1",
    (AtMost("E sup Σ ξᵢf(xᵢ), climbed to from below"),), _capacity, "holds",
    {"holds": "what the climb reaches is under the bound at every H, m and depth",
     "fails": "the climb passes the bound"},
    (World("the bound of a ball of radius 0",
           faults={"labkit.theory.distance:rademacher_bound": _without_r}),),
)  # fmt: skip
D17 = Claim(
    "D17", "prediction",
    "What a climb in the ball reaches hardly depends on H and grows about as √m, as the bound does.",
    "paper 1, Thm 5.1",
    (Between("exponent of E sup Σ ξᵢf(xᵢ) in H, a depth each", low=-0.2, high=0.2, by=EVERY),
     Between("exponent of E sup Σ ξᵢf(xᵢ) in m, a depth each", low=0.3, high=0.7, by=EVERY)),
    _climbs, "holds",
    {"holds": "the capacity near the start is nearly free of H, and grows about as √m",
     "fails": "the capacity near the start changes with H, or not about as √m",
     "undecided": "the climbs of one draw disagree"},
    (World("a radius that grows as √H, as the distance from the origin does",
           faults={f"{__name__}:_climbed": _grown}),),
)  # fmt: skip

COMPLEXITY = Experiment(
    "complexity", "Does the capacity near the start grow with width?", Complexity,
    {"quick": Complexity(),
     "paper": Complexity(widest=2048, m=1000, dataset="mnist", draws=16, steps=100, seeds=5)},
    prepare, predict, run, figure, (D10, D17), controls=("r", "matrices", "widest", "m", "biases", "init"),
)  # fmt: skip
