"""The panel where it lives: JupyterLab, a kernel, a mouse and a keyboard."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

TOY = Path(__file__).parents[1] / "live" / "toy_lab.py"


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    """A notebook with the toy experiment's panel."""
    cells = [
        nbformat.v4.new_markdown_cell("## How fast does each part of the labels decay?"),
        nbformat.v4.new_code_cell("from labkit.live import Panel\nfrom toy_lab import TOY"),
        nbformat.v4.new_code_cell("panel = Panel(TOY, TOY.preset(steps=400, pause=0.02))\npanel"),
    ]
    path = tmp_path / "panel.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


@pytest.mark.slow
def test_a_person_drags_trains_watches_stops_and_saves(
    open_notebook: Callable[..., Any], server: Any, notebook: Path
) -> None:
    """Catches: anything that works with widgets set from Python and not under a hand."""
    page = open_notebook(notebook, TOY)
    page.run_all()
    page.wait_status("Press Train")
    assert page.errors() == []
    page.shot("1-prediction")
    assert page.verdicts() == {"T1": "…", "T2": "…"}

    # The keyboard moves a slider, and the dashed prediction with it; training starts by itself.
    before = page.picture()
    page.slider("rate").focus()
    page.page.keyboard.press("ArrowRight")
    page.wait_picture(before)
    assert page.readout("rate") == "1.1"
    page.wait_status("steps/s")
    page.page.wait_for_timeout(1500)
    page.shot("2-training")

    # Frames advance.
    seen = page.picture()
    page.wait_picture(seen)
    seen = page.picture()
    page.wait_picture(seen)

    # The mouse drags another slider in mid-run: the run is superseded, the old curves stay in grey.
    handle = page.slider("label noise").bounding_box()
    middle = handle["y"] + handle["height"] / 2
    page.page.mouse.move(handle["x"] + handle["width"] / 2, middle)
    page.page.mouse.down()
    page.page.mouse.move(handle["x"] + 60, middle, steps=12)
    page.shot("3-dragging")
    page.page.mouse.up()
    page.wait_status("steps/s")
    page.page.wait_for_timeout(1200)

    page.button("Stop").click()
    page.wait_status("Stopped at step")
    assert page.wait_verdict("T1", running=True) in ("✓ holds so far", "✗ fails so far")
    page.page.wait_for_timeout(800)
    assert page.picture_size() == (1800, 680)
    page.button("Keep run").click()
    page.slider("rate").focus()
    for _ in range(5):
        page.page.keyboard.press("ArrowRight")
    page.wait_status("steps/s")
    page.wait_status("Done at step 400", 60)
    page.page.wait_for_timeout(800)
    page.shot("4-done-with-earlier-runs")
    assert page.wait_verdict("T2") == "✓ holds"

    for button, ending in (("Save PNG", "png"), ("Save SVG", "svg"), ("Save CSV", "csv")):
        page.button(button).click()
        page.page.wait_for_selector(f"text=Saved labkit-toy-01.{ending}", timeout=15_000)
        assert (server.folder / f"labkit-toy-01.{ending}").stat().st_size > 1000
    page.page.locator(".jupyter-widget-Collapse-header", has_text="Repeat this run").click()
    page.page.wait_for_timeout(500)
    assert "e.preset('quick', rate=1.6" in page.field("Python")
    page.shot("5-repeat", only_panel=True)
    assert page.errors() == []

    page.save()
    stored = json.loads((server.folder / "panel.ipynb").read_text())
    output = stored["cells"][2]["outputs"][0]["data"]
    assert "image/png" in output and output["text/plain"] == ["<Panel>"]
    page.page.set_viewport_size({"width": 1000, "height": 1000})
    page.page.wait_for_timeout(800)
    page.shot("6-narrow")


DRAGGED = {
    "r": ("jacobian", "RESIDUALS", "seeds=3", "rank"),
    "σ": ("generalization", "PERTURBATION", "seeds=3", "largest σ"),
    "λ": ("generalization", "RESCALING", "seeds=1, steps=200", "largest factor (decades)"),
    "ε": ("sgd", "FLATNESS", "seeds=1, n=100, width=32, stop=0.01", "ε"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAGGED)
def test_a_drag_measures_again_and_trains_nothing(
    open_notebook: Callable[..., Any], tmp_path: Path, artifacts: Path, name: str
) -> None:
    """Catches: a slider that redraws when it is let go, or only after another training."""
    lab, experiment, changes, label = DRAGGED[name]
    source = (
        f"import labkit\nfrom labkit.labs import {lab} as lab\n"
        f"labkit.Panel(lab.{experiment}, lab.{experiment}.preset({changes}), train=False)"
    )
    path = tmp_path / f"drag-{lab}.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), path)
    page = open_notebook(path)
    page.run_all()
    page.wait_status("Press Train")
    page.button("Train").click()
    page.wait_status("Done at step", 120)
    page.page.wait_for_timeout(800)
    handle = page.slider(label).bounding_box()
    x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
    page.page.mouse.move(x, y)
    page.page.mouse.down()
    took = []
    for step in range(1, 6):  # the button stays down
        seen = page.picture()
        page.page.mouse.move(x + 9 * step, y)
        took.append(page.wait_picture(seen))
    page.page.mouse.up()
    told = " ".join(f"{seconds:.2f}" for seconds in took)
    (artifacts / f"drag-{experiment.lower()}.txt").write_text(
        f"{label}: another picture after {told} s\n", "utf-8"
    )
    page.page.wait_for_timeout(800)
    page.shot("dragged")
    page.wait_status("Measured again")
    assert page.errors() == []
