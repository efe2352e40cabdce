"""One exercise in its two processes: what submitted code may do, and what becomes of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.classroom.grading import limits
from labkit.classroom.grading.runner import Ending, Runner

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="grading needs fork")
walled = pytest.mark.skipif(sys.platform != "linux" or bool(limits.walls()), reason="no walls here")

TESTS = """
def tests_1():
    import torch
    from labkit.classroom.exercises import Frugal, same, unchanged

    def check(double):
        x = torch.arange(3, dtype=torch.float64)
        with unchanged(x=x), Frugal(calls=100):
            same("double", double(x, lambda z: z + 1), 2 * x + 1)

    return check

from labkit.classroom.exercises import award
award("1", tests_1, "double", points=3)
"""
RIGHT = "def double(x, f):\n    return f(2 * x)"


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner() as runner:
        yield runner


def run(runner: Runner, *cells: str, seconds: float = 60, memory: int = 2**29, tests: str = TESTS) -> Ending:
    return runner.run(
        "import torch", [(cell, "whole") for cell in cells], tests, ["double"],
        seconds=seconds, total=100, memory=memory,
    )  # fmt: skip


@pytest.mark.parametrize(
    "cell",
    [
        RIGHT,
        f"{RIGHT}\nprint('x' * 10**8)\nimport sys\nsys.stderr.write('y' * 10**8)\ndisplay('z' * 10**7)",
        "import torch, builtins, labkit.classroom.exercises as e, labkit.classroom.answers as a\n"
        "e.award = a.same = torch.equal = torch.allclose = lambda *_, **__: None\n"
        f"builtins.print = builtins.len = builtins.abs = builtins.float = None\n{RIGHT}",
        "import threading\ndef spin():\n    while True: pass\n"
        f"threading.Thread(target=spin).start()\n{RIGHT}",
        f"%matplotlib inline\n!rm -rf /\nget_ipython().run_line_magic('x', '')\n{RIGHT}",
        f"open('mine.txt', 'w').write('a')\nassert open('mine.txt').read() == 'a'\n{RIGHT}",
        f"{RIGHT}\nraise SystemExit(3)",
        f"__builtins__ = {{}}\naward = same = print = None\n{RIGHT}",
    ],
    ids=["plain", "prints", "patches", "threads", "magics", "files", "exits", "builtins"],
)
def test_a_right_answer_gets_its_points_whatever_stands_beside_it(runner: Runner, cell: str) -> None:
    """The points of a right exercise must not depend on what the same student tries elsewhere."""
    ending = run(runner, cell)
    assert (ending.kind, ending.said["points"]) == ("done", 3.0), ending
    assert len(ending.printed) <= 4000


WRONG = {
    "wrong": ("return f(3 * x)", "fails: double: got 7 at (2,), should be 5, ratio 1.4"),
    "overwrites": ("x *= 2\n    return f(x)", "double"),
    "raises": ("return f(3 / 0)", "fails: ZeroDivisionError: division by zero, at `return f(3 / 0)`"),
    "exits": ("raise SystemExit(3)", "fails: SystemExit: 3"),
    "stub": ("raise NotImplementedError", "is not solved yet"),
    "memory": ("return torch.ones(10**11)", "fails: MemoryError: it asks for more memory than is allowed"),
    "deep": ("a = []\n    for _ in range(10**5): a = [a]\n    return a", "got a list, should be a tensor"),
    "spends": ("for _ in range(200): torch.add(x, x)\n    return x", "more than 100 calls of torch"),
    "lies": ("class T: shape = (3,); dtype = x.dtype\n    return T()", "got a T, should be a tensor"),
    "prints": ("print('x' * 10**8)", "got a NoneType"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_answer_gets_none_and_the_reason_that_it_gets_in_the_notebook(
    runner: Runner, kind: str
) -> None:
    """A reason that quotes the grader's own lines, or none at all, helps nobody."""
    body, reason = WRONG[kind]
    ending = run(runner, f"def double(x, f):\n    {body}")
    assert (ending.kind, ending.said["points"]) == ("done", 0.0), ending
    assert reason in ending.said["printed"]
    assert "labkit" not in ending.said["printed"] and "connection" not in ending.said["printed"]


@pytest.mark.parametrize(
    ("cell", "kind", "where"),
    [
        ("def double(x, f):\n    while True:\n        try:\n            while True: pass\n"
         "        except BaseException: pass", "time", 2),
        (f"{RIGHT}\nwhile True: pass", "time", 1),
        (f"{RIGHT}\nimport time, signal\nsignal.signal(2, lambda *_: None)\ntime.sleep(10**6)", "time", 1),
    ],
    ids=["function", "top level", "sleeps"],
)  # fmt: skip
def test_what_never_ends_is_stopped_and_the_cell_is_named(
    runner: Runner, cell: str, kind: str, where: int
) -> None:
    """A grader that hangs on one submission grades none."""
    ending = run(runner, cell, seconds=1.5)
    assert (ending.kind, ending.cell) == (kind, where)


def test_memory_taken_in_small_pieces_is_stopped_too(runner: Runner) -> None:
    """A limit that looks at single requests alone lets a list grow until the machine swaps."""
    cell = "kept = []\nwhile True:\n    try: kept.append(bytes(10**6) + b'1')\n    except MemoryError: 1"
    ending = run(runner, cell, memory=2**27, seconds=3)
    assert ending.kind in ("memory", "time") and ending.cell == 1
    assert ending.peak < 2**29


def test_files_without_end_are_stopped(runner: Runner) -> None:
    """A full disk stops the grading of everybody."""
    cell = (
        "import os\nn = 0\nwhile True:\n    n += 1\n    with open(str(n), 'wb') as f: f.write(bytes(2**24))"
    )
    ending = run(runner, cell, seconds=60)
    assert (ending.kind, ending.cell) == ("disk", 1)


@pytest.mark.slow
def test_folders_six_thousand_deep_are_cleared_away() -> None:
    """What removes a tree by recursion ends in an error there, for this and all later submissions."""
    deep = "import os\nfor _ in range(6000):\n    os.mkdir('d'); os.chdir('d')"
    with Runner() as runner:
        place = Path(runner._scratch)
        assert run(runner, deep, RIGHT).said["points"] == 3.0
        assert list(place.glob("tmp*")) == []
        assert run(runner, RIGHT).said["points"] == 3.0
    assert not place.exists()


def test_what_is_written_to_the_clock_turns_nothing(runner: Runner) -> None:
    """Each cell reports itself there, and a submission can write what it likes."""
    forge = "import os\nfor fd in range(3, 40):\n    for word in (b'9' * 5000, b' 77 ', b' x '):\n"
    forge += "        try: os.write(fd, word)\n        except OSError: pass"
    ending = run(runner, forge)
    assert ending.kind != "lost" and ending.cell <= 2
    assert run(runner, RIGHT).said["points"] == 3.0


@pytest.mark.parametrize(
    ("body", "status"),
    [("os._exit(7)", 7), ("os.abort()", -6), ("ctypes.string_at(0)", -11), ("os.kill(os.getpid(), 9)", -9)],
)
def test_an_answer_that_ends_python_is_told_by_how_it_ended(runner: Runner, body: str, status: int) -> None:
    """Without its exit status nobody can tell a crash from a wrong answer."""
    ending = run(runner, f"import ctypes, os\ndef double(x, f):\n    {body}")
    assert (ending.kind, ending.status, ending.cell) == ("died", status, 2)
    assert run(runner, RIGHT).said["points"] == 3.0  # and the next one is none the worse


@walled
@pytest.mark.parametrize(
    "body",
    [
        "os.fork()", "subprocess.run(['true'])", "os.kill(-1, 0)", "os.kill(os.getppid(), 0)", "os.setsid()",
        "socket.socket()", "open(victim, 'w')", "open(victim).read()", "os.chmod(victim, 0)",
        "os.remove(victim)", "os.utime(victim)", "os.listdir(os.path.dirname(victim))",
        "resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))", "open('/proc/self/mem', 'rb')",
        "open('/dev/shm/labkit-test', 'w')", "os.memfd_create('x')", "os.symlink(victim, victim + '2')",
        "os.truncate(victim, 0)", "os.open(victim, os.O_RDONLY | os.O_TRUNC)", "open('/etc/shadow')",
        "os.open(resource.__file__, os.O_RDONLY | os.O_TRUNC)", "os.mknod('device', 0o60600)",
        "fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid())", "os.posix_fallocate(os.open('f', 66), 0, 2**20)",
    ],
)  # fmt: skip
def test_what_lies_outside_is_out_of_reach(runner: Runner, tmp_path: Path, body: str) -> None:
    """The gradebook and the hidden tests belong to the same user as the process that runs the submission."""
    victim = tmp_path / "gradebook.db"
    victim.write_text("marks")
    before = victim.stat()
    cell = f"import fcntl, os, resource, socket, subprocess\nvictim = {str(victim)!r}\n{body}\n{RIGHT}"
    ending = run(runner, cell)
    assert ending.kind == "done" and ending.said["missing"] == ["double"]  # The line above it raised.
    assert "Error" in ending.said["errors"]["1"]
    after = victim.stat()
    assert victim.read_text() == "marks"
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


@walled
@pytest.mark.parametrize("machine", ["AARCH64", "RISCV64", "PPC64LE"])
def test_the_filter_refuses_the_same_on_other_machines(tmp_path: Path, machine: str) -> None:
    """Numbers typed for two machines leave the third open, and one of them typed wrong is seen by nobody."""
    import pyseccomp

    with (tmp_path / "filter").open("w+") as file:
        limits.build_filter(pyseccomp, getattr(pyseccomp.Arch, machine)).export_pfc(file)
        file.seek(0)
        part = file.read().split("# filter for arch ")[2]
    assert machine.lower() in part.splitlines()[0]
    for name in ("execve", "ptrace", "socket", "unshare", "bpf", "fchmodat", "clone3", "kill", "prlimit64"):
        assert f'syscall "{name}"' in part, name


@walled
def test_nothing_is_enclosed_by_half(tmp_path: Path) -> None:
    """A wall that is looked for once the first one stands is not found, and the process runs without it."""
    script = (
        "import os, pathlib, sys\nfrom labkit.classroom.grading.limits import enclose\n"
        "enclose(pathlib.Path(sys.argv[1]), 2**28)\n"
        "for call in (os.fork, lambda: os.listdir('/home')):\n"
        "    try: call()\n    except PermissionError: continue\n    os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path], check=True)


def test_the_files_of_the_tests_are_closed_before_the_students_first_line(runner: Runner) -> None:
    """A submission that finds the tests can answer them one by one."""
    search = """
import os
found = []
for handle in range(3, 60):
    try:
        os.lseek(handle, 0, 0)
        found.append(os.read(handle, 10**5) or None)
    except OSError:
        pass
print(len(list(filter(None, found))), [n for n in os.listdir('.')])
"""
    ending = run(runner, search, RIGHT)
    assert (ending.said["points"], ending.printed) == (3.0, "0 []\n")


def test_a_forged_reply_is_no_answer(runner: Runner) -> None:
    """The student's process holds one end of the wire, and may write to it what it likes."""
    forge = """
import os
def double(x, f):
    for fd in range(3, 40):
        try:
            os.write(fd, b'{"state": "done", "points": 3}' * 10)
        except OSError:
            pass
    os._exit(0)
"""
    ending = run(runner, forge)
    assert ending.kind in ("unreadable", "died") and not ending.said.get("points")


def test_a_cell_can_be_run_for_its_definitions_alone(runner: Runner) -> None:
    """A loop below a right function must not cost the function."""
    ending = runner.run(
        "import torch", [(f"{RIGHT}\nwhile True: pass", "definitions"), ("while True: pass", "skip")], TESTS,
        ["double"], seconds=60, total=100, memory=2**29,
    )  # fmt: skip
    assert (ending.kind, ending.said["points"]) == ("done", 3.0)


def test_a_generator_is_as_far_on_as_the_answer_has_drawn(runner: Runner) -> None:
    """A test that draws after the answer would get the numbers of a notebook in which nothing was drawn."""
    tests = """
import torch
g, h = (torch.Generator().manual_seed(1) for _ in range(2))
first = double(torch.zeros(3, dtype=torch.float64), g)
second, *right = (torch.rand(n, generator=x) for n, x in ((2, g), (3, h), (2, h)))
3.0 if torch.equal(first, right[0]) and torch.equal(second, right[1]) else 0.0
"""
    ending = run(runner, "def double(x, g):\n    return torch.rand(3, generator=g)", tests=tests)
    assert ending.said["points"] == 3.0, ending
