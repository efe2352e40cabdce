"""A training that is ended at any moment goes on in another process, to the same bits."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from labkit.protocol.memory import Memory, remembering
from labkit.training import kept, train
from labkit.training._run import TrainingRun
from labkit.training.batches import Batches
from labkit.training.ensemble import Ensemble
from labkit.training.optimizers import SGD, Adam
from tests.training.cases import CASES, data
from tests.training.test_replay import HOW, alike, ensemble, shown

save = kept._save


@pytest.fixture(autouse=True)
def no_waiting_for_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only a failure of power would miss."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def until(at: int) -> Callable[[Path, Any], None]:
    """Writes files, and ends the process when it comes to that one."""
    files = itertools.count()

    def write(path: Path, parts: Any) -> None:
        if next(files) == at:
            raise KeyboardInterrupt
        save(path, parts)

    return write


def ended(patch: pytest.MonkeyPatch, at: int, work: Callable[[], Any]) -> bool:
    """Whether the process ended before its work did."""
    with patch.context() as its:
        its.setattr(kept, "_save", until(at))
        try:
            work()
        except KeyboardInterrupt:
            return True
    return False


def in_folder(folder: Path, case: str, how: dict[str, Any]) -> Any:
    with remembering(Memory(0, folder, 0.0)):
        return shown(ensemble(case), case, **how)


@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
@pytest.mark.parametrize("case", ["relu", "tied"])
def test_it_goes_on_to_the_same_bits(
    how: dict[str, Any], case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A velocity, an order of samples, a stopped copy, the noise that come back as they were at the start."""
    alone = shown(ensemble(case), case, **how)
    for at in itertools.count(1, 4):
        folder = tmp_path / str(at)
        if not ended(monkeypatch, at, lambda folder=folder: in_folder(folder, case, how)):
            break
        ended(monkeypatch, 2, lambda folder=folder: in_folder(folder, case, how))
        assert alike(alone, in_folder(folder, case, how)), at
    assert at > len(alone)


@pytest.mark.parametrize(
    ("how", "what", "without"),
    [
        ("minibatches with momentum, schedule and rule", SGD, {"state": property(lambda own: [])}),
        ("adam", Adam, {"state": property(lambda own: [])}),
        ("minibatches with momentum, schedule and rule", Batches, {"resume": lambda own, saved: None}),
    ],
    ids=["velocity", "moments", "orders"],
)
def test_what_is_left_out_would_be_seen(
    how: str, what: Any, without: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison above, were it blind."""
    alone = shown(ensemble(), **HOW[how])
    for name, value in without.items():
        monkeypatch.setattr(what, name, value)
    assert ended(monkeypatch, 9, lambda: in_folder(tmp_path, "relu", HOW[how]))
    assert not alike(alone, in_folder(tmp_path, "relu", HOW[how]))


def test_what_has_ended_takes_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hours of training for figures that are there."""
    how = HOW["adam"]
    first = in_folder(tmp_path, "relu", how)
    monkeypatch.delattr(TrainingRun, "frames")
    assert alike(first, in_folder(tmp_path, "relu", how))


def test_two_trainings_of_one_network_keep_their_own_measures(tmp_path: Path) -> None:
    """A number of one training that stands as that of the other, which measured something else."""
    with remembering(Memory(0, tmp_path, 0.0)):
        found = [shown(ensemble(), power=power, **HOW["adam"]) for power in (2, 4)]
    with remembering(Memory(0, tmp_path, 0.0)):
        again = [shown(ensemble(), power=power, **HOW["adam"]) for power in (2, 4)]
    assert all(map(alike, found, again)) and not alike(*found)


def test_measures_are_asked_in_each_process_for_each_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A measure that counts steps or keeps what it saw, without those of the process before."""
    x, y = data()

    def seen() -> list[int]:
        steps, asked = iter(range(0, 20, 3)), []

        def measure(e: Ensemble) -> torch.Tensor:
            asked.append(next(steps))
            return torch.full((e.size,), float(asked[-1]))

        how: dict[str, Any] = {"lr": 0.01, "steps": 18, "measure_at": 3, "measure": {"step": measure}}
        with remembering(Memory(0, tmp_path, 0.0)):
            for frame in train(Ensemble([CASES["relu"].build(0)]), x, y, **how):
                assert frame.is_tick or frame.values["step"] == frame.step
        return asked

    assert ended(monkeypatch, 9, seen)
    assert seen() == seen() == list(range(0, 20, 3))


def test_weights_that_nobody_reads_are_not_written(tmp_path: Path) -> None:
    """A folder of a thousand copies of a large network."""
    x, y = data()
    for name, at_end in (("all", False), ("last", True)):
        with remembering(Memory(0, tmp_path / name, 60.0)):
            frames = train(Ensemble([CASES["relu"].build(0)]), x, y, lr=0.01, steps=20, read_at_end=at_end)
            assert sum(not frame.is_tick for frame in frames) == 21
    held = {
        name: sum(torch.load(file, weights_only=True)["state"] is not None for file in folder)
        for name in ("all", "last")
        if (folder := [*(tmp_path / name).glob("*/[0-9]*.pt")])
    }
    assert held == {"all": 21, "last": 1}


def test_a_disk_that_is_full_is_an_error_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a checkpoint in the place of a whole one."""
    how = HOW["gradient descent"]
    alone = shown(ensemble(), **how)

    def full(parts: Any, file: Any) -> None:
        file.write(b"half of ")
        raise OSError(28, "No space left on device")

    assert ended(monkeypatch, 4, lambda: in_folder(tmp_path, "relu", how))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.pt")}
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(OSError, match="No space left"):
            in_folder(tmp_path, "relu", how)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert alike(alone, in_folder(tmp_path, "relu", how))
