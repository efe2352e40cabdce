"""Other libraries, each as its own manual uses it, giving what labkit gives; None where one is missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn import functional as F

from benchmarks.turns import Call

Push = Callable[[Tensor], Tensor]


def optional(make: Callable[..., Any]) -> Callable[..., Any]:
    """The same, but None where the library is not there."""

    @wraps(make)
    def made(*args: Any) -> Any:
        try:
            return make(*args)
        except ImportError:
            return None

    return made


# Tangent kernels, (n, K, n, K).


def tutorial_ntk(model: nn.Module, x: Tensor, chunk: int | None = 10) -> Tensor:
    """As torch.func's tutorial on tangent kernels does: vmap(jacrev), then one contraction a parameter."""
    params = {name: p.detach() for name, p in model.named_parameters()}

    def outputs(params: dict[str, Tensor], sample: Tensor) -> Tensor:
        return functional_call(model, params, (sample[None],))[0]

    rows = vmap(jacrev(outputs), (None, 0), chunk_size=chunk)(params, x)
    return sum(torch.einsum("naf,mbf->namb", J.flatten(2), J.flatten(2)) for J in rows.values())


@optional
def nngeometry_ntk(model: nn.Module, x: Tensor) -> Call:
    from nngeometry.gram import GramMatrix

    examples = (x, torch.zeros(len(x), dtype=torch.long))

    def gram() -> Tensor:
        found = GramMatrix(model, examples, function=lambda *d: model(d[0])).data  # (K, n, K, n)
        return found.permute(1, 0, 3, 2)

    return gram


@optional
def backpack_ntk(model: nn.Module, x: Tensor, K: int) -> Call:
    from backpack import backpack, extend
    from backpack.extensions import BatchGrad

    model = extend(deepcopy(model))

    def gram() -> Tensor:
        rows: list[list[Tensor]] = []
        for k in range(K):
            model.zero_grad()
            with backpack(BatchGrad()):
                model(x)[:, k].sum().backward()
            rows.append([p.grad_batch.flatten(1) for p in model.parameters()])
        columns = [torch.stack(parts, 1) for parts in zip(*rows, strict=True)]
        return sum(torch.einsum("naf,mbf->namb", J, J) for J in columns)

    return gram


@optional
def neural_tangents_ntk(model: nn.Sequential, x: Tensor) -> Call:
    import jax
    import neural_tangents as nt

    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    params = [(p.weight.detach().numpy().T, p.bias.detach().numpy()) for p in layers]

    def outputs(params: Any, h: Any) -> Any:
        for W, b in params[:-1]:
            h = jax.nn.relu(h @ W + b)
        return h @ params[-1][0] + params[-1][1]

    way = nt.NtkImplementation.JACOBIAN_CONTRACTION  # structured derivatives need a jax of 2023
    kernel = jax.jit(nt.empirical_ntk_fn(outputs, trace_axes=(), vmap_axes=0, implementation=way))
    inputs = x.numpy()

    def gram() -> Tensor:  # (n, n, K, K)
        return torch.from_numpy(np.asarray(kernel(inputs, None, params))).permute(0, 2, 1, 3)

    return gram


def ntks(model: Any, x: Tensor, K: int, names: Sequence[str]) -> dict[str, Call | None]:
    """Those of these libraries."""
    made: dict[str, Callable[[], Call | None]] = {
        "nngeometry": lambda: nngeometry_ntk(model, x),
        "torch.func": lambda: lambda: tutorial_ntk(model, x),
        "BackPACK": lambda: backpack_ntk(model, x, K),
        "neural-tangents": lambda: neural_tangents_ntk(model, x),
    }
    return {name: made[name]() for name in names}


# Jacobians as operators.


@optional
def curvlinops_products(model: nn.Module, x: Tensor, chunk: int) -> tuple[Push, Push]:
    """J v and J^T u."""
    from curvlinops import JacobianLinearOperator, TransposedJacobianLinearOperator

    batches = [(part, torch.zeros(len(part), 1)) for part in x.split(chunk)]
    asked = (model, list(model.parameters()), batches)
    J = JacobianLinearOperator(*asked, check_deterministic=False)
    Jt = TransposedJacobianLinearOperator(*asked, check_deterministic=False)
    return lambda v: J @ v, lambda u: Jt @ u


def scipy_svd(shape: tuple[int, int], products: tuple[Push, Push] | None, k: int) -> Call | None:
    """The k largest singular values by SciPy's svds on another library's products."""
    from scipy.sparse.linalg import LinearOperator, svds

    if products is None:
        return None

    def through(product: Push) -> Callable[[np.ndarray], np.ndarray]:
        return lambda v: product(torch.from_numpy(np.array(v.ravel(), np.float32))).detach().numpy()

    push, pull = map(through, products)
    A = LinearOperator(shape, matvec=push, rmatvec=pull, dtype=np.float32)
    return lambda: np.sort(svds(A, k=k, tol=1e-6, return_singular_vectors=False, random_state=0))[::-1].copy()


@optional
def gauss_newton(model: nn.Module, x: Tensor, chunk: int) -> Any:
    """J^T J of hessian-eigenthings: the Gauss-Newton matrix of half the squared outputs."""
    from hessian_eigenthings import GGNOperator

    batches = list(x.split(chunk))
    # It averages over batches, and J^T J is a sum.
    return GGNOperator(
        model, batches, lambda m, part: m(part), lambda f, part: len(batches) * f.square().sum() / 2
    )


def eigenthings_svd(operator: Any, k: int, steps: int) -> Call | None:
    """The k largest singular values; fully reorthogonalised, as else copies of the first appear."""
    if operator is None:
        return None
    from hessian_eigenthings import lanczos

    def values() -> Tensor:
        found = lanczos(operator, k=k, max_iter=steps, tol=1e-6, reorthogonalize=True, which="LA", seed=0)
        return found.eigenvalues.sort(descending=True)[0].clamp_min(0).sqrt()

    return values


# Gradients of single samples, (n, p).


def tutorial_gradients(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """As torch.func's tutorial on per-sample gradients does: vmap(grad)."""
    params = {name: p.detach() for name, p in model.named_parameters()}

    def loss(params: dict[str, Tensor], sample: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, params, (sample[None],)), label[None])

    rows = vmap(torch.func.grad(loss), (None, 0, 0))(params, x, y)
    return torch.cat([g.flatten(1) for g in rows.values()], dim=1)


@optional
def opacus_gradients(model: nn.Module, x: Tensor, y: Tensor) -> Call:
    from opacus.grad_sample import GradSampleModule

    wrapped = GradSampleModule(deepcopy(model), loss_reduction="sum")

    def rows() -> Tensor:
        wrapped.zero_grad()
        F.cross_entropy(wrapped(x), y, reduction="sum").backward()
        return torch.cat([p.grad_sample.flatten(1) for p in wrapped.parameters()], dim=1)

    return rows


@optional
def backpack_gradients(model: nn.Module, x: Tensor, y: Tensor) -> Call:
    from backpack import backpack, extend
    from backpack.extensions import BatchGrad

    model, loss = extend(deepcopy(model)), extend(nn.CrossEntropyLoss(reduction="sum"))

    def rows() -> Tensor:
        model.zero_grad()
        with backpack(BatchGrad()):
            loss(model(x), y).backward()
        return torch.cat([p.grad_batch.flatten(1) for p in model.parameters()], dim=1)

    return rows


def gradients(model: nn.Module, x: Tensor, y: Tensor, gram: bool) -> dict[str, Call | None]:
    """Of all of these libraries; or their Gram matrices."""
    rows: dict[str, Call | None] = {
        "opacus": opacus_gradients(model, x, y),
        "BackPACK": backpack_gradients(model, x, y),
        "torch.func": lambda: tutorial_gradients(model, x, y),
    }
    return {name: _squared(call) for name, call in rows.items()} if gram else rows


def _squared(rows: Callable[[], Tensor] | None) -> Call | None:
    """Their Gram matrix."""

    def gram() -> Tensor:
        G = rows()
        return G @ G.T

    return gram if rows else None


def loop_gradients(model: nn.Module, x: Tensor, y: Tensor, batches: Sequence[Tensor]) -> Tensor:
    """The gradient of each minibatch's mean loss by a plain loop."""
    params = list(model.parameters())
    found = [torch.autograd.grad(F.cross_entropy(model(x[b]), y[b]), params) for b in batches]
    return torch.stack([torch.cat([g.flatten() for g in one]) for one in found])
