"""Paper 3, §9.1: how many samples a shallow and a deep network need for a compositional function (S17).

    equation           function
    (29)               sample_ratio_log10
    (17) with (29)     network_weights_log10, network_samples_log10

A function of n variables with m derivatives is *compositional* here if it is a binary tree of functions of
two variables: a deep network of the same tree approximates node by node and needs epsilon^(-2/m) units at
each of n - 1 nodes, where a shallow one needs epsilon^(-n/m). These are orders, without constants; "log10"
stands in the names because the numbers themselves are out of range: 10^(10^4) in the paper's example.

Errata:
    (29)         M_deep/M_shallow follows from (17) as epsilon^((n - 2)/m) times 4(n - 1)/(n + 2), the weights
                 of a unit counted; the paper's epsilon^n is for m = 1 and leaves the rest out
    (30)         is not of the order of (17), which gives sqrt(r n/M) and not r n/sqrt(M). (31)-(33) do follow
                 from (30); with the root they would be r = (M/n)^(n/(2m + n)), error (n/M)^(m/(2m + n))
    (31), (33)   leave out, for deep networks, the n - 1 nodes
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from labkit.theory._checks import array, positive
from labkit.theory.classical_bounds import sample_bound

Kind = Literal["shallow", "deep"]
LARGEST = 200.0  # log10 of the weights from which on (17) is used without its ln(2/delta)


def sample_ratio_log10(dimension: Any, epsilon: float, smoothness: float = 1.0) -> Any:
    """(29): log10 of M_deep/M_shallow = epsilon^(n/m); the paper has m = 1.

    Args:
        dimension: n, of the inputs, at least 2; a number or an array.
        epsilon: the error of approximation, in (0, 1).
        smoothness: m, derivatives that the function has.

    Returns:
        The logarithm, in the shape of `dimension`.

    Raises:
        ValueError: an argument is out of its range.
    """
    return -_digits(epsilon) * _least("dimension", dimension, 2.0) / positive("smoothness", smoothness)


def network_weights_log10(kind: Kind, dimension: Any, epsilon: float, smoothness: float = 1.0) -> Any:
    """log10 of the weights that reach an error epsilon.

    Shallow: epsilon^(-n/m) units of n + 2 weights (inputs, offset, output). Deep: epsilon^(-2/m) units of 4
    weights at each of n - 1 nodes.

    Args:
        kind: "shallow" or "deep".
        dimension, epsilon, smoothness: as `sample_ratio_log10`.

    Returns:
        The logarithm, in the shape of `dimension`.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    n, power = _least("dimension", dimension, 2.0), _digits(epsilon) / positive("smoothness", smoothness)
    if _known(kind) == "shallow":
        return power * n + np.log10(n + 2.0)
    return power * 2.0 + np.log10(4.0 * (n - 1.0))


def network_samples_log10(
    kind: Kind, dimension: Any, epsilon: float, *, smoothness: float = 1.0, bits: float = 32.0,
    excess: float = 0.1, delta: float = 0.05,
) -> Any:  # fmt: skip
    """log10 of the samples of (17) for the weights of `network_weights_log10`.

    Args:
        kind, dimension, epsilon, smoothness: as `network_weights_log10`.
        bits: k, to write down a weight.
        excess: the error above the best of the class that is allowed, in (0, 1).
        delta: the probability of failure.

    Returns:
        The logarithm, in the shape of `dimension`.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    weights = network_weights_log10(kind, dimension, epsilon, smoothness)
    # Linear in W from far below `LARGEST` on, so what is cut off there is added to the logarithm.
    inside = np.minimum(weights, LARGEST)
    return np.log10(sample_bound(10.0**inside, bits, excess, delta)) + (weights - inside)


def _known(kind: Kind) -> Kind:
    if kind not in ("shallow", "deep"):
        raise ValueError(f"kind: expected 'shallow' or 'deep', got {kind!r}.")
    return kind


def _digits(epsilon: float) -> float:
    """-log10(epsilon)."""
    number = positive("epsilon", epsilon)
    if number >= 1.0:
        raise ValueError(f"epsilon: expected a number in (0, 1), got {epsilon!r}.")
    return float(-np.log10(number))


def _least(name: str, value: Any, least: float) -> Any:
    found = array(name, value, (0, 1))[()]
    if (np.asarray(found) < least).any():
        raise ValueError(f"{name}: expected values >= {least:g}, got {np.min(found):.6g}.")
    return found
