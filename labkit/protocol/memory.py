"""What a run need not do twice: results kept by the content of what they were made from.

    with remembering(memory):
        ...  # trainings, and calls through `once`, that were done before give what they gave then

A panel holds one, so that a slider that only changes what is measured acts on the networks that stand, while
every experiment stays one function from settings to frames. Without a memory nothing is kept or looked up.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from labkit.protocol.files import written

BUDGET = 2**29  # bytes
LONG = 1.0  # seconds of a call whose result is worth a file
Result = TypeVar("Result")
Step = TypeVar("Step")


class Memory:
    """Results by fingerprint; the longest unused make way when they take more than `budget` bytes.

    Args:
        budget: bytes of arrays and tensors that may be kept.
        folder: where all is kept instead, for another process to go on with; None: nowhere.
        seconds: between two moments from which it could go on.
    """

    def __init__(self, budget: int = BUDGET, folder: Path | None = None, seconds: float = 60.0) -> None:
        self.budget, self.folder, self.seconds = budget, folder, seconds
        self._kept: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._asked: set[str] = set()
        self._trainings = 0

    def place(self, key: str) -> Path | None:
        """The folder of a run's next training; the same for the same run, asked for in the same order."""
        self._trainings += 1
        return self.folder and self.folder / f"{self._trainings:04d}-{key[:12]}"

    def begin(self) -> None:
        """A run begins: `whole` speaks of what is asked for from now on."""
        self._asked = set()

    @property
    def whole(self) -> bool:
        """Whether something was asked for since `begin`, and all of it is kept for the same run to find."""
        return bool(self._asked) and self._asked <= self._kept.keys()

    def get(self, key: str) -> Any | None:
        """What was kept under a key, or None."""
        self._asked.add(key)
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def put(self, key: str, value: Any, size: int) -> None:
        """Keeps a value of so many bytes, if that fits at all."""
        if size > self.budget:
            return
        self._kept[key] = (value, size)
        while sum(taken for _, taken in self._kept.values()) > self.budget:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        self._kept.clear()


_ACTIVE: ContextVar[Memory | None] = ContextVar("memory", default=None)


def active() -> Memory | None:
    """The memory that results go into here and now."""
    return _ACTIVE.get()


@contextmanager
def remembering(memory: Memory | None) -> Iterator[None]:
    """Has trainings and calls through `once` keep their results, in this thread.

    Args:
        memory: where; None for nowhere.

    Returns:
        A context manager.
    """
    token = _ACTIVE.set(memory)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def once(function: Callable[..., Result], *args: Any, **more: Any) -> Result:
    """``function(*args, **more)``, or what it gave to equal arguments before, where there is a memory.

    Args:
        function: at the top level of a module, and without memory of its own; nobody may change its result.
        *args, **more: numbers, texts, arrays, tensors, modules, dataclasses, and sequences and dictionaries
            of these.

    Returns:
        What the function gives.

    Raises:
        TypeError: an argument is of another kind.
        OSError: the folder of the memory cannot be written.
    """
    memory = active()
    if memory is None:
        return function(*args, **more)
    key = fingerprint((f"{function.__module__}.{function.__qualname__}", args, more))
    if memory.folder is not None:
        return _kept(memory.folder / f"once-{key[:16]}.pt", lambda: function(*args, **more))
    found = memory.get(key)
    if found is None:
        found = (function(*args, **more),)
        memory.put(key, found, size_of(found))
    return found[0]


def once_along(
    steps: Callable[..., Generator[Step, None, Result]], *args: Any, asked: Any
) -> Generator[Step, None, Result]:
    """``yield from steps(*args)``, or, where there is a memory, what that returned before, without a step.

    Args:
        steps: a generator function at the top level of a module; nobody may change what it returns.
        *args: what it takes.
        asked: all that decides what it returns, as the arguments of `once`.

    Yields:
        What the steps yield.

    Returns:
        What they return.

    Raises:
        TypeError: `asked` is of another kind.
    """
    memory = active()
    if memory is None:
        return (yield from steps(*args))
    key = fingerprint((f"{steps.__module__}.{steps.__qualname__}", asked))
    found = memory.get(key)
    if found is None:
        found = ((yield from steps(*args)),)
        memory.put(key, found, size_of(found))
    return found[0]


def _kept(path: Path, made: Callable[[], Result]) -> Result:
    """What a file holds, or what is made now and, if that takes a while, written for another process."""
    import torch

    if path.exists():
        # Tensors, numbers and texts; no code of whoever made the folder runs.
        found: Result = _unpacked(torch.load(path, weights_only=True))
        return found
    start = time.monotonic()
    result = made()
    if time.monotonic() - start < LONG:
        return result
    try:
        packed = _packed(result)
    except TypeError:  # of a kind that it would take code to read
        return result
    path.parent.mkdir(parents=True, exist_ok=True)
    with written(path) as file:
        torch.save(packed, file)
    return result


def _packed(value: Any) -> Any:
    """A result as plain containers: arrays as tensors, each kind by its name."""
    import torch

    if isinstance(value, (np.ndarray, np.generic)):
        return "array", torch.from_numpy(np.array(value))
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [_packed(one) for one in value]
    if isinstance(value, torch.Tensor) or value is None or isinstance(value, (bool, int, float, str)):
        return "plain", value
    raise TypeError(f"a {type(value).__name__} is no result that a folder could keep")


def _unpacked(packed: tuple[str, Any]) -> Any:
    kind, value = packed
    if kind == "array":
        return value.numpy()
    if kind in ("list", "tuple"):
        several = [_unpacked(one) for one in value]
        return several if kind == "list" else tuple(several)
    return value


def fingerprint(value: Any) -> str:
    """A digest of content: equal for equal types, shapes and bytes.

    Args:
        value: as the arguments of `once`.

    Returns:
        40 hexadecimal digits.

    Raises:
        TypeError: the value holds something whose content cannot be told, such as a function.
    """
    digest = hashlib.blake2b(digest_size=20)
    for part in _parts(value):
        digest.update(part)
    return digest.hexdigest()


def size_of(value: Any) -> int:
    """Bytes of the arrays and tensors in a value.

    Args:
        value: as the arguments of `once`.

    Returns:
        Their sum, and a few bytes for each object.

    Raises:
        TypeError: the value holds something of another kind.
    """
    return sum(len(part) for part in _parts(value))


def _parts(value: Any) -> Iterator[Any]:
    """The content of a value as headers and buffers."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.generic)):
        yield f"{type(value).__name__}:{value!r};".encode()
    elif isinstance(value, np.ndarray):
        yield f"array:{value.dtype}:{value.shape};".encode()
        yield np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
    elif isinstance(value, Mapping):
        yield f"{{{len(value)};".encode()
        for name, inside in value.items():
            yield from _parts(name)
            yield from _parts(inside)
    elif isinstance(value, Sequence):
        yield f"{type(value).__name__}:{len(value)};".encode()
        for inside in value:
            yield from _parts(inside)
    elif is_dataclass(value) and not isinstance(value, type):
        yield f"{type(value).__qualname__};".encode()
        for item in fields(value):
            yield from _parts(getattr(value, item.name))
    else:
        yield from _torch_parts(value)


def _torch_parts(value: Any) -> Iterator[Any]:
    import torch

    if isinstance(value, torch.Tensor):
        yield f"tensor:{value.dtype}:{tuple(value.shape)}:{value.device};".encode()
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    elif isinstance(value, torch.nn.Module):
        yield f"{type(value).__qualname__}:{value}:{[part.training for part in value.modules()]};".encode()
        yield from _parts(dict(value.named_parameters()))
        yield from _parts(dict(value.named_buffers()))
    elif isinstance(value, (torch.device, torch.dtype, torch.Size)):
        yield f"{value};".encode()
    else:
        raise TypeError(f"a {type(value).__name__} has no content that could be compared")
