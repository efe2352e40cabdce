"""Notebook 3 as a student has it: run all, move the start, watch both paths end beside w†, read verdicts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "03_sgd_and_flat_minima.ipynb"

pytestmark = pytest.mark.slow


def test_a_student_moves_the_start(open_notebook: Callable[..., Any]) -> None:
    """Catches: a slice that does not follow the start, a prediction that does not move with the slider, or a
    verdict that survives noise in the null space.
    """
    page = open_notebook(NOTEBOOK)
    assert page.page.locator(".jp-OutputArea-output img").count() >= 16
    page.run_all(600)
    assert page.errors() == []
    page.look_at("Which of all solutions does descent find?")
    page.wait_status("Made in")
    page.shot("1-as-run")

    before = page.picture()
    page.slider("initialization scale").focus()
    for _ in range(9):
        page.page.keyboard.press("ArrowRight")
    assert page.readout("initialization scale") == "1.0"
    page.wait_picture(before)
    page.wait_status("Done at step", 120)
    assert page.wait_verdict("S1") == "✓ holds"
    assert page.wait_verdict("S2") == "✓ holds"
    page.shot("2-trained")

    # Noise in every direction moves what the theorem freezes.
    page.button("Keep run").click()
    before = page.picture()
    page.slider("temperature").focus()
    page.page.keyboard.press("End")
    page.wait_picture(before)  # with it the verdicts of the run before are gone
    page.wait_status("Done at step", 120)
    assert page.wait_verdict("S2") == "✗ fails"
    page.shot("3-shaken-with-an-earlier-run", only_panel=True)
    assert page.errors() == []
