"""Many runs of SGD on least squares at once, by their residuals, and the confusion of their gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def worst_pair(residuals: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """eta = -min over i != j of <g_i, g_j> = r_i r_j G_ij, at least 0: (S, ..., n), (S, n, n) -> (S, ...)."""
    apart = gram * (1 - np.eye(gram.shape[-1]))
    apart = apart.reshape(len(gram), *(1,) * (residuals.ndim - 2), *gram.shape[1:])
    return -(residuals[..., :, None] * residuals[..., None, :] * apart).min(axis=(-1, -2))


def mean_pair(residuals: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """Mean of <g_i, g_j> over i != j for unit inputs, without listing pairs: (S, R, n) -> (S, R)."""
    n = gram.shape[-1]
    return (((residuals @ gram) * residuals).sum(-1) - (residuals**2).sum(-1)) / (n * (n - 1))


class Chains:
    """Many runs of SGD at once, by their residuals: r <- r - alpha r_k G_k, k drawn anew for each run."""

    def __init__(
        self, gram: np.ndarray, residuals: np.ndarray, alphas: np.ndarray, seeds: Sequence[list[int]]
    ):
        """gram (S, n, n), residuals (S, R, n), alphas (R,), one generator's seed for each of the S."""
        self.r = np.array(residuals)
        self.rows = gram.reshape(-1, gram.shape[-1])
        self.alphas = np.broadcast_to(alphas, self.r.shape[:2])[..., None]
        self.rngs = [np.random.default_rng(seed) for seed in seeds]

    def advance(self, steps: int, look: Callable[[np.ndarray], None] | None = None) -> None:
        """Takes steps; `look` sees the residuals before each of them."""
        S, R, n = self.r.shape
        picks = np.stack([rng.integers(n, size=(steps, R)) for rng in self.rngs], axis=1)
        places = np.arange(S * R).reshape(S, R) * n + picks
        picks = picks + np.arange(S)[:, None] * n
        flat = self.r.reshape(-1)
        with np.errstate(over="ignore", invalid="ignore"):
            for rows, place in zip(picks, places, strict=True):
                if look is not None:
                    look(self.r)
                self.r -= self.alphas * flat[place][..., None] * self.rows[rows]
