"""Arguments at the door of ``labkit.theory``: errors that name the culprit, its value and what it takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def array(name: str, value: Any, ndim: int | tuple[int, ...]) -> Array:
    """Return ``value`` as finite float64 NumPy; a tensor is known by its ``detach``, without torch.

    Raises:
        ValueError: the number of dimensions is not one of ``ndim``, or an entry is not finite.
    """
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    try:
        result = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected an array of real numbers, got {type(value).__name__}.") from error
    allowed = (ndim,) if isinstance(ndim, int) else ndim
    if result.ndim not in allowed:
        wanted = " or ".join(f"{size}-D" for size in allowed)
        raise ValueError(f"{name}: expected a {wanted} array, got shape {result.shape}.")
    if not np.isfinite(result).all():
        raise ValueError(
            f"{name}: contains NaN or infinite entries; a prediction from them would be meaningless."
        )
    return result


def integer(name: str, value: Any, minimum: int) -> int:
    """Return ``value`` as an int that is at least ``minimum``; booleans and fractions are refused."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < minimum:
        raise ValueError(f"{name}: expected an integer >= {minimum}, got {value!r}.")
    return int(value)


def positive(name: str, value: Any) -> float:
    """Return ``value`` as a finite float above 0."""
    return _real(name, value, strict=True)


def nonnegative(name: str, value: Any) -> float:
    """Return ``value`` as a finite float of at least 0."""
    return _real(name, value, strict=False)


def _real(name: str, value: Any, *, strict: bool) -> float:
    wanted = "> 0" if strict else ">= 0"
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected a number {wanted}, got {value!r}.") from error
    if isinstance(value, bool) or not np.isfinite(number) or number < 0 or (strict and number == 0):
        raise ValueError(f"{name}: expected a finite number {wanted}, got {value!r}.")
    return number


def steps(value: Any) -> Array:
    """Return step counts as a 1-D float64 array of whole numbers >= 0, in the order given."""
    result = np.atleast_1d(array("steps", value, (0, 1)))
    if (result < 0).any() or (result != np.floor(result)).any():
        raise ValueError(f"steps: expected whole numbers >= 0, got {value!r}.")
    return result


def spectrum(singular_values: Any, coefficients: Any) -> tuple[Array, Array]:
    """Return descending singular values (m,) and coefficients (m,), checked against each other."""
    lam = array("singular_values", singular_values, 1)
    coef = array("coefficients", coefficients, 1)
    if lam.shape != coef.shape:
        raise ValueError(f"coefficients: expected one per singular value {lam.shape}, got {coef.shape}.")
    if (lam < 0).any() or (np.diff(lam) > 0).any():
        raise ValueError(
            "singular_values: expected values >= 0 in descending order; sort them with their coefficients."
        )
    return lam, coef
