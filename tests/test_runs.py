"""What several tests look at is computed once, and is what the experiment gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labkit.protocol import experiment as protocol
from labkit.protocol.experiment import drain
from labkit.protocol.judging import judge_all
from tests import runs, tinylab
from tests.tinylab import DECAY


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The settings of the runs that were made, in a session of its own."""
    settings: list[Any] = []

    def noted(experiment: Any, asked: Any = None, **more: Any) -> Any:
        settings.append(asked)
        return drain(experiment, asked, **more)

    monkeypatch.setenv("LABKIT_TEST_RUNS", str(tmp_path))
    monkeypatch.setattr(runs, "drain", noted)
    return settings


def test_a_run_is_made_once_for_the_same_settings_alone(
    made: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of other settings handed out; or each process making its own."""
    first, again = runs.shared_run(DECAY), runs.shared_run(DECAY, DECAY.preset())
    other = runs.shared_run(DECAY, DECAY.preset(seeds=2))
    assert made == [DECAY.preset(), DECAY.preset(seeds=2)]
    assert len(other.last("loss")) == 2
    for found in (first, again):
        assert found.experiment is DECAY and found.settings == DECAY.preset()
        np.testing.assert_array_equal(found.series("loss")[1], drain(DECAY).series("loss")[1])
        assert str(judge_all(found)) == str(judge_all(drain(DECAY)))
    # The next session has another folder, and so begins anew.
    monkeypatch.setenv("LABKIT_TEST_RUNS", str(tmp_path / "next"))
    (tmp_path / "next").mkdir()
    runs.shared_run(DECAY)
    assert len(made) == 3


def test_a_notebook_shares_what_it_runs_as_it_is(made: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook's own steps passed over; or an experiment that it changed taken for that of the lab."""
    monkeypatch.setattr(protocol, "drain", drain)
    runs.share_in_this_notebook()
    # As in a lab: its module holds LAB.
    monkeypatch.setattr(type(DECAY), "home", tinylab.__name__)
    for _ in range(2):
        assert len(protocol.drain(DECAY, DECAY.preset(seeds=4)).last("loss")) == 4
    assert len(made) == 1
    steps: list[Any] = []
    protocol.drain(DECAY, DECAY.preset(seeds=4), progress=steps.append)
    assert len(made) == 2 and steps
    protocol.drain(replace(DECAY, title="my own"), DECAY.preset(seeds=4))
    assert len(made) == 3


def test_a_step_of_a_notebook_is_run_there_and_serves_the_lab(
    made: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that stands in a notebook passed over for a run that is there; or run once more after it."""
    seen: list[int] = []

    def run(setup: Any, prediction: Any, *, see: Any = seen.append) -> Any:
        for frame in DECAY.run(setup, prediction):
            see(frame.step)
            yield frame

    stepped = replace(DECAY, run=run)
    monkeypatch.setattr(protocol, "drain", drain)
    monkeypatch.setattr(tinylab, "LAB", replace(tinylab.LAB, experiments=(stepped,)))
    monkeypatch.setattr(type(stepped), "home", tinylab.__name__)
    runs.share_in_this_notebook()
    runs.shared_run(stepped)
    own: list[int] = []
    protocol.drain(stepped, see=own.append)
    assert own == seen and len(made) == 2
    protocol.drain(stepped, stepped.preset(seeds=2), see=own.append)
    assert len(runs.shared_run(stepped, stepped.preset(seeds=2)).last("loss")) == 2 and len(made) == 3
