"""The Gaussian mixture of Def. 2.4: K classes of C clusters each (paper 4, section 2.3, appendix A)."""

from __future__ import annotations

from typing import Any

import numpy as np

from labkit.theory._checks import Array, array, integer, nonnegative, positive


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


def mixture_perturbation(sigma: float, n: int, dim: int, x_norm: float, B: float = 1.0) -> float:
    """Delta of Lemma A.2 with its constants: |Sigma(X + noise) - Sigma(X)| <= Delta for one output.

    2 B^2 (|X|^2 (m^2 + m) + s^2 + |X| s), with m^2 = 8 sigma^2 (1 + log n) for the largest shift of a
    pre-activation and s^2 = 8 sigma^2 (1 + n/d) for the norm of the noise; fails with probability n e^(-d/2)
    + e^(-(n+d)/2). The paper keeps the orders only (A.1). B bounds phi' and phi'', so ReLU is excluded.

    Args:
        sigma: noise of Def. 2.4 (variance sigma^2/d a coordinate). dim: d. x_norm: |X| of the clean data.
        n: samples. B: bound on phi' and phi''.

    Returns:
        Delta, in units of Sigma.

    Raises:
        ValueError: an argument is out of its range.
    """
    level = nonnegative("sigma", sigma)
    shift = level * np.sqrt(8.0 * (1.0 + np.log(integer("n", n, 1))))
    noise = level * np.sqrt(8.0 * (1.0 + n / integer("dim", dim, 1)))
    return float(2.0 * B**2 * (x_norm**2 * (shift**2 + shift) + noise**2 + x_norm * noise))


def mixture_subspace_bound(perturbation: float, eigenvalue: float) -> float:
    """Lemma A.2: |P~ - P| <= Delta/(lambda_r - Delta), P projecting on the top r; ``inf`` past the gap.

    Args:
        perturbation: Delta, as `mixture_perturbation` gives it. eigenvalue: lambda_r.

    Returns:
        The bound, in the operator norm; inf where it says nothing.
    """
    return perturbation / (eigenvalue - perturbation) if perturbation < eigenvalue else float("inf")


def mixture_cutoff(n: int, classes: int, clusters: int, lambda_m: float) -> float:
    """Spectral cutoff of Thm A.3: alpha_0^2 = lambda_M n/(2 K C), the lower end in Thm A.1.

    Args:
        n: samples. classes: K. clusters: C, in each class.
        lambda_m: lambda_M, the least eigenvalue of the centres' kernel.

    Returns:
        alpha_0, a singular value.

    Raises:
        ValueError: an argument is out of its range.
    """
    return float(np.sqrt(positive("lambda_m", lambda_m) * n / (2.0 * classes * clusters)))


def mixture_steps(
    n: int, classes: int, clusters: int, lambda_m: float, Gamma: float, lr: float, nu: float
) -> float:
    """Thms 2.5, A.3: T = 2 Gamma K^2 C/(lr nu^2 n lambda_M), for V of entries +-nu/sqrt(kK).

    Args:
        n: samples. classes: K. clusters: C, in each class.
        lambda_m: lambda_M, the least eigenvalue of the centres' kernel. Gamma: duration. lr: step size.
        nu: scale of V.

    Returns:
        T, in steps; not a whole number in general.

    Raises:
        ValueError: an argument is out of its range.
    """
    return (
        2.0
        * Gamma
        * classes**2
        * clusters
        / (positive("lr", lr) * nu**2 * n * positive("lambda_m", lambda_m))
    )


def mixture_width(classes: int, clusters: int, lambda_m: float, Gamma: float = 1.0) -> float:
    """Thm 2.5: order of the width, Gamma^4 K^8 C^4/lambda_M^4 (constants, logarithm, zeta and B dropped).

    Args:
        classes: K. clusters: C, in each class.
        lambda_m: lambda_M, the least eigenvalue of the centres' kernel. Gamma: duration.

    Returns:
        An order, without its constant.

    Raises:
        ValueError: an argument is out of its range.
    """
    return Gamma**4 * float(classes) ** 8 * float(clusters) ** 4 / positive("lambda_m", lambda_m) ** 4


def mixture_error_rate(
    n: int, classes: int, clusters: int, lambda_m: float, Gamma: float = 1.0, B: float = 1.0
) -> float:
    """Thm 2.5: order of the classification error, Gamma B sqrt(K^2 C/(n lambda_M)): n >> K^2 C learns.

    Args:
        n: samples. classes: K. clusters: C, in each class.
        lambda_m: lambda_M, the least eigenvalue of the centres' kernel. Gamma: duration.
        B: bound on phi' and phi''.

    Returns:
        An order, without its constant.

    Raises:
        ValueError: an argument is out of its range.
    """
    return float(Gamma * B * np.sqrt(mixture_rank(classes, clusters) / (n * positive("lambda_m", lambda_m))))


def cluster_basis(labels: Any) -> Array:
    """Orthonormal indicators of the clusters, (n, KC): they span range Sigma(X) and each label column.

    Args:
        labels: cluster of each sample (n,), whole numbers; columns follow their sorted distinct values.

    Returns:
        (n, KC), orthonormal columns.

    Raises:
        ValueError: an array is not finite or of another shape.
    """
    values, where = np.unique(array("labels", labels, 1), return_inverse=True)
    indicator = (where[:, None] == np.arange(len(values))[None, :]).astype(np.float64)
    return indicator / np.sqrt(indicator.sum(axis=0))
