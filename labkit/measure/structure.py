"""Which layers can be tapped; and the taps of a chunk of samples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import Node

from labkit.measure.functional import Network
from labkit.measure.guards import finite
from labkit.measure.samplewise import samplewise
from labkit.measure.tape import Tape
from labkit.measure.taps import Linear, Scale, Tap

__all__ = ["Structure", "Tapped", "proved", "structure"]


class Tapped:
    """One chunk of samples run through the network, with its taps and their graph.

    A backward pass ends at the taps: it computes back-propagations and no weight gradient.

    Args:
        network: the network; `names` restricts the taps to those that own one of these parameters.
        x: (n, ...) samples.
    """

    def __init__(self, network: Network, x: Tensor, names: frozenset[str] | None = None) -> None:
        leaves = network.leaves()
        self._leaves = {name: leaf for name, leaf in leaves.items() if names is None or name in names}
        with torch.enable_grad(), Tape(self._leaves, x.shape[0]) as self._tape:
            self.y = network({**network.params, **self._leaves}, x)
        self.taps = self._tape.taps

    def proved(self, found: Sequence[Tensor | None]) -> bool:
        """Whether taps and what was found for them tell each sample's own derivatives, by the graph alone.

        Each parameter is read once, where it was tapped, or not at all; no derivative crosses samples; what
        the taps hold is as it was; and everything is finite.
        """
        reached = _counted(tap for tap, B in zip(self.taps, found, strict=True) if B is not None)
        uses = _uses(self.y, self._leaves)
        return (
            all(uses[name] == reached[name] <= 1 for name in self._leaves)
            and not self._tape.hooked
            and self._tape.inputs_kept()
            and samplewise(self.y)
            and finite([self.y, *(tap.a for tap in self.taps), *(B for B in found if B is not None)])
        )

    def backward(self, u: Tensor, create_graph: bool = False) -> list[Tensor | None]:
        """d <u, y> / d z for each tap; None where the outputs do not depend on it."""
        if not self.taps or not self.y.requires_grad:
            return [None] * len(self.taps)
        edges = [tap.edge for tap in self.taps]
        with torch.enable_grad():
            return list(
                torch.autograd.grad(
                    self.y, edges, u, retain_graph=True, create_graph=create_graph, allow_unused=True
                )
            )

    def backpropagations(self, batched: bool | None = None) -> list[Tensor | None]:
        """B[i, k] = d f_k(x_i) / d z (n, K, *z) for each tap.

        `batched`: all K outputs in one backward pass. Default: yes, except convolutions on a CPU, where a
        batch is slower than its parts (14 against 9.5 ms a sample on a ResNet20).
        """
        n, K = self.y.shape
        if not self.taps or not self.y.requires_grad:
            return [None] * len(self.taps)
        if batched is None:
            batched = self.y.device.type != "cpu" or all(isinstance(tap, Linear) for tap in self.taps)
        eye = torch.eye(K, dtype=self.y.dtype, device=self.y.device)[:, None].expand(K, n, K)
        if not batched:
            return self._one_output_at_a_time(eye)
        edges = [tap.edge for tap in self.taps]
        try:
            found = torch.autograd.grad(
                self.y, edges, eye, retain_graph=True, allow_unused=True, is_grads_batched=True
            )
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # a custom backward that cannot be batched
            return self._one_output_at_a_time(eye)
        return [None if B is None else B.movedim(0, 1) for B in found]

    def _one_output_at_a_time(self, eye: Tensor) -> list[Tensor | None]:
        return [_stacked(parts) for parts in zip(*(self.backward(e) for e in eye), strict=True)]


def _stacked(parts: tuple[Tensor | None, ...]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.stack(present, dim=1) if present else None


@dataclass(frozen=True)
class Structure:
    """What `structure` found.

    covered: parameters whose columns follow from taps. dense: those of them in plain dense layers (inputs (n,
        d)).
    generic: the others. held: numbers a sample that the dense taps hold (inputs, and K back-propagations).
    flops: of a forward pass of one sample, in the layers that are tapped.
    """

    covered: frozenset[str]
    dense: frozenset[str]
    generic: frozenset[str]
    held: int = 0
    flops: int = 0

    @property
    def route(self) -> str:
        """dense: every parameter in a dense layer; taps: every parameter tapped; else generic."""
        if self.generic:
            return "generic"
        return "taps" if self.covered - self.dense else "dense"


def proved(network: Network, x: Tensor) -> bool:
    """Whether a pass over x proves that taps tell all of it, and each sample's own (see `Tapped`)."""
    try:
        run = Tapped(network, x)
        return run.proved(run.backward(torch.ones_like(run.y)))
    except torch.OutOfMemoryError:
        raise
    except Exception:  # a model that does not bear being watched
        return False


def structure(network: Network, x: Tensor) -> Structure:
    """Find which parameters the taps cover, on the first, the second and the last sample.

    By counting: in the autograd graph a covered parameter is used as often as it was tapped, once; so a
    shared layer, a tied weight or a use outside the tape is seen. What other samples do with the parameters
    is seen when their rows or products are made: each chunk is proved by its graph, or held to an ordinary
    backward pass. Costs one forward pass.
    """
    x = x[sorted({0, min(1, len(x) - 1), len(x) - 1})]
    leaves = network.leaves()
    try:
        with torch.enable_grad(), Tape(leaves, x.shape[0]) as tape:
            y = network(leaves, x)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # a model that does not bear being watched
        return Structure(frozenset(), frozenset(), frozenset(leaves))
    taps, uses = _counted(tape.taps), _uses(y, leaves)
    covered = {name for name in leaves if taps[name] == uses[name] == 1 or uses[name] == 0}
    plain = [tap for tap in tape.taps if isinstance(tap, Linear) and tap.a.ndim == 2]
    plain = [tap for tap in plain if covered & {tap.weight, tap.bias}]
    dense = {name for tap in plain for name in (tap.weight, tap.bias) if name} & covered
    held = sum(tap.a.shape[1] + network.K * math.prod(tap.gives[1:]) for tap in plain)
    products = [(leaves[tap.weight], tap) for tap in tape.taps if tap.weight and not isinstance(tap, Scale)]
    flops = sum(2 * w.numel() * math.prod(tap.gives[1:]) // len(w) for w, tap in products)
    return Structure(frozenset(covered), frozenset(dense), frozenset(leaves.keys() - covered), held, flops)


def _counted(taps: Iterable[Tap]) -> Counter[str]:
    return Counter(name for tap in taps for name in (tap.weight, tap.bias) if name)


def _uses(y: Tensor, leaves: dict[str, Tensor]) -> Counter[str]:
    """How many places of the graph read each parameter."""
    names = {id(value): name for name, value in leaves.items()}
    uses: Counter[str] = Counter()
    seen: set[Node] = set()
    waiting = [y.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for following, _ in node.next_functions:
            variable = getattr(following, "variable", None)
            if variable is not None and id(variable) in names:
                uses[names[id(variable)]] += 1
            waiting.append(following)
    return uses
