"""A model as a function of its parameters: (parameters, x) -> (n, K).

`Network` takes a snapshot: parameters, buffers and frozen weights are copied when it is made. So an operator
made before training still is the operator at the start of training, however late its products are asked for,
and neither the model's parameters nor its gradients are ever written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

from labkit.measure.guards import refuse_active_layers, refuse_broken_promise, untouched_rng

__all__ = ["Model", "Network", "Parameters"]

Model: TypeAlias = nn.Module | Callable[[Mapping[str, Tensor], Tensor], Tensor]
Parameters: TypeAlias = Mapping[str, Tensor] | Iterable[str] | None


class Network:
    """A model with its parameters taken out, and the columns they occupy in the Jacobian.

    Args:
        model: a module, or a function `f(params, x) -> (n, K)` of a dictionary of tensors.
        params: for a function, the dictionary at which to differentiate. For a module, the names of the
            parameters to differentiate by (default: all that require grad).
        x: (n, ...) inputs, samples first.
        caller: the name that error messages begin with.

    Attributes:
        params: name -> tensor, in column order. columns: name -> slice of 0..p. p: columns. K: outputs a
            sample.

    Raises:
        ValueError: if the model breaks a promise (see `guards`), nothing can be differentiated, a name is
            unknown, or types or devices do not fit.
        TypeError: if `model` is neither a module nor callable.
    """

    def __init__(self, model: Model, x: Tensor, params: Parameters = None, caller: str = "jacobian") -> None:
        self.caller = caller
        self.model = model
        with torch.no_grad():
            wanted, fixed = _taken_apart(model, params, caller)
            self.params = {name: value.detach().clone() for name, value in wanted.items()}
            self._fixed = {name: value.detach().clone() for name, value in fixed.items()}
        self._slots = _slots(model) if isinstance(model, nn.Module) else {}
        _check_types(self.params, x, caller)
        self.columns: dict[str, slice] = {}
        self.p = 0
        for name, value in self.params.items():
            self.columns[name] = slice(self.p, self.p + value.numel())
            self.p += value.numel()
        first = next(iter(self.params.values()))
        self.dtype, self.device = first.dtype, first.device
        self.check()
        with untouched_rng(self.device), torch.no_grad():
            # Not self(...): that would give every evaluation the same random numbers.
            refuse_broken_promise(lambda part: self._outputs(self.params, part), x, caller)
            self.K = int(self(self.params, x[:1]).shape[1])

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Outputs (n, K) at these parameters; the global generators are given back as they were."""
        with untouched_rng(self.device):
            return self._outputs(params, x)

    def _outputs(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        if isinstance(self.model, nn.Module):
            values = {**self._fixed, **params}
            at = {slot: values[name] for slot, name in self._slots.items()}
            # tie_weights=False: torch's own tying does not restore a module that is registered twice.
            y = functional_call(self.model, at, (x,), tie_weights=False)
        else:
            y = self.model(dict(params), x)
        if not isinstance(y, Tensor) or y.ndim == 0 or y.shape[0] != x.shape[0] or not y.is_floating_point():
            got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(
                f"{self.caller}: the model returned {got} for {x.shape[0]} samples, needs a floating-point "
                "tensor (n, K), samples first; wrap it, for example lambda params, x: f(params, x)[0]"
            )
        return y.reshape(x.shape[0], -1)

    def check(self) -> None:
        """Refuse layers that are random or look at the whole batch now (the mode may have changed since)."""
        if isinstance(self.model, nn.Module):
            refuse_active_layers(self.model, self.caller)

    def split(self, v: Tensor) -> dict[str, Tensor]:
        """Cut a vector (p,) into tensors of the parameters' shapes (views)."""
        return {name: v[self.columns[name]].view(value.shape) for name, value in self.params.items()}

    def leaves(self) -> dict[str, Tensor]:
        """The parameters as fresh autograd leaves (sharing memory with the snapshot)."""
        return {name: value.detach().requires_grad_() for name, value in self.params.items()}


def _taken_apart(
    model: Model, params: Parameters, caller: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors to differentiate by, and the model's other tensors."""
    if not isinstance(model, nn.Module):
        if not callable(model):
            raise TypeError(
                f"{caller}: model is a {type(model).__name__}, needs a torch.nn.Module or a function"
            )
        if not isinstance(params, Mapping) or not params:
            raise ValueError(
                f"{caller}: model is a function, so params must be the dictionary of tensors at which to "
                f"differentiate, got {type(params).__name__}; for example "
                "params=dict(module.named_parameters())"
            )
        return dict(params), {}
    present = dict(model.named_parameters())
    chosen = [name for name, value in present.items() if value.requires_grad]
    if params is not None:
        asked = {params} if isinstance(params, str) else set(params)
        wrong = sorted(asked - set(chosen))
        if wrong:
            raise ValueError(
                f"{caller}: params names {wrong}, which are not parameters that require grad; the model has "
                f"{chosen}. Call parameter.requires_grad_() on frozen ones"
            )
        chosen = [name for name in chosen if name in asked]
    if not chosen:
        raise ValueError(
            f"{caller}: no parameter of the model requires grad, so the Jacobian has no columns; call "
            "model.requires_grad_() or name some with params="
        )
    others: dict[str, Tensor] = {name: value for name, value in present.items() if name not in set(chosen)}
    others.update(model.named_buffers())
    return {name: present[name] for name in chosen}, others


def _slots(model: nn.Module) -> dict[str, str]:
    """Every place of a parameter or buffer -> the first name of that tensor, each place once.

    Tied tensors stand in several places; a module registered twice has its places once.
    """
    first: dict[int, str] = {}
    slots: dict[str, str] = {}
    for path, module in model.named_modules():
        own = {**module._parameters, **module._buffers}
        for name, value in own.items():
            if value is not None:
                slot = f"{path}.{name}" if path else name
                slots[slot] = first.setdefault(id(value), slot)
    return slots


def _check_types(params: Mapping[str, Tensor], x: Tensor, caller: str) -> None:
    if not isinstance(x, Tensor) or x.ndim == 0 or x.shape[0] == 0:
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            f"{caller}: x is {got}, needs a tensor (n, ...) with at least one sample, samples first"
        )
    kinds = {(value.dtype, value.device) for value in params.values()}
    if len(kinds) > 1 or not next(iter(kinds))[0].is_floating_point:
        raise ValueError(
            f"{caller}: the parameters are of {sorted(str(k) for k in kinds)}, need one floating-point type "
            "on one device; call model.double() or model.float(), and model.to(device)"
        )
    dtype, device = next(iter(kinds))
    if x.is_floating_point() and x.dtype != dtype:
        raise ValueError(
            f"{caller}: x is {x.dtype}, the parameters are {dtype}; pass x.to({dtype}) or convert the model"
        )
    if x.device != device:
        raise ValueError(
            f"{caller}: x is on {x.device}, the parameters are on {device}; pass x.to('{device}')"
        )
