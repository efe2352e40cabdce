"""Files of the user's own: layouts that are taken, and a table of what may be wrong with a file."""

import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import labkit
from labkit.data import load
from labkit.labs import load_lab

RNG = np.random.default_rng(0)
GOOD = {
    "x_train": RNG.integers(0, 256, (12, 5, 4), dtype=np.uint8),
    "y_train": np.arange(12, dtype=np.uint8) % 3,
    "x_test": RNG.integers(0, 256, (6, 5, 4), dtype=np.uint8),
    "y_test": np.arange(6, dtype=np.uint8) % 3,
}


def save(folder: Path, **changes) -> Path:
    """GOOD with changes, as a file; a change to None leaves the array out."""
    arrays = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


def floats(value=0.5, bad=None):
    x = np.full((12, 7), value)
    if bad is not None:
        x[3, 2] = bad
    return x


def test_pixels_become_floats_between_zero_and_one(tmp_path):
    """Catches bytes that are not scaled, scaled twice, or divided by 256."""
    data = load(save(tmp_path))
    assert data.name == "data" and data.classes == 3 and data.shape == (1, 5, 4)
    assert data.x_train.dtype == torch.float32
    assert np.array_equal(data.x_train[:, 0].numpy(), GOOD["x_train"].astype(np.float32) / 255)
    assert data.y_train.dtype == torch.int64 and data.y_train.tolist() == GOOD["y_train"].tolist()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((7,), (7,)),
        ((5, 4), (1, 5, 4)),
        ((5, 4, 3), (3, 5, 4)),
        ((5, 4, 1), (1, 5, 4)),
        ((3, 5, 7), (3, 5, 7)),
    ],
)
def test_each_layout_gives_channels_first(tmp_path, shape, expected):
    """Catches a reshape in the place of a transposition: the shape is right then, the pixels are not."""
    x = {f"x_{part}": RNG.random((n, *shape)) for part, n in (("train", 12), ("test", 6))}
    data = load(save(tmp_path, **x), dtype=torch.float64)
    assert data.shape == expected
    got = data.x_train.numpy()
    if len(shape) == 3 and shape != expected:
        got = got.transpose(0, 2, 3, 1)
    assert np.array_equal(got.reshape(12, *shape), x["x_train"])


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.int8, np.uint16])
def test_token_ids_stay_whole_numbers(tmp_path, dtype):
    """Catches ids that are divided by 255 or rounded to floats, which no embedding takes, or scaled."""
    ids = {f"x_{part}": RNG.integers(0, 90, (n, 7)).astype(dtype) for part, n in (("train", 12), ("test", 6))}
    data = load(save(tmp_path, **ids), n_train=6, dtype=torch.float64, seed=1).to(dtype=torch.float32)
    assert data.tokens and data.x_train.dtype == data.x_test.dtype == torch.int64
    assert {tuple(row) for row in data.x_train.tolist()} <= {tuple(row) for row in ids["x_train"].tolist()}
    model = torch.nn.Sequential(torch.nn.Embedding(90, 4), torch.nn.Flatten(), torch.nn.Linear(28, 3))
    assert labkit.jacobian(model, data.x_train).shape[0] == 18
    for change in ("standardized", "unit_length"):
        with pytest.raises(ValueError, match=f"^{change}: the samples are whole numbers"):
            getattr(data, change)()
    experiment = load_lab(4).experiment("linearization")
    with pytest.raises(ValueError, match="^dataset: data holds whole numbers"):
        experiment.prepare(experiment.preset(dataset=str(tmp_path / "data.npz"), n=6, classes=3))


def test_labels_may_be_one_column(tmp_path):
    """Catches a refusal of the shape in which Keras gives the labels of CIFAR."""
    data = load(save(tmp_path, y_train=GOOD["y_train"][:, None], y_test=GOOD["y_test"][:, None]))
    assert data.y_train.shape == (12,)


@pytest.mark.parametrize("dtype", [">f4", "<f8", "f2", np.longdouble])
def test_floats_of_any_width_and_byte_order_are_taken_as_they_are(tmp_path, dtype):
    """Catches foreign byte order handed to torch, and floats scaled like pixels."""
    data = load(save(tmp_path, x_train=floats(3.5).astype(dtype), x_test=floats(3.5)[:6].astype(dtype)))
    assert torch.equal(data.x_train, torch.full((12, 7), 3.5))


OTHER = np.arange(12)
CORRUPT = {
    "missing key": ({"x_test": None, "y_test": None}, "lacks x_test, y_test; it holds x_train, y_train"),
    "pickled inputs": (
        {"x_train": np.array([{}] * 12, dtype=object)},
        "x_train cannot be read: it holds pickled",
    ),
    "pickled labels": (
        {"y_test": np.array([None] * 6, dtype=object)},
        "y_test cannot be read: it holds pickled",
    ),
    "inputs of one axis": ({"x_train": np.zeros(12)}, "x_train has shape (12,)"),
    "inputs of five axes": ({"x_train": np.zeros((12, 1, 2, 2, 3))}, "x_train has shape (12, 1, 2, 2, 3)"),
    "a number": ({"x_train": np.float64(3)}, "x_train has shape ()"),
    "no channels axis": ({"x_train": np.zeros((12, 5, 5, 5))}, "x_train has shape (12, 5, 5, 5)"),
    "no samples": ({"x_train": np.zeros((0, 7)), "y_train": OTHER[:0]}, "x_train has shape (0, 7)"),
    "no test samples": ({"x_test": GOOD["x_test"][:0], "y_test": OTHER[:0]}, "x_test has shape (0, 5, 4)"),
    "no features": ({"x_train": np.zeros((12, 0))}, "x_train has shape (12, 0)"),
    "images of whole numbers": ({"x_train": np.zeros((12, 5, 4), dtype=np.int64)}, "x_train has dtype int64"),
    "tokens and features": ({"x_train": np.zeros((12, 7), dtype=np.int64)}, "must be alike"),
    "complex inputs": ({"x_train": np.zeros((12, 7), dtype=complex)}, "x_train has dtype complex128"),
    "text": ({"x_train": np.array([["a"]] * 12)}, "x_train has dtype <U1"),
    "NaN": ({"x_train": floats(bad=np.nan)}, "x_train has NaN or infinite values in 1 of 12 samples"),
    "infinity": ({"x_train": floats(bad=np.inf)}, "x_train has NaN or infinite values"),
    "lengths differ": ({"y_train": OTHER[:11] % 3}, "x_train has 12 samples and y_train has 11 labels"),
    "test lengths differ": ({"y_test": OTHER[:7] % 3}, "x_test has 6 samples and y_test has 7 labels"),
    "other shape in test": ({"x_test": np.zeros((6, 5, 5), dtype=np.uint8)}, "must be alike"),
    "other dtype in test": ({"x_test": np.zeros((6, 5, 4))}, "must be alike"),
    "one-hot labels": ({"y_train": np.eye(3, dtype=int)[OTHER % 3]}, "y_train has shape (12, 3)"),
    "float labels": ({"y_train": OTHER % 3 + 0.0}, "y_train has dtype float64"),
    "bool labels": ({"y_train": OTHER % 2 == 0}, "y_train has dtype bool"),
    "negative labels": ({"y_train": OTHER % 3 - 1}, "y_train has negative labels"),
    "labels from one": (
        {"y_train": OTHER % 3 + 1},
        "y_train has 3 different labels from 1 to 3: out of range",
    ),
    "a gap in the labels": ({"y_train": OTHER % 3 * 5}, "y_train has 3 different labels from 0 to 10"),
    "one class": ({"y_train": OTHER * 0}, "y_train has one class only"),
    "unknown test label": ({"y_test": OTHER[:6]}, "y_test has labels from 0 to 5: out of range 0..2"),
    "negative test label": ({"y_test": OTHER[:6] % 3 - 1}, "y_test has labels from -1 to 1"),
}


@pytest.mark.parametrize("what", CORRUPT)
def test_a_wrong_array_is_named(tmp_path, what):
    """Catches each kind of wrong content that gets past the door, or fails without the name of the array."""
    changes, says = CORRUPT[what]
    path = save(tmp_path, **changes)
    with pytest.raises(ValueError) as error:
        load(path)
    assert says in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value)


def not_a_zip(path: Path) -> None:
    path.write_text("x_train y_train")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def one_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def a_pickle(path: Path) -> None:
    path.write_bytes(b"\x80\x04]\x94.")


def not_arrays(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for key in GOOD:
            archive.writestr(key, "text")


def impossible_size(path: Path) -> None:
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999, 9)}\n"
    with zipfile.ZipFile(path, "w") as archive:
        for key in GOOD:
            archive.writestr(
                f"{key}.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
            )


@pytest.mark.parametrize(
    "spoil", [not_a_zip, empty, cut_short, one_array, a_pickle, not_arrays, impossible_size]
)
def test_a_broken_file_is_named(tmp_path, spoil):
    """Catches errors of the zip and NumPy parsers that reach the user, and a pickle that is loaded."""
    path = save(tmp_path)
    spoil(path)
    with pytest.raises(ValueError) as error:
        load(path)
    assert str(path) in str(error.value)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_gives_the_data_or_a_clear_error(tmp_path, place, change):
    """Catches any parser error but ValueError, wherever in the file one byte is wrong."""
    content = bytearray(save(tmp_path).read_bytes())
    content[place % len(content)] ^= change
    path = tmp_path / "changed.npz"
    path.write_bytes(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy warns of some headers, and then raises
            assert load(path).n == 12
    except ValueError as error:
        assert str(path) in str(error)


def test_real_mnist_is_read_and_cut(mnist):
    """Catches what made-up files do not show: all 60,000 images, in their order, with their labels."""
    data = load(mnist, n_train=200, n_test=100, flatten=True)
    assert repr(data) == "<Dataset mnist: 200 + 100 of 784, 10 classes>"
    counts = torch.bincount(data.y_train)
    assert int(counts.min()) >= 17 and int(counts.max()) <= 23  # MNIST has 9.0 % fives and 11.2 % ones
    assert float(data.x_train.max()) == 1.0
    with np.load(mnist) as archive:
        known = {row.tobytes(): int(y) for row, y in zip(archive["x_train"], archive["y_train"], strict=True)}
    for row, y in zip((data.x_train * 255).round().to(torch.uint8).numpy(), data.y_train, strict=True):
        assert known[row.tobytes()] == int(y)
