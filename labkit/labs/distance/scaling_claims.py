"""What `scaling` is judged by (D11, D12, D14 to D16, D18 to D21)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from labkit import training
from labkit.labs import common
from labkit.labs.distance import shared
from labkit.labs.distance.scaling_panels import NUMBERS, SWEEPS, agreement
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Run
from labkit.protocol.rules import EVERY, AtMost, Between, Check, Equals, Evidence
from labkit.protocol.statistics import exponent
from labkit.theory import pac_bayes

OCTAVES = ("narrowest", "× 2", "× 4", "× 8")
SIGMAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)  # of the PAC-Bayes noise; a union bound pays for the choice
DELTA = 0.05


def _stopped(run: Run, *sweeps: str) -> tuple[Check, ...]:
    """Distances compare at equal loss only.

    Raises:
        KeyError: not all networks have been trained yet.
    """
    reached = [run.last(f"reached_{sweep}") for sweep in sweeps]
    if any(np.isnan(one).any() for one in reached):
        raise KeyError("reached")
    return tuple(shared.missed(one) for one in reached)


def _grows(run: Run, phase: str) -> Evidence:
    r, x = run.last(f"r_{phase}"), run.prediction[SWEEPS[phase][0]]
    return Evidence(shared.growth(x, r), checks=_stopped(run, phase), note=f"r = {common.means(r, '.2f')}")


def _origin(run: Run) -> tuple[Evidence, Evidence]:
    widths, curve, checks = run.prediction["widths"], run.prediction["origin"], _stopped(run, "by_width")
    origin, r = run.last("origin_by_width"), run.last("r_by_width")
    found, exact = exponent(widths, origin).mean(), exponent(widths, curve)[0]
    slopes, share = f"exponent in H {found:.3f}, of the curve {exact:.3f}", r / origin
    return (
        Evidence(origin, curve, checks=checks, note=slopes),
        Evidence(shared.growth(widths, share), checks=checks, note=f"r/‖W‖ = {common.means(share)}"),
    )


def _pac_bayes(run: Run) -> Evidence:
    """Bound (5) at every σ, paid for by a union bound; with the prior at the start, the KL is r²/2σ²."""
    middle, m = len(run.prediction["widths"]) // 2, run.settings.n
    rates, test = run.last("noisy_error"), run.last("noisy_test_error")
    r, origin = (run.last(f"{name}_by_width")[:, middle, None] for name in ("r", "origin"))
    at_start, at_origin = (
        pac_bayes.pac_bayes_bound(rates, far**2 / (2 * np.array(SIGMAS) ** 2), m, DELTA / len(SIGMAS))
        for far in (r, origin)
    )
    least = [bound.min(axis=1).mean() for bound in (at_start, at_origin)]
    note = f"at the best of {len(SIGMAS)} σ the bound is {least[0]:.2f}, with the prior at 0 {least[1]:.2f}"
    checks = _stopped(run, "by_width")
    return Evidence(test, at_start, checks=checks, vacuous=bool(at_start.min() >= 1), note=note)


def _gap(run: Run) -> Evidence:
    widths, gap = run.prediction["widths"], run.last("gap_by_width")
    ends, wrong = common.means(gap, ".4f"), common.means(run.last("error_by_width"))
    norm = exponent(widths, run.last("origin_by_width")).mean()
    note = f"test loss − training loss {ends}; exponent of ‖W‖ {norm:.2f}; test images wrong {wrong}"
    return Evidence(shared.growth(widths, gap), checks=_stopped(run, "by_width"), note=note)


def _knows(run: Run) -> Evidence:
    found, checks = agreement(run), _stopped(run, *SWEEPS)
    others = np.max([one for name, one in found.items() if name != "r"], axis=0)
    listed = ", ".join(f"{NUMBERS[name]} {one.mean():.2f}" for name, one in found.items())
    return Evidence(found["r"] - others, checks=checks, note=f"correlations {listed}")


def _one_by_one(run: Run) -> tuple[Evidence, Evidence, Evidence]:
    checks = _stopped(run, *SWEEPS)
    wrong = exponent(run.prediction["widths"], np.maximum(run.last("error_by_width"), 1e-6))
    by_noise, by_size = (agreement(run, (phase,))["r"] for phase in ("by_noise", "by_size"))
    d, m, r = run.settings.depth + 1, run.prediction["sizes"], run.last("r_by_size")
    paid = shared.growth(m, (1 + r) ** d / np.sqrt(m)).mean()
    note = f"(r + 1)^d/√m changes as m^{paid:.2f}"
    return (
        Evidence(wrong, checks=checks), Evidence(by_noise, checks=checks),
        Evidence(by_size, checks=checks, note=note),
    )  # fmt: skip


def _another_start(run: Run) -> tuple[Evidence, Evidence]:
    widths, checks = run.prediction["widths"], _stopped(run, "by_width")
    other, r = run.last("other_by_width"), run.last("r_by_width")
    apart = shared.growth(widths, other) - shared.growth(widths, r)
    two_draws = np.sqrt(2) * run.prediction["origin"]
    return (
        Evidence(other, two_draws, checks=checks, note=common.means(other, ".1f")),
        Evidence(apart, checks=checks),
    )


def _over_width(run: Run) -> tuple[Evidence, Evidence, Evidence]:
    widths, checks = run.prediction["widths"], _stopped(run, "by_width")
    found = {
        name: shared.growth(widths, run.last(f"{name}_by_width"))
        for name in ("spectral", "with_r", "frobenius", "prefixed")
    }
    looser = (run.last("with_r_by_width") / run.last("spectral_by_width")).mean(axis=0)
    note = f"the bound is {looser[0]:.0f} times ∏‖W‖₂ at the narrowest, {looser[-1]:.0f} at the widest"
    from_origin = np.stack([found["frobenius"], found["prefixed"]], axis=1)
    return (
        Evidence(found["spectral"], checks=checks), Evidence(found["with_r"], checks=checks, note=note),
        Evidence(from_origin, checks=checks),
    )  # fmt: skip


def _penalized(generalization: Callable[..., Any]) -> Callable[..., Any]:
    """A fault to plant: a weight penalty in the test loss that the training loss does not have."""

    def with_penalty(ensemble: training.Ensemble, *rest: Any) -> dict[str, np.ndarray]:
        found = generalization(ensemble, *rest)
        penalty = 1e-4 * shared.from_origin(ensemble.weights()).cpu().numpy() ** 2
        return found | {"gap": found["gap"] + penalty}

    return with_penalty


NOT_MOVED = World("the distance from the start replaced by zero", faults=shared.WITHOUT_DISTANCE)
RANDOM = World("random labels", {"label_noise": 1.0, "width": 80, "seeds": 10})
FORGOTTEN = World("the distance measured from the origin", faults=shared.FROM_ORIGIN)
CLAIMS = (
    Claim(
        "D11", "finding",
        "At equal loss the distance from the start falls as the width grows, more slowly than H^−½.",
        "paper 1, §4, Figs 1-4 (c)",
        (Between("exponent of r in H", low=-0.5, high=-0.05, by=EVERY),),
        common.Given(_grows, "by_width"), "holds",
        {"holds": "the distance from the start falls with the width",
         "fails": "the distance from the start does not fall with the width, or vanishes",
         "undecided": "a training missed its stop"},
        (FORGOTTEN, NOT_MOVED),
    ),
    Claim(
        "D12", "finding",
        "On true labels the distance from the start grows with the sample size, by a power between m^0.2 and "
        "m^0.4: the paper's m^(0.25 to 0.4), with 0.05 less below for another data set and smaller m.",
        "paper 1, §4, Figs 1-4 (d)", (Between("exponent of r in m", low=0.2, high=0.4),),
        common.Given(_grows, "by_size"), "holds",
        {"holds": "the exponent in m lies in the paper's interval, or 0.05 below it at most",
         "fails": "the exponent in m lies outside the paper's interval",
         "undecided": "the exponent in m is at the interval's edge, or a training missed its stop"},
        (RANDOM, NOT_MOVED),
    ),
    Claim(
        "D14", "prediction",
        "After training the distance from the origin is still on the curve of the start, "
        "(Σ n_k·n_(k−1)·σ_k²)^½, which tends to √H; measured in r it grows at least as √H.",
        "paper 1, §5 and §6",
        (Equals("‖(W, B)‖ against the exact curve of ‖Z‖", OCTAVES, tolerance=0.1),
         Between("exponent of r/‖(W, B)‖ in H", low=-1.0, high=-0.5, by=EVERY)), _origin, "holds",
        {"holds": "training hardly shows in the distance from the origin, and r is a falling share of it",
         "fails": "the distance from the origin leaves the curve of the start, or r keeps up with it",
         "undecided": "a training missed its stop"},
        (RANDOM, NOT_MOVED),
    ),
    Claim(
        "D15", "theorem",
        "With a Gaussian prior around the start, whose KL is r²/2σ², the test error under weight noise is "
        "below the PAC-Bayes bound at every σ.", "paper 1, §5",
        (AtMost("test error under weight noise"),), _pac_bayes, "holds",
        {"holds": "no test error exceeds the bound that the distance from the start gives",
         "fails": "a test error exceeds the bound",
         "undecided": "a training missed its stop"},
        (NOT_MOVED,),
    ),
    Claim(
        "D16", "finding",
        "The generalisation error (test loss minus training loss) rises with an exponent in H below 0.05: by "
        "less than an eighth over eight times the width.",
        "paper 1, Figs 2-4 (a, b)", (Between("exponent of the generalisation error in H", high=0.05),),
        _gap, "holds",
        {"holds": "the generalisation error does not rise with the width",
         "fails": "the generalisation error rises with the width",
         "undecided": "the seeds are too few to tell a rise from none, or a training missed its stop"},
        (World("a weight penalty counted in the test loss alone",
               faults={"labkit.labs.distance.scaling:_generalization": _penalized}),),
    ),
    Claim(
        "D18", "finding",
        "Over widths, sample sizes and shares of noise together, the generalisation error goes with the "
        "distance from the start better than with any of three norms from the origin.",
        "paper 1, §1 and §6",
        (Between("correlation of log r with log error, minus the best of ‖W‖, ∏‖W‖_F², H^(d−1)∏‖W‖₂",
                 low=0.1, by=EVERY),),
        _knows, "holds",
        {"holds": "of four numbers the distance from the start agrees best with the generalisation error",
         "fails": "another number agrees as well with the generalisation error",
         "undecided": "a training missed its stop"},
        (FORGOTTEN, NOT_MOVED),
    ),
    Claim(
        "D19", "finding",
        "One by one: over widths the share of wrong test images falls, as r does; over shares of noise the "
        "generalisation error grows with r; over sample sizes it falls while r grows.",
        "paper 1, §5",
        (Between("exponent of the share of wrong test images in H", high=0.0),
         Between("correlation of log r with log error over noise", low=0.5, by=EVERY),
         Between("the same over sample sizes", high=-0.5, by=EVERY)),
        _one_by_one, "holds",
        {"holds": "r orders widths and noise as the error does, and sample sizes the other way round",
         "fails": "r does not order widths and noise as the error does, or orders sample sizes so, too",
         "undecided": "the seeds are too few to tell, or a training missed its stop"},
        (NOT_MOVED,),
    ),
    Claim(
        "D20", "prediction",
        "Measured from another draw of the start the same end points lie at √2 times the exact curve of ‖Z‖, "
        "which tends to √H.",
        "paper 1, Def. 3.1, Lemma B.1",
        (Equals("distance from another start against √2·‖Z‖, exact", OCTAVES, tolerance=0.1),
         Between("its exponent in H, minus that of r", low=0.4, by=EVERY)),
        _another_start, "holds",
        {"holds": "what is near its own start is as far from another one as any two starts are",
         "fails": "the end points are not where two independent draws put them",
         "undecided": "a training missed its stop"},
        (FORGOTTEN, NOT_MOVED),
    ),
    Claim(
        "D21", "finding",
        "After training ∏‖W_k‖₂ and its bound ∏(‖Z_k‖₂ + r) do not grow with H; ∏‖W_k‖_F² and "
        "H^(d−1)·∏‖W_k‖₂ grow as H^(d−2) or faster.",
        "paper 1, Prop. 6.2 and §6",
        (Between("exponent of ∏‖W_k‖₂ in H", low=-0.2, high=0.2, by=EVERY),
         Between("exponent of ∏(‖Z_k‖₂ + r) in H", high=0.0, by=EVERY),
         Between("exponents of norms from the origin in H", ("∏‖W‖_F²", "H^(d−1)∏‖W‖₂"), low=3.0,
                 by=EVERY)),
        _over_width, "holds",
        {"holds": "what is measured from the start is free of the width, what is measured from 0 is not",
         "fails": "a product measured from the start grows with the width, or one from 0 does not",
         "undecided": "a training missed its stop"},
        (FORGOTTEN, NOT_MOVED),
    ),
)  # fmt: skip
