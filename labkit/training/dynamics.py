"""Gradient dynamics of many chains at once: one update for GD, SGD and Langevin dynamics.

    w ← w − η (∇U(w) + minibatch noise) + √(2 η T) ξ,    ξ ~ N(0, I)

With T = 0 and the full gradient this is gradient descent; a gradient of a drawn minibatch makes it SGD; T > 0
adds isotropic noise: Langevin dynamics, or with minibatches what paper 3 calls SGDL (eqs 5-9). For small η
and isotropic noise alone its states are distributed as e^(−U/T); a minibatch's noise is not of that kind.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from labkit.training._arguments import whole, within

Gradient = Callable[[Tensor, int], Tensor]
Noise = torch.Generator | Sequence[torch.Generator]

# Numbers drawn together: one call for many steps, because drawing for few chains is mostly overhead.
BLOCK = 1 << 15


def descend(
    gradient: Gradient,
    start: Tensor,
    *,
    lr: float | Callable[[int], float],
    steps: int,
    temperature: float = 0.0,
    generator: Noise | None = None,
    record: int | Sequence[int] | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Moves all states by w ← w − lr · gradient(w, step) + √(2 · lr · temperature) · ξ.

    Arguments are checked at the call; moving begins with the first `next`. What overflows is not caught here.

    Args:
        gradient: (state, step) -> gradient of the state's shape; whatever is random in it (a minibatch) it
            draws itself. It must not change the state.
        start: the first state, floating, of any shape: (D,), (C, D) for C chains, (S, C, D) for S seeds of
            them. It stays as it is.
        lr: the step size η; or a function step -> η.
        steps: how many updates.
        temperature: T of the noise; 0 draws nothing and needs no generator.
        generator: where ξ comes from; or a list of them, one for each entry of the first axis, so that what
            one seed draws does not depend on how many others run beside it. They are on the state's device
            and are drawn from in blocks, so that at the end they may be ahead of the last step.
        record: yield every so many steps, or at these steps; None: every step. The start and the last step
            are always among them.

    Yields:
        step, state: a copy, in the start's shape and dtype.

    Raises:
        ValueError: an argument is out of its range, or there is noise to draw and no generator.
        TypeError: the start is not a floating tensor, or a generator is not one.
    """
    if not isinstance(start, Tensor) or not start.is_floating_point():
        kind = start.dtype if isinstance(start, Tensor) else type(start).__name__
        raise TypeError(f"start: got {kind}; it takes a floating tensor such as (chains, dimensions)")
    rate = lr if callable(lr) else _constant(within("lr", lr, 0))
    whole("steps", steps, 0)
    within("temperature", temperature, 0, closed=True)
    noise = _noise(_generators(generator, start), start) if temperature else iter(())
    return _moved(gradient, start.detach(), rate, steps, temperature, noise, _recorded(record))


def _moved(
    gradient: Gradient,
    start: Tensor,
    rate: Callable[[int], float],
    steps: int,
    temperature: float,
    noise: Iterator[Tensor],
    recorded: Callable[[int], bool],
) -> Iterator[tuple[int, Tensor]]:
    state = start.clone()
    yield 0, state.clone()
    for step in range(steps):
        eta = rate(step)
        # Not in place: a gradient may keep what it was given.
        state = state.sub(gradient(state, step), alpha=eta)
        if temperature:
            state.add_(next(noise), alpha=math.sqrt(2 * eta * temperature))
        if step + 1 == steps or recorded(step + 1):
            yield step + 1, state.clone()


def _noise(generators: list[torch.Generator], start: Tensor) -> Iterator[Tensor]:
    """Standard normal numbers of the start's shape, again and again; each generator fills its own share."""
    shape = start.shape[1:] if len(generators) > 1 else start.shape
    # Laid out like the states that they are added to; the numbers do not depend on it.
    like = torch.empty_like(start)
    # By the share of one generator: what it draws must not depend on how many others there are.
    block = max(1, BLOCK // max(1, start.numel() // len(generators)))
    while True:
        drawn = [
            torch.randn((block, *shape), generator=one, dtype=start.dtype, device=start.device)
            for one in generators
        ]
        if like.is_contiguous():
            yield from drawn[0] if len(drawn) == 1 else torch.stack(drawn, dim=1)
            continue
        noise = torch.empty_strided(
            (block, *like.shape), (like.numel(), *like.stride()), dtype=like.dtype, device=like.device
        )
        for share, numbers in enumerate(drawn):
            (noise if len(drawn) == 1 else noise[:, share]).copy_(numbers)
        yield from noise


def _constant(value: float) -> Callable[[int], float]:
    return lambda step: value


def _generators(generator: Noise | None, start: Tensor) -> list[torch.Generator]:
    if generator is None:
        raise ValueError(
            "generator: got None with a temperature above 0; it takes a torch.Generator, or one for each "
            "entry of the first axis"
        )
    if isinstance(generator, torch.Generator):
        return [generator]
    found = list(generator)
    if strange := [one for one in found if not isinstance(one, torch.Generator)]:
        raise TypeError(f"generator: got {type(strange[0]).__name__}; it takes torch generators")
    if start.ndim == 0 or len(found) != len(start):
        raise ValueError(
            f"generator: got {len(found)} for a start of shape {tuple(start.shape)}; it takes one, or one "
            "for each entry of the first axis"
        )
    return found


def _recorded(record: int | Sequence[int] | None) -> Callable[[int], bool]:
    if record is None:
        return lambda step: True
    if isinstance(record, Sequence):
        return frozenset(whole("record", step, 0) for step in record).__contains__
    every = whole("record", record)
    return lambda step: step % every == 0


class LangevinNoise:
    """The same noise for the networks that `train` trains: √(2 η T) ξ on every weight of every copy.

    Args:
        temperature: T.
        seeds: one a copy; a copy draws the same numbers beside others as alone.
        led: whether the parameters have a leading axis over copies.
    """

    def __init__(self, temperature: float, seeds: Sequence[int], led: bool) -> None:
        self.temperature, self.led = temperature, led
        # Drawn on the CPU, so that one seed gives one noise on every device.
        self.generators = [_seeded(seed) for seed in seeds]

    def add(self, parameters: Sequence[Tensor], lr: float) -> None:
        """Moves the parameters, in place, by the noise of one step of size `lr`."""
        scale = math.sqrt(2 * lr * self.temperature)
        sizes = [p[0].numel() if self.led else p.numel() for p in parameters]
        drawn = torch.stack([torch.randn(sum(sizes), generator=one) for one in self.generators])
        with torch.no_grad():
            for parameter, part in zip(parameters, drawn.split(sizes, dim=1), strict=True):
                parameter.add_(part.reshape(parameter.shape).to(parameter), alpha=scale)


def _seeded(seed: int) -> torch.Generator:
    # Mixed with its purpose: the order of samples drawn from the same seed must not share these numbers.
    mixed = np.random.SeedSequence([seed, zlib.crc32(b"langevin noise")]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed) >> 1)
