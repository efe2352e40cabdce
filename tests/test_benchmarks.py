"""What the benchmark does besides timing: compares answers, misses a library, says what stops it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import page
from benchmarks.rows import ROWS
from benchmarks.turns import Case, Line, Row, measured

TABLE = Path(page.__file__).with_name("README.md").read_text("utf-8")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def lines(targets: dict[str, float] | None = None, **case: Any) -> dict[str, Line]:
    """The lines of a row whose answer is 1."""
    ready = Case(**{"ours": {"": lambda: torch.ones(2)}, "flops": 1.0} | case)
    row = Row("row", "what", lambda: ready, targets or {}, why="a floor")
    return {line.name: line for line in measured(row, 1, 1)}


def test_sides_that_differ_are_not_timed() -> None:
    """Catches: a fast wrong answer in the table."""
    found = lines(peers={"right": lambda: torch.ones(2), "wrong": lambda: torch.full((2,), 1.1)})
    assert found["right"].value is not None
    assert found["wrong"].value is None and "apart" in found["wrong"].note


def test_a_library_that_is_missing_or_fails_is_reported() -> None:
    """Catches: an import error that ends the whole run, or a line that is silently left out."""

    def fails() -> None:
        raise AttributeError("of another version")

    found = lines(peers={"absent": None, "broken": fails})
    assert found["absent"].note == "not installed"
    assert found["broken"].note == "failed: AttributeError: of another version"


@pytest.mark.parametrize(("target", "mark"), [(1e9, " ✗"), (1e-9, " ✓")])
def test_a_target_that_is_missed_says_why(target: float, mark: str) -> None:
    """Catches: a missed target without its floor, and a mark on the wrong side."""
    found = lines({"peer": target}, peers={"peer": lambda: torch.ones(2)})["peer"]
    shown = page.table([found])
    assert mark in shown and ("a floor" in shown) == (mark == " ✗")


def test_counts_are_targets_from_above() -> None:
    """Catches: 129 products where 100 are allowed, marked as met."""
    found = lines({"products": 100}, counts=lambda answer: {"products": 129})["products"]
    assert found.met is False


def test_the_table_replaces_what_stands_between_its_marks(tmp_path: Path) -> None:
    """Catches: a page that grows, or that loses its text."""
    file = tmp_path / "README.md"
    file.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n", "utf-8")
    for _ in range(2):
        page.write(file, list(lines().values()), 1)
    text = file.read_text("utf-8")
    assert text.startswith("before\n") and text.endswith("\nafter\n") and text.count("`row`") == 1
    assert "old" not in text


def test_every_measure_is_timed() -> None:
    """Catches: a measure that loses its row, and two rows of one name."""
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    measures = (
        "tangent kernel", "J v", "Jᵀu", "triplets of J", "spectral_density", "gradient_gram", "batch_gram",
        "sample_gradients", "max_sharpness", "expected_sharpness", "flatness_radius", "three_point", "chains",
        "training", "together", "on a panel", "first frame", "imported", "each experiment's prediction",
        "each experiment's first frame", "notebook", "report",
    )  # fmt: skip
    for measure in measures:
        assert any(measure in row.what for row in ROWS), measure


def test_the_stored_table_names_rows_that_are_and_a_floor_for_each_target_missed() -> None:
    """Catches: a table of another edition, and a miss without its reason."""
    row, seen = None, set()
    for line in TABLE.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) < 8 or not set(line) - set("| -"):
            continue
        row = cells[1].strip("`") or row
        seen.add(row or "")
        if cells[5].endswith("✗"):
            why = next(known.why for known in ROWS if known.name == row)
            assert why and why in cells[7], line
    assert "ntk-dense" in seen and seen - {"row"} <= {known.name for known in ROWS}
