"""What a run need not do twice."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from labkit.protocol import memory as memory_of
from labkit.protocol.memory import Memory, fingerprint, once, once_along, remembering

CALLS: list[Any] = []


def squared(value: Any, *, times: int = 1) -> Any:
    CALLS.append(value)
    return times * value * value


@dataclass(frozen=True)
class Point:
    x: float
    y: np.ndarray


def test_what_was_done_is_not_done_again() -> None:
    """Results of other arguments, or results where nobody asked for a memory."""
    CALLS.clear()
    memory = Memory()
    with remembering(memory):
        assert [once(squared, 3), once(squared, 3), once(squared, 3, times=2), once(squared, 4)] == [
            9,
            9,
            18,
            16,
        ]
        assert len(CALLS) == 3
    assert once(squared, 3) == 9 and len(CALLS) == 4
    memory.clear()
    with remembering(memory):
        once(squared, 3)
    assert len(CALLS) == 5


def counted(steps: int) -> Generator[int, None, int]:
    yield from range(steps)
    return 10 * steps


def test_steps_that_were_taken_are_not_taken_again() -> None:
    """Catches: a search for a learning rate that is made anew where only what is measured changes."""

    def told(steps: int) -> Generator[int, None, None]:
        result = yield from once_along(counted, steps, asked=steps)
        yield result

    assert list(told(2)) == list(told(2)) == [0, 1, 20]
    memory = Memory()
    memory.begin()
    assert not memory.whole
    with remembering(memory):
        assert list(told(2)) == [0, 1, 20] and list(told(2)) == [20] and list(told(1)) == [0, 10]
    assert memory.whole


def test_content_tells_values_apart_and_nothing_else_does() -> None:
    """Two values of one fingerprint; equal ones of two."""
    linear = nn.Linear(2, 2)
    other = nn.Linear(2, 2)
    other.load_state_dict(linear.state_dict())
    assert fingerprint(linear) == fingerprint(other)
    assert fingerprint(Point(1.0, np.ones(3))) == fingerprint(Point(1.0, np.ones(3)))
    assert fingerprint(torch.arange(6.0).view(2, 3).T) == fingerprint(
        torch.tensor([[0.0, 3], [1, 4], [2, 5]])
    )
    values = [
        1, 1.0, True, "1", None, (1,), [1], ((1,),), (1, 1), {"a": 1}, {"b": 1}, np.ones(3), np.ones((3, 1)),
        np.ones(3, np.float32), torch.ones(3), torch.ones(3, dtype=torch.bfloat16), Point(1.0, np.ones(3)),
        Point(1.0, np.zeros(3)), linear, nn.Linear(2, 2), nn.Linear(2, 2).eval(), nn.Sequential(linear),
    ]  # fmt: skip
    assert len({fingerprint(value) for value in values}) == len(values)
    other.weight.data[0, 0] += 1
    assert fingerprint(linear) != fingerprint(other)
    with pytest.raises(TypeError, match="function"):
        fingerprint(lambda: 0)


def test_the_longest_unused_makes_way() -> None:
    """A memory that grows without end, or loses what is in use."""
    memory = Memory(budget=250)
    for key in "ab":
        memory.put(key, key, 100)
    memory.begin()
    assert memory.get("a") == "a"
    memory.put("c", "c", 100)
    assert memory.whole and memory.get("b") is None and not memory.whole
    memory.put("d", "d", 1000)
    assert (memory.get("a"), memory.get("c"), memory.get("d")) == ("a", "c", None)


def several(x: float) -> tuple[list[Any], Any]:
    CALLS.append(x)
    return [np.full((2, 3), x), float(x), None, "text"], torch.arange(3.0)


def pointed(x: float) -> Point:
    CALLS.append(x)
    return Point(x, np.ones(2))


def test_a_folder_keeps_what_took_long_for_another_process(tmp_path: Path, monkeypatch: Any) -> None:
    """An SVD of an hour, done again because the process ended; a shape or a type that a file loses."""
    monkeypatch.setattr(memory_of, "LONG", 0.0)
    CALLS.clear()
    found = []
    for _ in range(2):
        with remembering(Memory(0, tmp_path / "run")):
            found.append((once(several, 2.0), once(several, 3.0), once(pointed, 4.0)))
    assert CALLS == [2.0, 3.0, 4.0, 4.0]  # a dataclass is no matter for a file: made again
    (first, other, _), (again, _, _) = found
    assert isinstance(again, tuple) and isinstance(again[0], list) and again[0][1:] == [2.0, None, "text"]
    assert again[0][0].dtype == np.float64 and np.array_equal(again[0][0], first[0][0])
    assert torch.equal(again[1], first[1]) and other[0][1] == 3.0


def test_a_short_call_makes_no_file(tmp_path: Path) -> None:
    """A folder of ten thousand files."""
    with remembering(Memory(0, tmp_path / "run")):
        once(several, 2.0)
    assert not (tmp_path / "run").exists()
