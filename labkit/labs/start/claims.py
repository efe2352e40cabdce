"""One claim a lens: two theorems about every network, and three predictions for wide ones (see `lenses`)."""

from __future__ import annotations

import numpy as np

from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Run
from labkit.protocol.rules import EVERY, AtMost, Between, Check, Condition, Equals, Evidence

AT_MINIMUM = 0.025  # the mean loss below which the network counts as fitted: half the rise of the radius
STILL = 0.5  # how far the kernel may move, relative, to count as still


def _looked(run: Run, *names: str) -> list[np.ndarray]:
    """Values at every look, (S, looks) each."""
    found = [run.series(name)[1].T for name in names]
    if not found[0].size:
        raise KeyError(names[0])
    return found


def _from_the_start(run: Run) -> Evidence:
    spectral, ceiling, frobenius = _looked(run, "spectral", "ceiling", "frobenius")
    end = ceiling[:, -1].mean(), frobenius[:, -1].mean()
    return Evidence(
        spectral, ceiling, vacuous=bool((ceiling[:, -1] >= frobenius[:, -1]).any()),
        note=f"at the end {spectral[:, -1].mean():.3g} ≤ {end[0]:.3g}; "
        f"the layers' norms from the origin give {end[1]:.3g}",
    )  # fmt: skip


def _margins_ask(run: Run) -> Evidence:
    spectral, floor = _looked(run, "spectral", "floor")
    return Evidence(
        floor, spectral, vacuous=bool((floor[:, -1] <= 0).any()),
        note=f"at the end the nearest images of different labels ask for {floor[:, -1].mean():.3g}, "
        f"and the norms give {spectral[:, -1].mean():.3g}",
    )  # fmt: skip


def _flat(run: Run) -> Evidence:
    radius, loss = run.last("radius"), run.last("loss")
    return Evidence(
        radius, run.prediction["radius"],
        checks=(Check("no minimum reached: mean loss", float(loss.max()), AT_MINIMUM,
                      "raise steps, or the learning rate"),),
        note=f"ratio {', '.join(f'{ratio:.2f}' for ratio in radius / run.prediction['radius'])}",
    )  # fmt: skip


def _linear(run: Run) -> Evidence:
    names = ("information", "nuisance")
    measured = np.stack(_looked(run, *names), axis=1)
    predicted = np.stack([run.prediction[name] for name in names], axis=1)[:, :, : measured.shape[2]]
    kernel = float(run.last("kernel").max())
    return Evidence(
        measured, predicted,
        conditions=(Condition("learning rate × λ₁²", run.settings.lr, 1.0),
                    Condition("the kernel has moved, relative", kernel, STILL)),
        note=f"largest difference {np.abs(measured - predicted).max():.2g} of ‖r₀‖; "
        f"the kernel has moved by {kernel:.0%}",
    )  # fmt: skip


def _opposed(run: Run) -> tuple[Evidence, Evidence]:
    eta, least, smallest = _looked(run, "eta", "eta_least", "smallest")
    at = np.searchsorted(run.prediction["steps"], run.series("smallest")[0])
    apart = np.abs(smallest - run.prediction["smallest"][:, at]).mean(axis=1)
    return (
        Evidence(least, eta, vacuous=bool((least[:, -1] <= 0).any())),
        Evidence(
            apart,
            note=f"smallest cosine {smallest[:, 0].mean():.2f} at the start, {smallest[:, -1].mean():.2f} at "
            "the end",
        ),
    )  # fmt: skip


NARROW = {"width": 16}
L1 = Claim(
    "L1", "theorem",
    "∏‖W_k‖₂ ≤ ∏(‖Z_k‖₂ + ‖W_k − Z_k‖_F): the start and the distance from it bound what the network can do, "
    "at every step.",
    "paper 1, Prop. 6.2",
    (AtMost("∏‖W_k‖₂"),), _from_the_start,
    says={"holds": "start and distance bound the norms; vacuous if the norms from the origin say more",
          "fails": "the norms exceed what start and distance allow"},
)  # fmt: skip
L2 = Claim(
    "L2", "theorem",
    "Margins need norms: (γ_i + γ_j)/(√2‖x_i − x_j‖) ≤ ∏‖W_k‖₂ for all images of different labels, as the "
    "product bounds the Lipschitz constant.",
    "paper 2, eq. 2 and §2.3",
    (AtMost("Lipschitz constant that the margins ask for"),), _margins_ask,
    says={"holds": "no two images are kept further apart than the norms allow",
          "fails": "two images are kept further apart than the norms allow"},
)  # fmt: skip
L3 = Claim(
    "L3", "prediction",
    "Around a minimum of a wide network the loss rises by r²‖J₀u‖²/2n along a direction u, so that its "
    "flatness radius is known at the start.",
    "paper 3, eq. 16; with J₀ for J: paper 4, Def. 5.1",
    (Equals("radius at which the loss is 0.05 higher", tolerance=0.15),), _flat,
    says={"holds": "the minimum is as flat as the start said",
          "fails": "the minimum is not as flat as the start said",
          "undecided": "no minimum was reached, so there is nothing to measure around"},
    worlds=(
        World("labels drawn anew, 32 hidden units", {"label_noise": 1.0, "width": 32, "steps": 1500}),
    ),
)  # fmt: skip
L4 = Claim(
    "L4", "prediction",
    "The residual on the information and the nuisance space follows (I − ηJ₀J₀ᵀ)^τ r₀ while the kernel "
    "stands still.",
    "paper 4, (5.11) and Lemma 6.7",
    (Equals("‖Π r‖/‖r₀‖ on I and on N, at every step", tolerance=0.06, absolute=True),), _linear,
    says={"holds": "both parts of the residual follow the curves drawn beforehand",
          "fails": "the kernel stands still, and yet the residual leaves its curves",
          "out of regime": "too fast a step, or a kernel that moved: nothing is promised"},
    worlds=(World("16 hidden units", NARROW, word="out of regime"),),
)  # fmt: skip
L5 = Claim(
    "L5", "prediction",
    "Near a stationary point gradients must oppose each other: η ≥ (mean‖g_i‖² − N‖∇F‖²)/(N − 1); and the "
    "smallest cosine is that of r_iᵀ(J₀J₀ᵀ)_ij r_j.",
    "paper 5, Def. 2.1; with J₀ for J: paper 4, Def. 5.1",
    (
        AtMost("least η that the mean gradient allows"),
        Between("smallest cosine, mean distance from its curve", high=0.05, by=EVERY),
    ),
    _opposed,
    says={"holds": "gradients come to oppose each other, as far as the start said",
          "fails": "gradients oppose each other less, or not as far, as the start said"},
    worlds=(World("16 hidden units", NARROW),),
)  # fmt: skip

CLAIMS = (L1, L2, L3, L4, L5)
