"""Operators: what is accepted, and the adjoint test."""

from __future__ import annotations

import pytest
import torch

from labkit.krylov import (
    Operator,
    adjoint_gap,
    as_operator,
    lanczos,
    operator_from,
    singular_values,
    spectral_density,
    svd,
    svd_price,
)
from tests.krylov.spectra import hidden, problem


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adjoint_gap_is_rounding_for_a_right_pair_and_large_for_a_wrong_one(dtype):
    """Catches a comparator that accepts a factor 2, a swapped layout or a lost chunk."""
    A, _ = problem("decaying", 12, 20, dtype)
    assert adjoint_gap(A) < 20 * torch.finfo(dtype).eps
    swap = torch.arange(12).reshape(3, 4).T.reshape(-1)  # class-major for sample-major, K = 4 and n = 3
    lost = torch.ones(12, 1, dtype=dtype)
    lost[8:] = 0
    for wrong in (lambda U: 2 * A.T @ U, lambda U: A.T @ U[swap], lambda U: A.T @ (U * lost)):
        assert adjoint_gap(hidden(A, rmatmat=wrong)) > 1e-3


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_adjoint_gap_sees_a_wrong_pair_at_any_scale(scale):
    """Catches norms whose squares overflow in float32, of which any gap is no share."""
    A = scale * problem("decaying", 12, 20, torch.float32)[0]
    assert adjoint_gap(A) < 1e-5
    assert adjoint_gap(hidden(A, rmatmat=lambda U: 2 * A.T @ U)) > 1e-3


def test_a_tensor_and_its_functions_are_both_operators():
    """Catches a dense tensor that is treated as another thing than the operator it stands for."""
    A = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    dense, made = as_operator(A), hidden(A.detach())
    assert isinstance(dense, Operator) and isinstance(made, Operator)
    V = torch.ones(5, 2)
    assert torch.equal(dense.matmat(V), made.matmat(V)) and not dense.matmat(V).requires_grad


@pytest.mark.parametrize(
    ("A", "error", "message"),
    [
        (torch.zeros(3), ValueError, "2-D"),
        (torch.zeros(0, 3), ValueError, "m, p >= 1"),
        (torch.zeros(2, 2, dtype=torch.int64), ValueError, "float32 or float64"),
        ([[1.0]], TypeError, "lacks shape.*operator_from"),
    ],
)
def test_what_is_no_operator_is_refused(A, error, message):
    """Catches an error from deep inside a solver."""
    with pytest.raises(error, match=message):
        as_operator(A)


def test_a_product_of_the_wrong_shape_is_named():
    """Catches a transposed product on a nearly square operator, which broadcasting could hide."""
    with pytest.raises(ValueError, match=r"rmatmat of a block .* asks for \(4, 1\)"):
        svd(operator_from(lambda V: V[:3], lambda U: U, (3, 4)), 2, method="lanczos")


def test_the_price_names_the_cheaper_route_and_what_does_not_fit():
    """Catches a route that is chosen against its own price."""
    A, _ = problem("decaying", 300, 400)
    assert svd_price(A, 20).method == "gram"
    assert svd_price(hidden(A), 20).method == "lanczos"
    assert svd_price(hidden(A), 250).method == "gram"
    assert svd_price(hidden(A, gram=lambda: A @ A.T), 20).method == "gram"
    tight = svd_price(A, 20, memory=10**6)
    assert tight.method == "lanczos" and tight.gram_pairs == float("inf") and "side 300" in tight.reason


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "call",
    [
        lambda A: svd(A, 2),
        lambda A: svd(A, 2, method="gram"),
        lambda A: svd(A, 2, method="lanczos"),
        singular_values,
        lambda A: spectral_density(A, method="lanczos"),
        lambda A: spectral_density(A, method="gram"),
        lambda A: spectral_density(A, of="operator"),
        adjoint_gap,
    ],
)
def test_an_operator_that_is_not_finite_is_named(call, value):
    """Catches NaN that comes out as a result, or as an IndexError from deep inside."""
    A = torch.eye(4)
    A[1, 2] = value
    faulty = [A, hidden(A), hidden(A, gram=lambda: A @ A.T)]
    for operator in faulty:
        with pytest.raises(ValueError, match=r"^A: .*NaN or infinite entries"):
            call(operator)
    with pytest.raises(ValueError, match=r"^matvec: .*NaN or infinite entries"):
        lanczos(lambda v: A @ v, torch.ones(4), 3)


def test_entries_whose_sum_overflows_are_finite():
    """Catches a finite operator called infinite."""
    A = 3e38 * torch.eye(4)
    assert svd(hidden(A), 2, method="lanczos").s.tolist() == pytest.approx([3e38] * 2)
