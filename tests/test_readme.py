"""The README tells the truth: its Python runs, its files and commands exist, its verdicts are as expected."""

from __future__ import annotations

import re
import shlex

import pytest

from labkit import cli
from labkit.labs import load_lab
from labkit.protocol.claims import KINDS
from labkit.protocol.experiment import Lab
from labkit.protocol.replication import replication_of
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = re.findall(r"^(?:.*&& )?(?:\.venv/bin/)?labkit (\w.*?)(?: {2,}#.*)?$", README, flags=re.MULTILINE)
# | 1 | 9 (D15 is vacuous) | 4: 4 hold | 3: 2 replicate; D9 *fails*: … |
VERDICTS = re.findall(
    r"^\| (\d) \| ([\d–][^|]*) \| ([\d–][^|]*) \| ([\d–][^|]*) \|$", README, flags=re.MULTILINE
)


@pytest.mark.parametrize("block", BLOCKS, ids=["opening", "own-network"])
def test_a_python_block_runs(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An example that was right once."""
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_every_link_leads_somewhere() -> None:
    """A file that was moved."""
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) > 12
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_line_is_one_that_labkit_takes(command: str) -> None:
    """An option that was renamed."""
    words = shlex.split(command)
    if words[0] != "lab":  # Its arguments are Jupyter's.
        cli.parser().parse_args(words)


def test_the_command_lines_were_found() -> None:
    """A pattern that finds nothing checks nothing."""
    assert len(COMMANDS) >= 9
    assert {"run", "report", "replicate", "assignment", "doctor"} <= {
        command.split()[0] for command in COMMANDS
    }


@pytest.mark.parametrize("row", VERDICTS, ids=[row[0] for row in VERDICTS])
def test_the_verdicts_in_brief_are_those_that_the_labs_expect(row: tuple[str, ...]) -> None:
    """A table that went on saying *holds* after a claim had failed, or that adds up what has no sum."""
    number, *cells = row
    for kind, cell in zip(KINDS, cells, strict=True):
        own = [claim for claim in load_lab(number).claims if claim.kind == kind]
        assert cell.startswith(str(len(own) or "–")), (kind, len(own))
        for claim in own:
            if claim.expected != "holds":
                assert re.search(rf"\b{claim.id} (is )?\*?{claim.expected}", cell), (claim.id, claim.expected)
        told = set(re.findall(r"\b([A-Z]\d+) (?:is )?\*(?:fails|undecided|out of regime|reported)", cell))
        assert told == {claim.id for claim in own if claim.expected != "holds"}
        vacuous = re.search(r"([A-Z\d, ]+) (?:is|are) vacuous", cell)
        named = set(re.findall(r"[A-Z]\d+", vacuous[1])) if vacuous else set()
        assert named == {claim.id for claim in own} & _vacuous(load_lab(number))


def _vacuous(lab: Lab) -> set[str]:
    """The claims whose bound says less than a trivial one in most blocks of seeds."""
    found = {c.id: replication_of(c, e, e.presets["quick"]) for e in lab.experiments for c in e.claims}
    return {id for id, seen in found.items() if seen is not None and 2 * seen.vacuous > seen.blocks}


def test_every_lab_has_its_verdicts_in_brief() -> None:
    """A lab that was added and not told of."""
    assert [row[0] for row in VERDICTS] == ["1", "2", "3", "4", "5"]
