"""The factorisation behind the Lanczos SVD: Golub–Kahan bidiagonalisation that may be restarted and deflated.

With A seen from its short side (forward: n to N, backward: N to n), orthonormal X (n, j) and Y (N, j):

    forward(X) = Y B,        backward(Y) = X Bᵀ + R Cᵀ,        XᵀR = 0.

B is upper triangular (bidiagonal while there is one chain). R has one column a *chain*: the next direction of
the run that it belongs to. Plain Golub–Kahan is one chain with C = e_j. A new chain from a random vector is
what finds a second copy of a repeated singular value: one Krylov space holds one direction of each
eigenspace, whatever its dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor

from labkit.krylov.basis import combine, inner, length, orthogonalise, random_direction
from labkit.krylov.operators import ShortSide, normal
from labkit.krylov.small import small_svd


class Factorisation:
    """X, Y, B, R and C above, grown a vector at a time and always fully reorthogonalised.

    X and Y are stored as rows. Small matrices are float64 on the CPU. `drift[i]` is how far the products with
    column i of Y were from what B and C say: rounding for a true pair (A, Aᵀ), large for a wrong one.
    """

    def __init__(self, view: ShortSide, capacity: int, generator: torch.Generator) -> None:
        self.view, self.capacity, self.generator = view, min(capacity, view.short), generator
        self.X = torch.empty(self.capacity, view.short, dtype=view.dtype, device=view.device)
        self.Y = torch.empty(self.capacity, view.long, dtype=view.dtype, device=view.device)
        self.B = torch.zeros(self.capacity, self.capacity, dtype=torch.float64)
        self.C = torch.zeros(self.capacity, 0, dtype=torch.float64)
        self.R = torch.empty(0, view.short, dtype=view.dtype, device=view.device)
        self.drift = torch.zeros(self.capacity, dtype=torch.float64)
        self.size = 0
        self.scale = 0.0  # the largest product norm so far, a lower bound of the first singular value

    @property
    def exhausted(self) -> bool:
        """The short side is full: the factorisation is the whole of A, and exact."""
        return self.size == self.view.short

    @property
    def full(self) -> bool:
        """No room is left for another vector."""
        return self.size == self.capacity

    def inject(self) -> int:
        """Start a new chain from a random direction orthogonal to all found so far; returns its number."""
        x = self._random(self.X)
        self.C = torch.cat([self.C, torch.zeros(self.capacity, 1, dtype=torch.float64)], dim=1)
        self.R = torch.cat([self.R, torch.zeros_like(x)[None]])
        self._append(x, self.C.shape[1] - 1)
        return self.C.shape[1] - 1

    def advance(self, chain: int, through: bool = False) -> bool:
        """One more vector on a chain; False if its space is invariant to rounding: it has broken down.

        `through`: it goes on all the same, by the direction that rounding left, or any where it left none.
        """
        _, x, norm = orthogonalise(self.X[: self.size], self.R[chain])
        if norm <= self.noise() and not through:
            self.R[chain] = 0
            return False
        self._append(x / norm if norm else self._random(self.X), chain)
        return True

    def ritz(self) -> tuple[Tensor, Tensor, Tensor]:
        """SVD of B: (left (j, j), values (j,), right (j, j)), so forward(X right) = (Y left) values."""
        return small_svd(self.B[: self.size, : self.size])

    def residuals(self, left: Tensor) -> Tensor:
        """‖backward(Y l) − s X r‖ for columns l of `left` (j, k), from the recorded products: (k,)."""
        noise = ((left**2).T @ self.drift[: self.size] ** 2).sqrt()
        return torch.hypot(self.coupling(left).norm(dim=1), noise)

    def coupling(self, left: Tensor) -> Tensor:
        """leftᵀ C Rᵀ, what backward(Y left) has outside X, in orthonormal coordinates: (k, chains)."""
        # By QR: the chains' directions may be nearly parallel, and a Gram matrix of them would cancel to half
        # the digits.
        triangle = torch.linalg.qr(self.R.T, mode="r")[1].cpu().double()
        return left.T @ self.C[: self.size] @ triangle.T

    def neediest(self, left: Tensor) -> int | None:
        """The chain that holds back the columns of `left` most; None if all have broken down."""
        if len(self.R) == 0:
            return None
        norms = self.R.norm(dim=1).cpu().double()
        weight = norms * (self.C[: self.size].T @ left).abs().amax(1)
        weight = torch.where(norms > self.noise(), weight, -1.0)
        best = int(weight.argmax())
        return best if weight[best] >= 0 else None

    def tail(self, begin: int, chain: int) -> tuple[Tensor, Tensor]:
        """Diagonal (q,) and off-diagonal (q,) of the bidiagonal block that a chain has built since vector
        `begin`.

        The last off-diagonal entry is the norm of the direction that the chain would take next.
        """
        block = self.B[begin : self.size, begin : self.size]
        ahead = torch.tensor([length(self.R[chain])], dtype=torch.float64)
        return block.diagonal().clone(), torch.cat([block.diagonal(1), ahead])

    def compress(self, keep: int) -> None:
        """Thick restart (Baglama & Reichel 2005): keep the leading triplets and every chain."""
        left, values, right = self.ritz()
        left, right = left[:, :keep], right[:, :keep]
        combine(self.X[: self.size], right, out=self.X[:keep])
        combine(self.Y[: self.size], left, out=self.Y[:keep])
        alive = self.R.norm(dim=1) > self.noise()
        C = left.T @ self.C[: self.size]
        drift = ((left**2).T @ self.drift[: self.size] ** 2).sqrt()
        self.B.zero_()
        self.drift.zero_()
        self.B[:keep, :keep] = torch.diag(values[:keep])
        self.drift[:keep] = drift
        self.C = torch.zeros(self.capacity, int(alive.sum()), dtype=torch.float64)
        self.C[:keep] = C[:, alive.cpu()]
        self.R, self.size = self.R[alive], keep

    def pad(self, k: int) -> None:
        """Fill up to k vectors without products, as zeros of B, for a budget that ran out before k."""
        while self.size < k:
            for rows in (self.X, self.Y):
                rows[self.size] = self._random(rows)
            self.drift[self.size] = self.scale or 1.0  # nothing is known: a residual of about s₁
            self.size += 1

    def noise(self) -> float:
        """The rounding of one product: directions no longer than this are counted as none."""
        return 10 * torch.finfo(self.view.dtype).eps * self.scale

    def _random(self, rows: Tensor) -> Tensor:
        """A direction orthogonal to all found so far, on the side of X or Y."""
        draw = normal((rows.shape[1],), self.view, self.generator)
        return random_direction(rows[: self.size], draw)

    def _append(self, x: Tensor, chain: int) -> None:
        j = self.size
        along = inner(self.R, x[:, None])
        expected = self.C[:j] @ along[:, 0].cpu().double()  # what backward(Y) said about this direction
        self.R = self.R - along.to(x.dtype) * x
        self.X[j] = x

        y = self.view.forward(x[:, None])[:, 0]
        self.scale = max(self.scale, length(y))
        coefficients, y, alpha = orthogonalise(self.Y[:j], y)
        if alpha <= self.noise():  # x is in the null space of what is left: any new direction serves
            alpha = 0.0
            y = self._random(self.Y)
        else:
            y = y / alpha
        self.Y[j] = y
        self.B[:j, j] = coefficients.cpu().double()
        self.B[j, j] = alpha
        self.drift[:j] = torch.hypot(self.drift[:j], self.B[:j, j] - expected)

        f = self.view.backward(y[:, None])[:, 0]
        self.scale = max(self.scale, length(f))
        coefficients, f, _ = orthogonalise(self.X[: j + 1], f)
        seen = coefficients.cpu().double()
        seen[j] -= alpha
        self.drift[j] = float(seen.norm())
        self.R[chain] = f
        self.C[:, chain] = 0
        self.C[j, chain] = 1
        self.size += 1
