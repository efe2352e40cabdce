"""Gram matrices of gradients: every route against gradients taken one by one, on every kind of model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.measure import dense_jacobian, jacobian, ntk_route
from labkit.measure.gradients import batch_gradients, batch_gram, gradient_gram
from labkit.models import mlp as network
from labkit.models import resnet20

from .conftest import Case, assert_close, drawn, generator, mlp, params_of

N, K = 14, 4
X = torch.randn(N, 6, generator=generator(1), dtype=torch.float64)
LABELS = torch.randint(K, (N,), generator=generator(2))
TARGETS = torch.randn(N, K, generator=generator(3), dtype=torch.float64)
IMAGES = torch.randn(9, 1, 8, 8, generator=generator(4), dtype=torch.float64)
CLASSES = torch.randint(10, (9,), generator=generator(5))
ALONE = torch.arange(N)[:, None]


def cubic(f: Tensor, y: Tensor) -> Tensor:
    return (f - y).abs().pow(3).sum(1)


# name of the loss -> targets, and the loss of one sample, by torch's own functions
LOSSES: dict[str, tuple[Any, Tensor, Callable[[Tensor, Tensor], Tensor]]] = {
    "cross-entropy": ("cross-entropy", LABELS, lambda f, y: F.cross_entropy(f[None], y[None])),
    "half-sum": ("half-sum", TARGETS, lambda f, y: F.mse_loss(f, y, reduction="sum") / 2),
    "half-mean": ("half-mean", TARGETS, lambda f, y: F.mse_loss(f, y, reduction="sum") / 2),
    "mean": ("mean", TARGETS, lambda f, y: F.mse_loss(f, y)),
    "a function": (cubic, TARGETS, lambda f, y: ((f - y).abs() ** 3).sum()),
}


def one_by_one(model: nn.Module, x: Tensor, y: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The gradients of single samples (n, p), each by a backward pass of its own."""
    leaves = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for i in range(len(x)):
        grads = torch.autograd.grad(loss(model(x[i : i + 1])[0], y[i]), leaves)
        rows.append(torch.cat([g.flatten() for g in grads]))
    return torch.stack(rows)


def cosines(gram: Tensor) -> Tensor:
    norms = gram.diag().sqrt()
    return gram / norms[:, None] / norms


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_dense_cosines_equal_those_of_explicit_gradients(loss: str, bias: bool, activation: str) -> None:
    """A layer or bias lost, an activation's derivative left out, a loss scaled or summed otherwise."""
    model = drawn(network(6, 9, 3, K, activation=activation, bias=bias))
    name, y, reference = LOSSES[loss]
    G, rows = gradient_gram(model, X, y, loss=name), one_by_one(model, X, y, reference)
    assert ntk_route(model, X) == "dense"
    assert_close(G, rows @ rows.T)
    assert float((cosines(G) - cosines(rows @ rows.T)).abs().max()) <= 1e-10
    assert_close(batch_gradients(model, X, y, ALONE, loss=name), rows)
    # Another path, not the same one twice.
    assert not torch.equal(G, rows @ rows.T)


@pytest.mark.parametrize("memory", [1, 20_000, 2**29])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("skip", [False, True])
def test_chunked_cosines_equal_those_of_explicit_gradients(skip: bool, batch_norm: bool, memory: int) -> None:
    """A skip or a norm that the taps miss; a group of columns or a tile of samples lost."""
    model = resnet20(10, 1, width=3, blocks=1, batch_norm=batch_norm, skip=skip, dtype=torch.float64)
    model = drawn(model, seed=7).eval()
    images, classes = IMAGES[:5], CLASSES[:5]
    rows = one_by_one(model, images, classes, LOSSES["cross-entropy"][2])
    G = gradient_gram(model, images, classes, memory=memory)
    assert_close(G, rows @ rows.T)
    assert float((cosines(G) - cosines(rows @ rows.T)).abs().max()) <= 1e-10
    alone = torch.arange(len(images))[:, None]
    assert_close(batch_gradients(model, images, classes, alone, batch_statistics=False), rows)


def convolutions(*layers: nn.Module) -> nn.Module:
    outputs = nn.Sequential(*layers)(torch.zeros(1, 4, 8, 8))[0].numel()
    return drawn(nn.Sequential(*layers, nn.Tanh(), nn.Flatten(), nn.Linear(outputs, 3)))


class Twice(nn.Module):
    """One convolution used on images of two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.out = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.own(F.avg_pool2d(self.own(x).tanh(), 2)).flatten(1))


ODD: dict[str, Callable[[], nn.Module]] = {
    "groups": lambda: convolutions(nn.Conv2d(4, 6, 3, groups=2), nn.Tanh(), nn.Conv2d(6, 6, 3, groups=6)),
    "stride that does not fit": lambda: convolutions(nn.Conv2d(4, 5, 3, 2), nn.Tanh(), nn.Conv2d(5, 4, 2, 2)),
    "dilation": lambda: convolutions(nn.Conv2d(4, 5, (3, 2), dilation=(2, 3), padding=(1, 0), bias=False)),
    "circular": lambda: convolutions(
        nn.Conv2d(4, 5, 3, padding=1), nn.Conv2d(5, 4, 3, padding=1, padding_mode="circular")
    ),
    "same": lambda: convolutions(nn.Conv2d(4, 5, 3, padding="same"), nn.ReLU(), nn.Conv2d(5, 2, 1)),
    "transposed": lambda: convolutions(nn.Conv2d(4, 5, 3), nn.ReLU(), nn.ConvTranspose2d(5, 2, 2, 2)),
    "of one axis": lambda: convolutions(nn.Flatten(2), nn.Conv1d(4, 5, 3), nn.ReLU(), nn.Conv1d(5, 3, 2)),
    "used twice": lambda: drawn(Twice()),
}


@pytest.mark.parametrize("memory", [3000, 2**29])
@pytest.mark.parametrize("kind", ODD)
def test_odd_convolutions_equal_explicit_gradients(kind: str, memory: int) -> None:
    """Channels of one group taken for another's, a border lost, a shared weight without its cross terms."""
    x, y = torch.randn(7, 4, 8, 8, generator=generator(6), dtype=torch.float64), torch.arange(7) % 3
    model = ODD[kind]()
    rows = one_by_one(model, x, y, LOSSES["cross-entropy"][2])
    assert_close(gradient_gram(model, x, y, memory=memory), rows @ rows.T)
    assert_close(batch_gradients(model, x, y, torch.arange(7)[:, None]), rows)
    halves = torch.stack([rows[:3].mean(0), rows[3:].mean(0)])
    assert_close(batch_gram(model, x, y, [range(3), range(3, 7)]), halves @ halves.T)
    J = dense_jacobian(model, x)
    assert_close(jacobian(model, x).dense(), J)
    assert_close(jacobian(model, x, route="products").gram(), J @ J.T)


def test_every_kind_of_model_equals_its_jacobian_applied_to_the_loss(case: Case) -> None:
    """Shared layers, tied weights, frozen ones, recurrence, functions: g_i = J_i^T (f_i - y_i)."""
    model, x, given = case.model(), case.inputs(), params_of(case)
    J = dense_jacobian(model, x, **given).unflatten(0, (len(x), -1))
    y = torch.randn(J.shape[:2], generator=generator(9), dtype=torch.float64)
    with torch.no_grad():
        f = (model(given["params"], x) if given else model(x)).reshape(len(x), -1)
    rows = torch.einsum("nkp,nk->np", J, f - y)
    assert_close(gradient_gram(model, x, y, loss="half-sum", **given), rows @ rows.T)
    halves = torch.arange(len(x)).chunk(2)
    expected = torch.stack([rows[half].mean(0) for half in halves])
    found = batch_gradients(model, x, y, halves, loss="half-sum", batch_statistics=False, **given)
    assert_close(found, expected)


def test_two_samples_of_a_linear_model_by_hand() -> None:
    """W = (1, 0): residuals 1 and -1, inputs (1, 0) and (0, 2)."""
    model = mlp(2, 1, bias=False).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0.0]]))
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    for y in (torch.tensor([[0.0], [1.0]]).double(), torch.tensor([0.0, 1.0]).double()):
        G = gradient_gram(model, x, y, loss="half-sum")
        assert torch.equal(G, torch.tensor([[1.0, 0.0], [0.0, 4.0]]).double())


def test_only_the_parameters_asked_for_count() -> None:
    """The last layer's Gram matrix taken for the network's; biases that count nothing."""
    model = drawn(network(6, 9, 2, K))
    names = [name for name, _ in model.named_parameters()]
    whole = gradient_gram(model, X, LABELS)
    parts = [gradient_gram(model, X, LABELS, params=[name]) for name in names]
    assert_close(sum(parts[1:], parts[0]), whole)
    assert all(float(part.diag().min()) > 0 for part in parts)
    assert_close(batch_gram(model, X, LABELS, ALONE, params=names[-2:]), parts[-2] + parts[-1])


def test_it_is_symmetric_and_leaves_no_graph() -> None:
    """A half that was not mirrored; a result that drags the network's graph along."""
    model = drawn(network(6, 9, 2, K))
    with torch.inference_mode():
        G = gradient_gram(model, X, LABELS)
        B = batch_gram(model, X, LABELS, ALONE)
    for found in (G, B):
        assert torch.equal(found, found.T) and not found.requires_grad and not found.is_inference()


def test_fitted_samples_in_single_precision_raise_no_alarm() -> None:
    """The rounding of a tiny loss taken for a random model, or its vanishing gradient for a proof."""
    model = mlp(3, 5, 3)
    x = 30 * F.one_hot(torch.arange(3)).float()
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(5, 3))
        model[0].bias.zero_()
        model[2].weight.copy_(12 * torch.eye(3, 5))
        model[2].bias.zero_()
    y = torch.arange(3)
    rows = one_by_one(model, x, y, LOSSES["cross-entropy"][2])
    assert F.cross_entropy(model(x), y).item() < 2e-5
    # 1 - p is about 1e-5 and rounded to 6e-8.
    assert_close(gradient_gram(model, x, y), rows @ rows.T, rtol=0.02)


# Minibatches.


def in_training(model: nn.Module, x: Tensor, y: Tensor, batch: Tensor) -> Tensor:
    """The gradient that a step of SGD on this minibatch would use."""
    step = copy.deepcopy(model).train()
    F.cross_entropy(step(x[batch]), y[batch]).backward()
    return torch.cat([p.grad.flatten() for p in step.parameters() if p.grad is not None])


BATCHES = torch.tensor([[0, 1, 2], [3, 4, 5], [6, 7, 8], [2, 4, 8]])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_row_is_the_gradient_of_a_step_on_its_minibatch(batch_norm: bool, training: bool) -> None:
    """Running statistics used or moved; one minibatch's statistics reaching the next; the mode deciding."""
    model = drawn(resnet20(10, 1, width=3, blocks=1, batch_norm=batch_norm), seed=8).train(training)
    before = copy.deepcopy(model.state_dict())
    rows = batch_gradients(model, IMAGES, CLASSES, BATCHES)
    assert_close(rows, torch.stack([in_training(model, IMAGES, CLASSES, batch) for batch in BATCHES]))
    assert torch.equal(rows.flip(0), batch_gradients(model, IMAGES, CLASSES, BATCHES.flip(0)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(layer.training == training for layer in model.modules())


def test_batch_statistics_matter_where_there_is_batch_norm() -> None:
    """A switch that does nothing, or one that changes a network without batch norm."""
    for batch_norm in (False, True):
        model = drawn(resnet20(10, 1, width=3, blocks=1, batch_norm=batch_norm), seed=8)
        found = [batch_gradients(model, IMAGES, CLASSES, BATCHES, batch_statistics=b) for b in (False, True)]
        assert torch.equal(*found) != batch_norm


@pytest.mark.parametrize("memory", [1, 60_000, 2**29])
def test_the_gram_of_minibatches_is_that_of_their_gradients(memory: int) -> None:
    """Tiles lost or transposed; without batch statistics it is also the average of the samples' Gram."""
    model = drawn(resnet20(10, 1, width=3, blocks=1, batch_norm=True), seed=8).eval()
    rows = batch_gradients(model, IMAGES, CLASSES, BATCHES)
    assert_close(batch_gram(model, IMAGES, CLASSES, BATCHES, memory=memory), rows @ rows.T)
    average = torch.zeros(len(BATCHES), len(IMAGES), dtype=torch.float64)
    average.scatter_(1, BATCHES, 1 / 3)
    expected = average @ gradient_gram(model, IMAGES, CLASSES) @ average.T
    found = batch_gram(model, IMAGES, CLASSES, BATCHES, batch_statistics=False, memory=memory)
    assert_close(found, expected)


def test_minibatches_may_have_any_sizes_and_repeat_samples() -> None:
    """Lists, sizes that differ, a sample drawn twice counting once."""
    model = drawn(network(6, 9, 2, K))
    rows = one_by_one(model, X, LABELS, LOSSES["cross-entropy"][2])
    found = batch_gradients(model, X, LABELS, [[0], (1, 2), torch.tensor([3, 3, 4])])
    assert_close(found, torch.stack([rows[0], rows[1:3].mean(0), rows[[3, 3, 4]].mean(0)]))


# What is left alone, and what is refused.


def test_the_model_and_the_generators_stay_as_they_are() -> None:
    """Gradients written into the model, a mode not given back, global random numbers spent."""
    model = drawn(resnet20(10, 1, width=3, blocks=1, batch_norm=True), seed=8).eval()
    x, y = IMAGES.clone(), CLASSES.clone()
    state, random = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    gradient_gram(model, x, y)
    batch_gram(model, x, y, BATCHES)
    with pytest.raises(ValueError, match="minibatch 1"):
        batch_gradients(model, x, y, [[0, 1], [9]])
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(layer.training for layer in model.modules())
    assert torch.equal(random, torch.random.get_rng_state())
    assert torch.equal(x, IMAGES) and torch.equal(y, CLASSES)


class Drops(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(super().forward(x), 0.5)


MODEL = drawn(network(6, 5, 1, K))
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "batch norm": (
        lambda: gradient_gram(drawn(resnet20(10, 1, width=3, blocks=1, batch_norm=True)), IMAGES, CLASSES),
        r"gradient_gram: 'norm'.*training mode.*model\.eval\(\)",
    ),
    "dropout": (
        lambda: gradient_gram(nn.Sequential(MODEL, nn.Dropout(0.5)), X, LABELS),
        "gradient_gram: '1' is active dropout",
    ),
    "dropout, minibatches": (
        lambda: batch_gradients(nn.Sequential(MODEL, nn.Dropout(0.5)), X, LABELS, ALONE),
        "batch_gradients: '1' is active dropout",
    ),
    "chance": (lambda: gradient_gram(drawn(Drops(6, K)), X, LABELS), "not deterministic"),
    "chance, minibatches": (lambda: batch_gram(drawn(Drops(6, K)), X, LABELS, ALONE), "not deterministic"),
    "memory": (lambda: gradient_gram(MODEL, X, LABELS, memory=0), "memory is 0, needs a positive"),
    "memory, minibatches": (lambda: batch_gram(MODEL, X, LABELS, ALONE, memory=-1), "memory is -1, needs"),
    "loss": (lambda: gradient_gram(MODEL, X, LABELS, loss="hinge"), "loss is 'hinge', needs one of cross-en"),
    "number of targets": (lambda: gradient_gram(MODEL, X, LABELS[:5]), r"y is \(5,\).*the 14 samples"),
    "no tensor": (lambda: gradient_gram(MODEL, X, [1, 2]), "y is list"),
    "floats for classes": (lambda: gradient_gram(MODEL, X, TARGETS), "cross-entropy takes class numbers"),
    "class out of range": (lambda: gradient_gram(MODEL, X, LABELS + 1), "class numbers from 0 to K - 1"),
    "classes for floats": (
        lambda: gradient_gram(MODEL, X, LABELS, loss="half-sum"), r"half-sum takes floats \(14, 4\)"
    ),
    "columns": (lambda: gradient_gram(MODEL, X, TARGETS[:, :2], loss="mean"), r"mean takes floats \(14, 4\)"),
    "mean loss": (
        lambda: gradient_gram(MODEL, X, TARGETS, loss=lambda f, y: (f - y).square().mean()),
        r"loss gave \(\) for 24 samples, needs one number a sample",
    ),
    "loss across samples": (
        lambda: gradient_gram(MODEL, X, TARGETS, loss=lambda f, y: (f - y).square().sum(1) / len(f)),
        "the loss of a sample is .* beside others and .* alone",
    ),
    "empty minibatch": (lambda: batch_gradients(MODEL, X, LABELS, [[0], []]), r"minibatch 1 is \[\]"),
    "no minibatch": (lambda: batch_gradients(MODEL, X, LABELS, []), "batches is empty"),
    "sample too high": (lambda: batch_gradients(MODEL, X, LABELS, [[14]]), r"\[14\], needs .* from 0 to 13"),
    "sample below 0": (lambda: batch_gradients(MODEL, X, LABELS, [[-1, 2]]), "minibatch 0 is .-1, 2."),
    "a mask": (lambda: batch_gradients(MODEL, X, LABELS, [LABELS > 1]), r"is \(14,\), torch.bool"),
    "floats": (lambda: batch_gradients(MODEL, X, LABELS, [[0.5]]), r"minibatch 0 is \[0.5\]"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_in_words_that_help(what: str) -> None:
    """A wrong input that gives numbers."""
    call, message = REFUSED[what]
    with pytest.raises(ValueError, match=message):
        call()
