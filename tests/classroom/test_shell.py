"""Magics, `await`, `display`, `input`, and what the wall refuses: graded cells run as in a notebook."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from labkit.classroom.grading import limits
from labkit.classroom.grading.runner import Ending, Runner

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="grading needs fork")
walled = pytest.mark.skipif(sys.platform != "linux" or bool(limits.walls()), reason="no walls here")
ADD = "def add(a, b):\n    return a + b\n"


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner() as runner:
        yield runner


def run(runner: Runner, *cells: str, how: str = "whole") -> Ending:
    return runner.run(
        "import math", [(cell, how) for cell in cells], "float(add(1, 2))", ["add"], seconds=60, total=100,
        memory=2**30,
    )  # fmt: skip


@pytest.mark.parametrize(
    "cells",
    [
        [f"%%time\n{ADD}"], [f"%%capture out\n{ADD}"], [f"%%prun\n{ADD}"], [f"%matplotlib inline\n{ADD}"],
        [f"%load_ext autoreload\n%autoreload 2\n{ADD}"], [f"%timeit -n1 -r1 1 + 1\n{ADD}"], [f"add?\n{ADD}"],
        [f"import asyncio\nawait asyncio.sleep(0)\n{ADD}"],
        ["async def three():\n    return 3\nkept = await three()\ndef add(a, b):\n    return kept"],
        ["def add(a, b):\n    display(a)\n    get_ipython()\n    return a + b"],
        ["from IPython.display import Markdown, display\ndisplay(Markdown('*x*'))", ADD],
        [f"%%writefile mine.py\n{ADD}", "from mine import add"],
        [f"from __future__ import annotations\n{ADD}"], [f"{ADD}add(1, 2)"],
        [f"%load_ext no_such_package\n%no_such_magic\n{ADD}"], ["%%no_such_magic\n1", ADD],
        [f"exit()\n{ADD}"], [f"quit\n{ADD}"], ["input('how many? ')", ADD],
        ["import getpass\ngetpass.getpass()", ADD],
    ],
    ids=lambda cells: cells[0].split("\n")[0],
)  # fmt: skip
def test_what_runs_in_a_notebook_runs_when_it_is_graded(runner: Runner, cells: list[str]) -> None:
    """A first line such as `%%time` once cost a right answer all its points."""
    ending = run(runner, *cells)
    assert (ending.kind, ending.said["points"]) == ("done", 3.0), ending


@walled
@pytest.mark.parametrize("command", ["!ls", "files = !ls", "%pip install cython", "!!ls", "%sx ls"])
def test_a_command_is_refused_by_the_wall_and_the_answer_below_it_counts(
    runner: Runner, command: str
) -> None:
    """`!pip install` is what students copy; in their own notebook it stops nothing either."""
    ending = run(runner, f"{command}\n{ADD}")
    assert (ending.said["points"], ending.said["errors"]) == (3.0, {}), ending
    assert "Operation not permitted" in ending.printed


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("n = input()", "EOFError: nobody is there to answer while work is graded, at `n = input()`"),
        ("%%time\n1 / 0", "ZeroDivisionError: division by zero"),
        ("%%capture\nx = 1\nx / 0\nx = 2", "ZeroDivisionError: division by zero, at `x / 0`"),
        ("\n \nx = 1\nx / 0\nx = 2", "ZeroDivisionError: division by zero, at `x / 0`"),
        ("x = 1\n%time y = 2\nx / 0", "ZeroDivisionError: division by zero, at `x / 0`"),
        ("def add(a, b)\n    return a", "SyntaxError: expected ':', at `def add(a, b)`"),
        ("await no_such_name", "NameError: name 'no_such_name' is not defined, at `await no_such_name`"),
        ("raise SystemExit(3)", "SystemExit: 3, at `raise SystemExit(3)`"),
    ],
)  # fmt: skip
def test_an_error_is_told_with_the_line_as_it_was_written(runner: Runner, cell: str, told: str) -> None:
    """`get_ipython().run_line_magic(…)` is nobody's line."""
    assert run(runner, cell, ADD).said["errors"] == {"1": told}


def test_definitions_alone_leave_out_what_runs(runner: Runner) -> None:
    """A loop that never ends must not cost the function above it."""
    ending = run(runner, f"import math\n{ADD}while True: pass", how="definitions")
    assert (ending.kind, ending.said["points"]) == ("done", 3.0)


@pytest.mark.parametrize(
    "cell",
    [
        "get_ipython().run_cell = get_ipython().run = None",
        "%reset -f",
        "get_ipython().user_ns.clear()",
        "get_ipython().events.register('post_run_cell', lambda *_: 1 / 0)",
        "type(get_ipython()).run = type(get_ipython()).showtraceback = lambda *_, **__: print(points)",
        "get_ipython().ast_transformers = [None]",
        "import sys\nsys.modules.clear()",
        "import builtins, sys\nbuiltins.display = builtins.input = sys.stdout = sys.stderr = None",
        "import asyncio\nasyncio.get_event_loop().close()",
    ],
)
def test_a_shell_that_is_taken_apart_gains_nothing_and_reaches_no_other(runner: Runner, cell: str) -> None:
    """The shell belongs to the student's process, where everything can be taken apart."""
    wrong = run(runner, cell, "def add(a, b):\n    return 0")
    assert not wrong.said.get("points") and wrong.kind in ("done", "died", "unreadable"), wrong
    assert run(runner, ADD).said["points"] == 3.0
