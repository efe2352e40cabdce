"""The chain of layers that a forward pass runs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.measure.capacity import capacities, local_lipschitz
from labkit.measure.layers import chain, weight_layers
from labkit.measure.norms import layer_norms
from labkit.measure.paths import path_norm
from labkit.models import fold_batch_norm, mlp, one_hidden, rescale_nodes, resnet20, vgg


def zeros(*shape: int) -> Tensor:
    return torch.zeros(*shape)


def test_a_dense_network_gives_its_layers_in_order() -> None:
    """Layers by registration instead of by use; a bias lost; the batch in a shape."""
    model = mlp(12, 5, 2, 3)
    found = weight_layers(model, zeros(4, 3, 2, 2))
    assert [layer.name for layer in found] == ["layers.0", "layers.1", "layers.2"]
    assert [layer.kind for layer in found] == ["dense"] * 3
    assert [(layer.in_shape, layer.out_shape) for layer in found] == [
        ((12,), (5,)),
        ((5,), (5,)),
        ((5,), (3,)),
    ]
    for layer, part in zip(found, model.layers, strict=True):
        assert torch.equal(layer.weight, part.weight) and torch.equal(layer.bias, part.bias)
        assert not layer.weight.requires_grad


class Backwards(nn.Module):
    """Registered last to first."""

    def __init__(self) -> None:
        super().__init__()
        self.out, self.first = nn.Linear(4, 2), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.first(x)))


def test_order_is_that_of_the_forward_pass() -> None:
    """named_modules taken for the order of use."""
    assert [layer.name for layer in weight_layers(Backwards(), zeros(1, 3))] == ["first", "out"]


def test_weights_used_by_hand_are_found() -> None:
    """f(x) = V phi(W x) of paper 4, which has no modules, and a transposed weight."""
    model = one_hidden(5, 7, 3)
    found = weight_layers(model, zeros(1, 5))
    assert [layer.name for layer in found] == ["W", "V"]
    assert torch.equal(found[0].weight, model.W) and torch.equal(found[1].weight, model.V)


def test_a_convolution_knows_its_geometry() -> None:
    """h_i without positions, or from the input's size."""
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2),
        nn.ReLU(),
        nn.Conv2d(4, 3, 3, padding="same", dilation=2),
    )
    a, b = weight_layers(model, zeros(1, 2, 9, 8))
    assert (a.kind, a.in_shape, a.out_shape, a.units) == ("conv", (2, 9, 8), (4, 5, 4), 80)
    assert (a.stride, a.padding, a.dilation, a.groups) == ((2, 2), (1, 1), (1, 1), 2)
    assert (b.padding, b.dilation, b.out_shape) == ((2, 2), (2, 2), (3, 5, 4))


def test_a_folded_vgg_has_ten_layers() -> None:
    """Pools, dropout or an average taken for something unknown."""
    layers = weight_layers(fold_batch_norm(vgg(10, 1, size=8, width=2)), zeros(1, 1, 8, 8))
    assert [layer.units for layer in layers] == [128, 128, 64, 64, 32, 32, 16, 16, 16, 10]


def test_an_output_scale_is_counted_into_the_readout() -> None:
    """A network that is 1000 times smaller with the same norms."""
    model = mlp(5, 7, 1, 3, output_scale=1e-3, dtype=torch.float64)
    found = weight_layers(model, zeros(1, 5))
    assert torch.allclose(found[1].weight, 1e-3 * model.layers[1].weight, rtol=1e-15)
    assert torch.equal(found[0].weight, model.layers[0].weight)
    divided = type("D", (nn.Linear,), {"forward": lambda self, x: nn.Linear.forward(self, x) / 4})(3, 2)
    assert torch.allclose(weight_layers(divided, zeros(1, 3))[0].weight, divided.weight / 4)


def test_the_model_is_left_as_it_was() -> None:
    """Evaluation mode left on, or a random number drawn by dropout."""
    model = vgg(10, 1, size=8, width=2, batch_norm=False).train()
    model.layers.dropout2.eval()
    rng = torch.get_rng_state()
    weight_layers(model, zeros(1, 1, 8, 8))
    assert model.training and model.layers.dropout1.training and not model.layers.dropout2.training
    assert torch.equal(rng, torch.get_rng_state())
    with pytest.raises(ValueError, match="takes images"):
        weight_layers(model, zeros(1, 3))
    assert model.layers.dropout1.training


def shared() -> nn.Module:
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.ReLU(), layer)


class Plus(nn.Module):
    """Something done with a layer's output."""

    def __init__(self, do) -> None:
        super().__init__()
        self.layer, self.do = nn.Linear(3, 3), do

    def forward(self, x: Tensor) -> Tensor:
        return self.do(x, self.layer(x))


class Pooled(nn.Module):
    """One convolution on two sizes of image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.max_pool2d(self.conv(x), 2))


def in_a_row(*parts: nn.Module) -> nn.Sequential:
    return nn.Sequential(*parts)


def smooth() -> nn.Module:
    return in_a_row(nn.Linear(3, 3), nn.GELU(), nn.Linear(3, 3), nn.SiLU(), nn.Linear(3, 3), nn.ReLU6())


def written(x: Tensor, z: Tensor) -> Tensor:
    return z.new_zeros(1, 3).index_put((torch.tensor([0]),), z)


FOUND = {
    "smooth activations": (smooth, zeros(1, 3), "0 dense, 2 dense, 4 dense"),
    "tokens": (lambda: nn.Linear(3, 2), zeros(1, 4, 3), "weight dense"),
    "one axis": (lambda: in_a_row(nn.Conv1d(3, 2, 1), nn.MaxPool1d(2)), zeros(1, 3, 5), "0 conv"),
    "three axes": (
        lambda: in_a_row(nn.Conv3d(1, 2, 2), nn.ConvTranspose3d(2, 1, 2)), zeros(1, 1, 3, 3, 3),
        "0 conv, 1 transposed",
    ),
    "max with ceil_mode": (
        lambda: in_a_row(nn.Conv2d(1, 1, 1), nn.MaxPool2d(2, ceil_mode=True)), zeros(1, 1, 3, 3), "0 conv",
    ),
    "mean with ceil_mode": (
        lambda: in_a_row(nn.Conv2d(1, 1, 1), nn.AvgPool2d(2, ceil_mode=True)), zeros(1, 1, 3, 3), "0 conv",
    ),
    "embedding": (
        lambda: in_a_row(nn.Embedding(7, 3), nn.Flatten(), nn.Linear(12, 2)), zeros(1, 4).long(),
        "0 embedding, 2 dense",
    ),
    "attention": (
        lambda: nn.TransformerEncoderLayer(4, 2, 6, batch_first=True), zeros(1, 5, 4),
        "self_attn.in_proj_weight dense, self_attn.out_proj dense, linear1 dense, linear2 dense",
    ),
    "parametrised": (
        lambda: in_a_row(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))), zeros(1, 3), "0 dense",
    ),
    "a skip": (lambda: Plus(lambda x, z: x + z), zeros(1, 3), "layer dense"),
    "used twice in one way": (shared, zeros(1, 3), "0 dense"),
    "on two sizes": (Pooled, zeros(1, 1, 4, 4), "conv conv, conv conv"),
    "written into a part": (lambda: Plus(written), zeros(1, 3), "layer dense"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_layers_are_found_whatever_lies_between(name: str) -> None:
    """A refusal, or a layer passed over, because of what a norm does not depend on."""
    build, x, expected = FOUND[name]
    assert ", ".join(f"{layer.name} {layer.kind}" for layer in weight_layers(build(), x)) == expected


def test_a_resnet_has_all_of_its_layers() -> None:
    """Those behind a skip passed over."""
    model = fold_batch_norm(resnet20(width=2, batch_norm=True))
    own = {name for name, part in model.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)}
    found = weight_layers(model, zeros(1, 3, 16, 16))
    assert {layer.name for layer in found} == own and len(found) == len(own)


def test_a_factor_counts_only_where_it_scales_the_whole_layer() -> None:
    """W scaled where another branch has W itself; a factor behind an activation that is no ReLU."""
    for do, factor in (
        (lambda x, z: -2 * z, -2.0),
        (lambda x, z: F.relu(z) / 4, 0.25),
        (lambda x, z: z + 2 * z, 1.0),
        (lambda x, z: 2 * z.tanh(), 1.0),
    ):
        model = Plus(do)
        (layer,) = weight_layers(model, zeros(1, 3))
        assert torch.allclose(layer.weight, factor * model.layer.weight)


REFUSED = [
    (
        nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)),
        (1, 3),
        "labkit.models.fold_batch_norm.* in BatchNorm1d '1'",
    ),
    (nn.Conv2d(1, 1, 2, padding="same"), (1, 1, 3, 3), "padding='same' of an even kernel"),
    (nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), (1, 1, 3, 3), r"pad\(\) repeats entries"),
    (
        nn.Sequential(nn.LSTM(3, 2, batch_first=True)),
        (1, 4, 3),
        r"lstm\(\) uses '0.weight_ih_l0'.* in LSTM '0'",
    ),
    (Plus(lambda x, z: x), (1, 4), "cannot be multiplied|mat1 and mat2"),
    (nn.Flatten(), (1, 3), "no dense or convolutional layer"),
]


@pytest.mark.parametrize(("model", "shape", "message"), REFUSED)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_weights_that_cannot_be_read_are_refused_by_name(
    model: nn.Module, shape: tuple, message: str
) -> None:
    """A number for a network of which a weight was passed over."""
    with pytest.raises((ValueError, RuntimeError), match=message.replace(".* in ", ".*in ")):
        weight_layers(model, zeros(*shape))


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (resnet20(width=2, blocks=1), (1, 3, 8, 8), r"a branch begins or ends \(in .*a skip connection"),
        (shared(), (1, 3), "'0' is used twice"),
        (
            nn.Sequential(nn.Linear(3, 2), nn.GELU()),
            (1, 3),
            r"gelu\(\) is not positively homog.* \(in GELU '1'\)",
        ),
        (Plus(lambda x, z: z + x), (1, 3), "a branch begins or ends in its own code"),
        (Plus(lambda x, z: torch.cat([z, z])[:1]), (1, 3), "a branch begins or ends"),
        (
            Plus(lambda x, z: z * torch.ones(3)),
            (1, 3),
            "a constant is added or multiplied outside of a layer",
        ),
        (Plus(lambda x, z: x), (1, 3), "its output is not the end of one chain"),
        (Plus(lambda x, z: z.mean(0, keepdim=True)), (1, 3), "over the sample axis"),
        (Plus(lambda x, z: z.softmax(1)), (1, 3), r"softmax\(\) is not positively homogeneous"),
    ],
)
def test_what_is_no_chain_is_refused_by_name(model: nn.Module, shape: tuple, message: str) -> None:
    """A product over layers for a network that is none."""
    with pytest.raises(ValueError, match=message):
        chain(model, zeros(*shape))


def test_a_parameter_that_is_not_finite_is_named() -> None:
    """nan for a norm, or an error from inside a solver."""
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        model[2].weight[0, :2] = torch.tensor([float("nan"), float("inf")])
    x, y = torch.zeros(5, 3), torch.zeros(5, dtype=torch.int64)
    calls = (
        lambda: weight_layers(model, x), lambda: layer_norms(model, x), lambda: path_norm(model, x, 1),
        lambda: capacities(model, x, y), lambda: local_lipschitz(model, x), lambda: fold_batch_norm(model),
        lambda: rescale_nodes(model, {0: torch.ones(4)}),
    )  # fmt: skip
    for call in calls:
        with pytest.raises(ValueError, match=r"model: .*'2.weight' .* 2 of 8 entries"):
            call()


@pytest.mark.parametrize("x", [torch.zeros(3), torch.zeros(0, 3), [1.0, 2.0]])
def test_inputs_without_a_sample_are_refused(x) -> None:
    """An error from inside the model."""
    with pytest.raises(ValueError, match="x: got .* at least one sample"):
        weight_layers(mlp(3, 2, 1, 2), x)


def test_what_is_no_module_is_refused() -> None:
    """An attribute error."""
    with pytest.raises(TypeError, match="model: got function; it takes a torch.nn.Module"):
        weight_layers(lambda x: x, zeros(1, 3))
