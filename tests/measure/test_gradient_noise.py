"""Gradient noise: plain autograd, exact covariances by enumeration, and distributions that are known."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from labkit import models
from labkit.measure.gradient_noise import (
    gradient_noise,
    noise_factor,
    noise_variance,
    participation_ratio,
    sample_gradients,
)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normed() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)
    ).double()


# Per-sample gradients.


@pytest.mark.parametrize("kind", ["cross-entropy", "half-mean", "mean", "convolution", "frozen"])
def test_rows_are_gradients_of_single_samples(kind: str) -> None:
    """Columns in another order, samples that see each other, a loss divided by n twice."""
    loss = kind if kind in ("half-mean", "mean") else "cross-entropy"
    x = drawn(9, 1, 6, 6) if kind == "convolution" else drawn(9, 5)
    model = normed().eval() if kind == "convolution" else models.mlp(5, 7, 2, 3, dtype=torch.float64)
    if kind == "frozen":
        model.layers[0].requires_grad_(False)
    y = torch.arange(9) % 3 if loss == "cross-entropy" else drawn(9, 3, seed=1)
    found = sample_gradients(model, x, y, loss=loss)
    params = [p for p in model.parameters() if p.requires_grad]
    for i in range(9):
        f = model(x[i : i + 1])
        if loss == "cross-entropy":
            value = F.cross_entropy(f, y[i : i + 1])
        else:
            value = (f - y[i : i + 1]).square().sum() / (2 if loss == "half-mean" else 3)
        row = torch.cat([g.flatten() for g in torch.autograd.grad(value, params)])
        torch.testing.assert_close(found[i], row, rtol=1e-10, atol=1e-12)
    small = sample_gradients(model, x, y, loss=loss, memory=found.numel() * 8 + 1)
    torch.testing.assert_close(small, found)


def test_the_model_and_the_global_generator_stay() -> None:
    model, x, y = normed().eval(), drawn(4, 1, 6, 6), torch.arange(4) % 3
    before, rng = {name: v.clone() for name, v in model.state_dict().items()}, torch.get_rng_state()
    sample_gradients(model, x, y)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters()) and torch.equal(rng, torch.get_rng_state())
    with pytest.raises(ValueError, match="^sample_gradients: .*BatchNorm"):
        sample_gradients(model.train(), x, y)


# The noise of minibatches.


def test_noise_is_the_batch_less_the_whole() -> None:
    """(7) with the batch's own mean taken off, or divided by n: every row is one of all possible batches."""
    gradients = drawn(6, 4)
    for B, replacement in ((2, False), (2, True), (5, False)):
        every = itertools.product(range(6), repeat=B) if replacement else itertools.combinations(range(6), B)
        possible = torch.stack([gradients[list(one)].mean(0) - gradients.mean(0) for one in every])
        found = gradient_noise(gradients, B, 50, replacement=replacement, generator=1)
        assert found.shape == (50, 4)
        nearest = (found[:, None] - possible).abs().amax(2).amin(1)
        assert float(nearest.max()) < 1e-12
        # A repeated sample is there in some draws with replacement, and in none without.
        assert len({tuple(row) for row in found.round(decimals=8).tolist()}) > 4


@pytest.mark.parametrize(("n", "B"), [(6, 2), (6, 5), (5, 1), (4, 4)])
@pytest.mark.parametrize("replacement", [False, True])
def test_the_factor_is_exact_by_enumeration(n: int, B: int, replacement: bool) -> None:
    """1/B where (n - B) / (B (n - 1)) belongs, or n in place of n - 1: over all batches there are."""
    gradients = drawn(n, 3)
    every = itertools.product(range(n), repeat=B) if replacement else itertools.combinations(range(n), B)
    noise = torch.stack([gradients[list(one)].mean(0) - gradients.mean(0) for one in every])
    exact = noise.square().mean(0)
    torch.testing.assert_close(
        noise_variance(gradients) * noise_factor(n, B, replacement=replacement), exact, rtol=1e-9, atol=1e-15
    )


def test_sampled_noise_has_the_exact_covariance() -> None:
    """Draws that are not uniform, or the same batch again and again."""
    gradients = drawn(30, 3) @ drawn(3, 3, seed=1)
    single = gradients - gradients.mean(0)
    for B, replacement in ((1, False), (4, True), (20, False)):
        noise = gradient_noise(gradients, B, 20_000, replacement=replacement, generator=2)
        expected = noise_factor(30, B, replacement=replacement) * single.T @ single / 30
        found = noise.T @ noise / len(noise)
        assert float((found - expected).abs().max() / expected.abs().max()) < 0.05
        assert float(noise.mean(0).abs().max()) < 0.05 * float(single.abs().max())


def test_a_batch_of_all_samples_has_no_noise() -> None:
    gradients = drawn(8, 5).float()
    assert float(gradient_noise(gradients, 8, 3).abs().max()) < 1e-6
    assert noise_factor(8, 8) == 0.0 and noise_factor(1, 1) == 1.0


def test_a_seed_gives_the_same_batches_and_a_generator_moves_on() -> None:
    gradients, source = drawn(20, 3), torch.Generator().manual_seed(4)
    a, b = (gradient_noise(gradients, 5, 7, generator=4) for _ in range(2))
    c, d = (gradient_noise(gradients, 5, 7, generator=source) for _ in range(2))
    assert torch.equal(a, b) and torch.equal(a, c) and not torch.equal(c, d)
    rng = torch.get_rng_state()
    gradient_noise(gradients, 5, 7, replacement=True)
    assert torch.equal(rng, torch.get_rng_state())


def test_small_noise_on_a_large_gradient_keeps_its_digits() -> None:
    """A difference of two products in float32."""
    noise = 1e-4 * drawn(50, 3)
    found = gradient_noise((1.0 + noise).float(), 5, 4000, generator=1).double()
    expected = noise_variance(noise) * noise_factor(50, 5)
    np.testing.assert_allclose(found.square().mean(0).numpy(), expected.numpy(), rtol=0.1)


# Directions.


@pytest.mark.parametrize("p", [3, 30, 300])
def test_isotropic_noise_fills_every_direction_however_few_the_draws(p: int) -> None:
    """The bias of a sample covariance, which would show M p / (M + p): 50 of 300 at 60 draws."""
    found = [participation_ratio(drawn(60, p, seed=seed)) for seed in range(20)]
    assert np.mean(found) == pytest.approx(p, rel=0.05)


def test_the_ratio_is_that_of_the_covariance() -> None:
    """Singular values in place of their squares: known spectra, many draws."""
    scales = torch.tensor([3.0, 2.0, 1.0, 0.5]).double()
    expected = float(scales.square().sum() ** 2 / scales.pow(4).sum())
    assert participation_ratio(drawn(4000, 4) * scales) == pytest.approx(expected, rel=0.05)
    assert participation_ratio(drawn(50, 1) * drawn(1, 6, seed=1)) == pytest.approx(1.0)
    assert participation_ratio(torch.eye(4)) == math.inf
    assert math.isnan(participation_ratio(torch.zeros(5, 3)))


@given(st.integers(2, 20), st.integers(1, 10), st.integers(0, 500), st.floats(1e-3, 1e3))
def test_the_ratio_has_no_units_and_at_least_one_direction(M: int, p: int, seed: int, scale: float) -> None:
    """Cauchy-Schwarz, pair by pair, and no dependence on the size of the noise or its axes."""
    noise = drawn(M, p, seed=seed)
    found = participation_ratio(noise)
    assert found >= 1 - 1e-9
    rotation = torch.linalg.qr(drawn(p, p, seed=seed + 1)).Q
    assert participation_ratio(scale * noise @ rotation) == pytest.approx(found, rel=1e-6)


# Refusals.

NET, XS, YS = models.mlp(5, 7, 1, 3, dtype=torch.float64), drawn(6, 5), torch.arange(6) % 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sample_gradients(NET, XS, YS, loss="error"), "sample_gradients: loss 'error' is not one of"),
        (lambda: sample_gradients(NET, XS, YS, memory=100), "sample_gradients: 6 gradients of 66 components"),
        (lambda: sample_gradients(NET, XS, YS[:3]), r"sample_gradients: y is \(3,\)"),
        (lambda: gradient_noise(drawn(6, 3), 7), "batch_size: got 7; .* number from 1 to n = 6"),
        (lambda: gradient_noise(drawn(6, 3), 0), "batch_size: got 0"),
        (lambda: gradient_noise(drawn(6, 3), 0, replacement=True), "batch_size: got 0; .* number from 1$"),
        (lambda: gradient_noise(drawn(6, 3), 2.5), "batch_size: got 2.5"),
        (lambda: gradient_noise(drawn(6, 3), 2, 0), "gradient_noise: draws is 0"),
        (lambda: gradient_noise(drawn(6), 2), r"gradient_noise: gradients is \(6,\) of torch.float64"),
        (lambda: noise_variance(drawn(6)), r"noise_variance: gradients is \(6,\)"),
        (lambda: gradient_noise(drawn(6, 3), 2, generator=-1), "gradient_noise: generator is -1"),
        (lambda: participation_ratio(drawn(1, 3)), r"noise: shape \(1, 3\); it takes \(M, p\)"),
    ],
)  # fmt: skip
def test_it_refuses(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        call()
