"""The environment for mybinder.org, and the command that measures notebooks within its limits."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
BINDER = ROOT / "binder"

linux = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="reads /proc of Linux")


def _measure() -> ModuleType:
    spec = importlib.util.spec_from_file_location("binder_measure", BINDER / "measure.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


tool = _measure()


def notebook(folder: Path, source: str) -> Path:
    path = folder / "small.ipynb"
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbformat.write(made, path)
    return path


def test_every_link_that_launches_opens_a_notebook_that_exists() -> None:
    """A launch link that ends on JupyterLab's "file not found"."""
    pages = [BINDER / "README.md", ROOT / "README.md"]
    opened = [
        at for page in pages for at in re.findall(r"urlpath=lab/tree/([^\s`)\]]+)", page.read_text("utf-8"))
    ]
    assert opened
    for path in opened:
        assert (ROOT / path).is_file(), path


def test_the_environment_is_bounded_on_both_sides() -> None:
    """An image built next year, with a Python or a torch that nobody has tried; or one below the floor."""
    lines = re.findall(
        r"^  - ([a-z-]+)([=<>].*)$", (BINDER / "environment.yml").read_text("utf-8"), re.MULTILINE
    )
    pins = dict(lines)
    assert re.fullmatch(r"=3\.\d+", pins.pop("python"))
    assert "pytorch-cpu" in pins, "the CUDA build does not fit"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    other_names = {"torch": "pytorch-cpu", "matplotlib": "matplotlib-base"}
    for wanted in project["dependencies"]:
        name, floor = wanted.split(">=")
        found = re.fullmatch(r">=([\d.]+),<(\d+)\.(\d+)", pins.pop(other_names.get(name, name)))
        assert found is not None and found[1] == floor, wanted
    assert set(pins) == {"pip"}


@linux
def test_a_notebook_within_its_limits_passes_and_is_left_as_it_was(tmp_path: Path) -> None:
    """A tool that reports nothing, counts the client for the kernel, or leaves more than one core."""
    path = notebook(tmp_path, "import os\ntaken = b'x' * 2**27\nassert len(os.sched_getaffinity(0)) == 1")
    before = path.read_bytes()
    found = tool.measure(path, memory=2.0, peak=1.0, seconds=120)
    assert found.wrong == ""
    assert 0.125 < found.kernel < 0.5 and found.tree > found.kernel / 2
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["small.ipynb"]


@pytest.mark.slow
@linux
def test_a_notebook_that_takes_too_much_is_ended(tmp_path: Path) -> None:
    """A limit that is only written down: the cell after it runs, or a child's memory does not count."""
    mark = tmp_path / "still here"
    source = (
        "import subprocess, sys, time\n"
        "hungry = 'import time; taken = b\"x\" * 2**29; time.sleep(60)'\n"
        f"subprocess.run([sys.executable, '-c', hungry])\nopen({str(mark)!r}, 'w').close()"
    )
    found = tool.measure(notebook(tmp_path, source), memory=0.5, seconds=120)
    assert found.wrong.startswith("ended: 0.") and "over the 0.5" in found.wrong
    assert found.seconds < 50 and not mark.exists()


@pytest.mark.slow
@linux
def test_a_peak_that_has_passed_is_still_seen(tmp_path: Path) -> None:
    """A watcher that samples: a moment between two looks is missed."""
    source = "taken = b'x' * 2**28\ndel taken\nimport time; time.sleep(0.3)"
    found = tool.measure(notebook(tmp_path, source), memory=2.0, peak=0.25, seconds=120)
    assert "the kernel took 0." in found.wrong and "over the 0.25" in found.wrong


@linux
def test_a_notebook_that_raises_or_asks_the_network_is_told(tmp_path: Path) -> None:
    """A notebook that stops half way counts as measured; or one that needs a download passes."""
    # A reserved address, so that nothing is asked of anybody should the network not be cut.
    ask = "import socket\ntry: socket.create_connection(('192.0.2.1', 80), timeout=1)\n"
    ask += "except OSError as error: raise KeyError(f'gone: {error}')"
    source = ask if tool.offline() else "raise KeyError('gone')"
    found = tool.measure(notebook(tmp_path, source), seconds=120)
    assert "did not run through: KeyError: 'gone" in found.wrong
    assert not tool.offline() or "unreachable" in found.wrong


@linux
def test_what_cannot_be_measured_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A traceback for a mistyped name."""
    assert tool.main([str(tmp_path / "none.ipynb")]) == 2
    assert "no such notebook" in capsys.readouterr().err


@pytest.mark.slow
def test_the_table_is_written_between_its_marks(tmp_path: Path) -> None:
    """A table appended again and again, or text around it lost."""
    readme = tmp_path / "README.md"
    readme.write_text(f"above\n{tool.BEGIN}\nold\n{tool.END}\nbelow\n", encoding="utf-8")
    for _ in range(2):
        tool._write(readme, [tool.Outcome("a", 61.0, 58.0, 0.81, 0.93)])
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("above\n") and text.endswith("below\n") and "old" not in text
    assert text.count("| `a` | 61 | 58 | 0.81 | 0.93 |") == 1


def test_the_table_has_every_notebook_within_the_limit() -> None:
    """A notebook added, or grown, since the table was made."""
    text = (BINDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| \d+ \| ([\d.]+) \| ([\d.]+) \|$", text, re.MULTILINE)
    assert [name for name, *_ in rows] == sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
    assert all(float(peak) <= 1.3 for _, _, peak, _ in rows)
