"""Targets made of labels."""

import pytest
import torch

from labkit.data import centred, one_hot, signed

Y = torch.tensor([2, 0, 1])


def test_one_hot_has_its_one_at_the_class():
    """Catches columns in another order."""
    expected = torch.tensor([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.float64)
    got = one_hot(Y, 4, torch.float64)
    assert got.dtype == torch.float64 and torch.equal(got, expected)


def test_signed_targets_of_many_classes_are_plus_one_at_the_class():
    """Catches zeros where minus one belongs."""
    assert torch.equal(signed(Y, 3), torch.tensor([[-1.0, -1, 1], [1, -1, -1], [-1, 1, -1]]))


def test_signed_targets_of_two_classes_are_one_column():
    """Catches shape (n,), which broadcasts against outputs (n, 1) to (n, n), and the wrong sign."""
    assert torch.equal(signed(torch.tensor([1, 0])), torch.tensor([[1.0], [-1.0]]))


def test_centred_targets_sum_to_zero_in_each_row():
    """Catches a mean over samples in the place of 1/K."""
    got = centred(Y, 3, torch.float64)
    assert torch.allclose(got.sum(1), torch.zeros(3, dtype=torch.float64), atol=1e-15)
    assert torch.equal(got + 1 / 3, one_hot(Y, 3, torch.float64) - 1 / 3 + 1 / 3)


@pytest.mark.parametrize("target", [one_hot, signed, centred])
@pytest.mark.parametrize(
    ("y", "classes", "says"),
    [
        (torch.tensor([0, 3]), 3, "labels run from 0 to 3"),
        (torch.tensor([-1, 0]), 3, "labels run from -1 to 0"),
        (torch.tensor([0.0, 1.0]), 3, "whole numbers"),
        (torch.tensor([True, False]), 3, "whole numbers"),
        (torch.tensor([[0], [1]]), 3, "shape (n,)"),
        ([0, 1], 3, "list"),
        (torch.tensor([0, 1]), 0, "classes=0"),
    ],
)
def test_bad_labels_are_named(target, y, classes, says):
    """Catches a row of zeros for a label out of range."""
    with pytest.raises(ValueError) as error:
        target(y, classes)
    assert says in str(error.value)
