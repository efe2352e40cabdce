"""How the tests run: on all processors, one thread each, what takes longest first.

`pytest` starts a process a processor and gives a file's tests to one of them; a single file named on the
command line runs in this process, as does all with `-n0` or `--pdb`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

# Before anything imports torch, for its kernels and for those of notebooks: processes that take a processor
# each slow one another down by more than a second thread could gain.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent
_BEGUN = time.monotonic()
LONGEST_FIRST = (ROOT / "notebooks", ROOT / "tests" / "browser", ROOT / "tests" / "labs")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--minutes", type=float, help="skip what has not begun after so many minutes")


def pytest_configure(config: pytest.Config) -> None:
    """A folder for what the processes share (tests/runs.py); and nbval finds its file from any folder."""
    config.option.nbval_sanitize_with = os.fspath(ROOT / config.option.nbval_sanitize_with)
    if not hasattr(config, "workerinput"):
        folder = tempfile.mkdtemp(prefix="labkit-runs-")
        os.environ["LABKIT_TEST_RUNS"] = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """A single file is one process's anyway."""
    files = {argument.partition("::")[0] for argument in config.args}
    return 0 if len(files) == 1 and Path(*files).is_file() else None


class _Scheduling(LoadFileScheduling):
    """A file's tests on one process, and all that need a browser: two of them would wait for each other."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "tests/browser" if file.startswith("tests/browser/") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    return _Scheduling(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A notebook that comes last would leave all processors but one without work.

    They come before the labs, which take over the runs that notebooks make with steps of their own.
    """

    def place(item: pytest.Item) -> int:
        found = (i for i, folder in enumerate(LONGEST_FIRST) if folder in item.path.parents)
        return next(found, len(LONGEST_FIRST))

    items.sort(key=place)
    if "LABKIT_APART" not in os.environ:
        apart = [item for item in items if item.get_closest_marker("apart")]
        items[:] = [item for item in items if item not in apart]


@pytest.hookimpl(trylast=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    minutes = item.config.option.minutes
    if minutes is not None and time.monotonic() - _BEGUN > 60 * minutes:
        pytest.skip(f"not begun after {minutes:g} minutes")
    if item.name == "Cell 0" and item.path.suffix == ".ipynb":
        kernel = item.parent.kernel
        words = f"import sys; sys.path.insert(0, {os.fspath(ROOT)!r}); import tests.runs"
        kernel.await_idle(kernel.execute_cell_input(f"{words}; tests.runs.share_in_this_notebook()"), 60)
