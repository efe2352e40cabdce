"""torchvision's sets, with a stand-in for torchvision: no network is used."""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from labkit.data import DatasetUnavailable, load
from tests import peers


class Kept:
    """A set in the form of torchvision's: present once it was downloaded."""

    present: set[str] = set()
    calls: list[tuple[bool, bool]] = []
    failure: Exception | None = None

    def __init__(self, root, train, download):
        type(self).calls.append((train, download))
        if download and self.failure is not None:
            raise self.failure
        if download:
            self.present.add(root)
        if root not in self.present:
            raise RuntimeError("Dataset not found. You can use download=True to download it")
        n = 40 if train else 20
        pixels = np.arange(n * 32 * 32 * 3).reshape(n, 32, 32, 3) % 251
        self.data, self.targets = self.form(pixels.astype(np.uint8), np.arange(n) % 10)


class MNIST(Kept):
    def form(self, pixels, labels):
        return torch.from_numpy(pixels[:, :28, :28, 0].copy()), torch.from_numpy(labels)


class CIFAR10(Kept):
    def form(self, pixels, labels):
        return pixels, labels.tolist()


@pytest.fixture
def torchvision(monkeypatch):
    """The stand-in, in the place of torchvision."""
    Kept.present, Kept.calls, Kept.failure = set(), [], None
    package, datasets = ModuleType("torchvision"), ModuleType("torchvision.datasets")
    datasets.MNIST, datasets.CIFAR10 = MNIST, CIFAR10
    datasets.FashionMNIST, datasets.CIFAR100 = MNIST, CIFAR10
    package.datasets = datasets
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)
    return Kept


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("mnist", (1, 28, 28)),
        ("fashion-mnist", (1, 28, 28)),
        ("cifar10", (3, 32, 32)),
        ("cifar100", (3, 32, 32)),
    ],
)
def test_images_come_channels_first_between_zero_and_one(torchvision, name, shape):
    """Catches colour images reshaped in the place of transposed, and lists of labels not understood."""
    data = load(name)
    assert (data.n, data.n_test, data.shape, data.classes) == (40, 20, shape, 10)
    assert 0.9 < float(data.x_train.max()) <= 1.0
    assert float(data.x_train[0, 0, 0, 1]) == pytest.approx(3 / 255)
    if shape[0] == 3:
        assert float(data.x_train[0, 1, 0, 0]) == pytest.approx(1 / 255)


def test_the_folder_is_asked_before_the_network(torchvision, own_cache):
    """Catches a download where the files are kept already, and a folder outside the cache."""
    load("mnist")
    assert torchvision.present == {str(own_cache / "torchvision")}
    torchvision.calls.clear()
    load("mnist")
    assert torchvision.calls == [(True, False), (False, False)]


def test_the_argument_cache_goes_before_the_variable(torchvision, tmp_path):
    """Catches an argument that is not passed on."""
    load("mnist", cache=tmp_path / "mine")
    assert torchvision.present == {str(tmp_path / "mine" / "torchvision")}


def test_no_network_names_the_set_the_folder_and_the_ways_out(torchvision, own_cache):
    """Catches torchvision's own error, of many lines and without a way out."""
    torchvision.failure = RuntimeError(
        "Error downloading train.gz:\nTried https://example.org/, got:\n<timeout>\n"
    )
    with pytest.raises(DatasetUnavailable) as error:
        load("cifar10")
    text = str(error.value)
    for part in ("cifar10", str(own_cache / "torchvision"), "'digits'", "'mnist-5k'", ".npz", "<timeout>"):
        assert part in text
    assert "\n" not in text
    assert isinstance(error.value, ValueError)


def test_without_download_the_network_is_never_asked(torchvision):
    """Catches download=False that downloads."""
    with pytest.raises(DatasetUnavailable, match="download=False"):
        load("mnist", download=False)
    assert not any(download for _, download in torchvision.calls)


def test_a_bad_argument_is_refused_before_a_download(torchvision):
    """Catches minutes of download for a call that cannot succeed."""
    for bad in ({"label_noise": 1.5}, {"noise_kind": "x"}, {"n_train": -3}, {"normalize": "x"}, {"seed": -1}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            load("cifar10", **bad)
    assert torchvision.calls == []


@pytest.mark.parametrize(
    "failure",
    [
        ImportError("No module named 'torchvision'"),
        RuntimeError("operator torchvision::nms does not exist"),
        OSError("libtorch_cuda.so: cannot open shared object file"),
    ],
)
def test_a_torchvision_that_cannot_be_imported_says_what_to_install(monkeypatch, failure):
    """Catches the bare error of a torchvision that was built for another torch, fatal even for digits."""

    class Broken(ModuleType):
        def __getattr__(self, name):
            raise failure

    monkeypatch.setitem(sys.modules, "torchvision", Broken("torchvision"))
    monkeypatch.delitem(sys.modules, "torchvision.datasets", raising=False)
    with pytest.raises(DatasetUnavailable) as error:
        load("mnist")
    text = str(error.value)
    for part in (
        "mnist",
        str(failure),
        "pip install --upgrade torch torchvision",
        torch.__version__,
        "'digits'",
    ):
        assert part in text
    assert load("digits", n_train=10).n == 10


def test_the_real_torchvision_reads_files_that_lie_in_the_folder(own_cache):
    """Catches a stand-in unlike torchvision: the real class reads tiny files of MNIST's format."""
    peers.torchvision()
    folder = own_cache / "torchvision" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    pixels = np.arange(20 * 28 * 28, dtype=np.uint8).reshape(20, 28, 28)
    labels = np.arange(20, dtype=np.uint8) % 10
    for part, n in (("train", 20), ("t10k", 10)):
        for kind, array in (("images-idx3", pixels[:n]), ("labels-idx1", labels[:n])):
            sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
            magic = bytes([0, 0, 8, array.ndim])  # 8 stands for unsigned bytes
            (folder / f"{part}-{kind}-ubyte").write_bytes(magic + sizes + array.tobytes())
    data = load("mnist", download=False)
    assert repr(data) == "<Dataset mnist: 20 + 10 of 1x28x28, 10 classes>"
    assert np.array_equal((data.x_train[:, 0] * 255).round().numpy(), pixels)
    assert data.y_test.tolist() == list(range(10))
