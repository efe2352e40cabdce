"""Information and nuisance space: label space split by the singular values of the Jacobian (paper 4, Def.
1.1, 5.2).

I is spanned by the left singular vectors u_1..u_r with the r largest singular values, N is everything
orthogonal to it. Cutoff rule, corrected: r is the *largest* index with s_r >= alpha (the paper's Def. 5.2
prints the smallest).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from labkit.measure.layout import rows

__all__ = ["Split", "information_basis", "split"]


@dataclass(frozen=True, eq=False)
class Split:
    """Two orthogonal parts of y.

    Attributes:
        information: Pi_I y, (m,) or (m, b). nuisance: y - Pi_I y, the same shape.
        share_information: ||Pi_I y|| / ||y||, a ratio of norms (not of squares), 0-dim or (b,); 0 where y =
            0.
        share_nuisance: ||Pi_N y|| / ||y||, likewise. Their squares add to 1 (to 0 where y = 0).
        rank: dimension r of I.
        pinv_norm: ||J_I^+ y|| = (sum over s <= r of (u_s . y / s_s)^2)^(1/2), 0-dim or (b,); grows without
            bound with small singular values inside I. Values that are zero to rounding are left out, as in
            any pseudo-inverse.
        converged: every triplet that spans I says it converged.
    """

    information: Tensor
    nuisance: Tensor
    share_information: Tensor
    share_nuisance: Tensor
    rank: int
    pinv_norm: Tensor
    converged: bool


def split(svd: Any, y: Tensor, *, rank: int | None = None, cutoff: float | None = None) -> Split:
    """Split labels or residuals into their parts on the information and the nuisance space.

    Args:
        svd: has U (m, k), s (k,) descending, V (p, k): `labkit.svd(J, k)` or a full SVD.
        y: (m,), (m, b) columns, or (n, K) with n*K = m, arranged by `rows`.
        rank: r, or
        cutoff: alpha > 0, then r is the largest index with s >= alpha (0 if there is none).

    Returns:
        Split, in the type that `U` and `y` promote to.

    Raises:
        ValueError: unless exactly one of rank and cutoff is given; if rank exceeds the triplets at hand; if
            the cutoff lies below all of them while more may exist; if y does not fit.

    Cost: 4 m r b flops, and two arrays (m, b).

    Reference: paper 4, Def. 1.1 and 5.2.

    Example:
        >>> parts = split(svd(J, k=50), y, rank=50)
        >>> parts.share_information
    """
    r = _rank(svd, rank, cutoff)
    y = _arranged(y, svd.U.shape[0])
    dtype = torch.promote_types(svd.U.dtype, y.dtype if y.is_floating_point() else svd.U.dtype)
    y = y.to(svd.U.device, dtype)
    basis, s = svd.U[:, :r].to(dtype), svd.s[:r].to(dtype)
    coefficients = basis.T @ y
    information = basis @ coefficients
    nuisance = y - information
    norm = torch.linalg.vector_norm(y, dim=0)
    safe = torch.where(norm > 0, norm, torch.ones_like(norm))
    present = s > _rounding(svd) * s.max() if r else s > 0
    weighted = coefficients[present] / (s[present] if y.ndim == 1 else s[present, None])
    converged = getattr(svd, "converged", None)
    return Split(
        information=information,
        nuisance=nuisance,
        share_information=torch.linalg.vector_norm(coefficients, dim=0) / safe,
        share_nuisance=torch.linalg.vector_norm(nuisance, dim=0) / safe,
        rank=r,
        pinv_norm=torch.linalg.vector_norm(weighted, dim=0),
        converged=converged is None or bool(torch.as_tensor(converged)[:r].all()),
    )


def information_basis(svd: Any, *, rank: int | None = None, cutoff: float | None = None) -> Tensor:
    """The left singular vectors (m, r) that span the information space.

    Args:
        svd, rank, cutoff: as `split` takes them.

    Returns:
        (m, r), orthonormal columns.

    Raises:
        ValueError: as `split`.

    Cost: none, a view.

    Reference: paper 4, Def. 1.1 and 5.2.
    """
    return svd.U[:, : _rank(svd, rank, cutoff)]


def _rank(svd: Any, rank: int | None, cutoff: float | None) -> int:
    k = int(svd.s.shape[0])
    if (rank is None) == (cutoff is None):
        raise ValueError(f"split: give exactly one of rank and cutoff, got rank={rank}, cutoff={cutoff}")
    if rank is not None:
        if isinstance(rank, bool) or int(rank) != rank or not 0 <= rank <= k:
            raise ValueError(
                f"split: rank is {rank}, needs a whole number from 0 to {k}, the triplets at hand; for more "
                "compute them: svd(A, k=rank)"
            )
        return int(rank)
    assert cutoff is not None
    if not cutoff > 0:
        raise ValueError(f"split: cutoff is {cutoff}, needs a positive singular value")
    r = int((svd.s >= cutoff).sum())
    if r == k < min(svd.U.shape[0], svd.V.shape[0]):
        raise ValueError(
            f"split: cutoff is {cutoff:.3g}, below all {k} singular values at hand (the last is "
            f"{float(svd.s[-1]):.3g}), so more of them may belong to the information space; compute more "
            f"with svd(A, k={2 * k}) or raise the cutoff"
        )
    return r


def _arranged(y: Tensor, m: int) -> Tensor:
    if y.ndim in (1, 2) and y.shape[0] == m:
        return y
    if y.ndim == 2 and y.numel() == m:
        return rows(y)
    raise ValueError(f"split: y has shape {tuple(y.shape)}, needs ({m},), ({m}, b), or (n, K) with n*K = {m}")


def _rounding(svd: Any) -> float:
    return max(svd.U.shape[0], svd.V.shape[0]) * torch.finfo(svd.U.dtype).eps
