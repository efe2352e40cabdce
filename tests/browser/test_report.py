"""The report as a reader has it: by day and by night, on a phone, on paper, without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labkit.headless.audit import audit, audit_labs
from labkit.headless.report import report_html, to_html
from tests.tinylab import EXTRA, LAB

# Text whose colour stands out less than 4.5 : 1 from what lies behind it: (text, ratio).
FAINT = """() => {
  const channels = text => (text.match(/[0-9.]+/g) || []).map(Number);
  const light = ([r, g, b]) => {
    const part = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const over = (top, under) => {
    const a = top.length > 3 ? top[3] : 1;
    return [0, 1, 2].map(k => a * top[k] + (1 - a) * under[k]);
  };
  const behind = element => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(channels(getComputedStyle(e).backgroundColor));
    const canvas = matchMedia('(prefers-color-scheme: dark)').matches && !matchMedia('print').matches
      ? [18, 18, 18] : [255, 255, 255];
    return layers.reverse().reduce((under, top) => top.length < 3 ? under : over(top, under), canvas);
  };
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
    if (!text || !element.getClientRects().length) continue;
    seen += 1;
    const back = behind(element), ink = over(channels(getComputedStyle(element).color), back);
    const [a, b] = [light(ink), light(back)].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) found.push([text, ratio]);
  }
  return {seen, found};
}"""
# A sheet inside margins of 14 mm, in pixels of 1/96 inch.
SHEETS = {"A4": (688, 1016), "Letter": (710, 950)}


@pytest.fixture(scope="module", params=["one lab", "two labs"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def breaks(*_: Any) -> None:
        raise RuntimeError("a message that is long: " + "/a/very/long/path/without/a/gap" * 8)

    if request.param == "one lab":
        page = to_html(audit(LAB, all_claims=True, changes={"fate": "diverged"}))
    else:
        broken = replace(LAB, number=8, name="broken", experiments=(*LAB.experiments[:1],
                         replace(EXTRA, prepare=breaks)))  # fmt: skip
        page = report_html(audit_labs([LAB, broken]))
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a file, and fails at the end if it asked for anything else or complained."""
    contexts, complaints = [], []

    def asked(url: str, path: Path) -> None:
        if url.split("#")[0] != path.as_uri() and not url.startswith("data:"):
            complaints.append(f"it asked for {url}")

    def open_it(path: Path, width: int = 1200, scheme: str = "light") -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked(request.url, path))
        page.goto(path.as_uri())
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert complaints == []


def test_every_link_leads_somewhere_and_every_picture_shows(opened: Callable[..., Any], path: Path) -> None:
    """A dead anchor, or a picture that no browser can draw."""
    page = opened(path)
    targets = page.eval_on_selector_all("a", "links => links.map(a => a.getAttribute('href'))")
    assert len(targets) > 5 and all(target.startswith("#") for target in targets)
    assert [t for t in targets if page.locator(f"[id='{t[1:]}']").count() != 1] == []
    sizes = page.eval_on_selector_all(
        "img", "all => all.map(i => [i.complete, i.naturalWidth, i.alt.length])"
    )
    assert sizes and all(complete and wide >= 800 and words for complete, wide, words in sizes)
    page.locator("td a").first.click()
    page.wait_for_function(
        "() => Math.abs(document.querySelector(':target').getBoundingClientRect().top) < 2"
    )


@pytest.mark.parametrize("kind", ["light", "dark", "print"])
def test_all_text_stands_out_from_what_lies_behind_it(
    opened: Callable[..., Any], path: Path, kind: str, artifacts: Path
) -> None:
    """Grey on grey, or a night's colours on white paper."""
    page = opened(path, scheme="light" if kind == "light" else "dark")
    if kind == "print":
        page.emulate_media(media="print")
    for anchor in ("", "#tiny-T1", "#tiny-decay"):  # what was jumped to is marked by another background
        page.evaluate("anchor => { location.hash = anchor }", anchor)
        assert page.locator(":target").count() == bool(anchor)
        seen = page.evaluate(FAINT)
        assert seen["seen"] > 40 and seen["found"] == []
    page.screenshot(path=artifacts / f"report-{path.parent.name}-{kind}.png", full_page=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_contrast_check_sees_faint_text(opened: Callable[..., Any], path: Path, scheme: str) -> None:
    """A check that finds nothing anywhere proves nothing."""
    page = opened(path, scheme=scheme)
    page.evaluate("document.querySelector('h1').style.color = '#8a8a8a'; document.body.style.opacity = 1")
    page.add_style_tag(content="figcaption { background: rgb(128 128 128 / .9); color: #777 }")
    faint = [text for text, _ in page.evaluate(FAINT)["found"]]
    assert "a caption with <angles>" in faint and (
        scheme == "dark" or page.locator("h1").inner_text() in faint
    )


@pytest.mark.parametrize("width", [360, 900, 1200])
def test_nothing_is_wider_than_the_screen(
    opened: Callable[..., Any], path: Path, width: int, artifacts: Path
) -> None:
    """Reading a table through a keyhole, line by line to and fro."""
    page = opened(path, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wide = page.eval_on_selector_all(
        "h1, h2, h3, p, td, th, dd, img, a",
        "(all, width) => all.filter(e => e.getBoundingClientRect().right > width + 1).map(e => e.outerHTML)",
        width,
    )
    assert [html for html in wide if "columnheader" not in html] == []
    page.screenshot(path=artifacts / f"report-{path.parent.name}-{width}.png", full_page=True)


@pytest.mark.parametrize("sheet", sorted(SHEETS))
def test_paper_cuts_no_figure_and_no_row(opened: Callable[..., Any], path: Path, sheet: str) -> None:
    """Half a curve on each of two sheets."""
    width, height = SHEETS[sheet]
    page = opened(path, width=width)
    page.emulate_media(media="print")
    kept = page.eval_on_selector_all(
        "figure, figure img, tbody, tr, details",
        "all => all.map(e => [e.tagName, getComputedStyle(e).breakInside, e.getBoundingClientRect().height])",
    )
    assert {tag for tag, _, _ in kept} == {"FIGURE", "IMG", "TBODY", "TR", "DETAILS"}
    # What is taller than a sheet would be cut whatever the style sheet says.
    assert [one for one in kept if one[1] != "avoid" or one[2] > height] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.pdf(format=sheet).startswith(b"%PDF")


def test_a_screen_reader_finds_its_way(opened: Callable[..., Any], path: Path) -> None:
    """Headings that skip a level, pictures without words, a table that a narrow screen takes apart."""
    page = opened(path, width=360)
    levels = [
        int(tag[1]) for tag in page.eval_on_selector_all("h1,h2,h3,h4", "all => all.map(h => h.tagName)")
    ]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    assert page.locator("main").count() == 1 and page.locator("html[lang=en]").count() == 1
    assert page.locator("nav:not([aria-label]), img:not([alt]), img[alt='']").count() == 0
    assert page.get_by_role("table", name="Verdicts", exact=True).count() >= 1
    assert page.get_by_role("rowheader", name="T1", exact=True).count() >= 1
    assert page.get_by_role("columnheader", name="measured", exact=True).count() >= 1
