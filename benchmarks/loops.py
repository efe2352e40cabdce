"""Rows of training, of Langevin dynamics, and of the live panel."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.networks import forward_flops
from benchmarks.turns import Case, Row
from labkit.figures import Chart, Measured, Predicted, caption
from labkit.figures import Panel as Axes
from labkit.live import Canvas, Panel
from labkit.live.session import DEBOUNCE
from labkit.models import mlp, one_hidden
from labkit.protocol.experiment import Experiment, Frame, drain, series
from labkit.protocol.settings import Settings, knob
from labkit.training import Ensemble, descend, train
from labkit.training.batches import _order

BATCH, LR, MOMENTUM, STEPS, SEEDS = 64, 1e-4, 0.9, 40, 16


def plain(model: nn.Module, x: Tensor, y: Tensor) -> Iterator[None]:
    """What a person writes without labkit: the same batches, no frames, no look at the loss."""
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
    generator = _order(0)
    while True:
        order = torch.randperm(len(x), generator=generator)
        for start in range(0, len(x), BATCH):
            rows = order[start : start + BATCH]
            loss = (model(x[rows]) - y[rows]).square().sum() / 2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield


def ours(model: nn.Module, x: Tensor, y: Tensor, **options: Any) -> Iterator[Any]:
    """Our loop, made to give a frame at each step, which it does not do in use."""
    options = {"batch_size": BATCH, "measure_at": 10**9, "tick_seconds": 1e-9} | options
    run = train(model, x, y, lr=LR, momentum=MOMENTUM, steps=10**9, **options)
    next(run)  # a frame is shown before the step from it
    return run


def some_steps(models: list[nn.Module], runs: list[Iterator[Any]]) -> Callable[[], Tensor]:
    """Takes steps of these runs, and gives all weights, a row a copy."""

    def go() -> Tensor:
        for _ in range(STEPS):
            for run in runs:
                next(run)
        rows = [torch.cat([p.detach().reshape(-1) for p in model.parameters()]) for model in models]
        return torch.stack(rows)

    return go


def one_network() -> Case:
    x, y = torch.randn(1024, 64), torch.randn(1024, 10)
    a, b, c = (mlp(inputs=64, width=256, depth=2, outputs=10) for _ in range(3))
    ways = {
        "unmeasured": some_steps([b], [ours(b, x, y)]),
        "measured at every step": some_steps([c], [ours(c, x, y, measure_at=1)]),
    }
    flops = STEPS * 3 * forward_flops(a, x[:BATCH])
    return Case(ways, {"a plain loop": some_steps([a], [plain(a, x, y)])}, flops=flops, rounds=20)


def many_seeds(make: Callable[[int], nn.Module], samples: int, batch: int | None) -> Case:
    x, y = torch.randn(samples, 64), torch.randn(samples, 10)
    models, others = ([make(seed) for seed in range(SEEDS)] for _ in range(2))
    together = Ensemble(models)
    run = ours(together, x, y, batch_size=batch)
    alone = some_steps(others, [ours(m, x, y, batch_size=batch, seed=s) for s, m in enumerate(others)])

    def side_by_side() -> Tensor:
        for _ in range(STEPS):
            next(run)
        return torch.cat([value.flatten(1) for value in together.weights().values()], dim=1)

    flops = STEPS * SEEDS * 3 * forward_flops(models[0], x[: batch or samples])
    return Case({"": side_by_side}, {"one by one": alone}, flops=flops, rounds=1)


def langevin() -> Case:
    """Chains in a double well, from one bottom."""
    chains, steps, lr, T = 1000, 1000, 0.01, 0.25
    start = torch.full((chains, 2), -1.0)

    def slope(w: Tensor, step: int = 0) -> Tensor:
        return w * (w * w - 1)

    def ours() -> Tensor:
        run = descend(
            slope, start, lr=lr, steps=steps, temperature=T, generator=torch.Generator().manual_seed(0),
            record=steps,
        )  # fmt: skip
        return [state for _, state in run][-1].square().mean()

    def theirs() -> Tensor:
        generator, w = torch.Generator().manual_seed(1), start
        for _ in range(steps):
            w = w - lr * slope(w) + (2 * lr * T) ** 0.5 * torch.randn(w.shape, generator=generator)
        return w.square().mean()

    floor = ("drawing the normal numbers", lambda: torch.randn(steps, *start.shape))
    many = (chains * steps, "steps of a chain")
    return Case({"": ours}, {"a plain loop": theirs}, tolerance=0.1, floor=floor, many=many)


@dataclass(frozen=True)
class Bench(Settings):
    """Of an experiment that does as much arithmetic a step as a small network: about a millisecond."""

    rate: float = knob(1.0, "decay rate", slider=(0.1, 5.0), step=0.1)
    steps: int = knob(3000, "steps", bounds=(1, None))


NAMES = ("information space", "nuisance space", "test error")


def decay(setup: Bench, steps: Any) -> dict[str, Any]:
    """Three curves."""
    return {n: np.exp(-setup.rate * steps / setup.steps / (i + 1)) for i, n in enumerate(NAMES)}


def predict(setup: Bench) -> dict[str, np.ndarray]:
    steps = np.linspace(0, setup.steps, 200)
    return {"steps": steps, **decay(setup, steps)}


def run(setup: Bench, prediction: object = None) -> Iterator[Frame]:
    draw = np.random.default_rng(setup.seed)
    weights = draw.standard_normal((256, 256)) / 16
    data = draw.standard_normal((256, 192))
    for step in range(setup.steps + 1):
        data = np.tanh(weights @ data) + 1e-3
        if step % 10 == 0:
            noise = 1 + 0.05 * draw.standard_normal((len(NAMES), setup.seeds))
            values = {name: value * noise[i] for i, (name, value) in enumerate(decay(setup, step).items())}
            yield Frame(step, values, step / setup.steps, "done" if step == setup.steps else "running")


def figure(frames: Any, prediction: Any, settings: Any = None) -> Chart:
    panels = []
    for scale in ("log", "linear"):
        marks: list[Any] = []
        for color, name in enumerate(NAMES):
            if prediction:
                marks.append(Predicted(prediction["steps"], prediction[name], name, color))
            steps, values = series(frames, name)
            marks.append(Measured(steps, values.T if len(values) else np.zeros((0, 0)), name, color))
        panels.append(Axes("Residual energy", marks, "step", "share", yscale=scale))
    return Chart(panels, caption("The residual energy, and its prediction.", settings))


BENCH = Experiment(
    "bench", "Bench", Bench, {"quick": Bench()}, lambda s: s, predict, run, figure, (), ("rate",)
)


def live() -> Case:
    """A run on a panel beside the bare run, last frame to last frame."""
    settings = Bench()
    panel = Panel(BENCH, settings)
    panel.wait()

    def shown() -> np.ndarray:
        panel.train_button.click()
        panel.wait()
        return panel.run.frames[-1].values[NAMES[0]]

    def bare() -> np.ndarray:
        return list(run(settings))[-1].values[NAMES[0]]

    return Case({"": shown}, {"the bare run": bare}, rounds=3)


def first_frame() -> Case:
    """From a slider's release, while a run is on its way, to the first frame of the new run."""
    panel, seen, rates = Panel(BENCH), threading.Event(), iter(range(1, 10**6))
    panel.wait()
    panel.image.observe(lambda change: seen.set() if panel.run.frames else None, "value")

    def moved() -> None:
        seen.clear()
        panel.controls.widgets["rate"].value = 1.0 + 0.1 * (next(rates) % 30)
        seen.wait(10)

    return Case({"": moved}, wall=True, rounds=8)


def a_frame() -> Case:
    """One more frame of a picture that is there already."""
    settings = Bench()
    done, canvas = drain(BENCH, settings), Canvas()
    charts = [figure(done.frames[:i], done.prediction, settings) for i in range(20, 300, 3)]
    canvas.frame(charts[0])
    ahead = iter(charts * 100)
    return Case({"": lambda: canvas.frame(next(ahead))}, rounds=60)


DENSE, TWO = "64-256-256-10, batches of 64", "two threads"
ROWS = (
    Row("train", f"{STEPS} steps of training, {DENSE}", one_network,
        {"unmeasured: a plain loop": 1.0, "measured at every step: a plain loop": 0.98},
        why="a measured step copies its loss and all weights, to go back to where a run diverges"),
    Row("seeds", f"{SEEDS} networks together, {DENSE}, {TWO}",
        lambda: many_seeds(lambda s: mlp(inputs=64, width=256, depth=2, outputs=10, seed=s), 1024, BATCH),
        {"one by one": 2.5}, threads=2,
        why="1.7 to 3.2 on different machines: the products are two thirds to three quarters of the time"),
    Row("seeds-full", f"{SEEDS} networks together, one hidden layer of 200, full batch of 200, {TWO}",
        lambda: many_seeds(lambda s: one_hidden(64, 200, 10, seed=s), 200, None),
        {"one by one": 2.5}, threads=2,
        why="the products at their peak are half of the time: one network's activations stay in cache, "
        "those of sixteen (2.5 MB) do not"),
    Row("langevin", "descend, 1000 chains in two dimensions, 1000 steps", langevin, {"a plain loop": 1.0}),
    Row("live", "a run of 3,000 steps and 300 frames on a panel", live, {"the bare run": 0.95},
        why="pictures on the way take 3 % of a run at most; the first, and the last at twice the dots, "
        "a quarter of a second"),
    Row("first-frame", "slider released → first frame of the new run", first_frame, {"seconds": 0.15},
        why=f"a slider counts as let go after {DEBOUNCE:g} s of quiet, and two frames are drawn"),
    Row("frame", "a frame of training on the panel's canvas", a_frame, {"seconds": 0.05}),
)  # fmt: skip
