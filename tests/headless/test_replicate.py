"""Replication: blocks of seeds are counted once, resumed, and forgotten when what was asked has changed."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labkit.headless.replicate import Replicated, replicate
from labkit.protocol.claims import Claim
from labkit.protocol.experiment import Lab, Run
from labkit.protocol.replication import mark, recorded, replication_of
from labkit.protocol.rules import AtMost, Between, Evidence
from tests.tinylab import DECAY, LAB


def _seed(run: Run) -> Evidence:
    """Block b has the seeds 3 b, 3 b + 1, 3 b + 2."""
    return Evidence(measured=[run.settings.seed + s for s in range(run.settings.seeds)])


# Of blocks 0 … 19 the last two, with seeds 54 … 59, fail.
SOMETIMES = Claim(
    "T4", "finding", "seeds are small", "nobody", (Between("seed", high=53.5, by="every seed"),), _seed
)
SEEDS = replace(DECAY, name="seeds", claims=(SOMETIMES,))
TWO = replace(LAB, experiments=(DECAY, SEEDS))


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The first seed of every run that is made."""
    import labkit.headless.sweep as module

    made: list[int] = []
    real = module.drain

    def drain(experiment: Any, settings: Any) -> Run:
        made.append(settings.seed)
        return real(experiment, settings)

    monkeypatch.setattr(module, "drain", drain)
    return made


def by_id(found: tuple[Replicated, ...]) -> dict[str, Replicated]:
    return {row.id: row for row in found}


def test_words_are_counted_over_disjoint_blocks_of_seeds(tmp_path: Path, ran: list[int]) -> None:
    """Blocks that share seeds: twenty times the same run."""
    found = by_id(replicate([LAB], folder=tmp_path))
    assert ran == [*range(0, 60, 3), *range(0, 60, 3)]
    assert {id: row.replication.words for id, row in found.items()} == {
        "T1": {"holds": 20}, "T3": {"fails": 20}, "T2": {"reported": 20},
    }  # fmt: skip
    assert str(found["T3"].replication) == "20 of 20 blocks" and found["T3"].enough
    record = json.loads((tmp_path / "tiny.json").read_text())
    assert record["claims"]["T1"]["blocks"]["57"] == {
        "word": "holds",
        "distance": None,
        "measured": [[0.125]],
    }
    assert "torch" in record["versions"]


def test_a_share_below_nineteen_of_twenty_is_told(tmp_path: Path) -> None:
    """A verdict that flips with the seed, and nobody hears of it."""
    row = by_id(replicate([TWO], folder=tmp_path, only=["seeds"]))["T4"]
    assert row.replication.words == {"holds": 18, "fails": 2} and not row.enough
    assert by_id(replicate([TWO], folder=tmp_path, only=["seeds"], blocks=18))["T4"].enough


def _vacuous(run: Run) -> Evidence:
    return Evidence(measured=[0.5], predicted=9.0, vacuous=run.settings.seed < 6)


def test_blocks_in_which_a_bound_says_nothing_are_counted(tmp_path: Path) -> None:
    """A bound that holds in twenty blocks of twenty, as any number would."""
    claim = Claim("T4", "theorem", "a loose bound", "nobody", (AtMost("x"),), _vacuous)
    lab = replace(LAB, experiments=(replace(DECAY, claims=(claim,)),))
    found = by_id(replicate([lab], folder=tmp_path, blocks=3))["T4"].replication
    assert (found.words, found.vacuous) == ({"holds": 3}, 2)


def test_an_interrupted_replication_goes_on_where_it_stopped(tmp_path: Path, ran: list[int]) -> None:
    """Hours lost by Ctrl-C."""

    def interrupt(share: float, told: str) -> None:
        if len(ran) == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replicate([TWO], folder=tmp_path, only=["decay"], progress=interrupt)
    replicate([TWO], folder=tmp_path, only=["decay"])
    assert ran == list(range(0, 60, 3))
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.json"]


def test_more_blocks_run_only_what_is_missing(tmp_path: Path, ran: list[int]) -> None:
    """Twenty blocks thrown away to have twenty-one."""
    replicate([TWO], folder=tmp_path, only=["decay"], blocks=2)
    found = replicate([TWO], folder=tmp_path, only=["decay"], blocks=3)
    assert ran == [0, 3, 6] and by_id(found)["T1"].replication.blocks == 3


@pytest.mark.parametrize(
    "changed",
    [
        replace(DECAY, presets={"quick": DECAY.presets["quick"].replace(width=9)}),
        replace(DECAY, claims=(replace(DECAY.claims[0], rules=(AtMost("last loss", slack=0.1),)),)),
    ],
    ids=["setting", "rule"],
)
def test_a_changed_setting_or_rule_makes_the_record_stale(
    changed: Any, tmp_path: Path, ran: list[int]
) -> None:
    """A replication of something else shown beside the verdict."""
    replicate([TWO], folder=tmp_path, only=["decay"], blocks=2)
    lab = replace(LAB, experiments=(changed, SEEDS))
    assert by_id(replicate([lab], folder=tmp_path, only=["seeds"], blocks=1)).keys() == {"T4"}
    claims = json.loads((tmp_path / "tiny.json").read_text())["claims"]
    assert "T1" not in claims, "a stale record was kept"
    replicate([lab], folder=tmp_path, only=["decay"], blocks=2)
    assert ran == [0, 3, 0, 0, 3]


def test_a_claim_that_is_new_or_gone_leaves_the_others_alone(tmp_path: Path, ran: list[int]) -> None:
    """A claim added: its experiment has to run again, the others need not."""
    replicate([TWO], folder=tmp_path, blocks=2)
    more = replace(SEEDS, claims=(SOMETIMES, replace(SOMETIMES, id="T5")))
    found = replicate([replace(TWO, experiments=(DECAY, more))], folder=tmp_path, blocks=2)
    assert ran == [0, 3] * 3 and by_id(found)["T5"].replication.blocks == 2
    replicate([TWO], folder=tmp_path, blocks=2)
    assert ran == [0, 3] * 3


def test_two_replications_of_one_lab_keep_each_others_blocks(tmp_path: Path) -> None:
    """Two people, one file: who writes last wins, and hours of the other are lost."""

    def meanwhile(share: float, told: str) -> None:
        if share == 0.5:
            replicate([TWO], folder=tmp_path, only=["seeds"], blocks=2)

    replicate([TWO], folder=tmp_path, only=["decay"], blocks=2, progress=meanwhile)
    claims = json.loads((tmp_path / "tiny.json").read_text())["claims"]
    assert {id: len(record["blocks"]) for id, record in claims.items()} == {"T1": 2, "T3": 2, "T4": 2}


def test_any_executor_gives_the_same_counts(tmp_path: Path) -> None:
    """Counts that depend on where, or in which order, the blocks were run."""
    with ThreadPoolExecutor(4) as executor:
        there = replicate([TWO], folder=tmp_path / "there", executor=executor)
    assert replicate([TWO], folder=tmp_path / "here") == there
    assert (tmp_path / "here" / "tiny.json").read_text() == (tmp_path / "there" / "tiny.json").read_text()


def test_progress_is_of_what_is_left(tmp_path: Path) -> None:
    """A bar that starts at a half, or never ends."""
    told: list[tuple[float, str]] = []
    replicate([TWO], folder=tmp_path, only=["seeds"], blocks=2)
    replicate([TWO], folder=tmp_path, blocks=2, progress=lambda *seen: told.append(seen))
    assert [share for share, _ in told] == [0.5, 1.0]
    assert told[0][1] == "7 decay, seed 0: T1 holds, T3 fails"


def test_bad_input_is_refused_before_anything_runs(tmp_path: Path, ran: list[int]) -> None:
    """A typing error found out after an hour of other experiments."""
    with pytest.raises(ValueError, match="no lab here has dekay; there is decay, extra"):
        replicate([LAB], folder=tmp_path, only=["decay", "dekay"])
    with pytest.raises(ValueError, match="blocks must be at least 1"):
        replicate([LAB], folder=tmp_path, blocks=0)
    assert ran == [] and list(tmp_path.iterdir()) == []


def test_the_package_keeps_the_record_that_its_verdicts_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts written where no verdict looks for them; a verdict at other settings that shows them, too."""
    (tmp_path / "somelab").mkdir()
    (tmp_path / "somelab" / "__init__.py").write_text("")
    (tmp_path / "somelab" / "decay.py").write_text(
        "from dataclasses import dataclass\nfrom tests.tinylab import Decay\n"
        "@dataclass(frozen=True)\nclass Own(Decay):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    from somelab.decay import Own

    experiment = replace(DECAY, settings=Own, presets={"quick": Own()})
    assert experiment.home == "somelab" and replication_of(experiment.claims[0], experiment, Own()) is None
    replicate([Lab(9, "some", "Some lab", "nobody", (experiment,), (), "09_some")], blocks=2)
    assert (tmp_path / "somelab" / "replication.json").is_file()
    found = replication_of(experiment.claims[0], experiment, Own())
    assert found is not None and str(found) == "2 of 2 blocks" and found.seeds == 3
    assert replication_of(experiment.claims[0], experiment, Own(width=9)) is None
    assert recorded("somelab")["claims"]["T1"]["mark"] == mark(experiment.claims[0], Own(seed=5))
