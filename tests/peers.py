"""Libraries that tests compare with, and that a machine may lack."""

from __future__ import annotations

from typing import Any

import pytest


def torchvision() -> Any:
    """The package; skips where it does not fit its torch, as beside a build for the CPU alone."""
    try:
        import torchvision
    except (ImportError, RuntimeError) as problem:  # an operator that was not built in
        pytest.skip(f"torchvision cannot be imported here: {problem}")
    return torchvision
