"""The conditions of paper 2 against slow loops with explicit matrices, and the lemma that rests on them."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from labkit import models
from labkit.measure.conditions import Conditions, conditions, linear_perturbation
from labkit.theory import generalization as theory


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def chain(*widths: int, seed: int = 0) -> nn.Sequential:
    parts: list[nn.Module] = []
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        layer = nn.utils.skip_init(nn.Linear, a, b, bias=False, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(drawn(b, a, seed=seed + 10 * i) / math.sqrt(a))
        parts += [layer, nn.ReLU()]
    return nn.Sequential(*parts[:-1])


CHAINS = [(4, 3), (5, 7, 2), (3, 6, 4, 5), (6, 5, 8, 3, 7, 2)]


class Slow:
    """Every product written out: layers[i] is D_i W_i of one sample, with W_0 = x as a column and D_0 = I."""

    def __init__(self, model: nn.Sequential, x: Tensor) -> None:
        self.weights = [part.weight.detach() for part in model if isinstance(part, nn.Linear)]
        self.layers, self.before, h = [x[:, None]], [], x
        for i, W in enumerate(self.weights):
            z = W @ h
            last = i == len(self.weights) - 1
            D = torch.eye(len(W), dtype=z.dtype) if last else torch.diag((z > 0).double())
            self.layers.append(D @ W)
            self.before.append(z)
            h = D @ z
        self.output = h

    def product(self, a: int, b: int) -> Tensor:
        found = self.layers[a]
        for i in range(a + 1, b + 1):
            found = self.layers[i] @ found
        return found

    def ratio(self, a: int, c: int, b: int) -> float:
        whole, left, right = (self.product(*ends).norm() for ends in ((a, b), (c + 1, b), (a, c)))
        below = float(left * right)
        return math.sqrt(len(self.layers[c])) * float(whole) / below if below else math.inf


@pytest.mark.parametrize("widths", CHAINS)
def test_c1_equals_explicit_products_over_all_triples(widths: tuple[int, ...]) -> None:
    """Layers off by one, h_(c-1) for h_c, a missing mask, a triple left out."""
    model, x = chain(*widths), drawn(5, widths[0], seed=7)
    found, d = conditions(model, x), len(widths) - 1
    triples = [(a, c, b) for a, c, b in itertools.product(range(d + 1), repeat=3) if a <= c < b]
    assert sorted(map(tuple, found.index.tolist())) == sorted(triples)
    assert found.dims == widths
    for s in range(5):
        slow = Slow(model, x[s])
        ratios = {t: slow.ratio(*t) for t in triples}
        for value, triple in zip(found.mu_all[s].tolist(), found.index.tolist(), strict=True):
            assert value == pytest.approx(ratios[tuple(triple)], rel=1e-10)
        assert float(found.mu[s]) == pytest.approx(min(ratios.values()), rel=1e-10)
        inner = min(value for (a, _, _), value in ratios.items() if a == 0)
        assert float(found.mu_input[s]) == pytest.approx(inner, rel=1e-10)
        assert float(found.output_norm[s]) == pytest.approx(float(slow.output.norm()), rel=1e-10)


@pytest.mark.parametrize("widths", CHAINS)
@pytest.mark.parametrize("delta", [0.3, (0.05, 0.7)])
def test_c2_and_c3_equal_plain_counts(widths: tuple[int, ...], delta: float | tuple[float, ...]) -> None:
    """The printed C2 without its absolute value counts half of all units; a scale left out."""
    model, x = chain(*widths, seed=1), drawn(4, widths[0], seed=8)
    found, d = conditions(model, x, delta=delta), len(widths) - 1
    assert found.c2.shape == (4, d - 1) and found.c3.shape == (4, d)
    for s in range(4):
        slow = Slow(model, x[s])
        for k in range(d - 1):
            z = slow.before[k].tolist()
            rms = math.sqrt(sum(v * v for v in z) / len(z))
            shares = [
                sum(abs(v) <= e * rms for v in z) / len(z) / e
                for e in (delta if isinstance(delta, tuple) else (delta,))
            ]
            assert float(found.c2[s, k]) == pytest.approx(max(shares))
        for i in range(d):
            row = max(float(row.norm()) for row in slow.weights[i])
            size = float(slow.layers[i + 1].norm())
            assert float(found.masked_norms[s, i]) == pytest.approx(size)
            assert float(found.c3[s, i]) == pytest.approx(
                math.sqrt(widths[i + 1]) * row / size if size else math.inf
            )
            assert float(found.norms[i]) == pytest.approx(float(slow.weights[i].norm()))


def test_c3_and_c1_are_what_they_must_be_for_one_linear_layer() -> None:
    """An orthogonal matrix keeps |x|: mu = sqrt(h_0) |x| / (|W|_F |x|) = 1."""
    model = nn.Sequential(nn.Linear(4, 4, bias=False, dtype=torch.float64))
    with torch.no_grad():
        model[0].weight.copy_(torch.linalg.qr(drawn(4, 4)).Q)
    found = conditions(model, drawn(3, 4, seed=2))
    torch.testing.assert_close(found.mu, torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(found.c3, torch.ones(3, 1, dtype=torch.float64))
    assert found.c2.shape == (3, 0)


def test_layers_that_cancel_have_no_mu() -> None:
    """W_2 W_1 = 0 without either being 0: the pathology that (C1) is there for."""
    model = chain(2, 2, 1)
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
        model[2].weight.copy_(torch.tensor([[1.0, -1.0]]))
    found = conditions(model, torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64))
    assert float(found.mu[0]) == 0
    # The second sample has no active unit at all: nothing is asked of a product with a factor of 0 ...
    assert found.masked_norms[1, 0] == 0 and bool(found.c3[1, 0].isinf())
    # ... but that its first layer does not lose the sample is asked, and not met.
    assert not found.mu_all.isnan().any()


def test_an_mlp_equals_the_sequential_of_its_layers_and_chunks_change_nothing() -> None:
    """The output scale forgotten, images not flattened, a sample lost between chunks."""
    mlp = models.mlp(12, 9, 2, 3, bias=False, output_scale=0.5, dtype=torch.float64)
    model = chain(12, 9, 9, 3)
    with torch.no_grad():
        for ours, theirs in zip(mlp.layers, (model[0], model[2], model[4]), strict=True):
            theirs.weight.copy_(ours.weight)
        model[4].weight.mul_(0.5)
    x = drawn(7, 3, 4)
    first, second = conditions(mlp, x), conditions(nn.Sequential(nn.Flatten(), *model), x)
    chunked = conditions(mlp, x, memory=3000)
    for other in (second, chunked):
        for name in ("mu", "mu_all", "c2", "c3", "masked_norms", "norms", "output_norm"):
            torch.testing.assert_close(getattr(first, name), getattr(other, name))
    torch.testing.assert_close(first.output_norm, mlp(x).detach().norm(dim=1))


# linear_perturbation


def lemma_1(found: Conditions, sigma: float, mu: Tensor) -> Tensor:
    gamma = theory.gammas(sigma, found.dims, mu.numpy(), found.masked_norms.numpy())
    return torch.from_numpy(theory.lemma1(gamma, found.output_norm.numpy()))


@settings(max_examples=12)
@given(sigma=st.floats(1e-5, 0.3), seed=st.integers(0, 100), depth=st.integers(0, 3))
def test_lemma_1_holds_with_the_mu_measured_on_the_same_network(sigma: float, seed: int, depth: int) -> None:
    """The inequality itself, with the mu over a = 0 that it needs; a mu that is too large would break it."""
    model = models.mlp(5, 10, depth, 3, bias=False, init="he", seed=seed, dtype=torch.float64)
    x = drawn(4, 5, seed=seed)
    found, moved = conditions(model, x), linear_perturbation(model, x, sigma, draws=200)
    bound = lemma_1(found, sigma, found.mu_input)
    assert bool((moved.frozen - 5 * moved.frozen_stderr <= bound).all())
    assert bool((lemma_1(found, sigma, found.mu) >= bound).all())


def test_the_perturbation_against_explicit_matrices() -> None:
    """One draw at a time, in the paper's notation: masks kept, masks free, their difference, and flips."""
    model, x, sigmas = chain(4, 6, 5, 2), drawn(3, 4, seed=1), [0.3, 0.2, 0.1]
    found = linear_perturbation(model, x, sigmas, draws=4, generator=torch.Generator().manual_seed(3))
    source = torch.Generator().manual_seed(3)
    expected = torch.zeros(4, 3, 3, dtype=torch.float64)
    flips = torch.zeros(3, 2, dtype=torch.float64)
    weights = [part.weight.detach() for part in model if isinstance(part, nn.Linear)]
    for draw in range(4):
        noisy = [
            W + s * torch.randn(W.shape, generator=source, dtype=torch.float64)
            for W, s in zip(weights, sigmas, strict=True)
        ]
        for s in range(3):
            slow = Slow(model, x[s])
            gates = [(z > 0).double() for z in slow.before[:-1]]
            kept = noisy[2] @ (gates[1] * (noisy[1] @ (gates[0] * (noisy[0] @ x[s]))))
            first = noisy[0] @ x[s]
            second = noisy[1] @ first.relu()
            free = noisy[2] @ second.relu()
            expected[draw, 0, s] = (kept - slow.output).norm()
            expected[draw, 1, s] = (free - slow.output).norm()
            expected[draw, 2, s] = (free - kept).norm()
            for k, z in enumerate((first, second)):
                flips[s, k] += float(((z > 0).double() != gates[k]).double().mean()) / 4
    for place, name in enumerate(("frozen", "full", "error")):
        torch.testing.assert_close(getattr(found, name), expected[:, place].mean(0))
        torch.testing.assert_close(getattr(found, f"{name}_stderr"), expected[:, place].std(0) / 2)
    torch.testing.assert_close(found.flips, flips)


def test_the_noise_is_a_standard_deviation() -> None:
    """A linear layer's change has root mean square sigma |x| sqrt(outputs): mean square within 5 errors."""
    model, x = chain(6, 4), drawn(1, 6)
    sizes = [
        float(linear_perturbation(model, x, 0.01, draws=2, generator=s).frozen.square()) for s in range(3)
    ]
    assert all(size > 0 for size in sizes) and len(set(sizes)) == 3
    found = linear_perturbation(model, x, 0.01, draws=4000)
    square = found.frozen.square() + found.frozen_stderr.square() * 4000
    expected = 1e-4 * x.square().sum() * 4
    assert float(square / expected) == pytest.approx(1, abs=5 * math.sqrt(2 / 4 / 4000) * 1.5)
    torch.testing.assert_close(found.frozen, found.full)
    assert float(found.error) == 0


def test_without_noise_nothing_moves() -> None:
    model, x = chain(4, 6, 2), drawn(3, 4)
    found = linear_perturbation(model, x, 0.0, draws=2)
    assert not any(getattr(found, name).any() for name in ("frozen", "full", "error", "flips"))


def test_the_model_and_the_global_generator_stay_as_they_were() -> None:
    """A measurement that trains, or that makes the next experiment depend on it."""
    model = models.mlp(4, 6, 2, 3, bias=False, output_scale=2.0, dtype=torch.float64)
    before, state = {n: p.clone() for n, p in model.state_dict().items()}, torch.get_rng_state()
    x = drawn(3, 4)
    conditions(model, x)
    linear_perturbation(model, x, 0.1, draws=3)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[n], p) for n, p in model.state_dict().items())


def _relu_first() -> nn.Module:
    return nn.Sequential(nn.ReLU(), nn.Linear(4, 2, bias=False, dtype=torch.float64))


BAD = [
    (lambda x: conditions(models.mlp(4, 3, 1, 2, dtype=torch.float64), x), "a layer of the model has biases"),
    (lambda x: conditions(models.mlp(4, 3, 1, 2, bias=False, activation="tanh"), x), "activation is 'tanh'"),
    (lambda x: conditions(nn.Sequential(nn.Linear(4, 3, bias=False), nn.Tanh()), x), "the model holds Tanh"),
    (lambda x: conditions(nn.Sequential(), x), "the model holds no layers"),
    (lambda x: conditions(nn.Linear(4, 3, bias=False), x), "model is a Linear; it takes labkit.models.mlp"),
    (lambda x: conditions(chain(4, 3, 2)[:2], x), "must end in an nn.Linear"),
    (lambda x: conditions(_relu_first(), x), "must begin"),
    (lambda x: conditions(nn.Sequential(*[nn.Linear(4, 4, bias=False)] * 2), x), "must alternate"),
    (lambda x: conditions(chain(5, 3), x), r"x is \(3, 4\), needs samples \(n, 5\)"),
    (lambda x: conditions(chain(4, 3), x[:0]), r"x is \(0, 4\)"),
    (lambda x: conditions(chain(4, 3), x, delta=0.0), "delta is 0.0, needs one or several positive"),
    (lambda x: conditions(chain(4, 3), x, delta=()), r"delta is \(\), needs one or several positive"),
    (lambda x: linear_perturbation(chain(4, 3), x, -1.0), "linear_perturbation: sigma is -1.0, needs"),
    (lambda x: linear_perturbation(chain(4, 3), x, [0.1, 0.1]), r"sigma is \[0.1, 0.1\], needs numbers >= 0"),
    (lambda x: linear_perturbation(chain(4, 3), x, 0.1, draws=1), "draws is 1, needs a whole number of at"),
    (lambda x: linear_perturbation(chain(4, 3), x, 0.1, generator=-1), "generator is -1"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), BAD)
def test_a_bad_argument_is_named(call, message: str) -> None:
    """A network for which the numbers would mean something else."""
    with pytest.raises(ValueError, match=message):
        call(drawn(3, 4))
