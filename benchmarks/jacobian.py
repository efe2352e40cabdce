"""Speed of the matrix-free Jacobian and of its top-k SVD, as ratios.

    python benchmarks/jacobian.py [--threads 1] [--device cuda] [--samples 50] [--triplets 50] [--svd]

A ResNet20 without batch norm on random images. Both sides take turns in one process, each after a warm-up; a
ratio is of medians. On one thread of a CPU the clock is processor time, which a busy machine disturbs least.
The rival is curvlinops for products, and curvlinops under SciPy's svds for the SVD; without it, torch's own
jvp and vjp.

Targets: top 50 triplets at least 3 times as fast where J fits the budget, 1.4 times where it does not.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labkit.krylov import svd
from labkit.measure import Jacobian, jacobian
from labkit.measure.price import MiB
from labkit.models import resnet20

Push = Callable[[Tensor], Tensor]


def median_seconds(
    calls: dict[str, Callable[[], Any]], rounds: int, device: str, clock: Any
) -> dict[str, float]:
    """Median seconds of each, taken in turn."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            start = clock()
            call()
            if device != "cpu":
                torch.cuda.synchronize()
            if turn:
                taken[name].append(clock() - start)
    return {name: float(np.median(values)) for name, values in taken.items()}


def rival(model: nn.Module, x: Tensor, chunk: int) -> tuple[str, Push, Push]:
    """(name, J v, J^T u) by curvlinops, or by torch.func where it is not installed."""
    params = {name: p.detach() for name, p in model.named_parameters()}
    try:
        from curvlinops import JacobianLinearOperator, TransposedJacobianLinearOperator

        batches = [(part, torch.zeros(len(part), 1, device=x.device)) for part in x.split(chunk)]
        options: dict[str, Any] = {"check_deterministic": False}
        own = list(model.parameters())
        J = JacobianLinearOperator(model, own, batches, **options)
        Jt = TransposedJacobianLinearOperator(model, own, batches, **options)
        return "curvlinops", lambda v: J @ v, lambda u: Jt @ u
    except (ImportError, TypeError):
        pass

    def at(part: Tensor) -> Callable[[dict[str, Tensor]], Tensor]:
        return lambda p: torch.func.functional_call(model, p, (part,))

    def push(v: Tensor) -> Tensor:
        pieces = torch.split(v, [p.numel() for p in params.values()])
        along = {n: s.view(p.shape) for (n, p), s in zip(params.items(), pieces, strict=True)}
        return torch.cat(
            [torch.func.jvp(at(part), (params,), (along,))[1].reshape(-1) for part in x.split(chunk)]
        )

    def pull(u: Tensor) -> Tensor:
        total = torch.zeros(sum(p.numel() for p in params.values()), device=x.device)
        for part, weights in zip(x.split(chunk), u.view(len(x), -1).split(chunk), strict=True):
            grads = torch.func.vjp(at(part), params)[1](weights)[0]
            total += torch.cat([g.reshape(-1) for g in grads.values()])
        return total

    return "torch.func.jvp and vjp (curvlinops is not installed)", push, pull


def scipy_svd(shape: tuple[int, int], push: Push, pull: Push, k: int, device: str) -> tuple[np.ndarray, int]:
    """Top-k values by SciPy's svds on the rival's products, and how many products it took."""
    from scipy.sparse.linalg import LinearOperator, svds

    spent = [0]

    def through(f: Push) -> Callable[[np.ndarray], np.ndarray]:
        def call(v: np.ndarray) -> np.ndarray:
            spent[0] += 1
            return (
                f(torch.from_numpy(np.ascontiguousarray(v.ravel(), np.float32)).to(device))
                .detach()
                .cpu()
                .numpy()
            )

        return call

    A = LinearOperator(shape, matvec=through(push), rmatvec=through(pull), dtype=np.float32)
    values = svds(A, k=k, tol=1e-6, return_singular_vectors=False, random_state=0)
    return np.sort(values)[::-1], spent[0]


def report(name: str, ours: float, theirs: float, note: str) -> None:
    print(f"{name:52s} {theirs / ours:6.2f} x  ({ours:.3f} against {theirs:.3f} s{note})")


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    ask.add_argument("--threads", type=int, default=1)
    ask.add_argument("--device", default="cpu")
    ask.add_argument("--samples", type=int, default=50)
    ask.add_argument("--triplets", type=int, default=50)
    ask.add_argument("--rounds", type=int, default=5)
    ask.add_argument("--svd", action="store_true", help="the top-k SVD too (minutes)")
    asked = ask.parse_args()
    torch.set_num_threads(asked.threads)
    device = asked.device
    alone = device == "cpu" and asked.threads == 1
    clock = time.process_time if alone else time.perf_counter
    kind = "processor" if alone else "wall"
    print(f"torch {torch.__version__}, {device}, {asked.threads} thread(s), {kind} time")

    torch.manual_seed(0)
    model = resnet20(10, 3, device=device)
    x = torch.randn(asked.samples, 3, 32, 32, device=device)
    kept, scarce = (jacobian(model, x, route="products", memory=m) for m in (2**33, asked.samples * MiB))
    name, push, pull = rival(model, x, 10 if device == "cpu" else 500)
    print(f"{kept!r}, against {name}")
    v, u = torch.randn(kept.p, device=device), torch.randn(kept.shape[0], device=device)
    for ours, theirs in ((kept.matmat(v), push(v)), (kept.rmatmat(u), pull(u))):
        assert float((ours - theirs.reshape(-1)).norm() / ours.norm()) < 1e-4, "the two sides differ"
    calls: dict[str, Callable[[], Any]] = {}
    for side, J in (("kept", kept), ("not kept", scarce)):
        calls |= {f"J v {side}": lambda J=J: J.matmat(v), f"J^T u {side}": lambda J=J: J.rmatmat(u)}
    calls |= {"J v": lambda: push(v), "J^T u": lambda: pull(u)}
    times = median_seconds(calls, asked.rounds, device, clock)
    for side in ("kept", "not kept"):
        for product in ("J v", "J^T u"):
            report(f"{product}, linearisation {side}", times[f"{product} {side}"], times[product], "")
    pair = times["J v"] + times["J^T u"]
    forming = median_seconds({"": kept.dense}, 1, device, clock)[""]
    ours = times["J v kept"] + times["J^T u kept"]
    print(f"all rows of J cost {forming / ours:.1f} of our pairs of products, {forming / pair:.1f} of theirs")
    if asked.svd:
        compare_svd(model, x, asked.triplets, push, pull, device, clock, kept)


def compare_svd(
    model: nn.Module, x: Tensor, k: int, push: Push, pull: Push, device: str, clock: Any, J: Jacobian
) -> None:
    start = clock()
    values, spent = scipy_svd(J.shape, push, pull, k, device)
    theirs = clock() - start
    size = J.price().stored_bytes
    for word, memory, method in (
        ("J fits", 2 * size, "auto"),
        ("J does not fit", size // 2, "auto"),
        ("J does not fit, Lanczos", size // 2, "lanczos"),
    ):
        start = clock()
        operator = jacobian(model, x, memory=memory)
        found = svd(
            operator, k, memory=max(memory, 2**29), method=method, generator=torch.Generator().manual_seed(0)
        )
        ours = clock() - start
        gap = float(np.abs(found.s.cpu().numpy() - values).max() / values[0])
        note = f"; {operator.route}, {found.method}, {found.products} products against {spent}; gap {gap:.0e}"
        report(f"top {k} triplets, {word}", ours, theirs, note)


if __name__ == "__main__":
    main()
