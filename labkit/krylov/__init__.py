"""Algorithms on any linear operator: top-k SVD, full spectrum, Lanczos, spectral density. Knows no network.

Torch tensors in and out. An operator is anything with ``shape``, ``dtype``, ``device``, ``matmat`` and
``rmatmat`` (:class:`Operator`); a dense 2-D tensor is accepted everywhere. Randomness comes from an explicit
generator only.
"""

from labkit.krylov.density import Density, gaussian_density, spectral_density
from labkit.krylov.gram import singular_values
from labkit.krylov.lanczos import Tridiagonal, lanczos
from labkit.krylov.operators import LinearOperator, Operator, adjoint_gap, as_operator, operator_from
from labkit.krylov.price import Price, svd_price
from labkit.krylov.svd import SVD, svd

__all__ = [
    "SVD",
    "Density",
    "LinearOperator",
    "Operator",
    "Price",
    "Tridiagonal",
    "adjoint_gap",
    "as_operator",
    "gaussian_density",
    "lanczos",
    "operator_from",
    "singular_values",
    "spectral_density",
    "svd",
    "svd_price",
]
