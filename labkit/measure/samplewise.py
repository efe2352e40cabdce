"""Whether outputs have derivatives by the layers of their own sample alone, read off the graph of a pass.

An operation on (n, ...) that works entry by entry, or along other axes than the first, hands no derivative
from one sample to another. Where all operations of a pass are of that kind, d f_i / d z_j = 0 for i != j,
exactly and for these very samples: what one backward pass over all outputs brings to z_i belongs to f_i, and
no other pass need be spent on seeing it. An operation that is not known here proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.autograd.graph import Node

__all__ = ["samplewise"]

_ENTRYWISE = {
    "Abs", "Add", "Clamp", "ClampMin", "Clone", "Cos", "Div", "Elu", "Erf", "Exp", "Expand", "Gelu",
    "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyRelu", "Log", "LogSigmoid", "Maximum", "Minimum",
    "Mish", "Mul", "Neg", "Pow", "Reciprocal", "Relu", "Rsqrt", "Sigmoid", "Silu", "Sin", "Softplus",
    "Sqrt", "Sub", "Tanh", "Threshold", "ToCopy", "Where",
}  # fmt: skip
# Within a sample, whatever their settings, where the first axis has n before and after. (Older torch slices
# the first axis of h[:, 1:], too: all of it.)
_WITHIN = {
    "AdaptiveAvgPool2D", "Alias", "AvgPool2D", "Bmm", "ConstantPadNd", "MaxPool2DWithIndices",
    "NativeGroupNorm", "NllLoss", "Permute", "ReshapeAlias", "Slice", "Squeeze", "UnsafeView", "Unsqueeze",
    "View",
}  # fmt: skip
_ALONG_AXES = {
    "Cat", "LogSoftmax", "Mean", "Select", "Softmax", "Split", "Sum", "Transpose", "Unbind",
}  # fmt: skip
# Of their operands one alone may hold samples, at this place.
_OPERAND = {
    "Addmm": 1, "Mm": 0, "Convolution": 0, "NativeBatchNorm": 0, "NativeLayerNorm": 0, "_Conv2dBackward": 0,
}  # fmt: skip
# ... unless they were told to reach across the first axis, of inputs of so many axes.
_REACHING: dict[str, Callable[[Any, int], bool]] = {
    "ConstantPadNd": lambda node, axes: len(node._saved_pad) >= 2 * axes,
    "NativeBatchNorm": lambda node, axes: node._saved_training,
    "NativeLayerNorm": lambda node, axes: len(node._saved_normalized_shape) >= axes,
    "Permute": lambda node, axes: bool(_axis(node._saved_dims[0], axes)),
}
_VIEWS = {"Expand", "Permute", "T", "Transpose", "Unsqueeze", "View"}


def samplewise(y: Tensor, x: Tensor | None = None) -> bool:
    """Whether y (n, ...) is known to have no derivative that crosses samples, down to the parameters.

    `x`: the samples themselves, where they are a leaf of the graph: then down to them.
    """
    seen: set[Node] = set()
    waiting = [y.grad_fn]
    while waiting and len(y) > 1:
        node = waiting.pop()
        if node is None or node in seen or _of_a_parameter(node, x):
            continue
        seen.add(node)
        if not _keeps_apart(node, len(y), x):
            return False
        waiting.extend(child for child, _ in node.next_functions)
    return True


def _kind(node: Node) -> str:
    # Names of torch's own operations end in a number, and nobody else's do.
    name, _, number = node.name().rpartition("Backward")
    return name if number.isdigit() else node.name()


def _of_a_parameter(node: Node, x: Tensor | None) -> bool:
    """A leaf, or a view of one: no sample is in it."""
    below: Any = node
    while below is not None and _kind(below) in _VIEWS:
        below = below.next_functions[0][0]
    return hasattr(below, "variable") and below.variable is not x


def _keeps_apart(node: Node, n: int, x: Tensor | None) -> bool:
    """Whether this operation does not mix the samples, along the first axis of what it takes and gives."""
    kind, gives = _kind(node), [made.shape for made in node._input_metadata]
    takes = {
        place: child._input_metadata[number].shape
        for place, (child, number) in enumerate(node.next_functions)
        if child is not None and not _of_a_parameter(child, x)
    }
    if not all(len(shape) and shape[0] == n for shape in (*gives, *takes.values())):
        return False
    if not takes:  # made of parameters and constants, through which no derivative comes
        return True
    axes = len(next(iter(takes.values())))
    if kind in _REACHING and _REACHING[kind](node, axes):
        return False
    if kind in _ENTRYWISE:  # of fewer axes, the first would stand at another one's place
        return all(len(shape) == len(gives[0]) for shape in takes.values())
    if kind in _ALONG_AXES:
        told = [getattr(node, name, ()) for name in ("_saved_dim", "_saved_dim0", "_saved_dim1")]
        along = [axis for one in told for axis in (one if isinstance(one, tuple) else (one,))]
        return bool(along) and all(_axis(axis, axes) for axis in along)
    return kind in _WITHIN or (kind in _OPERAND and list(takes) == [_OPERAND[kind]])


def _axis(told: int, axes: int) -> int:
    """A graph tells -1 as 2^64 - 1."""
    return ((told + 2**63) % 2**64 - 2**63) % axes
