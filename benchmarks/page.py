"""What a person reads: lines of the terminal, and the table of README.md."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmarks.turns import Line

BEGIN, END = "<!-- table:begin -->", "<!-- table:end -->"
WITH = (
    "torch", "numpy", "scipy", "nngeometry", "backpack-for-pytorch", "curvlinops-for-pytorch",
    "hessian-eigenthings", "opacus", "neural-tangents",
)  # fmt: skip
HEAD = "| row | what | beside | found | target | seconds | |\n| --- | --- | --- | --- | --- | --- | --- |\n"


def machine(threads: int) -> str:
    """The processor, the threads, and the versions of all that takes part."""
    return (
        f"{_processor()}, {threads} thread{'s' * (threads > 1)}; Python {platform.python_version()}, "
        + ", ".join(f"{name} {_version(name)}" for name in WITH)
    )


def printed(line: Line) -> str:
    """One line of the terminal."""
    found, target, times, told = _cells(line)
    aim = f"  [{target}]" if target else ""
    told = "; ".join(part for part in (times and f"{times} s", told) if part)
    return f"{line.row.name:18s} {line.name:38s} {found:>8s}{aim:14s} {told}"


def table(lines: Sequence[Line]) -> str:
    """The same in Markdown; what a row says of itself stands in its first line."""
    out, named = HEAD, ""
    for line in lines:
        head = (f"`{line.row.name}`", line.row.what) if line.row.name != named else ("", "")
        named = line.row.name
        out += f"| {' | '.join((*head, line.name, *_cells(line)))} |\n"
    return out


def _cells(line: Line) -> tuple[str, str, str, str]:
    """What was found, the target and its mark, the seconds of both sides, and what stops us."""
    mark = {True: " ✓", False: " ✗", None: ""}[line.met]
    target = line.shown(line.target) + mark if line.target is not None else ""
    times = (f"{line.ours:.3g}" + (f" / {line.theirs:.3g}" if line.theirs else "")) if line.ours else ""
    told = "; ".join(part for part in (line.note, line.row.why if line.met is False else "") if part)
    return line.shown(line.value), target, times, told


def write(path: Path, lines: Sequence[Line], threads: int) -> None:
    """Puts the table, with machine, versions and date, between its markers."""
    before, _, rest = path.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    load = f"{os.getloadavg()[0]:.1f} programs at a time on {os.cpu_count()} cores"
    head = f"Measured on {date.today().isoformat()}, {load}: {machine(threads)}.\n\n"
    path.write_text(f"{before}{BEGIN}\n{head}{table(lines)}{END}{after}", "utf-8")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name) if name != "torch" else torch.__version__
    except PackageNotFoundError:
        return "not installed"
