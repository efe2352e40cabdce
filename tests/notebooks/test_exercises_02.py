"""The exercises of notebook 2: solutions pass, the wrong answers that students give do not, labkit agrees."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import labkit
from labkit.measure import margin, paths, sharpness
from labkit.models import rescale_nodes
from labkit.theory import pac_bayes as theory
from tests.notebooks.exercise_cells import ExerciseTests, exercises

# --- 2.1


def kth(values: Tensor, eps: float) -> float:
    return float(values.sort().values[max(1, math.ceil(eps * len(values))) - 1])


def gaps(logits: Tensor, y: Tensor, out: float = -math.inf) -> Tensor:
    """Margins; `out` stands in for the right class among the others."""
    return (logits.gather(1, y[:, None]) - logits.scatter(1, y[:, None], out).amax(1, keepdim=True))[:, 0]


def all_classes(logits, y, eps):
    return kth(logits.gather(1, y[:, None])[:, 0] - logits.amax(1), eps)


def first_minus_second(logits, y, eps):
    top = logits.topk(2, dim=1).values
    return kth(top[:, 0] - top[:, 1], eps)


def logits_overwritten(logits, y, eps):
    right = logits.gather(1, y[:, None]).clone()
    logits.scatter_(1, y[:, None], -math.inf)
    return kth((right - logits.amax(1, keepdim=True))[:, 0], eps)


def zero_among_the_others(logits, y, eps):
    return kth(gaps(logits, y, out=0.0), eps)


def hard_margin(logits, y, eps):
    return float(gaps(logits, y).min())


def rounded_down(logits, y, eps):
    return float(gaps(logits, y).sort().values[max(1, math.floor(eps * len(y))) - 1])


def one_too_far(logits, y, eps):
    return float(gaps(logits, y).sort().values[min(math.ceil(eps * len(y)), len(y) - 1)])


def interpolated(logits, y, eps):
    return float(gaps(logits, y).quantile(eps))


def largest_first(logits, y, eps):
    return -kth(-gaps(logits, y), eps)


def of_probabilities(logits, y, eps):
    return kth(gaps(logits.softmax(1), y), eps)


# --- 2.2


def flow(matrices: list[Tensor]) -> Tensor:
    ones = torch.ones(matrices[0].shape[1], dtype=matrices[0].dtype)
    for W in matrices:
        ones = W @ ones
    return ones


def product_of_entry_sums(Ws, p):
    return math.prod(float((W.abs() ** p).sum()) for W in Ws)


def signs_kept(Ws, p):
    return float(flow([W**p for W in Ws]).sum())


def root_taken(Ws, p):
    return float(flow([W.abs() ** p for W in Ws]).sum()) ** (1 / p)


def power_at_the_end(Ws, p):
    return float((flow([W.abs() for W in Ws]) ** p).sum())


def product_matrix(Ws, p):
    total = Ws[0]
    for W in Ws[1:]:
        total = W @ total
    return float((total.abs() ** p).sum())


def mean_over_inputs(Ws, p):
    return float(flow([W.abs() ** p for W in Ws]).sum()) / Ws[0].shape[1]


def largest_output(Ws, p):
    return float(flow([W.abs() ** p for W in Ws]).max())


def ones_through_relu(Ws, p):
    ones = torch.ones(Ws[0].shape[1], dtype=Ws[0].dtype)
    for W in Ws:
        ones = (W**p @ ones).relu()
    return float(ones.sum())


def powers_in_place(Ws, p):
    return float(flow([W.abs_().pow_(p) for W in Ws]).sum())


def every_path(Ws: list[Tensor], p: int, entry: Any) -> float:
    sizes, total = [Ws[0].shape[1], *map(len, Ws)], 0.0
    for path in itertools.product(*map(range, sizes)):
        steps = enumerate(itertools.pairwise(path))
        total += math.prod(abs(float(entry(k, b, a))) ** p for k, (a, b) in steps)
    return total


def one_path_at_a_time(Ws, p):
    """Correct, and would call torch 80,000 times for 400 units."""
    return every_path(Ws, p, lambda k, b, a: Ws[k][b, a])


# --- 2.3


def sides(W1: Tensor, b1: Tensor, W2: Tensor) -> tuple[Tensor, Tensor]:
    return torch.hypot(W1.norm(dim=1), b1), W2.norm(dim=0)


def rescaled(W1: Tensor, b1: Tensor, W2: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return scale[:, None] * W1, scale * b1, W2 / scale


def alive_only(into: Tensor, out: Tensor, scale: Tensor) -> Tensor:
    return torch.where((into > 0) & (out > 0), scale, 1.0)


def bias_not_counted(W1, b1, W2):
    into, out = W1.norm(dim=1), W2.norm(dim=0)
    return rescaled(W1, b1, W2, alive_only(into, out, (out / into).sqrt()))


def bias_not_rescaled(W1, b1, W2):
    into, out = sides(W1, b1, W2)
    found = rescaled(W1, b1, W2, alive_only(into, out, (out / into).sqrt()))
    return found[0], b1.clone(), found[2]


def one_scale_for_the_layer(W1, b1, W2):
    into, out = sides(W1, b1, W2)
    return rescaled(W1, b1, W2, (out.norm() / into.norm()).sqrt().expand(len(b1)))


def divided_by_zero(W1, b1, W2):
    into, out = sides(W1, b1, W2)
    return rescaled(W1, b1, W2, (out / into).sqrt())


def no_square_root(W1, b1, W2):
    into, out = sides(W1, b1, W2)
    return rescaled(W1, b1, W2, alive_only(into, out, out / into))


def other_way_round(W1, b1, W2):
    into, out = sides(W1, b1, W2)
    return rescaled(W1, b1, W2, alive_only(into, out, (into / out).sqrt()))


def outputs_multiplied(W1, b1, W2):
    into, out = sides(W1, b1, W2)
    scale = alive_only(into, out, (out / into).sqrt())
    return scale[:, None] * W1, scale * b1, W2 * scale


def inputs_of_norm_one(W1, b1, W2):
    into, out = sides(W1, b1, W2)
    return rescaled(W1, b1, W2, alive_only(into, out, 1 / into))


def nothing_done(W1, b1, W2):
    return W1.clone(), b1.clone(), W2.clone()


def all_set_to_zero(W1, b1, W2):
    return 0 * W1, 0 * b1, 0 * W2


def balanced_in_place(W1, b1, W2):
    into, out = sides(W1, b1, W2)
    scale = alive_only(into, out, (out / into).sqrt())
    return W1.mul_(scale[:, None]), b1.mul_(scale), W2.div_(scale)


# --- 2.4


def rises(loss: Any, w: Tensor, sigma: Tensor, draws: int, generator: Any) -> tuple[float, float]:
    noise = sigma * torch.randn(draws, len(w), generator=generator, dtype=w.dtype)
    values = torch.stack([loss(w + nu) for nu in noise]) - loss(w)
    return float(values.mean()), float(values.std() / math.sqrt(draws))


def scale(w: Tensor, alpha: float) -> Tensor:
    return alpha * (10 * w.abs() + 1)


def variance_for_sd(loss, w, alpha, draws, generator):
    return rises(loss, w, scale(w, alpha) ** 2, draws, generator)


def root_of_the_scale(loss, w, alpha, draws, generator):
    return rises(loss, w, scale(w, alpha).sqrt(), draws, generator)


def loss_not_subtracted(loss, w, alpha, draws, generator):
    mean, stderr = rises(loss, w, scale(w, alpha), draws, generator)
    return mean + float(loss(w)), stderr


def ten_forgotten(loss, w, alpha, draws, generator):
    return rises(loss, w, alpha * (w.abs() + 1), draws, generator)


def one_forgotten(loss, w, alpha, draws, generator):
    return rises(loss, w, alpha * 10 * w.abs(), draws, generator)


def sign_in_the_scale(loss, w, alpha, draws, generator):
    return rises(loss, w, alpha * (10 * w + 1), draws, generator)


def one_number_for_all_weights(loss, w, alpha, draws, generator):
    noise = torch.randn(draws, 1, generator=generator, dtype=w.dtype) * scale(w, alpha)
    values = torch.stack([loss(w + nu) for nu in noise]) - loss(w)
    return float(values.mean()), float(values.std() / math.sqrt(draws))


def spread_for_the_error(loss, w, alpha, draws, generator):
    mean, stderr = rises(loss, w, scale(w, alpha), draws, generator)
    return mean, stderr * math.sqrt(draws)


def absolute_rises(loss, w, alpha, draws, generator):
    noise = scale(w, alpha) * torch.randn(draws, len(w), generator=generator, dtype=w.dtype)
    values = (torch.stack([loss(w + nu) for nu in noise]) - loss(w)).abs()
    return float(values.mean()), float(values.std() / math.sqrt(draws))


def own_noise(loss, w, alpha, draws, generator):
    return rises(loss, w, scale(w, alpha), draws, torch.Generator().manual_seed(0))


def growing_noise(loss, w, alpha, draws, generator):
    """A random walk: the noise is never taken back."""
    values, moved = [], w.clone()
    for _ in range(draws):
        moved += scale(w, alpha) * torch.randn(len(w), generator=generator, dtype=w.dtype)
        values.append(float(loss(moved) - loss(w)))
    values = torch.tensor(values, dtype=torch.float64)
    return float(values.mean()), float(values.std() / math.sqrt(draws))


def weights_moved(loss, w, alpha, draws, generator):
    found = rises(loss, w, scale(w, alpha), draws, generator)
    w += 1
    return found


def bounds(err: float, kl: float, m: int, delta: float, divisor: int = 0) -> tuple[float, float, float]:
    cost = kl + math.log(2 * m / delta)
    K = 2 * cost / (divisor or m - 1)
    return kl, err + math.sqrt(err * K) + K, err + 4 * math.sqrt(cost / m)


def answer(err: float, w: Tensor, start: Tensor, sigma: float, tried: int, m: int, delta: float, times=1.0):
    return bounds(err, times * right_kl(w, start, sigma), m, delta / tried)


def right_kl(w: Tensor, start: Tensor, sigma: float) -> float:
    return float((w - start).square().sum() / (2 * sigma**2))


def half_forgotten(*given):
    return answer(*given, times=2)


def variance_in_the_kl(err, w, start, sigma, tried, m, delta):
    return bounds(err, right_kl(w, start, sigma**0.5), m, delta / tried)


def centre_at_the_origin(err, w, start, *rest):
    return answer(err, w, 0 * start, *rest)


def scale_of_the_weights(err, w, start, sigma, tried, m, delta):
    """The prior of the exercise's first half, which knows the data."""
    return bounds(err, float((w / scale(w, sigma)).square().sum() / 2), m, delta / tried)


def nothing_paid_for_trying(err, w, start, sigma, tried, m, delta):
    return answer(err, w, start, sigma, 1, m, delta)


def chance_grows_with_tries(err, w, start, sigma, tried, m, delta):
    return answer(err, w, start, sigma, 1, m, delta * tried)


def distance_not_squared(err, w, start, sigma, tried, m, delta):
    return bounds(err, float((w - start).norm() / (2 * sigma**2)), m, delta / tried)


def mean_for_the_sum(err, w, *rest):
    return answer(err, w, *rest, times=1 / len(w))


def m_for_m_minus_1(err, w, start, sigma, tried, m, delta):
    return bounds(err, right_kl(w, start, sigma), m, delta / tried, divisor=m)


def logarithm_without_2m(err, w, start, sigma, tried, m, delta):
    return answer(err, w, start, sigma, tried, m, delta * 2 * m)


def root_of_all(err, w, start, sigma, tried, m, delta):
    kl, eq5, eq6 = answer(err, w, start, sigma, tried, m, delta)
    K = 2 * (kl + math.log(2 * m * tried / delta)) / (m - 1)
    return kl, err + math.sqrt(err * K + K), eq6


def factor_four_forgotten(err, *rest):
    kl, eq5, eq6 = answer(err, *rest)
    return kl, eq5, err + (eq6 - err) / 4


def cut_at_one(*given):
    kl, eq5, eq6 = answer(*given)
    return kl, min(eq5, 1.0), min(eq6, 1.0)


def difference_in_place(err, w, start, *rest):
    return answer(err, w.sub_(start), 0 * start, *rest)


# --- other ways that are right


def one_hot_mask(logits, y, eps):
    mask = torch.nn.functional.one_hot(y, logits.shape[1]).bool()
    values = logits[mask] - logits.masked_fill(mask, -math.inf).max(1).values
    return float(values.kthvalue(max(1, math.ceil(eps * len(y)))).values)


def from_the_end(Ws, p):
    arriving = torch.ones(len(Ws[-1]), dtype=Ws[-1].dtype)
    for W in reversed(Ws):
        arriving = arriving @ W.abs().pow(p)
    return arriving.sum()


def paths_in_plain_python(Ws, p):
    rows = [W.tolist() for W in Ws]
    return every_path(Ws, p, lambda k, b, a: rows[k][b][a])


def zero_for_the_dead(W1, b1, W2):
    into, out = sides(W1, b1, W2)
    half = (into * out).sqrt()  # the norm of each side
    down = [torch.where(side > 0, half / side, 0.0) for side in (into, out)]
    return down[0][:, None] * W1, down[0] * b1, down[1] * W2


def vectorised(loss, w, alpha, draws, generator):
    noise = torch.randn(draws, len(w), generator=generator, dtype=w.dtype)
    values = torch.vmap(loss)(torch.addcmul(w, noise, scale(w, alpha))) - loss(w)
    return values.mean(), values.std() / draws**0.5


def divergence_of_torch(err, w, start, sigma, tried, m, delta):
    normal, spread = torch.distributions.Normal, torch.full_like(w, sigma)
    kl = float(torch.distributions.kl_divergence(normal(w, spread), normal(start, spread)).sum())
    return bounds(err, kl, m, delta / tried)


class TestNotebook2(ExerciseTests):
    number = 2
    names = {
        "2.1": "margin", "2.2": "path_norm", "2.3": "balance", "2.4a": "expected_sharpness",
        "2.4b": "pac_bayes",
    }  # fmt: skip
    wrong = {
        "2.1": {
            "over all classes": (all_classes, "n = 1, K = 2, .*: got -?0, should be"),
            "first minus second": (first_minus_second, "n = 1, K = 2, .* should be -.*, ratio -1"),
            "logits overwritten": (logits_overwritten, "input logits is overwritten"),
            "0 among the others": (zero_among_the_others, "n = .* should be"),
            "hard margin": (hard_margin, "n = 7, K = 2, eps = 1, .* should be"),
            "rounded down": (rounded_down, r"n = 7, K = 2, eps = 0\.5, .* should be"),
            "one too far": (one_too_far, r"n = 7, K = 2, eps = 0\.5, .* should be"),
            "interpolated": (interpolated, r"n = 7, K = 2, eps = 0\.[^5].* should be"),
            "largest first": (largest_first, "n = 7, K = 2, eps = 0, .* should be"),
            "margins of probabilities": (of_probabilities, "n = 1, K = 2, .* should be"),
        },
        "2.2": {
            "product of entry sums": (product_of_entry_sums, r"sizes \[2, 5, 1, 3\], p = 1: .* should be"),
            "signs kept": (signs_kept, "p = 1: .* should be"),
            "a root": (root_taken, r"sizes \[.*\], p = 2: .* should be"),
            "the power at the end": (power_at_the_end, r"sizes \[.*\], p = 2: .* should be"),
            "absolute value of the product": (product_matrix, r"sizes \[.*\], p = 1: .* should be"),
            "mean over the inputs": (mean_over_inputs, r"sizes \[4, 3\], p = 1: .*, ratio 0.25"),
            "largest output": (largest_output, r"sizes \[4, 3\], p = 1: .* should be"),
            "through ReLU with signs": (ones_through_relu, "p = 1: .* should be"),
            "powers in place": (powers_in_place, "input Ws is overwritten"),
            "one path at a time": (one_path_at_a_time, "more than 10,000 calls of torch"),
        },
        "2.3": {
            "bias not counted": (bias_not_counted, "n = 1, H = 1, .*: the sum of squares: .* should be"),
            "bias not rescaled": (bias_not_rescaled, "n = 1, H = 1, .*: the function: .* should be"),
            "one scale for the layer": (
                one_scale_for_the_layer,
                "H = 2, .*: the sum of squares: .*, ratio 1",
            ),
            "division by zero": (divided_by_zero, "units without inputs .*: .* holds NaN or infinity"),
            "no square root": (no_square_root, "the sum of squares: .* should be"),
            "the other way round": (other_way_round, "the sum of squares: .* should be"),
            "outputs multiplied": (outputs_multiplied, "the function: .* should be"),
            "inputs of norm 1": (inputs_of_norm_one, "the sum of squares: .* should be"),
            "nothing done": (nothing_done, "the sum of squares: .* should be"),
            "all set to zero": (all_set_to_zero, "the function: got 0"),
            "balanced in place": (balanced_in_place, "input W1 is overwritten"),
        },
        "2.4a": {
            "variance where the sd belongs": (variance_for_sd, "linear loss, .*: the standard error is"),
            "root of the scale": (root_of_the_scale, "linear loss, .*: the standard error is"),
            "loss(w) not subtracted": (loss_not_subtracted, "linear loss, .*: the mean is .* near 0"),
            "|w| + 1": (ten_forgotten, "linear loss, .*: the standard error is"),
            "10 |w|": (one_forgotten, "linear loss, .*: the standard error is"),
            "w for |w|": (sign_in_the_scale, "the standard error is|quadratic loss"),
            "one number for all weights": (
                one_number_for_all_weights,
                "the standard error is|quadratic loss",
            ),
            "sd for the standard error": (spread_for_the_error, "linear loss, .*: the standard error is"),
            "absolute rises": (absolute_rises, "linear loss, .*: the standard error is"),
            "noise of its own": (own_noise, "another generator gives the same number"),
            "noise never taken back": (growing_noise, "linear loss, .*: the standard error is"),
            "weights moved": (weights_moved, "input w is overwritten"),
        },
        "2.4b": {
            "KL without ½": (half_forgotten, "KL, err = 0, .*, ratio 2"),
            "σ for σ²": (variance_in_the_kl, "KL, err = 0, .*, ratio"),
            "around the origin": (centre_at_the_origin, "KL, err = 0, .*, ratio"),
            "a prior that knows the weights": (scale_of_the_weights, "KL, err = 0, .*, ratio"),
            "distance not squared": (distance_not_squared, "KL, err = 0, .*, ratio"),
            "nothing paid for trying": (nothing_paid_for_trying, "eq 5, err = 0, .* should be"),
            "a chance that grows": (chance_grows_with_tries, "eq 5, err = 0, .* should be"),
            "mean for the sum": (mean_for_the_sum, "KL, err = 0, .*, ratio 0"),
            "m for m − 1": (m_for_m_minus_1, "eq 5, err = 0, .*, ratio 0.5"),
            "ln(1/δ)": (logarithm_without_2m, "eq 5, err = 0, .* should be"),
            "root over all": (root_of_all, "eq 5, .* should be"),
            "4 forgotten": (factor_four_forgotten, "eq 6, err = 0, .*, ratio 0.25"),
            "cut at 1": (cut_at_one, "eq [56], .*: got 1, should be"),
            "difference in place": (difference_in_place, "input w is overwritten"),
        },
    }
    right = {
        "2.1": {"a mask": one_hot_mask},
        "2.2": {"from the outputs": from_the_end, "paths in plain Python": paths_in_plain_python},
        "2.3": {"dead units set to zero": zero_for_the_dead},
        "2.4a": {"vectorised": vectorised},
        "2.4b": {"the divergence of torch": divergence_of_torch},
    }

    def test_labkit_agrees_with_the_solutions(self) -> None:
        """Lesson and exercises would teach two definitions of one measure."""
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(40, 6, generator=generator, dtype=torch.float64)
        y = torch.randint(3, (40,), generator=generator)
        model = labkit.mlp(6, 8, 1, 3, seed=1, dtype=torch.float64)
        outputs, (first, last) = model(x).detach(), model.layers
        for eps in (0.0, 0.05, 0.33, 1.0):
            assert self.solution("2.1")(outputs, y, eps) == margin(outputs, y, eps)

        W1, b1, W2 = (part.detach() for part in (first.weight, first.bias, last.weight))
        for p in (1, 2):
            ours = self.solution("2.2")([W1, W2], p)
            assert ours == pytest.approx(float(paths.path_norm(model, x, p)), rel=1e-12)

        balanced = self.solution("2.3")(W1, b1, W2)
        scales = balanced[0].norm(dim=1) / W1.norm(dim=1)
        layers = rescale_nodes(model, {0: scales}).layers
        for ours, theirs in zip(balanced, (layers[0].weight, layers[0].bias, layers[1].weight), strict=True):
            torch.testing.assert_close(ours, theirs.detach(), rtol=1e-12, atol=1e-12)

        w = sharpness.parameter_vector(model)
        shapes = [part.shape for part in model.parameters()]

        def loss(u: Tensor) -> Tensor:
            parts = [part.view(shape) for part, shape in zip(u.split(sizes), shapes, strict=True)]
            hidden = (x @ parts[0].T + parts[1]).relu()
            return torch.nn.functional.cross_entropy(hidden @ parts[2].T + parts[3], y)

        sizes = [shape.numel() for shape in shapes]
        mean, stderr = self.solution("2.4a")(loss, w, 0.02, 500, torch.Generator().manual_seed(5))
        found = sharpness.expected_sharpness(model, x, y, alphas=[0.02], draws=500, generator=6)
        assert abs(mean - float(found.mean[0])) <= 6 * math.hypot(stderr, float(found.stderr[0]))
        assert stderr == pytest.approx(float(found.stderr[0]), rel=0.3)

    def test_labkit_agrees_with_the_pac_bayes_bounds(self) -> None:
        """Two forms of one bound would pass for two bounds."""
        w, start = torch.tensor([[0.5, -2.0, 0.0, 1.0], [0.25, -1.0, 0.5, 0.0]], dtype=torch.float64)
        kl, eq5, eq6 = self.solution("2.4b")(0.1, w, start, 0.2, 9, 300, 0.05)
        assert kl == pytest.approx(theory.gaussian_kl(w.numpy(), 0.2, start.numpy()), rel=1e-12)
        assert eq5 == pytest.approx(theory.pac_bayes_bound(0.1, kl, 300, 0.05 / 9), rel=1e-12)
        assert eq6 == pytest.approx(theory.pac_bayes_sqrt(0.1, kl, 300, 0.05 / 9), rel=1e-12)

    def test_provable_items_of_2_5_are_the_ones_on_the_sheet(self) -> None:
        """16 → 310.03, and both path norms stay."""
        provable, one = solved_prediction()["provable"], torch.ones(4, 1, dtype=torch.float64)
        assert provable == {"product": pytest.approx(310.03), "l1 path": "stays", "l2 path": "stays"}
        factor = torch.tensor([10.0, 1, 1, 1], dtype=torch.float64)[:, None]
        nets = [one, one.T], [factor * one, (one / factor).T]
        products = [math.prod(float(W.square().sum()) for W in net) for net in nets]
        assert products == pytest.approx([16, provable["product"]])
        for p in (1, 2):
            assert self.solution("2.2")(nets[0], p) == pytest.approx(self.solution("2.2")(nets[1], p))

    def test_open_items_of_2_5_are_never_marked(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Nobody knows them before the run; an opinion would reward guessing."""
        namespace = solved_prediction()
        filled = dict.fromkeys(namespace["prediction"], "rises") | {"product": 310, "l2 path": "stays"}
        namespace["check_prediction"](filled, filled, namespace["allowed"], namespace["provable"], name="2.5")
        assert capsys.readouterr().out.splitlines() == [
            "2.5: prediction: complete",
            "2.5: observed: complete",
            "2.5: provable: product: right; l1 path: not right; l2 path: right",
        ]

    def test_prediction_and_allowed_values_have_the_same_items(self) -> None:
        """An item without allowed values can never be filled."""
        namespace = solved_prediction()
        assert list(namespace["prediction"]) == list(namespace["allowed"]) == list(namespace["observed"])

    def test_open_question_has_its_rubric_folded_in(self) -> None:
        """One point a line, and out of sight until asked for."""
        source = exercises(2).source("solution-2.6")
        assert source.startswith("<details>") and source.rstrip().endswith("</details>")
        assert all(f"\n{line}. " in source for line in (1, 2, 3))


def solved_prediction() -> dict[str, Any]:
    cells, namespace = exercises(2), {}
    cells.run(namespace, "exercises-setup", "exercise-2.5", "tests-2.5")
    return namespace
