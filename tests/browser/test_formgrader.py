"""A lecturer's afternoon in nbgrader's formgrader: a course that labkit released and graded, opened there."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell

from tests.browser.conftest import TOKEN, Server
from tests.classroom.conftest import LESSON, read

NAME = "07_means"
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
MEAN = "import math\ndef mean(values):\n    return math.fsum(values) / len(values)"


def course_with_a_submission(folder: Path) -> None:
    """One right answer with its tests deleted, an open one with a picture, and a cell of one's own."""
    from labkit.classroom.grading.grade import grade
    from labkit.classroom.release import release

    own = folder.parent / f"{NAME}.ipynb"
    nbformat.write(read(LESSON), own)
    release([os.fspath(own)], folder, execute=False)
    notebook = nbformat.read(folder / "release" / NAME / f"{NAME}.ipynb", as_version=4)
    cells = {cell.metadata.nbgrader.grade_id: cell for cell in notebook.cells if "nbgrader" in cell.metadata}
    cells["exercise-7-1"].source = MEAN
    cells["exercise-7-4"].source = "The outlier. ![shot](attachment:shot.png)"
    cells["exercise-7-4"]["attachments"] = {"shot.png": {"image/png": DOT}}
    notebook.cells.remove(cells["tests-7-1"])
    notebook.cells.append(new_markdown_cell("The median stays (a cell of my own)."))
    path = folder / "submitted" / "anna" / NAME / f"{NAME}.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(notebook, path)
    grade(folder / "submitted", course=folder)


@pytest.mark.slow
def test_the_formgrader_shows_the_students_notebook_and_takes_a_mark(
    browser: Any, tmp_path: Path, artifacts: Path
) -> None:
    """What a person opens there was held by the files alone, and by nobody's eyes."""
    gradebook = pytest.importorskip("nbgrader.api", reason="the extra `course` is not installed").Gradebook
    course_with_a_submission(tmp_path / "notebooks")
    server = Server(tmp_path)
    try:
        page = browser.new_page(viewport={"width": 1400, "height": 3600})
        page.goto(f"{server.url}/lab?token={TOKEN}&reset", timeout=60_000)
        page.locator(".lm-MenuBar-itemLabel:text-is('Nbgrader')").click(timeout=60_000)
        page.locator(".lm-Menu-itemLabel:text-is('Formgrader')").click()
        form = page.frame_locator("iframe").first
        form.get_by_role("link", name="Manual Grading").click(timeout=60_000)
        for _ in range(2):  # The assignment, and its notebook of the same name.
            page.wait_for_load_state("networkidle")
            form.locator(f"td a:text-is('{NAME}')").click(timeout=60_000)
        form.locator("td a:text-is('Submission #1')").click(timeout=60_000)
        form.locator("#tests-7-1[placeholder='3']").wait_for(timeout=60_000)
        for task in ("tests-7-2a", "tests-7-2b", "tests-7-3"):
            form.locator(f"#{task}[placeholder='0']").wait_for()
        text = form.locator("body").inner_text()
        assert 'award("7.1", tests_7_1, "mean", points=3)' in text  # The deleted tests are back.
        assert "return math.fsum(values) / len(values)" in text and "(a cell of my own)" in text
        assert form.locator("img[src^='data:image/png']").evaluate("image => image.naturalWidth") == 1
        with page.expect_response(lambda answer: answer.request.method == "PUT") as saved:
            form.locator("input#exercise-7-4").fill("2.5")
            form.locator("input#exercise-7-4").press("Tab")
        assert saved.value.ok
        page.screenshot(path=artifacts / "formgrader.png")
        form.locator(f"a:text-is('{NAME}')").last.click()
        form.locator("td:text-is('5.5 / 12')").wait_for(timeout=60_000)
    finally:
        server.stop()
    with closing(gradebook(f"sqlite:///{tmp_path / 'notebooks' / 'gradebook.db'}")) as book:
        assert book.find_submission(NAME, "anna").score == 5.5
        assert not book.find_submission(NAME, "anna").needs_manual_grade
