"""PAC-Bayes bounds, as paper 2 uses them (section 2.4).

| equation | function | claims |
| --- | --- | --- |
| KL of Gaussians, "KL" under (8) and App. A | gaussian_kl | E7, E8, E9 |
| K of (5) | complexity | E8 |
| (5) | pac_bayes_bound | E8 |
| (6) | pac_bayes_sqrt | E8 |
| (7) | sharpness_bound | E8 |
| (8) | gaussian_bound | E8 |

All hold with probability 1 - delta over the draw of m training samples, for a loss in [0, 1]: the error rate,
not the cross-entropy. `empirical` is the training loss of the *perturbed* network, E[L(w + nu)].

Errata and limits:
- App. A's KL lacks its 1/2.
- The prior must not depend on the training data. With sd s_i = alpha (10 |w_i| + 1) for the noise and the
  same s_i for the prior, as the paper's figures have it, the prior knows w: sum w_i^2/(2 s_i^2) then compares
  networks, but (5) to (8) are not proved with it. They are with one fixed s for all weights, or with
  `gaussian_kl(w, s_i, prior_sigma=fixed)`.
- The least of a bound over A values of alpha holds with probability 1 - delta only if each was evaluated at
  delta/A.
- (6) follows from (5) while K <= 1. For K > 1 it exceeds 1, which is why it holds; above K of about 8 it is
  the *smaller* of the two.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from labkit.theory._checks import Array, array, integer, positive


def gaussian_kl(mean: Any, sigma: Any, prior_mean: Any = 0.0, prior_sigma: Any = None) -> float:
    """KL(N(mean, diag sigma^2) || N(prior_mean, diag prior_sigma^2)).

    sum_i [ log(t_i/s_i) + (s_i^2 + (mu_i - m_i)^2)/(2 t_i^2) - 1/2 ] with s = sigma, t = prior_sigma; equal
    ones leave sum_i (mu_i - m_i)^2/(2 s_i^2).

    Args:
        mean: (p,), the weights.
        sigma: standard deviation of the noise, a number or (p,), positive.
        prior_mean: a number or (p,): 0, or the initial weights.
        prior_sigma: standard deviation of the prior, a number or (p,); None takes `sigma`.

    Returns:
        The divergence, in nats.

    Raises:
        ValueError: a shape does not fit, or a standard deviation is not positive.
    """
    weights = array("mean", mean, 1)
    s, centre = _spread("sigma", sigma, weights), _like("prior_mean", prior_mean, weights)
    squares = (weights - centre) ** 2
    if prior_sigma is None:
        return float((squares / (2.0 * s**2)).sum())
    ratio = s / _spread("prior_sigma", prior_sigma, weights)
    return float((-np.log(ratio) + (ratio**2 - 1.0) / 2.0 + squares / (2.0 * (s / ratio) ** 2)).sum())


def complexity(kl: Any, m: int, delta: float = 0.05) -> Any:
    """K of (5): 2 (KL + ln(2m/delta))/(m - 1), in the shape of `kl`.

    Args:
        kl: divergence from the prior, >= 0, any shape. m: training samples, at least 2.
        delta: the probability with which it may fail, in (0, 1).

    Returns:
        K, in the shape of `kl`.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    return 2.0 * _penalty(kl, m, delta) / (m - 1)


def pac_bayes_bound(empirical: Any, kl: Any, m: int, delta: float = 0.05) -> Any:
    """(5): E L(w + nu) <= L + sqrt(L K) + K, with L = `empirical` and K = `complexity`.

    Args:
        empirical: training loss of the perturbed network, in [0, 1], any shape.
        kl: divergence from the prior, of a shape that broadcasts with it.
        m: training samples, at least 2.
        delta: the probability with which the bound may fail, in (0, 1).

    Returns:
        The bound, in the shape that the arguments broadcast to.

    Raises:
        ValueError: an argument is out of its range.
    """
    loss, K = _loss("empirical", empirical), complexity(kl, m, delta)
    return loss + np.sqrt(loss * K) + K


def pac_bayes_sqrt(empirical: Any, kl: Any, m: int, delta: float = 0.05) -> Any:
    """(6): E L(w + nu) <= L + 4 sqrt((KL + ln(2m/delta))/m). Arguments as `pac_bayes_bound`.

    min(1, (5)) <= min(1, (6)), always.

    Args:
        empirical: training loss of the perturbed network, in [0, 1].
        kl: divergence from the prior, >= 0, any shape. m: training samples, at least 2.
        delta: the probability with which it may fail, in (0, 1).

    Returns:
        The bound, in the shape that the arguments broadcast to.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    return _loss("empirical", empirical) + 4.0 * np.sqrt(_penalty(kl, m, delta) / m)


def sharpness_bound(loss: Any, sharpness: Any, kl: Any, m: int, delta: float = 0.05) -> Any:
    """(7): (6) with L = loss + sharpness, the loss of the network itself and its expected sharpness.

    Args:
        loss: training loss of the network, in [0, 1]. sharpness: expected sharpness.
        kl: divergence from the prior, >= 0, any shape. m: training samples, at least 2.
        delta: the probability with which it may fail, in (0, 1).

    Returns:
        The bound, in the shape that the arguments broadcast to.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    return pac_bayes_sqrt(_loss("loss", loss) + _any("sharpness", sharpness), kl, m, delta)


def gaussian_bound(
    loss: Any, sharpness: Any, norm_squared: Any, sigma: float, m: int, delta: float = 0.05
) -> Any:
    """(8): (7) for noise and prior of one standard deviation sigma, where KL = |w|^2/(2 sigma^2).

    Args:
        loss: training loss of the network. sharpness: expected sharpness at sigma. Any shapes that broadcast.
        norm_squared: |w|^2, or |w - w_0|^2 for a prior around the initial weights w_0.
        sigma: fixed before the training data are seen.
        m, delta: as `pac_bayes_bound`.

    Returns:
        The bound, in the shape that the arguments broadcast to.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    kl = _nonnegative("norm_squared", norm_squared) / (2.0 * positive("sigma", sigma) ** 2)
    return sharpness_bound(loss, sharpness, kl, m, delta)


def vacuous(bound: Any, at: float = 1.0) -> Any:
    """Whether a bound says nothing: it is at least `at`, what everybody knows (1 for an error rate).

    Args:
        bound: any shape. at: what everybody knows, > 0.

    Returns:
        Booleans, in the shape of `bound`.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    return _any("bound", bound) >= positive("at", at)


def _penalty(kl: Any, m: int, delta: float) -> Any:
    samples, chance = integer("m", m, 2), positive("delta", delta)
    if chance >= 1.0:
        raise ValueError(f"delta: expected a probability in (0, 1), got {delta!r}.")
    return _nonnegative("kl", kl) + np.log(2.0 * samples / chance)


def _any(name: str, value: Any) -> Any:
    return array(name, value, tuple(range(8)))[()]


def _nonnegative(name: str, value: Any) -> Any:
    found = _any(name, value)
    if (np.asarray(found) < 0).any():
        raise ValueError(f"{name}: expected values >= 0, got {np.min(found):.6g}.")
    return found


def _loss(name: str, value: Any) -> Any:
    found = _any(name, value)
    outside = np.asarray((found < -1e-12) | (found > 1.0 + 1e-12))
    if outside.any():
        raise ValueError(
            f"{name}: expected losses in [0, 1], got {np.asarray(found)[outside][0]:.6g}. The bounds are for "
            "a loss in [0, 1]; take the error rate."
        )
    return np.clip(found, 0.0, 1.0)


def _like(name: str, value: Any, weights: Array) -> Array:
    found = array(name, value, (0, 1))
    if found.ndim and found.shape != weights.shape:
        raise ValueError(f"{name}: expected a number or shape {weights.shape}, got {found.shape}.")
    return found


def _spread(name: str, value: Any, weights: Array) -> Array:
    found = _like(name, value, weights)
    if (found <= 0).any():
        raise ValueError(f"{name}: expected standard deviations > 0, got {found.min():.6g}.")
    # One number for all weights: log-terms are summed over weights, so it is spread out.
    return np.broadcast_to(found, weights.shape)
