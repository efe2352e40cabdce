"""Symmetric Lanczos with full reorthogonalisation, for one start or many independent ones at a time.

After t steps Qᵀ S Q = T is tridiagonal, with Q the basis, alphas on T's diagonal and betas beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from labkit.krylov.basis import inner, lengths
from labkit.krylov.operators import PATIENCE, Watch


class Tridiagonal(NamedTuple):
    """T and its basis; the shapes in brackets are those of a block of b starts.

    Attributes:
        alphas: (t,) or [(t, b)], the diagonal of T.
        betas: (t − 1,) or [(t − 1, b)], the off-diagonal of T.
        basis: (n, t) or [(b, n, t)], orthonormal columns.
    """

    alphas: Tensor
    betas: Tensor
    basis: Tensor

    def matrix(self) -> Tensor:
        """T itself, (t, t) or [(b, t, t)], in float64 on the CPU."""
        alphas, betas = (part.cpu().double().movedim(0, -1) for part in (self.alphas, self.betas))
        return torch.diag_embed(alphas) + torch.diag_embed(betas, 1) + torch.diag_embed(betas, -1)

    def quadrature(self) -> tuple[Tensor, Tensor]:
        """Gauss nodes and weights of the spectral measure seen from the start, each (t,) or [(b, t)].

        Nodes are the eigenvalues of T, weights the squared first components of its eigenvectors; each set of
        weights sums to 1 (Golub & Welsch 1969).
        """
        nodes, vectors = torch.linalg.eigh(self.matrix())
        return nodes, vectors[..., 0, :] ** 2


def lanczos(matvec: Callable[[Tensor], Tensor], start: Tensor, steps: int) -> Tridiagonal:
    """Tridiagonalise a symmetric operator from a start vector, or from several side by side.

    The columns of a block start are *independent* probes, advanced together so that each step is one product
    of b columns; this is not block Lanczos. Each column is reorthogonalised in full, twice, against its own
    basis.

    Shapes: ``matvec`` maps (n,) to (n,), or (n, b) to (n, b), as ``start`` is.

    Cost: `steps` products, and 4 n t² flops a column for the orthogonality; memory n·t numbers a column.

    Error to expect: max|QᵀQ − I| is about 1e-15 in float64 and 1e-6 in float32 at any length.

    A breakdown (the space is exhausted) ends a single run early, with t < steps. In a block the finished
    columns go on as zeros, which adds nodes of weight 0 and nothing else; the block ends early when all have
    finished.

    Args:
        matvec: the product with the symmetric operator.
        start: (n,) or (n, b); columns are normalised.
        steps: the largest t; more than n are never made.

    Returns:
        Tridiagonal(alphas, betas, basis).

    Raises:
        ValueError: if a start column is zero or not finite, a product is not finite, or steps < 1.

    Reference: Lanczos 1950; Paige 1972 for why the reorthogonalisation.

    Example:
        >>> S = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
        >>> alphas, betas, basis = lanczos(lambda v: S @ v, torch.ones(3, dtype=torch.float64), 3)
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps: takes a whole number >= 1, got {steps!r}.")
    if start.ndim not in (1, 2) or start.shape[0] < 1:
        raise ValueError(f"start: takes shape (n,) or (n, b), got {tuple(start.shape)}.")
    single = start.ndim == 1
    watch = Watch(start.device)

    def product(rows: Tensor) -> Tensor:
        result = matvec(rows[0]).detach()[None] if single else matvec(rows.T.contiguous()).detach().T
        return watch(result, "its product gave", "matvec")

    rows = start.detach().reshape(start.shape[0], -1).T  # (b, n): a probe a row
    found = advanced(product, rows, steps)
    watch.look()
    return Tridiagonal(found.alphas[:, 0], found.betas[:, 0], found.basis[0]) if single else found


def advanced(product: Callable[[Tensor], Tensor], starts: Tensor, steps: int) -> Tridiagonal:
    """Of starts (b, n) and a product of such rows that looks at its own results."""
    norms = _lengths(starts)[:, None]
    if not bool((torch.isfinite(norms) & (norms > 0)).all()):
        raise ValueError("start: a column is zero or not finite, so it points nowhere. Draw a random one.")
    q = starts / norms
    b, n = q.shape
    steps = min(steps, n)
    basis = q.new_zeros(b, steps, n)
    alphas, betas = q.new_zeros(steps, b), q.new_zeros(steps, b)
    scale = q.new_zeros(b)  # the largest entry of T so far: what a zero beta is measured against
    tiny = 10 * torch.finfo(q.dtype).eps
    every = 1 if q.device.type == "cpu" else PATIENCE
    for t in range(steps):
        basis[:, t] = q
        w = product(q)
        scale = torch.maximum(scale, _lengths(w))
        alphas[t] = inner(q[:, None], w[:, :, None])[:, 0, 0]
        known = basis[:, : t + 1]
        for _ in range(2):
            w = w - (known.transpose(1, 2) @ inner(known, w[:, :, None]).to(w.dtype))[:, :, 0]
        beta = _lengths(w)
        alive = beta > tiny * scale
        betas[t] = torch.where(alive, beta, 0)
        if (t + 1) % every == 0 and not bool(alive.any()):
            break
        # What has broken down goes on as zeros.
        q = torch.where(alive[:, None], w / beta.clamp_min(torch.finfo(q.dtype).tiny)[:, None], 0)
    length = min(steps, 1 + int((betas > 0).any(1).cumprod(0).sum()))
    return Tridiagonal(alphas[:length], betas[: length - 1], basis[:, :length].transpose(1, 2))


def _lengths(rows: Tensor) -> Tensor:
    """Norms of the rows, in their own dtype."""
    return lengths(rows.T).to(rows.dtype)
