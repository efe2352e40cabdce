"""The sets that torchvision downloads. torchvision is imported here only, and only when one is asked for."""

import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from labkit.data.errors import ALTERNATIVES, DatasetUnavailable, one_line
from labkit.data.npz import Arrays, channels_first

CLASSES = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}

# Training samples of each class, which need no download to be known.
TRAINING = {
    "mnist": (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
    "fashion-mnist": (6000,) * 10,
    "cifar10": (5000,) * 10,
    "cifar100": (500,) * 100,
}


def read_vision(name: str, cache: Path, download: bool = True) -> Arrays:
    """One of torchvision's sets as uint8, (n, C, H, W), from the folder `cache`/torchvision.

    Args:
        name: "mnist", "fashion-mnist", "cifar10" or "cifar100".
        cache: folder for kept data.
        download: fetch what is not in the folder; False never touches the network.

    Raises:
        DatasetUnavailable: torchvision cannot be imported, or the data are neither in the folder nor to be
            had.
    """
    make = getattr(_torchvision_datasets(name), CLASSES[name])
    root = cache / "torchvision"
    parts: dict[str, np.ndarray] = {}
    for part, train in (("train", True), ("test", False)):
        found = _part(name, make, root, train, download)
        parts[f"x_{part}"] = channels_first("x", np.asarray(found.data))
        parts[f"y_{part}"] = np.asarray(found.targets).astype(np.int64)
    return Arrays(**parts)


def _part(name: str, make: Any, root: Path, train: bool, download: bool) -> Any:
    """The training or the test part: from the folder if it is there, else by download if that is allowed."""
    try:
        return make(root=str(root), train=train, download=False)
    except Exception as error:  # absent, or kept but broken: torchvision raises several types for either
        absent = error
    if not download:
        raise DatasetUnavailable(
            f"name='{name}': not in the folder {root}, and download=False forbids to fetch it "
            f"({one_line(absent)}). Call once with download=True, or name another folder with cache=. "
            f"{ALTERNATIVES}"
        ) from absent
    try:
        return make(root=str(root), train=train, download=True)
    except Exception as error:  # no network, a folder that cannot be written, a broken file
        raise DatasetUnavailable(
            f"name='{name}': could not be downloaded to the folder {root} ({one_line(error)}). "
            "Check the network and that the folder can be written (another one: cache= or the variable "
            f"LABKIT_CACHE); if a file there is broken, delete it. {ALTERNATIVES}"
        ) from error


def _torchvision_datasets(name: str) -> Any:
    try:
        from torchvision import datasets
    except Exception as error:  # ImportError if absent; RuntimeError or OSError if built for another torch
        versions = f"torch {torch.__version__}, torchvision {_version('torchvision')}"
        raise DatasetUnavailable(
            f"name='{name}': is read by torchvision, which cannot be imported here "
            f"({one_line(error)}; {versions}). "
            "The two packages must be built for each other: install both in one command and from one source "
            f"(pip install --upgrade torch torchvision). {ALTERNATIVES}"
        ) from error
    return datasets


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
