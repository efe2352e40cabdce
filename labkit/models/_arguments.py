"""What every model asks of its arguments, and where its random numbers come from."""

from __future__ import annotations

import math
import numbers
import zlib
from collections.abc import Sequence

import numpy as np
import torch

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def whole(name: str, value: object, least: int = 1) -> int:
    """Returns `value` as an int, or raises a ValueError that names the argument."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{name}: got {value!r}; it takes a whole number of at least {least}")
    return int(value)


def positive(name: str, value: object) -> float:
    """Returns `value` as a float, or raises a ValueError that names the argument."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0.0 < float(value) < math.inf:
        raise ValueError(f"{name}: got {value!r}; it takes a positive finite number")
    return float(value)


def one_of(name: str, value: str, choices: Sequence[str]) -> str:
    """Returns `value`, or raises a ValueError that names the argument and lists the choices."""
    if value not in choices:
        raise ValueError(f"{name}: {value!r} is not one of {', '.join(choices)}")
    return value


def floating(dtype: torch.dtype) -> torch.dtype:
    """Returns `dtype`, or raises a ValueError unless weights can have it."""
    if dtype not in FLOATS:
        raise ValueError(f"dtype: got {dtype}; weights take {', '.join(str(kind) for kind in FLOATS)}")
    return dtype


def stream(kind: str, seed: int, *sizes: int) -> torch.Generator:
    """A CPU generator for one purpose.

    The seed is mixed with the purpose and the sizes. Otherwise a narrow network would be a corner of the wide
    one, and data drawn from the same seed would be the weights themselves: both spoil a comparison over
    widths or seeds.
    """
    words = [whole("seed", seed, least=0), zlib.crc32(kind.encode()), *sizes]
    mixed = np.random.SeedSequence(words).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed) >> 1)


def check_images(x: torch.Tensor, channels: int, size: int | None = None) -> None:
    """Refuses what is not a batch of images, (n, channels, size, size), or of any height and width."""
    wanted = (channels, size, size) if size is not None else (channels, *x.shape[2:])
    if x.ndim != 4 or x.shape[1:] != wanted:
        sides = f"{size}, {size}" if size is not None else "height, width"
        raise ValueError(f"x: shape {tuple(x.shape)}; the network takes images (n, {channels}, {sides})")
