"""Finding the layers to tap: a `Tape` watches one forward pass.

It looks for calls of `linear`, `matmul`, `conv2d` and `batch_norm` that receive a parameter itself (or its
transpose): so it works for modules and functions alike, and knows no architecture. What it cannot know, it
leaves to `structure` to prove.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import get_gradient_edge
from torch.overrides import TorchFunctionMode

from labkit.measure.taps import Conv, Linear, Scale, Tap

__all__ = ["Tape"]

_MATMULS = (torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__)
_HOOKING = (Tensor.register_hook, Tensor.grad_fn.__get__)  # type: ignore[union-attr]


class _Conv2d(torch.autograd.Function):
    """conv2d whose backward pass is a transposed convolution and nothing else.

    torch's own second derivative always computes the weights' part too, which doubles the cost of J v.
    """

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, *how: Any) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.how = input.shape[2:], how
        return F.conv2d(input, weight, bias, *how)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (weight,) = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.how
        # What rounding down of the output's size left over.
        spare = [
            size - ((out - 1) * s - 2 * p + d * (k - 1) + 1)
            for size, out, s, p, d, k in zip(
                ctx.shape, grads[0].shape[-2:], stride, padding, dilation, weight.shape[2:], strict=True
            )
        ]
        g = F.conv_transpose2d(grads[0], weight, None, stride, padding, spare, groups, dilation)
        return g, None, None, None, None, None, None


class Tape(TorchFunctionMode):
    """Records the taps of one forward pass over `n` samples.

    Args:
        params: the tensors to look for, which require grad.
        n: samples; a layer whose input or output has another first axis is no tap.

    Attributes:
        taps: in the order of the pass. hooked: whether something was hung into the graph.
    """

    def __init__(self, params: Mapping[str, Tensor], n: int) -> None:
        super().__init__()
        self.taps: list[Tap] = []
        self.hooked = False
        self._versions: list[int] = []
        self._names = {id(value): name for name, value in params.items()}
        self._n = n

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.conv2d:
            return self._conv(*args, **kwargs)
        self.hooked |= func in _HOOKING
        out = func(*args, **kwargs)
        if func is F.linear:
            return self._linear(out, *args, **kwargs)
        if func is F.batch_norm:
            return self._scale(out, *args, **kwargs)
        if func in _MATMULS and len(args) == 2 and self._is_transposed(args[1]):
            return self._linear(out, args[0], args[1]._base)
        return out

    def _name(self, value: Tensor | None) -> str | None:
        return self._names.get(id(value))

    def _is_transposed(self, w: Tensor) -> bool:
        base = w._base
        return (
            base is not None
            and id(base) in self._names
            and base.ndim == 2
            and w.shape == base.mT.shape
            and w.stride() == base.mT.stride()
        )

    def _record(self, kind: type[Tap], z: Tensor, weight: Any, bias: Any, a: Tensor, **how: Any) -> Tensor:
        names = self._name(weight), self._name(bias)
        if names != (None, None) and a.shape[0] == z.shape[0] == self._n and z.requires_grad:
            self.taps.append(kind(*names, a.detach(), get_gradient_edge(z), z.shape, **how))
            self._versions.append(a._version)
        return z

    def inputs_kept(self) -> bool:
        """Whether nothing has written into the inputs of the taps since."""
        return [tap.a._version for tap in self.taps] == self._versions

    def _linear(self, z: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return self._record(Linear, z, weight, bias, input) if input.ndim >= 2 else z

    def _conv(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        if isinstance(padding, str) or input.ndim != 4:
            return F.conv2d(input, weight, bias, stride, padding, dilation, groups)
        how: tuple[Any, ...] = (_pair(stride), _pair(padding), _pair(dilation), groups)
        run: Callable[..., Tensor] = _Conv2d.apply if input.requires_grad else F.conv2d
        z = run(input, weight, bias, *how)
        return self._record(Conv, z, weight, bias, input, kernel=weight.shape, how=how)

    def _scale(
        self,
        z: Tensor,
        input: Tensor,
        mean: Tensor | None,
        var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if training or mean is None or (weight is None and bias is None):
            return z
        normalised = F.batch_norm(input.detach(), mean, var, None, None, False, 0.0, eps)
        return self._record(Scale, z, weight, bias, normalised)


def _pair(value: Any) -> tuple[int, ...]:
    return (int(value), int(value)) if isinstance(value, int) else tuple(int(v) for v in value)
