"""Norms of layers, against the dense matrix of each."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from labkit.measure import norms
from labkit.measure.dense import dense_layer
from labkit.measure.layers import Layer, weight_layers
from labkit.measure.norms import frobenius, group_norm, layer_norms, spectral
from labkit.models import fold_batch_norm, mlp
from tests.measure.conftest import drawn, generator
from tests.peers import torchvision

CONVOLUTIONS = [
    ({"kernel_size": 3, "padding": 1}, (2, 6, 6)),
    ({"kernel_size": 3}, (2, 6, 7)),
    ({"kernel_size": 3, "stride": 2, "padding": 1}, (2, 7, 6)),
    ({"kernel_size": 2, "stride": 3}, (2, 7, 8)),
    ({"kernel_size": 3, "dilation": 2, "padding": 2}, (2, 6, 6)),
    ({"kernel_size": 3, "padding": 1, "groups": 2}, (2, 6, 6)),
    ({"kernel_size": (1, 4), "stride": (2, 1), "padding": (0, 2)}, (2, 5, 6)),
    ({"kernel_size": 3, "padding": "same", "dilation": (1, 2)}, (2, 5, 6)),
    ({"kernel_size": 3, "stride": 2, "padding": 2, "dilation": 2, "groups": 2}, (2, 9, 8)),
    ({"kernel_size": 1}, (2, 3, 3)),
]


@pytest.mark.parametrize(("how", "shape"), CONVOLUTIONS)
@pytest.mark.parametrize("lanczos", [False, True])
def test_a_convolutions_spectral_norm_is_its_operators(
    how: dict, shape: tuple, lanczos: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reshaped kernel's norm; an adjoint that forgets the pixels which a stride leaves over."""
    if lanczos:
        route = norms.svd
        monkeypatch.setattr(norms, "svd", lambda A, k, **more: route(A, k, method="lanczos", **more))
    model = drawn(nn.Conv2d(2, 4, **how))
    (layer,) = weight_layers(model, torch.zeros(1, *shape, dtype=torch.float64))
    expected = torch.linalg.svdvals(dense_layer(layer))[0]
    assert abs(float(spectral(layer) / expected) - 1) < 1e-8
    if layer.stride < layer.weight.shape[2:]:  # windows overlap; else the two norms are one
        kernel = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
        assert abs(float(kernel / expected) - 1) > 1e-3


OTHERS = [
    (nn.Conv1d(2, 4, 3, stride=2, padding=1, groups=2), (2, 8)),
    (nn.Conv3d(1, 2, 2, stride=(2, 1, 1), padding=(0, 1, 0)), (1, 3, 2, 3)),
    (nn.ConvTranspose1d(2, 3, 3, stride=2, padding=1, output_padding=1), (2, 5)),
    (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, dilation=2), (4, 3, 4)),
]


@pytest.mark.parametrize(("part", "shape"), OTHERS)
@pytest.mark.parametrize("lanczos", [False, True])
def test_of_one_and_three_axes_and_of_the_adjoint_too(
    part: nn.Module, shape: tuple, lanczos: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adjoint with another size; a transposed kernel read channels first, group by group."""
    if lanczos:
        route = norms.svd
        monkeypatch.setattr(norms, "svd", lambda A, k, **more: route(A, k, method="lanczos", **more))
    model = drawn(part)
    x = torch.randn(1, *shape, generator=generator(1), dtype=torch.float64)
    (layer,) = weight_layers(model, x)
    M = dense_layer(layer)
    linear = model(x) - model(torch.zeros_like(x))
    assert torch.allclose(M @ x.flatten(), linear.flatten(), rtol=1e-12)
    assert abs(float(spectral(layer) / torch.linalg.svdvals(M)[0]) - 1) < 1e-8
    # Every output channel's row is its kernel, once each; position by position some weights fall outside.
    rows = M.unflatten(0, (layer.out_shape[0], -1)).abs()
    assert len(layer.incoming) == layer.out_shape[0]
    assert float(layer.incoming.norm()) == pytest.approx(float(layer.weight.norm()))
    for channel, row in zip(layer.incoming, rows, strict=True):
        assert {round(float(v), 9) for v in row.unique() if v} <= {round(float(v), 9) for v in channel.abs()}


SMALL = {
    "shufflenet": lambda: (torchvision().models.shufflenet_v2_x0_5(), (3, 32, 32)),
    "vit": lambda: (torchvision().models.VisionTransformer(16, 8, 2, 2, 12, 24), (3, 16, 16)),
    "swin": lambda: (torchvision().models.SwinTransformer([2, 2], 12, [1, 2], [2, 2], [2, 2]), (3, 16, 16)),
}


@pytest.mark.parametrize("name", SMALL)
def test_norms_of_torchvisions_layers_are_those_of_their_matrices(name: str) -> None:
    """A layer passed over; the norm of another image size; heads or windows taken for samples."""
    model, shape = SMALL[name]()
    model = fold_batch_norm(drawn(model).eval(), torch.randn(2, *shape, generator=generator(0)))
    x = torch.zeros(1, *shape)
    found = layer_norms(model, x)
    layers = weight_layers(model, x)
    kinds = (nn.Linear, nn.Conv2d)
    own = [path for path, part in model.named_modules() if isinstance(part, kinds)]
    assert {layer.name for layer in layers} >= {
        path for path in own if "NonDynamically" not in path and "cpb" not in path
    }
    for k, layer in enumerate(layers):
        if layer.units * math.prod(layer.in_shape[-3:]) > 1e5:
            continue
        M = dense_layer(layer)
        assert abs(float(found.spectral[k] / torch.linalg.matrix_norm(M, 2)) - 1) < 1e-8
        assert math.isclose(float(found.frobenius[k]), float(layer.weight.norm()), rel_tol=1e-13)


@pytest.mark.parametrize("shape", [(7, 30), (30, 7), (12, 12), (1, 5), (40, 33)])
@pytest.mark.parametrize("gram", [0, 1024])
def test_a_dense_spectral_norm_is_the_largest_singular_value(
    shape: tuple, gram: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either route wrong, or one of the two never taken."""
    monkeypatch.setattr(norms, "_GRAM", gram)
    W = torch.randn(shape, generator=generator(1), dtype=torch.float64)
    layer = Layer("W", "dense", W, None, (shape[1],), (shape[0],))
    assert abs(float(spectral(layer) / torch.linalg.svdvals(W)[0]) - 1) < 1e-10
    assert torch.equal(spectral(W), spectral(layer))


@pytest.mark.parametrize("scale", [1e-200, 1e-3, 1e200])
def test_the_gram_matrix_neither_overflows_nor_vanishes(scale: float) -> None:
    """Squares of small weights are zero, of large ones infinite."""
    W = scale * torch.randn(4, 6, generator=generator(1), dtype=torch.float64)
    layer = Layer("W", "dense", W, None, (6,), (4,))
    assert abs(float(spectral(layer)) / float(torch.linalg.svdvals(W / scale)[0]) / scale - 1) < 1e-12


def test_a_layer_of_zeros_has_norm_zero() -> None:
    """A division by the largest entry."""
    layer = Layer("W", "dense", torch.zeros(3, 4), None, (4,), (3,))
    assert float(spectral(layer)) == 0.0 and spectral(layer).dtype == torch.float64


def test_float32_weights_are_measured_in_float64() -> None:
    """Seven digits where thirteen are promised."""
    model = mlp(30, 20, 1, 4)
    found = layer_norms(model, torch.zeros(1, 30))
    for k, part in enumerate(model.layers):
        W = part.weight.detach().double()
        assert abs(float(found.spectral[k] / torch.linalg.svdvals(W)[0]) - 1) < 1e-12
        assert abs(float(found.frobenius[k] / W.norm()) - 1) < 1e-14


@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    p=st.sampled_from([1.0, 1.5, 2.0, math.inf]),
    q=st.sampled_from([1.0, 2.0, 3.0, math.inf]),
    seed=st.integers(0, 1000),
)
def test_group_norms_are_their_formula(rows: int, columns: int, p: float, q: float, seed: int) -> None:
    """Norms over outgoing weights, p and q exchanged."""
    W = torch.randn(rows, columns, generator=generator(seed), dtype=torch.float64)

    def length(values: list[float], order: float) -> float:
        if order == math.inf:
            return max(abs(v) for v in values)
        return sum(abs(v) ** order for v in values) ** (1 / order)

    expected = length([length(row, p) for row in W.tolist()], q)
    assert math.isclose(float(group_norm(W, p, q)), expected, rel_tol=1e-12)


def test_layer_norms_are_those_of_each_layer() -> None:
    """Columns exchanged; a kernel's norm over positions instead of over channels."""
    model = drawn(nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)))
    found = layer_norms(model, torch.zeros(1, 1, 3, 3))
    kernel, W = (p.detach() for p in (model[0].weight, model[3].weight))
    assert found.names == ("0", "3")
    assert torch.allclose(found.frobenius, torch.stack([kernel.norm(), W.norm()]), rtol=1e-14)
    assert torch.allclose(found.one_inf[0], kernel.abs().sum((1, 2, 3)).max(), rtol=1e-14)
    assert torch.allclose(found.one_inf[1], W.abs().sum(1).max(), rtol=1e-14)
    assert torch.allclose(found.two_inf[1], W.norm(dim=1).max(), rtol=1e-14)
    first, second = weight_layers(model, torch.zeros(1, 1, 3, 3))
    assert torch.equal(found.spectral, torch.stack([spectral(first), spectral(second)]))
    assert torch.equal(found.frobenius[0], frobenius(first))
    assert {v.dtype for v in (found.frobenius, found.spectral, found.one_inf, found.two_inf)} == {
        torch.float64
    }


def test_group_norm_two_two_is_the_frobenius_norm() -> None:
    W = torch.randn(4, 5, generator=generator(0), dtype=torch.float64)
    assert math.isclose(float(group_norm(W, 2, 2)), float(W.norm()), rel_tol=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda W: group_norm(W[0], 1, 2), r"weight: shape \(4,\); it takes \(units, incoming"),
        (lambda W: spectral(W[0]), r"layer: shape \(4,\); a weight is \(out, in\)"),
        (lambda W: spectral(W * math.inf), "layer: 'weight' has 12 of 12 entries that are NaN or infinite"),
        (lambda W: group_norm(W, 0.5, 2), "p: got 0.5; a norm takes"),
        (lambda W: group_norm(W, 1, 0), "q: got 0; a norm takes"),
        (lambda W: group_norm(W, math.nan, 2), "p: got nan"),
        (lambda W: spectral(Layer("W", "dense", W, None, (4,), (3,)), tol=0.0), "tol: got 0.0"),
    ],
)
def test_bad_arguments_are_named(call, message: str) -> None:
    """A quasi-norm handed on as a norm."""
    with pytest.raises(ValueError, match=message):
        call(torch.ones(3, 4))


def test_a_run_that_did_not_converge_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lower estimate handed on as the norm."""
    route = norms.svd
    monkeypatch.setattr(
        norms, "svd", lambda A, k, **more: route(A, k, **more | {"max_products": 2, "method": "lanczos"})
    )
    (layer,) = weight_layers(drawn(nn.Conv2d(1, 3, 3, padding=1)), torch.zeros(1, 1, 9, 9))
    with pytest.raises(ValueError, match=r"spectral: 'layer 0'|did not converge to tol=1e-10"):
        spectral(layer)
