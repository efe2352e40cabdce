"""A lab that trains two small networks, one after the other, as slowly as a test asks for."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from labkit.models import mlp
from labkit.protocol.experiment import Experiment, Frame, Lab
from labkit.protocol.settings import Settings, knob
from labkit.training import Ensemble, train
from tests.tinylab import DECAY


@dataclass(frozen=True)
class Two(Settings):
    steps: int = knob(60, "steps of each", slider=(1, 100), bounds=(1, None))


def _prepare(settings: Two) -> Two:
    return settings


def _data(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(20, 4, generator=generator), torch.randn(20, 2, generator=generator)


def _run(settings: Two, prediction: Any) -> Iterator[Frame]:
    seeds = range(settings.seed, settings.seed + settings.seeds)
    ensemble = Ensemble([mlp(4, 8, 1, 2, seed=seed) for seed in seeds])
    for k in (0, 1):
        x, y = _data(k)
        for frame in train(ensemble, x, y, lr=0.01, momentum=0.9, batch_size=5, steps=settings.steps,
                           measure_at=5, measure={"size": _size}):  # fmt: skip
            time.sleep(float(os.environ.get("LABKIT_TEST_PAUSE", "0")))
            yield replace(frame, step=k * settings.steps + frame.step, status="running")
    yield Frame(2 * settings.steps, {}, 1.0, "done")


def _size(ensemble: Ensemble) -> Tensor:
    return sum((w.flatten(1).square().sum(1) for w in ensemble.weights().values()), torch.zeros(()))


TWO = replace(
    DECAY, name="two", settings=Two, presets={"quick": Two()}, prepare=_prepare, run=_run,
    claims=(replace(DECAY.claims[0], worlds=()),),
)  # fmt: skip
LAB = Lab(7, "slow", "A lab that trains", "Nobody, Nothing", (TWO,), core=("T1",), notebook="07_slow")
assert isinstance(TWO, Experiment)
