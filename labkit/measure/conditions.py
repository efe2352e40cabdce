"""The conditions of paper 2, section 4, on a network: do its layers work together, are units close to zero?

f(x) = W_d D_(d-1) W_(d-1) ... D_1 W_1 x, D_i the 0/1 diagonal of units that are active at x, D_d = I. For
1 <= a <= b, Pi_a^b = D_b W_b ... D_a W_a (h_b, h_(a-1)); Pi_0^b = Pi_1^b x, the activations of layer b (W_0
is x as a column, h_0 numbers, D_0 = I).

(C1) |Pi_a^b|_F >= (mu/sqrt(h_c)) |Pi_(c+1)^b|_F |Pi_a^c|_F: successive layers do not cancel each other.
(C2) the share of units of a layer with |pre-activation| <= delta is at most C_2 delta.
(C3) h_i |W_i|_(2,inf)^2 <= C_3^2 |D_i W_i|_F^2: no unit's weights stand out.

What we decided. (C1) is printed for 0 <= a < c < b <= d. Its use in Lemma 1 splits single layers off, so
c = a is needed (the paper's own figure has a <= c <= b - 1): `mu` is the least over 0 <= a <= c < b <= d,
and `mu_input` over a = 0, which is all that Lemma 1 asks for. (C2) takes the absolute value, and delta as a
share of the root mean square of the layer's pre-activations at this x; hidden layers only, as outputs do not
switch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from labkit.measure.perturbed import MiB, generator_of
from labkit.measure.relu_chain import chain_inputs, chain_weights, forward

__all__ = ["Conditions", "Perturbation", "conditions", "linear_perturbation"]


@dataclass(frozen=True, eq=False)
class Conditions:
    """The conditions at each of n samples, for d layers; float64, on the CPU.

    Attributes:
        mu: (n,), the largest mu for which (C1) holds at the sample, over all 0 <= a <= c < b <= d.
        mu_all: (n, T), sqrt(h_c) |Pi_a^b| / (|Pi_(c+1)^b| |Pi_a^c|) for each triple; inf where a factor is 0
            and the condition is empty.
        index: (T, 3), the triples (a, c, b).
        c2: (n, d-1), share/delta of each hidden layer, the largest over the deltas.
        c3: (n, d), the least C_3 of each layer; inf for a layer without active units.
        masked_norms: (n, d), |D_i W_i|_F. norms: (d,), |W_i|_F. output_norm: (n,), |f(x)|.
        dims: h_0, ..., h_d.
    """

    mu: Tensor
    mu_all: Tensor
    index: Tensor
    c2: Tensor
    c3: Tensor
    masked_norms: Tensor
    norms: Tensor
    output_norm: Tensor
    dims: tuple[int, ...]

    @property
    def mu_input(self) -> Tensor:
        """(n,), the least over a = 0: products that begin at the sample, which Lemma 1 uses."""
        return self.mu_all[:, self.index[:, 0] == 0].amin(1)


@dataclass(frozen=True, eq=False)
class Perturbation:
    """What Gaussian noise on the weights does to the outputs; (n,) each, float64, on the CPU.

    Attributes:
        frozen: mean |f~_(w+nu)(x) - f_w(x)| with the activations of w kept: the left side of Lemma 1.
        full: mean |f_(w+nu)(x) - f_w(x)|.
        error: mean |f_(w+nu)(x) - f~_(w+nu)(x)|, what flips add: the left side of Lemma 2.
        frozen_stderr, full_stderr, error_stderr: standard errors of these means.
        flips: (n, d-1), mean share of units of a hidden layer whose activation flips.
    """

    frozen: Tensor
    full: Tensor
    error: Tensor
    frozen_stderr: Tensor
    full_stderr: Tensor
    error_stderr: Tensor
    flips: Tensor


@torch.no_grad()
def conditions(
    model: nn.Module, x: Tensor, *, delta: float | Sequence[float] = (0.1, 0.2, 0.5), memory: int = 256 * MiB
) -> Conditions:
    """Measures (C1), (C2) and (C3) at each sample.

    Cost: d(d-1)/2 products of h x h matrices a sample, 2 h^3 flops each; products of all samples of a chunk
    are one. Memory: 24 h^2 bytes a sample of a chunk; n d^3 / 6 results.

    Args:
        model: a ReLU network of dense layers without biases: `labkit.models.MLP` or a plain `nn.Sequential`.
        x: (n, h_0), or what flattens to it.
        delta: one or several shares of the root mean square pre-activation. (C2) is asked for each; below
            about 1/h a single unit decides, and C_2 = 1/(h delta) says nothing.
        memory: bytes that products may take; samples are measured in chunks to fit.

    Returns:
        Conditions: the constants that (C1), (C2) and (C3) have at each sample.

    Raises:
        ValueError: the model is not of this kind (says why), or an argument is out of its range.

    Reference: paper 2, section 4.
    """
    caller = "conditions"
    weights, samples = chain_weights(model, caller), chain_inputs(model, x, caller)
    deltas = [float(d) for d in (delta if isinstance(delta, Sequence) else (delta,))]
    if not deltas or not all(0 < d < math.inf for d in deltas):
        raise ValueError(f"{caller}: delta is {delta!r}, needs one or several positive numbers")
    dims = (samples.shape[1], *(len(W) for W in weights))
    # Two products and, in float64, one and its squares; torch keeps one of them over.
    largest = max(dims) ** 2 * 24
    parts = [_measured(weights, part, deltas) for part in samples.split(max(1, int(memory // largest)))]
    products, c2, c3, masked = (torch.cat(column) for column in zip(*parts, strict=True))
    norms = torch.stack([W.double().norm() for W in weights]).cpu()
    d = len(weights)
    index = torch.tensor([(a, c, b) for a in range(d + 1) for c in range(a, d) for b in range(c + 1, d + 1)])
    a, c, b = index.T
    width = torch.tensor(dims, dtype=torch.float64)
    below = products[:, c + 1, b] * products[:, a, c]
    ratio = torch.where(below > 0, width[c].sqrt() * products[:, a, b] / below, math.inf)
    return Conditions(ratio.amin(1), ratio, index, c2, c3, masked, norms, products[:, 0, d], dims)


def _measured(weights: list[Tensor], x: Tensor, deltas: list[float]) -> tuple[Tensor, ...]:
    """Norms of products (n, d+1, d+1) at [a, b], C_2, C_3 and |D_i W_i|_F of one chunk of samples."""
    before, masks = forward(weights, x)
    n, d = len(x), len(weights)
    products = torch.zeros(n, d + 1, d + 1, dtype=torch.float64, device=x.device)
    products[:, 0, 0] = x.double().norm(dim=1)
    for b, (z, mask) in enumerate(zip(before, masks, strict=True), start=1):
        products[:, 0, b] = (z * mask).double().norm(dim=1)
    for a in range(1, d + 1):
        # (h_b, n, h_(a-1)): layer b acts on all samples of the chunk as one product.
        P = masks[a - 1].T[:, :, None] * weights[a - 1][:, None, :]
        products[:, a, a] = P.double().square().sum((0, 2)).sqrt()
        for b in range(a + 1, d + 1):
            P = (weights[b - 1] @ P.flatten(1)).view(-1, n, P.shape[2]) * masks[b - 1].T[:, :, None]
            products[:, a, b] = P.double().square().sum((0, 2)).sqrt()
    c2 = [_closeness(z, deltas) for z in before[:-1]]
    masked = torch.stack([products[:, i, i] for i in range(1, d + 1)], dim=1)
    peak = torch.stack([math.sqrt(len(W)) * W.double().norm(dim=1).max() for W in weights])
    c3 = torch.where(masked > 0, peak / masked, math.inf)
    closest = torch.stack(c2, dim=1) if c2 else products.new_zeros(n, 0)
    return products.cpu(), closest.cpu(), c3.cpu(), masked.cpu()


def _closeness(z: Tensor, deltas: list[float]) -> Tensor:
    """The largest over delta of share(|z| <= delta rms)/delta, (n,)."""
    size = z.double().abs()
    edge = size.square().mean(1, keepdim=True).sqrt()
    return torch.stack([(size <= d * edge).double().mean(1) / d for d in deltas]).amax(0)


@torch.no_grad()
def linear_perturbation(
    model: nn.Module,
    x: Tensor,
    sigma: float | Sequence[float] | Tensor,
    *,
    draws: int = 100,
    generator: torch.Generator | int = 0,
) -> Perturbation:
    """Moves all weights by Gaussian noise and looks at the outputs, with the activations kept and without.

    Args:
        model: as for `conditions`.
        x: (n, h_0), or what flattens to it.
        sigma: standard deviation of the noise, one number or one a layer.
        draws: how many perturbations, at least 2; all samples see the same ones.
        generator: a generator, which moves on, or a seed.

    Returns:
        Perturbation: means over the draws, with their standard errors.

    Raises:
        ValueError: the model is not of this kind, or an argument is out of its range.

    Cost: two forward passes over x a draw, all samples at once: 6 n (h_1 + ... + h_d) numbers, and the
    weights twice more.

    Reference: paper 2, Lemmas 1 and 2.
    """
    caller = "linear_perturbation"
    weights, samples = chain_weights(model, caller), chain_inputs(model, x, caller)
    sizes = torch.as_tensor(sigma, dtype=torch.float64).flatten().tolist()
    sizes = sizes * len(weights) if len(sizes) == 1 else sizes
    if len(sizes) != len(weights) or not all(0 <= s < math.inf for s in sizes):
        raise ValueError(
            f"{caller}: sigma is {sigma!r}, needs numbers >= 0, one or {len(weights)}, one a layer"
        )
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 2:
        raise ValueError(f"{caller}: draws is {draws!r}, needs a whole number of at least 2")
    source = generator_of(generator, caller)
    before, masks = forward(weights, samples)
    changes, flips = list[Tensor](), list[Tensor]()
    for _ in range(draws):
        moved = [
            W + s * torch.randn(W.shape, generator=source, dtype=W.dtype, device=source.device).to(W.device)
            for W, s in zip(weights, sizes, strict=True)
        ]
        true, own = forward(moved, samples)
        kept = forward(moved, samples, masks)[0][-1]
        pairs = ((kept, before[-1]), (true[-1], before[-1]), (true[-1], kept))
        changes += [(u - v).double().norm(dim=1) for u, v in pairs]
        flips += [(a != b).double().mean(1) for a, b in zip(own[:-1], masks[:-1], strict=True)]
    values = torch.stack(changes).cpu().unflatten(0, (draws, 3))
    frozen, full, error = values.mean(0)
    doubt = values.std(0) / math.sqrt(draws)
    share = values.new_zeros(len(samples), 0)  # of a single layer, which has no mask
    if flips:
        share = torch.stack(flips).cpu().unflatten(0, (draws, -1)).mean(0).T
    return Perturbation(frozen, full, error, doubt[0], doubt[1], doubt[2], share)
