"""The Jacobian of f(x) = V phi(W x) in both layers, and its bound: appendix B of paper 4."""

from __future__ import annotations

import numpy as np


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
        B: bound on |phi'|, 1 for softplus, tanh and identity. outputs: K. width: k.
        v_max: |V|_inf. w_frobenius: |W|_F. x_norm: |X|. phi0: phi(0). n: samples.

    Returns:
        In units of J.

    Raises:
        ValueError: an argument is out of its range.
    """
    if phi0 != 0.0 and n < 1:
        raise ValueError(
            f"n: with phi0 = {phi0!r} the bound grows with the number of samples; pass n >= 1, got {n!r}."
        )
    base = B * x_norm * (w_frobenius + np.sqrt(outputs * width) * v_max)
    return float(base + abs(phi0) * np.sqrt(n * width))
