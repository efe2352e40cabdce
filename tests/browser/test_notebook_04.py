"""Notebook 4 as a student has it: run all, move the width, train, watch, stop, compare, read the verdicts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "04_low_rank_jacobian.ipynb"

pytestmark = pytest.mark.slow


def test_a_student_reads_runs_and_plays(open_notebook: Callable[..., Any]) -> None:
    """Catches: a notebook that passes cell by cell and fails as a page."""
    page = open_notebook(NOTEBOOK)
    # Last run's figures are there before anything runs, the panel's among them.
    pictures = page.page.locator(".jp-OutputArea-output img")
    assert pictures.count() >= 15
    page.shot("1-as-opened")

    page.run_all(600)
    assert page.errors() == []
    page.look_at("Where does learning go fast, and where does label noise go?")
    page.wait_status("Made in")
    page.shot("2-as-run")

    # The keyboard moves the width; training starts by itself and frames advance.
    before = page.picture()
    page.slider("width").focus()
    page.page.keyboard.press("ArrowLeft")
    page.wait_picture(before)
    assert page.readout("width") == "256"
    page.wait_status("Done at step", 120)
    page.page.wait_for_timeout(800)
    assert page.wait_verdict("J4") == "✓ holds"
    assert page.wait_verdict("J7") == "✓ holds"
    page.shot("3-trained")

    # Another width, longer, stopped half way: the earlier run stays in grey, the partial curves stay too.
    page.button("Keep run").click()
    page.slider("steps").focus()
    page.page.keyboard.press("End")
    page.slider("width").focus()
    page.page.keyboard.press("End")
    page.wait_status("steps/s")
    seen = page.picture()
    page.wait_picture(seen)
    page.button("Stop").click()
    page.wait_status("Stopped at step")
    page.page.wait_for_timeout(800)
    page.shot("4-stopped-with-an-earlier-run")
    page.shot("5-panel", only_panel=True)
    assert page.errors() == []
