"""Where do the conditions of Thm 5.3 hold, and do its inequalities hold there? (J6)

Constants are measured, at widths up to the one that is judged: α = λ_r at the start, β the largest ‖J‖ and ε
twice the largest ‖J(θ_τ) − J(θ₀)‖ met along the path (a lower estimate of the theorem's suprema over a ball:
if the conditions fail with these, they fail).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from labkit import figures
from labkit.labs import common
from labkit.labs.jacobian import shared
from labkit.labs.jacobian.shallow import descend, kernel, network, norm
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import AtMost, Condition, Evidence
from labkit.protocol.settings import knob
from labkit.theory import jacobian as theory

BOUNDED = (("deviation", "‖r − r̃‖"), ("moved", "‖θ − θ₀‖"), ("final", "‖r_T‖"))
NARROW, WIDTHS = 500, 4  # the figure begins there, far outside the regime, and has so many widths


@dataclass(frozen=True)
class MetaTheorem(common.OnData):
    width: int = knob(100_000, "hidden units k", slider=(100, 100_000), bounds=(1, None), scale="log")
    rank: int = knob(
        9,
        "dimension r of the information space; the cutoff α is λ_r",
        slider=(1, 60),
        bounds=(1, None),
        step=1,
    )
    duration: float = shared.duration(1.0, most=5)
    n: int = knob(40, "training images", slider=(10, 60), bounds=(4, None), step=10)
    classes: int = knob(3, "classes K", slider=(2, 10), bounds=(2, None), step=1)
    dataset: str = knob("digits", "name of a data set, or path to an .npz")

    @property
    def limits(self) -> Mapping[str, tuple[int, str]]:
        return {"rank": (self.n * self.classes - 1, "n·K - 1")}


def prepare(settings: MetaTheorem) -> common.Setup:
    sets = common.datasets(settings, n_test=30, normalize="standardize+unit-length", dtype=torch.float64)
    return common.Setup(settings, sets)


def predict(setup: common.Setup) -> Prediction:
    """The widths that are looked at: the theorem's constants are measured, at each."""
    settings: MetaTheorem = setup.settings
    widths = np.geomspace(min(NARROW, settings.width), settings.width, WIDTHS)
    return {"widths": np.unique(widths.round().astype(int))}


def run(setup: common.Setup, prediction: Prediction) -> Iterator[Frame]:
    """A frame for each width, of all seeds."""
    widths, seeds = prediction["widths"].tolist(), len(setup.sets)
    for place, width in enumerate(widths):
        found = []
        for seed in range(seeds):
            span = [(place + at / seeds) / len(widths) for at in (seed, seed + 1)]
            found.append((yield from _track(setup, seed, width, span)))
        end = (place + 1) / len(widths)
        yield Frame(width, common.stacked(found), end, "done" if end == 1 else "running")


def _track(
    setup: common.Setup, seed: int, width: int, span: Sequence[float]
) -> Generator[Frame, None, dict[str, float]]:
    """Trains one seed beside its linearisation, T steps of η = 1/β²; returns the measured constants."""
    settings: MetaTheorem = setup.settings
    rank = settings.rank
    model, x, y = network(setup, width, "softplus", seed)
    start, gram = model.W.detach().clone(), kernel(model, x)
    eigenvalues, basis = torch.linalg.eigh(gram)
    spectrum, basis = eigenvalues.flip(0).clamp(min=0).sqrt(), basis.flip(1)
    alpha, beta = float(spectrum[rank - 1]), float(spectrum[0])
    if alpha == 0:
        raise ValueError(
            f"rank must be at most that of the Jacobian at {width:,} hidden units, as to λ_r = 0 belongs no "
            f"duration; got {rank}"
        )
    lr = 0.98 / beta**2  # a little room: ‖J‖ may grow along the path, and η must stay below 1/β²
    steps = math.ceil(settings.duration / (lr * alpha**2))
    r0 = shared.residual(model, x, y)
    inside, outside = shared.project(basis, r0, rank)
    linear, deviation, epsilon = r0, torch.zeros_like(r0[0]), 0.0
    checks = set(np.linspace(1, steps, min(steps, 5)).round().astype(int).tolist())
    for step in range(steps + 1):
        if step in checks:
            # The proof of Lemma 6.7 takes ‖J(θ) − J(θ₀)‖ ≤ ε/2.
            epsilon = max(epsilon, 2 * norm(kernel(model, x, start)))
            beta = max(beta, norm(kernel(model, x)))
        if step == steps:
            break
        true = descend(model, x, y, lr).flatten()
        deviation = torch.fmax(deviation, (true - linear).norm())
        linear = linear - lr * (gram @ linear)
        yield Frame.tick(width, span[0] + (span[1] - span[0]) * step / steps)
    final = shared.residual(model, x, y)
    return {
        "alpha": alpha,
        "lr": lr,
        "duration": steps * lr * alpha**2,
        "start": float(r0.norm()),
        "deviation": float(torch.fmax(deviation, (final - linear).norm())),
        "epsilon": epsilon,
        "beta": beta,
        "information": float(inside),
        "nuisance": float(outside),
        "final": float(final.norm()),
        "moved": float((model.W.detach() - start).norm()),
        "pinv": float((basis[:, :rank].T @ r0 / spectrum[:rank]).norm()),
    }


def meta_constants(found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """δ and the right sides of (5.14), (5.15) and (5.16) for each seed, from what was measured at a width."""
    rows = []
    for s, (alpha, gamma) in enumerate(zip(found["alpha"], found["duration"], strict=True)):
        one = {name: float(values[s]) for name, values in found.items()}
        delta = theory.smallest_delta(alpha, one["beta"], one["epsilon"], 0.0, gamma)
        parts = one["nuisance"], one["start"], alpha
        rows.append({
            "delta": delta,
            "deviation_bound": theory.meta_theorem_bound(alpha, one["beta"], delta, one["start"]),
            "moved_bound": theory.distance_bound(one["pinv"], *parts, gamma, delta),
            "final_bound": theory.final_residual_bound(one["information"], *parts, one["beta"], gamma, delta),
        })  # fmt: skip
    return {**found, **common.stacked(rows)}


def figure(frames: Frames, prediction: Prediction, settings: MetaTheorem | None = None) -> figures.Chart:
    """The condition and the deviation over widths; the three inequalities at the widest, one point a seed."""
    condition: list[figures.Mark] = [figures.Level(1.0, label="the theorem ends here")]
    deviation: list[figures.Mark] = []
    shares: list[figures.Mark] = [figures.Level(1.0, label="the bound")]
    if done := [frame for frame in frames if "start" in frame.values]:
        widths = np.array([frame.step for frame in done])
        found = [meta_constants(frame.values) for frame in done]
        gap, bound = (
            np.stack([one[name] / one["start"] for one in found], axis=1)
            for name in ("deviation", "deviation_bound")
        )
        delta = np.stack([one["delta"] for one in found], axis=1)
        ratio = np.stack([found[-1][name] / found[-1][f"{name}_bound"] for name, _ in BOUNDED], axis=1)
        condition.append(figures.Points(widths, delta, label="δ, measured", color=shared.NUISANCE))
        deviation = [
            figures.Bound(widths, bound, label="(5.14), where δ ≤ 1", color=shared.TRAIN),
            figures.Points(widths, gap, label="measured", color=shared.TRAIN),
        ]
        shares.append(figures.Points(np.arange(3), ratio, label="measured / bound", color=0, line=False))
    across = shared.width_axis(prediction["widths"])
    return figures.Chart.of(
        settings,
        "Where the conditions of Thm 5.3 hold, how far training is from its linearisation, and three "
        "quantities as shares of their bounds.",
        figures.Panel("The condition: δ ≤ 1", condition, ylabel="δ of (5.13)", **across),
        figures.Panel("What it is about", deviation, ylabel="max ‖r − r̃‖ / ‖r₀‖", **across),
        figures.Panel(
            "Thm 5.3 at the widest", shares, ylabel="share of the bound", yscale="log",
            xlim=(-0.5, 2.5), ylim=(1e-4, 3), xticks=[(i, label) for i, (_, label) in enumerate(BOUNDED)],
        ),
    )  # fmt: skip


def _meta_theorem(run: Run) -> tuple[Evidence, Evidence, Evidence]:
    if run.series("start")[0][-1] < run.prediction["widths"][-1]:
        raise ValueError("the run has not come to its widest network")
    found = meta_constants(run.frames[-1].values)
    speed = found["lr"] * found["beta"] ** 2
    conditions = (
        Condition("δ, the least for which (5.13) holds", float(found["delta"].max()), 1.0),
        Condition("η‖J‖² along the path", float(speed.max()), 1.0),
    )
    # Without a theorem: both residuals stay below ‖r₀‖ while η‖J‖² ≤ 1.
    trivial = {"deviation": 2 * found["start"], "moved": np.inf, "final": found["start"]}
    notes = (f"δ = {found['delta'].max():.2g}, with ε and β measured along the path", "", "")
    return tuple(
        Evidence(
            found[name], found[f"{name}_bound"], conditions,
            vacuous=bool((found[f"{name}_bound"] >= least).any()), note=note,
        )
        for (name, least), note in zip(trivial.items(), notes, strict=True)
    )  # type: ignore[return-value]  # fmt: skip


J6 = Claim(
    "J6", "theorem",
    "If (5.13) holds with δ ≤ 1 and η ≤ 1/β², then ‖r − r̃‖ ≤ (3/5)(δα/β)‖r₀‖, the weights stay within "
    "(5.15), and ‖r_T‖ obeys (5.16).",
    "paper 4, Thm 5.3, (5.13)–(5.16)",
    (AtMost("‖r − r̃‖ (5.14)"), AtMost("‖θ − θ₀‖ (5.15)"), AtMost("‖r_T‖ (5.16)")),
    _meta_theorem,
    says={"holds": "the conditions hold at this width, and so do the three inequalities",
          "out of regime": "the conditions of the theorem do not hold at this width",
          "fails": "the conditions hold and an inequality is violated"},
    worlds=(World("500 hidden units", {"width": 500}, word="out of regime"),),
)  # fmt: skip

META = Experiment(
    "meta-theorem", "Where do the conditions of Thm 5.3 hold?", MetaTheorem,
    {"quick": MetaTheorem(), "paper": MetaTheorem(width=300_000, seeds=5)},
    prepare, predict, run, figure, (J6,), controls=("width", "rank", "duration"),
)  # fmt: skip
