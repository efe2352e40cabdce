"""Rows of the tangent kernel, the Jacobian and its spectrum, and of gradients' inner products."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import svds
from torch import Tensor

from benchmarks import peers
from benchmarks.networks import dense_kernel_flops, forward_flops, images, parameters, perceptron, plain_cnn
from benchmarks.turns import Call, Case, Row, distance
from labkit.krylov import operator_from, spectral_density, svd
from labkit.measure import batch_gram, empirical_ntk, gradient_gram, jacobian, sample_gradients
from labkit.measure.factors import _TILE as TILE
from labkit.measure.price import MiB
from labkit.models import resnet20

WIDTHS = (784, 512, 512, 512, 10)


def ntk(model: Any, x: Tensor, flops: float, *others: str, floor: tuple[str, Call] | None = None) -> Case:
    ours = {"": lambda: empirical_ntk(model, x, memory=2**31)}
    return Case(ours, peers.ntks(model, x, 10, others), flops=flops, floor=floor, rounds=3)


def dense_ntk(n: int, *others: str) -> Case:
    model, x = perceptron(*WIDTHS), torch.randn(n, 784)
    floor = ("its matrix products, at their own sizes,", dense_products(10 * n, n))
    return ntk(model, x, dense_kernel_flops(n, 10, WIDTHS), *others, floor=floor)


def dense_products(rows: int, n: int) -> Call:
    """Those of B Bᵀ for the upper half, in tiles that stay in the cache, and of all passes."""
    layers = list(zip(WIDTHS, WIDTHS[1:], strict=False))
    passes = [(torch.randn(n, d), torch.randn(d, m)) for d, m in layers]
    passes += [(torch.randn(rows, m), torch.randn(m, d)) for d, m in layers[1:]]
    carried = [torch.randn(rows, m) for _, m in layers]

    def call() -> None:
        for first, second in passes:
            torch.mm(first, second)
        for i in range(0, rows, TILE):
            for j in range(i, rows, TILE):
                for B in carried:
                    torch.mm(B[i : i + TILE], B[j : j + TILE].T)

    return call


def convolutional_ntk(model: Any, n: int, *others: str) -> Case:
    x = images(n)
    # One pass forward and K back, and the weights' gradients of each of those.
    flops = 11 * 2 * forward_flops(model, x) + (10 * n) ** 2 * parameters(model)
    return ntk(model, x, flops, *others)


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
    floor = ("JJᵀ", lambda: jacobian(model, x, memory=2 * size).gram())
    return Case(ways, others, gap, floor=floor, counts=lambda a: {"products": a.products}, rounds=0)


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


def classified(model: Any, x: Tensor, ours: Callable[..., Tensor], n2: float = 0.0) -> Case:
    """Gradients of single samples, or their inner products by n² n2 flops, beside those who make rows."""
    y = torch.arange(len(x)) % 10
    passes = 2 if n2 == WIDE else 3  # of dense layers no weight's gradient is formed
    flops, size = passes * forward_flops(model, x) + len(x) ** 2 * n2, 4 * len(x) * parameters(model)
    others = peers.gradients(model, x, y, gram=bool(n2))
    return Case({"": lambda: ours(model, x, y)}, others, flops=flops, bytes=0 if n2 else size)


def cnn_gradient_gram(n: int) -> Case:
    model = plain_cnn()
    return classified(model, images(n), gradient_gram, parameters(model))


def minibatch_gram() -> Case:
    model, x, y = perceptron(*WIDTHS), torch.randn(1024, 784), torch.arange(1024) % 10
    batches = torch.randperm(1024).view(64, 16)

    def theirs() -> Tensor:
        G = peers.loop_gradients(model, x, y, list(batches))
        return G @ G.T

    flops = 3 * forward_flops(model, x) + 64**2 * parameters(model)
    return Case({"": lambda: batch_gram(model, x, y, batches)}, {"a plain loop": theirs}, flops=flops)


WIDE = sum(WIDTHS[:-1]) + sum(WIDTHS[1:])
DENSE, CNN = "784-512-512-512-10", "6 convolutions"
EACH = {"opacus": 1.0, "BackPACK": 1.0, "torch.func": 1.0}
CHECKED = (
    "the same work on both sides, a forward pass and twice its flops backward; ours has ten more passes over "
    "1 to 3 samples, which look whether the model keeps its promises: 8 to 13 ms, half of what 16 images take"
)
LEAST = "the peak is that of a matrix product of 1,500 rows, and these flops are the fewest that are known"
FORWARDS = "both sides do a forward pass and {}, three passes' flops; kept, two are left"
ROWS = (
    Row("ntk-dense", f"tangent kernel, {DENSE}, n = 300", lambda: dense_ntk(300, "nngeometry"),
        {"nngeometry": 8, "peak": 0.6},
        why=f"{LEAST}; the rest are tiles that are copied, scaled, summed and mirrored: copied once for all "
        "pairs they take as long"),
    Row("ntk-dense-few", "the same, n = 50", lambda: dense_ntk(50, "torch.func", "neural-tangents"),
        {"torch.func": 500}, why=LEAST),
    Row("ntk-resnet", "tangent kernel, ResNet20, n = 100",
        lambda: convolutional_ntk(resnet20(10, 3), 100, "torch.func"),
        {"torch.func": 2}, why=LEAST),
    Row("ntk-cnn", f"tangent kernel, {CNN}, n = 50",
        lambda: convolutional_ntk(plain_cnn(), 50, "BackPACK"),
        {"BackPACK": 5}, why=LEAST),
    Row("jacobian-v", "J v, ResNet20, n = 50", lambda: products(True),
        {"not kept: curvlinops": 1.5}, why=FORWARDS.format("its derivative")),
    Row("jacobian-u", "Jᵀu, ResNet20, n = 50", lambda: products(False),
        {"not kept: curvlinops": 1.5}, why=FORWARDS.format("a backward pass")),
    Row("svd", "50 largest triplets of J, ResNet20, n = 50", triplets,
        {"J fits: SciPy on curvlinops": 25, "J does not fit: SciPy on curvlinops": 7.5,
         "by Lanczos: SciPy on curvlinops": 3, "by Lanczos: products": 100},
        why="a whole Krylov space takes 113 to 115 products from one start (from two 130 to 134, from eight "
        "184 to 192, of which each costs 14% less), and the search for missed copies 13 more; after 100, 44 "
        "or 45 of the 50 triplets have converged"),
    *(
        Row(f"svd-{n}", f"{k} largest triplets of a {n} × {p} matrix that decays",
            partial(small_triplets, n, p, k), {"tensor: SciPy": 0.5, "products: SciPy": 0.5},
            why="at n = 500: 29 pairs of products come with 5,200 operations of torch, about 3 µs each, two "
            "thirds of the time, where SciPy calls compiled ARPACK, which looks for no missed copy; of a "
            "Gram matrix, AAᵀ and its eigenvectors alone are three quarters")
        for n, p, k in ((500, 700, 10), (2000, 2000, 20))
    ),
    Row("density", "spectral_density, 10 probes of 80 steps, 64-256-256-10, n = 100", density),
    Row("gradient-gram", f"gradient_gram, {DENSE}, n = 500",
        lambda: classified(perceptron(*WIDTHS), torch.randn(500, 784), gradient_gram, float(WIDE)), EACH),
    *(
        Row(f"gradient-gram-{n}", f"gradient_gram, {CNN}, n = {n}", partial(cnn_gradient_gram, n), EACH,
            why=CHECKED)
        for n in (16, 100, 1000)
    ),
    Row("gradients", f"sample_gradients, {DENSE}, n = 100",
        lambda: classified(perceptron(*WIDTHS), torch.randn(100, 784), sample_gradients), EACH),
    Row("batch-gram", f"batch_gram, 64 minibatches of 16, {DENSE}", minibatch_gram, {"a plain loop": 1.0},
        why="the same products on both sides, and 238 MB of fresh memory for the rows; ours has two more "
        "forward passes, which look whether samples meet"),
)  # fmt: skip
