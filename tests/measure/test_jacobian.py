"""The Jacobian as an operator: every route against the dense twin, in float64, on one table of problems."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from labkit.measure import dense_jacobian, jacobian, products, rows, sample_rows
from labkit.measure.price import MiB
from labkit.measure.structure import Tapped

from .conftest import CASES, Case, assert_close, drawn, generator, mlp, params_of

ROUTES = ("auto", "stored", "products", "scarce")


def operator(case: Case, route: str) -> Any:
    """The case's operator; 'scarce' keeps nothing between products."""
    how = {"route": "products", "memory": 1} if route == "scarce" else {"route": route}
    return jacobian(case.model(), case.inputs(), **params_of(case), **how)


def block(length: int, width: int, seed: int = 1) -> Tensor:
    return torch.randn(length, width, generator=generator(seed), dtype=torch.float64)


@pytest.mark.parametrize("route", ROUTES)
def test_products_equal_the_dense_twin_on_both_sides(case: Case, route: str) -> None:
    """A lost layer, bias, sample or sign; a transposed weight; columns in another order."""
    D = dense_jacobian(case.model(), case.inputs(), **params_of(case))
    J = operator(case, route)
    assert J.shape == D.shape
    for width in (1, 3):
        V, U = block(J.p, width), block(J.shape[0], width)
        assert_close(J.matmat(V), D @ V)
        assert_close(J.rmatmat(U), D.T @ U)
    assert_close(J.matmat(V[:, 0]), D @ V[:, 0])
    assert_close(J.rmatmat(U[:, 0]), D.T @ U[:, 0])


@pytest.mark.parametrize("route", ROUTES)
def test_gram_and_rows_equal_the_dense_twin(case: Case, route: str) -> None:
    """A tile, strip or group of columns lost or counted twice; a missing mirror."""
    D = dense_jacobian(case.model(), case.inputs(), **params_of(case))
    J = operator(case, route)
    G = J.gram()
    assert_close(G, D @ D.T)
    assert torch.equal(G, G.T)
    assert_close(J.dense(), D)


def test_products_are_adjoint(case: Case) -> None:
    """A matmat and an rmatmat that belong to two different matrices."""
    J = operator(case, "products")
    v, u = block(J.p, 1)[:, 0], block(J.shape[0], 1)[:, 0]
    left, right = float(J.matmat(v) @ u), float(v @ J.rmatmat(u))
    # Both sums have about m*p terms; relative to the norms they agree to rounding.
    assert abs(left - right) <= 1e-12 * float(J.matmat(v).norm() * u.norm())


@pytest.mark.parametrize("size", [1, 4, 100])
def test_chunk_size_changes_nothing(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A last, odd chunk that is dropped or padded."""
    conv = next(case for case in CASES if case.name == "conv")
    D = dense_jacobian(conv.model(), conv.inputs())
    # The function of the same name hides the module from `from labkit.measure import jacobian`.
    monkeypatch.setattr(importlib.import_module("labkit.measure.jacobian"), "chunk_size", lambda *_: size)
    monkeypatch.setattr(sample_rows, "chunk_size", lambda *_: size)
    J = operator(conv, "products")
    U = block(J.shape[0], 2)
    assert_close(J.rmatmat(U), D.T @ U)
    assert_close(J.dense(), D)
    assert_close(J.gram(), D @ D.T)


def test_a_label_column_lands_where_rows_says() -> None:
    """Class-major rows: spectra would be right and every projection wrong. n differs from K."""
    model, x = drawn(mlp(5, 6, 3)), block(7, 5)
    J = jacobian(model, x)
    y = torch.zeros(7, 3, dtype=torch.float64)
    y[4, 2] = 1
    gradient = torch.autograd.grad(model(x)[4, 2], list(model.parameters()))
    assert_close(J.rmatmat(J.rows(y)), torch.cat([g.reshape(-1) for g in gradient]))
    assert int(rows(y).argmax()) == 4 * 3 + 2


@pytest.mark.parametrize("name", ["dense", "conv"])
def test_shortcuts_agree_and_are_other_paths(name: str) -> None:
    """A shortcut that silently falls back on what it is compared with."""
    case = next(c for c in CASES if c.name == name)
    J, plain = operator(case, "auto"), operator(case, "products")
    V = block(J.p, 20)
    first, second = J.matmat(V), plain.matmat(V)
    assert_close(first, second)
    assert not torch.equal(first, second)
    chunk = products.PlainProducts(plain._network, case.inputs())
    third = torch.stack([chunk.push(v.contiguous()).reshape(-1) for v in V.T], 1)
    assert_close(third, second)
    assert not torch.equal(third, second)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_structure_is_the_one_expected(case: Case) -> None:
    """A shared or tied weight taken for a plain layer; a plain layer that is not recognised."""
    assert operator(case, "auto")._structure.route == case.structure


@pytest.mark.parametrize("name", ["dense", "conv", "norm-in-eval", "tokens"])
def test_batched_backpropagation_equals_one_output_at_a_time(name: str) -> None:
    """The form that only a GPU takes by itself, or a custom backward pass that cannot be batched."""
    case = next(c for c in CASES if c.name == name)
    run = Tapped(operator(case, "auto")._network, case.inputs())
    for first, second in zip(run.backpropagations(True), run.backpropagations(False), strict=True):
        assert first is not None
        assert second is not None
        assert_close(first, second)


def test_forward_mode_missing_falls_back_on_double_backward() -> None:
    """A custom operation without forward mode makes J v fail although J^T u works."""

    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            return 3 * ctx.saved_tensors[0] ** 2 * grads[0]

    def model(params: Any, x: Tensor) -> Tensor:
        return Cube.apply(x @ params["w"] + 1)

    w = {"w": block(4, 2)}
    x = block(5, 4, seed=2)
    D = dense_jacobian(model, x, params=w)
    J = jacobian(model, x, params=w, route="products")
    V = block(8, 2)
    assert_close(J.matmat(V), D @ V)
    assert_close(J.gram(), D @ D.T)


def test_a_wide_product_stores_and_the_price_says_so() -> None:
    """J formed for a single product, or never formed although it fits."""
    case = next(c for c in CASES if c.name == "conv")
    J = operator(case, "auto")
    price = J.price()
    assert (price.route, price.bytes) == ("stored", J.shape[0] * J.p * 8)
    J.matmat(block(J.p, 1))
    assert J._matrix is None
    J.matmat(block(J.p, 16))
    assert J._matrix is not None
    scarce = jacobian(case.model(), case.inputs(), memory=price.bytes - 1)
    assert scarce.route == "products"
    # Residual: products of one sample forward are 2 * (weights * positions), twice that with the tangent.
    positions = {"a": 54 * 36, "b": 81 * 36, "c": 48 * 4, "out": 12}
    assert scarce.price().flops == 2 * 2 * sum(positions.values()) * 23


def test_the_operator_is_a_snapshot() -> None:
    """Training after the operator was made would move a lazily evaluated J_init."""
    model, x = drawn(mlp(5, 6, 3)), block(7, 5)
    D = dense_jacobian(model, x)
    J = jacobian(model, x)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3)
    assert_close(J.dense(), D)
    assert_close(J.rmatmat(block(21, 1)), D.T @ block(21, 1))


def test_params_picks_columns() -> None:
    """A subset whose columns come from the wrong layer."""
    model, x = drawn(mlp(5, 6, 3)), block(7, 5)
    whole, part = jacobian(model, x), jacobian(model, x, params=["2.weight", "0.bias"])
    assert list(part.columns) == ["0.bias", "2.weight"]
    D = whole.dense()
    assert_close(part.dense(), torch.cat([D[:, whole.columns[n]] for n in part.columns], 1))
    assert_close(part.gram(), part.dense() @ part.dense().T)


def test_works_in_float32_and_without_grad_mode() -> None:
    """An operator that only works outside no_grad, or that promotes to float64."""
    model, x = drawn(mlp(5, 6, 3)), block(7, 5)
    D = dense_jacobian(model, x).float()
    with torch.inference_mode():
        J = jacobian(model.float(), x.float(), route="products")
        V = block(J.p, 2).float()
        # float32 rounding, about 1e-7 times the square root of 60 terms.
        assert_close(J.matmat(V), D @ V, rtol=1e-5)
        assert_close(J.gram(), D @ D.T, rtol=1e-5)


def test_a_product_of_stored_rows_sums_long_ones_exactly() -> None:
    """Half a million terms added in float32: an SVD of J then doubts its own Gram matrix."""
    model = mlp(700, 700, 2).float()
    J = jacobian(model, torch.rand(9, 700, generator=generator(1)), route="stored")
    v = torch.rand(J.p, 1, generator=generator(2))
    J.matmat(v.expand(-1, 16))  # from here on J is held
    expected = J.dense().double() @ v.double()
    assert float((J.matmat(v) - expected).norm() / expected.norm()) < 5e-7


@pytest.mark.parametrize("wrong", ["swapped", "dropped", "doubled"])
def test_the_comparator_rejects_wrong_operators(wrong: str) -> None:
    """A comparison that would pass anything: K and n swapped, a chunk dropped, a factor 2."""
    model, x = drawn(mlp(5, 6, 3)), block(7, 5)
    D = dense_jacobian(model, x)
    V = block(D.shape[1], 2)
    product = jacobian(model, x).matmat(V)
    broken = {
        "swapped": product.view(7, 3, 2).transpose(0, 1).reshape(21, 2),
        "dropped": torch.cat([product[:18], torch.zeros_like(product[18:])]),
        "doubled": 2 * product,
    }[wrong]
    with pytest.raises(AssertionError, match="ratio 2$" if wrong == "doubled" else "ratio"):
        assert_close(broken, D @ V)


@pytest.mark.slow
def test_resident_memory_stays_within_budget() -> None:
    """The full Jacobian formed on the way: 1.2 GB here, against a budget of 64 MiB."""
    script = f"""
import resource, torch
from torch import nn
from labkit.measure import jacobian
torch.set_num_threads(1)
model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.AdaptiveAvgPool2d(1),
                      nn.Flatten(), nn.Linear(64, 10))
x = torch.rand(800, 3, 8, 8, generator=torch.Generator().manual_seed(0))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
J = jacobian(model, x, memory=64 * {MiB})
assert J.route == "products" and J.price().stored_bytes > 1200 * {MiB}
J.rmatmat(J.matmat(torch.ones(J.p, 1)))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    # The budget, one chunk's buffers, and what torch loads on first use (about 100 MiB); J would be 1240.
    assert int(done.stdout) < 500


def test_nn_module_twice_registered_keeps_its_parameters() -> None:
    """torch's functional_call, tying weights itself, does not restore a layer that is registered twice."""
    case = next(c for c in CASES if c.name == "shared-layer")
    model = case.model()
    before = {name: id(p) for name, p in model.named_parameters()}
    operator_of_it = jacobian(model, case.inputs())
    operator_of_it.gram()
    assert {name: id(p) for name, p in model.named_parameters()} == before
    assert all(isinstance(p, nn.Parameter) for p in model.parameters())
