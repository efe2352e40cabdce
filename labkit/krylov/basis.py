"""Full reorthogonalisation: classical Gram–Schmidt, always twice, against the whole basis.

Inner products of float32 vectors are summed in pieces and the pieces in float64. A plain float32 product of
vectors with 270,000 entries (a ResNet20's parameters) is wrong in the fifth digit, and with it the
orthogonality of any basis.
"""

from __future__ import annotations

import torch
from torch import Tensor

PIECE = 4096  # entries summed in float32 at most: about 1e-7 of relative error


def wide(device: torch.device) -> torch.dtype:
    """float64, or float32 on Apple's GPUs, which have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def inner(P: Tensor, Q: Tensor) -> Tensor:
    """P Q over a long inner side, (..., a, n) and (..., n, b) to (..., a, b) in float64."""
    n = P.shape[-1]
    total = torch.matmul(P[..., :PIECE], Q[..., :PIECE, :]).to(wide(P.device))
    for start in range(PIECE, n, PIECE):
        total += torch.matmul(P[..., start : start + PIECE], Q[..., start : start + PIECE, :])
    return total


def length(w: Tensor) -> float:
    """‖w‖ of a vector, summed in float64."""
    return float(lengths(w))


def lengths(W: Tensor) -> Tensor:
    """‖w‖ of each column, summed in float64."""
    return torch.linalg.vector_norm(W, dim=0, dtype=wide(W.device))


def orthogonalise(basis: Tensor, w: Tensor) -> tuple[Tensor, Tensor, float]:
    """Take the part of w in the span of the basis out of it, by two or more full passes.

    Two passes suffice unless w lies in the span to rounding (Giraud, Langou, Rozložník 2005); what is left is
    then noise, and is passed again until its norm holds.

    Args:
        basis: (j, n), orthonormal rows.
        w: (n,).

    Returns:
        (coefficients (j,), remainder (n,), norm of the remainder).
    """
    coefficients = torch.zeros(len(basis), dtype=wide(w.device), device=w.device)
    left = list[Tensor]()
    for sweep in range(5):
        part = inner(basis, w[:, None])[:, 0]
        w = w - basis.T @ part.to(w.dtype)
        coefficients += part
        left.append(lengths(w))
        if sweep:
            before, norm = torch.stack(left[-2:]).tolist()
            if norm > 0.5 * before:
                break
    return coefficients, w, norm


def random_direction(basis: Tensor, draw: Tensor) -> Tensor:
    """A unit vector orthogonal to the basis, made of a random draw (n,)."""
    _, w, norm = orthogonalise(basis, draw / length(draw))
    return w / norm


def departure(Q: Tensor) -> float:
    """max |QᵀQ − I| of the columns of Q (n, k)."""
    return float((inner(Q.T, Q) - torch.eye(Q.shape[1], device=Q.device)).abs().max())


def polish(Q: Tensor) -> Tensor:
    """Nearly orthonormal columns made so to rounding: Q (3 I − QᵀQ)/2, which squares the departure."""
    gram = inner(Q.T, Q)
    return Q @ (1.5 * torch.eye(len(gram), device=Q.device) - 0.5 * gram).to(Q.dtype)


def combine(rows: Tensor, weights: Tensor, out: Tensor | None = None, chunk: int = 4096) -> Tensor:
    """weightsᵀ rows, (k, n), in pieces of columns: `out` may be the first k rows of `rows` themselves."""
    weights = weights.to(rows.dtype).to(rows.device)
    out = rows.new_empty(weights.shape[1], rows.shape[1]) if out is None else out
    for start in range(0, rows.shape[1], chunk):
        out[:, start : start + chunk] = weights.T @ rows[:, start : start + chunk]
    return out
