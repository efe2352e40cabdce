"""Blocks of models that are no single layer of torch: gates, branches, ties, custom gradients."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint


class Block(nn.Module):
    """`run(self, x)` with modules, parameters and plain values as attributes."""

    def __init__(self, run: Callable[[Any, Tensor], Any], **parts: Any) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part) if isinstance(part, Tensor) else part)

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


class NumpySine(torch.autograd.Function):
    """A backward that leaves torch: no graph, no forward mode."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.x = x.detach().double().numpy().copy()
        return torch.from_numpy(np.sin(ctx.x)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return torch.from_numpy(np.cos(ctx.x)).to(grads[0].dtype) * grads[0].detach()


class OnceCube(torch.autograd.Function):
    """A backward that may not be differentiated, and no forward mode."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3 / 3

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return ctx.saved_tensors[0] ** 2 * grads[0]


class GraphCube(torch.autograd.Function):
    """A backward with a graph, and no forward mode."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3 / 3

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return ctx.saved_tensors[0] ** 2 * grads[0]


class NewStyleCube(torch.autograd.Function):
    """The newer form, which torch.func accepts, with a rule for vmap and for forward mode."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x**3 / 3

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.save_for_forward(inputs[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return ctx.saved_tensors[0] ** 2 * grads[0]

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return ctx.saved_tensors[0] ** 2 * tangents[0]


class ClippedBackward(torch.autograd.Function):
    """A gradient that is not the derivative: straight through a sign."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sign()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * (ctx.saved_tensors[0].abs() < 1)


CUSTOM = (GraphCube, OnceCube, NumpySine, NewStyleCube)


def applying(function: type[torch.autograd.Function]) -> Callable[[Any, Tensor], Any]:
    return lambda self, x: function.apply(x)


def routed(self: Any, x: Tensor) -> Tensor:
    """Hard experts by the sign of the first entry, weighted by a gate."""
    flat = x.flatten(1)
    out = x.new_zeros(len(x), self.width)
    for number, expert in enumerate(self.experts):
        mine = (flat[:, 0] > 0) == bool(number)
        if mine.any():
            out[mine] = expert(flat[mine]) * self.gate(flat[mine]).softmax(1)[:, number : number + 1]
    return out


def by_top_gate(self: Any, x: Tensor) -> Tensor:
    """Hard experts by the larger gate, scattered back with index_add."""
    weight, choice = self.gate(x).softmax(1).max(1)
    out = x.new_zeros(len(x), self.width)
    for number, expert in enumerate(self.experts):
        index = (choice == number).nonzero()[:, 0]
        out = out.index_add(0, index, weight[index, None] * expert(x[index]))
    return out


def early_exit(self: Any, x: Tensor) -> Tensor:
    """Samples that are sure after the first layer leave; the others go on."""
    first = self.first(x)
    unsure = first[:, 0].abs() < 0.7
    if not unsure.any():
        return first
    out = first.clone()
    out[unsure] = self.second(first[unsure].tanh())
    return out


def exit_together(self: Any, x: Tensor) -> Tensor:
    """The batch goes on while any of its samples is unsure; those that were sure keep what they had."""
    h = self.first(x)
    for _ in range(3):
        unsure = h[:, :1].abs() < 0.5
        if not unsure.any():
            break
        h = torch.where(unsure, self.second(h.tanh()), h)
    return h


def one_at_a_time(self: Any, x: Tensor) -> Tensor:
    """Python's own `if`, sample by sample."""
    return torch.stack([self.first(s) if float(s.sum()) > 0 else self.second(s) for s in x])


def sorted_by_value(self: Any, x: Tensor) -> Tensor:
    """Samples are brought into another order, as for grouped experts, and back."""
    order = x[:, 0].argsort()
    return self.first(x[order])[order.argsort()]


def padded_batch(self: Any, x: Tensor) -> Tensor:
    """A batch of eight, whatever comes."""
    spare = x.new_zeros(-len(x) % 8, x.shape[1])
    return self.first(torch.cat([spare, x]))[len(spare) :]


def force(self: Any, x: Tensor) -> Tensor:
    """The gradient of an energy by the input, as in models of molecules."""
    with torch.enable_grad():
        x = x.requires_grad_() if x.is_leaf else x
        energy = self.energy(x).tanh().sum()
        (found,) = torch.autograd.grad(energy, x, create_graph=True)
    return found


def clipped(self: Any, x: Tensor) -> Tensor:
    """Weights kept in a box by each call, as in a Wasserstein critic."""
    self.layer.weight.data.clamp_(-0.4, 0.4)
    return self.layer(x)


def reversed_gradient(self: Any, x: Tensor) -> Tensor:
    """Gradient reversal by a hook on a tensor."""
    h = 1.0 * x
    if h.requires_grad:
        h.register_hook(lambda g: -g)
    return h


def packed(self: Any, x: Tensor) -> Tensor:
    """Sequences of lengths that the data tell, packed."""
    lengths = 1 + (x[:, 1:, 0] > 0).sum(1)
    rows = nn.utils.rnn.pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
    out, _ = self.read(rows)
    return nn.utils.rnn.pad_packed_sequence(out, batch_first=True, total_length=x.shape[1])[0]


def soft_mixture(self: Any, x: Tensor) -> Tensor:
    gates = self.gate(x).softmax(1)
    return torch.stack([expert(x) for expert in self.experts], 2).mul(gates[:, None]).sum(2)


def under_no_grad(self: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        fixed = self.features(x)
    return self.out(fixed.tanh()) + fixed


def counted(self: Any, x: Tensor) -> Tensor:
    """A buffer that each call changes, as running statistics do; the outputs do not look at it."""
    self.calls.add_(1)
    return self.layer(x)


def with_counter(width: int) -> nn.Module:
    made = Block(counted, layer=nn.Linear(width, width))
    made.register_buffer("calls", torch.zeros((), dtype=torch.int64))
    return made


def recomputed(reentrant: bool) -> Callable[[Any, Tensor], Any]:
    return lambda self, x: checkpoint(self.inner, x, use_reentrant=reentrant)


def attend(self: Any, x: Tensor) -> Tensor:
    """Bare scaled dot-product attention, two heads; causal, or with padding read off the data."""
    n, T, d = x.shape
    q, k, v = self.qkv(x).view(n, T, 3, 2, d // 2).permute(2, 0, 3, 1, 4)
    mask = None
    if self.masked:
        mask = (x[..., 0] > -0.5)[:, None, None, :].expand(n, 2, T, T) | torch.eye(T, dtype=torch.bool)
    h = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self.causal)
    return self.out(h.transpose(1, 2).reshape(n, T, d))


def cells(self: Any, x: Tensor) -> Tensor:
    """A recurrence by hand, over time."""
    h = x.new_zeros(len(x), self.width)
    c = h
    outs = []
    for step in x.unbind(1):
        if isinstance(self.cell, nn.LSTMCell):
            h, c = self.cell(step, (h, c))
        else:
            h = self.cell(step, h)
        outs.append(h)
    return torch.stack(outs, 1)


class Symmetric(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return w.triu() + w.triu(1).T


def parametrised(layer: nn.Module, how: str) -> nn.Module:
    """A weight that is a function of other parameters."""
    if how == "old weight norm":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch announces the newer form
            return nn.utils.weight_norm(layer)
    if how == "old spectral norm":
        return nn.utils.spectral_norm(layer)
    if how == "symmetric":
        nn.utils.parametrize.register_parametrization(layer, "weight", Symmetric())
        return layer
    return getattr(parametrizations, how)(layer)


def hooked(layer: nn.Module, how: str) -> nn.Module:
    """A layer that somebody has extended by a hook."""
    if how == "forward":
        layer.register_forward_hook(lambda module, inputs, out: 2 * out)
    elif how == "before":
        layer.register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))
    elif how == "backward":
        layer.register_full_backward_hook(lambda module, into, out: None)
    return layer


def squeeze_excite(self: Any, x: Tensor) -> Tensor:
    return x * torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3))), inplace=True)))[:, :, None, None]


def mixed_precision(self: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        h = self.layer(x)
    return h.to(x.dtype)
