"""The Gaussian mixture of Def. 2.4: K classes of C clusters each (paper 4, section 2.3, appendix A)."""

from __future__ import annotations

from typing import Any

import numpy as np

from labkit.theory._checks import array, integer


def mixture_rank(classes: int, clusters: int) -> int:
    """Rank of Sigma(X) without noise, K^2 C: K outputs times K C distinct inputs (Thm A.1).

    Args:
        classes: K. clusters: C, in each class.

    Returns:
        The rank.

    Raises:
        ValueError: an argument is out of its range.
    """
    return integer("classes", classes, 1) ** 2 * integer("clusters", clusters, 1)


def mixture_eigenvalue_interval(kernel_of_centers: Any, n: int, sizes: Any = None) -> tuple[float, float]:
    """Thm A.1: the non-zero eigenvalues of Sigma(X) lie in [(n/2KC) s_min(Sigma(M)), (2n/KC) |Sigma(M)|].

    The paper prints Sigma(X) for Sigma(M) in its last bullet.

    Args:
        kernel_of_centers: Sigma(M) = ``mntk(centers)``, (KC, KC). n: samples.
        sizes: cluster sizes (KC,); given, min(sizes) and max(sizes) replace n/2KC and 2n/KC and the interval
        is certain.

    Returns:
        (lower, upper). The eigenvalues are those of Sigma(X); singular values of the Jacobian go as the
        square root.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    eigenvalues = np.linalg.eigvalsh(array("kernel_of_centers", kernel_of_centers, 2))
    mean = integer("n", n, 1) / len(eigenvalues)
    low, high = mean / 2.0, 2.0 * mean
    if sizes is not None:
        counts = array("sizes", sizes, 1)
        if len(counts) != len(eigenvalues):
            raise ValueError(f"sizes: expected {len(eigenvalues)} cluster sizes, got {len(counts)}.")
        low, high = float(counts.min()), float(counts.max())
    return low * max(float(eigenvalues[0]), 0.0), high * float(eigenvalues[-1])


def mixture_interval_probability(classes: int, clusters: int, n: int) -> float:
    """Thm A.1: probability that all cluster sizes are within a factor 2 of n/KC, at least.

    max(0, 1 - K C exp(-n/(8 K C))).

    The 8 belongs to the lower tail; the smaller upper tail fits under the same exponential wherever this is
    above 0.

    Args:
        classes: K. clusters: C, in each class. n: samples.

    Returns:
        A lower bound on the probability.

    Raises:
        ValueError: an argument is out of its range.
    """
    total = integer("classes", classes, 1) * integer("clusters", clusters, 1)
    return max(0.0, 1.0 - total * float(np.exp(-integer("n", n, 1) / (8.0 * total))))
