"""Flatness radius: how far the weights can go in a random direction (paper 3, section 6.1, eq. 16).

| function | equation | what it gives |
| --- | --- | --- |
| first_crossing | (16), of one direction | the first r with \\|L(w + r u) - L(w)\\| > epsilon |
| flatness_radius | (16), averaged over directions | the radii of a network, and their mean (Table 1) |
| flatness_profile | inside (16) | \\|L(w + r u) - L(w)\\| along the same directions |

(16) is printed as a supremum over all r, which a second valley behind a wall would decide; the line search it
describes stops at the wall, and so do we. The radius belongs to the parameters, not to the function:
`models.rescale_nodes` changes it and leaves every output alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from labkit.measure.perturbed import MiB, PerturbedCopy, generator_of

__all__ = [
    "Flatness", "Loss", "Radius", "first_crossing", "flatness_profile", "flatness_radius", "top_layer",
]  # fmt: skip

Loss = Callable[[Tensor], float]
Radius = Callable[[Loss, Tensor, Tensor, float, float], float]

GROWTH = 1.3  # between the looks of the search, so a bump narrower than that may be stepped over
PRECISION = 1e-3  # of a radius, relative
REACH = 1e-3  # the first look, in units of the largest


@dataclass(frozen=True, eq=False)
class Flatness:
    """What `flatness_radius` found.

    Attributes:
        radii: (directions,) float64, in the units of the weights.
        capped: how many of them are r_max, because the loss stayed within epsilon up to there.
        mean, stderr: over directions; a lower estimate where some are capped.
        loss: L(w).
    """

    radii: Tensor
    capped: int
    mean: float
    stderr: float
    loss: float


def first_crossing(loss: Loss, w: Tensor, direction: Tensor, epsilon: float, r_max: float) -> float:
    """The first r at which |L(w + r u) - L(w)| exceeds epsilon, u the direction at length 1.

    Looks at ever larger r until the loss has left the strip, then halves the interval. A rise and a fall
    count alike, as (16) has an absolute value; a loss that is not a number has left.

    Args:
        loss: of a vector of weights.
        w: (p,). direction: (p,), of any length but 0.
        epsilon: positive. r_max: positive; where the search gives up.

    Returns:
        r, exact to a part in a thousand; r_max if the loss never leaves the strip.

    Raises:
        ValueError: the direction is 0 or has another shape than w, or epsilon or r_max is not positive.

    Cost: 13 to 36 evaluations of the loss for a radius from r_max/1000 to r_max, and three vectors (p,).

    Example:
        >>> w = torch.zeros(3)
        >>> round(first_crossing(lambda v: float(v @ v) / 2, w, torch.ones(3), 0.02, 10.0), 3)
        0.2
    """
    caller = "first_crossing"
    _positive(caller, "epsilon", epsilon)
    _positive(caller, "r_max", r_max)
    length = float(direction.double().norm())
    if direction.shape != w.shape or not 0 < length < math.inf:
        raise ValueError(
            f"{caller}: direction has shape {tuple(direction.shape)} and length {length:g}, needs the shape "
            f"{tuple(w.shape)} of w and a positive length"
        )
    unit, start = direction / length, loss(w)

    def left(r: float) -> bool:
        return not abs(loss(w + r * unit) - start) <= epsilon

    inside, outside = 0.0, r_max * REACH
    while not left(outside):
        if outside >= r_max:
            return float(r_max)
        inside, outside = outside, min(GROWTH * outside, r_max)
    while outside - inside > PRECISION * outside:
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if left(middle) else (middle, outside)
    return (inside + outside) / 2


def flatness_radius(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float = 0.05,
    directions: int = 20,
    part: str | Sequence[str] = "all",
    loss: str = "cross-entropy",
    r_max: float = 100.0,
    generator: torch.Generator | int = 0,
    radius: Radius = first_crossing,
    memory: int = 64 * MiB,
) -> Flatness:
    """The flatness radius (16) along random isotropic directions of length 1.

    Cost: about 30 evaluations of the loss a direction (13 to 36, see `first_crossing`), and about ten vectors
    (p,). They run one after another on a copy that is moved in place, which is the faster way on a processor
    (see `perturbed`).

    Batch norm: the model must be in evaluation mode. Its running statistics are constants here, those of the
    minimum, and its scales and shifts are weights like others. (With statistics taken anew at each r, a
    direction would partly be a rescaling that batch norm undoes.) To count it into the layers before, pass
    `models.fold_batch_norm(model)`.

    Args:
        model: left as it is.
        x: (n, ...). y: class numbers (n,), or targets (n, K) for a squared loss.
        epsilon: the change of the loss that ends the walk; the paper takes .05.
        directions: how many; at least 2, for the standard error.
        part: "all" weights that require grad; "top", those of the last weight layer (see `top_layer`); or
            names of parameters. The others stay, and the direction has length 1 in those that move.
        loss: "cross-entropy", "error" (share of wrong classes), "half-sum", "half-mean" or "mean".
        r_max: where the search gives up.
        generator: a generator, which moves on, or a seed. One seed gives the same directions for networks of
            one shape.
        radius: the search along one direction, such as a notebook's own.
        memory: bytes that activations may take; it does not change the directions.

    Returns:
        Flatness.

    Raises:
        ValueError: an argument is out of its range, a name is unknown, or model, x and y do not fit.
    """
    caller = "flatness_radius"
    _positive(caller, "epsilon", epsilon)
    _positive(caller, "r_max", r_max)
    source = generator_of(generator, caller)
    net = PerturbedCopy(model, x, y, loss, caller, memory=memory)

    def loss_at(weights: Tensor) -> float:
        net.place(weights)
        return float(net.loss())

    radii = []
    for direction in _directions(model, net, part, directions, source, caller):
        with net.undisturbed():
            radii.append(radius(loss_at, net.weights, direction, epsilon, r_max))
    found = torch.tensor(radii, dtype=torch.float64)
    return Flatness(
        found, int((found >= r_max).sum()), float(found.mean()), float(found.std() / math.sqrt(directions)),
        float(net.start),
    )  # fmt: skip


def flatness_profile(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    radii: Sequence[float] | Tensor,
    *,
    directions: int = 20,
    part: str | Sequence[str] = "all",
    loss: str = "cross-entropy",
    generator: torch.Generator | int = 0,
    memory: int = 64 * MiB,
) -> Tensor:
    """|L(w + r u) - L(w)| for given r along the directions that `flatness_radius` takes with this generator.

    Args:
        radii: (R,) distances, at least 0.
        model, x, y, directions, part, loss, generator, memory: as there.

    Returns:
        (directions, R) float64, on the CPU.

    Raises:
        ValueError: as there, or a radius is negative.

    Cost: directions * R + 1 evaluations of the loss, one after another; memory as there.
    """
    caller = "flatness_profile"
    sizes = torch.as_tensor(radii, dtype=torch.float64).flatten().tolist()
    if not sizes or not all(0 <= r < math.inf for r in sizes):
        raise ValueError(f"{caller}: radii is {sizes}, needs numbers of at least 0")
    source = generator_of(generator, caller)
    net = PerturbedCopy(model, x, y, loss, caller, memory=memory)
    start, rows = net.start, []
    for direction in _directions(model, net, part, directions, source, caller):
        row = []
        with net.undisturbed():
            for r in sizes:
                net.place(net.weights, direction, r)
                row.append((net.loss() - start).abs())
        rows.append(torch.stack(row))
    return torch.stack(rows).cpu()


def top_layer(model: nn.Module) -> tuple[str, ...]:
    """The names of the last weight layer's parameters: its weight, and its bias if it has one.

    It is the last module, in the order of registration, that owns a parameter of two axes or more; in all
    models of labkit that is the readout.

    Raises:
        ValueError: there is none.
    """
    for prefix, layer in reversed(list(model.named_modules())):
        own = dict(layer.named_parameters(recurse=False))
        if any(value.ndim >= 2 for value in own.values()):
            return tuple(f"{prefix}.{name}" if prefix else name for name in own)
    raise ValueError("top_layer: the model has no weight layer (no parameter of two axes or more)")


def _directions(
    model: nn.Module, net: PerturbedCopy, part: str | Sequence[str], count: int, source: torch.Generator,
    caller: str,
) -> Iterator[Tensor]:  # fmt: skip
    """Isotropic directions (p,) of length 1 in the weights that move."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 2:
        raise ValueError(f"{caller}: directions is {count!r}, needs a whole number of at least 2")
    moves = _moving(model, net, part, caller)
    for _ in range(count):
        drawn = torch.randn(int(moves.sum()), generator=source, dtype=net.weights.dtype, device=source.device)
        direction = torch.zeros_like(net.weights)
        direction[moves] = drawn.to(direction.device)
        yield direction / direction.norm()


def _moving(model: nn.Module, net: PerturbedCopy, part: str | Sequence[str], caller: str) -> Tensor:
    """Which of the weights (p,) move."""
    if part == "all":
        return torch.ones_like(net.weights, dtype=torch.bool)
    names = top_layer(model) if part == "top" else (part,) if isinstance(part, str) else tuple(part)
    unknown = [name for name in names if name not in net.names]
    if unknown or not names:
        raise ValueError(
            f"{caller}: part names {unknown}; it takes 'all', 'top', or names of parameters that require "
            f"grad: {', '.join(net.names)}"
        )
    moves = torch.zeros_like(net.weights, dtype=torch.bool)
    for name, place in net.split(moves).items():
        place.fill_(name in names)
    return moves


def _positive(caller: str, name: str, value: float) -> None:
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not fits or not 0 < value < math.inf:
        raise ValueError(f"{caller}: {name} is {value!r}, needs a positive number")
