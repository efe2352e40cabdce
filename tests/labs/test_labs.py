"""What holds for the labs as a whole."""

from __future__ import annotations

import pytest

from labkit.labs import LABS, load_lab

CLAIMS = {1: ("D", 16), 2: ("E", 14), 3: ("S", 17), 4: ("J", 17), 5: ("C", 15)}


@pytest.mark.parametrize("number", sorted(LABS))
def test_every_claim_of_a_paper_is_decided_once(number: int) -> None:
    """A claim that no experiment decides, or two do, or a core path that names none."""
    lab = load_lab(number)
    letter, count = CLAIMS[number]
    assert [claim.id for claim in lab.claims] == [f"{letter}{k}" for k in range(1, count + 1)]
    assert len(lab.core) == len(set(lab.core)) >= 8
    assert set(lab.core) <= {claim.id for claim in lab.claims}
    assert len({experiment.name for experiment in lab.experiments}) == len(lab.experiments)
