"""The site builds without a warning, its links lead somewhere, and it needs no network."""

from __future__ import annotations

import os
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.conftest import ROOT
from tests.site.test_reference import NAMES

EXTRA = ("sphinx", "myst_nb", "furo", "sphinx-mathjax-offline")


class Page(HTMLParser):
    """What a page is made of: its anchors, what it links to, and what a browser loads with it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        self.links += [found["href"]] if tag == "a" and "href" in found else []
        loads = {"script": "src", "img": "src", "link": "href"}.get(tag)
        self.loaded += [found[loads]] if loads in found and found.get("rel") != "canonical" else []


def dead(pages: dict[Path, Page], site: Path) -> list[str]:
    """Links, within the site, to a file or an anchor that is not there."""
    found = []
    for path, page in pages.items():
        for link in {*page.links, *page.loaded}:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = pages[target].anchors if target in pages else {unquote(parts.fragment)}
            here = target in pages or target.exists()
            if not here or (parts.fragment and unquote(parts.fragment) not in anchors):
                found.append(f"{path.relative_to(site)}: {link}")
    return found


def test_the_search_for_dead_links_sees_each_kind(tmp_path):
    """A check that finds nothing anywhere proves nothing."""
    links = ["#a", "#b", "there.html", "gone.html"]
    text = '<p id="a"><img src="no.png">' + "".join(f'<a href="{link}"></a>' for link in links)
    pages = {tmp_path / "here.html": Page(text), tmp_path / "there.html": Page("")}
    assert sorted(dead(pages, tmp_path)) == ["here.html: #b", "here.html: gone.html", "here.html: no.png"]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    if missing := [name for name in EXTRA if find_spec(name) is None]:
        pytest.skip(f"the extra docs is not installed: there is no {', '.join(missing)}")
    out = tmp_path_factory.mktemp("site").resolve()
    words = ["-W", "--keep-going", "-q", "-c", "docs/site", "-d", f"{out}/trees", ".", f"{out}/html"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    return out / "html"


@pytest.mark.slow
def test_the_site_is_whole_and_needs_no_network(site):
    """A page that nobody opened; a name without entry; mathematics from somebody else's server."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    assert (site / "index.html") in pages and len(pages) > 150
    assert dead(pages, site) == []
    away = {link for page in pages.values() for link in page.loaded if urlsplit(link).netloc}
    assert away == set()
    anchors = {anchor for page in pages.values() for anchor in page.anchors}
    assert {one.path for own in NAMES.values() for one in own} - anchors == set()


@pytest.mark.slow
def test_a_notebook_is_as_it_was_stored(site):
    """A page without the figures, or with mathematics as source, is no notebook."""
    text = (site / "notebooks" / "04_low_rank_jacobian.html").read_text(encoding="utf-8")
    assert text.count("<img ") >= 15 and "math notranslate" in text
    assert "tag_hide-input" in text  # a solution, folded
    assert (site / "_static" / "mathjax" / "tex-chtml.js").exists()
