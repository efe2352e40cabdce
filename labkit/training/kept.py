"""A training in a folder: what was shown of it and where it stands, so that another process goes on.

    0000.pt, 0001.pt, ...    one a frame: its values, and the weights that it was shown on
    checkpoint.pt            where the training stood lately, and how many frames had been shown by then

Each file appears whole or not at all, so the process may end at any moment. Frames after the checkpoint are
computed again, to the same bits on a CPU.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from labkit.protocol.experiment import Frame
from labkit.protocol.files import written
from labkit.training._run import TrainingRun, copy_into

Frames = Generator[Frame, None, None]


def kept(run: TrainingRun, folder: Path, seconds: float, *, every_look: bool) -> Frames:
    """The frames of a training: those that are in the folder, and from the checkpoint on those of the run.

    Args:
        run: what trains.
        folder: of this training alone.
        seconds: between checkpoints.
        every_look: whether the weights of every frame are asked for, or of the last alone.

    Raises:
        OSError: the folder cannot be written. What is in it stays good.
    """
    folder.mkdir(parents=True, exist_ok=True)
    saved = _load(folder / "checkpoint.pt", run) if (folder / "checkpoint.pt").exists() else {"shown": 0}
    for place in range(saved["shown"]):
        yield _shown(_load(folder / _name(place), run), run)
    if "step" not in saved and saved["shown"]:
        return  # it had come to its end
    if "step" in saved:
        run.resume(saved)
    shown, last = saved["shown"], time.monotonic()

    def stand(step: int) -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            _save(folder / "checkpoint.pt", run.checkpoint(step) | {"shown": shown})
            last = time.monotonic()

    run.each_step = stand
    for frame in run.frames():
        if not frame.is_tick:
            wanted = every_look or frame.status != "running"
            _save(folder / _name(shown), _parts(frame, run.state if wanted else None))
            shown += 1
        yield frame
    _save(folder / "checkpoint.pt", {"shown": shown})


def _name(place: int) -> str:
    return f"{place:04d}.pt"


def _parts(frame: Frame, state: list[Tensor] | None) -> dict[str, Any]:
    facts = {"step": frame.step, "progress": frame.progress, "status": frame.status, "note": frame.note}
    values = {name: torch.from_numpy(value) for name, value in frame.values.items()}
    return {"facts": facts, "values": values, "state": state}


def _shown(parts: Mapping[str, Any], run: TrainingRun) -> Frame:
    if parts["state"] is not None:
        copy_into(run.state, parts["state"])
    values = {name: value.cpu().numpy() for name, value in parts["values"].items()}
    if parts["state"] is not None and parts["facts"]["status"] != "diverged":
        values |= run.measured()  # anew: a measure may leave things with its caller, as it did then
    return Frame(values=values, **parts["facts"])


def _save(path: Path, parts: Mapping[str, Any]) -> None:
    with written(path) as file:
        torch.save(parts, file)


def _load(path: Path, run: TrainingRun) -> dict[str, Any]:
    """Tensors, numbers and texts; no code of whoever made the folder runs."""
    found: dict[str, Any] = torch.load(path, map_location=run.ensemble.device, weights_only=True)
    return found
