"""The Jacobian of f(x) = V phi(W x) and its bounds: section 6.2 and appendix B of paper 4.

X (n, d) has rows of unit length where a bound speaks of Lipschitz constants; W (k, d); V (K, k); B bounds
|phi'| (and |phi''| for Lipschitz constants): B = 1 serves softplus, tanh and identity. |V|_inf is the largest
entry.
Layout: row i*K + o is output o of sample i; columns are W row by row, then V row by row.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from labkit.theory._checks import Array, array, integer, positive


def input_jacobian(x: Any, slopes: Any, v: Any) -> Array:
    """d f/d W, (6.27): entry ((i, o), (s, j)) is V_os phi'(w_s.x_i) x_ij.

    Args:
        x: (n, d). slopes: phi'(X W^T), (n, k). v: (K, k).

    Returns:
        (n*K, k*d).

    Raises:
        ValueError: an array is not finite or of another shape.
    """
    points, dphi, out = array("x", x, 2), array("slopes", slopes, 2), array("v", v, 2)
    if dphi.shape != (len(points), out.shape[1]):
        raise ValueError(
            f"slopes: expected shape {(len(points), out.shape[1])} from x and v, got {dphi.shape}."
        )
    return np.einsum("os,is,ij->iosj", out, dphi, points).reshape(len(points) * len(out), -1)


def output_jacobian(features: Any, outputs: int) -> Array:
    """d f/d V, (B.2): entry ((i, o), (o', s)) is [o = o'] phi(w_s.x_i).

    Args:
        features: phi(X W^T), (n, k). outputs: K.

    Returns:
        (n*K, K*k).

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    phi, count = array("features", features, 2), integer("outputs", outputs, 1)
    return np.einsum("op,is->iops", np.eye(count), phi).reshape(len(phi) * count, -1)


def joint_jacobian(x: Any, features: Any, slopes: Any, v: Any) -> Array:
    """App. B with both layers trained: [d f/d W, d f/d V], (n*K, k*d + K*k). The paper puts V first.

    Args:
        x: (n, d). features: phi(X W^T), (n, k). slopes: phi'(X W^T), (n, k). v: (K, k).

    Returns:
        (n*K, k*d + K*k).

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    return np.hstack([input_jacobian(x, slopes, v), output_jacobian(features, len(array("v", v, 2)))])


def jacobian_norm_bound(B: float, outputs: int, width: int, v_max: float, x_norm: float) -> float:
    """(6.31): |J(W)| <= B sqrt(K k) |V|_inf |X|.

    Args:
        B: bound on |phi'|, and on |phi''| where a constant is Lipschitz's. outputs: K. width: k.
        v_max: |V|_inf. x_norm: |X|.

    Returns:
        In units of J.
    """
    return float(B * np.sqrt(outputs * width) * v_max * x_norm)


def jacobian_row_bound(B: float, outputs: int, v_max: float, x_norm: float) -> float:
    """(6.32): rows of mat(J^T u), one a hidden unit, have length <= B sqrt(K) |V|_inf |X| for unit u.

    Args:
        B: bound on |phi'|, and on |phi''| where a constant is Lipschitz's. outputs: K. v_max: |V|_inf.
        x_norm: |X|.

    Returns:
        In units of J.
    """
    return float(B * np.sqrt(outputs) * v_max * x_norm)


def jacobian_lipschitz(B: float, outputs: int, v_max: float, x_norm: float) -> float:
    """Lemma 6.10: |J(W) - J(W')| <= L |W - W'|_F with L = B sqrt(K) |V|_inf |X|.

    Needs |phi''| <= B and inputs of unit length.

    Args:
        B: bound on |phi'|, and on |phi''| where a constant is Lipschitz's. outputs: K. v_max: |V|_inf.
        x_norm: |X|.

    Returns:
        L.
    """
    return float(B * np.sqrt(outputs) * v_max * x_norm)


def joint_jacobian_bound(
    B: float,
    outputs: int,
    width: int,
    v_max: float,
    w_frobenius: float,
    x_norm: float,
    *,
    phi0: float = 0.0,
    n: int = 0,
) -> float:
    """Thm B.1: |J(V, W)| <= B |X| (|W|_F + sqrt(K k) |V|_inf) + |phi(0)| sqrt(n k).

    The paper omits the last term, which needs phi(0) = 0: false for softplus, where phi(0) = log 2. Pass
    ``phi0``, ``n``.

    Args:
        B: bound on |phi'|, and on |phi''| where a constant is Lipschitz's. outputs: K. width: k.
        v_max: |V|_inf. w_frobenius: |W|_F. x_norm: |X|. phi0: phi(0). n: samples.

    Returns:
        In units of J.

    Raises:
        ValueError: an argument is out of its range.
    """
    _phi0(phi0, n)
    base = B * x_norm * (w_frobenius + np.sqrt(outputs * width) * v_max)
    return float(base + abs(phi0) * np.sqrt(n * width))


def joint_entry_bound(B: float, w_row_max: float, x_norm: float, *, phi0: float = 0.0, n: int = 0) -> float:
    """Thm B.1: entries of J(V)^T u are <= B |W|_(2,inf) |X| + |phi(0)| sqrt(n) for unit u.

    The paper omits the last term, as in ``joint_jacobian_bound``.

    Args:
        B: bound on |phi'|, and on |phi''| where a constant is Lipschitz's.
        w_row_max: |W|_(2,inf), the longest row. x_norm: |X|. phi0: phi(0). n: samples.

    Returns:
        In units of J.

    Raises:
        ValueError: an argument is out of its range.
    """
    _phi0(phi0, n)
    return float(B * w_row_max * x_norm + abs(phi0) * np.sqrt(n))


def joint_jacobian_lipschitz(
    B: float, outputs: int, width: int, v_max: float, x_norm: float, *, dv_max: float, dw_frobenius: float
) -> float:
    """Thm B.1: |J(V, W) - J(V', W')| <= B |X| (sqrt(K k) |V - V'|_inf + (sqrt(K) |V|_inf + 1) |W - W'|_F).

    Args:
        B: bound on |phi'|, and on |phi''| where a constant is Lipschitz's. outputs: K. width: k.
        v_max: |V|_inf. x_norm: |X|. dv_max: |V - V'|_inf. dw_frobenius: |W - W'|_F.

    Returns:
        In units of J.
    """
    return float(
        B * x_norm * (np.sqrt(outputs * width) * dv_max + (np.sqrt(outputs) * v_max + 1.0) * dw_frobenius)
    )


def kernel_deviation_bound(
    n: int, outputs: int, width: int, x_norm: float, B: float = 1.0, nu: float = 1.0
) -> float:
    """Lemma 6.13: |J J^T - nu^2 Sigma(X)| <= 30 K nu^2 B^2 |X|^2 sqrt(log(n)/k) with probability 1 - n^-100.

    For V of entries +-nu/sqrt(k) (labkit's scaling; the lemma has +-nu and sqrt(k)). Needs n >= K.

    Args:
        n: samples. outputs: K. width: k. x_norm: |X|.
        B: bound on |phi'|, and on |phi''| where a constant is Lipschitz's. nu: scale of V.

    Returns:
        In units of the kernel.
    """
    return float(30.0 * outputs * (nu * B * x_norm) ** 2 * np.sqrt(np.log(n) / width))


def kernel_width(n: int, outputs: int, x_norm: float, delta: float, B: float = 1.0) -> float:
    """Lemma 6.13: width 1000 K^2 B^4 |X|^4 log(n)/delta^2 at which |J J^T/nu^2 - Sigma(X)| <= delta.

    Args:
        n: samples. outputs: K. x_norm: |X|. delta: the deviation allowed.
        B: bound on |phi'|, and on |phi''| where a constant is Lipschitz's.

    Returns:
        Hidden units.

    Raises:
        ValueError: an argument is out of its range.
    """
    return float(1000.0 * outputs**2 * (B * x_norm) ** 4 * np.log(n) / positive("delta", delta) ** 2)


def output_scale(zeta: float, outputs: int, B: float = 1.0) -> float:
    """(6.67): nu = zeta/(50 B sqrt(log 2K)).

    V of entries +-nu/sqrt(kK) then starts with |f(W_0)| <= zeta |y|, with high probability (Lemma 6.14).

    Args:
        zeta: the share of |y| allowed at the start. outputs: K.
        B: bound on |phi'|, and on |phi''| where a constant is Lipschitz's.

    Returns:
        nu.

    Raises:
        ValueError: an argument is out of its range.
    """
    return float(positive("zeta", zeta) / (50.0 * B * np.sqrt(np.log(2.0 * integer("outputs", outputs, 1)))))


def _phi0(phi0: float, n: int) -> None:
    if phi0 != 0.0 and n < 1:
        raise ValueError(
            f"n: with phi0 = {phi0!r} the bound grows with the number of samples; pass n >= 1, got {n!r}."
        )
