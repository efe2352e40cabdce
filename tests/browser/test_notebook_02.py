"""Notebook 2 as a student has it: run all, watch the sharpness-KL plane move, stop, read the verdicts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "02_exploring_generalization.ipynb"

pytestmark = pytest.mark.slow


def test_a_student_watches_the_plane_move(open_notebook: Callable[..., Any]) -> None:
    """Catches: measures that appear only at the end, or a plane that does not follow the training."""
    page = open_notebook(NOTEBOOK)
    assert page.page.locator(".jp-OutputArea-output img").count() >= 14
    page.run_all(600)
    assert page.errors() == []
    page.look_at("True or random labels: which number knows the difference?")
    page.wait_status("Made in")
    page.shot("1-as-run")

    # Stop at a larger loss, on fewer samples: a short run whose frames move the curves.
    page.slider("stop at loss").focus()
    for _ in range(12):
        page.page.keyboard.press("ArrowRight")
    page.wait_status("steps/s", 60)
    seen = page.picture()
    page.wait_picture(seen, 60)
    page.wait_status("Done at step", 240)
    assert page.wait_verdict("E7") in ("✓ holds", "? undecided")
    assert page.wait_verdict("E8").startswith("✓ holds")
    page.shot("2-trained")

    page.button("Keep run").click()
    page.slider("noise (redraw)").focus()
    page.page.keyboard.press("Home")
    page.wait_status("steps/s", 60)
    seen = page.picture()
    page.wait_picture(seen, 60)
    page.button("Stop").click()
    page.wait_status("Stopped at step")
    page.shot("3-stopped-with-an-earlier-run", only_panel=True)
    assert page.errors() == []
