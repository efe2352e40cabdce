"""Capacities by their formulas, and Lipschitz constants against the Jacobian."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import jacrev, vmap

from labkit.measure.capacity import Capacities, capacities, local_lipschitz
from labkit.measure.layers import weight_layers
from labkit.measure.paths import path_norms
from labkit.models import fold_batch_norm, mlp, resnet20, vgg
from tests.measure.conftest import drawn, generator


def problem(seed: int = 0) -> tuple[nn.Module, Tensor, Tensor]:
    """A network whose own answers are the labels, so that every margin is positive."""
    model = drawn(mlp(4, 3, 2, 2), seed)
    x = torch.randn(40, 4, generator=generator(seed + 1), dtype=torch.float64)
    return model, x, model(x).argmax(1)


def by_hand(model: nn.Module, gamma: float, factors: bool, biases: bool) -> dict[str, float]:
    """The four formulas; without biases path by path."""
    W = [layer.weight.detach() for layer in model.layers]
    b = [layer.bias.detach() for layer in model.layers]
    h = [len(w) for w in W]
    l1 = l2 = 0.0
    for path in itertools.product(range(W[0].shape[1]), *(range(units) for units in h)):
        steps = [float(w[path[k + 1], path[k]]) for k, w in enumerate(W)]
        l1 += math.prod((2 if factors else 1) * abs(w) for w in steps)
        l2 += math.prod((4 * h[k] if factors else 1) * w**2 for k, w in enumerate(steps))
    if biases:
        l1, l2 = _with_biases(W, b, h, factors)
    spectral = math.prod(
        (h[k] if factors else 1) * float(torch.linalg.svdvals(w)[0]) ** 2 for k, w in enumerate(W)
    )
    squares = [float(w.norm() ** 2 + (c.norm() ** 2 if biases else 0)) for w, c in zip(W, b, strict=True)]
    frobenius = math.prod((4 if factors else 1) * square for square in squares)
    found = {"l2": frobenius, "l1_path": l1**2, "l2_path": l2, "spectral": spectral}
    return {name: value / gamma**2 for name, value in found.items()}


def _with_biases(W: list[Tensor], b: list[Tensor], h: list[int], factors: bool) -> tuple[float, float]:
    """Paths from the inputs and from each bias, as matrix products of one path length each."""
    sums = []
    for p, c in ((1, [2.0] * len(W)), (2, [4.0 * units for units in h])):
        c = c if factors else [1.0] * len(W)
        total = 0.0
        for start in range(len(W) + 1):
            if start == 0:
                chain, first = range(len(W)), torch.ones(W[0].shape[1], dtype=torch.float64)
            else:
                chain, first = range(start, len(W)), c[start - 1] * b[start - 1].abs() ** p
            for k in chain:
                first = c[k] * (W[k].abs() ** p) @ first
            total += float(first.sum())
        sums.append(total)
    return sums[0], sums[1]


@pytest.mark.parametrize("factors", [False, True])
@pytest.mark.parametrize("biases", [False, True])
def test_the_four_capacities_are_their_formulas(factors: bool, biases: bool) -> None:
    """A sum of squares in the place of the square of the sum; a factor once instead of d times."""
    model, x, y = problem()
    found = capacities(model, x, y, factors=factors, biases=biases)
    for name, value in by_hand(model, found.margin, factors, biases).items():
        assert math.isclose(getattr(found, name), value, rel_tol=1e-10), name


def test_sizes_and_lipschitz_bounds() -> None:
    """Depth counted without the readout; a norm over the wrong axis."""
    model, x, y = problem()
    found = capacities(model, x, y)
    weights = [layer.weight.detach() for layer in model.layers]
    assert found.parameters == 4 * 3 + 3 + 3 * 3 + 3 + 3 * 2 + 2 == 35
    assert found.vc_order == 3 * 35
    assert math.isclose(found.lipschitz_inf, math.prod(float(w.abs().sum(1).max()) for w in weights))
    assert math.isclose(found.lipschitz_two, math.prod(float(torch.linalg.svdvals(w)[0]) for w in weights))


def test_the_margin_scales_capacities_by_its_inverse_square() -> None:
    """gamma in the place of gamma squared; epsilon ignored."""
    model, x, y = problem()
    hard, soft = capacities(model, x, y, epsilon=0), capacities(model, x, y, epsilon=0.5)
    assert hard.margin < soft.margin
    for name in ("l2", "l1_path", "l2_path", "spectral"):
        ratio = getattr(hard, name) / getattr(soft, name)
        assert math.isclose(ratio, (soft.margin / hard.margin) ** 2, rel_tol=1e-12)


def test_without_a_positive_margin_there_is_no_capacity() -> None:
    """A division by zero, or the capacity of a network that fits nothing."""
    model, x, y = problem()
    found = capacities(model, x, 1 - y)
    assert found.margin < 0 and found.lipschitz_two > 0
    assert all(math.isnan(getattr(found, name)) for name in ("l2", "l1_path", "l2_path", "spectral"))
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert math.isnan(capacities(model, x, y).l2) and capacities(model, x, y).margin == 0.0


def test_units_of_a_convolution_are_channels_times_positions() -> None:
    """h_i = channels."""
    model = drawn(nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)))
    x = torch.randn(9, 1, 3, 3, generator=generator(0), dtype=torch.float64)
    y = model(x).argmax(1)
    plain, full = (capacities(model, x, y, factors=f) for f in (False, True))
    assert math.isclose(full.spectral / plain.spectral, 8 * 2, rel_tol=1e-12)
    assert math.isclose(full.l2_path / plain.l2_path, 4 * 8 * 4 * 2, rel_tol=1e-12)
    assert math.isclose(full.l1_path / plain.l1_path, 16, rel_tol=1e-12)
    assert math.isclose(full.l2 / plain.l2, 16, rel_tol=1e-12)


def test_a_folded_vgg_is_measured() -> None:
    """A network of the paper that the paper's measures refuse."""
    model = fold_batch_norm(vgg(2, 1, size=8, width=2, dtype=torch.float64))
    x = torch.randn(30, 1, 8, 8, generator=generator(0), dtype=torch.float64)
    found = capacities(model, x, model(x).argmax(1))
    assert all(math.isfinite(value) and value > 0 for value in vars(found).values())
    with pytest.raises(ValueError, match="fold it first"):
        capacities(vgg(2, 1, size=8, width=2), x.float(), torch.zeros(30, dtype=torch.int64))


def test_the_model_stays_and_chunks_change_nothing() -> None:
    """Gradients or evaluation mode left behind; a margin of the first thousand samples only."""
    model, x, y = problem()
    model.train()
    many, labels = x.repeat(60, 1), y.repeat(60)
    many[-1], labels[-1] = x[0], 1 - y[0]
    found = capacities(model, many, labels, epsilon=0)
    assert found.margin < 0
    assert model.training and all(p.grad is None for p in model.parameters())
    whole = local_lipschitz(model, x)
    assert torch.allclose(local_lipschitz(model, x, chunk=7), whole, rtol=1e-12)
    assert model.training and all(p.grad is None for p in model.parameters())


CHAINS = {
    "mlp": (lambda: mlp(4, 9, 2, 3), (4,)),
    "one output": (lambda: mlp(4, 9, 1, 1), (4,)),
    "more outputs than inputs": (lambda: mlp(2, 9, 1, 5), (2,)),
    "in place": (lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3), nn.ReLU(inplace=True)), (4,)),
    "tanh": (lambda: mlp(4, 9, 2, 3, activation="tanh"), (4,)),
    "convolutions": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(3, 3, 2, stride=2), nn.ReLU(), nn.AvgPool2d(1), nn.Flatten(), nn.Linear(3, 3),
        ),
        (2, 4, 4),
    ),
    "overlapping pools": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 1, 1), nn.MaxPool2d(3, 1, padding=1), nn.AvgPool2d(3, 1, 1), nn.MaxPool2d(2, 1),
            nn.AdaptiveAvgPool2d(5), nn.Flatten(),
        ),
        (1, 4, 4),
    ),
}  # fmt: skip


def jacobians(model: nn.Module, x: Tensor) -> Tensor:
    """(n, K, d) by torch.func."""
    tensors = {name: p.detach() for name, p in model.named_parameters()}
    return vmap(jacrev(lambda one: torch.func.functional_call(model, tensors, (one[None],))[0]))(x).flatten(2)


@pytest.mark.parametrize("name", [name for name in CHAINS if name != "in place"])
def test_the_local_constant_is_the_jacobians_largest_singular_value(name: str) -> None:
    """The Jacobian by the parameters, its Frobenius norm, samples mixed."""
    build, shape = CHAINS[name]
    model = drawn(build())
    x = torch.randn(11, *shape, generator=generator(3), dtype=torch.float64)
    found = local_lipschitz(model, x, chunk=4)
    expected = torch.linalg.svdvals(jacobians(model, x))[:, 0]
    assert found.shape == (11,) and found.dtype == torch.float64
    assert torch.allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("name", CHAINS)
@given(seed=st.integers(0, 10**6))
def test_no_local_constant_exceeds_the_product_of_spectral_norms(name: str, seed: int) -> None:
    """Pools whose windows overlap taken for 1-Lipschitz."""
    build, shape = CHAINS[name]
    model = drawn(build(), seed)
    x = torch.randn(6, *shape, generator=generator(seed), dtype=torch.float64)
    y = torch.zeros(6, dtype=torch.int64)
    if name == "one output":
        bound = math.prod(float(torch.linalg.svdvals(layer.weight)[0]) for layer in weight_layers(model, x))
    elif name == "tanh":
        bound = math.prod(float(torch.linalg.svdvals(layer.weight.detach())[0]) for layer in model.layers)
    else:
        bound = capacities(model, x, y).lipschitz_two
    assert float(local_lipschitz(model, x).max()) <= bound * (1 + 1e-12)


def test_the_spectral_bound_is_attained_by_a_linear_network() -> None:
    """A bound that is far off by construction."""
    u = torch.randn(4, generator=generator(0), dtype=torch.float64)
    model = drawn(nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)))
    with torch.no_grad():
        for part in model:
            part.weight.copy_(torch.outer(u, u))
    x = torch.zeros(3, 4, dtype=torch.float64)
    found = capacities(model, x, torch.zeros(3, dtype=torch.int64))
    assert math.isclose(float(local_lipschitz(model, x)[0]), found.lipschitz_two, rel_tol=1e-12)


@given(seed=st.integers(0, 10**6), depth=st.integers(0, 3))
def test_paths_of_one_output_lie_between_the_jacobian_and_the_group_norms(seed: int, depth: int) -> None:
    """prod ||W||_(1,inf) compared with the sum over all outputs, which may exceed it K times."""
    model = drawn(mlp(4, 5, depth, 3, bias=False), seed)
    x = torch.randn(6, 4, generator=generator(seed), dtype=torch.float64)
    found = capacities(model, x, torch.zeros(6, dtype=torch.int64))
    largest = float(path_norms(model, x, 1).max())
    assert float(jacobians(model, x).abs().sum(2).max()) <= largest * (1 + 1e-12)
    assert largest <= found.lipschitz_inf * (1 + 1e-12)


def test_the_sum_over_outputs_may_exceed_the_product_of_group_norms() -> None:
    """Why the bound speaks of one output: K equal rows."""
    model = mlp(2, 3, 1, 5, bias=False, dtype=torch.float64)
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1.0)
    x = torch.ones(1, 2, dtype=torch.float64)
    found = capacities(model, x, torch.zeros(1, dtype=torch.int64))
    assert float(path_norms(model, x, 1).sum()) == 5 * found.lipschitz_inf


def test_skip_connections_have_a_local_constant() -> None:
    """A refusal where the Jacobian is well defined."""
    found = local_lipschitz(
        resnet20(3, 1, width=2, blocks=1), torch.randn(2, 1, 8, 8, generator=generator(0))
    )
    assert found.shape == (2,) and bool((found > 0).all())


def test_the_result_is_frozen() -> None:
    """A number changed on its way to a figure."""
    found = capacities(*problem())
    assert isinstance(found, Capacities)
    with pytest.raises(AttributeError):
        found.l2 = 0.0


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda m, x: local_lipschitz(m, x, chunk=0), ValueError, "chunk: got 0"),
        (lambda m, x: local_lipschitz(str, x), TypeError, "model: got type"),
        (lambda m, x: local_lipschitz(nn.Identity(), x[None]), ValueError, r"model: outputs \(1, 40, 4\)"),
        (lambda m, x: capacities(m, x, torch.zeros(3, dtype=torch.int64)), ValueError, "y: shape"),
        (lambda m, x: capacities(mlp(4, 3, 1, 2, activation="tanh"), x, x.argmax(1) % 2), ValueError, "ReLU"),
    ],
)
def test_bad_arguments_are_named(call, kind: type, message: str) -> None:
    """An error from inside autograd."""
    model, x, _ = problem()
    with pytest.raises(kind, match=message):
        call(model, x)
