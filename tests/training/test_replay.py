"""A training that was done before passes by on its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from labkit.protocol.experiment import Frame
from labkit.protocol.memory import Memory, remembering
from labkit.training import Ensemble, LossBelow, train
from labkit.training._run import TrainingRun
from tests.training.cases import CASES, data

HOW: dict[str, dict[str, Any]] = {
    "gradient descent": {"lr": 0.01, "steps": 12, "measure_at": 3},
    "minibatches with momentum, schedule and rule": {
        "lr": 0.01, "momentum": 0.9, "batch_size": 2, "epochs": 20, "schedule": {3: 0.1}, "seed": [3, 5],
        "stop": LossBelow(1e-9), "measure_at": [2, 7],
    },
    "adam": {"optimizer": "adam", "lr": 0.01, "steps": 9},
    "langevin": {"lr": 0.01, "steps": 9, "temperature": 0.1},
    "diverging": {"lr": 1e4, "steps": 40, "measure_at": 1},
}  # fmt: skip


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """How many trainings have begun."""
    begun: list[TrainingRun] = []
    frames = TrainingRun.frames
    monkeypatch.setattr(TrainingRun, "frames", lambda run: (begun.append(run), frames(run))[1])
    yield lambda: len(begun)


def ensemble(case: str = "relu") -> Ensemble:
    return Ensemble([CASES[case].build(seed) for seed in (0, 1)])


def shown(
    model: Any, case: str = "relu", power: int = 2, **how: Any
) -> list[tuple[Frame, dict[str, torch.Tensor]]]:
    """Every frame that is not a tick, and the weights beside it."""
    x, y = data()
    x = x if CASES[case].shape == (5,) else torch.zeros(len(x), *CASES[case].shape, dtype=x.dtype)
    measure = {
        "size": lambda e: torch.stack([w.flatten(1).pow(power).sum(1) for w in e.weights().values()]).sum(0)
    }
    seen = []
    for frame in train(model, x, y, measure=measure, **how):
        if not frame.is_tick:
            seen.append((frame, {name: weight.clone() for name, weight in model.weights().items()}))
    return seen


def alike(first: Any, second: Any) -> bool:
    return len(first) == len(second) and all(
        (a.step, a.progress, a.status, a.note) == (b.step, b.progress, b.status, b.note)
        and a.values.keys() == b.values.keys()
        and all(np.array_equal(a.values[name], b.values[name]) for name in a.values)
        and all(torch.equal(v[name], w[name]) for name in v)
        for (a, v), (b, w) in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
@pytest.mark.parametrize("case", ["relu", "tied"])
def test_it_shows_what_training_would(how: dict[str, Any], case: str, steps: Callable[[], int]) -> None:
    """Weights of another step, a measurement that is kept instead of taken, a rule's note that is lost."""
    with remembering(Memory()):
        first = shown(ensemble(case), **how)
        again = shown(ensemble(case), **how)
        other = shown(ensemble(case), power=4, **how)
    assert steps() == 1
    assert alike(first, again)
    assert alike(other, shown(ensemble(case), power=4, **how))
    assert not alike(first, other)


OTHERWISE: dict[str, dict[str, Any]] = {
    "lr": {"lr": 0.02}, "momentum": {"momentum": 0.8}, "steps": {"steps": 13}, "batch": {"batch_size": 2},
    "order": {"seed": 7, "batch_size": 2}, "loss": {"loss": "mean"}, "schedule": {"schedule": {2: 0.5}},
    "rule": {"stop": LossBelow(1e-5)}, "looks": {"measure_at": 2},
}  # fmt: skip


@pytest.mark.parametrize("change", OTHERWISE.values(), ids=OTHERWISE)
def test_another_training_is_trained(change: dict[str, Any], steps: Callable[[], int]) -> None:
    """Something that decides the weights and is missing from what trainings are told apart by."""
    with remembering(Memory()):
        shown(ensemble(), **HOW["gradient descent"])
        shown(ensemble(), **HOW["gradient descent"] | change)
        assert steps() == 2
        shown(Ensemble([CASES["relu"].build(seed) for seed in (0, 2)]), **HOW["gradient descent"])
        assert steps() == 3


def test_a_training_that_was_broken_off_is_not_kept(steps: Callable[[], int]) -> None:
    """A stopped run that later passes for a whole one."""
    x, y = data()
    with remembering(Memory()):
        frames = train(ensemble(), x, y, lr=0.01, steps=10, measure_at=1)
        for _ in range(4):
            next(frames)
        frames.close()
        assert len(list(train(ensemble(), x, y, lr=0.01, steps=10, measure_at=1))) == 11
    assert steps() == 2


def test_functions_of_the_caller_are_never_taken_for_the_same(steps: Callable[[], int]) -> None:
    """Two schedules of one name that differ in what they return."""
    x, y = data()
    ends = []
    with remembering(Memory()):
        for factor in (1.0, 0.1):
            model = ensemble()
            list(train(model, x, y, lr=0.01, steps=5, schedule=lambda step, factor=factor: factor))
            ends.append(model.weights())
    assert steps() == 2
    assert not torch.equal(*(next(iter(weights.values())) for weights in ends))


def test_a_small_memory_keeps_the_end_or_nothing(steps: Callable[[], int]) -> None:
    """A long run that fills the machine; and a memory that says it is whole when it is not."""
    x, y = data()
    whole = []
    for budget in (0, 2**20):
        memory = Memory(budget)
        with remembering(memory):
            for _ in range(2):
                memory.begin()
                model = ensemble()
                list(train(model, x, y, lr=0.01, steps=50, measure_at=1, read_at_end=True))
                whole.append(memory.whole)
    assert steps() == 3
    assert whole == [False, False, True, True]
    end = ensemble()
    list(train(end, x, y, lr=0.01, steps=50))
    assert all(torch.equal(w, end.weights()[name]) for name, w in model.weights().items())
