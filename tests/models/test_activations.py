"""The activations against autograd and against their stated bounds."""

import math

import pytest
import torch

from labkit.models import ACTIVATIONS, mlp

GRID = torch.linspace(-60, 60, 240001, dtype=torch.float64)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_dphi_is_the_derivative_of_phi(name: str) -> None:
    """A wrong derivative, which would bend every analytic Jacobian."""
    phi, dphi, _ = ACTIVATIONS[name]
    z = torch.linspace(-30, 30, 1001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(phi(z).sum(), z)
    assert torch.allclose(dphi(z.detach()), slope, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_bounds_hold_and_are_tight(name: str) -> None:
    """A bound that is false, or so loose that a theorem's condition looks out of reach."""
    phi, dphi, bounds = ACTIVATIONS[name]
    assert float(phi(torch.zeros((), dtype=torch.float64)).abs()) == pytest.approx(bounds.value)
    slope = float(dphi(GRID).abs().max())
    assert slope <= bounds.slope and slope == pytest.approx(bounds.slope, rel=1e-6)
    if math.isfinite(bounds.curvature):
        curvature = float((dphi(GRID).diff() / GRID.diff()).abs().max())
        assert curvature <= bounds.curvature + 1e-9
        assert curvature == pytest.approx(bounds.curvature, rel=1e-6)


def test_relu_has_no_finite_b_and_the_smooth_ones_have_b_one() -> None:
    """A regime that lets ReLU pass as smooth."""
    assert math.isinf(ACTIVATIONS["relu"].B)
    assert ACTIVATIONS["softplus"].B == ACTIVATIONS["tanh"].B == ACTIVATIONS["identity"].B == 1


def test_softplus_is_exact_where_torch_turns_linear() -> None:
    """torch's default threshold of 20: off by 2e-9, more than the 1e-10 that the kernels promise."""
    z = torch.tensor([19.0, 20.5, 25.0, 39.0, 41.0, 800.0], dtype=torch.float64)
    exact = torch.tensor([v + math.log1p(math.exp(-v)) for v in z.tolist()], dtype=torch.float64)
    assert torch.allclose(ACTIVATIONS["softplus"].phi(z), exact, rtol=1e-16, atol=0)


def test_an_unknown_activation_is_named_with_the_known_ones() -> None:
    """A bare KeyError."""
    with pytest.raises(ValueError, match=r"activation: 'gelu' is not one of relu, softplus, tanh, identity"):
        mlp(3, 4, 1, 2, activation="gelu")
