"""What a person takes away: files that replace nothing, and lines that repeat the run."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import labkit.live.export as export
from labkit.protocol.experiment import Frame, Run, drain


def test_a_file_never_replaces_another(tmp_path: Path) -> None:
    """Catches: yesterday's frames overwritten by today's."""
    first = export.write_new(b"one", "labkit toy", "csv", tmp_path)
    second = export.write_new(b"two", "labkit toy", "csv", tmp_path)
    assert (first.name, second.name) == ("labkit-toy-01.csv", "labkit-toy-02.csv")
    assert first.read_bytes() == b"one" and sorted(p.name for p in tmp_path.iterdir()) == [
        first.name,
        second.name,
    ]


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches: half a file under the final name."""

    def full(*args: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(export, "_claim", full)
    with pytest.raises(OSError, match="no space left"):
        export.write_new(b"data", "a", "csv", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_csv_holds_every_number_of_all_that_is_drawn_once(toy: Any) -> None:
    """Catches: seeds averaged away, arrays cut, predictions or earlier runs left out or mixed up."""
    frames = (Frame(0, {"loss": np.array([1.0, 0.1]), "s": np.arange(4.0).reshape(2, 2)}), Frame.tick(5))
    now = Run(toy.TOY, toy.TOY.preset(), {"rate": np.array([0.5, 0.25])}, frames)
    old = replace(now, settings=toy.TOY.preset(rate=1.7), prediction={})
    rows = list(csv.DictReader(io.StringIO(export.runs_csv(now, [old]).decode())))
    assert [(row["run"], row["kind"]) for row in rows] == [
        *(2 * [("now", "predicted")]), *(6 * [("now", "measured")]), *(6 * [("rate 1.7", "measured")])
    ]  # fmt: skip
    number = {"run": "now", "kind": "measured", "step": "0", "name": "loss", "seed": "1", "index": ""}
    assert rows[3] == number | {"value": "0.1"}
    assert rows[7] == number | {"name": "s", "index": "1", "value": "3.0"}
    assert rows[1] == number | {
        "kind": "predicted", "step": "", "name": "rate", "seed": "", "index": "1", "value": "0.25"
    }  # fmt: skip


def test_the_line_of_code_repeats_the_run(toy: Any) -> None:
    """Catches: a line that does not run, or runs something else."""
    settings = toy.TOY.preset("quick", steps=12, pause=0.0, rate=1.7, kind="rough")
    line = export.code_line(toy.TOY, settings)
    assert "e = TOY;" in line and "\n" not in line
    there: dict[str, Any] = {"TOY": toy.TOY}
    exec(line, there)
    assert there["run"].settings == settings
    assert np.array_equal(there["run"].last("fast"), drain(toy.TOY, settings).last("fast"))


def test_the_command_names_lab_seed_device_and_changes(toy: Any) -> None:
    """Catches: a command that the command line refuses."""
    settings = toy.TOY.preset("quick", rate=1.7, seed=3)
    assert export.command_line(toy.TOY, settings, 4) == (
        f"labkit run 4 --experiment {toy.TOY.name} --seed 3 --set rate=1.7"
    )
    assert (
        export.command_line(toy.TOY, toy.TOY.presets["paper"], "jacobian")
        == f"labkit run jacobian --experiment {toy.TOY.name} --preset paper"
    )
    assert export.command_line(toy.TOY, settings) == ""


def test_the_panel_saves_figure_and_frames_beside_the_notebook(
    panel: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches: Save that writes elsewhere, or a figure without its settings."""
    monkeypatch.chdir(tmp_path)
    one = panel({"steps": 20, "pause": 0.0})
    one.train_button.click()
    assert one.wait(10)
    for button in (one.png_button, one.svg_button, one.csv_button):
        button.click()
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"labkit-toy-01.{e}" for e in ("csv", "png", "svg")]
    with PIL.Image.open(tmp_path / "labkit-toy-01.png") as image:
        assert "drain" in image.info["Repeat"] and "'steps': 20" in image.info["Settings"]
    assert "Saved labkit-toy-01.csv" in one.saved_line.value


def test_a_folder_that_cannot_be_written_is_said_in_the_panel(
    panel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches: a Save button that does nothing on a read-only disk."""

    def refuse(*args: Any) -> None:
        raise PermissionError("read-only file system")

    monkeypatch.setattr(export, "write_new", refuse)
    one = panel()
    one.csv_button.click()
    assert "Saving failed" in one.error_box.value and "read-only file system" in one.error_box.value


def test_the_line_of_code_is_shown_where_there_is_no_command(panel: Any) -> None:
    """Catches: both lines hidden, for an experiment of the person's own, by a layout they share."""
    one = panel()
    assert one.command_text.layout.display == "none" and one.code_text.layout.display is None
    assert panel(lab=4).command_text.value == "labkit run 4 --experiment toy"
