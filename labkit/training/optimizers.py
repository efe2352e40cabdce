"""SGD and Adam, by torch's own functions.

The classes of `torch.optim` import torch's compiler at their first step, which takes two seconds of a first
run; and they look for gradients on the parameters, where a caller may keep some of his own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

OPTIMIZERS = ("sgd", "adam")
"""The names that `train` takes as `optimizer`."""


class Optimizer(Protocol):
    """Moves parameters in place.

    Attributes:
        params: what it moves. lr: the base learning rate. momentum: of SGD; 0 otherwise.
    """

    params: list[Tensor]
    lr: float
    momentum: float

    def step(self, gradients: Sequence[Tensor | None], lr: float) -> None:
        """One step down `gradients`, as many as `params` and in their layout; None leaves a parameter."""
        ...

    @property
    def state(self) -> list[Tensor]:
        """What it carries from step to step, to be read or written in place."""
        ...


class SGD:
    """v <- m v + g, w <- w - lr v, where lr may change from step to step."""

    def __init__(self, params: Sequence[Tensor], lr: float, momentum: float) -> None:
        self.params, self.lr, self.momentum = list(params), lr, momentum
        self._velocities = [torch.zeros_like(p) if momentum else None for p in self.params]
        self._fused = _fused(self.params)

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor | None], lr: float) -> None:
        params, present, velocities = _moving(self.params, gradients, self._velocities)
        sgd(
            params, present, velocities, fused=self._fused, weight_decay=0.0, momentum=self.momentum, lr=lr,
            dampening=0.0, nesterov=False, maximize=False,
        )  # fmt: skip

    @property
    def state(self) -> list[Tensor]:
        return [velocity for velocity in self._velocities if velocity is not None]


class Adam:
    """Adam with torch's defaults: Kingma & Ba 2015, b1 = .9, b2 = .999, eps = 1e-8."""

    momentum = 0.0

    def __init__(self, params: Sequence[Tensor], lr: float) -> None:
        self.params, self.lr = list(params), lr
        self._fused = _fused(self.params)
        self._means = [torch.zeros_like(p) for p in self.params]
        self._squares = [torch.zeros_like(p) for p in self.params]
        # A fused step reads its number on the device.
        self._steps = [torch.zeros((), device=p.device if self._fused else "cpu") for p in self.params]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor | None], lr: float) -> None:
        params, present, means, squares, steps = _moving(
            self.params, gradients, self._means, self._squares, self._steps
        )
        adam(
            params, present, means, squares, [], steps, fused=self._fused, amsgrad=False, beta1=0.9,
            beta2=0.999, lr=lr, weight_decay=0.0, eps=1e-8, maximize=False,
        )  # fmt: skip

    @property
    def state(self) -> list[Tensor]:
        return [*self._means, *self._squares, *self._steps]


def _fused(params: Sequence[Tensor]) -> bool | None:
    """One pass over the tensors instead of several: Adam takes a tenth of the time on large ones."""
    return params[0].device.type in ("cpu", "cuda") or None


def _moving(params: Sequence[Tensor], gradients: Sequence[Tensor | None], *state: list) -> list[list]:
    """Those that have a gradient, their gradients in the order of memory, as fused steps need, and states."""
    places = [i for i, gradient in enumerate(gradients) if gradient is not None]
    present = [gradients[i].contiguous() for i in places]  # type: ignore[union-attr]
    return [[params[i] for i in places], present, *([one[i] for i in places] for one in state)]
