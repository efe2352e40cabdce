"""One call from a name to data: the order of its steps, and its errors."""

import numpy as np
import pytest
import torch

from labkit.data import NAMES, load

SMALL = {"n_train": 40, "n_test": 30}


def test_the_steps_are_choose_then_corrupt_then_normalise_then_flatten():
    """Catches statistics of samples that were not chosen, and unit length before standardisation."""
    got = load(
        "digits",
        **SMALL,
        classes=[3, 8],
        label_noise=0.25,
        normalize="standardize+unit-length",
        flatten=True,
        seed=7,
    )
    data = load("digits").subset(40, 30, [3, 8], seed=7).with_label_noise(0.25, seed=7)
    expected = data.standardized().unit_length().flattened()
    for name in ("x_train", "y_train", "x_test", "y_test", "clean_train"):
        assert torch.equal(getattr(got, name), getattr(expected, name)), name
    assert got.note == "classes 3, 8; label noise 0.25 strict; standardised; unit length"


def test_one_seed_gives_equal_data_and_another_other_data():
    """Catches a seed that does not reach the subset or the noise."""
    one, same, other = (load("digits", **SMALL, label_noise=0.5, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.x_train, same.x_train) and torch.equal(one.y_train, same.y_train)
    assert not torch.equal(one.x_train, other.x_train)
    assert not torch.equal(one.x_test, other.x_test)


def test_the_samples_do_not_depend_on_the_dtype_or_the_noise():
    """Catches one stream for all draws: a change of the noise would then change the samples."""
    single, double = load("digits", **SMALL), load("digits", **SMALL, dtype=torch.float64, label_noise=0.5)
    assert double.x_train.dtype == torch.float64
    assert torch.equal(single.x_train.double(), double.x_train)  # sixteenths are exact in both


def test_flip_without_noise_is_no_error():
    """Catches a panel that fails because its noise slider stands at zero."""
    assert load("digits", **SMALL, noise_kind="flip").classes == 10
    assert int(load("digits", **SMALL, classes=2, noise_kind="flip", label_noise=0.25).noisy.sum()) == 10


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"label_noise": 1.5}, "label_noise=1.5: takes a number from 0 to 1"),
        ({"noise_kind": "x"}, "noise_kind='x': takes one of strict, redraw, flip"),
        ({"noise_kind": "flip", "label_noise": 0.1}, "noise_kind='flip' swaps two classes, and here are 10"),
        ({"n_train": -3}, "n_train=-3"),
        ({"n_train": 10_000}, "n_train=10000: there are only 1438"),
        ({"n_test": 360}, "n_test=360: there are only 359"),
        ({"classes": [0, 10]}, "classes=[0, 10]"),
        ({"classes": 11}, "classes=11"),
        ({"normalize": "whiten"}, "normalize='whiten'"),
        ({"dtype": torch.int64}, "dtype=torch.int64"),
        ({"dtype": "float32"}, "dtype='float32'"),
        ({"device": "nowhere"}, "device='nowhere'"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 0.5}, "seed=0.5"),
    ],
)
def test_a_bad_argument_is_named(arguments, says):
    """Catches bad input that is clipped, ignored or reported by a library beneath."""
    with pytest.raises(ValueError) as error:
        load("digits", **arguments)
    assert says in str(error.value)


@pytest.mark.parametrize("name", ["mnst", "", "no/such.npz", "gone.npz", "x" * 5000, 5, None])
def test_an_unknown_dataset_is_met_with_the_known_names(name):
    """Catches a FileNotFoundError for a misspelt name, and a list of names that is not the true one."""
    with pytest.raises(ValueError) as error:
        load(name)
    assert all(known in str(error.value) for known in NAMES)


def test_a_misspelt_name_gets_a_suggestion_and_a_folder_is_no_file(tmp_path):
    """Catches help that does not help."""
    with pytest.raises(ValueError, match="Did you mean 'fashion-mnist'"):
        load("Fashion_MNIST")
    with pytest.raises(ValueError, match="is a folder"):
        load(tmp_path)


def test_a_file_in_the_cache_folder_stands_for_the_download(tmp_path):
    """Whoever has no network, and the set as a file, could run none of the papers' presets."""
    x, y = np.arange(20 * 784, dtype=np.uint8).reshape(20, 28, 28), np.arange(20) % 10
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=y, x_test=x[:10], y_test=y[:10])
    found = load("mnist", cache=tmp_path, download=False)
    assert found.name == "mnist" and found.shape == (1, 28, 28) and (found.n, found.n_test) == (20, 10)
    with pytest.raises(ValueError, match="cifar10"):
        load("cifar10", cache=tmp_path, download=False)
