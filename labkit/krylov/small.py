"""SVD of a small or stored matrix by LAPACK, with a way out where one implementation of it fails."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import torch
from torch import Tensor


def small_svd(B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(left (n, n), values (n,), right (n, n)) of a square matrix, B = left diag(values) rightᵀ; float64 on
    the CPU.

    Through NumPy: the divide-and-conquer routine of MKL, which torch calls, gives up on some well-conditioned
    triangular matrices (seen at side 26). Where NumPy's does too, plain QR iteration has not been seen to
    fail.
    """
    array = B.detach().cpu().double().numpy()
    try:
        left, values, right = np.linalg.svd(array)
    except np.linalg.LinAlgError:
        left, values, right = scipy.linalg.svd(array, lapack_driver="gesvd")
    return torch.from_numpy(left), torch.from_numpy(values), torch.from_numpy(right.T.copy())


def values_only(A: Tensor) -> Tensor:
    """Singular values of a 2-D tensor, descending, in its dtype and on its device."""
    try:
        return torch.linalg.svdvals(A)
    except torch.linalg.LinAlgError:
        values = scipy.linalg.svd(A.cpu().numpy(), compute_uv=False, lapack_driver="gesvd")
        return torch.from_numpy(values).to(A)
