"""Notebook 5 as a student has it: run all, train, keep the run, narrow the network, stop half way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "05_gradient_confusion.ipynb"

pytestmark = pytest.mark.slow


def test_a_student_keeps_a_run_and_stops_another(open_notebook: Callable[..., Any]) -> None:
    """Catches: cosines that do not move with the training, or a kept run that is lost."""
    page = open_notebook(NOTEBOOK)
    assert page.page.locator(".jp-OutputArea-output img").count() >= 12
    page.run_all(600)
    assert page.errors() == []
    page.look_at("One network, live: what is worst, and how to count")
    page.wait_status("Made in")
    page.shot("1-as-run")

    before = page.picture()
    page.button("Train").click()
    page.wait_picture(before, 60)
    page.wait_status("Done at step", 120)
    assert page.wait_verdict("C17").endswith("holds")
    page.shot("2-trained")

    page.button("Keep run").click()
    page.slider("width").focus()
    page.page.keyboard.press("Home")
    page.wait_status("steps/s", 60)
    seen = page.picture()
    page.wait_picture(seen, 60)
    page.button("Stop").click()
    page.wait_status("at step")  # stopped, or done already on a fast machine; and not "Stopping …" for good
    page.shot("3-narrow-with-an-earlier-run", only_panel=True)
    assert page.errors() == []
