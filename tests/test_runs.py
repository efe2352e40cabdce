"""What several tests look at is computed once, and is what the experiment gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from labkit.protocol.experiment import drain
from labkit.protocol.judging import judge_all
from tests import runs
from tests.tinylab import DECAY


def test_a_run_is_made_once_for_the_same_settings_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of other settings handed out; or each process making its own."""
    made = []
    monkeypatch.setenv("LABKIT_TEST_RUNS", str(tmp_path))
    monkeypatch.setattr(runs, "drain", lambda *asked: made.append(asked) or drain(*asked))
    first, again = runs.shared_run(DECAY), runs.shared_run(DECAY, DECAY.preset())
    other = runs.shared_run(DECAY, DECAY.preset(seeds=2))
    assert [settings.seeds for _, settings in made] == [DECAY.preset().seeds, 2]
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
