"""Speed of the empirical NTK, as ratios.

    python benchmarks/ntk.py [--threads 1] [--device cuda] [--rounds 5]

Both sides take turns in one process, each after a warm-up; a ratio is of medians. On one thread of a CPU the
clock is processor time, which a busy machine disturbs least. The GEMM peak is measured between the rounds.

Targets: dense layers at least 500 times as fast as vmap(jacrev), 6 times as nngeometry, at 60 % of the GEMM
peak (flops of the upper half and of the back-propagations); convolutions at least twice as fast as
vmap(jacrev), 5 times as BackPACK.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from labkit.measure import empirical_ntk
from labkit.models import resnet20

Call = Callable[[], Tensor]


def seconds(call: Call, clock: Callable[[], float], device: str) -> float:
    start = clock()
    call()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - start


def alternate(
    calls: dict[str, Call], rounds: int, clock: Callable[[], float], device: str
) -> dict[str, float]:
    """Median seconds of each, taken in turn."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            spent = seconds(call, clock, device)
            if turn:
                taken[name].append(spent)
    return {name: statistics.median(values) for name, values in taken.items()}


def contraction(model: nn.Module, x: Tensor, chunk: int | None = 10) -> Tensor:
    """What a person writes: vmap(jacrev), then one contraction a parameter (the PyTorch tutorial on NTKs)."""
    params = {name: p.detach() for name, p in model.named_parameters()}

    def outputs(params: dict[str, Tensor], sample: Tensor) -> Tensor:
        return torch.func.functional_call(model, params, (sample[None],))[0]

    rows = torch.func.vmap(torch.func.jacrev(outputs), (None, 0), chunk_size=chunk)(params, x)
    total = x.new_zeros(())
    for J in rows.values():
        total = total + torch.einsum("naf,mbf->namb", J.flatten(2), J.flatten(2))
    return total


def nngeometry_gram(model: nn.Module, x: Tensor) -> Call | None:
    try:
        from nngeometry.gram import GramMatrix
    except ImportError:
        return None
    examples = (x, torch.zeros(len(x), dtype=torch.long, device=x.device))
    return lambda: GramMatrix(model, examples, function=lambda *d: model(d[0])).data


def backpack_gram(model: nn.Module, x: Tensor, K: int) -> Call | None:
    """Per-sample gradients of one output at a time by BackPACK, then the same contraction."""
    try:
        from backpack import backpack, extend
        from backpack.extensions import BatchGrad
    except ImportError:
        return None
    model = extend(model)

    def gram() -> Tensor:
        rows: list[list[Tensor]] = []
        for k in range(K):
            model.zero_grad()
            with backpack(BatchGrad()):
                model(x)[:, k].sum().backward()
            rows.append([p.grad_batch.flatten(1) for p in model.parameters()])
        total = x.new_zeros(())
        for parts in zip(*rows, strict=True):
            J = torch.stack(parts, 1)
            total = total + torch.einsum("naf,mbf->namb", J, J)
        return total

    return gram


def plain_cnn(device: str) -> nn.Sequential:
    """A convolutional network that BackPACK can extend (no skips, no functional calls)."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after, stride in (
        (3, 16, 1),
        (16, 16, 1),
        (16, 32, 2),
        (32, 32, 1),
        (32, 64, 2),
        (64, 64, 1),
    ):
        layers += [nn.Conv2d(before, after, 3, stride, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AvgPool2d(8), nn.Flatten(), nn.Linear(64, 10)).to(device)


def perceptron(device: str) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in ((784, 512), (512, 512), (512, 512), (512, 10)):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).to(device)


def report(name: str, ours: float, theirs: float, target: float) -> None:
    print(f"{name:58s} {theirs / ours:8.1f} x  (target {target:g}; {ours:.3f} against {theirs:.3f} s)")


def agree(first: Tensor, second: Tensor) -> None:
    gap = float((first.reshape(second.shape) - second).norm() / second.norm())
    assert gap < 1e-4, f"the two sides differ by {gap:.2g}"


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    ask.add_argument("--threads", type=int, default=1)
    ask.add_argument("--device", default="cpu")
    ask.add_argument("--rounds", type=int, default=5)
    asked = ask.parse_args()
    device, rounds = asked.device, asked.rounds
    torch.set_num_threads(asked.threads)
    alone = device == "cpu" and asked.threads == 1
    clock = time.process_time if alone else time.perf_counter
    kind = "processor" if alone else "wall"
    print(f"torch {torch.__version__}, {device}, {asked.threads} thread(s), {kind} time")

    model, x = perceptron(device), torch.randn(300, 784, device=device)
    A = torch.randn(2000, 2000, device=device)
    calls: dict[str, Call] = {"ours": lambda: empirical_ntk(model, x), "peak": lambda: A @ A}
    rival = nngeometry_gram(model, x)
    if rival is not None:
        calls["nngeometry"] = rival
    times = alternate(calls, rounds, clock, device)
    flops = 3000 * 3001 * (3 * 512 + 10) + 300 * 301 * (784 + 3 * 512)
    flops += 2 * 300 * (784 * 512 + 11 * (2 * 512**2 + 512 * 10))
    print(f"{'dense NTK, n = 300: share of the GEMM peak':58s} "
          f"{flops / times['ours'] / (2 * 2000**3 / times['peak']):8.0%}    (target 60%)")  # fmt: skip
    if rival is None:
        print("nngeometry is not installed: not compared")
    else:
        agree(rival().permute(1, 0, 3, 2) if rival().shape[0] == 10 else rival(), empirical_ntk(model, x))
        report("dense NTK, n = 300, against nngeometry", times["ours"], times["nngeometry"], 6)
    few = x[:50]
    agree(contraction(model, few), empirical_ntk(model, few))
    times = alternate(
        {"ours": lambda: empirical_ntk(model, few), "theirs": lambda: contraction(model, few)},
        2,
        clock,
        device,
    )
    report("dense NTK, n = 50, against vmap(jacrev)", times["ours"], times["theirs"], 500)

    images = torch.randn(100, 3, 32, 32, device=device)
    residual = resnet20(10, 3, device=device)
    budget = 2**31
    agree(contraction(residual, images[:20]), empirical_ntk(residual, images[:20]))
    times = alternate(
        {
            "ours": lambda: empirical_ntk(residual, images, memory=budget),
            "theirs": lambda: contraction(residual, images),
        },
        max(2, rounds // 2),
        clock,
        device,
    )
    report("ResNet20 NTK, n = 100, against vmap(jacrev)", times["ours"], times["theirs"], 2)
    cnn, few = plain_cnn(device), images[:50]
    gram = backpack_gram(cnn, few, 10)
    if gram is None:
        print("BackPACK is not installed: not compared")
    else:
        agree(gram(), empirical_ntk(cnn, few))
        times = alternate(
            {"ours": lambda: empirical_ntk(cnn, few), "theirs": gram}, max(2, rounds // 2), clock, device
        )
        report("6-layer CNN NTK, n = 50, against BackPACK", times["ours"], times["theirs"], 5)


if __name__ == "__main__":
    main()
