"""The commands that run labs once: `labkit run` and `labkit report`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.headless.files import check_writable, write_atomically
from labkit.headless.terminal import ProgressBar, verdict_table

if TYPE_CHECKING:
    from labkit.protocol.experiment import Lab

INCOMPLETE = 1


def add_run(commands: Any) -> None:
    run = commands.add_parser("run", help="run a lab and print its verdicts", allow_abbrev=False)
    run.add_argument("lab", metavar="LAB", help="a lab's number or name")
    run.add_argument("--all-claims", action="store_true", help="every claim, not the core ones alone")
    run.add_argument("--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", dest="changes",
                     help="change a setting in every experiment that has it")  # fmt: skip
    _add_settings(run)
    run.add_argument("--json", type=Path, metavar="FILE", help="write settings, versions and verdicts")
    run.add_argument("--html", type=Path, metavar="FILE", help="write one page with verdicts and figures")
    run.add_argument("--traceback", action="store_true", help="show where an error came from")
    run.set_defaults(command=_run)


def _add_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument("--preset", choices=("quick", "paper"), default="quick", help="default: quick")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="the first seed (default: 0)")
    command.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="cpu", help="default: cpu"
    )


def _run(args: argparse.Namespace) -> int:
    changes = _changes(args.changes)
    _check_outputs({"--json": args.json, "--html": args.html})

    from labkit.headless.audit import audit
    from labkit.labs import load_lab

    lab = load_lab(args.lab)
    with ProgressBar(sys.stderr) as bar:
        result = audit(
            lab, all_claims=args.all_claims, preset=args.preset, changes=changes, seed=args.seed,
            device=args.device, progress=bar,
        )  # fmt: skip
    if args.json is not None:
        text = json.dumps(result.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
        write_atomically(args.json, text + "\n")
    if args.html is not None:
        from labkit.headless.report import to_html

        write_atomically(args.html, to_html(result))
    print(verdict_table(result))
    return 0


def _changes(words: Sequence[str]) -> dict[str, str]:
    changes = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise ValueError(f"--set takes name=value, got {word!r}")
        changes[name.strip().replace("-", "_")] = value
    return changes


def add_report(commands: Any) -> None:
    report = commands.add_parser("report", help="all claims of the labs on one page", allow_abbrev=False)
    report.add_argument("labs", nargs="*", metavar="LAB", help="numbers or names (default: all)")
    report.add_argument("--html", type=Path, required=True, metavar="FILE", help="the page to write")
    report.add_argument("--json", type=Path, metavar="FILE", help="write the same as JSON")
    report.add_argument("--core", action="store_true", help="the core claims alone")
    _add_settings(report)
    report.set_defaults(command=_report)


def _report(args: argparse.Namespace) -> int:
    _check_outputs({"--html": args.html, "--json": args.json})

    from labkit.headless.audit import audit_labs
    from labkit.headless.report import report_html, report_json, report_lines

    labs = named_labs(args.labs)
    with ProgressBar(sys.stderr) as bar:
        results = audit_labs(
            labs, all_claims=not args.core, preset=args.preset, seed=args.seed,
            device=args.device, progress=bar,
        )  # fmt: skip
    write_atomically(args.html, report_html(results))
    if args.json is not None:
        text = json.dumps(report_json(results), indent=2, ensure_ascii=False, allow_nan=False)
        write_atomically(args.json, text + "\n")
    print(report_lines(results))
    return INCOMPLETE if any(result.failures for result in results) else 0


def named_labs(words: Sequence[str]) -> list[Lab]:
    """The labs named, each once; all of them where none is."""
    from labkit.labs import LABS, load_lab

    return list({lab.number: lab for lab in (load_lab(word) for word in words or LABS)}.values())


def _check_outputs(named: dict[str, Path | None]) -> None:
    """Refuses files that cannot be written, before anything costly is done."""
    outputs = {option: path for option, path in named.items() if path is not None}
    if len({path.resolve() for path in outputs.values()}) < len(outputs):
        raise ValueError(f"{' and '.join(outputs)} name the same file, {next(iter(outputs.values()))}")
    for option, path in outputs.items():
        check_writable(path, option)
