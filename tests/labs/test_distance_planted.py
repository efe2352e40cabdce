"""The distance from the start, replaced by zero: every claim that rests on it must come out otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from labkit.labs.distance import LAB
from labkit.labs.distance.shared import WITHOUT_DISTANCE
from labkit.protocol.experiment import Run, drain
from labkit.protocol.judging import judge, planted
from tests.runs import shared_run

# Experiment -> the claims that rest on r, and settings with which a run takes a moment, where there are such.
RESTING: dict[str, tuple[set[str], dict[str, Any]]] = {
    "scaling": ({"D11", "D12", "D14", "D15", "D18", "D19", "D20", "D21"}, {}),
    "noise": ({"D13"}, {"lr": 0.1, "depth": 3, "width": 50, "n": 400, "stop": 0.01, "seeds": 1}),
    "bounds": ({"D6", "D7", "D9"}, {"lr": 0.2, "depth": 3, "width": 40, "n": 100, "stop": 0.02}),
}


def words(run: Run, ids: set[str]) -> dict[str, str]:
    return {id: judge(run.claim(id), run).word for id in ids}


@pytest.mark.parametrize(
    "name", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("scaling", "noise")), "bounds"]
)
def test_without_the_distance_every_claim_that_rests_on_it_fails(name: str) -> None:
    """A claim about r that r cannot turn."""
    ids, changes = RESTING[name]
    experiment = LAB.experiment(name)
    settings = experiment.preset(**changes)
    right = shared_run(experiment, settings)
    with planted(WITHOUT_DISTANCE):
        wrong = drain(experiment, settings)
    assert (right.last("r") > 0).all() and not wrong.last("r").any()
    assert words(right, ids) == dict.fromkeys(ids, "holds")
    assert words(wrong, ids) == dict.fromkeys(ids, "fails")
    # The fault is in r alone: what does not rest on it, and the training, stay as they were.
    others = {claim.id for claim in experiment.claims} - ids
    assert words(wrong, others) == words(right, others)
    np.testing.assert_array_equal(wrong.last("loss"), right.last("loss"))


def test_without_the_radius_the_capacity_passes_its_bound() -> None:
    """The same for the ball of Thm 5.1, whose radius is a setting."""
    experiment = LAB.experiment("complexity")
    settings = experiment.preset(widest=64, m=20, draws=4, matrices=3, steps=20)
    assert words(drain(experiment, settings), {"D10"}) == {"D10": "holds"}
    (world,) = next(claim for claim in experiment.claims if claim.id == "D10").worlds
    with planted(world.faults):
        assert words(drain(experiment, settings), {"D10"}) == {"D10": "fails"}


def test_every_claim_that_names_this_world_is_here() -> None:
    """A claim added that rests on r, and is not seen without it."""
    named = {c.id for c in LAB.claims for world in c.worlds if world.faults == WITHOUT_DISTANCE}
    assert named == set().union(*(ids for ids, _ in RESTING.values()))
