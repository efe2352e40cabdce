"""What all tests share: where real data lies, and where pictures for a person go."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent

# The same examples in every run, and no deadline: the machine is shared with training runs.
hypothesis.settings.register_profile("labkit", deadline=None, derandomize=True)
hypothesis.settings.load_profile("labkit")


@pytest.fixture(autouse=True)
def _same_start() -> None:
    """No test sees what those before it drew: which they are depends on the number of processes."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real images that LABKIT_TEST_DATA names."""
    named = os.environ.get("LABKIT_TEST_DATA")
    if not named:
        pytest.skip("LABKIT_TEST_DATA names no folder with mnist.npz and the like")
    folder = Path(named)
    if not folder.is_dir():
        pytest.fail(f"LABKIT_TEST_DATA names {named!r}, which is not a folder")
    return folder.resolve()


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """The folder in which tests leave pictures for a person to look at."""
    folder = Path(os.environ.get("LABKIT_ARTIFACTS", ROOT / "artifacts"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
