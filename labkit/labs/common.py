"""What the labs share: their data, one set a seed, and how frames become arrays for figures and claims."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit import data
from labkit.experiment import Frame, series
from labkit.settings import Settings


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
    return data.load(
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
