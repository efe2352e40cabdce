"""What a linear operator is, and the two views of one that the solvers share.

An operator A of shape (m, p) multiplies blocks of columns: ``matmat`` maps (p, b) to (m, b), ``rmatmat`` maps
(m, b) to (p, b) by the transpose. It may also offer ``gram()``, its A Aᵀ as an (m, m) tensor, if it has a
cheap way to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from labkit.krylov.basis import lengths

MiB = 2**20
PATIENCE = 16  # products between looks at them, where a look is to wait for a device
REAL = (torch.float32, torch.float64)


@runtime_checkable
class Operator(Protocol):
    """A real linear map of shape (m, p), known by its products only."""

    @property
    def shape(self) -> tuple[int, int]:
        """(m, p): rows and columns."""

    @property
    def dtype(self) -> torch.dtype:
        """float32 or float64, of every product."""

    @property
    def device(self) -> torch.device:
        """Where the products live."""

    def matmat(self, V: Tensor, /) -> Tensor:
        """A V, (p, b) to (m, b)."""

    def rmatmat(self, U: Tensor, /) -> Tensor:
        """Aᵀ U, (m, b) to (p, b)."""


@dataclass(frozen=True)
class LinearOperator:
    """An operator made of functions; see :func:`operator_from`."""

    shape: tuple[int, int]
    matmat: Callable[[Tensor], Tensor]
    rmatmat: Callable[[Tensor], Tensor]
    dtype: torch.dtype = torch.float32
    device: torch.device = torch.device("cpu")
    gram: Callable[[], Tensor] | None = None


@dataclass(frozen=True)
class DenseOperator:
    """A 2-D tensor, seen as an operator."""

    matrix: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(m, p)."""
        return self.matrix.shape[0], self.matrix.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Of the matrix."""
        return self.matrix.dtype

    @property
    def device(self) -> torch.device:
        """Of the matrix."""
        return self.matrix.device

    def matmat(self, V: Tensor) -> Tensor:
        """A V."""
        return self.matrix @ V

    def rmatmat(self, U: Tensor) -> Tensor:
        """Aᵀ U."""
        return self.matrix.T @ U


def operator_from(
    matmat: Callable[[Tensor], Tensor],
    rmatmat: Callable[[Tensor], Tensor],
    shape: tuple[int, int],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    gram: Callable[[], Tensor] | None = None,
) -> LinearOperator:
    """Make an operator of two functions.

    Args:
        matmat: (p, b) to (m, b), the product with A.
        rmatmat: (m, b) to (p, b), the product with Aᵀ.
        shape: (m, p).
        dtype: float32 or float64.
        device: where the products live.
        gram: optional, gives A Aᵀ as an (m, m) tensor, cheaper than m products.

    Returns:
        An operator. :func:`adjoint_gap` tests that the two functions are transposes of one another.

    Raises:
        ValueError: if the shape or the dtype cannot be an operator's.

    Cost: none, nothing is multiplied.

    Example:
        >>> doubled = operator_from(lambda V: 2 * V, lambda U: 2 * U, (3, 3))
        >>> doubled.matmat(torch.ones(3, 1)).T
        tensor([[2., 2., 2.]])
    """
    operator = LinearOperator((shape[0], shape[1]), matmat, rmatmat, dtype, torch.device(device), gram)
    as_operator(operator)
    return operator


def as_operator(A: Operator | Tensor) -> Operator:
    """See a 2-D tensor as an operator, and check what claims to be one.

    Args:
        A: a dense tensor (m, p), or what has `shape`, `dtype`, `device`, `matmat` and `rmatmat`.

    Returns:
        An operator of shape (m, p); A itself if it is one.

    Raises:
        TypeError: if A is neither a tensor nor has the five parts of an operator.
        ValueError: if A is not 2-D, is empty, is not float32 or float64, or is a tensor with NaN or infinite
            entries.

    Cost: one look at the m p entries of a tensor; of an operator none.
    """
    if isinstance(A, Tensor):
        if A.ndim != 2:
            raise ValueError(
                f"A: takes a 2-D tensor, got shape {tuple(A.shape)}. Flatten it to (rows, columns) first."
            )
        A = DenseOperator(finite(A.detach(), "has"))
    missing = [name for name in ("shape", "dtype", "device", "matmat", "rmatmat") if not hasattr(A, name)]
    if missing:
        raise TypeError(
            f"A: {type(A).__name__} is no operator, it lacks {', '.join(missing)}. "
            "Give a 2-D torch tensor, or make one with operator_from(matmat, rmatmat, shape)."
        )
    shape = tuple(A.shape)
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"A: takes shape (m, p) with m, p >= 1, got {shape}.")
    if A.dtype not in REAL:
        raise ValueError(
            f"A: takes float32 or float64, got {A.dtype}. Convert it, as in A.to(torch.float64)."
        )
    return A


class ShortSide:
    """An operator seen from its shorter side, with every product counted and checked.

    ``forward`` maps (n, b) to (N, b) and ``backward`` back, n = min(m, p) and N = max(m, p). With m <= p the
    forward map is Aᵀ. The solvers keep a basis of each side, and the short one is where a space can be
    exhausted.
    """

    def __init__(self, operator: Operator) -> None:
        self.operator = operator
        rows, columns = operator.shape
        self.flipped = rows <= columns
        self.short, self.long = min(rows, columns), max(rows, columns)
        self.dtype, self.device = operator.dtype, torch.device(operator.device)
        self.columns = 0
        self.watch: Watch | None = None  # what looks at products in place of `finite`

    @property
    def pairs(self) -> int:
        """Products so far: one is a pair, A on one column and Aᵀ on one column."""
        return (self.columns + 1) // 2

    def forward(self, X: Tensor) -> Tensor:
        """(n, b) to (N, b)."""
        return self._product("rmatmat" if self.flipped else "matmat", X, self.long)

    def backward(self, Y: Tensor) -> Tensor:
        """(N, b) to (n, b)."""
        return self._product("matmat" if self.flipped else "rmatmat", Y, self.short)

    def sides(self, short: Tensor, long: Tensor) -> tuple[Tensor, Tensor]:
        """(left, right) of (short, long)."""
        return (short, long) if self.flipped else (long, short)

    def width(self, memory: int) -> int:
        """Columns of a block whose two ends fit in `memory` bytes, at least 1."""
        return max(1, int(memory) // ((self.short + self.long) * self.dtype.itemsize))

    def _product(self, name: str, block: Tensor, rows: int) -> Tensor:
        self.columns += block.shape[1]
        # Detached, not under no_grad: an operator may need autograd inside its own product.
        result = getattr(self.operator, name)(block).detach()
        if result.shape != (rows, block.shape[1]):
            raise ValueError(
                f"A: {name} of a block of shape {tuple(block.shape)} gave {tuple(result.shape)}, "
                f"shape {tuple(self.operator.shape)} asks for {(rows, block.shape[1])}."
            )
        return (self.watch or finite)(result, f"{name} gave").to(self.dtype)


def finite(result: Tensor, how: str, argument: str = "A") -> Tensor:
    """The result itself, or one clear error if any entry is NaN or infinite."""
    # A sum costs a fifth of looking at each entry; it may overflow where none of them is infinite.
    if not bool(torch.isfinite(result.sum())):
        bad = int((~torch.isfinite(result)).sum())
        if bad:
            raise _not_finite(argument, how, f"{bad} of {result.numel()}")
    return result


def _not_finite(argument: str, how: str, count: str) -> ValueError:
    return ValueError(
        f"{argument}: {how} NaN or infinite entries ({count}). Check the weights and inputs behind it."
    )


class Watch:
    """:func:`finite` for a loop: at once on a CPU; elsewhere the device takes notes, which are read now and
    then, and by :meth:`look` at the end.
    """

    def __init__(self, device: torch.device) -> None:
        self._waits = device.type != "cpu"
        self._notes: list[tuple[str, str, Tensor]] = []

    def __call__(self, result: Tensor, how: str, argument: str = "A") -> Tensor:
        if not self._waits:
            return finite(result, how, argument)
        self._notes.append((argument, how, (~torch.isfinite(result)).sum()))
        if len(self._notes) == PATIENCE:
            self.look()
        return result

    def look(self) -> None:
        """Raises what `finite` would have raised of the first of the products since the last look."""
        if not self._notes:
            return
        notes, self._notes = self._notes, []
        for (argument, how, _), bad in zip(notes, torch.stack([n for *_, n in notes]).tolist(), strict=True):
            if bad:
                raise _not_finite(argument, how, f"{bad}")


def seeded(generator: torch.Generator | None) -> torch.Generator:
    """The caller's generator, or a private one with a fixed seed: the global one is never touched."""
    return torch.Generator().manual_seed(0) if generator is None else generator


def normal(shape: tuple[int, ...], like: Operator | ShortSide, generator: torch.Generator) -> Tensor:
    """Standard normal entries, drawn in float64 on the generator's device: the same for every dtype."""
    draw = torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)
    return draw.to(like.dtype).to(like.device)


def adjoint_gap(A: Operator | Tensor, *, probes: int = 3, generator: torch.Generator | None = None) -> float:
    """How far ``rmatmat`` is from the transpose of ``matmat``: max |⟨A v, u⟩ − ⟨v, Aᵀu⟩| / (‖A v‖ ‖u‖).

    Args:
        A: an operator or a 2-D tensor.
        probes: how many random pairs (u, v) are tried.
        generator: of the random pairs; by default a private one with a fixed seed.

    Returns:
        A few times the rounding unit for a right pair (1e-7 in float32, 1e-16 in float64), of order 1e-2 to 1
        for a wrong one.

    Raises:
        TypeError, ValueError: as `as_operator`.

    Cost: `probes` products, one block of columns either way; about 3 (m + p) · probes numbers.

    Reference: the dot test of adjoint pairs, as in `pylops.utils.dottest`.
    """
    operator, generator = as_operator(A), seeded(generator)
    m, p = operator.shape
    U, V = normal((m, probes), operator, generator), normal((p, probes), operator, generator)
    AV = finite(operator.matmat(V).detach(), "matmat gave")
    AtU = finite(operator.rmatmat(U).detach(), "rmatmat gave")
    gap = ((AV * U).sum(0) - (V * AtU).sum(0)).abs()
    size = torch.maximum(lengths(AV) * lengths(U), lengths(AtU) * lengths(V))
    return float((gap / size.clamp_min(torch.finfo(operator.dtype).tiny)).max())
