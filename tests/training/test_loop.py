"""The loop: what it computes, and what it leaves alone."""

from typing import Any

import numpy as np
import pytest
import torch

from labkit.training import Ensemble, train
from tests.training.cases import CASES, data, linear


@pytest.mark.parametrize(("loss", "scale"), [("half-sum", 1.0), ("half-mean", 1 / 10), ("mean", 2 / 30)])
def test_gradient_descent_on_a_linear_model_is_the_explicit_recursion(loss: str, scale: float) -> None:
    """A normalisation off by 2, n or K; a step taken before the measurement or not at all."""
    x, y = data()
    model = linear()
    W, lr = model.layers[0].weight.detach().clone(), 0.01
    frames = train(model, x, y, loss=loss, lr=lr, steps=20, measure_at=1)
    for step, frame in enumerate(frames):
        residual = x @ W.T - y
        expected = {"half-sum": 0.5, "half-mean": 0.5 / 10, "mean": 1 / 30}[loss] * float((residual**2).sum())
        assert frame.step == step
        assert frame.values["loss"][0] == pytest.approx(expected, rel=1e-12)
        # Between frames the model holds the weights of that step.
        assert torch.allclose(model.layers[0].weight, W, rtol=0, atol=1e-12)
        W = W - lr * scale * residual.T @ x
    assert step == 20 and frame.status == "done"


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_module_trains_as_in_a_plain_torch_loop(optimizer: str) -> None:
    """A loop of our own arithmetic: momentum, moments or the last small batch done in another way."""
    x, y = data()
    ours, theirs = CASES["relu"].build(0), CASES["relu"].build(0)
    seen: list[torch.Tensor] = []
    hook = ours.register_forward_hook(lambda model, given, out: seen.append(given[0]))
    momentum = {"momentum": 0.9} if optimizer == "sgd" else {}
    list(train(ours, x, y, optimizer=optimizer, lr=0.01, epochs=3, batch_size=4, **momentum))
    hook.remove()
    batches = [batch for batch in seen if len(batch) != 1][:9]
    assert [len(batch) for batch in batches] == [4, 4, 2] * 3
    kind = torch.optim.SGD if optimizer == "sgd" else torch.optim.Adam
    plain = kind(theirs.parameters(), lr=0.01, **momentum)
    for batch in batches:
        rows = torch.cdist(batch, x).argmin(1)
        plain.zero_grad()
        ((theirs(batch) - y[rows]) ** 2).sum().div(2).backward()
        plain.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=0, atol=1e-12)


def test_every_epoch_visits_each_sample_once_in_a_new_order() -> None:
    """Sampling with replacement; one order for all epochs; the last few samples dropped."""
    x, y = data()
    model, seen = linear(), []
    model.register_forward_hook(lambda part, given, out: seen.append(given[0]))
    list(train(model, x, y, lr=1e-3, epochs=2, batch_size=4))
    rows = torch.cdist(torch.cat([batch for batch in seen if len(batch) > 1]), x).argmin(1).tolist()
    first, second = rows[:10], rows[10:20]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second != list(range(10))


@pytest.mark.parametrize("size", [1, 3])
def test_the_same_seed_gives_bit_equal_frames_and_another_does_not(size: int) -> None:
    """Hidden randomness, or a seed that is not used."""
    x, y = data()

    def run(seed: int) -> list[Any]:
        models = [CASES["relu"].build(s) for s in range(size)]
        model = models[0] if size == 1 else Ensemble(models)
        return list(train(model, x, y, lr=0.01, epochs=4, batch_size=3, measure_at=1, seed=seed))

    one, two, other = run(3), run(3), run(30)
    assert [frame.step for frame in one] == [frame.step for frame in two]
    assert all(np.array_equal(a.values["loss"], b.values["loss"]) for a, b in zip(one, two, strict=True))
    assert not all(
        np.array_equal(a.values["loss"], b.values["loss"]) for a, b in zip(one, other, strict=True)
    )


def test_torchs_global_generator_is_left_alone() -> None:
    """An order of samples that depends on what ran before, in the notebook's other cells."""
    x, y = data()
    before = torch.get_rng_state()
    list(train(Ensemble([CASES["resnet"].build(0)]), x[:, :1].expand(10, 16).reshape(10, 1, 4, 4), y, lr=1e-3,
               epochs=2, batch_size=4))  # fmt: skip
    list(train(linear(), x, y, lr=1e9, steps=200))
    assert torch.equal(before, torch.get_rng_state())


def test_frozen_parameters_and_buffers_do_not_move() -> None:
    """V of (1.1) trained along."""
    x, y = data()
    model = CASES["one hidden"].build(0)
    V, W = model.V.clone(), model.W.detach().clone()
    list(train(model, x, y, lr=0.01, steps=3))
    assert torch.equal(model.V, V) and not torch.equal(model.W, W)


def test_running_statistics_are_those_of_the_steps_taken() -> None:
    """The look at the final loss counted as a step of batch norm."""
    case = CASES["batch norm"]
    for model in (case.build(0), Ensemble([case.build(0), case.build(1)])):
        list(train(model, *data(case.shape), lr=1e-3, epochs=2, batch_size=5))
        counted = {float(v.max()) for key, v in model.state_dict().items() if "num_batches" in key}
        assert counted == {4.0}


@pytest.mark.parametrize("by_step", [True, False])
def test_schedules_multiply_the_base_rate(by_step: bool) -> None:
    """Factors that pile up; a start counted in steps where epochs were meant."""
    x, y = data()
    table = {2: 0.5, 4: 0.1} if by_step else (lambda step: 1.0 if step < 2 else 0.5 if step < 4 else 0.1)
    model = linear()
    W = model.layers[0].weight.detach().clone()
    list(train(model, x, y, lr=0.01, steps=6, schedule=table))
    for factor in (1, 1, 0.5, 0.5, 0.1, 0.1):
        W = W - 0.01 * factor * (x @ W.T - y).T @ x
    assert torch.allclose(model.layers[0].weight, W, rtol=0, atol=1e-12)


def test_schedules_count_epochs_where_training_does() -> None:
    """A rate divided at step 1 instead of after epoch 1."""
    x, y = data()
    table, function = linear(), linear()
    list(train(table, x, y, lr=0.01, epochs=3, batch_size=4, schedule={1: 0.1}))
    list(train(function, x, y, lr=0.01, epochs=3, batch_size=4, schedule=lambda s: 1.0 if s < 3 else 0.1))
    assert torch.equal(table.layers[0].weight, function.layers[0].weight)
