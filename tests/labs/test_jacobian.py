"""Lab 4 as a whole: every claim is decided as expected at the quick preset, and every claim can fail."""

from __future__ import annotations

import numpy as np
import pytest

from labkit.labs import load_lab
from labkit.protocol.experiment import Run, drain
from tests.labs.checks import (
    TrainingTests,
    Violation,
    changed,
    constant,
    quick_runs,
    replaced,
    same,
    swapped,
    verdict,
)

LAB = load_lab("jacobian")
CHEAP = {
    "kernel": {"widest": 300, "n": 6},
    "mixture": {"clusters": 3, "per_cluster": 3, "width": 50},
    "residuals": {"n": 24, "width": 32, "steps": 30, "rank": 5},
    "linearization": {"widest": 210, "steps": 10, "repeats": 1, "n": 12},
    "meta-theorem": {"width": 200, "n": 12, "rank": 4},
    "corruption": {"n": 30, "width": 16, "steps": 30, "rank": 10, "classes": 3},
    "cutoff": {"n": 24, "width": 32, "steps": 60},
    "alignment": {"n": 30, "width": 16, "steps": 20, "rank": 10, "classes": 3},
    "linear": {"n": 20, "inputs": 40, "rank": 3, "steps": 20},
    "spectrum": {"n": 10, "width": 16, "steps": 10, "lanczos_steps": 8, "classes": 3},
    "one-step": {"n": 60, "width": 20, "inputs": 3},
}
quick = quick_runs(LAB.experiments)


def _reversed_levels(run: Run, *names: str) -> Run:
    return changed(run, **{name: lambda v: v[:, ::-1] for name in names})


# What each claim must refuse: a run in which one thing is not as the paper says, one for each of its parts.
VIOLATED: dict[str, list[Violation]] = {
    "J1": [
        lambda run: changed(run, error_relu=constant(0.1)),
        lambda run: changed(run, error_softplus=np.sqrt),
    ],
    "J2": [
        lambda run: changed(run, clean_rank=lambda v: v + 3),
        lambda run: changed(run, clean_share=lambda v: v - 1e-6),
        lambda run: changed(run, clean_least=lambda v: v / 10),
        lambda run: changed(run, clean_largest=lambda v: v * 10),
    ],
    "J3": [
        lambda run: changed(run, single=lambda v: np.delete(v, 0, axis=1)),
        lambda run: changed(run, double=lambda v: v * np.sqrt(2)),
    ],
    "J4": [
        lambda run: changed(run, information=lambda v: v + 0.1),
        # Network and formula agree, on two parts that fall alike.
        lambda run: changed(run, **{
            name: constant(0.4)
            for part in ("information", "nuisance") for name in (part, f"prediction_{part}")
        }),
        lambda run: swapped(run, "information", "nuisance"),
    ],
    "J5": [
        lambda run: changed(run, deviation_softplus=constant(0.01)),
        lambda run: replaced(run, "deviation_relu", "deviation_softplus"),
    ],
    "J6": [
        lambda run: changed(run, deviation=lambda v: v + 100),
        lambda run: changed(run, moved=lambda v: v * 100),
        lambda run: changed(run, final=lambda v: v * 100),
    ],
    "J8": [
        lambda run: changed(run, residual=lambda v: v * 10),
        lambda run: changed(run, prediction_total=lambda v: v / 1000),
    ],
    "J9": [
        lambda run: changed(run, later_bound=lambda v: 1 / v),
        lambda run: changed(run, later_bound=lambda v: v * [1.0, 0.0] + [0.0, 2.5]),
    ],
    "J10": [
        lambda run: changed(run, risk=lambda v: v * 1.001),
        lambda run: changed(run, sampled=lambda v: v * 1.1),
        lambda run: changed(run, prediction_risk=lambda v: np.sort(v, axis=1)[:, ::-1], risk=same),
        lambda run: changed(run, prediction_information=lambda v: v[:, ::-1]),
        lambda run: changed(run, prediction_nuisance=lambda v: v[:, ::-1]),
    ],
    "J11": [
        lambda run: swapped(run, "initial_centred", "final_centred"),
        lambda run: _reversed_levels(run, "final_centred", "initial_centred"),
    ],
    "J12": [
        lambda run: changed(run, test_error=constant(0.4)),
        lambda run: changed(run, information=constant(0.5)),
        lambda run: swapped(run, "information", "nuisance"),
        lambda run: changed(run, nuisance=constant(1.0)),
    ],
    "J13": [lambda run: _reversed_levels(run, "final"), lambda run: _reversed_levels(run, "test_error")],
    "J14": [
        lambda run: changed(run, initial_error=constant(0.3)),
        lambda run: changed(run, final_error_short=np.zeros_like),
        lambda run: changed(run, final_eigenvalues=np.ones_like),
    ],
    "J15": [
        lambda run: changed(run, after=lambda v: np.delete(v, 3, axis=1)),
        lambda run: changed(run, after=lambda v: v * 10),
        lambda run: changed(run, after=np.sqrt),
    ],
    "J16": [
        lambda run: changed(run, block_error=lambda v: v + 1e-3),
        lambda run: changed(run, joint_norm=lambda v: v * 10),
    ],
    "J17": [lambda run: changed(run, adam=np.zeros_like)],
    "J18": [
        lambda run: changed(run, prediction_gradients=lambda v: v * [[2.0, 1.0], [1.0, 1.0]]),
        lambda run: changed(run, prediction_gradients=lambda v: v[:, ::-1] ** [1.0, 2.0]),
    ],
    "J19": [
        lambda run: changed(run, prediction_told=lambda v: v * 0 + 400),
        lambda run: changed(run, test_error=constant(0.4)),
    ],
}  # fmt: skip


class TestLab(TrainingTests):
    lab = "jacobian"
    experiments = LAB.experiments
    quick = staticmethod(quick)
    violated = VIOLATED
    apart = frozenset({"J7"})
    cheap = CHEAP
    longer = {"linearization": {"steps": 50}, "meta-theorem": {"duration": 5.0, "rank": 12}}
    # At the sizes of the lesson, where a product may be summed in another order.
    repeated = {"residuals": {"steps": 40}, "corruption": {"steps": 10, "seeds": 1}, "linear": {"steps": 40}}
    too_fast = {
        "residuals": {"lr": 5.0, "steps": 200},
        "corruption": CHEAP["corruption"] | {"seeds": 1, "lr": 50.0, "steps": 60},
        "alignment": CHEAP["alignment"] | {"seeds": 1, "lr": 50.0, "steps": 60},
    }

    def test_each_part_refuses_its_own(self, id: str, name: str) -> None:
        """A part that holds whatever is measured, behind another that fails."""
        cases = self.violated.get(id, [])
        for k, case in zip(range(len(self.quick(name).claim(id).rules)), cases, strict=False):
            assert verdict(id, case(self.quick(name))).parts[k].word == "fails", k
        assert id in self.apart or len(cases) >= len(self.quick(name).claim(id).rules)


def test_j7_fails_for_a_wrong_early_stopping_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """J7 compares formulas, so the formula is broken: B times ten, then B over ten."""
    from labkit.labs.jacobian import residuals

    right = residuals.theory.early_stopping_value
    for factor in (10, 1e-3):
        monkeypatch.setattr(residuals.theory, "early_stopping_value", lambda *cut, f=factor: f * right(*cut))
        assert verdict("J7", quick("residuals")).word == "fails"


def test_claims_that_fail_could_hold() -> None:
    """A failure of the rule's own making, which no run could avoid."""
    better = changed(quick("alignment"), final=lambda v: 0.5 * v)
    assert verdict("J17", better).word == "holds"
    adapted = changed(quick("cutoff"), later_bound=lambda v: v * [1.0, 0.8] if v.max() < 2.5 else v)
    found = verdict("J9", adapted)
    assert [part.word for part in found.parts] == ["holds", "holds"], found.notes


def test_j6_is_out_of_regime_at_500_units() -> None:
    """A verdict on a theorem whose conditions are not met."""
    meta = LAB.experiment("meta-theorem")
    found = verdict("J6", drain(meta, meta.preset(width=500)))
    assert found.word == "out of regime"
    assert "δ" in found.notes and ">" in found.notes


def test_the_lab_covers_the_sheet() -> None:
    """A claim of the sheet that no experiment decides, or a core path that names none."""
    assert [claim.id for claim in LAB.claims] == [f"J{number}" for number in range(1, 20)]
    assert set(LAB.core) <= {claim.id for claim in LAB.claims}
    assert {one.name for one in LAB.experiments} == set(CHEAP)


def test_a_diverged_alignment_has_no_final_shares() -> None:
    """Shares of weights that are not numbers."""
    alignment = LAB.experiment("alignment")
    run = drain(alignment, alignment.preset(**TestLab.too_fast["alignment"]))
    assert run.status == "diverged"
    assert "final" not in run.frames[-1].values
