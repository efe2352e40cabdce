"""How much noise on the images do fitted labels bear? (S13; paper 3, section 9.5, Fig. 20)

Two networks fit the same images without an error, one with natural labels, one with random ones. Gaussian
noise is added to the images that they were fitted to: how soon are the fitted labels lost?
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from labkit import figures
from labkit.labs import common
from labkit.labs.sgd import shared
from labkit.measure.input_noise import error_under_noise
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Prediction, Run
from labkit.protocol.rules import EVERY, Between, Evidence
from labkit.protocol.settings import knob

CHANCE = 0.9  # ten classes
HALF = 0.5  # the error at which the noise that is borne is read off
MORE = 1.5  # times the noise that random labels bear


@dataclass(frozen=True)
class Robust(shared.Minima):
    n: int = knob(300, "training samples N", slider=(100, 1000), bounds=(20, None), step=100)
    width: int = knob(100, "hidden units", slider=(25, 400), bounds=(1, None), scale="log2")
    stop: float = knob(
        0.01, "cross-entropy at which training stops", slider=(1e-3, 0.1), bounds=(1e-6, 0.5), scale="log",
        label="stop at loss",
    )  # fmt: skip
    largest: float = knob(
        4.0, "largest noise γ, in standard deviations of a pixel", slider=(1, 10), bounds=(0.1, 100), step=1,
        label="largest γ", remeasures=True,
    )  # fmt: skip
    draws: int = knob(
        5,
        "noises that each error is averaged over",
        slider=(1, 20),
        bounds=(1, None),
        step=1,
        remeasures=True,
    )

    @property
    def gammas(self) -> np.ndarray:
        """0, and sizes of noise up to the largest, denser near 0."""
        return self.largest * np.linspace(0, 1, 25) ** 2


def prepare(settings: Robust) -> shared.Started:
    return shared.prepare_starts(settings)


def predict(setup: shared.Started) -> Prediction:
    """Known beforehand: chance under much noise."""
    return {"gammas": setup.settings.gammas, "chance": np.array(CHANCE)}


def run(setup: shared.Started, prediction: Prediction) -> Iterator[Frame]:
    settings = setup.settings
    values = shared.blank(settings.seeds, error=(len(settings.gammas),))
    notes = []
    for k, (begin, end) in enumerate(shared.PARTS):
        trained = begin + 0.9 * (end - begin)
        found = yield from shared.fit(settings, setup.starts, setup.sets[k], span=(begin, trained), step=k)
        if found.word == "diverged":
            yield Frame(k, shared.snapshot(values), trained, "diverged", f"{shared.WORDS[k]}: {found.note}")
            return
        notes += [f"{shared.WORDS[k]}: {found.note}"] if found.word == "missed" else []
        for s, (model, one) in enumerate(zip(found.models, setup.sets[k], strict=True)):
            for name, value in shared.ends(model, one).items():
                values[name][s, k] = value
            # One noise a seed, whatever the labels.
            generator = torch.Generator().manual_seed(settings.seed + s)
            values["error"][s, k] = error_under_noise(
                model, one.x_train, one.y_train, settings.gammas.tolist(), draws=settings.draws,
                generator=generator,
            ).numpy()  # fmt: skip
            yield Frame.tick(k, trained)
        yield Frame(k + 1, shared.snapshot(values), end - 0.01)
    yield Frame(len(shared.KINDS), {}, 1.0, "done", "; ".join(notes))


def figure(
    frames: Sequence[Frame],
    prediction: Prediction,
    previous: Sequence[Run] = (),
    settings: Robust | None = None,
) -> figures.Chart:
    gammas = prediction["gammas"]
    now = common.newest(frames, "error")
    curves: list[figures.Mark] = []
    for k, (words, color) in enumerate(zip(shared.WORDS, shared.COLORS, strict=True)):
        for old in previous:
            before = common.newest(old.frames, "error")
            if before is not None:
                curves.append(figures.Earlier(old.prediction["gammas"], before[:, k]))
        seen = np.full((1, len(gammas)), np.nan) if now is None else now[:, k]
        curves.append(figures.Measured(gammas, seen, label=words, color=color))
    curves.append(
        figures.Predicted(
            gammas, np.full(len(gammas), float(prediction["chance"])), label="chance", color="ink"
        )
    )
    top, size = float(gammas[-1]), "noise γ (standard deviations of a pixel)"
    return figures.Chart(
        (
            figures.Panel(
                "Error on noisy training images (47)", tuple(curves), xlabel=size, ylabel="error rate",
                xlim=(0, top), ylim=(0, 1),
            ),
            figures.Panel(
                "The same, near 0", tuple(curves), xlabel=size, ylabel="error rate",
                xlim=(0, 0.15 * top), ylim=(0, 0.6),
            ),
        ),
        caption=figures.caption(
            "Error on noisy training images, after a fit to natural and to random labels.", settings
        ),
    )  # fmt: skip


def borne(gammas: np.ndarray, error: np.ndarray, level: float = HALF) -> np.ndarray:
    """The noise at which the error first reaches `level`: (..., G) -> (...), nan where it never does."""
    found = np.full(error.shape[:-1], np.nan)
    for place in np.ndindex(found.shape):
        over = np.flatnonzero(error[place] >= level)
        if len(over) and over[0]:
            right, left = int(over[0]), int(over[0]) - 1
            rise = error[place][right] - error[place][left]
            share = (level - error[place][left]) / rise
            found[place] = gammas[left] + share * (gammas[right] - gammas[left])
    return found


def _worse(run: Run) -> Evidence:
    error, gammas = run.last("error"), run.prediction["gammas"]
    if not np.isfinite(error).all():
        raise ValueError("error: not both kinds of labels have been measured yet")
    checks = shared.converged(run.last("train_error"), run.last("loss"), run.settings.stop)
    at = borne(gammas, error)
    found = ", ".join(f"{word} {v:.2f}" for word, v in zip(shared.KINDS, at.mean(axis=0), strict=True))
    return Evidence(at[:, 0] / at[:, 1], checks=checks, note=f"γ: {found}")


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
    (World("both networks with natural labels", {"label_noise": 0.0}),),
)  # fmt: skip

ROBUSTNESS = Experiment(
    "robustness", "How much noise on the images do fitted labels bear?", Robust,
    {
        "quick": Robust(),
        "paper": Robust(
            dataset="cifar10", n=10_000, width=512, depth=2, draws=10, lr=0.01, seeds=3, epochs=2000
        ),
    },
    prepare, predict, run, figure, (S13,),
    controls=("n", "width", "label_noise", "stop", "largest", "draws"),
)  # fmt: skip
