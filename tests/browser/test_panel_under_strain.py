"""What a panel must bear: haste, a neighbour, a kernel that dies, a closed notebook, a foreign style."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nbformat
import pytest

TOY = Path(__file__).parents[1] / "live" / "toy_lab.py"
STYLE = """text.usetex: True
backend: TkAgg
font.size: 22
axes.facecolor: black
lines.linewidth: 7
lines.scale_dashes: False
figure.dpi: 40
"""
# A hand that moves to and fro, so many moves in so many milliseconds; a page moves a real mouse slower.
HASTE = """async ([x, y, moves, milliseconds]) => {
  const begun = performance.now();
  for (let i = 1; i <= moves; i++) {
    const at = x + 60 * Math.sin(i / 9) + (i === moves ? 300 : 0);
    document.body.dispatchEvent(new MouseEvent("mousemove",
      {clientX: at, clientY: y, buttons: 1, bubbles: true}));
    await new Promise(done => setTimeout(done, begun + i * milliseconds / moves - performance.now()));
  }
  return performance.now() - begun;
}"""
PICTURE = "async img => [...new Uint8Array(await (await fetch(img.src)).arrayBuffer())]"

pytestmark = pytest.mark.slow


def notebook_of(path: Path, *sources: str) -> Path:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


@pytest.fixture
def two_panels(open_notebook: Callable[..., Any], tmp_path: Path) -> Any:
    """A notebook with two panels of one experiment, run."""
    first = "from labkit.live import Panel\nfrom toy_lab import TOY"
    panels = (f"Panel(TOY, TOY.preset({what}), title={name!r})" for name, what in
              (("left", "steps=400, pause=0.02"), ("right", "steps=60")))  # fmt: skip
    page = open_notebook(notebook_of(tmp_path / "strain.ipynb", first, *panels), TOY)
    page.run_all()
    page.look_at("left")
    page.wait_status("Press Train")
    return page


def stored_pictures(page: Any) -> Sequence[bool]:
    """Of the pictures outside widgets: whether each is seen."""
    found = page.page.locator(".jp-OutputArea-output img:not(.widget-image)")
    return [one.is_visible() for one in found.all()]


def test_a_panel_bears_haste_a_neighbour_a_dead_kernel_and_a_closed_notebook(
    two_panels: Any, open_notebook: Callable[..., Any], server: Any, tmp_path: Path
) -> None:
    """Catches: a backlog of moves, one panel in another, and a notebook that has lost its pictures."""
    page = two_panels
    assert stored_pictures(page) == [False, False]
    page.button("Train").click()
    page.wait_status("steps/s")

    # While the left one trains: 200 moves in three seconds on the right.
    page.look_at("right")
    handle = page.slider("rate").bounding_box()
    x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
    page.page.mouse.move(x, y)
    page.page.mouse.down()
    took = page.page.evaluate(HASTE, [x, y, 200, 3000])
    page.page.mouse.up()
    waited = page.wait_status("Done at step 60", 30)
    assert page.readout("rate") == "3.0"
    page.page.locator(".jupyter-widget-Collapse-header", has_text="Repeat this run").nth(1).click()
    page.page.wait_for_timeout(500)
    assert "rate=3.0" in page.field("Python")
    (page.artifacts / "haste.txt").write_text(f"200 moves in {took:.0f} ms; then {waited:.1f} s\n", "utf-8")
    page.look_at("left")
    assert page.readout("rate") == "1.0" and "steps/s" in page.status() and page.errors() == []

    # The kernel is started anew while it trains, and all cells are run.
    page.restart()
    page.run_all()
    page.wait_status("Press Train")
    page.button("Train").click()
    page.wait_status("Done at step 400", 60)
    page.look_at("right")
    assert "Press Train" in page.status() and page.errors() == []

    # Closed, and opened when the kernel is gone.
    page.page.wait_for_timeout(500)
    page.save()
    page.command("kernelmenu:shutdown")
    page.page.wait_for_timeout(1000)
    page.page.context.close()
    kept = tmp_path / "kept.ipynb"
    kept.write_bytes((server.folder / "strain.ipynb").read_bytes())
    again = open_notebook(kept)
    again.page.wait_for_selector("text=model not found", timeout=20_000)
    again.shot("opened-again")
    assert stored_pictures(again) == [True, True]
    # On the left that of the run that ended, at two dots a pixel and no wider for it.
    sizes = "all => all.map(i => [i.naturalWidth, i.clientWidth <= 900])"
    shown = again.page.locator(".jp-OutputArea-output img").evaluate_all(sizes)
    assert shown == [[1800, True], [900, True]]
    again.run_all()
    again.look_at("left")
    again.wait_status("Press Train")
    assert stored_pictures(again) == [False, False]
    again.button("Train").click()
    again.wait_status("steps/s")
    assert again.errors() == []


def test_a_matplotlibrc_in_the_folder_changes_no_picture(
    open_notebook: Callable[..., Any], tmp_path: Path
) -> None:
    """Catches: LaTeX that is asked for and is not there, and curves as another style has them."""
    path = notebook_of(
        tmp_path / "style.ipynb",
        "import matplotlib\nfrom labkit.live import Panel\nfrom toy_lab import TOY",
        "print(matplotlib.rcParams['font.size'])",
        "Panel(TOY, TOY.preset(steps=20, pause=0.0))",
    )
    style = tmp_path / "matplotlibrc"
    style.write_text(STYLE)
    seen = []
    for folder, beside, size in (("plain", (TOY,), "10.0"), ("styled", (TOY, style), "22.0")):
        page = open_notebook(path, *beside, folder=folder)
        page.run_all()
        page.wait_status("Press Train")
        assert (
            page.errors() == []
            and page.page.locator(".jp-OutputArea-output").first.inner_text().strip() == size
        )
        page.button("Train").click()
        page.wait_status("Done at step 20")
        page.page.wait_for_timeout(800)
        page.shot(folder)
        seen.append(page.panel.locator("img.widget-image").evaluate(PICTURE))
    assert seen[0] == seen[1]
