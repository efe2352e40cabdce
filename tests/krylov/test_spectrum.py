"""The full spectrum by its routes, and the small SVD beneath."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from labkit.krylov import singular_values
from labkit.krylov.small import small_svd
from tests.krylov.spectra import SHAPES, SPECTRA, hidden, problem


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", list(SPECTRA))
def test_every_route_gives_the_known_spectrum(name, shape):
    """Catches the wrong side of the Gram matrix, ascending order, a negative eigenvalue under the root."""
    A, s = problem(name, *shape)
    routes = {
        "tensor": singular_values(A),
        "tensor by pieces": singular_values(A, memory=32 * 60 * 60 - 8 + 8) if min(shape) == 60 else s,
        "products": singular_values(hidden(A)),
        "own gram": singular_values(hidden(A, gram=lambda: A @ A.T)),
    }
    for route, values in routes.items():
        assert values.shape == s.shape, route
        # √eps of float64, as squaring leaves it
        assert float((values - s).abs().max()) <= 5e-8 * (float(s[0]) or 1), route


def test_the_width_of_a_block_stays_within_memory():
    """Catches an identity matrix pushed through at once, (m, p) numbers in disguise."""
    A, s = problem("decaying", 40, 4000)
    memory = 32 * 40 * 40
    columns = []

    def narrow(M, V):
        columns.append(V.shape[1])
        return M @ V

    operator = hidden(A, matmat=lambda V: narrow(A, V), rmatmat=lambda U: narrow(A.T, U))
    values = singular_values(operator, memory=memory)
    assert float((values - s).abs().max()) < 1e-7
    assert max(columns) * 4040 * 8 <= max(memory, 4040 * 8)


def test_a_spectrum_that_does_not_fit_names_its_price():
    """Catches a crash for want of memory where a sentence would do."""
    A, _ = problem("decaying", 60, 90)
    with pytest.raises(
        ValueError, match=r"memory: the full spectrum of shape \(60, 90\).*Pass memory=115200.*svd\(A, k\)"
    ):
        singular_values(hidden(A), memory=100_000)


def test_a_gram_of_the_wrong_shape_is_named():
    """Catches a gram() that gives AᵀA."""
    A, _ = problem("decaying", 20, 30)
    with pytest.raises(ValueError, match=r"gram\(\) gave shape \(30, 30\)"):
        singular_values(hidden(A, gram=lambda: A.T @ A))


def test_float32_rows_are_summed_in_float64():
    """Catches a Gram matrix in float32, whose square root has three digits."""
    A, s = problem("decaying", 60, 3000, torch.float32)
    values = singular_values(hidden(A)).double()
    assert float((values - s).abs().max()) < 3e-7


def test_the_small_svd_has_a_way_out(monkeypatch):
    """Catches a LAPACK routine's failure on a fine matrix, seen with MKL, that ends a run of hours."""

    def fail(*_args, **_options):
        raise np.linalg.LinAlgError

    monkeypatch.setattr(np.linalg, "svd", fail)
    B = torch.triu(torch.ones(5, 5, dtype=torch.float64))
    left, values, right = small_svd(B)
    assert torch.allclose((left * values) @ right.T, B)
