"""Label noise of three kinds. All are exact counts of samples, none is a coin toss a sample.

| kind | what happens to round(share * n) samples | labels that change |
| --- | --- | --- |
| strict | a different class, uniform over the K - 1 others | exactly round(share * n) |
| redraw | a class uniform over all K, so perhaps the same | about share * n * (K - 1) / K |
| flip | the other class; two classes only | exactly round(share * n) |

With one seed, the samples corrupted at a small share are also corrupted at every larger one, with the same
new label. With *flip*, a share of 1 is clean data with the names of the classes swapped.
"""

import torch

from labkit.data._checks import choice, number
from labkit.data._random import generator

KINDS = ("strict", "redraw", "flip")
"""The kinds of label noise, as in the table above."""


def corrupt(
    y: torch.Tensor, classes: int, share: float, kind: str = "strict", *, seed: int = 0
) -> torch.Tensor:
    """Labels with noise; `y` itself stays as it is.

    Args:
        y: labels, (n,), int64, in 0..classes-1.
        classes: K, the number of classes.
        share: from 0 to 1, the share of samples that are corrupted.
        kind: "strict", "redraw" or "flip", as in the table above.
        seed: decides which samples, and their new labels.

    Returns:
        New labels, (n,), int64, on the device of `y`.

    Raises:
        ValueError: `share` outside [0, 1], an unknown `kind`, or "flip" with other than two classes.
    """
    share = number("share", share, 0.0, 1.0)
    kind = choice("kind", kind, KINDS)
    if kind == "flip" and classes != 2:
        raise ValueError(
            f"kind='flip' swaps two classes, and here are {classes}. "
            "Use kind='strict' or kind='redraw', or take two classes first: subset(classes=[0, 1])."
        )
    n = len(y)
    rng = generator(seed, "label noise")
    # Both draws have the size of the whole set whatever the share: that nests the noise of different shares.
    order = torch.randperm(n, generator=rng)
    shift = torch.randint(0 if kind == "redraw" else 1, classes, (n,), generator=rng)
    chosen = order[: round(share * n)].to(y.device)
    noisy = y.clone()
    noisy[chosen] = (y[chosen] + shift.to(y.device)[chosen]) % classes
    return noisy
