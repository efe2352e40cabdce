"""Speed of the top-k SVD of dense tensors and of operators made of their products, as ratios to SciPy's svds.

    python benchmarks/svd.py [--threads 1] [--rounds 5]

Both sides take turns in one process, each after a warm-up; a ratio is of medians, of processor time on one
thread and of wall time otherwise. SciPy's svds runs ARPACK to the same tolerance, and promises nothing about
missed copies.

Target: at least half of SciPy's speed on every row.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from jacobian import median_seconds, report
from scipy.sparse.linalg import svds

from labkit.krylov import operator_from, svd

SIZES = ((200, 300, 5), (500, 700, 10), (1000, 1000, 20), (1000, 3000, 5), (2000, 2000, 20))


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    ask.add_argument("--threads", type=int, default=1)
    ask.add_argument("--rounds", type=int, default=5)
    asked = ask.parse_args()
    torch.set_num_threads(asked.threads)
    clock = time.process_time if asked.threads == 1 else time.perf_counter
    print(f"torch {torch.__version__}, {asked.threads} thread(s)")
    for n, p, k in SIZES:
        for word, decay in (("1/i", 1.0), ("none", 0.0)):
            rng = np.random.default_rng(0)
            A = torch.from_numpy(rng.standard_normal((n, p))) / torch.arange(1, n + 1)[:, None] ** decay
            compare(f"{n} x {p}, k = {k}, decay {word}", A, k, asked.rounds, clock)


def compare(name: str, A: torch.Tensor, k: int, rounds: int, clock: object) -> None:
    products = operator_from(lambda V: A @ V, lambda U: A.T @ U, (A.shape[0], A.shape[1]), dtype=A.dtype)
    calls = {
        "tensor": lambda: svd(A, k),
        "products": lambda: svd(products, k),
        "svds": lambda: svds(A.numpy(), k=k, tol=1e-6, random_state=0),
    }
    times = median_seconds(calls, rounds, "cpu", clock)
    for side, operator in (("tensor", A), ("products", products)):
        found = svd(operator, k)
        note = f"; {found.method}, {found.products} products{'' if found.complete else ', not complete'}"
        report(f"{name}, {side}", times[side], times["svds"], note)


if __name__ == "__main__":
    main()
