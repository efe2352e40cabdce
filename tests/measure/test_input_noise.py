"""Error under input noise: a closed form for a linear classifier, and what may not change it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.stats import norm
from torch import Tensor, nn

from labkit import models
from labkit.measure.input_noise import error_under_noise


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear(weights: Tensor) -> nn.Module:
    model = nn.Linear(weights.shape[1], weights.shape[0], bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(weights)
    return model.eval()


def test_a_linear_classifier_has_a_closed_form() -> None:
    """Variance for deviation, a noise divided by the dimension, labels mixed up."""
    direction = drawn(6, seed=1)
    model = linear(torch.stack([direction, torch.zeros(6).double()]))
    x = drawn(50, 6, seed=2)
    y = (x @ direction < 0).long()
    gammas = [0.0, 0.3, 1.0, 3.0]
    draws = 400
    found = error_under_noise(model, x, y, gammas, draws=draws)
    margin = (x @ direction).abs() / direction.norm()
    for gamma, error in zip(gammas, found.tolist(), strict=True):
        each = norm.cdf(-margin.numpy() / gamma) if gamma else [0.0] * 50
        expected = sum(each) / 50
        # The same noise at all gammas, so only draws and samples average it.
        tolerance = 5 * math.sqrt(sum(p * (1 - p) for p in each)) / (50 * math.sqrt(draws))
        assert error == pytest.approx(expected, abs=tolerance + 1e-12)


def test_without_noise_it_is_the_training_error() -> None:
    model, x = models.mlp(5, 8, 1, 3, dtype=torch.float64), drawn(40, 5)
    y = torch.arange(40) % 3
    expected = float((model(x).argmax(1) != y).double().mean())
    assert error_under_noise(model, x, y, [0.0, 0.0], draws=3).tolist() == [expected, expected]


def test_images_and_chunks_and_seeds() -> None:
    """Noise that depends on the memory, or that each gamma draws for itself."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(32, 3)).double().eval()
    x, y = drawn(20, 1, 6, 6), torch.arange(20) % 3
    whole = error_under_noise(model, x, y, [0.5, 1.0], draws=4, generator=3)
    assert torch.equal(whole, error_under_noise(model, x, y, [0.5, 1.0], draws=4, generator=3, memory=1))
    assert torch.equal(whole[1:], error_under_noise(model, x, y, [1.0], draws=4, generator=3))
    other = error_under_noise(model, x, y, [0.5, 1.0], draws=4, generator=4)
    assert not torch.equal(whole, other)


def test_the_model_and_the_global_generator_stay() -> None:
    model, x = models.mlp(5, 8, 1, 3), drawn(10, 5).float()
    before, rng = [p.clone() for p in model.parameters()], torch.get_rng_state()
    error_under_noise(model, x, torch.zeros(10).long(), torch.tensor([0.1]))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert torch.equal(rng, torch.get_rng_state())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gammas": [-1.0]}, r"gammas is \[-1.0\], needs numbers of at least 0"),
        ({"gammas": []}, r"gammas is \[\]"),
        ({"draws": 0}, "draws is 0, needs a whole number of at least 1"),
        ({"memory": 0}, "memory is 0, needs a positive number of bytes"),
        ({"x": torch.zeros(3).long()}, r"x is \(3,\) of torch.int64"),
        ({"y": torch.zeros(4).long()}, r"y is \(4,\) of torch.int64, needs class numbers \(3,\)"),
        ({"y": [0, 1, 2]}, "y is list"),
        ({"generator": "a"}, "generator is 'a'"),
    ],
)
def test_it_refuses(changes: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"x": torch.zeros(3, 5), "y": torch.zeros(3).long(), "gammas": [0.1]} | changes
    with pytest.raises(ValueError, match=f"^error_under_noise: {message}"):
        error_under_noise(models.mlp(5, 4, 1, 3), **given)


def test_batch_statistics_are_refused() -> None:
    model = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3))
    with pytest.raises(ValueError, match="error_under_noise: .*BatchNorm"):
        error_under_noise(model, torch.zeros(3, 5), torch.zeros(3).long(), [0.1])
