"""The same words on another machine: what each setting changes, and how a difference is told."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from labkit.headless import machines
from labkit.headless.machines import MACHINES, Machine, Words, table
from labkit.labs import load_lab
from tests.conftest import ROOT


def told_by(code: str) -> list[float]:
    """What a fresh process prints: the changes reach into torch itself."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    found: list[float] = json.loads(done.stdout)
    return found


def test_a_nudge_changes_every_draw_by_a_millionth() -> None:
    """A comparison of a machine with itself."""
    code = (
        "import json, torch; from labkit.headless.machines import CHANGES;"
        "from labkit.models import mlp, one_hidden;"
        "w = lambda: torch.cat([p.detach().flatten() for m in (mlp(8, 16, 2, 3), one_hidden(8, 16, 3))"
        " for p in m.parameters()]).double();"
        "a = w(); CHANGES['nudged'](torch); b = w(); moved = ((b - a) / a)[a != 0];"
        "print(json.dumps([float(moved.abs().median()), float((moved == 0).double().mean())]))"
    )
    typical, unmoved = told_by(code)
    assert 3e-7 < typical < 3e-6 and unmoved < 0.15


@pytest.mark.slow
def test_float64_reaches_models_data_and_gradients() -> None:
    """A setting that says float64 and computes in float32."""
    code = (
        "import json, torch; from labkit.headless.machines import CHANGES; CHANGES['double'](torch);"
        "import labkit; d = labkit.load('digits', n_train=20, flatten=True); m = labkit.mlp(64, 8, 1, 10);"
        "y = labkit.one_hot(d.y_train, 10); J = labkit.jacobian(m, d.x_train);"
        "print(json.dumps([t.dtype.itemsize for t in (d.x_train, y, m(d.x_train))] + [J.dtype.itemsize]))"
    )
    assert told_by(code) == [8, 8, 8, 8]


def test_the_table_names_each_word_that_differs() -> None:
    """A difference that drowns in a count."""
    first = Words("one thread", "2.14.1", {"X1": "holds", "X2": "fails"})
    other = Words("two threads", "2.14.1", {"X1": "undecided"}, "lab 1: it broke")
    text = table([first, other])
    assert "| two threads | 2.14.1 | 1 | X1 undecided (holds), X2 missing (fails) |" in text
    assert "| one thread | 2.14.1 | 2 | none |" in text and "two threads: lab 1: it broke" in text


def test_a_process_that_breaks_is_a_problem_and_no_agreement() -> None:
    """An environment without torch counted as one that agrees."""
    broken = Machine("nothing there", {"PYTHONHOME": "/nowhere"})
    found = machines.compare(["0"], [broken])
    assert found[0].words == {} and found[0].problem


@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES[1:], ids=lambda machine: machine.name)
def test_the_words_of_lab_0_are_the_same_everywhere(machine: Machine) -> None:
    """A word that rounding turns, and a setting that no longer runs."""
    found = machines.compare(["0"], [MACHINES[0], machine])
    assert not found[0].problem and not found[1].problem
    assert found[0].words == found[1].words
    assert set(found[0].words) == {claim.id for claim in load_lab(0).claims}
