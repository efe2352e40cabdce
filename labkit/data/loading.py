"""One call from a name, or the path of a file, to a dataset ready for an experiment."""

import difflib
import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from labkit.data import noise
from labkit.data._checks import choice, floating, number, whole_number
from labkit.data.bundled import BUNDLED
from labkit.data.cache import cache_folder
from labkit.data.dataset import Dataset
from labkit.data.npz import Arrays, read_labels, read_npz
from labkit.data.vision import CLASSES, TRAINING, read_vision

NAMES = (*BUNDLED, *CLASSES)
"""The data sets that `load` knows by name."""
NORMALIZE = ("none", "standardize", "unit-length", "standardize+unit-length")


def load(
    name_or_path: str | os.PathLike[str] = "mnist-5k",
    *,
    n_train: int | None = None,
    n_test: int | None = None,
    classes: int | list[int] | None = None,
    label_noise: float = 0.0,
    noise_kind: str = "strict",
    normalize: str = "none",
    flatten: bool = False,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    cache: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> Dataset:
    """A dataset by name or from a file: chosen, corrupted, normalised, in this order.

    Images are floats in [0, 1], shape (n, C, H, W); the vectors of a file stay (n, d), and its floats stay as
    they are. Token ids of a file, whole numbers (n, T), stay whole: int64.

    Args:
        name_or_path: "digits" and "mnist-5k" need no network; "mnist", "fashion-mnist", "cifar10" and
            "cifar100" are fetched through torchvision on first use, unless the cache folder holds an .npz of
            that name; or the path of an .npz with x_train, y_train, x_test, y_test.
        n_train: number of training samples, stratified; None keeps all.
        n_test: number of test samples, stratified; None keeps all.
        classes: how many classes (the first ones), or a list of classes, renamed 0, 1, ... in its order.
        label_noise: from 0 to 1, the share of training labels that are corrupted.
        noise_kind: "strict", "redraw" or "flip"; see `labkit.data.noise`.
        normalize: "none", "standardize" (a feature, over the chosen training samples), "unit-length" (a
            sample), or "standardize+unit-length".
        flatten: give (n, C * H * W).
        seed: decides the subset and the noise.
        dtype: floating-point dtype of the samples; token ids stay int64.
        device: where the tensors are.
        cache: folder for downloads; None: the variable LABKIT_CACHE, else the user's cache folder.
        download: False never touches the network.

    Returns:
        Dataset, its labels int64.

    Raises:
        ValueError: an argument that is not what it takes, or a file that is broken.
        DatasetUnavailable: (a ValueError) a known dataset that cannot be had on this machine now.

    Example:
        >>> load("digits", n_train=40, n_test=30, classes=3, flatten=True)
        <Dataset digits: 40 + 30 of 64, 3 classes>
    """
    # All cheap checks stand before a download of minutes.
    number("label_noise", label_noise, 0.0, 1.0)
    choice("noise_kind", noise_kind, noise.KINDS)
    choice("normalize", normalize, NORMALIZE)
    floating("dtype", dtype)
    whole_number("seed", seed)
    for argument, value in (("n_train", n_train), ("n_test", n_test)):
        if value is not None:
            whole_number(argument, value, low=1)

    name, arrays = _read(name_or_path, cache_folder(cache), download)
    # Chosen as bytes, converted after: all of CIFAR-10 is 184 MB as bytes and 737 MB as float32.
    data = _as_dataset(name, arrays).subset(n_train, n_test, classes, seed=seed)
    data = data._mapped(lambda x: _as_floats(x, dtype), "")
    if label_noise:
        data = _noisy(data, label_noise, noise_kind, seed)
    if "standardize" in normalize:
        data = data.standardized()
    if "unit-length" in normalize:
        data = data.unit_length()
    if flatten:
        data = data.flattened()
    return data.to(device)


def _noisy(data: Dataset, share: float, kind: str, seed: int) -> Dataset:
    if kind == "flip" and data.classes != 2:
        raise ValueError(
            f"noise_kind='flip' swaps two classes, and here are {data.classes}. "
            "Use 'strict' or 'redraw', or choose two classes: classes=[0, 1]."
        )
    return data.with_label_noise(share, kind, seed=seed)


def class_counts(name_or_path: str | os.PathLike[str]) -> tuple[int, ...]:
    """How many training samples each class has; nothing is downloaded for it.

    Args:
        name_or_path: as `load` takes it.

    Returns:
        One count a class.

    Raises:
        ValueError: as `load`.

    Example:
        >>> class_counts("mnist-5k")
        (400, 400, 400, 400, 400, 400, 400, 400, 400, 400)
    """
    return _counted(os.fspath(name_or_path), stamp(name_or_path))


@lru_cache(maxsize=32)
def _counted(name: str, stamp: tuple[int, ...]) -> tuple[int, ...]:
    if name in TRAINING:
        return TRAINING[name]
    y = (
        read_labels(name)
        if stamp and name not in BUNDLED
        else _read(name, cache_folder(None), False)[1].y_train
    )
    return tuple(np.bincount(y).tolist())


def stamp(name_or_path: str | os.PathLike[str]) -> tuple[int, ...]:
    """What tells a file from the one that was there before under its name; empty where there is none."""
    try:
        found = os.stat(os.path.expanduser(name_or_path))
    except (OSError, ValueError):
        return ()
    return found.st_mtime_ns, found.st_size


def _read(name_or_path: str | os.PathLike[str], cache: Path, download: bool) -> tuple[str, Arrays]:
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise ValueError(
            f"name_or_path={name_or_path!r}: takes one of {', '.join(NAMES)}, or the path of an .npz file."
        )
    name = os.fspath(name_or_path)
    if name in BUNDLED:
        return name, BUNDLED[name](cache)
    if name in CLASSES:
        own = cache / f"{name}.npz"  # handed over by somebody, in the layout of any other file
        return name, read_npz(own) if own.is_file() else read_vision(name, cache, download)
    path = Path(os.path.expanduser(name))
    if os.path.isfile(path):
        return path.stem, read_npz(path)
    if name and os.path.isdir(path):
        raise ValueError(
            f"name_or_path={name!r}: is a folder; takes the path of an .npz file, or {', '.join(NAMES)}."
        )
    if path.suffix == ".npz" or len(path.parts) > 1:
        raise ValueError(f"name_or_path={name!r}: there is no such file. Known by name: {', '.join(NAMES)}.")
    near = difflib.get_close_matches(name.lower(), NAMES, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"name_or_path={name!r}: unknown dataset.{hint} "
        f"Takes one of {', '.join(NAMES)}, or the path of an .npz file."
    )


def _as_dataset(name: str, arrays: Arrays) -> Dataset:
    x_train, y_train, x_test, y_test = (torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
    return Dataset(name, x_train, y_train, x_test, y_test, classes=int(y_train.max()) + 1)


def _as_floats(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if x.dtype == torch.int64:  # token ids
        return x
    return x.to(dtype) / 255 if x.dtype == torch.uint8 else x.to(dtype)
