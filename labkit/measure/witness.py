"""Holding a fast path to one ordinary backward pass, on the very samples it is used on."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["adjoint", "disagreeing", "numbers", "random_like", "without_torch_warnings"]


def random_like(t: Tensor, seed: int = 0) -> Tensor:
    """Normal random numbers in the shape, type and place of `t`, the same each time."""
    drawn = torch.randn(t.shape, generator=torch.Generator().manual_seed(seed), dtype=t.dtype)
    return drawn.to(t.device)


def numbers(found: Iterable[Tensor]) -> list[float]:
    """Tensors of one number each, of one device, which the host waits for once."""
    tensors = list(found)
    return [float(value) for value in torch.stack(tensors).tolist()] if tensors else []


def _tolerance(dtype: torch.dtype) -> float:
    # What is wrong in one row of a chunk is above; sums in another order (1e-5 and 1e-13) lie below.
    return 1e-8 if dtype == torch.float64 else 1e-3


def disagreeing(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> set[str]:
    """The names in `found` whose tensors are not those expected; shapes may differ, entries are in order."""
    apart = [(g.reshape(-1) - expected[name].reshape(-1)).norm() for name, g in found.items()]
    known = numbers([*(g.norm() for g in expected.values()), *apart])
    sizes, gaps = dict(zip(expected, known, strict=False)), known[len(expected) :]
    # Forgives parameters whose own gradient cancels to nearly nothing.
    least = 1e-3 * max(sizes.values(), default=0.0)
    return {
        name
        for (name, g), gap in zip(found.items(), gaps, strict=True)
        if not gap <= _tolerance(g.dtype) * (sizes[name] + least)
    }


def adjoint(u: Tensor, Jv: Tensor, v: Mapping[str, Tensor], JTu: Mapping[str, Tensor]) -> bool:
    """Whether <u, J v> = <J^T u, v>, for random u and v, up to rounding."""
    # In their own type: double copies of a large layer would be most of a measure's memory.
    products = (torch.dot(JTu[name].reshape(-1), value.reshape(-1)) for name, value in v.items())
    norms = (g.norm() for g in JTu.values())
    left, along, *others = numbers([torch.dot(u.reshape(-1), Jv.reshape(-1)), Jv.norm(), *products, *norms])
    right = sum(others[: len(v)])
    # Both have about the size of J v, as u and v are of unit variance.
    size = along + sum(norm**2 for norm in others[len(v) :]) ** 0.5
    # One forward pass serves both, so no ReLU flips: torchvision's models stand at 1e-6 and 2e-15 at most.
    return abs(left - right) <= (1e-11 if u.dtype == torch.float64 else 3e-5) * size


@contextmanager
def without_torch_warnings() -> Iterator[None]:
    """Keep to ourselves what torch says of its own inner ways, which no caller of ours has chosen."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*performance drop.*", category=UserWarning)
        warnings.filterwarnings("ignore", message=".*torch.jit.script.*")
        yield
