"""Symmetric Lanczos, single and side by side."""

from __future__ import annotations

import pytest
import torch

from labkit.krylov import lanczos
from tests.krylov.spectra import matrix


def symmetric(values: torch.Tensor, dtype=torch.float64) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    Q = torch.linalg.qr(torch.randn(len(values), len(values), generator=g, dtype=torch.float64))[0]
    return ((Q * values) @ Q.T).to(dtype)


def start(n: int, *b: int, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(n, *b, generator=torch.Generator().manual_seed(2), dtype=dtype)


@pytest.mark.parametrize(("dtype", "tol"), [(torch.float64, 1e-12), (torch.float32, 3e-5)])
def test_the_basis_stays_orthonormal_and_tridiagonalises_to_the_end(dtype, tol):
    """Catches lost orthogonality: outliers converge after ten steps, and 100 follow."""
    S = symmetric(torch.cat([torch.tensor([50.0, 20.0]), torch.linspace(0, 1, 98)]).double(), dtype)
    run = lanczos(lambda v: S @ v, start(100, dtype=dtype), 100)
    Q = run.basis.double()
    assert float((Q.T @ Q - torch.eye(Q.shape[1])).abs().max()) < tol
    assert float((Q.T @ S.double() @ Q - run.matrix()).abs().max()) < 50 * tol
    assert run.alphas.shape == (100,) and run.betas.shape == (99,) and run.basis.shape == (100, 100)


def test_a_block_equals_its_columns_run_alone():
    """Catches probes that leak into one another when advanced as one product."""
    S = symmetric(torch.linspace(-1, 2, 40).double())
    V = start(40, 3)
    block = lanczos(lambda X: S @ X, V, 12)
    assert block.alphas.shape == (12, 3) and block.basis.shape == (3, 40, 12)
    for j in range(3):
        alone = lanczos(lambda v: S @ v, V[:, j], 12)
        assert torch.allclose(block.alphas[:, j], alone.alphas, atol=1e-12)
        assert torch.allclose(block.betas[:, j], alone.betas, atol=1e-12)
        assert torch.allclose(block.basis[j], alone.basis, atol=1e-9)


def test_a_breakdown_ends_a_run_and_leaves_its_neighbours():
    """Catches a division by a zero beta, and a finished probe that goes on with noise."""
    S = torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64))
    short = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    run = lanczos(lambda v: S @ v, short, 5)
    assert run.alphas.shape == (2,) and run.quadrature()[0].tolist() == pytest.approx([1, 2])
    both = lanczos(lambda V: S @ V, torch.stack([short, torch.ones_like(short)], 1), 5)
    nodes, weights = both.quadrature()
    assert sorted(nodes[0][weights[0] > 1e-20].tolist()) == pytest.approx([1, 2])
    assert sorted(nodes[1].tolist()) == pytest.approx([1, 2, 3, 4, 5])
    assert weights.sum(1).tolist() == pytest.approx([1, 1])


def test_the_quadrature_integrates_polynomials_of_degree_2t_minus_1():
    """Catches weights from the wrong row of the eigenvectors."""
    S = symmetric(torch.linspace(0.1, 1, 30).double())
    v = start(30)
    v = v / v.norm()
    nodes, weights = lanczos(lambda x: S @ x, v, 4).quadrature()
    for degree in range(8):
        exact = v @ torch.linalg.matrix_power(S, degree) @ v
        assert float(weights @ nodes**degree) == pytest.approx(float(exact), rel=1e-12)
    assert float(weights @ nodes**8) != pytest.approx(
        float(v @ torch.linalg.matrix_power(S, 8) @ v), rel=1e-10
    )


def test_long_float32_vectors_stay_orthonormal():
    """Catches inner products of 300,000 float32 entries summed plainly: the basis would depart by 1e-5."""
    n = 300_000
    diagonal = torch.linspace(0, 1, n)
    run = lanczos(lambda v: diagonal * v, start(n, dtype=torch.float32), 12)
    Q = run.basis.double()
    assert float((Q.T @ Q - torch.eye(12)).abs().max()) < 1e-6


@pytest.mark.parametrize(
    ("vector", "steps", "message"),
    [
        (torch.zeros(4), 2, "start: a column is zero"),
        (torch.tensor([1.0, float("nan")]), 2, "start:"),
        (torch.ones(2, 2, 2), 2, "start: takes shape"),
        (torch.ones(4), 0, "steps:"),
        (torch.ones(4), 2.0, "steps:"),
    ],
)
def test_bad_input_is_refused_by_name(vector, steps, message):
    """Catches NaN that comes out as eigenvalues."""
    with pytest.raises(ValueError, match=message):
        lanczos(lambda v: v, vector, steps)


def test_more_steps_than_dimensions_are_cut():
    """Catches a run past the whole space."""
    A = matrix(torch.tensor([3.0, 2.0, 1.0]), 3, 3)
    assert len(lanczos(lambda v: A @ (A.T @ v), start(3), 10).alphas) == 3
