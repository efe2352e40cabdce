"""Sharpness: how much the training loss rises when the weights are moved (paper 2, section 2.4).

| measure | equation | perturbation nu_i of weight w_i |
| --- | --- | --- |
| max_sharpness | (4) | the worst in the box \\|nu_i\\| <= alpha (\\|w_i\\| + 1) |
| expected_sharpness | (7), App. A | N(0, s^2), with the standard deviation s = alpha (10 \\|w_i\\| + 1) |

Neither is a complexity by itself: a node-wise rescaling changes both and leaves the function as it is.
`kl_at_sharpness` reads the KL divergence off at a fixed expected sharpness, as the paper's bi-criteria plots
do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labkit.measure.perturbed import MiB, PerturbedCopy, generator_of
from labkit.measure.perturbed import parameter_vector as parameter_vector
from labkit.measure.witness import numbers

__all__ = [
    "ExpectedSharpness",
    "Sharpness",
    "expected_sharpness",
    "kl_at_sharpness",
    "max_sharpness",
    "parameter_vector",
    "perturbation_scale",
]


@dataclass(frozen=True, eq=False)
class Sharpness:
    """What `max_sharpness` found.

    Attributes:
        value: the largest rise of the loss that was met, L(w + nu) - L(w) >= 0.
        value_relative: value / (1 + L(w)), the form (4) begins with.
        loss: L(w).
        perturbation: nu, by the parameters' names; it lies in the box.
        evaluations: gradients that were computed.
    """

    value: float
    value_relative: float
    loss: float
    perturbation: dict[str, Tensor]
    evaluations: int


@dataclass(frozen=True, eq=False)
class ExpectedSharpness:
    """What `expected_sharpness` found; tensors are float64, on the CPU.

    Attributes:
        alphas: (A,), as given. mean: (A,) average rise of the loss. stderr: (A,) its standard error.
        loss: L(w). values: (A, draws), the rise in every draw; draw r uses one noise for all alphas.
    """

    alphas: Tensor
    mean: Tensor
    stderr: Tensor
    loss: float
    values: Tensor


def perturbation_scale(w: Tensor, alpha: float, relative: float = 10.0) -> Tensor:
    """Standard deviation alpha (relative |w_i| + 1) of the noise on each weight, in the shape of w (App. A).

    With relative = 1 it is the half-width of the box of (4); with relative = 0 all weights have alpha.
    """
    _positive("perturbation_scale", "alpha", alpha)
    _positive("perturbation_scale", "relative", relative, zero=True)
    return alpha * (relative * w.abs() + 1)


@torch.inference_mode(mode=False)
def max_sharpness(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    loss: str = "cross-entropy",
    alpha: float = 5e-4,
    steps: int = 2000,
    batch_size: int | None = None,
    seed: int = 0,
    memory: int = 256 * MiB,
) -> Sharpness:
    """The largest rise of the loss in the box |nu_i| <= alpha (|w_i| + 1), from below (paper 2, (4)).

    Projected ascent in units of the box, by two climbs from nu = 0 that share the steps; the best value met
    is reported. The first steps by the gradient's signs, twice the box at first, so that a corner is reached
    at once (where the loss is convex in the box, such steps never descend), then less and less. The second
    goes along the gradient itself, in small steps that grow, and ends with signs: it finds other maxima,
    which matters when the box is large.

    Against the best of many climbs on 14 trained perceptrons of one to three hidden layers (digits and toys,
    true and random labels), 100 steps reached at least 99 % at alpha = 5e-4, and 97 % on average, 80 % at
    worst, at alpha = .01; 400 steps 99 % everywhere. Plain ascent with learning rate .01, as in the paper,
    stood as low as 85 % of that after 2000 steps.

    Args:
        model: left as it is; the parameters that require grad are moved.
        x: (n, ...). y: class numbers (n,), or targets (n, K) for a squared loss.
        loss: "cross-entropy", "half-sum", "half-mean" or "mean".
        alpha: the size of the box.
        steps: gradients, over both climbs.
        batch_size: samples a gradient, drawn anew each epoch; None takes all of them. With minibatches a
            climb follows the running average of gradients, and the full loss is looked at once an epoch and
            at the end of a climb.
        seed: fixes the minibatches, and where a climb turns at a point whose gradient is exactly 0.
        memory: bytes that activations may take.

    Returns:
        Sharpness. A lower estimate: the true maximum is at least `value`.

    Raises:
        ValueError: an argument is out of its range, or model, x and y do not fit.

    Cost: `steps` forward and backward passes, over x or over a minibatch, and four forward passes over x;
    with minibatches one more an epoch. Memory: activations, and about a dozen vectors (p,).
    """
    caller = "max_sharpness"
    _positive(caller, "alpha", alpha)
    _whole(caller, "steps", steps)
    if batch_size is not None:
        _whole(caller, "batch_size", batch_size)
    net = PerturbedCopy(model, x, y, loss, caller, memory=memory, gradients=True)
    box = perturbation_scale(net.weights, alpha, 1.0)
    with net.undisturbed():
        climb = _Climb(net, box, batch_size, generator_of(seed, caller))
        climb.run(_falling((steps + 1) // 2))
        climb.run(_rising(steps // 2))
    best = {name: part.clone() for name, part in net.split(climb.best).items()}
    rise, start = numbers([climb.rise, climb.start])
    return Sharpness(rise, rise / (1 + start), start, best, steps)


# A climb's plan: for each step, how far it reaches in units of the box, and whether it goes by signs alone.
Plan = list[tuple[float, bool]]


def _falling(steps: int, first: float = 2.0, last: float = 0.01) -> Plan:
    """Steps by signs, from one that reaches a corner from anywhere to ever finer ones."""
    return [(float(reach), True) for reach in np.linspace(first, last, steps)]


def _rising(steps: int, first: float = 0.01, last: float = 0.5) -> Plan:
    """Steps along the gradient that grow, so that directions of much curvature come first; then signs."""
    small = round(0.7 * steps)
    return [(float(reach), False) for reach in np.geomspace(first, last, small)] + _falling(steps - small)


class _Climb:
    """Projected ascent in the box from nu = 0, with the best point met so far."""

    def __init__(
        self, net: PerturbedCopy, box: Tensor, batch_size: int | None, generator: torch.Generator
    ) -> None:
        self._net, self._box, self._generator = net, box, generator
        self._batch = None if batch_size is None or batch_size >= net.n else batch_size
        self.best = torch.zeros_like(box)
        self.start = net.start
        self.rise = torch.zeros_like(self.start)

    def run(self, plan: Plan) -> None:
        nu, order = torch.zeros_like(self._box), self._batches()
        average, aside, least = torch.zeros_like(self._box), self._random_direction(), -self._box
        for step, (reach, signs) in enumerate(plan):
            self._net.place(self._net.weights, nu)
            index, due = next(order)
            value, gradient = self._net.gradient(index)
            if due:
                self._look(nu, value if index is None else self._net.loss())
            # A minibatch's own signs are mostly noise. Full gradients serve better as they are.
            average = gradient if index is None else 0.9 * average + 0.1 * gradient
            # In units of the box; at an exact stationary point any direction serves, another at each step.
            slope = torch.where(average.any(), average * self._box, aside.roll(step))
            slope = slope.sign() if signs else slope / slope.square().mean().sqrt()
            nu = torch.addcmul(nu, self._box, slope, value=reach).clamp_(least, self._box)
        if plan:
            self._net.place(self._net.weights, nu)
            self._look(nu, self._net.loss())

    def _look(self, nu: Tensor, value: Tensor) -> None:
        more = value - self.start > self.rise
        self.rise = torch.where(more, value - self.start, self.rise)
        self.best = torch.where(more, nu, self.best)

    def _random_direction(self) -> Tensor:
        # Of a copy: the minibatches do not depend on it.
        source = torch.Generator().set_state(self._generator.get_state())
        return torch.randn(self._box.shape, generator=source, dtype=self._box.dtype).to(self._box.device)

    def _batches(self) -> Any:
        """Pairs (samples of the next gradient or None for all, whether the full loss is due)."""
        while self._batch is None:
            yield None, True
        while True:
            shuffled = torch.randperm(self._net.n, generator=self._generator)
            for start in range(0, self._net.n, self._batch):
                yield shuffled[start : start + self._batch], start == 0


@torch.inference_mode(mode=False)
def expected_sharpness(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    alphas: Sequence[float] | Tensor,
    draws: int = 1000,
    loss: str = "cross-entropy",
    relative: float = 10.0,
    generator: torch.Generator | int = 0,
    memory: int = 64 * MiB,
) -> ExpectedSharpness:
    """E[L(w + nu)] - L(w) for nu_i ~ N(0, s_i^2), s_i = alpha (relative |w_i| + 1), by averaging (App. A).

    s_i is the *standard deviation*; a public implementation passes s_i^2 in its place. The same noise,
    scaled, serves all alphas, so a curve over alpha is smooth long before a single value is exact.

    Args:
        model: left as it is; the parameters that require grad are moved.
        x: (n, ...), all of which every draw is averaged over (the paper takes a minibatch of 64 a draw).
        y: class numbers (n,), or targets (n, K) for a squared loss.
        alphas: the sizes of the perturbation, positive.
        draws: perturbations; at least 2, for the standard error.
        loss: "cross-entropy", "error" (share of wrong classes), "half-sum", "half-mean" or "mean".
        relative: the paper's 10; 0 gives every weight the same noise.
        generator: a generator, which moves on, or a seed.
        memory: bytes that activations may take; it does not change the noise.

    Returns:
        ExpectedSharpness.

    Raises:
        ValueError: an argument is out of its range, or model, x and y do not fit.

    Cost: A * draws + 2 forward passes over x, one after another. Memory: activations, and six vectors (p,).
    """
    caller = "expected_sharpness"
    sizes = torch.as_tensor(alphas, dtype=torch.float64).flatten().cpu()
    if not len(sizes) or not bool((sizes > 0).all()) or not bool(sizes.isfinite().all()):
        raise ValueError(f"{caller}: alphas is {sizes.tolist()}, needs positive numbers")
    _whole(caller, "draws", draws, least=2)
    source = generator_of(generator, caller)
    net = PerturbedCopy(model, x, y, loss, caller, memory=memory)
    scale = perturbation_scale(net.weights, 1.0, relative)
    start, losses = net.start, []
    for _ in range(draws):
        noise = torch.randn(scale.shape, generator=source, dtype=scale.dtype, device=source.device)
        noise = noise.to(scale.device) * scale
        with net.undisturbed():
            for alpha in sizes.tolist():
                net.place(net.weights, noise, alpha)
                losses.append(net.loss())
    values = (torch.stack(losses).view(draws, -1).T - start).cpu().contiguous()
    stderr = values.std(1) / math.sqrt(draws)
    return ExpectedSharpness(sizes, values.mean(1), stderr, float(start), values)


def kl_at_sharpness(alphas: Any, mean: Any, kl: Any, target: float = 0.05) -> float:
    """The KL divergence at which the expected sharpness is `target` (paper 2, Fig. 2: 0.05).

    Read off where the curve first rises past the target as alpha grows, on a straight line in (log sharpness,
    log KL); where the lower neighbour is not positive, as noise can make it, in (sharpness, log KL).

    Args:
        alphas: (A,) positive. mean: (A,) expected sharpness. kl: (A,) positive.
        target: the sharpness, positive.

    Returns:
        The divergence; nan if the curve does not pass the target.

    Raises:
        ValueError: the lengths differ, or alphas, kl or target are not positive.

    Cost: a sort of A numbers.
    """
    caller = "kl_at_sharpness"
    _positive(caller, "target", target)
    a, s, k = (np.asarray(v, dtype=float) for v in (alphas, mean, kl))
    if a.ndim != 1 or not a.shape == s.shape == k.shape:
        raise ValueError(
            f"{caller}: alphas, mean and kl are {a.shape}, {s.shape}, {k.shape}, need one length"
        )
    if not ((a > 0).all() and (k > 0).all()):
        raise ValueError(f"{caller}: alphas and kl need positive numbers, got {a.tolist()} and {k.tolist()}")
    order = np.argsort(a)
    s, k = s[order], k[order]
    passing = np.flatnonzero((s[:-1] <= target) & (s[1:] >= target) & (s[1:] > s[:-1]))
    if not len(passing):
        return math.nan
    low = int(passing[0])
    ends = (s[low], target, s[low + 1])
    left, at, right = np.log(ends) if s[low] > 0 else ends
    share = (at - left) / (right - left)
    return float(np.exp((1 - share) * np.log(k[low]) + share * np.log(k[low + 1])))


def _positive(caller: str, name: str, value: float, *, zero: bool = False) -> None:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or value < 0 or (value == 0 and not zero):
        raise ValueError(
            f"{caller}: {name} is {value!r}, needs a {'number of at least 0' if zero else 'positive number'}"
        )


def _whole(caller: str, name: str, value: int, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{caller}: {name} is {value!r}, needs a whole number of at least {least}")
