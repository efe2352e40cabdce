"""Makes docs/panel.png and docs/live.gif: a real run in a real JupyterLab, as the README shows it.

    python docs/make_pictures.py

Needs what the browser tests need: the extra `test`, and a Chromium on the machine. Nothing is staged but the
mouse, drawn because a headless browser has none to see, and the folded settings below, which are left out.
Frames keep the time they took, up to a third of a second each.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.browser.conftest import FLAGS, Notebook, Server, chromium  # noqa: E402

NOTEBOOK = ROOT / "notebooks" / "04_low_rank_jacobian.ipynb"
# So small that the prediction follows the mouse also on a slow machine.
LINES = """import labkit
from labkit.labs import jacobian as lab

labkit.Panel(lab.RESIDUALS, lab.RESIDUALS.preset(n=60, steps=2000))"""
COLORS, MOST_BYTES, MOST_SECONDS = 256, 1_500_000, 12.0
FIRST, LAST, SLOWEST = 1.2, 2.5, 0.35  # seconds: the first and last frame rest, none in between lasts longer
CURSOR = """() => {
  const arrow = document.createElement('div');
  arrow.innerHTML = "<svg width='22' height='26'><path d='M2 2v18l5-4 4 8 4-2-4-7h7z' fill='#111' " +
    "stroke='#fff' stroke-width='1.5'/></svg>";
  arrow.style.cssText = 'position:fixed;left:-99px;top:0;z-index:99999;pointer-events:none';
  document.body.append(arrow);
  document.addEventListener('pointermove', e => {
    arrow.style.left = e.clientX - 2 + 'px'; arrow.style.top = e.clientY - 2 + 'px';
  }, true);
}"""


class Film:
    """Pictures of one part of a page, each with the moment it was taken."""

    def __init__(self, page: Any, clip: dict[str, float]) -> None:
        self._page, self._clip = page, clip
        self.frames: list[tuple[float, Image.Image]] = []

    def shoot(self) -> None:
        picture = Image.open(io.BytesIO(self._page.screenshot(clip=self._clip)))
        self.frames.append((time.monotonic(), picture.convert("RGB")))

    def drag(self, x0: float, x1: float, y: float, steps: int) -> None:
        """Presses at x0, moves to x1 as a hand does, and lets go."""
        mouse = self._page.mouse
        mouse.move(x0, y)
        self.shoot()
        mouse.down()
        for step in range(1, steps + 1):
            share = step / steps
            mouse.move(x0 + (x1 - x0) * share * share * (3 - 2 * share), y)
            self.shoot()
        mouse.up()

    def save(self, path: Path) -> tuple[int, float]:
        """Writes the film as a GIF that loops; returns bytes and seconds."""
        kept = [self.frames[0]]
        for moment, picture in self.frames[1:]:
            if picture.tobytes() != kept[-1][1].tobytes():
                kept.append((moment, picture))
        times = [moment for moment, _ in kept]
        pauses = [min(after - before, SLOWEST) for before, after in zip(times, times[1:], strict=False)]
        seconds = [FIRST, *pauses[1:], LAST]
        # One palette for all frames: a colour that changed from frame to frame would flicker.
        few = [picture for _, picture in kept[:: max(1, len(kept) // 8)]] + [kept[-1][1]]
        sheet = Image.new("RGB", (few[0].width, sum(one.height for one in few)))
        for index, one in enumerate(few):
            sheet.paste(one, (0, index * few[0].height))
        palette = common_colors(sheet)
        frames = [painted(picture, palette) for _, picture in kept]
        milliseconds = [max(20, 10 * round(100 * one)) for one in seconds]
        frames[0].save(
            path, save_all=True, append_images=frames[1:], duration=milliseconds, loop=0, optimize=False
        )
        return path.stat().st_size, sum(milliseconds) / 1000


def common_colors(picture: Image.Image) -> np.ndarray:
    """A palette (COLORS, 3): half of it the most frequent colours as they are, half to cover the others."""
    counted = picture.getcolors(picture.width * picture.height) or []
    often = [rgb for _, rgb in sorted(counted, reverse=True)[: COLORS // 2]]
    others = picture.quantize(COLORS // 2, method=Image.Quantize.MAXCOVERAGE).getpalette() or []
    return np.concatenate([often, np.reshape(others, (-1, 3))])[:COLORS]


def painted(picture: Image.Image, palette: np.ndarray) -> Image.Image:
    """The picture with each colour replaced by the nearest of the palette; Pillow's own search is rough."""
    flat = np.asarray(picture, dtype=np.int64).reshape(-1, 3)
    codes, place = np.unique(flat @ [65536, 256, 1], return_inverse=True)
    colors = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1)
    nearest = ((colors[:, None] - palette) ** 2).sum(axis=2).argmin(axis=1)
    done = Image.fromarray(nearest[place].reshape(picture.height, picture.width).astype(np.uint8), "P")
    done.putpalette(palette.astype(np.uint8).tobytes())
    return done


def small_notebook(folder: Path) -> Path:
    """A notebook of two cells: what notebook 4 does to show this panel."""
    cells = [nbformat.v4.new_markdown_cell("## A live run"), nbformat.v4.new_code_cell(LINES)]
    path = folder / NOTEBOOK.name
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def film(notebook: Notebook) -> Film:
    """Trains on true labels, then drags the label noise up and lets the panel train again."""
    page = notebook.page
    notebook.run_all()
    notebook.wait_status("Press Train")
    # The first prediction is slow, as all is that runs first; from the second on it follows the slider.
    slider = notebook.slider("label noise (strict)")
    slider.focus()
    for key in ("ArrowRight", "ArrowRight", "Home"):
        page.keyboard.press(key)
        page.wait_for_timeout(1500)
    notebook.wait_status("Done at step", 120)
    notebook.button("Clear kept").click()
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(1000)
    page.add_style_tag(content=".lm-Widget.widget-accordion { visibility: hidden }")
    panel = page.locator(".lm-Widget.widget-vbox").first
    panel.scroll_into_view_if_needed()
    page.evaluate(CURSOR)
    top, end = panel.bounding_box(), notebook.button("Save PNG").bounding_box()
    # Room below for the lines that the second run adds.
    clip = {"x": top["x"], "y": top["y"], "width": top["width"], "height": end["y"] + 60 - top["y"]}
    taken = Film(page, clip)
    taken.shoot()
    handle = slider.bounding_box()
    middle, start = handle["y"] + handle["height"] / 2, handle["x"] + handle["width"] / 2
    track = page.locator(".noUi-target", has=page.locator(".noUi-handle")).first.bounding_box()["width"]
    taken.drag(start, start + 0.5 * track, middle, steps=20)
    limit, running = time.monotonic() + 60, False
    while time.monotonic() < limit and not (running and "Done at step" in notebook.status()):
        running = running or "Done at step" not in notebook.status()
        taken.shoot()
    page.wait_for_timeout(1000)
    taken.shoot()
    return taken


def main() -> None:
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        home = Path(folder)
        server = Server(home)
        try:
            browser = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
            small_notebook(server.folder)
            page = browser.new_context(viewport={"width": 1300, "height": 1500}).new_page()
            notebook = Notebook(page, server, NOTEBOOK.name, home)
            taken = film(notebook)
            page.mouse.move(5, 5)
            page.add_style_tag(content=".lm-Widget.widget-accordion { visibility: visible !important }")
            page.locator(".lm-Widget.widget-vbox").first.screenshot(path=ROOT / "docs" / "panel.png")
            browser.close()
        finally:
            server.stop()
    size, seconds = taken.save(ROOT / "docs" / "live.gif")
    sys.stdout.write(
        f"docs/live.gif: {len(taken.frames)} frames taken, {size / 1e6:.2f} MB, {seconds:.1f} s\n"
    )
    if size > MOST_BYTES or seconds > MOST_SECONDS:
        sys.exit(f"it should be at most {MOST_BYTES / 1e6:.1f} MB and {MOST_SECONDS:g} s")


if __name__ == "__main__":
    main()
