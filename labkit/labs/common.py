"""What the labs share: their data, one set a seed, and how frames become arrays for figures and claims."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labkit import data
from labkit.protocol.experiment import Frame, series
from labkit.protocol.settings import Settings


def load(dataset: str, **how: Any) -> data.Dataset:
    """`data.load` for experiments, whose networks take features.

    Raises:
        ValueError: the file holds token ids.
    """
    loaded = data.load(dataset, **how)
    if loaded.tokens:
        raise ValueError(
            f"dataset: {loaded.name} holds whole numbers (token ids), and these networks take floats or "
            "uint8 pixels"
        )
    return loaded


def classification(
    dataset: str, *, n: int, classes: int, n_test: int, label_noise: float, normalize: str, seed: int,
    noise_kind: str = "strict", dtype: torch.dtype = torch.float32, device: str = "cpu", flatten: bool = True,
) -> data.Dataset:  # fmt: skip
    """A noisy training set and at most `n_test` clean test samples, as vectors or as images."""
    loaded = _clean(dataset, n, classes, normalize, seed, dtype, device, flatten)
    chosen = loaded.subset(n_test=min(n_test, loaded.n_test), seed=seed)
    return chosen.with_label_noise(label_noise, noise_kind, seed=seed) if label_noise else chosen


@lru_cache(maxsize=32)
def _clean(
    dataset: str,
    n: int,
    classes: int,
    normalize: str,
    seed: int,
    dtype: torch.dtype,
    device: str,
    flatten: bool,
) -> data.Dataset:
    # Kept, because a prediction that follows a slider cannot read a file each time. A Dataset is immutable.
    return load(
        dataset,
        n_train=n,
        classes=classes,
        normalize=normalize,
        flatten=flatten,
        seed=seed,
        dtype=dtype,
        device=device,
    )


def datasets(
    settings: Any, *, n_test: int, normalize: str, label_noise: float = 0.0, noise_kind: str = "strict",
    dtype: torch.dtype = torch.float32, flatten: bool = True,
) -> tuple[data.Dataset, ...]:  # fmt: skip
    """One data set a seed, from the settings that all experiments on images share."""
    return tuple(
        classification(
            settings.dataset, n=settings.n, classes=settings.classes, n_test=n_test, label_noise=label_noise,
            noise_kind=noise_kind, normalize=normalize, seed=seed, dtype=dtype, device=settings.device,
            flatten=flatten,
        )
        for seed in seeds(settings)
    )  # fmt: skip


def seeds(settings: Settings) -> range:
    """The seeds of a run."""
    return range(settings.seed, settings.seed + settings.seeds)


def error_rate(outputs: Tensor, labels: Tensor) -> np.ndarray:
    """Share of wrong classes: outputs (S, n, K), labels (S, n) -> (S,)."""
    return (outputs.argmax(-1) != labels).double().mean(-1).cpu().numpy()


def curve(frames: Sequence[Frame], name: str) -> tuple[np.ndarray, np.ndarray]:
    """One value over a run, as figures take it: steps (T,) and values (S, T)."""
    steps, values = series(frames, name)
    return steps, values.T


def newest(frames: Sequence[Frame], name: str) -> np.ndarray | None:
    """The newest value of `name`, or None while no frame carries it."""
    return next((frame.values[name] for frame in reversed(frames) if name in frame.values), None)


def stack(values: Sequence[Tensor | float]) -> np.ndarray:
    """One value a seed -> an array with a leading seed axis."""
    return np.stack([v.detach().cpu().numpy() if isinstance(v, Tensor) else np.asarray(v) for v in values])


def measured_steps(steps: int, count: int = 120) -> list[int]:
    """About `count` steps from 0 to `steps`: every one at first, then sparser, as residuals fall by rates."""
    return sorted({0, steps, *np.unique(np.geomspace(1, max(steps, 1), count).round().astype(int)).tolist()})


def to_loss(
    frames: Iterator[Frame], goal: float, span: tuple[float, float], step: int
) -> Generator[Frame, None, Frame]:
    """Passes a training on as bare ticks, with progress by its loss toward `goal`; returns its last frame.

    Args:
        span: progress of the whole run at the start and at the end of this training.
        step: the step that the ticks carry.
    """
    ended: Frame | None = None
    first = share = 0.0
    for ended in frames:
        if "loss" in ended.values and np.all(ended.values["loss"] > 0):
            # The loss falls about as a power of the steps, so its logarithm says how far the way has gone.
            now = float(np.log(ended.values["loss"]).mean())
            first = first or now
            share = min(max((first - now) / max(first - math.log(goal), 1e-9), share), 1.0)
        if ended.status == "running":
            yield Frame.tick(step, span[0] + (span[1] - span[0]) * share)
    assert ended is not None
    return ended


def outputs(model: nn.Module, x: Tensor) -> Tensor:
    """(n, K) float64, without a graph, in the mode in which the model is."""
    with torch.no_grad():
        return torch.cat([model(part) for part in x.split(1000)]).double()


def fitted(model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Cross-entropy and share of wrong classes over a set, in the mode in which the model is."""
    found = outputs(model, x)
    return float(nn.functional.cross_entropy(found, y)), float((found.argmax(1) != y).double().mean())


def snapshot(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A copy for a frame, which later measurements do not change."""
    return {name: value.copy() for name, value in values.items()}


def worst(values: np.ndarray) -> float:
    """The largest value, infinite where one is missing."""
    return math.inf if np.isnan(values).any() else float(np.max(values))
