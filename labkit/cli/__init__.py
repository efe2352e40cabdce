"""The command `labkit`: open the notebooks, run a lab headless, report on all, release and grade assignments.

Exit codes: 0 when the command completes, whatever the verdicts; 1 when `report` wrote its page and an
experiment in it ended in an error, when one of `run` found too little memory, when `replicate` found a claim
below its share of blocks, or when `doctor` misses something; 2 on bad input, with one line that says what is
wrong; 130 when interrupted, with what was done until then. Files appear whole or not at all.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from labkit.cli import claims, classroom, comparing, presets, replicating, running
from labkit.cli.running import INTERRUPTED

BAD_INPUT = 2


class _Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, without the usage in front of it."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] == ["lab"]:  # Its other arguments are Jupyter's, which argparse would take apart.
            return classroom.lab(words[1:])
        args = parser().parse_args(words or ["--help"])
        code = int(args.command(args))
        sys.stdout.flush()  # Here, where a reader that has gone away can still be dealt with.
        return code
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        print(f"\nlabkit {words[0] if words else ''}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # The reader, such as `head`, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, ImportError) as error:
        if "--traceback" in words:
            raise
        print(f"labkit {words[0]}: {' '.join(_message(error).split())}", file=sys.stderr)
        return BAD_INPUT


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.strerror}: {error.filename}"
    return str(error) or type(error).__name__


def parser() -> argparse.ArgumentParser:
    """The whole command line but `labkit lab`, whose arguments are Jupyter's."""
    from labkit.headless.versions import versions

    whole = _Parser(prog="labkit", description="The theorem's prediction beside live training.")
    version = versions().get("labkit", "(source tree)")
    whole.add_argument("--version", action="version", version=f"labkit {version}")
    commands = whole.add_subparsers(metavar="COMMAND", required=True)
    commands.add_parser("lab", help="open the notebooks in JupyterLab")
    classroom.add_get(commands)
    running.add_run(commands)
    running.add_report(commands)
    presets.add_presets(commands)
    comparing.add_compare(commands)
    claims.add_claims(commands)
    replicating.add_replicate(commands)
    classroom.add_assignment(commands)
    doctor = commands.add_parser("doctor", help="what this machine has and lacks", allow_abbrev=False)
    doctor.set_defaults(command=_doctor)
    return whole


def _doctor(_: argparse.Namespace) -> int:
    from labkit.cli.doctor import examine, to_text

    missing = False
    for finding in examine():
        print(to_text(finding), flush=True)  # importing torch to look at it takes seconds
        missing = missing or finding.state == "missing"
    return 1 if missing else 0
