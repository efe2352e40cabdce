"""Layers and blocks on sequences (T, d), signals (C, L), images (C, H, W) and tokens (T,)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from . import blocks as b
from .blocks import Block
from .variants import WORDS, Size, Variant


def attention(size: Size, v: Variant) -> nn.Module:
    d = size[1]
    how = v.pick(
        "mha", "encoder", "sdpa", "causal sdpa", "masked sdpa", "mha weights", "decoder", "norm first"
    )
    if how.startswith("mha"):
        return Block(
            lambda s, x: s.attend(x, x, x, need_weights=how == "mha weights")[0],
            attend=nn.MultiheadAttention(d, 2, batch_first=True, add_bias_kv=v.pick(False, True)),
        )
    if how in ("encoder", "norm first"):
        more = {"norm_first": how == "norm first", "activation": v.pick("relu", "gelu")}
        return nn.TransformerEncoderLayer(d, 2, 6, batch_first=True, **more)
    if how == "decoder":
        layer = nn.TransformerDecoderLayer(d, 2, 6, batch_first=True)
        return Block(lambda s, x: s.layer(x, x.flip(1)), layer=layer)
    parts = {"qkv": nn.Linear(d, 3 * d), "out": nn.Linear(d, d)}
    return Block(b.attend, causal=how == "causal sdpa", masked=how == "masked sdpa", **parts)


def recurrent(size: Size, v: Variant) -> nn.Module:
    d = size[1]
    kind, how = v.pick(nn.LSTM, nn.GRU, nn.RNN), v.pick({}, {"bidirectional": True}, {"num_layers": 2})
    if kind is nn.LSTM and v.pick(False, True):
        how = {**how, "proj_size": 2}
    read = kind(d, 4, batch_first=True, **how)
    return Block(v.pick(lambda s, x: s.read(x)[0], b.packed), read=read)


def sequence(size: Size, v: Variant) -> nn.Module:
    T, d = size
    return v.pick(
        lambda: nn.Linear(d, 4), lambda: nn.LayerNorm(d), lambda: nn.RMSNorm(d),
        lambda: Block(lambda s, x: x + s.position, position=torch.randn(T, d)),
        lambda: Block(lambda s, x: torch.cat([s.token.expand(len(x), -1, -1), x], 1),
                      token=torch.randn(1, 1, d)),
        lambda: Block(lambda s, x: s.conv(x.mT).mT, conv=nn.Conv1d(d, 4, 3, padding=1)),
        lambda: Block(b.cells, cell=nn.LSTMCell(d, 4), width=4),
        lambda: Block(b.cells, cell=nn.GRUCell(d, 4), width=4),
        lambda: Block(lambda s, x: s.layer(x.reshape(-1, d)).view(len(x), T, -1), layer=nn.Linear(d, 4)),
        lambda: Block(lambda s, x: s.layer(x.transpose(0, 1)).transpose(0, 1), layer=nn.Linear(d, 4)),
        lambda: Block(lambda s, x: torch.einsum("ntd,dk->ntk", x, s.W), W=torch.randn(d, 4)),
        lambda: Block(lambda s, x: s.mix(x.mT).mT + x, mix=nn.Linear(T, T)),
        lambda: Block(lambda s, x: s.layer(x[:, :2].transpose(0, 1)).transpose(0, 1), layer=nn.Linear(d, 4)),
        lambda: Block(lambda s, x: s.layer(x[:, 0][None])[0][:, None] + x, layer=nn.Linear(d, d)),
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(d, 2, 6, batch_first=True), 2),
    )()  # fmt: skip


def signal(size: Size, v: Variant) -> nn.Module:
    C = size[0]
    if v.pick(False, True):
        return nn.ConvTranspose1d(C, 4, 3, stride=v.pick(1, 2), groups=v.pick(1, 2), padding=1)
    return nn.Conv1d(
        C, 4, v.pick(3, 1), groups=v.pick(1, 2), padding=v.pick(1, "same", 2), dilation=v.pick(1, 2),
        bias=v.pick(True, False), padding_mode=v.pick("zeros", "circular"),
    )  # fmt: skip


def signal_norm(size: Size, v: Variant) -> nn.Module:
    C, L = size
    return v.pick(
        lambda: nn.BatchNorm1d(C), lambda: nn.InstanceNorm1d(C, affine=True), lambda: nn.GroupNorm(2, C),
        lambda: nn.InstanceNorm1d(C, affine=True, track_running_stats=True), lambda: nn.LayerNorm((C, L)),
    )()  # fmt: skip


def signal_pool(size: Size, v: Variant) -> nn.Module:
    return v.pick(
        nn.MaxPool1d(2), nn.AvgPool1d(2), nn.AdaptiveAvgPool1d(3), nn.AdaptiveMaxPool1d(2),
        nn.MaxPool1d(3, 2, 1, ceil_mode=True), nn.AvgPool1d(3, 2, 1, count_include_pad=False),
        nn.LPPool1d(2, 2),
    )  # fmt: skip


def image(size: Size, v: Variant) -> nn.Module:
    C = size[0]
    how = {
        "groups": v.pick(1, 2),
        "stride": v.pick(1, 2),
        "dilation": v.pick(1, 2),
        "bias": v.pick(True, False),
    }
    return nn.Conv2d(C, 4, v.pick(3, (1, 3)), padding=v.pick(2, (1, 2)), **how)


def image_more(size: Size, v: Variant) -> nn.Module:
    C = size[0]
    return v.pick(
        lambda: nn.ConvTranspose2d(C, 4, 3, stride=2, padding=1, output_padding=1),
        lambda: nn.ConvTranspose2d(C, 4, 3, groups=2, dilation=2, padding=2),
        lambda: nn.Conv2d(C, 4, 3, padding="same", padding_mode="reflect"),
        lambda: nn.Conv2d(C, 4, 3, padding="same", dilation=2),
        lambda: nn.Sequential(nn.Conv2d(C, C, 3, padding=1, groups=C), nn.Conv2d(C, 4, 1)),
        lambda: Block(lambda s, x: x + s.conv(x).tanh(), conv=nn.Conv2d(C, C, 3, padding=1)),
        lambda: Block(b.squeeze_excite, down=nn.Linear(C, 2), up=nn.Linear(2, C)),
        lambda: Block(lambda s, x: s.conv(x[:, None])[:, 0], conv=nn.Conv3d(1, 1, 3, padding=1)),
        lambda: nn.Conv2d(C, 4, 3, padding=1).to(memory_format=torch.channels_last),
        lambda: Block(lambda s, x: s.conv(s.conv(x).tanh()), conv=nn.Conv2d(C, C, 3, padding=1)),
        lambda: b.parametrised(nn.Conv2d(C, 4, 3, padding=1), "weight_norm"),
        lambda: b.parametrised(nn.Conv2d(C, 4, 3, padding=1), "spectral_norm"),
        lambda: nn.Sequential(nn.Conv2d(C, 4, 1), nn.PixelShuffle(2), nn.Conv2d(1, 4, 2, stride=2)),
        lambda: nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(C, 4, 3, stride=2)),
        lambda: Block(lambda s, x: F.conv2d(x, s.W, stride=1, padding=1), W=torch.randn(4, C, 3, 3)),
        lambda: Block(lambda s, x: F.conv2d(x, s.W.expand(4, -1, -1, -1)), W=torch.randn(1, C, 2, 2)),
    )()


def image_norm(size: Size, v: Variant) -> nn.Module:
    C = size[0]
    return v.pick(
        lambda: nn.BatchNorm2d(C), lambda: nn.InstanceNorm2d(C, affine=True), lambda: nn.GroupNorm(2, C),
        lambda: nn.LayerNorm(size), lambda: nn.InstanceNorm2d(C, affine=True, track_running_stats=True),
        lambda: nn.LocalResponseNorm(2), lambda: nn.RMSNorm(size), lambda: nn.BatchNorm2d(C, affine=False),
        lambda: nn.GroupNorm(1, C),
    )()  # fmt: skip


def image_pool(size: Size, v: Variant) -> nn.Module:
    return v.pick(
        nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(2), nn.AdaptiveMaxPool2d((2, 1)),
        nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        nn.MaxPool2d(2, 1, dilation=2), nn.LPPool2d(2, 2), nn.AvgPool2d(2, divisor_override=3),
        Block(lambda s, x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2,
                                          output_size=x.shape[2:])),
    )  # fmt: skip


def embedding(size: Size, v: Variant) -> nn.Module:
    return v.pick(
        lambda: nn.Embedding(WORDS, 4), lambda: nn.Embedding(WORDS, 4, padding_idx=0),
        lambda: Block(lambda s, t: s.token(t) + s.place[: t.shape[1]], token=nn.Embedding(WORDS, 4),
                      place=torch.randn(9, 4)),
        lambda: Block(lambda s, t: s.table[t], table=torch.randn(WORDS, 4)),
        lambda: Block(lambda s, t: F.one_hot(t, WORDS).to(s.table.dtype) @ s.table,
                      table=torch.randn(WORDS, 4)),
        lambda: nn.Embedding(WORDS, 4, sparse=True),
    )()  # fmt: skip


def bag(size: Size, v: Variant) -> nn.Module:
    mode = v.pick("mean", "sum", "max")
    return nn.EmbeddingBag(WORDS, 4, mode=mode, padding_idx=v.pick(None, 0))


def odd_embedding(size: Size, v: Variant) -> nn.Module:
    how = v.pick({"max_norm": 0.5}, {"scale_grad_by_freq": True})
    return nn.Embedding(WORDS, 4, **how)


def to_vector(size: Size, v: Variant) -> nn.Module:
    how = v.pick("last", "mean", "flatten", "max", "first")
    return Block(
        {
            "last": lambda s, x: x[:, -1],
            "mean": lambda s, x: x.mean(1),
            "flatten": lambda s, x: x.flatten(1),
            "max": lambda s, x: x.max(1)[0],
            "first": lambda s, x: x[:, 0],
        }[how]
    )
