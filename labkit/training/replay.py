"""A training that was done before is shown again from its weights, not done again."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from labkit.protocol.experiment import Frame
from labkit.protocol.memory import Memory, fingerprint, size_of
from labkit.training._run import TrainingRun, copy_into
from labkit.training.kept import kept

Frames = Generator[Frame, None, None]


@dataclass(frozen=True)
class Look:
    """A frame without what was measured, and the weights that it was measured on (None: nobody asks)."""

    frame: Frame
    state: list[Tensor] | None


def remembered(run: TrainingRun, asked: tuple[Any, ...], memory: Memory, *, every_look: bool) -> Frames:
    """The frames of a training, from its weights where `memory` holds them, and kept there otherwise.

    Measures are taken anew, on the same weights; their values are not kept. Where the memory has a folder,
    all is kept there as it goes, values too, so that another process can go on (`labkit.training.kept`).

    Args:
        run: what trains.
        asked: all that decides which weights it comes to, besides its ensemble.
        memory: where weights are kept.
        every_look: whether those of every frame are asked for, or of the last alone.
    """
    try:
        built = run.ensemble.member(0), run.ensemble.route, run.state
        key = fingerprint((built, asked, every_look))
    except TypeError:  # by a function of the caller's, of which nobody knows whether it is the same
        yield from run.frames()
        return
    if place := memory.place(key):
        yield from kept(run, place, memory.seconds, every_look=every_look)
        return
    looks = memory.get(key)
    if looks is not None:
        yield from _again(run, looks)
        return
    looks, size = [], 0
    for frame in run.frames():
        if not frame.is_tick and size <= memory.budget:
            own = {name: value for name, value in frame.values.items() if name not in run.measure}
            wanted = every_look or frame.status != "running"
            looks.append(Look(replace(frame, values=own), run.copied() if wanted else None))
            size += size_of([*own.values(), *(looks[-1].state or ())])
        yield frame
    memory.put(key, looks, size)


def _again(run: TrainingRun, looks: list[Look]) -> Frames:
    good: dict[str, np.ndarray] = {}
    for look in looks:
        if look.state is not None:
            copy_into(run.state, look.state)
        frame = look.frame
        if frame.status == "diverged":  # which shows the values of the last good step again
            yield replace(frame, values=good, again=True)
            continue
        good = {**frame.values, **run.measured()}
        yield replace(frame, values=good, again=True)
