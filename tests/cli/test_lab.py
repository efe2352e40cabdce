"""`labkit lab`: it opens what one works in, copies once where there is nothing, and ends its server."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time

import nbformat
import pytest

from labkit import cli, notebooks
from labkit.classroom import folder as place
from tests.conftest import ROOT


def refused(capsys, words):
    """The one line of a command that must fail."""
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1, (out, err)
    return err


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A place outside any checkout, as for a package installed from a wheel that carries two notebooks."""
    carried, here = tmp_path / "carried", tmp_path / "here"
    carried.mkdir()
    here.mkdir()
    for name in ("00_start_here", "04_jacobian"):
        nbformat.write(nbformat.v4.new_notebook(), carried / f"{name}.ipynb")
    for module in (notebooks, place):
        monkeypatch.setattr(module, "find_folder", lambda: carried)
    monkeypatch.chdir(here)
    return here


@pytest.fixture
def folder(installed):
    """A folder that `labkit get` filled, and the current one."""
    return place.get(installed).folder


@pytest.fixture
def jupyter(monkeypatch):
    """Records how Jupyter would be started."""
    started = []

    class Process:
        def __init__(self, command, env):
            started.append(command)

        def wait(self):
            return 0

    monkeypatch.setattr(subprocess, "Popen", Process)
    return started


@pytest.mark.parametrize("wanted", ["4", "04", "jacobian", "04_jacobian", "04_jacobian.ipynb", "jac"])
def test_lab_opens_the_notebook_by_number_name_or_file(wanted, folder, jupyter):
    """`labkit lab 4` that opens the file browser leaves a student searching."""
    assert cli.main(["lab", wanted]) == 0
    assert jupyter[0][:3] == [sys.executable, "-m", "jupyterlab"]
    assert f"--ServerApp.root_dir={folder}" in jupyter[0]
    assert "--LabApp.default_url=/lab/tree/04_jacobian.ipynb" in jupyter[0]


def test_lab_hands_other_arguments_to_jupyter_in_order(folder, jupyter):
    """`--port 8890` taken apart would open a notebook named 8890."""
    assert cli.main(["lab", "--no-browser", "--port", "8890"]) == 0
    assert jupyter[0][-2:] == ["--port", "8890"] and "--no-browser" in jupyter[0]
    assert cli.main(["lab", "--LabApp.default_url=/lab"]) == 0
    assert [word for word in jupyter[1] if "default_url" in word] == ["--LabApp.default_url=/lab"]


def opened(jupyter, wanted=None):
    """The folder and the notebook that `labkit lab` opens."""
    assert cli.main(["lab", *([wanted] if wanted is not None else [])]) == 0
    options = dict(word.split("=", 1) for word in jupyter[-1] if "=" in word)
    return options["--ServerApp.root_dir"], options.get("--LabApp.default_url", "").rpartition("/")[2]


def test_lab_finds_the_notebooks_from_inside_or_beside_their_folder(installed, jupyter, monkeypatch, capsys):
    """A second copy a level deeper: the answers seem gone."""
    place.get(installed / "week 1")
    (installed / "week 1" / "data").mkdir()
    for start in (installed, installed / "week 1", installed / "week 1" / "data"):
        monkeypatch.chdir(start)
        assert opened(jupyter) == (str(installed / "week 1"), "00_start_here.ipynb")
    assert capsys.readouterr().out == ""
    assert sorted(path.name for path in installed.rglob("*") if path.is_dir()) == ["data", "week 1"]


def test_lab_elsewhere_copies_the_notebooks_once_and_says_so(installed, jupyter, capsys):
    """Notebooks that appear unannounced, or an empty file browser."""
    made = installed / "labkit-notebooks"
    assert opened(jupyter, "4") == (str(made), "04_jacobian.ipynb")
    assert capsys.readouterr().out == f"labkit lab: copied 2 notebooks to {made}\n"
    assert opened(jupyter) == (str(made), "00_start_here.ipynb")
    assert capsys.readouterr().out == ""


def test_lab_copies_nothing_for_a_notebook_that_does_not_exist(installed, capsys):
    """A typing error must not leave a folder."""
    assert "00_start_here, 04_jacobian" in refused(capsys, ["lab", "9"])
    assert list(installed.iterdir()) == []


def test_lab_takes_no_course_of_assignments_for_the_notebooks(installed, jupyter):
    """A lecturer has `course/` beside it, with a record of its own."""
    (installed / "course").mkdir()
    (installed / "course" / ".labkit.json").write_text("{}")
    assert opened(jupyter)[0] == str(installed / "labkit-notebooks")


def test_lab_takes_a_folder_and_asks_which_where_there_are_several(installed, jupyter, capsys):
    """Guessing opens last week's answers."""
    for name in ("week1", "week2"):
        place.get(installed / name)
    assert "week1, week2" in refused(capsys, ["lab"])
    assert opened(jupyter, "week2") == (str(installed / "week2"), "00_start_here.ipynb")
    assert opened(jupyter, "week2/04_jacobian.ipynb") == (str(installed / "week2"), "04_jacobian.ipynb")


def test_lab_opens_the_notebooks_of_a_checkout_anywhere_in_it(jupyter, monkeypatch):
    """There the pairs are what one wants to edit, not copies."""
    monkeypatch.chdir(ROOT / "labkit" / "labs")
    assert opened(jupyter, "4")[0] == str(ROOT / "notebooks")


def test_lab_never_opens_the_copy_inside_the_installation(installed, jupyter, monkeypatch):
    """In a .venv of a checkout the package lies below the checkout too; an edit there is for all users."""
    carried = ROOT / ".venv" / "lib" / "labkit" / "_notebooks"
    monkeypatch.setattr(place, "find_folder", lambda: carried)
    assert opened(jupyter)[0] == str(installed / "labkit-notebooks")


def test_lab_without_jupyterlab_says_how_to_install_it(installed, monkeypatch, capsys):
    """Python's "No module named jupyterlab" comes too late, and names no environment."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert f"{sys.executable} -m pip install jupyterlab" in refused(capsys, ["lab"])
    assert list(installed.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_ending_lab_ends_the_server(tmp_path):
    """A server that lives on keeps its port and its kernels."""
    server = tmp_path / "jupyterlab"  # In the place of the real one.
    server.mkdir()
    (server / "__init__.py").write_text("")
    waits = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit('ended'))\n"
    (server / "__main__.py").write_text(f"{waits}open('up', 'w').close()\ntime.sleep(20)\nsys.exit('left')\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    process = subprocess.Popen(
        [sys.executable, "-m", "labkit", "lab", str(tmp_path)], cwd=tmp_path, text=True,
        env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.PIPE,
    )  # fmt: skip
    end = time.monotonic() + 20
    while not (tmp_path / "up").exists() and time.monotonic() < end:
        time.sleep(0.05)
    process.terminate()
    assert process.communicate(timeout=30)[1] == "ended\n" and process.returncode == 1
