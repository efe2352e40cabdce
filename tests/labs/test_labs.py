"""What holds for the labs as a whole."""

from __future__ import annotations

import pytest

from labkit.labs import LABS, load_lab

CLAIMS = {1: ("D", 22), 2: ("E", 22), 3: ("S", 24), 4: ("J", 19), 5: ("C", 21)}


def test_lab_0_is_no_paper_and_all_others_are() -> None:
    """A lab whose claims nobody counts, or claims of the overview among those of a paper."""
    assert sorted(LABS) == [0, *CLAIMS]
    start = load_lab(0)
    assert start is load_lab("start") is load_lab("00")
    assert [claim.id for claim in start.claims] == list(start.core) == ["L1", "L2", "L3", "L4", "L5"]
    # One lens a paper, in their order.
    assert [claim.source.split(",")[0] for claim in start.claims] == [
        "paper 1", "paper 2", "paper 3", "paper 4", "paper 5"
    ]  # fmt: skip


@pytest.mark.parametrize("number", sorted(CLAIMS))
def test_every_claim_of_a_paper_is_decided_once(number: int) -> None:
    """A claim that no experiment decides, or two do, or a core path that names none."""
    lab = load_lab(number)
    letter, count = CLAIMS[number]
    assert [claim.id for claim in lab.claims] == [f"{letter}{k}" for k in range(1, count + 1)]
    assert len(lab.core) == len(set(lab.core)) >= 8
    assert set(lab.core) <= {claim.id for claim in lab.claims}
    assert len({experiment.name for experiment in lab.experiments}) == len(lab.experiments)
