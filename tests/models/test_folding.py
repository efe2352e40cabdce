"""Batch norm folded into the layer before it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from labkit.models import fold_batch_norm, mlp, resnet20, vgg
from tests.peers import torchvision


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def lived_in(model: nn.Module, seed: int = 1) -> nn.Module:
    """The model in float64, its norms with statistics and weights as training leaves them."""
    source = generator(seed)
    model = model.double()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            part.running_mean.copy_(torch.randn(part.num_features, generator=source))
            part.running_var.copy_(0.05 + 3 * torch.rand(part.num_features, generator=source))
            if part.affine:
                with torch.no_grad():
                    part.weight.copy_(torch.randn(part.num_features, generator=source))
                    part.bias.copy_(torch.randn(part.num_features, generator=source))
    return model


def dense(**options: object) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(5, 7), nn.BatchNorm1d(7, **options), nn.ReLU(), nn.Linear(7, 3, bias=False),
        nn.BatchNorm1d(3, **options),
    )  # fmt: skip


CASES = {
    "vgg": (lambda: vgg(10, 3, width=3), (4, 3, 32, 32)),
    "vgg on digits": (lambda: vgg(10, 1, size=8, width=3), (4, 1, 8, 8)),
    "dense": (dense, (6, 5)),
    "no affine part": (lambda: dense(affine=False), (6, 5)),
    "resnet20": (lambda: resnet20(width=3, batch_norm=True), (3, 3, 16, 16)),
    "grouped": (
        lambda: nn.Sequential(nn.Conv2d(2, 6, 3, groups=2), nn.BatchNorm2d(6), nn.ReLU(inplace=True)),
        (3, 2, 8, 8),
    ),
}


class Around(nn.Module):
    """A layer whose output goes through the norm and around it, between two that are read once."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.layer, self.last = (
            dense(),
            nn.Linear(3, 4),
            in_a_row(nn.Linear(4, 4), nn.BatchNorm1d(4)),
        )
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        z = self.layer(self.first(x))
        return self.last(self.norm(z) + z)


def in_a_row(*parts: nn.Module) -> nn.Sequential:
    return nn.Sequential(*parts)


CASES |= {
    "after an activation": (lambda: in_a_row(nn.Linear(4, 4), nn.ReLU(), nn.BatchNorm1d(4)), (5, 4)),
    "after one in place": (lambda: in_a_row(nn.Linear(4, 4), nn.ReLU(True), nn.BatchNorm1d(4)), (5, 4)),
    "read elsewhere": (Around, (6, 5)),
    "at the door": (lambda: in_a_row(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 2)), (4, 2, 5, 5)),
    "a layer used twice": (lambda: shared(), (4, 4)),
    "one axis": (
        lambda: in_a_row(nn.Conv1d(2, 3, 2), nn.BatchNorm1d(3), nn.ReLU(), nn.BatchNorm1d(3)), (4, 2, 5),
    ),
    "three axes": (lambda: in_a_row(nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3)), (4, 2, 3, 3, 3)),
    "transposed": (
        lambda: in_a_row(nn.ConvTranspose2d(4, 6, 2, groups=2), nn.BatchNorm2d(6)), (4, 4, 5, 5),
    ),
    "tokens": (lambda: in_a_row(nn.Linear(4, 5), nn.BatchNorm1d(5)), (6, 5, 4)),
    **{
        name: (lambda name=name, more=more: getattr(torchvision().models, name)(**more), (2, 3, side, side))
        for name, side, more in (
            ("densenet121", 32, {}), ("shufflenet_v2_x0_5", 32, {}), ("mobilenet_v3_small", 32, {}),
            ("googlenet", 32, {"init_weights": False}), ("inception_v3", 75, {"init_weights": False}),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_outputs_stay(name: str) -> None:
    """A scale without the epsilon, a mean taken away after the scale, a bias forgotten."""
    build, shape = CASES[name]
    model = lived_in(build())
    x = torch.randn(shape, generator=generator(2), dtype=torch.float64)
    folded = fold_batch_norm(model, x)
    model.eval()
    with torch.no_grad():
        before, after = model(x), folded(x)
    assert float((before - after).abs().max()) < 1e-12 * float(before.abs().max())
    left = [path for path, part in folded.named_modules() if "BatchNorm" in type(part).__name__]
    assert all(path.startswith(("aux", "Aux")) for path in left)
    assert bool(left) == (name in ("googlenet", "inception_v3"))


def test_only_a_layer_that_something_else_reads_is_left_alone() -> None:
    """One such layer, and every norm of the network becomes a layer of its own."""
    folded = fold_batch_norm(lived_in(Around()))
    assert [type(part) for part in (folded.first[1], folded.first[4], folded.last[1], folded.norm)] == [
        nn.Identity, nn.Identity, nn.Identity, nn.Linear
    ]  # fmt: skip


def test_float32_outputs_stay_too() -> None:
    """A fold in half the digits."""
    model = lived_in(vgg(10, 1, size=8, width=4)).float()
    x = torch.randn(4, 1, 8, 8, generator=generator(2))
    folded = fold_batch_norm(model)
    model.eval()
    with torch.no_grad():
        before, after = model(x), folded(x)
    assert torch.allclose(after, before, rtol=0, atol=1e-4 * float(before.abs().max()))


def test_the_weights_are_the_formula() -> None:
    """s W and s (b - m) + c, by hand."""
    model = lived_in(dense())
    layer, norm = model[0], model[1]
    s = norm.weight / (norm.running_var + norm.eps).sqrt()
    folded = fold_batch_norm(model)
    assert torch.allclose(folded[0].weight, s[:, None] * layer.weight, rtol=1e-14)
    assert torch.allclose(folded[0].bias, s * (layer.bias - norm.running_mean) + norm.bias, rtol=1e-12)


def test_the_model_is_left_alone_and_dropout_is_gone() -> None:
    """A fold in place, which would be done twice; a copy that drops units once it is set to train."""
    model = vgg(10, 1, size=8, width=2).train()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rng = torch.get_rng_state()
    folded = fold_batch_norm(model)
    assert all(part.training for part in model.modules())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(rng, torch.get_rng_state())
    assert not folded.training and not any(isinstance(part, nn.Dropout) for part in folded.modules())
    assert {n for n, _ in folded.named_parameters()} >= {"layers.conv1_1.weight", "layers.conv1_1.bias"}


def test_a_model_without_batch_norm_is_copied() -> None:
    """An error where there is nothing to do."""
    model = mlp(5, 7, 1, 2)
    folded = fold_batch_norm(model)
    assert folded is not model and torch.equal(folded.layers[0].weight, model.layers[0].weight)


class LooksAtItsWeights(nn.Module):
    """Outputs that depend on what the weights are, not only on what they do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.layer(x)) + self.layer.weight.sum()


def shared() -> nn.Module:
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.BatchNorm1d(4), layer)


def norm_twice() -> nn.Module:
    norm = nn.BatchNorm1d(4)
    return nn.Sequential(nn.Linear(4, 4), norm, nn.Linear(4, 4), norm)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (LooksAtItsWeights, "its batch norms cannot be folded"),
        (norm_twice, "'1' is used twice"),
        (
            lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False)),
            "'1' has no running statistics; build it with track_running_stats=True",
        ),
    ],
)
def test_what_cannot_be_folded_is_refused(build, message: str) -> None:
    """A fold into a layer that something else reads, which changes the function."""
    with pytest.raises(ValueError, match=message):
        fold_batch_norm(lived_in(build()) if "track" not in message else build())


def test_an_input_that_does_not_fit_is_named() -> None:
    """An error from inside torch about sizes that nobody gave."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(18, 2))
    with pytest.raises(ValueError, match="x: no shape that was tried fits the model .* x=..."):
        fold_batch_norm(model)
    with pytest.raises(ValueError, match=r"x: \(1, 1, 6, 6\) fits the model|x: .* fits the model"):
        fold_batch_norm(model, torch.zeros(1, 1, 6, 6))
    assert fold_batch_norm(model, torch.zeros(2, 1, 5, 5))[1].__class__ is nn.Identity


def test_what_is_no_module_is_refused() -> None:
    """An error about deep copies."""
    with pytest.raises(TypeError, match="model: got str"):
        fold_batch_norm("vgg")
