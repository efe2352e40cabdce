"""The network (1.1) by hand: its Jacobian from a factor, one step of descent, in float64 (J5, J6)."""

from __future__ import annotations

import torch
from torch import Tensor

from labkit import data, models
from labkit.labs import common

UNITS = 8192


def network(
    setup: common.Setup, width: int, activation: str, seed: int, repeat: int = 0
) -> tuple[models.OneHidden, Tensor, Tensor]:
    """Model, inputs and one-hot targets of one seed, in float64; `repeat` draws another network."""
    one, settings = setup.sets[seed], setup.settings
    model = models.one_hidden(
        one.x_train.shape[1], width, settings.classes, activation=activation,
        seed=settings.seed + seed + 1000 * repeat, dtype=torch.float64, device=settings.device,
    )  # fmt: skip
    return model, one.x_train, data.one_hot(one.y_train, settings.classes, torch.float64)


def kernel(model: models.OneHidden, x: Tensor, since: Tensor | None = None) -> Tensor:
    """JJᵀ (nK, nK); or, with the weights W that the model had before, (J − J')(J − J')ᵀ for the J' of then.

    Row (i, l) of J is B[(i, l)] ⊗ x_i with B[(i, l), s] = V[l, s]·φ'(w_s·x_i) (6.28), so that
    JJᵀ = (BBᵀ) ∘ (XXᵀ ⊗ 1).
    """
    outputs = len(model.V)
    found = x.new_zeros(len(x) * outputs, len(x) * outputs)
    with torch.no_grad():
        for units in _blocks(model):
            slope = model.dphi(x @ model.W[units].T)
            if since is not None:
                slope -= model.dphi(x @ since[units].T)
            B = (slope[:, None, :] * model.V[:, units]).flatten(0, 1)
            found += B @ B.T
        inner = (x @ x.T).repeat_interleave(outputs, 0).repeat_interleave(outputs, 1)
    return found * inner


def descend(model: models.OneHidden, x: Tensor, y: Tensor, lr: float) -> Tensor:
    """One step of gradient descent on ½‖f − y‖², in place; returns the residual before it, (n, K)."""
    with torch.no_grad():
        z = x @ model.W.T
        residual = sum((model.phi(z[:, units]) @ model.V[:, units].T for units in _blocks(model)), -y)
        for units in _blocks(model):
            back = (residual @ model.V[:, units]) * model.dphi(z[:, units])
            model.W[units] -= lr * back.T @ x
    return residual


def _blocks(model: models.OneHidden) -> list[slice]:
    """Hidden units by the thousand: a hundred thousand at once would take a gigabyte."""
    return [slice(start, start + UNITS) for start in range(0, len(model.W), UNITS)]


def norm(symmetric: Tensor) -> float:
    return float(torch.linalg.eigvalsh(symmetric)[-1].clamp(min=0).sqrt())
