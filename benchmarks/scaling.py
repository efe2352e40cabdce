"""Time and memory against the sizes of a problem, each point in a process of its own.

A series ends where a call takes longer than `SECONDS`, or more memory than there is.
"""

from __future__ import annotations

import multiprocessing as mp
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import peers
from benchmarks.networks import parameters, perceptron
from labkit.krylov import svd
from labkit.measure import empirical_ntk, gradient_gram, jacobian

SECONDS = 10
Sides = Mapping[str, Callable[[], Any] | None]


def kernel(n: int = 100, width: int = 256, depth: int = 3, K: int = 10) -> Sides:
    """The tangent kernel of n inputs of a perceptron."""
    model, x = perceptron(784, *[width] * depth, K), torch.randn(n, 784)
    others = peers.ntks(model, x, K, ("nngeometry", "torch.func", "BackPACK"))
    return {"labkit": lambda: empirical_ntk(model, x, memory=2**32), **others}


def triplets(k: int) -> Sides:
    """The k largest singular triplets of its Jacobian."""
    model, x = perceptron(784, 256, 256, 256, 10), torch.randn(200, 784)
    products = peers.curvlinops_products(model, x, 200)
    return {
        "labkit": lambda: svd(jacobian(model, x), k),
        "SciPy on curvlinops": peers.scipy_svd((2000, parameters(model)), products, k),
        "hessian-eigenthings": peers.eigenthings_svd(peers.gauss_newton(model, x, 200), k, 2 * k + 30),
    }


def gradients(n: int) -> Sides:
    """The inner products of n samples' gradients."""
    model, x, y = perceptron(784, 256, 256, 256, 10), torch.randn(n, 784), torch.arange(n) % 10
    return {"labkit": lambda: gradient_gram(model, x, y), **peers.gradients(model, x, y, gram=True)}


# Title, letter, sizes, and the sides at a size.
AXES: tuple[tuple[str, str, Sequence[int], Callable[[int], Sides]], ...] = (
    ("tangent kernel", "n", (25, 50, 100, 200, 400, 800, 1600, 3200), lambda n: kernel(n=n)),
    ("tangent kernel", "width", (64, 128, 256, 512, 1024, 2048, 4096), lambda w: kernel(width=w)),
    ("tangent kernel", "depth", (1, 2, 4, 8, 16, 32, 64), lambda d: kernel(depth=d)),
    ("tangent kernel", "K", (1, 3, 10, 30, 100, 300), lambda K: kernel(K=K)),
    ("top-k SVD", "k", (5, 10, 20, 50, 100, 200), triplets),
    ("gradients' Gram", "n", (100, 300, 1000, 3000, 10_000), gradients),
)


# Title, letter, and of each library its points: (size, seconds, bytes).
Measured = list[tuple[str, str, dict[str, list[tuple[int, float, int]]]]]


def draw(folder: Path) -> None:
    """Measures all points and writes scaling.svg."""
    torch.set_num_threads(1)
    found: Measured = []
    for title, letter, sizes, make in AXES:
        found.append((title, letter, {}))
        for name in make(sizes[0]):
            found[-1][2][name] = points = series(make, name, sizes)
            print(f"{title}, {letter}, {name}: {points}", flush=True)
    paint(found, folder / "scaling.svg")


def paint(found: Measured, path: Path) -> None:
    """A column for each axis, time above memory; a library has one colour in all of them."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams |= {"svg.hashsalt": "labkit", "svg.fonttype": "none", "font.size": 8}
    figure = Figure(figsize=(2.2 * len(found), 4.4), layout="constrained")
    panels = figure.subplots(2, len(found), sharex="col")
    names = dict.fromkeys(name for _, _, sides in found for name in sides if name != "labkit")
    styles = {name: {"lw": 1.0, "color": f"C{i}"} for i, name in enumerate(names)}
    styles["labkit"] = {"lw": 2.5, "color": "black"}
    lines: dict[str, Any] = {}
    for (title, letter, sides), column in zip(found, panels.T, strict=True):
        for name, points in sides.items():
            x, seconds, size = zip(*points, strict=True) if points else ((), (), ())
            (lines[name],) = column[0].loglog(x, seconds, ".-", **styles[name])
            column[1].loglog(x, [max(value / 2**20, 1) for value in size], ".-", **styles[name])
        column[0].set(title=title)
        column[1].set(xlabel=letter)
        for panel in column:
            low, high = np.log10(panel.get_ylim())
            panel.set_ylim(10 ** np.floor(low), 10 ** np.ceil(high))
    panels[0, 0].set_ylabel("seconds")
    panels[1, 0].set_ylabel("MiB")
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=len(lines), frameon=False)
    figure.savefig(path, metadata={"Date": None})


def series(make: Callable[[int], Sides], name: str, sizes: Sequence[int]) -> list[tuple[int, float, int]]:
    """(size, seconds, bytes) as far as a side gets."""
    found = []
    for size in sizes:
        here, there = mp.get_context("fork").Pipe()
        child = mp.get_context("fork").Process(target=_point, args=(make, name, size, there))
        child.start()
        there.close()
        try:
            told = here.recv() and here.recv()
        except EOFError:  # killed, or out of memory
            told = None
        child.kill()
        child.join()
        if not told:
            break
        found.append((size, *told))
    return found


def _point(make: Callable[[int], Sides], name: str, size: int, pipe: Connection) -> None:
    """Says that it is ready, and then what the call took."""
    free = _kilobytes("/proc/meminfo", "MemAvailable")
    resource.setrlimit(resource.RLIMIT_DATA, (int(0.9 * free), resource.RLIM_INFINITY))
    try:
        call = make(size)[name]
        pipe.send(call is not None)
        if call is None:
            return
        allowed = int(time.process_time() + SECONDS) + 1  # of the processor, whoever else wants it
        resource.setrlimit(resource.RLIMIT_CPU, (allowed, allowed))
        before = _kilobytes("/proc/self/status", "VmRSS")
        Path("/proc/self/clear_refs").write_text("5", "utf-8")  # forgets the peak so far
        start = time.process_time()
        call()
        seconds, most = time.process_time() - start, _kilobytes("/proc/self/status", "VmHWM")
        if seconds < 1:  # the first call warmed up
            start = time.process_time()
            call()
            seconds = time.process_time() - start
        pipe.send((seconds, most - before))
    except (RuntimeError, MemoryError):
        pipe.close()


def _kilobytes(path: str, name: str) -> int:
    """A number of Linux's files about memory, in bytes."""
    lines = Path(path).read_text("utf-8").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])
