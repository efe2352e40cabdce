"""nbval compares the words of a verdict, and not its numbers, whose last digit differs between machines."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

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


def nbval(folder: Path, words: str, table: str, other: str = "0.25") -> str:
    """What the README's command says of a notebook whose cell has these outputs stored."""
    outputs = [
        new_output("display_data", data={"text/plain": words, "text/html": table}),
        new_output("display_data", data={"text/plain": "other numbers", "text/html": f"<b>{other}</b>"}),
    ]
    cells = [new_code_cell(SOURCE, outputs=outputs, execution_count=1)]
    path = folder / "small.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    command = [sys.executable, "-m", "pytest", "-c", "pyproject.toml", "-n0", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT)}
    done = subprocess.run(
        [*command, os.fspath(path)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def renumbered(table: str) -> str:
    return re.sub(r"\d+\.\d+", "7.77", table)


def test_numbers_of_a_verdict_are_not_compared(tmp_path: Path) -> None:
    """The sixth digit of a sum would fail the notebook on the next machine."""
    table = STORED._repr_html_()
    assert renumbered(table) != table
    assert "1 passed" in nbval(tmp_path, str(STORED), renumbered(table))


@pytest.mark.parametrize("changed", ["word", "number elsewhere"])
def test_all_else_is(tmp_path: Path, changed: str) -> None:
    """A claim that fails in a notebook that says it holds; or a pattern that swallows more than the table."""
    words, other = str(STORED), "0.25"
    if changed == "word":
        words = words.replace("T1 holds", "T1 fails")
        assert words != str(STORED)
    else:
        other = "0.26"
    told = nbval(tmp_path, words, STORED._repr_html_(), other)
    assert "1 failed" in told and ("T1 fails" in told or "0.26" in told)
