"""The split of label space, and the layout that it stands on."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from labkit.measure import from_class_major, information_basis, rows, split, to_class_major, unrows

from .conftest import assert_close, generator


@dataclass
class Triplets:
    U: Tensor
    s: Tensor
    V: Tensor


def triplets(values: list[float], m: int = 12, p: int = 20) -> Triplets:
    """Singular triplets with these values, in float64."""
    k = len(values)
    U = torch.linalg.qr(torch.randn(m, k, generator=generator(0), dtype=torch.float64))[0]
    V = torch.linalg.qr(torch.randn(p, k, generator=generator(1), dtype=torch.float64))[0]
    return Triplets(U, torch.tensor(values, dtype=torch.float64), V)


FULL = [8.0, 4.0, 4.0, 2.0] + [0.1] * 8


def test_parts_add_up_and_are_orthogonal() -> None:
    """A projection onto the right singular vectors, or onto unnormalised ones."""
    svd = triplets(FULL)
    y = torch.randn(12, generator=generator(2), dtype=torch.float64)
    parts = split(svd, y, rank=4)
    assert_close(parts.information + parts.nuisance, y)
    assert abs(float(parts.information @ parts.nuisance)) < 1e-13
    assert float(parts.share_information**2 + parts.share_nuisance**2) == pytest.approx(1, abs=1e-13)
    J = svd.U[:, :4] @ torch.diag(svd.s[:4]) @ svd.V[:, :4].T
    assert float(parts.pinv_norm) == pytest.approx(float((torch.linalg.pinv(J) @ y).norm()), rel=1e-12)


@pytest.mark.parametrize(("cutoff", "rank"), [(9.0, 0), (8.0, 1), (4.0, 3), (3.9, 3), (2.0, 4), (0.05, 12)])
def test_cutoff_takes_the_largest_index_at_or_above_it(cutoff: float, rank: int) -> None:
    """Definition 5.2 as printed takes the smallest index: always r = 1. Ties are taken together."""
    parts = split(triplets(FULL), torch.ones(12, dtype=torch.float64), cutoff=cutoff)
    assert parts.rank == rank
    assert information_basis(triplets(FULL), cutoff=cutoff).shape == (12, rank)


def test_labels_may_be_rows_columns_or_samples() -> None:
    """An (n, K) array read as n columns, or arranged class-major."""
    svd = triplets(FULL)
    y = torch.randn(4, 3, generator=generator(3), dtype=torch.float64)
    one = split(svd, rows(y), rank=3)
    assert torch.equal(split(svd, y, rank=3).information, one.information)
    many = split(svd, torch.stack([rows(y), 2 * rows(y)], 1), rank=3)
    assert_close(many.information[:, 1], 2 * one.information)
    assert_close(many.share_information, one.share_information.expand(2))
    assert_close(many.pinv_norm, one.pinv_norm * torch.tensor([1.0, 2.0], dtype=torch.float64))


def test_zero_labels_have_zero_shares() -> None:
    """0/0 at the end of a training run that fits exactly."""
    parts = split(triplets(FULL), torch.zeros(12), rank=2)
    assert (float(parts.share_information), float(parts.share_nuisance), float(parts.pinv_norm)) == (0, 0, 0)


def test_a_vanishing_singular_value_does_not_blow_up_the_pseudo_inverse() -> None:
    """1/1e-17 instead of leaving the direction out, as the definition does."""
    svd = triplets([2.0, 1.0, 1e-17])
    y = svd.U[:, 0] + svd.U[:, 2]
    assert float(split(svd, y, rank=3).pinv_norm) == pytest.approx(0.5, rel=1e-12)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "exactly one of rank and cutoff"),
        ({"rank": 2, "cutoff": 1.0}, "exactly one of rank and cutoff"),
        ({"rank": 4}, r"rank is 4, needs a whole number from 0 to 3.*svd\(A, k=rank\)"),
        ({"rank": -1}, "rank is -1"),
        ({"cutoff": 0.0}, "cutoff is 0.0, needs a positive"),
        ({"cutoff": 0.5}, r"below all 3 singular values.*svd\(A, k=6\)"),
    ],
)
def test_bad_choices_are_named(given: dict[str, float], words: str) -> None:
    """A truncated information space passed off as the whole one."""
    with pytest.raises(ValueError, match=words):
        split(triplets([3.0, 2.0, 1.0]), torch.ones(12), **given)  # type: ignore[arg-type]


def test_labels_that_do_not_fit_are_refused() -> None:
    """Broadcasting instead of an error."""
    with pytest.raises(ValueError, match=r"y has shape \(5,\), needs \(12,\)"):
        split(triplets(FULL), torch.ones(5), rank=1)


def test_layout_round_trips_and_is_sample_major() -> None:
    """Rows in the paper's class-major order: I_K (x) Sigma instead of Sigma (x) I_K."""
    n, K = 4, 3
    y = torch.arange(12.0).view(n, K)
    assert torch.equal(unrows(rows(y), n, K), y)
    class_major = y.T.reshape(-1)
    assert torch.equal(from_class_major(class_major, n, K), rows(y))
    assert torch.equal(to_class_major(rows(y), n, K), class_major)
    sigma = torch.arange(16.0).view(n, n)
    kron = torch.kron(torch.eye(K), sigma)
    moved = from_class_major(from_class_major(kron, n, K).T.contiguous(), n, K).T
    assert torch.equal(moved, torch.kron(sigma, torch.eye(K)))
    with pytest.raises(ValueError, match=r"rows: y has shape \(3,\).*one_hot"):
        rows(torch.ones(3))
    with pytest.raises(ValueError, match=r"n\*K = 4\*3 = 12"):
        unrows(torch.ones(5), n, K)
