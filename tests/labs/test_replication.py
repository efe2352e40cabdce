"""Every verdict was seen over blocks of seeds: in at least 19 of 20 the word that the claim expects."""

from __future__ import annotations

import pickle

import pytest

from labkit.headless.listing import FILE, listed, told
from labkit.labs import LABS, find_lab, load_lab
from labkit.protocol.replication import SHARE, data_file, mark, recorded, replication_of, seconds_of

CLAIMS = [
    (number, experiment.name, claim.id)
    for number in LABS
    for experiment in load_lab(number).experiments
    for claim in experiment.claims
]


@pytest.mark.parametrize(("number", "name", "id"), CLAIMS)
def test_a_claim_comes_out_as_expected_in_nineteen_of_twenty_blocks(number: int, name: str, id: str) -> None:
    """A word that depends on the seed, or a replication of other settings or of another rule."""
    experiment = load_lab(number).experiment(name)
    claim = next(one for one in experiment.claims if one.id == id)
    settings = experiment.presets["quick"]
    record = recorded(experiment.home)["claims"].get(id)
    assert record is not None, f"`labkit replicate {number}` has not been run"
    stale = "its settings or its rules have changed since; `labkit replicate` runs it again"
    assert record["mark"] == mark(claim, settings), stale
    found = replication_of(claim, experiment, settings)
    assert found is not None and found.blocks >= 20
    assert found.share >= SHARE, f"{dict(found.words)} where {claim.expected} is expected"


@pytest.mark.parametrize("number", LABS)
def test_the_stored_listing_is_what_the_lab_says(number: int) -> None:
    """`labkit claims` that tells last month's rules."""
    path = data_file(find_lab(number)[2], FILE)
    assert path is not None and path.is_file() and path.parent.name == find_lab(number)[1]
    assert listed(number) == told(load_lab(number)), f"stale: `labkit replicate {number}` writes it anew"


@pytest.mark.parametrize("number", LABS)
def test_every_experiment_says_how_long_it_takes(number: int) -> None:
    """A bar that counts experiments, of which one takes as long as all others."""
    lab = load_lab(number)
    assert all((seconds_of(experiment) or 0) > 0 for experiment in lab.experiments)
    assert recorded(lab.experiments[0].home)["seconds"].keys() == {one.name for one in lab.experiments}


@pytest.mark.parametrize(("number", "name"), sorted({(number, name) for number, name, _ in CLAIMS}))
def test_an_experiment_can_be_sent_to_another_process(number: int, name: str) -> None:
    """A lambda in a claim: replication on a process pool, Dask or Slurm ends in a pickling error."""
    experiment = load_lab(number).experiment(name)
    assert pickle.loads(pickle.dumps(experiment)).claims == experiment.claims
