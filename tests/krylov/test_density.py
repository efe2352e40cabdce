"""The spectral density against exact spectra."""

from __future__ import annotations

import pytest
import torch

from labkit.krylov import gaussian_density, spectral_density
from tests.krylov.spectra import hidden, matrix, problem


def bulk(n: int) -> torch.Tensor:
    """Singular values with five outliers above a bulk, as a Jacobian has them."""
    values = 0.2 * torch.rand(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.05
    values[:5] = torch.tensor([1.0, 0.9, 0.8, 0.7, 0.6])
    return values.sort(descending=True)[0]


def l1(estimate, s: torch.Tensor) -> float:
    exact = gaussian_density(s**2, None, estimate.grid, estimate.sigma)
    return float(torch.trapezoid((estimate.density - exact).abs(), estimate.grid))


def test_eighty_steps_come_within_six_hundredths_and_eight_do_not():
    """Catches a wrong scale (σ² not relative, λ for s²) and a density that does not improve with steps."""
    s = bulk(800)
    A = matrix(s, 800, 900)
    good, poor = (spectral_density(hidden(A), steps=t, method="lanczos") for t in (80, 8))
    assert l1(good, s) < 0.06 < 0.2 < l1(poor, s)
    assert float(torch.trapezoid(good.density, good.grid)) == pytest.approx(1, abs=1e-4)
    assert good.sigma == pytest.approx(1e-5**0.5 * float(s[0] ** 2), rel=1e-6)
    assert good.method == "lanczos" and good.products == 800


def test_the_exact_comparator_rejects_a_wrong_spectrum():
    """Catches an L1 distance that is small for anything."""
    s = bulk(300)
    estimate = spectral_density(matrix(s, 300, 300))
    assert l1(estimate, s) < 0.1
    assert l1(estimate, s**0.5) > 0.5 and l1(estimate, 2 * s) > 0.5 and l1(estimate, s.sqrt() * 0.9) > 0.5


@pytest.mark.parametrize("shape", [(60, 40), (40, 60)])
def test_all_rows_count_also_where_columns_are_fewer(shape):
    """Catches the density of AᵀA given for that of A Aᵀ, whose zeros are more."""
    A = matrix(torch.linspace(1, 2, 40).double(), *shape)
    exact = torch.linalg.eigvalsh(A @ A.T)
    estimate = spectral_density(hidden(A), steps=40, probes=4)
    assert float(estimate.cdf(torch.tensor(0.5))) == pytest.approx(
        float((exact < 0.5).double().mean()), abs=1e-9
    )
    assert estimate.weights.sum(1).tolist() == pytest.approx([1] * 4)


def test_probes_side_by_side_are_one_product_a_step():
    """Catches a loop over probes."""
    A, _ = problem("slow", 200, 210)
    widths = []

    def product(M, V):
        widths.append(V.shape[1])
        return M @ V

    operator = hidden(A, matmat=lambda V: product(A, V), rmatmat=lambda U: product(A.T, U))
    spectral_density(operator, probes=6, steps=10, method="lanczos")
    assert widths == [6] * 20
    widths.clear()
    small = spectral_density(
        operator, probes=6, steps=10, method="lanczos", memory=2 * (14 * 200 + 2 * 210) * 8
    )
    assert widths == [2] * 60
    assert torch.allclose(small.density, spectral_density(hidden(A), probes=6, steps=10).density, atol=1e-8)


def test_the_gram_route_agrees_and_is_another():
    """Catches a shortcut that is not taken, or that gives another density."""
    A = matrix(bulk(120), 120, 150)
    stored, products = (
        spectral_density(hidden(A, gram=lambda: A @ A.T)),
        spectral_density(hidden(A), steps=5, method="lanczos"),
    )
    assert stored.method == "gram" and products.method == "lanczos" and stored.products == 3
    again = spectral_density(hidden(A, gram=lambda: A @ A.T), steps=5, method="gram")
    assert torch.allclose(again.density, products.density, atol=1e-6 * float(products.density.max()))


def test_the_standard_error_covers_the_truth_and_falls_with_probes():
    """Catches a spread over the wrong axis. Four standard errors miss a true mean once in 16,000."""
    s = bulk(400)
    A = matrix(s, 400, 400)
    few, many = spectral_density(A, probes=5), spectral_density(A, probes=80)
    grid = torch.tensor([0.01, 0.02, 0.03], dtype=torch.float64)
    share = torch.stack([((many.nodes <= g) * many.weights).sum(1) for g in grid], 1)
    truth = torch.stack([(s**2 <= g).double().mean() for g in grid])
    assert bool(
        ((share.mean(0) - truth).abs() < 4 * share.std(0) / 80**0.5 + 0.02).all()
    )  # 0.02: 80 nodes in the bulk
    assert 2 < float(few.standard_error.mean() / many.standard_error.mean()) < 8  # 4 = (80/5)^½
    assert many.per_probe.shape == (80, 2048)


@pytest.mark.parametrize("A", [torch.zeros(6, 8), torch.eye(7), torch.ones(1, 1), 3 * torch.ones(5, 9)])
def test_degenerate_spectra_give_no_nan(A):
    """Catches a breakdown at the first step, and a kernel of width 0."""
    estimate = spectral_density(A, probes=3, steps=10)
    assert bool(torch.isfinite(estimate.density).all())
    exact = torch.linalg.svdvals(A @ A.T).double()
    level = torch.tensor(0.5)
    assert float(estimate.cdf(level)) == pytest.approx(float((exact <= 0.5).double().mean()), abs=0.35)


def test_a_symmetric_operator_may_have_negative_eigenvalues():
    """Catches of='operator' read as a Gram matrix, and an unsymmetric A taken at its word."""
    S = torch.diag(torch.tensor([-2.0, -1.0, 1.0, 3.0], dtype=torch.float64))
    estimate = spectral_density(S, of="operator", steps=4, probes=200)
    seen = torch.tensor([-2.5, -1.5, 0.0, 2.0, 3.5])
    assert estimate.cdf(seen).tolist() == pytest.approx([0, 0.25, 0.5, 0.75, 1], abs=0.1)
    with pytest.raises(ValueError, match="of: 'operator' takes a symmetric A"):
        spectral_density(torch.tensor([[0.0, 1.0], [0.0, 0.0]]), of="operator")
    with pytest.raises(ValueError, match="of: 'operator' takes a square"):
        spectral_density(torch.ones(2, 3), of="operator")


def test_own_and_logarithmic_grids():
    """Catches a grid that is replaced or renormalised."""
    A = matrix(bulk(100), 100, 100)
    own = torch.linspace(0.5, 1.2, 700, dtype=torch.float64)
    part = spectral_density(A, grid=own, steps=100)
    assert torch.equal(part.grid, own)
    # The part of the five outliers above 0.5: 1, 0.81, 0.64 of 100; a probe's share spreads by about √(2/3).
    assert float(torch.trapezoid(part.density, own)) == pytest.approx(0.03, abs=0.02)
    log = spectral_density(A, log=True, points=500).grid
    assert float(log[0]) > 0 and torch.allclose(log[1:] / log[:-1], (log[1] / log[0]).expand(499))


def test_the_generator_decides_and_the_global_one_is_left_alone():
    """Catches a draw from the global generator."""
    A, _ = problem("slow", 50, 60)
    before = torch.get_rng_state()
    a, b = spectral_density(A), spectral_density(A)
    c = spectral_density(A, generator=torch.Generator().manual_seed(5))
    assert torch.equal(a.density, b.density) and not torch.equal(a.weights, c.weights)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("distribution", ["gaussian", "rademacher"])
def test_either_distribution_is_unbiased(distribution):
    """Catches probes that are not isotropic: the mean eigenvalue is tr/m within four standard errors."""
    s = bulk(150)
    estimate = spectral_density(matrix(s, 150, 150), probes=200, steps=10, distribution=distribution)
    means = (estimate.nodes * estimate.weights).sum(1)
    assert abs(float(means.mean() - (s**2).mean())) < 4 * float(means.std()) / 200**0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"probes": 0}, "probes:"),
        ({"steps": 1.5}, "steps:"),
        ({"points": -1}, "points:"),
        ({"variance": 0.0}, "variance:"),
        ({"of": "hessian"}, "of:"),
        ({"method": "exact"}, "method:"),
        ({"distribution": "uniform"}, "distribution:"),
        ({"memory": 10}, "memory: one probe .* Pass memory="),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    """Catches a typing error that silently means the default."""
    with pytest.raises(ValueError, match=message):
        spectral_density(torch.eye(4), **arguments)
