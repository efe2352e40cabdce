"""Does memorising cost distance? (D13)

All shares of label noise are trained side by side, to one loss, on a smaller and on a larger sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from labkit import figures, training
from labkit.labs import common
from labkit.labs.distance import shared
from labkit.protocol import lengths
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import EVERY, Between, Evidence
from labkit.protocol.settings import knob

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
SMALLER = 0.3  # of n: the smaller of the two samples


@dataclass(frozen=True)
class Noise(shared.Trained):
    width: int = knob(100, "hidden units H", slider=(25, 400), bounds=(1, None), scale="log2")
    n: int = knob(1000, "samples m of the larger sample", slider=(200, 1400), bounds=(40, None), step=100)
    lr: float = shared.learning_rate(0.1)
    stop: float = shared.stop_at(0.01, least=1e-3)
    noise_kind: str = knob("redraw", "how a label is corrupted", choices=("redraw", "strict"))

    @property
    def sizes(self) -> tuple[int, int]:
        return round(SMALLER * self.n), self.n


def prepare(settings: Noise) -> common.Setup:
    """sets[size]: one a seed and share, the shares of a seed together."""
    sets = tuple(
        tuple(
            common.classification(
                settings.dataset, n=size, classes=10, n_test=100, label_noise=share,
                noise_kind=settings.noise_kind, normalize="standardize", seed=seed, device=settings.device,
            )
            for seed in common.seeds(settings)
            for share in SHARES
        )
        for size in settings.sizes
    )  # fmt: skip
    return common.Setup(settings, sets)


def predict(setup: common.Setup) -> Prediction:
    """No theorem says how r grows with noise; what is known is how many labels a share of noise changes."""
    classes = setup.sets[0][0].classes
    kept = 1 / classes if setup.settings.noise_kind == "redraw" else 0.0
    return {
        "shares": np.array(SHARES),
        "changed": np.array(SHARES) * (1 - kept),
        "sizes": np.array(setup.settings.sizes),
    }


def run(
    setup: common.Setup, prediction: Prediction, *, distance: shared.Distance | None = None
) -> Iterator[Frame]:
    settings, shape = setup.settings, (setup.settings.seeds, len(SHARES))
    travel = distance or shared.distance
    ends = common.blank(settings.seeds, 2, r_end=(len(SHARES),), reached=(len(SHARES),))
    step = 0
    for which, sets in enumerate(setup.sets):
        # One start a seed, whatever the share: the shares differ in their labels alone.
        nets = shared.networks(settings, sets[0], settings.width)
        ensemble = training.Ensemble([net for net in nets for _ in SHARES])
        looks = {"r": shared.measuring(travel, shared.copied(ensemble.weights()))}
        first = step
        for frame in shared.fit(settings, ensemble, sets, measure=looks):
            step = first + frame.step
            share = frame.progress or 0.0
            progress = min(0.98, 0.2 * which + (0.2 + 0.6 * which) * lengths.shown(share**0.5, share))
            if frame.is_tick:
                yield Frame.tick(step, progress)
                continue
            values: dict[str, np.ndarray] = {"r": frame.values["r"].reshape(shape)}
            values["loss"] = frame.values["loss"].reshape(shape)
            values |= {"which": np.full(settings.seeds, which), "at": np.full(settings.seeds, frame.step)}
            if frame.status == "diverged":
                yield Frame(step, values, progress, "diverged", frame.note)
                return
            if frame.status == "done":
                ends["r_end"][:, which] = values["r"]
                ends["reached"][:, which] = shared.reached(frame, settings, sets[0].n).reshape(shape)
                values |= common.snapshot(ends)
            yield Frame(step, values, progress)
    yield Frame(step, {}, 1.0, "done")


def figure(frames: Frames, prediction: Prediction, settings: Noise | None = None) -> figures.Chart:
    shares, sizes = prediction["shares"], prediction["sizes"]
    shown = [frame for frame in frames if "r" in frame.values]
    which = int(shown[-1].values["which"][0]) if shown else 0
    now = [frame for frame in shown if frame.values["which"][0] == which and frame.values["at"][0] > 0]
    at = np.array([frame.values["at"][0] for frame in now])
    paths: list[figures.Mark] = []
    for color, place in enumerate(range(0, len(SHARES), 2)):
        r = np.array([frame.values["r"][:, place] for frame in now]).T if now else np.zeros((1, 0))
        paths.append(figures.Measured(at, r, label=f"noise {SHARES[place]:.0%}", color=color))
    seen = common.seen(frames, "r_end", 2, len(shares))
    ends = [figures.Points(shares, seen[:, k], f"m = {sizes[k]}", color) for k, color in ((0, 4), (1, 5))]
    return figures.Chart.of(
        settings, "Distance from the start while wrong labels are learned, and where it ends at one loss.",
        figures.Panel(
            f"Distance from the start, m = {sizes[which]}", tuple(paths), xlabel="step", ylabel="‖W − Z‖",
            xscale="log",
        ),
        figures.Panel(
            "At the matched loss", ends, xlabel="label noise (share of labels redrawn)",
            ylabel="‖W − Z‖", xlim=(-0.05, 1.05),
        ),
    )  # fmt: skip


def _grows(run: Run) -> tuple[Evidence, ...]:
    r, reached = common.whole(run, "r_end", "reached")
    missed = shared.missed(reached)
    clean, noisy = r[..., 0], r[..., -1]
    # A network that has not moved at all has not moved further.
    contrast = np.divide(noisy, clean, out=np.ones_like(noisy), where=clean > 0) - 1
    sizes = run.prediction["sizes"]
    growth = [shared.growth(sizes, ends) for ends in (noisy, clean)]
    ends = "; ".join(
        f"m = {size}: {common.means(row, '.2f')}" for size, row in zip(sizes, r.swapaxes(0, 1), strict=True)
    )
    return (
        Evidence(contrast, checks=(missed,), note=f"r = {ends}"),
        Evidence(growth[0] - growth[1], checks=(missed,),
                 note=f"exponents {growth[1].mean():.2f} (true), {growth[0].mean():.2f} (random)"),
    )  # fmt: skip


D13 = Claim(
    "D13", "finding",
    "At equal loss the distance from the start is larger for random labels than for true ones, and the "
    "difference is larger on more samples.",
    "paper 1, §4, Figs 1, 5, 6",
    (Between("r with random labels over r with true ones, minus 1", ("smaller sample", "larger sample"),
             low=0.3, by=EVERY),
     Between("exponent of r in m, random minus true labels", low=0.15, by=EVERY)),
    _grows, "holds",
    {"holds": "memorising costs distance at both sizes, and more at the larger",
     "fails": "memorising costs no distance, or not more on more samples",
     "undecided": "a training missed its stop"},
    (World("the distance from the start replaced by zero", faults=shared.WITHOUT_DISTANCE),
     World("the distance measured from the origin", faults=shared.FROM_ORIGIN)),
)  # fmt: skip

NOISE = Experiment(
    "noise", "Does memorising cost distance?", Noise,
    {
        "quick": Noise(),
        "paper": Noise(width=640, n=10_000, dataset="mnist", lr=0.01, stop=0.005, seeds=5, epochs=4000),
        "afternoon": Noise(width=160, n=2000, dataset="mnist", lr=0.05, stop=0.005, seeds=2, epochs=2000),
    },
    prepare, predict, run, figure, (D13,), controls=("width", "n", "lr", "stop", "noise_kind"),
)  # fmt: skip
