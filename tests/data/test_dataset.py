"""The dataset and its transformations."""

import random
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.data import Dataset, gaussian_mixture
from labkit.data.strata import stratified_order

labels = st.lists(st.integers(0, 4), min_size=1, max_size=120).map(torch.tensor)


def rows(x: torch.Tensor) -> set[tuple[float, ...]]:
    return {tuple(row) for row in x.flatten(1).tolist()}


@settings(deadline=None)
@given(labels, st.integers(0, 2**32 - 1))
def test_every_beginning_of_a_stratified_order_has_the_classes_in_proportion(y, seed):
    """Catches a subset that is merely random, or that rounds every class down and fills up from one."""
    order = stratified_order(y, torch.Generator().manual_seed(seed))
    assert torch.equal(order.sort().values, torch.arange(len(y)))
    counts = torch.bincount(y, minlength=5)
    share = counts / len(y)
    allowed = 0.5 + (counts > 0).sum() * share / 2
    for n in range(1, len(y) + 1):
        got = torch.bincount(y[order[:n]], minlength=5)
        assert (got - n * share).abs().le(allowed + 1e-5).all()


@given(st.integers(2, 6), st.integers(1, 12), st.integers(0, 1000), st.data())
def test_classes_of_equal_size_differ_by_at_most_one(classes, size, seed, data):
    """Catches an order whose ties between classes are broken before each class has had its turn."""
    y = torch.arange(classes).repeat(size)
    n = data.draw(st.integers(1, len(y)))
    order = stratified_order(y, torch.Generator().manual_seed(seed))
    got = torch.bincount(y[order[:n]], minlength=classes)
    assert int(got.max() - got.min()) <= 1


def test_a_subset_is_stratified_in_both_parts(images):
    """Catches a training subset that is stratified while the test subset is a plain slice."""
    small = images.subset(n_train=12, n_test=6, seed=4)
    assert torch.bincount(small.y_train).tolist() == [6, 4, 2]
    assert torch.bincount(small.y_test).tolist() == [2, 2, 2]


def test_samples_keep_their_labels(images):
    """Catches inputs and labels that are chosen by different indices."""
    label = {tuple(x.flatten().tolist()): int(y) for x, y in zip(images.x_train, images.y_train, strict=True)}
    small = images.subset(n_train=25, n_test=7, classes=[2, 0], seed=3)
    for x, y in zip(small.x_train, small.y_train, strict=True):
        assert [2, 0][int(y)] == label[tuple(x.flatten().tolist())]


def test_train_and_test_stay_disjoint(images):
    """Catches a test set drawn from the training samples."""
    small = images.subset(n_train=40, n_test=20, seed=1)
    assert not rows(small.x_train) & rows(small.x_test)
    assert rows(small.x_train) <= rows(images.x_train)
    assert rows(small.x_test) <= rows(images.x_test)
    assert len(rows(small.x_train)) == 40


def test_a_smaller_subset_is_the_beginning_of_a_larger_one(images):
    """Catches subsets that are drawn anew for every size, so that moving n exchanges all samples."""
    small, large = images.subset(n_train=10, seed=2), images.subset(n_train=30, n_test=5, seed=2)
    assert torch.equal(small.x_train, large.x_train[:10])


def test_the_seed_decides_the_subset(images):
    """Catches a seed that is ignored, and a subset that depends on what was drawn before."""
    one, same, other = (images.subset(n_train=20, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.x_train, same.x_train)
    assert not torch.equal(one.x_train, other.x_train)


def test_classes_are_renamed_in_the_order_of_the_list(images):
    """Catches classes sorted before they are renamed: [2, 0] must make class 2 the new class 0."""
    two = images.subset(classes=[2, 0])
    assert two.classes == 2
    assert torch.bincount(two.y_train).tolist() == [10, 30]
    assert torch.equal(two.clean_train, two.y_train)
    assert torch.bincount(images.subset(classes=2).y_train).tolist() == [30, 20]


def test_a_subset_of_noisy_data_is_stratified_by_the_clean_labels(images):
    """Catches stratification by corrupted labels, and noise that is lost or moved by the subset."""
    noisy = images.with_label_noise(0.5, seed=1)
    small = noisy.subset(n_train=12, seed=0)
    assert torch.bincount(small.clean_train).tolist() == [6, 4, 2]
    assert torch.equal(small.x_train, images.subset(n_train=12, seed=0).x_train)
    assert bool(small.noisy.any())


def test_nothing_touches_the_original_or_the_global_random_state(images):
    """Catches work in place, and a draw from the global generators of torch, NumPy or Python."""
    before = {name: getattr(images, name).clone() for name in ("x_train", "y_train", "x_test", "y_test")}
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    data = images.subset(n_train=30, n_test=10, classes=[1, 0], seed=5).with_label_noise(0.5, "flip")
    data.standardized().unit_length().flattened().to("cpu", torch.float32)
    gaussian_mixture(2, 2, 8, 3, 0.1)
    for name, value in before.items():
        assert torch.equal(getattr(images, name), value), name
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]


def test_fields_cannot_be_set(images):
    """Catches a dataset that one part of a program can change under another."""
    with pytest.raises(FrozenInstanceError):
        images.classes = 4


def test_standardised_features_have_mean_zero_and_variance_one_over_the_training_set(images):
    """Catches statistics of one number for all features, or of the test set, or variance over n - 1."""
    data = images.standardized()
    x = data.x_train.flatten(1)
    assert torch.allclose(x.mean(0), torch.zeros(24, dtype=x.dtype), atol=1e-14)
    assert torch.allclose(x.square().mean(0), torch.ones(24, dtype=x.dtype), atol=1e-13)
    mean, deviation = images.x_train.mean(0), images.x_train.std(0, correction=0)
    assert torch.allclose(data.x_test, (images.x_test - mean) / deviation, atol=1e-13)


def test_a_constant_feature_becomes_zero():
    """Catches division by a deviation that is zero or, in float32, a rounding error of the mean of 0.1."""
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(1000, 3, generator=rng)
    x[:, 1] = 0.1
    data = Dataset("", x, torch.arange(1000) % 2, x[:4] + 0.5, torch.zeros(4, dtype=torch.int64), classes=2)
    standard = data.standardized()
    assert torch.equal(standard.x_train[:, 1], torch.zeros(1000))
    assert torch.allclose(standard.x_test[:, 1], torch.full((4,), 0.5))


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_unit_length_divides_each_sample_by_its_norm(images, scale):
    """Catches a norm over the last axis only, and squares that under- or overflow in float32."""
    x, test = (scale * part.float() for part in (images.x_train, images.x_test))
    data = Dataset("", x, images.y_train, test, images.y_test, classes=3).unit_length()
    assert data.x_train.shape == x.shape
    assert torch.allclose(data.x_train.flatten(1).norm(dim=1), torch.ones(60), atol=1e-6)
    cosine = torch.cosine_similarity(data.x_test.flatten(1), images.x_test.float().flatten(1))
    assert torch.allclose(cosine, torch.ones(30), atol=1e-6)


def test_a_blank_sample_has_no_unit_length(images):
    """Catches NaN that appears without a word."""
    x = images.x_test.clone()
    x[7] = 0
    blank = Dataset("", images.x_train, images.y_train, x, images.y_test, classes=3)
    with pytest.raises(ValueError, match=r"x_test: sample 7 is all zero"):
        blank.unit_length()


def test_flattened_keeps_channel_row_column_order(images):
    """Catches rows that mix samples or transpose images."""
    flat = images.flattened()
    assert flat.shape == (24,) and flat.dim == images.dim == 24
    assert torch.equal(flat.x_train[3], images.x_train[3].reshape(-1))


def test_to_changes_inputs_and_leaves_labels_whole(images):
    """Catches labels that are cast along with the inputs."""
    data = images.to(dtype=torch.float32)
    assert data.x_train.dtype == data.x_test.dtype == torch.float32
    assert data.y_train.dtype == data.y_test.dtype == data.clean_train.dtype == torch.int64


def test_text_is_short_and_constant(images):
    """Catches a text that prints tensors, which no notebook check could compare."""
    assert repr(images) == "<Dataset images: 60 + 30 of 2x4x3, 3 classes>"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"n_train": -3}, "n_train=-3: takes a whole number of at least 1"),
        ({"n_train": 0}, "n_train=0"),
        ({"n_train": 2.5}, "n_train=2.5"),
        ({"n_train": True}, "n_train=True"),
        ({"n_train": 61}, "n_train=61: there are only 60 train samples"),
        ({"n_test": 31}, "n_test=31: there are only 30 test samples"),
        ({"n_train": 40, "classes": [1, 2]}, "only 30 train samples of the classes [1, 2]"),
        ({"classes": [0, 3]}, "classes=[0, 3]"),
        ({"classes": [0, 0]}, "classes=[0, 0]"),
        ({"classes": [-1, 0]}, "classes=[-1, 0]"),
        ({"classes": 4}, "classes=4: the data have 3 classes; takes a count from 2 to 3"),
        ({"classes": 1}, "classes=1"),
        ({"classes": "02"}, "classes='02'"),
        ({"n_train": 4, "seed": -1}, "seed=-1"),
    ],
)
def test_a_bad_subset_names_the_argument(images, arguments, says):
    """Catches a traceback from inside torch, or a subset silently cut short."""
    with pytest.raises(ValueError) as error:
        images.subset(**arguments)
    assert says in str(error.value)


def test_choosing_classes_by_noisy_labels_is_refused(images):
    """Catches noisy labels outside the chosen classes, which would be renamed to -1."""
    with pytest.raises(ValueError, match="Take the classes first"):
        images.with_label_noise(0.5).subset(classes=2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"x_train": torch.zeros(4)}, "x_train: takes a tensor"),
        ({"x_train": np.zeros((4, 2))}, "x_train: takes a tensor"),
        ({"x_train": torch.zeros(4, 2, dtype=torch.int32)}, "x_train: takes a floating-point tensor"),
        ({"x_train": torch.zeros(0, 2), "y_train": torch.zeros(0, dtype=torch.int64)}, "at least one sample"),
        ({"x_train": torch.zeros(3, 2)}, "x_train has 3 samples and y_train has 4 labels"),
        ({"x_test": torch.zeros(4, 5)}, "must be alike"),
        ({"y_train": torch.tensor([0, 1, 2, 1])}, "y_train: labels run from 0 to 2"),
        ({"y_test": torch.tensor([0, 1, -1, 1])}, "y_test: labels run from -1 to 1"),
        ({"y_train": torch.zeros(4)}, "y_train: takes an int64 tensor"),
        ({"clean_train": torch.zeros(2, dtype=torch.int64)}, "clean_train has 2 labels"),
        ({"classes": 1}, "classes=1"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, says):
    """Catches a dataset that fails only later, far from its cause."""
    y = torch.tensor([0, 1, 0, 1])
    good = {
        "x_train": torch.zeros(4, 2),
        "y_train": y,
        "x_test": torch.zeros(4, 2),
        "y_test": y,
        "classes": 2,
    }
    Dataset("good", **good)
    with pytest.raises(ValueError) as error:
        Dataset("bad", **{**good, **change})
    assert says in str(error.value)


def test_a_device_that_is_not_there_is_named(images):
    """Catches torch's own error, which does not say which argument was wrong."""
    with pytest.raises(ValueError, match="device='nowhere'.*Use device='cpu'"):
        images.to("nowhere")
    with pytest.raises(ValueError, match=r"dtype=torch\.int64"):
        images.to(dtype=torch.int64)
