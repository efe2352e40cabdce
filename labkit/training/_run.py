"""One run of the training loop: its state, and the order of events in a step."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labkit.protocol.experiment import Frame
from labkit.protocol.lengths import ended
from labkit.training._advice import advice
from labkit.training._arguments import evaluating
from labkit.training.batches import Batches
from labkit.training.dynamics import LangevinNoise
from labkit.training.ensemble import Ensemble
from labkit.training.losses import LOSSES, Loss
from labkit.training.optimizers import Optimizer
from labkit.training.stopping import StopRule

# A loss so many times its start counts as diverged.
OVERFLOW = 1e6
# Off the CPU, to ask for the loss or who has stopped is to wait: it is done every so many steps.
PATIENCE = 16
# Rows of one evaluation of the whole training set, over all copies together.
ROWS = 4096
# From this share of stopped copies on, steps leave them out: picking the others costs a little itself.
SPARED = 1 / 4

Frames = Generator[Frame, None, Any]

# What a run knows besides its state: rate, limits, who has stopped and when.
_OWN = (
    "_lr", "_started", "_weights", "_good_step", "_first", "_took", "_kept", "_moving", "_limits", "_least",
)  # fmt: skip


@dataclass
class TrainingRun:
    """Everything is checked by `train`; this only runs it."""

    ensemble: Ensemble
    batches: Batches
    loss: str
    optimizer: Optimizer
    total: int
    factor: Callable[[int], float] | None
    rules: tuple[StopRule, ...]
    measure: Mapping[str, Callable[[Ensemble], Any]]
    due: Callable[[int], bool]
    tick_seconds: float
    noise: LangevinNoise | None = None
    seeds: Sequence[int] = ()
    each_step: Callable[[int], None] | None = None  # called before a step, when all before it are shown
    _from: int = 0
    _good: Mapping[str, np.ndarray] = field(default_factory=dict)
    _good_step: int = 0
    _first: Tensor | None = None  # (S,) the step at which each copy reached a rule, −1: not yet
    _took: dict[int, int] = field(default_factory=dict)  # the same, as far as the host has heard
    _kept: list[Tensor] | None = None
    _moving: Tensor | None = None  # the copies that steps still run for; None: all of them

    def frames(self) -> Frames:
        """Look at the loss, differentiate, show, move: no graph is alive while a frame is out."""
        params = self.optimizer.params
        if not self._from:
            self._lr = self.optimizer.lr
            self._started, self._weights = self.copied(), self.copied()
        self._shown = time.perf_counter()
        for step in count(self._from):
            if self.each_step is not None and step > self._from:
                self.each_step(step)
            if self.rules and not self.batches.full and step % self.batches.steps_per_epoch == 0:
                yield from self._check_all(step)
            look = step == 0 or step == self.total or self._all_stopped or self.due(step)
            outputs, y, losses = self._forward(step, step == self.total or self._all_stopped, look)
            if self.rules and self.batches.full:
                self._check(self._led(outputs), self._led(y), self._led(losses), step, look)
                if self._all_stopped:
                    step = max(self._took.values())
            if step == 0:
                self._set_limits(self._led(outputs), self._led(y), self._led(losses))
            final = step == self.total or self._all_stopped
            due = final or look
            total = losses.sum() if losses.ndim else losses
            if self._exploded(total, losses, step, due):
                del total, outputs
                yield from self._diverged(step, self._led(losses))
                return
            gradients = () if final else torch.autograd.grad(total, params, allow_unused=True)
            losses = losses.detach()
            del total, outputs
            if due:
                values = yield from self._look(step, self._led(losses))
                yield self._frame(step, values, final)
                if final:
                    return
                self._shown = time.perf_counter()
            elif self._late():
                yield Frame.tick(step, step / self.total)
                self._shown = time.perf_counter()
            self._move(step, gradients)
            del gradients

    def _move(self, step: int, gradients: Sequence[Tensor | None]) -> None:
        if self.factor is not None:
            self._lr = self.optimizer.lr * float(self.factor(step))
        self.optimizer.step(gradients, self._lr)
        if self.noise is not None:
            self.noise.add(self.optimizer.params, self._lr)
        self._hold_stopped()

    def _forward(self, step: int, final: bool, look: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs, targets and losses of a step; without their leading axis for a module by itself.

        Where nobody looks, only the copies that have not stopped run; the others' loss is 0 then.
        """
        if self._moving is not None and not look:
            x, y = self.batches.take(step, self._moving)
            with torch.enable_grad():
                outputs = self.ensemble(x, self._moving)
                losses = self.criterion(outputs, y)
                return outputs, y, losses.new_zeros(self.ensemble.size).index_add(0, self._moving, losses)
        x, y = self.batches.take(step)
        forward: nn.Module = self.ensemble
        if self.ensemble.route == "single":
            x, y, forward = x[0], y[0], self.ensemble.stack
        if final:
            # It only looks: running statistics stay those of the steps taken.
            buffers = [buffer.detach() for buffer in self.ensemble.stack.buffers()]
            before = [buffer.clone() for buffer in buffers]
            with torch.no_grad():
                outputs = forward(x)
            copy_into(buffers, before)
        elif torch.is_grad_enabled():
            outputs = forward(x)
        else:
            with torch.enable_grad():
                outputs = forward(x)
                return outputs, y, self.criterion(outputs, y)
        return outputs, y, self.criterion(outputs, y)

    def _led(self, tensor: Tensor) -> Tensor:
        """Without graph, with its leading axis."""
        return tensor.detach().unsqueeze(0) if self.ensemble.route == "single" else tensor.detach()

    def _late(self) -> bool:
        # Half the time allowed, because the next step or measurement takes its own.
        return time.perf_counter() - self._shown > self.tick_seconds / 2

    def _frame(self, step: int, values: dict[str, np.ndarray], final: bool) -> Frame:
        if not final:
            return Frame(step, values, step / self.total)
        note = ""
        if self.rules:
            ended(step, self.total)
            names = " or ".join(str(rule) for rule in self.rules)
            values["steps"] = np.array([self._took.get(s, step) for s in range(self.ensemble.size)])
            missed = self.ensemble.size - len(self._took)
            note = f"{names}: reached after {max(self._took.values(), default=0)} steps"
            if missed:
                who = f" by {missed} of {self.ensemble.size} copies" if self.ensemble.size > 1 else ""
                note = f"{names}: not reached{who} in {step} steps"
        return Frame(step, values, 1.0, "done", note)

    def _look(self, step: int, losses: Tensor) -> Generator[Frame, None, dict[str, np.ndarray]]:
        """Measures, with a tick wherever that takes long."""
        values = {"loss": _array(losses)}
        for name in self.measure:
            values[name] = self._measured(name)
            if self._late():
                yield Frame.tick(step, step / max(self.total, 1))
                self._shown = time.perf_counter()
        self._good, self._good_step = values, step
        copy_into(self._weights, self.state)
        return values

    def _measured(self, name: str) -> np.ndarray:
        value = _array(self.measure[name](self.ensemble))
        if value.shape[:1] != (self.ensemble.size,):
            raise ValueError(
                f"measure: {name!r} gives shape {value.shape}; it takes one row a copy, "
                f"({self.ensemble.size}, ...)"
            )
        return value

    def measured(self) -> dict[str, np.ndarray]:
        """What the measures say of the ensemble as it stands."""
        return {name: self._measured(name) for name in self.measure}

    @property
    def criterion(self) -> Loss:
        return LOSSES[self.loss]

    # Stopping: each copy by itself.

    @property
    def _all_stopped(self) -> bool:
        return len(self._took) == self.ensemble.size

    @property
    def _waits(self) -> bool:
        """Whether a number of the device is had by waiting for it."""
        return self.ensemble.device.type != "cpu"

    def _check(self, outputs: Tensor, y: Tensor, losses: Tensor, step: int, look: bool) -> None:
        """Keeps the weights of copies that reach a rule now; off the CPU the host hears of it later."""
        reached = torch.stack([rule.reached(outputs, y, losses) for rule in self.rules]).any(0)
        if self._first is None:
            self._first = losses.new_full((self.ensemble.size,), -1, dtype=torch.int64)
        if self._moving is not None:
            reached = torch.zeros_like(self._first, dtype=torch.bool).index_copy(0, self._moving, reached)
        new = reached & (self._first < 0)
        if not self._waits and not bool(new.any()):
            return
        self._first = torch.where(new, step, self._first)
        self._kept = self.copied() if self._kept is None else self._kept
        self._copy_where(new, self._kept, self.state)
        if look or not self._waits or step % PATIENCE == 0:
            self._took = {s: first for s, first in enumerate(self._first.tolist()) if first >= 0}
            self._spare_stopped()

    def _copy_where(self, copies: Tensor, to: list[Tensor], source: list[Tensor]) -> None:
        for a, b in zip(to, source, strict=True):
            chosen = copies[0] if self.ensemble.route == "single" else copies.view(-1, *[1] * (a.ndim - 1))
            a.copy_(torch.where(chosen, b, a))

    def _spare_stopped(self) -> None:
        # Full batches would have to be copied, and running statistics be put back where they came from.
        statistics = next(self.ensemble.stack.buffers(), None)
        if self.batches.full or self.ensemble.route == "single" or statistics is not None:
            return
        if SPARED * self.ensemble.size <= len(self._took) < self.ensemble.size:
            left = [s for s in range(self.ensemble.size) if s not in self._took]
            self._moving = torch.tensor(left, device=self.ensemble.device)

    def _check_all(self, step: int) -> Frames:
        copies, outputs, targets = self._moving, [], []
        many = self.ensemble.size if copies is None else len(copies)
        for x, y in self.batches.chunks(max(1, ROWS // many), copies):
            with torch.no_grad(), evaluating(self.ensemble):
                outputs.append(self.ensemble(x, copies))
            targets.append(y)
            if self._late():
                yield Frame.tick(step, step / max(self.total, 1))
                self._shown = time.perf_counter()
        whole, y = torch.cat(outputs, 1), torch.cat(targets, 1)
        self._check(whole, y, self.criterion(whole, y), step, look=True)

    def _hold_stopped(self) -> None:
        if self._first is not None and self._kept is not None:
            self._copy_where(self._first >= 0, self.state, self._kept)

    # Diverging: back to the last good step, with advice.

    def _set_limits(self, outputs: Tensor, y: Tensor, losses: Tensor) -> None:
        # Against the loss of answering 0 as well: a network that starts at its targets may leave them.
        limits = OVERFLOW * torch.maximum(losses, self.criterion(torch.zeros_like(outputs), y))
        limits[~(limits.isfinite() & (limits > 0))] = torch.finfo(limits.dtype).max
        self._limits, self._least = limits, float(limits.min())

    def _exploded(self, total: Tensor, losses: Tensor, step: int, due: bool) -> bool:
        if self._waits and not due and step % PATIENCE:
            return False
        # Losses are not negative, so a sum within the least limit clears every copy at once.
        return not total.item() <= self._least and not bool((self._led(losses) <= self._limits).all())

    def _diverged(self, step: int, losses: Tensor) -> Frames:
        which = (~(losses <= self._limits)).nonzero().flatten().tolist()
        size = self.ensemble.size
        who = (
            ""
            if size == 1
            else f" in {', '.join(f'copy {i} of {size} (seed {self.seeds[i]})' for i in which)}"
        )
        start = f"diverged{who} at step {step}, loss {float(losses[which[0]]):.3g}: "
        copy_into(self.state, self._started)
        try:
            work = advice(self.ensemble, self.batches, self.loss, self.optimizer, self._lr)
            remedy = yield from self._ticking(work, step)
        finally:
            copy_into(self.state, self._weights)
        held = f". Values and weights are those of step {self._good_step}" if self._good else ""
        yield Frame(step, self._good, step / max(self.total, 1), "diverged", start + remedy + held)

    def _ticking(self, work: Generator[None, None, str], step: int) -> Generator[Frame, None, str]:
        while True:
            try:
                next(work)
            except StopIteration as end:
                return end.value
            if self._late():
                yield Frame.tick(step, step / max(self.total, 1))
                self._shown = time.perf_counter()

    # Standing still and going on, in another process.

    def checkpoint(self, step: int) -> dict[str, Any]:
        """All that the steps from this one on depend on, as tensors, numbers, lists and dictionaries."""
        own = {name: getattr(self, name) for name in _OWN}
        return own | {
            "step": step,
            "state": self.state,
            "optimizer": self.optimizer.state,
            "batches": self.batches.checkpoint(),
            "noise": self.noise and [one.get_state() for one in self.noise.generators],
            "good": {name: torch.from_numpy(value) for name, value in self._good.items()},
        }

    def resume(self, saved: Mapping[str, Any]) -> None:
        """Puts the run where it stood at a `checkpoint`."""
        for name in _OWN:
            setattr(self, name, saved[name])
        self._from = saved["step"]
        copy_into(self.state, saved["state"])
        copy_into(self.optimizer.state, saved["optimizer"])
        self.batches.resume(saved["batches"])
        if self.noise is not None:
            for generator, state in zip(self.noise.generators, saved["noise"], strict=True):
                generator.set_state(state.cpu())
        self._good = {name: value.cpu().numpy() for name, value in saved["good"].items()}

    # Weights and running statistics.

    @property
    def state(self) -> list[Tensor]:
        return self._moved + [buffer.detach() for buffer in self.ensemble.stack.buffers()]

    @cached_property
    def _moved(self) -> list[Tensor]:
        """The parameters: views, kept because looking for them costs a small network a tenth of its step."""
        return [parameter.detach() for parameter in self.ensemble.stack.parameters()]

    def copied(self) -> list[Tensor]:
        return [tensor.clone() for tensor in self.state]


def copy_into(to: list[Tensor], source: list[Tensor]) -> None:
    for a, b in zip(to, source, strict=True):
        a.copy_(b)


def _array(value: Any) -> np.ndarray:
    """A NumPy copy that shares nothing with the model."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.dtype is torch.bfloat16 else value).numpy()
    return np.array(value)
