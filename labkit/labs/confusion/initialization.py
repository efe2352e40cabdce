"""Width and depth before training: angle, and scale beside it (C7, C8, C11; paper 5, section 4, Figs 5, 6).

Per-sample gradients of the cross-entropy of untrained fully connected networks without biases, over all pairs
of a fixed number of samples on the sphere of radius √d. One draw of each size serves all initialisations:
Glorot's and LeCun's then differ by constants in the first and in the last layer, and in nothing else.

Dashed is the law of wide networks (`wide`): it has scale exactly and the angles of infinite width. What is
measured below it is fluctuation, which grows with depth/width: that is what confuses narrow deep networks.

Strategy 4.1 is run with samples of length 1, as Thm 4.2 asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from labkit import data, figures
from labkit.labs import common
from labkit.labs.confusion import shared, wide
from labkit.measure.confusion import confusion
from labkit.measure.gradients import gradient_gram
from labkit.protocol.claims import Claim
from labkit.protocol.experiment import Experiment, Frame, Prediction, Run
from labkit.protocol.rules import Check, Equals, Evidence, Exponent, Ordered
from labkit.protocol.settings import Settings, knob
from labkit.protocol.statistics import exponent

SWEEP = (3, 10, 30, 100, 300, 1000)
QUANTITIES = ("cosine", "sd", "eta", "square")  # smallest cosine and spread of cosines, η, mean |g|²
# name -> (initialisation, linear, skip connections, colour)
KINDS = {
    "Glorot": ("glorot", False, False, shared.WIDTH),
    "LeCun": ("lecun", False, False, shared.LOSS),
    "linear": ("glorot", True, False, shared.DEPTH),
    "skips": ("glorot", False, True, shared.SKIP),
    "Strategy 4.1": ("strategy", False, False, shared.STRATEGY),
}
NAMES = tuple(KINDS)
GLOROT, LECUN, LINEAR, SKIPS, STRATEGY = range(len(KINDS))
PLAIN = (GLOROT, LECUN, LINEAR)
TINY = 1e-300  # a wide ReLU network may have no negative product at all, and that has no logarithm
Gram = Callable[[nn.Module, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Initialization(Settings):
    n: int = knob(100, "samples; all pairs of them count", slider=(25, 200), bounds=(3, 5000), step=25)
    depth: int = knob(30, "hidden layers in the sweep over width", slider=(1, 60), bounds=(1, 1000))
    width: int = knob(100, "hidden units in the sweep over depth", slider=(10, 300), bounds=(1, 10_000),
                      scale="log")  # fmt: skip
    widest: int = knob(300, "where the sweep over width ends", choices=(100, 300, 1000))
    deepest: int = knob(100, "where the sweep over depth ends", choices=(30, 100, 300, 1000))
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
    def jobs(self) -> tuple[tuple[int, int], ...]:
        """(width, depth) of every network, each once."""
        over_width = [(width, self.depth) for width in self.widths]
        over_depth = [(self.width, depth) for depth in self.depths]
        return tuple(dict.fromkeys(over_width + over_depth))

    @property
    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """The jobs of the sweep over width, and of that over depth."""
        jobs = self.jobs
        return (
            np.array([jobs.index((width, self.depth)) for width in self.widths]),
            np.array([jobs.index((self.width, depth)) for depth in self.depths]),
        )


@dataclass(frozen=True)
class Setup:
    settings: Initialization
    sets: tuple[data.Dataset, ...]

    @property
    def d(self) -> int:
        return int(self.sets[0].x_train.shape[1])

    def sizes(self, width: int, depth: int) -> list[int]:
        return [self.d, *[width] * depth, self.sets[0].classes]

    def length(self, kind: int) -> float:
        """Of a sample."""
        return 1.0 if kind == STRATEGY else self.d**0.5


def prepare(settings: Initialization) -> Setup:
    sets = tuple(
        shared.samples(settings.dataset, settings.n, seed, settings.device) for seed in common.seeds(settings)
    )
    return Setup(settings, sets)


def predict(setup: Setup) -> Prediction:
    """What wide networks would have, for each seed's data; Strategy 4.1's scale, were it linear."""
    settings = setup.settings
    widths, depths = settings.places
    found = {name: np.empty((settings.seeds, len(KINDS), len(settings.jobs))) for name in QUANTITIES}
    for s, one in enumerate(setup.sets):
        cosines, labels = (one.x_train @ one.x_train.T).cpu().numpy(), np.eye(one.classes)[one.y_train.cpu()]
        for (kind, name), (j, job) in _pairs(settings):
            init, linear, skip, _ = KINDS[name]
            scale = setup.length(kind) ** 2
            law = wide.kernels(
                "identity" if linear else settings.activation, scale, *job,
                shared.variances(init, setup.sizes(*job), settings.kappa), skip,
            )  # fmt: skip
            rng = np.random.default_rng([common.seeds(settings)[s], kind, j])
            for quantity, value in _measured(wide.gram(law, cosines, labels, rng)).items():
                found[quantity][s, kind, j] = value
    return {
        "widths": np.array(settings.widths), "depths": np.array(settings.depths),
        "over_width": widths, "over_depth": depths, **found,
    }  # fmt: skip


def _pairs(settings: Initialization) -> Iterator[tuple[tuple[int, str], tuple[int, tuple[int, int]]]]:
    for j, job in enumerate(settings.jobs):
        for kind, name in enumerate(NAMES):
            yield (kind, name), (j, job)


def _measured(gram: np.ndarray | Tensor) -> Mapping[str, float]:
    found = confusion(gram)
    square = float(gram.diagonal().mean())
    return {"cosine": found.minimum_cosine, "sd": found.sd_cosine, "eta": found.eta, "square": square}


def run(setup: Setup, prediction: Prediction, *, gram: Gram = gradient_gram) -> Iterator[Frame]:
    """`gram` gives the inner products of all per-sample gradients, (n, n), of a network, samples and
    classes."""
    settings = setup.settings
    jobs, seeds = settings.jobs, common.seeds(settings)
    values = {name: np.full((len(seeds), len(KINDS), len(jobs)), np.nan) for name in QUANTITIES}
    for j, job in enumerate(jobs):
        sizes = setup.sizes(*job)
        for s, seed in enumerate(seeds):
            weights = shared.draws(sizes, seed, device=settings.device)
            x, y = setup.sets[s].x_train, setup.sets[s].y_train
            for kind, (init, linear, skip, _) in enumerate(KINDS.values()):
                scales = [v**0.5 for v in shared.variances(init, sizes, settings.kappa)]
                activation = "identity" if linear else settings.activation
                net = shared.network(weights, scales, activation, skip=skip)
                # In float32 the squares of what Strategy 4.1 leaves of a gradient would be zero.
                kept = torch.float64 if kind == STRATEGY else torch.float32
                found = gram(net.to(kept), (setup.length(kind) * x).to(kept), y)
                for name, value in _measured(found).items():
                    values[name][s, kind, j] = value
                yield Frame.tick(j, (j + (s + (kind + 1) / len(KINDS)) / len(seeds)) / (len(jobs) + 1e-9))
        end = j + 1 == len(jobs)
        yield Frame(
            j, {name: value.copy() for name, value in values.items()},
            1.0 if end else (j + 1) / len(jobs), "done" if end else "running",
        )  # fmt: skip


def figure(
    frames: Sequence[Frame],
    prediction: Prediction,
    previous: Sequence[Run] = (),
    settings: Initialization | None = None,
) -> figures.Chart:
    now = {name: common.newest(frames, name) for name in QUANTITIES}
    olds = [(run.prediction, old) for run in previous if (old := _newest(run.frames)) is not None]
    shown = (*PLAIN, SKIPS)

    def panel(sweep: str, name: str, kinds: Sequence[int], legend: bool, title: str) -> figures.Panel:
        at = prediction[f"over_{sweep}"]
        marks: list[figures.Mark] = []
        places = prediction[f"{sweep}s"]
        for earlier, old in olds:
            values = old[name][:, GLOROT, earlier[f"over_{sweep}"]]
            marks.append(figures.Earlier(earlier[f"{sweep}s"], values, label="earlier, Glorot"))
        for kind in kinds:
            color = KINDS[NAMES[kind]][3]
            # Of the smallest cosines, those of wide plain networks all but coincide.
            if name != "cosine" or kind in (GLOROT, SKIPS):
                expected = prediction[name][:, kind, at]
                marks.append(figures.Predicted(places, expected, label=NAMES[kind], color=color))
            found = now[name]
            values = np.full((1, len(at)), np.nan) if found is None else found[:, kind, at]
            marks.append(figures.Points(places, values, label=NAMES[kind], color=color))
        # A live axis stands still, and a logarithmic one is cut at the smallest measured value otherwise.
        low = (
            (1e-2 * float(max(prediction["eta"][:, STRATEGY].min(), TINY)), None)
            if STRATEGY in kinds
            else None
        )
        words = {"cosine": "smallest cosine", "eta": "η", "square": "mean |g|²"}
        return figures.Panel(
            title, tuple(marks), xlabel="hidden units" if sweep == "width" else "hidden layers",
            ylabel=words[name], xscale="log", yscale="linear" if name == "cosine" else "log", legend=legend,
            ylim=(-1.0, 0.0) if name == "cosine" else low, xticks=[(float(p), str(p)) for p in places],
        )  # fmt: skip

    every = range(len(KINDS))
    return figures.Chart(
        (
            panel("width", "cosine", every, True, "Angle, by width"),
            panel("width", "eta", shown, False, "η, by width"),
            panel("width", "square", shown, False, "Length, by width"),
            panel("depth", "cosine", every, False, "Angle, by depth"),
            panel("depth", "eta", shown, False, "η, by depth"),
            panel("depth", "eta", (STRATEGY,), False, "η under Strategy 4.1"),
        ),
        caption=figures.caption(settings) if settings else "",
    )  # fmt: skip


def _newest(frames: Sequence[Frame]) -> Mapping[str, np.ndarray] | None:
    return next((frame.values for frame in reversed(frames) if "cosine" in frame.values), None)


def _sweeps(run: Run, name: str, kinds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """One quantity over widths and over depths, (S, kinds, G) each."""
    found = run.last(name)[:, list(kinds)]
    return found[..., run.prediction["over_width"]], found[..., run.prediction["over_depth"]]


def _words(values: np.ndarray, spec: str = ".2f") -> str:
    """Means over seeds."""
    return ", ".join(f"{value:{spec}}" for value in values.mean(axis=0))


def _wider(run: Run) -> tuple[Evidence, ...]:
    widths = ", ".join(map(str, run.settings.widths))
    cosine, eta = _sweeps(run, "cosine", PLAIN)[0], _sweeps(run, "eta", PLAIN)[0]
    square, law = (
        values[:, GLOROT, run.prediction["over_width"]]
        for values in (run.last("square"), run.prediction["square"])
    )
    by_kind = "; ".join(f"{NAMES[kind]} {_words(cosine[:, k])}" for k, kind in enumerate(PLAIN))
    return (
        Evidence(
            cosine[..., [0, -1]],
            note=f"smallest cosine at width {widths}: {by_kind}; of wide networks "
            f"{run.prediction['cosine'][:, GLOROT].mean():.2f}",
        ),
        Evidence(
            exponent(np.array(run.settings.widths), np.maximum(eta[:, 0], TINY)),
            note=f"η under Glorot {_words(eta[:, 0], '.3g')}",
        ),
        Evidence(
            square[:, -1], law[:, -1], note=f"mean |g|² {_words(square, '.3g')}, wide {_words(law, '.3g')}"
        ),
    )


def _deeper(run: Run) -> tuple[Evidence, ...]:
    depths = run.prediction["depths"]
    start = int(np.searchsorted(depths, 10))
    few = Check("sweep over depth beyond 10", float(start + 2), float(len(depths)), "go deeper")
    cosine, sd = _sweeps(run, "cosine", range(len(KINDS)))[1], _sweeps(run, "sd", range(len(KINDS)))[1]
    plain = list(PLAIN)
    by_kind = "; ".join(
        f"{NAMES[kind]} {_words(cosine[:, kind])}, sd {_words(sd[:, kind])}" for kind in (*PLAIN, SKIPS)
    )
    return (
        Evidence(
            cosine[:, plain][..., [-1, start]], checks=(few,),
            note=f"smallest cosine and sd of cosines at depth {', '.join(map(str, depths))}: {by_kind}",
        ),
        Evidence(sd[:, plain][..., [start, -1]], checks=(few,)),
        Evidence(cosine[:, [GLOROT, SKIPS], -1]),
    )  # fmt: skip


def _strategy(run: Run) -> tuple[Evidence, ...]:
    over_width, over_depth = _sweeps(run, "eta", (STRATEGY,))
    by_width, by_depth = _sweeps(run, "cosine", (STRATEGY,))
    ends = np.stack([by_width[:, 0, [0, -1]], by_depth[:, 0, [-1, 0]]], axis=1)
    return (
        Evidence(
            np.log10(np.maximum(over_depth[:, 0], TINY)),
            note=f"η over depth {_words(over_depth[:, 0], '.2g')}, over width "
            f"{_words(over_width[:, 0], '.2g')}; smallest cosine over depth {_words(by_depth[:, 0])}, over "
            f"width {_words(by_width[:, 0])}",
        ),
        Evidence(ends),
    )


C7 = Claim(
    "C7",
    "At initialisation a wider network is less confused: over a fixed number of pairs the smallest cosine of "
    "per-sample gradients rises from the narrowest to the widest; η itself grows under Glorot, as gradients "
    "get longer, by the law of wide networks.",
    "paper 5, Thm 4.2, §4, App. A.1",
    (Ordered(), Exponent(0.0, np.inf), Equals(0.3, exact=False)),
    _wider, "holds",
    {"holds": "the smallest cosine rises with width, and η grows with it all the same",
     "fails": "the smallest cosine does not rise with width, or η does not grow, or not by the law"},
)  # fmt: skip
C8 = Claim(
    "C8",
    "At initialisation a deeper network is more confused: from 10 hidden layers to the deepest the smallest "
    "cosine falls and cosines spread, for tanh and linear, Glorot and LeCun alike; with skip connections the "
    "smallest cosine at that depth is higher.",
    "paper 5, Thm 4.2, §4, App. A.1",
    (Ordered(), Ordered(), Ordered()),
    _deeper, "holds",
    {"holds": "deeper is more confused, and skip connections mend it",
     "fails": "the smallest cosine does not fall with depth, or cosines do not spread, or skips do not help"},
)  # fmt: skip
C11 = Claim(
    "C11",
    "Under Strategy 4.1 confusion grows with depth: so says Thm 4.2 of η, and so it is for the smallest "
    "cosine, which also rises with width.",
    "paper 5, Thm 4.2 (Strategy 4.1)",
    (Ordered(), Ordered()),
    _strategy, "fails",
    {"holds": "η grows with depth, and the smallest cosine falls",
     "fails": "right for the angle only: κ ≥ 4 makes gradients vanish with depth, and η with them"},
)  # fmt: skip

INITIALIZATION = Experiment(
    "initialization", "Width and depth before training: angle or scale?", Initialization,
    {
        "quick": Initialization(),
        "paper": Initialization(dataset="mnist", widest=1000, deepest=1000, seeds=10),
    },
    prepare, predict, run, figure, (C7, C8, C11),
    controls=("n", "depth", "width", "activation", "kappa"),
)  # fmt: skip
