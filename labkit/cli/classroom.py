"""The commands of a course: `labkit lab`, `labkit get`, `labkit assignment release` and `grade`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labkit.headless.terminal import ProgressBar


def lab(words: list[str]) -> int:
    """Opens JupyterLab on the notebooks."""
    import importlib.util
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
    return _until_it_ends([*command, *rest], {**os.environ, "JUPYTER_PREFER_ENV_PATH": "1"})


def _until_it_ends(command: list[str], environment: dict[str, str]) -> int:
    """Runs a server in the foreground, and returns its exit code."""
    import signal
    import subprocess

    process = subprocess.Popen(command, env=environment)
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


def add_get(commands: Any) -> None:
    get = commands.add_parser("get", help="copy the notebooks to work in", allow_abbrev=False)
    get.usage = "labkit get [-h] [--solutions] [NOTEBOOK] [DIR]"
    get.add_argument("words", nargs="*", metavar="NOTEBOOK, DIR",
                     help="number or name (default: all); where to (default: labkit-notebooks)")  # fmt: skip
    get.add_argument("--solutions", action="store_true", help="with the solutions and tests of all exercises")
    get.set_defaults(command=_get)


def _get(args: argparse.Namespace) -> int:
    from labkit.classroom.folder import NAME, RECORD, get

    only, folder = _wanted(args.words)
    default = Path() if Path(RECORD).is_file() else Path(NAME)  # Again, inside the folder of the first time.
    copied = get(folder or default, only=only, solutions=args.solutions)
    groups = {"wrote": copied.written, "same": copied.same, "kept": copied.kept}
    for name, what in sorted((name, what) for what, names in groups.items() for name in names):
        print(f"{what:<7}{copied.folder / name}")
    if copied.kept:
        print("Kept is what was changed or run since labkit wrote it; rename it to get it anew.")
    print(f"Next: labkit lab {_word(copied.folder)}")
    return 0


def _wanted(words: Sequence[str]) -> tuple[str | None, Path | None]:
    """Notebook and folder: as for `labkit lab`, what is a folder already is meant as one."""
    from labkit.notebooks import notebook_paths

    if len(words) > 2:
        raise ValueError(f"get takes a notebook and a folder at most; got {' '.join(words)}")
    if len(words) == 2:
        return words[0], Path(words[1])
    if not words:
        return None, None
    (word,) = words
    names = [path.stem for path in notebook_paths()]
    known = {part for name in names for part in (name, name.partition("_")[2], f"{name}.ipynb")}
    if not Path(word).is_dir() and (word in known or (word.isdigit() and len(word) <= 2)):
        return word, None
    return None, Path(word)


def _word(folder: Path) -> str:
    """A folder as short as it can be told from here, and as one word of a shell."""
    here = Path.cwd()
    short = str(folder.relative_to(here)) if folder.is_relative_to(here) else str(folder)
    return f'"{short}"' if " " in short else short


def add_assignment(commands: Any) -> None:
    assignment = commands.add_parser("assignment", help="release and grade the exercises of a notebook")
    assignment.formatter_class = argparse.RawDescriptionHelpFormatter
    assignment.epilog = """A lecturer's way, from an empty folder:
  labkit assignment release 5 --out course           the students' version, checked
  labkit assignment grade course/in --dry-run        who is who in what was handed in
  labkit assignment grade course/in --jobs 4         scores and feedback, in course/grades
  cd course && jupyter lab                           open questions, in nbgrader's formgrader
  labkit assignment grade course/in                  again: scores and feedback with these marks"""
    actions = assignment.add_subparsers(metavar="ACTION", required=True)
    _add_release(actions)
    _add_grade(actions)


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


def _add_grade(actions: Any) -> None:
    grade = actions.add_parser("grade", help="grade what students handed in", allow_abbrev=False)
    grade.add_argument("submissions", nargs="+", type=Path, metavar="SUBMISSIONS",
                       help="folders of what was handed in, or zips of them")  # fmt: skip
    options: dict[str, tuple[type, Any, str, str]] = {
        "course": (Path, None, "DIR", "the course's folder (default: the nearest above SUBMISSIONS)"),
        "roster": (Path, None, "CSV", "the class: name in the gradebook, then what files may say instead"),
        "pattern": (str, "", "REGEX", "of a file's path, with (?P<student_id>...), as nbgrader has it"),
        "out": (Path, None, "DIR", "where results go (default: grades in the course's folder)"),
        "seconds": (float, 180.0, "N", "a submission's time, shared by its exercises (default: 180)"),
        "memory": (str, "2G", "SIZE", "a submission's memory (default: 2G)"),
        "jobs": (int, 1, "N", "submissions at a time (default: 1)"),
    }
    for name, (kind, default, metavar, text) in options.items():
        grade.add_argument(f"--{name}", type=kind, default=default, metavar=metavar, help=text)
    for name, text in {
        "dry-run": "list who is who, and grade nothing",
        "skip-refused": "grade the others where it is not stated whose a file is",
        "again": "run also what is unchanged since last time",
        "traceback": "show where an error came from",
    }.items():
        grade.add_argument(f"--{name}", action="store_true", help=text)
    grade.epilog = "Exit code: 0 all graded, 1 some could not be, 2 refused and nothing graded."
    grade.set_defaults(command=_grade)


def _grade(args: argparse.Namespace) -> int:
    from labkit.classroom.grading.feedback import summary, who
    from labkit.classroom.grading.grade import Limits, grade, identify, memory_size

    limits = Limits(args.seconds, memory_size(args.memory))
    known = {"course": args.course, "roster": args.roster, "pattern": args.pattern}
    if args.dry_run:
        found = identify(args.submissions, **known)
        for file, *told in who(found):
            print(f"{'  '.join(word or '-' for word in told[:2])}  {file}: {told[2]}")
        print(f"{len(found.taken)} to grade, {len(found.left_out)} left out, {len(found.refused)} refused")
        return 2 if found.refused else 0
    graded = grade(
        args.submissions, **known, out=args.out, limits=limits, jobs=args.jobs, again=args.again,
        skip_refused=args.skip_refused, tell=lambda line: print(line, flush=True),
    )  # fmt: skip
    print(summary(graded))
    return int(any(marks is None for _, marks in graded.rows) or bool(graded.people.refused))
