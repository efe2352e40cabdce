"""The processes of a command."""

from __future__ import annotations

import pytest

from labkit.headless.pool import processes


def test_a_process_has_loaded_before_it_is_asked() -> None:
    """Two processes that import torch one after the other, and after the caller."""
    with processes(2) as executor:
        assert executor is not None
        loaded = "{'labkit.labs.common', 'labkit.figures'} <= set(__import__('sys').modules)"
        assert executor.submit(eval, loaded).result(60)


def test_a_single_job_needs_no_process() -> None:
    with processes(1) as executor:
        assert executor is None
    with pytest.raises(ValueError, match="--jobs must be at least 1; got 0"), processes(0):
        pass
