"""Is minibatch noise the noise of Langevin's equation? (S6; paper 3, section 5.1, Fig. 5)

e^(-U/T) is the law of noise that is Gaussian and isotropic. A network is trained until its loss has fallen to
1, to .1 and to .01; at each of these moments minibatches are drawn at fixed weights, and the gradient of each
less the gradient of all samples is its noise. Are single components Gaussian, by their skew and kurtosis, and
how many directions does the noise fill? The network has fewer weights than there are samples: with more, the
gradients of all samples could not fill them, whatever the noise. That the covariance falls as 1/B is a fact
of sampling, and checks the drawing alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import ndtr
from torch import Tensor, nn

from labkit import data, figures
from labkit.labs import common
from labkit.labs.sgd import shared
from labkit.measure.gradient_noise import (
    gradient_noise,
    noise_factor,
    noise_variance,
    participation_ratio,
    sample_gradients,
)
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import EVERY, Between, Check, Condition, Equals, Evidence
from labkit.protocol.settings import knob

PHASES = ("early", "middle", "late")
LOSSES = (1.0, 0.1, 0.01)  # where a phase is looked at
# A component is about Gaussian up to these, in the median over components. A test of normality would reject
# any noise with enough draws.
SKEW, KURTOSIS = 0.5, 1.0
FILLED = 0.5  # of all directions, from which on noise counts as isotropic
COMPONENTS = 1000  # that are looked at
EDGES = np.linspace(-6, 6, 49)
COLORS = (2, 4, 3)
# (gradients (n, p), batch size, draws, replacement=, generator=) -> (draws, p), as `gradient_noise`.
Noise = Callable[..., Tensor]


@dataclass(frozen=True)
class MinibatchNoise(common.OnData):
    batch_size: int = knob(64, "samples B of the batches whose noise is looked at", slider=(8, 256),
                           bounds=(1, None), scale="log2", label="batch size B", remeasures=True)  # fmt: skip
    drawing: str = knob(
        "without replacement", "whether a sample may come twice in a batch; an epoch has no replacement",
        choices=("without replacement", "with replacement"), label="batches drawn", remeasures=True,
    )  # fmt: skip
    draws: int = knob(300, "minibatches at each phase", slider=(100, 1000), bounds=(20, None), step=100,
                      remeasures=True)  # fmt: skip
    n: int = knob(1200, "training samples n", slider=(400, 1400), bounds=(128, None), step=100)
    width: int = knob(14, "hidden units", slider=(8, 128), bounds=(1, None), scale="log2")
    depth: int = knob(1, "hidden layers", slider=(1, 3), bounds=(1, None), step=1)
    lr: float = shared.rate(0.02, "learning rate of SGD with momentum .9 and batches of 64",
                            slider=(0.005, 0.1))  # fmt: skip
    epochs: int = knob(1000, "longest training between two phases", slider=(100, 5000), bounds=(1, None),
                       scale="log")  # fmt: skip
    dataset: str = knob("digits", "images", choices=("digits", "mnist-5k", "mnist", "cifar10"))

    @property
    def limits(self) -> Mapping[str, tuple[int, str]]:
        return {"batch_size": (self.n // 2, "n / 2")}

    @property
    def sizes(self) -> tuple[int, ...]:
        """Batch sizes of the scaling: 8, 32, ... up to a quarter of the samples, and the one asked for."""
        powers = {2**k for k in range(3, self.n.bit_length(), 2) if 2**k <= self.n // 4}
        return tuple(sorted(powers | {self.batch_size}))

    @property
    def replacement(self) -> bool:
        return self.drawing == "with replacement"


def prepare(settings: MinibatchNoise) -> common.Setup:
    sets = shared.images(settings, n_test=100)
    return common.Setup(settings, sets, shared.networks(settings, sets[0].dim))


def predict(setup: common.Setup) -> Prediction:
    """What the choice of samples says of the covariance; what Gaussian isotropic noise would show."""
    settings = setup.settings
    weights = sum(p.numel() for p in setup.models[0].parameters())
    exact = [noise_factor(settings.n, size, replacement=settings.replacement) for size in settings.sizes]
    return {
        "sizes": np.array(settings.sizes), "factor": np.array(exact), "weights": np.array(weights),
        # n gradients less their mean leave so many directions, whatever the noise.
        "most": np.array(min(weights, settings.n - 1)),
        "edges": EDGES, "density": np.diff(ndtr(EDGES)) / np.diff(EDGES),
    }  # fmt: skip


def run(setup: common.Setup, prediction: Prediction, *, noise: Noise | None = None) -> Iterator[Frame]:
    settings, phases, noise = setup.settings, len(PHASES), noise or gradient_noise
    values = common.blank(
        settings.seeds, phases, loss=(), skew=(), kurtosis=(), participation=(), silent=(),
        scaled=(len(settings.sizes),), density=(len(EDGES) - 1,),
    )  # fmt: skip

    def read(t: int, s: int, one: data.Dataset, model: nn.Module) -> Iterator[bool]:
        values["loss"][s, t] = common.fitted(model, one.x_train, one.y_train)[0]
        gradients = sample_gradients(model, one.x_train, one.y_train)
        variance = noise_variance(gradients)
        generator = torch.Generator().manual_seed(settings.seed + s + 100 * t)
        for place, size in enumerate(settings.sizes):
            drawn = noise(
                gradients, size, settings.draws, replacement=settings.replacement, generator=generator
            )
            trace = float(drawn.double().square().sum(1).mean())
            values["scaled"][s, t, place] = trace / float(variance.sum())
            if size == settings.batch_size:
                common.put(values, (s, t), _shape(drawn, variance, generator))
            yield not place  # the first of them soon

    trainings = [
        shared.Training(
            phase, setup.sets, span, None if t else setup.models,
            {"loss": LOSSES[t], "seed": settings.seed + 1000 * t},
        )
        for t, (phase, span) in enumerate(zip(PHASES, common.spans([1.0] * phases), strict=True))
    ]  # fmt: skip
    yield from shared.minima(settings, trainings, values, read, share=0.4)


def _shape(drawn: Tensor, variance: Tensor, generator: torch.Generator) -> dict[str, Any]:
    """Are the components of noise (M, p) Gaussian, and how many directions does it fill?"""
    from scipy import stats  # here, because it takes half as long to import as torch

    # A weight behind a pixel that is always black, or a unit that is never active, has no noise to test.
    alive = (variance > 1e-12 * variance.max()).nonzero().flatten()
    chosen = alive[torch.randperm(len(alive), generator=generator)[:COMPONENTS]]
    components = drawn[:, chosen]
    # In few batches a component that one sample alone has may be the same throughout.
    components = components[:, components.amax(0) > components.amin(0)]
    scaled = (components / components.std(0)).double().cpu().numpy()
    counts = np.histogram(scaled, EDGES)[0]
    return {
        "skew": np.median(np.abs(stats.skew(scaled))), "kurtosis": np.median(stats.kurtosis(scaled)),
        "participation": participation_ratio(drawn),
        "silent": 1 - len(alive) / len(variance),
        "density": counts / (scaled.size * np.diff(EDGES)),
    }  # fmt: skip


def figure(frames: Frames, prediction: Prediction, settings: MinibatchNoise | None = None) -> figures.Chart:
    centres, sizes = (EDGES[1:] + EDGES[:-1]) / 2, prediction["sizes"]
    shapes: list[figures.Mark] = []
    scaling: list[figures.Mark] = []
    for t, (phase, color) in enumerate(zip(PHASES, COLORS, strict=True)):
        density = common.seen(frames, "density", len(centres), at=(t,))
        scaled = common.seen(frames, "scaled", len(sizes), at=(t,))
        shapes.append(figures.Measured(centres, density, label=phase, color=color))
        beside = sizes * 1.06 ** (t - 1)  # Where the three agree, each is seen.
        scaling.append(figures.Points(beside, scaled, label=phase, color=color, line=False))
    shapes.append(figures.Predicted(centres, prediction["density"], label="Gaussian", color="ink"))
    scaling.insert(0, figures.Predicted(sizes, prediction["factor"], label="exact", color="ink"))
    kurtosis = common.newest(frames, "kurtosis")
    if kurtosis is not None:
        told = " / ".join("–" if np.isnan(v) else f"{v:.1f}" for v in kurtosis.mean(axis=0))
        shapes.append(figures.Note(f"excess kurtosis: {told}", 0.03, 0.97))
    places, now = np.arange(float(len(PHASES))), common.seen(frames, "participation", len(PHASES))
    filled: list[figures.Mark] = [
        figures.Predicted(places, np.full(len(PHASES), prediction["weights"]), "isotropic", "ink"),
        figures.Level(float(prediction["most"]), label="most, n − 1"),
        *(figures.Points(places, np.where(places == t, now, np.nan), color=color, line=False)
          for t, color in enumerate(COLORS)),
    ]  # fmt: skip
    return figures.Chart.of(
        settings, "The noise of minibatch gradients: its tails, its size, and the directions it fills.",
        figures.Panel(
            "Components of the noise", shapes, xlabel="in standard deviations", ylabel="density",
            yscale="log", ylim=(1e-5, 5), xlim=(-6, 6),
        ),
        figures.Panel(
            "Covariance against batch size", scaling, xlabel="batch size B",
            ylabel="tr C_B / tr C_1", xscale="log2", yscale="log",
        ),
        figures.Panel(
            "Directions that the noise fills", filled, ylabel="participation ratio", yscale="log",
            ylim=(1, 5 * float(prediction["weights"])),
            xticks=[(float(t), f"{phase}\nloss {LOSSES[t]:g}") for t, phase in enumerate(PHASES)],
            xlim=(-0.5, 2.5),
        ),
    )  # fmt: skip


def _langevin(run: Run) -> tuple[Evidence, ...]:
    (scaled,), names = common.whole(run, "scaled"), ("skew", "kurtosis", "participation")
    skew, kurtosis, filled = (run.last(name) for name in names)
    missed = float(np.nanmax(run.last("loss") / np.array(LOSSES)))
    checks = (Check("training loss over that of its phase", missed, 1.02, "raise epochs"),)
    weights = float(run.prediction["weights"])
    fewer = (Condition("weights against samples", weights, run.settings.n - 1),)
    return (
        Evidence(skew, checks=checks),
        Evidence(kurtosis, checks=checks),
        Evidence(filled / weights, conditions=fewer, checks=checks,
                 note=f"{' / '.join(f'{value:.0f}' for value in filled.mean(axis=0))} of {weights:.0f}"),
        Evidence(scaled.mean(axis=1), run.prediction["factor"], checks=checks),
    )  # fmt: skip


def isotropic(noise: Noise) -> Noise:
    """A fault for a world: noise of the right size, as Langevin's equation takes it."""

    def gaussian(
        gradients: Tensor, batch_size: int, draws: int, *, replacement: bool, generator: torch.Generator
    ) -> Tensor:
        factor = noise_factor(len(gradients), batch_size, replacement=replacement)
        deviation = float(noise_variance(gradients).mean() * factor) ** 0.5
        return deviation * torch.randn(draws, gradients.shape[1], generator=generator)

    return gaussian


S6 = Claim(
    "S6", "finding",
    "Minibatch-gradient noise is about Gaussian by component, with a median skew of at most .5 and excess "
    "kurtosis of at most 1, and fills at least half of all directions, as Langevin's equation takes it; its "
    "covariance is that of sampling, 1/B but for the finite n.",
    "paper 3, §5.1, Fig. 5",
    (
        Between("skew of a component, size, median", PHASES, high=SKEW, by=EVERY),
        Between("excess kurtosis of a component, median", PHASES, high=KURTOSIS, by=EVERY),
        Between("participation ratio over the number of weights", PHASES, low=FILLED, by=EVERY),
        Equals("tr C_B / tr C_1 at each B, mean over phases", tolerance=0.2),
    ),
    _langevin, "fails",
    {"holds": "Gaussian, isotropic, and falling as 1/B: Langevin noise",
     "fails": "not the noise that e^(−U/T) takes: it fills few directions, and its components have heavy "
              "tails"},
    (World("Gaussian isotropic noise in its place", {}, {f"{__name__}:gradient_noise": isotropic}, "holds"),),
    "samples' gradients lie in few directions, and late in training a few samples make nearly all of them",
)  # fmt: skip

NOISE = Experiment(
    "noise", "Is minibatch noise the noise of Langevin's equation?", MinibatchNoise,
    {"quick": MinibatchNoise(), "paper": MinibatchNoise(
        dataset="mnist", n=1000, width=64, draws=1000, seeds=5)},
    prepare, predict, run, figure, (S6,), controls=("batch_size", "drawing", "draws", "n", "width", "lr"),
)  # fmt: skip
