"""Several copies of one architecture, trained side by side.

Copies differ in their weights (seeds) and in nothing else. All their tensors are stacked along a leading
axis, so that one forward and one backward pass serve all of them. A loss summed over copies has the gradient
of each copy in its own slice: the copies do not see each other.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from labkit.training.chain import dense_chain, run_chain, runs_copies


class Ensemble(nn.Module):
    """S copies of one architecture, with weights of their own.

    The tensors sit in `stack`, a module built like one member, under the member's own names, each with a
    leading axis of length S. They are copies: training an ensemble leaves the given models as they were.

    Args:
        models: S modules of one class and one shape.

    Attributes:
        size: S.
        route: "chain" (one batched product a layer) for dense networks, "own" for modules that run copies of
            themselves (`forward_copies`), "vmap" for all others, "single" for a module that `train` was given
            by itself.

    Raises:
        ValueError: no models, or models that differ in more than the values of their weights.
    """

    stack: nn.Module

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        models = list(models)
        _check_alike(models)
        self.size = len(models)
        self.stack = _stacked(models)
        stages = dense_chain(models[0])
        self.route = "own" if runs_copies(models[0]) else "vmap" if stages is None else "chain"
        # Owner and attribute instead of tensors: `.to(device)` replaces buffers.
        self._stages = [
            (_at(self.stack, w), None if b is None else _at(self.stack, b), phi) for w, b, phi in stages or ()
        ]
        named = (*self.stack.named_parameters(), *self.stack.named_buffers())
        self._places = {name: _at(self.stack, name) for name, _ in named}
        self._scale = float(getattr(models[0], "output_scale", 1.0)) if stages else 1.0

    @classmethod
    def sharing(cls, model: nn.Module) -> Ensemble:
        """An ensemble of one that holds the model itself: training it trains the model, without overhead."""
        return _Single(model)

    def forward(self, x: Tensor, copies: Tensor | None = None) -> Tensor:
        """(S, B, ...) -> (S, B, K): copy s sees x[s].

        Args:
            copies: (T,) the numbers of the copies to run, whose inputs x (T, B, ...) are; None: all of them.
        """

        def taken(tensor: Tensor) -> Tensor:
            return tensor if copies is None else tensor.index_select(0, copies)

        if self.route == "chain":
            stages = [
                (taken(_get(w)), None if b is None else taken(_get(b)), phi) for w, b, phi in self._stages
            ]
            out = run_chain(stages, x)
            return out if self._scale == 1.0 else self._scale * out
        tensors = {name: taken(_get(place)) for name, place in self._places.items()}
        if self.route == "own":
            return self.stack.forward_copies(tensors, x)  # type: ignore[operator]
        return vmap(lambda own, inputs: functional_call(self.stack, own, (inputs,)))(tensors, x)

    def member(self, s: int) -> nn.Module:
        """An independent module with the weights that copy s has now.

        Raises:
            ValueError: there is no copy s.
        """
        if not 0 <= s < self.size:
            raise ValueError(f"s: got {s}; the ensemble has copies 0 to {self.size - 1}")
        return _cut(self.stack, s)

    def weights(self) -> dict[str, Tensor]:
        """The parameters, by the members' own names, each (S, ...): views that move on as training does."""
        return {name: value.detach() for name, value in self.stack.named_parameters()}

    @property
    def device(self) -> torch.device:
        return next(self.stack.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.stack.parameters()).dtype

    def extra_repr(self) -> str:
        return f"size={self.size}, route={self.route!r}"


class _Single(Ensemble):
    """One module, not copied and not stacked."""

    def __init__(self, model: nn.Module) -> None:
        nn.Module.__init__(self)
        _check_alike([model])
        self.size, self.route, self.stack = 1, "single", model

    def forward(self, x: Tensor, copies: Tensor | None = None) -> Tensor:
        return self.stack(x[0]).unsqueeze(0)

    def member(self, s: int) -> nn.Module:
        if s != 0:
            raise ValueError(f"s: got {s}; the ensemble has copy 0 only")
        return copy.deepcopy(self.stack)

    def weights(self) -> dict[str, Tensor]:
        return {name: value.detach().unsqueeze(0) for name, value in self.stack.named_parameters()}


Place = tuple[nn.Module, str]


def _at(module: nn.Module, name: str) -> Place:
    owner, _, attribute = name.rpartition(".")
    return module.get_submodule(owner), attribute


def _get(place: Place) -> Tensor:
    return getattr(*place)


def _check_alike(models: Sequence[nn.Module]) -> None:
    if not models:
        raise ValueError("models: got none; an ensemble takes at least one module")
    if any(isinstance(model, Ensemble) or not isinstance(model, nn.Module) for model in models):
        raise ValueError(
            f"models: got {', '.join(type(m).__name__ for m in models)}; they take torch modules"
        )
    if next(models[0].parameters(), None) is None:
        raise ValueError(f"models: {type(models[0]).__name__} has no parameters; there is nothing to train")
    first = _signature(models[0])
    for s, model in enumerate(models[1:], start=1):
        if _signature(model) != first:
            raise ValueError(
                f"models: model {s} is not built like model 0:\n{model}\nagainst\n{models[0]}\nAn ensemble "
                "takes one architecture, dtype and device, with different weights; run others one by one"
            )


def _signature(model: nn.Module) -> tuple:
    parameters = model.named_parameters(remove_duplicate=False)
    kinds = [(n, p.shape, p.dtype, p.device, p.requires_grad) for n, p in parameters]
    return type(model), str(model), kinds, [(n, b.shape, b.dtype, b.device) for n, b in model.named_buffers()]


def _stacked(models: Sequence[nn.Module]) -> nn.Module:
    """A module built like the models, with each tensor replaced by the models' own, stacked."""
    stack = copy.deepcopy(models[0])
    sources = [dict(zip(*_walk(model), strict=True)) for model in models]
    _replace(stack, lambda key, old: torch.stack([source[key].detach() for source in sources]))
    return stack


def _cut(stack: nn.Module, s: int) -> nn.Module:
    """A module with slice s of each tensor."""
    # Deep-copied with all S slices and then cut: simple, and small beside any measurement on it. Cloned, so
    # that the member does not hold the memory of all S.
    member = copy.deepcopy(stack)
    _replace(member, lambda key, old: old.detach()[s].clone())
    return member


def _walk(module: nn.Module) -> tuple[list[str], list[Tensor]]:
    names, tensors = [], []
    for prefix, part in module.named_modules():
        for table in (part._parameters, part._buffers):
            for name, tensor in table.items():
                if tensor is not None:
                    names.append(f"{prefix}.{name}")
                    tensors.append(tensor)
    return names, tensors


def _replace(module: nn.Module, new: Callable[[str, Tensor], Tensor]) -> None:
    """Puts new(key, old) in the place of each tensor; a tensor that two layers share stays shared."""
    done: dict[int, Tensor] = {}
    for prefix, part in module.named_modules():
        for table in (part._parameters, part._buffers):
            for name, old in table.items():
                if old is None:
                    continue
                if id(old) not in done:
                    fresh = new(f"{prefix}.{name}", old)
                    is_parameter = isinstance(old, nn.Parameter)
                    done[id(old)] = nn.Parameter(fresh, old.requires_grad) if is_parameter else fresh
                table[name] = done[id(old)]
