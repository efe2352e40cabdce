"""What is read out of a cell without running it."""

from __future__ import annotations

import time

import pytest

from labkit.classroom.grading.code import defined, is_prose, top_names, used


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("%%time\ndef f(x): return x", ["f"]),
        ("%%capture out\n%matplotlib inline\n!ls\nf = 1", ["f"]),
        ("%time f = g(2)", ["f"]),
        ("f?\nx = !ls\ny = %sx ls", ["x", "y"]),
        ("async def f(): pass\nclass C: pass\na, (b, *c) = 1, (2, 3)", ["f", "C", "a", "b", "c"]),
        ("def f(x)\n    return x", ["f"]),
        ("await sleep(0)\nf = 1", ["f"]),
        (">>> def f(x):\n...     return x", ["f"]),
        ("In [3]: def f(x):\n   ...:     return x", ["f"]),
        ("\n    def f(x):\n        return x\n    g = 1", ["f", "g"]),
        ("    def f(x)\n        return x", ["f"]),
    ],
)
def test_the_names_that_a_cell_defines_are_read_below_magics(source: str, names: list[str]) -> None:
    """`%%time` above a right answer hid its name; so did prompts and an indent, which IPython takes off."""
    assert top_names(source) == names and not is_prose(source)


def test_what_a_function_reads_from_outside_is_told_from_its_own_names() -> None:
    """A local variable called as one of the story's would have the story run."""
    source = "import a.b as c\ndef f(x):\n    y = x + K\n    return [h(z, y) for z in c.w]\nfor i in R: pass"
    assert {"K", "h", "c", "R"} <= used(source) and not {"x", "y", "z"} & used(source)
    assert {"c", "f", "i"} <= defined(source) and not {"x", "y", "z", "K"} & defined(source)


@pytest.mark.parametrize(
    ("source", "prose"),
    [
        ("# The outlier.", True), ("The outlier pulls the mean.", True), ('"""Mine."""', True),
        ("Why? Since", True), ("x = 1  # mine", False), ("%matplotlib inline", False),
        ("def f(x)\n  return x", False), ("100", False),
    ],
)  # fmt: skip
def test_text_in_a_code_cell_is_told_from_code(source: str, prose: bool) -> None:
    """It may be somebody's answer."""
    assert is_prose(source) == prose


@pytest.mark.parametrize(
    "source", ["%x\n" * 10**5, "(" * 10**5, "-" * 10**5 + "1", "a" + ".b" * 10**5, "\0", "f" + "?" * 10**5]
)
def test_no_cell_stops_the_reader(source: str) -> None:
    """It is read in the process that grades everybody."""
    start = time.process_time()
    is_prose(source), used(source), defined(source), top_names(source)
    assert time.process_time() - start < 20
