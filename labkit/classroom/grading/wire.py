"""What the student's process and the checker's say to each other.

The checker reads plain data alone: a frame names kinds, shapes and bytes, and reading it runs nothing. The
other direction may use pickle, as the student's process has no reason to mistrust the checker; by cloudpickle
a function that a test makes up on the spot, such as a loss, travels by value.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import struct
from collections.abc import Callable
from itertools import accumulate, pairwise
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
import numpy as np
import torch

LONGEST_FRAME = 2**29  # bytes
DEEPEST = 50  # levels of lists in lists
_KINDS = "biufc"  # of NumPy's numbers; an array of objects would be a way to run code


class Gone(BaseException):
    """The other side has ended. No test can take it for a mistake of the answer and go on."""


class Unreadable(BaseException):
    """A frame that no honest answer makes: too long, too deep, or not what it says it is."""


class Opaque:
    """Stands for a value of a kind that does not travel; only the name of its type does."""


def pack(value: Any, keep: Callable[[Any], int] | None = None) -> bytes:
    """Plain data as bytes: numbers, text, tensors, arrays, and lists, tuples, sets and dicts of them.

    Args:
        keep: is given each function met, and returns the number by which it can be called from afar.
    """
    buffers: list[Any] = []
    tree = _plain(value, buffers, keep, 0)
    head = json.dumps([tree, *map(len, buffers)]).encode()
    return b"".join([struct.pack(">I", len(head)), head, *buffers])


def fingerprint(value: Any) -> str:
    """Changes with what `pack` would make of a value, and takes no copy of its tensors."""
    buffers: list[Any] = []
    head = json.dumps(_plain(value, buffers, None, 0))
    return head + "".join(hashlib.blake2b(data).hexdigest() for data in buffers)


def _plain(value: Any, buffers: list[Any], keep: Callable[[Any], int] | None, depth: int) -> Any:
    def buffer(data: Any) -> int:
        buffers.append(data)
        return len(buffers) - 1

    def inner(values: Any) -> list[Any]:
        return [_plain(item, buffers, keep, depth + 1) for item in values]

    if value is None or isinstance(value, (bool, str)):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, torch.Tensor):
        dense = (value.to_dense() if value.layout != torch.strided else value).detach().cpu()
        dense = dense.resolve_conj().resolve_neg().contiguous()
        data = dense.reshape(-1).view(torch.uint8).numpy().data if dense.numel() else b""
        return ["tensor", str(value.dtype), list(value.shape), buffer(data)]
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in _KINDS:
        kind = "array" if isinstance(value, np.ndarray) else "scalar"
        return [kind, value.dtype.str, list(value.shape), buffer(value.tobytes())]
    for cls, plain in _NUMBERS.items():
        if isinstance(value, cls):
            return plain(value)
    if isinstance(value, (bytes, bytearray)):
        return ["bytes", buffer(bytes(value))]
    if depth < DEEPEST:
        for kind, cls in (("list", list), ("tuple", tuple), ("set", set)):
            if isinstance(value, cls):
                return [kind, inner(value)]
        if isinstance(value, dict):
            return ["dict", inner(value.keys()), inner(value.values())]
    if callable(value) and keep is not None:
        return ["call", keep(value)]
    return ["other", type(value).__name__]


_NUMBERS: dict[type, Callable[[Any], list[Any]]] = {
    int: lambda value: ["int", f"{value:x}"],
    float: lambda value: ["float", float(value).hex()],
    complex: lambda value: ["complex", value.real.hex(), value.imag.hex()],
    range: lambda value: ["range", *(["int", f"{n:x}"] for n in (value.start, value.stop, value.step))],
}


def unpack(frame: bytes | bytearray, call: Callable[[int], Any] | None = None) -> Any:
    """The value that `pack` was given. Nothing in a frame is run or looked up.

    Args:
        call: makes a function to call out of the number of one that stayed behind.

    Raises:
        Unreadable: the frame contradicts itself.
    """
    try:
        view = memoryview(frame)
        start = 4 + struct.unpack_from(">I", view)[0]
        tree, *sizes = json.loads(bytes(view[4:start]))
        ends = list(accumulate(sizes, initial=start))
        if ends[-1] != len(view):
            raise Unreadable("lengths that do not add up")
        buffers = [view[begin:end] for begin, end in pairwise(ends)]
        return _value(tree, buffers, call)
    except Unreadable:
        raise
    except Exception as error:  # Whatever a hostile frame breaks.
        raise Unreadable(type(error).__name__) from None


def _value(tree: Any, buffers: list[memoryview], call: Callable[[int], Any] | None) -> Any:
    if not isinstance(tree, list):
        return tree
    kind, *rest = tree
    if kind == "tensor":
        name, shape, place = rest
        dtype, data = getattr(torch, name.removeprefix("torch.")), bytearray(buffers[place])
        if math.prod(shape) * dtype.itemsize != len(data):
            raise Unreadable("a tensor of another size")
        return torch.frombuffer(data, dtype=dtype).reshape(shape) if data else torch.empty(shape, dtype=dtype)
    if kind in ("array", "scalar"):
        name, shape, place = rest
        if np.dtype(name).kind not in _KINDS:
            raise Unreadable(name)
        array = np.frombuffer(bytearray(buffers[place]), name).reshape(
            shape
        )  # A copy: tests may write to it.
        return array if kind == "array" else array[()]
    if kind == "int":
        return int(rest[0], 16)
    if kind == "float":
        return float.fromhex(rest[0])
    if kind == "complex":
        return complex(float.fromhex(rest[0]), float.fromhex(rest[1]))
    if kind == "bytes":
        return bytes(buffers[rest[0]])
    if kind == "call" and call is not None:
        return call(int(rest[0]))
    if kind == "range":
        return range(*(_value(item, buffers, call) for item in rest))
    if kind in ("list", "tuple", "set"):
        return {"list": list, "tuple": tuple, "set": set}[kind](_value(v, buffers, call) for v in rest[0])
    if kind == "dict":
        keys, values = ([_value(item, buffers, call) for item in part] for part in rest)
        return dict(zip(keys, values, strict=True))
    return type(str(rest[0])[:60] if kind == "other" else "object", (Opaque,), {})()


def assign(target: Any, value: Any) -> None:
    """Writes into tensors, arrays, lists and dicts what a function has made of them elsewhere."""
    if isinstance(target, torch.Tensor) and isinstance(value, torch.Tensor):
        if target.shape == value.shape and target.dtype == value.dtype and target.layout == torch.strided:
            target.detach().copy_(value)
        elif target.dtype == value.dtype:
            target.data = value
    elif isinstance(target, np.ndarray) and isinstance(value, np.ndarray):
        if target.shape == value.shape:
            target[...] = value
    elif isinstance(target, list) and isinstance(value, list) and len(target) != len(value):
        target[:] = value
    elif isinstance(target, (list, tuple)) and isinstance(value, (list, tuple)):
        for place, (old, new) in enumerate(zip(target, value, strict=False)):
            _assign_item(target, place, old, new)
    elif isinstance(target, dict) and isinstance(value, dict) and target.keys() == value.keys():
        for key, new in value.items():
            _assign_item(target, key, target[key], new)
    elif isinstance(target, dict) and isinstance(value, dict):
        target.clear()
        target.update(value)


def _assign_item(target: Any, key: Any, old: Any, new: Any) -> None:
    if isinstance(old, (torch.Tensor, np.ndarray, list, tuple, dict)):
        assign(old, new)
        if not isinstance(old, tuple) or fingerprint(old) == fingerprint(new):
            return
    if not (isinstance(target, tuple) or callable(old) or isinstance(new, Opaque)):
        target[key] = new


class _Pickler(cloudpickle.Pickler):
    """As torch pickles it, a tensor of 100 MB takes seconds."""

    def reducer_override(self, value: Any) -> Any:
        known = type(value) is torch.Tensor and hasattr(np, str(value.dtype).removeprefix("torch."))
        if known and value.layout == torch.strided:
            return _tensor, (value.detach().cpu().numpy(), value.is_leaf and value.requires_grad)
        return super().reducer_override(value)


def _tensor(array: np.ndarray, requires_grad: bool) -> torch.Tensor:
    return torch.from_numpy(array if array.flags.writeable else array.copy()).requires_grad_(requires_grad)


def pickled(value: Any) -> memoryview:
    """Whatever a test hands to an answer, as bytes for the student's process."""
    file = io.BytesIO()
    _Pickler(file, protocol=5).dump(value)
    return file.getbuffer()


def receive(connection: Connection, longest: int = LONGEST_FRAME) -> bytes:
    """The next frame.

    Raises:
        Gone: the other side has ended.
        Unreadable: the frame is longer than `longest` bytes, or ends early.
    """
    try:
        return connection.recv_bytes(longest)
    except (EOFError, ConnectionError):
        raise Gone from None
    except OSError as error:
        raise Unreadable(str(error)) from None
