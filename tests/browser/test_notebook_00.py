"""Notebook 0 as a newcomer has it: run all, narrow the network, stop, keep, compare, save, follow a link."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
NOTEBOOK = NOTEBOOKS / "00_start_here.ipynb"
LINKED = NOTEBOOKS / "04_low_rank_jacobian.ipynb"

pytestmark = pytest.mark.slow


def test_a_newcomer_sees_five_lenses(open_notebook: Callable[..., Any]) -> None:
    """Catches: lenses that do not move, a run that cannot be stopped, kept or saved, a link that is dead."""
    page = open_notebook(NOTEBOOK, LINKED, width=1000)
    assert page.page.locator(".jp-OutputArea-output img").count() >= 7
    page.run_all(300)
    assert page.errors() == []
    page.look_at("One network, five lenses")
    page.wait_status("Made in")
    page.shot("1-as-run", only_panel=True)

    before = page.picture()
    page.button("Train").click()
    page.wait_picture(before, 60)
    page.wait_status("Done at step", 120)
    verdicts = {claim: page.wait_verdict(claim) for claim in ("L1", "L2", "L3", "L4", "L5")}
    assert set(verdicts.values()) == {"✓ holds"}
    page.shot("2-trained", only_panel=True)

    # The first move of the text, from the keyboard: 256 units to 16, behind it the wide network in grey.
    page.button("Keep run").click()
    page.slider("width").focus()
    for _ in range(4):
        page.page.keyboard.press("ArrowLeft")
    assert page.readout("width") == "16"
    page.page.wait_for_selector("text=In grey: 1: width 256", timeout=60_000)
    page.wait_status("Done at step", 120)
    assert page.wait_verdict("L3") == "✗ fails"
    assert page.wait_verdict("L4") == "∅ out of regime"
    page.shot("3-narrow-with-the-wide-run-kept", only_panel=True)

    page.button("Save SVG").click()
    page.page.wait_for_selector("text=Saved labkit-lenses-01.svg", timeout=20_000)

    # Wide again, and stopped half way: what was measured stays.
    page.slider("width").focus()
    page.page.keyboard.press("End")
    page.wait_status("steps/s", 60)
    seen = page.picture()
    page.wait_picture(seen, 60)
    page.button("Stop").click()
    page.wait_status("Stopped at step")
    page.shot("4-stopped", only_panel=True)
    assert page.errors() == []

    page.page.locator("a[href*='04_low_rank_jacobian.ipynb']").first.click()
    page.page.wait_for_selector(".lm-TabBar-tabLabel:text-is('04_low_rank_jacobian.ipynb')", timeout=30_000)
