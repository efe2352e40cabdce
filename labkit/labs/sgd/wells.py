"""Does noise choose the wide well? (S4; paper 3, eq. 9 and Fig. 7)

Langevin dynamics over two wells of equal depth, one wider in every direction, in one dimension after the
other: the share of time in the wide well against the integral of e^(−U/T). The barrier between the wells is
1.9, the temperature 2: what is judged is the law, not how long an escape takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from labkit import figures
from labkit.labs import common
from labkit.labs.sgd import chains
from labkit.labs.sgd.shared import LANGEVIN
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import Equals, Evidence
from labkit.protocol.settings import Settings, knob, on_cpu
from labkit.theory.boltzmann import TwoWells, flat_share, marginal, occupancy
from labkit.training.dynamics import descend

# Relative, of either well; of the densities, half the absolute difference.
WIDE, NARROW, DISTANCE = 0.03, 0.12, 0.06
FEW = 0.08  # two standard errors of the smaller share, relative, above which chains are too few
DIMENSIONS = tuple(f"D = {D}" for D in range(1, 6))
EDGES = np.linspace(-3.2, 3.8, 71)


@dataclass(frozen=True)
class Wells(Settings):
    dimension: int = knob(5, "dimensions D: 1 to this", slider=(1, 8), bounds=(1, 20), step=1)
    temperature: float = knob(2.0, "T of the noise", slider=(0.5, 4), bounds=(0.01, None), step=0.1)
    ratio: float = knob(2.0, "width of the wide well over the narrow one's", slider=(1, 3), bounds=(0.2, 5),
                        step=0.1, label="ratio of widths")  # fmt: skip
    offset: float = knob(0.0, "depth of the wide well above the narrow one's", slider=(-2, 4), step=0.25,
                         bounds=(-5, 10), label="depth offset")  # fmt: skip
    lr: float = knob(0.006, "step size dt of the dynamics", slider=(0.0005, 0.1), bounds=(0, None),
                     scale="log", label="step size dt")  # fmt: skip
    steps: int = knob(7000, "steps of each chain", slider=(500, 20_000), bounds=(20, None), step=500)
    chains: int = knob(1500, "chains", slider=(100, 4000), bounds=(4, None), step=100)
    width: float = knob(0.5, "width of the narrow well", slider=(0.3, 1), bounds=(0.01, None), step=0.05)
    height: float = knob(0.4, "H, to which the walls are proportional", slider=(0.1, 2), bounds=(0, None),
                         step=0.1)  # fmt: skip
    place: float = knob(1.3, "the wells are at plus and minus this", slider=(1, 2), bounds=(0, None),
                        step=0.1)  # fmt: skip
    device: str = on_cpu()

    @property
    def potential(self) -> TwoWells:
        return TwoWells(self.width, self.ratio, self.place, self.height, self.offset)


def prepare(settings: Wells) -> chains.Setup:
    dimensions = range(1, settings.dimension + 1)
    starts = (chains.starts(settings, settings.place, D, settings.chains) for D in dimensions)
    return chains.Setup(settings, tuple(starts))


def predict(setup: chains.Setup) -> Prediction:
    """Shares and densities of e^(−U/T) by quadrature, (D,) and (D, B); and of wells far apart."""
    settings, U = setup.settings, setup.settings.potential
    dimensions, T = np.arange(1, settings.dimension + 1), settings.temperature
    return {
        "dimensions": dimensions,
        "share": np.array([occupancy(U, int(D), T) for D in dimensions]),
        "density": np.array([marginal(U, int(D), T, EDGES) for D in dimensions]),
        "apart": np.array([flat_share(U.ratio, int(D), offset=U.offset, temperature=T) for D in dimensions]),
    }


def run(
    setup: chains.Setup, prediction: Prediction, *, dynamics: chains.Dynamics | None = None
) -> Iterator[Frame]:
    settings, U = setup.settings, setup.settings.potential
    walks = [
        chains.Walk(
            (place,), {"dimension": place + 1}, lambda w, step: chains.slope(U, w), start,
            settings.temperature, settings.temperature, place + 1,
            # Another noise for each dimension: their errors are independent.
            chains.generators(settings, f"wells {place + 1}"),
        )
        for place, start in enumerate(setup.starts)
    ]  # fmt: skip
    yield from chains.walked(settings, EDGES, walks, (settings.dimension,), dynamics or descend)


def figure(frames: Frames, prediction: Prediction, settings: Wells | None = None) -> figures.Chart:
    dimensions, T = prediction["dimensions"], settings.temperature if settings else None
    now = common.newest(frames, "dimension")
    at = len(dimensions) - 1 if now is None else int(now[0]) - 1
    running = common.seen(frames, "running", len(dimensions))
    shares: list[figures.Mark] = [
        figures.Predicted(dimensions, prediction["apart"], label="wells far apart", color="ink"),
        figures.Predicted(dimensions, prediction["share"], label="quadrature", color=LANGEVIN),
        figures.Points(dimensions, running, label="chains", color=LANGEVIN, line=False),
    ]
    here = f"First coordinate, D = {at + 1}{f', T = {T:g}' if T else ''}"
    titles = here, "Share of time in the wide well"
    return figures.Chart.of(
        settings, "Where chains spend their time: in a narrow well or in a wide one.",
        *chains.panels(
            frames, EDGES, (prediction["density"][at], "e^(−U/T)"), LANGEVIN, titles, shares, dimensions, 0.0
        ),
    )  # fmt: skip


def _samples(run: Run) -> tuple[Evidence, Evidence, Evidence]:
    found: dict[str, Any] = {name: run.last(name) for name in ("share", *chains.SOUND)}
    wide = run.prediction["share"]
    checks = chains.checks(found, np.minimum(wide, 1 - wide), FEW)
    # Shares alone hardly depend on the temperature.
    apart = np.abs(run.last("histograms") - run.prediction["density"]) @ np.diff(EDGES) / 2
    note = f"R̂ {found['r_hat'].max():.3f}; the length of the steps adds {found['heating'].max():.1%} to T"
    return (
        Evidence(found["share"], wide, checks=checks, note=note),
        Evidence(1 - found["share"], 1 - wide, checks=checks),
        Evidence(apart, 0.0, checks=checks),
    )


S4 = Claim(
    "S4", "prediction",
    "Langevin dynamics samples e^(−U/T): the share of time in the wider of two wells is the integral over "
    "it, which tends to 1 with the dimension.",
    "paper 3, eq. 9 and Fig. 7",
    (
        Equals("share of time in the wide well", DIMENSIONS, tolerance=WIDE),
        Equals("share of time in the narrow well", DIMENSIONS, tolerance=NARROW),
        Equals("half the difference of the densities of w₁", DIMENSIONS, tolerance=DISTANCE, absolute=True),
    ),
    _samples, "holds",
    {"holds": "shares of time and densities are those of e^(−U/T) in every dimension",
     "fails": "the chains do not sample e^(−U/T)",
     "undecided": "these chains cannot tell: not mixed, too few, or steps too long"},
    (World("noise in one direction alone", {"dimension": 3}, {f"{__name__}:descend": chains.along_one}),),
)  # fmt: skip

WELLS = Experiment(
    "wells", "Does noise choose the wide well?", Wells,
    {"quick": Wells(), "paper": Wells(steps=40_000, chains=3000, seeds=5, lr=0.002)},
    prepare, predict, run, figure, (S4,),
    controls=("dimension", "temperature", "ratio", "offset", "lr", "steps", "chains"),
)  # fmt: skip
