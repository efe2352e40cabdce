"""Bad arguments are refused at the call, by name."""

from typing import Any

import pytest
import torch
from torch import nn

from labkit.training import Ensemble, train
from labkit.training.losses import LOSSES
from tests.training.cases import data, linear

X, Y = data()
LABELS = torch.arange(10) % 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.0}, "lr: got 0.0; it takes a number above 0"),
        ({"lr": float("nan")}, "lr: got nan"),
        ({"lr": "0.1"}, "lr: got '0.1'"),
        ({"momentum": 1.0}, "momentum: got 1.0; it takes a number at least 0 and below 1"),
        ({"momentum": 0.9, "optimizer": "adam"}, "momentum: got 0.9 with optimizer='adam'"),
        ({"optimizer": "lbfgs"}, "optimizer: 'lbfgs' is not one of sgd, adam"),
        ({"loss": "mse"}, "loss: 'mse' is not one of half-sum, half-mean, mean, cross-entropy"),
        ({"batch_size": 0}, "batch_size: got 0; it takes a whole number of at least 1"),
        ({"steps": -1}, "steps: got -1"),
        ({"steps": None}, "steps, epochs: got None, None; give one of them"),
        ({"epochs": 3}, "steps, epochs: got 5, 3; give one of them"),
        ({"seed": -1}, "seed: got -1"),
        ({"seed": [1, 2]}, "seed: got 2 seeds for 1 copies"),
        ({"measure_at": 0}, "measure_at: got 0"),
        ({"tick_seconds": 0}, "tick_seconds: got 0"),
        ({"stop": ["loss < 1"]}, "stop: got 'loss < 1'; it takes rules such as LossBelow"),
        ({"measure": {"loss": len}}, "measure: loss is a name of the loop's own"),
        ({"schedule": {-1: 0.1}}, "schedule: start -1"),
        ({"schedule": {2: -0.1}}, "schedule: factor -0.1 at 2"),
        ({"y": LABELS}, r"y: shape \(10,\) of torch.int64 .* half-sum takes floats \(n, 3\): one_hot"),
        ({"y": Y[:, :2]}, r"y: shape \(10, 2\).* half-sum takes \(n, 3\)"),
        ({"y": Y[:9]}, "x, y: 10 inputs for 9 targets"),
        ({"loss": "cross-entropy"}, r"cross-entropy takes class numbers, \(n,\) int64"),
        ({"loss": "cross-entropy", "y": LABELS + 1}, "class numbers below their number"),
        ({"x": X[:, :4]}, r"x: one input of shape \(4,\) does not fit the network"),
        ({"x": X[:, 0]}, r"x: one input of shape \(\) does not fit the network"),
        ({"x": X[:0], "y": Y[:0]}, r"x: shapes \(0, 5\); it takes \(n, ...\) with n >= 1"),
        ({"x": [X, X]}, "x: got 2 tensors for 1 copies"),
        ({"x": X.numpy()}, "x: got ndarray; it takes a tensor"),
    ],
)
def test_bad_arguments_are_named_before_training_begins(change: dict[str, Any], message: str) -> None:
    """A run that fails at its first frame, in a worker thread, with a message of torch's."""
    with pytest.raises(ValueError, match=message):
        train(linear(), **({"x": X, "y": Y, "lr": 0.01, "steps": 5} | change))


def test_active_dropout_is_refused_and_off_it_is_not() -> None:
    """Two runs of one seed that differ."""
    model = nn.Sequential(linear(), nn.Dropout(0.5))
    with pytest.raises(ValueError, match=r"model: 1 is active dropout.*Set p=0, or call eval\(\)"):
        train(model, X, Y, lr=0.01, steps=5)
    assert list(train(model.eval(), X, Y, lr=0.01, steps=1))[-1].status == "done"


def test_a_model_with_nothing_to_train_is_refused() -> None:
    """An empty optimiser's own message."""
    with pytest.raises(ValueError, match="model: no parameter requires a gradient"):
        train(linear().requires_grad_(False), X, Y, lr=0.01, steps=5)


def test_a_network_that_does_not_give_rows_is_refused() -> None:
    """A loss over the wrong axes."""
    model = nn.Sequential(linear(), nn.Unflatten(1, (3, 1)))
    with pytest.raises(ValueError, match=r"model: gives \(1, 3, 1\) for one input; training takes \(1, K\)"):
        train(model, X, Y, lr=0.01, steps=5)


def test_a_measurement_without_seed_axis_is_refused_by_name() -> None:
    """A scalar that a band over seeds cannot be drawn of."""
    ensemble = Ensemble([linear(seed=s) for s in range(2)])
    frames = train(ensemble, X, Y, lr=1e-3, steps=5, measure={"norm": lambda e: torch.zeros(3)})
    with pytest.raises(ValueError, match=r"measure: 'norm' gives shape \(3,\).*\(2, ...\)"):
        next(frames)


def test_checks_leave_model_and_mode_as_they_were() -> None:
    """A look at the output that counts as a step of batch norm, or leaves evaluation mode on."""
    model = nn.Sequential(linear(5, 5), nn.BatchNorm1d(5, dtype=torch.float64), linear(5, 3)).train()
    model[1].eval()
    train(model, X, Y, lr=0.01, steps=5)
    assert model.training and not model[1].training and int(model[1].num_batches_tracked) == 0


def test_float_data_follow_the_model_and_a_column_may_be_flat() -> None:
    """float64 data from NumPy refused by a float32 model; y (n,) for one output broadcast to (n, n)."""
    model = linear(outputs=1).float()
    flat, column = (list(train(model, X, y, lr=1e-9, steps=0))[0] for y in (Y[:, 0], Y[:, :1]))
    assert flat.values["loss"].dtype == "float32" and flat.values["loss"] == column.values["loss"]


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_one_network_and_of_copies_agree_with_the_formula(name: str) -> None:
    """Copies averaged together, or a cross-entropy of the wrong rows."""
    f = torch.stack([data(seed=s)[1] for s in range(2)])
    y = (
        LABELS.expand(2, 10)
        if name == "cross-entropy"
        else torch.stack([data(seed=s + 5)[1] for s in range(2)])
    )
    losses = LOSSES[name](f, y)
    for s in range(2):
        if name == "cross-entropy":
            logs = [f[s, i].logsumexp(0) - f[s, i, LABELS[i]] for i in range(10)]
            expected = sum(logs) / 10
        else:
            scale = {"half-sum": 1 / 2, "half-mean": 1 / 20, "mean": 1 / 30}[name]
            expected = scale * ((f[s] - y[s]) ** 2).sum()
        assert torch.allclose(losses[s], expected) and torch.allclose(LOSSES[name](f[s], y[s]), expected)
