"""Published numbers beside ours: the right ones, with what differs, and the pages that print them."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labkit import cli
from labkit.headless.compare import (
    Record,
    _judged,
    _quantity,
    compared,
    differences,
    nearest,
    records,
    to_json,
    told,
)
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
    claims = [
        {"id": claim.id, "verdict": "holds", "experiment": name, "quantities": [], "vacuous": False}
        for claim in experiment.claims
    ]
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
    for words, reason in (
        (["3", str(tmp_path / "nowhere")], "no folder of `labkit run --folder`"),
        (["3", str(tmp_path / "empty")], "no folder of"),
        (["4", str(flat)], "is of lab sgd, not of jacobian"),
        (["3", str(tmp_path / "begun")], "has come to its end yet"),
    ):
        assert cli.main(["compare", *words]) == 2
        assert reason in capsys.readouterr().err


@pytest.mark.parametrize("number", LABS)
def test_each_published_number_has_its_preset_and_its_place(number: int) -> None:
    """A row that nothing can ever stand beside, because a name was changed."""
    lab = load_lab(number)
    rows = published(lab.experiments[0].home)
    assert len({(row.preset, row.case, row.quantity) for row in rows}) == len(rows)
    assert all(row.source and row.ours == "" or row.experiments() for row in rows)
    for row in rows:
        for name in row.experiments():
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


def test_a_curve_is_read_off_over_the_settings_own_places() -> None:
    """An exponent in the number of a place; the least of all sizes together; a curve with a gap in it."""
    experiment = load_lab("distance").experiment("scaling")
    settings = experiment.preset(n=512, width=320, seeds=2)  # m = 64, 128, 256, 512; H = 40, 80, 160, 320
    m = np.array(settings.sizes, dtype=float)
    both = np.stack([np.stack([m**0.5, m]), np.stack([m, 3 * m**0.3])])  # (S, kind, sizes)
    frames = (Frame(1, {"r": both, "norm": np.array([[4.0, 2, 3, 9], [4.0, 3, 2, 1]])}),)

    def read(ours: str) -> Any:
        row = Published("paper", "c", "q", 1.0, None, "T", f"scaling:{ours}")
        return row.measured(Run(experiment, settings, {}, frames))

    assert read("exponent(r[1],sizes)") == pytest.approx([1.0, 0.3])
    assert read("exponent(r[-2,:],sizes)") == pytest.approx([0.5, 1.0])
    assert read("least(norm,widths)").tolist() == [80.0, 320.0]
    assert read("norm[-1]").tolist() == [9.0, 1.0]
    both[0, 1, 2] = np.nan
    assert read("exponent(r[1],sizes)") is None


def test_the_pages_are_as_code_writes_them() -> None:
    """A table of last year; a number that somebody corrected by hand."""
    spec = importlib.util.spec_from_file_location("made", ROOT / "docs" / "make_reproduction.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    for path, text in made.pages().items():
        assert path.read_text(encoding="utf-8") == text, f"python docs/make_reproduction.py ({path.name})"


def test_a_record_without_published_numbers_says_so_and_what_it_was_judged_by() -> None:
    """A table of no rows; a run that no preset of the paper stands behind, because no number does."""
    settings = SGD.experiment("wells").preset("paper", chains=7).to_dict()
    verdicts, measured = {"S4": "holds"}, {"S4": "1"}
    record = Record("wells", settings, 60.0, "2020-01-01 00:00", "a machine", {}, verdicts, measured)
    assert nearest(SGD.experiment("wells"), record) == "paper"
    lines = told(SGD, record).splitlines()
    assert "no number that the paper prints" in lines[1]
    assert lines[2:4] == ["  settings: chains 7 (paper 3000)", "  S4 holds: 1"]


def test_a_verdict_says_with_its_numbers_that_it_is_empty_or_why_there_is_none() -> None:
    """A bound above one that counts as a success; an undecided claim that looks like a forgotten one."""
    found = {"quantities": [{"name": "gain", "edge": "at most 1", "labels": [""], "measured": [0.5]}]}
    holds = found | {"verdict": "holds", "vacuous": True, "reason": "some"}
    assert _judged(holds) == "gain: 0.5 (at most 1); vacuous"
    undecided = found | {"verdict": "undecided", "vacuous": False, "reason": "raise seeds"}
    assert _judged(undecided) == "gain: 0.5 (at most 1); raise seeds"


def test_of_many_numbers_the_least_and_the_greatest_are_told() -> None:
    """A list of a hundred numbers in a sentence; numbers without their labels."""
    found = {"name": "gain", "edge": "at least 1", "labels": ["a", "b"], "measured": [0.5, 2.0]}
    assert _quantity(found) == "gain: a 0.5, b 2 (at least 1)"
    assert _quantity(found | {"labels": [""], "measured": [1.25]}) == "gain: 1.25 (at least 1)"
    assert _quantity(found | {"measured": [[3.0, 1.0, 2.0]] * 3}) == "gain: 1 to 3 (at least 1)"
    assert _quantity(found | {"measured": []}) == "gain: – (at least 1)"
