"""Rows of the tangent kernel, the Jacobian and its spectrum, and of gradients' inner products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import svds
from torch import Tensor

from benchmarks import peers
from benchmarks.networks import dense_kernel_flops, forward_flops, images, parameters, perceptron, plain_cnn
from benchmarks.turns import Case, Row, distance
from labkit.krylov import operator_from, spectral_density, svd
from labkit.measure import batch_gram, empirical_ntk, gradient_gram, jacobian, sample_gradients
from labkit.measure.price import MiB
from labkit.models import resnet20

WIDTHS = (784, 512, 512, 512, 10)


def dense_ntk() -> Case:
    model, x = perceptron(*WIDTHS), torch.randn(300, 784)
    others = {"nngeometry": peers.nngeometry_ntk(model, x)}
    return Case({"": lambda: empirical_ntk(model, x)}, others, flops=dense_kernel_flops(300, 10, WIDTHS))


def dense_ntk_of_few() -> Case:
    model, x = perceptron(*WIDTHS), torch.randn(50, 784)
    others = {
        "torch.func": lambda: peers.tutorial_ntk(model, x),
        "neural-tangents": peers.neural_tangents_ntk(model, x),
    }
    flops = dense_kernel_flops(50, 10, WIDTHS)
    return Case({"": lambda: empirical_ntk(model, x)}, others, flops=flops, rounds=3)


def convolutional_ntk(model: Any, n: int, others: Callable[[Any, Tensor], dict[str, Any]]) -> Case:
    x = images(n)
    rows = (
        11 * 2 * forward_flops(model, x)
    )  # one pass forward and K back, weights' gradients of each of those
    flops = rows + (10 * n) ** 2 * parameters(model)
    ours = {"": lambda: empirical_ntk(model, x, memory=2**31)}
    return Case(ours, others(model, x), flops=flops, rounds=3)


def resnet_ntk() -> Case:
    model = resnet20(10, 3)
    return convolutional_ntk(model, 100, lambda m, x: {"torch.func": lambda: peers.tutorial_ntk(m, x)})


def cnn_ntk() -> Case:
    return convolutional_ntk(plain_cnn(), 50, lambda m, x: {"BackPACK": peers.backpack_ntk(m, x, 10)})


def products(forwards: bool) -> Case:
    """J v, or Jᵀu, of a ResNet20 at 50 images."""
    model, x = resnet20(10, 3), images(50)
    kept, scarce = (jacobian(model, x, route="products", memory=m) for m in (2**33, 50 * MiB))
    vector = torch.randn(kept.shape[1] if forwards else kept.shape[0])
    ours = {
        way: (lambda J=J: J.matmat(vector)) if forwards else (lambda J=J: J.rmatmat(vector))
        for way, J in (("kept", kept), ("not kept", scarce))
    }
    theirs = peers.curvlinops_products(model, x, 10)
    call = theirs and (lambda: theirs[not forwards](vector).reshape(-1))
    floor = ("a forward pass, which one that is not kept needs again,", lambda: model(x))
    return Case(ours, {"curvlinops": call}, flops=2 * forward_flops(model, x), floor=floor)


def triplets() -> Case:
    """The 50 largest of a ResNet20's Jacobian at 50 images."""
    model, x, k = resnet20(10, 3), images(50), 50
    size = jacobian(model, x).price().stored_bytes
    products = peers.curvlinops_products(model, x, 10)

    def ours(memory: int, method: str) -> Any:
        J = jacobian(model, x, memory=memory)
        return svd(J, k, memory=max(memory, 2**29), method=method)

    ways = {
        "J fits": lambda: ours(2 * size, "auto"),
        "J does not fit": lambda: ours(size // 2, "auto"),
        "by Lanczos": lambda: ours(size // 2, "lanczos"),
    }
    others = {
        "SciPy on curvlinops": peers.scipy_svd((500, parameters(model)), products, k),
    }
    gap = lambda a, b: distance(a.s, b)  # noqa: E731
    return Case(ways, others, gap, counts=lambda a: {"products": a.products}, rounds=0)


def small_triplets(n: int, p: int, k: int) -> Case:
    """Of a dense matrix, whose values decay as 1/i."""
    A = torch.randn(n, p, dtype=torch.float64) / torch.arange(1, n + 1)[:, None]
    operator = operator_from(lambda V: A @ V, lambda U: A.T @ U, (n, p), dtype=A.dtype)
    array = A.numpy()
    others = {"SciPy": lambda: np.sort(svds(array, k=k, tol=1e-6, random_state=0)[1])[::-1].copy()}
    ours = {"tensor": lambda: svd(A, k), "products": lambda: svd(operator, k)}
    return Case(ours, others, lambda a, b: distance(a.s, b), counts=lambda a: {"products": a.products})


def density() -> Case:
    """Of J Jᵀ, or of Jᵀ J: the same eigenvalues but zeros."""
    model, x = perceptron(64, 256, 256, 10), torch.randn(100, 64)
    operator = peers.gauss_newton(model, x, 100)

    def ours(method: str) -> Tensor:
        found = spectral_density(jacobian(model, x), probes=10, steps=80, method=method)
        return torch.stack([found.nodes.max(), 1000 * (found.nodes * found.weights).sum(1).mean()])

    def theirs() -> Tensor:
        from hessian_eigenthings import spectral_density

        found = spectral_density(operator, num_runs=10, lanczos_steps=80, num_grid_points=2048, seed=0)
        nodes, weights = found.raw_eigenvalues.nan_to_num(0), found.raw_weights
        return torch.stack([nodes.max(), operator.size * (nodes * weights).sum(1).mean()])

    # The largest node is an eigenvalue; the trace an estimate, a few per cent off.
    gap = lambda a, b: max(distance(a[0], b[0]), distance(a[1], b[1]) / 100)  # noqa: E731
    ways = {"by its kernel": lambda: ours("auto"), "by products": lambda: ours("lanczos")}
    return Case(ways, {"hessian-eigenthings": operator and theirs}, gap)


def classified(model: Any, x: Tensor, ours: Callable[..., Tensor], gram: bool, n2: float) -> Case:
    """Gradients of single samples, or their inner products, beside those who make the rows."""
    y = torch.arange(len(x)) % 10
    rows = {
        "opacus": peers.opacus_gradients(model, x, y),
        "BackPACK": peers.backpack_gradients(model, x, y),
        "torch.func": lambda: peers.tutorial_gradients(model, x, y),
    }
    others = {name: peers.squared(call) for name, call in rows.items()} if gram else rows
    flops = 3 * forward_flops(model, x) + len(x) ** 2 * n2
    return Case(
        {"": lambda: ours(model, x, y)},
        others,
        flops=flops,
        bytes=0 if gram else 4 * len(x) * parameters(model),
    )


def dense_gradient_gram() -> Case:
    return classified(
        perceptron(*WIDTHS), torch.randn(500, 784), gradient_gram, True, sum(WIDTHS[:-1]) + sum(WIDTHS[1:])
    )


def cnn_gradient_gram() -> Case:
    model = plain_cnn()
    return classified(model, images(100), gradient_gram, True, parameters(model))


def single_gradients() -> Case:
    return classified(perceptron(*WIDTHS), torch.randn(100, 784), sample_gradients, False, 0.0)


def minibatch_gram() -> Case:
    model, x, y = perceptron(*WIDTHS), torch.randn(1024, 784), torch.arange(1024) % 10
    batches = torch.randperm(1024).view(64, 16)

    def theirs() -> Tensor:
        G = peers.loop_gradients(model, x, y, list(batches))
        return G @ G.T

    flops = 3 * forward_flops(model, x) + 64**2 * parameters(model)
    return Case({"": lambda: batch_gram(model, x, y, batches)}, {"a plain loop": theirs}, flops=flops)


ROWS = (
    Row(
        "ntk-dense",
        "tangent kernel, 784-512-512-512-10, n = 300",
        dense_ntk,
        {"nngeometry": 8, "peak": 0.6},
        why="8 would take 85 % of the GEMM peak",
    ),
    Row(
        "ntk-dense-few",
        "the same, n = 50",
        dense_ntk_of_few,
        {"torch.func": 500},
        why="at the GEMM peak it would be about 500; the rest are passes that hold it to a plain one",
    ),
    Row(
        "ntk-resnet",
        "tangent kernel, ResNet20, n = 100",
        resnet_ntk,
        {"torch.func": 2},
        why="at the GEMM peak it would be about 1.4",
    ),
    Row(
        "ntk-cnn",
        "tangent kernel, 6 convolutions, n = 50",
        cnn_ntk,
        {"BackPACK": 5},
        why="at the GEMM peak it would be about 3.1",
    ),
    Row(
        "jacobian-v",
        "J v, ResNet20, n = 50",
        lambda: products(True),
        {"not kept: curvlinops": 1.5},
        why="both sides do a forward pass and its derivative, three passes' flops; kept, two are left",
    ),
    Row(
        "jacobian-u",
        "Jᵀu, ResNet20, n = 50",
        lambda: products(False),
        {"not kept: curvlinops": 1.5},
        why="both sides do a forward and a backward pass, three passes' flops; kept, two are left",
    ),
    Row(
        "svd",
        "50 largest triplets of J, ResNet20, n = 50",
        triplets,
        {
            "J fits: SciPy on curvlinops": 25,
            "J does not fit: SciPy on curvlinops": 7.5,
            "by Lanczos: SciPy on curvlinops": 3,
            "by Lanczos: products": 100,
        },
        why="after 100 products from one start 44 or 45 of the 50 triplets have converged in the whole "
        "Krylov space, after 114 at most 49 (three starts); the search for missed copies takes 13 more",
    ),
    *(
        Row(
            f"svd-{n}",
            f"{k} largest triplets of a {n} × {p} matrix that decays",
            lambda n=n, p=p, k=k: small_triplets(n, p, k),  # type: ignore[misc]
            {"tensor: SciPy": 0.5, "products: SciPy": 0.5},
            why="SciPy looks for no missed copy, and multiplies no triplet to see its residual",
        )
        for n, p, k in ((500, 700, 10), (2000, 2000, 20))
    ),
    Row("density", "spectral_density, 10 probes of 80 steps, 64-256-256-10, n = 100", density),
    Row("gradient-gram", "gradient_gram, 784-512-512-512-10, n = 500", dense_gradient_gram),
    Row("gradient-gram-cnn", "gradient_gram, 6 convolutions, n = 100", cnn_gradient_gram),
    Row("gradients", "sample_gradients, 784-512-512-512-10, n = 100", single_gradients),
    Row("batch-gram", "batch_gram, 64 minibatches of 16, 784-512-512-512-10", minibatch_gram),
)
