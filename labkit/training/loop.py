"""The training loop, as a generator of frames.

One loop serves all labs: one network or an ensemble of them, full-batch gradient descent or minibatches. What
is measured comes in as functions of the ensemble; what a person sees goes out as frames. Between frames the
model holds the weights of the step that the frame names, no graph and no gradient, so the generator may be
closed at any moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from labkit.protocol.experiment import Frame
from labkit.protocol.memory import active
from labkit.training._arguments import refuse_dropout, training_set, whole, within
from labkit.training._run import TrainingRun
from labkit.training.batches import Batches
from labkit.training.dynamics import LangevinNoise
from labkit.training.ensemble import Ensemble
from labkit.training.losses import loss_named
from labkit.training.optimizers import OPTIMIZERS, SGD, Adam, Optimizer
from labkit.training.replay import remembered
from labkit.training.schedules import Schedule, factor_by_step
from labkit.training.stopping import StopRule

Measure = Callable[[Ensemble], Any]
MeasureAt = int | Sequence[int] | Callable[[int], bool] | None


def train(
    model: nn.Module | Ensemble,
    x: Tensor | Sequence[Tensor],
    y: Tensor | Sequence[Tensor],
    *,
    loss: str = "half-sum",
    optimizer: str = "sgd",
    lr: float,
    momentum: float = 0.0,
    temperature: float = 0.0,
    batch_size: int | None = None,
    steps: int | None = None,
    epochs: int | None = None,
    schedule: Schedule = None,
    stop: StopRule | Sequence[StopRule] = (),
    measure: Mapping[str, Measure] | None = None,
    measure_at: MeasureAt = None,
    seed: int | Sequence[int] = 0,
    read_at_end: bool = False,
    tick_seconds: float = 0.2,
) -> Iterator[Frame]:
    """Trains a model in place, a frame at a time.

    Arguments are checked at the call; training begins with the first `next`. Where there is a memory
    (`labkit.protocol.memory`), a training that was done before passes by on its weights, and only what is
    measured is done anew.

    Args:
        model: a module, trained itself, or an `Ensemble` of S copies. It stays on its device and in its mode.
        x: inputs (n, ...) shared by all copies, or a list of S of them.
        y: targets (n, K), or class numbers (n,) for cross-entropy; or a list of S of them.
        loss: "half-sum", "half-mean", "mean" or "cross-entropy": see `labkit.training.losses`.
        optimizer: "sgd" or "adam", as torch has them.
        lr: the base learning rate.
        momentum: of SGD, in [0, 1).
        temperature: T of isotropic Gaussian noise √(2 · lr · T) ξ added to the weights after each step of
            "sgd", with the rate of that step: Langevin dynamics (`labkit.training.dynamics`). Momentum m
            makes it act as a temperature T(1 − m).
        batch_size: samples a step; None, or at least n, takes all of them.
        steps, epochs: how long, at most; one of the two.
        schedule: a function step -> factor on `lr`; or {start: factor}, starts counted in epochs when
            `epochs` is given and in steps otherwise. Factors are on the base rate: {260: 0.1, 360: 0.01}
            divides by 10 twice.
        stop: a rule, or several, any of which ends the training of a copy: see `labkit.training.stopping`.
        measure: name -> function of the ensemble that gives an array (S, ...).
        measure_at: every so many steps; or the steps; or a function of the step. None: about 100 times. The
            first and last steps are always measured.
        seed: fixes the order of the minibatches and the Langevin noise. Copy s takes seed + s, or the s-th of
            a sequence, whatever the other copies do.
        read_at_end: the caller reads the model after the last frame alone, so that a memory need not hold the
            weights of the others.
        tick_seconds: at least one frame in this time, a bare tick if there is nothing new (a single step or
            measurement that takes longer is not interrupted).

    Yields:
        Frames with "loss" (S,), on the batch of that step and before its update, and the measurements. With
        rules, the last one also has "steps" (S,), what each copy took. The last has status "done"; or
        "diverged", when a loss is not finite or 10^6 times its start: then values and weights are those of
        the last measured step before, and the note says which learning rate would have been stable.

    Raises:
        ValueError: an argument is out of its range, or x, y, model and loss do not fit each other.
    """
    ensemble = model if isinstance(model, Ensemble) else Ensemble.sharing(model)
    data, batches, seeds = _data(ensemble, x, y, loss, batch_size, seed)
    unit, total = _length(steps, epochs, batches)
    rules = _rules(stop)
    if clash := {"loss", "steps"} & set(measure or {}):
        raise ValueError(f"measure: {', '.join(sorted(clash))} is a name of the loop's own; take another")
    run = TrainingRun(
        ensemble, batches, loss, _optimizer(ensemble, optimizer, lr, momentum), total,
        factor_by_step(schedule, unit), rules, dict(measure or {}), _due(measure_at, total),
        within("tick_seconds", tick_seconds, 0), _noise(ensemble, optimizer, temperature, seeds), seeds,
    )  # fmt: skip
    memory = active()
    if memory is None:
        return run.frames()
    asked = (
        *data, loss, optimizer, lr, momentum, temperature, batches.batch_size, total, unit, schedule, rules,
        measure_at, seeds,
    )  # fmt: skip
    return remembered(run, asked, memory, every_look=bool(measure) or not read_at_end)


def _data(
    ensemble: Ensemble, x: Tensor | Sequence[Tensor], y: Tensor | Sequence[Tensor], loss: str,
    batch_size: int | None, seed: int | Sequence[int],
) -> tuple[tuple[list[Tensor], list[Tensor]], Batches, list[int]]:  # fmt: skip
    """Inputs and targets as they are trained on, the batches of them, and a seed a copy."""
    loss_named(loss)
    data = training_set(ensemble, x, y, loss)
    refuse_dropout(ensemble)
    if batch_size is not None:
        whole("batch_size", batch_size)
    seeds = _seeds(seed, ensemble.size)
    return data, Batches(*data, ensemble.size, batch_size, seeds), seeds


def _length(steps: int | None, epochs: int | None, batches: Batches) -> tuple[int, int]:
    """Steps in a unit of the schedule, and in all."""
    if (steps is None) == (epochs is None):
        raise ValueError(
            f"steps, epochs: got {steps!r}, {epochs!r}; give one of them, also as the limit of a stop rule"
        )
    unit = 1 if epochs is None else batches.steps_per_epoch
    return unit, whole("steps", steps, 0) if epochs is None else unit * whole("epochs", epochs, 0)


def _rules(stop: StopRule | Sequence[StopRule]) -> tuple[StopRule, ...]:
    rules = (stop,) if hasattr(stop, "reached") else tuple(stop)
    if strange := [rule for rule in rules if not callable(getattr(rule, "reached", None))]:
        raise ValueError(
            f"stop: got {strange[0]!r}; it takes rules such as LossBelow(0.001) or MarginAtLeast(10, 0.99)"
        )
    return rules


def _optimizer(ensemble: Ensemble, name: str, lr: float, momentum: float) -> Optimizer:
    """The optimiser acts on stacked tensors elementwise, so that copies do not mix."""
    params = [p for p in ensemble.parameters() if p.requires_grad]
    if not params:
        raise ValueError("model: no parameter requires a gradient; there is nothing to train")
    lr, momentum = within("lr", lr, 0), within("momentum", momentum, 0, 1, closed=True)
    if name == "sgd":
        return SGD(params, lr, momentum)
    if name != "adam":
        raise ValueError(f"optimizer: {name!r} is not one of {', '.join(OPTIMIZERS)}")
    if momentum:
        raise ValueError(
            f"momentum: got {momentum:g} with optimizer='adam', which has its own; leave it at 0"
        )
    return Adam(params, lr)


def _noise(
    ensemble: Ensemble, optimizer: str, temperature: float, seeds: Sequence[int]
) -> LangevinNoise | None:
    if not within("temperature", temperature, 0, closed=True):
        return None
    if optimizer != "sgd":
        raise ValueError(
            f"temperature: got {temperature:g} with optimizer={optimizer!r}, whose steps have a size "
            "of their own for each weight; Langevin noise goes with 'sgd'"
        )
    return LangevinNoise(temperature, seeds, led=ensemble.route != "single")


def _seeds(seed: int | Sequence[int], size: int) -> list[int]:
    if isinstance(seed, Sequence) and not isinstance(seed, str):
        if len(seed) != size:
            raise ValueError(
                f"seed: got {len(seed)} seeds for {size} copies; it takes one number, or one a copy"
            )
        return [whole("seed", one, 0) for one in seed]
    return [whole("seed", seed, 0) + s for s in range(size)]


def _due(measure_at: MeasureAt, total: int) -> Callable[[int], bool]:
    if callable(measure_at):
        return measure_at
    if measure_at is None:
        measure_at = max(1, total // 100)
    if isinstance(measure_at, Sequence) and not isinstance(measure_at, str):
        steps = frozenset(whole("measure_at", step, 0) for step in measure_at)
        return steps.__contains__
    every = whole("measure_at", measure_at)
    return lambda step: step % every == 0
