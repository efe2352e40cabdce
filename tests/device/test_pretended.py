"""The pretended device itself, and what training, measures and data ask of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from labkit import data, krylov, measure, models, training
from labkit.measure.perturbed import PerturbedCopy
from labkit.protocol.memory import Memory, remembering
from labkit.training import kept
from labkit.training._run import PATIENCE, TrainingRun
from labkit.training.stopping import LossBelow
from tests.device.pretended import NAME, UNAVAILABLE, Log, pretended

pytestmark = [pytest.mark.apart, pytest.mark.skipif(bool(UNAVAILABLE), reason=UNAVAILABLE)]

INPUTS, CLASSES, SAMPLES = 6, 3, 24


@pytest.fixture
def log() -> Iterator[Log]:
    with pretended() as log:
        yield log


def images(device: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES, INPUTS, generator=generator)
    return x.to(device), torch.arange(SAMPLES).remainder(CLASSES).to(device)


def network(device: str, seed: int = 0) -> nn.Module:
    return models.mlp(INPUTS, 8, 2, CLASSES, seed=seed, device=device)


def test_two_devices_do_not_meet(log: Log) -> None:
    there = torch.ones(3, device=NAME)
    with pytest.raises(RuntimeError, match="two devices"):
        there + torch.ones(3)
    assert (there + 1).device.type == NAME == (there * torch.tensor(2.0)).device.type
    with pytest.raises((RuntimeError, TypeError)):
        there.numpy()


def test_waits_and_bytes_are_counted(log: Log) -> None:
    there = torch.ones(3, dtype=torch.float64).to(NAME)
    assert log.to_device.total() == 24 and log.waits.total() == 0
    there.sum().item(), there.cpu(), there.tolist(), there.nonzero()
    assert log.waits.total() == 4 and log.to_host.total() == 24


def test_parameters_move_as_those_of_a_card_do(log: Log) -> None:
    """A copy whose parameters are views of one vector; a module in double precision."""
    net = nn.Linear(2, 1, bias=False).to(NAME)
    vector = torch.zeros(2, device=NAME)
    net.weight.data = vector.view(1, 2)
    vector += 3
    assert net(torch.ones(1, 2, device=NAME)).item() == 6
    assert net.double().weight.dtype == torch.float64
    assert net(torch.ones(1, 2, dtype=torch.float64, device=NAME)).item() == 6


# What a step may ask for: name -> arguments of `train`. No copy reaches the rule.
LOOPS: dict[str, dict[str, Any]] = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "adam": {"optimizer": "adam"},
    "minibatches": {"batch_size": 8},
    "rule": {"stop": LossBelow(1e-9)},
    "langevin": {"temperature": 1e-4},
}


def waits_of_a_step(name: str) -> float:
    """How often a step of training waits for the device, where nobody looks."""
    counts = []
    for steps in (4 * PATIENCE, 12 * PATIENCE):
        with pretended() as log:
            x, y = images(NAME)
            ensemble = training.Ensemble([network(NAME, seed) for seed in range(2)])
            frames = training.train(
                ensemble, x, y, loss="cross-entropy", lr=0.01, steps=steps, measure_at=(steps,),
                tick_seconds=1e6, **LOOPS[name],
            )  # fmt: skip
            for _ in frames:
                pass
        counts.append(log.waits.total())
    return (counts[1] - counts[0]) / (8 * PATIENCE)


@pytest.mark.parametrize("name", LOOPS)
def test_a_step_of_training_hardly_waits(name: str) -> None:
    """A loss, or a rule, that the host asks for at every step."""
    looks = 2 if "stop" in LOOPS[name] else 1  # at the loss, and at who has stopped
    assert waits_of_a_step(name) <= looks / PATIENCE


def test_a_number_asked_for_at_every_step_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget above, which would not notice."""
    forward = TrainingRun._forward

    def asking(run: TrainingRun, *args: Any) -> Any:
        outputs, y, losses = forward(run, *args)
        losses.sum().item()
        return outputs, y, losses

    monkeypatch.setattr(TrainingRun, "_forward", asking)
    assert waits_of_a_step("plain") > 1


# What grows -> a measure, and what more of it may cost in waits. The door of a measure waits a few times.
GROWING: dict[str, tuple[Callable[..., Any], float]] = {
    "steps of lanczos": (lambda net, x, y, n: krylov.lanczos(lambda v: 2 * v + v.roll(1), long(), n), 2 / 16),
    "products of an svd": (  # which goes by what it saw: lengths, coefficients, whether one is not finite
        lambda net, x, y, n: krylov.svd(decaying(), 60, max_products=n, method="lanczos"),
        8,
    ),
    "steps of a density": (
        lambda net, x, y, n: krylov.spectral_density(
            krylov.operator_from(*[lambda V: V + V.roll(1, 0)] * 2, (200, 200), device=NAME),
            probes=2,
            steps=n,
            method="lanczos",
        ),
        3 / 16,
    ),
    "draws of noise on weights": (
        lambda net, x, y, n: measure.expected_sharpness(net, x, y, alphas=(0.1, 0.2), draws=n),
        0,
    ),
    "steps of a climb": (lambda net, x, y, n: measure.max_sharpness(net, x, y, steps=n), 0),
    "draws of noise on inputs": (
        lambda net, x, y, n: measure.error_under_noise(net, x, y, (0.1, 0.2), draws=n),
        0,
    ),
    "draws of noise on a chain": (
        lambda net, x, y, n: measure.linear_perturbation(without_biases(), x, 0.1, draws=n),
        0,
    ),
    "points of a triangle": (
        lambda net, x, y, n: measure.three_point(
            [net, network(NAME, 1), network(NAME, 2)], x, y, resolution=n
        ),
        0,
    ),
    "steps in a ball": (
        lambda net, x, y, n: measure.rademacher_lower([x[:6], x[:1]], x, 5.0, steps=n),
        1 / 8,
    ),
    "minibatches": (lambda net, x, y, n: measure.batch_gram(net, x, y, [[i % 24] for i in range(n)]), 0),
    "layers": (lambda net, x, y, n: measure.empirical_ntk(deep(n), x), 0),
    "looks at a radius": (  # a line search goes by what it saw
        lambda net, x, y, n: measure.flatness_radius(net, x, y, directions=n),
        40,
    ),
}


def long() -> Tensor:
    return torch.randn(200, generator=torch.Generator().manual_seed(0)).to(NAME)


def decaying() -> krylov.Operator:
    scale = (1 / torch.arange(1, 201)).double().to(NAME)[:, None]
    return krylov.operator_from(*[lambda V: scale * V] * 2, (200, 200), dtype=scale.dtype, device=NAME)


def without_biases() -> nn.Module:
    return models.mlp(INPUTS, 8, 2, CLASSES, bias=False, seed=0, device=NAME)


def deep(layers: int) -> nn.Module:
    return models.mlp(INPUTS, 4, layers, CLASSES, seed=0, device=NAME)


def waits_of_one_more(name: str) -> float:
    """How many waits a step, a draw or a layer costs; the door is in both counts."""
    measured, _ = GROWING[name]
    few, many = (2, 10) if name in ("layers", "looks at a radius") else (8, 72)
    counts = []
    for n in (few, many):
        with pretended() as log:
            measured(network(NAME), *images(NAME), n)
        counts.append(log.waits.total())
    return (counts[1] - counts[0]) / (many - few)


@pytest.mark.parametrize("name", GROWING)
def test_a_loop_of_a_measure_hardly_waits(name: str) -> None:
    """A number that the host asks for at every step, draw, minibatch or layer."""
    assert waits_of_one_more(name) <= GROWING[name][1]


def test_a_loss_asked_for_at_every_draw_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget of draws, which would not notice."""
    loss = PerturbedCopy.loss

    def asking(copy: PerturbedCopy) -> Tensor:
        value = loss(copy)
        value.item()
        return value

    monkeypatch.setattr(PerturbedCopy, "loss", asking)
    assert waits_of_one_more("draws of noise on weights") == 2


def test_a_product_that_is_not_finite_is_named_however_late_the_device_is_asked(log: Log) -> None:
    """NaN between two looks, which would come out as eigenvalues."""
    spoilt = krylov.operator_from(
        lambda V: V * torch.where(V > 2, torch.nan, 1.0), lambda U: U / 0.0, (50, 50), device=NAME
    )
    with pytest.raises(ValueError, match="A: rmatmat gave NaN or infinite"):
        krylov.spectral_density(spoilt, probes=1, steps=5, method="lanczos")
    with pytest.raises(ValueError, match="matvec: its product gave NaN"):
        krylov.lanczos(lambda v: v / 0.0, long(), 5)


@pytest.mark.parametrize("level", [0.9, 0.5])
def test_copies_stop_at_the_same_steps_on_every_device(level: float) -> None:
    """A rule that is followed on the device, and heard of later: other steps, other weights."""

    def run(device: str) -> tuple[Any, ...]:
        x, y = images(device)
        ensemble = training.Ensemble([network(device, seed) for seed in range(3)])
        frames = training.train(
            ensemble,
            x,
            y,
            loss="cross-entropy",
            lr=0.1,
            steps=500,
            stop=LossBelow(level),
            measure_at=(7, 100),
        )
        shown = [frame for frame in frames if not frame.is_tick]
        weights = [value.detach().cpu() for value in ensemble.weights().values()]
        return [frame.step for frame in shown], shown[-1].values["steps"], shown[-1].values["loss"], weights

    here = run("cpu")
    with pretended():
        there = run(NAME)
    assert here[0] == there[0] and len(set(here[1])) == 3
    np.testing.assert_array_equal(here[1], there[1])
    np.testing.assert_allclose(here[2], there[2], rtol=1e-5)
    for a, b in zip(here[3], there[3], strict=True):
        torch.testing.assert_close(a, b)


def last(frames: Iterator[Any], count: int | None = None) -> Any:
    """The last of them, or of the first so many; ticks do not count."""
    *_, found = islice((frame for frame in frames if not frame.is_tick), count)
    return found


def test_a_run_that_diverges_says_the_same_on_every_device() -> None:
    """The rate that would be stable, which is looked for where the weights are. (Heard of later.)"""

    def run(device: str) -> Any:
        ensemble = training.Ensemble([network(device, seed) for seed in range(2)])
        return last(training.train(ensemble, *images(device), loss="cross-entropy", lr=1e6, steps=200))

    here = run("cpu")
    with pretended():
        there = run(NAME)
    assert here.status == there.status == "diverged" and here.step <= there.step < here.step + PATIENCE
    assert here.note.partition("lr=")[2] == there.note.partition("lr=")[2]
    np.testing.assert_allclose(there.values["loss"], here.values["loss"], rtol=1e-5)


@pytest.mark.parametrize("name", ["langevin", "momentum and minibatches"])
def test_a_run_goes_on_where_it_stood(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """State that a file gives back where the weights are, and a generator that lives on the host."""

    def put(where: str) -> Callable[[Any], Any]:
        return lambda value: value.to(where) if isinstance(value, Tensor) else value

    save = kept._save  # a pretended tensor cannot be written: it goes by the host
    monkeypatch.setattr(kept, "_save", lambda path, parts: save(path, tree_map(put("cpu"), parts)))
    monkeypatch.setattr(kept, "_load", lambda path, run: tree_map(put(NAME), torch.load(path)))

    def run(folder: Path | None, frames: int | None = None) -> Any:
        ensemble = training.Ensemble([network(NAME, seed) for seed in range(2)])
        how = LOOPS.get(name, {"momentum": 0.9, "batch_size": 8, "seed": 3})
        with remembering(Memory(0, folder, 0.0) if folder else None):
            found = training.train(
                ensemble, *images(NAME), loss="cross-entropy", lr=0.1, steps=30, measure_at=3, **how
            )
            return last(found, frames)

    with pretended():
        whole = run(None)
        run(tmp_path, 4)
        ended = run(tmp_path)
    assert whole.step == ended.step == 30
    np.testing.assert_array_equal(whole.values["loss"], ended.values["loss"])


def test_a_copy_to_the_host_that_is_left_out_is_seen(log: Log) -> None:
    """Where a card would raise, this device must, too."""
    net, (x, _) = network(NAME), images(NAME)
    spectrum = measure.jacobian(net, x).gram()
    with pytest.raises((RuntimeError, TypeError)):
        np.asarray(spectrum.numpy())
    assert krylov.svd(measure.jacobian(net, x), 3).s.cpu().numpy().shape == (3,)


def test_data_are_checked_before_they_are_moved(log: Log) -> None:
    """Labels that a card is asked for, part by part."""
    before = log.waits.total()
    data.load("digits", n_train=50, n_test=20, device=NAME)
    assert log.waits.total() == before
