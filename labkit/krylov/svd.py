"""The front door of the top-k SVD: checks, the choice of a route, and the verification of what came out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from labkit.krylov.basis import departure, length, lengths
from labkit.krylov.certificate import refuse_scale
from labkit.krylov.gram import gram_top_k
from labkit.krylov.operators import DenseOperator, MiB, Operator, ShortSide, as_operator, normal, seeded
from labkit.krylov.price import Price, svd_price
from labkit.krylov.topk import ROOM, Found, top_k


@dataclass(frozen=True)
class SVD:
    """The k leading singular triplets and how far to trust them.

    Attributes:
        U: (m, k), left singular vectors as columns.
        s: (k,), descending.
        V: (p, k), right singular vectors as columns.
        residual: (k,), max(‖A v − s u‖, ‖Aᵀu − s v‖) / s₁ for each triplet.
        orthogonality: max over both sides of |QᵀQ − I|.
        converged: (k,) bool: `complete`, and residual and orthogonality are within `tolerance`.
        complete: whether no value is missing: s_i(A) <= s_i + tolerance · s₁ for all i <= k, but for a
            probability of 1e-3 over the random vectors (for each route that was tried). It takes for granted
            that the operator is linear and the same at every call, which the residuals are a test of.
        tolerance: that was applied: the one asked for, or 32 rounding units if that is more.
        method: "gram" or "lanczos".
        products: spent in all, verification included; one product is a pair, A and Aᵀ on one column each.
            What an operator spends inside its own gram() is not seen here.
    """

    U: Tensor
    s: Tensor
    V: Tensor
    residual: Tensor
    orthogonality: float
    converged: Tensor
    complete: bool
    tolerance: float
    method: str
    products: int

    @property
    def k(self) -> int:
        """How many triplets."""
        return len(self.s)

    def __repr__(self) -> str:
        return (
            f"SVD(k={self.k}, method={self.method!r}, products={self.products}, "
            f"converged={int(self.converged.sum())}, residual={float(self.residual.max()):.1e}, "
            f"orthogonality={self.orthogonality:.1e})"
        )


def svd(
    A: Operator | Tensor,
    k: int,
    *,
    tol: float = 1e-6,
    max_products: int | None = None,
    memory: int = 512 * MiB,
    method: str = "auto",
    verify: str = "auto",
    generator: torch.Generator | None = None,
) -> SVD:
    """The k largest singular values of a matrix-free operator, with their vectors.

    A v_i = s_i u_i, Aᵀu_i = s_i v_i, s_1 >= … >= s_k.

    Two routes. "gram": eigenvectors of the Gram matrix of the short side, then one Rayleigh–Ritz step; what
    may be missing is told by the next eigenvalue and the error of the matrix. "lanczos": Golub–Kahan
    bidiagonalisation, one vector at a time, always fully reorthogonalised (without it, ghost copies with
    converged residuals), restarted when the bases fill `memory`. One Krylov space cannot hold a further copy
    of a repeated value. So when all k residuals are small, a second chain starts from a random vector
    orthogonal to the accepted triplets alone, and runs until it finds a larger value or has made one less
    probable than 1e-3 (:mod:`labkit.krylov.certificate`). Where a tail is so close below s_k that this is not
    settled within `max_products`, `complete` is False. "auto" takes the cheaper by :func:`svd_price`, and the
    other where the first did not converge and the other is not beyond `max_products`.

    Shapes: A (m, p); U (m, k), s (k,), V (p, k).

    Cost: for a decaying spectrum about 1.8 k + 20 products by Lanczos, the search for missed copies (5 to 15)
    included; slow decay costs more, and so does each further copy of a repeated value. Basis memory (m + p) ·
    products numbers, the result comes on top. One random combination of all triplets is multiplied to confirm
    the recorded residuals (1 product); if it contradicts them, or for a dense tensor, or with verify="each",
    each triplet is multiplied by itself (k products). An operator's own gram() is compared with 3 products.
    The Gram route: see :func:`svd_price`.

    Error to expect: s within residual² s₁²/gap, at best 1e-15 s₁ in float64 and 3e-7 s₁ in float32;
    orthogonality 1e-14 and 3e-6. By the Gram route values below 1e-7 s₁ (3e-4 s₁ if the operator's own gram()
    is float32) are noise of that size. Zero values get orthonormal vectors.

    Args:
        A: an operator or a dense 2-D tensor, float32 or float64.
        k: how many triplets, 1 to min(m, p).
        tol: on the residuals, as a share of s₁; not below 32 rounding units (4e-6 in float32).
        max_products: bound on the products of the Lanczos run, by default 10 (k + 20). By "auto" it ends
            earlier, where it has spent what the Gram route costs. When it is too small, what has not
            converged says so; nothing is raised.
        memory: bytes for the bases, or the Gram matrix.
        method: "auto", "gram" or "lanczos".
        verify: "auto", "probe" (one random combination) or "each".
        generator: of the random vectors; by default a private one with a fixed seed.

    Returns:
        SVD. Signs: the largest entry of each u is positive.

    Raises:
        ValueError: if k, tol, max_products, method or verify cannot be taken; if `memory` does not hold k +
            20 vectors of both sides (or the Gram matrix that was asked for); if a product is not finite, or
            s₁ so small or large that its square is not; or if gram() is not A Aᵀ.

    Reference: Golub & Kahan 1965; Baglama & Reichel 2005 (restart); Kuczyński & Woźniakowski 1992, van
        Dorsselaer, Hochstenbach & van der Vorst 2000 (the search).

    Example:
        >>> result = svd(torch.diag(torch.tensor([4.0, 1.0, 3.0])), 2)
        >>> result.s
        tensor([4., 3.])
        >>> bool(result.converged.all())
        True
    """
    operator = as_operator(A)
    view, generator = ShortSide(operator), seeded(generator)
    _check(view, k, tol, max_products, method, verify)
    tol = max(float(tol), 32 * torch.finfo(view.dtype).eps)
    price = svd_price(operator, k, memory=memory)
    if method == "gram" and price.gram_bytes > memory:
        raise ValueError(f"memory: {price.reason}. Pass memory={price.gram_bytes}, or method='lanczos'.")
    routes, budget = _plan(price, method, 10 * (k + 20) if max_products is None else max_products)
    each = verify == "each" or (verify == "auto" and isinstance(operator, DenseOperator))
    results = []
    for route in routes:
        if route == "gram":
            found = gram_top_k(view, k, tol, memory, generator)
        else:
            found = top_k(view, k, tol, budget, _capacity(view, k, memory), generator)
        results.append(_result(view, found, route, tol, each, memory, generator))
        if bool(results[-1].converged.all()):
            return results[-1]
    best = min(results, key=lambda result: (not result.complete, float(result.residual.max())))
    return replace(best, products=view.pairs)


def _plan(price: Price, method: str, budget: int) -> tuple[list[str], int]:
    """The routes in the order in which they are tried, and the bound on the products of Lanczos."""
    if method != "auto":
        return [method], budget
    if price.method == "gram":
        return ["gram", "lanczos"], budget
    if price.gram_pairs > budget:
        return ["lanczos"], budget
    # A spectrum that does not decay costs no more than twice the Gram route.
    return ["lanczos", "gram"], math.ceil(price.gram_pairs)


def _check(view: ShortSide, k: int, tol: float, max_products: int | None, method: str, verify: str) -> None:
    shape = tuple(view.operator.shape)
    if isinstance(k, bool) or not isinstance(k, int):
        raise ValueError(f"k: takes a whole number from 1 to {view.short}, got {k!r}.")
    if not 1 <= k <= view.short:
        raise ValueError(
            f"k: a matrix of shape {shape} has {view.short} singular values, so 1 to {view.short}; got {k}."
        )
    if not 0 < tol < 1:
        raise ValueError(f"tol: takes a share of the first singular value between 0 and 1, got {tol!r}.")
    if max_products is not None and (isinstance(max_products, bool) or not isinstance(max_products, int)):
        raise ValueError(f"max_products: takes a whole number or None, got {max_products!r}.")
    if max_products is not None and max_products < 1:
        raise ValueError(f"max_products: takes at least 1, got {max_products}.")
    for name, value, choices in (
        ("method", method, "auto gram lanczos"),
        ("verify", verify, "auto probe each"),
    ):
        if value not in choices.split():
            raise ValueError(f"{name}: takes {', '.join(map(repr, choices.split()))}, got {value!r}.")


def _capacity(view: ShortSide, k: int, memory: int) -> int:
    """Basis vectors that fit; enough to restart with, or a clear refusal."""
    needed = min(k + ROOM, view.short)
    capacity = view.width(memory)
    if capacity < needed:
        size = (view.short + view.long) * view.dtype.itemsize
        raise ValueError(
            f"memory: {k} triplets of shape {tuple(view.operator.shape)} take at least {needed} vectors of "
            f"both sides, {needed * size / MiB:.1f} MiB, got {memory / MiB:.1f} MiB. "
            f"Pass memory={needed * size} or more ({3 * k * size} avoids restarts), or a smaller k."
        )
    return min(capacity, view.short, max(20 * (k + ROOM), 200))


def _result(
    view: ShortSide,
    found: Found,
    method: str,
    tol: float,
    each: bool,
    memory: int,
    generator: torch.Generator,
) -> SVD:
    refuse_scale(float(found.s[0]))
    s1 = float(found.s[0]) or 1.0
    residual = found.residual / s1
    if not each:
        seen = _probe(view, found, generator) / s1
        rounding = 8 * torch.finfo(view.dtype).eps
        each = not seen <= max(tol, 3 * float(residual.norm()), rounding * len(residual) ** 0.5)
        residual = residual.clamp_min(min(seen / len(residual) ** 0.5, rounding))
    if each:
        residual = _true_residuals(view, found, memory) / s1
    off = max(departure(found.X), departure(found.Y))
    converged = (residual <= tol) & found.complete & (off <= max(tol, 1e-10))
    U, V = view.sides(found.X, found.Y)
    sign = U.gather(0, U.abs().argmax(0, keepdim=True)).sign()
    return SVD(
        U=(U * sign).contiguous(),
        s=found.s.to(found.X),
        V=(V * sign).contiguous(),
        residual=residual.to(found.X),
        orthogonality=off,
        converged=converged.to(view.device),
        complete=found.complete,
        tolerance=tol,
        method=method,
        products=view.pairs,
    )


def _probe(view: ShortSide, found: Found, generator: torch.Generator) -> float:
    """The residual of one random combination z of all triplets, by one product.

    E‖R z‖² is the sum of all squared residuals, so a small one vouches for each of them.
    """
    z = normal((len(found.s), 1), view, generator)
    sz = found.s.to(z)[:, None] * z
    ahead = length(view.forward(found.X @ z) - found.Y @ sz)
    return max(ahead, length(view.backward(found.Y @ z) - found.X @ sz))


def _true_residuals(view: ShortSide, found: Found, memory: int) -> Tensor:
    """max(‖forward(x) − s y‖, ‖backward(y) − s x‖) of each triplet, (k,), by k products in blocks."""
    k, width = len(found.s), view.width(memory)
    parts = []
    for c in range(0, k, width):
        X, Y, s = found.X[:, c : c + width], found.Y[:, c : c + width], found.s[c : c + width].to(found.X)
        ahead = lengths(view.forward(X) - Y * s)
        parts.append(torch.maximum(ahead, lengths(view.backward(Y) - X * s)))
    return torch.cat(parts).cpu().double()
