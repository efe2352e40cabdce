"""What is held of rescaling, and by which numbers: E2 to E5, E19, E20."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit.labs import common
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Run
from labkit.protocol.rules import EVERY, AtMost, Between, Condition, Equals, Evidence

EXACT = 1e-10  # relative; rounding stays near 1e-15
MOVES = 1.01  # what we call a change: by this factor or more, up or down
SEEN = 3.9  # the least factor, about .6 decades, of which we expect one
FAR = 2.0  # by this factor we say that a divergence is another


def moved_by(ratio: Any) -> Any:
    """By which factor a ratio left 1, up or down."""
    return np.maximum(ratio, 1 / np.maximum(ratio, 1e-300))


def _gauge(run: Run) -> tuple[Evidence, ...]:
    kinds, paths = ("units", "layer"), ("path_one", "path_two")
    outputs = [common.history(run.frames, "output").max(axis=1)]
    outputs += [run.last(f"{kind}_output") for kind in kinds]
    ratios = [common.history(run.frames, name) for name in paths]
    ratios += [run.last(f"{kind}_{name}")[:, None] for kind in kinds for name in paths]
    products = np.stack([run.last(f"layer_{name}") for name in ("frobenius", "spectral")], axis=1)
    names = ("units_frobenius", "units_spectral", "units_sharpness", "layer_sharpness")
    changes = np.stack([moved_by(run.last(name)) for name in names], axis=1)
    # A network that learned nothing may be dead, and then its loss depends on no unit; and under factors near
    # 1 the sharpness moves by less than its estimate is exact to.
    conditions = (
        Condition("training error", float(run.last("error").max()), 0.5),
        Condition("a factor that shows", SEEN, float(run.prediction["factor"][-1])),
    )
    return (
        Evidence(np.stack(outputs, axis=1), 0.0),
        Evidence(np.concatenate(ratios, axis=1), 1.0),
        Evidence(products, 1.0),
        Evidence(changes, conditions=conditions),
    )


def _one_pass(run: Run) -> tuple[Evidence, Evidence]:
    brute = run.last("brute_force")
    return Evidence(run.last("library"), brute), Evidence(run.last("one_pass"), brute)


def _bounds(run: Run) -> tuple[Evidence, Evidence]:
    """What is bounded as a share of its bound, at every factor."""
    paths = common.history(run.frames, "paths_of_one_output") / common.history(run.frames, "group_norms")
    local = common.history(run.frames, "local_lipschitz") / common.history(run.frames, "spectral_product")
    total = run.last("paths_of_all_outputs")
    return (
        Evidence(paths, 1.0, note=f"the paths of all outputs together: {total.mean():.3g} times ∏‖W‖₁,∞"),
        Evidence(local, 1.0),
    )


def _divergence(run: Run) -> Evidence:
    moves = [moved_by(run.last(f"{kind}_divergence")) for kind in ("units", "layer")]
    return Evidence(np.stack(moves, axis=1))


def _cells(run: Run) -> Evidence:
    apart, gamma = run.last("apart"), run.last("gamma")
    constants = [run.series(name)[1][0] for name in ("spectral_product", "local_lipschitz")]
    told = float(run.prediction["inputs"] * np.log10(constants[0] / gamma).mean())
    return Evidence(
        np.stack([math.sqrt(2) * C * apart / gamma for C in constants], axis=1),
        note=f"(∏‖W‖₂/γ)ⁿ = 10^{told:.0f}",
    )


def _fold(run: Run) -> Evidence:
    return Evidence(run.last("fold"), 0.0)


def _twice(measure: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: measure(torch.cat([x, x]))


E2 = Claim(
    "E2", "theorem",
    "Rescaling single units leaves the function and both path norms unchanged and changes ∏‖W‖_F², ∏‖W‖₂ "
    "and the sharpness; one factor for a whole layer leaves the products alone too, but not the sharpness.",
    "paper 2, §2.2 and §2.4",
    (
        Equals("relative change of the outputs", tolerance=EXACT, absolute=True),
        Equals("path norms, over those before", tolerance=EXACT),
        Equals(
            "products of norms with a whole layer rescaled, over those before", ("∏‖W‖_F²", "∏‖W‖₂"),
            tolerance=EXACT,
        ),
        Between(
            "factor by which it moves, up or down",
            ("∏‖W‖_F², units", "∏‖W‖₂, units", "sharpness, units", "sharpness, whole layer"),
            low=MOVES, by=EVERY,
        ),
    ),
    _gauge, "holds",
    {"holds": "function and path norms stay to rounding, products of norms and sharpness move",
     "fails": "something that must stay has moved, or something that must move has stayed",
     "out of regime": "a dead network, or factors too near one to show anything"},
)  # fmt: skip
E3 = Claim(
    "E3", "theorem", "One forward pass of ones through |W|^p gives the sum over all paths of ∏|w|^p.",
    "paper 2, §2.2",
    (
        Equals("sum over paths as the library has it", ("p = 1", "p = 2"), tolerance=EXACT),
        Equals("sum over paths by one pass of ones", ("p = 1", "p = 2"), tolerance=EXACT),
    ),
    _one_pass, "holds",
    {"holds": "one pass of ones equals the sum over all paths, for p = 1 and 2",
     "fails": "one pass and the sum over all paths differ"},
)  # fmt: skip
E4 = Claim(
    "E4", "theorem",
    "∏‖W‖₁,∞ is at least the ℓ₁-path norm of each output, "
    "and ∏‖W‖₂ at least the local Lipschitz constant.",
    "paper 2, §2.2 and §2.3",
    (
        AtMost("ℓ₁-path norm of one output, over ∏‖W‖₁,∞"),
        AtMost("local Lipschitz constant, over ∏‖W‖₂"),
    ),
    _bounds, "holds",
    {"holds": "both products are upper bounds, at every rescaling",
     "fails": "a product of norms was exceeded"},
)  # fmt: skip
E5 = Claim(
    "E5", "theorem", "Folding batch norm into the layer before it leaves the function unchanged.",
    "paper 2, App. A",
    (Equals("relative change of a VGG's outputs", tolerance=EXACT, absolute=True),), _fold, "holds",
    {"holds": "the folded VGG gives the same outputs to rounding", "fails": "folding changed the outputs"},
)  # fmt: skip

E19 = Claim(
    "E19", "finding",
    "The divergence at an expected sharpness of .05 is no property of the function: the largest factor on "
    f"single units, or on a whole layer, moves it {FAR:g}-fold or more.",
    "paper 2, §2.4 (sharpness and norm together)",
    (
        Between("factor by which KL at expected sharpness .05 moves", ("units", "whole layer"), low=FAR,
                by=EVERY),
    ),
    _divergence, "holds",
    {"holds": "sharpness and norm together know the weights, not the function alone",
     "fails": "the divergence at equal sharpness hardly moves under rescaling"},
    (World("factors near one", {"decades": 0.1, "seeds": 1}),),
)  # fmt: skip
E20 = Claim(
    "E20", "finding",
    "A Lipschitz constant controls no capacity here: in balls so small that it keeps the margin, (3), each "
    "training sample is alone, so that K is at least m; with ∏‖W‖₂, and with the largest local constant too.",
    "paper 2, §2.3, (3)",
    (
        Between("distance to the nearest sample, median, over the diameter γ/(√2 C) of a cell",
                ("C = ∏‖W‖₂", "C local"), low=1.0, by=EVERY),
    ),
    _cells, "holds",
    {"holds": "every sample needs a cell of its own: the cover is as large as the set, and says nothing",
     "fails": "cells hold several samples"},
    (World("every sample given twice", {"seeds": 1},
           {"labkit.labs.generalization.rescaling:distances": _twice}),),
)  # fmt: skip
