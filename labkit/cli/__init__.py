"""The command `labkit`: open the notebooks, run a lab headless, report on all, release and grade assignments.

Exit codes: 0 when the command completes, whatever the verdicts; 1 when `report` wrote its page and an
experiment in it ended in an error; 2 on bad input, with one line that says what is wrong; 130 when
interrupted. Files appear whole or not at all.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from labkit.headless.files import check_writable, write_atomically
from labkit.headless.terminal import ProgressBar, verdict_table

INCOMPLETE = 1
BAD_INPUT = 2
INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, without the usage in front of it."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] == ["lab"]:  # Its other arguments are Jupyter's, which argparse would take apart.
            return _lab(words[1:])
        args = _parser().parse_args(words or ["--help"])
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


def _parser() -> argparse.ArgumentParser:
    from labkit.headless.audit import versions

    parser = _Parser(prog="labkit", description="The theorem's prediction beside live training.")
    version = versions().get("labkit", "(source tree)")
    parser.add_argument("--version", action="version", version=f"labkit {version}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    commands.add_parser("lab", help="open the notebooks in JupyterLab")

    get = commands.add_parser("get", help="copy the notebooks to work in", allow_abbrev=False)
    get.add_argument("folder", nargs="?", type=Path, default=None, metavar="DIR",
                     help="where to (default: labkit-notebooks here)")  # fmt: skip
    get.add_argument("--solutions", action="store_true", help="with the solutions and tests of all exercises")
    get.set_defaults(command=_get)

    run = commands.add_parser("run", help="run a lab and print its verdicts", allow_abbrev=False)
    run.add_argument("lab", metavar="LAB", help="a lab's number or name")
    run.add_argument("--all-claims", action="store_true", help="every claim, not the core ones alone")
    run.add_argument("--preset", choices=("quick", "paper"), default="quick", help="default: quick")
    run.add_argument("--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", dest="changes",
                     help="change a setting in every experiment that has it")  # fmt: skip
    run.add_argument("--seed", type=int, default=0, metavar="N", help="the first seed (default: 0)")
    run.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="cpu", help="default: cpu")
    run.add_argument("--json", type=Path, metavar="FILE", help="write settings, versions and verdicts")
    run.add_argument("--html", type=Path, metavar="FILE", help="write one page with verdicts and figures")
    run.add_argument("--traceback", action="store_true", help="show where an error came from")
    run.set_defaults(command=_run)

    claims = commands.add_parser("claims", help="list the claims of all labs", allow_abbrev=False)
    claims.add_argument("--json", action="store_true", help="as JSON")
    claims.set_defaults(command=_claims)

    report = commands.add_parser("report", help="all claims of the labs on one page", allow_abbrev=False)
    report.add_argument("labs", nargs="*", metavar="LAB", help="numbers or names (default: all)")
    report.add_argument("--html", type=Path, required=True, metavar="FILE", help="the page to write")
    report.add_argument("--json", type=Path, metavar="FILE", help="write the same as JSON")
    report.add_argument("--core", action="store_true", help="the core claims alone")
    report.add_argument("--preset", choices=("quick", "paper"), default="quick", help="default: quick")
    report.add_argument("--seed", type=int, default=0, metavar="N", help="the first seed (default: 0)")
    report.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="cpu", help="default: cpu"
    )
    report.set_defaults(command=_report)

    assignment = commands.add_parser("assignment", help="release and grade the exercises of a notebook")
    actions = assignment.add_subparsers(metavar="ACTION", required=True, parser_class=_Parser)
    _add_release(actions)
    _add_grade(actions)

    doctor = commands.add_parser("doctor", help="what this machine has and lacks", allow_abbrev=False)
    doctor.set_defaults(command=_doctor)
    return parser


# --- labkit lab ---------------------------------------------------------------


def _lab(words: list[str]) -> int:
    import importlib.util
    import signal
    import subprocess
    from urllib.parse import quote

    from labkit.classroom.folder import place_to_open

    if "-h" in words or "--help" in words:
        print("usage: labkit lab [NOTEBOOK] [--no-browser] [Jupyter's own arguments]\n\n"
              "Opens JupyterLab on the notebooks; NOTEBOOK is a number, a name, a file or a folder.\n"
              "They are those of the checkout or of the folder made by `labkit get` that you are in,\n"
              "else of a new folder labkit-notebooks here.")  # fmt: skip
        return 0
    if importlib.util.find_spec("jupyterlab") is None:
        install = f"`{sys.executable} -m pip install jupyterlab`"
        raise ValueError(f"there is no JupyterLab in {sys.prefix}; {install} adds it")
    rest = [word for word in words if word != "--no-browser"]
    wanted = rest.pop(0) if rest and not rest[0].startswith("-") else None
    folder, notebook, copied = place_to_open(wanted, Path.cwd())
    if copied is not None:
        print(f"labkit lab: copied {len(copied.written)} notebooks to {folder}", flush=True)
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder}"]
    if notebook is not None and not any("default_url" in word for word in rest):
        command.append(f"--LabApp.default_url=/lab/tree/{quote(notebook.name)}")
    if "--no-browser" in words:
        command.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # A container's only user; the server listens on this machine alone.
    # The kernel must be this environment's, also where another "python3" is installed for the user.
    environment = {**os.environ, "JUPYTER_PREFER_ENV_PATH": "1"}
    process = subprocess.Popen([*command, *rest], env=environment)
    # Else whoever ends this command leaves the server running, and its port taken.
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        while True:
            try:
                code = process.wait()
                return code if code >= 0 else 128 - code
            except KeyboardInterrupt:  # Jupyter has had it too, and asks before it ends.
                continue
    finally:
        signal.signal(signal.SIGTERM, before)


# --- labkit run ---------------------------------------------------------------


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


# --- labkit get ---------------------------------------------------------------


def _get(args: argparse.Namespace) -> int:
    from labkit.classroom.folder import NAME, RECORD, get

    default = Path() if Path(RECORD).is_file() else Path(NAME)  # Again, inside the folder of the first time.
    copied = get(args.folder or default, solutions=args.solutions)
    groups = {"wrote": copied.written, "same": copied.same, "kept": copied.kept}
    for name, what in sorted((name, what) for what, names in groups.items() for name in names):
        print(f"{what:<7}{copied.folder / name}")
    if copied.kept:
        print("Kept is what was changed or run since labkit wrote it; rename it to get it anew.")
    print(f"Next: labkit lab {_word(copied.folder)}")
    return 0


def _word(folder: Path) -> str:
    """A folder as short as it can be told from here, and as one word of a shell."""
    here = Path.cwd()
    short = str(folder.relative_to(here)) if folder.is_relative_to(here) else str(folder)
    return f'"{short}"' if " " in short else short


# --- labkit report ------------------------------------------------------------


def _report(args: argparse.Namespace) -> int:
    _check_outputs({"--html": args.html, "--json": args.json})

    from labkit.headless.audit import audit_labs
    from labkit.headless.report import report_html, report_json, report_lines
    from labkit.labs import LABS, load_lab

    named = {lab.number: lab for lab in (load_lab(word) for word in args.labs or LABS)}
    with ProgressBar(sys.stderr) as bar:
        results = audit_labs(
            list(named.values()), all_claims=not args.core, preset=args.preset, seed=args.seed,
            device=args.device, progress=bar,
        )  # fmt: skip
    write_atomically(args.html, report_html(results))
    if args.json is not None:
        text = json.dumps(report_json(results), indent=2, ensure_ascii=False, allow_nan=False)
        write_atomically(args.json, text + "\n")
    print(report_lines(results))
    return INCOMPLETE if any(result.failures for result in results) else 0


def _check_outputs(named: dict[str, Path | None]) -> None:
    """Refuses files that cannot be written, before anything costly is done."""
    outputs = {option: path for option, path in named.items() if path is not None}
    if len({path.resolve() for path in outputs.values()}) < len(outputs):
        raise ValueError(f"{' and '.join(outputs)} name the same file, {next(iter(outputs.values()))}")
    for option, path in outputs.items():
        check_writable(path, option)


# --- labkit assignment release ------------------------------------------------


def _add_release(actions: Any) -> None:
    release = actions.add_parser("release", help="make the students' version", allow_abbrev=False)
    release.add_argument("notebooks", nargs="+", metavar="NOTEBOOK", help="a number, a name or a file")
    release.add_argument("--out", type=Path, required=True, metavar="DIR", help="the course's folder")
    release.add_argument("--no-execute", action="store_true", help="do not run the notebooks first (minutes)")
    release.add_argument("--force", action="store_true",
                         help="replace what was changed by hand in the course, and put it aside")  # fmt: skip
    release.set_defaults(command=_release)


def _release(args: argparse.Namespace) -> int:
    from labkit.classroom.release import release

    with ProgressBar(sys.stderr) as bar:
        done = release(args.notebooks, args.out, execute=not args.no_execute, force=args.force, progress=bar)
    for name, points in done.points.items():
        print(f"{name}: {points} points; for students: {done.folder / 'release' / name / name}.ipynb")
    for file in done.kept:
        print(f"kept {done.folder / file}, which was changed by hand")
    for folder in done.saved:
        print(f"put aside what was changed by hand: {folder}")
    print(f"Next: {done.folder / 'README.md'}")
    return 0


# --- labkit assignment grade --------------------------------------------------


def _add_grade(actions: Any) -> None:
    grade = actions.add_parser("grade", help="grade what students handed in", allow_abbrev=False)
    grade.add_argument(
        "submissions", type=Path, metavar="SUBMISSIONS", help="the folder of what was handed in"
    )
    grade.add_argument("--course", type=Path, default=None, metavar="DIR",
                       help="the course's folder (default: the nearest above SUBMISSIONS)")  # fmt: skip
    grade.add_argument("--out", type=Path, default=None, metavar="DIR",
                       help="where results go (default: grades in the course's folder)")  # fmt: skip
    grade.add_argument("--seconds", type=float, default=180.0, metavar="N",
                       help="a submission's time, shared by its exercises (default: 180)")  # fmt: skip
    grade.add_argument("--memory", default="2G", metavar="SIZE", help="a submission's memory (default: 2G)")
    grade.add_argument("--jobs", type=int, default=1, metavar="N", help="submissions at a time (default: 1)")
    grade.add_argument("--again", action="store_true", help="run also what is unchanged since last time")
    grade.add_argument("--traceback", action="store_true", help="show where an error came from")
    grade.set_defaults(command=_grade)


def _grade(args: argparse.Namespace) -> int:
    from labkit.classroom.grading.feedback import summary
    from labkit.classroom.grading.grade import Limits, grade, memory_size

    limits = Limits(args.seconds, memory_size(args.memory))
    graded = grade(
        args.submissions, course=args.course, out=args.out, limits=limits, jobs=args.jobs, again=args.again,
        tell=lambda line: print(line, flush=True),
    )  # fmt: skip
    print(summary(graded))
    return 0


# --- labkit claims, labkit doctor ---------------------------------------------


def _claims(args: argparse.Namespace) -> int:
    from labkit.labs import LABS, load_lab

    rows = []
    for number in LABS:
        lab = load_lab(number)
        owner = {claim.id: experiment.name for experiment in lab.experiments for claim in experiment.claims}
        for claim in lab.claims:
            own = {"lab": lab.name, "core": claim.id in lab.core, "experiment": owner[claim.id]}
            rows.append({**claim.to_dict(), **own})
    if args.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    for row in rows:
        mark = "*" if row["core"] else " "
        print(f"{row['id']:>4}{mark} {row['lab']}/{row['experiment']}  expected: {row['expected']}")
        print(textwrap.fill(row["statement"], 100, initial_indent="      ", subsequent_indent="      "))
        print(f"      {row['source']}; decided by: {row['rule']}")
    print("* core: `labkit run LAB` decides these; `labkit run LAB --all-claims` decides all")
    return 0


def _doctor(_: argparse.Namespace) -> int:
    from labkit.cli.doctor import examine, to_text

    findings = examine()
    print(to_text(findings))
    return 1 if any(finding.state == "missing" for finding in findings) else 0
