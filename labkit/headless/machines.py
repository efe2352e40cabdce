"""Do the words stay the same on another machine? All claims, under settings that change only rounding.

    python -m labkit.headless.machines [LAB ...] [--torch oldest newest] [--envs DIR] [--jobs N] [--out FILE]

Each setting runs in a process of its own: one and two threads; the plain and the AVX2 kernels of torch's own
loops; every drawn number times (1 + 1e-6 N(0, 1)), the initial weights among them; all of it in float64; and
other versions of torch, in environments of their own. A word that differs from the one here is told.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from labkit.headless.files import write_atomically

NUDGE = 1e-6


@dataclass(frozen=True)
class Machine:
    """One setting.

    Attributes:
        name: how the table calls it.
        environment: variables of its process.
        change: what is done to torch before labkit is imported: a name in CHANGES, or "".
        python: the interpreter.
    """

    name: str
    environment: dict[str, str] = field(default_factory=dict)
    change: str = ""
    python: str = sys.executable


@dataclass(frozen=True)
class Words:
    """What came out: claim -> word, with the torch that computed it; `problem` where the run ended early."""

    machine: str
    torch: str
    words: dict[str, str]
    problem: str = ""


# The first one is what the others are compared with.
MACHINES = (
    Machine("one thread", {"OMP_NUM_THREADS": "1"}),
    Machine("two threads", {"OMP_NUM_THREADS": "2"}),
    Machine("ATEN_CPU_CAPABILITY=default", {"ATEN_CPU_CAPABILITY": "default"}),
    Machine("ATEN_CPU_CAPABILITY=avx2", {"ATEN_CPU_CAPABILITY": "avx2"}),
    Machine(f"draws × (1 + {NUDGE:g} N)", change="nudged"),
    Machine("float64", change="double"),
)


def _nudged(torch: Any) -> None:
    def wrapped(draw: Callable[..., Any]) -> Callable[..., Any]:
        def nudged(*args: Any, **options: Any) -> Any:
            drawn = draw(*args, **options)
            # By what was drawn: a network that is drawn a second time is the same network.
            source = torch.Generator().manual_seed(int(1e6 * drawn.double().abs().sum()))
            noise = original(drawn.shape, generator=source, dtype=torch.float64).to(drawn.device)
            return drawn * (1 + NUDGE * noise).to(drawn.dtype)

        return nudged

    original = torch.randn
    torch.randn, torch.rand = wrapped(torch.randn), wrapped(torch.rand)


def _double(torch: Any) -> None:
    torch.set_default_dtype(torch.float64)
    torch.float32 = torch.float64  # The default of every dtype argument, read when labkit is imported.
    torch.Tensor.float = torch.Tensor.double


CHANGES: dict[str, Callable[[Any], None]] = {"nudged": _nudged, "double": _double}


def compare(
    labs: Sequence[str],
    machines: Sequence[Machine] = MACHINES,
    *,
    jobs: int = 1,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Words]:
    """Runs all claims of the labs on every machine, and collects the words.

    Args:
        labs: their numbers or names.
        machines: processors, threads and environments to run on.
        jobs: how many at a time.
        tell: is given a line for each that ended.

    Returns:
        Words, one a machine.
    """
    with ThreadPoolExecutor(jobs) as pool:
        futures = [(machine, lab, pool.submit(_words, machine, lab)) for machine in machines for lab in labs]
        found: dict[str, Words] = {}
        for machine, lab, future in futures:
            torch, words, problem = future.result()
            before = found.get(machine.name, Words(machine.name, torch, {}))
            problems = "; ".join(filter(None, (before.problem, problem and f"lab {lab}: {problem}")))
            found[machine.name] = Words(machine.name, torch or before.torch, before.words | words, problems)
            tell(f"{machine.name}: lab {lab}, {len(words)} claims{f', {problem}' if problem else ''}")
    return list(found.values())


def _words(machine: Machine, lab: str) -> tuple[str, dict[str, str], str]:
    command = [machine.python, "-m", "labkit.headless.machines", "--one", lab, "--change", machine.change]
    root = str(Path(__file__).resolve().parents[2])  # Another environment need not have labkit itself.
    environment = {**os.environ, **machine.environment, "PYTHONPATH": root}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        return "", {}, (done.stderr.strip().splitlines() or ["ended without a word"])[-1]
    told = json.loads(done.stdout.splitlines()[-1])
    return told["torch"], told["words"], told["problem"]


def _one(lab: str, change: str) -> dict[str, Any]:
    """In the process of one setting: the words of all claims of a lab."""
    import torch

    if change:
        CHANGES[change](torch)
    from labkit.headless.audit import audit
    from labkit.labs import load_lab

    result = audit(load_lab(lab), all_claims=True, keep_going=True)
    problem = "; ".join(f"{failure.experiment.name}: {failure.message}" for failure in result.failures)
    words = {verdict.id: verdict.word for verdict in result.verdicts}
    return {"torch": torch.__version__, "words": words, "problem": problem}


def table(found: Sequence[Words]) -> str:
    """A row a machine, as Markdown: how many words, and which differ from the first machine's.

    Args:
        found: what `compare` returned.

    Returns:
        Markdown.
    """
    lines = ["| setting | torch | claims | words that differ |", "| --- | --- | --- | --- |"]
    first = found[0].words
    for one in found:
        other = [
            f"{id} {one.words.get(id, 'missing')} ({word})"
            for id, word in first.items()
            if one.words.get(id) != word
        ]
        told = ", ".join(other) or "none"
        lines.append(f"| {one.machine} | {one.torch} | {len(one.words)} | {told} |")
    return "\n".join([*lines, *(f"\n{one.machine}: {one.problem}" for one in found if one.problem)])


def environment(version: str, folder: Path) -> Machine:
    """An environment with another torch, made where it is missing.

    Args:
        version: "oldest" that labkit allows, "newest" that pip finds, or a number.
        folder: where environments are kept.

    Returns:
        Machine, whose Python has that torch.

    Raises:
        ValueError: pip cannot install it.
    """
    least = next(line for line in metadata.requires("labkit") or () if re.match(r"torch\b", line))
    oldest = re.sub(r".*>=\s*([\d.]+).*", r"torch==\1.*", least)
    wanted = {"oldest": oldest, "newest": "torch"}.get(version, f"torch=={version}")
    place = folder / f"torch-{version}"
    python = place / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not python.exists():
        venv.create(place, with_pip=True)
        others = [line for line in metadata.requires("labkit") or () if "extra" not in line and line != least]
        command = [str(python), "-m", "pip", "install", "-q", wanted, *others]
        if subprocess.run(command).returncode:
            raise ValueError(f"--torch {version}: pip cannot install {wanted} into {place}")
    return Machine(f"torch {version}", python=str(python))


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of this module; exit code 1 if a word differs.

    Args:
        argv: the words after the command; those of this process when left out.

    Returns:
        The exit code.

    Raises:
        SystemExit: a word of the command line is not understood.
    """
    parser = argparse.ArgumentParser(
        prog="python -m labkit.headless.machines", description="The same words elsewhere?"
    )
    parser.add_argument("labs", nargs="*", metavar="LAB", help="numbers or names (default: all)")
    parser.add_argument("--torch", nargs="+", default=[], metavar="VERSION",
                        help="also with other torches: oldest, newest or a number")  # fmt: skip
    parser.add_argument("--envs", type=Path, default=Path("environments"), metavar="DIR",
                        help="where their environments are made and kept")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes at a time (default: 1)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table as Markdown")
    parser.add_argument("--one", metavar="LAB", help=argparse.SUPPRESS)
    parser.add_argument("--change", default="", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        sys.stdout.write(json.dumps(_one(args.one, args.change)) + "\n")
        return 0
    from labkit.labs import LABS

    machines = (*MACHINES, *(environment(version, args.envs) for version in args.torch))
    labs = args.labs or [str(number) for number in LABS]
    found = compare(labs, machines, jobs=args.jobs, tell=lambda line: _say(f"{line}\n"))
    text = table(found)
    if args.out is not None:
        write_atomically(args.out, text + "\n")
    sys.stdout.write(text + "\n")
    differs = any(one.words != found[0].words or one.problem for one in found)
    return 1 if differs else 0


def _say(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
