"""One forward pass of one sample, call by call: how layers are found without knowing an architecture.

`follow` watches torch's functions, of modules and of functional code alike, and keeps for each call what it
is (`steps.read`) and which earlier calls made its inputs. Beside the sample it can carry a second value
through the same pass: that is how `paths` sums over all paths of any network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from labkit.measure.guards import refuse_not_finite
from labkit.measure.steps import Moved, Step, read, tensors

__all__ = ["Call", "Carry", "evaluating", "follow"]

# (step, carried value before, where it is) -> carried value behind
Carry: TypeAlias = Callable[[Step, Tensor, str], Tensor]
INPUT = -1


@dataclass(frozen=True)
class Call:
    """A step; where it was met, as " (in ReLU '1')"; and the places of the calls that made its inputs."""

    step: Step
    where: str
    parents: tuple[int, ...]


def follow(
    model: nn.Module, x: Tensor, carry: Carry | None = None
) -> tuple[list[Call], int | None, Tensor | None]:
    """The calls of a forward pass in evaluation mode, the place of the one that made the output, if one did,
    and the carried value there.

    Args:
        model: run on one sample, and left as it was.
        x: (n, ...) inputs; the first is used.
        carry: (step, value, where) -> value; it begins with ones in the shape of a sample, float64. Moves are
            made by the model's own calls.

    Raises:
        TypeError: `model` is no module. ValueError: `x` has no sample, or a parameter is not finite.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: got {type(model).__name__}; it takes a torch.nn.Module")
    if not isinstance(x, Tensor) or x.ndim < 2 or len(x) == 0:
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"x: got {got}; it takes inputs (n, ...) with at least one sample")
    refuse_not_finite(dict(model.named_parameters()), None, "model")
    first = next(model.parameters(), None)
    sample = x[:1].detach().clone()
    if first is not None:
        sample = sample.to(first) if sample.is_floating_point() else sample.to(first.device)
    follower = _Follower(model, sample, carry)
    with evaluating(model), torch.no_grad(), follower.watching(model), follower:
        out = model(sample)
    found = next((value for value in tensors(out) if id(value) in follower.makers), None)
    if found is None:
        return follower.calls, None, None
    return follower.calls, follower.makers[id(found)], follower.carried.get(id(found))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; each module gets its own mode back."""
    changed = [part for part in model.modules() if part.training]
    for part in changed:
        part.training = False
    try:
        yield
    finally:
        for part in changed:
            part.training = True


class _Follower(TorchFunctionMode):
    """Watches the calls of one forward pass. Tensors are held, so that no id is given out again."""

    def __init__(self, model: nn.Module, sample: Tensor, carry: Carry | None) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.makers = {id(sample): INPUT}
        self.carried: dict[int, Tensor] = {}
        if carry is not None:
            self.carried[id(sample)] = torch.ones(sample.shape, dtype=torch.float64, device=sample.device)
        self._carry = carry
        self._held: list[Any] = [sample]
        self._where: list[str] = []
        self._kinds = {name: type(part).__name__ for name, part in model.named_modules()}
        named = [*model.named_parameters(), *model.named_buffers()]
        self._names = {id(tensor): _short(name) for name, tensor in named}
        self._trained = {_short(name) for name, _ in model.named_parameters()}

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Knows, meanwhile, which module is running."""
        with ExitStack() as hooks:
            for name, part in model.named_modules():
                enter = part.register_forward_pre_hook(lambda *_, name=name: self._where.append(name))
                leave = part.register_forward_hook(lambda *_: self._leave(), always_call=True)
                hooks.callback(enter.remove)
                hooks.callback(leave.remove)
            yield

    def _leave(self) -> None:
        self._where.pop()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        inputs = list(tensors([args, kwargs]))
        given = [value for value in inputs if id(value) in self.makers]
        shapes = [tuple(value.shape) for value in given]
        parents = tuple(self.makers[id(value)] for value in given)
        out = func(*args, **kwargs)
        if name == "__setitem__" and given:
            out, name = args[0], "writing into a part of a tensor"
        results = list(tensors(out))
        constant = name.startswith("new_") or name.endswith("_like")
        if not results or not given or constant:
            # W.T of a parameter is still that parameter.
            known = next((self._names[id(value)] for value in inputs if id(value) in self._names), None)
            if known and not given:
                self._names.update({id(value): known for value in results})
                self._held += results
            return None if name.startswith("writing") else out
        matrices = [
            found for value in inputs if value.ndim > 1 and (found := self._named(value)) in self._trained
        ]
        steps = read(name, given, shapes, out, args, kwargs, self._named, matrices)
        module = self._where[-1] if self._where else ""
        where = f" (in {self._kinds[module]} {module!r})" if module else ""
        for step in steps:
            self.calls.append(Call(step, where, parents))
        self._pass_on(steps[-1], func, args, kwargs, given, results, where)
        self.makers.update({id(value): len(self.calls) - 1 for value in results})
        self._held += results
        return None if name.startswith("writing") else out

    def _named(self, weight: Tensor) -> str | None:
        """A parameter's name; of a parameter that the model does not list, the module that uses it."""
        found = self._names.get(id(weight))
        if found is None and isinstance(weight, nn.Parameter):
            return self._where[-1] if self._where else "a parameter"
        return found

    def _pass_on(
        self,
        step: Step,
        func: Any,
        args: Any,
        kwargs: Any,
        given: list[Tensor],
        results: list[Tensor],
        where: str,
    ) -> None:
        if self._carry is None:
            return
        first, inplace = self.carried[id(given[0])], results[0] is given[0]
        if isinstance(step, Moved) and not step.same:
            # A carried value may lie otherwise in memory, where a view of it is refused.
            func = Tensor.reshape if func is Tensor.view else func
            moved = list(tensors(func(*_exchanged(args, self.carried), **_exchanged(kwargs, self.carried))))
        else:
            moved = [self._carry(step, first, where)]
            # Carried values share memory exactly where the model's own do.
            moved = (
                [first.copy_(moved[0])]
                if inplace
                else [part.clone() if part is first else part for part in moved]
            )
        self.carried.update({id(value): part for value, part in zip(results, moved, strict=True)})


def _exchanged(value: Any, carried: dict[int, Tensor]) -> Any:
    """The value with each followed tensor replaced by what is carried beside it."""
    if isinstance(value, Tensor):
        return carried.get(id(value), value)
    if isinstance(value, dict):
        return {key: _exchanged(part, carried) for key, part in value.items()}
    if isinstance(value, list | tuple) and not isinstance(value, torch.Size):
        return type(value)(_exchanged(part, carried) for part in value)
    return value


def _short(name: str) -> str:
    """A layer's name from that of its weight; of a parametrised weight, from that of the original."""
    return name.split(".parametrizations.")[0].removesuffix(".weight").removeprefix("parametrizations.")
