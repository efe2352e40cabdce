"""Three-point interpolation: the landscape on the triangle between three minima (paper 3, eq. 15).

Every weight of the network at lambda on the simplex is lambda_1 w_1 + lambda_2 w_2 + lambda_3 w_3. A wide
plateau of high accuracy around the corners is what the paper calls a flat region (Figs. 11 and 12).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from labkit.measure.functional import Network
from labkit.measure.private import private_copy, undisturbed

__all__ = ["Interpolation", "simplex", "three_point"]


@dataclass(frozen=True, eq=False)
class Interpolation:
    """The triangle between three minima, looked at on an even grid.

    Attributes:
        points: (P, 3) barycentric coordinates, rows of `simplex`; float64, on the CPU, like the rest.
        weights: (P,) the share of the triangle that each point stands for; they add to 1.
        accuracy: (P,) share of right classes. loss: (P,) cross-entropy.
    """

    points: Tensor
    weights: Tensor
    accuracy: Tensor
    loss: Tensor

    def area(self, level: float, corner: int | None = None) -> float:
        """The share of the triangle where the accuracy is at least `level`.

        Args:
            level: an accuracy, from 0 to 1.
            corner: 0, 1 or 2 looks only at the third that is nearest to that minimum, where its lambda is
                the largest, and gives the share of that third.

        Raises:
            ValueError: level or corner is out of its range.
        """
        if not 0 <= level <= 1:
            raise ValueError(f"area: level is {level!r}, needs an accuracy from 0 to 1")
        weights = self.weights
        if corner is not None:
            if corner not in (0, 1, 2):
                raise ValueError(f"area: corner is {corner!r}, needs 0, 1 or 2")
            # On a border between thirds a point counts for each of those it borders.
            nearest = self.points >= self.points.amax(1, keepdim=True) - 1e-9
            weights = weights * nearest[:, corner] / nearest.sum(1)
        return float(weights[self.accuracy >= level].sum() / weights.sum())


def simplex(resolution: int) -> tuple[Tensor, Tensor]:
    """An even grid on the triangle, its edges and corners included.

    Args:
        resolution: steps along an edge, R >= 1.

    Returns:
        points (P, 3), P = (R + 1)(R + 2) / 2, whose rows add to 1; and weights (P,), the share of the R^2
        small triangles around each: a corner touches one, an edge three, an inner point six. Both float64.

    Raises:
        ValueError: resolution is no whole number of at least 1.

    Cost: 3 P numbers.
    """
    if isinstance(resolution, bool) or not isinstance(resolution, int) or resolution < 1:
        raise ValueError(f"resolution: got {resolution!r}; it takes a whole number of at least 1")
    R = resolution
    rows = [(R - i - j, i, j) for i in range(R + 1) for j in range(R + 1 - i)]
    points = torch.tensor(rows, dtype=torch.float64)
    zeros = (points == 0).sum(1)
    touched = torch.tensor([6.0, 3.0, 1.0], dtype=torch.float64)[zeros]
    return points / R, touched / touched.sum()


def three_point(
    models: Sequence[nn.Module],
    x: Tensor,
    y: Tensor,
    *,
    resolution: int = 12,
    batch_norm: str = "refit",
    batch_size: int = 1024,
) -> Interpolation:
    """Accuracy and loss of the interpolated network all over the triangle.

    Args:
        models: three networks of one architecture, in evaluation mode; left as they are.
        x: (n, ...) training samples. y: (n,) the labels they were fitted to, int64.
        resolution: steps along an edge of the triangle.
        batch_norm: running statistics belong to one set of weights, and a mean of three does not fit the
            mean of the weights. "refit" takes them anew at every point, over all of x, as averages of those
            of its batches; "average" interpolates them like weights. Without batch norm they are the same.
        batch_size: samples evaluated together.

    Returns:
        Interpolation; its corners are the three networks. (With "refit" and batch norm, up to the change of
        their running statistics to those of x.)

    Raises:
        ValueError: there are not three networks of one architecture, an argument is out of its range, or
            they do not fit x and y.

    Cost: P = (R + 1)(R + 2) / 2 forward passes over x, R the resolution (91 by default), and as many again to
    refit batch norm. Memory: one copy of the weights, those of all three and the outputs in float64, a
    batch's activations.

    Reference: paper 3, section 6.1, (15).
    """
    caller = "three_point"
    if batch_norm not in ("refit", "average"):
        raise ValueError(f"{caller}: batch_norm is {batch_norm!r}, needs 'refit' or 'average'")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"{caller}: batch_size is {batch_size!r}, needs a whole number of at least 1")
    if not isinstance(x, Tensor) or x.ndim < 2 or x.shape[0] == 0:
        got = str(tuple(x.shape)) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"{caller}: x is {got}, needs a tensor (n, ...) with at least one sample")
    if not isinstance(y, Tensor) or y.shape != x.shape[:1] or y.is_floating_point():
        got = f"{tuple(y.shape)} of {y.dtype}" if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"{caller}: y is {got}, needs class numbers ({len(x)},) int64")
    corners = _alike(models, x, caller)
    between = private_copy(models[0])[0]
    values = list(_mixed(between).values())
    sizes = [value.numel() for value in values]
    points, weights = simplex(resolution)
    seen = list[Tensor]()
    with undisturbed(x.device), torch.no_grad():
        for at in points.to(corners.device):
            for value, part in zip(values, (at @ corners).split(sizes), strict=True):
                value.copy_(part.view_as(value))
            if batch_norm == "refit":
                _refit(between, x, batch_size)
            parts = x.split(batch_size)
            outputs = torch.cat([between(part.clone()) for part in parts]).double()
            seen += [(outputs.argmax(1) == y).double().mean(), F.cross_entropy(outputs, y)]
    accuracy, loss = torch.stack(seen).view(-1, 2).T.cpu().contiguous()
    return Interpolation(points, weights, accuracy, loss)


def _alike(models: Sequence[nn.Module], x: Tensor, caller: str) -> Tensor:
    """What is mixed of each network, a row each, float64, if their tensors are the same names and shapes."""
    found = list(models)
    if len(found) != 3 or not all(isinstance(model, nn.Module) for model in found):
        raise ValueError(f"{caller}: models has {len(found)} entries, needs three torch modules")
    for model in found:
        Network.to_evaluate(model, x, caller)
    tensors = [_mixed(private_copy(model)[0]) for model in found]
    shapes = [{name: value.shape for name, value in one.items()} for one in tensors]
    for which in (1, 2):
        if shapes[which] != shapes[0]:
            odd = min(name for name, _ in set(shapes[0].items()) ^ set(shapes[which].items()))
            raise ValueError(
                f"{caller}: model {which} is not built like model 0 ({odd!r} differs); weights can only be "
                "mixed within one architecture"
            )
    return torch.cat([one[name].flatten() for one in tensors for name in shapes[0]]).double().view(3, -1)


def _mixed(model: nn.Module) -> dict[str, Tensor]:
    """Weights and running statistics by name; counters stay those of the first network."""
    return {name: value for name, value in model.state_dict().items() if value.is_floating_point()}


def _refit(model: nn.Module, x: Tensor, batch_size: int) -> None:
    """Running statistics of every batch norm as plain averages over the batches of x."""
    layers = [part for part in model.modules() if isinstance(part, _BatchNorm)]
    if not layers:
        return
    before = [(layer.momentum, layer.training) for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # torch's word for a cumulative average
        layer.training = True
    # Parts of about one size: a last one of a single sample would have no variance.
    for part in x.tensor_split(-(-len(x) // batch_size)):
        model(part.clone())
    for layer, (momentum, training) in zip(layers, before, strict=True):
        layer.momentum, layer.training = momentum, training
