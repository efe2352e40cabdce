"""What is marked `apart`, a file in a process of its own: torch cannot forget a device that it was told of.

By hand: LABKIT_APART=1 pytest -n0 tests/device
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LABS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "tests" / "labs").glob("test_*.py")
    if "Tests):" in path.read_text("utf-8")
)


def run(file: str, marked: str) -> None:
    """Runs some tests of a file, and shows what they said where one fails."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "-m", marked, file],
        cwd=ROOT, env=env | {"LABKIT_APART": "1", "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=1200,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout + found.stderr
    if " passed" not in found.stdout:
        pytest.skip(found.stdout.strip().splitlines()[-2])


def test_on_the_pretended_device() -> None:
    run("tests/device/test_pretended.py", "apart and not slow")


@pytest.mark.slow
@pytest.mark.parametrize("file", ["tests/device/test_measures.py", *LABS])
def test_on_the_pretended_device_at_length(file: str) -> None:
    run(file, "apart and slow")
