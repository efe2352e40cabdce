"""Error under noise on the inputs (paper 3, section 9.5, eq. 47)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from labkit.measure.functional import Network
from labkit.measure.perturbed import MiB, generator_of
from labkit.measure.private import undisturbed

__all__ = ["error_under_noise"]


def error_under_noise(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    gammas: Sequence[float] | Tensor,
    *,
    draws: int = 10,
    generator: torch.Generator | int = 0,
    memory: int = 64 * MiB,
) -> Tensor:
    """E(gamma) = share of samples with f(x_i + gamma e_i) != y_i, e_i standard normal (47).

    Each draw uses one noise for all gammas, so the curve is smooth in gamma long before it is exact.

    Args:
        model: in evaluation mode; left as it is.
        x: (n, ...) the samples that it was fitted to. y: (n,) the labels it was fitted to, int64.
        gammas: (G,) sizes of the noise, at least 0, in the units of x: standard deviations of a pixel where
            the inputs are standardised, grey levels where they are not. At 0 it is the training error.
        draws: noises that each error is averaged over.
        generator: a generator, which moves on, or a seed.
        memory: bytes that a chunk of noisy inputs may take; it does not change the noise.

    Returns:
        (G,) float64, on the CPU.

    Raises:
        ValueError: an argument is out of its range, or model, x and y do not fit.

    Cost: draws * G forward passes over x; the noise of one draw, as many numbers as x, beside `memory`.

    Reference: paper 3, section 9.5, (47).
    """
    caller = "error_under_noise"
    sizes = torch.as_tensor(gammas, dtype=torch.float64).flatten().cpu()
    if not len(sizes) or not bool(((sizes >= 0) & sizes.isfinite()).all()):
        raise ValueError(f"{caller}: gammas is {sizes.tolist()}, needs numbers of at least 0")
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
        raise ValueError(f"{caller}: draws is {draws!r}, needs a whole number of at least 1")
    if not memory > 0:
        raise ValueError(f"{caller}: memory is {memory!r}, needs a positive number of bytes")
    if not isinstance(x, Tensor) or x.ndim < 2 or x.shape[0] == 0 or not x.is_floating_point():
        got = f"{tuple(x.shape)} of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"{caller}: x is {got}, needs a floating-point tensor (n, ...), n at least 1")
    if not isinstance(y, Tensor) or y.shape != x.shape[:1] or y.is_floating_point():
        got = f"{tuple(y.shape)} of {y.dtype}" if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"{caller}: y is {got}, needs class numbers ({len(x)},) int64")
    source = generator_of(generator, caller)
    network = Network.to_evaluate(model, x, caller)
    chunk = max(1, int(memory // (3 * math.prod(x.shape[1:]) * x.element_size())))
    wrong = torch.zeros(len(sizes), dtype=torch.int64, device=x.device)
    with torch.no_grad(), undisturbed(x.device, recurrent=network.recurrent):
        for _ in range(draws):
            # The whole noise of a draw at once: chunks of another length would shift the stream.
            noise = torch.randn(x.shape, generator=source, dtype=x.dtype, device=source.device).to(x.device)
            for inputs, each, labels in zip(x.split(chunk), noise.split(chunk), y.split(chunk), strict=True):
                for place, gamma in enumerate(sizes.tolist()):
                    f = network(network.params, inputs + gamma * each)
                    wrong[place] += (f.argmax(1) != labels).sum()
    return wrong.cpu().double() / (draws * len(x))
