"""Runs begun before they are asked for: the same numbers, once, and errors told to who asks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import wait
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import psutil
import pytest

from labkit import ahead, drain
from labkit.protocol import experiment as protocol
from labkit.protocol.ahead import Ahead, Elsewhere
from labkit.protocol.experiment import Experiment, Frame, Run
from tests.tinylab import DECAY


@pytest.fixture
def experiment() -> Experiment:
    """Its runs say in which process and thread they were made."""

    def run(setup: Any, prediction: Any, *, see: Any = None) -> Iterator[Frame]:
        place = f"{os.getpid()} {threading.current_thread().name}"
        for frame in DECAY.run(setup, prediction):
            yield replace(frame, values={**frame.values, "place": np.array([place])})

    return replace(DECAY, run=run)


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    yield (other := Elsewhere())
    other.end()


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever machine the tests run on."""
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)


@pytest.fixture(autouse=True, scope="module")
def ended() -> Iterator[None]:
    yield
    protocol._ELSEWHERE.end()


HERE = f"{os.getpid()} {threading.main_thread().name}"


def place(run: Run) -> str:
    return str(run.last("place")[0])


def begun(experiment: Experiment, **more: Any) -> None:
    """A run begun ahead, and made."""
    ahead(experiment, **more)
    settings = more.pop("settings", experiment.preset())
    coming = protocol._AHEAD._coming[protocol._asked(experiment, settings, more)]
    wait([coming], timeout=60)


def test_a_run_begun_ahead_is_the_run_that_is_asked_for_and_is_made_once(experiment: Experiment) -> None:
    """Other numbers from another process; one that shares this one's interpreter; or paid twice."""
    begun(experiment, settings=experiment.preset(seeds=4))
    early = drain(experiment, experiment.preset(seeds=4))
    assert place(early).split()[0] != str(os.getpid())
    late = drain(experiment, experiment.preset(seeds=4))
    assert place(late) == HERE, "a cell that is run again must train again"
    np.testing.assert_array_equal(early.series("loss")[1], late.series("loss")[1])
    assert early.settings == late.settings and early.experiment is experiment


def test_on_one_core_nothing_is_begun(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that take turns, one of which has to import torch first."""
    monkeypatch.setattr("joblib.cpu_count", lambda: 1)
    ahead(experiment)
    assert protocol._asked(experiment, experiment.preset(), {}) not in protocol._AHEAD._coming
    assert place(drain(experiment)) == HERE


def test_another_step_or_setting_is_another_run(experiment: Experiment) -> None:
    """A student who rewrites the step would be shown what the old one gave."""
    begun(experiment, see=len)
    assert place(drain(experiment, see=max)) == HERE
    assert place(drain(experiment, experiment.preset(seeds=2), see=len)) == HERE
    assert place(drain(experiment, see=len)) != HERE


@pytest.mark.parametrize("trouble", ["killed", "not packed", "no process", "no room", "an error"])
def test_what_no_other_process_can_make_is_made_here(
    elsewhere: Elsewhere, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is lost, or waited for without end, since its process was killed for want of memory."""
    parent = os.getpid()
    hold = threading.Lock() if trouble == "not packed" else None

    def work() -> str:
        if os.getpid() == parent:
            return "here"
        if trouble == "killed":
            os._exit(9)
        raise ValueError(f"lr: {hold}")

    def refused(*_: Any, **__: Any) -> None:
        raise OSError("no more processes")

    with monkeypatch.context() as limits:
        if trouble == "no process":
            limits.setattr("labkit.protocol.ahead.Popen", refused)
        if trouble == "no room":
            limits.setattr("labkit.protocol.ahead.machine_bytes", lambda: (2**31, 2**29))
        assert elsewhere.result(work if trouble != "no room" else os.getpid) is None
    assert elsewhere.result(os.getpid) not in (None, parent)
    assert work() == "here"


def test_what_a_run_prints_there_is_no_answer(elsewhere: Elsewhere) -> None:
    """A warning in the middle of a pickle."""
    elsewhere.result(partial(print, "warning", flush=True))
    assert elsewhere.result(os.getcwd) == os.getcwd()


def test_nobody_is_left_to_compute_for_a_program_that_ended() -> None:
    """A kernel that is restarted, and the run of the old one that keeps a core."""
    program = (
        "import os, signal, time; from functools import partial; from threading import Thread\n"
        "from labkit.protocol.ahead import Elsewhere\n"
        "other = Elsewhere(); print(other.result(os.getpid), flush=True)\n"
        "Thread(target=other.result, args=(partial(time.sleep, 600),), daemon=True).start()\n"
        "time.sleep(.5); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    for _ in range(400):
        if not computes(int(ended.stdout)):
            return
        time.sleep(0.05)
    pytest.fail("it goes on after its program was killed")


def computes(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_what_waits_behind_another_is_made_by_who_asks() -> None:
    """A cell that waits for its turn while its core is idle."""
    coming, begun, gate = Ahead[str](), threading.Event(), threading.Event()

    def first() -> str:
        begun.set()
        return "first" if gate.wait(10) else "late"

    coming.begin(1, first)
    coming.begin(2, lambda: "second")
    assert begun.wait(10) and coming.taken(2) is None and coming.taken(3) is None
    gate.set()
    assert coming.taken(1) == "first" and coming.taken(1) is None


def test_an_error_is_told_to_who_asks_and_ends_nothing_else() -> None:
    """A broken step far below, told in the cell that began it or in none."""
    coming, begun = Ahead[str](), threading.Event()

    def broken() -> str:
        begun.set()
        raise ValueError("distance: a tensor")

    coming.begin(1, broken)
    assert begun.wait(10)
    with pytest.raises(ValueError, match="distance: a tensor"):
        coming.taken(1)
    begun.clear()
    coming.begin(2, broken)
    assert begun.wait(10)


def test_without_threads_whoever_asks_makes_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A submission that fails since the grader gives it one thread."""

    def refused(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    coming = Ahead[str]()
    with monkeypatch.context() as limits:
        limits.setattr(threading.Thread, "start", refused)
        coming.begin(1, lambda: "ahead")
    assert coming.taken(1) is None
