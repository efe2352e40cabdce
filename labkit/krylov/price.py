"""What an SVD will cost, told before it runs: which of the two routes, in products and bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from labkit.krylov.operators import DenseOperator, MiB, Operator, as_operator


@dataclass(frozen=True)
class Price:
    """Cost of both routes for one (A, k); a product is a pair, A on one column and Aᵀ on one column.

    Attributes:
        method: "gram" or "lanczos", the cheaper of those that fit.
        gram_pairs: products, or their worth in time, of the Gram route; infinite where it does not fit.
        lanczos_pairs: an estimate for a decaying spectrum; slow decay costs more.
        gram_bytes: of the Gram matrix and its eigenvectors.
        lanczos_bytes: of the two bases.
        reason: one sentence.
    """

    method: str
    gram_pairs: float
    lanczos_pairs: float
    gram_bytes: int
    lanczos_bytes: int
    reason: str


def svd_price(A: Operator | Tensor, k: int, *, memory: int = 512 * MiB) -> Price:
    """The price of ``svd(A, k)`` by either route, and which one "auto" takes.

    n is the short side, N the long one. The Gram route needs about 4 n² float64 numbers. Its cost: a dense
    tensor's is reckoned in flops, n² N of its product, 2 n³ of its eigenvectors, against 20 n N + 2.4e7 of a
    pair, which is bound by memory and by the steps around it (measured on one core, n = 200 to 2000); an
    operator's own ``gram()`` at 16 + n/200 pairs (measured on a ResNet20 Jacobian: all rows cost 16 pairs)
    unless the operator says better by an attribute ``gram_pairs``; without ``gram()`` it takes n transposed
    products where the result fits in memory, n pairs where it does not. The vectors of the long side take k/2
    more. Lanczos: about 1.8 k + 20, at most n; twice that for a dense tensor, of which nothing says that its
    spectrum decays.

    Args:
        A: an operator or a dense 2-D tensor, (m, p).
        k: how many triplets.
        memory: bytes for the bases, or the Gram matrix.

    Returns:
        Price: product pairs and bytes of either route, and which one is taken.

    Raises:
        TypeError, ValueError: as `as_operator`.

    Cost: no product; one look at a tensor's entries, or what an operator's `gram_pairs` takes (for a Jacobian
    one forward pass of one sample).
    """
    operator: Any = as_operator(A)
    m, p = operator.shape
    n, N = min(m, p), max(m, p)
    size = operator.dtype.itemsize
    dense = isinstance(operator, DenseOperator)
    lanczos_pairs = float(min(n, (1.8 * k + 20) * (2 if dense else 1)))
    lanczos_bytes = int((n + N) * size * min(n, lanczos_pairs))
    gram_bytes = 4 * 8 * n * n
    if dense:
        gram_pairs, how = (n * n * N + 2 * n**3) / (20 * n * N + 2.4e7), "one GEMM"
    elif m <= p and callable(getattr(operator, "gram", None)):
        gram_pairs, how = float(getattr(operator, "gram_pairs", 16 + n / 200)), "the operator's own gram()"
    elif n * N * size <= memory:
        gram_pairs, how = n / 2, f"{n} transposed products"
    else:
        gram_pairs, how = float(n), f"{n} products and their transposes"
    gram_pairs += k / 2
    if gram_bytes > memory:
        gram_pairs = float("inf")
        reason = (
            f"a Gram matrix of side {n} needs {gram_bytes / MiB:.0f} MiB, {memory / MiB:.0f} MiB are allowed"
        )
    else:
        reason = f"Gram by {how}: {gram_pairs:.0f} products' worth; Lanczos: about {lanczos_pairs:.0f}"
    method = "gram" if gram_pairs <= lanczos_pairs else "lanczos"
    return Price(method, gram_pairs, lanczos_pairs, gram_bytes, lanczos_bytes, reason)
