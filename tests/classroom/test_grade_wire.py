"""Values between the two processes of an exercise: they arrive as they were, and run nothing."""

from __future__ import annotations

import contextlib
import json
import math
import pickle
import struct
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labkit.classroom.grading.wire import Unreadable, assign, fingerprint, pack, pickled, unpack

VALUES: list[Any] = [
    None, True, 3, -(10**30), 0.1, -0.0, math.inf, 2 + 3j, "ä\n\ud800", b"\0",
    [1, (2, {"a": [3]})], range(1, 9, 2),
    {1, 2}, {(1, 2): 3},
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_plain_values_arrive_as_they_were(value: Any) -> None:
    """A whole number that arrives as a float is a wrong answer to `same`."""
    found = unpack(pack(value))
    assert found == value and type(found) is type(value)
    assert math.copysign(1, found) == math.copysign(1, value) if value == 0 and value is not None else True


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.int64, torch.float32, torch.float64, torch.bfloat16, torch.complex128]
)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_tensors_arrive_with_shape_and_dtype(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """A tensor that arrives in another dtype fails tests that the answer would pass."""
    value = torch.ones(shape, dtype=dtype)
    found = unpack(pack(value))
    assert found.dtype == dtype and found.shape == value.shape and torch.equal(found, value)
    again = pickle.loads(pickled(value))
    assert again.dtype == dtype and torch.equal(again, value)


def test_tensors_of_any_layout_and_arrays_arrive() -> None:
    """Transposed, conjugated, tracked and strided tensors are what answers return."""
    base = torch.randn(3, 4, dtype=torch.complex128)
    for value in (base.T, base.conj(), base[:, ::2], base.real.requires_grad_()):
        assert torch.equal(unpack(pack(value)), value.detach().resolve_conj())
    array = np.arange(6.0).reshape(2, 3).T
    assert np.array_equal(unpack(pack(array)), array)
    assert type(unpack(pack(np.float32(2)))) is np.float32


def test_what_does_not_travel_keeps_the_name_of_its_type() -> None:
    """The reason says `got a Thing`, as it would in the notebook."""

    class Thing:
        pass

    assert type(unpack(pack(Thing()))).__name__ == "Thing"


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_unreadable(data: bytes) -> None:
    """A hostile frame must not raise what a test takes for a wrong answer, and must not end the checker."""
    with contextlib.suppress(Unreadable):
        unpack(data)


@pytest.mark.parametrize(
    "tree",
    [["tensor", "torch.float64", [10**12], 0], ["array", "O", [1], 0], ["int", "zz"], ["bytes", 5],
     ["list", 3],
     ["dict", [[]], []], ["tensor", "torch.float64", [-1], 0], ["tensor", "torch.load", [1], 0],
     ["call", 1, 2]],
    ids=str,
)  # fmt: skip
def test_a_frame_that_contradicts_itself_is_refused(tree: Any) -> None:
    """An array of objects would be a way to run code; a shape without its bytes reads foreign memory."""
    head = json.dumps([tree, 8]).encode()
    frame = struct.pack(">I", len(head)) + head + b"12345678"
    try:
        found = unpack(frame)
    except Unreadable:
        return
    assert type(found).__name__ in ("object", "call")  # A stand-in without behaviour.


def test_functions_made_up_by_a_test_travel_by_value() -> None:
    """A loss is a closure over the test's own numbers; called back over the wire it could not be traced."""
    scale, helper = torch.tensor(3.0), math.sqrt

    def loss(w: torch.Tensor, power: int = 2) -> torch.Tensor:
        return scale * (w**power).sum() + helper(4.0) + math.pi

    found = pickle.loads(pickled(loss))
    w = torch.ones(2)
    assert torch.equal(found(w), loss(w))
    assert torch.equal(torch.func.grad(found)(w), 6 * w)


def test_inputs_that_an_answer_overwrites_are_overwritten_here_too() -> None:
    """Otherwise `unchanged` never notices."""
    x, values, table = torch.zeros(2), [1.0, [2.0]], {"a": 1}
    target = [x, values, table]
    before = fingerprint(target)
    assign(target, [torch.ones(2), [5.0, [6.0, 7.0]], {"b": 2}])
    assert x.tolist() == [1, 1] and values == [5.0, [6.0, 7.0]] and table == {"b": 2}
    assert fingerprint(target) != before
