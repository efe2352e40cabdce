"""What bounds the sharpness of a ReLU network: section 4 and appendices B, C of paper 2.

f(x) = W_d D_(d-1) W_(d-1) ... D_1 W_1 x without biases; h_0 inputs, h_i units of layer i, h the largest; D_i
the 0/1 diagonal of active units at x, D_d = I. Noise on W_i is Gaussian with *standard deviation* sigma_i.

| equation | function | claims |
| --- | --- | --- |
| (1) | vc_order | E10 |
| Lemma 3 | lemma3 | E11 |
| gamma_i of Thm 1 | gammas | E13 |
| C_delta of Thm 1 | activation_constant | E13, E14 |
| Lemma 1 | lemma1 | E13 |
| Lemma 2 | lemma2, lemma2_flips | E13 |
| Thm 1 | theorem1_sharpness, theorem1 | E13, E14 |
| after Thm 1, gamma_i = sigma/(C_delta d) | linear_gammas, linear_sharpness, linear_kl | E14 |

Errata:
- (C1) reads |Pi_a^b|_F >= (mu/sqrt(h_c)) |Pi_(c+1)^b|_F |Pi_a^c|_F. It is printed for a < c < b, but Lemma 1
  splits single layers off, so that c = a is needed too (appendix D's figure has it). Lemma 1 needs no more
  than a = 0, and mu <= 1, since two noisy layers in a row leave a factor mu over.
- gamma_i has |D_i W_i|_F below the line, as the lemmas have. Theorem 1 prints |W_i|_F, which is larger: that
  form does not follow. "Lemma 10" is Lemma 1.
- The simplified bound after Theorem 1 drops C_delta^2 from the KL; `linear_kl` keeps it. It is linear in d
  once the number of parameters is taken out: at a fixed width, sqrt(KL) grows as d^(3/2).
- Theorem 1's root lacks the 4 of (8) and its KL the 1/2, and its sigma_i must be fixed before the data are
  seen. Chosen so that gamma_i has a wanted value, as after Theorem 1, they depend on the learned weights: the
  bound then compares, and is not proved. Its loss must lie in [0, 1].
- (C2) counts |pre-activation| <= delta, not pre-activation <= delta, which would be half of all units; and
  delta is a share of the pre-activations' own scale, their root mean square. In absolute units at |x| = 1 the
  C_2 of h units grows as sqrt(h), and is far above the paper's 5 (E18).
- Lemma 2 and Theorem 1 are stated in O(.). The functions here give what stands inside, with constant 1: an
  order, not a theorem.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from labkit.theory import pac_bayes
from labkit.theory._checks import Array, array, integer, nonnegative, positive

SQRT_2 = float(np.sqrt(2.0))


def vc_order(depth: int, parameters: int) -> float:
    """(1): the VC dimension of a ReLU network is of order depth * parameters, up to logarithms.

    Args:
        depth: d, layers. parameters: how many.

    Returns:
        An order, without constant and logarithms.

    Raises:
        ValueError: an argument is out of its range.
    """
    return float(integer("depth", depth, 1) * integer("parameters", parameters, 1))


def lemma3(a: Any, b: Any, sigma: float) -> float:
    """Lemma 3: E|A nu B|_F <= sigma |A|_F |B|_F for nu with independent N(0, sigma^2) entries.

    The right side *is* the root mean square of |A nu B|_F, so the mean reaches it when many singular values
    take part.

    Args:
        a: (n_1, n_2). b: (n_3, n_4). sigma: standard deviation (the paper writes N(0, sigma)).

    Returns:
        The bound.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    return float(
        nonnegative("sigma", sigma) * np.linalg.norm(array("a", a, 2)) * np.linalg.norm(array("b", b, 2))
    )


def gammas(sigmas: Any, dims: Any, mu: Any, masked_norms: Any) -> Array:
    """gamma_i = sigma_i sqrt(h_i h_(i-1)) / (mu^2 |D_i W_i|_F), mu taken as at most 1.

    Args:
        sigmas: standard deviation of layer i's noise, a number or (d,).
        dims: h_0, ..., h_d, (d+1,).
        mu: constant of (C1), a number or (n,), one a sample; 0 gives infinite gammas.
        masked_norms: |D_i W_i|_F, (d,) or (n, d).

    Returns:
        (d,) or (n, d).

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    roots, norms = _roots(dims), array("masked_norms", masked_norms, (1, 2))
    if norms.shape[-1] != len(roots):
        raise ValueError(f"masked_norms: expected {len(roots)} layers from dims, got shape {norms.shape}.")
    noise, constant = array("sigmas", sigmas, (0, 1)), _mu(mu)
    if (noise < 0).any() or (norms < 0).any():
        raise ValueError("sigmas, masked_norms: expected values >= 0.")
    if noise.ndim and noise.shape != roots.shape:
        raise ValueError(f"sigmas: expected a number or shape {roots.shape}, got {noise.shape}.")
    below = np.square(constant)[..., None] * norms if constant.ndim else constant**2 * norms
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(noise * roots == 0, 0.0, noise * roots / below)


def activation_constant(depth: int, width: int, delta: float = 0.05) -> float:
    """C_delta = 2 sqrt(ln(d h/delta)): all |<nu_i, x>| <= C_delta sigma |x| but with chance delta.

    Args:
        depth: d, layers. width: h, the largest. delta: a probability in (0, 1).

    Returns:
        C_delta.

    Raises:
        ValueError: an argument is out of its range.
    """
    chance = positive("delta", delta)
    if chance >= 1.0:
        raise ValueError(f"delta: expected a probability in (0, 1), got {delta!r}.")
    return float(2.0 * np.sqrt(np.log(integer("depth", depth, 1) * integer("width", width, 1) / chance)))


def lemma1(gamma: Any, output_norm: Any) -> Any:
    """Lemma 1: with unchanged activations, E|change of the output| <= (prod (1 + gamma_i) - 1) |f(x)|.

    A theorem under (C1), with the constant 1.

    Args:
        gamma: (..., d). output_norm: |f(x)|, (...).

    Returns:
        (...); inf where the product leaves the range of float64.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    return _times(_excess(_gamma(gamma)), _norms(output_norm))


def lemma2(gamma: Any, c2: float, c3: float, c_delta: float, output_norm: Any) -> Any:
    """Lemma 2: what activations that flip add, of order
    prod (1 + gamma_i C_2 C_3) (prod (1 + gamma_i C_delta C_2) - 1) |f(x)|.

    Args:
        gamma: (..., d). c2, c3: the constants of (C2), (C3). c_delta: `activation_constant`.
        output_norm: (...).

    Returns:
        (...), an order with constant 1.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    g, two, three = _gamma(gamma), nonnegative("c2", c2), nonnegative("c3", c3)
    flipped = _excess(nonnegative("c_delta", c_delta) * two * g)
    return _times(_times(flipped, 1.0 + _excess(two * three * g)), _norms(output_norm))


def lemma2_flips(gamma: Any, c2: float, c_delta: float, mu: float = 1.0) -> Any:
    """Lemma 2: the share of layer k's units that flip is of order C_2 C_delta mu gamma_k (shape of gamma).

    The paper has C_2 h_k C_delta sigma_k |f^(k-1)| units, in absolute pre-activations; relative to their root
    mean square, |W_k f^(k-1)|/sqrt(h_k), (C1) turns this into the form here.

    Args:
        gamma: (..., d). c2: constant of (C2). c_delta: `activation_constant`.
        mu: constant of (C1); above 1 it counts as 1.

    Returns:
        Shares in the shape of `gamma`, an order with constant 1.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    return nonnegative("c2", c2) * nonnegative("c_delta", c_delta) * float(_mu(mu)) * _gamma(gamma)


def theorem1_sharpness(
    gamma: Any, c2: float, c3: float, c_delta: float, output_norm: Any, lipschitz: float = SQRT_2
) -> Any:
    """Theorem 1, expected sharpness: of order C_L (Lemma 1 + Lemma 2), C_L = `lipschitz`.

    C_L is the loss's Lipschitz constant in the outputs: sqrt(2) for the cross-entropy. Average over samples.

    Args:
        gamma: (..., d). c2: constant of (C2). c3: constant of (C3). c_delta: `activation_constant`.
        output_norm: |f(x)|, (...). lipschitz: C_L, of the loss in the outputs.

    Returns:
        (...), an order with constant 1, in units of the loss.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    return positive("lipschitz", lipschitz) * (
        lemma1(gamma, output_norm) + lemma2(gamma, c2, c3, c_delta, output_norm)
    )


def theorem1(sharpness: Any, norms: Any, sigmas: Any, m: int, delta: float = 0.05) -> Any:
    """Theorem 1: E L(w + nu) - L(w) <= sharpness + 4 sqrt((sum |W_i|_F^2/(2 sigma_i^2) + ln(2m/delta))/m).

    Args:
        sharpness: `theorem1_sharpness`, averaged over the samples.
        norms: |W_i|_F, (d,). sigmas: a number or (d,), positive.
        m, delta: as in `pac_bayes`; the loss must lie in [0, 1].

    Returns:
        The bound, in the shape of `sharpness`.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    weights, noise = array("norms", norms, 1), array("sigmas", sigmas, (0, 1))
    if (noise <= 0).any():
        raise ValueError("sigmas: expected standard deviations > 0.")
    kl = float((weights**2 / (2.0 * noise**2)).sum())
    return array("sharpness", sharpness, (0, 1, 2))[()] + pac_bayes.pac_bayes_sqrt(0.0, kl, m, delta)


def linear_gammas(sigma: float, depth: int, c_delta: float) -> Array:
    """gamma_i = sigma/(C_delta d) in every layer, (d,): the choice after Theorem 1.

    Args:
        sigma: standard deviation. depth: d, layers. c_delta: `activation_constant`.

    Returns:
        (d,).

    Raises:
        ValueError: an argument is out of its range.
    """
    d = integer("depth", depth, 1)
    return np.full(d, positive("sigma", sigma) / (positive("c_delta", c_delta) * d))


def linear_sharpness(sigma: float, c2: float, c3: float, c_delta: float) -> float:
    """Theorem 1's sharpness at `linear_gammas`, over C_L |f(x)|, as d grows without end:

    exp(sigma/C_delta) - 1 + exp(sigma C_2 C_3/C_delta) (exp(sigma C_2) - 1), from below, whatever the depth.
    The paper gives its first order in sigma.

    Args:
        sigma: standard deviation. c2: constant of (C2). c3: constant of (C3).
        c_delta: `activation_constant`.

    Returns:
        A multiple of C_L |f(x)|.

    Raises:
        ValueError: an argument is out of its range.
    """
    s, c = positive("sigma", sigma), positive("c_delta", c_delta)
    two, three = nonnegative("c2", c2), nonnegative("c3", c3)
    return float(np.expm1(s / c) + np.exp(s * two * three / c) * np.expm1(s * two))


def linear_kl(sigma: float, dims: Any, mu: float, c_delta: float, ratios: Any = 1.0) -> float:
    """KL at `linear_gammas`: (C_delta^2 d^2/(2 sigma^2 mu^4)) sum_i h_i h_(i-1) (|W_i|_F/|D_i W_i|_F)^2.

    Args:
        dims: h_0, ..., h_d. mu: in (0, 1]; a larger one counts as 1.
        ratios: |W_i|_F/|D_i W_i|_F, a number or (d,): about sqrt(2) for hidden layers, 1 for the last.
        sigma: standard deviation. c_delta: `activation_constant`.

    Returns:
        The divergence, in nats.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    roots, share = _roots(dims), array("ratios", ratios, (0, 1))
    scale = positive("c_delta", c_delta) * len(roots) / (positive("sigma", sigma) * float(_mu(mu)) ** 2)
    return float(scale**2 / 2.0 * (roots**2 * share**2).sum())


def _excess(gamma: Array) -> Any:
    """prod (1 + gamma_i) - 1 over the last axis, exact for small gammas."""
    with np.errstate(over="ignore"):
        return np.expm1(np.log1p(gamma).sum(axis=-1))


def _times(excess: Any, factor: Any) -> Any:
    """The product, infinite where the first is, even if the second is 0: no bound is not a bound of 0."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(np.isinf(excess), np.inf, excess * factor)[()]


def _roots(dims: Any) -> Array:
    """sqrt(h_i h_(i-1)), (d,)."""
    sizes = array("dims", dims, 1)
    if len(sizes) < 2 or (sizes < 1).any():
        raise ValueError(f"dims: expected h_0, ..., h_d of at least 1, got {sizes.tolist()}.")
    return np.sqrt(sizes[1:] * sizes[:-1])


def _mu(mu: Any) -> Array:
    constant = array("mu", mu, (0, 1))
    if (constant < 0).any():
        raise ValueError(f"mu: expected values >= 0, got {constant.min():.6g}.")
    return np.minimum(constant, 1.0)


def _gamma(gamma: Any) -> Array:
    # Infinite gammas are a result: a sample with mu = 0 has no bound.
    found = np.asarray(gamma, dtype=np.float64)
    if found.ndim == 0 or np.isnan(found).any() or (found < 0).any():
        raise ValueError(f"gamma: expected an array (..., d) of values >= 0, got {gamma!r}.")
    return found


def _norms(output_norm: Any) -> Any:
    found = array("output_norm", output_norm, tuple(range(6)))
    if (found < 0).any():
        raise ValueError("output_norm: expected values >= 0.")
    return found[()]
