"""What a call of a forward pass is to norms and paths: a weight layer, a pool, a move, a scale, or other.

`read` knows torch's functions by name and no architecture. Gains of normalisations and of layer scale, and
numbers that are added, are no weight layers; a function that takes a weight matrix and is not listed here is
named, never passed over.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch.nn.functional as F
from torch import Tensor

from labkit.measure.pools import POOLS, Pool, each_axis, mean_pool

__all__ = ["Layer", "Moved", "Other", "Scale", "Shift", "Step", "read", "tensors"]

_CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


@dataclass(frozen=True, eq=False)
class Layer:
    """One weight layer.

    Attributes:
        name: of its module, or of the parameter where code uses a parameter by itself.
        kind: "dense", "conv", "transposed" (the adjoint of a convolution) or "embedding" (the dense layer of
            one-hot tokens).
        weight: (out, in), or the kernel (out channels, in channels / groups, ...) with one to three axes of
            space; of a transposed convolution (in channels, out channels / groups, ...); detached.
        bias: (out,) or None.
        in_shape, out_shape: of one sample, without the sample axis.
        stride, padding, dilation, groups: of a convolution. spare: output_padding of a transposed one.
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
    spare: tuple[int, ...] = ()

    @property
    def units(self) -> int:
        """h_i: the numbers that the layer puts out; for a convolution, channels times positions."""
        return math.prod(self.out_shape)

    @property
    def incoming(self) -> Tensor:
        """(units, incoming weights of one): a unit of a convolution is an output channel."""
        if self.kind != "transposed":
            return self.weight.flatten(1)
        parted = self.weight.unflatten(0, (self.groups, -1)).transpose(1, 2)  # (groups, out, in, ...)
        return parted.flatten(0, 1).flatten(1)

    def __call__(self, h: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The layer's own kind of product, with another weight of the same shape."""
        how, axes = (self.stride, self.padding), weight.ndim - 3
        if self.kind == "conv":
            return _CONVOLUTIONS[axes](h, weight, bias, *how, self.dilation, self.groups)
        if self.kind == "transposed":
            return _TRANSPOSED[axes](h, weight, bias, *how, self.spare, self.groups, self.dilation)
        return F.linear(h, weight, bias)


@dataclass(frozen=True)
class Moved:
    """Numbers passed on as they are: in another place, added to those of other branches, through a ReLU.

    `same`: each stays where it is.
    """

    same: bool = False


@dataclass(frozen=True, eq=False)
class Scale:
    """Each number times a constant."""

    by: Tensor | float


@dataclass(frozen=True, eq=False)
class Shift:
    """A constant added: a bias."""

    by: Tensor | float


@dataclass(frozen=True)
class Other:
    """Anything else. `reason`: why no path goes through it. `weights`: why no layer can be read off it."""

    reason: str
    weights: str = ""


Step: TypeAlias = Layer | Pool | Moved | Scale | Shift | Other

_SAME = {
    "relu", "relu_", "dropout", "dropout1d", "dropout2d", "dropout3d", "dropout_", "feature_dropout",
    "stochastic_depth", "detach", "clone", "contiguous", "alias", "to", "float", "double", "type",
    "type_as", "requires_grad_",
}  # fmt: skip
_MOVES = {
    "flatten", "unflatten", "view", "reshape", "squeeze", "unsqueeze", "ravel", "transpose", "permute",
    "movedim", "moveaxis", "swapaxes", "t", "__getitem__", "chunk", "split", "tensor_split", "unbind",
    "select", "narrow", "index_select", "expand", "expand_as", "repeat", "roll", "flip", "cat", "concat",
    "stack", "channel_shuffle", "native_channel_shuffle", "pixel_shuffle", "pixel_unshuffle", "__get__",
    "pad", "unfold", "repeat_interleave", "view_as", "reshape_as",
}  # fmt: skip
_ADDS = {
    "add", "add_", "__add__", "__radd__", "__iadd__", "sub", "sub_", "__sub__", "__isub__",
}  # fmt: skip
_TIMES = {
    "mul", "mul_", "__mul__", "__rmul__", "__imul__", "multiply", "div", "div_", "__truediv__",
    "__itruediv__",
}  # fmt: skip
_CURVED = {
    "relu6", "hardtanh", "hardtanh_", "hardswish", "hardsigmoid", "silu", "gelu", "mish", "tanh", "tanh_",
    "sigmoid", "sigmoid_", "softplus", "elu", "elu_", "selu", "celu", "softsign", "logsigmoid", "softmax",
    "log_softmax", "exp", "sin", "cos",
}  # fmt: skip
_NORMED = {"layer_norm", "group_norm", "instance_norm", "rms_norm", "normalize", "local_response_norm"}
# What may take a parameter without being a layer of its own.
_GAINS = (
    _ADDS
    | _TIMES
    | _MOVES
    | _NORMED
    | {"prelu", "where", "maximum", "minimum", "scaled_dot_product_attention"}
)


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in a value, a list, a tuple or a dictionary."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors(part)


def read(
    name: str,
    given: list[Tensor],
    shapes: list[tuple[int, ...]],
    out: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    named: Callable[[Tensor], str | None],
    matrices: list[str],
) -> list[Step]:
    """The steps of one call, mostly one.

    Args:
        name: the function's. given: those of its arguments that stem from the sample. shapes: theirs, before
            the call. out: what it returned. named: the name of a weight, None for what has none.
        matrices: names of the parameters with two axes or more among the arguments.
    """
    data = bool(args) and args[0] is given[0]
    if name in _LAYERS and len(given) > 1:
        return [Other(f"{name}() multiplies two branches, a gate or an attention: that is of degree two")]
    if data and name in _LAYERS:
        return [*_LAYERS[name](shapes[0], tuple(out.shape), named, *args[1:], **kwargs)]
    if name == "multi_head_attention_forward":
        return _attention(args, kwargs, named)
    if name == "batch_norm":
        return [Other("", "it has batch norm, whose weights are no layer of their own; fold it first: "
                          "labkit.models.fold_batch_norm(model)")]  # fmt: skip
    if name == "embedding":
        return [_embedding(tuple(given[0].shape), named, *args, **kwargs)]
    if name in _GAINS or name in _SAME or name in _CURVED:
        return [_plain(name, given, shapes, out, args, kwargs)]
    if data and name in POOLS and len(shapes[0]) > 2:
        return [POOLS[name](shapes[0][1:], tuple(out.shape[1:]), *args[1:], **kwargs)]
    if data and name == "mean":
        return [_mean(shapes[0], *args[1:], **kwargs)]
    if name == "leaky_relu" and abs(_argument(args, kwargs, 1, "negative_slope", 0.01)) <= 1:
        return [Moved(same=True)]
    weights = (
        f"{name}() uses {matrices[0]!r}, and is neither a dense layer nor a convolution" if matrices else ""
    )
    return [Other(f"{name}() is not known to pass paths on", weights)]


def _plain(name: str, given: Any, shapes: Any, out: Any, args: Any, kwargs: Any) -> Step:
    """What has no weight matrix."""
    if name in _SAME:
        return Moved(same=True)
    if name == "prelu":
        return Other("prelu() has slopes of its own, which may exceed 1")
    if name in _CURVED:
        return Other(f"{name}() is not positively homogeneous, f(a h) = a f(h) for a > 0, as ReLU is")
    if name in _NORMED:
        return Other(
            f"{name}() divides by a size of its input, so that a scale of the weights before it is lost"
        )
    if name in _MOVES:
        value = _argument(args, kwargs, 3, "value", 0)
        if name == "pad" and (_argument(args, kwargs, 2, "mode", "constant") != "constant" or value):
            return Other(
                "pad() repeats entries", "pad() repeats entries, so that the layer after it is another map"
            )
        mixed = name in ("cat", "concat", "stack") and len(given) < len(list(tensors(args)))
        return Other(f"{name}() joins the sample with a constant") if mixed else Moved()
    if name in _ADDS and len(given) > 1:
        signed = "sub" in name or kwargs.get("alpha", 1) != 1
        return Other(f"{name}() takes a difference or a weighted sum of branches") if signed else Moved()
    if len(args) == 2 and args[0] is given[0] and len(given) == 1 and not kwargs:
        by = args[1].detach() if isinstance(args[1], Tensor) else args[1]
        if name in _ADDS:
            return Shift(by)
        if name in _TIMES:
            return Scale(1 / by if "div" in name else by)
    if len(args) == 2 and args[1] is given[0] and len(given) == 1 and name in ("mul", "multiply", "add"):
        by = args[0].detach() if isinstance(args[0], Tensor) else args[0]
        return Scale(by) if name != "add" else Shift(by)
    if name in _TIMES and len(given) > 1:
        return Other(f"{name}() multiplies two branches, a gate or an attention: that is of degree two")
    return Other(f"{name}() is not known to pass paths on")


def _argument(args: Any, kwargs: Any, place: int, name: str, default: Any) -> Any:
    return args[place] if len(args) > place else kwargs.get(name, default)


def _sample(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without the sample axis, which is 1 long; tokens in windows may have moved there."""
    return shape[1:] if shape[0] == 1 else shape


def _layer(named: Any, weight: Tensor, kind: str, bias: Any, before: Any, after: Any, **how: Any) -> Layer:
    name = named(weight) or ""
    return Layer(name, kind, weight.detach(), None if bias is None else bias.detach(), before, after, **how)


def _dense(before: Any, after: Any, named: Any, weight: Tensor, bias: Tensor | None = None) -> Iterator[Step]:
    yield _layer(named, weight, "dense", bias, _sample(before), _sample(after))


def _matmul(before: Any, after: Any, named: Any, other: Tensor) -> Iterator[Step]:
    if other.ndim == 2:
        name = named(other)
        yield _layer(lambda _: name, other.mT, "dense", None, _sample(before), _sample(after))
    elif named(other):
        yield Other("", f"matmul() with {named(other)!r} of shape {tuple(other.shape)} is no dense layer")
    else:
        yield Other("matmul() is not known to pass paths on")


def _convolution(
    before: Any, after: Any, named: Any, weight: Tensor, bias: Tensor | None = None, stride: Any = 1,
    padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Iterator[Step]:  # fmt: skip
    axes = weight.ndim - 2
    dilation = each_axis(dilation, axes)
    total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    if padding == "same" and any(t % 2 for t in total):
        yield Other("", "padding='same' of an even kernel pads unevenly; give the padding as numbers")
        return
    if isinstance(padding, str):
        padding = tuple(t // 2 for t in total) if padding == "same" else 0
    how = {
        "stride": each_axis(stride, axes),
        "padding": each_axis(padding, axes),
        "dilation": dilation,
        "groups": groups,
    }
    yield _layer(named, weight, "conv", bias, before[1:], after[1:], **how)


def _transposed(
    before: Any, after: Any, named: Any, weight: Tensor, bias: Tensor | None = None, stride: Any = 1,
    padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Iterator[Step]:  # fmt: skip
    sizes = {"stride": stride, "padding": padding, "spare": output_padding, "dilation": dilation}
    how = {name: each_axis(value, weight.ndim - 2) for name, value in sizes.items()}
    yield _layer(named, weight, "transposed", bias, before[1:], after[1:], **how, groups=groups)


def _embedding(before: Any, named: Any, tokens: Tensor, weight: Tensor, *rest: Any, **more: Any) -> Step:
    vocabulary, width = weight.shape
    shape = _sample(before)
    bound = _argument(rest, more, 1, "max_norm", None)
    if bound is not None:
        return Other("", f"embedding() with max_norm={bound} rewrites its weight")
    name = named(weight)
    return _layer(lambda _: name, weight.mT, "embedding", None, (*shape, vocabulary), (*shape, width))


def _attention(args: Any, kwargs: Any, named: Any) -> list[Step]:
    """Self-attention reads x through one matrix, (3 E, E), and writes through another."""
    call = inspect.signature(F.multi_head_attention_forward).bind(*args, **kwargs).arguments
    query, weight = call["query"], call["in_proj_weight"]
    reason = "attention multiplies two branches: that is of degree two"
    if weight is None or query is not call["key"] or query is not call["value"]:
        return [Other(reason, "attention between two sequences is no single dense layer")]
    shape = _sample(tuple(query.transpose(0, 1).shape) if query.ndim == 3 else (1, *query.shape))
    wide = (*shape[:-1], weight.shape[0])
    return [
        _layer(named, weight, "dense", call["in_proj_bias"], shape, wide),
        _layer(named, call["out_proj_weight"], "dense", call["out_proj_bias"], shape, shape),
        Other(reason),
    ]


def _mean(before: Any, dim: Any = None, keepdim: bool = False, **other: Any) -> Step:
    axes = [dim] if isinstance(dim, int) else list(dim or range(len(before)))
    axes = [axis % len(before) for axis in axes]
    return (
        Other("mean() over the sample axis couples samples")
        if 0 in axes
        else mean_pool(before[1:], axes, keepdim)
    )


_LAYERS: dict[str, Callable[..., Iterator[Step]]] = {
    "linear": _dense,
    **dict.fromkeys(("matmul", "mm", "__matmul__"), _matmul),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _transposed),
}
