"""What an installed package has: everything the commands need at run time, the notebooks among it."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile

import pytest

from labkit.notebooks import notebook_paths
from tests.conftest import ROOT

NOTEBOOKS = [path.name for path in notebook_paths(ROOT / "notebooks")]


def build(target, place):
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(place)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = place.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Runs Python outside the checkout, with labkit from the wheel before that from the checkout."""
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)

    def run(place, *words):
        environment = {**os.environ, "PYTHONPATH": str(site)}
        done = subprocess.run(
            [sys.executable, *words], cwd=place, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_wheel_holds_every_file_of_the_package_and_the_notebooks(wheel):
    """A data file left out is missed in an installation alone, where no other test looks."""
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "labkit").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert files <= inside
    carried = {f"labkit/_notebooks/{name}" for name in NOTEBOOKS}
    assert carried and carried <= inside
    # Their .py halves would be compiled at installation, and serve nobody there.
    assert {name for name in inside - files if not name.endswith(".py")} == carried
    assert not any(
        "__pycache__" in name or "checkpoint" in name or name.startswith("tests") for name in inside
    )


def test_wheel_stays_small_enough_to_send_around(wheel):
    """Sixty students download it in the same minute."""
    assert wheel.stat().st_size < 10 * 2**20


def test_source_distribution_holds_what_a_wheel_is_made_of(tmp_path):
    """pip builds from it where it finds no wheel, and then there would be nothing to copy."""
    with tarfile.open(build("sdist", tmp_path)) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    files = {"labkit/cli/__init__.py", "jupytext.toml", "README.md"}
    assert files | {f"notebooks/{name}" for name in NOTEBOOKS} <= inside


def test_an_installed_package_copies_its_notebooks_in_an_empty_folder(installed, tmp_path):
    """In the checkout the notebooks are found beside the package, whatever the wheel carries."""
    assert "labkit-notebooks" in installed(tmp_path, "-m", "labkit", "get")
    assert sorted(path.name for path in (tmp_path / "labkit-notebooks").glob("*.ipynb")) == NOTEBOOKS
    installed(tmp_path, "-m", "labkit", "get", "full", "--solutions")
    full = (tmp_path / "full" / NOTEBOOKS[-1]).read_bytes()
    assert full == (ROOT / "notebooks" / NOTEBOOKS[-1]).read_bytes()


def test_an_installed_package_takes_no_folder_beside_it_for_a_checkout(installed, tmp_path):
    """Any other package may have put a folder `notebooks` into site-packages."""
    code = "from labkit import notebooks as n; print(n.find_folder() == n.CARRIED, n.find_notebook('4').stem)"
    assert installed(tmp_path, "-c", code).split() == ["True", "04_low_rank_jacobian"]


def test_the_tools_for_the_pairs_keep_off_the_copy_in_the_installation(installed, tmp_path):
    """`execute` there would change what the next `labkit get` copies, for all users of the machine."""
    with pytest.raises(AssertionError, match="inside a checkout"):
        installed(tmp_path, "-m", "labkit.notebooks", "check")
