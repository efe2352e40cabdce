"""Sharpness: closed forms, corners counted out, plain loops, and what a climb may never do."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from labkit.measure import sharpness as measured
from labkit.measure.gradient_noise import sample_gradients
from labkit.measure.gradients import batch_gradients, gradient_gram
from labkit.measure.losses import LOSSES
from labkit.measure.perturbed import PerturbedCopy
from labkit.measure.sharpness import (
    expected_sharpness,
    kl_at_sharpness,
    max_sharpness,
    parameter_vector,
    perturbation_scale,
)


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def network(*widths: int, seed: int = 0, bias: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        layer = nn.utils.skip_init(nn.Linear, a, b, bias=bias, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(drawn(b, a, seed=seed + 10 * i) / math.sqrt(a))
            if bias:
                layer.bias.copy_(drawn(b, seed=seed + 10 * i + 5) / 4)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def trained(seed: int = 0) -> tuple[nn.Sequential, Tensor, Tensor]:
    """A small classifier near a minimum, as the paper perturbs one."""
    model, x = network(6, 12, 3, seed=seed), drawn(40, 6, seed=seed + 100)
    y = x[:, :3].argmax(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    model.zero_grad(set_to_none=True)
    return model, x, y


def linear_problem(inputs: int, outputs: int, n: int, seed: int) -> tuple[nn.Linear, Tensor, Tensor]:
    """f = Wx at least squares: L(w + nu) - L(w) = 1/2 sum over outputs o of nu_o^T (X^T X) nu_o."""
    x, y = drawn(n, inputs, seed=seed), drawn(n, outputs, seed=seed + 1)
    model = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.linalg.lstsq(x, y).solution.T)
    return model, x, y


class Shift(nn.Module):
    """f(x) = x W^T, as a module that is not nn.Linear."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T


def box(model: nn.Module, alpha: float) -> Tensor:
    return alpha * (parameter_vector(model).abs() + 1)


# max_sharpness


def test_a_linear_loss_has_its_maximum_at_a_corner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed form sum_i box_i |g_i|. Catches a box of alpha |w|, and a climb that stops short of the edge."""
    monkeypatch.setitem(LOSSES, "half-mean", (lambda f, y: (f * y).sum(1), "mean"))
    model, x, y = Shift(drawn(3, 4)), drawn(20, 4, seed=1), drawn(20, 3, seed=2)
    gradient = (y.T @ x / 20).flatten()
    for alpha in (1e-4, 0.1):
        expected = float((box(model, alpha) * gradient.abs()).sum())
        for steps in (1, 2, 7):
            found = max_sharpness(model, x, y, loss="half-mean", alpha=alpha, steps=steps)
            assert found.value == pytest.approx(expected, rel=1e-6)
        nu = torch.cat([part.flatten() for part in found.perturbation.values()])
        torch.testing.assert_close(nu, box(model, alpha) * gradient.sign())
        assert found.value_relative == pytest.approx(found.value / (1 + found.loss))


def test_a_small_quadratic_against_all_its_corners() -> None:
    """A convex loss is largest at a corner, and 2^8 of them can be tried; never above, and mostly there, from
    a start whose gradient is zero. (The best corner is a cut problem, so a climb may end at another: one that
    no step along the gradient leaves.)"""
    shares = []
    for seed in range(12):
        model, x, y = linear_problem(8, 1, 12, seed)
        A, edge = x.T @ x, box(model, 0.1)
        corners = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=8)), dtype=torch.float64) * edge
        best = float(((corners @ A) * corners).sum(1).max()) / 2
        found = max_sharpness(model, x, y, loss="half-sum", alpha=0.1, steps=100)
        assert found.value <= best * (1 + 1e-9)
        end = torch.cat([part.flatten() for part in found.perturbation.values()])
        torch.testing.assert_close(end, edge * (A @ end).sign())
        shares.append(found.value / best)
    assert sum(share > 1 - 1e-6 for share in shares) >= 8 and sum(shares) / len(shares) > 0.9, shares


@pytest.mark.slow
@pytest.mark.parametrize(("alpha", "seed"), [(5e-4, 1), (1e-2, 0)])
def test_it_beats_a_much_longer_plain_ascent(alpha: float, seed: int) -> None:
    """100 steps against 2000 of plain projected ascent, with the better of two step sizes."""
    model, x, y = trained(seed)
    found = max_sharpness(model, x, y, alpha=alpha, steps=100)
    plain = max(_plain_ascent(model, x, y, alpha, lr) for lr in (0.01, 0.1))
    assert found.value >= 0.99 * plain > 0


def _plain_ascent(model: nn.Module, x: Tensor, y: Tensor, alpha: float, lr: float) -> float:
    start = {name: p.detach() for name, p in model.named_parameters()}
    edge = {name: alpha * (p.abs() + 1) for name, p in start.items()}
    nu = {name: torch.zeros_like(p) for name, p in start.items()}
    speed = {name: torch.zeros_like(p) for name, p in start.items()}

    def value(at: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(functional_call(model, {n: start[n] + at[n] for n in at}, (x,)), y)

    first, best = float(value(nu)), 0.0
    slope = torch.func.grad_and_value(value)
    for _ in range(2000):
        gradient, now = slope(nu)
        best = max(best, float(now) - first)
        for name in nu:
            speed[name] = 0.9 * speed[name] + gradient[name]
            nu[name] = (nu[name] + lr * speed[name]).clamp(-edge[name], edge[name])
    return best


def test_it_grows_with_the_box_and_with_the_steps() -> None:
    """A larger box holds the smaller one."""
    model, x, y = trained()
    values = [max_sharpness(model, x, y, alpha=alpha, steps=30).value for alpha in np.geomspace(1e-5, 0.1, 9)]
    assert all(a < b for a, b in itertools.pairwise(values))
    few, many = (max_sharpness(model, x, y, alpha=5e-4, steps=steps).value for steps in (40, 800))
    assert 0.98 * many <= few <= many * (1 + 1e-6)


def test_the_perturbation_lies_in_the_box_and_gives_the_value() -> None:
    """A value that belongs to no point, or to one outside."""
    model, x, y = trained()
    found = max_sharpness(model, x, y, alpha=0.01, steps=25)
    moved = {}
    for name, p in model.named_parameters():
        assert bool((found.perturbation[name].abs() <= 0.01 * (p.detach().abs() + 1) * (1 + 1e-12)).all())
        moved[name] = p.detach() + found.perturbation[name]
    with torch.no_grad():
        rise = F.cross_entropy(functional_call(model, moved, (x,)), y) - F.cross_entropy(model(x), y)
    assert float(rise) == pytest.approx(found.value, rel=1e-9)


def test_at_a_maximum_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A negative sharpness: nu = 0 is in the box."""
    monkeypatch.setitem(LOSSES, "half-mean", (lambda f, y: -(f - y).square().sum(1), "mean"))
    model, x, y = linear_problem(4, 2, 12, 0)
    found = max_sharpness(model, x, y, loss="half-mean", alpha=0.1, steps=10)
    assert found.value == 0 and all(not part.any() for part in found.perturbation.values())


def test_minibatches_climb_too() -> None:
    """The minibatch's loss reported for the full one."""
    model, x, y = trained()
    full = max_sharpness(model, x, y, steps=200)
    some = max_sharpness(model, x, y, steps=200, batch_size=8)
    assert 0.9 * full.value <= some.value <= full.value * 1.01
    again = max_sharpness(model, x, y, steps=200, batch_size=8)
    assert again.value == some.value
    whole = max_sharpness(model, x, y, steps=200, batch_size=40)
    assert whole.value == full.value


# expected_sharpness


@pytest.mark.parametrize("relative", [0.0, 10.0])
def test_the_closed_form_on_a_quadratic(relative: float) -> None:
    """E = 1/2 sum_i A_ii s_i^2 with s the standard deviation. Catches a variance in its place: at alpha = .02
    that is off by a factor of 50, at alpha = 2 by as much the other way."""
    model, x, y = linear_problem(5, 3, 30, 0)
    alphas = [0.02, 0.5, 2.0]
    found = expected_sharpness(
        model, x, y, alphas=alphas, draws=2000, loss="half-sum", relative=relative, generator=3
    )
    curvature = torch.diagonal(x.T @ x)
    for place, alpha in enumerate(alphas):
        s = alpha * (relative * model.weight.detach().abs() + 1)
        expected = float((s.square() * curvature).sum()) / 2
        assert abs(float(found.mean[place]) - expected) <= 6 * float(found.stderr[place])
        assert float(found.stderr[place]) < 0.05 * expected


def test_the_noise_has_the_stated_standard_deviation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The noise itself, weight by weight: a sample sd of 4000 draws is within 6/sqrt(8000) of the truth."""
    model, x, y = linear_problem(4, 2, 8, 1)
    placed: list[Tensor] = []
    place = PerturbedCopy.place

    def watched(
        self: PerturbedCopy, weights: Tensor, noise: Tensor | None = None, scale: float = 1.0
    ) -> None:
        place(self, weights, noise, scale)
        placed.append(self._vector - weights)

    monkeypatch.setattr(PerturbedCopy, "place", watched)
    expected_sharpness(model, x, y, alphas=[0.03], draws=4000, loss="half-sum")
    noise = torch.stack(placed[1:])
    expected = 0.03 * (10 * parameter_vector(model).abs() + 1)
    torch.testing.assert_close(perturbation_scale(parameter_vector(model), 0.03), expected)
    assert float((noise.std(0) / expected - 1).abs().max()) < 6 / math.sqrt(8000)
    assert float((noise.mean(0) / expected).abs().max()) < 6 / math.sqrt(4000)


@pytest.mark.parametrize("loss", ["cross-entropy", "error"])
def test_it_agrees_with_a_plain_loop(loss: str) -> None:
    """Another way, another noise, a thousand draws each; within 5 standard errors of the difference."""
    model, x, y = trained(1)
    alphas = (0.003, 0.03)
    found = expected_sharpness(model, x, y, alphas=alphas, draws=1000, loss=loss)
    source = torch.Generator().manual_seed(99)
    for place, alpha in enumerate(alphas):
        values = []
        for _ in range(1000):
            moved = {
                name: p.detach()
                + torch.randn(p.shape, generator=source, dtype=p.dtype) * alpha * (10 * p.detach().abs() + 1)
                for name, p in model.named_parameters()
            }
            with torch.no_grad():
                out, start = functional_call(model, moved, (x,)), model(x)
            values.append(float(_loss(loss, out, y) - _loss(loss, start, y)))
        doubt = math.hypot(float(found.stderr[place]), np.std(values) / math.sqrt(1000))
        assert abs(float(found.mean[place]) - np.mean(values)) <= 5 * doubt
        assert float(found.stderr[place]) == pytest.approx(np.std(values) / math.sqrt(1000), rel=0.2)
    assert float(found.mean[1]) > 0


def _loss(loss: str, out: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(out, y) if loss == "cross-entropy" else (out.argmax(1) != y).double().mean()


def test_memory_changes_nothing_and_alphas_share_their_noise() -> None:
    """A chunk left out, or noise that depends on the chunks or on the other alphas."""
    model, x, y = trained()
    whole = expected_sharpness(model, x, y, alphas=[0.01, 0.02], draws=20)
    chunked = expected_sharpness(model, x, y, alphas=[0.01, 0.02], draws=20, memory=2000)
    alone = expected_sharpness(model, x, y, alphas=[0.02], draws=20)
    torch.testing.assert_close(chunked.values, whole.values, rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(alone.values[0], whole.values[1], rtol=0, atol=0)
    tight = max_sharpness(model, x, y, steps=10, memory=4000)
    assert tight.value == pytest.approx(max_sharpness(model, x, y, steps=10).value, rel=1e-9)


def test_a_generator_moves_on_and_a_seed_repeats() -> None:
    """Two measurements that share their noise unasked, or differ unasked."""
    model, x, y = trained()
    source = torch.Generator().manual_seed(0)
    first, second = (
        expected_sharpness(model, x, y, alphas=[0.01], draws=5, generator=source) for _ in range(2)
    )
    seeded = expected_sharpness(model, x, y, alphas=[0.01], draws=5, generator=0)
    assert torch.equal(seeded.values, first.values) and not torch.equal(first.values, second.values)


@pytest.mark.parametrize("loss", ["half-sum", "half-mean", "mean"])
def test_squared_losses_are_those_of_training(loss: str) -> None:
    """A loss of the same name and another scale."""
    from labkit.training import LOSSES as TRAINING

    model, x = network(5, 7, 3), drawn(11, 5, seed=4)
    y = drawn(11, 3, seed=5)
    found = expected_sharpness(model, x, y, alphas=[0.01], draws=2, loss=loss)
    assert found.loss == pytest.approx(float(TRAINING[loss](model(x).detach(), y)), rel=1e-12)
    assert max_sharpness(model, x, y, steps=1, loss=loss).loss == pytest.approx(found.loss, rel=1e-12)


@pytest.mark.parametrize("loss", ["cross-entropy", "mean", "error"])
def test_positions_of_a_sequence_count_as_samples_do(loss: str) -> None:
    """Positions and classes flattened into one axis of outputs; classes taken from the second axis."""
    model, x = network(5, 7, 3), drawn(4, 6, 5, seed=4)  # as many samples' positions as nothing else
    y = drawn(4, 6, 3, seed=5) if loss == "mean" else torch.arange(24).reshape(4, 6) % 3
    flat = (x.reshape(24, 5), y.reshape(24, -1) if loss == "mean" else y.flatten())
    whole = expected_sharpness(model, x, y, alphas=[0.01], draws=2, loss=loss)
    parts = expected_sharpness(model, *flat, alphas=[0.01], draws=2, loss=loss)
    assert whole.loss == pytest.approx(parts.loss, rel=1e-12)
    assert torch.allclose(whole.values, parts.values, rtol=1e-9, atol=1e-15)
    if loss != "error":
        rows = sample_gradients(model, x, y, loss=loss)
        expected = sample_gradients(model, *flat, loss=loss).unflatten(0, (4, 6)).mean(1)
        assert torch.allclose(rows, expected, rtol=1e-10, atol=1e-14)
        assert torch.allclose(gradient_gram(model, x, y, loss=loss), rows @ rows.T, rtol=1e-10, atol=1e-14)


def test_a_loss_of_ones_own_sees_a_sequence_in_its_shape() -> None:
    """(n, T, K) handed on as (n, T K)."""
    model, x, y = network(5, 7, 3), drawn(4, 6, 5, seed=4), torch.arange(24).reshape(4, 6) % 3

    def own(f: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        assert f.shape[1:] == (6, 3)
        return torch.nn.functional.cross_entropy(f.mT, labels, reduction="none").mean(1)

    assert torch.allclose(gradient_gram(model, x, y, loss=own), gradient_gram(model, x, y), rtol=1e-12)
    rows = batch_gradients(model, x, y, [[0, 2], [1]], loss=own)
    assert torch.allclose(rows, batch_gradients(model, x, y, [[0, 2], [1]]), rtol=1e-12)


# both


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_model_and_the_global_generator_stay_as_they_were(mode: str) -> None:
    """A measurement that trains, or that makes the next experiment depend on it."""
    model, x, y = trained()
    getattr(model, mode)()
    model[0].bias.requires_grad_(False)
    before, state = {n: p.clone() for n, p in model.state_dict().items()}, torch.get_rng_state()
    found = max_sharpness(model, x, y, steps=5, batch_size=10)
    expected_sharpness(model, x, y, alphas=[0.01], draws=3)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[n], p) for n, p in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters()) and model.training == (mode == "train")
    assert "0.bias" not in found.perturbation and parameter_vector(model).numel() == 6 * 12 + 12 * 3 + 3


def test_a_convolutional_network_with_batch_norm_in_eval_mode() -> None:
    """Modules beyond the perceptron, and buffers."""
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)
    ).double()
    with torch.no_grad():
        for place, p in enumerate(model.parameters()):
            p.copy_(drawn(*p.shape, seed=place) / 3)
    x, y = drawn(6, 1, 6, 6), torch.arange(6) % 3
    with pytest.raises(ValueError, match=r"max_sharpness: '1' is BatchNorm.*model.eval\(\)"):
        max_sharpness(model, x, y, steps=1)
    model.eval()
    assert max_sharpness(model, x, y, steps=4).value > 0
    assert expected_sharpness(model, x, y, alphas=[0.01], draws=3).values.shape == (1, 3)


def test_shared_layers_move_together() -> None:
    """A tied weight perturbed in one place only."""
    layer = nn.Linear(4, 4, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(drawn(4, 4) / 2)
    model, x, y = nn.Sequential(layer, nn.ReLU(), layer), drawn(9, 4, seed=1), drawn(9, 4, seed=2)
    found = max_sharpness(model, x, y, loss="half-mean", alpha=0.05, steps=10)
    moved = layer.weight.detach() + found.perturbation["0.weight"]
    out = F.relu(x @ moved.T) @ moved.T
    assert float((out - y).square().sum()) / 18 - found.loss == pytest.approx(found.value, rel=1e-9)


# kl_at_sharpness


def test_a_power_law_is_interpolated_exactly() -> None:
    """Sharpness ~ alpha^2 and KL ~ alpha^-2 are straight lines in logarithms."""
    alphas = np.geomspace(1e-4, 1e-1, 7)
    mean, kl = 5 * alphas**2, 3 / alphas**2
    for target in (1e-6, 1e-3, 0.05):
        assert kl_at_sharpness(alphas, mean, kl, target) == pytest.approx(15 / target, rel=1e-10)
    shuffled = np.random.default_rng(0).permutation(7)
    assert kl_at_sharpness(alphas[shuffled], mean[shuffled], kl[shuffled], 1e-3) == pytest.approx(15e3)
    assert kl_at_sharpness(torch.tensor(alphas), torch.tensor(mean), kl, mean[3]) == pytest.approx(kl[3])


def test_outside_its_range_it_is_not_a_number() -> None:
    """An extrapolation that looks like a measurement."""
    for target in (1e-4, 10.0):
        assert math.isnan(kl_at_sharpness([1, 2, 3], [0.01, 0.1, 1.0], [3, 2, 1], target))
    assert math.isnan(kl_at_sharpness([1], [0.05], [3], 0.05))


def test_a_dip_below_zero_is_bridged() -> None:
    """Noise makes small sharpness negative, which has no logarithm."""
    found = kl_at_sharpness([1, 2, 4], [-0.01, -0.05, 0.15], [400, 100, 25], 0.05)
    assert found == pytest.approx(50)  # half way from -.05 to .15, in log KL


BAD = [
    (lambda m, x, y: max_sharpness(m, x, y, alpha=0.0), "max_sharpness: alpha is 0.0, needs a"),
    (lambda m, x, y: max_sharpness(m, x, y, steps=0), "steps is 0, needs a whole number of at least 1"),
    (lambda m, x, y: max_sharpness(m, x, y, batch_size=0), "batch_size is 0, needs a whole number"),
    (lambda m, x, y: max_sharpness(m, x, y, seed=-1), "generator is -1, needs a torch.Generator or a seed"),
    (lambda m, x, y: max_sharpness(m, x, y, loss="error"), "loss 'error' is not one of cross-entropy"),
    (lambda m, x, y: max_sharpness(m, x, y, memory=0), "memory is 0, needs a positive number of bytes"),
    (lambda m, x, y: max_sharpness(m, x[:0], y), r"x is \(0, 6\), needs a tensor \(n, ...\)"),
    (lambda m, x, y: max_sharpness(m, x, y.double()), r"y is \(40,\) of torch.float64 for outputs \(40, 3\)"),
    (lambda m, x, y: max_sharpness(m, x, y + 1), "takes class numbers from 0 to K - 1 = 2"),
    (lambda m, x, y: max_sharpness(m, x, y[:5]), r"y is \(5,\)"),
    (lambda m, x, y: max_sharpness(m, x, y.tolist()), "y is a list, needs a tensor"),
    (lambda m, x, y: max_sharpness(m, x, y, loss="mean"), r"mean takes floats \(\d+, 3\)"),
    (lambda m, x, y: expected_sharpness(m, x, y, alphas=[]), r"expected_sharpness: alphas is \[\]"),
    (lambda m, x, y: expected_sharpness(m, x, y, alphas=[0.0]), r"alphas is \[0.0\], needs positive numbers"),
    (lambda m, x, y: expected_sharpness(m, x, y, alphas=[1e-3], draws=1), "draws is 1, needs a whole"),
    (lambda m, x, y: expected_sharpness(m, x, y, alphas=[1e-3], relative=-1.0), "relative is -1.0, needs a"),
    (lambda m, x, y: expected_sharpness(m, x, y, alphas=[1e-3], generator="a"), "generator is 'a'"),
    (lambda m, x, y: expected_sharpness(m.requires_grad_(False), x, y, alphas=[1]), "no parameter of"),
    (lambda m, x, y: expected_sharpness(nn.Sequential(m, nn.Dropout()), x, y, alphas=[1]), "active dropout"),
    (lambda m, x, y: kl_at_sharpness([1, 2], [0.1, 0.2], [1], 0.1), "alphas, mean and kl are"),
    (lambda m, x, y: kl_at_sharpness([0, 2], [0.1, 0.2], [1, 2], 0.1), "alphas and kl need positive"),
    (lambda m, x, y: kl_at_sharpness([1, 2], [0.1, 0.2], [1, 2], 0.0), "target is 0.0, needs a positive"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), BAD)
def test_a_bad_argument_is_named(call, message: str) -> None:
    """A value out of range that runs on."""
    model, x, y = network(6, 4, 3), drawn(40, 6), torch.arange(40) % 3
    with pytest.raises(ValueError, match=message):
        call(model, x, y)


def test_a_function_is_not_a_model() -> None:
    """An error from the middle of torch."""
    with pytest.raises(TypeError, match="max_sharpness: model is a function, needs a torch.nn.Module"):
        max_sharpness(lambda x: x, drawn(2, 2), torch.tensor([0, 1]))
    assert measured.__all__
