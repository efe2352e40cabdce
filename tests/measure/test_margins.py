"""Margins of samples and of sets."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labkit.measure.margins import margin, margins
from tests.measure.conftest import generator

LOGITS = torch.tensor([[3.0, 1, 0], [0, 2, 5], [1, 1, 0], [4, 0, -2]])
LABELS = torch.tensor([0, 1, 0, 0])


def test_margins_by_hand() -> None:
    """Top-1 minus top-2, which is never negative; the maximum over all classes, which is never positive."""
    assert margins(LOGITS, LABELS).tolist() == [2.0, -3.0, 0.0, 4.0]


@given(n=st.integers(1, 12), K=st.integers(2, 5), seed=st.integers(0, 10**6), epsilon=st.floats(0, 1))
def test_the_margin_is_the_k_th_smallest(n: int, K: int, seed: int, epsilon: float) -> None:
    """Interpolated percentiles; a k that is one too small; wrong labels at the wrong samples."""
    source = generator(seed)
    outputs = torch.randn(n, K, generator=source, dtype=torch.float64)
    y = torch.randint(K, (n,), generator=source)
    each = sorted(
        row[label] - max(v for k, v in enumerate(row) if k != label)
        for row, label in zip(outputs.tolist(), y.tolist(), strict=True)
    )
    found = margin(outputs, y, epsilon)
    k = next(k for k in range(1, n + 1) if k >= epsilon * n - 1e-8)
    assert found == each[k - 1]
    assert margin(outputs + 5, y, epsilon) == pytest.approx(found, abs=1e-12)
    assert margin(7 * outputs, y, epsilon) == pytest.approx(7 * found, rel=1e-12)


def test_epsilon_zero_is_the_hard_margin_and_one_the_largest() -> None:
    """An empty quantile."""
    assert margin(LOGITS, LABELS, 0) == -3.0 and margin(LOGITS, LABELS, 1) == 4.0
    assert margin(LOGITS, LABELS, 0.5) == 0.0


@pytest.mark.parametrize("n", [100, 300, 700, 1900])
def test_rounding_does_not_move_the_percentile(n: int) -> None:
    """.07 * 100 = 7.000000000000001, whose ceiling is 8."""
    outputs = torch.zeros(n, 2, dtype=torch.float64)
    outputs[:, 0] = torch.arange(n)
    y = torch.zeros(n, dtype=torch.int64)
    for percent in range(1, 100):
        assert margin(outputs, y, percent / 100) == math.ceil(percent * n / 100 - 1e-9) - 1


def test_inputs_stay() -> None:
    """Logits of the right class overwritten with minus infinity."""
    outputs = LOGITS.clone()
    margins(outputs, LABELS)
    assert torch.equal(outputs, LOGITS)


@pytest.mark.parametrize(
    ("outputs", "y", "message"),
    [
        (torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64), r"outputs: shape \(3, 1\)"),
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64), "outputs: shape"),
        (torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), "of torch.int64; margins"),
        (torch.zeros(3, 2), torch.zeros(3), r"y: shape \(3,\) of torch.float32"),
        (torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64), r"take class numbers \(3,\)"),
        (torch.zeros(3, 2), torch.tensor([0, 1, 2]), "class numbers from 0 to 2 for 2 outputs"),
        (torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), "no samples; a margin takes at least one"),
    ],
)
def test_what_does_not_fit_is_named(outputs: torch.Tensor, y: torch.Tensor, message: str) -> None:
    """An index error, or a broadcast that gives a number."""
    with pytest.raises(ValueError, match=message):
        margin(outputs, y)


@pytest.mark.parametrize("epsilon", [-0.1, 1.1, math.nan])
def test_epsilon_is_a_share(epsilon: float) -> None:
    """5 taken for 5 per cent."""
    with pytest.raises(ValueError, match="epsilon: got .*; it takes a share"):
        margin(LOGITS, LABELS, epsilon)
