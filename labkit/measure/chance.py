"""Does chance reach the outputs? Seen by the calls made, not by the names of layers.

Every random operation of torch passes the dispatcher. What it wrote is marked, and so is everything computed
from that; in the end the outputs are marked or not. A threshold on two evaluations cannot see this:
stochastic depth at rate .1 draws "keep" for both nine times in ten, and a layer scale of 1e-6 hides it
always.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Chance"]

# Random operations that torch does not tag as such.
_UNTAGGED = ("random", "binomial", "_sample_dirichlet")
# How a number leaves torch, so that Python decides by it.
_LEAVING = ("_local_scalar_dense", "is_nonzero", "equal")


class Chance(TorchDispatchMode):
    """Follows random numbers through one evaluation.

    Attributes:
        drawn: names of the random operations that were called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[str] = []
        self._decided = False
        # Held, so that no other tensor gets their place in memory meanwhile.
        self._marked: dict[int, Any] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # torch would import its compiler to keep it away from here: two seconds of a first call.
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        random = _is_random(func, args, kwargs)
        if random:
            self.drawn.append(func._schema.name.removeprefix("aten::"))
        out = func(*args, **kwargs)
        if random or any(self.reached(t) for t in _tensors((args, kwargs))):
            if func._schema.name.removeprefix("aten::") in _LEAVING:
                self._decided = True
            for t in (*_tensors(out), *_written(func, args, kwargs)):
                storage = t.untyped_storage()
                self._marked[storage._cdata] = storage
        return out

    def reached(self, t: Tensor) -> bool:
        """Whether `t` was computed from random numbers, or after Python had looked at one."""
        return self._decided or (bool(self._marked) and t.untyped_storage()._cdata in self._marked)


def _is_random(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    name = func._schema.name.removeprefix("aten::")
    if torch.Tag.nondeterministic_seeded not in func.tags and name.rstrip("_") not in _UNTAGGED:
        return False
    # Kernels are tagged for what they may do: in training mode, or at a rate.
    given = {argument.name: value for argument, value in _named(func, args, kwargs)}
    if given.get("training") is False or given.get("train") is False:
        return False
    rates = [given[rate] for rate in ("dropout_p", "dropout") if rate in given]
    if rates:
        return any(rate > 0 for rate in rates)
    return "attention" not in name


def _named(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    for number, argument in enumerate(func._schema.arguments):
        if number < len(args):
            yield argument, args[number]
        elif argument.name in kwargs:
            yield argument, kwargs[argument.name]
        elif argument.has_default_value():
            yield argument, argument.default_value


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    for argument, value in _named(func, args, kwargs):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from _tensors(value)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.layout == torch.strided:
            yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
