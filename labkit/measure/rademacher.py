"""How large can a linear network near its start grow on random signs? Thm 5.1's left side, from below.

For signs xi the network f_(W, B)(x) = W_d (.. (W_1 x + b_1) ..) + b_d meets its m inputs only through the
vector v = sum xi_i x_i and the number s = sum xi_i:

    sum_i xi_i f(x_i) = W_d (.. (W_1 v + s b_1) ..) + s b_d.

The climb over ||(W, B) - (Z, 0)||_F <= r takes steps of length 5r along the gradient, each followed by the
projection back to the ball. A gradient is one outer product delta_k h_(k-1)^T a layer, so a displacement is
kept as the outer products that it is a sum of, never as a matrix: a step costs two products with each Z_k for
all draws and restarts at once. From 4r outside or more the projection shrinks what was there to a quarter or
less, so that after 32 steps an outer product has left the sum of doubles.

What comes out is attained by a network of the ball, so it is below the supremum whatever the climb does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

__all__ = ["RademacherEstimate", "Supremum", "ball_sup", "rademacher_lower"]

STEP = 5.0  # times r. From 1 to 10 every factor arrives; short steps are slow, endless ones may cycle
_KEPT = 32  # outer products: 4^-32 is below the rounding of a sum
_PATIENCE = 8  # steps between looks at who has arrived, for which a device is waited for
_ALIGNED = 1e-10  # 1 - cos^2 of the angle between displacement and gradient at which a climb has arrived
_TINY = 1e-300  # keeps 0/0 out where a gradient vanishes


@dataclass(frozen=True)
class RademacherEstimate:
    """A lower estimate of (1/m) E_xi sup sum_i xi_i f(x_i).

    Attributes:
        values: (draws,), the best value found for each draw of signs, divided by m.
        per_restart: (draws, restarts), the same for each climb; their spread tells how far to trust it.
        mean: over draws.
        stderr: of that mean; nan for a single draw.
        steps: that were taken, of those allowed.
    """

    values: Tensor
    per_restart: Tensor
    mean: float
    stderr: float
    steps: int


@dataclass(frozen=True)
class Supremum:
    """The best network found for one v and s.

    Attributes:
        value: W_d (.. (W_1 v + s b_1) ..) + s b_d there.
        weights, biases: W_k (n_k, n_(k-1)) and b_k (n_k,), within r of (Z, 0).
    """

    value: float
    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]


def rademacher_lower(
    Z: Sequence[Tensor],
    x: Tensor,
    r: float,
    *,
    draws: int = 8,
    restarts: int = 2,
    steps: int = 200,
    biases: bool = True,
    seed: int = 0,
) -> RademacherEstimate:
    """Rademacher complexity of the linear networks within r of (Z, 0), estimated from below.

    The signs depend on `seed`, `draws` and m alone, so that networks of different widths meet the same ones.

    Cost: `steps` times two products of each Z_k with draws * restarts vectors; it ends earlier when every
    climb has arrived. Memory: 64 * draws * restarts numbers a unit.

    Args:
        Z: d matrices, Z_k of shape (n_k, n_(k-1)), n_d = 1. Computed with in float64.
        x: (m, n_0), one input a row.
        r: radius of the ball, over all weights and biases together.
        draws: of the signs.
        restarts: climbs a draw, each from its own random point of the sphere of radius r.
        steps: the most steps of a climb.
        biases: whether the ball is one in weights and biases, as in the paper, or in weights alone.
        seed: of the signs and of the starts.

    Returns:
        RademacherEstimate; its values carry the factor 1/m.

    Raises:
        ValueError: shapes that do not chain, more than one output, a negative r, a count below 1.

    Reference: paper 1, Thm 5.1 (whose left side lacks the 1/m).
    """
    layers = _chain(Z)
    inputs = _vectors("x", x, layers, ndim=2)
    for name, value in (("draws", draws), ("restarts", restarts), ("steps", steps)):
        _count(name, value)
    m = len(inputs)
    generator = torch.Generator().manual_seed(seed)
    # Drawn on the CPU: a seed gives the same signs on every device.
    signs = 2.0 * torch.randint(2, (draws, m), generator=generator).to(inputs) - 1
    v = (signs @ inputs).repeat_interleave(restarts, 0)
    s = (signs.sum(1) if biases else torch.zeros_like(signs[:, 0])).repeat_interleave(restarts)
    climb = _Climb(layers, v, s, _radius(r), steps, generator)
    per_restart = climb.run().view(draws, restarts) / m
    values = per_restart.amax(1)
    stderr = float(values.std()) / math.sqrt(draws) if draws > 1 else math.nan
    return RademacherEstimate(values, per_restart, float(values.mean()), stderr, climb.taken)


def ball_sup(
    Z: Sequence[Tensor],
    v: Tensor,
    r: float,
    *,
    s: float = 0.0,
    restarts: int = 2,
    steps: int = 200,
    seed: int = 0,
) -> Supremum:
    """Climbs to the largest W_d (.. (W_1 v + s b_1) ..) + s b_d in the ball, and returns the network there.

    Args:
        Z: d matrices, Z_k of shape (n_k, n_(k-1)), n_d = 1. Computed with in float64.
        v: (n_0,).
        r: radius of the ball, over all weights and biases together.
        s: what multiplies the biases; 0 is a network without them.
        restarts, steps: as for `rademacher_lower`.

    Raises:
        ValueError: shapes that do not chain, more than one output, a negative r, a count below 1.

    Cost: that of `rademacher_lower` with one draw; 192 * restarts numbers a unit, as the best is kept beside.
    """
    layers = _chain(Z)
    vector = _vectors("v", v, layers, ndim=1)
    for name, value in (("restarts", restarts), ("steps", steps)):
        _count(name, value)
    if not math.isfinite(s):
        raise ValueError(f"s: expected a finite number, got {s!r}")
    climb = _Climb(
        layers, vector.repeat(restarts, 1), vector.new_full((restarts,), s), _radius(r), steps,
        torch.Generator().manual_seed(seed), keep=True,
    )  # fmt: skip
    return climb.network(int(climb.run().argmax()))


class _Climb:
    """P climbs side by side; P = draws * restarts is the first axis of every tensor.

    A bias is the weight of one more input that is always s: layer k is the matrix [Z_k, 0] on (h_(k-1), s).
    The displacement of layer k is sum_t c_t delta_t h_t^T over the newest steps t: `left[k]` (P, T, n_k) has
    the delta, `right[k]` (P, T, n_(k-1) + 1) the h; `c` (P, T) is shared by the layers, as a gradient comes
    in all at once.
    """

    def __init__(
        self, Z: list[Tensor], v: Tensor, s: Tensor, r: float, steps: int, generator: torch.Generator,
        keep: bool = False,
    ) -> None:  # fmt: skip
        self.Z = [torch.nn.functional.pad(z, (0, 1)) for z in Z]
        self.v, self.s, self.r, self.steps = v, s[:, None], r, steps
        P, T = len(v), min(steps + 1, _KEPT)
        self.left = [v.new_zeros(P, T, z.shape[0]) for z in self.Z]
        self.right = [v.new_zeros(P, T, z.shape[1]) for z in self.Z]
        self.c, self.taken, self.size2 = v.new_zeros(P, T), 0, v.new_zeros(P)
        self.best = v.new_full((P,), -math.inf)
        self.kept = [torch.zeros_like(part) for part in self._parts()] if keep else []
        # A random point of the sphere, one outer product a layer; without s the biases stay at 0.
        delta = [_normal(P, z.shape[0], generator).to(v) for z in self.Z]
        into = [_normal(P, z.shape[1], generator).to(v) for z in self.Z]
        for part in into:
            part[:, -1:] *= self.s != 0
        self._move(0, delta, into, torch.zeros_like(self.size2))

    def run(self) -> Tensor:
        """(P,), the best value of each climb."""
        while True:
            h, moved = self._forward()
            value = h[-1][:, 0]
            better = value > self.best
            self.best = torch.where(better, value, self.best)
            if self.kept:
                self.kept = [
                    torch.where(better.view(-1, *[1] * (now.dim() - 1)), now, old)
                    for now, old in zip(self._parts(), self.kept, strict=True)
                ]
            if self.taken == self.steps or self.r == 0:
                return self.best
            delta = self._backward()
            # <displacement, gradient>; when it is the product of their lengths no direction leads higher.
            inner = _sum((d * shift).sum(1) for d, shift in zip(delta, moved, strict=True))
            length2 = _length2(delta, h[:-1])
            aligned = inner.clamp(min=0) ** 2 >= (1 - _ALIGNED) * self.size2 * length2
            if self.taken % _PATIENCE == 0 and bool(aligned.all()):
                return self.best
            self.taken += 1
            self._move(self.taken, delta, h[:-1], inner)

    def _forward(self) -> tuple[list[Tensor], list[Tensor]]:
        """(h_0, s), .., (h_(d-1), s) and h_d, and the displacement's part of each h_k."""
        h, moved = [torch.cat([self.v, self.s], 1)], []
        for k, z in enumerate(self.Z):
            moved.append(self._displaced(self.left[k], self.right[k], h[-1]))
            out = h[-1] @ z.T + moved[-1]
            h.append(out if k == len(self.Z) - 1 else torch.cat([out, self.s], 1))
        return h, moved

    def _backward(self) -> list[Tensor]:
        """delta_k = d value / d h_k, each (P, n_k), for k = 1 .. d."""
        delta = [torch.ones_like(self.s)]
        for k in range(len(self.Z) - 1, 0, -1):
            back = delta[-1] @ self.Z[k] + self._displaced(self.right[k], self.left[k], delta[-1])
            delta.append(back[:, :-1])
        return delta[::-1]

    def _displaced(self, out: Tensor, into: Tensor, h: Tensor) -> Tensor:
        """sum_t c_t out_t (into_t . h), (P, n)."""
        t = min(self.taken + 1, self.c.shape[1])
        weights = self.c[:, :t] * torch.bmm(into[:, :t], h[:, :, None])[:, :, 0]
        return torch.bmm(weights[:, None, :], out[:, :t])[:, 0]

    def _move(self, t: int, delta: list[Tensor], h: list[Tensor], inner: Tensor) -> None:
        """A step along (delta_k h_(k-1)^T)_k, which is number t, then back into the ball."""
        length2 = _length2(delta, h)
        step = torch.where(length2 > 0, STEP * self.r * length2.clamp(min=_TINY).rsqrt(), 0.0)
        reached2 = self.size2 + 2 * step * inner + step**2 * length2
        back = (self.r * reached2.clamp(min=_TINY).rsqrt()).clamp(max=1.0)
        place = t % self.c.shape[1]
        for k, (d, before) in enumerate(zip(delta, h, strict=True)):
            self.left[k][:, place], self.right[k][:, place] = d, before
        self.c[:, place] = step
        self.c *= back[:, None]
        self.size2 = reached2 * back**2

    def _parts(self) -> list[Tensor]:
        return [self.c, *self.left, *self.right]

    def network(self, p: int) -> Supremum:
        """The best network of climb p, written out."""
        c, *factors = (part[p] for part in self.kept)
        d = len(self.Z)
        layers = [
            z + (c[:, None] * left).T @ right
            for z, left, right in zip(self.Z, factors[:d], factors[d:], strict=True)
        ]
        return Supremum(
            float(self.best[p]),
            tuple(w[:, :-1].contiguous() for w in layers),
            tuple(w[:, -1].contiguous() for w in layers),
        )


def _sum(parts: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(parts)).sum(0)


def _length2(delta: list[Tensor], h: list[Tensor]) -> Tensor:
    """Squared Frobenius length of (delta_k h_(k-1)^T)_k, (P,)."""
    return _sum((d**2).sum(1) * (before**2).sum(1) for d, before in zip(delta, h, strict=True))


def _normal(P: int, n: int, generator: torch.Generator) -> Tensor:
    # Of length about 1, so that the layers share the first displacement alike; on the CPU, as the signs are.
    return torch.randn(P, n, generator=generator, dtype=torch.float64) / math.sqrt(n)


def _chain(Z: Sequence[Tensor]) -> list[Tensor]:
    layers = list(Z)
    if not layers or not all(isinstance(z, Tensor) and z.dim() == 2 for z in layers):
        raise ValueError("Z: expected a list of matrices Z_k (n_k, n_(k-1)), at least one")
    shapes = [tuple(z.shape) for z in layers]
    if any(after[1] != before[0] for before, after in pairwise(shapes)):
        raise ValueError(f"Z: each matrix must take what the one before gives; got shapes {shapes}")
    if shapes[-1][0] != 1:
        raise ValueError(
            f"Z: Thm 5.1 is about a single output, got {shapes[-1][0]}; pass one row of the last, Z[-1][:1]"
        )
    return [z.detach().to(torch.float64) for z in layers]


def _vectors(name: str, value: Tensor, layers: list[Tensor], ndim: int) -> Tensor:
    inputs = layers[0].shape[1]
    if not isinstance(value, Tensor) or value.dim() != ndim or value.shape[-1] != inputs or not len(value):
        wanted = f"({inputs},)" if ndim == 1 else f"(m, {inputs})"
        found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{name}: expected a tensor of shape {wanted}, as Z[0] takes them; got {found}")
    return value.detach().to(layers[0])


def _radius(r: float) -> float:
    if isinstance(r, bool) or not math.isfinite(r) or r < 0:
        raise ValueError(f"r: expected a finite radius >= 0, got {r!r}")
    return float(r)


def _count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: expected a whole number >= 1, got {value!r}")
