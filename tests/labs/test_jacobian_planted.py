"""The rows of the Jacobian in another order than the labels: spectra stay right, projections go wrong.

Every claim that rests on the parts of a vector on I and N must come out otherwise, and no other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from labkit import krylov, measure, models
from labkit.labs import jacobian, start
from labkit.labs.jacobian.shared import shuffled_gram, shuffled_rows
from labkit.protocol.experiment import Run, drain
from labkit.protocol.judging import judge, planted
from tests.runs import shared_run

ROOM, START = "labkit.labs.jacobian", "labkit.labs.start"
J, KERNEL = {f"{ROOM}.shared:jacobian": shuffled_rows}, {f"{ROOM}.mixture:kernels.mntk": shuffled_gram}
# Experiment -> where the fault is planted, the claims that rest on it, and settings that take a moment.
RESTING: dict[str, tuple[dict[str, Any], set[str], dict[str, Any]]] = {
    "kernel": ({f"{ROOM}.kernel:jacobian": shuffled_rows}, {"J1"}, {}),
    "mixture": (J | KERNEL, {"J2"}, {"clusters": 5}),
    "residuals": (J, {"J4", "J18"}, {"n": 100, "steps": 60}),
    "linearization": (
        {f"{ROOM}.linearization:kernel": shuffled_gram}, {"J5"}, {"n": 20, "repeats": 4, "steps": 30}
    ),
    "meta-theorem": (
        {f"{ROOM}.meta_theorem:kernel": shuffled_gram}, {"J6"}, {"seeds": 1, "n": 20, "rank": 6}
    ),
    "alignment": (
        {f"{ROOM}.alignment:jacobian": shuffled_rows}, {"J11", "J13"}, {}
    ),
    "corruption": (J, {"J12"}, {}),
    "lenses": (
        {f"{START}.{name}:kernel": shuffled_gram for name in ("linear", "lenses")}, {"L4", "L5"}, {"n": 40}
    ),
}  # fmt: skip
LONG = {"alignment", "linearization", "corruption", "lenses"}
EXPERIMENTS = {one.name: one for one in (*jacobian.LAB.experiments, *start.LAB.experiments)}


def words(run: Run) -> dict[str, str]:
    return {claim.id: judge(claim, run).word for claim in run.experiment.claims}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in RESTING]
)
def test_with_shuffled_rows_every_claim_that_rests_on_projections_fails(name: str) -> None:
    """A claim about I and N that vectors in the wrong order cannot turn."""
    faults, ids, changes = RESTING[name]
    experiment = EXPERIMENTS[name]
    settings = experiment.preset(**changes)
    right = words(shared_run(experiment, settings))
    with planted(faults):
        wrong = words(drain(experiment, settings))
    assert {id: right[id] for id in ids} == dict.fromkeys(ids, "holds")
    assert {id: wrong[id] for id in ids} == dict.fromkeys(ids, "fails")
    # Norms, spectra, errors and sums over all of label space are as they were.
    assert {id: word for id, word in wrong.items() if id not in ids} == {
        id: word for id, word in right.items() if id not in ids
    }


def test_the_fault_leaves_the_spectrum_alone() -> None:
    """A fault that breaks the Jacobian altogether, so that any claim would fail."""
    model, x = models.mlp(5, 6, 2, 3, seed=0), torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    right, wrong = measure.jacobian(model, x), shuffled_rows(measure.jacobian)(model, x)
    np.testing.assert_allclose(krylov.svd(wrong, 5).s, krylov.svd(right, 5).s, rtol=1e-5)
    assert krylov.adjoint_gap(wrong) < 1e-5
    assert not np.allclose(wrong.gram(), right.gram())


def test_every_claim_that_names_this_world_is_here() -> None:
    """A claim added that rests on projections, and is not seen without them."""
    named = {
        claim.id
        for one in EXPERIMENTS.values() for claim in one.claims for world in claim.worlds
        if set(world.faults.values()) & {shuffled_rows, shuffled_gram}
    }  # fmt: skip
    assert named <= set().union(*(ids for _, ids, _ in RESTING.values()))
