"""Paper 3's generalization bounds as calculators (§8.1 to 8.4, 9.8): claim S17. §9.1 is `compositional`.

    equation           function                                          holds for
    (17)               sample_bound, quantized_gap                       weights of k bits, loss in [0, 1]
    (19), Lemma 2      covering_log, covering_gap                        weights within G_T of their start
    (20)-(21), Thm 1   robustness_bound                                  a partition of samples into K cells
    (22), Thm 2        robustness_best; grid_log_cells                   the best of several partitions
    (27), Thm 3        smooth_margin_bound                               |f| <= b, all margins at once
    (58)-(60), Lemma 5 l1_rademacher, l1_gap                             l1 norms into each unit
    (63), Thm 5        margin_bound                                      |f| <= C, all margins at once

n samples, of confidence 1 - delta over their draw. "Gap" is |expected loss - training loss|, for a loss in
[0, 1] unless `loss_max` says otherwise; a value of `loss_max` or more says nothing (it is *vacuous*). Every
bound is for a class that was fixed before the data were seen. To put the norms, the margin or the distance of
a *trained* network into (19), (21) and (60) is to look at what the bound would say of networks like it; as a
theorem it would have to pay for a union over a grid of their values, an additive log log.

Where the paper writes O(.) or leaves a constant open:
    §8.2, "of order sqrt(log N/n)"  Hoeffding's inequality for every member of the cover: its 1/sqrt 2, and
                                    2 L epsilon for moving to the nearest member, which the paper leaves out
    (27), K                         `constant`, 1 by default. The paper does not give it: at 1 the number is
                                    the shape of a bound and no theorem

Errata:
    (18)    the bound is on the norm of the sum of the steps; in the convex case R sqrt(T) bounds the sum of
            their norms, and log(T/epsilon) stands for log(3 R sqrt(T)/epsilon)
    (22)    what a partition costs is log 1/pi(C); "the penalty pi(C) is log k" reads: its logarithm is about
            2 log k. Cells are of samples *and* labels, so a grid on inputs counts once for every class
    (27)    K is a constant here and the number of cells in (21)
    (60)    sqrt(2 log 2d): a maximum over d coordinates and two signs. As printed the bound is 0 for d = 1
    (62)    follows by Hoelder's inequality, not Cauchy and Schwarz's
    (63)    the inner logarithm must be to base 2, C >= sup |f|, and the union over scales of the margin
            makes log(2/delta) of log(1/delta)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from labkit.theory._checks import Array, array, integer, positive

# --- (17): the number of weights


def sample_bound(weights: Any, bits: float, epsilon: float, delta: float = 0.05) -> Any:
    """(17): samples that suffice, (2/epsilon^2)(k W ln 2 + ln(2/delta)).

    With so many, the network of least training error is within `epsilon` of the best one in its class, which
    has 2^(kW) members: each of them has a gap of epsilon/2 at most.

    Args:
        weights: W, weights and biases; a number or an array, at least 1.
        bits: k, to write down one of them.
        epsilon: the excess error allowed, in (0, 1).
        delta: the probability of failure, in (0, 1).

    Returns:
        Samples, in the shape of `weights`.

    Raises:
        ValueError: an argument is out of its range.
    """
    eps = _share("epsilon", epsilon)
    return 2.0 / eps**2 * _description(weights, bits, delta)


def quantized_gap(weights: Any, bits: float, n: int, delta: float = 0.05) -> Any:
    """(17) solved for the gap: sqrt((k W ln 2 + ln(2/delta))/(2n)), half the excess error.

    Arguments as `sample_bound`.

    Args:
        weights: W. bits: k. n: samples. delta: the probability of failure.

    Returns:
        A difference of error rates, in the shape of `weights`.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    return np.sqrt(_description(weights, bits, delta) / (2.0 * _samples(n)))


def _description(weights: Any, bits: float, delta: float) -> Any:
    return _least("weights", weights, 1.0) * positive("bits", bits) * np.log(2.0) + _log_inverse(delta, 2.0)


# --- (18), (19): the space explored


def covering_log(dimension: int, radius: Any, epsilon: Any) -> Any:
    """Lemma 2, (19): ln N_epsilon <= d ln(3r/epsilon), balls of radius epsilon that cover one of radius r.

    For epsilon >= r one ball does, and the result is 0.

    Args:
        dimension: d. radius: r, of the large ball. epsilon: of the small ones.

    Returns:
        The logarithm, in the shape that radius and epsilon broadcast to.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    d = integer("dimension", dimension, 1)
    r, eps = _positive("radius", radius), _positive("epsilon", epsilon)
    return np.where(eps < r, d * np.log(3.0 * r / eps), 0.0)[()]


def covering_gap(
    dimension: int,
    travel: Any,
    epsilon: Any,
    n: int,
    *,
    lipschitz: Any = 1.0,
    loss_max: float = 1.0,
    delta: float = 0.05,
) -> Any:
    """§8.2 with its constants: 2 L epsilon + M sqrt((d ln(3 G_T/epsilon) + ln(2/delta))/(2n)).

    The gap of *all* weights within G_T of the start: Hoeffding's inequality for each member of a cover, and
    the nearest member is within epsilon.

    Args:
        dimension: d, the number of weights.
        travel: G_T of (18).
        epsilon: radius of the covering balls, at your choice before the data are seen.
        n: samples.
        lipschitz: L, of the loss as a function of the weights within G_T.
        loss_max: M; the loss is in [0, M].
        delta: the probability of failure.

    Returns:
        The bound, in the shape that the arguments broadcast to.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    rough = 2.0 * _nonnegative("lipschitz", lipschitz) * _positive("epsilon", epsilon)
    members = covering_log(dimension, _positive("travel", travel), epsilon) + _log_inverse(delta, 2.0)
    return rough + positive("loss_max", loss_max) * np.sqrt(members / (2.0 * _samples(n)))


# --- (20) to (22): robustness


def robustness_bound(
    log_cells: Any, variation: Any, n: int, *, loss_max: float = 1.0, delta: float = 0.05, prior: Any = 1.0
) -> Any:
    """Thm 1, (21): variation + M sqrt((2 K ln 2 + 2 ln(1/(prior delta)))/n), the gap of a robust algorithm.

    Args:
        log_cells: ln K, the number of cells; its logarithm, as K = 2^(64k) is soon out of range. The result
            is inf where K is out of range all the same.
        variation: epsilon(S), the largest change of the loss within a cell that holds a training sample.
        n: samples.
        loss_max: M.
        delta: the probability of failure.
        prior: pi(C) of this partition in (22), in (0, 1].

    Returns:
        The bound, in the shape that the arguments broadcast to.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    cells, moved = _nonnegative("log_cells", log_cells), _nonnegative("variation", variation)
    weight = _positive("prior", prior)
    if np.any(np.asarray(weight) > 1.0):
        raise ValueError(f"prior: expected probabilities in (0, 1], got {np.max(weight):.6g}.")
    with np.errstate(over="ignore"):
        inside = 2.0 * np.exp(cells) * np.log(2.0) + 2.0 * (_log_inverse(delta) - np.log(weight))
    return moved + positive("loss_max", loss_max) * np.sqrt(inside / _samples(n))


def robustness_best(
    log_cells: Any, variation: Any, prior: Any, n: int, *, loss_max: float = 1.0, delta: float = 0.05
) -> tuple[float, int]:
    """Thm 2, (22): the least of (21) over partitions, each paid for by its prior; and which it is.

    Args:
        log_cells, variation, prior: (C,), one for each partition. The prior adds up to 1 at most, and must
            not depend on the data.
        n: samples. loss_max: M. delta: the probability of failure.

    Returns:
        The bound, and the index of its partition.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    sizes, moved, weights = (
        array(name, value, 1)
        for name, value in (("log_cells", log_cells), ("variation", variation), ("prior", prior))
    )
    if not sizes.size or not sizes.shape == moved.shape == weights.shape:
        raise ValueError(
            "log_cells, variation, prior: expected one of each for every partition, got shapes "
            f"{sizes.shape}, {moved.shape}, {weights.shape}."
        )
    if weights.sum() > 1.0 + 1e-9:
        raise ValueError(f"prior: expected probabilities that add up to 1 at most, got {weights.sum():.6g}.")
    bounds = robustness_bound(sizes, moved, n, loss_max=loss_max, delta=delta, prior=weights)
    return float(bounds.min()), int(bounds.argmin())


def grid_log_cells(level: Any, dimension: int, classes: int = 1) -> Any:
    """ln K of a grid on [0, 1]^d with cells of side 2^-level, for every class: level d ln 2 + ln classes.

    Args:
        level: a number or an array, >= 0. dimension: d. classes: labels that a cell is split by.

    Returns:
        The logarithm, in the shape of `level`.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    d, labels = integer("dimension", dimension, 1), integer("classes", classes, 1)
    return _nonnegative("level", level) * d * np.log(2.0) + np.log(labels)


# --- (27), (63): margins


def smooth_margin_bound(
    margin_error: Any, margin: Any, rademacher: Any, n: int, *, bound: float, constant: float = 1.0,
    delta: float = 0.05,
) -> Any:  # fmt: skip
    """Thm 3, (27): 1.01 I_gamma + K (2 ln^3(n) R_n^2/gamma^2 + 2 ln(ln(4b/gamma)/delta)/n).

    Bounds the error rate of every f of the class at all margins at once, so that the margin may be chosen
    after training.

    Args:
        margin_error: I_gamma, share of training samples with y f(x) < gamma.
        margin: gamma, in (0, b].
        rademacher: R_n of the class, or a bound on it.
        n: samples, at least 2.
        bound: b >= sup |f|.
        constant: K, which the paper does not give; see the head of this module.
        delta: the probability of failure.

    Returns:
        The bound, in the shape that the arguments broadcast to.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    share, gamma, top = _margins(margin_error, margin, bound)
    size, samples = _nonnegative("rademacher", rademacher), integer("n", n, 2)
    capacity = 2.0 * np.log(samples) ** 3 * (size / gamma) ** 2
    chance = 2.0 * (np.log(np.log(4.0 * top / gamma)) + _log_inverse(delta)) / samples
    return 1.01 * share + positive("constant", constant) * (capacity + chance)


def margin_bound(
    margin_error: Any, margin: Any, rademacher: Any, n: int, *, bound: float, delta: float = 0.05
) -> Any:
    """Thm 5, (63): I_gamma + (4/gamma) R_n + sqrt(ln log2(4C/gamma)/n) + sqrt(ln(2/delta)/(2n)).

    Bounds the error rate of every f of the class at all margins at once. Arguments as `smooth_margin_bound`,
    with C = `bound`; for the logarithms see the errata.

    Args:
        margin_error: I_gamma, share of training samples with y f(x) < gamma. margin: gamma, in (0, b].
        rademacher: R_n of the class, or a bound on it. n: samples. bound: C >= sup |f|.
        delta: the probability of failure.

    Returns:
        The bound, in the shape that the arguments broadcast to.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    share, gamma, top = _margins(margin_error, margin, bound)
    samples = _samples(n)
    scales = np.sqrt(np.log(np.log2(4.0 * top / gamma)) / samples)
    chance = np.sqrt(_log_inverse(delta, 2.0) / (2.0 * samples))
    return share + 4.0 / gamma * _nonnegative("rademacher", rademacher) + scales + chance


# --- (58) to (60): l1 norms


def l1_rademacher(norms: Any, dimension: int, n: int) -> Any:
    """Lemma 5, its second half: R_n(F_k) <= B_1 sqrt(2 ln(2d)/n) (2 B_2) .. (2 B_k), for x in [-1, 1]^d.

    Args:
        norms: (..., k), B_i: the largest l1 norm of the weights into a unit of layer i, biases included; a
            layer with biases has a unit that is 1, which takes B >= 1 before it.
        dimension: d, inputs, with the one that is 1 if there are biases.
        n: samples.

    Returns:
        The shape of `norms` without its last axis.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    sizes = _nonnegative("norms", norms)
    if np.ndim(sizes) == 0 or not np.shape(sizes)[-1]:
        raise ValueError("norms: expected an array (..., k) with one norm a layer, got " + repr(norms) + ".")
    layers = np.shape(sizes)[-1]
    d = integer("dimension", dimension, 1)
    return np.prod(sizes, axis=-1) * 2.0 ** (layers - 1) * np.sqrt(2.0 * np.log(2.0 * d) / _samples(n))


def l1_gap(norms: Any, dimension: int, n: int, *, lipschitz: float = 1.0) -> Any:
    """Lemma 5, (60): E sup gap <= 2 L R_n(F_k) = L sqrt(2 ln(2d)/n) (2 B_1) .. (2 B_k). As `l1_rademacher`.

    Args:
        lipschitz: L, of the loss in the output of the network: 1/gamma for a ramp of width gamma.
        norms: (..., k), as `l1_rademacher` takes them. dimension: d. n: samples.

    Returns:
        The bound, in the shape that the arguments broadcast to.

    Raises:
        ValueError: an argument is out of its range, or an array is not finite or of another shape.
    """
    return 2.0 * positive("lipschitz", lipschitz) * l1_rademacher(norms, dimension, n)


# --- arguments


def _samples(n: int) -> int:
    return integer("n", n, 1)


def _share(name: str, value: float) -> float:
    number = positive(name, value)
    if number >= 1.0:
        raise ValueError(f"{name}: expected a number in (0, 1), got {value!r}.")
    return number


def _log_inverse(delta: float, over: float = 1.0) -> float:
    """ln(over/delta)."""
    return float(np.log(over / _share("delta", delta)))


def _any(name: str, value: Any) -> Any:
    return array(name, value, tuple(range(8)))[()]


def _nonnegative(name: str, value: Any) -> Any:
    return _least(name, value, 0.0)


def _least(name: str, value: Any, least: float) -> Any:
    found = _any(name, value)
    if (np.asarray(found) < least).any():
        raise ValueError(f"{name}: expected values >= {least:g}, got {np.min(found):.6g}.")
    return found


def _positive(name: str, value: Any) -> Any:
    found = _any(name, value)
    if (np.asarray(found) <= 0).any():
        raise ValueError(f"{name}: expected values > 0, got {np.min(found):.6g}.")
    return found


def _margins(margin_error: Any, margin: Any, bound: float) -> tuple[Array, Array, float]:
    share, gamma, top = (
        _nonnegative("margin_error", margin_error),
        _positive("margin", margin),
        positive("bound", bound),
    )
    if np.any(np.asarray(share) > 1.0):
        raise ValueError(f"margin_error: expected shares in [0, 1], got {np.max(share):.6g}.")
    if np.any(np.asarray(gamma) > top):
        raise ValueError(
            f"margin: expected margins up to the bound {top:.6g} on |f|, got {np.max(gamma):.6g}; "
            "no sample can have more."
        )
    return share, gamma, top
