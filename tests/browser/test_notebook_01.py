"""Notebook 1 as a student has it: run all, add a width, watch the curves pile up, stop, read the verdicts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "01_distance_from_initialization.ipynb"

pytestmark = pytest.mark.slow


def test_a_student_adds_a_width(open_notebook: Callable[..., Any]) -> None:
    """Catches: a sweep that cannot be followed or stopped, or whose scaling plots stay empty."""
    page = open_notebook(NOTEBOOK)
    assert page.page.locator(".jp-OutputArea-output img").count() >= 12
    page.run_all(600)
    assert page.errors() == []
    page.look_at("Does a wider network travel further?")
    page.wait_status("Made in")
    page.shot("1-as-run")

    # Three widths and three sample sizes, from the keyboard; the points fill in while it trains.
    before = page.picture()
    page.slider("largest width").focus()
    page.page.keyboard.press("ArrowLeft")
    page.wait_picture(before)
    assert page.readout("largest width") == "160"
    page.wait_status("Done at step", 240)
    assert page.wait_verdict("D11") == "✓ holds"
    assert page.wait_verdict("D14") == "✓ holds"
    page.shot("2-trained")

    # Noise makes every distance longer; stopped half way, the curves so far stay.
    page.button("Keep run").click()
    page.slider("label noise (redraw)").focus()
    page.page.keyboard.press("End")
    page.wait_status("steps/s")
    seen = page.picture()
    page.wait_picture(seen)
    page.button("Stop").click()
    page.wait_status("Stopped at step")
    page.shot("3-stopped-with-an-earlier-run", only_panel=True)
    assert page.errors() == []
