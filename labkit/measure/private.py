"""A model of our own to run, so that the caller's is never run and cannot be changed.

Evaluations draw random numbers, fire hooks, move buffers and may stop half way. All of that happens to a
copy; nothing has to be put back.
"""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = ["private_copy", "set_watchers_aside", "undisturbed"]

_LOCAL = threading.local()  # what `undisturbed` holds in this thread


def private_copy(model: nn.Module) -> tuple[nn.Module, dict[str, Tensor]]:
    """A copy without wrappers, gradients and backward hooks, and its parameters and buffers by their names.

    Wrappers that only call what they hold (DataParallel, DistributedDataParallel, torch.compile's) are left
    out; the names are those of the model as it was given. Backward hooks are left out: they watch a training
    step, and a derivative is none. Forward hooks stay, as they may be part of the function (weight norm,
    pruning, adapters); those of the copy fire, with the copy's modules.

    Raises:
        TypeError: if the model cannot be copied.
    """
    inner = _unwrapped(model)
    if isinstance(inner, torch.jit.ScriptModule):
        raise TypeError(
            "the model is scripted, so its parameters have no places; pass the module it was made from"
        )
    memo: dict[int, object] = {}
    for module in inner.modules():
        for value in {**vars(module), **module._parameters, **module._buffers}.values():
            if isinstance(value, Tensor) and id(value) not in memo:
                memo[id(value)] = _fresh(value)
    named: dict[str, Tensor] = {}
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        named[name] = memo.setdefault(id(value), _fresh(value))  # type: ignore[assignment]
    try:
        copied = copy.deepcopy(inner, memo)
    except Exception as error:
        raise TypeError(
            f"the model cannot be copied ({type(error).__name__}: {error}); measures run a copy, so that "
            "they leave the model as it is. Give the class a __deepcopy__; or pass a function and tensors: "
            "lambda params, x: torch.func.functional_call(model, params, (x,)) with "
            "params=dict(model.named_parameters())"
        ) from error
    for module in copied.modules():
        module._backward_hooks, module._backward_pre_hooks = OrderedDict(), OrderedDict()
        module._compiled_call_impl = None
    return copied, named


def _fresh(value: Tensor) -> Tensor:
    fresh = value.detach().clone()
    return nn.Parameter(fresh, value.requires_grad) if isinstance(value, nn.Parameter) else fresh


def _unwrapped(model: nn.Module) -> nn.Module:
    while True:
        compiled = getattr(model, "_orig_mod", None)
        if compiled is not None:
            model = compiled
        elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            return model


@contextmanager
def undisturbed(device: torch.device, *, recurrent: bool = False) -> Iterator[None]:
    """Run a model so that derivatives of every kind exist, and give the global generators back as they were.

    The fast paths of attention have no second derivative, or none at all, and leave the graph; the plain
    operations that they replace do. Within another for the same device, which holds all of it already, it is
    free: many passes over a small network would cost twice as much.
    """
    inside = getattr(_LOCAL, "inside", ())
    if (device, recurrent) in inside:
        yield
        return
    fast = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if device.type == "cuda" and recurrent:
            # cuDNN's recurrent layers differentiate in training mode alone, and once.
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        stack.callback(setattr, _LOCAL, "inside", inside)
        _LOCAL.inside = (*inside, (device, recurrent))
        torch.backends.mha.set_fastpath_enabled(False)
        yield


def set_watchers_aside(copied: nn.Module, look: Callable[[], list[Tensor]]) -> None:
    """Take foreign forward hooks off a copy if they change nothing that `look` gives.

    A hook that records would otherwise record every pass of ours. It fires once here, as in a plain pass;
    where it changes outputs or gradients (an adapter), it is part of the function and stays.
    """
    hooks = [
        (place, dict(place))
        for module in copied.modules()
        for place in (module._forward_hooks, module._forward_pre_hooks)
        if any(map(_foreign, place.values()))
    ]
    if not hooks:
        return
    before = look()
    for place, all_of_them in hooks:
        for key, hook in all_of_them.items():
            if _foreign(hook):
                del place[key]
    after = look()
    if not all(torch.equal(a, b) for a, b in zip(before, after, strict=True)):
        for place, all_of_them in hooks:
            place.clear()
            place.update(all_of_them)


def _foreign(hook: object) -> bool:
    """Whether a hook is not torch's own (weight norm, pruning), which make the weights."""
    return not str(getattr(hook, "__module__", "")).startswith("torch.")
