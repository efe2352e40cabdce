"""The tools that keep notebooks paired, executed and free of widget state, on small notebooks made here."""

from __future__ import annotations

import os
import shutil
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from labkit import notebooks
from tests.conftest import ROOT

PYTHON_HALF = """# %% [markdown]
# # A question

# %% tags=["setup"]
import sys

# %%
print("J1 holds")
"""


@pytest.fixture
def pair(tmp_path):
    """A notebook that was just executed, and its .py half."""
    shutil.copy(ROOT / "jupytext.toml", tmp_path)
    path = tmp_path / "04_x.ipynb"
    path.with_suffix(".py").write_text(PYTHON_HALF)
    notebooks.sync(path, "py")
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["labkit"] = {"executed": notebooks.code_hash(notebook)}
    notebooks._write(notebook, path)
    return path


def edit(path, change):
    notebook = nbformat.read(path, as_version=4)
    change(notebook)
    nbformat.write(notebook, path)


def only_problem(path):
    found = notebooks.problems(path)
    assert len(found) == 1, found
    return found[0]


def test_a_fresh_pair_has_no_problem(pair):
    """A check that always complains is soon ignored."""
    assert notebooks.problems(pair) == []


def test_changed_code_is_stale_and_changed_text_is_not(pair):
    """A stale figure looks like a result; re-running for a comma costs a minute."""
    for half in (pair, pair.with_suffix(".py")):
        half.write_text(half.read_text().replace("A question", "Another question"))
    assert notebooks.problems(pair) == []
    for half in (pair, pair.with_suffix(".py")):
        half.write_text(half.read_text().replace("J1 holds", "J1 fails"))
    assert only_problem(pair).startswith("stale") and "execute 04_x.ipynb" in only_problem(pair)


@pytest.mark.parametrize(
    ("old", "new"),
    [("J1 holds", "J2 holds"), ("A question", "A statement"), ('"setup"', '"other"'), ("# %%\n", "")],
)
def test_halves_that_differ_in_code_text_tag_or_number_of_cells_are_told(pair, old, new):
    """A half that lags behind brings the old lesson back at the next sync."""
    half = pair.with_suffix(".py")
    half.write_text(half.read_text().replace(old, new))
    assert only_problem(pair).startswith("its halves differ")


def test_a_missing_half_is_told(pair):
    """A notebook without its .py cannot be reviewed."""
    pair.with_suffix(".py").unlink()
    assert "has no .py half" in only_problem(pair)


def test_widget_state_errors_stderr_and_size_are_told(pair, monkeypatch):
    """Each of these shows a reader on the web an error, or nothing."""
    edit(pair, lambda nb: nb.metadata.update(widgets={}))
    assert "widget state" in only_problem(pair)
    edit(pair, lambda nb: nb.metadata.pop("widgets"))
    error = new_output("error", ename="NameError", evalue="", traceback=[])
    edit(pair, lambda nb: nb.cells[1].outputs.append(error))
    assert "cell 1 ends in NameError" in only_problem(pair)
    warning = new_output("stream", name="stderr", text="careful")
    edit(pair, lambda nb: nb.cells[1].outputs.__setitem__(0, warning))
    assert "stderr" in only_problem(pair)
    edit(pair, lambda nb: nb.cells[1].metadata.update(tags=["setup", "raises-exception"]))
    assert only_problem(pair).startswith("its halves differ")
    edit(pair, lambda nb: nb.cells[1].update(outputs=[]) or nb.cells[1].metadata.update(tags=["setup"]))
    monkeypatch.setattr(notebooks, "MAX_BYTES", 100)
    assert "larger than" in only_problem(pair)


def test_sync_takes_the_newer_half_and_keeps_outputs_and_ids_of_unchanged_cells(pair):
    """Losing outputs at a change of text would force a re-run; new ids would touch every cell."""
    output = new_output("stream", name="stdout", text="J1 holds\n")
    edit(pair, lambda nb: nb.cells[2].outputs.append(output))
    before = nbformat.read(pair, as_version=4)
    half = pair.with_suffix(".py")
    half.write_text(half.read_text().replace("A question", "Another question"))
    os.utime(pair, (0, 0))
    assert notebooks.sync(pair) == pair
    after = nbformat.read(pair, as_version=4)
    assert after.cells[0].source == "# Another question"
    assert [cell.id for cell in after.cells[1:]] == [cell.id for cell in before.cells[1:]]
    assert after.cells[2].outputs == before.cells[2].outputs
    assert after.metadata == before.metadata
    assert notebooks.sync(pair) is None and notebooks.problems(pair) == []


def test_sync_writes_the_py_half_when_the_notebook_is_newer_and_without_versions(pair):
    """A version in the header would change every file at every upgrade of jupytext."""
    edit(pair, lambda nb: nb.cells.append(new_markdown_cell("The end")))
    os.utime(pair.with_suffix(".py"), (0, 0))
    assert notebooks.sync(pair) == pair.with_suffix(".py")
    text = pair.with_suffix(".py").read_text()
    assert "# The end" in text and "jupytext_version" not in text and "executed" not in text
    assert '# %% tags=["setup"]' in text


def test_py_half_does_not_change_when_only_outputs_or_ids_do(pair):
    """Diffs of the .py half are what a reviewer reads; they should show the lesson alone."""
    first = notebooks.sync(pair, "ipynb")
    assert first is None
    pair.with_suffix(".py").unlink()
    notebooks.sync(pair)
    text = pair.with_suffix(".py").read_text()
    edit(pair, lambda nb: nb.cells[2].update(id="other", execution_count=9))
    pair.with_suffix(".py").unlink()
    notebooks.sync(pair)
    assert pair.with_suffix(".py").read_text() == text


def test_execute_runs_what_is_stale_in_this_environment_and_only_that(tmp_path):
    """Another kernel named python3 would record results of another installation."""
    shutil.copy(ROOT / "jupytext.toml", tmp_path)
    path = tmp_path / "00_x.ipynb"
    path.with_suffix(".py").write_text(
        "# %%\nimport sys, ipywidgets\nprint(sys.executable)\n"
        "display({'application/vnd.jupyter.widget-view+json': {'model_id': 'x'}}, raw=True)\n"
        "ipywidgets.IntSlider(description='width')\n"
    )
    assert notebooks.execute(path) is True
    notebook = nbformat.read(path, as_version=4)
    assert [list(output.get("data", "")) for output in notebook.cells[0].outputs] == [[], ["text/plain"]]
    assert notebook.cells[0].outputs[0].text.strip() == sys.executable
    assert notebook.metadata.kernelspec.name == "python3" and "version" not in notebook.metadata.language_info
    assert set(notebook.metadata) == {"kernelspec", "language_info", "labkit"}
    assert "execution" not in notebook.cells[0].metadata
    assert notebooks.problems(path) == []
    stamp = path.stat().st_mtime_ns
    assert notebooks.execute(path) is False and path.stat().st_mtime_ns == stamp


def test_a_failing_cell_leaves_the_notebook_as_it_was_and_exit_code_1(tmp_path, capsys):
    """Half-executed outputs would look like a finished run."""
    shutil.copy(ROOT / "jupytext.toml", tmp_path)
    path = tmp_path / "00_x.ipynb"
    path.with_suffix(".py").write_text("# %%\n1 / 0\n")
    notebooks.sync(path)
    before = path.read_bytes()
    assert notebooks.main(["execute", str(path)]) == 1
    assert path.read_bytes() == before
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_check_prints_each_problem_and_exits_1(pair, capsys):
    """The exit code is what CI sees."""
    assert notebooks.main(["check", str(pair)]) == 0
    pair.with_suffix(".py").unlink()
    assert notebooks.main(["check", str(pair)]) == 1
    assert "04_x.ipynb: has no .py half" in capsys.readouterr().out


def test_hash_ignores_text_outputs_and_trailing_blanks():
    """Anything else in the hash would call fresh notebooks stale."""
    one = new_notebook(cells=[new_markdown_cell("a"), new_code_cell("x = 1")])
    two = new_notebook(cells=[new_code_cell("x = 1\n", execution_count=3), new_markdown_cell("b")])
    assert notebooks.code_hash(one) == notebooks.code_hash(two)
    assert notebooks.code_hash(one) != notebooks.code_hash(new_notebook(cells=[new_code_cell("x = 2")]))
