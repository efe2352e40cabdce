"""Minibatch-gradient noise: is it Gaussian, is it isotropic, how does it scale? (paper 3, section 5.1)

The noise of a minibatch z is xi = grad V(w, z) - grad I(w), (7): its own gradient less that of all n samples.
At fixed weights all of its randomness is the choice of samples, so much is exact:

| quantity | formula |
| --- | --- |
| covariance of a batch of B, drawn with replacement | C_B = C_1 / B, C_1 = mean of (g_i - g)(g_i - g)^T |
| the same, drawn without replacement | C_B = C_1 / B * (n - B) / (n - 1) |
| participation ratio | (tr C)^2 / tr C^2: p for isotropic noise in p dimensions, 1 for noise on a line |

C is never formed: tr C^2 comes from inner products. Over pairs of *different* draws both (tr C)^2 and tr C^2
are estimated without bias, where the sample covariance of M draws of isotropic noise would only show about
M p / (M + p) directions however many there are. The factor does not depend on B, so C_1 gives the same ratio.

Langevin's equation, and with it e^(-U/T), takes noise that is Gaussian and isotropic.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from labkit.measure.gradients import losses
from labkit.measure.perturbed import MiB, generator_of
from labkit.measure.sample_rows import fill_rows

__all__ = [
    "gradient_noise", "noise_factor", "noise_variance", "participation_ratio",
    "sample_gradients",
]  # fmt: skip


@torch.inference_mode(mode=False)
def sample_gradients(
    model: nn.Module, x: Tensor, y: Tensor, *, loss: str = "cross-entropy", memory: int = 1024 * MiB
) -> Tensor:
    """The gradient of each sample's loss, one a row: their mean is the gradient of the training loss.

    Args:
        model: in evaluation mode; left as it is. The parameters that require grad are differentiated by.
        x: (n, ...). y: class numbers (n,), or targets (n, K) for a squared loss.
        loss: "cross-entropy", "half-mean" or "mean": a mean over samples.
        memory: bytes that the result and the work on a chunk of samples may take, together.

    Returns:
        (n, p) in the type of the weights; columns follow `named_parameters`.

    Raises:
        ValueError: the loss is unknown, the result does not fit `memory`, or model, x and y do not fit.

    Cost: two forward and two backward passes over x, of which one pair is a check; a third pair where layers
    of several kinds meet. Memory: n p numbers, and where layers are not dense p more for each sample of a
    chunk (32 on a CPU, 512 on a GPU at most).

    Reference: paper 3, section 5.1: the gradients of (6) and (7), of single samples.
    """
    caller = "sample_gradients"
    if loss not in ("cross-entropy", "half-mean", "mean"):
        raise ValueError(f"{caller}: loss {loss!r} is not one of cross-entropy, half-mean, mean")
    network, found, numbers = losses(model, x, y, loss, None, caller)
    n = x.shape[0]
    row = network.p * network.dtype.itemsize
    if n * row >= memory:
        raise ValueError(
            f"{caller}: {n} gradients of {network.p} components take {n * row / MiB:.0f} MiB, memory is "
            f"{memory / MiB:.0f} MiB. Raise it or pass fewer samples"
        )

    rows = torch.empty(n, 1, network.p, dtype=network.dtype, device=network.device)
    places = {name: rows[:, :, columns] for name, columns in network.columns.items()}
    with torch.no_grad():
        fill_rows(network, found, numbers, places, memory - n * row)
    return rows[:, 0]


def gradient_noise(
    gradients: Tensor,
    batch_size: int,
    draws: int = 500,
    *,
    replacement: bool = False,
    generator: torch.Generator | int = 0,
) -> Tensor:
    """The noise (7) of independent minibatches: the mean gradient of a batch less that of all samples.

    Args:
        gradients: (n, p) of single samples, as `sample_gradients` gives them.
        batch_size: B; at most n without replacement (at n there is no noise).
        draws: M minibatches.
        replacement: whether a sample may come twice in a batch. An epoch of shuffled batches has none.
        generator: a generator, which moves on, or a seed.

    Returns:
        (M, p) in the type of the gradients.

    Raises:
        ValueError: an argument is out of its range.

    Cost: 2 M n p flops; n p + 2 M p numbers for the centred gradients and the noise, and 2 M n for the
    batches.

    Reference: paper 3, section 5.1, (7).
    """
    caller = "gradient_noise"
    n = _rows(gradients, caller)
    noise_factor(n, batch_size, replacement=replacement)
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
        raise ValueError(f"{caller}: draws is {draws!r}, needs a whole number of at least 1")
    counts = _counts(n, batch_size, draws, replacement, generator_of(generator, caller))
    mean = gradients.mean(0, dtype=torch.float64).to(gradients.dtype)
    # Centred first: the difference of two products would lose digits late in training.
    return counts.to(gradients) @ (gradients - mean) / batch_size


def noise_variance(gradients: Tensor) -> Tensor:
    """The exact variance of each component of a single sample's noise, the diagonal of C_1.

    Args:
        gradients: (n, p) of single samples.

    Returns:
        (p,) float64. Its sum is tr C_1; times `noise_factor` it belongs to batches of B.

    Raises:
        ValueError: gradients is not (n, p).

    Cost: 4 n p flops; float64 copies of 256 rows at a time.
    """
    n = _rows(gradients, "noise_variance")
    mean = gradients.mean(0, dtype=torch.float64)
    found = torch.zeros_like(mean)
    for part in gradients.split(256):
        found += (part.double() - mean).square().sum(0)
    return found / n


def noise_factor(n: int, batch_size: int, *, replacement: bool = False) -> float:
    """C_B / C_1: 1/B with replacement, (n - B) / (B (n - 1)) without.

    Raises:
        ValueError: the batch size is not from 1 to n (or, with replacement, not at least 1).
    """
    whole = isinstance(batch_size, int) and not isinstance(batch_size, bool)
    if not whole or batch_size < 1 or (batch_size > n and not replacement):
        most = "" if replacement else f" to n = {n}"
        raise ValueError(f"batch_size: got {batch_size!r}; it takes a whole number from 1{most}")
    if replacement or n == 1:
        return 1 / batch_size
    return (n - batch_size) / (batch_size * (n - 1))


def participation_ratio(noise: Tensor) -> float:
    """(tr C)^2 / tr C^2 of independent draws with mean 0, without the bias of few draws.

    Numerator and denominator are averages over pairs of different draws a, b: of ||a||^2 ||b||^2 and of
    (a . b)^2. For isotropic Gaussian noise in p dimensions it is p to a relative error of about 2 / M.

    Args:
        noise: (M, p), M at least 2.

    Returns:
        The ratio; nan where there is no noise, inf where all draws are orthogonal to each other.

    Raises:
        ValueError: noise is not (M, p) with M at least 2.

    Cost: 2 M^2 p flops, and about 3 M^2 numbers.
    """
    if noise.ndim != 2 or noise.shape[0] < 2:
        raise ValueError(f"noise: shape {tuple(noise.shape)}; it takes (M, p) with at least two draws")
    gram = noise @ noise.T if noise.dtype == torch.float64 else (noise @ noise.T).double()
    squares = gram.diagonal()
    pairs = squares.sum().square() - squares.square().sum()
    overlaps = gram.square().sum() - squares.square().sum()
    if not float(pairs) > 0:
        return math.nan
    return float(pairs / overlaps) if float(overlaps) > 0 else math.inf


def _counts(n: int, B: int, draws: int, replacement: bool, source: torch.Generator) -> Tensor:
    """How often each sample is in each batch, (M, n), float32: sums to B in every row."""
    counts = torch.zeros(draws, n, device=source.device)
    for row in counts:
        if replacement:
            chosen = torch.randint(n, (B,), generator=source, device=source.device)
            row.index_add_(0, chosen, torch.ones(B, device=source.device))
        else:
            row[torch.randperm(n, generator=source, device=source.device)[:B]] = 1
    return counts


def _rows(gradients: Tensor, caller: str) -> int:
    if gradients.ndim != 2 or not gradients.shape[0] or not gradients.is_floating_point():
        raise ValueError(
            f"{caller}: gradients is {tuple(gradients.shape)} of {gradients.dtype}, needs floats (n, p), one "
            "row a sample"
        )
    return gradients.shape[0]
