"""The weight layers of a network, in the order in which its forward pass runs them.

`weight_layers` finds the dense, convolutional and embedding layers of any model, whatever lies between: norms
of weights do not depend on it. `chain` asks for f(x) = W_d phi(W_(d-1) ... phi(W_1 x)), which products over
layers speak of, and refuses all else by name.

A constant factor, such as an output scale, is counted into the layer before it, if that layer feeds nothing
else. Batch norm is refused: fold it first (`labkit.models.fold_batch_norm`).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

from torch import Tensor, nn

from labkit.measure.calls import INPUT, Call, follow
from labkit.measure.pools import Pool
from labkit.measure.steps import Layer, Moved, Other, Scale, Step

__all__ = ["Layer", "chain", "weight_layers"]


def weight_layers(model: nn.Module, x: Tensor) -> tuple[Layer, ...]:
    """The weight layers that a forward pass runs, first to last.

    Dense layers (over the last axis, of tokens too), convolutions and transposed convolutions of one to three
    axes, embeddings, and the two matrices of a self-attention. Gains of layer and group norms, and numbers
    that are added, are no layers. A layer that is used again is listed again only if its map is another one:
    transposed, or on images of another size.

    Args:
        model: a module; it is run on one sample, in evaluation mode, and left as it was.
        x: (n, ...) inputs; the first is used.

    Returns:
        One Layer for each dense layer or convolution, in the order of the forward pass.

    Raises:
        TypeError: `model` is no module.
        ValueError: it has batch norm, no layer, or a weight matrix that is used in a way not listed here (of
            a recurrent layer, say); a parameter is not finite; or `x` has no sample.

    Cost: one forward pass of one sample, whose activations are all held, and one look at every parameter.

    Example:
        >>> [layer.units for layer in weight_layers(mlp(64, 256, 1, 10), x)]
        [256, 10]
    """
    calls, _, _ = follow(model, x)
    found: dict[tuple[object, ...], Layer] = {}
    for step in _readable(calls):
        if isinstance(step, Layer):
            found.setdefault(
                (step.name, step.kind, step.weight.shape, step.weight.stride(), step.in_shape), step
            )
    if not found:
        raise ValueError("model: no dense or convolutional layer was met in its forward pass")
    return tuple(found.values())


def chain(model: nn.Module, x: Tensor) -> tuple[Layer | Pool, ...]:
    """The layers and pools of a chain with ReLU between, in their order.

    Args, raises: as `weight_layers`; and a ValueError for what is no such chain, naming the first place.
    """
    calls, end, _ = follow(model, x)
    steps = _readable(calls)
    if not any(isinstance(step, Layer) for step in steps):
        raise ValueError("model: no dense or convolutional layer was met in its forward pass")
    used: set[str] = set()
    for place, (call, step) in enumerate(zip(calls, steps, strict=True)):
        if isinstance(step, Other):
            raise ValueError(f"model: {step.reason}{call.where}; so it is no chain of layers with ReLU")
        if call.parents != (place - 1 if place else INPUT,):
            raise ValueError(
                f"model: a branch begins or ends{call.where or ' in its own code'} (a skip connection?), so "
                "it is no chain of layers; layer_norms and path_norms need none, products over layers do"
            )
        if isinstance(step, Layer) and step.name in used:
            raise ValueError(
                f"model: {step.name!r} is used twice; a product over layers counts each weight once"
            )
        if isinstance(step, Layer):
            used.add(step.name)
        elif not isinstance(step, Pool | Moved):
            raise ValueError(f"model: a constant is added or multiplied outside of a layer{call.where}")
    if end != len(calls) - 1:
        raise ValueError("model: its output is not the end of one chain of layers")
    return tuple(step for step in steps if isinstance(step, Layer | Pool))


def _readable(calls: list[Call]) -> list[Step]:
    """The steps, with constant factors counted into layers; refuses those whose weights cannot be read."""
    steps = [call.step for call in calls]
    for call in calls:
        if isinstance(call.step, Other) and call.step.weights:
            raise ValueError(f"model: {call.step.weights}{call.where}")
    readers = Counter(parent for call in calls for parent in call.parents)
    for place, step in enumerate(steps):
        factor = _number(step)
        before = _layer_before(calls, steps, readers, place)
        if factor is not None and before is not None:
            layer = steps[before]
            assert isinstance(layer, Layer)
            bias = None if layer.bias is None else factor * layer.bias
            steps[before] = replace(layer, weight=factor * layer.weight, bias=bias)
            steps[place] = Moved(same=True)
    return steps


def _number(step: Step) -> float | None:
    """The factor of a scale by one number."""
    if not isinstance(step, Scale) or (isinstance(step.by, Tensor) and step.by.numel() != 1):
        return None
    value = float(step.by)
    return value if value != 0 and math.isfinite(value) else None


def _layer_before(calls: list[Call], steps: list[Step], readers: Counter[int], place: int) -> int | None:
    """The layer whose output arrives at `place` through ReLU, pools and moves, and nowhere else."""
    while len(calls[place].parents) == 1:
        place = calls[place].parents[0]
        if place == INPUT or readers[place] != 1:
            return None
        if isinstance(steps[place], Layer):
            return place
        if not isinstance(steps[place], Pool | Moved):
            return None
    return None
