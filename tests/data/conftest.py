"""Shared by the tests of the data leaf: no test reads or writes the user's own cache."""

from pathlib import Path

import pytest
import torch

from labkit.data import Dataset


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, reached through the variable that users have."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("LABKIT_CACHE", str(folder))
    return folder


@pytest.fixture
def images() -> Dataset:
    """60 + 30 images of 2x4x3 in 3 classes of 30, 20 and 10, where each image is unlike all others."""
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(90, 2, 4, 3, generator=rng, dtype=torch.float64)
    y = torch.tensor([0] * 30 + [1] * 20 + [2] * 10 + [0] * 10 + [1] * 10 + [2] * 10)
    return Dataset("images", x[:60], y[:60], x[60:], y[60:], classes=3)


@pytest.fixture
def mnist(test_data: Path) -> Path:
    """The file mnist.npz of the folder of real data, or a skip."""
    file = test_data / "mnist.npz"
    if not file.is_file():
        pytest.skip(f"LABKIT_TEST_DATA names {test_data}, which has no mnist.npz")
    return file
