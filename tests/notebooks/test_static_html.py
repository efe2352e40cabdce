"""The notebooks as web pages without a kernel: every figure and every panel is there, and every link works.

The pages are those of `jupyter nbconvert --to html --embed-images`; GitHub shows the same outputs.
"""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from nbconvert import HTMLExporter

from labkit.notebooks import find_folder, notebook_paths

try:
    NOTEBOOKS = notebook_paths(find_folder())
except ValueError:
    NOTEBOOKS = []
# What a page shows in place of a widget that it cannot draw, or of a figure that is only named.
STAND_INS = (
    "Loading widget",
    "A Jupyter Widget",
    "Error displaying widget",
    "<Panel>",
    "<Chart>",
    "HBox(",
    "VBox(",
)
PNG = b"\x89PNG\r\n\x1a\n"


class Page(HTMLParser):
    """The pictures, links, anchors and visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.pictures: list[dict[str, Any]] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.text = ""
        self._hidden = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors.update(name for name in (found.get("id"), found.get("name")) if name)
        if tag == "img":
            self.pictures.append(found)
        elif tag == "a" and found.get("href"):
            self.links.append(found["href"] or "")
        elif tag in ("script", "style"):
            self._hidden += 1

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._hidden -= 1

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text += data


@pytest.fixture(scope="module", params=NOTEBOOKS or [None], ids=lambda path: path.stem if path else "none")
def shown(request: pytest.FixtureRequest) -> Any:
    """(path, notebook, its page)."""
    if request.param is None:
        pytest.skip("there is no notebook in notebooks/ yet")
    exporter = HTMLExporter(embed_images=True)
    notebook = nbformat.read(request.param, as_version=4)
    return request.param, notebook, Page(exporter.from_notebook_node(notebook)[0])


def outputs(notebook: Any) -> list[Any]:
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [output for cell in cells for output in cell.outputs if "data" in output]


def anchor(link: str) -> str:
    """The anchor of a link, or of an id as a link to it; nbconvert percent-encodes both."""
    return unquote(urlsplit(link).fragment)


def test_every_figure_and_every_panel_is_a_picture(shown: Any) -> None:
    """A panel that is nothing without its kernel leaves a gap in the lesson."""
    _, notebook, page = shown
    named = [o for o in outputs(notebook) if o.data.get("text/plain", "") in ("<Chart>", "<Panel>")]
    assert any(o.data["text/plain"] == "<Panel>" for o in named) and len(named) >= 2
    assert all("image/png" in o.data for o in named)
    stored = [o.data["image/png"].replace("\n", "") for o in outputs(notebook) if "image/png" in o.data]
    sources = [re.sub(r"\s", "", picture.get("src") or "") for picture in page.pictures]
    assert [s for s in sources if not s.startswith("data:image/")] == []  # nothing is fetched
    for data in stored:
        assert f"data:image/png;base64,{data}" in sources
        assert base64.b64decode(data).startswith(PNG)


def test_no_widget_state_is_stored_and_no_stand_in_shown(shown: Any) -> None:
    """ "Loading widget..." for ever."""
    _, notebook, page = shown
    assert "widgets" not in notebook.metadata
    kinds = {kind for output in outputs(notebook) for kind in output.data}
    assert [kind for kind in kinds if "widget" in kind] == []
    assert [words for words in STAND_INS if words in page.text] == []
    assert "Traceback (most recent call last)" not in page.text


def test_every_link_of_a_notebook_leads_to_a_file_or_a_heading_that_is_there(shown: Any) -> None:
    """A link to the next notebook that works in the author's folder alone."""
    path, _, page = shown
    anchors = {anchor(f"#{name}") for name in page.anchors}
    lost = []
    for link in page.links:
        parts = urlsplit(link)
        if parts.scheme in ("http", "https", "mailto", "data"):
            continue
        there = (path.parent / unquote(parts.path)).exists() if parts.path else anchor(link) in anchors
        if not there:
            lost.append(link)
    assert lost == []


def test_the_stored_outputs_hold_what_describes_each_figure(shown: Any) -> None:
    """ "No description has been provided for this image", twenty times over.

    Of nbconvert's templates only `classic` passes the words on.
    """
    _, notebook, _ = shown
    page = Page(HTMLExporter(template_name="classic", embed_images=True).from_notebook_node(notebook)[0])
    figures = [o for o in outputs(notebook) if o.data.get("text/plain", "") in ("<Chart>", "<Panel>")]
    said = [o.metadata.get("image/png", {}).get("alt", "") for o in figures]
    assert figures
    assert all(words.startswith("Figure. ") for words in said)
    alternatives = [picture.get("alt") for picture in page.pictures]
    assert [words for words in said if words not in alternatives] == []


def test_the_page_reader_sees_what_is_wrong() -> None:
    """A check that finds nothing anywhere proves nothing."""
    page = Page('<script>"<Panel>"</script><p id="a">&lt;Panel&gt;</p><img src="x.png"><a href="#b">b</a>')
    assert "<Panel>" in page.text and page.pictures[0]["src"] == "x.png"
    assert page.links == ["#b"] and "b" not in page.anchors
    assert "<Panel>" not in Page('<script>"<Panel>"</script>').text
