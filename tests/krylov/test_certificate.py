"""Spectra made to break a certificate: what is flagged complete is right, by every route."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import Tensor

from labkit.krylov import operator_from, svd, topk
from labkit.krylov.bidiagonal import Factorisation
from tests.krylov.spectra import hidden, reflected


def close_tail(seed: int, n: int) -> tuple[Tensor, Tensor, int]:
    """(A, its singular values, k): a top value of multiplicity 2 to 15, a tail at any distance below."""
    draw = random.Random(seed)
    copies, gap = draw.randint(2, 15), 10 ** -draw.uniform(0.3, 7)
    i = torch.arange(n - copies, dtype=torch.float64)
    tail = {
        "linear": 1 - i / len(i),
        "slow": (i + 1) ** -0.5,
        "geometric": 0.93**i,
        "flat": torch.ones_like(i),
        "cluster": torch.where(i < 10, 1 - 1e-9 * i, 0.5 - 0.5 * i / len(i)),
        "low rank": torch.where(i < 10, 1 - 0.05 * i, 0),
        "second multiplet": torch.where(i < copies, 1, 0.95 * (1 - i / len(i))),
    }[draw.choice(["linear", "slow", "geometric", "flat", "cluster", "low rank", "second multiplet"])]
    outliers = torch.tensor([5.0, 4.0, 3.0], dtype=torch.float64)[: draw.choice([0, 0, 3])]
    s = torch.cat([outliers, 2 * torch.ones(copies, dtype=torch.float64), 2 * (1 - gap) * tail])[:n]
    long, dtype = n + draw.choice([0, 30, 300]), draw.choice([torch.float32, torch.float64])
    shape = draw.choice([(n, long), (long, n)])
    return reflected(s, *shape, dtype, seed), s, draw.choice([1, 2, copies, copies, copies + 2])


def check_flags(A: Tensor, s: Tensor, k: int, seed: int, **options: object) -> bool:
    """Hold what is flagged to the truth; returns whether it was.

    The tolerance once for the certificate and once for rounding: it is 32 units in float32.
    """
    result = svd(A, k, generator=torch.Generator().manual_seed(seed), **options)
    gap = (result.s.double() - s[:k]).abs() / s[0]
    flagged = result.converged if not result.complete else torch.ones_like(result.converged)
    assert float((gap * flagged).max()) <= 2 * result.tolerance, (seed, options, result, gap)
    return result.complete


MANY = [pytest.param(range(first, first + 50), marks=pytest.mark.slow) for first in range(100, 600, 50)]


@pytest.mark.parametrize("seeds", [range(6), *MANY], ids=str)
def test_nothing_wrong_is_flagged_complete(seeds):
    """Catches a premise that fails: a search orthogonal to more than what was accepted."""
    complete = 0
    for seed in seeds:
        A, s, k = close_tail(seed, 120 if len(seeds) < 50 else random.Random(seed).choice([120, 300, 1000]))
        complete += check_flags(hidden(A), s, k, seed, method="lanczos")
        complete += check_flags(hidden(A, gram=(lambda A=A: A @ A.T)), s, k, seed)
        complete += check_flags(A, s, k, seed)
    assert complete > 2 * len(seeds)  # a certificate that always says no would pass otherwise


def test_the_case_that_was_flagged_wrong():
    """Catches the old search, on the input that it was seen to fail on: 5 × 2.0 above a tail from 1.99."""
    s = torch.cat([torch.full((5,), 2.0), torch.linspace(1.99, 0, 295)]).double()
    A = reflected(s, 300, 500, torch.float32)
    assert check_flags(hidden(A), s, 5, 0, method="lanczos", max_products=900)


@pytest.mark.parametrize("seed", range(4))
def test_a_copy_that_rounding_hides_is_found(seed):
    """Catches a search that ends where its next direction is rounding: of 13 × 2 above 987 × 1.99996, one
    start holds so little of the thirteenth that in float32 the whole rest looks like one value.
    """
    s = torch.cat([torch.full((13,), 2.0), torch.full((987,), 2 - 4e-5)]).double()
    A = reflected(s, 1030, 1000, torch.float32, seed)
    assert check_flags(hidden(A), s, 13, seed, method="lanczos")


@pytest.mark.parametrize(("n", "above", "seed"), [(50, 1.2e-5, 1696), (10, 1.2e-5, 2182), (20, 8e-6, 1688)])
def test_what_rounds_to_zero_is_not_taken_for_the_end(n, above, seed):
    """Catches a search that ends at an off-diagonal of exactly 0: a value is 1 + `above`, the rest are 1."""
    v = torch.randn(n, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    v = v.sign().float() / math.sqrt(n)
    A = operator_from(*[lambda V: V + v @ (above * (v.T @ V))] * 2, (n, n), dtype=torch.float32)
    assert check_flags(A, torch.tensor([1 + above]).double(), 1, seed + 10**6, method="lanczos")


@pytest.mark.parametrize("k", [1, 5, 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_value_of_many_copies_costs_few_products(k, dtype):
    """Catches searches that each find another copy of the k-th value, until the budget or the space ends."""
    s = torch.cat([torch.ones(200), torch.full((200,), 0.5)]).double()
    A = reflected(s, 400, 500, dtype)
    assert check_flags(hidden(A), s, k, 0, method="lanczos", max_products=30 + 2 * k)


def test_a_search_orthogonal_to_the_whole_basis_would_be_caught(monkeypatch):
    """Catches tests too easy to fail: without the cut of the basis before the search, wrong is flagged."""
    monkeypatch.setattr(Factorisation, "compress", lambda *_: None)
    monkeypatch.setattr(topk, "lock", _whole_basis)
    s = torch.cat([torch.full((5,), 2.0), torch.linspace(1.99, 0, 295)]).double()
    A = reflected(s, 300, 500, torch.float32)
    with pytest.raises(AssertionError):
        for seed in range(5):
            check_flags(hidden(A), s, 5, seed, method="lanczos")


def _whole_basis(values: Tensor, _coupling: Tensor, k: int, slack: float, *_: float) -> tuple[int, float]:
    return len(values), float(values[k - 1]) + slack


def test_a_gram_matrix_that_lost_the_order_of_small_values_is_not_trusted():
    """Catches a certificate from a Gram matrix in float32: values of 1e-4 s₁ and less are all 0 in it, their
    vectors are exact, and every residual is small.
    """
    small = torch.linspace(1e-4, 1e-5, 20, dtype=torch.float64)
    blocks = [torch.tensor([[1, 0], [1, float(x)]], dtype=torch.float64) for x in small]
    A = torch.block_diag(*blocks)
    s = torch.linalg.svdvals(A)
    for method in ("gram", "auto"):
        check_flags(hidden(A, gram=lambda: (A @ A.T).float()), s, 25, 0, method=method)
    assert not svd(hidden(A, gram=lambda: (A @ A.T).float()), 25, method="gram").complete


def test_eigenvalues_that_lapack_lost_are_found():
    """Catches an IndexError: of 2, 2 above 118 × 1.986, asked for three, LAPACK gave one on some CPU."""
    A, s, k = close_tail(546, 120)
    assert check_flags(hidden(A), s, k, 546, method="gram")


def test_a_gram_of_another_matrix_is_named():
    """Catches a gram() with a factor 2, or without the last rows."""
    A = reflected(1 / torch.arange(1, 41).double(), 40, 50)
    lost = torch.cat([A[:30], torch.zeros(10, 50)])
    for wrong in (lambda: 2 * A @ A.T, lambda: lost @ lost.T):
        with pytest.raises(ValueError, match=r"A: gram\(\) is not A Aᵀ"):
            svd(operator_from(lambda V: A @ V, lambda U: A.T @ U, (40, 50), dtype=A.dtype, gram=wrong), 5)


@pytest.mark.parametrize("scale", [1e-200, 1e-150, 1e150, 1e200])
@pytest.mark.parametrize("k", [1, 5])
def test_squares_beyond_float64_are_refused(scale, k):
    """Catches a bare ZeroDivisionError, and values that are half of the true ones and called complete."""
    A = scale * reflected(torch.linspace(1, 0.1, 5).double(), 5, 8)
    with pytest.raises(ValueError, match="A: its first singular value is about"):
        svd(hidden(A), k, method="lanczos")


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("method", ["lanczos", "auto"])
def test_squares_beyond_float32_are_summed_in_float64(scale, method):
    """Catches residuals that overflow: right triplets, and none of them called converged."""
    s = torch.linspace(1, 0.1, 40).double()
    A = (scale * reflected(s, 40, 60)).float()
    result = svd(A, 4, method=method)
    assert result.converged.all() and torch.allclose(result.s.double() / scale, s[:4], rtol=1e-5)
