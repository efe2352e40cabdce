"""One table of problems with known spectra, and the comparator that every SVD test uses."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from labkit.krylov import SVD, LinearOperator, operator_from


def _index(n: int) -> Tensor:
    return torch.arange(1, n + 1, dtype=torch.float64)


def _low_rank(n: int) -> Tensor:
    return torch.where(_index(n) <= 7, 8 - _index(n), 0)


def _copies(n: int, each: int) -> Tensor:
    top = torch.linspace(3, 2, 4, dtype=torch.float64).repeat_interleave(each)
    return torch.cat([top, 0.5 / _index(n)])[:n]


SPECTRA: dict[str, Callable[[int], Tensor]] = {
    "decaying": lambda n: 1 / _index(n),
    "slow": lambda n: _index(n) ** -0.25,
    "geometric": lambda n: 0.8 ** _index(n),
    "outliers": lambda n: torch.where(_index(n) <= 5, 20 - _index(n), 1 - _index(n) / (4 * n)),
    "clustered": lambda n: torch.where(_index(n) <= 6, 2 - 1e-9 * _index(n), 1 / _index(n)),
    "copies-3": lambda n: _copies(n, 3),
    "copies-9": lambda n: _copies(n, 9),
    "all-equal": lambda n: torch.ones(n, dtype=torch.float64),
    "rank-7": _low_rank,
    "zero": lambda n: torch.zeros(n, dtype=torch.float64),
}
SHAPES = [(60, 90), (90, 60), (60, 60)]


def matrix(s: Tensor, m: int, p: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """An (m, p) matrix with exactly these singular values and random singular vectors."""
    g = torch.Generator().manual_seed(seed)
    left = torch.linalg.qr(torch.randn(m, len(s), generator=g, dtype=torch.float64))[0]
    right = torch.linalg.qr(torch.randn(p, len(s), generator=g, dtype=torch.float64))[0]
    return ((left * s) @ right.T).to(dtype)


def reflected(s: Tensor, m: int, p: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """As `matrix`, by three random reflections of each side: cheap at any size, and dense all the same."""
    g = torch.Generator().manual_seed(seed)
    A = torch.zeros(m, p, dtype=torch.float64)
    A.diagonal().copy_(s)
    for _ in range(3):
        u, v = (torch.randn(size, generator=g, dtype=torch.float64) for size in (m, p))
        A -= torch.outer(2 * u / u.dot(u), u @ A)
        A -= torch.outer(A @ v, 2 * v / v.dot(v))
    return A.to(dtype)


def problem(name: str, m: int, p: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """(A (m, p), its singular values)."""
    s = SPECTRA[name](min(m, p))
    return matrix(s, m, p, dtype), s


def hidden(A: Tensor, **changes: object) -> LinearOperator:
    """The same matrix, known by its products only."""
    parts = {"matmat": lambda V: A @ V, "rmatmat": lambda U: A.T @ U} | changes
    return operator_from(shape=tuple(A.shape), dtype=A.dtype, **parts)  # type: ignore[arg-type]


def check_svd(A: Tensor, result: SVD, s: Tensor, tol: float) -> None:
    """Hold a result to the known spectrum: values, residuals, orthonormality; messages give the ratio."""
    k, scale = result.k, float(s[0]) or 1.0
    assert result.U.shape == (A.shape[0], k) and result.V.shape == (A.shape[1], k)
    for part in (result.U, result.s, result.V, result.residual):
        assert bool(torch.isfinite(part).all())
    found = result.s.double()
    worst = int((found - s[:k]).abs().argmax())
    assert bool(((found - s[:k]).abs() <= tol * scale).all()), (
        f"value {worst}: {float(found[worst])} against {float(s[worst])}, "
        f"ratio {float(found[worst]) / (float(s[worst]) or 1.0)}"
    )
    U, V, A = result.U.double(), result.V.double(), A.double()
    off_both = max(float((Q.T @ Q - torch.eye(k)).abs().max()) for Q in (U, V))
    assert off_both <= max(tol, 1e-10), f"not orthonormal: {off_both}"
    true = torch.maximum((A @ V - U * found).norm(dim=0), (A.T @ U - V * found).norm(dim=0)) / scale
    assert float(true.max()) <= 2 * tol, f"residual {float(true.max())}, allowed {tol}"
