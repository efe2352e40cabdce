"""e^(−U/T) by quadrature, against brute force, Monte Carlo and closed forms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate

from labkit.theory import boltzmann
from labkit.theory.boltzmann import TwoWells, Valley, flat_share, marginal, occupancy

POTENTIALS = [TwoWells(height=0.4), TwoWells(offset=0.7, ratio=1.5), Valley(), Valley(length=2.0, width=0.8)]


@dataclass(frozen=True)
class Bowl:
    """½ κ |w|²: of this everything is known."""

    stiffness: float = 1.5
    divider: float = 0.3

    def profile(self, z: Any, rho2: Any) -> Any:
        return self.stiffness * (z * z + rho2) / 2

    def gradient(self, w: Any) -> Any:
        return self.stiffness * w


@dataclass(frozen=True)
class Flat(Bowl):
    """It holds nothing."""

    def profile(self, z: Any, rho2: Any) -> Any:
        return 0.0 * (z + rho2)


def states(dimension: int, count: int = 50) -> np.ndarray:
    return 1.5 * np.random.default_rng(dimension).standard_normal((count, dimension))


@pytest.mark.parametrize("potential", POTENTIALS)
@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_gradients_are_those_of_the_values(potential: Any, dimension: int) -> None:
    """A chain rule with a factor missing, or arrays and tensors that disagree."""
    w = states(dimension)
    variable = torch.tensor(w, requires_grad=True)
    values = potential.value(variable)
    (expected,) = torch.autograd.grad(values.sum(), variable)
    np.testing.assert_allclose(potential.gradient(w), expected.numpy(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(potential.gradient(torch.tensor(w)), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(potential.value(w), values.detach().numpy(), rtol=1e-12)
    assert potential.gradient(w.reshape(5, 10, dimension)).shape == (5, 10, dimension)


def test_two_wells_are_what_they_are_said_to_be() -> None:
    """Depths that differ, a wide well that is not the narrow one scaled, a divider off the barrier."""
    U = TwoWells(width=0.5, ratio=2.0, place=1.3, height=0.7, offset=0.4)
    narrow, wide = np.array([[-1.3, 0.0]]), np.array([[1.3, 0.0]])
    assert U.value(narrow)[0] == 0 and U.value(wide)[0] == pytest.approx(0.4)
    for place in (narrow, wide):
        np.testing.assert_allclose(U.gradient(place), 0, atol=1e-12)
    level = TwoWells(width=0.5, ratio=2.0, place=20.0, height=0.7)
    for direction in np.eye(2), -np.eye(2):
        near, far = 0.1 * direction - [20.0, 0.0], 0.2 * direction + [20.0, 0.0]
        np.testing.assert_allclose(level.value(near), level.value(far), rtol=1e-4)
    assert U.divider == pytest.approx(1.3 * (1 - 2) / (1 + 2))
    symmetric = TwoWells(ratio=1.0)
    assert symmetric.divider == 0


def test_the_valley_is_what_it_is_said_to_be() -> None:
    """A disc that is not flat, a point that is not as deep, sides of another curvature."""
    U = Valley(width=0.5, length=1.0, place=0.8, height=1.3)
    rng = np.random.default_rng(0)
    inside = rng.standard_normal((40, 3))
    inside *= rng.uniform(0, 1, (40, 1)) / np.linalg.norm(inside, axis=1, keepdims=True)
    disc = np.concatenate([np.full((40, 1), 0.8), inside], axis=1)
    np.testing.assert_array_equal(U.value(disc), 0)
    np.testing.assert_allclose(U.gradient(disc), 0, atol=1e-12)
    assert U.value(np.array([[-0.8, 0, 0, 0]]))[0] == 0
    assert (U.value(disc * [1, 1.6, 1.6, 1.6])[np.linalg.norm(inside, axis=1) > 0.7] > 0).all()
    h = 1e-4
    for place in (-0.8, 0.8):
        curvature = 2 * U.value(np.array([[place + h, 0.0]]))[0] / h**2
        assert curvature == pytest.approx(2 * 1.3 / 0.5**2, rel=1e-3)
    mirrored = states(1) * -1
    np.testing.assert_allclose(U.value(states(1)), U.value(mirrored), rtol=1e-12)


@pytest.mark.parametrize("potential", POTENTIALS)
def test_quadrature_is_that_of_scipy_and_of_a_tensor_grid(potential: Any) -> None:
    """The weight ρ^(D−2) with another power, a divider on the wrong side, a region that is cut off."""
    T = 1.3

    def weight(z: float, rho: float = 0.0) -> float:
        return float(np.exp(-potential.profile(z, rho * rho) / T))

    above = integrate.quad(weight, potential.divider, 12, limit=200)[0]
    below = integrate.quad(weight, -12, potential.divider, limit=200)[0]
    assert occupancy(potential, 1, T) == pytest.approx(above / (above + below), rel=1e-8)
    # Midpoints in Cartesian coordinates, no symmetry used: D = 2 and 3.
    for dimension, cells in ((2, 1200), (3, 220)):
        ends = np.linspace(-7, 7, cells + 1)
        middles = (ends[1:] + ends[:-1]) / 2
        # The divider on a cell's edge.
        z = middles + potential.divider - ends[np.abs(ends - potential.divider).argmin()]
        axes = [z, *[middles] * (dimension - 1)]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        mass = np.exp(-potential.value(grid) / T)
        expected = mass[z > potential.divider].sum() / mass.sum()
        assert occupancy(potential, dimension, T) == pytest.approx(expected, rel=2e-4), dimension


@pytest.mark.parametrize("potential", [TwoWells(height=0.4), Valley()])
def test_quadrature_in_five_dimensions_is_that_of_monte_carlo(potential: Any) -> None:
    """Anything that only D > 3 shows: importance sampling from a wide normal distribution."""
    rng, T, D, wide = np.random.default_rng(0), 2.0, 5, 1.2
    w = wide * rng.standard_normal((400_000, D))
    weights = np.exp(-potential.value(w) / T + (w**2).sum(1) / (2 * wide**2))
    inside = w[:, 0] > potential.divider
    share = weights[inside].sum() / weights.sum()
    error = np.sqrt(((weights * (inside - share)) ** 2).sum()) / weights.sum()
    assert error < 0.01
    assert abs(occupancy(potential, D, T) - share) < 4 * error


@pytest.mark.parametrize("potential", POTENTIALS)
@pytest.mark.parametrize("temperature", [0.02, 0.5, 20.0])
def test_twice_as_many_cells_change_nothing(
    potential: Any, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cells too wide for a cold well, or a reach too short for a hot one."""
    coarse = [occupancy(potential, D, temperature) for D in (1, 2, 5)]
    monkeypatch.setattr(boltzmann, "CELLS", 2 * boltzmann.CELLS)
    monkeypatch.setattr(boltzmann, "DEEP", 1.5 * boltzmann.DEEP)
    boltzmann._extent.cache_clear()
    boltzmann._factors.cache_clear()
    fine = [occupancy(potential, D, temperature) for D in (1, 2, 5)]
    boltzmann._extent.cache_clear()
    boltzmann._factors.cache_clear()
    np.testing.assert_allclose(coarse, fine, rtol=1e-5)
    assert coarse != fine


def test_a_bowl_is_a_normal_distribution() -> None:
    """A normalisation that depends on the dimension."""
    from scipy.stats import norm

    bowl, T = Bowl(), 0.8
    sd = np.sqrt(T / bowl.stiffness)
    edges = np.array([-2.0, -1.0, -0.2, 0.1, 1.5])
    for D in (1, 2, 3, 9, 40):
        assert occupancy(bowl, D, T) == pytest.approx(norm.sf(0.3 / sd), rel=1e-9)
        expected = np.diff(norm.cdf(edges / sd)) / np.diff(edges)
        np.testing.assert_allclose(marginal(bowl, D, T, edges), expected, rtol=1e-8)


def test_nothing_underflows() -> None:
    """e^(−U/T) without a shift: 0/0 for a potential that is high everywhere."""

    @dataclass(frozen=True)
    class High(TwoWells):
        def profile(self, z: Any, rho2: Any) -> Any:
            return 1e5 + super().profile(z, rho2)

    for T in (0.01, 2.0):
        assert occupancy(High(), 3, T) == pytest.approx(occupancy(TwoWells(), 3, T), rel=1e-6)
    deep = TwoWells(offset=-1.0)
    assert occupancy(deep, 2, 0.01) == pytest.approx(1)
    assert occupancy(TwoWells(offset=1.0), 2, 0.01) < 1e-30


@pytest.mark.parametrize("potential", POTENTIALS)
@pytest.mark.parametrize("dimension", [1, 4])
def test_marginals_and_shares_agree(potential: Any, dimension: int) -> None:
    """Densities that are masses, or bins of the wrong side."""
    edges = np.concatenate(
        [np.linspace(-9, potential.divider, 31), np.linspace(potential.divider, 9, 21)[1:]]
    )
    mass = marginal(potential, dimension, 1.1, edges) * np.diff(edges)
    assert mass.sum() == pytest.approx(1, abs=1e-6)
    assert mass[30:].sum() == pytest.approx(occupancy(potential, dimension, 1.1), abs=1e-6)
    wide = marginal(potential, dimension, 1.1, edges[[0, 30, 50]])
    assert wide[1] * np.diff(edges[[30, 50]])[0] == pytest.approx(mass[30:].sum(), abs=1e-6)


@given(st.floats(0.2, 5), st.integers(1, 8), st.floats(-3, 3), st.floats(0.3, 3))
def test_closed_forms(ratio: float, dimension: int, offset: float, temperature: float) -> None:
    """k^D/(1 + k^D), the harmonic limit, and e^(−δ/T) on top of the odds."""
    k = ratio**dimension
    assert flat_share(ratio, dimension) == pytest.approx(k / (1 + k))
    share = flat_share(ratio, dimension, offset=offset, temperature=temperature)
    assert share / (1 - share) == pytest.approx(k * np.exp(-offset / temperature), rel=1e-6)
    other = flat_share(1 / ratio, dimension, offset=-offset, temperature=temperature)
    assert share + other == pytest.approx(1)


def test_closed_forms_do_not_overflow() -> None:
    assert flat_share(2.0, 5) == pytest.approx(32 / 33)
    assert flat_share(1.0, 1, offset=1.0, temperature=1e-6) == pytest.approx(0, abs=1e-300)
    assert flat_share(1.0, 1, offset=-1.0, temperature=1e-6) == 1


def test_cold_wells_far_apart_reach_the_limit() -> None:
    """The limit of the wrong shape: k^D holds for wells of one shape, flat or not."""
    for D in range(1, 6):
        assert occupancy(TwoWells(place=1.3), D, 0.01) == pytest.approx(flat_share(2.0, D), rel=1e-3)


def test_shares_rise_with_the_dimension_and_a_valley_starts_from_half() -> None:
    potential: Any
    for potential in (TwoWells(height=0.4), Valley(), Valley(length=2.0, width=0.8)):
        shares = [occupancy(potential, D, 1.0) for D in range(1, 5)]
        assert (np.diff(shares) > 0).all()
    assert occupancy(Valley(), 1, 0.7) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TwoWells(width=0.0), "width: expected a finite number > 0, got 0.0"),
        (lambda: TwoWells(offset=np.inf), "offset: contains NaN or infinite"),
        (lambda: Valley(length=-1), "length: expected a finite number > 0, got -1"),
        (lambda: occupancy(Valley(), 0, 1.0), "dimension: expected an integer >= 1, got 0"),
        (lambda: occupancy(Valley(), 2, 0.0), "temperature: expected a finite number > 0"),
        (lambda: occupancy(Flat(), 2, 1.0), "temperature: e.* at T = 1 does not vanish far out"),
        (lambda: marginal(Valley(), 2, 1.0, [0.0]), "edges: expected at least two ascending values"),
        (lambda: marginal(Valley(), 2, 1.0, [0.0, 1.0, 1.0]), "edges: expected at least two ascending"),
        (lambda: flat_share(0.0, 2), "ratio: expected a finite number > 0"),
        (lambda: flat_share(2.0, 1, temperature=0), "temperature: expected a finite number > 0"),
    ],
)
def test_errors(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
