"""Losses, as each paper normalises them: outputs (S, n, K) and targets -> one number a copy, (S,);
or outputs (n, K) of one network -> ().

| name | formula | used by |
| --- | --- | --- |
| half-sum | 1/2 sum over samples and outputs of (f - y)^2 | paper 4, (1.2) |
| half-mean | 1/(2n) sum over samples and outputs of (f - y)^2 | paper 3 |
| mean | mean over samples and outputs of (f - y)^2 | paper 1, appendix E |
| cross-entropy | mean over samples of -log softmax(f)[y], y the class numbers | papers 1, 2, 5 |

Targets of the squared losses are (S, n, K) floats, those of cross-entropy (S, n) int64.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]


def half_sum(f: Tensor, y: Tensor) -> Tensor:
    return (f - y).square().sum((-2, -1)) / 2


def half_mean(f: Tensor, y: Tensor) -> Tensor:
    return (f - y).square().sum((-2, -1)) / (2 * f.shape[-2])


def mean(f: Tensor, y: Tensor) -> Tensor:
    return (f - y).square().mean((-2, -1))


def cross_entropy(f: Tensor, y: Tensor) -> Tensor:
    if f.ndim == 2:
        return F.cross_entropy(f, y)
    each = F.cross_entropy(f.flatten(0, 1), y.flatten(), reduction="none")
    return each.reshape(f.shape[:2]).mean(1)


LOSSES: dict[str, Loss] = {
    "half-sum": half_sum,
    "half-mean": half_mean,
    "mean": mean,
    "cross-entropy": cross_entropy,
}
"""Name -> loss of S networks at once: outputs (S, n, K) and targets to values (S,)."""


def loss_named(name: str) -> Loss:
    """Looks a loss up.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in LOSSES:
        raise ValueError(f"loss: {name!r} is not one of {', '.join(LOSSES)}")
    return LOSSES[name]


def check_targets(loss: str, outputs: int, y: Tensor) -> Tensor:
    """The targets (n, ...) in the form that the loss takes: (n, K) floats, or (n,) class numbers.

    Raises:
        ValueError: they have another form.
    """
    got = f"y: shape {tuple(y.shape)} of {y.dtype} for a network of {outputs} outputs"
    if loss == "cross-entropy":
        if y.is_floating_point() or y.ndim != 1:
            raise ValueError(
                f"{got}; cross-entropy takes class numbers, (n,) int64: y.argmax(1) of one-hot labels"
            )
        first, last = torch.stack(torch.aminmax(y)).tolist() if len(y) else (0, 0)  # one wait for its device
        if outputs < 2 or not 0 <= first <= last < outputs:
            raise ValueError(
                f"{got}; cross-entropy takes at least 2 outputs and class numbers below their number"
            )
        return y.to(torch.int64)
    if not y.is_floating_point():
        raise ValueError(
            f"{got}; {loss} takes floats (n, {outputs}): one_hot(y, {outputs}, dtype) of class numbers"
        )
    if y.ndim == 1 and outputs == 1:
        y = y.unsqueeze(1)
    if y.ndim != 2 or y.shape[1] != outputs:
        raise ValueError(f"{got}; {loss} takes (n, {outputs})")
    return y
