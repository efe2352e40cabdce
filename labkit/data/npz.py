"""Arrays from an .npz file, checked at the door, and the layouts that arrays of images come in.

The file holds x_train, y_train, x_test, y_test (the layout that Keras made common). Nothing in it is
unpickled.

- x: uint8 pixels, or floats (as they are). Shapes (n, d), (n, H, W), (n, H, W, C), (n, C, H, W); C = 1, 3, 4.
  Or token ids (n, T), whole numbers of any other type, which become int64.
- y: whole numbers 0..K-1, shape (n,) or (n, 1), where every class occurs in the training set.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from labkit.data.errors import one_line

KEYS = ("x_train", "y_train", "x_test", "y_test")
CHANNELS = (1, 3, 4)


class Arrays(NamedTuple):
    """Before it becomes tensors: x uint8, float or int64 (tokens), (n, d) or (n, C, H, W); y int64, (n,)."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def read_npz(path: str | os.PathLike[str]) -> Arrays:
    """Read and check an .npz file.

    Raises:
        ValueError: anything that is wrong with the file, naming the file and the array.
    """
    file = Path(path).expanduser()
    found = _read(file)
    try:
        return checked(found)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def read_labels(path: str | os.PathLike[str]) -> np.ndarray:
    """The training labels of an .npz file alone: quick, however large its samples are.

    Raises:
        ValueError: anything that is wrong with them, or an array that is missing.
    """
    file = Path(path).expanduser()
    found = _read(file, ("y_train",))
    try:
        y = _labels("y_train", found["y_train"])
        _check_classes(y, y)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    return y.astype(np.int64)


def checked(found: dict[str, np.ndarray]) -> Arrays:
    """The four arrays in labkit's layout, or a ValueError that names the array at fault."""
    x = {key: _inputs(key, found[key]) for key in ("x_train", "x_test")}
    y = {key: _labels(key, found[key]) for key in ("y_train", "y_test")}
    for part in ("train", "test"):
        inputs, labels = len(x[f"x_{part}"]), len(y[f"y_{part}"])
        if inputs != labels:
            raise ValueError(
                f"x_{part} has {inputs} samples and y_{part} has {labels} labels: one label a sample."
            )
    train, test = x["x_train"], x["x_test"]
    if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
        raise ValueError(
            f"x_train has samples of shape {train.shape[1:]} and dtype {train.dtype}, "
            f"x_test {test.shape[1:]} and {test.dtype}: they must be alike."
        )
    _check_classes(y["y_train"], y["y_test"])
    return Arrays(train, y["y_train"].astype(np.int64), test, y["y_test"].astype(np.int64))


def channels_first(name: str, x: np.ndarray) -> np.ndarray:
    """(n, H, W), (n, H, W, C) or (n, C, H, W) as (n, C, H, W); (n, d) as it is."""
    if x.ndim == 2:
        return x
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[3] in CHANNELS:
        return np.ascontiguousarray(np.moveaxis(x, 3, 1))
    if x.ndim == 4 and x.shape[1] in CHANNELS:
        return x
    raise ValueError(
        f"{name} has shape {x.shape}: "
        "takes (n, d), (n, H, W), (n, H, W, C) or (n, C, H, W) with C = 1, 3 or 4."
    )


def _read(file: Path, keys: tuple[str, ...] = KEYS) -> dict[str, np.ndarray]:
    try:
        stream = file.open("rb")  # opened here: NumPy leaves a file open if it is no zip archive after all
    except FileNotFoundError:
        raise ValueError(f"{file}: there is no such file.") from None
    except OSError as error:
        raise ValueError(f"{file}: cannot be opened ({one_line(error)}).") from error
    with stream:
        try:
            archive = np.load(stream, allow_pickle=False)
        except (
            Exception
        ) as error:  # whatever a broken or foreign file makes the parsers of zip and NumPy raise
            # NumPy speaks of pickles for any file that it does not know.
            unknown = "allow_pickle" in str(error)
            reason = "neither a zip archive nor a NumPy file" if unknown else one_line(error)
            raise ValueError(f"{file}: not an .npz file that can be read ({reason}).") from error
        if not isinstance(archive, np.lib.npyio.NpzFile):
            wanted = ", ".join(KEYS)
            raise ValueError(f"{file}: holds one array; takes an .npz with {wanted} (numpy.savez writes it).")
        missing = [key for key in KEYS if key not in archive.files]
        if missing:
            has = ", ".join(archive.files) or "nothing"
            raise ValueError(f"{file}: lacks {', '.join(missing)}; it holds {has}. Takes {', '.join(KEYS)}.")
        return {key: _member(file, archive, key) for key in keys}


def _member(file: Path, archive: "np.lib.npyio.NpzFile", key: str) -> np.ndarray:
    try:
        array = archive[key]
    except (
        Exception
    ) as error:  # a broken member: bad checksum, cut short, a header that does not parse, a pickle
        if "allow_pickle" in str(error):
            reason = "it holds pickled Python objects, which are never loaded: save a plain numeric array"
        else:
            reason = one_line(error)
        raise ValueError(f"{file}: {key} cannot be read: {reason}.") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{file}: {key} is not a NumPy array.")
    return array


def _inputs(name: str, x: np.ndarray) -> np.ndarray:
    tokens = x.dtype.kind in "iu" and x.dtype != np.uint8
    if not (x.dtype == np.uint8 or x.dtype.kind == "f" or (tokens and x.ndim == 2)):
        raise ValueError(
            f"{name} has dtype {x.dtype} and shape {x.shape}: takes uint8 (pixels, scaled to [0, 1]), floats "
            "(as they are), or token ids as whole numbers (n, T)."
        )
    if x.ndim < 2 or 0 in x.shape:
        raise ValueError(
            f"{name} has shape {x.shape}: takes at least one sample of at least one feature, (n, ...)."
        )
    if tokens:
        return x.astype(np.int64)
    x = channels_first(name, x)
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        bad = int((~np.isfinite(x)).reshape(len(x), -1).any(axis=1).sum())
        raise ValueError(
            f"{name} has NaN or infinite values in {bad} of {len(x)} samples: remove or repair them."
        )
    if x.dtype in (np.uint8, np.float16, np.float32, np.float64):
        return x
    return x.astype(np.float64)  # other byte orders and long doubles, which torch does not take


def _labels(name: str, y: np.ndarray) -> np.ndarray:
    if y.ndim == 2 and y.shape[1] == 1:  # the shape in which Keras gives the labels of CIFAR
        y = y[:, 0]
    if y.ndim != 1:
        hint = " These look like one-hot rows: save y.argmax(axis=1)." if y.ndim == 2 else ""
        raise ValueError(f"{name} has shape {y.shape}: takes (n,) or (n, 1).{hint}")
    if y.dtype.kind not in "iu":
        raise ValueError(f"{name} has dtype {y.dtype}: takes whole numbers 0..K-1 (an integer dtype).")
    return y


def _check_classes(y_train: np.ndarray, y_test: np.ndarray) -> None:
    seen = np.unique(y_train)
    if len(seen) < 2:
        raise ValueError(f"y_train has one class only ({seen[0]}): takes at least two.")
    if seen[0] < 0:
        raise ValueError(f"y_train has negative labels (down to {seen[0]}): takes 0..K-1.")
    if seen[-1] != len(seen) - 1:
        raise ValueError(
            f"y_train has {len(seen)} different labels from {seen[0]} to {seen[-1]}: out of range. "
            f"Takes 0..{len(seen) - 1}, each at least once; "
            "numpy.unique(y, return_inverse=True) renumbers them."
        )
    if y_test.min() < 0 or y_test.max() > seen[-1]:
        raise ValueError(
            f"y_test has labels from {y_test.min()} to {y_test.max()}: out of range 0..{seen[-1]} of y_train."
        )
