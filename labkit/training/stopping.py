"""When to stop before the last step.

A rule sees the network's outputs on the whole training set: at every step of full-batch training, once an
epoch (at its start) otherwise. Each copy of an ensemble stops by itself, and keeps its weights while the
others go on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class StopRule(Protocol):
    """Anything with this method, and a `str` that says the condition in words."""

    def reached(self, outputs: Tensor, y: Tensor, losses: Tensor) -> Tensor:
        """Which copies are there.

        Args:
            outputs: (S, n, K) on the training set.
            y: (S, n) class numbers, or (S, n, K) targets.
            losses: (S,) on the training set.

        Returns:
            (S,) bool.
        """
        ...


@dataclass(frozen=True)
class LossBelow:
    """The loss over the training set is below a value (paper 1: .001, .02; paper 2: 1e-4)."""

    value: float

    def __post_init__(self) -> None:
        if not self.value > 0:
            raise ValueError(f"value: got {self.value!r}; LossBelow takes a positive number")

    def __str__(self) -> str:
        return f"loss below {self.value:g}"

    def reached(self, outputs: Tensor, y: Tensor, losses: Tensor) -> Tensor:
        return losses < self.value


@dataclass(frozen=True)
class MarginAtLeast:
    """A share of the training points is classified with a margin of at least gamma (paper 1: 99 %, margin
    10).

    The margin of a point is the output of its class minus the largest other output; with one output and
    targets of either sign, the output times the sign.
    """

    gamma: float
    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(
                f"share: got {self.share!r}; MarginAtLeast takes a share of the points in (0, 1]"
            )
        if not abs(self.gamma) < float("inf"):
            raise ValueError(f"gamma: got {self.gamma!r}; MarginAtLeast takes a finite margin")

    def __str__(self) -> str:
        points = "all points" if self.share == 1 else f"{self.share:.4g} of the points"
        return f"{points} with margin at least {self.gamma:g}"

    def reached(self, outputs: Tensor, y: Tensor, losses: Tensor) -> Tensor:
        enough = margins(outputs, y) >= self.gamma
        # Counted, not averaged: a mean of .99 can come out below .99 in float32. The slack is for share * n.
        return enough.sum(1) >= self.share * enough.shape[1] * (1 - 1e-12)


def margins(outputs: Tensor, y: Tensor) -> Tensor:
    """Margins (S, n) of outputs (S, n, K) for class numbers (S, n) or targets (S, n, K).

    Args:
        outputs: (S, n, K), S copies of a network; one output (K = 1) is a signed score.
        y: (S, n) class numbers, or (S, n, K) targets.

    Returns:
        (S, n), in units of the output; for one output, the output times the sign of the target.
    """
    if outputs.shape[-1] == 1:
        sign = y.reshape(outputs.shape[:2]).sign()
        return outputs[..., 0] * sign
    classes = (y if y.ndim == 2 else y.argmax(2)).unsqueeze(2)
    own = outputs.gather(2, classes).squeeze(2)
    others = outputs.scatter(2, classes, -torch.inf).amax(2)
    return own - others
