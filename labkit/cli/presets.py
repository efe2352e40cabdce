"""The command `labkit presets`: the settings that have a name, and what each costs."""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.cli.running import named_labs
from labkit.headless.terminal import ProgressBar

if TYPE_CHECKING:
    from labkit.protocol.experiment import Experiment


def add_presets(commands: Any) -> None:
    presets = commands.add_parser(
        "presets", help="list the named settings of every experiment, with their price", allow_abbrev=False
    )
    presets.add_argument("labs", nargs="*", metavar="LAB", help="numbers or names (default: all)")
    presets.add_argument("--experiment", nargs="+", action="extend", default=[], metavar="NAME",
                         help="these experiments alone")  # fmt: skip
    presets.add_argument("--measure", action="store_true",
                         help="find missing and stale prices by short runs, and keep them")  # fmt: skip
    presets.add_argument("--again", action="store_true", help="with --measure: also those that are kept")
    presets.add_argument("--data", type=Path, metavar="DIR",
                         help="with --measure: where mnist.npz, cifar10.npz and the like are kept; noise "
                         "stands in for those that are missing")  # fmt: skip
    presets.set_defaults(command=_presets)


def _presets(args: argparse.Namespace) -> int:
    labs = named_labs(args.labs)
    known = [experiment.name for lab in labs for experiment in lab.experiments]
    if unknown := [name for name in args.experiment if name not in known]:
        raise ValueError(f"--experiment: {', '.join(unknown)} is in none of these labs; {', '.join(known)}")
    if args.data and not args.data.is_dir():
        raise ValueError(f"--data: {args.data} is no folder")
    if args.measure:
        from labkit.headless.prices import store_prices

        with ProgressBar(sys.stderr) as bar:
            for lab in labs:
                store_prices(lab, only=args.experiment, again=args.again, data=args.data, tell=bar.say)
    for lab in labs:
        print(f"lab {lab.number}, {lab.name}")
        for experiment in lab.experiments:
            if not args.experiment or experiment.name in args.experiment:
                print(_told(experiment))
    print(
        "`labkit run LAB --experiment NAME --preset NAME` runs one; `--set dataset=FILE.npz` hands over data"
    )
    return 0


def _told(experiment: Experiment) -> str:
    """An experiment as text: each preset with its price here, and what sets it apart from the quick one."""
    from labkit.headless.prices import price_of

    lines = [f"  {experiment.name}: {experiment.title}"]
    quick = experiment.presets["quick"]
    for name, settings in experiment.presets.items():
        lines.append(f"    {name}: {price_of(experiment, name) or 'no price is kept'}")
        changes = ", ".join(f"{key}={value}" for key, value in settings.changes_from(quick).items())
        lines += textwrap.wrap(changes, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)
