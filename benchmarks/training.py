"""Speed of the training loop, as ratios.

    python benchmarks/training.py [--device cuda] [--steps 300] [--seeds 16]

Both sides take a step in turn, so that a busy machine slows both; the ratio is of the medians. Our loop is
made to give a frame at each step (a tick, or a measured one), which it does not do in use.

Targets: at least 0.95 times the steps a second of a plain PyTorch loop; 16 seeds together at least 1.7 times
as fast as one after another on two CPU cores, 10 times on a GPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch

from labkit.models import mlp, one_hidden
from labkit.training import Ensemble, train

SIZES: dict[str, Any] = {"inputs": 64, "width": 256, "depth": 2, "outputs": 10}
SAMPLES, BATCH, LR, MOMENTUM = 1024, 64, 1e-4, 0.9


def plain(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> Iterator[None]:
    """What a person writes without labkit: the same batches, no frames, no look at the loss."""
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
    generator = torch.Generator().manual_seed(0)
    while True:
        order = torch.randperm(len(x), generator=generator).to(x.device)
        for start in range(0, len(x), BATCH):
            rows = order[start : start + BATCH]
            loss = (model(x[rows]) - y[rows]).square().sum() / 2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield


def ours(
    model: torch.nn.Module | Ensemble, x: torch.Tensor, y: torch.Tensor, **options: Any
) -> Iterator[Any]:
    options = {"batch_size": BATCH, "measure_at": 10**9, "tick_seconds": 1e-9} | options
    return train(model, x, y, lr=LR, momentum=MOMENTUM, steps=10**9, **options)


def compare(name: str, slow: list[Iterator[Any]], fast: list[Iterator[Any]], steps: int, device: str) -> None:
    """Prints how many times as fast the second side takes its step."""
    times: tuple[list[float], list[float]] = [], []
    for step in range(steps + 10):
        for side, taken in zip((slow, fast), times, strict=True):
            start = time.perf_counter()
            for run in side:
                next(run)
            if device == "cuda":
                torch.cuda.synchronize()
            if step >= 10:
                taken.append(time.perf_counter() - start)
    a, b = (statistics.median(taken) for taken in times)
    print(f"{name:56s} {a / b:5.2f}x  ({a * 1e6:.0f} against {b * 1e6:.0f} us)")


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of the training loop, as ratios.")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=16)
    given = parser.parse_args()
    device, steps, seeds = given.device, given.steps, given.seeds
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(SAMPLES, 64, generator=generator).to(device)
    y = torch.randn(SAMPLES, 10, generator=generator).to(device)
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads, {steps} steps")

    a, b, c = (mlp(**SIZES, device=device) for _ in range(3))
    bare = "plain loop, 64-256-256-10, batch 64"
    compare(f"train against a {bare}", [plain(a, x, y)], [ours(b, x, y)], 4 * steps, device)
    compare(
        "the same, measured at every step", [plain(a, x, y)], [ours(c, x, y, measure_at=1)], 4 * steps, device
    )

    models = [mlp(**SIZES, seed=s, device=device) for s in range(seeds)]
    together = Ensemble(models)
    alone = [ours(model, x, y) for model in models]
    compare(f"{seeds} seeds together against one by one", alone, [ours(together, x, y)], steps, device)

    layers = [one_hidden(64, 200, 10, seed=s, device=device) for s in range(seeds)]
    together, data = Ensemble(layers), (x[:200], y[:200])
    alone = [ours(model, *data, batch_size=None) for model in layers]
    batched = [ours(together, *data, batch_size=None)]
    compare(f"{seeds} seeds, one hidden layer of 200, full batch of 200", alone, batched, steps, device)


if __name__ == "__main__":
    main()
