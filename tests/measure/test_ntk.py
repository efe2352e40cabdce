"""The empirical NTK: every route against the dense twin, closed forms, and its symmetries."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from labkit.measure import dense_jacobian, dense_ntk, empirical_ntk, ntk_route

from .conftest import CASES, Case, assert_close, drawn, generator, mlp, params_of


def test_kernel_equals_the_dense_twin(case: Case) -> None:
    """A layer, bias or tile lost; a shared layer's cross terms missing."""
    theta = empirical_ntk(case.model(), case.inputs(), **params_of(case))
    assert_close(theta, dense_ntk(case.model(), case.inputs(), **params_of(case)))


def test_kernel_between_two_sets_equals_the_dense_twin(case: Case) -> None:
    """x and x2 swapped, or n2 taken for n."""
    x, x2 = case.inputs(), case.inputs(seed=8)[: max(1, case.shape[0] // 2)]
    given = params_of(case)
    theta = empirical_ntk(case.model(), x, x2, **given)
    J, J2 = dense_jacobian(case.model(), x, **given), dense_jacobian(case.model(), x2, **given)
    K = J.shape[0] // x.shape[0]
    assert_close(theta, (J @ J2.T).view(x.shape[0], K, x2.shape[0], K))
    assert_close(theta, empirical_ntk(case.model(), x2, x, **given).permute(2, 3, 0, 1))


@pytest.mark.parametrize("memory", [1, 20_000, 200_000])
@pytest.mark.parametrize("name", ["conv", "shared-layer", "norm-in-eval"])
def test_memory_changes_nothing(name: str, memory: int) -> None:
    """Groups of columns or tiles of samples lost when the budget is small."""
    case = next(c for c in CASES if c.name == name)
    x = case.inputs()
    whole = empirical_ntk(case.model(), x)
    assert_close(empirical_ntk(case.model(), x, memory=memory), whole)
    assert_close(empirical_ntk(case.model(), x, x[:3], memory=memory), whole[:, :, :3])


def test_kernel_is_symmetric_and_positive_semidefinite(case: Case) -> None:
    """A half that was computed but not mirrored; a sign."""
    theta = empirical_ntk(case.model(), case.inputs(), **params_of(case))
    m = theta.shape[0] * theta.shape[1]
    square = theta.reshape(m, m)
    assert torch.equal(square, square.T)
    eigenvalues = torch.linalg.eigvalsh(square)
    # Rounding of an eigenvalue is a few units of 1e-16 times the largest, times the size.
    assert float(eigenvalues[0]) >= -1e-13 * m * float(eigenvalues[-1])


def test_tiles_smaller_than_the_data_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An odd last tile in the dense path; strips that overlap in the row path."""
    from labkit.measure import factors, gram

    dense = next(c for c in CASES if c.name == "dense")
    expected = dense_ntk(dense.model(), dense.inputs())
    monkeypatch.setattr(factors, "_TILE", 12)  # four samples of three outputs; 13 samples
    assert_close(empirical_ntk(dense.model(), dense.inputs()), expected)
    conv = next(c for c in CASES if c.name == "conv")
    expected = dense_ntk(conv.model(), conv.inputs())
    monkeypatch.setattr(gram, "_SMALL", 10)
    monkeypatch.setattr(gram, "_STRIP", 5)
    assert_close(empirical_ntk(conv.model(), conv.inputs()), expected)


def test_linear_model_has_the_kernel_of_its_inputs() -> None:
    """Closed form: f = W x + b gives Theta = (x x^T + 1) I_K, whatever the weights."""
    x = torch.randn(6, 5, generator=generator(1), dtype=torch.float64)
    theta = empirical_ntk(drawn(mlp(5, 3)), x)
    expected = torch.einsum("ij,kl->ikjl", x @ x.T + 1, torch.eye(3, dtype=torch.float64))
    assert_close(theta, expected)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_the_route_is_told(case: Case) -> None:
    """A fast path that is never taken, or one that is taken where it is wrong."""
    assert ntk_route(case.model(), case.inputs(), **params_of(case)) == case.structure


def test_dense_path_is_not_the_row_path() -> None:
    """The shortcut silently falling back: equal within rounding, but not bit for bit."""
    case = next(c for c in CASES if c.name == "dense")
    theta, twin = empirical_ntk(case.model(), case.inputs()), dense_ntk(case.model(), case.inputs())
    assert_close(theta, twin)
    assert not torch.equal(theta, twin)


def test_sequence_first_inputs_are_not_mistaken_for_samples() -> None:
    """A layer whose first axis is time, with as many steps as samples."""

    class TimeFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x.transpose(0, 1)).tanh().sum(0)

    model = drawn(TimeFirst())
    x = torch.randn(2, 2, 3, generator=generator(2), dtype=torch.float64)
    assert_close(empirical_ntk(model, x), dense_ntk(model, x))
