"""How much noise on images, or on weights, do fitted labels bear? (S13, S16; paper 3, §9.5, §9.6.1, Fig. 20)

Two networks fit the same images without an error, one with natural labels, one with random ones. Gaussian
noise is added to the images that they were fitted to: how soon are the fitted labels lost? The same with all
weights changed by a random share: Conjecture 3 has a share Δ on the weights of L layers be (1 + Δ)^L − 1 on
the images, 2.14 for 10 % of 8 layers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from labkit import data, figures
from labkit.labs import common
from labkit.labs.sgd import shared
from labkit.measure.input_noise import error_under_noise
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import EVERY, Between, Equals, Evidence
from labkit.protocol.settings import knob
from labkit.protocol.statistics import crossing

CHANCE = 0.9  # ten classes
HALF = 0.5  # the error at which the noise that is borne is read off
MORE = 1.5  # times the noise that random labels bear
AS_MUCH = 0.25  # relative: how near (1 + Δ)^L has to come


@dataclass(frozen=True)
class Robust(shared.Minima):
    largest: float = knob(4.0, "largest noise γ, in standard deviations of a pixel", slider=(1, 10),
                          bounds=(0.1, 100), step=1, label="largest γ", remeasures=True)  # fmt: skip
    draws: int = knob(5, "noises that each error is averaged over", slider=(1, 20), bounds=(1, None), step=1,
                      remeasures=True)  # fmt: skip

    @property
    def gammas(self) -> np.ndarray:
        """0, and sizes of noise up to the largest, denser near 0."""
        return self.largest * np.linspace(0, 1, 25) ** 2


def predict(setup: common.Setup) -> Prediction:
    """Known beforehand: chance under much noise."""
    return {"gammas": setup.settings.gammas, "chance": np.array(CHANCE)}


def error_by_weights(
    model: nn.Module, one: data.Dataset, shares: np.ndarray, draws: int, generator: torch.Generator
) -> np.ndarray:
    """Training error with each weight times 1 + Δ ξ, ξ ~ N(0, 1), for every Δ: (G,)."""
    other, error = copy.deepcopy(model), np.zeros(len(shares))
    with torch.no_grad():
        for place, share in enumerate(shares):
            for _ in range(draws):
                for now, was in zip(other.parameters(), model.parameters(), strict=True):
                    now.copy_(was * (1 + share * torch.randn(was.shape, generator=generator).to(was)))
                error[place] += common.fitted(other, one.x_train, one.y_train)[1] / draws
    return error


def run(setup: common.Setup, prediction: Prediction) -> Iterator[Frame]:
    settings = setup.settings
    values = shared.blank(settings.seeds, 2, **dict.fromkeys(("error", "by_weights"), settings.gammas.shape))

    def read(k: int, s: int, one: data.Dataset, model: nn.Module) -> Iterator[bool]:
        # One noise a seed, whatever the labels.
        given = settings.draws, torch.Generator().manual_seed(settings.seed + s)
        error = error_under_noise(
            model, one.x_train, one.y_train, settings.gammas.tolist(), draws=given[0], generator=given[1]
        )
        weights = error_by_weights(model, one, settings.gammas, *given)
        found = {"error": error.numpy(), "by_weights": weights}
        common.put(values, (s, k), shared.ends(model, one) | found)
        yield False

    yield from shared.minima(settings, shared.of_both_kinds(setup), values, read)


def figure(frames: Frames, prediction: Prediction, settings: Robust | None = None) -> figures.Chart:
    gammas, level = prediction["gammas"], float(prediction["chance"])
    chance = figures.Predicted(gammas, np.full(len(gammas), level), label="chance", color="ink")
    panels = []
    for name, title, size in (
        ("error", "Error on noisy training images (47)", "noise γ (standard deviations of a pixel)"),
        ("by_weights", "Error with noisy weights", "noise Δ (share of each weight)"),
    ):
        marks = shared.of_kinds(frames, prediction, "gammas", name, figures.Measured)
        panels.append(
            figures.Panel(title, [*marks, chance], xlabel=size, ylabel="error rate",
                          xlim=(0, float(gammas[-1])), ylim=(0, 1))
        )  # fmt: skip
    says = "Error with noise on training images and on weights, fitted to natural and to random labels."
    return figures.Chart.of(settings, says, *panels)


def _worse(run: Run) -> Evidence:
    (error,) = common.whole(run, "error")
    at = crossing(run.prediction["gammas"], error, HALF)
    return Evidence(at[:, 0] / at[:, 1], checks=shared.converged(run), note=f"γ: {shared.told(at)}")


def _as_conjectured(run: Run) -> tuple[Evidence, Evidence]:
    gammas, errors = run.prediction["gammas"], common.whole(run, "error", "by_weights")
    images, weights = (crossing(gammas, error, HALF) for error in errors)
    checks = shared.converged(run)
    return (
        Evidence(images / weights, checks=checks, note=f"Δ: {shared.told(weights)}"),
        Evidence(1 + images, (1 + weights) ** (run.settings.depth + 1), checks=checks),
    )


def on_images(by_weights: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """A fault for a world: noise on the images, as large as the conjecture has it for two layers."""

    def faulty(
        model: nn.Module, one: data.Dataset, shares: np.ndarray, draws: int, generator: torch.Generator
    ) -> np.ndarray:
        sizes = ((1 + shares) ** 2 - 1).tolist()
        found = error_under_noise(model, one.x_train, one.y_train, sizes, draws=draws, generator=generator)
        return found.numpy()

    return faulty


S13 = Claim(
    "S13", "finding",
    "Of two networks that fit their labels without an error, the one of random labels loses them under less "
    "noise on the inputs.",
    "paper 3, eq. 47, Fig. 20",
    (Between("noise γ at which half the labels are lost, natural over random", low=MORE, by=EVERY),),
    _worse, "holds",
    {"holds": "random labels are lost under less noise than natural ones",
     "fails": "natural labels are lost as soon as random ones",
     "undecided": "the labels are not fitted, or half of them are never lost under so little noise"},
    (shared.BOTH_NATURAL,),
)  # fmt: skip

S16 = Claim(
    "S16", "finding",
    "A share Δ of noise on all weights of L layers costs as many labels as noise of (1 + Δ)^L − 1 on the "
    "images, which is more.",
    "paper 3, §9.6.1, eqs 53 and 54, Conjecture 3",
    (
        Between("noise at which half the labels are lost, on images over on weights", shared.KINDS, low=1.0,
                by=EVERY),
        Equals("1 + that noise on images, against (1 + that on weights)^L", shared.KINDS, tolerance=AS_MUCH),
    ),
    _as_conjectured, "fails",
    {"holds": "weights and images bear noise as the product over layers has it",
     "fails": "images bear much less noise than the product over layers has it for the weights",
     "undecided": "the labels are not fitted, or half of them are never lost under so little noise"},
    (World("noise on the images in its place", {}, {f"{__name__}:error_by_weights": on_images}, "holds"),),
    "the product is that of one path, all of whose weights grow; changes of many weights average out",
)  # fmt: skip

ROBUSTNESS = Experiment(
    "robustness", "How much noise on the images do fitted labels bear?", Robust,
    {"quick": Robust(), "paper": Robust(**shared.LARGE, draws=10)},
    shared.prepare, predict, run, figure, (S13, S16),
    controls=("n", "width", "label_noise", "stop", "largest", "draws"),
)  # fmt: skip
