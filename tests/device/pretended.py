"""A device that is not the CPU, where there is none: its tensors say `pretend:0` and live in main memory.

    with pretended() as log:
        ...  # anything with device="pretend"
    log.waits["training/_run.py"]

What a card refuses, operands on two devices, is refused. What it would wait for (`item`, `tolist`, `nonzero`,
a copy to the host) and what is carried over to it is counted, by the line of labkit that asked. torch
registers such a backend for the whole process: tests that want it are marked `apart`, and run in processes of
their own (test_apart.py). The function is not public: where torch lacks it, `UNAVAILABLE` says so.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import labkit

NAME = "pretend"
UNAVAILABLE = "" if "LABKIT_APART" in os.environ else "runs apart from other tests: LABKIT_APART=1"
if not UNAVAILABLE:
    try:
        from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

        _setup_privateuseone_for_python_backend(NAME)
        torch.get_device_module(NAME).get_amp_supported_dtype = list  # a checkpoint asks
    except ImportError:
        UNAVAILABLE = f"torch {torch.__version__} takes no backend that is written in Python"

HOME = Path(labkit.__file__).parent
aten = torch.ops.aten
# The host asks for a value, or for a shape that depends on values.
WAITS = {
    aten._local_scalar_dense.default, aten.equal.default, aten.is_nonzero.default, aten.nonzero.default,
    aten.masked_select.default, aten._unique2.default, aten.unique_consecutive.default, aten.bincount.default,
    aten.repeat_interleave.Tensor,
}  # fmt: skip
# These alone take indices from the host, and copy them.
INDEXING = {
    aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default,
}  # fmt: skip


@dataclass
class Log:
    """How often the host waited for the device, and how many bytes went either way, by line of labkit."""

    waits: Counter[str] = field(default_factory=Counter)
    to_host: Counter[str] = field(default_factory=Counter)
    to_device: Counter[str] = field(default_factory=Counter)

    def waited(self) -> None:
        self.waits[_line()] += 1

    def copied(self, value: torch.Tensor, to_device: bool) -> None:
        size = value.numel() * value.element_size()
        (self.to_device if to_device else self.to_host)[_line()] += size
        if not to_device:
            self.waited()


def _line() -> str:
    """Where in labkit this was asked for, as "training/_run.py:210"."""
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if HOME in path.parents:
            return f"{path.relative_to(HOME).as_posix()}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


_logs = [Log()]


class Pretended(torch.Tensor):
    """A tensor on the device; `inner` holds its numbers."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Pretended:
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined,no-any-return]
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, layout=inner.layout, device=torch.device(NAME, 0),
            requires_grad=inner.requires_grad,
        )  # fmt: skip

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    @property
    def data(self) -> Any:
        return self.detach()

    @data.setter
    def data(self, value: Any) -> None:
        torch.Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.inner = value.inner

    def tolist(self) -> Any:
        _logs[-1].waited()
        return self.inner.tolist()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Pretended({self.inner!r})"

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _carried_out(func, args, kwargs or {})


class _Everywhere(TorchDispatchMode):
    """Factories, too, which have no tensor to be told from."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _carried_out(func, args, kwargs or {})


def _is_there(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _bare(value: Any) -> Any:
    return value.inner if isinstance(value, Pretended) else value


def _carried_out(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """One operator: done on the numbers, and its results put where a card would have them."""
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    there = [t for t in tensors if isinstance(t, Pretended)]
    here = [t for t in tensors if not isinstance(t, Pretended)]
    asked = kwargs.get("device")
    on_cpu = {**kwargs, "device": torch.device("cpu")} if asked is not None else dict(kwargs)

    def done() -> Any:
        return func(*tree_map(_bare, args), **tree_map(_bare, on_cpu))

    if func is aten.copy_.default:
        if there and here:
            _logs[-1].copied(tensors[1], isinstance(tensors[0], Pretended))
        done()
        return args[0]
    if func is aten._to_copy.default:
        goes = bool(there) if asked is None else _is_there(asked)
        if goes != bool(there):
            _logs[-1].copied(tensors[0], goes)
        return Pretended(done()) if goes else done()
    if there:
        _refuse_two_devices(func, here)
        if func in WAITS or (func in INDEXING and _as_many_as_a_mask_says(args)):
            _logs[-1].waited()
    elif not _is_there(asked):
        return func(*args, **kwargs)
    found = done()
    if asked is not None and not _is_there(asked):
        return found
    if func is aten._efficientzerotensor.default:  # has no numbers, which nothing below here would expect
        found = torch.zeros_like(found, device="cpu")
    known = {id(t.inner): t for t in there}  # what an operator in place gives back

    def wrapped(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return known[id(value)] if id(value) in known else Pretended(value)

    return tree_map(wrapped, found)


def _as_many_as_a_mask_says(args: tuple[Any, ...]) -> bool:
    """x[mask], or x[mask] = y with several numbers: the host has to know how many."""
    masks = [index for index in args[1] if index is not None and index.dtype in (torch.bool, torch.uint8)]
    return bool(masks) and (len(args) < 3 or args[2].numel() > 1)


def _refuse_two_devices(func: Any, here: list[torch.Tensor]) -> None:
    """As a card does: numbers without dimensions are taken along, and indices are copied.

    Raises:
        RuntimeError: other tensors of the host.
    """
    large = [t for t in here if t.dim()]
    if not large:
        return
    if func not in INDEXING or any(t.dtype not in (torch.int64, torch.bool) for t in large):
        shapes = [tuple(t.shape) for t in large]
        raise RuntimeError(f"{func}: tensors on two devices, {NAME}:0 and cpu {shapes}")
    for index in large:
        _logs[-1].copied(index, to_device=True)


@contextmanager
def pretended() -> Iterator[Log]:
    """In here there is a device "pretend"."""
    _logs.append(Log())
    # Numbers from Python become a tensor of the host first, and go over where they can be seen to go.
    lifts = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        with _Everywhere():
            yield _logs[-1]
    finally:
        torch._C._set_only_lift_cpu_tensors(lifts)
        _logs.pop()


def on_device(settings: Any) -> Any:
    """The same settings with device "pretend", which no control offers."""
    there = settings.replace()
    object.__setattr__(there, "device", NAME)
    return there
