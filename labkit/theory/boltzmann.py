"""What Langevin dynamics samples: e^(−U/T), for potentials of which everything can be computed.

    paper 3            here                                claim
    eq 9, Fig. 7         TwoWells, occupancy, marginal       S4
    Figs 8-10            Valley, occupancy, marginal         S5
    §5.2, volumes        flat_share                          S4

Both potentials are functions of z = w₁ and of the transverse radius ρ = |(w₂, ..., w_D)| alone, so that the
integral of e^(−U/T) over D dimensions is a two-dimensional one with the weight ρ^(D−2), which quadrature does
to seven digits or more in any D.

Each is a soft minimum of two non-negative wells a and b, each zero at its own minimum:

    U = a (H b + δ) / (a + b)

near the minimum of a it is H a, near that of b it is δ + H b: the depths are exactly 0 and δ.

`value` and `gradient` use nothing but arithmetic, `abs` and sums, so they take torch tensors as well as NumPy
arrays: the chains of an experiment and the quadrature evaluate one and the same formula.

The paper's own potentials are not written down there; these have the properties that its captions name. Eq 9
needs isotropic noise, which minibatch noise is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from labkit.theory import _checks
from labkit.theory._checks import Array

# Gauss-Legendre cells along an axis, and nodes in each; e^(−U/T) is followed to DEEP temperatures above its
# minimum. The tests hold the result to twice as many cells.
CELLS, NODES, DEEP = 64, 6, 40.0


class Potential(Protocol):
    """U(w) for w (..., D), symmetric about the first axis, with its deepest minimum on it.

    The divider separates the two minima. Potentials are hashable, such as frozen dataclasses.
    """

    @property
    def divider(self) -> float: ...

    def profile(self, z: Any, rho2: Any) -> Any: ...

    def gradient(self, w: Any) -> Any: ...

    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class TwoWells:
    """Two radial wells of one shape, one wider by a factor in every direction (Fig. 7).

        U(w) = a (H b + δ) / (a + b),   a = (|w + s e₁| / r)⁴,   b = (|w − s e₁| / (k r))⁴

    with e₁ the first axis. The minima are at −s e₁ (narrow, depth 0) and at s e₁ (wide, depth δ).

    Attributes:
        width: r of the narrow well.
        ratio: k, how many times wider the other one is.
        place: s, half the distance between the minima.
        height: H.
        offset: δ, the depth of the wide well above that of the narrow one.

    Raises:
        ValueError: a width, ratio, place or height is not positive, or the offset is not finite.
    """

    width: float = 0.5
    ratio: float = 2.0
    place: float = 1.3
    height: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        for name in ("width", "ratio", "place", "height"):
            _checks.positive(name, getattr(self, name))
        _checks.array("offset", self.offset, 0)

    @property
    def divider(self) -> float:
        """The point of the axis between the minima where a = b."""
        return self.place * (1 - self.ratio) / (1 + self.ratio)

    def profile(self, z: Any, rho2: Any) -> Any:
        """U at axial coordinate z and squared transverse radius."""
        a, b, _, _ = self._wells(z, rho2)
        return a * (self.height * b + self.offset) / (a + b)

    def value(self, w: Any) -> Any:
        """U (...) of states (..., D)."""
        return self.profile(w[..., 0], (w[..., 1:] * w[..., 1:]).sum(-1))

    def gradient(self, w: Any) -> Any:
        """∇U (..., D) of states (..., D)."""
        z = w[..., 0]
        a, b, a_slope, b_slope = self._wells(z, (w[..., 1:] * w[..., 1:]).sum(-1))
        # In shares of a + b, so that nothing overflows where chains run away.
        total = a + b
        lift, of_b = self.offset / total if self.offset else 0.0, b / total
        of_a = 1 - of_b
        toward_a = a_slope * of_b * (self.height * of_b + lift)
        toward_b = b_slope * of_a * (self.height * of_a - lift)
        result = (toward_a + toward_b)[..., None] * w
        result[..., 0] += self.place * (toward_a - toward_b)
        return result

    def _wells(self, z: Any, rho2: Any) -> tuple[Any, Any, Any, Any]:
        """a, b, and what multiplies (w − centre) in their gradients."""
        left, right = z + self.place, z - self.place
        p, q = left * left + rho2, right * right + rho2
        r, s = self.width**4, (self.ratio * self.width) ** 4
        return p * p / r, q * q / s, p * (4 / r), q * (4 / s)


@dataclass(frozen=True)
class Valley:
    """A degenerate minimum, flat over a disc of dimension D − 1, against a point of equal depth (Figs 8-10).

        U(w) = H a b / (a + b),   a = |w + s e₁|² / r²,   b = ((z − s)² + (ρ² − L²)₊² / (2 L)²) / r²

    with z = w₁, ρ the transverse radius and x₊ = max(x, 0). U = 0 at the point −s e₁ and on the whole disc
    z = s, ρ ≤ L. Across the disc both minima have one curvature, 2H/r²; in one dimension the disc is a point
    too, and the two wells are mirror images.

    Attributes:
        width: r.
        length: L, the radius of the disc; the wall around it is as steep as the sides.
        place: s, half the distance between the minima.
        height: H.

    Raises:
        ValueError: one of them is not positive.
    """

    width: float = 0.5
    length: float = 1.0
    place: float = 1.0
    height: float = 1.0

    def __post_init__(self) -> None:
        for name in ("width", "length", "place", "height"):
            _checks.positive(name, getattr(self, name))

    @property
    def divider(self) -> float:
        """Half way between the minima."""
        return 0.0

    def profile(self, z: Any, rho2: Any) -> Any:
        """U at axial coordinate z and squared transverse radius."""
        _, _, a, b, _ = self._wells(z, rho2)
        return self.height / self.width**2 * a * b / (a + b)

    def value(self, w: Any) -> Any:
        """U (...) of states (..., D)."""
        return self.profile(w[..., 0], (w[..., 1:] * w[..., 1:]).sum(-1))

    def gradient(self, w: Any) -> Any:
        """∇U (..., D) of states (..., D)."""
        left, right, a, b, over = self._wells(w[..., 0], (w[..., 1:] * w[..., 1:]).sum(-1))
        # In shares of a + b, so that nothing overflows where chains run away.
        scale, of_b = 2 * self.height / self.width**2, b / (a + b)
        of_a = 1 - of_b
        toward_a, toward_b = scale * of_b * of_b, scale * of_a * of_a
        result = (toward_a + toward_b * over / (2 * self.length**2))[..., None] * w
        result[..., 0] = toward_a * left + toward_b * right
        return result

    def _wells(self, z: Any, rho2: Any) -> tuple[Any, Any, Any, Any, Any]:
        """z + s, z - s, r² a, r² b, and how far ρ² is over L²."""
        left, right = z + self.place, z - self.place
        over = rho2 - self.length**2
        over = (over + abs(over)) / 2
        out = over / (2 * self.length)
        return left, right, left * left + rho2, right * right + out * out, over


def occupancy(potential: Potential, dimension: int, temperature: float) -> float:
    """The share of e^(−U/T) beyond the divider: in the wide well, or in the valley (eq 9).

    Args:
        potential: symmetric about the first axis, growing in all directions; smooth on the scale of a 64th
            of the region where e^(−U/T) lives, as these are for T ≥ H/100.
        dimension: D, at least 1.
        temperature: T; small ones do not underflow, because only U − min U is exponentiated.

    Returns:
        P(w₁ > divider) = ∫_{z > divider} e^(−U/T) ρ^(D−2) dz dρ over the same integral everywhere.

    Raises:
        ValueError: dimension or temperature is out of its range, or the potential does not confine.
    """
    D, T = _checks.integer("dimension", dimension, 1), _checks.positive("temperature", temperature)
    reach = _extent(potential, T)
    below, above = (
        _mass(potential, tuple(np.linspace(*ends, CELLS // 2 + 1)), D, T).sum()
        for ends in ((-reach, potential.divider), (potential.divider, reach))
    )
    return float(above / (below + above))


def marginal(potential: Potential, dimension: int, temperature: float, edges: Any) -> Array:
    """The density of the first coordinate under e^(−U/T), averaged over each bin.

    Args:
        potential, dimension, temperature: as in `occupancy`.
        edges: (B + 1,) ascending; what lies beyond them counts in the normalisation.

    Returns:
        (B,), so that density times width of a bin is its probability.

    Raises:
        ValueError: an argument is out of its range, or the edges do not ascend.
    """
    D, T = _checks.integer("dimension", dimension, 1), _checks.positive("temperature", temperature)
    ends = _checks.array("edges", edges, 1)
    if ends.size < 2 or (np.diff(ends) <= 0).any():
        raise ValueError(f"edges: expected at least two ascending values, got {ends.tolist()}.")
    reach = _extent(potential, T)
    total = _mass(potential, tuple(np.linspace(-reach, reach, CELLS + 1)), D, T).sum()
    # A wide bin is cut into pieces as narrow as the cells of the whole.
    pieces = max(1, int(np.ceil(np.diff(ends).max() / (2 * reach / CELLS))))
    cuts = (ends[:-1, None] + np.diff(ends)[:, None] * np.arange(pieces) / pieces).ravel()
    masses = _mass(potential, (*cuts, ends[-1]), D, T)
    return masses.reshape(ends.size - 1, -1).sum(axis=1) / total / np.diff(ends)


def flat_share(ratio: float, dimension: int, *, offset: float = 0.0, temperature: float = 1.0) -> float:
    """The share of the wider of two wells with flat bottoms, or of any two wells of one shape, far apart.

    k^D e^(−δ/T) / (1 + k^D e^(−δ/T)): scaling a well by k multiplies its integral by k^D whatever its shape.

    Args:
        ratio: k, its width over the other's.
        dimension: D.
        offset: δ, its depth above the other's.
        temperature: T.

    Returns:
        A share from 0 to 1.
    """
    k, D = _checks.positive("ratio", ratio), _checks.integer("dimension", dimension, 1)
    delta, T = float(_checks.array("offset", offset, 0)), _checks.positive("temperature", temperature)
    return float(1 / (1 + np.exp(min(delta / T - D * np.log(k), 700.0))))


@lru_cache(maxsize=64)
def _extent(potential: Potential, temperature: float) -> float:
    """The radius beyond which e^(−U/T) is nothing."""
    angles = np.linspace(0, np.pi, 181)
    radii = np.geomspace(1e-2, 1e4, 400)[:, None]
    around = potential.profile(radii * np.cos(angles), (radii * np.sin(angles)) ** 2)
    low = (around < around.min() + DEEP * temperature).any(axis=1)
    if low[-1]:
        raise ValueError(
            f"temperature: e^(−U/T) at T = {temperature:g} does not vanish far out; this potential is too low"
        )
    return float(radii[np.flatnonzero(low)[-1] + 1, 0])


def _cells(ends: Array) -> tuple[Array, Array]:
    """Gauss-Legendre nodes and weights of cells between ends (B + 1,), as (B, NODES) each."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    half = np.diff(ends)[:, None] / 2
    return ends[:-1, None] + half * (1 + nodes), half * weights


def _mass(potential: Potential, ends: tuple[float, ...], dimension: int, temperature: float) -> Array:
    """∫ e^(−(U − min)/T) ρ^(D−2) dρ dz over each cell of z."""
    _, weights = _cells(np.array(ends))
    axis, plane = _factors(potential, ends, temperature)
    if dimension == 1:
        return (weights * axis).sum(axis=1)
    reach = _extent(potential, temperature)
    rho, ring = (part.ravel() for part in _cells(np.linspace(0, reach, CELLS + 1)))
    # In units of the reach, so that no power overflows; the factor cancels in every share.
    return (weights * (plane @ (ring * (rho / reach) ** (dimension - 2)))).sum(axis=1)


@lru_cache(maxsize=16)
def _factors(potential: Potential, ends: tuple[float, ...], temperature: float) -> tuple[Array, Array]:
    """e^(−(U − min)/T) at the nodes: on the axis (B, NODES), and over the plane (B, NODES, radii).

    Kept, because it does not depend on the dimension: a prediction for five of them costs as much as for one.
    """
    z, _ = _cells(np.array(ends))
    reach = _extent(potential, temperature)
    rho = _cells(np.linspace(0, reach, CELLS + 1))[0].ravel()
    # One shift for every piece of the axis, whatever its own minimum.
    deepest = _deepest(potential, reach)
    axis = np.exp((deepest - potential.profile(z, 0.0 * z)) / temperature)
    plane = np.exp((deepest - potential.profile(z[..., None], rho * rho)) / temperature)
    return axis, plane


def _deepest(potential: Potential, reach: float) -> float:
    z = np.linspace(-reach, reach, 4001)
    return float(potential.profile(z, 0.0 * z).min())
