"""Paper 3's bounds: against enumeration, simulation and formulas written out a second time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.theory import classical_bounds as bounds
from labkit.theory import compositional
from labkit.theory.pac_bayes import vacuous

SAMPLES = st.integers(10, 10**6)
DELTA = 0.05


# --- (17)


def test_so_many_samples_bring_every_gap_to_half_the_excess_error() -> None:
    """A factor 4 lost between (17) and its inverse."""
    n = math.ceil(bounds.sample_bound(7, 3, 0.1, 0.02))
    assert n == math.ceil(200 * (21 * math.log(2) + math.log(100)))
    assert bounds.quantized_gap(7, 3, n, 0.02) <= 0.05 < bounds.quantized_gap(7, 3, n - 1, 0.02)


def test_64_coins_stray_by_more_than_the_bound_as_rarely_as_promised_and_not_by_less() -> None:
    """A constant that makes the bound false, or true and idle: W = 2 weights of 3 bits are 64 functions."""
    rng, n = np.random.default_rng(0), 100
    worst = np.abs(rng.binomial(n, 0.5, (2000, 64)) / n - 0.5).max(axis=1)
    bound = bounds.quantized_gap(2, 3, n, DELTA)
    assert (worst > bound).mean() <= DELTA
    assert (worst > 0.75 * bound).mean() > 3 * DELTA


@given(st.integers(1, 10**9), st.floats(1, 64), SAMPLES)
def test_gap_grows_with_weights_and_bits_and_falls_with_samples(weights: int, bits: float, n: int) -> None:
    """An inverted fraction."""
    gap = bounds.quantized_gap(weights, bits, n)
    assert gap < bounds.quantized_gap(weights + 1, bits, n)
    assert gap < bounds.quantized_gap(weights, 2 * bits, n)
    assert gap > bounds.quantized_gap(weights, bits, 2 * n)
    assert gap < bounds.quantized_gap(weights, bits, n, 0.01)


# --- (18), (19)


def test_an_interval_needs_no_more_balls_than_lemma_2_says() -> None:
    """(r/3ε)^d in place of (3r/ε)^d."""
    for epsilon in (0.9, 0.5, 0.33, 0.1, 0.01):
        needed = math.ceil(1 / epsilon)
        assert math.log(needed) <= bounds.covering_log(1, 1.0, epsilon) <= math.log(4 * needed)


def test_a_greedy_cover_of_a_disc_has_no_more_balls_than_lemma_2_says() -> None:
    """The dimension in the wrong place; a volume argument bounds the cover from below."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-2, 2, (4000, 2))
    points = points[np.linalg.norm(points, axis=1) <= 2.0]
    for epsilon in (1.0, 0.5, 0.25):
        centres: list[np.ndarray] = []
        for point in points:
            if all(np.linalg.norm(point - centre) > epsilon for centre in centres):
                centres.append(point)
        log_n = bounds.covering_log(2, 2.0, epsilon)
        assert math.log(len(centres)) <= log_n
        assert 2 * math.log(2.0 / epsilon) <= log_n


def test_one_ball_covers_a_smaller_one() -> None:
    """A logarithm below 0, or one of 3, where ε is at least r."""
    assert bounds.covering_log(5, [1.0, 2.0], 2.0).tolist() == [0.0, 0.0]


def test_gap_over_a_cover_holds_for_a_class_of_one_weight() -> None:
    """The two ε forgotten, or Hoeffding's constant: losses min(|w − z|, 1), w in [−1, 1], L = 1."""
    rng, n, w = np.random.default_rng(0), 40, np.linspace(-1, 1, 201)
    fine = np.linspace(-1, 1, 4001)
    expected = np.minimum(np.abs(w[:, None] - fine), 1).mean(1)
    z = rng.uniform(-1, 1, (500, n))
    gaps = np.abs(np.minimum(np.abs(w[:, None, None] - z), 1).mean(2) - expected[:, None]).max(0)
    bound = bounds.covering_gap(1, 1.0, 0.05, n)
    assert (gaps > bound).mean() <= DELTA
    assert bound == pytest.approx(0.1 + math.sqrt((math.log(60) + math.log(40)) / 80))
    assert bounds.covering_gap(1, 1.0, 0.05, n, lipschitz=0.0, loss_max=3) == pytest.approx(3 * (bound - 0.1))


@given(st.integers(1, 10**5), st.floats(0.1, 100), st.floats(1e-6, 0.05), SAMPLES)
def test_gap_over_a_cover_grows_with_dimension_and_travel(d: int, travel: float, eps: float, n: int) -> None:
    """The ball's radius and the balls' exchanged."""
    gap = bounds.covering_gap(d, travel, eps, n)
    assert gap < bounds.covering_gap(d + 1, travel, eps, n)
    assert gap < bounds.covering_gap(d, 2 * travel, eps, n)
    assert gap > bounds.covering_gap(d, travel, eps, 4 * n)


# --- (20) to (22)


def test_counts_in_cells_stray_by_no_more_than_theorem_1_allows() -> None:
    """A wrong constant: with losses 0 and 1 by cell the gap is a sum over cells, at most ∑|count/n − p|."""
    rng, n, K = np.random.default_rng(0), 200, 6
    counts = rng.multinomial(n, np.full(K, 1 / K), 3000)
    strays = np.abs(counts / n - 1 / K).sum(axis=1)
    bound = bounds.robustness_bound(math.log(K), 0.0, n, delta=DELTA)
    assert (strays > bound).mean() <= DELTA
    assert bound == pytest.approx(math.sqrt((2 * K * math.log(2) + 2 * math.log(20)) / n))


def test_best_partition_is_the_least_of_theorem_1_with_its_prior_paid() -> None:
    """A prior that lowers the bound, or the best partition chosen for free."""
    cells, variation, prior = np.log([2, 16, 4000]), np.array([0.9, 0.2, 0.0]), np.array([0.5, 0.25, 0.1])
    found, which = bounds.robustness_best(cells, variation, prior, 500, loss_max=2.0)
    paid = [
        v + 2 * math.sqrt((2 * math.exp(c) * math.log(2) + 2 * math.log(1 / (p * DELTA))) / 500)
        for c, v, p in zip(cells, variation, prior, strict=True)
    ]
    assert found == pytest.approx(min(paid))
    assert which == 1
    assert found > bounds.robustness_bound(cells[1], variation[1], 500, loss_max=2.0)


def test_cells_of_a_grid_are_counted_for_every_class() -> None:
    """K of the inputs alone: labels are part of a sample."""
    assert math.exp(bounds.grid_log_cells(1, 2)) == pytest.approx(4)
    assert math.exp(bounds.grid_log_cells(2, 3, classes=10)) == pytest.approx(640)
    assert math.exp(bounds.grid_log_cells(0, 64, classes=2)) == pytest.approx(2)


def test_more_cells_than_a_float_can_count_make_an_infinite_bound() -> None:
    """An OverflowError, or a warning, for 2^(64·100) cells."""
    assert bounds.robustness_bound(bounds.grid_log_cells(100, 64), 0.0, 1000) == math.inf


@given(st.floats(0, 20), st.floats(0, 1), SAMPLES)
def test_robustness_bound_is_monotone(log_cells: float, variation: float, n: int) -> None:
    """A bound that falls as the partition gets finer at the same variation."""
    bound = bounds.robustness_bound(log_cells, variation, n)
    assert bound < bounds.robustness_bound(log_cells + 0.1, variation, n)
    assert bound < bounds.robustness_bound(log_cells, variation + 0.1, n)
    assert bound > bounds.robustness_bound(log_cells, variation, 2 * n)
    assert bound < bounds.robustness_bound(log_cells, variation, n, prior=0.5)


# --- (27), (63)


def test_margin_bounds_are_the_formulas_written_out() -> None:
    """A logarithm to the wrong base, a square forgotten."""
    log3 = math.log(1000) ** 3
    smooth = 1.01 * 0.1 + 7 * (
        2 * log3 / 0.25 * 1e-4 + 2 * math.log(math.log(4 * 3 / 0.5) / 0.02) / 1000
    )  # fmt: skip
    found = bounds.smooth_margin_bound(0.1, 0.5, 0.01, 1000, bound=3.0, constant=7.0, delta=0.02)
    assert found == pytest.approx(smooth)
    rough = 0.1 + 0.08 + math.sqrt(math.log(math.log2(24)) / 1000) + math.sqrt(math.log(100) / 2000)
    assert bounds.margin_bound(0.1, 0.5, 0.01, 1000, bound=3.0, delta=0.02) == pytest.approx(rough)


@pytest.mark.parametrize("bound", (bounds.margin_bound, bounds.smooth_margin_bound))
@given(st.floats(0, 1), st.floats(0.01, 4.9), st.floats(0, 10), SAMPLES)
def test_margin_bounds_fall_with_the_margin(
    bound: Callable[..., Any], share: float, margin: float, size: float, n: int
) -> None:
    """γ in the numerator; a bound below the margin error it starts from."""
    found = bound(share, margin, size, n, bound=5.0)
    assert found >= share
    assert found > bound(share, 1.01 * margin, size, n, bound=5.0)
    assert found < bound(share, margin, size + 0.1, n, bound=5.0)


def test_margin_bound_holds_for_linear_functions_on_draws_of_the_data() -> None:
    """Constants or signs with which the bound would be false; all f of l1 norm 1 on corners of a cube."""
    rng, n, d = np.random.default_rng(0), 400, 3
    corners = np.array(list(itertools.product([-1.0, 1.0], repeat=d)))
    w = rng.dirichlet(np.ones(d), 200) * rng.choice([-1, 1], (200, d))
    outputs = corners @ w.T
    error = (corners[:, :1] * outputs <= 0).mean(0)  # y is the first coordinate
    size = bounds.l1_rademacher([1.0], d, n)
    failed = 0
    for _ in range(100):
        seen = rng.integers(0, len(corners), n)
        margins = (corners[seen, :1] * outputs[seen])[:, :, None]
        gammas = np.array([0.1, 0.3, 1.0])
        shares = (margins < gammas).mean(0)
        failed += bool((error[:, None] > bounds.margin_bound(shares, gammas, size, n, bound=1.0)).any())
    assert failed <= 100 * DELTA


# --- (58) to (60)


def signs(n: int) -> np.ndarray:
    return np.array(list(itertools.product([-1.0, 1.0], repeat=n)))


@pytest.mark.parametrize("d", (1, 2, 5))
def test_l1_rademacher_is_above_the_average_over_all_signs(d: int) -> None:
    """log d for log 2d: as printed (60) is 0 for one coordinate, and too small for these two as well."""
    rng, n = np.random.default_rng(d), 8
    corners = rng.choice([-1.0, 1.0], (n, d))
    average = 1.5 * np.abs(signs(n) @ corners / n).max(axis=1).mean()  # the best w is a corner of the ball
    bound = bounds.l1_rademacher([1.5], d, n)
    assert average <= bound <= 4 * average
    printed = 1.5 * math.sqrt(2 * math.log(d) / n)
    assert (printed < average) == (d <= 2)
    assert bounds.l1_gap([1.5], d, n, lipschitz=3.0) == pytest.approx(6 * bound)


def test_l1_rademacher_of_two_layers_is_above_the_average_over_all_signs() -> None:
    """The factor 2 of contraction left out, or taken for the first layer too and not for the second."""
    rng, n = np.random.default_rng(0), 6
    x = rng.uniform(-1, 1, (n, 2))
    angles = np.linspace(0, 2 * np.pi, 400)
    w = np.stack([np.cos(angles), np.sin(angles)])
    w /= np.abs(w).sum(0)  # relu is homogeneous, so that the best unit is on the sphere
    units = np.maximum(x @ (0.7 * w), 0)
    average = 1.3 * np.abs(signs(n) @ units / n).max(axis=1).mean()
    bound = bounds.l1_rademacher([0.7, 1.3], 2, n)
    assert average <= bound
    assert bound == pytest.approx(2 * 0.7 * 1.3 * math.sqrt(2 * math.log(4) / n))


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=6), st.integers(1, 1000), SAMPLES)
def test_l1_gap_is_the_product_of_60(norms: list[float], d: int, n: int) -> None:
    """An index off by one in the powers of 2."""
    product = math.prod(2 * norm for norm in norms)
    assert bounds.l1_gap(norms, d, n) == pytest.approx(math.sqrt(2 * math.log(2 * d) / n) * product)
    stacked = bounds.l1_gap(np.stack([norms, [2 * norm for norm in norms]]), d, n)
    assert stacked[1] == pytest.approx(2 ** len(norms) * stacked[0])


def test_vacuous_at_1() -> None:
    """A bound of a thousand weights on a thousand images, and one of a coin, must come out differently."""
    assert vacuous(bounds.quantized_gap(1000, 32, 1000))
    assert not vacuous(bounds.quantized_gap(1, 1, 1000))


# --- §9.1


@pytest.mark.parametrize("n", (2, 3, 10, 100))
@pytest.mark.parametrize("m", (1.0, 2.0))
def test_ratio_of_the_samples_is_29_in_its_right_form(n: int, m: float) -> None:
    """ε^n where the weights say ε^((n − 2)/m)·4(n − 1)/(n + 2)."""
    # So many bits that ln(2/δ) is nothing beside them.
    of = {
        kind: compositional.network_samples_log10(kind, n, 0.1, smoothness=m, bits=1e9)
        for kind in ("shallow", "deep")
    }
    right = -(n - 2) / m + math.log10(4 * (n - 1) / (n + 2))
    assert of["deep"] - of["shallow"] == pytest.approx(right, abs=1e-6)
    assert compositional.sample_ratio_log10(n, 0.1, m) == pytest.approx(-n / m)


def test_example_of_the_paper() -> None:
    """10^(10^4) times the samples for n = 10^4, ε = .1; no overflow on the way."""
    assert compositional.sample_ratio_log10(10**4, 0.1) == pytest.approx(-(10**4))
    shallow = compositional.network_samples_log10("shallow", 10**4, 0.1)
    deep = compositional.network_samples_log10("deep", 10**4, 0.1)
    assert deep - shallow == pytest.approx(-(10**4), rel=1e-3)


def test_samples_are_17_at_so_many_weights() -> None:
    """Another bound than that which the section names, and a jump where its logarithm is cut."""
    weights = 10.0 ** compositional.network_weights_log10("deep", 7, 0.05, 2.0)
    assert weights == pytest.approx(20 * 4 * 6)
    found = compositional.network_samples_log10("deep", 7, 0.05, smoothness=2.0, bits=8, excess=0.2)
    assert 10**found == pytest.approx(bounds.sample_bound(weights, 8, 0.2))
    around = compositional.network_samples_log10("shallow", [196, 197, 198, 199], 0.1)
    assert np.diff(around) == pytest.approx(1, abs=0.01)


# --- messages

GOOD: dict[Callable[..., Any], tuple[tuple[Any, ...], dict[str, Any]]] = {
    bounds.sample_bound: ((10, 8, 0.1), {}),
    bounds.quantized_gap: ((10, 8, 100), {}),
    bounds.covering_log: ((3, 1.0, 0.1), {}),
    bounds.covering_gap: ((3, 1.0, 0.1, 100), {}),
    bounds.robustness_bound: ((1.0, 0.1, 100), {}),
    bounds.robustness_best: (([1.0, 2.0], [0.1, 0.2], [0.5, 0.5], 100), {}),
    bounds.grid_log_cells: ((1, 2), {}),
    bounds.smooth_margin_bound: ((0.1, 0.5, 1.0, 100), {"bound": 1.0}),
    bounds.margin_bound: ((0.1, 0.5, 1.0, 100), {"bound": 1.0}),
    bounds.l1_rademacher: (([1.0], 3, 100), {}),
    bounds.l1_gap: (([1.0], 3, 100), {}),
    compositional.sample_ratio_log10: ((3, 0.1), {}),
    compositional.network_weights_log10: (("deep", 3, 0.1), {}),
    compositional.network_samples_log10: (("deep", 3, 0.1), {}),
}
# What is wrong: function, place or name of the argument, value, message.
BAD: list[tuple[Callable[..., Any], int | str, Any, str]] = [
    (bounds.sample_bound, 0, 0, "weights: expected values >= 1, got 0"),
    (bounds.sample_bound, 1, 0, "bits: expected a finite number > 0, got 0"),
    (bounds.sample_bound, 2, 1.0, r"epsilon: expected a number in \(0, 1\), got 1.0"),
    (bounds.sample_bound, "delta", 1.5, r"delta: expected a number in \(0, 1\), got 1.5"),
    (bounds.quantized_gap, 2, 0, "n: expected an integer >= 1, got 0"),
    (bounds.covering_log, 0, 0, "dimension: expected an integer >= 1, got 0"),
    (bounds.covering_log, 1, [1.0, 0.0], "radius: expected values > 0, got 0"),
    (bounds.covering_log, 2, -0.1, "epsilon: expected values > 0, got -0.1"),
    (bounds.covering_gap, 1, math.nan, "travel: contains NaN"),
    (bounds.covering_gap, "lipschitz", -1, "lipschitz: expected values >= 0, got -1"),
    (bounds.covering_gap, "loss_max", 0, "loss_max: expected a finite number > 0, got 0"),
    (bounds.robustness_bound, 0, -1, "log_cells: expected values >= 0, got -1"),
    (bounds.robustness_bound, 1, -1, "variation: expected values >= 0, got -1"),
    (bounds.robustness_bound, "prior", 1.1, r"prior: expected probabilities in \(0, 1\], got 1.1"),
    (bounds.robustness_best, 1, [0.1], r"log_cells, variation, prior: expected one of each .* \(1,\)"),
    (bounds.robustness_best, 2, [0.9, 0.9], "prior: expected probabilities that add up to .*, got 1.8"),
    (bounds.grid_log_cells, 0, -1, "level: expected values >= 0, got -1"),
    (bounds.grid_log_cells, "classes", 0, "classes: expected an integer >= 1, got 0"),
    (bounds.margin_bound, 0, 1.2, r"margin_error: expected shares in \[0, 1\], got 1.2"),
    (bounds.margin_bound, 1, 2.0, r"margin: expected margins up to the bound 1 on \|f\|, got 2"),
    (bounds.margin_bound, 2, -1, "rademacher: expected values >= 0, got -1"),
    (bounds.smooth_margin_bound, "constant", 0, "constant: expected a finite number > 0, got 0"),
    (bounds.smooth_margin_bound, 3, 1, "n: expected an integer >= 2, got 1"),
    (bounds.l1_rademacher, 0, 1.0, r"norms: expected an array \(..., k\) with one norm a layer, got 1.0"),
    (bounds.l1_rademacher, 0, [-1.0], "norms: expected values >= 0, got -1"),
    (bounds.l1_gap, "lipschitz", 0, "lipschitz: expected a finite number > 0, got 0"),
    (compositional.sample_ratio_log10, 0, 1, "dimension: expected values >= 2, got 1"),
    (compositional.sample_ratio_log10, 1, 1, r"epsilon: expected a number in \(0, 1\), got 1"),
    (compositional.network_weights_log10, 0, "flat", "kind: expected 'shallow' or 'deep', got 'flat'"),
    (compositional.network_samples_log10, "smoothness", 0, "smoothness: expected a finite number > 0, got 0"),
]  # fmt: skip


@pytest.mark.parametrize(("function", "place", "value", "message"), BAD)
def test_a_message_names_the_argument_and_what_it_got(
    function: Callable[..., Any], place: int | str, value: Any, message: str
) -> None:
    """An error from deep inside NumPy, or none."""
    arguments, named = list(GOOD[function][0]), dict(GOOD[function][1])
    function(*arguments, **named)
    if isinstance(place, int):
        arguments[place] = value
    else:
        named[place] = value
    with pytest.raises(ValueError, match=message):
        function(*arguments, **named)
