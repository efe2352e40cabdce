"""The exact route: the Gram matrix of the short side, its eigenvectors, and one Rayleigh–Ritz step on the
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

from labkit.krylov.basis import inner, polish, wide
from labkit.krylov.operators import DenseOperator, MiB, Operator, ShortSide, as_operator
from labkit.krylov.small import small_svd, values_only


def gram_matrix(view: ShortSide, memory: int) -> Tensor:
    """The Gram matrix of the short side, (n, n), in float64 unless the operator makes its own."""
    operator: Any = view.operator
    if isinstance(operator, DenseOperator):
        return _gram_of_rows(operator.matrix if view.flipped else operator.matrix.T, memory)
    if view.flipped and callable(getattr(operator, "gram", None)):
        gram = operator.gram().detach()
        if gram.shape != (view.short, view.short):
            raise ValueError(f"A: gram() gave shape {tuple(gram.shape)}, needs {(view.short, view.short)}.")
        return _symmetric(gram.to(wide(gram.device)))
    width = view.width(memory // 2)
    eye = torch.eye(view.short, dtype=view.dtype, device=view.device)
    blocks = [eye[:, start : start + width] for start in range(0, view.short, width)]
    if view.short * view.long * view.dtype.itemsize <= memory:
        rows = torch.cat([view.forward(block) for block in blocks], dim=1).T
        return _gram_of_rows(rows, memory)
    columns = [view.backward(view.forward(block)) for block in blocks]
    return _symmetric(torch.cat(columns, dim=1).to(wide(view.device)))


def gram_top_k(view: ShortSide, k: int, memory: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """X (n, k), s (k,), Y (N, k) and recorded residuals (k,), seen from the short side."""
    gram = gram_matrix(view, memory)
    X = _leading_vectors(gram, k)
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
    floor = torch.finfo(view.dtype).eps ** 0.5 * s[0]
    residual = torch.where(s > floor, residual, torch.inf)
    return X.to(view.dtype), s.cpu().double(), Y, residual.cpu().double()


def _leading_vectors(gram: Tensor, k: int) -> Tensor:
    """Eigenvectors (n, k) of the k largest eigenvalues, the largest first."""
    n = len(gram)
    if gram.device.type == "cpu" and 4 * k <= n:
        # LAPACK can stop after the wanted vectors: 3 times as fast as all of them at n = 2000, k = 50.
        found = scipy.linalg.eigh(gram.numpy(), subset_by_index=(n - k, n - 1), check_finite=False)[1]
        return torch.from_numpy(found[:, ::-1].copy())
    return torch.linalg.eigh(gram)[1][:, -k:].flip(1)


def singular_values(A: Operator | Tensor, *, memory: int = 512 * MiB) -> Tensor:
    """All min(m, p) singular values, in descending order.

    σ_i = √λ_i(A Aᵀ), or directly from A where A is a tensor that fits twice.

    Cost: with n the short side, n³ flops and 32 n² bytes, after n products (or the operator's own
    ``gram()``).

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
    values = torch.linalg.eigvalsh(gram_matrix(view, memory)).clamp_min(0).sqrt().flip(0)
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
