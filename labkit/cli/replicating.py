"""The command `labkit replicate`: every experiment over blocks of seeds, and how often each word came out."""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.cli.running import INCOMPLETE, found_labs, named_labs
from labkit.headless.files import check_writable
from labkit.headless.pool import processes
from labkit.headless.terminal import ProgressBar

if TYPE_CHECKING:
    from labkit.headless.replicate import Replicated


def add_replicate(commands: Any) -> None:
    replicate = commands.add_parser(
        "replicate", help="run every experiment with other seeds and count the verdicts", allow_abbrev=False
    )
    replicate.add_argument("labs", nargs="*", metavar="LAB", help="numbers or names (default: all)")
    replicate.add_argument(
        "--blocks", type=int, default=20, metavar="N", help="blocks of seeds (default: 20)"
    )
    replicate.add_argument("--jobs", type=int, default=1, metavar="N",
                           help="blocks at a time, a process of one thread each (default: 1)")  # fmt: skip
    replicate.add_argument("--experiment", nargs="+", action="extend", default=[], metavar="NAME",
                           help="these experiments alone")  # fmt: skip
    replicate.add_argument("--out", type=Path, default=None, metavar="DIR",
                           help="where to keep the counts (default: the package, in a checkout)")  # fmt: skip
    replicate.add_argument("--traceback", action="store_true", help="show where an error came from")
    replicate.set_defaults(command=_replicate)


def _replicate(args: argparse.Namespace) -> int:
    _check_folder(args.out)

    from labkit.headless.replicate import replicate

    found_labs(args.labs)
    try:
        with processes(args.jobs) as executor, ProgressBar(sys.stderr) as bar:
            bar(0.0, "loading torch")
            found = replicate(
                named_labs(args.labs), blocks=args.blocks, executor=executor, folder=args.out,
                only=args.experiment, progress=bar,
            )  # fmt: skip
    except KeyboardInterrupt:
        print("\nWhat is done is kept; the same command goes on from there.", file=sys.stderr)
        raise
    except BrokenExecutor:
        told = "a process was ended, for want of memory perhaps; what is done is kept"
        raise ValueError(f"{told}: go on with fewer --jobs") from None
    for row in found:
        print(_counted(row))
    low = [row.id for row in found if not row.enough]
    if low:
        print(f"below 19 of 20: {', '.join(low)}")
    for told in dict.fromkeys(told for row in found for told in row.failed):
        print(f"ended in an error, twice: {told}")
    return INCOMPLETE if low else 0


def _counted(row: Replicated) -> str:
    """ "D1 holds 20 of 20", and what came out otherwise."""
    found = row.replication
    other = [f"{word} {count}" for word, count in found.words.items() if word != row.expected]
    apart = f" ({', '.join(other)})" if other else ""
    return f"{row.id:<4} {row.expected} {found.words.get(row.expected, 0)} of {found.blocks}{apart}"


def _check_folder(out: Path | None) -> None:
    """Refuses a place that cannot be written, before hours of runs.

    Raises:
        ValueError: it is not a folder, or none is named and this package is not a checkout's.
    """
    from labkit.notebooks import find_checkout

    package = Path(__file__).resolve().parent.parent
    if out is None and find_checkout(package) != package.parent:
        raise ValueError("--out: the counts are kept in the package of a checkout alone; name a folder")
    if out is not None and out.exists() and not out.is_dir():
        raise ValueError(f"--out: {out} is not a folder")
    if out is not None and not out.exists():
        check_writable(out, "--out")
