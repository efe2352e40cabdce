"""What do the norms of an untrained network say?
They grow with its width (D1, D2, D3), its loss and its generalisation error do not (D8, D22).

Cor. A.2.1 with constants: E‖Z_k‖_F² = n_k·n_(k−1)·σ_k² exactly, and ‖Z_k‖₂ is near σ_k(√n_k + √n_(k−1)).
Both are known from shapes and standard deviations alone, before a single weight is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit import data, figures, krylov
from labkit.labs import common
from labkit.labs.distance import shared
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import EVERY, AtMost, Between, Check, Equals, Evidence
from labkit.protocol.settings import knob
from labkit.protocol.statistics import exponent
from labkit.theory import distance as theory

NARROWEST = 40  # as in the paper; then by octaves
SIGMAS = 5.0  # a sum of squares is further from its mean than this, in standard deviations, once in 10^6
NEAR = 3.0  # the same of ‖Z‖₂ in units of σ: it is 0.7 ± 0.5 of them below σ(√n_k + √n_(k-1))
SAMPLES, DRAWS = (16, 64, 256), 400  # sizes of training sets for an untrained network, and draws of each
LEAST = 1 / 16  # inputs a unit: from here down the exponents are near those of the limit
ENDS = ("first layer", "hidden layers", "last layer")
INITS = ("glorot-normal", "inverse-sqrt-width", "lecun", "glorot")


@dataclass(frozen=True)
class Initialization(common.OnData):
    widest: int = knob(
        2560, "largest width H, from 40 by octaves", slider=(160, 2560), bounds=(80, 20_480), scale="log2",
        label="largest width",
    )  # fmt: skip
    matrices: int = knob(
        6, "weight matrices of the deepest network; depths d from 3 on are shown", slider=(3, 7),
        bounds=(3, 12), step=1, label="weight matrices d",
    )  # fmt: skip
    init: str = knob(
        "glorot-normal",
        "standard deviation of a weight: √(2/(in + out)), 1/√H, or 1/√in (lecun); glorot is uniform",
        choices=INITS,
    )
    n: int = knob(200, "images for the initial loss", slider=(50, 400), bounds=(10, None), step=50)
    classes: int = knob(10, "classes, the outputs K", slider=(2, 10), bounds=(2, None), step=1)
    dataset: str = knob("digits", "name of a data set, or path to an .npz; it gives the inputs n")

    @property
    def widths(self) -> np.ndarray:
        return NARROWEST * 2 ** np.arange(int(np.log2(self.widest / NARROWEST)) + 1)

    def dims(self, inputs: int, width: float, depth: int = 0) -> tuple[int, ...]:
        return theory.layer_shapes(inputs, int(width), depth or self.matrices, self.classes)


def prepare(settings: Initialization) -> common.Setup:
    return common.Setup(settings, common.datasets(settings, n_test=30, normalize="none"))


def predict(setup: common.Setup) -> Prediction:
    """Both norms of every layer at every width, and the exact curve of Prop. 6.1 for every depth from 3."""
    settings, inputs = setup.settings, setup.sets[0].dim
    widths, depths = settings.widths, np.arange(3, settings.matrices + 1)
    layers = [shared.norms_of_start(settings, settings.dims(inputs, width)) for width in widths]
    frobenius = np.array([norms.frobenius_squared for norms in layers])
    spectral = np.array([norms.spectral for norms in layers])
    dims = np.array([settings.dims(inputs, width) for width in widths], dtype=float)
    return {
        "widths": widths, "depths": depths, "inputs": np.asarray(inputs),
        "frobenius": frobenius, "spectral": spectral,
        "frobenius_product": _products(frobenius, depths), "spectral_product": _products(spectral, depths),
        # Var ‖Z‖_F²/E² is 2/N for N Gaussian weights, and adds up over layers in the logarithm of a product.
        "frobenius_sd": np.sqrt(2 / (dims[:, 1:] * dims[:, :-1])),
        "sds": np.array([theory.xavier_sds(settings.init, shape) for shape in dims.astype(int)]),
    }  # fmt: skip


def _products(layers: np.ndarray, depths: np.ndarray) -> np.ndarray:
    """Products over the layers of the network of each depth: (..., T, d) -> (..., D, T).

    A network of depth d' is the first layer, d' - 2 of the hidden ones and the last layer of the deepest one.
    """
    return np.stack([layers[..., : int(depth) - 1].prod(-1) * layers[..., -1] for depth in depths], axis=-2)


def layer_norms(weight: Tensor) -> tuple[float, float]:
    """‖Z‖_F² and ‖Z‖₂, the latter from below by 24 steps of Lanczos on ZᵀZ: to about 3e-4 at 2560 units."""
    short = weight if weight.shape[0] >= weight.shape[1] else weight.T
    start = torch.ones(short.shape[1], dtype=weight.dtype, device=weight.device)
    start[::2] = -1
    found = krylov.lanczos(lambda v: short.T @ (short @ v), start, 24).matrix()
    frobenius = torch.linalg.vector_norm(weight, dtype=torch.float64) ** 2
    return float(frobenius), float(torch.linalg.eigvalsh(found)[-1].clamp(min=0).sqrt())


def run(
    setup: common.Setup,
    prediction: Prediction,
    *,
    norms: Callable[[Tensor], tuple[float, float]] = layer_norms,
) -> Iterator[Frame]:
    """Draws one network a width and seed, a layer at a time: only one weight matrix is ever held."""
    settings = setup.settings
    generators = [torch.Generator().manual_seed(seed) for seed in common.seeds(settings)]
    spans = common.spans(prediction["widths"] ** 2.0)
    for step, (width, (begin, end)) in enumerate(zip(prediction["widths"], spans, strict=True)):
        dims, found = settings.dims(int(prediction["inputs"]), width), []
        for seed, dataset, generator in zip(common.seeds(settings), setup.sets, generators, strict=True):
            h, squared, spectral = dataset.x_train, [], []
            for k, sd in enumerate(prediction["sds"][step]):
                weight = float(sd) * _draw(settings.init, dims[k + 1], dims[k], generator).to(h.device)
                frobenius, top = norms(weight)
                squared.append(frobenius)
                spectral.append(top)
                h = (h.relu() if k else h) @ weight.T
                yield Frame.tick(step, begin)
            found.append({"frobenius": squared, "spectral": spectral, **_loss(h, dataset, spectral)})
            found[-1]["gap"] = _gaps(h, dataset, seed)
        done = step == len(spans) - 1
        yield Frame(step, common.stacked(found), end, "done" if done else "running")


def _draw(init: str, rows: int, cols: int, generator: torch.Generator) -> Tensor:
    """(rows, cols) of mean 0 and variance 1."""
    if init == "glorot":
        return np.sqrt(3) * (2 * torch.rand(rows, cols, generator=generator) - 1)
    return torch.randn(rows, cols, generator=generator)


def _loss(outputs: Tensor, dataset: data.Dataset, spectral: list[float]) -> dict[str, float]:
    """The paper's squared loss (1/K)Σ(f − y)² against one-hot labels, its bound by Cor. C.1.1, the largest
    ‖f(x)‖/‖x‖, and the mean of f².
    """
    targets = data.one_hot(dataset.y_train, dataset.classes).to(outputs)
    sizes = dataset.x_train.norm(dim=1)
    bound = theory.initial_loss_bound(spectral, float(sizes.max()), 1.0, dataset.classes)
    return {
        "loss": float((outputs - targets).square().mean()), "loss_bound": float(bound),
        "gain": float((outputs.norm(dim=1) / sizes).max()), "output": float(outputs.square().mean()),
    }  # fmt: skip


def _gaps(outputs: Tensor, dataset: data.Dataset, seed: int) -> list[float]:
    """Root mean square of the share of wrong images on m drawn ones minus that on all, for each m."""
    wrong = (outputs.argmax(1) != dataset.y_train).double().cpu()
    generator = torch.Generator().manual_seed(seed)
    drawn = [wrong[torch.randint(len(wrong), (DRAWS, m), generator=generator)].mean(1) for m in SAMPLES]
    return [float((part - wrong.mean()).square().mean().sqrt()) for part in drawn]


def figure(frames: Frames, prediction: Prediction, settings: Initialization | None = None) -> figures.Chart:
    widths, depths = prediction["widths"], prediction["depths"]
    found = {name: common.history(frames, name) for name in ("frobenius", "spectral", "loss")}
    seen = widths[: found["loss"].shape[1]]
    layers: list[figures.Mark] = []
    products: dict[str, list[figures.Mark]] = {"frobenius": [], "spectral": []}

    def both(marks: list[figures.Mark], label: str, color: int, expected: np.ndarray, found: Any) -> None:
        marks.append(figures.Predicted(widths, expected, label, color))
        if len(seen):
            marks.append(figures.Points(seen, found, label, color, line=False))

    for color, (index, name) in enumerate(((0, "Z₁"), (1, "Z₂"), (-1, "Z_d"))):
        for shade, norm in ((color, "frobenius"), (color + 3, "spectral")):
            power, label = (0.5, f"‖{name}‖_F") if norm == "frobenius" else (1.0, f"‖{name}‖₂")
            own = found[norm][..., index] ** power if len(seen) else None
            both(layers, label, shade, prediction[norm][:, index] ** power, own)
    for norm, marks in products.items():
        for color, depth in enumerate(depths):
            own = _products(found[norm], depths[color : color + 1])[:, 0] if len(seen) else None
            both(marks, f"d = {depth}", color, prediction[f"{norm}_product"][color], own)
    if len(seen):
        products["spectral"].append(figures.Points(seen, found["loss"], label="initial loss", color="ink"))
    how: dict[str, Any] = {"xlabel": "width H", "xscale": "log2", "yscale": "log"}
    return figures.Chart.of(
        settings, "Norms of fresh networks as they grow wider, beside what theory says of them.",
        figures.Panel("Norms of three layers", layers, **how),
        figures.Panel("∏‖Z_k‖_F² grows as Hᵈ⁻²", products["frobenius"], **how),
        figures.Panel("∏‖Z_k‖₂, and the initial loss", products["spectral"], **how),
    )  # fmt: skip


def _measured(run: Run, name: str) -> np.ndarray:
    """(S, T) or (S, T, d): a value over the widths, once all have been reached."""
    return common.history(run.frames, name, len(run.prediction["widths"]))


def _reached(run: Run) -> Check:
    ratio = float(run.prediction["inputs"] / run.prediction["widths"][-1])
    return Check("inputs n / width H at the widest", ratio, LEAST, "raise widest")


def _last_octaves(run: Run, norms: np.ndarray) -> np.ndarray:
    """Exponents in H over the last two octaves, (S, ENDS): (S, T, d)."""
    widths, last = run.prediction["widths"][-3:], norms[:, -3:]
    hidden = np.exp(np.log(last[..., 1:-1]).mean(-1))
    return exponent(widths, np.stack([last[..., 0], hidden, last[..., -1]], axis=1))


def _norms(run: Run) -> tuple[Evidence, ...]:
    prediction, reached = run.prediction, (_reached(run),)
    frobenius, spectral = _measured(run, "frobenius"), _measured(run, "spectral")
    relative, ratio = frobenius / prediction["frobenius"] - 1, spectral / prediction["spectral"]
    return (
        Evidence(np.abs(relative) / prediction["frobenius_sd"],
                 note=f"at the widest within {np.abs(relative[:, -1]).max():.1%} of the mean"),
        Evidence(np.abs(spectral - prediction["spectral"]) / prediction["sds"],
                 note=f"at the widest {ratio[:, -1].min():.3f} to {ratio[:, -1].max():.3f} of σ(√n₁ + √n₂)"),
        Evidence(_last_octaves(run, np.sqrt(frobenius)), np.array([0.0, 0.5, 0.0]), checks=reached),
        Evidence(_last_octaves(run, spectral), checks=reached),
    )  # fmt: skip


def _frobenius_product(run: Run) -> tuple[Evidence, Evidence]:
    prediction, depths = run.prediction, run.prediction["depths"]
    products = _products(_measured(run, "frobenius"), depths)
    sd = np.sqrt(np.stack([
        (prediction["frobenius_sd"][:, : int(d) - 1] ** 2).sum(-1) + prediction["frobenius_sd"][:, -1] ** 2
        for d in depths
    ]))  # fmt: skip
    missed = np.abs(np.log(products / prediction["frobenius_product"])) / sd
    last = theory.local_exponent(prediction["widths"][-2:], products[..., -2:])[..., 0]
    exact = theory.local_exponent(prediction["widths"][-2:], prediction["frobenius_product"][:, -2:])[:, 0]
    listed = ", ".join(
        f"d = {d}: {m:.2f} ({e:.2f})" for d, m, e in zip(depths, last.mean(0), exact, strict=True)
    )
    return (
        Evidence(missed),
        Evidence(last - (depths - 2), checks=(_reached(run),), note=f"measured (exact): {listed}"),
    )


def _spectral_product(run: Run) -> Evidence:
    widths, depths = run.prediction["widths"][-3:].astype(float), run.prediction["depths"]
    products = _products(_measured(run, "spectral"), depths)[..., -3:]
    return Evidence(exponent(widths, products), checks=(_reached(run),))


def _initial_loss(run: Run) -> tuple[Evidence, Evidence]:
    gain, loss, output = (_measured(run, name) for name in ("gain", "loss", "output"))
    product = _measured(run, "spectral").prod(-1)
    slope = exponent(run.prediction["widths"], output).mean()
    note = (
        f"loss {loss.min():.3f} to {loss.max():.3f}, nearly all of it the labels' own: "
        f"the mean of f² changes as H^{slope:.2f}"
    )
    return Evidence(gain, product), Evidence(loss, _measured(run, "loss_bound"), note=note)


def _untrained(run: Run) -> tuple[Evidence, Evidence, Evidence]:
    gap, widths = _measured(run, "gap"), run.prediction["widths"]
    # A network that is wrong everywhere has no gap at all.
    seen = np.maximum(gap, 1e-12)
    in_m, in_width = exponent(np.array(SAMPLES), seen), exponent(widths, seen.swapaxes(1, 2))
    listed = ", ".join(f"{value:.3f}" for value in gap.mean((0, 1)))
    note = f"at m = {', '.join(map(str, SAMPLES))}: {listed}"
    return Evidence(gap, 0.5 / np.sqrt(SAMPLES), note=note), Evidence(in_m), Evidence(in_width)


FAN_IN = World("σ_k = 1/√n_(k−1): the first layer’s norms grow with H", {"init": "lecun", "widest": 1280})
D1 = Claim(
    "D1", "prediction",
    "Before training E‖Z_k‖_F² = n_k·n_(k−1)·σ_k² exactly, so that ‖Z₁‖_F = Θ(√n), ‖Z_k‖_F = Θ(√H), "
    "‖Z_d‖_F = Θ(1); and ‖Z_k‖₂ is near σ_k(√n_k + √n_(k−1)), so that no ‖Z_k‖₂ depends on H in the limit.",
    "paper 1, Cor. A.2.1",
    (Between("‖Z_k‖_F² off its mean, in its standard deviations", high=SIGMAS, by=EVERY),
     Between("‖Z_k‖₂ off σ_k(√n_k + √n_(k−1)), in σ_k", high=NEAR, by=EVERY),
     Equals("exponent of ‖Z_k‖_F in H, last two octaves", ENDS, tolerance=0.1, absolute=True),
     # ‖Z₁‖₂ falls to its limit as 1 + √(n/H), and ‖Z_d‖₂ as 1 + √(K/H).
     Between("exponent of ‖Z_k‖₂ in H, last two octaves", ENDS, low=-0.15, high=0.05, by=EVERY)),
    _norms, "holds",
    {"holds": "both norms of every layer are where shapes and standard deviations put them, "
              "and no spectral norm grows with H",
     "fails": "a norm is not where shape and standard deviation put it, or a spectral norm grows with H",
     "undecided": "the widest network is too narrow to see an exponent"},
    (FAN_IN,),
)  # fmt: skip
D2 = Claim(
    "D2", "prediction",
    "Before training ∏‖Z_k‖_F² lies on an exact curve, and its exponent in H comes to d − 2.",
    "paper 1, Prop. 6.1",
    (Between("∏‖Z_k‖_F² off the exact curve, in its standard deviations", high=SIGMAS, by=EVERY),
     Between("exponent of ∏‖Z_k‖_F² in H, last octave, minus (d − 2)", low=-0.15, high=0.15, by=EVERY)),
    _frobenius_product, "holds",
    {"holds": "the product follows the exact curve at every width and depth, and its exponent comes to d − 2",
     "fails": "the product leaves the exact curve, or its exponent does not come to d − 2",
     "undecided": "the widest network is too narrow to see the power law"},
    (FAN_IN,),
)  # fmt: skip
D3 = Claim(
    "D3", "prediction",
    "Before training ∏‖Z_k‖₂ is flat in H at every depth: H^(d−1)·∏‖Z_k‖₂ grows by its prefactor alone.",
    "paper 1, §6",
    (Between("exponent of ∏‖Z_k‖₂ in H, last two octaves", low=-0.2, high=0.2, by=EVERY),),
    _spectral_product, "holds",
    {"holds": "∏‖Z_k‖₂ is flat in H at every depth: all growth is the factor H^(d−1)",
     "fails": "∏‖Z_k‖₂ is not flat in H",
     "undecided": "the widest network is too narrow to see the power law"},
    (FAN_IN,),
)  # fmt: skip
D8 = Claim(
    "D8", "theorem",
    "Before training ‖f(x)‖ ≤ ∏‖Z_k‖₂·‖x‖ at every image, so that the squared loss is at most "
    "(∏‖Z_k‖₂·max‖x‖ + 1)²/K, in which H does not appear.",
    "paper 1, Cor. C.1.1",
    (AtMost("largest ‖f(x)‖/‖x‖ under ∏‖Z_k‖₂"), AtMost("initial squared loss under its bound")),
    _initial_loss, "holds",
    {"holds": "the untrained network stretches no image by more than the product, and its loss is below its "
              "bound",
     "fails": "an output or the initial loss exceeds its bound"},
)  # fmt: skip
D22 = Claim(
    "D22", "theorem",
    "The share of wrong images of an untrained network on m drawn images is off that on all by at most "
    "1/(2√m) in the root mean square, at every H.",
    "paper 1, Prop. 6.1",
    (AtMost("generalisation error before training, root mean square over draws"),
     Between("its exponent in m, a width each", low=-0.65, high=-0.35, by=EVERY),
     Between("its exponent in H", tuple(f"m = {m}" for m in SAMPLES), low=-0.25, high=0.25, by=EVERY)),
    _untrained, "holds",
    {"holds": "before training the gap falls as 1/√m and knows nothing of the width, whatever the norms say",
     "fails": "the gap of an untrained network exceeds 1/(2√m), or depends on the width"},
)  # fmt: skip

INITIALIZATION = Experiment(
    "initialization", "What do the norms of an untrained network say?", Initialization,
    {"quick": Initialization(), "paper": Initialization(widest=5120, dataset="mnist", n=1000, seeds=5)},
    prepare, predict, run, figure, (D1, D2, D3, D8, D22),
    controls=("widest", "matrices", "init", "n", "classes"),
)  # fmt: skip
