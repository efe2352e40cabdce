"""What all labs share: settings, frames, runs and sweeps, statistics, devices, the public face."""

from __future__ import annotations

import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import FrozenInstanceError, dataclass
from multiprocessing import get_context

import numpy as np
import pytest

import labkit
from labkit.labs import load_lab
from labkit.protocol import statistics as stats
from labkit.protocol.experiment import Frame, drain, last, resolve_device, series
from labkit.protocol.settings import Settings, knob

EXPERIMENT = load_lab("jacobian").experiment("linear")
SMALL = EXPERIMENT.preset(n=20, inputs=40, rank=2, steps=10, seeds=1)


@dataclass(frozen=True)
class Knobs(Settings):
    width: int = knob(64, "hidden units", slider=(16, 256), bounds=(1, None), scale="log2")
    label_noise: float = knob(0.0, "share of wrong labels", slider=(0, 1))
    activation: str = knob("relu", "activation", choices=("relu", "tanh"))
    bias: bool = knob(True, "biases")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"width": -3}, "width must be at least 1; got -3"),
        ({"width": 2.5}, "width must be a whole number; got 2.5"),
        ({"label_noise": 1.5}, "label_noise must be between 0 and 1; got 1.5"),
        ({"label_noise": float("nan")}, "label_noise must be a finite number; got nan"),
        ({"label_noise": "lots"}, "label_noise must be a finite number; got 'lots'"),
        ({"activation": "sine"}, "activation must be one of relu, tanh; got 'sine'"),
        ({"bias": 1}, "bias must be true or false; got 1"),
        ({"widht": 3}, "widht is not a setting of Knobs; there is width"),
        ({"seeds": 0}, "seeds must be between 1 and 1000; got 0"),
    ],
)
def test_a_bad_setting_is_named_with_what_it_takes(changes: dict, says: str) -> None:
    """A traceback from deep inside a run, minutes later."""
    with pytest.raises(ValueError, match=says.replace("(", r"\(")):
        Knobs().replace(**changes)


def test_settings_read_texts_and_keep_types() -> None:
    """--set width=128 that arrives as a text or a float."""
    read = Knobs().parse({"width": "128", "label_noise": "1e-1", "bias": "false", "activation": "tanh"})
    assert (read.width, read.label_noise, read.bias, read.activation) == (128, 0.1, False, "tanh")
    assert type(read.width) is int
    assert read.changes_from(Knobs()) == {
        "width": 128,
        "label_noise": 0.1,
        "activation": "tanh",
        "bias": False,
    }


def test_settings_are_immutable() -> None:
    """A slider that changes the settings of a run in flight."""
    with pytest.raises(FrozenInstanceError):
        Knobs().width = 3  # type: ignore[misc]


def test_series_takes_the_frames_that_carry_a_value() -> None:
    """Ticks, or frames of another measurement, counted as data."""
    frames = [
        Frame(0, {"a": np.array([1.0])}),
        Frame.tick(1),
        Frame(2, {"b": np.array([9.0])}),
        Frame(3, {"a": np.array([2.0])}),
    ]
    steps, values = series(frames, "a")
    assert steps.tolist() == [0, 3] and values.tolist() == [[1.0], [2.0]]
    assert last(frames, "a") == 2.0
    assert series(frames, "c")[1].shape == (0, 1)
    with pytest.raises(KeyError):
        last(frames, "c")


def test_a_run_is_picklable_and_comes_back_whole() -> None:
    """A sweep on processes that loses frames or cannot send them."""
    run = drain(EXPERIMENT, SMALL)
    again = pickle.loads(pickle.dumps(run))
    assert len(again.frames) == len(run.frames) and again.settings == run.settings


def test_a_sweep_gives_the_same_on_every_executor() -> None:
    """A result that depends on where it was computed."""
    grid = {"sigma_x": [0.0, 0.2], "seed": [0, 1]}
    here = labkit.sweep(EXPERIMENT, grid, SMALL)
    assert [(run.settings.sigma_x, run.settings.seed) for run in here] == [
        (0.0, 0),
        (0.0, 1),
        (0.2, 0),
        (0.2, 1),
    ]
    with ThreadPoolExecutor(2) as threads, ProcessPoolExecutor(1, get_context("spawn")) as processes:
        for executor in (threads, processes):
            there = labkit.sweep(EXPERIMENT, grid, SMALL, executor=executor)
            for a, b in zip(here, there, strict=True):
                for key, value in a.frames[-1].values.items():
                    np.testing.assert_array_equal(value, b.frames[-1].values[key])


def test_a_sweep_refuses_an_empty_or_unknown_grid() -> None:
    """Nothing run and nothing said."""
    with pytest.raises(ValueError, match="grid"):
        labkit.sweep(EXPERIMENT, {})
    with pytest.raises(ValueError, match="is not a setting"):
        labkit.sweep(EXPERIMENT, {"nonsense": [1]})


def test_an_exponent_is_the_slope_of_logarithms() -> None:
    """A slope in the wrong base, or over the wrong axis."""
    x = np.array([1.0, 10.0, 100.0])
    curves = np.stack([x**-0.5, 3 * x**2])
    np.testing.assert_allclose(stats.exponent(x, curves), [-0.5, 2])
    np.testing.assert_allclose(stats.exponent(x, np.stack([curves, curves**2])), [[-0.5, 2], [-1, 4]])
    with pytest.raises(ValueError, match="positive"):
        stats.exponent(x, -x)
    with pytest.raises(ValueError, match="two different"):
        stats.exponent(x[:1], x[:1])


def test_a_correlation_is_over_the_places_of_a_seed() -> None:
    """Seeds mixed up, a sign lost, or a division by zero for what does not change."""
    draws = np.random.default_rng(0).standard_normal((4, 50))
    x, y = draws, np.stack([draws[0], -2 * draws[1] + 3, draws[2] + draws[3], np.ones(50)])
    expected = [1.0, -1.0, np.corrcoef(draws[2], draws[2] + draws[3])[0, 1], 0.0]
    np.testing.assert_allclose(stats.correlation(x, y), expected)


def test_a_crossing_is_read_off_between_places() -> None:
    """The first place past the level, or a later crossing; a number for a curve that never comes there."""
    x = np.array([0.0, 1.0, 2.0, 4.0])
    y = np.array([[0.0, 0.25, 0.75, 0.8], [0.0, 0.1, 0.2, 0.3], [0.0, 0.5, 0.2, 0.9], [0.6, 0.4, 0.7, 0.9]])
    np.testing.assert_allclose(stats.crossing(x, y, 0.5), [1.5, np.nan, 1.0, np.nan])


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    """A normal quantile for three seeds: it would cover 85 % instead of 95 %."""
    draws = np.random.default_rng(0).standard_normal((3, 4000))
    covered = np.mean(np.abs(draws.mean(axis=0)) <= stats.half_width(draws))
    assert abs(covered - 0.95) < 6 * np.sqrt(0.95 * 0.05 / 4000)
    assert stats.half_width(np.array([1.0])) == np.inf


def test_every_public_name_is_there() -> None:
    """A re-export that points nowhere."""
    for name in labkit.__all__:
        assert callable(getattr(labkit, name)), name
    assert set(labkit.__all__) <= set(dir(labkit))
    with pytest.raises(AttributeError, match="nonsense"):
        labkit.nonsense  # noqa: B018


def test_importing_labkit_imports_nothing_heavy() -> None:
    """A second of start-up for `labkit --help`."""
    heavy = {"torch", "matplotlib", "scipy", "sklearn", "torchvision"}
    code = f"import sys, labkit; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_device_that_is_not_there_is_refused() -> None:
    """A run that starts on another device than the one asked for."""
    assert resolve_device("cpu") == "cpu"
    with pytest.raises(ValueError, match="device: 'tpu' is not one of auto, cpu"):
        resolve_device("tpu")


def test_an_experiment_runs_on_one_thread_and_gives_the_others_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches: a run that leaves torch as it wants it, or that overrules the person's own choice."""
    import torch

    from labkit.protocol.experiment import experiment_mode

    before, tf32 = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    torch.set_num_threads(2)
    try:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        with pytest.raises(RuntimeError), experiment_mode():
            assert torch.get_num_threads() == 1
            assert not torch.backends.cudnn.allow_tf32
            raise RuntimeError("a run that fails")
        assert torch.get_num_threads() == 2
        assert torch.backends.cudnn.allow_tf32 == tf32
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        with experiment_mode():
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_blas_has_one_thread_until_the_last_of_two_experiments_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches: last digits that depend on the process, and a BLAS that stays slow behind two panels."""
    import torch  # noqa: F401  # without it there is nothing to set
    from threadpoolctl import threadpool_info, threadpool_limits

    from labkit.protocol.experiment import experiment_mode

    def threads() -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with threadpool_limits(2, user_api="blas"):
        first, second = experiment_mode(), experiment_mode()
        with first:
            second.__enter__()
            assert threads() == {1}
        assert threads() == {1}
        second.__exit__(None, None, None)
        assert threads() == {2}
