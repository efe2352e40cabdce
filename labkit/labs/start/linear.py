"""What the Jacobian at the start says of everything that a panel shows, before any training.

Gradient descent on ½‖f − y‖² with f replaced by f₀ + J(θ − θ₀) has a closed form (paper 4, (5.11)): along a
left singular vector u_s of J the residual shrinks by 1 − ηλ_s² a step. So errors, distance, residuals,
cosines of gradients and the curvature at the minimum are all known at once. Wide networks follow, narrow ones
do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from labkit.measure import confusion, empirical_ntk, jacobian
from labkit.theory.residuals import decay, progress

MEMORY = 16 * 2**20  # bytes for rows of the Jacobian at a time: few directions do not ask for all of it


@dataclass(frozen=True)
class Linear:
    """A network at its start, linearised in its weights; NumPy, float64.

    Attributes:
        gram: J Jᵀ (nK, nK). spectrum: its eigenvalues λ_s² (nK,), descending; basis: u_s in columns.
        coefficients: ⟨u_s, r₀⟩ (nK,), of the residual r₀ = f₀ − y.
        across: the kernel between test and training inputs, times the basis (n_test·K, nK).
        outputs: f₀ (n, K). test_outputs: f₀ on the test inputs (n_test, K).
        slopes: mean of ‖Ju‖² over the directions u that were given.
    """

    gram: np.ndarray
    spectrum: np.ndarray
    basis: np.ndarray
    coefficients: np.ndarray
    across: np.ndarray
    outputs: np.ndarray
    test_outputs: np.ndarray
    slopes: float

    def residuals(self, lr: float, steps: np.ndarray) -> np.ndarray:
        """Coefficients of the residual in the basis after each number of steps, (T, nK)."""
        with np.errstate(over="ignore", invalid="ignore"):
            return decay(self.spectrum, lr, steps) * self.coefficients

    def distance(self, lr: float, steps: np.ndarray) -> np.ndarray:
        """How far the weights have gone, (T,): along mode s by coef_s (1 − (1 − ηλ_s²)^τ)/λ_s."""
        lengths = np.sqrt(np.maximum(self.spectrum, 1e-10 * self.spectrum[0]))
        with np.errstate(over="ignore", invalid="ignore"):
            return np.linalg.norm(progress(self.spectrum, lr, steps) * self.coefficients / lengths, axis=1)

    def errors(self, lr: float, steps: np.ndarray, labels: np.ndarray, test_labels: np.ndarray) -> np.ndarray:
        """Shares of wrong classes on the training and the test set, (2, T)."""
        floor = np.maximum(self.spectrum, 1e-10 * self.spectrum[0])
        with np.errstate(over="ignore", invalid="ignore"):
            gone = progress(self.spectrum, lr, steps) * self.coefficients
            on_train = self.outputs.ravel() - gone @ self.basis.T
            on_test = self.test_outputs.ravel() - (gone / floor) @ self.across.T
        found = []
        for outputs, right in ((on_train, labels), (on_test, test_labels)):
            guesses = outputs.reshape(len(steps), len(right), -1).argmax(-1)
            wrong = (guesses != right).mean(axis=1)
            found.append(np.where(np.isfinite(outputs).all(axis=1), wrong, np.nan))
        return np.stack(found)

    def cosines(self, lr: float, steps: np.ndarray) -> np.ndarray:
        """Smallest and mean cosine over all pairs of gradients, ⟨g_i, g_j⟩ = r_iᵀ (J Jᵀ)_ij r_j: (2, T)."""
        n, K = self.outputs.shape
        found = np.full((2, len(steps)), np.nan)
        for t, modes in enumerate(self.residuals(lr, steps)):
            # The scale of all gradients together is in no cosine, and may overflow.
            if np.isfinite(modes).all() and modes.any():
                r = self.basis @ (modes / np.abs(modes).max())
                inner = (r[:, None] * self.gram * r).reshape(n, K, n, K).sum(axis=(1, 3))
                pairs = confusion(inner)
                found[:, t] = pairs.minimum_cosine, pairs.mean_cosine
        return found


def linearize(model: nn.Module, x: Tensor, y: Tensor, x_test: Tensor, directions: Tensor) -> Linear:
    """The linear model of a network at its present weights.

    Args:
        x: (n, d). y: one-hot targets (n, K). x_test: (n_test, d). directions: (p, D), columns of length 1.
    """
    gram = kernel(model, x)
    eigenvalues, basis = np.linalg.eigh(gram)
    basis = np.ascontiguousarray(basis[:, ::-1])
    with torch.no_grad():
        outputs, test = (model(part).double().cpu().numpy() for part in (x, x_test))
    across = empirical_ntk(model, x_test, x).double().cpu().numpy().reshape(test.size, outputs.size)
    return Linear(
        gram, np.maximum(eigenvalues[::-1], 0.0), basis,
        basis.T @ (outputs - y.double().cpu().numpy()).ravel(), across @ basis, outputs, test,
        float(jacobian(model, x, memory=MEMORY).matmat(directions).double().square().sum(0).mean()),
    )  # fmt: skip


def kernel(model: nn.Module, x: Tensor) -> np.ndarray:
    """J Jᵀ (nK, nK) at the present weights, float64."""
    theta = empirical_ntk(model, x).double().cpu().numpy()
    return theta.reshape(theta.shape[0] * theta.shape[1], -1)
