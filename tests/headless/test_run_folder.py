"""A run in a folder: it goes on, it is one run's alone, and it says how far it is."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import labkit.labs
from labkit import cli
from labkit.headless import run_folder
from labkit.protocol.files import read_frames
from labkit.training import kept
from tests.training.test_kept import until

ROOT = Path(__file__).parents[2]
NAMED = "import labkit.labs as labs; labs.LABS = {7: ('slow', 'tests.trainlab')}; "
QUICK = "from labkit.headless import run_folder; run_folder.STAND = run_folder.PAGE = 0.0; "
COMMAND = [
    sys.executable,
    "-c",
    NAMED + QUICK + "from labkit import cli; raise SystemExit(cli.main())",
    "run",
    "7",
]


@pytest.fixture(autouse=True)
def only_the_slow_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labkit.labs, "LABS", {7: ("slow", "tests.trainlab")})
    monkeypatch.setattr(run_folder, "STAND", 0.0)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def run(folder: Path, *words: str) -> int:
    return cli.main(["run", "7", "--folder", str(folder), *words])


def interrupted(patch: pytest.MonkeyPatch, at: int, folder: Path) -> bool:
    """Whether the run ended at the file that it was to write in this place."""
    with patch.context() as its:
        its.setattr(kept, "_save", until(at))
        return run(folder) == 130


def frames(folder: Path) -> Any:
    """The frames of the experiment, as bytes."""
    found, _ = read_frames(folder / "two" / "frames.npz")
    return [
        (f.step, f.progress, f.status, f.note, {name: (v.dtype, v.tobytes()) for name, v in f.values.items()})
        for f in found
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    done = subprocess.run([*COMMAND, "--folder", str(folder)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("at", [0, 1, 7, 20, 33, 50])
def test_a_run_that_ended_anywhere_goes_on(at: int, whole: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """A run begun anew from the second training on, or with the minibatches of the first."""
    folder = tmp_path / "run"
    assert interrupted(monkeypatch, at, folder)
    assert not (folder / "two" / "frames.npz").exists()
    assert run(folder) == 0
    assert frames(folder) == frames(whole)
    assert not (folder / "two" / "trainings").exists()
    log = (folder / "log.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split(" ", 2)[2].split(",")[0] for line in log] == [
        "two: begins", "two: goes on", "two: done at step 120",
    ]  # fmt: skip


def test_its_time_is_that_of_all_its_processes(tmp_path: Path, monkeypatch: Any) -> None:
    """The minutes beside a published number, of the last hour alone."""
    folder = tmp_path / "run"
    assert interrupted(monkeypatch, 20, folder)
    took = folder / "two" / "seconds"
    assert 0 < float(took.read_text()) < 600
    took.write_text("1000.0")
    assert interrupted(monkeypatch, 5, folder)
    assert 1000 <= float(took.read_text()) < 1600
    assert run(folder) == 0
    assert 1000 < read_frames(folder / "two" / "frames.npz")[1] < 1600 and not took.exists()


def test_what_has_ended_is_not_run_again(whole: Path, capsys: Any, monkeypatch: Any) -> None:
    """Hours for a table that was there."""
    monkeypatch.setattr(kept, "kept", None)
    monkeypatch.setattr("labkit.headless.run_folder.drain", None)
    assert run(whole) == 0
    assert "T1   fails" in capsys.readouterr().out
    result = json.loads((whole / "result.json").read_text(encoding="utf-8"))
    assert [claim["verdict"] for claim in result["claims"]] == ["fails"]
    assert "A lab that trains" in (whole / "page.html").read_text(encoding="utf-8")


def refused(folder: Path, capsys: Any, *words: str) -> str:
    assert run(folder, *words) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "%" not in line]
    assert len(lines) == 1 and "--folder" in lines[0]
    return lines[0]


def test_a_folder_is_one_run_s_alone(whole: Path, tmp_path: Path, capsys: Any) -> None:
    """Frames of one seed as the first half of another's; a home folder that is filled."""
    before = frames(whole)
    assert "two: steps 60 there, 50 here" in refused(whole, capsys, "--set", "steps=50")
    assert "two: seed 0 there, 4 here" in refused(whole, capsys, "--seed", "4")
    (tmp_path / "thesis.txt").write_text("mine")
    assert "holds thesis.txt, and no run" in refused(tmp_path, capsys)
    assert frames(whole) == before and [one.name for one in tmp_path.glob("[!.]*")] == ["thesis.txt"]


def test_a_version_that_changed_is_told(whole: Path, capsys: Any, monkeypatch: Any) -> None:
    """Half of a run with one torch, half with another, and the word of one that never ran."""
    now = run_folder.versions()
    monkeypatch.setattr(run_folder, "versions", lambda: now | {"torch": "3.0"})
    assert f"torch {now['torch']} there, 3.0 here" in refused(whole, capsys)


def test_two_processes_do_not_share_a_folder(tmp_path: Path, capsys: Any) -> None:
    """Two runs that write over each other's weights."""
    with run_folder.opened(tmp_path / "run", {}):
        process = subprocess.run(
            [*COMMAND, "--folder", str(tmp_path / "run")], cwd=ROOT, capture_output=True, text=True
        )
    assert process.returncode == 2 and "another process is at work" in process.stderr


def test_a_page_shows_how_far_it_is(tmp_path: Path, monkeypatch: Any) -> None:
    """Hours without a picture."""
    monkeypatch.setattr(run_folder, "PAGE", 0.0)
    assert interrupted(monkeypatch, 20, tmp_path / "run")
    page = (tmp_path / "run" / "two" / "page.html").read_text(encoding="utf-8")
    assert "A lab that trains" in page and "<img" in page


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(
    whole: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    """A traceback, or a folder that can only be deleted."""
    folder, save = tmp_path / "run", kept._save

    def full(path: Path, parts: Any) -> None:
        if path.name == "0004.pt":
            raise OSError(28, "No space left on device", str(path))
        save(path, parts)

    with monkeypatch.context() as patch:
        patch.setattr(kept, "_save", full)
        assert run(folder) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "%" not in line]
    assert len(lines) == 1 and "No space left on device" in lines[0]
    assert run(folder) == 0 and frames(folder) == frames(whole)


def killed(folder: Path, after: Callable[[], float]) -> bool:
    """Whether a process was killed at its work, and not before or after it."""
    environment = os.environ | {"LABKIT_TEST_PAUSE": "0.1"}
    process = subprocess.Popen([*COMMAND, "--folder", str(folder)], cwd=ROOT, env=environment,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    log = folder / "log.txt"
    before = len(log.read_text().splitlines()) if log.exists() else 0
    while process.poll() is None and not (log.exists() and len(log.read_text().splitlines()) > before):
        time.sleep(0.02)
    time.sleep(after())
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX's")
def test_five_kills_at_random_moments_change_no_bit(whole: Path, tmp_path: Path) -> None:
    """A file that is read half, or a state that is one step older than what was shown."""
    chance = random.Random(7)
    kills = sum(killed(tmp_path / "run", lambda: chance.uniform(0.1, 0.8)) for _ in range(5))
    assert kills == 5
    done = subprocess.run(
        [*COMMAND, "--folder", str(tmp_path / "run")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert frames(tmp_path / "run") == frames(whole)
