"""Paper 1, distance from initialization: its bounds as finite recursions, by equation and claim.

    equation        function                                               claim
    section 2       layer_shapes, xavier_sds                                 D1
    Cor. A.2.1      initial_norms; gaussian.frobenius_squared              D1
    Thms A.1, A.2   gaussian.chi_square_tail, gaussian.gaussian_spectral   D1, D4
    Cor. A.3.1      gaussian.khintchine_bound                              D5, D10
    Prop. 6.1       the product of initial_norms; local_exponent           D2, D3
    Prop. 6.2       spectral_products                                      D6, D21
    Thm C.1         output_bound                                           D7
    Cor. C.1.1      initial_loss_bound                                     D8
    Thm C.2         gradient_bound                                         D9
    Thm 5.1         rademacher_bound; supremum_bound for given signs       D10, D17

Names: d weight matrices Z_1 .. Z_d at the start and W_1 .. W_d later, Z_k of shape (n_k, n_(k-1)); ``dims``
is (n_0, .., n_d); ``z_spec`` holds ||Z_k||_2 along its last axis; r = ||(W, B) - (Z, 0)||_F over weights and
biases. The paper's O~(c^d (r + 1)^d ..) are here the recursions of its proofs, run with measured ||Z_k||_2
and r: no constant is left open. Leading axes (seeds, frames) broadcast.

Errata, each repeated where it matters:
    section 2    "N(0, 1/sqrt(H))" means sd 1/sqrt(H). With sd 1/sqrt(fan-in) Z_1 breaks Cor. A.2.1: ||Z_1||_2
                 grows as sqrt(H). W_d is a row, not a column
    Thm 5.1      the left side lacks 1/m: the proof bounds E sup sum xi_i f(x_i) by a multiple of sqrt(m)
    App. B.1     ||Z_1||_2 = Theta(1) by Cor. A.2.1, not Theta(sqrt(n)), which is its Frobenius norm
    Prop. 6.1    H^(d-2) is the limit: with Glorot's variance 2/(n_0 + H) the product of ||Z_1||_F^2 and
                 ||Z_d||_F^2 still grows while H is not far above n_0
    Thm A.3      E |sum xi_i x_i|^p on the left side
    Cor. C.1.1   y is y_i; for K outputs and the loss (1/K)|f - y|^2 divide by K
    Thm C.2      |d phi(W h)/dW| <= |h| is true of the operator norm, not of the Euclidean norm over all
                 pairs of entries; the result survives: the gradient is the outer product of the
                 back-propagated vector and h, and both factors are bounded
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from labkit.theory._checks import Array, array, integer
from labkit.theory.gaussian import frobenius_squared, gaussian_spectral, khintchine_bound

__all__ = [
    "GradientBound",
    "InitialNorms",
    "SpectralProducts",
    "gradient_bound",
    "initial_loss_bound",
    "initial_norms",
    "layer_shapes",
    "local_exponent",
    "output_bound",
    "rademacher_bound",
    "spectral_products",
    "supremum_bound",
    "xavier_sds",
]

_SDS = {
    "glorot": lambda a, b, width: np.sqrt(2 / (a + b)),
    "glorot-normal": lambda a, b, width: np.sqrt(2 / (a + b)),
    "inverse-sqrt-width": lambda a, b, width: np.full(len(a), 1 / np.sqrt(width)),
    "lecun": lambda a, b, width: 1 / np.sqrt(a),
    "he": lambda a, b, width: np.sqrt(2 / a),
}


@dataclass(frozen=True)
class InitialNorms:
    """Cor. A.2.1 with constants, by layer, each (d,).

    Attributes:
        frobenius_squared: E ||Z_k||_F^2, exact.
        spectral: sd_k (sqrt(n_k) + sqrt(n_(k-1))), an upper bound on E ||Z_k||_2 for Gaussian entries.
    """

    frobenius_squared: Array
    spectral: Array


@dataclass(frozen=True)
class SpectralProducts:
    """The three levels of Prop. 6.2, each of the leading shape: product <= layerwise <= with_r."""

    product: Array
    layerwise: Array
    with_r: Array


@dataclass(frozen=True)
class GradientBound:
    """Thm C.2, for one output at one input.

    Attributes:
        weights: (..., d), bounds on ||df/dW_k||_F.
        biases: (..., d), bounds on ||df/db_k||.
        total: (...), bound on ||df/dW|| over all weights (biases apart, as in the paper).
    """

    weights: Array
    biases: Array
    total: Array


def layer_shapes(inputs: int, width: int, depth: int, outputs: int = 1) -> tuple[int, ...]:
    """(n_0, .., n_d) for ``depth`` = d weight matrices and d - 1 hidden layers of one width; Z_k has shape
    (n_k, n_(k-1)).

    Args:
        inputs: n_0. width: units of every hidden layer. depth: d, weight matrices. outputs: n_d.

    Returns:
        `dims`, d + 1 sizes.

    Raises:
        ValueError: an argument is out of its range.
    """
    n, h, k = integer("inputs", inputs, 1), integer("width", width, 1), integer("outputs", outputs, 1)
    return (n, *[h] * (integer("depth", depth, 1) - 1), k)


def xavier_sds(init: str, dims: Sequence[int]) -> Array:
    """Standard deviation of the weights of each layer, (d,), under an initialisation of labkit.models.

    "glorot" (uniform) and "glorot-normal": sqrt(2/(n_(k-1) + n_k)); "inverse-sqrt-width": 1/sqrt(H), H the
    one hidden width; "lecun": 1/sqrt(n_(k-1)) and "he": sqrt(2/n_(k-1)), under which D1 is false for Z_1.

    Args:
        init: its name. dims: (n_0, .., n_d).

    Returns:
        (d,).

    Raises:
        ValueError: the name is unknown, or "inverse-sqrt-width" finds no single hidden width.
    """
    sizes = _dims(dims)
    if init not in _SDS:
        raise ValueError(f"init: expected one of {', '.join(_SDS)}; got {init!r}.")
    hidden = set(sizes[1:-1].tolist())
    if init == "inverse-sqrt-width" and len(hidden) != 1:
        raise ValueError(
            f"dims: 'inverse-sqrt-width' needs one hidden width, got {sorted(hidden)} from {tuple(dims)!r}."
        )
    return _SDS[init](sizes[:-1], sizes[1:], max(hidden, default=1.0))


def initial_norms(dims: Sequence[int], sds: Any) -> InitialNorms:
    """Cor. A.2.1: both norms of every layer before training, from shapes and standard deviations alone.

    Args:
        dims: (n_0, .., n_d). sds: (d,), or one number for all layers.

    Returns:
        InitialNorms, (d,) each.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    sizes, scales = _layers(dims, sds)
    return InitialNorms(
        frobenius_squared(sizes[1:], sizes[:-1], scales), gaussian_spectral(sizes[1:], sizes[:-1], scales)
    )


def local_exponent(x: Any, y: Any) -> Array:
    """Slope of log y against log x between neighbours: x (T,), y (..., T) -> (..., T - 1).

    Args:
        x: (T,), positive, neighbours different. y: (..., T), positive.

    Returns:
        (..., T - 1).

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    places, values = array("x", x, 1), array("y", y, (1, 2, 3, 4))
    if values.shape[-1] != len(places) or len(places) < 2:
        raise ValueError(
            f"y: expected shape (..., T) with T = {len(places)} >= 2 as in x, got {values.shape}."
        )
    if (places <= 0).any() or (values <= 0).any() or (np.diff(places) == 0).any():
        raise ValueError("x, y: expected positive values, neighbours in x different.")
    return np.diff(np.log(values), axis=-1) / np.diff(np.log(places))


def spectral_products(w_spec: Any, z_spec: Any, layer_distance: Any, r: Any) -> SpectralProducts:
    """Prop. 6.2: prod ||W_k||_2 <= prod (||Z_k||_2 + ||W_k - Z_k||_F) <= prod (||Z_k||_2 + r).

    Args:
        w_spec, z_spec, layer_distance: (..., d). r: (...). No relation between them is required: a distance
            that was measured wrongly must show as levels out of order.

    Returns:
        SpectralProducts, (...) each.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    trained, start, moved = (
        _sizes(name, value, 1)
        for name, value in (("w_spec", w_spec), ("z_spec", z_spec), ("layer_distance", layer_distance))
    )
    whole = _sizes("r", r)
    return SpectralProducts(trained.prod(-1), (start + moved).prod(-1), (start + whole[..., None]).prod(-1))


def output_bound(z_spec: Any, r: Any, x_norm: Any) -> Array:
    """Thm C.1: ||f^(k)(x)|| <= a_k with a_0 = ||x||, a_k = (||Z_k||_2 + r) a_(k-1) + r.

    For any (W, B) within r of (Z, 0) and any activation with |phi(u)| <= |u|, such as ReLU.

    Args:
        z_spec: (..., d). r, x_norm: (...), broadcast.

    Returns:
        (..., d): the bounds on every layer; the last one is on the output.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    return _recursion(_sizes("z_spec", z_spec, 1), _sizes("r", r), _sizes("x_norm", x_norm), _sizes("r", r))


def gradient_bound(z_spec: Any, r: Any, x_norm: Any) -> GradientBound:
    """Thm C.2: ||df/dW_k||_F <= prod_(j>k) (||Z_j||_2 + r) a_(k-1), a as in `output_bound`, a_0 = ||x||.

    df/dW_k is the outer product of the back-propagated vector, at most the product of the later norms, and
    of the layer's input, at most a_(k-1). For ReLU, or any activation with |phi(u)| <= |u|, |phi'| <= 1; for
    each output of a network with several, and for the operator norm of all of them together.

    Args:
        z_spec: (..., d). r, x_norm: (...), broadcast.

    Returns:
        GradientBound, (..., d) and (...).

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    start, whole, size = _sizes("z_spec", z_spec, 1), _sizes("r", r), _sizes("x_norm", x_norm)
    reached = output_bound(start, whole, size)
    factors = np.broadcast_to(start + whole[..., None], reached.shape)
    later = np.ones(reached.shape)
    later[..., :-1] = np.cumprod(factors[..., :0:-1], axis=-1)[..., ::-1]
    first = np.broadcast_to(size, reached.shape[:-1])[..., None]
    weights = later * np.concatenate([first, reached[..., :-1]], axis=-1)
    return GradientBound(weights, later, np.sqrt((weights**2).sum(-1)))


def initial_loss_bound(z_spec: Any, x_norm: Any, y_norm: Any, outputs: int = 1) -> Array:
    """Cor. C.1.1: before training (1/K)|f - y|^2 <= (prod ||Z_k||_2 max|x| + max|y|)^2/K.

    Args:
        z_spec: (..., d). x_norm, y_norm: (...), the largest input and target. outputs: K.

    Returns:
        The bound, in the shape that the arguments broadcast to.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    size = output_bound(z_spec, 0.0, x_norm)[..., -1]
    return (size + _sizes("y_norm", y_norm)) ** 2 / integer("outputs", outputs, 1)


def supremum_bound(z_spec: Any, r: Any, v_norm: Any, s_abs: Any = 0.0) -> Array:
    """The deterministic step of Thm 5.1: sup of sum_i xi_i f(x_i) over the ball, for one draw of signs.

    A linear network sees its data only through v = sum xi_i x_i and s = sum xi_i, so the recursion is
    a_0 = |v|, a_k = (||Z_k||_2 + r) a_(k-1) + r |s|.

    Args:
        z_spec: (..., d). r, v_norm: (...). s_abs: (...), |s|; 0 for a network without biases.

    Returns:
        The bound, in the shape that the arguments broadcast to.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    whole = _sizes("r", r)
    added = whole * _sizes("s_abs", s_abs)
    return _recursion(_sizes("z_spec", z_spec, 1), whole, _sizes("v_norm", v_norm), added)[..., -1]


def rademacher_bound(z_spec: Any, r: Any, x_norms: Any, *, biases: bool = True) -> Array:
    """Thm 5.1 with its 1/m: (1/m) E sup sum_i xi_i f(x_i) over linear networks within r of (Z, 0).

    `supremum_bound` is linear in |v| and |s|, whose means are at most (sum |x_i|^2)^(1/2) and sqrt(m)
    (Cor. A.3.1).

    Args:
        z_spec: (..., d). r: (...). x_norms: (m,), the norms of the inputs.
        biases: whether the ball is one in weights and biases, or in weights alone.

    Returns:
        The bound, in the shape that the arguments broadcast to.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    norms = _sizes("x_norms", array("x_norms", x_norms, 1), 1)
    m = len(norms)
    return supremum_bound(z_spec, r, khintchine_bound(norms[:, None]), np.sqrt(m) if biases else 0.0) / m


def _recursion(start: Array, whole: Array, first: Array, added: Array) -> Array:
    """a_k = (start_k + whole) a_(k-1) + added from a_0 = first; (..., d)."""
    factors = start + whole[..., None]
    shape = np.broadcast_shapes(factors.shape[:-1], first.shape, added.shape)
    value, found = np.broadcast_to(first, shape), []
    for k in range(factors.shape[-1]):
        value = factors[..., k] * value + added
        found.append(value)
    return np.stack(found, axis=-1)


def _sizes(name: str, value: Any, least: int = 0) -> Array:
    """Norms and distances: finite, >= 0, with a layer axis where ``least`` is 1."""
    sizes = array(name, value, tuple(range(least, 6)))
    if (sizes < 0).any() or 0 in sizes.shape:
        raise ValueError(f"{name}: expected norms >= 0, at least one; got {value!r}.")
    return sizes


def _dims(dims: Sequence[int]) -> Array:
    sizes = array("dims", dims, 1)
    if len(sizes) < 2 or (sizes < 1).any() or (sizes != np.floor(sizes)).any():
        raise ValueError(f"dims: expected (n_0, .., n_d), whole numbers >= 1, at least two; got {dims!r}.")
    return sizes


def _layers(dims: Sequence[int], sds: Any) -> tuple[Array, Array]:
    sizes, scales = _dims(dims), array("sds", sds, (0, 1))
    if scales.ndim and len(scales) != len(sizes) - 1:
        raise ValueError(
            f"sds: expected one a layer, {len(sizes) - 1} for dims {tuple(dims)!r}, got {len(scales)}."
        )
    return sizes, scales
