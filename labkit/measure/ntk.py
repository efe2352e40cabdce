"""The empirical neural tangent kernel: Theta[i, k, j, l] = <d f_k(x_i)/d theta, d f_l(x_j)/d theta>.

Reshaped to (n*K, n*K) it is J J^T in the layout of `jacobian`'s rows. Three routes, told by `ntk_route`:

* "dense"    (a a^T + 1) o (B B^T) summed over layers, tile by tile, no row of J; exact.
* "taps"     convolutions and fixed batch norm: rows by patch products, 10 samples at a time, written in place
             into a group of columns that fits `memory`; then one matrix product a group. Dense layers in it
             as above.
* "generic"  at least one parameter is shared, or used in another way (layer norm, recurrent, functional): its
             rows by vmap(jacrev), the other parameters as above.

The slow obvious twin is `dense_ntk`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from labkit.measure.functional import Model, Network, Parameters
from labkit.measure.gram import kernel
from labkit.measure.price import MiB
from labkit.measure.structure import structure

__all__ = ["empirical_ntk", "ntk_route"]


@torch.inference_mode(mode=False)
def empirical_ntk(
    model: Model, x: Tensor, x2: Tensor | None = None, *, params: Parameters = None, memory: int = 512 * MiB
) -> Tensor:
    """The empirical NTK of `model` between `x` and `x2` (default: x itself).

    Theta[i, k, j, l] = sum over parameters c of d f_k(x_i)/d theta_c * d f_l(x2_j)/d theta_c.

    Args:
        model: a module, or a function `f(params, x) -> (n, K)`.
        x: (n, ...). x2: (n2, ...).
        params: names of the parameters that count (default: all that require grad); for a function, its
            dictionary.
        memory: bytes for rows of J that are held at a time; the result takes (n K)(n2 K) numbers more, and
            dense layers hold n (d + K m) numbers each.

    Returns:
        (n, K, n2, K); symmetric under (i, k) <-> (j, l) when x2 is None, exactly.

    Raises:
        ValueError: for active batch norm or dropout, a random model, or types that do not fit.

    Cost: two forward and K + 1 backward passes over x and x2, of which one pair is a check; for a dense layer
    (d, m) 2 (n K)(n2 K) m + 2 n n2 d flops, for other layers 2 (n K)(n2 K) p and those passes again for each
    group of them that `memory` holds. Half the flops without x2.

    Reference: Jacot, Gabriel & Hongler 2018.

    Error to expect: 1e-13 relative in float64, 1e-6 in float32.

    Example:
        >>> theta = empirical_ntk(model, x)
        >>> eigenvalues = torch.linalg.eigvalsh(theta.reshape(n * K, n * K))
    """
    if memory <= 0:
        raise ValueError(f"empirical_ntk: memory is {memory}, needs a positive number of bytes")
    network = Network(model, x, params, caller="empirical_ntk")
    if x2 is not None and (x2.shape[1:] != x.shape[1:] or x2.dtype != x.dtype or x2.device != x.device):
        raise ValueError(
            f"empirical_ntk: x2 is {tuple(x2.shape)}, {x2.dtype}, {x2.device}, needs samples like those of "
            f"x: {tuple(x.shape)}, {x.dtype}, {x.device}"
        )
    x2 = None if x2 is None else x2.detach()
    return kernel(network, structure(network, x), x.detach(), x2, memory)


@torch.inference_mode(mode=False)
def ntk_route(model: Model, x: Tensor, *, params: Parameters = None) -> str:
    """Which route `empirical_ntk` takes: "dense", "taps" or "generic".

    Args:
        model, x, params: as `empirical_ntk` takes them; of x the first, the second and the last sample are
            run.

    Returns:
        "dense", "taps" or "generic".

    Raises:
        ValueError: as `empirical_ntk`.

    Cost: a copy of the parameters and about ten passes over one to three samples.
    """
    network = Network(model, x, params, caller="ntk_route")
    return structure(network, x).route
