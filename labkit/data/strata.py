"""Stratified orders: orders of the samples in which every beginning holds the classes in their proportions.

A subset of size n is the first n samples of such an order, so a smaller subset is always part of a larger
one: when n changes, samples are added or dropped, never exchanged.
"""

from collections.abc import Iterable, Sequence

import torch

from labkit.data._checks import whole_number
from labkit.data._random import generator


def stratified_order(y: torch.Tensor, rng: torch.Generator | None = None) -> torch.Tensor:
    """An order of the samples whose every beginning is stratified by `y`.

    The j-th sample of a class with m members gets the key (j + 1/2) / m, and samples are sorted by key (the
    divisor method of Webster). Among the first n samples, a class with m of the N members then has n m / N
    samples, up to 1/2 + K m / (2 N) for K classes: at most 1 when classes are of equal size.

    Args:
        y: labels, (N,), int64.
        rng: shuffles within classes and breaks ties between them; None keeps the order given.

    Returns:
        A permutation of 0..N-1, (N,), int64, on the CPU.
    """
    y = y.cpu()
    start = torch.arange(len(y)) if rng is None else torch.randperm(len(y), generator=rng)
    _, labels, counts = torch.unique(y[start], return_inverse=True, return_counts=True)
    by_class = torch.argsort(labels, stable=True)
    first_of_class = torch.cumsum(counts, 0) - counts
    rank = torch.empty_like(labels)
    rank[by_class] = torch.arange(len(y)) - first_of_class[labels[by_class]]
    key = (rank.double() + 0.5) / counts[labels]
    return start[torch.argsort(key, stable=True)]


def choose(
    y: torch.Tensor, n: int | None, classes: Sequence[int] | None, *, seed: int, part: str
) -> torch.Tensor | slice:
    """Places of a stratified subset of `n` samples (None: all, in the order given) of some classes.

    Args:
        y: labels, (N,), int64.
        n: how many samples.
        classes: which classes; None for all.
        seed: decides which samples.
        part: "train" or "test"; each has its own random stream, so choosing one leaves the other as it is.

    Returns:
        Indices, (n,), int64, on the CPU; or a slice of everything, which copies nothing.

    Raises:
        ValueError: n_train or n_test is not a whole number of at least 1, or more than there is.
    """
    if n is None and classes is None:
        return slice(None)
    y = y.cpu()
    kept = torch.arange(len(y)) if classes is None else torch.isin(y, torch.tensor(classes)).nonzero()[:, 0]
    if n is None:
        return kept
    name = f"n_{part}"
    n = whole_number(name, n, low=1)
    if n > len(kept):
        of = "" if classes is None else f" of the classes {list(classes)}"
        raise ValueError(
            f"{name}={n}: there are only {len(kept)} {part} samples{of}. Take at most {len(kept)}."
        )
    return kept[stratified_order(y[kept], generator(seed, f"subset of {part}"))[:n]]


def taken(samples: torch.Tensor, places: torch.Tensor | slice) -> torch.Tensor:
    """The samples at places that `choose` gave, wherever they are."""
    return samples[places if isinstance(places, slice) else places.to(samples.device)]


def class_list(classes: int | Iterable[int], available: int) -> list[int]:
    """The classes asked for: a count K means 0..K-1, a list is taken in its order.

    Raises:
        ValueError: a class that the data do not have, one named twice, or fewer than two.
    """
    takes = (
        f"the data have {available} classes; takes a count from 2 to {available}, or a list of two or more "
        f"different ones of 0..{available - 1}"
    )
    try:
        if isinstance(classes, (str, bytes, bool)):
            raise ValueError
        if isinstance(classes, Iterable):
            kept = [whole_number("classes", k) for k in classes]
        else:
            kept = list(range(whole_number("classes", classes)))
    except ValueError:
        raise ValueError(f"classes={classes!r}: {takes}.") from None
    if len(kept) < 2 or len(set(kept)) < len(kept) or max(kept) >= available:
        raise ValueError(f"classes={classes!r}: {takes}.")
    return kept


def relabel(y: torch.Tensor, classes: Sequence[int], available: int) -> torch.Tensor:
    """Labels renamed by their place in `classes`: classes[j] becomes j."""
    place = torch.full((available,), -1, dtype=torch.int64, device=y.device)
    place[torch.tensor(classes, device=y.device)] = torch.arange(len(classes), device=y.device)
    return place[y]
