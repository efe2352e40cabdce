"""The frames: when they come, what they carry, and the state between them."""

import gc
import time
from typing import Any

import numpy as np
import pytest
import torch

from labkit.protocol.experiment import series
from labkit.training import Ensemble, train
from tests.training.cases import CASES, data, linear


def test_frames_are_numpy_copies_with_a_seed_axis() -> None:
    """Values that change after they were drawn, or a tensor that keeps its graph alive."""
    x, y = data()
    model = linear()
    frames, kept = [], []
    for frame in train(
        model, x, y, lr=0.01, steps=4, measure_at=1, measure={"w": lambda e: e.weights()["layers.0.weight"]}
    ):
        frames.append(frame)
        kept.append({name: value.copy() for name, value in frame.values.items()})
    for frame, copy in zip(frames, kept, strict=True):
        for name, value in frame.values.items():
            assert type(value) is np.ndarray and value.base is None and len(value) == 1
            assert np.array_equal(value, copy[name])
    assert series(frames, "w")[1].shape == (5, 1, 3, 5)


def test_measurements_see_the_weights_of_their_step_and_may_use_autograd() -> None:
    """A measurement that leaves gradients behind, which the next step would add to its own."""
    x, y = data()

    def careless(ensemble: Ensemble) -> torch.Tensor:
        loss = ensemble(x.unsqueeze(0)).square().sum((1, 2))
        loss.sum().backward()
        return loss

    with_it, without = CASES["relu"].build(0), CASES["relu"].build(0)
    frames = list(train(with_it, x, y, lr=0.01, steps=5, measure_at=1, measure={"size": careless}))
    for step, _ in enumerate(train(without, x, y, lr=0.01, steps=5, measure_at=1)):
        assert frames[step].values["size"][0] == pytest.approx(
            float(without(x).detach().square().sum()), rel=1e-12
        )
    assert all(torch.equal(p, q) for p, q in zip(with_it.parameters(), without.parameters(), strict=True))


@pytest.mark.parametrize(
    ("measure_at", "steps"),
    [
        (4, [0, 4, 8, 10]),
        ([3, 7], [0, 3, 7, 10]),
        (lambda step: step == 6, [0, 6, 10]),
        (None, list(range(11))),
    ],
)
def test_frames_come_at_the_steps_asked_for_and_at_both_ends(measure_at: Any, steps: list[int]) -> None:
    """A curve without its start, or a final frame that comes twice."""
    x, y = data()
    frames = list(train(linear(), x, y, lr=1e-3, steps=10, measure_at=measure_at))
    assert [frame.step for frame in frames] == steps
    assert [frame.status for frame in frames] == ["running"] * (len(steps) - 1) + ["done"]
    assert [frame.progress for frame in frames] == [step / 10 for step in steps]


def test_no_steps_is_one_frame() -> None:
    """A division by zero in the progress."""
    (frame,) = train(linear(), *data(), lr=1e-3, steps=0)
    assert frame.step == 0 and frame.status == "done" and "loss" in frame.values


def test_ticks_come_in_time_also_within_a_measurement_round() -> None:
    """A Stop button that waits for the next measured frame."""
    x, y = data()

    def slow(ensemble: Ensemble) -> np.ndarray:
        time.sleep(0.01)
        return np.zeros(1)

    many = {f"slow {i}": slow for i in range(4)}
    frames = train(linear(), x, y, lr=1e-6, steps=3000, measure_at=1500, measure=many, tick_seconds=0.01)
    ticks = [frame for frame in frames if frame.is_tick]
    assert sum(frame.step == 0 for frame in ticks) >= 3
    assert sum(0 < frame.step < 1500 for frame in ticks) >= 3


@pytest.mark.parametrize("name", ["relu", "resnet"])
def test_closing_mid_run_leaves_a_usable_model_at_the_step_of_the_frame(name: str) -> None:
    """A half-made step, or gradients and graphs that stay behind."""
    x, y = data(CASES[name].shape)
    whole, cut = CASES[name].build(0), CASES[name].build(0)
    list(train(whole, x, y, lr=1e-3, steps=7))
    frames = train(cut, x, y, lr=1e-3, steps=1000, measure_at=1)
    for frame in frames:
        if frame.step == 7:
            break
    frames.close()
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), cut.parameters(), strict=True))
    assert all(p.grad is None for p in cut.parameters()) and bool(cut(x).isfinite().all())


@pytest.mark.slow
def test_no_graph_is_alive_while_a_frame_is_out() -> None:
    """Frames that hold the activations of their step: memory that grows with a kept run."""
    x, y = data()

    def graphs() -> list[torch.Tensor]:
        gc.collect()
        # By type: isinstance would wake lazy attributes of unrelated objects.
        tensors = [o for o in gc.get_objects() if type(o) is torch.Tensor]
        return [tensor for tensor in tensors if tensor.grad_fn is not None]

    before, kept = {id(tensor) for tensor in graphs()}, []
    for frame in train(
        Ensemble([CASES["relu"].build(s) for s in range(2)]), x, y, lr=1e-3, steps=3, measure_at=1
    ):
        kept.append(frame)
        assert not [tensor for tensor in graphs() if id(tensor) not in before]


def test_training_works_where_gradients_are_off() -> None:
    """A panel's worker thread, or a measuring cell, that runs under no_grad."""
    x, y = data()
    on, off = CASES["relu"].build(0), CASES["relu"].build(0)
    list(train(on, x, y, lr=0.01, steps=3))
    with torch.no_grad():
        list(train(off, x, y, lr=0.01, steps=3))
    assert all(torch.equal(p, q) for p, q in zip(on.parameters(), off.parameters(), strict=True))
