"""The commands that run labs once: `labkit run` and `labkit report`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.headless.files import check_writable, write_atomically
from labkit.headless.memory import within_memory
from labkit.headless.pool import processes
from labkit.headless.terminal import ProgressBar, verdict_table

if TYPE_CHECKING:
    from labkit.headless.audit import AuditResult
    from labkit.protocol.experiment import Lab

INCOMPLETE = 1
INTERRUPTED = 130


def add_run(commands: Any) -> None:
    run = commands.add_parser("run", help="run a lab and print its verdicts", allow_abbrev=False)
    run.add_argument("lab", metavar="LAB", help="a lab's number or name")
    run.add_argument("--all-claims", action="store_true", help="every claim, not the core ones alone")
    run.add_argument("--experiment", nargs="+", action="extend", default=[], metavar="NAME",
                     help="these experiments alone, with all their claims")  # fmt: skip
    run.add_argument("--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", dest="changes",
                     help="change a setting in every experiment that has it")  # fmt: skip
    _add_settings(run)
    run.add_argument("--insist", action="store_true",
                     help="also what would take over an hour, or more memory than is free")  # fmt: skip
    run.add_argument("--folder", type=Path, metavar="DIR",
                     help="keep the run there as it goes: the same command goes on with it")  # fmt: skip
    run.add_argument("--json", type=Path, metavar="FILE", help="write settings, versions and verdicts")
    run.add_argument("--html", type=Path, metavar="FILE", help="write one page with verdicts and figures")
    run.add_argument("--traceback", action="store_true", help="show where an error came from")
    run.set_defaults(command=_run)


def _add_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument("--preset", default="quick", metavar="NAME",
                         help="quick (default), paper, or another that all its experiments have")  # fmt: skip
    command.add_argument("--seed", type=int, default=0, metavar="N", help="the first seed (default: 0)")
    command.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="cpu", help="default: cpu"
    )
    command.add_argument("--jobs", type=int, default=1, metavar="N",
                         help="experiments at a time, a process of one thread each (default: 1)")  # fmt: skip


def _run(args: argparse.Namespace) -> int:
    changes = _changes(args.changes)
    found_labs([args.lab])
    _check_outputs({"--json": args.json, "--html": args.html})

    def work(executor: Executor | None, bar: ProgressBar) -> tuple[AuditResult, ...]:
        from labkit.headless.audit import audit
        from labkit.headless.price import approve
        from labkit.headless.prices import price_of
        from labkit.headless.report import to_html
        from labkit.labs import load_lab

        price = partial(
            approve, preset=args.preset, insist=args.insist, tell=bar.say, progress=bar, kept=price_of
        )
        result = audit(
            load_lab(args.lab), all_claims=args.all_claims, experiments=args.experiment, preset=args.preset,
            changes=changes, seed=args.seed, device=args.device, draw=bool(args.html or args.folder),
            executor=executor, progress=bar, approve=price, folder=args.folder, page=to_html,
        )  # fmt: skip
        return (result,)

    (result,) = _carried(args, work)
    own = [args.folder / name for name in ("result.json", "page.html")] if args.folder else [None, None]
    for path in filter(None, (args.json, own[0])):
        _write_json(path, result.to_json())
    for path in filter(None, (args.html, own[1])):
        from labkit.headless.report import to_html

        write_atomically(path, to_html(result))
    print(verdict_table(result))
    return _code([result])


def _code(results: Sequence[AuditResult]) -> int:
    if any(result.interrupted for result in results):
        return INTERRUPTED
    return INCOMPLETE if any(result.failures for result in results) else 0


def _carried(
    args: argparse.Namespace, work: Callable[[Executor | None, ProgressBar], tuple[AuditResult, ...]]
) -> tuple[AuditResult, ...]:
    """What `work` gives, or had got when Ctrl-C ended it: then the processes have ended, too."""
    done: tuple[AuditResult, ...] = ()
    try:
        with (
            within_memory(args.device),
            processes(args.jobs, args.device) as executor,
            ProgressBar(sys.stderr) as bar,
        ):
            bar(0.0, "loading torch")
            done = work(executor, bar)
    except KeyboardInterrupt as stop:  # while it worked, or while its processes ended
        done = getattr(stop, "results", done)
        if not done:
            raise
    except BrokenExecutor:
        raise ValueError("a process was ended, for want of memory perhaps: take fewer --jobs") from None
    except Exception as problem:
        if args.traceback or isinstance(problem, (ValueError, OSError, ImportError)):  # told as they are
            raise
        what = f"{type(problem).__name__}: {problem} (--traceback shows where it came from)"
        raise ValueError(what) from None
    return done


def _write_json(path: Path, found: Any) -> None:
    write_atomically(path, json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


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
    report.set_defaults(command=_report, traceback=True)


def _report(args: argparse.Namespace) -> int:
    _check_outputs({"--html": args.html, "--json": args.json})
    found_labs(args.labs)

    def work(executor: Executor | None, bar: ProgressBar) -> tuple[AuditResult, ...]:
        from labkit.headless.audit import audit_labs

        return audit_labs(
            named_labs(args.labs), all_claims=not args.core, preset=args.preset, seed=args.seed,
            device=args.device, draw=True, executor=executor, progress=bar,
        )  # fmt: skip

    results = _carried(args, work)

    from labkit.headless.report import report_html, report_json, report_lines

    write_atomically(args.html, report_html(results))
    if args.json is not None:
        _write_json(args.json, report_json(results))
    print(report_lines(results))
    return _code(results)


def named_labs(words: Sequence[str]) -> list[Lab]:
    """The labs named, each once; all of them where none is."""
    from labkit.labs import load_lab

    return [load_lab(number) for number in found_labs(words)]


def found_labs(words: Sequence[str]) -> dict[int, str]:
    """Number -> name of the same, which are not imported: a wrong word is told at once."""
    from labkit.labs import LABS, find_lab

    return {number: name for number, name, _ in map(find_lab, words or LABS)}


def _check_outputs(named: dict[str, Path | None]) -> None:
    """Refuses files that cannot be written, before anything costly is done."""
    outputs = {option: path for option, path in named.items() if path is not None}
    if len({path.resolve() for path in outputs.values()}) < len(outputs):
        raise ValueError(f"{' and '.join(outputs)} name the same file, {next(iter(outputs.values()))}")
    for option, path in outputs.items():
        check_writable(path, option)
