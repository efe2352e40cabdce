"""nbval compares the words of a verdict, and not its numbers, whose last digit differs between machines."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from xml.etree import ElementTree

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from labkit.protocol.experiment import drain
from labkit.protocol.judging import judge_all
from tests.conftest import ROOT
from tests.tinylab import DECAY

SOURCE = """import labkit
from labkit.protocol.experiment import drain
from tests.tinylab import DECAY
display(labkit.judge_all(drain(DECAY)))
display({'text/plain': 'other numbers', 'text/html': '<b>0.25</b>'}, raw=True)"""
STORED = judge_all(drain(DECAY))
TABLE = STORED._repr_html_()


def renumbered(table: str) -> str:
    return re.sub(r"\d+\.\d+", "7.77", table)


# What is stored: the words of the verdict, its table, and another number.
CASES = {
    "numbers": (str(STORED), renumbered(TABLE), "0.25"),
    "word": (str(STORED).replace("T1 holds", "T1 fails"), TABLE, "0.25"),
    "elsewhere": (str(STORED), TABLE, "0.26"),
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the README's command says of a notebook with a cell a case: what failed, or nothing."""
    folder = tmp_path_factory.mktemp("stored")
    cells = []
    for words, table, other in CASES.values():
        outputs = [
            new_output("display_data", data={"text/plain": words, "text/html": table}),
            new_output("display_data", data={"text/plain": "other numbers", "text/html": f"<b>{other}</b>"}),
        ]
        cells.append(new_code_cell(SOURCE, outputs=outputs, execution_count=len(cells) + 1))
    nbformat.write(new_notebook(cells=cells), folder / "small.ipynb")
    command = [sys.executable, "-m", "pytest", "-c", "pyproject.toml", "-n0", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"--junitxml={folder / 'told.xml'}", os.fspath(folder / "small.ipynb")],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": os.fspath(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    cases = list(ElementTree.parse(folder / "told.xml").iter("testcase"))
    assert [case.get("name") for case in cases] == [f"Cell {place}" for place in range(len(CASES))]
    return {
        name: "".join(part.text or "" for part in case.iter() if part.tag in ("failure", "error"))
        for name, case in zip(CASES, cases, strict=True)
    }


@pytest.mark.slow
def test_numbers_of_a_verdict_are_not_compared(told: dict[str, str]) -> None:
    """The sixth digit of a sum would fail the notebook on the next machine."""
    assert CASES["numbers"][1] != TABLE
    assert told["numbers"] == ""


@pytest.mark.parametrize(("changed", "shown"), [("word", "T1 fails"), ("elsewhere", "0.26")])
def test_all_else_is(told: dict[str, str], changed: str, shown: str) -> None:
    """A claim that fails in a notebook that says it holds; or a pattern that swallows more than the table."""
    assert CASES["word"][0] != str(STORED)
    assert shown in told[changed]
