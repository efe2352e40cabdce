"""The network (1.1) by hand: its Jacobian from a factor, one step of descent, in float64 (J5, J6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from labkit import data, models


@dataclass(frozen=True)
class Setup:
    settings: Any
    sets: tuple[data.Dataset, ...]
    widths: tuple[int, ...]

    def network(
        self, width: int, activation: str, seed: int, repeat: int = 0
    ) -> tuple[models.OneHidden, Tensor, Tensor]:
        """Model, inputs and one-hot targets of one seed, in float64; `repeat` draws another network."""
        one = self.sets[seed]
        model = models.one_hidden(
            one.x_train.shape[1], width, self.settings.classes, activation=activation,
            seed=self.settings.seed + seed + 1000 * repeat, dtype=torch.float64, device=self.settings.device,
        )  # fmt: skip
        return model, one.x_train, data.one_hot(one.y_train, self.settings.classes, torch.float64)


def factor(model: models.OneHidden, x: Tensor) -> Tensor:
    """B (nK, k) with B[(i, l), s] = V[l, s]·φ'(w_s·x_i): row (i, l) of J is B[(i, l)] ⊗ x_i (6.28)."""
    with torch.no_grad():
        return (model.dphi(x @ model.W.T)[:, None, :] * model.V).flatten(0, 1)


def gram(B: Tensor, x: Tensor, outputs: int) -> Tensor:
    """JJᵀ = (BBᵀ) ∘ (XXᵀ ⊗ 1) from the factor of `factor`;
    the difference of two factors gives that of two Jacobians.
    """
    inner = (x @ x.T).repeat_interleave(outputs, 0).repeat_interleave(outputs, 1)
    return (B @ B.T) * inner


def descend(model: models.OneHidden, x: Tensor, y: Tensor, lr: float) -> Tensor:
    """One step of gradient descent on ½‖f − y‖², in place; returns the residual before it, (n, K)."""
    with torch.no_grad():
        z = x @ model.W.T
        residual = model.phi(z) @ model.V.T - y
        model.W.sub_(lr * ((residual @ model.V) * model.dphi(z)).T @ x)
    return residual


def norm(symmetric: Tensor) -> float:
    return float(torch.linalg.eigvalsh(symmetric)[-1].clamp(min=0).sqrt())
