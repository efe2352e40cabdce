"""ReLU as a polynomial."""

import copy

import numpy as np
import pytest
import torch
from numpy.polynomial import legendre
from torch import nn

from labkit.models.polynomial import polynomial_relu


def halves(interval: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on [-a, 0] and [0, a], exact for both pieces of ReLU times a polynomial."""
    nodes, weights = legendre.leggauss(40)
    half = interval * (nodes + 1) / 2
    return np.concatenate([-half, half]), np.tile(interval * weights / 2, 2)


@pytest.mark.parametrize("degree", [1, 2, 3, 10, 11, 20])
@pytest.mark.parametrize("interval", [1.0, 5.0])
def test_the_error_is_orthogonal_to_all_polynomials_of_the_degree(degree: int, interval: float) -> None:
    """What least squares means; a fit in another weight, such as Chebyshev's, is not."""
    z, weights = halves(interval)
    fit = polynomial_relu(degree, interval, clamp=False)(torch.from_numpy(z)).numpy()
    error = fit - np.maximum(z, 0)
    for order in range(degree + 1):
        basis = legendre.legval(z / interval, np.eye(order + 1)[order])
        assert abs((weights * error * basis).sum()) < 1e-11 * interval**2


def test_it_is_a_polynomial_of_degree_ten() -> None:
    """A spline, or a degree too many: differences of order 11 vanish, those of order 10 do not."""
    z = torch.linspace(-5, 5, 12, dtype=torch.float64)
    values = polynomial_relu(clamp=False)(z).numpy()
    assert abs(np.diff(values, 11)).max() < 1e-9 < 1 < abs(np.diff(values, 10)).max()


def test_the_deviation_from_relu_is_largest_at_the_kink_and_falls_with_the_degree() -> None:
    """A fit to another function. .139 of 5 at degree 10."""
    z = torch.linspace(-5, 5, 2001, dtype=torch.float64)
    worst = []
    for degree in (2, 6, 10, 20):
        error = (polynomial_relu(degree)(z) - z.relu()).abs()
        assert abs(float(z[error.argmax()])) < 1e-9
        worst.append(float(error.max()))
    assert worst == sorted(worst, reverse=True) and worst[2] == pytest.approx(0.1388, abs=1e-4)


def test_single_precision_loses_no_digits() -> None:
    """Horner's rule in powers of z, which cancels."""
    for degree in (10, 20):
        z = torch.linspace(-5, 5, 501, dtype=torch.float64)
        phi = polynomial_relu(degree)
        assert (phi(z.float()).double() - phi(z)).abs().max() < 5e-6


def test_the_clamp_holds_the_input() -> None:
    """A clamp of the output; a gradient outside."""
    phi, free = polynomial_relu(), polynomial_relu(clamp=False)
    z = torch.tensor([-40.0, -5.0, 1.0, 5.0, 40.0], dtype=torch.float64, requires_grad=True)
    out = phi(z)
    assert torch.equal(out[0], out[1]) and torch.equal(out[3], out[4])
    (slope,) = torch.autograd.grad(out.sum(), z)
    assert slope[0] == 0 == slope[4] and slope[2] != 0
    inside = z.detach()[1:4]
    assert torch.equal(phi(inside), free(inside))
    assert float(free(torch.tensor(10.0))) > 1000 * 10


def test_any_shape_and_dtype_passes_through_one_module() -> None:
    """Coefficients as tensors, which an ensemble would stack."""
    phi = polynomial_relu()
    assert not [*phi.parameters(), *phi.buffers()]
    for dtype in (torch.float32, torch.float64):
        z = torch.randn(2, 3, 4, dtype=dtype, generator=torch.Generator().manual_seed(0))
        assert phi(z).shape == z.shape and phi(z).dtype == dtype
        torch.testing.assert_close(torch.func.vmap(phi)(z), phi(z))


def test_modules_with_other_fits_look_different() -> None:
    """An ensemble of networks with different activations, taken for one architecture."""
    words = {str(polynomial_relu(d, a, c)) for d in (2, 10) for a in (1.0, 5.0) for c in (True, False)}
    assert len(words) == 8
    assert isinstance(copy.deepcopy(polynomial_relu()), nn.Module)


def test_bad_arguments_are_named() -> None:
    """A singular system, or a fit over nothing."""
    with pytest.raises(ValueError, match="degree: got 0"):
        polynomial_relu(0)
    with pytest.raises(ValueError, match="degree: got 41; beyond 40"):
        polynomial_relu(41)
    with pytest.raises(ValueError, match="interval: got -1"):
        polynomial_relu(interval=-1)
