"""The dense twins: plain autograd in float64, one sample and one row at a time, on a model of its own.

Nothing here comes from labkit. A sample's outputs *beside the others* are computed as well: where they differ
from those alone, or from one call to the next, the matrix that a measure promises does not exist.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .models import DTYPES, Spec, build, inputs


@contextmanager
def plainly() -> Iterator[None]:
    """No mode or type of whoever calls reaches a twin, and a twin takes no random number of theirs."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    modes = (torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False))
    try:
        with torch.random.fork_rng(devices=[]), modes[0], modes[1], modes[2]:
            yield
    finally:
        torch.set_default_dtype(before)


def log_cosh(f: Tensor, y: Tensor) -> Tensor:
    """A loss of one's own: (b, ...), (b, ...) -> (b,)."""
    return (f - y).cosh().log().reshape(len(f), -1).sum(1)


def loss_of_one(name: str, f: Tensor, y: Tensor) -> Tensor:
    """The loss of one sample, f (K,); by its formula."""
    if name == "cross-entropy":
        return f.logsumexp(0) - f[int(y)]
    if name == "log cosh":
        return (f - y).cosh().log().sum()
    square = ((f - y) ** 2).sum()
    return square / f.numel() if name == "mean" else square / 2


@dataclass(frozen=True, eq=False)
class Twin:
    """What is true of a spec.

    Attributes:
        outputs: (n, K). J: (n*K, p). names: of the parameters, in column order.
        shape: of one sample's outputs.
        excuse: why there is no such matrix; empty: there is.
    """

    outputs: Tensor
    J: Tensor
    names: tuple[str, ...]
    shape: tuple[int, ...]
    excuse: str = ""

    @property
    def K(self) -> int:
        return self.outputs.shape[1]


@plainly()
def twin(spec: Spec, x: Tensor | None = None, dtype: torch.dtype = torch.float64) -> Twin:
    """The spec's Jacobian at `x`; in another type for what rounding alone does to plain autograd."""
    model = build(spec).to(dtype)
    x = inputs(spec) if x is None else x
    x = x.to(dtype) if x.is_floating_point() else x
    leaves = trainable(model)
    if not leaves:
        raise RuntimeError("nothing to differentiate by")
    alone = [_values(model, x[i : i + 1]) for i in range(len(x))]
    shape = tuple(alone[0].shape[1:])
    alone = [y.reshape(1, -1) for y in alone]
    rows = [_rows(y, leaves) for y in alone]
    together = _values(model, x).reshape(len(x), -1)
    again = torch.stack([_values(model, x).reshape(together.shape) for _ in range(6)])
    outputs, J = torch.cat([y.detach() for y in alone]), torch.cat(rows)
    excuse = ""
    if not bool((again == together).logical_or(again.isnan()).all()):
        excuse = "chance"
    elif together.shape != outputs.shape or not _close(outputs, together):
        excuse = "samples look at each other"
    elif not bool(outputs.isfinite().all()):
        excuse = "not finite"
    return Twin(outputs, J, tuple(leaves), shape, excuse)


def trainable(model: nn.Module) -> dict[str, Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _values(model: nn.Module, x: Tensor) -> Tensor:
    """Outputs (n, ...) for a copy of x; the first of several."""
    y = model(x.clone())
    if isinstance(y, dict):
        y = y["logits"]
    elif isinstance(y, tuple):
        y = y[0]
    return y


def _rows(y: Tensor, leaves: dict[str, Tensor]) -> Tensor:
    return torch.stack([_flat_gradient(value, leaves) for value in y.reshape(-1)])


def _flat_gradient(value: Tensor, leaves: dict[str, Tensor]) -> Tensor:
    """By `backward`, which every model has: reentrant checkpoints refuse `autograd.grad`."""
    for p in leaves.values():
        p.grad = None
    if value.requires_grad:
        value.backward(retain_graph=True)
    parts = [torch.zeros_like(p) if p.grad is None else p.grad.to_dense() for p in leaves.values()]
    return torch.cat([part.detach().reshape(-1) for part in parts])


def _close(a: Tensor, b: Tensor) -> bool:
    eps = torch.finfo(a.dtype).eps
    return bool(((a - b).abs() <= eps**0.5 * a.abs().max()).all() or not bool(a.isfinite().all()))


@plainly()
def targets(spec: Spec, shape: tuple[int, ...]) -> Tensor:
    """Class numbers (n,), or floats in the outputs' shape and the spec's type."""
    source = torch.Generator().manual_seed(200 + spec.seed)
    if spec.loss == "cross-entropy":
        return torch.randint(0, math.prod(shape), (spec.n,), generator=source)
    return torch.randn(spec.n, *shape, generator=source, dtype=torch.float64).to(DTYPES[spec.dtype])


@plainly()
def loss_gradients(spec: Spec, true: Twin, y: Tensor) -> Tensor:
    """(n, p): by the chain rule from J, the derivative of the loss by autograd on the outputs alone."""
    f = true.outputs.clone().requires_grad_()
    y = y.double().flatten(1) if y.is_floating_point() and y.ndim > 1 else y
    total = torch.stack([loss_of_one(spec.loss, f[i], y[i]) for i in range(len(f))]).sum()
    (slope,) = torch.autograd.grad(total, f)
    return torch.einsum("nk,nkp->np", slope, true.J.view(*f.shape, -1))


@plainly()
def loss_at(spec: Spec, weights: Tensor, y: Tensor) -> float:
    """The loss over all samples (a sum for "half-sum", else a mean) with these parameters (p,)."""
    model = build(spec).double()
    x = inputs(spec)
    x = x.double() if x.is_floating_point() else x
    y = y.double() if y.is_floating_point() else y
    with torch.no_grad():
        start = 0
        for p in trainable(model).values():
            p.copy_(weights[start : start + p.numel()].view(p.shape))
            start += p.numel()
        each = [
            loss_of_one(spec.loss, _values(model, x[i : i + 1]).reshape(-1), y[i].reshape(-1))
            for i in range(len(x))
        ]
    total = torch.stack(each).sum()
    return float(total if spec.loss == "half-sum" else total / len(x))
