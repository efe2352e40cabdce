"""What is free to change? Rescaling, paths, folding, robustness (E2 to E5, E19, E20; paper 2, section 2).

Multiply what comes into a hidden unit by a, divide what goes out by a: the function and both path norms stay,
the products of norms, the sharpness and the divergence at equal sharpness become as large as one likes. They
have floors, which no rescaling moves: ∏‖W‖_F² that of its balanced form, (Σ s t)² for two layers, s and t the
norms of a unit's inputs and outputs; sharpness, to first order, α Σ|w ∂L/∂w|. One factor for a whole layer
leaves the products alone too, and nothing else.

Robustness (3) asks for cells in which the loss hardly changes. A Lipschitz constant C makes them balls of
diameter γ/(√2 C): a difference of two outputs changes by no more than √2 C a unit of length.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labkit import data, figures, models
from labkit.figures.palette import Color
from labkit.labs import common
from labkit.labs.generalization import shared
from labkit.labs.generalization.rescaling_claims import E2, E3, E4, E5, E19, E20, EXACT, moved_by
from labkit.measure.capacity import local_lipschitz
from labkit.measure.margins import margin
from labkit.measure.norms import layer_norms
from labkit.measure.paths import path_norms
from labkit.measure.sharpness import max_sharpness
from labkit.models.rescaling import least_product
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction
from labkit.protocol.memory import once
from labkit.protocol.settings import knob
from labkit.training import Ensemble, train

# One colour a measure in both panels where it stands.
PATH_ONE, PATH_TWO, FROBENIUS = shared.L1_PATH, shared.L2_PATH, shared.L2
SPECTRAL, SHARPNESS, OUTPUT = shared.SPECTRAL, shared.SHARPNESS, shared.TEST
APART = 0.2  # decades between two factors that are looked at: other largest ones share them
ROUNDING = 2.0**-53
DRAWS = 5
ALPHAS = np.geomspace(1e-5, 0.15, 13)  # down to what a rescaled network bears
OnePass = Callable[[Sequence[Tensor], float], float]


@dataclass(frozen=True)
class Rescaling(common.OnData):
    kind: str = knob(
        "single units", "what gets a factor of its own", choices=("single units", "whole layer"),
        label="rescale", remeasures=True,
    )  # fmt: skip
    units: int = knob(
        4, "rescaled units in each hidden layer (of single units)", slider=(1, 32), bounds=(1, None),
        step=1, remeasures=True,
    )  # fmt: skip
    decades: float = knob(
        1.5, "the largest factor, in powers of ten", slider=(0.1, 3), bounds=(0.01, 6), step=0.1,
        label="largest factor", unit="decades", remeasures=True,
    )  # fmt: skip
    width: int = knob(32, "hidden units H", slider=(4, 256), bounds=(2, None), scale="log2")
    depth: int = knob(2, "hidden layers", slider=(1, 4), bounds=(1, 8), step=1)
    dataset: str = knob("digits", "digits, mnist-5k, ... or the path of an .npz")
    classes: int = knob(10, "classes K", slider=(2, 10), bounds=(2, None), step=1)
    n: int = knob(200, "training samples m", slider=(50, 1000), bounds=(20, None), step=50)
    steps: int = knob(
        300, "training steps before the weights are rescaled", slider=(0, 1000), bounds=(0, None), step=50
    )
    lr: float = knob(0.05, "learning rate", slider=(0.001, 0.5), bounds=(0, 100), scale="log")
    alpha: float = knob(
        5e-4, "size α of the box of the sharpness (4)", slider=(1e-4, 1e-2), bounds=(1e-8, 1),
        scale="log", remeasures=True,
    )  # fmt: skip
    ascent: int = knob(
        30, "ascent steps of the sharpness", slider=(10, 200), bounds=(1, None), step=10, remeasures=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.units > self.width:
            raise ValueError(f"units must be at most width = {self.width}; got {self.units}")


@dataclass(frozen=True)
class Setup:
    settings: Rescaling
    datasets: tuple[data.Dataset, ...]
    nets: tuple[models.MLP, ...]
    # kind -> hidden layer -> which way each unit goes, (H,): up 1, down -1, nowhere 0
    directions: tuple[dict[str, dict[int, Tensor]], ...]
    small: tuple[models.MLP, ...]
    images: tuple[data.Dataset, ...]
    vggs: tuple[models.VGG, ...]


def prepare(settings: Rescaling) -> Setup:
    seeds = common.seeds(settings)
    sets = common.datasets(settings, n_test=1, normalize="none", dtype=torch.float64)
    inputs = sets[0].x_train.shape[1]
    where: dict[str, Any] = {"dtype": torch.float64, "device": settings.device}
    return Setup(
        settings,
        sets,
        tuple(models.mlp(inputs, settings.width, settings.depth, settings.classes, seed=seed, **where)
              for seed in seeds),
        tuple(_directions(settings, seed) for seed in seeds),
        # 6 * 5 * 5 * 3 paths: few enough to list them.
        tuple(models.mlp(6, 5, 2, 3, bias=False, seed=seed, dtype=torch.float64) for seed in seeds),
        tuple(_images(seed) for seed in seeds),
        tuple(models.vgg(10, 1, size=8, width=4, dropout=0.0, seed=seed, dtype=torch.float64)
              for seed in seeds),
    )  # fmt: skip


def _images(seed: int) -> data.Dataset:
    return common.classification(
        "digits", n=100, classes=10, n_test=1, label_noise=0.0, normalize="none", seed=seed,
        dtype=torch.float64, flatten=False,
    )  # fmt: skip


def _directions(settings: Rescaling, seed: int) -> dict[str, dict[int, Tensor]]:
    """Which units the factor is for: some up and some down, or one layer up."""
    generator = torch.Generator().manual_seed(seed)
    single = {}
    for layer in range(settings.depth):
        single[layer] = torch.zeros(settings.width, dtype=torch.float64)
        chosen = torch.randperm(settings.width, generator=generator)[: settings.units]
        single[layer][chosen] = 2.0 * torch.randint(2, (settings.units,), generator=generator).double() - 1
    return {"single units": single, "whole layer": {0: torch.ones(settings.width).double()}}


def predict(setup: Setup) -> Prediction:
    """Ratios to the network before rescaling: 1 for what is invariant, whatever training finds."""
    largest = setup.settings.decades
    between = np.arange(0, largest - 1e-9, APART).round(6)  # to the bit what the slider has
    factors = 10.0 ** np.append(between, largest)
    inputs = setup.datasets[0].x_train.shape[1]
    return {"factor": factors, "invariant": np.ones(len(factors)), "inputs": np.array(inputs)}


def sum_over_paths(weights: Sequence[Tensor], p: float) -> float:
    """Sum over all paths of prod |w|^p, path by path."""
    units = [range(weights[0].shape[1]), *(range(len(W)) for W in weights)]
    total = 0.0
    for path in itertools.product(*units):
        total += math.prod(abs(float(W[path[k + 1], path[k]])) ** p for k, W in enumerate(weights))
    return total


def one_pass(weights: Sequence[Tensor], p: float) -> float:
    """The same in one forward pass of ones."""
    h = torch.ones(weights[0].shape[1], dtype=torch.float64)
    for W in weights:
        h = W.abs() ** p @ h
    return float(h.sum())


def _trained(setup: Setup, end: float, showing: common.Showing) -> Generator[Frame, None, list[nn.Module]]:
    """The networks that are rescaled; none where their training diverged. `end` is the progress after it."""
    settings, ensemble = setup.settings, Ensemble(setup.nets)
    for frame in train(
        ensemble, [one.x_train for one in setup.datasets], [one.y_train for one in setup.datasets],
        loss="cross-entropy", lr=settings.lr, momentum=0.9, batch_size=64, steps=settings.steps,
        seed=settings.seed,
    ):  # fmt: skip
        if frame.status == "diverged":
            yield frame
            return []
        yield Frame.tick(0, end * (frame.progress or 0.0), common.shown_by(frame, showing, ensemble))
    return [ensemble.member(s) for s in range(settings.seeds)]


def run(setup: Setup, prediction: Prediction, *, one_pass: OnePass = one_pass) -> Iterator[Frame]:
    settings, factors = setup.settings, prediction["factor"].tolist()
    look, starts = settings.ascent * settings.n, []
    costs = [64 * settings.steps, *[look] * len(factors), *[4 * look / settings.seeds] * settings.seeds]
    done = [end for _, end in common.spans(costs)]
    nets = yield from _trained(setup, done[0], partial(_early, setup, factors[0]))
    for s, net in enumerate(nets):
        starts.append(_at_the_start(setup, s, net))
        yield Frame.tick(0, done[0])
    if not nets:
        return

    def beside(s: int, kind: str, factor: float) -> dict[str, float]:
        return _beside(setup, s, nets[s], starts[s], kind, factor)

    for step, factor in enumerate(factors):
        share, found = done[1 + step], []
        for s in range(len(nets)):
            found.append(beside(s, settings.kind, factor))
            yield Frame.tick(step, share)
        yield Frame(step, {**common.stacked(found), "factor": np.full(len(nets), factor)}, share)
    last: list[dict[str, Any]] = []
    for s, net in enumerate(nets):
        last.append(_as_it_is(net, setup.datasets[s], starts[s]))
        # Both kinds at the largest factor, whichever was drawn: E2 speaks of both.
        for kind, name in (("single units", "units"), ("whole layer", "layer")):
            half, whole = (beside(s, kind, factors[at]) for at in (len(factors) // 2, -1))
            # The sharpness may fall before it rises, and so pass 1 at the very end.
            moved = max(half["sharpness"], whole["sharpness"], key=moved_by)
            last[s] |= {f"{name}_{key}": value for key, value in (whole | {"sharpness": moved}).items()}
            yield Frame.tick(len(factors), done[len(factors) + s])
        last[s] |= _paths(setup.small[s], one_pass)
        last[s]["fold"] = _folded(setup.vggs[s], setup.images[s], settings)
        yield Frame.tick(len(factors), done[len(factors) + s + 1])
    yield Frame(len(factors), common.stacked(last), 1.0, "done")


def _at_the_start(setup: Setup, s: int, net: nn.Module) -> dict[str, float]:
    one, settings = setup.datasets[s], setup.settings
    return once(_measures, net, one.x_train, one.y_train, settings.alpha, settings.ascent)


def _beside(
    setup: Setup, s: int, net: nn.Module, start: Mapping[str, float], kind: str, factor: float
) -> dict[str, float]:
    """The network of a seed, rescaled, beside itself."""
    one, ways, settings = setup.datasets[s], setup.directions[s][kind], setup.settings
    scales = {layer: factor**way for layer, way in ways.items()}
    return once(_compare, net, one.x_train, one.y_train, start, scales, settings.alpha, settings.ascent)


def _early(setup: Setup, factor: float, ensemble: Ensemble) -> dict[str, np.ndarray]:
    """A first comparison, of the first seed's network as it has become."""
    net, seeds = ensemble.member(0), len(setup.nets)
    found = _beside(setup, 0, net, _at_the_start(setup, 0, net), setup.settings.kind, factor)
    return common.alone((seeds,), (0,), found) | {"factor": np.full(seeds, factor)}


def _as_it_is(net: nn.Module, one: data.Dataset, start: Mapping[str, float]) -> dict[str, Any]:
    """The network before any rescaling, and its samples."""
    outputs = common.outputs(net, one.x_train)
    return {
        "error": common.error_rate(outputs, one.y_train), "gamma": margin(outputs, one.y_train),
        "apart": float(distances(one.x_train).median()),
        "paths_of_all_outputs": start["paths_of_all_outputs"] / start["group_norms"],
    }  # fmt: skip


def distances(x: Tensor) -> Tensor:
    """From each sample to the nearest other one, (n,)."""
    return torch.cdist(x, x).fill_diagonal_(math.inf).amin(1)


def _measures(net: nn.Module, x: Tensor, y: Tensor, alpha: float, ascent: int) -> dict[str, float]:
    """All that is followed, of one network."""
    norms = layer_norms(net, x)
    one, two = (path_norms(net, x, p) for p in (1, 2))
    sharpness = max_sharpness(net, x, y, alpha=alpha, steps=ascent)
    (divergence,) = shared.divergences(net, x, y, ALPHAS, DRAWS, 0, (shared.TARGET,))
    return {
        "path_one": float(one.sum()),
        "path_two": float(two.sum()),
        "frobenius": float((norms.frobenius**2).prod()),
        "spectral": float(norms.spectral.prod()),
        "sharpness": sharpness.value,
        "divergence": divergence,
        "floor": alpha * slope(net, x, y),
        "least_product": least_product(net),
        "paths_of_one_output": float(one.max()),
        "paths_of_all_outputs": float(one.sum()),
        "group_norms": float(norms.one_inf.prod()),
        "local_lipschitz": float(local_lipschitz(net, x).max()),
    }


def slope(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """Σ|w ∂L/∂w|: how far the loss rises to first order where each weight moves by its own size."""
    weights = list(net.parameters())
    loss = nn.functional.cross_entropy(net(x), y)
    found = torch.autograd.grad(loss, weights)
    return float(sum((w.detach() * g).abs().sum() for w, g in zip(weights, found, strict=True)))


def _compare(
    net: nn.Module, x: Tensor, y: Tensor, start: Mapping[str, float], factors: dict[int, Tensor],
    alpha: float, ascent: int,
) -> dict[str, float]:  # fmt: skip
    """The rescaled network beside the network itself: ratios, the change of the output, Lipschitz bounds."""
    same = models.rescale_nodes(net, factors, x=x)
    now = _measures(same, x, y, alpha, ascent)
    ratios = {
        name: now[name] / start[name] if start[name] else math.nan
        for name in ("path_one", "path_two", "frobenius", "spectral", "sharpness", "divergence")
    }
    floors = {
        "product_floor": now["least_product"] / start["frobenius"],
        "sharpness_floor": now["floor"] / start["sharpness"] if start["sharpness"] else math.nan,
    }
    bounds = {name: now[name] for name in ("paths_of_one_output", "group_norms", "local_lipschitz")}
    change = common.change(net, same, x)
    return {**ratios, **floors, **bounds, "spectral_product": now["spectral"], "output": change}


def _paths(net: models.MLP, one_pass: OnePass) -> dict[str, np.ndarray]:
    """Three ways to the same two numbers, (p,) each."""
    weights = [weight.detach() for weight in net.parameters()]  # no biases
    x = torch.zeros(1, weights[0].shape[1])
    ways = {
        "brute_force": lambda p: sum_over_paths(weights, p),
        "one_pass": lambda p: one_pass(weights, p),
        "library": lambda p: float(path_norms(net, x, p).sum()),
    }
    return {name: np.array([way(p) for p in (1, 2)]) for name, way in ways.items()}


def _folded(net: models.VGG, images: data.Dataset, settings: Rescaling) -> float:
    """Relative change of a VGG's outputs by folding, after a few steps that move its running statistics."""
    net = copy.deepcopy(net).train()
    x, y = images.x_train, images.y_train
    for _ in train(net, x, y, loss="cross-entropy", lr=0.05, batch_size=20, steps=10, seed=settings.seed):
        pass
    return common.change(net.eval(), models.fold_batch_norm(net), x)


Drawn = Mapping[str, tuple[str, Color]]  # value -> words, colour
RATIOS: Drawn = {
    "path_one": ("ℓ₁-path", PATH_ONE), "path_two": ("ℓ₂-path", PATH_TWO),
    "frobenius": ("∏‖W‖_F²", FROBENIUS), "spectral": ("∏‖W‖₂", SPECTRAL),
    "sharpness": ("sharpness", SHARPNESS), "divergence": ("KL at .05", shared.DIVERGENCE),
}  # fmt: skip
FLOORS: Drawn = {
    "product_floor": ("floor of ∏‖W‖_F²", FROBENIUS), "sharpness_floor": ("floor of sharpness", SHARPNESS),
}  # fmt: skip
STAYS: Drawn = {
    "output": ("output", OUTPUT), "path_one": ("ℓ₁-path", PATH_ONE), "path_two": ("ℓ₂-path", PATH_TWO),
}  # fmt: skip
LIPSCHITZ: Drawn = {
    "group_norms": ("∏‖W‖₁,∞", FROBENIUS), "paths_of_one_output": ("ℓ₁-path, one output", PATH_ONE),
    "spectral_product": ("∏‖W‖₂", SPECTRAL), "local_lipschitz": ("local Lipschitz", OUTPUT),
}  # fmt: skip


def _off_one(values: np.ndarray, name: str) -> np.ndarray:
    """How far what must stay has moved; a change of exactly 0 has no place on a logarithmic axis."""
    return np.maximum(np.abs(values - (0.0 if name == "output" else 1.0)), ROUNDING)


def figure(frames: Frames, prediction: Prediction, settings: Rescaling | None = None) -> figures.Chart:
    factor = prediction["factor"]

    def curves(
        drawn: Drawn, kind: Any = figures.Measured, shown: Any = lambda values, name: values
    ) -> list[figures.Mark]:
        found = [(*common.curve(frames, name), name, label, color) for name, (label, color) in drawn.items()]
        return [
            kind(factor[at], shown(values, name), label=label, color=color)
            for at, values, name, label, color in found if len(at)
        ]  # fmt: skip

    cells: list[figures.Mark] = []
    gamma, apart = (common.newest(frames, name) for name in ("gamma", "apart"))
    if gamma is not None and apart is not None:
        cells = [figures.Level(float((gamma / apart).mean()) / math.sqrt(2), label="each its own cell above")]
    ratio = [
        figures.Predicted(factor, prediction["invariant"], label="invariant", color=PATH_ONE),
        *curves(RATIOS), *curves(FLOORS, figures.Predicted),
    ]  # fmt: skip
    stays = [figures.Level(EXACT, label="tolerance"), *curves(STAYS, shown=_off_one)]
    wide: dict[str, Any] = {"xlabel": "largest factor", "xscale": "log", "yscale": "log"}
    says = "What changes, and what must not, while the weights of one network are rescaled."
    return figures.Chart.of(
        settings, says, figures.Panel("Measured / before rescaling", ratio, ylabel="ratio", **wide),
        figures.Panel("Change of what must stay", stays, ylabel="relative change", **wide),
        figures.Panel("Lipschitz bounds", [*curves(LIPSCHITZ), *cells], ylabel="value", **wide),
    )  # fmt: skip


RESCALING = Experiment(
    "rescaling", "Which measures can be changed for free?", Rescaling,
    {"quick": Rescaling(),
     "paper": Rescaling(width=256, depth=4, n=1000, units=32, steps=2000, ascent=200, decades=3.0, seeds=5)},
    prepare, predict, run, figure, (E2, E3, E4, E5, E19, E20),
    controls=("kind", "units", "decades", "width", "depth", "steps"),
)  # fmt: skip
