"""Models that nobody here has written for: each kind of trouble, right or refused in one line.

The truth is ten lines: one sample at a time, one backward pass an output.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch.nn.utils.prune as prune
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from labkit import measure

from .conftest import assert_close, generator
from .generated.blocks import NumpySine


def twin(model: nn.Module, x: Tensor) -> Tensor:
    """J (n*K, p): sample by sample, output by output, plain autograd."""
    leaves = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for i in range(len(x)):
        for value in model(x[i : i + 1].clone()).reshape(-1):
            found = torch.autograd.grad(
                value, leaves, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            rows.append(torch.cat([g.to_dense().reshape(-1) for g in found]))
    return torch.stack(rows)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def module(forward: Callable[..., Tensor], **parts: Any) -> nn.Module:
    """A module with these parts, whose forward gets it and x."""

    class Made(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, part in parts.items():
                setattr(self, name, part)

        def forward(self, x: Tensor) -> Tensor:
            return forward(self, x)

    return Made()


def dense(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(a, b), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


# Branches by data.


def routed(self: Any, x: Tensor) -> Tensor:
    out = x.new_zeros(len(x), 3)
    for number, expert in enumerate(self.experts):
        mine = (x[:, 0] > 0) == bool(number)
        if mine.any():
            out[mine] = expert(x[mine])
    return out


def early(self: Any, x: Tensor) -> Tensor:
    h = self.first(x).tanh()
    out, hard = self.exit(h), x[:, 0] > 0
    if hard.any():
        out = torch.where(hard[:, None], self.last(self.more(h).tanh()), out)
    return out


def twice(self: Any, x: Tensor) -> Tensor:
    """A layer that some samples pass twice."""
    h = self.layer(x).tanh()
    deep = x[:, 0] > 0
    return self.out(torch.where(deep[:, None], self.layer(h).tanh(), h) if deep.any() else h)


def sorted_first(self: Any, x: Tensor) -> Tensor:
    """Samples in the order of their first input inside, and back outside."""
    order = x[:, 0].argsort()
    return self.out(self.layer(x[order]).tanh()[order.argsort()])


def looped(self: Any, x: Tensor) -> Tensor:
    """As many steps as the sample says, read by Python."""
    rows = []
    for one in x:
        h = one
        for _ in range(1 + int(one[0] > 0) + int(one[0] > 1)):
            h = self.layer(h).tanh()
        rows.append(self.out(h))
    return torch.stack(rows)


# Forward and reverse mode that differ.


class StraightThrough(torch.autograd.Function):
    """Rounds, and hands gradients on where |x| < 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.round()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * (ctx.saved_tensors[0].abs() < 1)


class OnceOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * grads[0]


class Attends(nn.Module):
    """Self-attention over tokens (n, T, 8), by torch's function or its module."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        if how == "function":
            self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 3)
        else:
            self.attend, self.out = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "function":
            q, k, v = (part.unflatten(2, (2, 4)).transpose(1, 2) for part in self.qkv(x).chunk(3, 2))
            h = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        elif self.how == "mask":
            padding = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
            padding[:, -1] = True
            h = self.attend(x, x, x, key_padding_mask=padding, need_weights=False)[0]
        else:
            h = self.attend(x, x, x, need_weights=self.how == "weights")[0]
        return self.out(h.mean(1))


def encoder(**how: Any) -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **how)
    return nn.Sequential(
        nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Flatten(), nn.Linear(40, 3)
    )


# Shapes and contexts.


def checkpointed(self: Any, x: Tensor) -> Tensor:
    return self.out(checkpoint(self.body, x, use_reentrant=False))


def normed(kind: Callable[[nn.Module], nn.Module]) -> nn.Module:
    return nn.Sequential(kind(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3))


def old_weight_norm(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nn.utils.weight_norm(layer)


def counted(self: Any, x: Tensor) -> Tensor:
    self.calls += 1  # in place, in a buffer
    return self.layer(x)


def with_buffer(model: nn.Module, **buffers: Tensor) -> nn.Module:
    for name, value in buffers.items():
        model.register_buffer(name, value)
    return model


SIGNS = numbers(14, 4)
SIGNS[:, 0] = torch.tensor([-1.0] * 2 + [1.5, 0.5] * 5 + [-1.0] * 2)
VECTORS, TOKENS = numbers(7, 4), torch.randint(1, 12, (13, 6), generator=generator(1))
TOKENS[:, 3:] = 0
SEQUENCES = numbers(5, 5, 8)

RIGHT: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "experts": (lambda: module(routed, experts=nn.ModuleList(nn.Linear(4, 3) for _ in range(2))), SIGNS),
    "early exit": (lambda: module(early, first=nn.Linear(4, 5), exit=nn.Linear(5, 3), more=nn.Linear(5, 5),
                                  last=nn.Linear(5, 3)), SIGNS),
    "a layer twice for some": (lambda: module(twice, layer=nn.Linear(4, 4), out=nn.Linear(4, 3)), SIGNS),
    "sorted inside": (lambda: module(sorted_first, layer=nn.Linear(4, 5), out=nn.Linear(5, 3)), SIGNS),
    "loops by data": (lambda: module(looped, layer=nn.Linear(4, 4), out=nn.Linear(4, 2)), SIGNS),
    "branch by Python": (lambda: module(lambda self, x: self.a(x) if bool((x[:, 0] > 0).all()) else
                                        torch.where(x[:, :1] > 0, self.a(x), self.b(x)),
                                        a=nn.Linear(4, 3), b=nn.Linear(4, 3)), SIGNS),
    "padding": (lambda: module(lambda self, x: self.out(self.embed(x).tanh().mean(1)),
                               embed=nn.Embedding(12, 6, padding_idx=0), out=nn.Linear(6, 3)), TOKENS),
    "padded bag": (lambda: nn.Sequential(nn.EmbeddingBag(12, 6, padding_idx=0, mode="sum"), nn.Tanh(),
                                         nn.Linear(6, 3)), TOKENS),
    "sparse embedding": (lambda: module(lambda self, x: self.out(self.embed(x).flatten(1)),
                                        embed=nn.Embedding(12, 3, sparse=True), out=nn.Linear(18, 2)),
                         TOKENS),
    "tokens to logits": (lambda: module(lambda self, x: self.embed(x).tanh() @ self.embed.weight.T,
                                        embed=nn.Embedding(12, 3)), TOKENS[:5]),
    "backward in numpy": (lambda: module(lambda self, x: self.last(NumpySine.apply(self.first(x) * self.a)),
                                         first=nn.Linear(4, 5), a=nn.Parameter(numbers(5)),
                                         last=nn.Linear(5, 3)), numbers(20, 4)),
    "straight through": (lambda: module(lambda self, x: self.last(StraightThrough.apply(self.first(x))),
                                        first=nn.Linear(4, 5), last=nn.Linear(5, 3)), VECTORS),
    "backward once": (lambda: module(lambda self, x: self.last(OnceOnly.apply(self.first(x))),
                                     first=nn.Linear(4, 5), last=nn.Linear(5, 3)), VECTORS),
    "detached in part": (lambda: module(lambda self, x: self.last(self.first(x).tanh().detach())
                                        + self.skip(x), first=nn.Linear(4, 5), last=nn.Linear(5, 3),
                                        skip=nn.Linear(4, 3)), VECTORS),
    "attention function": (lambda: Attends("function"), SEQUENCES),
    "attention module": (lambda: Attends("module"), SEQUENCES),
    "attention weights": (lambda: Attends("weights"), SEQUENCES),
    "attention mask": (lambda: Attends("mask"), SEQUENCES),
    "encoder": (lambda: encoder(), SEQUENCES),
    "encoder, norm first": (lambda: encoder(norm_first=True, activation="gelu"), SEQUENCES),
    "gru": (lambda: module(lambda self, x: self.out(self.read(x)[0][:, -1]),
                           read=nn.GRU(8, 4, batch_first=True, bidirectional=True), out=nn.Linear(8, 2)),
            SEQUENCES),
    "time first, turned": (lambda: module(lambda self, x: self.out(self.read(x.transpose(0, 1))[0][-1]),
                                          read=nn.LSTM(8, 4), out=nn.Linear(4, 2)), SEQUENCES),
    "scalar gain": (lambda: module(lambda self, x: self.gain * self.layer(x), layer=nn.Linear(4, 3),
                                   gain=nn.Parameter(torch.tensor(1.5))), VECTORS),
    "scalars alone": (lambda: module(lambda self, x: self.a * torch.sin(self.b * x),
                                     a=nn.Parameter(torch.tensor(1.5)), b=nn.Parameter(torch.tensor(0.3))),
                      VECTORS),
    "checkpoint": (lambda: module(checkpointed, body=dense(4, 6, 5), out=nn.Linear(5, 3)), VECTORS),
    "data parallel": (lambda: nn.DataParallel(dense(4, 6, 3)), VECTORS),
    "compiled": (lambda: torch.compile(dense(4, 6, 3), backend="eager"), VECTORS),
    "in place": (lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3)), VECTORS),
    "adds in place": (lambda: module(lambda self, x: self.layer(x.add_(1).mul_(2)), layer=nn.Linear(4, 3)),
                      VECTORS),
    "one number": (lambda: module(lambda self, x: self.body(x).squeeze(1), body=dense(4, 6, 1)), VECTORS),
    "sequence out": (lambda: nn.Sequential(nn.Linear(8, 6), nn.LayerNorm(6), nn.Linear(6, 3)), SEQUENCES),
    "weight norm": (lambda: normed(torch.nn.utils.parametrizations.weight_norm), VECTORS),
    "old weight norm": (lambda: normed(old_weight_norm), VECTORS),
    "spectral norm": (lambda: normed(torch.nn.utils.parametrizations.spectral_norm), VECTORS),
    "orthogonal": (lambda: normed(torch.nn.utils.parametrizations.orthogonal), VECTORS),
    "pruned": (lambda: normed(lambda m: prune.l1_unstructured(m, "weight", 0.5)), VECTORS),
    "a counter": (lambda: with_buffer(module(counted, layer=nn.Linear(4, 3)), calls=torch.zeros(())),
                  VECTORS),
    "half of it frozen by no_grad": (lambda: module(
        lambda self, x: self.head(torch.no_grad()(self.body)(x)), body=dense(4, 5), head=nn.Linear(5, 3)),
        VECTORS),
    "causal convolution": (lambda: nn.Sequential(nn.Conv1d(5, 4, 3, padding=2, dilation=2), nn.SiLU(),
                                                 nn.ConvTranspose1d(4, 3, 2), nn.Flatten(1)), SEQUENCES),
    "group norm": (lambda: nn.Sequential(nn.Conv1d(5, 4, 3, groups=1), nn.GroupNorm(2, 4), nn.GELU(),
                                         nn.AdaptiveMaxPool1d(1), nn.Flatten()), SEQUENCES),
    "complex inside": (lambda: module(lambda self, x: torch.fft.rfft(self.layer(x)).abs(),
                                      layer=nn.Linear(4, 5)), VECTORS),
    "bilinear": (lambda: module(lambda self, x: self.layer(x, x.tanh()), layer=nn.Bilinear(4, 4, 3)),
                 VECTORS),
}  # fmt: skip


def made(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            return build().eval()
        finally:
            torch.set_default_dtype(default)


def state(model: nn.Module, x: Tensor) -> list[Any]:
    """What must be the same afterwards, bit for bit."""
    values = [v.detach().clone() for v in (*model.parameters(), *model.buffers(), x, torch.get_rng_state())]
    flags = [(p.requires_grad, p.grad is None) for p in model.parameters()]
    return [*values, *flags, *(m.training for m in model.modules())]


def unchanged(before: list[Any], after: list[Any]) -> bool:
    return len(before) == len(after) and all(
        torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(before, after, strict=True)
    )


@pytest.mark.parametrize("name", RIGHT)
def test_rows_products_and_kernels_are_those_of_one_sample_at_a_time(name: str) -> None:
    """What two samples proved, trusted for all; two operators in one; a crash inside torch."""
    build, x = RIGHT[name]
    model, x = made(build), x.clone()
    D, before = twin(made(build), x), state(model, x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for route in ("auto", "products"):
            J = measure.jacobian(model, x, route=route)
            v, u = numbers(J.p, seed=2), numbers(J.shape[0], seed=3)
            assert_close(J.matmat(v), D @ v)
            assert_close(J.rmatmat(u), D.T @ u)
            assert_close(J.gram(), D @ D.T)
        assert_close(measure.jacobian(model, x).dense(), D)
        m = D.shape[0]
        assert_close(measure.empirical_ntk(model, x).reshape(m, m), D @ D.T)
        assert_close(measure.empirical_ntk(model, x, x[:2]).reshape(m, -1), D @ D[: m // len(x) * 2].T)
        assert unchanged(before, state(model, x))
        assert_close(measure.dense_jacobian(model, x), D)
    assert unchanged(before, state(model, x))


@pytest.mark.parametrize("name", RIGHT)
def test_gradients_of_losses_are_those_of_one_sample_at_a_time(name: str) -> None:
    """The same, for the losses of samples; and sharpness takes what the Jacobian takes."""
    build, x = RIGHT[name]
    model, x = made(build), x.clone()
    D, before = twin(made(build), x), state(model, x)
    f = made(build)(x.clone()).detach()
    y = torch.zeros_like(f)
    rows = torch.einsum(
        "nkp,nk->np", D.unflatten(0, (len(x), -1)), f.flatten(1) if f.ndim > 1 else f[:, None]
    )
    assert_close(measure.sample_gradients(model, x, y, loss="half-mean"), rows)
    assert_close(measure.gradient_gram(model, x, y, loss="half-mean"), rows @ rows.T)
    assert_close(
        measure.batch_gradients(model, x, y, [[0, 1, 3]], loss="half-mean")[0], rows[[0, 1, 3]].mean(0)
    )
    found = measure.max_sharpness(model, x, y, loss="half-mean", steps=4)
    assert math.isfinite(found.value)
    assert_close(torch.tensor(found.loss, dtype=torch.float64), f.square().sum() / 2 / len(x))
    assert unchanged(before, state(model, x))
