"""Capacities from norms and margins (paper 2, sections 2.1 to 2.3), and Lipschitz constants.

With gamma the margin of the training set, d layers, h_i the numbers that layer i puts out:

| field | formula, bracketed factors with `factors=True` | erratum |
| --- | --- | --- |
| l2 | gamma^-2 prod (4) ||W_i||_F^2 | |
| l1_path | gamma^-2 (sum over paths of prod (2) abs(w))^2 | the square of the sum, as its sources have it |
| l2_path | gamma^-2 sum over paths of prod (4 h_i) w^2 | |
| spectral | gamma^-2 prod (h_i) ||W_i||_2^2 | |
| vc_order | d * parameters, the order of equation 1 without logarithms | |
| lipschitz_inf, lipschitz_two | prod ||W_i||_(1,inf), prod ||W_i||_2 | the first bounds paths of one output |

For a convolution h_i is channels times positions, ||W||_F and ||W||_(1,inf) are of the kernel, ||W||_2 is of
the linear map. Only ratios between networks mean anything: constants and logarithms are dropped throughout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from labkit.measure.calls import evaluating
from labkit.measure.guards import refuse_not_finite
from labkit.measure.layers import Layer, chain
from labkit.measure.margins import margin
from labkit.measure.norms import frobenius, group_norm, spectral
from labkit.measure.paths import path_norms
from labkit.measure.pools import Pool

__all__ = ["Capacities", "capacities", "local_lipschitz"]


@dataclass(frozen=True)
class Capacities:
    """What `capacities` finds; floats. l2, l1_path, l2_path and spectral are nan without a positive margin.

    Attributes:
        l2, l1_path, l2_path, spectral: the norm-based capacities.
        margin: gamma.
        parameters: how many the model has.
        vc_order: layers times parameters.
        lipschitz_inf: bounds the Lipschitz constant from l_inf to l_inf.
        lipschitz_two: bounds the Lipschitz constant from l2 to l2.
    """

    l2: float
    l1_path: float
    l2_path: float
    spectral: float
    margin: float
    parameters: int
    vc_order: int
    lipschitz_inf: float
    lipschitz_two: float


def capacities(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float = 0.05,
    gamma: float | None = None,
    factors: bool = False,
    biases: bool = False,
    tol: float = 1e-10,
) -> Capacities:
    """The norm-based capacities of a network on its training set.

    Args:
        model: a chain of layers with ReLU between; batch norm folded (see `weight_layers`). Left as it was.
        x: (n, ...) the training inputs.
        y: (n,) class numbers.
        epsilon: the share of samples that may lie at the margin or below; 0 for the hard margin.
        gamma: the margin, where it is known or is to be divided by later; then y is not looked at.
        factors: includes what depends on depth and width alone (the paper's figures drop it).
        biases: counts biases as weights, in l2 and the path norms; the spectral norm has no place for them.
        tol: of the spectral norms, relative.

    Returns:
        Capacities. With a margin that is not positive (a share of at least epsilon is misclassified) there is
        no capacity: the four are nan.

    Raises:
        ValueError: the model is not such a chain, or x and y do not fit.

    Cost: one forward pass over x, in chunks of 1,024, three of one sample, and `spectral` of each layer,
    which is the most of it. Memory: a chunk's activations, and what `spectral` takes.

    Reference: paper 2, sections 2.1 (VC dimension), 2.2 (norms and margins) and 2.3 (Lipschitz constants).
    """
    steps = chain(model, x)
    layers = [step for step in steps if isinstance(step, Layer)]
    gamma = margin(_outputs(model, x), y, epsilon) if gamma is None else gamma
    scale = 1 / gamma**2 if gamma > 0 else math.nan
    squared = torch.stack([frobenius(layer) ** 2 for layer in layers])
    if biases:
        squared = squared + torch.stack([_squared_bias(layer) for layer in layers])
    norms = torch.stack([spectral(layer, tol=tol) for layer in layers])
    sums = torch.stack([group_norm(layer.incoming, 1, math.inf) for layer in layers])
    units = torch.tensor([float(layer.units) for layer in layers], dtype=torch.float64)
    four, two, wide = (4.0, 2.0, units) if factors else (1.0, 1.0, torch.ones_like(units))
    pools = math.prod(max(1.0, step.lipschitz) for step in steps if isinstance(step, Pool))
    parameters = sum(p.numel() for p in model.parameters())

    def paths(p: float, factors: list[float]) -> Tensor:
        return path_norms(model, x, p, biases=biases, factors=factors).sum()

    return Capacities(
        l2=scale * float((four * squared).prod()),
        l1_path=scale * float(paths(1, [two] * len(layers)) ** 2),
        l2_path=scale * float(paths(2, (four * wide).tolist())),
        spectral=scale * float((wide * norms.cpu() ** 2).prod()),
        margin=gamma,
        parameters=parameters,
        vc_order=len(layers) * parameters,
        lipschitz_inf=float(sums.prod()),
        # Non-overlapping pools are 1-Lipschitz; where windows overlap, one input counts in several.
        lipschitz_two=pools * float(norms.prod()),
    )


def _squared_bias(layer: Layer) -> Tensor:
    bias = layer.bias
    return layer.weight.new_zeros((), dtype=torch.float64) if bias is None else bias.double().norm() ** 2


def _outputs(model: nn.Module, x: Tensor, chunk: int = 1024) -> Tensor:
    """f(x) (n, K) in float64, in evaluation mode."""
    like = next(model.parameters())
    with evaluating(model), torch.no_grad():
        return torch.cat([model(part.to(like)).double() for part in x.split(chunk)])


def local_lipschitz(model: nn.Module, x: Tensor, *, chunk: int = 256) -> Tensor:
    """The spectral norm of the input-output Jacobian at each sample: the local Lipschitz constant in l2.

    Args:
        model: any module that maps (n, ...) to (n, K), each sample by itself; run in evaluation mode.
        x: (n, ...) inputs.
        chunk: samples at a time; one chunk holds chunk * K Jacobian rows.

    Returns:
        (n,) float64. Computed in the type of the model: 1e-15 relative in float64, 1e-6 in float32.

    Raises:
        TypeError: `model` is no module.
        ValueError: chunk is below 1, or the outputs are not (n, K).

    Cost: one forward and K backward passes over x. Memory: the activations of a chunk, and its Jacobian rows,
    16 * chunk * K * inputs bytes.

    Reference: paper 2, section 2.3, which bounds it by prod ||W_i||_2.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: got {type(model).__name__}; it takes a torch.nn.Module")
    if chunk < 1:
        raise ValueError(f"chunk: got {chunk}; it takes a number of samples of at least 1")
    refuse_not_finite(dict(model.named_parameters()), None, "model")
    like = next(model.parameters(), x)
    with evaluating(model):
        return torch.cat([_norms(model, part.detach().to(like)) for part in x.split(chunk)])


def _norms(model: nn.Module, x: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x.clone().requires_grad_()
        y = model(x.clone())  # a copy: an in-place activation may not change a leaf
        if y.ndim != 2 or len(y) != len(x):
            raise ValueError(f"model: outputs {tuple(y.shape)} for {len(x)} samples; it takes (n, K)")
        gradients = [
            torch.autograd.grad(y[:, k].sum(), x, retain_graph=True, materialize_grads=True)[0].flatten(1)
            for k in range(y.shape[1])
        ]
    J = torch.stack(gradients, dim=1).double()
    short = J if J.shape[1] <= J.shape[2] else J.mT
    return torch.linalg.eigvalsh(short @ short.mT)[:, -1].clamp(min=0).sqrt()
