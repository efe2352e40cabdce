"""A model as a function of its parameters: (parameters, x) -> (n, K).

`Network` takes a snapshot: a copy of the model is run, never the model itself. So an operator made before
training still is the operator at the start of training, however late its products are asked for, and nothing
of the caller's is ever written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

from labkit.measure.guards import (
    refuse_active_layers,
    refuse_broken_promise,
    refuse_coupled_slopes,
    refuse_infinite_outputs,
    refuse_infinite_slopes,
    refuse_not_finite,
    refuse_state,
    refuse_unfit_types,
)
from labkit.measure.private import private_copy, set_watchers_aside, undisturbed
from labkit.measure.witness import disagreeing, random_like

__all__ = ["Model", "Network", "Parameters", "gradients"]

Model: TypeAlias = nn.Module | Callable[[Mapping[str, Tensor], Tensor], Tensor]
Parameters: TypeAlias = Mapping[str, Tensor] | Iterable[str] | None

_OF_FUNCTIONS = (
    "jacobian", "empirical_ntk", "ntk_route", "gradient_gram", "batch_gradients", "batch_gram",
)  # fmt: skip


class Network:
    """A model with its parameters taken out, and the columns they occupy in the Jacobian.

    Args:
        model: a module, or a function `f(params, x) -> (n, K)` of a dictionary of tensors.
        params: for a function, the dictionary at which to differentiate. For a module, the names of the
            parameters to differentiate by (default: all that require grad).
        x: (n, ...) inputs, samples first.
        caller: the name that error messages begin with.

    Attributes:
        params: name -> tensor, in column order. columns: name -> slice of 0..p. p: columns.
        K: outputs a sample, of this shape. one_number: whether the model gives (n,), no axis for outputs.
        copy: of a module, the one that is run. leaves_of_copy: its parameters, of the names in `params`.
        pure: whether forward writes into no buffer.

    Raises:
        ValueError: if the model breaks a promise (see `guards`), nothing can be differentiated, a name is
            unknown, something is not finite, or types or devices do not fit.
        TypeError: if `model` is neither a module nor callable, or cannot be copied.
    """

    def __init__(self, model: Model, x: Tensor, params: Parameters = None, caller: str = "jacobian") -> None:
        self.caller = caller
        self.model = model
        chosen, everything = _chosen(model, params, caller)
        refuse_unfit_types({name: everything[name] for name in chosen}, x, caller)
        refuse_not_finite(everything, x, caller)
        self.check()
        with torch.no_grad():
            self._take(model, chosen, everything)
        self.columns: dict[str, slice] = {}
        self.p = 0
        for name, value in self.params.items():
            self.columns[name] = slice(self.p, self.p + value.numel())
            self.p += value.numel()
        first = next(iter(self.params.values()))
        self.dtype, self.device = first.dtype, first.device
        if isinstance(model, nn.Module):
            set_watchers_aside(self.copy, lambda: self._looked_at(x[:10]))
        self._probe(x)

    def _probe(self, x: Tensor) -> None:
        """Hold the model to its promises on a few samples, and note the form of its outputs."""

        def outputs(part: Tensor) -> Tensor:
            return self._shaped(self.params, part)

        # Not self(...): that would give every evaluation the same random numbers. Gradients are on, as a
        # forward may take one by its inputs.
        with torch.enable_grad(), undisturbed(self.device, recurrent=self.recurrent):
            self._note_written_buffers(x[:2])
            one = refuse_broken_promise(outputs, x, self.caller, self.model)
        self.shape, self.K = tuple(one.shape[1:]), one.numel()
        if not self._depends:
            self._refuse_constant(x)

    def _take(self, model: Model, chosen: list[str], everything: Mapping[str, Tensor]) -> None:
        """The snapshot: the model's copy with its tensors, or those that were given with a function."""
        self._slots: dict[str, str] = {}
        self._fixed: dict[str, Tensor] = {}
        self._fresh: dict[str, Tensor] = {}
        self._written: set[str] = set()
        self.recurrent = True
        if not isinstance(model, nn.Module):
            self.params = {name: everything[name].detach().clone() for name in chosen}
            return
        try:
            self.copy, named = private_copy(model)
        except TypeError as error:
            raise TypeError(f"{self.caller}: {error}") from error
        self.recurrent = any(isinstance(layer, nn.RNNBase) for layer in self.copy.modules())
        self._slots = _slots(self.copy, named)
        self.leaves_of_copy = {name: named[name] for name in chosen}
        self.params = {name: value.detach() for name, value in self.leaves_of_copy.items()}
        self._fixed = {name: value.detach() for name, value in named.items() if name not in self.params}
        self._written = set(self._fixed)

    def _note_written_buffers(self, x: Tensor) -> None:
        """Find the tensors that forward writes into (a counter, say); each pass gets them anew.

        Raises:
            ValueError: if the outputs follow what forward wrote, so that they are another function each time.
        """
        first = self._first_outputs(x)
        self._written = {name for name, value in self._fresh.items() if value._version}
        self.pure = not self._written
        if self.pure:
            return
        as_it_was, self._fixed = self._fixed, {**self._fixed, **self._fresh}
        again = self._shaped(self.params, x).detach()
        self._fixed = as_it_was
        refuse_state(first, again, sorted(self._written), self.caller)

    def _first_outputs(self, x: Tensor) -> Tensor:
        """Outputs of the first samples.

        Raises:
            ValueError: if forward cannot take x, in its own words, or gives nothing.
        """
        try:
            y = self._run(self.leaves(), x)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            reason = (str(error) or "no reason given").splitlines()[0]
            raise ValueError(
                f"{self.caller}: forward fails on samples {tuple(x.shape)} of {x.dtype}: "
                f"{type(error).__name__}: {reason}"
            ) from error
        shaped = self._in_shape(y, len(x))
        self._depends, first = shaped.requires_grad, shaped.detach()
        if not first.numel():
            raise ValueError(
                f"{self.caller}: the model gives {tuple(first.shape)}, no outputs to differentiate"
            )
        return first

    def __call__(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Outputs (n, K) at these parameters; the global generators are given back as they were."""
        with undisturbed(self.device, recurrent=self.recurrent):
            return self._outputs(params, x)

    def _outputs(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return self._shaped(params, x).flatten(1)

    def shaped(self, params: Mapping[str, Tensor] | None, x: Tensor) -> Tensor:
        """Outputs as the model gives them, (n, ...); (n, 1) where it gives one number a sample.

        `params`: None takes those that the copy holds, which saves putting others in their places.
        """
        with undisturbed(self.device, recurrent=self.recurrent):
            return self._shaped(params, x)

    def _shaped(self, params: Mapping[str, Tensor] | None, x: Tensor) -> Tensor:
        return self._in_shape(self._run(params, x), x.shape[0])

    def _run(self, params: Mapping[str, Tensor] | None, x: Tensor) -> Any:
        # Forward may work in place; and the copy of an inference tensor may enter a graph.
        inputs = x.clone()
        if params is None:
            return self.copy(inputs)
        if isinstance(self.model, nn.Module):
            self._fresh = {name: self._fixed[name].clone() for name in self._written}
            values = {**self._fixed, **self._fresh, **params}
            at = {slot: values[name] for slot, name in self._slots.items()}
            # tie_weights=False: torch's own tying does not restore a module that is registered twice.
            return functional_call(self.copy, at, (inputs,), tie_weights=False)
        return self.model(dict(params), inputs)

    def _in_shape(self, y: Any, n: int) -> Tensor:
        self._refuse_other_outputs(y, n)
        self.one_number = y.ndim == 1
        return y[:, None] if y.ndim == 1 else y

    def _refuse_other_outputs(self, y: Any, n: int) -> None:
        if isinstance(y, Tensor) and y.ndim and y.shape[0] == n and y.dtype == self.dtype:
            return
        if isinstance(y, Mapping | list | tuple) and len(y):
            key = repr(next(iter(y))) if isinstance(y, Mapping) else "0"
            raise ValueError(
                f"{self.caller}: the model returned {type(y).__name__} for {n} samples, needs a tensor "
                f"(n, K), samples first; wrap it: {_wrapped(self.caller, key, self.model)}"
            )
        got = f"{tuple(y.shape)} of {y.dtype}" if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(
            f"{self.caller}: the model returned {got} for {n} samples, needs a tensor (n, K) of "
            f"{self.dtype}, samples first"
        )

    def check(self) -> None:
        """Refuse layers that are random or look at the whole batch now (the mode may have changed since)."""
        if isinstance(self.model, nn.Module):
            refuse_active_layers(self.model, self.caller)

    @classmethod
    def to_evaluate(cls, model: nn.Module, x: Tensor, caller: str) -> Network:
        """For measures without derivatives: frozen parameters count as others, and must be as finite."""
        try:
            copied, _ = private_copy(model)
        except TypeError as error:
            raise TypeError(f"{caller}: {error}") from error
        return cls(copied.requires_grad_(), x, caller=caller)

    def split(self, v: Tensor) -> dict[str, Tensor]:
        """Cut a vector (p,) into tensors of the parameters' shapes (views)."""
        return {name: v[self.columns[name]].view(value.shape) for name, value in self.params.items()}

    def leaves(self) -> dict[str, Tensor]:
        """The parameters as fresh autograd leaves (sharing memory with the snapshot)."""
        return {name: value.detach().requires_grad_() for name, value in self.params.items()}

    def pull(self, x: Tensor, u: Tensor, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """J^T u by name, by one ordinary backward pass over x: what fast paths are held to.

        Raises:
            ValueError: if torch cannot differentiate the model, or something is not finite.
        """
        leaves = self.leaves()
        wanted = list(leaves if names is None else names)
        with torch.enable_grad():
            y = self(leaves, x)
        refuse_infinite_outputs(y, self.caller)
        grads = gradients(y, [leaves[n] for n in wanted], u, self.caller)
        found = dict(zip(wanted, grads, strict=True))
        refuse_infinite_slopes(found, self.caller)
        return found

    def refuse_coupled_slopes(self, x: Tensor) -> None:
        """Refuse a model of which J^T u over samples is not the sum over each alone: a pass for each.

        Raises:
            ValueError: as `pull`, or naming a parameter.
        """
        u = random_like(x.new_empty(len(x), self.K, dtype=self.dtype))
        together = self.pull(x, u)
        summed = {name: torch.zeros_like(value) for name, value in together.items()}
        for i in range(len(x)):
            for name, g in self.pull(x[i : i + 1], u[i : i + 1]).items():
                summed[name] += g
        # Where a norm takes all of a slope away, what is left is rounding, and agrees with nothing.
        rounding = 1e4 * torch.finfo(self.dtype).eps * float(u.norm() * self(self.params, x).detach().norm())
        weights = sum(float(value.square().sum()) for value in self.params.values()) ** 0.5
        differ = {
            name
            for name in disagreeing(summed, together)
            if float((summed[name] - together[name]).norm()) * weights > rounding
        }
        refuse_coupled_slopes(differ, self.caller)

    @contextmanager
    def watched(self, see: Callable[[Any], object]) -> Iterator[None]:
        """Show `see` what each part of the copy gives."""
        hooks = [
            part.register_forward_hook(lambda _part, _inputs, out: see(out)) for part in self.copy.modules()
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _looked_at(self, x: Tensor) -> list[Tensor]:
        """Outputs and one gradient: what a forward hook can change."""
        leaves = self.leaves()
        with torch.enable_grad():
            y = self(leaves, x)
        return [y.detach(), *gradients(y, list(leaves.values()), torch.ones_like(y), self.caller)]

    def _refuse_constant(self, x: Tensor) -> None:
        leaves = self.leaves()
        with torch.enable_grad():
            if any(self(leaves, part).requires_grad for part in (x[:1], *x.split(10))):
                return
        raise ValueError(
            f"{self.caller}: the outputs do not depend on any parameter: forward runs under no_grad, "
            "detaches its result, leaves torch, or is checkpointed whole (then pass use_reentrant=False to "
            "torch.utils.checkpoint.checkpoint). Let it run with gradients"
        )


def gradients(
    y: Tensor, leaves: Sequence[Tensor], u: Tensor, caller: str, *, retain_graph: bool = False
) -> list[Tensor]:
    """d <u, y> / d leaves as dense tensors, zero where y does not depend on one.

    Raises:
        ValueError: if torch cannot differentiate, with torch's reason.
    """
    if not y.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    try:
        with torch.enable_grad():
            found = torch.autograd.grad(
                y, leaves, u, retain_graph=retain_graph, allow_unused=True, materialize_grads=True
            )
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        way = (
            "; call torch.utils.checkpoint.checkpoint(..., use_reentrant=False), which can"
            if "heckpoint" in reason
            else ""
        )
        raise ValueError(f"{caller}: torch cannot differentiate the model: {reason}{way}") from error
    # Embeddings may give sparse gradients; older torch's zeros for what is not used require grad.
    return [(g.to_dense() if g.layout != torch.strided else g).detach() for g in found]


def _wrapped(caller: str, key: str, model: Model) -> str:
    """A piece of code that takes one of a model's results, for measures of functions and of modules."""
    if not isinstance(model, nn.Module):
        return f"lambda params, x: f(params, x)[{key}]"
    if caller in _OF_FUNCTIONS:
        return (
            f"lambda params, x: torch.func.functional_call(model, params, (x,))[{key}] with "
            "params=dict(model.named_parameters())"
        )
    pick = "type('Pick', (torch.nn.Module,), {'forward': lambda self, y: y[" + key + "]})()"
    return f"torch.nn.Sequential(model, {pick})"


def _chosen(model: Model, params: Parameters, caller: str) -> tuple[list[str], Mapping[str, Tensor]]:
    """The names to differentiate by, and all parameters."""
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
        return list(params), params
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
    return chosen, present


def _slots(model: nn.Module, named: Mapping[str, Tensor]) -> dict[str, str]:
    """Every place of a parameter or buffer in `model` -> its name, each place once.

    Tied tensors stand in several places; a module registered twice has its places once.
    """
    names = {id(value): name for name, value in named.items()}
    slots: dict[str, str] = {}
    for path, module in model.named_modules():
        for name, value in {**module._parameters, **module._buffers}.items():
            if value is not None:
                slots[f"{path}.{name}" if path else name] = names[id(value)]
    return slots
