"""Wider and wider: which measure falls with the test error? (E10, E16; paper 2, Fig. 4)

Perceptrons of doubling width are trained to one loss on the same true labels. Prediction before training: the
number of parameters times layers, the order of the VC dimension (1), says the more the worse.

The narrowest network has 16 units: 8 fit 400 digits at some starts only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from labkit import figures
from labkit.labs import common
from labkit.labs.generalization import panels, shared
from labkit.measure.capacity import capacities
from labkit.measure.layers import weight_layers
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.memory import once
from labkit.protocol.rules import EVERY, Between, Evidence
from labkit.protocol.settings import knob
from labkit.theory import generalization as theory

BETTER = 0.005  # so much less test error we call better
FALLS, RISES = 0.9, 1.05  # and by these factors a measure falls or rises
LATE = -3  # the place of a quarter of the widest: 128 of 512 units
# Capacities with the factors that Fig. 1 drops.
WHOLE = {"l2_path": "ℓ₂-path with h", "spectral": "spectral with h"}


@dataclass(frozen=True)
class Width(shared.Trained):
    narrowest: int = knob(
        16, "units of the narrowest network", slider=(4, 64), bounds=(1, None), scale="log2"
    )
    width: int = knob(
        512, "units of the widest network; widths double up to it", slider=(64, 2048), bounds=(2, None),
        scale="log2", label="widest",
    )  # fmt: skip
    factors: bool = knob(
        False, "draws ℓ₂-path and spectral with the widths h of their capacities", label="with factors h",
        remeasures=True,
    )  # fmt: skip
    n: int = knob(400, "training samples", slider=(100, 1400), bounds=(20, None), step=100)
    n_test: int = shared.n_test(1400, 200)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width < 2 * self.narrowest:
            raise ValueError(
                f"width must be at least twice the narrowest, {2 * self.narrowest}; got {self.width}"
            )

    @property
    def widths(self) -> tuple[int, ...]:
        found = [self.narrowest]
        while 2 * found[-1] <= self.width:
            found.append(2 * found[-1])
        return tuple(found)


def prepare(settings: Width) -> common.Setup:
    """The networks are models[width][seed]."""
    sets = tuple(shared.classification(settings, settings.n, seed) for seed in common.seeds(settings))
    nets = tuple(shared.networks(settings, sets[0].shape, width) for width in settings.widths)
    return common.Setup(settings, sets, nets)


def predict(setup: common.Setup) -> Prediction:
    """Layers times parameters of every width, (1) without logarithms, over that of the narrowest."""
    x = setup.sets[0].x_train
    order = []
    for model, *_ in setup.models:
        net = shared.folded(model)
        parameters = sum(p.numel() for p in net.parameters())
        order.append(theory.vc_order(len(weight_layers(net, x)), parameters))
    return {
        "widths": np.array(setup.settings.widths), "vc_order": np.array(order) / order[0],
        "factors": np.array(setup.settings.factors),
    }  # fmt: skip


def run(setup: common.Setup, prediction: Prediction) -> Iterator[Frame]:
    settings, widths = setup.settings, setup.settings.widths
    samples = shared.samples(setup.sets)
    # A step costs about as much as 128 units and its width together.
    jobs = [
        shared.Job(f"{width} units", nets, samples, 128.0 + width)
        for width, nets in zip(widths, setup.models, strict=True)
    ]

    def whole(s: int, model: nn.Module) -> dict[str, float]:
        found = once(capacities, model, *samples[s], epsilon=settings.epsilon, factors=True)
        return {f"{name}_whole": getattr(found, name) for name in WHOLE}

    yield from shared.family(settings, jobs, setup.sets, whole)


def figure(frames: Frames, prediction: Prediction, settings: Width | None = None) -> figures.Chart:
    widths, whole = prediction["widths"], WHOLE if prediction["factors"] else {}
    reach = (float(widths[0]) / 1.3, float(widths[-1]) * 1.3)
    drawn = {
        f"{name}_whole" if name in whole else name: (whole.get(name, words), color)
        for name, (words, color) in panels.DRAWN.items()
    }
    return panels.family(
        frames, prediction, settings, "widths", drawn,
        rise=figures.Predicted(widths, prediction["vc_order"], label="VC (1)", color="ink"),
        across={"xlabel": "hidden units", "xscale": "log2", "xlim": reach},
        ylim=(-0.5, None), by="width",
        says="Networks that fit the same images, as they grow wider: error and measures.",
    )  # fmt: skip


def _ratio(run: Run, names: Sequence[str], place: int, over: int) -> np.ndarray:
    """Measures at one width over those at another, (S, names)."""
    # A run of two widths has no third from behind.
    place, over = (max(k, -len(run.settings.widths)) for k in (place, over))
    return np.stack([run.last(name)[:, place] / run.last(name)[:, over] for name in names], axis=1)


def _explain_nothing(run: Run) -> tuple[Evidence, Evidence, Evidence]:
    checks = shared.converged(run)
    widths, error = run.settings.widths, run.last("test_error")
    note = f"test error at {', '.join(map(str, widths))} units: {common.means(error)}"
    return (
        Evidence(error[:, 0] - error[:, -1], checks=checks, note=note),
        Evidence(_ratio(run, ["l2_path"], -1, 0)[:, 0], checks=checks),
        Evidence(_ratio(run, list(LATE_RISERS), -1, LATE), checks=checks),
    )


def _fall_first(run: Run) -> Evidence:
    checks = shared.converged(run)
    return Evidence(_ratio(run, list(EARLY_FALLERS), LATE, 0), checks=checks)


def _one_width(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Every network as wide as the widest."""
    return lambda settings, shape, seed, width=None: build(settings, shape, seed, settings.width)


def _a_unit(measure: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Every measure divided by the number of hidden units."""

    def shared_out(settings: Any, model: nn.Module, *args: Any, **kwargs: Any) -> dict[str, Any]:
        units = len(next(model.parameters()))
        found = measure(settings, model, *args, **kwargs)
        return found | {name: found[name] / units for name in EARLY_FALLERS if name in found}

    return shared_out


EARLY_FALLERS = shared.NAMES | {"divergence": "KL"}
LATE_RISERS = {"l2": "ℓ₂", "l1_path": "ℓ₁-path", "divergence": "KL"} | {
    f"{name}_whole": words for name, words in WHOLE.items()
}
_HERE = "labkit.labs.generalization.width"

E10 = Claim(
    "E10", "finding",
    "From the narrowest network to the widest the test error falls, and so does ℓ₂-path over margin; over "
    "the last two doublings ℓ₂, ℓ₁-path and KL rise, and so do ℓ₂-path and spectral with the factors h of "
    "their capacities: none of these explains it.",
    "paper 2, Fig. 4",
    (
        Between("test error at the narrowest, less that at the widest", low=BETTER),
        Between("ℓ₂-path over margin at the widest, over that at the narrowest", high=0.5, by=EVERY),
        Between("measure at the widest, over that at a quarter of it", tuple(LATE_RISERS.values()), low=RISES,
                by=EVERY),
    ),
    _explain_nothing, "holds",
    {"holds": "wider networks generalise better, while the measures rise: they do not explain it",
     "fails": "test error does not fall with width, or a measure moves otherwise"},
    (World("every network as wide as the widest", {"width": 64, "seeds": 5},
           {f"{_HERE}:shared.network": _one_width}),),
)  # fmt: skip
E16 = Claim(
    "E16", "finding",
    "From the narrowest network to a quarter of the widest, 128 units, all norms over margin and KL fall.",
    "paper 2, Fig. 4",
    (
        Between("measure at a quarter of the widest, over that at the narrowest",
                tuple(EARLY_FALLERS.values()), high=FALLS, by=EVERY),
    ),
    _fall_first, "fails",
    {"holds": "all measures fall at first, as the test error does",
     "fails": "ℓ₂ and ℓ₁-path rise from the narrowest network on that fits the data"},
    (World("each measure shared out over the hidden units", {"width": 256, "seeds": 1},
           dict.fromkeys((f"{_HERE}:shared.measured", f"{_HERE}:shared.perturbed"), _a_unit), "holds"),),
    "400 digits need 16 units, and ℓ₂ and ℓ₁-path turn there; the paper fits 60,000 images, which need 32",
)  # fmt: skip

WIDTH = Experiment(
    "width", "Wider and wider: which measure falls with the test error?", Width,
    {
        "quick": Width(seeds=8),
        "paper": Width(
            **shared.PAPERS, dataset="mnist", narrowest=8, width=2048, n=60_000, n_test=10_000
        ),
        "afternoon": Width(
            dataset="mnist", width=512, n=2000, n_test=1000, stop=1e-3, ascent=200, draws=100, seeds=5
        ),
    },
    prepare, predict, run, figure, (E10, E16),
    controls=("factors", "width", "narrowest", "n", "lr", "stop", "alpha"),
)  # fmt: skip
