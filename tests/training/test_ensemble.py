"""An ensemble is its members, side by side."""

import pytest
import torch
from torch import nn

from labkit.models import mlp, resnet20
from labkit.training import Ensemble, ensemble
from tests.training.cases import CASES, data


@pytest.mark.parametrize("name", CASES)
def test_the_forward_pass_is_each_member_s_own(name: str) -> None:
    """Copies mixed up, a bias broadcast over copies, an activation left out of the batched route."""
    case = CASES[name]
    models = [case.build(seed) for seed in range(3)]
    together = Ensemble(models)
    x = torch.stack([data(case.shape, seed=seed)[0] for seed in range(3)])
    expected = torch.stack([model(own) for model, own in zip(models, x, strict=True)])
    # Sums of at most 16 terms of order 1.
    assert torch.allclose(together(x), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", CASES)
def test_the_route_is_the_one_that_fits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dense network that falls back to vmap silently; or a subclass run as its parent."""
    case = CASES[name]
    together = Ensemble([case.build(seed) for seed in range(2)])
    assert together.route == case.route

    def refuse(*_: object) -> None:
        raise AssertionError("vmap")

    monkeypatch.setattr(ensemble, "vmap", refuse)
    x = data(case.shape)[0].expand(2, 10, *case.shape)
    if case.route != "vmap":
        together(x)
    else:
        with pytest.raises(AssertionError, match="vmap"):
            together(x)


def test_a_module_by_itself_is_shared_and_runs_as_itself() -> None:
    """A copy that is trained while the given module stays as it was."""
    model = CASES["relu"].build(0)
    alone = Ensemble.sharing(model)
    x = data()[0]
    assert alone.route == "single" and alone.size == 1
    assert torch.equal(alone(x.unsqueeze(0))[0], model(x))
    assert next(alone.parameters()) is next(model.parameters())
    assert alone.weights()["layers.0.weight"].shape == (1, 6, 5)


@pytest.mark.parametrize("name", CASES)
def test_members_have_the_copys_weights_and_are_independent(name: str) -> None:
    """A member that is a view: measuring on it would change the ensemble."""
    case = CASES[name]
    models = [case.build(seed) for seed in range(3)]
    together = Ensemble(models)
    member = together.member(2)
    assert type(member) is type(models[2])
    for key, value in models[2].state_dict().items():
        assert torch.equal(member.state_dict()[key], value)
    grads = [p.requires_grad for p in models[2].parameters()]
    assert [p.requires_grad for p in member.parameters()] == grads
    before = next(together.parameters()).detach().clone()
    with torch.no_grad():
        next(member.parameters()).zero_()
    assert torch.equal(next(together.parameters()), before)


def test_the_given_models_are_not_touched_by_the_ensemble() -> None:
    """Stacked tensors that share memory with the models."""
    models = [CASES["relu"].build(seed) for seed in range(2)]
    before = [p.detach().clone() for p in models[0].parameters()]
    together = Ensemble(models)
    with torch.no_grad():
        for p in together.parameters():
            p.zero_()
    assert all(torch.equal(a, b) for a, b in zip(before, models[0].parameters(), strict=True))


def test_tied_weights_stay_tied() -> None:
    """A shared matrix that becomes two in the ensemble or in a member."""
    together = Ensemble([CASES["tied"].build(seed) for seed in range(2)])
    assert len(list(together.parameters())) == 2
    member = together.member(1)
    assert member.first.weight is member.second.weight


def test_weights_are_named_as_in_a_member() -> None:
    """Distances from the start that pair the wrong layers."""
    together = Ensemble([CASES["relu"].build(seed) for seed in range(2)])
    shapes = {name: tuple(value.shape) for name, value in together.weights().items()}
    assert shapes == {name: (2, *p.shape) for name, p in together.member(0).named_parameters()}


def test_a_moved_ensemble_still_runs() -> None:
    """Buffers replaced by `.to`, while the batched route keeps the old ones."""
    together = Ensemble([CASES["one hidden"].build(seed) for seed in range(2)]).to(torch.float32)
    assert together.dtype == torch.float32
    x = data()[0].float()
    assert torch.allclose(together(x.expand(2, 10, 5))[1], together.member(1)(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "models",
    [
        [mlp(5, 6, 1, 3), mlp(5, 7, 1, 3)],
        [mlp(5, 6, 1, 3), mlp(5, 6, 1, 3, activation="tanh")],
        [mlp(5, 6, 1, 3), mlp(5, 6, 1, 3, output_scale=0.5)],
        [mlp(5, 6, 1, 3), mlp(5, 6, 1, 3, train_readout=False)],
        [mlp(5, 6, 1, 3), mlp(5, 6, 1, 3, dtype=torch.float64)],
        [resnet20(3, 1, width=2, blocks=1), resnet20(3, 1, width=2, blocks=1, skip=False)],
    ],
    ids=["width", "activation", "scale", "frozen", "dtype", "skip"],
)
def test_models_that_differ_in_more_than_weights_are_refused(models: list[nn.Module]) -> None:
    """The second model run with the first one's activation."""
    with pytest.raises(ValueError, match="models: model 1 is not built like model 0"):
        Ensemble(models)


def test_empty_and_odd_ensembles_are_refused() -> None:
    """An index error, or an ensemble of ensembles that trains something else."""
    with pytest.raises(ValueError, match="models: got none"):
        Ensemble([])
    with pytest.raises(ValueError, match="models: got Ensemble"):
        Ensemble([Ensemble([mlp(5, 6, 1, 3)])])
    with pytest.raises(ValueError, match="ReLU has no parameters"):
        Ensemble([nn.ReLU()])
    with pytest.raises(ValueError, match="s: got 2; the ensemble has copies 0 to 1"):
        Ensemble([mlp(5, 6, 1, 3, seed=s) for s in range(2)]).member(2)
