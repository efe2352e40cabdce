"""Is a minimum of natural labels flatter than one of random labels? (S9, S24; paper 3, section 6.1, Table 1)

One architecture, one start, one training loss; the labels differ. At each minimum the weights walk in random
directions until the training loss has changed by epsilon: all weights together, and those of the top layer
alone. Then the units of the same networks are rescaled, which changes no output, and the walk begins anew:
the radius belongs to the parameters. Last they are *balanced*, as much norm into a unit as out of it: of all
rescalings of a function this is one, whatever it was rescaled by before.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from labkit import data, figures, models
from labkit.labs import common
from labkit.labs.sgd import shared
from labkit.measure.flatness import Radius, first_crossing, flatness_profile, flatness_radius
from labkit.models.rescaling import balanced
from labkit.protocol.claims import Claim
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.memory import once
from labkit.protocol.rules import EVERY, Between, Check, Equals, Evidence
from labkit.protocol.settings import knob

PLACES = ("all weights", "top layer")
# Table 1, natural and random labels: (MNIST, CIFAR-10) of all weights, then of the top layer.
TABLE_1 = np.array([[[45.4, 6.9], [17.0, 5.7]], [[15.0, 3.0], [19.5, 12.1]]])
PROFILE = np.geomspace(0.25, 64.0, 17)  # distances at which the loss is drawn
R_MAX = 200.0
SAME = 1e-3  # of the outputs, relative: what a rescaling may change by rounding in float32
LARGER = 1.2  # times the radius of random labels
OTHER = 0.7  # times its own radius, at most, that a network has after rescaling


@dataclass(frozen=True)
class Flat(shared.Minima):
    n: int = knob(400, "training samples N", slider=(100, 1200), bounds=(20, None), step=100)
    width: int = knob(200, "hidden units", slider=(25, 800), bounds=(1, None), scale="log2")
    stop: float = shared.stop_at(1e-3, "cross-entropy at which training stops")
    tolerance: float = knob(0.05, "change ε of the training loss that ends a walk, (16)", slider=(0.01, 0.5),
                            bounds=(1e-6, 10), scale="log", label="ε", remeasures=True)  # fmt: skip
    directions: int = knob(10, "random directions at each minimum", slider=(5, 50), bounds=(2, None), step=5,
                           remeasures=True)  # fmt: skip
    rescale: float = knob(10.0, "units are rescaled by factors from 1/this to this", slider=(1, 100),
                          bounds=(1, 1e4), scale="log", label="rescaling", remeasures=True)  # fmt: skip


def predict(setup: common.Setup) -> Prediction:
    """No theorem gives a radius; the paper's own table is the reference, and a ratio of 1 the edge."""
    return {
        "distances": PROFILE, "tolerance": np.array(setup.settings.tolerance),
        "table": TABLE_1[..., 0] / TABLE_1[..., 1],
    }  # fmt: skip


def run(setup: common.Setup, prediction: Prediction, *, radius: Radius = first_crossing) -> Iterator[Frame]:
    settings = setup.settings
    values = shared.blank(
        settings.seeds, 2, radii=(2, settings.directions), rescaled=(), balanced=(2,), same=(), capped=(),
        profile=(len(PROFILE),),
    )  # fmt: skip

    def read(k: int, s: int, one: data.Dataset, model: nn.Module) -> Iterator[bool]:
        x, y, seed, place = one.x_train, one.y_train, settings.seed + s, (s, k)
        common.put(values, place, shared.ends(model, one))

        def walks(model: nn.Module, part: str) -> Generator[bool, None, Tensor]:
            """A few at a time, so that a slider need not wait for all."""
            generator, found = torch.Generator().manual_seed(seed), []
            for some in np.diff([0, *range(4, settings.directions - 1, 4), settings.directions]):
                found.append(flatness_radius(
                    model, x, y, epsilon=settings.tolerance, directions=int(some), part=part,
                    r_max=R_MAX, generator=generator, radius=radius,
                ).radii)  # fmt: skip
                yield False
            return torch.cat(found)

        for which, part in enumerate(("all", "top")):
            values["radii"][place][which] = (yield from walks(model, part)).numpy()
            yield True
        values["capped"][place] = (values["radii"][place] >= R_MAX).mean()
        generator, most = torch.Generator().manual_seed(seed), settings.rescale
        other = models.rescale_nodes(model, generator=generator, low=1 / most, high=most)
        values["same"][place] = common.change(model, other, x)
        values["rescaled"][place] = float((yield from walks(other, "all")).mean())
        yield False
        for which, one_of in enumerate((model, other)):
            values["balanced"][place][which] = float((yield from walks(balanced(one_of), "all")).mean())
        few = min(5, settings.directions)
        profile = once(flatness_profile, model, x, y, PROFILE.tolist(), directions=few, generator=seed)
        values["profile"][place] = profile.mean(0).numpy()
        yield True

    yield from shared.minima(settings, shared.of_both_kinds(setup), values, read, share=0.85)


def figure(frames: Frames, prediction: Prediction, settings: Flat | None = None) -> figures.Chart:
    distances, places = prediction["distances"], np.arange(4.0)
    walks: list[figures.Mark] = [figures.Level(float(prediction["tolerance"]), label="ε")]
    reach: list[figures.Mark] = []
    for k, (words, color) in enumerate(zip(shared.WORDS, shared.COLORS, strict=True)):
        seen = common.seen(frames, "profile", len(distances), at=(k,))
        walks.append(figures.Measured(distances, seen, label=words, color=color))
        reach.append(figures.Points(places, _radii(frames)[:, k], label=words, color=color, line=False))
    ratios: list[figures.Mark] = [
        figures.Predicted(places[:2], prediction["table"][:, which], label=name, color=color)
        for which, (name, color) in enumerate((("MNIST, Table 1", 2), ("CIFAR-10, Table 1", 3)))
    ]
    now = _radii(frames)[..., :2]
    ratios.append(figures.Points(places[:2], now[:, 0] / now[:, 1], label="here", color="ink", line=False))
    ratios.append(figures.Level(1.0, label="alike"))
    names = [(0.0, "all"), (1.0, "top layer"), (2.0, "rescaled"), (3.0, "balanced")]
    return figures.Chart.of(
        settings, "How far one can walk from a minimum before the loss rises, for two kinds of labels.",
        figures.Panel(
            "Along random directions", walks, xlabel="distance r",
            ylabel="|L(w + ru) − L(w)|", xscale="log", yscale="log", ylim=(1e-4, 10),
        ),
        figures.Panel(
            "Flatness radius (16)", reach, ylabel="r", xticks=names, xlim=(-0.5, 3.5), ylim=(0, None),
        ),
        figures.Panel(
            "Natural / random labels", ratios, ylabel="ratio of the radii", xticks=names[:2],
            xlim=(-0.5, 1.5), ylim=(0, 8),
        ),
    )  # fmt: skip


def _radii(frames: Frames) -> np.ndarray:
    """Mean radii (S, natural or random, 4): all weights, top layer; all, rescaled and balanced."""
    radii, rescaled, even = (common.newest(frames, name) for name in ("radii", "rescaled", "balanced"))
    if radii is None or rescaled is None or even is None:
        return np.full((1, 2, 4), np.nan)
    return np.concatenate([radii.mean(axis=-1), rescaled[..., None], even[..., :1]], axis=-1)


def _flatter(run: Run) -> tuple[Evidence, Evidence]:
    common.whole(run, "radii", "rescaled", "balanced")
    radii = _radii(run.frames)
    checks = (
        *shared.converged(run),
        Check("walks that never left the strip", float(run.last("capped").max()), 0.0, "take a smaller ε"),
    )
    told = shared.told(radii[..., 0], ".1f")
    same = Check("change of the outputs by rescaling", float(run.last("same").max()), SAME, "rescale less")
    return (
        Evidence(radii[:, 0, :2] / radii[:, 1, :2], checks=checks, note=f"all weights: {told}"),
        Evidence(radii[..., 2] / radii[..., 0], checks=(*checks, same)),
    )


def _balanced(run: Run) -> tuple[Evidence, ...]:
    radii, even = _radii(run.frames), run.last("balanced")
    checks = _flatter(run)[1].checks
    across = f"natural {radii[:, 0, 2].mean():.1f}, random {radii[:, 1, 0].mean():.1f}"
    return (
        Evidence(even[:, 0, 0] / even[:, 1, 0], checks=checks, note=shared.told(even[..., 0], ".1f")),
        Evidence(even[..., 1], even[..., 0], checks=checks),
        Evidence(radii[:, 0, 2] / radii[:, 1, 0], checks=checks, note=across),
    )


S9 = Claim(
    "S9", "finding",
    "At one training loss the flatness radius is larger for natural than for random labels, of all weights "
    "and of the top layer alone; node rescaling gives the same function another radius.",
    "paper 3, eq. 16, Table 1",
    (
        Between("radius, natural over random labels", PLACES, low=LARGER, by=EVERY),
        Between("radius of all weights, rescaled over before", shared.KINDS, high=OTHER, by=EVERY),
    ),
    _flatter, "holds",
    {"holds": "minima of natural labels are flatter, in all weights and in the top layer; the same "
              "functions, rescaled, have other radii",
     "fails": "the radius of natural labels is not the larger one, or rescaling leaves it alone"},
    (shared.BOTH_NATURAL,),
)  # fmt: skip

S24 = Claim(
    "S24", "finding",
    "Balanced, as much norm into each unit as out of it, natural labels have the flatter minimum, too, and "
    "no rescaling changes that; while a rescaled network of natural labels is sharper than one of random "
    "labels that is not.",
    "paper 3, Table 1, put so that it does not depend on the parameters",
    (
        Between("radius of the balanced networks, natural over random labels", low=LARGER, by=EVERY),
        Equals("radius balanced after rescaling, against before", shared.KINDS, tolerance=0.01),
        Between("radius, natural labels rescaled over random labels as found", high=1.0, by=EVERY),
    ),
    _balanced, "holds",
    {"holds": "the order of the two is one of functions once they are balanced; as found it can be turned",
     "fails": "balanced, natural labels are not the flatter ones, or a rescaling shows in it"},
    (shared.BOTH_NATURAL,),
)  # fmt: skip

_PAPER = Flat(
    dataset="mnist", n=60_000, width=512, directions=100, stop=1e-3, lr=0.02, seeds=5, epochs=2000
)  # fmt: skip
_AFTERNOON = {"n": 2000, "directions": 20, "seeds": 3}
FLATNESS = Experiment(
    "flatness", "Is a minimum of natural labels flatter than one of random labels?", Flat,
    {"quick": Flat(), "paper": _PAPER, "cifar10": _PAPER.replace(dataset="cifar10", n=50_000),
     "afternoon": _PAPER.replace(**_AFTERNOON),
     "afternoon-cifar10": _PAPER.replace(dataset="cifar10", n=500, directions=20, seeds=2)},
    shared.prepare, predict, run, figure, (S9, S24),
    controls=("n", "width", "label_noise", "stop", "tolerance", "rescale"),
)  # fmt: skip
