"""Width and depth before training: angle, and scale beside it (C7, C8, C11; paper 5, section 4, Figs 5, 6).

Per-sample gradients of the cross-entropy of untrained fully connected networks without biases, over all pairs
of a fixed number of samples on the sphere of radius √d. One draw of each size serves all initialisations:
Glorot's and LeCun's then differ by constants in the first and in the last layer, and in nothing else.

Dashed is the law of wide networks (`wide`): it has scale exactly and the angles of infinite width. What is
measured below it is fluctuation, which grows with depth/width: that is what confuses narrow deep networks.

Strategy 4.1 (the first layer of variance 1/d, the others 1/(κℓ)) is run with samples of length 1, as Thm 4.2
asks, and over depth at four more κ: the theorem leaves κ open, and κ decides which way η and the angle go.
Above 1 signals and gradients die out with depth (order), below 1 gradients explode and inputs lose sight of
each other (chaos; Schoenholz et al. 2016): C19. And Glorot's networks are run with widths in proportion to
their depths, as two axes in one: fluctuations go as depth/width (C20).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from labkit import data, figures
from labkit.labs import common
from labkit.labs.confusion import shared, wide
from labkit.measure.confusion import confusion
from labkit.measure.gradients import gradient_gram
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import EVERY, INTERVAL, Between, Check, Equals, Evidence
from labkit.protocol.settings import knob

SWEEP = (3, 10, 30, 100, 300, 1000)
QUANTITIES = ("cosine", "sd", "eta", "square")  # smallest cosine and spread of cosines, η, mean |g|²
# (name, initialisation, linear, skip connections, colour)
KINDS = (
    ("Glorot", "glorot", False, False, shared.WIDTH),
    ("LeCun", "lecun", False, False, shared.LOSS),
    ("linear", "glorot", True, False, shared.DEPTH),
    ("skips", "glorot", False, True, shared.SKIP),
    ("Strategy 4.1", "strategy", False, False, shared.STRATEGY),
    ("κ = 1/2", "strategy", False, False, shared.COSINE),
    ("κ = 1", "strategy", False, False, shared.ETA),
    ("κ = 0.7", "strategy", False, False, shared.COSINE),
    ("κ = 2", "strategy", False, False, shared.ETA),
)
NAMES, *_, COLORS = zip(*KINDS, strict=True)
GLOROT, LECUN, LINEAR, SKIPS, STRATEGY, HALF, ONE, SEVENTENTHS, TWO = range(len(KINDS))
PLAIN = (GLOROT, LECUN, LINEAR)
# Over depth alone; Strategy 4.1 itself has the κ of the settings.
KAPPAS = {HALF: 0.5, SEVENTENTHS: 0.7, ONE: 1.0, TWO: 2.0}
OVER = (HALF, SEVENTENTHS, ONE, TWO)
WIDEST = 1000  # of widths in proportion to depths
TINIEST, LARGEST = 1e-12, 1e9  # of mean |g|² in float32
_words = partial(common.means, form=".2f")


@dataclass(frozen=True)
class Initialization(common.OnData):
    n: int = knob(100, "samples; all pairs of them count", slider=(25, 200), bounds=(3, 5000), step=25)
    depth: int = knob(30, "hidden layers in the sweep over width", slider=(1, 60), bounds=(1, 1000))
    width: int = knob(100, "hidden units in the sweep over depth", slider=(10, 300), bounds=(1, 10_000),
                      scale="log")  # fmt: skip
    widest: int = knob(300, "where the sweep over width ends", choices=(100, 300, 1000))
    deepest: int = knob(100, "where the sweep over depth ends", choices=(30, 100, 300))
    activation: str = knob("tanh", "of all but the linear networks", choices=shared.ACTIVATIONS)
    kappa: float = knob(4.0, "κ of Strategy 4.1; 1 is LeCun's, 1/2 He's initialisation", slider=(0.5, 8),
                        bounds=(0.01, 100), step=0.5, label="κ")  # fmt: skip
    dataset: str = knob("digits", "images", choices=("digits", "mnist-5k", "mnist", "cifar10"))
    seeds: int = knob(5, "independent repetitions", slider=(1, 10), bounds=(1, 1000))

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(width for width in SWEEP[1:] if width <= self.widest)

    @property
    def depths(self) -> tuple[int, ...]:
        return tuple(depth for depth in SWEEP if depth <= self.deepest)

    @property
    def sweeps(self) -> dict[str, list[tuple[int, int]]]:
        """(width, depth) of the networks over width, over depth, and with widths in proportion to depths."""
        both = [(max(1, round(self.width * depth / self.depth)), depth) for depth in self.depths]
        return {
            "width": [(width, self.depth) for width in self.widths],
            "depth": [(self.width, depth) for depth in self.depths],
            "both": [(width, depth) for width, depth in both if width <= max(WIDEST, self.width)],
        }

    @property
    def jobs(self) -> tuple[tuple[int, int], ...]:
        """(width, depth) of every network, each once."""
        return tuple(dict.fromkeys(chain(*self.sweeps.values())))

    @property
    def places(self) -> dict[str, np.ndarray]:
        """The jobs of each sweep."""
        where = {job: j for j, job in enumerate(self.jobs)}
        return {name: np.array([where[job] for job in sweep]) for name, sweep in self.sweeps.items()}

    def kinds(self, j: int) -> list[int]:
        """Of a job: other κ over depth alone, widths in proportion to depths of Glorot's networks alone."""
        over_width, over_depth = (j in self.places[name] for name in ("width", "depth"))
        plain = [kind for kind in range(len(KINDS)) if kind not in KAPPAS and (over_width or kind == GLOROT)]
        return list(range(len(KINDS))) if over_depth else plain


@dataclass(frozen=True)
class Setup:
    settings: Initialization
    sets: tuple[data.Dataset, ...]

    def sizes(self, width: int, depth: int) -> list[int]:
        return [self.sets[0].dim, *[width] * depth, self.sets[0].classes]

    def length(self, kind: int) -> float:
        """Of a sample."""
        return 1.0 if kind >= STRATEGY else self.sets[0].dim ** 0.5

    def network(self, kind: int, job: tuple[int, int]) -> tuple[str, tuple[float, ...], bool]:
        """Its activation, the variance of a weight in each layer, and whether it has skip connections."""
        _, init, linear, skip, _ = KINDS[kind]
        variances = shared.variances(init, self.sizes(*job), KAPPAS.get(kind, self.settings.kappa))
        return "identity" if linear else self.settings.activation, variances, skip


def prepare(settings: Initialization) -> Setup:
    return Setup(settings, shared.samples(settings))


def predict(setup: Setup) -> Prediction:
    """What wide networks would have, for each seed's data; Strategy 4.1's scale, were it linear."""
    settings = setup.settings
    found = common.blank(settings.seeds, len(KINDS), len(settings.jobs), **dict.fromkeys(QUANTITIES, ()))
    for s, one in enumerate(setup.sets):
        cosines = wide.Cosines((one.x_train @ one.x_train.T).cpu().numpy())
        labels = np.eye(one.classes)[one.y_train.cpu()]
        for j, job in enumerate(settings.jobs):
            for kind in settings.kinds(j):
                activation, variances, skip = setup.network(kind, job)
                law = wide.kernels(activation, setup.length(kind) ** 2, *job, variances, skip)
                rng = np.random.default_rng([common.seeds(settings)[s], kind, j])
                common.put(found, (s, kind, j), _measured(wide.gram(law, cosines, labels, rng)))
    return {
        "widths": np.array(settings.widths), "depths": np.array(settings.depths),
        **{f"over_{name}": places for name, places in settings.places.items()},
        **found,
    }  # fmt: skip


def _measured(gram: np.ndarray | Tensor) -> Mapping[str, float]:
    found = confusion(gram)
    square = float(gram.diagonal().mean())
    return {"cosine": found.minimum_cosine, "sd": found.sd_cosine, "eta": found.eta, "square": square}


def run(setup: Setup, prediction: Prediction, *, gram: shared.Gram | None = None) -> Iterator[Frame]:
    """`gram` gives the inner products of all per-sample gradients, (n, n), of a network, samples and
    classes; `gradient_gram` when left out."""
    settings, gram = setup.settings, gram or gradient_gram
    jobs, seeds = settings.jobs, common.seeds(settings)
    values = common.blank(len(seeds), len(KINDS), len(jobs), **dict.fromkeys(QUANTITIES, ()))
    for j, job in enumerate(jobs):
        sizes = setup.sizes(*job)
        for s, seed in enumerate(seeds):
            weights = shared.draws(sizes, seed, device=settings.device)
            x, y = setup.sets[s].x_train, setup.sets[s].y_train
            for kind in settings.kinds(j):
                activation, variances, skip = setup.network(kind, job)
                net = shared.network(weights, [v**0.5 for v in variances], activation, skip=skip)
                # In float32 a large κ's squares are zero, and rounding decides a small one's outputs.
                square = prediction["square"][s, kind, j]
                kept = torch.float64 if square < TINIEST or square > LARGEST else torch.float32
                found = gram(net.to(kept), (setup.length(kind) * x).to(kept), y)
                common.put(values, (s, kind, j), _measured(found))
                yield Frame.tick(j, (j + (s + (kind + 1) / len(KINDS)) / len(seeds)) / (len(jobs) + 1e-9))
            yield Frame(j, common.snapshot(values), (j + (s + 1) / len(seeds)) / (len(jobs) + 1e-9))
        end = j + 1 == len(jobs)
        yield Frame(j, common.snapshot(values), (j + 1) / len(jobs), "done" if end else "running")


def figure(frames: Frames, prediction: Prediction, settings: Initialization | None = None) -> figures.Chart:
    now = {name: common.seen(frames, name, *prediction[name].shape[1:]) for name in ("cosine", "eta")}

    def panel(title: str, sweep: str, name: str, kinds: Sequence[int]) -> figures.Panel:
        places, marks, angle = prediction[f"{sweep}s"], list[figures.Mark](), name == "cosine"
        curves = [(kind, prediction[f"over_{sweep}"], NAMES[kind], COLORS[kind]) for kind in kinds]
        if sweep == "depth" and angle:
            curves.append((GLOROT, prediction["over_both"], "width ∝ depth", shared.ETA))
        for kind, at, label, color in curves:
            x = places[: len(at)]
            # Of the smallest cosines, those of wide plain networks all but coincide.
            if not angle or label in ("Glorot", "skips"):
                marks.append(figures.Predicted(x, prediction[name][:, kind, at], label=label, color=color))
            marks.append(figures.Points(x, now[name][:, kind, at], label=label, color=color))
        return figures.Panel(
            title, marks, xlabel="hidden units" if sweep == "width" else "hidden layers",
            ylabel="smallest cosine" if angle else "η", xscale="log", yscale="linear" if angle else "log",
            ylim=(-1.0, 0.0) if angle else None, xticks=[(float(p), str(p)) for p in places],
        )  # fmt: skip

    shown = (*PLAIN, SKIPS)
    return figures.Chart.of(
        settings, "Confusion before training, by width, by depth, and across order and chaos.",
        panel("Angle, by width", "width", "cosine", (*shown, STRATEGY)),
        panel("η, by width", "width", "eta", shown),
        _over_kappa("η, over κ", "eta", now["eta"], prediction, settings),
        panel("Angle, by depth", "depth", "cosine", (*shown, STRATEGY)),
        panel("η, by depth", "depth", "eta", shown),
        _over_kappa("Angle, over κ", "cosine", now["cosine"], prediction, settings),
    )  # fmt: skip


def _over_kappa(
    title: str, name: str, found: np.ndarray, prediction: Prediction, settings: Initialization | None
) -> figures.Panel:
    """What depth does to η, as decades, or to the smallest cosine, over κ; the slider's as a point."""
    kappas = KAPPAS | {STRATEGY: (settings or Initialization()).kappa}
    kinds = sorted(kappas, key=lambda kind: kappas[kind])
    kappa = np.array([kappas[kind] for kind in kinds])
    law, now = (
        _change(name, values[:, kinds], prediction["over_depth"]) for values in (prediction[name], found)
    )
    place = kinds.index(STRATEGY)
    marks = (
        figures.Level(0.0, label="no change"), figures.Level(1.0, axis="x", label="κ = 1"),
        figures.Predicted(kappa, law, label="wide", color=shared.STRATEGY),
        figures.Points(kappa, now, label="measured", color=shared.STRATEGY),
        figures.Points(kappa[[place]], now[:, [place]], label="κ as set", color=shared.ETA, line=False),
    )  # fmt: skip
    depths = prediction["depths"]
    what = "log₁₀ of η" if name == "eta" else "smallest cosine"
    return figures.Panel(title, marks, xlabel="κ", ylabel=f"{what}, depth {depths[-1]} − {depths[0]}",
                         xscale="log2")  # fmt: skip


def _change(name: str, values: np.ndarray, over_depth: np.ndarray) -> np.ndarray:
    """Greatest depth minus least, of η and |g|² in decades; (S, kinds)."""
    ends = values[..., over_depth[[0, -1]]]
    return np.diff(ends if name == "cosine" else np.log10(np.maximum(ends, shared.TINY)), axis=-1)[..., 0]


def _over(run: Run, sweep: str, name: str, kinds: Sequence[int]) -> np.ndarray:
    """One quantity over a sweep, (S, kinds, G)."""
    return run.last(name)[:, list(kinds)][..., run.prediction[f"over_{sweep}"]]


def _wider(run: Run) -> tuple[Evidence, ...]:
    widths = ", ".join(map(str, run.settings.widths))
    cosine = _over(run, "width", "cosine", PLAIN)
    eta, square = (_over(run, "width", name, [GLOROT])[:, 0] for name in ("eta", "square"))
    law = run.prediction["square"][:, GLOROT, run.prediction["over_width"]]
    by_kind = "; ".join(f"{NAMES[kind]} {_words(cosine[:, k])}" for k, kind in enumerate(PLAIN))
    limit = run.prediction["cosine"][:, GLOROT].mean()
    ends = np.maximum(eta[:, [0, -1]], shared.TINY)
    angles = f"smallest cosine at width {widths}: {by_kind}; of wide networks {limit:.2f}"
    lengths = f"mean |g|² {common.means(square, '.3g')}, wide {common.means(law, '.3g')}"
    return (
        Evidence(cosine[..., -1] - cosine[..., 0], note=angles),
        Evidence(np.log10(ends[:, 1] / ends[:, 0]), note=f"η under Glorot {common.means(eta, '.3g')}"),
        Evidence(square[:, -1], law[:, -1], note=lengths),
    )


def _deeper(run: Run) -> tuple[Evidence, ...]:
    depths = run.prediction["depths"]
    start = int(np.searchsorted(depths, 10))
    few = Check("sweep over depth beyond 10", float(start + 2), float(len(depths)), "go deeper")
    cosine, sd = (_over(run, "depth", name, range(SKIPS + 1)) for name in ("cosine", "sd"))
    by_kind = "; ".join(
        f"{NAMES[kind]} {_words(cosine[:, kind])}, sd {_words(sd[:, kind])}" for kind in (*PLAIN, SKIPS)
    )
    return (
        Evidence(
            cosine[:, :SKIPS, start] - cosine[:, :SKIPS, -1], checks=(few,),
            note=f"smallest cosine and sd of cosines at depth {', '.join(map(str, depths))}: {by_kind}",
        ),
        Evidence(sd[:, :SKIPS, -1] - sd[:, :SKIPS, start], checks=(few,)),
        Evidence(cosine[:, SKIPS, -1] - cosine[:, GLOROT, -1]),
    )  # fmt: skip


def _strategy(run: Run) -> tuple[Evidence, ...]:
    kinds = (HALF, ONE, STRATEGY)
    eta, cosine = (_over(run, "depth", name, kinds) for name in ("eta", "cosine"))
    wider = _over(run, "width", "cosine", [STRATEGY])[:, 0]
    ends = eta[..., [0, -1]]
    unopposed = Check("networks without a pair of opposed gradients", float((ends <= 0).sum()), 0.0,
                      "η is 0 there and has no logarithm: take more samples")  # fmt: skip
    grown = np.log10(np.maximum(ends[..., 1], shared.TINY) / np.maximum(ends[..., 0], shared.TINY))
    note = "; ".join(
        f"{name} η {common.means(eta[:, k], '.2g')}, smallest cosine {_words(cosine[:, k])}"
        for k, name in enumerate(("κ = 1/2", "κ = 1", f"κ = {run.settings.kappa:g}"))
    )
    return (
        Evidence(grown, checks=(unopposed,), note=f"over depth {note}"),
        Evidence(cosine[..., 0] - cosine[..., -1], checks=(unopposed,)),
        Evidence(wider[:, -1] - wider[:, 0], checks=(unopposed,)),
    )


def _kappas(run: Run) -> tuple[Evidence, ...]:
    at = run.prediction["over_depth"]
    found = {name: _change(name, run.last(name)[:, OVER], at) for name in ("square", "eta", "cosine")}
    law = _change("square", run.prediction["square"][:, OVER], at)
    note = "; ".join(
        f"{NAMES[kind]}: mean |g|² by {found['square'][:, k].mean():+.1f} decades (wide "
        f"{law[:, k].mean():+.1f}), η by {found['eta'][:, k].mean():+.1f}, smallest cosine by "
        f"{found['cosine'][:, k].mean():+.2f}"
        for k, kind in enumerate(OVER)
    )
    return (
        Evidence(found["square"], law, note=f"over depth, {note}"),
        Evidence(found["eta"][:, :3]),
        Evidence(found["eta"][:, 3]),
        Evidence(found["cosine"][:, 0] - found["cosine"][:, 3]),
    )


def _both_axes(run: Run) -> tuple[Evidence, ...]:
    depths, start = run.prediction["depths"], int(np.searchsorted(run.prediction["depths"], 10))
    fixed, both, angles = (
        _over(run, sweep, name, [GLOROT])[:, 0]
        for sweep, name in (("depth", "sd"), ("both", "sd"), ("both", "cosine"))
    )
    enough = (
        Check("widths in proportion to depths", float(len(depths)), float(both.shape[1]), "lower width"),
        Check("sweep over depth beyond 10", float(start + 2), float(len(depths)), "go deeper"),
    )
    if not all(check.met for check in enough):
        return (Evidence(checks=enough),) * 2
    note = (
        f"sd of cosines over depth {', '.join(map(str, depths))} at one width {_words(fixed)}, at widths in "
    )
    rises = [one[:, -1] - one[:, start] for one in (both, fixed)]
    return (
        Evidence(rises[0], note=f"{note}proportion {_words(both)} (smallest cosine {_words(angles)})"),
        Evidence(rises[1] - rises[0]),
    )


def lecun_throughout(variances: Callable[..., tuple[float, ...]]) -> Callable[..., tuple[float, ...]]:
    """A fault for a world: Strategy 4.1 at κ = 1, whatever κ is asked for."""
    return lambda init, sizes, kappa=1.0: variances(init, sizes)


_FAULTS = shared.worlds(__name__)
_LECUN = World(
    "κ = 1, LeCun's variances, whatever κ is", faults={f"{__name__}:shared.variances": lecun_throughout}
)

_PLAIN, _OVER = (tuple(NAMES[kind] for kind in kinds) for kinds in (PLAIN, OVER))
_SET = ("κ = 1/2", "κ = 1", "κ of the settings")

C7 = Claim(
    "C7", "finding",
    "At initialisation, with 30 hidden layers, a wider network is less confused: over a fixed number of "
    "pairs the smallest cosine of gradients of single samples is at least .15 higher at the greatest width "
    "than at 10. η itself is at least one and a half times as large there under Glorot, as gradients get "
    "longer, by the law of wide networks.",
    "paper 5, Thm 4.2, §4, App. A.1",
    (
        Between("smallest cosine, widest minus narrowest", _PLAIN, low=0.15, by=EVERY),
        Between("log₁₀ of η under Glorot, widest minus narrowest", low=0.18),
        Equals("mean |g|² at the greatest width, Glorot", tolerance=0.4, by=INTERVAL),
    ),
    _wider, "holds",
    {"holds": "the smallest cosine rises with width, and η grows with it all the same",
     "fails": "the smallest cosine does not rise with width, or η does not grow, or not by the law"},
    worlds=(World("one hidden layer instead of thirty", {"depth": 1, "deepest": 30}), *_FAULTS),
)  # fmt: skip
C8 = Claim(
    "C8", "finding",
    "At initialisation a deeper network is more confused: from 10 hidden layers to the deepest the smallest "
    "cosine of gradients of single samples falls by .05 or more, and the standard deviation of the cosines "
    "rises by .03 or more, for tanh and linear, Glorot and LeCun alike; with skip connections the smallest "
    "cosine at that depth is at least .3 higher.",
    "paper 5, Thm 4.2, §4, App. A.1",
    (
        Between("smallest cosine, 10 layers minus deepest", _PLAIN, low=0.05),
        Between("sd of cosines, deepest minus 10 layers", _PLAIN, low=0.03, by=EVERY),
        Between("smallest cosine at the greatest depth, skips minus none", low=0.3, by=EVERY),
    ),
    _deeper, "holds",
    {"holds": "deeper is more confused, and skip connections mend it",
     "fails": "the smallest cosine does not fall with depth, or cosines do not spread, or skips do not help",
     "undecided": "the sweep over depth ends too early"},
    worlds=(World("networks three times as wide", {"width": 300, "widest": 100, "deepest": 30}), *_FAULTS),
)  # fmt: skip
C11 = Claim(
    "C11", "finding",
    "Under Strategy 4.1 confusion grows with depth, whatever κ is, so says Thm 4.2: from the least depth to "
    "the greatest η doubles and the smallest cosine falls by .1, or more, at κ = ½, 1 and 4; and the "
    "smallest cosine at κ = 4 is at least .15 higher in the widest network than in the narrowest.",
    "paper 5, Thm 4.2 (Strategy 4.1)",
    (
        Between("log₁₀ of η, deepest minus shallowest", _SET, low=0.3, by=EVERY),
        Between("smallest cosine, shallowest minus deepest", _SET, low=0.1, by=EVERY),
        Between("smallest cosine, widest minus narrowest, κ of the settings", low=0.15, by=EVERY),
    ),
    _strategy, "fails",
    {"holds": "η grows with depth at every κ, and the smallest cosine falls",
     "fails": "κ decides: at κ = 4 gradients vanish with depth and η with them, and at κ = ½ the angle "
              "hardly moves",
     "undecided": "some networks have no pair of opposed gradients"},
    worlds=(replace(_LECUN, word="holds"), *(replace(world, word="undecided") for world in _FAULTS)),
    because="Thm 4.2 leaves κ open, and its order in depth is that of one κ: gradients vanish above it",
)  # fmt: skip

C19 = Claim(
    "C19", "prediction",
    "κ decides between order and chaos. From the least depth to the greatest mean |g|² changes by as many "
    "decades, at κ = ½, .7, 1 and 2, as the law of wide layers says, give or take 1.5 in the mean; η grows "
    "by half a decade or more at κ ≤ 1 and falls by twenty or more at κ = 2; and the smallest cosine falls "
    "by .2 more at κ = 2 than at κ = ½.",
    "paper 5, Thm 4.2 (Strategy 4.1), §6",
    (
        Equals("log₁₀ of mean |g|², deepest minus shallowest", _OVER, tolerance=1.5, absolute=True,
               by=INTERVAL),
        Between("log₁₀ of η, deepest minus shallowest", _OVER[:3], low=0.5, by=EVERY),
        Between("log₁₀ of η at κ = 2, deepest minus shallowest", high=-20.0, by=EVERY),
        Between("fall of the smallest cosine, κ = 2 minus κ = ½", low=0.2),
    ),
    _kappas, "holds",
    {"holds": "chaos lengthens gradients and keeps their angles, order shortens them and spoils the angles",
     "fails": "gradients do not grow and shrink over κ as wide networks say, or angles do not go with it"},
    worlds=(_LECUN, *_FAULTS),
)  # fmt: skip
C20 = Claim(
    "C20", "finding",
    "Width in proportion to depth keeps cosines together: from 10 hidden layers to the deepest their "
    "standard deviation rises by at most .06, and by at least .03 less than at one width.",
    "paper 5, §7 (width should grow linearly with depth)",
    (
        Between("rise of the sd of cosines, widths in proportion to depths", high=0.06, by=EVERY),
        Between("rise of the sd of cosines, one width minus widths in proportion", low=0.03, by=EVERY),
    ),
    _both_axes, "holds",
    {"holds": "depth over width is one axis: along it little changes",
     "fails": "confusion changes with depth although width grows with it",
     "undecided": "there are no such widths for the greatest depths"},
    worlds=_FAULTS[:1],
)  # fmt: skip

INITIALIZATION = Experiment(
    "initialization", "Width and depth before training: angle or scale?", Initialization,
    {
        "quick": Initialization(),
        # At depth 1000, the paper's last, Strategy 4.1 leaves gradients whose squares no float holds.
        "paper": Initialization(dataset="mnist", widest=1000, deepest=300, seeds=10),
        "afternoon": Initialization(dataset="mnist", widest=1000, deepest=300, seeds=5),
    },
    prepare, predict, run, figure, (C7, C8, C11, C19, C20),
    controls=("n", "depth", "width", "activation", "kappa"),
)  # fmt: skip
