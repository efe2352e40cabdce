"""What does the whole spectrum look like?
Stochastic Lanczos quadrature against the exact spectrum (J14, Figs. 4, 9).

The density of the eigenvalues of JJᵀ, smoothed by a Gaussian of variance 10⁻⁵ (in units of the largest
eigenvalue squared), from a few random probes: at the size of this experiment the exact answer can be formed
beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labkit import figures, krylov, training
from labkit.labs import common
from labkit.labs.jacobian import shared
from labkit.measure import jacobian
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.memory import once
from labkit.protocol.rules import EVERY, Between, Evidence
from labkit.protocol.settings import knob

VARIANCE = 1e-5
WHEN = ("initial", "final")


@dataclass(frozen=True)
class Spectrum(common.OnData):
    lanczos_steps: int = knob(
        80, "Lanczos steps m", slider=(5, 120), bounds=(2, 1000), step=5, remeasures=True
    )
    probes: int = knob(10, "random probes", slider=(1, 30), bounds=(1, 1000), step=1, remeasures=True)
    width: int = knob(64, "hidden units a layer", slider=(16, 256), bounds=(1, None), scale="log2")
    depth: int = knob(2, "hidden layers", slider=(1, 4), bounds=(1, 50), step=1)
    steps: int = knob(
        300, "training steps before the last spectrum", slider=(0, 1000), bounds=(0, None), step=50
    )
    n: int = knob(80, "training images", slider=(20, 200), bounds=(10, None), step=20)
    classes: int = knob(10, "classes K", slider=(2, 10), bounds=(2, None), step=1)
    dataset: str = knob("digits", "name of a data set, or path to an .npz")


def prepare(settings: Spectrum) -> shared.Labelled:
    sets = common.datasets(settings, n_test=30, normalize="none", dtype=torch.float64)
    return shared.untrained(settings, sets)


def predict(setup: shared.Labelled) -> Prediction:
    """What `_exact` says of JJᵀ at the start; of the first seed, which is drawn."""
    return common.stacked([once(_exact, setup.models[0], setup.x[0])])


def run(setup: shared.Labelled, prediction: Prediction) -> Iterator[Frame]:
    settings = setup.settings
    yield from _spectra(setup, setup.models, "initial", (0.0, 0.4))
    ensemble = training.Ensemble(setup.models)
    frames = training.train(
        ensemble, setup.x, setup.targets, loss="half-mean", lr=0.1, momentum=0.9, steps=settings.steps,
        seed=settings.seed,
    )  # fmt: skip
    for frame in frames:
        yield Frame.tick(frame.step, 0.4 + 0.2 * (frame.progress or 0))
    trained = tuple(ensemble.member(seed) for seed in range(len(setup.models)))
    yield from _spectra(setup, trained, "final", (0.61, 1.0))  # .4 + .2 may be more than .6


def _spectra(
    setup: shared.Labelled, nets: Sequence[nn.Module], when: str, span: tuple[float, float]
) -> Iterator[Frame]:
    step = 0 if when == "initial" else setup.settings.steps

    def look(seed: int, least: bool = False) -> dict[str, Any]:
        """All that there is to see of a seed; or, at `least`, the poorer of the two estimates."""
        pair, steps = (nets[seed], setup.x[seed]), setup.settings.lanczos_steps
        exact = once(_exact, *pair)
        few, error = _estimated(*pair, exact, setup.settings, seed, max(2, steps // 8))
        found: dict[str, Any] = {**exact, "quadrature": few}
        if not least:
            more, small = _estimated(*pair, exact, setup.settings, seed, steps)
            found |= {"quadrature": more, "error": small, "error_short": error}
        return {f"{when}_{name}": value for name, value in found.items()}

    yield Frame.tick(step, span[0], lambda: common.stacked([look(0, least=True)]))
    yield from common.by_seed(look, len(nets), step, span, "done" if when == "final" else "running")


def _exact(model: nn.Module, x: Tensor) -> dict[str, np.ndarray]:
    """The eigenvalues of JJᵀ, (nK,) descending, and their smoothed density on a grid, for a largest of 1."""
    eigenvalues = krylov.singular_values(jacobian(model, x)).double() ** 2
    top, sigma = float(eigenvalues[0]), VARIANCE**0.5
    grid = torch.linspace(-4 * sigma, 1 + 4 * sigma, 2000, dtype=torch.float64)
    density = krylov.gaussian_density(eigenvalues, None, grid * top, sigma * top) * top
    return {"eigenvalues": eigenvalues.cpu().numpy(), "grid": grid.numpy(), "exact": density.cpu().numpy()}


def _estimated(
    model: nn.Module, x: Tensor, known: Mapping[str, np.ndarray], settings: Spectrum, seed: int, steps: int
) -> tuple[np.ndarray, float]:
    """The density without eigenvalues, by so many Lanczos steps, and its L1 distance from the exact one."""
    A, top = jacobian(model, x), float(known["eigenvalues"][0])
    grid, exact = (torch.from_numpy(known[name]) for name in ("grid", "exact"))
    found = krylov.spectral_density(
        A, probes=settings.probes, variance=VARIANCE, steps=min(steps, A.shape[0]),
        grid=grid * top, generator=torch.Generator().manual_seed(settings.seed + seed),
    ).density * top  # fmt: skip
    return found.numpy(), float(torch.trapezoid((found - exact).abs(), grid))


def figure(frames: Frames, prediction: Prediction, settings: Spectrum | None = None) -> figures.Chart:
    return figures.Chart.of(
        settings, "The spectrum of JJᵀ before and after training, by Lanczos and exactly.",
        _density(_seen(frames, "initial") | dict(prediction), "Spectral density of JJᵀ at the start"),
        _density(_seen(frames, "final"), "… after training"),
        figures.Panel(
            "Top singular values of J", _top(frames, prediction), xlabel="λₛ", ylabel="count", yscale="log",
            ylim=(0.5, None),
        ),
    )  # fmt: skip


def _seen(frames: Frames, when: str) -> dict[str, np.ndarray]:
    names = ("eigenvalues", "grid", "exact", "quadrature")
    found = {name: common.newest(frames, f"{when}_{name}") for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _density(known: Mapping[str, np.ndarray], title: str) -> figures.Panel:
    marks: list[figures.Mark] = []
    for name, mark, label, color in (
        ("exact", figures.Predicted, "exact", "ink"),
        ("quadrature", figures.Measured, "Lanczos quadrature", shared.INFORMATION),
    ):
        if name in known:
            marks.append(mark(known["grid"][0], np.maximum(known[name][0], 1e-6), label=label, color=color))
    return figures.Panel(
        title, marks, xlabel="eigenvalue / largest", ylabel="density", yscale="log", ylim=(1e-4, 1e3),
        xlim=(-0.02, 1.02),
    )  # fmt: skip


def _top(frames: Frames, prediction: Prediction) -> list[figures.Mark]:
    marks: list[figures.Mark] = []
    for color, when, known in (
        (shared.TRAIN, "initial", prediction), (shared.INFORMATION, "final", _seen(frames, "final")),
    ):  # fmt: skip
        if known:
            found = np.sqrt(np.maximum(known["eigenvalues"][0], 0))[:1000]
            counts, edges = np.histogram(found, bins=60)
            marks.append(figures.Histogram(edges, np.maximum(counts, 0.5), label=f"{when} J", color=color))
    return marks


def _against_exact(run: Run) -> tuple[Evidence, Evidence, Evidence]:
    def both(name: str) -> np.ndarray:
        return np.stack([run.last(f"{when}_{name}") for when in WHEN], axis=1)

    eigenvalues = both("eigenvalues")  # (S, 2, nK)
    large = (eigenvalues > 0.1 * eigenvalues[..., :1]).mean(axis=-1)
    return Evidence(both("error")), Evidence(both("error_short") / both("error")), Evidence(large)


J14 = Claim(
    "J14", "finding",
    "Ten probes of 80 Lanczos steps give the spectral density of JJᵀ, smoothed by a Gaussian of variance "
    "10⁻⁵, which an eighth of the steps does not: few large values over a bulk near zero.",
    "paper 4, App. C.5, Figs. 4 and 9",
    (
        Between("L1 distance from the exact density", WHEN, high=0.1, by=EVERY),
        Between("the same with an eighth of the steps, as a ratio", WHEN, low=2.0, by=EVERY),
        Between("share of eigenvalues above a tenth of the largest", WHEN, high=0.1, by=EVERY),
    ),
    _against_exact,
    says={"holds": "the estimate is within a tenth of the exact density, an eighth of the steps does worse, "
                   "and few values are large",
          "fails": "the estimate misses the exact density, or that density has no few large values"},
    worlds=(World("five Lanczos steps", {"lanczos_steps": 5}),),
)  # fmt: skip

SPECTRUM = Experiment(
    "spectrum", "What does the whole spectrum look like?", Spectrum,
    {"quick": Spectrum(), "paper": Spectrum(dataset="mnist", n=400, width=256, steps=1000, seeds=5)},
    prepare, predict, run, figure, (J14,), controls=("lanczos_steps", "probes", "width", "depth", "steps"),
)  # fmt: skip
