"""What theory says of untrained networks beforehand: the gradients of wide ones, from data alone.

As widths grow, a hidden layer's inner products become averages over Gaussian units: <h_i, h_j>/H = E[phi(u)
phi(v)] with u, v of the covariance of the layer below, and likewise those of the back-propagated vectors. So

    <grad f_i, grad f_j> = <r_i, r_j> Theta(<x_i, x_j>),    Theta = sum over layers of D_k <h_(k-1), h_(k-1)>,

with r = softmax(f) - y and outputs f that are Gaussian over draws of the weights. Samples have |x|^2 = d, so
everything is a function of their cosine, computed on a grid of cosines once and read off for all pairs.

It is the infinite-width law of each layer, at the variances of the network as it is: exact for infinite
width, and for finite width all that it leaves out is fluctuation, which grows with depth/width.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np

GRID = np.cos(np.linspace(np.pi, 0, 401))  # dense near +-1, where kernels bend
TERMS = 61  # Hermite coefficients of tanh; only off the diagonal, where powers of a cosine end the series
NODES = np.linspace(-9, 9, 1201)


@dataclass(frozen=True)
class Wide:
    """Functions of the cosine of two samples, on `GRID`.

    Attributes:
        theta: sum over layers of the inner products of one output's gradients.
        outputs: the covariance of one output f_k over draws of the weights.
    """

    theta: np.ndarray
    outputs: np.ndarray


@lru_cache(maxsize=256)
def kernels(
    activation: str, d: int, width: int, depth: int, variances: tuple[float, ...], skip: bool = False
) -> Wide:
    """The kernels of a fully connected network without biases, for samples of |x|^2 = d.

    Args:
        activation: "tanh", "relu" or "identity".
        depth: hidden layers; variances: of one weight in each of the depth + 1 layers.
        skip: h_(l+1) = h_l + phi(A h_l) from the second hidden layer on.
    """
    rest = d * GRID  # <h, h> of the layer's input
    mean = 0.0  # of its units
    inputs, slopes = [rest], []
    for layer in range(depth):
        covariance = variances[layer] * rest
        value, slope = _averages(activation, covariance)
        added = float(np.sqrt(covariance[-1] / (2 * np.pi))) if activation == "relu" else 0.0
        # phi(A h) is independent of h from unit to unit, but the two have means, if phi is not odd.
        kept = skip and layer > 0
        rest = width * (value + 2 * mean * added) + rest if kept else width * value
        mean = mean + added if kept else added
        inputs.append(rest)
        slopes.append(slope)
    theta, back = inputs[depth].copy(), width * variances[depth] * np.ones_like(GRID)
    for layer in range(depth - 1, -1, -1):
        at_z = back * slopes[layer]
        theta += at_z * inputs[layer]
        through = variances[layer] * width * at_z
        back = through + (back if skip else 0.0)
    return Wide(theta, variances[depth] * inputs[depth])


def _averages(activation: str, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """E[phi(u) phi(v)] and E[phi'(u) phi'(v)] for Gaussians of equal variance, covariance on `GRID`."""
    q = float(covariance[-1])
    c = np.clip(covariance / q, -1.0, 1.0)
    if activation == "identity":
        return covariance, np.ones_like(covariance)
    if activation == "relu":
        angle = np.arccos(c)
        value = q * (np.sin(angle) + (np.pi - angle) * c) / (2 * np.pi)
        return value, (np.pi - angle) / (2 * np.pi)
    hermite, weight = _hermite()
    a = np.sqrt(q)
    phi = np.tanh(a * NODES)
    squares = (hermite[1::2] @ (weight * phi)) ** 2  # of an odd function: odd degrees only
    degrees = np.arange(1, TERMS + 1, 2)
    value = c * np.polynomial.polynomial.polyval(c**2, squares)
    slope = np.polynomial.polynomial.polyval(c**2, degrees * squares / q)
    # On the diagonal the series is longest, and one integral does.
    ends = weight @ phi**2, weight @ (1 - phi**2) ** 2
    for found, end, odd in ((value, ends[0], -1.0), (slope, ends[1], 1.0)):
        found[c > 1 - 1e-12] = end
        found[c < -1 + 1e-12] = odd * end
    return value, slope


@cache
def _hermite() -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal Hermite polynomials at `NODES` (TERMS + 1, nodes), and the Gaussian weight of each node."""
    rows = [np.ones_like(NODES), NODES]
    for k in range(1, TERMS):
        rows.append((NODES * rows[k] - np.sqrt(k) * rows[k - 1]) / np.sqrt(k + 1))
    weight = np.exp(-(NODES**2) / 2)
    return np.stack(rows), weight / weight.sum()


class Cosines:
    """Where the cosines of samples, (n, n), lie on `GRID`, found once for all that is read there."""

    def __init__(self, cosines: np.ndarray) -> None:
        kept = np.clip(cosines, -1.0, 1.0)
        self._below = np.clip(np.searchsorted(GRID, kept, side="right") - 1, 0, len(GRID) - 2)
        self._past = kept - GRID[self._below]

    def read(self, values: np.ndarray) -> np.ndarray:
        """A function on `GRID`, linear between its points."""
        return (np.diff(values) / np.diff(GRID))[self._below] * self._past + values[self._below]


def gram(wide: Wide, cosines: Cosines, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One draw of the Gram matrix of per-sample gradients of the cross-entropy, (n, n).

    Args:
        labels: one-hot (n, K).
    """
    K, theta = cosines.read(wide.outputs), cosines.read(wide.theta)
    f = _root(K) @ rng.standard_normal(labels.shape)
    f = np.exp(f - f.max(axis=1, keepdims=True))
    residuals = f / f.sum(axis=1, keepdims=True) - labels
    return (residuals @ residuals.T) * theta


def _root(K: np.ndarray) -> np.ndarray:
    """L with L L^T = K, but for the least share of its mean variance that makes K positive in its digits."""
    unit = max(float(K.diagonal().mean()), 1e-300) * np.eye(len(K))
    for added in (0.0, 1e-12, 1e-10, 1e-8):
        with suppress(np.linalg.LinAlgError):
            return np.linalg.cholesky(K + added * unit)
    return np.linalg.cholesky(K + 1e-6 * unit)
