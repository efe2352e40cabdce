"""The papers' own network in lab 4: every Jacobian of Tables 1 to 18, with the lengths of appendix C."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from labkit.labs import load_lab
from labkit.labs.jacobian import alignment_training
from labkit.protocol.experiment import Frame, drain
from labkit.protocol.memory import Memory, remembering
from tests.labs.checks import equal, values

LAB = load_lab("jacobian")


def tiny(folder: Path, preset: str, **changes: Any) -> Any:
    """A preset of `alignment` on a handful of images of its shape, for some steps."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8), np.arange(40) % 3
    path = folder / "tiny.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=images[:12], y_test=labels[:12])
    small = {"n": 12, "n_test": 12, "classes": 3, "width": 2, "steps": 16, "rank": 5, "batch_size": 5,
             "seeds": 2}  # fmt: skip
    return LAB.experiment("alignment").preset(preset, dataset=str(path), **small | changes)


@pytest.mark.parametrize("preset", ["paper", "three-classes"])
def test_the_papers_network_runs_too(preset: str, tmp_path: Path) -> None:
    """A preset that nobody could run: its path, on a handful of images and a few steps."""
    run = drain(LAB.experiment("alignment"), tiny(tmp_path, preset))
    assert run.status == "done"
    tables = ("initial", "dip", "final", "test_initial", "test_dip", "test_final")
    assert all(run.last(name).shape == (2, 5) for name in tables) and run.last("adam").shape == (2,)
    assert all(0 < run.last(f"{name}_residual").min() < 1 for name in tables)
    # Of test images the labels are right at every level, and the first network is one.
    assert np.ptp(run.last("test_initial"), axis=1).max() == 0 < np.ptp(run.last("initial"), axis=1).min()
    assert (run.last("dip_step") <= 16).all() and run.last("dip_step")[:, 0].max() <= 8


def test_lengths_and_rates_are_those_of_the_appendix(monkeypatch: Any) -> None:
    """Clean labels trained for twice as long as the paper did; a rate that falls at step 760, not epoch."""
    asked: list[tuple[int, Any, float]] = []

    def noted(*_: Any, steps: int, schedule: Any, lr: float, **__: Any) -> Iterator[Frame]:
        asked.append((steps, schedule, lr))
        return iter(())

    monkeypatch.setattr(alignment_training.training, "train", noted)
    for preset, a_pass in (("paper", 391), ("mnist", 469), ("three-classes", 79)):
        settings = LAB.experiment("alignment").preset(preset)
        assert a_pass == -(-settings.n // settings.batch_size)
        stand_in = SimpleNamespace(settings=settings, images=lambda *_: None, targets=lambda *_: None)
        asked.clear()
        for level in range(5):
            alignment_training._frames(stand_in, None, [("sgd", level, 0)])  # type: ignore[arg-type]
        epochs = [(steps / a_pass, [at / a_pass for at in drops]) for steps, drops, _ in asked]
        assert (
            epochs
            == {
                "paper": [(400, []), *4 * [(800, [760])]],
                "mnist": [(100, [60]), *4 * [(400, [360])]],
                "three-classes": [
                    (400, [260, 360]),
                    (800, [500]),
                    (800, [700]),
                    (800, [700]),
                    (800, [500, 700]),
                ],
            }[preset]
        )
        assert list(asked[4][1].values()) == pytest.approx([0.1, 0.01][: len(asked[4][1])])


def test_images_stand_in_memory_once(tmp_path: Path) -> None:
    """Fifteen copies of CIFAR-10: one for each level and seed."""
    setup = LAB.experiment("alignment").prepare(tiny(tmp_path, "paper", n=40))
    assert len({one.x_train.data_ptr() for sets in setup.sets for one in sets}) == 1
    assert len({one.y_train.data_ptr() for sets in setup.sets for one in sets}) == 9
    part = LAB.experiment("alignment").prepare(tiny(tmp_path, "paper"))
    assert len({one.x_train.data_ptr() for sets in part.sets for one in sets}) == 2


@pytest.mark.slow
def test_a_run_on_the_papers_network_goes_on(tmp_path: Path, monkeypatch: Any) -> None:
    """Days of training, or the SVDs after it, done again; other crops and other minibatches afterwards."""
    monkeypatch.setattr("labkit.protocol.memory.LONG", 0.0)
    settings, experiment = tiny(tmp_path, "three-classes", seeds=1), LAB.experiment("alignment")
    whole = drain(experiment, settings)
    for stop in (0.03, 0.4, 0.85):  # in the first training, in a later one, among the SVDs
        with remembering(Memory(0, tmp_path / "kept", 0.0)):
            setup = experiment.prepare(settings)
            frames = experiment.run(setup, experiment.predict(setup))
            assert next(frame for frame in frames if (frame.progress or 0.0) >= stop).status == "running"
            frames.close()
    assert list((tmp_path / "kept").glob("once-*.pt"))
    with remembering(Memory(0, tmp_path / "kept", 0.0)):
        assert equal(values(drain(experiment, settings)), values(whole))
