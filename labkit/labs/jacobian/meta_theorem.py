"""Where do the conditions of Thm 5.3 hold, and do its inequalities hold there? (J6)

Constants are measured, at widths up to the one that is judged: α = λ_r at the start, β the largest ‖J‖ and ε
twice the largest ‖J(θ_τ) − J(θ₀)‖ met along the path (a lower estimate of the theorem's suprema over a ball:
if the conditions fail with these, they fail).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from labkit import figures
from labkit.labs import common
from labkit.labs.jacobian import shared
from labkit.labs.jacobian.shallow import Setup, descend, kernel, norm
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import AtMost, Condition, Evidence
from labkit.protocol.settings import knob
from labkit.theory import jacobian as theory

# What is measured of each seed, in the order of `_track`'s row.
MEASURED = (
    "start", "deviation", "epsilon", "beta", "information", "nuisance", "final", "moved", "pinv",
)  # fmt: skip
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
    duration: float = knob(
        1.0,
        "Γ: training lasts T = Γ/(ηα²) steps",
        slider=(1, 5),
        bounds=(1, 100),
        step=0.5,
        label="stopping time Γ",
    )
    n: int = knob(40, "training images", slider=(10, 60), bounds=(4, None), step=10)
    classes: int = knob(3, "classes K", slider=(2, 10), bounds=(2, None), step=1)
    dataset: str = knob("digits", "name of a data set, or path to an .npz")

    @property
    def limits(self) -> Mapping[str, tuple[int, str]]:
        return {"rank": (self.n * self.classes - 1, "n·K - 1")}


def prepare(settings: MetaTheorem) -> Setup:
    return Setup(
        settings,
        common.datasets(settings, n_test=30, normalize="standardize+unit-length", dtype=torch.float64),
        tuple(
            np.unique(np.geomspace(min(NARROW, settings.width), settings.width, WIDTHS).round().astype(int))
        ),
    )


def predict(setup: Setup) -> Prediction:
    """What the theorem asks for before training: α, ‖J₀‖, Γ and the number of steps T at η = 1/β²."""
    settings = setup.settings
    assert isinstance(settings, MetaTheorem)
    found = np.empty((2, len(setup.sets), len(setup.widths)))
    for seed, place in np.ndindex(*found.shape[1:]):
        model, x, _ = setup.network(setup.widths[place], "softplus", seed)
        spectrum = torch.linalg.eigvalsh(kernel(model, x)).flip(0).clamp(min=0).sqrt()
        found[:, seed, place] = float(spectrum[settings.rank - 1]), float(spectrum[0])
    alpha, beta = found
    # A little room: ‖J‖ may grow along the path, and η must stay below 1/β².
    lr = 0.98 / beta**2
    steps = np.ceil(settings.duration / (lr * alpha**2))
    return {
        "alpha": alpha, "beta": beta, "lr": lr, "steps": steps, "duration": steps * lr * alpha**2,
        "rank": np.asarray(settings.rank), "widths": np.array(setup.widths),
    }  # fmt: skip


def run(setup: Setup, prediction: Prediction) -> Iterator[Frame]:
    """A frame for each width, of all seeds."""
    last = len(setup.widths) - 1
    for place, width in enumerate(setup.widths):
        rows = []
        for seed in range(len(setup.sets)):
            lr, steps = float(prediction["lr"][seed, place]), int(prediction["steps"][seed, place])
            for step, row in enumerate(_track(setup, seed, width, lr, steps)):
                if row is not None:
                    rows.append(row)
                yield Frame.tick(width, (place + (seed + step / (steps + 2)) / len(setup.sets)) / (last + 1))
        columns = {
            name: np.array(column) for name, column in zip(MEASURED, zip(*rows, strict=True), strict=True)
        }
        yield Frame(width, columns, (place + 1) / (last + 1), "done" if place == last else "running")


def _track(setup: Setup, seed: int, width: int, lr: float, steps: int) -> Iterator[tuple[float, ...] | None]:
    """Trains one seed beside its linearisation; the last item is the row of measured constants."""
    settings = setup.settings
    assert isinstance(settings, MetaTheorem)
    model, x, y = setup.network(width, "softplus", seed)
    start, gram = model.W.detach().clone(), kernel(model, x)
    eigenvalues, basis = torch.linalg.eigh(gram)
    spectrum, basis = eigenvalues.flip(0).clamp(min=0).sqrt(), basis.flip(1)
    r0 = shared.residual(model, x, y)
    inside, outside = shared.project(basis, r0, settings.rank)
    linear, deviation, epsilon, beta = r0, 0.0, 0.0, float(spectrum[0])
    checks = set(np.linspace(1, steps, min(steps, 5)).round().astype(int).tolist())
    for step in range(steps + 1):
        if step in checks:
            # The proof of Lemma 6.7 takes ‖J(θ) − J(θ₀)‖ ≤ ε/2.
            epsilon = max(epsilon, 2 * norm(kernel(model, x, start)))
            beta = max(beta, norm(kernel(model, x)))
        if step == steps:
            break
        true = descend(model, x, y, lr).flatten()
        deviation = max(deviation, float((true - linear).norm()))
        linear = linear - lr * (gram @ linear)
        yield None
    final = shared.residual(model, x, y)
    deviation = max(deviation, float((final - linear).norm()))
    moved = float((model.W.detach() - start).norm())
    pinv = float((basis[:, : settings.rank].T @ r0 / spectrum[: settings.rank]).norm())
    yield (
        float(r0.norm()),
        deviation,
        epsilon,
        beta,
        float(inside),
        float(outside),
        float(final.norm()),
        moved,
        pinv,
    )


def meta_constants(
    found: Mapping[str, np.ndarray], prediction: Prediction, place: int = -1
) -> dict[str, np.ndarray]:
    """δ and the right sides of (5.14), (5.15) and (5.16) for each seed, as measured at the width in this
    place.
    """
    rows = []
    alphas, durations = (prediction[name][:, place] for name in ("alpha", "duration"))
    for s, (alpha, gamma) in enumerate(zip(alphas, durations, strict=True)):
        one = {name: float(values[s]) for name, values in found.items()}
        delta = theory.smallest_delta(alpha, one["beta"], one["epsilon"], 0.0, gamma)
        rows.append((
            delta,
            theory.meta_theorem_bound(alpha, one["beta"], delta, one["start"]),
            theory.distance_bound(one["pinv"], one["nuisance"], one["start"], alpha, gamma, delta),
            theory.final_residual_bound(
                one["information"], one["nuisance"], one["start"], alpha, one["beta"], gamma, delta
            ),
        ))  # fmt: skip
    columns = zip(("delta", "deviation_bound", "moved_bound", "final_bound"), np.array(rows).T, strict=True)
    return {**found, **dict(columns)}


def figure(frames: Frames, prediction: Prediction, settings: MetaTheorem | None = None) -> figures.Chart:
    """The condition and the deviation over widths; the three inequalities at the widest, one point a seed."""
    marks = _marks(frames, prediction)
    ends = float(prediction["widths"][0]) * 0.8, float(prediction["widths"][-1]) * 1.25
    over_widths = (
        ("The condition: δ ≤ 1", "delta", "δ of (5.13)"),
        ("What it is about", "deviation", "max ‖r − r̃‖ / ‖r₀‖"),
    )
    return figures.Chart.of(
        settings,
        "Where the conditions of Thm 5.3 hold, how far training is from its linearisation, and three "
        "quantities as shares of their bounds.",
        *(
            figures.Panel(
                title, tuple(marks[name]), xlabel="width k", ylabel=ylabel, xscale="log", yscale="log",
                xlim=ends,
            )
            for title, name, ylabel in over_widths
        ),
        figures.Panel(
            "Thm 5.3 at the widest", tuple(marks["ratio"]), ylabel="share of the bound", yscale="log",
            xlim=(-0.5, 2.5), ylim=(1e-4, 3), xticks=[(i, label) for i, (_, label) in enumerate(BOUNDED)],
        ),
    )  # fmt: skip


def _marks(frames: Sequence[Frame], prediction: Prediction) -> dict[str, list[figures.Mark]]:
    marks: dict[str, list[figures.Mark]] = {
        "delta": [figures.Level(1.0, label="the theorem ends here")],
        "deviation": [],
        "ratio": [figures.Level(1.0, label="the bound")],
    }
    done = [frame for frame in frames if "start" in frame.values]
    if not done:
        return marks
    widths = np.array([frame.step for frame in done])
    found = [meta_constants(frame.values, prediction, place) for place, frame in enumerate(done)]
    delta = np.stack([one["delta"] for one in found], axis=1)
    gap, bound = (
        np.stack([one[name] / one["start"] for one in found], axis=1)
        for name in ("deviation", "deviation_bound")
    )
    ratio = np.stack([found[-1][name] / found[-1][f"{name}_bound"] for name, _ in BOUNDED], axis=1)
    marks["delta"].append(figures.Points(widths, delta, label="δ, measured", color=shared.NUISANCE))
    marks["deviation"] += [
        figures.Bound(widths, bound, label="(5.14), where δ ≤ 1", color=shared.TRAIN),
        figures.Points(widths, gap, label="measured", color=shared.TRAIN),
    ]
    marks["ratio"].append(figures.Points(np.arange(3), ratio, label="measured / bound", color=0, line=False))
    return marks


def _meta_theorem(run: Run) -> tuple[Evidence, Evidence, Evidence]:
    if run.series("start")[0][-1] < run.prediction["widths"][-1]:
        raise ValueError("the run has not come to its widest network")
    found = meta_constants({name: run.last(name) for name in MEASURED}, run.prediction)
    speed = run.prediction["lr"][:, -1] * found["beta"] ** 2
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
