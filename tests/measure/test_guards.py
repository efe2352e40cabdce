"""What is refused, in which words, and what is left untouched."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.measure import empirical_ntk, jacobian

from .conftest import drawn, functional, generator, mlp

X = torch.randn(6, 5, generator=generator(0), dtype=torch.float64)


class Drops(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(super().forward(x), 0.5)


class Centres(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        z = super().forward(x)
        return z - z.mean(0)


def with_layer(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 4), layer, nn.Tanh(), nn.Linear(4, 3)).double()


REFUSED: dict[str, tuple[Callable[[], Any], str, str]] = {
    "batch norm": (lambda: with_layer(nn.BatchNorm1d(4)), r"'1' is BatchNorm", r"model\.eval\(\)"),
    "stateless norm": (
        lambda: with_layer(nn.BatchNorm1d(4, track_running_stats=False)).eval(),
        r"'1' is batch normalisation without running statistics",
        r"track_running_stats=True.*torch\.nn\.GroupNorm",
    ),
    "dropout": (lambda: with_layer(nn.Dropout(0.1)), r"'1' is active dropout", r"model\.eval\(\)"),
    "functional dropout": (lambda: Drops(5, 3).double(), "not deterministic", r"F\.dropout"),
    "batch statistics": (lambda: Centres(5, 3).double(), "sample 0 change", "first axis"),
    "nothing to differentiate": (
        lambda: mlp(5, 3, 2).double().requires_grad_(False),
        "no parameter of the model requires grad",
        r"requires_grad_\(\)",
    ),
    "another type": (
        lambda: mlp(5, 3, 2),
        "x is torch.float64, the parameters are torch.float32",
        r"x\.to\(",
    ),
    "several results": (lambda: nn.LSTM(5, 3).double(), "returned tuple for 2 samples", "wrap it"),
    "a function alone": (lambda: functional, "model is a function", r"params=dict"),
}


@pytest.mark.parametrize("reason", REFUSED)
@pytest.mark.parametrize("measure", [jacobian, empirical_ntk], ids=["jacobian", "ntk"])
def test_broken_promises_are_refused_with_culprit_and_remedy(
    reason: str, measure: Callable[..., Any]
) -> None:
    """A matrix that changes with the chunk size or from call to call, measured in silence."""
    build, culprit, remedy = REFUSED[reason]
    with pytest.raises(ValueError, match=culprit) as caught:
        measure(build(), X)
    assert re.search(remedy, str(caught.value)), str(caught.value)
    assert str(caught.value).startswith(("jacobian: ", "empirical_ntk: "))


def test_eval_mode_and_zero_dropout_pass() -> None:
    """Refusing a layer for its type, although it is switched off."""
    assert jacobian(with_layer(nn.BatchNorm1d(4)).eval(), X).shape[0] == 18
    assert jacobian(with_layer(nn.Dropout(0.0)), X).shape[0] == 18


def test_a_mode_changed_later_is_refused_at_the_next_product() -> None:
    """A lazily evaluated operator measuring another function than the one it was made for."""
    model = with_layer(nn.BatchNorm1d(4)).eval()
    J = jacobian(model, X, route="products")
    model.train()
    with pytest.raises(ValueError, match=r"'1' is BatchNorm"):
        J.matmat(torch.ones(J.p, 1, dtype=torch.float64))


class Explodes(nn.Module):
    """Fails on the n-th call; so also in the middle of a product."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.layer, self.left = nn.Linear(5, 3), at

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise ArithmeticError("boom")
        torch.rand(3)
        return self.layer(x)


@pytest.mark.parametrize("at", [0, 2, 4, 6, 7, 99])
def test_parameters_mode_and_generators_are_left_as_they_were(at: int) -> None:
    """Swapped parameters that stay swapped, a forced mode, consumed random numbers; after errors too."""
    model = Explodes(at).double().train()
    before = {name: (id(p), p.detach().clone()) for name, p in model.named_parameters()}
    state = torch.get_rng_state()
    try:
        J = jacobian(model, X, route="products")
        J.rmatmat(J.matmat(torch.ones(J.p, 1, dtype=torch.float64)))
        J.gram()
    except (ArithmeticError, ValueError):
        assert at < 99
    for name, p in model.named_parameters():
        assert id(p) == before[name][0]
        assert torch.equal(p, before[name][1])
        assert p.grad is None
        assert p.requires_grad
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)


BAD_CALLS: list[tuple[Callable[[], Any], str]] = [
    (lambda: jacobian(drawn(mlp(5, 3)), X[:0]), r"x is \(0, 5\).*at least one sample"),
    (lambda: jacobian(drawn(mlp(5, 3)), X, params=["9.weight"]), r"params names \['9.weight'\].*'0.weight'"),
    (lambda: jacobian(drawn(mlp(5, 3)), X, memory=0), "memory is 0.*positive"),
    (lambda: jacobian(drawn(mlp(5, 3)), X, route="fast"), "route is 'fast'.*'stored'"),
    (lambda: jacobian(functional, X, params={"first": X}), "KeyError|second|shift"),
    (lambda: jacobian(drawn(mlp(5, 3)), X).matmat(X), r"V has shape \(6, 5\), needs \(18, b\)"),
    (lambda: jacobian(drawn(mlp(5, 3)), X).matmat(torch.ones(18, 1)), r"V is torch.float32.*V\.to\("),
    (lambda: jacobian(drawn(mlp(5, 3)), X).rows(X), r"needs \(n, K\) = \(6, 3\)"),
    (lambda: empirical_ntk(drawn(mlp(5, 3)), X, X[:, :2]), r"x2 is \(6, 2\).*like those of x"),
]


@pytest.mark.parametrize("number", range(len(BAD_CALLS)))
def test_bad_arguments_are_named(number: int) -> None:
    """A shape error from deep inside a matrix product instead of the argument's name."""
    call, words = BAD_CALLS[number]
    with pytest.raises((ValueError, KeyError), match=words):
        call()


def test_a_route_that_the_model_does_not_allow_is_refused() -> None:
    """An explicit route silently replaced by another."""
    model = nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4)).double()
    with pytest.raises(ValueError, match=r"route='dense'.*'1.weight'.*route='auto'"):
        jacobian(model, X, route="dense")
