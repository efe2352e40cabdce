"""The processes of a command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.headless.pool import processes


def test_a_process_has_loaded_before_it_is_asked() -> None:
    """Two processes that import torch one after the other, and after the caller."""
    with processes(2) as executor:
        assert executor is not None
        loaded = "{'labkit.labs.common', 'labkit.figures'} <= set(__import__('sys').modules)"
        assert executor.submit(eval, loaded).result(60)


COMMAND = "import sys\nfrom labkit.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n"


def test_the_installed_command_gives_the_same_with_two_processes(tmp_path: Path) -> None:
    """A BLAS that began before it was told to take one thread: other digits, and another seed at an edge."""
    script, found = tmp_path / "labkit", []
    free = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    script.write_text(COMMAND, "utf-8")
    for jobs in ("1", "2"):
        out = tmp_path / f"{jobs}.json"
        how = ["run", "4", "--experiment", "linear", "--jobs", jobs, "--json", str(out)]
        subprocess.run([sys.executable, str(script), *how], check=True, capture_output=True, env=free)
        found.append([claim["quantities"] for claim in json.loads(out.read_text("utf-8"))["claims"]])
    assert found[0] == found[1]


def test_a_single_job_needs_no_process() -> None:
    with processes(1) as executor:
        assert executor is None
    with pytest.raises(ValueError, match="--jobs must be at least 1; got 0"), processes(0):
        pass
