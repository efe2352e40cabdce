"""One update for GD, SGD and Langevin dynamics, and the same noise in the training loop."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from labkit.training import Ensemble, train
from labkit.training.dynamics import descend


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def nothing(w: Tensor, step: int) -> Tensor:
    return torch.zeros_like(w)


def last(*args: Any, **kwargs: Any) -> Tensor:
    return list(descend(*args, **kwargs))[-1][1]


def test_without_noise_it_is_gradient_descent() -> None:
    """A step with the wrong sign, a record that is off by one, a state that is shared with the caller."""
    A = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    start = torch.tensor([1.0, -2.0], dtype=torch.float64)
    seen = dict(descend(lambda w, step: A @ w, start, lr=0.1, steps=20))
    assert list(seen) == list(range(21))
    for step, state in seen.items():
        expected = torch.linalg.matrix_power(torch.eye(2, dtype=torch.float64) - 0.1 * A, step) @ start
        torch.testing.assert_close(state, expected, rtol=1e-12, atol=1e-15)
    assert start.tolist() == [1.0, -2.0]


def test_step_size_and_gradient_follow_the_step() -> None:
    """The first rate for all steps, or a gradient that is told the wrong step."""
    asked = []

    def gradient(w: Tensor, step: int) -> Tensor:
        asked.append(step)
        return torch.full_like(w, float(step))

    end = last(gradient, torch.zeros(1), lr=lambda step: 1.0 / (1 + step), steps=4)
    assert asked == [0, 1, 2, 3]
    assert float(end) == pytest.approx(-(0 + 1 / 2 + 2 / 3 + 3 / 4))


def test_records() -> None:
    """The start or the end left out; a yielded state that moves on."""
    start = torch.zeros(2, 3)
    seen = list(descend(lambda w, step: -torch.ones_like(w), start, lr=1.0, steps=10, record=4))
    assert [step for step, _ in seen] == [0, 4, 8, 10]
    assert [float(state[0, 0]) for _, state in seen] == [0, 4, 8, 10]
    some = descend(nothing, start, lr=1.0, steps=10, record=[3, 7])
    assert [step for step, _ in some] == [0, 3, 7, 10]
    assert [step for step, _ in descend(nothing, start, lr=1.0, steps=0)] == [0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_free_chains_diffuse(dtype: torch.dtype) -> None:
    """√(2ηT) without the 2, or T where √T belongs: variance 2ηT a step, in every direction alike."""
    end = last(
        nothing, torch.zeros(20_000, 2, dtype=dtype), lr=0.03, steps=50, temperature=1.7, generator=seeded()
    )
    assert end.dtype == dtype
    covariance = torch.cov(end.double().T) / (2 * 0.03 * 50 * 1.7)
    # Relative standard deviation of a variance: √(2/20000) = 0.01.
    torch.testing.assert_close(covariance, torch.eye(2, dtype=torch.float64), rtol=0, atol=0.05)


def test_a_harmonic_well_has_its_exact_variance() -> None:
    """Noise that depends on the state: Var = T / (κ (1 − ηκ/2)) for this update, exactly."""
    kappa, lr, T = 2.0, 0.3, 0.8
    end = last(
        lambda w, step: kappa * w, torch.zeros(40_000, 1), lr=lr, steps=60, temperature=T, generator=seeded(3)
    )
    expected = T / (kappa * (1 - lr * kappa / 2))
    assert float(end.var()) == pytest.approx(expected, rel=0.03)
    assert abs(expected / (T / kappa) - 1) > 0.3  # It is not the variance of e^(−U/T): the step is long.


def test_seeds_do_not_see_each_other() -> None:
    """Noise of a seed that depends on how many others run beside it."""

    def end(seeds: list[int]) -> Tensor:
        noise = [seeded(seed) for seed in seeds]
        start = torch.zeros(len(seeds), 7, 3)
        return last(lambda w, step: w, start, lr=0.1, steps=500, temperature=1.0, generator=noise)

    both = end([4, 5])
    assert torch.equal(both[:1], end([4])) and torch.equal(both[1:], end([5]))
    assert not torch.equal(both[0], both[1])
    whole = last(
        lambda w, step: w, torch.zeros(1, 7, 3), lr=0.1, steps=500, temperature=1.0, generator=seeded(4)
    )
    assert torch.equal(whole, both[:1])


def test_nothing_global_is_touched() -> None:
    before = torch.random.get_rng_state()
    last(nothing, torch.zeros(3), lr=0.1, steps=3, temperature=1.0, generator=seeded())
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"start": [1.0]}, TypeError, "start: got list; it takes a floating tensor"),
        ({"start": torch.zeros(2, dtype=torch.int64)}, TypeError, "start: got torch.int64"),
        ({"lr": 0.0}, ValueError, "lr: got 0.0; it takes a number above 0"),
        ({"steps": -1}, ValueError, "steps: got -1; it takes a whole number of at least 0"),
        ({"temperature": -1.0}, ValueError, "temperature: got -1.0; it takes a number at least 0"),
        ({"temperature": 1.0}, ValueError, "generator: got None with a temperature above 0"),
        ({"temperature": 1.0, "generator": [seeded()]}, ValueError, r"got 1 for a start of shape \(2, 3\)"),
        ({"temperature": 1.0, "generator": [1, 2]}, TypeError, "generator: got int; it takes torch gener"),
        ({"record": 0}, ValueError, "record: got 0; it takes a whole number of at least 1"),
        ({"record": [1.5]}, ValueError, "record: got 1.5"),
    ],
)
def test_errors_at_the_call(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    """A bad argument that is found out at the first step, or not at all."""
    arguments: dict[str, Any] = {"start": torch.zeros(2, 3), "lr": 0.1, "steps": 5} | changes
    start = arguments.pop("start")
    with pytest.raises(error, match=message):
        descend(nothing, start, **arguments)


# The same noise in the training loop.


def networks(seeds: int) -> list[nn.Sequential]:
    found = []
    for seed in range(seeds):
        net = nn.Sequential(nn.Linear(5, 6, bias=False), nn.Tanh(), nn.Linear(6, 2))
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=seeded(seed)))
        found.append(net)
    return found


X = torch.randn(16, 5, generator=seeded(100))
Y = torch.randn(16, 2, generator=seeded(101))


def trained(model: nn.Module, **changes: Any) -> dict[str, Tensor]:
    settings: dict[str, Any] = {"lr": 0.01, "steps": 12, "batch_size": 4, "loss": "mean"} | changes
    for _ in train(model, X, Y, **settings):
        pass
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def test_temperature_zero_is_training_as_it_was() -> None:
    """Numbers drawn, or rounding, where there is no noise."""
    plain, cold = (trained(networks(1)[0], **more) for more in ({}, {"temperature": 0.0}))
    warm = trained(networks(1)[0], temperature=1e-4)
    for name, value in plain.items():
        assert torch.equal(value, cold[name])
        assert not torch.equal(value, warm[name])
        # √(2 · 0.01 · 1e-4 · 12) = 0.005, over at most 30 numbers.
        assert (value - warm[name]).abs().max() < 0.03


def test_a_copy_draws_its_noise_alone() -> None:
    """Copies that share noise, or whose noise depends on the number of copies."""
    ensemble = Ensemble(networks(3))
    trained(ensemble, temperature=0.01, seed=7)
    for s in range(3):
        alone = Ensemble(networks(3)[s : s + 1])
        trained(alone, temperature=0.01, seed=7 + s)
        single = networks(3)[s]
        trained(single, temperature=0.01, seed=7 + s)
        for name, value in ensemble.weights().items():
            torch.testing.assert_close(value[s], alone.weights()[name][0], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(value[s], single.get_parameter(name).detach(), rtol=1e-5, atol=1e-6)


def test_noise_follows_the_schedule_and_the_temperature() -> None:
    """Noise of the base rate under a schedule, on frozen weights, or of another size."""
    net = nn.Linear(300, 200, bias=False)
    with torch.no_grad():
        net.weight.zero_()
    factors = [1.0, 0.25, 4.0]
    for _ in train(
        net, torch.zeros(2, 300), torch.zeros(2, 200), lr=0.02, steps=3, temperature=0.5,
        schedule=lambda step: factors[step],
    ):  # fmt: skip
        pass
    expected = 2 * 0.02 * 0.5 * sum(factors)
    assert float(net.weight.detach().var()) == pytest.approx(expected, rel=5 * math.sqrt(2 / 60_000))

    frozen = networks(1)[0]
    weight = frozen.get_parameter("0.weight").requires_grad_(False)
    before = weight.clone()
    trained(frozen, temperature=0.1)
    assert torch.equal(before, weight)


def test_momentum_lowers_the_temperature() -> None:
    """The docstring's T(1 − m): variance of a harmonic well at small steps, over many weights."""
    kappa, T, m = 1.0, 0.3, 0.5
    x = torch.eye(60) * math.sqrt(kappa)
    net = nn.Linear(60, 300, bias=False)
    with torch.no_grad():
        net.weight.zero_()
    for _ in train(
        net, x, torch.zeros(60, 300), loss="half-sum", lr=0.005, momentum=m, steps=500, temperature=T
    ):
        pass
    assert float(net.weight.detach().var()) == pytest.approx(T * (1 - m) / kappa, rel=0.06)


def test_the_minibatches_are_the_same_with_noise() -> None:
    """Noise drawn from the generator of the batches: another order of samples."""
    seen = []
    for T in (0.0, 1e-30):
        frames = [f for f in train(networks(1)[0], X, Y, loss="mean", lr=0.01, steps=12, batch_size=4,
                                   temperature=T, measure_at=1) if not f.is_tick]  # fmt: skip
        seen.append(np.stack([frame.values["loss"] for frame in frames]))
    np.testing.assert_allclose(seen[0], seen[1], rtol=1e-6)


def test_noise_goes_with_sgd() -> None:
    with pytest.raises(ValueError, match="temperature: got 0.1 with optimizer='adam'.*goes with 'sgd'"):
        trained(networks(1)[0], optimizer="adam", temperature=0.1)
    with pytest.raises(ValueError, match="temperature: got -1; it takes a number at least 0"):
        trained(networks(1)[0], temperature=-1)
