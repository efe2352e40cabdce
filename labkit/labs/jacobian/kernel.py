"""What is the Jacobian at random initialisation?
Def. 2.1 and Lemma 6.11 (J1), both layers trained (J16, App. B).

Rows of J for the network (1.1) are V[l, s]·φ'(w_s·x_i)·x_i, so JJᵀ is (BBᵀ) ∘ (XXᵀ) with B[(i, l), s] = V[l,
s]φ'(w_s·x_i); over random V and W its mean is ν²Σ(X). The average of k independent terms misses its mean by
about 1/√k.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from labkit import data, figures, models
from labkit.labs import common
from labkit.labs.jacobian import shared
from labkit.measure import dense_jacobian, jacobian
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import AtMost, Equals, Evidence
from labkit.protocol.settings import Settings, knob, on_cpu
from labkit.protocol.statistics import exponent
from labkit.theory import jacobian as theory
from labkit.theory import kernels

ACTIVATIONS = ("relu", "softplus")


@dataclass(frozen=True)
class Kernel(Settings):
    n: int = knob(30, "points on the unit sphere", slider=(5, 60), bounds=(2, 500), step=5)
    inputs: int = knob(10, "input dimension d", slider=(2, 50), bounds=(1, None), step=1)
    classes: int = knob(3, "outputs K", slider=(1, 6), bounds=(1, None), step=1)
    widest: int = knob(31_623, "largest width k", slider=(1000, 100_000), bounds=(200, None), scale="log")
    output_std: float = knob(
        1.0, "ν: the output layer has variance ν²/k", slider=(0.1, 3), bounds=(1e-6, None), label="ν"
    )
    device: str = on_cpu()


def prepare(settings: Kernel) -> common.Setup:
    seeds = common.seeds(settings)
    points = tuple(data.sphere(settings.n, settings.inputs, seed=seed, dtype=torch.float64) for seed in seeds)
    return common.Setup(settings, points)


def predict(setup: common.Setup) -> Prediction:
    """ν²Σ(X) for each seed and activation, in labkit's row order,
    and the 1/√k line through nothing measured.
    """
    settings = setup.settings
    widths = np.unique(np.geomspace(100, settings.widest, 6).round().astype(int))
    found = {"widths": widths}
    for name in ACTIVATIONS:
        limits = [kernels.mntk_full(x.numpy(), settings.classes, name) for x in setup.sets]
        found[f"kernel_{name}"] = settings.output_std**2 * np.stack(limits)
    return found


def run(setup: common.Setup, prediction: Prediction) -> Iterator[Frame]:
    settings, widths = setup.settings, prediction["widths"].tolist()
    for index, width in enumerate(widths):
        values: dict[str, np.ndarray] = {}
        for name in ACTIVATIONS:
            errors = []
            for seed, x in enumerate(setup.sets):
                gram = jacobian(_model(settings, width, name, settings.seed + seed), x).gram().numpy()
                kernel = prediction[f"kernel_{name}"][seed]
                errors.append(np.linalg.norm(gram - kernel) / np.linalg.norm(kernel))
                yield Frame.tick(width, (index + 0.5) / len(widths))
            values[f"error_{name}"] = np.array(errors)
        yield Frame(width, values, (index + 1) / len(widths))
    yield Frame(widths[-1], _joint(setup), 1.0, "done")


def _model(
    settings: Kernel, width: int, activation: str, seed: int, *, train_readout: bool = False
) -> models.OneHidden:
    return models.one_hidden(
        settings.inputs, width, settings.classes, activation=activation, output_std=settings.output_std,
        readout="gaussian", seed=seed, dtype=torch.float64,
        train_readout=train_readout,
    )  # fmt: skip


def _joint(setup: common.Setup, width: int = 60) -> dict[str, np.ndarray]:
    """Both layers trained, at a small width:
    the blocks of J and the quantities of Thm B.1, from a dense Jacobian.
    """
    settings, found = setup.settings, []
    for seed, x in enumerate(setup.sets):
        model = _model(settings, width, "softplus", settings.seed + seed, train_readout=True)
        joint = dense_jacobian(model, x)
        inner = dense_jacobian(_model(settings, width, "softplus", settings.seed + seed), x)
        # Output layer: row (i, l) is φ(W x_i) in block l, nothing elsewhere.
        hidden = model.phi(x @ model.W.T).detach()
        outer = torch.kron(torch.eye(settings.classes, dtype=x.dtype), hidden)
        outer = outer.reshape(settings.classes, settings.n, -1).transpose(0, 1).reshape(len(joint), -1)
        blocks = {"W": inner, "V": outer}
        assembled = torch.cat([blocks[name] for name, _ in model.named_parameters()], dim=1)
        sizes = settings.classes, width, float(model.V.detach().abs().max())
        norms = float(torch.linalg.matrix_norm(model.W.detach())), float(torch.linalg.matrix_norm(x, 2))
        found.append(
            {
                "block_error": float((joint - assembled).abs().max()),
                "joint_norm": float(torch.linalg.matrix_norm(joint, 2)),
                "joint_bound": theory.joint_jacobian_bound(
                    1.0, *sizes, *norms, phi0=float(np.log(2)), n=settings.n
                ),
            }
        )
    return common.stacked(found)


def figure(frames: Frames, prediction: Prediction, settings: Kernel | None = None) -> figures.Chart:
    widths, kernel = prediction["widths"], prediction["kernel_relu"][0]
    told = dict.fromkeys(ACTIVATIONS, ("−½", np.sqrt(widths[0] / widths)))
    return figures.Chart.of(
        settings, "How the tangent kernel at the start nears its limit with the width, and that limit.",
        figures.Panel(
            "How far is JJᵀ from ν²Σ(X)?", shared.slopes(frames, widths, "error", told),
            ylabel="relative error", **shared.width_axis(widths),
        ),
        figures.Panel(
            "ν²Σ(X): one block a class, interleaved", (figures.Raster(kernel, diverging=True),),
            xlabel="row i·K + k", ylabel="row i·K + k",
        ),
    )  # fmt: skip


def _falls_as_root_width(run: Run) -> Evidence:
    slopes, constants = [], []
    for name in ACTIVATIONS:
        widths, errors = run.series(f"error_{name}")
        slopes.append(exponent(widths, errors.T))
        constants.append(f"{name} {(errors * np.sqrt(widths)[:, None]).mean():.2g}")
    return Evidence(np.stack(slopes, axis=1), -0.5, note=f"relative error·√k: {', '.join(constants)}")


def _joint_blocks(run: Run) -> tuple[Evidence, Evidence]:
    return Evidence(run.last("block_error"), 0.0), Evidence(run.last("joint_norm"), run.last("joint_bound"))


J1 = Claim(
    "J1", "prediction",
    "At random initialisation JJᵀ approaches ν²Σ(X), Σ(X) = I_K ⊗ (XXᵀ ∘ E[φ'(Xw)φ'(Xw)ᵀ]): "
    "a network of width k misses it by about 1/√k.",
    "paper 4, Def. 2.1 and Lemma 6.11",
    (Equals("exponent in k of ‖JJᵀ − ν²Σ(X)‖_F", ACTIVATIONS, tolerance=0.15, absolute=True),),
    _falls_as_root_width,
    says={"holds": "JJᵀ approaches the kernel as one over the root of the width, for ReLU and softplus",
          "fails": "JJᵀ does not approach the kernel as one over the root of the width"},
    worlds=(
        World("the rows of J in another order", faults={f"{__name__}:jacobian": shared.shuffled_rows}),
    ),
)  # fmt: skip
J16 = Claim(
    "J16", "theorem",
    "With both layers trained the Jacobian is the input part beside the block-diagonal output part, "
    "and ‖J‖ ≤ B‖X‖(‖W‖_F + √(Kk)‖V‖_∞) + |φ(0)|√(nk).",
    "paper 4, (B.2) and Thm B.1",
    (Equals("largest entry of J minus its blocks", tolerance=1e-10, absolute=True), AtMost("‖J‖")),
    _joint_blocks,
    says={"holds": "the blocks agree with the dense Jacobian and the spectral bound holds",
          "fails": "a block or the bound is wrong"},
)  # fmt: skip

KERNEL = Experiment(
    "kernel", "What is the Jacobian of a wide random network?", Kernel,
    {"quick": Kernel(), "paper": Kernel(n=60, inputs=20, widest=100_000, seeds=5)},
    prepare, predict, run, figure, (J1, J16), controls=("n", "inputs", "classes", "widest"),
)  # fmt: skip
