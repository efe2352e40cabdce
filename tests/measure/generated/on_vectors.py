"""Layers and blocks on samples of shape (d,): dense, gates, branches, ties, odd parameters and contexts."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from . import blocks as b
from .blocks import Block
from .variants import Size, Variant


def activation(size: Size, v: Variant) -> nn.Module:
    return v.pick(
        nn.Tanh, nn.GELU, nn.SiLU, nn.Softplus, nn.ReLU, nn.ELU, nn.Hardswish, nn.Sigmoid, nn.Mish, nn.RReLU,
        nn.SELU, nn.Softsign, nn.LeakyReLU, nn.PReLU, nn.LogSigmoid, nn.Hardsigmoid, nn.Tanhshrink, nn.CELU,
    )()  # fmt: skip


def in_place(size: Size, v: Variant) -> nn.Module:
    how = v.pick("relu", "leaky", "elu", "scale", "shift", "entry", "clamp", "dropout")
    if how in ("relu", "leaky", "elu"):
        return {"relu": nn.ReLU, "leaky": nn.LeakyReLU, "elu": nn.ELU}[how](inplace=True)
    if how == "dropout":
        return nn.Dropout(0.5, inplace=True)

    def run(self: Any, x: Any) -> Any:
        if how == "scale":
            return x.mul_(1.5)
        if how == "shift":
            x += 0.5
        elif how == "clamp":
            x.clamp_(min=-0.5)
        else:
            x[..., 0] = 1.0
        return x

    return Block(run)


def by_hand(size: Size, v: Variant) -> nn.Module:
    """A dense layer in each way that people write one."""
    (d,), m = size, 4
    run = v.pick(
        lambda s, x: x @ s.W,
        lambda s, x: torch.einsum("nd,dk->nk", x, s.W),
        lambda s, x: torch.addmm(s.b, x, s.W),
        lambda s, x: (s.W.T @ x.T).T,
        lambda s, x: F.linear(x, s.W.T, s.b),
        lambda s, x: torch.mm(x, 0.5 * s.W) + s.b,
        lambda s, x: (x[:, :, None] * s.W).sum(1),
        lambda s, x: torch.tensordot(x, s.W, 1) * s.b,
        lambda s, x: torch.baddbmm(s.b[None, None], x[:, None], s.W.expand(len(x), -1, -1))[:, 0],
        lambda s, x: F.conv1d(x[:, :, None], s.W.T[:, :, None], s.b)[:, :, 0],
        lambda s, x: torch.matmul(x[:, None], s.W)[:, 0],
        lambda s, x: F.linear(x, s.W.mT.contiguous()),
    )
    return Block(run, W=torch.randn(d, m), b=torch.randn(m))


def odd_parameter(size: Size, v: Variant) -> nn.Module:
    """Parameters of forms that a fast path may never have met."""
    (d,) = size
    how = v.pick("0-dim", "1", "transposed", "expanded", "empty", "view", "unused", "cast", "rounded")
    if how == "0-dim":
        return Block(lambda s, x: s.scale * x + s.shift, scale=torch.tensor(1.5), shift=torch.tensor(0.1))
    if how == "1":
        return Block(lambda s, x: x / s.temperature, temperature=torch.tensor([1.5]))
    if how == "transposed":
        return Block(lambda s, x: F.linear(x, s.W), W=torch.randn(d, 4).T)
    if how == "expanded":
        return Block(lambda s, x: x * s.gain.expand(len(x), -1), gain=torch.randn(d))
    if how == "empty":
        return Block(lambda s, x: s.layer(x) + s.none.sum(), layer=nn.Linear(d, d), none=torch.randn(0, 3))
    if how == "view":
        return Block(lambda s, x: F.linear(x, s.flat.view(4, d)), flat=torch.randn(4 * d))
    if how == "unused":
        return Block(lambda s, x: s.layer(x), layer=nn.Linear(d, d), aside=nn.Linear(d, 2))
    if how == "rounded":
        return Block(lambda s, x: x @ (s.W + (s.W.round() - s.W).detach()), W=torch.randn(d, 4))
    return Block(lambda s, x: x * s.gain.double().to(x.dtype), gain=torch.randn(d))


def vector_norm(size: Size, v: Variant) -> nn.Module:
    (d,) = size
    return v.pick(
        lambda: nn.BatchNorm1d(d), lambda: nn.LayerNorm(d), lambda: nn.GroupNorm(2, d), lambda: nn.RMSNorm(d),
        lambda: nn.BatchNorm1d(d, affine=False), lambda: nn.LayerNorm(d, bias=False),
        lambda: Block(lambda s, x: F.normalize(x, dim=1) * s.gain, gain=torch.randn(d)),
    )()  # fmt: skip


def shaping(size: Size, v: Variant) -> nn.Module:
    """Operations without parameters that move, choose or mix entries."""
    return Block(
        v.pick(
            lambda s, x: x.flip(1),
            lambda s, x: x.sort(1)[0],
            lambda s, x: x.topk(2, dim=1)[0].repeat(1, 2),
            lambda s, x: torch.fft.irfft(torch.fft.rfft(x, dim=1) * 1j, n=x.shape[1], dim=1),
            lambda s, x: x.cumsum(1),
            lambda s, x: torch.cat([x, x.square()], 1),
            lambda s, x: x.gather(1, x.argsort(1)),
            lambda s, x: x - x.logsumexp(1, keepdim=True),
            lambda s, x: torch.cdist(x[:, None], x.flip(1)[:, None] + 1)[:, :, 0] + x,
            lambda s, x: x.where(x > 0, x.exp()),
            lambda s, x: x.masked_fill(x > 1, 1.0),
            lambda s, x: x.index_select(1, torch.tensor([1, 0, 0, 1])),
            lambda s, x: x.amax(1, keepdim=True) * x,
            lambda s, x: torch.stack([x[:, 0].clamp(-1, 1), x[:, 1].abs()], 1).repeat(1, 2),
            lambda s, x: torch.cumprod(x.sin() + 2, 1),
            lambda s, x: x.scatter_add(1, x.argsort(1), x),
            lambda s, x: torch.linalg.svdvals(x[:, :4].view(-1, 2, 2)).repeat(1, 2),
            lambda s, x: x.median(1, keepdim=True)[0] + x.std(1, keepdim=True) * x,
            lambda s, x: torch.func.vmap(lambda row: row * row.sum())(x),
            lambda s, x: x.unfold(1, 2, 1).mean(2).repeat(1, 2)[:, :4],
            lambda s, x: torch.complex(x, x.cos()).abs(),
            lambda s, x: F.cosine_similarity(x[:, None], x.flip(1)[:, None] + 1, dim=2) + x,
            lambda s, x: torch.linalg.solve(torch.eye(x.shape[1], dtype=x.dtype) + x[:, :, None] * 0.1, x),
        )
    )


def gated(size: Size, v: Variant) -> nn.Module:
    (d,) = size
    return v.pick(
        lambda: nn.Sequential(nn.Linear(d, 2 * d), nn.GLU()),
        lambda: Block(lambda s, x: s.down(F.silu(s.gate(x)) * s.up(x)), gate=nn.Linear(d, 4, False),
                      up=nn.Linear(d, 4, False), down=nn.Linear(4, d, False)),
        lambda: Block(lambda s, x: s.t(x).sigmoid() * s.h(x).tanh() + (1 - s.t(x).sigmoid()) * x,
                      t=nn.Linear(d, d), h=nn.Linear(d, d)),
        lambda: Block(b.soft_mixture, gate=nn.Linear(d, 2), experts=experts(d, d)),
        lambda: Block(lambda s, x: s.bilinear(x, x), bilinear=nn.Bilinear(d, d, 4)),
    )()  # fmt: skip


def experts(d: int, m: int) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(d, m) for _ in range(2))


def branches(size: Size, v: Variant) -> nn.Module:
    (d,) = size
    pair = {"first": nn.Linear(d, d), "second": nn.Linear(d, d)}
    return v.pick(
        lambda: Block(b.routed, experts=experts(d, 4), gate=nn.Linear(d, 2), width=4),
        lambda: Block(b.early_exit, **pair),
        lambda: Block(lambda s, x: torch.where(x[:, :1] > 0, s.first(x), s.second(x)), **pair),
        lambda: Block(b.by_top_gate, experts=experts(d, 4), gate=nn.Linear(d, 2), width=4),
        lambda: Block(b.exit_together, **pair),
        lambda: Block(b.one_at_a_time, **pair),
        lambda: Block(b.sorted_by_value, **pair),
        lambda: Block(b.padded_batch, **pair),
        lambda: Block(lambda s, x: s.first(x) * (x[:, :1] > 0) + s.second(x) * (x[:, :1] <= 0), **pair),
    )()


def ties(size: Size, v: Variant) -> nn.Module:
    (d,) = size
    layer, inner = nn.Linear(d, d), nn.Linear(d, d)
    if v.pick(False, True):
        inner.weight = layer.weight
        return nn.Sequential(layer, nn.Tanh(), inner)
    return v.pick(
        lambda: nn.Sequential(layer, nn.Tanh(), layer),
        lambda: Block(lambda s, x: F.linear(s.layer(x).tanh(), s.layer.weight.T), layer=layer),
        lambda: Block(lambda s, x: x + s.layer(x).tanh(), layer=layer),
        lambda: Block(lambda s, x: s.layer(x) + s.layer(x.flip(1)), layer=layer),
        lambda: Block(lambda s, x: x + s.inner(s.layer(x).tanh()), layer=layer, inner=inner),
        lambda: Block(lambda s, x: s.layer(x) * s.layer.weight.norm(), layer=layer),
        lambda: Block(lambda s, x: s.layer(torch.cat([x, x + 1]))[: len(x)] + x, layer=layer),
        lambda: Block(
            lambda s, x: s.layer(x.repeat_interleave(2, 0)).view(len(x), 2, -1).sum(1), layer=layer
        ),
    )()


def parametrised(size: Size, v: Variant) -> nn.Module:
    how = v.pick(
        "weight_norm", "spectral_norm", "orthogonal", "symmetric", "old weight norm", "old spectral norm"
    )
    return b.parametrised(nn.Linear(size[0], size[0]), how)


def contexts(size: Size, v: Variant) -> nn.Module:
    """Layers in surroundings: recomputed, without grad, behind hooks, with a counter, in eval dropout."""
    (d,) = size
    layer = nn.Linear(d, d)
    return v.pick(
        lambda: Block(b.recomputed(False), inner=nn.Sequential(layer, nn.Tanh())),
        lambda: Block(b.under_no_grad, features=layer, out=nn.Linear(d, d)),
        lambda: b.with_counter(d),
        lambda: nn.Sequential(layer, nn.Dropout(0.5), nn.AlphaDropout(0.5)),
        lambda: b.hooked(layer, "forward"),
        lambda: b.hooked(layer, "before"),
        lambda: b.hooked(layer, "backward"),
        lambda: layer.requires_grad_(False),
        lambda: Block(lambda s, x: s.layer(x.detach()) + x, layer=layer),
        lambda: Block(lambda s, x: s.layer(x).detach() + x, layer=layer),
        lambda: nn.DataParallel(layer),
        lambda: torch.optim.swa_utils.AveragedModel(layer),
        lambda: Block(lambda s, x: s.layer.forward(x), layer=layer),
        lambda: Block(lambda s, x: s.layer(x) + s.layer.bias.detach(), layer=layer),
        lambda: Block(b.force, energy=layer),
        lambda: Block(lambda s, x: torch.func.functional_call(s.layer, {"bias": s.shift}, x), layer=layer,
                      shift=torch.randn(d)),
    )()  # fmt: skip


def coupled(size: Size, v: Variant) -> nn.Module:
    """What a guard must see: samples that look at each other, and chance."""
    d = size[0]
    return v.pick(
        lambda: Block(lambda s, x: x - x.mean(0)),
        lambda: Block(lambda s, x: s.read(x[:, None])[0][:, 0], read=nn.LSTM(d, 4)),
        lambda: Block(lambda s, x: x.cumsum(0)),
        lambda: Block(lambda s, x: x.flip(0).cumsum(0).flip(0)),
        lambda: Block(
            lambda s, x: F.scaled_dot_product_attention(x[None], x[None], x[None], is_causal=True)[0]
        ),
        lambda: nn.BatchNorm1d(d, track_running_stats=False),
        lambda: Block(lambda s, x: F.dropout(x, 0.1, training=True)),
        lambda: Block(lambda s, x: x + 0.1 * torch.randn_like(x)),
        lambda: Block(lambda s, x: x * (1 if torch.rand(()) < 0.9 else 0)),
        lambda: Block(lambda s, x: x - 0.5 * x.roll(1, 0)),
        lambda: Block(lambda s, x: x.softmax(0)),
        lambda: Block(lambda s, x: x if float(x.mean()) > 0 else 2 * x),
        lambda: Block(lambda s, x: torch.cat([x[:3], x[3:] - 0.3 * x[3:].mean(0)])),
    )()
