"""Inner products of the gradients of single samples and of minibatches, for any model and loss.

Let f_i be the loss of sample i and G[i, j] = <grad f_i, grad f_j>. One forward and one backward pass for all
samples give the inputs h_(k-1) of every layer and delta_k[i] = d f_i / d z_k, and

    G = sum over layers of (delta_k delta_k^T) o (h_(k-1) h_(k-1)^T + 1),    the 1 for a bias,

without any gradient. That is the tangent kernel of a model whose single output is the sample's own loss, so
the routes of `empirical_ntk` serve here: "dense" as above, "taps" for convolutions and fixed batch norm (rows
by patch products, in groups under a memory budget), "generic" by vmap.

Losses are those of one sample, of `measure.losses`; a minibatch has the *mean* of its samples' losses.
"half-sum" is trained as a sum over samples, so its minibatch gradient here is that of training divided by the
minibatch's size.

The slow obvious twin of `gradient_gram` is `batch_gradients` with minibatches of one sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from labkit.measure.functional import Model, Network, Parameters, gradients
from labkit.measure.gram import add_products, kernel, mirror
from labkit.measure.guards import refuse_coupling, refuse_infinite_targets
from labkit.measure.losses import LOSSES, targets
from labkit.measure.price import MiB
from labkit.measure.private import private_copy
from labkit.measure.structure import Structure, Tapped, proved, structure

__all__ = ["Batches", "SampleLoss", "batch_gradients", "batch_gram", "gradient_gram", "losses"]

SampleLoss: TypeAlias = str | Callable[[Tensor, Tensor], Tensor]
Batches: TypeAlias = Tensor | Sequence[Tensor | Sequence[int]]

_TOGETHER = 128  # samples of minibatches that share a pass


class _Losses(Network):
    """The same parameters, with one output: the loss of the sample. Its inputs are the samples' numbers."""

    def __init__(
        self, network: Network, x: Tensor, loss: Callable[[Tensor, Tensor], Tensor], y: Tensor
    ) -> None:
        # Not Network's own constructor: the promises were checked on the outputs. Of a fitted sample's tiny
        # loss, rounding is a large part, and would look like a broken promise.
        self.__dict__.update(network.__dict__)
        self.K = 1
        self._x, self._y, self._loss = x, y, loss

    def _outputs(self, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return self._loss(self._shaped(params, self._x[x]), self._y[x])[:, None]


@torch.inference_mode(mode=False)
def gradient_gram(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    loss: SampleLoss = "cross-entropy",
    params: Parameters = None,
    memory: int = 512 * MiB,
) -> Tensor:
    """G[i, j] = <grad f_i, grad f_j>, f_i the loss of sample i: (n, n).

    A per-sample gradient exists only where a sample's output depends on nothing else. So batch norm must be
    in evaluation mode: its statistics are then constants, and its weight and bias are parameters as any
    other. Batch norm in training mode and active dropout are refused.

    Args:
        model: a module, or a function `f(params, x) -> (n, K)`.
        x: (n, ...) samples.
        y: their targets, class numbers (n,) or floats (n, K), as the loss takes them.
        loss: a name, see `measure.losses`; or a function (outputs (b, K), targets (b, ...)) -> (b,). Outputs
            of other axes, (b,) or (b, T, K), reach it in their own shape.
        params: names of the parameters that count (default: all that require grad); for a function, its
            dictionary.
        memory: bytes for rows that are held at a time where layers are not dense; dense layers hold n (d + m)
            numbers each.

    Returns:
        (n, n), symmetric exactly, in the model's type and on its device.

    Raises:
        ValueError: for batch norm in training mode, active dropout, a random model, or targets or types that
            do not fit.

    Cost: two forward and two backward passes over x, of which one pair is a check; for a dense layer (d, m)
    then n^2 (d + m) flops, for other layers n^2 p and those passes again for each group of them that `memory`
    holds.

    Error to expect: of a cosine 1e-14 in float64; in float32 1e-6, and 1e-5 at depth 100.

    Reference: paper 5, Def. 2.1, whose inner products these are.

    Example:
        >>> G = gradient_gram(model, x, y)
        >>> cosines = G / G.diag().sqrt().outer(G.diag().sqrt())
    """
    if memory <= 0:
        raise ValueError(f"gradient_gram: memory is {memory}, needs a positive number of bytes")
    network, found, numbers = losses(model, x, y, loss, params, "gradient_gram")
    return kernel(network, found, numbers, None, memory).view(x.shape[0], x.shape[0])


def losses(
    model: Model, x: Tensor, y: Tensor, loss: SampleLoss, params: Parameters, caller: str
) -> tuple[Network, Structure, Tensor]:
    """The network whose single output is a sample's own loss, its structure, and its inputs.

    Raises:
        ValueError: as `gradient_gram`.
    """
    network = Network(model, x, params, caller=caller)
    x = x.detach()
    function, y = _loss_and_targets(loss, y, network, x)
    numbers = torch.arange(x.shape[0], device=network.device)
    return _Losses(network, x, function, y), structure(network, x), numbers


@torch.inference_mode(mode=False)
def batch_gradients(
    model: Model,
    x: Tensor,
    y: Tensor,
    batches: Batches,
    *,
    loss: SampleLoss = "cross-entropy",
    params: Parameters = None,
    batch_statistics: bool = True,
) -> Tensor:
    """The gradient of the mean loss of each minibatch: (m, p), one backward pass a row.

    Batch norm takes the statistics of each minibatch, as a step of SGD does, in whichever mode the model is;
    the model's running statistics stay as they are, since all passes are made on a copy. So a row depends on
    its own minibatch alone. With `batch_statistics=False` it takes the running statistics; then a row is the
    mean of its samples' gradients, and minibatches of one sample give per-sample gradients.

    Args:
        model, x, y, loss, params: as in `gradient_gram`.
        batches: (m, B) sample numbers; or m sequences of them, of any sizes.
        batch_statistics: whether batch norm uses the minibatch's statistics.

    Returns:
        (m, p) in the model's type; columns follow `named_parameters()` (those that count). It takes m * p
        numbers; see `batch_gram` where that is too much.

    Raises:
        ValueError: for active dropout, a random model, minibatches that are empty or name no sample, or
            targets or types that do not fit.

    Cost: one forward and one backward pass over each minibatch, of small ones together; as a check two
    forward passes over the samples in use. Memory: m p numbers, the activations of a minibatch or of 128
    samples, and x once more.
    """
    work = _Minibatches(model, x, y, batches, loss, params, batch_statistics, "batch_gradients")
    return work.rows(0, len(work.batches))


@torch.inference_mode(mode=False)
def batch_gram(
    model: Model,
    x: Tensor,
    y: Tensor,
    batches: Batches,
    *,
    loss: SampleLoss = "cross-entropy",
    params: Parameters = None,
    batch_statistics: bool = True,
    memory: int = 512 * MiB,
) -> Tensor:
    """The inner products of minibatch gradients, (m, m): `batch_gradients` and one product.

    Where the m * p numbers do not fit `memory`, rows are made a tile at a time; two tiles are held then, and
    rows are made anew for each pair of tiles.

    Args:
        model, x, y, batches, loss, params, batch_statistics: as `batch_gradients` takes them.
        memory: bytes for the gradients that are held.

    Returns:
        (m, m), symmetric, in the model's type.

    Raises:
        ValueError: as `batch_gradients`, or memory is not positive.

    Cost: `batch_gradients`, and m^2 p flops. Where the m p numbers do not fit, each row is made about 1/2 +
    (their bytes) / memory times.

    Reference: paper 5, Def. 2.1, of minibatches.
    """
    if memory <= 0:
        raise ValueError(f"batch_gram: memory is {memory}, needs a positive number of bytes")
    work = _Minibatches(model, x, y, batches, loss, params, batch_statistics, "batch_gram")
    m, row = len(work.batches), work.p * work.dtype.itemsize
    G = torch.zeros(m, m, dtype=work.dtype, device=work.device)
    side = m if m * row <= memory else max(1, memory // (2 * row))
    for i in range(0, m, side):
        left = work.rows(i, min(i + side, m))
        add_products([left], [left], G[i : i + side, i : i + side])
        for j in range(i + side, m, side):
            add_products([left], [work.rows(j, min(j + side, m))], G[i : i + side, j : j + side])
    mirror(G)
    return G


class _Minibatches:
    """A copy of the model in the mode in which minibatches are to be seen, and their gradients row by row."""

    def __init__(
        self, model: Model, x: Tensor, y: Tensor, batches: Batches, loss: SampleLoss, params: Parameters,
        batch_statistics: bool, caller: str,
    ) -> None:  # fmt: skip
        frozen = private_copy(model)[0] if isinstance(model, nn.Module) else model
        _statistics(frozen, of_batch=False)
        # All of Network's checks are made with fixed statistics; only then are those of the batch let in.
        network = Network(frozen, x, params, caller=caller)
        self._network, self._x = network, x.detach().clone()
        self.p, self.dtype, self.device = network.p, network.dtype, network.device
        self._loss, self._y = _loss_and_targets(loss, y, network, self._x)
        found = _numbers(batches, x.shape[0], caller)
        together = torch.cat(found)
        used = self._x[together.unique().to(network.device)]
        self.batches = together.to(network.device).split([len(batch) for batch in found])
        with torch.no_grad():
            refuse_coupling(lambda part: network(network.params, part), used, caller, model, chunk=256)
            if not proved(network, used[:8]):
                network.refuse_coupled_slopes(used[:8])
        self._together = not (
            _statistics(getattr(network, "copy", None), of_batch=batch_statistics) and batch_statistics
        )

    def rows(self, start: int, stop: int) -> Tensor:
        """The gradients of minibatches start..stop - 1."""
        out = torch.empty(stop - start, self.p, dtype=self.dtype, device=self.device)
        done, batches = 0, self.batches[start:stop]
        while done < len(batches):
            ends = list(accumulate(len(batch) for batch in batches[done:]))
            some = batches[done : done + max(1, sum(end <= _TOGETHER for end in ends))]
            here = out[done : done + len(some)]
            # Once a graph does not prove it, no other pass is tried.
            self._together = self._together and self._write_together(some, here)
            if not self._together:
                self._write_each(some, here)
            done += len(some)
        return out

    def _write_together(self, batches: Sequence[Tensor], out: Tensor) -> bool:
        """Write the gradients by one pass over all of their samples; False, and nothing, without a proof."""
        sizes = [len(batch) for batch in batches]
        shares = torch.cat([out.new_full((size, 1), 1 / size) for size in sizes])
        try:
            run = Tapped(_Losses(self._network, self._x, self._loss, self._y), torch.cat(list(batches)))
            found = run.backward(shares)
            if not run.proved(found):
                return False
        except torch.OutOfMemoryError:
            raise
        except Exception:  # told in plain autograd
            return False
        with torch.no_grad():
            # A row by a row, while it is in the cache.
            for row, end, size in zip(out, accumulate(sizes), sizes, strict=True):
                mine, places = slice(end - size, end), self._network.split(row.zero_())
                for tap, B in zip(run.taps, found, strict=True):
                    if B is not None:
                        replace(tap, a=tap.a[mine]).pullback(B[mine], places)
        return True

    def _write_each(self, batches: Sequence[Tensor], out: Tensor) -> None:
        leaves = self._network.leaves()
        for row, batch in zip(out, batches, strict=True):
            with torch.enable_grad():
                f = self._network.shaped(leaves, self._x[batch])
                value = self._loss(f, self._y[batch]).mean()
            grads = gradients(value, list(leaves.values()), torch.ones_like(value), self._network.caller)
            for place, g in zip(self._network.split(row).values(), grads, strict=True):
                place.copy_(g)


def _statistics(model: Model | None, *, of_batch: bool) -> bool:
    """Give batch norm these statistics; whether there is any."""
    layers = model.modules() if isinstance(model, nn.Module) else ()
    norms = [layer for layer in layers if isinstance(layer, _BatchNorm)]
    for layer in norms:
        layer.train(of_batch)
    return bool(norms)


def _loss_and_targets(
    loss: SampleLoss, y: Tensor, network: Network, x: Tensor
) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor]:
    """The loss as a function of (outputs, targets) -> (b,), and the targets as it takes them, checked."""
    n, caller = x.shape[0], network.caller
    if not isinstance(y, Tensor) or y.ndim == 0 or y.shape[0] != n:
        got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"{caller}: y is {got}, needs a tensor with the targets of the {n} samples of x")
    y = y.detach().clone().to(network.device)
    if callable(loss):
        refuse_infinite_targets(y, caller)
        function = (lambda f, y: loss(f[:, 0], y)) if network.one_number else loss
        some = sorted({0, min(1, n - 1), n - 1})
        _check_function(function, network, x[some], y[some])
        return function, y
    offered = [name for name in LOSSES if name != "error"]
    if loss not in offered:
        raise ValueError(
            f"{caller}: loss is {loss!r}, needs one of {', '.join(offered)}; or a function of outputs (b, K) "
            "and targets (b, ...) that gives (b,)"
        )
    return LOSSES[loss][0], targets(loss, network.shape, n, y, network.dtype, caller)


def _check_function(loss: Callable[[Tensor, Tensor], Tensor], network: Network, x: Tensor, y: Tensor) -> None:
    """A loss of our caller's must be one number a sample, whatever and however many stand beside it."""
    with torch.no_grad():
        several = torch.arange(len(x), device=x.device).repeat(8)
        f, y = network.shaped(network.params, x)[several], y[several]
        together, alone = loss(f, y), [loss(f[i : i + 1], y[i : i + 1]) for i in range(len(y))]
    if not isinstance(together, Tensor) or together.shape != (len(y),):
        got = tuple(together.shape) if isinstance(together, Tensor) else type(together).__name__
        raise ValueError(
            f"{network.caller}: loss gave {got} for {len(y)} samples, needs one number a sample, "
            f"({len(y)},); with torch's functions pass reduction='none', and sum over outputs"
        )
    for one, other in zip(together, alone, strict=True):
        if not torch.allclose(one, other, rtol=1e-3, atol=1e-6 * float(together.abs().max())):
            raise ValueError(
                f"{network.caller}: the loss of a sample is {float(one):.3g} beside others and "
                f"{float(other):.3g} alone; it may depend on nothing but its own outputs and target"
            )


def _numbers(batches: Batches, n: int, caller: str) -> list[Tensor]:
    """The minibatches as tensors of sample numbers, on the CPU."""
    found = []
    for number, batch in enumerate(batches.cpu() if isinstance(batches, Tensor) else batches):
        one = torch.as_tensor(batch, device="cpu")  # where looking at each costs no wait
        whole = one.ndim == 1 and not one.is_floating_point() and one.dtype != torch.bool
        if not whole or not one.numel() or not 0 <= int(one.min()) <= int(one.max()) < n:
            shown = str(one.tolist()) if one.numel() <= 6 else f"{tuple(one.shape)}, {one.dtype}"
            raise ValueError(
                f"{caller}: minibatch {number} is {shown}, needs at least one sample number from 0 to {n - 1}"
            )
        found.append(one.to(torch.int64))
    if not found:
        raise ValueError(f"{caller}: batches is empty, needs at least one minibatch of sample numbers")
    return found
