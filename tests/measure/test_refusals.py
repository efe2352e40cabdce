"""What no measure may take, by every public door, in one line that names culprit and way out."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from labkit import measure
from labkit.measure.flatness import flatness_profile

from .conftest import assert_close
from .test_strangers import dense, made, module, numbers, state, twin, unchanged

X, Y = numbers(6, 4), torch.arange(6) % 3

# Every public measure that takes a model and samples.
DOORS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "jacobian": measure.jacobian,
    "empirical_ntk": measure.empirical_ntk,
    "ntk_route": measure.ntk_route,
    "gradient_gram": lambda m, x: measure.gradient_gram(m, x, Y),
    "batch_gradients": lambda m, x: measure.batch_gradients(m, x, Y, [[0, 1]]),
    "batch_gram": lambda m, x: measure.batch_gram(m, x, Y, [[0, 1]]),
    "sample_gradients": lambda m, x: measure.sample_gradients(m, x, Y),
    "max_sharpness": lambda m, x: measure.max_sharpness(m, x, Y, steps=4),
    "expected_sharpness": lambda m, x: measure.expected_sharpness(m, x, Y, alphas=[0.1], draws=2),
    "flatness_radius": lambda m, x: measure.flatness_radius(m, x, Y, directions=2),
    "flatness_profile": lambda m, x: flatness_profile(m, x, Y, [0.1], directions=2),
    "error_under_noise": lambda m, x: measure.error_under_noise(m, x, Y, [0.1]),
    "three_point": lambda m, x: measure.three_point([m, m, m], x, Y, resolution=1),
}


def broken(where: str, value: float = float("nan")) -> nn.Module:
    model = made(lambda: dense(4, 6, 3))
    with torch.no_grad():
        dict(model.named_parameters())[where].view(-1)[:2] = value
    return model


@pytest.mark.parametrize("door", DOORS)
def test_what_is_not_finite_is_named_with_its_share(door: str) -> None:
    """A diverged model whose sharpness is 0, whose kernel is nan, whose spectrum is an IndexError."""
    for where, value in (("0.weight", float("nan")), ("2.bias", float("inf")), ("0.bias", float("-inf"))):
        model = broken(where, value)
        share = rf"parameter '{where}' is not finite in 2 of {dict(model.named_parameters())[where].numel()} "
        with pytest.raises(ValueError, match=f"^{door}: {share}"):
            DOORS[door](model, X)
    late = X.clone()
    late[4, 1] = float("nan")
    with pytest.raises(ValueError, match=f"^{door}: x is not finite in 1 of 24 entries"):
        DOORS[door](made(lambda: dense(4, 6, 3)), late)


def overflows(self: Any, x: Tensor) -> Tensor:
    return self.layer(x) * (x[:, :1] > 1.2).to(x.dtype).mul(1e200).square().add(1)


def test_outputs_that_overflow_for_one_sample_are_refused_when_they_are_met() -> None:
    """One infinite row among finite ones."""
    x = X.clone()
    x[:, 0], x[3, 0] = 0.0, 2.0
    model = made(lambda: module(overflows, layer=nn.Linear(4, 3)))
    for call in (
        lambda: measure.jacobian(model, x).gram(),
        lambda: measure.jacobian(model, x, route="products").matmat(numbers(15)),
        lambda: measure.empirical_ntk(model, x),
        lambda: measure.gradient_gram(model, x, Y),
        lambda: measure.max_sharpness(model, x, Y),
    ):
        with pytest.raises(ValueError, match="outputs are not finite in"):
            call()
    rooted = made(lambda: module(lambda self, x: self.layer(x).sub(self.layer(x)).norm(dim=1, keepdim=True)
                                 .sqrt() + self.layer(x), layer=nn.Linear(4, 3)))  # fmt: skip
    with pytest.raises(ValueError, match="derivative by parameter 'layer.weight' is not finite"):
        measure.empirical_ntk(rooted, X)


# Samples that look at each other.


class Scans(nn.Module):
    """A running mean over the samples: the first does not feel the others."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = self.layer(x)
        return z + 1e-6 * z.cumsum(0)


class Causal(nn.Module):
    """Attention over the samples with a causal mask, which batch_first=True would put on the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.attend, self.out = nn.MultiheadAttention(4, 2), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(len(x), dtype=x.dtype)
        h = x[:, None].expand(-1, 2, -1)
        return self.out(self.attend(h, h, h, attn_mask=mask)[0].mean(1))


COUPLED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "lstm": (lambda: module(lambda self, x: self.out(self.read(x[:, None].expand(-1, 3, -1))[0][:, -1]),
                            read=nn.LSTM(4, 5), out=nn.Linear(5, 3)), "'read' is built with batch_first"),
    "causal attention": (Causal, "'attend' is built with batch_first=False"),
    "scan": (Scans, "scan over the first axis"),
    "flipped scan": (lambda: module(lambda self, x: self.layer(x.flip(0)).cumsum(0).flip(0),
                                    layer=nn.Linear(4, 3)), "scan over the first axis"),
    "only the last": (lambda: module(lambda self, x: torch.cat([self.layer(x[:-1]), self.layer(x[-1:])
                                                                + x[:-1].sum()]), layer=nn.Linear(4, 3)),
                      "the outputs of sample 5 change"),
    "own batch statistics": (lambda: module(lambda self, x: (z := self.layer(x)) - 1e-9 * z.mean(0),
                                            layer=nn.Linear(4, 3)), "first axis"),
    "counts the samples": (lambda: module(lambda self, x: self.layer(x) / len(x), layer=nn.Linear(4, 3)),
                           "the outputs of sample 0 change"),
}  # fmt: skip


@pytest.mark.parametrize("door", ["jacobian", "empirical_ntk", "gradient_gram", "max_sharpness"])
@pytest.mark.parametrize("name", COUPLED)
def test_samples_that_look_at_each_other_are_refused(name: str, door: str) -> None:
    """A recurrence, a mask or a scan over the samples: 25 to 150 % off, in silence."""
    build, words = COUPLED[name]
    with pytest.raises(ValueError, match=rf"^{door}: the outputs of sample \d change.*{words}|{words}"):
        DOORS[door](made(build), X)


# Chance.


class DropsPath(nn.Module):
    """Stochastic depth at a small rate, behind a layer scale of 1e-6: no threshold sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = self.layer(x)
        if not self.training:
            return z
        return z + 1e-6 * z * torch.empty(len(x), 1, dtype=x.dtype).bernoulli_(0.99)


RANDOM: dict[str, Callable[[], nn.Module]] = {
    "stochastic depth": DropsPath,
    "functional dropout": lambda: module(lambda self, x: F.dropout(self.layer(x), 1e-3, training=True),
                                         layer=nn.Linear(4, 3)),
    "noise": lambda: module(lambda self, x: self.layer(x) + 1e-12 * torch.randn(3), layer=nn.Linear(4, 3)),
    "a branch by chance": lambda: module(lambda self, x: self.layer(x) if float(torch.rand(())) < 0.999
                                         else -self.layer(x), layer=nn.Linear(4, 3)),
    "a shuffle": lambda: module(lambda self, x: self.layer(x)[:, torch.randperm(3)] * 0 + self.layer(x),
                                layer=nn.Linear(4, 3)),
    "random slopes": lambda: nn.Sequential(nn.Linear(4, 3), nn.RReLU()),
}  # fmt: skip


@pytest.mark.parametrize("door", ["jacobian", "empirical_ntk", "sample_gradients", "expected_sharpness"])
@pytest.mark.parametrize("name", RANDOM)
def test_chance_is_seen_by_the_calls_made(name: str, door: str) -> None:
    """A threshold that two equal draws pass: 126 of 200 trials for one layer at rate .1."""
    with pytest.raises(ValueError, match=f"^{door}: the model is not deterministic"):
        DOORS[door](made(RANDOM[name]).train(), X)


def test_random_numbers_that_reach_nothing_and_modes_without_chance_pass() -> None:
    """Refusing a model for a call whose result it does not use."""
    idle = made(lambda: module(lambda self, x: (torch.rand(3), self.layer(x))[1], layer=nn.Linear(4, 3)))
    assert_close(measure.jacobian(idle, X).dense(), twin(idle, X))
    assert measure.jacobian(made(DropsPath).eval(), X).shape[0] == 18


# Types and inputs.


INPUTS: dict[str, tuple[Callable[[], nn.Module], Tensor, str]] = {
    "whole numbers": (lambda: dense(4, 6, 3), X.long(), r"fails on samples \(2, 4\) of torch.int64: "),
    "another size": (lambda: dense(4, 6, 3), X[:, :3], r"forward fails on samples \(2, 3\)"),
    "sparse": (lambda: dense(4, 6, 3), X.to_sparse(), r"x is stored as torch.sparse_coo; pass x.to_dense"),
    "no numbers": (lambda: dense(4, 6, 3).to("meta"), X, "the parameters are on 'meta'"),
    "no outputs": (lambda: module(lambda self, x: self.layer(x)[:, :0], layer=nn.Linear(4, 3)), X,
                   r"the model gives \(2, 0\)"),
    "no forward": (lambda: nn.ModuleDict({"layer": nn.Linear(4, 3)}), X, "missing the required"),
}  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("what", INPUTS)
def test_inputs_that_do_not_fit_are_refused_in_one_line(what: str, door: str) -> None:
    """An error from inside torch, which names neither the argument nor the measure."""
    build, x, words = INPUTS[what]
    with pytest.raises(ValueError if door != "error_under_noise" else (ValueError, TypeError)) as caught:
        DOORS[door](build().double(), x)
    line = str(caught.value)
    assert line.startswith(door) and "\n" not in line
    assert re.search(words, line) or door in ("error_under_noise", "three_point")


def test_a_function_takes_one_flat_dictionary_of_tensors() -> None:
    """An AttributeError of a dictionary in the dictionary."""
    with pytest.raises(ValueError, match=r"^jacobian: params\['a'\] is a dict, needs a tensor"):
        measure.jacobian(lambda p, x: x @ p["a"]["w"], X, params={"a": {"w": torch.ones(4, 3)}})


@pytest.mark.parametrize("door", DOORS)
def test_half_precision_is_refused_by_all_with_advice_that_can_be_followed(door: str) -> None:
    """A Jacobian in bfloat16 that svd then refuses to take."""
    model = made(lambda: dense(4, 6, 3))
    for kind in (torch.bfloat16, torch.float16):
        half = copy.deepcopy(model).to(kind)
        with pytest.raises(
            ValueError, match=rf"^{door}: the parameters are {kind}.*deepcopy\(model\)\.float"
        ):
            DOORS[door](half, X.to(kind))
    DOORS[door](copy.deepcopy(half).float(), X.to(kind).float())
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(ValueError, match=f"^{door}: autocast is on.*enabled=False"),
    ):
        DOORS[door](model.float(), X.float())


# Results that are no tensor, and a way out that runs.


class Several(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.layer, self.kind = nn.Linear(4, 3), kind

    def forward(self, x: Tensor) -> Any:
        y = self.layer(x)
        return {"tuple": (y, x), "list": [y], "dict": {"logits": y, "more": x}}[self.kind]


@pytest.mark.parametrize("kind", ["tuple", "list", "dict"])
@pytest.mark.parametrize("door", ["jacobian", "gradient_gram", "max_sharpness", "error_under_noise"])
def test_the_way_out_that_is_printed_runs(door: str, kind: str) -> None:
    """Advice with names that do not exist."""
    model = made(lambda: Several(kind))
    with pytest.raises(ValueError, match=f"^{door}: the model returned {kind}") as caught:
        DOORS[door](model, X)
    code = str(caught.value).partition("wrap it: ")[2]
    function, _, params = code.partition(" with params=")
    given = {"torch": torch, "model": model}
    wrapped = eval(function, given)
    if not params:
        DOORS[door](wrapped, X)
        return
    J = measure.jacobian(wrapped, X, params=eval(params, given))
    assert_close(J.dense(), twin(model.layer, X))
    G = measure.gradient_gram(wrapped, X, Y, params=eval(params, given))
    assert_close(G, measure.gradient_gram(model.layer, X, Y))


CONTEXTS: dict[str, tuple[Callable[[], Any], str]] = {
    "no_grad": (lambda: module(lambda self, x: torch.no_grad()(self.layer)(x), layer=nn.Linear(4, 3)),
                "do not depend on any parameter.*no_grad"),
    "detached": (lambda: module(lambda self, x: self.layer(x).detach(), layer=nn.Linear(4, 3)),
                 "do not depend on any parameter"),
    "reentrant checkpoint": (lambda: module(lambda self, x: checkpoint(self.layer, x, use_reentrant=True),
                                            layer=dense(4, 5, 3)), "use_reentrant=False"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(3)), "'0.weight', '0.bias' are not initialised"),
    "whole numbers": (lambda: module(lambda self, x: self.layer(x).argmax(1), layer=nn.Linear(4, 3)),
                      r"returned \(\d,\) of torch.int64"),
    "a sum": (lambda: module(lambda self, x: self.layer(x).sum(), layer=nn.Linear(4, 3)), r"returned \(\)"),
}  # fmt: skip


@pytest.mark.parametrize("door", ["jacobian", "empirical_ntk", "max_sharpness"])
@pytest.mark.parametrize("name", CONTEXTS)
def test_contexts_without_derivatives_are_refused_in_words(name: str, door: str) -> None:
    """Zeros, or an error from deep inside torch."""
    build, words = CONTEXTS[name]
    with warnings.catch_warnings(), pytest.raises(ValueError, match=f"(?s)^{door}: .*{words}"):
        warnings.simplefilter("ignore")
        DOORS[door](made(build), X)


# What is left alone.


def raises_at(count: int) -> Callable[..., Tensor]:
    calls: list[int] = []

    def forward(self: Any, x: Tensor) -> Tensor:
        calls.append(1)
        self.seen.add_(1)
        x.mul_(2)
        torch.rand(3)
        if len(calls) > count:
            raise ArithmeticError("boom")
        return self.layer(x)

    return forward


@pytest.mark.parametrize("door", DOORS)
def test_nothing_of_the_callers_changes_also_after_an_exception(door: str) -> None:
    """An input doubled, a buffer counted up, a mode forced, random numbers spent; after errors too."""
    for count in (0, 1, 3, 6, 9, 14, 10_000):
        model = made(lambda count=count: module(raises_at(count), layer=nn.Linear(4, 3)))
        model.register_buffer("seen", torch.zeros(()))
        model.layer.weight.grad = torch.ones(3, 4, dtype=torch.float64)
        model.layer.train()
        x = X.clone()
        before = state(model, x)
        try:
            DOORS[door](model, x)
        except (ArithmeticError, ValueError):
            assert count < 10_000
        assert unchanged(before, state(model, x))
        assert torch.equal(model.layer.weight.grad, torch.ones(3, 4, dtype=torch.float64))


# Hooks.


@pytest.mark.parametrize("door", ["jacobian", "empirical_ntk", "sample_gradients", "max_sharpness"])
def test_foreign_hooks_fire_no_more_than_in_a_plain_pass_and_without_a_warning(door: str) -> None:
    """A peer's records filled by passes that are none of its own."""
    model, fired = made(lambda: dense(4, 6, 3)), []
    for layer in model:
        layer.register_forward_hook(lambda m, *_: fired.append("forward"))
        layer.register_forward_pre_hook(lambda m, *_: fired.append("before"))
        layer.register_full_backward_hook(lambda m, *_: fired.append("backward"))
    model[0].weight.register_hook(lambda g: fired.append("gradient"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DOORS[door](model, X)
    assert all(fired.count(kind) <= len(model) for kind in ("forward", "before", "backward"))
    assert "gradient" not in fired
    assert all(layer._forward_hooks and layer._backward_hooks for layer in model)


def test_hooks_that_make_the_function_stay_in_it() -> None:
    """An adapter hung in by a hook, left out of the Jacobian."""
    model = made(lambda: dense(4, 6, 3))
    model[0].register_forward_hook(lambda m, inputs, out: 2 * out)
    assert_close(measure.jacobian(model, X).dense(), twin(model, X))
    assert_close(measure.jacobian(model, X, route="products").gram(), (D := twin(model, X)) @ D.T)


def test_a_model_that_cannot_be_copied_is_refused_with_a_way_that_runs() -> None:
    """A TypeError of pickle's."""
    import threading

    model = made(lambda: module(lambda self, x: self.layer(x), layer=nn.Linear(4, 3), lock=threading.Lock()))
    with pytest.raises(TypeError, match="jacobian: the model cannot be copied") as caught:
        measure.jacobian(model, X)
    found = re.search(r"(lambda params, x: .*\)) with params=(.*)$", str(caught.value))
    assert found
    given = {"torch": torch, "model": model}
    J = measure.jacobian(eval(found[1], given), X, params=eval(found[2], given))
    assert_close(J.dense(), twin(model, X))
