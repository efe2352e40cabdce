"""Label noise: exact counts of the three kinds."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.data import KINDS, corrupt

shares = st.floats(0, 1)
seeds = st.integers(0, 2**40)


@settings(deadline=None)
@given(st.integers(2, 7), st.lists(st.integers(0, 100), max_size=80), shares, seeds)
def test_strict_noise_changes_exactly_the_rounded_share(classes, values, share, seed):
    """Catches a coin toss a sample, a draw that may return the old class, and labels outside 0..K-1."""
    y = torch.tensor(values, dtype=torch.int64) % classes
    noisy = corrupt(y, classes, share, "strict", seed=seed)
    assert int((noisy != y).sum()) == round(share * len(y))
    assert not len(y) or (int(noisy.min()) >= 0 and int(noisy.max()) < classes)


@settings(deadline=None)
@given(st.lists(st.integers(0, 1), max_size=80), shares, seeds)
def test_flip_changes_exactly_the_rounded_share_to_the_other_class(values, share, seed):
    """Catches a flip that is a redraw."""
    y = torch.tensor(values, dtype=torch.int64)
    noisy = corrupt(y, 2, share, "flip", seed=seed)
    changed = noisy != y
    assert int(changed.sum()) == round(share * len(y))
    assert torch.equal(noisy[changed], 1 - y[changed])


@settings(deadline=None)
@given(st.integers(2, 7), st.lists(st.integers(0, 100), max_size=80), shares, seeds)
def test_redraw_changes_at_most_the_rounded_share(classes, values, share, seed):
    """Catches a redraw that reaches more samples than its share."""
    y = torch.tensor(values, dtype=torch.int64) % classes
    noisy = corrupt(y, classes, share, "redraw", seed=seed)
    assert int((noisy != y).sum()) <= round(share * len(y))
    assert not len(y) or (int(noisy.min()) >= 0 and int(noisy.max()) < classes)


def test_redraw_changes_a_share_of_p_times_k_minus_1_over_k():
    """Catches a redraw that is strict: with p = 0.6 and K = 3 it changes 0.4 of the labels, not 0.6."""
    n = 40_000
    noisy = corrupt(torch.zeros(n, dtype=torch.int64), 3, 0.6, "redraw", seed=1)
    changed = float((noisy != 0).float().mean())
    # Of 24,000 redrawn labels a binomial share 2/3 changes: deviation sqrt(24000 * 2/9) / n = 0.0018.
    assert abs(changed - 0.4) < 5 * 0.0018


@pytest.mark.parametrize(("kind", "others"), [("strict", 3), ("redraw", 4)])
def test_new_labels_are_uniform(kind, others):
    """Catches new labels that favour one class, such as always the next one."""
    n = 40_000
    counts = torch.bincount(corrupt(torch.full((n,), 2), 4, 1.0, kind, seed=0), minlength=4) / n
    expected = torch.full((4,), 1 / others)
    if kind == "strict":
        expected[2] = 0
    # Standard deviation of a share near 1/4: sqrt(3/16 / n) = 0.0022.
    assert (counts - expected).abs().max() < 5 * 0.0024


@pytest.mark.parametrize("kind", KINDS)
def test_noise_of_a_larger_share_contains_that_of_a_smaller_one(kind):
    """Catches noise drawn anew for every share, so that moving the slider exchanges all noisy samples."""
    y = torch.arange(200) % 2
    small, large = (corrupt(y, 2, share, kind, seed=3) for share in (0.3, 0.7))
    changed = small != y
    assert torch.equal(large[changed], small[changed])


@pytest.mark.parametrize("kind", KINDS)
def test_a_share_of_zero_changes_nothing_and_the_seed_decides_the_rest(kind):
    """Catches off-by-one counts, and a seed without effect."""
    y = torch.arange(100) % 2
    kept = y.clone()
    assert torch.equal(corrupt(y, 2, 0.0, kind), y)
    one, same, other = (corrupt(y, 2, 0.5, kind, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(y, kept)


def test_flip_of_everything_swaps_the_classes():
    """Catches a flip that leaves some labels: a share of 1 is clean data with other names."""
    y = torch.tensor([0, 1, 1, 0])
    assert torch.equal(corrupt(y, 2, 1.0, "flip"), 1 - y)


def test_a_dataset_with_noise_knows_which_labels_changed(images):
    """Catches noise on test labels, and a mask that forgets the clean labels."""
    noisy = images.with_label_noise(0.25, seed=2)
    assert int(noisy.noisy.sum()) == 15
    assert torch.equal(noisy.clean_train, images.y_train)
    assert torch.equal(noisy.y_test, images.y_test)
    assert not bool(images.noisy.any())


def test_new_noise_replaces_the_old(images):
    """Catches noise on noise, of which nobody knows the share."""
    direct = images.with_label_noise(0.5, seed=1)
    twice = images.with_label_noise(0.9, seed=1).with_label_noise(0.5, seed=1)
    assert torch.equal(direct.y_train, twice.y_train)
    assert twice.note == direct.note == "label noise 0.5 strict"
    assert not bool(twice.with_label_noise(0).noisy.any())


def test_subset_and_noise_of_one_seed_are_independent(images):
    """Catches one stream for two purposes: the samples chosen first would then be those corrupted first."""
    data = images.subset(n_train=60, seed=0).with_label_noise(0.5, seed=0)
    first_half = int(data.noisy[:30].sum())
    assert 0 < first_half < 30


@pytest.mark.parametrize(
    ("share", "kind", "says"),
    [
        (1.5, "strict", "share=1.5: takes a number from 0 to 1"),
        (-0.1, "strict", "share=-0.1"),
        (float("nan"), "strict", "share=nan"),
        ("0.5", "strict", "share='0.5'"),
        (None, "strict", "share=None"),
        (0.5, "x", "kind='x': takes one of strict, redraw, flip"),
        (0.5, "flip", "kind='flip' swaps two classes, and here are 3"),
    ],
)
def test_bad_noise_names_the_argument(images, share, kind, says):
    """Catches noise of 150 %, or a kind that falls back to another."""
    with pytest.raises(ValueError) as error:
        images.with_label_noise(share, kind)
    assert says in str(error.value)
