"""The Gram route: the Gram matrix of the short side, its eigenvectors, and one Rayleigh–Ritz step on the
operator.

Squaring halves the digits: with a Gram matrix exact to ε, singular values below √ε s₁ are noise. So the sums
are made in float64 wherever the rows of A can be had, and the Rayleigh–Ritz step puts the operator's own
digits back into the values.
"""

from __future__ import annotations

from typing import Any

import scipy.linalg
import torch
from torch import Tensor

from labkit.krylov.basis import inner, lengths, polish, wide
from labkit.krylov.certificate import MISS, bounded
from labkit.krylov.operators import (
    DenseOperator,
    MiB,
    Operator,
    ShortSide,
    as_operator,
    finite,
    normal,
    seeded,
)
from labkit.krylov.small import small_svd, values_only
from labkit.krylov.topk import Found

PROBES = 3  # random vectors that a Gram matrix is compared with the operator on


def gram_matrix(view: ShortSide, memory: int, generator: torch.Generator) -> tuple[Tensor, float]:
    """The Gram matrix G of the short side, (n, n), and a bound on how far it is from the operator's own.

    Summed here in float64 from rows, it is right to rounding, and the bound 0. Where the operator makes its
    own, or the rows do not fit, it is compared with products on random vectors: ‖G − AAᵀ‖ is below the bound
    but for the probability MISS, by P(|c| < ε) <= 0.8 √n ε for the share c of its first eigenvector in each.

    Raises:
        ValueError: if the operator's own gram() has another shape, is not finite, or differs by more than 1 %
            on a random vector.
    """
    operator: Any = view.operator
    if isinstance(operator, DenseOperator):
        rows = operator.matrix if view.flipped else operator.matrix.T
        return finite(_gram_of_rows(rows, memory), "its Gram matrix has"), 0.0
    if view.flipped and callable(getattr(operator, "gram", None)):
        gram = finite(operator.gram().detach(), "gram() gave")
        if gram.shape != (view.short, view.short):
            raise ValueError(f"A: gram() gave shape {tuple(gram.shape)}, needs {(view.short, view.short)}.")
        gram = _symmetric(gram.to(wide(gram.device)))
        return gram, _distance(gram, view, memory, generator)
    width = view.width(memory // 2)
    eye = torch.eye(view.short, dtype=view.dtype, device=view.device)
    blocks = [eye[:, start : start + width] for start in range(0, view.short, width)]
    if view.short * view.long * view.dtype.itemsize <= memory:
        rows = torch.empty(view.short, view.long, dtype=view.dtype, device=view.device)
        for start, block in zip(range(0, view.short, width), blocks, strict=True):
            rows[start : start + width] = view.forward(block).T
        return finite(_gram_of_rows(rows, memory), "its Gram matrix has"), 0.0
    columns = [view.backward(view.forward(block)) for block in blocks]
    gram = _symmetric(torch.cat(columns, dim=1).to(wide(view.device)))
    return gram, _distance(gram, view, memory, generator)


def _distance(gram: Tensor, view: ShortSide, memory: int, generator: torch.Generator) -> float:
    """A bound on ‖G − AAᵀ‖, too small with the probability MISS at most."""
    z = normal((view.short, PROBES), view, generator)
    z = z / z.norm(dim=0)
    parts = [view.backward(view.forward(part)) for part in z.split(view.width(memory), dim=1)]
    direct = torch.cat(parts, dim=1).to(gram.dtype)
    apart = (gram @ z.to(gram.dtype) - direct).norm(dim=0)
    if bool((apart > 1e-2 * direct.norm(dim=0)).any()):
        raise ValueError(
            f"A: gram() is not A Aᵀ: on a random vector it differs from two products by "
            f"{float((apart / direct.norm(dim=0)).max()):.1e} of their norm."
        )
    return 0.8 * view.short**0.5 * MISS ** (-1 / PROBES) * float(apart.max())


def gram_top_k(view: ShortSide, k: int, tol: float, memory: int, generator: torch.Generator) -> Found:
    """The k leading triplets; complete if the (k+1)-th eigenvalue of the Gram matrix, with all that may be
    wrong in it, leaves no room for a larger one.
    """
    gram, wrong = gram_matrix(view, memory, generator)
    eigenvalues, X = leading_pairs(gram, min(k + 1, view.short))
    X = X[:, :k]
    narrow = X.to(view.dtype)
    width = view.width(memory)
    image = torch.cat([view.forward(narrow[:, c : c + width]) for c in range(0, k, width)], dim=1)
    Q = polish(torch.linalg.qr(image)[0])
    left, s, right = (part.to(gram) for part in small_svd(inner(Q.T, image)))
    Y = Q @ left.to(view.dtype)
    X = X @ right
    # backward(Y) s = (A Aᵀ) X, so the Gram matrix also tells the residual, wherever s can be divided by.
    safe = s.clamp_min(torch.finfo(s.dtype).tiny)
    residual = (gram @ X - X * s**2).norm(dim=0) / safe
    X, s, residual = X.to(view.dtype), s.cpu().double(), residual.cpu().double()
    low = s <= torch.finfo(view.dtype).eps ** 0.5 * s[0]
    if bool(low.any()):
        ahead = view.backward(Y[:, low]) - X[:, low] * s[low].to(X)
        residual[low] = lengths(ahead).cpu().double()
    wrong += 8 * view.short**0.5 * torch.finfo(gram.dtype).eps * float(eigenvalues[0])
    outside = (max(float(eigenvalues[-1]), 0.0) + wrong) ** 0.5 if k < view.short else 0.0
    # Nothing says in which directions the residuals point: any that their norm allows.
    coupling = residual.norm() * torch.eye(k, dtype=torch.float64)
    complete = bounded(s, coupling, k, tol * (float(s[0]) or 1.0), outside)
    return Found(X, s, Y, residual, complete)


def leading_pairs(gram: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest eigenvalues (k,) and their vectors (n, k), the largest first."""
    n = len(gram)
    if gram.device.type == "cpu" and 4 * k <= n:
        # LAPACK can stop after the wanted vectors: 3 times as fast as all of them at n = 2000, k = 50.
        found = scipy.linalg.eigh(gram.numpy(), subset_by_index=(n - k, n - 1), check_finite=False)
        values, vectors = torch.from_numpy(found[0]), torch.from_numpy(found[1])
        if len(values) == k:  # of a multiple eigenvalue its bisection can lose some, without an error
            return values.flip(0), vectors.flip(1)
    values, vectors = torch.linalg.eigh(gram)
    return values[-k:].flip(0), vectors[:, -k:].flip(1)


def singular_values(A: Operator | Tensor, *, memory: int = 512 * MiB) -> Tensor:
    """All min(m, p) singular values, in descending order.

    σ_i = √λ_i(A Aᵀ), or directly from A where A is a tensor that fits twice.

    Cost: with n the short side and N the long one, 4/3 n³ flops and 32 n² bytes, after the operator's own
    ``gram()``, or n transposed products and 2 n² N flops, or n products where n N numbers do not fit. Of a
    tensor that fits: about 4 n² N flops and a copy.

    Error to expect, as a share of the first: directly 1e-7 in float32 and 1e-15 in float64. Through a float64
    Gram matrix: values above 1e-7 s₁ to that dtype's digits, below it noise of about 1e-8 s₁. Through an
    operator's own float32 ``gram()``: noise below about 1e-3 s₁.

    Args:
        A: (m, p), an operator or a 2-D tensor.
        memory: bytes that may be used for the matrix and its eigenvalues.

    Returns:
        (min(m, p),) in A's dtype, on its device.

    Raises:
        ValueError: if the Gram matrix of the short side does not fit in `memory`.

    Example:
        >>> singular_values(torch.diag(torch.tensor([1.0, 3.0, 2.0])))
        tensor([3., 2., 1.])
    """
    view = ShortSide(as_operator(A))
    n, N = view.short, view.long
    if isinstance(view.operator, DenseOperator) and n * N * view.dtype.itemsize <= memory:
        return values_only(view.operator.matrix)
    if 32 * n * n > memory:
        raise ValueError(
            f"memory: the full spectrum of shape {tuple(view.operator.shape)} takes a Gram matrix of side "
            f"{n} and its eigenvalues, {32 * n * n / MiB:.1f} MiB, got {memory / MiB:.1f} MiB. "
            f"Pass memory={32 * n * n}; or take the leading values with svd(A, k), or the whole shape with "
            "spectral_density(A)."
        )
    values = torch.linalg.eigvalsh(gram_matrix(view, memory, seeded(None))[0]).clamp_min(0).sqrt().flip(0)
    return values.to(view.dtype)


def _gram_of_rows(rows: Tensor, memory: int) -> Tensor:
    """rows rowsᵀ, summed in float64 over pieces of the long side."""
    n, N = rows.shape
    gram = torch.zeros(n, n, dtype=wide(rows.device), device=rows.device)
    piece = max(1, min(N, max(1024, memory // (32 * n))))
    for start in range(0, N, piece):
        part = rows[:, start : start + piece].to(gram.dtype)
        gram.addmm_(part, part.T)
    return gram


def _symmetric(gram: Tensor) -> Tensor:
    return (gram + gram.T) / 2
