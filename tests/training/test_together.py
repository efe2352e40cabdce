"""Training an ensemble is training each member alone."""

from typing import Any

import numpy as np
import pytest
import torch

from labkit.protocol.experiment import last
from labkit.training import Ensemble, LossBelow, train
from labkit.training.losses import half_sum
from tests.training.cases import CASES, data

WAYS: dict[str, dict[str, Any]] = {
    "full batch, momentum": {"steps": 8, "lr": 0.01, "momentum": 0.9},
    "full batch, adam": {"steps": 8, "lr": 0.01, "optimizer": "adam"},
    "minibatch, momentum": {"epochs": 3, "batch_size": 4, "lr": 0.01, "momentum": 0.9},
    "minibatch, adam": {"epochs": 3, "batch_size": 4, "lr": 0.01, "optimizer": "adam"},
    "schedule": {"epochs": 3, "batch_size": 4, "lr": 0.01, "schedule": {1: 0.1}},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "name", ["relu", "one hidden", "frozen readout", "layer norm", "resnet", "batch norm"]
)
def test_an_ensemble_trains_as_its_members_do_alone(name: str, way: str) -> None:
    """Copies that share batches, gradients, or an optimiser's moments."""
    case = CASES[name]
    x, y = data(case.shape)
    models = [case.build(seed) for seed in range(3)]
    together = Ensemble(models)
    frames = list(train(together, x, y, seed=7, **WAYS[way]))
    for s, model in enumerate(models):
        alone = list(train(model, x, y, seed=7 + s, **WAYS[way]))
        for key, value in model.state_dict().items():
            assert torch.allclose(together.member(s).state_dict()[key], value, rtol=0, atol=1e-10)
        for ours, theirs in zip(frames, alone, strict=True):
            assert ours.step == theirs.step
            np.testing.assert_allclose(ours.values["loss"][s], theirs.values["loss"][0], rtol=1e-10)


def test_cross_entropy_trains_together_as_alone() -> None:
    """Class numbers flattened in another order than outputs."""
    x, y = data()[0], torch.arange(10) % 3
    models = [CASES["relu"].build(seed) for seed in range(3)]
    together = Ensemble(models)
    options: dict[str, Any] = {"loss": "cross-entropy", "lr": 0.5, "epochs": 3, "batch_size": 4}
    frames = list(train(together, x, y, **options))
    for s, model in enumerate(models):
        alone = list(train(model, x, y, seed=s, **options))
        np.testing.assert_allclose(
            [frame.values["loss"][s] for frame in frames],
            [frame.values["loss"][0] for frame in alone],
            rtol=1e-10,
        )


@pytest.mark.parametrize("batch_size", [None, 4])
def test_each_copy_may_have_its_own_data(batch_size: int | None) -> None:
    """Label noise of seed 0 given to all seeds."""
    sets = [data(seed=seed) for seed in range(3)]
    models = [CASES["relu"].build(seed) for seed in range(3)]
    together = Ensemble(models)
    options: dict[str, Any] = {"lr": 0.01, "steps": 6, "batch_size": batch_size}
    list(train(together, [x for x, _ in sets], [y for _, y in sets], seed=[5, 3, 9], **options))
    for s, (model, (x, y), seed) in enumerate(zip(models, sets, [5, 3, 9], strict=True)):
        list(train(model, x, y, seed=seed, **options))
        for p, q in zip(together.member(s).parameters(), model.parameters(), strict=True):
            assert torch.allclose(p, q, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["relu", "resnet", "batch norm", "convolutions"])
def test_copies_that_have_stopped_are_no_longer_run(name: str) -> None:
    """Time for copies that have stopped; or, without it, weights, losses or statistics of the wrong copy."""
    case = CASES[name]
    x, y = data(case.shape)
    models = [case.build(seed) for seed in range(4)]
    together = Ensemble(models)
    ran: list[int] = []
    together.register_forward_pre_hook(lambda module, given: ran.append(len(given[0])))
    # Two of them are below it at the start, two never get there.
    start = [half_sum(model.eval()(x), y).item() for model in models]
    for model in models:
        model.train()
    rule = LossBelow(sorted(start)[1] * 1.001)
    options: dict[str, Any] = {"loss": "half-sum", "lr": 1e-9, "epochs": 4, "batch_size": 4, "stop": rule}
    frames = list(train(together, x, y, measure_at=3, **options))
    for s, model in enumerate(models):
        alone = list(train(model, x, y, seed=s, measure_at=3, **options))
        assert last(frames, "steps")[s] == last(alone, "steps")[0]
        for key, value in model.state_dict().items():
            assert torch.allclose(together.member(s).state_dict()[key], value, rtol=0, atol=1e-10)
    spared = name != "batch norm"  # its running statistics live with the copies
    assert set(last(frames, "steps").tolist()) == {0, frames[-1].step}
    assert (min(ran) < 4) == spared and 4 in ran


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("batch_size", [None, 4])
def test_each_copy_stops_by_itself_and_keeps_its_weights(batch_size: int | None, optimizer: str) -> None:
    """The first copy to arrive trained on until the last one does, or the last stopped with the first."""
    x, y = data()
    models = [CASES["relu"].build(seed) for seed in range(3)]
    together = Ensemble(models)
    options: dict[str, Any] = {"lr": 0.01, "epochs": 400, "batch_size": batch_size, "stop": LossBelow(6.0)}
    options |= {"optimizer": optimizer, "momentum": 0.5 if optimizer == "sgd" else 0.0}
    frames = list(train(together, x, y, **options))
    took = []
    for s, model in enumerate(models):
        alone = list(train(model, x, y, seed=s, **options))
        took.append(int(last(alone, "steps")[0]))
        for p, q in zip(together.member(s).parameters(), model.parameters(), strict=True):
            assert torch.allclose(p, q, rtol=0, atol=1e-10)
    assert len(set(took)) > 1, "all copies stop together: the case shows nothing"
    assert last(frames, "steps").tolist() == took
    assert frames[-1].step == max(took)
