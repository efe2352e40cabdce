"""Have the chains forgotten where they began?

A share of time means what e^(−U/T) says only if the chains went back and forth often enough. Three numbers,
each of another kind of failure: chains that disagree with one another (`split_r_hat`), chains that still know
in which well they began (`start_difference`), and too few independent samples (`effective_samples`).

A series is an array (C, N): N samples of one quantity in each of C chains, the way there left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """A difference of means with its standard error."""

    value: float
    stderr: float

    @property
    def in_stderr(self) -> float:
        """Its size in standard errors: 0 for no difference, inf for one without any spread."""
        if self.value == 0:
            return 0.0
        return abs(self.value) / self.stderr if self.stderr > 0 else float("inf")


def split_r_hat(series: Any) -> float:
    """Spread between chains against the spread within: 1 when mixed, large when chains stay apart.

    Each chain is cut in two, so that a chain that drifts disagrees with itself. With W the mean variance
    within and B/N the variance of the means, R̂ = √((N − 1)/N + B/(N W)). With samples correlated over τ of
    them it is about √(1 + 2τ/N), however many chains there are. (Gelman and Rubin 1992; split: Gelman et al.
    2013)

    Args:
        series: (C, N), N at least 4; the middle sample of an odd number is left out.

    Returns:
        R̂; inf where nothing moves within any chain but the chains differ, and 1 where all is constant.

    Raises:
        ValueError: the series has another shape, or values that are not finite.

    Cost: a few passes over the C N samples, and two float64 copies of them.
    """
    x = _series(series, least=4)
    half = x.shape[1] // 2
    halves = np.concatenate([x[:, :half], x[:, -half:]])
    within, means = halves.var(axis=1, ddof=1).mean(), halves.mean(axis=1)
    between = means.var(ddof=1)
    if within == 0:
        return 1.0 if between == 0 else float("inf")
    return float(np.sqrt((half - 1) / half + between / within))


def start_difference(series: Any, started_in: Any) -> Difference:
    """Mean over the chains of one start minus that over the chains of the other.

    Chains are independent, so the standard error comes from the spread of their means and holds however
    correlated the samples of a chain are.

    Args:
        series: (C, N).
        started_in: (C,) booleans; at least two chains of either kind.

    Returns:
        Difference, in units of the series.

    Raises:
        ValueError: the shapes do not fit, values are not finite, or a start has fewer than two chains.

    Cost: one pass over the C N samples, and a float64 copy of them.
    """
    x, groups = _series(series, least=1), np.asarray(started_in)
    if groups.shape != x.shape[:1] or groups.dtype != bool:
        raise ValueError(
            f"started_in: got {groups.dtype} of shape {groups.shape}; it takes one boolean a chain, "
            f"{x.shape[:1]}"
        )
    first, second = x[groups].mean(axis=1), x[~groups].mean(axis=1)
    if min(first.size, second.size) < 2:
        raise ValueError(
            f"started_in: {first.size} and {second.size} chains; a standard error takes two of either start"
        )
    variance = first.var(ddof=1) / first.size + second.var(ddof=1) / second.size
    return Difference(float(first.mean() - second.mean()), float(np.sqrt(variance)))


def effective_samples(series: Any) -> float:
    """How many independent samples the mean of all is worth: var of one sample / var of the mean.

    C N / (1 + 2 Σ ρ_t), with the autocorrelations ρ_t of all chains together: 1 − (W − c_t)/V with c_t their
    mean autocovariance and V = (N − 1)/N W + B/N, so that chains that stay apart count as correlated. The sum
    ends where the sum of two neighbours turns negative, and never rises (Geyer 1992; Vehtari et al. 2021).

    Args:
        series: (C, N), at least 4 samples.

    Returns:
        At most C N log10(C N); C N where nothing varies.

    Raises:
        ValueError: the series has another shape, or values that are not finite.

    Cost: one Fourier transform of 2 N numbers a chain, N log N; about 5 C N float64 numbers.
    """
    x = _series(series, least=4)
    chains, length = x.shape
    centred = x - x.mean(axis=1, keepdims=True)
    power = np.abs(np.fft.rfft(centred, 2 * length, axis=1)) ** 2
    covariance = np.fft.irfft(power.mean(axis=0), 2 * length)[:length] / length
    within = covariance[0] * length / (length - 1)
    between = x.mean(axis=1).var(ddof=1) if chains > 1 else 0.0
    total = covariance[0] + between
    if total <= np.finfo(float).tiny:
        return float(x.size)
    rho = 1 - (within - covariance) / total
    rho[0] = 1.0
    pairs = rho[: length - length % 2].reshape(-1, 2).sum(axis=1)
    negative = np.flatnonzero(pairs < 0)
    kept = np.minimum.accumulate(pairs[: negative[0]] if negative.size else pairs)
    # Chains that swing past their mean and back may be worth more than their number, but not without end.
    time = max(2 * kept.sum() - 1, 1 / max(np.log10(x.size), 1.0))
    return float(x.size / time)


def _series(series: Any, least: int) -> Array:
    x = np.asarray(series, dtype=np.float64)
    if x.ndim != 2 or x.shape[0] < 1 or x.shape[1] < least:
        raise ValueError(f"series: got shape {x.shape}; it takes (chains, samples), {least} samples or more")
    if not np.isfinite(x).all():
        raise ValueError("series: contains values that are not finite; chains that ran away cannot be mixed")
    return x
