"""Kernels of wide networks in closed form or by quadrature: NumPy float64 in, NumPy float64 out.

    formula                                          function                 where, claim
    (XX^T) o E[phi'(Xw) phi'(Xw)^T], w ~ N(0, I)     mntk                     paper 4, Def. 2.1, J1
    Sigma(X) = I_K (x) that, in labkit's layout      mntk_full                paper 4, Def. 2.1, J2
    E[phi'(u) phi'(v)]                               derivative_expectation   paper 4, Def. 2.1, J1
    NTK of a deep fully connected ReLU network       analytic_ntk             Jacot et al. 2018,
                                                                              Cho and Saul 2009

Layout: row i*K + k is output k of sample i, hence ``kron(Theta, I_K)``; the paper writes I_K (x) Theta,
class-major.

Angles are computed from differences of unit vectors where two points are close: with arccos a duplicate point
gets an angle of 1e-8, which turns the rank 90 of a noiseless mixture into 93. Duplicates get exactly 0 here.
Deeper layers carry the angle from layer to layer (never the cosine), for the same reason.

Erratum: Def. 2.1 prints an output variance of nu^2/K; E[J J^T] = nu^2 Sigma(X) needs nu^2/k, k being the
width.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from labkit.theory import _mehler
from labkit.theory._checks import Array, array, integer, nonnegative, positive

ACTIVATIONS = ("relu", "softplus", "tanh", "identity")
_CLOSE = 0.9  # |cosine| above which arccos would lose more than a few ulps
_CHUNK = 2**22  # float64 entries of difference vectors held at once


def angles(x: Any) -> Array:
    """Angles between all pairs of rows, to 2e-15 in absolute terms, also near 0 and pi (1,000 columns).

    Args:
        x: points (n, d), of any finite size. The angle to a zero row is undefined; pi/2 is returned (such
        pairs have inner product 0).

    Returns:
        (n, n) symmetric, in radians; exactly 0 on the diagonal and between equal rows.

    Raises:
        ValueError: an array is not finite or of another shape.

    Cost: 2 n^2 d flops, 6 d more for a pair with |cosine| > 0.9, and about six arrays (n, n).
    """
    points = array("x", x, 2)
    sizes, short = _scaled(points)
    norms = np.linalg.norm(short, axis=1)
    unit = short / np.where(norms > 0, norms, 1.0)[:, None]
    cosine = np.clip(unit @ unit.T, -1.0, 1.0)
    theta = np.arctan2(np.sqrt((1.0 - cosine) * (1.0 + cosine)), cosine)
    first, second = np.nonzero(np.triu(np.abs(cosine) > _CLOSE, k=1))
    block = max(1, _CHUNK // max(1, points.shape[1]))
    for start in range(0, first.size, block):
        i, j = first[start : start + block], second[start : start + block]
        u, v = unit[i], unit[j]
        # Kahan's form: no cancellation at either end, and exactly 0 for equal rows.
        close = 2.0 * np.arctan2(np.linalg.norm(u - v, axis=1), np.linalg.norm(u + v, axis=1))
        theta[i, j] = theta[j, i] = close
    zero = norms == 0
    theta[zero, :] = theta[:, zero] = np.pi / 2
    np.fill_diagonal(theta, 0.0)
    return theta


def _scaled(points: Array) -> tuple[Array, Array]:
    """A power of two for each row (n,), and the rows divided by it: squares neither overflow nor vanish."""
    sizes = np.ldexp(1.0, np.frexp(np.abs(points).max(axis=1, initial=0.0))[1] - 1)
    return sizes, points / sizes[:, None]


def derivative_expectation(x: Any, activation: str = "relu", *, tol: float = 1e-13) -> Array:
    """E[phi'(x_i.w) phi'(x_j.w)] over w ~ N(0, I_d), for all pairs of rows.

    ReLU: (pi - theta)/(2 pi); identity: 1. Softplus and tanh: the series sum_k c_k(|x_i|) c_k(|x_j|)
    cos^k(theta) in Hermite coefficients found by one-dimensional quadrature; the remainder is known exactly
    by Parseval, so the series stops when the worst pair is within ``tol``, and the truncated matrix is
    positive semi-definite term by term.

    Args:
        x: points (n, d).
        activation: relu, softplus, tanh or identity.
        tol: largest absolute error of an entry, for softplus and tanh; at least 1e-14.

    Returns:
        (n, n). For ReLU the rows of zero points are a convention (phi' is undefined at 0).

    Raises:
        ValueError: unknown activation; tol below 1e-14; or norms so large and points so close that the
            series would need over 4,096 terms (scale inputs to unit length, or raise ``tol``).

    Cost: `angles`; for softplus and tanh 4 n^2 flops for each of M terms, and 2 M Q for each distinct norm, Q
    quadrature nodes (151 at norm 1; at large norms 61 a unit for softplus, 121 for tanh).

    Reference: paper 4, Def. 2.1; Mehler's formula.
    """
    points = array("x", x, 2)
    _known(activation)
    if not positive("tol", tol) >= 1e-14:
        raise ValueError(f"tol: expected at least 1e-14, which rounding leaves; got {tol!r}.")
    if activation == "identity":
        return np.ones((len(points), len(points)))
    theta = angles(points)
    if activation == "relu":
        return _kappa0(theta) / 2.0
    norms = np.linalg.norm(points, axis=1)
    return _mehler.expectation(norms, theta, activation, float(tol))


def mntk(x: Any, activation: str = "relu", *, tol: float = 1e-13) -> Array:
    """One block of the multiclass NTK: (X X^T) o E[phi'(Xw) phi'(Xw)^T].

    With V of zero mean and variance nu^2/k, E[J(W_0) J(W_0)^T] = nu^2 kron(mntk(X), I_K) in labkit's layout.

    Args:
        x: points (n, d). activation: relu, softplus, tanh or identity. tol: as in ``derivative_expectation``.

    Returns:
        (n, n) symmetric positive semi-definite.

    Raises:
        ValueError: ``x`` is not 2-D and finite, or the activation is unknown.

    Cost: `derivative_expectation`, and 2 n^2 d flops.

    Reference: paper 4, Def. 2.1.

    Example:
        >>> import numpy as np
        >>> mntk(np.eye(2)).tolist()
        [[0.5, 0.0], [0.0, 0.5]]
    """
    points = array("x", x, 2)
    expected = derivative_expectation(points, activation, tol=tol)
    with np.errstate(over="ignore", invalid="ignore"):
        return _finite(_gram(points) * expected)


def mntk_full(x: Any, outputs: int, activation: str = "relu", *, class_major: bool = False) -> Array:
    """Sigma(X) of Def. 2.1 for K outputs: kron(mntk, I_K), or the paper's I_K (x) mntk.

    Args:
        x: points (n, d). outputs: K. class_major: True for the paper's ordering (row k*n + i).
        activation: as `mntk` takes it.

    Returns:
        (n*K, n*K).

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.

    Cost: `mntk`, and (n K)^2 numbers, all but n^2 K of them 0.

    Reference: paper 4, Def. 2.1.
    """
    count = integer("outputs", outputs, 1)
    block = mntk(x, activation)
    eye = np.eye(count)
    return np.asarray(np.kron(eye, block) if class_major else np.kron(block, eye), dtype=np.float64)


def analytic_ntk(x: Any, *, hidden_layers: int = 1, weight_std: float = 1.0, bias_std: float = 0.0) -> Array:
    """Infinite-width NTK of a fully connected ReLU network in the NTK parameterisation.

    z_1 = (s/sqrt d) W_1 x + b beta_1,  z_(l+1) = (s/sqrt m) W_(l+1) relu(z_l) + b beta_(l+1),  f = (1/sqrt m)
    w relu(z_L), all of W, beta, w standard normal and all trained (the readout too; it has std 1 and no
    bias). The recursion is Theta_1 = Sigma_1,  Theta_(l+1) = Sigma_(l+1) + s^2 Theta_l o E[phi' phi'],  with
    s = 1, b = 0 at the readout.

    Args:
        x: points (n, d), array or tensor. hidden_layers: L >= 1. weight_std: s > 0. bias_std: b >= 0.

    Returns:
        (n, n) float64, positive semi-definite. Entry (i, j) is within 1e-14 of sqrt(Theta_ii Theta_jj) up to
        30 layers, 1e-15 a layer beyond, also between nearly parallel and nearly opposite points and points
        of very different size: without biases Theta(x, c x) = c Theta(x, x) for every c > 0.

    Raises:
        ValueError: naming the argument.

    Cost: 4 n^2 d flops, then seven roots and trigonometric functions a pair and hidden layer; about ten
    arrays (n, n).

    Reference:
        Jacot, Gabriel, Hongler 2018; closed forms of Cho and Saul 2009.

    Example:
        >>> float(analytic_ntk([[1.0]], hidden_layers=1)[0, 0])
        1.0
    """
    points = array("x", x, 2)
    depth = integer("hidden_layers", hidden_layers, 1)
    weight = positive("weight_std", weight_std)
    bias = nonnegative("bias_std", bias_std)
    if points.shape[1] == 0:
        raise ValueError("x: expected at least one column, got shape " + str(points.shape) + ".")
    with np.errstate(over="ignore", invalid="ignore"):
        return _finite(_recursion(points, depth, weight, bias))


def _recursion(points: Array, depth: int, weight: float, bias: float) -> Array:
    # The bias is one more coordinate, so one accurate angle routine serves both cases.
    scaled = points * (weight / np.sqrt(points.shape[1]))
    first = np.column_stack([scaled, np.full(len(points), bias)])
    # Without biases the kernel has degree 1 in each point: no size is lost on the way through the layers.
    sizes, first = _scaled(first) if bias == 0 else (np.ones(len(points)), first)
    norms, theta, ntk = np.linalg.norm(first, axis=1), angles(first), _gram(first)
    for _ in range(depth - 1):
        product = np.outer(norms, norms) / 2.0
        ntk = weight * weight * (product * _kappa1(theta) + ntk * _kappa0(theta) / 2.0) + bias * bias
        norms, theta = _next_layer(norms, theta, weight, bias)
    last = np.outer(norms, norms) / 2.0 * _kappa1(theta) + ntk * _kappa0(theta) / 2.0
    return sizes[:, None] * last * sizes[None, :]


def _next_layer(norms: Array, theta: Array, weight: float, bias: float) -> tuple[Array, Array]:
    """Norms and angles of the next pre-activations, seen as vectors with covariance as inner product.

    With u, v those vectors and a, b the norms before, |u|^2 = g a^2 + B and u.v = g a b kappa_1 + B, so

        |u - v|^2 - (|u| - |v|)^2 = 2 g a b (1 - kappa_1) + g (a - b)^2 (1 - g ((a + b)/(|u| + |v|))^2)

    is 4 |u||v| sin^2(t/2). The last bracket is written as a sum of positive terms, all with the factor B: it
    is 0 without biases, so that multiples of a point stay at angle 0.
    """
    gain, offset = weight * weight / 2.0, bias * bias
    new = np.hypot(np.sqrt(gain) * norms, bias)
    a, b = norms[:, None], norms[None, :]
    product = new[:, None] * new[None, :]
    numerator = 2.0 * gain * a * b * _one_minus_kappa1(theta)
    if offset > 0:
        grown = (gain * (a**2 + b**2) + offset) / (product + gain * a * b)
        numerator += 2.0 * gain * offset * ((a - b) / (new[:, None] + new[None, :])) ** 2 * (1.0 + grown)
    half = np.divide(numerator, 4.0 * product, out=np.full_like(theta, 0.5), where=product > 0)
    return new, 2.0 * np.arcsin(np.sqrt(np.clip(half, 0.0, 1.0)))


def _gram(points: Array) -> Array:
    gram = points @ points.T
    return (gram + gram.T) / 2.0


def _finite(kernel: Array) -> Array:
    if not np.isfinite(kernel).all():
        raise ValueError("x: the kernel leaves the range of float64; take smaller inputs or weight_std.")
    return kernel


def _kappa0(theta: Array) -> Array:
    return (np.pi - theta) / np.pi


def _kappa1(theta: Array) -> Array:
    return (np.sin(theta) + (np.pi - theta) * np.cos(theta)) / np.pi


def _one_minus_kappa1(theta: Array) -> Array:
    # 1 - kappa_1 ~ theta^2/2: through the half angle it keeps its relative accuracy, and is 0 at 0.
    return 2.0 * np.sin(theta / 2.0) ** 2 - (np.sin(theta) - theta * np.cos(theta)) / np.pi


def _known(activation: str) -> None:
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation: expected one of {', '.join(ACTIVATIONS)}, got {activation!r}.")
