"""One dataset: training and test samples with their labels, and the ways to make another one from it.

Every method returns a new dataset and leaves the old one, and the global random state, as they were.
Randomness comes from a seed, on the CPU: one seed gives the same data on every device, at every precision.
"""

import math
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch

from labkit.data import noise, strata
from labkit.data._checks import extent, floating, whole_number
from labkit.data.errors import one_line


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Training and test samples of a classification task.

    Raises:
        ValueError: on construction, if shapes, lengths, dtypes or labels do not fit together.

    Example:
        >>> from labkit.data import load
        >>> data = load("digits", n_train=200).with_label_noise(0.5, seed=1)
        >>> int(data.noisy.sum())
        100
    """

    name: str
    # (n, d) or (n, C, H, W), floating; token ids (n, T) int64; uint8 only while `load` still cuts the set
    x_train: torch.Tensor
    y_train: torch.Tensor  # (n,), int64, in 0..classes-1; with label noise if there is any
    x_test: torch.Tensor  # (n_test, ...) like x_train; n_test may be 0
    y_test: torch.Tensor  # (n_test,), int64; never noisy
    classes: int  # K
    clean_train: torch.Tensor = None  # type: ignore[assignment]  # (n,), labels before noise; None: y_train
    note: str = ""  # where the data come from and what was done to them

    def __post_init__(self) -> None:
        if self.clean_train is None:
            object.__setattr__(self, "clean_train", self.y_train)
        whole_number("classes", self.classes, low=2)
        for part in ("train", "test"):
            _check_part(part, getattr(self, f"x_{part}"), getattr(self, f"y_{part}"), self.classes)
        _check_part("train", self.x_train, self.clean_train, self.classes, labels="clean_train")
        if self.x_train.shape[1:] != self.x_test.shape[1:] or self.x_train.dtype != self.x_test.dtype:
            raise ValueError(
                f"x_train has samples of shape {self.shape} and dtype {self.x_train.dtype}, "
                f"x_test {tuple(self.x_test.shape[1:])} and {self.x_test.dtype}: they must be alike."
            )

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.shape))
        sizes = f"{self.n} + {self.n_test} of {shape}, {self.classes} classes"
        return f"<{type(self).__name__} {self.name}: {sizes}>"

    @property
    def n(self) -> int:
        """Number of training samples."""
        return len(self.x_train)

    @property
    def n_test(self) -> int:
        """Number of test samples."""
        return len(self.x_test)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample: (d,) or (C, H, W)."""
        return tuple(self.x_train.shape[1:])

    @property
    def dim(self) -> int:
        """Number of features of one sample, d or C H W."""
        return math.prod(self.shape)

    @property
    def tokens(self) -> bool:
        """Whether the samples are whole numbers, as token ids are: to be looked up, never scaled."""
        return self.x_train.dtype == torch.int64

    @property
    def noisy(self) -> torch.Tensor:
        """Which training labels differ from the clean ones, (n,), bool."""
        return self.y_train != self.clean_train

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Self:
        """The same data on another device or in another floating-point dtype (labels stay int64).

        Raises:
            ValueError: a device that this machine does not have, or a dtype that is not floating.
        """
        if dtype is not None:
            floating("dtype", dtype)

        def moved(value: torch.Tensor) -> Any:
            return value.to(device=device, dtype=dtype if value.is_floating_point() else None)

        there = copy(self)  # labels that were checked: nobody need wait for them again
        try:
            for name, tensor in self._tensors().items():
                object.__setattr__(there, name, moved(tensor))
        except (RuntimeError, AssertionError, TypeError) as error:  # torch's words for a device it cannot use
            raise ValueError(
                f"device={str(device)!r}: cannot be used here ({one_line(error)}). Use device='cpu'."
            ) from error
        return there

    def subset(
        self,
        n_train: int | None = None,
        n_test: int | None = None,
        classes: int | Sequence[int] | None = None,
        seed: int = 0,
    ) -> Self:
        """A stratified subset: fewer classes, fewer samples, every class in its proportion.

        With one seed the subsets are nested: the first 100 of 200 training samples are the subset of size
        100.

        Args:
            n_train: number of training samples; None keeps all, in their order.
            n_test: number of test samples; None keeps all.
            classes: how many classes (the first ones), or a list of classes, renamed 0, 1, ... in its order.
            seed: decides which samples.

        Raises:
            ValueError: more samples than there are, unknown classes, or other classes of data with label
                noise.
        """
        kept = None if classes is None else strata.class_list(classes, self.classes)
        if kept is not None and bool(self.noisy.any()):
            raise ValueError(
                "classes: these labels are noisy, so a sample's class is not certain. "
                "Take the classes first and add noise after: subset(classes=...).with_label_noise(...)."
            )
        train = strata.choose(self.clean_train, n_train, kept, seed=seed, part="train")
        test = strata.choose(self.y_test, n_test, kept, seed=seed, part="test")
        if kept is None:
            return replace(self, **self._selected(train, test))
        names = ", ".join(map(str, kept))
        renamed: dict[str, Any] = {
            name: strata.relabel(value, kept, self.classes) if name in LABELS else value
            for name, value in self._selected(train, test).items()
        }
        return replace(self, **renamed, classes=len(kept), note=_joined(self.note, f"classes {names}"))

    def with_label_noise(self, share: float, kind: str = "strict", seed: int = 0) -> Self:
        """The same data with noise on the training labels; earlier noise is replaced, not added to.

        Args:
            share: from 0 to 1, the share of training samples that are corrupted.
            kind: "strict" (a different class), "redraw" (uniform over all classes), "flip" (two classes
                only); exact definitions and counts stand in `labkit.data.noise`.
            seed: decides which samples, and their new labels; samples noisy at a small share stay so at a
                larger one.

        Raises:
            ValueError: `share` outside [0, 1], an unknown kind, or "flip" with other than two classes.
        """
        y_train = noise.corrupt(self.clean_train, self.classes, share, kind, seed=seed)
        kept = [part for part in self.note.split("; ") if not part.startswith("label noise ")]
        note = f"label noise {share:g} {kind}" if share else ""
        return replace(self, y_train=y_train, note=_joined(*kept, note))

    def standardized(self) -> Self:
        """Each feature with mean 0 and variance 1 over the training set; the test set moves alike.

        The variance is over n, not n - 1. A feature that is constant over the training set becomes 0 there
        and is only shifted in the test set. One that is nearly constant there can be large in the test set.

        Raises:
            ValueError: the samples are token ids.
        """
        self._refuse_tokens("standardized")
        x = self.x_train
        mean, deviation = x.mean(0), x.std(0, correction=0)
        constant = x.amax(0) == x.amin(0)  # exact, where a computed deviation would be a rounding error
        mean = torch.where(constant, x[0], mean)
        deviation = torch.where(constant, torch.ones_like(deviation), deviation)
        return self._mapped(lambda x: (x - mean) / deviation, "standardised")

    def unit_length(self) -> Self:
        """Each sample divided by its Euclidean norm.

        Raises:
            ValueError: a sample that is all zero and so has no direction, or token ids.
        """
        self._refuse_tokens("unit_length")
        for name in ("x_train", "x_test"):
            empty = (getattr(self, name).flatten(1) == 0).all(1)
            if bool(empty.any()):
                raise ValueError(
                    f"{name}: sample {int(empty.nonzero()[0])} is all zero and has no direction. "
                    "Remove it, or standardise first: standardized().unit_length()."
                )

        def scaled(x: torch.Tensor) -> torch.Tensor:
            flat = x.flatten(1)
            # Divided by the largest entry first: the squares of entries near 1e-30 are zero in float32.
            flat = flat / flat.abs().amax(1, keepdim=True)
            return (flat / torch.linalg.vector_norm(flat, dim=1, keepdim=True)).reshape(x.shape)

        return self._mapped(scaled, "unit length")

    def flattened(self) -> Self:
        """Each sample as one row, (n, C * H * W)."""
        return self._mapped(lambda x: x.flatten(1), "")

    def _refuse_tokens(self, method: str) -> None:
        if self.tokens:
            raise ValueError(
                f"{method}: the samples are whole numbers (token ids), which have no scale; if they are "
                "features or pixels, save them as floats or uint8."
            )

    def _mapped(self, change: Callable[[torch.Tensor], torch.Tensor], note: str) -> Self:
        """The same samples, changed alike in the training and the test set."""
        changed: dict[str, Any] = {"x_train": change(self.x_train), "x_test": change(self.x_test)}
        return replace(self, **changed, note=_joined(self.note, note))

    def _selected(self, train: torch.Tensor | slice, test: torch.Tensor | slice) -> dict[str, Any]:
        """The tensors of some samples; `train` and `test` are indices on the CPU, or slices of everything."""
        return {
            name: strata.taken(getattr(self, name), test if name.endswith("_test") else train)
            for name in SAMPLES
        }

    def _tensors(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}


LABELS = ("y_train", "y_test", "clean_train")
SAMPLES = ("x_train", "x_test", *LABELS)


def _check_part(part: str, x: torch.Tensor, y: torch.Tensor, classes: int, labels: str = "") -> None:
    labels = labels or f"y_{part}"
    if not isinstance(x, torch.Tensor) or x.ndim < 2:
        got = f"shape {tuple(x.shape)}" if isinstance(x, torch.Tensor) else type(x).__name__
        raise ValueError(f"x_{part}: takes a tensor (n, d) or (n, C, H, W), got {got}.")
    if not (x.is_floating_point() or x.dtype in (torch.uint8, torch.int64)):
        raise ValueError(f"x_{part}: takes a floating-point tensor, or token ids in int64, got {x.dtype}.")
    if part == "train" and not len(x):
        raise ValueError("x_train: takes at least one sample.")
    if not isinstance(y, torch.Tensor) or y.dtype != torch.int64 or y.ndim != 1:
        got = f"{y.dtype}, shape {tuple(y.shape)}" if isinstance(y, torch.Tensor) else type(y).__name__
        raise ValueError(f"{labels}: takes an int64 tensor of shape (n,), got {got}.")
    if len(x) != len(y):
        raise ValueError(
            f"x_{part} has {len(x)} samples and {labels} has {len(y)} labels: one label a sample."
        )
    first, last = extent(y)
    if first < 0 or last >= classes:
        raise ValueError(
            f"{labels}: labels run from {first} to {last}; classes={classes} takes 0..{classes - 1}."
        )


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
