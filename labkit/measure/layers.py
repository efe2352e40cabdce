"""The weight layers of a chain, in the order in which its forward pass runs them.

Norms, paths and Lipschitz bounds speak of f(x) = W_d phi(W_(d-1) ... phi(W_1 x)). `chain` finds that form by
watching one forward pass of one sample: it works for modules and functional code alike and knows no
architecture. What lies between the weights (ReLU, pooling, dropout in evaluation mode, flattening) is kept,
so that `paths` can walk it again.

Refused, by name: batch norm (fold it first), skip connections, a weight that is used twice, dense layers over
tokens, and any function that is not listed below. A constant factor, such as an output scale, is counted into
the layer before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from labkit.measure.pools import POOLS, Pool, mean_pool

__all__ = ["Activation", "Layer", "Reshape", "Step", "chain", "evaluating", "weight_layers"]

# 1-Lipschitz each; only ReLU passes a path on as it is, which `paths` asks for.
ACTIVATIONS = {"relu", "relu_", "tanh", "softplus", "sigmoid", "leaky_relu"}
_NOTHING = {"dropout", "dropout2d", "feature_dropout", "detach", "clone", "contiguous", "alias"}
_SHAPES = {"flatten", "view", "reshape", "squeeze", "unsqueeze", "ravel"}
_MATMULS = {"matmul", "mm", "__matmul__"}


@dataclass(frozen=True, eq=False)
class Layer:
    """One weight layer.

    Attributes:
        name: of its module, or of the parameter where code uses a parameter by itself.
        kind: "dense" or "conv".
        weight: (out, in), or the kernel (out channels, in channels / groups, height, width); detached.
        bias: (out,) or None.
        in_shape, out_shape: of one sample, without the sample axis.
        stride, padding, dilation, groups: of a convolution.
    """

    name: str
    kind: str
    weight: Tensor
    bias: Tensor | None
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1

    @property
    def units(self) -> int:
        """h_i: the numbers that the layer puts out; for a convolution, channels times positions."""
        return math.prod(self.out_shape)

    def __call__(self, h: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The layer's own kind of product, with another weight of the same shape."""
        if self.kind == "dense":
            return F.linear(h, weight, bias)
        return F.conv2d(h, weight, bias, self.stride, self.padding, self.dilation, self.groups)


@dataclass(frozen=True)
class Reshape:
    """The same numbers in another shape (of one sample)."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class Activation:
    """An elementwise function, by torch's name."""

    name: str


Step: TypeAlias = Layer | Pool | Reshape | Activation


def weight_layers(model: nn.Module, x: Tensor) -> tuple[Layer, ...]:
    """The weight layers of a chain, first to last.

    Args:
        model: a module; it is run on one sample, in evaluation mode, and left as it was.
        x: (n, ...) inputs; the first is used, and of that only the shape matters.

    Raises:
        TypeError: `model` is no module.
        ValueError: it is not a chain, has batch norm, uses a weight twice, or uses a function that is unknown
            here; or `x` has no sample.

    Example:
        >>> [layer.units for layer in weight_layers(mlp(64, 256, 1, 10), x)]
        [256, 10]
    """
    return tuple(step for step in chain(model, x) if isinstance(step, Layer))


def chain(model: nn.Module, x: Tensor) -> tuple[Step, ...]:
    """All steps of a chain, from the input to the output; arguments and errors as `weight_layers`."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: got {type(model).__name__}; it takes a torch.nn.Module")
    if not isinstance(x, Tensor) or x.ndim < 2 or len(x) == 0:
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"x: got {got}; it takes inputs (n, ...) with at least one sample")
    first = next(model.parameters(), None)
    sample = x[:1].detach() if first is None else x[:1].detach().to(first)
    recorder = _Recorder(model, sample)
    with evaluating(model), torch.no_grad(), recorder:
        out = model(sample)
    if out is not recorder.current:
        raise ValueError("model: its output is not the end of one chain of layers")
    if not any(isinstance(step, Layer) for step in recorder.steps):
        raise ValueError("model: no dense or convolutional layer was met in its forward pass")
    return tuple(recorder.steps)


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


class _Recorder(TorchFunctionMode):
    """Watches the calls of one forward pass; `current` is the end of the chain so far."""

    def __init__(self, model: nn.Module, sample: Tensor) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.current = sample
        self._data = {id(sample): sample}  # held, so that no id is given out again
        tensors = [*model.named_parameters(), *model.named_buffers()]
        self._names = {id(tensor): name for name, tensor in tensors}
        self._held: list[Any] = []
        self._used: set[str] = set()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        before = tuple(self.current.shape[1:])
        name = getattr(func, "__name__", str(func))
        data = [value for value in _each((*args, *kwargs.values())) if id(value) in self._data]
        out = func(*args, **kwargs)
        if not any(isinstance(value, Tensor) for value in _each((out,))):
            return out
        if not data:
            # W.T of a parameter is still that parameter; other constants have no name.
            if args and id(args[0]) in self._names:
                self._names[id(out)] = self._names[id(args[0])]
                self._held.append(out)
            return out
        if len(data) > 1 or data[0] is not self.current:
            raise ValueError(
                f"model: {name}() joins two branches or reads an earlier value, so this is not a chain of "
                "layers (a skip connection?); norms and path norms are defined here for chains, for example "
                "labkit.mlp or labkit.models.vgg"
            )
        if not isinstance(out, Tensor):
            raise ValueError(f"model: {name}() gives several tensors, so this is not a chain of layers")
        self._record(name, out, before, args, kwargs)
        self.current = out
        self._data[id(out)] = out
        return out

    def _record(self, name: str, out: Tensor, before: tuple[int, ...], args: Any, kwargs: Any) -> None:
        after = tuple(out.shape[1:])
        if name in ACTIVATIONS:
            self.steps.append(Activation(name.rstrip("_")))
        elif name in _SHAPES or (name in _NOTHING and after == before):
            if after != before:
                self.steps.append(Reshape(after))
        elif name == "linear" and len(before) == 1:
            self._dense(args[1], args[2] if len(args) > 2 else kwargs.get("bias"), before, after)
        elif name in _MATMULS and args[0] is self.current and len(before) == 1:
            self._dense(args[1].mT, None, before, after, self._names.get(id(args[1])))
        elif name == "conv2d" and len(before) == 3:
            self._conv(before, after, *args[1:], **kwargs)
        elif name in POOLS and len(before) == 3:
            self.steps.append(POOLS[name](before, after, *args[1:], **kwargs))
        elif name == "mean":
            self._mean(*args[1:], **kwargs)
        elif name in ("mul", "__mul__", "__rmul__", "div", "__truediv__") and len(args) == 2:
            self._scale(name, args[1])
        elif name == "batch_norm":
            raise ValueError(
                "model: it has batch norm, whose weights are no layer of their own; fold it first: "
                "labkit.models.fold_batch_norm(model)"
            )
        else:
            raise ValueError(
                f"model: {name}() on a sample of shape {before} is not known here; a chain is made of "
                "linear, conv2d, relu, max and average pooling, dropout and flatten"
            )

    def _add(self, layer: Layer) -> None:
        if layer.name in self._used:
            raise ValueError(f"model: {layer.name!r} is used twice; norms count each weight once")
        self._used.add(layer.name)
        self.steps.append(layer)

    def _name(self, weight: Tensor, name: str | None) -> str:
        name = name or self._names.get(id(weight)) or f"layer {len(self._used)}"
        return name.removesuffix(".weight")

    def _dense(self, w: Tensor, b: Any, before: Any, after: Any, name: str | None = None) -> None:
        bias = None if b is None else b.detach()
        self._add(Layer(self._name(w, name), "dense", w.detach(), bias, before, after))

    def _conv(
        self, before: Any, after: Any, weight: Tensor, bias: Tensor | None = None, stride: Any = 1,
        padding: Any = 0, dilation: Any = 1, groups: int = 1,
    ) -> None:  # fmt: skip
        dilation = _pair(dilation)
        total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        if padding == "same" and any(t % 2 for t in total):
            raise ValueError(
                "model: padding='same' of an even kernel pads unevenly; give the padding as numbers"
            )
        if isinstance(padding, str):
            padding = tuple(t // 2 for t in total) if padding == "same" else 0
        how = {"stride": _pair(stride), "padding": _pair(padding), "dilation": dilation, "groups": groups}
        b = None if bias is None else bias.detach()
        self._add(Layer(self._name(weight, None), "conv", weight.detach(), b, before, after, **how))

    def _mean(self, dim: Any = None, keepdim: bool = False, **other: Any) -> None:
        shape = self.current.shape
        axes = [dim] if isinstance(dim, int) else list(dim or range(len(shape)))
        axes = [axis % len(shape) for axis in axes]
        if 0 in axes:
            raise ValueError("model: mean() over the sample axis couples samples; it is no layer of a chain")
        self.steps.append(mean_pool(tuple(shape[1:]), axes, keepdim))

    def _scale(self, name: str, factor: Any) -> None:
        at = next((i for i in reversed(range(len(self.steps))) if isinstance(self.steps[i], Layer)), None)
        if at is None or not isinstance(factor, (int, float)) or not 0 < factor < math.inf:
            raise ValueError(
                f"model: {name}() by {factor!r}; a chain may be scaled by a positive number, after its first "
                "layer"
            )
        c = 1 / factor if "div" in name else factor
        layer = self.steps[at]
        assert isinstance(layer, Layer)
        bias = None if layer.bias is None else c * layer.bias
        self.steps[at] = replace(layer, weight=c * layer.weight, bias=bias)


def _each(values: Iterable[Any]) -> Iterator[Any]:
    """The values, and those inside lists and tuples."""
    for value in values:
        yield from value if isinstance(value, (list, tuple)) else (value,)


def _pair(value: Any) -> tuple[int, ...]:
    return (int(value), int(value)) if isinstance(value, int) else tuple(int(v) for v in value)
