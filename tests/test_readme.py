"""The README tells the truth: its Python runs, its files exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=["opening", "own-network"])
def test_a_python_block_runs(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An example that was right once."""
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_every_link_leads_somewhere() -> None:
    """A file that was moved."""
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []
