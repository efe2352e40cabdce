"""Equal norms, unequal sharpness: what noise does where layers meet, or miss, each other (E11, E21; paper 2,
section 4 and Lemma 3).

A trained network gets as many hidden units again in its last hidden layer, which nothing feeds. Then the last
matrix turns by an angle θ from the units that are fed to those that are not, at the same norm. No norm of a
layer changes, and the outputs shrink by cos θ, so that every class stays; but what noise on the weights does
stays as it is, by Lemma 3, and stands against less and less signal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labkit import figures, training
from labkit.labs import common
from labkit.labs.generalization import shared
from labkit.labs.generalization.conditions import PAPER, Deep, Setup, learn, prepare
from labkit.measure.conditions import conditions
from labkit.measure.relu_chain import chain_inputs, chain_weights, forward
from labkit.measure.sharpness import expected_sharpness
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.memory import once
from labkit.protocol.rules import EVERY, AtMost, Between, Equals, Evidence
from labkit.protocol.settings import knob
from labkit.theory import generalization as theory

PLACES = 7
ERRORS = 5.0  # standard errors that a mean of draws may lie past its bound
RISES = 0.2  # so many more wrong classes we call a very different sharpness


@dataclass(frozen=True)
class Layers(Deep):
    width: int = knob(64, "units of each hidden layer", slider=(20, 200), bounds=(1, None), scale="log2")
    hidden: int = knob(2, "hidden layers", slider=(1, 4), bounds=(1, 10), step=1, label="hidden layers")
    samples: int = knob(
        60, "samples that noise is tried on", slider=(20, 300), bounds=(2, None), step=20, remeasures=True
    )
    apart: float = knob(
        32.0, "largest 1/cos θ: how far the last layer turns away from the others", slider=(2, 128),
        bounds=(1, 1e6), scale="log2", label="largest 1/cos θ", remeasures=True,
    )  # fmt: skip
    sigma: float = knob(
        0.015, "standard deviation σ of the noise on every weight", slider=(1e-3, 0.1), bounds=(1e-6, 100),
        scale="log", label="noise σ", remeasures=True,
    )  # fmt: skip
    draws: int = knob(50, "draws of the noise", slider=(20, 400), bounds=(2, None), step=10, remeasures=True)


def predict(setup: Setup) -> Prediction:
    """The outputs fall as cos θ, and μ of (C1) with them; norms do not move."""
    apart = np.geomspace(1.0, setup.settings.apart, PLACES)
    return {"apart": apart, "share": 1 / apart, "norms": np.ones(PLACES)}


def turned(model: nn.Module, x: Tensor, apart: float) -> nn.Sequential:
    """The network with idle units beside its last hidden ones, to which its last matrix has turned by θ."""
    *first, before, last = chain_weights(model, "turned")
    idle = torch.linalg.qr(torch.randn(last.T.shape, generator=torch.Generator().manual_seed(0)))[0].T
    idle = idle.to(last) * last.norm() / idle.norm()
    share = 1 / apart
    wide = torch.cat([before, torch.zeros_like(before)])
    aside = torch.cat([share * last, (1 - share**2) ** 0.5 * idle], dim=1)
    parts: list[nn.Module] = []
    for W in (*first, wide, aside):
        parts += [layer := nn.Linear(W.shape[1], W.shape[0], bias=False).to(x), nn.ReLU()]
        layer.weight.data.copy_(W)
    return nn.Sequential(*parts[:-1])


def run(setup: Setup, prediction: Prediction) -> Iterator[Frame]:
    settings, seeds = setup.settings, len(setup.models)

    def look(ensemble: training.Ensemble, place: int, s: int) -> dict[str, float]:
        one, model = setup.sets[0][s], ensemble.member(s)
        x, y = one.x_train[: settings.samples], one.y_train[: settings.samples]
        found = looked_at(settings, turned(model, x, float(prediction["apart"][place])), x, y, s)
        return found | {"loss": common.fitted(model, one.x_train, one.y_train)[0]}

    ensemble, outcome = yield from learn(
        setup, 0, (0.0, 0.6), lambda now: common.alone((seeds, PLACES), (0, 0), look(now, 0, 0))
    )
    if outcome.word != "diverged":
        yield from common.sweep(partial(look, ensemble), seeds, [1.0] * PLACES, outcome.missed, 0.6)


def looked_at(settings: Layers, net: nn.Module, x: Tensor, y: Tensor, seed: int) -> dict[str, float]:
    """Norms, μ, what noise does to the classes, and Lemma 3 between the two layers that turn."""
    weights = chain_weights(net, "looked_at")
    rise = once(
        expected_sharpness, net, x, y, alphas=[settings.sigma], draws=settings.draws, loss="error",
        relative=0.0, generator=seed,
    )  # fmt: skip
    hidden = forward(weights[:-2], chain_inputs(net, x, "looked_at"))[0][-1].relu() if len(weights) > 2 else x
    sizes = noise_between(weights[-1], hidden.T, settings, seed)
    sizes /= theory.lemma3(weights[-1], hidden.T, settings.sigma)
    return {
        "norms": float(torch.stack([W.double().square().sum() for W in weights]).prod()),
        "mu": float(once(conditions, net, x).mu_input.median()),
        "error": float(rise.loss), "rise": float(rise.mean[0]),
        "mean": sizes.mean(), "stderr": sizes.std(ddof=1) / len(sizes) ** 0.5,
        "rms": (sizes**2).mean() ** 0.5,
    }  # fmt: skip


def noise_between(a: Tensor, b: Tensor, settings: Layers, seed: int) -> np.ndarray:
    """‖AνB‖_F of every draw, σ the standard deviation of the noise."""
    generator = torch.Generator().manual_seed(seed)
    shape = (8 * settings.draws, a.shape[1], b.shape[0])
    noise = settings.sigma * torch.randn(shape, generator=generator, dtype=a.dtype)
    return (a.cpu() @ noise @ b.cpu()).double().flatten(1).norm(dim=1).numpy()


def figure(frames: Frames, prediction: Prediction, settings: Layers | None = None) -> figures.Chart:
    apart = prediction["apart"]

    def seen(name: str, label: str, color: int, relative: bool = False) -> figures.Points:
        values = common.seen(frames, name, len(apart))
        return figures.Points(apart, values / (values[:, :1] if relative else 1), label, color)

    stays: list[figures.Mark] = [
        figures.Predicted(apart, prediction["norms"], label="norms", color=shared.L2),
        figures.Predicted(apart, prediction["share"], label="cos θ", color=shared.DIVERGENCE),
        seen("norms", "∏‖W‖_F²", shared.L2, True), seen("mu", "μ of (C1)", shared.DIVERGENCE, True),
    ]  # fmt: skip
    wrong = [seen("error", "as they are", shared.TRUE), seen("rise", "rise under noise", shared.RANDOM)]
    lemma: list[figures.Mark] = [
        figures.Level(1.0, "Lemma 3"), seen("mean", "mean", 2), seen("rms", "root mean square", 3),
    ]  # fmt: skip
    across: dict[str, Any] = {"xlabel": "1/cos θ", "xscale": "log2"}
    ratio = "‖AνB‖ / σ‖A‖‖B‖"
    return figures.Chart.of(
        settings, "Networks of equal norms and equal classes, whose last layer turns away from the rest.",
        figures.Panel("Norms stay, μ falls", stays, ylabel="over that at θ = 0", yscale="log", **across),
        figures.Panel("Wrong classes", wrong, ylabel="share", ylim=(-0.05, 1), **across),
        figures.Panel("Noise between two layers", lemma, ylabel=ratio, ylim=(0.8, 1.1), **across),
    )  # fmt: skip


def _lemma(run: Run) -> tuple[Evidence, Evidence]:
    mean = run.last("mean")
    told = f"the mean over its bound goes from {mean.min():.3f} to {mean.max():.3f}"
    return Evidence(mean - ERRORS * run.last("stderr"), 1.0, note=told), Evidence(run.last("rms"), 1.0)


def _apart(run: Run) -> tuple[Evidence, ...]:
    norms, checks = run.last("norms"), shared.trained(run)
    return (
        Evidence(norms / norms[:, :1], 1.0, checks=checks),
        Evidence(run.last("error") - run.last("error")[:, :1], 0.0, checks=checks),
        Evidence(run.last("rise")[:, -1] - run.last("rise")[:, 0], checks=checks),
    )


E11 = Claim(
    "E11", "theorem",
    "For ν with independent N(0, σ²) entries, σ the standard deviation, E‖AνB‖_F is at most σ‖A‖_F‖B‖_F, and "
    "the root mean square is equal to it: between two layers noise sees nothing but norms.",
    "paper 2, Lemma 3",
    (
        AtMost(f"mean of ‖AνB‖_F less {ERRORS:g} standard errors, over σ‖A‖_F‖B‖_F"),
        Equals("root mean square of ‖AνB‖_F, over σ‖A‖_F‖B‖_F", tolerance=0.06),
    ),
    _lemma, "holds",
    {"holds": "the mean is below its bound at every angle, and the root mean square is the bound itself",
     "fails": "a mean is above its bound, or the root mean square is not the bound"},
)  # fmt: skip
E21 = Claim(
    "E21", "finding",
    "Two networks with the same norm of every layer and the same classes can be of very different sharpness: "
    f"where the last layer nearly misses the others, the same noise makes {RISES:g} more of all classes "
    "wrong.",
    "paper 2, section 4",
    (
        Equals("∏‖W‖_F², over that at θ = 0", tolerance=1e-5),
        Equals("share of wrong classes without noise, less that at θ = 0", tolerance=0.0, absolute=True),
        Between("rise of the error under noise at the largest θ, less that at θ = 0", low=RISES, by=EVERY),
    ),
    _apart, "holds",
    {"holds": "norms and classes are equal, and sharpness is not: norms alone do not bound it",
     "fails": "norms or classes are not as constructed, or noise does not tell the networks apart",
     "undecided": "the network has not been trained to its end"},
    (World("a last layer that hardly turns", {"apart": 1.05, "seeds": 1}),),
)  # fmt: skip

LAYERS = Experiment(
    "layers", "Equal norms: is the sharpness equal, too?", Layers,
    {
        "quick": Layers(),
        "paper": Layers(**PAPER, draws=100),
    },
    prepare, predict, run, figure, (E11, E21), controls=("apart", "sigma", "width", "hidden", "n", "stop"),
)  # fmt: skip
