"""ReLU replaced by a polynomial (paper 3, §9.10, Figs 21-24; degree 10 there).

Least squares over an interval [-a, a] with equal weight everywhere (the paper does not print its fit). As
relu(z) = z/2 + |z|/2, the odd part of the fit is z/2 itself, and only the even part is fitted: a polynomial
in z², written in t = 2(z/a)² - 1, which runs over [-1, 1] as well. In powers of t the coefficients are a few
units at most, so that Horner's rule loses no digits; in powers of z they would lose four.

A polynomial of degree 10 leaves its interval like z^10: at z = 2a it is over a thousand times a. `clamp`
therefore holds the input to the interval; the function is then the polynomial only where it was fitted.
"""

from __future__ import annotations

import numpy as np
from numpy.polynomial import legendre
from scipy.special import eval_legendre
from torch import Tensor, nn

from labkit.models._arguments import positive, whole


class PolynomialReLU(nn.Module):
    """z -> z/2 + q(t), t = 2(z/a)² - 1; with the input clamped to [-a, a], or not.

    It holds no tensors, so that one module serves any dtype, any device and any number of copies.

    Attributes:
        degree, interval, clamp: as given to `polynomial_relu`.
        coefficients: of q, in powers of t.
    """

    def __init__(self, degree: int, interval: float, clamp: bool) -> None:
        super().__init__()
        self.degree, self.interval, self.clamp = degree, interval, clamp
        self.coefficients = tuple(float(c) for c in _even_part(degree, interval))

    def forward(self, z: Tensor) -> Tensor:
        if self.clamp:
            z = z.clamp(-self.interval, self.interval)
        *rest, value = self.coefficients
        if not rest:
            return 0.5 * z + value
        t = (2 / self.interval**2) * z.square() - 1
        q = value * t + rest.pop()
        while rest:
            q = q * t + rest.pop()
        return 0.5 * z + q

    def extra_repr(self) -> str:
        return f"degree={self.degree}, interval={self.interval:g}, clamp={self.clamp}"


def _even_part(degree: int, interval: float) -> np.ndarray:
    """Coefficients in powers of t of the least-squares fit of |z|/2.

    |u| on [-1, 1] has the Legendre coefficients (4k + 1) ∫₀¹ u P_2k(u) du, which Gauss-Legendre nodes give
    exactly; P_2k is a polynomial in u² = (1 + t)/2.
    """
    orders = np.arange(degree // 2 + 1)
    nodes, weights = legendre.leggauss(degree + 1)
    u, half = (nodes + 1) / 2, weights / 2
    moments = np.array([(half * u * eval_legendre(2 * k, u)).sum() for k in orders])
    fitted = (4 * orders + 1) * moments
    # The same polynomial through as many points of t as it has coefficients.
    t = np.cos((2 * orders + 1) * np.pi / (2 * len(orders)))
    root = np.sqrt((1 + t) / 2)
    values = sum(c * eval_legendre(2 * k, root) for k, c in zip(orders, fitted, strict=True))
    return 0.5 * interval * np.linalg.solve(np.vander(t, increasing=True), values)


def polynomial_relu(degree: int = 10, interval: float = 5.0, clamp: bool = True) -> PolynomialReLU:
    """The least-squares polynomial fit of ReLU as an activation.

    Args:
        degree: of the polynomial; an odd one gives the fit of the degree below, as |z| is even.
        interval: a; the fit is over [-a, a].
        clamp: hold the input to the interval. Without, an input a little outside gives a very large output.

    Returns:
        PolynomialReLU: an elementwise module, any shape to the same.

    Raises:
        ValueError: an argument is out of its range; degrees beyond 40 would lose digits.

    Example:
        >>> float(polynomial_relu()(torch.tensor(5.0)))
        5.05126953125
    """
    whole_degree = whole("degree", degree)
    if whole_degree > 40:
        raise ValueError(f"degree: got {degree}; beyond 40 the powers of t lose digits")
    return PolynomialReLU(whole_degree, positive("interval", interval), bool(clamp))
