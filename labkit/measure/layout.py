"""The one index layout of labkit: row i*K + k is output k of sample i.

This is torch's own order, `outputs.reshape(n * K)`. Paper 4 writes Kronecker products I_K (x) ., which is
class-major: row k*n + i. Getting it wrong is a silent error: permuting the label vector leaves every spectrum
right and every projection wrong. So nobody in labkit reshapes labels by hand; they call these four functions.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["from_class_major", "rows", "to_class_major", "unrows"]


def rows(y: Tensor) -> Tensor:
    """Arrange labels or residuals, one row a sample, along the rows of the Jacobian.

    Args:
        y: (n, K), entry [i, k] belongs to output k of sample i.

    Returns:
        (n*K,), entry i*K + k.

    Raises:
        ValueError: if `y` has not two axes.

    Cost: none, a view; of what is not contiguous a copy.
    """
    if y.ndim != 2:
        raise ValueError(
            f"rows: y has shape {tuple(y.shape)}, needs (n, K), one row a sample; a vector of n class "
            "numbers becomes one with torch.nn.functional.one_hot(y, K), a vector of n numbers (K = 1) with "
            "y[:, None]"
        )
    return y.reshape(-1)


def unrows(v: Tensor, n: int, K: int) -> Tensor:
    """Undo `rows`: (n*K,) or (n*K, b) -> (n, K) or (n, K, b).

    Args:
        v: (n*K,) or (n*K, b), in the order of `rows`.
        n, K: samples and outputs.

    Returns:
        (n, K) or (n, K, b), a view where that is possible.

    Raises:
        ValueError: if the first axis of `v` is not n*K long.

    Cost: none, a view; of what is not contiguous a copy.
    """
    _check_length("unrows", v, n, K)
    return v.reshape(n, K, *v.shape[1:])


def from_class_major(v: Tensor, n: int, K: int) -> Tensor:
    """Rearrange a vector in the paper's order (entry k*n + i) into labkit's (entry i*K + k).

    Args:
        v: (n*K,) or (n*K, b), class-major along its first axis.
        n: samples.
        K: outputs.

    Returns:
        A tensor of the same shape, in labkit's layout.

    Raises:
        ValueError: if the first axis of `v` is not n*K long.

    Cost: one copy of `v`.

    Reference: paper 4, Def. 2.1 (I_K (x) .).
    """
    _check_length("from_class_major", v, n, K)
    return v.reshape(K, n, *v.shape[1:]).transpose(0, 1).reshape(v.shape)


def to_class_major(v: Tensor, n: int, K: int) -> Tensor:
    """Undo `from_class_major`: from entry i*K + k to the paper's k*n + i.

    Args:
        v: (n*K,) or (n*K, b), sample by sample.
        n, K: samples and outputs.

    Returns:
        The same shape, class by class, as the papers stack it.

    Raises:
        ValueError: if the first axis of `v` is not n*K long.

    Cost: one copy of `v`.

    Reference: paper 4, Def. 2.1 (I_K (x) .).
    """
    _check_length("to_class_major", v, n, K)
    return v.reshape(n, K, *v.shape[1:]).transpose(0, 1).reshape(v.shape)


def _check_length(name: str, v: Tensor, n: int, K: int) -> None:
    if v.ndim == 0 or v.shape[0] != n * K:
        raise ValueError(f"{name}: v has shape {tuple(v.shape)}, needs n*K = {n}*{K} = {n * K} entries first")
