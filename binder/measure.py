"""Runs notebooks within the limits of mybinder.org, and says what memory and time they took.

    python binder/measure.py                      all notebooks
    python binder/measure.py notebooks/03*.ipynb  these
    python binder/measure.py --table              all, and the table in binder/README.md

Each notebook runs at its defaults in a kernel of its own, on one core, without a network, in a copy that is
thrown away. All of its processes are watched ten times a second: one that takes more memory than there is
ends the notebook, as it would on mybinder.org. Two peaks are reported:

- of the kernel: its largest resident set, which Linux itself keeps (VmHWM), so that no moment is missed;
- of all processes (kernel, its children, and the client that runs it): the largest sum of their shares (PSS;
  a page that several of them use counts once).

An address-space limit (RLIMIT_AS) would not do: CUDA builds of torch reserve far more than they ever use.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import platform
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
GIB = 2**20  # in the kB of /proc
EVERY = 0.1  # seconds between two looks
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
OFFLINE = ("unshare", "--map-root-user", "--net")


@dataclass(frozen=True)
class Outcome:
    """One notebook: seconds, those of the processor, peaks in GiB, and what went wrong, if anything."""

    name: str
    seconds: float
    processor: float
    kernel: float
    tree: float
    wrong: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints a table; 1 if a notebook did not make it, 2 if nothing can be measured here."""
    parser = argparse.ArgumentParser(
        description="Memory and time of notebooks on one core, without a network."
    )
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all in notebooks/")
    parser.add_argument(
        "--memory", type=float, default=2.0, metavar="GIB", help="a notebook is ended above it"
    )
    parser.add_argument("--peak", type=float, default=1.3, metavar="GIB", help="of the kernel, at most")
    parser.add_argument("--seconds", type=float, default=1200, help="a notebook is ended after it")
    parser.add_argument("--table", action="store_true", help="write the table into binder/README.md")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.inside:
        return _execute(options.notebooks[0])
    paths = options.notebooks or sorted((HERE.parent / "notebooks").glob("*.ipynb"))
    lacking = _lacking(paths)
    if lacking:
        print(f"measure: {lacking}", file=sys.stderr)
        return 2
    outcomes = []
    for path in paths:
        outcomes.append(measure(path, memory=options.memory, peak=options.peak, seconds=options.seconds))
        print(_row(outcomes[-1]), flush=True)
    if options.table:
        _write(HERE / "README.md", outcomes)
    return int(any(outcome.wrong for outcome in outcomes))


def _lacking(paths: Sequence[Path]) -> str:
    """Why nothing can be measured, or ""."""
    if not Path("/proc/self/smaps_rollup").exists():
        return (
            "needs Linux 4.14 or later, whose /proc tells the memory of processes. Elsewhere, run it in a "
            "container: docker run --memory 2g --cpus 1 ..."
        )
    missing = [path for path in paths if not path.is_file()]
    if missing or not paths:
        return f"{missing[0] if missing else 'notebooks/'}: no such notebook"
    return ""


def measure(path: Path, *, memory: float = 2.0, peak: float = 1.3, seconds: float = 1200.0) -> Outcome:
    """Executes a notebook on one core and watches its processes.

    Args:
        path: the notebook; it stays as it is.
        memory: GiB of all its processes together above which it is ended.
        peak: GiB that its kernel may take; more is reported.
        seconds: after which it is ended.
    """
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    command = [sys.executable, __file__, "--inside", str(path.resolve())]
    core = max(os.sched_getaffinity(0))
    before, begun, largest, most, wrong = _processor(), time.perf_counter(), 0.0, 0.0, ""
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            [*(OFFLINE if offline() else ()), *command], env=environment, stdout=said, stderr=said,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}), start_new_session=True,
        )  # fmt: skip
        try:
            while child.poll() is None and not wrong:
                family = _family(child.pid)
                # The client that runs the kernel is not the kernel.
                kernels = [_kib(f"/proc/{pid}/status", "VmHWM:") for pid in family if pid != child.pid]
                largest = max([largest, *kernels])
                together = sum(_kib(f"/proc/{pid}/smaps_rollup", "Pss:") for pid in family)
                most = max(most, together)
                if together > memory * GIB:
                    wrong = f"ended: {together / GIB:.2f} GiB, over the {memory:g} that there are"
                elif time.perf_counter() - begun > seconds:
                    wrong = f"ended: not done after {seconds:g} s"
                time.sleep(EVERY)
        finally:
            _end([*_family(child.pid), child.pid] if child.poll() is None else [])
            child.wait()
        took = time.perf_counter() - begun
        if not wrong and child.returncode:
            said.seek(0)
            last = said.read().decode(errors="replace").strip().splitlines()[-1:]
            wrong = f"did not run through: {' '.join(last)}"
    if not wrong and largest > peak * GIB:
        wrong = f"the kernel took {largest / GIB:.2f} GiB, over the {peak:g} that it may"
    together = max(most, largest)  # Two looks may have missed what Linux saw.
    return Outcome(path.stem, took, _processor() - before, largest / GIB, together / GIB, wrong)


def offline() -> bool:
    """Whether a process can be cut off from the network here, which takes user namespaces."""
    if shutil.which(OFFLINE[0]) is None:
        return False
    return subprocess.run([*OFFLINE, "true"], capture_output=True, check=False).returncode == 0


def _processor() -> float:
    """Seconds of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _execute(path: Path) -> int:
    """In the child: runs the notebook in memory."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    _loopback()
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": folder}}
        )
        try:
            client.execute()
        except CellExecutionError as error:
            print(f"{error.ename}: {error.evalue}".splitlines()[0])
            return 1
    return 0


def _loopback() -> None:
    """Kernel and client talk over 127.0.0.1, which a new network does not have up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(handle, 0x8913, request))[1]
        if not flags & 1:
            fcntl.ioctl(handle, 0x8914, struct.pack("16sh14x", b"lo", flags | 1))


def _family(pid: int) -> list[int]:
    """A process and all its descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The name, in brackets, may hold anything.
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue  # It has ended meanwhile.
    found = [pid] if pid in parents else []
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def _kib(path: str, name: str) -> int:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)


def _end(pids: Sequence[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _row(outcome: Outcome) -> str:
    words = f" {outcome.wrong} |" if outcome.wrong else ""
    times = f"{outcome.seconds:.0f} | {outcome.processor:.0f}"
    return f"| `{outcome.name}` | {times} | {outcome.kernel:.2f} | {outcome.tree:.2f} |{words}"


def _write(readme: Path, outcomes: Sequence[Outcome]) -> None:
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"measure: {readme} has lost its marks {BEGIN} and {END}")
    table = "\n".join(
        [
            "| notebook | seconds on one core | processor | peak of the kernel, GiB | of all processes |",
            "| --- | --- | --- | --- | --- |",
            *map(_row, outcomes),
            "",
            f"Measured on {_machine()}.",
        ]
    )
    readme.write_text(f"{before}{begin}\n{table}\n{end}{after}", encoding="utf-8")


def _machine() -> str:
    cpu = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")),
        platform.machine(),
    )  # fmt: skip
    code = "import json, torch, sys; print(json.dumps([torch.__version__, sys.version.split()[0]]))"
    torch, python = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True).stdout)
    network = "no network" if offline() else "the network not cut off"
    return f"one core of an {cpu}, {platform.system()}, Python {python}, torch {torch}, {network}"


if __name__ == "__main__":
    sys.exit(main())
