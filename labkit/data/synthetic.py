"""Data with a known law: the Gaussian mixture and linear model of paper 4, the sphere, a linear teacher.

All draw in float64 and then convert, so a seed gives the same data, up to rounding, in every dtype.

Paper 4 is "Generalization Guarantees for Neural Nets via Harnessing the Low-rankness of Jacobian" (2020).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import torch

from labkit.data import strata
from labkit.data._checks import floating, number, whole_number
from labkit.data._random import generator
from labkit.data.dataset import Dataset

TRIES = 2000  # candidates for each centre before a minimal distance is called impossible


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Mixture(Dataset):
    """A Gaussian mixture: a dataset that knows its centres.

    `centers` are numbered class by class: centre k * clusters + c is cluster c of class k. The numbering
    stays when classes are taken out or renamed. Normalising the data moves the centres in the same way.
    """

    centers: torch.Tensor  # (classes * clusters, dim)
    cluster: torch.Tensor  # (n,), int64: the centre that each training sample belongs to

    def _selected(self, train: torch.Tensor | slice, test: torch.Tensor | slice) -> dict[str, Any]:
        return {**super()._selected(train, test), "cluster": strata.taken(self.cluster, train)}

    def _mapped(self, change: Callable[[torch.Tensor], torch.Tensor], note: str) -> Self:
        return replace(super()._mapped(change, note), centers=change(self.centers))


@dataclass(frozen=True, eq=False)
class LowRankLinear:
    """The data of section 5.1: X = U V^T + Z and y = U V^T w_star + z, with their clean parts."""

    X: torch.Tensor  # (n, d)
    X_clean: torch.Tensor  # (n, d), of rank `rank`, all non-zero singular values 1
    U: torch.Tensor  # (n, rank), orthonormal columns: the information space
    V: torch.Tensor  # (d, rank), orthonormal columns
    y: torch.Tensor  # (n,)
    y_clean: torch.Tensor  # (n,)
    w_star: torch.Tensor  # (d,), in the range of V, of norm sqrt(rank)


def gaussian_mixture(
    classes: int,
    clusters: int,
    n: int,
    dim: int,
    noise: float,
    *,
    min_distance: float = 0.5,
    n_test: int | None = None,
    balanced: bool = True,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Mixture:
    """The Gaussian mixture of Definition 2.4: x ~ N(centre, noise^2 I / dim), the class is the centre's.

    The definition asks for centres of norm 1. Here they are also at least `min_distance` apart, because two
    that nearly agree make the kernel of the centres nearly singular. They are uniform on the sphere
    otherwise. Samples stand cluster by cluster. With one seed, `noise` scales fixed deviations, so it can be
    moved alone.

    Args:
        classes: K, at least 2.
        clusters: C, clusters in each class.
        n: number of training samples.
        dim: d.
        noise: sigma; the norm of a sample's deviation is about sigma.
        min_distance: least Euclidean distance between two centres, from 0 to 2.
        n_test: number of test samples, from the same clusters; None takes n, 0 is allowed.
        balanced: all clusters of the same size, so `n` and `n_test` must be multiples of K C; False draws the
            cluster of each sample independently, as the definition does.
        seed: decides centres, deviations and memberships.
        dtype: of the samples and centres.

    Returns:
        Mixture: a Dataset with its centres, and the cluster of every sample.

    Raises:
        ValueError: sizes that do not divide, or centres that cannot be placed so far apart.

    Reference: paper 4, Definition 2.4.
    """
    classes = whole_number("classes", classes, low=2)
    clusters = whole_number("clusters", clusters, low=1)
    n = whole_number("n", n, low=1)
    n_test = n if n_test is None else whole_number("n_test", n_test)
    noise = number("noise", noise)
    floating("dtype", dtype)
    centers = _centers(classes * clusters, whole_number("dim", dim, low=1), min_distance, seed)

    def draw(name: str, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = generator(seed, f"mixture: {name}")
        cluster = _memberships(name, size, len(centers), rng, balanced)
        deviation = torch.randn(size, dim, dtype=torch.float64, generator=rng) / dim**0.5
        return (centers[cluster] + noise * deviation).to(dtype), cluster

    x_train, cluster = draw("n", n)
    x_test, cluster_test = draw("n_test", n_test)
    return Mixture(
        name="gaussian-mixture",
        x_train=x_train,
        y_train=cluster // clusters,
        x_test=x_test,
        y_test=cluster_test // clusters,
        classes=classes,
        note=f"Gaussian mixture, {clusters} clusters a class, noise {noise:g}",
        centers=centers.to(dtype),
        cluster=cluster,
    )


def sphere(n: int, dim: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Points independent and uniform on the unit sphere, (n, dim).

    Args:
        n: how many points, at least 1.
        dim: d, at least 1.
        seed: decides the points.
        dtype: of the points, which are drawn in float64.

    Returns:
        (n, dim), rows of norm 1.

    Raises:
        ValueError: a size below 1, or a dtype that is not floating.
    """
    n, dim = whole_number("n", n, low=1), whole_number("dim", dim, low=1)
    return _unit_rows(n, dim, generator(seed, "sphere")).to(floating("dtype", dtype))


def linear_teacher(
    n: int, dim: int, *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gaussian inputs with labels from a linear teacher: x ~ N(0, I), y = X theta, theta uniform of norm 1.

    Args:
        n: samples, at least 1.
        dim: d, at least 1.
        seed: decides inputs and teacher.
        dtype: of the result, which is drawn in float64.

    Returns:
        X (n, dim), y (n,), theta (dim,).

    Raises:
        ValueError: a size below 1, or a dtype that is not floating.

    Reference: paper 4, Appendix D.
    """
    n, dim = whole_number("n", n, low=1), whole_number("dim", dim, low=1)
    floating("dtype", dtype)
    x = torch.randn(n, dim, dtype=torch.float64, generator=generator(seed, "linear teacher: inputs"))
    theta = _unit_rows(1, dim, generator(seed, "linear teacher: theta"))[0]
    return x.to(dtype), (x @ theta).to(dtype), theta.to(dtype)


def low_rank_linear(
    n: int = 200,
    d: int = 500,
    rank: int = 5,
    sigma_x: float = 0.2,
    sigma_y: float = 2.0,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> LowRankLinear:
    """A linear regression with low-rank inputs, noise on inputs and labels; the defaults are Figure 8's.

    X = U V^T + Z with U, V uniform among orthonormal bases and Z of independent N(0, sigma_x^2 / n);
    y = U V^T w_star + z with z of independent N(0, sigma_y^2 / n). The paper gives no norm of w_star:
    with sqrt(rank) the risk at w = 0 is (rank + sigma_y^2) / 2. The paper's n <= d is not asked for here.

    Args:
        n: samples.
        d: the numbers in one input.
        rank: of the clean inputs, at most min(n, d).
        sigma_x: noise on the inputs, as the norm of a column's noise.
        sigma_y: noise on the labels, as the norm of all of it.
        seed: decides every draw.
        dtype: of the result, which is drawn in float64.

    Returns:
        LowRankLinear: inputs and labels, noisy and clean, and w_star.

    Raises:
        ValueError: a rank above min(n, d), or a negative noise.

    Reference: paper 4, section 5.1.
    """
    n, d, rank = (whole_number(name, value, low=1) for name, value in (("n", n), ("d", d), ("rank", rank)))
    if rank > min(n, d):
        raise ValueError(f"rank={rank}: takes at most min(n, d) = {min(n, d)}.")
    sigma_x, sigma_y = number("sigma_x", sigma_x), number("sigma_y", sigma_y)
    floating("dtype", dtype)

    def gaussian(purpose: str, *shape: int) -> torch.Tensor:
        return torch.randn(
            *shape, dtype=torch.float64, generator=generator(seed, f"low-rank linear: {purpose}")
        )

    left, right = torch.linalg.qr(gaussian("U", n, rank)).Q, torch.linalg.qr(gaussian("V", d, rank)).Q
    coefficients = gaussian("w_star", rank)
    w_star = right @ (coefficients * (rank**0.5 / torch.linalg.vector_norm(coefficients)))
    x_clean = left @ right.T
    y_clean = x_clean @ w_star
    x = x_clean + sigma_x / n**0.5 * gaussian("X noise", n, d)
    y = y_clean + sigma_y / n**0.5 * gaussian("y noise", n)
    return LowRankLinear(*(value.to(dtype) for value in (x, x_clean, left, right, y, y_clean, w_star)))


def _unit_rows(n: int, dim: int, rng: torch.Generator) -> torch.Tensor:
    x = torch.randn(n, dim, dtype=torch.float64, generator=rng)
    return x / torch.linalg.vector_norm(x, dim=1, keepdim=True)


def _centers(count: int, dim: int, min_distance: float, seed: int) -> torch.Tensor:
    """Unit vectors placed one after another, each drawn again until it is far enough from all before it."""
    min_distance = number("min_distance", min_distance, 0.0, 2.0)
    rng = generator(seed, "mixture: centres")
    centers = torch.empty(0, dim, dtype=torch.float64)
    for placed in range(count):
        for _ in range(TRIES):
            candidate = _unit_rows(1, dim, rng)
            if bool((torch.linalg.vector_norm(centers - candidate, dim=1) >= min_distance).all()):
                centers = torch.cat([centers, candidate])
                break
        else:
            raise ValueError(
                f"min_distance={min_distance:g}: {count} unit vectors (classes * clusters) in dim={dim} "
                f"dimensions could not be placed so far apart; {placed} were, then {TRIES} tries failed. "
                "Lower min_distance or clusters, or raise dim."
            )
    return centers


def _memberships(name: str, size: int, count: int, rng: torch.Generator, balanced: bool) -> torch.Tensor:
    """The cluster of every sample, one after the other."""
    if not balanced:
        return torch.randint(count, (size,), generator=rng).sort().values
    if size % count:
        near = max(count, round(size / count) * count)
        raise ValueError(
            f"{name}={size}: balanced clusters take a multiple of classes * clusters = {count}. "
            f"Use {name}={near}, or balanced=False."
        )
    return torch.arange(count).repeat_interleave(size // count)
