"""Published numbers beside ours: the right ones, with what differs, and the pages that print them."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import labkit.labs
from labkit import cli
from labkit.headless.compare import Record, compared, differences, nearest, records, to_json
from labkit.headless.run_folder import opened
from labkit.labs import LABS, load_lab
from labkit.protocol.experiment import Frame, Lab, Run
from labkit.protocol.files import write_frames
from labkit.protocol.published import Published, published
from tests.conftest import ROOT

SGD, JACOBIAN = load_lab("sgd"), load_lab("jacobian")


def ran(lab: Lab, name: str, folder: Path, values: dict[str, np.ndarray], **settings: Any) -> Path:
    """A folder of a run that has ended, with these numbers."""
    experiment = lab.experiment(name)
    made = experiment.preset(**settings)
    facts = {"lab": lab.name} | {f"{name}: {k}": v for k, v in made.to_dict().items()}
    with opened(folder, facts):
        (folder / name).mkdir()
        write_frames(folder / name / "frames.npz", [Frame(3, values, 1.0, "done")], 90.0)
    claims = [{"id": claim.id, "verdict": "holds", "experiment": name} for claim in experiment.claims]
    (folder / "result.json").write_text(json.dumps({"claims": claims}))
    return folder


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    radii = np.zeros((2, 2, 2, 5))  # seeds, natural and random, all and top, directions
    radii[0], radii[1] = 40.0, 46.0
    radii[:, 1, 1] = [[1, 2, 3, 4, 5]]
    return ran(SGD, "flatness", tmp_path / "run", {"radii": radii}, n=1000, seeds=2)


def test_ours_stands_beside_the_number_of_the_same_quantity(flat: Path) -> None:
    """Natural labels beside random ones; a mean over one seed; a difference of the wrong sign."""
    (record,) = records(SGD, flat)
    experiment = SGD.experiment("flatness")
    rows = compared(experiment, record, "paper")
    assert [(one.row.value, one.ours[0], one.ours[2]) for one in rows] == [
        (45.4, 43.0, 2), (6.9, 43.0, 2), (15.0, 43.0, 2), (3.0, 3.0, 2),
    ]  # fmt: skip
    assert rows[0].told() == ("45.4 ± 2.7", "43 ± 4.2 (2)", "-0.9 spreads")
    assert rows[3].difference == "+0.0 spreads" and rows[3].ours[1] == 0.0
    plain = replace(rows[0], row=replace(rows[0].row, spread=None))
    assert plain.difference == "-2.4"
    assert record.verdicts == {"S9": "holds", "S24": "holds"} and record.seconds == 90.0


def test_the_nearest_of_the_paper_s_settings_is_taken(tmp_path: Path) -> None:
    """A run on MNIST judged by the numbers for CIFAR-10; data out of a file told as other data."""
    values = {"radii": np.ones((1, 2, 2, 3))}
    for preset, name in (("paper", "mnist"), ("cifar10", "cifar10")):
        folder = ran(SGD, "flatness", tmp_path / name, values, n=60, seeds=1, dataset=name)
        (record,) = records(SGD, folder)
        record = replace(record, settings={**record.settings, "dataset": f"/there/{name}.npz"})
        experiment = SGD.experiment("flatness")
        assert nearest(experiment, record) == preset
        off = differences(experiment, record, preset)
        assert "dataset" not in off and off["seeds"] == (5, 1) and "seed" not in off
        assert compared(experiment, record, preset)[0].ours == (1.0, None, 1)


def test_the_command_prints_it_and_its_file_is_read_again(flat: Path, tmp_path: Path, capsys: Any) -> None:
    """Numbers that change on their way through a file."""
    kept = tmp_path / "kept.json"
    assert cli.main(["compare", "3", str(flat), "--json", str(kept)]) == 0
    first = capsys.readouterr().out
    assert "45.4 ± 2.7 43 ± 4.2 (2) -0.9 spreads" in " ".join(first.split())
    assert "n 1000 (paper 60000)" in first and "S9 holds" in first and "2 min" in first
    assert cli.main(["compare", "3", str(kept)]) == 0
    assert capsys.readouterr().out == first
    (record,) = records(SGD, kept)
    assert json.loads(json.dumps(to_json(SGD, [record]))) == json.loads(kept.read_text())


def test_what_is_no_run_is_told(flat: Path, tmp_path: Path, capsys: Any) -> None:
    """A traceback, or a comparison of nothing."""
    (tmp_path / "empty").mkdir()
    with opened(tmp_path / "begun", {"lab": "sgd"}):
        pass
    for words, told in (
        (["3", str(tmp_path / "nowhere")], "no folder of `labkit run --folder`"),
        (["3", str(tmp_path / "empty")], "no folder of"),
        (["4", str(flat)], "is of lab sgd, not of jacobian"),
        (["3", str(tmp_path / "begun")], "has come to its end yet"),
    ):
        assert cli.main(["compare", *words]) == 2
        assert told in capsys.readouterr().err


@pytest.mark.parametrize("number", LABS)
def test_each_published_number_has_its_preset_and_its_place(number: int) -> None:
    """A row that nothing can ever stand beside, because a name was changed."""
    lab = load_lab(number)
    rows = published(lab.experiments[0].home)
    assert len({(row.preset, row.case, row.quantity) for row in rows}) == len(rows)
    assert all(row.source and row.ours == "" or row.experiments() for row in rows)
    for row in rows:
        for name in row.experiments():
            if name != "corruption":  # at the dip alone, with settings of its own
                assert row.preset in lab.experiment(name).presets, row


def test_a_place_with_conditions_asks_for_them() -> None:
    """The share on the last Jacobian in the row of the dip."""
    row = Published("paper", "c", "q", 1.0, None, "T", "corruption:share?label_noise=0.5&images=test")
    experiment = JACOBIAN.experiment("corruption")
    frames = (Frame(1, {"share": np.array([0.25, 0.75])}),)
    assert row.measured(Run(experiment, experiment.preset(), {}, frames)).tolist() == [0.25, 0.75]
    for other in ({"label_noise": 0.25}, {"images": "train"}):
        assert row.measured(Run(experiment, experiment.preset(**other), {}, frames)) is None
    assert row.measured(Run(experiment, experiment.preset(), {}, ())) is None
    assert replace(row, ours="").measured(Run(experiment, experiment.preset(), {}, frames)) is None


def test_the_pages_are_as_code_writes_them() -> None:
    """A table of last year; a number that somebody corrected by hand."""
    spec = importlib.util.spec_from_file_location("made", ROOT / "docs" / "make_reproduction.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    for path, text in made.pages().items():
        assert path.read_text(encoding="utf-8") == text, f"python docs/make_reproduction.py ({path.name})"


def test_a_record_without_published_numbers_says_so(monkeypatch: Any) -> None:
    """A table of no rows."""
    from labkit.headless.compare import told

    record = Record("wells", {}, 1.0, "2020-01-01 00:00", "a machine", {}, {})
    assert "nothing that the paper prints" in told(SGD, record)
    assert labkit.labs.LABS
