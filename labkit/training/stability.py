"""The largest learning rate at which gradient descent is stable.

Near a point of curvature H, the step w <- w - lr * (H w) shrinks every direction when lr < 2 / lambda_max(H).
Heavy-ball momentum m, in torch's form, moves the limit to 2 (1 + m) / lambda_max.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from labkit.training._arguments import training_set, whole, within
from labkit.training.batches import Batches
from labkit.training.ensemble import Ensemble
from labkit.training.losses import loss_named

PRODUCTS = 200
TOLERANCE = 1e-4


def largest_stable_lr(
    model: nn.Module | Ensemble,
    x: Tensor | Sequence[Tensor],
    y: Tensor | Sequence[Tensor],
    *,
    loss: str = "half-sum",
    momentum: float = 0.0,
    tol: float = TOLERANCE,
    max_products: int = PRODUCTS,
) -> np.ndarray:
    """2 (1 + momentum) / lambda_max of the Hessian of the loss at the present weights.

    By power iteration on Hessian-vector products (about two gradients each). It approaches lambda_max from
    below, so the rate is a little too large, by about `tol` where the largest eigenvalue stands out.

    Args:
        model, x, y, loss: as in `train`.
        momentum: of the heavy ball, in [0, 1).
        tol: stops when lambda_max moves by less than this share.
        max_products: products at most.

    Returns:
        (S,) float64; infinite where no direction curves upward.

    Raises:
        ValueError: an argument is out of its range, or x, y do not fit the network.
    """
    within("momentum", momentum, 0, 1, closed=True)
    within("tol", tol, 0)
    whole("max_products", max_products)
    loss_named(loss)
    ensemble = model if isinstance(model, Ensemble) else Ensemble.sharing(model)
    xs, ys = training_set(ensemble, x, y, loss)
    data = Batches(xs, ys, ensemble.size, None, [0] * ensemble.size)
    steps = curvature(ensemble, data.x, data.y, loss, tol, max_products)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return rate(end.value, momentum)


def rate(largest: Tensor, momentum: float) -> np.ndarray:
    """The stable rate (S,) for largest eigenvalues (S,); NaN where these overflowed."""
    values = largest.detach().cpu().double().numpy()
    with np.errstate(divide="ignore"):
        return np.where(values <= 0, np.inf, 2 * (1 + momentum) / np.maximum(values, 0))


def curvature(
    ensemble: Ensemble,
    x: Tensor,
    y: Tensor,
    loss: str,
    tol: float = TOLERANCE,
    max_products: int = PRODUCTS,
) -> Generator[None, None, Tensor]:
    """Finds lambda_max (S,) of each copy's Hessian, and pauses after each product.

    Power iteration finds the eigenvalue of largest *size*. Where that is negative, a second pass on H +
    abs(lambda) finds the largest one in value.
    """
    params = [p for p in ensemble.parameters() if p.requires_grad]
    with torch.enable_grad():
        total = loss_named(loss)(ensemble(x), y).sum()
        found = torch.autograd.grad(total, params, create_graph=True, materialize_grads=True)
    # A gradient that does not depend on the weights has no curvature and no graph.
    slopes = [slope for slope in found if slope.requires_grad]
    shift = torch.zeros(ensemble.size, device=x.device, dtype=ensemble.dtype)
    largest = shift
    if not slopes:
        return largest
    kept = [slope.requires_grad for slope in found]

    def hessian(vectors: list[Tensor]) -> list[Tensor]:
        weights = [v for v, keep in zip(vectors, kept, strict=True) if keep]
        out = torch.autograd.grad(slopes, params, weights, retain_graph=True, materialize_grads=True)
        return [o.detach() for o in out]

    for _ in range(2):
        vectors, largest = _unit(_start(params), ensemble.size), torch.zeros_like(shift)
        for product in range(max_products):
            image = hessian(vectors)
            before, largest = largest, _dots(vectors, image, ensemble.size)
            if product > 2 and bool(((largest - before).abs() <= tol * largest.abs()).all()):
                break
            moved = _scaled(vectors, shift)
            vectors = _unit([a + b for a, b in zip(image, moved, strict=True)], ensemble.size)
            yield
        if bool((largest >= 0).all()) or bool(shift.any()):
            break
        shift = (-largest).clamp_min(0)
    return largest


def _start(params: Sequence[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.device, p.dtype) for p in params
    ]


def _dots(a: Sequence[Tensor], b: Sequence[Tensor], size: int) -> Tensor:
    """(S,) inner products; the tensors are (S, ...), or of any shape when S = 1."""
    parts = [(p * q).reshape(size, -1).sum(1) for p, q in zip(a, b, strict=True)]
    return torch.stack(parts).sum(0)


def _scaled(vectors: Sequence[Tensor], factor: Tensor) -> list[Tensor]:
    return [(v.reshape(len(factor), -1) * factor.unsqueeze(1)).reshape(v.shape) for v in vectors]


def _unit(vectors: list[Tensor], size: int) -> list[Tensor]:
    norm = _dots(vectors, vectors, size).sqrt()
    return _scaled(vectors, torch.where(norm > 0, 1 / norm, norm))
