"""What the experiments with potentials share: many chains, and whether they may be believed."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit import figures
from labkit.figures.palette import Color
from labkit.labs import common
from labkit.measure.mixing import split_r_hat, start_difference
from labkit.protocol.experiment import Frame, Frames
from labkit.protocol.rules import Check
from labkit.protocol.settings import Settings
from labkit.theory.boltzmann import Potential
from labkit.training.dynamics import Gradient

Dynamics = Callable[..., Iterator[tuple[int, Tensor]]]

SETTLE = 0.25  # of the steps: the way there, left out
RECORDS = 400  # samples of a run of the chains
R_HAT, HEATING, APART = 1.1, 0.03, 4.0
SOUND = ("stderr", "r_hat", "apart", "heating")


@dataclass(frozen=True)
class Setup:
    """starts: (S, C, D) for each D; slopes of samples: (S, n, D) for each D, where there are samples."""

    settings: Any
    starts: tuple[Tensor, ...]
    slopes: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Walk:
    """What the chains of one run do.

    Attributes:
        place: of its results behind the seeds.
        told: name -> value, of what a figure says of it.
        start: (S, C, D).
        felt: the temperature of the prediction, which that of the minibatches' own noise is part of.
        directions: in how many there is noise.
    """

    place: tuple[int, ...]
    told: dict[str, Any]
    gradient: Gradient
    start: Tensor
    temperature: float
    felt: float
    directions: int
    generator: Sequence[torch.Generator]


@dataclass
class Chains:
    """Chains (S, C, D) that run over a potential, from both minima.

    Attributes:
        edges: (B + 1,) of the histogram of w₁.
        pictures: how often a run gives something new.
        share: (S,) the share of samples beyond the divider; NaN until the chains have settled.
        counts: (S, B) samples of w₁ between the edges since then.
        sound: once they have run, by the names of `SOUND`, (S,) each: *stderr* of the share, from the spread
            between chains; *r_hat*, split R̂ of being beyond the divider; *apart*, the difference of the share
            between chains of either start, in standard errors; *heating* η⟨|∇U|²⟩/(2 D T). A stationary
            Langevin chain has ⟨w·∇U⟩ = D T + (η/2)⟨|∇U|²⟩ exactly, where e^(−U/T) has ⟨w·∇U⟩ = D T: what the
            length of the step adds to the temperature.
        broken: whether a state overflowed.
    """

    potential: Potential
    edges: np.ndarray
    pictures: int = 16
    share: np.ndarray = field(default_factory=lambda: np.zeros(0))
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0))
    sound: dict[str, np.ndarray] = field(default_factory=dict)
    broken: bool = False

    def run(self, dynamics: Dynamics, walk: Walk, *, lr: float, steps: int) -> Iterator[tuple[int, bool]]:
        """Runs them, giving now and then the step, and whether there is something new."""
        seeds = len(walk.start)
        self.counts, self.share = np.zeros((seeds, len(self.edges) - 1)), np.full(seeds, np.nan)
        beyond: list[Tensor] = []
        slopes = torch.zeros(seeds, dtype=torch.float64)
        shown, now = 0.0, time.perf_counter()
        for step, state in dynamics(
            walk.gradient, walk.start, lr=lr, steps=steps, temperature=walk.temperature,
            generator=walk.generator, record=max(1, steps // RECORDS),
        ):  # fmt: skip
            settled = step > SETTLE * steps
            if settled:
                beyond.append(state[..., 0] > self.potential.divider)
                slopes += (slope(self.potential, state) ** 2).sum(-1).mean(1).double()
            if not (step / steps >= shown + 1 / self.pictures or step == steps):
                if time.perf_counter() - now > 0.1:
                    now = time.perf_counter()
                    yield step, False
                continue
            if not bool(state.isfinite().all()):
                self.broken = True
                return
            if settled:
                self.counts = self.counts + self._histogram(state)
                self.share = torch.stack(beyond).double().mean((0, 2)).numpy()
            shown, now = step / steps, time.perf_counter()
            yield step, True
        heating = lr * slopes / len(beyond) / (2 * walk.directions * walk.felt)
        self.sound = {"heating": heating.numpy()} | self._mixed(walk.start, torch.stack(beyond, dim=2))

    def _mixed(self, start: Tensor, beyond: Tensor) -> dict[str, np.ndarray]:
        series = beyond.double().numpy()  # (S, C, N)
        near = (start[0, :, 0] > self.potential.divider).numpy()
        return {
            "stderr": series.mean(axis=2).std(axis=1, ddof=1) / math.sqrt(start.shape[1]),
            "r_hat": np.array([split_r_hat(one) for one in series]),
            "apart": np.array([start_difference(one, near).in_stderr for one in series]),
        }

    def _histogram(self, state: Tensor) -> np.ndarray:
        first = state[..., 0].double().numpy()
        return np.stack([np.histogram(one, self.edges)[0] for one in first]).astype(float)


def slope(potential: Potential, w: Tensor) -> Tensor:
    """The gradient of the potential at w (S, C, D), which is on the CPU.

    By NumPy, whose operations cost a third of torch's on arrays so small; the values are the same bits.
    """
    with np.errstate(all="ignore"):  # where chains run away, the run says so
        return torch.from_numpy(potential.gradient(w.numpy()))


def starts(
    settings: Settings, place: float, dimension: int, chains: int, spread: float = 0.0, left: float = 0.5
) -> Tensor:
    """(S, C, D): chains at either minimum, ±place on the first axis.

    In memory coordinate by coordinate: a step of thousands of chains of a few coordinates takes two thirds of
    the time so.

    Args:
        spread: standard deviation of the other coordinates.
        left: the share of the chains that begins at -place.
    """
    start = torch.zeros(settings.seeds, chains, dimension)
    if spread:
        drawn = [torch.randn(chains, dimension, generator=g) for g in generators(settings, "start")]
        start = spread * torch.stack(drawn)
    start[..., 0] = place
    start[:, : int(left * chains), 0] = -place
    return start.permute(2, 0, 1).contiguous().permute(1, 2, 0)


def generators(settings: Settings, purpose: str) -> list[torch.Generator]:
    """One a seed, for a purpose of its own."""
    words = zlib.crc32(purpose.encode())
    states = [np.random.SeedSequence([seed, words]).generate_state(1)[0] for seed in common.seeds(settings)]
    return [torch.Generator().manual_seed(int(state)) for state in states]


def density(counts: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Counts (S, B) as densities."""
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) / np.diff(edges)


def walked(
    settings: Any, edges: np.ndarray, walks: Sequence[Walk], shape: tuple[int, ...], dynamics: Dynamics,
    pictures: int = 16,
) -> Iterator[Frame]:  # fmt: skip
    """Runs chains over the settings' potential, walk after walk.

    The last frame carries "share", those of `SOUND` and "histograms", (S, *shape) each, and all others what
    is there of "share" as "running", with the "density" of w₁ in the present walk.
    """
    found = common.blank(settings.seeds, **dict.fromkeys(("share", *SOUND), shape))
    found["histograms"] = np.zeros((settings.seeds, *shape, len(edges) - 1))
    total, step = len(walks) * settings.steps, 0
    for number, walk in enumerate(walks):
        chains, first = Chains(settings.potential, edges, pictures), number * settings.steps
        place: Any = (slice(None), *walk.place)
        for step, new in chains.run(dynamics, walk, lr=settings.lr, steps=settings.steps):
            values = {}
            if new:
                now = {"density": density(chains.counts, edges), "running": found["share"].copy()}
                now["running"][place] = chains.share
                values = now | {name: np.stack([value] * settings.seeds) for name, value in walk.told.items()}
            yield Frame(first + step, values, 0.99 * (first + step) / total)
        if chains.broken:
            note = (
                f"the chains ran away in D = {walk.start.shape[2]}: steps of {settings.lr:g} are not stable"
            )
            yield Frame(first + step, {}, None, "diverged", f"{note} over these walls. Take 0.25 × lr")
            return
        for name, value in (chains.sound | {"share": chains.share}).items():
            found[name][place] = value
        found["histograms"][place] = density(chains.counts, edges)
    yield Frame(total, found, 1.0, "done")


def panels(
    frames: Frames, edges: np.ndarray, predicted: tuple[np.ndarray, str], color: Color, titles: Sequence[str],
    shares: Sequence[figures.Mark], dimensions: np.ndarray, lowest: float, xlabel: str = "w₁",
) -> tuple[figures.Panel, figures.Panel]:  # fmt: skip
    """The density of w₁ now, and the shares of time by the dimension."""
    counts, middles = common.newest(frames, "density"), (edges[1:] + edges[:-1]) / 2
    marks: list[figures.Mark] = []
    if counts is not None:
        marks.append(figures.Histogram(edges, counts, label="chains", color=color))
    marks.append(figures.Predicted(middles, predicted[0], label=predicted[1], color=color))
    return (
        figures.Panel(titles[0], marks, xlabel=xlabel, ylabel="density"),
        figures.Panel(
            titles[1], shares, xlabel="dimension D", ylabel="share", ylim=(lowest, 1.05),
            xticks=[(float(D), str(D)) for D in dimensions], xlim=(0.7, len(dimensions) + 0.3),
        ),
    )  # fmt: skip


def checks(found: dict[str, np.ndarray], share: np.ndarray, tolerance: float) -> tuple[Check, ...]:
    """Whether the shares (S, ...) of chains may be compared with e^(−U/T), to this relative tolerance."""
    return tuple(Check(name, float(value.max()), most, advice) for name, value, most, advice in (
        ("R̂ of the halves of the chains", found["r_hat"], R_HAT,
         "the chains did not mix: raise steps, or the temperature"),
        ("chains of either start differ, in standard errors", found["apart"], APART,
         "the chains remember where they began: raise steps, or the temperature"),
        ("two standard errors of a share", 2 * found["stderr"] / share, tolerance,
         "too few independent samples: raise chains or steps"),
        ("share of the temperature that the length of a step adds", found["heating"], HEATING,
         "the steps are too long to follow the potential: lower lr, and raise steps as much"),
    ))  # fmt: skip


def along_one(dynamics: Dynamics) -> Dynamics:
    """A fault for a world: the noise has one direction alone, where e^(−U/T) takes it to be isotropic."""

    def faulty(
        gradient: Gradient, start: Tensor, *, lr: float, temperature: float,
        generator: Sequence[torch.Generator], **rest: Any,
    ) -> Iterator[tuple[int, Tensor]]:  # fmt: skip
        def shaken(w: Tensor, step: int) -> Tensor:
            slope = gradient(w, step)
            drawn = [torch.randn(w.shape[1], generator=one, dtype=w.dtype) for one in generator]
            slope[..., 0] += math.sqrt(2 * temperature / lr) * torch.stack(drawn)
            return slope

        return dynamics(shaken, start, lr=lr, temperature=0.0, generator=generator, **rest)

    return faulty
